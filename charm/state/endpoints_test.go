package state_test

import (
	"testing"

	"charmhub.io/postgresql-k8s/charm/config"
	"charmhub.io/postgresql-k8s/charm/state"
)

func TestPublished(t *testing.T) {
	t.Parallel()
	const primary, replicas = "db-primary.test.svc.cluster.local:5432", "db-replicas.test.svc.cluster.local:5432"
	member := func(name, role, how string) state.Member { return state.Member{Name: name, Role: role, State: how} }
	lagging := member("db-2", "replica", "running")
	lagging.Lag = state.Value(int64(1 << 20))
	level := member("db-2", "replica", "running")
	level.Lag = state.Value(int64(0))
	leader, streaming := member("db-0", "leader", "running"), member("db-1", "replica", "streaming")
	tests := []struct {
		name              string
		config            string // client-endpoints; "" is the default
		domain            string
		members           []state.Member
		ips               []string // of the pods db-0, db-1, ...
		primary, readOnly string   // "" for what is unknown
		why               string
	}{
		{name: "alone, the primary is for reading, too", members: []state.Member{leader}, ips: []string{"10.1.0.1"},
			primary: "10.1.0.1:5432", readOnly: "10.1.0.1:5432"},
		{name: "a replica is for reading", members: []state.Member{leader, streaming}, ips: []string{"10.1.0.1", "10.1.0.2"},
			primary: "10.1.0.1:5432", readOnly: "10.1.0.2:5432"},
		{name: "several replicas are in the order of their names",
			members: []state.Member{member("db-2", "sync_standby", "streaming"), streaming, leader, member("db-3", "quorum_standby", "streaming")},
			ips:     []string{"10.1.0.1", "10.1.0.2", "10.1.0.3", "10.1.0.4"},
			primary: "10.1.0.1:5432", readOnly: "10.1.0.2:5432,10.1.0.3:5432,10.1.0.4:5432"},
		{name: "after a failover another is the primary", members: []state.Member{member("db-0", "replica", "streaming"), member("db-1", "leader", "running")},
			ips: []string{"10.1.0.1", "10.1.0.2"}, primary: "10.1.0.2:5432", readOnly: "10.1.0.1:5432"},
		{name: "a replica that is still being cloned is left out", members: []state.Member{leader, streaming, member("db-2", "replica", "creating replica")},
			ips: []string{"10.1.0.1", "10.1.0.2", "10.1.0.3"}, primary: "10.1.0.1:5432", readOnly: "10.1.0.2:5432"},
		{name: "a replica that starts or has stopped is left out",
			members: []state.Member{leader, member("db-1", "replica", "starting"), member("db-2", "replica", "stopped")},
			ips:     []string{"10.1.0.1", "10.1.0.2", "10.1.0.3"}, primary: "10.1.0.1:5432", readOnly: "10.1.0.1:5432"},
		{name: "a replica that does not stream and is behind is left out", members: []state.Member{leader, streaming, lagging},
			ips: []string{"10.1.0.1", "10.1.0.2", "10.1.0.3"}, primary: "10.1.0.1:5432", readOnly: "10.1.0.2:5432"},
		{name: "a replica that does not stream and misses nothing is for reading", members: []state.Member{leader, level},
			ips: []string{"10.1.0.1", "10.1.0.2", "10.1.0.3"}, primary: "10.1.0.1:5432", readOnly: "10.1.0.3:5432"},
		{name: "a replica whose pod has no address yet is left out", members: []state.Member{leader, streaming}, ips: []string{"10.1.0.1", ""},
			primary: "10.1.0.1:5432", readOnly: "10.1.0.1:5432"},
		{name: "a replica whose pod is gone is left out", members: []state.Member{leader, streaming}, ips: []string{"10.1.0.1"},
			primary: "10.1.0.1:5432", readOnly: "10.1.0.1:5432"},
		{name: "for an IPv6 address stands the Service", members: []state.Member{leader}, ips: []string{"fd00::1"}, primary: primary, readOnly: primary},
		{name: "for any number of IPv6 addresses the Service stands once", members: []state.Member{leader, streaming, member("db-2", "replica", "streaming")},
			ips: []string{"fd00::1", "fd00::2", "fd00::3"}, primary: primary, readOnly: replicas},
		{name: "an IPv4 address in an IPv6 one has colons, too", members: []state.Member{leader}, ips: []string{"::ffff:10.1.0.1"},
			primary: primary, readOnly: primary},
		{name: "what is no address is none", members: []state.Member{leader}, ips: []string{"10.1.0.1:99"}, why: "the primary's pod has no address yet"},
		{name: "two primaries are none", members: []state.Member{leader, member("db-1", "leader", "running")}, ips: []string{"10.1.0.1", "10.1.0.2"},
			why: "there is not one primary"},
		{name: "a primary that starts is none", members: []state.Member{member("db-0", "leader", "starting")}, ips: []string{"10.1.0.1"}, why: "there is not one primary"},
		{name: "a standby leader is no primary", members: []state.Member{member("db-0", "standby_leader", "running")}, ips: []string{"10.1.0.1"},
			why: "there is not one primary"},
		{name: "a primary whose pod has no address yet is unknown", members: []state.Member{leader}, ips: []string{""}, why: "the primary's pod has no address yet"},
		{name: "a primary whose pod is gone is unknown", members: []state.Member{leader}, why: "the primary's pod has no address yet"},
		{name: "as wished, Services", config: "service", members: []state.Member{leader, streaming}, ips: []string{"10.1.0.1", "10.1.0.2"},
			primary: primary, readOnly: replicas},
		{name: "of Services, a primary alone has one", config: "service", members: []state.Member{leader}, ips: []string{"10.1.0.1"}, primary: primary, readOnly: primary},
		{name: "a Service needs no address", config: "service", members: []state.Member{leader}, primary: primary, readOnly: primary},
		{name: "a Service needs a primary", config: "service", members: []state.Member{streaming}, why: "there is not one primary"},
		{name: "clusters may have a domain of their own", config: "service", domain: "example.org", members: []state.Member{leader}, ips: []string{"10.1.0.1"},
			primary: "db-primary.test.svc.example.org:5432", readOnly: "db-primary.test.svc.example.org:5432"},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			domain := "cluster.local"
			if test.domain != "" {
				domain = test.domain
			}
			options := map[string]any{}
			if test.config != "" {
				options["client-endpoints"] = test.config
			}
			kube := state.Kube{Domain: domain}
			for i, ip := range test.ips {
				kube.Pods = append(kube.Pods, state.Pod{Name: state.PodName("db", i), IP: ip})
			}
			obs := state.Observed{
				Unit: state.Unit{App: "db", Model: "test"}, Config: config.Parse(options),
				Cluster: state.Value(state.Cluster{Members: test.members}), Kube: state.Value(kube),
				Database: state.Value(state.Catalog{Version: "17.5"}),
			}
			fact := obs.Published()
			got, known := fact.Get()
			if known != (test.why == "") || fact.Why() != test.why {
				t.Fatalf("it is known: %t, %q; want %q", known, fact.Why(), test.why)
			}
			if got.Primary != test.primary || got.ReadOnly != test.readOnly {
				t.Errorf("writes go to %q and reads to %q, want %q and %q", got.Primary, got.ReadOnly, test.primary, test.readOnly)
			}
			if known {
				base := ".test.svc." + domain + ":5432"
				if got.PrimaryService != "db-primary"+base || got.ReplicasService != "db-replicas"+base || got.Version != "17.5" {
					t.Errorf("the rest is %+v", got)
				}
			}
		})
	}
}

