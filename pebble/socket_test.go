package pebble_test

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"gopkg.in/yaml.v3"

	"charmhub.io/postgresql-k8s/charm/state"
	"charmhub.io/postgresql-k8s/pebble"
	"charmhub.io/postgresql-k8s/pebble/pebbletest"
)

func TestTheContainerInMemoryIsASocket(t *testing.T) {
	t.Parallel()
	container := pebbletest.New()
	container.Mkdir("/tmp")
	testSocket(t, func(t *testing.T) (pebble.Socket, string) {
		socket, err := container.Dial(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		dir := "/tmp/" + filepath.Base(t.Name())
		container.Mkdir(dir)
		return socket, dir
	})
}

func TestTheRealDaemonIsASocket(t *testing.T) {
	t.Parallel()
	path := startDaemon(t)
	testSocket(t, func(t *testing.T) (pebble.Socket, string) {
		socket, err := pebble.Dial(t.Context(), path)
		if err != nil {
			t.Fatal(err)
		}
		return socket, t.TempDir()
	})
}

// testSocket is what the charm relies on. The tests share a daemon and use names
// of their own; dial also returns an empty directory in the container.
func testSocket(t *testing.T, dial func(t *testing.T) (pebble.Socket, string)) {
	tests := []struct {
		name string
		test func(t *testing.T, s pebble.Socket, dir string)
	}{
		{"a file that was pushed is as it was asked for", func(t *testing.T, s pebble.Socket, dir string) {
			path := dir + "/file"
			try(t, s.Push(path, []byte("content\n"), 0o640, "root", "root"))
			content, err := s.Pull(path)
			try(t, err)
			if string(content) != "content\n" {
				t.Errorf("the content is %q", content)
			}
			entry, err := s.Stat(path)
			try(t, err)
			if want := (pebble.Entry{Name: "file", Mode: 0o640, User: "root", Group: "root"}); entry != want {
				t.Errorf("it is %+v, want %+v", entry, want)
			}
		}},
		{"a push replaces the file, mode and all, and leaves nothing else", func(t *testing.T, s pebble.Socket, dir string) {
			try(t, s.Push(dir+"/file", []byte("a longer content"), 0o644, "root", "root"))
			try(t, s.Push(dir+"/file", []byte("short"), 0o600, "root", "root"))
			content, err := s.Pull(dir + "/file")
			try(t, err)
			entries, err := s.List(dir, "")
			try(t, err)
			if string(content) != "short" || len(entries) != 1 || entries[0].Mode != 0o600 {
				t.Errorf("there are %+v, with the content %q", entries, content)
			}
		}},
		{"a file that is not there does not exist", func(t *testing.T, s pebble.Socket, dir string) {
			if _, err := s.Stat(dir + "/none"); !errors.Is(err, fs.ErrNotExist) {
				t.Errorf("Stat says %v", err)
			}
			if _, err := s.List(dir+"/none", ""); !errors.Is(err, fs.ErrNotExist) {
				t.Errorf("List says %v", err)
			}
			if content, err := s.Pull(dir + "/none"); err == nil {
				t.Errorf("Pull gives %q", content)
			}
		}},
		{"a directory is looked at itself, and is no file", func(t *testing.T, s pebble.Socket, dir string) {
			entry, err := s.Stat(dir)
			try(t, err)
			if entry.Name != filepath.Base(dir) || entry.User != "root" {
				t.Errorf("it is %+v", entry)
			}
			if content, err := s.Pull(dir); err == nil {
				t.Errorf("Pull gives %q", content)
			}
		}},
		{"a listing has the names that match", func(t *testing.T, s pebble.Socket, dir string) {
			for _, name := range []string{"a.so", "b.txt", "c.so"} {
				try(t, s.Push(dir+"/"+name, nil, 0o644, "root", "root"))
			}
			for pattern, want := range map[string]string{"": "a.so b.txt c.so", "*.so": "a.so c.so", "d*": ""} {
				entries, err := s.List(dir, pattern)
				try(t, err)
				var names []string
				for _, e := range entries {
					names = append(names, e.Name)
				}
				if got := strings.Join(names, " "); got != want {
					t.Errorf("%q lists %s, want %s", pattern, got, want)
				}
			}
		}},
		{"a push into a directory that is not there fails", func(t *testing.T, s pebble.Socket, dir string) {
			if s.Push(dir+"/none/file", nil, 0o600, "root", "root") == nil {
				t.Error("it did not")
			}
		}},
		{"a push for a user that is not there fails and writes nothing", func(t *testing.T, s pebble.Socket, dir string) {
			if s.Push(dir+"/file", nil, 0o600, "nobody-of-this-name", "root") == nil {
				t.Error("it did not")
			}
			if _, err := s.Stat(dir + "/file"); !errors.Is(err, fs.ErrNotExist) {
				t.Errorf("Stat says %v", err)
			}
		}},
		{"a layer that was combined is in the plan, word for word", func(t *testing.T, s pebble.Socket, _ string) {
			want := state.Layer{
				Services: map[string]state.Service{"round-trip": {
					Override: "replace", Summary: "a summary", Command: "sleep 1000", Startup: "disabled", User: "root", Group: "root",
					WorkingDir: "/", Environment: map[string]string{"A": "b"}, OnFailure: "restart", KillDelay: state.Duration(5 * time.Minute),
				}},
				Checks: map[string]state.Check{
					"round-trip-http": {Override: "replace", Level: "ready", Startup: "disabled", Period: state.Duration(time.Second), Timeout: state.Duration(time.Second), Threshold: 3,
						HTTP: state.HTTPCheck{URL: "http://localhost:1/health"}},
					"round-trip-exec": {Override: "replace", Startup: "disabled", Period: state.Duration(time.Minute), Timeout: state.Duration(time.Second), Threshold: 1,
						Exec: state.ExecCheck{Command: "true"}},
				},
			}
			combine(t, s, want)
			got := plan(t, s)
			for name := range want.Services {
				if !reflect.DeepEqual(got.Services[name], want.Services[name]) {
					t.Errorf("service %s is %+v, want %+v", name, got.Services[name], want.Services[name])
				}
			}
			for name := range want.Checks {
				if got.Checks[name] != want.Checks[name] {
					t.Errorf("check %s is %+v, want %+v", name, got.Checks[name], want.Checks[name])
				}
			}
		}},
		{"combining replaces an entry and leaves the others", func(t *testing.T, s pebble.Socket, _ string) {
			combine(t, s, services(sleeper("replaced", "disabled", "first"), sleeper("left", "disabled", "first")))
			second := services(sleeper("replaced", "disabled", ""))
			combine(t, s, second)
			got := plan(t, s)
			if !reflect.DeepEqual(got.Services["replaced"], second.Services["replaced"]) || got.Services["left"].Summary != "first" {
				t.Errorf("the services are %+v", got.Services)
			}
		}},
		{"a layer that says nothing of override is refused", func(t *testing.T, s pebble.Socket, _ string) {
			if s.Combine("postgresql", []byte("services: {refused: {command: 'true'}}")) == nil {
				t.Error("it was taken")
			}
			if _, ok := plan(t, s).Services["refused"]; ok {
				t.Error("it is in the plan")
			}
		}},
		{"a replan starts what should run, and only that", func(t *testing.T, s pebble.Socket, _ string) {
			combine(t, s, services(sleeper("enabled", "enabled", ""), sleeper("disabled", "disabled", "")))
			for _, name := range []string{"enabled", "disabled"} {
				if got := statuses(t, s)[name]; got != "inactive" {
					t.Errorf("before the replan %s is %s", name, got)
				}
			}
			try(t, s.Replan())
			waitFor(t, s, "enabled", "active")
			if got := statuses(t, s)["disabled"]; got != "inactive" {
				t.Errorf("disabled is %s", got)
			}
		}},
		{"a replan without a change is no error", func(t *testing.T, s pebble.Socket, _ string) {
			try(t, s.Replan())
			try(t, s.Replan())
		}},
		{"a service that is stopped stays so, until a replan", func(t *testing.T, s pebble.Socket, _ string) {
			combine(t, s, services(sleeper("stopped", "enabled", "")))
			try(t, s.Replan())
			waitFor(t, s, "stopped", "active")
			try(t, s.Stop("stopped"))
			if got := statuses(t, s)["stopped"]; got != "inactive" {
				t.Errorf("it is %s", got)
			}
			try(t, s.Stop("stopped"))
			if s.Stop("none") == nil {
				t.Error("one that is not there was stopped")
			}
			try(t, s.Replan())
			waitFor(t, s, "stopped", "active")
		}},
		{"a notice is recorded under a key that looks like an address", func(t *testing.T, s pebble.Socket, _ string) {
			try(t, s.Notify("charmhub.io/postgresql-k8s/again"))
			if s.Notify("again") == nil {
				t.Error("a key without a domain was taken")
			}
		}},
		{"a command that fails is an error, with what it said", func(t *testing.T, s pebble.Socket, dir string) {
			try(t, s.Exec("true"))
			if err := s.Exec("false"); err == nil || !strings.HasPrefix(err.Error(), "false failed: ") {
				t.Errorf("false says %v", err)
			}
			if err := s.Exec("chown", "root:root", dir+"/none"); err == nil || !strings.Contains(err.Error(), "none") {
				t.Errorf("chown says %v", err)
			}
			if err := s.Exec("no-such-command"); err == nil || !strings.HasPrefix(err.Error(), "cannot start no-such-command: ") {
				t.Errorf("a command that is not there says %v", err)
			}
		}},
		{"a directory can be given away", func(t *testing.T, s pebble.Socket, dir string) {
			try(t, s.Exec("chown", "root:root", dir))
			entry, err := s.Stat(dir)
			try(t, err)
			if entry.User != "root" || entry.Group != "root" {
				t.Errorf("it is %+v", entry)
			}
		}},
		{"what the charm applied is what it then observes", func(t *testing.T, s pebble.Socket, dir string) {
			file := state.File{Path: dir + "/patroni.yml", Content: "scope: x\n", Mode: 0o600, User: "root", Group: "root"}
			want := state.Desired{
				Files: []state.File{file},
				Layer: state.Value(services(sleeper("applied", "enabled", "a summary"))),
			}
			system := pebble.NewWith(func(context.Context) (pebble.Socket, error) { return s, nil }, state.Resources{}, file.Path)
			first := applyAll(t, system, want)
			if len(first) != 3 {
				t.Errorf("the first steps are %v, want a push, a combine and a replan", first)
			}
			waitFor(t, s, "applied", "active")
			if second := applyAll(t, system, want); len(second) != 0 {
				t.Errorf("the second steps are %v, want none", second)
			}
		}},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			socket, dir := dial(t)
			test.test(t, socket, dir)
		})
	}
}

