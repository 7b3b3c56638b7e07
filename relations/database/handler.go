package database

import (
	"cmp"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"maps"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"charmhub.io/postgresql-k8s/charm/state"
)

// userPrefix begins the name of every user of a relation.
const userPrefix = "relation_id_"

// Handler serves the relations of the endpoint. Only the leader does.
type Handler struct{}

// Name implements charm.Handler.
func (Handler) Name() string { return state.DatabaseEndpoint }

// Desire implements charm.Handler.
func (Handler) Desire(obs state.Observed, want *state.Desired) {
	if _, related := obs.Relations.Peer(); !obs.Leader || obs.Leaving || !related {
		return
	}
	want.Clients = maps.Clone(obs.Clients)
	if want.Clients == nil {
		want.Clients = map[int]state.Client{}
	}
	published := obs.Published()
	read := 0
	for _, relation := range obs.Relations[state.DatabaseEndpoint] {
		if relation.Read {
			read++
		}
	}
	for _, relation := range obs.Relations[state.DatabaseEndpoint] {
		client := obs.Clients[relation.ID]
		switch {
		case relation.Read:
			client = serve(obs, want, relation, published)
			if client.App != "" {
				want.Clients[relation.ID] = client
			}
		case outdated(client, published) && read < atOnce:
			want.Look = append(want.Look, relation.ID)
			read++
		case outdated(client, published):
			want.Again = true
		}
		if client.Problem != "" {
			want.Problem(state.Problem{Severity: state.Blocked, Message: client.Problem})
		}
	}
	forget(obs, want)
}

// atOnce is how many relations are rewritten in one dispatch: each takes some
// calls of Juju, and what was written reaches the clients when the hook ends.
const atOnce = 50

// pending is the digest of a relation that has not got all of its reply.
const pending = "pending"

// outdated tells whether a relation was told something that is no longer so. One
// that asked for nothing was told nothing.
func outdated(client state.Client, published state.Known[state.ClientEndpoints]) bool {
	e, known := published.Get()
	return known && client.Digest != "" && client.Digest != digest(e)
}

// digest stands for what all relations are told alike: first what is in their
// databags, then what is in their secrets.
func digest(e state.ClientEndpoints) string {
	return short(e.Primary, e.ReadOnly, e.Version) + "-" + secretDigest(e)
}

func secretDigest(e state.ClientEndpoints) string { return short(e.PrimaryService, readOnlyHost(e)) }

func short(parts ...string) string {
	sum := sha256.Sum256([]byte(strings.Join(parts, "\n")))
	return hex.EncodeToString(sum[:4])
}

// serve wishes what one relation asks for, and returns its record.
func serve(obs state.Observed, want *state.Desired, relation state.Relation, published state.Known[state.ClientEndpoints]) state.Client {
	client := state.Client{App: relation.RemoteApp, Secrets: obs.Clients[relation.ID].Secrets}
	requests := Parse(relation.Remote)
	if requests.Refused != "" {
		client.Problem = requests.Refused
		return client
	}
	if len(requests.List) == 0 && (!requests.V1 || relation.LocalApp["requests"] == "") {
		return client
	}
	e, known := published.Get()
	catalog, connected := obs.Database.Get()
	if !known || !connected {
		client.Digest = pending
		return client
	}
	client.Digest = digest(e)
	if requests.V1 {
		withdraw(want, catalog, relation.ID, requests.List)
	}
	for i, request := range requests.List {
		requests.List[i].Refused = refusal(catalog, request)
		client.Problem = cmp.Or(client.Problem, requests.List[i].Refused)
	}
	reply := reply{relation: relation, requests: requests, endpoints: e, responses: []map[string]string{}} // a JSON list, never null
	if settled(obs.Clients[relation.ID], catalog, &reply) {
		want.Databags = append(want.Databags, state.Databag{Relation: relation.ID, Content: reply.refresh()})
		return client
	}
	for _, request := range requests.List {
		if !request.served() {
			reply.refuse(request, cmp.Or(request.Refused, request.Unsupported))
			continue
		}
		served, secrets := provide(obs, want, catalog, &reply, request)
		for _, uri := range secrets {
			if !slices.Contains(client.Secrets, uri) {
				client.Secrets = append(slices.Clone(client.Secrets), uri)
			}
		}
		if !served {
			client.Digest = pending
		}
	}
	if client.Digest != pending {
		want.Databags = append(want.Databags, state.Databag{Relation: relation.ID, Content: reply.databag(), Grant: client.Secrets})
	}
	return client
}

