package core

import (
	"slices"
	"strconv"
	"strings"

	"charmhub.io/postgresql-k8s/charm/state"
)

// Replication wishes how many replicas must have a commit before it returns, so
// that no failover loses one.
type Replication struct{}

// Name implements charm.Handler.
func (Replication) Name() string { return "replication" }

// Desire implements charm.Handler. The units that are to stay count, not those
// that are here: what leaves must not be waited for. But a primary that leaves
// first hands over, and until then any replica should be fit to succeed.
func (Replication) Desire(obs state.Observed, want *state.Desired) {
	units, known := obs.Units.Get()
	cluster, ok := obs.Cluster.Get()
	if !known || !ok || len(units) == 0 || obs.Config.Err() != nil {
		return
	}
	if primary, ok := cluster.Primary(); ok && !slices.Contains(units, state.UnitName(primary.Name)) {
		return
	}
	replicas := len(units) - 1
	count := confirmations(obs.Config.String("synchronous_node_count"), len(units))
	// Before a replica confirms commits, strictness would stop a cluster that has
	// only begun to grow.
	confirmed := slices.ContainsFunc(cluster.Members, state.Member.Synchronous)
	strict := replicas > 0 && obs.Config.Bool("synchronous_mode_strict") &&
		(cluster.Dynamic["synchronous_mode_strict"] == true || confirmed)
	want.Synchronous = state.Value(state.Synchronous{
		// Where all replicas must confirm there is no choice to be made among them, and
		// Patroni replaces one that fails sooner.
		Quorum: knowQuorum(obs, cluster) && count < replicas,
		Count:  count,
		Strict: strict,
	})
}

// knowQuorum tells whether all members know of a quorum, as Patroni does since 4. An
// older one that is the primary, or becomes it in a refresh, would take that word for
// no synchronous replication at all.
func knowQuorum(obs state.Observed, cluster state.Cluster) bool {
	kube, _ := obs.Kube.Get()
	return !old(cluster.Local.Version) &&
		!slices.ContainsFunc(kube.Pods, func(p state.Pod) bool { return p.Patroni != "" && old(p.Patroni) })
}

func old(patroni string) bool {
	major, _, _ := strings.Cut(patroni, ".")
	version, _ := strconv.Atoi(major)
	return version < 4
}

// confirmations is how many replicas must have a commit: of all units but one, of
// so many that with the primary they are more than half, or a number.
func confirmations(option string, units int) int {
	switch option {
	case "all":
		return units - 1
	case "majority":
		return units / 2
	}
	n, _ := strconv.Atoi(option) // charm/config has checked it
	return min(n, units-1)
}

// Succession hands the role of primary over when the primary's unit is removed.
type Succession struct{}

// Name implements charm.Handler.
func (Succession) Name() string { return "succession" }

// Desire implements charm.Handler. A unit whose pod is only replaced need not do
// anything: then Patroni stops at the same time, and hands over itself.
func (Succession) Desire(obs state.Observed, want *state.Desired) {
	units, known := obs.Units.Get()
	cluster, ok := obs.Cluster.Get()
	if !known || !ok || !obs.Leaving || len(units) == 0 || slices.Contains(units, obs.Unit.Name) {
		return
	}
	wait := func(message string) {
		want.Patient = true
		want.Problem(state.Problem{Severity: state.Maintenance, Message: message, Soon: true})
	}
	primary, ok := cluster.Primary()
	if primary.Name != obs.Unit.Pod() {
		// The next leader comes up to a minute after this one has gone: until then
		// nobody could tell clients of another primary.
		if obs.Leader && (!ok || !slices.Contains(units, state.UnitName(primary.Name))) {
			wait(state.MessageLastWord)
		}
		// Juju 4.1 may forget the pod (seen with 4.1-beta2, a unit that was removed while
		// its application was still growing). With no charm it would confirm commits, and
		// become the primary, unready: no Service would lead to it.
		want.Stop = ok && obs.Event.Name == "remove"
		return
	}
	successor, ok := cluster.Successor(func(m state.Member) bool { return slices.Contains(units, state.UnitName(m.Name)) })
	if !ok {
		// Without one nobody could be promoted once this unit is gone.
		wait(state.MessageNoSuccessor)
		return
	}
	want.Successor = successor
	wait(state.MessageHandover(state.UnitName(successor.Name)))
}
