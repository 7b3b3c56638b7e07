package core

import (
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"charmhub.io/postgresql-k8s/charm/config"
	"charmhub.io/postgresql-k8s/charm/state"
)

var noon = time.Date(2026, 1, 2, 12, 0, 0, 0, time.UTC)

// rolling is a cluster of three that is well while its pods are replaced: those
// after the next one are of the new revision, and five minutes old.
func rolling(unit, next, partition int) state.Observed {
	obs := running()
	obs.Now = noon
	obs.Unit.Number, obs.Unit.Name, obs.Leader = unit, state.UnitName(state.PodName("db", unit)), false
	kube := state.Kube{Rollout: state.Rollout{Revision: "new", Partition: partition, Replicas: 3}}
	cluster := state.Cluster{Local: state.Local{Name: obs.Unit.Pod(), State: "running"}, Dynamic: map[string]any{"synchronous_mode": "quorum"}}
	for n := range 3 {
		pod := state.Pod{Name: state.PodName("db", n), Revision: "old", Created: noon.Add(-5 * time.Minute)}
		if n > next {
			pod.Revision = "new"
		}
		kube.Pods = append(kube.Pods, pod)
		member := state.Member{Name: pod.Name, Role: "quorum_standby", State: "streaming"}
		if n == 0 {
			member.Role, member.State = "leader", "running"
		}
		cluster.Members = append(cluster.Members, member)
	}
	obs.Kube, obs.Cluster = state.Value(kube), state.Value(cluster)
	obs.Relations["upgrade"] = []state.Relation{{ID: 5, Endpoint: "upgrade", Read: true, LocalApp: map[string]string{}}}
	return obs
}

func member(n int, change func(*state.Member)) func(*state.Observed) {
	return func(o *state.Observed) { changeKnown(&o.Cluster, func(c *state.Cluster) { change(&c.Members[n]) }) }
}

func note(key, value string) func(*state.Observed) {
	return func(o *state.Observed) { o.Relations["upgrade"][0].LocalApp[key] = value }
}

// takesOver makes a member the primary in the place of the first.
func takesOver(n int) func(*state.Observed) {
	return func(o *state.Observed) {
		changeKnown(&o.Cluster, func(c *state.Cluster) {
			c.Members[0].Role, c.Members[0].State = "replica", "streaming"
			c.Members[n].Role, c.Members[n].State = "leader", "running"
		})
	}
}

func stopped(m *state.Member) { m.State = "start failed" }

