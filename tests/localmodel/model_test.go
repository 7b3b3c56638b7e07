package localmodel_test

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"charmhub.io/postgresql-k8s/tests/localmodel"
	"charmhub.io/postgresql-k8s/tests/localmodel/kubeapi"
)

// inpod is the program that hook tools are, built once.
var inpod string

func TestMain(m *testing.M) {
	dir, err := os.MkdirTemp("", "localmodel")
	if err != nil {
		panic(err)
	}
	inpod = filepath.Join(dir, "inpod")
	if out, err := exec.Command("go", "build", "-o", inpod, "./cmd/inpod").CombinedOutput(); err != nil {
		fmt.Fprintf(os.Stderr, "cannot build inpod: %s\n", out)
		os.Exit(1)
	}
	code := m.Run()
	_ = os.RemoveAll(dir)
	os.Exit(code)
}

// world is a model whose pods are plain processes, and what happened in it.
type world struct {
	*localmodel.Model
	t   *testing.T
	dir string

	mu    sync.Mutex
	hooks []localmodel.HookRecord
}

func newWorld(t *testing.T, adjust func(*localmodel.Options)) *world {
	t.Helper()
	dir, err := os.MkdirTemp("", "lm") // short, for unix sockets
	if err != nil {
		t.Fatal(err)
	}
	w := &world{t: t, dir: dir}
	opts := localmodel.Options{
		Dir:  filepath.Join(dir, "m"),
		Pods: &localmodel.Processes{Inpod: inpod},
		Timing: localmodel.Timing{
			RetryMin: 20 * time.Millisecond, RetryMax: 100 * time.Millisecond,
			UpdateStatus: time.Hour, Lease: 100 * time.Millisecond, Grace: 5 * time.Second, StorageAttach: 1,
		},
		HookDone: func(h localmodel.HookRecord) {
			w.mu.Lock()
			defer w.mu.Unlock()
			w.hooks = append(w.hooks, h)
		},
	}
	if adjust != nil {
		adjust(&opts)
	}
	if w.Model, err = localmodel.New(opts); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if t.Failed() {
			lines, _ := w.Logs(0)
			for _, line := range lines {
				t.Log(line)
			}
		}
		if err := w.Close(); err != nil {
			t.Error(err)
		}
		_ = os.RemoveAll(dir)
	})
	return w
}

// charm writes a charm whose dispatch is a shell script.
func (w *world) charm(name, metadata, script string) string {
	w.t.Helper()
	dir := filepath.Join(w.dir, name)
	if err := os.MkdirAll(dir, 0o755); err != nil {
		w.t.Fatal(err)
	}
	files := map[string]string{
		"metadata.yaml": "name: " + name + "\n" + metadata,
		"dispatch":      "#!/bin/sh\nset -eu\nhook=${JUJU_DISPATCH_PATH#*/}\n" + script,
		"config.yaml":   "options:\n  word: {type: string, default: hello}\n  number: {type: int}\n",
		"actions.yaml":  "greet:\n  params:\n    who: {type: string, default: world}\n",
	}
	for file, text := range files {
		if err := os.WriteFile(filepath.Join(dir, file), []byte(text), 0o755); err != nil {
			w.t.Fatal(err)
		}
	}
	return dir
}

func (w *world) deploy(path string, units int) {
	w.t.Helper()
	if err := w.Deploy(localmodel.Deployment{Charm: path, Units: units}); err != nil {
		w.t.Fatal(err)
	}
	name := filepath.Base(path)
	w.wait("all units idle", func(s localmodel.Status) bool { return idle(s, name, units) })
}

func idle(s localmodel.Status, app string, units int) bool {
	of := s.App(app).Units
	return len(of) == units && !slices.ContainsFunc(of, func(u localmodel.UnitStatus) bool {
		return u.Agent.Status != "idle" || !u.Ready
	})
}

func (w *world) wait(what string, condition func(localmodel.Status) bool) {
	w.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
	defer cancel()
	if err := w.Wait(ctx, what, condition); err != nil {
		w.t.Fatal(err)
	}
}

// ran are the hooks of a unit, one after the other, with what their remote side
// was.
func (w *world) ran(unit string) []string {
	w.mu.Lock()
	defer w.mu.Unlock()
	var names []string
	for _, h := range w.hooks {
		if h.Unit != unit {
			continue
		}
		name := strings.TrimPrefix(h.Hook, "hooks/")
		if h.Outcome != "committed" {
			name += "!"
		}
		for _, v := range h.Env {
			if remote, found := strings.CutPrefix(v, "JUJU_REMOTE_UNIT="); found && remote != "" {
				name += " " + remote
			}
		}
		names = append(names, name)
	}
	return names
}

