package database

import (
	"encoding/json"
	"fmt"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"charmhub.io/postgresql-k8s/charm/state"
)

func TestParse(t *testing.T) {
	t.Parallel()
	type bag = map[string]string
	one := func(r Request) Requests { return Requests{List: []Request{r}} }
	v1 := func(list ...Request) Requests { return Requests{V1: true, List: list} }
	v1Bag := func(requests string) bag { return bag{"version": "v1", "requests": requests} }
	many := func(n int) string {
		var items []string
		for i := range n {
			items = append(items, fmt.Sprintf(`{"request-id":"%04x","resource":"a"}`, i))
		}
		return "[" + strings.Join(items, ",") + "]"
	}
	tests := []struct {
		name   string
		remote bag
		want   Requests
	}{
		{"nobody has written yet", nil, Requests{}},
		{"an empty database asks for nothing", bag{"database": "", "extra-user-roles": "admin"}, Requests{}},
		{"other keys ask for nothing", bag{"alias": "x", "provided-secrets": `["mtls-cert"]`}, Requests{}},
		{"a database in plain text", bag{"database": "orders"}, one(Request{Database: "orders"})},
		{"a database with secrets", bag{"database": "orders", "requested-secrets": `["username","password","tls","tls-ca","uris"]`},
			one(Request{Database: "orders", Secret: []string{"username", "password", "tls", "tls-ca", "uris"}})},
		{"the name is kept byte for byte", bag{"database": " Orders é "}, one(Request{Database: " Orders é "})},
		{"requested secrets may be null", bag{"database": "orders", "requested-secrets": "null"}, one(Request{Database: "orders"})},
		{"requested secrets that are not JSON are refused", bag{"database": "orders", "requested-secrets": "username"},
			Requests{Refused: state.MessageInvalidRequest}},
		{"requested secrets that are no list are refused", bag{"database": "orders", "requested-secrets": `{"username":1}`},
			Requests{Refused: state.MessageInvalidRequest}},
		{"what is wrong beside no request does not matter", bag{"requested-secrets": "username"}, Requests{}},
		{"roles", bag{"database": "orders", "extra-user-roles": "CREATEDB, admin"}, one(Request{Database: "orders", Roles: []string{"admin", "createdb"}})},
		{"roles that nobody may have", bag{"database": "orders", "extra-user-roles": "admin,operator"},
			one(Request{Database: "orders", Roles: []string{"admin", "operator"}, Refused: state.MessageInvalidRoles})},
		{"a name that no database may have", bag{"database": "template1"}, one(Request{Database: "template1", Refused: state.MessageInvalidDatabase})},
		{"an entity", bag{"database": "orders", "entity-type": "USER"},
			one(Request{Database: "orders", Unsupported: `entity-type "USER": this charm makes one user for each request`})},
		{"an entity type without end is shown in part", bag{"database": "orders", "entity-type": strings.Repeat("x", 99)},
			one(Request{Database: "orders", Unsupported: `entity-type "xxxxxxxxxxxxxxxxxxxx": this charm makes one user for each request`})},
		{"a prefix", bag{"database": "orders*"},
			one(Request{Database: "orders*", Unsupported: "a prefix of database names: this charm serves one database for each request"})},
		{"what other features need does not matter", bag{"database": "orders", "external-node-connectivity": "true", "entity-permissions": "x", "extra-group-roles": "y"},
			one(Request{Database: "orders"})},
		{"a value without end is refused", bag{"database": "orders", "alias": strings.Repeat("x", maxText)}, Requests{Refused: state.MessageInvalidRequest}},
		{"so is one that version 1 would read", bag{"database": "orders", "requests": strings.Repeat("x", maxText)}, Requests{Refused: state.MessageInvalidRequest}},
		{"and a key without end", bag{"database": "orders", strings.Repeat("x", maxText): "x"}, Requests{Refused: state.MessageInvalidRequest}},
		{"and what has no end when it is written back", bag{"database": "orders", "alias": strings.Repeat("\x01", maxText/4)}, Requests{Refused: state.MessageInvalidRequest}},
		{"a value that just fits is not", bag{"database": "orders", "alias": strings.Repeat("<", maxText-100)}, one(Request{Database: "orders"})},
		{"the library's own notes may be long", bag{"database": "orders", "data": strings.Repeat("x", maxText)}, one(Request{Database: "orders"})},
		{"another version is version 0", bag{"version": "v2", "database": "orders"}, one(Request{Database: "orders"})},

		{"version 1 without requests yet", bag{"version": "v1"}, v1()},
		{"version 1 does not look at the keys of version 0", bag{"version": "v1", "database": "orders", "requests": "[]"}, v1()},
		{"two requests", v1Bag(`[{"request-id":"00aa","resource":"a","salt":"s"},{"request-id":"00BB","resource":"b"}]`),
			v1(Request{ID: "00aa", Database: "a", Raw: map[string]any{"request-id": "00aa", "resource": "a", "salt": "s"}},
				Request{ID: "00BB", Database: "b", Raw: map[string]any{"request-id": "00BB", "resource": "b"}})},
		{"the alias of the resource", v1Bag(`[{"request-id":"00aa","database":"a"}]`),
			v1(Request{ID: "00aa", Database: "a", Raw: map[string]any{"request-id": "00aa", "database": "a"}})},
		{"nulls are left out", v1Bag(`[{"request-id":"00aa","resource":"a","entity-type":null,"extra-user-roles":null}]`),
			v1(Request{ID: "00aa", Database: "a", Raw: map[string]any{"request-id": "00aa", "resource": "a"}})},
		{"what we do not know is kept", v1Bag(`[{"request-id":"00aa","resource":"a","new":{"x":[1]},"external-node-connectivity":true}]`),
			v1(Request{ID: "00aa", Database: "a", Raw: map[string]any{
				"request-id": "00aa", "resource": "a", "new": map[string]any{"x": []any{1.0}}, "external-node-connectivity": true}})},
		{"a request without a resource is none yet", v1Bag(`[{"request-id":"00aa"},{"request-id":"00bb","resource":null}]`), v1()},
		{"one bad request does not spoil the other",
			v1Bag(`[{"request-id":"00aa","resource":"a\"b"},{"request-id":"00bb","resource":"b","extra-user-roles":"root"},{"request-id":"00cc","resource":"c"}]`),
			v1(Request{ID: "00aa", Database: `a"b`, Refused: state.MessageInvalidDatabase, Raw: map[string]any{"request-id": "00aa", "resource": `a"b`}},
				Request{ID: "00bb", Database: "b", Roles: []string{"root"}, Refused: state.MessageInvalidRoles,
					Raw: map[string]any{"request-id": "00bb", "resource": "b", "extra-user-roles": "root"}},
				Request{ID: "00cc", Database: "c", Raw: map[string]any{"request-id": "00cc", "resource": "c"}})},
		{"an entity in version 1", v1Bag(`[{"request-id":"00aa","resource":"a","entity-type":"GROUP"}]`),
			v1(Request{ID: "00aa", Database: "a", Unsupported: `entity-type "GROUP": this charm makes one user for each request`,
				Raw: map[string]any{"request-id": "00aa", "resource": "a", "entity-type": "GROUP"}})},
	}
	for name, requests := range map[string]string{
		"requests that are not JSON":        "orders",
		"requests that are no list":         `{"request-id":"00aa","resource":"a"}`,
		"a request that is no object":       `["orders"]`,
		"a request that is null":            `[null]`,
		"a request without an id":           `[{"resource":"a"}]`,
		"an id that is a number":            `[{"request-id":1,"resource":"a"}]`,
		"an id with an underscore":          `[{"request-id":"00_aa","resource":"a"}]`,
		"an id with a quote":                `[{"request-id":"00\"aa","resource":"a"}]`,
		"an id with a line break":           `[{"request-id":"00aa\n","resource":"a"}]`,
		"an id of 33 characters":            `[{"request-id":"` + strings.Repeat("a", 33) + `","resource":"a"}]`,
		"two requests of the same id":       `[{"request-id":"00aa","resource":"a"},{"request-id":"00aa","resource":"b"}]`,
		"more requests than anybody needs":  many(maxRequests + 1),
		"more text than anybody needs":      strings.Repeat(" ", maxText) + "[]",
		"more roles than there are":         `[{"request-id":"00aa","resource":"a","extra-user-roles":"` + manyRoles(500<<10) + `"}]`,
		"what has no end when written back": `[{"request-id":"00aa","resource":"a","x":[` + strings.Repeat("1e20,", maxText/10) + `1]}]`,
	} {
		tests = append(tests, struct {
			name   string
			remote bag
			want   Requests
		}{name, v1Bag(requests), Requests{V1: true, Refused: state.MessageInvalidRequest}})
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			got := Parse(test.remote)
			if got.Refused == "" && len(got.List) > 0 && !json.Valid([]byte(got.Handled)) {
				t.Errorf("what is handled is %.99q", got.Handled)
			}
			got.Handled = ""
			if !reflect.DeepEqual(got, test.want) {
				t.Errorf("it is %+v, want %+v", got, test.want)
			}
		})
	}
	if got := Parse(v1Bag(many(maxRequests))); got.Refused != "" || len(got.List) != maxRequests {
		t.Errorf("of %d requests %d were read: %s", maxRequests, len(got.List), got.Refused)
	}
}

