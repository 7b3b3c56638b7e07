package postgres

import (
	"errors"
	"strings"
	"testing"
	"time"

	"charmhub.io/postgresql-k8s/charm/state"
)

// wait has each commit wait for a replica, or for none, and returns when it does: the
// processes of the server hear of a setting one after the other.
func (w *world) wait(t *testing.T, replica string) {
	t.Helper()
	do(t, w.operator(t, "postgres"), "ALTER SYSTEM SET synchronous_standby_names = "+literal(replica), "SELECT pg_reload_conf()")
	for end := time.Now().Add(10 * time.Second); ; {
		s := New(w.connect)
		s.server, s.quick = w.server(), 100*time.Millisecond
		c, err := s.conn(t.Context(), "postgres")
		check(t, err)
		err = s.change(t.Context(), c, "SELECT pg_logical_emit_message(true, 'test', 'a commit')")
		s.Close(t.Context())
		switch {
		case (replica != "") == errors.Is(err, state.ErrUnconfirmed):
			return
		case time.Now().After(end):
			t.Fatalf("commits do not wait for %q: %v", replica, err)
		}
	}
}

// TestACommitThatNoReplicaConfirmsIsNotWaitedForLong lets each commit wait for a
// replica that never comes. A System of its own is what each dispatch has.
func TestACommitThatNoReplicaConfirmsIsNotWaitedForLong(t *testing.T) {
	t.Parallel()
	w := newServer(t, "wal_level=replica", "max_wal_senders=2")
	w.settle(t)
	c := w.operator(t, "postgres")
	wait := func(replica string) { w.wait(t, replica) }
	start := time.Now()
	dispatch := func() (*System, []state.Step, error) {
		s := New(w.connect)
		s.quick = 300 * time.Millisecond
		t.Cleanup(func() { s.Close(t.Context()) })
		steps, err := w.pass(t.Context(), s)
		return s, steps, err
	}
	// until makes dispatches that wait, until one has nothing left to do.
	until := func() (dispatches int) {
		for {
			_, steps, err := dispatch()
			if dispatches++; len(steps) == 0 {
				return dispatches
			}
			if err != nil && !errors.Is(err, state.ErrUnconfirmed) || dispatches == 20 {
				t.Fatalf("dispatch %d: %v", dispatches, err)
			}
		}
	}
	wait("nobody")
	w.relate(1, "first", "")
	s, steps, err := dispatch()
	if !errors.Is(err, state.ErrUnconfirmed) || err.Error() != "cannot create role first: no replica has confirmed the commit in time" {
		t.Fatalf("the error is %v", err)
	}
	expect(t, c, "SELECT rolname FROM pg_roles WHERE rolname = 'first'", "first")
	again, err := w.pass(t.Context(), s)
	if len(again) != len(steps) || !errors.Is(err, state.ErrUnconfirmed) {
		t.Errorf("the same dispatch sees what it must not rely on: the steps are %v, the error is %v", again, err)
	}
	if n := until(); n < 3 {
		t.Errorf("it took %d dispatches only: did anything wait?", n)
	}
	w.relations = map[int]*client{}
	until()
	expect(t, c, "SELECT rolname FROM pg_roles WHERE rolname ~ '^relation_id_'")
	if took := time.Since(start); took > time.Minute {
		t.Errorf("it took %s", took)
	}
	wait("")
	w.relate(1, "first", "")
	w.settle(t)
	w.login(t, 1)
}

// What an earlier dispatch has committed and not waited for may be on the primary
// alone: clients are told of it when a replica has it.
func TestWhatNoReplicaHasIsNotReliedUpon(t *testing.T) {
	t.Parallel()
	w := newServer(t, "wal_level=replica", "max_wal_senders=2")
	w.settle(t)
	for _, test := range []struct {
		digest, replica string
		want            bool
	}{
		{state.PendingDigest, "nobody", true},
		{"served", "nobody", false}, // nobody is waited for
		{state.PendingDigest, "", false},
	} {
		w.wait(t, test.replica)
		s := New(w.connect)
		s.quick = 300 * time.Millisecond
		obs := w.observed()
		obs.Clients = map[int]state.Client{7: {App: "shop", Digest: test.digest}}
		check(t, s.Observe(t.Context(), &obs))
		catalog, known := obs.Database.Get()
		if s.Close(t.Context()); !known || catalog.Unconfirmed != test.want {
			t.Errorf("%q with %q: unconfirmed %t, known %t: %s", test.digest, test.replica, catalog.Unconfirmed, known, obs.Database.Why())
		}
	}
}

func TestAStatementThatTakesTooLongIsCancelled(t *testing.T) {
	t.Parallel()
	w := newServer(t)
	c := w.operator(t, "postgres")
	s := New(w.connect)
	s.server, s.quick = w.server(), 200*time.Millisecond
	defer s.Close(t.Context())
	mine, err := s.conn(t.Context(), "postgres")
	check(t, err)
	start := time.Now()
	err = s.change(t.Context(), mine, "SELECT pg_sleep(60)")
	if err == nil || !strings.Contains(err.Error(), "canceling statement") || time.Since(start) > 30*time.Second {
		t.Errorf("after %s the error is %v", time.Since(start), err)
	}
	expect(t, c, "SELECT query FROM pg_stat_activity WHERE state = 'active' AND pid <> pg_backend_pid()")
	check(t, s.change(t.Context(), mine, "SELECT 1")) // and the connection is as good as before
}
