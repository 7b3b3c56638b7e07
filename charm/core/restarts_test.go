package core

import (
	"testing"

	"charmhub.io/postgresql-k8s/charm/state"
)

func TestRestarts(t *testing.T) {
	t.Parallel()
	member := func(name, role, condition string, pending bool) state.Member {
		return state.Member{Name: name, Role: role, State: condition, PendingRestart: pending}
	}
	leader := func(pending bool) state.Member { return member("db-0", "leader", "running", pending) }
	for what, test := range map[string]struct {
		members []state.Member
		follows bool // this unit does not lead
		restart string
		waits   bool
	}{
		"nothing is pending": {
			members: []state.Member{leader(false), member("db-1", "replica", "streaming", false)},
		},
		"one member alone": {members: []state.Member{leader(true)}, restart: "db-0", waits: true},
		"replicas come before the primary, by name": {
			members: []state.Member{leader(true), member("db-2", "replica", "streaming", true), member("db-1", "sync_standby", "streaming", true)},
			restart: "db-1", waits: true,
		},
		"a primary that lowers what replicas must not have lower comes first": {
			members: []state.Member{{Name: "db-0", Role: "leader", State: "running", PendingRestart: true, Lowers: true}, member("db-1", "replica", "streaming", true)},
			restart: "db-0", waits: true,
		},
		"nobody is restarted while another is down": {
			members: []state.Member{leader(true), member("db-1", "replica", "restarting", false)}, waits: true,
		},
		"only the leader decides": {members: []state.Member{leader(true)}, follows: true},
	} {
		obs := state.Observed{Leader: !test.follows, Cluster: state.Value(state.Cluster{Members: test.members})}
		var want state.Desired
		Restarts{}.Desire(obs, &want)
		if want.Restart.Name != test.restart {
			t.Errorf("%s: %q is restarted, want %q", what, want.Restart.Name, test.restart)
		}
		if waits := want.Status() == (state.Status{Severity: state.Waiting, Message: state.MessageRestart}); waits != test.waits || want.Soon() != test.waits {
			t.Errorf("%s: the status is %v", what, want.Status())
		}
	}
}
