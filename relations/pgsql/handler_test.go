package pgsql

import (
	"maps"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"charmhub.io/postgresql-k8s/charm/config"
	"charmhub.io/postgresql-k8s/charm/state"
	"charmhub.io/postgresql-k8s/relations/clients/clientstest"
)

// TestMain adds an extension to those that options can enable, whichever they are.
func TestMain(m *testing.M) {
	config.Options = append(config.Options, config.Option{Name: "plugin_some_thing_enable", Type: "boolean"})
	os.Exit(m.Run())
}

func enabling(on bool) config.Values {
	return config.Parse(map[string]any{"plugin_some_thing_enable": on})
}

const primary = "db-primary.test.svc.cluster.local"

func TestARequestIsServedInPasses(t *testing.T) {
	t.Parallel()
	obs := leading(related(7, "db", orders()))
	draft := "secret db.7.draft.secret: make up password"
	roles := []string{"role orders", "user relation_id_7 with password made-up", "database orders of orders for relation_id_7"}
	keys := "allowed-subnets, allowed-units, database, host, master, password, port, standbys, user, version"
	obs.Passes(t, [][]string{
		{draft, "record 7: pending"}, // Juju is asked whether it has one
		{draft},
		roles,
		slices.Concat(roles, []string{"tell 7: " + keys + "; grant ", "tell 7 as a unit: " + keys, "record 7: served"}),
		roles,
		{"commit"},
		nil,
	})
	connect := "dbname=orders fallback_application_name=app host=" + primary + " password=made-up port=5432 user=relation_id_7"
	want := map[string]string{
		"allowed-subnets": "10.1.0.1/32,10.1.0.2/32", "allowed-units": "app/0 app/1", "database": "orders",
		"host": "db-0.db-endpoints.test.svc.cluster.local", "master": connect, "standbys": connect,
		"password": "made-up", "port": "5432", "user": "relation_id_7", "version": "17.5",
	}
	r, _ := obs.Relations.ByID(7)
	if !maps.Equal(r.LocalApp, want) || !maps.Equal(r.LocalUnit, want) {
		t.Errorf("it is told\n%q and\n%q, want\n%q", r.LocalApp, r.LocalUnit, want)
	}
	if len(obs.Saved) > 0 || len(obs.Clients[7].Secrets) > 0 {
		t.Errorf("there are the secrets %v", obs.Saved)
	}
}

func TestWhoIsASuperuser(t *testing.T) {
	t.Parallel()
	obs := leading(related(7, "db", orders()), related(8, "db-admin", map[string]string{"database": "power"}))
	var acts map[string]bool
	for range 6 {
		want := obs.Desire()
		acts = map[string]bool{}
		for _, d := range want.Databases {
			acts[d.Users[0].Role] = d.Users[0].Act
		}
		obs.Apply(t, want)
	}
	if !acts["relation_id_7"] || acts["relation_id_8"] { // as the owner role it would be no superuser
		t.Errorf("acting as the owner role: %v", acts)
	}
	catalog, _ := obs.Database.Get()
	plain, admin := catalog.Roles["relation_id_7"], catalog.Roles["relation_id_8"]
	if plain.Superuser || plain.CreateDB || plain.CreateRole || !slices.Equal(plain.MemberOf, []string{"relation_access", "orders"}) {
		t.Errorf("the user of db is %+v", plain)
	}
	if !admin.Superuser || !slices.Equal(admin.MemberOf, []string{"relation_access", "power", "relation_any_database"}) {
		t.Errorf("the user of db-admin is %+v", admin)
	}
	if master := obs.Told(8)["master"]; !strings.Contains(master, "dbname=power ") || !strings.Contains(master, " user=relation_id_8") {
		t.Errorf("the user of db-admin is told %q", master)
	}
}

