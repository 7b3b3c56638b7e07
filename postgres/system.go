package postgres

import (
	"context"
	"errors"
	"fmt"
	"net"
	"strconv"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgconn/ctxwatch"

	"charmhub.io/postgresql-k8s/charm/state"
)

// Timeouts of SQL: the server is in the same cluster, and our statements touch
// the catalogue only. A statement may have to wait for a lock that a client's
// DDL holds. The server has no timeout for a commit that waits for replicas, and a
// server that is cut off keeps none at all: the last four are on our side.
const (
	connectTimeout   = 2 * time.Second
	statementTimeout = 10 * time.Second
	lockTimeout      = 3 * time.Second
	cancelTimeout    = time.Second                      // until the server has ended what we do not wait for
	quickTimeout     = lockTimeout + 2*time.Second      // a change of some rows, with its commit
	slowTimeout      = statementTimeout + 2*time.Second // one of a database's files, or of all its objects
	stepTimeout      = 20 * time.Second
)

// Server is where and as whom to connect.
type Server struct {
	Host     string
	Port     int
	User     string
	Password state.Redacted
}

// Conn is what we use of a connection.
type Conn interface {
	Query(ctx context.Context, sql string, args ...any) (pgx.Rows, error)
	QueryRow(ctx context.Context, sql string, args ...any) pgx.Row
	// Run executes one or more statements in the simple protocol.
	Run(ctx context.Context, sql string) error
	Close(ctx context.Context) error
}

// Connector opens a connection to a database.
type Connector func(ctx context.Context, server Server, database string) (Conn, error)

// Connect is the Connector that opens a real one.
func Connect(ctx context.Context, server Server, database string) (Conn, error) {
	cfg, err := pgx.ParseConfig("sslmode=disable") // nothing of the environment matters below
	if err != nil {
		return nil, err
	}
	cfg.Host, cfg.Port = server.Host, uint16(server.Port)
	cfg.User, cfg.Password, cfg.Database = server.User, server.Password.Reveal(), database
	cfg.ConnectTimeout = connectTimeout
	// A statement that takes too long is cancelled, rather than left behind with its
	// locks; and the server tells what became of it.
	cfg.BuildContextWatcherHandler = func(c *pgconn.PgConn) ctxwatch.Handler {
		return &pgconn.CancelRequestContextWatcherHandler{Conn: c, DeadlineDelay: cancelTimeout}
	}
	cfg.RuntimeParams = map[string]string{
		"application_name":  "postgresql-k8s charm",
		"statement_timeout": strconv.Itoa(int(statementTimeout.Milliseconds())),
		"lock_timeout":      strconv.Itoa(int(lockTimeout.Milliseconds())),
		"search_path":       "pg_catalog", // nothing that a client made can be called by us
	}
	c, err := pgx.ConnectConfig(ctx, cfg)
	if err != nil {
		return nil, err
	}
	return conn{c}, nil
}

type conn struct{ *pgx.Conn }

func (c conn) Run(ctx context.Context, sql string) error {
	_, err := c.PgConn().Exec(ctx, sql).ReadAll()
	return err
}

// System is the database cluster as its primary shows it to the operator user.
// Only the Juju leader looks, and only it changes anything.
type System struct {
	// Local runs SQL as the backup user in the server of this unit's pod, where only
	// the operating system's user counts and no password does. binDir is where psql
	// is.
	Local func(ctx context.Context, binDir, sql string) error

	connect Connector
	server  Server
	conns   map[string]Conn // by database, kept for the dispatch
	quick   time.Duration   // quickTimeout
	// unconfirmed tells that a commit of this dispatch has not reached the replicas. A
	// failover in this moment would lose it, so nobody is told of it yet: to this
	// dispatch the catalogue stays as it was.
	unconfirmed bool
	confirmed   bool // one has, which was made to see that
	catalog     state.Catalog
}

// New returns the database cluster that connect reaches.
func New(connect Connector) *System {
	return &System{connect: connect, conns: map[string]Conn{}, quick: quickTimeout}
}

// Name implements charm.System.
func (s *System) Name() string { return "postgres" }

// Independent implements charm.Independent.
func (s *System) Independent() {}

