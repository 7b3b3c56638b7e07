package core

import (
	"charmhub.io/postgresql-k8s/charm/state"
)

// passwordKeys are the keys of the peer secret.
var passwordKeys = []string{
	"operator-password", "replication-password", "rewind-password", "monitoring-password", "patroni-password",
}

// Secrets wishes the passwords of the system users.
type Secrets struct{}

// Name implements charm.Handler.
func (Secrets) Name() string { return "secrets" }

// Desire implements charm.Handler.
func (Secrets) Desire(obs state.Observed, want *state.Desired) {
	if obs.Leaving {
		return
	}
	wish := state.SecretWish{Label: obs.Unit.PeerSecret(), Generate: passwordKeys}
	if secret := obs.Secrets[wish.Label]; complete(secret) {
		wish.Content = secret.Content
	}
	want.Secrets = append(want.Secrets, wish)
}

// passwords returns the system users' passwords once all of them exist and Juju
// has committed them: what the data directory is made with must not be forgotten.
func passwords(obs state.Observed) (map[string]state.Redacted, bool) {
	secret := obs.Secrets[obs.Unit.PeerSecret()]
	return secret.Content, complete(secret) && secret.Committed
}

func complete(secret state.Secret) bool {
	for _, key := range passwordKeys {
		if secret.Content[key] == "" {
			return false
		}
	}
	return true
}