func TestRefreshLetsOnePodGoAfterTheOther(t *testing.T) {
	t.Parallel()
	const nothing = -1
	young := func(n int) func(*state.Observed) {
		return func(o *state.Observed) {
			changeKnown(&o.Kube, func(k *state.Kube) { k.Pods[n].Created = noon.Add(-10 * time.Second) })
		}
	}
	leads := func(o *state.Observed) { o.Leader = true }
	tests := []struct {
		name                  string
		unit, next, partition int
		change                []func(*state.Observed)
		wish                  int
		successor, status     string
	}{
		{"the first that was replaced lets the next one go", 2, 1, 2, nil, 1, "", "upgrading...: db/1 is next"},
		{"without a partition of before it does so, too", 2, 1, 0, nil, 1, "", "upgrading...: db/1 is next"},
		{"it holds the partition while it starts", 2, 1, 0, []func(*state.Observed){young(2), func(o *state.Observed) {
			o.Cluster = state.Unknown[state.Cluster]("connection refused")
		}}, 2, "", ""},
		{"it holds the partition while it does not follow", 2, 1, 0, []func(*state.Observed){young(2), member(2, stopped)}, 2, "", ""},
		{"it says so when that lasts", 2, 1, 2, []func(*state.Observed){member(2, stopped)}, 2, "", "upgrade failed: db/2 is start failed"},
		{"but not while it copies the primary", 2, 1, 2, []func(*state.Observed){member(2, func(m *state.Member) { m.State = "creating replica" })}, 2, "", ""},
		{"it waits for one that is not refreshed yet", 2, 1, 2, []func(*state.Observed){member(0, stopped), takesOver(2), member(0, stopped)}, 2, "", "upgrading...: awaiting db/0, which is start failed"},
		{"but not for the next one, whose cure it may be", 2, 1, 2, []func(*state.Observed){member(1, stopped)}, 1, "", "upgrading...: db/1 is next"},
		{"unless somebody says that it goes on", 2, 1, 2, []func(*state.Observed){takesOver(2), member(0, stopped), note("resumed", "new/1")}, 1, "", "upgrading...: db/1 is next"},
		{"for another rollout that was said in vain", 2, 1, 2, []func(*state.Observed){member(2, stopped), note("resumed", "old/1")}, 2, "", "upgrade failed"},
		{"after pre-upgrade-check it waits for a person", 2, 1, 2, []func(*state.Observed){note("upgrade-stack", "[0, 1, 2]")}, 2, "", "upgrade completed, run resume-upgrade to proceed"},
		{"who has come", 2, 1, 2, []func(*state.Observed){note("upgrade-stack", "[0, 1]"), note("resumed", "new/1")}, 1, "", "upgrading...: db/1 is next"},
		{"or has told a leader of before", 2, 1, 1, []func(*state.Observed){note("upgrade-stack", "[0, 1]")}, 1, "", "upgrading...: db/1 is next"},
		{"which is not taken back", 2, 1, 1, []func(*state.Observed){note("upgrade-stack", "[0, 1]"), young(2), member(2, stopped)}, nothing, "", ""},
		{"a stack that cannot be read is none", 2, 1, 2, []func(*state.Observed){note("upgrade-stack", "nonsense")}, 1, "", "upgrading...: db/1 is next"},
		{"a primary that is next hands over to who is refreshed", 1, 0, 1, nil, 1, "db-1", "handing over to db/1"},
		{"if one of them has every commit", 1, 0, 1, []func(*state.Observed){
			member(1, func(m *state.Member) { m.Role = "replica" }), member(2, func(m *state.Member) { m.Role = "replica" }),
		}, 1, "", "upgrading...: awaiting a refreshed replica"},
		{"and if all who stream confirm commits", 1, 0, 1, []func(*state.Observed){
			young(1), member(2, func(m *state.Member) { m.Role = "replica" }),
		}, 1, "", "upgrading...: awaiting a refreshed replica"},
		{"for which it waits two minutes", 1, 0, 1, []func(*state.Observed){
			member(2, func(m *state.Member) { m.Role = "replica" }),
		}, 1, "db-1", "handing over to db/1"},
		{"and not when somebody says that it goes on", 1, 0, 1, []func(*state.Observed){
			young(1), member(2, func(m *state.Member) { m.Role = "replica" }), note("resumed", "new/0"),
		}, 1, "db-1", "handing over to db/1"},
		{"after a switchover another replica must have every commit", 1, 0, 1, []func(*state.Observed){
			takesOver(1), member(2, func(m *state.Member) { m.Role = "replica" }),
		}, 1, "", "upgrading...: awaiting a replica that has every commit"},
		{"where Patroni chooses it may be the next one", 2, 1, 2, []func(*state.Observed){
			member(1, func(m *state.Member) { m.Role = "sync_standby" }), member(2, func(m *state.Member) { m.Role = "replica" }),
			func(o *state.Observed) {
				changeKnown(&o.Cluster, func(c *state.Cluster) { c.Dynamic = map[string]any{"synchronous_mode": true} })
			},
		}, 1, "", "upgrading...: db/1 is next"},
		{"and clients must know of the new primary", 1, 0, 1, []func(*state.Observed){takesOver(1), note("published", "db-0")}, 1, "", "upgrading...: awaiting the leader"},
		{"then the last one goes", 1, 0, 1, []func(*state.Observed){takesOver(1)}, 0, "", "upgrading...: db/0 is next"},
		{"without a primary nobody goes", 2, 1, 2, []func(*state.Observed){member(0, func(m *state.Member) { m.Role = "quorum_standby"; m.State = "streaming" })}, 2, "", "awaiting for cluster to start"},
		{"what is being replaced is not held back", 2, 1, 1, []func(*state.Observed){member(0, stopped), func(o *state.Observed) {
			changeKnown(&o.Kube, func(k *state.Kube) { k.Pods[1].Terminating = true })
		}}, nothing, "", "upgrading...: awaiting db/0, which is start failed"},
		{"nor one that is gone for the moment", 2, 1, 1, []func(*state.Observed){member(2, stopped), young(2), func(o *state.Observed) {
			changeKnown(&o.Kube, func(k *state.Kube) { k.Pods = append(k.Pods[:1:1], k.Pods[2]) })
		}}, nothing, "", ""},
		{"others leave it to that unit", 0, 1, 2, nil, nothing, "", ""},
		{"the leader looks on at first", 0, 1, 2, []func(*state.Observed){leads, young(2)}, nothing, "", ""},
		{"and later does what nobody does", 0, 1, 2, []func(*state.Observed){leads}, 1, "", ""},
		{"but holds back nobody who was let go", 0, 1, 1, []func(*state.Observed){leads, member(2, stopped)}, nothing, "", "upgrade failed: db/2 is start failed"},
		{"it says who is ill", 0, 1, 2, []func(*state.Observed){leads, member(2, stopped)}, 2, "", "upgrade failed: db/2 is start failed"},
		{"what somebody has said needs no cluster", 0, 1, 2, []func(*state.Observed){leads, note("resumed", "new/1"), func(o *state.Observed) {
			o.Cluster = state.Unknown[state.Cluster]("connection refused")
		}}, 1, "", ""},
		{"without Kubernetes nothing is known", 2, 1, 2, []func(*state.Observed){func(o *state.Observed) { o.Kube = state.Unknown[state.Kube]("away") }}, nothing, "", ""},
		{"who leaves has no say", 2, 1, 2, []func(*state.Observed){func(o *state.Observed) { o.Leaving = true }}, nothing, "", ""},
		{"when all are refreshed there is nothing to do", 1, -1, 0, nil, nothing, "", ""},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			obs := rolling(test.unit, test.next, test.partition)
			for _, change := range test.change {
				change(&obs)
			}
			want := desire(obs, Refresh{})
			wish, wished := want.Partition.Get()
			if !wished {
				wish = nothing
			}
			if wish != test.wish || want.Successor.Name != test.successor {
				t.Errorf("the partition is %d and the successor %q, want %d and %q", wish, want.Successor.Name, test.wish, test.successor)
			}
			if test.successor != "" && !want.Successor.Any { // all but the last one are refreshed
				t.Error("no other will do")
			}
			if busy := want.Later; busy && (strings.HasPrefix(test.status, "upgrade failed") || strings.HasPrefix(test.status, "upgrade completed")) {
				t.Error("it looks again each second, for nobody knows how long")
			}
			if got := want.Status().Message; !strings.HasPrefix(got, test.status) || test.status == "" && got != "" {
				t.Errorf("the status is %q, want %q", got, test.status)
			}
		})
	}
}

