package juju

import (
	"context"
	"encoding/json"
	"errors"
	"maps"
	"reflect"
	"slices"
	"strconv"
	"strings"
	"testing"

	"charmhub.io/postgresql-k8s/charm/state"
)

// withClients is a model of a leader with two clients.
func withClients(record string) *model {
	m := newModel(true)
	m.relations["database"] = map[int]string{7: "seven", 8: "eight"}
	m.bags["1 db"] = map[string]string{"clients": record}
	for id, app := range m.relations["database"] {
		m.bags[strconv.Itoa(id)+" "+app] = map[string]string{"database": app}
		m.bags[strconv.Itoa(id)+" db"] = map[string]string{"endpoints": "old"}
	}
	return m
}

const bothOnRecord = `{"7":{"app":"seven","digest":"x"},"8":{"app":"eight","digest":"y","secrets":["secret://uuid/a"],"problem":"p"}}`

// dispatchOf is a dispatch of an event of a relation, or of none.
func (m *model) dispatchOf(t *testing.T, event string, relation int) *System {
	s := m.system(event, newTestCache(t))
	s.env.Event.Relation, s.env.Broken = relation, -1
	if strings.HasSuffix(event, "-relation-broken") {
		s.env.Broken = relation
	}
	return s
}

func TestClientsAreReadWhenTheyMayHaveChanged(t *testing.T) {
	t.Parallel()
	both := map[int]state.Client{7: {App: "seven", Digest: "x"}, 8: {App: "eight", Digest: "y", Secrets: []string{"secret://uuid/a"}, Problem: "p"}}
	seven := map[int]state.Client{7: both[7]}
	tests := []struct {
		name, record string
		relation     int // of the event, or -1
		read         []int
		clients      map[int]state.Client
		calls        int // relation-get, beyond the peers' own
	}{
		{"both on record, an event of none", bothOnRecord, -1, nil, both, 0},
		{"both on record, an event of one", bothOnRecord, 8, []int{8}, both, 2},
		{"both on record, an event of the peers", bothOnRecord, 1, nil, both, 0},
		{"both on record, which another revision wrote", `{"7":{"app":"seven","digest":"x","leader":"db/1","new":[1]},"8":{"app":"eight","digest":"y"}}`, -1, nil,
			map[int]state.Client{7: {App: "seven", Digest: "x", Leader: "db/1"}, 8: {App: "eight", Digest: "y"}}, 0},
		{"one on record", `{"7":{"app":"seven","digest":"x"}}`, -1, []int{8}, seven, 2},
		{"no record yet", "", -1, []int{7, 8}, map[int]state.Client{}, 4},
		{"a record that is not JSON", "{", 7, []int{7, 8}, map[int]state.Client{}, 4},
		{"a record of something else", `["seven"]`, -1, []int{7, 8}, map[int]state.Client{}, 4},
		{"a record that is half of something else", `{"7":{"app":"seven","digest":"x"},"8":"eight"}`, -1, []int{7, 8}, map[int]state.Client{}, 4},
		{"a record whose ids are no numbers", `{"seven":{"app":"seven"}}`, -1, []int{7, 8}, map[int]state.Client{}, 4},
		{"a record without the application", `{"7":{"digest":"x"},"8":{"app":"eight"}}`, -1, []int{7},
			map[int]state.Client{7: {Digest: "x"}, 8: {App: "eight"}}, 2},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			m := withClients(test.record)
			obs := observe(t, m.dispatchOf(t, "database-relation-changed", test.relation))
			var read []int
			for _, r := range obs.Relations["database"] {
				if r.Read {
					read = append(read, r.ID)
				}
				if want := (map[int]string{7: "seven", 8: "eight"}[r.ID]); r.RemoteApp != want || r.Endpoint != "database" {
					t.Errorf("relation %d is %+v", r.ID, r)
				}
				if r.Read != (r.Remote["database"] == r.RemoteApp && r.LocalApp["endpoints"] == "old") {
					t.Errorf("relation %d has the databags %v and %v", r.ID, r.Remote, r.LocalApp)
				}
			}
			if !slices.Equal(read, test.read) || len(obs.Relations["database"]) != 2 {
				t.Errorf("of %v the relations %v were read, want %v", obs.Relations["database"], read, test.read)
			}
			if !reflect.DeepEqual(obs.Clients, test.clients) {
				t.Errorf("the record is %v, want %v", obs.Clients, test.clients)
			}
			if got := m.called("relation-get") - 1; got != test.calls {
				t.Errorf("relation-get ran %d times, want %d", got, test.calls)
			}
			if obs.Leaving {
				t.Error("it leaves")
			}
		})
	}
}

