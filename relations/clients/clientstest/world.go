// Package clientstest is a world for the tests of what serves client relations:
// what a unit that leads observes, and what becomes of what its handlers wish.
package clientstest

import (
	"crypto/hmac"
	"crypto/pbkdf2"
	"crypto/sha256"
	"encoding/base64"
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"
	"time"

	"charmhub.io/postgresql-k8s/charm/config"
	"charmhub.io/postgresql-k8s/charm/state"
	"charmhub.io/postgresql-k8s/relations/clients"
)

// Handler is charm.Handler.
type Handler interface {
	Desire(obs state.Observed, want *state.Desired)
}

// World is what a unit observes, and Juju, which keeps what it does not show.
type World struct {
	state.Observed
	Saved    map[string]state.Secret // committed secrets, by label
	handlers []Handler
}

// Leading is the world of a unit that leads, and whose cluster is one primary
// without a client. A test changes a fact or two of it.
func Leading(handlers []Handler, relations ...state.Relation) *World {
	w := &World{handlers: append([]Handler{clients.Handler{}}, handlers...), Saved: map[string]state.Secret{}, Observed: state.Observed{
		Now:  time.Date(2026, 1, 1, 12, 0, 0, 0, time.UTC),
		Unit: state.Unit{Name: "db/0", App: "db", Model: "test", ModelUUID: "uuid"}, Leader: true, Config: config.Parse(nil),
		Secrets:   map[string]state.Secret{},
		Clients:   map[int]state.Client{},
		Relations: state.Relations{state.PeerEndpoint: {{ID: 0, Endpoint: state.PeerEndpoint}}},
		Cluster:   state.Value(state.Cluster{Members: []state.Member{{Name: "db-0", Role: "leader", State: "running"}}}),
		Kube:      state.Value(state.Kube{Domain: "cluster.local", Pods: []state.Pod{{Name: "db-0", IP: "10.0.0.1", Ready: true}, {Name: "db-1", IP: "10.0.0.2", Ready: true}}}),
		Database: state.Value(state.Catalog{
			Predefined: clients.Grantable,
			Version:    "17.5",
			Roles: map[string]state.Role{
				"operator": {Name: "operator", Login: true, Superuser: true}, "relation_access": {Name: "relation_access"},
			},
			Databases: map[string]state.CatalogDatabase{"postgres": {Owner: "operator"}},
		}),
	}}
	for _, r := range relations {
		w.Relations[r.Endpoint] = append(w.Relations[r.Endpoint], r)
	}
	return w
}

// Related is a relation whose databags were read.
func Related(id int, endpoint string, remote map[string]string) state.Relation {
	return state.Relation{ID: id, Endpoint: endpoint, Read: true, RemoteApp: "app", Remote: remote, LocalApp: map[string]string{}}
}

// WithReplica adds a replica to the cluster.
func (w *World) WithReplica() {
	w.Cluster = state.Value(state.Cluster{Members: []state.Member{
		{Name: "db-0", Role: "leader", State: "running"}, {Name: "db-1", Role: "replica", State: "streaming"},
	}})
}

// Desire is what the handlers wish.
func (w *World) Desire() state.Desired {
	var want state.Desired
	for _, h := range w.handlers {
		h.Desire(w.Observed, &want)
	}
	return want
}

