package actions

import (
	"testing"
	"time"

	"charmhub.io/postgresql-k8s/charm/state"
)

// run runs an action that is done in one pass.
func run(t *testing.T, a Action, obs state.Observed) (map[string]string, error) {
	t.Helper()
	task, err := a.Begin(obs)
	if err != nil {
		return nil, err
	}
	progress := task(View{Observed: obs}, &state.Desired{})
	if !progress.Done && progress.Failure == nil {
		t.Fatalf("%s is not done in one pass", a.Name)
	}
	return progress.Results, progress.Failure
}

// pass asks a running task once.
func pass(task Task, obs state.Observed, took time.Duration, failed error) (Progress, state.Desired) {
	var want state.Desired
	return task(View{Observed: obs, Took: took, Failed: failed}, &want), want
}
