package state

// Names that are a contract with users, clients and the releases before this one.
const (
	PeerEndpoint = "database-peers"
	Container    = "postgresql"
	ServiceName  = "postgresql" // of Pebble, and the check that gates readiness
	SystemUser   = "postgres"   // user and group in the workload

	Mount      = "/var/lib/postgresql/data"
	DataDir    = Mount + "/pgdata"
	PatroniYML = Mount + "/patroni.yml"

	PostgresPort = 5432
	PatroniPort  = 8008
)
