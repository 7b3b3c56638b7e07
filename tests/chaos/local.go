package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"sync"
	"syscall"
	"time"

	"charmhub.io/postgresql-k8s/tests/localmodel"
	"charmhub.io/postgresql-k8s/tests/localmodel/kubeapi"
	"charmhub.io/postgresql-k8s/tests/localmodel/node"
)

const container = "postgresql"

// local is a world in the local model, with Juju's own waits.
type local struct {
	*localmodel.Model
	cluster *localmodel.Cluster
	notes   *journal
	image   string
	ended   context.CancelFunc

	mu   sync.Mutex
	cuts map[string]*node.Pod // that were cut, by unit
}

// fromEnv is what the environment says, as for the local model's own tests.
func fromEnv(name, otherwise string) string {
	if value := os.Getenv(name); value != "" {
		return value
	}
	return otherwise
}

// newLocal goes on inside a new node, and starts an empty model there.
func newLocal(journalPath string) (world, error) {
	dir := fromEnv("LOCALMODEL_DIR", "/var/lib/postgresql-k8s-localmodel/chaos")
	image := fromEnv("LOCALMODEL_IMAGE", "/var/lib/postgresql-k8s-localmodel/image")
	if !node.Inside() {
		if err := prepare(dir, image); err != nil {
			return nil, err
		}
	}
	if err := node.Enter(dir); err != nil {
		return nil, err
	}
	if journalPath == "" {
		journalPath = filepath.Join(dir, "journal")
	}
	notes, err := newJournal(journalPath)
	if err != nil {
		return nil, err
	}
	l := &local{
		cluster: &localmodel.Cluster{Inpod: node.Dir + "/bin/inpod", Pebble: node.Dir + "/bin/pebble"},
		notes:   notes, image: image, cuts: map[string]*node.Pod{},
	}
	l.Model, err = localmodel.New(localmodel.Options{
		Dir: filepath.Join(node.Dir, "m"), Pods: l.cluster,
		Log: func(line localmodel.LogLine) { notes.note("juju", line.String()) },
	})
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithCancel(context.Background())
	l.ended = cancel
	go l.followLogs(ctx)
	return l, nil
}

// prepare cleans the directory and builds what pods need.
func prepare(dir, image string) error {
	for path, command := range map[string]string{
		charmFile(app): "make charm", charmFile(client): "make client", image + "/usr": "image/build.sh --rootfs " + image,
	} {
		if _, err := os.Stat(path); err != nil {
			return fmt.Errorf("%w; run %s", err, command)
		}
	}
	if err := node.Lock(dir); err != nil {
		return err
	}
	if err := os.RemoveAll(filepath.Join(dir, "m")); err != nil {
		return err
	}
	if err := os.MkdirAll(filepath.Join(dir, "bin"), 0o755); err != nil {
		return err
	}
	for _, name := range []string{app, client} {
		// Pods that come later are to have the same charm, whatever is packed meanwhile.
		packed, err := os.ReadFile(charmFile(name))
		if err != nil {
			return err
		}
		if err := os.WriteFile(filepath.Join(dir, name+".charm"), packed, 0o644); err != nil {
			return err
		}
	}
	_, err := localmodel.BuildPrograms(filepath.Join(dir, "bin"))
	return err
}

// charmFile is where a charm is packed.
func charmFile(name string) string { return fmt.Sprintf("dist/%s_%s.charm", name, runtime.GOARCH) }

func (l *local) journal() *journal { return l.notes }

func (l *local) up(ctx context.Context) error {
	if err := l.Deploy(localmodel.Deployment{
		Charm: filepath.Join(node.Dir, app+".charm"), Units: size, Trust: true, Images: map[string]string{"postgresql-image": l.image},
	}); err != nil {
		return err
	}
	if err := l.Deploy(localmodel.Deployment{Charm: filepath.Join(node.Dir, client+".charm")}); err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, 5*time.Minute)
	defer cancel()
	if err := l.Wait(ctx, "units that are active", func(s localmodel.Status) bool { return s.Settled(app, size) }); err != nil {
		return err
	}
	if err := l.Integrate(app, client); err != nil {
		return err
	}
	return l.Wait(ctx, "a client", func(s localmodel.Status) bool { return s.Settled(app, size) && s.Settled(client, 1) })
}

