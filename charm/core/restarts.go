package core

import (
	"slices"
	"strings"

	"charmhub.io/postgresql-k8s/charm/state"
)

// Restarts wishes the restarts that changed settings need: one member after the
// other, the primary last unless replicas must wait for it. The leader alone decides,
// so nobody has to agree.
type Restarts struct{}

// Name implements charm.Handler.
func (Restarts) Name() string { return "restarts" }

// Desire implements charm.Handler.
func (Restarts) Desire(obs state.Observed, want *state.Desired) {
	cluster, ok := obs.Cluster.Get()
	if kube, known := obs.Kube.Get(); known && kube.Rollout.Revision == "" {
		return // a rollout may be on its way
	}
	if _, refreshing := obs.Refresh(); refreshing {
		return // one pod is away at a time, and a new one has a server that was just started
	}
	if !ok || obs.Leaving || !obs.Leader {
		return
	}
	pending := slices.DeleteFunc(slices.Clone(cluster.Members), func(m state.Member) bool { return !m.PendingRestart })
	if len(pending) == 0 {
		return
	}
	want.Problem(state.Problem{Severity: state.Waiting, Message: state.MessageRestart, Soon: true})
	if slices.ContainsFunc(cluster.Members, func(m state.Member) bool { return !m.Running() }) {
		return // one is restarting, or ill: the others must stay
	}
	if i := slices.IndexFunc(pending, func(m state.Member) bool { return m.Role == "leader" && m.Lowers }); i >= 0 {
		want.Restart = pending[i]
		return
	}
	slices.SortFunc(pending, func(a, b state.Member) int {
		if a.Role != b.Role && (a.Role == "leader" || b.Role == "leader") {
			if a.Role == "leader" {
				return 1
			}
			return -1
		}
		return strings.Compare(a.Name, b.Name)
	})
	want.Restart = pending[0]
}
