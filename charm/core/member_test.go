package core

import (
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"gopkg.in/yaml.v3"

	"charmhub.io/postgresql-k8s/charm/config"
	"charmhub.io/postgresql-k8s/charm/state"
	"charmhub.io/postgresql-k8s/tests/golden"
)

// Each of these keeps a member from running, or says how it is. They are in the
// order in which a deployment overcomes them.
func TestMemberStatus(t *testing.T) {
	t.Parallel()
	waiting := func(message string) state.Problem { return state.Problem{Severity: state.Waiting, Message: message} }
	soon := func(message string) state.Problem {
		return state.Problem{Severity: state.Waiting, Message: message, Soon: true}
	}
	blocked := func(message string) state.Problem { return state.Problem{Severity: state.Blocked, Message: message} }
	none := state.Problem{}
	tests := []struct {
		name    string
		change  func(*state.Observed)
		problem state.Problem
		runs    bool   // patroni.yml and the layer are wished
		message string // of the active status
		version string
	}{
		{"a unit on its way out only stops", func(o *state.Observed) { o.Leaving, o.Forbidden = true, true },
			state.Problem{Severity: state.Maintenance, Message: "stopping"}, false, "", ""},
		{"an application without trust names the cure", func(o *state.Observed) { o.Forbidden = true },
			blocked("Insufficient permissions, try: `juju trust db --scope=cluster`"), false, "", ""},
		{"a container that is away says why", func(o *state.Observed) { o.Workload = state.Unknown[state.Workload]("pebble does not answer") },
			waiting("awaiting the workload container: pebble does not answer"), false, "", ""},
		{"a wrong option is named", func(o *state.Observed) { o.Config = config.Parse(map[string]any{"profile": "fast"}) },
			blocked("Configuration Error: profile must be one of production, testing"), false, "", ""},
		{"an image without PostgreSQL names the cure",
			func(o *state.Observed) { changeKnown(&o.Workload, func(w *state.Workload) { w.Servers = nil }) },
			blocked("no PostgreSQL 14 or later in the image: attach another postgresql-image resource"), false, "", ""},
		{"an image without any PostgreSQL says so even where there are data",
			func(o *state.Observed) {
				changeKnown(&o.Workload, func(w *state.Workload) { w.Servers, w.DataMajor = nil, 16 })
			},
			blocked("no PostgreSQL 14 or later in the image: attach another postgresql-image resource"), false, "", ""},
		{"data of a version that the image lacks name it",
			func(o *state.Observed) { changeKnown(&o.Workload, func(w *state.Workload) { w.DataMajor = 16 }) },
			blocked("the data is of PostgreSQL 16, which the image lacks: attach a postgresql-image resource that has it"), false, "", ""},
		{"a volume that is not there is waited for",
			func(o *state.Observed) {
				changeKnown(&o.Workload, func(w *state.Workload) { w.Mount = state.Directory{} })
			},
			waiting("awaiting the storage to be mounted"), false, "", ""},
		{"a volume that is nearly full names the cure, and the server goes on",
			func(o *state.Observed) {
				changeKnown(&o.Workload, func(w *state.Workload) { w.Resources.Volume, w.Resources.Free = 1000, 99 })
			},
			blocked("<10% free space on pgdata volume. Free some, or move to a larger one: full, it stops the server"), true, "Primary", "17.5"},
		{"a volume with a tenth free is not full",
			func(o *state.Observed) {
				changeKnown(&o.Workload, func(w *state.Workload) { w.Resources.Volume, w.Resources.Free = 1000, 100 })
			},
			none, true, "Primary", "17.5"},
		{"the leader without passwords is making them", func(o *state.Observed) { o.Secrets = nil },
			waiting("awaiting for cluster to start"), false, "", ""},
		{"another unit waits for the leader to make them", func(o *state.Observed) { o.Secrets, o.Leader = nil, false },
			waiting("awaiting the leader, which makes the passwords"), false, "", ""},
		{"passwords that Juju has not committed are not used",
			func(o *state.Observed) { o.Secrets = secretWith(allPasswords(), false) },
			waiting("awaiting for cluster to start"), false, "", ""},
		{"a password that is missing is waited for", func(o *state.Observed) {
			content := allPasswords()
			delete(content, "rewind-password")
			o.Secrets = secretWith(content, true)
		}, waiting("awaiting for cluster to start"), false, "", ""},
		{"an API server that is away is looked at again", func(o *state.Observed) { o.Kube = state.Unknown[state.Kube]("timeout") },
			soon("awaiting the Kubernetes API: timeout"), false, "", ""},
		{"an API server that is away does not stop what runs", func(o *state.Observed) {
			o.Kube = state.Unknown[state.Kube]("timeout")
			changeKnown(&o.Workload, func(w *state.Workload) { w.Layer = Layer(unit, false, followers(running(), state.Server{})) })
		}, none, true, "Primary", "17.5"},
		{"a left-over of a namesake is waited for", func(o *state.Observed) {
			changeKnown(&o.Kube, func(k *state.Kube) { k.Endpoints["patroni-db-other"] = state.Endpoints{OwnerUID: "dead"} })
		}, waiting("awaiting for cluster to start"), false, "", ""},
		{"an object that is not ours yet is waited for", func(o *state.Observed) {
			changeKnown(&o.Kube, func(k *state.Kube) { delete(k.Endpoints, "patroni-db-sync") })
		}, waiting("awaiting for cluster to start"), false, "", ""},
		{"an application whose owner is not known is waited for", func(o *state.Observed) {
			changeKnown(&o.Kube, func(k *state.Kube) {
				k.Owner, k.Endpoints = state.Owner{}, map[string]state.Endpoints{"patroni-db": {}, "patroni-db-config": {}, "patroni-db-sync": {}}
			})
		}, waiting("awaiting for cluster to start"), false, "", ""},

		{"a member that does not answer starts", func(o *state.Observed) { o.Cluster = state.Unknown[state.Cluster]("refused") },
			soon("awaiting for cluster to start"), true, "", ""},
		{"a cluster without a primary starts", func(o *state.Observed) {
			changeKnown(&o.Cluster, func(c *state.Cluster) {
				c.Members, c.Local.Role = []state.Member{{Role: "replica", State: "streaming"}}, "replica"
			})
		}, soon("awaiting for cluster to start"), true, "", "17.5"},
		{"a primary that was removed too soon must come back", func(o *state.Observed) {
			o.Units = state.Value([]string{"db/0"})
			changeKnown(&o.Kube, func(k *state.Kube) {
				k.Endpoints["patroni-db-sync"] = state.Endpoints{OwnerUID: "ours", Leader: "db-1"}
			})
			changeKnown(&o.Cluster, func(c *state.Cluster) {
				c.Members, c.Local.Role = []state.Member{{Role: "replica", State: "running"}}, "replica"
			})
		}, blocked("db/1 was removed before another unit had all its data: bring it back with its storage, juju add-unit db --attach-storage <the one that juju storage shows for it>"), true, "", "17.5"},
		{"not when another has every commit", func(o *state.Observed) {
			o.Units = state.Value([]string{"db/0"})
			changeKnown(&o.Kube, func(k *state.Kube) {
				k.Endpoints["patroni-db-sync"] = state.Endpoints{OwnerUID: "ours", Leader: "db-1"}
			})
			changeKnown(&o.Cluster, func(c *state.Cluster) {
				c.Members, c.Local.Role = []state.Member{{Role: "sync_standby", State: "running"}}, "replica"
			})
		}, soon("awaiting for cluster to start"), true, "", "17.5"},
		{"a member of a running cluster comes up", func(o *state.Observed) {
			changeKnown(&o.Cluster, func(c *state.Cluster) { c.Local.Role, c.Local.State = "replica", "creating replica" })
		}, waiting("cloning the primary"), true, "", ""},
		{"and says how far it is", func(o *state.Observed) {
			o.Cloned = state.Value(42)
			changeKnown(&o.Cluster, func(c *state.Cluster) { c.Local.Role, c.Local.State = "replica", "creating replica" })
		}, waiting("cloning the primary: 42 %"), true, "", ""},
		{"one whose server starts is waited for", func(o *state.Observed) {
			changeKnown(&o.Cluster, func(c *state.Cluster) { c.Local.Role, c.Local.State = "replica", "starting" })
		}, soon("awaiting for member to start"), true, "", ""},
		{"the primary serves on without the Kubernetes API", func(o *state.Observed) {
			changeKnown(&o.Cluster, func(c *state.Cluster) { c.Members, c.Away = nil, "status 503" })
		}, none, true, "Primary (the Kubernetes API is away)", "17.5"},
		{"a replica without it is isolated", func(o *state.Observed) {
			changeKnown(&o.Cluster, func(c *state.Cluster) { c.Local.Role, c.Members, c.Away = "replica", nil, "status 503" })
		}, waiting("isolated: it cannot reach the Kubernetes API, and takes no writes"), true, "", "17.5"},
		{"so is what was the primary, and has stopped", func(o *state.Observed) {
			changeKnown(&o.Cluster, func(c *state.Cluster) {
				c.Local.Role, c.Local.State, c.Members, c.Away = "demoted", "stopped", nil, "status 503"
			})
		}, waiting("isolated: it cannot reach the Kubernetes API, and takes no writes"), true, "", ""},
		{"data of another cluster are refused", func(o *state.Observed) {
			changeKnown(&o.Workload, func(w *state.Workload) { w.SystemID = "7001" })
			changeKnown(&o.Kube, func(k *state.Kube) {
				k.Endpoints["patroni-db-config"] = state.Endpoints{OwnerUID: "ours", SystemID: "7002"}
			})
		}, blocked("the storage has the data of another cluster: remove this unit, or attach the storage to an application of its own"), false, "", ""},
		{"data of this cluster are taken back", func(o *state.Observed) {
			changeKnown(&o.Workload, func(w *state.Workload) { w.SystemID = "7001" })
			changeKnown(&o.Kube, func(k *state.Kube) {
				k.Endpoints["patroni-db-config"] = state.Endpoints{OwnerUID: "ours", SystemID: "7001"}
			})
		}, none, true, "Primary", "17.5"},
		{"a Patroni that does not answer is not waited for in the hook",
			func(o *state.Observed) { o.Cluster, o.Silent = state.Unknown[state.Cluster]("silent"), true },
			waiting("awaiting for cluster to start"), true, "", ""},
		{"the primary says so", func(*state.Observed) {}, none, true, "Primary", "17.5"},
		{"the primary of Patroni 3 says so",
			func(o *state.Observed) {
				changeKnown(&o.Cluster, func(c *state.Cluster) { c.Local.Role = "master" })
			}, none, true, "Primary", "17.5"},
		{"one that has the lock is promoted in a moment", func(o *state.Observed) {
			changeKnown(&o.Cluster, func(c *state.Cluster) { c.Local.Role = "replica" })
		}, soon("being promoted"), true, "", "17.5"},
		{"a replica has nothing to say", func(o *state.Observed) {
			asReplicaOfTwo(o, 0, false)
			changeKnown(&o.Cluster, func(c *state.Cluster) {
				c.Members = append(c.Members, state.Member{Name: "db-2", Role: "replica", State: "streaming"})
			})
		}, none, true, "", "17.5"},
		{"one of two says what they cannot survive", func(o *state.Observed) { asReplicaOfTwo(o, 0, false) },
			none, true, "two units: while one is away the other has the only copy; a third avoids that", "17.5"},
		{"or what they wait for then", func(o *state.Observed) { asReplicaOfTwo(o, 0, true) },
			none, true, "two units: writes wait while one of them is away; a third avoids that", "17.5"},
		{"one that is far behind says so", func(o *state.Observed) { asReplicaOfTwo(o, 100<<20, true) },
			none, true, "100 MB behind the primary", "17.5"},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			obs := running()
			test.change(&obs)
			want := desire(obs, Objects{}, Member{})
			var problems []state.Problem
			if test.problem != none {
				problems = []state.Problem{test.problem}
			}
			if !slices.Equal(want.Problems, problems) {
				t.Errorf("the problems are %+v, want %+v", want.Problems, problems)
			}
			if want.Message != test.message || want.Version != test.version {
				t.Errorf("the message is %q and the version %q, want %q and %q", want.Message, want.Version, test.message, test.version)
			}
			_, runs := want.Patroni.Get()
			layer, _ := want.Layer.Get()
			if _, service := layer.Services["postgresql"]; runs != test.runs || service != test.runs {
				t.Errorf("patroni.yml is wished: %t, the service: %t; want %t", runs, service, test.runs)
			}
		})
	}
}

