package actions

import (
	"encoding/json"
	"errors"
	"slices"
	"strings"
	"testing"
	"time"

	"charmhub.io/postgresql-k8s/charm/config"
	"charmhub.io/postgresql-k8s/charm/state"
)

// three is a cluster of three that is well, seen from a unit. The leader's member is
// the first one.
func three(number int) state.Observed {
	obs := leading("", nil)
	obs.Unit.Number, obs.Unit.Name = number, state.UnitName(state.PodName("db", number))
	members := []state.Member{
		{Name: "db-0", Role: "leader", State: "running", Timeline: 3},
		{Name: "db-1", Role: "quorum_standby", State: "streaming", Timeline: 3, Lag: state.Value(int64(0))},
		{Name: "db-2", Role: "replica", State: "streaming", Timeline: 3, Lag: state.Value(int64(10))},
	}
	local := state.Local{Name: members[number].Name, Role: "replica", State: "running", Version: "4.0.7", ServerVersion: "17.5", Started: "yesterday"}
	if number == 0 {
		local.Role = "primary"
	}
	obs.Cluster = state.Value(state.Cluster{Local: local, Members: members, Dynamic: map[string]any{"synchronous_mode": "quorum"}})
	return obs
}

// with changes the cluster of an observation.
func with(obs state.Observed, change func(*state.Cluster)) state.Observed {
	c, _ := obs.Cluster.Get()
	c.Members = slices.Clone(c.Members)
	change(&c)
	obs.Cluster = state.Value(c)
	return obs
}

func params(obs state.Observed, values ...state.Redacted) state.Observed {
	obs.Params = map[string]state.Redacted{}
	for i := 0; i < len(values); i += 2 {
		obs.Params[values[i].Reveal()] = values[i+1]
	}
	return obs
}

func TestActionsThatCannotRunSayWhy(t *testing.T) {
	t.Parallel()
	unitScope := []state.Redacted{"scope", "unit"}
	away := state.Unknown[state.Cluster]("connection refused")
	tests := []struct {
		name    string
		action  Action
		obs     state.Observed
		failure string
	}{
		{"a promotion of nobody knows what", promote, three(1), "Scope should be either cluster or unit"},
		{"a promotion of a cluster", promote, params(three(1), "scope", "cluster"), "replication between clusters"},
		{"a promotion by force", promote, params(three(1), "scope", "unit", "force", "true"), "Superfluous force flag with unit scope"},
		{"a promotion of who may lack commits", promote, params(three(2), unitScope...), "Unit is not sync standby"},
		{"a promotion of who does not follow", promote, params(with(three(1), func(c *state.Cluster) { c.Members[1].State = "stopped" }), unitScope...), "it is stopped"},
		{"a promotion of who is far behind", promote, params(with(three(1), func(c *state.Cluster) { c.Members[1].Lag = state.Value(int64(1 << 30)) }), unitScope...), "far behind"},
		{"a promotion without a primary", promote, params(with(three(1), func(c *state.Cluster) { c.Members[0].State = "stopped" }), unitScope...), "there is no primary now"},
		{"a promotion without the API", promote, params(with(three(1), func(c *state.Cluster) { c.Away = "status 503" }), unitScope...), "cannot reach the Kubernetes API"},
		{"a promotion without a member", promote, params(state.Observed{Unit: unit, Cluster: away}, unitScope...), "connection refused"},
		{"a promotion of who leaves", promote, params(state.Observed{Unit: unit, Leaving: true}, unitScope...), "on its way out"},
		{"a restart elsewhere than on the leader", restart, state.Observed{Unit: unit, Event: state.Event{Action: "restart"}}, "only on leader unit: juju run db/leader restart"},
		{"a restart on a unit that leaves", restart, state.Observed{Unit: unit, Leader: true, Leaving: true}, "on its way out"},
		{"a restart without a member", restart, state.Observed{Unit: unit, Leader: true, Cluster: away}, "connection refused"},
		{"a restart while a member is ill", restart, with(three(0), func(c *state.Cluster) { c.Members[2].State = "start failed" }), "db/2 is start failed: nothing was restarted"},
		{"a copy that nobody confirmed", reinitialize, three(1), "juju run db/1 reinitialize confirm=db/1"},
		{"a copy of another unit", reinitialize, params(three(1), "confirm", "db/2"), "throws the data of db/1 away"},
		{"a copy of the primary onto itself", reinitialize, params(three(0), "confirm", "db/0"), "this unit is the primary"},
		{"a copy of nobody", reinitialize, params(with(three(1), func(c *state.Cluster) { c.Members[0].State = "stopped" }), "confirm", "db/1"), "there is no primary now"},
		{"a copy while one is made", reinitialize, params(with(three(1), func(c *state.Cluster) { c.Local.State = "creating replica" }), "confirm", "db/1"), "already"},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			_, err := test.action.Begin(test.obs)
			failsWith(t, err, test.failure)
		})
	}
}