// settled tells whether the relation has all it asked for, but perhaps for new
// endpoints: then its secrets, which are slow to read, need no look.
func settled(client state.Client, catalog state.Catalog, reply *reply) bool {
	_, secrets, _ := strings.Cut(client.Digest, "-")
	if secrets != secretDigest(reply.endpoints) || reply.relation.LocalApp["data"] != reply.handled() {
		return false
	}
	for _, request := range reply.requests.List {
		if !request.served() {
			continue // its status went out with the replies to the others
		}
		role, database := wishes(userName(reply.relation.ID, request.ID), "", request)
		if !provided(catalog, role, database) {
			return false
		}
	}
	return true
}

// refusal is why a request cannot be served, as far as the catalog tells.
func refusal(catalog state.Catalog, request Request) string {
	switch {
	case !request.served():
		return request.Refused
	case taken(catalog, request.Database):
		return state.MessageInvalidDatabase
	case !offered(catalog, request.Roles):
		return state.MessageInvalidRoles
	}
	return ""
}

// taken tells whether somebody who is no relation has the name already.
func taken(catalog state.Catalog, name string) bool {
	db, exists := catalog.Databases[name]
	role, isRole := catalog.Roles[name]
	return exists && db.Owner != "operator" || isRole && (role.Login || role.Superuser)
}

// withdraw wishes away the users of requests that a relation no longer has.
func withdraw(want *state.Desired, catalog state.Catalog, relation int, requests []Request) {
	for _, name := range slices.Sorted(maps.Keys(catalog.Roles)) {
		match := userOf.FindStringSubmatch(name)
		if match == nil || match[1] != strconv.Itoa(relation) || !slices.Contains(catalog.Roles[name].MemberOf, state.RelationAccess) {
			continue
		}
		if !slices.ContainsFunc(requests, func(r Request) bool { return userName(relation, r.ID) == name }) {
			want.Roles = append(want.Roles, state.Role{Name: name, Absent: true})
		}
	}
}

// offered tells whether this server has the roles of PostgreSQL's own.
func offered(catalog state.Catalog, roles []string) bool {
	for _, role := range roles {
		if slices.Contains(grantable, role) && !slices.Contains(catalog.Predefined, role) {
			return false
		}
	}
	return true
}

// provide wishes the role, the database and the secrets of one request. It tells
// whether all of it was seen to be there, so that it may be published.
func provide(obs state.Observed, want *state.Desired, catalog state.Catalog, reply *reply, request Request) (served bool, secrets []string) {
	user := userName(reply.relation.ID, request.ID)
	group := "user"
	if !reply.requests.V1 && !slices.Contains(request.Secret, "password") {
		group = "draft" // it goes to the databag, and to no secret
	}
	label := secretLabel(reply.relation.ID, request.ID, group)
	secret, read := obs.Secrets[label]
	password := secret.Content["password"]
	if plain := reply.relation.LocalApp["password"]; plain != "" {
		password, read = state.Redacted(plain), true
	}
	if !read || password == "" {
		want.Secrets = append(want.Secrets, state.SecretWish{Label: label, Generate: []string{"password"}})
		return false, nil
	}
	role, database := wishes(user, password, request)
	want.Roles = append(want.Roles, state.Role{Name: database.Owner}, role)
	want.Databases = append(want.Databases, database)
	if !provided(catalog, role, database) {
		return false, nil
	}
	served = true
	groups := reply.fill(request, user, password)
	for _, group := range slices.Sorted(maps.Keys(groups)) {
		label := secretLabel(reply.relation.ID, request.ID, group)
		want.Secrets = append(want.Secrets, state.SecretWish{Label: label, Content: groups[group]})
		secret := obs.Secrets[label]
		if secret.URI == "" || !maps.Equal(secret.Saved, groups[group]) {
			served = false
			continue
		}
		if !secret.Committed {
			// Juju 4.1 loses a grant that is made in the same hook as its secret.
			served, want.Again = false, true
		}
		reply.secret(group, secret.URI)
		secrets = append(secrets, secret.URI)
	}
	return served, secrets
}

