// Command chaos breaks whatever can break around three units of the charm while
// two clients write, and judges what that cost: how long nobody could write, and
// whether a write that was acknowledged is still there. `make chaos` runs it, as
// root.
//
//	chaos [-n FAULTS] [-seed SEED] [-faults NAME,NAME] [-juju]
//
// It runs in the local model or, with -juju, on the current Juju controller. The
// faults come in an order that the seed decides. It exits 1 if a write was lost or
// is there twice, and if the cluster did not heal.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"math/rand/v2"
	"os"
	"os/signal"
	"strings"
	"syscall"
	"time"
)

func main() {
	options := options{}
	flag.IntVar(&options.faults, "n", 20, "how many faults")
	flag.Uint64Var(&options.seed, "seed", 0, "of the order of faults and their moments; 0: a new one")
	flag.StringVar(&options.only, "faults", "", "names of the faults to choose from, with commas; -faults help lists them")
	flag.DurationVar(&options.calm, "calm", 5*time.Second, "at least so long between two faults")
	flag.BoolVar(&options.juju, "juju", false, "on the current Juju controller instead of the local model")
	flag.StringVar(&options.journal, "journal", "", "a file for all that is seen; by default beside the model")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGINT, syscall.SIGTERM, syscall.SIGHUP)
	defer stop()
	if err := run(ctx, options); err != nil {
		fmt.Fprintln(os.Stderr, "chaos:", err)
		os.Exit(1)
	}
}

// options are what the command line says.
type options struct {
	faults  int
	seed    uint64
	only    string
	calm    time.Duration
	juju    bool
	journal string
}

func run(ctx context.Context, o options) (err error) {
	chosen, err := choose(o.only)
	if err != nil {
		return err
	}
	w, err := newWorld(o)
	if err != nil {
		return err
	}
	if o.seed == 0 {
		o.seed = uint64(time.Now().UnixNano()) % 1_000_000
	}
	fmt.Printf("%d faults, seed %d; all that is seen goes to %s\n", o.faults, o.seed, w.journal().path)
	defer func() { err = errors.Join(err, w.down()) }()
	if err := w.up(ctx); err != nil {
		return err
	}
	b, err := newBench(ctx, w, rand.New(rand.NewPCG(o.seed, o.seed)), o)
	if err != nil {
		return err
	}
	defer b.end()
	var results []result
	for _, f := range draw(chosen, o.faults, b.random) {
		r := b.try(ctx, f)
		if ctx.Err() != nil {
			break
		}
		fmt.Println(r)
		results = append(results, r)
		if r.err == nil {
			continue
		}
		b.explain(ctx)
		if _, err := b.heal(ctx, size); err != nil {
			break // what comes next would be judged for this one
		}
	}
	b.stopWriters()
	final := b.judgeWrites(context.WithoutCancel(ctx))
	fmt.Printf("\n%s\n%s\n", table(results), final)
	if ctx.Err() != nil {
		return errors.New("interrupted")
	}
	return verdict(results, final)
}

// newWorld is where the options say; the journal is beside it.
func newWorld(o options) (world, error) {
	if o.juju {
		return newLive(o.journal)
	}
	return newLocal(o.journal)
}

// choose returns the faults of the names, or all.
func choose(names string) ([]fault, error) {
	if names == "" {
		return faults, nil
	}
	var chosen []fault
	for name := range strings.SplitSeq(names, ",") {
		i := indexFault(name)
		if i < 0 {
			return nil, fmt.Errorf("there is no fault %q; there are:\n%s", name, listFaults())
		}
		chosen = append(chosen, faults[i])
	}
	return chosen, nil
}

// draw returns so many of the faults: all of them in a random order, and then
// again, so that each comes about as often as the others.
func draw(from []fault, n int, random *rand.Rand) []fault {
	var drawn []fault
	for len(drawn) < n {
		for _, i := range random.Perm(len(from)) {
			drawn = append(drawn, from[i])
		}
	}
	return drawn[:n]
}
