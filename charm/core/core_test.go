package core

import (
	"reflect"
	"slices"
	"testing"

	"charmhub.io/postgresql-k8s/charm/config"
	"charmhub.io/postgresql-k8s/charm/state"
)

var unit = state.Unit{Name: "db/0", App: "db", Number: 0, Model: "test", ModelUUID: "uuid"}

// store are the names of Patroni's objects in Kubernetes.
var store = []string{"patroni-db", "patroni-db-config", "patroni-db-sync"}

// running is what a unit observes whose member is the primary. A test changes a
// fact or two of it.
func running() state.Observed {
	kube := state.Kube{Owner: state.Owner{Name: "db", UID: "ours"}, Pods: []state.Pod{{Name: "db-0", IP: "10.1.0.1"}}, Endpoints: map[string]state.Endpoints{}}
	for _, name := range store {
		kube.Endpoints[name] = state.Endpoints{Name: name, OwnerUID: "ours"}
	}
	return state.Observed{
		Unit: unit, Leader: true, Config: config.Parse(nil),
		Secrets:   map[string]state.Secret{"database-peers.db.app": {Content: allPasswords(), Committed: true}},
		Relations: state.Relations{"database-peers": {{ID: 1, Endpoint: "database-peers"}}},
		Workload: state.Value(state.Workload{
			Mount:   state.Directory{Path: state.Mount},
			Servers: []state.Server{{Major: 17, BinDir: "/usr/lib/postgresql/17/bin"}},
		}),
		Cluster: state.Value(state.Cluster{
			Local:   state.Local{Name: "db-0", Version: "4.0.7", Role: "primary", State: "running", ServerVersion: "17.5"},
			Members: []state.Member{{Name: "db-0", Role: "leader", State: "running"}},
		}),
		Kube: state.Value(kube),
	}
}

func allPasswords() map[string]state.Redacted {
	content := map[string]state.Redacted{}
	for _, key := range passwordKeys {
		content[key] = state.Redacted("of " + key)
	}
	return content
}

// changeKnown changes a fact of an observation.
func changeKnown[T any](fact *state.Known[T], change func(*T)) {
	v, _ := fact.Get()
	change(&v)
	*fact = state.Value(v)
}

func secretWith(content map[string]state.Redacted, committed bool) map[string]state.Secret {
	return map[string]state.Secret{"database-peers.db.app": {Content: content, Committed: committed}}
}

// desire asks some handlers, in their order.
func desire(obs state.Observed, handlers ...interface {
	Desire(state.Observed, *state.Desired)
}) state.Desired {
	var want state.Desired
	for _, h := range handlers {
		h.Desire(obs, &want)
	}
	return want
}

func TestSecrets(t *testing.T) {
	t.Parallel()
	drafted := allPasswords()
	incomplete := allPasswords()
	delete(incomplete, "rewind-password")
	tests := []struct {
		name    string
		change  func(*state.Observed)
		wished  bool
		content map[string]state.Redacted // to be saved
	}{
		{"the passwords that exist are saved", func(*state.Observed) {}, true, allPasswords()},
		{"a draft of them is saved", func(o *state.Observed) { o.Secrets = secretWith(drafted, false) }, true, drafted},
		{"before there are any, nothing is saved", func(o *state.Observed) { o.Secrets = nil }, true, nil},
		{"before all are there, nothing is saved", func(o *state.Observed) { o.Secrets = secretWith(incomplete, true) }, true, nil},
		{"a unit on its way out wishes none", func(o *state.Observed) { o.Leaving = true }, false, nil},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			obs := running()
			test.change(&obs)
			var want []state.SecretWish
			if test.wished {
				want = []state.SecretWish{{Label: "database-peers.db.app", Content: test.content, Generate: []string{
					"operator-password", "replication-password", "rewind-password", "monitoring-password", "patroni-password",
				}}}
			}
			if got := desire(obs, Secrets{}).Secrets; !reflect.DeepEqual(got, want) {
				t.Errorf("the secrets are %v, want %v", got, want)
			}
		})
	}
}