func try(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

type named struct {
	name string
	state.Service
}

func sleeper(name, startup, summary string) named {
	return named{name, state.Service{Override: "replace", Summary: summary, Command: "sleep 1000", Startup: startup}}
}

func services(list ...named) state.Layer {
	layer := state.Layer{Services: map[string]state.Service{}}
	for _, s := range list {
		layer.Services[s.name] = s.Service
	}
	return layer
}

func combine(t *testing.T, s pebble.Socket, layer state.Layer) {
	t.Helper()
	data, err := yaml.Marshal(layer)
	try(t, err)
	try(t, s.Combine("postgresql", data))
}

func plan(t *testing.T, s pebble.Socket) state.Layer {
	t.Helper()
	data, err := s.Plan()
	try(t, err)
	var layer state.Layer
	try(t, yaml.Unmarshal(data, &layer))
	return layer
}

func statuses(t *testing.T, s pebble.Socket) map[string]string {
	t.Helper()
	got, err := s.Services()
	try(t, err)
	return got
}

// waitFor asks until a service has the status: Replan does not wait for it.
func waitFor(t *testing.T, s pebble.Socket, name, status string) {
	t.Helper()
	got := ""
	for end := time.Now().Add(5 * time.Second); time.Now().Before(end); {
		if got = statuses(t, s)[name]; got == status {
			return
		}
	}
	t.Errorf("service %s is %s, want %s", name, got, status)
}

// applyAll observes, applies the differences and returns them.
func applyAll(t *testing.T, system *pebble.System, want state.Desired) []state.Step {
	t.Helper()
	var obs state.Observed
	try(t, system.Observe(t.Context(), &obs))
	if _, known := obs.Workload.Get(); !known {
		t.Fatalf("the workload is unknown: %s", obs.Workload.Why())
	}
	steps := system.Diff(obs, want)
	for _, step := range steps {
		try(t, system.Apply(t.Context(), step))
	}
	return steps
}

// startDaemon runs the Pebble that Juju puts into workload containers until the
// test ends, and returns its socket.
func startDaemon(t *testing.T) string {
	t.Helper()
	program, err := buildDaemon()
	if err != nil {
		t.Fatalf("These tests run the real Pebble, and it cannot be built: make its modules available (%v).", err)
	}
	dir := t.TempDir()
	socket := filepath.Join(dir, "pebble.socket")
	daemon := exec.Command(program, "run", "--hold", "--create-dirs")
	daemon.Env = append(os.Environ(), "PEBBLE="+dir, "PEBBLE_SOCKET="+socket, "HOME="+dir)
	var out strings.Builder
	daemon.Stdout, daemon.Stderr = &out, &out
	try(t, daemon.Start())
	t.Cleanup(func() {
		// It stops its services, and then itself.
		_ = daemon.Process.Signal(syscall.SIGTERM)
		kill := time.AfterFunc(10*time.Second, func() { _ = daemon.Process.Kill() })
		_ = daemon.Wait()
		kill.Stop()
	})
	for end := time.Now().Add(10 * time.Second); time.Now().Before(end); {
		if _, err := pebble.Dial(t.Context(), socket); err == nil {
			return socket
		}
	}
	t.Fatalf("Pebble does not answer on %s", socket)
	return ""
}

// buildDaemon builds Pebble into dist/tools; the Go tool does nothing when it is
// there already.
var buildDaemon = sync.OnceValues(func() (string, error) {
	root, err := filepath.Abs("..")
	if err != nil {
		return "", err
	}
	program := filepath.Join(root, "dist", "tools", "pebble")
	build := exec.Command("go", "-C", filepath.Join(root, "tests", "localmodel", "pebble"),
		"build", "-trimpath", "-o", program, "github.com/canonical/pebble/cmd/pebble")
	build.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := build.CombinedOutput(); err != nil {
		return "", fmt.Errorf("%w: %s", err, out)
	}
	return program, nil
})

func TestDialFailsAtOnceWhereNobodyListens(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	dead := filepath.Join(dir, "dead.socket")
	listener, err := net.Listen("unix", dead)
	try(t, err)
	listener.(*net.UnixListener).SetUnlinkOnClose(false)
	try(t, listener.Close())
	for name, path := range map[string]string{"no socket": filepath.Join(dir, "none.socket"), "a socket of a dead daemon": dead} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			start := time.Now()
			_, err := pebble.Dial(t.Context(), path)
			if !errors.Is(err, pebble.ErrAway) {
				t.Errorf("the error is %v, want %v", err, pebble.ErrAway)
			}
			if took := time.Since(start); took > time.Second/2 {
				t.Errorf("it took %s", took)
			}
		})
	}
}

