package state

import (
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"charmhub.io/postgresql-k8s/charm/config"
)

// Observed is everything that one dispatch knows. The first group is known from
// the environment and from Juju; the rest comes from systems that may be away,
// and is then unknown.
type Observed struct {
	Now     time.Time
	Unit    Unit
	Event   Event
	Leader  bool
	Leaving bool // this unit is on its way out of the application
	// Units are the names of the application's units that Juju means to keep. Only
	// the leader and a unit on its way out look.
	Units Known[[]string]

	Config  config.Values
	Secrets map[string]Secret // by label
	// Params are the parameters of the action, as text: one may be a password.
	Params    map[string]Redacted
	Relations Relations
	Clients   map[int]Client    // what the leaders did for client relations so far, by relation id
	Ports     []int             // opened, TCP
	Memory    map[string]string // Juju's per-unit state: facts that nothing else lets us observe

	Workload Known[Workload]
	Cluster  Known[Cluster]
	// Silent tells that this unit's Patroni is there, and does not answer: its server may
	// be frozen.
	Silent   bool
	Database Known[Catalog]
	// Users are the system users as the server has them. Only the primary's unit looks.
	Users Known[map[string]Role]
	// Refused tells that the primary's server refuses the operator user's password.
	// Only the leader and the primary's unit try.
	Refused bool
	// Streaming are the members that follow the primary, sorted, as its server says:
	// Patroni goes on showing what a member that is cut off has last said of itself.
	// Only the leader and the primary's unit look.
	Streaming Known[[]string]
	// Cloned is how much of the primary's data this member has copied, in percent.
	Cloned Known[int]
	Kube   Known[Kube]
	// Forbidden tells that Kubernetes refused a right that the charm needs.
	Forbidden bool
}

// Unit is this unit and where it lives.
type Unit struct {
	Name      string // postgresql-k8s/0
	App       string // postgresql-k8s
	Number    int    // 0
	Model     string // name of the model, which is the namespace
	ModelUUID string
	CharmDir  string
}

// Pod is the name of the unit's pod, which is also its Patroni member name.
func (u Unit) Pod() string { return PodName(u.App, u.Number) }

// Host is the stable DNS name of the unit's pod within its namespace: the
// headless Service of the StatefulSet publishes it, ready or not.
func (u Unit) Host() string { return u.Pod() + "." + u.App + "-endpoints" }

// Scope is Patroni's name for the cluster of this application.
func (u Unit) Scope() string { return "patroni-" + u.App }

// Labels are those by which Patroni finds the pods and objects of its cluster.
func (u Unit) Labels() map[string]string {
	return map[string]string{"application": "patroni", "cluster-name": u.Scope()}
}

// PeerSecret is the label of the secret that holds the system users' passwords.
func (u Unit) PeerSecret() string { return PeerEndpoint + "." + u.App + ".app" }

// UnitName is the name of the unit that has a pod, whose member has the pod's name.
func UnitName(pod string) string {
	i := strings.LastIndexByte(pod, '-')
	if i < 0 {
		return pod
	}
	return pod[:i] + "/" + pod[i+1:]
}

// PodOf is the name of a unit's pod.
func PodOf(unit string) string { return strings.Replace(unit, "/", "-", 1) }

// PodName is the name that a StatefulSet gives to the pod of a unit.
func PodName(app string, number int) string { return fmt.Sprintf("%s-%d", app, number) }

// Event is why Juju ran the charm. It is a hint: handlers read facts instead,
// and only the fields below may matter (see charm/doc.go).
type Event struct {
	Name     string // config-changed, database-relation-broken, ...; remove is a unit's last one
	Relation int    // id of the relation concerned, or -1
	Action   string // name of the action, or ""
	Secret   string // label of the secret concerned, or ""
}

// Secret is a Juju secret that this unit can read, or one that is being made.
type Secret struct {
	URI     string // "" for a draft, and where only the label is known
	Content map[string]Redacted
	// Saved is what was handed to Juju; Content may be a draft that goes beyond.
	Saved map[string]Redacted
	// Committed tells whether Juju has stored it. What was made in this dispatch
	// may still be discarded, and must not be put to a use that outlives it.
	Committed bool
	// Before is what Juju has while Content goes beyond that; nil when Juju has nothing.
	Before map[string]Redacted
	// Cached tells that the content was kept from an earlier dispatch: Juju may have
	// a newer one, of which it is still to tell this unit.
	Cached bool
}

