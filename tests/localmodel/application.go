package localmodel

import (
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"time"

	"charmhub.io/postgresql-k8s/tests/localmodel/kubeapi"
)

// life is where a thing is between its making and its end.
type life string

const (
	alive life = "alive"
	dying life = "dying"
)

// An Application is a deployed charm.
type Application struct {
	model    *Model
	name     string
	life     life
	template                // of new pods
	config   map[string]any // what the user set
	trust    bool
	token    string // of its service account
	uid      string // of its StatefulSet
	want     int    // units
	units    []*Unit
	leader   *Unit
	status   StatusValue
	version  string
	ports    map[string][]string // endpoint to "5432/tcp"
	stub     *Stub               // of one that has no charm
}

// A template is what pods are made from.
type template struct {
	charm    *Charm
	revision int               // counts deploy and refreshes
	images   map[string]string // root file systems by resource
}

// Deployment says what to deploy.
type Deployment struct {
	Charm  string // path of a packed charm, or of a directory with one's contents
	Name   string // the charm's if empty
	Units  int    // 1 if zero
	Trust  bool
	Config map[string]any
	Images map[string]string // root file systems by resource
}

// Deploy adds an application.
func (m *Model) Deploy(d Deployment) error {
	charm, err := OpenCharm(d.Charm)
	if err != nil {
		return err
	}
	d.Name = cmpOr(d.Name, charm.Meta.Name)
	d.Units = cmpOr(d.Units, 1)
	for name := range charm.Meta.Resources {
		if charm.Meta.Resources[name].Type == "oci-image" && d.Images[name] == "" {
			return fmt.Errorf("cannot deploy %s: resource %s is missing", d.Name, name)
		}
	}
	return m.do(func() error {
		if m.apps[d.Name] != nil {
			return fmt.Errorf("cannot deploy %s: application already exists", d.Name)
		}
		app := &Application{
			model: m, name: d.Name, life: alive, template: template{charm, 1, d.Images},
			config: map[string]any{}, trust: d.Trust, token: newUUID(), want: d.Units,
			status: unset(), ports: map[string][]string{},
		}
		if err := app.setConfig(d.Config); err != nil {
			return err
		}
		if err := app.makeObjects(); err != nil {
			return fmt.Errorf("cannot deploy %s: %w", d.Name, err)
		}
		m.apps[d.Name] = app
		m.tokens[app.token] = app
		for name, meta := range charm.Meta.Peers {
			m.addRelation(meta.Interface, &end{app: app, name: name, role: peer})
		}
		return app.scale()
	})
}

func cmpOr[T comparable](value, otherwise T) T {
	var zero T
	if value == zero {
		return otherwise
	}
	return value
}

// makeObjects makes the Kubernetes objects that Juju makes for an application.
func (a *Application) makeObjects() error {
	space := a.model.opts.Name
	juju := kubeapi.Object{"app.kubernetes.io/name": a.name, "app.kubernetes.io/managed-by": "juju"}
	own := kubeapi.Object{"app.kubernetes.io/name": a.name}
	set, err := a.model.store.Create("statefulsets", space, kubeapi.Object{
		"metadata": kubeapi.Object{"name": a.name, "labels": juju},
		"spec": kubeapi.Object{
			"serviceName": a.name + "-endpoints", "replicas": a.want, "podManagementPolicy": "Parallel",
			"selector":       kubeapi.Object{"matchLabels": own},
			"updateStrategy": kubeapi.Object{"type": "RollingUpdate", "rollingUpdate": kubeapi.Object{"partition": 0}},
			"template": kubeapi.Object{
				"metadata": kubeapi.Object{"labels": own},
				"spec":     kubeapi.Object{"terminationGracePeriodSeconds": 30},
			},
		},
		"status": kubeapi.Object{"currentRevision": a.hash(), "updateRevision": a.hash()},
	})
	if err != nil {
		return err
	}
	meta, _ := set["metadata"].(kubeapi.Object)
	a.uid, _ = meta["uid"].(string)
	for name, spec := range map[string]kubeapi.Object{
		a.name:                {"type": "ClusterIP", "selector": own, "ports": []any{kubeapi.Object{"name": "placeholder", "port": 65535}}},
		a.name + "-endpoints": {"clusterIP": "None", "selector": own, "publishNotReadyAddresses": true},
	} {
		_, err := a.model.store.Create("services", space, kubeapi.Object{
			"metadata": kubeapi.Object{"name": name, "labels": juju}, "spec": spec,
		})
		if err != nil {
			return err
		}
	}
	return nil
}

