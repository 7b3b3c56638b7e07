package core

import (
	"slices"
	"time"

	"charmhub.io/postgresql-k8s/charm/state"
)

// Refresh leads a rollout of the pods, which juju refresh causes. It looks at
// what clients are to be told: it comes after the other handlers.
//
// Kubernetes replaces the highest ordinal first and goes on when that pod is ready,
// which says nothing of the cluster. So the unit that was replaced last, the holder,
// keeps the partition at itself from its first dispatch on, until the cluster can do
// without the next one; then it lets that one go. A unit that is not well, or whose
// charm does not run, lets nobody go: that halts the rollout without anybody's doing.
// The leader keeps watch, too, for revisions that know nothing of this. The others wake it
// when its own workload does not come back.
//
// Old and new revisions of the charm share databags meanwhile. The rule for that is:
// a key that is missing or cannot be read says nothing, one that is not known stays.
type Refresh struct{}

// Name implements charm.Handler.
func (Refresh) Name() string { return "refresh" }

// Desire implements charm.Handler.
func (Refresh) Desire(obs state.Observed, want *state.Desired) {
	if _, known := obs.Kube.Get(); !known || obs.Leaving {
		return
	}
	refresh, is := obs.Refresh()
	want.Refreshed = progress(obs, refresh, is)
	record(obs, want, state.StackKey, state.StackText(obs.Stack()))
	record(obs, want, state.ResumedKey, resumed(obs))
	record(obs, want, state.PublishedKey, published(obs, is, want))
	if !is {
		return
	}
	unheard := silent(obs, refresh)
	if unheard != "" && want.Announce != "" {
		want.Announce += " hears nothing of " + unheard
	}
	holder := refresh.Holder(obs.Unit)
	leads := obs.Leader || holder
	if layer, wished := want.Layer.Get(); wished && (leads || unheard == "" && !refresh.Paused(obs)) {
		layer.Checks["pulse"] = beat(true)
	}
	if !leads {
		return
	}
	failed, why, halted := refresh.Halted(obs)
	_, missing := ready(obs, want.Endpoints)
	blocked := missing != nil && missing.Severity == state.Blocked
	v := judge(obs, refresh, holder && blocked)
	if holder || watches(obs, refresh) {
		v.wish(refresh, want)
	}
	if halted {
		want.Problem(state.Problem{Severity: state.Blocked, Message: state.MessageRefreshHalted(obs.Unit.App, failed, why)})
		return // the pulse is often enough
	}
	if holder && v.message != "" {
		want.Problem(state.Problem{Severity: state.Maintenance, Message: v.message})
	}
	want.Later = want.Later || holder && !blocked && v.message != state.MessageRefreshPaused
}

// silent is the unit of which nothing was heard since its pod was replaced: if it is the
// leader's, it has no workload that would wake it.
func silent(obs state.Observed, refresh state.Refresh) string {
	obs.Now = obs.Now.Add(-clockSkew) // it is woken but once, and must see that itself
	unit, _, halted := refresh.Halted(obs)
	cluster, _ := obs.Cluster.Get()
	if member, _ := cluster.Member(state.PodOf(unit)); !halted || member.State != "" {
		return ""
	}
	return unit
}

// clockSkew is how far the clocks of two nodes may differ.
const clockSkew = 10 * time.Second

// holderPatience is how long the leader leaves a rollout to the holder.
const holderPatience = 30 * time.Second

// watches tells whether the leader has to do what the holder does not. What the
// holder may have done in this moment it does not undo.
func watches(obs state.Observed, refresh state.Refresh) bool {
	_, known := obs.Cluster.Get()
	holder := refresh.Done
	return (known || refresh.Resumed(obs)) && refresh.Partition != refresh.Next &&
		(len(holder) == 0 || obs.Now.Sub(holder[len(holder)-1].Created) > holderPatience)
}

// verdict is whether the next pod may be replaced now.
type verdict struct {
	free      bool
	message   string          // why, if others have not said it
	successor state.Successor // who is to be the primary first, if it has a name
}

func (v verdict) wish(refresh state.Refresh, want *state.Desired) {
	want.Successor = v.successor
	switch {
	case v.free:
		want.Partition = state.Value(refresh.Next)
	case refresh.Fixed: // the pod would come back as it was
	case refresh.Partition == refresh.Next && refresh.Next > 0: // somebody has let it go
	default:
		want.Partition = state.Value(min(refresh.Next+1, refresh.Replicas-1))
	}
}

