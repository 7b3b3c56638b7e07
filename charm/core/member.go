package core

import (
	"fmt"

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
	if obs.Forbidden && !obs.Leaving {
		// Not every Juju tells the charm that it is trusted now.
		want.Layer = state.Value(state.Layer{Checks: map[string]state.Check{trustCheck: watchTrust(obs.Unit, "enabled")}})
	}
	if problem != nil {
		want.Problem(*problem)
		return
	}
	want.Directory = state.Directory{Path: state.Mount, User: state.SystemUser, Group: state.SystemUser}
	want.Patroni = state.Value(state.Patroni{
		Unit: obs.Unit, Server: server,
		Passwords: state.Passwords{
			Operator: secret["operator-password"], Replication: secret["replication-password"],
			Rewind: secret["rewind-password"], REST: want.REST,
		},
	})
	want.Layer = state.Value(Layer(obs.Unit))
	condition(obs, want)
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
	if !storeReady(kube, store) {
		return wait(state.MessageStarting)
	}
	return server, nil
}

// condition says how the member is.
func condition(obs state.Observed, want *state.Desired) {
	cluster, ok := obs.Cluster.Get()
	if !ok {
		want.Problem(state.Problem{Severity: state.Waiting, Message: state.MessageStarting, Soon: true})
		return
	}
	_, hasPrimary := cluster.Primary()
	me, _ := cluster.Member(obs.Unit.Pod())
	switch {
	case !hasPrimary:
		want.Problem(state.Problem{Severity: state.Waiting, Message: state.MessageStarting, Soon: true})
	case cluster.Local.State != "running":
		want.Problem(state.Problem{Severity: state.Waiting, Message: state.MessageMember, Soon: true})
	case me.Name != "" && me.CatchingUp():
		want.Problem(state.Problem{Severity: state.Waiting, Message: state.MessageCatchingUp, Soon: true})
	case cluster.Local.Role == "primary" || cluster.Local.Role == "master": // master: Patroni 3
		want.Message = state.MessagePrimary
	}
	if cluster.Local.State == "running" {
		want.Version = cluster.Local.ServerVersion
	}
}

// Layer is our part of Pebble's plan
// (https://documentation.ubuntu.com/pebble/reference/layer-specification/).
func Layer(unit state.Unit) state.Layer {
	member := func(path string) state.HTTPCheck {
		return state.HTTPCheck{URL: fmt.Sprintf("http://localhost:%d%s", state.PatroniPort, path)}
	}
	return state.Layer{
		Services: map[string]state.Service{
			state.ServiceName: {
				Override: "replace",
				Summary:  "Patroni, which runs PostgreSQL",
				Command:  "patroni " + state.PatroniYML,
				Startup:  "enabled",
				User:     state.SystemUser,
				Group:    state.SystemUser,
				// A fast shutdown writes a checkpoint first, which takes minutes
				// when much of the cache is dirty. SIGKILL loses nothing, but
				// costs the recovery.
				KillDelay:   "5m0s",
				Environment: map[string]string{"LC_ALL": "C.UTF-8"},
			},
		},
		Checks: map[string]state.Check{
			// Gates the Services and a rolling update. There is no check of level
			// alive: Kubernetes must never kill a database that is busy.
			state.ServiceName: {
				Override: "replace", Level: "ready", Startup: "enabled",
				Period: "1s", Timeout: "1s", Threshold: 3, HTTP: member("/health"),
			},
			// Only wakes the charm: Juju runs it when a check fails or recovers,
			// and this one does as soon as the member's role changes.
			"primary": {
				Override: "replace", Startup: "enabled",
				Period: "1s", Timeout: "1s", Threshold: 1, HTTP: member("/primary"),
			},
			// Keeps a frozen Patroni from freezing the cluster.
			"frozen": {
				Override: "replace", Startup: "enabled",
				Period: "3s", Timeout: "2.9s", Threshold: 1, Exec: state.ExecCheck{Command: "/bin/bash " + state.WatchScript},
			},
			trustCheck: watchTrust(unit, "disabled"),
		},
	}
}

// trustCheck is a check that wakes the charm when the application is trusted.
const trustCheck = "trust"

// watchTrust asks the Kubernetes API for what an untrusted application may not
// see. It is written in Python because that is what Patroni brings along.
func watchTrust(unit state.Unit, startup string) state.Check {
	return state.Check{
		Override: "replace", Startup: startup, Period: "2s", Timeout: "2s", Threshold: 1,
		Exec: state.ExecCheck{Command: fmt.Sprintf("python3 -c '%s' %s", trustScript, unit.Model)},
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
