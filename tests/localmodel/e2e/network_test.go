//go:build localmodel

package e2e

import (
	"fmt"
	"os/exec"
	"slices"
	"strings"
	"testing"
	"time"

	"charmhub.io/postgresql-k8s/tests/localmodel/kubeapi"
	"charmhub.io/postgresql-k8s/tests/localmodel/node"
)

// away is how long a fault lasts here: longer than Patroni's lock, which runs out
// after 20 s.
const away = 30 * time.Second

// newCluster is a world with three units, two of which stream, and a table.
func newCluster(t *testing.T) *world {
	t.Helper()
	w := newWorld(t, nil)
	w.deploy(3)
	w.settle(3)
	w.psql(unit0, "CREATE TABLE kept (word text PRIMARY KEY)")
	w.streaming(unit0, 2)
	w.voters(2)
	return w
}

// voters waits until so many replicas are known to confirm commits. Before that
// none of them may become the primary: it might lack some.
func (w *world) voters(replicas int) {
	w.t.Helper()
	w.eventually(fmt.Sprint(replicas, " replicas that may succeed"), func() bool { return len(w.noted()) == replicas })
}

// noted are the members of which Patroni knows that they confirm commits.
func (w *world) noted() []string {
	endpoints := w.Store().Get("endpoints", w.Name(), "patroni-"+app+"-sync")
	meta, _ := endpoints["metadata"].(kubeapi.Object)
	annotations, _ := meta["annotations"].(kubeapi.Object)
	names, _ := annotations["sync_standby"].(string)
	return strings.FieldsFunc(names, func(r rune) bool { return r == ',' })
}

// keep writes a word, from a unit.
func (w *world) keep(from, word string) {
	w.t.Helper()
	w.psql(from, fmt.Sprintf("INSERT INTO kept VALUES ('%s') ON CONFLICT DO NOTHING", word))
}

// wantKept compares the words that are kept.
func (w *world) wantKept(from string, words ...string) {
	w.t.Helper()
	if got := w.psql(from, "SELECT string_agg(word, ',' ORDER BY word) FROM kept"); got != strings.Join(words, ",") {
		w.t.Errorf("%q is kept, want %q", got, words)
	}
}

// holder is the unit that has Patroni's lock, and another.
func (w *world) holder() (unit, other string) {
	endpoints := w.Store().Get("endpoints", w.Name(), "patroni-"+app)
	meta, _ := endpoints["metadata"].(kubeapi.Object)
	annotations, _ := meta["annotations"].(kubeapi.Object)
	holder := fmt.Sprint(annotations["leader"])
	for i := range 3 {
		if name := fmt.Sprintf("%s/%d", app, i); strings.ReplaceAll(name, "/", "-") == holder {
			unit = name
		} else {
			other = name
		}
	}
	return unit, other
}

// TestAPIServerAway takes the Kubernetes API from everybody: that is no reason for
// anything to restart or to stop writing.
func TestAPIServerAway(t *testing.T) {
	w := newCluster(t)
	before, _ := w.holder()
	w.keep(before, "a before")
	started := w.psql(before, "SELECT pg_postmaster_start_time(), inet_server_addr()")

	w.cluster.API().SetDown(true)
	for end := time.Now().Add(away); time.Now().Before(end); time.Sleep(time.Second) {
		if _, err := w.tryPsql(before, "INSERT INTO kept VALUES ('b during') ON CONFLICT (word) DO UPDATE SET word = excluded.word"); err != nil {
			t.Fatalf("%s before the end: %v", time.Until(end), err)
		}
	}
	w.cluster.API().SetDown(false)

	w.settle(3)
	w.streaming(before, 2)
	if now := w.psql(before, "SELECT pg_postmaster_start_time(), inet_server_addr()"); now != started {
		t.Errorf("the primary is %s, it was %s", now, started)
	}
	w.wantKept(before, "a before", "b during")
}

// TestParted parts the primary from a replica, while both reach everybody else.
func TestParted(t *testing.T) {
	w := newCluster(t)
	primary, replica := w.holder()
	pod, err := w.pod(primary)
	w.must(err)
	other, err := w.pod(replica)
	w.must(err)
	w.keep(primary, "a before")

	w.must(pod.Part(other.Pod))
	w.streaming(primary, 1)
	w.keep(primary, "b during")
	w.must(pod.Heal(other.Pod))

	w.streaming(primary, 2)
	w.settle(3)
	w.wantKept(primary, "a before", "b during")
}

// asked has somebody ask a unit's Patroni for the cluster again and again.
func (w *world) asked(unit string) (stop func()) {
	w.t.Helper()
	pod, err := w.pod(unit)
	w.must(err)
	cmd := exec.Command("/usr/bin/python3", "-c", `
import time, urllib.request
while True:
    try:
        urllib.request.urlopen("http://localhost:8008/cluster", timeout=5).read()
    except Exception:
        pass
    time.sleep(0.02)
`)
	cmd.Env = []string{"PATH=/usr/bin:/bin"}
	w.must(pod.Pod.Start(pod.Container("postgresql"), cmd))
	go func() { _ = cmd.Wait() }() // or its container could not end
	return func() { _ = cmd.Process.Kill() }
}

// TestCutOff cuts the primary off: another takes over, and the old one follows
// that when it is back, whatever it is asked meanwhile (patroni.py).
func TestCutOff(t *testing.T) {
	w := newCluster(t)
	var words []string
	for _, cut := range []node.Cut{{In: true, Out: true}, {In: true}, {Out: true}} {
		old, other := w.holder()
		pod, err := w.pod(old)
		w.must(err)
		w.must(pod.Cut(cut))
		w.must(w.CutAgent(old, true)) // it is behind the same cable
		stop := w.asked(old)
		w.eventually("another primary", func() bool {
			now, _ := w.holder()
			return now != old && now != ""
		})
		words = append(words, fmt.Sprintf("without %s %d", old, len(words)))
		w.keep(other, words[len(words)-1])
		w.eventually("the old primary has stopped", func() bool { // or it would say "read-only" when it is reached again
			return w.inWorkload(old, "/usr/lib/postgresql/17/bin/pg_isready -q -h /var/run/postgresql; echo $?") == "2\n"
		})
		w.must(pod.Mend())
		w.must(w.CutAgent(old, false))
		w.streaming(old, 2)
		stop()
		w.voters(2)
		w.settle(3)
		w.wantKept(old, slices.Sorted(slices.Values(words))...)
	}
}
