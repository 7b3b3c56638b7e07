package kubeapi

import (
	"maps"
	"reflect"
)

// followEndpoints does what Kubernetes' endpoints controller does, at once: the
// addresses of a service with a selector follow its pods.
func (s *Store) followEndpoints(changed key) {
	if changed.resource != "services" && changed.resource != "pods" {
		return
	}
	for _, service := range s.list("services", changed.namespace, everything) {
		if selector, _ := mapAt(clone(service), "spec")["selector"].(Object); len(selector) > 0 {
			s.writeEndpoints(changed.namespace, service, selector)
		}
	}
}

func (s *Store) writeEndpoints(namespace string, service, selector Object) {
	service = clone(service)
	spec := mapAt(service, "spec")
	var ready, notReady []any
	for _, pod := range s.list("pods", namespace, matching(selector)) {
		address, isReady := podAddress(pod)
		switch {
		case stringAt(address, "ip") == "":
		case isReady || spec["publishNotReadyAddresses"] == true:
			ready = append(ready, address)
		default:
			notReady = append(notReady, address)
		}
	}
	subset := Object{}
	if ready != nil {
		subset["addresses"] = ready
	}
	if notReady != nil {
		subset["notReadyAddresses"] = notReady
	}
	var subsets []any
	if len(subset) > 0 {
		if ports := endpointPorts(spec); ports != nil {
			subset["ports"] = ports
		}
		subsets = []any{subset}
	}
	k := key{"endpoints", namespace, stringAt(service, "metadata", "name")}
	old := s.objects[k]
	if old != nil && reflect.DeepEqual(old["subsets"], any(subsets)) {
		return
	}
	endpoints := clone(old)
	endpoints["subsets"] = subsets
	meta := mapAt(endpoints, "metadata")
	if meta["uid"] == nil {
		meta["uid"] = newUID()
		meta["creationTimestamp"] = mapAt(service, "metadata")["creationTimestamp"]
	}
	maps.Copy(mapAt(meta, "labels"), mapAt(service, "metadata", "labels"))
	s.put(k, endpoints)
}

func podAddress(pod Object) (address Object, ready bool) {
	pod = clone(pod)
	status := mapAt(pod, "status")
	conditions, _ := status["conditions"].([]any)
	for _, c := range conditions {
		if c, _ := c.(Object); c["type"] == "Ready" {
			ready = c["status"] == "True"
		}
	}
	name := stringAt(pod, "metadata", "name")
	return Object{
		"ip":       stringAt(status, "podIP"),
		"hostname": name,
		"nodeName": stringAt(pod, "spec", "nodeName"),
		"targetRef": Object{
			"kind": "Pod", "name": name, "namespace": stringAt(pod, "metadata", "namespace"),
			"uid": stringAt(pod, "metadata", "uid"),
		},
	}, ready
}

func endpointPorts(spec Object) []any {
	var ports []any
	list, _ := spec["ports"].([]any)
	for _, p := range list {
		p, _ := p.(Object)
		port := Object{"port": p["targetPort"], "protocol": p["protocol"]}
		if p["name"] != nil {
			port["name"] = p["name"]
		}
		ports = append(ports, port)
	}
	return ports
}

// Addresses answers what DNS asks: the ready addresses of a service, or of the
// one pod of that host name in it. It tells whether there is such a name.
func (s *Store) Addresses(namespace, service, hostname string) (ips []string, found bool) {
	endpoints := s.Get("endpoints", namespace, service)
	if endpoints == nil {
		return nil, s.Get("services", namespace, service) != nil && hostname == ""
	}
	subsets, _ := endpoints["subsets"].([]any)
	for _, subset := range subsets {
		subset, _ := subset.(Object)
		addresses, _ := subset["addresses"].([]any)
		for _, a := range addresses {
			a, _ := a.(Object)
			if hostname == "" || stringAt(a, "hostname") == hostname {
				ips = append(ips, stringAt(a, "ip"))
			}
		}
	}
	return ips, hostname == "" || len(ips) > 0
}
