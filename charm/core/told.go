package core

import (
	"slices"

	"charmhub.io/postgresql-k8s/charm/state"
)

// Told notes the primary that clients were told of. It looks at what they are to be
// told: it comes after those who tell them.
//
// After a failover the old primary stays down until they were (patroni.py). Its Patroni
// sees no databag, and its charm may be the last to see the leader's note: any unit shows
// it at all pods.
type Told struct{}

// Name implements charm.Handler.
func (Told) Name() string { return "told" }

// Desire implements charm.Handler.
func (Told) Desire(obs state.Observed, want *state.Desired) {
	peer, related := obs.Relations.Peer()
	if !related {
		return
	}
	if primary, all := told(obs, want); all && obs.Leader {
		want.Databags = append(want.Databags, state.Databag{Relation: peer.ID, Content: map[string]string{state.ToldKey: primary}})
	}
	note := peer.LocalApp[state.ToldKey]
	if primary, _ := obs.Primary(); note == "" || note != primary.Name {
		return // this dispatch may have begun before another took over, and sees an old note
	}
	if !peer.Written {
		want.Told = note
		return
	}
	// Clients hear of it when Juju commits this dispatch.
	kube, _ := obs.Kube.Get()
	want.Again = want.Again || slices.ContainsFunc(kube.Pods, func(p state.Pod) bool { return p.Told != note })
}

// told returns the primary, and whether nothing is left to be told of it beyond what is
// wished now.
func told(obs state.Observed, want *state.Desired) (primary string, all bool) {
	member, ok := obs.Primary()
	_, known := obs.Published().Get()
	all = ok && known && !want.Again && len(want.Look) == 0 && !state.Serving(want.Clients)
	return member.Name, all
}
