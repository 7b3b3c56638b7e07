// Package pgsql serves applications that speak the legacy interface pgsql, on the
// endpoints db and db-admin
// (https://github.com/canonical/ops-lib-pgsql/blob/master/protocol.md). It is
// deprecated in favour of postgresql_client, and goes by what upstream's charm
// for Kubernetes writes.
//
// A relation is served in passes: the request is read from the databags of the
// application and of its units; the role and the database are wished, with a
// password that is made up once; when the catalog shows both, the same reply goes
// into the application's databag and the leader's own: some clients look in
// one, some in the other.
package pgsql
