//go:build integration

// Package integration drives the juju command line against the current
// controller, as a user does. It needs a controller on a Kubernetes cloud in
// whose nodes the workload image is (TestMain says what is missing), the packed
// charm in dist/, and kubectl.
//
// Each test has a model of its own. KEEP=1 leaves the models of failed tests.
package integration

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"
)

// image is the workload image, as it was imported into the cluster.
func image() string {
	if name := os.Getenv("IMAGE"); name != "" {
		return name
	}
	return "localhost/postgresql-k8s:dev"
}

const app = "postgresql-k8s"

// look is the time between two looks at the status. Each costs the client and the
// controller a tenth of a second of a processor, which the cluster may need.
const look = 500 * time.Millisecond

var charmFile string

func TestMain(m *testing.M) {
	os.Exit(func() int {
		if out, err := exec.Command("juju", "show-controller").CombinedOutput(); err != nil {
			fmt.Fprintf(os.Stderr, "These tests drive a real Juju, and there is no current controller: bootstrap one on Kubernetes, or switch to one.\n%s", out)
			return 1
		}
		path, err := filepath.Abs("../../dist/postgresql-k8s_amd64.charm")
		if err == nil {
			_, err = os.Stat(path)
		}
		if err != nil {
			fmt.Fprintf(os.Stderr, "There is no packed charm: run make charm first (%v).\n", err)
			return 1
		}
		charmFile = path
		return m.Run()
	}())
}

// model is a Juju model of one test.
type model struct {
	t    *testing.T
	name string
}

func newModel(t *testing.T) model {
	t.Helper()
	m := model{t, strings.ToLower(strings.NewReplacer("/", "-", "_", "-").Replace(t.Name()))}
	m.name = fmt.Sprintf("%.40s-%d", m.name, os.Getpid())
	m.run("juju", "add-model", m.name)
	t.Cleanup(func() {
		if t.Failed() {
			out, _ := exec.Command("juju", "debug-log", "-m", m.name, "--replay", "--no-tail").CombinedOutput()
			lines := slices.DeleteFunc(strings.Split(string(out), "\n"), func(line string) bool {
				return strings.HasPrefix(line, "controller-") // the status history, above all
			})
			status, _ := exec.Command("juju", "status", "-m", m.name).CombinedOutput()
			t.Logf("the end of the model's log, and its status:\n%s\n%s", strings.Join(lines[max(0, len(lines)-60):], "\n"), status)
			if os.Getenv("KEEP") != "" {
				return
			}
		}
		_ = exec.Command("juju", "destroy-model", m.name, "--no-prompt", "--destroy-storage", "--force", "--no-wait").Run()
	})
	return m
}

// in is the model for a subtest.
func (m model) in(t *testing.T) model { return model{t, m.name} }

// manifest writes a Kubernetes object to a file and returns its path.
func (m model) manifest(object string) string {
	m.t.Helper()
	path := filepath.Join(m.t.TempDir(), "object.json")
	if err := os.WriteFile(path, []byte(object), 0o600); err != nil {
		m.t.Fatal(err)
	}
	return path
}

// try runs a command and returns its standard output.
func (m model) try(command ...string) (string, error) {
	ctx, cancel := context.WithTimeout(context.Background(), 3*time.Minute)
	defer cancel()
	cmd := exec.CommandContext(ctx, command[0], command[1:]...)
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		err = fmt.Errorf("%s: %w\n%s", strings.Join(command, " "), err, stderr.String())
	}
	return string(out), err
}

func (m model) run(command ...string) string {
	m.t.Helper()
	out, err := m.try(command...)
	if err != nil {
		m.t.Fatal(err)
	}
	return out
}

// juju runs a juju command in the model.
func (m model) juju(args ...string) string {
	m.t.Helper()
	return m.run(append([]string{"juju", args[0], "-m", m.name}, args[1:]...)...)
}

// kubectl runs a kubectl command in the model's namespace.
func (m model) kubectl(args ...string) string {
	m.t.Helper()
	return m.run(append([]string{"kubectl", "-n", m.name}, args...)...)
}

// deploy deploys the charm with the further arguments.
func (m model) deploy(args ...string) {
	m.t.Helper()
	m.run(m.deployCommand(args...)...)
}

func (m model) deployCommand(args ...string) []string {
	return append([]string{"juju", "deploy", "-m", m.name, charmFile, "--resource", "postgresql-image=" + image()}, args...)
}

// unit is a unit as juju status shows it.
type unit struct {
	Workload struct{ Current, Message string } `json:"workload-status"`
	Agent    struct{ Current string }          `json:"juju-status"`
	Leader   bool
}

// application is an application as juju status shows it.
type application struct {
	Version string
	Units   map[string]unit
}

func (m model) status() application { return m.statusOf(app) }

func (m model) statusOf(name string) application {
	out, err := m.try("juju", "status", "-m", m.name, "--format=json")
	if err != nil {
		return application{} // a controller that is busy; the caller polls
	}
	var s struct{ Applications map[string]application }
	if err := json.Unmarshal([]byte(out), &s); err != nil {
		m.t.Fatalf("cannot read juju status: %v", err)
	}
	return s.Applications[name]
}

// waitFor polls until the status is as wanted, and logs how long that took.
func (m model) waitFor(what string, limit time.Duration, want func(application) bool) {
	m.t.Helper()
	start := time.Now()
	for time.Since(start) < limit {
		if want(m.status()) {
			m.t.Logf("%s after %.1f s", what, time.Since(start).Seconds())
			return
		}
		time.Sleep(look)
	}
	m.t.Fatalf("not %s within %s; the status is %+v", what, limit, m.status())
}

// primary tells whether there is one unit, active and the primary.
func primary(a application) bool {
	if len(a.Units) != 1 {
		return false
	}
	for _, u := range a.Units {
		if u.Workload.Current != "active" || u.Workload.Message != "Primary" {
			return false
		}
	}
	return true
}

// settled tells whether that is so and no hook runs.
func settled(a application) bool {
	for _, u := range a.Units {
		if u.Agent.Current != "idle" {
			return false
		}
	}
	return primary(a)
}

// sql runs a statement on the unit's server as a superuser, over the local
// socket, and returns what psql prints.
func (m model) sql(statement string) (string, error) {
	out, err := m.try("kubectl", "-n", m.name, "exec", app+"-0", "-c", "postgresql", "--",
		"su", "postgres", "-c", fmt.Sprintf("psql -U backup -d postgres -XtAqc %q", statement))
	return strings.TrimSpace(out), err
}
