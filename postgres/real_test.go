package postgres

import (
	"fmt"
	"maps"
	"os"
	"slices"
	"strconv"
	"strings"
	"testing"
)

// TestRealServer shows that the statements do on a real server what they are
// for. The parts share the server, and have relations and databases of their own.
func TestRealServer(t *testing.T) {
	t.Parallel()
	w := newServer(t)
	w.settle(t)
	for _, part := range []struct {
		name string
		test func(*testing.T, *world)
	}{
		{"system users", systemUsers},
		{"a user acts as the owner role", actsAsOwner},
		{"databases are as in the tutorial", likeTheTutorial},
		{"a user may connect to its database and to postgres", ownDatabaseOnly},
		{"a user has no other powers", noOtherPowers},
		{"what one user made is the next one's", nextUser},
		{"two applications share a database", twoApplications},
		{"dropping a role ends its sessions", endsSessions},
		{"dropping a role keeps what it owns in several databases", severalDatabases},
		{"dropping a superuser", superusersLegacy},
		{"applications of the legacy interface", legacyClients},
		{"dropping a role that made roles", subordinates},
		{"what the operator and former users own is adopted", adoption},
		{"a client of before, with all it had", clientOfBefore},
		{"the client dropped the schema public", withoutPublic},
		{"extra roles", extraRoles},
		{"another password", anotherPassword},
		{"names that need quotes", strangeNames},
		{"a connection that breaks before each statement", func(t *testing.T, w *world) { breaks(t, w, 90, "fragile", false) }},
		{"a connection that breaks after each statement", func(t *testing.T, w *world) { breaks(t, w, 91, "brittle", true) }},
	} {
		t.Run(part.name, func(t *testing.T) {
			w.relations = map[int]*client{}
			part.test(t, w)
			w.relations = map[int]*client{}
			w.settle(t)
			expect(t, w.operator(t, "postgres"), "SELECT rolname FROM pg_roles WHERE rolname ~ '^relation_id_'")
		})
	}
	if shown := w.secrets(t); len(shown) > 0 {
		t.Errorf("the server's log shows %q", shown)
	}
}

func systemUsers(t *testing.T, w *world) {
	c := w.operator(t, "postgres")
	expect(t, c, "SELECT rolname FROM pg_roles WHERE rolname !~ '^pg_' AND rolcanlogin ORDER BY 1", "backup", "monitoring", "operator")
	expect(t, c, "SELECT rolname FROM pg_roles WHERE rolname !~ '^pg_' AND NOT rolcanlogin ORDER BY 1", "admin", "relation_access", "relation_any_database")
	expect(t, c, "SELECT rolname FROM pg_roles WHERE rolsuper ORDER BY 1", "backup", "operator")
	monitoring, err := w.as(t, "monitoring", monitoringPassword, "postgres")
	check(t, err)
	expect(t, monitoring, "SELECT pg_has_role('pg_monitor', 'usage')::text", "true")
	w.noLogin(t, "monitoring", "wrong", "postgres", "password authentication failed")
	w.noLogin(t, "backup", "", "postgres", "password authentication failed")

	socket := func(user string) (string, error) {
		out, err := w.command(t, "psql", "--no-psqlrc", "--no-password", "-h", w.dir, "-p", strconv.Itoa(w.port),
			"-U", user, "-d", "postgres", "-Atc", "SELECT current_user").CombinedOutput()
		return strings.TrimSpace(string(out)), err
	}
	if out, err := socket("operator"); err == nil {
		t.Errorf("on the socket the operator needs no password: %s", out)
	}
	if out, err := socket("backup"); os.Getuid() == 0 && (err != nil || out != "backup") {
		t.Errorf("on the socket the user postgres is not the backup user: %s", out)
	}
}

