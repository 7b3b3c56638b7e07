package charm

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"time"

	"golang.org/x/sync/errgroup"

	"charmhub.io/postgresql-k8s/actions"
	"charmhub.io/postgresql-k8s/charm/core"
	"charmhub.io/postgresql-k8s/charm/state"
	"charmhub.io/postgresql-k8s/patroni"
	"charmhub.io/postgresql-k8s/postgres"
	"charmhub.io/postgresql-k8s/relations/clients"
	"charmhub.io/postgresql-k8s/relations/database"
	"charmhub.io/postgresql-k8s/relations/pgsql"
)

// A System is one thing outside the process that the charm reads and changes.
// Observe and Apply do I/O; Diff is pure.
type System interface {
	Name() string
	// Observe fills the system's own fields of obs. A system that is away is
	// unknown there, which is no error.
	Observe(ctx context.Context, obs *state.Observed) error
	Diff(obs state.Observed, want state.Desired) []state.Step
	Apply(ctx context.Context, step state.Step) error
}

// Independent is a system whose steps do not depend on each other: when one
// fails, the others are made all the same. So one application's trouble in the
// database does not become everybody's.
type Independent interface {
	System
	Independent()
}

// A Model is the system that Juju is: it also shows the unit's status and what an
// action came to.
type Model interface {
	System
	Report(ctx context.Context, status state.Status) error
	Progress(ctx context.Context, text string) error
	Answer(ctx context.Context, results map[string]string, failure error) error
}

// A Handler says what one concern wants, given what was observed. It is pure.
type Handler interface {
	Name() string
	Desire(obs state.Observed, want *state.Desired)
}

// Handlers returns all handlers, in their order: first what the charm is for,
// then what renders the wishes of the others.
func Handlers() []Handler {
	return []Handler{
		core.Secrets{}, core.Objects{}, core.Member{}, core.Replication{}, core.Succession{}, core.Restarts{}, core.Users{}, core.Model{},
		clients.Handler{}, database.Handler{}, pgsql.Handler{}, pgsql.Handler{Admin: true},
		postgres.Handler{}, patroni.Handler{}, core.Told{}, core.Refresh{},
	}
}

// Budgets of one dispatch.
const (
	// Budget is for all of it, whatever hangs: Juju itself has no limit, and a unit in
	// a hook serves nobody else.
	Budget = 40 * time.Second
	// patience is how long a dispatch looks again for what should be over soon.
	// Beyond it the wake-up of the workload's checks is as quick.
	patience = 6 * time.Second
	// lastPatience is that of a unit that has something to end before it goes: it has
	// but some hooks left, and nothing else needs it. The last pass has the rest.
	lastPatience = Budget - 10*time.Second
	poll         = 300 * time.Millisecond
	// soon is the pause in the first second: a promotion takes so long, and clients wait
	// for it.
	soon = 100 * time.Millisecond
	// later is between two dispatches that look for what no event tells of.
	later = time.Second
	// maxPasses are those without a pause, far more than any sequence of wishes needs.
	maxPasses = 25
)

// Charm is one dispatch of the charm.
type Charm struct {
	// Model goes on when the budget is used up: what was done is to be published. Its
	// tools have timeouts of their own.
	Model Model
	// Systems are observed together with the model.
	Systems []System
	// Second are observed after that: they need the facts of the others.
	Second   []System
	Handlers []Handler
	Actions  []actions.Action
	// Action is the one that Juju runs, "" in a hook.
	Action string
	Log    *slog.Logger

	// Wake has Juju dispatch the charm again after this dispatch.
	Wake  func(ctx context.Context) error
	Now   func() time.Time
	Sleep func(ctx context.Context, d time.Duration)
}

// Outcome is what a dispatch came to.
type Outcome struct {
	Passes, Steps int
	Published     bool // Juju has something to commit, or half of it
	Status        state.Status
	Took          map[string]time.Duration // to observe each system, in the last pass
}

// Dispatch makes the world so, as far as that is possible before ctx ends, and the
// next dispatch goes on. An error means that Juju must discard what was written and
// run the hook again.
func (c *Charm) Dispatch(ctx context.Context) (Outcome, error) {
	var out Outcome
	if c.Action != "" {
		if err := c.act(ctx, &out); err != nil {
			return out, err
		}
		// Who asked waits for the end of this, and what follows may end this pod.
		if out.Published && c.Wake(context.WithoutCancel(ctx)) == nil {
			return out, nil
		}
	}
	err := c.settle(ctx, &out)
	return out, err
}

