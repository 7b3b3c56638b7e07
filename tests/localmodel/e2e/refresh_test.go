//go:build localmodel

package e2e

import (
	"context"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"charmhub.io/postgresql-k8s/charm/state"
	"charmhub.io/postgresql-k8s/tests/localmodel"
	"charmhub.io/postgresql-k8s/tests/localmodel/kubeapi"
	"charmhub.io/postgresql-k8s/tests/localmodel/node"
	"charmhub.io/postgresql-k8s/tests/writer"
)

// writers write through what a related application is told: addresses, and names.
type writers struct {
	*world
	login writer.Login
	all   []*writer.Writer
	stop  func()
}

func (w *world) startWriters(s *localmodel.Stub) *writers {
	w.t.Helper()
	reply := map[string]string{}
	w.eventually("credentials", func() bool {
		bag, err := s.Answer()
		if err != nil || bag["secret-user"] == "" || bag["endpoints"] == "" {
			return false
		}
		reply, err = s.Secret(bag["secret-user"])
		return err == nil && reply["uris"] != ""
	})
	names := &net.Resolver{PreferGo: true, Dial: func(ctx context.Context, network, _ string) (net.Conn, error) {
		return new(net.Dialer).DialContext(ctx, network, node.Gateway.String()+":53")
	}}
	login := writer.Login{Names: names, Username: reply["username"], Password: reply["password"], Database: "shop"}
	endpoints := func(context.Context) (string, error) {
		bag, err := s.Answer()
		return bag["endpoints"], err
	}
	all := &writers{world: w, login: login, all: []*writer.Writer{
		{Name: "endpoints", Address: endpoints, Dial: login.Dial},
		{Name: "uris", Address: func(context.Context) (string, error) { return reply["uris"], nil }, Dial: login.DialURI},
	}}
	ctx, cancel := context.WithCancel(w.t.Context())
	var done sync.WaitGroup
	all.stop = func() { cancel(); done.Wait() }
	w.t.Cleanup(all.stop)
	for _, one := range all.all {
		w.must(one.Create(ctx))
		done.Go(func() { one.Run(ctx) })
	}
	return all
}

// end stops the writers, and wants every acknowledged row once.
func (a *writers) end() {
	a.t.Helper()
	a.stop()
	for _, one := range a.all {
		address, err := one.Address(a.t.Context())
		a.must(err)
		conn, err := one.Dial(a.t.Context(), address)
		a.must(err)
		count, err := one.Count(a.t.Context(), conn)
		a.must(err)
		writer.HangUp(conn)
		acks, _ := one.Record()
		a.t.Logf("through %s: %d rows acknowledged; pauses of more than 0.5 s: %v", one.Name, len(acks), writer.Pauses(acks, 500*time.Millisecond))
		if len(count.Lost)+len(count.Duplicated) > 0 {
			a.t.Errorf("through %s rows %v are lost and %v are there twice", one.Name, count.Lost, count.Duplicated)
		}
	}
}

// timeline counts promotions.
func (w *world) timeline() int {
	w.t.Helper()
	n, err := strconv.Atoi(w.psql(unit0, "SELECT timeline_id FROM pg_control_checkpoint()"))
	w.must(err)
	return n
}

// anotherCharm is the charm as another file, and anotherImage the image as another
// directory, changed.
func (w *world) anotherCharm() string {
	w.t.Helper()
	data, err := os.ReadFile(charm)
	w.must(err)
	path := filepath.Join(w.t.TempDir(), "another.charm")
	w.must(os.WriteFile(path, data, 0o644))
	return path
}

func (w *world) anotherImage(change func(root string)) map[string]string {
	w.t.Helper()
	root, err := os.MkdirTemp(dir, "image-")
	w.must(err)
	w.t.Cleanup(func() { _ = os.RemoveAll(root) })
	out, err := exec.Command("cp", "-al", image+"/.", root).CombinedOutput() // hard links: nothing is copied
	if err != nil {
		w.t.Fatalf("cannot copy the image: %v: %s", err, out)
	}
	if change != nil {
		change(root)
	}
	return map[string]string{"postgresql-image": root}
}

