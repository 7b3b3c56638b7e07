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
GRANT "o'brien's ""db""; $1 %s \" TO "us""er'; --";
ALTER ROLE "us""er'; --" IN DATABASE "o'brien's ""db""; $1 %s \" SET role = 'o''brien''s "db"; $1 %s \';
GRANT ALL ON DATABASE "o'brien's ""db""; $1 %s \" TO "us""er'; --";

-- admit us"er'; -- to database o'brien's "db"; $1 %s \
-- in database o'brien's "db"; $1 %s \:
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
