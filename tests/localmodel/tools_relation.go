package localmodel

import (
	"errors"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
)

// relationOf finds the relation that -r names, or the hook's own.
func (s *session) relationOf(c *call) (*Relation, error) {
	given, found := c.flags["relation"]
	if !found {
		if s.hook.relation != nil {
			return s.hook.relation, nil
		}
		return nil, usagef("no relation id specified")
	}
	id, err := strconv.Atoi(given[strings.LastIndex(given, ":")+1:])
	if err != nil {
		return nil, usagef("invalid value %q for option -r: invalid relation id", given)
	}
	r := s.unit.app.model.relations[id]
	if r == nil && s.hook.relation != nil && s.hook.relation.id == id {
		r = s.hook.relation
	}
	if r == nil || r.end(s.unit.app) == nil || s.unit.relation(r).broken {
		return nil, usagef("invalid value %q for option -r: relation not found", given)
	}
	return r, nil
}

func relationGet(s *session, c *call) (any, error) {
	r, err := s.relationOf(c)
	if err != nil {
		return nil, err
	}
	of := c.arg(1)
	if of == "" {
		if of = s.hook.RemoteUnit; of == "" || c.on("app") {
			of = s.hook.RemoteApp
		}
	}
	if of == "" {
		return nil, usagef("no unit or application specified")
	}
	switch {
	case c.on("app"):
		of, _, _ = strings.Cut(of, "/")
	case !strings.Contains(of, "/"):
		return nil, usagef("expected unit name, got application name %q", of)
	}
	values, err := s.readBag(r, of)
	if err != nil {
		return nil, err
	}
	if key := c.arg(0); key != "" && key != "-" {
		if value, found := values[key]; found {
			return value, nil
		}
		return nil, nil
	}
	return values, nil
}

// readBag reads a databag as this unit may: its own, its application's, and
// those of the other side.
func (s *session) readBag(r *Relation, of string) (map[string]string, error) {
	u := s.unit
	switch {
	case of == u.name:
		return s.bag(r, of), nil
	case of == u.app.name && !r.isPeer() && !s.isLeader():
		return nil, errors.New("permission denied")
	case of == u.app.name:
		return s.bag(r, of), nil
	case of == r.other(u.app).app.name:
		return maps.Clone(r.bag(of).values), nil
	case !strings.Contains(of, "/"):
		return nil, fmt.Errorf("getting application %q not found", of)
	}
	local := u.relation(r)
	if cached, found := local.cache[of]; found {
		return maps.Clone(cached), nil
	}
	i := slices.IndexFunc(r.other(u.app).app.units, func(other *Unit) bool { return other.name == of })
	if i < 0 && r.bags[of] == nil {
		return nil, errors.New("relation unit not found")
	}
	values := maps.Clone(r.bag(of).values)
	if i >= 0 {
		if _, member := local.joined[r.other(u.app).app.units[i]]; member {
			local.cache[of] = maps.Clone(values)
		}
	}
	return values, nil
}

func relationSet(s *session, c *call) (any, error) {
	r, err := s.relationOf(c)
	if err != nil {
		return nil, err
	}
	values, err := c.keyValues(c.args)
	if err != nil {
		return nil, err
	}
	owner := s.unit.name
	if c.on("app") {
		if !s.isLeader() {
			return nil, errors.New("cannot write relation settings")
		}
		owner = s.unit.app.name
	}
	key := bagKey{r.id, owner}
	if s.pending.bags[key] == nil {
		s.pending.bags[key] = map[string]string{}
	}
	maps.Copy(s.pending.bags[key], values)
	return silent{}, nil
}

func relationIDs(s *session, c *call) (any, error) {
	endpoint := c.arg(0)
	if endpoint == "" && s.hook.relation != nil {
		endpoint = s.hook.relation.end(s.unit.app).name
	}
	if endpoint == "" {
		return nil, usagef("no endpoint name specified")
	}
	ids := []string{}
	relations := s.unit.app.model.relations
	for _, id := range slices.Sorted(maps.Keys(relations)) {
		r := relations[id]
		end := r.end(s.unit.app)
		breaking := s.hook.relation == r && strings.HasSuffix(s.hook.Name, "-relation-broken")
		if end != nil && end.name == endpoint && r.inScope[s.unit] && !breaking {
			ids = append(ids, r.key(s.unit.app))
		}
	}
	return ids, nil
}

func relationList(s *session, c *call) (any, error) {
	r, err := s.relationOf(c)
	if err != nil {
		return nil, err
	}
	if c.on("app") {
		return r.other(s.unit.app).app.name, nil
	}
	names := []string{}
	for _, unit := range slices.SortedFunc(maps.Keys(s.unit.relation(r).joined), byName) {
		names = append(names, unit.name)
	}
	return names, nil
}

func relationModelGet(s *session, c *call) (any, error) {
	if _, err := s.relationOf(c); err != nil {
		return nil, err
	}
	return map[string]string{"uuid": s.unit.app.model.uuid}, nil
}

func networkGet(s *session, c *call) (any, error) {
	binding := c.arg(0)
	if binding == "" {
		return nil, usagef("no arguments specified")
	}
	if _, _, known := s.unit.app.charm.Meta.endpoint(binding); !known && binding != "juju-info" {
		return nil, fmt.Errorf("no network config found for binding %q", binding)
	}
	own, service := s.unit.address(), s.unit.app.model.serviceAddress(s.unit.app)
	switch {
	case c.on("bind-address"):
		return own, nil
	case c.on("ingress-address"):
		return service, nil
	case c.on("egress-subnets"):
		return []string{service + "/32"}, nil
	}
	return map[string]any{
		"bind-addresses": []any{map[string]any{
			"mac-address": "", "interface-name": fmt.Sprintf("placeholder for %q k8s pod", s.unit.name),
			"addresses": []any{map[string]any{"hostname": own, "value": own, "cidr": "10.77.0.0/16"}},
		}},
		"egress-subnets":    []string{service + "/32"},
		"ingress-addresses": []string{service},
	}, nil
}

func unitGet(s *session, c *call) (any, error) {
	switch c.arg(0) {
	case "private-address":
		return s.unit.address(), nil
	case "public-address":
		return s.unit.app.model.serviceAddress(s.unit.app), nil
	}
	return nil, usagef("unknown setting %q", c.arg(0))
}

func goalState(s *session, _ *call) (any, error) {
	type state struct {
		Status string `json:"status"`
		Since  string `json:"since"`
	}
	of := func(status StatusValue, ending life) state {
		if ending != alive {
			status.Status = "dying"
		}
		return state{status.Status, status.Since.UTC().Format("2006-01-02 15:04:05Z")}
	}
	m := s.unit.app.model
	units, relations := map[string]state{}, map[string]map[string]state{}
	for _, u := range s.unit.app.units {
		units[u.name] = of(u.status, u.life)
	}
	for _, r := range m.relations {
		end := r.end(s.unit.app)
		if end == nil || r.isPeer() {
			continue
		}
		if relations[end.name] == nil {
			relations[end.name] = map[string]state{}
		}
		other := r.other(s.unit.app).app
		relations[end.name][other.name] = of(newStatus("joined", ""), r.life)
		for _, u := range other.units {
			relations[end.name][u.name] = of(u.status, u.life)
		}
	}
	return struct {
		Units     map[string]state            `json:"units"`
		Relations map[string]map[string]state `json:"relations"`
	}{units, relations}, nil
}
