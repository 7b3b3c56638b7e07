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
	address func(context.Context) (string, error)            // where to write, as it is told now
	dial    func(context.Context, string) (*pgx.Conn, error) // logs in there
	note    func(who, text string)                           // for the journal

	mu       sync.Mutex
	at       string // the address of the session
	abandon  context.CancelFunc
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
	go w.follow(ctx)
	for ctx.Err() == nil {
		session, end := context.WithCancel(ctx)
		w.mu.Lock()
		w.abandon = end
		w.mu.Unlock()
		w.session(session)
		end()
		pause(ctx, again)
	}
}

// session connects and writes until that fails.
func (w *writer) session(ctx context.Context) {
	conn, err := w.connect(ctx)
	if err != nil {
		w.failed("cannot connect", err)
		return
	}
	defer hangUp(conn)
	w.note(w.name, "connected to "+conn.PgConn().Conn().RemoteAddr().String())
	for ctx.Err() == nil {
		if err := w.insert(ctx, conn); err != nil {
			w.failed("cannot insert", err)
			return
		}
		pause(ctx, rhythm)
	}
}

func (w *writer) connect(ctx context.Context) (*pgx.Conn, error) {
	ctx, cancel := context.WithTimeout(ctx, connectTimeout)
	defer cancel()
	address, err := w.address(ctx)
	if err != nil {
		return nil, err
	}
	w.mu.Lock()
	w.at = address
	w.mu.Unlock()
	return w.dial(ctx, address)
}

// follow ends the session when the address changes: a good client does not wait for
// an address where nobody is left when it has been told of another.
func (w *writer) follow(ctx context.Context) {
	for pause(ctx, look) {
		now, err := w.address(ctx)
		w.mu.Lock()
		if err == nil && w.at != "" && now != w.at {
			w.abandon()
		}
		w.mu.Unlock()
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

// throughEndpoints logs in with the client's credentials at a host and port.
func throughEndpoints(w world, credentials map[string]string) func(context.Context, string) (*pgx.Conn, error) {
	return func(ctx context.Context, endpoint string) (*pgx.Conn, error) {
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
}

// throughURIs logs in by a URI.
func throughURIs(w world) func(context.Context, string) (*pgx.Conn, error) {
	return func(ctx context.Context, uri string) (*pgx.Conn, error) {
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
