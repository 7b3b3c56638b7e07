package state

import "fmt"

// Names that are a contract with users, clients and the releases before this one.
const (
	PeerEndpoint     = "database-peers"
	UpgradeEndpoint  = "upgrade"
	DatabaseEndpoint = "database"
	LegacyEndpoint   = "db"
	AdminEndpoint    = "db-admin"
	Container        = "postgresql"
	ServiceName      = "postgresql" // of Pebble, and the check that gates readiness
	SystemUser       = "postgres"   // user and group in the workload

	Mount      = "/var/lib/postgresql/data"
	DataDir    = Mount + "/pgdata"
	PatroniYML = Mount + "/patroni.yml"

	// Scripts of ours that run in the workload.
	SuperviseScript = Mount + "/supervise.sh"
	PatroniScript   = Mount + "/patroni.py"
	FenceScript     = Mount + "/fence.py"
	WatchScript     = Mount + "/watch.sh"
	RewindScript    = Mount + "/rewind.py"
	FollowersScript = Mount + "/followers.sh"

	RoleLabel = "role" // of pods, set by Patroni: primary or replica
	// ToldAnnotation of a pod has what ToldKey has. patroni.py reads it: clients that do not
	// know of a new primary must not find the old one.
	ToldAnnotation = "charmhub.io/told"

	PostgresPort = 5432
	PatroniPort  = 8008
	RolePort     = 8009 // of patroni.py, within the pod: closed for a while when the role has changed
)

// DatabaseEndpoints are the endpoints of applications that want a database.
var DatabaseEndpoints = []string{DatabaseEndpoint, LegacyEndpoint, AdminEndpoint}

// UnitDatabags are the endpoints where units have something to say, too.
var UnitDatabags = []string{LegacyEndpoint, AdminEndpoint}

// SystemUsers are the charm's own users, in the order of upstream's messages.
var SystemUsers = []string{"backup", "replication", "rewind", "operator", "monitoring"}

// PasswordKey is the key of the peer secret with the password of a system user, or
// of Patroni.
func PasswordKey(user string) string { return user + "-password" }

// RelationUser begins the name of every user of a relation. It is upstream's, on
// which clean-up after a refresh depends.
const RelationUser = "relation_id_"

// ClientSecret is the label of a secret of a client relation: the libraries' own,
// so that each finds what another has made. The request is "" where a relation has
// only one.
func ClientSecret(endpoint string, relation int, request, group string) string {
	if request == "" {
		return fmt.Sprintf("%s.%d.%s.secret", endpoint, relation, group)
	}
	return fmt.Sprintf("%s.%d.%s.%s.secret", endpoint, relation, request, group)
}

// ClientsKey of the peers' databag is the leaders' record of the client relations.
const ClientsKey = "clients"

// InitialisedKey of the peers' databag tells that the application has had a primary;
// it is upstream's, too.
const InitialisedKey = "cluster_initialised"

// ToldKey of the peers' databag is the primary that clients were told of: Juju commits
// it together with what they were told. A leader of a revision that does not know the key
// leaves an old note there: a refresh waits for PublishedKey instead.
const ToldKey = "told"

// CPUsKey of the peers' databag is how many CPUs the first leader's server had.
const CPUsKey = "cpus"

// UpstreamKey of the peers' databag is one that upstream's leaders write and ours do
// not: the users of relations as it knows them.
const UpstreamKey = "user_hash"

// PendingDigest is the digest of a relation that has not got all of its reply, or
// whose user's password may not be the secret's.
const PendingDigest = "pending"

// HeldDigest is the digest of a legacy relation that waits until its application has
// no relation of the modern interface any more.
const HeldDigest = "held"

// Groups by which pg_hba.conf and privileges know the users of relations.
const (
	// RelationAccess has all users of relations.
	RelationAccess = "relation_access"
	// AnyDatabase has the users of relations that may connect everywhere.
	AnyDatabase = "relation_any_database"
	// Admin may read and write all data.
	Admin = "admin"
)
