package localmodel

import (
	"fmt"
	"time"
)

// A Fault is what happens to a call of a running charm.
type Fault int

// What may happen to a call. The kills are SIGKILLs of the charm's process.
const (
	NoFault    Fault = iota
	KillBefore       // killed, the call had no effect
	KillAfter        // killed, the call had its effect
	Fail             // the call fails and has no effect
)

// Faults let a test do harm to charms. The functions may be nil; they must not
// call the model.
type Faults struct {
	Tool   func(ToolCall) Fault                  // at each call of a hook tool
	Pebble func(PebbleCall) Fault                // at each request to a Pebble
	Commit func(unit, dispatchPath string) error // an error refuses a hook's changes
}

// A ToolCall is a hook tool about to be run.
type ToolCall struct {
	Unit string
	Hook string // the dispatch path
	Tool string
	Args []string
	Nth  int // in this dispatch, from 0
}

// A PebbleCall is a request of a charm to a Pebble.
type PebbleCall struct {
	Unit      string
	Container string
	Method    string
	Path      string
}

func (f Faults) tool(call ToolCall) Fault {
	if f.Tool == nil {
		return NoFault
	}
	return f.Tool(call)
}

func (f Faults) commit(unit, path string) error {
	if f.Commit == nil {
		return nil
	}
	return f.Commit(unit, path)
}

// pebbleFaults is what a unit's pod asks at each request to Pebble, or nil.
func (m *Model) pebbleFaults(u *Unit) func(PebbleCall) Fault {
	decide := m.opts.Faults.Pebble
	if decide == nil {
		return nil
	}
	return func(call PebbleCall) Fault {
		call.Unit = u.name
		return decide(call)
	}
}

// killDispatch kills the charm's process of a unit, if one runs.
func (u *Unit) killDispatch() {
	u.app.model.mu.Lock()
	defer u.app.model.mu.Unlock()
	if u.running != nil {
		_ = u.running.Process.Kill()
	}
}

// KillCharm kills the charm's process of a unit, and tells whether one ran.
func (m *Model) KillCharm(unit string) (bool, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	u, err := m.unit(unit)
	if err != nil || u.running == nil {
		return false, err
	}
	return u.running.Process.Kill() == nil, nil
}

// CutAgent cuts a unit's agent off from the controller, or ends that. An agent
// that is cut off runs no hooks, the hook tools of the one that runs wait, and its
// leadership runs out. In a new pod it is connected.
func (m *Model) CutAgent(unit string, cut bool) error {
	return m.do(func() error {
		u, err := m.unit(unit)
		if err != nil {
			return fmt.Errorf("cannot cut off agent: %w", err)
		}
		u.cutSince = time.Time{}
		if cut {
			u.cutSince = m.now()
		}
		return nil
	})
}

// reachController returns when the agent reaches the controller, or never will
// from this pod.
func (u *Unit) reachController() {
	m := u.app.model
	for {
		m.mu.Lock()
		waits, changed := !u.cutSince.IsZero() && u.replacing == nil, m.changed
		m.mu.Unlock()
		if !waits {
			return
		}
		select {
		case <-changed:
		case <-m.ctx.Done():
			return
		}
	}
}

// KillPod ends a unit's pod at once, as when its node dies. The unit comes back
// in a new pod with another address.
func (m *Model) KillPod(unit string) error { return m.replacePod(unit, 0) }

// DeletePod ends a unit's pod as kubectl delete does, with time to stop.
func (m *Model) DeletePod(unit string) error { return m.replacePod(unit, m.opts.Timing.Grace) }

func (m *Model) replacePod(unit string, grace time.Duration) error {
	m.mu.Lock()
	u, err := m.unit(unit)
	m.mu.Unlock()
	if err != nil {
		return fmt.Errorf("cannot end pod: %w", err)
	}
	u.replacePod(grace)
	return nil
}

// Pod returns the pod that a unit has now.
func (m *Model) Pod(unit string) (Pod, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	u, err := m.unit(unit)
	if err == nil && u.pod == nil {
		err = fmt.Errorf("%s has no pod yet", unit)
	}
	if err != nil {
		return nil, err
	}
	return u.pod, nil
}