func actsAsOwner(t *testing.T, w *world) {
	w.relate(1, "first", "")
	w.settle(t)
	c := w.login(t, 1)
	expect(t, c, "SELECT session_user || ' ' || current_user", "relation_id_1 first")
	do(t, c, "CREATE TABLE a (b int)", "CREATE SCHEMA s", "CREATE TABLE s.a (b int)", "SELECT lo_create(0)", "CREATE EXTENSION citext")
	expect(t, c, "SELECT DISTINCT tableowner::text FROM pg_tables WHERE schemaname !~ '^(pg_|information)'", "first")
	expect(t, c, "SELECT lomowner::regrole::text FROM pg_largeobject_metadata", "first")
	expect(t, c, "SELECT extowner::regrole::text FROM pg_extension WHERE extname = 'citext'", "first")
	w.noLogin(t, "first", "", "first", "password authentication failed")
	w.noLogin(t, userOf(1), "wrong", "first", "password authentication failed")
}

func likeTheTutorial(t *testing.T, w *world) {
	w.relate(1, "first", "")
	w.settle(t)
	c := w.operator(t, "first")
	expect(t, c, "SELECT unnest(datacl)::text FROM pg_database WHERE datname = 'first'",
		"=Tc/operator", "operator=CTc/operator", "first=CTc/operator", "relation_id_1=CTc/operator")
	expect(t, c, "SELECT concat_ws(' ', pg_get_userbyid(datdba), pg_encoding_to_char(encoding), datcollate, datctype) FROM pg_database WHERE datname = 'first'",
		"operator UTF8 C.UTF-8 C.UTF-8")
	w.relate(2, "fresh", "")
	w.settle(t)
	expect(t, w.login(t, 2), "SELECT relname::text FROM pg_class WHERE relnamespace = 'public'::regnamespace")
}

func ownDatabaseOnly(t *testing.T, w *world) {
	w.relate(1, "first", "")
	w.relate(2, "second", "")
	w.settle(t)
	for id, other := range map[int]string{1: "second", 2: "first"} {
		w.login(t, id)
		c, err := w.as(t, userOf(id), w.relations[id].password, "postgres")
		check(t, err)
		refused(t, c, "CREATE SCHEMA mine", "permission denied for database postgres")
		for _, database := range []string{other, "template1", "no such database"} {
			w.noLogin(t, userOf(id), w.relations[id].password, database, "pg_hba.conf rejects connection")
		}
	}
	password := w.relations[1].password
	delete(w.relations, 1)
	w.settle(t)
	for _, database := range []string{"first", "second", "postgres"} {
		w.noLogin(t, userOf(1), password, database, "password authentication failed")
	}
	w.login(t, 2)
}

func noOtherPowers(t *testing.T, w *world) {
	w.relate(1, "first", "")
	w.relate(2, "second", "")
	w.settle(t)
	c := w.login(t, 1)
	for _, role := range []string{"operator", "backup", "monitoring", "second", "relation_id_2", "admin", "pg_read_all_data", "relation_any_database"} {
		refused(t, c, "SET ROLE "+role, "permission denied to set role")
	}
	for _, acting := range []string{"first", "relation_id_1"} {
		do(t, c, "SET ROLE "+acting)
		refused(t, c, "CREATE DATABASE more", "permission denied to create database")
		refused(t, c, "CREATE ROLE more", "permission denied to create role")
		refused(t, c, "ALTER SYSTEM SET work_mem = '1GB'", "permission denied")
		refused(t, c, "COPY (SELECT 1) TO PROGRAM 'true'", "COPY to or from an external program")
		refused(t, c, "SELECT rolpassword FROM pg_authid", "permission denied")
		refused(t, c, "GRANT second TO relation_id_1", "SQLSTATE 42501")
		refused(t, c, "ALTER ROLE relation_id_2 PASSWORD 'mine'", "permission denied")
		refused(t, c, "DROP DATABASE second", "must be owner of database")
		refused(t, c, "ALTER DATABASE first OWNER TO first", "must be owner of database")
	}
}

