package database

import (
	"maps"
	"slices"
	"strings"
	"testing"

	"charmhub.io/postgresql-k8s/charm/state"
)

// secrets is what a current library asks to have in secrets.
const secrets = `["username","password","tls","tls-ca","uris","read-only-uris"]`

func orders(requested string) map[string]string {
	remote := map[string]string{"database": "orders"}
	if requested != "" {
		remote["requested-secrets"] = requested
	}
	return remote
}

func TestWhoServesNobody(t *testing.T) {
	t.Parallel()
	tests := []struct {
		name   string
		change func(*world)
	}{
		{"another unit leads", func(o *world) { o.Leader = false }},
		{"there is no record without the peers", func(o *world) { delete(o.Relations, state.PeerEndpoint) }},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			obs := leading(related(7, orders(secrets)), related(8, map[string]string{"database": "template1"}))
			obs.Clients[9] = state.Client{App: "gone", Digest: "x", Secrets: []string{"secret://uuid/9"}}
			catalog, _ := obs.Database.Get()
			catalog.Roles["relation_id_9"] = state.Role{Name: "relation_id_9", Login: true, MemberOf: []string{"relation_access"}}
			test.change(obs)
			want := obs.Desire()
			if got := obs.Describe(want); len(got) > 0 || want.Clients != nil {
				t.Errorf("it wishes %q", got)
			}
		})
	}
}

func TestARequestIsServedInPasses(t *testing.T) {
	t.Parallel()
	const user, tls = "secret://uuid/database.7.user.secret", "secret://uuid/database.7.tls.secret"
	roles := []string{"role orders", "user relation_id_7 with password made-up", "database orders of orders for relation_id_7"}
	save := []string{"secret database.7.tls.secret: save tls", "secret database.7.user.secret: save password, read-only-uris, uris, username"}
	obs := leading(related(7, orders(secrets)))
	draft := "secret database.7.user.secret: make up password"
	obs.Passes(t, [][]string{
		{draft, "record 7: pending"}, // Juju is asked whether it has one
		{draft},
		roles,
		slices.Concat(roles, save), // the catalog shows the user
		slices.Concat(roles, save, []string{"record 7: pending", "again"}), // Juju has a secret, but may discard it
		slices.Concat(roles, save, []string{"record 7: pending", "again"}), // and the other one
		{"commit"},
		{"look at 7"},
		{draft},
		slices.Concat(roles, save),
		slices.Concat(roles, save, []string{
			"tell 7: data, database, endpoints, read-only-endpoints, secret-tls, secret-user, version; grant " + user + ", " + tls, "record 7: served"}),
		nil,
		{"commit"},
		nil,
	})
	if got, want := obs.Told(7), (map[string]string{
		"database": "orders", "endpoints": "10.0.0.1:5432", "read-only-endpoints": "10.0.0.1:5432", "version": "17.5",
		"secret-user": user, "secret-tls": tls,
		"data": `{"database":"orders","requested-secrets":"[\"username\",\"password\",\"tls\",\"tls-ca\",\"uris\",\"read-only-uris\"]"}`,
	}); !maps.Equal(got, want) {
		t.Errorf("it is told %q, want %q", got, want)
	}
	content := map[string]string{}
	for _, label := range []string{"database.7.user.secret", "database.7.tls.secret"} {
		for key, value := range obs.Saved[label].Content {
			content[key] = value.Reveal()
		}
	}
	if want := (map[string]string{
		"username": "relation_id_7", "password": "made-up", "tls": "False",
		"uris":           "postgresql://relation_id_7:made-up@db-primary.test.svc.cluster.local:5432/orders",
		"read-only-uris": "postgresql://relation_id_7:made-up@db-primary.test.svc.cluster.local:5432/orders",
	}); !maps.Equal(content, want) {
		t.Errorf("its secrets are %q, want %q", content, want)
	}
}

