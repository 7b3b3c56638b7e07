//go:build localmodel

package e2e

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"os"
	"os/exec"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"charmhub.io/postgresql-k8s/charm/state"
	"charmhub.io/postgresql-k8s/tests/localmodel"
)

const unit0 = app + "/0"

// The messages by which the charm refuses a request.
const (
	badName    = "invalid database name"
	badRoles   = "invalid role(s) for extra user roles"
	badRequest = "invalid request of a client application"
)

const inSecrets = `["username", "password", "tls", "tls-ca", "uris", "read-only-uris"]`

// v0 is a request in version 0 of the protocol, with its answer in secrets.
func v0(database string) map[string]string {
	return map[string]string{"database": database, "requested-secrets": inSecrets}
}

func with(ask map[string]string, more ...string) map[string]string {
	ask = maps.Clone(ask)
	for i := 0; i < len(more); i += 2 {
		ask[more[i]] = more[i+1]
	}
	return ask
}

// v1 is a request in version 1; each item is a JSON object.
func v1(requests ...map[string]any) map[string]string {
	text, err := json.Marshal(requests)
	if err != nil {
		panic(err)
	}
	return map[string]string{"version": "v1", "requests": string(text)}
}

// item is one request of version 1, as the library writes it.
func item(id, database string) map[string]any {
	return map[string]any{
		"request-id": id, "salt": "0123456789abcdef", "resource": database, "extra-user-roles": nil,
		"extra-group-roles": nil, "external-node-connectivity": false, "entity-type": nil,
	}
}