// withLegacy is such a model, with a third one whose units speak, too.
func withLegacy() *model {
	m := withClients(bothOnRecord)
	m.relations["db"] = map[int]string{9: "nine"}
	m.units = map[string][]string{"9": {"nine/0", "nine/1"}}
	maps.Copy(m.bags, map[string]map[string]string{
		"9 nine": {"database": "nine"}, "9 nine/0": {"egress-subnets": "10.0.0.1/32"}, "9 nine/1": {"database": "nine"},
		"9 db": {"master": "old"}, "9 db/0": {"master": "older"},
	})
	return m
}

func TestUnitsOfLegacyClientsAreReadToo(t *testing.T) {
	t.Parallel()
	m := withLegacy()
	obs := observe(t, m.dispatchOf(t, "db-relation-joined", 9))
	want := state.Relation{
		ID: 9, Endpoint: "db", Read: true, RemoteApp: "nine", Remote: map[string]string{"database": "nine"},
		LocalApp: map[string]string{"master": "old"}, LocalUnit: map[string]string{"master": "older"},
		Units: map[string]map[string]string{"nine/0": {"egress-subnets": "10.0.0.1/32"}, "nine/1": {"database": "nine"}},
	}
	if r, _ := obs.Relations.ByID(9); !reflect.DeepEqual(r, want) {
		t.Errorf("it is %+v, want %+v", r, want)
	}
	if r, _ := obs.Relations.ByID(7); r.Read || r.Units != nil {
		t.Errorf("a modern one is %+v", r)
	}
}

// A unit may go away while we look.
func TestAUnitThatGoesAwayIsNotThere(t *testing.T) {
	t.Parallel()
	m := withLegacy()
	s := m.dispatchOf(t, "db-relation-departed", 9)
	s.tools.Run = func(ctx context.Context, tool string, args []string, stdin []byte) ([]byte, error) {
		if slices.Contains(args, "nine/0") {
			return nil, NewToolError(tool, "ERROR relation unit not found", errors.New("exit status 1"))
		}
		return m.run(ctx, tool, args, stdin)
	}
	r, _ := observe(t, s).Relations.ByID(9)
	if _, there := r.Units["nine/0"]; !r.Read || len(r.Units) != 1 || there {
		t.Errorf("it is %+v", r)
	}
}