// Upstream's leaders left the password in the application's databag, and one that
// may be older in their own.
func TestPasswordsOfBefore(t *testing.T) {
	t.Parallel()
	tests := []struct {
		name      string
		app, unit map[string]string
	}{
		{"both databags have it", map[string]string{"password": "old"}, map[string]string{"password": "old"}},
		{"this unit has led before", map[string]string{"password": "old"}, map[string]string{"password": "older"}},
		{"another unit has led", map[string]string{"password": "old"}, nil},
		{"only the unit's databag has it", nil, map[string]string{"password": "old"}},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			relation := related(7, "db", orders())
			relation.LocalApp, relation.LocalUnit = test.app, test.unit
			obs := leading(relation)
			obs.ServeAll(t)
			r, _ := obs.Relations.ByID(7)
			if r.LocalApp["password"] != "old" || r.LocalUnit["password"] != "old" || !strings.Contains(r.LocalApp["master"], " password=old ") {
				t.Errorf("it is told %q and %q", r.LocalApp, r.LocalUnit)
			}
			if catalog, _ := obs.Database.Get(); !catalog.Roles["relation_id_7"].HasPassword("old") {
				t.Error("the user has another password")
			}
			if len(obs.Secrets) > 0 {
				t.Errorf("it looked for %v", obs.Secrets)
			}
		})
	}
}

func TestAnotherLeader(t *testing.T) {
	t.Parallel()
	obs := leading(related(7, "db", orders()))
	obs.ServeAll(t)
	before := maps.Clone(obs.Told(7))
	obs.Unit.Name, obs.Unit.Number = "db/1", 1
	r, _ := obs.Relations.ByID(7)
	r.LocalUnit = nil // it is the other unit's own
	obs.Relations.Replace(r)
	obs.ServeAll(t)
	r, _ = obs.Relations.ByID(7)
	before["host"] = "db-1.db-endpoints.test.svc.cluster.local"
	if !maps.Equal(r.LocalApp, before) || !maps.Equal(r.LocalUnit, before) {
		t.Errorf("it is told\n%q and\n%q, want\n%q", r.LocalApp, r.LocalUnit, before)
	}
}

func TestWhatChangesLater(t *testing.T) {
	t.Parallel()
	const replicas = "db-replicas.test.svc.cluster.local"
	tests := []struct {
		name   string
		change func(*world)
		event  bool   // of the relation
		keys   string // that it is told
		want   map[string]string
	}{
		{"nothing", func(*world) {}, true, "", nil},
		{"a failover, which names outlive", func(w *world) {
			w.Cluster = state.Value(state.Cluster{Members: []state.Member{{Name: "db-1", Role: "leader", State: "running"}}})
		}, false, "", nil},
		{"the first replica", func(w *world) { w.WithReplica() }, false, "standbys",
			map[string]string{"standbys": "dbname=orders fallback_application_name=app host=" + replicas + " password=made-up port=5432 user=relation_id_7"}},
		{"names in the place of addresses", func(w *world) {
			w.Config = config.Parse(map[string]any{"client-endpoints": "service"})
		}, false, "", nil},
		{"another version", func(w *world) {
			catalog, _ := w.Database.Get()
			catalog.Version = "17.6"
			w.Database = state.Value(catalog)
		}, false, "version", map[string]string{"version": "17.6"}},
		{"a unit departs", func(w *world) {
			r, _ := w.Relations.ByID(7)
			r.Units = map[string]map[string]string{"app/1": r.Units["app/1"]}
			w.Relations.Replace(r)
		}, true, "allowed-units", map[string]string{"allowed-units": "app/1"}},
		{"all units depart", func(w *world) {
			r, _ := w.Relations.ByID(7)
			r.Units = nil
			w.Relations.Replace(r)
		}, true, "allowed-subnets, allowed-units", map[string]string{"allowed-units": "", "allowed-subnets": ""}},
		{"a unit joins", func(w *world) {
			r, _ := w.Relations.ByID(7)
			r.Units = maps.Clone(r.Units)
			r.Units["app/2"] = map[string]string{"egress-subnets": "10.1.0.3/32"}
			w.Relations.Replace(r)
		}, true, "allowed-subnets, allowed-units",
			map[string]string{"allowed-units": "app/0 app/1 app/2", "allowed-subnets": "10.1.0.1/32,10.1.0.2/32,10.1.0.3/32"}},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			obs := leading(related(7, "db", orders()))
			obs.ServeAll(t)
			want := maps.Clone(obs.Told(7))
			test.change(obs)
			if test.event {
				obs.Touch(7)
			}
			var told []string
			for range 3 {
				wish := obs.Desire()
				for _, line := range obs.Describe(wish) {
					if strings.HasPrefix(line, "tell ") {
						told = append(told, line)
					}
				}
				obs.Apply(t, wish)
			}
			lines := []string{"tell 7: " + test.keys + "; grant ", "tell 7 as a unit: " + test.keys}
			if test.keys == "" {
				lines = nil
			}
			if !slices.Equal(told, lines) {
				t.Errorf("it is told %q, want %q", told, lines)
			}
			maps.Copy(want, test.want)
			maps.DeleteFunc(want, func(_, value string) bool { return value == "" })
			r, _ := obs.Relations.ByID(7)
			if !maps.Equal(r.LocalApp, want) || !maps.Equal(r.LocalUnit, want) {
				t.Errorf("it was told\n%q and\n%q, want\n%q", r.LocalApp, r.LocalUnit, want)
			}
		})
	}
}