// hostile are requests that must not be served, those that look like it and
// must, and what the other side is to see of it.
var hostile = []struct {
	name    string
	ask     map[string]string
	blocked string // the unit's message
	status  bool   // the relation has the protocol's message
	served  string // the database that is made all the same
}{
	{name: "quote", ask: v0(`a"b`), blocked: badName},
	{name: "apostrophe", ask: v0(`a'b`), blocked: badName},
	{name: "semicolon", ask: v0(`a; DROP ROLE backup`), blocked: badName},
	{name: "closing the quotes", ask: v0(`a"; CREATE ROLE pwned SUPERUSER; --`), blocked: badName},
	{name: "closing the apostrophes", ask: v0(`a'); COPY (SELECT 1) TO PROGRAM 'touch /tmp/pwned' --`), blocked: badName},
	{name: "shell", ask: v0("`touch /tmp/pwned`$(touch /tmp/pwned)"), blocked: badName},
	{name: "backslash", ask: v0(`a\' b`), blocked: badName},
	{name: "dollar quotes", ask: v0("a $$ b"), blocked: badName},
	{name: "newline", ask: v0("a\nb"), blocked: badName},
	{name: "carriage return", ask: v0("a\rhost all all all trust"), blocked: badName},
	{name: "text direction", ask: v0("a\u202eb"), blocked: badName},
	{name: "64 bytes", ask: v0(strings.Repeat("a", 64)), blocked: badName},
	{name: "64 bytes of 32 characters", ask: v0(strings.Repeat("ä", 32)), blocked: badName},
	{name: "1000 bytes", ask: v0(strings.Repeat("a", 1000)), blocked: badName},
	{name: "postgres", ask: v0("postgres"), blocked: badName},
	{name: "POSTGRES", ask: v0("POSTGRES"), blocked: badName},
	{name: "template0", ask: v0("template0"), blocked: badName},
	{name: "template1", ask: v0("template1"), blocked: badName},
	{name: "operator", ask: v0("operator"), blocked: badName},
	{name: "replication", ask: v0("replication"), blocked: badName},
	{name: "public", ask: v0("public"), blocked: badName},
	{name: "admin", ask: v0("admin"), blocked: badName},
	{name: "relation_access", ask: v0("relation_access"), blocked: badName},
	{name: "pg_monitor", ask: v0("pg_monitor"), blocked: badName},
	{name: "another's user", ask: v0("relation_id_1"), blocked: badName},

	{name: "role operator", ask: with(v0("a"), "extra-user-roles", "operator"), blocked: badRoles},
	{name: "role postgres", ask: with(v0("a"), "extra-user-roles", "postgres"), blocked: badRoles},
	{name: "role backup among good ones", ask: with(v0("a"), "extra-user-roles", "createdb, BACKUP ,admin"), blocked: badRoles},
	{name: "role of another relation", ask: with(v0("a"), "extra-user-roles", "relation_id_1"), blocked: badRoles},
	{name: "role of a database", ask: with(v0("a"), "extra-user-roles", "good"), blocked: badRoles},
	{name: "role pg_execute_server_program", ask: with(v0("a"), "extra-user-roles", "pg_execute_server_program"), blocked: badRoles},
	{name: "role pg_write_server_files", ask: with(v0("a"), "extra-user-roles", "PG_WRITE_SERVER_FILES"), blocked: badRoles},
	{name: "role with quotes", ask: with(v0("a"), "extra-user-roles", `admin" SUPERUSER; --`), blocked: badRoles},
	{name: "role with a newline", ask: with(v0("a"), "extra-user-roles", "admin\nsuperuser"), blocked: badRoles},
	{name: "role of 1000 bytes", ask: with(v0("a"), "extra-user-roles", strings.Repeat("a", 1000)), blocked: badRoles},

	{name: "requested-secrets is no JSON", ask: with(v0("a"), "requested-secrets", `["username"`), blocked: badRequest},
	{name: "requested-secrets is no list", ask: with(v0("a"), "requested-secrets", `{"username": true}`), blocked: badRequest},
	{name: "requested-secrets lists numbers", ask: with(v0("a"), "requested-secrets", `[1, 2]`), blocked: badRequest},
	{name: "megabyte of name", ask: v0(strings.Repeat("a", 1<<20)), blocked: badRequest},
	{name: "megabyte of roles", ask: with(v0("a"), "extra-user-roles", strings.Repeat("admin,", 1<<18)), blocked: badRequest},
	{name: "megabyte of something else", ask: with(v0("a"), "alias", strings.Repeat("a", 1<<20)), blocked: badRequest},
	{name: "megabyte of data", ask: with(v0("of-data"), "data", strings.Repeat("a", 1<<20)), served: "of-data"},
	{name: "1000 keys", ask: thousandKeys("of-keys", `"'; DROP ROLE backup; --`), served: "of-keys"},
	{name: "megabytes in 1000 keys", ask: thousandKeys("of-keys", strings.Repeat(`"`, 10_000)), blocked: badRequest},

	{name: "entity user", ask: with(v0("a"), "entity-type", "USER"), status: true},
	{name: "entity group", ask: with(v0("a"), "entity-type", "GROUP", "extra-group-roles", "operator"), status: true},
	{name: "entity nonsense", ask: with(v0("a"), "entity-type", `"}]; DROP`), status: true},
	{name: "prefix", ask: v0("goo*"), status: true},
	{name: "prefix of everything", ask: v0("*"), status: true},

	{name: "empty database", ask: with(v0("a"), "database", "")},
	{name: "nothing", ask: map[string]string{}},

	{name: "v1, no JSON", ask: map[string]string{"version": "v1", "requests": `[{"resource"`}, blocked: badRequest},
	{name: "v1, an object", ask: map[string]string{"version": "v1", "requests": `{"resource": "a"}`}, blocked: badRequest},
	{name: "v1, a list of lists", ask: map[string]string{"version": "v1", "requests": `[[]]`}, blocked: badRequest},
	{name: "v1, deep", ask: map[string]string{"version": "v1", "requests": strings.Repeat("[", 60_000)}, blocked: badRequest},
	{name: "v1, null", ask: map[string]string{"version": "v1", "requests": `[null]`}, blocked: badRequest},
	{name: "v1, a megabyte of no JSON", ask: map[string]string{"version": "v1", "requests": strings.Repeat("a", 1<<20)}, blocked: badRequest},
	{name: "v1, a megabyte in a request", ask: v1(item("00ff", strings.Repeat("a", 1<<20))), blocked: badRequest},
	{name: "v1, 5000 requests", ask: v1(items(5000)...), blocked: badRequest},
	{name: "v1, SQL for an id", ask: v1(item(`1"; DROP ROLE backup; --`, "a")), blocked: badRequest},
	{name: "v1, no id", ask: v1(item("", "a")), blocked: badRequest},
	{name: "v1, an id twice", ask: v1(item("00ff", "a"), item("00ff", "b")), blocked: badRequest},
	{name: "v1, a NUL", ask: v1(item("00ff", "a\x00b")), blocked: badName, status: true},
	{name: "v1, quotes", ask: v1(item("00ff", `a"; DROP ROLE backup; --`)), blocked: badName, status: true},
	{name: "v1, reserved", ask: v1(item("00ff", "template1")), blocked: badName, status: true},
	{name: "v1, entity", ask: v1(with1(item("00ff", "a"), "entity-type", "USER")), status: true},
	{name: "v1, prefix", ask: v1(item("00ff", "goo*")), status: true},
	{name: "v1, roles", ask: v1(with1(item("00ff", "a"), "extra-user-roles", "operator")), blocked: badRoles, status: true},

	{name: "odd but good", ask: v0("%s ünï/cödé?{0}#&=:@"), served: "%s ünï/cödé?{0}#&=:@"},
	{name: "63 bytes", ask: v0(strings.Repeat("ä", 31) + "b"), served: strings.Repeat("ä", 31) + "b"},
	{name: "upper case roles", ask: with(v0("a-role"), "extra-user-roles", "CREATEDB,Admin"), served: "a-role"},
}