func nextUser(t *testing.T, w *world) {
	w.relate(10, "orders", "")
	w.settle(t)
	c := w.login(t, 10)
	do(t, c, "CREATE TABLE kept (id int GENERATED ALWAYS AS IDENTITY PRIMARY KEY, word text)", "INSERT INTO kept (word) VALUES ('old')",
		"CREATE VIEW seen AS SELECT * FROM kept", "CREATE FUNCTION f() RETURNS int LANGUAGE sql AS 'SELECT 1'",
		"CREATE TYPE mood AS ENUM ('sad')", "CREATE SCHEMA more", "CREATE TABLE more.gone ()")
	delete(w.relations, 10)
	w.settle(t)
	expect(t, w.operator(t, "orders"), "SELECT word FROM kept", "old")

	w.relate(11, "orders", "")
	w.settle(t)
	c = w.login(t, 11)
	do(t, c, "INSERT INTO kept (word) VALUES ('new')", "ALTER TABLE kept ADD more int", "CREATE INDEX ON kept (word)", "DROP TABLE more.gone",
		"DROP SCHEMA more", "DROP VIEW seen", "CREATE OR REPLACE FUNCTION f() RETURNS int LANGUAGE sql AS 'SELECT 2'",
		"ALTER TYPE mood ADD VALUE 'happy'")
	expect(t, c, "SELECT word FROM kept ORDER BY id", "old", "new")
	do(t, c, "DROP TABLE kept")
	expect(t, w.operator(t, "orders"), "SELECT unnest(datacl)::text FROM pg_database WHERE datname = 'orders'",
		"=Tc/operator", "operator=CTc/operator", "orders=CTc/operator", "relation_id_11=CTc/operator")
}

func twoApplications(t *testing.T, w *world) {
	w.relate(20, "common", "")
	w.relate(21, "common", "")
	w.settle(t)
	one, other := w.login(t, 20), w.login(t, 21)
	do(t, one, "CREATE TABLE a (b int)")
	do(t, other, "INSERT INTO a VALUES (1)", "ALTER TABLE a ADD c int")
	delete(w.relations, 20)
	w.settle(t)
	do(t, other, "INSERT INTO a VALUES (2)", "DROP TABLE a")
	refused(t, one, "SELECT 1", "terminating connection")
}

func endsSessions(t *testing.T, w *world) {
	w.relate(30, "busy", "")
	w.settle(t)
	idle, inTransaction, elsewhere := w.login(t, 30), w.login(t, 30), w.login(t, 30)
	do(t, idle, "CREATE TABLE a (b int)")
	do(t, inTransaction, "BEGIN", "LOCK TABLE a", "CREATE TABLE half ()")
	do(t, elsewhere, "SET ROLE relation_id_30", "CREATE TABLE own ()")
	delete(w.relations, 30)
	w.settle(t)
	refused(t, idle, "SELECT 1", "terminating connection")
	refused(t, inTransaction, "COMMIT", "terminating connection")
	refused(t, elsewhere, "SELECT 1", "terminating connection")
	expect(t, w.operator(t, "busy"), "SELECT concat_ws(' ', tablename, tableowner) FROM pg_tables WHERE schemaname = 'public' ORDER BY 1", "a busy", "own busy")
}

