package localmodel

import (
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
	"text/tabwriter"
	"time"

	"charmhub.io/postgresql-k8s/tests/localmodel/kubeapi"
)

// A StatusValue is a status, with its words and its age.
type StatusValue struct {
	Status  string    `json:"status"`
	Message string    `json:"message"`
	Since   time.Time `json:"since"`
}

func newStatus(status, message string) StatusValue { return StatusValue{status, message, time.Now()} }

func unset() StatusValue { return newStatus("unset", "") }

// setAgent sets the status of the unit's agent.
func (u *Unit) setAgent(status StatusValue) {
	if u.agent.Status != status.Status || u.agent.Message != status.Message {
		u.agent = status
		u.app.model.notify()
	}
}

// Status is the model as juju status shows it.
type Status struct {
	Model     string           `json:"model"`
	Apps      []AppStatus      `json:"applications"`
	Relations []RelationStatus `json:"relations"`
}

// AppStatus is an application in Status.
type AppStatus struct {
	Name    string       `json:"name"`
	Charm   string       `json:"charm"`
	Version string       `json:"version"`
	Rev     int          `json:"revision"`
	Scale   int          `json:"scale"`
	Address string       `json:"address"`
	Status  StatusValue  `json:"status"`
	Dying   bool         `json:"dying"`
	Units   []UnitStatus `json:"units"`
}

// UnitStatus is a unit in AppStatus.
type UnitStatus struct {
	Name     string      `json:"name"`
	Leader   bool        `json:"leader"`
	Address  string      `json:"address"`
	Ports    []string    `json:"ports"`
	Workload StatusValue `json:"workload"`
	Agent    StatusValue `json:"agent"`
	Ready    bool        `json:"ready"`
	Revision int         `json:"revision"` // of the charm in the pod
}

// RelationStatus is a relation in Status.
type RelationStatus struct {
	ID        int    `json:"id"`
	Provider  string `json:"provider"`
	Requirer  string `json:"requirer"`
	Interface string `json:"interface"`
	Type      string `json:"type"`
	Dying     bool   `json:"dying"`
}

// Status returns the model's status.
func (m *Model) Status() Status {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.status()
}

func (m *Model) status() Status {
	s := Status{Model: m.opts.Name}
	for _, name := range sortedKeys(m.apps) {
		s.Apps = append(s.Apps, m.apps[name].describe())
	}
	for _, id := range slices.Sorted(maps.Keys(m.relations)) {
		r := m.relations[id]
		first, last := r.ends[0], r.ends[len(r.ends)-1]
		kind := "regular"
		if r.isPeer() {
			kind = "peer"
		}
		s.Relations = append(s.Relations, RelationStatus{
			id, first.app.name + ":" + first.name, last.app.name + ":" + last.name, r.iface, kind, r.life != alive,
		})
	}
	return s
}

func (a *Application) describe() AppStatus {
	s := AppStatus{
		Name: a.name, Charm: a.charm.Meta.Name, Version: a.version, Rev: a.revision - 1, Scale: a.want,
		Address: a.model.serviceAddress(a), Status: a.shownStatus(), Dying: a.life != alive,
	}
	for _, u := range a.units {
		unit := UnitStatus{
			Name: u.name, Leader: u.isLeader(), Address: u.address(), Workload: u.status, Agent: u.agent,
			Ready: u.ready, Revision: u.made.revision,
		}
		if u.failed != nil {
			unit.Workload = u.agent // as Juju shows a failed hook
		}
		for _, ports := range a.ports {
			unit.Ports = append(unit.Ports, ports...)
		}
		slices.Sort(unit.Ports)
		unit.Ports = slices.Compact(unit.Ports)
		s.Units = append(s.Units, unit)
	}
	return s
}

// severity orders statuses from the one that hides all others.
var severity = []string{"error", "blocked", "maintenance", "waiting", "active", "terminated", "unknown"}

// shownStatus is the application's own status, or the worst of its units'.
func (a *Application) shownStatus() StatusValue {
	if a.status.Status != "unset" {
		return a.status
	}
	worst := newStatus("unknown", "")
	for _, u := range a.units {
		status := u.status
		if u.failed != nil {
			status = u.agent
		}
		if slices.Index(severity, status.Status) < slices.Index(severity, worst.Status) {
			worst = status
		}
	}
	return worst
}

// App finds an application in the status, or one without units.
func (s Status) App(name string) AppStatus {
	for _, app := range s.Apps {
		if app.Name == name {
			return app
		}
	}
	return AppStatus{}
}

// Settled tells whether an application has so many units, all active and idle.
func (s Status) Settled(app string, units int) bool {
	of := s.App(app)
	if len(of.Units) != units {
		return false
	}
	for _, u := range of.Units {
		if u.Workload.Status != "active" || u.Agent.Status != "idle" {
			return false
		}
	}
	return true
}

