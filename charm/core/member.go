package core

import (
	"fmt"
	"slices"
	"strings"
	"time"

	"charmhub.io/postgresql-k8s/charm/state"
)

// Member wishes this unit's member of the cluster: Patroni, which runs
// PostgreSQL, and the checks that watch both.
type Member struct{}

// Name implements charm.Handler.
func (Member) Name() string { return "member" }

// Desire implements charm.Handler.
func (Member) Desire(obs state.Observed, want *state.Desired) {
	secret, _ := passwords(obs)
	want.REST = secret["patroni-password"]
	server, problem := ready(obs, want.Endpoints)
	if _, connected := obs.Kube.Get(); !connected && !obs.Leaving {
		// No event tells that the API is back, and not every Juju that the charm is
		// trusted now.
		want.Layer = state.Value(state.Layer{Checks: map[string]state.Check{trustCheck: watchTrust(obs.Unit)}})
	}
	if problem != nil {
		want.Problem(*problem)
		workload, _ := obs.Workload.Get()
		if _, watched := workload.Layer.Checks[trustCheck]; watched && obs.Kube.Why() == "" {
			want.Layer = state.Value(state.Layer{Checks: map[string]state.Check{trustCheck: idle()}})
		}
		return
	}
	want.Directory = state.Directory{Path: state.Mount, User: state.SystemUser, Group: state.SystemUser}
	if renew(obs, want, server) {
		want.Layer = state.Value(Layer(obs.Unit, want.Pulse, followers(obs, server)))
		return // first the server, then Patroni, which logs in to it
	}
	want.Patroni = state.Value(state.Patroni{
		Unit: obs.Unit, Server: server,
		Passwords: state.Passwords{
			Operator: secret["operator-password"], Replication: secret["replication-password"],
			Rewind: secret["rewind-password"], REST: want.REST,
		},
	})
	condition(obs, want)
	if workload, _ := obs.Workload.Get(); workload.Resources.Full() {
		want.Pulse = true
		want.Problem(state.Problem{Severity: state.Blocked, Message: state.MessageFull})
	}
	want.Layer = state.Value(Layer(obs.Unit, want.Pulse, followers(obs, server)))
}

// renew wishes that the server takes the passwords of the secret, and tells whether
// there is anything to take. What other units see of that is a matter of moments.
func renew(obs state.Observed, want *state.Desired, server state.Server) bool {
	want.Renew, want.BinDir = renewals(obs), server.BinDir
	if obs.Refused {
		want.Pulse = true
		want.Problem(state.Problem{Severity: state.Waiting, Message: state.MessageRenewing, Soon: true})
	}
	if len(want.Renew) > 0 && obs.Secrets[obs.Unit.PeerSecret()].Cached {
		// The server may know better than what this unit remembers.
		want.Renew, want.Fresh = nil, []string{obs.Unit.PeerSecret()}
		return true
	}
	return len(want.Renew) > 0
}

// ready returns the server to run, or what is missing for one to be run. The
// order is that of a deployment.
func ready(obs state.Observed, store []string) (state.Server, *state.Problem) {
	none := state.Server{}
	wait := func(message string) (state.Server, *state.Problem) {
		return none, &state.Problem{Severity: state.Waiting, Message: message}
	}
	block := func(message string) (state.Server, *state.Problem) {
		return none, &state.Problem{Severity: state.Blocked, Message: message}
	}
	if obs.Leaving {
		return none, &state.Problem{Severity: state.Maintenance, Message: state.MessageStopping}
	}
	if obs.Forbidden {
		return block(state.MessageTrust(obs.Unit.App))
	}
	workload, ok := obs.Workload.Get()
	if !ok {
		return wait(state.MessageContainer(obs.Workload.Why()))
	}
	if err := obs.Config.Err(); err != nil {
		return block(state.MessageConfig(err))
	}
	server, ok := workload.Server()
	if !ok && workload.DataMajor != 0 && len(workload.Servers) > 0 {
		return block(state.MessageMajor(workload.DataMajor))
	}
	if !ok {
		return block(state.MessageImage)
	}
	if workload.Mount.Path == "" {
		return wait(state.MessageStorage)
	}
	if _, ok := passwords(obs); !ok {
		if obs.Leader {
			return wait(state.MessageStarting) // they are being made
		}
		return wait(state.MessageLeader)
	}
	if _, planned := workload.Layer.Services[state.ServiceName]; planned {
		return server, nil // what runs goes on, whatever Kubernetes says now
	}
	kube, ok := obs.Kube.Get()
	if !ok {
		return none, &state.Problem{Severity: state.Waiting, Message: state.MessageKube(obs.Kube.Why()), Soon: true}
	}
	if !storeReady(obs, kube, store) {
		return wait(state.MessageStarting)
	}
	if cluster := kube.Endpoints[obs.Unit.Scope()+"-config"].SystemID; foreign(workload.SystemID, cluster) {
		return block(state.MessageForeign)
	}
	return server, nil
}

