package localmodel

import (
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"
)

// A Stub is an application without a charm: one unit without a pod or an agent,
// whose databags a test writes. It enters its relations when they are made and
// leaves them when they are removed, as quickly as no charm can.
type Stub struct {
	app  *Application
	asks map[string]string
}

// DeployStub adds an application with one endpoint, on the requiring side of the
// interface.
func (m *Model) DeployStub(name, endpoint, iface string) (*Stub, error) {
	app := &Application{
		model: m, name: name, life: alive, want: 1, token: newUUID(),
		template: template{revision: 1, charm: &Charm{Meta: Metadata{Name: "stub", Requires: map[string]EndpointMeta{endpoint: {Interface: iface}}}}},
		config:   map[string]any{}, status: unset(), ports: map[string][]string{},
	}
	app.stub = &Stub{app: app, asks: map[string]string{}}
	u := app.newUnit(0)
	u.queued, u.agent, u.status = nil, newStatus("idle", ""), newStatus("active", "stub")
	app.units, app.leader = []*Unit{u}, u
	return app.stub, m.do(func() error {
		if m.apps[name] != nil {
			return fmt.Errorf("cannot deploy %s: application already exists", name)
		}
		m.apps[name] = app
		return nil
	})
}

// Name is the application's name.
func (s *Stub) Name() string { return s.app.name }

// Ask changes keys of the stub's databag, in the relations that it has and in
// those that it will have; an empty value removes one.
func (s *Stub) Ask(changes map[string]string) error {
	return s.app.model.do(func() error {
		overlay(s.asks, changes)
		for _, r := range s.relations() {
			r.bag(s.app.name).set(changes)
		}
		return nil
	})
}

// Forget empties the stub's databag.
func (s *Stub) Forget() error {
	s.app.model.mu.Lock()
	none := map[string]string{}
	for key := range s.asks {
		none[key] = ""
	}
	s.app.model.mu.Unlock()
	return s.Ask(none)
}

// Touch changes the databag of the stub's unit, which is an event for the other
// side and no more.
func (s *Stub) Touch() error {
	return s.app.model.do(func() error {
		for _, r := range s.relations() {
			r.bag(s.app.units[0].name).set(map[string]string{"touched": time.Now().Format(time.RFC3339Nano)})
		}
		return nil
	})
}

// RelationID is the id of the stub's relation, the newest if it has several.
func (s *Stub) RelationID() (int, error) {
	s.app.model.mu.Lock()
	defer s.app.model.mu.Unlock()
	r, err := s.newest()
	if err != nil {
		return 0, err
	}
	return r.id, nil
}

// Answer is the other application's databag in the stub's relation.
func (s *Stub) Answer() (map[string]string, error) {
	s.app.model.mu.Lock()
	defer s.app.model.mu.Unlock()
	r, err := s.newest()
	if err != nil {
		return nil, err
	}
	return maps.Clone(r.bag(r.other(s.app).app.name).values), nil
}

// Secret reads the latest revision of a secret, if it is granted to the stub.
func (s *Stub) Secret(uri string) (map[string]string, error) {
	m, u := s.app.model, s.app.units[0]
	m.mu.Lock()
	defer m.mu.Unlock()
	id, err := secretID(uri)
	if err != nil {
		return nil, err
	}
	secret := m.secrets[id]
	switch {
	case secret == nil:
		return nil, fmt.Errorf("secret %q not found", id)
	case !secret.readableBy(u):
		return nil, errors.New("permission denied")
	}
	if secret.readers[u.name] == nil {
		secret.readers[u.name] = &consumer{}
	}
	reader := secret.readers[u.name]
	reader.tracked, reader.told = secret.latest, secret.latest
	return maps.Clone(secret.revisions[secret.latest]), nil
}

// relations are those that the stub is in, the oldest first.
func (s *Stub) relations() []*Relation {
	var found []*Relation
	for _, r := range s.app.model.relations {
		if r.inScope[s.app.units[0]] {
			found = append(found, r)
		}
	}
	slices.SortFunc(found, func(a, b *Relation) int { return a.id - b.id })
	return found
}

func (s *Stub) newest() (*Relation, error) {
	found := s.relations()
	if len(found) == 0 {
		return nil, fmt.Errorf("%s has no relation", s.app.name)
	}
	return found[len(found)-1], nil
}

// enterStubs makes the stubs of a new relation visible in it.
func (r *Relation) enterStubs() {
	for _, e := range r.ends {
		if e.app.stub != nil {
			r.inScope[e.app.units[0]] = true
			r.bag(e.app.name).set(e.app.stub.asks)
		}
	}
}

// leaveStubs takes the stubs of a dying relation out of it.
func (r *Relation) leaveStubs() {
	for _, e := range r.ends {
		if e.app.stub != nil {
			delete(r.inScope, e.app.units[0])
		}
	}
}

// SecretLabels returns the labels of the secrets of an owner that begin with a
// prefix, sorted.
func (m *Model) SecretLabels(owner, prefix string) []string {
	m.mu.Lock()
	defer m.mu.Unlock()
	var labels []string
	for _, s := range m.secrets {
		if s.owner == owner && strings.HasPrefix(s.label, prefix) {
			labels = append(labels, s.label)
		}
	}
	slices.Sort(labels)
	return labels
}

// UpdateStatus lets a unit run update-status now.
func (m *Model) UpdateStatus(unit string) error {
	return m.do(func() error {
		u, err := m.unit(unit)
		if err != nil {
			return fmt.Errorf("cannot update status: %w", err)
		}
		u.updateDue = m.now()
		return nil
	})
}
