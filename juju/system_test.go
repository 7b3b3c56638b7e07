package juju

import (
	"bytes"
	"errors"
	"io"
	"maps"
	"slices"
	"strings"
	"testing"

	"charmhub.io/postgresql-k8s/charm/state"
)

const peerSecret = "database-peers.db.app"

// wishes are those of a unit that leads: a secret with two passwords, a key of
// the peers' databag, two ports and the version.
func wishes(obs state.Observed) state.Desired {
	wish := state.SecretWish{Label: peerSecret, Generate: []string{"first-password", "second-password"}}
	if content := obs.Secrets[peerSecret].Content; len(content) == 2 {
		wish.Content = content
	}
	return state.Desired{
		Secrets:  []state.SecretWish{wish},
		Databags: []state.Databag{{Relation: 1, Content: map[string]string{"cluster_initialised": "True"}}},
		Ports:    []int{5432, 8008},
		Version:  "17.5",
	}
}

func observe(t *testing.T, s *System) state.Observed {
	t.Helper()
	var obs state.Observed
	if err := s.Observe(t.Context(), &obs); err != nil {
		t.Fatal(err)
	}
	return obs
}

// settle makes passes until there are no steps, and returns the text of those
// that there were.
func settle(t *testing.T, s *System, want func(state.Observed) state.Desired) []string {
	t.Helper()
	var texts []string
	for range 10 {
		obs := observe(t, s)
		steps := s.Diff(obs, want(obs))
		if len(steps) == 0 {
			return texts
		}
		for _, step := range steps {
			texts = append(texts, step.String())
			if err := s.Apply(t.Context(), step); err != nil {
				t.Fatal(err)
			}
		}
	}
	t.Fatalf("there is no end of steps: %q", texts)
	return nil
}

func TestJujuIsObservedOnceInADispatch(t *testing.T) {
	t.Parallel()
	m := newModel(true)
	s := m.system("config-changed", newTestCache(t))
	first := observe(t, s)
	calls := len(m.calls)
	m.leader = false // Juju shows one picture for the whole hook
	if second := observe(t, s); !second.Leader || len(m.calls) != calls {
		t.Errorf("it looked again: %q", m.calls[calls:])
	}
	if first.Unit.Name != "db/0" || first.Event.Name != "config-changed" || !first.Leader || first.Config.String("profile") != "testing" {
		t.Errorf("it observed %v", first)
	}
}

func TestTheLeaderPublishesAndThenHasNothingToDo(t *testing.T) {
	t.Parallel()
	m, cache := newModel(true), newTestCache(t)
	first := settle(t, m.system("start", cache), wishes)
	for _, text := range first {
		if strings.Contains(text, "True") {
			t.Errorf("the step %q shows what a databag holds", text)
		}
	}
	if len(m.bags) != 0 || len(m.secrets) != 0 {
		t.Error("something was there before Juju committed it")
	}
	m.commit()

	content := m.secrets[peerSecret].content
	if len(content["first-password"]) != 32 || len(content["second-password"]) != 32 || content["first-password"] == content["second-password"] {
		t.Error("the passwords are not two of 32 characters")
	}
	if got := m.bags["1 db"]["cluster_initialised"]; got != "True" {
		t.Errorf("the databag has %q", got)
	}
	if slices.Sort(m.ports); !slices.Equal(m.ports, []string{"5432/tcp", "8008/tcp"}) || m.version != "17.5" {
		t.Errorf("the open ports are %q and the version is %q", m.ports, m.version)
	}
	m.neverShowed(t, first)

	m.calls = nil
	if second := settle(t, m.system("update-status", cache), wishes); len(second) != 0 {
		t.Errorf("a second dispatch made the steps %q", second)
	}
}

// neverShowed fails the test when a secret was in an argument or a step.
func (m *model) neverShowed(t *testing.T, steps []string) {
	t.Helper()
	if len(m.hidden) == 0 {
		t.Error("there was no secret to be shown")
	}
	for _, secret := range m.hidden {
		for _, line := range append(slices.Clone(m.calls), steps...) {
			if strings.Contains(line, secret) {
				t.Errorf("a secret is in %q", line)
			}
		}
	}
}

func TestAnotherUnitWritesNothingOfTheApplication(t *testing.T) {
	t.Parallel()
	m := newModel(false)
	settle(t, m.system("start", newTestCache(t)), wishes)
	for _, tool := range []string{"relation-set", "secret-add", "secret-set", "secret-grant", "secret-remove"} {
		if n := m.called(tool); n != 0 {
			t.Errorf("it called %s %d times", tool, n)
		}
	}
	m.commit()
	if len(m.ports) != 2 || m.version != "17.5" {
		t.Errorf("the open ports are %q and the version is %q: those are every unit's", m.ports, m.version)
	}
}

