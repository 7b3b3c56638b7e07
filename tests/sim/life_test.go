package sim

import (
	"encoding/json"
	"flag"
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"

	"charmhub.io/postgresql-k8s/charm/state"
)

var (
	lives = flag.Int("lives", 60, "number of random lives")
	seed  = flag.Uint64("seed", 1, "seed of the first one")
)

// TestRandomLives lives many short lives of an application, full of accidents,
// and looks whether each comes to a good end.
func TestRandomLives(t *testing.T) {
	t.Parallel()
	crashes, refusals := 0, 0
	for i := range *lives {
		s := *seed + uint64(i)
		c, r := live(t, s)
		crashes, refusals = crashes+c, refusals+r
		if t.Failed() {
			t.Fatalf("that was seed %d: go test ./tests/sim -run TestRandomLives -seed %d -lives 1", s, s)
		}
	}
	t.Logf("%d lives, %d crashes, %d refused commits", *lives, crashes, refusals)
	if *lives >= 50 && (crashes < *lives || refusals < *lives) {
		t.Error("too few accidents: the lives prove nothing")
	}
}

// TestCrashAfterEachStep deploys, integrates a client and removes it again, and
// kills the charm before and after each single step of that.
func TestCrashAfterEachStep(t *testing.T) {
	t.Parallel()
	for fuse := 1; ; fuse++ {
		w := newWorld(1)
		crashed := w.dispatch(0, nil, fuse, false).crashed
		w.settle(t)
		for i, client := range []*relation{client(rand.New(rand.NewPCG(1, 1)), 0), legacyClient(rand.New(rand.NewPCG(1, 1)), 0)} {
			id := 7 + i
			w.model.Relations[id] = client
			crashed = w.dispatch(0, event(client, id, "changed"), fuse, false).crashed || crashed
			w.settle(t)
			w.check(t)
			delete(w.model.Relations, id)
			crashed = w.dispatch(0, event(client, id, "broken"), fuse, false).crashed || crashed
			w.settle(t)
			w.check(t)
		}
		if t.Failed() {
			t.Fatalf("that was a crash at fuse %d", fuse)
		}
		if !crashed {
			t.Logf("crashed at %d places", fuse-1)
			return
		}
	}
}

// TestTrust says that the unit waits for the right to work, and then works.
func TestTrust(t *testing.T) {
	t.Parallel()
	w := newWorld(1)
	w.trusted = false
	w.dispatch(0, nil, 0, false)
	unit := w.model.Units[0]
	if unit.Status != "blocked" || !strings.Contains(unit.Message, "juju trust db --scope=cluster") {
		t.Errorf("an untrusted unit shows %q: %q", unit.Status, unit.Message)
	}
	w.trusted = true
	w.settle(t)
	w.check(t)
}

// TestWhatIsWrittenWhileNobodyLeads has clients that ask for nothing, or for
// something else, and then for a database, while no unit leads.
func TestWhatIsWrittenWhileNobodyLeads(t *testing.T) {
	t.Parallel()
	r := rand.New(rand.NewPCG(1, 1))
	for leader := range 2 { // unit 0 has led before
		for first, then := range map[int]int{4: 0, 5: 2, 7: 1} {
			w := newWorld(2)
			w.settle(t)
			modern, old := client(r, first), legacyClient(r, 2)
			old.App = "legacy"
			w.model.Relations[7], w.model.Relations[8] = modern, old
			w.settle(t)
			w.check(t)
			w.model.Leader = nobody
			w.model.Relations[7].Remote, w.model.Relations[8].Remote = maps.Clone(requests[then]), maps.Clone(legacy[0])
			for unit := range w.members {
				w.dispatch(unit, event(modern, 7, "changed"), 0, false)
				w.dispatch(unit, event(old, 8, "changed"), 0, false)
			}
			w.elect(leader)
			w.settle(t)
			w.check(t)
			if t.Failed() {
				t.Fatalf("that was request %d after %d, and unit %d that was elected", then, first, leader)
			}
		}
	}
}

// nobody is the leader until Juju has elected one.
const nobody = -1

