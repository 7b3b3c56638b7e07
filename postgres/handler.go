package postgres

import (
	"strconv"
	"strings"

	"charmhub.io/postgresql-k8s/charm/state"
)

// Handler wishes the settings and the client authentication of the members.
type Handler struct{}

// Name implements charm.Handler.
func (Handler) Name() string { return "postgres" }

// Desire implements charm.Handler.
func (Handler) Desire(obs state.Observed, want *state.Desired) {
	workload, ok := obs.Workload.Get()
	if !ok {
		return
	}
	server, ok := workload.Server()
	if !ok {
		return
	}
	want.Parameters = Parameters(server, workload.Resources, obs.Config)
	want.HBA, want.Ident = HBA(), Ident()
	if peer, _ := obs.Relations.Peer(); peer.LocalApp[state.UpstreamKey] != "" {
		want.HBA = ofUpstream(want.HBA, peer.LocalApp[state.ClientsKey])
	}
	want.Shared = SharedParameters(cpus(obs, want, workload.Resources), workload.Resources.Volume, obs.Config)
}

// cpus are those that the settings of all members go by: of the leader who was first.
// The next one may be on another kind of node, and a change restarts all servers.
func cpus(obs state.Observed, want *state.Desired, r state.Resources) int {
	peer, related := obs.Relations.Peer()
	if n, err := strconv.Atoi(peer.LocalApp[state.CPUsKey]); err == nil && n > 0 {
		return n
	}
	n := max(int(r.CPUs), 1)
	if related && obs.Leader && r.CPUs > 0 {
		want.Databags = append(want.Databags, state.Databag{Relation: peer.ID, Content: map[string]string{state.CPUsKey: strconv.Itoa(n)}})
	}
	return n
}

// ofUpstream lets in whom upstream has made, after a refresh from it. Some of them may
// have an MD5 verifier until they are given their password anew: md5 takes both kinds
// (https://www.postgresql.org/docs/17/auth-password.html). And the users of relations
// are in none of the groups that the lines go by until a leader of ours has served
// them, which may be when the last pod is replaced; a unit that was refreshed may be
// the primary before that. Until then the privileges confine them which upstream gave:
// it took those of everybody from each database.
func ofUpstream(hba []string, record string) []string {
	clients, err := state.ParseClients(record)
	served := err == nil && !state.Serving(clients)
	var lines []string
	for _, line := range hba {
		if line != rejectOthers || served {
			lines = append(lines, strings.Replace(line, "scram-sha-256", "md5", 1))
		}
	}
	return lines
}
