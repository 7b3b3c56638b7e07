package main

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"slices"
	"strings"
	"sync"
	"time"

	"charmhub.io/postgresql-k8s/tests/writer"
)

// patience is how long the cluster may take to be whole again.
const patience = 180 * time.Second

// A bench is a world with two writers and those who watch them.
type bench struct {
	world   world
	random  *rand.Rand
	calm    time.Duration
	login   writer.Login
	watcher *watcher
	writers []*writer.Writer // through endpoints, through uris
	journal *journal

	before  tally              // at the last fault
	writing context.CancelFunc // ends the writers
	wrote   sync.WaitGroup
	seeing  context.CancelFunc // ends the watcher
}

// newBench sets the writers to work, and returns when all is well.
func newBench(ctx context.Context, w world, random *rand.Rand, o options) (*bench, error) {
	credentials, err := w.credentials(ctx)
	if err != nil {
		return nil, err
	}
	b := &bench{world: w, random: random, calm: o.calm, journal: w.journal()}
	b.login = writer.Login{Names: w.resolver(), Username: credentials["username"], Password: credentials["password"], Database: database}
	b.writers = []*writer.Writer{
		{Name: "endpoints", Address: w.endpoints, Dial: b.login.Dial, Note: b.journal.note},
		{Name: "uris", Address: func(context.Context) (string, error) { return credentials["uris"], nil }, // it never looks again
			Dial: b.login.DialURI, Note: b.journal.note},
	}
	b.watcher = &watcher{world: w, timeline: &timeline{note: b.journal.note, seen: map[string][]sighting{}},
		members: map[string]member{}, watched: map[string]bool{}}
	seeing, stopSeeing := context.WithCancel(context.WithoutCancel(ctx))
	writing, stopWriting := context.WithCancel(context.WithoutCancel(ctx))
	b.seeing, b.writing = stopSeeing, stopWriting
	go b.watcher.run(seeing)
	for _, w := range b.writers {
		if err := w.Create(ctx); err != nil {
			b.end()
			return nil, err
		}
		b.wrote.Go(func() { w.Run(writing) })
	}
	if _, err := b.heal(ctx, size); err != nil {
		b.explain(ctx)
		b.end()
		return nil, err
	}
	return b, nil
}

func (b *bench) stopWriters() {
	b.writing()
	b.wrote.Wait()
}

func (b *bench) end() {
	b.stopWriters()
	b.seeing()
}

// try lets a fault strike and measures what it did.
func (b *bench) try(ctx context.Context, f fault) (r result) {
	r = result{fault: f, gaps: map[string]time.Duration{}, readOnly: map[string]int{}}
	pause(ctx, b.calm+time.Duration(b.random.Int64N(int64(5*time.Second)))) // Patroni's loop takes 5 s
	s, err := b.aim(ctx, f)
	if err != nil {
		r.err = err
		return r
	}
	old := b.watcher.now(theHolder)
	before := b.watcher.snapshot()
	r.victims, r.struck = s.victims, time.Now()
	b.journal.note("FAULT", fmt.Sprintf("%s strikes %s: %s", f.name, strings.Join(s.victims, ", "), f.what))
	err = f.strike(s)
	if isImpossible(err) {
		r.skipped = err.Error()
		return r
	}
	if err == nil && f.lasts > 0 {
		pause(ctx, f.lasts)
		b.journal.note("FAULT", f.name+" ends")
		err = f.mend(s)
	}
	if err != nil {
		r.err = fmt.Errorf("%s: %w", f.name, err)
		return r
	}
	ended := time.Now()
	healed, err := b.heal(ctx, size+f.more)
	if err == nil && f.more > 0 {
		b.journal.note("FAULT", "the units that were added go")
		if err = b.world.scale(-f.more); err == nil {
			healed, err = b.heal(ctx, size)
		}
	}
	if err != nil {
		r.err = err
		healed = time.Now()
	}
	b.measure(&r, old, ended, healed)
	if after := b.watcher.snapshot(); f.quiet && r.err == nil && after != before {
		r.err = fmt.Errorf("%s should have changed nothing; before:\n%safter:\n%s", f.name, before, after)
	}
	if r.err == nil {
		t := b.judgeWrites(ctx)
		r.lost, r.duplicated = t.lost-b.before.lost, t.duplicated-b.before.duplicated
		b.before = t
		if t.err != nil {
			r.err = t.err
		}
		if r.lost+r.duplicated > 0 {
			b.journal.note("LOST", t.String())
		}
	}
	return r
}

