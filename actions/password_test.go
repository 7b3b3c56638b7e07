package actions

import (
	"maps"
	"strings"
	"testing"
	"time"

	"charmhub.io/postgresql-k8s/charm/state"
)

var unit = state.Unit{Name: "db/0", App: "db", Model: "test", ModelUUID: "uuid"}

const peerSecret = "database-peers.db.app"

func passwords() map[string]state.Redacted {
	content := map[string]state.Redacted{}
	for _, user := range []string{"operator", "replication", "rewind", "monitoring", "patroni"} {
		content[user+"-password"] = state.Redacted("of " + user)
	}
	return content
}

// leading is what the leader observes.
func leading(action string, params map[string]state.Redacted) state.Observed {
	return state.Observed{
		Unit: unit, Leader: true, Event: state.Event{Name: action, Action: action}, Params: params,
		Secrets: map[string]state.Secret{peerSecret: {Content: passwords(), Saved: passwords(), Committed: true}},
		Relations: state.Relations{
			"database-peers": {{ID: 1, Endpoint: "database-peers"}},
			"database": {
				{ID: 7, Endpoint: "database", RemoteApp: "shop", Read: true, LocalApp: map[string]string{"secret-user": "secret:x"}},
				{ID: 8, Endpoint: "database", RemoteApp: "plain", Read: true, LocalApp: map[string]string{"password": "old"}},
				{ID: 9, Endpoint: "database", RemoteApp: "unread"},
			},
		},
		Clients: map[int]state.Client{7: {App: "shop", Digest: "done"}},
	}
}

func failsWith(t *testing.T, err error, text string) {
	t.Helper()
	if (err != nil) != (text != "") || err != nil && !strings.Contains(err.Error(), text) {
		t.Errorf("the error is %v, want %q", err, text)
	}
}

func TestGetPassword(t *testing.T) {
	t.Parallel()
	tests := []struct {
		name, user, password, failure string
		change                        func(*state.Observed)
	}{
		{name: "the operator user's by default", password: "of operator"},
		{name: "another system user's", user: "rewind", password: "of rewind"},
		{name: "Patroni's", user: "patroni", password: "of patroni"},
		{name: "any unit tells it", password: "of operator", change: func(o *state.Observed) { o.Leader = false }},
		{name: "one that is no system user's", user: "postgres",
			failure: "The action can be run only for system users or Patroni: backup, replication, rewind, operator, monitoring, patroni not postgres"},
		{name: "that of a user without one", user: "backup", failure: "backup has no password"},
		{name: "before there are any", failure: "there are no passwords yet", change: func(o *state.Observed) { o.Secrets = nil }},
		{name: "before Juju has them", failure: "there are no passwords yet", change: func(o *state.Observed) {
			o.Secrets = map[string]state.Secret{peerSecret: {Content: passwords()}}
		}},
		{name: "one that Juju has, not the draft", password: "of operator", change: func(o *state.Observed) {
			o.Secrets = map[string]state.Secret{peerSecret: {Content: map[string]state.Redacted{"operator-password": "draft"}, Before: passwords()}}
		}},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			obs := leading("get-password", map[string]state.Redacted{"username": state.Redacted(test.user)})
			if test.change != nil {
				test.change(&obs)
			}
			results, err := run(t, getPassword, obs)
			failsWith(t, err, test.failure)
			if results["password"] != test.password {
				t.Errorf("the password is %q, want %q", results["password"], test.password)
			}
		})
	}
}

