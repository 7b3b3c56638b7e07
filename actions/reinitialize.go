package actions

import (
	"fmt"

	"charmhub.io/postgresql-k8s/charm/state"
)

// reinitialize throws the data of this unit's replica away and makes a new copy of
// the primary's: for one that cannot follow any more.
var reinitialize = Action{Name: "reinitialize", Params: []string{"confirm"},
	Begin: func(obs state.Observed) (Task, error) {
		if confirm := obs.Params["confirm"].Reveal(); confirm != obs.Unit.Name {
			return nil, refusal(fmt.Sprintf("this throws the data of %s away and copies the primary's; if that is what you want: juju run %s reinitialize confirm=%s",
				obs.Unit.Name, obs.Unit.Name, obs.Unit.Name))
		}
		if obs.Leaving {
			return nil, refusal("this unit is on its way out")
		}
		cluster, primary, err := members(obs)
		if err != nil {
			return nil, err
		}
		name := obs.Unit.Pod()
		switch {
		case primary.Name == name:
			return nil, refusal("this unit is the primary, whose data are the cluster's: nothing was changed; promote another unit first")
		case cluster.Local.State == "creating replica":
			return nil, refusal("this unit is making a copy of the primary already: its status shows how far it is")
		}
		before, asked := cluster.Local.Started, false
		return func(view View, want *state.Desired) Progress {
			if view.Failed != nil {
				return Progress{Failure: view.Failed}
			}
			if !asked {
				asked, want.Reinitialize = true, true
				return Progress{Log: "copying " + state.UnitName(primary.Name)}
			}
			now, _ := view.Cluster.Get()
			me, _ := now.Member(name)
			if now.Local.Running() && now.Local.Started != before && me.Well() {
				return Progress{Done: true, Results: map[string]string{"state": me.State, "seconds": seconds(view.Took)}}
			}
			if view.Took > limit { // a copy takes as long as it takes
				return Progress{Done: true, Results: map[string]string{"state": now.Local.State, "seconds": seconds(view.Took)},
					Log: "the copy goes on; the unit's status shows how far it is"}
			}
			if now.Local.State == "creating replica" {
				return Progress{Log: state.MessageCloning(view.Cloned)}
			}
			return Progress{Log: "the member is " + now.Local.State}
		}, nil
	}}
