package kubeapi

import (
	"crypto/rand"
	"encoding/json"
	"fmt"
	"maps"
	"reflect"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"
)

// An Object is a Kubernetes object as JSON has it.
type Object = map[string]any

// A Store keeps objects, gives them versions, and tells watchers of changes.
// Objects that it hands out are never changed again.
type Store struct {
	mu      sync.Mutex
	version int
	objects map[key]Object
	applied map[key]map[string]Object // what each field manager applied last
	log     []event                   // all changes; event i made version i+1
	grown   chan struct{}             // closed and replaced when log grows

	// Deleted is called after an object is gone, without locks held.
	Deleted func(resource string, object Object)
}

type key struct{ resource, namespace, name string }

type event struct {
	key         key
	before, now Object // nil when the object was not, or is no more
}

// NewStore makes an empty store.
func NewStore() *Store {
	return &Store{
		objects: map[key]Object{},
		applied: map[key]map[string]Object{},
		grown:   make(chan struct{}),
	}
}

// Get returns an object, or nil.
func (s *Store) Get(resource, namespace, name string) Object {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.objects[key{resource, namespace, name}]
}

// List returns the objects that the selector selects, sorted by name, and the
// store's version. An empty namespace means all of them.
func (s *Store) List(resource, namespace string, selects Selector) ([]Object, int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.list(resource, namespace, selects), s.version
}

func (s *Store) list(resource, namespace string, selects Selector) []Object {
	var found []Object
	for k, object := range s.objects {
		if k.resource == resource && (namespace == "" || k.namespace == namespace) && selects(object) {
			found = append(found, object)
		}
	}
	slices.SortFunc(found, func(a, b Object) int {
		return strings.Compare(stringAt(a, "metadata", "name"), stringAt(b, "metadata", "name"))
	})
	return found
}

// Create adds an object.
func (s *Store) Create(resource, namespace string, object Object) (Object, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	object = clone(object)
	meta := mapAt(object, "metadata")
	if prefix := stringAt(meta, "generateName"); meta["name"] == nil && prefix != "" {
		meta["name"] = prefix + strings.ToLower(rand.Text()[:5])
	}
	name := stringAt(meta, "name")
	if name == "" {
		return nil, failure(422, "Invalid", resource, "", "metadata.name: Required value: name or generateName is required")
	}
	k := key{resource, namespace, name}
	if s.objects[k] != nil {
		return nil, failure(409, "AlreadyExists", resource, name, fmt.Sprintf("%s %q already exists", resource, name))
	}
	meta["uid"] = newUID()
	meta["creationTimestamp"] = time.Now().UTC().Format(time.RFC3339)
	return s.put(k, object), nil
}

// Change replaces an object by what the function makes of a copy of it. The
// result may carry the resource version that it was derived from.
func (s *Store) Change(resource, namespace, name string, change func(Object) (Object, error)) (Object, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.change(key{resource, namespace, name}, change)
}

func (s *Store) change(k key, change func(Object) (Object, error)) (Object, error) {
	before := s.objects[k]
	if before == nil {
		return nil, notFound(k.resource, k.name)
	}
	object, err := change(clone(before))
	if err != nil {
		return nil, err
	}
	meta, old := mapAt(object, "metadata"), mapAt(before, "metadata")
	if version, given := meta["resourceVersion"]; given && version != "" && version != old["resourceVersion"] {
		return nil, failure(409, "Conflict", k.resource, k.name, fmt.Sprintf(
			"Operation cannot be fulfilled on %s %q: the object has been modified; please apply your changes to the latest version and try again", k.resource, k.name))
	}
	for _, field := range []string{"name", "namespace", "uid", "creationTimestamp", "resourceVersion"} {
		meta[field] = old[field]
	}
	if reflect.DeepEqual(object, before) {
		return before, nil // as the real one: no change, no new version
	}
	return s.put(k, object), nil
}

