// Package postgres is the system inside the database cluster: settings and
// client authentication (pure), and roles and databases through SQL. It is the
// only user of pgx.
package postgres
