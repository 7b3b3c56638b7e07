package pebble

import (
	"math"
	"os"
	"strconv"
	"strings"
	"syscall"

	"charmhub.io/postgresql-k8s/charm/state"
)

// unlimited is where cgroup v1 starts to mean "no limit": its largest value is
// the largest int64, rounded down to a page.
const unlimited = math.MaxInt64 &^ (1<<20 - 1)

// Machine returns what the machine of this pod has (proc(5)), and the storage: Juju
// mounts that in the charm's container, too, at the same place.
func Machine() state.Resources {
	read := func(path string) string {
		text, _ := os.ReadFile(path) // what cannot be read counts as unknown, 0
		return string(text)
	}
	size, free := volume(state.Mount)
	return state.Resources{
		Memory: totalMemory(read("/proc/meminfo")),
		CPUs:   onlineCPUs(read("/sys/devices/system/cpu/online")),
		Volume: size,
		Free:   free,
	}
}

// volume returns how many bytes a volume has room for and how many of them are free,
// as df(1) counts: without those that only root may use (statfs(2)). It returns 0 if
// there is none.
func volume(path string) (size, free int64) {
	var fs syscall.Statfs_t
	if err := syscall.Statfs(path, &fs); err != nil {
		return 0, 0
	}
	used := int64(fs.Blocks-fs.Bfree) * fs.Frsize
	free = int64(fs.Bavail) * fs.Frsize
	return used + free, free
}

// Resources lowers what the machine has to the limits of the container's own
// control group, read by pull, which returns the content of a file or "" when
// there is none (the kernel's documents cgroup-v2 and cgroup-v1/memory).
func Resources(machine state.Resources, pull func(path string) string) state.Resources {
	r := machine
	memory, cpu := pull("/sys/fs/cgroup/memory.max"), ""
	if memory != "" {
		cpu = pull("/sys/fs/cgroup/cpu.max")
	} else {
		memory = pull("/sys/fs/cgroup/memory/memory.limit_in_bytes")
		cpu = pull("/sys/fs/cgroup/cpu/cpu.cfs_quota_us") + " " + pull("/sys/fs/cgroup/cpu/cpu.cfs_period_us")
	}
	limit, err := strconv.ParseInt(strings.TrimSpace(memory), 10, 64) // or "max"
	if err == nil && limit > 0 && limit < unlimited && (r.Memory == 0 || limit < r.Memory) {
		r.Memory = limit
	}
	if limit := cpuLimit(strings.Fields(cpu)); limit > 0 && (r.CPUs == 0 || limit < r.CPUs) {
		r.CPUs = limit
	}
	return r
}

// totalMemory reads "MemTotal:  24670328 kB".
func totalMemory(meminfo string) int64 {
	for line := range strings.Lines(meminfo) {
		if fields := strings.Fields(line); len(fields) >= 2 && fields[0] == "MemTotal:" {
			kB, err := strconv.ParseInt(fields[1], 10, 64)
			if err == nil {
				return kB << 10
			}
		}
	}
	return 0
}

// onlineCPUs counts the CPUs of a list such as "0-3,8".
func onlineCPUs(list string) float64 {
	count := 0
	for part := range strings.SplitSeq(strings.TrimSpace(list), ",") {
		first, last, isRange := strings.Cut(part, "-")
		if !isRange {
			last = first
		}
		from, err1 := strconv.Atoi(first)
		to, err2 := strconv.Atoi(last)
		if err1 == nil && err2 == nil && to >= from {
			count += to - from + 1
		}
	}
	return float64(count)
}

// cpuLimit divides the quota by the period; "max" and -1 are no limit.
func cpuLimit(fields []string) float64 {
	if len(fields) < 2 {
		return 0
	}
	quota, err1 := strconv.ParseFloat(fields[0], 64)
	period, err2 := strconv.ParseFloat(fields[1], 64)
	if err1 != nil || err2 != nil || quota <= 0 || period <= 0 {
		return 0
	}
	return quota / period
}
