package kubeapi

import (
	"fmt"
	"hash/fnv"
	"slices"
	"strings"
)

// kinds are the resources that the server knows.
var kinds = map[string]struct{ group, version, kind string }{
	"configmaps":             {"", "v1", "ConfigMap"},
	"endpoints":              {"", "v1", "Endpoints"},
	"endpointslices":         {"discovery.k8s.io", "v1", "EndpointSlice"},
	"events":                 {"", "v1", "Event"},
	"leases":                 {"coordination.k8s.io", "v1", "Lease"},
	"namespaces":             {"", "v1", "Namespace"},
	"nodes":                  {"", "v1", "Node"},
	"persistentvolumeclaims": {"", "v1", "PersistentVolumeClaim"},
	"pods":                   {"", "v1", "Pod"},
	"secrets":                {"", "v1", "Secret"},
	"serviceaccounts":        {"", "v1", "ServiceAccount"},
	"services":               {"", "v1", "Service"},
	"statefulsets":           {"apps", "v1", "StatefulSet"},
}

// describe fills in what the API server fills in.
func describe(k key, object Object) {
	of := kinds[k.resource]
	object["kind"] = of.kind
	object["apiVersion"] = strings.TrimPrefix(of.group+"/"+of.version, "/")
	if k.resource == "services" {
		describeService(k, mapAt(object, "spec"))
	}
}

func describeService(k key, spec Object) {
	setDefault(spec, "type", "ClusterIP")
	setDefault(spec, "sessionAffinity", "None")
	if stringAt(spec, "clusterIP") == "" {
		hash := fnv.New32()
		_, _ = fmt.Fprint(hash, k.namespace, "/", k.name)
		sum := hash.Sum32()
		spec["clusterIP"] = fmt.Sprintf("10.78.%d.%d", sum>>8&0xff, sum&0xff)
	}
	ports, _ := spec["ports"].([]any)
	for _, p := range ports {
		if port, _ := p.(Object); port != nil {
			setDefault(port, "protocol", "TCP")
			setDefault(port, "targetPort", port["port"])
		}
	}
}

func setDefault(object Object, name string, value any) {
	if object[name] == nil {
		object[name] = value
	}
}

// A Selector tells whether an object is wanted.
type Selector func(Object) bool

func everything(Object) bool { return true }

// matching selects by labels.
func matching(labels Object) Selector {
	return func(object Object) bool {
		for name, value := range labels {
			if stringAt(object, "metadata", "labels", name) != value {
				return false
			}
		}
		return true
	}
}

// parseSelectors reads the two selectors of a list or watch request.
func parseSelectors(labels, fields string) (Selector, error) {
	var terms []Selector
	for _, term := range splitTerms(labels) {
		selects, err := parseLabelTerm(term)
		if err != nil {
			return nil, err
		}
		terms = append(terms, selects)
	}
	for _, term := range splitTerms(fields) {
		path, value, found := strings.Cut(strings.Replace(term, "==", "=", 1), "=")
		if !found || strings.HasSuffix(path, "!") {
			return nil, failure(400, "BadRequest", "", "", fmt.Sprintf("field selector %q is not supported", term))
		}
		terms = append(terms, func(o Object) bool { return stringAt(o, strings.Split(path, ".")...) == value })
	}
	return func(object Object) bool {
		return !slices.ContainsFunc(terms, func(selects Selector) bool { return !selects(object) })
	}, nil
}

// splitTerms splits at the commas that are not within parentheses.
func splitTerms(s string) []string {
	var terms []string
	depth := 0
	for term := range strings.FieldsFuncSeq(s, func(r rune) bool {
		switch r {
		case '(':
			depth++
		case ')':
			depth--
		}
		return r == ',' && depth == 0
	}) {
		terms = append(terms, strings.TrimSpace(term))
	}
	return terms
}

func parseLabelTerm(term string) (Selector, error) {
	label := func(name string) func(Object) (string, bool) {
		return func(object Object) (string, bool) {
			meta, _ := object["metadata"].(Object)
			labels, _ := meta["labels"].(Object)
			value, found := labels[strings.TrimSpace(name)].(string)
			return value, found
		}
	}
	in := func(name, values string, want bool) Selector {
		get := label(name)
		allowed := strings.Split(strings.ReplaceAll(strings.Trim(values, "() "), " ", ""), ",")
		return func(object Object) bool {
			value, found := get(object)
			return (found && slices.Contains(allowed, value)) == want
		}
	}
	if name, values, found := strings.Cut(term, " notin "); found {
		return in(name, values, false), nil
	}
	if name, values, found := strings.Cut(term, " in "); found {
		return in(name, values, true), nil
	}
	if name, value, found := strings.Cut(term, "!="); found {
		return in(name, value, false), nil
	}
	if name, value, found := strings.Cut(term, "="); found {
		return in(name, strings.TrimPrefix(value, "="), true), nil
	}
	if strings.ContainsAny(term, " ()") {
		return nil, failure(400, "BadRequest", "", "", fmt.Sprintf("label selector %q is not supported", term))
	}
	name, absent := strings.CutPrefix(term, "!")
	get := label(name)
	return func(object Object) bool { _, found := get(object); return found != absent }, nil
}
