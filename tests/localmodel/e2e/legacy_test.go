//go:build localmodel

package e2e

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"charmhub.io/postgresql-k8s/tests/localmodel"
)

var legacyCharm = fromEnv("LOCALMODEL_LEGACY", "../../../dist/legacy_amd64.charm")

// The messages by which the charm refuses a legacy client.
const (
	noExtensions = "extensions requested through relation"
	noRoles      = "roles requested through relation, use postgresql_client interface instead"
	oneEndpoint  = "Please choose one endpoint to use. No need to relate all of them simultaneously!"
)

const primaryService = app + "-primary.local.svc.cluster.local"

func (w *world) deployLegacy(name string, units int, config map[string]any) {
	w.t.Helper()
	w.must(w.Deploy(localmodel.Deployment{Charm: legacyCharm, Name: name, Units: units, Config: config}))
	w.wait(name, func(s localmodel.Status) bool {
		return len(s.App(name).Units) == units && s.App(name).Units[0].Workload.Message == "no relation"
	})
}

// rows waits until a client's unit has written more rows than n, and returns how
// many there are.
func (w *world) rows(unit string, n int) (rows int) {
	w.t.Helper()
	w.wait(fmt.Sprintf("more than %d rows of %s", n, unit), func(s localmodel.Status) bool {
		rows = shown(s, unit)
		return rows > n
	})
	return rows
}

// shown is the number of rows that a client's unit shows, or 0.
func shown(s localmodel.Status, unit string) int {
	u, _ := unitOf(s, unit)
	count, host, _ := strings.Cut(u.Workload.Message, " rows through ")
	rows, err := strconv.Atoi(count)
	if u.Workload.Status != "active" || host != primaryService || err != nil {
		return 0
	}
	return rows
}

func unitOf(s localmodel.Status, unit string) (localmodel.UnitStatus, bool) {
	name, _, _ := strings.Cut(unit, "/")
	for _, u := range s.App(name).Units {
		if u.Name == unit {
			return u, true
		}
	}
	return localmodel.UnitStatus{}, false
}

// shows waits until a unit shows a status and a message.
func (w *world) shows(unit, status, message string) {
	w.t.Helper()
	w.wait(fmt.Sprintf("%s: %s %q", unit, status, message), func(s localmodel.Status) bool {
		u, _ := unitOf(s, unit)
		return u.Workload.Status == status && u.Workload.Message == message
	})
}

// run runs an action of a client and returns its results.
func (w *world) run(unit, action string, params map[string]any) map[string]any {
	w.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	a, err := w.RunAction(ctx, unit, action, params)
	w.must(err)
	if a.Status != "completed" {
		w.t.Fatalf("action %s of %s %s: %s", action, unit, a.Status, a.Message)
	}
	return a.Results
}

func (w *world) sql(unit, statement string) string {
	w.t.Helper()
	rows, _ := w.run(unit, "sql", map[string]any{"statement": statement})["rows"].(string)
	return rows
}

// told are the databags that a client's unit sees: the application's, and the
// leader's without what Juju has put in it.
func (w *world) told(unit, leader string) (ofApp, ofLeader map[string]string) {
	w.t.Helper()
	ofApp, ofLeader = map[string]string{}, map[string]string{}
	_, number, _ := strings.Cut(leader, "/")
	for key, value := range w.run(unit, "credentials", nil) {
		switch value := value.(type) {
		case string:
			ofApp[key] = value
		case map[string]any:
			for k, v := range value {
				if key == "unit-"+number && k != "egress-subnets" && k != "ingress-address" {
					ofLeader[k], _ = v.(string)
				}
			}
		}
	}
	return ofApp, ofLeader
}