// lead makes a member the primary, and the one before a replica.
func lead(name string) func(*state.Cluster) {
	return func(c *state.Cluster) {
		for i, m := range c.Members {
			switch {
			case m.Name == name:
				c.Members[i].Role, c.Members[i].State = "leader", "running"
			case m.Role == "leader":
				c.Members[i].Role, c.Members[i].State = "replica", "streaming"
			}
		}
		if c.Local.Name == name {
			c.Local.Role = "primary"
		}
	}
}

func TestPromote(t *testing.T) {
	t.Parallel()
	obs := params(three(1), "scope", "unit")
	task := begin(t, promote, obs)
	progress, want := pass(task, obs, 0, nil)
	if want.Successor.Name != "db-1" || progress.Done || progress.Log != "asking db/0 to hand over to db/1" {
		t.Errorf("first it says %+v and wishes %s", progress, want.Successor.Name)
	}
	if progress, want := pass(task, obs, time.Second, nil); want.Successor.Name != "" || progress.Done || progress.Log != "db/0 stops" {
		t.Errorf("then it says %+v and wishes %s", progress, want.Successor.Name)
	}
	promoted := with(obs, func(c *state.Cluster) { lead("db-1")(c); c.Local.Role = "replica" })
	if progress, _ := pass(task, promoted, 2*time.Second, nil); progress.Done || progress.Log != "db/1 is being promoted" {
		t.Errorf("while it is promoted it says %+v", progress)
	}
	progress, _ = pass(task, with(obs, lead("db-1")), 2345*time.Millisecond, nil)
	if !progress.Done || progress.Results["primary"] != "db/1" || progress.Results["seconds"] != "2.3" {
		t.Errorf("at the end it says %+v", progress)
	}

	task = begin(t, promote, obs)
	progress, _ = pass(task, obs, time.Second, errors.New("status 503"))
	failsWith(t, progress.Failure, "Switchover failed or timed out, check the logs for details: status 503")
	task = begin(t, promote, obs)
	pass(task, obs, 0, nil)
	progress, _ = pass(task, obs, 61*time.Second, nil)
	failsWith(t, progress.Failure, "Switchover failed or timed out")

	progress, want = pass(begin(t, promote, params(three(0), "scope", "unit")), three(0), 0, nil)
	if !progress.Done || progress.Results["seconds"] != "0.0" || want.Successor.Name != "" {
		t.Errorf("on the primary it says %+v", progress)
	}
}