// Systems are observed side by side, in a context that ends with that; the steps
// follow.
func TestAConnectionOutlivesTheObservation(t *testing.T) {
	t.Parallel()
	path := startDaemon(t)
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	socket, err := pebble.Dial(ctx, path)
	try(t, err)
	cancel()
	try(t, socket.Exec("true"))
}

// SQL with a verifier goes through the input, and a new password of Patroni's own
// interface is loaded by a signal.
func TestInputAndSignals(t *testing.T) {
	t.Parallel()
	socket, err := pebble.Dial(t.Context(), startDaemon(t))
	try(t, err)
	me, err := user.Current()
	try(t, err)
	dir := t.TempDir()
	try(t, socket.ExecAs(me.Username, "ALTER ROLE x", "sh", "-c", "cat >"+dir+"/input"))
	if got, err := os.ReadFile(dir + "/input"); err != nil || string(got) != "ALTER ROLE x" {
		t.Errorf("the input was %q: %v", got, err)
	}
	if socket.Signal("trapping", "SIGUSR1") == nil {
		t.Error("a service that is not there was sent a signal")
	}
	// Not SIGHUP: a shell cannot trap what is ignored when it starts, as below nohup.
	trap := fmt.Sprintf(`sh -c 'trap "touch %s/signal" USR1; touch %s/ready; while :; do sleep 0.05; done'`, dir, dir)
	layer, err := yaml.Marshal(state.Layer{Services: map[string]state.Service{"trapping": {Override: "replace", Command: trap, Startup: "enabled"}}})
	try(t, err)
	try(t, socket.Combine("trapping", layer))
	try(t, socket.Replan())
	there := func(name string) bool {
		for range 200 {
			if _, err := os.Stat(dir + "/" + name); err == nil {
				return true
			}
			time.Sleep(25 * time.Millisecond)
		}
		return false
	}
	if !there("ready") {
		t.Fatal("the service did not start")
	}
	try(t, socket.Signal("trapping", "SIGUSR1"))
	if !there("signal") {
		t.Error("the signal did not arrive")
	}
}