// foreign tells whether data are of another cluster than this one.
func foreign(data, cluster string) bool { return data != "" && cluster != "" && data != cluster }

// condition says how the member is.
func condition(obs state.Observed, want *state.Desired) {
	cluster, ok := obs.Cluster.Get()
	wait := func(message string) {
		want.Pulse = true
		want.Problem(state.Problem{Severity: state.Waiting, Message: message, Soon: true})
	}
	if !ok {
		if obs.Silent { // it would be so for the whole hook, and what others say waits for the end of that
			want.Pulse = true
			want.Problem(state.Problem{Severity: state.Waiting, Message: state.MessageStarting})
			return
		}
		wait(state.MessageStarting)
		return
	}
	if cluster.Local.Running() {
		want.Version = cluster.Local.ServerVersion
	}
	_, hasPrimary := cluster.Primary()
	_, connected := obs.Kube.Get()
	me, _ := cluster.Member(obs.Unit.Pod())
	gone := lost(obs, cluster)
	switch {
	case !hasPrimary && cluster.Local.Primary() && (cluster.Away != "" || !connected):
		// Its lock has run out, but it serves on: Patroni asks all members whether
		// they agree, and demotes it if not.
		want.Pulse, want.Message = true, state.MessagePrimary+state.MessageAway
	case !hasPrimary && cluster.Local.Primary():
		wait(state.MessagePromoting) // at the first start, before it has the lock
	case !hasPrimary && (cluster.Local.Running() || cluster.Local.State == "stopped") && (cluster.Away != "" || !connected):
		want.Pulse = true
		want.Problem(state.Problem{Severity: state.Waiting, Message: state.MessageIsolated})
	case cluster.Local.State == "creating replica":
		want.Pulse = true // it may take hours
		want.Problem(state.Problem{Severity: state.Waiting, Message: state.MessageCloning(obs.Cloned)})
	case !hasPrimary && gone != "":
		want.Pulse = true
		want.Problem(state.Problem{Severity: state.Blocked, Message: state.MessageLost(obs.Unit.App, gone)})
	case !hasPrimary:
		wait(state.MessageStarting)
	case !cluster.Local.Running():
		wait(state.MessageMember)
	case me.Name != "" && me.CatchingUp():
		wait(state.MessageCatchingUp)
	case cluster.Local.Primary():
		want.Message = state.MessagePrimary
	case me.Role == "leader":
		wait(state.MessagePromoting)
	default:
		want.Message = replica(me, cluster)
	}
}

// lost is the unit of a primary that was removed before another member had every
// commit: Patroni promotes none, because those commits are on its storage only.
func lost(obs state.Observed, cluster state.Cluster) string {
	units, known := obs.Units.Get()
	kube, connected := obs.Kube.Get()
	primary := kube.Endpoints[obs.Unit.Scope()+"-sync"].Leader
	if !known || !connected || primary == "" || slices.Contains(units, state.UnitName(primary)) ||
		slices.ContainsFunc(cluster.Members, state.Member.Synchronous) {
		return ""
	}
	return state.UnitName(primary)
}

// replica says what there is to say of a replica that follows.
func replica(me state.Member, cluster state.Cluster) string {
	if lag, known := me.Lag.Get(); known && lag >= state.MuchLag {
		return state.MessageLag(lag)
	}
	if len(cluster.Members) != 2 {
		return ""
	}
	if cluster.Dynamic["synchronous_mode_strict"] == true {
		return state.MessageTwoStrict
	}
	return state.MessageTwo
}

// followers is the check that sees when other replicas follow this member: it is
// for the primary only.
func followers(obs state.Observed, server state.Server) state.Check {
	cluster, _ := obs.Cluster.Get()
	streaming, known := obs.Streaming.Get()
	if !known || !cluster.Local.Primary() {
		return idle()
	}
	command := fmt.Sprintf("/bin/bash %s %s %s '%s'",
		state.FollowersScript, server.BinDir, obs.Unit.App, strings.Join(streaming, ","))
	return state.Check{
		Override: "replace", Startup: "enabled", Period: 3 * second, Timeout: 2 * second, Threshold: 1,
		Exec: state.ExecCheck{User: state.SystemUser, Command: command},
	}
}

// idle is a check that does nothing. Pebble goes on running a check whose startup
// changes to disabled (seen with 1.26), but takes on any other change.
func idle() state.Check {
	return state.Check{
		Override: "replace", Startup: "enabled", Period: 24 * hour, Timeout: second, Threshold: 1,
		Exec: state.ExecCheck{User: state.SystemUser, Command: "/bin/true"},
	}
}

