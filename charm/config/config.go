// Package config is the one table of the charm's options: what each may be, and
// what it becomes. The config section of charmcraft.yaml is generated from it.
package config

import (
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
)

// Option is one option of the charm.
type Option struct {
	Name        string
	Type        string // string, int, boolean: Juju's names
	Default     any    // nil: none
	Allowed     []string
	OrCount     bool  // a string may also be a whole number from 1 to Max
	Min, Max    int64 // inclusive, for int
	Description string
}

// Options is the table, sorted by name.
var Options = []Option{
	{
		Name: "client-endpoints", Type: "string", Default: "pod-ip", Allowed: []string{"pod-ip", "service"},
		Description: "What clients get as endpoints. pod-ip: addresses of pods, rewritten at each failover. service: names of Services, which follow by themselves.",
	},
	{
		Name: "experimental_max_connections", Type: "int", Min: 10, Max: 262143,
		Description: "Maximum number of concurrent connections. Unset: four for each CPU of the unit that led first, at least 100. A change restarts PostgreSQL.",
	},
	{
		Name: "profile", Type: "string", Default: "production", Allowed: []string{"production", "testing"},
		Description: "production: memory settings follow the container's limits. testing: PostgreSQL's own small defaults. A change restarts PostgreSQL.",
	},
	{
		Name: "profile_limit_memory", Type: "int", Min: 128, Max: 9999999,
		Description: "Memory in MB that the settings are made for, when it is less than what the container may use. A change restarts PostgreSQL.",
	},
	{
		Name: "synchronous_mode_strict", Type: "boolean", Default: true,
		Description: "With two units or more, let commits wait while no replica is there to confirm them. false: the primary goes on alone, and what it commits meanwhile is lost with its volume.",
	},
	{
		Name: "synchronous_node_count", Type: "string", Default: "majority", Allowed: []string{"all", "majority"}, OrCount: true, Max: 99,
		Description: "How many replicas must have a commit before it returns: all, majority (so many that, with the primary, more than half of the units have it), or a number. With less than all, one replica's absence delays nobody.",
	},
}

// Values are the options of one dispatch.
type Values struct {
	set  map[string]any
	errs []error
}

// Set returns the options that people have set, by name.
func (v Values) Set() map[string]any { return maps.Clone(v.set) }

// Parse takes Juju's configuration, a JSON object, and checks it against the
// table. Values that are not allowed are reported by Err and read as unset.
func Parse(raw map[string]any) Values {
	v := Values{set: map[string]any{}}
	for _, o := range Options {
		value, ok := raw[o.Name]
		if !ok || value == nil {
			value = o.Default
		}
		if value == nil {
			continue
		}
		value, err := o.check(value)
		if err != nil {
			v.errs = append(v.errs, err)
			continue
		}
		v.set[o.Name] = value
	}
	return v
}

// Err returns the first option that is not allowed, with what is.
func (v Values) Err() error {
	if len(v.errs) == 0 {
		return nil
	}
	return v.errs[0]
}

// String returns a string option, or "".
func (v Values) String(name string) string {
	s, _ := v.set[name].(string)
	return s
}

// Int returns an int option and whether it is set.
func (v Values) Int(name string) (int64, bool) {
	n, ok := v.set[name].(int64)
	return n, ok
}

// Bool returns a boolean option; one without a value is false.
func (v Values) Bool(name string) bool {
	b, _ := v.set[name].(bool)
	return b
}

func (o Option) check(value any) (any, error) {
	switch o.Type {
	case "string":
		s, ok := value.(string)
		if !ok {
			return nil, fmt.Errorf("%s must be a string", o.Name)
		}
		if len(o.Allowed) > 0 && !slices.Contains(o.Allowed, s) {
			if n, err := strconv.ParseInt(s, 10, 64); o.OrCount && err == nil && n >= 1 && n <= o.Max {
				return s, nil
			}
			allowed := strings.Join(o.Allowed, ", ")
			if o.OrCount {
				allowed += fmt.Sprintf(", or a number from 1 to %d", o.Max)
			}
			return nil, fmt.Errorf("%s must be one of %s", o.Name, allowed)
		}
		return s, nil
	case "int":
		n, ok := integer(value)
		if !ok || n < o.Min || n > o.Max {
			return nil, fmt.Errorf("%s must be a whole number from %d to %d", o.Name, o.Min, o.Max)
		}
		return n, nil
	case "boolean":
		b, ok := value.(bool)
		if !ok {
			return nil, fmt.Errorf("%s must be true or false", o.Name)
		}
		return b, nil
	}
	return nil, fmt.Errorf("%s has the unknown type %s", o.Name, o.Type)
}

// integer reads what a JSON decoder makes of a number.
func integer(value any) (int64, bool) {
	switch n := value.(type) {
	case int:
		return int64(n), true
	case int64:
		return n, true
	case float64:
		return int64(n), n == float64(int64(n))
	case json.Number:
		i, err := n.Int64()
		return i, err == nil
	}
	return 0, false
}
