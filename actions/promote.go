package actions

import (
	"fmt"
	"time"

	"charmhub.io/postgresql-k8s/charm/state"
)

// promote makes this unit's member the primary, by a switchover: the old primary
// stops in an orderly way, no commit is lost. It is over when that has happened.
var promote = Action{Name: "promote-to-primary", Params: []string{"scope", "force"},
	Begin: func(obs state.Observed) (Task, error) {
		switch scope := obs.Params["scope"].Reveal(); {
		case scope == "cluster":
			return nil, refusal("scope=cluster is for replication between clusters, which this revision of the charm does not have")
		case scope != "unit":
			return nil, refusal("Scope should be either cluster or unit: scope=unit makes this unit the primary")
		case obs.Params["force"] == "true":
			return nil, refusal("Superfluous force flag with unit scope")
		case obs.Leaving:
			return nil, refusal("this unit is on its way out")
		}
		cluster, primary, err := members(obs)
		if err != nil {
			return nil, err
		}
		me, _ := cluster.Member(obs.Unit.Pod())
		if primary.Name == me.Name {
			return answered(Progress{Log: "This unit is the primary already.", Results: promoted(obs.Unit, 0)}), nil
		}
		// Without synchronous replication no replica is known to have every commit; then
		// Patroni lets one take over that has them all once the primary has stopped.
		if me.Name == "" {
			return nil, refusal("this unit has no member of the cluster yet: wait until it follows the primary, and try again")
		}
		if cluster.Synchronous() && !me.Synchronous() {
			return nil, refusal(fmt.Sprintf("Unit is not sync standby: it may lack commits, it is %s; wait until the action status shows it with SYNC quorum or sync", me.State))
		}
		if !me.Well() {
			return nil, refusal(fmt.Sprintf("this unit's member does not follow the primary: it is %s", me.State))
		}
		if !me.Near() {
			return nil, refusal("this unit's member is far behind the primary, and clients would wait for what it lacks: the action status tells how far; try again when it has caught up")
		}
		asked := false
		return func(view View, want *state.Desired) Progress {
			if view.Failed != nil {
				return Progress{Failure: refusal(fmt.Sprintf("Switchover failed or timed out, check the logs for details: %v", view.Failed))}
			}
			now, _ := view.Cluster.Get()
			if asked && now.Local.Primary() {
				if p, ok := now.Primary(); ok && p.Name == me.Name {
					return Progress{Done: true, Results: promoted(view.Unit, view.Took)}
				}
			}
			if view.Took > limit {
				return Progress{Failure: refusal(fmt.Sprintf("Switchover failed or timed out, check the logs for details: after %d seconds the primary is not this unit", int(limit.Seconds())))}
			}
			if !asked {
				asked, want.Successor = true, state.Successor{Member: me}
				return Progress{Log: asking(primary.Name, me.Name)}
			}
			return Progress{Log: handingOver(now, primary.Name, me.Name)}
		}, nil
	}}

func promoted(unit state.Unit, took time.Duration) map[string]string {
	return map[string]string{"primary": unit.Name, "seconds": seconds(took)}
}

// asking and handingOver say how far a switchover between two members is.
func asking(from, to string) string {
	return "asking " + state.UnitName(from) + " to hand over to " + state.UnitName(to)
}

func handingOver(cluster state.Cluster, from, to string) string {
	holder := ""
	for _, m := range cluster.Members {
		if m.Role == "leader" {
			holder = m.Name
		}
	}
	switch holder {
	case from:
		return state.UnitName(from) + " stops"
	case to:
		return state.UnitName(to) + " is being promoted"
	case "":
		return state.UnitName(from) + " has stopped; nobody has the lock yet"
	}
	return state.UnitName(holder) + " has the lock"
}