// act runs the action until it is done. It ends by itself; the bounds of settle are
// for what nobody waits for.
func (c *Charm) act(ctx context.Context, out *Outcome) error {
	steady, start, told := context.WithoutCancel(ctx), c.Now(), ""
	var task actions.Task
	var failed error // what it has asked for in the pass before
	for {
		obs, err := c.observe(ctx, out)
		if err != nil {
			return err
		}
		if ctx.Err() != nil {
			return c.Model.Answer(steady, nil, fmt.Errorf("cannot finish the action in time: %w", ctx.Err()))
		}
		if task == nil {
			if task, err = c.begin(obs); err != nil {
				return c.Model.Answer(steady, nil, err)
			}
		}
		want := Desire(c.Handlers, obs)
		progress := task(actions.View{Observed: obs, Took: c.Now().Sub(start), Failed: failed}, &want)
		if progress.Log != "" && progress.Log != told {
			told = progress.Log
			if err := c.Model.Progress(steady, told); err != nil {
				return err
			}
		}
		if progress.Done || progress.Failure != nil {
			return c.Model.Answer(steady, progress.Results, progress.Failure)
		}
		did, err := c.apply(ctx, obs, want, out)
		if err != nil {
			return err
		}
		if failed = did.asked; did.steps+did.looks == 0 || did.failed != nil {
			c.Sleep(ctx, poll)
		}
	}
}

// begin returns the task of the action, unless that refuses to run.
func (c *Charm) begin(obs state.Observed) (actions.Task, error) {
	i := slices.IndexFunc(c.Actions, func(a actions.Action) bool { return a.Name == c.Action })
	if i < 0 {
		return nil, fmt.Errorf("this revision of the charm has no action %q", c.Action)
	}
	return c.Actions[i].Begin(obs)
}

// settle makes passes until there is nothing left to do or to wait for.
func (c *Charm) settle(ctx context.Context, out *Outcome) error {
	steady, start, settled := context.WithoutCancel(ctx), c.Now(), c.Now()
	reachable := true // Wake is a notice of the workload's
	slow := 0         // passes with a step that settles later
	// Passes are those since the last pause.
	for passes := 1; ; passes++ {
		began := c.Now()
		obs, err := c.observe(ctx, out)
		if err != nil {
			return err
		}
		var want state.Desired
		var did done
		if ctx.Err() == nil { // or the facts are only what there was time for
			_, reachable = obs.Workload.Get()
			want = Desire(c.Handlers, obs)
			if did, err = c.apply(ctx, obs, want, out); err != nil {
				return err
			}
		}
		switch {
		case ctx.Err() != nil:
			want.Later = true
			want.Problem(state.Problem{Severity: state.Waiting, Message: state.MessageLate})
		case errors.Is(did.failed, state.ErrUnconfirmed):
			// That was waited for long enough. When a replica comes back, that is an event.
			cluster, _ := obs.Cluster.Get()
			want.Later = want.Later || slices.ContainsFunc(cluster.Members, func(m state.Member) bool { return m.Role != "leader" && m.Well() })
			want.Problem(state.Problem{Severity: state.Waiting, Message: state.MessageUnconfirmed})
		case did.failed != nil:
			want.Problem(state.Problem{Severity: state.Waiting, Message: state.MessageFailed(did.failed), Soon: true})
		}
		// Who fails keeps nobody else from going on.
		more := ctx.Err() == nil && did.steps+did.looks > 0 && did.settles == 0 && passes < maxPasses
		urgent := more && did.published && want.Urgent && !want.Patient
		if more && !urgent && !(did.published && want.Soon()) {
			continue
		}
		out.Status = want.Status()
		if err := c.Model.Report(steady, out.Status); err != nil {
			return err
		}
		if did.settles > 0 {
			settled = c.Now().Add(did.settles)
			slow++
		}
		settling := c.Now().Before(settled)
		wait := want.Soon() || settling
		limit := patience
		if want.Patient {
			limit = lastPatience
		}
		// Another pass would take as long as this one. One that looks at what hangs is
		// long, and what others announce meanwhile waits for the end of the hook.
		over := passes >= maxPasses || c.Now().Sub(start)+c.Now().Sub(began) > limit || ctx.Err() != nil
		wait = wait && !over
		// No event tells of it. What was done twice does not take, and is not hurried.
		want.Later = want.Later || settling && over && slow == 1
		// What was published reaches others only when the hook ends: better to come
		// back than to wait here, unless there may be no coming back.
		again := urgent || (want.Again || wait && out.Published) && (over || !want.Patient)
		if reachable && !again && want.Later && !wait {
			c.Sleep(ctx, later)
			again = true
		}
		if again && reachable {
			err := c.Wake(steady)
			if err == nil {
				return nil
			}
			c.Log.WarnContext(ctx, "cannot ask for another dispatch: the next event will do", "error", err)
		}
		if !wait && !urgent {
			return nil
		}
		pause := poll
		if c.Now().Sub(start) < time.Second {
			pause = soon
		}
		c.Sleep(ctx, pause)
		passes = 0
	}
}

