package core

import (
	"strings"

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
	want.Announce = announcement(obs, cluster)
	peer, related := obs.Relations.Peer()
	if _, hasPrimary := cluster.Primary(); related && hasPrimary {
		// Wakes the other units, which wait for the cluster; upstream's key.
		want.Databags = append(want.Databags, state.Databag{
			Relation: peer.ID, Content: map[string]string{state.InitialisedKey: "True"},
		})
	}
}

// initialised tells whether the application has had a primary.
func initialised(obs state.Observed) bool {
	peer, _ := obs.Relations.Peer()
	return peer.LocalApp[state.InitialisedKey] != ""
}

// announcement is how this member is and where, while it runs: when that changes,
// the leader has endpoints to rewrite.
func announcement(obs state.Observed, cluster state.Cluster) string {
	me, known := cluster.Member(obs.Unit.Pod())
	kube, connected := obs.Kube.Get()
	if !known || !connected || !me.Running() {
		return ""
	}
	if me.Role == "leader" && !cluster.Local.Primary() {
		return "" // it is being promoted
	}
	pod, ok := kube.Pod(me.Name)
	if !ok || pod.IP == "" {
		return ""
	}
	text := me.Role + " " + me.State + " " + pod.IP
	if streaming, known := obs.Streaming.Get(); known && cluster.Local.Primary() && len(streaming) > 0 {
		text += " before " + strings.Join(streaming, ",")
	}
	return text
}