func asReplicaOfTwo(o *state.Observed, lag int64, strict bool) {
	changeKnown(&o.Cluster, func(c *state.Cluster) {
		c.Local.Role = "replica"
		c.Members = []state.Member{
			{Name: "db-0", Role: "sync_standby", State: "streaming", Lag: state.Value(lag)},
			{Name: "db-1", Role: "leader", State: "running"},
		}
		c.Dynamic = map[string]any{"synchronous_mode_strict": strict}
	})
}

// Some things that are waited for come without an event: then, and only then, a
// check beats.
func TestPulse(t *testing.T) {
	t.Parallel()
	for _, waits := range []bool{false, true} {
		obs := running()
		if waits {
			changeKnown(&obs.Cluster, func(c *state.Cluster) { c.Local.State = "creating replica" })
		}
		layer, _ := desire(obs, Objects{}, Member{}).Layer.Get()
		if beats := layer.Checks["pulse"] != idle(); beats != waits {
			t.Errorf("it beats: %t, want %t", beats, waits)
		}
	}
}

func TestThePrimaryWatchesWhoFollows(t *testing.T) {
	t.Parallel()
	obs := running()
	obs.Streaming = state.Value([]string{"db-1", "db-2"})
	layer, _ := desire(obs, Objects{}, Member{}).Layer.Get()
	check := layer.Checks["followers"]
	if check.Startup != "enabled" || check.Exec.Command !=
		"/bin/bash /var/lib/postgresql/data/followers.sh /usr/lib/postgresql/17/bin db 'db-1,db-2'" || check.Exec.User != "postgres" {
		t.Errorf("the check is %+v", check)
	}
	changeKnown(&obs.Cluster, func(c *state.Cluster) { c.Local.Role = "replica" })
	layer, _ = desire(obs, Objects{}, Member{}).Layer.Get()
	if layer.Checks["followers"] != idle() {
		t.Error("a replica watches, too")
	}
}