func severalDatabases(t *testing.T, w *world) {
	w.relate(40, "several", "createdb")
	w.relate(41, "third", "")
	w.settle(t)
	third := w.login(t, 41)
	do(t, third, "CREATE TABLE granted (a int)", "GRANT SELECT ON granted TO relation_id_40",
		"ALTER DEFAULT PRIVILEGES GRANT SELECT ON TABLES TO relation_id_40")
	c := w.login(t, 40)
	do(t, c, "CREATE DATABASE extra40", "CREATE DATABASE empty40")
	extra, err := w.as(t, userOf(40), w.relations[40].password, "extra40")
	check(t, err)
	own := []string{
		"CREATE SCHEMA mine", "CREATE TABLE mine.t (id serial, word text)", "INSERT INTO mine.t (word) VALUES ('kept')",
		"GRANT SELECT ON mine.t TO monitoring", "GRANT USAGE ON SCHEMA mine TO PUBLIC",
		"ALTER DEFAULT PRIVILEGES GRANT SELECT ON TABLES TO monitoring", "ALTER DEFAULT PRIVILEGES IN SCHEMA mine GRANT ALL ON SEQUENCES TO PUBLIC",
		"SELECT lo_create(4000)", "CREATE POLICY p ON mine.t TO relation_id_40 USING (true)",
		"CREATE TYPE mine.r AS RANGE (subtype = int)", "CREATE PUBLICATION p FOR TABLE mine.t",
		"CREATE TEXT SEARCH CONFIGURATION mine.ts (COPY = simple)", "CREATE COLLATION mine.c (provider = libc, locale = 'C')",
		"CREATE STATISTICS mine.st ON id, word FROM mine.t", "CREATE EXTENSION citext",
	}
	do(t, c, own...)
	do(t, extra, own...)
	operator := w.operator(t, "postgres")
	do(t, operator, "GRANT CREATE ON TABLESPACE pg_default TO relation_id_40", "ALTER ROLE relation_id_40 SET work_mem = '8MB'",
		"COMMENT ON ROLE relation_id_40 IS 'of a relation'", "GRANT relation_id_40 TO monitoring", "GRANT CONNECT ON DATABASE third TO relation_id_40")

	delete(w.relations, 40)
	w.settle(t)
	expect(t, operator, "SELECT rolname FROM pg_roles WHERE rolname = 'relation_id_40'")
	expect(t, operator, "SELECT datname || ' ' || pg_get_userbyid(datdba) FROM pg_database WHERE datname ~ '40$' ORDER BY 1", "empty40 operator", "extra40 operator")
	owners := "SELECT DISTINCT tableowner::text FROM pg_tables WHERE schemaname = 'mine'"
	expect(t, w.operator(t, "several"), owners, "several")
	expect(t, w.operator(t, "extra40"), owners, "operator")

	w.relate(42, "extra40", "")
	w.settle(t)
	extra = w.login(t, 42)
	expect(t, extra, "SELECT word FROM mine.t", "kept")
	do(t, extra, "ALTER TABLE mine.t ADD more int", "SELECT lo_unlink(4000)", "DROP STATISTICS mine.st", "DROP TEXT SEARCH CONFIGURATION mine.ts",
		"DROP COLLATION mine.c", "DROP SCHEMA mine CASCADE")
}

// Some kinds of objects only a superuser may own.
func superusersLegacy(t *testing.T, w *world) {
	w.relate(50, "powers", "superuser")
	w.settle(t)
	do(t, w.login(t, 50), "CREATE TABLE t (a int)", "CREATE EXTENSION pg_stat_statements",
		"CREATE FUNCTION e() RETURNS event_trigger LANGUAGE plpgsql AS 'BEGIN END'", "CREATE EVENT TRIGGER e ON ddl_command_end EXECUTE FUNCTION e()",
		"CREATE FOREIGN DATA WRAPPER w", "CREATE SERVER s FOREIGN DATA WRAPPER w", "CREATE USER MAPPING FOR relation_id_50 SERVER s",
		"CREATE FOREIGN TABLE f (a int) SERVER s", "CREATE OPERATOR === (LEFTARG = int, RIGHTARG = int, FUNCTION = int4eq)",
		"CREATE CAST (int AS json) WITH INOUT", "CREATE TRUSTED LANGUAGE other HANDLER plpgsql_call_handler")
	delete(w.relations, 50)
	w.settle(t)
	c := w.operator(t, "powers")
	expect(t, c, "SELECT tableowner::text FROM pg_tables WHERE schemaname = 'public'", "powers")
	w.relate(51, "powers", "")
	w.settle(t)
	do(t, w.login(t, 51), "CREATE TABLE u ()", "ALTER TABLE t ADD b int", "DROP FOREIGN TABLE f")
}

