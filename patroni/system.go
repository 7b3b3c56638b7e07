package patroni

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"reflect"
	"time"

	"golang.org/x/sync/errgroup"

	"charmhub.io/postgresql-k8s/charm/state"
)

// System is this unit's Patroni member and, through it, the cluster.
type System struct {
	// Hangup has the local member load its file, whatever password it wants for
	// that: the one in the file may be new.
	Hangup func(ctx context.Context) error

	api    API
	member func(host string) API
	silent bool // it did not answer the last look
}

// New returns the member that api reaches; member reaches the one on a host.
func New(api API, member func(host string) API) *System { return &System{api: api, member: member} }

// Name implements charm.System.
func (s *System) Name() string { return "patroni" }

// Observe implements charm.System. While the member does not run the cluster is
// unknown.
func (s *System) Observe(ctx context.Context, obs *state.Observed) error {
	var me local
	var all cluster
	var dynamic map[string]any
	limit := lookTimeout
	if s.silent {
		limit = lookAgain
	}
	ctx, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	g, gctx := errgroup.WithContext(ctx)
	g.Go(func() error { return s.api.get(gctx, "/patroni", &me) })
	var away string
	g.Go(func() error {
		if err := s.api.get(gctx, "/cluster", &all); err != nil {
			away, all = err.Error(), cluster{}
		}
		return nil
	})
	g.Go(func() error {
		if s.api.get(gctx, "/config", &dynamic) != nil {
			dynamic = nil // there is none before the bootstrap
		}
		return nil
	})
	err := g.Wait()
	s.silent = err != nil && ctx.Err() != nil
	obs.Silent = s.silent
	if err != nil {
		obs.Cluster = state.Unknown[state.Cluster](err.Error())
		return nil
	}
	obs.Cluster = state.Value(state.Cluster{Local: me.facts(), Members: all.facts(), Dynamic: dynamic, Away: away})
	return nil
}

// Reload makes Patroni load its file, whose tag is then Tag.
type Reload struct {
	Tag      string
	Password state.Redacted
}

// String implements state.Step.
func (r Reload) String() string { return "reload Patroni, configuration " + r.Tag }

// Restart restarts a member's server in place.
type Restart struct {
	Member   state.Member
	Password state.Redacted
}

// String implements state.Step.
func (r Restart) String() string {
	return "restart PostgreSQL of " + r.Member.Name + " for changed settings"
}

// RestartNow restarts a member's server, and waits until it is up again.
type RestartNow struct {
	Member   state.Member
	Password state.Redacted
}

// String implements state.Step.
func (r RestartNow) String() string { return "restart PostgreSQL of " + r.Member.Name }

// Reinitialize makes the local member a new copy of the primary.
type Reinitialize struct {
	Name     string
	Password state.Redacted
}

// String implements state.Step.
func (r Reinitialize) String() string { return "reinitialize " + r.Name }

// Asked implements state.Asked.
func (RestartNow) Asked() {}

// Asked implements state.Asked.
func (Reinitialize) Asked() {}

// Asked implements state.Asked.
func (Switchover) Asked() {}

// Settles implements state.Slow: Patroni looks again in its next loop.
func (Restart) Settles() time.Duration { return settle }

// settle is how long Patroni may take to act on a change: it is woken by it.
const settle = 3 * time.Second

// Patch changes the configuration that all members share.
type Patch struct {
	Config   map[string]any
	Password state.Redacted
}

// String implements state.Step.
func (p Patch) String() string { return fmt.Sprintf("patch the cluster's configuration: %v", p.Config) }

// Settles implements state.Slow: whether settings wait for a restart shows later.
func (Patch) Settles() time.Duration { return settle }

// Settles implements state.Slow: whether settings wait for a restart shows later.
func (Reload) Settles() time.Duration { return settle }

// Switchover makes another member the primary, in an orderly way: no commit is
// lost, and the old primary follows.
type Switchover struct {
	From, To string // names of members
	Any      bool   // another than To may be the first, too
	Password state.Redacted
}

// String implements state.Step.
func (s Switchover) String() string {
	if s.Any {
		return "switch over from " + s.From + " to whichever replica is first"
	}
	return "switch over from " + s.From + " to " + s.To
}

// Settles implements state.Slow.
func (Switchover) Settles() time.Duration { return settle }

// Diff implements charm.System.
func (s *System) Diff(obs state.Observed, want state.Desired) []state.Step {
	have, ok := obs.Cluster.Get()
	if !ok || want.REST == "" {
		return nil
	}
	var steps []state.Step
	if _, wished := want.Patroni.Get(); wished && have.Local.ConfigTag != want.ConfigTag {
		steps = append(steps, Reload{want.ConfigTag, want.REST})
	}
	if obs.Leader && have.Dynamic != nil {
		if patch := DiffDynamic(have.Dynamic, want.Dynamic); len(patch) > 0 {
			steps = append(steps, Patch{patch, want.REST})
		}
	}
	if want.Restart.Name != "" {
		steps = append(steps, Restart{want.Restart, want.REST})
	}
	if want.RestartNow.Name != "" {
		steps = append(steps, RestartNow{want.RestartNow, want.REST})
	}
	if want.Reinitialize {
		steps = append(steps, Reinitialize{have.Local.Name, want.REST})
	}
	if want.Successor.Name != "" {
		from := have.Local.Name
		if primary, ok := have.Primary(); ok {
			from = primary.Name
		}
		steps = append(steps, Switchover{From: from, To: want.Successor.Name, Any: want.Successor.Any, Password: want.REST})
	}
	return steps
}

