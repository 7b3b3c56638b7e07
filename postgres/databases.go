package postgres

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/jackc/pgx/v5"

	"charmhub.io/postgresql-k8s/charm/state"
)

// CreateDatabase makes a database: a copy of template0, so that nothing of ours,
// or of anybody's, is in it.
type CreateDatabase struct{ state.Database }

// String implements state.Step.
func (c CreateDatabase) String() string { return "create database " + c.Name }

func (c CreateDatabase) sql() (database, text string) {
	return "postgres", "CREATE DATABASE " + quote(c.Name) +
		" OWNER operator TEMPLATE template0 ENCODING 'UTF8' LC_COLLATE 'C.UTF-8' LC_CTYPE 'C.UTF-8'"
}

// PrepareDatabase lets the owner role create schemas, and objects in the schema
// public if the application did not drop that.
type PrepareDatabase struct{ state.Database }

// String implements state.Step.
func (p PrepareDatabase) String() string { return "prepare database " + p.Name }

func (p PrepareDatabase) sql() (database, text string) {
	return p.Name, fmt.Sprintf(`
DO $$ BEGIN
  IF EXISTS (SELECT FROM pg_namespace WHERE nspname = 'public') THEN
    EXECUTE format('GRANT USAGE, CREATE ON SCHEMA public TO %%I', %[2]s);
  END IF;
END $$;
GRANT ALL ON DATABASE %[1]s TO %[3]s;`, quote(p.Name), literal(p.Owner), quote(p.Owner))
}

// AdmitUser lets a user work in a database. What the operator or a user of
// another relation owns there goes to the owner role first: that is how the
// releases before this one left the objects of an application.
type AdmitUser struct {
	Database state.Database
	User     state.DatabaseUser
}

// String implements state.Step.
func (a AdmitUser) String() string {
	return fmt.Sprintf("admit %s to database %s", a.User.Role, a.Database.Name)
}

func (a AdmitUser) sql() (database, text string) {
	db, user := a.Database, quote(a.User.Role)
	act := ""
	if a.User.Act {
		act = fmt.Sprintf("ALTER ROLE %s IN DATABASE %s SET role = %s;", user, quote(db.Name), literal(db.Owner))
	}
	return db.Name, fmt.Sprintf(`
GRANT %[1]s TO %[2]s;
%[3]s
GRANT ALL ON DATABASE %[4]s TO %[2]s;`, quote(db.Owner), user, act, quote(db.Name))
}

// DiffDatabases returns the steps from the databases that exist to those that
// are wished. That a database is prepared, or a user admitted, is read from the
// database's privileges, which each step grants last.
func DiffDatabases(have map[string]state.CatalogDatabase, want []state.Database) []state.Step {
	var steps []state.Step
	begun := map[string]bool{}
	for _, db := range want {
		old, exists := have[db.Name]
		if !exists && !begun[db.Name] {
			steps = append(steps, CreateDatabase{db})
		}
		if !slices.Contains(old.Create, db.Owner) && !begun[db.Name] {
			steps = append(steps, PrepareDatabase{db})
		}
		begun[db.Name] = true // two may wish for one
		for _, user := range db.Users {
			if !slices.Contains(old.Create, user.Role) {
				steps = append(steps, AdmitUser{db, user})
			}
		}
	}
	return steps
}

