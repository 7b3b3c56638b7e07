package main

import (
	"bufio"
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"

	"charmhub.io/postgresql-k8s/tests/localmodel/node"
)

// live is a world in a model of its own on the current Juju controller. What is
// done to processes and networks needs the node to be this machine.
type live struct {
	model string
	notes *journal
	ended context.CancelFunc
	ctx   context.Context // of what watches

	mu     sync.Mutex
	kube   kubernetes
	told   string
	shown  []unit
	looked time.Time         // at shown
	cuts   map[string]string // the cable that was cut, by unit
}

// newLive makes an empty model.
func newLive(journalPath string) (world, error) {
	if out, err := exec.Command("juju", "show-controller").CombinedOutput(); err != nil {
		return nil, fmt.Errorf("there is no current Juju controller: %s", out)
	}
	model := fmt.Sprintf("chaos-%d", os.Getpid())
	notes, err := newJournal(cmp.Or(journalPath, filepath.Join(os.TempDir(), model+".journal")))
	if err != nil {
		return nil, err
	}
	l := &live{model: model, notes: notes, cuts: map[string]string{}, kube: kubernetes{addresses: map[string]string{}, revisions: map[string]string{}}}
	l.ctx, l.ended = context.WithCancel(context.Background())
	if _, err := l.run(l.ctx, "juju", "add-model", "--no-switch", model); err != nil {
		return nil, err
	}
	go l.watchObjects("endpoints", "patroni-"+app, l.seeLock)
	go l.watchObjects("pods", "", l.seePod)
	go l.watchDatabag()
	go l.follow("juju", "juju", "debug-log", "-m", model, "--tail", "--level", "DEBUG")
	return l, nil
}

func (l *live) journal() *journal { return l.notes }

// run runs a command and returns what it prints.
func (l *live) run(ctx context.Context, command ...string) (string, error) {
	ctx, cancel := context.WithTimeout(ctx, 3*time.Minute)
	defer cancel()
	cmd := exec.CommandContext(ctx, command[0], command[1:]...)
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		err = fmt.Errorf("%s: %w: %s", strings.Join(command, " "), err, strings.TrimSpace(stderr.String()))
	}
	return string(out), err
}

func (l *live) juju(ctx context.Context, args ...string) (string, error) {
	return l.run(ctx, append([]string{"juju", args[0], "-m", l.model}, args[1:]...)...)
}

func (l *live) kubectl(ctx context.Context, args ...string) (string, error) {
	return l.run(ctx, append([]string{"kubectl", "-n", l.model}, args...)...)
}

func (l *live) up(ctx context.Context) error {
	for _, args := range [][]string{
		{"deploy", "./" + charmFile(app), "--trust", "-n", strconv.Itoa(size), "--resource", "postgresql-image=" + workloadImage()},
		{"deploy", "./" + charmFile(client)},
	} {
		if _, err := l.juju(ctx, args...); err != nil {
			return err
		}
	}
	if err := l.await(ctx, app, size, ""); err != nil {
		return err
	}
	if _, err := l.juju(ctx, "integrate", app, client); err != nil {
		return err
	}
	return l.await(ctx, client, 1, "rows through")
}

func workloadImage() string { return fromEnv("IMAGE", "localhost/postgresql-k8s:dev") }

// await waits until an application has so many units, all active, and one that
// shows a message.
func (l *live) await(ctx context.Context, name string, count int, message string) error {
	var last []unit
	for end := time.Now().Add(5 * time.Minute); time.Now().Before(end); {
		var err error
		if last, err = l.status(ctx, name); err == nil && settled(last, count, message) {
			return nil
		}
		if !pause(ctx, time.Second) {
			return errors.New("interrupted")
		}
	}
	return fmt.Errorf("%s does not become active: %+v", name, last)
}

func settled(units []unit, count int, message string) bool {
	shown := message == ""
	for _, u := range units {
		if u.status != "active" {
			return false
		}
		shown = shown || strings.Contains(u.message, message)
	}
	return len(units) == count && shown
}