func TestRestartTakesThePrimaryLast(t *testing.T) {
	t.Parallel()
	obs := three(0)
	task := begin(t, restart, obs)
	pending := state.Desired{Restart: state.Member{Name: "db-2"}}
	if task(View{Observed: obs}, &pending); pending.RestartNow.Name != "db-1" || pending.Restart.Name != "" {
		t.Errorf("first it restarts %q, and %q for settings", pending.RestartNow.Name, pending.Restart.Name)
	}
	starting := with(obs, func(c *state.Cluster) { c.Members[1].State = "starting" })
	if progress, want := pass(task, starting, time.Second, nil); want.RestartNow.Name != "" || progress.Log != "waiting: db/1 is starting" {
		t.Errorf("while that starts it says %q, and restarts %q", progress.Log, want.RestartNow.Name)
	}
	if _, want := pass(task, obs, 2*time.Second, nil); want.RestartNow.Name != "db-2" {
		t.Errorf("then it restarts %q", want.RestartNow.Name)
	}
	if _, want := pass(task, obs, 3*time.Second, nil); want.RestartNow.Name != "" || want.Successor.Name != "db-1" {
		t.Errorf("then it restarts %q, and %q takes over", want.RestartNow.Name, want.Successor.Name)
	}
	if progress, want := pass(task, obs, 4*time.Second, nil); progress.Log != "waiting: db/0 stops" || want.Successor.Name != "" {
		t.Errorf("then it says %q, and %q takes over", progress.Log, want.Successor.Name)
	}
	over := with(obs, lead("db-1"))
	down := with(over, func(c *state.Cluster) { c.Members[0].State = "stopped" })
	progress, _ := pass(task, down, 9*time.Second, nil) // the old primary comes back by itself
	if !progress.Done || progress.Results["restarted"] != "db/1,db/2,db/0" || progress.Results["seconds"] != "9.0" {
		t.Errorf("at the end it says %+v", progress)
	}
}

func TestRestartAlone(t *testing.T) {
	t.Parallel()
	obs := with(three(0), func(c *state.Cluster) { c.Members = c.Members[:1] })
	task := begin(t, restart, obs)
	if _, want := pass(task, obs, 0, nil); want.RestartNow.Name != "db-0" {
		t.Errorf("it restarts %q", want.RestartNow.Name)
	}
	if progress, _ := pass(task, obs, time.Second, nil); !progress.Done || progress.Results["restarted"] != "db/0" {
		t.Errorf("at the end it says %+v", progress)
	}
}

func TestARestartThatFailsStops(t *testing.T) {
	t.Parallel()
	obs := three(0)
	task := begin(t, restart, obs)
	pass(task, obs, 0, nil)
	pass(task, obs, time.Second, nil) // db-1 is done
	progress, want := pass(task, obs, 2*time.Second, errors.New("cannot restart PostgreSQL of db-2: no"))
	failsWith(t, progress.Failure, "cannot restart PostgreSQL of db-2: no; restarted before: db/1; the others are as they were")
	if want.RestartNow.Name != "" || want.Successor.Name != "" {
		t.Error("it goes on")
	}
	task = begin(t, restart, obs)
	pass(task, obs, 0, nil)
	down := with(obs, func(c *state.Cluster) { c.Members[1].State = "stopped" })
	pass(task, down, time.Second, nil)
	progress, _ = pass(task, down, 2*time.Minute, nil)
	failsWith(t, progress.Failure, "after 60 seconds: db/1 is stopped; restarted before: db/1")
	gone := with(obs, func(c *state.Cluster) { c.Members = c.Members[:1] })
	progress, _ = pass(task, gone, 3*time.Minute, nil)
	failsWith(t, progress.Failure, "db/1 is not there")
}

func TestReinitialize(t *testing.T) {
	t.Parallel()
	obs := params(three(2), "confirm", "db/2")
	task := begin(t, reinitialize, obs)
	if _, want := pass(task, obs, 0, nil); !want.Reinitialize {
		t.Error("it wishes nothing")
	}
	if progress, want := pass(task, obs, time.Second, nil); want.Reinitialize || progress.Done {
		t.Errorf("before the server has gone it says %+v", progress)
	}
	copying := with(obs, func(c *state.Cluster) { c.Local.State = "creating replica" })
	copying.Cloned = state.Value(40)
	if progress, _ := pass(task, copying, 2*time.Second, nil); progress.Log != "cloning the primary: 40 %" {
		t.Errorf("meanwhile it says %+v", progress)
	}
	if progress, _ := pass(task, copying, 2*time.Minute, nil); !progress.Done || progress.Results["state"] != "creating replica" {
		t.Errorf("when it takes long it says %+v", progress)
	}
	again := with(obs, func(c *state.Cluster) { c.Local.Started = "today" })
	if progress, _ := pass(task, again, 9*time.Second, nil); !progress.Done || progress.Results["state"] != "streaming" {
		t.Errorf("at the end it says %+v", progress)
	}
	progress, _ := pass(begin(t, reinitialize, obs), obs, 0, errors.New("cannot reinitialize db-2: no"))
	failsWith(t, progress.Failure, "cannot reinitialize db-2: no")
}

