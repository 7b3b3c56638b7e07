package pebble

import "testing"

func TestTotalMemory(t *testing.T) {
	t.Parallel()
	for text, want := range map[string]int64{
		"MemTotal:       24670328 kB\nMemFree:        1 kB\n": 24670328 << 10,
		"MemFree: 1 kB\nMemTotal: 2 kB\n":                     2 << 10,
		"MemTotal: lots of kB\n":                              0,
		"MemTotal:\n":                                         0,
		"":                                                    0,
	} {
		if got := totalMemory(text); got != want {
			t.Errorf("%q is %d bytes, want %d", text, got, want)
		}
	}
}

func TestOnlineCPUs(t *testing.T) {
	t.Parallel()
	for text, want := range map[string]float64{
		"0\n": 1, "0-3\n": 4, "0-3,8\n": 5, "0-1,4-5,7\n": 5, "10-11\n": 2, "": 0, "all\n": 0, "3-1\n": 0,
	} {
		if got := onlineCPUs(text); got != want {
			t.Errorf("%q is %v CPUs, want %v", text, got, want)
		}
	}
}