// elect has Juju elect a leader, which it tells that one alone.
func (w *world) elect(unit int) {
	if w.model.Leader != unit {
		w.due[unit] = append(w.due[unit], map[string]string{"JUJU_DISPATCH_PATH": "hooks/leader-elected"})
	}
	w.model.Leader = unit
}

func event(r *relation, id int, name string) map[string]string {
	return map[string]string{
		"JUJU_DISPATCH_PATH": fmt.Sprintf("hooks/%s-relation-%s", r.Endpoint, name), "JUJU_RELATION_ID": fmt.Sprintf("%s:%d", r.Endpoint, id),
	}
}

// TestSetPasswordCrashes changes each password in turn and kills the charm before
// and after each single step of that, on the leader, on the primary's unit and on
// the third one.
func TestSetPasswordCrashes(t *testing.T) {
	t.Parallel()
	w := newWorld(3)
	w.model.Leader = 2
	w.settle(t)
	w.model.Relations[7] = client(rand.New(rand.NewPCG(1, 1)), 0)
	w.settle(t)
	users := []string{"operator", "replication", "rewind", "monitoring", "backup", "patroni", "relation_id_7"}
	places := 0
	for _, user := range users {
		for _, victim := range []int{2, 0, 1} {
			if victim == 1 && user != "replication" {
				continue // a replica's unit does the same for all of them
			}
			for fuse, crashed := 1, true; crashed; fuse++ {
				crashed = false
				for _, unit := range []int{2, victim, 0, 1} {
					var now map[string]string
					if !crashed && unit == 2 {
						now = setPassword(user)
					}
					l := w.dispatch(unit, now, map[bool]int{true: fuse}[unit == victim && !crashed], false)
					if l.err != nil || strings.Contains(l.answer, "failure") || len(l.rash) > 0 {
						t.Fatalf("set-password of %s: %v %s; before the commit: %q", user, l.err, l.answer, l.rash)
					}
					crashed = crashed || l.crashed
				}
				w.settle(t)
				w.check(t)
				if t.Failed() {
					t.Fatalf("that was the password of %s, a crash on unit %d at fuse %d", user, victim, fuse)
				}
				places += map[bool]int{true: 1}[crashed]
			}
		}
	}
	t.Logf("crashed at %d places", places)
	if places < 50 {
		t.Error("too few crashes: the test proves nothing")
	}
}

func setPassword(user string) map[string]string {
	return map[string]string{"JUJU_DISPATCH_PATH": "actions/set-password", "PARAM_username": user}
}

// requests that clients make: valid ones first, then what must be refused, or
// asks for nothing.
var requests = []map[string]string{
	{"database": "orders", "requested-secrets": `["username","password","tls","uris"]`},
	{"database": "old-style"},
	{"version": "v1", "requests": `[{"resource":"modern","request-id":"00aa","salt":"s","entity-type":null},{"resource":"other","request-id":"00bb"}]`},
	{"database": "powers", "extra-user-roles": "Admin,CREATEDB", "requested-secrets": `["username","password"]`},
	{},
	{"database": ""},
	{"database": `x"; DROP DATABASE orders; --`},
	{"database": "template1", "requested-secrets": `["username"]`},
	{"database": "fine", "extra-user-roles": "operator"},
	{"database": "fine", "requested-secrets": "not JSON"},
	{"version": "v1", "requests": "not JSON"},
	{"database": "prefix*", "requested-secrets": `["username","password"]`},
	{"database": "fine", "entity-type": "USER"},
}

const valid = 4

func client(r *rand.Rand, n int) *relation {
	if n < 0 {
		n = r.IntN(len(requests))
	}
	return &relation{
		Endpoint: "database", App: fmt.Sprintf("client%d", n), Remote: maps.Clone(requests[n]), Local: map[string]string{},
	}
}

// legacy are requests over the legacy interface: two valid ones first, one that
// asks for nothing, and what must be refused.
var legacy = []map[string]string{
	{"database": "orders"},
	{"database": "old times"},
	{},
	{"database": "template1"},
	{"database": "fine", "roles": "admin"},
	{"database": "fine", "extensions": "citext"},
}