func thousandKeys(database, value string) map[string]string {
	ask := v0(database)
	for i := range 1000 {
		ask[fmt.Sprint("key-", i)] = value
	}
	return ask
}

func items(n int) []map[string]any {
	var all []map[string]any
	for i := range n {
		all = append(all, item(fmt.Sprintf("%016x", i), fmt.Sprint("many-", i)))
	}
	return all
}

func with1(request map[string]any, key string, value any) map[string]any {
	request[key] = value
	return request
}

// TestHostileClients relates applications with the hostile requests, some at a time,
// and a good one beside them.
func TestHostileClients(t *testing.T) {
	const together = 8
	c := newClients(t)
	c.deploy(1)
	c.settle(1)
	var bad []*localmodel.Stub
	for i := range together {
		bad = append(bad, c.stub(fmt.Sprint("bad-", i)))
	}
	good := c.stub("good")
	c.ask(good, v0("good"))
	c.relate(good)
	c.credentials(good)
	c.unrelate(good)
	base := c.catalog()
	made := map[string]bool{} // databases stay
	for left := hostile; len(left) > 0; {
		n := 1
		for n < min(together, len(left)) && left[n].blocked == left[0].blocked && left[n].status == left[0].status {
			n++
		}
		batch := left[:n]
		left = left[n:]
		t.Run("from "+batch[0].name, func(t *testing.T) {
			c := c.in(t)
			before := len(c.done())
			blocked := batch[0].blocked
			var ids []int
			var users []string
			for i, test := range batch {
				c.ask(bad[i], test.ask)
				ids = append(ids, c.relate(bad[i]))
				if test.served != "" {
					made[test.served] = true
					users = append(users, fmt.Sprint("relation_id_", ids[i]))
				}
			}
			for _, id := range ids {
				c.seen(id)
			}
			for i, test := range batch {
				if test.served != "" {
					t.Run(test.name, func(t *testing.T) {
						c := c.in(t)
						reply := c.credentials(bad[i])
						if reply["database"] != test.served {
							t.Errorf("the reply is for database %.80q, want %.80q", reply["database"], test.served)
						}
						c.login(reply["uris"], "SELECT 1")
					})
				}
			}
			c.quiet()
			c.wantStatus(blocked)
			c.wantCatalog(base, made, users...)
			record := c.record()
			for i, test := range batch {
				t.Run(test.name, func(t *testing.T) {
					c := c.in(t)
					if problem := record[ids[i]].Problem; problem != test.blocked {
						t.Errorf("the problem of the relation is %q, want %q", problem, test.blocked)
					}
					c.wantStatusKey(bad[i], test.status)
					if labels := c.SecretLabels(app, fmt.Sprintf("database.%d.", ids[i])); test.served == "" && len(labels) > 0 {
						t.Errorf("there are secrets for it: %q", labels)
					}
				})
			}

			goodID := c.relate(good)
			reply := c.credentials(good)
			c.login(reply["uris"], "SELECT 1")
			c.wantStatus(blocked)
			c.wantCatalog(base, made, append(users, fmt.Sprint("relation_id_", goodID))...)
			c.unrelate(bad[:n]...)
			c.wantStatus("")
			c.unrelate(good)
			c.wantCatalog(base, made)
			c.wantNoFailure(before)
			if _, err := os.Stat(c.root() + "/tmp/pwned"); !errors.Is(err, os.ErrNotExist) {
				t.Errorf("what a request says was executed: %v", err)
			}
			if labels := c.SecretLabels(app, "database."); len(labels) > 0 {
				t.Errorf("secrets are left: %q", labels)
			}
		})
	}
}