func (l *local) down() error {
	l.ended()
	return errors.Join(l.Close(), os.RemoveAll(filepath.Join(node.Dir, "m")))
}

func (l *local) units(context.Context) ([]unit, error) {
	var units []unit
	for _, u := range l.Status().App(app).Units {
		units = append(units, unit{u.Name, u.Workload.Status, u.Workload.Message, u.Leader})
	}
	return units, nil
}

func (l *local) kubernetes() kubernetes {
	k := kubernetes{addresses: map[string]string{}, revisions: map[string]string{}}
	k.holder = field(l.Store().Get("endpoints", l.Name(), "patroni-"+app), "metadata", "annotations", "leader")
	pods, _ := l.Store().List("pods", l.Name(), func(pod kubeapi.Object) bool {
		return field(pod, "metadata", "labels", "app.kubernetes.io/name") == app
	})
	for _, pod := range pods {
		name := field(pod, "metadata", "name")
		k.addresses[name], k.revisions[name] = field(pod, "status", "podIP"), field(pod, "metadata", "labels", revisionLabel)
	}
	return k
}

// field is the string at a path of an object, or "".
func field(object kubeapi.Object, path ...string) string {
	for _, name := range path[:len(path)-1] {
		object, _ = object[name].(kubeapi.Object)
	}
	text, _ := object[path[len(path)-1]].(string)
	return text
}

func (l *local) endpoints(context.Context) (string, error) {
	relations, err := l.ShowUnit(client + "/0")
	if err != nil {
		return "", err
	}
	for _, r := range relations {
		if r.Endpoint == "database" && r.Application["endpoints"] != "" {
			return r.Application["endpoints"], nil
		}
	}
	return "", errors.New("the relation says nothing of endpoints")
}

func (l *local) credentials(ctx context.Context) (map[string]string, error) {
	action, err := l.RunAction(ctx, client+"/0", "credentials", nil)
	if err != nil {
		return nil, err
	}
	found := map[string]string{}
	for key, value := range action.Results {
		found[key] = fmt.Sprint(value)
	}
	if found["uris"] == "" {
		return nil, fmt.Errorf("the client has no credentials: %s", action.Message)
	}
	return found, nil
}

func (l *local) resolver() *net.Resolver { return resolver(node.Gateway.String() + ":53") }

// resolver asks the name server at an address.
func resolver(server string) *net.Resolver {
	return &net.Resolver{PreferGo: true, Dial: func(ctx context.Context, network, _ string) (net.Conn, error) {
		return (&net.Dialer{}).DialContext(ctx, network, server)
	}}
}

func (l *local) deletePod(unit string) error { return l.DeletePod(unit) }

func (l *local) killPod(unit string) error { return l.KillPod(unit) }

func (l *local) killCharm(unit string) (bool, error) { return l.KillCharm(unit) }

func (l *local) killContainer(unit string) error {
	_, c, err := l.workload(unit)
	if err == nil {
		c.Kill()
	}
	return err
}

// workload is the pod of a unit and the workload container in it.
func (l *local) workload(unit string) (*localmodel.ClusterPod, *node.Container, error) {
	found, err := l.Pod(unit)
	if err != nil {
		return nil, nil, err
	}
	pod, _ := found.(*localmodel.ClusterPod)
	c := pod.Container(container)
	if c == nil {
		return nil, nil, fmt.Errorf("%s has no container %s", unit, container)
	}
	return pod, c, nil
}

func (l *local) signal(unit string, to program, sig syscall.Signal) error {
	_, c, err := l.workload(unit)
	if err != nil {
		return err
	}
	return sendTo(c, to, sig)
}

// sendTo sends a signal to a program in a container, which must be there.
func sendTo(c *node.Container, to program, sig syscall.Signal) error {
	sent, err := c.Signal(sig, func(p node.Process) bool { return to.runs(p.Program, p.Parent) })
	if err == nil && sent == 0 {
		err = fmt.Errorf("cannot signal %s: %w", to, errNotRunning)
	}
	return err
}

func (l *local) cut(unit string, what cut) error {
	pod, _, err := l.workload(unit)
	if err != nil {
		return err
	}
	l.mu.Lock()
	l.cuts[unit] = pod.Pod
	l.mu.Unlock()
	if err := pod.Cut(what.cable(netip.AddrPortFrom(node.Gateway, 443))); err != nil {
		return err
	}
	// In a real pod the agent is behind the same cable.
	return l.CutAgent(unit, what != cutAPI)
}