// Describe says in words what is wished.
func (w *World) Describe(want state.Desired) []string {
	var out []string
	say := func(format string, args ...any) { out = append(out, fmt.Sprintf(format, args...)) }
	for _, id := range want.Look {
		say("look at %d", id)
	}
	for _, r := range want.Roles {
		switch {
		case r.Absent:
			say("no role %s", r.Name)
		case r.Login:
			say("user %s with password %s", r.Name, r.Password.Reveal())
		default:
			say("role %s", r.Name)
		}
	}
	for _, d := range want.Databases {
		say("database %s of %s for %s", d.Name, d.Owner, d.Users[0].Role)
	}
	for _, s := range want.Secrets {
		if s.Content == nil {
			say("secret %s: make up %s", s.Label, strings.Join(s.Generate, ", "))
		} else {
			say("secret %s: save %s", s.Label, strings.Join(slices.Sorted(maps.Keys(s.Content)), ", "))
		}
	}
	for _, b := range want.Databags {
		r, _ := w.Relations.ByID(b.Relation)
		var changed []string
		for _, key := range slices.Sorted(maps.Keys(b.Content)) {
			if b.Content[key] != (*bag(&r, b))[key] {
				changed = append(changed, key)
			}
		}
		switch keys := strings.Join(changed, ", "); {
		case keys == "":
		case b.Unit:
			say("tell %d as a unit: %s", b.Relation, keys)
		default:
			say("tell %d: %s; grant %s", b.Relation, keys, strings.Join(b.Grant, ", "))
		}
	}
	for _, uri := range want.Unneeded {
		say("no secret %s", uri)
	}
	if want.Clients != nil {
		for _, id := range slices.Sorted(maps.Keys(w.Clients)) {
			if _, kept := want.Clients[id]; !kept {
				say("forget %d", id)
			}
		}
	}
	for _, id := range slices.Sorted(maps.Keys(want.Clients)) {
		if c := want.Clients[id]; c.Digest != w.Clients[id].Digest || c.Problem != w.Clients[id].Problem || w.Clients[id].App != c.App ||
			c.Leader != w.Clients[id].Leader || !slices.Equal(c.Taken, w.Clients[id].Taken) || !slices.Equal(c.Secrets, w.Clients[id].Secrets) {
			how := map[bool]string{true: c.Digest, false: "served"}[c.Digest == "" || c.Digest == clients.Pending]
			say("record %d: %s", id, how+c.Problem)
		}
	}
	if want.Again {
		say("again")
	}
	if want.Later {
		say("later")
	}
	for _, p := range want.Problems {
		say("%s: %s", p.Severity, p.Message)
	}
	return out
}

// Passes has what each pass of the dispatches wishes; a "commit" is between two
// dispatches.
func (w *World) Passes(t testing.TB, want [][]string) {
	t.Helper()
	for i, pass := range want {
		if len(pass) == 1 && pass[0] == "commit" {
			w.Commit()
			continue
		}
		wish := w.Desire()
		if got := w.Describe(wish); !slices.Equal(got, pass) {
			t.Fatalf("pass %d wishes\n%s\nwant\n%s", i+1, strings.Join(got, "\n"), strings.Join(pass, "\n"))
		}
		w.Apply(t, wish)
	}
}

// Apply makes the world so, as the systems do in one pass.
func (w *World) Apply(t testing.TB, want state.Desired) {
	t.Helper()
	catalog, _ := w.Database.Get()
	for _, r := range want.Roles {
		if r.Absent {
			delete(catalog.Roles, r.Name)
			for name, db := range catalog.Databases {
				db.Create = slices.DeleteFunc(slices.Clone(db.Create), func(role string) bool { return role == r.Name })
				catalog.Databases[name] = db
			}
			continue
		}
		if r.Verifier = catalog.Roles[r.Name].Verifier; r.Password != "" {
			r.Verifier = verifier(t, r.Password)
		}
		r.Password = ""
		catalog.Roles[r.Name] = r
	}
	for _, wish := range want.Databases {
		db, exists := catalog.Databases[wish.Name]
		if !exists {
			db.Owner = "operator"
		}
		for _, role := range []string{wish.Owner, wish.Users[0].Role} {
			if !slices.Contains(db.Create, role) {
				db.Create = append(slices.Clone(db.Create), role)
			}
		}
		catalog.Databases[wish.Name] = db
	}
	for _, wish := range want.Secrets {
		secret, read := w.Secrets[wish.Label]
		switch {
		case !read:
			secret = w.Saved[wish.Label]
		case wish.Content == nil && secret.Content == nil:
			secret.Content = map[string]state.Redacted{}
			for _, key := range wish.Generate {
				secret.Content[key] = "made-up"
			}
		case wish.Content != nil && !maps.Equal(wish.Content, secret.Saved):
			secret = state.Secret{URI: "secret://uuid/" + wish.Label, Content: wish.Content, Saved: wish.Content}
		}
		w.Secrets[wish.Label] = secret
	}
	for _, wish := range want.Databags {
		r, _ := w.Relations.ByID(wish.Relation)
		own := bag(&r, wish)
		*own = state.With(*own, wish.Content)
		maps.DeleteFunc(*own, func(_, value string) bool { return value == "" })
		w.Relations.Replace(r)
	}
	for _, uri := range want.Unneeded {
		maps.DeleteFunc(w.Saved, func(_ string, s state.Secret) bool { return s.URI == uri })
	}
	for _, id := range want.Look {
		r, _ := w.Relations.ByID(id)
		r.Read = true
		w.Relations.Replace(r)
	}
	if want.Clients != nil {
		w.Clients = maps.Clone(want.Clients)
	}
}