// TestRequestsThatChange relates applications that make up their minds later.
func TestRequestsThatChange(t *testing.T) {
	c := newClients(t)
	client := c.stub("client")
	c.ask(client, v0("early"))
	c.deploy(1)
	c.relate(client)
	c.settle(1)
	before := len(c.done())

	t.Run("before the cluster is up", func(t *testing.T) {
		c := c.in(t)
		reply := c.credentials(client)
		c.login(fmt.Sprintf("postgresql://%s:%s@%s/early", reply["username"], reply["password"], reply["endpoints"]), "SELECT 1")
		// The Service has no ready pod yet.
		c.soon("the name in the URI", func() bool { return c.tryLogin(reply["uris"], "SELECT 1") == nil })
		if slices.ContainsFunc(c.done()[before:], func(d dispatch) bool { return strings.HasPrefix(d.Hook, "hooks/database-relation-") }) {
			t.Error("it took an event of the relation")
		}
	})
	t.Run("database set later", func(t *testing.T) {
		c := c.in(t)
		late := c.stub("late")
		c.ask(late, map[string]string{"requested-secrets": inSecrets})
		c.seen(c.relate(late))
		c.quiet()
		c.wantStatus("")
		if bag := c.must1(late.Answer()); len(bag) > 0 {
			t.Errorf("who asked for nothing is told %v", slices.Sorted(maps.Keys(bag)))
		}
		c.ask(late, v0("late"))
		c.login(c.credentials(late)["uris"], "SELECT 1")
	})
	t.Run("bad, then good", func(t *testing.T) {
		c := c.in(t)
		sorry := c.stub("sorry")
		c.ask(sorry, v0("postgres"))
		c.seen(c.relate(sorry))
		c.quiet()
		c.wantStatus(badName)
		c.ask(sorry, v0("sorry"))
		c.login(c.credentials(sorry)["uris"], "SELECT 1")
		c.quiet()
		c.wantStatus("")
	})
	t.Run("entity, then database", func(t *testing.T) {
		c := c.in(t)
		entity := c.stub("entity")
		c.ask(entity, with(v0("entity"), "entity-type", "USER"))
		c.seen(c.relate(entity))
		c.quiet()
		c.wantStatusKey(entity, true)
		c.ask(entity, v0("entity"))
		c.login(c.credentials(entity)["uris"], "SELECT 1")
		c.wantStatusKey(entity, false)
	})
}

// TestTwoApplicationsOneDatabase lets two applications work on each other's
// tables, together and after each other.
func TestTwoApplicationsOneDatabase(t *testing.T) {
	c := newClients(t)
	c.deploy(1)
	c.settle(1)
	one, two, other := c.stub("one"), c.stub("two"), c.stub("other")
	for client, database := range map[*localmodel.Stub]string{one: "both", two: "both", other: "other"} {
		c.ask(client, v0(database))
		c.relate(client)
	}
	first, second, foreign := c.credentials(one), c.credentials(two), c.credentials(other)
	if first["username"] == second["username"] {
		t.Fatal("two applications have the same user")
	}
	c.login(first["uris"], "CREATE TABLE of_one (n int); INSERT INTO of_one VALUES (1)")
	c.login(second["uris"], "ALTER TABLE of_one ADD COLUMN m int; INSERT INTO of_one VALUES (2, 2); CREATE TABLE of_two AS TABLE of_one")
	c.login(first["uris"], "DROP TABLE of_two; CREATE SCHEMA s; CREATE VIEW s.v AS TABLE of_one")
	if err := c.tryLogin(strings.Replace(foreign["uris"], "/other", "/both", 1), "SELECT 1"); err == nil {
		t.Error("the user of a third application got into the database")
	}
	c.unrelate(one)
	if err := c.tryLogin(first["uris"], "SELECT 1"); err == nil || !strings.Contains(err.Error(), "password authentication failed") {
		t.Errorf("the user of a removed relation gets %v", err)
	}
	c.login(second["uris"], "DROP VIEW s.v; DROP SCHEMA s; ALTER TABLE of_one DROP COLUMN m; INSERT INTO of_one VALUES (3)")
	c.unrelate(two)
	c.relate(one)
	again := c.credentials(one)
	if again["username"] == first["username"] || again["password"] == first["password"] {
		t.Error("the new relation has a user or a password of before")
	}
	if out := c.login(again["uris"], "SELECT count(*) FROM of_one"); out != "3" {
		t.Errorf("there are %s rows, want 3", out)
	}
	c.login(again["uris"], "DROP TABLE of_one")
}

// TestSecondDispatchDoesNothing has relations of every kind, and dispatches
// again and again.
func TestSecondDispatchDoesNothing(t *testing.T) {
	c := newClients(t)
	c.deploy(1)
	c.settle(1)
	asks := map[string]map[string]string{
		"secrets": v0("secrets"), "plain": {"database": "plain"}, "shared": v0("secrets"),
		"mixed":   {"database": "mixed", "requested-secrets": `["username", "password"]`},
		"several": v1(item("00aa", "several-1"), item("00bb", "several-2")),
		"halves":  v1(item("00aa", "half"), item("00bb", "postgres")),
		"refused": v0("postgres"), "roles": with(v0("roles"), "extra-user-roles", "createdb,pg_monitor"),
		"entity": with(v0("a"), "entity-type", "USER"), "prefix": v0("sec*"), "silent": {}, "broken": {"version": "v1", "requests": "}"},
	}
	stubs := map[string]*localmodel.Stub{}
	for _, name := range slices.Sorted(maps.Keys(asks)) {
		stubs[name] = c.stub(name)
		c.ask(stubs[name], asks[name])
		c.seen(c.relate(stubs[name]))
	}
	for _, name := range []string{"secrets", "plain", "shared", "mixed", "several", "roles"} {
		c.login(c.credentials(stubs[name])["uris"], "SELECT 1")
	}
	c.quiet()

	idle := func(what string, do func()) {
		t.Run(what, func(t *testing.T) {
			c := c.in(t)
			before := len(c.done())
			do()
			c.soon("a dispatch", func() bool { return len(c.done()) > before })
			c.quiet()
			for _, d := range c.done()[before:] {
				if d.steps != 0 || d.Outcome != "committed" {
					t.Errorf("%s made %d steps and was %s", d.Hook, d.steps, d.Outcome)
				}
				if d.passes > 2 {
					t.Errorf("%s took %d passes", d.Hook, d.passes)
				}
				for _, call := range d.Calls {
					if writing(call.Tool) {
						t.Errorf("%s ran %s %.200q", d.Hook, call.Tool, call.Args)
					}
				}
			}
		})
	}
	for range 2 {
		idle("update-status", func() { c.must(c.UpdateStatus(unit0)) })
	}
	for _, name := range slices.Sorted(maps.Keys(stubs)) {
		idle("an event of "+name, func() { c.must(stubs[name].Touch()) })
	}
}

