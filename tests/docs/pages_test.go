package docs

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"charmhub.io/postgresql-k8s/actions"
	"charmhub.io/postgresql-k8s/charm/config"
)

const app = "postgresql-k8s"

// pages returns what people read, by path below the root.
func pages(t *testing.T) map[string]string {
	t.Helper()
	all := map[string]string{}
	read := func(file string) {
		text, err := os.ReadFile(filepath.Join(root, file))
		if err != nil {
			t.Fatal(err)
		}
		all[file] = string(text)
	}
	read("README.md")
	read("CONTRIBUTING.md")
	err := fs.WalkDir(os.DirFS(root), "docs", func(file string, _ fs.DirEntry, err error) error {
		if strings.HasSuffix(file, ".md") {
			read(file)
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return all
}

var (
	fence = regexp.MustCompile("(?ms)^```[a-z]*\n(.*?)^```$")
	span  = regexp.MustCompile("`([^`\n]+)`")
	link  = regexp.MustCompile(`\]\(([^)\s]+)\)`)
	title = regexp.MustCompile(`(?m)^#+ (.+)$`)
)

// commands are the juju commands of a page, in its blocks and within its lines.
func commands(page string) []string {
	var all []string
	add := func(line string) {
		if line = strings.TrimPrefix(strings.TrimSpace(line), "$ "); strings.HasPrefix(line, "juju ") {
			all = append(all, line)
		}
	}
	for _, block := range fence.FindAllStringSubmatch(page, -1) {
		for line := range strings.Lines(strings.ReplaceAll(block[1], "\\\n", " ")) {
			line, _, _ = strings.Cut(line, " #")
			add(line)
		}
	}
	for _, code := range span.FindAllStringSubmatch(fence.ReplaceAllString(page, ""), -1) {
		add(code[1])
	}
	return all
}

func TestCommandsWork(t *testing.T) {
	t.Parallel()
	c := declared(t)
	for file, page := range pages(t) {
		for _, command := range commands(page) {
			if err := check(c, command); err != nil {
				t.Errorf("%s: %s: %v", file, command, err)
			}
		}
	}
}

// What the check finds, so that one can rely on it.
func TestCheck(t *testing.T) {
	t.Parallel()
	c := declared(t)
	for command, want := range map[string]string{
		"juju run postgresql-k8s/0 get-primary":                             "",
		"juju run postgresql-k8s/0 get-primaries":                           "no action get-primaries",
		"juju run postgresql-k8s/0 get-password user=operator":              "no parameter user",
		"juju run postgresql-k8s/0 set-password":                            "on the leader",
		"juju run postgresql-k8s get-primary":                               "needs a unit",
		"juju run data-integrator/leader get-credentials":                   "",
		"juju config postgresql-k8s profile":                                "",
		"juju config postgresql-k8s profile=testing":                        "",
		"juju config postgresql-k8s profile=fast":                           "profile must be one of",
		"juju config postgresql-k8s profile_limit_memory=much":              "must be a whole number",
		"juju config postgresql-k8s colour=red":                             "no option colour",
		"juju config postgresql-k8s --reset colour":                         "no option colour",
		"juju deploy postgresql-k8s --trust --config colour=red":            "no option colour",
		"juju deploy postgresql-k8s --trust --resource image=x":             "no resource image",
		"juju deploy postgresql-k8s -n 3 --trust":                           "",
		"juju deploy postgresql-k8s -n 3":                                   "without --trust",
		"juju integrate postgresql-k8s:database app":                        "",
		"juju integrate postgresql-k8s:postgresql app":                      "no endpoint postgresql",
		"juju remove-relation app:db postgresql-k8s:dbs":                    "no endpoint dbs",
		"juju ssh --container postgres postgresql-k8s/0":                    "no container postgres",
		"juju run-action postgresql-k8s/0 get-primary --wait":               "no command run-action",
		"juju run postgresql-k8s/1 promote-to-primary scope=unit --wait=2m": "",
	} {
		err := check(c, command)
		if got := fmt.Sprint(err); want == "" && err != nil || want != "" && !strings.Contains(got, want) {
			t.Errorf("%s: %s, want %q", command, got, want)
		}
	}
}

// known are the commands of Juju 3.6 and later that pages have.
var known = []string{
	"add-model", "add-unit", "attach-resource", "bootstrap", "config", "debug-log", "deploy", "destroy-model", "exec", "integrate", "operations", "model-config", "refresh",
	"remove-application", "remove-relation", "remove-storage", "remove-unit", "resources", "run", "scale-application", "show-operation", "show-status-log", "show-unit", "ssh", "status", "storage", "trust",
}

// valued are flags that are followed by a value.
var valued = []string{"-n", "-m", "--config", "--resource", "--container", "--include", "--reset", "--watch", "--channel", "--revision", "--path", "--wait", "--scope", "--format", "--unit", "--storage", "--constraints", "--attach-storage"}

// check tells what is wrong with a command.
func check(c charmcraft, command string) error {
	fields := strings.Fields(command)[1:]
	name, words, flags := fields[0], []string{}, map[string][]string{}
	if !slices.Contains(known, name) {
		return fmt.Errorf("there is no command %s, or tests/docs does not know it", name)
	}
	for i := 1; i < len(fields); i++ {
		flag, value, given := strings.Cut(fields[i], "=")
		switch {
		case !strings.HasPrefix(flag, "-"):
			words = append(words, fields[i])
		case !given && slices.Contains(valued, flag) && i+1 < len(fields):
			i++
			flags[flag] = append(flags[flag], fields[i])
		default:
			flags[flag] = append(flags[flag], value)
		}
	}
	about := func(word string) bool { // <unit> is one of ours
		return word == app || strings.HasPrefix(word, app+"/") || strings.HasPrefix(word, app+"_") || strings.HasPrefix(word, "./dist/"+app+"_") || word == "<unit>"
	}
	for _, container := range flags["--container"] {
		if _, ok := c.Containers[container]; !ok {
			return fmt.Errorf("there is no container %s", container)
		}
	}
	switch name {
	case "integrate", "remove-relation":
		return endpoints(c, words)
	case "run":
		if len(words) > 1 && strings.HasPrefix(words[0], app) || len(words) > 1 && words[0] == "<unit>" {
			return run(c, words)
		}
	case "config", "deploy", "refresh":
		if len(words) == 0 || !about(words[0]) {
			return nil
		}
		if _, trusted := flags["--trust"]; name == "deploy" && !trusted {
			return errors.New("without --trust the units are blocked")
		}
		settings := append(slices.Clone(words[1:]), flags["--config"]...)
		for _, list := range flags["--reset"] {
			settings = append(settings, strings.Split(list, ",")...)
		}
		return errors.Join(options(settings), resources(c, flags["--resource"]))
	}
	return nil
}

func endpoints(c charmcraft, words []string) error {
	for _, word := range words {
		name, endpoint, given := strings.Cut(word, ":")
		_, provided := c.Provides.get(endpoint)
		_, required := c.Requires.get(endpoint)
		if name == app && given && !provided && !required {
			return fmt.Errorf("there is no endpoint %s", endpoint)
		}
	}
	return nil
}

func run(c charmcraft, words []string) error {
	if strings.Contains(words[1], "<") {
		return nil // it stands for any
	}
	spec, ok := c.Actions.get(words[1])
	if !ok {
		if !strings.Contains(words[0], "/") {
			return errors.New("it needs a unit")
		}
		return fmt.Errorf("there is no action %s", words[1])
	}
	if !strings.Contains(words[0], "/") && words[0] != "<unit>" {
		return errors.New("it needs a unit")
	}
	for _, word := range words[2:] {
		name, _, _ := strings.Cut(word, "=")
		if _, ok := spec.Params.get(name); !ok && !strings.Contains(word, "[") {
			return fmt.Errorf("%s has no parameter %s", words[1], name)
		}
	}
	i := slices.IndexFunc(actions.All(), func(a actions.Action) bool { return a.Name == words[1] })
	if leaderOnly(actions.All()[i]) && words[0] != app+"/leader" {
		return errors.New("it runs on the leader only")
	}
	return nil
}

// options checks settings, or names of options.
func options(settings []string) error {
	for _, setting := range settings {
		name, value, set := strings.Cut(setting, "=")
		i := slices.IndexFunc(config.Options, func(o config.Option) bool { return o.Name == name })
		switch {
		case i < 0:
			return fmt.Errorf("there is no option %s", name)
		case !set:
			continue
		}
		if err := config.Parse(map[string]any{name: typed(config.Options[i].Type, value)}).Err(); err != nil {
			return err
		}
	}
	return nil
}

// typed is a value as Juju reads it.
func typed(kind, value string) any {
	var n int64
	switch {
	case kind == "boolean" && (value == "true" || value == "false"):
		return value == "true"
	case kind == "int":
		if _, err := fmt.Sscan(value, &n); err == nil {
			return n
		}
	}
	return value
}

func resources(c charmcraft, list []string) error {
	for _, resource := range list {
		name, _, _ := strings.Cut(resource, "=")
		if _, ok := c.Resources[name]; !ok {
			return fmt.Errorf("there is no resource %s", name)
		}
	}
	return nil
}

func TestLinksLeadSomewhere(t *testing.T) {
	t.Parallel()
	all := pages(t)
	for file, page := range all {
		for _, match := range link.FindAllStringSubmatch(fence.ReplaceAllString(page, ""), -1) {
			if strings.Contains(match[1], "://") {
				continue
			}
			target, anchor, _ := strings.Cut(match[1], "#")
			to := file
			if target != "" {
				to = filepath.Join(filepath.Dir(file), target)
			}
			if _, err := os.Stat(filepath.Join(root, to)); err != nil {
				t.Errorf("%s links to %s, which is not there", file, match[1])
			} else if anchor != "" && !slices.Contains(anchors(all[to]), anchor) {
				t.Errorf("%s links to %s, which has no such heading: %v", file, match[1], anchors(all[to]))
			}
		}
	}
}

// anchors are those of a page's headings, as GitHub makes them.
func anchors(page string) []string {
	var all []string
	for _, match := range title.FindAllStringSubmatch(fence.ReplaceAllString(page, ""), -1) {
		slug := regexp.MustCompile(`[^\p{L}\p{N}\- _]`).ReplaceAllString(strings.ToLower(match[1]), "")
		all = append(all, strings.ReplaceAll(slug, " ", "-"))
	}
	return all
}

func TestEveryPageIsInTheIndex(t *testing.T) {
	t.Parallel()
	all := pages(t)
	for file := range all {
		name, ok := strings.CutPrefix(file, "docs/")
		if ok && name != "README.md" && !strings.Contains(all["docs/README.md"], "]("+name+")") {
			t.Errorf("docs/README.md does not list %s", name)
		}
	}
}
