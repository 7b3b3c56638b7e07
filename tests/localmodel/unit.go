package localmodel

import (
	"fmt"
	"os"
	"os/exec"
	"slices"
	"syscall"
	"time"

	"charmhub.io/postgresql-k8s/tests/localmodel/kubeapi"
)

// A Unit is one instance of an application: a pod, and an agent that runs the
// charm's hooks in it, one at a time.
type Unit struct {
	app     *Application
	ordinal int
	name    string
	life    life

	// The pod, and the charm in it.
	pod       Pod
	podUID    string
	born      time.Time // of the pod
	made      template  // what the pod was made from
	charmless bool      // the pod was made again from an old template: its agent waits for the next
	podEnd    func()    // ends what watches the pod
	downSince time.Time // of the agent; zero when it runs
	cutSince  time.Time // of the agent, from the controller; zero when it reaches it
	replacing *replacement
	running   *exec.Cmd // the dispatch

	storageWait time.Duration // so long the agent does not know of its storages

	// What the agent has done. It survives the pod, as the controller keeps it.
	installed   bool
	started     bool // the start hook ran in this pod
	everStarted bool
	stopped     bool
	gone        bool
	queued      []string // hooks that come before all others
	again       *Hook    // was killed, is run again at once
	failed      *failure // nothing but actions until its hook succeeds
	leaderSeen  bool
	configSeen  string
	relations   map[int]*unitRelation
	expiredTold map[string]int // secrets' revisions
	updateDue   time.Time

	workload chan *Hook // from the watchers of Pebble; taken one at a time
	waiting  *Hook      // the one that was taken
	actions  []*Action
	execs    []*Exec

	// What the charm has told.
	agent  StatusValue
	status StatusValue
	ready  bool // the charm container, for Kubernetes
	state  map[string]string
}

// failure is a hook that failed, and when to try it again.
type failure struct {
	hook     *Hook
	attempts int
	retry    time.Time
}

// replacement is a pod on its way out.
type replacement struct {
	deadline time.Time
	stop     bool          // the stop hook has had its chance
	ended    chan struct{} // closed when all containers have ended by themselves
	done     chan struct{} // closed when there is another pod
}

func (a *Application) newUnit(ordinal int) *Unit {
	return &Unit{
		app: a, ordinal: ordinal, name: fmt.Sprintf("%s/%d", a.name, ordinal), life: alive,
		relations: map[int]*unitRelation{}, expiredTold: map[string]int{},
		workload: make(chan *Hook), state: map[string]string{},
		agent: newStatus("allocating", ""), status: newStatus("waiting", "installing agent"),
		queued: []string{"install"},
	}
}

func (u *Unit) podName() string  { return fmt.Sprintf("%s-%d", u.app.name, u.ordinal) }
func (u *Unit) tag() string      { return "unit-" + u.podName() }
func (u *Unit) isLeader() bool   { return u.app.leader == u }
func (u *Unit) agentDir() string { return "/var/lib/juju/agents/" + u.tag() }
func (u *Unit) charmDir() string { return u.agentDir() + "/charm" }
func (u *Unit) toolsDir() string { return "/var/lib/juju/tools/" + u.tag() }

// run is the unit's agent, from the making of its pod to its end.
func (u *Unit) run() {
	m := u.app.model
	defer u.end()
	if err := m.do(u.claimStorages); err != nil {
		u.logError(err)
		return
	}
	if err := u.startPod(); err != nil {
		u.logError(err)
		return
	}
	for m.ctx.Err() == nil {
		// Retries, update-status, expiry. Time that passes from here on is noticed.
		look := m.after(200 * time.Millisecond)
		m.mu.Lock()
		hook := u.nextHook()
		changed, gone := m.changed, u.gone
		renew := hook == nil && u.replacing != nil
		if hook == nil && u.failed == nil && !renew {
			u.setAgent(newStatus("idle", ""))
		}
		m.mu.Unlock()
		switch {
		case gone:
			return
		case hook != nil:
			u.dispatch(hook)
		case renew:
			if err := u.renewPod(); err != nil {
				u.logError(err)
				return
			}
		default:
			u.sleep(changed, look)
		}
	}
}