func TestWhatIsNotServed(t *testing.T) {
	t.Parallel()
	tests := []struct {
		name    string
		asks    map[string]string
		problem string
	}{
		{"no request", nil, ""},
		{"an invalid name", map[string]string{"database": "template1"}, state.MessageInvalidDatabase},
		{"the name of a database of the operator's users", map[string]string{"database": "theirs"}, state.MessageInvalidDatabase},
		{"the name of a role that logs in", map[string]string{"database": "somebody"}, state.MessageInvalidDatabase},
		{"extensions", map[string]string{"database": "orders", "extensions": "some-thing,citext"}, state.MessageExtensions},
		{"roles", map[string]string{"database": "orders", "roles": "admin"}, state.MessageRoles},
		{"text without end", map[string]string{"database": strings.Repeat("x", maxText)}, state.MessageInvalidRequest},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			obs := leading(related(7, "db-admin", test.asks), related(8, "db", map[string]string{"database": "other"}))
			obs.Config = enabling(true)
			catalog, _ := obs.Database.Get()
			catalog.Databases["theirs"] = state.CatalogDatabase{Owner: "somebody"}
			catalog.Roles["somebody"] = state.Role{Name: "somebody", Login: true}
			obs.ServeAll(t)
			if got := obs.Told(7); len(got) > 0 {
				t.Errorf("it is told %q", got)
			}
			if role, ok := catalog.Roles["relation_id_7"]; ok {
				t.Errorf("it has the user %+v", role)
			}
			if obs.Told(8)["master"] == "" {
				t.Error("another relation is not served, either")
			}
			want := []string{"blocked: " + test.problem}
			if test.problem == "" {
				want = nil
			}
			obs.Passes(t, [][]string{want, want}) // in a dispatch that does not read it
			// The application thinks better of it.
			obs.Relations.Replace(related(7, "db-admin", orders()))
			obs.ServeAll(t)
			if got := obs.Told(7); got["master"] == "" || obs.Clients[7].Problem != "" {
				t.Errorf("with another request it is told %q", got)
			}
		})
	}
}

func TestANameThatIsFreeAgain(t *testing.T) {
	t.Parallel()
	obs := leading(related(7, "db", map[string]string{"database": "somebody"}))
	catalog, _ := obs.Database.Get()
	catalog.Roles["somebody"] = state.Role{Name: "somebody", Login: true}
	obs.ServeAll(t)
	refused := []string{"blocked: " + state.MessageInvalidDatabase}
	obs.Passes(t, [][]string{refused, {"commit"}, refused}) // nobody looks at it
	delete(catalog.Roles, "somebody")
	obs.ServeAll(t)
	obs.Passes(t, [][]string{nil})
	if got := obs.Told(7)["database"]; got != "somebody" {
		t.Errorf("it is told of the database %q", got)
	}
}

