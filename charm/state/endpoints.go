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
	Version                         string // of the server: 17.5
}

// Published returns what clients should be told now. It is unknown while there
// is no primary, or two claim to be: then what was published before stays.
func (o Observed) Published() Known[ClientEndpoints] {
	cluster, ok := o.Cluster.Get()
	if !ok {
		return Unknown[ClientEndpoints](o.Cluster.Why())
	}
	kube, ok := o.Kube.Get()
	if !ok {
		return Unknown[ClientEndpoints](o.Kube.Why())
	}
	catalog, ok := o.Database.Get()
	if !ok {
		return Unknown[ClientEndpoints](o.Database.Why())
	}
	primary, ok := cluster.Primary()
	if !ok {
		return Unknown[ClientEndpoints]("there is not one primary")
	}
	service := func(suffix string) string {
		return fmt.Sprintf("%s-%s.%s.svc.%s:%d", o.Unit.App, suffix, o.Unit.Model, kube.Domain, PostgresPort)
	}
	e := ClientEndpoints{
		PrimaryService: service("primary"), ReplicasService: service("replicas"),
		Version: catalog.Version,
	}
	if o.Config.String("client-endpoints") == "service" {
		e.Primary, e.ReadOnly = e.PrimaryService, e.ReplicasService
		if len(cluster.Replicas()) == 0 {
			e.ReadOnly = e.Primary
		}
		return Value(e)
	}
	if e.Primary, ok = address(kube, primary.Name, e.PrimaryService); !ok {
		return Unknown[ClientEndpoints]("the primary's pod has no address yet")
	}
	e.ReadOnly = o.readOnly(kube, cluster, e)
	return Value(e)
}

func (o Observed) readOnly(kube Kube, cluster Cluster, e ClientEndpoints) string {
	streaming, known := o.Streaming.Get()
	var addresses []string
	for _, member := range cluster.Replicas() {
		if known && !slices.Contains(streaming, member.Name) {
			continue // it says so itself, but the primary does not hear of it
		}
		a, ok := address(kube, member.Name, e.ReplicasService)
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