// writing tells whether a hook tool changes anything, or tells anybody.
func writing(tool string) bool {
	for _, reads := range []string{"-get", "-list", "-ids", "is-leader", "opened-ports", "goal-state"} {
		if strings.HasSuffix(tool, reads) {
			return false
		}
	}
	return true
}

// TestKilledWhileServing kills the charm at calls in the middle of serving a
// relation, and of forgetting it.
func TestKilledWhileServing(t *testing.T) {
	points := []struct {
		tool, has string
		fault     localmodel.Fault
	}{
		{"relation-get", "RELATION", localmodel.KillBefore},
		{"relation-get", "RELATION", localmodel.KillAfter},
		{"secret-get", "database.RELATION.", localmodel.KillAfter},
		{"juju-log", "create role kill", localmodel.KillBefore},
		{"juju-log", "create role relation_id_RELATION", localmodel.KillBefore},
		{"juju-log", "password of role relation_id_RELATION", localmodel.KillBefore},
		{"juju-log", "create database", localmodel.KillBefore},
		{"juju-log", "prepare database", localmodel.KillBefore},
		{"juju-log", "admit relation_id_RELATION", localmodel.KillBefore},
		{"juju-log", "admit relation_id_RELATION", localmodel.KillAfter},
		{"secret-add", "", localmodel.KillBefore},
		{"secret-add", "", localmodel.KillAfter},
		{"secret-grant", "", localmodel.KillBefore},
		{"secret-grant", "", localmodel.KillAfter},
		{"relation-set", "RELATION", localmodel.KillBefore},
		{"relation-set", "RELATION", localmodel.KillAfter},
		{"relation-set", "", localmodel.KillAfter},
		{"pebble", "POST /v1/notices", localmodel.KillBefore},
		{"pebble", "POST /v1/notices", localmodel.KillAfter},
		{"juju-log", "drop role relation_id_RELATION", localmodel.KillBefore},
		{"secret-remove", "", localmodel.KillBefore},
		{"secret-remove", "", localmodel.KillAfter},
	}
	c := newClients(t)
	c.deploy(1)
	c.settle(1)
	first := c.stub("first") // from now on it is known which id comes next
	c.seen(c.relate(first))
	c.unrelate(first)
	base := c.catalog()
	made := map[string]bool{}
	for i, point := range points {
		name := strings.TrimSpace(point.tool + " " + point.has)
		if point.fault == localmodel.KillAfter {
			name += ", after"
		}
		t.Run(name, func(t *testing.T) {
			c := c.in(t)
			database := fmt.Sprint("kill-", i)
			client := c.stub(database)
			c.ask(client, v0(database))
			next := c.nextRelation
			has := strings.ReplaceAll(point.has, "RELATION", strconv.Itoa(next))
			killed := c.killAt(point.tool, has, point.fault)
			before := len(c.done())
			if id := c.relate(client); id != next {
				t.Fatalf("the relation has the id %d, want %d", id, next)
			}
			reply := c.credentials(client)
			c.login(reply["uris"], "CREATE TABLE kept ()")
			made[database] = true
			c.quiet()
			if labels := c.SecretLabels(app, fmt.Sprintf("database.%d.", next)); len(labels) != 2 {
				t.Errorf("the relation has the secrets %q, want one for the user and one for TLS", labels)
			}
			c.wantCatalog(base, made, fmt.Sprint("relation_id_", next))
			c.unrelate(client)
			if !killed() {
				t.Error("it was not killed")
			}
			c.wantCatalog(base, made)
			if labels := c.SecretLabels(app, "database."); len(labels) > 0 {
				t.Errorf("secrets are left: %q", labels)
			}
			c.wantNoFailure(before)
		})
	}
}

// clients is a world with stubs, and a record of what the charm did.
type clients struct {
	*world
	*ledger
}

