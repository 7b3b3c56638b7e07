package postgres

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"charmhub.io/postgresql-k8s/charm/config"
	"charmhub.io/postgresql-k8s/charm/core"
	"charmhub.io/postgresql-k8s/charm/state"
	"charmhub.io/postgresql-k8s/relations/clients"
	"charmhub.io/postgresql-k8s/relations/database"
	"charmhub.io/postgresql-k8s/relations/pgsql"
)

const (
	operatorPassword   = "OperatorsOwnPassword"
	monitoringPassword = "MonitoringsOwnPassword"
)

// world is a real server, and what the charm's own handlers wish of it for the
// relations that there are.
type world struct {
	bin, dir  string
	port      int
	logs      *os.File
	relations map[int]*client
	connect   Connector // the charm's way to the server
}

// client is one relation.
type client struct {
	endpoint, database, roles string
	password                  state.Redacted
}

// newServer makes a data directory as Patroni would, with the charm's own
// pg_hba.conf, and runs a server on it with settings beyond those of start.
func newServer(t *testing.T, settings ...string) *world {
	t.Helper()
	found, _ := filepath.Glob("/usr/lib/postgresql/*/bin/postgres")
	if len(found) == 0 {
		t.Fatal("there is no PostgreSQL server in /usr/lib/postgresql/*/bin: install it with apt-get install postgresql")
	}
	slices.SortFunc(found, func(a, b string) int { return major(b) - major(a) })
	// The server's user must get through the directories above its own.
	above := t.TempDir()
	check(t, errors.Join(os.Chmod(above, 0o755), os.Chmod(filepath.Dir(above), 0o755)))
	w := &world{bin: filepath.Dir(found[0]), dir: filepath.Join(above, "server"), relations: map[int]*client{}, connect: Connect}
	w.mkdir(t, w.dir)
	w.write(t, "password", operatorPassword)
	data := filepath.Join(w.dir, "data")
	w.run(t, "initdb", "--no-sync", "--pgdata", data, "--username=operator", "--pwfile", filepath.Join(w.dir, "password"),
		"--auth=scram-sha-256", "--encoding=UTF8", "--locale=C.UTF-8")
	w.write(t, "data/pg_hba.conf", strings.Join(HBA(), "\n")+"\n")
	w.write(t, "data/pg_ident.conf", strings.Join(Ident(), "\n")+"\n")
	w.start(t, data, settings...)
	return w
}

// major is the version in the path of a server.
func major(path string) int {
	n, _ := strconv.Atoi(strings.Split(path, "/")[4])
	return n
}

func (w *world) start(t *testing.T, data string, more ...string) {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	check(t, err)
	w.port = listener.Addr().(*net.TCPAddr).Port
	check(t, listener.Close())
	logs, err := os.Create(filepath.Join(w.dir, "log"))
	check(t, err)
	w.logs = logs
	settings := []string{
		"listen_addresses=127.0.0.1", "unix_socket_directories=" + w.dir, "fsync=off", "shared_buffers=16MB", "autovacuum=off",
		"wal_level=minimal", "max_wal_senders=0", "log_statement=all", "log_line_prefix=%u@%d ",
	}
	args := []string{"-D", data, "-p", strconv.Itoa(w.port)}
	for _, s := range append(settings, more...) {
		args = append(args, "-c", s)
	}
	cmd := w.command(t, "postgres", args...)
	cmd.Stdout, cmd.Stderr = logs, logs
	check(t, cmd.Start())
	t.Cleanup(func() {
		_ = cmd.Process.Signal(syscall.SIGINT) // fast shutdown; it may have died
		_ = cmd.Wait()
		_ = logs.Close()
	})
	for deadline := time.Now().Add(30 * time.Second); ; time.Sleep(20 * time.Millisecond) {
		c, err := Connect(t.Context(), w.server(), "postgres")
		if err == nil {
			check(t, c.Close(t.Context()))
			return
		}
		if time.Now().After(deadline) {
			text, _ := os.ReadFile(logs.Name())
			t.Fatalf("the server does not start: %v\n%s", err, text)
		}
	}
}

// command runs a program of the server's as the user postgres: the server
// refuses to be root's.
func (w *world) command(t *testing.T, program string, args ...string) *exec.Cmd {
	t.Helper()
	cmd := exec.Command(filepath.Join(w.bin, program), args...)
	cmd.Dir = w.dir
	if os.Getuid() == 0 {
		uid, gid := owner(t)
		cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: uint32(uid), Gid: uint32(gid)}, Pdeathsig: syscall.SIGINT}
	}
	return cmd
}

