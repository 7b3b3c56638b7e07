package docs

import (
	"fmt"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"charmhub.io/postgresql-k8s/actions"
	"charmhub.io/postgresql-k8s/charm/state"
)

// result is a key of what an action returns. A part in capitals stands for any.
type result struct{ key, meaning string }

// results are those of each action. Keys that no action has fail a test, and so do
// those of status that are not here.
var results = map[string][]result{
	"get-primary":        {{"primary", "the unit that takes writes"}},
	"get-password":       {{"password", "as Juju's secret has it"}},
	"set-password":       {{"password", "the new one"}},
	"promote-to-primary": {{"primary", "this unit"}, {"seconds", "from the request until the server took writes"}},
	"status": {
		{"table", "all of the below, for people"},
		{"cluster.primary", "its unit"}, {"cluster.members", "how many there are"}, {"cluster.timeline", "the primary's"},
		{"cluster.postgresql", "the version of this unit's server"}, {"cluster.patroni", "the version of this unit's Patroni"},
		{"cluster.synchronous-mode", "quorum: any of the replicas confirm commits; true: certain ones do"},
		{"cluster.synchronous-node-count", "by how many replicas"},
		{"cluster.synchronous-mode-strict", "whether commits wait when there is none"},
		{"members.POD.unit", "the unit of the pod"}, {"members.POD.role", "primary, replica, or standby leader"},
		{"members.POD.state", "as Patroni says it: running (the primary), streaming (a replica that follows), stopped, starting, ..."},
		{"members.POD.timeline", "which one it is on"}, {"members.POD.lag", "bytes that a replica is behind; unknown, or - for the primary"},
		{"members.POD.sync", "sync or quorum: commits wait for it, and it may be promoted; async: it may lack some"},
		{"members.POD.pending-restart", "whether a changed option waits for a restart"},
		{"endpoints.primary", "what clients are told, on the leader only"}, {"endpoints.read-only", "the same for reads"},
		{"endpoints.primary-service", "the name in their uris"}, {"endpoints.replicas-service", "the name in their read-only-uris"},
		{"relations", "on other units than the leader: how to ask that"},
		{"relations.ID.application", "the client, on the leader only"}, {"relations.ID.endpoint", "database, db, or db-admin"},
		{"relations.ID.state", "served, being served, refused, or asked for nothing yet"},
		{"problems-count", "0 when all is well"},
		{"problems.N.severity", "as in juju status"}, {"problems.N.cause", "what is wrong"}, {"problems.N.cure", "what to do about it"},
	},
	"restart":           {{"restarted", "the units, in the order in which it happened"}, {"seconds", "how long all of it took"}},
	"reinitialize":      {{"state", "of the member: streaming when the copy is done, creating replica while it goes on"}, {"seconds", "how long it took"}},
	"pre-upgrade-check": {},
	"resume-upgrade":    {{"message", "which unit is refreshed next"}},
	"report":            {{"report", "a JSON text, cut at 120 KiB"}},
}

// examples are commands for each action; what a command in a page may have is
// checked by another test.
var examples = map[string][]string{
	"get-primary":        {"juju run postgresql-k8s/0 get-primary"},
	"get-password":       {"juju run postgresql-k8s/0 get-password", "juju run postgresql-k8s/0 get-password username=monitoring"},
	"set-password":       {"juju run postgresql-k8s/leader set-password", "juju run postgresql-k8s/leader set-password username=relation_id_7"},
	"promote-to-primary": {"juju run postgresql-k8s/1 promote-to-primary scope=unit"},
	"status":             {"juju run postgresql-k8s/leader status"},
	"restart":            {"juju run postgresql-k8s/leader restart"},
	"reinitialize":       {"juju run postgresql-k8s/2 reinitialize confirm=postgresql-k8s/2"},
	"pre-upgrade-check":  {"juju run postgresql-k8s/leader pre-upgrade-check"},
	"resume-upgrade":     {"juju run postgresql-k8s/leader resume-upgrade"},
	"report":             {"juju run postgresql-k8s/1 report"},
}

