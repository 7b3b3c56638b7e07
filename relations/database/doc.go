// Package database serves applications that want a database: endpoint database,
// interface postgresql_client, both versions of its protocol
// (https://github.com/canonical/charm-relation-interfaces/tree/main/interfaces/postgresql_client).
//
// A relation is served in passes: the request is read; the role and the database
// are wished, with a password that is made up once; when the catalog shows both,
// the secrets and then the databag are wished, complete or not at all.
package database
