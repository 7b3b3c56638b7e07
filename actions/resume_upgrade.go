package actions

import (
	"fmt"

	"charmhub.io/postgresql-k8s/charm/state"
)

// resumeUpgrade lets the next unit be refreshed: the one after the first, at which
// pre-upgrade-check has a refresh wait, or whichever waits for one that is ill, or for
// clients to be told.
var resumeUpgrade = Action{Name: "resume-upgrade", Begin: func(obs state.Observed) (Task, error) {
	if err := mayUpgrade(obs); err != nil {
		return nil, err
	}
	refresh, is := obs.Refresh()
	held := false
	if is && !refresh.Fixed && refresh.Partition > refresh.Next { // or it is on its way already
		ill, _ := refresh.Ill(obs)
		held = ill != "" || refresh.Untold(obs)
	}
	switch {
	case held:
	case len(obs.Stack()) == 0:
		return nil, refusal("Nothing to resume, upgrade stack unset.")
	case !is || !refresh.Paused(obs):
		return nil, refusal("Upgrade can be resumed only once after juju refresh is called. If it was, wait until the first unit shows that it is refreshed")
	}
	asked := false
	// It only notes that: Kubernetes ends the next unit's pod a moment after it may, and
	// would take the answer with it if that is this one.
	return func(view View, want *state.Desired) Progress {
		if !asked {
			asked = true
			note(view.Observed, want, map[string]string{state.ResumedKey: refresh.Step()})
			return Progress{}
		}
		return Progress{Done: true, Results: map[string]string{"message": fmt.Sprintf("Upgrade will resume on unit %d", refresh.Next)}}
	}, nil
}}