// Desire asks every handler in turn.
func Desire(handlers []Handler, obs state.Observed) state.Desired {
	var want state.Desired
	for _, h := range handlers {
		h.Desire(obs, &want)
	}
	return want
}

func (c *Charm) observe(ctx context.Context, out *Outcome) (state.Observed, error) {
	out.Passes++
	obs := state.Observed{Now: c.Now()}
	first := append([]System{c.Model}, c.Systems...)
	took := make([]time.Duration, len(first))
	observe := func(ctx context.Context, s System, took *time.Duration) error {
		start := c.Now()
		defer func() { *took = c.Now().Sub(start) }()
		return s.Observe(ctx, &obs) // each system writes its own fields only
	}
	g, gctx := errgroup.WithContext(ctx)
	g.Go(func() error { return observe(context.WithoutCancel(ctx), c.Model, &took[0]) })
	for i, s := range c.Systems {
		g.Go(func() error { return observe(gctx, s, &took[i+1]) })
	}
	if err := g.Wait(); err != nil {
		return obs, err
	}
	out.Took = map[string]time.Duration{}
	for i, s := range first {
		out.Took[s.Name()] = took[i]
	}
	for _, s := range c.Second {
		var took time.Duration
		if err := observe(ctx, s, &took); err != nil {
			return obs, err
		}
		out.Took[s.Name()] = took
	}
	return obs, nil
}

// done is what a pass did.
type done struct {
	steps, looks int
	begun        int           // the steps, and those that failed: who knows how far they got
	settles      time.Duration // the slowest step's
	published    bool          // a step of the model, which Juju has yet to commit
	failed       error         // a step of another system
	asked        error         // why what an action asked for was not done
}

// apply makes the steps of all systems. Its error is that of the model, which is
// final.
func (c *Charm) apply(ctx context.Context, obs state.Observed, want state.Desired, out *Outcome) (did done, err error) {
	for _, s := range append(append([]System{}, c.Systems...), c.Second...) {
		if err := c.applyAll(ctx, s, s.Diff(obs, want), &did); err != nil {
			c.Log.WarnContext(ctx, "step failed", "system", s.Name(), "error", err)
			did.failed = errors.Join(did.failed, err)
		}
	}
	before := did.begun
	err = c.applyAll(context.WithoutCancel(ctx), c.Model, c.Model.Diff(obs, want), &did)
	did.published = did.begun > before
	out.Steps, out.Published = out.Steps+did.steps, out.Published || did.published
	if err != nil {
		return did, fmt.Errorf("cannot publish: %w", err)
	}
	return did, nil
}

// applyAll makes the steps of one system, up to the first that fails when the
// others may depend on it.
func (c *Charm) applyAll(ctx context.Context, s System, steps []state.Step, did *done) error {
	_, independent := s.(Independent)
	var failed error
	for i, step := range steps {
		_, look := step.(state.Look)
		if !look {
			did.begun++
			c.Log.InfoContext(ctx, step.String(), "system", s.Name())
		}
		if err := s.Apply(ctx, step); err != nil {
			failed = errors.Join(failed, err)
			if independent && ctx.Err() == nil {
				continue
			}
			if slices.ContainsFunc(steps[i:], func(s state.Step) bool { _, asked := s.(state.Asked); return asked }) {
				did.asked = errors.Join(did.asked, err)
			}
			return failed
		}
		if slow, ok := step.(state.Slow); ok {
			did.settles = max(did.settles, slow.Settles())
		}
		if look {
			did.looks++
		} else {
			did.steps++
		}
	}
	return failed
}
