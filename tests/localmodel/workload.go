package localmodel

import (
	"context"
	"fmt"
	"net/http"
	"time"

	"github.com/canonical/pebble/client"

	"charmhub.io/postgresql-k8s/tests/localmodel/kubeapi"
)

// firstPebblePort is where the first workload container's Pebble serves HTTP.
const firstPebblePort = 38813

// watchPod starts what looks at a new pod until it ends: the agent's watchers
// of each Pebble, and the kubelet.
func (u *Unit) watchPod() {
	m := u.app.model
	ctx, cancel := context.WithCancel(m.ctx)
	u.podEnd = cancel
	u.waiting = nil // what the watchers before these had found
	pod := u.pod
	for i, name := range sortedKeys(u.app.charm.Meta.Containers) {
		if socket := pod.Pebble(name); socket != "" {
			w := &pebbleWatch{unit: u, container: name, socket: socket}
			m.agents.Go(func() { w.pollBoots(ctx) })
			m.agents.Go(func() { w.followNotices(ctx) })
			m.agents.Go(func() { u.keepAlive(ctx, pod, name, firstPebblePort+i) })
		}
	}
	m.agents.Go(func() { u.reportReadiness(ctx, pod) })
}

// raise lets the agent run a hook of Pebble's and waits for its end.
func (u *Unit) raise(ctx context.Context, h *Hook) error {
	h.took = make(chan error, 1)
	select {
	case u.workload <- h:
	case <-ctx.Done():
		return ctx.Err()
	}
	select {
	case err := <-h.took:
		return err
	case <-ctx.Done():
		return ctx.Err()
	}
}

// pebbleWatch is what an agent has for each workload container.
type pebbleWatch struct {
	unit      *Unit
	container string
	socket    string
}

// pollBoots raises pebble-ready for each new start of Pebble, and again when
// the hook has failed.
func (w *pebbleWatch) pollBoots(ctx context.Context) {
	var seen string
	for w.unit.app.model.pause(ctx, w.unit.app.model.opts.Timing.PebblePoll) {
		pebble, err := client.New(&client.Config{Socket: w.socket})
		if err != nil {
			continue
		}
		info, err := within(ctx, pebble.SysInfo)
		pebble.CloseIdleConnections()
		if err != nil || info.BootID == seen {
			continue
		}
		hook := &Hook{Name: w.container + "-pebble-ready", Workload: w.container}
		if w.unit.raise(ctx, hook) == nil {
			seen = info.BootID
		}
	}
}

// followNotices raises Pebble's notices as hooks. It asks as Juju does: for
// those of its own user, root, and for public ones.
func (w *pebbleWatch) followNotices(ctx context.Context) {
	var after time.Time
	for ctx.Err() == nil {
		pebble, err := client.New(&client.Config{Socket: w.socket})
		if err != nil {
			w.unit.app.model.pause(ctx, time.Second)
			continue
		}
		notices, err := pebble.WaitNotices(ctx, 30*time.Second, &client.NoticesOptions{
			Types: []client.NoticeType{client.CustomNotice, client.ChangeUpdateNotice}, After: after,
		})
		if err != nil {
			w.unit.app.model.pause(ctx, time.Second)
			continue
		}
		for _, notice := range notices {
			after = notice.LastRepeated
			hook := w.hookOf(ctx, pebble, notice)
			if hook == nil {
				continue
			}
			if err := w.unit.raise(ctx, hook); err != nil && ctx.Err() == nil {
				w.unit.restartAgent() // its noticer has died, and takes all with it
				after = time.Time{}
				break
			}
		}
	}
}

// within calls Pebble's client, which tries for 5 s whatever the context says when
// nobody answers, and returns when the context ends.
func within[T any](ctx context.Context, call func() (T, error)) (T, error) {
	type answer struct {
		value T
		err   error
	}
	answers := make(chan answer, 1)
	go func() {
		value, err := call()
		answers <- answer{value, err}
	}()
	select {
	case a := <-answers:
		return a.value, a.err
	case <-ctx.Done():
		var none T
		return none, ctx.Err()
	}
}

