package actions

import (
	"encoding/json"
	"fmt"
	"maps"
	"slices"

	"charmhub.io/postgresql-k8s/charm/state"
)

// report gathers what somebody who helps wants to know, as one JSON text. Nothing
// that is secret is in it: values that may be are left out by name, and those of
// type state.Redacted print as such.
var report = Action{Name: "report", Begin: question(func(obs state.Observed, want state.Desired) (map[string]string, error) {
	cluster, _ := obs.Cluster.Get()
	problems := []map[string]string{}
	for _, f := range findings(obs, want) {
		problems = append(problems, map[string]string{"severity": f.severity, "cause": f.cause, "cure": f.cure})
	}
	bundle := map[string]any{
		"unit": obs.Unit, "leader": obs.Leader, "leaving": obs.Leaving, "time": obs.Now,
		"units": known(obs.Units), "forbidden": obs.Forbidden,
		"options":         obs.Config.Set(),
		"cluster":         cluster.Local,
		"cluster-away":    cluster.Away + obs.Cluster.Why(),
		"members":         memberFacts(cluster),
		"dynamic":         cluster.Dynamic,
		"streaming":       known(obs.Streaming),
		"workload":        workloadFacts(obs),
		"kubernetes":      known(obs.Kube),
		"database":        catalogFacts(obs),
		"secrets":         secretFacts(obs),
		"relations":       relationFacts(obs),
		"wished-settings": want.Parameters, "wished-shared-settings": want.Shared, "pg-hba": want.HBA,
		"status": want.Status().Severity.String() + ": " + want.Status().Message, "problems": problems,
	}
	text, err := json.MarshalIndent(bundle, "", " ")
	if err != nil {
		return nil, fmt.Errorf("cannot write the report: %w", err)
	}
	return map[string]string{"report": truncate(string(text))}, nil
})}

// longestReport is what one argument of a hook tool can hold, in bytes: Linux allows
// 128 KiB.
const longestReport = 120 << 10

func truncate(text string) string {
	const cut = "\n... cut: the report is too long"
	if len(text) <= longestReport {
		return text
	}
	return text[:longestReport-len(cut)] + cut
}

// known is a fact, or why it is none.
func known[T any](fact state.Known[T]) any {
	if value, ok := fact.Get(); ok {
		return value
	}
	return "unknown: " + fact.Why()
}

func memberFacts(cluster state.Cluster) []map[string]any {
	var list []map[string]any
	for _, m := range cluster.Members {
		list = append(list, map[string]any{
			"name": m.Name, "role": m.Role, "state": m.State, "host": m.Host, "timeline": m.Timeline,
			"lag": known(m.Lag), "pending-restart": m.PendingRestart,
		})
	}
	return list
}

// workloadFacts are the workload's without the contents of files.
func workloadFacts(obs state.Observed) any {
	w, ok := obs.Workload.Get()
	if !ok {
		return known(obs.Workload)
	}
	files := map[string]string{}
	for path, f := range w.Files {
		files[path] = fmt.Sprintf("%d bytes, %s:%s %03o", len(f.Content.Reveal()), f.User, f.Group, f.Mode)
	}
	return map[string]any{
		"services": w.Services, "layer": w.Layer, "files": files, "mount": w.Mount, "servers": w.Servers,
		"data-major": w.DataMajor, "system-id": w.SystemID, "resources": w.Resources,
	}
}

// catalogFacts are the roles and databases: who may what, and no verifier.
func catalogFacts(obs state.Observed) any {
	catalog, ok := obs.Database.Get()
	if !ok {
		return known(obs.Database)
	}
	return map[string]any{"version": catalog.Version, "roles": catalog.Roles, "databases": catalog.Databases}
}

// secretFacts are the keys of secrets.
func secretFacts(obs state.Observed) map[string]any {
	facts := map[string]any{}
	for label, s := range obs.Secrets {
		facts[label] = map[string]any{"keys": slices.Sorted(maps.Keys(s.Content)), "committed": s.Committed, "cached": s.Cached}
	}
	return facts
}

// harmless are the keys of databags whose values are no secret.
var harmless = []string{
	"database", "endpoints", "read-only-endpoints", "version", "extra-user-roles", "requested-secrets", "external-node-connectivity",
	state.InitialisedKey, state.CPUsKey, "secret-user", "secret-tls", state.StackKey, state.PreparedKey, state.ResumedKey, state.PublishedKey, state.ToldKey,
}

func relationFacts(obs state.Observed) []map[string]any {
	values := func(bag map[string]string) map[string]string {
		shown := map[string]string{}
		for key, value := range bag {
			if !slices.Contains(harmless, key) {
				value = fmt.Sprintf("%d bytes", len(value))
			}
			shown[key] = value
		}
		return shown
	}
	var list []map[string]any
	for _, endpoint := range slices.Sorted(maps.Keys(obs.Relations)) {
		for _, r := range obs.Relations[endpoint] {
			list = append(list, map[string]any{
				"id": r.ID, "endpoint": endpoint, "application": r.RemoteApp, "read": r.Read,
				"remote": values(r.Remote), "local": values(r.LocalApp), "state": relationState(obs.Clients[r.ID]), "problem": obs.Clients[r.ID].Problem,
			})
		}
	}
	return list
}
