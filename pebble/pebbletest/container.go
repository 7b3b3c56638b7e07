// Package pebbletest is a workload container in memory: files, and a Pebble
// daemon that keeps a plan and "runs" its services. It passes the same contract
// tests as the real daemon.
package pebbletest

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"path"
	"reflect"
	"regexp"
	"slices"
	"strings"
	"sync"

	"gopkg.in/yaml.v3"

	"charmhub.io/postgresql-k8s/charm/state"
	"charmhub.io/postgresql-k8s/pebble"
)

// Container is a workload container. It may be used by several goroutines.
type Container struct {
	mu       sync.Mutex
	away     bool
	files    map[string]file // directories, too
	plan     state.Layer
	services map[string]*service
	notices  []string

	signalled func(service, signal string)
	psql      func(sql string) error
}

type file struct {
	content     []byte
	dir         bool
	mode        fs.FileMode
	user, group string
}

type service struct {
	status string
	ran    state.Service // as it was last started
	starts int
}

// New returns a container with an empty file system and an empty plan.
func New() *Container {
	c := &Container{files: map[string]file{"/": {dir: true, mode: 0o755, user: "root", group: "root"}}}
	c.forget()
	return c
}

func (c *Container) forget() {
	c.plan = state.Layer{Services: map[string]state.Service{}, Checks: map[string]state.Check{}}
	c.services = map[string]*service{}
}

// Dial returns the container's Pebble, or pebble.ErrAway.
func (c *Container) Dial(ctx context.Context) (pebble.Socket, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.away {
		return nil, fmt.Errorf("%w: connection refused", pebble.ErrAway)
	}
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	return socket{c}, nil
}

// GoAway lets nobody reach Pebble until Restart.
func (c *Container) GoAway() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.away = true
}

// Restart is what Kubernetes does to a container: Pebble comes up with the plan
// of its image, which is empty. The files stay.
func (c *Container) Restart() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.away = false
	c.forget()
}

// Put makes a file of the image or of a volume, owned by root, with the
// directories above it.
func (c *Container) Put(name, content string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.mkdir(path.Dir(name))
	c.files[name] = file{content: []byte(content), mode: 0o644, user: "root", group: "root"}
}

// Mkdir makes a directory, owned by root, with those above it.
func (c *Container) Mkdir(name string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.mkdir(name)
}

func (c *Container) mkdir(name string) {
	if _, ok := c.files[name]; ok {
		return
	}
	c.mkdir(path.Dir(name))
	c.files[name] = file{dir: true, mode: 0o755, user: "root", group: "root"}
}

// Remove removes a file or directory with all that is in it.
func (c *Container) Remove(name string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	maps.DeleteFunc(c.files, func(other string, _ file) bool {
		return other == name || strings.HasPrefix(other, name+"/")
	})
}

// SetStatus makes a service of the plan have a status, as when its process died.
func (c *Container) SetStatus(name string, status state.ServiceStatus) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.services[name].status = string(status)
}

// Starts tells how often a service was started since the container was.
func (c *Container) Starts(name string) int {
	c.mu.Lock()
	defer c.mu.Unlock()
	if s, ok := c.services[name]; ok {
		return s.starts
	}
	return 0
}

// Notices are the keys of the custom notices that were recorded, in their order.
func (c *Container) Notices() []string {
	c.mu.Lock()
	defer c.mu.Unlock()
	return slices.Clone(c.notices)
}

// socket is the daemon's side of the container.
type socket struct{ *Container }

// users are those that the image knows.
var users = []string{"root", "postgres"}

func (c socket) stat(name string) (file, error) {
	f, ok := c.files[path.Clean(name)]
	if !ok {
		return f, fmt.Errorf("%w: stat %s: no such file or directory", fs.ErrNotExist, name)
	}
	return f, nil
}

func (c socket) Pull(name string) ([]byte, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	f, err := c.stat(name)
	if err != nil {
		return nil, errors.New(err.Error()) // see pebble.Socket: the kind is lost
	}
	if f.dir {
		return nil, fmt.Errorf("can only read a regular file: %q", name)
	}
	return bytes.Clone(f.content), nil
}

func (c socket) List(name, pattern string) ([]pebble.Entry, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if _, err := c.stat(name); err != nil {
		return nil, err
	}
	if pattern == "" {
		pattern = "*"
	}
	var entries []pebble.Entry
	for _, other := range slices.Sorted(maps.Keys(c.files)) {
		matches, err := path.Match(pattern, path.Base(other))
		if err != nil {
			return nil, err
		}
		if matches && other != "/" && path.Dir(other) == path.Clean(name) {
			entries = append(entries, entry(other, c.files[other]))
		}
	}
	return entries, nil
}

func (c socket) Stat(name string) (pebble.Entry, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	f, err := c.stat(name)
	if err != nil {
		return pebble.Entry{}, err
	}
	return entry(name, f), nil
}