// Applications of the legacy interface work in one database, with a superuser,
// and hand what they have made to one of the modern interface.
func legacyClients(t *testing.T, w *world) {
	w.relateLegacy(300, "veteran", "db")
	w.relateLegacy(301, "veteran", "db-admin")
	w.settle(t)
	plain, admin := w.login(t, 300), w.login(t, 301)
	do(t, plain, "CREATE TABLE a (b int)", "CREATE EXTENSION citext")
	refused(t, plain, "CREATE ROLE pwned", "permission denied")
	w.noLogin(t, userOf(300), w.relations[300].password, "first", "pg_hba.conf")
	do(t, admin, "ALTER TABLE a ADD c int", "CREATE TABLE of_admin (n int)", "CREATE ROLE helper", "ALTER SYSTEM RESET work_mem")
	refused(t, plain, "SELECT FROM of_admin", "permission denied")
	delete(w.relations, 301)
	w.settle(t)
	refused(t, admin, "SELECT 1", "terminating connection")
	do(t, plain, "ALTER TABLE of_admin ADD m int", "INSERT INTO of_admin VALUES (1, 2)")

	delete(w.relations, 300)
	w.settle(t)
	expect(t, w.operator(t, "veteran"), "SELECT DISTINCT tableowner::text FROM pg_tables WHERE schemaname = 'public'", "veteran")
	w.relate(302, "veteran", "")
	w.settle(t)
	do(t, w.login(t, 302), "INSERT INTO a VALUES (1, 2)", "DROP TABLE a, of_admin")
}

func subordinates(t *testing.T, w *world) {
	w.relate(55, "makers", "createrole")
	w.settle(t)
	do(t, w.login(t, 55), "CREATE TABLE t (a int)", "CREATE ROLE reader55 LOGIN", "CREATE ROLE group55", "GRANT group55 TO reader55",
		"GRANT SELECT ON t TO reader55, group55", "ALTER DEFAULT PRIVILEGES GRANT SELECT ON TABLES TO group55")
	delete(w.relations, 55)
	w.settle(t)
	c := w.operator(t, "makers")
	expect(t, c, "SELECT rolname FROM pg_roles WHERE rolname ~ '55$' ORDER BY 1", "group55", "reader55")
	expect(t, c, "SELECT has_table_privilege('reader55', 't', 'select')::text", "true")
}

// notOwned lists what another than the owner role owns in the current database:
// the members of extensions may stay with whom they are. Multiranges and arrays
// go with their types.
const notOwned = `
WITH owned AS (
  SELECT 'pg_class'::regclass AS catalog, oid, relowner AS owner, relnamespace AS schema FROM pg_class WHERE relkind IN ('r', 'p', 'v', 'm', 'S', 'f', 'i', 'I', 'c')
  UNION ALL SELECT 'pg_namespace'::regclass, oid, nspowner, oid FROM pg_namespace WHERE nspname <> 'public'
  UNION ALL SELECT 'pg_type'::regclass, oid, typowner, typnamespace FROM pg_type WHERE typtype <> 'm' AND typcategory <> 'A'
  UNION ALL SELECT 'pg_proc'::regclass, oid, proowner, pronamespace FROM pg_proc
  UNION ALL SELECT 'pg_largeobject_metadata'::regclass, oid, lomowner, NULL FROM pg_largeobject_metadata
)
SELECT pg_describe_object(catalog, owned.oid, 0) || ' of ' || owner::regrole
FROM owned LEFT JOIN pg_namespace n ON n.oid = owned.schema
WHERE owner <> 'legacy'::regrole AND coalesce(n.nspname, '') !~ '^pg_' AND coalesce(n.nspname, '') <> 'information_schema'
  AND (catalog, owned.oid) NOT IN (SELECT classid, objid FROM pg_depend WHERE deptype = 'e')
ORDER BY 1`

