package core

import (
	"maps"
	"slices"
	"testing"

	"charmhub.io/postgresql-k8s/charm/state"
)

// verifier is what a server stores of a password.
func verifier(t *testing.T, password state.Redacted) state.Redacted {
	t.Helper()
	v, err := state.Verifier(password)
	if err != nil {
		t.Fatal(err)
	}
	return state.Redacted(v)
}

// serverHas makes the server of the unit have passwords: those of the secret but
// for the given ones.
func serverHas(t *testing.T, obs *state.Observed, others map[string]state.Redacted) {
	users := map[string]state.Role{"backup": {Name: "backup"}}
	for _, name := range []string{"operator", "replication", "rewind", "monitoring"} {
		password, other := others[name]
		if !other {
			password = state.Redacted("of " + name + "-password")
		}
		users[name] = state.Role{Name: name, Verifier: verifier(t, password)}
	}
	obs.Users = state.Value(users)
}

func TestThePrimaryTakesThePasswordsOfTheSecret(t *testing.T) {
	t.Parallel()
	old := map[string]state.Redacted{"replication": "old", "monitoring": "old"}
	tests := []struct {
		name    string
		change  func(*state.Observed)
		renew   []string
		fresh   bool
		patroni bool // whether patroni.yml is wished
	}{
		{"a server that has them needs nothing", func(o *state.Observed) { serverHas(t, o, nil) }, nil, false, true},
		{"what differs is renewed, and only then is Patroni told", func(o *state.Observed) { serverHas(t, o, old) }, []string{"replication", "monitoring"}, false, false},
		{"while the operator user is refused it comes first", func(o *state.Observed) { o.Refused = true }, []string{"operator"}, false, false},
		{"before the server was looked at nothing is known", func(*state.Observed) {}, nil, false, true},
		{"a replica cannot", func(o *state.Observed) {
			serverHas(t, o, old)
			changeKnown(&o.Cluster, func(c *state.Cluster) { c.Local.Role = "replica" })
		}, nil, false, true},
		{"a leader elsewhere waits for the primary's unit", func(o *state.Observed) {
			o.Refused = true
			changeKnown(&o.Cluster, func(c *state.Cluster) { c.Local.Role = "replica" })
		}, nil, false, true},
		{"what was kept from before is compared with Juju's first", func(o *state.Observed) {
			serverHas(t, o, old)
			secret := o.Secrets["database-peers.db.app"]
			secret.Cached = true
			o.Secrets["database-peers.db.app"] = secret
		}, nil, true, false},
		{"a new password that Juju does not have yet is told to nobody", func(o *state.Observed) {
			serverHas(t, o, nil)
			changed := allPasswords()
			changed["operator-password"] = "new"
			o.Secrets["database-peers.db.app"] = state.Secret{Content: changed, Saved: changed, Before: allPasswords()}
		}, nil, false, true},
		{"the backup user gets one if the secret has it", func(o *state.Observed) {
			serverHas(t, o, nil)
			o.Secrets["database-peers.db.app"].Content["backup-password"] = "of backup-password"
		}, []string{"backup"}, false, false},
		{"a unit on its way out does nothing", func(o *state.Observed) { serverHas(t, o, old); o.Leaving = true }, nil, false, false},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			obs := running()
			test.change(&obs)
			want := desire(obs, Secrets{}, Objects{}, Member{}, Users{})
			var renew []string
			for _, role := range want.Renew {
				renew = append(renew, role.Name)
				if role.Password != state.Redacted("of "+role.Name+"-password") {
					t.Errorf("%s would get another password than the secret's", role.Name)
				}
			}
			if !slices.Equal(renew, test.renew) {
				t.Errorf("it renews %q, want %q", renew, test.renew)
			}
			if (len(want.Fresh) > 0) != test.fresh {
				t.Errorf("it reads %q again", want.Fresh)
			}
			p, wished := want.Patroni.Get()
			if wished != test.patroni {
				t.Errorf("patroni.yml is wished: %t, want %t", wished, test.patroni)
			}
			if wished && p.Passwords.Operator != "of operator-password" {
				t.Error("patroni.yml has another password than Juju")
			}
		})
	}
}

func TestTheLeaderGivesOnlyTheFirstPassword(t *testing.T) {
	t.Parallel()
	for has, want := range map[state.Redacted]state.Redacted{"": "of monitoring-password", "SCRAM-SHA-256$": ""} {
		obs := running()
		obs.Database = state.Value(state.Catalog{Roles: map[string]state.Role{"monitoring": {Verifier: has}}})
		for _, role := range desire(obs, Users{}).Roles {
			if role.Name == "monitoring" && role.Password != want {
				t.Errorf("with the verifier %q the password is wished: %t", has.Reveal(), role.Password != "")
			}
		}
	}
}

func TestAChangedSecretIsPutToUseInAnotherDispatch(t *testing.T) {
	t.Parallel()
	changed := allPasswords()
	changed["rewind-password"] = "new"
	for name, test := range map[string]struct {
		secret state.Secret
		again  bool
	}{
		"one that Juju has":        {state.Secret{Content: allPasswords(), Saved: allPasswords(), Committed: true}, false},
		"one that was replaced":    {state.Secret{Content: changed, Saved: changed, Before: allPasswords()}, true},
		"the first one":            {state.Secret{Content: changed, Saved: changed}, false},
		"a draft that goes beyond": {state.Secret{Content: changed, Saved: allPasswords(), Before: allPasswords()}, false},
	} {
		obs := running()
		obs.Secrets = map[string]state.Secret{"database-peers.db.app": test.secret}
		want := desire(obs, Secrets{})
		if want.Again != test.again || !maps.Equal(want.Secrets[0].Content, test.secret.Content) {
			t.Errorf("%s: again %t, want %t; wished %v", name, want.Again, test.again, want.Secrets)
		}
	}
}