// DiffDynamic returns the patch that makes have agree with what want says;
// what want does not mention stays. A nil in want removes a key. Numbers of
// JSON and of Go compare by value.
func DiffDynamic(have, want map[string]any) map[string]any {
	patch := map[string]any{}
	for key, value := range want {
		old, exists := have[key]
		wanted, isMap := value.(map[string]any)
		oldMap, wasMap := old.(map[string]any)
		switch {
		case isMap && wasMap:
			if inner := DiffDynamic(oldMap, wanted); len(inner) > 0 {
				patch[key] = inner
			}
		case value == nil:
			if exists && old != nil {
				patch[key] = nil
			}
		case !exists || !sameValue(old, value):
			patch[key] = value
		}
	}
	return patch
}

func sameValue(a, b any) bool {
	if number, ok := toFloat(a); ok {
		other, ok := toFloat(b)
		return ok && number == other
	}
	return reflect.DeepEqual(a, b)
}

func toFloat(v any) (float64, bool) {
	switch n := v.(type) {
	case int:
		return float64(n), true
	case int64:
		return float64(n), true
	case float64:
		return n, true
	}
	return 0, false
}

// Apply implements charm.System.
func (s *System) Apply(ctx context.Context, step state.Step) error {
	switch step := step.(type) {
	case Reload:
		return s.reload(ctx, step)
	case Patch:
		if err := s.api.change(ctx, http.MethodPatch, "/config", step.Config, step.Password); err != nil {
			return fmt.Errorf("cannot change the cluster's configuration: %w", err)
		}
		return nil
	case Restart:
		return s.restart(ctx, step)
	case RestartNow:
		return s.restartNow(ctx, step)
	case Reinitialize:
		if err := s.api.change(ctx, http.MethodPost, "/reinitialize", map[string]any{}, step.Password); err != nil {
			return fmt.Errorf("cannot %s: %w", step, err)
		}
		return nil
	case Switchover:
		if err := s.switchover(ctx, step); err != nil {
			return fmt.Errorf("cannot %s: %w", step, err)
		}
		return nil
	}
	return fmt.Errorf("cannot apply %T to patroni", step)
}

// switchover names the successor when Patroni wants that: in a paused cluster, and
// where another replica is behind or does not answer.
func (s *System) switchover(ctx context.Context, step Switchover) error {
	post := func(body map[string]any) error {
		return ignoreTimeout(s.api.change(ctx, http.MethodPost, "/switchover", body, step.Password))
	}
	if step.Any && post(map[string]any{"leader": step.From}) == nil {
		return nil
	}
	return post(map[string]any{"leader": step.From, "candidate": step.To})
}

// reload returns when Patroni has loaded the file: it only schedules the work.
func (s *System) reload(ctx context.Context, step Reload) error {
	err := s.api.change(ctx, http.MethodPost, "/reload", nil, step.Password)
	if _, isDenied := errors.AsType[denied](err); isDenied && s.Hangup != nil {
		err = s.Hangup(ctx)
	}
	if err != nil {
		return fmt.Errorf("cannot reload Patroni: %w", err)
	}
	const wait, poll = 3 * time.Second, 50 * time.Millisecond
	for end := time.Now().Add(wait); time.Now().Before(end); time.Sleep(poll) {
		if err := ctx.Err(); err != nil {
			return fmt.Errorf("cannot reload Patroni: %w", err)
		}
		var me local
		if s.api.get(ctx, "/patroni", &me) == nil && me.facts().ConfigTag == step.Tag {
			return nil
		}
	}
	return fmt.Errorf("cannot reload Patroni: it did not take configuration %s within %s", step.Tag, wait)
}

// restart asks a member to restart its server. Patroni answers when that is done;
// a shutdown with much to write takes long, and is not waited for.
func (s *System) restart(ctx context.Context, step Restart) error {
	err := s.member(step.Member.Host).change(ctx, http.MethodPost, "/restart", map[string]any{"restart_pending": true}, step.Password)
	if err := ignoreTimeout(err); err != nil {
		return fmt.Errorf("cannot restart PostgreSQL of %s: %w", step.Member.Name, err)
	}
	return nil
}

// restartWait is how long a server may take to stop and start again. A shutdown
// writes a checkpoint first.
const restartWait = 60 * time.Second

// restartNow looks when the server was started: Patroni's own answer would take
// longer than a call may.
func (s *System) restartNow(ctx context.Context, step RestartNow) error {
	member := s.member(step.Member.Host)
	var before, now local
	if err := member.get(ctx, "/patroni", &before); err != nil {
		return fmt.Errorf("cannot %s: %w", step, err)
	}
	if err := ignoreTimeout(member.change(ctx, http.MethodPost, "/restart", map[string]any{}, step.Password)); err != nil {
		return fmt.Errorf("cannot %s: %w", step, err)
	}
	const poll = 250 * time.Millisecond
	for end := time.Now().Add(restartWait); time.Now().Before(end); time.Sleep(poll) {
		if err := ctx.Err(); err != nil {
			return fmt.Errorf("cannot %s: %w", step, err)
		}
		now = local{}
		if member.get(ctx, "/patroni", &now) == nil && now.State == "running" && now.Started != before.Started {
			return nil
		}
	}
	return fmt.Errorf("cannot %s: it is not up again after %s", step, restartWait)
}

// ignoreTimeout forgives a call that Patroni goes on with: what it comes to is
// observed.
func ignoreTimeout(err error) error {
	var timeout interface{ Timeout() bool }
	if errors.As(err, &timeout) && timeout.Timeout() {
		return nil
	}
	return err
}
