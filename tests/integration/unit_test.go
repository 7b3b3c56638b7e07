//go:build integration

package integration

import (
	"encoding/json"
	"fmt"
	"maps"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"
)

func TestDeploy(t *testing.T) {
	m := newModel(t)
	// What a dead application of the same name may have left behind.
	for _, suffix := range []string{"", "-config", "-sync"} {
		m.kubectl("create", "-f", m.manifest(fmt.Sprintf(`{"apiVersion": "v1", "kind": "Endpoints", "metadata": {
			"name": "patroni-%[1]s%[2]s", "labels": {"application": "patroni", "cluster-name": "patroni-%[1]s"},
			"annotations": {"initialize": "7000000000000000001", "leader": "%[1]s-0"}}}`, app, suffix)))
	}
	commandLines := sampleProcesses(t)
	m.deploy("--trust")
	m.waitFor("active, Primary", 2*time.Minute, primary)
	m.waitFor("settled", time.Minute, settled)

	if v := m.status().Version; !regexp.MustCompile(`^1[4-9]\.\d+$`).MatchString(v) {
		t.Errorf("the version is %q, not that of a PostgreSQL", v)
	}
	relations := m.juju("status", "--relations")
	for _, peer := range []string{"database-peers", "restart", "upgrade"} {
		if !strings.Contains(relations, app+":"+peer) {
			t.Errorf("juju status --relations lacks %s:\n%s", peer, relations)
		}
	}
	t.Run("the second dispatch makes no step", func(t *testing.T) { m.in(t).testQuiet() })
	t.Run("no password is anywhere to be seen", func(t *testing.T) { m.in(t).testSecrecy(commandLines()) })
	t.Run("a new namesake starts clean", func(t *testing.T) { m.in(t).testRemove() })
}

// sampleProcesses collects the command lines of all processes of this machine,
// many times a second, until the function that it returns is called. On a cluster
// whose node is this machine that is all of them.
func sampleProcesses(t *testing.T) (stop func() string) {
	t.Helper()
	seen := map[string]bool{}
	done, stopped := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(stopped)
		for {
			paths, _ := filepath.Glob("/proc/[0-9]*/cmdline") // the pattern is good
			for _, path := range paths {
				line, _ := os.ReadFile(path) // a process may have ended
				seen[string(line)] = true
			}
			select {
			case <-done:
				return
			case <-time.After(10 * time.Millisecond):
			}
		}
	}()
	return func() string {
		close(done)
		<-stopped
		t.Logf("%d different command lines were seen", len(seen))
		return strings.Join(slices.Collect(maps.Keys(seen)), "\n")
	}
}

// testQuiet runs the charm again and again on a unit where nothing happens.
func (m model) testQuiet() {
	const runs = 20
	var took []time.Duration
	line := regexp.MustCompile(`dispatched event=update-status passes=1 steps=(\d+) took=(\S+)`)
	for range runs {
		out := m.juju("exec", "--unit", app+"/0", "--", "JUJU_DISPATCH_PATH=hooks/update-status ./dispatch")
		found := line.FindStringSubmatch(out)
		if found == nil || found[1] != "0" {
			m.t.Fatalf("the dispatch was not quiet: %s", out)
		}
		d, err := time.ParseDuration(found[2])
		if err != nil {
			m.t.Fatal(err)
		}
		took = append(took, d)
	}
	slices.Sort(took)
	m.t.Logf("a quiet dispatch takes p50 %s, p95 %s", took[runs/2], took[runs*95/100])
}

// testSecrecy looks for the passwords wherever people can look.
func (m model) testSecrecy(commandLines string) {
	passwords := m.passwords()
	if len(passwords) < 5 {
		m.t.Fatalf("only %d passwords are known", len(passwords))
	}
	for where, text := range map[string]string{
		"juju debug-log":             m.juju("debug-log", "--replay", "--no-tail", "--level", "TRACE"),
		"juju show-unit":             m.juju("show-unit", app+"/0"),
		"the container's log":        m.kubectl("logs", app+"-0", "-c", "postgresql"),
		"the Pebble plan":            m.pebble("plan"),
		"the process list":           m.kubectl("exec", app+"-0", "-c", "postgresql", "--", "sh", "-c", "cat /proc/[0-9]*/cmdline /proc/[0-9]*/environ | tr '\\0' '\\n'"),
		"files that others can read": m.kubectl("exec", app+"-0", "-c", "postgresql", "--", "sh", "-c", "find / -xdev -type f -perm /o+r -newer /etc/hostname -size -1M -exec cat {} + 2>/dev/null; find /var/lib/postgresql -type f -perm /o+r -exec cat {} +"),
		"pods and services":          m.kubectl("get", "pods,services,endpoints,configmaps", "-o", "yaml"),
	} {
		for name, password := range passwords {
			if strings.Contains(text, password) {
				m.t.Errorf("%s shows the %s", where, name)
			}
		}
	}
}

// passwords returns what the peer secret has.
func (m model) passwords() map[string]string {
	m.t.Helper()
	out := m.juju("exec", "--unit", app+"/0", "--", "secret-get", "--label", "database-peers."+app+".app", "--peek", "--format=json")
	passwords := map[string]string{}
	if err := json.Unmarshal([]byte(out), &passwords); err != nil {
		m.t.Fatalf("cannot read the secret: %v", err)
	}
	return passwords
}