// bag is the databag that a wish is for.
func bag(r *state.Relation, wish state.Databag) *map[string]string {
	if wish.Unit {
		return &r.LocalUnit
	}
	return &r.LocalApp
}

// Commit is the end of a dispatch that Juju commits, and the beginning of
// another, of an event that has nothing to do with the relations.
func (w *World) Commit() {
	for label, s := range w.Secrets {
		if s.Saved != nil {
			s.Content, s.Committed = s.Saved, true
			w.Saved[label] = s
		}
	}
	w.Secrets = map[string]state.Secret{}
	for _, endpoint := range state.DatabaseEndpoints {
		for _, r := range slices.Clone(w.Relations[endpoint]) {
			r.Read = w.Clients[r.ID].App == ""
			w.Relations.Replace(r)
		}
	}
}

// ServeAll makes dispatches until nothing more is wished, and returns how many.
func (w *World) ServeAll(t testing.TB) int {
	t.Helper()
	for dispatches := 1; dispatches <= 5; dispatches++ {
		if !w.dispatch(t) {
			return dispatches
		}
	}
	t.Fatal("there is no end of dispatches")
	return 0
}

// dispatch makes passes until they change nothing, has Juju commit, and tells
// whether another dispatch was asked for.
func (w *World) dispatch(t testing.TB) (again bool) {
	t.Helper()
	for range 20 {
		before := w.Print()
		want := w.Desire()
		w.Apply(t, want)
		if w.Print() == before {
			w.Commit()
			return want.Again
		}
	}
	t.Fatalf("there is no end of passes: %q", w.Describe(w.Desire()))
	return false
}

// Print is all that a pass may change.
func (w *World) Print() string {
	catalog, _ := w.Database.Get()
	var out strings.Builder
	for _, label := range slices.Sorted(maps.Keys(w.Secrets)) {
		s := w.Secrets[label]
		fmt.Fprintln(&out, label, s.URI, s.Committed)
		for _, content := range []map[string]state.Redacted{s.Content, s.Saved} {
			for _, key := range slices.Sorted(maps.Keys(content)) {
				fmt.Fprintln(&out, key, content[key].Reveal())
			}
		}
	}
	for _, name := range slices.Sorted(maps.Keys(catalog.Roles)) {
		r := catalog.Roles[name]
		fmt.Fprintln(&out, name, r.Login, r.MemberOf, r.Verifier.Reveal())
	}
	fmt.Fprintln(&out, catalog.Databases, w.Relations, w.Clients)
	return out.String()
}

// Told is what a relation was told.
func (w *World) Told(id int) map[string]string {
	r, _ := w.Relations.ByID(id)
	return r.LocalApp
}

// Touch is an event of the relation: it is read.
func (w *World) Touch(id int) {
	r, _ := w.Relations.ByID(id)
	r.Read = true
	w.Relations.Replace(r)
}

// verifier is what a server stores of a password (RFC 5802, section 3), made
// with a single iteration.
func verifier(t testing.TB, password state.Redacted) state.Redacted {
	t.Helper()
	salt := []byte("0123456789abcdef")
	salted, err := pbkdf2.Key(sha256.New, password.Reveal(), salt, 1, sha256.Size)
	if err != nil {
		t.Fatal(err)
	}
	mac := func(text string) []byte {
		h := hmac.New(sha256.New, salted)
		h.Write([]byte(text))
		return h.Sum(nil)
	}
	stored := sha256.Sum256(mac("Client Key"))
	b64 := base64.StdEncoding.EncodeToString
	return state.Redacted("SCRAM-SHA-256$1:" + b64(salt) + "$" + b64(stored[:]) + ":" + b64(mac("Server Key")))
}
