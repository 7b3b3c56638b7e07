package juju

import (
	"testing"

	"charmhub.io/postgresql-k8s/charm/state"
)

// hook is the environment of a hook of unit db/3; more overrides it.
func hook(name string, more map[string]string) func(string) string {
	env := map[string]string{
		"JUJU_UNIT_NAME": "db/3", "JUJU_MODEL_NAME": "test", "JUJU_MODEL_UUID": "uuid",
		"JUJU_CHARM_DIR": "/charm", "JUJU_DISPATCH_PATH": name,
	}
	for key, value := range more {
		env[key] = value
	}
	return func(key string) string { return env[key] }
}

func TestParseEnvironment(t *testing.T) {
	t.Parallel()
	event := func(name string) state.Event { return state.Event{Name: name, Relation: -1} }
	tests := []struct {
		name    string
		path    string
		more    map[string]string
		event   state.Event
		leaving bool
	}{
		{"a hook is named by the end of its path", "hooks/config-changed", nil, event("config-changed"), false},
		{"an event that nobody knows is no error", "hooks/moon-phase-changed", nil, event("moon-phase-changed"), false},
		{"a path without a folder is an event, too", "wake-up", nil, event("wake-up"), false},
		{"an action is named", "actions/get-password", nil, state.Event{Name: "get-password", Relation: -1, Action: "get-password"}, false},
		{"a relation is known by its number", "hooks/database-relation-changed",
			map[string]string{"JUJU_RELATION_ID": "database:7"}, state.Event{Name: "database-relation-changed", Relation: 7}, false},
		{"a relation id that Juju leaves empty is none", "hooks/start", map[string]string{"JUJU_RELATION_ID": ""}, event("start"), false},
		{"a broken relation is known by its number", "hooks/database-relation-broken",
			map[string]string{"JUJU_RELATION_ID": "database:0"}, state.Event{Name: "database-relation-broken", Relation: 0}, false},
		{"a secret is known by its label", "hooks/secret-changed",
			map[string]string{"JUJU_SECRET_LABEL": "database-peers.db.app"},
			state.Event{Name: "secret-changed", Relation: -1, Secret: "database-peers.db.app"}, false},
		{"another unit that departs is no reason to leave", "hooks/database-peers-relation-departed",
			map[string]string{"JUJU_RELATION_ID": "database-peers:1", "JUJU_DEPARTING_UNIT": "db/30"},
			state.Event{Name: "database-peers-relation-departed", Relation: 1}, false},
		{"this unit that departs leaves", "hooks/database-peers-relation-departed",
			map[string]string{"JUJU_RELATION_ID": "database-peers:1", "JUJU_DEPARTING_UNIT": "db/3"},
			state.Event{Name: "database-peers-relation-departed", Relation: 1}, true},
		{"a unit that is stopped leaves", "hooks/stop", nil, event("stop"), true},
		{"a unit that is removed leaves", "hooks/remove", nil, event("remove"), true},
		{"a unit whose storage goes leaves", "hooks/pgdata-storage-detaching", nil, event("pgdata-storage-detaching"), true},
		{"a unit whose storage comes stays", "hooks/pgdata-storage-attached", nil, event("pgdata-storage-attached"), false},
		{"a container that stops is not the unit", "hooks/postgresql-pebble-stop", nil, event("postgresql-pebble-stop"), false},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			env, err := ParseEnvironment(hook(test.path, test.more))
			if err != nil {
				t.Fatal(err)
			}
			unit := state.Unit{Name: "db/3", App: "db", Number: 3, Model: "test", ModelUUID: "uuid", CharmDir: "/charm"}
			if env.Unit != unit {
				t.Errorf("the unit is %+v, want %+v", env.Unit, unit)
			}
			if env.Event != test.event {
				t.Errorf("the event is %+v, want %+v", env.Event, test.event)
			}
			if env.Leaving != test.leaving {
				t.Errorf("leaving is %t, want %t", env.Leaving, test.leaving)
			}
		})
	}
}

func TestParseEnvironmentRefusesWhatIsNoHook(t *testing.T) {
	t.Parallel()
	tests := []struct {
		name string
		more map[string]string
		err  string
	}{
		{"no unit", map[string]string{"JUJU_UNIT_NAME": ""}, `cannot read JUJU_UNIT_NAME: "" is no unit name`},
		{"an application for a unit", map[string]string{"JUJU_UNIT_NAME": "db"}, `cannot read JUJU_UNIT_NAME: "db" is no unit name`},
		{"a unit without a number", map[string]string{"JUJU_UNIT_NAME": "db/leader"}, `cannot read JUJU_UNIT_NAME: "db/leader" is no unit name`},
		{"no event", map[string]string{"JUJU_DISPATCH_PATH": ""},
			"cannot read JUJU_DISPATCH_PATH: it is not set; Juju sets it when it runs the charm"},
		{"a relation without a number", map[string]string{"JUJU_RELATION_ID": "database:x"},
			`cannot read JUJU_RELATION_ID: strconv.Atoi: parsing "x": invalid syntax`},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			_, err := ParseEnvironment(hook("hooks/start", test.more))
			if err == nil || err.Error() != test.err {
				t.Errorf("the error is %v, want %s", err, test.err)
			}
		})
	}
}