func judge(obs state.Observed, refresh state.Refresh, blocked bool) verdict {
	unit, why := refresh.Ill(obs)
	switch {
	case refresh.Resumed(obs):
		if v := handover(obs, refresh, false); v.successor.Name != "" {
			return v
		}
		return free(obs, refresh)
	case unit == obs.Unit.Name, blocked:
		return verdict{}
	case unit != "":
		return verdict{message: state.MessageRefreshWaits(unit, why)}
	case refresh.Paused(obs):
		return verdict{message: state.MessageRefreshPaused}
	}
	return handover(obs, refresh, true)
}

// completePatience is how long a refreshed replica may take until it confirms commits,
// from the moment its pod was made. One that only claims to stream never does.
const completePatience = 2 * time.Minute

// handover frees the next pod when it is not the primary's and the cluster survives
// without it. A primary hands over to a unit that stays: so it does only once. It may
// wait for those who take no part yet and would not confirm the new primary's commits:
// clients would wait for the old one to come back.
func handover(obs state.Observed, refresh state.Refresh, wait bool) verdict {
	cluster, _ := obs.Cluster.Get()
	name := state.PodName(obs.Unit.App, refresh.Next)
	next, _ := cluster.Member(name)
	primary, _ := cluster.Primary()
	switch {
	case primary.Name == "":
		return verdict{message: state.MessageStarting}
	case primary.Name == name && !refresh.Fixed && len(refresh.Done) > 0:
		successor, ok := cluster.Successor(func(m state.Member) bool { return state.PodNumber(m.Name) > refresh.Next })
		last := refresh.Done[len(refresh.Done)-1]
		if !ok || wait && !cluster.Complete() && obs.Now.Sub(last.Created) < completePatience {
			return verdict{message: state.MessageNoRefreshed}
		}
		return verdict{message: state.MessageHandover(state.UnitName(successor.Name)), successor: successor}
	case refresh.Untold(obs):
		return verdict{message: state.MessageRefreshUntold}
	case refresh.Replicas == 2 && !refresh.Fixed && !next.Well():
		// It was the primary a moment ago, and writes wait for it.
		return verdict{message: state.MessageRefreshWaits(state.UnitName(name), next.State)}
	case refresh.Replicas > 2 && cluster.Synchronous() && !slices.ContainsFunc(cluster.Members, func(m state.Member) bool {
		// Where Patroni chooses who confirms commits it chooses anew when that one goes.
		return m.Synchronous() && (m.Name != name || cluster.Dynamic["synchronous_mode"] != "quorum")
	}):
		return verdict{message: state.MessageRefreshNoSuccessor}
	}
	return free(obs, refresh)
}

func free(obs state.Observed, refresh state.Refresh) verdict {
	return verdict{free: true, message: state.MessageRefreshNext(state.UnitName(state.PodName(obs.Unit.App, refresh.Next)))}
}

// progress is how far this unit is, in upstream's words: its leader waits for them.
func progress(obs state.Observed, refresh state.Refresh, is bool) string {
	if refresh.Revision == "" {
		return "" // nobody knows: what was told last stays
	}
	if !is || !refresh.Has(obs.Unit) {
		return "idle"
	}
	cluster, _ := obs.Cluster.Get()
	if me, _ := cluster.Member(obs.Unit.Pod()); me.Well() {
		return "completed"
	}
	if unit, _, halted := refresh.Halted(obs); halted && unit == obs.Unit.Name {
		return "failed"
	}
	return "upgrading"
}

// record keeps a key of the application's databag right: the leader's alone, and only
// where it differs.
func record(obs state.Observed, want *state.Desired, key, value string) {
	upgrade, there := obs.Relations.Upgrade()
	if there && obs.Leader && upgrade.LocalApp[key] != value {
		want.Databags = append(want.Databags, state.Databag{Relation: upgrade.ID, Content: map[string]string{key: value}})
	}
}

// resumed is what resume-upgrade has noted, until the rollout is over: another one may
// bring the same revision again.
func resumed(obs state.Observed) string {
	upgrade, _ := obs.Relations.Upgrade()
	if obs.Uniform() {
		return ""
	}
	return upgrade.LocalApp[state.ResumedKey]
}

// published is the primary that clients are told of during a rollout.
func published(obs state.Observed, refreshing bool, want *state.Desired) string {
	upgrade, _ := obs.Relations.Upgrade()
	primary, told := told(obs, want)
	switch {
	case obs.Uniform():
		return ""
	case !refreshing, !told:
		return upgrade.LocalApp[state.PublishedKey]
	}
	return primary
}
