//go:build localmodel

package e2e

import (
	"context"
	"encoding/json"
	"maps"
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"charmhub.io/postgresql-k8s/tests/localmodel"
)

const (
	recorder = "../testdata/recorder"
	recorded = "../testdata/life-juju-4.1.json"
)

// TestSameLifeAsOnJuju leads a charm that writes down what it sees through the
// life that it had on a real Juju. It must see the same: the same hooks in the
// same order where Juju has one, the same variables in its environment, and the
// same answers of hook tools. With LOCALMODEL_RECORDED set to what
// testdata/recorder/record.sh has printed, that becomes the life to compare with.
func TestSameLifeAsOnJuju(t *testing.T) {
	if raw := os.Getenv("LOCALMODEL_RECORDED"); raw != "" {
		remember(t, raw)
	}
	data, err := os.ReadFile(recorded)
	if err != nil {
		t.Fatal(err)
	}
	var juju life
	if err := json.Unmarshal(data, &juju); err != nil {
		t.Fatal(err)
	}
	local := liveOnce(t)
	for _, unit := range union(juju.Hooks, local.Hooks) {
		for _, remote := range union(juju.Hooks[unit], local.Hooks[unit]) {
			if j, l := juju.Hooks[unit][remote], local.Hooks[unit][remote]; !slices.Equal(j, l) {
				t.Errorf("hooks of %s that concern %q:\n on Juju %v\n here    %v", unit, remote, j, l)
			}
		}
	}
	for _, hook := range union(juju.Env, local.Env) {
		if j, l := juju.Env[hook], local.Env[hook]; !slices.Equal(j, l) {
			t.Errorf("environment of %s:\n on Juju %v\n here    %v", hook, j, l)
		}
	}
	for _, question := range union(juju.Answers, local.Answers) {
		if j, l := juju.Answers[question], local.Answers[question]; !slices.Equal(j, l) && !different[question] {
			t.Errorf("%s:\n on Juju %s\n here    %s", question, strings.Join(j, "\n         "), strings.Join(l, "\n         "))
		}
	}
}

func remember(t *testing.T, raw string) {
	text, err := os.ReadFile(raw)
	if err != nil {
		t.Fatal(err)
	}
	data, err := json.MarshalIndent(parseLife(strings.Split(string(text), "\n")), "", "\t")
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(recorded, append(data, '\n'), 0o644); err != nil {
		t.Fatal(err)
	}
}

// different are the questions whose answers differ, for the reasons given in
// the README.
var different = map[string]bool{
	"goal-state --format=json":                             true, // how far a unit's removal is
	"relation-get --format=json -r out:2 --app - recorder": true, // refused here to a unit that does not lead
}

func union[A, B any](a map[string]A, b map[string]B) []string {
	all := map[string]bool{}
	for key := range a {
		all[key] = true
	}
	for key := range b {
		all[key] = true
	}
	return slices.Sorted(maps.Keys(all))
}

// liveOnce is record.sh in the local model.
func liveOnce(t *testing.T) life {
	// What was recorded took less than the five minutes after which one is due.
	w := newWorld(t, func(o *localmodel.Options) { o.Timing.UpdateStatus = time.Hour })
	deploy := func(name string) {
		w.must(w.Deploy(localmodel.Deployment{Charm: recorder, Name: name, Images: map[string]string{"image": image}}))
	}
	type scale = map[string]int // units by application
	// Both sides of a relation at once, since the hooks of one cause those of the other.
	settled := func(units scale) {
		t.Helper()
		all := func(s localmodel.Status) bool {
			for app, n := range units {
				if !s.Settled(app, n) {
					return false
				}
			}
			return true
		}
		w.wait("all units active", all)
		time.Sleep(2 * time.Second) // a pebble-ready may be to come
		w.wait("all units active", all)
	}
	deploy("recorder")
	settled(scale{"recorder": 1})
	w.must(w.SetConfig("recorder", map[string]any{"word": "zwei"}))
	settled(scale{"recorder": 1})
	w.must(w.AddUnit("recorder", 1))
	settled(scale{"recorder": 2})
	_, err := w.RunAction(context.Background(), "recorder/0", "greet", map[string]any{"who": "you"})
	w.must(err)
	deploy("other")
	settled(scale{"other": 1})
	w.must(w.Integrate("recorder:out", "other:in"))
	settled(scale{"recorder": 2, "other": 1})
	w.must(w.RemoveRelation("recorder:out", "other:in"))
	settled(scale{"recorder": 2, "other": 1})
	w.must(w.RemoveUnit("recorder", 1))
	settled(scale{"recorder": 1, "other": 1})
	w.must(w.RemoveApplication("other"))
	w.wait("removal", func(s localmodel.Status) bool { return len(s.Apps) == 1 })

	lines, _ := w.Logs(0)
	var text []string
	for _, line := range lines {
		text = append(text, line.String())
	}
	return parseLife(text)
}

