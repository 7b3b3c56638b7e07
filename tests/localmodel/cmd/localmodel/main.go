// Command localmodel runs a Juju model on this machine, and speaks to it under
// the names that Juju's own commands have.
package main

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"text/tabwriter"
)

// command is one thing that can be said to localmodel.
type command struct {
	usage, help string
	run         func(client, arguments) error
}

var commands = map[string]command{
	"up":                 {"[--image DIR] [--fast]", "run a model until interrupted; all other commands speak to it", nil},
	"down":               {"", "end the model that is up", nil},
	"deploy":             {"<charm> [name] [-n UNITS] [--trust] [--config K=V] [--resource NAME=DIR]", "deploy a packed charm", deploy},
	"add-unit":           {"<application> [-n COUNT]", "add units", scale("add-unit")},
	"remove-unit":        {"<application> [--num-units COUNT]", "remove the last units", scale("remove-unit")},
	"remove-application": {"<application>", "remove an application", one("remove-application", "application")},
	"integrate":          {"<application[:endpoint]> <application[:endpoint]>", "relate two applications", two("integrate")},
	"remove-relation":    {"<application[:endpoint]> <application[:endpoint]>", "end a relation", two("remove-relation")},
	"config":             {"<application> [K=V ...] [--reset K,...]", "show or set configuration", config},
	"trust":              {"<application> [--remove]", "give access to the Kubernetes API", trust},
	"refresh":            {"<application> --path <charm> [--resource NAME=DIR]", "replace the charm, pod by pod", refresh},
	"run":                {"<unit> <action> [K=V ...]", "run an action", runAction},
	"status":             {"[--relations] [--watch INTERVAL] [--format json]", "show the model", status},
	"show-unit":          {"<unit>", "show what a unit's relations hold", showUnit},
	"debug-log":          {"[--no-tail] [--lines N]", "show the log", debugLog},
	"exec":               {"--unit <unit> -- <command>", "run a command as in a hook", execute},
	"ssh":                {"[--container NAME] <unit> [command ...]", "enter a container", ssh},
	"logs":               {"[--container NAME] <unit>", "show what a container has printed", logs},
	"delete-pod":         {"<unit>", "delete a unit's pod, as kubectl does", one("delete-pod", "unit")},
	"kill-pod":           {"<unit>", "end a unit's pod at once, as when its node dies", one("kill-pod", "unit")},
	"kill-container":     {"<unit> <container>", "end a container of a unit's pod", two("kill-container")},
	"freeze":             {"<unit> <container>", "stop what runs in a container, and what is started in it", two("freeze")},
	"thaw":               {"<unit> <container>", "let them go on", two("thaw")},
	"disconnect":         {"<unit>", "cut a unit's pod off from the network", one("disconnect", "unit")},
	"connect":            {"<unit>", "plug it in again", one("connect", "unit")},
	"kill-charm":         {"<unit>", "kill the charm's process, if one runs", one("kill-charm", "unit")},
	"wait":               {"<application> [-n UNITS] [--timeout 5m]", "wait until an application's units are active", waitFor},
}

func main() {
	if err := run(os.Args[1:]); err != nil {
		fmt.Fprintln(os.Stderr, "ERROR", err)
		os.Exit(1)
	}
}

func run(args []string) error {
	if len(args) == 0 || args[0] == "help" || args[0] == "--help" {
		return help()
	}
	name := args[0]
	c, known := commands[name]
	if !known {
		return fmt.Errorf("%q is not a localmodel command; see localmodel help", name)
	}
	parsed, err := parse(args[1:], literal[name])
	if err != nil {
		return fmt.Errorf("%w; usage: localmodel %s %s", err, name, c.usage)
	}
	switch name {
	case "up":
		return up(stateDir(), parsed)
	case "down":
		return down(stateDir())
	}
	if err := c.run(client{filepath.Join(stateDir(), socketName)}, parsed); err != nil {
		if usage := (usageError{}); asUsage(err, &usage) {
			return fmt.Errorf("%w; usage: localmodel %s %s", err, name, c.usage)
		}
		return err
	}
	return nil
}

func help() error {
	fmt.Println("A Juju model on this machine. Commands:")
	names := []string{}
	for name := range commands {
		names = append(names, name)
	}
	slices.Sort(names)
	w := tabwriter.NewWriter(os.Stdout, 0, 8, 2, ' ', 0)
	for _, name := range names {
		_, _ = fmt.Fprintf(w, "  %s %s\t%s\n", name, commands[name].usage, commands[name].help)
	}
	return w.Flush()
}

// stateDir is where the model keeps everything.
func stateDir() string {
	if dir := os.Getenv("LOCALMODEL_DIR"); dir != "" {
		return dir
	}
	return "/var/lib/postgresql-k8s-localmodel/model"
}

// arguments are a command's words and flags.
type arguments struct {
	words []string
	flags map[string][]string
	rest  []string // what follows --
}

// switches are the flags without a value.
var switches = []string{"trust", "remove", "relations", "no-tail", "fast"}

// literal says after how many words a command's line is somebody else's.
var literal = map[string]int{"ssh": 1}

func parse(args []string, literal int) (arguments, error) {
	a := arguments{flags: map[string][]string{}}
	for len(args) > 0 {
		if literal > 0 && len(a.words) == literal {
			a.rest = args
			return a, nil
		}
		arg := args[0]
		args = args[1:]
		switch {
		case arg == "--":
			a.rest = args
			return a, nil
		case !strings.HasPrefix(arg, "-"):
			a.words = append(a.words, arg)
			continue
		}
		name, value, given := strings.Cut(strings.TrimLeft(arg, "-"), "=")
		switch {
		case slices.Contains(switches, name):
			value = "true"
		case !given && len(args) == 0:
			return a, fmt.Errorf("flag %s needs a value", arg)
		case !given:
			value, args = args[0], args[1:]
		}
		a.flags[name] = append(a.flags[name], value)
	}
	return a, nil
}

func (a arguments) flag(names ...string) string {
	for _, name := range names {
		if values := a.flags[name]; len(values) > 0 {
			return values[len(values)-1]
		}
	}
	return ""
}

func (a arguments) on(name string) bool { return a.flag(name) == "true" }

func (a arguments) word(i int) string {
	if i < len(a.words) {
		return a.words[i]
	}
	return ""
}