// adoptSQL hands what the operator or users of relations own in the current
// database to the owner role. REASSIGN OWNED does not take the operator, who
// owns the system catalogs, too; and it would take a user's own databases along.
// Members of extensions stay as they are; sequences of a column, and row types,
// follow their table.
//
// Each change holds locks until the next commit, and a server has room for some
// thousands, so it must run as a statement of its own, which may commit.
func adoptSQL(owner string) string {
	return fmt.Sprintf(`
DO $$
DECLARE
  target CONSTANT name := %s;
  statement text;
  done int := 0;
BEGIN
  FOR statement IN
    WITH former AS (
      SELECT oid FROM pg_roles
      WHERE rolname = 'operator' OR rolname ~ '^relation_id_[0-9]+'
    ), member AS (
      SELECT classid, objid FROM pg_depend WHERE deptype = 'e'
    )
    SELECT format('ALTER SCHEMA %%I OWNER TO %%I', n.nspname, target)
    FROM pg_namespace n
    WHERE n.nspowner IN (SELECT oid FROM former) AND n.nspname !~ '^pg_' AND n.nspname <> 'information_schema'
      AND ('pg_namespace'::regclass, n.oid) NOT IN (SELECT classid, objid FROM member)
    UNION ALL
    SELECT format('ALTER TABLE %%s OWNER TO %%I', c.oid::regclass, target)
    FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
    WHERE c.relowner IN (SELECT oid FROM former) AND n.nspname !~ '^pg_' AND n.nspname <> 'information_schema'
      AND c.relkind IN ('r', 'p', 'v', 'm', 'S', 'f')
      AND ('pg_class'::regclass, c.oid) NOT IN (SELECT classid, objid FROM member)
      AND NOT EXISTS (SELECT FROM pg_depend d WHERE d.classid = 'pg_class'::regclass AND d.objid = c.oid
                      AND d.refclassid = 'pg_class'::regclass AND d.deptype IN ('a', 'i') AND c.relkind = 'S')
    UNION ALL
    SELECT CASE WHEN p.prokind = 'p' -- OUT arguments tell procedures apart, too
      THEN format('ALTER PROCEDURE %%I.%%I(%%s) OWNER TO %%I', n.nspname, p.proname, pg_get_function_identity_arguments(p.oid), target)
      ELSE format('ALTER ROUTINE %%s OWNER TO %%I', p.oid::regprocedure, target) END
    FROM pg_proc p JOIN pg_namespace n ON n.oid = p.pronamespace
    WHERE p.proowner IN (SELECT oid FROM former) AND n.nspname !~ '^pg_' AND n.nspname <> 'information_schema'
      AND ('pg_proc'::regclass, p.oid) NOT IN (SELECT classid, objid FROM member)
    UNION ALL
    SELECT format('ALTER TYPE %%s OWNER TO %%I', t.oid::regtype, target)
    FROM pg_type t JOIN pg_namespace n ON n.oid = t.typnamespace LEFT JOIN pg_class c ON c.oid = t.typrelid
    WHERE t.typowner IN (SELECT oid FROM former) AND n.nspname !~ '^pg_' AND n.nspname <> 'information_schema'
      AND (t.typtype IN ('e', 'd', 'r') OR t.typtype = 'c' AND c.relkind = 'c')
      AND ('pg_type'::regclass, t.oid) NOT IN (SELECT classid, objid FROM member)
    UNION ALL
    SELECT format('ALTER LARGE OBJECT %%s OWNER TO %%I', l.oid, target)
    FROM pg_largeobject_metadata l
    WHERE l.lomowner IN (SELECT oid FROM former)
  LOOP
    EXECUTE statement;
    done := done + 1;
    IF done %% 200 = 0 THEN
      COMMIT;
    END IF;
  END LOOP;
END $$;`, literal(owner))
}

// databasesSQL reads https://www.postgresql.org/docs/17/catalog-pg-database.html.
const databasesSQL = `
SELECT d.datname, o.rolname,
       array(SELECT g.rolname::text FROM aclexplode(d.datacl) a JOIN pg_authid g ON g.oid = a.grantee
             WHERE a.privilege_type = 'CREATE' ORDER BY 1)
FROM pg_database d JOIN pg_authid o ON o.oid = d.datdba WHERE NOT d.datistemplate`

