//go:build integration

package integration

import (
	"fmt"
	"strings"
	"testing"
	"time"
)

// TestLegacyClients follows applications that speak the legacy interface: over
// both endpoints, through a failover, beside the modern interface, to their end.
func TestLegacyClients(t *testing.T) {
	m := newModel(t)
	m.deploy("--trust", "-n", "3")
	m.deployTestCharm("legacy", "old", "database-name=both")
	m.deployTestCharm("legacy", "admin", "database-name=both")
	m.juju("integrate", app+":db", "old:db") // before there is a database
	m.waitFor("three units active, one Primary", 3*time.Minute, func(a application) bool {
		names, active := primaries(a)
		return len(a.Units) == 3 && active && len(names) == 1
	})
	service := fmt.Sprintf("rows through %s-primary.%s.svc.cluster.local", app, m.name)
	m.waitClient("old", "active", service)
	start := time.Now()
	m.juju("integrate", app+":db-admin", "admin:db-admin")
	m.waitClient("admin", "active", service)
	t.Logf("a row written %.1f s after juju integrate", time.Since(start).Seconds())

	told := m.action("old", "credentials")
	leader := strings.TrimPrefix(m.leader(), app+"/")
	for _, key := range []string{"master", "standbys", "user", "password", "database", "host", "port", "version", "allowed-units", "allowed-subnets"} {
		if told[key] == "" || told[key] != told["unit-"+leader+"."+key] {
			t.Errorf("%s is %q, and of the leader %q", key, told[key], told["unit-"+leader+"."+key])
		}
	}
	if told["allowed-units"] != "old/0" || !strings.Contains(told["standbys"], app+"-replicas.") {
		t.Errorf("the client is told %v", told)
	}
	const super = "SELECT rolsuper FROM pg_roles WHERE rolname = session_user"
	if of, ofAdmin := m.clientSQL("old", super), m.clientSQL("admin", super); of != "false" || ofAdmin != "true" {
		t.Errorf("that they are superusers is %s and %s", of, ofAdmin)
	}

	old := m.primaryPod()
	m.kubectl("delete", "pod", old, "--wait=false")
	start = time.Now()
	for {
		_, err := m.tryAction("old/0", "sql", "statement=INSERT INTO seen (event) VALUES ('after')")
		if pod := m.primaryPod(); err == nil && pod != old && pod != "" {
			break
		}
		if time.Since(start) > time.Minute {
			t.Fatalf("the client does not write again: %v", err)
		}
	}
	t.Logf("the client writes through %s %.1f s after %s was deleted", m.primaryPod(), time.Since(start).Seconds(), old)
	m.waitFor("settled", 3*time.Minute, func(a application) bool {
		names, active := primaries(a)
		return active && len(names) == 1
	})

	m.juju("integrate", app+":database", "old:database")
	blocked := "Please choose one endpoint to use. No need to relate all of them simultaneously!"
	m.waitFor("blocked for both interfaces", time.Minute, func(a application) bool {
		for _, u := range a.Units {
			if u.Leader {
				return u.Workload.Current == "blocked" && u.Workload.Message == blocked
			}
		}
		return false
	})
	m.juju("remove-relation", app+":database", "old:database")
	m.waitFor("active with one", time.Minute, func(a application) bool {
		_, active := primaries(a)
		return active
	})

	m.juju("remove-relation", app+":db", "old:db")
	m.waitClient("old", "waiting", "no relation")
	for start := time.Now(); ; time.Sleep(200 * time.Millisecond) {
		_, err := m.login(map[string]string{"username": told["user"], "password": told["password"]}, "both", "SELECT 1")
		if err != nil && strings.Contains(err.Error(), "password authentication failed") {
			t.Logf("the old user is gone %.1f s after the client saw the relation go", time.Since(start).Seconds())
			break
		}
		if time.Since(start) > 30*time.Second {
			t.Fatalf("the old credentials still work: %v", err)
		}
	}
	if got := m.clientSQL("admin", "SELECT count(*) > 1 FROM seen"); got != "true" {
		t.Errorf("that the data stay is %q", got)
	}
}

// leader is the unit that leads.
func (m model) leader() string {
	m.t.Helper()
	for name, u := range m.status().Units {
		if u.Leader {
			return name
		}
	}
	m.t.Fatal("no unit leads")
	return ""
}
