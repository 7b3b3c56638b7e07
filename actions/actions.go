// Package actions has what people run on a unit with juju run: a registry, and
// one file for each action.
package actions

import (
	"charmhub.io/postgresql-k8s/charm/state"
)

// Action is one action.
type Action struct {
	Name string
	// Run looks at a fresh observation and returns results, or an error whose
	// text tells the user why the action cannot run and what to do about it.
	Run func(obs state.Observed) (map[string]string, error)
}

// All returns every action; charmcraft.yaml declares the same ones.
func All() []Action {
	return []Action{getPrimary}
}
