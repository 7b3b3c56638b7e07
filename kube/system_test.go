package kube_test

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"net/http"
	"net/http/httptest"
	"reflect"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"k8s.io/client-go/rest"

	"charmhub.io/postgresql-k8s/charm/state"
	"charmhub.io/postgresql-k8s/kube"
	"charmhub.io/postgresql-k8s/tests/golden"
)

var (
	unit = state.Unit{Name: "db/0", App: "db", Number: 0, Model: "test", ModelUUID: "uuid"}
	born = time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
)

type object = map[string]any

// apiServer keeps objects of the namespace test, by their path in the API.
type apiServer struct {
	mu       sync.Mutex
	objects  map[string]object
	requests []string      // method, path, and of a change the query, content type and body
	refuse   int           // a status for all requests, or 0
	refused  string        // only of the paths that end so
	silent   chan struct{} // when not nil, requests wait for it to be closed
}

const (
	core = "/api/v1/namespaces/test/"
	apps = "/apis/apps/v1/namespaces/test/"
)

// newServer has what Juju has made of the application db before its first hook.
func newServer() *apiServer {
	s := &apiServer{objects: map[string]object{}}
	set := meta("db", nil, "", born)
	set["metadata"].(object)["uid"] = "ours"
	s.put(apps+"statefulsets/db", set)
	pod := meta("db-0", object{"app.kubernetes.io/name": "db"}, "ours", born)
	pod["status"] = object{"podIP": "10.1.0.7", "conditions": []object{{"type": "PodScheduled", "status": "True"}, {"type": "Ready", "status": "True", "lastTransitionTime": born.Format(time.RFC3339)}}}
	s.put(core+"pods/db-0", pod)
	s.put(core+"pods/db-1", meta("db-1", object{"app.kubernetes.io/name": "db"}, "ours", born))
	s.put(core+"pods/other-0", meta("other-0", object{"app.kubernetes.io/name": "other"}, "theirs", born))
	s.put(core+"services/db", meta("db", object{"app.kubernetes.io/name": "db"}, "", born))
	return s
}

// meta is an object with its metadata; owner is the UID of a StatefulSet, or "".
func meta(name string, labels object, owner string, created time.Time) object {
	m := object{"name": name, "creationTimestamp": created.Format(time.RFC3339)}
	if labels != nil {
		m["labels"] = labels
	}
	if owner != "" {
		m["ownerReferences"] = []any{object{"apiVersion": "apps/v1", "kind": "StatefulSet", "name": "db", "uid": owner}}
	}
	return object{"metadata": m}
}

func (s *apiServer) put(path string, o object) { s.objects[path] = o }

// endpoints adds one of Patroni's objects.
func (s *apiServer) endpoints(name, owner string, created time.Time) {
	s.put(core+"endpoints/"+name, meta(name, object{"application": "patroni", "cluster-name": "patroni-db"}, owner, created))
}

func (s *apiServer) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	body, _ := io.ReadAll(r.Body)
	s.mu.Lock()
	defer s.mu.Unlock()
	line := r.Method + " " + r.URL.RequestURI()
	if len(body) > 0 {
		line += "\n" + r.Header.Get("Content-Type") + "\n" + indented(body)
	}
	s.requests = append(s.requests, line)
	if s.silent != nil {
		<-s.silent
	}
	w.Header().Set("Content-Type", "application/json")
	if s.refuse != 0 && strings.HasSuffix(r.URL.Path, s.refused) {
		answer(w, s.refuse, status(s.refuse))
		return
	}
	code, reply := s.handle(r, body)
	answer(w, code, reply)
}

func answer(w http.ResponseWriter, code int, reply object) {
	w.WriteHeader(code)
	_ = json.NewEncoder(w).Encode(reply)
}

// status is what the API server answers when it does not do what it was asked.
func status(code int) object {
	reason := map[int]string{403: "Forbidden", 404: "NotFound", 500: "InternalError"}[code]
	return object{"kind": "Status", "apiVersion": "v1", "status": "Failure", "code": code, "reason": reason, "message": "the API server says " + reason}
}

