package database

import (
	"encoding/json"
	"maps"
	"net/url"
	"reflect"
	"slices"
	"strings"
	"testing"
	"unicode/utf8"

	"charmhub.io/postgresql-k8s/charm/state"
	"charmhub.io/postgresql-k8s/relations/clients"
)

// seeds adds databags of applications, and of some that mean no good.
func seeds(f *testing.F) {
	for _, s := range [][7]string{ // version, database, extra-user-roles, requested-secrets, entity-type, requests, something else
		{"", "orders", "", "", "", "", ""},
		{"", "orders", "admin,CREATEDB", secrets, "", "", ""},
		{"", "größe/a b%?#", "pg_monitor", `["username"]`, "", "", "x"},
		{"", "orders*", "", secrets, "", "", ""},
		{"", "orders", "", `["secret-user"]`, "GROUP", "", ""},
		{"", `x"; DROP DATABASE orders; --`, "operator", "not JSON", "", "", ""},
		{"", "relation_id_7", "", `[null]`, "", "", ""},
		{"v1", "", "", "", "", twoRequests()["requests"], ""},
		{"v1", "", "", "", "", `[{"request-id":"a","resource":"b","salt":1,"x":{"y":[null,1e300,"\ud800"]}},{"request-id":"c","database":"d*"}]`, ""},
		{"v1", "", "", "", "", `[{"request-id":"a","resource":"b"},{"request-id":"a","resource":"b"}]`, ""},
		{"", "orders", "a,b,c,d,e,f,g,h,i,j,k,l,m,n,a,b,c", secrets, "", "<>&", "<>&"},
		{"", "orders", "", secrets, "", "", strings.Repeat("\x01\u2028", 1000)},
		{"v1", "", "", "", "", `[{"request-id":"a","resource":"b","salt":"<\u0001>","x":[1e20,1e-7]}]`, strings.Repeat("<", 1000)},
		{"v1", "orders", "", "", "", `[null,{}]`, ""},
		{"v1", "", "", "", "", `{"a":[[[[`, ""},
	} {
		f.Add(s[0], s[1], s[2], s[3], s[4], s[5], "alias", s[6])
	}
}

// databagOf is what a fuzzer's application has written. Juju keeps no empty
// values.
func databagOf(version, database, roles, secrets, entity, requests, key, value string) map[string]string {
	bag := map[string]string{key: value}
	maps.Copy(bag, map[string]string{
		"version": version, "database": database, "extra-user-roles": roles, "requested-secrets": secrets, "entity-type": entity, "requests": requests,
	})
	maps.DeleteFunc(bag, func(_, value string) bool { return value == "" })
	return bag
}

// accepted returns the requests that are to be served.
func accepted(all Requests) []Request {
	if all.Refused != "" {
		return nil
	}
	return slices.DeleteFunc(slices.Clone(all.List), func(r Request) bool { return r.Refused != "" || r.Unsupported != "" })
}

