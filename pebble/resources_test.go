package pebble_test

import (
	"testing"

	"charmhub.io/postgresql-k8s/charm/state"
	"charmhub.io/postgresql-k8s/pebble"
)

func TestResources(t *testing.T) {
	t.Parallel()
	const (
		v2Memory = "/sys/fs/cgroup/memory.max"
		v2CPU    = "/sys/fs/cgroup/cpu.max"
		v1Memory = "/sys/fs/cgroup/memory/memory.limit_in_bytes"
		v1Quota  = "/sys/fs/cgroup/cpu/cpu.cfs_quota_us"
		v1Period = "/sys/fs/cgroup/cpu/cpu.cfs_period_us"
	)
	machine := state.Resources{Memory: 16 << 30, CPUs: 8}
	tests := []struct {
		name    string
		machine state.Resources
		files   map[string]string
		want    state.Resources
	}{
		{"without any file it is the machine's", machine, nil, machine},
		{"cgroup v2 without limits is the machine's", machine,
			map[string]string{v2Memory: "max\n", v2CPU: "max 100000\n"}, machine},
		{"cgroup v2 has limits", machine,
			map[string]string{v2Memory: "1073741824\n", v2CPU: "200000 100000\n"}, state.Resources{Memory: 1 << 30, CPUs: 2}},
		{"500m of a CPU is half of one", machine,
			map[string]string{v2Memory: "max\n", v2CPU: "50000 100000\n"}, state.Resources{Memory: 16 << 30, CPUs: 0.5}},
		{"a limit of memory alone leaves the CPUs", machine,
			map[string]string{v2Memory: "1073741824\n", v2CPU: "max 100000\n"}, state.Resources{Memory: 1 << 30, CPUs: 8}},
		{"limits beyond the machine are none", machine,
			map[string]string{v2Memory: "1099511627776\n", v2CPU: "1600000 100000\n"}, machine},
		{"cgroup v1 without limits is the machine's", machine,
			map[string]string{v1Memory: "9223372036854771712\n", v1Quota: "-1\n", v1Period: "100000\n"}, machine},
		{"cgroup v1 has limits", machine,
			map[string]string{v1Memory: "536870912\n", v1Quota: "150000\n", v1Period: "100000\n"}, state.Resources{Memory: 512 << 20, CPUs: 1.5}},
		{"the files of v2 win over those of v1", machine,
			map[string]string{v2Memory: "1073741824\n", v2CPU: "max 100000\n", v1Memory: "1\n", v1Quota: "1\n", v1Period: "100000\n"},
			state.Resources{Memory: 1 << 30, CPUs: 8}},
		{"files that make no sense are no limits", machine,
			map[string]string{v2Memory: "plenty\n", v2CPU: "some of\n"}, machine},
		{"neither are empty ones, nor nought, nor less", machine,
			map[string]string{v2Memory: "0\n", v2CPU: "0 100000\n", v1Memory: "-1\n"}, machine},
		{"a period of nought divides nothing", machine,
			map[string]string{v2Memory: "max\n", v2CPU: "50000 0\n"}, machine},
		{"a quota without its period is no limit", machine,
			map[string]string{v1Memory: "536870912\n", v1Quota: "150000\n"}, state.Resources{Memory: 512 << 20, CPUs: 8}},
		{"a machine that is not known has the limits", state.Resources{},
			map[string]string{v2Memory: "1073741824\n", v2CPU: "50000 100000\n"}, state.Resources{Memory: 1 << 30, CPUs: 0.5}},
		{"a machine that is not known, without limits, stays so", state.Resources{},
			map[string]string{v2Memory: "max\n", v2CPU: "max 100000\n"}, state.Resources{}},
		{"cgroup v1's word for no limit is not taken for one", state.Resources{},
			map[string]string{v1Memory: "9223372036854771712\n", v1Quota: "-1\n", v1Period: "100000\n"}, state.Resources{}},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			got := pebble.Resources(test.machine, func(path string) string { return test.files[path] })
			if got != test.want {
				t.Errorf("it may use %+v, want %+v", got, test.want)
			}
		})
	}
}

func TestMachineIsKnown(t *testing.T) {
	t.Parallel()
	if m := pebble.Machine(); m.Memory < 64<<20 || m.CPUs < 1 {
		t.Errorf("this machine has %+v", m)
	}
}