func (s *apiServer) handle(r *http.Request, body []byte) (int, object) {
	path := r.URL.Path
	switch r.Method {
	case http.MethodGet:
		if o, ok := s.objects[path]; ok {
			return http.StatusOK, o
		}
		if kind := path[strings.LastIndex(path, "/")+1:]; path == core+kind {
			return http.StatusOK, object{"items": s.list(path, r.URL.Query().Get("labelSelector"))}
		}
	case http.MethodDelete:
		if _, ok := s.objects[path]; ok {
			delete(s.objects, path)
			return http.StatusOK, object{"kind": "Status", "status": "Success"}
		}
	case http.MethodPatch:
		var patch object
		if err := json.Unmarshal(body, &patch); err != nil {
			return http.StatusBadRequest, status(http.StatusBadRequest)
		}
		have, exists := s.objects[path]
		if applies := r.Header.Get("Content-Type") == "application/apply-patch+yaml"; !exists && applies {
			have = meta(path[strings.LastIndex(path, "/")+1:], nil, "", born)
		} else if !exists {
			return http.StatusNotFound, status(http.StatusNotFound)
		}
		s.objects[path] = merged(have, patch)
		return http.StatusOK, s.objects[path]
	}
	return http.StatusNotFound, status(http.StatusNotFound)
}

func (s *apiServer) list(path, selector string) []object {
	key, value, _ := strings.Cut(selector, "=")
	items := []object{}
	for _, name := range slices.Sorted(maps.Keys(s.objects)) {
		labels, _ := s.objects[name]["metadata"].(object)["labels"].(object)
		if strings.HasPrefix(name, path+"/") && labels[key] == value {
			items = append(items, s.objects[name])
		}
	}
	return items
}

// merged is JSON merge patch, which will do for what we apply, too.
func merged(have, patch object) object {
	out := maps.Clone(have)
	for key, value := range patch {
		inner, isObject := value.(object)
		old, wasObject := out[key].(object)
		if isObject && wasObject {
			value = merged(old, inner)
		}
		out[key] = value
		if value == nil {
			delete(out, key)
		}
	}
	return out
}

func indented(body []byte) string {
	var value any
	if json.Unmarshal(body, &value) != nil {
		return string(body)
	}
	text, _ := json.MarshalIndent(value, "", "  ")
	return string(text)
}

// asked are the requests since the last call.
func (s *apiServer) asked() []string {
	s.mu.Lock()
	defer s.mu.Unlock()
	list := s.requests
	s.requests = nil
	return list
}

func (s *apiServer) system(t *testing.T) *kube.System {
	t.Helper()
	server := httptest.NewServer(s)
	t.Cleanup(server.Close)
	api, err := kube.FromConfig(&rest.Config{Host: server.URL}, "test", "db")
	if err != nil {
		t.Fatal(err)
	}
	return kube.New(api, unit, "search test.svc.cluster.example svc.cluster.example\n")
}

func observe(t *testing.T, s *kube.System) state.Observed {
	t.Helper()
	obs := state.Observed{Unit: unit, Leader: true}
	if err := s.Observe(t.Context(), &obs); err != nil {
		t.Fatal(err)
	}
	return obs
}

func TestObserve(t *testing.T) {
	t.Parallel()
	s := newServer()
	s.endpoints("patroni-db", "ours", born)
	s.endpoints("patroni-db-sync", "theirs", born)
	obs := observe(t, s.system(t))
	got, known := obs.Kube.Get()
	name := map[string]string{"app.kubernetes.io/name": "db"}
	want := state.Kube{
		Owner:   state.Owner{Name: "db", UID: "ours", Created: born.Local()},
		Rollout: state.Rollout{Replicas: 1},
		Domain:  "cluster.example",
		Pods: []state.Pod{
			{Name: "db-0", IP: "10.1.0.7", Ready: true, ReadySince: born.Local(), Labels: name, Created: born.Local()},
			{Name: "db-1", Labels: name, Created: born.Local()},
		},
		Services: map[string]state.KubeService{
			"db": {Name: "db", Labels: name},
		},
		Endpoints: map[string]state.Endpoints{
			"patroni-db":      {Name: "patroni-db", OwnerUID: "ours", Created: born.Local()},
			"patroni-db-sync": {Name: "patroni-db-sync", OwnerUID: "theirs", Created: born.Local()},
		},
	}
	if !known || obs.Forbidden || !reflect.DeepEqual(got, want) {
		t.Errorf("it is\n%+v, known %t, forbidden %t, want\n%+v", got, known, obs.Forbidden, want)
	}
	if requests := s.asked(); len(requests) != 4 {
		t.Errorf("it took the requests %q, want four", requests)
	}
}

