package charm

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"testing"
	"time"

	"charmhub.io/postgresql-k8s/actions"
	"charmhub.io/postgresql-k8s/charm/state"
)

// fake is a system of functions.
type fake struct {
	name    string
	observe func(*state.Observed)
	diff    func(want state.Desired) []state.Step
	apply   func(state.Step) error
}

func (f *fake) Name() string                                           { return f.name }
func (f *fake) Diff(_ state.Observed, want state.Desired) []state.Step { return f.diff(want) }
func (f *fake) Apply(_ context.Context, step state.Step) error         { return f.apply(step) }
func (f *fake) Observe(_ context.Context, obs *state.Observed) error {
	if f.observe != nil {
		f.observe(obs)
	}
	return nil
}
func nothing(state.Desired) []state.Step                              { return nil }
func (m *fakeModel) Report(ctx context.Context, _ state.Status) error { m.reports++; return ctx.Err() }
func (m *fakeModel) Progress(ctx context.Context, text string) error {
	m.log = append(m.log, text)
	return ctx.Err()
}
func (m *fakeModel) Answer(ctx context.Context, r map[string]string, failure error) error {
	m.results, m.failure, m.answers = r, failure, m.answers+1
	return ctx.Err()
}
func (m *fakeModel) Apply(ctx context.Context, step state.Step) error {
	return errors.Join(ctx.Err(), m.apply(step))
}

// hanging is a system whose steps end with the context only.
type hanging struct{ fake }

func (h *hanging) Apply(ctx context.Context, _ state.Step) error {
	<-ctx.Done()
	return ctx.Err()
}

// handler is one of a function.
type handler func(state.Observed, *state.Desired)

func (h handler) Name() string                                   { return "handler" }
func (h handler) Desire(obs state.Observed, want *state.Desired) { h(obs, want) }

// once returns a diff that has steps in the first pass only.
func once(steps ...state.Step) func(state.Desired) []state.Step {
	return func(state.Desired) []state.Step {
		now := steps
		steps = nil
		return now
	}
}

// hook runs a hook within a budget, in a workload that can wake the charm.
func hook(t *testing.T, budget time.Duration, m *fakeModel, wish func(*state.Desired), systems ...System) (out Outcome, woken int, took time.Duration) {
	t.Helper()
	now := time.Unix(0, 0)
	workload := &fake{name: "workload", diff: nothing, observe: func(obs *state.Observed) { obs.Workload = state.Value(state.Workload{}) }}
	c := Charm{
		Model: m, Systems: []System{workload}, Second: systems, Log: slog.New(slog.DiscardHandler),
		Handlers: []Handler{handler(func(_ state.Observed, want *state.Desired) { wish(want) })},
		Wake:     func(ctx context.Context) error { woken++; return ctx.Err() },
		Now:      func() time.Time { return now },
		Sleep:    func(_ context.Context, d time.Duration) { now = now.Add(d) },
	}
	ctx, cancel := context.WithTimeout(t.Context(), budget)
	defer cancel()
	out, err := c.Dispatch(ctx)
	if err != nil {
		t.Error(err)
	}
	return out, woken, now.Sub(time.Unix(0, 0))
}

func TestABudgetThatRunsOutIsNoFailure(t *testing.T) {
	t.Parallel()
	published := 0
	m := &fakeModel{fake: fake{name: "model", diff: once(plain("tell a client")), apply: func(state.Step) error { published++; return nil }}}
	stuck := &hanging{fake{name: "database", diff: func(state.Desired) []state.Step { return []state.Step{plain("create role")} }}}
	out, woken, _ := hook(t, 20*time.Millisecond, m, func(*state.Desired) {}, stuck)
	if published != 1 || m.reports != 1 || woken != 1 {
		t.Errorf("it published %d times, showed %d statuses, and asked %d times for another dispatch", published, m.reports, woken)
	}
	if want := (state.Status{Severity: state.Waiting, Message: state.MessageLate}); out.Status != want {
		t.Errorf("the status is %v, want %v", out.Status, want)
	}
}

func TestAnActionThatTakesTooLongSaysSo(t *testing.T) {
	t.Parallel()
	m := &fakeModel{fake: fake{name: "model", diff: nothing}}
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Millisecond)
	defer cancel()
	woken := 0
	c := Charm{
		Model: m, Action: "test", Log: slog.New(slog.DiscardHandler), Now: time.Now,
		Wake:  func(ctx context.Context) error { woken++; return ctx.Err() },
		Sleep: func(context.Context, time.Duration) { time.Sleep(time.Millisecond) },
		Actions: []actions.Action{{Name: "test", Begin: func(state.Observed) (actions.Task, error) {
			return func(actions.View, *state.Desired) actions.Progress { return actions.Progress{} }, nil
		}}},
	}
	if _, err := c.Dispatch(ctx); err != nil || m.answers != 1 || woken != 1 || !errors.Is(m.failure, context.DeadlineExceeded) {
		t.Errorf("after %d answers, %v, and %d notices the error is %v", m.answers, m.failure, woken, err)
	}
}

