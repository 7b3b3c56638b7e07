package state

import (
	"fmt"
	"strings"
)

// The statuses that the unit can show. Nobody reads one back.
//
// Each comment has a line that begins with the status in Juju and tells the cause,
// and one that tells the cure: docs/reference/statuses.md is made of them.
const (
	// MessagePrimary is on the line of the unit whose server takes writes.
	// Active: this unit's server takes writes.
	// Cure: nothing to do.
	MessagePrimary = "Primary"
	// MessageStarting is upstream's word for a cluster that comes up.
	// Waiting: the cluster or this member comes up, or there is no primary at the
	// moment. A first start takes up to a minute, an election about 20 s.
	// Cure: wait. If it does not end, `juju run postgresql-k8s/leader status` tells what
	// is missing, and `juju debug-log --include unit-postgresql-k8s-2` what the unit
	// tries.
	MessageStarting = "awaiting for cluster to start"
	// MessageMember is upstream's word for a member that comes up.
	// Waiting: there is a primary, but the server of this unit does not run: it starts,
	// or recovers after a crash, which takes minutes if it is large; or it could not
	// follow any more, and copies the primary anew beside its data.
	// Cure: wait. If it does not end, `juju run postgresql-k8s/2 status` on this unit
	// tells the member's state, and
	// `juju run postgresql-k8s/2 reinitialize confirm=postgresql-k8s/2` throws its data
	// away and copies the primary's.
	MessageMember = "awaiting for member to start"
	// MessageAway follows MessagePrimary when the Kubernetes API does not answer.
	// Active: the primary cannot reach the Kubernetes API. It goes on as long as all
	// members agree that it is the primary; meanwhile no other can take over.
	// Cure: look after the Kubernetes API. The rest is a matter of time.
	MessageAway = " (the Kubernetes API is away)"
	// MessageIsolated is for a member that cannot know what the others do.
	// Waiting: this member cannot reach the Kubernetes API, and no primary answers it. A
	// replica serves reads; what was the primary has stopped, or clients that were not
	// told of the next one would go on asking it.
	// Cure: look after the network of its node, and after the Kubernetes API. It joins
	// the others by itself.
	MessageIsolated = "isolated: it cannot reach the Kubernetes API, and takes no writes"
	// MessageTwo is on the replica of a cluster of two that does not wait for it: what
	// it cannot survive, and the cure.
	// Active: the option synchronous_mode_strict is false, or no replica has confirmed a
	// commit yet, so the primary does not wait for this replica.
	// Cure: `juju scale-application postgresql-k8s 3`.
	MessageTwo = "two units: while one is away the other has the only copy; a third avoids that"
	// MessageTwoStrict is the same of a cluster that waits.
	// Active: every commit waits until both units have it.
	// Cure: `juju scale-application postgresql-k8s 3`.
	MessageTwoStrict = "two units: writes wait while one of them is away; a third avoids that"
	// MessageFull is upstream's warning, and the cure.
	// Blocked: less than a tenth of the unit's volume is free. The server goes on until it
	// is full; then it stops.
	// Cure: delete what is not needed, and `VACUUM` or drop the tables. Most versions of
	// Juju cannot resize a volume: move the data to an application whose `--storage
	// pgdata` is larger. It clears itself within 15 s.
	MessageFull = "<10% free space on pgdata volume. Free some, or move to a larger one: full, it stops the server"
	// MessageCatchingUp is for a replica that is up, but behind.
	// Waiting: this replica runs, but lacks some of what the primary has written. If the
	// primary no longer has that, the replica copies it anew, if its volume has the room.
	// Cure: wait. If it does not end, check its volume and network;
	// `juju run postgresql-k8s/2 reinitialize confirm=postgresql-k8s/2` copies the
	// primary anew.
	MessageCatchingUp = "catching up with the primary"
	// MessagePromoting is for the member that is to be the primary in a moment.
	// Waiting: this member has the primary's lock, and its server is about to take
	// writes.
	// Cure: wait some seconds.
	MessagePromoting = "being promoted"
	// MessageRestart is upstream's word for settings that wait for a restart.
	// Waiting: an option was changed that needs a restart. The leader restarts one
	// member after the other, the primary last.
	// Cure: wait. While a member does not run the others are not restarted:
	// `juju run postgresql-k8s/leader status` tells which.
	MessageRestart = "Awaiting restart operation"
	// MessageLeader says that the passwords do not exist yet.
	// Waiting: the leader has not made the passwords yet, or Juju has not committed
	// them.
	// Cure: wait. If it does not end, look at the status of the leader.
	MessageLeader = "awaiting the leader, which makes the passwords"
	// MessageStorage says that the volume is not there.
	// Waiting: the volume is not mounted in the workload container.
	// Cure: wait. If it does not end, `kubectl -n MODEL get pvc` tells why the volume is
	// not bound.
	MessageStorage = "awaiting the storage to be mounted"
	// MessageInvalidDatabase refuses a client's database name; upstream's words.
	// Blocked: an application asks for a database whose name is too long, reserved, not
	// printable, or taken by a database or role that no relation made. The others are
	// served.
	// Cure: `juju run postgresql-k8s/leader status` names the application. Have it ask
	// for another name, or `juju remove-relation postgresql-k8s APPLICATION`.
	MessageInvalidDatabase = "invalid database name"
	// MessageInvalidRoles refuses a client's extra roles; upstream's words.
	// Blocked: an application asks for extra roles that it cannot have, or that this
	// PostgreSQL lacks. The others are served.
	// Cure: `juju run postgresql-k8s/leader status` names the application. Have it ask
	// for other roles, or `juju remove-relation postgresql-k8s APPLICATION`.
	MessageInvalidRoles = "invalid role(s) for extra user roles"
	// MessageInvalidRequest refuses what cannot be read or is far too much.
	// Blocked: what an application has written to its databag cannot be read, or is too
	// long. The others are served.
	// Cure: `juju run postgresql-k8s/leader status` names the application.
	// `juju remove-relation postgresql-k8s APPLICATION`, and tell the authors of its
	// charm.
	MessageInvalidRequest = "invalid request of a client application"
	// MessageEndpoint is upstream's word for a Service that leads nowhere yet.
	// Waiting: a legacy application waits for the Service of the primary, which does not
	// lead to a ready pod yet.
	// Cure: wait some seconds.
	MessageEndpoint = "awaiting for primary endpoint to be ready"
	// MessageExtensions refuses a legacy client that wants extensions which no
	// option enables; upstream's words.
	// Blocked: a legacy application asks for extensions, and no option of this revision
	// enables any. The others are served.
	// Cure: have the application ask for none, or remove its relation, such as
	// `juju remove-relation postgresql-k8s:db APPLICATION`.
	MessageExtensions = "extensions requested through relation"
	// MessageRoles refuses a legacy client that wants roles; upstream's words.
	// Blocked: a legacy application asks for roles, which are for the endpoint database
	// only. The others are served.
	// Cure: have the application ask for none; or, if it can, let it use the other
	// endpoint: `juju remove-relation postgresql-k8s:db APPLICATION`, then
	// `juju integrate postgresql-k8s:database APPLICATION`.
	MessageRoles = "roles requested through relation, use postgresql_client interface instead"
	// MessageOneEndpoint is for an application with a legacy and a modern relation;
	// upstream's words.
	// Blocked: one application has a relation of the legacy interface and one of the
	// modern interface. Whatever was served before goes on.
	// Cure: remove one of them, such as
	// `juju remove-relation postgresql-k8s:db APPLICATION:db`.
	MessageOneEndpoint = "Please choose one endpoint to use. No need to relate all of them simultaneously!"
	// MessageRenewing is for the time between a new password's commit and its use.
	// Waiting: the server still has an old password of the operator user. The unit of
	// the primary gives it the new one.
	// Cure: wait some seconds. If it does not end, look at the status of the primary's
	// unit.
	MessageRenewing = "awaiting the primary, which takes the new passwords"
	// MessageUnconfirmed is for changes of the catalogue that wait for a replica.
	// Waiting: a client's user or database is to be changed, and the replicas that must
	// have each commit do not confirm it: they are away, or much too slow. A hook waits
	// some seconds for one commit; it is tried again when a replica follows. What other
	// clients are told goes on.
	// Cure: bring the replica back: `juju status postgresql-k8s` shows which is away. Or,
	// with two units, have no commit wait for one that is away:
	// `juju config postgresql-k8s synchronous_mode_strict=false`.
	MessageUnconfirmed = "awaiting a replica to confirm a commit: without one writes wait"
	// MessageLate is for a dispatch that has reached its budget.
	// Waiting: there was more to do than one hook should take. The next one goes on.
	// Cure: wait. If it does not end, `juju debug-log --include unit-postgresql-k8s-2`
	// tells what takes long.
	MessageLate = "there is more to do than one hook has time for; going on in the next"
	// MessageLastWord is on a leader that is removed together with the primary.
	// Maintenance: the leader is removed, and the primary with it or before it. It waits
	// for an election, because only it can tell clients of the next primary before Juju
	// has another leader.
	// Cure: nothing to do.
	MessageLastWord = "stopping: awaiting another primary, to tell clients of it"
	// MessageNoSuccessor is on a primary that is removed and cannot hand over yet.
	// Maintenance: this primary is removed, and no replica is known to have every
	// commit, so nobody could be promoted after it.
	// Cure: wait some seconds. `juju run postgresql-k8s/0 status` on a unit that stays
	// tells how its replica is.
	MessageNoSuccessor = "stopping: awaiting a replica that has every commit, to hand over to it"
	// MessageStopping is what a unit shows whose pod or place is going away.
	// Maintenance: the unit or its pod goes away.
	// Cure: nothing to do.
	MessageStopping = "stopping"
)

