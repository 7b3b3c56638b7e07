package clients_test

import (
	"fmt"
	"slices"
	"testing"

	"charmhub.io/postgresql-k8s/charm/state"
	"charmhub.io/postgresql-k8s/relations/clients"
	"charmhub.io/postgresql-k8s/relations/clients/clientstest"
)

// endpoint serves relations without ado: whom it was asked to is on record.
type endpoint struct {
	outdated func(state.Relation, state.Client) bool
}

func (e endpoint) Desire(obs state.Observed, want *state.Desired) {
	clients.Endpoint{Name: state.DatabaseEndpoint, Outdated: e.outdated, Serve: func(r state.Relation) state.Client {
		return state.Client{App: r.RemoteApp, Digest: "served", Problem: r.Remote["problem"]}
	}}.Desire(obs, want)
}

func never(state.Relation, state.Client) bool { return false }

func always(_ state.Relation, client state.Client) bool { return client.Digest != "served" }

func leading(outdated func(state.Relation, state.Client) bool, relations ...state.Relation) *clientstest.World {
	return clientstest.Leading([]clientstest.Handler{endpoint{outdated}}, relations...)
}

func related(id int, problem string) state.Relation {
	return clientstest.Related(id, state.DatabaseEndpoint, map[string]string{"problem": problem})
}

func TestOrphansAndStrangers(t *testing.T) {
	t.Parallel()
	group := []string{"relation_access"}
	tests := []struct {
		name string
		role state.Role
		goes bool
	}{
		{"a user of no relation", state.Role{Name: "relation_id_9", Login: true, MemberOf: group}, true},
		{"a user of a request of no relation", state.Role{Name: "relation_id_9_00aa", Login: true, MemberOf: group}, true},
		{"one who is to go already, and cannot log in any more", state.Role{Name: "relation_id_9", MemberOf: group}, true},
		{"a user of a relation that is there", state.Role{Name: "relation_id_7", Login: true, MemberOf: group}, false},
		{"a user of such a relation's request", state.Role{Name: "relation_id_7_00cc", Login: true, MemberOf: group}, false},
		{"a role of the name, but not of the group", state.Role{Name: "relation_id_9", Login: true}, false},
		{"a role of the group, but another name", state.Role{Name: "relation_id_x", Login: true, MemberOf: group}, false},
		{"a name that only begins so", state.Role{Name: "relation_id_9_00aa_more", Login: true, MemberOf: group}, false},
		{"a name that only ends so", state.Role{Name: "my_relation_id_9", Login: true, MemberOf: group}, false},
		{"a number that is none of Juju's", state.Role{Name: "relation_id_99999999999999999999", Login: true, MemberOf: group}, false},
		{"a system user", state.Role{Name: "monitoring", Login: true, MemberOf: group}, false},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			obs := leading(never, related(7, ""))
			catalog, _ := obs.Database.Get()
			catalog.Roles[test.role.Name] = test.role
			want := obs.Desire()
			if goes := len(want.Roles) == 1 && want.Roles[0].Name == test.role.Name && want.Roles[0].Absent; goes != test.goes || len(want.Roles) > 1 {
				t.Errorf("it wishes %q", obs.Describe(want))
			}
		})
	}
}

// Juju hides relations from a unit that it removes: they are not gone.
func TestALeaderOnItsWayOutForgetsNobody(t *testing.T) {
	t.Parallel()
	obs := leading(never)
	obs.Leaving = true
	obs.Clients[7] = state.Client{App: "app", Digest: "served", Secrets: []string{"secret://uuid/7"}}
	catalog, _ := obs.Database.Get()
	catalog.Roles["relation_id_7"] = state.Role{Name: "relation_id_7", Login: true, MemberOf: []string{"relation_access"}}
	want := obs.Desire()
	if len(want.Roles) > 0 || len(want.Unneeded) > 0 || want.Clients[7].App != "app" {
		t.Errorf("it wishes %q, and records %v", obs.Describe(want), want.Clients)
	}
}

func TestWhoIsServed(t *testing.T) {
	t.Parallel()
	tests := []struct {
		name   string
		change func(*clientstest.World)
		want   []string
	}{
		{"who was read", func(*clientstest.World) {}, []string{"record 7: served"}},
		{"who was told something else", func(w *clientstest.World) {
			w.Relations[state.DatabaseEndpoint][0].Read = false
			w.Clients[7] = state.Client{App: "app", Digest: "old"}
		}, []string{"look at 7"}},
		{"nobody while another unit leads", func(w *clientstest.World) { w.Leader = false }, nil},
		{"who was read, as long as this unit leads", func(w *clientstest.World) { w.Leaving = true }, []string{"record 7: served"}},
		{"nobody without the peers, who keep the record", func(w *clientstest.World) { delete(w.Relations, state.PeerEndpoint) }, nil},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			obs := leading(always, related(7, ""))
			test.change(obs)
			if got := obs.Describe(obs.Desire()); !slices.Equal(got, test.want) {
				t.Errorf("it wishes %q, want %q", got, test.want)
			}
		})
	}
}

// A problem stays on the status while its relation is not read again.
func TestProblemsAreOnRecord(t *testing.T) {
	t.Parallel()
	obs := leading(never, related(7, "no"))
	obs.Passes(t, [][]string{{"record 7: servedno", "blocked: no"}, {"blocked: no"}, {"commit"}, {"blocked: no"}})
	delete(obs.Relations, state.DatabaseEndpoint)
	obs.Passes(t, [][]string{{"forget 7"}, nil})
}

