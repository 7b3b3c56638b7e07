package pgsql

import (
	"maps"
	"net/netip"
	"slices"
	"strings"

	"charmhub.io/postgresql-k8s/charm/config"
	"charmhub.io/postgresql-k8s/charm/state"
	"charmhub.io/postgresql-k8s/relations/clients"
)

// Request is what an application wants, and who of it is there.
type Request struct {
	Database   string   // as asked for, byte for byte; "" asks for nothing
	Extensions string   // a comma list, as asked for: the reply repeats it
	Units      []string // sorted
	Subnets    []string // from which the units come, sorted
	// Refused says why the request cannot be served, as the status shows it.
	Refused string
}

// maxText bounds what is read of a stranger's databags, in bytes: we hold it
// several times.
const maxText = 256 << 10

// Parse reads the databags of the other application and of its units. It accepts
// anything: what makes no sense is refused.
func Parse(app map[string]string, units map[string]map[string]string, options config.Values) Request {
	r := Request{Units: slices.Sorted(maps.Keys(units))}
	bags := []map[string]string{app} // it comes first: units repeat it, or are of an older client
	for _, unit := range r.Units {
		bags = append(bags, units[unit])
	}
	total, subnets := 0, map[string]bool{}
	for i, bag := range bags {
		for key, value := range bag {
			total += len(key) + len(value)
		}
		if total > maxText {
			return Request{Refused: state.MessageInvalidRequest}
		}
		if i == 0 {
			continue
		}
		for _, subnet := range list(bag["egress-subnets"]) {
			if _, err := netip.ParsePrefix(subnet); err == nil {
				subnets[subnet] = true
			}
		}
	}
	r.Subnets = slices.Sorted(maps.Keys(subnets))
	first := func(key string) string {
		i := slices.IndexFunc(bags, func(bag map[string]string) bool { return bag[key] != "" })
		if i < 0 {
			return ""
		}
		return bags[i][key]
	}
	r.Database, r.Extensions = first("database"), first("extensions")
	switch {
	case !enabled(options, r.Extensions):
		r.Refused = state.MessageExtensions
	case first("roles") != "":
		r.Refused = state.MessageRoles
	case r.Database != "" && !clients.ValidName(r.Database):
		r.Refused = state.MessageInvalidDatabase
	}
	return r
}

// enabled tells whether options enable the extensions, each of them written as
// "name" or "name:schema": an application cannot do that.
func enabled(options config.Values, extensions string) bool {
	for _, extension := range list(extensions) {
		name, _, _ := strings.Cut(extension, ":")
		if !options.Bool("plugin_" + strings.ReplaceAll(name, "-", "_") + "_enable") {
			return false
		}
	}
	return true
}

// list splits a comma list.
func list(text string) []string {
	var out []string
	for item := range strings.SplitSeq(text, ",") {
		if item = strings.TrimSpace(item); item != "" {
			out = append(out, item)
		}
	}
	return out
}