func TestAMemberTellsItsPatroniInItsPod(t *testing.T) {
	t.Parallel()
	for status, want := range map[string]string{`{"role":"replica","version":"3.3.1"}`: "3.3.1", `{"role":"replica"}`: "", "": "", "{": "", `{"version":4}`: ""} {
		s := newServer()
		s.objects[core+"pods/db-0"] = merged(s.objects[core+"pods/db-0"], object{"metadata": object{"annotations": object{"status": status}}})
		facts, _ := observe(t, s.system(t)).Kube.Get()
		if pod, _ := facts.Pod("db-0"); pod.Patroni != want {
			t.Errorf("of %q the version is %q, want %q", status, pod.Patroni, want)
		}
	}
}

func TestAnObjectOfSeveralOwnersIsOursWhenWeAreOneOfThem(t *testing.T) {
	t.Parallel()
	s := newServer()
	s.endpoints("patroni-db", "theirs", born)
	m := s.objects[core+"endpoints/patroni-db"]["metadata"].(object)
	m["ownerReferences"] = append(m["ownerReferences"].([]any), object{"uid": "ours"})
	got, _ := observe(t, s.system(t)).Kube.Get()
	if uid := got.Endpoints["patroni-db"].OwnerUID; uid != "ours" {
		t.Errorf("its owner is %q", uid)
	}
}

func TestWhatTheAPIDoesNotTellIsUnknown(t *testing.T) {
	t.Parallel()
	tests := []struct {
		name      string
		change    func(*apiServer)
		forbidden bool
		why       string // part of it
	}{
		{"a right is refused", func(s *apiServer) { s.refuse = http.StatusForbidden }, true, "Forbidden"},
		{"one right of several is refused", func(s *apiServer) { s.refuse, s.refused = http.StatusForbidden, "/endpoints" }, true, "cannot read endpoints"},
		{"the server fails", func(s *apiServer) { s.refuse = http.StatusInternalServerError }, false, "InternalError"},
		{"the token is not taken", func(s *apiServer) { s.refuse = http.StatusUnauthorized }, false, "cannot read"},
		{"the right to see the owner is refused", func(s *apiServer) {
			s.refuse, s.refused = http.StatusForbidden, "/statefulsets/db"
		}, true, "cannot read statefulsets/db"},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			s := newServer()
			test.change(s)
			obs := observe(t, s.system(t))
			if _, known := obs.Kube.Get(); known || obs.Forbidden != test.forbidden || !strings.Contains(obs.Kube.Why(), test.why) {
				t.Errorf("it is %v, forbidden %t; want unknown because of %s, forbidden %t", obs.Kube, obs.Forbidden, test.why, test.forbidden)
			}
		})
	}
	t.Run("the server is silent until the deadline", func(t *testing.T) {
		t.Parallel()
		s := newServer()
		s.silent = make(chan struct{})
		system := s.system(t)
		defer close(s.silent)
		ctx, cancel := context.WithTimeout(t.Context(), 20*time.Millisecond)
		defer cancel()
		start := time.Now()
		var obs state.Observed
		if err := system.Observe(ctx, &obs); err != nil {
			t.Error(err)
		}
		if _, known := obs.Kube.Get(); known || obs.Forbidden {
			t.Errorf("it is %v, forbidden %t", obs.Kube, obs.Forbidden)
		}
		if took := time.Since(start); took > time.Second {
			t.Errorf("it took %s, with a deadline of 20 ms", took)
		}
	})
}