// deleteObjects deletes what makeObjects made, and so what the charm's own
// objects are owned by.
func (a *Application) deleteObjects() {
	space := a.model.opts.Name
	// Without the lock: the store tells the model of the pods that go.
	go func() {
		for _, object := range [][2]string{{"services", a.name}, {"services", a.name + "-endpoints"}, {"statefulsets", a.name}} {
			_, _ = a.model.store.Delete(object[0], space, object[1], nil)
		}
	}()
}

// scale makes units or lets the last ones die until there are as many as wanted.
func (a *Application) scale() error {
	_, err := a.model.store.Change("statefulsets", a.model.opts.Name, a.name, func(set kubeapi.Object) (kubeapi.Object, error) {
		spec, _ := set["spec"].(kubeapi.Object)
		spec["replicas"] = float64(a.want)
		return set, nil
	})
	if err != nil {
		return err
	}
	for len(a.units) < a.want {
		u := a.newUnit(len(a.units))
		a.units = append(a.units, u)
		if a.leader == nil {
			a.leader = u
		}
		a.model.agents.Go(u.run)
	}
	for _, u := range a.units[a.want:] {
		u.life = dying
	}
	return nil
}

// AddUnit adds units to an application.
func (m *Model) AddUnit(name string, count int) error {
	return m.scaleBy(name, count)
}

// RemoveUnit removes the last units of an application.
func (m *Model) RemoveUnit(name string, count int) error {
	return m.scaleBy(name, -count)
}

func (m *Model) scaleBy(name string, by int) error {
	return m.do(func() error {
		app, err := m.app(name)
		if err != nil {
			return fmt.Errorf("cannot scale: %w", err)
		}
		for _, u := range app.units {
			if u.life == dying {
				return fmt.Errorf("cannot scale %s: %s is still leaving", name, u.name)
			}
		}
		if app.want+by < 0 {
			return fmt.Errorf("cannot scale %s: it has %d units", name, app.want)
		}
		app.want += by
		return app.scale()
	})
}

// RemoveApplication lets an application's units and relations end, and then it.
func (m *Model) RemoveApplication(name string) error {
	return m.do(func() error {
		app, err := m.app(name)
		if err != nil {
			return fmt.Errorf("cannot remove: %w", err)
		}
		if app.stub != nil {
			return fmt.Errorf("cannot remove %s: stubs stay, remove its relations", name)
		}
		app.life, app.want = dying, 0
		for _, r := range m.relations {
			if r.end(app) != nil {
				r.life = dying
				r.leaveStubs()
			}
		}
		if len(app.units) == 0 {
			app.forget()
		}
		return app.scale()
	})
}

// forget takes a dead application out of the model.
func (a *Application) forget() {
	a.deleteObjects()
	for id, r := range a.model.relations {
		if r.end(a) != nil {
			delete(a.model.relations, id)
		}
	}
	for id, s := range a.model.secrets {
		if s.owner == a.name {
			delete(a.model.secrets, id)
		}
	}
	for id, s := range a.model.storages {
		if s.app == a.name {
			delete(a.model.storages, id)
			_ = os.RemoveAll(s.Dir)
		}
	}
	delete(a.model.tokens, a.token)
	delete(a.model.apps, a.name)
}

// SetConfig sets options of an application; nil resets one to its default.
func (m *Model) SetConfig(name string, values map[string]any) error {
	return m.do(func() error {
		app, err := m.app(name)
		if err != nil {
			return fmt.Errorf("cannot configure: %w", err)
		}
		return app.setConfig(values)
	})
}

func (a *Application) setConfig(values map[string]any) error {
	checked := maps.Clone(a.config)
	for name, value := range values {
		option, known := a.charm.Options[name]
		if !known {
			return fmt.Errorf("cannot configure %s: unknown option %q", a.name, name)
		}
		if value == nil {
			delete(checked, name)
			continue
		}
		typed, err := option.parse(value)
		if err != nil {
			return fmt.Errorf("cannot configure %s: option %q: %w", a.name, name, err)
		}
		checked[name] = typed
	}
	a.config = checked
	return nil
}