func TestStatus(t *testing.T) {
	t.Parallel()
	obs := three(0)
	obs.Clients[8] = state.Client{App: "plain", Problem: "invalid database name"}
	obs.Config = config.Parse(nil)
	obs.Kube = state.Value(state.Kube{Domain: "cluster.local", Pods: []state.Pod{{Name: "db-0", IP: "10.1.0.1"}, {Name: "db-1", IP: "10.1.0.2"}}})
	obs.Database = state.Value(state.Catalog{Version: "17.5"})
	results, err := run(t, status, obs)
	failsWith(t, err, "")
	for key, want := range map[string]string{
		"cluster.primary": "db/0", "cluster.timeline": "3", "cluster.members": "3", "cluster.postgresql": "17.5", "cluster.synchronous-mode": "quorum",
		"members.db-0.role": "primary", "members.db-1.role": "replica", "members.db-1.sync": "quorum", "members.db-2.sync": "async",
		"members.db-2.lag": "10", "members.db-2.state": "streaming", "members.db-2.unit": "db/2",
		"endpoints.primary": "10.1.0.1:5432", "relations.7.application": "shop", "relations.7.state": "served",
		"relations.8.state": "refused", "relations.9.state": "asked for nothing yet", "problems-count": "1",
		"problems.1.cause": "relation 8 with plain is refused: invalid database name", "problems.1.cure": "have plain ask for something else, or juju remove-relation db:database plain",
	} {
		if results[key] != want {
			t.Errorf("%s is %q, want %q", key, results[key], want)
		}
	}
	for _, line := range []string{"db/1  replica  streaming  3         0            quorum  no", "8         plain        database  refused"} {
		if !strings.Contains(results["table"], line) {
			t.Errorf("the table has no line %q:\n%s", line, results["table"])
		}
	}
	obs.Leader = false
	if results, _ := run(t, status, obs); results["relations"] != "juju run db/leader status tells them" {
		t.Errorf("elsewhere the relations are %q", results["relations"])
	}
}