func TestDatabagsOfTheUnit(t *testing.T) {
	t.Parallel()
	m := withLegacy()
	s := m.dispatchOf(t, "db-relation-changed", 9)
	want := func(state.Observed) state.Desired {
		content := map[string]string{"master": "new", "port": "5432", "allowed-units": ""}
		return state.Desired{Databags: []state.Databag{{Relation: 9, Content: content}, {Relation: 9, Unit: true, Content: content}}}
	}
	if steps := settle(t, s, want); !slices.Equal(steps, []string{"set master, port in relation 9", "set master, port in relation 9 as a unit"}) {
		t.Errorf("the steps are %q", steps)
	}
	m.commit()
	for _, owner := range []string{"9 db", "9 db/0"} {
		if got := m.bags[owner]; !maps.Equal(got, map[string]string{"master": "new", "port": "5432"}) {
			t.Errorf("the databag of %s is %q", owner, got)
		}
	}
	r, _ := observe(t, s).Relations.ByID(9)
	if r.LocalApp["master"] != "new" || r.LocalUnit["master"] != "new" {
		t.Errorf("it remembers %+v", r)
	}
	// Only that of the application is the leader's alone.
	obs := observe(t, m.dispatchOf(t, "db-relation-changed", 9))
	obs.Leader = false
	r.LocalApp, r.LocalUnit = nil, nil
	obs.Relations.Replace(r)
	if steps := s.Diff(obs, want(obs)); !slices.Equal(stepTexts(steps), []string{"set master, port in relation 9 as a unit"}) {
		t.Errorf("the steps of another unit are %q", stepTexts(steps))
	}
	m.fails["relation-set"] = errors.New("exit status 1")
	err := s.Apply(t.Context(), SetDatabag{state.Databag{Relation: 9, Unit: true, Content: map[string]string{"master": "x"}}})
	if r, _ := observe(t, s).Relations.ByID(9); !errors.Is(err, m.fails["relation-set"]) || r.LocalUnit["master"] != "new" {
		t.Errorf("the error is %v, and it remembers %+v", err, r)
	}
}

func TestOnlyTheLeaderReadsClients(t *testing.T) {
	t.Parallel()
	for name, change := range map[string]func(*model){
		"another unit leads":   func(m *model) { m.leader = false },
		"there are no peers":   func(m *model) { delete(m.relations, "database-peers") },
		"there are no clients": func(m *model) { delete(m.relations, "database"); delete(m.bags, "1 db") },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			m := withClients(bothOnRecord)
			change(m)
			obs := observe(t, m.dispatchOf(t, "database-relation-changed", 7))
			if len(obs.Relations["database"]) != 0 || len(obs.Clients) != 0 || m.called("relation-list") != 0 {
				t.Errorf("it has %v and %v", obs.Relations, obs.Clients)
			}
		})
	}
}

func TestABrokenRelationIsLeftOut(t *testing.T) {
	t.Parallel()
	for name, listed := range map[string]bool{"Juju lists it still": true, "Juju lists it no more": false} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			m := withClients(bothOnRecord)
			if !listed {
				delete(m.relations["database"], 7)
			}
			obs := observe(t, m.dispatchOf(t, "database-relation-broken", 7))
			if got := obs.Relations["database"]; len(got) != 1 || got[0].ID != 8 || got[0].Read {
				t.Errorf("the relations are %v", got)
			}
			if obs.Clients[7].App != "seven" || obs.Leaving || m.called("goal-state") != 1 {
				t.Errorf("the record is %v, leaving %t, goal-state ran %d times", obs.Clients, obs.Leaving, m.called("goal-state"))
			}
		})
	}
}

func TestTheGoalStateTellsWhoseRelationEnded(t *testing.T) {
	t.Parallel()
	tests := []struct {
		name, goal string
		fails      error
		leaving    bool
	}{
		{"the application's", `{"units":{"db/0":{"status":"active"}}}`, nil, false},
		{"this unit's, which Juju removes", `{"units":{"db/0":{"status":"dying"}}}`, nil, true},
		{"this unit's, which is no longer a goal", `{"units":{"db/1":{"status":"active"}}}`, nil, true},
		{"nobody knows", "", errors.New("connection is shut down"), false},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			m := withClients(bothOnRecord)
			delete(m.relations["database"], 7)
			s := m.dispatchOf(t, "config-changed", -1)
			s.tools.Run = func(ctx context.Context, tool string, args []string, stdin []byte) ([]byte, error) {
				if tool == "goal-state" {
					return []byte(test.goal), test.fails
				}
				return m.run(ctx, tool, args, stdin)
			}
			var obs state.Observed
			if err := s.Observe(t.Context(), &obs); !errors.Is(err, test.fails) {
				t.Fatalf("the error is %v", err)
			}
			if obs.Leaving != test.leaving {
				t.Errorf("leaving is %t", obs.Leaving)
			}
		})
	}
	for _, test := range []struct {
		name                   string
		leader, leaving, known bool
	}{
		{"the leader looks which units stay", true, false, true},
		{"who leaves looks, too", false, true, true},
		{"others do not", false, false, false},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			m := withClients(bothOnRecord)
			m.leader = test.leader
			s := m.dispatchOf(t, "config-changed", -1)
			s.env.Leaving = test.leaving
			obs := observe(t, s)
			if _, known := obs.Units.Get(); known != test.known || obs.Leaving != test.leaving {
				t.Errorf("the units are known: %t, leaving is %t", known, obs.Leaving)
			}
		})
	}
}

