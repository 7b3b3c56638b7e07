//go:build integration

package integration

import (
	"fmt"
	"os/exec"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"
)

// typed runs a juju command as a document has it, in the test's model.
func (m model) typed(line string) string {
	m.t.Helper()
	m.t.Log(line)
	words := strings.Fields(line)
	return m.juju(words[1:]...)
}

// typedAgain types a command until Juju takes it: for some seconds 4.1-beta2 refuses
// a relation in the place of a removed one, or counts both.
func (m model) typedAgain(line string) {
	m.t.Helper()
	words := strings.Fields(line)
	time.Sleep(20 * time.Second) // or it is taken, and no hook ever runs for it
	for start := time.Now(); ; time.Sleep(time.Second) {
		_, err := m.try(append([]string{"juju", words[1], "-m", m.name}, words[2:]...)...)
		if err == nil {
			m.t.Log(line)
			return
		}
		refused := strings.Contains(err.Error(), "already exists") || strings.Contains(err.Error(), "would exceed its maximum")
		if !refused || time.Since(start) > time.Minute {
			m.t.Fatal(err)
		}
	}
}

// waitAll waits until all units of applications are active.
func (m model) waitAll(names ...string) {
	m.t.Helper()
	active := func(name string) bool {
		units := m.statusOf(name).Units
		for _, u := range units {
			if u.Workload.Current != "active" {
				return false
			}
		}
		return len(units) > 0
	}
	for start := time.Now(); ; time.Sleep(look) {
		if !slices.ContainsFunc(names, func(name string) bool { return !active(name) }) {
			return
		}
		if time.Since(start) > 2*time.Minute {
			m.t.Fatalf("not all active:\n%s", m.juju("status"))
		}
	}
}

// psql types psql in the pod of a unit, which asks for the password, and then the
// input.
func (m model) psql(pod, password, line, input string) (string, error) {
	m.t.Helper()
	m.t.Log(line)
	command := append([]string{"-n", m.name, "exec", "-i", pod, "-c", "postgresql", "--"}, strings.Fields(line)...)
	cmd := exec.Command("kubectl", command...)
	cmd.Stdin = strings.NewReader(password + "\n" + input)
	out, err := cmd.CombinedOutput()
	return string(out), err
}

// TestTutorial types the chapter "Integrate with other applications" of the tutorial
// of this charm's users. A client of this project's takes the place of
// data-integrator; run-action of Juju 2.9 is run.
func TestTutorial(t *testing.T) {
	m := newModel(t)
	m.deploy("postgresql", "--trust", "-n", "2")
	m.deployClient("data-integrator", "database-name=test-database")
	m.waitAll("postgresql")
	m.waitClient("data-integrator", "waiting", "no relation")

	m.typed("juju relate data-integrator postgresql")
	m.waitClient("data-integrator", "active", "rows through")
	m.waitAll("postgresql", "data-integrator")
	m.typed("juju run data-integrator/leader get-credentials")
	told := m.action("data-integrator", "get-credentials")
	for key, form := range map[string]string{
		"ok": `^True$`, "postgresql.database": `^test-database$`, "postgresql.endpoints": `^[0-9.]+:5432$`, "postgresql.read-only-endpoints": `^[0-9.]+:5432$`,
		"postgresql.username": `^relation_id_\d+$`, "postgresql.password": `^\w{16,}$`, "postgresql.version": `^\d+\.\d+$`,
	} {
		if !regexp.MustCompile(form).MatchString(told[key]) {
			t.Errorf("get-credentials gives no good %s", key)
		}
	}

	user, password := told["postgresql.username"], told["postgresql.password"]
	host, reader := strings.TrimSuffix(told["postgresql.endpoints"], ":5432"), strings.TrimSuffix(told["postgresql.read-only-endpoints"], ":5432")
	for host, in := range map[string]struct{ line, input string }{
		host:   {"psql --host=%s --username=%s --password test-database", "CREATE TABLE kept (n int);\nINSERT INTO kept VALUES (42);\n\\l\n"},
		reader: {"psql --host=%s --username=%s --password --list", ""},
	} {
		out, err := m.psql("postgresql-0", password, fmt.Sprintf(in.line, host, user), in.input)
		if err != nil {
			t.Errorf("%v: %s", err, out)
		}
		for _, entry := range []string{"test-database", "=Tc/operator", "operator=CTc/operator", user + "=CTc/operator"} {
			if !strings.Contains(out, entry) {
				t.Errorf("the list has no %s:\n%s", entry, out)
			}
		}
	}

	m.typed("juju remove-relation postgresql data-integrator")
	m.waitClient("data-integrator", "waiting", "no relation")
	refused := fmt.Sprintf("psql: error: connection to server at %q, port 5432 failed: FATAL:  password authentication failed for user %q", host, user)
	for start := time.Now(); ; time.Sleep(time.Second) {
		out, err := m.psql("postgresql-0", password, fmt.Sprintf("psql --host=%s --username=%s --password --list", host, user), "")
		if err != nil && strings.Contains(out, refused) {
			break
		}
		if time.Since(start) > 30*time.Second {
			t.Fatalf("the removed user gets %v: %s", err, out)
		}
	}

	m.typedAgain("juju relate data-integrator postgresql")
	m.waitClient("data-integrator", "active", "rows through")
	again := m.action("data-integrator", "get-credentials")
	if again["postgresql.username"] == user || again["postgresql.password"] == password {
		t.Error("the new relation has the old user or password")
	}
	if got := m.clientSQL("data-integrator", "SELECT n FROM kept"); got != "42" {
		t.Errorf("of the data is left %q", got)
	}
}

