package localmodel

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"maps"
	mathrand "math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	"charmhub.io/postgresql-k8s/tests/localmodel/kubeapi"
)

// AgentVersion is the Juju that the model says it is.
const AgentVersion = "4.1-beta2"

// Options say how a model is. Only Dir and Pods are necessary.
type Options struct {
	Name string // of the model and its Kubernetes namespace; "local" if empty
	Dir  string // for everything that the model keeps
	Pods Pods   // where units run

	Timing Timing
	Clock  Clock  // the machine's if nil
	Seed   uint64 // of what is random in Juju, the order of some events
	Faults Faults

	// FreshStorage gives a unit that comes back after scaling down a new, empty
	// storage as Juju 4.1 does. Juju 3.6 gives it the one that it had.
	FreshStorage bool

	// Log, when set, is told of every line of the debug log. HookDone of every
	// dispatch. They must not call the model.
	Log      func(LogLine)
	HookDone func(HookRecord)
}

// Timing holds the model's waits. Zero values become Juju's own.
type Timing struct {
	RetryMin, RetryMax time.Duration // backoff after a failed hook: 5 s, doubled up to 5 min
	PebblePoll         time.Duration // looking for a new Pebble: 5 s
	UpdateStatus       time.Duration // 5 min
	Probe              time.Duration // the kubelet's health probes: 5 s
	Readiness          time.Duration // those of readiness: as the others, but at most 1 s
	Lease              time.Duration // leadership of an agent that is gone: 60 s
	Grace              time.Duration // from SIGTERM to SIGKILL of a pod: 30 s
	StorageAttach      time.Duration // a unit learns of its storages at a random time up to: 4 s
}

func (t *Timing) setDefaults() {
	for _, wait := range []struct {
		value *time.Duration
		juju  time.Duration
	}{
		{&t.RetryMin, 5 * time.Second}, {&t.RetryMax, 5 * time.Minute},
		{&t.PebblePoll, 5 * time.Second}, {&t.UpdateStatus, 5 * time.Minute},
		{&t.Probe, 5 * time.Second}, {&t.Readiness, min(cmpOr(t.Probe, time.Second), time.Second)},
		{&t.Lease, time.Minute}, {&t.Grace, 30 * time.Second},
		{&t.StorageAttach, 4 * time.Second},
	} {
		if *wait.value == 0 {
			*wait.value = wait.juju
		}
	}
}

// A Model is a Juju model: applications, their units and relations, and
// everything that the units' agents need. Its methods may be called from any
// goroutine; they return at once, and what they ask for happens in time.
type Model struct {
	opts  Options
	uuid  string
	store *kubeapi.Store

	ctx    context.Context // of everything in the model
	cancel context.CancelFunc
	agents sync.WaitGroup

	mu        sync.Mutex // guards all that follows, and all of applications, units, ...
	changed   chan struct{}
	random    *mathrand.Rand
	apps      map[string]*Application
	relations map[int]*Relation
	secrets   map[string]*Secret
	storages  map[string]*Storage
	actions   map[int]*Action
	tokens    map[string]*Application
	next      struct{ relation, storage, action int }
	log       []LogLine
}

// A LogLine is a line of juju debug-log.
type LogLine struct {
	Time    time.Time
	Entity  string // unit-app-0
	Level   string
	Module  string
	Message string
}

// String is the line as juju debug-log prints it.
func (l LogLine) String() string {
	return fmt.Sprintf("%s: %s %s %s %s", l.Entity, l.Time.Format(time.TimeOnly), l.Level, l.Module, l.Message)
}

// New makes an empty model.
func New(opts Options) (*Model, error) {
	opts.Timing.setDefaults()
	if opts.Clock == nil {
		opts.Clock = realTime{}
	}
	if opts.Name == "" {
		opts.Name = "local"
	}
	if err := os.MkdirAll(opts.Dir, 0o755); err != nil {
		return nil, fmt.Errorf("cannot make model: %w", err)
	}
	m := &Model{
		opts:      opts,
		uuid:      newUUID(),
		store:     kubeapi.NewStore(),
		changed:   make(chan struct{}),
		random:    mathrand.New(mathrand.NewPCG(opts.Seed, opts.Seed)),
		apps:      map[string]*Application{},
		relations: map[int]*Relation{},
		secrets:   map[string]*Secret{},
		storages:  map[string]*Storage{},
		actions:   map[int]*Action{},
		tokens:    map[string]*Application{},
	}
	m.ctx, m.cancel = context.WithCancel(context.Background())
	m.store.Deleted = m.objectDeleted
	if _, err := m.store.Create("namespaces", "", kubeapi.Object{"metadata": kubeapi.Object{"name": opts.Name}}); err != nil {
		return nil, err
	}
	if err := opts.Pods.Open(m.store, opts.Name, m.authenticate); err != nil {
		return nil, fmt.Errorf("cannot make model: %w", err)
	}
	m.agents.Go(m.renewLeases)
	return m, nil
}