func TestActions(t *testing.T) {
	t.Parallel()
	p := newPage("Actions", "charmcraft.yaml and actions/")
	p.text("`juju run <unit> <action> [parameter=value ...]` runs one. An action that cannot run fails, says why, and has changed nothing. " +
		"One that waits fails after a minute (`restart`: a minute without progress); what it asked for may still happen, so look at " +
		"`status`. `reinitialize` ends after a minute, and the copy goes on. `juju run` itself waits for a minute: give `restart` " +
		"more, `--wait=10m`. Where it gives up the action goes on: `juju show-operation` with the number that it printed shows how.")
	all := declared(t).Actions
	for _, a := range actions.All() {
		spec, _ := all.get(a.Name) // a rule of the house
		p.line("## %s", a.Name)
		p.line("")
		p.text("%s", spec.Description)
		p.text("Runs on: %s.", map[bool]string{true: "the leader", false: "any unit"}[leaderOnly(a)])
		p.block("shell", strings.Join(examples[a.Name], "\n"))
		if len(spec.Params) > 0 {
			p.line("| parameter | type | default | |\n|---|---|---|---|")
			for _, param := range spec.Params {
				p.line("| `%s` | %s | %s | %s |", param.Name, param.Value.Type, byDefault(param.Value.Default), cell(param.Value.Description))
			}
			p.line("")
		}
		if len(results[a.Name]) > 0 {
			p.line("| result | |\n|---|---|")
		}
		for _, r := range results[a.Name] {
			p.line("| `%s` | %s |", r.key, cell(r.meaning))
		}
		p.line("")
	}
	p.save(t, "actions.md")
}

func byDefault(value any) string {
	if value == nil {
		return ""
	}
	return fmt.Sprintf("`%v`", value)
}

// leaderOnly tells whether the action refuses to run elsewhere.
func leaderOnly(a actions.Action) bool {
	_, err := a.Begin(state.Observed{Relations: state.Relations{state.UpgradeEndpoint: {{}}}})
	return err != nil && (strings.Contains(err.Error(), "leader unit") || strings.Contains(err.Error(), "on the Juju leader"))
}

// What an action returns is what the page says: a result that is not in the code
// is none, and status, which has many, is tried.
func TestResults(t *testing.T) {
	t.Parallel()
	for _, a := range actions.All() {
		if results[a.Name] == nil || len(examples[a.Name]) == 0 {
			t.Errorf("the page says nothing of the results of %s, or has no example", a.Name)
		}
	}
	var code strings.Builder
	files, err := filepath.Glob(filepath.Join(root, "actions", "*.go"))
	if err != nil {
		t.Fatal(err)
	}
	for _, file := range files {
		if strings.HasSuffix(file, "_test.go") {
			continue
		}
		text, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		code.Write(text)
	}
	for name, list := range results {
		for _, r := range list {
			last := path.Base(strings.ReplaceAll(r.key, ".", "/"))
			if !strings.Contains(code.String(), `"`+last+`"`) && !strings.Contains(code.String(), `"`+r.key+`"`) {
				t.Errorf("%s returns no %s", name, r.key)
			}
		}
	}
	for _, leader := range []bool{true, false} {
		for key := range statusOf(t, leader) {
			if !slices.ContainsFunc(results["status"], func(r result) bool { return stands(r.key, key) }) {
				t.Errorf("status returns %s, of which the page does not know", key)
			}
		}
	}
}

// stands tells whether a key of the page stands for one of an action.
func stands(pattern, key string) bool {
	p, k := strings.Split(pattern, "."), strings.Split(key, ".")
	return slices.EqualFunc(p, k, func(p, k string) bool { return p == k || p == strings.ToUpper(p) })
}

// statusOf is what the action returns for a cluster with two members and a client.
func statusOf(t *testing.T, leader bool) map[string]string {
	t.Helper()
	w := world()
	w.Leader = leader
	w.Clients = map[int]state.Client{7: {App: "my-application", Problem: state.MessageInvalidRoles}}
	i := slices.IndexFunc(actions.All(), func(a actions.Action) bool { return a.Name == "status" })
	task, err := actions.All()[i].Begin(w.Observed)
	if err != nil {
		t.Fatal(err)
	}
	return task(actions.View{Observed: w.Observed}, &state.Desired{}).Results
}
