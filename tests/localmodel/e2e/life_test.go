//go:build localmodel

package e2e

import (
	"fmt"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"

	"charmhub.io/postgresql-k8s/tests/localmodel"
	"charmhub.io/postgresql-k8s/tests/localmodel/kubeapi"
)

func TestOneUnit(t *testing.T) {
	w := newWorld(t, nil)
	w.deploy(1)
	w.settle(1)
	unit := w.Status().App(app).Units[0]
	if unit.Workload.Message != "Primary" {
		t.Errorf("status message is %q, want Primary", unit.Workload.Message)
	}
	if version := w.Status().App(app).Version; !strings.HasPrefix(version, "17.") {
		t.Errorf("workload version is %q, want 17.*", version)
	}
	w.psql(app+"/0", "CREATE TABLE kept (word text); INSERT INTO kept VALUES ('here')")
	for _, fault := range []struct {
		name string
		do   func() error
	}{
		{"container killed", func() error { w.kill(app+"/0", "postgresql"); return nil }},
		{"pod deleted", func() error { return w.DeletePod(app + "/0") }},
		{"pod killed", func() error { return w.KillPod(app + "/0") }},
		{"agent restarted", func() error { return w.RestartAgent(app + "/0") }},
	} {
		t.Run(fault.name, func(t *testing.T) {
			w.must(fault.do())
			w.eventually("PostgreSQL again", func() bool {
				out, err := w.tryPsql(app+"/0", "TABLE kept")
				return err == nil && out == "here"
			})
			w.settle(1)
		})
	}
}

func TestThreeUnits(t *testing.T) {
	w := newWorld(t, nil)
	w.deploy(3)
	w.settle(3)
	w.eventually("two streaming replicas", func() bool {
		out, err := w.tryPsql(app+"/0", "SELECT count(*) FROM pg_stat_replication WHERE state = 'streaming'")
		return err == nil && out == "2"
	})
}

func TestWithoutTrust(t *testing.T) {
	w := newWorld(t, nil)
	w.must(w.Deploy(localmodel.Deployment{Charm: charm, Images: map[string]string{"postgresql-image": image}}))
	w.wait("blocked", func(s localmodel.Status) bool {
		return len(s.App(app).Units) == 1 && s.App(app).Units[0].Workload.Status == "blocked"
	})
	if message := w.Status().App(app).Units[0].Workload.Message; !strings.Contains(message, "juju trust "+app) {
		t.Errorf("message is %q, want one that names juju trust", message)
	}
	w.must(w.SetTrust(app, true))
	w.settle(1)
}

func TestRemovalLeavesNothing(t *testing.T) {
	w := newWorld(t, nil)
	for range 2 { // the second starts as clean as the first
		w.deploy(1)
		w.settle(1)
		w.must(w.RemoveApplication(app))
		w.wait("removal", func(s localmodel.Status) bool { return len(s.Apps) == 0 })
		w.eventually("no objects", func() bool { return len(w.objects()) == 0 })
	}
}

// objects are all Kubernetes objects but the namespace.
func (w *world) objects() []string {
	var found []string
	for _, resource := range []string{"configmaps", "endpoints", "pods", "services", "statefulsets"} {
		objects, _ := w.Store().List(resource, w.Name(), func(kubeapi.Object) bool { return true })
		for _, o := range objects {
			meta, _ := o["metadata"].(kubeapi.Object)
			found = append(found, fmt.Sprint(resource, "/", meta["name"]))
		}
	}
	return found
}

// TestKilledAtEveryCall deploys while each kind of call that the charm makes,
// by hook tool or to Pebble, costs it its life once, before or after the call
// had its effect.
func TestKilledAtEveryCall(t *testing.T) {
	for _, fault := range []localmodel.Fault{localmodel.KillBefore, localmodel.KillAfter} {
		var mu sync.Mutex
		seen := map[string]bool{}
		once := func(call string) localmodel.Fault {
			mu.Lock()
			defer mu.Unlock()
			if seen[call] {
				return localmodel.NoFault
			}
			seen[call] = true
			return fault
		}
		w := newWorld(t, func(o *localmodel.Options) {
			o.Faults.Tool = func(c localmodel.ToolCall) localmodel.Fault {
				return once(strings.Join(append([]string{c.Tool}, stable(c.Args)...), " "))
			}
			o.Faults.Pebble = func(c localmodel.PebbleCall) localmodel.Fault {
				return once(c.Method + " " + numbers.ReplaceAllString(c.Path, "N"))
			}
		})
		w.deploy(1)
		w.settle(1)
		t.Logf("survived %d kills", len(seen))
		w.end()
	}
}

