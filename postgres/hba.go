package postgres

import "charmhub.io/postgresql-k8s/charm/state"

// HBA are the lines of pg_hba.conf, first match first
// (https://www.postgresql.org/docs/17/auth-pg-hba-conf.html). Every way in needs
// a password, or to be the operating system's postgres user inside the workload
// container; nobody is trusted. An address of "all" is every address of both
// families: pods have no address that could be known before. Reload.
//
// Users of relations are admitted by group, so that a new one needs no reload on
// any unit: to a database if they are a member of the role of its name, which is
// its owner role, and to the database postgres, where psql --list looks.
func HBA() []string {
	return []string{
		"local all backup peer map=operator",
		"local all all scram-sha-256",
		"host replication replication all scram-sha-256",
		"host samerole,postgres +" + state.RelationAccess + " all scram-sha-256",
		"host all +" + state.AnyDatabase + " all scram-sha-256",
		rejectOthers,
		"host all all all scram-sha-256",
	}
}

// rejectOthers keeps users of relations out of databases that are not theirs.
const rejectOthers = "host all +" + state.RelationAccess + " all reject"

// Ident are the lines of pg_ident.conf: the operating system's postgres user is
// the database's backup user on the local socket.
func Ident() []string {
	return []string{"operator postgres backup"}
}