// legacyClient may be one that has a modern relation, too.
func legacyClient(r *rand.Rand, n int) *relation {
	if n < 0 {
		n = r.IntN(len(legacy))
	}
	app := fmt.Sprintf("legacy%d", n)
	if r.IntN(2) == 0 {
		app = fmt.Sprintf("client%d", r.IntN(len(requests)))
	}
	c := &relation{
		Endpoint: []string{"db", "db-admin"}[r.IntN(2)], App: app, Remote: maps.Clone(legacy[n]), Local: map[string]string{},
		Units: map[string]map[string]string{}, LocalUnits: map[int]map[string]string{},
	}
	c.unit(0)
	return c
}

// unit lets a unit of a legacy client join, or depart.
func (r *relation) unit(n int) (name string) {
	unit := fmt.Sprintf("%s/%d", r.App, n)
	if _, there := r.Units[unit]; there {
		delete(r.Units, unit)
		return "departed"
	}
	r.Units[unit] = state.With(r.Remote, map[string]string{"egress-subnets": fmt.Sprintf("10.1.0.%d/32", n)})
	return "joined"
}

// live is one life: a number of random happenings, and then quiet.
func live(t *testing.T, seed uint64) (crashes, refusals int) {
	r := rand.New(rand.NewPCG(seed, 0))
	w := newWorld(1 + r.IntN(3))
	nextRelation := 1
	for range 10 + r.IntN(30) {
		unit := r.IntN(len(w.members))
		var now map[string]string
		switch r.IntN(16) {
		case 14:
			now = setPassword([]string{"operator", "replication", "rewind", "monitoring", "backup", "patroni"}[r.IntN(6)])
			unit = w.model.Leader
		case 15:
			now = setPassword(fmt.Sprintf("relation_id_%d", 1+r.IntN(nextRelation)))
			unit = w.model.Leader
		case 0, 1, 2:
			c := client(r, -1)
			if r.IntN(3) == 0 {
				c = legacyClient(r, -1)
			}
			w.model.Relations[nextRelation] = c
			now = event(c, nextRelation, "changed")
			unit = w.model.Leader
			nextRelation++
		case 3:
			for _, id := range slices.Sorted(maps.Keys(w.model.Relations)) {
				if r.IntN(2) == 0 {
					now = event(w.model.Relations[id], id, "broken")
					delete(w.model.Relations, id)
					break
				}
			}
		case 4:
			for _, id := range slices.Sorted(maps.Keys(w.model.Relations)) {
				if c := w.model.Relations[id]; c.Units != nil {
					name := c.unit(r.IntN(3))
					for u := range w.members { // Juju tells all of them
						w.due[u] = append(w.due[u], event(c, id, name))
					}
				}
			}
		case 5:
			w.elect(r.IntN(len(w.members)))
		case 6:
			w.containers[unit].Restart()
			w.members[unit].loaded = ""
		case 7:
			w.containers[unit].GoAway()
		case 8:
			w.trusted = !w.trusted
		case 9:
			w.model.Config["profile_limit_memory"] = float64([]int{0, 512, 2048}[r.IntN(3)]) // 0 is refused
		case 10:
			w.labels[unit], w.told[unit] = nil, "" // a new pod
		case 11:
			w.model.Leader = nobody
			for _, id := range slices.Sorted(maps.Keys(w.model.Relations)) {
				if c := w.model.Relations[id]; c.Endpoint == state.DatabaseEndpoint && c.Remote["database"]+c.Remote["version"] == "" {
					c.Remote = maps.Clone(requests[r.IntN(len(requests))])
					for u := range w.members {
						w.dispatch(u, event(c, id, "changed"), 0, false)
					}
				}
			}
			w.elect(r.IntN(len(w.members)))
		}
		due := now == nil && len(w.due[unit]) > 0
		if due {
			now = w.due[unit][0]
		}
		fuse := 0
		if r.IntN(3) == 0 {
			fuse = 1 + r.IntN(30)
		}
		l := w.dispatch(unit, now, fuse, r.IntN(8) == 0)
		if l.err != nil {
			t.Errorf("a hook failed: %v", l.err)
			return
		}
		if len(l.rash) > 0 {
			t.Errorf("users or pods got what Juju did not have: %q", l.rash)
			return
		}
		if l.crashed {
			crashes++
		}
		if l.refused {
			refusals++
		}
		if due && !l.crashed && !l.refused { // else Juju runs it again
			w.due[unit] = w.due[unit][1:]
		}
	}
	w.trusted = true
	delete(w.model.Config, "profile_limit_memory")
	for _, c := range w.containers {
		if _, err := c.Dial(t.Context()); err != nil {
			c.Restart()
		}
	}
	w.settle(t)
	w.check(t)
	return crashes, refusals
}

