package writer

import (
	"slices"
	"testing"
	"time"
)

// second is a moment of the tests.
func second(n float64) time.Time {
	return time.Unix(1_700_000_000, 0).Add(time.Duration(n * float64(time.Second)))
}

func acksAt(seconds ...float64) (acks []Ack) {
	for i, s := range seconds {
		acks = append(acks, Ack{int64(i + 1), second(s)})
	}
	return acks
}

func TestCompare(t *testing.T) {
	t.Parallel()
	acks := []Ack{{1, second(1)}, {2, second(2)}, {4, second(3)}}
	for _, test := range []struct {
		name             string
		rows             []int64
		lost, duplicated []int64
	}{
		{"all are there", []int64{1, 2, 4}, nil, nil},
		{"what was cut off may be there or not", []int64{1, 2, 3, 4, 5}, nil, nil},
		{"one is lost", []int64{1, 4}, []int64{2}, nil},
		{"one is there twice, although nobody heard of it", []int64{3, 1, 2, 3, 4}, nil, []int64{3}},
		{"nothing is there", nil, []int64{1, 2, 4}, nil},
	} {
		got := compare(acks, test.rows)
		if !slices.Equal(got.Lost, test.lost) || !slices.Equal(got.Duplicated, test.duplicated) {
			t.Errorf("%s: lost %v, duplicated %v", test.name, got.Lost, got.Duplicated)
		}
	}
}

func TestGap(t *testing.T) {
	t.Parallel()
	for _, test := range []struct {
		name string
		acks []Ack
		want float64 // between seconds 10 and 20
	}{
		{"only what comes after the strike counts", acksAt(1, 9, 10, 11, 20, 21), 9},
		{"a gap that the strike is in began before it", acksAt(9.5, 14.5, 16, 18, 20.5), 5},
		{"a gap may go on after the end", acksAt(9, 10.5, 19, 30), 11},
		{"what never comes again is a gap to the end", acksAt(9, 11), 9},
		{"no write at all", nil, 10},
	} {
		if got := Gap(test.acks, second(10), second(20)).Seconds(); got != test.want {
			t.Errorf("%s: %v s, want %v s", test.name, got, test.want)
		}
	}
}

func TestPauses(t *testing.T) {
	t.Parallel()
	got := Pauses(acksAt(1, 1.5, 2, 4, 4.1, 7.22), time.Second)
	if want := []time.Duration{2 * time.Second, 3100 * time.Millisecond}; !slices.Equal(got, want) {
		t.Errorf("they are %v, want %v", got, want)
	}
}
