package actions

import (
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
	"text/tabwriter"

	"charmhub.io/postgresql-k8s/charm/state"
)

// status tells how the cluster is, what its clients are told, and what is wrong
// with it: for programs key by key, for people as a table.
var status = Action{Name: "status", Begin: question(func(obs state.Observed, want state.Desired) (map[string]string, error) {
	results := map[string]string{}
	var table strings.Builder
	clusterStatus(obs, results, &table)
	relationStatus(obs, results, &table)
	problemStatus(findings(obs, want), results, &table)
	results["table"] = strings.TrimRight(table.String(), "\n")
	return results, nil
})}

// columns writes lines of cells that are separated by tabs.
func columns(out *strings.Builder, lines ...string) {
	w := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
	fmt.Fprintln(w, strings.Join(lines, "\n")) // a strings.Builder takes everything
	_ = w.Flush()
}

// roleName is a role in the words of the documentation.
func roleName(m state.Member) string {
	switch m.Role {
	case "leader":
		return "primary"
	case "standby_leader":
		return "standby leader"
	}
	return "replica"
}

// syncState tells whether commits wait for a member.
func syncState(m state.Member) string {
	switch m.Role {
	case "leader", "standby_leader":
		return "-"
	case "sync_standby":
		return "sync"
	case "quorum_standby":
		return "quorum"
	}
	return "async"
}

func lag(m state.Member) string {
	if m.Role == "leader" {
		return "-"
	}
	if bytes, known := m.Lag.Get(); known {
		return strconv.FormatInt(bytes, 10)
	}
	return "unknown"
}

func clusterStatus(obs state.Observed, results map[string]string, table *strings.Builder) {
	cluster, ok := obs.Cluster.Get()
	if !ok {
		return // among the problems
	}
	results["cluster.patroni"] = cluster.Local.Version
	results["cluster.members"] = strconv.Itoa(len(cluster.Members))
	if mode := cluster.Dynamic["synchronous_mode"]; mode != nil {
		results["cluster.synchronous-mode"] = fmt.Sprint(mode)
		results["cluster.synchronous-node-count"] = fmt.Sprint(cluster.Dynamic["synchronous_node_count"])
		results["cluster.synchronous-mode-strict"] = fmt.Sprint(cluster.Dynamic["synchronous_mode_strict"])
	}
	if cluster.Local.ServerVersion != "" {
		results["cluster.postgresql"] = cluster.Local.ServerVersion
	}
	if primary, ok := cluster.Primary(); ok {
		results["cluster.primary"], results["cluster.timeline"] = state.UnitName(primary.Name), strconv.Itoa(primary.Timeline)
	}
	lines := []string{"UNIT\tROLE\tSTATE\tTIMELINE\tLAG (BYTES)\tSYNC\tPENDING RESTART"}
	for _, m := range cluster.Members {
		pending := map[bool]string{true: "yes", false: "no"}[m.PendingRestart]
		for key, value := range map[string]string{
			"unit": state.UnitName(m.Name), "role": roleName(m), "state": m.State, "timeline": strconv.Itoa(m.Timeline),
			"lag": lag(m), "sync": syncState(m), "pending-restart": pending,
		} {
			results["members."+m.Name+"."+key] = value
		}
		lines = append(lines, strings.Join([]string{
			state.UnitName(m.Name), roleName(m), m.State, strconv.Itoa(m.Timeline), lag(m), syncState(m), pending,
		}, "\t"))
	}
	columns(table, lines...)
}

// relationStatus tells what clients are told. Only the leader knows.
func relationStatus(obs state.Observed, results map[string]string, table *strings.Builder) {
	if !obs.Leader {
		results["relations"] = "juju run " + obs.Unit.App + "/leader status tells them"
		return
	}
	if e, ok := obs.Published().Get(); ok {
		for key, value := range map[string]string{
			"primary": e.Primary, "read-only": e.ReadOnly, "primary-service": e.PrimaryService, "replicas-service": e.ReplicasService,
		} {
			results["endpoints."+key] = value
		}
		fmt.Fprintln(table)
		columns(table, "ENDPOINTS\t", "primary\t"+e.Primary, "read-only\t"+e.ReadOnly)
	}
	lines := []string{"RELATION\tAPPLICATION\tENDPOINT\tSTATE"}
	for _, endpoint := range slices.Sorted(maps.Keys(obs.Relations)) {
		if endpoint == state.PeerEndpoint || endpoint == state.UpgradeEndpoint {
			continue
		}
		for _, r := range obs.Relations[endpoint] {
			id, how := strconv.Itoa(r.ID), relationState(obs.Clients[r.ID])
			for key, value := range map[string]string{"application": r.RemoteApp, "endpoint": endpoint, "state": how} {
				results["relations."+id+"."+key] = value
			}
			lines = append(lines, strings.Join([]string{id, r.RemoteApp, endpoint, how}, "\t"))
		}
	}
	if len(lines) > 1 {
		fmt.Fprintln(table)
		columns(table, lines...)
	}
}

