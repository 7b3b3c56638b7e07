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
	secret := obs.Secrets[wish.Label]
	if complete(secret.Content) {
		wish.Content = secret.Content
	}
	want.Secrets = append(want.Secrets, wish)
	if secret.Replaced() {
		want.Again = true // only then they are put to use
	}
}

// passwords returns the system users' passwords once all of them exist and Juju
// has committed them: what the data directory is made with must not be forgotten,
// and a server must not be told what may still be discarded.
func passwords(obs state.Observed) (map[string]state.Redacted, bool) {
	content := obs.Secrets[obs.Unit.PeerSecret()].InForce()
	return content, complete(content)
}

func complete(content map[string]state.Redacted) bool {
	for _, key := range passwordKeys {
		if content[key] == "" {
			return false
		}
	}
	return true
}