func TestTheStatefulSetTellsOfARollout(t *testing.T) {
	t.Parallel()
	set := func(s *apiServer, o object) {
		s.objects[apps+"statefulsets/db"] = merged(s.objects[apps+"statefulsets/db"], o)
	}
	tests := []struct {
		name   string
		change func(*apiServer)
		want   state.Rollout
	}{
		{"what the pods are to have", func(*apiServer) {}, state.Rollout{Revision: "db-b", Replicas: 2, Partition: 1}},
		{"without a partition it is 0", func(s *apiServer) { s.objects[apps+"statefulsets/db"]["spec"] = object{"replicas": 5} },
			state.Rollout{Revision: "db-b", Replicas: 5}},
		{"what the controller has not seen has no revision", func(s *apiServer) {
			set(s, object{"metadata": object{"generation": 3}, "status": object{"observedGeneration": 2}})
		}, state.Rollout{}},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			s := newServer()
			set(s, object{
				"spec":   object{"replicas": 2, "updateStrategy": object{"rollingUpdate": object{"partition": 1}}},
				"status": object{"updateRevision": "db-b", "currentRevision": "db-a"},
			})
			test.change(s)
			got, _ := observe(t, s.system(t)).Kube.Get()
			if got.Rollout != test.want {
				t.Errorf("it is %+v, want %+v", got.Rollout, test.want)
			}
		})
	}
}

func TestThePartitionIsSetByEveryUnit(t *testing.T) {
	t.Parallel()
	s := newServer()
	system := s.system(t)
	obs := observe(t, system)
	obs.Leader = false
	s.asked()
	applyAll(t, system, obs, state.Desired{Partition: state.Value(1)})
	requests := s.asked()
	if len(requests) != 1 || !strings.HasPrefix(requests[0], "PATCH "+apps+"statefulsets/db?") || !strings.Contains(requests[0], `"partition": 1`) {
		t.Errorf("the requests are %q", requests)
	}
	changeRollout(&obs, state.Rollout{Revision: "db-b", Replicas: 2, Partition: 1})
	if steps := system.Diff(obs, state.Desired{Partition: state.Value(1)}); len(steps) != 0 {
		t.Errorf("for the one that there is the steps are %v", steps)
	}
	if steps := system.Diff(obs, state.Desired{Partition: state.Value(0)}); len(steps) != 1 {
		t.Errorf("for another one the steps are %v", steps)
	}
}

func changeRollout(obs *state.Observed, rollout state.Rollout) {
	k, _ := obs.Kube.Get()
	k.Rollout = rollout
	obs.Kube = state.Value(k)
}

// wishes are what handlers want of Kubernetes.
func wishes() state.Desired {
	labels := map[string]string{"app.kubernetes.io/name": "db"}
	return state.Desired{
		PodLabels: map[string]string{"application": "patroni", "cluster-name": "patroni-db"},
		Services: []state.KubeService{
			{Name: "db-primary", Labels: labels, Selector: map[string]string{"cluster-name": "patroni-db", "role": "primary"},
				Ports: []state.Port{{Name: "api", Number: 8008}, {Name: "database", Number: 5432}}},
			{Name: "patroni-db-config", Labels: labels},
		},
		Endpoints: []string{"patroni-db", "patroni-db-config"},
	}
}

func applyAll(t *testing.T, system *kube.System, obs state.Observed, want state.Desired) []string {
	t.Helper()
	var texts []string
	for _, step := range system.Diff(obs, want) {
		texts = append(texts, step.String())
		if err := system.Apply(t.Context(), step); err != nil {
			t.Fatal(err)
		}
	}
	return texts
}

