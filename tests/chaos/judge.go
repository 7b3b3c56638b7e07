package main

import (
	"context"
	"fmt"
	"time"

	"charmhub.io/postgresql-k8s/tests/writer"
)

// A view is the cluster at one moment, from all sides.
type view struct {
	units   []unit
	holder  string            // of Patroni's lock
	members map[string]member // what each Patroni says of itself, by pod
	told    string            // where the databag leads to
	err     error             // what could not be looked at
}

// wrong says what keeps a cluster of so many units from being whole; nothing does
// if it is.
func (v view) wrong(units int) []string {
	var found []string
	complain := func(format string, args ...any) { found = append(found, fmt.Sprintf(format, args...)) }
	if v.err != nil {
		complain("%v", v.err)
	}
	if len(v.units) != units {
		complain("there are %d units", len(v.units))
	}
	for _, u := range v.units {
		if u.status != "active" {
			complain("%s is %s %q", u.name, u.status, u.message)
		}
		isPrimary := podOf(u.name) == v.holder
		if isPrimary != (u.message == "Primary") {
			complain("%s shows %q, and %s has the lock", u.name, u.message, v.holder)
		}
		m := v.members[podOf(u.name)]
		switch {
		case isPrimary && !m.isPrimary():
			complain("%s has the lock and is %s", u.name, m)
		case isPrimary && v.told != m.address+":5432":
			complain("the databag leads to %s, the primary is at %s", v.told, m.address)
		case !isPrimary && !m.streams():
			complain("%s is %s", u.name, m)
		case m.timeline != v.members[v.holder].timeline:
			complain("%s is on timeline %d", u.name, m.timeline)
		}
	}
	return found
}

// A tally is what has become of all numbers of both writers, on all members.
type tally struct {
	acknowledged     int
	lost, duplicated int
	details          []string
	err              error
}

// String sums it up.
func (t tally) String() string {
	text := fmt.Sprintf("%d writes acknowledged, %d lost, %d duplicated", t.acknowledged, t.lost, t.duplicated)
	for _, detail := range t.details {
		text += "\n  " + detail
	}
	if t.err != nil {
		text += fmt.Sprintf("\n  %v", t.err)
	}
	return text
}

// judgeWrites looks for every acknowledged number on the primary and on every
// replica that streams. That has time to catch up.
func (b *bench) judgeWrites(ctx context.Context) tally {
	var t tally
	holder, members := b.watcher.now(theHolder), b.watcher.all()
	for _, w := range b.writers {
		acks, _ := w.Record()
		t.acknowledged += len(acks)
		lost, duplicated := map[int64]bool{}, map[int64]bool{}
		for _, pod := range podsOf(members) {
			if pod != holder && !members[pod].streams() {
				t.details = append(t.details, fmt.Sprintf("%s on %s: not counted, it is %s", w.Table(), pod, members[pod]))
				continue
			}
			c, err := b.countOn(ctx, pod, w)
			if err != nil {
				t.err = fmt.Errorf("cannot count on %s: %w", pod, err)
				continue
			}
			for _, n := range c.Lost {
				lost[n] = true
			}
			for _, n := range c.Duplicated {
				duplicated[n] = true
			}
			if len(c.Lost)+len(c.Duplicated) > 0 {
				t.details = append(t.details, fmt.Sprintf("%s on %s: lost %s, duplicated %s", w.Table(), pod,
					list(c.Lost, acks), list(c.Duplicated, acks)))
			}
		}
		t.lost += len(lost)
		t.duplicated += len(duplicated)
	}
	return t
}

// list names numbers, not all if there are many, and when they were acknowledged.
func list(numbers []int64, acks []writer.Ack) string {
	text := fmt.Sprint(len(numbers))
	for i, n := range numbers {
		if i == 10 {
			return text + " ..."
		}
		text += fmt.Sprintf(" %d", n)
		for _, a := range acks {
			if a.N == n {
				text += a.At.Format(" (15:04:05.000)")
			}
		}
	}
	return text
}

// countOn compares a member's table with what was acknowledged, until there is
// nothing to complain of or the member has had its time.
func (b *bench) countOn(ctx context.Context, pod string, w *writer.Writer) (c writer.Count, err error) {
	for range 30 {
		if c, err = b.countOnce(ctx, pod, w); err == nil && len(c.Lost) == 0 {
			return c, nil
		}
		if !pause(ctx, 500*time.Millisecond) {
			break
		}
	}
	return c, err
}

func (b *bench) countOnce(ctx context.Context, pod string, w *writer.Writer) (writer.Count, error) {
	ctx, cancel := context.WithTimeout(ctx, 20*time.Second)
	defer cancel()
	conn, err := b.login.Dial(ctx, b.world.kubernetes().addresses[pod]+":5432")
	if err != nil {
		return writer.Count{}, err
	}
	defer writer.HangUp(conn)
	return w.Count(ctx, conn)
}
