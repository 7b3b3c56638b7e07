package clients_test

import (
	"slices"
	"strings"
	"testing"

	"charmhub.io/postgresql-k8s/charm/state"
	"charmhub.io/postgresql-k8s/relations/clients"
)

func TestAccess(t *testing.T) {
	t.Parallel()
	tests := []struct {
		roles                          []string
		superuser, createDB, createAny bool
		memberOf                       []string
		act                            bool
	}{
		{nil, false, false, false, []string{"relation_access", "orders"}, true},
		{[]string{"admin"}, false, true, false, []string{"relation_access", "orders", "admin", "relation_any_database"}, false},
		{[]string{"createdb"}, false, true, false, []string{"relation_access", "orders", "relation_any_database"}, false},
		{[]string{"createrole"}, false, false, true, []string{"relation_access", "orders"}, false},
		{[]string{"superuser"}, true, false, false, []string{"relation_access", "orders", "relation_any_database"}, false},
		// Acting as the owner role would lose what the user is a member of.
		{[]string{"pg_monitor", "pg_read_all_data"}, false, false, false, []string{"relation_access", "orders", "pg_monitor", "pg_read_all_data"}, false},
	}
	for _, test := range tests {
		t.Run(strings.Join(test.roles, ","), func(t *testing.T) {
			t.Parallel()
			role, database := clients.Access("user", "secret", "orders", test.roles)
			if role.Superuser != test.superuser || role.CreateDB != test.createDB || role.CreateRole != test.createAny ||
				!slices.Equal(role.MemberOf, test.memberOf) || !role.Login || role.Name != "user" || role.Password != "secret" {
				t.Errorf("the role is %+v", role)
			}
			if database.Name != "orders" || database.Owner != "orders" || !slices.Equal(database.Users, []state.DatabaseUser{{Role: "user", Act: test.act}}) {
				t.Errorf("the database is %+v", database)
			}
		})
	}
}

func TestValidName(t *testing.T) {
	t.Parallel()
	tests := []struct {
		name  string
		names []string
		want  bool
	}{
		{"plain", []string{"orders", "a", "Orders", "my-app_2", "with space", "a.b", "a/b", "1", "123", "true", "null"}, true},
		{"of any script", []string{"größe", "заказы", "注文", "🐘"}, true},
		{"SQL words are quoted", []string{"select", "user", "all", "samerole", "--"}, true},
		{"as long as a name may be", []string{strings.Repeat("x", 63), strings.Repeat("é", 31) + "x"}, true},
		{"a byte more", []string{strings.Repeat("x", 64), strings.Repeat("é", 32)}, false},
		{"empty", []string{""}, false},
		{"quotes", []string{`a"b`, "a'b", "a`b", `"`}, false},
		{"what ends or begins something", []string{"a;b", `a\b`, "a$b", "$$"}, false},
		{"what nobody sees", []string{"a\nb", "a\tb", "a\x00b", "a\x7f", "a\u200bb", "a\u00a0b", "\ufeffa", "a\u202eb", "\r"}, false},
		{"not UTF-8", []string{"a\xff", "\xc3\x28", string([]byte{0xed, 0xa0, 0x80})}, false},
		{"PostgreSQL's own", []string{"postgres", "template0", "template1", "Template1", "pg_x", "PG_X", "pg_", "none", "public", "PUBLIC"}, false},
		{"the charm's own", []string{"operator", "backup", "replication", "rewind", "monitoring", "Operator", "admin", "ADMIN",
			"relation_access", "relation_any_database", "relation_id_7", "RELATION_ID_7", "relation_id_"}, false},
		{"later releases' own", []string{"charmed_", "charmed_admin", "Charmed_x", "internal_access", "identity_access"}, false},
		{"like one of those, but another", []string{"postgres1", "templates", "pgx", "relation", "relation-id-7", "operators", "xpg_", "charmed"}, true},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			for _, name := range test.names {
				if got := clients.ValidName(name); got != test.want {
					t.Errorf("that %q is valid is %t", name, got)
				}
			}
		})
	}
}