func TestRefreshOfABlockedUnitHalts(t *testing.T) {
	t.Parallel()
	obs := rolling(2, 1, 0)
	obs.Config = config.Parse(map[string]any{"profile": "fast"})
	want := desire(obs, Member{}, Refresh{})
	if wish, _ := want.Partition.Get(); wish != 2 || want.Later || want.Status().Severity != state.Blocked {
		t.Errorf("the partition is %d, the status %v, and it looks again: %t", wish, want.Status(), want.Later)
	}
}

// The unit that fails may be the leader's, with no workload that would wake it: the
// others do, once, and stay awake until they have.
func TestRefreshWakesALeaderWithoutAWorkload(t *testing.T) {
	t.Parallel()
	without := member(2, func(m *state.Member) { *m = state.Member{Name: m.Name, Role: "replica"} })
	created := func(age time.Duration) func(*state.Observed) {
		return func(o *state.Observed) {
			changeKnown(&o.Kube, func(k *state.Kube) { k.Pods[2].Created = noon.Add(-age) })
		}
	}
	for _, test := range []struct {
		name   string
		change []func(*state.Observed)
		says   string
		awake  bool
	}{
		{name: "all are well", awake: true},
		{name: "a person is to look", change: []func(*state.Observed){note("upgrade-stack", "[0,1]"), note("prepared", "old")}},
		{name: "it may have just started", change: []func(*state.Observed){without, created(65 * time.Second)}, awake: true},
		{name: "it has none", change: []func(*state.Observed){without, created(75 * time.Second)}, says: " hears nothing of db/2"},
		{name: "it has one, which wakes it", change: []func(*state.Observed){member(2, stopped)}, awake: true},
	} {
		obs := rolling(0, 1, 2)
		for _, change := range test.change {
			change(&obs)
		}
		want := state.Desired{Announce: "leader", Layer: state.Value(Layer(obs.Unit, false, idle()))}
		Refresh{}.Desire(obs, &want)
		layer, _ := want.Layer.Get()
		if awake := reflect.DeepEqual(layer.Checks["pulse"], beat(true)); want.Announce != "leader"+test.says || awake != test.awake {
			t.Errorf("%s: it announces %q, and stays awake: %t", test.name, want.Announce, awake)
		}
		if len(want.Problems) > 0 {
			t.Errorf("%s: that is for the leader to say: %v", test.name, want.Problems)
		}
	}
}

