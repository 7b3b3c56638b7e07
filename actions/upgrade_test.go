package actions

import (
	"errors"
	"reflect"
	"testing"
	"time"

	"charmhub.io/postgresql-k8s/charm/state"
)

// upgrading is what the leader observes whose application has the relation of
// upgrades, and a refresh under way when next is not negative.
func upgrading(next, partition int, stack string) state.Observed {
	obs := three(0)
	obs.Now = time.Date(2026, 1, 2, 12, 0, 0, 0, time.UTC)
	obs.Units = state.Value([]string{"db/0", "db/1", "db/2"})
	content := map[string]string{"upgrade-stack": stack, "prepared": "new"}
	obs.Relations["upgrade"] = []state.Relation{{ID: 5, Endpoint: "upgrade", Read: true, LocalApp: content}}
	kube := state.Kube{}
	if next >= 0 {
		content["prepared"] = "old"
		kube.Rollout = state.Rollout{Revision: "new", Partition: partition, Replicas: 3}
	}
	for n := range 3 {
		pod := state.Pod{Name: state.PodName("db", n), Revision: "old"}
		if n > next {
			pod.Revision = "new"
		}
		kube.Pods = append(kube.Pods, pod)
	}
	obs.Kube = state.Value(kube)
	return obs
}

func TestUpgradesThatCannotBe(t *testing.T) {
	t.Parallel()
	ill := func(n int) func(*state.Cluster) {
		return func(c *state.Cluster) { c.Members[n].State = "start failed" }
	}
	unrelated, follower, leaving := upgrading(-1, 0, ""), upgrading(-1, 0, ""), upgrading(-1, 0, "")
	unrelated.Relations, follower.Leader, leaving.Leaving = nil, false, true
	first := upgrading(2, 2, "[0,1,2]") // and clients are just being told of pre-upgrade-check's switchover
	first.Relations["upgrade"][0].LocalApp[state.PublishedKey] = "db-2"
	fourth := upgrading(-1, 0, "")
	fourth.Units = state.Value([]string{"db/0", "db/1", "db/2", "db/3"})
	tests := []struct {
		name    string
		action  Action
		obs     state.Observed
		failure string
	}{
		{"a check without the relation", preUpgradeCheck, unrelated, "Could not find upgrade relation."},
		{"a check elsewhere than on the leader", preUpgradeCheck, follower, "Action must be ran on the Juju leader."},
		{"a check on a unit that leaves", preUpgradeCheck, leaving, "on its way out"},
		{"a check while a refresh goes on", preUpgradeCheck, upgrading(1, 2, ""), "Cannot run pre-upgrade checks, cluster already upgrading."},
		{"a check while a member is ill", preUpgradeCheck, with(upgrading(-1, 0, ""), ill(2)), "Pre-upgrade check failed and cannot safely upgrade: db/2 is start failed"},
		{"a check while a unit has no member", preUpgradeCheck, fourth, "Pre-upgrade check failed and cannot safely upgrade: db/3 is not there"},
		{"a check without a primary", preUpgradeCheck, with(upgrading(-1, 0, ""), ill(0)), "Pre-upgrade check failed and cannot safely upgrade: there is no primary"},
		{"a check when unit 0 may lack commits", preUpgradeCheck, with(upgrading(-1, 0, ""), lead("db-1")), "invalid number of sync nodes"},
		{"a check when only another may succeed", preUpgradeCheck, with(upgrading(-1, 0, ""), func(c *state.Cluster) { lead("db-1")(c); c.Members[2].Role = "quorum_standby" }),
			"db/0 needs to be a synchronous standby in order to become the primary before the upgrade process can start - wait 30 seconds for db/0"},
		{"to resume without the relation", resumeUpgrade, unrelated, "Could not find upgrade relation."},
		{"to resume elsewhere", resumeUpgrade, follower, "Action must be ran on the Juju leader."},
		{"to resume what nobody has begun", resumeUpgrade, upgrading(-1, 0, ""), "Nothing to resume, upgrade stack unset."},
		{"to resume what goes on by itself", resumeUpgrade, upgrading(1, 2, ""), "Nothing to resume, upgrade stack unset."},
		{"to resume before juju refresh", resumeUpgrade, upgrading(-1, 0, "[0,1,2]"), "Upgrade can be resumed only once after juju refresh is called."},
		{"to resume before the first unit is replaced", resumeUpgrade, first, "wait until the first unit shows that it is refreshed"},
		{"to resume twice", resumeUpgrade, upgrading(0, 1, "[0]"), "Upgrade can be resumed only once after juju refresh is called."},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			_, err := test.action.Begin(test.obs)
			failsWith(t, err, test.failure)
		})
	}
}