// The bodies of all changes are in a golden file.
func TestAFreshApplicationIsChangedOnce(t *testing.T) {
	t.Parallel()
	s := newServer()
	s.endpoints("patroni-db", "dead", born)
	system := s.system(t)
	want := wishes()
	want.Leftovers = []string{"patroni-db"}
	obs := observe(t, system)
	s.asked()
	got := applyAll(t, system, obs, want)
	steps := []string{
		"label pod db-0: map[application:patroni cluster-name:patroni-db]",
		"delete left-over endpoints patroni-db",
		"own endpoints patroni-db",
		"own endpoints patroni-db-config",
		"apply service db-primary",
		"apply service patroni-db-config",
	}
	if !slices.Equal(got, steps) {
		t.Errorf("the steps are %q, want %q", got, steps)
	}
	golden.Equal(t, "changes.txt", strings.Join(s.asked(), "\n\n")+"\n")

	want.Leftovers = nil
	if again := applyAll(t, system, observe(t, system), want); len(again) != 0 {
		t.Errorf("a second time the steps are %q, want none", again)
	}
}

// Patroni takes each pod with its labels for a member.
func TestAMemberThatEndsIsNoneAnyMore(t *testing.T) {
	t.Parallel()
	s := newServer()
	system := s.system(t)
	applyAll(t, system, observe(t, system), wishes())
	ends := state.Desired{Stop: true}
	if got := applyAll(t, system, observe(t, system), ends); !slices.Equal(got, []string{"label pod db-0: map[application: cluster-name:]"}) {
		t.Errorf("the steps are %q", got)
	}
	labels := s.objects[core+"pods/db-0"]["metadata"].(object)["labels"].(object)
	for _, label := range []string{"application", "cluster-name"} {
		if value, has := labels[label]; has {
			t.Errorf("it still has %s=%s", label, value)
		}
	}
	if labels["app.kubernetes.io/name"] != "db" {
		t.Errorf("of the labels that are not Patroni's are left %v", labels)
	}
	if again := applyAll(t, system, observe(t, system), ends); len(again) != 0 {
		t.Errorf("a second time the steps are %q, want none", again)
	}
}

func TestDiff(t *testing.T) {
	t.Parallel()
	tests := []struct {
		name   string
		change func(*apiServer, *bool, *state.Desired)
		steps  []string
	}{
		{"what is as it is wished needs no step", func(*apiServer, *bool, *state.Desired) {}, nil},
		{"a label that somebody else added stays", func(s *apiServer, _ *bool, _ *state.Desired) {
			s.objects[core+"pods/db-0"] = merged(s.objects[core+"pods/db-0"], object{"metadata": object{"labels": object{"role": "primary"}}})
		}, nil},
		{"a Service that lost its selector is applied", func(s *apiServer, _ *bool, _ *state.Desired) {
			s.objects[core+"services/db-primary"]["spec"].(object)["selector"] = object{}
		}, []string{"apply service db-primary"}},
		{"a Service with another port is applied", func(_ *apiServer, _ *bool, w *state.Desired) { w.Services[0].Ports = w.Services[0].Ports[:1] },
			[]string{"apply service db-primary"}},
		{"a Service that somebody else owns is applied", func(s *apiServer, _ *bool, _ *state.Desired) {
			s.objects[core+"services/db-primary"]["metadata"].(object)["ownerReferences"] = []any{object{"uid": "theirs"}}
		}, []string{"apply service db-primary"}},
		{"an Endpoints object without owner is owned", func(s *apiServer, _ *bool, _ *state.Desired) { s.endpoints("patroni-db", "", born) },
			[]string{"own endpoints patroni-db"}},
		{"an Endpoints object that is gone is made", func(s *apiServer, _ *bool, _ *state.Desired) {
			delete(s.objects, core+"endpoints/patroni-db")
		}, []string{"own endpoints patroni-db"}},
		{"a left-over that is gone is not deleted", func(_ *apiServer, _ *bool, w *state.Desired) { w.Leftovers = []string{"patroni-db-old"} }, nil},
		{"another unit labels its pod only", func(s *apiServer, leader *bool, w *state.Desired) {
			*leader, w.PodLabels = false, map[string]string{"new": "label"}
			delete(s.objects, core+"endpoints/patroni-db")
		}, []string{"label pod db-0: map[new:label]"}},
		{"all pods that do not yet show who clients were told of", func(s *apiServer, leader *bool, w *state.Desired) {
			*leader, w.Told = false, "db-1"
			s.objects[core+"pods/db-0"] = merged(s.objects[core+"pods/db-0"], object{"metadata": object{"annotations": object{"charmhub.io/told": "db-1"}}})
		}, []string{"annotate pod db-1: charmhub.io/told=db-1"}},
		{"without an owner nothing is made", func(s *apiServer, _ *bool, _ *state.Desired) {
			delete(s.objects, apps+"statefulsets/db")
			delete(s.objects, core+"endpoints/patroni-db")
		}, nil},
		{"from what is not known nothing follows", func(s *apiServer, _ *bool, _ *state.Desired) { s.refuse = http.StatusForbidden }, nil},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			s := newServer()
			system, want := s.system(t), wishes()
			applyAll(t, system, observe(t, system), want)
			leader := true
			test.change(s, &leader, &want)
			obs := observe(t, system)
			obs.Leader = leader
			var got []string
			for _, step := range system.Diff(obs, want) {
				got = append(got, step.String())
			}
			if !slices.Equal(got, test.steps) {
				t.Errorf("the steps are %q, want %q", got, test.steps)
			}
		})
	}
}

