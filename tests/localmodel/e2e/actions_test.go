//go:build localmodel

package e2e

import (
	"bytes"
	"context"
	"fmt"
	"maps"
	"os/exec"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"charmhub.io/postgresql-k8s/tests/localmodel"
)

// act runs an action that must succeed, and returns its results.
func (w *world) act(unit, name string, params map[string]any) localmodel.Action {
	w.t.Helper()
	a, err := w.tryAct(unit, name, params)
	w.must(err)
	if a.Status != "completed" {
		w.t.Fatalf("%s on %s failed: %s", name, unit, a.Message)
	}
	return a
}

// refused runs an action that must fail with words that have the text in them.
func (w *world) refused(unit, name string, params map[string]any, text string) {
	w.t.Helper()
	a, err := w.tryAct(unit, name, params)
	w.must(err)
	if a.Status != "failed" || !strings.Contains(a.Message, text) {
		w.t.Errorf("%s on %s with %v: %s %q, want it to fail with %q", name, unit, params, a.Status, a.Message, text)
	}
}

func (w *world) tryAct(unit, name string, params map[string]any) (localmodel.Action, error) {
	ctx, cancel := context.WithTimeout(context.Background(), 3*time.Minute)
	defer cancel()
	return w.RunAction(ctx, unit, name, params)
}

// loginAs runs SQL over TCP in the pod of a unit, as a client on that host would.
func (w *world) loginAs(unit, host, user, password, sql string) (string, error) {
	pod, err := w.pod(unit)
	if err != nil {
		return "", err
	}
	var out bytes.Buffer
	cmd := exec.Command("/usr/bin/psql", "-XAtq", "-v", "ON_ERROR_STOP=1", "-h", host, "-U", user, "-d", "postgres", "-c", sql)
	cmd.Env = []string{"PGPASSWORD=" + password, "PGCONNECT_TIMEOUT=3", "PATH=/usr/bin:/bin"}
	cmd.Stdout, cmd.Stderr = &out, &out
	if err := pod.Pod.Start(pod.Container("postgresql"), cmd); err != nil {
		return "", err
	}
	if err := cmd.Wait(); err != nil {
		return "", fmt.Errorf("psql as %s: %w: %s", user, err, out.String())
	}
	return strings.TrimSpace(out.String()), nil
}

func (w *world) passwords() map[string]string {
	w.t.Helper()
	secret, err := w.SecretContent(app, "database-peers."+app+".app")
	w.must(err)
	return secret
}

// accepted waits until the primary accepts the passwords that the secret shows.
func (w *world) accepted(unit string) {
	w.t.Helper()
	for _, user := range []string{"operator", "monitoring", "rewind"} {
		w.eventually(user+" to be let in", func() bool {
			_, err := w.loginAs(unit, app+"-primary", user, w.passwords()[user+"-password"], "SELECT 1")
			return err == nil
		})
	}
}

// replicates waits until all replicas follow, each with a connection that began
// with the password that the secret shows.
func (w *world) replicates(unit string, replicas int) {
	w.t.Helper()
	w.psql(unit, "SELECT pg_terminate_backend(pid) FROM pg_stat_replication WHERE application_name LIKE 'postgresql-k8s-%'")
	w.eventually("the replicas to follow again", func() bool {
		out, err := w.tryPsql(unit, "SELECT count(*) FROM pg_stat_replication WHERE state = 'streaming'")
		return err == nil && out == strconv.Itoa(replicas)
	})
}

// lead makes a unit Juju's leader.
func (w *world) lead(unit string) {
	w.t.Helper()
	w.must(w.SetLeader(unit))
	w.wait("another leader", func(s localmodel.Status) bool {
		return slices.ContainsFunc(s.App(app).Units, func(u localmodel.UnitStatus) bool { return u.Name == unit && u.Leader })
	})
}

// session is a client's session that is open for some seconds.
func (w *world) session(unit, user, password string, seconds int) (alive func() error) {
	end := make(chan error, 1)
	go func() {
		out, err := w.loginAs(unit, app+"-primary", user, password, fmt.Sprintf("SELECT pg_sleep(%d); SELECT 'alive'", seconds))
		if err == nil && !strings.Contains(out, "alive") {
			err = fmt.Errorf("the session said %q", out)
		}
		end <- err
	}()
	return func() error { return <-end }
}