// parse gives a value its option's type.
func (o Option) parse(value any) (any, error) {
	text := fmt.Sprint(value)
	switch o.Type {
	case "int":
		if f, isFloat := value.(float64); isFloat && f == float64(int64(f)) {
			return int64(f), nil
		}
		n, err := strconv.ParseInt(text, 10, 64)
		if err != nil {
			return nil, fmt.Errorf("expected int, got %q", text)
		}
		return n, nil
	case "float":
		f, err := strconv.ParseFloat(text, 64)
		if err != nil {
			return nil, fmt.Errorf("expected float, got %q", text)
		}
		return f, nil
	case "boolean":
		b, err := strconv.ParseBool(text)
		if err != nil {
			return nil, fmt.Errorf("expected boolean, got %q", text)
		}
		return b, nil
	}
	return text, nil
}

// settings are the options' values as config-get --all shows them.
func (a *Application) settings() map[string]any {
	all := map[string]any{}
	for name, option := range a.charm.Options {
		all[name] = option.Default
	}
	maps.Copy(all, a.config)
	return all
}

// Config returns an application's configuration.
func (m *Model) Config(name string) (map[string]any, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	app, err := m.app(name)
	if err != nil {
		return nil, err
	}
	return app.settings(), nil
}

// SetTrust gives an application access to the Kubernetes API, or takes it away.
func (m *Model) SetTrust(name string, trust bool) error {
	return m.do(func() error {
		app, err := m.app(name)
		if err != nil {
			return fmt.Errorf("cannot trust: %w", err)
		}
		app.trust = trust
		return nil
	})
}

// SetLeader makes another unit the leader, as when the lease has run out.
func (m *Model) SetLeader(unit string) error {
	return m.do(func() error {
		u, err := m.unit(unit)
		if err != nil {
			return fmt.Errorf("cannot make leader: %w", err)
		}
		u.app.leader = u
		return nil
	})
}

// Refresh gives an application another charm, or other images. Its pods are
// replaced from the last to the first, each when the one before it is ready.
func (m *Model) Refresh(name, charmPath string, images map[string]string) error {
	charm, err := OpenCharm(charmPath)
	if err != nil {
		return err
	}
	return m.do(func() error {
		app, err := m.app(name)
		if err != nil {
			return fmt.Errorf("cannot refresh: %w", err)
		}
		all := maps.Clone(app.images)
		maps.Copy(all, images)
		app.template = template{charm, app.revision + 1, all}
		_, err = m.store.Change("statefulsets", m.opts.Name, name, func(set kubeapi.Object) (kubeapi.Object, error) {
			status, _ := set["status"].(kubeapi.Object)
			status["updateRevision"] = app.hash()
			return set, nil
		})
		m.agents.Go(func() { app.rollOut(app.revision) })
		return err
	})
}

// hash names the template as the controller of StatefulSets does.
func (a *Application) hash() string { return hash(a, a.template) }

func hash(a *Application, t template) string { return fmt.Sprint(a.name, "-", t.revision) }

// rollOut replaces pods that do not have the revision yet, as a StatefulSet
// does: last first, down to its partition, each when all after it are ready.
func (a *Application) rollOut(revision int) {
	m := a.model
	for {
		m.mu.Lock()
		changed := m.changed
		next, done := a.nextToReplace(revision)
		m.mu.Unlock()
		if done {
			return
		}
		if next != nil {
			next.replacePod(m.opts.Timing.Grace)
			continue
		}
		select {
		case <-changed:
		case <-m.after(100 * time.Millisecond): // readiness and the partition are Kubernetes'
		case <-m.ctx.Done():
			return
		}
	}
}

func (a *Application) nextToReplace(revision int) (next *Unit, done bool) {
	if a.revision != revision || a.life != alive {
		return nil, true
	}
	for _, u := range slices.Backward(a.units) {
		switch {
		case u.made.revision == revision && !u.podReady():
			return nil, false
		case u.made.revision == revision:
		case u.ordinal < a.partition():
			return nil, false
		default:
			return u, false
		}
	}
	return nil, true
}

// partition is the ordinal below which the StatefulSet leaves pods alone.
func (a *Application) partition() int {
	set := a.model.store.Get("statefulsets", a.model.opts.Name, a.name)
	for _, field := range []string{"spec", "updateStrategy", "rollingUpdate"} {
		set, _ = set[field].(kubeapi.Object)
	}
	switch n := set["partition"].(type) {
	case float64:
		return int(n)
	case int:
		return n
	}
	return 0
}

// imageOf is a container's root file system.
func (t template) imageOf(container string) string {
	return t.images[t.charm.Meta.Containers[container].Resource]
}

// storageDir is where a storage of a unit is kept.
func (m *Model) storageDir(id string) string {
	return filepath.Join(m.opts.Dir, "storage", filepath.FromSlash(id))
}