func TestMemberHasWhatPatroniNeeds(t *testing.T) {
	t.Parallel()
	want := desire(running(), Objects{}, Member{})
	p, _ := want.Patroni.Get()
	if p.Unit != unit || p.Server.Major != 17 {
		t.Errorf("it is of unit %v and server %v", p.Unit, p.Server)
	}
	if wanted := (state.Passwords{
		Operator: "of operator-password", Replication: "of replication-password",
		Rewind: "of rewind-password", REST: "of patroni-password",
	}); p.Passwords != wanted {
		t.Error("the passwords are not those of the secret, each in its place")
	}
	if wanted := (state.Directory{Path: state.Mount, User: "postgres", Group: "postgres"}); want.Directory != wanted {
		t.Errorf("the mount is %v, want %v", want.Directory, wanted)
	}
}

func TestWithoutTheAPIOnlyTheCheckThatSeesItComeIsWished(t *testing.T) {
	t.Parallel()
	for name, forbidden := range map[string]bool{"it is away": false, "the application is not trusted": true} {
		obs := running()
		obs.Kube, obs.Forbidden = state.Unknown[state.Kube](name), forbidden
		layer, known := desire(obs, Member{}).Layer.Get()
		check := layer.Checks["trust"]
		if !known || len(layer.Services) != 0 || len(layer.Checks) != 1 || check.Startup != "enabled" {
			t.Errorf("%s: the layer is %+v, want the check named trust, enabled", name, layer)
		}
		if !strings.HasSuffix(check.Exec.Command, " test") {
			t.Errorf("%s: the check does not ask in the namespace of the model", name)
		}
		obs.Leaving = true
		if _, known := desire(obs, Member{}).Layer.Get(); known {
			t.Errorf("%s: a unit on its way out is watched", name)
		}
	}
	if Layer(unit, false, followers(running(), state.Server{})).Checks["trust"] != idle() {
		t.Error("the check still runs when the API answers")
	}
}