// The statuses of a refresh; upstream's words where they say enough.
const (
	// MessageRefreshPaused is on the first unit that was refreshed, after pre-upgrade-check.
	// Maintenance: this unit has the new revision and is well. The refresh waits for you,
	// because it began with pre-upgrade-check.
	// Cure: look at this unit, then `juju run postgresql-k8s/leader resume-upgrade`. Or go
	// back: `juju refresh` to the charm and the image of before.
	MessageRefreshPaused = "upgrade completed, run resume-upgrade to proceed"
	// MessageNoRefreshed is for a primary that is next and has nobody to hand over to.
	// Maintenance: the primary's pod is the next to be replaced, and no unit that was
	// refreshed has every commit yet, or one of them does not confirm commits yet.
	// Cure: wait some seconds. If it does not end, `juju run postgresql-k8s/leader status`
	// tells which replica does not follow.
	MessageNoRefreshed = "upgrading...: awaiting a refreshed replica that has every commit, to hand over to it"
	// MessageRefreshUntold is for the moment before the leader has told clients.
	// Maintenance: the primary has changed, and the Juju leader has not told clients yet.
	// Cure: wait. It ends with the leader's next hook.
	MessageRefreshUntold = "upgrading...: awaiting the leader, to tell clients of the primary"
	// MessageRefreshNoSuccessor is for the moment after a switchover.
	// Maintenance: the next pod is that of the only replica which is known to have every
	// commit. Without it nobody could take over.
	// Cure: wait some seconds, until another replica is known to have them.
	MessageRefreshNoSuccessor = "upgrading...: awaiting a replica that has every commit, besides the next unit"
)