func TestExtensionsThatAnOptionEnables(t *testing.T) {
	t.Parallel()
	asks := map[string]string{"database": "orders", "extensions": "some_thing,some-thing:public"}
	obs := leading(related(7, "db", asks))
	refused := []string{"blocked: " + state.MessageExtensions}
	obs.ServeAll(t)
	if got := obs.Told(7); len(got) > 0 {
		t.Errorf("it is told %q", got)
	}
	obs.Passes(t, [][]string{refused, {"commit"}, refused}) // nobody looks at it

	obs.Config = enabling(true)
	obs.ServeAll(t)
	if got := obs.Told(7)["extensions"]; got != asks["extensions"] {
		t.Errorf("it is told of the extensions %q", got)
	}
	obs.Passes(t, [][]string{nil})
	before := maps.Clone(obs.Told(7))

	obs.Config = enabling(false)
	obs.ServeAll(t)
	obs.Passes(t, [][]string{refused})
	if got := obs.Told(7); !maps.Equal(got, before) {
		t.Errorf("what it has is taken back: %q", got)
	}
	catalog, _ := obs.Database.Get()
	if !catalog.Roles["relation_id_7"].Login {
		t.Error("its user is gone")
	}
}

// An application may have either interface, not both; of two applications each may
// have its own.
func TestBothInterfaces(t *testing.T) {
	t.Parallel()
	modern := func(app string) state.Relation {
		r := clientstest.Related(9, state.DatabaseEndpoint, map[string]string{"database": "new"})
		r.RemoteApp = app
		return r
	}
	blocked := []string{"blocked: " + state.MessageOneEndpoint}
	with := func(obs *world, r state.Relation) { obs.Relations[r.Endpoint] = append(obs.Relations[r.Endpoint], r) }
	without := func(obs *world, endpoint string) { delete(obs.Relations, endpoint) }

	for _, endpoint := range []string{"db", "db-admin"} {
		t.Run("the modern one came first, "+endpoint, func(t *testing.T) {
			t.Parallel()
			obs := leading(modern("app"))
			obs.ServeAll(t)
			with(obs, related(7, endpoint, orders()))
			obs.ServeAll(t)
			if got := obs.Told(7); len(got) > 0 {
				t.Errorf("the legacy one is told %q", got)
			}
			obs.Passes(t, [][]string{blocked, {"commit"}, blocked}) // and nobody looks
			without(obs, state.DatabaseEndpoint)
			obs.ServeAll(t)
			if obs.Told(7)["master"] == "" {
				t.Error("when the modern one is gone, the legacy one is not served")
			}
			obs.Passes(t, [][]string{nil})
		})
		t.Run("the legacy one came first, "+endpoint, func(t *testing.T) {
			t.Parallel()
			obs := leading(related(7, endpoint, orders()))
			obs.ServeAll(t)
			before := maps.Clone(obs.Told(7))
			with(obs, modern("app"))
			obs.ServeAll(t)
			obs.Passes(t, [][]string{blocked})
			obs.WithReplica()
			obs.ServeAll(t)
			if got := obs.Told(7); got["password"] != before["password"] || !strings.Contains(got["standbys"], "db-replicas.") {
				t.Errorf("what is served is not kept up to date: %q", got)
			}
			without(obs, endpoint)
			obs.ServeAll(t)
			obs.Passes(t, [][]string{nil})
			if obs.Told(9)["password"] == "" {
				t.Error("the modern one is not served")
			}
		})
	}
	t.Run("of two applications", func(t *testing.T) {
		t.Parallel()
		obs := leading(related(7, "db", orders()), modern("another"))
		obs.ServeAll(t)
		obs.Passes(t, [][]string{nil})
		if obs.Told(7)["master"] == "" || obs.Told(9)["password"] == "" {
			t.Error("they are not served")
		}
	})
	t.Run("both legacy endpoints", func(t *testing.T) {
		t.Parallel()
		obs := leading(related(7, "db", orders()), related(8, "db-admin", orders()))
		obs.ServeAll(t)
		obs.Passes(t, [][]string{nil})
		if obs.Told(7)["master"] == "" || obs.Told(8)["master"] == "" {
			t.Error("they are not served")
		}
	})
}

