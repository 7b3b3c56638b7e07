package kube

import (
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"golang.org/x/sync/errgroup"
	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"charmhub.io/postgresql-k8s/charm/state"
)

// NameLabel is the label by which Juju marks what belongs to an application.
const NameLabel = "app.kubernetes.io/name"

// System is the application's part of the Kubernetes API.
type System struct {
	api    API
	unit   state.Unit
	domain string      // of the cluster
	owner  state.Owner // as last observed
}

// New returns the objects of the unit's application; resolv is the content of
// the pod's resolv.conf.
func New(api API, unit state.Unit, resolv string) *System {
	return &System{api: api, unit: unit, domain: Domain(resolv, unit.Model)}
}

// Domain reads the domain of the cluster from a pod's search path
// (https://kubernetes.io/docs/concepts/services-networking/dns-pod-service/).
func Domain(resolv, namespace string) string {
	for line := range strings.Lines(resolv) {
		fields := strings.Fields(line)
		if len(fields) < 2 || fields[0] != "search" {
			continue
		}
		for _, name := range fields[1:] {
			if domain, ok := strings.CutPrefix(name, namespace+".svc."); ok && domain != "" {
				return strings.TrimSuffix(domain, ".")
			}
		}
	}
	return "cluster.local"
}

// Name implements charm.System.
func (s *System) Name() string { return "kubernetes" }

// Observe implements charm.System. When the API refuses a right, or is away, its
// objects are unknown.
func (s *System) Observe(ctx context.Context, obs *state.Observed) error {
	kube, err := s.read(ctx)
	obs.Forbidden = apierrors.IsForbidden(err)
	if err != nil {
		obs.Kube = state.Unknown[state.Kube](err.Error())
		return nil
	}
	s.owner = kube.Owner
	obs.Kube = state.Value(kube)
	return nil
}

func (s *System) read(ctx context.Context) (state.Kube, error) {
	var pods corev1.PodList
	var services corev1.ServiceList
	var endpoints metav1.PartialObjectMetadataList // of corev1.Endpoints, which is deprecated but is what Patroni uses
	var set appsv1.StatefulSet                     // Juju's, of the application's name
	g, gctx := errgroup.WithContext(ctx)
	app := NameLabel + "=" + s.unit.App
	g.Go(func() error { return s.api.Read(gctx, "pods", app, &pods) })
	g.Go(func() error { return s.api.Read(gctx, "services", app, &services) })
	g.Go(func() error { return s.api.Read(gctx, "endpoints", "cluster-name="+s.unit.Scope(), &endpoints) })
	g.Go(func() error {
		err := s.api.Read(gctx, "statefulsets/"+s.unit.App, "", &set)
		if apierrors.IsNotFound(err) { // the application goes, or Juju is making it anew
			return nil
		}
		return err
	})
	if err := g.Wait(); err != nil {
		return state.Kube{}, err
	}
	kube := state.Kube{
		Domain: s.domain, Services: map[string]state.KubeService{}, Endpoints: map[string]state.Endpoints{},
		Owner:   state.Owner{Name: set.Name, UID: string(set.UID), Created: set.CreationTimestamp.Time},
		Rollout: rollout(set),
	}
	for _, p := range pods.Items {
		kube.Pods = append(kube.Pods, podFacts(p))
	}
	for _, service := range services.Items {
		kube.Services[service.Name] = serviceFacts(service, kube.Owner.UID)
	}
	for _, e := range endpoints.Items {
		kube.Endpoints[e.Name] = state.Endpoints{
			Name: e.Name, OwnerUID: ownerUID(e.OwnerReferences, kube.Owner.UID), Created: e.CreationTimestamp.Time,
			SystemID: e.Annotations["initialize"], Leader: e.Annotations["leader"],
		}
	}
	return kube, nil
}

func podFacts(p corev1.Pod) state.Pod {
	ready, since := ready(p)
	return state.Pod{
		Name: p.Name, IP: p.Status.PodIP, Ready: ready, ReadySince: since, Labels: p.Labels,
		Revision: p.Labels[appsv1.ControllerRevisionHashLabelKey], Created: p.CreationTimestamp.Time, Terminating: p.DeletionTimestamp != nil,
		Patroni: patroniVersion(p.Annotations["status"]), Told: p.Annotations[state.ToldAnnotation],
	}
}