// settle dispatches on all units until nothing changes, and checks that then
// nothing does: zero steps and not one write.
func (w *world) settle(t *testing.T) {
	t.Helper()
	for unit, due := range w.due {
		for _, event := range due {
			if l := w.dispatch(unit, event, 0, false); l.err != nil {
				t.Fatalf("a hook failed: %v", l.err)
			}
		}
		delete(w.due, unit)
	}
	for range 12 {
		steps, writes := 0, 0
		for unit := range w.members {
			l := w.dispatch(unit, nil, 0, false)
			if l.err != nil {
				t.Fatalf("a hook failed: %v", l.err)
			}
			w.secrecy(t, l)
			steps, writes = steps+l.outcome.Steps, writes+l.writes
		}
		if steps == 0 && writes == 0 {
			return
		}
	}
	t.Fatalf("it does not come to rest; the units are %+v", w.model.Units)
}

// secrecy looks for passwords in what anybody could read of a dispatch.
func (w *world) secrecy(t *testing.T, l life) {
	t.Helper()
	text := strings.Join(l.text, "\n")
	for _, s := range w.model.Secrets {
		for key, value := range s.Content {
			if strings.Contains(key, "password") && strings.Contains(text, value) {
				t.Errorf("the %s of secret %s can be read", key, s.Label)
			}
		}
	}
}

// check holds the world against what the requests of the clients deserve.
func (w *world) check(t *testing.T) {
	t.Helper()
	w.checkPasswords(t)
	refused, users := false, map[string]bool{}
	for id, r := range w.model.Relations {
		if r.Endpoint != state.DatabaseEndpoint {
			refused = w.checkLegacy(t, id, r, users) || refused
			continue
		}
		n := slices.IndexFunc(requests, func(request map[string]string) bool { return maps.Equal(request, r.Remote) })
		refused = refused || n >= valid+2 && n < len(requests)-2
		if n >= valid {
			if r.Local["endpoints"] != "" || r.Local["requests"] != "" {
				t.Errorf("request %d was served: %v", n, r.Local)
			}
			continue
		}
		w.checkServed(t, id, r, users)
	}
	for name := range w.catalog.Roles {
		if strings.HasPrefix(name, "relation_id_") && !users[name] {
			t.Errorf("role %s belongs to no relation", name)
		}
	}
	for _, name := range []string{"monitoring", "backup", state.RelationAccess, state.Admin} {
		if _, ok := w.catalog.Roles[name]; !ok {
			t.Errorf("there is no role %s", name)
		}
	}
	for unit, told := range w.told {
		if told != state.PodName(app, w.primary()) {
			t.Errorf("the pod of unit %d shows that clients were told of %q", unit, told)
		}
	}
	for unit, u := range w.model.Units {
		want, message := "active", map[bool]string{true: state.MessageTwo}[len(w.model.Units) == 2]
		if unit == w.primary() {
			message = state.MessagePrimary
		}
		if refused && unit == w.model.Leader {
			want = "blocked"
		}
		if u.Status != want || want == "active" && u.Message != message {
			t.Errorf("unit %d shows %s %q", unit, u.Status, u.Message)
		}
	}
}

