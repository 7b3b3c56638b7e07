//go:build integration

package integration

import (
	"context"
	"fmt"
	"net/url"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
)

// TestScale grows and shrinks an application while a client writes. It runs on a
// machine that reaches pods.
func TestScale(t *testing.T) {
	m := newModel(t)
	m.deploy("--trust", "-n", "3")
	m.deployClient("app")
	ready := func(n int) func(application) bool {
		return func(a application) bool {
			names, active := primaries(a)
			return len(a.Units) == n && active && len(names) == 1
		}
	}
	m.waitFor("three units active, one Primary", 90*time.Second, ready(3))
	m.waitClient("app", "waiting", "no relation")
	m.integrate("app")

	w := m.startWriter("app")
	for _, n := range []int{5, 1, 3} {
		m.juju("scale-application", app, fmt.Sprint(n))
		m.waitFor(fmt.Sprintf("%d units active, one Primary", n), 4*time.Minute, ready(n))
		w.progress(t)
	}
	w.verify(t)
}

// verify ends the writing: each acknowledged row must be there, once.
func (w *writer) verify(t *testing.T) {
	t.Helper()
	acknowledged := w.stop()
	t.Logf("%d rows were acknowledged; the longest gap was %.1f s", len(acknowledged), w.worst.Seconds())
	rows := map[int]int{}
	err := w.query(func(conn *pgx.Conn) error {
		found, err := conn.Query(t.Context(), "SELECT n FROM written")
		if err != nil {
			return err
		}
		numbers, err := pgx.CollectRows(found, pgx.RowTo[int])
		for _, n := range numbers {
			rows[n]++
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	for _, n := range acknowledged {
		if rows[n] != 1 {
			t.Errorf("row %d is there %d times", n, rows[n])
		}
	}
}

// writer inserts numbers through what a client application was told last.
type writer struct {
	m      model
	client string
	user   *url.Userinfo
	base   string // database

	cancel context.CancelFunc
	done   sync.WaitGroup

	mu           sync.Mutex
	host         string
	acknowledged []int
	gap          time.Duration // the longest without a row since somebody asked
	worst        time.Duration // and of all
}

func (m model) startWriter(client string) *writer {
	m.t.Helper()
	told := m.action(client, "credentials")
	w := &writer{m: m, client: client, user: url.UserPassword(told["username"], told["password"]), base: told["database"], host: told["endpoints"]}
	if err := w.query(func(conn *pgx.Conn) error {
		_, err := conn.Exec(m.t.Context(), "CREATE TABLE written (n int)")
		return err
	}); err != nil {
		m.t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	w.cancel = cancel
	m.t.Cleanup(cancel)
	w.done.Go(func() { w.write(ctx) })
	return w
}

// write goes on until the context ends. A number whose outcome is not known is
// not tried again.
func (w *writer) write(ctx context.Context) {
	last := time.Now()
	for n := 0; ctx.Err() == nil; n++ {
		err := w.query(func(conn *pgx.Conn) error {
			for ; ctx.Err() == nil; n++ {
				limit, cancel := context.WithTimeout(ctx, 5*time.Second)
				_, err := conn.Exec(limit, "INSERT INTO written VALUES ($1)", n)
				cancel()
				if err != nil {
					return err
				}
				w.mu.Lock()
				w.acknowledged = append(w.acknowledged, n)
				w.gap = max(w.gap, time.Since(last))
				w.worst = max(w.worst, w.gap)
				w.mu.Unlock()
				last = time.Now()
				time.Sleep(10 * time.Millisecond)
			}
			return nil
		})
		if err == nil {
			return
		}
		w.look()
	}
}

// look reads the databag again, as a client does that is told of a change. Juju 4.1
// shows what the charm has told under the charm's unit.
func (w *writer) look() {
	out, err := w.m.try("juju", "show-unit", "-m", w.m.name, w.client+"/0", app+"/0", "--endpoint", "database")
	for _, line := range strings.Split(out, "\n") {
		if host, ok := strings.CutPrefix(strings.TrimSpace(line), "endpoints: "); ok && err == nil {
			w.mu.Lock()
			w.host = host
			w.mu.Unlock()
		}
	}
}

func (w *writer) query(do func(*pgx.Conn) error) error {
	w.mu.Lock()
	address := url.URL{Scheme: "postgresql", User: w.user, Host: w.host, Path: w.base, RawQuery: "sslmode=disable&connect_timeout=2"}
	w.mu.Unlock()
	conn, err := pgx.Connect(context.Background(), address.String())
	if err != nil {
		return err
	}
	defer func() { // the server may be gone without a word
		ctx, cancel := context.WithTimeout(context.Background(), time.Second)
		defer cancel()
		_ = conn.Close(ctx)
	}()
	return do(conn)
}

// progress waits for more rows.
func (w *writer) progress(t *testing.T) {
	t.Helper()
	count := func() int {
		w.mu.Lock()
		defer w.mu.Unlock()
		return len(w.acknowledged)
	}
	before := count()
	for end := time.Now().Add(30 * time.Second); count() < before+10; time.Sleep(100 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatal("the client writes no more")
		}
	}
}

// longest is the longest gap since it was asked for last.
func (w *writer) longest() time.Duration {
	w.mu.Lock()
	defer w.mu.Unlock()
	gap := w.gap
	w.gap = 0
	return gap
}

func (w *writer) stop() (acknowledged []int) {
	w.cancel()
	w.done.Wait()
	return w.acknowledged
}
