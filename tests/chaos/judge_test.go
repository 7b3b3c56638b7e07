package main

import (
	"maps"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"time"
)

// second is a moment of the tests.
func second(n float64) time.Time {
	return time.Unix(1_700_000_000, 0).Add(time.Duration(n * float64(time.Second)))
}

func TestWrong(t *testing.T) {
	t.Parallel()
	whole := func() view {
		return view{
			units: []unit{
				{name: "db/0", status: "active", message: "Primary"},
				{name: "db/1", status: "active"}, {name: "db/2", status: "active"},
			},
			holder: "db-0", told: "10.0.0.1:5432",
			members: map[string]member{
				"db-0": {address: "10.0.0.1", state: "running", role: "primary", timeline: 2},
				"db-1": {address: "10.0.0.2", state: "running", role: "replica", replication: "streaming", timeline: 2},
				"db-2": {address: "10.0.0.3", state: "running", role: "replica", replication: "streaming", timeline: 2},
			},
		}
	}
	for _, test := range []struct {
		name   string
		change func(*view)
		want   string // contained in the one complaint
	}{
		{"whole", func(*view) {}, ""},
		{"a unit is missing", func(v *view) { v.units = v.units[:2] }, "2 units"},
		{"a unit waits", func(v *view) { v.units[1].status = "waiting" }, "db/1 is waiting"},
		{"two show Primary", func(v *view) { v.units[1].message = "Primary" }, "db/1 shows"},
		{"a replica does not stream", func(v *view) { v.members["db-2"] = member{role: "replica", state: "running", timeline: 2} }, "db/2 is replica running"},
		{"a replica is behind", func(v *view) {
			v.members["db-2"] = member{role: "replica", replication: "streaming", timeline: 1}
		}, "db/2 is on timeline 1"},
		{"the databag leads elsewhere", func(v *view) { v.told = "10.0.0.2:5432" }, "databag leads to 10.0.0.2"},
	} {
		v := whole()
		v.members = maps.Clone(v.members)
		test.change(&v)
		got := v.wrong(3)
		if test.want == "" && len(got) > 0 || test.want != "" && (len(got) != 1 || !strings.Contains(got[0], test.want)) {
			t.Errorf("%s: %q", test.name, got)
		}
	}
}

func TestTimeline(t *testing.T) {
	t.Parallel()
	line := &timeline{note: func(string, string) {}, seen: map[string][]sighting{
		"lock": {{second(1), "a"}, {second(5), ""}, {second(7), "b"}},
	}}
	if value, from := line.since("lock", second(6)); value != "" || !from.Equal(second(5)) {
		t.Errorf("at 6 s it is %q since %s", value, from)
	}
	if at, found := line.first("lock", second(1), func(v string) bool { return v == "b" }); !found || !at.Equal(second(7)) {
		t.Errorf("first b at %s, %v", at, found)
	}
	if _, found := line.first("lock", second(2), func(v string) bool { return v == "a" }); found {
		t.Error("a is found after it was")
	}
	line.see("lock", "b")
	if len(line.seen["lock"]) != 3 {
		t.Error("what stays the same is a change")
	}
}

func TestDraw(t *testing.T) {
	t.Parallel()
	order := func(seed uint64) (names []string) {
		for _, f := range draw(faults, len(faults), rand.New(rand.NewPCG(seed, seed))) {
			names = append(names, f.name)
		}
		return names
	}
	if !slices.Equal(order(1), order(1)) || slices.Equal(order(1), order(2)) {
		t.Error("the seed does not decide the order")
	}
	if names := slices.Sorted(slices.Values(order(1))); len(slices.Compact(names)) != len(faults) {
		t.Errorf("not every fault is drawn once: %q", names)
	}
}

func TestReport(t *testing.T) {
	t.Parallel()
	took := 12 * time.Second
	run := func(gap time.Duration) result {
		return result{
			fault: faults[indexFault("kill-pod")], struck: second(1), failover: true, streams: &took,
			gaps:     map[string]time.Duration{"endpoints": gap, "uris": gap},
			readOnly: map[string]int{"endpoints": 2}, told: &delay{time.Second, time.Second / 2},
		}
	}
	text := table([]result{run(time.Second), run(3 * time.Second), run(2 * time.Second),
		{fault: faults[indexFault("api-down")], skipped: "impossible here"}})
	for _, want := range []string{"kill-pod", "2.0s/3.0s/3.0s", "1.0s/1.0s", "6/0", "12.0s/12.0s", "api-down", "skipped: impossible"} {
		if !strings.Contains(text, want) {
			t.Errorf("the table lacks %q:\n%s", want, text)
		}
	}
	if strings.Contains(text, "scale") {
		t.Error("the table has faults that were not drawn")
	}
	if verdict([]result{run(0)}, tally{}) != nil || verdict(nil, tally{lost: 1}) == nil {
		t.Error("the verdict is wrong")
	}
}

func TestPrograms(t *testing.T) {
	t.Parallel()
	for _, test := range []struct {
		program      program
		name, parent string
		want         bool
	}{
		{postmaster, "postgres", "patroni", true},
		{postmaster, "postgres", "postgres", false}, // a backend
		{postgres, "postgres", "postgres", true},
		{patroni, "patroni", "pebble", true},
		{patroni, "pebble", "", false},
		{both, "postgres", "postgres", true},
	} {
		if got := test.program.runs(test.name, test.parent); got != test.want {
			t.Errorf("%s below %s is %s: %v", test.name, test.parent, test.program, got)
		}
	}
}