type ledger struct {
	mu           sync.Mutex
	dispatches   []dispatch
	last         [2]int // passes and steps of the dispatch that is under way
	fault        func(tool, text string) localmodel.Fault
	nextRelation int
}

// dispatch is a hook, and what the charm said of it.
type dispatch struct {
	localmodel.HookRecord
	passes, steps int
}

var dispatched = regexp.MustCompile(`dispatched .*passes=(\d+) steps=(\d+)`)

func newClients(t *testing.T) *clients { return newClientsWith(t, func(*localmodel.Options) {}) }

func newClientsWith(t *testing.T, adjust func(*localmodel.Options)) *clients {
	r := &ledger{}
	return &clients{newWorld(t, func(o *localmodel.Options) {
		adjust(o)
		log := o.Log
		o.Log = func(line localmodel.LogLine) {
			if log != nil {
				log(line)
			}
			if match := dispatched.FindStringSubmatch(line.Message); match != nil {
				passes, _ := strconv.Atoi(match[1])
				steps, _ := strconv.Atoi(match[2])
				r.mu.Lock()
				r.last = [2]int{passes, steps}
				r.mu.Unlock()
			}
		}
		o.HookDone = func(hook localmodel.HookRecord) {
			r.mu.Lock()
			defer r.mu.Unlock()
			r.dispatches = append(r.dispatches, dispatch{hook, r.last[0], r.last[1]})
			r.last = [2]int{}
		}
		o.Faults.Tool = func(call localmodel.ToolCall) localmodel.Fault {
			return r.decide(call.Tool, strings.Join(call.Args, " "))
		}
		o.Faults.Pebble = func(call localmodel.PebbleCall) localmodel.Fault {
			return r.decide("pebble", call.Method+" "+call.Path)
		}
	}), r}
}

func (l *ledger) decide(tool, text string) localmodel.Fault {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.fault == nil {
		return localmodel.NoFault
	}
	return l.fault(tool, text)
}

// killAt kills the charm once, at the next call of the tool whose arguments have
// the text, and returns what tells whether that has happened.
func (l *ledger) killAt(tool, has string, fault localmodel.Fault) (killed func() bool) {
	happened := false
	l.mu.Lock()
	defer l.mu.Unlock()
	l.fault = func(t, text string) localmodel.Fault {
		if happened || t != tool || !strings.Contains(text, has) {
			return localmodel.NoFault
		}
		happened = true
		return fault
	}
	return func() bool {
		l.mu.Lock()
		defer l.mu.Unlock()
		return happened
	}
}

func (l *ledger) done() []dispatch {
	l.mu.Lock()
	defer l.mu.Unlock()
	return slices.Clone(l.dispatches)
}

// in is the same for a subtest.
func (c *clients) in(t *testing.T) *clients {
	w := *c.world
	w.t = t
	return &clients{&w, c.ledger}
}

func (c *clients) must1(bag map[string]string, err error) map[string]string {
	c.t.Helper()
	c.must(err)
	return bag
}

func (c *clients) stub(name string) *localmodel.Stub {
	c.t.Helper()
	s, err := c.DeployStub(name, "database", "postgresql_client")
	c.must(err)
	return s
}

// ask makes a request the only thing that a stub asks for.
func (c *clients) ask(s *localmodel.Stub, request map[string]string) {
	c.t.Helper()
	c.must(s.Forget())
	c.must(s.Ask(request))
}

func (c *clients) relate(s *localmodel.Stub) int {
	c.t.Helper()
	c.must(c.Integrate(app+":database", s.Name()+":database"))
	id, err := s.RelationID()
	c.must(err)
	c.nextRelation = id + 1
	return id
}

// unrelate removes the relations of stubs, and waits until the charm has done what
// follows from that.
func (c *clients) unrelate(stubs ...*localmodel.Stub) {
	c.t.Helper()
	var ids []int
	for _, s := range stubs {
		id, err := s.RelationID()
		c.must(err)
		ids = append(ids, id)
		c.must(c.RemoveRelation(app+":database", s.Name()+":database"))
	}
	for _, id := range ids {
		c.soon("the end of a relation", func() bool { return c.had(id, "hooks/database-relation-broken") })
	}
	c.quiet()
}

// record is what the charm remembers of its client relations, by their ids.
func (c *clients) record() map[int]state.Client {
	c.t.Helper()
	relations, err := c.ShowUnit(unit0)
	c.must(err)
	peers := slices.IndexFunc(relations, func(r localmodel.UnitData) bool { return r.Endpoint == state.PeerEndpoint })
	if peers < 0 {
		c.t.Fatal("the unit has no peer relation")
	}
	all, err := state.ParseClients(relations[peers].Own[state.ClientsKey])
	c.must(err)
	return all
}