// A commit that no replica confirms is the matter of one client: the others are told
// what there is to tell them, which takes some passes.
func TestACommitThatWaitsKeepsNobodyFromBeingServed(t *testing.T) {
	t.Parallel()
	looked, told := false, false
	m := &fakeModel{fake: fake{name: "model", apply: func(step state.Step) error {
		looked, told = true, step == plain("tell a client")
		return nil
	}}}
	m.diff = func(state.Desired) []state.Step {
		switch {
		case !looked:
			return []state.Step{look("read relation")}
		case !told:
			return []state.Step{plain("tell a client")}
		}
		return nil
	}
	waits := &fake{name: "database", diff: func(state.Desired) []state.Step { return []state.Step{plain("create role")} },
		apply: func(state.Step) error { return fmt.Errorf("cannot create role: %w", state.ErrUnconfirmed) }}
	out, woken, took := hook(t, time.Minute, m, func(*state.Desired) {}, waits)
	if !told || woken != 0 || took > later { // a replica that comes back is an event
		t.Errorf("the other client was told: %t; after %s there are %d notices", told, took, woken)
	}
	if want := (state.Status{Severity: state.Waiting, Message: state.MessageUnconfirmed}); out.Status != want {
		t.Errorf("the status is %v, want %v", out.Status, want)
	}
}

// fakeModel is Juju while it runs an action.
type fakeModel struct {
	fake
	log              []string
	results          map[string]string
	failure          error
	answers, reports int
}

// plain is a step that nobody waits for, asked one that somebody does, and look one
// that only reads.
type (
	plain string
	asked string
	look  string
)

func (p plain) String() string { return string(p) }
func (a asked) String() string { return string(a) }
func (asked) Asked()           {}
func (l look) String() string  { return string(l) }
func (look) Looks()            {}

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
	want.Successor = state.Successor{Member: state.Member{Name: "db-1"}}
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