func TestManyAreServedInTurn(t *testing.T) {
	t.Parallel()
	obs := leading(always)
	const n = 120
	for id := 1; id <= n; id++ {
		relation := related(id, "")
		relation.Read = false
		obs.Relations[state.DatabaseEndpoint] = append(obs.Relations[state.DatabaseEndpoint], relation)
		obs.Clients[id] = state.Client{App: fmt.Sprint("app-", id), Digest: "old"}
	}
	for _, more := range []struct {
		looks int
		again bool
	}{{50, true}, {50, true}, {20, false}} {
		want := obs.Desire()
		if len(want.Look) != more.looks || want.Again != more.again {
			t.Fatalf("it looks at %d, and again: %t; want %d, %t", len(want.Look), want.Again, more.looks, more.again)
		}
		for range 2 { // they are read, and then served
			obs.Apply(t, obs.Desire())
		}
		if want := obs.Desire(); len(want.Look) != 0 || want.Again != more.again {
			t.Fatalf("in the same dispatch it looks at %d more, and again: %t", len(want.Look), want.Again)
		}
		obs.Commit()
	}
}

// served is a world of relations that a leader has looked at, and nobody since.
func served(n int, leader string) *clientstest.World {
	obs := leading(never)
	for id := 1; id <= n; id++ {
		relation := related(id, "")
		relation.Read = false
		obs.Relations[state.DatabaseEndpoint] = append(obs.Relations[state.DatabaseEndpoint], relation)
		obs.Clients[id] = state.Client{App: "app", Digest: "served", Leader: leader}
	}
	return obs
}

// What clients write while nobody leads, no leader has seen.
func TestANewLeaderLooksAtAllOnce(t *testing.T) {
	t.Parallel()
	tests := []struct {
		name   string
		leader string // that looked last; this unit is db/0
		change func(*clientstest.World)
		passes [][]string
	}{
		{"this unit leads on", "db/0", func(*clientstest.World) {}, [][]string{nil}},
		{"another unit has led", "db/1", func(*clientstest.World) {}, [][]string{{"look at 1"}, {"record 1: served"}, nil, {"commit"}, nil}},
		{"one of a revision that does not say", "", func(*clientstest.World) {}, [][]string{{"look at 1"}, {"record 1: served"}, nil, {"commit"}, nil}},
		{"this unit is elected again", "db/0", func(w *clientstest.World) { w.Event.Name = "leader-elected" },
			[][]string{{"look at 1", "record 1: served"}, {"record 1: served"}, nil}},
		{"it is elected again, and could serve nobody", "db/0", func(w *clientstest.World) {
			w.Event.Name = "leader-elected"
			w.Database = state.Unknown[state.Catalog]("away")
		}, [][]string{{"record 1: served"}, nil}},
		{"another unit has led, and this one could serve nobody", "db/1", func(w *clientstest.World) { w.Database = state.Unknown[state.Catalog]("away") },
			[][]string{nil}},
		{"nobody is primary", "db/1", func(w *clientstest.World) { w.Cluster = state.Value(state.Cluster{}) }, [][]string{nil}},
		{"another unit leads", "db/1", func(w *clientstest.World) { w.Leader = false }, [][]string{nil}},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			obs := served(1, test.leader)
			catalog := obs.Database
			test.change(obs)
			obs.Passes(t, test.passes)
			// The looks that are due are not lost, and made but once.
			obs.Event, obs.Leader, obs.Database = state.Event{}, true, catalog
			obs.Cluster = state.Value(state.Cluster{Members: []state.Member{{Name: "db-0", Role: "leader", State: "running"}}})
			obs.Commit()
			obs.ServeAll(t)
			obs.Passes(t, [][]string{nil})
			if leader := obs.Clients[1].Leader; leader != "db/0" {
				t.Errorf("%q has looked at it", leader)
			}
		})
	}
}

func TestANewLeaderLooksAtManyInTurn(t *testing.T) {
	t.Parallel()
	for leader, elected := range map[string]string{"db/1": "", "db/0": "leader-elected"} {
		obs := served(120, leader)
		obs.Event.Name = elected
		for _, looks := range []int{50, 50, 20, 0} {
			want := obs.Desire()
			if len(want.Look) != looks || want.Again != (looks == 50) {
				t.Fatalf("it looks at %d, and again: %t; want %d", len(want.Look), want.Again, looks)
			}
			kept := obs.Clients // Juju discards what a killed hook has done
			for range 2 {
				obs.Apply(t, obs.Desire())
			}
			done := obs.Clients
			obs.Clients = kept
			obs.Commit()
			if again := obs.Desire(); len(again.Look) != looks {
				t.Fatalf("after it was killed it looks at %d, want %d", len(again.Look), looks)
			}
			obs.Clients, obs.Event = done, state.Event{}
		}
	}
}

// In a failover the facts come and go within one dispatch: who was served stays served.
func TestWhoWasServedStaysSoWhileThereIsNobodyToAsk(t *testing.T) {
	t.Parallel()
	obs := served(1, "db/0")
	catalog := obs.Database
	obs.Relations[state.DatabaseEndpoint][0].Read = true
	obs.Database = state.Unknown[state.Catalog]("the primary is being promoted")
	obs.Apply(t, obs.Desire())
	if client := obs.Clients[1]; client.Digest != "served" || client.Leader != "" {
		t.Errorf("the record is %+v", client)
	}
	if again := obs.Desire(); len(again.Look) != 0 {
		t.Errorf("it looks at %v", again.Look)
	}
	obs.Commit()
	obs.Relations[state.DatabaseEndpoint][0].Read = false
	obs.Database = catalog
	if again := obs.Desire(); len(again.Look) != 1 {
		t.Errorf("when there is somebody to ask it looks at %v", again.Look)
	}
}