// Pebble takes a new check for healthy, and tells the charm only of changes.
func TestTheCheckOfTheAPIFailsWhenItAnswers(t *testing.T) {
	t.Parallel()
	for name, test := range map[string]struct {
		python string
		fails  bool
	}{
		"it answers":             {"exit 0", true},
		"it refuses, or is away": {"exit 1", false},
		"it is silent":           {"exec sleep 60", false},
	} {
		dir := t.TempDir()
		if err := os.WriteFile(filepath.Join(dir, "python3"), []byte("#!/bin/bash\n"+test.python+"\n"), 0o755); err != nil {
			t.Fatal(err)
		}
		cmd := exec.Command("/bin/sh", "-c", watchTrust(unit).Exec.Command) // it splits words as Pebble does
		cmd.Env = []string{"PATH=" + dir + ":/usr/bin:/bin"}
		out, err := cmd.CombinedOutput()
		if (err != nil) != test.fails {
			t.Errorf("%s: %v: %s", name, err, out)
		}
	}
}

func TestLayer(t *testing.T) {
	t.Parallel()
	data, err := yaml.Marshal(Layer(unit, false, followers(running(), state.Server{})))
	if err != nil {
		t.Fatal(err)
	}
	golden.Equal(t, "layer.yaml", string(data))
}

// Kubernetes kills a container whose check of level alive fails, and a busy
// database must never be killed.
func TestNoCheckIsOfLevelAlive(t *testing.T) {
	t.Parallel()
	for name, check := range Layer(unit, false, followers(running(), state.Server{})).Checks {
		if check.Level == "alive" {
			t.Errorf("check %s is of level alive", name)
		}
	}
}