// aim finds the units that a fault is to strike.
func (b *bench) aim(ctx context.Context, f fault) (*strike, error) {
	units, err := b.world.units(ctx)
	if err != nil {
		return nil, err
	}
	holder := unitOf(b.watcher.now(theHolder))
	s := &strike{ctx: ctx, world: b.world, random: b.random}
	for _, u := range units {
		switch f.victim {
		case primary:
			if u.name == holder {
				s.victims = append(s.victims, u.name)
			}
		case replica:
			if u.name != holder {
				s.victims = append(s.victims, u.name)
			}
		case leader:
			if u.leader {
				s.victims = append(s.victims, u.name)
			}
		case everyone:
			s.victims = append(s.victims, u.name)
		}
	}
	slices.Sort(s.victims)
	if f.victim == replica && len(s.victims) > 1 {
		s.victims = []string{s.victims[b.random.IntN(len(s.victims))]}
	}
	if len(s.victims) == 0 {
		return nil, fmt.Errorf("there is no %s for %s", f.victim, f.name)
	}
	return s, nil
}

// heal waits until the cluster is whole and both writers write, for a second on
// end, and returns since when.
func (b *bench) heal(ctx context.Context, units int) (since time.Time, err error) {
	start := time.Now()
	var last []string
	for {
		v := b.look(ctx)
		wrong := v.wrong(units)
		for _, w := range b.writers {
			if !w.Wrote(time.Now().Add(-time.Second)) {
				wrong = append(wrong, "nobody can write through "+w.Name)
			}
		}
		switch {
		case len(wrong) > 0:
			since = time.Time{}
		case since.IsZero():
			since = time.Now()
		case time.Since(since) > time.Second:
			return since, nil
		}
		if !slices.Equal(wrong, last) {
			last = wrong
			b.journal.note("wrong", strings.Join(append(wrong, "."), "; "))
		}
		if time.Since(start) > patience {
			return since, fmt.Errorf("not healed after %s: %s", patience, strings.Join(wrong, "; "))
		}
		if !pause(ctx, 100*time.Millisecond) {
			return since, errors.New("interrupted")
		}
	}
}

// look returns what is seen now.
func (b *bench) look(ctx context.Context) view {
	v := view{holder: b.watcher.now(theHolder), members: b.watcher.all()}
	if v.units, v.err = b.world.units(ctx); v.err == nil {
		v.told, v.err = address(ctx, b.world.resolver(), b.watcher.now(theDatabag))
	}
	return v
}

// measure fills in what a fault cost.
func (b *bench) measure(r *result, old string, ended, healed time.Time) {
	for _, w := range b.writers {
		acks, failures := w.Record()
		r.gaps[w.Name] = writer.Gap(acks, r.struck, healed)
		r.readOnly[w.Name] = writer.ReadOnly(failures, r.struck, healed)
	}
	r.healed = max(healed.Sub(ended), 0)
	holder, _ := b.watcher.since(theHolder, healed)
	r.failover = holder != old
	told, at := b.watcher.since(theDatabag, healed)
	if at.After(r.struck) && told != "" {
		address, locked := b.watcher.since(theLocked, healed)
		// For the first time: it is out of sight when it is slow to answer.
		serving, found := b.watcher.first(thePrimary, locked.Add(-2*look), func(now string) bool { return now == address })
		if !found {
			serving = locked
		}
		r.told = &delay{max(at.Sub(locked), 0), max(at.Sub(serving), 0)}
	}
	if r.failover {
		if at, found := b.watcher.first(theMember+old, r.struck, isStreaming); found {
			took := at.Sub(r.struck)
			r.streams = &took
		}
	}
}

// isStreaming tells whether a member's words say so.
func isStreaming(member string) bool { return strings.Contains(member, "streaming") }

// snapshot is what must stay as it is when nothing fails over or restarts.
func (w *watcher) snapshot() string {
	text := theHolder + " " + w.now(theHolder) + "\n"
	for _, pod := range podsOf(w.all()) {
		text += fmt.Sprintf("%s %s, postmaster since %s\n", pod, w.now(theMember+pod), w.now(thePostgre+pod))
	}
	return text
}

// explain shows what may tell why the cluster does not heal.
func (b *bench) explain(ctx context.Context) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), time.Minute)
	defer cancel()
	k := b.world.kubernetes()
	fmt.Println("the lock has", k.holder, "and the databag", b.watcher.now(theDatabag))
	for _, pod := range podsOf(k.addresses) {
		body, err := get(ctx, k.addresses[pod], "/cluster")
		if err != nil {
			body = []byte(err.Error())
		}
		fmt.Printf("/cluster of %s at %s: %s\n", pod, k.addresses[pod], body)
	}
	b.world.explain(ctx, os.Stdout)
}
