package patroni_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"reflect"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"charmhub.io/postgresql-k8s/charm/state"
	"charmhub.io/postgresql-k8s/patroni"
)

// answers are a Patroni member: what it answers to "METHOD /path", as "CODE body"
// or the name of a file in testdata, whose code is 200.
type answers map[string]string

// serve runs the member, and returns its system and what it was asked.
func serve(t *testing.T, a answers) (*patroni.System, *requests) {
	t.Helper()
	asked := &requests{}
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		asked.add(r)
		code, body := a.answer(t, r.Method+" "+r.URL.Path)
		w.WriteHeader(code)
		_, _ = io.WriteString(w, body)
	}))
	t.Cleanup(server.Close)
	return patroni.New(patroni.HTTP(server.URL), func(string) patroni.API { return patroni.HTTP(server.URL) }), asked
}

func (a answers) answer(t *testing.T, request string) (code int, body string) {
	answer, ok := a[request]
	if !ok {
		return http.StatusServiceUnavailable, ""
	}
	if _, err := fmt.Sscanf(answer, "%d", &code); err == nil {
		return code, answer[4:]
	}
	data, err := os.ReadFile("testdata/" + answer)
	if err != nil {
		t.Error(err)
	}
	return http.StatusOK, string(data)
}

// requests are what a member was asked, as "METHOD /path user:password body".
type requests struct {
	mu   sync.Mutex
	list []string
}

func (r *requests) add(req *http.Request) {
	body, _ := io.ReadAll(req.Body)
	credentials := "-"
	if user, password, ok := req.BasicAuth(); ok {
		credentials = user + ":" + password
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	r.list = append(r.list, strings.TrimSpace(fmt.Sprint(req.Method, " ", req.URL.Path, " ", credentials, " ", string(body))))
}

func (r *requests) sorted() []string {
	r.mu.Lock()
	defer r.mu.Unlock()
	return slices.Sorted(slices.Values(r.list))
}

func observe(t *testing.T, s *patroni.System) state.Known[state.Cluster] {
	t.Helper()
	var obs state.Observed
	if err := s.Observe(t.Context(), &obs); err != nil {
		t.Fatal(err)
	}
	return obs.Cluster
}

func TestObserve(t *testing.T) {
	t.Parallel()
	host := func(n int) string { return fmt.Sprintf("postgresql-k8s-%d.postgresql-k8s-endpoints", n) }
	leader := state.Member{
		Name: "postgresql-k8s-0", Role: "leader", State: "running", Host: host(0), Port: 5432, Timeline: 4,
		Lag: state.Unknown[int64]("not reported"),
	}
	replica := state.Member{
		Name: "postgresql-k8s-1", Role: "replica", State: "streaming", Host: host(1), Port: 5432, Timeline: 4, Lag: state.Value(int64(0)),
	}
	standby := state.Member{
		Name: "postgresql-k8s-2", Role: "sync_standby", State: "streaming", Host: host(2), Port: 5432, Timeline: 4, Lag: state.Value(int64(0)),
	}
	pending := leader
	pending.PendingRestart = true
	starting := state.Member{
		Name: "postgresql-k8s-1", Role: "replica", State: "starting", Host: host(1), Port: 5432, Lag: state.Unknown[int64]("not reported"),
	}
	lagging := standby
	lagging.Role, lagging.Lag = "replica", state.Value(int64(77944))

	tests := []struct {
		name    string
		answers answers
		local   state.Local
		members []state.Member
		dynamic bool
	}{
		{"a primary", answers{"GET /patroni": "primary.json", "GET /cluster": "cluster.json", "GET /config": "config.json"},
			state.Local{Name: "postgresql-k8s-0", Version: "4.0.7", Role: "primary", State: "running", ServerVersion: "17.12", ConfigTag: "2c9ab6e7949a", Started: "2026-11-20 05:42:05.304700+00:00"},
			[]state.Member{leader, replica, standby}, true},
		{"a replica", answers{"GET /patroni": "replica.json", "GET /cluster": "cluster.json", "GET /config": "config.json"},
			state.Local{Name: "postgresql-k8s-1", Version: "4.0.7", Role: "replica", State: "running", ServerVersion: "17.12", ConfigTag: "5dcafd823a60", Started: "2026-11-20 05:42:39.128254+00:00"},
			[]state.Member{leader, replica, standby}, true},
		{"a member that starts, whose lag nobody knows",
			answers{"GET /patroni": "starting.json", "GET /cluster": "cluster-starting.json", "GET /config": "config.json"},
			state.Local{Name: "postgresql-k8s-1", Version: "4.0.7", Role: "replica", State: "starting", ConfigTag: "5dcafd823a60"},
			[]state.Member{pending, starting, lagging}, true},
		{"a cluster before its bootstrap has no configuration",
			answers{"GET /patroni": "starting.json", "GET /cluster": `200 {"members": [], "scope": "patroni-db"}`, "GET /config": "502 <html>"},
			state.Local{Name: "postgresql-k8s-1", Version: "4.0.7", Role: "replica", State: "starting", ConfigTag: "5dcafd823a60"},
			[]state.Member{}, false},
		{"a member without our tag", answers{"GET /patroni": `200 {"state": "running", "role": "master", "server_version": 140005}`,
			"GET /cluster": `200 {}`, "GET /config": "config.json"},
			state.Local{Role: "master", State: "running", ServerVersion: "14.5"}, []state.Member{}, true},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			system, asked := serve(t, test.answers)
			fact := observe(t, system)
			got, known := fact.Get()
			if !known {
				t.Fatalf("the cluster is unknown: %s", fact.Why())
			}
			if got.Local != test.local {
				t.Errorf("the member is %+v, want %+v", got.Local, test.local)
			}
			if !reflect.DeepEqual(got.Members, test.members) {
				t.Errorf("the members are\n%+v, want\n%+v", got.Members, test.members)
			}
			if (got.Dynamic != nil) != test.dynamic {
				t.Errorf("the configuration is %v, want one: %t", got.Dynamic, test.dynamic)
			}
			if want := []string{"GET /cluster -", "GET /config -", "GET /patroni -"}; !slices.Equal(asked.sorted(), want) {
				t.Errorf("it asked %q, want %q: reading needs no password", asked.sorted(), want)
			}
		})
	}
}

