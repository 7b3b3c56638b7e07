package kube

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/url"
	"strings"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/runtime/serializer"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/rest"
)

// callTimeout bounds one call of the API server.
const callTimeout = 5 * time.Second

// API is what we use of the Kubernetes API in one namespace. Paths are
// below it, such as "pods/postgresql-k8s-0".
type API interface {
	// Read gets an object, or with a label selector a list.
	Read(ctx context.Context, path, selector string, into any) error
	// Apply makes the fields of the object so: server-side apply, by force.
	Apply(ctx context.Context, path string, object map[string]any) error
	// Merge changes fields of an object that exists: JSON merge patch.
	Merge(ctx context.Context, path string, patch map[string]any) error
	// Delete removes an object; one that is gone is no error.
	Delete(ctx context.Context, path string) error
}

// InCluster returns the API as a pod sees it: the address of the environment and
// the mounted token (https://kubernetes.io/docs/tasks/run-application/access-api-from-pod/).
// The manager names our fields in server-side apply.
func InCluster(namespace, manager string) (API, error) {
	cfg, err := rest.InClusterConfig()
	if err != nil {
		return nil, fmt.Errorf("cannot reach the Kubernetes API: %w", err)
	}
	return FromConfig(cfg, namespace, manager)
}

// FromConfig returns the API behind a client configuration.
func FromConfig(cfg *rest.Config, namespace, manager string) (API, error) {
	cfg.Timeout = callTimeout
	// That Endpoints are deprecated is Patroni's to mend; a line of log for each
	// dispatch helps nobody.
	cfg.WarningHandler = rest.NoWarnings{}
	cfg.QPS = -1 // a dispatch makes a handful of calls
	cfg.GroupVersion = &schema.GroupVersion{Version: "v1"}
	cfg.APIPath = "/api"
	// Bodies are read and written as JSON here; the codec is for errors. The typed
	// clientset would register every API group there is, and take 10 MiB and 20 ms.
	scheme := runtime.NewScheme()
	scheme.AddUnversionedTypes(*cfg.GroupVersion, &metav1.Status{})
	cfg.NegotiatedSerializer = serializer.NewCodecFactory(scheme).WithoutConversion()
	client, err := rest.RESTClientFor(cfg)
	if err != nil {
		return nil, fmt.Errorf("cannot reach the Kubernetes API: %w", err)
	}
	return api{client, namespace, manager}, nil
}

type api struct {
	client             rest.Interface
	namespace, manager string
}

// at gives the request its place: StatefulSets are in apps/v1, the rest in v1.
func (a api) at(r *rest.Request, path string) *rest.Request {
	group := "/api/v1"
	if strings.HasPrefix(path, "statefulsets") {
		group = "/apis/apps/v1"
	}
	return r.AbsPath(group, "namespaces", a.namespace, path)
}

// do returns the body of the answer, or the error as the API server words it,
// which DoRaw would not.
func do(ctx context.Context, r *rest.Request) ([]byte, error) {
	result := r.Do(ctx)
	if err := result.Error(); err != nil {
		var broken *url.Error // it names the whole address, which nobody wants to read
		if errors.As(err, &broken) {
			err = broken.Err
		}
		return nil, err
	}
	return result.Raw()
}

func (a api) Read(ctx context.Context, path, selector string, into any) error {
	r := a.at(a.client.Get(), path)
	if selector != "" {
		r = r.Param("labelSelector", selector)
	}
	data, err := do(ctx, r.SetHeader("Accept", "application/json"))
	if err != nil {
		return fmt.Errorf("cannot read %s: %w", path, err)
	}
	if err := json.Unmarshal(data, into); err != nil {
		return fmt.Errorf("cannot read %s: %w", path, err)
	}
	return nil
}

func (a api) Apply(ctx context.Context, path string, object map[string]any) error {
	data, err := json.Marshal(object)
	if err != nil {
		return fmt.Errorf("cannot encode %s: %w", path, err)
	}
	_, err = do(ctx, a.at(a.client.Patch(types.ApplyPatchType), path).
		Param("fieldManager", a.manager).Param("force", "true").Body(data))
	if err != nil {
		return fmt.Errorf("cannot apply %s: %w", path, err)
	}
	return nil
}

func (a api) Merge(ctx context.Context, path string, patch map[string]any) error {
	data, err := json.Marshal(patch)
	if err != nil {
		return fmt.Errorf("cannot encode %s: %w", path, err)
	}
	_, err = do(ctx, a.at(a.client.Patch(types.MergePatchType), path).Body(data))
	if err != nil {
		return fmt.Errorf("cannot patch %s: %w", path, err)
	}
	return nil
}

func (a api) Delete(ctx context.Context, path string) error {
	_, err := do(ctx, a.at(a.client.Delete(), path))
	if err != nil && !apierrors.IsNotFound(err) {
		return fmt.Errorf("cannot delete %s: %w", path, err)
	}
	return nil
}
