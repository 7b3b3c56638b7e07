package localmodel

import (
	"encoding/base64"
	"errors"
	"fmt"
	"maps"
	"strconv"
	"strings"
	"time"

	"gopkg.in/yaml.v3"
)

const secretFlags = "label= description= expire= rotate= owner= file="

// secret finds a secret by URI: one that this hook has changed, or the model's.
func (s *session) secret(uri string) (*Secret, error) {
	id, err := secretID(uri)
	if err != nil {
		return nil, err
	}
	revisions, removed := s.pending.removed[id]
	if changed := s.pending.secrets[id]; changed != nil {
		return changed, nil
	}
	if stored := s.unit.app.model.secrets[id]; stored != nil && !(removed && len(revisions) == 0) {
		return stored, nil
	}
	return nil, fmt.Errorf("secret %q not found", id)
}

// ownSecret finds a secret that the unit may change, as a copy to change.
func (s *session) ownSecret(uri string) (*Secret, error) {
	secret, err := s.secret(uri)
	if err != nil {
		return nil, err
	}
	if !secret.managedBy(s.unit, s.isLeader()) {
		if secret.owner == s.unit.app.name {
			return nil, errors.New("this unit is not the leader")
		}
		return nil, errors.New("permission denied")
	}
	if s.pending.secrets[secret.id] == nil {
		secret = secret.copy()
		s.pending.secrets[secret.id] = secret
	}
	return secret, nil
}

func secretAdd(s *session, c *call) (any, error) {
	content, err := s.secretContent(c, c.args)
	if err != nil {
		return nil, err
	}
	if len(content) == 0 {
		return nil, usagef("missing secret value or filename")
	}
	secret := &Secret{
		id: newSecretID(), owner: s.unit.app.name, rotate: "never",
		revisions: map[int]map[string]string{}, grants: map[int]grant{},
		readers: map[string]*consumer{}, removeSent: map[int]bool{},
	}
	if c.flags["owner"] == "unit" {
		secret.owner = s.unit.name
	} else if !s.isLeader() {
		return nil, errors.New("this unit is not the leader")
	}
	if label := c.flags["label"]; label != "" && s.byLabel(label, secret.owner) != nil {
		return nil, fmt.Errorf("secret with label %q already exists", label)
	}
	if err := secret.describe(c, s.unit.app.model.now()); err != nil {
		return nil, err
	}
	secret.addRevision(content)
	s.pending.secrets[secret.id] = secret
	s.pending.added[secret.id] = true
	return plain("secret://" + s.unit.app.model.uuid + "/" + secret.id + "\n"), nil
}

func secretSet(s *session, c *call) (any, error) {
	if c.arg(0) == "" {
		return nil, usagef("missing secret URI")
	}
	secret, err := s.ownSecret(c.arg(0))
	if err != nil {
		return nil, err
	}
	content, err := s.secretContent(c, c.args[1:])
	if err != nil {
		return nil, err
	}
	if err := secret.describe(c, s.unit.app.model.now()); err != nil {
		return nil, err
	}
	if len(content) == 0 {
		return silent{}, nil
	}
	// One hook makes one revision; only what Juju has already is compared.
	stored := s.unit.app.model.secrets[secret.id]
	switch {
	case stored == nil:
		secret.revisions[secret.latest] = content
	case maps.Equal(stored.revisions[stored.latest], content):
	default:
		secret.latest = stored.latest
		secret.addRevision(content)
	}
	return silent{}, nil
}

// describe sets what flags say of a secret.
func (s *Secret) describe(c *call, now time.Time) error {
	if label, given := c.flags["label"]; given {
		s.label = label
	}
	if description, given := c.flags["description"]; given {
		s.description = description
	}
	if rotate, given := c.flags["rotate"]; given {
		if _, known := rotations[rotate]; !known {
			return usagef("rotate policy %q not valid", rotate)
		}
		s.setRotation(rotate, now)
	}
	if expire, given := c.flags["expire"]; given {
		at, err := time.Parse(time.RFC3339, expire)
		if wait, durationErr := time.ParseDuration(expire); durationErr == nil {
			at, err = now.UTC().Add(wait), nil
		}
		if err != nil {
			return usagef("expire time or duration %q not valid", expire)
		}
		s.expire = &at
	}
	return nil
}