// A leader is blocked for an application that it refuses: that is no matter of the member.
func TestRefreshOfALeaderWhoRefusesAClientGoesOn(t *testing.T) {
	t.Parallel()
	obs := rolling(2, 1, 2)
	obs.Leader = true
	var want state.Desired
	want.Problem(state.Problem{Severity: state.Blocked, Message: "invalid database name"})
	Refresh{}.Desire(obs, &want)
	if wish, _ := want.Partition.Get(); wish != 1 {
		t.Errorf("the partition is %d", wish)
	}
}

// Pods that are away are no rollout: they come back as they were.
func TestAPodThatIsAwayIsNoRefresh(t *testing.T) {
	t.Parallel()
	for gone := range 3 {
		obs := rolling(0, -1, 0)
		changeKnown(&obs.Kube, func(k *state.Kube) { k.Pods = slices.Delete(k.Pods, gone, gone+1) })
		if refresh, is := obs.Refresh(); is {
			t.Errorf("without pod %d it is %+v", gone, refresh)
		}
	}
}

// Units may have been removed since pre-upgrade-check set the partition.
func TestRefreshBeginsWhenThePartitionIsAboveTheUnits(t *testing.T) {
	t.Parallel()
	obs := rolling(0, 2, 3)
	obs.Leader = true
	note("upgrade-stack", "[0,1,2]")(&obs)
	if wish, wished := desire(obs, Refresh{}).Partition.Get(); !wished || wish != 2 {
		t.Errorf("the partition is %d, wished %t", wish, wished)
	}
}

func TestRefreshOfTwo(t *testing.T) {
	t.Parallel()
	two := func(change ...func(*state.Observed)) state.Desired {
		obs := rolling(1, 0, 1)
		changeKnown(&obs.Kube, func(k *state.Kube) { k.Rollout.Replicas, k.Pods = 2, k.Pods[:2] })
		changeKnown(&obs.Cluster, func(c *state.Cluster) { c.Members = c.Members[:2] })
		for _, c := range change {
			c(&obs)
		}
		return desire(obs, Refresh{})
	}
	if want := two(); want.Successor.Name != "db-1" {
		t.Errorf("the successor is %q", want.Successor.Name)
	}
	// The old primary leads, and has clients to tell of the new one.
	if wish, _ := two(takesOver(1), member(0, func(m *state.Member) { m.State = "starting" })).Partition.Get(); wish != 1 {
		t.Errorf("while the old primary starts the partition is %d", wish)
	}
	if wish, known := two(takesOver(1)).Partition.Get(); wish != 0 || !known {
		t.Errorf("when it follows the partition is %d", wish)
	}
}

// What upstream's leader waits for, and what its databag has, is kept up.
func TestRefreshInUpstreamsWords(t *testing.T) {
	t.Parallel()
	for _, test := range []struct {
		name       string
		unit, next int
		change     func(*state.Observed)
		state      string
	}{
		{"at rest", 0, -1, nil, "idle"},
		{"not yet refreshed", 0, 1, nil, "idle"},
		{"refreshed and well", 2, 1, nil, "completed"},
		{"refreshed and ill", 2, 1, member(2, stopped), "failed"},
		{"refreshed and starting", 2, 1, func(o *state.Observed) {
			member(2, stopped)(o)
			changeKnown(&o.Kube, func(k *state.Kube) { k.Pods[2].Created = noon })
		}, "upgrading"},
	} {
		obs := rolling(test.unit, test.next, 0)
		if test.change != nil {
			test.change(&obs)
		}
		if got := desire(obs, Refresh{}).Refreshed; got != test.state {
			t.Errorf("%s: it says %q, want %q", test.name, got, test.state)
		}
	}
	for _, test := range []struct {
		name            string
		next            int
		stack, prepared string
		want            []state.Databag
	}{
		{"nothing was checked", 1, "", "", nil},
		{"what is refreshed is taken off", 1, "[0, 1, 2]", "old", databag("[0,1]")},
		{"upstream's check, too", 1, "[0, 1, 2]", "", databag("[0,1]")},
		{"a check that nobody has used yet stays", -1, "[0,1,2]", "new", nil},
		{"so does one for the way back", 1, "[0,1,2]", "new", nil},
		{"one that is over goes", -1, "[0, 1, 2]", "old", databag("")},
		{"nonsense goes, too", -1, "{}", "new", databag("")},
	} {
		obs := rolling(0, test.next, 0)
		obs.Leader, obs.Units = true, state.Value([]string{"db/0", "db/1", "db/2"})
		note("upgrade-stack", test.stack)(&obs)
		note("prepared", test.prepared)(&obs)
		if got := desire(obs, Refresh{}).Databags; !reflect.DeepEqual(got, test.want) {
			t.Errorf("%s: the databag is %v, want %v", test.name, got, test.want)
		}
	}
}

