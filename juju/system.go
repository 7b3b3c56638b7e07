package juju

import (
	"context"
	"crypto/rand"
	"encoding/json"
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

// NewUncached returns the model, too, and keeps no secrets between dispatches.
func NewUncached(tools Tools, env Environment) *System {
	s := New(tools, env)
	s.cache = secretCache{}
	return s
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
	obs.Leader, obs.Units = s.facts.Leader, s.facts.Units
	obs.Config, obs.Params = s.facts.Config, s.facts.Params
	obs.Ports = slices.Clone(s.facts.Ports)
	obs.Memory = maps.Clone(s.facts.Memory)
	obs.Secrets = maps.Clone(s.facts.Secrets)
	obs.Relations = maps.Clone(s.facts.Relations)
	for endpoint, relations := range obs.Relations {
		obs.Relations[endpoint] = slices.Clone(relations)
	}
	obs.Clients = maps.Clone(s.facts.Clients)
	return nil
}

func (s *System) read(ctx context.Context) error {
	switch {
	case strings.HasPrefix(s.env.Event.Name, "secret-"):
		s.cache.drop(s.env.Event.Secret)
	case s.env.Event.Name == "leader-elected", s.env.Event.Action != "":
		s.cache.drop("") // the leader before may have changed some; people want to see what is
	}
	var err error
	if s.env.Event.Action != "" {
		if err := s.readParams(ctx); err != nil {
			return err
		}
	}
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
	if err := s.readUnits(ctx); err != nil {
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
	if err := s.readClients(ctx); err != nil {
		return err
	}
	s.facts.Secrets = map[string]state.Secret{}
	return s.readSecret(ctx, s.env.Unit.PeerSecret())
}

// readParams reads the parameters of the running action. Juju has checked their
// types and put in the defaults.
func (s *System) readParams(ctx context.Context) error {
	params, err := s.tools.ActionParams(ctx)
	if err != nil {
		return err
	}
	s.facts.Params = map[string]state.Redacted{}
	for name, value := range params {
		s.facts.Params[name] = state.Redacted(fmt.Sprint(value))
	}
	return nil
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
	for _, endpoint := range []string{state.PeerEndpoint, state.UpgradeEndpoint} {
		ids, err := s.tools.RelationIDs(ctx, endpoint)
		if err != nil {
			return err
		}
		for _, id := range ids {
			bag, err := s.tools.RelationGet(ctx, id, s.env.Unit.App)
			if err != nil && ignoreGone(err) == nil {
				continue
			}
			if err != nil {
				return err
			}
			s.facts.Relations[endpoint] = append(s.facts.Relations[endpoint],
				state.Relation{ID: id, Endpoint: endpoint, Read: true, RemoteApp: s.env.Unit.App, LocalApp: bag})
		}
	}
	return nil
}

// readClients reads the client relations that may have changed: the one that the
// event is about, and those that are not on record.
func (s *System) readClients(ctx context.Context) error {
	s.facts.Clients = map[int]state.Client{}
	peer, ok := s.facts.Relations.Peer()
	if !s.facts.Leader || !ok {
		return nil // only the leader serves clients
	}
	if clients, err := state.ParseClients(peer.LocalApp[state.ClientsKey]); err == nil { // else all of them are looked at
		s.facts.Clients = clients
	}
	for _, endpoint := range state.DatabaseEndpoints {
		ids, err := s.tools.RelationIDs(ctx, endpoint)
		if err != nil {
			return err
		}
		for _, id := range ids {
			if id == s.env.Broken {
				continue
			}
			relation := state.Relation{ID: id, Endpoint: endpoint, RemoteApp: s.facts.Clients[id].App}
			if id == s.env.Event.Relation || relation.RemoteApp == "" {
				if relation, err = s.readRelation(ctx, relation); err != nil {
					return err
				}
			}
			s.facts.Relations[endpoint] = append(s.facts.Relations[endpoint], relation)
		}
	}
	return nil
}

// readUnits looks which units are to stay. Juju hides relations from a unit that
// is being removed: they are gone for the unit, not for the application. Not every
// event says that the unit is being removed: the unit remembers to ask.
func (s *System) readUnits(ctx context.Context) error {
	if !s.facts.Leader && !s.env.Leaving && s.facts.Memory[removedKey] == "" {
		return nil
	}
	units, err := s.tools.Units(ctx)
	if errors.Is(err, ErrNotFound) {
		s.facts.Units = state.Unknown[[]string](err.Error())
		return nil
	}
	if err != nil {
		return err
	}
	s.facts.Units = state.Value(units)
	if !slices.Contains(units, s.env.Unit.Name) {
		s.env.Leaving = true
	}
	return nil
}

func (s *System) readRelation(ctx context.Context, r state.Relation) (state.Relation, error) {
	var err error
	if r.RemoteApp == "" {
		if r.RemoteApp, err = s.tools.RelationApp(ctx, r.ID); err != nil {
			return r, ignoreGone(err)
		}
	}
	if r.Remote, err = s.tools.RelationGet(ctx, r.ID, r.RemoteApp); err != nil {
		return r, ignoreGone(err)
	}
	if r.LocalApp, err = s.tools.RelationGet(ctx, r.ID, s.env.Unit.App); err != nil {
		return r, ignoreGone(err)
	}
	if slices.Contains(state.UnitDatabags, r.Endpoint) {
		if err := s.readUnitDatabags(ctx, &r); err != nil {
			return r, ignoreGone(err)
		}
	}
	r.Read = true
	return r, nil
}

func (s *System) readUnitDatabags(ctx context.Context, r *state.Relation) error {
	var err error
	if r.LocalUnit, err = s.tools.RelationGet(ctx, r.ID, s.env.Unit.Name); err != nil {
		return err
	}
	units, err := s.tools.RelationUnits(ctx, r.ID)
	if err != nil {
		return err
	}
	r.Units = make(map[string]map[string]string, len(units))
	for _, unit := range units {
		bag, err := s.tools.RelationGet(ctx, r.ID, unit)
		if errors.Is(err, ErrNotFound) {
			continue // it went away since relation-list
		}
		if err != nil {
			return err
		}
		r.Units[unit] = bag
	}
	return nil
}

// ignoreGone forgives what went away while we looked. A unit that is being removed may
// not look any more, either, nor a leader that is none any more.
func ignoreGone(err error) error {
	if errors.Is(err, ErrNotFound) || errors.Is(err, ErrPermission) {
		return nil
	}
	return err
}

func (s *System) readSecret(ctx context.Context, label string) error {
	content, cached := s.cache.get(label)
	if !cached {
		var err error
		content, err = s.tools.SecretGet(ctx, label)
		if errors.Is(err, ErrNotFound) || errors.Is(err, ErrPermission) {
			s.facts.Secrets[label] = state.Secret{} // nobody has made it yet
			return nil
		}
		if err != nil {
			return err
		}
		s.cache.put(label, content)
	}
	secret := state.Secret{Content: make(map[string]state.Redacted, len(content)), Committed: true, Cached: cached}
	for k, v := range content {
		secret.Content[k] = state.Redacted(v)
	}
	secret.Saved = maps.Clone(secret.Content)
	s.facts.Secrets[label] = secret
	return nil
}

// readOwnSecret also finds the URI of a secret that the application made before,
// in the form that other models can use.
func (s *System) readOwnSecret(ctx context.Context, label string) error {
	if err := s.readSecret(ctx, label); err != nil {
		return err
	}
	secret := s.facts.Secrets[label]
	if secret.Saved == nil {
		return nil
	}
	id, err := s.tools.SecretID(ctx, label)
	if err != nil {
		return err
	}
	secret.URI = fmt.Sprintf("secret://%s/%s", s.env.Unit.ModelUUID, id)
	s.facts.Secrets[label] = secret
	return nil
}

// ReadRelation reads the databags of a relation.
type ReadRelation struct{ ID int }

// String implements state.Step.
func (r ReadRelation) String() string { return fmt.Sprintf("read relation %d", r.ID) }

// Looks implements state.Look.
func (ReadRelation) Looks() {}

// ReadSecret reads a secret.
type ReadSecret struct{ Label string }

// String implements state.Step.
func (r ReadSecret) String() string { return "read secret " + r.Label }

// Looks implements state.Look.
func (ReadSecret) Looks() {}

// RefreshSecret reads a secret that was kept from an earlier dispatch.
type RefreshSecret struct{ Label string }

// String implements state.Step.
func (r RefreshSecret) String() string { return "read secret " + r.Label + " again" }

// Looks implements state.Look.
func (RefreshSecret) Looks() {}

// Generate makes up values for a draft of a secret.
type Generate struct {
	Label string
	Keys  []string
}

// String implements state.Step.
func (g Generate) String() string {
	return fmt.Sprintf("generate %s for secret %s", strings.Join(g.Keys, ", "), g.Label)
}

// Looks implements state.Look: a draft is kept in memory only.
func (Generate) Looks() {}

// SaveSecret hands a secret to Juju.
type SaveSecret struct {
	Label   string
	Content map[string]state.Redacted
}

// String implements state.Step.
func (s SaveSecret) String() string { return "save secret " + s.Label }

// RemoveSecret removes a secret.
type RemoveSecret struct{ URI string }

// String implements state.Step.
func (r RemoveSecret) String() string { return "remove secret " + r.URI }

// SetClients changes the record of client relations.
type SetClients struct {
	Peer    int
	Clients map[int]state.Client
}

// String implements state.Step.
func (s SetClients) String() string { return fmt.Sprintf("record %d client relations", len(s.Clients)) }

// SetDatabag changes keys of the application's or the unit's databag in a
// relation.
type SetDatabag struct{ state.Databag }

// String implements state.Step: keys only, values may be secret.
func (s SetDatabag) String() string {
	keys, whose := slices.Sorted(maps.Keys(s.Content)), ""
	if s.Unit {
		whose = " as a unit"
	}
	return fmt.Sprintf("set %s in relation %d%s", strings.Join(keys, ", "), s.Relation, whose)
}

// OpenPort opens a TCP port.
type OpenPort struct{ Port int }

// String implements state.Step.
func (s OpenPort) String() string { return fmt.Sprintf("open port %d/tcp", s.Port) }

// SetVersion sets the version of the workload.
type SetVersion struct{ Version string }

// String implements state.Step.
func (s SetVersion) String() string { return "set the workload version to " + s.Version }

// Announce tells the other units how this member is.
type Announce struct {
	Peer int
	Text string
}

// String implements state.Step.
func (a Announce) String() string { return "announce: " + a.Text }

// SetRefreshed tells the other units how far this one is with a refresh.
type SetRefreshed struct {
	Upgrade int
	State   string
}

// String implements state.Step.
func (s SetRefreshed) String() string { return "tell how far the refresh is: " + s.State }

// refreshedKey is the key of what SetRefreshed told last in the unit's state.
const refreshedKey = "refreshed"

// NoteRemoved remembers whether Juju is removing this unit.
type NoteRemoved struct{ Removed bool }

// String implements state.Step.
func (n NoteRemoved) String() string {
	if n.Removed {
		return "remember that this unit is being removed"
	}
	return "remember that this unit stays"
}

// removedKey is the key of what NoteRemoved remembers in the unit's state.
const removedKey = "removed"

// announceKey is the key of the announcement in the unit's databag, and of what
// was announced last in the unit's state.
const announceKey = "member"

// versionKey remembers the version that was set: Juju has no tool to read it.
const versionKey = "workload-version"

// Diff implements charm.System.
func (s *System) Diff(obs state.Observed, want state.Desired) []state.Step {
	steps := s.diffLooks(obs, want)
	if obs.Leader {
		steps = append(steps, diffSecrets(obs, want)...)
	}
	for _, wish := range want.Databags {
		if changed := changedKeys(obs, wish); len(changed) > 0 {
			wish.Content = changed
			steps = append(steps, SetDatabag{wish})
		}
	}
	peer, related := obs.Relations.Peer()
	if obs.Leader && related && want.Clients != nil && !equalClients(obs.Clients, want.Clients) {
		steps = append(steps, SetClients{peer.ID, want.Clients})
	}
	for _, port := range want.Ports {
		if !slices.Contains(obs.Ports, port) {
			steps = append(steps, OpenPort{port})
		}
	}
	if related && want.Announce != "" && obs.Memory[announceKey] != want.Announce {
		steps = append(steps, Announce{peer.ID, want.Announce})
	}
	if upgrade, there := obs.Relations.Upgrade(); there && want.Refreshed != "" && obs.Memory[refreshedKey] != want.Refreshed {
		steps = append(steps, SetRefreshed{upgrade.ID, want.Refreshed})
	}
	if want.Version != "" && obs.Memory[versionKey] != want.Version {
		steps = append(steps, SetVersion{want.Version})
	}
	if units, known := obs.Units.Get(); known {
		if removed := !slices.Contains(units, obs.Unit.Name); removed != (obs.Memory[removedKey] != "") {
			steps = append(steps, NoteRemoved{removed})
		}
	}
	return steps
}

// diffLooks are the reads that handlers ask for.
func (s *System) diffLooks(obs state.Observed, want state.Desired) []state.Step {
	var steps []state.Step
	for _, id := range want.Look {
		if r, ok := obs.Relations.ByID(id); ok && !r.Read {
			steps = append(steps, ReadRelation{id})
		}
	}
	for _, wish := range want.Secrets {
		if _, read := obs.Secrets[wish.Label]; !read && obs.Leader {
			steps = append(steps, ReadSecret{wish.Label})
		}
	}
	for _, label := range want.Fresh {
		if obs.Secrets[label].Cached {
			steps = append(steps, RefreshSecret{label})
		}
	}
	return steps
}

func diffSecrets(obs state.Observed, want state.Desired) []state.Step {
	var steps []state.Step
	for _, wish := range want.Secrets {
		have, read := obs.Secrets[wish.Label]
		if !read {
			continue
		}
		if missing := missingKeys(have, wish.Generate); len(missing) > 0 {
			steps = append(steps, Generate{wish.Label, missing})
		} else if wish.Content != nil && !maps.Equal(have.Saved, wish.Content) {
			steps = append(steps, SaveSecret{wish.Label, wish.Content})
		}
	}
	for _, uri := range want.Unneeded {
		steps = append(steps, RemoveSecret{uri})
	}
	return steps
}

func equalClients(a, b map[int]state.Client) bool {
	return maps.EqualFunc(a, b, func(x, y state.Client) bool {
		return x.App == y.App && x.Digest == y.Digest && x.Problem == y.Problem && x.Leader == y.Leader &&
			slices.Equal(x.Secrets, y.Secrets) && slices.Equal(x.Taken, y.Taken)
	})
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

// changedKeys returns what of the wish differs from the databag; that of the
// application is the leader's alone. One that we do not know stays.
func changedKeys(obs state.Observed, wish state.Databag) map[string]string {
	r, ok := obs.Relations.ByID(wish.Relation)
	if !ok || !r.Read || !obs.Leader && !wish.Unit {
		return nil
	}
	have := r.LocalApp
	if wish.Unit {
		have = r.LocalUnit
	}
	changed := map[string]string{}
	for k, v := range wish.Content {
		if have[k] != v {
			changed[k] = v
		}
	}
	return changed
}

// Apply implements charm.System.
func (s *System) Apply(ctx context.Context, step state.Step) error {
	switch step := step.(type) {
	case ReadRelation:
		r, _ := s.facts.Relations.ByID(step.ID)
		r, err := s.readRelation(ctx, r)
		s.facts.Relations.Replace(r)
		return err
	case ReadSecret:
		return s.readOwnSecret(ctx, step.Label)
	case RefreshSecret:
		s.cache.drop(step.Label)
		return s.readSecret(ctx, step.Label)
	case Generate:
		return s.generate(step)
	case SaveSecret:
		return s.saveSecret(ctx, step)
	case RemoveSecret:
		// What is gone already needs no removal.
		if err := s.tools.SecretRemove(ctx, step.URI); !errors.Is(err, ErrNotFound) {
			return err
		}
		return nil
	case SetClients:
		return s.setClients(ctx, step)
	case SetDatabag:
		return s.setDatabag(ctx, step)
	case OpenPort:
		if err := s.tools.OpenPort(ctx, step.Port); err != nil {
			return err
		}
		s.facts.Ports = append(s.facts.Ports, step.Port)
		return nil
	case SetVersion:
		if err := s.tools.VersionSet(ctx, step.Version); err != nil {
			return err
		}
		return s.remember(ctx, versionKey, step.Version)
	case Announce:
		if err := s.tools.RelationSetUnit(ctx, step.Peer, map[string]string{announceKey: step.Text}); err != nil {
			return err
		}
		return s.remember(ctx, announceKey, step.Text)
	case SetRefreshed:
		if err := s.tools.RelationSetUnit(ctx, step.Upgrade, map[string]string{state.StateKey: step.State}); err != nil {
			return err
		}
		return s.remember(ctx, refreshedKey, step.State)
	case NoteRemoved:
		return s.remember(ctx, removedKey, map[bool]string{true: "yes"}[step.Removed])
	}
	return fmt.Errorf("cannot apply %T to juju", step)
}

func (s *System) generate(step Generate) error {
	secret := s.facts.Secrets[step.Label]
	secret.Before, secret.Committed = secret.InForce(), false
	secret.Content = maps.Clone(secret.Content)
	if secret.Content == nil {
		secret.Content = map[string]state.Redacted{}
	}
	for _, key := range step.Keys {
		value, err := generate(s.entropy)
		if err != nil {
			return err
		}
		secret.Content[key] = value
	}
	s.facts.Secrets[step.Label] = secret
	return nil
}

func (s *System) saveSecret(ctx context.Context, step SaveSecret) error {
	secret := s.facts.Secrets[step.Label]
	s.cache.drop(step.Label)
	var err error
	if secret.Saved == nil {
		secret.URI, err = s.tools.SecretAdd(ctx, step.Label, step.Content)
	} else {
		var id string
		if id, err = s.tools.SecretID(ctx, step.Label); err == nil {
			err = s.tools.SecretSet(ctx, "secret:"+id, step.Content)
		}
	}
	if err != nil {
		return err
	}
	secret.Before, secret.Committed, secret.Cached = secret.InForce(), false, false
	secret.Content, secret.Saved = step.Content, step.Content
	s.facts.Secrets[step.Label] = secret
	return nil
}

func (s *System) setClients(ctx context.Context, step SetClients) error {
	text, err := json.Marshal(step.Clients)
	if err != nil {
		return fmt.Errorf("cannot encode the record of client relations: %w", err)
	}
	if err := s.tools.RelationSet(ctx, step.Peer, map[string]string{state.ClientsKey: string(text)}); err != nil {
		return err
	}
	s.facts.Clients = maps.Clone(step.Clients)
	return nil
}

func (s *System) setDatabag(ctx context.Context, step SetDatabag) error {
	for _, uri := range step.Grant { // a repeated one changes nothing
		if err := s.tools.SecretGrant(ctx, uri, step.Relation); err != nil {
			return err
		}
	}
	r, _ := s.facts.Relations.ByID(step.Relation)
	set, bag := s.tools.RelationSet, &r.LocalApp
	if step.Unit {
		set, bag = s.tools.RelationSetUnit, &r.LocalUnit
	}
	if err := set(ctx, step.Relation, step.Content); err != nil {
		return err
	}
	*bag = state.With(*bag, step.Content)
	r.Written = r.Written || !step.Unit
	s.facts.Relations.Replace(r)
	return nil
}

// remember keeps a fact that Juju has no tool to read back, or only a slow one.
// It is committed together with what it tells of.
func (s *System) remember(ctx context.Context, key, value string) error {
	if err := s.tools.StateSet(ctx, map[string]string{key: value}); err != nil {
		return err
	}
	s.facts.Memory = state.With(s.facts.Memory, map[string]string{key: value})
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

// Answer tells the user what the running action came to. An action that fails
// must not fail the process: Juju would put the exit code in the place of the
// words.
func (s *System) Answer(ctx context.Context, results map[string]string, failure error) error {
	if failure != nil {
		return s.tools.ActionFail(ctx, failure.Error())
	}
	return s.tools.ActionSet(ctx, results)
}

// Progress tells the user what the running action is about, at once.
func (s *System) Progress(ctx context.Context, text string) error {
	return s.tools.ActionLog(ctx, text)
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