// wishes are the login role and the database of a request.
func wishes(user string, password state.Redacted, request Request) (state.Role, state.Database) {
	has := func(role string) bool { return slices.Contains(request.Roles, role) }
	role := state.Role{
		Name: user, Login: true, Password: password,
		Superuser: has("superuser"), CreateDB: has("createdb") || has(state.Admin), CreateRole: has("createrole"),
		// pg_hba.conf lets in who is of the owner role: users that an earlier release
		// made have their privileges already, and are not admitted once more.
		MemberOf: []string{state.RelationAccess, request.Database},
	}
	for _, r := range request.Roles {
		if r == state.Admin || slices.Contains(grantable, r) {
			role.MemberOf = append(role.MemberOf, r)
		}
	}
	if role.Superuser || role.CreateDB {
		role.MemberOf = append(role.MemberOf, state.AnyDatabase)
	}
	database := state.Database{Name: request.Database, Owner: request.Database, Users: []state.DatabaseUser{{
		Role: user,
		// Extra roles are the login role's own: acting as another would lose them.
		Act: len(request.Roles) == 0,
	}}}
	return role, database
}

// provided tells whether the catalog has what was wished; no password is any.
func provided(catalog state.Catalog, role state.Role, database state.Database) bool {
	have, exists := catalog.Roles[role.Name]
	if !exists || !have.Login || role.Password != "" && !have.HasPassword(role.Password) {
		return false
	}
	for _, group := range role.MemberOf {
		if !slices.Contains(have.MemberOf, group) {
			return false
		}
	}
	db := catalog.Databases[database.Name]
	return slices.Contains(db.Create, database.Owner) && slices.Contains(db.Create, role.Name)
}

// userName is upstream's, on which clean-up after a refresh depends; several
// requests of one relation have a user each.
func userName(relation int, request string) string {
	if request == "" {
		return fmt.Sprintf("%s%d", userPrefix, relation)
	}
	return fmt.Sprintf("%s%d_%s", userPrefix, relation, request)
}

// secretLabel is the libraries' own, so that each finds what another has made.
func secretLabel(relation int, request, group string) string {
	if request == "" {
		return fmt.Sprintf("%s.%d.%s.secret", state.DatabaseEndpoint, relation, group)
	}
	return fmt.Sprintf("%s.%d.%s.%s.secret", state.DatabaseEndpoint, relation, request, group)
}

var userOf = regexp.MustCompile(`^` + userPrefix + `(\d+)(_[0-9A-Za-z]+)?$`)

// forget wishes away what broken relations left: their users, whom the catalog
// shows, and their secrets, which are on record. The data stay.
func forget(obs state.Observed, want *state.Desired) {
	catalog, ok := obs.Database.Get()
	if !ok {
		return
	}
	alive := func(id int) bool { _, ok := obs.Relations.ByID(id); return ok }
	leftover := map[int]bool{}
	for _, name := range slices.Sorted(maps.Keys(catalog.Roles)) {
		match := userOf.FindStringSubmatch(name)
		if match == nil || !slices.Contains(catalog.Roles[name].MemberOf, state.RelationAccess) {
			continue // not a role that a relation made
		}
		if id, err := strconv.Atoi(match[1]); err == nil && !alive(id) {
			want.Roles = append(want.Roles, state.Role{Name: name, Absent: true})
			leftover[id] = true
		}
	}
	for _, id := range slices.Sorted(maps.Keys(obs.Clients)) {
		if alive(id) || leftover[id] {
			continue
		}
		want.Unneeded = append(want.Unneeded, obs.Clients[id].Secrets...)
		delete(want.Clients, id)
	}
}