// String is the status as juju status --relations prints it.
func (s Status) String() string {
	var out strings.Builder
	table := func(rows func(row func(cells ...string))) {
		w := tabwriter.NewWriter(&out, 0, 8, 2, ' ', 0)
		rows(func(cells ...string) { _, _ = fmt.Fprintln(w, strings.Join(cells, "\t")) })
		_ = w.Flush()
	}
	table(func(row func(...string)) {
		row("Model", "Controller", "Cloud/Region", "Version", "Timestamp")
		row(s.Model, "localmodel", "localmodel", AgentVersion, time.Now().Format("15:04:05Z07:00"))
	})
	out.WriteString("\n")
	if len(s.Apps) == 0 {
		fmt.Fprintf(&out, "Model %q is empty.\n", s.Model)
		return out.String()
	}
	table(func(row func(...string)) {
		row("App", "Version", "Status", "Scale", "Charm", "Channel", "Rev", "Address", "Exposed", "Message")
		for _, a := range s.Apps {
			scale := strconv.Itoa(a.Scale)
			if len(a.Units) != a.Scale {
				scale = fmt.Sprintf("%d/%d", len(a.Units), a.Scale)
			}
			row(a.Name, a.Version, a.Status.Status, scale, a.Charm, "", strconv.Itoa(a.Rev), a.Address, "no", a.Status.Message)
		}
	})
	out.WriteString("\n")
	table(func(row func(...string)) {
		row("Unit", "Workload", "Agent", "Address", "Ports", "Message")
		for _, a := range s.Apps {
			for _, u := range a.Units {
				name, message := u.Name, u.Workload.Message
				if u.Leader {
					name += "*"
				}
				if u.Agent.Status == "executing" {
					message = strings.TrimSpace("(" + strings.TrimPrefix(u.Agent.Message, "running ") + ") " + message)
				}
				row(name, u.Workload.Status, u.Agent.Status, u.Address, strings.ToUpper(strings.Join(u.Ports, ",")), message)
			}
		}
	})
	if len(s.Relations) > 0 {
		out.WriteString("\n")
		table(func(row func(...string)) {
			row("Integration provider", "Requirer", "Interface", "Type", "Message")
			for _, r := range s.Relations {
				message := ""
				if r.Dying {
					message = "dying"
				}
				row(r.Provider, r.Requirer, r.Interface, r.Type, message)
			}
		})
	}
	return out.String()
}

// UnitData is what juju show-unit tells of one relation of a unit.
type UnitData struct {
	RelationID  int                          `json:"relation-id"`
	Endpoint    string                       `json:"endpoint"`
	Related     string                       `json:"related-endpoint"`
	Application map[string]string            `json:"application-data"`
	Local       map[string]string            `json:"local-unit,omitempty"`
	Units       map[string]map[string]string `json:"related-units"`
	Own         map[string]string            `json:"own-application-data"`
}

// ShowUnit returns the databags of a unit's relations.
func (m *Model) ShowUnit(name string) ([]UnitData, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	u, err := m.unit(name)
	if err != nil {
		return nil, err
	}
	var all []UnitData
	for _, id := range slices.Sorted(maps.Keys(m.relations)) {
		r := m.relations[id]
		if r.end(u.app) == nil {
			continue
		}
		other := r.other(u.app)
		data := UnitData{
			RelationID: id, Endpoint: r.end(u.app).name, Related: other.name,
			Application: maps.Clone(r.bag(other.app.name).values),
			Own:         maps.Clone(r.bag(u.app.name).values),
			Local:       maps.Clone(r.bag(u.name).values),
			Units:       map[string]map[string]string{},
		}
		for _, unit := range r.remoteUnits(u) {
			data.Units[unit.name] = maps.Clone(r.bag(unit.name).values)
		}
		all = append(all, data)
	}
	return all, nil
}

// serviceAddress is the address of an application's own Service.
func (m *Model) serviceAddress(a *Application) string {
	service := m.store.Get("services", m.opts.Name, a.name)
	spec, _ := service["spec"].(kubeapi.Object)
	address, _ := spec["clusterIP"].(string)
	return address
}

// updateServicePorts tells Kubernetes which ports the charm has opened.
func (a *Application) updateServicePorts() {
	var all []string
	for _, ports := range a.ports {
		all = append(all, ports...)
	}
	slices.Sort(all)
	var ports []any
	for _, port := range slices.Compact(all) {
		number, protocol, _ := strings.Cut(port, "/")
		n, _ := strconv.Atoi(number)
		ports = append(ports, kubeapi.Object{
			"name": "juju-" + number + "-" + protocol, "port": float64(n), "protocol": strings.ToUpper(protocol),
		})
	}
	if ports == nil {
		ports = []any{kubeapi.Object{"name": "placeholder", "port": float64(65535)}}
	}
	_, _ = a.model.store.Change("services", a.model.opts.Name, a.name, func(service kubeapi.Object) (kubeapi.Object, error) {
		spec, _ := service["spec"].(kubeapi.Object)
		spec["ports"] = ports
		return service, nil
	})
}