// Another unit may be removed while Juju looks at all of them.
func TestAUnitThatIsRemovedMeanwhile(t *testing.T) {
	t.Parallel()
	for fails, known := range map[int]bool{1: true, 2: true, 100: false} {
		m := withClients(bothOnRecord)
		s := m.dispatchOf(t, "config-changed", -1)
		s.tools.Run = func(ctx context.Context, tool string, args []string, stdin []byte) ([]byte, error) {
			if tool == "goal-state" && fails > 0 {
				fails--
				return nil, NewToolError(tool, `ERROR unit "db/2" not found`, errors.New("exit status 1"))
			}
			return m.run(ctx, tool, args, stdin)
		}
		obs := observe(t, s)
		if _, is := obs.Units.Get(); is != known || obs.Leaving || len(obs.Clients) == 0 {
			t.Errorf("with %d failures to go the units are known: %t, it leaves: %t", fails, is, obs.Leaving)
		}
	}
}

// A unit that is being removed may not see the peers any more.
func TestPeersThatMayNotBeSeen(t *testing.T) {
	t.Parallel()
	m := withClients(bothOnRecord)
	s := m.dispatchOf(t, "config-changed", -1)
	s.tools.Run = func(ctx context.Context, tool string, args []string, stdin []byte) ([]byte, error) {
		if tool == "relation-get" {
			return nil, NewToolError(tool, "ERROR permission denied (unauthorized access)", errors.New("exit status 1"))
		}
		return m.run(ctx, tool, args, stdin)
	}
	obs := observe(t, s)
	if _, there := obs.Relations.Peer(); there {
		t.Error("there are peers")
	}
}

// A relation may go away while we look.
func TestAClientThatGoesAwayIsNotRead(t *testing.T) {
	t.Parallel()
	gone := NewToolError("relation-get", "ERROR relation not found", errors.New("exit status 1"))
	for _, owner := range []string{"relation-list", "seven", "db"} {
		t.Run(owner, func(t *testing.T) {
			t.Parallel()
			m := withClients(`{"8":{"app":"eight"}}`)
			s := m.dispatchOf(t, "database-relation-changed", 7)
			s.tools.Run = func(ctx context.Context, tool string, args []string, stdin []byte) ([]byte, error) {
				if slices.Contains(args, "7") && (tool == owner || slices.Contains(args, owner)) {
					return nil, gone
				}
				return m.run(ctx, tool, args, stdin)
			}
			obs := observe(t, s)
			if r, ok := obs.Relations.ByID(7); !ok || r.Read {
				t.Errorf("it is %+v, %t", r, ok)
			}
		})
	}
}