func TestAMemberThatDoesNotAnswerIsUnknown(t *testing.T) {
	t.Parallel()
	tests := []struct {
		name    string
		answers answers
		why     string
	}{
		{"it answers with an error", answers{"GET /cluster": "cluster.json"}, "GET /patroni: status 503"},
		{"it answers with what is no JSON", answers{"GET /patroni": "200 <html>", "GET /cluster": "cluster.json"},
			"GET /patroni: invalid character '<' looking for beginning of value"},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			system, _ := serve(t, test.answers)
			fact := observe(t, system)
			if _, known := fact.Get(); known || fact.Why() != test.why {
				t.Errorf("it is %v, want unknown: %s", fact, test.why)
			}
		})
	}
	t.Run("its store is away", func(t *testing.T) {
		t.Parallel()
		system, _ := serve(t, answers{"GET /patroni": "primary.json"})
		cluster, known := observe(t, system).Get()
		if !known || cluster.Away != "GET /cluster: status 503" || len(cluster.Members) != 0 || cluster.Local.Role != "primary" {
			t.Errorf("it is %+v", cluster)
		}
	})
	t.Run("nobody listens", func(t *testing.T) {
		t.Parallel()
		server := httptest.NewServer(http.NotFoundHandler())
		server.Close()
		if _, known := observe(t, patroni.New(patroni.HTTP(server.URL), nil)).Get(); known {
			t.Error("it is known")
		}
	})
	t.Run("it is silent until the deadline", func(t *testing.T) {
		t.Parallel()
		ended := make(chan struct{})
		server := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { <-ended }))
		defer server.Close()
		defer close(ended)
		ctx, cancel := context.WithTimeout(t.Context(), 20*time.Millisecond)
		defer cancel()
		var obs state.Observed
		start := time.Now()
		err := patroni.New(patroni.HTTP(server.URL), nil).Observe(ctx, &obs)
		if _, known := obs.Cluster.Get(); known || err != nil || !obs.Silent {
			t.Errorf("it is known: %t; silent: %t; %v", known, obs.Silent, err)
		}
		if took := time.Since(start); took > time.Second {
			t.Errorf("it took %s, with a deadline of 20 ms", took)
		}
	})
}

