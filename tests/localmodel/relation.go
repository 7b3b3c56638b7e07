package localmodel

import (
	"fmt"
	"maps"
	"slices"
	"strings"
)

// A Relation joins an endpoint of one application with one of another, or, for
// peers, the units of one application.
type Relation struct {
	id      int
	iface   string
	life    life
	ends    []*end // one for peers, else the provider's and the requirer's
	bags    map[string]*databag
	inScope map[*Unit]bool // units that have entered and not yet left
}

// end is an application's side of a relation.
type end struct {
	app  *Application
	name string // of the endpoint
	role role
}

// databag is what one unit or application says to the other side.
type databag struct {
	values  map[string]string
	version int // counts changes
}

// end returns the application's own end, or nil.
func (r *Relation) end(app *Application) *end {
	for _, e := range r.ends {
		if e.app == app {
			return e
		}
	}
	return nil
}

// other returns the end that the application talks to: for peers, its own.
func (r *Relation) other(app *Application) *end {
	for _, e := range r.ends {
		if e.app != app {
			return e
		}
	}
	return r.ends[0]
}

func (r *Relation) isPeer() bool { return len(r.ends) == 1 }

// bag returns the databag of a unit or application.
func (r *Relation) bag(owner string) *databag {
	if r.bags[owner] == nil {
		r.bags[owner] = &databag{values: map[string]string{}}
	}
	return r.bags[owner]
}

// set changes a databag; an empty value deletes a key.
func (b *databag) set(changes map[string]string) {
	before := maps.Clone(b.values)
	overlay(b.values, changes)
	if !maps.Equal(before, b.values) {
		b.version++
	}
}

// overlay puts changes into values; an empty one deletes a key.
func overlay(values, changes map[string]string) {
	for key, value := range changes {
		if value == "" {
			delete(values, key)
		} else {
			values[key] = value
		}
	}
}

// key is how hook tools name the relation at an application's end.
func (r *Relation) key(app *Application) string {
	return fmt.Sprintf("%s:%d", r.end(app).name, r.id)
}

// remoteUnits are the units in scope that a unit sees: the other side's, or its
// peers.
func (r *Relation) remoteUnits(u *Unit) []*Unit {
	var found []*Unit
	for _, other := range r.other(u.app).app.units {
		if other != u && r.inScope[other] {
			found = append(found, other)
		}
	}
	return found
}

func (m *Model) addRelation(iface string, ends ...*end) *Relation {
	r := &Relation{
		id: m.next.relation, iface: iface, life: alive, ends: ends,
		bags: map[string]*databag{}, inScope: map[*Unit]bool{},
	}
	m.next.relation++
	m.relations[r.id] = r
	r.enterStubs()
	return r
}

// Integrate relates two applications. Each is given as "application" or
// "application:endpoint".
func (m *Model) Integrate(a, b string) error {
	return m.do(func() error {
		ends, iface, err := m.matchEnds(a, b)
		if err != nil {
			return fmt.Errorf("cannot integrate %s and %s: %w", a, b, err)
		}
		if m.findRelation(ends[0], ends[1]) != nil {
			return fmt.Errorf("cannot integrate %s and %s: relation already exists", a, b)
		}
		m.addRelation(iface, ends...)
		return nil
	})
}

// RemoveRelation ends a relation; ends are given as for Integrate.
func (m *Model) RemoveRelation(a, b string) error {
	return m.do(func() error {
		ends, _, err := m.matchEnds(a, b)
		if err != nil {
			return fmt.Errorf("cannot remove relation of %s and %s: %w", a, b, err)
		}
		r := m.findRelation(ends[0], ends[1])
		if r == nil {
			return fmt.Errorf("cannot remove relation of %s and %s: relation not found", a, b)
		}
		r.life = dying
		r.leaveStubs()
		m.forgetRelation(r)
		return nil
	})
}

// forgetRelation drops a dying relation that nobody is in any more.
func (m *Model) forgetRelation(r *Relation) {
	if r.life == alive || len(r.inScope) > 0 {
		return
	}
	delete(m.relations, r.id)
	for _, s := range m.secrets {
		delete(s.grants, r.id)
	}
}

func (m *Model) findRelation(a, b *end) *Relation {
	for _, r := range m.relations {
		if r.life == alive && len(r.ends) == 2 && *r.ends[0] == *a && *r.ends[1] == *b {
			return r
		}
	}
	return nil
}

// matchEnds finds the one pair of endpoints that fit, provider first.
func (m *Model) matchEnds(a, b string) ([]*end, string, error) {
	var found [][]*end
	var iface string
	left, err := m.candidates(a)
	if err != nil {
		return nil, "", err
	}
	right, err := m.candidates(b)
	if err != nil {
		return nil, "", err
	}
	for _, x := range left {
		for _, y := range right {
			xMeta, _, _ := x.app.charm.Meta.endpoint(x.name)
			yMeta, _, _ := y.app.charm.Meta.endpoint(y.name)
			if xMeta.Interface != yMeta.Interface || x.app == y.app {
				continue
			}
			switch {
			case x.role == provider && y.role == requirer:
				found = append(found, []*end{x, y})
			case x.role == requirer && y.role == provider:
				found = append(found, []*end{y, x})
			default:
				continue
			}
			iface = xMeta.Interface
		}
	}
	if len(found) != 1 {
		return nil, "", fmt.Errorf("%d pairs of endpoints fit, want 1", len(found))
	}
	return found[0], iface, nil
}

