package core

import (
	"charmhub.io/postgresql-k8s/charm/state"
)

// Model wishes what the Juju model shows of the application.
type Model struct{}

// Name implements charm.Handler.
func (Model) Name() string { return "model" }

// Desire implements charm.Handler.
func (Model) Desire(obs state.Observed, want *state.Desired) {
	if obs.Leaving {
		return
	}
	want.Ports = []int{state.PostgresPort, state.PatroniPort}
	cluster, ok := obs.Cluster.Get()
	if !ok {
		return
	}
	peer, related := obs.Relations.Peer()
	if _, hasPrimary := cluster.Primary(); related && hasPrimary {
		// Wakes the other units, which wait for the cluster; upstream's key.
		want.Databags = append(want.Databags, state.Databag{
			Relation: peer.ID, Content: map[string]string{"cluster_initialised": "True"},
		})
	}
}