func TestASecretIsCommittedOnlyByJuju(t *testing.T) {
	t.Parallel()
	m, cache := newModel(true), newTestCache(t)
	first := m.system("leader-elected", cache)
	settle(t, first, wishes)
	made := observe(t, first).Secrets[peerSecret]
	if made.Committed || len(made.Content) != 2 {
		t.Errorf("in the dispatch that made it, it is %v", made)
	}
	// Juju discards: the next dispatch knows nothing of it.
	m.pending = nil
	second := m.system("leader-elected", cache)
	if lost := observe(t, second).Secrets[peerSecret]; lost.Committed || len(lost.Content) != 0 {
		t.Errorf("after Juju discarded it, it is %v", lost)
	}
	settle(t, second, wishes)
	m.commit()
	kept := observe(t, m.system("start", cache)).Secrets[peerSecret]
	if !kept.Committed || kept.Content["first-password"].Reveal() != m.secrets[peerSecret].content["first-password"] {
		t.Errorf("after Juju committed it, it is %v", kept)
	}
	if kept.Content["first-password"] == made.Content["first-password"] {
		t.Error("a password that Juju discarded was kept")
	}
}

func TestAMissingPasswordIsAddedToThoseThatAreThere(t *testing.T) {
	t.Parallel()
	m := newModel(true)
	m.secrets[peerSecret] = &secret{id: "old", content: map[string]string{"first-password": "chosen by people"}}
	steps := settle(t, m.system("upgrade-charm", newTestCache(t)), wishes)
	m.commit()
	got := m.secrets[peerSecret]
	if got.id != "old" || got.content["first-password"] != "chosen by people" || len(got.content["second-password"]) != 32 {
		t.Errorf("the secret has the keys %v", slices.Collect(maps.Keys(got.content)))
	}
	if m.called("secret-add") != 0 {
		t.Error("a second secret was made")
	}
	m.neverShowed(t, steps)
}

func TestSecretsAreReadFromJujuOnlyWhenTheyMayHaveChanged(t *testing.T) {
	t.Parallel()
	tests := []struct {
		name, event, label string
		reads              int
	}{
		{"an event that has nothing to do with it", "update-status", "", 0},
		{"a change of the secret", "secret-changed", peerSecret, 1},
		{"a change of a secret without a label", "secret-changed", "", 1},
		{"a change of another secret", "secret-changed", "another", 0},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			m, cache := newModel(false), newTestCache(t)
			m.secrets[peerSecret] = &secret{content: map[string]string{"first-password": "old"}}
			observe(t, m.system("start", cache))
			m.secrets[peerSecret].content = map[string]string{"first-password": "new"}
			m.calls = nil
			s := m.system(test.event, cache)
			s.env.Event.Secret = test.label
			got := observe(t, s).Secrets[peerSecret].Content["first-password"].Reveal()
			if want := map[int]string{0: "old", 1: "new"}[test.reads]; m.called("secret-get") != test.reads || got != want {
				t.Errorf("it was read %d times and is %q, want %d and %q", m.called("secret-get"), got, test.reads, want)
			}
		})
	}
}

func TestARelationThatWentAwayIsLeftOut(t *testing.T) {
	t.Parallel()
	m := newModel(false)
	m.fails["relation-get"] = NewToolError("relation-get", "ERROR relation not found", errors.New("exit status 2"))
	if _, ok := observe(t, m.system("start", newTestCache(t))).Relations.Peer(); ok {
		t.Error("it is still there")
	}
}

func TestWithoutAFactOfJujuNothingIsDecided(t *testing.T) {
	t.Parallel()
	for _, tool := range []string{
		"is-leader", "config-get", "opened-ports", "state-get", "status-get", "relation-ids", "relation-get", "secret-get",
	} {
		t.Run(tool, func(t *testing.T) {
			t.Parallel()
			m := newModel(true)
			m.fails[tool] = NewToolError(tool, "ERROR connection is shut down", errors.New("exit status 1"))
			var obs state.Observed
			if err := m.system("start", newTestCache(t)).Observe(t.Context(), &obs); !errors.Is(err, m.fails[tool]) {
				t.Errorf("the error is %v, want %v", err, m.fails[tool])
			}
		})
	}
}