// TestManagingClients types the how-to "Manage client applications" of the users of
// this charm. Clients of this project's have the names that it has.
func TestManagingClients(t *testing.T) {
	m := newModel(t)
	m.deploy("--trust")
	m.deployClient("application")
	m.deployTestCharm("legacy", "mattermost-k8s")
	m.waitFor("settled", 2*time.Minute, settled)

	m.typed("juju integrate postgresql-k8s application")
	m.waitClient("application", "active", "rows through")
	if out := m.typed("juju status --relations"); !regexp.MustCompile(`postgresql-k8s:database\s+application:database\s+postgresql_client`).MatchString(out) {
		t.Errorf("the relation is not shown:\n%s", out)
	}
	m.typed("juju remove-relation postgresql-k8s application")
	m.waitClient("application", "waiting", "no relation")

	const super = "SELECT rolsuper FROM pg_roles WHERE rolname = session_user"
	m.typed("juju integrate postgresql-k8s:db mattermost-k8s:db")
	m.waitClient("mattermost-k8s", "active", "rows through")
	if got := m.clientSQL("mattermost-k8s", super); got != "false" {
		t.Errorf("through db, that it is a superuser is %q", got)
	}
	m.typed("juju remove-relation postgresql-k8s:db mattermost-k8s:db")
	m.waitClient("mattermost-k8s", "waiting", "no relation")
	m.typedAgain("juju integrate postgresql-k8s:db-admin mattermost-k8s:db")
	m.waitClient("mattermost-k8s", "active", "rows through")
	if got := m.clientSQL("mattermost-k8s", super); got != "true" {
		t.Errorf("through db-admin, that it is a superuser is %q", got)
	}

	m.typedAgain("juju integrate postgresql-k8s application")
	m.waitClient("application", "active", "rows through")
	m.clientSQL("application", "CREATE TABLE kept (n int)")
	before := m.action("application", "credentials")
	m.typed("juju remove-relation application postgresql-k8s")
	m.waitClient("application", "waiting", "no relation")
	m.typedAgain("juju integrate application postgresql-k8s") // Juju 4 has no add-relation any more
	m.waitClient("application", "active", "rows through")
	after := m.action("application", "credentials")
	if after["username"] == before["username"] || after["password"] == before["password"] {
		t.Error("the application has the old user or password")
	}
	if got := m.clientSQL("application", "SELECT count(*) FROM kept"); got != "0" {
		t.Errorf("of its table is left %q", got)
	}

	operator := func(password string) error {
		_, err := m.login(map[string]string{"username": "operator", "password": password}, "postgres", "SELECT 1")
		return err
	}
	accepted := func(password string) { // the server takes it when Juju has it, a moment after the action
		t.Helper()
		err := operator(password)
		for end := time.Now().Add(15 * time.Second); err != nil && time.Now().Before(end); err = operator(password) {
			time.Sleep(250 * time.Millisecond)
		}
		if err != nil {
			t.Errorf("the new password is refused: %v", err)
		}
	}
	m.typed("juju run postgresql-k8s/leader set-password password=the-chosen-one")
	accepted("the-chosen-one")
	m.typed("juju run postgresql-k8s/leader set-password")
	accepted(m.passwords()["operator-password"])
	if err := operator("the-chosen-one"); err == nil {
		t.Error("the old password is still accepted")
	}
}