// patroniVersion reads what a member says of itself in its pod's annotation
// (https://patroni.readthedocs.io/en/latest/kubernetes.html).
func patroniVersion(status string) string {
	var said struct{ Version string }
	if json.Unmarshal([]byte(status), &said) != nil {
		return ""
	}
	return said.Version
}

// rollout returns which revision the pods are to have. A change that the controller
// has not seen yet has none.
func rollout(set appsv1.StatefulSet) state.Rollout {
	if set.Status.ObservedGeneration < set.Generation {
		return state.Rollout{}
	}
	r := state.Rollout{Revision: set.Status.UpdateRevision, Replicas: 1}
	if set.Spec.Replicas != nil {
		r.Replicas = int(*set.Spec.Replicas)
	}
	if update := set.Spec.UpdateStrategy.RollingUpdate; update != nil && update.Partition != nil {
		r.Partition = int(*update.Partition)
	}
	return r
}

// ready tells whether a pod is, and since when.
func ready(p corev1.Pod) (is bool, since time.Time) {
	for _, c := range p.Status.Conditions {
		if c.Type == corev1.PodReady && c.Status == corev1.ConditionTrue {
			return true, c.LastTransitionTime.Time
		}
	}
	return false, time.Time{}
}

// ownerUID returns ours if we are among the owners, else the first one, or "".
func ownerUID(owners []metav1.OwnerReference, ours string) string {
	uid := ""
	for _, o := range owners {
		if string(o.UID) == ours {
			return ours
		}
		if uid == "" {
			uid = string(o.UID)
		}
	}
	return uid
}

func serviceFacts(s corev1.Service, ours string) state.KubeService {
	facts := state.KubeService{
		Name: s.Name, Labels: s.Labels, Selector: s.Spec.Selector, OwnerUID: ownerUID(s.OwnerReferences, ours),
	}
	for _, p := range s.Spec.Ports {
		facts.Ports = append(facts.Ports, state.Port{Name: p.Name, Number: int(p.Port)})
	}
	return facts
}

// LabelPod puts labels on a pod, or takes off those that are empty.
type LabelPod struct {
	Pod    string
	Labels map[string]string
}

// String implements state.Step.
func (l LabelPod) String() string { return fmt.Sprintf("label pod %s: %v", l.Pod, l.Labels) }

// AnnotatePod puts an annotation on a pod.
type AnnotatePod struct{ Pod, Key, Value string }

// String implements state.Step.
func (a AnnotatePod) String() string {
	return fmt.Sprintf("annotate pod %s: %s=%s", a.Pod, a.Key, a.Value)
}

// ApplyService makes a Service so.
type ApplyService struct{ state.KubeService }

// String implements state.Step.
func (a ApplyService) String() string { return "apply service " + a.Name }

// OwnEndpoints makes one of Patroni's objects, empty, or makes an existing one
// the application's.
type OwnEndpoints struct{ Name string }

// String implements state.Step.
func (o OwnEndpoints) String() string { return "own endpoints " + o.Name }

// SetPartition lets Kubernetes replace the pods from this ordinal on, and no others.
type SetPartition struct{ Partition int }

// String implements state.Step.
func (p SetPartition) String() string {
	return fmt.Sprintf("let pods be replaced from ordinal %d on", p.Partition)
}

// Asked implements state.Asked.
func (SetPartition) Asked() {}

// DeleteEndpoints removes one of Patroni's objects.
type DeleteEndpoints struct{ Name string }

// String implements state.Step.
func (d DeleteEndpoints) String() string { return "delete left-over endpoints " + d.Name }