func TestAStepThatFailsIsNotRemembered(t *testing.T) {
	t.Parallel()
	for _, tool := range []string{"open-port", "relation-set", "secret-add", "application-version-set", "state-set"} {
		t.Run(tool, func(t *testing.T) {
			t.Parallel()
			m := newModel(true)
			s := m.system("start", newTestCache(t))
			m.fails[tool] = NewToolError(tool, "ERROR connection is shut down", errors.New("exit status 1"))
			failed := 0
			for range 4 { // passes
				obs := observe(t, s)
				for _, step := range s.Diff(obs, wishes(obs)) {
					if s.Apply(t.Context(), step) != nil {
						failed++
					}
				}
			}
			if failed == 0 {
				t.Error("no step failed")
			}
			delete(m.fails, tool)
			if steps := settle(t, s, wishes); len(steps) == 0 {
				t.Error("it was not tried again")
			}
		})
	}
}

func TestReportWritesOnlyChanges(t *testing.T) {
	t.Parallel()
	waiting := state.Status{Severity: state.Waiting, Message: "awaiting for cluster to start"}
	tests := []struct {
		name            string
		status, message string // that Juju has
		report          []state.Status
		writes          int
	}{
		{"what Juju has is not written", "waiting", "awaiting for cluster to start", []state.Status{waiting, waiting}, 0},
		{"another message is", "waiting", "other", []state.Status{waiting, waiting}, 1},
		{"another severity is", "blocked", "awaiting for cluster to start", []state.Status{waiting}, 1},
		{"a status that is none of ours is replaced", "unknown", "", []state.Status{{Severity: state.Active}}, 1},
		{"there and back is two", "waiting", "awaiting for cluster to start", []state.Status{{Severity: state.Active, Message: "Primary"}, waiting}, 2},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			m := newModel(false)
			m.status, m.message = test.status, test.message
			s := m.system("start", newTestCache(t))
			observe(t, s)
			for _, status := range test.report {
				if err := s.Report(t.Context(), status); err != nil {
					t.Fatal(err)
				}
			}
			if n := m.called("status-set"); n != test.writes {
				t.Errorf("it was written %d times, want %d", n, test.writes)
			}
			last := test.report[len(test.report)-1]
			if m.status != last.Severity.String() || m.message != last.Message {
				t.Errorf("Juju shows %s %q", m.status, m.message)
			}
		})
	}
	t.Run("what could not be written is tried again", func(t *testing.T) {
		t.Parallel()
		m := newModel(false)
		s := m.system("start", newTestCache(t))
		observe(t, s)
		m.fails["status-set"] = errors.New("exit status 1")
		if s.Report(t.Context(), waiting) == nil {
			t.Error("there is no error")
		}
		delete(m.fails, "status-set")
		if err := s.Report(t.Context(), waiting); err != nil || m.status != "waiting" {
			t.Errorf("Juju shows %s, %v", m.status, err)
		}
	})
}

func TestAStepOfSomebodyElseIsAnError(t *testing.T) {
	t.Parallel()
	s := newModel(true).system("start", newTestCache(t))
	if err := s.Apply(t.Context(), otherStep{}); err == nil || err.Error() != "cannot apply juju.otherStep to juju" {
		t.Errorf("the error is %v", err)
	}
}

type otherStep struct{}

func (otherStep) String() string { return "other" }

// endless gives one byte for ever.
type endless byte

func (b endless) Read(p []byte) (int, error) {
	for i := range p {
		p[i] = byte(b)
	}
	return len(p), nil
}

// Every letter and digit comes from as many bytes as every other, and the bytes
// that would favour some are thrown away.
func TestGenerateIsUniform(t *testing.T) {
	t.Parallel()
	counts := map[byte]int{}
	for b := range 248 {
		password, err := generate(endless(b))
		if err != nil {
			t.Fatal(err)
		}
		text := password.Reveal()
		if len(text) != 32 || strings.Trim(text, text[:1]) != "" {
			t.Fatalf("of the byte %d alone it is %q", b, text)
		}
		counts[text[0]]++
	}
	const alphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789"
	if len(counts) != len(alphabet) {
		t.Errorf("it uses %d characters, want %d", len(counts), len(alphabet))
	}
	for _, c := range []byte(alphabet) {
		if counts[c] != 4 {
			t.Errorf("%c comes from %d bytes, want 4", c, counts[c])
		}
	}
	unfair := bytes.Repeat([]byte{248, 249, 250, 251, 252, 253, 254, 255}, 8)
	password, err := generate(io.MultiReader(bytes.NewReader(unfair), endless(1)))
	if err != nil || password.Reveal() != strings.Repeat("B", 32) {
		t.Errorf("after bytes to be thrown away it is %q, %v", password.Reveal(), err)
	}
}

func TestGenerateWithoutEntropyFails(t *testing.T) {
	t.Parallel()
	password, err := generate(bytes.NewReader(make([]byte, 40)))
	if err == nil || password != "" {
		t.Errorf("it gave %q, %v", password.Reveal(), err)
	}
}

