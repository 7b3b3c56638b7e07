package postgres

import (
	"fmt"
	"reflect"
	"strings"
	"testing"

	"charmhub.io/postgresql-k8s/charm/state"
	"charmhub.io/postgresql-k8s/tests/golden"
)

// texts returns the steps as the log shows them.
func texts(steps []state.Step) []string {
	var out []string
	for _, s := range steps {
		out = append(out, s.String())
	}
	return out
}

func TestDiffRoles(t *testing.T) {
	t.Parallel()
	verifier, err := state.Verifier("right")
	if err != nil {
		t.Fatal(err)
	}
	have := map[string]state.Role{
		"user":     {Name: "user", Login: true, MemberOf: []string{"group", "more"}, Verifier: state.Redacted(verifier)},
		"group":    {Name: "group"},
		"operator": {Name: "operator", Login: true, Superuser: true},
	}
	user := func(change func(*state.Role)) []state.Role {
		r := state.Role{Name: "user", Login: true}
		change(&r)
		return []state.Role{r}
	}
	tests := []struct {
		name string
		want []state.Role
		text []string
	}{
		{"who is not mentioned stays", nil, nil},
		{"a role that is as wished needs nothing", []state.Role{{Name: "group"}}, nil},
		{"memberships beyond those wished stay", user(func(r *state.Role) { r.MemberOf = []string{"group"} }), nil},
		{"the right password needs nothing", user(func(r *state.Role) { r.Password = "right" }), nil},
		{"another password is set", user(func(r *state.Role) { r.Password = "wrong" }), []string{"set the password of role user"}},
		{"a missing membership is granted", user(func(r *state.Role) { r.MemberOf = []string{"group", "operator"} }), []string{"grant operator to user"}},
		{"an attribute that is missing is given", user(func(r *state.Role) { r.CreateDB = true }),
			[]string{"alter role user: LOGIN NOSUPERUSER CREATEDB NOCREATEROLE"}},
		{"an attribute too many is taken", []state.Role{{Name: "operator", Login: true}},
			[]string{"alter role operator: LOGIN NOSUPERUSER NOCREATEDB NOCREATEROLE"}},
		{"a new role is made with its memberships, then its password",
			[]state.Role{{Name: "new", Login: true, MemberOf: []string{"group"}, Password: "secret"}},
			[]string{"create role new", "set the password of role new"}},
		{"a role without a password gets none", []state.Role{{Name: "new"}}, []string{"create role new"}},
		{"who is wished away is dropped", []state.Role{{Name: "user", Absent: true}}, []string{"drop role user"}},
		{"who is away already is not", []state.Role{{Name: "nobody", Absent: true}}, nil},
		{"whom two wish for is made once", []state.Role{{Name: "new"}, {Name: "new"}}, []string{"create role new"}},
		{"steps are in the order of the wishes", []state.Role{{Name: "b"}, {Name: "a"}}, []string{"create role b", "create role a"}},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			if got := texts(DiffRoles(have, test.want)); !reflect.DeepEqual(got, test.text) {
				t.Errorf("the steps are %q, want %q", got, test.text)
			}
		})
	}
}

func TestDiffDatabases(t *testing.T) {
	t.Parallel()
	have := map[string]state.CatalogDatabase{
		"done":     {Owner: "operator", Create: []string{"done", "user"}},
		"bare":     {Owner: "operator"},
		"prepared": {Owner: "operator", Create: []string{"prepared"}},
	}
	wish := func(name string, users ...string) state.Database {
		db := state.Database{Name: name, Owner: name}
		for _, u := range users {
			db.Users = append(db.Users, state.DatabaseUser{Role: u, Act: true})
		}
		return db
	}
	tests := []struct {
		name string
		want []state.Database
		text []string
	}{
		{"who is not mentioned stays", nil, nil},
		{"a database with its user needs nothing", []state.Database{wish("done", "user")}, nil},
		{"a new database is made, prepared and opened", []state.Database{wish("new", "user")},
			[]string{"create database new", "prepare database new", "admit user to database new"}},
		{"one that was only made is prepared", []state.Database{wish("bare")}, []string{"prepare database bare"}},
		{"one that was only prepared is opened", []state.Database{wish("prepared", "user")}, []string{"admit user to database prepared"}},
		{"another user is admitted, too", []state.Database{wish("done", "user", "other")}, []string{"admit other to database done"}},
		{"two wishes for a new database make it once", []state.Database{wish("new", "one"), wish("new", "two")},
			[]string{"create database new", "prepare database new", "admit one to database new", "admit two to database new"}},
		{"two wishes for a bare database prepare it once", []state.Database{wish("bare", "one"), wish("bare", "two")},
			[]string{"prepare database bare", "admit one to database bare", "admit two to database bare"}},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			if got := texts(DiffDatabases(have, test.want)); !reflect.DeepEqual(got, test.text) {
				t.Errorf("the steps are %q, want %q", got, test.text)
			}
		})
	}
}

// The names in the golden file are such as no client gets: the quoting must be
// right all the same.
func TestStatements(t *testing.T) {
	t.Parallel()
	const role, name = `us"er'; --`, `o'brien's "db"; $1 %s \`
	db := state.Database{Name: name, Owner: name}
	steps := []state.Step{
		CreateRole{state.Role{Name: role}},
		CreateRole{state.Role{Name: role, Login: true, Superuser: true, CreateDB: true, CreateRole: true, MemberOf: []string{"group", `"`}, Password: "never shown"}},
		AlterRole{state.Role{Name: role, Login: true}},
		GrantRole{`gr"oup`, role},
		CreateDatabase{db},
		PrepareDatabase{db},
		AdmitUser{db, state.DatabaseUser{Role: role, Act: true}},
		AdmitUser{db, state.DatabaseUser{Role: role}},
	}
	var out strings.Builder
	for _, step := range steps {
		database, text := step.(statement).sql()
		fmt.Fprintf(&out, "-- %s\n-- in database %s:\n%s;\n\n", step, database, strings.TrimSuffix(strings.TrimSpace(text), ";"))
	}
	fmt.Fprintf(&out, "-- before the objects of a role go to the owner role:\n%s", strings.TrimSpace(superusersSQL(role))+"\n")
	golden.Equal(t, "statements.sql", out.String())
	if strings.Contains(out.String(), "never shown") {
		t.Error("a password is shown")
	}
}

func TestQuoting(t *testing.T) {
	t.Parallel()
	for text, want := range map[string][2]string{
		"plain": {`"plain"`, `'plain'`}, `a"b`: {`"a""b"`, `'a"b'`}, "a'b": {`"a'b"`, `'a''b'`}, "": {`""`, `''`},
		`\`: {`"\"`, `'\'`}, "line\n": {"\"line\n\"", "'line\n'"}, `'; DROP ROLE operator; --`: {`"'; DROP ROLE operator; --"`, `'''; DROP ROLE operator; --'`},
	} {
		if got := [2]string{quote(text), literal(text)}; got != want {
			t.Errorf("%q is quoted %q, want %q", text, got, want)
		}
	}
}

func TestPostgresIsTheFirstDatabase(t *testing.T) {
	t.Parallel()
	for _, test := range []struct {
		a, b string
		want int
	}{{"postgres", "a", -1}, {"a", "postgres", 1}, {"postgres", "postgres", 0}, {"a", "b", -1}, {"b", "a", 1}} {
		if got := postgresFirst(test.a, test.b); got != test.want {
			t.Errorf("%s before %s is %d, want %d", test.a, test.b, got, test.want)
		}
	}
}