// Observe implements charm.System; it reads the cluster and secrets of obs. Only
// the leader reads the catalogue.
func (s *System) Observe(ctx context.Context, obs *state.Observed) error {
	ctx, cancel := context.WithTimeout(ctx, statementTimeout)
	defer cancel()
	obs.Database = state.Unknown[state.Catalog]("not the leader")
	if err := s.observe(ctx, obs); err != nil {
		s.Close(ctx)
		obs.Database = state.Unknown[state.Catalog](err.Error())
		obs.Streaming = state.Unknown[[]string](err.Error())
		obs.Users = state.Unknown[map[string]state.Role](err.Error())
		obs.Refused = wrongPassword(err)
	}
	return nil
}

func (s *System) observe(ctx context.Context, obs *state.Observed) error {
	cluster, _ := obs.Cluster.Get()
	cloning := cluster.Local.State == "creating replica"
	if !obs.Leader && !cluster.Local.Primary() && !cloning {
		return errors.New("not the leader, nor the primary")
	}
	if member, ok := obs.Primary(); ok && obs.Silent && member.Name == obs.Unit.Pod() {
		return errors.New("the primary is this unit's, whose Patroni does not answer")
	}
	server, err := primary(*obs)
	if err != nil {
		return err
	}
	if server != s.server { // another primary, or password, than in the pass before
		s.Close(ctx)
		s.server = server
	}
	if cloning {
		obs.Cloned = s.readCloned(ctx, *obs)
	}
	streaming, err := s.readStreaming(ctx, obs.Unit.App)
	if err != nil {
		return err
	}
	var replica bool // it has the lock of the primary, and will be it in a moment
	if err := s.conns["postgres"].QueryRow(ctx, "SELECT pg_is_in_recovery()").Scan(&replica); err != nil {
		return fmt.Errorf("cannot read whether the server is the primary: %w", err)
	}
	if replica {
		return errors.New("the primary is being promoted")
	}
	obs.Streaming = state.Value(streaming)
	if cluster.Local.Primary() {
		users, err := s.readUsers(ctx)
		if err != nil {
			return err
		}
		obs.Users = state.Value(users)
	}
	if !obs.Leader {
		return nil
	}
	if !s.unconfirmed {
		if s.catalog, err = s.read(ctx); err != nil {
			return err
		}
		if err := s.confirm(ctx, obs.Clients); err != nil && !errors.Is(err, state.ErrUnconfirmed) {
			return err
		}
		s.catalog.Unconfirmed = s.unconfirmed
	}
	obs.Database = state.Value(s.catalog)
	return nil
}

// confirm commits something while a client is being served. What an earlier dispatch
// has committed, and not waited for, is on a replica's disk when this is.
func (s *System) confirm(ctx context.Context, clients map[int]state.Client) error {
	if s.confirmed || !state.Serving(clients) {
		return nil
	}
	err := s.change(ctx, s.conns["postgres"], "SELECT pg_logical_emit_message(true, 'postgresql-k8s', 'confirm')")
	if err != nil && !errors.Is(err, state.ErrUnconfirmed) {
		return fmt.Errorf("cannot commit: %w", err)
	}
	s.confirmed = err == nil
	return err
}

func primary(obs state.Observed) (Server, error) {
	member, ok := obs.Primary()
	if !ok {
		return Server{}, errors.New("no primary")
	}
	secret := obs.Secrets[obs.Unit.PeerSecret()]
	password := secret.InForce()["operator-password"]
	if password == "" {
		return Server{}, errors.New("no password")
	}
	return Server{Host: member.Host, Port: member.Port, User: "operator", Password: password}, nil
}

// wrongPassword tells whether the server has another password than we do
// (https://www.postgresql.org/docs/17/errcodes-appendix.html, invalid_password).
func wrongPassword(err error) bool {
	var answer *pgconn.PgError
	return errors.As(err, &answer) && answer.Code == "28P01"
}