func (w *world) must(err error) {
	w.t.Helper()
	if err != nil {
		w.t.Fatal(err)
	}
}

func (w *world) expect(unit string, want ...string) {
	w.t.Helper()
	if got := w.ran(unit); !slices.Equal(got, want) {
		w.t.Errorf("%s ran\n\t%s\nwant\n\t%s", unit, strings.Join(got, "\n\t"), strings.Join(want, "\n\t"))
	}
}

const peers = "peers:\n  ring: {interface: ring}\n"

func TestLifeOfOneUnit(t *testing.T) {
	w := newWorld(t, nil)
	w.deploy(w.charm("solo", peers+"storage:\n  data: {type: filesystem, location: /data}\n", "status-set active $hook"), 1)
	w.must(w.RemoveApplication("solo"))
	w.wait("removal", func(s localmodel.Status) bool { return len(s.Apps) == 0 })
	w.expect("solo/0", "install", "ring-relation-created", "leader-elected", "data-storage-attached",
		"config-changed", "start", "data-storage-detaching", "stop", "remove")
}

func TestScaling(t *testing.T) {
	w := newWorld(t, nil)
	w.deploy(w.charm("trio", peers, `relation-set -r ring:0 me=$JUJU_UNIT_NAME || true`), 2)
	w.wait("hooks", func(localmodel.Status) bool { return len(w.ran("trio/0")) >= 7 && len(w.ran("trio/1")) >= 6 })
	w.expect("trio/0", "install", "ring-relation-created", "leader-elected", "config-changed", "start",
		"ring-relation-joined trio/1", "ring-relation-changed trio/1")
	w.must(w.RemoveUnit("trio", 1))
	w.wait("one unit", func(s localmodel.Status) bool { return idle(s, "trio", 1) })
	if got := w.ran("trio/0"); got[len(got)-1] != "ring-relation-departed trio/1" {
		t.Errorf("trio/0 ended with %v", got)
	}
	got := w.ran("trio/1")
	if tail := got[len(got)-3:]; !slices.Equal(tail, []string{"ring-relation-departed trio/0", "stop", "remove"}) {
		t.Errorf("trio/1 ended with %v", tail)
	}
}

func TestFailedHookIsRetriedAndWritesNothing(t *testing.T) {
	w := newWorld(t, nil)
	path := w.charm("shaky", peers, fmt.Sprintf(`
before=$(state-get last)
state-set last=$hook
if [ $hook = start ] && [ ! -e %[1]s/fixed ]; then
	touch %[1]s/fixed
	exit 1
fi
[ $hook != start ] || [ "$before" = config-changed ]
`, w.dir))
	w.deploy(path, 1)
	w.expect("shaky/0", "install", "ring-relation-created", "leader-elected", "config-changed", "start!", "start")
}

func TestKilledCharmRunsAgainAtOnce(t *testing.T) {
	kills := 0
	w := newWorld(t, func(o *localmodel.Options) {
		o.Faults.Tool = func(c localmodel.ToolCall) localmodel.Fault {
			if c.Tool == "status-set" && c.Hook == "hooks/install" && kills < 2 {
				kills++
				return localmodel.KillAfter
			}
			return localmodel.NoFault
		}
	})
	w.deploy(w.charm("prey", "", "state-set a=b\nstatus-set active"), 1)
	w.expect("prey/0", "install!", "install!", "install", "leader-elected", "config-changed", "start")
}

func TestRelationOfTwoApplications(t *testing.T) {
	w := newWorld(t, nil)
	w.deploy(w.charm("server", "provides:\n  db: {interface: sql}\n", `
case $hook in
db-relation-changed)
	user=$(relation-get --format=json -r $JUJU_RELATION_ID --app user $JUJU_REMOTE_APP)
	if [ "$user" != null ] && [ -z "$(secret-ids)" ]; then
		printf '{"word": "geheim"}' > $CHARM_DIR/content
		id=$(secret-add --label db.$user --owner application --file $CHARM_DIR/content)
		secret-grant $id -r $JUJU_RELATION_ID
		printf '{"secret": "%s"}' $id | relation-set -r $JUJU_RELATION_ID --app --file -
	fi ;;
db-relation-broken) [ "$(relation-ids db --format=json)" = "[]" ] ;;
esac
`), 1)
	w.deploy(w.charm("client", "requires:\n  sql: {interface: sql}\n", `
case $hook in
sql-relation-created) relation-set -r $JUJU_RELATION_ID --app user=joe ;;
sql-relation-changed)
	secret=$(relation-get -r $JUJU_RELATION_ID --app secret $JUJU_REMOTE_APP)
	if [ "$secret" ]; then
		application-version-set "$(secret-get $secret word)"
	fi ;;
esac
`), 1)
	w.must(w.Integrate("client", "server"))
	w.wait("credentials", func(s localmodel.Status) bool { return s.App("client").Version == "geheim" })
	w.wait("idle", func(s localmodel.Status) bool { return idle(s, "client", 1) && idle(s, "server", 1) })
	w.must(w.RemoveRelation("client", "server"))
	w.wait("end", func(s localmodel.Status) bool {
		return len(s.Relations) == 0 && idle(s, "client", 1) && idle(s, "server", 1)
	})
	got := w.ran("server/0")
	if tail := got[len(got)-2:]; !slices.Equal(tail, []string{"db-relation-departed client/0", "db-relation-broken"}) {
		t.Errorf("server/0 ended with %v", tail)
	}
}