// sleep waits for something to do.
func (u *Unit) sleep(changed <-chan struct{}, look <-chan time.Time) {
	select {
	case <-u.app.model.ctx.Done():
	case <-changed:
	case hook := <-u.workload:
		_ = u.app.model.do(func() error { u.waiting = hook; return nil })
	case <-look:
	}
}

func (u *Unit) logError(err error) {
	_ = u.app.model.do(func() error {
		u.setAgent(newStatus("error", err.Error()))
		u.app.model.logf(u.tag(), "ERROR", "juju.worker.uniter", "%v", err)
		return nil
	})
}

// nextHook finds what the agent does next, in the order that Juju's resolvers
// have.
func (u *Unit) nextHook() *Hook {
	switch {
	case u.replacing != nil:
		return u.dueReplacementStop()
	case !u.cutSince.IsZero(), u.charmless:
		return nil
	case u.again != nil:
		return u.again
	case u.failed != nil:
		return u.dueWhileFailed()
	case len(u.queued) > 0:
		return u.queuedHook()
	}
	u.enterScopes()
	for _, due := range []func() *Hook{
		u.dueCreated, u.dueLeader, u.dueWorkload, u.dueSecret, u.dueAction, u.dueExec,
		u.dueStorage, u.dueConfig, u.dueRelation, u.dueStop, u.dueUpdateStatus,
	} {
		if hook := due(); hook != nil {
			return hook
		}
	}
	return nil
}

func (u *Unit) dueReplacementStop() *Hook {
	if r := u.replacing; !r.stop && u.everStarted && !u.charmless && u.app.model.now().Before(r.deadline) {
		return &Hook{Name: "stop", done: func() { r.stop = true }, undo: func() { r.stop = true }}
	}
	return nil
}

// dueWhileFailed is what a unit in error does: actions, juju-exec, and the hook
// again when its time has come.
func (u *Unit) dueWhileFailed() *Hook {
	for _, due := range []func() *Hook{u.dueAction, u.dueExec} {
		if hook := due(); hook != nil {
			return hook
		}
	}
	if u.app.model.now().After(u.failed.retry) {
		return u.failed.hook
	}
	return nil
}

func (u *Unit) queuedHook() *Hook {
	hook := &Hook{Name: u.queued[0]}
	if hook.Name == "install" {
		hook.begin = func() { u.status = newStatus("maintenance", "installing charm software") }
	}
	seen := u.configHash()
	hook.done = func() {
		u.queued = u.queued[1:]
		switch hook.Name {
		case "install":
			u.installed = true
		case "config-changed":
			u.configSeen = seen
		case "start":
			u.started, u.everStarted, u.ready = true, true, true
			u.scheduleUpdateStatus()
		}
	}
	return hook
}

func (u *Unit) dueLeader() *Hook {
	if !u.isLeader() {
		u.leaderSeen = false
	}
	if u.isLeader() && !u.leaderSeen && u.life == alive {
		return &Hook{Name: "leader-elected", done: func() { u.leaderSeen = true }}
	}
	return nil
}

func (u *Unit) dueWorkload() *Hook {
	if u.waiting == nil {
		select {
		case u.waiting = <-u.workload:
		default:
		}
	}
	return u.waiting
}

// configHash changes with what makes Juju run config-changed.
func (u *Unit) configHash() string {
	return fmt.Sprint(u.app.settings(), u.app.trust, u.address())
}

func (u *Unit) address() string {
	if u.pod == nil {
		return ""
	}
	return u.pod.Address()
}