func TestProblemsHaveACauseAndACure(t *testing.T) {
	t.Parallel()
	change := func(f func(m *state.Member)) state.Observed {
		return with(three(0), func(c *state.Cluster) { f(&c.Members[2]) })
	}
	tests := []struct {
		name        string
		obs         state.Observed
		want        state.Desired
		cause, cure string
	}{
		{"all is well", three(0), state.Desired{}, "", ""},
		{"a member that is down", change(func(m *state.Member) { m.State = "stopped" }), state.Desired{}, "db/2 is stopped", "juju run db/2 reinitialize confirm=db/2"},
		{"one that is copied", change(func(m *state.Member) { m.State = "creating replica" }), state.Desired{}, "db/2 copies the primary", "nothing"},
		{"one that is far behind", change(func(m *state.Member) { m.Lag = state.Value(int64(100 << 20)) }), state.Desired{}, "db/2 is 100 MB behind", "volume and network"},
		{"one on another timeline", change(func(m *state.Member) { m.Timeline = 2 }), state.Desired{}, "timeline 2, the primary on 3", "reinitialize"},
		{"one that waits for a restart", change(func(m *state.Member) { m.PendingRestart = true }), state.Desired{}, "wait for a restart", "juju run db/leader restart"},
		{"no primary", with(three(0), func(c *state.Cluster) { c.Members[0].Role = "replica"; c.Members[0].State = "streaming" }), state.Desired{}, "there is no primary", "election"},
		{"no member", state.Observed{Unit: unit, Cluster: state.Unknown[state.Cluster]("refused")}, state.Desired{}, "does not answer: refused", "ask another unit"},
		{"no API", with(three(0), func(c *state.Cluster) { c.Away = "503" }), state.Desired{}, "cannot reach the Kubernetes API", "this primary serves on"},
		{"no API on a replica", with(three(1), func(c *state.Cluster) { c.Away = "503" }), state.Desired{}, "cannot reach the Kubernetes API", "network"},
		{"what the charm waits for", three(0), state.Desired{Problems: []state.Problem{{Severity: state.Waiting, Message: "awaiting: this"}}}, "awaiting: this", "if it does not end"},
		{"what waits for a person", three(0), state.Desired{Problems: []state.Problem{{Severity: state.Maintenance, Message: state.MessageRefreshPaused}}},
			"upgrade completed", "run db/leader resume-upgrade"},
		{"what people must do", three(0), state.Desired{Problems: []state.Problem{{Severity: state.Blocked, Message: state.MessageImage}}}, "no PostgreSQL 14 or later in the image", "attach another postgresql-image"},
		{"rights that lack", three(0), state.Desired{Problems: []state.Problem{{Severity: state.Blocked, Message: state.MessageTrust("db")}}}, "Insufficient permissions", "juju trust db"},
		{"a refused request", three(0), state.Desired{Problems: []state.Problem{{Severity: state.Blocked, Message: state.MessageInvalidDatabase}}}, "invalid database name", "juju remove-relation"},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			found := findings(test.obs, test.want)
			if (test.cause == "") != (len(found) == 0) || len(found) > 0 && (!strings.Contains(found[0].cause, test.cause) || !strings.Contains(found[0].cure, test.cure)) {
				t.Errorf("it finds %+v, want %q and %q", found, test.cause, test.cure)
			}
		})
	}
	missing := three(0)
	missing.Units = state.Value([]string{"db/0", "db/1", "db/2", "db/3"})
	if found := findings(missing, state.Desired{}); len(found) != 1 || found[0].cause != "db/3 has no member" {
		t.Errorf("a unit without a member: %+v", found)
	}
}

func TestTheReportHasNoSecrets(t *testing.T) {
	t.Parallel()
	obs := three(0)
	obs.Params = map[string]state.Redacted{"password": "S3CRET-param"}
	for key := range obs.Secrets[peerSecret].Content {
		obs.Secrets[peerSecret].Content[key] = "S3CRET"
	}
	obs.Database = state.Value(state.Catalog{Version: "17.5", Roles: map[string]state.Role{"operator": {Name: "operator", Verifier: "S3CRET", Password: "S3CRET"}}})
	obs.Workload = state.Value(state.Workload{Files: map[string]state.File{state.PatroniYML: {Content: "S3CRET"}}})
	obs.Relations["database"][1].LocalApp = map[string]string{"password": "S3CRET", "uris": "S3CRET", "endpoints": "10.0.0.1:5432", "data": "S3CRET"}
	want := state.Desired{Patroni: state.Value(state.Patroni{Passwords: state.Passwords{Operator: "S3CRET"}}), REST: "S3CRET"}
	progress := begin(t, report, obs)(View{Observed: obs}, &want)
	text := progress.Results["report"]
	if strings.Contains(text, "S3CRET") {
		t.Errorf("a secret is in it:\n%s", text)
	}
	var parsed map[string]any
	if err := json.Unmarshal([]byte(text), &parsed); err != nil {
		t.Fatal(err)
	}
	for _, part := range []string{"db-1", "10.0.0.1:5432", "patroni.yml", "operator-password", `"kubernetes": "unknown: `} {
		if !strings.Contains(text, part) {
			t.Errorf("it lacks %s:\n%s", part, text)
		}
	}
	if long := truncate(strings.Repeat("x", 200<<10)); len(long) > 128<<10 || !strings.HasSuffix(long, "too long") {
		t.Errorf("a long one has %d bytes", len(long))
	}
}