func TestSecretRevisions(t *testing.T) {
	w := newWorld(t, nil)
	w.deploy(w.charm("keeper", peers, `
case $hook in
leader-elected) secret-add --label it word=eins ;;
config-changed)
	if is-leader --format=json | grep -q true; then
		uri=$(secret-ids --format=json | tr -d '[]"\n')
		secret-set $uri word=$(config-get word)
	fi ;;
start) secret-get --label it word ;;
secret-changed) application-version-set $(secret-get --label it --refresh word) ;;
secret-remove) secret-remove $JUJU_SECRET_ID --revision $JUJU_SECRET_REVISION ;;
esac
`), 1)
	w.must(w.SetConfig("keeper", map[string]any{"word": "drei"}))
	w.wait("refresh", func(s localmodel.Status) bool { return s.App("keeper").Version == "drei" })
	w.wait("idle", func(s localmodel.Status) bool { return idle(s, "keeper", 1) })
	content, err := w.SecretContent("keeper", "it")
	if w.must(err); content["word"] != "drei" {
		t.Errorf("secret is %v", content)
	}
	got := w.ran("keeper/0")
	if !slices.Contains(got, "secret-remove") {
		t.Errorf("no secret-remove among %v", got)
	}
}

func TestActions(t *testing.T) {
	w := newWorld(t, nil)
	w.deploy(w.charm("actor", "", `
[ "$hook" = greet ] || exit 0
who=$(action-get who)
action-set greeting.text="hi $who"
[ $who != nobody ] || action-fail "no one there"
`), 1)
	ctx := context.Background()
	a, err := w.RunAction(ctx, "actor/0", "greet", nil)
	if w.must(err); a.Status != "completed" || fmt.Sprint(a.Results["greeting"]) != "map[text:hi world]" {
		t.Errorf("greet: %+v", a)
	}
	a, err = w.RunAction(ctx, "actor/0", "greet", map[string]any{"who": "nobody"})
	if w.must(err); a.Status != "failed" || a.Message != "no one there" {
		t.Errorf("greet nobody: %+v", a)
	}
	if _, err = w.RunAction(ctx, "actor/0", "greet", map[string]any{"who": 5}); err == nil {
		t.Error("greet 5 was accepted")
	}
}

func TestPodReplacement(t *testing.T) {
	w := newWorld(t, nil)
	w.deploy(w.charm("phoenix", "", "true"), 1)
	w.must(w.DeletePod("phoenix/0"))
	w.wait("idle", func(s localmodel.Status) bool { return idle(s, "phoenix", 1) })
	w.must(w.KillPod("phoenix/0"))
	w.wait("idle", func(s localmodel.Status) bool { return idle(s, "phoenix", 1) })
	w.expect("phoenix/0", "install", "leader-elected", "config-changed", "start",
		"stop", "upgrade-charm", "config-changed", "start",
		"upgrade-charm", "config-changed", "start")
}

func TestAgentCutOff(t *testing.T) {
	w := newWorld(t, nil)
	w.deploy(w.charm("island", "", `[ $hook != update-status ] || { status-set active waited; sleep 0.2; status-set active there; }`), 2)
	leads := func(unit int) func(localmodel.Status) bool {
		return func(s localmodel.Status) bool { return s.App("island").Units[unit].Leader }
	}
	shows := func(s localmodel.Status) string { return s.App("island").Units[0].Workload.Message }
	w.must(w.UpdateStatus("island/0"))
	w.wait("the middle of a hook", func(s localmodel.Status) bool { return shows(s) == "waited" })
	w.must(w.CutAgent("island/0", true))
	w.wait("another leader", leads(1))
	if message := shows(w.Status()); message != "waited" {
		t.Errorf("a hook tool reached the controller: %q", message)
	}
	w.must(w.SetLeader("island/0"))
	w.wait("another leader again", leads(1)) // it cannot renew the lease
	w.must(w.CutAgent("island/0", false))
	w.wait("the end of the hook", func(s localmodel.Status) bool { return shows(s) == "there" && idle(s, "island", 2) })
}