func readDatabases(ctx context.Context, c Conn) (map[string]state.CatalogDatabase, error) {
	rows, err := c.Query(ctx, databasesSQL)
	if err != nil {
		return nil, fmt.Errorf("cannot read the databases: %w", err)
	}
	databases := map[string]state.CatalogDatabase{}
	var name string
	var db state.CatalogDatabase
	_, err = pgx.ForEachRow(rows, []any{&name, &db.Owner, &db.Create}, func() error {
		databases[name] = state.CatalogDatabase{Owner: db.Owner, Create: slices.Clone(db.Create)}
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("cannot read the databases: %w", err)
	}
	return databases, nil
}

// noLoginSQL lets a role log in no more. A repetition has nothing to commit, so it waits
// for no replica again.
func noLoginSQL(role string) string {
	return fmt.Sprintf(`
DO $$ BEGIN
  IF (SELECT rolcanlogin FROM pg_roles WHERE rolname = %s) THEN
    ALTER ROLE %s NOLOGIN;
  END IF;
END $$;`, literal(role), quote(role))
}

// whereSQL lists the databases in which a role owns something or has privileges
// (https://www.postgresql.org/docs/17/catalog-pg-shdepend.html), and whether the
// database has an owner role.
const whereSQL = `
SELECT DISTINCT d.datname, EXISTS (SELECT FROM pg_roles WHERE rolname = d.datname AND NOT rolcanlogin)
FROM pg_shdepend s JOIN pg_database d ON d.oid = s.dbid
WHERE s.refclassid = 'pg_authid'::regclass AND s.refobjid = (SELECT oid FROM pg_roles WHERE rolname = $1)`

// dropRole ends the role. What it owns stays: in a database with an owner role
// that gets it, elsewhere the operator does. It can be repeated at any point.
func (s *System) dropRole(ctx context.Context, role string) error {
	c, err := s.conn(ctx, "postgres")
	if err != nil {
		return err
	}
	// Nobody comes in any more, and then those who are in go.
	if err := s.change(ctx, c, noLoginSQL(role)); err != nil {
		return err
	}
	if err := s.change(ctx, c, "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = "+literal(role)); err != nil {
		return err
	}
	rows, err := c.Query(ctx, whereSQL, role)
	if err != nil {
		return err
	}
	heirs := map[string]string{"postgres": "operator"}
	var database string
	var owned bool
	_, err = pgx.ForEachRow(rows, []any{&database, &owned}, func() error {
		heirs[database] = "operator"
		if owned {
			heirs[database] = database
		}
		return nil
	})
	if err != nil {
		return err
	}
	// The database postgres first: databases of the role's own go to the operator.
	for _, database := range slices.SortedFunc(maps.Keys(heirs), postgresFirst) {
		c, err := s.conn(ctx, database)
		if err != nil {
			return err
		}
		if heirs[database] == database { // most of it, with commits between
			if err := s.slow(ctx, c, adoptSQL(database)); err != nil {
				return err
			}
		}
		err = s.slow(ctx, c, superusersSQL(role)+fmt.Sprintf("REASSIGN OWNED BY %[1]s TO %[2]s; DROP OWNED BY %[1]s", quote(role), quote(heirs[database])))
		if err != nil {
			return err
		}
	}
	return s.change(ctx, c, "DROP ROLE "+quote(role))
}

// superusersSQL hands to the operator what only a superuser may own, and what
// REASSIGN OWNED would therefore fail at.
func superusersSQL(role string) string {
	return fmt.Sprintf(`
DO $$
DECLARE
  statement text;
BEGIN
  FOR statement IN
    SELECT format('ALTER EVENT TRIGGER %%I OWNER TO operator', evtname) FROM pg_event_trigger WHERE evtowner = %[1]s::regrole
    UNION ALL
    SELECT format('ALTER FOREIGN DATA WRAPPER %%I OWNER TO operator', fdwname) FROM pg_foreign_data_wrapper WHERE fdwowner = %[1]s::regrole
    UNION ALL
    SELECT format('ALTER SUBSCRIPTION %%I OWNER TO operator', subname) FROM pg_subscription
    WHERE subowner = %[1]s::regrole AND subdbid = (SELECT oid FROM pg_database WHERE datname = current_database())
  LOOP
    EXECUTE statement;
  END LOOP;
END $$;
`, literal(quote(role)))
}

func postgresFirst(a, b string) int {
	switch {
	case a == b:
		return 0
	case a == "postgres":
		return -1
	case b == "postgres":
		return 1
	}
	return strings.Compare(a, b)
}
