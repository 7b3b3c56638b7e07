package pebble

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"path"
	"reflect"
	"slices"
	"strconv"
	"strings"

	"gopkg.in/yaml.v3"

	"charmhub.io/postgresql-k8s/charm/state"
)

// label is the label of our layer, as upstream has it.
const label = "postgresql"

// serversDir is where Debian, and every image made from its packages, has one
// directory for each major version.
const serversDir = "/usr/lib/postgresql"

// oldest is the first major version that the charm works with.
const oldest = 14

// preloadable are the libraries that the charm preloads where the image has them.
var preloadable = []string{"timescaledb", "pgaudit", "pg_stat_statements"}

// System is the workload container.
type System struct {
	dial    func(ctx context.Context) (Socket, error)
	socket  Socket
	files   []string        // paths of the files that are ours
	machine state.Resources // that both containers are on
}

// New returns the container behind the Pebble socket; files are the paths that
// the charm owns in it.
func New(socketPath string, files ...string) *System {
	return NewWith(func(ctx context.Context) (Socket, error) { return Dial(ctx, socketPath) }, Machine(), files...)
}

// NewWith returns the container that dial reaches, on that machine.
func NewWith(dial func(ctx context.Context) (Socket, error), machine state.Resources, files ...string) *System {
	return &System{dial: dial, machine: machine, files: files}
}

// Name implements charm.System.
func (s *System) Name() string { return "pebble" }

// Observe implements charm.System. A container that is away is unknown.
func (s *System) Observe(ctx context.Context, obs *state.Observed) error {
	socket, err := s.dial(ctx)
	if err != nil {
		obs.Workload = state.Unknown[state.Workload](err.Error())
		return nil
	}
	s.socket = socket
	w, err := s.read()
	if err != nil {
		obs.Workload = state.Unknown[state.Workload](err.Error())
		return nil
	}
	obs.Workload = state.Value(w)
	return nil
}

func (s *System) read() (state.Workload, error) {
	var w state.Workload
	plan, err := s.socket.Plan()
	if err != nil {
		return w, fmt.Errorf("cannot read the plan: %w", err)
	}
	if err := yaml.Unmarshal(plan, &w.Layer); err != nil {
		return w, fmt.Errorf("cannot parse the plan: %w", err)
	}
	services, err := s.socket.Services()
	if err != nil {
		return w, fmt.Errorf("cannot read the services: %w", err)
	}
	w.Services = map[string]state.ServiceStatus{}
	for name, status := range services {
		w.Services[name] = state.ServiceStatus(status)
	}
	if w.Files, err = s.readFiles(); err != nil {
		return w, err
	}
	if mount, err := s.socket.Stat(state.Mount); err == nil {
		w.Mount = state.Directory{Path: state.Mount, User: mount.User, Group: mount.Group}
	}
	version, err := s.pull(path.Join(state.DataDir, "PG_VERSION"))
	if err != nil {
		return w, err
	}
	w.DataMajor, _ = strconv.Atoi(strings.TrimSpace(version)) // 0 when there is none
	if w.SystemID, err = s.systemID(); err != nil {
		return w, err
	}
	if w.Servers, err = s.readServers(); err != nil {
		return w, err
	}
	w.Resources = Resources(s.machine, func(path string) string {
		text, _ := s.socket.Pull(path) // one that cannot be read is no limit
		return string(text)
	})
	return w, nil
}

// systemID reads the database system identifier: the control file begins with it,
// in the byte order of the machine, which is little-endian on all that Juju knows
// but s390x (https://doxygen.postgresql.org/structControlFileData.html).
func (s *System) systemID() (string, error) {
	control, err := s.pull(path.Join(state.DataDir, "global/pg_control"))
	if err != nil || len(control) < 8 {
		return "", err
	}
	return strconv.FormatUint(binary.NativeEndian.Uint64([]byte(control[:8])), 10), nil
}