// MessageRefreshNext says which unit's pod is replaced next.
// Maintenance: this unit has the new revision and is well; another one's pod is being
// replaced.
// Cure: wait.
func MessageRefreshNext(unit string) string { return "upgrading...: " + unit + " is next" }

// MessageRefreshWaits says why no other pod is replaced now.
// Maintenance: a refresh is on its way, and the unit that is named is not well yet.
// Cure: wait. If it does not end, `juju status` and `juju debug-log --include
// unit-postgresql-k8s-2` tell what that unit lacks.
func MessageRefreshWaits(unit, why string) string {
	return fmt.Sprintf("upgrading...: awaiting %s, which is %s", unit, why)
}

// MessageRefreshHalted names what is wrong with a unit that was refreshed, and the
// cures.
// Blocked: a unit that was refreshed is not well a minute after its pod was made. No
// other is touched, and the cluster goes on without it.
// Cure: go back with `juju refresh` to the charm and the image of before, or mend
// the unit: the refresh then goes on by itself. `juju run postgresql-k8s/leader
// resume-upgrade` lets the next unit go although this one is ill.
func MessageRefreshHalted(app, unit, why string) string {
	return fmt.Sprintf("upgrade failed: %s is %s, try: `juju refresh %s` back to the charm and image of before, or `juju run %s/leader resume-upgrade`",
		unit, why, app, app)
}

// MessageTrust names the cure for missing rights.
// Blocked: the application may not use the Kubernetes API in its own namespace,
// which Patroni needs.
// Cure: `juju trust postgresql-k8s --scope=cluster`. It goes on by itself.
func MessageTrust(app string) string {
	return fmt.Sprintf("Insufficient permissions, try: `juju trust %s --scope=cluster`", app)
}

