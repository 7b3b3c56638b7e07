package pebble_test

import (
	"context"
	"errors"
	"io/fs"
	"reflect"
	"slices"
	"testing"

	"charmhub.io/postgresql-k8s/charm/state"
	"charmhub.io/postgresql-k8s/pebble"
	"charmhub.io/postgresql-k8s/pebble/pebbletest"
)

const configPath = state.Mount + "/patroni.yml"

// newContainer has what the image and the volume of a unit have.
func newContainer() *pebbletest.Container {
	c := pebbletest.New()
	c.Put("/usr/lib/postgresql/17/bin/postgres", "")
	c.Put("/usr/lib/postgresql/17/lib/pgaudit.so", "")
	c.Put("/sys/fs/cgroup/memory.max", "max\n")
	c.Mkdir(state.Mount)
	return c
}

func newSystem(c *pebbletest.Container) *pebble.System {
	return pebble.NewWith(c.Dial, state.Resources{Memory: 1 << 30, CPUs: 2}, configPath)
}

// wishes are those of a unit that runs.
func wishes() state.Desired {
	layer := services(sleeper("postgresql", "enabled", ""), sleeper("helper", "disabled", ""))
	layer.Checks = map[string]state.Check{
		"postgresql": {Override: "replace", Level: "ready", Threshold: 3, HTTP: state.HTTPCheck{URL: "http://localhost:8008/health"}},
	}
	return state.Desired{
		Directory: state.Directory{Path: state.Mount, User: "postgres", Group: "postgres"},
		Files:     []state.File{{Path: configPath, Content: "password: hunter2\n", Mode: 0o600, User: "postgres", Group: "postgres"}},
		Layer:     state.Value(layer),
	}
}

// Each test starts from a container that is as it is wished, changes something
// of it or of the wishes, and tells the steps that follow.
func TestDiff(t *testing.T) {
	t.Parallel()
	tests := []struct {
		name   string
		change func(*pebbletest.Container, *state.Desired)
		steps  []string
	}{
		{"what is as it is wished needs no step", func(*pebbletest.Container, *state.Desired) {}, nil},
		{"no wish is no step", func(_ *pebbletest.Container, want *state.Desired) { *want = state.Desired{} }, nil},
		{"another content is pushed, and not shown", func(_ *pebbletest.Container, want *state.Desired) { want.Files[0].Content = "password: other\n" },
			[]string{"push /var/lib/postgresql/data/patroni.yml, mode 600"}},
		{"a file that lost its mode is pushed", func(c *pebbletest.Container, want *state.Desired) {
			push(c, want.Files[0], func(f *state.File) { f.Mode = 0o644 })
		}, []string{"push /var/lib/postgresql/data/patroni.yml, mode 600"}},
		{"a file that lost its owner is pushed", func(c *pebbletest.Container, want *state.Desired) {
			push(c, want.Files[0], func(f *state.File) { f.User = "root" })
		}, []string{"push /var/lib/postgresql/data/patroni.yml, mode 600"}},
		{"a file that is gone is pushed", func(c *pebbletest.Container, _ *state.Desired) { c.Remove(configPath) },
			[]string{"push /var/lib/postgresql/data/patroni.yml, mode 600"}},
		{"a volume that lost its owner is given back", func(c *pebbletest.Container, _ *state.Desired) { must(dial(c).Exec("chown", "root:root", state.Mount)) },
			[]string{"chown postgres:postgres /var/lib/postgresql/data"}},
		{"a check that changed starts nothing", func(_ *pebbletest.Container, want *state.Desired) {
			changeLayer(want, func(l *state.Layer) { l.Checks["postgresql"] = state.Check{Override: "replace", Threshold: 1} })
		}, []string{"combine layer postgresql: services , checks postgresql"}},
		{"a check that nobody wishes stays", func(_ *pebbletest.Container, want *state.Desired) {
			changeLayer(want, func(l *state.Layer) { l.Checks = nil })
		}, nil},
		{"a service that changed is restarted", func(_ *pebbletest.Container, want *state.Desired) {
			changeLayer(want, func(l *state.Layer) { l.Services["postgresql"] = sleeper("", "enabled", "another").Service })
		}, []string{"combine layer postgresql: services postgresql, checks ", "replan"}},
		{"a service that stopped is started", func(c *pebbletest.Container, _ *state.Desired) { c.SetStatus("postgresql", "inactive") },
			[]string{"replan"}},
		{"a service that failed is started", func(c *pebbletest.Container, _ *state.Desired) { c.SetStatus("postgresql", "error") },
			[]string{"replan"}},
		{"a service in backoff is Pebble's to restart", func(c *pebbletest.Container, _ *state.Desired) { c.SetStatus("postgresql", "backoff") }, nil},
		{"a service that need not run may be stopped", func(c *pebbletest.Container, _ *state.Desired) { c.SetStatus("helper", "inactive") }, nil},
		{"a container that was restarted forgot its plan", func(c *pebbletest.Container, _ *state.Desired) { c.Restart() },
			[]string{"combine layer postgresql: services helper postgresql, checks postgresql", "replan"}},
		{"a member whose unit is gone is stopped", func(_ *pebbletest.Container, want *state.Desired) { *want = state.Desired{Stop: true} },
			[]string{"stop postgresql"}},
		{"a container that is away has no steps", func(c *pebbletest.Container, _ *state.Desired) { c.GoAway() }, nil},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			container, want := newContainer(), wishes()
			applyAll(t, newSystem(container), want)

			test.change(container, &want)
			system := newSystem(container)
			var obs state.Observed
			try(t, system.Observe(t.Context(), &obs))
			var got []string
			for _, step := range system.Diff(obs, want) {
				got = append(got, step.String())
				try(t, system.Apply(t.Context(), step))
			}
			if !slices.Equal(got, test.steps) {
				t.Errorf("the steps are %q, want %q", got, test.steps)
			}
			try(t, system.Observe(t.Context(), &obs))
			if again := system.Diff(obs, want); len(again) != 0 {
				t.Errorf("after that the steps are %q, want none", again)
			}
		})
	}
}

