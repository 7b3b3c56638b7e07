package core

import (
	"maps"
	"slices"

	"charmhub.io/postgresql-k8s/charm/state"
)

// Objects wishes what the application has in Kubernetes: the Services that
// clients use, the labels by which Patroni finds its members, and Patroni's own
// objects, which are to go when the application goes.
type Objects struct{}

// Name implements charm.Handler.
func (Objects) Name() string { return "objects" }

// Desire implements charm.Handler.
func (Objects) Desire(obs state.Observed, want *state.Desired) {
	if obs.Leaving {
		return
	}
	app, scope := obs.Unit.App, obs.Unit.Scope()
	ours := map[string]string{"app.kubernetes.io/name": app}
	want.PodLabels = obs.Unit.Labels()

	ports := []state.Port{{Name: "api", Number: state.PatroniPort}, {Name: "database", Number: state.PostgresPort}}
	for _, s := range []struct{ name, role string }{{app + "-primary", "primary"}, {app + "-replicas", "replica"}} {
		want.Services = append(want.Services, state.KubeService{
			Name: s.name, Labels: ours, Ports: ports,
			// Patroni moves the role label when the role moves.
			Selector: map[string]string{"app.kubernetes.io/name": app, "cluster-name": scope, state.RoleLabel: s.role},
		})
	}
	// A headless Service without pods: without one of its name, Kubernetes may
	// take an Endpoints object for a left-over and delete it.
	want.Services = append(want.Services, state.KubeService{Name: scope + "-config", Labels: state.With(ours, want.PodLabels)})
	want.Endpoints = []string{scope, scope + "-config", scope + "-sync"}

	kube, ok := obs.Kube.Get()
	if !ok {
		return
	}
	want.Demoted = impostors(obs, kube)
	for _, name := range slices.Sorted(maps.Keys(kube.Endpoints)) {
		if leftover(obs, kube.Endpoints[name], kube.Owner) {
			want.Leftovers = append(want.Leftovers, name)
		}
	}
}

// impostors are the pods that the Service of the primary leads to besides this
// one, which is the primary's. An old primary that is cut off or frozen cannot
// take its label off.
func impostors(obs state.Observed, kube state.Kube) []string {
	cluster, _ := obs.Cluster.Get()
	primary, ok := cluster.Primary()
	if !ok || primary.Name != obs.Unit.Pod() || !cluster.Local.Primary() {
		return nil
	}
	var names []string
	for _, pod := range kube.Pods {
		if pod.Name != primary.Name && pod.Labels[state.RoleLabel] == "primary" {
			names = append(names, pod.Name)
		}
	}
	return names
}

// leftover tells whether a dead application of the same name left the object:
// somebody else owns it, or nobody does and it is older than the application's
// StatefulSet. Once the application has had a primary the objects are its own: Juju
// makes the StatefulSet anew around living pods when storage is resized, and then
// nobody owns them for a moment, or one that is gone.
func leftover(obs state.Observed, e state.Endpoints, owner state.Owner) bool {
	switch {
	case e.OwnerUID == owner.UID, initialised(obs):
		return false
	case e.OwnerUID == "":
		return e.Created.Before(owner.Created)
	}
	return true
}

// storeReady tells whether Patroni's objects are all this application's, so that
// a member neither joins a dead namesake's cluster nor outlives its own. Nobody owns
// those of a cluster that upstream made, until a leader of ours does that.
func storeReady(obs state.Observed, kube state.Kube, wished []string) bool {
	for _, name := range wished {
		if _, exists := kube.Endpoints[name]; !exists {
			return false
		}
	}
	for _, e := range kube.Endpoints {
		if leftover(obs, e, kube.Owner) {
			return false
		}
	}
	return kube.Owner.UID != ""
}
