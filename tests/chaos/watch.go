package main

import (
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"net"
	"net/http"
	"slices"
	"sync"
	"time"
)

// look is the time between two looks at what can be seen at little cost, and
// lookMember at what a Patroni has to answer.
const (
	look       = 50 * time.Millisecond
	lookMember = 100 * time.Millisecond
)

// A sighting is a value that something has from then on.
type sighting struct {
	at    time.Time
	value string
}

// A timeline is how values have changed.
type timeline struct {
	note func(who, text string) // for the journal

	mu   sync.Mutex
	seen map[string][]sighting
}

// see notes the value that something has now.
func (t *timeline) see(what, value string) {
	t.mu.Lock()
	old := t.seen[what]
	changed := len(old) == 0 || old[len(old)-1].value != value
	if changed {
		t.seen[what] = append(old, sighting{time.Now(), value})
	}
	t.mu.Unlock()
	if changed {
		t.note(what, cmp.Or(value, "none"))
	}
}

// now is the last value.
func (t *timeline) now(what string) string {
	t.mu.Lock()
	defer t.mu.Unlock()
	if of := t.seen[what]; len(of) > 0 {
		return of[len(of)-1].value
	}
	return ""
}

// since tells from when on something has had the value that it had at a time.
func (t *timeline) since(what string, at time.Time) (value string, from time.Time) {
	t.mu.Lock()
	defer t.mu.Unlock()
	for _, s := range t.seen[what] {
		if !s.at.After(at) {
			value, from = s.value, s.at
		}
	}
	return value, from
}

// first tells when something first got a value that is meant, from a time on.
func (t *timeline) first(what string, from time.Time, meant func(string) bool) (at time.Time, found bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	for _, s := range t.seen[what] {
		if !s.at.Before(from) && meant(s.value) {
			return s.at, true
		}
	}
	return time.Time{}, false
}

// What is watched. Of a member, the pod's name follows.
const (
	theHolder  = "lock"        // the pod that holds Patroni's lock
	theLocked  = "lock at"     // its address
	thePrimary = "primary at"  // that address, once the server there takes writes
	theDatabag = "endpoints"   // what the client is told
	theMember  = "member "     // what a Patroni says of itself
	thePostgre = "postmaster " // since when it runs
)

// A watcher looks at the world until its context ends.
type watcher struct {
	world
	*timeline

	mu      sync.Mutex
	members map[string]member // by pod
	watched map[string]bool
}

func (w *watcher) run(ctx context.Context) {
	go func() {
		for pause(ctx, look) {
			if told, err := w.endpoints(ctx); err == nil {
				w.see(theDatabag, told)
			}
		}
	}()
	for pause(ctx, look) {
		k := w.kubernetes()
		w.see(theHolder, k.holder)
		w.see(theLocked, k.addresses[k.holder])
		w.mu.Lock()
		for pod := range w.members {
			if _, there := k.addresses[pod]; !there {
				delete(w.members, pod)
			}
		}
		for pod := range k.addresses {
			if !w.watched[pod] {
				w.watched[pod] = true
				go w.watchMember(ctx, pod)
			}
		}
		w.mu.Unlock()
	}
}

// watchMember asks a pod's Patroni again and again how it is.
func (w *watcher) watchMember(ctx context.Context, pod string) {
	for pause(ctx, lookMember) {
		k := w.kubernetes()
		if k.addresses[pod] == "" {
			continue
		}
		m := askMember(ctx, k.addresses[pod])
		w.mu.Lock()
		w.members[pod] = m
		w.mu.Unlock()
		w.see(theMember+pod, m.String())
		if m.started != "" {
			w.see(thePostgre+pod, m.started)
		}
		if k.holder != pod {
			continue
		}
		if m.isPrimary() {
			w.see(thePrimary, m.address)
		} else {
			w.see(thePrimary, "")
		}
	}
}

// all returns what the members said last, by pod.
func (w *watcher) all() map[string]member {
	w.mu.Lock()
	defer w.mu.Unlock()
	return maps.Clone(w.members)
}

// member is what a Patroni says of itself.
type member struct {
	address     string // of the pod
	state, role string
	replication string // streaming
	timeline    int
	started     string // the postmaster
}

func (m member) isPrimary() bool {
	return m.state == "running" && slices.Contains([]string{"primary", "master"}, m.role)
}

func (m member) streams() bool { return m.role == "replica" && m.replication == "streaming" }

// String says what matters of it.
func (m member) String() string {
	text := fmt.Sprintf("%s %s", m.role, cmp.Or(m.replication, m.state))
	if m.timeline != 0 {
		text += fmt.Sprintf(", timeline %d", m.timeline)
	}
	return text
}

var patroniClient = &http.Client{Timeout: time.Second, Transport: &http.Transport{DisableKeepAlives: true}}

// askMember asks the Patroni at an address; one that does not answer is silent.
func askMember(ctx context.Context, address string) member {
	m := member{address: address, state: "silent"}
	body, err := get(ctx, address, "/patroni")
	if err != nil {
		return m
	}
	var answer struct {
		State, Role string
		Replication string `json:"replication_state"`
		Timeline    int
		Started     string `json:"postmaster_start_time"`
	}
	if json.Unmarshal(body, &answer) != nil {
		return m
	}
	return member{address, answer.State, answer.Role, answer.Replication, answer.Timeline, answer.Started}
}

// get asks a Patroni; the status code says what health checks want to know, no
// more.
func get(ctx context.Context, address, path string) ([]byte, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+net.JoinHostPort(address, "8008")+path, nil)
	if err != nil {
		return nil, err
	}
	resp, err := patroniClient.Do(req)
	if err != nil {
		return nil, err
	}
	defer resp.Body.Close()
	var body json.RawMessage
	err = json.NewDecoder(resp.Body).Decode(&body)
	return body, err
}

// podsOf are the names of pods, in order.
func podsOf[V any](byPod map[string]V) []string { return slices.Sorted(maps.Keys(byPod)) }
