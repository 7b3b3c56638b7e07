package core

import (
	"slices"
	"strings"
	"testing"

	"charmhub.io/postgresql-k8s/charm/config"
	"charmhub.io/postgresql-k8s/charm/state"
)

func TestReplication(t *testing.T) {
	t.Parallel()
	type sync = state.Synchronous
	five := []string{"db/0", "db/1", "db/2", "db/3", "db/4"}
	standby := func(o *state.Observed) {
		changeKnown(&o.Cluster, func(c *state.Cluster) {
			c.Members = append(c.Members, state.Member{Name: "db-1", Role: "sync_standby", State: "streaming"})
		})
	}
	option := func(key string, value any) func(*state.Observed) {
		return func(o *state.Observed) { o.Config = config.Parse(map[string]any{key: value}) }
	}
	tests := []struct {
		name   string
		units  []string
		change []func(*state.Observed)
		want   sync
	}{
		{"one unit has nobody to wait for", five[:1], nil, sync{}},
		{"the only replica confirms", five[:2], nil, sync{Count: 1}},
		{"once it does, commits wait for it", five[:2], []func(*state.Observed){standby}, sync{Count: 1, Strict: true}},
		{"and go on to wait while it is away", five[:2], []func(*state.Observed){func(o *state.Observed) {
			changeKnown(&o.Cluster, func(c *state.Cluster) { c.Dynamic = map[string]any{"synchronous_mode_strict": true} })
		}}, sync{Count: 1, Strict: true}},
		{"until it is removed", five[:1], []func(*state.Observed){standby}, sync{}},
		{"unless that is not wanted", five[:2], []func(*state.Observed){standby, option("synchronous_mode_strict", false)}, sync{Count: 1}},
		{"either of two confirms", five[:3], nil, sync{Quorum: true, Count: 1}},
		{"any two of four confirm", five, nil, sync{Quorum: true, Count: 2}},
		{"all confirm if so configured", five[:3], []func(*state.Observed){option("synchronous_node_count", "all")}, sync{Count: 2}},
		{"or a number", five, []func(*state.Observed){option("synchronous_node_count", "3")}, sync{Quorum: true, Count: 3}},
		{"but not more than there are", five[:3], []func(*state.Observed){option("synchronous_node_count", "7")}, sync{Count: 2}},
		{"Patroni 3 knows no quorum", five[:3], []func(*state.Observed){func(o *state.Observed) {
			changeKnown(&o.Cluster, func(c *state.Cluster) { c.Local.Version = "3.3.1" })
		}}, sync{Count: 1}},
		{"nor does a cluster with one of them", five[:3], []func(*state.Observed){func(o *state.Observed) {
			changeKnown(&o.Kube, func(k *state.Kube) { k.Pods = []state.Pod{{Patroni: "4.0.7"}, {Patroni: "3.3.1"}} })
		}}, sync{Count: 1}},
		{"who has not started says nothing", five[:3], []func(*state.Observed){func(o *state.Observed) {
			changeKnown(&o.Kube, func(k *state.Kube) { k.Pods = []state.Pod{{Patroni: "4.0.7"}, {}} })
		}}, sync{Quorum: true, Count: 1}},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			obs := running()
			obs.Units = state.Value(test.units)
			for _, change := range test.change {
				change(&obs)
			}
			if got, known := desire(obs, Replication{}).Synchronous.Get(); !known || got != test.want {
				t.Errorf("it wishes %+v (%t), want %+v", got, known, test.want)
			}
		})
	}
	for name, change := range map[string]func(*state.Observed){
		"the units are not known":        func(o *state.Observed) { o.Units = state.Known[[]string]{} },
		"the application is removed":     func(o *state.Observed) { o.Units = state.Value([]string{}) },
		"the cluster is not known":       func(o *state.Observed) { o.Cluster = state.Known[state.Cluster]{} },
		"the primary leaves":             func(o *state.Observed) { o.Units = state.Value(five[1:]) },
		"the configuration is not valid": func(o *state.Observed) { o.Config = config.Parse(map[string]any{"profile": 1}) },
	} {
		obs := running()
		obs.Units = state.Value(five)
		change(&obs)
		if _, known := desire(obs, Replication{}).Synchronous.Get(); known {
			t.Errorf("something is wished when %s", name)
		}
	}
}

// A leader that is removed together with the primary has to tell clients who the
// next one is.
func TestTheLeaderHasTheLastWord(t *testing.T) {
	t.Parallel()
	for name, test := range map[string]struct {
		primary string // of the members
		stays   []string
		waits   bool
	}{
		"while the primary is to go, too":         {"db-1", []string{"db/2"}, true},
		"while there is none":                     {"", []string{"db/2"}, true},
		"not once there is another":               {"db-2", []string{"db/2"}, false},
		"not when the whole application is going": {"db-1", []string{}, false},
		"not when only its pod is replaced":       {"db-1", []string{"db/0", "db/2"}, false},
	} {
		obs := running()
		obs.Leaving, obs.Units = true, state.Value(test.stays)
		changeKnown(&obs.Cluster, func(c *state.Cluster) {
			c.Members = []state.Member{{Name: test.primary, Role: "leader", State: "running"}, {Name: "db-0", Role: "replica", State: "streaming"}}
		})
		want := desire(obs, Succession{})
		if want.Soon() != test.waits || want.Patient != test.waits || want.Successor.Name != "" {
			t.Errorf("%s: it waits: %t; with patience: %t", name, want.Soon(), want.Patient)
		}
	}
}