// InForce is the content that outlives this dispatch whatever becomes of it.
func (s Secret) InForce() map[string]Redacted {
	if s.Committed {
		return s.Content
	}
	return s.Before
}

// Replaced tells whether this dispatch has handed new content of a secret to Juju
// that had one before.
func (s Secret) Replaced() bool {
	return !s.Committed && s.Before != nil && !maps.Equal(s.Saved, s.Before)
}

// Relations are the established relations by endpoint. A relation that is being
// broken is not among them.
type Relations map[string][]Relation

// Relation is one relation, seen from this unit.
type Relation struct {
	ID       int
	Endpoint string
	// Read tells whether the databags below were read. With many relations only
	// those are that may have changed; a handler can wish for others.
	Read      bool
	RemoteApp string
	Remote    map[string]string // the other application's databag
	LocalApp  map[string]string // own application databag; leaders write it
	// Units and LocalUnit are the databags of the other application's units, by
	// name, and of this one. They are read where UnitDatabags says.
	Units     map[string]map[string]string
	LocalUnit map[string]string
	// Written tells that this dispatch has written to LocalApp: Juju may still discard that.
	Written bool
}

// Peer returns the relation between the units of this application.
func (r Relations) Peer() (Relation, bool) {
	if len(r[PeerEndpoint]) == 0 {
		return Relation{}, false
	}
	return r[PeerEndpoint][0], true
}

// Workload is the container that PostgreSQL runs in.
type Workload struct {
	Layer     Layer                    // what Pebble's plan has of our services and checks
	Services  map[string]ServiceStatus // by name
	Files     map[string]File          // the files that the charm owns, by path
	Mount     Directory                // where the storage is mounted, as it is now
	Servers   []Server                 // installed in the image, the newest first
	DataMajor int                      // of the data directory; 0 when there is none
	SystemID  string                   // of the data directory, a number; "" when there is none
	Resources Resources
}

// ServiceStatus is a status of a Pebble service: active, inactive, backoff, error.
type ServiceStatus string

// ServiceActive is the status of a service that runs.
const ServiceActive ServiceStatus = "active"

// Server returns the server software that fits the data, or the newest when
// there is no data yet.
func (w Workload) Server() (Server, bool) {
	for _, s := range w.Servers {
		if w.DataMajor == 0 || s.Major == w.DataMajor {
			return s, true
		}
	}
	return Server{}, false
}

// Server is PostgreSQL server software in the workload image.
type Server struct {
	Major     int      // 17
	BinDir    string   // where initdb and postgres are
	Libraries []string // of those we may preload, the ones that are installed
}

// Resources are what the workload's own control group lets it use, and its volume.
type Resources struct {
	Memory int64   // bytes; the machine's when the container has no limit
	CPUs   float64 // may be a fraction
	Volume int64   // bytes that the storage has room for, all in all; 0 if not known
	Free   int64   // bytes of them that are free
}

// Full tells whether less than a tenth of the storage is free.
func (r Resources) Full() bool { return r.Volume > 0 && r.Free < r.Volume/10 }

// Cluster is what the Patroni member of this unit says.
type Cluster struct {
	Local   Local
	Members []Member
	Dynamic map[string]any // Patroni's dynamic configuration
	// Away is why the members are not known: Patroni cannot read its store, which
	// is the Kubernetes API. "" when it can.
	Away string
}

// Local is this unit's own member.
type Local struct {
	Name          string
	Version       string // of Patroni: 4.0.7
	Role          string // primary, replica, standby_leader, uninitialized
	State         string // running, starting, stopped, ...
	ServerVersion string // 17.5; "" until the server runs
	ConfigTag     string // which patroni.yml is loaded: see patroni.Config
	Started       string // when the server was started; "" while it does not run
}

// Primary tells whether the member takes writes.
func (l Local) Primary() bool {
	return l.Running() && (l.Role == "primary" || l.Role == "master") // master: Patroni 3
}

// Running tells whether the member's server accepts connections.
func (l Local) Running() bool { return l.State == "running" }

