package clients

import (
	"crypto/sha256"
	"encoding/hex"
	"maps"
	"slices"
	"strings"

	"charmhub.io/postgresql-k8s/charm/state"
)

// Handler keeps the record of the client relations, and forgets those that are
// gone. It comes before the handlers of the endpoints, which write in the record.
type Handler struct{}

// Name implements charm.Handler.
func (Handler) Name() string { return "clients" }

// Desire implements charm.Handler. Only the leader keeps the record. One that is
// removed goes on until there is another, which takes up to a minute, and may have
// handed the primary over itself; but it forgets nobody: Juju hides relations from it.
func (Handler) Desire(obs state.Observed, want *state.Desired) {
	if _, related := obs.Relations.Peer(); !obs.Leader || !related {
		return
	}
	want.Clients = maps.Clone(obs.Clients)
	if want.Clients == nil {
		want.Clients = map[int]state.Client{}
	}
	if obs.Event.Name == "leader-elected" {
		renounce(obs, want)
	}
	if !obs.Leaving {
		forget(obs, want)
	}
}

// renounce takes back what the record says this unit has looked at, but in this
// dispatch: it was elected again, and nobody may have led in between.
func renounce(obs state.Observed, want *state.Desired) {
	for id, client := range want.Clients {
		if r, _ := obs.Relations.ByID(id); client.Leader == obs.Unit.Name && !r.Read {
			client.Leader = ""
			want.Clients[id] = client
		}
	}
}

// An Endpoint is one through which applications get a database.
type Endpoint struct {
	Name string
	// Outdated tells whether a relation was told something that is no longer so.
	Outdated func(state.Relation, state.Client) bool
	// Serve wishes what a relation asks for, and returns its record.
	Serve func(state.Relation) state.Client
}

// Desire serves the relations that were read, and looks at those that are outdated
// or due. Where no record is kept nobody is served.
func (e Endpoint) Desire(obs state.Observed, want *state.Desired) {
	if want.Clients == nil {
		return
	}
	read := len(want.Look)
	for _, endpoint := range state.DatabaseEndpoints {
		for _, relation := range obs.Relations[endpoint] {
			if relation.Read {
				read++
			}
		}
	}
	for _, relation := range obs.Relations[e.Name] {
		client := want.Clients[relation.ID]
		switch {
		case relation.Read && client.Digest != "" && client.Digest != Pending && !servable(obs):
			// What it was told stays, and it is due when there is something to tell: to
			// serve it from the beginning would take longer, as in a failover.
			client.Leader = ""
			want.Clients[relation.ID] = client
		case relation.Read:
			client = e.Serve(relation)
			client.Leader = obs.Unit.Name
			if client.App != "" {
				want.Clients[relation.ID] = client
			}
		case !due(obs, client) && !e.Outdated(relation, client):
		case read < atOnce:
			want.Look = append(want.Look, relation.ID)
			read++
		default:
			want.Again = true
		}
		if client.Problem != "" {
			want.Problem(state.Problem{Severity: state.Blocked, Message: client.Problem})
		}
	}
}

// due tells whether a relation that is on record, and could be served now, has not
// been seen by this leader, or was refused a name that is free again.
func due(obs state.Observed, client state.Client) bool {
	if !servable(obs) || client.App == "" {
		return false
	}
	catalog, _ := obs.Database.Get()
	return client.Leader != obs.Unit.Name ||
		slices.ContainsFunc(client.Taken, func(name string) bool { return !Taken(catalog, name) })
}

// servable tells whether there are facts to serve anybody by.
func servable(obs state.Observed) bool {
	_, published := obs.Published().Get()
	_, connected := obs.Database.Get()
	return published && connected
}

// atOnce is how many relations are rewritten in one dispatch: each takes some
// calls of Juju, and what was written reaches the clients when the hook ends.
const atOnce = 50

// Pending is the digest of a relation that has not got all of its reply.
const Pending = state.PendingDigest

// Digest stands for what a relation was told, in its record.
func Digest(parts ...string) string {
	sum := sha256.Sum256([]byte(strings.Join(parts, "\n")))
	return hex.EncodeToString(sum[:4])
}

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
		if id, made := RelationOf(catalog.Roles[name]); made && !alive(id) {
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
