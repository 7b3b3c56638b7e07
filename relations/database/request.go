package database

import (
	"encoding/json"
	"fmt"
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
	// Refused says why none of them can be served.
	Refused string
}

// Bounds of what is read of a stranger's databag.
const (
	maxRequests = 100
	maxField    = 64 << 10
	maxFields   = 256 << 10 // together: we hold them several times, and write them back
)

// Parse reads the other application's databag. It accepts anything: what makes
// no sense is refused, and what asks for nothing is an empty list.
func Parse(remote map[string]string) Requests {
	total := 0
	for key, value := range remote {
		if key == "data" || key == "requests" {
			continue
		}
		if total += len(key) + len(value); len(value) > maxField || total > maxFields {
			return Requests{Refused: state.MessageInvalidRequest}
		}
	}
	if remote["version"] == "v1" {
		return parseV1(remote["requests"])
	}
	if remote["database"] == "" {
		return Requests{}
	}
	r := Request{Database: remote["database"], Roles: roles(remote["extra-user-roles"])}
	if text := remote["requested-secrets"]; text != "" {
		if json.Unmarshal([]byte(text), &r.Secret) != nil {
			return Requests{Refused: state.MessageInvalidRequest}
		}
	}
	r.judge(remote["entity-type"])
	return Requests{List: []Request{r}}
}

// requestID is what the libraries make: the first 16 hexadecimal digits of a
// hash. A little more is let through; it becomes part of a role's name.
var requestID = regexp.MustCompile(`^[0-9A-Za-z]{1,32}$`)

func parseV1(text string) Requests {
	all := Requests{V1: true}
	if text == "" {
		return all
	}
	var items []map[string]any
	if len(text) > maxRequests*maxField || json.Unmarshal([]byte(text), &items) != nil || len(items) > maxRequests {
		all.Refused = state.MessageInvalidRequest
		return all
	}
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
		known := slices.ContainsFunc(all.List, func(other Request) bool { return other.ID == r.ID })
		if !requestID.MatchString(r.ID) || known {
			all.Refused = state.MessageInvalidRequest
			return all
		}
		if r.Database == "" {
			continue // not a request yet
		}
		r.judge(word("entity-type"))
		all.List = append(all.List, r)
	}
	return all
}

// roles splits a comma list.
func roles(list string) []string {
	var out []string
	for role := range strings.SplitSeq(strings.ToLower(list), ",") {
		if role = strings.TrimSpace(role); role != "" && !slices.Contains(out, role) {
			out = append(out, role)
		}
	}
	slices.Sort(out)
	return out
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