// Member is one member of the cluster.
type Member struct {
	Name     string
	Role     string // leader, standby_leader, replica, sync_standby, quorum_standby
	State    string // running, streaming, ...
	Host     string
	Port     int
	Timeline int
	Lag      Known[int64] // bytes
	// PendingRestart tells that a changed setting waits for a restart.
	PendingRestart bool
	// Lowers tells that one of them is lowered, or may be, which no replica may have
	// lower than the primary.
	Lowers bool
}

// MuchLag is from how many bytes on a replica's lag is shown: four segments of the
// write-ahead log.
const MuchLag = 64 << 20

// Running tells whether the member's server accepts connections.
func (m Member) Running() bool { return m.State == "running" || m.State == "streaming" }

// Well tells whether the member runs and, as a replica, follows.
func (m Member) Well() bool { return m.Running() && !m.CatchingUp() }

// CatchingUp tells whether the member is a replica that does not stream yet, and
// misses something.
func (m Member) CatchingUp() bool {
	lag, known := m.Lag.Get()
	return m.Role != "leader" && m.State != "streaming" && (!known || lag > 0)
}

// Synchronous tells whether the member has every commit that was confirmed, or is
// one of those of whom enough have.
func (m Member) Synchronous() bool { return m.Role == "sync_standby" || m.Role == "quorum_standby" }

// Successor returns the replica that is to take over, of those that may: one that
// has every confirmed commit, the one with the lowest lag if that is not much, and
// whether any will do.
// Patroni hands over to no other where commits are confirmed by replicas; for some
// seconds after a failover it may not yet know of any.
func (c Cluster) Successor(may func(Member) bool) (Successor, bool) {
	best := Successor{Any: len(c.Members) > 2}
	for _, m := range c.Members {
		if m.Role == "leader" {
			continue
		}
		best.Any = best.Any && may(m)
		if m.Well() && m.Near() && (m.Synchronous() || !c.Synchronous()) && may(m) && (best.Name == "" || m.lag() < best.lag()) {
			best.Member = m
		}
	}
	return best, best.Name != ""
}

// Complete tells whether every replica that streams takes part in confirming commits,
// where all are to: Patroni lets one in some seconds after it has begun to stream.
func (c Cluster) Complete() bool {
	return c.Dynamic["synchronous_mode"] != "quorum" || !slices.ContainsFunc(c.Members, func(m Member) bool {
		return m.State == "streaming" && m.Role != "leader" && !m.Synchronous()
	})
}

// Near tells whether a replica is not so far behind that a switchover to it would have
// clients wait for what it lacks.
func (m Member) Near() bool { return m.lag() < MuchLag }

func (m Member) lag() int64 {
	lag, _ := m.Lag.Get()
	return lag
}

// Synchronous tells whether replicas confirm commits.
func (c Cluster) Synchronous() bool {
	switch c.Dynamic["synchronous_mode"] {
	case true, "on", "quorum":
		return true
	}
	return false
}

// Member returns the member of that name.
func (c Cluster) Member(name string) (Member, bool) {
	i := slices.IndexFunc(c.Members, func(m Member) bool { return m.Name == name })
	if i < 0 {
		return Member{}, false
	}
	return c.Members[i], true
}

// Primary returns the one member that takes writes. While two claim to, or none
// does, there is none.
func (c Cluster) Primary() (Member, bool) {
	var primary []Member
	for _, m := range c.Members {
		if m.Role == "leader" && m.State == "running" {
			primary = append(primary, m)
		}
	}
	if len(primary) != 1 {
		return Member{}, false
	}
	return primary[0], true
}

// ByID returns the relation of that id.
func (r Relations) ByID(id int) (Relation, bool) {
	for _, relations := range r {
		for _, relation := range relations {
			if relation.ID == id {
				return relation, true
			}
		}
	}
	return Relation{}, false
}

// Replace puts a relation in the place of what was known of it.
func (r Relations) Replace(relation Relation) {
	for _, relations := range r {
		for i := range relations {
			if relations[i].ID == relation.ID {
				relations[i] = relation
			}
		}
	}
}