// candidates are the ends that "application" or "application:endpoint" may mean.
func (m *Model) candidates(name string) ([]*end, error) {
	appName, endpoint, given := strings.Cut(name, ":")
	app, err := m.app(appName)
	if err != nil {
		return nil, err
	}
	var ends []*end
	for _, endpoints := range []map[string]EndpointMeta{app.charm.Meta.Provides, app.charm.Meta.Requires} {
		for _, e := range sortedKeys(endpoints) {
			if _, side, _ := app.charm.Meta.endpoint(e); !given || e == endpoint {
				ends = append(ends, &end{app, e, side})
			}
		}
	}
	return ends, nil
}

// unitRelation is what a unit's agent knows of a relation: which hooks of it
// have been run.
type unitRelation struct {
	created  bool
	joined   map[*Unit]int // version of the unit's databag that was delivered
	changing *Unit         // joined was run for it, and changed must follow
	app      int           // version of the application's databag that was delivered
	broken   bool

	cache map[string]map[string]string // joined units' databags as first read
}

func (u *Unit) relation(r *Relation) *unitRelation {
	if u.relations[r.id] == nil {
		u.relations[r.id] = &unitRelation{joined: map[*Unit]int{}, cache: map[string]map[string]string{}}
	}
	return u.relations[r.id]
}

// enterScopes makes the unit visible in its relations.
func (u *Unit) enterScopes() {
	for _, r := range u.app.model.relations {
		if r.end(u.app) == nil || r.life != alive || u.life != alive || r.inScope[u] || u.relation(r).broken {
			continue
		}
		r.inScope[u] = true
		address := u.app.model.serviceAddress(u.app)
		r.bag(u.name).set(map[string]string{
			"egress-subnets": address + "/32", "ingress-address": address,
		})
	}
}

// dueCreated finds a relation that the unit has not been told of.
func (u *Unit) dueCreated() *Hook {
	for _, r := range u.app.model.shuffledRelations(u.app) {
		if local := u.relation(r); !local.created && r.life == alive && u.life == alive {
			h := u.relationHook(r, "created", nil)
			h.done = func() { local.created = true }
			return h
		}
	}
	return nil
}

// dueRelation finds the next relation hook after created, non-peers first.
func (u *Unit) dueRelation() *Hook {
	relations := u.app.model.shuffledRelations(u.app)
	slices.SortStableFunc(relations, func(a, b *Relation) int { return len(b.ends) - len(a.ends) })
	for _, r := range relations {
		if h := u.dueOf(r); h != nil {
			return h
		}
	}
	return nil
}

func (u *Unit) dueOf(r *Relation) *Hook {
	local := u.relation(r)
	ending := r.life != alive || u.life != alive
	if local.broken || !local.created && !ending {
		return nil
	}
	if !local.created { // ended before it began
		u.leaveScope(r)
		return nil
	}
	if unit := local.changing; unit != nil {
		return u.changedHook(r, unit)
	}
	present := r.remoteUnits(u)
	for _, unit := range slices.SortedFunc(maps.Keys(local.joined), byName) {
		if ending || !slices.Contains(present, unit) {
			return u.departedHook(r, unit)
		}
	}
	if ending {
		return u.brokenHook(r)
	}
	if bag := r.bag(r.other(u.app).app.name); bag.version > local.app {
		h := u.relationHook(r, "changed", nil)
		version := bag.version
		h.done = func() { local.app = version }
		return h
	}
	for _, unit := range present {
		if _, joined := local.joined[unit]; !joined {
			h := u.relationHook(r, "joined", unit)
			h.done = func() { local.joined[unit], local.changing = 0, unit }
			return h
		}
	}
	for _, unit := range present {
		if r.bag(unit.name).version > local.joined[unit] {
			return u.changedHook(r, unit)
		}
	}
	return nil
}

func byName(a, b *Unit) int { return strings.Compare(a.name, b.name) }

func (u *Unit) changedHook(r *Relation, unit *Unit) *Hook {
	local := u.relation(r)
	h := u.relationHook(r, "changed", unit)
	version := r.bag(unit.name).version
	delete(local.cache, unit.name)
	h.done = func() { local.joined[unit], local.changing = version, nil }
	return h
}

func (u *Unit) departedHook(r *Relation, unit *Unit) *Hook {
	local := u.relation(r)
	h := u.relationHook(r, "departed", unit)
	h.Departing = unit.name
	if u.life != alive {
		h.Departing = u.name
	}
	// A unit that departs is no member any more while its hook runs.
	delete(local.cache, unit.name)
	h.begin = func() { delete(local.joined, unit) }
	h.undo = func() { local.joined[unit] = 0 }
	h.done = func() {
		if local.changing == unit {
			local.changing = nil
		}
	}
	return h
}

func (u *Unit) brokenHook(r *Relation) *Hook {
	if r.isPeer() {
		u.leaveScope(r)
		return nil
	}
	h := u.relationHook(r, "broken", nil)
	h.done = func() { u.leaveScope(r) }
	return h
}

func (u *Unit) leaveScope(r *Relation) {
	u.relation(r).broken = true
	delete(r.inScope, u)
	u.app.model.forgetRelation(r)
}

func (u *Unit) relationHook(r *Relation, event string, unit *Unit) *Hook {
	h := &Hook{Name: r.end(u.app).name + "-relation-" + event, relation: r, RemoteApp: r.other(u.app).app.name}
	if unit != nil {
		h.RemoteUnit = unit.name
	}
	return h
}
