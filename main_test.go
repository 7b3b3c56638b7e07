package main

import (
	"context"
	"errors"
	"slices"
	"testing"

	"charmhub.io/postgresql-k8s/juju"
)

func TestAnActionThatFailsSaysWhyUnlessJujuWouldCommitHalfOfIt(t *testing.T) {
	t.Parallel()
	broken := errors.New("broken")
	for name, test := range map[string]struct {
		action, published bool
		tool              error // of action-fail
		code              int
		told              bool
	}{
		"a hook":                          {false, false, nil, 1, false},
		"an action that wrote nothing":    {true, false, nil, 0, true},
		"an action that wrote something":  {true, true, nil, 1, false},
		"an action that cannot be failed": {true, false, broken, 1, true},
	} {
		var told []string
		tools := juju.Tools{Run: func(_ context.Context, tool string, args []string, _ []byte) ([]byte, error) {
			told = append(told, append([]string{tool}, args...)...)
			return nil, test.tool
		}}
		code := exitCode(tools, test.action, test.published, broken)
		if code != test.code || slices.Contains(told, "action-fail") != test.told || slices.Contains(told, "broken") != test.told {
			t.Errorf("%s: the exit code is %d, and it says %q", name, code, told)
		}
	}
}