func TestAFreshContainerGetsAllInOrder(t *testing.T) {
	t.Parallel()
	container := newContainer()
	var got []string
	for _, step := range applyAll(t, newSystem(container), wishes()) {
		got = append(got, step.String())
	}
	want := []string{
		"chown postgres:postgres /var/lib/postgresql/data",
		"push /var/lib/postgresql/data/patroni.yml, mode 600",
		"combine layer postgresql: services helper postgresql, checks postgresql",
		"replan",
	}
	if !slices.Equal(got, want) {
		t.Errorf("the steps are %q, want %q", got, want)
	}
	if n := container.Starts("postgresql"); n != 1 {
		t.Errorf("the service was started %d times", n)
	}
	if n := container.Starts("helper"); n != 0 {
		t.Errorf("the service that is not enabled was started %d times", n)
	}
}

func TestAFileBehindAnotherIsWrittenBeforeIt(t *testing.T) {
	t.Parallel()
	container, want := newContainer(), wishes()
	config := want.Files[0]
	script := state.File{Path: "/var/lib/postgresql/data/script", Content: "text", Mode: 0o755, User: "postgres", Group: "postgres", Behind: config.Path}
	want.Files = []state.File{script, config}
	count := func() (pushed []string) {
		for _, step := range applyAll(t, newSystem(container), want) {
			if push, ok := step.(pebble.Push); ok {
				pushed = append(pushed, push.Path)
			}
		}
		return pushed
	}
	both := []string{script.Path, config.Path}
	if got := count(); !slices.Equal(got, both) {
		t.Errorf("first %v are written", got)
	}
	if got := count(); len(got) != 0 {
		t.Errorf("then %v are written", got)
	}
	want.Files[1].Content = "changed"
	if got := count(); !slices.Equal(got, both) {
		t.Errorf("when the other changes %v are written", got)
	}
}

// dial returns the socket of a container that is not away.
func dial(c *pebbletest.Container) pebble.Socket {
	socket, err := c.Dial(context.Background())
	must(err)
	return socket
}

func must(err error) {
	if err != nil {
		panic(err)
	}
}

// push writes a file as it should be but for a change.
func push(c *pebbletest.Container, f state.File, change func(*state.File)) {
	change(&f)
	must(dial(c).Push(f.Path, []byte(f.Content.Reveal()), fs.FileMode(f.Mode), f.User, f.Group))
}

func changeLayer(want *state.Desired, change func(*state.Layer)) {
	layer, _ := want.Layer.Get()
	change(&layer)
	want.Layer = state.Value(layer)
}

