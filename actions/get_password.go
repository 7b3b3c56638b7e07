package actions

import (
	"fmt"
	"slices"
	"strings"

	"charmhub.io/postgresql-k8s/charm/state"
)

// patroniUser is whom Patroni's REST interface wants to see for what changes
// something. It is no role of the database.
const patroniUser = "patroni"

// withPassword are those whose passwords are in the peer secret, in the order of
// upstream's messages.
var withPassword = append(slices.Clone(state.SystemUsers), patroniUser)

// getPassword tells a system user's password, as Juju has it.
var getPassword = Action{Name: "get-password", Params: []string{"username"},
	Begin: question(func(obs state.Observed, _ state.Desired) (map[string]string, error) {
		user := userParam(obs)
		if !slices.Contains(withPassword, user) {
			return nil, refusal(fmt.Sprintf("The action can be run only for system users or Patroni: %s not %s", strings.Join(withPassword, ", "), user))
		}
		passwords, err := systemPasswords(obs)
		if err != nil {
			return nil, err
		}
		password := passwords[state.PasswordKey(user)]
		if password == "" {
			return nil, fmt.Errorf("%s has no password: only the operating system's postgres user in the workload container can be this user; set-password gives it one", user)
		}
		return map[string]string{"password": password.Reveal()}, nil
	})}

// userParam is the user that an action is about.
func userParam(obs state.Observed) string {
	if user := obs.Params["username"].Reveal(); user != "" {
		return user
	}
	return "operator" // as upstream's how-to has it
}

// systemPasswords are the contents of the peer secret, which Juju has committed.
func systemPasswords(obs state.Observed) (map[string]state.Redacted, error) {
	passwords := obs.Secrets[obs.Unit.PeerSecret()].InForce()
	if len(passwords) == 0 {
		return nil, refusal("there are no passwords yet: the leader makes them when it starts; try again in a minute")
	}
	return passwords, nil
}
