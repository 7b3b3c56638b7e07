// Package actions has what people run on a unit with juju run: a registry, and
// one file for each action.
//
// An action is pure, as a handler is: it looks at what was observed and adds to
// what the handlers want. Systems make that so, and the action is asked again in
// the next pass, until it is done. So an action that is killed leaves nothing
// behind that the next event does not put right.
package actions

import (
	"errors"
	"fmt"
	"strconv"
	"time"

	"charmhub.io/postgresql-k8s/charm/state"
)

// Action is one action.
type Action struct {
	Name string
	// Params are the names of its parameters; charmcraft.yaml declares the same ones
	// with their types and defaults.
	Params []string
	// Begin looks at a fresh observation and returns the task, or an error whose text
	// tells the user why the action cannot run and what to do about it. Then nothing
	// was changed.
	Begin func(obs state.Observed) (Task, error)
}

// Task is asked in each pass what it wants, and how far it is. It may remember
// things from one pass to the next.
type Task func(view View, want *state.Desired) Progress

// View is what a task sees in one pass.
type View struct {
	state.Observed
	// Took is how long the action has been running.
	Took time.Duration
	// Failed is why what the action wished of the members in the pass before was not
	// done. What it wishes of Juju never fails alone: the whole dispatch does.
	Failed error
}

// Progress is how far a task is. One that is done wants nothing any more.
type Progress struct {
	Done    bool
	Results map[string]string
	// Failure ends the task, too.
	Failure error
	// Log tells the user what is going on; it is shown when it changes.
	Log string
}

// All returns every action; charmcraft.yaml declares the same ones.
func All() []Action {
	return []Action{getPrimary, getPassword, setPassword, promote, status, restart, reinitialize, preUpgradeCheck, resumeUpgrade, report}
}

// refusal is why an action cannot run. Some are upstream's words, which begin with
// a capital letter.
type refusal string

// Error implements error.
func (r refusal) Error() string { return string(r) }

// question is an action that only looks.
func question(ask func(obs state.Observed, want state.Desired) (map[string]string, error)) func(state.Observed) (Task, error) {
	return func(state.Observed) (Task, error) {
		return func(view View, want *state.Desired) Progress {
			results, err := ask(view.Observed, *want)
			return Progress{Done: true, Results: results, Failure: err}
		}, nil
	}
}

// answered is a task that has nothing to do.
func answered(p Progress) Task {
	p.Done = true
	return func(View, *state.Desired) Progress { return p }
}

// limit is how long an action waits for one thing to happen.
const limit = 60 * time.Second

// bounded is a task that fails when it is not done in time.
func bounded(task Task) Task {
	return func(view View, want *state.Desired) Progress {
		before := *want
		progress := task(view, want)
		if !progress.Done && progress.Failure == nil && view.Took > limit {
			*want = before
			progress.Failure = refusal(fmt.Sprintf("it was not done within %d seconds; look at juju debug-log, and try again", int(limit.Seconds())))
		}
		return progress
	}
}

// members returns the cluster and its primary, or why there is none to work with.
func members(obs state.Observed) (state.Cluster, state.Member, error) {
	cluster, ok := obs.Cluster.Get()
	if !ok {
		return cluster, state.Member{}, refusal(fmt.Sprintf("this unit's member does not run (%s): wait for it, or look at the unit's status", obs.Cluster.Why()))
	}
	if cluster.Away != "" {
		return cluster, state.Member{}, refusal(fmt.Sprintf("this unit's member cannot reach the Kubernetes API (%s): wait until it can", cluster.Away))
	}
	primary, ok := cluster.Primary()
	if !ok {
		return cluster, primary, errors.New("there is no primary now: wait for the cluster to elect one, and try again")
	}
	return cluster, primary, nil
}

// seconds are the whole and tenths of a second that an action took.
func seconds(d time.Duration) string { return strconv.FormatFloat(d.Seconds(), 'f', 1, 64) }

// notLeader refuses what only the leader can do.
func notLeader(obs state.Observed) error {
	return refusal("The action can be run only on leader unit: juju run " + obs.Unit.App + "/leader " + obs.Event.Action)
}
