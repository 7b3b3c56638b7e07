package main

import (
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"
	"sync"
	"text/tabwriter"
	"time"
)

// A result is what one fault did.
type result struct {
	fault      fault
	victims    []string
	struck     time.Time
	skipped    string                   // why, if it was
	gaps       map[string]time.Duration // by writer
	readOnly   map[string]int
	failover   bool
	told       *delay         // if the databag changed
	streams    *time.Duration // from the strike until the old primary follows the new one
	healed     time.Duration  // after the fault's end
	lost       int
	duplicated int
	err        error
}

// delay is how long it took until the databag led to the new primary.
type delay struct {
	locked  time.Duration // since that has the lock
	serving time.Duration // since it takes writes
}

// String is the result in a line.
func (r result) String() string {
	name := fmt.Sprintf("%-16s %s:", r.fault.name, strings.Join(r.victims, " "))
	switch {
	case r.skipped != "":
		return name + " skipped, " + r.skipped
	case r.struck.IsZero():
		return fmt.Sprintf("%s FAIL: %v", name, r.err)
	}
	text := fmt.Sprintf("%s gap %s endpoints, %s uris; healed after %s", name,
		seconds(r.gaps["endpoints"]), seconds(r.gaps["uris"]), seconds(r.healed))
	if r.failover {
		text += "; failover"
	}
	if r.streams != nil {
		text += "; old primary streams after " + seconds(*r.streams)
	}
	if r.told != nil {
		text += fmt.Sprintf("; databag %s after the lock, %s after the promotion", seconds(r.told.locked), seconds(r.told.serving))
	}
	text += fmt.Sprintf("; %d+%d read-only errors, %d lost, %d duplicated", r.readOnly["endpoints"], r.readOnly["uris"], r.lost, r.duplicated)
	if r.err != nil {
		text += fmt.Sprintf("\nFAIL: %v", r.err)
	}
	return text
}

func seconds(d time.Duration) string { return fmt.Sprintf("%.1fs", d.Seconds()) }

// table is a line for each fault, in the order of the faults.
func table(results []result) string {
	var b strings.Builder
	w := tabwriter.NewWriter(&b, 0, 8, 2, ' ', 0)
	fmt.Fprintln(w, "fault\truns\tfail-\tgap endpoints\tgap uris\tdatabag after lock\tafter promotion\tread-only\tlost\tdupli-\told primary streams\thealed")
	fmt.Fprintln(w, "\t\tovers\tp50/p95/max\tp50/p95/max\tp50/max\tp50/max\tendp./uris\t\tcated\tp50/max\tp50/max")
	for _, f := range faults {
		var runs []result
		skipped := ""
		for _, r := range results {
			switch {
			case r.fault.name != f.name:
			case r.skipped != "":
				skipped = r.skipped
			case !r.struck.IsZero():
				runs = append(runs, r)
			}
		}
		switch {
		case len(runs) > 0:
			fmt.Fprintln(w, row(f.name, runs))
		case skipped != "":
			fmt.Fprintf(w, "%s\tskipped: %s\n", f.name, skipped)
		}
	}
	_ = w.Flush()
	return b.String()
}

func row(name string, runs []result) string {
	gaps := map[string][]time.Duration{}
	var locked, serving, streams, healed []time.Duration
	var failovers, lost, duplicated, failed int
	readOnly := map[string]int{}
	for _, r := range runs {
		for _, writer := range []string{"endpoints", "uris"} {
			gaps[writer] = append(gaps[writer], r.gaps[writer])
			readOnly[writer] += r.readOnly[writer]
		}
		if r.failover {
			failovers++
		}
		if r.told != nil {
			locked, serving = append(locked, r.told.locked), append(serving, r.told.serving)
		}
		if r.streams != nil {
			streams = append(streams, *r.streams)
		}
		if r.err != nil {
			failed++
		}
		healed = append(healed, r.healed)
		lost += r.lost
		duplicated += r.duplicated
	}
	text := fmt.Sprintf("%s\t%d\t%d\t%s\t%s\t%s\t%s\t%d/%d\t%d\t%d\t%s\t%s", name, len(runs), failovers,
		percentiles(gaps["endpoints"], 50, 95, 100), percentiles(gaps["uris"], 50, 95, 100),
		percentiles(locked, 50, 100), percentiles(serving, 50, 100),
		readOnly["endpoints"], readOnly["uris"], lost, duplicated, percentiles(streams, 50, 100), percentiles(healed, 50, 100))
	if failed > 0 {
		text += fmt.Sprintf("  %d FAILED", failed)
	}
	return text
}

// percentiles writes the values below which so many percent of all are.
func percentiles(of []time.Duration, percents ...int) string {
	if len(of) == 0 {
		return "-"
	}
	of = slices.Sorted(slices.Values(of))
	var texts []string
	for _, p := range percents {
		texts = append(texts, seconds(of[(len(of)*p+99)/100-1])) // the nearest rank
	}
	return strings.Join(texts, "/")
}

// verdict is an error if something is not as it must be.
func verdict(results []result, final tally) error {
	var errs []error
	for _, r := range results {
		if r.err != nil {
			errs = append(errs, fmt.Errorf("%s: %w", r.fault.name, r.err))
		}
	}
	if final.lost > 0 {
		errs = append(errs, fmt.Errorf("%d acknowledged writes are lost", final.lost))
	}
	if final.duplicated > 0 {
		errs = append(errs, fmt.Errorf("%d writes are duplicated", final.duplicated))
	}
	return errors.Join(append(errs, final.err)...)
}

// A journal is a file with all that was seen, each line with its time.
type journal struct {
	path string
	mu   sync.Mutex
	file *os.File
}

func newJournal(path string) (*journal, error) {
	file, err := os.Create(path)
	if err != nil {
		return nil, fmt.Errorf("cannot write journal: %w", err)
	}
	return &journal{path: path, file: file}, nil
}

func (j *journal) note(who, text string) {
	j.mu.Lock()
	defer j.mu.Unlock()
	_, _ = fmt.Fprintf(j.file, "%s %s: %s\n", time.Now().Format("15:04:05.000"), who, strings.TrimRight(text, "\n"))
}