// checkPasswords looks whether everybody has the passwords that the secret shows.
func (w *world) checkPasswords(t *testing.T) {
	t.Helper()
	content := w.model.byLabel("database-peers.db.app").Content
	for _, user := range []string{"operator", "replication", "rewind", "monitoring"} {
		if !w.login(user, state.Redacted(content[user+"-password"])) {
			t.Errorf("the server refuses the password that the secret shows for %s", user)
		}
	}
	if password := content["backup-password"]; password != "" && !w.login("backup", state.Redacted(password)) {
		t.Error("the server refuses the backup user's password")
	}
	for unit := range w.members {
		p := passwordsIn(w.members[unit].loaded)
		auth := p.PostgreSQL.Authentication
		if auth["superuser"].Password != content["operator-password"] || auth["replication"].Password != content["replication-password"] ||
			auth["rewind"].Password != content["rewind-password"] || p.RESTAPI.Authentication.Password != content["patroni-password"] {
			t.Errorf("the Patroni of unit %d has other passwords than the secret", unit)
		}
	}
}

// checkServed looks whether the client of a valid request could log in.
func (w *world) checkServed(t *testing.T, id int, r *relation, users map[string]bool) {
	t.Helper()
	responses := []map[string]string{r.Local}
	if r.Remote["version"] == "v1" {
		responses = nil
		if err := json.Unmarshal([]byte(r.Local["requests"]), &responses); err != nil || len(responses) != 2 {
			t.Errorf("relation %d has not both responses: %v", id, r.Local)
			return
		}
	}
	for _, response := range responses {
		reply := maps.Clone(response)
		for _, group := range []string{"user", "tls"} {
			uri := response["secret-"+group]
			if uri == "" {
				continue
			}
			s := w.model.Secrets[uri[strings.LastIndex(uri, "/")+1:]]
			if s == nil || !slices.Contains(s.Granted, id) {
				t.Errorf("relation %d may not read its secret %s", id, group)
				return
			}
			maps.Copy(reply, s.Content)
		}
		role := w.catalog.Roles[reply["username"]]
		users[reply["username"]] = true
		database := reply["database"] + reply["resource"]
		if !role.Login || !role.HasPassword(state.Redacted(reply["password"])) {
			t.Errorf("relation %d: %q cannot log in", id, reply["username"])
		}
		if !slices.Contains(w.catalog.Databases[database].Create, role.Name) {
			t.Errorf("relation %d: %q may not work in %q", id, role.Name, database)
		}
		primary := fmt.Sprintf("10.0.0.%d:5432", w.primary()+1)
		if reply["endpoints"] != primary || reply["version"] != "17.5" || reply["read-only-endpoints"] == "" {
			t.Errorf("relation %d is told %v; the primary is %s", id, response, primary)
		}
	}
}

// checkLegacy looks whether a legacy client could log in, and tells whether the
// leader must show that it may not.
func (w *world) checkLegacy(t *testing.T, id int, r *relation, users map[string]bool) (refused bool) {
	t.Helper()
	n := slices.IndexFunc(legacy, func(request map[string]string) bool { return maps.Equal(request, r.Remote) })
	both := false
	for _, other := range w.model.Relations {
		both = both || other.Endpoint == state.DatabaseEndpoint && other.App == r.App
	}
	if n > 1 && len(r.Local) > 0 {
		t.Errorf("legacy request %d was served: %v", n, r.Local)
	}
	user := fmt.Sprint("relation_id_", id)
	users[user] = n < 2 // it may have been made before the other relation came
	if n > 1 || both && len(r.Local) == 0 {
		return both || n > 2
	}
	role := w.catalog.Roles[user]
	if !role.Login || role.Superuser != (r.Endpoint == "db-admin") || !role.HasPassword(state.Redacted(r.Local["password"])) {
		t.Errorf("relation %d: %q cannot log in as it should", id, user)
	}
	if !slices.Contains(w.catalog.Databases[r.Remote["database"]].Create, user) {
		t.Errorf("relation %d: %q may not work in %q", id, user, r.Remote["database"])
	}
	units := strings.Join(slices.Sorted(maps.Keys(r.Units)), " ")
	host := fmt.Sprintf("db-%d.db-endpoints.sim.svc.cluster.local", w.model.Leader)
	if r.Local["user"] != user || r.Local["allowed-units"] != units || r.Local["host"] != host || !maps.Equal(r.Local, r.LocalUnits[w.model.Leader]) {
		t.Errorf("relation %d is told\n%v and\n%v; its units are %q", id, r.Local, r.LocalUnits[w.model.Leader], units)
	}
	return both
}