func (u *Unit) dueConfig() *Hook {
	hash := u.configHash()
	if u.life != alive || u.configSeen == hash {
		return nil
	}
	return &Hook{Name: "config-changed", done: func() {
		u.configSeen = hash
		if !u.started {
			u.queued = []string{"start"}
		}
	}}
}

// dueStop ends a dying unit that has left its storages and relations.
func (u *Unit) dueStop() *Hook {
	switch {
	case u.life == alive:
	case !u.stopped:
		return &Hook{Name: "stop", done: func() { u.stopped = true }}
	default:
		return &Hook{Name: "remove", done: func() { u.gone = true }}
	}
	return nil
}

func (u *Unit) dueUpdateStatus() *Hook {
	if u.started && !u.updateDue.IsZero() && !u.app.model.now().Before(u.updateDue) {
		return &Hook{Name: "update-status", done: u.scheduleUpdateStatus}
	}
	return nil
}

func (u *Unit) scheduleUpdateStatus() {
	every := u.app.model.opts.Timing.UpdateStatus
	u.updateDue = u.app.model.now().Add(every*8/10 + time.Duration(u.app.model.random.Int64N(int64(every)*4/10+1)))
}

// storageKnown tells whether the agent has learnt of its storages.
func (u *Unit) storageKnown() bool {
	return u.pod != nil && u.app.model.since(u.born) >= u.storageWait
}

// startPod makes the unit's pod and puts the charm into it.
func (u *Unit) startPod() error {
	m := u.app.model
	m.mu.Lock()
	held := u.pod != nil && u.made.revision != u.app.revision && u.ordinal < u.app.partition()
	if !held {
		u.made = u.app.template
	}
	made, spec := u.made, u.podSpec()
	m.mu.Unlock()

	if err := os.RemoveAll(spec.Dir); err != nil {
		return fmt.Errorf("cannot remove old pod: %w", err)
	}
	pod, err := m.opts.Pods.Start(spec)
	if err != nil {
		return fmt.Errorf("cannot start pod of %s: %w", u.name, err)
	}
	if !held {
		if err := u.installCharm(pod, made.charm); err != nil {
			return err
		}
	}
	uid, err := u.createPodObject(pod)
	if err != nil {
		return fmt.Errorf("cannot start pod of %s: %w", u.name, err)
	}
	return m.do(func() error {
		u.pod, u.podUID, u.charmless, u.born = pod, uid, held, m.now()
		u.storageWait = time.Duration(m.random.Int64N(int64(m.opts.Timing.StorageAttach) + 1))
		u.started, u.ready, u.downSince, u.cutSince = false, false, time.Time{}, time.Time{}
		u.watchPod()
		return nil
	})
}

func (u *Unit) installCharm(pod Pod, charm *Charm) error {
	if err := charm.Unpack(pod.Path(u.charmDir())); err != nil {
		return err
	}
	tools := pod.Path(u.toolsDir())
	if err := os.MkdirAll(tools, 0o755); err != nil {
		return fmt.Errorf("cannot install hook tools: %w", err)
	}
	return linkTools(tools, pod.Root()+"/charm/bin/inpod")
}

// podSpec says what the unit's pod is made of.
func (u *Unit) podSpec() PodSpec {
	spec := PodSpec{
		Dir: u.app.model.podDir(u), Name: u.podName(), Service: u.app.name + "-endpoints",
		Namespace: u.app.model.opts.Name, Token: u.app.token, Faults: u.app.model.pebbleFaults(u), Kill: u.killDispatch,
	}
	for _, s := range u.storageList() {
		spec.Mounts = append(spec.Mounts, Mount{s.Dir, u.app.charm.Meta.storageLocation(s.ID)})
	}
	for i, name := range sortedKeys(u.made.charm.Meta.Containers) {
		w := Workload{Name: name, Image: u.made.imageOf(name), Port: firstPebblePort + i}
		for _, mount := range u.made.charm.Meta.Containers[name].Mounts {
			if s := u.storage(mount.Storage); s != nil {
				w.Mounts = append(w.Mounts, Mount{s.Dir, mount.Location})
			}
		}
		spec.Workloads = append(spec.Workloads, w)
	}
	return spec
}

