package database

import (
	"encoding/json"
	"fmt"
	"maps"
	"net/url"
	"slices"
	"strings"

	"charmhub.io/postgresql-k8s/charm/state"
)

// reply gathers what a relation is told.
type reply struct {
	relation  state.Relation
	requests  Requests
	endpoints state.ClientEndpoints
	flat      map[string]string   // version 0: the databag
	responses []map[string]string // version 1
	statuses  []status
}

// status is the protocol's message to the other side. Codes of the 5000s say
// that the relation cannot go on as it is.
type status struct {
	Code       int    `json:"code"`
	Message    string `json:"message"`
	Resolution string `json:"resolution"`
}

// secretGroup is the secret in which a field travels.
var secretGroup = map[string]string{
	"username": "user", "password": "user", "uris": "user", "read-only-uris": "user", "tls": "tls",
}

// fill adds the response to a request that was served, but for its secrets,
// whose contents it returns by group.
func (r *reply) fill(request Request, user string, password state.Redacted) map[string]map[string]state.Redacted {
	e := r.endpoints
	fields := map[string]string{
		"username":       user,
		"password":       password.Reveal(),
		"uris":           uri(user, password, e.PrimaryService, request.Database),
		"read-only-uris": uri(user, password, e.ReadOnlyService, request.Database),
		"tls":            "False",
	}
	response := map[string]string{
		"endpoints": e.Primary, "read-only-endpoints": e.ReadOnly, "version": e.Version,
	}
	if r.requests.V1 {
		fields["tls"] = "false" // JSON there
		response["request-id"], response["resource"] = request.ID, request.Database
		if salt, ok := request.Raw["salt"].(string); ok {
			response["salt"] = salt
		}
		r.responses = append(r.responses, response)
	} else {
		response["database"] = request.Database
		r.flat = response
	}
	groups := map[string]map[string]state.Redacted{}
	for field, value := range fields {
		switch {
		case r.requests.V1 || slices.Contains(request.Secret, field) && !r.sticky(request):
			group := secretGroup[field]
			if groups[group] == nil {
				groups[group] = map[string]state.Redacted{}
			}
			groups[group][field] = state.Redacted(value)
		case field != "read-only-uris": // who does not ask for it must not get it in clear
			response[field] = value
		}
	}
	return groups
}

// sticky tells whether the relation began in plain text, which the request now
// wants in secrets: its library then never looks for those.
func (r *reply) sticky(request Request) bool {
	return slices.ContainsFunc(request.Secret, func(field string) bool {
		return secretGroup[field] != "" && r.relation.LocalApp[field] != ""
	})
}

// secret adds the URI of a secret to the response that was filled last.
func (r *reply) secret(group, uri string) {
	response := r.flat
	if r.requests.V1 {
		response = r.responses[len(r.responses)-1]
	}
	response["secret-"+group] = uri
}

// refuse answers a request that is not served.
func (r *reply) refuse(request Request, why string) {
	message := why
	if request.ID != "" {
		message = fmt.Sprintf("request %s: %s", request.ID, why)
	}
	r.statuses = append(r.statuses, status{5001, message, "Change the request, or remove the relation."})
}

// databag is what the relation is told: everything at once.
func (r *reply) databag() map[string]string {
	bag := map[string]string{"status": ""}
	for key, value := range r.flat {
		bag[key] = value
	}
	if r.requests.V1 {
		bag["version"], bag["requests"] = "v1", encode(r.responses)
	}
	if r.requests.V1 || r.flat != nil {
		bag["data"] = r.requests.Handled
	}
	// A library that knows no status would take a databag with nothing else for a
	// reply without endpoints; those who ask for more than a database know it.
	if len(r.statuses) > 0 && r.speaksStatus() {
		bag["status"] = encode(r.statuses)
	}
	return bag
}

// refresh is the databag of a relation of which only the endpoints may change.
func (r *reply) refresh() map[string]string {
	changed := map[string]string{
		"endpoints": r.endpoints.Primary, "read-only-endpoints": r.endpoints.ReadOnly, "version": r.endpoints.Version,
	}
	if !r.requests.V1 {
		return changed
	}
	var responses []map[string]string
	if json.Unmarshal([]byte(r.relation.LocalApp["requests"]), &responses) != nil {
		return nil // settled saw that it is ours
	}
	for _, response := range responses {
		maps.Copy(response, changed)
	}
	return map[string]string{"requests": encode(responses)}
}

func (r *reply) speaksStatus() bool {
	return r.requests.V1 || r.flat != nil || slices.ContainsFunc(r.requests.List, func(q Request) bool { return q.Unsupported != "" })
}

// encode writes canonical JSON: keys sorted, so that the same reply is the same
// bytes, and each "<" one of them.
func encode(v any) string {
	var text strings.Builder
	encoder := json.NewEncoder(&text)
	encoder.SetEscapeHTML(false)
	if encoder.Encode(v) != nil {
		return "" // it was made of JSON: it cannot fail
	}
	return strings.TrimSuffix(text.String(), "\n")
}

// uri is a libpq connection URI with one host
// (https://www.postgresql.org/docs/17/libpq-connect.html#LIBPQ-CONNSTRING-URIS).
func uri(user string, password state.Redacted, host, database string) string {
	u := url.URL{Scheme: "postgresql", User: url.UserPassword(user, password.Reveal()), Host: host, Path: "/" + database}
	u.RawPath = "/" + url.PathEscape(database)
	return u.String()
}