// Patroni knows a primary some seconds before its Service leads to it.
func TestTheServiceOfThePrimary(t *testing.T) {
	t.Parallel()
	obs := leading(related(7, "db", orders()))
	ready := obs.Kube
	obs.Kube = state.Value(state.Kube{Domain: "cluster.local", Pods: []state.Pod{{Name: "db-0", IP: "10.0.0.1"}}})
	waiting := []string{"later", "waiting: " + state.MessageEndpoint}
	obs.Passes(t, [][]string{append([]string{"record 7: pending"}, waiting...), waiting, {"commit"}, {"look at 7"}, waiting})
	obs.Kube = state.Value(state.Kube{Domain: "cluster.local", Pods: []state.Pod{
		{Name: "db-0", IP: "10.0.0.1", Ready: true, ReadySince: obs.Now.Add(-2 * time.Second)},
	}})
	obs.Passes(t, [][]string{waiting})
	obs.Now = obs.Now.Add(time.Second)
	obs.ServeAll(t)
	if obs.Told(7)["master"] == "" {
		t.Error("when it is ready, the client is told nothing")
	}
	obs.Kube = ready
	t.Run("while this unit's own member is down", func(t *testing.T) {
		t.Parallel()
		obs := leading(related(7, "db", orders()))
		kube, _ := obs.Kube.Get()
		kube.Endpoints = map[string]state.Endpoints{obs.Unit.Scope(): {Leader: "db-1"}}
		obs.Kube, obs.Cluster = state.Value(kube), state.Unknown[state.Cluster]("away")
		obs.ServeAll(t)
		if obs.Told(7)["master"] == "" {
			t.Error("the client is told nothing")
		}
	})
	// Later on, what was told stays true, and news have their way.
	obs.Kube = state.Value(state.Kube{Domain: "cluster.local", Pods: []state.Pod{{Name: "db-0", IP: "10.0.0.1"}}})
	r, _ := obs.Relations.ByID(7)
	r.Units = nil
	obs.Relations.Replace(r)
	obs.Touch(7)
	obs.ServeAll(t)
	obs.Passes(t, [][]string{nil})
	if got := obs.Told(7); got["allowed-units"] != "" || got["master"] == "" {
		t.Errorf("it is told %q", got)
	}
}

func TestABrokenRelation(t *testing.T) {
	t.Parallel()
	obs := leading(related(7, "db", orders()), related(8, "db-admin", orders()))
	obs.ServeAll(t)
	catalog, _ := obs.Database.Get()
	if create := catalog.Databases["orders"].Create; !slices.Equal(create, []string{"orders", "relation_id_7", "relation_id_8"}) {
		t.Errorf("in the database work %q", create)
	}
	delete(obs.Relations, "db")
	obs.Passes(t, [][]string{{"no role relation_id_7"}, {"forget 7"}, nil, {"commit"}, nil})
	if create := catalog.Databases["orders"].Create; !slices.Equal(create, []string{"orders", "relation_id_8"}) {
		t.Errorf("after one is gone there work %q", create)
	}
}

func TestWithoutFactsNothingIsTold(t *testing.T) {
	t.Parallel()
	for name, change := range map[string]func(*world){
		"no primary": func(w *world) { w.Cluster = state.Value(state.Cluster{}) },
		"no catalog": func(w *world) { w.Database = state.Unknown[state.Catalog]("away") },
		"no pods":    func(w *world) { w.Kube = state.Unknown[state.Kube]("away") },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			obs := leading(related(7, "db", orders()))
			facts := obs.Observed
			change(obs)
			obs.Passes(t, [][]string{{"record 7: pending"}, nil, {"commit"}, nil})
			obs.Cluster, obs.Kube, obs.Database = facts.Cluster, facts.Kube, facts.Database
			obs.Passes(t, [][]string{{"look at 7"}})
			obs.ServeAll(t)
			told := maps.Clone(obs.Told(7))
			change(obs)
			obs.Touch(7)
			obs.ServeAll(t)
			if got := obs.Told(7); told["master"] == "" || !maps.Equal(got, told) {
				t.Errorf("it is told %q, after %q", got, told)
			}
		})
	}
}

func TestConninfo(t *testing.T) {
	t.Parallel()
	for want, values := range map[string]map[string]string{
		"":                        nil,
		"a=1 b=x":                 {"b": "x", "a": "1"},
		"dbname='my orders' x=y":  {"dbname": "my orders", "x": "y"},
		`a=it\'s b=back\\slash`:   {"a": "it's", "b": `back\slash`},
		`a='it\'s a back\\slash'`: {"a": `it's a back\slash`},
		"dbname=größe/a?b#%=&@":   {"dbname": "größe/a?b#%=&@"},
	} {
		if got := conninfo(values); got != want {
			t.Errorf("it is %s, want %s", got, want)
		}
	}
}