// replacePod ends the unit's pod, giving it so long to do that by itself, and
// returns when there is another.
func (u *Unit) replacePod(grace time.Duration) {
	m := u.app.model
	m.mu.Lock()
	if u.pod == nil || u.gone {
		m.mu.Unlock()
		return
	}
	r := u.replacing
	if r == nil {
		r = &replacement{
			deadline: m.now().Add(grace), stop: grace == 0,
			ended: make(chan struct{}), done: make(chan struct{}),
		}
		u.replacing = r
		pod := u.pod
		u.ready = false
		u.markTerminating(r.deadline)
		go func() {
			defer close(r.ended)
			pod.Terminate()
		}()
		if u.running != nil {
			_ = syscall.Kill(-u.running.Process.Pid, syscall.SIGTERM)
		}
		go func() {
			select {
			case <-r.done:
			case <-m.ctx.Done():
			case <-m.after(grace):
				_ = pod.Close()
			}
		}()
		m.notify()
	}
	m.mu.Unlock()
	select {
	case <-r.done:
	case <-m.ctx.Done():
	}
}

// renewPod is the agent's part in replacePod: the old pod ends, the new begins.
func (u *Unit) renewPod() error {
	m := u.app.model
	m.mu.Lock()
	old, uid, r := u.pod, u.podUID, u.replacing
	u.podEnd()
	u.downSince = m.now()
	m.mu.Unlock()

	select {
	case <-r.ended:
	case <-m.after(-m.since(r.deadline)):
	case <-m.ctx.Done():
	}
	_ = old.Close()
	u.deletePodObject(uid)
	if err := u.startPod(); err != nil {
		return err
	}
	return m.do(func() error {
		u.replacing, u.failed, u.again = nil, nil, nil
		if u.installed {
			u.queued = []string{"upgrade-charm", "config-changed", "start"}
		}
		close(r.done)
		return nil
	})
}

// end takes the unit out of the model, if it is gone and not just the model.
func (u *Unit) end() {
	m := u.app.model
	m.mu.Lock()
	pod, uid := u.pod, u.podUID
	if u.podEnd != nil {
		u.podEnd()
	}
	m.mu.Unlock()
	if pod != nil {
		_ = pod.Close()
	}
	if m.ctx.Err() != nil {
		return
	}
	u.deletePodObject(uid)
	_ = m.do(func() error {
		if !u.gone {
			return nil // could not start: stays as it is, for all to see
		}
		u.app.units = slices.DeleteFunc(u.app.units, func(other *Unit) bool { return other == u })
		for _, r := range m.relations {
			delete(r.inScope, u)
			m.forgetRelation(r)
		}
		if u.isLeader() {
			u.app.leader = nil
			u.app.elect()
		}
		for id, s := range m.secrets {
			if s.owner == u.name {
				delete(m.secrets, id)
			}
		}
		if u.app.life == dying && len(u.app.units) == 0 {
			u.app.forget()
		}
		return nil
	})
}

// renewLeases gives the leadership of agents that are down to others.
func (m *Model) renewLeases() {
	for {
		select {
		case <-m.ctx.Done():
			return
		case <-m.after(100 * time.Millisecond):
		}
		m.mu.Lock()
		for _, app := range m.apps {
			if l := app.leader; l == nil || l.silent(m.opts.Timing.Lease) {
				app.elect()
			}
		}
		m.mu.Unlock()
	}
}

// silent tells whether the controller has not heard of the agent for so long.
func (u *Unit) silent(lease time.Duration) bool {
	for _, since := range []time.Time{u.downSince, u.cutSince} {
		if !since.IsZero() && u.app.model.since(since) > lease {
			return true
		}
	}
	return false
}

