package actions

import (
	"errors"
	"fmt"

	"charmhub.io/postgresql-k8s/charm/state"
)

// getPrimary tells which unit takes writes.
var getPrimary = Action{Name: "get-primary", Begin: question(func(obs state.Observed, _ state.Desired) (map[string]string, error) {
	cluster, ok := obs.Cluster.Get()
	if !ok {
		// The leader has asked the server of who has the lock, and it takes writes.
		if primary, held := obs.Primary(); held {
			if _, serves := obs.Database.Get(); serves {
				return map[string]string{"primary": state.UnitName(primary.Name)}, nil
			}
		}
		return nil, fmt.Errorf("this unit's member does not run (%s): ask another unit, or wait for this one", obs.Cluster.Why())
	}
	primary, ok := cluster.Primary()
	switch {
	case !ok && cluster.Local.Primary():
		return map[string]string{"primary": obs.Unit.Name}, nil // it serves on without the Kubernetes API
	case !ok && cluster.Away != "":
		return nil, fmt.Errorf("this unit's member cannot reach the Kubernetes API (%s): ask another unit", cluster.Away)
	case !ok:
		return nil, errors.New("there is no primary now: wait for the cluster to elect one, and try again")
	}
	return map[string]string{"primary": state.UnitName(primary.Name)}, nil
})}