func TestDiff(t *testing.T) {
	t.Parallel()
	dynamic := map[string]any{"ttl": 20.0}
	have := state.Cluster{Local: state.Local{ConfigTag: "new"}, Dynamic: dynamic}
	wished := state.Desired{REST: "fake-rest", ConfigTag: "new", Dynamic: map[string]any{"ttl": 20}, Patroni: state.Value(member())}
	tests := []struct {
		name   string
		change func(*state.Observed, *state.Cluster, *state.Desired)
		steps  []string
	}{
		{"what is as it is wished needs no step", func(*state.Observed, *state.Cluster, *state.Desired) {}, nil},
		{"a file that is not loaded is reloaded", func(_ *state.Observed, c *state.Cluster, _ *state.Desired) { c.Local.ConfigTag = "old" },
			[]string{"reload Patroni, configuration new"}},
		{"a configuration that differs is patched", func(_ *state.Observed, _ *state.Cluster, w *state.Desired) { w.Dynamic = map[string]any{"ttl": 30} },
			[]string{"patch the cluster's configuration: map[ttl:30]"}},
		{"only the leader patches", func(o *state.Observed, _ *state.Cluster, w *state.Desired) {
			o.Leader, w.Dynamic = false, map[string]any{"ttl": 30}
		}, nil},
		{"a configuration that is not known is not patched", func(_ *state.Observed, c *state.Cluster, _ *state.Desired) { c.Dynamic = nil }, nil},
		{"a restart is wished", func(_ *state.Observed, _ *state.Cluster, w *state.Desired) { w.Restart = state.Member{Name: "db-1"} },
			[]string{"restart PostgreSQL of db-1 for changed settings"}},
		{"a leader on its way out patches, too", func(o *state.Observed, _ *state.Cluster, w *state.Desired) {
			o.Leaving, w.Dynamic, w.Patroni = true, map[string]any{"ttl": 30}, state.Known[state.Patroni]{}
		}, []string{"patch the cluster's configuration: map[ttl:30]"}},
		{"a successor takes over", func(_ *state.Observed, c *state.Cluster, w *state.Desired) {
			c.Local.Name, w.Successor = "db-0", state.Successor{Member: state.Member{Name: "db-1"}}
		}, []string{"switch over from db-0 to db-1"}},
		{"a successor takes over from whoever is the primary", func(_ *state.Observed, c *state.Cluster, w *state.Desired) {
			c.Local.Name, c.Members = "db-1", []state.Member{{Name: "db-0", Role: "leader", State: "running"}}
			w.Successor = state.Successor{Member: state.Member{Name: "db-1"}}
		}, []string{"switch over from db-0 to db-1"}},
		{"or another, if any will do", func(_ *state.Observed, c *state.Cluster, w *state.Desired) {
			c.Local.Name, w.Successor = "db-0", state.Successor{Member: state.Member{Name: "db-1"}, Any: true}
		}, []string{"switch over from db-0 to whichever replica is first"}},
		{"a member is restarted, and another copied, because people want it", func(_ *state.Observed, c *state.Cluster, w *state.Desired) {
			c.Local.Name, w.RestartNow, w.Reinitialize = "db-1", state.Member{Name: "db-2"}, true
		}, []string{"restart PostgreSQL of db-2", "reinitialize db-1"}},
		{"without a password nothing can be changed", func(_ *state.Observed, c *state.Cluster, w *state.Desired) {
			c.Local.ConfigTag, w.REST = "old", ""
		}, nil},
		{"no wish is no step", func(_ *state.Observed, c *state.Cluster, w *state.Desired) {
			c.Local.ConfigTag, *w = "old", state.Desired{}
		}, nil},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			obs, cluster, want := state.Observed{Leader: true}, have, wished
			test.change(&obs, &cluster, &want)
			obs.Cluster = state.Value(cluster)
			if got := texts(patroni.New(nil, nil).Diff(obs, want)); !slices.Equal(got, test.steps) {
				t.Errorf("the steps are %q, want %q", got, test.steps)
			}
		})
	}
	unknown := state.Observed{Leader: true, Cluster: state.Unknown[state.Cluster]("refused")}
	if steps := patroni.New(nil, nil).Diff(unknown, wished); len(steps) != 0 {
		t.Errorf("the steps of a cluster that is not known are %q", steps)
	}
}