// elect makes the first unit whose agent runs the leader.
func (a *Application) elect() {
	for _, u := range a.units {
		if u != a.leader && u.life == alive && u.downSince.IsZero() && u.cutSince.IsZero() && u.pod != nil {
			a.leader = u
			a.model.notify()
			return
		}
	}
}

// createPodObject tells the Kubernetes API of the pod.
func (u *Unit) createPodObject(pod Pod) (uid string, err error) {
	containers := []any{kubeapi.Object{"name": "charm", "image": "charm-base"}}
	for _, name := range sortedKeys(u.made.charm.Meta.Containers) {
		containers = append(containers, kubeapi.Object{"name": name, "image": u.made.imageOf(name)})
	}
	object, err := u.app.model.store.Create("pods", u.app.model.opts.Name, kubeapi.Object{
		"metadata": kubeapi.Object{
			"name": u.podName(),
			"labels": kubeapi.Object{
				"app.kubernetes.io/name": u.app.name, "statefulset.kubernetes.io/pod-name": u.podName(),
				"controller-revision-hash": hash(u.app, u.made),
			},
			"annotations": kubeapi.Object{"unit.juju.is/id": u.name},
			"ownerReferences": []any{kubeapi.Object{
				"apiVersion": "apps/v1", "kind": "StatefulSet", "name": u.app.name, "uid": u.app.uid, "controller": true,
			}},
		},
		"spec": kubeapi.Object{
			"nodeName": "localmodel", "hostname": u.podName(), "subdomain": u.app.name + "-endpoints",
			"terminationGracePeriodSeconds": 30, "serviceAccountName": u.app.name, "containers": containers,
		},
		"status": podStatus(pod.Address(), false),
	})
	if err != nil {
		return "", err
	}
	meta, _ := object["metadata"].(kubeapi.Object)
	uid, _ = meta["uid"].(string)
	return uid, nil
}

// podReady tells what the kubelet says of the pod.
func (u *Unit) podReady() bool {
	object := u.app.model.store.Get("pods", u.app.model.opts.Name, u.podName())
	status, _ := object["status"].(kubeapi.Object)
	conditions, _ := status["conditions"].([]any)
	return u.replacing == nil && slices.ContainsFunc(conditions, func(c any) bool {
		condition, _ := c.(kubeapi.Object)
		return condition["type"] == "Ready" && condition["status"] == "True"
	})
}

// markTerminating tells the Kubernetes API that the pod is to end.
func (u *Unit) markTerminating(deadline time.Time) {
	uid, address := u.podUID, u.address()
	_, _ = u.app.model.store.Change("pods", u.app.model.opts.Name, u.podName(), func(object kubeapi.Object) (kubeapi.Object, error) {
		meta, _ := object["metadata"].(kubeapi.Object)
		if meta["uid"] != uid {
			return nil, errGone
		}
		meta["deletionTimestamp"] = deadline.UTC().Format(time.RFC3339)
		object["status"] = podStatus(address, false)
		return object, nil
	})
}

func (u *Unit) deletePodObject(uid string) {
	_, _ = u.app.model.store.Delete("pods", u.app.model.opts.Name, u.podName(), func(object kubeapi.Object) error {
		if meta, _ := object["metadata"].(kubeapi.Object); meta["uid"] != uid {
			return errGone
		}
		return nil
	})
}

func podStatus(address string, ready bool) kubeapi.Object {
	condition := "False"
	if ready {
		condition = "True"
	}
	return kubeapi.Object{
		"phase": "Running", "podIP": address, "podIPs": []any{kubeapi.Object{"ip": address}}, "hostIP": "10.77.0.1",
		"conditions": []any{
			kubeapi.Object{"type": "PodScheduled", "status": "True"},
			kubeapi.Object{"type": "ContainersReady", "status": condition},
			kubeapi.Object{"type": "Ready", "status": condition},
		},
	}
}
