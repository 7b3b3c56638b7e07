package pgsql

import (
	"charmhub.io/postgresql-k8s/charm/state"
	"charmhub.io/postgresql-k8s/relations/clients/clientstest"
	"charmhub.io/postgresql-k8s/relations/database"
)

type world = clientstest.World

// leading has the handlers of all endpoints of applications.
func leading(relations ...state.Relation) *world {
	return clientstest.Leading([]clientstest.Handler{database.Handler{}, Handler{}, Handler{Admin: true}}, relations...)
}

// related is a relation of an application with two units, as its library has
// them write: the units repeat what the application asks for.
func related(id int, endpoint string, asks map[string]string) state.Relation {
	relation := clientstest.Related(id, endpoint, asks)
	relation.Units = map[string]map[string]string{
		"app/0": state.With(asks, map[string]string{"egress-subnets": "10.1.0.2/32"}),
		"app/1": state.With(asks, map[string]string{"egress-subnets": "10.1.0.1/32,10.1.0.2/32"}),
	}
	return relation
}

func orders() map[string]string { return map[string]string{"database": "orders"} }