// What follows may end this pod, and the answer would be lost with it.
func TestWhatAnActionPublishedIsCommittedFirst(t *testing.T) {
	t.Parallel()
	for name, test := range map[string]struct {
		wake  error
		steps int
	}{
		"what follows is another dispatch's": {nil, 1},
		"unless that cannot be asked for":    {errors.New("the workload is away"), 2},
	} {
		passes, follows := 0, false
		m := &fakeModel{fake: fake{name: "model", diff: once(plain("note it")), apply: func(state.Step) error { follows = true; return nil }}}
		c := Charm{
			Model: m, Action: "test", Log: slog.New(slog.DiscardHandler), Now: time.Now,
			Actions: []actions.Action{{Name: "test", Begin: func(state.Observed) (actions.Task, error) {
				return func(actions.View, *state.Desired) actions.Progress {
					passes++
					return actions.Progress{Done: passes > 1}
				}, nil
			}}},
			Systems: []System{&fake{name: "system", apply: func(state.Step) error { return nil }, diff: func(state.Desired) []state.Step {
				if !follows {
					return nil
				}
				follows = false
				return []state.Step{plain("let the pod go")}
			}}},
			Wake: func(context.Context) error { return test.wake },
		}
		if out, err := c.Dispatch(t.Context()); err != nil || m.answers != 1 || out.Steps != test.steps {
			t.Errorf("%s: there are %d answers and %d steps, want %d; %v", name, m.answers, out.Steps, test.steps, err)
		}
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

// What waits for others comes back, to let them see what was published. A unit that
// goes may have no hook to come back in.
func TestPatience(t *testing.T) {
	t.Parallel()
	for name, test := range map[string]struct {
		patient   bool
		published bool
		passes    int // until it is over, if it ever is
		least     time.Duration
		most      time.Duration
		woken     int
	}{
		"a start is looked at for some seconds":             {false, false, 1000, patience, patience + poll, 0},
		"and comes back to let others see what it has done": {false, true, 1000, 0, 0, 1},
		"a primary that leaves waits for its successor":     {true, false, 1000, lastPatience, lastPatience + poll, 0},
		"even if there was something to publish":            {true, true, 1000, lastPatience, lastPatience + poll, 0},
		"but no longer than it takes":                       {true, true, 40, 32 * poll, 40 * poll, 0},
	} {
		m := &fakeModel{fake: fake{name: "model", diff: nothing, apply: func(state.Step) error { return nil }}}
		if test.published {
			m.diff = once(plain("announce"))
		}
		passes := 0
		_, woken, took := hook(t, time.Minute, m, func(want *state.Desired) {
			if passes++; passes < test.passes {
				want.Patient = test.patient
				want.Problem(state.Problem{Severity: state.Maintenance, Message: "waiting", Soon: true})
			}
		})
		if took < test.least || took > test.most || woken != test.woken {
			t.Errorf("%s: after %s there are %d notices", name, took, woken)
		}
	}
}

// What clients wait for is told them before what is left to do.
func TestWhatIsUrgentEndsTheHook(t *testing.T) {
	t.Parallel()
	for _, urgent := range []bool{false, true} {
		m := &fakeModel{fake: fake{name: "model", diff: once(plain("set endpoints")), apply: func(state.Step) error { return nil }}}
		slow := &fake{name: "database", diff: once(plain("create role")), apply: func(state.Step) error { return nil }}
		out, woken, _ := hook(t, time.Minute, m, func(want *state.Desired) { want.Urgent = urgent }, slow)
		if ended := out.Passes == 1; ended != urgent || (woken == 1) != urgent {
			t.Errorf("urgent: %t; it ended after %d passes, with %d notices", urgent, out.Passes, woken)
		}
	}
	quiet := &fakeModel{fake: fake{name: "model", diff: nothing}}
	if _, woken, _ := hook(t, time.Minute, quiet, func(want *state.Desired) { want.Urgent = true }); woken != 0 {
		t.Errorf("nothing was published, and there are %d notices", woken)
	}
}

// slow is a step whose outcome shows later.
type slow struct{ plain }

func (slow) Settles() time.Duration { return 3 * time.Second }

// No event tells of the outcome, and a busy machine leaves no time to wait for it.
func TestWhatSettlesLaterIsLookedAtAgain(t *testing.T) {
	t.Parallel()
	for name, test := range map[string]struct {
		pass  time.Duration
		diff  func(state.Desired) []state.Step
		woken int
	}{
		"it is waited for in the hook":                {time.Millisecond, once(slow{"patch"}), 0},
		"the hook has no time for it":                 {patience, once(slow{"patch"}), 1},
		"what does not take keeps nobody busy for it": {time.Millisecond, func(state.Desired) []state.Step { return []state.Step{slow{"patch"}} }, 0},
	} {
		now, woken := time.Unix(0, 0), 0
		workload := &fake{name: "workload", diff: nothing, observe: func(obs *state.Observed) {
			obs.Workload = state.Value(state.Workload{})
		}}
		patroni := &fake{name: "patroni", diff: test.diff, apply: func(state.Step) error { return nil }}
		c := Charm{
			Model: &fakeModel{fake: fake{name: "model", diff: nothing}}, Systems: []System{workload, patroni}, Log: slog.New(slog.DiscardHandler),
			Handlers: []Handler{handler(func(state.Observed, *state.Desired) { now = now.Add(test.pass) })},
			Wake:     func(context.Context) error { woken++; return nil },
			Now:      func() time.Time { return now },
			Sleep:    func(_ context.Context, d time.Duration) { now = now.Add(d) },
		}
		if out, err := c.Dispatch(t.Context()); err != nil || woken != test.woken || test.woken == 0 && out.Passes < 3 {
			t.Errorf("%s: after %d passes there are %d notices; %v", name, out.Passes, woken, err)
		}
	}
}

// What others announce waits for the end of the hook.
func TestALookThatHangsIsNotRepeated(t *testing.T) {
	t.Parallel()
	for _, test := range []struct {
		takes time.Duration
		looks int
	}{{patience / 10, 7}, {patience * 2 / 3, 1}, {2 * patience, 1}} {
		now, looks := time.Unix(0, 0), 0
		c := Charm{
			Model:  &fakeModel{fake: fake{name: "model", diff: nothing}},
			Second: []System{&fake{name: "member", diff: nothing, observe: func(*state.Observed) { looks++; now = now.Add(test.takes) }}},
			Handlers: []Handler{handler(func(_ state.Observed, want *state.Desired) {
				want.Problem(state.Problem{Severity: state.Waiting, Message: "starting", Soon: true})
			})},
			Log:   slog.New(slog.DiscardHandler),
			Now:   func() time.Time { return now },
			Sleep: func(_ context.Context, d time.Duration) { now = now.Add(d) },
		}
		if _, err := c.Dispatch(t.Context()); err != nil || looks != test.looks {
			t.Errorf("of %s each there are %d looks (%v), want %d", test.takes, looks, err, test.looks)
		}
	}
}

// Juju commits what an action wrote if the process exits 0: whoever fails has to know.
func TestHalfOfWhatWasToBePublishedIsToldOf(t *testing.T) {
	t.Parallel()
	for name, test := range map[string]struct {
		steps []state.Step
		fails state.Step
		want  bool
	}{
		"the second step fails":   {[]state.Step{plain("save secret"), plain("record")}, plain("record"), true},
		"the first one, half-way": {[]state.Step{plain("set databag")}, plain("set databag"), true},
		"one that only reads":     {[]state.Step{look("read secret"), plain("record")}, look("read secret"), false},
	} {
		m := &fakeModel{fake: fake{name: "model", diff: once(test.steps...), apply: func(step state.Step) error {
			if step == test.fails {
				return errors.New("no controller")
			}
			return nil
		}}}
		c := Charm{
			Model: m, Action: "test", Log: slog.New(slog.DiscardHandler), Now: time.Now,
			Actions: []actions.Action{{Name: "test", Begin: func(state.Observed) (actions.Task, error) {
				return func(actions.View, *state.Desired) actions.Progress { return actions.Progress{} }, nil
			}}},
		}
		if out, err := c.Dispatch(t.Context()); err == nil || out.Published != test.want {
			t.Errorf("%s: something was published: %t; %v", name, out.Published, err)
		}
	}
}