func TestPublishedNeedsEveryFact(t *testing.T) {
	t.Parallel()
	for _, test := range []struct {
		away   string
		change func(*state.Observed)
	}{
		{"there is not one primary", func(o *state.Observed) { o.Cluster = state.Unknown[state.Cluster]("cluster is away") }},
		{"kube is away", func(o *state.Observed) { o.Kube = state.Unknown[state.Kube]("kube is away") }},
		{"database is away", func(o *state.Observed) { o.Database = state.Unknown[state.Catalog]("database is away") }},
	} {
		t.Run(test.away, func(t *testing.T) {
			t.Parallel()
			obs := state.Observed{
				Config:   config.Parse(nil),
				Cluster:  state.Value(state.Cluster{Members: []state.Member{{Name: "db-0", Role: "leader", State: "running"}}}),
				Kube:     state.Value(state.Kube{Pods: []state.Pod{{Name: "db-0", IP: "10.1.0.1"}}}),
				Database: state.Value(state.Catalog{}),
			}
			test.change(&obs)
			if _, known := obs.Published().Get(); known || obs.Published().Why() != test.away {
				t.Errorf("it is known: %t, %q", known, obs.Published().Why())
			}
		})
	}
}

// Kubernetes and the primary's server know enough: this unit's own member need not
// be up, and what it has heard last need not be true.
func TestPublishedWithoutTheOwnMember(t *testing.T) {
	t.Parallel()
	stale := state.Cluster{Members: []state.Member{
		{Name: "db-0", Role: "leader", State: "running"}, {Name: "db-1", Role: "replica", State: "streaming"}, {Name: "db-2", Role: "replica", State: "streaming"},
	}}
	for name, cluster := range map[string]state.Known[state.Cluster]{
		"the member is down":        state.Unknown[state.Cluster]("refused"),
		"it has not heard of it":    state.Value(stale),
		"it cannot reach the store": state.Value(state.Cluster{Away: "status 503"}),
	} {
		obs := state.Observed{
			Unit: state.Unit{App: "db", Model: "test"}, Config: config.Parse(nil), Cluster: cluster,
			Kube: state.Value(state.Kube{
				Pods:      []state.Pod{{Name: "db-0", IP: "10.1.0.1"}, {Name: "db-1", IP: "10.1.0.2"}, {Name: "db-2", IP: "10.1.0.3"}},
				Endpoints: map[string]state.Endpoints{"patroni-db": {Leader: "db-1"}},
			}),
			Database: state.Value(state.Catalog{}), Streaming: state.Value([]string{"db-2"}),
		}
		if primary, _ := obs.Primary(); primary.Name != "db-1" {
			t.Errorf("%s: the primary is %v", name, primary)
		}
		if got, _ := obs.Published().Get(); got.Primary != "10.1.0.2:5432" || got.ReadOnly != "10.1.0.3:5432" {
			t.Errorf("%s: %v is published", name, got)
		}
	}
}

