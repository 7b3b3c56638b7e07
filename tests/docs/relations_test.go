package docs

import (
	"maps"
	"slices"
	"strings"
	"testing"

	"gopkg.in/yaml.v3"

	"charmhub.io/postgresql-k8s/charm/state"
	"charmhub.io/postgresql-k8s/relations/clients"
	"charmhub.io/postgresql-k8s/relations/clients/clientstest"
	"charmhub.io/postgresql-k8s/relations/database"
	"charmhub.io/postgresql-k8s/relations/pgsql"
)

// world is a leader's view of a primary and a replica, and of a relation.
func world(relations ...state.Relation) *clientstest.World {
	w := clientstest.Leading([]clientstest.Handler{database.Handler{}, pgsql.Handler{}, pgsql.Handler{Admin: true}}, relations...)
	w.Unit = state.Unit{Name: "postgresql-k8s/0", App: "postgresql-k8s", Model: "tutorial", ModelUUID: "uuid"}
	w.Units = state.Value([]string{"postgresql-k8s/0", "postgresql-k8s/1"})
	w.Kube = state.Value(state.Kube{Domain: "cluster.local", Pods: []state.Pod{
		{Name: "postgresql-k8s-0", IP: "10.1.0.5", Ready: true}, {Name: "postgresql-k8s-1", IP: "10.1.0.6", Ready: true},
	}})
	w.Cluster = state.Value(state.Cluster{
		Local: state.Local{Role: "primary", State: "running", ServerVersion: "17.5"},
		Members: []state.Member{
			{Name: "postgresql-k8s-0", Role: "leader", State: "running"},
			{Name: "postgresql-k8s-1", Role: "quorum_standby", State: "streaming", Lag: state.Value(int64(0))},
		},
		Dynamic: map[string]any{"synchronous_mode": "quorum"},
	})
	return w
}

// served is what becomes of an application's request.
func served(t *testing.T, endpoint string, remote map[string]string) *clientstest.World {
	t.Helper()
	r := clientstest.Related(7, endpoint, remote)
	r.RemoteApp = "my-application"
	r.Units = map[string]map[string]string{"my-application/0": {"egress-subnets": "10.1.0.9/32"}}
	w := world(r)
	w.ServeAll(t)
	if len(w.Told(7)) == 0 {
		t.Fatalf("%s is told nothing", endpoint)
	}
	return w
}

// roles are those that an application may ask for.
func roles(t *testing.T) []string {
	t.Helper()
	all := slices.Concat([]string{"admin", "createdb", "createrole", "superuser"}, clients.Grantable)
	for _, role := range all {
		if requests := database.Parse(map[string]string{"database": "orders", "extra-user-roles": role}); requests.List[0].Refused != "" {
			t.Errorf("the role %s is refused", role)
		}
	}
	return all
}

func TestRelations(t *testing.T) {
	t.Parallel()
	c := declared(t)
	p := newPage("Relations", "charmcraft.yaml and relations/")
	p.line("| endpoint | interface | who is at the other end |\n|---|---|---|")
	sides := map[string]string{
		"database": "an application that wants a database", "db": "an application that knows nothing newer; **deprecated**",
		"db-admin":       "the same, with a superuser; **deprecated**",
		"database-peers": "the other units", "restart": "the other units", "upgrade": "the other units",
	}
	for _, list := range []entries[endpoint]{c.Provides, c.Requires, c.Peers} {
		for _, e := range list {
			if sides[e.Name] == "" {
				t.Errorf("the page says nothing of the endpoint %s", e.Name)
			}
			p.line("| `%s` | `%s` | %s |", e.Name, e.Value.Interface, sides[e.Name])
		}
	}
	p.line("")
	p.text("Of the peer relations, `database-peers` has the leader's record of the clients, and its secret the passwords of the system " +
		"users. `upgrade` has how far a refresh is. `restart` is not used: it keeps the name that earlier releases gave it.")
	p.text("Only the leader answers applications. It does so when everything works that it tells, in one piece. The examples below " +
		"are what it writes for a relation with the id 7, with two units in the model `tutorial`.")
	databaseReference(t, p)
	legacyReference(t, p)
	p.save(t, "relations.md")
}