func TestInPlainText(t *testing.T) {
	t.Parallel()
	reply := map[string]string{
		"database": "orders", "endpoints": "10.0.0.1:5432", "read-only-endpoints": "10.0.0.1:5432", "version": "17.5",
		"username": "relation_id_7", "password": "made-up", "tls": "False",
		"uris": "postgresql://relation_id_7:made-up@db-primary.test.svc.cluster.local:5432/orders", "data": `{"database":"orders"}`,
	}
	obs := leading(related(7, orders("")))
	if n := obs.ServeAll(t); n != 1 {
		t.Errorf("it took %d dispatches", n)
	}
	if got := obs.Told(7); !maps.Equal(got, reply) {
		t.Errorf("it is told %q, want %q", got, reply)
	}
	if len(obs.Saved) > 0 || len(obs.Clients[7].Secrets) > 0 {
		t.Errorf("there are the secrets %v", obs.Saved)
	}
	// The password is nowhere but in the databag.
	catalog, _ := obs.Database.Get()
	delete(catalog.Roles, "relation_id_7")
	obs.Touch(7)
	obs.ServeAll(t)
	if got := obs.Told(7); !maps.Equal(got, reply) || !catalog.Roles["relation_id_7"].HasPassword("made-up") {
		t.Errorf("after the role was lost it is told %q", got)
	}
}

func TestOnlyWhatIsAskedForIsInSecrets(t *testing.T) {
	t.Parallel()
	obs := leading(related(7, orders(`["username","password"]`)))
	obs.ServeAll(t)
	got := obs.Told(7)
	if got["secret-user"] == "" || got["secret-tls"] != "" || got["tls"] != "False" || got["username"] != "" || got["password"] != "" {
		t.Errorf("it is told %q", got)
	}
	if content := obs.Saved["database.7.user.secret"].Content; len(content) != 2 {
		t.Errorf("the secret has %d keys", len(content))
	}
}

// The library of a relation that began in plain text never looks for secrets.
func TestPlainTextStays(t *testing.T) {
	t.Parallel()
	relation := related(7, orders(secrets))
	relation.LocalApp = map[string]string{"database": "orders", "username": "relation_id_7", "password": "of before", "uris": "postgresql://old"}
	obs := leading(relation)
	obs.ServeAll(t)
	got := obs.Told(7)
	if got["password"] != "of before" || got["secret-user"] != "" || got["secret-tls"] != "" || got["tls"] != "False" ||
		got["uris"] != "postgresql://relation_id_7:of%20before@db-primary.test.svc.cluster.local:5432/orders" {
		t.Errorf("it is told %q", got)
	}
	if _, clear := got["read-only-uris"]; clear {
		t.Error("it is told more in plain text than it had")
	}
	if catalog, _ := obs.Database.Get(); !catalog.Roles["relation_id_7"].HasPassword("of before") {
		t.Error("it has another password")
	}
}

func twoRequests() map[string]string {
	return map[string]string{"version": "v1", "requests": `[{"request-id":"00aa","resource":"orders","salt":"s"},{"request-id":"00bb","resource":"bills","entity-type":null}]`}
}

func TestVersion1(t *testing.T) {
	t.Parallel()
	obs := leading(related(7, twoRequests()))
	obs.ServeAll(t)
	response := func(id, database, salt string) string {
		return `{"endpoints":"10.0.0.1:5432","read-only-endpoints":"10.0.0.1:5432","request-id":"` + id + `","resource":"` + database + `",` + salt +
			`"secret-tls":"secret://uuid/database.7.` + id + `.tls.secret","secret-user":"secret://uuid/database.7.` + id + `.user.secret","version":"17.5"}`
	}
	want := map[string]string{
		"version": "v1", "requests": "[" + response("00aa", "orders", `"salt":"s",`) + "," + response("00bb", "bills", "") + "]",
		"data": `{"00aa":{"request-id":"00aa","resource":"orders","salt":"s"},"00bb":{"request-id":"00bb","resource":"bills"}}`,
	}
	if got := obs.Told(7); !maps.Equal(got, want) {
		t.Errorf("it is told %q, want %q", got, want)
	}
	for id, database := range map[string]string{"00aa": "orders", "00bb": "bills"} {
		user, tls := obs.Saved["database.7."+id+".user.secret"].Content, obs.Saved["database.7."+id+".tls.secret"].Content
		if user["username"] != state.Redacted("relation_id_7_"+id) || tls["tls"] != "false" || !strings.HasSuffix(user["uris"].Reveal(), "/"+database) {
			t.Errorf("the secrets of %s have %q and %q", id, user["username"].Reveal(), tls["tls"].Reveal())
		}
	}
	if n := len(obs.Clients[7].Secrets); n != 4 {
		t.Errorf("%d secrets are on record, want 4", n)
	}
}