func texts(steps []state.Step) []string {
	var list []string
	for _, s := range steps {
		list = append(list, s.String())
	}
	return list
}

func TestApply(t *testing.T) {
	t.Parallel()
	const password = state.Redacted("fake-rest")
	tests := []struct {
		name    string
		step    state.Step
		answers answers
		asked   []string
		err     string
	}{
		{"a patch", patroni.Patch{Config: map[string]any{"ttl": 20, "pause": nil}, Password: password},
			answers{"PATCH /config": "200 {}"}, []string{`PATCH /config patroni:fake-rest {"pause":null,"ttl":20}`}, ""},
		{"a restart of what waits for one", patroni.Restart{Member: state.Member{Name: "db-1"}, Password: password},
			answers{"POST /restart": "200 restarted successfully"}, []string{`POST /restart patroni:fake-rest {"restart_pending":true}`}, ""},
		{"a reload whose tag is there", patroni.Reload{Tag: "2c9ab6e7949a", Password: password},
			answers{"POST /reload": "202 reload scheduled", "GET /patroni": "primary.json"},
			[]string{"GET /patroni -", "POST /reload patroni:fake-rest"}, ""},
		{"a patch that is refused", patroni.Patch{Config: map[string]any{}, Password: "wrong"},
			answers{"PATCH /config": "401 not authenticated"}, []string{"PATCH /config patroni:wrong {}"},
			"cannot change the cluster's configuration: PATCH /config: status 401: not authenticated"},
		{"a restart that fails", patroni.Restart{Member: state.Member{Name: "db-1"}, Password: password},
			answers{"POST /restart": "503 restart failed\n"}, []string{`POST /restart patroni:fake-rest {"restart_pending":true}`},
			"cannot restart PostgreSQL of db-1: POST /restart: status 503: restart failed"},
		{"a reload that is refused", patroni.Reload{Tag: "x", Password: password},
			answers{"POST /reload": "401 not authenticated"}, []string{"POST /reload patroni:fake-rest"},
			"cannot reload Patroni: POST /reload: status 401: not authenticated"},
		{"a new copy", patroni.Reinitialize{Name: "db-1", Password: password},
			answers{"POST /reinitialize": "200 reinitialize started"}, []string{"POST /reinitialize patroni:fake-rest {}"}, ""},
		{"a new copy that is refused", patroni.Reinitialize{Name: "db-1", Password: password},
			answers{"POST /reinitialize": "503 I am the leader"}, []string{"POST /reinitialize patroni:fake-rest {}"},
			"cannot reinitialize db-1: POST /reinitialize: status 503: I am the leader"},
		{"a switchover to a member", patroni.Switchover{From: "db-0", To: "db-1", Password: password},
			answers{"POST /switchover": "200 ok"}, []string{`POST /switchover patroni:fake-rest {"candidate":"db-1","leader":"db-0"}`}, ""},
		{"a switchover to whichever is first", patroni.Switchover{From: "db-0", To: "db-1", Any: true, Password: password},
			answers{"POST /switchover": "200 ok"}, []string{`POST /switchover patroni:fake-rest {"leader":"db-0"}`}, ""},
		{"one that Patroni wants a name for", patroni.Switchover{From: "db-0", To: "db-1", Any: true, Password: password},
			answers{"POST /switchover": "400 paused"}, []string{
				`POST /switchover patroni:fake-rest {"candidate":"db-1","leader":"db-0"}`, `POST /switchover patroni:fake-rest {"leader":"db-0"}`,
			}, "cannot switch over from db-0 to whichever replica is first: POST /switchover: status 400: paused"},
		{"a restart now of a member that does not answer", patroni.RestartNow{Member: state.Member{Name: "db-1"}, Password: password},
			answers{}, []string{"GET /patroni -"}, "cannot restart PostgreSQL of db-1: GET /patroni: status 503"},
		{"a restart now that fails", patroni.RestartNow{Member: state.Member{Name: "db-1"}, Password: password},
			answers{"GET /patroni": "primary.json", "POST /restart": "503 restart failed"}, []string{"GET /patroni -", "POST /restart patroni:fake-rest {}"},
			"cannot restart PostgreSQL of db-1: POST /restart: status 503: restart failed"},
		{"a step of somebody else", otherStep{}, nil, nil, "cannot apply patroni_test.otherStep to patroni"},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			system, asked := serve(t, test.answers)
			err := system.Apply(t.Context(), test.step)
			if got := fmt.Sprint(err); (err != nil || test.err != "") && got != test.err {
				t.Errorf("the error is %s, want %s", got, test.err)
			}
			if got := asked.sorted(); !slices.Equal(got, test.asked) {
				t.Errorf("it asked %q, want %q", got, test.asked)
			}
			if strings.Contains(test.step.String(), "fake") {
				t.Errorf("the step shows a password: %s", test.step)
			}
		})
	}
}

