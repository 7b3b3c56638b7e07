package actions

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"charmhub.io/postgresql-k8s/charm/state"
)

// restart restarts PostgreSQL on all units, one after the other: the replicas
// first, each when the one before follows again. The primary hands over to one of
// them, which restarts its server, too; alone it is restarted in place. Whoever
// restarts the servers for changed settings is the leader, and so it is here.
var restart = Action{Name: "restart", Begin: func(obs state.Observed) (Task, error) {
	if !obs.Leader {
		return nil, notLeader(obs)
	}
	if obs.Leaving {
		return nil, refusal("this unit is on its way out: run the action on the next leader")
	}
	cluster, primary, err := members(obs)
	if err != nil {
		return nil, err
	}
	if ill := unwell(cluster, nil); ill != "" {
		return nil, refusal(ill + ": nothing was restarted; the others must stay until it is well")
	}
	r := &rolling{primary: primary.Name, done: map[string]bool{}}
	return r.ask, nil
}}

// rolling is a restart of all members.
type rolling struct {
	primary   string // at the beginning
	successor string // to whom it hands over, once it does
	current   string // whose restart was wished in the pass before
	done      map[string]bool
	order     []string
	since     time.Duration // of the last progress
}

// unwell says which member does not run or follow; of those named, or of all.
func unwell(cluster state.Cluster, names map[string]bool) string {
	for _, m := range cluster.Members {
		if (names == nil || names[m.Name]) && !m.Well() {
			return state.UnitName(m.Name) + " is " + m.State
		}
	}
	for name := range names {
		if _, there := cluster.Member(name); !there {
			return state.UnitName(name) + " is not there"
		}
	}
	return ""
}

func (r *rolling) ask(view View, want *state.Desired) Progress {
	want.Restart = state.Member{} // those that settings wait for are among them
	if view.Failed != nil {
		return r.failed(view.Failed.Error())
	}
	if r.current != "" {
		r.finished(r.current, view.Took)
		r.current = ""
	}
	cluster, _ := view.Cluster.Get()
	primary, ok := cluster.Primary()
	waiting := unwell(cluster, r.done)
	switch {
	case !ok:
		waiting = "there is no primary"
	case r.successor != "" && primary.Name != r.successor:
		waiting = handingOver(cluster, r.primary, r.successor)
	case r.successor != "":
		// The old primary comes back by itself. What clients are told of the new one
		// reaches them only when the action is over: there is nothing to wait for.
		r.finished(r.primary, view.Took)
		return r.over(view.Took)
	}
	if waiting != "" {
		return r.wait(waiting, view.Took)
	}
	next, isPrimary, ok := r.next(cluster, primary)
	if !ok {
		return r.over(view.Took)
	}
	if isPrimary && len(cluster.Members) > 1 {
		successor, ok := cluster.Successor(func(state.Member) bool { return true })
		if !ok {
			return r.wait("no replica has every commit yet", view.Took)
		}
		r.successor, r.since, want.Successor = successor.Name, view.Took, state.Successor{Member: successor.Member}
		return Progress{Log: state.UnitName(primary.Name) + " hands over to " + state.UnitName(successor.Name) + ", and restarts"}
	}
	r.current, want.RestartNow = next.Name, next
	return Progress{Log: "restarting " + state.UnitName(next.Name)}
}

func (r *rolling) wait(why string, took time.Duration) Progress {
	if took-r.since > limit {
		return r.failed(fmt.Sprintf("after %d seconds: %s", int(limit.Seconds()), why))
	}
	return Progress{Log: "waiting: " + why}
}

func (r *rolling) finished(name string, took time.Duration) {
	r.done[name], r.order, r.since = true, append(r.order, state.UnitName(name)), took
}

func (r *rolling) over(took time.Duration) Progress {
	return Progress{Done: true, Results: map[string]string{"restarted": strings.Join(r.order, ","), "seconds": seconds(took)}}
}

func (r *rolling) failed(why string) Progress {
	restarted := strings.Join(r.order, ", ")
	if restarted == "" {
		restarted = "none"
	}
	return Progress{Failure: refusal(fmt.Sprintf("%s; restarted before: %s; the others are as they were", why, restarted))}
}

// next is the member to be restarted: the replicas by name, then the primary. What
// joined meanwhile has just been started.
func (r *rolling) next(cluster state.Cluster, primary state.Member) (next state.Member, isPrimary, ok bool) {
	left := map[string]state.Member{}
	for _, m := range cluster.Members {
		if !r.done[m.Name] && m.Name != primary.Name {
			left[m.Name] = m
		}
	}
	if names := slices.Sorted(maps.Keys(left)); len(names) > 0 {
		return left[names[0]], false, true
	}
	return primary, true, !r.done[primary.Name]
}
