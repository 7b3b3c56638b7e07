package actions

import (
	"errors"
	"fmt"
	"maps"
	"net/url"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"charmhub.io/postgresql-k8s/charm/state"
)

// setPassword gives a user another password: a system user, Patroni, or the user
// of a relation whose application follows secrets. One action does for all of them
// because what people have in mind is the same, a name and a password.
//
// It only changes Juju's secret. Until Juju has committed that, which is when the
// action is over, everything goes on with the old password: nothing that could be
// discarded is ever told to a server. The dispatches that follow, wherever they are
// and whatever becomes of each, compare what the server accepts with what the
// secret shows.
var setPassword = Action{Name: "set-password", Params: []string{"username", "password"},
	Begin: func(obs state.Observed) (Task, error) {
		if !obs.Leader {
			return nil, notLeader(obs)
		}
		if obs.Leaving {
			return nil, errors.New("this unit is on its way out: run the action on the next leader")
		}
		given, isGiven := obs.Params["password"]
		if isGiven {
			if err := checkPassword(given); err != nil {
				return nil, err
			}
		}
		user := userParam(obs)
		if slices.Contains(withPassword, user) {
			return setSystemPassword(obs, user, given)
		}
		if match := relationUser.FindStringSubmatch(user); match != nil {
			return setRelationPassword(obs, user, match[1], match[2], given)
		}
		return nil, refusal(fmt.Sprintf("The action can be run only for system users or Patroni: %s not %s; or for the user of a relation, such as %s7",
			strings.Join(withPassword, ", "), user, state.RelationUser))
	}}

// longest is the most characters that a password may have: some clients read it
// into a buffer of a few hundred bytes.
const longest = 128

// checkPassword refuses what not all clients would send in the same bytes: beyond
// ASCII they normalize a password (SASLprep, RFC 4013), or not.
func checkPassword(password state.Redacted) error {
	text := password.Reveal()
	if text == "" {
		return errors.New("the password is empty: leave the parameter out to have one generated")
	}
	if len(text) > longest {
		return fmt.Errorf("the password has more than %d characters", longest)
	}
	if strings.ContainsFunc(text, func(r rune) bool { return r < ' ' || r > '~' }) {
		return errors.New("the password may have printable ASCII characters only")
	}
	return nil
}

// drafted is where a password is generated. No secret of that label is ever saved.
const drafted = "set-password.draft"

// replacement is the password to be set: the given one, or one that is generated.
func replacement(view View, want *state.Desired, given state.Redacted) (password state.Redacted, ready bool) {
	if given != "" {
		return given, true
	}
	password = view.Secrets[drafted].Content["password"]
	if password == "" {
		want.Secrets = append(want.Secrets, state.SecretWish{Label: drafted, Generate: []string{"password"}})
	}
	return password, password != ""
}

func setSystemPassword(obs state.Observed, user string, given state.Redacted) (Task, error) {
	passwords, err := systemPasswords(obs)
	if err != nil {
		return nil, err
	}
	label, key := obs.Unit.PeerSecret(), state.PasswordKey(user)
	if given != "" && given == passwords[key] {
		return answered(Progress{Log: "The old and new passwords are equal.", Results: map[string]string{"password": given.Reveal()}}), nil
	}
	return bounded(func(view View, want *state.Desired) Progress {
		password, ready := replacement(view, want, given)
		if !ready {
			return Progress{}
		}
		if view.Secrets[label].Saved[key] == password {
			return Progress{Done: true, Results: map[string]string{"password": password.Reveal()}}
		}
		want.Secrets = slices.Clone(want.Secrets)
		for i, wish := range want.Secrets {
			if wish.Label == label && wish.Content != nil {
				want.Secrets[i].Content = maps.Clone(wish.Content)
				want.Secrets[i].Content[key] = password
			}
		}
		return Progress{Log: "replacing the password of " + user + " in secret " + label}
	}), nil
}

// relationUser are the names that the relations' handlers give.
var relationUser = regexp.MustCompile(`^` + state.RelationUser + `(\d+)(?:_([0-9A-Za-z]+))?$`)

// setRelationPassword replaces the password in the secret of a relation. In the same
// commit the leaders' record says that this relation is to be looked at: whoever
// leads next then gives the user the password that the secret shows.
func setRelationPassword(obs state.Observed, user, relation, request string, given state.Redacted) (Task, error) {
	id, err := strconv.Atoi(relation)
	if err != nil {
		return nil, fmt.Errorf("there is no relation %s", relation)
	}
	r, ok := obs.Relations.ByID(id)
	if !ok || r.Endpoint == state.PeerEndpoint {
		return nil, fmt.Errorf("there is no relation %d with a client application: juju status --relations shows the applications, and status of %s/leader the numbers", id, obs.Unit.App)
	}
	label := state.ClientSecret(r.Endpoint, id, request, "user")
	return bounded(func(view View, want *state.Desired) Progress {
		r, _ := view.Relations.ByID(id)
		secret, read := view.Secrets[label]
		switch {
		case !r.Read:
			want.Look = append(want.Look, id)
			return Progress{}
		case r.Endpoint != state.DatabaseEndpoint || r.LocalApp["password"] != "":
			return Progress{Failure: fmt.Errorf("%s of relation %d got its password in plain text, and follows no change of it: remove the relation and integrate again", r.RemoteApp, id)}
		case !read:
			want.Secrets = append(want.Secrets, state.SecretWish{Label: label})
			return Progress{}
		case secret.Content["password"] == "" || secret.Content["username"].Reveal() != user:
			return Progress{Failure: fmt.Errorf("%s has no secret with a user %s: it asked for none, or has not been served yet", r.RemoteApp, user)}
		}
		password, ready := replacement(view, want, given)
		switch {
		case !ready:
			return Progress{}
		case secret.Saved["password"] == password:
			return Progress{Done: true, Results: map[string]string{"password": password.Reveal()}}
		}
		client, recorded := want.Clients[id]
		if !recorded {
			return Progress{Failure: fmt.Errorf("relation %d is not served now: look at status, and try again", id)}
		}
		content, err := withRelationPassword(secret.Content, user, password)
		if err != nil {
			return Progress{Failure: err}
		}
		want.Secrets = append(want.Secrets, state.SecretWish{Label: label, Content: content})
		want.Clients, client.Digest = maps.Clone(want.Clients), state.PendingDigest
		want.Clients[id], want.Again = client, true
		return Progress{Log: "replacing the password of " + user + " in secret " + label}
	}), nil
}

// withRelationPassword is the content of a relation's secret with another password,
// which its URIs have, too.
func withRelationPassword(content map[string]state.Redacted, user string, password state.Redacted) (map[string]state.Redacted, error) {
	content = maps.Clone(content)
	content["password"] = password
	for _, key := range []string{"uris", "read-only-uris"} {
		if content[key] == "" {
			continue
		}
		uri, err := url.Parse(content[key].Reveal())
		if err != nil {
			return nil, fmt.Errorf("cannot read %s of the relation's secret", key) // the error would show it
		}
		uri.User = url.UserPassword(user, password.Reveal())
		content[key] = state.Redacted(uri.String())
	}
	return content, nil
}
