//go:build localmodel

// Package e2e tests the packed charm in the local model: real Pebble, Patroni
// and PostgreSQL in pods made of namespaces.
package e2e

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"charmhub.io/postgresql-k8s/tests/localmodel"
	"charmhub.io/postgresql-k8s/tests/localmodel/node"
)

const app = "postgresql-k8s"

// dir is where the tests keep everything, and image the root file system that
// image/build.sh --rootfs has made; failed is where the logs of failed tests go.
// All can be set in the environment.
var (
	dir   = fromEnv("LOCALMODEL_DIR", "/var/lib/postgresql-k8s-localmodel/test")
	image = fromEnv("LOCALMODEL_IMAGE", "/var/lib/postgresql-k8s-localmodel/image")
	charm = fromEnv("LOCALMODEL_CHARM", "../../../dist/postgresql-k8s_amd64.charm")

	failed = fromEnv("LOCALMODEL_FAILED", "/var/lib/postgresql-k8s-localmodel/failed")

	programs = localmodel.Programs{Inpod: node.Dir + "/bin/inpod", Pebble: node.Dir + "/bin/pebble"}
)

func fromEnv(name, otherwise string) string {
	if value := os.Getenv(name); value != "" {
		return value
	}
	return otherwise
}

func TestMain(m *testing.M) {
	if err := prepare(); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	os.Exit(m.Run())
}

