package localmodel

import (
	"bytes"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"maps"
	"os"
	"os/exec"
	"slices"

	"charmhub.io/postgresql-k8s/tests/localmodel/hooktool"
)

// A session is one running hook: what its tools have written so far, to be
// committed when the charm exits 0.
type session struct {
	unit    *Unit
	hook    *Hook
	id      string // the context that tools must name
	env     []string
	process *exec.Cmd
	calls   []ToolRecord
	memory  int64

	stdout, stderr string
	code           int

	leader  *bool // the first answer of is-leader, if it was no
	pending pending

	results       map[string]any // of an action
	actionFailed  bool
	actionMessage string
}

// pending is what is written at the end of a hook, all of it or nothing.
type pending struct {
	bags    map[bagKey]map[string]string
	state   map[string]string // "" deletes
	ports   []portChange
	secrets map[string]*Secret // copies of those that are added or changed
	added   map[string]bool
	removed map[string][]int // revisions; none: all
	refresh map[string]bool  // secrets to read at their latest from now on
}

type bagKey struct {
	relation int
	owner    string
}

type portChange struct {
	open     bool
	endpoint string
	port     string
}

func (u *Unit) newSession(h *Hook) *session {
	var random [16]byte
	_, _ = rand.Read(random[:])
	s := &session{
		unit: u, hook: h,
		id: fmt.Sprintf("%s-%s-%s", u.name, h.title(), hex.EncodeToString(random[:])),
		pending: pending{
			bags: map[bagKey]map[string]string{}, state: map[string]string{}, secrets: map[string]*Secret{},
			added: map[string]bool{}, removed: map[string][]int{}, refresh: map[string]bool{},
		},
		results: map[string]any{},
	}
	s.env = s.environment()
	return s
}

// isLeader is what is-leader answers: once no, it stays no in this hook.
func (s *session) isLeader() bool {
	if s.leader == nil {
		if s.unit.isLeader() {
			return true
		}
		no := false
		s.leader = &no
	}
	return *s.leader
}

// handle answers one call of a hook tool, with the faults that a test asks for.
func (s *session) handle(req hooktool.Request) (hooktool.Response, error) {
	m := s.unit.app.model
	if req.ContextId != s.id {
		return hooktool.Response{}, fmt.Errorf("bad request: wrong context ID; got %q", req.ContextId)
	}
	s.unit.reachController()
	fault := m.opts.Faults.tool(ToolCall{Unit: s.unit.name, Hook: s.hook.path(), Tool: req.CommandName, Args: req.Args, Nth: len(s.calls)})
	if fault == KillBefore {
		return hooktool.Response{}, s.kill()
	}
	m.mu.Lock()
	s.memory = max(s.memory, peakMemory(s.process))
	resp, err := s.answer(req, fault)
	if !errors.Is(err, hooktool.ErrNoStdin) {
		s.calls = append(s.calls, ToolRecord{req.CommandName, req.Args, string(req.Stdin), resp.Code, string(resp.Stdout), string(resp.Stderr)})
	}
	m.mu.Unlock()
	if fault == KillAfter && err == nil {
		return resp, s.kill()
	}
	return resp, err
}

// peakMemory is the most that a running process has had resident, or 0. What
// wait4 tells of a process that has ended includes who started it.
func peakMemory(process *exec.Cmd) int64 {
	if process == nil {
		return 0
	}
	status, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", process.Process.Pid))
	if err != nil {
		return 0
	}
	_, text, _ := bytes.Cut(status, []byte("VmHWM:"))
	var kilobytes int64
	_, _ = fmt.Sscan(string(text), &kilobytes)
	return kilobytes << 10
}

// kill ends the charm's process as the kernel does when memory runs out.
func (s *session) kill() error {
	s.unit.app.model.mu.Lock()
	defer s.unit.app.model.mu.Unlock()
	if s.process != nil {
		_ = s.process.Process.Kill()
	}
	return errKilled
}

// commit writes what the hook's tools have asked for, as the controller does:
// all or, when one thing is refused, nothing.
func (s *session) commit() error {
	u, m := s.unit, s.unit.app.model
	if err := m.opts.Faults.commit(u.name, s.hook.path()); err != nil {
		return fmt.Errorf("cannot flush: %w", err)
	}
	if err := s.checkCommit(); err != nil {
		return fmt.Errorf("cannot flush: %w", err)
	}
	p := s.pending
	for key, changes := range p.bags {
		m.relations[key.relation].bag(key.owner).set(changes)
	}
	overlay(u.state, p.state)
	for _, change := range p.ports {
		u.app.changePort(change)
	}
	if len(p.ports) > 0 {
		u.app.updateServicePorts()
	}
	for id, changed := range p.secrets {
		if old := m.secrets[id]; old != nil {
			changed.readers, changed.removeSent = old.readers, old.removeSent
			*old = *changed // others hold on to it
			continue
		}
		m.secrets[id] = changed
	}
	for id, revisions := range p.removed {
		m.removeSecret(id, revisions)
	}
	for id := range p.refresh {
		if c := m.secrets[id]; c != nil && c.readers[u.name] != nil {
			c.readers[u.name].tracked = c.latest
			c.readers[u.name].told = c.latest
		}
	}
	return nil
}

// checkCommit finds what the controller would refuse.
func (s *session) checkCommit() error {
	u, m := s.unit, s.unit.app.model
	for key, changes := range s.pending.bags {
		switch {
		case len(changes) == 0:
		case m.relations[key.relation] == nil:
			return errors.New("relation not found")
		case key.owner == u.app.name && !u.isLeader():
			return fmt.Errorf("checking leadership for %s: %q is not leader of %q", u.name, u.name, u.app.name)
		}
	}
	for _, secret := range s.pending.secrets {
		if secret.owner == u.app.name && !u.isLeader() {
			return fmt.Errorf("%q is not leader of %q", u.name, u.app.name)
		}
	}
	for id, added := range s.pending.secrets {
		for _, other := range m.secrets {
			if added.label != "" && other.id != id && other.owner == added.owner && other.label == added.label {
				return fmt.Errorf("secret with label %q already exists", added.label)
			}
		}
	}
	return nil
}

func (m *Model) removeSecret(id string, revisions []int) {
	secret := m.secrets[id]
	if secret == nil {
		return
	}
	for _, revision := range revisions {
		delete(secret.revisions, revision)
	}
	if len(revisions) == 0 || len(secret.revisions) == 0 {
		delete(m.secrets, id)
	}
}

func (a *Application) changePort(c portChange) {
	ports := slices.DeleteFunc(a.ports[c.endpoint], func(port string) bool { return port == c.port })
	if c.open {
		ports = append(ports, c.port)
		slices.Sort(ports)
	}
	a.ports[c.endpoint] = ports
}

// bag is a databag as this hook sees it: with its own changes.
func (s *session) bag(r *Relation, owner string) map[string]string {
	values := maps.Clone(s.unit.app.model.relations[r.id].bag(owner).values)
	overlay(values, s.pending.bags[bagKey{r.id, owner}])
	return values
}
