package localmodel

import (
	"fmt"
	"os"
)

// A Storage is a directory that outlives the pods that it is mounted in.
type Storage struct {
	ID  string // pgdata/0
	Dir string

	name     string
	app      string
	ordinal  int
	unit     *Unit // that it is attached to, or nil
	attached bool  // the unit has been told
}

// claimStorages gives a new unit its storages: those that a unit of its number
// left behind, or new ones.
func (u *Unit) claimStorages() error {
	m := u.app.model
	for _, name := range sortedKeys(u.app.charm.Meta.Storage) {
		if s := m.leftStorage(u, name); s != nil && !m.opts.FreshStorage {
			s.unit, s.attached = u, false
			continue
		}
		s := &Storage{name: name, app: u.app.name, ordinal: u.ordinal, unit: u}
		s.ID = fmt.Sprintf("%s/%d", name, m.next.storage)
		s.Dir = m.storageDir(s.ID)
		m.next.storage++
		if err := os.MkdirAll(s.Dir, 0o755); err != nil {
			return fmt.Errorf("cannot make storage: %w", err)
		}
		m.storages[s.ID] = s
	}
	return nil
}

func (m *Model) leftStorage(u *Unit, name string) *Storage {
	for _, id := range sortedKeys(m.storages) {
		s := m.storages[id]
		if s.name == name && s.app == u.app.name && s.ordinal == u.ordinal && s.unit == nil {
			return s
		}
	}
	return nil
}

// storage finds the unit's storage of that name.
func (u *Unit) storage(name string) *Storage {
	for _, s := range u.app.model.storages {
		if s.unit == u && s.name == name {
			return s
		}
	}
	return nil
}

func (u *Unit) storageList() []*Storage {
	var list []*Storage
	for _, id := range sortedKeys(u.app.model.storages) {
		if s := u.app.model.storages[id]; s.unit == u {
			list = append(list, s)
		}
	}
	return list
}

// dueStorage finds a storage hook.
func (u *Unit) dueStorage() *Hook {
	for _, s := range u.storageList() {
		switch {
		case u.life != alive && s.attached:
			h := u.storageHook(s, "detaching")
			h.done = func() { s.attached, s.unit = false, nil }
			return h
		case u.life != alive:
			s.unit = nil
		case !s.attached && u.storageKnown():
			h := u.storageHook(s, "attached")
			h.done = func() { s.attached = true }
			return h
		}
	}
	return nil
}

func (u *Unit) storageHook(s *Storage, event string) *Hook {
	return &Hook{Name: s.name + "-storage-" + event, storage: s}
}