func TestLooks(t *testing.T) {
	t.Parallel()
	m := withClients(bothOnRecord)
	s := m.dispatchOf(t, "update-status", -1)
	want := func(obs state.Observed) state.Desired {
		return state.Desired{
			Look:    []int{7, 99},
			Secrets: []state.SecretWish{{Label: "database.7.user.secret", Generate: []string{"password"}}},
		}
	}
	m.secrets["database.7.user.secret"] = &secret{id: "id7", content: map[string]string{"password": "of before"}}
	steps := s.Diff(observe(t, s), want(observe(t, s)))
	if got := stepTexts(steps); !slices.Equal(got, []string{"read relation 7", "read secret database.7.user.secret"}) {
		t.Fatalf("the steps are %q", got)
	}
	for _, step := range steps {
		if _, ok := step.(state.Look); !ok {
			t.Errorf("%s is no look", step)
		}
	}
	settle(t, s, want)
	obs := observe(t, s)
	if r, _ := obs.Relations.ByID(7); !r.Read || r.Remote["database"] != "seven" || r.LocalApp["endpoints"] != "old" {
		t.Errorf("the relation is %+v", r)
	}
	got := obs.Secrets["database.7.user.secret"]
	if got.Content["password"] != "of before" || !got.Committed || got.URI != "secret://uuid/id7" {
		t.Errorf("the secret is %v at %s", got.Committed, got.URI)
	}
	if len(m.pending) > 0 {
		t.Errorf("looking wrote: %q", m.calls)
	}
	// Another unit has no such secrets to look at.
	m.leader = false
	other := m.dispatchOf(t, "update-status", -1)
	if got := other.Diff(observe(t, other), want(observe(t, other))); len(got) > 0 {
		t.Errorf("another unit makes the steps %q", stepTexts(got))
	}
}

func stepTexts(steps []state.Step) []string {
	var out []string
	for _, s := range steps {
		out = append(out, s.String())
	}
	return out
}

func TestADraftIsNotSaved(t *testing.T) {
	t.Parallel()
	m := withClients(bothOnRecord)
	s := m.dispatchOf(t, "update-status", -1)
	settle(t, s, func(state.Observed) state.Desired {
		return state.Desired{Secrets: []state.SecretWish{{Label: "draft", Generate: []string{"password"}}}}
	})
	if got := observe(t, s).Secrets["draft"]; len(got.Content["password"]) != 32 || got.Committed || got.Saved != nil || len(m.pending) > 0 {
		t.Errorf("the draft is saved: %t, %q", got.Committed, m.calls)
	}
}

func TestASecretIsSavedAsAWhole(t *testing.T) {
	t.Parallel()
	m := withClients(bothOnRecord)
	cache := newTestCache(t)
	content := map[string]state.Redacted{"username": "relation_id_7", "password": "first-secret-value"}
	want := func(state.Observed) state.Desired {
		return state.Desired{Secrets: []state.SecretWish{{Label: "label", Content: content}}}
	}
	first := m.system("update-status", cache)
	first.env.Broken = -1
	settle(t, first, want)
	if got := observe(t, first).Secrets["label"]; got.Committed || got.URI == "" || !maps.Equal(got.Saved, content) {
		t.Errorf("before Juju commits it is at %q, committed %t", got.URI, got.Committed)
	}
	if m.called("secret-grant") != 0 {
		t.Error("it was granted to somebody")
	}
	m.commit()
	second := m.system("update-status", cache)
	second.env.Broken = -1
	if steps := settle(t, second, want); !slices.Equal(steps, []string{"read secret label"}) {
		t.Errorf("a second dispatch makes the steps %q", steps)
	}
	content = map[string]state.Redacted{"username": "relation_id_7", "password": "other-secret-value"}
	if steps := settle(t, second, want); !slices.Equal(steps, []string{"save secret label"}) {
		t.Errorf("for another content the steps are %q", steps)
	}
	m.commit()
	if got := m.secrets["label"].content; got["password"] != "other-secret-value" || len(m.secrets) != 1 || m.called("secret-add") != 1 {
		t.Errorf("there are %d secrets after %q", len(m.secrets), m.calls)
	}
	m.neverShowed(t, nil)
}