// Client is the leaders' record of one client relation, in the peers' databag:
// it tells which relations need no look, and what a broken one leaves behind.
type Client struct {
	App     string   `json:"app"`               // the other application
	Digest  string   `json:"digest"`            // of what was published, "" for nothing
	Secrets []string `json:"secrets,omitempty"` // URIs
	Problem string   `json:"problem,omitempty"` // why it was refused, as the status says it
	// Taken are the names of databases that were refused because somebody else has them.
	Taken []string `json:"taken,omitempty"`
	// Leader is the unit that looked at the relation as the leader, "" for one of a
	// revision that does not say. Nobody saw what was written while none led.
	Leader string `json:"leader,omitempty"`
}

// ParseClients reads the record of the client relations, by their ids. What is not
// such a record as a whole is none.
func ParseClients(record string) (map[int]Client, error) {
	var all map[int]Client
	if err := json.Unmarshal([]byte(record), &all); err != nil {
		return nil, fmt.Errorf("cannot read the record of client relations: %w", err)
	}
	return all, nil
}

// Serving tells whether an application has not got all of its reply, or not for good.
func Serving(clients map[int]Client) bool {
	for _, client := range clients {
		if client.Digest == PendingDigest {
			return true
		}
	}
	return false
}

// Replicas returns the members that answer reads: those that follow the primary.
func (c Cluster) Replicas() []Member {
	var replicas []Member
	for _, m := range c.Members {
		// running: Patroni 3, or from the archive
		if m.Running() && !m.CatchingUp() && m.Role != "leader" && m.Role != "standby_leader" {
			replicas = append(replicas, m)
		}
	}
	slices.SortFunc(replicas, func(a, b Member) int { return strings.Compare(a.Name, b.Name) })
	return replicas
}

// Catalog is what the primary's system catalogs say; only the leader looks.
type Catalog struct {
	Version string          // 17.5
	Roles   map[string]Role // every role that is not PostgreSQL's own
	// Predefined are PostgreSQL's own roles; each major version has more of them.
	Predefined []string
	Databases  map[string]CatalogDatabase // by name
	// Unconfirmed tells that some of it may be on the primary alone: it is not to be
	// relied upon yet.
	Unconfirmed bool
}

// CatalogDatabase is a database as it is.
type CatalogDatabase struct {
	Owner  string
	Create []string // roles that may create in it by a grant of their own, sorted
}

// Kube is what the Kubernetes API says of this application.
type Kube struct {
	Owner     Owner
	Domain    string // of the cluster, such as cluster.local
	Pods      []Pod
	Services  map[string]KubeService
	Endpoints map[string]Endpoints // of Patroni's store, by name
	Rollout   Rollout
}

// Pod returns the pod of that name.
func (k Kube) Pod(name string) (Pod, bool) {
	i := slices.IndexFunc(k.Pods, func(p Pod) bool { return p.Name == name })
	if i < 0 {
		return Pod{}, false
	}
	return k.Pods[i], true
}

// Owner is the StatefulSet that Juju made for the application. What it owns is
// garbage-collected with it.
type Owner struct {
	Name, UID string // "" while there is none
	Created   time.Time
}

// Pod is a pod of this application.
type Pod struct {
	Name  string
	IP    string
	Ready bool // so that Services lead to it
	// ReadySince is when that became so; zero if it is not known.
	ReadySince time.Time
	Labels     map[string]string
	// Revision is that of the template which the pod was made from.
	Revision    string
	Created     time.Time
	Terminating bool
	// Patroni is the version that its member runs, "" before the first start.
	Patroni string
	// Told is the primary that clients were told of, as a unit of ours has seen.
	Told string
}

// Endpoints is an object in which Patroni keeps the state of the cluster.
type Endpoints struct {
	Name     string
	OwnerUID string // "" when nothing owns it
	Created  time.Time
	SystemID string // of the cluster, where Patroni keeps it; "" elsewhere
	// Leader is the member that has the primary's lock or, of the object for
	// synchronous replication, the primary whose commits were confirmed last.
	Leader string
}

// With returns the labels with the given ones on top.
func With(labels, more map[string]string) map[string]string {
	out := maps.Clone(labels)
	if out == nil {
		out = map[string]string{}
	}
	maps.Copy(out, more)
	return out
}
