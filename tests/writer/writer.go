// Package writer is a client that writes while things break, and remembers every
// acknowledgement: the tests ask it how long nobody could write, and look for each
// acknowledged row.
package writer

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
	look             = 50 * time.Millisecond  // between two looks at the address
	readOnlyCode     = "25006"                // read_only_sql_transaction
)

// A Writer inserts increasing numbers into a table of its own, one after the
// other, each once: what became of an insert that was cut off nobody knows, and
// its number is not used again.
type Writer struct {
	Name    string                                           // in Table and for Note
	Address func(context.Context) (string, error)            // where to write, as it is told now; cheap
	Dial    func(context.Context, string) (*pgx.Conn, error) // logs in there
	Note    func(who, text string)                           // for a journal; may be nil

	mu       sync.Mutex
	at       string // the address of the session
	abandon  context.CancelFunc
	acks     []Ack
	failures []Failure
	last     int64
}

// An Ack is a number of which the server has said that it is in the table.
type Ack struct {
	N  int64
	At time.Time
}

// A Failure is an error that the writer saw.
type Failure struct {
	At       time.Time
	Text     string
	ReadOnly bool // the server takes no writes
}

// Table is where the writer writes: its column n has the numbers.
func (w *Writer) Table() string { return "written_" + w.Name }

// Create makes the table. It has no key: a number that is there twice must show.
func (w *Writer) Create(ctx context.Context) error {
	conn, err := w.connect(ctx)
	for end := time.Now().Add(time.Minute); err != nil; conn, err = w.connect(ctx) {
		if time.Now().After(end) || !pause(ctx, time.Second) { // the Service may have no ready pod yet
			return fmt.Errorf("cannot connect through %s: %w", w.Name, err)
		}
	}
	defer conn.Close(ctx)
	_, err = conn.Exec(ctx, "CREATE TABLE "+w.Table()+" (n bigint, at timestamptz DEFAULT clock_timestamp())")
	return err
}

// Run writes until the context ends.
func (w *Writer) Run(ctx context.Context) {
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
func (w *Writer) session(ctx context.Context) {
	conn, err := w.connect(ctx)
	if err != nil {
		w.failed("cannot connect", err)
		return
	}
	defer HangUp(conn)
	w.note("connected to " + conn.PgConn().Conn().RemoteAddr().String())
	for ctx.Err() == nil {
		if err := w.insert(ctx, conn); err != nil {
			w.failed("cannot insert", err)
			return
		}
		pause(ctx, rhythm)
	}
}

func (w *Writer) connect(ctx context.Context) (*pgx.Conn, error) {
	ctx, cancel := context.WithTimeout(ctx, connectTimeout)
	defer cancel()
	address, err := w.Address(ctx)
	if err != nil {
		return nil, err
	}
	w.mu.Lock()
	w.at = address
	w.mu.Unlock()
	return w.Dial(ctx, address)
}

// follow ends the session when the address changes: a good client does not wait for
// an address where nobody is left when it has been told of another.
func (w *Writer) follow(ctx context.Context) {
	for pause(ctx, look) {
		now, err := w.Address(ctx)
		w.mu.Lock()
		if err == nil && w.at != "" && now != w.at {
			w.abandon()
		}
		w.mu.Unlock()
	}
}

func (w *Writer) insert(ctx context.Context, conn *pgx.Conn) error {
	w.mu.Lock()
	w.last++
	n := w.last
	w.mu.Unlock()
	ctx, cancel := context.WithTimeout(ctx, statementTimeout)
	defer cancel()
	if _, err := conn.Exec(ctx, "INSERT INTO "+w.Table()+" VALUES ($1)", pgx.QueryExecModeExec, n); err != nil {
		return err
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	w.acks = append(w.acks, Ack{n, time.Now()})
	return nil
}

func (w *Writer) failed(what string, err error) {
	var server *pgconn.PgError
	f := Failure{At: time.Now(), Text: what + ": " + err.Error()}
	f.ReadOnly = errors.As(err, &server) && server.Code == readOnlyCode
	w.mu.Lock()
	isNew := len(w.failures) == 0 || w.failures[len(w.failures)-1].Text != f.Text
	w.failures = append(w.failures, f)
	w.mu.Unlock()
	if isNew {
		w.note(f.Text)
	}
}

func (w *Writer) note(text string) {
	if w.Note != nil {
		w.Note(w.Name, text)
	}
}

// Record returns what the writer has seen so far.
func (w *Writer) Record() ([]Ack, []Failure) {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.acks[:len(w.acks):len(w.acks)], w.failures[:len(w.failures):len(w.failures)]
}

// Wrote tells whether a write was acknowledged since then.
func (w *Writer) Wrote(since time.Time) bool {
	acks, _ := w.Record()
	return len(acks) > 0 && acks[len(acks)-1].At.After(since)
}

// Count compares the table, as a connection sees it, with what was acknowledged before.
func (w *Writer) Count(ctx context.Context, conn *pgx.Conn) (Count, error) {
	acks, _ := w.Record()
	found, err := conn.Query(ctx, "SELECT n FROM "+w.Table())
	if err != nil {
		return Count{}, err
	}
	rows, err := pgx.CollectRows(found, pgx.RowTo[int64])
	return compare(acks, rows), err
}

// A Login is what a relation gave, and who knows the names in it.
type Login struct {
	Names                        *net.Resolver
	Username, Password, Database string
}

// Dial logs in at a host and port, as in endpoints.
func (l Login) Dial(ctx context.Context, endpoint string) (*pgx.Conn, error) {
	host, port, err := net.SplitHostPort(endpoint)
	if err != nil {
		return nil, err
	}
	config, err := pgx.ParseConfig("sslmode=disable port=" + port)
	if err != nil {
		return nil, err
	}
	config.Host, config.User, config.Password, config.Database = host, l.Username, l.Password, l.Database
	return l.dial(ctx, config)
}

// DialURI logs in by a URI, as in uris, which says all but who knows the names.
func (l Login) DialURI(ctx context.Context, uri string) (*pgx.Conn, error) {
	config, err := pgx.ParseConfig(uri)
	if err != nil {
		return nil, err
	}
	config.TLSConfig, config.Fallbacks = nil, nil
	return l.dial(ctx, config)
}

func (l Login) dial(ctx context.Context, config *pgx.ConnConfig) (*pgx.Conn, error) {
	config.LookupFunc = func(ctx context.Context, host string) ([]string, error) {
		ips, err := l.Names.LookupHost(ctx, host)
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

// HangUp closes a connection without waiting for a server that may not answer.
func HangUp(conn *pgx.Conn) {
	go func() {
		ctx, cancel := context.WithTimeout(context.Background(), time.Second)
		defer cancel()
		_ = conn.Close(ctx)
	}()
}

// pause waits, and tells whether the context goes on.
func pause(ctx context.Context, wait time.Duration) bool {
	select {
	case <-time.After(wait):
		return true
	case <-ctx.Done():
		return false
	}
}