// Close ends all units' agents and pods. Storages stay on disk.
func (m *Model) Close() error {
	m.cancel()
	m.agents.Wait()
	return m.opts.Pods.Close()
}

// Store is the model's Kubernetes objects.
func (m *Model) Store() *kubeapi.Store { return m.store }

// Name is the model's name.
func (m *Model) Name() string { return m.opts.Name }

// do runs a function with the model locked, and lets everybody look at the
// model again.
func (m *Model) do(change func() error) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	defer m.notify()
	return change()
}

// notify wakes everybody who waits for a change of the model.
func (m *Model) notify() {
	close(m.changed)
	m.changed = make(chan struct{})
}

// Wait returns when the condition holds for the model's status, or with the
// context's end, and then says what was the matter. The condition is tried at
// every change and must not call the model.
func (m *Model) Wait(ctx context.Context, what string, condition func(Status) bool) error {
	for {
		m.mu.Lock()
		changed, status := m.changed, m.status()
		holds := condition(status)
		m.mu.Unlock()
		if holds {
			return nil
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return fmt.Errorf("waited in vain for %s; last status:\n%s", what, status)
		}
	}
}

// Logs returns the debug log from a line number on, and a channel that is
// closed when there may be more.
func (m *Model) Logs(from int) ([]LogLine, <-chan struct{}) {
	m.mu.Lock()
	defer m.mu.Unlock()
	return slices.Clone(m.log[min(from, len(m.log)):]), m.changed
}

// logf adds a line to the debug log.
func (m *Model) logf(entity, level, module, format string, args ...any) {
	line := LogLine{time.Now(), entity, level, module, fmt.Sprintf(format, args...)}
	m.log = append(m.log, line)
	if m.opts.Log != nil {
		m.opts.Log(line)
	}
}

// sortedKeys returns the keys of a map in order.
func sortedKeys[V any](of map[string]V) []string { return slices.Sorted(maps.Keys(of)) }

// shuffledRelations returns the relations of an application in the order in
// which a unit looks at them: random as in Juju, by the model's seed.
func (m *Model) shuffledRelations(app *Application) []*Relation {
	var found []*Relation
	for _, id := range slices.Sorted(maps.Keys(m.relations)) {
		if m.relations[id].end(app) != nil {
			found = append(found, m.relations[id])
		}
	}
	m.random.Shuffle(len(found), func(i, j int) { found[i], found[j] = found[j], found[i] })
	return found
}

func newUUID() string {
	var b [16]byte
	_, _ = rand.Read(b[:])
	b[6], b[8] = b[6]&0x0f|0x40, b[8]&0x3f|0x80
	return fmt.Sprintf("%x-%x-%x-%x-%x", b[:4], b[4:6], b[6:8], b[8:10], b[10:])
}

// authenticate finds whose service account a Kubernetes token is of.
func (m *Model) authenticate(token string) (kubeapi.User, bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	app := m.tokens[token]
	if app == nil {
		return kubeapi.User{}, false
	}
	return kubeapi.User{Name: "system:serviceaccount:" + m.opts.Name + ":" + app.name, Trusted: app.trust}, true
}

// objectDeleted makes a pod that was deleted over the API come again.
func (m *Model) objectDeleted(resource string, object kubeapi.Object) {
	if resource != "pods" {
		return
	}
	meta, _ := object["metadata"].(kubeapi.Object)
	name, _ := meta["name"].(string)
	uid, _ := meta["uid"].(string)
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, app := range m.apps {
		for _, u := range app.units {
			if u.podName() == name && u.podUID == uid && u.replacing == nil { // else it is its own doing
				go u.replacePod(m.opts.Timing.Grace)
			}
		}
	}
}

// unit finds a unit by name.
func (m *Model) unit(name string) (*Unit, error) {
	appName, _, _ := strings.Cut(name, "/")
	if app := m.apps[appName]; app != nil {
		for _, u := range app.units {
			if u.name == name {
				return u, nil
			}
		}
	}
	return nil, fmt.Errorf("unit %q not found", name)
}

func (m *Model) app(name string) (*Application, error) {
	if app := m.apps[name]; app != nil {
		return app, nil
	}
	return nil, fmt.Errorf("application %q not found", name)
}

// podDir is where a pod's files are, gone with it.
func (m *Model) podDir(u *Unit) string { return filepath.Join(m.opts.Dir, "pods", u.podName()) }

var errGone = errors.New("it is being removed")
