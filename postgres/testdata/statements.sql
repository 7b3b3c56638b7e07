-- create role us"er'; --
-- in database postgres:
CREATE ROLE "us""er'; --" NOLOGIN NOSUPERUSER NOCREATEDB NOCREATEROLE;

-- create role us"er'; --
-- in database postgres:
CREATE ROLE "us""er'; --" LOGIN SUPERUSER CREATEDB CREATEROLE IN ROLE "group", """";

-- alter role us"er'; --: LOGIN NOSUPERUSER NOCREATEDB NOCREATEROLE
-- in database postgres:
ALTER ROLE "us""er'; --" LOGIN NOSUPERUSER NOCREATEDB NOCREATEROLE;

-- grant gr"oup to us"er'; --
-- in database postgres:
GRANT "gr""oup" TO "us""er'; --";

-- create database o'brien's "db"; $1 %s \
-- in database postgres:
CREATE DATABASE "o'brien's ""db""; $1 %s \" OWNER operator TEMPLATE template0 ENCODING 'UTF8' LC_COLLATE 'C.UTF-8' LC_CTYPE 'C.UTF-8';

-- prepare database o'brien's "db"; $1 %s \
-- in database o'brien's "db"; $1 %s \:
DO $$ BEGIN
  IF EXISTS (SELECT FROM pg_namespace WHERE nspname = 'public') THEN
    EXECUTE format('GRANT USAGE, CREATE ON SCHEMA public TO %I', 'o''brien''s "db"; $1 %s \');
  END IF;
END $$;
GRANT ALL ON DATABASE "o'brien's ""db""; $1 %s \" TO "o'brien's ""db""; $1 %s \";

-- admit us"er'; -- to database o'brien's "db"; $1 %s \
-- in database o'brien's "db"; $1 %s \:
DO $$
DECLARE
  target CONSTANT name := 'o''brien''s "db"; $1 %s \';
  statement text;
BEGIN
  FOR statement IN
    WITH former AS (
      SELECT oid FROM pg_roles
      WHERE rolname = 'operator' OR rolname ~ '^relation_id_[0-9]+'
    ), member AS (
      SELECT classid, objid FROM pg_depend WHERE deptype = 'e'
    )
    SELECT format('ALTER SCHEMA %I OWNER TO %I', n.nspname, target)
    FROM pg_namespace n
    WHERE n.nspowner IN (SELECT oid FROM former) AND n.nspname !~ '^pg_' AND n.nspname <> 'information_schema'
      AND ('pg_namespace'::regclass, n.oid) NOT IN (SELECT classid, objid FROM member)
    UNION ALL
    SELECT format('ALTER TABLE %s OWNER TO %I', c.oid::regclass, target)
    FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
    WHERE c.relowner IN (SELECT oid FROM former) AND n.nspname !~ '^pg_' AND n.nspname <> 'information_schema'
      AND c.relkind IN ('r', 'p', 'v', 'm', 'S', 'f')
      AND ('pg_class'::regclass, c.oid) NOT IN (SELECT classid, objid FROM member)
      AND NOT EXISTS (SELECT FROM pg_depend d WHERE d.classid = 'pg_class'::regclass AND d.objid = c.oid
                      AND d.refclassid = 'pg_class'::regclass AND d.deptype IN ('a', 'i') AND c.relkind = 'S')
    UNION ALL
    SELECT CASE WHEN p.prokind = 'p' -- OUT arguments tell procedures apart, too
      THEN format('ALTER PROCEDURE %I.%I(%s) OWNER TO %I', n.nspname, p.proname, pg_get_function_identity_arguments(p.oid), target)
      ELSE format('ALTER ROUTINE %s OWNER TO %I', p.oid::regprocedure, target) END
    FROM pg_proc p JOIN pg_namespace n ON n.oid = p.pronamespace
    WHERE p.proowner IN (SELECT oid FROM former) AND n.nspname !~ '^pg_' AND n.nspname <> 'information_schema'
      AND ('pg_proc'::regclass, p.oid) NOT IN (SELECT classid, objid FROM member)
    UNION ALL
    SELECT format('ALTER TYPE %s OWNER TO %I', t.oid::regtype, target)
    FROM pg_type t JOIN pg_namespace n ON n.oid = t.typnamespace LEFT JOIN pg_class c ON c.oid = t.typrelid
    WHERE t.typowner IN (SELECT oid FROM former) AND n.nspname !~ '^pg_' AND n.nspname <> 'information_schema'
      AND (t.typtype IN ('e', 'd', 'r') OR t.typtype = 'c' AND c.relkind = 'c')
      AND ('pg_type'::regclass, t.oid) NOT IN (SELECT classid, objid FROM member)
    UNION ALL
    SELECT format('ALTER LARGE OBJECT %s OWNER TO %I', l.oid, target)
    FROM pg_largeobject_metadata l
    WHERE l.lomowner IN (SELECT oid FROM former)
  LOOP
    EXECUTE statement;
  END LOOP;
END $$;
GRANT "o'brien's ""db""; $1 %s \" TO "us""er'; --";
ALTER ROLE "us""er'; --" IN DATABASE "o'brien's ""db""; $1 %s \" SET role = 'o''brien''s "db"; $1 %s \';
GRANT ALL ON DATABASE "o'brien's ""db""; $1 %s \" TO "us""er'; --";

-- admit us"er'; -- to database o'brien's "db"; $1 %s \
-- in database o'brien's "db"; $1 %s \:
DO $$
DECLARE
  target CONSTANT name := 'o''brien''s "db"; $1 %s \';
  statement text;
BEGIN
  FOR statement IN
    WITH former AS (
      SELECT oid FROM pg_roles
      WHERE rolname = 'operator' OR rolname ~ '^relation_id_[0-9]+'
    ), member AS (
      SELECT classid, objid FROM pg_depend WHERE deptype = 'e'
    )
    SELECT format('ALTER SCHEMA %I OWNER TO %I', n.nspname, target)
    FROM pg_namespace n
    WHERE n.nspowner IN (SELECT oid FROM former) AND n.nspname !~ '^pg_' AND n.nspname <> 'information_schema'
      AND ('pg_namespace'::regclass, n.oid) NOT IN (SELECT classid, objid FROM member)
    UNION ALL
    SELECT format('ALTER TABLE %s OWNER TO %I', c.oid::regclass, target)
    FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
    WHERE c.relowner IN (SELECT oid FROM former) AND n.nspname !~ '^pg_' AND n.nspname <> 'information_schema'
      AND c.relkind IN ('r', 'p', 'v', 'm', 'S', 'f')
      AND ('pg_class'::regclass, c.oid) NOT IN (SELECT classid, objid FROM member)
      AND NOT EXISTS (SELECT FROM pg_depend d WHERE d.classid = 'pg_class'::regclass AND d.objid = c.oid
                      AND d.refclassid = 'pg_class'::regclass AND d.deptype IN ('a', 'i') AND c.relkind = 'S')
    UNION ALL
    SELECT CASE WHEN p.prokind = 'p' -- OUT arguments tell procedures apart, too
      THEN format('ALTER PROCEDURE %I.%I(%s) OWNER TO %I', n.nspname, p.proname, pg_get_function_identity_arguments(p.oid), target)
      ELSE format('ALTER ROUTINE %s OWNER TO %I', p.oid::regprocedure, target) END
    FROM pg_proc p JOIN pg_namespace n ON n.oid = p.pronamespace
    WHERE p.proowner IN (SELECT oid FROM former) AND n.nspname !~ '^pg_' AND n.nspname <> 'information_schema'
      AND ('pg_proc'::regclass, p.oid) NOT IN (SELECT classid, objid FROM member)
    UNION ALL
    SELECT format('ALTER TYPE %s OWNER TO %I', t.oid::regtype, target)
    FROM pg_type t JOIN pg_namespace n ON n.oid = t.typnamespace LEFT JOIN pg_class c ON c.oid = t.typrelid
    WHERE t.typowner IN (SELECT oid FROM former) AND n.nspname !~ '^pg_' AND n.nspname <> 'information_schema'
      AND (t.typtype IN ('e', 'd', 'r') OR t.typtype = 'c' AND c.relkind = 'c')
      AND ('pg_type'::regclass, t.oid) NOT IN (SELECT classid, objid FROM member)
    UNION ALL
    SELECT format('ALTER LARGE OBJECT %s OWNER TO %I', l.oid, target)
    FROM pg_largeobject_metadata l
    WHERE l.lomowner IN (SELECT oid FROM former)
  LOOP
    EXECUTE statement;
  END LOOP;
END $$;
GRANT "o'brien's ""db""; $1 %s \" TO "us""er'; --";

GRANT ALL ON DATABASE "o'brien's ""db""; $1 %s \" TO "us""er'; --";

-- before the objects of a role go to the owner role:
DO $$
DECLARE
  statement text;
BEGIN
  FOR statement IN
    SELECT format('ALTER EVENT TRIGGER %I OWNER TO operator', evtname) FROM pg_event_trigger WHERE evtowner = '"us""er''; --"'::regrole
    UNION ALL
    SELECT format('ALTER FOREIGN DATA WRAPPER %I OWNER TO operator', fdwname) FROM pg_foreign_data_wrapper WHERE fdwowner = '"us""er''; --"'::regrole
    UNION ALL
    SELECT format('ALTER SUBSCRIPTION %I OWNER TO operator', subname) FROM pg_subscription
    WHERE subowner = '"us""er''; --"'::regrole AND subdbid = (SELECT oid FROM pg_database WHERE datname = current_database())
  LOOP
    EXECUTE statement;
  END LOOP;
END $$;