// hookOf is the hook that a notice causes, or nil.
func (w *pebbleWatch) hookOf(ctx context.Context, pebble *client.Client, notice *client.Notice) *Hook {
	hook := &Hook{Workload: w.container, NoticeID: notice.ID, NoticeType: string(notice.Type), NoticeKey: notice.Key}
	if notice.Type == client.CustomNotice {
		hook.Name = w.container + "-pebble-custom-notice"
		return hook
	}
	change, err := within(ctx, func() (*client.Change, error) { return pebble.Change(notice.Key) })
	if err != nil {
		return nil
	}
	hook = &Hook{Workload: w.container, Check: notice.LastData["check-name"]}
	switch {
	case change.Kind == "perform-check" && change.Status == "Error":
		hook.Name = w.container + "-pebble-check-failed"
	case change.Kind == "recover-check" && change.Status == "Done":
		hook.Name = w.container + "-pebble-check-recovered"
	default:
		return nil
	}
	return hook
}

// RestartAgent restarts a unit's agent: start, pebble-ready and all notices
// come again.
func (m *Model) RestartAgent(unit string) error {
	m.mu.Lock()
	u, err := m.unit(unit)
	m.mu.Unlock()
	if err != nil {
		return fmt.Errorf("cannot restart agent: %w", err)
	}
	u.restartAgent()
	return nil
}

func (u *Unit) restartAgent() {
	_ = u.app.model.do(func() error {
		if u.podEnd == nil || u.replacing != nil {
			return nil
		}
		u.podEnd()
		u.watchPod()
		if u.started && len(u.queued) == 0 {
			u.queued = []string{"start"}
		}
		return nil
	})
}

// keepAlive is the kubelet's liveness probe: three failures restart a container.
func (u *Unit) keepAlive(ctx context.Context, pod Pod, container string, port int) {
	failures := 0
	for u.app.model.pause(ctx, u.app.model.opts.Timing.Probe) {
		if healthy(ctx, pod.Address(), port, "alive") {
			failures = 0
		} else if failures++; failures == 3 {
			failures = 0
			_ = u.app.model.do(func() error {
				u.app.model.logf(u.tag(), "WARNING", "kubelet", "container %s failed its liveness probe and is restarted", container)
				return nil
			})
			pod.Restart(container)
		}
	}
}

// reportReadiness tells the Kubernetes API whether the pod is ready: its charm
// has started and its workloads say so.
func (u *Unit) reportReadiness(ctx context.Context, pod Pod) {
	was := false
	for u.app.model.pause(ctx, u.app.model.opts.Timing.Readiness) {
		u.app.model.mu.Lock()
		ready, uid := u.ready, u.podUID
		containers := sortedKeys(u.app.charm.Meta.Containers)
		u.app.model.mu.Unlock()
		for i, name := range containers {
			ready = ready && (pod.Pebble(name) == "" || healthy(ctx, pod.Address(), firstPebblePort+i, "ready"))
		}
		if ready == was || ctx.Err() != nil {
			continue
		}
		was = ready
		_, _ = u.app.model.store.Change("pods", u.app.model.opts.Name, u.podName(), func(object kubeapi.Object) (kubeapi.Object, error) {
			if meta, _ := object["metadata"].(kubeapi.Object); meta["uid"] != uid {
				return nil, errGone
			}
			object["status"] = podStatus(pod.Address(), ready)
			return object, nil
		})
	}
}

func healthy(ctx context.Context, address string, port int, level string) bool {
	ctx, cancel := context.WithTimeout(ctx, time.Second)
	defer cancel()
	url := fmt.Sprintf("http://%s:%d/v1/health?level=%s", address, port, level)
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return false
	}
	resp, err := probes.Do(req)
	if err != nil {
		return false
	}
	_ = resp.Body.Close()
	return resp.StatusCode == http.StatusOK
}

var probes = &http.Client{Transport: &http.Transport{DisableKeepAlives: true}}

// pause waits, and tells whether the context goes on.
func (m *Model) pause(ctx context.Context, wait time.Duration) bool {
	select {
	case <-m.after(wait):
		return true
	case <-ctx.Done():
		return false
	}
}
