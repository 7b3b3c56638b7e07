package pgsql

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
	"time"

	"charmhub.io/postgresql-k8s/charm/config"
	"charmhub.io/postgresql-k8s/charm/state"
	"charmhub.io/postgresql-k8s/relations/clients"
)

// Handler serves the relations of one of the two endpoints. Only the leader does.
type Handler struct {
	// Admin is for the endpoint whose users are superusers.
	Admin bool
}

// Name implements charm.Handler.
func (h Handler) Name() string {
	if h.Admin {
		return state.AdminEndpoint
	}
	return state.LegacyEndpoint
}

// Desire implements charm.Handler.
func (h Handler) Desire(obs state.Observed, want *state.Desired) {
	if want.Clients == nil {
		return
	}
	for _, relation := range obs.Relations[h.Name()] {
		if modern(obs, relation) {
			want.Problem(state.Problem{Severity: state.Blocked, Message: state.MessageOneEndpoint})
		}
	}
	published := obs.Published()
	clients.Endpoint{
		Name: h.Name(),
		Outdated: func(relation state.Relation, client state.Client) bool {
			return outdated(obs, relation, client, published)
		},
		Serve: func(relation state.Relation) state.Client {
			return h.serve(obs, want, relation, published)
		},
	}.Desire(obs, want)
}

// modern tells whether the application has a relation of the modern interface,
// too. Upstream's charm refuses even two applications of which each has one; those
// do each other no harm.
func modern(obs state.Observed, relation state.Relation) bool {
	return slices.ContainsFunc(obs.Relations[state.DatabaseEndpoint], func(other state.Relation) bool {
		return relation.RemoteApp != "" && other.RemoteApp == relation.RemoteApp
	})
}

// outdated tells whether a relation was told something that is no longer so, or
// was refused for a reason that is gone. One that asked for nothing was told
// nothing.
func outdated(obs state.Observed, relation state.Relation, client state.Client, published state.Known[state.ClientEndpoints]) bool {
	switch {
	case client.Problem == state.MessageExtensions:
		return client.Digest != plugins(obs.Config)
	case client.Digest == "":
		return false
	case client.Digest == state.HeldDigest:
		return !modern(obs, relation)
	}
	e, known := published.Get()
	return known && client.Digest != digest(obs, e)
}

// digest stands for what all relations are told alike, for whose databag tells
// it, and for the extensions that they may have.
func digest(obs state.Observed, e state.ClientEndpoints) string {
	return clients.Digest(e.PrimaryService, e.ReadOnlyService, e.Version, obs.Unit.Name, plugins(obs.Config))
}

// plugins stands for the extensions that options enable.
func plugins(options config.Values) string {
	var names []string
	for _, o := range config.Options {
		if strings.HasPrefix(o.Name, "plugin_") && options.Bool(o.Name) {
			names = append(names, o.Name)
		}
	}
	return clients.Digest(names...)
}

// serve wishes what one relation asks for, and returns its record.
func (h Handler) serve(obs state.Observed, want *state.Desired, relation state.Relation, published state.Known[state.ClientEndpoints]) state.Client {
	client := state.Client{App: relation.RemoteApp}
	request := Parse(relation.Remote, relation.Units, obs.Config)
	if request.Refused == state.MessageExtensions {
		client.Digest = plugins(obs.Config) // until they change
	}
	if request.Refused != "" || request.Database == "" {
		client.Problem = request.Refused
		return client
	}
	// The application's databag has what a leader wrote last; upstream's new
	// leaders used to change it. It is the one place where the password is.
	password := state.Redacted(cmp.Or(relation.LocalApp["password"], relation.LocalUnit["password"]))
	if password == "" && modern(obs, relation) { // who has one keeps it
		client.Digest = state.HeldDigest
		return client
	}
	e, known := published.Get()
	catalog, connected := obs.Database.Get()
	if !known || !connected {
		client.Digest = clients.Pending
		return client
	}
	if clients.Taken(catalog, request.Database) {
		client.Problem, client.Taken = state.MessageInvalidDatabase, []string{request.Database}
		return client
	}
	client.Digest = clients.Pending
	if password == "" && !reachable(obs) {
		want.Problem(state.Problem{Severity: state.Waiting, Message: state.MessageEndpoint})
		want.Later = true
		return client
	}
	if password == "" {
		label := fmt.Sprintf("%s.%d.draft.secret", h.Name(), relation.ID)
		if password = obs.Secrets[label].Content["password"]; password == "" {
			want.Secrets = append(want.Secrets, state.SecretWish{Label: label, Generate: []string{"password"}})
			return client
		}
	}
	// As for modern clients, objects belong to the database's owner role: upstream
	// hands all of them to each new user, and with several users of one database
	// only those that are there already. A superuser acts as itself, or it would be
	// none; what it made goes to the owner role with the next user, or when it goes.
	var roles []string
	if h.Admin {
		roles = []string{"superuser"}
	}
	user := clients.UserName(relation.ID, "")
	role, database := clients.Access(user, password, request.Database, roles)
	want.Roles = append(want.Roles, state.Role{Name: database.Owner}, role)
	want.Databases = append(want.Databases, database)
	if !clients.Provided(catalog, role, database) {
		return client
	}
	client.Digest = digest(obs, e)
	content := reply(obs, relation, request, e, user, password)
	want.Databags = append(want.Databags,
		state.Databag{Relation: relation.ID, Content: content},
		state.Databag{Relation: relation.ID, Unit: true, Content: content})
	return client
}

// routed is how long Kubernetes takes to lead a Service to a pod that has become ready:
// kube-proxy waits up to a second by itself
// (https://kubernetes.io/docs/reference/networking/virtual-ips/, minSyncPeriod), and nodes
// are busy when pods start. Those who come early are refused, and legacy clients do not all
// try again.
const routed = 3 * time.Second

// reachable tells whether the Service of the primary leads to it. Patroni knows a
// primary some seconds before the kubelet has looked whether its pod is ready, and
// a pod is not before the unit's first hooks are done.
func reachable(obs state.Observed) bool {
	kube, _ := obs.Kube.Get()
	primary, _ := obs.Primary()
	pod, _ := kube.Pod(primary.Name)
	return pod.Ready && obs.Now.Sub(pod.ReadySince) >= routed
}
