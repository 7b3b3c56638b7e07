package localmodel

import (
	"crypto/rand"
	"fmt"
	"maps"
	"regexp"
	"slices"
	"strings"
	"time"
)

// A Secret is owned by a unit or an application, by name, and read by others
// through relations that it is granted to.
type Secret struct {
	id          string
	owner       string
	label       string
	description string
	rotate      string
	rotateDue   time.Time // zero: never
	expire      *time.Time
	revisions   map[int]map[string]string // those not removed
	latest      int
	grants      map[int]grant        // by relation
	readers     map[string]*consumer // by unit
	removeSent  map[int]bool         // revisions that the owner was told nobody needs
}

// grant lets one side of a relation read a secret.
type grant struct{ to string } // an application, or a unit

// consumer is how a unit reads a secret.
type consumer struct {
	label   string
	tracked int // the revision that it reads until it refreshes
	told    int // the revision that secret-changed was last run for, or that it has seen
}

var secretKey = regexp.MustCompile(`^([a-z](?:-?[a-z0-9]){2,})$`)

func newSecretID() string {
	return strings.ToLower(rand.Text())[:20]
}

// secretURI is what a secret is named by: an id, or a URI with or without its
// model.
var secretURI = regexp.MustCompile(`^(?:secret:(?://[0-9a-f-]{36}/)?)?([0-9a-z]{20})$`)

// secretID takes the id out of the forms of a secret's URI.
func secretID(uri string) (string, error) {
	match := secretURI.FindStringSubmatch(uri)
	if match == nil {
		return "", usagef("secret URI %q not valid", uri)
	}
	return match[1], nil
}

// ownedBy tells whether the unit, or its application, owns the secret.
func (s *Secret) ownedBy(u *Unit) bool { return s.owner == u.name || s.owner == u.app.name }

// managedBy tells whether the unit may change the secret.
func (s *Secret) managedBy(u *Unit, leader bool) bool {
	return s.owner == u.name || leader && s.owner == u.app.name
}

// readableBy tells whether the unit may read the secret.
func (s *Secret) readableBy(u *Unit) bool {
	if s.ownedBy(u) {
		return true
	}
	for _, g := range s.grants {
		if g.to == u.name || g.to == u.app.name {
			return true
		}
	}
	return false
}

func (s *Secret) copy() *Secret {
	c := *s
	c.revisions = maps.Clone(s.revisions)
	c.grants = maps.Clone(s.grants)
	return &c
}

// rotations are the policies and how long after each other they rotate a secret.
var rotations = map[string]time.Duration{
	"never": 0, "hourly": time.Hour, "daily": 24 * time.Hour, "weekly": 7 * 24 * time.Hour,
	"monthly": 30 * 24 * time.Hour, "quarterly": 91 * 24 * time.Hour, "yearly": 365 * 24 * time.Hour,
}

// rotateAgain is when an owner is told again who did not make a new revision.
const rotateAgain = 5 * time.Minute

// setRotation sets the policy; a new one counts from now on.
func (s *Secret) setRotation(policy string, now time.Time) {
	switch {
	case policy == "never":
		s.rotateDue = time.Time{}
	case policy != s.rotate:
		s.rotateDue = now.Add(rotations[policy])
	}
	s.rotate = policy
}

// rotated notes that the owner was told to rotate the secret.
func (s *Secret) rotated(now time.Time, before int) {
	switch {
	case s.rotate == "never":
	case s.latest == before:
		s.rotateDue = now.Add(rotateAgain)
	default:
		s.rotateDue = now.Add(rotations[s.rotate])
	}
}

// addRevision adds content, unless it is the latest already.
func (s *Secret) addRevision(content map[string]string) {
	if maps.Equal(s.revisions[s.latest], content) && s.latest > 0 {
		return
	}
	s.latest++
	s.revisions[s.latest] = content
}

// dueSecret finds the next secret hook of the unit.
func (u *Unit) dueSecret() *Hook {
	m := u.app.model
	for _, id := range sortedKeys(m.secrets) {
		s := m.secrets[id]
		if s.expire != nil && m.now().After(*s.expire) && s.managedBy(u, u.isLeader()) && u.expiredTold[id] != s.latest {
			h := u.secretHook("expired", id, s.label)
			h.SecretRevision = s.latest
			h.done = func() { u.expiredTold[id] = s.latest }
			return h
		}
	}
	for _, id := range sortedKeys(m.secrets) {
		s := m.secrets[id]
		if !s.rotateDue.IsZero() && !m.now().Before(s.rotateDue) && s.managedBy(u, u.isLeader()) {
			h, before := u.secretHook("rotate", id, s.label), s.latest
			h.done = func() { s.rotated(m.now(), before) }
			return h
		}
	}
	for _, id := range sortedKeys(m.secrets) {
		s := m.secrets[id]
		if c := s.readers[u.name]; c != nil && c.told < s.latest {
			label := c.label
			if s.ownedBy(u) {
				label = s.label
			}
			h := u.secretHook("changed", "secret:"+id, label)
			latest := s.latest
			h.done = func() { c.told = max(c.told, latest) }
			return h
		}
	}
	for _, id := range sortedKeys(m.secrets) {
		s := m.secrets[id]
		if !s.managedBy(u, u.isLeader()) {
			continue
		}
		if revision, found := s.obsolete(); found {
			h := u.secretHook("remove", id, s.label)
			h.SecretRevision = revision
			h.done = func() { s.removeSent[revision] = true }
			return h
		}
	}
	return nil
}

// obsolete finds a revision that is not the latest, that nobody reads, and that
// the owner was not told of.
func (s *Secret) obsolete() (int, bool) {
	for _, revision := range slices.Sorted(maps.Keys(s.revisions)) {
		if revision == s.latest || s.removeSent[revision] {
			continue
		}
		if !slices.ContainsFunc(slices.Collect(maps.Values(s.readers)), func(c *consumer) bool { return c.tracked == revision }) {
			return revision, true
		}
	}
	return 0, false
}

// secretHook makes a hook. Juju 4.1 names the secret by a bare id to the owner,
// and by a URI to who reads it.
func (u *Unit) secretHook(event, name, label string) *Hook {
	return &Hook{Name: "secret-" + event, SecretID: name, SecretLabel: label}
}

// SecretContent returns the latest content of a secret, for tests that want to
// know what the charm keeps.
func (m *Model) SecretContent(owner, label string) (map[string]string, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, s := range m.secrets {
		if s.owner == owner && s.label == label {
			return maps.Clone(s.revisions[s.latest]), nil
		}
	}
	return nil, fmt.Errorf("%s has no secret labelled %q", owner, label)
}
