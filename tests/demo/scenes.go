package main

import (
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"

	"gopkg.in/yaml.v3"

	"charmhub.io/postgresql-k8s/tests/localmodel"
)

const (
	app      = "postgresql-k8s"
	client   = "client"
	database = "test-database" // that the client asks for
)

// deploy is the first scene: the charm, from nothing to a primary.
func (s *stage) deploy() error {
	s.say("Juju deploys the charm: for each unit a pod, with Pebble, Patroni and PostgreSQL from the image in it.")
	if _, err := s.do("deploy", charmFile(app), "--trust", "-n", strconv.Itoa(s.units)); err != nil {
		return err
	}
	start := time.Now()
	status, err := s.watch("all units are active", func(st localmodel.Status) bool {
		return st.Settled(app, s.units) && primary(st) != ""
	})
	if err != nil {
		return err
	}
	units := "one unit"
	if s.units > 1 {
		units = fmt.Sprint(s.units, " units")
	}
	s.say("%s: PostgreSQL %s, %s, the primary is %s.", seconds(start), status.App(app).Version, units, primary(status))
	return nil
}

// primary is the unit that says it is.
func primary(st localmodel.Status) string {
	for _, u := range st.App(app).Units {
		if u.Workload.Message == "Primary" {
			return u.Name
		}
	}
	return ""
}

func seconds(since time.Time) string {
	return fmt.Sprintf("After %.1f s", time.Since(since).Seconds())
}

// integrate gives a client a database, and its credentials in a secret.
func (s *stage) integrate() error {
	s.say("A client application comes. It has no database yet.")
	if _, err := s.do("deploy", charmFile(client)); err != nil {
		return err
	}
	if _, err := s.watch("the client waits", func(st localmodel.Status) bool {
		return clientShows(st, "waiting", "no relation")
	}); err != nil {
		return err
	}
	s.say("They are integrated: the charm makes a database and a user, and tells the client where they are.")
	if _, err := s.do("integrate", app, client); err != nil {
		return err
	}
	start := time.Now()
	if _, err := s.watch("the client has written its first row", func(st localmodel.Status) bool {
		return clientShows(st, "active", "rows through") && st.Settled(app, s.units) && st.Settled(client, 1)
	}); err != nil {
		return err
	}
	s.say("%s the client had logged in and written a row. This is what it was told:", seconds(start))
	told, err := s.do("show-unit", client+"/0")
	if err != nil {
		return err
	}
	credentials, err := s.credentials()
	switch {
	case err != nil:
		return err
	case !strings.Contains(told, "secret-user: secret:"):
		return errors.New("the databag does not name the secret of the user")
	case strings.Contains(told, credentials["password"]):
		return errors.New("the password is in the databag")
	}
	s.say("The user is %s. Its password, of %d characters, is in the secret; only the client can read that.",
		credentials["username"], len(credentials["password"]))
	return nil
}

func clientShows(st localmodel.Status, status, message string) bool {
	units := st.App(client).Units
	return len(units) == 1 && units[0].Workload.Status == status && strings.Contains(units[0].Workload.Message, message)
}

// credentials are what the client has; nobody sees them.
func (s *stage) credentials() (map[string]string, error) {
	out, err := s.ask("run", client+"/0", "credentials")
	if err != nil {
		return nil, err
	}
	found := map[string]string{}
	if err := yaml.Unmarshal([]byte(out), &found); err != nil {
		return nil, errors.New("cannot read what the action credentials says")
	}
	if found["username"] == "" || found["password"] == "" {
		return nil, errors.New("the client has no user or no password")
	}
	return found, nil
}

// write lets the client write rows through its credentials.
func (s *stage) write() error {
	s.say("The client writes more rows, through its own user, over the network.")
	_, err := s.do("run", client+"/0", "sql",
		"statement=CREATE TABLE notes AS SELECT n AS id, 'note ' || n AS text, session_user AS writer FROM generate_series(1, 3) n")
	if err != nil {
		return err
	}
	out, err := s.do("run", client+"/0", "sql", "statement=SELECT count(*) FROM notes")
	if err == nil && !strings.Contains(out, `rows: "3"`) {
		err = errors.New("the client does not see its three rows")
	}
	return err
}

// psql looks at the same database from inside the workload container.
func (s *stage) psql() error {
	s.say("Inside the workload container, psql on the server's socket sees the database, its owner and the rows.")
	if err := s.query(`\l`, database); err != nil {
		return err
	}
	if err := s.query("SELECT * FROM notes ORDER BY id", "note 1 | relation_id_", "note 2", "note 3", "(3 rows)"); err != nil {
		return err
	}
	if s.units == 1 {
		return nil
	}
	s.say("The other units are replicas, which follow it.")
	return s.query("SELECT application_name, state, sync_state FROM pg_stat_replication", "streaming", fmt.Sprintf("(%d row", s.units-1))
}

// query shows psql in the primary's workload container, and wants to see something.
func (s *stage) query(sql string, wanted ...string) error {
	status, err := s.status()
	if err != nil {
		return err
	}
	out, err := s.do("ssh", "--container", "postgresql", primary(status),
		"runuser", "-u", "postgres", "--", "psql", "-U", "backup", "-d", database, "-c", sql)
	for _, text := range wanted {
		if err == nil && !strings.Contains(out, text) {
			err = fmt.Errorf("psql does not show %q", text)
		}
	}
	return err
}

