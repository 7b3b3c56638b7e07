package juju

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"
	"time"

	"charmhub.io/postgresql-k8s/charm/config"
	"charmhub.io/postgresql-k8s/charm/state"
)

// System is the Juju model. It is observed once per dispatch and then kept in
// memory as our own writes apply, because Juju shows one consistent picture for
// the whole hook.
type System struct {
	tools   Tools
	env     Environment
	cache   secretCache
	entropy io.Reader

	observed bool
	facts    state.Observed // only the fields that this system fills
	status   state.Status
}

// New returns the model as the unit of env sees it.
func New(tools Tools, env Environment) *System {
	return &System{tools: tools, env: env, cache: newSecretCache(env.Unit, time.Now), entropy: rand.Reader}
}

// Name implements charm.System.
func (s *System) Name() string { return "juju" }

// Observe implements charm.System. Its errors are final: without Juju's facts
// nothing can be decided.
func (s *System) Observe(ctx context.Context, obs *state.Observed) error {
	if !s.observed {
		if err := s.read(ctx); err != nil {
			return err
		}
		s.observed = true
	}
	obs.Unit, obs.Event, obs.Leaving = s.env.Unit, s.env.Event, s.env.Leaving
	obs.Leader = s.facts.Leader
	obs.Config = s.facts.Config
	obs.Ports = slices.Clone(s.facts.Ports)
	obs.Memory = maps.Clone(s.facts.Memory)
	obs.Secrets = maps.Clone(s.facts.Secrets)
	obs.Relations = s.facts.Relations
	return nil
}

func (s *System) read(ctx context.Context) error {
	if strings.HasPrefix(s.env.Event.Name, "secret-") {
		s.cache.drop(s.env.Event.Secret)
	}
	var err error
	if s.facts.Leader, err = s.tools.IsLeader(ctx); err != nil {
		return err
	}
	raw, err := s.tools.Config(ctx)
	if err != nil {
		return err
	}
	s.facts.Config = config.Parse(raw)
	if s.facts.Ports, err = s.tools.OpenedPorts(ctx); err != nil {
		return err
	}
	if s.facts.Memory, err = s.tools.State(ctx); err != nil {
		return err
	}
	status, message, err := s.tools.Status(ctx)
	if err != nil {
		return err
	}
	s.status = state.Status{Severity: severity(status), Message: message}
	if err := s.readPeers(ctx); err != nil {
		return err
	}
	return s.readSecret(ctx, s.env.Unit.PeerSecret())
}

// unknownStatus is no status of ours: whatever is wished differs from it.
const unknownStatus = state.Severity(-1)

func severity(word string) state.Severity {
	for _, s := range []state.Severity{state.Active, state.Waiting, state.Maintenance, state.Blocked} {
		if s.String() == word {
			return s
		}
	}
	return unknownStatus
}

func (s *System) readPeers(ctx context.Context) error {
	s.facts.Relations = state.Relations{}
	ids, err := s.tools.RelationIDs(ctx, state.PeerEndpoint)
	if err != nil {
		return err
	}
	for _, id := range ids {
		bag, err := s.tools.RelationGet(ctx, id, s.env.Unit.App)
		if errors.Is(err, ErrNotFound) {
			continue // it went away since relation-ids
		}
		if err != nil {
			return err
		}
		s.facts.Relations[state.PeerEndpoint] = append(s.facts.Relations[state.PeerEndpoint],
			state.Relation{ID: id, Endpoint: state.PeerEndpoint, RemoteApp: s.env.Unit.App, LocalApp: bag})
	}
	return nil
}

func (s *System) readSecret(ctx context.Context, label string) error {
	s.facts.Secrets = map[string]state.Secret{}
	content, ok := s.cache.get(label)
	if !ok {
		var err error
		content, err = s.tools.SecretGet(ctx, label)
		if errors.Is(err, ErrNotFound) || errors.Is(err, ErrPermission) {
			return nil // the leader has not made it yet
		}
		if err != nil {
			return err
		}
		s.cache.put(label, content)
	}
	secret := state.Secret{Content: make(map[string]state.Redacted, len(content)), Committed: true}
	for k, v := range content {
		secret.Content[k] = state.Redacted(v)
	}
	s.facts.Secrets[label] = secret
	return nil
}

// MakeSecret makes or completes a secret of the application.
type MakeSecret struct {
	Label string
	Keys  []string // to be generated
}

// String implements state.Step.
func (s MakeSecret) String() string {
	return fmt.Sprintf("generate %s in secret %s", strings.Join(s.Keys, ", "), s.Label)
}

// SetDatabag changes keys of one of our databags.
type SetDatabag struct{ state.Databag }

// String implements state.Step: keys only, values may be secret.
func (s SetDatabag) String() string {
	owner := "unit"
	if s.App {
		owner = "application"
	}
	keys := slices.Sorted(maps.Keys(s.Content))
	return fmt.Sprintf("set %s in the %s databag of relation %d", strings.Join(keys, ", "), owner, s.Relation)
}

// OpenPort opens a TCP port.
type OpenPort struct{ Port int }

// String implements state.Step.
func (s OpenPort) String() string { return fmt.Sprintf("open port %d/tcp", s.Port) }

// SetVersion sets the version of the workload.
type SetVersion struct{ Version string }

// String implements state.Step.
func (s SetVersion) String() string { return "set the workload version to " + s.Version }