func adoption(t *testing.T, w *world) {
	operator := w.operator(t, "postgres")
	do(t, operator, "CREATE DATABASE legacy", "CREATE ROLE relation_id_3 LOGIN PASSWORD 'old'", "CREATE ROLE relation_id_3_read", "CREATE ROLE somebody",
		"GRANT ALL ON DATABASE legacy TO relation_id_3")
	c := w.operator(t, "legacy")
	do(t, c, "GRANT ALL ON SCHEMA public TO relation_id_3", "CREATE EXTENSION pg_trgm", "CREATE TABLE foreigners (a int)", "ALTER TABLE foreigners OWNER TO somebody",
		"CREATE FOREIGN DATA WRAPPER w", "CREATE SERVER s FOREIGN DATA WRAPPER w", "CREATE FOREIGN TABLE far (a int) SERVER s")
	for i, owner := range []string{"operator", "relation_id_3"} {
		do(t, c, "SET ROLE "+owner, fmt.Sprintf("CREATE SCHEMA %s", []string{`"Odd ""schema"""`, "app"}[i]))
		do(t, c, "SET search_path = "+[]string{`"Odd ""schema"""`, "app"}[i], `CREATE TABLE "t.1" (id int GENERATED BY DEFAULT AS IDENTITY PRIMARY KEY, n serial, word text)`,
			`INSERT INTO "t.1" (word) VALUES ('old')`, `CREATE SEQUENCE "own sequence"`, "CREATE SEQUENCE linked", `ALTER SEQUENCE linked OWNED BY "t.1".word`,
			`CREATE VIEW v AS SELECT * FROM "t.1"`, `CREATE MATERIALIZED VIEW m AS SELECT * FROM "t.1"`,
			"CREATE TABLE parts (a int) PARTITION BY LIST (a)", "CREATE TABLE part PARTITION OF parts FOR VALUES IN (1)", "CREATE INDEX ON parts (a)",
			"CREATE UNLOGGED TABLE u (a int, big text)", "CREATE FUNCTION f(a int, VARIADIC b text[]) RETURNS int LANGUAGE sql AS 'SELECT 1'",
			"CREATE FUNCTION f() RETURNS TABLE (x int) LANGUAGE sql AS 'SELECT 1'", "CREATE FUNCTION g(a int, OUT b int) LANGUAGE sql AS 'SELECT 1'",
			"CREATE PROCEDURE p(a int) LANGUAGE sql AS ''", "CREATE PROCEDURE q(a int, INOUT b int) LANGUAGE sql AS 'SELECT 1'",
			"CREATE PROCEDURE o(a int, OUT b int) LANGUAGE sql AS 'SELECT 1'", "CREATE PROCEDURE o(a int, b int) LANGUAGE sql AS ''",
			"CREATE AGGREGATE total(int) (SFUNC = int4pl, STYPE = int)", "CREATE AGGREGATE nothing(*) (SFUNC = int8inc, STYPE = int8, INITCOND = '0')",
			"CREATE TYPE mood AS ENUM ('sad')", "CREATE TYPE pair AS (a int, b text)", "CREATE TYPE span AS RANGE (subtype = float8)",
			"CREATE DOMAIN positive AS int CHECK (VALUE > 0)", fmt.Sprintf("SELECT lo_create(%d)", 5000+i),
			"CREATE FUNCTION tf() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NEW; END'",
			`CREATE TRIGGER tr BEFORE INSERT ON "t.1" FOR EACH ROW EXECUTE FUNCTION tf()`)
		do(t, c, "RESET ROLE", "RESET search_path")
	}
	members := "SELECT DISTINCT proowner::regrole::text FROM pg_proc p JOIN pg_depend d ON d.objid = p.oid WHERE d.deptype = 'e'"
	expect(t, c, members, "operator")

	w.relate(60, "legacy", "")
	w.settle(t)
	expect(t, c, notOwned, "table foreigners of somebody", "type foreigners of somebody")
	expect(t, c, members, "operator")
	expect(t, c, "SELECT extowner::regrole::text FROM pg_extension WHERE extname = 'pg_trgm'", "operator")
	user := w.login(t, 60)
	for i, schema := range []string{`"Odd ""schema"""`, "app"} {
		do(t, user, "SET search_path = "+schema, `INSERT INTO "t.1" (word) VALUES ('new')`, `ALTER TABLE "t.1" ADD more int`,
			"REFRESH MATERIALIZED VIEW m", "DROP PROCEDURE p", "ALTER TYPE mood ADD VALUE 'happy'", "DROP SEQUENCE \"own sequence\"",
			"DROP AGGREGATE total(int)", fmt.Sprintf("SELECT lo_unlink(%d)", 5000+i), "DROP SCHEMA "+schema+" CASCADE")
	}
	do(t, user, "RESET search_path", "DROP FOREIGN TABLE far")
	refused(t, user, "SELECT * FROM foreigners", "permission denied")
	s := New(Connect)
	defer s.Close(t.Context())
	obs := w.observed()
	check(t, s.Observe(t.Context(), &obs))
	check(t, s.Apply(t.Context(), DropRole{"relation_id_3"}))
	do(t, operator, "DROP ROLE relation_id_3_read")
}

