package core

import (
	"testing"

	"charmhub.io/postgresql-k8s/charm/state"
)

// Who is found by a client that knows of another primary may not come back: the note is
// true, and shown once Juju has it.
func TestWhomClientsWereToldOf(t *testing.T) {
	t.Parallel()
	const nothing = "nothing"
	follows := func(o *state.Observed) { o.Leader = false }
	noted := func(told string, written bool) func(*state.Observed) {
		return func(o *state.Observed) {
			peer := &o.Relations["database-peers"][0]
			peer.LocalApp, peer.Written = map[string]string{"told": told}, written
		}
	}
	tests := []struct {
		name   string
		change []func(*state.Observed)
		notes  string // in the databag
		shows  string // at the pod
		again  bool
	}{
		{"the leader notes the primary", nil, "db-0", "", false},
		{"and shows it when Juju has it", []func(*state.Observed){noted("db-0", false)}, "db-0", "db-0", false},
		{"not what was noted of another", []func(*state.Observed){noted("db-1", false)}, "db-0", "", false},
		{"not what Juju may discard, but soon", []func(*state.Observed){noted("db-0", true)}, "db-0", "", true},
		{"unless all show it", []func(*state.Observed){noted("db-0", true), func(o *state.Observed) {
			changeKnown(&o.Kube, func(k *state.Kube) { k.Pods[0].Told = "db-0" })
		}}, "db-0", "", false},
		{"another unit shows what is noted", []func(*state.Observed){follows, noted("db-0", false)}, nothing, "db-0", false},
		{"and nothing where nobody notes", []func(*state.Observed){follows}, nothing, "", false},
		{"not when nobody can be told", []func(*state.Observed){func(o *state.Observed) { o.Database = state.Unknown[state.Catalog]("away") }}, nothing, "", false},
		{"nor while nobody leads", []func(*state.Observed){func(o *state.Observed) {
			changeKnown(&o.Cluster, func(c *state.Cluster) { c.Members[0].Role = "replica" })
		}}, nothing, "", false},
		{"without the relation there is no note", []func(*state.Observed){func(o *state.Observed) { o.Relations = nil }}, nothing, "", false},
	}
	for name, left := range map[string]state.Desired{
		"to be looked at":           {Look: []int{7}},
		"left for another dispatch": {Again: true},
		"being served":              {Clients: map[int]state.Client{7: {Digest: state.PendingDigest}}},
	} {
		obs := running()
		obs.Database = state.Value(state.Catalog{Version: "17.5"})
		if (Told{}).Desire(obs, &left); len(left.Databags) > 0 {
			t.Errorf("with a client that is %s it notes %v", name, left.Databags)
		}
	}
	for _, test := range tests {
		obs := running()
		obs.Database = state.Value(state.Catalog{Version: "17.5"})
		for _, change := range test.change {
			change(&obs)
		}
		var want state.Desired
		Told{}.Desire(obs, &want)
		notes := nothing
		for _, databag := range want.Databags {
			notes = databag.Content["told"]
		}
		if notes != test.notes || want.Told != test.shows || want.Again != test.again {
			t.Errorf("%s: it notes %q, shows %q, again %t; want %q, %q, %t", test.name, notes, want.Told, want.Again, test.notes, test.shows, test.again)
		}
	}
}