// The other side must be allowed to read what the databag tells of.
func TestGrantsComeBeforeTheDatabag(t *testing.T) {
	t.Parallel()
	m := withClients("")
	s := m.dispatchOf(t, "database-relation-changed", 7)
	want := func(state.Observed) state.Desired {
		return state.Desired{Databags: []state.Databag{{
			Relation: 7, Content: map[string]string{"endpoints": "new", "secret-user": "secret://uuid/a", "status": ""},
			Grant: []string{"secret://uuid/a", "secret://uuid/b"},
		}}}
	}
	m.calls = nil
	steps := settle(t, s, want)
	if !slices.Equal(steps, []string{"set endpoints, secret-user in relation 7"}) {
		t.Errorf("the steps are %q", steps)
	}
	var writes []string
	for _, call := range m.calls {
		if strings.HasPrefix(call, "secret-grant ") || strings.HasPrefix(call, "relation-set ") {
			writes = append(writes, call)
		}
	}
	if !slices.Equal(writes, []string{"secret-grant secret://uuid/a -r 7", "secret-grant secret://uuid/b -r 7", "relation-set -r 7 --app --file -"}) {
		t.Errorf("it ran %q", writes)
	}
	m.commit()
	if got := m.bags["7 db"]; !maps.Equal(got, map[string]string{"endpoints": "new", "secret-user": "secret://uuid/a"}) {
		t.Errorf("the databag is %q", got)
	}
}

func TestWithoutTheGrantTheDatabagStays(t *testing.T) {
	t.Parallel()
	m := withClients("")
	s := m.dispatchOf(t, "database-relation-changed", 7)
	observe(t, s)
	m.fails["secret-grant"] = errors.New("exit status 1")
	err := s.Apply(t.Context(), SetDatabag{state.Databag{Relation: 7, Content: map[string]string{"endpoints": "new"}, Grant: []string{"secret://uuid/a"}}})
	if r, _ := observe(t, s).Relations.ByID(7); !errors.Is(err, m.fails["secret-grant"]) || m.called("relation-set") != 0 || r.LocalApp["endpoints"] != "old" {
		t.Errorf("the error is %v, and it ran %q", err, m.calls)
	}
}

func TestDatabagsThatAreNotWritten(t *testing.T) {
	t.Parallel()
	bag := func(id int, content map[string]string) state.Desired {
		return state.Desired{Databags: []state.Databag{{Relation: id, Content: content, Grant: []string{"secret://uuid/a"}}}}
	}
	tests := []struct {
		name   string
		want   state.Desired
		leader bool
	}{
		{"what is there already", bag(7, map[string]string{"endpoints": "old"}), true},
		{"what is absent and is to be", bag(7, map[string]string{"status": ""}), true},
		{"nothing", bag(7, nil), true},
		{"a databag that was not read", bag(8, map[string]string{"endpoints": "new"}), true},
		{"a relation that is not there", bag(99, map[string]string{"endpoints": "new"}), true},
		{"a databag of the leader's", bag(7, map[string]string{"endpoints": "new"}), false},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			m := withClients(bothOnRecord)
			s := m.dispatchOf(t, "database-relation-changed", 7)
			obs := observe(t, s)
			obs.Leader = test.leader
			if steps := s.Diff(obs, test.want); len(steps) > 0 {
				t.Errorf("the steps are %q", stepTexts(steps))
			}
		})
	}
}