// secretContent reads the values of a secret from arguments and --file. Files
// are opened by the agent, so a relative name does not work.
func (s *session) secretContent(c *call, args []string) (map[string]string, error) {
	content := map[string]string{}
	if file := c.flags["file"]; file != "" {
		data, err := s.unit.pod.ReadFile(file)
		if err != nil {
			return nil, err
		}
		if err := yaml.Unmarshal(data, &content); err != nil {
			return nil, err
		}
	}
	for _, arg := range args {
		key, value, found := strings.Cut(arg, "=")
		if !found {
			return nil, usagef("key value %q not valid", arg)
		}
		if name, isFile := strings.CutSuffix(key, "#file"); isFile {
			data, err := s.unit.pod.ReadFile(value)
			if err != nil {
				return nil, err
			}
			key, value = name, string(data)
		}
		if name, encoded := strings.CutSuffix(key, "#base64"); encoded {
			data, err := base64.StdEncoding.DecodeString(value)
			if err != nil {
				return nil, err
			}
			key, value = name, string(data)
		}
		content[key] = value
	}
	size := 0
	for key, value := range content {
		if !secretKey.MatchString(key) {
			return nil, usagef("key %q not valid", key)
		}
		if value == "" {
			return nil, usagef("empty value for secret key %q not valid", key)
		}
		size += base64.StdEncoding.EncodedLen(len(value))
	}
	if size > 1_000_000 {
		return nil, fmt.Errorf("secret content size %d exceeds max allowed 1000000", size)
	}
	return content, nil
}

// byLabel finds a secret by the label that its owner gave it.
func (s *session) byLabel(label, owner string) *Secret {
	for _, secret := range s.pending.secrets {
		if secret.label == label && secret.owner == owner {
			return secret
		}
	}
	for id, secret := range s.unit.app.model.secrets {
		if current, _ := s.secret(id); current == secret && secret.label == label && secret.owner == owner {
			return secret
		}
	}
	return nil
}

func (s *session) ownByLabel(label string) *Secret {
	if found := s.byLabel(label, s.unit.app.name); found != nil {
		return found
	}
	return s.byLabel(label, s.unit.name)
}

func secretGet(s *session, c *call) (any, error) {
	uri, label := "", c.flags["label"]
	args := c.args
	if len(args) > 0 && (label == "" || strings.HasPrefix(args[0], "secret:")) {
		uri, args = args[0], args[1:]
	}
	if uri == "" && label == "" {
		return nil, usagef("require either a secret URI or label")
	}
	if c.on("peek") && c.on("refresh") {
		return nil, usagef("specify one of --peek or --refresh but not both")
	}
	secret, err := s.findForReading(uri, label)
	if err != nil {
		return nil, err
	}
	content, err := s.read(secret, label, c.on("peek"), c.on("refresh"))
	if err != nil || len(args) == 0 {
		return content, err
	}
	key, encoded := strings.CutSuffix(args[0], "#base64")
	value, found := content[key]
	if !found {
		return nil, fmt.Errorf("secret key value %q not found", key)
	}
	if encoded {
		value = base64.StdEncoding.EncodeToString([]byte(value))
	}
	return value, nil
}

func (s *session) findForReading(uri, label string) (*Secret, error) {
	if uri == "" {
		if own := s.ownByLabel(label); own != nil {
			return own, nil
		}
		for _, secret := range s.unit.app.model.secrets {
			if c := secret.readers[s.unit.name]; c != nil && c.label == label && secret.readableBy(s.unit) {
				return secret, nil
			}
		}
		return nil, fmt.Errorf("secret URI for consumer label %q not found", label)
	}
	secret, err := s.secret(uri)
	if err != nil {
		return nil, err
	}
	if !secret.readableBy(s.unit) {
		return nil, errors.New("permission denied")
	}
	return secret, nil
}

// read returns the content that the unit tracks, or the latest one.
func (s *session) read(secret *Secret, label string, peek, refresh bool) (map[string]string, error) {
	stored := s.unit.app.model.secrets[secret.id]
	if stored == nil { // added in this hook
		return secret.revisions[secret.latest], nil
	}
	reader := stored.readers[s.unit.name]
	if reader == nil {
		reader = &consumer{tracked: stored.latest, told: stored.latest}
		stored.readers[s.unit.name] = reader
	}
	if label != "" && !secret.ownedBy(s.unit) {
		reader.label = label
	}
	if refresh {
		if secret != stored { // changed in this hook: tracked when that is committed
			s.pending.refresh[secret.id] = true
		} else {
			reader.tracked, reader.told = stored.latest, stored.latest
		}
	}
	if peek || refresh {
		return secret.revisions[secret.latest], nil
	}
	content, found := stored.revisions[reader.tracked]
	if !found {
		return nil, fmt.Errorf("secret revision %d not found", reader.tracked)
	}
	return content, nil
}

