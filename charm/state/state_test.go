package state_test

import (
	"errors"
	"fmt"
	"maps"
	"testing"

	"charmhub.io/postgresql-k8s/charm/state"
)

func TestKnown(t *testing.T) {
	t.Parallel()
	tests := []struct {
		name   string
		fact   state.Known[string]
		value  string
		known  bool
		why    string
		prints string
	}{
		{"the zero value is unknown", state.Known[string]{}, "", false, "", "unknown: "},
		{"an unknown tells why", state.Unknown[string]("it is away"), "", false, "it is away", "unknown: it is away"},
		{"empty is known", state.Value(""), "", true, "", ""},
		{"a value is known", state.Value("x"), "x", true, "", "x"},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			if value, known := test.fact.Get(); value != test.value || known != test.known {
				t.Errorf("Get is %q, %t; want %q, %t", value, known, test.value, test.known)
			}
			if why := test.fact.Why(); why != test.why {
				t.Errorf("Why is %q, want %q", why, test.why)
			}
			if text := fmt.Sprint(test.fact); text != test.prints {
				t.Errorf("it prints as %q, want %q", text, test.prints)
			}
		})
	}
}

func TestStatusIsTheFirstOfTheWorstProblems(t *testing.T) {
	t.Parallel()
	problem := func(s state.Severity, message string) state.Problem {
		return state.Problem{Severity: s, Message: message}
	}
	soon := state.Problem{Severity: state.Waiting, Message: "booting", Soon: true}
	tests := []struct {
		name     string
		problems []state.Problem
		want     state.Status
		soon     bool
	}{
		{"no problem is active, with its message", nil, state.Status{Severity: state.Active, Message: "Primary"}, false},
		{"one problem is the status", []state.Problem{problem(state.Waiting, "a")}, state.Status{Severity: state.Waiting, Message: "a"}, false},
		{"of equals the first is the status", []state.Problem{problem(state.Waiting, "a"), problem(state.Waiting, "b")},
			state.Status{Severity: state.Waiting, Message: "a"}, false},
		{"blocked is worse than maintenance", []state.Problem{problem(state.Maintenance, "a"), problem(state.Blocked, "b")},
			state.Status{Severity: state.Blocked, Message: "b"}, false},
		{"maintenance is worse than waiting", []state.Problem{problem(state.Waiting, "a"), problem(state.Maintenance, "b")},
			state.Status{Severity: state.Maintenance, Message: "b"}, false},
		{"the worst may come first", []state.Problem{problem(state.Blocked, "a"), problem(state.Waiting, "b")},
			state.Status{Severity: state.Blocked, Message: "a"}, false},
		{"one problem that is over soon makes the whole so", []state.Problem{problem(state.Blocked, "a"), soon},
			state.Status{Severity: state.Blocked, Message: "a"}, true},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			want := state.Desired{Message: "Primary"}
			for _, p := range test.problems {
				want.Problem(p)
			}
			if got := want.Status(); got != test.want {
				t.Errorf("the status is %v, want %v", got, test.want)
			}
			if got := want.Soon(); got != test.soon {
				t.Errorf("soon is %t, want %t", got, test.soon)
			}
		})
	}
}

func TestSeveritiesAreJujusWords(t *testing.T) {
	t.Parallel()
	for severity, word := range map[state.Severity]string{
		state.Active: "active", state.Waiting: "waiting", state.Maintenance: "maintenance", state.Blocked: "blocked",
	} {
		if severity.String() != word {
			t.Errorf("severity %d is %q, want %q", severity, severity, word)
		}
	}
}