// versionKey remembers the version that was set: Juju has no tool to read it.
const versionKey = "workload-version"

// Diff implements charm.System.
func (s *System) Diff(obs state.Observed, want state.Desired) []state.Step {
	var steps []state.Step
	for _, wish := range want.Secrets {
		if missing := missingKeys(obs.Secrets[wish.Label], wish.Generate); obs.Leader && len(missing) > 0 {
			steps = append(steps, MakeSecret{wish.Label, missing})
		}
	}
	for _, wish := range want.Databags {
		if changed := changedKeys(obs, wish); len(changed) > 0 {
			steps = append(steps, SetDatabag{state.Databag{Relation: wish.Relation, App: wish.App, Content: changed}})
		}
	}
	for _, port := range want.Ports {
		if !slices.Contains(obs.Ports, port) {
			steps = append(steps, OpenPort{port})
		}
	}
	if want.Version != "" && obs.Memory[versionKey] != want.Version {
		steps = append(steps, SetVersion{want.Version})
	}
	return steps
}

func missingKeys(secret state.Secret, keys []string) []string {
	var missing []string
	for _, key := range keys {
		if secret.Content[key] == "" {
			missing = append(missing, key)
		}
	}
	return missing
}

// changedKeys returns what of the wish differs from the databag. A databag of
// the application is the leader's alone, and one that we do not know stays.
func changedKeys(obs state.Observed, wish state.Databag) map[string]string {
	if wish.App && !obs.Leader {
		return nil
	}
	changed := map[string]string{}
	for _, relations := range obs.Relations {
		for _, r := range relations {
			if r.ID != wish.Relation {
				continue
			}
			bag := r.LocalUnit
			if wish.App {
				bag = r.LocalApp
			}
			for k, v := range wish.Content {
				if bag[k] != v {
					changed[k] = v
				}
			}
		}
	}
	return changed
}

// Apply implements charm.System.
func (s *System) Apply(ctx context.Context, step state.Step) error {
	switch step := step.(type) {
	case MakeSecret:
		return s.makeSecret(ctx, step)
	case SetDatabag:
		return s.setDatabag(ctx, step)
	case OpenPort:
		if err := s.tools.OpenPort(ctx, step.Port); err != nil {
			return err
		}
		s.facts.Ports = append(s.facts.Ports, step.Port)
		return nil
	case SetVersion:
		return s.setVersion(ctx, step)
	}
	return fmt.Errorf("cannot apply %T to juju", step)
}

func (s *System) makeSecret(ctx context.Context, step MakeSecret) error {
	old, exists := s.facts.Secrets[step.Label]
	content := maps.Clone(old.Content)
	if content == nil {
		content = map[string]state.Redacted{}
	}
	for _, key := range step.Keys {
		password, err := generate(s.entropy)
		if err != nil {
			return err
		}
		content[key] = password
	}
	s.cache.drop(step.Label)
	uri := old.URI
	var err error
	if !exists {
		uri, err = s.tools.SecretAdd(ctx, step.Label, content)
	} else {
		if uri == "" {
			uri, err = s.tools.SecretURI(ctx, step.Label)
		}
		if err == nil {
			err = s.tools.SecretSet(ctx, uri, content)
		}
	}
	if err != nil {
		return err
	}
	s.facts.Secrets[step.Label] = state.Secret{URI: uri, Content: content}
	return nil
}

func (s *System) setDatabag(ctx context.Context, step SetDatabag) error {
	if err := s.tools.RelationSet(ctx, step.Relation, step.App, step.Content); err != nil {
		return err
	}
	for _, relations := range s.facts.Relations {
		for i := range relations {
			r := &relations[i]
			switch {
			case r.ID != step.Relation:
			case step.App:
				r.LocalApp = state.With(r.LocalApp, step.Content)
			default:
				r.LocalUnit = state.With(r.LocalUnit, step.Content)
			}
		}
	}
	return nil
}

func (s *System) setVersion(ctx context.Context, step SetVersion) error {
	if err := s.tools.VersionSet(ctx, step.Version); err != nil {
		return err
	}
	memory := map[string]string{versionKey: step.Version}
	if err := s.tools.StateSet(ctx, memory); err != nil {
		return err
	}
	s.facts.Memory = state.With(s.facts.Memory, memory)
	return nil
}

// Report shows the unit's status, if it is not the one that Juju has.
func (s *System) Report(ctx context.Context, status state.Status) error {
	if status == s.status {
		return nil
	}
	if err := s.tools.StatusSet(ctx, status.Severity.String(), status.Message); err != nil {
		return err
	}
	s.status = status
	return nil
}

// passwordLength gives 190 bits with the alphabet below.
const passwordLength = 32

// generate makes a password of letters and digits: several clients paste them
// into URIs and DSNs without escaping.
func generate(entropy io.Reader) (state.Redacted, error) {
	const alphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789"
	const fair = 256 - 256%len(alphabet) // bytes from here on would favour the first letters
	out := make([]byte, 0, passwordLength)
	buf := make([]byte, 2*passwordLength)
	for len(out) < passwordLength {
		if _, err := io.ReadFull(entropy, buf); err != nil {
			return "", fmt.Errorf("cannot generate a password: %w", err)
		}
		for _, b := range buf {
			if int(b) < fair && len(out) < passwordLength {
				out = append(out, alphabet[int(b)%len(alphabet)])
			}
		}
	}
	return state.Redacted(out), nil
}