func entry(name string, f file) pebble.Entry {
	return pebble.Entry{Name: path.Base(name), Mode: f.mode, User: f.user, Group: f.group}
}

func (c socket) Push(name string, content []byte, mode fs.FileMode, user, group string) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if dir, err := c.stat(path.Dir(name)); err != nil || !dir.dir {
		return fmt.Errorf("cannot write %s: there is no such directory", name)
	}
	if !slices.Contains(users, user) || !slices.Contains(users, group) {
		return fmt.Errorf("cannot look up user and group: unknown user %s or group %s", user, group)
	}
	c.files[name] = file{content: bytes.Clone(content), mode: mode.Perm(), user: user, group: group}
	return nil
}

func (c socket) Plan() ([]byte, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	return yaml.Marshal(c.plan)
}

// Combine knows override: replace only, and refuses what is not in the layer
// specification as package state has it.
func (c socket) Combine(label string, layer []byte) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	var add state.Layer
	decoder := yaml.NewDecoder(bytes.NewReader(layer))
	decoder.KnownFields(true)
	if err := decoder.Decode(&add); err != nil {
		return fmt.Errorf("cannot parse layer %q: %w", label, err)
	}
	for name, s := range add.Services {
		if s.Override != "replace" {
			return fmt.Errorf("layer %q must define \"override\" for service %q", label, name)
		}
	}
	for name, check := range add.Checks {
		if check.Override != "replace" {
			return fmt.Errorf("layer %q must define \"override\" for check %q", label, name)
		}
	}
	maps.Copy(c.plan.Services, add.Services)
	maps.Copy(c.plan.Checks, add.Checks)
	for name := range add.Services {
		if c.services[name] == nil {
			c.services[name] = &service{status: "inactive"}
		}
	}
	return nil
}

func (c socket) Replan() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	for name, planned := range c.plan.Services {
		s := c.services[name]
		if changed := s.status == "active" && !reflect.DeepEqual(s.ran, planned); !changed && (s.status == "active" || planned.Startup != "enabled") {
			continue
		}
		s.status, s.ran = "active", planned
		s.starts++
	}
	return nil
}

func (c socket) Stop(name string) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	s, planned := c.services[name]
	if !planned {
		return fmt.Errorf("service %q does not exist", name)
	}
	s.status = "inactive"
	return nil
}

func (c socket) Services() (map[string]string, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	statuses := map[string]string{}
	for name, s := range c.services {
		statuses[name] = s.status
	}
	return statuses, nil
}

// noticeKey is how Pebble wants the key of a custom notice.
var noticeKey = regexp.MustCompile(`^[a-z0-9]+(-[a-z0-9]+)*(\.[a-z0-9]+(-[a-z0-9]+)*)+(/[a-z0-9]+(-[a-z0-9]+)*)+$`)

func (c socket) Notify(key string) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if !noticeKey.MatchString(key) {
		return fmt.Errorf("invalid notice key %q", key)
	}
	c.notices = append(c.notices, key)
	return nil
}

// OnSignal lets a function see the signals that services get.
func (c *Container) OnSignal(see func(service, signal string)) { c.signalled = see }

// OnPsql lets a function take the input of psql.
func (c *Container) OnPsql(take func(sql string) error) { c.psql = take }

func (c socket) Signal(name, signal string) error {
	c.mu.Lock()
	s, planned := c.services[name]
	see := c.signalled
	c.mu.Unlock()
	if !planned || s.status != "active" {
		return fmt.Errorf("cannot send signal to %q: service is not running", name)
	}
	if see != nil {
		see(name, signal)
	}
	return nil
}

// ExecAs knows only psql, for the user postgres.
func (c socket) ExecAs(user, input string, command ...string) error {
	if path.Base(command[0]) != "psql" || c.psql == nil {
		return fmt.Errorf("cannot start %s: cannot find executable %q", command[0], command[0])
	}
	if user != "postgres" {
		return fmt.Errorf("psql failed: exit status 2: Peer authentication failed for user %q", user)
	}
	return c.psql(input)
}

// Exec knows the commands true, false and chown USER:GROUP PATH.
func (c socket) Exec(command ...string) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	switch command[0] {
	case "true":
		return nil
	case "false":
		return errors.New("false failed: exit status 1: ")
	case "chown":
		return c.chown(command[1], command[2])
	}
	return fmt.Errorf("cannot start %s: cannot find executable %q", command[0], command[0])
}

func (c socket) chown(owner, name string) error {
	f, err := c.stat(name)
	user, group, _ := strings.Cut(owner, ":")
	if err != nil || !slices.Contains(users, user) || !slices.Contains(users, group) {
		return fmt.Errorf("chown failed: exit status 1: chown: %s %s: there is no such path, user or group", owner, name)
	}
	f.user, f.group = user, group
	c.files[path.Clean(name)] = f
	return nil
}
