package actions

import (
	"errors"
	"fmt"
	"strings"

	"charmhub.io/postgresql-k8s/charm/state"
)

// getPrimary tells which unit takes writes.
var getPrimary = Action{Name: "get-primary", Run: func(obs state.Observed) (map[string]string, error) {
	cluster, ok := obs.Cluster.Get()
	if !ok {
		return nil, fmt.Errorf("this unit's member does not run (%s): ask another unit, or wait for this one", obs.Cluster.Why())
	}
	primary, ok := cluster.Primary()
	if !ok {
		return nil, errors.New("there is no primary now: wait for the cluster to elect one, and try again")
	}
	number := strings.TrimPrefix(primary.Name, obs.Unit.App+"-")
	return map[string]string{"primary": obs.Unit.App + "/" + number}, nil
}}