// What a person has allowed is for one rollout: the same revision may come again.
func TestResumedIsForgottenWhenTheRolloutIsOver(t *testing.T) {
	t.Parallel()
	for next, want := range map[int]string{1: "", -1: "resumed"} {
		obs := rolling(0, next, 0)
		obs.Leader = true
		note("resumed", "new/1")(&obs)
		forgotten := ""
		for _, d := range desire(obs, Refresh{}).Databags {
			if v, there := d.Content["resumed"]; there && v == "" {
				forgotten = "resumed"
			}
		}
		if forgotten != want {
			t.Errorf("with %d to go it forgets %q, want %q", next+1, forgotten, want)
		}
	}
}

// A restart would take a member away besides the one whose pod is replaced.
func TestNothingIsRestartedDuringARefresh(t *testing.T) {
	t.Parallel()
	for next, want := range map[int]string{1: "", -1: "db-0"} {
		obs := rolling(0, next, 0)
		obs.Leader = true
		member(0, func(m *state.Member) { m.PendingRestart = true })(&obs)
		if got := desire(obs, Restarts{}).Restart.Name; got != want {
			t.Errorf("with %d to go %q is restarted", next+1, got)
		}
	}
}

func databag(stack string) []state.Databag {
	return []state.Databag{{Relation: 5, Content: map[string]string{"upgrade-stack": stack}}}
}

// The leader notes whom clients know in the commit that tells them.
func TestRefreshNotesThePublishedPrimary(t *testing.T) {
	t.Parallel()
	for _, test := range []struct {
		name   string
		next   int
		before string
		change func(*state.Observed)
		want   string // "-" for nothing
	}{
		{"while pods are replaced", 1, "", nil, "db-0"},
		{"once", 1, "db-0", nil, "-"},
		{"but not what nobody can be told", 1, "db-2", func(o *state.Observed) { o.Database = state.Unknown[state.Catalog]("away") }, "-"},
		{"nor on another unit", 1, "db-2", func(o *state.Observed) { o.Leader = false }, "-"},
		{"nor in the moment in which Kubernetes looks at a change", 1, "db-0", func(o *state.Observed) {
			changeKnown(&o.Kube, func(k *state.Kube) { k.Rollout.Revision = "" })
		}, "-"},
		{"until all are", -1, "db-2", nil, ""},
		{"and nothing at rest", -1, "", nil, "-"},
	} {
		obs := rolling(0, test.next, 0)
		obs.Leader, obs.Database = true, state.Value(state.Catalog{Version: "17.5"})
		changeKnown(&obs.Kube, func(k *state.Kube) { k.Pods[0].IP = "10.1.0.1" })
		note("published", test.before)(&obs)
		if test.change != nil {
			test.change(&obs)
		}
		got := "-"
		for _, d := range desire(obs, Refresh{}).Databags {
			if v, there := d.Content["published"]; there {
				got = v
			}
		}
		if got != test.want {
			t.Errorf("%s: it notes %q, want %q", test.name, got, test.want)
		}
	}
}

// A client that is being served does not know of the new primary yet.
func TestAClientThatIsBeingServedIsNotTold(t *testing.T) {
	t.Parallel()
	for digest, want := range map[string]string{"served": "db-0", state.PendingDigest: ""} {
		obs := rolling(0, 1, 0)
		obs.Leader, obs.Database = true, state.Value(state.Catalog{Version: "17.5"})
		changeKnown(&obs.Kube, func(k *state.Kube) { k.Pods[0].IP = "10.1.0.1" })
		obs.Clients = map[int]state.Client{7: {App: "shop", Digest: digest}}
		wish := state.Desired{Clients: obs.Clients}
		Refresh{}.Desire(obs, &wish)
		noted := ""
		for _, d := range wish.Databags {
			noted += d.Content["published"]
		}
		if noted != want {
			t.Errorf("with a client that is %s it notes %q, want %q", digest, noted, want)
		}
	}
}