func TestPsqlAndHangup(t *testing.T) {
	t.Parallel()
	container := pebbletest.New()
	var signals, sql []string
	container.OnSignal(func(service, signal string) { signals = append(signals, service+" "+signal) })
	container.OnPsql(func(text string) error { sql = append(sql, text); return nil })
	system := pebble.NewWith(container.Dial, state.Resources{})
	if system.Hangup(t.Context()) == nil {
		t.Error("a service that does not run got a signal")
	}
	applyAll(t, system, state.Desired{Layer: state.Value(services(sleeper(state.ServiceName, "enabled", "")))})
	try(t, system.Hangup(t.Context()))
	try(t, system.Psql(t.Context(), "/usr/lib/postgresql/17/bin", "SELECT 1"))
	if !slices.Equal(signals, []string{"postgresql SIGHUP"}) || !slices.Equal(sql, []string{"SELECT 1"}) {
		t.Errorf("the signals are %q, the SQL is %q", signals, sql)
	}
	container.GoAway()
	if system.Hangup(t.Context()) == nil || system.Psql(t.Context(), "", "") == nil {
		t.Error("a container that is away did what it was told")
	}
}

// A daemon that accepts and never answers must not hold a dispatch for longer
// than its budget.
func TestCallsEndWithTheContext(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "silent.socket")
	listener, err := net.Listen("unix", path)
	try(t, err)
	t.Cleanup(func() { _ = listener.Close() })
	calls := map[string]func(pebble.Socket) error{
		"Pull":     func(s pebble.Socket) error { _, err := s.Pull("/f"); return err },
		"List":     func(s pebble.Socket) error { _, err := s.List("/", ""); return err },
		"Stat":     func(s pebble.Socket) error { _, err := s.Stat("/f"); return err },
		"Push":     func(s pebble.Socket) error { return s.Push("/f", nil, 0o600, "root", "root") },
		"Plan":     func(s pebble.Socket) error { _, err := s.Plan(); return err },
		"Combine":  func(s pebble.Socket) error { return s.Combine("l", []byte("{}")) },
		"Replan":   func(s pebble.Socket) error { return s.Replan() },
		"Stop":     func(s pebble.Socket) error { return s.Stop("service") },
		"Services": func(s pebble.Socket) error { _, err := s.Services(); return err },
		"Exec":     func(s pebble.Socket) error { return s.Exec("true") },
		"ExecAs":   func(s pebble.Socket) error { return s.ExecAs("root", "", "true") },
		"Signal":   func(s pebble.Socket) error { return s.Signal("service", "SIGHUP") },
	}
	for name, call := range calls {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
			defer cancel()
			start := time.Now()
			socket, err := pebble.Dial(ctx, path)
			if err == nil {
				err = call(socket)
			}
			if err == nil {
				t.Error("there is an answer of a daemon that gives none")
			}
			if took := time.Since(start); took > time.Second/2 {
				t.Errorf("it took %s, with a deadline of 50 ms", took)
			}
		})
	}
}

func TestAContainerThatIsAwayIsUnknown(t *testing.T) {
	t.Parallel()
	system := pebble.New(filepath.Join(t.TempDir(), "none.socket"))
	var obs state.Observed
	try(t, system.Observe(t.Context(), &obs))
	if _, known := obs.Workload.Get(); known || !strings.Contains(obs.Workload.Why(), "pebble does not answer") {
		t.Errorf("the workload is %s", fmt.Sprint(obs.Workload))
	}
}
