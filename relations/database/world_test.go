package database

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

	"charmhub.io/postgresql-k8s/charm/config"
	"charmhub.io/postgresql-k8s/charm/state"
)

// world is what a unit observes, and Juju, which keeps what it does not show.
type world struct {
	state.Observed
	saved map[string]state.Secret // committed secrets, by label
}

// leading is the world of a unit that leads, and whose cluster is one primary
// without a client. A test changes a fact or two of it.
func leading(relations ...state.Relation) *world {
	return &world{saved: map[string]state.Secret{}, Observed: state.Observed{
		Unit: state.Unit{Name: "db/0", App: "db", Model: "test", ModelUUID: "uuid"}, Leader: true, Config: config.Parse(nil),
		Secrets:   map[string]state.Secret{},
		Clients:   map[int]state.Client{},
		Relations: state.Relations{state.PeerEndpoint: {{ID: 0, Endpoint: state.PeerEndpoint}}, state.DatabaseEndpoint: relations},
		Cluster:   state.Value(state.Cluster{Members: []state.Member{{Name: "db-0", Role: "leader", State: "running"}}}),
		Kube:      state.Value(state.Kube{Domain: "cluster.local", Pods: []state.Pod{{Name: "db-0", IP: "10.0.0.1"}, {Name: "db-1", IP: "10.0.0.2"}}}),
		Database: state.Value(state.Catalog{
			Predefined: grantable,
			Version:    "17.5",
			Roles: map[string]state.Role{
				"operator": {Name: "operator", Login: true, Superuser: true}, "relation_access": {Name: "relation_access"},
			},
			Databases: map[string]state.CatalogDatabase{"postgres": {Owner: "operator"}},
		}),
	}}
}

// related is a relation whose databags were read.
func related(id int, remote map[string]string) state.Relation {
	return state.Relation{ID: id, Endpoint: state.DatabaseEndpoint, Read: true, RemoteApp: "app", Remote: remote, LocalApp: map[string]string{}}
}

// withReplica adds a replica to the cluster.
func withReplica(obs *world) {
	obs.Cluster = state.Value(state.Cluster{Members: []state.Member{
		{Name: "db-0", Role: "leader", State: "running"}, {Name: "db-1", Role: "replica", State: "streaming"},
	}})
}

func desire(obs *world) state.Desired {
	var want state.Desired
	Handler{}.Desire(obs.Observed, &want)
	return want
}

// describe says in words what is wished.
func describe(obs *world, want state.Desired) []string {
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
		r, _ := obs.Relations.ByID(b.Relation)
		var changed []string
		for _, key := range slices.Sorted(maps.Keys(b.Content)) {
			if b.Content[key] != r.LocalApp[key] {
				changed = append(changed, key)
			}
		}
		if len(changed) > 0 {
			say("tell %d: %s; grant %s", b.Relation, strings.Join(changed, ", "), strings.Join(b.Grant, ", "))
		}
	}
	for _, uri := range want.Unneeded {
		say("no secret %s", uri)
	}
	if want.Clients != nil {
		for _, id := range slices.Sorted(maps.Keys(obs.Clients)) {
			if _, kept := want.Clients[id]; !kept {
				say("forget %d", id)
			}
		}
	}
	for _, id := range slices.Sorted(maps.Keys(want.Clients)) {
		if c := want.Clients[id]; c.Digest != obs.Clients[id].Digest || c.Problem != obs.Clients[id].Problem || obs.Clients[id].App != c.App ||
			!slices.Equal(c.Secrets, obs.Clients[id].Secrets) {
			how := map[bool]string{true: c.Digest, false: "served"}[c.Digest == "" || c.Digest == pending]
			say("record %d: %s", id, how+c.Problem)
		}
	}
	if want.Again {
		say("again")
	}
	for _, p := range want.Problems {
		say("%s: %s", p.Severity, p.Message)
	}
	return out
}

// apply makes the world so, as the systems do in one pass.
func apply(t testing.TB, obs *world, want state.Desired) {
	t.Helper()
	catalog, _ := obs.Database.Get()
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
		secret, read := obs.Secrets[wish.Label]
		switch {
		case !read:
			secret = obs.saved[wish.Label]
		case wish.Content == nil && secret.Content == nil:
			secret.Content = map[string]state.Redacted{}
			for _, key := range wish.Generate {
				secret.Content[key] = "made-up"
			}
		case wish.Content != nil && !maps.Equal(wish.Content, secret.Saved):
			secret = state.Secret{URI: "secret://uuid/" + wish.Label, Content: wish.Content, Saved: wish.Content}
		}
		obs.Secrets[wish.Label] = secret
	}
	for _, wish := range want.Databags {
		r, _ := obs.Relations.ByID(wish.Relation)
		r.LocalApp = state.With(r.LocalApp, wish.Content)
		maps.DeleteFunc(r.LocalApp, func(_, value string) bool { return value == "" })
		obs.Relations.Replace(r)
	}
	for _, uri := range want.Unneeded {
		maps.DeleteFunc(obs.saved, func(_ string, s state.Secret) bool { return s.URI == uri })
	}
	for _, id := range want.Look {
		r, _ := obs.Relations.ByID(id)
		r.Read = true
		obs.Relations.Replace(r)
	}
	if want.Clients != nil {
		obs.Clients = maps.Clone(want.Clients)
	}
}

// commit is the end of a dispatch that Juju commits, and the beginning of
// another, of an event that has nothing to do with the relations.
func commit(obs *world) {
	for label, s := range obs.Secrets {
		if s.Saved != nil {
			s.Content, s.Committed = s.Saved, true
			obs.saved[label] = s
		}
	}
	obs.Secrets = map[string]state.Secret{}
	for _, r := range slices.Clone(obs.Relations[state.DatabaseEndpoint]) {
		r.Read = obs.Clients[r.ID].App == ""
		obs.Relations.Replace(r)
	}
}

// serveAll makes dispatches until nothing more is wished, and returns how many.
func serveAll(t testing.TB, obs *world) int {
	t.Helper()
	for dispatches := 1; dispatches <= 5; dispatches++ {
		if !dispatch(t, obs) {
			return dispatches
		}
	}
	t.Fatal("there is no end of dispatches")
	return 0
}

// dispatch makes passes until they change nothing, has Juju commit, and tells
// whether another dispatch was asked for.
func dispatch(t testing.TB, obs *world) (again bool) {
	t.Helper()
	for range 20 {
		before := print(obs)
		want := desire(obs)
		apply(t, obs, want)
		if print(obs) == before {
			commit(obs)
			return want.Again
		}
	}
	t.Fatalf("there is no end of passes: %q", describe(obs, desire(obs)))
	return false
}

// print is all that a pass may change.
func print(obs *world) string {
	catalog, _ := obs.Database.Get()
	var out strings.Builder
	for _, label := range slices.Sorted(maps.Keys(obs.Secrets)) {
		s := obs.Secrets[label]
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
	fmt.Fprintln(&out, catalog.Databases, obs.Relations, obs.Clients)
	return out.String()
}

// local is what a relation was told.
func local(obs *world, id int) map[string]string {
	r, _ := obs.Relations.ByID(id)
	return r.LocalApp
}

// touch is an event of the relation: it is read.
func touch(obs *world, id int) {
	r, _ := obs.Relations.ByID(id)
	r.Read = true
	obs.Relations.Replace(r)
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