// Apply merges what a field manager wishes into an object, making it when there
// is none, which it tells; fields that the manager wished before and no longer does are dropped.
func (s *Store) Apply(resource, namespace, name, manager string, wish Object) (object Object, isNew bool, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	k := key{resource, namespace, name}
	last := s.applied[k][manager]
	if s.applied[k] == nil {
		s.applied[k] = map[string]Object{}
	}
	s.applied[k][manager] = clone(wish)
	if s.objects[k] == nil {
		object := clone(wish)
		meta := mapAt(object, "metadata")
		meta["name"], meta["uid"] = name, newUID()
		meta["creationTimestamp"] = time.Now().UTC().Format(time.RFC3339)
		return s.put(k, object), true, nil
	}
	object, err = s.change(k, func(object Object) (Object, error) {
		prune(object, last, wish)
		return merge(object, wish, true), nil
	})
	return object, false, err
}

// Delete removes an object and what it alone owns.
func (s *Store) Delete(resource, namespace, name string, allowed func(Object) error) (Object, error) {
	s.mu.Lock()
	k := key{resource, namespace, name}
	object := s.objects[k]
	if object == nil {
		s.mu.Unlock()
		return nil, notFound(resource, name)
	}
	if allowed != nil {
		if err := allowed(object); err != nil {
			s.mu.Unlock()
			return nil, err
		}
	}
	gone := s.remove(k)
	s.mu.Unlock()
	if s.Deleted != nil {
		for _, e := range gone {
			s.Deleted(e.key.resource, e.before)
		}
	}
	return object, nil
}

func (s *Store) remove(k key) []event {
	object := s.objects[k]
	if object == nil {
		return nil
	}
	s.version++
	delete(s.objects, k)
	delete(s.applied, k)
	gone := []event{{key: k, before: object}}
	s.publish(event{key: k, before: object})
	if k.resource == "services" {
		gone = append(gone, s.remove(key{"endpoints", k.namespace, k.name})...)
	}
	for other, owned := range maps.Clone(s.objects) {
		if owners, _ := mapAt(owned, "metadata")["ownerReferences"].([]any); len(owners) > 0 && !slices.ContainsFunc(owners, s.exists) {
			gone = append(gone, s.remove(other)...)
		}
	}
	s.followEndpoints(k)
	return gone
}

// exists tells whether an owner of some object is there.
func (s *Store) exists(reference any) bool {
	owner, _ := reference.(Object)
	for _, object := range s.objects {
		if mapAt(object, "metadata")["uid"] == owner["uid"] {
			return true
		}
	}
	return false
}

// put stores an object under a new version.
func (s *Store) put(k key, object Object) Object {
	s.version++
	describe(k, object)
	meta := mapAt(object, "metadata")
	meta["name"] = k.name
	if k.namespace != "" {
		meta["namespace"] = k.namespace
	}
	meta["resourceVersion"] = strconv.Itoa(s.version)
	before := s.objects[k]
	s.objects[k] = object
	s.publish(event{key: k, before: before, now: object})
	s.followEndpoints(k)
	return object
}

func (s *Store) publish(e event) {
	s.log = append(s.log, e)
	close(s.grown)
	s.grown = make(chan struct{})
}

// since returns the changes after a version, and a channel that is closed when
// there are more.
func (s *Store) since(version int) ([]event, <-chan struct{}) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.log[min(version, len(s.log)):], s.grown
}

func clone(object Object) Object {
	if object == nil {
		return Object{}
	}
	data, err := json.Marshal(object)
	if err != nil {
		panic(fmt.Sprintf("object is not JSON: %v", err))
	}
	var copied Object
	if err := json.Unmarshal(data, &copied); err != nil {
		panic(fmt.Sprintf("object is not JSON: %v", err))
	}
	return copied
}

func newUID() string {
	var b [16]byte
	_, _ = rand.Read(b[:])
	return fmt.Sprintf("%x-%x-4%x-8%x-%x", b[:4], b[4:6], b[6:8], b[8:10], b[10:])[:36]
}

// mapAt returns the object at a path, making it when there is none.
func mapAt(object Object, path ...string) Object {
	for _, name := range path {
		next, _ := object[name].(Object)
		if next == nil {
			next = Object{}
			object[name] = next
		}
		object = next
	}
	return object
}

// stringAt returns the string at a path, or "".
func stringAt(object Object, path ...string) string {
	for _, name := range path[:len(path)-1] {
		object, _ = object[name].(Object)
	}
	value, _ := object[path[len(path)-1]].(string)
	return value
}
