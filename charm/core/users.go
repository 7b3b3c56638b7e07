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
			Password: first(obs, "monitoring", secret["monitoring-password"]),
		},
		state.Role{Name: state.RelationAccess},
		state.Role{Name: state.AnyDatabase},
		state.Role{Name: state.Admin, MemberOf: []string{"pg_read_all_data", "pg_write_all_data"}},
	)
}

// first is the password of a user that has none. Only the primary's unit replaces
// one, so that two units with two revisions of the secret cannot disagree.
func first(obs state.Observed, user string, password state.Redacted) state.Redacted {
	catalog, _ := obs.Database.Get()
	if catalog.Roles[user].Verifier != "" {
		return ""
	}
	return password
}

// renewals are the system users whose password in this server, the primary's, is
// not the secret's. While the operator user is refused nobody can look at the
// others: they are next. Whatever stopped an earlier renewal, here it goes on.
func renewals(obs state.Observed) []state.Role {
	cluster, _ := obs.Cluster.Get()
	secret, ok := passwords(obs)
	if !ok || !cluster.Local.Primary() {
		return nil
	}
	if obs.Refused {
		return []state.Role{{Name: "operator", Password: secret[state.PasswordKey("operator")]}}
	}
	users, _ := obs.Users.Get()
	var renew []state.Role
	for _, name := range state.SystemUsers {
		role, exists := users[name]
		password := secret[state.PasswordKey(name)] // backup has one only if it was given one
		if exists && password != "" && !role.HasPassword(password) {
			renew = append(renew, state.Role{Name: name, Password: password})
		}
	}
	return renew
}