// readUsers reads the system users and their verifiers.
func (s *System) readUsers(ctx context.Context) (map[string]state.Role, error) {
	c, err := s.conn(ctx, "postgres")
	if err != nil {
		return nil, err
	}
	rows, err := c.Query(ctx, "SELECT rolname, coalesce(rolpassword, '') FROM pg_authid WHERE rolname = ANY($1)", state.SystemUsers)
	if err != nil {
		return nil, fmt.Errorf("cannot read the system users: %w", err)
	}
	users := map[string]state.Role{}
	var name, verifier string
	_, err = pgx.ForEachRow(rows, []any{&name, &verifier}, func() error {
		users[name] = state.Role{Name: name, Verifier: state.Redacted(verifier)}
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("cannot read the system users: %w", err)
	}
	return users, nil
}

// readStreaming reads who follows
// (https://www.postgresql.org/docs/17/monitoring-stats.html#MONITORING-PG-STAT-REPLICATION-VIEW);
// followers.sh asks the same.
func (s *System) readStreaming(ctx context.Context, app string) ([]string, error) {
	c, err := s.conn(ctx, "postgres")
	if err != nil {
		return nil, err
	}
	rows, err := c.Query(ctx, `SELECT DISTINCT application_name FROM pg_stat_replication
		WHERE state = 'streaming' AND application_name ~ ('^' || $1 || '-[0-9]+$') ORDER BY 1`, app)
	if err != nil {
		return nil, fmt.Errorf("cannot read who follows: %w", err)
	}
	names, err := pgx.CollectRows(rows, pgx.RowTo[string])
	if err != nil {
		return nil, fmt.Errorf("cannot read who follows: %w", err)
	}
	return names, nil
}

// readCloned reads how far the copy is that this unit's pod makes
// (https://www.postgresql.org/docs/17/progress-reporting.html#BASEBACKUP-PROGRESS-REPORTING).
func (s *System) readCloned(ctx context.Context, obs state.Observed) state.Known[int] {
	kube, _ := obs.Kube.Get()
	pod, _ := kube.Pod(obs.Unit.Pod())
	c, err := s.conn(ctx, "postgres")
	if err != nil {
		return state.Unknown[int](err.Error())
	}
	var percent int
	err = c.QueryRow(ctx, `SELECT (100 * backup_streamed / greatest(backup_total, backup_streamed, 1))::int
		FROM pg_stat_progress_basebackup JOIN pg_stat_activity USING (pid) WHERE host(client_addr) = $1
		ORDER BY backend_start DESC LIMIT 1`, pod.IP).Scan(&percent)
	if err != nil {
		return state.Unknown[int](err.Error())
	}
	return state.Value(percent)
}

func (s *System) conn(ctx context.Context, database string) (Conn, error) {
	if c, ok := s.conns[database]; ok {
		return c, nil
	}
	c, err := s.connect(ctx, s.server, database)
	if err != nil {
		return nil, fmt.Errorf("cannot connect to %s: %w", net.JoinHostPort(s.server.Host, strconv.Itoa(s.server.Port)), err)
	}
	s.conns[database] = c
	return c, nil
}

// Close ends the connections.
func (s *System) Close(ctx context.Context) {
	for name, c := range s.conns {
		_ = c.Close(ctx) // it is of no more use either way
		delete(s.conns, name)
	}
}

// rolesSQL reads https://www.postgresql.org/docs/17/catalog-pg-authid.html;
// names that begin with pg_ are PostgreSQL's own.
const rolesSQL = `
SELECT r.rolname, r.rolcanlogin, r.rolsuper, r.rolcreatedb, r.rolcreaterole, coalesce(r.rolpassword, ''),
       array(SELECT g.rolname::text FROM pg_auth_members m JOIN pg_authid g ON g.oid = m.roleid
             WHERE m.member = r.oid ORDER BY 1)
FROM pg_authid r`

func (s *System) read(ctx context.Context) (state.Catalog, error) {
	c, err := s.conn(ctx, "postgres")
	if err != nil {
		return state.Catalog{}, err
	}
	rows, err := c.Query(ctx, rolesSQL)
	if err != nil {
		return state.Catalog{}, fmt.Errorf("cannot read the roles: %w", err)
	}
	roles, err := pgx.CollectRows(rows, func(row pgx.CollectableRow) (state.Role, error) {
		var r state.Role
		var verifier string
		err := row.Scan(&r.Name, &r.Login, &r.Superuser, &r.CreateDB, &r.CreateRole, &verifier, &r.MemberOf)
		r.Verifier = state.Redacted(verifier)
		return r, err
	})
	if err != nil {
		return state.Catalog{}, fmt.Errorf("cannot read the roles: %w", err)
	}
	db := state.Catalog{Roles: make(map[string]state.Role, len(roles))}
	for _, r := range roles {
		if strings.HasPrefix(r.Name, "pg_") {
			db.Predefined = append(db.Predefined, r.Name)
		} else {
			db.Roles[r.Name] = r
		}
	}
	if db.Databases, err = readDatabases(ctx, c); err != nil {
		return state.Catalog{}, err
	}
	var version string // 17.5 (Debian 17.5-1.pgdg13+1)
	if err := c.QueryRow(ctx, "SHOW server_version").Scan(&version); err != nil {
		return state.Catalog{}, fmt.Errorf("cannot read the version: %w", err)
	}
	db.Version, _, _ = strings.Cut(version, " ")
	return db, nil
}

// Diff implements charm.System.
func (s *System) Diff(obs state.Observed, want state.Desired) []state.Step {
	var steps []state.Step
	for _, role := range want.Renew {
		steps = append(steps, RenewPassword{Role: role.Name, Password: role.Password, BinDir: want.BinDir})
	}
	have, ok := obs.Database.Get()
	if !ok || !obs.Leader {
		return steps
	}
	steps = append(steps, DiffRoles(have.Roles, want.Roles)...)
	return append(steps, DiffDatabases(have.Databases, want.Databases)...)
}

// Apply implements charm.System.
func (s *System) Apply(ctx context.Context, step state.Step) error {
	ctx, cancel := context.WithTimeout(ctx, stepTimeout)
	defer cancel()
	switch step := step.(type) {
	case DropRole:
		if err := s.dropRole(ctx, step.Role); err != nil {
			return fmt.Errorf("cannot %s: %w", step, err)
		}
		return nil
	case RenewPassword:
		return s.renew(ctx, step)
	case SetPassword:
		verifier, err := state.Verifier(step.Password)
		if err != nil {
			return err
		}
		return s.run(ctx, step, s.change, "postgres", fmt.Sprintf("ALTER ROLE %s PASSWORD %s", quote(step.Role), literal(verifier)))
	case AdmitUser:
		if err := s.run(ctx, step, s.slow, step.Database.Name, adoptSQL(step.Database.Owner)); err != nil {
			return err
		}
		database, text := step.sql()
		return s.run(ctx, step, s.change, database, text)
	case CreateDatabase:
		database, text := step.sql()
		return s.run(ctx, step, s.slow, database, text)
	case statement:
		database, text := step.sql()
		return s.run(ctx, step, s.change, database, text)
	}
	return fmt.Errorf("cannot apply %T to postgres", step)
}

// renew needs no password of any role, so it works whichever the server has. The
// commit is not waited for on replicas: they may need the new password to connect
// at all. Should it get lost with the primary, the next one's unit does it again.
func (s *System) renew(ctx context.Context, step RenewPassword) error {
	verifier, err := state.Verifier(step.Password)
	if err != nil {
		return err
	}
	sql := fmt.Sprintf("SET statement_timeout = %d;\nSET lock_timeout = %d;\nSET synchronous_commit = local;\nALTER ROLE %s PASSWORD %s;\n",
		statementTimeout.Milliseconds(), lockTimeout.Milliseconds(), quote(step.Role), literal(verifier))
	if err := s.Local(ctx, step.BinDir, sql); err != nil {
		return fmt.Errorf("cannot %s: %w", step, err)
	}
	return nil
}

func (s *System) run(ctx context.Context, step state.Step, how func(context.Context, Conn, string) error, database, text string) error {
	c, err := s.conn(ctx, database)
	if err == nil {
		err = how(ctx, c, text)
	}
	if err != nil {
		return fmt.Errorf("cannot %s: %w", step, err)
	}
	return nil
}

// change runs statements that take moments, but for their commit.
func (s *System) change(ctx context.Context, c Conn, text string) error {
	return s.within(ctx, s.quick, c, text)
}

// slow runs statements that may take longer. Their commit waits for no replica: a
// change always comes after it, and whoever has the later commit has both.
func (s *System) slow(ctx context.Context, c Conn, text string) error {
	if err := s.change(ctx, c, "SET synchronous_commit = local"); err != nil {
		return err
	}
	err := s.within(ctx, slowTimeout, c, text)
	reset := s.change(ctx, c, "RESET synchronous_commit")
	if reset != nil {
		s.Close(ctx) // nothing more is to commit through it
	}
	return errors.Join(err, reset)
}

// within runs statements. Who ends the wait of a commit for replicas has it done on
// this server (https://www.postgresql.org/docs/17/warm-standby.html#SYNCHRONOUS-REPLICATION-HA).
func (s *System) within(ctx context.Context, limit time.Duration, c Conn, text string) error {
	if s.unconfirmed { // the next commit would wait, too
		return state.ErrUnconfirmed
	}
	ctx, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	err := c.Run(ctx, text)
	if err == nil && ctx.Err() != nil {
		s.unconfirmed, err = true, state.ErrUnconfirmed
	}
	return err
}