// TestKilledAtNthCall deploys once for each call that the charm makes, counted
// over all its dispatches, and kills it at that one. Since all of them take an
// hour or two, it takes only every 100th unless LOCALMODEL_STRIDE is set to less.
func TestKilledAtNthCall(t *testing.T) {
	stride, err := strconv.Atoi(fromEnv("LOCALMODEL_STRIDE", "100"))
	if err != nil {
		t.Fatal(err)
	}
	const together = 4 // applications in one model
	last := 1
	for first := 1; first <= last; first += together * stride {
		var mu sync.Mutex
		calls, fatal := map[string]int{}, map[string]int{}
		count := func(unit string) localmodel.Fault {
			mu.Lock()
			defer mu.Unlock()
			name, _, _ := strings.Cut(unit, "/")
			calls[name]++
			if calls[name] == fatal[name] {
				return localmodel.KillAfter
			}
			return localmodel.NoFault
		}
		w := newWorld(t, func(o *localmodel.Options) {
			o.Faults.Tool = func(c localmodel.ToolCall) localmodel.Fault { return count(c.Unit) }
			o.Faults.Pebble = func(c localmodel.PebbleCall) localmodel.Fault { return count(c.Unit) }
		})
		for i := range together {
			fatal[fmt.Sprint("pg-", i)] = first + i*stride
		}
		for name := range fatal {
			w.deployAs(name, 1)
		}
		deployed := map[string]int{} // calls until the application was settled
		w.wait("all settled", func(s localmodel.Status) bool {
			mu.Lock()
			defer mu.Unlock()
			for name := range fatal {
				if s.Settled(name, 1) && deployed[name] == 0 {
					deployed[name] = calls[name]
				}
			}
			return len(deployed) == together
		})
		w.wait("all settled after the kill", func(s localmodel.Status) bool {
			mu.Lock()
			defer mu.Unlock()
			for name := range fatal {
				if !s.Settled(name, 1) || calls[name] < fatal[name] && fatal[name] <= deployed[name] {
					return false
				}
			}
			return true
		})
		for _, n := range deployed {
			last = max(last, n) // they differ by how often something had to be looked at
		}
		t.Logf("killed at calls %d to %d of %d", first, first+(together-1)*stride, last)
		w.end()
	}
}

// numbers in paths are those of changes and tasks, new each time.
var numbers = regexp.MustCompile(`[0-9]+`)

// stable are arguments that are the same from one dispatch to the next.
func stable(args []string) []string {
	return slices.DeleteFunc(slices.Clone(args), func(arg string) bool {
		return strings.Contains(arg, "/") || strings.Contains(arg, " ")
	})
}

// TestEveryHookToolFails deploys while each hook tool fails once.
func TestEveryHookToolFails(t *testing.T) {
	var mu sync.Mutex
	failed := map[string]bool{}
	w := newWorld(t, func(o *localmodel.Options) {
		o.Faults.Tool = func(c localmodel.ToolCall) localmodel.Fault {
			mu.Lock()
			defer mu.Unlock()
			if c.Tool == "juju-log" || failed[c.Tool] {
				return localmodel.NoFault
			}
			failed[c.Tool] = true
			return localmodel.Fail
		}
	})
	w.deploy(1)
	w.settle(1)
	t.Logf("survived failures of %d hook tools", len(failed))
}

// TestRefusedCommits deploys while the controller refuses what the first hook
// of each name has written.
func TestRefusedCommits(t *testing.T) {
	var mu sync.Mutex
	refused := map[string]bool{}
	w := newWorld(t, func(o *localmodel.Options) {
		o.Faults.Commit = func(_, path string) error {
			mu.Lock()
			defer mu.Unlock()
			if refused[path] {
				return nil
			}
			refused[path] = true
			return fmt.Errorf("connection is shut down")
		}
	})
	w.deploy(1)
	w.settle(1)
}

func TestConfigRefused(t *testing.T) {
	w := newWorld(t, nil)
	w.deploy(1)
	w.settle(1)
	w.must(w.SetConfig(app, map[string]any{"profile": "nonsense"}))
	w.wait("blocked", func(s localmodel.Status) bool { return s.App(app).Units[0].Workload.Status == "blocked" })
	w.must(w.SetConfig(app, map[string]any{"profile": nil}))
	w.settle(1)
}