func TestWhatJujuHasIsKnownWhileItIsReplaced(t *testing.T) {
	t.Parallel()
	m := newModel(true)
	before := map[string]string{"first-password": "old", "second-password": "same"}
	m.secrets[peerSecret] = &secret{id: "old", content: before}
	s := m.system("set-password", newTestCache(t))
	if got := observe(t, s).Secrets[peerSecret]; got.Replaced() || got.InForce()["first-password"] != "old" {
		t.Errorf("before, it is %v", got)
	}
	changed := map[string]state.Redacted{"first-password": "new", "second-password": "same"}
	if err := s.Apply(t.Context(), SaveSecret{peerSecret, changed}); err != nil {
		t.Fatal(err)
	}
	got := observe(t, s).Secrets[peerSecret]
	if !got.Replaced() || got.InForce()["first-password"] != "old" || got.Saved["first-password"] != "new" || got.Committed {
		t.Errorf("while Juju has not committed it, it is %v", got)
	}
	m.commit()
	if got := observe(t, m.system("start", newTestCache(t))).Secrets[peerSecret]; got.Replaced() || got.InForce()["first-password"] != "new" {
		t.Errorf("after, it is %v", got)
	}
}

func TestASecretThatWasKeptIsReadAgain(t *testing.T) {
	t.Parallel()
	m, cache := newModel(false), newTestCache(t)
	m.secrets[peerSecret] = &secret{content: map[string]string{"first-password": "old"}}
	observe(t, m.system("start", cache))
	m.secrets[peerSecret].content = map[string]string{"first-password": "new"}
	s := m.system("update-status", cache)
	obs := observe(t, s)
	if kept := obs.Secrets[peerSecret]; !kept.Cached || kept.Content["first-password"] != "old" {
		t.Fatalf("it was not kept: %v", kept)
	}
	wish := state.Desired{Fresh: []string{peerSecret}}
	steps := s.Diff(obs, wish)
	if len(steps) != 1 || s.Apply(t.Context(), steps[0]) != nil {
		t.Fatalf("the steps are %v", steps)
	}
	obs = observe(t, s)
	if got := obs.Secrets[peerSecret]; got.Cached || got.Content["first-password"] != "new" || !got.Committed {
		t.Errorf("it is %v", got)
	}
	if steps := s.Diff(obs, wish); len(steps) > 0 {
		t.Errorf("then it is read once more: %v", steps)
	}
}

func TestAnActionSeesItsParametersAndFreshSecrets(t *testing.T) {
	t.Parallel()
	m, cache := newModel(false), newTestCache(t)
	m.params = map[string]any{"username": "rewind", "force": true}
	m.secrets[peerSecret] = &secret{content: map[string]string{"first-password": "old"}}
	observe(t, m.system("start", cache))
	m.secrets[peerSecret].content = map[string]string{"first-password": "new"}
	s := m.system("get-password", cache)
	s.env.Event.Action = "get-password"
	obs := observe(t, s)
	if obs.Params["username"] != "rewind" || obs.Params["force"] != "true" || obs.Params["missing"] != "" {
		t.Errorf("the parameters are %d", len(obs.Params))
	}
	if obs.Secrets[peerSecret].Content["first-password"] != "new" {
		t.Error("the secret is an old one")
	}
	if err := s.Progress(t.Context(), "waiting"); err != nil || m.called("action-log") != 1 {
		t.Errorf("progress: %v, %q", err, m.calls)
	}
}

func TestWhatUnitsTellOfARefresh(t *testing.T) {
	t.Parallel()
	m := newModel(false)
	m.relations["upgrade"] = map[int]string{2: "db"}
	m.bags["2 db"] = map[string]string{"upgrade-stack": "[0, 1]", "dependencies": "{}"}
	s := m.system("start", newTestCache(t))
	obs := observe(t, s)
	if stack := obs.Stack(); !slices.Equal(stack, []int{0, 1}) {
		t.Errorf("the stack is %v", stack)
	}
	for range 2 { // the second time it is known
		for _, step := range s.Diff(obs, state.Desired{Refreshed: "completed"}) {
			if err := s.Apply(t.Context(), step); err != nil {
				t.Fatal(err)
			}
		}
		m.commit()
		obs = observe(t, s)
	}
	if got := m.bags["2 db/0"]["state"]; got != "completed" || m.called("relation-set") != 1 {
		t.Errorf("it tells %q, in %d calls", got, m.called("relation-set"))
	}
	if steps := s.Diff(obs, state.Desired{}); len(steps) != 0 {
		t.Errorf("without a wish the steps are %v", steps)
	}
}