func relationState(client state.Client) string {
	switch {
	case client.Problem != "":
		return "refused"
	case client.Digest == "":
		return "asked for nothing yet"
	case client.Digest == state.PendingDigest:
		return "being served"
	case client.Digest == state.HeldDigest:
		return "waits: it has another relation, and is to have one"
	}
	return "served"
}

// A finding is something that is wrong, why, and what to do about it.
type finding struct{ severity, cause, cure string }

// findings are what the charm itself finds wrong with this unit, and what the
// members' states tell beyond that.
func findings(obs state.Observed, want state.Desired) []finding {
	var list []finding
	add := func(severity, cause, cure string) { list = append(list, finding{severity, cause, cure}) }
	refused := func(message string) bool { // a client's, which is named below
		return slices.ContainsFunc(slices.Collect(maps.Values(obs.Clients)), func(c state.Client) bool { return c.Problem == message })
	}
	for _, p := range want.Problems {
		if refused(p.Message) {
			continue
		}
		cause, cure, found := strings.Cut(p.Message, ", try: ")
		if !found {
			cause, cure, found = strings.Cut(p.Message, ": ")
		}
		switch {
		case p.Message == state.MessageRefreshPaused:
			cause, cure = p.Message, fmt.Sprintf("look at the unit, then juju run %s/leader resume-upgrade; or go back: juju refresh to what was before", obs.Unit.App)
		case p.Severity != state.Blocked:
			cause = p.Message
			cure = "wait; if it does not end: juju debug-log --include unit-" + strings.ReplaceAll(obs.Unit.Name, "/", "-")
		case !found && obs.Leader:
			cure = "juju remove-relation the one that is not wanted: the table of relations has all"
		case !found:
			cure = "juju run " + obs.Unit.App + "/leader status tells whose relation it is"
		}
		add(p.Severity.String(), cause, cure)
	}
	cluster, ok := obs.Cluster.Get()
	if !ok {
		add("waiting", "this unit's member does not answer: "+obs.Cluster.Why(), "look at the unit's status, and ask another unit")
		return list
	}
	if cluster.Away != "" {
		cure := "look after the network of its node and the Kubernetes API; it joins the others by itself"
		if cluster.Local.Primary() {
			cure = "look after the Kubernetes API; this primary serves on as long as all members agree to that"
		}
		add("waiting", "this unit's member cannot reach the Kubernetes API: "+cluster.Away, cure)
		return list
	}
	primary, hasPrimary := cluster.Primary()
	if !hasPrimary {
		add("waiting", "there is no primary", "wait half a minute for an election; then look at the units whose members do not run")
	}
	for _, m := range cluster.Members {
		unit, reinit := state.UnitName(m.Name), fmt.Sprintf("juju run %s reinitialize confirm=%s", state.UnitName(m.Name), state.UnitName(m.Name))
		behind, known := m.Lag.Get()
		switch {
		case m.State == "creating replica":
			add("waiting", unit+" copies the primary", "nothing: there is no time limit for a copy")
		case !m.Running():
			add("waiting", fmt.Sprintf("%s is %s", unit, m.State), "look at its status; if it cannot follow any more, "+reinit)
		case hasPrimary && m.Timeline != primary.Timeline && m.Timeline != 0:
			add("waiting", fmt.Sprintf("%s is on timeline %d, the primary on %d", unit, m.Timeline, primary.Timeline), "wait a minute; if that does not end, "+reinit)
		case known && behind >= state.MuchLag:
			add("waiting", fmt.Sprintf("%s is %d MB behind the primary", unit, behind>>20), "check its volume and network; if it grows on and on, "+reinit)
		case m.PendingRestart:
			add("waiting", unit+" has settings that wait for a restart", "the leader restarts it; juju run "+obs.Unit.App+"/leader restart does so for all")
		}
	}
	if units, known := obs.Units.Get(); known {
		for _, unit := range units {
			if !slices.ContainsFunc(cluster.Members, func(m state.Member) bool { return state.UnitName(m.Name) == unit }) {
				add("waiting", unit+" has no member", "wait for it to start; if it does not, look at its status")
			}
		}
	}
	for _, id := range slices.Sorted(maps.Keys(obs.Clients)) {
		if c := obs.Clients[id]; c.Problem != "" {
			r, _ := obs.Relations.ByID(id)
			add("blocked", fmt.Sprintf("relation %d with %s is refused: %s", id, c.App, c.Problem),
				fmt.Sprintf("have %s ask for something else, or juju remove-relation %s:%s %s", c.App, obs.Unit.App, r.Endpoint, c.App))
		}
	}
	return list
}

func problemStatus(list []finding, results map[string]string, table *strings.Builder) {
	results["problems-count"] = strconv.Itoa(len(list))
	lines := []string{"PROBLEM\tCAUSE\tCURE"}
	for i, f := range list {
		key := "problems." + strconv.Itoa(i+1) + "."
		results[key+"severity"], results[key+"cause"], results[key+"cure"] = f.severity, f.cause, f.cure
		lines = append(lines, f.severity+"\t"+f.cause+"\t"+f.cure)
	}
	if len(list) > 0 {
		fmt.Fprintln(table)
		columns(table, lines...)
	}
}