// secretInfo is what the owner of a secret learns of it.
type secretInfo struct {
	Revision    int        `json:"revision"`
	Label       string     `json:"label"`
	Owner       string     `json:"owner"`
	Description string     `json:"description,omitempty"`
	Rotation    string     `json:"rotation,omitempty"`
	Expiry      *time.Time `json:"expiry,omitempty"`
	Access      []access   `json:"access,omitempty"`
}

// access is one grant of a secret.
type access struct {
	Target string `json:"target"`
	Scope  string `json:"scope"`
	Role   string `json:"role"`
}

func secretInfoGet(s *session, c *call) (any, error) {
	var secret *Secret
	switch uri, label := c.arg(0), c.flags["label"]; {
	case uri != "":
		found, err := s.secret(uri)
		if err != nil {
			return nil, err
		}
		secret = found
	case label != "":
		secret = s.ownByLabel(label)
	default:
		return nil, usagef("require either a secret URI or label")
	}
	if secret == nil || !secret.managedBy(s.unit, s.isLeader()) {
		return nil, fmt.Errorf("secret %q not found", c.arg(0)+c.flags["label"])
	}
	grants := []access{}
	for id, g := range secret.grants {
		target := "application-" + g.to
		if strings.Contains(g.to, "/") {
			target = "unit-" + strings.ReplaceAll(g.to, "/", "-")
		}
		scope := "relation-" + strconv.Itoa(id)
		if r := s.unit.app.model.relations[id]; r != nil {
			scope = "relation-" + strings.ReplaceAll(r.key(s.unit.app), ":", ".")
		}
		grants = append(grants, access{target, scope, "view"})
	}
	owner := "application"
	if secret.owner == s.unit.name {
		owner = "unit"
	}
	info := secretInfo{
		Revision: secret.latest, Label: secret.label, Owner: owner, Description: secret.description,
		Rotation: secret.rotate, Expiry: secret.expire, Access: grants,
	}
	if s.pending.added[secret.id] && secret.rotate == "never" {
		info.Rotation = ""
	}
	return map[string]any{secret.id: info}, nil
}

func secretIDs(s *session, _ *call) (any, error) {
	var ids []string // null when there are none, as the real one
	for _, id := range sortedKeys(s.unit.app.model.secrets) {
		if secret, err := s.secret(id); err == nil && secret.managedBy(s.unit, s.isLeader()) {
			ids = append(ids, id)
		}
	}
	for id := range s.pending.added {
		ids = append(ids, id)
	}
	return ids, nil
}

func secretGrant(s *session, c *call) (any, error) {
	secret, err := s.ownSecret(c.arg(0))
	if err != nil {
		return nil, err
	}
	r, err := s.relationOf(c)
	if err != nil {
		return nil, err
	}
	to := r.other(s.unit.app).app.name
	if unit := c.flags["unit"]; unit != "" {
		to = unit
	}
	secret.grants[r.id] = grant{to}
	return silent{}, nil
}

func secretRevoke(s *session, c *call) (any, error) {
	app := c.flags["app"] + c.flags["application"]
	targets := 0
	for _, target := range []string{c.flags["relation"], app, c.flags["unit"]} {
		if target != "" {
			targets++
		}
	}
	if targets != 1 {
		return nil, usagef("specify exactly one of relation, application, or unit")
	}
	secret, err := s.ownSecret(c.arg(0))
	if err != nil {
		return nil, err
	}
	if c.flags["relation"] != "" {
		r, err := s.relationOf(c)
		if err != nil {
			return nil, err
		}
		delete(secret.grants, r.id)
		return silent{}, nil
	}
	maps.DeleteFunc(secret.grants, func(_ int, g grant) bool { return g.to == app || g.to == c.flags["unit"] })
	return silent{}, nil
}

func secretRemove(s *session, c *call) (any, error) {
	secret, err := s.ownSecret(c.arg(0))
	if err != nil {
		return nil, err
	}
	if given := c.flags["revision"]; given != "" {
		revision, err := strconv.Atoi(given)
		if err != nil {
			return nil, usagef("invalid revision %q", given)
		}
		s.pending.removed[secret.id] = append(s.pending.removed[secret.id], revision)
		return silent{}, nil
	}
	s.pending.removed[secret.id] = nil
	delete(s.pending.secrets, secret.id)
	delete(s.pending.added, secret.id)
	return silent{}, nil
}