func TestSetPassword(t *testing.T) {
	for _, units := range []int{1, 3} {
		t.Run(fmt.Sprint(units, " units"), func(t *testing.T) {
			w := newWorld(t, nil)
			w.deploy(units)
			w.settle(units)
			leader := app + "/0"
			if units > 1 {
				leader = app + "/1" // which is not the primary
				w.lead(leader)
				w.refused(app+"/0", "set-password", nil, "The action can be run only on leader unit")
			}
			w.refused(leader, "set-password", map[string]any{"username": "nobody"}, "only for system users")
			w.refused(leader, "set-password", map[string]any{"password": "\u00e4"}, "printable ASCII")
			w.refused(leader, "set-password", map[string]any{"username": "relation_id_99"}, "there is no relation 99")
			w.refused(leader, "get-password", map[string]any{"username": "nobody"}, "only for system users or Patroni: backup, replication, rewind, operator, monitoring, patroni not nobody")
			w.refused(leader, "get-password", map[string]any{"username": "backup"}, "has no password")
			if got := w.act(app+"/0", "get-password", nil).Results["password"]; got != w.passwords()["operator-password"] {
				t.Errorf("get-password says %q", got)
			}
			started := w.psql(app+"/0", "SELECT pg_postmaster_start_time()")
			for i, user := range []string{"operator", "replication", "rewind", "monitoring", "backup", "patroni", "operator"} {
				old := w.passwords()
				alive := func() error { return nil }
				if user != "backup" && user != "replication" && user != "patroni" {
					alive = w.session(app+"/0", user, old[user+"-password"], 4)
				}
				time.Sleep(200 * time.Millisecond) // the session begins
				params := map[string]any{"username": user}
				if i%2 == 1 {
					params["password"] = fmt.Sprint("cho'sen \"by\" $people: ", i)
				}
				begin := time.Now()
				result := w.act(leader, "set-password", params).Results["password"]
				took := time.Since(begin)
				if now := w.passwords(); result == "" || now[user+"-password"] != result || result == old[user+"-password"] || params["password"] != nil && params["password"] != result {
					t.Errorf("set-password of %s says %q, the secret has %q", user, result, now[user+"-password"])
				}
				if user != "patroni" && user != "replication" {
					w.eventually(user+" to be let in", func() bool {
						_, err := w.loginAs(app+"/0", app+"-primary", user, w.passwords()[user+"-password"], "SELECT 1")
						return err == nil
					})
					if old := old[user+"-password"]; old != "" {
						if _, err := w.loginAs(app+"/0", app+"-primary", user, old, "SELECT 1"); err == nil {
							t.Errorf("the old password of %s is still good", user)
						}
					}
				}
				accepted := time.Since(begin)
				w.settle(units)
				w.accepted(app + "/0")
				t.Logf("%s: the action took %v, the server accepted after %v, all was quiet after %v", user,
					took.Round(time.Millisecond), accepted.Round(time.Millisecond), time.Since(begin).Round(time.Millisecond))
				if units > 1 {
					w.replicates(app+"/0", units-1)
				}
				if err := alive(); err != nil {
					t.Errorf("a session of %s did not live on: %v", user, err)
				}
			}
			if now := w.psql(app+"/0", "SELECT pg_postmaster_start_time()"); now != started {
				t.Errorf("the server was restarted: %s, before %s", now, started)
			}
			same := w.act(leader, "set-password", map[string]any{"password": w.passwords()["operator-password"]})
			if !slices.Contains(same.Log, "The old and new passwords are equal.") {
				t.Errorf("the same password again: %v", same.Log)
			}
			// Patroni's own calls know the new password of its interface.
			w.must(w.SetConfig(app, map[string]any{"experimental_max_connections": 150}))
			w.eventually("a restart that Patroni was asked for", func() bool {
				out, err := w.tryPsql(app+"/0", "SHOW max_connections")
				return err == nil && out == "150"
			})
			w.settle(units)
			w.neverShown(slices.Collect(maps.Values(w.passwords())))
		})
	}
}

// neverShown looks for secrets in the log of the model.
func (w *world) neverShown(secrets []string) {
	w.t.Helper()
	lines, _ := w.Logs(0)
	for _, line := range lines {
		for _, secret := range secrets {
			if strings.Contains(line.Message, secret) {
				w.t.Errorf("a secret is in the log: %s", line)
			}
		}
	}
}