func TestLegacyClients(t *testing.T) {
	w := newWorld(t, nil)
	w.deploy(1)
	w.settle(1)
	w.deployLegacy("plain", 2, map[string]any{"database-name": "both"})
	w.deployLegacy("admin", 1, map[string]any{"database-name": "both"})

	began := time.Now()
	w.must(w.Integrate(app+":db", "plain:db"))
	n := w.rows("plain/0", 0)
	t.Logf("a row written %.1f s after the relation was made", time.Since(began).Seconds())
	w.rows("plain/1", 0)
	w.must(w.Integrate(app+":db-admin", "admin:db-admin"))
	w.rows("admin/0", n)
	w.settle(1)

	plain, ofLeader := w.told("plain/0", unit0)
	if !maps.Equal(plain, ofLeader) {
		t.Errorf("the application says %v, and the leader %v", plain, ofLeader)
	}
	if plain["allowed-units"] != "plain/0 plain/1" || plain["database"] != "both" || plain["user"] == "" || plain["version"] == "" ||
		plain["host"] != app+"-0."+app+"-endpoints.local.svc.cluster.local" || plain["port"] != "5432" ||
		plain["standbys"] != plain["master"] || !strings.HasSuffix(plain["master"], " port=5432 user="+plain["user"]) {
		t.Errorf("the client is told %v", plain)
	}
	const who = `SELECT rolsuper, current_setting('application_name'), current_user FROM pg_roles WHERE rolname = session_user`
	admin, _ := w.told("admin/0", unit0)
	for unit, want := range map[string]string{"plain/0": "false plain both", "admin/0": "true admin " + admin["user"]} {
		if got := w.sql(unit, who); got != want {
			t.Errorf("%s is %q, want %q", unit, got, want)
		}
	}
	// The superuser's own table is everybody's once it has gone.
	w.sql("admin/0", "CREATE TABLE of_admin AS SELECT 42 AS n")

	w.must(w.RemoveUnit("plain", 1))
	w.wait("one unit", func(s localmodel.Status) bool { return len(s.App("plain").Units) == 1 })
	w.eventually("the unit is not allowed any more", func() bool {
		plain, ofLeader = w.told("plain/0", unit0)
		return plain["allowed-units"] == "plain/0" && ofLeader["allowed-units"] == "plain/0"
	})

	w.must(w.RemoveRelation(app+":db-admin", "admin:db-admin"))
	w.shows("admin/0", "waiting", "no relation")
	w.eventually("the superuser is gone", func() bool {
		out, err := w.tryPsql(unit0, "SELECT count(*) FROM pg_roles WHERE rolname ~ '^relation_id_' AND rolsuper")
		return err == nil && out == "0"
	})
	if got := w.sql("plain/0", "SELECT n FROM of_admin"); got != "42" {
		t.Errorf("of the superuser's table the other one reads %q", got)
	}

	before := w.rows("plain/0", 0)
	w.must(w.RemoveRelation(app+":db", "plain:db"))
	w.shows("plain/0", "waiting", "no relation")
	c := &clients{world: w}
	w.eventually("the user is gone", func() bool {
		err := c.tryLogin(plain["master"], "SELECT 1")
		return err != nil && strings.Contains(err.Error(), "password authentication failed")
	})
	w.must(w.Integrate(app+":db", "plain:db"))
	w.rows("plain/0", before) // the data are there, and may be added to
	again, _ := w.told("plain/0", unit0)
	if again["user"] == plain["user"] || again["password"] == plain["password"] {
		t.Error("the new relation has a user or a password of before")
	}
	w.sql("plain/0", "DROP TABLE of_admin, seen")
	w.settle(1)
}

// TestLegacyClientFromTheBeginning has the client there before the database. The
// name that it is told leads somewhere when it is told.
func TestLegacyClientFromTheBeginning(t *testing.T) {
	c := newClientsWith(t, func(o *localmodel.Options) { o.Timing.Readiness = 5 * time.Second }) // Juju's own
	c.must(c.Deploy(localmodel.Deployment{Charm: charm, Images: map[string]string{"postgresql-image": image}}))
	c.deployLegacy("old", 1, nil)
	c.must(c.Integrate(app+":db", "old:db"))
	c.soon("the client's unit", func() bool {
		return slices.ContainsFunc(c.done(), func(d dispatch) bool { return d.Hook == "hooks/db-relation-joined" && d.Unit == unit0 })
	})
	c.must(c.SetTrust(app, true))
	early := ""
	c.wait("a row", func(s localmodel.Status) bool {
		u, _ := unitOf(s, "old/0")
		if u.Workload.Status == "blocked" {
			early = u.Workload.Message
		}
		return early != "" || shown(s, "old/0") > 0
	})
	if early != "" {
		t.Errorf("the client shows %q", early)
	}
	c.settle(1)
	c.quiet()
	before := len(c.done())
	c.must(c.UpdateStatus(unit0))
	c.soon("a dispatch", func() bool { return len(c.done()) > before })
	for _, d := range c.done()[before:] {
		if d.Unit == unit0 && d.steps != 0 {
			t.Errorf("a second dispatch made %d steps", d.steps)
		}
	}
}