// pull returns the content of a file, or "" when there is none.
func (s *System) pull(path string) (string, error) {
	if _, err := s.socket.Stat(path); errors.Is(err, fs.ErrNotExist) {
		return "", nil
	}
	data, err := s.socket.Pull(path)
	if err != nil {
		return "", fmt.Errorf("cannot read %s: %w", path, err)
	}
	return string(data), nil
}

func (s *System) readFiles() (map[string]state.File, error) {
	files := map[string]state.File{}
	for _, path := range s.files {
		entry, err := s.socket.Stat(path)
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil {
			return nil, fmt.Errorf("cannot look at %s: %w", path, err)
		}
		content, err := s.socket.Pull(path)
		if err != nil {
			return nil, fmt.Errorf("cannot read %s: %w", path, err)
		}
		files[path] = state.File{
			Path: path, Content: state.Redacted(content),
			Mode: uint32(entry.Mode.Perm()), User: entry.User, Group: entry.Group,
		}
	}
	return files, nil
}

// readServers finds the installed PostgreSQL servers, the newest first.
func (s *System) readServers() ([]state.Server, error) {
	dirs, err := s.socket.List(serversDir, "")
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("cannot look for PostgreSQL: %w", err)
	}
	var servers []state.Server
	for _, dir := range dirs {
		major, err := strconv.Atoi(dir.Name)
		if err != nil || major < oldest {
			continue
		}
		root := path.Join(serversDir, dir.Name)
		if _, err := s.socket.Stat(path.Join(root, "bin", "postgres")); err != nil {
			continue // only extensions or a client
		}
		libraries, err := s.libraries(path.Join(root, "lib"))
		if err != nil {
			return nil, err
		}
		servers = append(servers, state.Server{Major: major, BinDir: path.Join(root, "bin"), Libraries: libraries})
	}
	slices.SortFunc(servers, func(a, b state.Server) int { return b.Major - a.Major })
	return servers, nil
}

func (s *System) libraries(dir string) ([]string, error) {
	entries, err := s.socket.List(dir, "*.so")
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("cannot look for libraries: %w", err)
	}
	var found []string
	for _, name := range preloadable {
		if slices.ContainsFunc(entries, func(e Entry) bool { return e.Name == name+".so" }) {
			found = append(found, name)
		}
	}
	return found, nil
}

// wakeKey is the key of the notice that only wakes the charm.
const wakeKey = "charmhub.io/postgresql-k8s/again"

// Wake has Juju run the charm again: a custom notice of the workload becomes an
// event once the running hook is over.
func (s *System) Wake(ctx context.Context) error {
	socket, err := s.dial(ctx)
	if err != nil {
		return err
	}
	if err := socket.Notify(wakeKey); err != nil {
		return fmt.Errorf("cannot record a notice: %w", err)
	}
	return nil
}

// Psql runs SQL in the server of this workload as the backup user, whom the local
// socket lets in without a password. The SQL goes to the standard input.
func (s *System) Psql(ctx context.Context, binDir, sql string) error {
	socket, err := s.dial(ctx)
	if err != nil {
		return err
	}
	return socket.ExecAs(state.SystemUser, sql, path.Join(binDir, "psql"), "-Xqw", "-h", "/var/run/postgresql", "-U", "backup",
		"-d", "postgres", "-v", "ON_ERROR_STOP=1", "-v", "VERBOSITY=terse") // an error shows no statement
}

// Hangup has Patroni load its file, whatever password its API wants.
func (s *System) Hangup(ctx context.Context) error {
	socket, err := s.dial(ctx)
	if err != nil {
		return err
	}
	if err := socket.Signal(state.ServiceName, "SIGHUP"); err != nil {
		return fmt.Errorf("cannot send a signal to Patroni: %w", err)
	}
	return nil
}

// Chown gives a directory to a user and group.
type Chown struct{ state.Directory }

// String implements state.Step.
func (c Chown) String() string {
	return fmt.Sprintf("chown %s:%s %s", c.User, c.Group, c.Path)
}

// Push writes a file.
type Push struct{ state.File }

// String implements state.Step.
func (p Push) String() string { return fmt.Sprintf("push %s, mode %03o", p.Path, p.Mode) }