func (l *live) down() error {
	l.ended()
	if os.Getenv("KEEP") != "" {
		fmt.Println("the model", l.model, "stays")
		return nil
	}
	_, err := l.run(context.Background(), "juju", "destroy-model", l.model, "--no-prompt", "--destroy-storage", "--force", "--no-wait")
	return err
}

// status are an application's units, as juju status shows them.
func (l *live) status(ctx context.Context, name string) ([]unit, error) {
	out, err := l.juju(ctx, "status", "--format=json")
	if err != nil {
		return nil, err
	}
	var s struct {
		Applications map[string]struct {
			Units map[string]struct {
				Workload struct{ Current, Message string } `json:"workload-status"`
				Leader   bool
			}
		}
	}
	if err := json.Unmarshal([]byte(out), &s); err != nil {
		return nil, err
	}
	var units []unit
	of := s.Applications[name].Units
	for _, name := range podsOf(of) {
		u := of[name]
		units = append(units, unit{name, u.Workload.Current, u.Workload.Message, u.Leader})
	}
	return units, nil
}

// units looks twice a second at most: the command line is slow.
func (l *live) units(ctx context.Context) ([]unit, error) {
	l.mu.Lock()
	units, fresh := l.shown, time.Since(l.looked) < 500*time.Millisecond
	l.mu.Unlock()
	if fresh {
		return units, nil
	}
	units, err := l.status(ctx, app)
	if err != nil {
		return nil, err
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	l.shown, l.looked = units, time.Now()
	return units, nil
}

func (l *live) kubernetes() kubernetes {
	l.mu.Lock()
	defer l.mu.Unlock()
	return kubernetes{l.kube.holder, maps.Clone(l.kube.addresses), maps.Clone(l.kube.revisions)}
}

// object is as much of a Kubernetes object as matters here.
type object struct {
	Metadata struct {
		Name                string
		Labels, Annotations map[string]string
	}
	Status struct{ PodIP string }
}

// watchObjects follows the objects of a kind, or the one of a name.
func (l *live) watchObjects(kind, name string, see func(object, bool)) {
	for pause(l.ctx, time.Second/2) {
		args := []string{"-n", l.model, "get", kind, "-o", "json", "--watch", "--output-watch-events"}
		if name != "" {
			args = append(args, name)
		}
		cmd := exec.CommandContext(l.ctx, "kubectl", args...)
		out, err := cmd.StdoutPipe()
		if err != nil || cmd.Start() != nil {
			continue
		}
		for events := json.NewDecoder(out); ; {
			var event struct {
				Type   string
				Object object
			}
			if events.Decode(&event) != nil {
				break // it ends when there is no such object yet
			}
			l.mu.Lock()
			see(event.Object, event.Type != "DELETED")
			l.mu.Unlock()
		}
		_ = cmd.Wait()
	}
}

func (l *live) seeLock(o object, _ bool) { l.kube.holder = o.Metadata.Annotations["leader"] }

func (l *live) seePod(o object, there bool) {
	switch {
	case o.Metadata.Labels["app.kubernetes.io/name"] != app:
	case there:
		l.kube.addresses[o.Metadata.Name], l.kube.revisions[o.Metadata.Name] = o.Status.PodIP, o.Metadata.Labels[revisionLabel]
	default:
		delete(l.kube.addresses, o.Metadata.Name)
		delete(l.kube.revisions, o.Metadata.Name)
	}
}

// watchDatabag asks again and again for what the relation says: clients that lost
// their connection ask that often.
func (l *live) watchDatabag() {
	for pause(l.ctx, 500*time.Millisecond) {
		// Juju 3 shows a unit what the other application says, Juju 4 what its own does.
		out, err := l.juju(l.ctx, "show-unit", client+"/0", app+"/0", "--format=json")
		if err != nil {
			continue
		}
		var units map[string]struct {
			Relations []struct {
				Endpoint    string
				Application map[string]any `json:"application-data"`
			} `json:"relation-info"`
		}
		if json.Unmarshal([]byte(out), &units) != nil {
			continue
		}
		for _, relation := range slices.Concat(units[client+"/0"].Relations, units[app+"/0"].Relations) {
			if told, _ := relation.Application["endpoints"].(string); relation.Endpoint == "database" && told != "" {
				l.mu.Lock()
				l.told = told
				l.mu.Unlock()
			}
		}
	}
}

func (l *live) endpoints(context.Context) (string, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.told == "" {
		return "", errors.New("the relation says nothing of endpoints")
	}
	return l.told, nil
}

// follow copies what a command prints to the journal.
func (l *live) follow(who string, command ...string) {
	for pause(l.ctx, time.Second) {
		cmd := exec.CommandContext(l.ctx, command[0], command[1:]...)
		out, err := cmd.StdoutPipe()
		if err != nil || cmd.Start() != nil {
			continue
		}
		for lines := bufio.NewScanner(out); lines.Scan(); {
			if !strings.HasPrefix(lines.Text(), "controller-") { // the history of statuses
				l.notes.note(who, lines.Text())
			}
		}
		_ = cmd.Wait()
	}
}

func (l *live) credentials(ctx context.Context) (map[string]string, error) {
	out, err := l.juju(ctx, "run", client+"/0", "credentials", "--format=json")
	if err != nil {
		return nil, err
	}
	var results map[string]struct{ Results map[string]any }
	if err := json.Unmarshal([]byte(out), &results); err != nil {
		return nil, err
	}
	found := map[string]string{}
	for key, value := range results[client+"/0"].Results {
		found[key] = fmt.Sprint(value)
	}
	if found["uris"] == "" {
		return nil, errors.New("the client has no credentials")
	}
	return found, nil
}

// service is where a Service listens.
func (l *live) service(namespace, name, port string) (netip.AddrPort, error) {
	ip, err := l.run(l.ctx, "kubectl", "-n", namespace, "get", "service", name, "-o", "jsonpath={.spec.clusterIP}")
	if err != nil {
		return netip.AddrPort{}, err
	}
	return netip.ParseAddrPort(net.JoinHostPort(ip, port))
}

var clusterDNS = sync.OnceValues(func() (string, error) {
	out, err := exec.Command("kubectl", "-n", "kube-system", "get", "service", "kube-dns", "-o", "jsonpath={.spec.clusterIP}:53").Output()
	return string(out), err
})

func (l *live) resolver() *net.Resolver {
	server, _ := clusterDNS() // without it, lookups say so
	return resolver(server)
}

func (l *live) deletePod(unit string) error {
	_, err := l.kubectl(l.ctx, "delete", "pod", podOf(unit))
	return err
}

func (l *live) killPod(unit string) error {
	_, err := l.kubectl(l.ctx, "delete", "pod", podOf(unit), "--grace-period=0", "--force")
	return err
}

func (l *live) killContainer(unit string) error {
	c, err := l.process(unit, container)
	if err != nil {
		return err
	}
	return syscall.Kill(c.PID, syscall.SIGKILL)
}

func (l *live) killCharm(unit string) (bool, error) {
	c, err := l.process(unit, "charm")
	if err != nil {
		return false, err
	}
	sent, err := c.Signal(syscall.SIGKILL, func(p node.Process) bool { return p.Program == "dispatch" })
	return sent > 0, err
}

func (l *live) signal(unit string, to program, sig syscall.Signal) error {
	c, err := l.process(unit, container)
	if err != nil {
		return err
	}
	return sendTo(c, to, sig)
}

var nsPID = regexp.MustCompile(`(?m)^NSpid:\s+\d+\s+1$`)

// process finds a container's first process among those of this machine.
func (l *live) process(unit, name string) (*node.Container, error) {
	id, err := l.kubectl(l.ctx, "get", "pod", podOf(unit), "-o",
		fmt.Sprintf("jsonpath={.status.containerStatuses[?(@.name==%q)].containerID}", name))
	if err != nil {
		return nil, err
	}
	_, id, _ = strings.Cut(id, "://")
	groups, err := filepath.Glob("/proc/[0-9]*/cgroup")
	if err != nil || id == "" {
		return nil, fmt.Errorf("%s has no container %s", unit, name)
	}
	for _, path := range groups {
		group, _ := os.ReadFile(path) // a process may have ended
		if !bytes.Contains(group, []byte(id)) {
			continue
		}
		status, _ := os.ReadFile(filepath.Join(filepath.Dir(path), "status"))
		if nsPID.Match(status) {
			pid, err := strconv.Atoi(filepath.Base(filepath.Dir(path)))
			return &node.Container{Name: name, PID: pid}, err
		}
	}
	return nil, impossible("the pods do not run on this machine")
}

func (l *live) cut(unit string, what cut) error {
	api, err := l.service("default", "kubernetes", "443")
	if err != nil {
		return err
	}
	cable, err := l.cable(unit)
	if err != nil {
		return err
	}
	l.mu.Lock()
	l.cuts[unit] = cable
	l.mu.Unlock()
	return node.CutCable(cable, what.cable(api))
}

var peerIndex = regexp.MustCompile(`eth0@if(\d+)`)

// cable is this machine's end of a pod's.
func (l *live) cable(unit string) (string, error) {
	c, err := l.process(unit, container)
	if err != nil {
		return "", err
	}
	out, err := l.run(l.ctx, "nsenter", "-t", strconv.Itoa(c.PID), "-n", "ip", "-o", "link", "show", "eth0")
	if err != nil {
		return "", err
	}
	match := peerIndex.FindStringSubmatch(out)
	if match == nil {
		return "", impossible("the pod has no cable to this machine")
	}
	index, err := strconv.Atoi(match[1])
	if err != nil {
		return "", err
	}
	device, err := net.InterfaceByIndex(index)
	if err != nil {
		return "", err
	}
	return device.Name, nil
}

func (l *live) mend(unit string) error {
	l.mu.Lock()
	cable := l.cuts[unit]
	l.mu.Unlock()
	return node.MendCable(cable)
}

func (l *live) setAPI(bool) error {
	return impossible("others use the API server; api-silent cuts off every unit instead")
}

func (l *live) scale(by int) (err error) {
	if by < 0 {
		_, err = l.juju(l.ctx, "remove-unit", app, "--num-units", strconv.Itoa(-by), "--no-prompt")
	} else {
		_, err = l.juju(l.ctx, "add-unit", app, "-n", strconv.Itoa(by))
	}
	return err
}

func (l *live) refresh(ctx context.Context) error {
	_, err := l.juju(ctx, "refresh", app, "--path", "./"+charmFile(app), "--resource", "postgresql-image="+workloadImage())
	return err
}

// action fails when the action does: juju run does not (seen with Juju 4.1-beta2).
func (l *live) action(ctx context.Context, unit, name string) error {
	out, err := l.juju(ctx, "run", unit, name, "--format=json")
	if err != nil {
		return err
	}
	var tasks map[string]struct{ Status, Message string }
	if err := json.Unmarshal([]byte(out), &tasks); err != nil {
		return fmt.Errorf("%s on %s: %w: %s", name, unit, err, out)
	}
	if t := tasks[unit]; t.Status != "completed" {
		return fmt.Errorf("%s on %s %s: %s", name, unit, t.Status, t.Message)
	}
	return nil
}

func (l *live) exec(ctx context.Context, unit string, command ...string) (string, error) {
	return l.kubectl(ctx, append([]string{"exec", podOf(unit), "-c", container, "--"}, command...)...)
}

func (l *live) explain(ctx context.Context, to io.Writer) {
	show := func(out string, err error) {
		if err != nil {
			out = err.Error()
		}
		_, _ = fmt.Fprintln(to, out)
	}
	show(l.juju(ctx, "status", "--relations"))
	show(l.juju(ctx, "debug-log", "--no-tail", "--replay", "--limit", "60"))
	for _, pod := range podsOf(l.kubernetes().addresses) {
		out, err := l.kubectl(ctx, "logs", pod, "-c", container, "--tail", "400")
		var said []string
		for line := range strings.Lines(out) {
			if !isDull(line) {
				said = append(said, line)
			}
		}
		show("the end of the log of "+pod+":\n"+strings.Join(said[max(0, len(said)-30):], ""), err)
	}
}