// MessageImage names the cure for an image without PostgreSQL.
// Blocked: the image of the resource postgresql-image has no PostgreSQL that the
// charm can run.
// Cure: `juju attach-resource postgresql-k8s postgresql-image=IMAGE`.
const MessageImage = "no PostgreSQL 14 or later in the image: attach another postgresql-image resource"

// MessageMajor names the cure for an image that does not fit the data.
// Blocked: the image lacks the major version of PostgreSQL that the data have. They
// are untouched.
// Cure: `juju attach-resource postgresql-k8s postgresql-image=IMAGE` with an image
// that has the version.
func MessageMajor(data int) string {
	return fmt.Sprintf("the data is of PostgreSQL %d, which the image lacks: attach a postgresql-image resource that has it", data)
}

// MessageContainer says that Pebble does not answer, or not as it should.
// Waiting: Pebble in the workload container does not answer.
// Cure: wait. If it does not end, `kubectl -n MODEL describe pod postgresql-k8s-2`
// tells why the container does not run.
func MessageContainer(why string) string {
	return "awaiting the workload container: " + why
}

// MessageKube says that the Kubernetes API does not answer.
// Waiting: the unit starts, and the Kubernetes API does not answer.
// Cure: look after the Kubernetes API. The rest is a matter of time.
func MessageKube(why string) string {
	return "awaiting the Kubernetes API: " + why
}

// MessageConfig names the option that is wrong.
// Blocked: an option has a value that is not allowed; the message names both. A
// server that runs goes on.
// Cure: `juju config postgresql-k8s profile=production`, or
// `juju config postgresql-k8s --reset profile`, with the option of the message.
func MessageConfig(err error) string {
	return fmt.Sprintf("Configuration Error: %v", err)
}

// MessageForeign refuses a volume, and names the ways out. It is never emptied.
// Blocked: the volume has the data of another PostgreSQL cluster than this
// application's. They are untouched.
// Cure: if it is the last unit, `juju scale-application postgresql-k8s 2` removes it
// (of three). The volume stays: `juju storage` lists it.
const MessageForeign = "the storage has the data of another cluster: remove this unit, or attach the storage to an application of its own"

// MessageCloning says how far the copy of the primary's data is, in percent.
// Waiting: this replica makes its copy of the primary. That takes as long as it
// takes, and the charm does not interrupt it.
// Cure: nothing to do.
func MessageCloning(done Known[int]) string {
	if percent, known := done.Get(); known {
		return fmt.Sprintf("cloning the primary: %d %%", percent)
	}
	return "cloning the primary"
}

// MessageLag says how many bytes a replica is behind.
// Active: this replica follows, but is 64 MB or more behind.
// Cure: check its volume and network. If it grows on and on,
// `juju run postgresql-k8s/2 reinitialize confirm=postgresql-k8s/2` copies the
// primary anew.
func MessageLag(bytes int64) string {
	return fmt.Sprintf("%d MB behind the primary", bytes>>20)
}

// MessageLost names the unit whose storage has what no other has.
// Blocked: the primary's unit was removed before another member had every commit.
// Nobody is promoted, because its storage alone has them.
// Cure: `juju storage` shows the storage of that unit. Bring it back, on a Juju later
// than 3.6.10: `juju add-unit postgresql-k8s --attach-storage pgdata/0`.
func MessageLost(app, unit string) string {
	return fmt.Sprintf("%s was removed before another unit had all its data: bring it back with its storage, "+
		"juju add-unit %s --attach-storage <the one that juju storage shows for it>", unit, app)
}

// MessageHandover says who becomes the primary in this unit's place.
// Maintenance: this primary is removed or, in a refresh, its pod is replaced next. The
// unit that is named takes over first.
// Cure: nothing to do.
func MessageHandover(unit string) string {
	return "handing over to " + unit
}

// MessageFailed says that a step failed and will be tried again.
// Waiting: a step failed; the message says which, and why.
// Cure: it is tried again soon, and at the next event. If it does not end, mend what
// the message names; `juju debug-log --include unit-postgresql-k8s-2` has the rest.
func MessageFailed(err error) string {
	return strings.ReplaceAll(err.Error(), "\n", "; ") + "; trying again" // of several errors each has a line
}