// Units of the plan's durations.
const (
	millisecond = state.Duration(time.Millisecond)
	second      = state.Duration(time.Second)
	minute      = state.Duration(time.Minute)
	hour        = state.Duration(time.Hour)
)

// Layer is our part of Pebble's plan
// (https://documentation.ubuntu.com/pebble/reference/layer-specification/).
func Layer(unit state.Unit, pulse bool, followers state.Check) state.Layer {
	member := func(path string) state.HTTPCheck {
		return state.HTTPCheck{URL: fmt.Sprintf("http://localhost:%d%s", state.PatroniPort, path)}
	}
	return state.Layer{
		Services: map[string]state.Service{
			state.ServiceName: {
				Override: "replace",
				Summary:  "Patroni, which runs PostgreSQL",
				Command:  "/bin/bash " + state.SuperviseScript + " " + state.PatroniYML,
				Startup:  "enabled",
				User:     state.SystemUser,
				Group:    state.SystemUser,
				// A fast shutdown writes a checkpoint first, which takes minutes
				// when much of the cache is dirty. SIGKILL loses nothing, but
				// costs the recovery.
				KillDelay: 5 * minute,
				Environment: map[string]string{
					"LC_ALL": "C.UTF-8",
					// resolv.conf(5). A primary that is cut off has no name server, either: it
					// must not wait for one for longer than its lock lasts.
					"RES_OPTIONS": "timeout:1 attempts:2",
				},
			},
		},
		Checks: map[string]state.Check{
			// Gates the Services and a rolling update. There is no check of level
			// alive: Kubernetes must never kill a database that is busy.
			state.ServiceName: {
				Override: "replace", Level: "ready", Startup: "enabled",
				Period: second, Timeout: second, Threshold: 3, HTTP: member("/health"),
			},
			// Only wakes the charm: Juju runs it when a check fails or recovers, and this
			// one fails once when the member's role has changed (patroni.py).
			"role": {
				Override: "replace", Startup: "enabled",
				Period: 500 * millisecond, Timeout: 500 * millisecond, Threshold: 1, TCP: state.TCPCheck{Port: state.RolePort, Host: "127.0.0.1"},
			},
			// Keeps a frozen Patroni from freezing the cluster.
			"frozen": {
				Override: "replace", Startup: "enabled",
				Period: 3 * second, Timeout: 2900 * millisecond, Threshold: 1, Exec: state.ExecCheck{Command: "/bin/bash " + state.WatchScript, User: state.SystemUser},
			},
			"followers": followers,
			"pulse":     beat(pulse),
			trustCheck:  idle(),
		},
	}
}

// beat is a check that changes its mind every 15 seconds, and each time wakes the
// charm.
func beat(wanted bool) state.Check {
	if !wanted {
		return idle()
	}
	return state.Check{
		Override: "replace", Startup: "enabled", Period: 5 * second, Timeout: 2 * second, Threshold: 1,
		Exec: state.ExecCheck{User: state.SystemUser, Command: `/bin/bash -c 'printf -v now "%(%s)T" && exit $((now / 15 % 2))'`},
	}
}

// trustCheck is a check that wakes the charm when the Kubernetes API answers, and the
// application is trusted.
const trustCheck = "trust"

// watchTrust asks the Kubernetes API for what an untrusted application may not
// see. It is written in Python because that is what Patroni brings along. It fails
// once it gets that, and never before: Pebble takes a new check for healthy and tells
// only of changes, so this wakes the charm even when the first run gets it.
func watchTrust(unit state.Unit) state.Check {
	return state.Check{
		Override: "replace", Startup: "enabled", Period: 3 * second, Timeout: 3 * second, Threshold: 1,
		Exec: state.ExecCheck{Command: fmt.Sprintf(`/bin/bash -c '! timeout 2 python3 -c "$0" "$1"' '%s' %s`, trustScript, unit.Model)},
	}
}

// trustScript takes the namespace as its argument; it exits 0 with the right.
const trustScript = `import os, ssl, sys, urllib.request as u; ` +
	`d = "/var/run/secrets/kubernetes.io/serviceaccount/"; e = os.environ; ` +
	`h, p = e["KUBERNETES_SERVICE_HOST"], e["KUBERNETES_SERVICE_PORT"]; ` +
	`h = "[" + h + "]" if ":" in h else h; ` +
	`u.urlopen(u.Request(f"https://{h}:{p}/api/v1/namespaces/{sys.argv[1]}/endpoints?limit=1", ` +
	`headers={"Authorization": "Bearer " + open(d + "token").read()}), ` +
	`context=ssl.create_default_context(cafile=d + "ca.crt"), timeout=2)`
