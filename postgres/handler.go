package postgres

import (
	"slices"
	"strings"

	"charmhub.io/postgresql-k8s/charm/state"
)

// Handler wishes the settings and the client authentication of the members.
type Handler struct{}

// Name implements charm.Handler.
func (Handler) Name() string { return "postgres" }

// Desire implements charm.Handler.
func (Handler) Desire(obs state.Observed, want *state.Desired) {
	workload, ok := obs.Workload.Get()
	if !ok {
		return
	}
	server, ok := workload.Server()
	if !ok {
		return
	}
	want.Parameters = Parameters(server, workload.Resources, obs.Config)
	want.HBA, want.Ident = HBA(), Ident()
	if unserved(obs) {
		want.HBA = slices.DeleteFunc(want.HBA, func(line string) bool { return line == rejectOthers })
	}
	want.Shared = SharedParameters(workload.Resources, obs.Config)
}

// unserved tells whether the users of relations are upstream's still: no leader of
// ours has admitted them to the groups that pg_hba.conf goes by. That happens after a
// refresh from upstream, when the last pod is replaced, which may be the leader's; a
// unit that was refreshed may be the primary before that. Until then the privileges
// confine them which upstream gave: it took those of everybody from each database.
func unserved(obs state.Observed) bool {
	peer, _ := obs.Relations.Peer()
	record := peer.LocalApp[state.ClientsKey]
	return peer.LocalApp[state.UpstreamKey] != "" && (record == "" || strings.Contains(record, state.PendingDigest))
}