// TestSetPasswordKilled kills the charm at the n-th call that it makes from the
// beginning of the action on, whichever unit makes it, for every n of a stride.
// The cluster then accepts what the secret shows.
func TestSetPasswordKilled(t *testing.T) {
	stride, err := strconv.Atoi(fromEnv("LOCALMODEL_STRIDE", "12"))
	if err != nil {
		t.Fatal(err)
	}
	var mu sync.Mutex
	calls, fatal, fault := 0, 0, localmodel.NoFault
	count := func() localmodel.Fault {
		mu.Lock()
		defer mu.Unlock()
		calls++
		if calls == fatal {
			return fault
		}
		return localmodel.NoFault
	}
	w := newWorld(t, func(o *localmodel.Options) {
		o.Faults.Tool = func(localmodel.ToolCall) localmodel.Fault { return count() }
		o.Faults.Pebble = func(localmodel.PebbleCall) localmodel.Fault { return count() }
	})
	w.deploy(2)
	w.settle(2)
	w.lead(app + "/1") // not the primary
	w.settle(2)
	users := []string{"operator", "replication", "rewind", "monitoring", "patroni"}
	kills := 0
	for n := 1; ; n += stride {
		user := users[(n/stride)%len(users)]
		mu.Lock()
		calls, fatal, fault = 0, n, []localmodel.Fault{localmodel.KillBefore, localmodel.KillAfter}[kills%2]
		mu.Unlock()
		a, err := w.tryAct(app+"/1", "set-password", map[string]any{"username": user})
		w.must(err)
		w.accepted(app + "/0")
		w.settle(2)
		w.replicates(app+"/0", 1)
		if a.Status == "completed" && a.Results["password"] != w.passwords()[user+"-password"] {
			t.Errorf("killed at call %d: the action says %q of %s, and the secret does not", n, a.Results["password"], user)
		}
		mu.Lock()
		survived := calls < n
		mu.Unlock()
		if survived {
			break
		}
		kills++
	}
	t.Logf("killed %d times", kills)
	if kills < 5 {
		t.Error("too few kills: the test proves nothing")
	}
}

// TestSetRelationPassword rotates the password of a client that follows its secret,
// and kills the charm at the calls of that.
func TestSetRelationPassword(t *testing.T) {
	stride, err := strconv.Atoi(fromEnv("LOCALMODEL_STRIDE", "20"))
	if err != nil {
		t.Fatal(err)
	}
	c := newClients(t)
	c.deploy(1)
	c.settle(1)
	client, plain := c.stub("follows"), c.stub("plain")
	c.ask(client, v0("follows"))
	c.ask(plain, map[string]string{"database": "plain"})
	id, other := c.relate(client), c.relate(plain)
	c.credentials(client)
	c.soon("the plain reply", func() bool { return c.must1(plain.Answer())["password"] != "" })
	c.refused(unit0, "set-password", map[string]any{"username": fmt.Sprint("relation_id_", other)}, "plain text")
	c.refused(unit0, "set-password", map[string]any{"username": fmt.Sprint("relation_id_", id, "_00aa")}, "has no secret")
	user, before := fmt.Sprint("relation_id_", id), len(c.done())

	open := make(chan error, 1)
	go func() { open <- c.tryLogin(c.credentials(client)["uris"], "SELECT pg_sleep(3)") }()
	time.Sleep(300 * time.Millisecond)
	old := c.credentials(client)
	begin := time.Now()
	result := c.act(unit0, "set-password", map[string]any{"username": user}).Results["password"]
	reply := c.credentials(client)
	if reply["password"] != result || reply["password"] == old["password"] || reply["uris"] == old["uris"] {
		t.Errorf("the client's secret has not changed with the result")
	}
	c.soon("the server to accept it", func() bool { return c.tryLogin(reply["uris"], "SELECT 1") == nil })
	t.Logf("the server accepted it after %v", time.Since(begin).Round(time.Millisecond))
	if err := c.tryLogin(old["uris"], "SELECT 1"); err == nil {
		t.Error("the old password is still good")
	}
	if err := <-open; err != nil {
		t.Errorf("a session did not live on: %v", err)
	}
	c.quiet()

	kills := 0
	for n := 1; ; n += stride {
		var mu sync.Mutex
		calls := 0
		c.mu.Lock()
		c.fault = func(string, string) localmodel.Fault {
			mu.Lock()
			defer mu.Unlock()
			if calls++; calls == n {
				return []localmodel.Fault{localmodel.KillBefore, localmodel.KillAfter}[kills%2]
			}
			return localmodel.NoFault
		}
		c.mu.Unlock()
		a, err := c.tryAct(unit0, "set-password", map[string]any{"username": user})
		c.must(err)
		c.soon("the server to accept what the secret shows", func() bool {
			return c.tryLogin(c.credentials(client)["uris"], "INSERT INTO kept VALUES (1)") == nil || c.tryLogin(c.credentials(client)["uris"], "CREATE TABLE IF NOT EXISTS kept (n int)") == nil
		})
		c.quiet()
		reply := c.credentials(client)
		c.login(reply["uris"], "INSERT INTO kept VALUES (2)")
		if a.Status == "completed" && a.Results["password"] != reply["password"] {
			t.Errorf("killed at call %d: the action says another password than the secret", n)
		}
		mu.Lock()
		survived := calls < n
		mu.Unlock()
		if survived {
			break
		}
		kills++
	}
	t.Logf("killed %d times", kills)
	if kills < 3 {
		t.Error("too few kills: the test proves nothing")
	}
	for _, d := range c.done()[before:] { // of an action Juju says that it failed when it was killed
		if d.Outcome != "committed" && !strings.HasSuffix(d.Outcome, "killed") {
			t.Errorf("%s %s", d.Hook, d.Outcome)
		}
	}
}