// life is what the recorder wrote.
type life struct {
	Hooks   map[string]map[string][]string // by unit and the remote unit that they concern
	Env     map[string][]string            // names, by kind of hook
	Answers map[string][]string            // by question, sorted
}

var record = regexp.MustCompile(`^unit-(\w+-\d): \S+ INFO \S+ (?:\S+: )?RECORD (.*)`)

// unordered hooks may come at any time.
var unordered = regexp.MustCompile(`storage-attached|pebble-ready`)

func parseLife(lines []string) life {
	l := life{map[string]map[string][]string{}, map[string][]string{}, map[string][]string{}}
	last := map[string]string{}
	for _, line := range lines {
		match := record.FindStringSubmatch(line)
		if match == nil {
			continue
		}
		unit, text := match[1], match[2]
		switch kind, rest, _ := strings.Cut(text, " "); kind {
		case "HOOK":
			words := strings.Fields(rest)
			last[unit] = words[0]
			l.add(unit, words)
		case "ENV":
			l.Env[kindOf(last[unit])] = strings.Fields(rest)
		default:
			question, answer, _ := strings.Cut(variable(rest), " =>")
			if answer = kind + answer; !slices.Contains(l.Answers[question], answer) {
				l.Answers[question] = append(l.Answers[question], answer)
				slices.Sort(l.Answers[question])
			}
		}
	}
	return l
}

// kindOf is a hook without what it is named after.
func kindOf(hook string) string {
	return regexp.MustCompile(`\w+-(relation|storage|pebble)-`).ReplaceAllString(hook, "$1-")
}

// add notes a hook, given with its remote application, unit and who departs.
func (l life) add(unit string, words []string) {
	hook, remote := words[0], ""
	switch {
	case unordered.MatchString(hook):
		return
	case len(words) == 2 && strings.HasSuffix(hook, "-changed"):
		remote = words[1] // its application's databag
	case len(words) > 2:
		remote = strings.Join(words[2:], " ")
	}
	if l.Hooks[unit] == nil {
		l.Hooks[unit] = map[string][]string{}
	}
	seen := l.Hooks[unit][remote]
	switch {
	case len(seen) > 0 && seen[len(seen)-1] == hook:
		return // once or twice: config-changed in Juju 4.1, relation-changed by chance
	case hook == "hooks/start" && slices.Contains(seen, hook), hook == "hooks/ring-relation-broken":
		return // the agent of the dying unit was restarted while Juju was recorded
	}
	l.Hooks[unit][remote] = append(seen, hook)
}

// variable replaces what is never the same.
func variable(text string) string {
	for _, v := range []struct{ form, name string }{
		{`\b10\.\d+\.\d+\.\d+/\d+\b`, "NET"},
		{`\b10\.\d+\.\d+\.\d+\b`, "IP"},
		{`(secret:(//[0-9a-f-]{36}/)?)?\b[0-9a-z]{20}\b`, "SECRET"},
		{`\d{4}-\d\d-\d\d[T ][\d:.]+Z`, "TIME"},
	} {
		text = regexp.MustCompile(v.form).ReplaceAllString(text, v.name)
	}
	return text
}