// Diff implements charm.System.
func (s *System) Diff(obs state.Observed, want state.Desired) []state.Step {
	have, ok := obs.Kube.Get()
	if !ok || have.Owner.UID == "" {
		return nil
	}
	var steps []state.Step
	pod, ok := have.Pod(s.unit.Pod())
	if ok && !contains(pod.Labels, want.PodLabels) {
		steps = append(steps, LabelPod{pod.Name, want.PodLabels})
	}
	if ok && want.Stop && contains(pod.Labels, s.unit.Labels()) {
		// Patroni takes each pod that it finds for a member, one whose Patroni has ended, too:
		// a primary that calls all of them (failsafe mode) would call that in vain.
		none := map[string]string{}
		for label := range s.unit.Labels() {
			none[label] = ""
		}
		steps = append(steps, LabelPod{pod.Name, none})
	}
	for _, pod := range have.Pods {
		if want.Told != "" && pod.Told != want.Told {
			steps = append(steps, AnnotatePod{pod.Name, state.ToldAnnotation, want.Told})
		}
	}
	for _, name := range want.Demoted {
		steps = append(steps, LabelPod{name, map[string]string{state.RoleLabel: "replica"}})
	}
	if partition, wished := want.Partition.Get(); wished && (have.Rollout.Revision == "" || have.Rollout.Partition != partition) {
		steps = append(steps, SetPartition{partition})
	}
	if !obs.Leader {
		return steps
	}
	for _, name := range want.Leftovers {
		if _, exists := have.Endpoints[name]; exists {
			steps = append(steps, DeleteEndpoints{name})
		}
	}
	for _, name := range want.Endpoints {
		if have.Endpoints[name].OwnerUID != have.Owner.UID {
			steps = append(steps, OwnEndpoints{name})
		}
	}
	for _, service := range want.Services {
		service.OwnerUID = have.Owner.UID
		if !sameService(have.Services[service.Name], service) {
			steps = append(steps, ApplyService{service})
		}
	}
	return steps
}

// contains tells whether labels has all of want.
func contains(labels, want map[string]string) bool {
	for k, v := range want {
		if labels[k] != v {
			return false
		}
	}
	return true
}

func sameService(have, want state.KubeService) bool {
	return have.Name == want.Name && have.OwnerUID == want.OwnerUID && contains(have.Labels, want.Labels) &&
		maps.Equal(have.Selector, want.Selector) && slices.Equal(have.Ports, want.Ports)
}

// Apply implements charm.System.
func (s *System) Apply(ctx context.Context, step state.Step) error {
	switch step := step.(type) {
	case LabelPod:
		labels := map[string]any{}
		for label, value := range step.Labels {
			labels[label] = value
			if value == "" {
				labels[label] = nil // RFC 7386 removes it
			}
		}
		return s.api.Merge(ctx, "pods/"+step.Pod, map[string]any{"metadata": map[string]any{"labels": labels}})
	case AnnotatePod:
		err := s.api.Merge(ctx, "pods/"+step.Pod, map[string]any{"metadata": map[string]any{"annotations": map[string]any{step.Key: step.Value}}})
		if apierrors.IsNotFound(err) { // it has gone since
			return nil
		}
		return err
	case SetPartition:
		strategy := map[string]any{"rollingUpdate": map[string]any{"partition": step.Partition}}
		return s.api.Merge(ctx, "statefulsets/"+s.owner.Name, map[string]any{"spec": map[string]any{"updateStrategy": strategy}})
	case DeleteEndpoints:
		return s.api.Delete(ctx, "endpoints/"+step.Name)
	case OwnEndpoints:
		return s.api.Apply(ctx, "endpoints/"+step.Name, s.object("Endpoints", step.Name, s.unit.Labels(), nil))
	case ApplyService:
		return s.api.Apply(ctx, "services/"+step.Name, s.object("Service", step.Name, step.Labels, serviceSpec(step.KubeService)))
	}
	return fmt.Errorf("cannot apply %T to kubernetes", step)
}

// object is a v1 object of ours, which goes when the application goes.
func (s *System) object(kind, name string, labels map[string]string, spec map[string]any) map[string]any {
	object := map[string]any{
		"apiVersion": "v1",
		"kind":       kind,
		"metadata": map[string]any{
			"name":   name,
			"labels": labels,
			"ownerReferences": []any{map[string]any{
				"apiVersion": "apps/v1", "kind": "StatefulSet", "name": s.owner.Name, "uid": s.owner.UID,
			}},
		},
	}
	if spec != nil {
		object["spec"] = spec
	}
	return object
}

func serviceSpec(service state.KubeService) map[string]any {
	if len(service.Ports) == 0 { // it only keeps the Endpoints of its name alive
		return map[string]any{"clusterIP": "None"}
	}
	var ports []any
	for _, p := range service.Ports {
		ports = append(ports, map[string]any{"name": p.Name, "port": p.Number, "targetPort": p.Number, "protocol": "TCP"})
	}
	return map[string]any{"selector": service.Selector, "ports": ports}
}