// seen waits until the charm had every event of a new relation.
func (c *clients) seen(id int) {
	c.t.Helper()
	c.soon("the last event of a new relation", func() bool {
		return slices.ContainsFunc(c.done(), func(d dispatch) bool {
			return d.of(id) && d.Hook == "hooks/database-relation-changed" && !slices.Contains(d.Env, "JUJU_REMOTE_UNIT=")
		})
	})
}

func (c *clients) had(id int, hook string) bool {
	return slices.ContainsFunc(c.done(), func(d dispatch) bool { return d.of(id) && d.Hook == hook })
}

// of tells whether a dispatch that was not in vain is an event of the relation.
func (d dispatch) of(id int) bool {
	return d.Outcome == "committed" && slices.Contains(d.Env, fmt.Sprint("JUJU_RELATION_ID=database:", id))
}

// soon waits for a condition as world.eventually does, and looks more often.
func (c *clients) soon(what string, condition func() bool) {
	c.t.Helper()
	for end := time.Now().Add(2 * time.Minute); !condition(); time.Sleep(10 * time.Millisecond) {
		if time.Now().After(end) {
			c.t.Fatalf("waited in vain for %s; last status:\n%s", what, c.Status())
		}
	}
}

// quiet waits until the charm has had nothing to do for a while.
func (c *clients) quiet() {
	c.t.Helper()
	since, dispatches := time.Now(), -1
	c.soon("rest", func() bool {
		units := c.Status().App(app).Units
		if n := len(c.done()); n != dispatches || len(units) != 1 || units[0].Agent.Status != "idle" {
			since, dispatches = time.Now(), n
		}
		return time.Since(since) > 200*time.Millisecond
	})
}

// credentials waits for a complete reply, and returns it with its secrets
// opened. What the stub sees before that is nothing.
func (c *clients) credentials(s *localmodel.Stub) map[string]string {
	c.t.Helper()
	var reply map[string]string
	c.soon("credentials", func() (complete bool) {
		reply, complete = c.reply(s)
		return complete
	})
	return reply
}

// reply reads what a stub was told, and tells whether it is complete.
func (c *clients) reply(s *localmodel.Stub) (reply map[string]string, complete bool) {
	c.t.Helper()
	bag := c.must1(s.Answer())
	want := []string{"endpoints", "read-only-endpoints", "version"}
	switch {
	case bag["version"] == "v1":
		var responses []map[string]string
		if err := json.Unmarshal([]byte(bag["requests"]), &responses); err != nil {
			c.t.Fatalf("cannot read the reply %q: %v", bag["requests"], err)
		}
		if len(responses) == 0 {
			return nil, false
		}
		if bag["data"] == "" {
			c.t.Fatal("the reply has no data")
		}
		reply = responses[0]
		reply["database"] = reply["resource"]
		want = append(want, "request-id", "resource", "secret-user", "secret-tls")
	case len(bag) == 0 || len(bag) == 1 && bag["status"] != "":
		return nil, false
	default:
		reply = maps.Clone(bag)
		want = append(want, "database", "data")
	}
	for key, value := range reply {
		if strings.HasPrefix(key, "secret-") {
			maps.Copy(reply, c.must1(s.Secret(value)))
		}
	}
	for _, key := range append(want, "username", "password", "uris", "tls") {
		if reply[key] == "" {
			c.t.Fatalf("the reply has no %s; it has %q", key, slices.Sorted(maps.Keys(reply)))
		}
	}
	return reply, true
}

// login runs SQL with a client's URI, in the pod.
func (c *clients) login(uri, sql string) string {
	c.t.Helper()
	var out string
	var err error
	c.soon("the Service to lead to a pod", func() bool { // that is ready a moment after its server
		out, err = c.asPostgres("", uri, sql)
		return err == nil || !strings.Contains(err.Error(), "could not translate host name") && !strings.Contains(err.Error(), "Connection refused")
	})
	c.must(err)
	return out
}

func (c *clients) tryLogin(uri, sql string) error {
	_, err := c.asPostgres("", uri, sql)
	return err
}

// asPostgres runs psql as the system user postgres in the pod: with a user of
// the database cluster over the local socket, or as a URI says.
func (c *clients) asPostgres(user, database, sql string) (string, error) {
	pod, err := c.pod(unit0)
	if err != nil {
		return "", err
	}
	passwd, err := os.ReadFile(image + "/etc/passwd")
	if err != nil {
		return "", err
	}
	match := regexp.MustCompile(`(?m)^postgres:[^:]*:(\d+):(\d+):`).FindSubmatch(passwd)
	if match == nil {
		return "", errors.New("the image has no user postgres")
	}
	uid, _ := strconv.Atoi(string(match[1]))
	gid, _ := strconv.Atoi(string(match[2]))
	args := []string{"-XAtq", "-v", "ON_ERROR_STOP=1", "-d", database, "-c", sql}
	if user != "" {
		args = append(args, "-h", "/var/run/postgresql", "-U", user)
	}
	var out bytes.Buffer
	cmd := exec.Command("/usr/bin/psql", args...)
	cmd.Env = []string{"PGCONNECT_TIMEOUT=5", "PATH=/usr/bin:/bin", "LANG=C.UTF-8"}
	cmd.Stdout, cmd.Stderr = &out, &out
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: uint32(uid), Gid: uint32(gid)}}
	if err := pod.Pod.Start(pod.Container("postgresql"), cmd); err != nil {
		return "", err
	}
	if err := cmd.Wait(); err != nil {
		return "", fmt.Errorf("psql: %w: %s", err, out.String())
	}
	return strings.TrimSpace(out.String()), nil
}