// manyRoles is a comma list of that many bytes in which no role is named twice.
func manyRoles(size int) string {
	var list strings.Builder
	for i := 0; list.Len() < size; i++ {
		fmt.Fprintf(&list, "%x,", i)
	}
	return list.String()
}

func TestManyRoles(t *testing.T) {
	t.Parallel()
	for _, remote := range []map[string]string{
		{"database": "orders", "extra-user-roles": manyRoles(maxText - 100)},
		{"version": "v1", "requests": `[{"request-id":"00aa","resource":"orders","extra-user-roles":"` + manyRoles(maxText-200) + `"}]`},
	} {
		start := time.Now()
		got := Parse(remote)
		if took := time.Since(start); took > time.Second {
			t.Errorf("it took %s", took)
		}
		if len(got.List) != 1 || got.List[0].Refused != state.MessageInvalidRoles {
			t.Errorf("of %d requests: %q", len(got.List), got.Refused)
		}
	}
}

func TestRoles(t *testing.T) {
	t.Parallel()
	for list, want := range map[string][]string{
		"": nil, ",": nil, " , ": nil, "admin": {"admin"}, "ADMIN": {"admin"}, " createdb ,\tadmin\n": {"admin", "createdb"},
		"admin,Admin,admin": {"admin"}, "a b": {"a b"}, "x;y": {"x;y"},
	} {
		if got := roles(list); !slices.Equal(got, want) {
			t.Errorf("the roles of %q are %q, want %q", list, got, want)
		}
	}
}

func TestAllowed(t *testing.T) {
	t.Parallel()
	for role, want := range map[string]bool{
		"admin": true, "createdb": true, "createrole": true, "superuser": true, "pg_monitor": true, "pg_read_all_data": true,
		"pg_execute_server_program": false, "pg_read_server_files": false, "pg_write_server_files": false, "pg_database_owner": false,
		"pg_use_reserved_connections": false, "pg_create_subscription": false, "operator": false, "backup": false, "replication": false, "monitoring": false,
		"relation_access": false, "relation_any_database": false, "relation_id_1": false, "bypassrls": false, "": false, "pg_": false,
	} {
		if got := allowed([]string{"createdb", role}); got != want {
			t.Errorf("that %q may be asked for is %t", role, got)
		}
	}
	if !allowed(nil) {
		t.Error("no roles are not allowed")
	}
}