// tells returns what is wished of the databag of upgrades.
func tells(want state.Desired) map[string]string {
	content := map[string]string{}
	for _, d := range want.Databags {
		for key, value := range d.Content {
			content[key] = value
		}
	}
	return content
}

func TestPreUpgradeCheckMakesUnitZeroThePrimary(t *testing.T) {
	t.Parallel()
	elsewhere := with(upgrading(-1, 0, ""), func(c *state.Cluster) { lead("db-1")(c); c.Members[0].Role = "quorum_standby" })
	task := begin(t, preUpgradeCheck, elsewhere)
	progress, want := pass(task, elsewhere, 0, nil)
	if _, wished := want.Partition.Get(); wished || want.Successor.Name != "db-0" || progress.Done {
		t.Errorf("first it says %+v and wishes %+v", progress, want)
	}
	if progress, want := pass(task, elsewhere, time.Second, nil); want.Successor.Name != "" || progress.Done {
		t.Errorf("then it says %+v and wishes %+v", progress, want)
	}
	moved := upgrading(-1, 0, "")
	progress, want = pass(task, moved, 2*time.Second, nil)
	if n, _ := want.Partition.Get(); n != 2 || progress.Done || !reflect.DeepEqual(tells(want), map[string]string{"upgrade-stack": "[0,1,2]", "prepared": "new"}) {
		t.Errorf("when unit 0 is the primary it says %+v and wishes %+v", progress, want)
	}
	if progress, _ := pass(task, moved, 2*time.Second, nil); !progress.Done || progress.Failure != nil {
		t.Errorf("at the end it says %+v", progress)
	}

	task = begin(t, preUpgradeCheck, elsewhere)
	pass(task, elsewhere, 0, nil)
	progress, _ = pass(task, elsewhere, time.Second, errors.New("status 503"))
	failsWith(t, progress.Failure, "Switchover failed or timed out, check the logs for details: status 503")

	task = begin(t, preUpgradeCheck, moved)
	pass(task, moved, 0, nil)
	progress, _ = pass(task, moved, 0, errors.New("forbidden"))
	failsWith(t, progress.Failure, "Cannot set rolling update partition. forbidden")
}

func TestPreUpgradeCheckOfAHaltedRefreshGetsReadyToRollBack(t *testing.T) {
	t.Parallel()
	halted := with(upgrading(1, 2, "[0,1]"), func(c *state.Cluster) { c.Members[2].State = "start failed" })
	task := begin(t, preUpgradeCheck, halted)
	_, want := pass(task, halted, 0, nil)
	if n, _ := want.Partition.Get(); n != 2 || tells(want)["upgrade-stack"] != "[0,1,2]" {
		t.Errorf("it wishes %+v", want)
	}
	if progress, _ := pass(task, halted, 0, nil); !progress.Done || progress.Log != "ready to rollback application" {
		t.Errorf("it says %+v", progress)
	}
}

func TestResumeUpgrade(t *testing.T) {
	t.Parallel()
	ill := func(c *state.Cluster) { c.Members[2].State = "start failed" }
	for name, obs := range map[string]state.Observed{
		"after the first unit":             upgrading(1, 2, "[0,1,2]"),
		"when its stack is one behind":     upgrading(1, 2, "[0,1]"),
		"of one that waits for who is ill": with(upgrading(1, 2, ""), ill),
	} {
		task := begin(t, resumeUpgrade, obs)
		progress, want := pass(task, obs, 0, nil)
		if _, lets := want.Partition.Get(); lets || progress.Done || tells(want)["resumed"] != "new/1" {
			t.Errorf("%s it says %+v and wishes %+v", name, progress, want)
		}
		if progress, _ := pass(task, obs, 0, nil); !progress.Done || progress.Results["message"] != "Upgrade will resume on unit 1" {
			t.Errorf("%s it says %+v", name, progress)
		}
	}
}

// A client that cannot be served must not hold up a refresh for ever.
func TestResumeWhenClientsAreNotTold(t *testing.T) {
	t.Parallel()
	obs := upgrading(1, 2, "")
	obs.Relations["upgrade"][0].LocalApp[state.PublishedKey] = "db-2"
	if _, err := resumeUpgrade.Begin(obs); err != nil {
		t.Error(err)
	}
}