func TestObserve(t *testing.T) {
	t.Parallel()
	tests := []struct {
		name   string
		change func(*pebbletest.Container)
		want   func(*state.Workload)
	}{
		{"a new unit", func(*pebbletest.Container) {}, func(*state.Workload) {}},
		{"a unit without its volume", func(c *pebbletest.Container) { c.Remove(state.Mount) },
			func(w *state.Workload) { w.Mount = state.Directory{} }},
		{"a unit with data", func(c *pebbletest.Container) { c.Put(state.DataDir+"/PG_VERSION", "16\n") },
			func(w *state.Workload) { w.DataMajor = 16 }},
		{"an image without PostgreSQL", func(c *pebbletest.Container) { c.Remove("/usr/lib/postgresql") },
			func(w *state.Workload) { w.Servers = nil }},
		{"an image with a client only", func(c *pebbletest.Container) { c.Remove("/usr/lib/postgresql/17/bin/postgres") },
			func(w *state.Workload) { w.Servers = nil }},
		{"an image with several servers, one of them too old", func(c *pebbletest.Container) {
			for _, major := range []string{"13", "14", "9.6", "18"} {
				c.Put("/usr/lib/postgresql/"+major+"/bin/postgres", "")
			}
		}, func(w *state.Workload) {
			w.Servers = []state.Server{
				{Major: 18, BinDir: "/usr/lib/postgresql/18/bin"}, w.Servers[0], {Major: 14, BinDir: "/usr/lib/postgresql/14/bin"},
			}
		}},
		{"a container with limits", func(c *pebbletest.Container) {
			c.Put("/sys/fs/cgroup/memory.max", "536870912\n")
			c.Put("/sys/fs/cgroup/cpu.max", "50000 100000\n")
		}, func(w *state.Workload) { w.Resources = state.Resources{Memory: 512 << 20, CPUs: 0.5} }},
		{"a file of ours", func(c *pebbletest.Container) { c.Put(configPath, "scope: x\n") }, func(w *state.Workload) {
			w.Files[configPath] = state.File{Path: configPath, Content: "scope: x\n", Mode: 0o644, User: "root", Group: "root"}
		}},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			container := newContainer()
			test.change(container)
			want := state.Workload{
				Layer:     state.Layer{},
				Services:  map[string]state.ServiceStatus{},
				Files:     map[string]state.File{},
				Mount:     state.Directory{Path: state.Mount, User: "root", Group: "root"},
				Servers:   []state.Server{{Major: 17, BinDir: "/usr/lib/postgresql/17/bin", Libraries: []string{"pgaudit"}}},
				Resources: state.Resources{Memory: 1 << 30, CPUs: 2},
			}
			test.want(&want)
			var obs state.Observed
			try(t, newSystem(container).Observe(t.Context(), &obs))
			got, known := obs.Workload.Get()
			got.Layer = state.Layer{} // is in another test
			if !known || !reflect.DeepEqual(got, want) {
				t.Errorf("it is\n%+v, known %t, want\n%+v", got, known, want)
			}
		})
	}
}

func TestWakeRecordsANotice(t *testing.T) {
	t.Parallel()
	container := newContainer()
	system := newSystem(container)
	try(t, system.Wake(t.Context()))
	if got, want := container.Notices(), []string{"charmhub.io/postgresql-k8s/again"}; !slices.Equal(got, want) {
		t.Errorf("the notices are %v, want %v", got, want)
	}
	container.GoAway()
	if err := system.Wake(t.Context()); !errors.Is(err, pebble.ErrAway) {
		t.Errorf("with the container away the error is %v, want %v", err, pebble.ErrAway)
	}
}

func TestAStepThatFailsSaysWhat(t *testing.T) {
	t.Parallel()
	system := newSystem(newContainer())
	var obs state.Observed
	try(t, system.Observe(t.Context(), &obs))
	file := state.File{Path: "/none/f", Content: "hunter2", Mode: 0o600, User: "postgres", Group: "postgres"}
	for want, step := range map[string]state.Step{
		"cannot write /none/f: cannot write /none/f: there is no such directory": pebble.Push{File: file},
		"cannot apply pebble_test.unknownStep to pebble":                         unknownStep{},
	} {
		if err := system.Apply(t.Context(), step); err == nil || err.Error() != want {
			t.Errorf("the error is %v, want %s", err, want)
		}
	}
}

type unknownStep struct{}

func (unknownStep) String() string { return "unknown" }
