package main

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"syscall"
	"time"
)

// role is who a fault strikes; units are found when it does.
type role string

const (
	primary  role = "primary"
	replica  role = "replica"
	leader   role = "Juju leader"
	everyone role = "all units"
)

// long is the time of faults that pass: twice the life of Patroni's lock.
const long = 40 * time.Second

// A fault is something that breaks, and how.
type fault struct {
	name   string
	what   string
	victim role
	strike func(*strike) error
	lasts  time.Duration // until mend
	mend   func(*strike) error
	more   int  // units that there are afterwards, until settle takes them away
	quiet  bool // nothing may fail over or restart
}

// A strike is one time that a fault strikes.
type strike struct {
	ctx     context.Context
	world   world
	victims []string // units
	random  *rand.Rand
}

// each does something to all victims at once.
func (s *strike) each(do func(unit string) error) error {
	errs := make([]error, len(s.victims))
	var all sync.WaitGroup
	for i, unit := range s.victims {
		all.Go(func() { errs[i] = do(unit) })
	}
	all.Wait()
	return errors.Join(errs...)
}

// faults are all that there are.
var faults = []fault{
	{name: "delete-primary", what: "the primary's pod is deleted", victim: primary, strike: deletePods},
	{name: "delete-replica", what: "a replica's pod is deleted", victim: replica, strike: deletePods},
	{name: "delete-leader", what: "the pod of the Juju leader is deleted", victim: leader, strike: deletePods},
	{name: "kill-pod", what: "the primary's pod ends at once", victim: primary, strike: killPods},
	{name: "kill-all", what: "all pods end at once", victim: everyone, strike: killPods},
	{name: "kill-container", what: "SIGKILL of the primary's workload container", victim: primary, strike: func(s *strike) error {
		return s.each(s.world.killContainer)
	}},
	{name: "kill-postmaster", what: "SIGKILL of the primary's postmaster", victim: primary, strike: send(syscall.SIGKILL, postmaster)},
	{name: "kill-patroni", what: "SIGKILL of the primary's Patroni", victim: primary, strike: send(syscall.SIGKILL, patroni)},
	{name: "stop-postgres", what: "SIGSTOP of the primary's postgres processes", victim: primary,
		strike: send(syscall.SIGSTOP, postgres), lasts: long, mend: resume(postgres)},
	{name: "stop-patroni", what: "SIGSTOP of the primary's Patroni", victim: primary,
		strike: send(syscall.SIGSTOP, patroni), lasts: long, mend: resume(patroni)},
	{name: "stop-both", what: "SIGSTOP of Patroni and postgres on the primary", victim: primary,
		strike: send(syscall.SIGSTOP, both), lasts: long, mend: resume(both)},
	{name: "cut-off", what: "the primary is cut off from the network", victim: primary, strike: sever(cutAll), lasts: long, mend: mend},
	{name: "cut-outgoing", what: "nothing that the primary sends arrives", victim: primary, strike: sever(cutOutgoing), lasts: long, mend: mend},
	{name: "cut-incoming", what: "nothing reaches the primary", victim: primary, strike: sever(cutIncoming), lasts: long, mend: mend},
	{name: "cut-api", what: "the primary is cut off from the API server", victim: primary, strike: sever(cutAPI), lasts: long, mend: mend},
	{name: "api-down", what: "the API server breaks off all connections", victim: everyone, lasts: long, quiet: true,
		strike: func(s *strike) error { return s.world.setAPI(false) },
		mend:   func(s *strike) error { return s.world.setAPI(true) }},
	{name: "api-silent", what: "nobody gets an answer of the API server", victim: everyone, lasts: long, quiet: true, strike: sever(cutAPI), mend: mend},
	{name: "switchover", what: "a person switches over", victim: primary, strike: switchover},
	{name: "refresh", what: "a person refreshes to another revision, after pre-upgrade-check", victim: leader, strike: refresh},
	{name: "refresh-at-once", what: "a person refreshes to another revision, without a check", victim: leader, strike: refreshAtOnce},
	{name: "kill-charm", what: "the charm is killed again and again during a switchover", victim: everyone, strike: killCharm},
	{name: "scale", what: "a unit is added while the primary's pod ends, and removed when all is well", victim: primary, more: 1,
		strike: func(s *strike) error { return errors.Join(killPods(s), s.world.scale(1)) }},
}

func indexFault(name string) int {
	return slices.IndexFunc(faults, func(f fault) bool { return f.name == name })
}