func TestHookToolErrors(t *testing.T) {
	w := newWorld(t, nil)
	w.deploy(w.charm("tester", peers, "true"), 1)
	tests := []struct {
		command string
		code    int
		output  string
	}{
		{"is-leader --format=json", 0, "true\n"},
		{"is-leader", 0, "True\n"},
		{"config-get --format=json", 0, `{"word":"hello"}` + "\n"},
		{"config-get --format=json --all", 0, `{"number":null,"word":"hello"}` + "\n"},
		{"config-get --format=json nothing", 0, "null\n"},
		{"relation-ids ring --format=json", 0, `["ring:0"]` + "\n"},
		{"relation-ids other --format=json", 0, "[]\n"},
		{"relation-get -r 99 - tester/0", 2, "ERROR invalid value \"99\" for option -r: relation not found\n"},
		{"state-get --format=json", 0, "null\n"},
		{"secret-ids --format=json", 0, "null\n"},
		{"secret-get nix", 2, "ERROR secret URI \"nix\" not valid\n"},
		{"secret-get cnj4l5e9jtbs73f6pd10", 1, "ERROR secret \"cnj4l5e9jtbs73f6pd10\" not found\n"},
		{"secret-get --label nix", 1, "ERROR secret URI for consumer label \"nix\" not found\n"},
		{"secret-add x=y", 2, "ERROR key \"x\" not valid\n"},
		{"action-get", 1, "ERROR not running an action\n"},
		{"open-port 1-5", 1, "ERROR port ranges are not supported for k8s applications\n"},
		{"network-get nix", 1, "ERROR no network config found for binding \"nix\"\n"},
		{"status-set unknown", 2, "ERROR invalid status \"unknown\", expected one of [maintenance blocked waiting active]\n"},
		{"is-leader --nix", 2, "ERROR option provided but not defined: --nix\n"},
		{"env -u JUJU_CONTEXT_ID is-leader", 1, "ERROR JUJU_CONTEXT_ID not set\n"},
	}
	for _, test := range tests {
		got, err := w.Exec(context.Background(), "tester/0", test.command)
		w.must(err)
		if output := got.Stdout + got.Stderr; got.Code != test.code || output != test.output {
			t.Errorf("%s: exit %d, %q; want %d, %q", test.command, got.Code, output, test.code, test.output)
		}
	}
}

// TestRefreshFollowsThePartition replaces pods as a StatefulSet does.
func TestRefreshFollowsThePartition(t *testing.T) {
	w := newWorld(t, nil)
	path := w.charm("ring", peers, "status-set active $hook")
	w.deploy(path, 3)
	revisions := func(s localmodel.Status) string {
		var all []int
		for _, u := range s.App("ring").Units {
			all = append(all, u.Revision)
		}
		return fmt.Sprint(all)
	}
	partition := func(n int) {
		_, err := w.Store().Change("statefulsets", w.Name(), "ring", func(set kubeapi.Object) (kubeapi.Object, error) {
			set["spec"].(kubeapi.Object)["updateStrategy"] = kubeapi.Object{"rollingUpdate": kubeapi.Object{"partition": n}}
			return set, nil
		})
		w.must(err)
	}
	partition(2)
	w.must(w.Refresh("ring", path, nil))
	w.wait("the last pod", func(s localmodel.Status) bool { return revisions(s) == "[1 1 2]" && idle(s, "ring", 3) })
	hash := func(pod string) string {
		labels, _ := w.Store().Get("pods", w.Name(), pod)["metadata"].(kubeapi.Object)["labels"].(kubeapi.Object)
		return fmt.Sprint(labels["controller-revision-hash"])
	}
	if hash("ring-2") != "ring-2" || hash("ring-1") != "ring-1" {
		t.Errorf("the pods are of %s and %s", hash("ring-2"), hash("ring-1"))
	}
	w.must(w.KillPod("ring/1")) // it comes again as it was
	hooks := len(w.ran("ring/1"))
	time.Sleep(300 * time.Millisecond)
	if got := revisions(w.Status()); got != "[1 1 2]" || len(w.ran("ring/1")) != hooks {
		t.Errorf("below the partition the revisions are %s, and a pod that came again ran %q", got, w.ran("ring/1")[hooks:])
	}
	partition(0)
	w.wait("all pods", func(s localmodel.Status) bool { return revisions(s) == "[2 2 2]" && idle(s, "ring", 3) })
	got := slices.DeleteFunc(w.ran("ring/1")[hooks:], func(hook string) bool { return hook == "leader-elected" }) // while ring/0 is away
	if !slices.Equal(got, []string{"upgrade-charm", "config-changed", "start"}) {
		t.Errorf("it ran %q", got)
	}
}
