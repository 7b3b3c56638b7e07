package postgres

import (
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
	want.Shared = SharedParameters(workload.Resources, obs.Config)
}
