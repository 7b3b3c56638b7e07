package juju

import (
	"fmt"
	"path"
	"slices"
	"strconv"
	"strings"

	"charmhub.io/postgresql-k8s/charm/state"
)

// Environment is what Juju told the process: the unit, why it runs, and whether
// the unit is on its way out.
type Environment struct {
	Unit    state.Unit
	Event   state.Event
	Leaving bool
	// Broken is the relation that ends with this event, or -1. Some versions of
	// Juju still list it.
	Broken int
}

// ParseEnvironment reads the variables of a hook. Only JUJU_UNIT_NAME and
// JUJU_DISPATCH_PATH are required: an unknown event is no error.
func ParseEnvironment(getenv func(string) string) (Environment, error) {
	var env Environment
	name := getenv("JUJU_UNIT_NAME")
	app, number, ok := strings.Cut(name, "/")
	n, err := strconv.Atoi(number)
	if !ok || err != nil {
		return env, fmt.Errorf("cannot read JUJU_UNIT_NAME: %q is no unit name", name)
	}
	dispatch := getenv("JUJU_DISPATCH_PATH")
	if dispatch == "" {
		return env, fmt.Errorf("cannot read JUJU_DISPATCH_PATH: it is not set; Juju sets it when it runs the charm")
	}
	env.Unit = state.Unit{
		Name: name, App: app, Number: n,
		Model: getenv("JUJU_MODEL_NAME"), ModelUUID: getenv("JUJU_MODEL_UUID"),
		CharmDir: getenv("JUJU_CHARM_DIR"),
	}
	env.Event = state.Event{Name: path.Base(dispatch), Relation: -1, Secret: getenv("JUJU_SECRET_LABEL")}
	if path.Dir(dispatch) == "actions" {
		env.Event.Action = env.Event.Name
	}
	if _, id, ok := strings.Cut(getenv("JUJU_RELATION_ID"), ":"); ok {
		if env.Event.Relation, err = strconv.Atoi(id); err != nil {
			return env, fmt.Errorf("cannot read JUJU_RELATION_ID: %w", err)
		}
	}
	env.Broken = -1
	if strings.HasSuffix(env.Event.Name, "-relation-broken") {
		env.Broken = env.Event.Relation
	}
	env.Leaving = leaving(env.Event.Name, getenv("JUJU_DEPARTING_UNIT") == name)
	return env, nil
}

// leaving tells whether this event says that the unit goes away. Juju runs stop
// for a pod that is only being replaced, too: then the workload is going down
// with us, and there is nothing to do either.
func leaving(event string, departing bool) bool {
	return departing || slices.Contains([]string{"stop", "remove"}, event) ||
		strings.HasSuffix(event, "-storage-detaching")
}
