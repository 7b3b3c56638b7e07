package localmodel_test

import (
	"slices"
	"testing"
	"time"

	"charmhub.io/postgresql-k8s/tests/localmodel"
)

// TestTimeIsDrivenByTheTest lets hours pass in no time.
func TestTimeIsDrivenByTheTest(t *testing.T) {
	clock := localmodel.NewManualClock()
	w := newWorld(t, func(o *localmodel.Options) {
		o.Clock, o.Timing.UpdateStatus = clock, 5*time.Minute
	})
	w.deploy(w.charm("sundial", "", `
case $hook in
leader-elected) secret-add word=one --label word --rotate daily --expire 100h ;;
secret-rotate) [ $(state-get rotated || true)x = x ] || secret-set $JUJU_SECRET_ID word=two; state-set rotated=yes ;;
secret-remove) secret-remove --revision $JUJU_SECRET_REVISION $JUJU_SECRET_ID ;;
esac`), 1)
	// since is what ran from a hook on, but for update-status, and whether that did.
	since := func(from int) (others []string, updated bool) {
		for _, hook := range w.ran("sundial/0")[from:] {
			if hook == "update-status" {
				updated = true
			} else {
				others = append(others, hook)
			}
		}
		return others, updated
	}
	if _, updated := since(0); updated {
		t.Error("update-status ran while time stood still")
	}
	for _, step := range []struct {
		passes time.Duration
		want   []string
	}{
		{6 * time.Minute, nil},
		{23 * time.Hour, nil},
		{time.Hour, []string{"secret-rotate"}},
		{3 * time.Minute, nil},
		{3 * time.Minute, []string{"secret-rotate", "secret-remove"}}, // it was not rotated
		{6 * time.Minute, nil},
		{24 * time.Hour, []string{"secret-rotate"}},
		{60 * time.Hour, []string{"secret-expired", "secret-rotate"}},
	} {
		from := len(w.ran("sundial/0"))
		clock.Advance(step.passes)
		w.wait("hooks", func(s localmodel.Status) bool {
			others, updated := since(from)
			return len(others) >= len(step.want) && (updated || step.passes < 6*time.Minute) && idle(s, "sundial", 1)
		})
		if got, _ := since(from); !slices.Equal(got, step.want) {
			t.Errorf("in %s it ran %q, want %q", step.passes, got, step.want)
		}
	}
}