// An application that is not trusted everywhere may be trusted in its namespace.
func TestOnlyTheNamespaceIsAsked(t *testing.T) {
	t.Parallel()
	s := newServer()
	s.endpoints("patroni-db", "", born)
	system := s.system(t)
	applyAll(t, system, observe(t, system), wishes())
	observe(t, system)
	for _, request := range s.asked() {
		_, path, _ := strings.Cut(request, " ")
		if !strings.HasPrefix(path, core) && !strings.HasPrefix(path, apps) {
			t.Errorf("it asked %s", request)
		}
	}
}

func TestAStepThatFailsSaysWhat(t *testing.T) {
	t.Parallel()
	tests := []struct {
		name   string
		refuse int
		step   state.Step
		err    string // "" for none
	}{
		{"a patch that is refused", http.StatusForbidden, kube.LabelPod{Pod: "db-0"}, "cannot patch pods/db-0: the API server says Forbidden"},
		{"an annotation that is refused", http.StatusForbidden, kube.AnnotatePod{Pod: "db-0"}, "cannot patch pods/db-0: the API server says Forbidden"},
		{"an apply that is refused", http.StatusForbidden, kube.OwnEndpoints{Name: "x"}, "cannot apply endpoints/x: the API server says Forbidden"},
		{"a deletion that is refused", http.StatusForbidden, kube.DeleteEndpoints{Name: "x"}, "cannot delete endpoints/x: the API server says Forbidden"},
		{"an annotation of what is gone", http.StatusNotFound, kube.AnnotatePod{Pod: "db-0"}, ""},
		{"a deletion of what is gone", http.StatusNotFound, kube.DeleteEndpoints{Name: "x"}, ""},
		{"a step of somebody else", 0, otherStep{}, "cannot apply kube_test.otherStep to kubernetes"},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			s := newServer()
			s.refuse = test.refuse
			err := s.system(t).Apply(t.Context(), test.step)
			if got := fmt.Sprint(err); (err != nil || test.err != "") && got != test.err {
				t.Errorf("the error is %s, want %s", got, test.err)
			}
		})
	}
}

type otherStep struct{}

func (otherStep) String() string { return "other" }

func TestDomain(t *testing.T) {
	t.Parallel()
	for resolv, want := range map[string]string{
		"nameserver 10.0.0.1\nsearch test.svc.cluster.example svc.cluster.example\n": "cluster.example",
		"search other.svc.wrong test.svc.right. x\noptions ndots:5\n":                "right",
		"search example.com\n":  "cluster.local",
		"search test.svc.\n":    "cluster.local",
		"nameserver 10.0.0.1\n": "cluster.local",
		"search\n":              "cluster.local",
		"":                      "cluster.local",
	} {
		if got := kube.Domain(resolv, "test"); got != want {
			t.Errorf("of %q it is %s, want %s", resolv, got, want)
		}
	}
}
