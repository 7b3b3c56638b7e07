package localmodel

import (
	"cmp"
	"context"
	"fmt"
	"maps"
	"slices"
)

// An Action is one run of a charm's action.
type Action struct {
	ID      int
	Unit    string
	Name    string
	Params  map[string]any
	Status  string // pending, completed, failed
	Message string
	Results map[string]any
	Log     []string
}

// Exec is one run of a command in a hook's environment, as juju exec.
type Exec struct {
	Command string
	Stdout  string
	Stderr  string
	Code    int
	Err     error
	done    bool
}

// RunAction runs an action and waits for its end.
func (m *Model) RunAction(ctx context.Context, unit, name string, params map[string]any) (Action, error) {
	var a *Action
	err := m.do(func() error {
		u, err := m.unit(unit)
		if err != nil {
			return fmt.Errorf("cannot run action: %w", err)
		}
		spec, known := u.app.charm.Actions[name]
		if !known {
			return fmt.Errorf("cannot run action: action %q not defined on unit %q", name, unit)
		}
		checked, err := spec.check(params)
		if err != nil {
			return fmt.Errorf("cannot run action %s: %w", name, err)
		}
		m.next.action++
		a = &Action{ID: m.next.action, Unit: unit, Name: name, Params: checked, Status: "pending", Results: map[string]any{}}
		m.actions[a.ID] = a
		u.actions = append(u.actions, a)
		return nil
	})
	if err != nil {
		return Action{}, err
	}
	err = m.Wait(ctx, "action "+name, func(Status) bool { return a.Status != "pending" })
	m.mu.Lock()
	defer m.mu.Unlock()
	return *a, err
}

// check validates parameters and fills in defaults.
func (s ActionSpec) check(params map[string]any) (map[string]any, error) {
	checked := map[string]any{}
	for name, param := range s.Params {
		if param.Default != nil {
			checked[name] = param.Default
		}
	}
	for _, name := range s.Required {
		if _, given := params[name]; !given {
			return nil, fmt.Errorf("validation failed: (root) : %q property is missing and required, given %v", name, params)
		}
	}
	for name, value := range params {
		spec, known := s.Params[name]
		if !known && s.Additional != nil && !*s.Additional {
			return nil, fmt.Errorf("validation failed: (root) : additional property %q is not allowed, given %v", name, params)
		}
		if !spec.allows(value) {
			return nil, fmt.Errorf("validation failed: (root).%s : must be of type %s, given %v", name, spec.Type, value)
		}
	}
	maps.Copy(checked, params)
	return checked, nil
}

func (p ParamsSpec) allows(value any) bool {
	switch value.(type) {
	case string:
		return p.Type == "" || p.Type == "string"
	case bool:
		return p.Type == "" || p.Type == "boolean"
	case int, int64, float64:
		return p.Type == "" || slices.Contains([]string{"integer", "number"}, p.Type)
	}
	return true
}

func (u *Unit) dueAction() *Hook {
	if len(u.actions) == 0 {
		return nil
	}
	return &Hook{action: u.actions[0]}
}

// finish notes an action's end. A process that failed says so in words of its
// own, whatever the charm's message was.
func (a *Action) finish(s *session, err error) {
	a.Status = "completed"
	maps.Copy(a.Results, s.results)
	a.Results["return-code"] = s.code
	if s.stdout != "" {
		a.Results["stdout"] = s.stdout
	}
	if s.stderr != "" {
		a.Results["stderr"] = s.stderr
	}
	if s.actionFailed {
		a.Status, a.Message = "failed", s.actionMessage
	}
	if err != nil {
		a.Status, a.Message = "failed", err.Error()
	}
}

// Exec runs a command in the unit's charm container with the environment of a
// hook, and waits for its end.
func (m *Model) Exec(ctx context.Context, unit, command string) (Exec, error) {
	e := &Exec{Command: command}
	err := m.do(func() error {
		u, err := m.unit(unit)
		if err != nil {
			return fmt.Errorf("cannot execute: %w", err)
		}
		u.execs = append(u.execs, e)
		return nil
	})
	if err != nil {
		return Exec{}, err
	}
	err = m.Wait(ctx, "command", func(Status) bool { return e.done })
	m.mu.Lock()
	defer m.mu.Unlock()
	return *e, cmp.Or(err, e.Err)
}

func (u *Unit) dueExec() *Hook {
	if len(u.execs) == 0 {
		return nil
	}
	return &Hook{exec: u.execs[0]}
}

func (e *Exec) finish(s *session, err error) {
	e.Stdout, e.Stderr, e.Code, e.done = s.stdout, s.stderr, s.code, true
	if e.Code == 0 {
		e.Err = err
	}
}