func TestSetPasswordRefuses(t *testing.T) {
	t.Parallel()
	tests := []struct {
		name, user, password, failure string
		change                        func(*state.Observed)
	}{
		{name: "a unit that does not lead", failure: "The action can be run only on leader unit: juju run db/leader set-password", change: func(o *state.Observed) { o.Leader = false }},
		{name: "a unit on its way out", failure: "on its way out", change: func(o *state.Observed) { o.Leaving = true }},
		{name: "somebody else", user: "postgres", failure: "The action can be run only for system users or Patroni: backup, replication, rewind, operator, monitoring, patroni not postgres"},
		{name: "an odd name", user: "relation_id_7; DROP", failure: "only for system users"},
		{name: "a password with a line break", password: "a\nb", failure: "printable ASCII characters only"},
		{name: "a password that clients normalize", password: "ﬁ", failure: "printable ASCII characters only"},
		{name: "a password that is too long", password: strings.Repeat("a", 129), failure: "more than 128 characters"},
		{name: "before there are passwords", failure: "there are no passwords yet", change: func(o *state.Observed) { o.Secrets = nil }},
		{name: "a relation that is not there", user: "relation_id_70", failure: "there is no relation 70"},
		{name: "the peers", user: "relation_id_1", failure: "there is no relation 1"},
		{name: "a number that is none", user: "relation_id_99999999999999999999", failure: "there is no relation"},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			params := map[string]state.Redacted{"username": state.Redacted(test.user)}
			if test.password != "" {
				params["password"] = state.Redacted(test.password)
			}
			obs := leading("set-password", params)
			if test.change != nil {
				test.change(&obs)
			}
			_, err := setPassword.Begin(obs)
			failsWith(t, err, test.failure)
			if err != nil && test.password != "" && strings.Contains(err.Error(), test.password) {
				t.Error("the error shows the password")
			}
		})
	}
	empty := leading("set-password", map[string]state.Redacted{"password": ""})
	_, err := setPassword.Begin(empty)
	failsWith(t, err, "the password is empty")
}

// begin starts an action that does not refuse.
func begin(t *testing.T, a Action, obs state.Observed) Task {
	t.Helper()
	task, err := a.Begin(obs)
	if err != nil {
		t.Fatal(err)
	}
	return task
}

func TestSetPasswordReplacesOneKeyOfTheSecret(t *testing.T) {
	t.Parallel()
	for _, given := range []state.Redacted{"", "mine"} {
		params := map[string]state.Redacted{"username": "rewind"}
		if given != "" {
			params["password"] = given
		}
		obs := leading("set-password", params)
		task := begin(t, setPassword, obs)
		if given == "" {
			progress, want := pass(task, obs, 0, nil)
			if progress.Done || len(want.Secrets) != 1 || want.Secrets[0].Label != drafted || want.Secrets[0].Content != nil {
				t.Fatalf("it wishes %v for a draft", want.Secrets)
			}
			obs.Secrets[drafted] = state.Secret{Content: map[string]state.Redacted{"password": "generated"}}
		}
		wished := passwords()
		wished["rewind-password"] = map[bool]state.Redacted{true: "generated", false: "mine"}[given == ""]
		want := state.Desired{Secrets: []state.SecretWish{{Label: peerSecret, Content: passwords()}}}
		if progress := task(View{Observed: obs}, &want); progress.Done || !maps.Equal(want.Secrets[0].Content, wished) {
			t.Errorf("the secret should be %d keys with one changed: done %t", len(want.Secrets[0].Content), progress.Done)
		}
		if !maps.Equal(obs.Secrets[peerSecret].Content, passwords()) {
			t.Error("it changed what was observed")
		}
		obs.Secrets[peerSecret] = state.Secret{Content: wished, Saved: wished, Before: passwords()}
		progress, want := pass(task, obs, 0, nil)
		if !progress.Done || progress.Results["password"] != wished["rewind-password"].Reveal() || len(want.Secrets) > 0 {
			t.Errorf("once it is saved, the result is %v", progress.Results)
		}
	}
}

func TestSetPasswordOfEqualPasswords(t *testing.T) {
	t.Parallel()
	obs := leading("set-password", map[string]state.Redacted{"password": "of operator"})
	progress, want := pass(begin(t, setPassword, obs), obs, 0, nil)
	if !progress.Done || progress.Log != "The old and new passwords are equal." || len(want.Secrets) > 0 {
		t.Errorf("it says %q and wishes %v", progress.Log, want.Secrets)
	}
}