func TestUsers(t *testing.T) {
	t.Parallel()
	roles := []state.Role{
		{Name: "backup", Login: true, Superuser: true},
		{Name: "monitoring", Login: true, MemberOf: []string{"pg_monitor"}, Password: "of monitoring-password"},
		{Name: "relation_access"},
		{Name: "relation_any_database"},
		{Name: "admin", MemberOf: []string{"pg_read_all_data", "pg_write_all_data"}},
	}
	tests := []struct {
		name   string
		change func(*state.Observed)
		want   []state.Role
	}{
		{"there are two, of which one has no password, and the groups", func(*state.Observed) {}, roles},
		{"there is none before the passwords", func(o *state.Observed) { o.Secrets = nil }, nil},
		{"there is none before Juju has the passwords", func(o *state.Observed) { o.Secrets = secretWith(allPasswords(), false) }, nil},
		{"a unit on its way out wishes none", func(o *state.Observed) { o.Leaving = true }, nil},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			obs := running()
			test.change(&obs)
			if got := desire(obs, Users{}).Roles; !reflect.DeepEqual(got, test.want) {
				t.Errorf("the roles are %+v, want %+v", got, test.want)
			}
		})
	}
}

func TestAnOldPrimaryLosesItsLabel(t *testing.T) {
	t.Parallel()
	labelled := func(o *state.Observed) {
		changeKnown(&o.Kube, func(k *state.Kube) {
			k.Pods = []state.Pod{
				{Name: "db-0", Labels: map[string]string{"role": "primary"}},
				{Name: "db-1", Labels: map[string]string{"role": "primary"}},
				{Name: "db-2", Labels: map[string]string{"role": "replica"}},
			}
		})
	}
	for name, test := range map[string]struct {
		change func(*state.Observed)
		want   []string
	}{
		"the new primary takes it off":    {func(*state.Observed) {}, []string{"db-1"}},
		"one that is promoted yet waits":  {func(o *state.Observed) { changeKnown(&o.Cluster, func(c *state.Cluster) { c.Local.Role = "replica" }) }, nil},
		"nobody does without one primary": {func(o *state.Observed) { changeKnown(&o.Cluster, func(c *state.Cluster) { c.Members = nil }) }, nil},
	} {
		obs := running()
		labelled(&obs)
		test.change(&obs)
		if got := desire(obs, Objects{}).Demoted; !slices.Equal(got, test.want) {
			t.Errorf("%s: %v, want %v", name, got, test.want)
		}
	}
}

func TestModel(t *testing.T) {
	t.Parallel()
	ports := []int{5432, 8008}
	initialised := []state.Databag{{Relation: 1, Content: map[string]string{"cluster_initialised": "True"}}}
	tests := []struct {
		name     string
		change   func(*state.Observed)
		ports    []int
		databags []state.Databag
	}{
		{"a cluster with a primary is told to the peers", func(*state.Observed) {}, ports, initialised},
		{"one without is not", func(o *state.Observed) { o.Cluster = state.Value(state.Cluster{}) }, ports, nil},
		{"one that is not known is not", func(o *state.Observed) { o.Cluster = state.Unknown[state.Cluster]("refused") }, ports, nil},
		{"before the peer relation nobody is told", func(o *state.Observed) { o.Relations = nil }, ports, nil},
		{"a unit on its way out tells nothing", func(o *state.Observed) { o.Leaving = true }, nil, nil},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			obs := running()
			test.change(&obs)
			want := desire(obs, Model{})
			if !slices.Equal(want.Ports, test.ports) {
				t.Errorf("the ports are %v, want %v", want.Ports, test.ports)
			}
			if !reflect.DeepEqual(want.Databags, test.databags) {
				t.Errorf("the databags are %v, want %v", want.Databags, test.databags)
			}
		})
	}
}

// Handlers are pure: asked twice, they wish the same, and change nothing of what
// was observed.
func TestHandlersAreDeterministic(t *testing.T) {
	t.Parallel()
	obs := running()
	all := func() state.Desired { return desire(obs, Secrets{}, Objects{}, Member{}, Users{}, Model{}) }
	if first, second := all(), all(); !reflect.DeepEqual(first, second) {
		t.Errorf("first %v, then %v", first, second)
	}
	if !reflect.DeepEqual(obs, running()) {
		t.Error("a handler changed what was observed")
	}
}
