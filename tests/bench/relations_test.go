//go:build localmodel

package bench

import (
	"cmp"
	"context"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"text/tabwriter"
	"time"

	"charmhub.io/postgresql-k8s/tests/localmodel"
	"charmhub.io/postgresql-k8s/tests/localmodel/node"
)

const (
	app  = "postgresql-k8s"
	unit = app + "/0"
)

// The places that tests/localmodel/e2e has, too.
var (
	dir   = cmp.Or(os.Getenv("LOCALMODEL_DIR"), "/var/lib/postgresql-k8s-localmodel/bench")
	image = cmp.Or(os.Getenv("LOCALMODEL_IMAGE"), "/var/lib/postgresql-k8s-localmodel/image")
	charm = cmp.Or(os.Getenv("LOCALMODEL_CHARM"), "../../dist/postgresql-k8s_amd64.charm")
	count = cmp.Or(os.Getenv("LOCALMODEL_RELATIONS"), "200")
)

func TestMain(m *testing.M) {
	if err := prepare(); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	os.Exit(m.Run())
}

func prepare() error {
	if !node.Inside() {
		if err := os.RemoveAll(filepath.Join(dir, "m")); err != nil {
			return err
		}
		if err := os.MkdirAll(filepath.Join(dir, "bin"), 0o755); err != nil {
			return err
		}
		if _, err := localmodel.BuildPrograms(filepath.Join(dir, "bin")); err != nil {
			return err
		}
	}
	return node.Enter(dir)
}

// TestManyRelations relates one application after the other, each with a
// database of its own, and measures what each costs; then what a unit that has
// all of them costs.
func TestManyRelations(t *testing.T) {
	n, err := strconv.Atoi(count)
	if err != nil {
		t.Fatal(err)
	}
	b := newBench(t)
	idle := b.repeat(20, func(int) { b.must(b.UpdateStatus(unit)) })

	growth := b.table("relation", "to the reply", "hook time", "hook tools", "dispatches", "then", "hook tools", "dispatches")
	var stubs []*localmodel.Stub
	var first, middle, last []dispatch
	for i := 1; i <= n; i++ {
		s, err := b.DeployStub(fmt.Sprint("client-", i), "database", "postgresql_client")
		b.must(err)
		stubs = append(stubs, s)
		b.must(s.Ask(map[string]string{
			"database":          fmt.Sprint("database-", i),
			"requested-secrets": `["username", "password", "tls", "tls-ca", "uris", "read-only-uris"]`,
		}))
		began, before := time.Now(), len(b.all())
		b.must(b.Integrate(app+":database", fmt.Sprintf("client-%d:database", i)))
		b.until("a reply", func() bool { bag, _ := s.Answer(); return bag["secret-user"] != "" })
		took, served := time.Since(began), len(b.all())
		b.quiet()
		all := b.all()
		switch i {
		case 1:
			first = all[before:]
		case (n + 1) / 2:
			middle = all[before:]
		case n:
			last = all[before:]
		}
		if i == 1 || i%25 == 0 || i == n {
			reply, then := sum(all[before:served]), sum(all[served:])
			growth.row(i, took, reply.Duration, len(reply.Calls), served-before, then.Duration, len(then.Calls), len(all)-served)
		}
	}
	growth.print("Relations one by one")
	for _, of := range []struct {
		title string
		list  []dispatch
	}{{"1", first}, {strconv.Itoa((n + 1) / 2), middle}, {strconv.Itoa(n), last}} {
		events := b.table("event", "hook time", "hook tools", "passes", "steps", "resident")
		for _, d := range of.list {
			events.row(strings.TrimPrefix(d.Hook, "hooks/"), d.Duration, len(d.Calls), d.passes, d.steps, megabytes(d.Memory))
		}
		events.print("The events of relation " + of.title)
	}

	costs := b.table("with all relations", "p50", "p95", "hook tools", "passes", "steps", "resident", "of the hook tools")
	costs.costs("update-status before the first", idle)
	costs.costs("update-status", b.repeat(20, func(int) { b.must(b.UpdateStatus(unit)) }))
	costs.costs("an event of a served relation", b.repeat(20, func(i int) { b.must(stubs[i%n].Touch()) }))
	costs.costs("config client-endpoints=service", b.repeat(1, func(int) {
		b.must(b.SetConfig(app, map[string]any{"client-endpoints": "service"}))
	}))
	costs.costs("update-status after that", b.repeat(1, func(int) { b.must(b.UpdateStatus(unit)) }))
	costs.costs("config client-endpoints=pod-ip", b.repeat(1, func(int) {
		b.must(b.SetConfig(app, map[string]any{"client-endpoints": nil}))
	}))
	costs.costs("the end of a relation", b.repeat(1, func(int) {
		b.must(b.RemoveRelation(app+":database", "client-1:database"))
	}))
	costs.print("One unit")
}

// bench is a model, and a record of what the charm did in it.
type bench struct {
	*localmodel.Model
	t *testing.T

	mu         sync.Mutex
	dispatches []dispatch
	last       [2]int // passes and steps, until the hook is done
}

type dispatch struct {
	localmodel.HookRecord
	passes, steps int
}

var dispatched = regexp.MustCompile(`dispatched .*passes=(\d+) steps=(\d+)`)