type otherStep struct{}

func (otherStep) String() string { return "other" }

// tagAfter is a member that has loaded its file a while after it was told to.
func tagAfter(d time.Duration) patroni.API {
	start := time.Now()
	return func(ctx context.Context, method, path string, _ []byte, _ state.Redacted) (int, []byte, error) {
		if ctx.Err() != nil {
			return 0, nil, ctx.Err()
		}
		tag := "old"
		if time.Since(start) >= d {
			tag = "new"
		}
		return http.StatusOK, fmt.Appendf(nil, `{"tags": {"charm_config": %q}}`, tag), nil
	}
}

func TestReloadReturnsWhenTheTagAppears(t *testing.T) {
	t.Parallel()
	tests := []struct {
		name string
		tag  time.Duration // when it appears
		took time.Duration // at most
		err  string
	}{
		{"at once", 0, 0, ""},
		{"after a second", time.Second, time.Second + 100*time.Millisecond, ""},
		{"too late", time.Minute, 3*time.Second + 100*time.Millisecond,
			"cannot reload Patroni: it did not take configuration new within 3s"},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) { // where time passes when all wait
				start := time.Now()
				err := patroni.New(tagAfter(test.tag), nil).Apply(t.Context(), patroni.Reload{Tag: "new"})
				if got := fmt.Sprint(err); (err != nil || test.err != "") && got != test.err {
					t.Errorf("the error is %s, want %s", got, test.err)
				}
				if took := time.Since(start); took > test.took {
					t.Errorf("it took %s, want at most %s", took, test.took)
				}
			})
		})
	}
}