func TestVersion1IsToldWhenAllOfItIsReady(t *testing.T) {
	t.Parallel()
	obs := leading(related(7, twoRequests()))
	for range 30 {
		want := obs.Desire()
		served := map[string]bool{}
		for _, secret := range obs.Saved {
			served[secret.Content["username"].Reveal()] = true
		}
		if len(want.Databags) > 0 && (!served["relation_id_7_00aa"] || !served["relation_id_7_00bb"]) {
			t.Fatalf("it is told of one before the other: %q", obs.Describe(want))
		}
		obs.Apply(t, want)
		if want.Again {
			obs.Commit()
		}
	}
	if obs.Told(7)["requests"] == "" {
		t.Error("it is told nothing")
	}
}

func TestNewEndpoints(t *testing.T) {
	t.Parallel()
	tests := []struct {
		name   string
		remote map[string]string
		keys   string
	}{
		{"version 0", orders(secrets), "endpoints, read-only-endpoints"},
		{"plain text", orders(""), "endpoints, read-only-endpoints"},
		{"version 1", twoRequests(), "requests"},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			obs := leading(related(7, test.remote))
			obs.WithReplica()
			obs.ServeAll(t)
			before := obs.Told(7)
			// A failover.
			obs.Cluster = state.Value(state.Cluster{Members: []state.Member{
				{Name: "db-1", Role: "leader", State: "running"}, {Name: "db-0", Role: "replica", State: "streaming"},
			}})
			obs.Passes(t, [][]string{{"look at 7"}, {"tell 7: " + test.keys + "; grant ", "record 7: served"}, nil, {"commit"}, nil})
			after := obs.Told(7)
			text := after["endpoints"] + after["requests"]
			if !strings.Contains(text, "10.0.0.2:5432") || len(after) != len(before) || after["data"] != before["data"] {
				t.Errorf("it is told %q after %q", after, before)
			}
		})
	}
}

// The replica is in the URIs of a secret, too.
func TestTheFirstReplica(t *testing.T) {
	t.Parallel()
	obs := leading(related(7, orders(secrets)))
	obs.ServeAll(t)
	obs.WithReplica()
	obs.ServeAll(t)
	if got := obs.Told(7)["read-only-endpoints"]; got != "10.0.0.2:5432" {
		t.Errorf("reads go to %q", got)
	}
	if got, want := obs.Saved["database.7.user.secret"].Content["read-only-uris"].Reveal(),
		"postgresql://relation_id_7:made-up@db-replicas.test.svc.cluster.local:5432/orders"; got != want {
		t.Errorf("in the secret they go to %q, want %q", got, want)
	}
}

func TestAnEventOfASettledRelationReadsNoSecret(t *testing.T) {
	t.Parallel()
	obs := leading(related(7, orders(secrets)), related(8, twoRequests()))
	obs.ServeAll(t)
	obs.Touch(7)
	obs.Touch(8)
	obs.Passes(t, [][]string{nil})
}

func TestWhatSettledRelationsLost(t *testing.T) {
	t.Parallel()
	tests := []struct {
		name string
		lose func(*world, state.Catalog)
	}{
		{"the role", func(_ *world, c state.Catalog) { delete(c.Roles, "relation_id_7") }},
		{"the right to log in", func(_ *world, c state.Catalog) {
			r := c.Roles["relation_id_7"]
			r.Login = false
			c.Roles["relation_id_7"] = r
		}},
		{"the group", func(_ *world, c state.Catalog) {
			r := c.Roles["relation_id_7"]
			r.MemberOf = nil
			c.Roles["relation_id_7"] = r
		}},
		{"the database", func(_ *world, c state.Catalog) { delete(c.Databases, "orders") }},
		{"the privileges", func(_ *world, c state.Catalog) { c.Databases["orders"] = state.CatalogDatabase{Owner: "operator"} }},
		{"the databag", func(w *world, _ state.Catalog) { clear(w.Told(7)) }},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			obs := leading(related(7, orders(secrets)))
			obs.ServeAll(t)
			before, reply := obs.Print(), maps.Clone(obs.Told(7))
			catalog, _ := obs.Database.Get()
			test.lose(obs, catalog)
			obs.Touch(7)
			obs.ServeAll(t)
			if after := obs.Print(); after != before || !maps.Equal(reply, obs.Told(7)) {
				t.Errorf("it is\n%s\nand was\n%s", after, before)
			}
		})
	}
}