func TestSuccession(t *testing.T) {
	t.Parallel()
	member := func(name, role, condition string, lag int64) state.Member {
		return state.Member{Name: name, Role: role, State: condition, Lag: state.Value(lag)}
	}
	stays := []string{"db/1", "db/2", "db/3"}
	replicas := []state.Member{
		member("db-1", "replica", "streaming", 0),
		member("db-2", "quorum_standby", "streaming", 16),
		member("db-3", "quorum_standby", "streaming", 8),
	}
	tests := []struct {
		name   string
		change func(*state.Observed)
		want   string
	}{
		{"a synchronous replica with little lag takes over", func(*state.Observed) {}, "db-3"},
		{"one that is removed, too, does not", func(o *state.Observed) { o.Units = state.Value(stays[:2]) }, "db-2"},
		{"one that is ill does not", func(o *state.Observed) {
			changeKnown(&o.Cluster, func(c *state.Cluster) { c.Members[3].State = "stopped" })
		}, "db-2"},
		{"one that may lack commits does not", func(o *state.Observed) { o.Units = state.Value(stays[:1]) }, "nobody yet"},
		{"it will do where replicas confirm nothing", func(o *state.Observed) {
			o.Units = state.Value(stays[:1])
			changeKnown(&o.Cluster, func(c *state.Cluster) { c.Dynamic = nil })
		}, "db-1"},
		{"nobody does when the application is removed", func(o *state.Observed) { o.Units = state.Value([]string{}) }, ""},
		{"nobody does when only the pod is replaced", func(o *state.Observed) { o.Units = state.Value(append([]string{"db/0"}, stays...)) }, ""},
		{"nobody does while the unit stays", func(o *state.Observed) { o.Leaving = false }, ""},
		{"a replica hands nothing over", func(o *state.Observed) {
			changeKnown(&o.Cluster, func(c *state.Cluster) { c.Members[0].Role, c.Members[1].Role = "replica", "leader" })
		}, ""},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			obs := running()
			obs.Leader = false
			obs.Leaving, obs.Units = true, state.Value(slices.Clone(stays))
			changeKnown(&obs.Cluster, func(c *state.Cluster) {
				c.Members, c.Dynamic = append(c.Members, replicas...), map[string]any{"synchronous_mode": "quorum"}
			})
			test.change(&obs)
			want := desire(obs, Succession{})
			if want.Successor.Name != strings.TrimSuffix(test.want, "nobody yet") {
				t.Errorf("%q takes over, want %q", want.Successor.Name, test.want)
			}
			if units, _ := obs.Units.Get(); want.Successor.Name != "" && want.Successor.Any != (len(units) == len(stays)) {
				t.Errorf("with %v to stay any will do: %t", units, want.Successor.Any)
			}
			if waits := test.want != ""; want.Soon() != waits || want.Patient != waits {
				t.Errorf("it waits for the end of it: %t; with patience: %t", want.Soon(), want.Patient)
			}
		})
	}
}

// The last hook of a unit that is gone for good ends its member: Juju may leave the pod.
func TestAMemberEndsWithItsUnit(t *testing.T) {
	t.Parallel()
	follows := func(o *state.Observed) {
		changeKnown(&o.Cluster, func(c *state.Cluster) {
			c.Members[0].Role = "replica"
			c.Members = append(c.Members, state.Member{Name: "db-1", Role: "leader", State: "running"})
		})
	}
	for _, test := range []struct {
		name, event string
		change      func(*state.Observed)
		stops       bool
	}{
		{"a replica", "remove", follows, true},
		{"it still has hooks to come", "stop", follows, false},
		{"a primary, which nobody has succeeded", "remove", func(*state.Observed) {}, false},
		{"nobody leads", "remove", func(o *state.Observed) {
			changeKnown(&o.Cluster, func(c *state.Cluster) { c.Members[0].Role = "replica" })
		}, false},
		{"the application is removed", "remove", func(o *state.Observed) { follows(o); o.Units = state.Value([]string{}) }, false},
		{"the unit stays", "remove", func(o *state.Observed) { follows(o); o.Units = state.Value([]string{"db/0", "db/1"}) }, false},
	} {
		obs := running()
		obs.Leader, obs.Leaving, obs.Event.Name, obs.Units = false, true, test.event, state.Value([]string{"db/1"})
		test.change(&obs)
		if want := desire(obs, Succession{}); want.Stop != test.stops {
			t.Errorf("%s: it is stopped: %t", test.name, want.Stop)
		}
	}
}