func listFaults() string {
	var b strings.Builder
	for _, f := range faults {
		fmt.Fprintf(&b, "  %-16s %s\n", f.name, f.what)
	}
	return b.String()
}

func deletePods(s *strike) error { return s.each(s.world.deletePod) }

func killPods(s *strike) error { return s.each(s.world.killPod) }

func send(sig syscall.Signal, to program) func(*strike) error {
	return func(s *strike) error {
		return s.each(func(unit string) error { return s.world.signal(unit, to, sig) })
	}
}

// resume lets what was stopped go on, unless somebody has ended it.
func resume(stopped program) func(*strike) error {
	return func(s *strike) error {
		if err := send(syscall.SIGCONT, stopped)(s); !errors.Is(err, errNotRunning) {
			return err
		}
		return nil
	}
}

func sever(what cut) func(*strike) error {
	return func(s *strike) error {
		return s.each(func(unit string) error { return s.world.cut(unit, what) })
	}
}

func mend(s *strike) error { return s.each(s.world.mend) }

// switchover uses Patroni's own tool, which refuses as long as no replica has
// every commit. It exits 0 when Patroni does (seen with 4.0.7), and when that is slow: then
// it says that it does not know.
func switchover(s *strike) error {
	return s.insist(10*time.Second, func() error {
		said, err := s.world.exec(s.ctx, s.victims[0], "runuser", "-u", "postgres", "--",
			"patronictl", "-c", "/var/lib/postgresql/data/patroni.yml", "switchover", "--force")
		if err == nil && strings.Contains(said, "Switchover failed") && !strings.Contains(said, "status unknown") {
			err = errors.New(said)
		}
		return err
	})
}

// refresh refreshes as the how-to says, to the end.
func refresh(s *strike) error {
	if err := s.insist(10*time.Second, func() error { return s.onLeader("pre-upgrade-check") }); err != nil {
		return err
	}
	replaced, err := s.refresh()
	if err != nil {
		return err
	}
	if err := s.insist(2*time.Minute, func() error { return s.onLeader("resume-upgrade") }); err != nil {
		return err
	}
	return s.insist(4*time.Minute, replaced)
}

// refreshAtOnce refreshes as people in a hurry do.
func refreshAtOnce(s *strike) error {
	replaced, err := s.refresh()
	if err != nil {
		return err
	}
	return s.insist(4*time.Minute, replaced)
}

// refresh begins a refresh, and returns what tells whether all pods are replaced.
func (s *strike) refresh() (replaced func() error, err error) {
	before := s.world.kubernetes().revisions
	return func() error {
		now := s.world.kubernetes().revisions
		for pod, revision := range before {
			if now[pod] == "" || now[pod] == revision {
				return fmt.Errorf("%s is not replaced", pod)
			}
		}
		return nil
	}, s.world.refresh(s.ctx)
}

// onLeader runs an action on the unit that leads now.
func (s *strike) onLeader(action string) error {
	units, err := s.world.units(s.ctx)
	for _, u := range units {
		if u.leader {
			return s.world.action(s.ctx, u.name, action)
		}
	}
	return errors.Join(err, errors.New("no unit leads"))
}

// insist tries something each second until it works, as people do who read why not.
func (s *strike) insist(patience time.Duration, try func() error) error {
	for end := time.Now().Add(patience); ; {
		err := try()
		if err == nil || time.Now().After(end) || !pause(s.ctx, time.Second) {
			return err
		}
	}
}

// killCharm kills every dispatch that runs for some time, at random moments, while
// a switchover gives the charm something to do.
func killCharm(s *strike) error {
	ctx, cancel := context.WithTimeout(s.ctx, 20*time.Second)
	defer cancel()
	refused := make(chan error, 1)
	go func() { refused <- switchover(s) }()
	kills := 0
	for pause(ctx, time.Duration(s.random.IntN(300))*time.Millisecond) {
		killed, err := s.world.killCharm(s.victims[s.random.IntN(len(s.victims))])
		if err != nil {
			return err
		}
		if killed {
			kills++
		}
	}
	if err := <-refused; err != nil {
		return err
	}
	if kills == 0 {
		return errors.New("the charm did not run once in 20 s")
	}
	return nil
}

// pause waits, and tells whether the context goes on.
func pause(ctx context.Context, wait time.Duration) bool {
	select {
	case <-time.After(wait):
		return true
	case <-ctx.Done():
		return false
	}
}