func databaseReference(t *testing.T, p *page) {
	t.Helper()
	p.line("## database")
	p.line("")
	p.text("Interface [`postgresql_client`](https://github.com/canonical/charm-relation-interfaces/tree/main/interfaces/postgresql_client), " +
		"versions 0 and 1. Charm libraries write the request and read the reply.")
	p.text("What an application writes:")
	p.line("| key | |\n|---|---|")
	for _, row := range [][2]string{
		{"database", "the name it wants: up to 63 bytes, printable, without quotes, `;`, `\\`, `$`; not of PostgreSQL's or the charm's own. " +
			"Without one it gets nothing, and may ask later"},
		{"extra-user-roles", "a comma list of the roles below"},
		{"requested-secrets", "a JSON list of what is to travel in secrets; without it, everything is in plain text"},
		{"version, requests", "`v1` and a JSON list: several requests, each of which gets a user"},
	} {
		p.line("| `%s` | %s |", strings.ReplaceAll(row[0], ", ", "`, `"), cell(row[1]))
	}
	p.line("")
	p.text("Entity requests, and prefixes of database names (`orders*`), are answered with a `status` that says that they are not served. " +
		"`external-node-connectivity` is ignored.")
	p.text("Roles: `%s`.", strings.Join(roles(t), "`, `"))
	w := served(t, state.DatabaseEndpoint, map[string]string{
		"database": "orders", "requested-secrets": `["username","password","tls","tls-ca","uris","read-only-uris"]`,
	})
	p.text("The reply, of version 0:")
	p.block("yaml", asYAML(t, w.Told(7)))
	p.text("And in the secrets:")
	for _, label := range slices.Sorted(maps.Keys(w.Saved)) {
		content := map[string]string{}
		for key, value := range w.Saved[label].Content {
			content[key] = strings.ReplaceAll(value.Reveal(), "made-up", "PASSWORD")
		}
		p.block("yaml", "# "+label+"\n"+asYAML(t, content))
	}
	for _, line := range []string{
		"`endpoints`: exactly one `host:port`, the primary's. `read-only-endpoints`: a comma list of the replicas that follow; the primary " +
			"when there is none. Both are rewritten when that changes; see [availability](../availability.md#endpoints).",
		"`uris` name Services, and do not change at a failover. `client-endpoints=service` has that for `endpoints`, too.",
		"The user is `relation_id_` and the id of the relation, in version 1 with the id of the request. It may do everything in its " +
			"database, and connect to no other but `postgres`; with `superuser`, `createdb` or `admin` it may connect to all.",
		"What it makes belongs to a role of the name of the database, so that the next user of the same database has it, too. Of a user with " +
			"extra roles it is the user's own as long as there is one, and goes to that role with the user.",
		"When the relation is removed, the user goes. The database and what is in it stay.",
	} {
		p.item("%s", line)
	}
	p.line("")
}

func legacyReference(t *testing.T, p *page) {
	t.Helper()
	p.line("## db and db-admin")
	p.line("")
	p.text("Interface [`pgsql`](https://github.com/canonical/ops-lib-pgsql/blob/master/protocol.md). An application writes `database`. One that asks for " +
		"`roles` or `extensions` is refused. The reply is in the databag of the application and in that of the leader's unit:")
	w := served(t, state.LegacyEndpoint, map[string]string{"database": "orders"})
	told := w.Told(7)
	for key, value := range told {
		told[key] = strings.ReplaceAll(value, "made-up", "PASSWORD")
	}
	p.block("yaml", asYAML(t, told))
	p.text("The password is in plain text: the interface knows no secrets. All hosts are names, whatever `client-endpoints` says. The " +
		"users of `db-admin` are superusers.")
}

func asYAML(t *testing.T, content map[string]string) string {
	t.Helper()
	text, err := yaml.Marshal(content)
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}
