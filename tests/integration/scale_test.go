//go:build integration

package integration

import (
	"context"
	"fmt"
	"net"
	"os/exec"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"charmhub.io/postgresql-k8s/tests/writer"
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
	m.waitFor("three units active, one Primary", 3*time.Minute, ready(3))
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

// rows is a writer through what a client application was told last.
type rows struct {
	*writer.Writer
	stop func()
	seen time.Time // until when longest has looked
}

func (m model) startWriter(client string) *rows {
	m.t.Helper()
	told := m.action(client, "credentials")
	login := writer.Login{Names: net.DefaultResolver, Username: told["username"], Password: told["password"], Database: told["database"]}
	var address atomic.Value
	address.Store(told["endpoints"])
	w := &writer.Writer{Name: "rows", Dial: login.Dial, Address: func(context.Context) (string, error) { return address.Load().(string), nil }}
	if err := w.Create(m.t.Context()); err != nil {
		m.t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(m.t.Context())
	var done sync.WaitGroup
	stop := func() { cancel(); done.Wait() }
	m.t.Cleanup(stop)
	done.Go(func() { w.Run(ctx) })
	done.Go(func() {
		for ctx.Err() == nil {
			if now := m.endpoints(ctx, client); now != "" {
				address.Store(now)
			}
			time.Sleep(300 * time.Millisecond)
		}
	})
	return &rows{w, stop, time.Now()}
}

// endpoints are what the client is told now. Juju 4.1 shows what the charm has told
// under the charm's unit.
func (m model) endpoints(ctx context.Context, client string) string {
	out, err := exec.CommandContext(ctx, "juju", "show-unit", "-m", m.name, client+"/0", app+"/0", "--endpoint", "database").Output()
	for line := range strings.Lines(string(out)) {
		if host, ok := strings.CutPrefix(strings.TrimSpace(line), "endpoints: "); ok && err == nil {
			return host
		}
	}
	return ""
}

// progress waits for more rows.
func (r *rows) progress(t *testing.T) {
	t.Helper()
	for start := time.Now(); !r.Wrote(start); time.Sleep(100 * time.Millisecond) {
		if time.Since(start) > 30*time.Second {
			t.Fatal("the client writes no more")
		}
	}
}

// longest is the longest gap since it was asked for last.
func (r *rows) longest() time.Duration {
	acks, _ := r.Record()
	from := r.seen
	r.seen = time.Now()
	return writer.Gap(acks, from, r.seen)
}

// verify ends the writing: each acknowledged row must be there, once.
func (r *rows) verify(t *testing.T) {
	t.Helper()
	r.stop()
	acks, _ := r.Record()
	t.Logf("%d rows were acknowledged; pauses of more than 0.5 s: %v", len(acks), writer.Pauses(acks, 500*time.Millisecond))
	address, err := r.Address(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	conn, err := r.Dial(t.Context(), address)
	if err != nil {
		t.Fatal(err)
	}
	defer writer.HangUp(conn)
	count, err := r.Count(t.Context(), conn)
	if err != nil || len(count.Lost)+len(count.Duplicated) > 0 {
		t.Errorf("lost are %v, twice are %v: %v", count.Lost, count.Duplicated, err)
	}
}
