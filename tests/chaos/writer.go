package main

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"sync"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
)

const (
	connectTimeout   = 2 * time.Second
	statementTimeout = 3 * time.Second
	rhythm           = 20 * time.Millisecond  // between two inserts
	again            = 100 * time.Millisecond // after an error
	readOnlyCode     = "25006"                // read_only_sql_transaction
)

// A writer inserts increasing numbers into a table of its own, one after the
// other, each once: what became of an insert that was cut off nobody knows, and
// its number is not used again.
type writer struct {
	name    string
	connect func(context.Context) (*pgx.Conn, error)
	note    func(who, text string) // for the journal

	mu       sync.Mutex
	acks     []ack
	failures []failure
	last     int64
}

// An ack is a number of which the server has said that it is in the table.
type ack struct {
	n  int64
	at time.Time
}

// A failure is an error that the writer saw.
type failure struct {
	at       time.Time
	text     string
	readOnly bool
}

// table is where the writer writes.
func (w *writer) table() string { return "chaos_" + w.name }

// create makes the table. It has no key: a number that is there twice must show.
func (w *writer) create(ctx context.Context) error {
	conn, err := w.connect(ctx)
	for end := time.Now().Add(time.Minute); err != nil; conn, err = w.connect(ctx) {
		if time.Now().After(end) || !pause(ctx, time.Second) { // the Service may have no ready pod yet
			return fmt.Errorf("cannot connect through %s: %w", w.name, err)
		}
	}
	defer conn.Close(ctx)
	_, err = conn.Exec(ctx, "CREATE TABLE "+w.table()+" (n bigint, at timestamptz DEFAULT clock_timestamp())")
	return err
}

// run writes until the context ends.
func (w *writer) run(ctx context.Context) {
	var conn *pgx.Conn
	for ctx.Err() == nil {
		if conn == nil {
			var err error
			if conn, err = w.connect(ctx); err != nil {
				conn = nil
				w.failed("cannot connect", err)
				pause(ctx, again)
				continue
			}
			w.note(w.name, "connected to "+conn.PgConn().Conn().RemoteAddr().String())
		}
		if err := w.insert(ctx, conn); err != nil {
			w.failed("cannot insert", err)
			hangUp(conn)
			conn = nil
			pause(ctx, again)
			continue
		}
		pause(ctx, rhythm)
	}
	if conn != nil {
		hangUp(conn)
	}
}

// hangUp closes a connection without waiting for a server that may not answer.
func hangUp(conn *pgx.Conn) {
	go func() {
		ctx, cancel := context.WithTimeout(context.Background(), time.Second)
		defer cancel()
		_ = conn.Close(ctx)
	}()
}

func (w *writer) insert(ctx context.Context, conn *pgx.Conn) error {
	w.mu.Lock()
	w.last++
	n := w.last
	w.mu.Unlock()
	ctx, cancel := context.WithTimeout(ctx, statementTimeout)
	defer cancel()
	if _, err := conn.Exec(ctx, "INSERT INTO "+w.table()+" VALUES ($1)", pgx.QueryExecModeExec, n); err != nil {
		return err
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	w.acks = append(w.acks, ack{n, time.Now()})
	return nil
}

func (w *writer) failed(what string, err error) {
	var server *pgconn.PgError
	f := failure{at: time.Now(), text: what + ": " + err.Error()}
	f.readOnly = errors.As(err, &server) && server.Code == readOnlyCode
	w.mu.Lock()
	isNew := len(w.failures) == 0 || w.failures[len(w.failures)-1].text != f.text
	w.failures = append(w.failures, f)
	w.mu.Unlock()
	if isNew {
		w.note(w.name, f.text)
	}
}

// record returns what the writer has seen so far.
func (w *writer) record() ([]ack, []failure) {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.acks[:len(w.acks):len(w.acks)], w.failures[:len(w.failures):len(w.failures)]
}

// wrote tells whether a write was acknowledged since then.
func (w *writer) wrote(since time.Time) bool {
	acks, _ := w.record()
	return len(acks) > 0 && acks[len(acks)-1].at.After(since)
}

// throughEndpoints connects as a good client does: to what the relation says now.
func throughEndpoints(w world, credentials map[string]string) func(context.Context) (*pgx.Conn, error) {
	return func(ctx context.Context) (*pgx.Conn, error) {
		ctx, cancel := context.WithTimeout(ctx, connectTimeout)
		defer cancel()
		endpoint, err := w.endpoints(ctx)
		if err != nil {
			return nil, err
		}
		return connect(ctx, w, credentials, endpoint)
	}
}

// connect logs in at a host and port with the client's credentials.
func connect(ctx context.Context, w world, credentials map[string]string, endpoint string) (*pgx.Conn, error) {
	host, port, err := net.SplitHostPort(endpoint)
	if err != nil {
		return nil, err
	}
	config, err := pgx.ParseConfig("sslmode=disable port=" + port)
	if err != nil {
		return nil, err
	}
	config.Host, config.User, config.Password, config.Database = host, credentials["username"], credentials["password"], database
	return dial(ctx, w, config)
}

// throughURIs connects as a client does that never looks again: by name.
func throughURIs(w world, uri string) func(context.Context) (*pgx.Conn, error) {
	return func(ctx context.Context) (*pgx.Conn, error) {
		ctx, cancel := context.WithTimeout(ctx, connectTimeout)
		defer cancel()
		config, err := pgx.ParseConfig(uri)
		if err != nil {
			return nil, err
		}
		config.TLSConfig, config.Fallbacks = nil, nil
		return dial(ctx, w, config)
	}
}

func dial(ctx context.Context, w world, config *pgx.ConnConfig) (*pgx.Conn, error) {
	config.LookupFunc = func(ctx context.Context, host string) ([]string, error) {
		ips, err := w.resolver().LookupHost(ctx, host)
		if len(ips) > 1 {
			// The local model's Services have no address of their own, which would
			// lead every connection to any one of the pods.
			ips = []string{ips[rand.IntN(len(ips))]}
		}
		return ips, err
	}
	config.DialFunc = (&net.Dialer{}).DialContext
	config.ConnectTimeout = connectTimeout
	return pgx.ConnectConfig(ctx, config)
}
