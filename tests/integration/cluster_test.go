//go:build integration

package integration

import (
	"fmt"
	"strings"
	"testing"
	"time"
)

// primaries are the units that show Primary; the rest must be active.
func primaries(a application) (names []string, active bool) {
	active = true
	for name, u := range a.Units {
		active = active && u.Workload.Current == "active"
		if u.Workload.Message == "Primary" {
			names = append(names, name)
		}
	}
	return names, active
}

// TestRoleChange says that status and clients follow a change of role at once,
// whichever unit is Juju's leader.
func TestRoleChange(t *testing.T) {
	m := newModel(t)
	m.deploy("--trust", "-n", "3")
	m.deployClient("app")
	m.waitFor("three units active, one Primary", 2*time.Minute, func(a application) bool {
		names, active := primaries(a)
		return len(a.Units) == 3 && active && len(names) == 1
	})
	m.waitClient("app", "waiting", "no relation")
	m.integrate("app")

	for range 3 {
		m.waitFor("settled", 2*time.Minute, func(a application) bool {
			names, active := primaries(a)
			return active && len(names) == 1
		})
		old := m.primaryPod()
		start, asked, refused, pod := time.Now(), time.Time{}, true, old
		for pod == old || pod == "" {
			if time.Since(start) > 2*time.Minute {
				t.Fatal("Patroni did not switch over")
			}
			if refused && time.Since(asked) > time.Second { // no standby has every commit yet
				asked = time.Now()
				refused = strings.Contains(m.patronictl(0, "switchover", "--force"), "failed, details: 412")
			}
			time.Sleep(look)
			pod = m.primaryPod()
		}
		unit := strings.Replace(pod, app+"-", app+"/", 1)
		// Without an event the status would follow within five minutes.
		m.waitFor(unit+" shows Primary", 30*time.Second, func(a application) bool {
			return a.Units[unit].Workload.Message == "Primary"
		})
		ip := m.kubectl("get", "pod", pod, "-o", "jsonpath={.status.podIP}")
		m.waitClient("app", "active", "rows through "+ip)
		t.Logf("the client writes through %s %.1f s after the command to switch over", pod, time.Since(asked).Seconds())
	}
	rows := m.action("app", "sql", "statement=SELECT count(*) > 3 FROM seen", "read-only=true")["rows"]
	if rows != "true" {
		t.Errorf("a replica shows %q", rows)
	}
}

// primaryPod is the pod that the Service of the primary leads to.
func (m model) primaryPod() string {
	m.t.Helper()
	return m.kubectl("get", "pods", "-l", "role=primary", "-o", "jsonpath={.items[*].metadata.name}")
}

// patronictl runs Patroni's own tool on a unit and returns what it prints.
func (m model) patronictl(number int, args ...string) string {
	m.t.Helper()
	return m.kubectl("exec", fmt.Sprintf("%s-%d", app, number), "-c", "postgresql", "--", "su", "postgres", "-c",
		"patronictl -c /var/lib/postgresql/data/patroni.yml "+strings.Join(args, " "))
}