// The file may have a new password of the interface, which Patroni does not know
// before it has loaded it.
func TestAReloadThatIsDeniedIsASignal(t *testing.T) {
	t.Parallel()
	for _, failure := range []error{nil, errors.New("no such service")} {
		system, asked := serve(t, answers{"POST /reload": "401 not authenticated", "GET /patroni": "primary.json"})
		signals := 0
		system.Hangup = func(context.Context) error { signals++; return failure }
		err := system.Apply(t.Context(), patroni.Reload{Tag: "2c9ab6e7949a", Password: "new"})
		if signals != 1 || !errors.Is(err, failure) {
			t.Errorf("after %d signals the error is %v, want %v; it was asked %q", signals, err, failure, asked.sorted())
		}
	}
}

// Patroni's answer comes when the server is up again, which may take longer than a
// call: what counts is when the server was started.
func TestRestartNowReturnsWhenTheServerIsUp(t *testing.T) {
	t.Parallel()
	for name, test := range map[string]struct {
		up   time.Duration
		took time.Duration // at most
		err  string
	}{
		"after a while": {5 * time.Second, 6 * time.Second, ""},
		"never":         {time.Hour, 61 * time.Second, "cannot restart PostgreSQL of db-1: it is not up again after 1m0s"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				start := time.Now()
				member := patroni.API(func(_ context.Context, method, _ string, _ []byte, _ state.Redacted) (int, []byte, error) {
					since := time.Since(start)
					switch {
					case method == http.MethodPost:
						time.Sleep(3 * time.Second)
						return 0, nil, context.DeadlineExceeded
					case since == 0:
						return 200, []byte(`{"state": "running", "postmaster_start_time": "yesterday"}`), nil
					case since < test.up:
						return 503, []byte(`{"state": "restarting"}`), nil
					}
					return 200, []byte(`{"state": "running", "postmaster_start_time": "today"}`), nil
				})
				system := patroni.New(nil, func(string) patroni.API { return member })
				err := system.Apply(t.Context(), patroni.RestartNow{Member: state.Member{Name: "db-1"}})
				if got := fmt.Sprint(err); (err != nil || test.err != "") && got != test.err {
					t.Errorf("the error is %s, want %s", got, test.err)
				}
				if took := time.Since(start); took > test.took+3*time.Second {
					t.Errorf("it took %s", took)
				}
			})
		})
	}
}

func TestReloadEndsWithTheDispatch(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
		defer cancel()
		start := time.Now()
		err := patroni.New(tagAfter(time.Minute), nil).Apply(ctx, patroni.Reload{Tag: "new"})
		if !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("the error is %v, want that of the context", err)
		}
		if took := time.Since(start); took > 200*time.Millisecond {
			t.Errorf("it took %s", took)
		}
	})
}

func TestWhatThePrimaryMustLowerFirst(t *testing.T) {
	t.Parallel()
	for reason, want := range map[string]bool{
		`{"max_connections": {"old_value": "200", "new_value": "100"}}`:                                                              true,
		`{"max_connections": {"old_value": "100", "new_value": "200"}}`:                                                              false,
		`{"shared_buffers": {"old_value": "256MB", "new_value": "128MB"}, "max_worker_processes": {"old_value": 8, "new_value": 4}}`: true,
		`{"shared_buffers": {"old_value": "256MB", "new_value": null}}`:                                                              false,
		`{}`:   false,
		`null`: true, // before Patroni 3.3: nobody knows
	} {
		system, _ := serve(t, answers{
			"GET /patroni": "primary.json", "GET /config": "config.json",
			"GET /cluster": `200 {"members": [{"name": "db-0", "pending_restart": true, "pending_restart_reason": ` + reason + `}]}`,
		})
		c, _ := observe(t, system).Get()
		if got := len(c.Members) == 1 && c.Members[0].Lowers; got != want {
			t.Errorf("of %s: %t", reason, got)
		}
	}
}
