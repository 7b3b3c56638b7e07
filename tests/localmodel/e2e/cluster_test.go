//go:build localmodel

package e2e

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"charmhub.io/postgresql-k8s/charm/state"
	"charmhub.io/postgresql-k8s/tests/localmodel"
	"charmhub.io/postgresql-k8s/tests/localmodel/kubeapi"
	"charmhub.io/postgresql-k8s/tests/localmodel/node"
)

// primary is the unit that shows Primary.
func (w *world) primary() string {
	w.t.Helper()
	var found []string
	for _, u := range w.Status().App(app).Units {
		if u.Workload.Message == state.MessagePrimary {
			found = append(found, u.Name)
		}
	}
	if len(found) != 1 {
		w.t.Fatalf("the primaries are %v", found)
	}
	return found[0]
}

// write adds a row and expects as many as were added in all.
func (w *world) write(unit string, rows int) {
	w.t.Helper()
	w.psql(unit, "CREATE TABLE IF NOT EXISTS kept (n int); INSERT INTO kept VALUES ("+strconv.Itoa(rows)+")")
	if got := w.psql(unit, "SELECT count(*) FROM kept"); got != strconv.Itoa(rows) {
		w.t.Fatalf("there are %s rows, want %d", got, rows)
	}
}

func (w *world) streaming(unit string, replicas int) {
	w.t.Helper()
	var out string
	var err error
	defer func() {
		if w.t.Failed() {
			w.t.Logf("last seen: %s (%v)", out, err)
		}
	}()
	w.eventually(fmt.Sprint(replicas, " streaming replicas"), func() bool {
		out, err = w.tryPsql(unit, "SELECT application_name, state FROM pg_stat_replication")
		return err == nil && strings.Count(out, "|streaming") == replicas
	})
}

// TestScaling removes the primary's unit with most others, and brings them back on
// the volumes that they left behind.
func TestScaling(t *testing.T) {
	w := newWorld(t, nil)
	w.deploy(3)
	w.settle(3)
	w.write(app+"/0", 1)
	w.must(w.AddUnit(app, 2))
	w.settle(5)
	w.streaming(app+"/0", 4)
	w.write(app+"/4", 2)

	if w.primary() == app+"/0" { // the one that stays
		w.failOver(app+"/0", 5)
	}
	w.must(w.RemoveUnit(app, 4))
	w.wait("one unit", func(s localmodel.Status) bool { return s.Settled(app, 1) && len(s.App(app).Units) == 1 })
	w.eventually("the primary here", func() bool { return w.Status().App(app).Units[0].Workload.Message == state.MessagePrimary })
	w.write(app+"/0", 3)

	w.must(w.AddUnit(app, 2))
	w.settle(3)
	w.streaming(app+"/0", 2)
	w.write(app+"/2", 4)
	w.eventually("one of both replicas confirms commits", func() bool { // Patroni chooses them in its next loop
		sync, err := w.tryPsql(app+"/0", "SHOW synchronous_standby_names")
		return err == nil && strings.HasPrefix(sync, "ANY 1 (") && strings.Count(sync, app) == 2
	})
}

// failOver ends the pod of the primary, and waits until all is well with another.
func (w *world) failOver(from string, units int) {
	w.t.Helper()
	w.must(w.KillPod(from))
	w.wait("another primary", func(s localmodel.Status) bool {
		return s.Settled(app, units) && slices.ContainsFunc(s.App(app).Units, func(u localmodel.UnitStatus) bool {
			return u.Workload.Message == state.MessagePrimary && u.Name != from
		})
	})
}

// TestMissedPromotions brings a member back that has missed a switchover and then a
// crash, both within one segment of the write-ahead log.
func TestMissedPromotions(t *testing.T) {
	w := newWorld(t, nil)
	w.deploy(4)
	w.settle(4)
	w.voters(3)
	if w.primary() == app+"/3" {
		w.act(unit0, "promote-to-primary", map[string]any{"scope": "unit"})
		w.settle(4)
	}
	w.must(w.RemoveUnit(app, 1))
	w.settle(3)
	w.voters(2)
	from := w.primary()
	to := unit0
	if from == unit0 {
		to = app + "/1"
	}
	w.act(to, "promote-to-primary", map[string]any{"scope": "unit"})
	w.settle(3)
	w.voters(2)
	w.failOver(to, 3)
	w.must(w.AddUnit(app, 1))
	w.settle(4)
	w.streaming(unit0, 3)
}

