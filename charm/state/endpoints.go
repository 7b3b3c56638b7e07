package state

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"
)

// ClientEndpoints are what clients get to know of the cluster.
type ClientEndpoints struct {
	// Primary is where to write: one host, one colon, one port.
	Primary string
	// ReadOnly is a comma list of the healthy replicas, the primary if there is
	// none.
	ReadOnly string
	// PrimaryService and ReplicasService are names that outlive a failover, with
	// the port.
	PrimaryService, ReplicasService string
	// ReadOnlyService is the name of the replicas, and the primary's if there is none. One
	// that does not follow for a moment still counts: Kubernetes knows who is ready.
	ReadOnlyService string
	Version         string // of the server: 17.5
}

// Published returns what clients should be told now. It is unknown while there
// is no primary, or two claim to be: then what was published before stays.
func (o Observed) Published() Known[ClientEndpoints] {
	kube, ok := o.Kube.Get()
	if !ok {
		return Unknown[ClientEndpoints](o.Kube.Why())
	}
	catalog, ok := o.Database.Get()
	if !ok {
		return Unknown[ClientEndpoints](o.Database.Why())
	}
	primary, ok := o.Primary()
	if !ok {
		return Unknown[ClientEndpoints]("there is not one primary")
	}
	replicas := o.replicas()
	service := func(suffix string) string {
		return fmt.Sprintf("%s-%s.%s.svc.%s:%d", o.Unit.App, suffix, o.Unit.Model, kube.Domain, PostgresPort)
	}
	e := ClientEndpoints{PrimaryService: service("primary"), ReplicasService: service("replicas"), Version: catalog.Version}
	e.ReadOnlyService = e.PrimaryService
	cluster, known := o.Cluster.Get()
	standby := func(p Pod) bool {
		member, _ := cluster.Member(p.Name)
		return p.Name != primary.Name && !p.Terminating && (!known || member.Running())
	}
	if len(replicas) > 0 || slices.ContainsFunc(kube.Pods, standby) {
		e.ReadOnlyService = e.ReplicasService
	}
	if o.Config.String("client-endpoints") == "service" {
		e.Primary, e.ReadOnly = e.PrimaryService, e.ReadOnlyService
		return Value(e)
	}
	if e.Primary, ok = address(kube, primary.Name, e.PrimaryService); !ok {
		return Unknown[ClientEndpoints]("the primary's pod has no address yet")
	}
	e.ReadOnly = readOnly(kube, replicas, e)
	return Value(e)
}

// Primary returns the member that has the primary's lock. Kubernetes, which keeps
// it, also tells while this unit's own member is down.
func (o Observed) Primary() (Member, bool) {
	cluster, _ := o.Cluster.Get()
	kube, _ := o.Kube.Get()
	holder := kube.Endpoints[o.Unit.Scope()].Leader
	if holder == "" {
		return cluster.Primary()
	}
	if member, ok := cluster.Member(holder); ok {
		return member, true
	}
	return Member{Name: holder, Role: "leader", Host: holder + "." + o.Unit.App + "-endpoints", Port: PostgresPort}, true
}

// replicas are the names of the members that follow the primary, sorted: those
// that its server knows, rather than what members say of themselves.
func (o Observed) replicas() []string {
	if streaming, known := o.Streaming.Get(); known {
		return streaming
	}
	cluster, _ := o.Cluster.Get()
	var names []string
	for _, member := range cluster.Replicas() {
		names = append(names, member.Name)
	}
	return names
}

func readOnly(kube Kube, replicas []string, e ClientEndpoints) string {
	var addresses []string
	for _, name := range replicas {
		a, ok := address(kube, name, e.ReplicasService)
		if ok && a == e.ReplicasService {
			return a // one name for all of them
		}
		if ok {
			addresses = append(addresses, a)
		}
	}
	if len(addresses) == 0 {
		return e.Primary
	}
	return strings.Join(addresses, ",")
}

// address returns the pod's address and port. Clients split at the colon, which
// an IPv6 address has too many of: the Service's name stands in for it.
func address(kube Kube, pod, service string) (string, bool) {
	p, ok := kube.Pod(pod)
	if !ok {
		return "", false
	}
	ip, err := netip.ParseAddr(p.IP)
	if err != nil {
		return "", false
	}
	if ip.Is6() {
		return service, true
	}
	return fmt.Sprintf("%s:%d", ip, PostgresPort), true
}
