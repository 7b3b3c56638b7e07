package localmodel

import (
	"errors"
	"fmt"
	"maps"
	"regexp"
	"slices"
	"strings"
)

func isLeader(s *session, _ *call) (any, error) { return s.isLeader(), nil }

func configGet(s *session, c *call) (any, error) {
	settings := s.unit.app.settings()
	if key := c.arg(0); key != "" {
		return settings[key], nil
	}
	if !c.on("all") {
		maps.DeleteFunc(settings, func(_ string, value any) bool { return value == nil })
	}
	return settings, nil
}

func credentialGet(s *session, _ *call) (any, error) {
	if !s.unit.app.trust {
		return nil, errors.New("permission denied")
	}
	return map[string]any{"type": "kubernetes", "name": "localmodel"}, nil
}

func resourceGet(_ *session, c *call) (any, error) {
	return nil, fmt.Errorf("could not download resource: resource %q is not a file", c.arg(0))
}

func applicationVersionSet(s *session, c *call) (any, error) {
	if len(c.args) != 1 {
		return nil, usagef("no version specified")
	}
	s.unit.app.version = c.arg(0)
	s.unit.app.model.notify()
	return silent{}, nil
}

func jujuLog(s *session, c *call) (any, error) {
	level := strings.ToUpper(c.flags["log-level"])
	switch {
	case c.on("debug"):
		level = "DEBUG"
	case level == "WARN":
		level = "WARNING"
	case !slices.Contains([]string{"TRACE", "DEBUG", "INFO", "WARNING", "ERROR", "CRITICAL"}, level):
		level = "INFO"
	}
	message := strings.Join(c.args, " ")
	if message == "" {
		return nil, usagef("no message specified")
	}
	if r := s.hook.relation; r != nil {
		message = r.key(s.unit.app) + ": " + message
	}
	s.unit.app.model.logf(s.unit.tag(), level, "unit."+s.unit.name+".juju-log", "%s", message)
	return silent{}, nil
}

// Ports.

func openPort(s *session, c *call) (any, error)  { return s.port(c, true) }
func closePort(s *session, c *call) (any, error) { return s.port(c, false) }

var portForm = regexp.MustCompile(`^\d{1,5}(/(tcp|udp))?$`)

func (s *session) port(c *call, open bool) (any, error) {
	port := c.arg(0)
	switch {
	case port == "":
		return nil, usagef("no port or range specified")
	case strings.Contains(port, "-"):
		return nil, errors.New("port ranges are not supported for k8s applications")
	case !portForm.MatchString(port):
		return nil, usagef("invalid port %q", port)
	case !strings.Contains(port, "/"):
		port += "/tcp"
	}
	for endpoint := range strings.SplitSeq(c.flags["endpoints"], ",") {
		s.pending.ports = append(s.pending.ports, portChange{open, endpoint, port})
	}
	return silent{}, nil
}

// openedPorts does not see what the hook itself has opened, as the real one.
func openedPorts(s *session, _ *call) (any, error) {
	all := []string{}
	for _, ports := range s.unit.app.ports {
		all = append(all, ports...)
	}
	slices.Sort(all)
	return slices.Compact(all), nil
}

// State.

func (s *session) stateValues() map[string]string {
	values := maps.Clone(s.unit.state)
	overlay(values, s.pending.state)
	return values
}

func stateGet(s *session, c *call) (any, error) {
	values := s.stateValues()
	key := c.arg(0)
	value, found := values[key]
	switch {
	case (key == "" || key == "-") && len(values) == 0:
		return nil, nil
	case key == "" || key == "-":
		return values, nil
	case !found && c.on("strict"):
		return nil, fmt.Errorf("%q not found", key)
	}
	return value, nil
}

func stateSet(s *session, c *call) (any, error) {
	values, err := c.keyValues(c.args)
	if err != nil {
		return nil, err
	}
	for key, value := range values {
		if len(key) > 256 || len(value) > 64<<10 {
			return nil, fmt.Errorf("max allowed size exceeded for state key %q", key)
		}
	}
	maps.Copy(s.pending.state, values)
	return silent{}, nil
}

func stateDelete(s *session, c *call) (any, error) {
	s.pending.state[c.arg(0)] = ""
	return silent{}, nil
}

// Statuses.