// TestZeroAndBack scales to nothing and back: the volumes are what is left.
func TestZeroAndBack(t *testing.T) {
	w := newWorld(t, nil)
	w.deploy(3)
	w.settle(3)
	w.write(app+"/0", 1)
	w.must(w.RemoveUnit(app, 3))
	w.wait("no units", func(s localmodel.Status) bool { return len(s.App(app).Units) == 0 })
	w.must(w.AddUnit(app, 3))
	w.settle(3)
	w.write(app+"/0", 2)
	w.streaming(app+"/0", 2)
}

// TestStatefulSetIsMadeAnew takes the StatefulSet away from its pods and makes it
// again, as Juju does to resize storage: what nobody owns meanwhile is not a left-over.
func TestStatefulSetIsMadeAnew(t *testing.T) {
	w := newWorld(t, nil)
	w.deploy(2)
	w.settle(2)
	w.voters(1)
	w.write(unit0, 1)
	primary, timeline := w.primary(), w.timeline()
	lock := w.Store().Get("endpoints", w.Name(), "patroni-"+app)
	orphan := func(object kubeapi.Object) (kubeapi.Object, error) {
		meta, _ := object["metadata"].(kubeapi.Object)
		delete(meta, "ownerReferences")
		return object, nil
	}
	for _, resource := range []string{"pods", "endpoints", "services"} {
		all, _ := w.Store().List(resource, w.Name(), func(kubeapi.Object) bool { return true })
		for _, object := range all {
			meta, _ := object["metadata"].(kubeapi.Object)
			_, err := w.Store().Change(resource, w.Name(), fmt.Sprint(meta["name"]), orphan)
			w.must(err)
		}
	}
	set, err := w.Store().Delete("statefulsets", w.Name(), app, nil)
	w.must(err)
	time.Sleep(2 * time.Second) // it must not be of the same second as what is older
	meta, _ := set["metadata"].(kubeapi.Object)
	set["metadata"] = kubeapi.Object{"name": app, "labels": meta["labels"]}
	_, err = w.Store().Create("statefulsets", w.Name(), set)
	w.must(err)

	w.eventually("Patroni's objects are owned again", func() bool {
		for _, suffix := range []string{"", "-config", "-sync"} {
			meta, _ := w.Store().Get("endpoints", w.Name(), "patroni-"+app+suffix)["metadata"].(kubeapi.Object)
			if owners, _ := meta["ownerReferences"].([]any); len(owners) == 0 {
				return false
			}
		}
		return true
	})
	w.settle(2)
	w.write(unit0, 2)
	now := w.Store().Get("endpoints", w.Name(), "patroni-"+app)
	if was, is := lock["metadata"].(kubeapi.Object)["uid"], now["metadata"].(kubeapi.Object)["uid"]; was != is {
		t.Error("Patroni's lock was deleted")
	}
	if w.primary() != primary || w.timeline() != timeline {
		t.Errorf("the primary is %s on timeline %d, it was %s on %d", w.primary(), w.timeline(), primary, timeline)
	}
}

// volume is the directory of the newest volume.
func volume(t *testing.T) string {
	t.Helper()
	found, err := filepath.Glob(filepath.Join(node.Dir, "m", "storage", "pgdata", "*"))
	if err != nil || len(found) == 0 {
		t.Fatalf("there are no volumes: %v", err)
	}
	return found[len(found)-1]
}

// newPair is a world with two units, of which the first is the primary.
func newPair(t *testing.T) *world {
	t.Helper()
	w := newWorld(t, nil)
	w.deploy(1)
	w.settle(1)
	w.must(w.AddUnit(app, 1))
	w.settle(2)
	return w
}

// TestThePrimaryLeaves removes a unit that has only just become the primary: no
// other has every commit yet, and the last one must not stay behind without it.
func TestThePrimaryLeaves(t *testing.T) {
	w := newPair(t)
	w.voters(1)
	w.write(app+"/0", 1)
	w.act(app+"/1", "promote-to-primary", map[string]any{"scope": "unit"})
	w.must(w.RemoveUnit(app, 1))
	w.wait("one unit", func(s localmodel.Status) bool { return len(s.App(app).Units) == 1 && s.Settled(app, 1) })
	w.write(app+"/0", 2)
	if primary := w.primary(); primary != app+"/0" {
		t.Errorf("the primary is %s", primary)
	}
}

