package database

import (
	"cmp"
	"maps"
	"slices"
	"strings"

	"charmhub.io/postgresql-k8s/charm/state"
	"charmhub.io/postgresql-k8s/relations/clients"
)

// Handler serves the relations of the endpoint. Only the leader does.
type Handler struct{}

// Name implements charm.Handler.
func (Handler) Name() string { return state.DatabaseEndpoint }

// Desire implements charm.Handler.
func (Handler) Desire(obs state.Observed, want *state.Desired) {
	published := obs.Published()
	clients.Endpoint{
		Name:     state.DatabaseEndpoint,
		Outdated: func(_ state.Relation, client state.Client) bool { return outdated(client, published) },
		Serve: func(relation state.Relation) state.Client {
			return serve(obs, want, relation, published)
		},
	}.Desire(obs, want)
}

// outdated tells whether a relation was told something that is no longer so. One
// that asked for nothing was told nothing.
func outdated(client state.Client, published state.Known[state.ClientEndpoints]) bool {
	e, known := published.Get()
	return known && client.Digest != "" && client.Digest != digest(e)
}

// digest stands for what all relations are told alike: first what is in their
// databags, then what is in their secrets.
func digest(e state.ClientEndpoints) string {
	return clients.Digest(e.Primary, e.ReadOnly, e.Version) + "-" + secretDigest(e)
}

func secretDigest(e state.ClientEndpoints) string {
	return clients.Digest(e.PrimaryService, e.ReadOnlyService)
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
		client.Digest = clients.Pending
		return client
	}
	client.Digest = digest(e)
	if requests.V1 {
		withdraw(want, catalog, relation.ID, requests.List)
	}
	for i, request := range requests.List {
		requests.List[i].Refused = refusal(catalog, request)
		client.Problem = cmp.Or(client.Problem, requests.List[i].Refused)
		if request.served() && clients.Taken(catalog, request.Database) {
			client.Taken = append(client.Taken, request.Database)
		}
	}
	reply := reply{relation: relation, requests: requests, endpoints: e, responses: []map[string]string{}} // a JSON list, never null
	settled := settled(catalog, &reply)
	if _, secrets, _ := strings.Cut(obs.Clients[relation.ID].Digest, "-"); settled && secrets == secretDigest(e) {
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
			client.Digest = clients.Pending
		}
	}
	switch {
	case client.Digest != clients.Pending:
		want.Databags = append(want.Databags, state.Databag{Relation: relation.ID, Content: reply.databag(), Grant: client.Secrets})
	case settled:
		// What is in secrets takes one more commit, and a replica that confirms it. In a
		// failover the endpoints cannot wait.
		want.Urgent = true
		want.Databags = append(want.Databags, state.Databag{Relation: relation.ID, Content: reply.refresh()})
	}
	return client
}

// settled tells whether the relation has all it asked for, but perhaps for new
// endpoints. Its secrets, which are slow to read, need no look unless they name some.
func settled(catalog state.Catalog, reply *reply) bool {
	if reply.relation.LocalApp["data"] != reply.requests.Handled {
		return false
	}
	for _, request := range reply.requests.List {
		if !request.served() {
			continue // its status went out with the replies to the others
		}
		role, database := clients.Access(clients.UserName(reply.relation.ID, request.ID), "", request.Database, request.Roles)
		if !clients.Provided(catalog, role, database) {
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
	case clients.Taken(catalog, request.Database):
		return state.MessageInvalidDatabase
	case !offered(catalog, request.Roles):
		return state.MessageInvalidRoles
	}
	return ""
}

// withdraw wishes away the users of requests that a relation no longer has.
func withdraw(want *state.Desired, catalog state.Catalog, relation int, requests []Request) {
	for _, name := range slices.Sorted(maps.Keys(catalog.Roles)) {
		if id, made := clients.RelationOf(catalog.Roles[name]); !made || id != relation {
			continue
		}
		if !slices.ContainsFunc(requests, func(r Request) bool { return clients.UserName(relation, r.ID) == name }) {
			want.Roles = append(want.Roles, state.Role{Name: name, Absent: true})
		}
	}
}

// offered tells whether this server has the roles of PostgreSQL's own.
func offered(catalog state.Catalog, roles []string) bool {
	for _, role := range roles {
		if slices.Contains(clients.Grantable, role) && !slices.Contains(catalog.Predefined, role) {
			return false
		}
	}
	return true
}

// provide wishes the role, the database and the secrets of one request. It tells
// whether all of it was seen to be there, so that it may be published.
func provide(obs state.Observed, want *state.Desired, catalog state.Catalog, reply *reply, request Request) (served bool, secrets []string) {
	user := clients.UserName(reply.relation.ID, request.ID)
	group := "user"
	if !reply.requests.V1 && !slices.Contains(request.Secret, "password") {
		group = "draft" // it goes to the databag, and to no secret
	}
	label := secretLabel(reply.relation.ID, request.ID, group)
	secret, read := obs.Secrets[label]
	if secret.Replaced() {
		want.Again = true // nobody is told before Juju has committed it
		return false, nil
	}
	password := secret.Content["password"]
	if plain := reply.relation.LocalApp["password"]; plain != "" {
		password, read = state.Redacted(plain), true
	}
	if !read || password == "" {
		want.Secrets = append(want.Secrets, state.SecretWish{Label: label, Generate: []string{"password"}})
		return false, nil
	}
	role, database := clients.Access(user, password, request.Database, request.Roles)
	want.Roles = append(want.Roles, state.Role{Name: database.Owner}, role)
	want.Databases = append(want.Databases, database)
	if !clients.Provided(catalog, role, database) {
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

func secretLabel(relation int, request, group string) string {
	return state.ClientSecret(state.DatabaseEndpoint, relation, request, group)
}