func TestSetPasswordDoesNotWaitForEver(t *testing.T) {
	t.Parallel()
	obs := leading("set-password", map[string]state.Redacted{"password": "mine"})
	progress, want := pass(begin(t, setPassword, obs), obs, 2*time.Minute, nil)
	failsWith(t, progress.Failure, "it was not done within 60 seconds")
	if len(want.Secrets) > 0 {
		t.Error("it failed, and wishes something all the same")
	}
}

func TestSetPasswordOfARelation(t *testing.T) {
	t.Parallel()
	obs := leading("set-password", map[string]state.Redacted{"username": "relation_id_7", "password": "my/new:one@"})
	task := begin(t, setPassword, obs)
	const label = "database.7.user.secret"
	if progress, want := pass(task, obs, 0, nil); progress.Done || len(want.Secrets) != 1 || want.Secrets[0].Label != label {
		t.Fatalf("it does not read the secret, but wishes %v", want.Secrets)
	}
	content := map[string]state.Redacted{
		"username": "relation_id_7", "password": "old", "uris": "postgresql://relation_id_7:old@db-primary.test.svc:5432/a%2Fb",
	}
	obs.Secrets[label] = state.Secret{URI: "secret:x", Content: content, Saved: content, Committed: true}
	want := state.Desired{Clients: map[int]state.Client{7: {App: "shop", Digest: "done", Secrets: []string{"secret:x"}}}}
	task(View{Observed: obs}, &want)
	changed := map[string]state.Redacted{
		"username": "relation_id_7", "password": "my/new:one@", "uris": "postgresql://relation_id_7:my%2Fnew%3Aone%40@db-primary.test.svc:5432/a%2Fb",
	}
	if len(want.Secrets) != 1 || !maps.Equal(want.Secrets[0].Content, changed) {
		t.Errorf("the secret is not as it should be; its uris are %s", want.Secrets[0].Content["uris"].Reveal())
	}
	if c := want.Clients[7]; c.Digest != state.PendingDigest || c.App != "shop" || !want.Again {
		t.Errorf("the record of the relation is %+v, again %t", c, want.Again)
	}
	obs.Secrets[label] = state.Secret{URI: "secret:x", Content: changed, Saved: changed, Before: content}
	if progress, _ := pass(task, obs, 0, nil); !progress.Done || progress.Results["password"] != "my/new:one@" {
		t.Errorf("once it is saved, the result is %+v", progress)
	}
}

func TestSetPasswordOfARelationThatFollowsNoSecret(t *testing.T) {
	t.Parallel()
	for name, test := range map[string]struct {
		user    state.Redacted
		secret  map[string]state.Redacted
		failure string
	}{
		"one in plain text":       {user: "relation_id_8", failure: "plain of relation 8 got its password in plain text"},
		"one without a secret":    {user: "relation_id_7", failure: "shop has no secret with a user relation_id_7"},
		"one of another request":  {user: "relation_id_7_00aa", failure: "shop has no secret with a user relation_id_7_00aa"},
		"one that is not its own": {user: "relation_id_7", secret: map[string]state.Redacted{"password": "x", "username": "other"}, failure: "has no secret with a user"},
	} {
		obs := leading("set-password", map[string]state.Redacted{"username": test.user})
		obs.Secrets["database.7.user.secret"] = state.Secret{Content: test.secret}
		obs.Secrets["database.7.00aa.user.secret"] = state.Secret{}
		progress, want := pass(begin(t, setPassword, obs), obs, 0, nil)
		t.Log(name)
		failsWith(t, progress.Failure, test.failure)
		if len(want.Secrets)+len(want.Clients) > 0 {
			t.Errorf("%s: it wishes %v", name, want.Secrets)
		}
	}
	obs := leading("set-password", map[string]state.Redacted{"username": "relation_id_9"})
	if progress, want := pass(begin(t, setPassword, obs), obs, 0, nil); progress.Failure != nil || len(want.Look) != 1 {
		t.Errorf("a relation that was not read is not looked at: %+v", progress)
	}
}