// TestThePrimaryIsGone removes the primary's unit while the other cannot take over,
// and brings it back: the local model attaches the volume of that number again.
func TestThePrimaryIsGone(t *testing.T) {
	w := newPair(t)
	w.voters(1)
	w.act(app+"/1", "promote-to-primary", map[string]any{"scope": "unit"})
	w.eventually("it to be followed", func() bool { return slices.Equal(w.noted(), []string{app + "-0"}) })
	back := w.away(app + "/0")
	w.voters(0)
	// Where the charm has turned on synchronous_mode_strict, nobody would confirm it.
	w.psql(app+"/1", "SET synchronous_commit = local; CREATE TABLE kept (n int); INSERT INTO kept VALUES (1)")
	w.must(w.RemoveUnit(app, 1))
	w.wait("one unit", func(s localmodel.Status) bool { return len(s.App(app).Units) == 1 })
	back()
	w.wait("the cause and the cure", func(s localmodel.Status) bool {
		return s.App(app).Units[0].Workload.Status == "blocked" && s.App(app).Units[0].Workload.Message == state.MessageLost(app, app+"/1")
	})
	w.must(w.AddUnit(app, 1))
	w.settle(2)
	w.write(app+"/0", 2)
}

// TestForeignVolume gives a unit a volume with the data of another cluster.
func TestForeignVolume(t *testing.T) {
	w := newPair(t)
	w.must(w.RemoveUnit(app, 1))
	w.wait("one unit", func(s localmodel.Status) bool { return s.Settled(app, 1) && len(s.App(app).Units) == 1 })
	control := filepath.Join(volume(t), "pgdata/global/pg_control")
	data, err := os.ReadFile(control)
	w.must(err)
	binary.NativeEndian.PutUint64(data, 7000000000000000001) // it begins with the system identifier
	w.must(os.WriteFile(control, data, 0o600))
	w.must(w.AddUnit(app, 1))
	w.wait("refusal", func(s localmodel.Status) bool {
		units := s.App(app).Units
		return len(units) == 2 && units[1].Workload.Status == "blocked" && units[1].Workload.Message == state.MessageForeign
	})
	w.write(app+"/0", 1)
	if now, err := os.ReadFile(control); err != nil || !bytes.Equal(now, data) {
		t.Errorf("the foreign data were touched: %v", err)
	}
}

// pair deploys two units that have a row; the primary has a file "odd" among its data.
func (w *world) pair() (primary, replica string) {
	w.t.Helper()
	w.deploy(2)
	w.settle(2)
	w.write(unit0, 1)
	primary, replica = w.primary(), unit0
	if primary == replica {
		replica = app + "/1"
	}
	w.inWorkload(primary, "touch "+state.DataDir+"/odd")
	return primary, replica
}

// away stops a unit's server, and its charm, which would start that again.
func (w *world) away(unit string) (back func()) {
	w.t.Helper()
	pod, err := w.pod(unit)
	w.must(err)
	charm := pod.Container("charm")
	w.must(charm.Freeze())
	w.inWorkload(unit, "pebble stop postgresql")
	return func() {
		w.t.Helper()
		w.must(charm.Thaw())
		w.inWorkload(unit, "pebble start postgresql")
	}
}

// copied waits until a replica's data, in which there was a file "mine", are those of
// the primary of the pair, and nothing else is left on its volume.
func (w *world) copied(primary, replica string) {
	w.t.Helper()
	w.eventually("a copy", func() bool {
		return w.inWorkload(replica, "cd "+state.DataDir+" && test -f odd -a ! -e mine && echo yes || true") == "yes\n"
	})
	w.settle(2)
	w.streaming(primary, 1)
	w.write(primary, 2)
	if left := w.inWorkload(replica, "ls "+state.Mount); strings.Contains(left, "clone") {
		w.t.Errorf("there is still %s", left)
	}
}