// clientOfBefore is a relation that a release before this one served: its user
// has privileges, owns its objects, and knows nothing of groups.
func clientOfBefore(t *testing.T, w *world) {
	operator := w.operator(t, "postgres")
	do(t, operator, "CREATE DATABASE before", "CREATE ROLE relation_id_62 LOGIN PASSWORD 'of before'", "GRANT ALL ON DATABASE before TO relation_id_62")
	c := w.operator(t, "before")
	do(t, c, "GRANT ALL ON SCHEMA public TO relation_id_62", "SET ROLE relation_id_62", "CREATE TABLE t (a int)")
	w.relate(62, "before", "")
	w.settle(t)
	user := w.login(t, 62)
	do(t, user, "INSERT INTO t VALUES (1)", "ALTER TABLE t ADD b int", "CREATE TABLE u ()")
	w.noLogin(t, userOf(62), w.relations[62].password, "first", "pg_hba.conf rejects connection")
	delete(w.relations, 62)
	w.settle(t)
	w.relate(63, "before", "")
	w.settle(t)
	do(t, w.login(t, 63), "INSERT INTO t VALUES (2)", "DROP TABLE t", "DROP TABLE u")
}

func withoutPublic(t *testing.T, w *world) {
	w.relate(65, "homeless", "")
	w.settle(t)
	do(t, w.operator(t, "homeless"), "DROP SCHEMA public")
	delete(w.relations, 65)
	w.settle(t)
	do(t, w.operator(t, "homeless"), "REVOKE ALL ON DATABASE homeless FROM homeless") // it is to be prepared again
	w.relate(66, "homeless", "")
	w.settle(t)
	do(t, w.login(t, 66), "CREATE SCHEMA other", "CREATE TABLE other.t ()", "CREATE SCHEMA public", "CREATE TABLE t ()")
}

func extraRoles(t *testing.T, w *world) {
	w.relate(70, "plain", "")
	w.relate(71, "first", "admin")
	w.relate(72, "first", "CreateDB")
	w.relate(73, "first", "createrole")
	w.relate(74, "first", "superuser")
	w.relate(75, "first", "pg_monitor,pg_read_all_data")
	w.settle(t)
	do(t, w.login(t, 70), "CREATE TABLE t (a int)", "INSERT INTO t VALUES (1)", "CREATE SCHEMA s", "CREATE TABLE s.t ()")
	reach := func(id int, database string) bool {
		_, err := w.as(t, userOf(id), w.relations[id].password, database)
		return err == nil
	}
	for id, everywhere := range map[int]bool{70: false, 71: true, 72: true, 73: false, 74: true, 75: false} {
		if other := map[bool]string{true: "first", false: "plain"}[id == 70]; reach(id, other) != everywhere {
			t.Errorf("that %s connects to another's database is %t", w.relations[id].roles, !everywhere)
		}
	}
	admin, err := w.as(t, userOf(71), w.relations[71].password, "plain")
	check(t, err)
	do(t, admin, "INSERT INTO t VALUES (2)", "SELECT * FROM s.t", "CREATE DATABASE made71")
	refused(t, admin, "DROP TABLE t", "must be owner")
	refused(t, admin, "UPDATE pg_authid SET rolsuper = true WHERE rolname = current_user", "permission denied")
	do(t, w.login(t, 72), "CREATE DATABASE made72", "DROP DATABASE made72")
	do(t, w.login(t, 73), "CREATE ROLE made73", "DROP ROLE made73")
	refused(t, w.login(t, 73), "CREATE ROLE made73 SUPERUSER", "SQLSTATE 42501")
	do(t, w.login(t, 74), "SELECT rolpassword FROM pg_authid", "ALTER SYSTEM RESET work_mem")
	expect(t, w.login(t, 75), "SELECT pg_has_role('pg_monitor', 'usage')::text", "true")
}