func prepare() error {
	if !node.Inside() {
		for path, make := range map[string]string{charm: "make charm", image + "/usr": "image/build.sh --rootfs " + image} {
			if _, err := os.Stat(path); err != nil {
				return fmt.Errorf("cannot test the charm: %w; run %s", err, make)
			}
		}
		if err := node.Lock(dir); err != nil {
			return fmt.Errorf("cannot test the charm: %w; set LOCALMODEL_DIR for another", err)
		}
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

// world is a model for one test.
type world struct {
	*localmodel.Model
	t       *testing.T
	cluster *localmodel.Cluster
	ended   bool
}

func newWorld(t *testing.T, adjust func(*localmodel.Options)) *world {
	t.Helper()
	w := &world{t: t, cluster: &localmodel.Cluster{Inpod: programs.Inpod, Pebble: programs.Pebble}}
	opts := localmodel.Options{
		Dir:  filepath.Join(node.Dir, "m"),
		Pods: w.cluster,
		Timing: localmodel.Timing{
			RetryMin: 200 * time.Millisecond, RetryMax: 500 * time.Millisecond, PebblePoll: time.Second,
			UpdateStatus: time.Minute, Probe: 2 * time.Second, Lease: 5 * time.Second,
		},
	}
	if testing.Verbose() {
		opts.Log = func(line localmodel.LogLine) { fmt.Println(line) }
	}
	if adjust != nil {
		adjust(&opts)
	}
	var err error
	if w.Model, err = localmodel.New(opts); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(w.end)
	return w
}

// end closes the model; after a failure the logs stay for a look.
func (w *world) end() {
	if w.t.Failed() && !testing.Verbose() {
		lines, _ := w.Logs(0)
		for _, line := range lines[max(0, len(lines)-200):] {
			w.t.Log(line)
		}
	}
	if w.ended {
		return
	}
	w.ended = true
	if err := w.Close(); err != nil {
		w.t.Error(err)
	}
	if w.t.Failed() {
		to := filepath.Join(failed, strings.ReplaceAll(w.t.Name(), "/", "-"))
		w.t.Logf("the logs are in %s (%v)", to, w.exhibit(to))
	}
	if err := os.RemoveAll(filepath.Join(node.Dir, "m")); err != nil {
		w.t.Error(err)
	}
}

// exhibit keeps what tells why a test failed: the model's log, and what the
// containers printed, Patroni and PostgreSQL among them. Pods that were replaced have
// taken theirs with them.
func (w *world) exhibit(to string) error {
	if err := errors.Join(os.RemoveAll(to), os.MkdirAll(to, 0o755)); err != nil {
		return err
	}
	var model strings.Builder
	lines, _ := w.Logs(0)
	for _, line := range lines {
		fmt.Fprintln(&model, line)
	}
	if err := os.WriteFile(filepath.Join(to, "model.log"), []byte(model.String()), 0o644); err != nil {
		return err
	}
	pods := os.DirFS(filepath.Join(node.Dir, "m", "pods"))
	logs, err := fs.Glob(pods, "*/*/log")
	if err != nil {
		return err
	}
	for _, log := range logs {
		printed, err := fs.ReadFile(pods, log)
		if err != nil {
			return err
		}
		name := strings.ReplaceAll(path.Dir(log), "/", "-") + ".log"
		if err := os.WriteFile(filepath.Join(to, name), printed, 0o644); err != nil {
			return err
		}
	}
	return nil
}

func (w *world) must(err error) {
	w.t.Helper()
	if err != nil {
		w.t.Fatal(err)
	}
}

func (w *world) deploy(units int) {
	w.t.Helper()
	w.deployAs(app, units)
}

func (w *world) deployAs(name string, units int) {
	w.t.Helper()
	w.must(w.Deploy(localmodel.Deployment{
		Charm: charm, Name: name, Units: units, Trust: true, Images: map[string]string{"postgresql-image": image},
	}))
}

// settle waits until the charm's units are active and idle.
func (w *world) settle(units int) {
	w.t.Helper()
	w.settleApp(app, units)
}

func (w *world) settleApp(name string, units int) {
	w.t.Helper()
	w.wait("all units active", func(s localmodel.Status) bool { return s.Settled(name, units) })
}

// wait waits until the status is as wished.
func (w *world) wait(what string, condition func(localmodel.Status) bool) {
	w.t.Helper()
	// A primary that is removed waits half a minute in each of its last hooks.
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Minute)
	defer cancel()
	w.must(w.Wait(ctx, what, condition))
}

// eventually waits until something outside of the model is as wished.
func (w *world) eventually(what string, condition func() bool) {
	w.t.Helper()
	for end := time.Now().Add(2 * time.Minute); !condition(); time.Sleep(200 * time.Millisecond) {
		if time.Now().After(end) {
			w.t.Fatalf("waited in vain for %s; last status:\n%s", what, w.Status())
		}
	}
}

// pod is a unit's pod.
func (w *world) pod(unit string) (*localmodel.ClusterPod, error) {
	found, err := w.Pod(unit)
	pod, _ := found.(*localmodel.ClusterPod)
	return pod, err
}

// kill ends a container of a unit's pod.
func (w *world) kill(unit, container string) {
	w.t.Helper()
	pod, err := w.pod(unit)
	w.must(err)
	pod.Container(container).Kill()
}

// psql runs SQL in a unit's pod, on the primary and as the operator user, and
// returns what it prints.
func (w *world) psql(unit, sql string) string {
	w.t.Helper()
	var out string
	w.eventually("an answer to "+sql, func() (answered bool) {
		var err error
		out, err = w.tryPsql(unit, sql) // the Service may have no ready pod yet
		return err == nil
	})
	return out
}

func (w *world) tryPsql(unit, sql string) (string, error) {
	pod, err := w.pod(unit)
	if err != nil {
		return "", err
	}
	c := pod.Container("postgresql")
	if c == nil {
		return "", errors.New("no container")
	}
	secret, err := w.SecretContent(app, "database-peers."+app+".app")
	if err != nil {
		return "", err
	}
	var out bytes.Buffer
	cmd := exec.Command("/usr/bin/psql", "-XAtq", "-h", app+"-primary", "-U", "operator", "-d", "postgres", "-c", sql)
	cmd.Env = []string{"PGPASSWORD=" + secret["operator-password"], "PGCONNECT_TIMEOUT=2", "PATH=/usr/bin:/bin"}
	cmd.Stdout, cmd.Stderr = &out, &out
	if err := pod.Pod.Start(c, cmd); err != nil {
		return "", err
	}
	err = cmd.Wait()
	if err != nil {
		err = fmt.Errorf("psql on %s: %w: %s", unit, err, out.String())
	}
	return strings.TrimSpace(out.String()), err
}