func FuzzParse(f *testing.F) {
	seeds(f)
	f.Fuzz(func(t *testing.T, version, database, roles, secrets, entity, requests, key, value string) {
		bag := databagOf(version, database, roles, secrets, entity, requests, key, value)
		all := Parse(bag)
		if again := Parse(bag); !reflect.DeepEqual(all, again) {
			t.Fatalf("it is %+v, and then %+v", all, again)
		}
		if all.V1 != (bag["version"] == "v1") && all.Refused == "" || len(all.List) > maxRequests || !all.V1 && len(all.List) > 1 {
			t.Fatalf("it is %+v", all)
		}
		if len(all.Handled) > maxText || all.Refused != "" && len(all.List) > 0 {
			t.Fatalf("%d bytes are to be written back, of %d requests: %q", len(all.Handled), len(all.List), all.Refused)
		}
		users := map[string]bool{}
		for _, r := range accepted(all) {
			if len(r.Roles) > len(clients.Grantable)+len(attributes) {
				t.Errorf("%d roles are accepted", len(r.Roles))
			}
			if r.Database == "" || len(r.Database) > 63 || !utf8.ValidString(r.Database) || strings.ContainsAny(r.Database, "\"'`;\\$\n\r\t\x00") ||
				strings.HasSuffix(r.Database, "*") || !all.V1 && r.Database != bag["database"] {
				t.Errorf("the name %q is accepted", r.Database)
			}
			lower := strings.ToLower(r.Database)
			for _, prefix := range []string{"pg_", "relation_id_", "charmed_"} {
				if strings.HasPrefix(lower, prefix) {
					t.Errorf("the name %q is accepted", r.Database)
				}
			}
			for _, name := range append([]string{"postgres", "template0", "template1", "admin", "relation_access", "relation_any_database"}, state.SystemUsers...) {
				if lower == name {
					t.Errorf("the name %q is accepted", r.Database)
				}
			}
			for _, role := range r.Roles {
				if !slices.Contains([]string{
					"admin", "createdb", "createrole", "superuser", "pg_checkpoint", "pg_maintain", "pg_monitor", "pg_read_all_data",
					"pg_read_all_settings", "pg_read_all_stats", "pg_signal_backend", "pg_stat_scan_tables", "pg_write_all_data",
				}, role) {
					t.Errorf("the role %q is accepted", role)
				}
			}
			// What is made must be found again when the relation is gone.
			user := clients.UserName(7, r.ID)
			if users[user] || len(user) > 63 || !isOf(7, user) {
				t.Errorf("the user of request %q is %q", r.ID, user)
			}
			users[user] = true
		}
	})
}

// FuzzReply serves the application, in a world that has another one, and looks
// at what it is told on the way.
func FuzzReply(f *testing.F) {
	seeds(f)
	f.Fuzz(func(t *testing.T, version, database, roles, secrets, entity, requests, key, value string) {
		if len(requests) > 4000 {
			return // many requests are many passes
		}
		bag := databagOf(version, database, roles, secrets, entity, requests, key, value)
		obs := leading(related(7, bag), related(8, orders("")))
		obs.WithReplica()
		obs.ServeAll(t)
		all, told := Parse(bag), obs.Told(7)
		served := accepted(all)
		size := 0
		for key, value := range told {
			size += len(key) + len(value)
		}
		if size > 4*maxText { // Juju takes 16 MiB
			t.Errorf("it is told %d bytes", size)
		}
		var list []struct{ Code int }
		if text := told["status"]; text != "" && (json.Unmarshal([]byte(text), &list) != nil || len(list) == 0) {
			t.Errorf("the status is %q", text)
		}
		switch {
		case len(served) == 0:
			if told["endpoints"] != "" || told["username"] != "" || told["secret-user"] != "" || told["requests"] != "" && told["requests"] != "[]" {
				t.Errorf("an application that is not served is told %q", told)
			}
		case all.V1:
			checkVersion1(t, obs, served)
		default:
			checkVersion0(t, obs, served[0], bag)
		}
		if obs.Told(8)["endpoints"] == "" {
			t.Error("another application is not served")
		}
		// A second look makes no difference.
		before := obs.Print()
		obs.Touch(7)
		if obs.ServeAll(t); obs.Print() != before {
			t.Errorf("it is\n%s\nand was\n%s", obs.Print(), before)
		}
		// And when it goes, nothing stays but the data.
		obs.Relations[state.DatabaseEndpoint] = obs.Relations[state.DatabaseEndpoint][1:]
		obs.ServeAll(t)
		catalog, _ := obs.Database.Get()
		for name := range catalog.Roles {
			if strings.HasPrefix(name, "relation_id_7") {
				t.Errorf("the role %q stays", name)
			}
		}
		if len(obs.Saved) > 0 || len(obs.Clients) != 1 {
			t.Errorf("what stays is %v and %v", slices.Collect(maps.Keys(obs.Saved)), obs.Clients)
		}
	})
}