func TestPrimaryIsTheOneMemberThatTakesWrites(t *testing.T) {
	t.Parallel()
	leader := state.Member{Name: "a", Role: "leader", State: "running"}
	replica := state.Member{Name: "b", Role: "replica", State: "streaming"}
	member := func(name, role, how string) state.Member { return state.Member{Name: name, Role: role, State: how} }
	tests := []struct {
		name    string
		members []state.Member
		primary string // "" for none
	}{
		{"no members have no primary", nil, ""},
		{"replicas have no primary", []state.Member{replica, member("c", "sync_standby", "streaming")}, ""},
		{"a leader that runs is the primary", []state.Member{replica, leader}, "a"},
		{"a leader that still starts is not", []state.Member{member("a", "leader", "starting"), replica}, ""},
		{"a standby leader takes no writes", []state.Member{member("a", "standby_leader", "running")}, ""},
		{"of two that claim to be, neither is", []state.Member{leader, member("b", "leader", "running")}, ""},
		{"a claimant that does not run is no rival", []state.Member{leader, member("b", "leader", "stopped")}, "a"},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			got, ok := state.Cluster{Members: test.members}.Primary()
			if got.Name != test.primary || ok != (test.primary != "") {
				t.Errorf("the primary is %q, %t; want %q", got.Name, ok, test.primary)
			}
		})
	}
}

func TestServerFitsTheData(t *testing.T) {
	t.Parallel()
	both := []state.Server{{Major: 17}, {Major: 16}}
	tests := []struct {
		name    string
		data    int
		servers []state.Server
		want    int // 0 for none
	}{
		{"without data it is the newest", 0, both, 17},
		{"the data choose", 16, both, 16},
		{"data of a server that is not there have none", 15, both, 0},
		{"an image without servers has none", 0, nil, 0},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			got, ok := state.Workload{DataMajor: test.data, Servers: test.servers}.Server()
			if got.Major != test.want || ok != (test.want != 0) {
				t.Errorf("the server is %d, %t; want %d", got.Major, ok, test.want)
			}
		})
	}
}

func TestNamesOfAUnit(t *testing.T) {
	t.Parallel()
	unit := state.Unit{Name: "db/2", App: "db", Number: 2}
	for what, names := range map[string][2]string{
		"pod":         {unit.Pod(), "db-2"},
		"host":        {unit.Host(), "db-2.db-endpoints"},
		"scope":       {unit.Scope(), "patroni-db"},
		"peer secret": {unit.PeerSecret(), "database-peers.db.app"},
	} {
		if names[0] != names[1] {
			t.Errorf("the %s is %s, want %s", what, names[0], names[1])
		}
	}
}

func TestPeerAndPod(t *testing.T) {
	t.Parallel()
	if _, ok := (state.Relations{}).Peer(); ok {
		t.Error("there is a peer relation where there is none")
	}
	if peer, ok := (state.Relations{"database-peers": {{ID: 3}}}).Peer(); !ok || peer.ID != 3 {
		t.Errorf("the peer relation is %d, %t; want 3", peer.ID, ok)
	}
	kube := state.Kube{Pods: []state.Pod{{Name: "db-0"}, {Name: "db-1"}}}
	if pod, ok := kube.Pod("db-1"); !ok || pod.Name != "db-1" {
		t.Errorf("the pod is %q, %t; want db-1", pod.Name, ok)
	}
	if _, ok := kube.Pod("db-10"); ok {
		t.Error("a pod was found that is not there")
	}
}

func TestWithLeavesItsArgumentsAlone(t *testing.T) {
	t.Parallel()
	labels, more := map[string]string{"a": "1", "b": "2"}, map[string]string{"b": "3"}
	if got, want := state.With(labels, more), map[string]string{"a": "1", "b": "3"}; !maps.Equal(got, want) {
		t.Errorf("With is %v, want %v", got, want)
	}
	if labels["b"] != "2" {
		t.Error("With changed what it was given")
	}
	if got := state.With(nil, more); !maps.Equal(got, more) {
		t.Errorf("With of nothing is %v, want %v", got, more)
	}
}

func TestAStepThatFailedIsTriedAgain(t *testing.T) {
	t.Parallel()
	if got := state.MessageFailed(errors.New("cannot write x")); got != "cannot write x; trying again" {
		t.Errorf("it shows as %q", got)
	}
}