// TestDivergedMember makes a replica's data diverge in a way that pg_rewind gives
// up on, a file of another kind than the source's, and looks whether the data are
// replaced by a copy.
func TestDivergedMember(t *testing.T) {
	w := newWorld(t, nil)
	primary, replica := w.pair()
	back := w.away(replica)
	// A timeline of its own is what makes it diverge.
	w.inWorkload(replica, `cd /tmp && pg_ctl() {
		runuser -u postgres -- /usr/lib/postgresql/17/bin/pg_ctl -w -D `+state.DataDir+` -o '-p 5599' -l /dev/null "$@"
	}; pg_ctl start && pg_ctl promote && pg_ctl stop && cd `+state.DataDir+` && mkdir odd && touch mine`)
	back()
	w.copied(primary, replica)
}

// TestForgottenReplica has a replica away until the primary has thrown away the WAL
// that it needs: it is copied anew, and nobody has to ask for that.
func TestForgottenReplica(t *testing.T) {
	w := newWorld(t, nil)
	primary, replica := w.pair()
	back := w.away(replica)
	w.inWorkload(replica, "touch "+state.DataDir+"/mine")
	needed := strings.TrimSpace(w.psql(primary, "SELECT pg_walfile_name(pg_current_wal_insert_lsn())"))
	w.psql(primary, "ALTER SYSTEM SET wal_keep_size = 0")
	w.psql(primary, "SELECT pg_reload_conf()")
	w.eventually(needed+" is gone", func() bool {
		w.psql(primary, "SELECT pg_drop_replication_slot(slot_name) FROM pg_replication_slots WHERE NOT active")
		w.psql(primary, "SELECT pg_logical_emit_message(false, 'test', 'wal'); SELECT pg_switch_wal(); CHECKPOINT")
		return w.psql(primary, "SELECT count(*) FROM pg_ls_waldir() WHERE name = '"+needed+"'") == "0"
	})
	back()
	w.copied(primary, replica)
}

// TestSmallVolume writes more than two volumes of a gigabyte have room for, while the
// replica is away; then it fills one of them.
func TestSmallVolume(t *testing.T) {
	w := newWorld(t, nil)
	for _, storage := range []string{"0", "1"} {
		volume := filepath.Join(node.Dir, "m", "storage", "pgdata", storage)
		w.must(os.MkdirAll(volume, 0o755))
		w.must(syscall.Mount("volume", volume, "tmpfs", 0, "size=1g"))
		t.Cleanup(func() { w.must(syscall.Unmount(volume, syscall.MNT_DETACH)) })
	}
	primary, replica := w.pair()
	started := w.psql(primary, "SELECT pg_postmaster_start_time()")
	back := w.away(replica)
	w.inWorkload(replica, "touch "+state.DataDir+"/mine")
	for range 20 {
		w.psql(primary, "SELECT count(pg_logical_emit_message(false, 'test', repeat('x', 1000000))) FROM generate_series(1, 100)")
	}
	back()
	w.copied(primary, replica)
	w.eventually("a slot that keeps WAL", func() bool {
		return w.psql(primary, "SELECT wal_status, active FROM pg_replication_slots") == "reserved|t"
	})
	if now := w.psql(primary, "SELECT pg_postmaster_start_time()"); now != started {
		t.Errorf("the server was started at %s, and again at %s", started, now)
	}

	w.inWorkload(primary, "cd "+state.Mount+` && fallocate -l $(($(stat -f -c "%a * %S" .) - 50000000)) ballast`)
	w.shows(primary, "blocked", state.MessageFull)
	w.inWorkload(primary, "rm "+state.Mount+"/ballast")
	w.settle(2)
}

// inWorkload runs a command in a unit's workload container.
func (w *world) inWorkload(unit, command string) string {
	w.t.Helper()
	pod, err := w.pod(unit)
	w.must(err)
	var out bytes.Buffer
	cmd := exec.Command("/bin/bash", "-c", command)
	cmd.Env = []string{"PATH=/charm/bin:/usr/sbin:/usr/bin:/sbin:/bin", "PEBBLE_SOCKET=/charm/container/pebble.socket"}
	cmd.Stdout, cmd.Stderr = &out, &out
	if err := pod.Pod.Start(pod.Container("postgresql"), cmd); err != nil {
		w.t.Fatal(err)
	}
	if err := cmd.Wait(); err != nil {
		w.t.Fatalf("%s on %s: %v\n%s", command, unit, err, out.String())
	}
	return out.String()
}