// refreshed waits until all units have a revision and are well.
func (w *world) refreshed(units, revision int) time.Duration {
	w.t.Helper()
	began := time.Now()
	ctx, cancel := context.WithTimeout(context.Background(), 4*time.Minute)
	defer cancel()
	w.must(w.Wait(ctx, fmt.Sprint("revision ", revision), func(s localmodel.Status) bool {
		return s.Settled(app, units) && !slices.ContainsFunc(s.App(app).Units, func(u localmodel.UnitStatus) bool { return u.Revision != revision })
	}))
	w.streaming(unit0, units-1)
	return time.Since(began)
}

func (w *world) partition() string {
	set := w.Store().Get("statefulsets", w.Name(), app)
	for _, field := range []string{"spec", "updateStrategy", "rollingUpdate"} {
		set, _ = set[field].(kubeapi.Object)
	}
	return fmt.Sprint(set["partition"])
}

func (w *world) shop() *localmodel.Stub {
	w.t.Helper()
	s, err := w.DeployStub("shop", "db", "postgresql_client")
	w.must(err)
	w.must(s.Ask(map[string]string{"database": "shop", "requested-secrets": inSecrets}))
	w.must(w.Integrate(app+":database", "shop:db"))
	return s
}

// writtenTo deploys units, and an application that writes.
func (w *world) writtenTo(units int) *writers {
	w.t.Helper()
	w.deploy(units)
	w.settle(units)
	w.voters(units - 1)
	write := w.startWriters(w.shop())
	w.settle(units)
	return write
}

// TestRefresh refreshes three units to another revision and another image, and back,
// as the documentation says and as people in a hurry do.
func TestRefresh(t *testing.T) {
	w := newWorld(t, nil)
	write := w.writtenTo(3)

	other, path := w.anotherImage(nil), w.anotherCharm()
	t.Run("with pre-upgrade-check, the primary elsewhere", func(t *testing.T) {
		w := w.in(t)
		w.lead(app + "/1") // its pod ends as soon as its resume-upgrade lets it go
		w.refused(w.leader(), "resume-upgrade", nil, "Nothing to resume, upgrade stack unset.")
		if w.primary() == unit0 {
			w.act(app+"/1", "promote-to-primary", map[string]any{"scope": "unit"})
			w.settle(3)
			w.voters(2)
		}
		before := w.timeline()
		began := time.Now()
		w.act(w.leader(), "pre-upgrade-check", nil)
		t.Logf("pre-upgrade-check took %.1f s", time.Since(began).Seconds())
		w.refused(w.leader(), "resume-upgrade", nil, "Upgrade can be resumed only once after juju refresh is called.")
		w.must(w.Refresh(app, path, other))
		w.shows(app+"/2", "maintenance", "upgrade completed, run resume-upgrade to proceed")
		w.refused(w.leader(), "pre-upgrade-check", nil, "Cannot run pre-upgrade checks, cluster already upgrading.")
		time.Sleep(3 * time.Second)
		if units := w.Status().App(app).Units; units[0].Revision != 1 || units[1].Revision != 1 || w.primary() != unit0 {
			t.Errorf("before resume-upgrade the units are %+v", units)
		}
		began = time.Now()
		if got := fmt.Sprint(w.act(w.leader(), "resume-upgrade", nil).Results["message"]); got != "Upgrade will resume on unit 1" {
			t.Errorf("resume-upgrade says %q", got)
		}
		w.refreshed(3, 2)
		t.Logf("two units took %.1f s", time.Since(began).Seconds())
		w.switchovers(before, 2)
	})
	t.Run("at once and back", func(t *testing.T) {
		w := w.in(t)
		before := w.timeline()
		began := time.Now()
		w.must(w.Refresh(app, charm, map[string]string{"postgresql-image": image}))
		w.refreshed(3, 3)
		t.Logf("three units took %.1f s", time.Since(began).Seconds())
		// The first pod is the primary's: another member takes over as it stops.
		w.switchovers(before, 2)
	})
	write.end()
}

func (w *world) switchovers(before, most int) {
	w.t.Helper()
	n := w.timeline() - before
	w.t.Logf("%d switchovers; the primary is %s", n, w.primary())
	if n > most {
		w.t.Errorf("there were %d switchovers", n)
	}
}

