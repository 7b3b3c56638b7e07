package postgres_test

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"

	"charmhub.io/postgresql-k8s/charm/config"
	"charmhub.io/postgresql-k8s/charm/state"
	"charmhub.io/postgresql-k8s/postgres"
	"charmhub.io/postgresql-k8s/tests/golden"
)

var server = state.Server{Major: 17, BinDir: "/usr/lib/postgresql/17/bin", Libraries: []string{"pgaudit", "pg_stat_statements"}}

type options = map[string]any

// sizes are containers and options for which the settings are in golden files.
var sizes = []struct {
	name      string
	resources state.Resources
	options   options
}{
	{"a machine that is not known", state.Resources{}, nil},
	{"1 GiB and half a CPU", state.Resources{Memory: 1 << 30, CPUs: 0.5}, nil},
	{"24 GiB and 6 CPUs", state.Resources{Memory: 24 << 30, CPUs: 6}, nil},
	{"24 GiB and 6 CPUs, for testing", state.Resources{Memory: 24 << 30, CPUs: 6}, options{"profile": "testing"}},
	{"24 GiB and 6 CPUs, for 2000 MB", state.Resources{Memory: 24 << 30, CPUs: 6}, options{"profile_limit_memory": 2000.0}},
	{"1 GiB and half a CPU, for more than that", state.Resources{Memory: 1 << 30, CPUs: 0.5}, options{"profile_limit_memory": 2000.0}},
	{"512 GiB and 64 CPUs", state.Resources{Memory: 512 << 30, CPUs: 64}, nil},
	{"512 GiB and 64 CPUs, for 1000 connections", state.Resources{Memory: 512 << 30, CPUs: 64}, options{"experimental_max_connections": 1000.0}},
	{"a volume of 1 GB", state.Resources{Volume: 1e9}, nil},
	{"a volume of 100 GB", state.Resources{Volume: 1e11}, nil},
	{"a volume of 50 MB", state.Resources{Volume: 5e7}, nil},
}

func TestParameters(t *testing.T) {
	t.Parallel()
	golden.Equal(t, "parameters.txt", render(func(r state.Resources, cfg config.Values) map[string]string {
		return postgres.Parameters(server, r, cfg)
	}))
}

func TestSharedParameters(t *testing.T) {
	t.Parallel()
	golden.Equal(t, "shared.txt", render(func(r state.Resources, cfg config.Values) map[string]any {
		return postgres.SharedParameters(max(int(r.CPUs), 1), r.Volume, cfg)
	}))
}

// render has the settings of all sizes in the form of postgresql.conf: of the
// first size all, of the others what differs from it.
func render[V comparable](settings func(state.Resources, config.Values) map[string]V) string {
	var out strings.Builder
	first := map[string]V{}
	for i, size := range sizes {
		if i > 0 {
			out.WriteByte('\n')
		}
		fmt.Fprintf(&out, "# %s\n", size.name)
		these := settings(size.resources, config.Parse(size.options))
		for _, name := range slices.Sorted(maps.Keys(these)) {
			if value, ok := first[name]; i == 0 || !ok || value != these[name] {
				fmt.Fprintf(&out, "%s = '%v'\n", name, these[name])
			}
		}
		if i == 0 {
			first = these
		}
	}
	return out.String()
}

// PostgreSQL refuses to start with fewer than 16 buffers.
func TestTheSmallestContainerStarts(t *testing.T) {
	t.Parallel()
	for _, memory := range []int64{1, 8192, 16 * 8192} {
		p := postgres.Parameters(server, state.Resources{Memory: memory}, config.Parse(nil))
		if p["shared_buffers"] != "16" || p["effective_cache_size"] == "0" {
			t.Errorf("with %d bytes shared_buffers is %s and effective_cache_size %s", memory, p["shared_buffers"], p["effective_cache_size"])
		}
	}
}

func TestLibrariesAreThoseOfTheImage(t *testing.T) {
	t.Parallel()
	for want, libraries := range map[string][]string{"": nil, "pgaudit": {"pgaudit"}, "timescaledb,pgaudit": {"timescaledb", "pgaudit"}} {
		got, set := postgres.Parameters(state.Server{Libraries: libraries}, state.Resources{}, config.Parse(nil))["shared_preload_libraries"]
		if got != want || set != (want != "") {
			t.Errorf("with %v shared_preload_libraries is %q, set %t", libraries, got, set)
		}
	}
}

// Patroni takes some settings from the cluster's configuration only, and refuses
// or ignores them in a member's own
// (https://patroni.readthedocs.io/en/latest/patroni_configuration.html).
func TestMemberAndClusterDoNotSetTheSame(t *testing.T) {
	t.Parallel()
	own := postgres.Parameters(server, state.Resources{Memory: 1 << 30, Volume: 1 << 30}, config.Parse(nil))
	for name := range postgres.SharedParameters(1, 1<<30, config.Parse(nil)) {
		if _, both := own[name]; both {
			t.Errorf("%s is set by the member, too", name)
		}
	}
}

func TestHBA(t *testing.T) {
	t.Parallel()
	golden.Equal(t, "pg_hba.conf", strings.Join(postgres.HBA(), "\n")+"\n")
	golden.Equal(t, "pg_ident.conf", strings.Join(postgres.Ident(), "\n")+"\n")
}