// catalogSQL lists the roles with all that they may, and the databases with
// their owners.
const catalogSQL = `
SELECT 'role ' || r.rolname, concat_ws(' ', r.rolsuper, r.rolinherit, r.rolcreaterole, r.rolcreatedb, r.rolcanlogin,
       r.rolreplication, r.rolbypassrls, r.rolpassword IS NOT NULL,
       (SELECT string_agg(g.rolname || m.admin_option, ',' ORDER BY g.rolname) FROM pg_auth_members m JOIN pg_authid g ON g.oid = m.roleid WHERE m.member = r.oid))
FROM pg_authid r
UNION ALL
SELECT 'database ' || d.datname, o.rolname FROM pg_database d JOIN pg_authid o ON o.oid = d.datdba`

// catalog asks the server which roles and databases there are.
func (c *clients) catalog() map[string]string {
	c.t.Helper()
	out, err := c.asPostgres("backup", "postgres", "COPY ("+catalogSQL+") TO STDOUT")
	c.must(err)
	rows := map[string]string{}
	for line := range strings.Lines(out) {
		name, value, _ := strings.Cut(strings.TrimSuffix(line, "\n"), "\t")
		rows[name] = value
	}
	return rows
}

// wantCatalog wants what was there before, the databases made since with their
// owner roles, and the users.
func (c *clients) wantCatalog(base map[string]string, databases map[string]bool, users ...string) {
	c.t.Helper()
	have := c.catalog()
	for name, before := range base {
		if now, ok := have[name]; !ok || now != before {
			c.t.Errorf("%s was %q and is %q", name, before, now)
		}
	}
	var added, want []string
	for name := range have {
		if _, before := base[name]; !before {
			added = append(added, name)
		}
	}
	for name := range databases {
		want = append(want, "database "+name, "role "+name)
	}
	for _, user := range users {
		want = append(want, "role "+user)
	}
	slices.Sort(added)
	slices.Sort(want)
	if !slices.Equal(added, want) {
		c.t.Errorf("the cluster has, beyond what it had, %q; want %q", added, want)
	}
}

// wantStatus wants the unit blocked by a message, or active.
func (c *clients) wantStatus(blocked string) {
	c.t.Helper()
	status := c.Status().App(app).Units[0].Workload
	want := "active"
	if blocked != "" {
		want = "blocked"
	}
	if status.Status != want || blocked != "" && status.Message != blocked {
		c.t.Errorf("the unit is %s: %s; want %s: %s", status.Status, status.Message, want, blocked)
	}
}

// wantStatusKey wants the protocol's message in a relation, or none; and no
// credentials beside it.
func (c *clients) wantStatusKey(s *localmodel.Stub, wanted bool) {
	c.t.Helper()
	bag := c.must1(s.Answer())
	if !wanted {
		if bag["status"] != "" {
			c.t.Errorf("the relation has the status %s", bag["status"])
		}
		return
	}
	var statuses []map[string]any
	if err := json.Unmarshal([]byte(bag["status"]), &statuses); err != nil || len(statuses) != 1 || statuses[0]["code"] != 5001.0 || len(statuses[0]) != 3 {
		c.t.Errorf("the relation has the status %s, want one of code 5001", bag["status"])
	}
	if bag["version"] == "v1" && bag["requests"] != "[]" {
		c.t.Errorf("the relation has the responses %s, want []", bag["requests"])
	}
	for _, key := range []string{"secret-user", "username", "password", "endpoints"} {
		if bag[key] != "" {
			c.t.Errorf("the relation has %s", key)
		}
	}
}

// wantNoFailure wants no dispatch to have failed since there were so many.
func (c *clients) wantNoFailure(since int) {
	c.t.Helper()
	for _, d := range c.done()[since:] {
		if d.Outcome != "committed" && d.Outcome != "killed" {
			c.t.Errorf("%s %s", d.Hook, d.Outcome)
		}
	}
}

// root is the root of the workload container's file system.
func (c *clients) root() string {
	c.t.Helper()
	pod, err := c.pod(unit0)
	c.must(err)
	return fmt.Sprintf("/proc/%d/root", pod.Container("postgresql").PID)
}