func TestWhatIsNotServed(t *testing.T) {
	t.Parallel()
	v1 := func(more string) map[string]string {
		return map[string]string{"version": "v1", "requests": `[{"request-id":"00aa",` + more + `}]`}
	}
	tests := []struct {
		name    string
		remote  map[string]string
		problem string
		status  string // part of the protocol's status; "" for none
	}{
		{"no request", nil, "", ""},
		{"an empty database", map[string]string{"database": ""}, "", ""},
		{"an invalid name", map[string]string{"database": "template1"}, state.MessageInvalidDatabase, ""},
		{"the name of a database of the operator's users", map[string]string{"database": "theirs"}, state.MessageInvalidDatabase, ""},
		{"the name of a role that logs in", map[string]string{"database": "somebody"}, state.MessageInvalidDatabase, ""},
		{"the name of a superuser", map[string]string{"database": "root"}, state.MessageInvalidDatabase, ""},
		{"invalid roles", map[string]string{"database": "orders", "extra-user-roles": "operator"}, state.MessageInvalidRoles, ""},
		{"what cannot be read", map[string]string{"database": "orders", "requested-secrets": "x"}, state.MessageInvalidRequest, ""},
		{"what Juju could not take back", map[string]string{"database": "orders", "requests": strings.Repeat("<", 3<<20)}, state.MessageInvalidRequest, ""},
		{"roles without end", map[string]string{"database": "orders", "extra-user-roles": manyRoles(50 << 10)}, state.MessageInvalidRoles, ""},
		{"an entity", map[string]string{"database": "orders", "entity-type": "USER"}, "", "one user for each request"},
		{"a prefix", map[string]string{"database": "orders*"}, "", "one database for each request"},
		{"an invalid name in version 1", v1(`"resource":"template1"`), state.MessageInvalidDatabase, "request 00aa: invalid database name"},
		{"invalid roles in version 1", v1(`"resource":"orders","extra-user-roles":"x"`), state.MessageInvalidRoles, "request 00aa: invalid role(s)"},
		{"roles without end in version 1", v1(`"resource":"orders","extra-user-roles":"` + manyRoles(50<<10) + `"`), state.MessageInvalidRoles, "request 00aa: invalid role(s)"},
		{"an entity in version 1", v1(`"resource":"orders","entity-type":"USER"`), "", "one user for each request"},
		{"what cannot be read in version 1", map[string]string{"version": "v1", "requests": "x"}, state.MessageInvalidRequest, ""},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			obs := leading(related(7, test.remote), related(8, map[string]string{"database": "other"}))
			catalog, _ := obs.Database.Get()
			catalog.Databases["theirs"] = state.CatalogDatabase{Owner: "somebody"}
			catalog.Roles["somebody"] = state.Role{Name: "somebody", Login: true}
			catalog.Roles["root"] = state.Role{Name: "root", Superuser: true}
			for range 5 {
				want := obs.Desire()
				for _, r := range want.Roles {
					if r.Name != "relation_id_8" && r.Name != "other" {
						t.Errorf("it wishes role %s", r.Name)
					}
				}
				for _, d := range want.Databases {
					if d.Name != "other" {
						t.Errorf("it wishes database %s", d.Name)
					}
				}
				obs.Apply(t, want)
			}
			got := obs.Told(7)
			if got["endpoints"] != "" || !strings.Contains(got["status"], test.status) || (got["status"] == "") != (test.status == "") {
				t.Errorf("it is told %q", got)
			}
			if test.status == "" && len(got) > 0 {
				t.Errorf("it is told %q", got)
			}
			if requests := got["requests"]; requests != "" && requests != "[]" {
				t.Errorf("its requests are %q", requests)
			}
			var problems []string
			for _, p := range obs.Desire().Problems {
				problems = append(problems, p.Severity.String()+": "+p.Message)
			}
			if want := slices.DeleteFunc([]string{"blocked: " + test.problem}, func(s string) bool { return s == "blocked: " }); !slices.Equal(problems, want) {
				t.Errorf("the problems are %q, want %q", problems, want)
			}
			if obs.Told(8)["endpoints"] == "" {
				t.Error("another relation is not served, either")
			}
			obs.Commit()
			if test.problem != "" && !slices.Contains(obs.Describe(obs.Desire()), "blocked: "+test.problem) {
				t.Error("in the next dispatch, which does not read it, the problem is gone")
			}
			// The application thinks better of it.
			relation := related(7, orders(""))
			relation.LocalApp = obs.Told(7)
			obs.Relations.Replace(relation)
			obs.ServeAll(t)
			if got := obs.Told(7); got["endpoints"] == "" || got["status"] != "" || obs.Clients[7].Problem != "" {
				t.Errorf("with another request it is told %q", got)
			}
		})
	}
}