// getPrimary runs an action.
func (s *stage) getPrimary() error {
	charm, err := localmodel.OpenCharm(charmFile(app))
	if err != nil {
		return err
	}
	if _, declared := charm.Actions["get-primary"]; !declared {
		s.say("This charm declares no action get-primary: that scene is left out.")
		return nil
	}
	s.say("An action: which unit is the primary?")
	status, err := s.status()
	if err != nil {
		return err
	}
	out, err := s.do("run", app+"/0", "get-primary")
	if want := "primary: " + primary(status); err == nil && !strings.Contains(out, want) {
		err = fmt.Errorf("the action does not say %q", want)
	}
	return err
}

// failover kills the primary's pod; the client follows.
func (s *stage) failover() error {
	if s.units < 2 {
		s.say("With one unit there is nobody to fail over to; make demo N=3 shows it.")
		return nil
	}
	if err := s.successors(); err != nil {
		return err
	}
	status, err := s.status()
	if err != nil {
		return err
	}
	old, before := primary(status), clientMessage(status)
	s.say("The pod of %s, the primary, is killed, as when its node dies.", old)
	if _, err := s.do("kill-pod", old); err != nil {
		return err
	}
	start := time.Now()
	var promoted, followed time.Duration
	status, err = s.watch("another is the primary, and the client writes through it", func(st localmodel.Status) bool {
		now := primary(st)
		if promoted == 0 && now != "" && now != old {
			promoted = time.Since(start)
		}
		if message := clientMessage(st); followed == 0 && clientShows(st, "active", "rows through") && host(message) != host(before) {
			followed = time.Since(start)
		}
		return promoted > 0 && followed > 0 && st.Settled(app, s.units) && st.Settled(client, 1)
	})
	if err != nil {
		return err
	}
	s.say("%s was the primary after %.1f s, the client had written through it after %.1f s; the old one follows.",
		primary(status), promoted.Seconds(), followed.Seconds())
	return s.query("SELECT count(*) AS notes, pg_is_in_recovery() AS replica FROM notes", "    3 | f")
}

// successors waits until the replicas confirm commits: a few seconds after a
// deployment. Before that none of them may become the primary.
func (s *stage) successors() error {
	for end := time.Now().Add(time.Minute); time.Now().Before(end); time.Sleep(500 * time.Millisecond) {
		out, err := s.ask("run", app+"/0", "status")
		if err != nil {
			return err
		}
		if strings.Count(out, "sync: quorum")+strings.Count(out, "sync: sync") == s.units-1 {
			return nil
		}
	}
	return errors.New("the replicas do not confirm commits")
}

func clientMessage(st localmodel.Status) string {
	units := st.App(client).Units
	if len(units) == 0 {
		return ""
	}
	return units[0].Workload.Message
}

// host is the last word of what the client says: through which it writes.
func host(message string) string { return message[strings.LastIndexByte(message, ' ')+1:] }

// removeRelation takes the client's user away, not its rows.
func (s *stage) removeRelation() error {
	credentials, err := s.credentials()
	if err != nil {
		return err
	}
	user := credentials["username"]
	s.say("The client has a user of its own, %s.", user)
	if err := s.query(`\du `+user, user); err != nil {
		return err
	}
	s.say("The relation is removed. The user goes with it.")
	if _, err := s.do("remove-relation", app, client); err != nil {
		return err
	}
	if _, err := s.watch("the relation is gone", func(st localmodel.Status) bool {
		return clientShows(st, "waiting", "no relation") && st.Settled(app, s.units) && !related(st)
	}); err != nil {
		return err
	}
	s.say("There is no such user any more. The rows stay, for a client that is integrated later.")
	if err := s.query(`SELECT count(*) AS users FROM pg_user WHERE usename = '`+user+`'`, "    0\n"); err != nil {
		return err
	}
	return s.query("SELECT id, text FROM notes ORDER BY id", "note 1", "note 2", "note 3", "(3 rows)")
}

func related(st localmodel.Status) bool {
	for _, r := range st.Relations {
		if strings.HasPrefix(r.Requirer, client+":") {
			return true
		}
	}
	return false
}

// remove is the end: all applications go.
func (s *stage) remove() error {
	s.say("The end: both applications are removed, and then the model.")
	for _, name := range []string{client, app} {
		if _, err := s.do("remove-application", name); err != nil {
			return err
		}
	}
	_, err := s.watch("all is removed", func(st localmodel.Status) bool { return len(st.Apps) == 0 })
	return err
}

// explain shows what may tell why a scene failed.
func (s *stage) explain() {
	_, _ = s.do("status", "--relations")
	_, _ = s.do("debug-log", "--no-tail", "--lines", "60")
}

// lookAround says what can be tried in a model that stays up.
func (s *stage) lookAround() {
	s.say("The model stays up. Look around, as root:")
	fmt.Printf(`
    export LOCALMODEL_DIR=%[1]s
    alias juju=%[2]s
    juju status --relations
    juju run %[3]s/0 get-primary
    juju integrate %[3]s %[4]s
    juju run %[4]s/0 sql statement='TABLE notes'
    juju remove-relation %[3]s %[4]s
    juju ssh --container postgresql %[3]s/0 runuser -u postgres -- psql -U backup
    juju add-unit %[3]s -n 2
    juju kill-pod %[3]s/0
    juju debug-log
    juju help
    juju down

The last one ends it; so does the next make demo.
`, modelDir, s.cli, app, client)
}
