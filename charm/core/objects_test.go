package core

import (
	"reflect"
	"slices"
	"testing"
	"time"

	"gopkg.in/yaml.v3"

	"charmhub.io/postgresql-k8s/charm/state"
	"charmhub.io/postgresql-k8s/tests/golden"
)

func TestObjects(t *testing.T) {
	t.Parallel()
	want := desire(running(), Objects{})
	data, err := yaml.Marshal(map[string]any{
		"pod-labels": want.PodLabels, "services": want.Services, "endpoints": want.Endpoints, "left-over": want.Leftovers,
	})
	if err != nil {
		t.Fatal(err)
	}
	golden.Equal(t, "objects.yaml", string(data))

	obs := running()
	obs.Leaving = true
	if got := desire(obs, Objects{}); !reflect.DeepEqual(got, state.Desired{}) {
		t.Errorf("a unit on its way out wishes %v", got)
	}
}

func TestLeftovers(t *testing.T) {
	t.Parallel()
	born := time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	owner := state.Owner{Name: "db", UID: "ours", Created: born}
	tests := []struct {
		name  string
		e     state.Endpoints
		young bool // the application has had no primary yet
		want  bool
	}{
		{"what we own stays", state.Endpoints{OwnerUID: "ours", Created: born.Add(-time.Hour)}, true, false},
		{"what somebody else owns goes", state.Endpoints{OwnerUID: "dead", Created: born.Add(time.Hour)}, true, true},
		{"what nobody owns and is older than we are goes", state.Endpoints{Created: born.Add(-time.Second)}, true, true},
		{"what nobody owns and is as old as we are stays", state.Endpoints{Created: born}, true, false},
		{"what nobody owns and is younger stays", state.Endpoints{Created: born.Add(time.Second)}, true, false},
		{"of an application that has had a primary, what nobody owns stays, when its StatefulSet is made anew", state.Endpoints{Created: born.Add(-time.Hour)}, false, false},
		{"and what the one before still owns", state.Endpoints{OwnerUID: "dead", Created: born.Add(-time.Hour)}, false, false},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			obs := running()
			if !test.young {
				obs.Relations["database-peers"][0].LocalApp = map[string]string{"cluster_initialised": "True"}
			}
			test.e.Name = "patroni-db"
			obs.Kube = state.Value(state.Kube{Owner: owner, Endpoints: map[string]state.Endpoints{"patroni-db": test.e}})
			var want []string
			if test.want {
				want = []string{"patroni-db"}
			}
			if got := desire(obs, Objects{}).Leftovers; !slices.Equal(got, want) {
				t.Errorf("the left-overs are %v, want %v", got, want)
			}
		})
	}
}

// In a refresh from upstream its leader is at work while the first of our members
// starts, and nobody owns Patroni's objects.
func TestAMemberJoinsAClusterThatNobodyOwns(t *testing.T) {
	t.Parallel()
	born := time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	kube := func(created time.Time, names ...string) state.Kube {
		k := state.Kube{Owner: state.Owner{Name: "db", UID: "ours", Created: created}, Endpoints: map[string]state.Endpoints{}}
		for _, name := range names {
			k.Endpoints[name] = state.Endpoints{Name: name, Created: born}
		}
		return k
	}
	for name, test := range map[string]struct {
		kube state.Kube
		want bool
	}{
		"that is younger than the application": {kube(born.Add(-time.Hour), store...), true},
		"but not one that is older":            {kube(born.Add(time.Hour), store...), false},
		"nor one that is not complete":         {kube(born.Add(-time.Hour), store[:2]...), false},
	} {
		if got := storeReady(state.Observed{}, test.kube, store); got != test.want {
			t.Errorf("%s: it joins: %t", name, got)
		}
	}
}
