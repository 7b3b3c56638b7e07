package patroni_test

import (
	"encoding/json"
	"os"
	"reflect"
	"testing"

	"charmhub.io/postgresql-k8s/charm/state"
	"charmhub.io/postgresql-k8s/patroni"
)

func TestDiffDynamic(t *testing.T) {
	t.Parallel()
	type object = map[string]any
	tests := []struct {
		name string
		have string // as Patroni answers
		want object
		diff object
	}{
		{"what is so needs no patch", `{"ttl": 20}`, object{"ttl": 20}, object{}},
		{"numbers compare by value", `{"a": 1, "b": 1.0, "c": 1.5}`, object{"a": int64(1), "b": 1, "c": 1.5}, object{}},
		{"another number is patched", `{"ttl": 30}`, object{"ttl": 20}, object{"ttl": 20}},
		{"a number in quotes is another value", `{"ttl": "20"}`, object{"ttl": 20}, object{"ttl": 20}},
		{"what is missing is added", `{}`, object{"failsafe_mode": true}, object{"failsafe_mode": true}},
		{"false is not missing", `{"a": false}`, object{"a": false}, object{}},
		{"false is not nought", `{"a": false}`, object{"a": 0}, object{"a": 0}},
		{"what nobody decides stays", `{"pause": true, "ttl": 20}`, object{"ttl": 20}, object{}},
		{"nil removes what is there", `{"pause": true}`, object{"pause": nil}, object{"pause": nil}},
		{"nil removes a whole section", `{"standby_cluster": {"host": "x"}}`, object{"standby_cluster": nil}, object{"standby_cluster": nil}},
		{"nil need not remove what is not there", `{}`, object{"pause": nil}, object{}},
		{"nor what is null already", `{"pause": null}`, object{"pause": nil}, object{}},
		{"of a section only the difference is patched",
			`{"postgresql": {"use_slots": true, "parameters": {"max_connections": 100, "wal_level": "logical", "work_mem": "1GB"}}}`,
			object{"postgresql": object{"use_slots": true, "parameters": object{"max_connections": 120, "wal_level": "logical"}}},
			object{"postgresql": object{"parameters": object{"max_connections": 120}}}},
		{"a section that is missing is added whole", `{"ttl": 20}`, object{"postgresql": object{"use_slots": true}},
			object{"postgresql": object{"use_slots": true}}},
		{"a section in the place of a value replaces it", `{"postgresql": 1}`, object{"postgresql": object{"use_slots": true}},
			object{"postgresql": object{"use_slots": true}}},
		{"a value in the place of a section replaces it", `{"a": {"b": 1}}`, object{"a": 1}, object{"a": 1}},
		{"lists compare whole", `{"pg_hba": ["a", "b"], "same": ["a"]}`,
			object{"pg_hba": []any{"a"}, "same": []any{"a"}}, object{"pg_hba": []any{"a"}}},
		{"an empty section wants nothing", `{}`, object{}, object{}},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			var have object
			if err := json.Unmarshal([]byte(test.have), &have); err != nil {
				t.Fatal(err)
			}
			if got := patroni.DiffDynamic(have, test.want); !reflect.DeepEqual(got, test.diff) {
				t.Errorf("the patch is %v, want %v", got, test.diff)
			}
		})
	}
}

func TestHowCommitsAreConfirmedIsPatched(t *testing.T) {
	t.Parallel()
	for what, test := range map[string]struct {
		sync state.Synchronous
		want map[string]any
	}{
		"by a quorum":              {state.Synchronous{Quorum: true, Count: 2, Strict: true}, map[string]any{"synchronous_mode": "quorum", "synchronous_node_count": 2, "synchronous_mode_strict": true}},
		"by whom Patroni chooses":  {state.Synchronous{Count: 1}, map[string]any{"synchronous_mode": true, "synchronous_node_count": 1, "synchronous_mode_strict": false}},
		"by nobody: there is none": {state.Synchronous{}, map[string]any{"synchronous_mode": true, "synchronous_node_count": 1, "synchronous_mode_strict": false}},
	} {
		want := state.Desired{Synchronous: state.Value(test.sync)}
		patroni.Handler{}.Desire(state.Observed{}, &want)
		if !reflect.DeepEqual(want.Dynamic, test.want) {
			t.Errorf("%s: %v, want %v", what, want.Dynamic, test.want)
		}
	}
}

func TestARunningClusterNeedsNoPatch(t *testing.T) {
	t.Parallel()
	data, err := os.ReadFile("testdata/config.json")
	if err != nil {
		t.Fatal(err)
	}
	var have map[string]any
	if err := json.Unmarshal(data, &have); err != nil {
		t.Fatal(err)
	}
	want := patroni.Dynamic(map[string]any{
		"max_connections": int64(100), "max_worker_processes": 4, "max_wal_senders": 25,
		"max_replication_slots": 25, "wal_level": "logical", "wal_keep_size": 4096,
	}, state.Value(state.Synchronous{Count: 1}))
	if patch := patroni.DiffDynamic(have, want); len(patch) != 0 {
		t.Errorf("the patch is %v", patch)
	}
}