func (w *world) run(t *testing.T, program string, args ...string) {
	t.Helper()
	if out, err := w.command(t, program, args...).CombinedOutput(); err != nil {
		t.Fatalf("%s: %v\n%s", program, err, out)
	}
}

func owner(t *testing.T) (uid, gid int) {
	t.Helper()
	u, err := user.Lookup("postgres")
	check(t, err)
	uid, err = strconv.Atoi(u.Uid)
	check(t, err)
	gid, err = strconv.Atoi(u.Gid)
	check(t, err)
	return uid, gid
}

func (w *world) mkdir(t *testing.T, path string) {
	t.Helper()
	check(t, os.Mkdir(path, 0o700))
	if os.Getuid() == 0 {
		uid, gid := owner(t)
		check(t, os.Chown(path, uid, gid))
	}
}

// write puts a file that everybody can read into the server's directory.
func (w *world) write(t *testing.T, name, content string) {
	t.Helper()
	check(t, os.WriteFile(filepath.Join(w.dir, name), []byte(content), 0o644))
}

func check(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func (w *world) server() Server {
	return Server{Host: "127.0.0.1", Port: w.port, User: "operator", Password: operatorPassword}
}

// relate integrates an application.
func (w *world) relate(id int, database, roles string) {
	w.relations[id] = &client{state.DatabaseEndpoint, database, roles, state.Redacted(fmt.Sprintf("PasswordOfRelation%d", id))}
}

// relateLegacy integrates an application over a legacy endpoint.
func (w *world) relateLegacy(id int, database, endpoint string) {
	w.relate(id, database, "")
	w.relations[id].endpoint = endpoint
}

// observed is what the charm knows, but for the catalog.
func (w *world) observed() state.Observed {
	obs := state.Observed{
		Unit: state.Unit{Name: "db/0", App: "db", Model: "test", ModelUUID: "uuid"}, Leader: true, Config: config.Parse(nil),
		Relations: state.Relations{state.PeerEndpoint: {{ID: 1000, Endpoint: state.PeerEndpoint}}},
		Cluster: state.Value(state.Cluster{Members: []state.Member{
			{Name: "db-0", Role: "leader", State: "running", Host: "127.0.0.1", Port: w.port},
		}}),
		Kube: state.Value(state.Kube{Domain: "cluster.local", Pods: []state.Pod{{Name: "db-0", IP: "127.0.0.1"}}}),
	}
	peer := state.Secret{Committed: true, Content: map[string]state.Redacted{
		"operator-password": operatorPassword, "monitoring-password": monitoringPassword,
		"replication-password": "-", "rewind-password": "-", "patroni-password": "-",
	}}
	obs.Secrets = map[string]state.Secret{obs.Unit.PeerSecret(): peer}
	for id, c := range w.relations {
		obs.Relations[c.endpoint] = append(obs.Relations[c.endpoint], state.Relation{
			ID: id, Endpoint: c.endpoint, Read: true, RemoteApp: fmt.Sprint("client-", id),
			Remote:   map[string]string{"database": c.database, "extra-user-roles": c.roles},
			LocalApp: map[string]string{"password": c.password.Reveal()},
		})
	}
	return obs
}

// pass is one pass of the charm's loop over this system. It stops at the first
// step that fails.
func (w *world) pass(ctx context.Context, s *System) ([]state.Step, error) {
	obs := w.observed()
	if err := s.Observe(ctx, &obs); err != nil {
		return nil, err
	}
	if _, known := obs.Database.Get(); !known {
		return nil, errors.New(obs.Database.Why())
	}
	var want state.Desired
	core.Users{}.Desire(obs, &want)
	clients.Handler{}.Desire(obs, &want)
	database.Handler{}.Desire(obs, &want)
	pgsql.Handler{}.Desire(obs, &want)
	pgsql.Handler{Admin: true}.Desire(obs, &want)
	steps := s.Diff(obs, want)
	for _, step := range steps {
		if err := s.Apply(ctx, step); err != nil {
			return steps, err
		}
	}
	return steps, nil
}

// settle makes passes until there is nothing to do, with a System of its own as
// each dispatch has.
func (w *world) settle(t *testing.T) {
	t.Helper()
	s := New(w.connect)
	defer s.Close(t.Context())
	for range 5 {
		steps, err := w.pass(t.Context(), s)
		check(t, err)
		if len(steps) == 0 {
			return
		}
	}
	t.Fatal("there is no end of steps")
}

// as opens a session the way a client does.
func (w *world) as(t *testing.T, user string, password state.Redacted, database string) (*pgx.Conn, error) {
	t.Helper()
	cfg, err := pgx.ParseConfig("sslmode=disable")
	check(t, err)
	cfg.Host, cfg.Port, cfg.User, cfg.Password, cfg.Database = "127.0.0.1", uint16(w.port), user, password.Reveal(), database
	cfg.DefaultQueryExecMode = pgx.QueryExecModeSimpleProtocol
	c, err := pgx.ConnectConfig(t.Context(), cfg)
	if err == nil {
		t.Cleanup(func() { _ = c.Close(context.Background()) })
	}
	return c, err
}

// login opens a session of a relation's user in its database.
func (w *world) login(t *testing.T, id int) *pgx.Conn {
	t.Helper()
	c, err := w.as(t, userOf(id), w.relations[id].password, w.relations[id].database)
	check(t, err)
	return c
}

// operator opens a session of the operator.
func (w *world) operator(t *testing.T, database string) *pgx.Conn {
	t.Helper()
	c, err := w.as(t, "operator", operatorPassword, database)
	check(t, err)
	return c
}

func userOf(id int) string { return fmt.Sprintf("relation_id_%d", id) }

// do executes statements that must succeed.
func do(t *testing.T, c *pgx.Conn, statements ...string) {
	t.Helper()
	for _, sql := range statements {
		if _, err := c.Exec(t.Context(), sql); err != nil {
			t.Errorf("%s: %v", sql, err)
		}
	}
}

// refused executes a statement that must fail with a message.
func refused(t *testing.T, c *pgx.Conn, sql, message string) {
	t.Helper()
	if _, err := c.Exec(t.Context(), sql); err == nil || !strings.Contains(err.Error(), message) {
		t.Errorf("%s: the error is %v, want %s", sql, err, message)
	}
}

// ask returns the words of the first column, in the order of the query.
func ask(t *testing.T, c *pgx.Conn, sql string, args ...any) []string {
	t.Helper()
	rows, err := c.Query(t.Context(), sql, args...)
	check(t, err)
	words, err := pgx.CollectRows(rows, pgx.RowTo[string])
	if err != nil {
		t.Fatalf("%s: %v", sql, err)
	}
	return words
}

// expect asks and compares.
func expect(t *testing.T, c *pgx.Conn, sql string, want ...string) {
	t.Helper()
	if got := ask(t, c, sql); !slices.Equal(got, want) {
		t.Errorf("%s: it is %q, want %q", sql, got, want)
	}
}

// noLogin tries to open a session, which must fail with a message.
func (w *world) noLogin(t *testing.T, user string, password state.Redacted, database, message string) {
	t.Helper()
	if _, err := w.as(t, user, password, database); err == nil || !strings.Contains(err.Error(), message) {
		t.Errorf("%s in database %s: the error is %v, want %s", user, database, err, message)
	}
}

// flaky is a way to the server that breaks once at each statement that changes
// something: before the server has it, or after it was done.
func flaky(after bool, broke map[string]bool) Connector {
	return func(ctx context.Context, server Server, database string) (Conn, error) {
		c, err := Connect(ctx, server, database)
		return flakyConn{c, after, database, broke}, err
	}
}

type flakyConn struct {
	Conn
	after    bool
	database string
	broke    map[string]bool
}

func (c flakyConn) Run(ctx context.Context, sql string) error {
	// A verifier has a salt of its own each time.
	key := c.database + ": " + sql
	if i := strings.Index(key, "SCRAM-SHA-256"); i >= 0 {
		key = key[:i]
	}
	if c.broke[key] {
		return c.Conn.Run(ctx, sql)
	}
	c.broke[key] = true
	if c.after {
		if err := c.Conn.Run(ctx, sql); err != nil {
			return err
		}
	}
	return errors.New("the connection broke")
}

// secrets returns the passwords that the server's log shows.
func (w *world) secrets(t *testing.T) []string {
	t.Helper()
	text, err := os.ReadFile(w.logs.Name())
	check(t, err)
	var shown []string
	for _, password := range []string{operatorPassword, monitoringPassword, "PasswordOfRelation"} {
		if bytes.Contains(text, []byte(password)) {
			shown = append(shown, password)
		}
	}
	return shown
}