func statusGet(s *session, c *call) (any, error) {
	of := func(v StatusValue) map[string]any {
		if !c.on("include-data") {
			return map[string]any{"status": v.Status}
		}
		return map[string]any{"status": v.Status, "message": v.Message, "status-data": map[string]any{}}
	}
	if !c.on("application") {
		return of(s.unit.status), nil
	}
	if !s.isLeader() {
		return nil, errors.New("this unit is not the leader")
	}
	units := map[string]any{}
	for _, u := range s.unit.app.units {
		units[u.name] = of(u.status)
	}
	app := of(s.unit.app.shownStatus())
	app["units"] = units
	return map[string]any{"application-status": app}, nil
}

func statusSet(s *session, c *call) (any, error) {
	status := c.arg(0)
	if !slices.Contains([]string{"active", "blocked", "waiting", "maintenance"}, status) {
		return nil, usagef("invalid status %q, expected one of [maintenance blocked waiting active]", status)
	}
	value := newStatus(status, strings.Join(c.args[1:], " "))
	if c.on("application") {
		if !s.isLeader() {
			return nil, errors.New("this unit is not the leader")
		}
		s.unit.app.status = value
	} else {
		s.unit.status = value
	}
	s.unit.app.model.notify()
	return silent{}, nil
}

// Storages.

func storageList(s *session, c *call) (any, error) {
	ids := []string{}
	for _, storage := range s.unit.storageList() {
		if known := storage.attached || s.unit.storageKnown(); known && (c.arg(0) == "" || c.arg(0) == storage.name) {
			ids = append(ids, storage.ID)
		}
	}
	return ids, nil
}

func storageGet(s *session, c *call) (any, error) {
	id := c.flags["s"]
	if id == "" && s.hook.storage != nil {
		id = s.hook.storage.ID
	}
	if id == "" {
		return nil, usagef("no storage instance specified")
	}
	storage := s.unit.app.model.storages[id]
	if storage == nil || storage.unit != s.unit && storage != s.hook.storage {
		return nil, fmt.Errorf("storage %q not found", id)
	}
	values := map[string]string{"kind": "filesystem", "location": s.unit.app.charm.Meta.storageLocation(id)}
	if key := c.arg(0); key != "" {
		return values[key], nil
	}
	return values, nil
}

// Actions.

var errNoAction = errors.New("not running an action")

func actionGet(s *session, c *call) (any, error) {
	if s.hook.action == nil {
		return nil, errNoAction
	}
	if c.arg(0) == "" {
		return s.hook.action.Params, nil
	}
	var value any = s.hook.action.Params
	for key := range strings.SplitSeq(c.arg(0), ".") {
		inner, _ := value.(map[string]any)
		value = inner[key]
	}
	return value, nil
}

var actionKey = regexp.MustCompile(`^[a-z0-9](?:[a-z0-9-]*[a-z0-9])?$`)

func actionSet(s *session, c *call) (any, error) {
	if s.hook.action == nil {
		return nil, errNoAction
	}
	for _, arg := range c.args {
		key, value, found := strings.Cut(arg, "=")
		if !found {
			return nil, usagef("argument %q must be of the form key...=value", arg)
		}
		path := strings.Split(key, ".")
		for _, name := range path {
			if !actionKey.MatchString(name) {
				return nil, usagef("key %q must start and end with lowercase alphanumeric, and contain only lowercase alphanumeric and hyphens", name)
			}
			if slices.Contains([]string{"stdout", "stdout-encoding", "stderr", "stderr-encoding"}, name) {
				return nil, usagef("cannot set reserved action key %q", name)
			}
		}
		into := s.results
		for _, name := range path[:len(path)-1] {
			inner, _ := into[name].(map[string]any)
			if inner == nil {
				inner = map[string]any{}
				into[name] = inner
			}
			into = inner
		}
		into[path[len(path)-1]] = value
	}
	return silent{}, nil
}

func actionFail(s *session, c *call) (any, error) {
	if s.hook.action == nil {
		return nil, errNoAction
	}
	s.actionFailed, s.actionMessage = true, cmpOr(c.arg(0), "action failed without reason given, check action for errors")
	return silent{}, nil
}

func actionLog(s *session, c *call) (any, error) {
	if s.hook.action == nil {
		return nil, errNoAction
	}
	s.hook.action.Log = append(s.hook.action.Log, strings.Join(c.args, " "))
	return silent{}, nil
}