// cable is the cut as the node makes it.
func (c cut) cable(api netip.AddrPort) node.Cut {
	if c == cutAPI {
		return node.Cut{Service: api}
	}
	return node.Cut{In: c != cutOutgoing, Out: c != cutIncoming}
}

func (l *local) mend(unit string) error {
	l.mu.Lock()
	pod := l.cuts[unit]
	l.mu.Unlock()
	return errors.Join(pod.Mend(), l.CutAgent(unit, false))
}

func (l *local) setAPI(up bool) error {
	l.cluster.API().SetDown(!up)
	return nil
}

func (l *local) scale(by int) error {
	if by < 0 {
		return l.RemoveUnit(app, -by)
	}
	return l.AddUnit(app, by)
}

func (l *local) refresh(context.Context) error {
	return l.Refresh(app, filepath.Join(node.Dir, app+".charm"), nil)
}

func (l *local) action(ctx context.Context, unit, name string) error {
	action, err := l.RunAction(ctx, unit, name, nil)
	if err == nil && action.Status != "completed" {
		err = fmt.Errorf("%s: %s", name, action.Message)
	}
	return err
}

func (l *local) exec(ctx context.Context, unit string, command ...string) (string, error) {
	pod, c, err := l.workload(unit)
	if err != nil {
		return "", err
	}
	var out bytes.Buffer
	cmd := exec.CommandContext(ctx, "/usr/bin/env", command...) // found in the container's PATH
	if cmd.Env, err = c.Env(); err != nil {
		return "", err
	}
	cmd.Stdout, cmd.Stderr = &out, &out
	if err := pod.Pod.Start(c, cmd); err != nil {
		return "", err
	}
	if err := cmd.Wait(); err != nil {
		return "", fmt.Errorf("%s on %s: %w: %s", strings.Join(command, " "), unit, err, out.String())
	}
	return out.String(), nil
}

func (l *local) explain(_ context.Context, to io.Writer) {
	status := l.Status()
	_, _ = fmt.Fprintln(to, status)
	lines, _ := l.Logs(0)
	for _, line := range lines[max(0, len(lines)-60):] {
		_, _ = fmt.Fprintln(to, line)
	}
	for _, u := range status.App(app).Units {
		pod, _, err := l.workload(u.Name)
		if err != nil {
			_, _ = fmt.Fprintln(to, err)
			continue
		}
		said := slices.DeleteFunc(strings.Split(pod.Logs(container), "\n"), isDull)
		_, _ = fmt.Fprintf(to, "the end of the log of %s:\n%s\n", u.Name, strings.Join(said[max(0, len(said)-30):], "\n"))
	}
}

// followLogs copies what workloads print to the journal, since pods that go take
// it with them.
func (l *local) followLogs(ctx context.Context) {
	read := map[string]int64{} // of each file, by its inode
	for pause(ctx, 100*time.Millisecond) {
		files, _ := filepath.Glob(filepath.Join(node.Dir, "m/pods", app+"-*", container, "log")) // the pattern is good
		for _, path := range files {
			file, err := os.Open(path)
			if err != nil {
				continue
			}
			var stat syscall.Stat_t
			if syscall.Fstat(int(file.Fd()), &stat) == nil {
				inode := fmt.Sprint(path, stat.Ino)
				data, _ := io.ReadAll(io.NewSectionReader(file, read[inode], 1<<20))
				whole := data[:bytes.LastIndexByte(data, '\n')+1]
				read[inode] += int64(len(whole))
				pod := filepath.Base(filepath.Dir(filepath.Dir(path)))
				for line := range bytes.Lines(whole) {
					if !isDull(string(line)) {
						l.notes.note(pod, string(line))
					}
				}
			}
			_ = file.Close()
		}
	}
}

// isDull tells whether a line is one of those that Pebble logs of each request,
// and of each look at a replica, which is no primary.
func isDull(line string) bool {
	for _, text := range []string{" GET /", " POST /", `"type":"security"`, `Check "primary" failure`} {
		if strings.Contains(line, text) {
			return true
		}
	}
	return false
}
