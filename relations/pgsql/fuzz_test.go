package pgsql

import (
	"maps"
	"reflect"
	"slices"
	"strings"
	"testing"
	"unicode/utf8"

	"charmhub.io/postgresql-k8s/charm/config"
	"charmhub.io/postgresql-k8s/charm/state"
	"charmhub.io/postgresql-k8s/relations/clients"
)

// seeds adds databags of applications, and of some that mean no good.
func seeds(f *testing.F) {
	for _, s := range [][6]string{ // database, extensions, roles, the unit's database, egress-subnets, something else
		{"orders", "", "", "orders", "10.0.0.1/32", ""},
		{"", "", "", "old", "10.0.0.1/32,fd00::/8", "x"},
		{"größe/a b%?#", "", "", "", "", ""},
		{"orders", "citext:public,some_thing", "", "orders", "10.0.0.1/32", ""},
		{"orders", "", "admin,superuser", "", "", ""},
		{`x"; DROP DATABASE orders; --`, `"; --`, "", "'", "0.0.0.0/0\nhost all all all trust", "\x00"},
		{"it's host=evil password=x", "", "", "a\\", "all", ""},
		{"relation_id_8", ",,", " ", "other", ",", ""},
	} {
		f.Add(s[0], s[1], s[2], s[3], s[4], "alias", s[5])
	}
}

// bags are what a fuzzer's application and its unit have written. Juju keeps no
// empty values.
func bags(database, extensions, roles, ofUnit, subnets, key, value string) (app, unit map[string]string) {
	app = map[string]string{key: value}
	maps.Copy(app, map[string]string{"database": database, "extensions": extensions, "roles": roles})
	unit = map[string]string{key: value, "database": ofUnit, "egress-subnets": subnets}
	for _, bag := range []map[string]string{app, unit} {
		maps.DeleteFunc(bag, func(_, value string) bool { return value == "" })
	}
	return app, unit
}

func FuzzParse(f *testing.F) {
	seeds(f)
	f.Fuzz(func(t *testing.T, database, extensions, roles, ofUnit, subnets, key, value string) {
		app, unit := bags(database, extensions, roles, ofUnit, subnets, key, value)
		units := map[string]map[string]string{"app/0": unit}
		r := Parse(app, units, config.Parse(nil))
		if again := Parse(app, units, config.Parse(nil)); !reflect.DeepEqual(r, again) {
			t.Fatalf("it is %+v, and then %+v", r, again)
		}
		if r.Refused != "" {
			return
		}
		if r.Database != "" && (!clients.ValidName(r.Database) || !utf8.ValidString(r.Database) || r.Database != app["database"] && r.Database != unit["database"]) {
			t.Errorf("the name %q is accepted", r.Database)
		}
		if len(list(r.Extensions)) > 0 {
			t.Errorf("the extensions %q are accepted", r.Extensions)
		}
		for _, subnet := range r.Subnets {
			if !strings.Contains(subnet, "/") || strings.ContainsAny(subnet, "\n\r\t ,'\"") {
				t.Errorf("the network %q is accepted", subnet)
			}
		}
	})
}

// FuzzReply serves the application, in a world that has another one, and looks
// at what it is told.
func FuzzReply(f *testing.F) {
	seeds(f)
	f.Fuzz(func(t *testing.T, database, extensions, roles, ofUnit, subnets, key, value string) {
		app, unit := bags(database, extensions, roles, ofUnit, subnets, key, value)
		relation := related(7, "db", app)
		relation.Units = map[string]map[string]string{"app/0": unit}
		obs := leading(relation, related(8, "db-admin", orders()))
		obs.ServeAll(t)
		request := Parse(app, relation.Units, obs.Config)
		told, _ := obs.Relations.ByID(7)
		served := request.Refused == "" && request.Database != ""
		if !served && len(told.LocalApp)+len(told.LocalUnit) > 0 {
			t.Errorf("an application that is not served is told %q", told.LocalApp)
		}
		if served {
			if !maps.Equal(told.LocalApp, told.LocalUnit) {
				t.Errorf("it is told %q and %q", told.LocalApp, told.LocalUnit)
			}
			checkReply(t, obs, request, told.LocalApp)
		}
		if obs.Told(8)["master"] == "" {
			t.Error("another application is not served")
		}
		// A second look makes no difference.
		before := obs.Print()
		obs.Touch(7)
		if obs.ServeAll(t); obs.Print() != before {
			t.Errorf("it is\n%s\nand was\n%s", obs.Print(), before)
		}
		// And when it goes, nothing stays but the data.
		delete(obs.Relations, "db")
		obs.ServeAll(t)
		catalog, _ := obs.Database.Get()
		if _, stays := catalog.Roles["relation_id_7"]; stays || len(obs.Clients) != 1 || len(obs.Saved) > 0 {
			t.Errorf("the user stays: %t; the record is %v", stays, obs.Clients)
		}
	})
}

// checkReply reads the connection strings as libpq does.
func checkReply(t *testing.T, obs *world, request Request, told map[string]string) {
	t.Helper()
	for _, key := range []string{"master", "standbys"} {
		got := parseConninfo(t, told[key])
		want := map[string]string{
			"dbname": request.Database, "fallback_application_name": "app", "host": primary,
			"password": told["password"], "port": "5432", "user": "relation_id_7",
		}
		if !maps.Equal(got, want) {
			t.Errorf("%s is %s, which says %q", key, told[key], got)
		}
	}
	if told["database"] != request.Database || told["extensions"] != request.Extensions {
		t.Errorf("it is told of %q and %q", told["database"], told["extensions"])
	}
	if !slices.Contains(strings.Fields(told["allowed-units"]), "app/0") {
		t.Errorf("the allowed units are %q", told["allowed-units"])
	}
	catalog, _ := obs.Database.Get()
	if role := catalog.Roles["relation_id_7"]; !role.Login || role.Superuser || !role.HasPassword(state.Redacted(told["password"])) {
		t.Error("the user cannot log in, or is a superuser")
	}
}

// parseConninfo is the grammar of
// https://www.postgresql.org/docs/17/libpq-connect.html#LIBPQ-CONNSTRING-KEYWORD-VALUE.
func parseConninfo(t *testing.T, text string) map[string]string {
	t.Helper()
	values := map[string]string{}
	for rest := strings.TrimLeft(text, " "); rest != ""; rest = strings.TrimLeft(rest, " ") {
		key, after, ok := strings.Cut(rest, "=")
		if !ok {
			t.Fatalf("%q has no value", rest)
		}
		quoted := strings.HasPrefix(after, "'")
		after = strings.TrimPrefix(after, "'")
		var value strings.Builder
		i := 0
		for ; i < len(after); i++ {
			if quoted && after[i] == '\'' || !quoted && after[i] == ' ' {
				break
			}
			if after[i] == '\\' {
				i++
			}
			value.WriteByte(after[i])
		}
		values[key], rest = value.String(), after[min(i+1, len(after)):]
	}
	return values
}
