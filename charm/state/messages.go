package state

import "fmt"

// The statuses that the unit can show. Nobody reads one back.
const (
	// MessagePrimary is on the line of the unit whose server takes writes.
	MessagePrimary = "Primary"
	// MessageStarting is upstream's word for a cluster that comes up.
	MessageStarting = "awaiting for cluster to start"
	// MessageMember is upstream's word for a member that comes up.
	MessageMember = "awaiting for member to start"
	// MessageAway follows MessagePrimary when the Kubernetes API does not answer.
	MessageAway = " (the Kubernetes API is away)"
	// MessageIsolated is for a member that cannot know what the others do.
	MessageIsolated = "isolated: it cannot reach the Kubernetes API, and serves reads only"
	// MessageTwo and MessageTwoStrict are on the replica of a cluster of two: what
	// it cannot survive, and the cure.
	MessageTwo       = "two units: while one is away the other has the only copy; a third avoids that"
	MessageTwoStrict = "two units: writes wait while one of them is away; a third avoids that"
	// MessageCatchingUp is for a replica that is up, but behind.
	MessageCatchingUp = "catching up with the primary"
	// MessagePromoting is for the member that is to be the primary in a moment.
	MessagePromoting = "being promoted"
	// MessageRestart is upstream's word for settings that wait for a restart.
	MessageRestart = "Awaiting restart operation"
	// MessageLeader says that the passwords do not exist yet.
	MessageLeader = "awaiting for the leader to create the passwords"
	// MessageStorage says that the volume is not there.
	MessageStorage = "awaiting for the storage to be mounted"
	// MessageInvalidDatabase refuses a client's database name; upstream's words.
	MessageInvalidDatabase = "invalid database name"
	// MessageInvalidRoles refuses a client's extra roles; upstream's words.
	MessageInvalidRoles = "invalid role(s) for extra user roles"
	// MessageInvalidRequest refuses what cannot be read or is far too much.
	MessageInvalidRequest = "invalid request of a client application"
	// MessageEndpoint is upstream's word for a Service that leads nowhere yet.
	MessageEndpoint = "awaiting for primary endpoint to be ready"
	// MessageExtensions refuses a legacy client that wants extensions which no
	// option enables; upstream's words.
	MessageExtensions = "extensions requested through relation"
	// MessageRoles refuses a legacy client that wants roles; upstream's words.
	MessageRoles = "roles requested through relation, use postgresql_client interface instead"
	// MessageOneEndpoint is for an application with a legacy and a modern relation;
	// upstream's words.
	MessageOneEndpoint = "Please choose one endpoint to use. No need to relate all of them simultaneously!"
	// MessageRenewing is for the time between a new password's commit and its use.
	MessageRenewing = "awaiting for the primary to take the new passwords"
	// MessageLastWord is on a leader that is removed together with the primary.
	MessageLastWord = "stopping: awaiting another primary, to tell clients of it"
	// MessageNoSuccessor is on a primary that is removed and cannot hand over yet.
	MessageNoSuccessor = "stopping: awaiting a replica that has every commit, to hand over to it"
	// MessageStopping is what a unit shows whose pod or place is going away.
	MessageStopping = "stopping"
)

// MessageTrust names the cure for missing rights.
func MessageTrust(app string) string {
	return fmt.Sprintf("Insufficient permissions, try: `juju trust %s --scope=cluster`", app)
}

// MessageImage names the cure for an image without PostgreSQL.
const MessageImage = "no PostgreSQL 14 or later in the image: refresh with another postgresql-image resource"

// MessageMajor names the cure for an image that does not fit the data.
func MessageMajor(data int) string {
	return fmt.Sprintf("the data is of PostgreSQL %d, which the image lacks: refresh with a postgresql-image that has it", data)
}

// MessageContainer says that Pebble does not answer, or not as it should.
func MessageContainer(why string) string {
	return "awaiting for the workload container: " + why
}

// MessageKube says that the Kubernetes API does not answer.
func MessageKube(why string) string {
	return "awaiting the Kubernetes API: " + why
}

// MessageConfig names the option that is wrong.
func MessageConfig(err error) string {
	return fmt.Sprintf("Configuration Error: %v", err)
}

// MessageForeign refuses a volume, and names the ways out. It is never emptied.
const MessageForeign = "the storage has the data of another cluster: remove this unit, or attach the storage to an application of its own"

// MessageCloning says how far the copy of the primary's data is, in percent.
func MessageCloning(done Known[int]) string {
	if percent, known := done.Get(); known {
		return fmt.Sprintf("cloning the primary: %d %%", percent)
	}
	return "cloning the primary"
}

// MessageLag says how many bytes a replica is behind.
func MessageLag(bytes int64) string {
	return fmt.Sprintf("%d MB behind the primary", bytes>>20)
}

// MessageLost names the unit whose storage has what no other has.
func MessageLost(app, unit string) string {
	return fmt.Sprintf("%s was removed before another unit had all its data: bring it back with its storage, "+
		"juju add-unit %s --attach-storage <the one that juju storage shows for it>", unit, app)
}

// MessageHandover says who becomes the primary in this unit's place.
func MessageHandover(member string) string {
	return "handing over to " + member
}

// MessageFailed says that a step failed and will be tried again.
func MessageFailed(err error) string {
	return fmt.Sprintf("%v; trying again", err)
}
