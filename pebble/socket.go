package pebble

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"strings"
	"sync"
	"time"

	"github.com/canonical/pebble/client"
)

// callTimeout bounds one call; each is local and takes about a millisecond.
const callTimeout = 5 * time.Second

// stopTimeout bounds the wait for a service that ends; Pebble goes on with it.
const stopTimeout = 3 * time.Second

// Socket is what we use of a Pebble daemon. Every call has a deadline.
type Socket interface {
	// Pull returns the content of a file. Its error does not tell whether there is
	// one: pebble/client cannot read the daemon's answer to that. Ask Stat.
	Pull(path string) ([]byte, error)
	// List returns the entries of a directory whose names match the pattern of
	// path.Match; fs.ErrNotExist when there is none.
	List(path, pattern string) ([]Entry, error)
	// Stat returns one entry; fs.ErrNotExist when there is none.
	Stat(path string) (Entry, error)
	// Push replaces a file atomically.
	Push(path string, content []byte, mode fs.FileMode, user, group string) error
	// Plan returns the merged layers as YAML.
	Plan() ([]byte, error)
	// Combine adds a layer, or changes the one of that label.
	Combine(label string, layer []byte) error
	// Replan restarts changed services and starts those that should run, and
	// returns once that is under way.
	Replan() error
	// Stop ends a service, and waits for that for some seconds.
	Stop(service string) error
	// Services returns the status of each service.
	Services() (map[string]string, error)
	// Notify records a custom notice, of which Juju tells the charm.
	Notify(key string) error
	// Exec runs a command as root and waits for it.
	Exec(command ...string) error
	// ExecAs runs a command as a user, with that input, and waits for it.
	ExecAs(user, input string, command ...string) error
	// Signal sends a signal, such as SIGHUP, to the process of a service.
	Signal(service, signal string) error
}

// Entry is a file or directory in the workload.
type Entry struct {
	Name        string
	Mode        fs.FileMode // permission bits
	User, Group string
}

// ErrAway tells that Pebble does not answer: the container is not up.
var ErrAway = errors.New("pebble does not answer")

// Dial returns the daemon behind the socket. Its connections live no longer than
// the deadline of ctx: pebble/client has neither contexts nor timeouts. That ctx
// is cancelled before, as it is after an observation, is no end to them. It fails
// with ErrAway when nobody listens, where the client would try for five seconds.
func Dial(ctx context.Context, path string) (Socket, error) {
	dial := func(ctx context.Context) (net.Conn, error) {
		return (&net.Dialer{Timeout: time.Second}).DialContext(ctx, "unix", path)
	}
	probe, err := dial(ctx)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrAway, err)
	}
	probe.Close()
	noRetry()
	c, err := client.New(&client.Config{Socket: path})
	if err != nil {
		return nil, fmt.Errorf("cannot open the Pebble socket: %w", err)
	}
	transport := c.Requester().Transport()
	transport.ResponseHeaderTimeout = callTimeout
	transport.DialContext = func(call context.Context, _, _ string) (net.Conn, error) {
		conn, err := dial(call)
		if deadline, ok := ctx.Deadline(); ok && err == nil {
			err = conn.SetDeadline(deadline)
		}
		return conn, err
	}
	return socket{c}, nil
}

// noRetry ends a habit of pebble/client: to try a GET that failed again for five
// seconds, its deadline or not. The switch is named for tests; there is no other.
var noRetry = sync.OnceFunc(func() { client.FakeDoRetry(time.Minute, 0) })

type socket struct{ client *client.Client }

// notExist gives Pebble's "not-found" its name in Go.
func notExist(err error) error {
	var e *client.Error
	if errors.As(err, &e) && e.Kind == client.ErrorKindNotFound {
		return fmt.Errorf("%w: %w", fs.ErrNotExist, err)
	}
	return err
}

func (s socket) Pull(path string) ([]byte, error) {
	var buf bytes.Buffer
	if err := s.client.Pull(&client.PullOptions{Path: path, Target: &buf}); err != nil {
		return nil, err
	}
	return buf.Bytes(), nil
}

func (s socket) List(path, pattern string) ([]Entry, error) {
	return s.list(&client.ListFilesOptions{Path: path, Pattern: pattern})
}

func (s socket) Stat(path string) (Entry, error) {
	entries, err := s.list(&client.ListFilesOptions{Path: path, Itself: true})
	if err != nil {
		return Entry{}, err
	}
	if len(entries) != 1 {
		return Entry{}, fs.ErrNotExist
	}
	return entries[0], nil
}

func (s socket) list(opts *client.ListFilesOptions) ([]Entry, error) {
	infos, err := s.client.ListFiles(opts)
	if err != nil {
		return nil, notExist(err)
	}
	entries := make([]Entry, len(infos))
	for i, f := range infos {
		entries[i] = Entry{Name: f.Name(), Mode: f.Mode().Perm(), User: f.User(), Group: f.Group()}
	}
	return entries, nil
}

func (s socket) Push(path string, content []byte, mode fs.FileMode, user, group string) error {
	return s.client.Push(&client.PushOptions{
		Source: bytes.NewReader(content), Path: path, Permissions: mode, User: user, Group: group,
	})
}

func (s socket) Plan() ([]byte, error) { return s.client.PlanBytes(nil) }

func (s socket) Combine(label string, layer []byte) error {
	return s.client.AddLayer(&client.AddLayerOptions{Combine: true, Label: label, LayerData: layer})
}

func (s socket) Replan() error {
	// The change is not waited for: Pebble waits a second to see whether a
	// service stays up, and keeps trying on its own when it does not.
	_, err := s.client.Replan(&client.ServiceOptions{})
	return err
}

func (s socket) Stop(service string) error {
	id, err := s.client.Stop(&client.ServiceOptions{Names: []string{service}})
	if err != nil {
		return err
	}
	change, err := s.client.WaitChange(id, &client.WaitChangeOptions{Timeout: stopTimeout})
	if err == nil && change.Err != "" {
		err = errors.New(change.Err)
	}
	return err
}

func (s socket) Services() (map[string]string, error) {
	infos, err := s.client.Services(&client.ServicesOptions{})
	if err != nil {
		return nil, err
	}
	services := make(map[string]string, len(infos))
	for _, info := range infos {
		services[info.Name] = string(info.Current)
	}
	return services, nil
}

func (s socket) Notify(key string) error {
	_, err := s.client.Notify(&client.NotifyOptions{Type: client.CustomNotice, Key: key})
	return err
}

func (s socket) Signal(service, signal string) error {
	return s.client.SendSignal(&client.SendSignalOptions{Signal: signal, Services: []string{service}})
}

func (s socket) Exec(command ...string) error { return s.exec(client.ExecOptions{Command: command}) }

func (s socket) ExecAs(user, input string, command ...string) error {
	return s.exec(client.ExecOptions{Command: command, User: user, Stdin: strings.NewReader(input)})
}

func (s socket) exec(opts client.ExecOptions) error {
	var out bytes.Buffer
	opts.Timeout, opts.Stdout, opts.Stderr = callTimeout, &out, &out
	process, err := s.client.Exec(&opts)
	if err != nil {
		return fmt.Errorf("cannot start %s: %w", opts.Command[0], err)
	}
	if err := process.Wait(); err != nil {
		return fmt.Errorf("%s failed: %w: %s", opts.Command[0], err, strings.TrimSpace(out.String()))
	}
	return nil
}
