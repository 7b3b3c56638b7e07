//go:build integration

package integration

import (
	"encoding/json"
	"fmt"
	"strconv"
	"strings"
	"testing"
	"time"
)

// builtImage is the name that make image gives: another one for the same content.
const builtImage = "localhost/postgresql-k8s:dev"

// TestRefresh refreshes three units while a client writes: to another revision and
// image, to an image that is not there, and back. It runs on a machine that reaches
// pods.
func TestRefresh(t *testing.T) {
	m := newModel(t)
	m.deploy("--trust", "-n", "3")
	m.deployClient("app")
	m.waitFor("three units active, one Primary", 90*time.Second, whole)
	m.waitClient("app", "waiting", "no relation")
	m.integrate("app")
	w := m.startWriter("app")

	before, start := m.timeline(), time.Now()
	m.ready()
	t.Logf("pre-upgrade-check took %.1f s; the longest gap was %.1f s", time.Since(start).Seconds(), w.longest().Seconds())
	start = time.Now()
	m.refresh(builtImage)
	m.waitFor("the first unit refreshed", 3*time.Minute, func(a application) bool {
		return shows(a, "run resume-upgrade to proceed")
	})
	m.wantImages(image(), image(), builtImage)
	w.progress(t)
	m.onLeader("resume-upgrade")
	m.waitFor("all units refreshed", 4*time.Minute, func(a application) bool {
		return whole(a) && m.images() == [3]string{builtImage, builtImage, builtImage}
	})
	w.progress(t)
	t.Logf("the refresh took %.1f s; the longest gap was %.1f s", time.Since(start).Seconds(), w.longest().Seconds())
	before = m.wantSwitchovers(before)

	m.refresh("localhost/postgresql-k8s:absent")
	m.waitFor("a halt", 4*time.Minute, func(a application) bool { return shows(a, "upgrade failed: "+app+"/2") })
	m.wantImages(builtImage, builtImage, "localhost/postgresql-k8s:absent")
	w.progress(t)
	t.Logf("it halted; the longest gap was %.1f s", w.longest().Seconds())
	start = time.Now()
	m.refresh(builtImage)
	m.waitFor("all units back", 4*time.Minute, func(a application) bool {
		return whole(a) && m.images() == [3]string{builtImage, builtImage, builtImage}
	})
	w.progress(t)
	t.Logf("the way back took %.1f s; the longest gap was %.1f s", time.Since(start).Seconds(), w.longest().Seconds())
	m.wantSwitchovers(before)
	w.verify(t)
}

// whole tells whether there are three active units and one of them is the primary.
func whole(a application) bool {
	names, active := primaries(a)
	return len(a.Units) == 3 && active && len(names) == 1 && !shows(a, "upgrad")
}

// shows tells whether a unit's message has the text.
func shows(a application, text string) bool {
	for _, u := range a.Units {
		if strings.Contains(u.Workload.Message, text) {
			return true
		}
	}
	return false
}

// ready runs pre-upgrade-check until it says yes, as an operator does who reads it.
func (m model) ready() {
	m.t.Helper()
	for end := time.Now().Add(time.Minute); ; time.Sleep(time.Second) {
		_, err := m.tryAction(m.leader(), "pre-upgrade-check")
		if err == nil {
			return
		}
		if time.Now().After(end) {
			m.t.Fatal(err)
		}
	}
}

func (m model) onLeader(action string) {
	m.t.Helper()
	if _, err := m.tryAction(m.leader(), action); err != nil {
		m.t.Fatal(err)
	}
}

func (m model) refresh(image string) {
	m.t.Helper()
	m.juju("refresh", app, "--path", charmFile, "--resource", "postgresql-image="+image)
}

// images are those of the workload containers, by unit.
func (m model) images() (names [3]string) {
	out, err := m.try("kubectl", "-n", m.name, "get", "pods", "-o", "json")
	if err != nil {
		return names
	}
	var pods struct {
		Items []struct {
			Metadata struct{ Name string }
			Spec     struct {
				Containers []struct{ Name, Image string }
			}
		}
	}
	if err := json.Unmarshal([]byte(out), &pods); err != nil {
		m.t.Fatal(err)
	}
	for i := range names {
		for _, pod := range pods.Items {
			for _, c := range pod.Spec.Containers {
				if pod.Metadata.Name == fmt.Sprintf("%s-%d", app, i) && c.Name == "postgresql" {
					names[i] = c.Image
				}
			}
		}
	}
	return names
}

func (m model) wantImages(names ...string) {
	m.t.Helper()
	if got := m.images(); got != [3]string(names) {
		m.t.Errorf("the images are %q, want %q", got, names)
	}
}

// timeline is the primary's: it counts promotions.
func (m model) timeline() int {
	m.t.Helper()
	n, err := strconv.Atoi(m.action(app, "status")["cluster.timeline"])
	if err != nil {
		m.t.Fatal(err)
	}
	return n
}

// wantSwitchovers allows two for a rollout, and returns the timeline.
func (m model) wantSwitchovers(before int) int {
	m.t.Helper()
	now := m.timeline()
	m.t.Logf("%d switchovers", now-before)
	if now-before > 2 {
		m.t.Errorf("there were %d switchovers", now-before)
	}
	return now
}
