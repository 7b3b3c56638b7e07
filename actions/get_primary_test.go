package actions

import (
	"strings"
	"testing"

	"charmhub.io/postgresql-k8s/charm/state"
)

func TestGetPrimary(t *testing.T) {
	t.Parallel()
	member := func(name, role string) state.Member {
		return state.Member{Name: name, Role: role, State: "running"}
	}
	for what, test := range map[string]struct {
		cluster state.Known[state.Cluster]
		serves  bool
		primary string
		failure string
	}{
		"the unit of the leading member": {
			cluster: state.Value(state.Cluster{Members: []state.Member{member("my-db-0", "replica"), member("my-db-12", "leader")}}),
			primary: "my-db/12",
		},
		"nobody leads": {
			cluster: state.Value(state.Cluster{Members: []state.Member{member("my-db-0", "replica")}}),
			failure: "there is no primary now",
		},
		"it serves on without the API": {
			cluster: state.Value(state.Cluster{Away: "503", Local: state.Local{Role: "primary", State: "running"}}),
			primary: "my-db/0",
		},
		"the API is away": {
			cluster: state.Value(state.Cluster{Away: "503", Local: state.Local{Role: "replica", State: "running"}}),
			failure: "ask another unit",
		},
		"the member does not run": {
			cluster: state.Unknown[state.Cluster]("connection refused"),
			failure: "connection refused",
		},
		"the leader's member does not run, and the primary serves": {
			cluster: state.Unknown[state.Cluster]("connection refused"),
			serves:  true,
			primary: "my-db/12",
		},
	} {
		obs := state.Observed{Unit: state.Unit{Name: "my-db/0", App: "my-db", Number: 0}, Cluster: test.cluster}
		obs.Kube = state.Value(state.Kube{Endpoints: map[string]state.Endpoints{obs.Unit.Scope(): {Leader: "my-db-12"}}})
		if test.serves {
			obs.Database = state.Value(state.Catalog{})
		}
		results, err := run(t, getPrimary, obs)
		if results["primary"] != test.primary {
			t.Errorf("%s: the primary is %q, want %q", what, results["primary"], test.primary)
		}
		if (err != nil) != (test.failure != "") || err != nil && !strings.Contains(err.Error(), test.failure) {
			t.Errorf("%s: the error is %v, want %q", what, err, test.failure)
		}
	}
}
