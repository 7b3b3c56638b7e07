package localmodel

import (
	"encoding/json"
	"errors"
	"fmt"
	"strings"

	"gopkg.in/yaml.v3"

	"charmhub.io/postgresql-k8s/tests/localmodel/hooktool"
)

// A tool is a hook tool: the flags that it takes, and what it does. Flags that
// take a value are written name=.
type tool struct {
	flags string
	run   func(*session, *call) (any, error)
}

// call is one use of a tool.
type call struct {
	args  []string
	flags map[string]string
	stdin []byte
	piped bool // stdin was asked for and is here
}

// silent is the result of tools that print nothing, not even null.
type silent struct{}

// plain is a result that is printed as it is, whatever the format.
type plain string

// usageError is a fault of the arguments, exit code 2.
type usageError struct{ error }

func usagef(format string, args ...any) error { return usageError{fmt.Errorf(format, args...)} }

var tools = map[string]tool{
	"action-fail":             {"", actionFail},
	"action-get":              {"", actionGet},
	"action-log":              {"", actionLog},
	"action-set":              {"", actionSet},
	"application-version-set": {"", applicationVersionSet},
	"close-port":              {"endpoints=", closePort},
	"config-get":              {"all a", configGet},
	"credential-get":          {"", credentialGet},
	"goal-state":              {"", goalState},
	"is-leader":               {"", isLeader},
	"juju-log":                {"log-level= l= debug", jujuLog},
	"juju-reboot":             {"now", nothing},
	"network-get":             {"bind-address ingress-address egress-subnets relation= r=", networkGet},
	"open-port":               {"endpoints=", openPort},
	"opened-ports":            {"endpoints", openedPorts},
	"relation-get":            {"relation= r= app", relationGet},
	"relation-ids":            {"", relationIDs},
	"relation-list":           {"relation= r= app", relationList},
	"relation-model-get":      {"relation= r=", relationModelGet},
	"relation-set":            {"relation= r= app file=", relationSet},
	"resource-get":            {"", resourceGet},
	"secret-add":              {secretFlags, secretAdd},
	"secret-get":              {"label= peek refresh", secretGet},
	"secret-grant":            {"relation= r= unit=", secretGrant},
	"secret-ids":              {"", secretIDs},
	"secret-info-get":         {"label=", secretInfoGet},
	"secret-remove":           {"revision=", secretRemove},
	"secret-revoke":           {"relation= r= app= application= unit=", secretRevoke},
	"secret-set":              {secretFlags, secretSet},
	"state-delete":            {"", stateDelete},
	"state-get":               {"strict", stateGet},
	"state-set":               {"file=", stateSet},
	"status-get":              {"include-data application", statusGet},
	"status-set":              {"application", statusSet},
	"storage-add":             {"", nothing},
	"storage-get":             {"s=", storageGet},
	"storage-list":            {"", storageList},
	"unit-get":                {"", unitGet},
}

// answer runs a tool and makes its output.
func (s *session) answer(req hooktool.Request, fault Fault) (hooktool.Response, error) {
	t, known := tools[req.CommandName]
	if !known {
		return hooktool.Response{}, fmt.Errorf("bad request: unknown command %q", req.CommandName)
	}
	result, format, err := any(silent{}), "", error(nil)
	if fault == Fail {
		err = errors.New("connection is shut down")
	} else {
		var c *call
		if c, err = parseCall(req, t.flags+" format= output= o="); err == nil {
			format = c.flags["format"]
			result, err = t.run(s, c)
		}
	}
	if errors.Is(err, hooktool.ErrNoStdin) {
		return hooktool.Response{}, err
	}
	if err == nil {
		var out []byte
		if out, err = render(result, format); err == nil {
			return hooktool.Response{Stdout: out}, nil
		}
	}
	resp := hooktool.Response{Code: 1, Stderr: []byte("ERROR " + err.Error() + "\n")}
	if usage := (usageError{}); errors.As(err, &usage) {
		resp.Code = 2
	}
	return resp, nil
}

// parseCall takes flags and arguments apart; they may be mixed, -- ends flags.
func parseCall(req hooktool.Request, flags string) (*call, error) {
	c := &call{flags: map[string]string{}, stdin: req.Stdin, piped: req.StdinSet}
	valued := map[string]bool{}
	for _, flag := range strings.Fields(flags) {
		name, takes := strings.CutSuffix(flag, "=")
		valued[name] = takes
	}
	for args := req.Args; len(args) > 0; {
		arg := args[0]
		args = args[1:]
		if arg == "--" {
			c.args = append(c.args, args...)
			break
		}
		if len(arg) < 2 || arg[0] != '-' {
			c.args = append(c.args, arg)
			continue
		}
		name, value, given := strings.Cut(strings.TrimLeft(arg, "-"), "=")
		takes, known := valued[name]
		switch {
		case !known:
			return nil, usagef("option provided but not defined: %s", arg)
		case !takes && !given:
			value = "true"
		case takes && !given && len(args) == 0:
			return nil, usagef("option needs an argument: %s", arg)
		case takes && !given:
			value, args = args[0], args[1:]
		}
		c.flags[longName(name)] = value
	}
	return c, nil
}

func longName(flag string) string {
	switch flag {
	case "r":
		return "relation"
	case "l":
		return "log-level"
	case "o":
		return "output"
	case "a":
		return "all"
	}
	return flag
}

// on tells whether a switch is set.
func (c *call) on(name string) bool { return c.flags[name] == "true" }

// arg is the i-th argument, or "".
func (c *call) arg(i int) string {
	if i < len(c.args) {
		return c.args[i]
	}
	return ""
}

// render prints a result in a format; smart, the default, is for people.
func render(result any, format string) ([]byte, error) {
	switch result := result.(type) {
	case silent:
		return nil, nil
	case plain:
		return []byte(result), nil
	}
	switch format {
	case "json":
		data, err := json.Marshal(result)
		return append(data, '\n'), err
	case "yaml":
		return yaml.Marshal(result)
	case "", "smart":
		switch result := result.(type) {
		case nil:
			return nil, nil
		case string:
			return []byte(result + "\n"), nil
		case bool:
			return fmt.Appendf(nil, "%s\n", strings.ToUpper(fmt.Sprint(result)[:1])+fmt.Sprint(result)[1:]), nil
		case []string:
			return []byte(strings.Join(append(result, ""), "\n")), nil
		}
		return yaml.Marshal(result)
	}
	return nil, usagef("invalid value %q for option --format: unknown format %q", format, format)
}

// keyValues reads key=value arguments, trimmed as Juju does, and --file.
func (c *call) keyValues(args []string) (map[string]string, error) {
	values := map[string]string{}
	if file, given := c.flags["file"]; given {
		if file != "-" {
			return nil, usagef("cannot read %s: only - is supported here", file)
		}
		if !c.piped {
			return nil, hooktool.ErrNoStdin
		}
		if err := yaml.Unmarshal(c.stdin, &values); err != nil {
			return nil, fmt.Errorf("cannot parse standard input: %w", err)
		}
	}
	for _, arg := range args {
		key, value, found := strings.Cut(arg, "=")
		if !found || key == "" {
			return nil, usagef(`expected "key=value", got %q`, arg)
		}
		values[strings.TrimSpace(key)] = strings.TrimSpace(value)
	}
	return values, nil
}

func nothing(*session, *call) (any, error) { return silent{}, nil }
