package actions

import (
	"slices"

	"charmhub.io/postgresql-k8s/charm/state"
)

// checkFailed begins what pre-upgrade-check finds wrong; upstream's words.
const checkFailed = "Pre-upgrade check failed and cannot safely upgrade: "

// preUpgradeCheck makes the application ready for juju refresh: all members are well,
// unit 0 is the primary, because its pod is replaced last, and only the first unit is
// refreshed until resume-upgrade. While a refresh is halted it gets ready to roll back.
var preUpgradeCheck = Action{Name: "pre-upgrade-check", Begin: func(obs state.Observed) (Task, error) {
	if err := mayUpgrade(obs); err != nil {
		return nil, err
	}
	if refresh, is := obs.Refresh(); is {
		if _, _, halted := refresh.Halted(obs); !halted {
			return nil, refusal("Cannot run pre-upgrade checks, cluster already upgrading.")
		}
		return prepared("ready to rollback application"), nil
	}
	cluster, primary, err := members(obs)
	if err != nil {
		return nil, refusal(checkFailed + err.Error())
	}
	if why := missing(obs, cluster); why != "" {
		return nil, refusal(checkFailed + why + ": wait for all units to become active/idle")
	}
	first, _ := cluster.Member(state.PodName(obs.Unit.App, 0))
	if primary.Name == first.Name {
		return prepared("ready for juju refresh"), nil
	}
	if cluster.Synchronous() && !slices.ContainsFunc(cluster.Members, state.Member.Synchronous) {
		return nil, refusal("invalid number of sync nodes: no replica is known to have every commit yet; wait some seconds and run this action again")
	}
	unit := state.UnitName(first.Name)
	if cluster.Synchronous() && !first.Synchronous() {
		return nil, refusal(unit + " needs to be a synchronous standby in order to become the primary before the upgrade process can start - wait 30 seconds for " +
			unit + " to become a synchronous standby and run this action again")
	}
	if !first.Near() {
		return nil, refusal(checkFailed + unit + " is to be the primary, and is far behind: wait until it has caught up")
	}
	return bounded(handOverTo(first, primary.Name)), nil
}}

// mayUpgrade says why neither action of an upgrade can run here; upstream's words.
func mayUpgrade(obs state.Observed) error {
	if _, there := obs.Relations.Upgrade(); !there {
		return refusal("Could not find upgrade relation.")
	}
	if !obs.Leader {
		return refusal("Action must be ran on the Juju leader. juju run " + obs.Unit.App + "/leader " + obs.Event.Action)
	}
	if obs.Leaving {
		return refusal("this unit is on its way out: run the action on the next leader")
	}
	return nil
}

// missing says which unit has no member that is well.
func missing(obs state.Observed, cluster state.Cluster) string {
	units, _ := obs.Units.Get()
	names := map[string]bool{}
	for _, unit := range units {
		names[state.PodOf(unit)] = true
	}
	if ill := unwell(cluster, names); ill != "" {
		return ill
	}
	return unwell(cluster, nil)
}

// handOverTo makes a member the primary. It does not wait until the others follow:
// what clients are told of it reaches them only when the action is over.
func handOverTo(to state.Member, from string) Task {
	asked, finish := false, prepared("ready for juju refresh")
	return func(view View, want *state.Desired) Progress {
		cluster, _ := view.Cluster.Get()
		primary, _ := cluster.Primary()
		switch {
		case !asked:
			asked, want.Successor = true, state.Successor{Member: to}
			return Progress{Log: asking(from, to.Name)}
		case primary.Name == to.Name:
			return finish(view, want)
		case view.Failed != nil:
			return Progress{Failure: refusal("Switchover failed or timed out, check the logs for details: " + view.Failed.Error())}
		}
		return Progress{Log: handingOver(cluster, from, to.Name)}
	}
}

// prepared lets juju refresh replace the pod of the highest unit, and no other.
func prepared(log string) Task {
	asked := false
	return func(view View, want *state.Desired) Progress {
		if asked {
			if view.Failed != nil {
				return Progress{Failure: refusal("Cannot set rolling update partition. " + view.Failed.Error())}
			}
			return Progress{Done: true, Log: log}
		}
		asked = true
		units, _ := view.Units.Get()
		stack := make([]int, len(units))
		for i := range stack {
			stack[i] = i
		}
		want.Partition = state.Value(len(units) - 1)
		note(view.Observed, want, map[string]string{state.StackKey: state.StackText(stack), state.PreparedKey: view.Revision()})
		return Progress{}
	}
}

// note sets keys of the application's databag in the upgrade relation, whatever the
// handlers wished.
func note(obs state.Observed, want *state.Desired, content map[string]string) {
	upgrade, _ := obs.Relations.Upgrade()
	for key := range content {
		want.Databags = slices.DeleteFunc(want.Databags, func(d state.Databag) bool {
			_, has := d.Content[key]
			return has && d.Relation == upgrade.ID
		})
	}
	want.Databags = append(want.Databags, state.Databag{Relation: upgrade.ID, Content: content})
}