func TestReplicasLeaveTheMembersAlone(t *testing.T) {
	t.Parallel()
	cluster := state.Cluster{Members: []state.Member{
		{Name: "c", Role: "replica", State: "streaming"}, {Name: "b", Role: "leader", State: "running"}, {Name: "a", Role: "replica", State: "streaming"},
	}}
	if got := cluster.Replicas(); len(got) != 2 || got[0].Name != "a" || cluster.Members[0].Name != "c" {
		t.Errorf("the replicas are %v of %v", got, cluster.Members)
	}
}

func TestRelationsByID(t *testing.T) {
	t.Parallel()
	relations := state.Relations{"database-peers": {{ID: 0}}, "database": {{ID: 3, RemoteApp: "a"}, {ID: 7, RemoteApp: "b"}}}
	if r, ok := relations.ByID(7); !ok || r.RemoteApp != "b" {
		t.Errorf("relation 7 is %v, %t", r, ok)
	}
	if _, ok := relations.ByID(4); ok {
		t.Error("there is a relation 4")
	}
	relations.Replace(state.Relation{ID: 3, Read: true})
	relations.Replace(state.Relation{ID: 4, Read: true})
	if r, _ := relations.ByID(3); !r.Read || len(relations["database"]) != 2 {
		t.Errorf("after the relation was replaced they are %v", relations)
	}
}
