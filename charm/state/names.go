package state

// Names that are a contract with users, clients and the releases before this one.
const (
	PeerEndpoint     = "database-peers"
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
	FenceScript     = Mount + "/fence.py"
	WatchScript     = Mount + "/watch.sh"
	RewindScript    = Mount + "/rewind.py"
	FollowersScript = Mount + "/followers.sh"

	RoleLabel = "role" // of pods, set by Patroni: primary or replica

	PostgresPort = 5432
	PatroniPort  = 8008
)

// DatabaseEndpoints are the endpoints of applications that want a database.
var DatabaseEndpoints = []string{DatabaseEndpoint, LegacyEndpoint, AdminEndpoint}

// UnitDatabags are the endpoints where units have something to say, too.
var UnitDatabags = []string{LegacyEndpoint, AdminEndpoint}

// SystemUsers are the charm's own users, in the order of upstream's messages.
var SystemUsers = []string{"backup", "replication", "rewind", "operator", "monitoring"}

// Groups by which pg_hba.conf and privileges know the users of relations.
const (
	// RelationAccess has all users of relations.
	RelationAccess = "relation_access"
	// AnyDatabase has the users of relations that may connect everywhere.
	AnyDatabase = "relation_any_database"
	// Admin may read and write all data.
	Admin = "admin"
)