func TestANameThatIsFreeAgain(t *testing.T) {
	t.Parallel()
	for name, remote := range map[string]map[string]string{
		"version 0":                  {"database": "theirs"},
		"version 1":                  {"version": "v1", "requests": `[{"request-id":"00aa","resource":"theirs"}]`},
		"among those that are taken": {"version": "v1", "requests": `[{"request-id":"00bb","resource":"root"},{"request-id":"00cc","resource":"bills"},{"request-id":"00aa","resource":"theirs"}]`},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			obs := leading(related(7, remote))
			catalog, _ := obs.Database.Get()
			catalog.Databases["theirs"] = state.CatalogDatabase{Owner: "somebody"}
			catalog.Roles["root"] = state.Role{Name: "root", Superuser: true}
			obs.ServeAll(t)
			refused := []string{"blocked: " + state.MessageInvalidDatabase}
			obs.Passes(t, [][]string{refused, {"commit"}, refused}) // nobody looks at it
			for _, free := range []func(){
				func() { delete(catalog.Databases, "theirs") }, func() { delete(catalog.Roles, "root") },
			} {
				free()
				obs.ServeAll(t)
			}
			if wish := obs.Describe(obs.Desire()); len(wish) > 0 {
				t.Errorf("with free names it wishes %q", wish)
			}
			got := obs.Told(7)
			if text := got["database"] + got["requests"]; !strings.Contains(text, "theirs") || strings.Contains(remote["requests"], "root") && !strings.Contains(text, "root") || got["status"] != "" {
				t.Errorf("it is told %q", got)
			}
		})
	}
}

func TestOneBadRequestOfTwo(t *testing.T) {
	t.Parallel()
	obs := leading(related(7, map[string]string{"version": "v1", "requests": `[{"request-id":"00aa","resource":"postgres"},{"request-id":"00bb","resource":"bills"}]`}))
	obs.ServeAll(t)
	got := obs.Told(7)
	if !strings.Contains(got["requests"], `"00bb"`) || strings.Contains(got["requests"], `"00aa"`) ||
		got["status"] != `[{"code":5001,"message":"request 00aa: invalid database name","resolution":"Change the request, or remove the relation."}]` {
		t.Errorf("it is told %q", got)
	}
	if got := obs.Clients[7].Problem; got != state.MessageInvalidDatabase {
		t.Errorf("the record has the problem %q", got)
	}
}

func TestTwoRelationsOfOneDatabase(t *testing.T) {
	t.Parallel()
	obs := leading(related(7, orders("")), related(8, orders(secrets)))
	obs.ServeAll(t)
	catalog, _ := obs.Database.Get()
	if create := catalog.Databases["orders"].Create; !slices.Equal(create, []string{"orders", "relation_id_7", "relation_id_8"}) {
		t.Errorf("in the database work %q", create)
	}
	if obs.Told(7)["username"] != "relation_id_7" || obs.Told(8)["secret-user"] == "" {
		t.Errorf("they are told %q and %q", obs.Told(7), obs.Told(8))
	}
	obs.Relations[state.DatabaseEndpoint] = obs.Relations[state.DatabaseEndpoint][1:]
	obs.ServeAll(t)
	if create := catalog.Databases["orders"].Create; !slices.Equal(create, []string{"orders", "relation_id_8"}) {
		t.Errorf("after one is gone there work %q", create)
	}
}

func TestABrokenRelation(t *testing.T) {
	t.Parallel()
	obs := leading(related(7, twoRequests()), related(8, orders("")))
	obs.ServeAll(t)
	uris := slices.Clone(obs.Clients[7].Secrets)
	obs.Relations[state.DatabaseEndpoint] = obs.Relations[state.DatabaseEndpoint][1:]
	var unneeded []string
	for _, uri := range uris {
		unneeded = append(unneeded, "no secret "+uri)
	}
	obs.Passes(t, [][]string{
		{"no role relation_id_7_00aa", "no role relation_id_7_00bb"}, // the record stays until the catalog shows that they are gone
		append(unneeded, "forget 7"),
		nil,
		{"commit"},
		nil,
	})
	catalog, _ := obs.Database.Get()
	if _, ok := catalog.Databases["orders"]; !ok {
		t.Error("the database is gone")
	}
	if len(obs.Saved) != 0 {
		t.Errorf("there are still secrets: %v", slices.Collect(maps.Keys(obs.Saved)))
	}
	if _, ok := obs.Clients[8]; !ok {
		t.Error("another relation is forgotten, too")
	}
}

