package charm

import (
	"context"
	"errors"
	"log/slog"
	"strings"
	"testing"
	"time"

	"charmhub.io/postgresql-k8s/actions"
	"charmhub.io/postgresql-k8s/charm/state"
)

// fake is a system of functions.
type fake struct {
	name  string
	diff  func(want state.Desired) []state.Step
	apply func(state.Step) error
}

func (f *fake) Name() string                                           { return f.name }
func (f *fake) Observe(context.Context, *state.Observed) error         { return nil }
func (f *fake) Diff(_ state.Observed, want state.Desired) []state.Step { return f.diff(want) }
func (f *fake) Apply(_ context.Context, step state.Step) error         { return f.apply(step) }
func nothing(state.Desired) []state.Step                               { return nil }
func (m *fakeModel) Report(context.Context, state.Status) error        { m.reports++; return nil }
func (m *fakeModel) Progress(_ context.Context, text string) error {
	m.log = append(m.log, text)
	return nil
}
func (m *fakeModel) Answer(_ context.Context, r map[string]string, failure error) error {
	m.results, m.failure, m.answers = r, failure, m.answers+1
	return nil
}

// fakeModel is Juju while it runs an action.
type fakeModel struct {
	fake
	log              []string
	results          map[string]string
	failure          error
	answers, reports int
}

// plain is a step that nobody waits for, and asked one that somebody does.
type (
	plain string
	asked string
)

func (p plain) String() string { return string(p) }
func (a asked) String() string { return string(a) }
func (asked) Asked()           {}

// dispatch runs an action that wishes a successor as long as it is asked.
func dispatch(t *testing.T, task actions.Task, refusal error, systems ...System) (*fakeModel, Outcome) {
	t.Helper()
	m := &fakeModel{fake: fake{name: "model", diff: nothing}}
	now := time.Unix(0, 0)
	c := Charm{
		Model: m, Systems: systems, Log: slog.New(slog.DiscardHandler),
		Action:  "test",
		Actions: []actions.Action{{Name: "test", Begin: func(state.Observed) (actions.Task, error) { return task, refusal }}},
		Wake:    func(context.Context) error { return nil },
		Now:     func() time.Time { return now },
		Sleep:   func(_ context.Context, d time.Duration) { now = now.Add(d) },
	}
	out, err := c.Dispatch(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if m.answers != 1 || m.reports == 0 {
		t.Errorf("there are %d answers and %d statuses", m.answers, m.reports)
	}
	return m, out
}

func wishing(view actions.View, want *state.Desired, done bool) actions.Progress {
	if view.Failed != nil || done {
		return actions.Progress{Done: true, Failure: view.Failed, Results: map[string]string{"took": view.Took.String()}}
	}
	want.Successor = state.Member{Name: "db-1"}
	return actions.Progress{Log: "waiting"}
}

func TestAnActionIsAskedUntilItIsDone(t *testing.T) {
	t.Parallel()
	passes, after := 0, 0
	task := func(view actions.View, want *state.Desired) actions.Progress {
		passes++
		return wishing(view, want, passes > 3*maxPasses)
	}
	system := &fake{name: "system", apply: func(state.Step) error { return nil }, diff: func(want state.Desired) []state.Step {
		if want.Successor.Name != "" {
			return nil // it takes its time
		}
		if after++; after > 3 {
			return nil
		}
		return []state.Step{plain("what follows")}
	}}
	m, out := dispatch(t, task, nil, system)
	if m.failure != nil || m.results["took"] != (3*maxPasses*poll).String() || len(m.log) != 1 {
		t.Errorf("it says %v, %v, %q", m.results, m.failure, m.log)
	}
	if out.Steps != 3 {
		t.Errorf("after it there were %d steps, want 3: the bounds of the loop are for what comes then", out.Steps)
	}
}

func TestOnlyWhatAnActionAskedForIsItsFailure(t *testing.T) {
	t.Parallel()
	broken := errors.New("broken")
	for name, test := range map[string]struct {
		steps   []state.Step
		fails   state.Step
		failure string
	}{
		"what it asked for":                     {[]state.Step{asked("switch over")}, asked("switch over"), "broken"},
		"a step before it, which kept it away":  {[]state.Step{plain("reload"), asked("switch over")}, plain("reload"), "broken"},
		"another one, after it":                 {[]state.Step{asked("switch over"), plain("reload")}, plain("reload"), ""},
		"a client's, of which it knows nothing": {[]state.Step{plain("create role")}, plain("create role"), ""},
	} {
		passes := 0
		task := func(view actions.View, want *state.Desired) actions.Progress {
			passes++
			return wishing(view, want, passes > 4)
		}
		system := &fake{name: "system", diff: func(want state.Desired) []state.Step {
			if want.Successor.Name == "" {
				return nil
			}
			return test.steps
		}, apply: func(step state.Step) error {
			if step == test.fails {
				return broken
			}
			return nil
		}}
		m, _ := dispatch(t, task, nil, system)
		if (m.failure != nil) != (test.failure != "") || m.failure != nil && !strings.Contains(m.failure.Error(), test.failure) {
			t.Errorf("%s: the failure is %v, want %q", name, m.failure, test.failure)
		}
	}
}

func TestAnActionThatRefusesChangesNothing(t *testing.T) {
	t.Parallel()
	system := &fake{name: "system", diff: func(want state.Desired) []state.Step {
		if want.Successor.Name != "" {
			return []state.Step{asked("switch over")}
		}
		return nil
	}, apply: func(state.Step) error { return nil }}
	m, out := dispatch(t, nil, errors.New("not here"), system)
	if out.Steps != 0 || m.failure == nil || m.failure.Error() != "not here" {
		t.Errorf("after %d steps it says %v", out.Steps, m.failure)
	}
}