// Combine changes our layer of the plan.
type Combine struct{ state.Layer }

// String implements state.Step.
func (c Combine) String() string {
	return fmt.Sprintf("combine layer %s: services %s, checks %s", label,
		strings.Join(slices.Sorted(maps.Keys(c.Services)), " "), strings.Join(slices.Sorted(maps.Keys(c.Checks)), " "))
}

// Replan lets Pebble act on its plan.
type Replan struct{}

// String implements state.Step.
func (Replan) String() string { return "replan" }

// Stop ends a service.
type Stop struct{ Service string }

// String implements state.Step.
func (s Stop) String() string { return "stop " + s.Service }

// Diff implements charm.System.
func (s *System) Diff(obs state.Observed, want state.Desired) []state.Step {
	have, ok := obs.Workload.Get()
	if !ok {
		return nil
	}
	var steps []state.Step
	if want.Directory.Path != "" && want.Directory != have.Mount {
		steps = append(steps, Chown{want.Directory})
	}
	wished := make(map[string]state.File, len(want.Files))
	for _, file := range want.Files {
		wished[file.Path] = file
	}
	for _, file := range want.Files {
		seen := file
		if file.Behind != "" {
			seen = wished[file.Behind]
		}
		if have.Files[seen.Path] != seen {
			steps = append(steps, Push{file})
		}
	}
	if layer, ok := want.Layer.Get(); ok {
		steps = append(steps, diffLayer(have, layer)...)
	}
	if want.Stop && runs(have.Services[state.ServiceName]) {
		steps = append(steps, Stop{state.ServiceName})
	}
	return steps
}

// diffLayer also starts what should run and does not: Pebble forgets its plan
// when it restarts, and we may have been killed before the replan.
func diffLayer(have state.Workload, want state.Layer) []state.Step {
	var steps []state.Step
	stopped := false
	changed := state.Layer{Services: map[string]state.Service{}, Checks: map[string]state.Check{}}
	for name, service := range want.Services {
		old, ok := have.Layer.Services[name]
		if !ok || !reflect.DeepEqual(old, service) {
			changed.Services[name] = service
		}
		stopped = stopped || service.Startup == "enabled" && !runs(have.Services[name])
	}
	for name, check := range want.Checks {
		if have.Layer.Checks[name] != check {
			changed.Checks[name] = check
		}
	}
	if len(changed.Services)+len(changed.Checks) > 0 {
		steps = append(steps, Combine{changed})
	}
	if len(changed.Services) > 0 || stopped {
		steps = append(steps, Replan{})
	}
	return steps
}

// runs tells whether Pebble keeps the service going: in backoff it is about to
// be restarted, and a push from us would only disturb that.
func runs(status state.ServiceStatus) bool {
	return status == state.ServiceActive || status == "backoff"
}

// Apply implements charm.System.
func (s *System) Apply(_ context.Context, step state.Step) error {
	switch step := step.(type) {
	case Chown:
		return s.socket.Exec("chown", step.User+":"+step.Group, step.Path)
	case Push:
		if err := s.socket.Push(step.Path, []byte(step.Content.Reveal()), fs.FileMode(step.Mode), step.User, step.Group); err != nil {
			return fmt.Errorf("cannot write %s: %w", step.Path, err)
		}
		return nil
	case Combine:
		data, err := yaml.Marshal(step.Layer)
		if err != nil {
			return fmt.Errorf("cannot encode the layer: %w", err)
		}
		if err := s.socket.Combine(label, data); err != nil {
			return fmt.Errorf("cannot change the plan: %w", err)
		}
		return nil
	case Replan:
		if err := s.socket.Replan(); err != nil {
			return fmt.Errorf("cannot replan: %w", err)
		}
		return nil
	case Stop:
		if err := s.socket.Stop(step.Service); err != nil {
			return fmt.Errorf("cannot stop %s: %w", step.Service, err)
		}
		return nil
	}
	return fmt.Errorf("cannot apply %T to pebble", step)
}
