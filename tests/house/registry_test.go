package house

import (
	"maps"
	"os"
	"slices"
	"testing"

	"gopkg.in/yaml.v3"

	"charmhub.io/postgresql-k8s/actions"
	"charmhub.io/postgresql-k8s/charm"
)

// description is what charmcraft.yaml declares.
type description struct {
	Provides, Requires map[string]any
	Actions            map[string]struct {
		Params map[string]struct{ Type, Description string }
	}
}

func describe(t *testing.T) description {
	t.Helper()
	data, err := os.ReadFile("../../charmcraft.yaml")
	if err != nil {
		t.Fatal(err)
	}
	var d description
	if err := yaml.Unmarshal(data, &d); err != nil {
		t.Fatal(err)
	}
	return d
}

func TestEveryEndpointHasAHandlerOfItsName(t *testing.T) {
	t.Parallel()
	d := describe(t)
	var names []string
	for _, h := range charm.Handlers() {
		names = append(names, h.Name())
	}
	for _, endpoints := range []map[string]any{d.Provides, d.Requires} {
		for endpoint := range endpoints {
			if !slices.Contains(names, endpoint) {
				t.Errorf("charmcraft.yaml declares %s, which charm.Handlers does not serve", endpoint)
			}
		}
	}
}

func TestEveryActionIsDeclaredAndServed(t *testing.T) {
	t.Parallel()
	var served []string
	for _, a := range actions.All() {
		served = append(served, a.Name)
	}
	slices.Sort(served)
	if declared := slices.Sorted(maps.Keys(describe(t).Actions)); !slices.Equal(declared, served) {
		t.Errorf("charmcraft.yaml declares the actions %v, the registry has %v", declared, served)
	}
}

func TestEveryParameterOfAnActionIsDeclared(t *testing.T) {
	t.Parallel()
	declared := describe(t).Actions
	for _, a := range actions.All() {
		params := declared[a.Name].Params
		if got, want := slices.Sorted(maps.Keys(params)), slices.Sorted(slices.Values(a.Params)); !slices.Equal(got, want) {
			t.Errorf("charmcraft.yaml declares the parameters %v of %s, which knows %v", got, a.Name, want)
		}
		for name, param := range params {
			if param.Type == "" || param.Description == "" {
				t.Errorf("the parameter %s of %s has no type or no description", name, a.Name)
			}
		}
	}
}