// TestActions runs each action where it can run and where it must refuse, first
// with three units and then with one.
func TestActions(t *testing.T) {
	w := newWorld(t, nil)
	w.deploy(3)
	w.settle(3)
	first, second, third := app+"/0", app+"/1", app+"/2"
	if w.primary() == third { // which is to be a replica at first
		first, third = third, first
	}
	w.lead(second)
	w.psql(first, "CREATE TABLE kept (n int); INSERT INTO kept VALUES (1)")

	t.Run("promote-to-primary", func(t *testing.T) {
		w := w.in(t)
		w.refused(third, "promote-to-primary", nil, "Scope should be either cluster or unit")
		w.refused(third, "promote-to-primary", map[string]any{"scope": "cluster"}, "replication between clusters")
		w.refused(third, "promote-to-primary", map[string]any{"scope": "unit", "force": true}, "Superfluous force flag with unit scope")
		w.eventually("a replica that has every commit", func() bool {
			members, _ := w.act(second, "status", nil).Results["members"].(map[string]any)
			me, _ := members[strings.Replace(third, "/", "-", 1)].(map[string]any)
			return me["sync"] == "quorum" || me["sync"] == "sync"
		})
		begin := time.Now()
		a := w.act(third, "promote-to-primary", map[string]any{"scope": "unit"})
		t.Logf("it took %v: %v %q", time.Since(begin).Round(time.Millisecond), a.Results, a.Log)
		if a.Results["primary"] != third || a.Results["seconds"] == "" || len(a.Log) == 0 {
			t.Errorf("it says %v, %q", a.Results, a.Log)
		}
		if primary := w.act(second, "get-primary", nil).Results["primary"]; primary != third {
			t.Errorf("the primary is %s", primary)
		}
		w.psql(first, "INSERT INTO kept VALUES (2)")
		if a := w.act(third, "promote-to-primary", map[string]any{"scope": "unit"}); a.Results["primary"] != third {
			t.Errorf("on the primary it says %v", a.Results)
		}
		w.settle(3)
	})

	t.Run("status", func(t *testing.T) {
		w := w.in(t)
		w.eventually("all members to be well", func() bool {
			return w.act(second, "status", nil).Results["problems-count"] == "0"
		})
		a := w.act(second, "status", nil)
		t.Logf("\n%s", a.Results["table"])
		members, _ := a.Results["members"].(map[string]any)
		primary, _ := members[strings.Replace(third, "/", "-", 1)].(map[string]any)
		if len(members) != 3 || primary["role"] != "primary" || primary["unit"] != third || primary["timeline"] != "2" {
			t.Errorf("it says %v", a.Results)
		}
		if endpoints, _ := a.Results["endpoints"].(map[string]any); !strings.HasSuffix(fmt.Sprint(endpoints["primary"]), ":5432") {
			t.Errorf("the endpoints are %v", endpoints)
		}
		if a := w.act(first, "status", nil); !strings.Contains(fmt.Sprint(a.Results["relations"]), "juju run "+app+"/leader status") {
			t.Errorf("elsewhere than on the leader it says %v", a.Results["relations"])
		}
	})

	t.Run("restart", func(t *testing.T) {
		w := w.in(t)
		w.refused(first, "restart", nil, "The action can be run only on leader unit")
		started := map[string]string{}
		look := func(unit string) string {
			out, err := w.loginAs(unit, "localhost", "operator", w.passwords()["operator-password"], "SELECT pg_postmaster_start_time()")
			w.must(err)
			return out
		}
		for _, unit := range []string{first, second, third} {
			started[unit] = look(unit)
		}
		begin := time.Now()
		a := w.act(second, "restart", nil)
		t.Logf("it took %v: %v %q", time.Since(begin).Round(time.Millisecond), a.Results, a.Log)
		if order := []string{min(first, second), max(first, second), third}; a.Results["restarted"] != strings.Join(order, ",") {
			t.Errorf("it says %v", a.Results)
		}
		for _, unit := range []string{first, second, third} {
			w.eventually("the server of "+unit+" to be up again", func() bool {
				now, err := w.loginAs(unit, "localhost", "operator", w.passwords()["operator-password"], "SELECT pg_postmaster_start_time()")
				return err == nil && now != started[unit]
			})
		}
		w.psql(first, "INSERT INTO kept VALUES (3)")
		w.settle(3)
	})

	t.Run("reinitialize", func(t *testing.T) {
		w := w.in(t)
		primary := fmt.Sprint(w.act(second, "get-primary", nil).Results["primary"])
		replica := map[bool]string{true: first, false: second}[primary != first]
		w.refused(replica, "reinitialize", nil, "juju run "+replica+" reinitialize confirm="+replica)
		w.refused(replica, "reinitialize", map[string]any{"confirm": primary}, "confirm="+replica)
		w.refused(primary, "reinitialize", map[string]any{"confirm": primary}, "this unit is the primary")
		begin := time.Now()
		a := w.act(replica, "reinitialize", map[string]any{"confirm": replica})
		t.Logf("it took %v: %v %q", time.Since(begin).Round(time.Millisecond), a.Results, a.Log)
		w.settle(3)
		w.eventually("the replica to have the data", func() bool {
			out, err := w.loginAs(replica, "localhost", "operator", w.passwords()["operator-password"], "SELECT string_agg(n::text, ',' ORDER BY n) FROM kept")
			return err == nil && out == "1,2,3"
		})
	})

	t.Run("report", func(t *testing.T) {
		w := w.in(t)
		for _, unit := range []string{first, second} {
			text := fmt.Sprint(w.act(unit, "report", nil).Results["report"])
			if !strings.Contains(text, `"postgresql-k8s-1"`) || !strings.Contains(text, `"layer"`) || len(text) < 1000 {
				t.Errorf("the report of %s is %s", unit, text)
			}
			for user, password := range w.passwords() {
				if strings.Contains(text, password) || strings.Contains(text, "SCRAM-SHA-256") {
					t.Errorf("the report of %s has the %s", unit, user)
				}
			}
			t.Logf("the report of %s has %d bytes", unit, len(text))
		}
	})

}

