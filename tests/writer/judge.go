package writer

import (
	"maps"
	"slices"
	"time"
)

// A Count is what has become of a writer's numbers on one member.
type Count struct {
	Lost       []int64 // acknowledged, and not there
	Duplicated []int64 // there twice
}

// compare finds what is wrong with the numbers that a table has.
func compare(acks []Ack, rows []int64) Count {
	times := map[int64]int{}
	for _, n := range rows {
		times[n]++
	}
	var c Count
	for _, a := range acks {
		if times[a.N] == 0 {
			c.Lost = append(c.Lost, a.N)
		}
	}
	for _, n := range slices.Sorted(maps.Keys(times)) {
		if times[n] > 1 {
			c.Duplicated = append(c.Duplicated, n)
		}
	}
	return c
}

// Gap is the longest time between two acknowledgements that touches the time from
// one moment to another. A writer that never got another has a gap up to the end.
func Gap(acks []Ack, from, to time.Time) time.Duration {
	var longest time.Duration
	last := from
	for _, a := range acks {
		if a.At.After(from) {
			longest = max(longest, a.At.Sub(last))
		}
		last = a.At
		if a.At.After(to) {
			return longest
		}
	}
	return max(longest, to.Sub(last))
}

// Pauses are the times between two acknowledgements that are longer than a limit, in
// their order.
func Pauses(acks []Ack, limit time.Duration) (pauses []time.Duration) {
	for i := 1; i < len(acks); i++ {
		if pause := acks[i].At.Sub(acks[i-1].At); pause > limit {
			pauses = append(pauses, pause.Round(100*time.Millisecond))
		}
	}
	return pauses
}

// ReadOnly counts the errors of a time that a server gave because it takes no writes.
func ReadOnly(failures []Failure, from, to time.Time) int {
	n := 0
	for _, f := range failures {
		if f.ReadOnly && f.At.After(from) && !f.At.After(to) {
			n++
		}
	}
	return n
}
