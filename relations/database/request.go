package database

import (
	"encoding/json"
	"fmt"
	"maps"
	"regexp"
	"slices"
	"strings"

	"charmhub.io/postgresql-k8s/charm/state"
	"charmhub.io/postgresql-k8s/relations/clients"
)

// Request is what one application wants of one database.
type Request struct {
	// ID is the request's id within the relation; "" in version 0 of the
	// protocol, where a relation is one request.
	ID       string
	Database string   // as asked for, byte for byte
	Roles    []string // extra roles, in lower case
	Secret   []string // fields that must travel in secrets; version 1: all
	// Refused says why the request cannot be served, as the status shows it.
	Refused string
	// Unsupported says what the protocol has and this charm does not.
	Unsupported string
	Raw         map[string]any // version 1: the request itself, without nulls
}

// served tells whether nothing speaks against the request.
func (r Request) served() bool { return r.Refused == "" && r.Unsupported == "" }

// Requests are those of one relation.
type Requests struct {
	V1   bool
	List []Request
	// Handled is the request as the protocol's libraries want to find it in our
	// databag, in the key data.
	Handled string
	// Refused says why none of them can be served.
	Refused string
}

// Bounds of what is read of a stranger's databag. A hundred requests take some 40
// kB. Juju refuses a databag of 16 MiB, and with it all that a hook has written.
const (
	maxRequests = 100
	maxText     = 128 << 10 // bytes of all keys together, as they are and as we write them back
)

// Parse reads the other application's databag. It accepts anything: what makes
// no sense is refused, and what asks for nothing is an empty list.
func Parse(remote map[string]string) Requests {
	all := Requests{V1: remote["version"] == "v1"}
	total := 0
	for key, value := range remote {
		if key != "data" { // the library's own notes, which nobody else looks at
			total += len(key) + len(value)
		}
	}
	var ok bool
	if total <= maxText {
		all.List, all.Handled, ok = parse(remote, all.V1)
	}
	if !ok || len(all.Handled) > maxText {
		return Requests{V1: all.V1, Refused: state.MessageInvalidRequest}
	}
	return all
}

func parse(remote map[string]string, v1 bool) (list []Request, handled string, ok bool) {
	switch {
	case v1:
		return parseV1(remote["requests"])
	case remote["database"] == "":
		return nil, "", true
	}
	r := Request{Database: remote["database"], Roles: roles(remote["extra-user-roles"])}
	if text := remote["requested-secrets"]; text != "" && json.Unmarshal([]byte(text), &r.Secret) != nil {
		return nil, "", false
	}
	r.judge(remote["entity-type"])
	mirror := maps.Clone(remote)
	delete(mirror, "data")
	return []Request{r}, encode(mirror), true
}

// requestID is what the libraries make: the first 16 hexadecimal digits of a
// hash. A little more is let through; it becomes part of a role's name.
var requestID = regexp.MustCompile(`^[0-9A-Za-z]{1,32}$`)

func parseV1(text string) (list []Request, handled string, ok bool) {
	var items []map[string]any
	if text != "" && json.Unmarshal([]byte(text), &items) != nil || len(items) > maxRequests {
		return nil, "", false
	}
	mirror := map[string]any{}
	for _, item := range items {
		word := func(key string) string {
			s, _ := item[key].(string)
			return s
		}
		r := Request{ID: word("request-id"), Database: word("resource"), Roles: roles(word("extra-user-roles")), Raw: map[string]any{}}
		if r.Database == "" {
			r.Database = word("database") // an alias
		}
		for key, value := range item {
			if value != nil {
				r.Raw[key] = value
			}
		}
		if _, known := mirror[r.ID]; known || !requestID.MatchString(r.ID) {
			return nil, "", false
		}
		if r.Database == "" {
			continue // not a request yet
		}
		r.judge(word("entity-type"))
		list, mirror[r.ID] = append(list, r), r.Raw
	}
	return list, encode(mirror), true
}

// roles splits a comma list.
func roles(list string) []string {
	var out []string
	for role := range strings.SplitSeq(strings.ToLower(list), ",") {
		if role = strings.TrimSpace(role); role != "" {
			out = append(out, role)
		}
	}
	slices.Sort(out)
	return slices.Compact(out)
}

func (r *Request) judge(entityType string) {
	switch {
	case entityType != "":
		r.Unsupported = fmt.Sprintf("entity-type %.20q: this charm makes one user for each request", entityType)
	case strings.HasSuffix(r.Database, "*"):
		r.Unsupported = "a prefix of database names: this charm serves one database for each request"
	case !clients.ValidName(r.Database):
		r.Refused = state.MessageInvalidDatabase
	case !allowed(r.Roles):
		r.Refused = state.MessageInvalidRoles
	}
}

// attributes are what else it may ask for: superuser is pgbouncer-k8s's wish.
var attributes = []string{state.Admin, "createdb", "createrole", "superuser"}

func allowed(roles []string) bool {
	for _, role := range roles {
		if !slices.Contains(clients.Grantable, role) && !slices.Contains(attributes, role) {
			return false
		}
	}
	return true
}