// in is the same world for a part of a test.
func (w *world) in(t *testing.T) *world {
	part := *w
	part.t = t
	return &part
}

// TestActionsAlone runs the actions on a unit without others.
func TestActionsAlone(t *testing.T) {
	w := newWorld(t, nil)
	w.deploy(1)
	w.settle(1)
	unit := app + "/0"
	if a := w.act(unit, "promote-to-primary", map[string]any{"scope": "unit"}); !slices.Contains(a.Log, "This unit is the primary already.") {
		t.Errorf("the only unit says %v, %q", a.Results, a.Log)
	}
	w.refused(unit, "reinitialize", map[string]any{"confirm": unit}, "this unit is the primary")
	started := w.psql(unit, "SELECT pg_postmaster_start_time()")
	a := w.act(unit, "restart", nil)
	t.Logf("restart: %v %q", a.Results, a.Log)
	if now := w.psql(unit, "SELECT pg_postmaster_start_time()"); a.Results["restarted"] != unit || now == started {
		t.Errorf("restart says %v; the server was started %s, then %s", a.Results, started, now)
	}
	w.settle(1)
	a = w.act(unit, "status", nil)
	t.Logf("\n%s", a.Results["table"])
	if a.Results["problems-count"] != "0" {
		t.Errorf("status says %v", a.Results)
	}
	if text := fmt.Sprint(w.act(unit, "report", nil).Results["report"]); !strings.Contains(text, "postgresql-k8s-0") {
		t.Errorf("the report is %s", text)
	}
}