func TestNothingIsForgottenWithoutTheCatalog(t *testing.T) {
	t.Parallel()
	obs := leading(related(7, orders(secrets)))
	obs.ServeAll(t)
	obs.Relations[state.DatabaseEndpoint] = nil
	known := obs.Database
	obs.Database = state.Unknown[state.Catalog]("no primary")
	obs.Passes(t, [][]string{nil, {"commit"}, nil})
	obs.Database = known
	obs.ServeAll(t)
	if len(obs.Clients) > 0 || len(obs.Saved) > 0 {
		t.Errorf("later there are still %v and %v", obs.Clients, obs.Saved)
	}
}

func TestWithoutFactsNothingIsTold(t *testing.T) {
	t.Parallel()
	tests := []struct {
		name   string
		change func(*world)
	}{
		{"no primary", func(w *world) { w.Cluster = state.Value(state.Cluster{}) }},
		{"two primaries", func(w *world) {
			w.Cluster = state.Value(state.Cluster{Members: []state.Member{
				{Name: "db-0", Role: "leader", State: "running"}, {Name: "db-1", Role: "leader", State: "running"},
			}})
		}},
		{"no Patroni", func(w *world) { w.Cluster = state.Unknown[state.Cluster]("away") }},
		{"no Kubernetes", func(w *world) { w.Kube = state.Unknown[state.Kube]("away") }},
		{"no catalog", func(w *world) { w.Database = state.Unknown[state.Catalog]("away") }},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			fresh := leading(related(7, orders(secrets)))
			facts := fresh.Observed
			test.change(fresh)
			fresh.Passes(t, [][]string{{"record 7: pending"}, nil, {"commit"}, nil})
			// It is not lost: when the facts are back, the relation is looked at.
			fresh.Cluster, fresh.Kube, fresh.Database = facts.Cluster, facts.Kube, facts.Database
			if got := fresh.Describe(fresh.Desire()); !slices.Equal(got, []string{"look at 7"}) {
				t.Errorf("with the facts it wishes %q", got)
			}
			fresh.ServeAll(t)
			if fresh.Told(7)["endpoints"] == "" {
				t.Error("it is not served")
			}
			// Nor is what was told before taken back.
			reply := maps.Clone(fresh.Told(7))
			test.change(fresh)
			fresh.Passes(t, [][]string{nil})
			fresh.Touch(7)
			fresh.ServeAll(t)
			if got := fresh.Told(7); !maps.Equal(got, reply) {
				t.Errorf("it is told %q, after %q", got, reply)
			}
		})
	}
}

func TestRecords(t *testing.T) {
	t.Parallel()
	t.Run("a relation whose application is not known has no record", func(t *testing.T) {
		t.Parallel()
		obs := leading(state.Relation{ID: 7, Endpoint: state.DatabaseEndpoint})
		obs.Passes(t, [][]string{nil})
	})
	t.Run("a relation that asks for nothing has one, and is not looked at", func(t *testing.T) {
		t.Parallel()
		obs := leading(related(7, nil))
		obs.Passes(t, [][]string{{"record 7: "}, nil, {"commit"}, nil})
	})
	t.Run("a record that is lost is made again, without a write to the relation", func(t *testing.T) {
		t.Parallel()
		obs := leading(related(7, orders(secrets)))
		obs.ServeAll(t)
		obs.Clients = map[int]state.Client{}
		obs.Touch(7)
		reply := maps.Clone(obs.Told(7))
		if n := obs.ServeAll(t); n != 1 || !maps.Equal(obs.Told(7), reply) || len(obs.Clients[7].Secrets) != 2 {
			t.Errorf("after %d dispatches it is told %q, and the record is %v", n, obs.Told(7), obs.Clients[7])
		}
	})
	t.Run("the handler leaves the observation alone", func(t *testing.T) {
		t.Parallel()
		obs := leading(related(7, orders(secrets)), related(8, twoRequests()))
		before := obs.Print()
		obs.Desire()
		if after := obs.Print(); after != before {
			t.Errorf("it is\n%s\nand was\n%s", after, before)
		}
	})
}