func anotherPassword(t *testing.T, w *world) {
	w.relate(80, "first", "")
	w.settle(t)
	old := w.relations[80].password
	w.relations[80].password = "PasswordOfRelationOther"
	w.settle(t)
	w.login(t, 80)
	w.noLogin(t, userOf(80), old, "first", "password authentication failed")
	// Somebody meddled with the role.
	do(t, w.operator(t, "postgres"), "ALTER ROLE relation_id_80 NOLOGIN CREATEDB PASSWORD NULL", "REVOKE relation_access FROM relation_id_80")
	w.settle(t)
	w.login(t, 80)
	expect(t, w.operator(t, "postgres"), "SELECT rolcreatedb::text FROM pg_roles WHERE rolname = 'relation_id_80'", "false")
}

func strangeNames(t *testing.T, w *world) {
	names := []string{
		"with space", " lead", "Ünïcode 🐘", strings.Repeat("x", 63), "100%s %I %d", "select", "UPPER", "a/b", "-- x",
		"all", "samerole", "+relation_access", "a=b host=elsewhere", "?x=y#z",
	}
	for i, name := range names {
		w.relate(200+i, name, "")
	}
	w.settle(t)
	for id := range names {
		c := w.login(t, 200+id)
		expect(t, c, "SELECT current_user", names[id])
		expect(t, c, "SELECT current_database()", names[id])
		do(t, c, "CREATE TABLE t ()")
		if c, err := w.as(t, userOf(200+id), w.relations[200+id].password, "first"); err == nil {
			t.Errorf("the user of database %q gets into another: %v", names[id], c)
		}
	}
	maps.DeleteFunc(w.relations, func(id int, _ *client) bool { return id >= 200 })
	w.settle(t)
	for _, name := range names {
		expect(t, w.operator(t, name), "SELECT tableowner::text FROM pg_tables WHERE tablename = 't'", name)
	}
}

// breaks lets each statement fail once, and looks whether dispatch after
// dispatch gets there all the same.
func breaks(t *testing.T, w *world, id int, database string, after bool) {
	broke := map[string]bool{}
	w.connect = flaky(after, broke)
	defer func() { w.connect = Connect }()
	converge := func() {
		for range 50 {
			s := New(w.connect)
			steps, err := w.pass(t.Context(), s)
			s.Close(t.Context())
			if err == nil && len(steps) == 0 {
				return
			}
		}
		t.Fatal("it does not get there")
	}
	w.relate(id, database, "")
	converge()
	do(t, w.login(t, id), "CREATE TABLE t ()", "SET ROLE "+userOf(id), "CREATE TABLE own ()", "SELECT lo_create(0)",
		"ALTER DEFAULT PRIVILEGES GRANT SELECT ON TABLES TO monitoring")
	delete(w.relations, id)
	converge()
	c := w.operator(t, database)
	expect(t, c, "SELECT rolname FROM pg_roles WHERE rolname = '"+userOf(id)+"'")
	expect(t, c, "SELECT DISTINCT tableowner::text FROM pg_tables WHERE schemaname = 'public'", database)
	// Creating, preparing, admitting; without login, the sessions, what it owns
	// here and elsewhere, the role.
	if len(broke) < 10 {
		t.Errorf("it broke only at %q", slices.Sorted(maps.Keys(broke)))
	}
}