func TestNobodyIsTrusted(t *testing.T) {
	t.Parallel()
	for _, line := range postgres.HBA() {
		fields := strings.Fields(line)
		method := fields[3]
		if fields[0] != "local" {
			method = fields[4]
		}
		if !slices.Contains([]string{"scram-sha-256", "reject", "peer"}, method) {
			t.Errorf("the line %q asks for no password that is worth it", line)
		}
		if strings.Contains(line, "trust") {
			t.Errorf("the line %q trusts", line)
		}
		if method == "peer" && (fields[0] != "local" || !strings.HasPrefix(fields[len(fields)-1], "map=")) {
			t.Errorf("the line %q lets in who is not named", line)
		}
	}
}

func TestHandler(t *testing.T) {
	t.Parallel()
	workload := state.Workload{Servers: []state.Server{server}, Resources: state.Resources{Memory: 1 << 30, CPUs: 2}}
	tests := []struct {
		name     string
		workload state.Known[state.Workload]
		wishes   bool
	}{
		{"a container that is away has no settings", state.Unknown[state.Workload]("away"), false},
		{"an image without the server has none", state.Value(state.Workload{}), false},
		{"a server has settings, and who may connect to it", state.Value(workload), true},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			var want state.Desired
			postgres.Handler{}.Desire(state.Observed{Workload: test.workload, Config: config.Parse(nil)}, &want)
			for what, wished := range map[string]bool{
				"own settings": want.Parameters != nil, "shared settings": want.Shared != nil,
				"pg_hba.conf": want.HBA != nil, "pg_ident.conf": want.Ident != nil,
			} {
				if wished != test.wishes {
					t.Errorf("%s are wished: %t, want %t", what, wished, test.wishes)
				}
			}
		})
	}
}

// The settings of all members do not change with the node that the leader is on.
func TestSharedSettingsAreThoseOfTheFirstLeader(t *testing.T) {
	t.Parallel()
	for _, test := range []struct {
		name   string
		noted  string
		leader bool
		want   int64
		note   string
	}{
		{"the first leader's", "", true, 256, "64"},
		{"which the next one keeps", "32", true, 128, ""},
		{"as do the others", "32", false, 128, ""},
		{"another unit notes nothing", "", false, 256, ""},
		{"nonsense is noted anew", "-1", true, 256, "64"},
	} {
		obs := state.Observed{Leader: test.leader, Config: config.Parse(nil), Workload: state.Value(state.Workload{
			Servers: []state.Server{server}, Resources: state.Resources{Memory: 1 << 30, CPUs: 64},
		}), Relations: state.Relations{state.PeerEndpoint: {{LocalApp: map[string]string{state.CPUsKey: test.noted}}}}}
		var want state.Desired
		postgres.Handler{}.Desire(obs, &want)
		note := ""
		for _, d := range want.Databags {
			note = d.Content[state.CPUsKey]
		}
		if want.Shared["max_connections"] != test.want || note != test.note {
			t.Errorf("%s: %v connections, and it notes %q", test.name, want.Shared["max_connections"], note)
		}
	}
}

// Users whom upstream has made are in none of the groups that we let in until a
// leader of ours has served their relations.
func TestUsersOfUpstreamAreLetInUntilTheyAreServed(t *testing.T) {
	t.Parallel()
	for _, test := range []struct {
		name    string
		bag     map[string]string
		rejects bool
	}{
		{"an application of ours", map[string]string{}, true},
		{"one of upstream's", map[string]string{"user_hash": "x"}, false},
		{"one whose relations are being served", map[string]string{"user_hash": "x", "clients": `{"7":{"app":"shop","digest":"pending"}}`}, false},
		{"one whose relations are served", map[string]string{"user_hash": "x", "clients": `{"7":{"app":"shop","digest":"abcd-1234"}}`}, true},
		{"one that serves an application of that name", map[string]string{"user_hash": "x", "clients": `{"7":{"app":"pending-orders","digest":"abcd-1234"}}`}, true},
		{"one of whose two relations one is being served", map[string]string{"user_hash": "x", "clients": `{"7":{"app":"a","digest":"x"},"8":{"app":"b","digest":"pending"}}`}, false},
		{"one without relations", map[string]string{"user_hash": "x", "clients": `{}`}, true},
		{"one with a record that is not ours", map[string]string{"user_hash": "x", "clients": `["shop"]`}, false},
	} {
		var want state.Desired
		postgres.Handler{}.Desire(state.Observed{
			Workload: state.Value(state.Workload{Servers: []state.Server{server}}), Config: config.Parse(nil),
			Relations: state.Relations{"database-peers": {{LocalApp: test.bag}}},
		}, &want)
		if got := slices.Contains(want.HBA, "host all +relation_access all reject"); got != test.rejects {
			t.Errorf("%s: others are rejected: %t", test.name, got)
		}
		method := map[bool]string{true: "md5", false: "scram-sha-256"}[test.bag["user_hash"] != ""] // takes old verifiers, too
		if last := want.HBA[len(want.HBA)-1]; last != "host all all all "+method {
			t.Errorf("%s: the last line is %q", test.name, last)
		}
	}
}