func TestTheRecordOfClients(t *testing.T) {
	t.Parallel()
	client := state.Client{App: "seven", Digest: "x", Secrets: []string{"secret://uuid/a"}, Problem: "p"}
	tests := []struct {
		name    string
		clients map[int]state.Client
		written string // "" for nothing
	}{
		{"no wish", nil, ""},
		{"the same", map[int]state.Client{7: client}, ""},
		{"another digest", map[int]state.Client{7: {App: "seven", Digest: "y", Secrets: client.Secrets, Problem: "p"}},
			`{"7":{"app":"seven","digest":"y","secrets":["secret://uuid/a"],"problem":"p"}}`},
		{"another problem", map[int]state.Client{7: {App: "seven", Digest: "x", Secrets: client.Secrets}},
			`{"7":{"app":"seven","digest":"x","secrets":["secret://uuid/a"]}}`},
		{"no more secrets", map[int]state.Client{7: {App: "seven", Digest: "x", Problem: "p"}}, `{"7":{"app":"seven","digest":"x","problem":"p"}}`},
		{"another application", map[int]state.Client{7: {App: "other", Digest: "x", Secrets: client.Secrets, Problem: "p"}},
			`{"7":{"app":"other","digest":"x","secrets":["secret://uuid/a"],"problem":"p"}}`},
		{"a name that is taken", map[int]state.Client{7: {App: "seven", Digest: "x", Secrets: client.Secrets, Problem: "p", Taken: []string{"a", "b"}}},
			`{"7":{"app":"seven","digest":"x","secrets":["secret://uuid/a"],"problem":"p","taken":["a","b"]}}`},
		{"another leader, who has looked", map[int]state.Client{7: {App: "seven", Digest: "x", Secrets: client.Secrets, Problem: "p", Leader: "db/0"}},
			`{"7":{"app":"seven","digest":"x","secrets":["secret://uuid/a"],"problem":"p","leader":"db/0"}}`},
		{"one more", map[int]state.Client{7: client, 8: {App: "eight"}},
			`{"7":{"app":"seven","digest":"x","secrets":["secret://uuid/a"],"problem":"p"},"8":{"app":"eight","digest":""}}`},
		{"none", map[int]state.Client{}, `{}`},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			text, err := json.Marshal(map[int]state.Client{7: client})
			must(err)
			m := withClients(string(text))
			delete(m.relations["database"], 8)
			s := m.dispatchOf(t, "update-status", -1)
			steps := settle(t, s, func(state.Observed) state.Desired { return state.Desired{Clients: test.clients} })
			m.commit()
			if got := m.bags["1 db"]["clients"]; len(steps) != min(len(test.written), 1) || test.written != "" && got != test.written {
				t.Errorf("the steps are %q, and the record is %s", steps, got)
			}
			if test.clients != nil && !equalClients(observe(t, s).Clients, test.clients) {
				t.Errorf("it remembers %v", observe(t, s).Clients)
			}
		})
	}
	t.Run("another unit writes none", func(t *testing.T) {
		t.Parallel()
		s := withClients("").dispatchOf(t, "update-status", -1)
		obs := observe(t, s)
		obs.Leader = false
		if steps := s.Diff(obs, state.Desired{Clients: map[int]state.Client{7: client}}); len(steps) > 0 {
			t.Errorf("the steps are %q", stepTexts(steps))
		}
	})
	t.Run("one that could not be written is not remembered", func(t *testing.T) {
		t.Parallel()
		m := withClients("")
		s := m.dispatchOf(t, "update-status", -1)
		observe(t, s)
		m.fails["relation-set"] = errors.New("exit status 1")
		if err := s.Apply(t.Context(), SetClients{1, map[int]state.Client{7: client}}); !errors.Is(err, m.fails["relation-set"]) || len(observe(t, s).Clients) > 0 {
			t.Errorf("the error is %v, and it remembers %v", err, observe(t, s).Clients)
		}
	})
}