func TestLegacyClientFollowsAFailover(t *testing.T) {
	w := newWorld(t, nil)
	w.deploy(3)
	w.settle(3)
	w.deployLegacy("old", 1, nil)
	w.must(w.Integrate(app+":db", "old:db"))
	w.rows("old/0", 0)
	w.settle(3)
	before, _ := w.told("old/0", unit0)
	if before["standbys"] == before["master"] || !strings.Contains(before["standbys"], app+"-replicas.") {
		t.Errorf("the client is told %q and %q", before["master"], before["standbys"])
	}
	if got := w.run("old/0", "sql", map[string]any{"statement": "SELECT pg_is_in_recovery()", "standby": true})["rows"]; got != "true" {
		t.Errorf("that a standby is one is %q", got)
	}
	for range 2 {
		primary := w.primary()
		began := time.Now()
		w.must(w.KillPod(primary))
		n := shown(w.Status(), "old/0") + 1 // one row may have been under way
		w.eventually("the client writes again", func() bool {
			w.must(w.UpdateStatus("old/0")) // what it was told has not changed
			return shown(w.Status(), "old/0") > n
		})
		took := time.Since(began)
		w.settle(3)
		t.Logf("%s was the primary; the client writes through %s again after %.1f s", primary, w.primary(), took.Seconds())
		after, _ := w.told("old/0", w.leader())
		if after["master"] != before["master"] || after["standbys"] != before["standbys"] {
			t.Errorf("the client is told %q and %q", after["master"], after["standbys"])
		}
	}
	// Whoever leads says the same for itself.
	w.eventually("the leader's databag", func() bool {
		ofApp, ofLeader := w.told("old/0", w.leader())
		return maps.Equal(ofApp, ofLeader) && ofApp["host"] == strings.Replace(w.leader(), "/", "-", 1)+"."+app+"-endpoints.local.svc.cluster.local"
	})
}

func (w *world) leader() string {
	for _, u := range w.Status().App(app).Units {
		if u.Leader {
			return u.Name
		}
	}
	return ""
}

func TestLegacyAndModernOfOneApplication(t *testing.T) {
	w := newWorld(t, nil)
	w.deploy(1)
	w.settle(1)
	w.deployLegacy("both", 1, nil)
	w.must(w.Integrate(app+":db", "both:db"))
	n := w.rows("both/0", 0)
	w.must(w.Integrate(app+":database", "both:database"))
	w.shows(unit0, "blocked", oneEndpoint)
	w.must(w.UpdateStatus("both/0"))
	n = w.rows("both/0", n) // what it has goes on working

	w.must(w.RemoveRelation(app+":db", "both:db"))
	w.settle(1)
	w.must(w.Integrate(app+":db", "both:db"))
	w.shows(unit0, "blocked", oneEndpoint)
	w.shows("both/0", "waiting", "no connection string")

	w.must(w.RemoveRelation(app+":database", "both:database"))
	w.rows("both/0", n)
	w.settle(1)
}

func TestLegacyClientsThatAreRefused(t *testing.T) {
	w := newWorld(t, nil)
	w.deploy(1)
	w.settle(1)
	w.deployLegacy("old", 1, map[string]any{"extensions": "citext,unaccent"})
	w.must(w.Integrate(app+":db", "old:db"))
	w.shows(unit0, "blocked", noExtensions)
	w.must(w.SetConfig("old", map[string]any{"extensions": nil, "roles": "admin"}))
	w.shows(unit0, "blocked", noRoles)
	w.must(w.SetConfig("old", map[string]any{"roles": nil, "database-name": "template1"}))
	w.shows(unit0, "blocked", badName)
	w.must(w.SetConfig("old", map[string]any{"database-name": "my orders"}))
	w.rows("old/0", 0)
	w.settle(1)

	for _, test := range []struct {
		name    string
		ask     map[string]string
		blocked string
	}{
		{"SQL", map[string]string{"database": `a"; CREATE ROLE pwned SUPERUSER; --`}, badName},
		{"a connection string", map[string]string{"database": "a' host=evil password=x"}, badName},
		{"a newline", map[string]string{"database": "a\nhost all all all trust"}, badName},
		{"another's user", map[string]string{"database": "relation_id_1"}, badName},
		{"extensions of SQL", map[string]string{"database": "a", "extensions": `x"; CREATE ROLE pwned; --`}, noExtensions},
		{"roles of SQL", map[string]string{"database": "a", "roles": `x" SUPERUSER; --`}, noRoles},
		{"a megabyte", map[string]string{"database": strings.Repeat("a", 1<<20)}, badRequest},
		{"a megabyte of something else", map[string]string{"database": "a", "x": strings.Repeat("a", 1<<20)}, badRequest},
	} {
		t.Run(test.name, func(t *testing.T) {
			w := *w
			w.t = t
			name := "stub-" + strings.ReplaceAll(strings.ToLower(strings.NewReplacer(" ", "-", "'", "").Replace(test.name)), "--", "-")
			stub, err := w.DeployStub(name, "db", "pgsql")
			w.must(err)
			w.must(stub.Ask(test.ask))
			w.must(w.Integrate(app+":db", name+":db"))
			w.shows(unit0, "blocked", test.blocked)
			bag, err := stub.Answer()
			w.must(err)
			if len(bag) > 0 {
				t.Errorf("it is told %v", bag)
			}
			w.must(w.RemoveRelation(app+":db", name+":db"))
			w.settle(1)
		})
	}
	if out := w.psql(unit0, `SELECT count(*) FROM pg_roles WHERE rolname = 'pwned'`); out != "0" {
		t.Error("what a request says was executed")
	}
	lines, _ := w.Logs(0)
	for _, line := range lines {
		if strings.Contains(line.Message, "hook failed") {
			t.Error(line)
		}
	}
}