func checkVersion0(t *testing.T, obs *world, r Request, bag map[string]string) {
	t.Helper()
	told := obs.Told(7)
	var mirror map[string]string
	if err := json.Unmarshal([]byte(told["data"]), &mirror); err != nil || len(mirror) > len(bag) || utf8.ValidString(bag["database"]) && mirror["database"] != bag["database"] {
		t.Errorf("data is %q", told["data"])
	}
	if told["database"] != r.Database {
		t.Errorf("the database is %q, and was to be %q", told["database"], r.Database)
	}
	checkCredentials(t, obs, r, told, false)
}

func checkVersion1(t *testing.T, obs *world, served []Request) {
	t.Helper()
	told := obs.Told(7)
	var responses []map[string]string
	var mirror map[string]map[string]any
	if json.Unmarshal([]byte(told["requests"]), &responses) != nil || json.Unmarshal([]byte(told["data"]), &mirror) != nil || told["version"] != "v1" {
		t.Fatalf("it is told %q", told)
	}
	if told["endpoints"]+told["username"]+told["database"] != "" || len(responses) != len(served) {
		t.Errorf("it is told %q", told)
	}
	for i, response := range responses {
		if _, ok := mirror[response["request-id"]]; !ok || response["request-id"] != served[i].ID || response["resource"] != served[i].Database {
			t.Errorf("the response is %q, of request %q", response, served[i].ID)
		}
		checkCredentials(t, obs, served[i], response, true)
	}
}

// checkCredentials looks whether a response is complete, and a library can read it.
func checkCredentials(t *testing.T, obs *world, r Request, response map[string]string, v1 bool) {
	t.Helper()
	reply := maps.Clone(response)
	for _, group := range []string{"user", "tls"} {
		uri := response["secret-"+group]
		if uri == "" {
			continue
		}
		if !slices.Contains(obs.Clients[7].Secrets, uri) {
			t.Errorf("the secret %s is not on record", uri)
		}
		for key, value := range obs.Saved[strings.TrimPrefix(uri, "secret://uuid/")].Content {
			if _, twice := reply[key]; twice || !v1 && !slices.Contains(r.Secret, key) {
				t.Errorf("%s is in secret %s", key, group)
			}
			reply[key] = value.Reveal()
		}
	}
	for _, key := range []string{"endpoints", "read-only-endpoints", "version", "username", "password", "uris", "tls"} {
		if reply[key] == "" {
			t.Errorf("there is no %s in %q", key, reply)
		}
		if _, clear := response[key]; clear && (v1 || slices.Contains(r.Secret, key)) && slices.Contains([]string{"username", "password", "uris"}, key) {
			t.Errorf("%s is in plain text", key)
		}
	}
	if strings.Count(reply["endpoints"], ":") != 1 || strings.Contains(reply["endpoints"], ",") {
		t.Errorf("the endpoints are %q", reply["endpoints"])
	}
	if want := map[bool]string{true: "false", false: "False"}[v1]; reply["tls"] != want {
		t.Errorf("tls is %q", reply["tls"])
	}
	for _, key := range []string{"uris", "read-only-uris"} {
		if key == "read-only-uris" && reply[key] == "" {
			continue
		}
		u, err := url.Parse(reply[key])
		if err != nil || u.Scheme != "postgresql" {
			t.Errorf("%s is %q: %v", key, reply[key], err)
			continue
		}
		password, _ := u.User.Password()
		if u.User.Username() != reply["username"] || password != reply["password"] || u.Path != "/"+r.Database || u.RawQuery != "" || u.Fragment != "" {
			t.Errorf("%s is %q for %q", key, reply[key], r.Database)
		}
	}
	catalog, _ := obs.Database.Get()
	if role := catalog.Roles[reply["username"]]; !role.Login || !role.HasPassword(state.Redacted(reply["password"])) {
		t.Errorf("%q cannot log in", reply["username"])
	}
}

// isOf tells whether a user is found to be the relation's.
func isOf(relation int, user string) bool {
	id, made := clients.RelationOf(state.Role{Name: user, MemberOf: []string{state.RelationAccess}})
	return made && id == relation
}
