package core

import (
	"charmhub.io/postgresql-k8s/charm/state"
)

// Users wishes the system users that Patroni does not make itself.
type Users struct{}

// Name implements charm.Handler.
func (Users) Name() string { return "users" }

// Desire implements charm.Handler.
func (Users) Desire(obs state.Observed, want *state.Desired) {
	secret, ok := passwords(obs)
	if obs.Leaving || !ok {
		return
	}
	want.Roles = append(want.Roles,
		// Only the operating system's postgres user can be this one.
		state.Role{Name: "backup", Login: true, Superuser: true},
		state.Role{
			Name: "monitoring", Login: true, MemberOf: []string{"pg_monitor"},
			Password: secret["monitoring-password"],
		},
		state.Role{Name: state.RelationAccess},
		state.Role{Name: state.AnyDatabase},
		state.Role{Name: state.Admin, MemberOf: []string{"pg_read_all_data", "pg_write_all_data"}},
	)
}
