package main

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"time"
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

// A count is what has become of the numbers of a writer on one member.
type count struct {
	lost       []int64 // acknowledged, and not there
	duplicated []int64 // there twice
}

// compare finds what is wrong with the numbers that a table has.
func compare(acks []ack, rows []int64) count {
	times := map[int64]int{}
	for _, n := range rows {
		times[n]++
	}
	var c count
	for _, a := range acks {
		if times[a.n] == 0 {
			c.lost = append(c.lost, a.n)
		}
	}
	for _, n := range slices.Sorted(maps.Keys(times)) {
		if times[n] > 1 {
			c.duplicated = append(c.duplicated, n)
		}
	}
	return c
}

// gap is the longest time between two acknowledgements that touches the time from
// one moment to another. A writer that never got another has a gap up to the end.
func gap(acks []ack, from, to time.Time) time.Duration {
	var longest time.Duration
	last := from
	for _, a := range acks {
		if a.at.After(from) {
			longest = max(longest, a.at.Sub(last))
		}
		last = a.at
		if a.at.After(to) {
			return longest
		}
	}
	return max(longest, to.Sub(last))
}

// readOnly counts the errors of a time that a server gave because it takes no writes.
func readOnly(failures []failure, from, to time.Time) int {
	n := 0
	for _, f := range failures {
		if f.readOnly && f.at.After(from) && !f.at.After(to) {
			n++
		}
	}
	return n
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
		acks, _ := w.record()
		t.acknowledged += len(acks)
		lost, duplicated := map[int64]bool{}, map[int64]bool{}
		for _, pod := range podsOf(members) {
			if pod != holder && !members[pod].streams() {
				t.details = append(t.details, fmt.Sprintf("%s on %s: not counted, it is %s", w.table(), pod, members[pod]))
				continue
			}
			c, err := b.countOn(ctx, pod, w, acks)
			if err != nil {
				t.err = fmt.Errorf("cannot count on %s: %w", pod, err)
				continue
			}
			for _, n := range c.lost {
				lost[n] = true
			}
			for _, n := range c.duplicated {
				duplicated[n] = true
			}
			if len(c.lost)+len(c.duplicated) > 0 {
				t.details = append(t.details, fmt.Sprintf("%s on %s: lost %s, duplicated %s", w.table(), pod,
					list(c.lost, acks), list(c.duplicated, acks)))
			}
		}
		t.lost += len(lost)
		t.duplicated += len(duplicated)
	}
	return t
}

// list names numbers, not all if there are many, and when they were acknowledged.
func list(numbers []int64, acks []ack) string {
	text := fmt.Sprint(len(numbers))
	for i, n := range numbers {
		if i == 10 {
			return text + " ..."
		}
		text += fmt.Sprintf(" %d", n)
		for _, a := range acks {
			if a.n == n {
				text += a.at.Format(" (15:04:05.000)")
			}
		}
	}
	return text
}

// countOn compares a member's table with what was acknowledged, until there is
// nothing to complain of or the member has had its time.
func (b *bench) countOn(ctx context.Context, pod string, w *writer, acks []ack) (c count, err error) {
	for range 30 {
		var rows []int64
		rows, err = b.rows(ctx, pod, w.table())
		if err == nil {
			if c = compare(acks, rows); len(c.lost) == 0 {
				return c, nil
			}
		}
		if !pause(ctx, 500*time.Millisecond) {
			break
		}
	}
	return c, err
}

// rows are the numbers in a table of a member.
func (b *bench) rows(ctx context.Context, pod, table string) ([]int64, error) {
	ctx, cancel := context.WithTimeout(ctx, 20*time.Second)
	defer cancel()
	conn, err := throughEndpoints(b.world, b.credentials)(ctx, b.world.kubernetes().addresses[pod]+":5432")
	if err != nil {
		return nil, err
	}
	defer hangUp(conn)
	found, err := conn.Query(ctx, "SELECT n FROM "+table)
	if err != nil {
		return nil, err
	}
	defer found.Close()
	var rows []int64
	for found.Next() {
		var n int64
		if err := found.Scan(&n); err != nil {
			return nil, err
		}
		rows = append(rows, n)
	}
	return rows, found.Err()
}
