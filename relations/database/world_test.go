package database

import (
	"charmhub.io/postgresql-k8s/charm/state"
	"charmhub.io/postgresql-k8s/relations/clients/clientstest"
)

type world = clientstest.World

func leading(relations ...state.Relation) *world {
	return clientstest.Leading([]clientstest.Handler{Handler{}}, relations...)
}

func related(id int, remote map[string]string) state.Relation {
	return clientstest.Related(id, state.DatabaseEndpoint, remote)
}