func TestSecretsThatNobodyNeedsAreRemoved(t *testing.T) {
	t.Parallel()
	m := withClients(bothOnRecord)
	m.secrets["kept"], m.secrets["gone"] = &secret{id: "aaa"}, &secret{id: "bbb"}
	s := m.dispatchOf(t, "update-status", -1)
	obs := observe(t, s)
	steps := s.Diff(obs, state.Desired{Unneeded: []string{"secret://uuid/bbb"}, Clients: map[int]state.Client{}})
	if got := stepTexts(steps); !slices.Equal(got, []string{"remove secret secret://uuid/bbb", "record 0 client relations"}) {
		t.Errorf("the steps are %q", got)
	}
	must(s.Apply(t.Context(), steps[0]))
	m.commit()
	if len(m.secrets) != 1 || m.secrets["kept"] == nil {
		t.Errorf("the secrets are %v", m.secrets)
	}
	m.fails["secret-remove"] = NewToolError("secret-remove", `ERROR secret "bbb" not found`, errors.New("exit status 1"))
	if err := s.Apply(t.Context(), steps[0]); err != nil {
		t.Errorf("for one that is gone already the error is %v", err)
	}
	m.fails["secret-remove"] = NewToolError("secret-remove", "ERROR permission denied", errors.New("exit status 1"))
	if err := s.Apply(t.Context(), steps[0]); !errors.Is(err, m.fails["secret-remove"]) {
		t.Errorf("the error is %v", err)
	}
	obs.Leader = false
	if steps := s.Diff(obs, state.Desired{Unneeded: []string{"secret://uuid/bbb"}}); len(steps) > 0 {
		t.Errorf("another unit makes the steps %q", stepTexts(steps))
	}
}

// What is observed is the handlers' to read, and the system's to change.
func TestObservationsDoNotChangeLater(t *testing.T) {
	t.Parallel()
	s := withClients(bothOnRecord).dispatchOf(t, "update-status", -1)
	obs := observe(t, s)
	for _, step := range []state.Step{ReadRelation{7}, ReadSecret{"label"}, SetClients{1, map[int]state.Client{}}} {
		must(s.Apply(t.Context(), step))
	}
	if r, _ := obs.Relations.ByID(7); r.Read || len(obs.Clients) != 2 || len(obs.Secrets) != 1 {
		t.Errorf("it is %v, %v, %v", r, obs.Clients, obs.Secrets)
	}
}

// A check of Pebble's between two hooks of a removal says nothing of that.
func TestAUnitRemembersThatItIsRemoved(t *testing.T) {
	t.Parallel()
	m := newModel(false)
	goal := `{"units":{"db/0":{"status":"dying"}}}`
	dispatch := func(event string, leaving bool) (state.Observed, *System) {
		s := m.system(event, secretCache{})
		s.env.Leaving = leaving
		run := s.tools.Run
		s.tools.Run = func(ctx context.Context, tool string, args []string, stdin []byte) ([]byte, error) {
			if tool == "goal-state" {
				m.calls = append(m.calls, "goal-state ")
				return []byte(goal), nil
			}
			return run(ctx, tool, args, stdin)
		}
		return observe(t, s), s
	}
	note := func(obs state.Observed, s *System) {
		t.Helper()
		steps := s.Diff(obs, state.Desired{})
		if len(steps) != 1 {
			t.Fatalf("the steps are %v", steps)
		}
		if err := s.Apply(t.Context(), steps[0]); err != nil {
			t.Fatal(err)
		}
		m.commit()
	}
	if obs, _ := dispatch("config-changed", false); obs.Leaving || m.called("goal-state") != 0 {
		t.Error("a unit that stays asks")
	}
	note(dispatch("pgdata-storage-detaching", true))
	obs, s := dispatch("postgresql-pebble-check-failed", false)
	if steps := s.Diff(obs, state.Desired{}); !obs.Leaving || len(steps) != 0 {
		t.Errorf("afterwards it is leaving: %t, with steps %v", obs.Leaving, steps)
	}
	goal = `{"units":{"db/0":{"status":"active"}}}`
	note(dispatch("config-changed", false))
	if obs, _ := dispatch("config-changed", false); obs.Leaving || m.called("goal-state") != 3 {
		t.Errorf("it is leaving: %t, and has asked %d times", obs.Leaving, m.called("goal-state"))
	}
}
