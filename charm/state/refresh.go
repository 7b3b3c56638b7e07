package state

import (
	"encoding/json"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"
)

// Rollout is how Kubernetes replaces the pods of the StatefulSet: the highest
// ordinal first, the next one when that is ready, none below the partition
// (https://kubernetes.io/docs/concepts/workloads/controllers/statefulset/#partitions).
type Rollout struct {
	Revision  string // that all pods are to have; "" while Kubernetes has not said
	Partition int
	Replicas  int
}

// Refresh is a rollout that is on its way.
type Refresh struct {
	Rollout
	Next int // ordinal of the pod that is replaced next, or is being so
	// Fixed tells that Next is being replaced: its pod is on its way out or gone.
	Fixed bool
	// Done are the pods that have the revision, the highest ordinal first.
	Done []Pod
}

// Refresh returns the rollout that is on its way, if there is one: while a pod is of
// another revision. One that is away says nothing. Which charm or image it brings, or
// takes back, makes no difference.
func (o Observed) Refresh() (Refresh, bool) {
	kube, _ := o.Kube.Get()
	r := Refresh{Rollout: kube.Rollout}
	if r.Revision == "" || !slices.ContainsFunc(kube.Pods, func(p Pod) bool { return p.Revision != r.Revision }) {
		return r, false
	}
	for r.Next = r.Replicas - 1; r.Next >= 0; r.Next-- {
		pod, there := kube.Pod(PodName(o.Unit.App, r.Next))
		if !there || pod.Revision != r.Revision {
			r.Fixed = !there || pod.Terminating
			return r, true
		}
		r.Done = append(r.Done, pod)
	}
	return r, false
}

// Holder tells whether the unit is the one that was replaced last: it knows best
// whether the revision is any good.
func (r Refresh) Holder(unit Unit) bool { return unit.Number == r.Next+1 && len(r.Done) > 0 }

// Has tells whether the unit's pod has the revision.
func (r Refresh) Has(unit Unit) bool { return unit.Number > r.Next }

// Ill returns the unit, of all but the next one, whose member does not run or, as a
// replica, follow; and what is the matter. The unit is "" when all are well.
func (r Refresh) Ill(obs Observed) (unit, why string) {
	cluster, ok := obs.Cluster.Get()
	if !ok {
		return obs.Unit.Name, "starting"
	}
	for number := r.Replicas - 1; number >= 0; number-- {
		name := PodName(obs.Unit.App, number)
		member, there := cluster.Member(name)
		switch {
		case number == r.Next:
		case !there:
			return UnitName(name), "not a member of the cluster"
		case !member.Well():
			return UnitName(name), member.State
		}
	}
	return "", ""
}

// refreshPatience is how long a member may take to be well after its pod was made.
const refreshPatience = time.Minute

// Halted tells whether a unit that has the revision is ill, and not just starting.
func (r Refresh) Halted(obs Observed) (unit, why string, halted bool) {
	if _, ok := obs.Cluster.Get(); !ok && !r.Has(obs.Unit) {
		return "", "", false // this unit knows nothing of the others
	}
	unit, why = r.Ill(obs)
	for _, pod := range r.Done {
		if UnitName(pod.Name) == unit {
			return unit, why, why != cloningState && obs.Now.Sub(pod.Created) > refreshPatience
		}
	}
	return unit, why, false
}

// cloningState is Patroni's word for a member that copies the primary, which takes
// as long as it takes.
const cloningState = "creating replica"

// Keys of the databag of UpgradeEndpoint. The first two are upstream's: an
// application may be refreshed from one to the other and back.
const (
	StackKey     = "upgrade-stack" // ordinals still to be refreshed, as JSON; set by pre-upgrade-check
	StateKey     = "state"         // of a unit: idle, upgrading, completed or failed
	PreparedKey  = "prepared"      // the revision that the pods had, or were to have, at pre-upgrade-check
	ResumedKey   = "resumed"       // the step of a rollout that a person has allowed
	PublishedKey = "published"     // the primary that clients were told of, during a rollout
)

// Upgrade returns the relation in which units tell each other of a refresh.
func (r Relations) Upgrade() (Relation, bool) {
	if len(r[UpgradeEndpoint]) == 0 {
		return Relation{}, false
	}
	return r[UpgradeEndpoint][0], true
}

// Revision is the one that all pods have, or are to have; "" while Kubernetes has not
// yet said which.
func (o Observed) Revision() string {
	if refresh, is := o.Refresh(); is {
		return refresh.Revision
	}
	if o.Uniform() {
		kube, _ := o.Kube.Get()
		return kube.Pods[0].Revision
	}
	return ""
}

// Uniform tells whether all pods are of one revision: no rollout is on its way. When
// they are not there may be none either, for the moment that Kubernetes takes to
// look at a change.
func (o Observed) Uniform() bool {
	kube, _ := o.Kube.Get()
	return len(kube.Pods) > 0 &&
		!slices.ContainsFunc(kube.Pods, func(p Pod) bool { return p.Revision != kube.Pods[0].Revision })
}

// Begun tells whether the refresh that pre-upgrade-check was for has begun: until
// then it says nothing of a rollout that is on its way, or over.
func (o Observed) Begun() bool {
	upgrade, _ := o.Relations.Upgrade()
	now := o.Revision()
	return now != "" && now != upgrade.LocalApp[PreparedKey]
}

// Stack are the ordinals that pre-upgrade-check has noted and that are still to be
// refreshed: none when that rollout is over. What cannot be read is none.
func (o Observed) Stack() []int {
	upgrade, _ := o.Relations.Upgrade()
	var stack []int
	if json.Unmarshal([]byte(upgrade.LocalApp[StackKey]), &stack) != nil {
		return nil
	}
	refresh, is := o.Refresh()
	switch {
	case !o.Begun():
		return stack
	case !is:
		return nil
	}
	return slices.DeleteFunc(stack, func(n int) bool { return n > refresh.Next })
}

// StackText is a stack as the databag has it.
func StackText(stack []int) string {
	if len(stack) == 0 {
		return ""
	}
	text, _ := json.Marshal(stack) // numbers always can be
	return string(text)
}

// Step names the replacement of the next pod in this rollout and no other.
func (r Refresh) Step() string { return fmt.Sprintf("%s/%d", r.Revision, r.Next) }

// Resumed tells whether a person has said that it goes on, come what may.
func (r Refresh) Resumed(obs Observed) bool {
	upgrade, _ := obs.Relations.Upgrade()
	return upgrade.LocalApp[ResumedKey] == r.Step()
}

// Paused tells whether the first unit is refreshed and a person is to look at it
// before the others are: that is what pre-upgrade-check has asked for.
func (r Refresh) Paused(obs Observed) bool {
	return len(r.Done) == 1 && len(obs.Stack()) > 0 && r.Partition > r.Next && !r.Resumed(obs)
}

// Untold tells whether clients still know another primary: the next pod may be the
// leader's, who would have to tell them. A leader that notes nothing is not waited for.
func (r Refresh) Untold(obs Observed) bool {
	upgrade, _ := obs.Relations.Upgrade()
	cluster, _ := obs.Cluster.Get()
	primary, ok := cluster.Primary()
	name := upgrade.LocalApp[PublishedKey]
	return ok && name != "" && name != primary.Name
}

// PodNumber is the ordinal in the name of a pod, or -1.
func PodNumber(pod string) int {
	n, err := strconv.Atoi(pod[strings.LastIndexByte(pod, '-')+1:])
	if err != nil {
		return -1
	}
	return n
}