// TestRefreshHalts refreshes to an image whose PostgreSQL does not start, and back.
func TestRefreshHalts(t *testing.T) {
	w := newWorld(t, nil)
	write := w.writtenTo(3)
	before := w.timeline()
	primary := w.primary()
	broken := w.anotherImage(func(root string) {
		server := filepath.Join(root, "usr/lib/postgresql/17/bin/postgres")
		w.must(os.Remove(server)) // not the file that is linked
		w.must(os.WriteFile(server, []byte("#!/bin/sh\necho broken >&2\nexit 1\n"), 0o755))
	})
	w.must(w.Refresh(app, charm, broken))
	w.wait("halt", func(s localmodel.Status) bool {
		u := s.App(app).Units[2]
		return u.Workload.Status == "blocked" && strings.Contains(u.Workload.Message, "upgrade failed: "+app+"/2 is ")
	})
	t.Logf("the unit shows %q", w.Status().App(app).Units[2].Workload.Message)
	w.eventually("the leader's word", func() bool { u, _ := unitOf(w.Status(), w.leader()); return u.Workload.Status == "blocked" })
	if units := w.Status().App(app).Units; units[0].Revision != 1 || units[1].Revision != 1 || w.partition() != "2" {
		t.Errorf("it went on: %+v, partition %s", units, w.partition())
	}
	w.act(w.leader(), "pre-upgrade-check", nil)
	w.must(w.Refresh(app, charm, map[string]string{"postgresql-image": image}))
	w.shows(app+"/2", "maintenance", "upgrade completed, run resume-upgrade to proceed")
	if n := w.timeline() - before; n != 0 && primary != app+"/2" {
		t.Errorf("there were %d switchovers from %s", n, primary)
	}
	w.act(w.leader(), "resume-upgrade", nil)
	w.refreshed(3, 3)
	w.switchovers(before, 2)
	write.end()
}

// TestRefreshHaltsWithoutItsLeader refreshes to an image that is not there: the leader's
// own workload does not come back, and what is to wake it comes from the others.
func TestRefreshHaltsWithoutItsLeader(t *testing.T) {
	w := newWorld(t, func(o *localmodel.Options) { o.Timing.UpdateStatus = time.Hour })
	w.deploy(3)
	w.settle(3)
	w.lead(app + "/2")
	w.must(w.Refresh(app, charm, map[string]string{"postgresql-image": filepath.Join(dir, "absent")}))
	w.shows(app+"/2", "blocked", state.MessageRefreshHalted(app, app+"/2", "starting"))
	w.must(w.Refresh(app, charm, map[string]string{"postgresql-image": image}))
	w.refreshed(3, 3)
}

// TestRefreshOfFew refreshes one unit, and two.
func TestRefreshOfFew(t *testing.T) {
	w := newWorld(t, nil)
	w.deploy(1)
	w.settle(1)
	write := w.startWriters(w.shop())
	w.act(unit0, "pre-upgrade-check", nil)
	w.must(w.Refresh(app, w.anotherCharm(), nil))
	t.Logf("one unit took %.1f s", w.refreshed(1, 2).Seconds())
	w.must(w.AddUnit(app, 1))
	w.settle(2)
	w.voters(1)
	before := w.timeline()
	w.must(w.Refresh(app, charm, nil))
	t.Logf("two units took %.1f s", w.refreshed(2, 3).Seconds())
	w.switchovers(before, 2)
	write.end()
}

// TestRefreshKilled refreshes while the charm is killed at every call of Kubernetes'
// partition, and now and then elsewhere.
func TestRefreshKilled(t *testing.T) {
	var mu sync.Mutex
	calls, on := 0, false
	w := newWorld(t, func(o *localmodel.Options) {
		o.Faults.Tool = func(localmodel.ToolCall) localmodel.Fault {
			mu.Lock()
			defer mu.Unlock()
			if calls++; on && calls%23 == 0 {
				return localmodel.KillAfter
			}
			return localmodel.NoFault
		}
	})
	write := w.writtenTo(3)
	before := w.timeline()
	set := func(to bool) { mu.Lock(); on = to; mu.Unlock() }
	set(true)
	w.must(w.Refresh(app, w.anotherCharm(), nil))
	w.eventually("the last unit's turn", func() bool { return w.Status().App(app).Units[0].Revision == 2 })
	set(false)
	t.Logf("three units took %.1f s more", w.refreshed(3, 2).Seconds())
	w.switchovers(before, 2)
	write.end()
}

// upstream leaves behind what upstream's charm of track 14 does.
const upstream = "../testdata/upstream"