func (m model) pebble(args ...string) string {
	m.t.Helper()
	command := append([]string{"exec", app + "-0", "-c", "charm", "--", "env", "HOME=/root",
		"PEBBLE_SOCKET=/charm/containers/postgresql/pebble.socket", "/charm/bin/pebble"}, args...)
	return m.kubectl(command...)
}

// testRemove removes the application and deploys another of its name.
func (m model) testRemove() {
	m.juju("remove-application", app, "--no-prompt", "--destroy-storage")
	start := time.Now()
	for left := "?"; left != "" || m.status().Units != nil; time.Sleep(time.Second) {
		if time.Since(start) > 3*time.Minute {
			m.t.Fatalf("these objects outlive the application:\n%s", left)
		}
		out := m.kubectl("get", "services,endpoints,configmaps,pods,statefulsets,persistentvolumeclaims,secrets,leases",
			"-o", "name", "--ignore-not-found")
		left = strings.Join(slices.DeleteFunc(strings.Split(out, "\n"), func(name string) bool {
			return !strings.Contains(name, app)
		}), "\n")
	}
	m.t.Logf("nothing is left %.0f s after remove-application", time.Since(start).Seconds())
	for { // Juju 4.1 forgets the name a little later than it says
		_, err := m.try(m.deployCommand("--trust")...)
		if err == nil {
			break
		}
		if time.Since(start) > 5*time.Minute {
			m.t.Fatal(err)
		}
		time.Sleep(2 * time.Second)
	}
	m.waitFor("active again", time.Minute, primary)
}

func TestWithoutTrust(t *testing.T) {
	m := newModel(t)
	m.deploy()
	m.waitFor("blocked with the cure", time.Minute, func(a application) bool {
		u := a.Units[app+"/0"]
		return u.Workload.Current == "blocked" && strings.Contains(u.Workload.Message, "juju trust "+app+" --scope=cluster")
	})
	m.juju("trust", app, "--scope=cluster")
	m.waitFor("active after juju trust", time.Minute, primary)
}

// TestKilledCharm deploys while the charm's process is killed at random moments.
func TestKilledCharm(t *testing.T) {
	m := newModel(t)
	m.deploy("--trust")
	const kills = 20
	for killed, start := 0, time.Now(); killed < kills; {
		if time.Since(start) > 5*time.Minute {
			t.Fatalf("the charm could be killed only %d times", killed)
		}
		time.Sleep(time.Duration(rand.IntN(60)) * time.Millisecond)
		if _, err := m.try("pkill", "-KILL", "-x", "dispatch"); err == nil {
			killed++
			continue
		}
		if primary(m.status()) { // nothing happens any more: give it something to do
			_ = exec.Command("juju", "config", "-m", m.name, app, fmt.Sprintf("profile_limit_memory=%d", 1000+killed)).Run()
		}
	}
	m.waitFor("active after the kills", 2*time.Minute, settled)
	if log := m.juju("debug-log", "--replay", "--no-tail"); strings.Contains(log, "hook failed") {
		t.Error("a hook failed")
	}
}

// TestRestarts kills what can be killed around one row of data.
func TestRestarts(t *testing.T) {
	m := newModel(t)
	m.deploy("--trust")
	m.waitFor("settled", 2*time.Minute, settled)
	if _, err := m.sql("CREATE TABLE kept (n int); INSERT INTO kept VALUES (42)"); err != nil {
		t.Fatal(err)
	}
	for _, fault := range []struct {
		name   string
		happen func()
	}{
		{"the pod is deleted", func() { m.kubectl("delete", "pod", app+"-0", "--wait=false") }},
		{"the workload container is killed", func() { m.killContainer("postgresql") }},
		{"the charm container is killed", func() { m.killContainer("charm") }},
	} {
		before := m.containers()
		fault.happen()
		start := time.Now()
		for m.containers() == before && time.Since(start) < time.Minute {
			time.Sleep(100 * time.Millisecond)
		}
		m.waitFor("settled after "+fault.name, 3*time.Minute, func(a application) bool {
			row, err := m.sql("SELECT n FROM kept")
			return settled(a) && err == nil && row == "42"
		})
	}
}

// containers returns the ids of the pod's containers.
func (m model) containers() string {
	out, _ := m.try("kubectl", "-n", m.name, "get", "pod", app+"-0", "-o", "jsonpath={.status.containerStatuses[*].containerID}")
	return out
}

// killContainer kills Pebble, the container's first process, from the node: the
// kernel protects it from everything inside. The node must be this machine.
func (m model) killContainer(name string) {
	m.t.Helper()
	id := m.kubectl("get", "pod", app+"-0", "-o", fmt.Sprintf("jsonpath={.status.containerStatuses[?(@.name==%q)].containerID}", name))
	_, id, _ = strings.Cut(id, "://")
	groups, err := filepath.Glob("/proc/[0-9]*/cgroup")
	if err != nil {
		m.t.Fatal(err)
	}
	killed := false
	for _, path := range groups {
		group, _ := os.ReadFile(path) // a process may have ended
		status, _ := os.ReadFile(filepath.Join(filepath.Dir(path), "status"))
		first := regexp.MustCompile(`(?m)^NSpid:\s+(\d+)\s+1$`).FindSubmatch(status)
		if first == nil || !strings.Contains(string(group), id) {
			continue
		}
		m.run("kill", "-KILL", string(first[1]))
		killed = true
	}
	if !killed {
		m.t.Fatal("this test kills a container's first process, and that does not run on this machine")
	}
}