func newBench(t *testing.T) *bench {
	b := &bench{t: t}
	model, err := localmodel.New(localmodel.Options{
		Dir:  filepath.Join(node.Dir, "m"),
		Pods: &localmodel.Cluster{Inpod: node.Dir + "/bin/inpod", Pebble: node.Dir + "/bin/pebble"},
		Timing: localmodel.Timing{
			PebblePoll: time.Second, UpdateStatus: 24 * time.Hour, StorageAttach: time.Millisecond,
		},
		Log: func(line localmodel.LogLine) {
			if match := dispatched.FindStringSubmatch(line.Message); match != nil {
				passes, _ := strconv.Atoi(match[1])
				steps, _ := strconv.Atoi(match[2])
				b.mu.Lock()
				b.last = [2]int{passes, steps}
				b.mu.Unlock()
			}
		},
		HookDone: func(hook localmodel.HookRecord) {
			b.mu.Lock()
			defer b.mu.Unlock()
			if hook.Outcome != "committed" {
				t.Errorf("%s %s", hook.Hook, hook.Outcome)
			}
			b.dispatches = append(b.dispatches, dispatch{hook, b.last[0], b.last[1]})
			b.last = [2]int{}
		},
	})
	if err != nil {
		t.Fatal(err)
	}
	b.Model = model
	t.Cleanup(func() {
		if err := model.Close(); err != nil {
			t.Error(err)
		}
		_ = os.RemoveAll(filepath.Join(node.Dir, "m"))
	})
	b.must(model.Deploy(localmodel.Deployment{
		Charm: charm, Trust: true, Images: map[string]string{"postgresql-image": image},
	}))
	ctx, cancel := context.WithTimeout(context.Background(), 2*time.Minute)
	defer cancel()
	b.must(model.Wait(ctx, "an active unit", func(s localmodel.Status) bool { return s.Settled(app, 1) }))
	b.quiet()
	return b
}

func (b *bench) must(err error) {
	b.t.Helper()
	if err != nil {
		b.t.Fatal(err)
	}
}

func (b *bench) all() []dispatch {
	b.mu.Lock()
	defer b.mu.Unlock()
	return slices.Clone(b.dispatches)
}

// until waits for a condition.
func (b *bench) until(what string, condition func() bool) {
	b.t.Helper()
	for end := time.Now().Add(2 * time.Minute); !condition(); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(end) {
			b.t.Fatalf("waited in vain for %s; last status:\n%s", what, b.Status())
		}
	}
}

// quiet waits until the charm has had nothing to do for a while.
func (b *bench) quiet() {
	b.t.Helper()
	since, dispatches := time.Now(), -1
	b.until("rest", func() bool {
		if n := len(b.all()); n != dispatches || b.Status().App(app).Units[0].Agent.Status != "idle" {
			since, dispatches = time.Now(), n
		}
		return time.Since(since) > 200*time.Millisecond
	})
}

// repeat does something so many times, and returns what the charm did for it
// each time.
func (b *bench) repeat(times int, do func(int)) []dispatch {
	b.t.Helper()
	var each []dispatch
	for i := range times {
		before := len(b.all())
		do(i)
		b.until("a dispatch", func() bool { return len(b.all()) > before })
		b.quiet()
		each = append(each, sum(b.all()[before:]))
	}
	return each
}

// sum puts several dispatches into one.
func sum(of []dispatch) dispatch {
	var all dispatch
	for _, d := range of {
		all.Duration += d.Duration
		all.Calls = append(all.Calls, d.Calls...)
		all.passes += d.passes
		all.steps += d.steps
		all.Memory = max(all.Memory, d.Memory)
	}
	return all
}

// table gathers rows to be printed in columns.
type table struct {
	t    *testing.T
	text strings.Builder
	w    *tabwriter.Writer
}

func (b *bench) table(head ...string) *table {
	t := &table{t: b.t}
	t.w = tabwriter.NewWriter(&t.text, 0, 8, 2, ' ', 0)
	fmt.Fprintln(t.w, strings.Join(head, "\t"))
	return t
}

func (t *table) row(cells ...any) {
	for i, cell := range cells {
		if d, ok := cell.(time.Duration); ok {
			cell = fmt.Sprintf("%.0f ms", d.Seconds()*1000)
		}
		fmt.Fprint(t.w, cell)
		if i < len(cells)-1 {
			fmt.Fprint(t.w, "\t")
		}
	}
	fmt.Fprintln(t.w)
}

// costs adds what something cost, which was repeated.
func (t *table) costs(what string, each []dispatch) {
	slices.SortFunc(each, func(a, b dispatch) int { return cmp.Compare(a.Duration, b.Duration) })
	middle, high := each[len(each)/2], each[len(each)*95/100]
	t.row(what, middle.Duration, high.Duration, len(middle.Calls), middle.passes, middle.steps, megabytes(high.Memory), tally(middle.Calls))
}

func (t *table) print(title string) {
	_ = t.w.Flush()
	t.t.Logf("%s\n\n%s", title, t.text.String())
}

// tally lists the hook tools that were called most.
func tally(calls []localmodel.ToolRecord) string {
	times := map[string]int{}
	var names []string
	for _, call := range calls {
		if times[call.Tool]++; times[call.Tool] == 1 {
			names = append(names, call.Tool)
		}
	}
	slices.SortStableFunc(names, func(a, b string) int { return times[b] - times[a] })
	var parts []string
	for _, name := range names[:min(4, len(names))] {
		parts = append(parts, fmt.Sprint(times[name], " ", name))
	}
	return strings.Join(parts, ", ")
}

func megabytes(bytes int64) string { return fmt.Sprintf("%.0f MB", float64(bytes)/(1<<20)) }