// objects of Kubernetes that upstream's charm makes: Services with a selector by
// role, and the labels by which Patroni finds its members.
func (w *world) upstreamObjects() {
	w.t.Helper()
	ports := []any{kubeapi.Object{"name": "api", "port": 8008}, kubeapi.Object{"name": "database", "port": 5432}}
	for name, role := range map[string]string{app + "-primary": "primary", app + "-replicas": "replica"} {
		_, err := w.Store().Create("services", w.Name(), kubeapi.Object{
			"metadata": kubeapi.Object{"name": name, "labels": kubeapi.Object{"app.kubernetes.io/name": app}},
			"spec": kubeapi.Object{"ports": ports, "selector": kubeapi.Object{
				"app.kubernetes.io/name": app, "cluster-name": "patroni-" + app, "role": role,
			}},
		})
		w.must(err)
	}
	for n := range 3 {
		w.eventually("a pod", func() bool {
			_, err := w.Store().Change("pods", w.Name(), fmt.Sprint(app, "-", n), func(pod kubeapi.Object) (kubeapi.Object, error) {
				labels, _ := pod["metadata"].(kubeapi.Object)["labels"].(kubeapi.Object)
				labels["application"], labels["cluster-name"] = "patroni", "patroni-"+app
				return pod, nil
			})
			return err == nil
		})
	}
}

// setPartition does what upstream's leader does.
func (w *world) setPartition(n int) {
	w.t.Helper()
	_, err := w.Store().Change("statefulsets", w.Name(), app, func(set kubeapi.Object) (kubeapi.Object, error) {
		spec, _ := set["spec"].(kubeapi.Object)
		spec["updateStrategy"] = kubeapi.Object{"type": "RollingUpdate", "rollingUpdate": kubeapi.Object{"partition": n}}
		return set, nil
	})
	w.must(err)
}

// TestRefreshFromUpstream refreshes from what upstream leaves behind, with its
// pre-upgrade-check and without, while clients write that it has served.
func TestRefreshFromUpstream(t *testing.T) {
	for name, checked := range map[string]bool{"with its pre-upgrade-check": true, "without": false} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t, func(o *localmodel.Options) { o.Timing.UpdateStatus = 2 * time.Second })
			w.must(w.Deploy(localmodel.Deployment{
				Charm: upstream, Name: app, Units: 3, Trust: true, Images: map[string]string{"postgresql-image": image},
			}))
			w.upstreamObjects()
			s := w.shop()
			w.eventually("three members", func() bool {
				out, err := w.tryPsql(unit0, "SELECT count(*) FROM pg_stat_replication WHERE state = 'streaming'")
				return err == nil && out == "2"
			})
			write := w.startWriters(s)
			passwords, before := w.passwords(), w.timeline()
			told, err := s.Answer()
			w.must(err)
			system := w.psql(unit0, "SELECT system_identifier FROM pg_control_system()")
			w.psql(unit0, "CREATE TABLE kept (word text); INSERT INTO kept VALUES ('of upstream')")
			time.Sleep(5 * time.Second)
			if checked {
				w.act(w.leader(), "pre-upgrade-check", nil)
				w.setPartition(2)
			}
			w.must(w.Refresh(app, charm, nil))
			if checked {
				w.shows(app+"/2", "maintenance", "upgrade completed, run resume-upgrade to proceed")
				w.setPartition(1) // what its resume-upgrade does
			}
			t.Logf("three units took %.1f s", w.refreshed(3, 2).Seconds())
			w.switchovers(before, 2)
			time.Sleep(5 * time.Second)
			write.end()
			if got := w.passwords(); fmt.Sprint(got) != fmt.Sprint(passwords) {
				t.Errorf("the passwords are %v, they were %v", got, passwords)
			}
			now, err := s.Answer()
			w.must(err)
			secret, err := s.Secret(now["secret-user"])
			w.must(err)
			if now["secret-user"] != told["secret-user"] || secret["username"] != write.login.Username || secret["password"] != write.login.Password {
				t.Errorf("the client is told %v, it was %v", now, told)
			}
			if got := w.psql(unit0, "SELECT word FROM kept"); got != "of upstream" || w.psql(unit0, "SELECT system_identifier FROM pg_control_system()") != system {
				t.Errorf("the data are %q", got)
			}
			for _, u := range w.Status().App(app).Units {
				w.accepted(u.Name)
			}
			w.must(w.AddUnit(app, 1))
			w.settle(4)
			w.streaming(unit0, 3)
		})
	}
}
