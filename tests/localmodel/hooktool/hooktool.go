// Package hooktool is the wire between a running charm and the model: the
// protocol that Juju's own hook tools speak with the unit agent, its server
// and a client.
//
// A hook tool is a small program on the charm's PATH. It sends its name, its
// arguments and, when asked, its standard input over the agent's unix socket
// (one net/rpc call of method Jujuc.Main) and then prints what comes back. The
// genuine jujuc of Juju 3.6 and 4.x works against this server, and the client
// works against a genuine agent.
package hooktool

import (
	"errors"
	"fmt"
	"io"
	"net"
	"net/rpc"
	"os"
	"path/filepath"
	"sync"
)

// Names are the hook tools of Juju 4.x; 3.6 has a few more that no sidecar
// charm needs.
var Names = []string{
	"action-fail", "action-get", "action-log", "action-set",
	"application-version-set", "close-port", "config-get", "credential-get",
	"goal-state", "is-leader", "juju-log", "juju-reboot", "network-get",
	"open-port", "opened-ports", "relation-get", "relation-ids",
	"relation-list", "relation-model-get", "relation-set", "resource-get",
	"secret-add", "secret-get", "secret-grant", "secret-ids",
	"secret-info-get", "secret-remove", "secret-revoke", "secret-set",
	"state-delete", "state-get", "state-set", "status-get", "status-set",
	"storage-add", "storage-get", "storage-list", "unit-get",
}

// Request is one call of a hook tool.
type Request struct {
	ContextId   string // of the hook that the charm runs, $JUJU_CONTEXT_ID
	Dir         string // the caller's working directory
	CommandName string
	Args        []string
	StdinSet    bool // Stdin holds all of the caller's standard input
	Stdin       []byte
}

// Response is what the tool prints, and its exit code.
type Response struct {
	Code   int
	Stdout []byte
	Stderr []byte
}

// ErrNoStdin asks the client to call again with its standard input.
var ErrNoStdin = errors.New("hook tool requires stdin, none supplied")

// Handler answers a request. Requests are handled one at a time.
type Handler func(Request) (Response, error)

// A Server answers the hook tools of one running hook.
type Server struct {
	listener net.Listener
	serving  sync.WaitGroup
}

type jujuc struct {
	mu     sync.Mutex
	handle Handler
}

// Main is the one method of the protocol.
func (j *jujuc) Main(req Request, resp *Response) error {
	if req.CommandName == "" {
		return errors.New("bad request: command not specified")
	}
	if !filepath.IsAbs(req.Dir) {
		return errors.New("bad request: Dir is not absolute")
	}
	j.mu.Lock()
	defer j.mu.Unlock()
	answer, err := j.handle(req)
	*resp = answer
	return err
}

// Listen serves hook tools on a unix socket at the path until Close.
func Listen(path string, handle Handler) (*Server, error) {
	if err := os.Remove(path); err != nil && !errors.Is(err, os.ErrNotExist) {
		return nil, fmt.Errorf("cannot remove old agent socket: %w", err)
	}
	listener, err := net.Listen("unix", path)
	if err != nil {
		return nil, fmt.Errorf("cannot listen for hook tools: %w", err)
	}
	if err := os.Chmod(path, 0o777); err != nil {
		return nil, errors.Join(err, listener.Close())
	}
	calls := rpc.NewServer()
	if err := calls.RegisterName("Jujuc", &jujuc{handle: handle}); err != nil {
		return nil, errors.Join(err, listener.Close())
	}
	s := &Server{listener: listener}
	s.serving.Go(func() {
		for {
			conn, err := listener.Accept()
			if err != nil {
				return
			}
			s.serving.Go(func() { calls.ServeConn(conn) })
		}
	})
	return s, nil
}

// Close stops listening. Calls under way are answered first, as the agent does.
func (s *Server) Close() error { return s.listener.Close() }

// Call runs the named tool against the agent that the environment points at,
// and returns its exit code.
func Call(name string, args []string, stdin io.Reader, stdout, stderr io.Writer) int {
	resp, err := call(name, args, stdin)
	if err != nil {
		_, _ = fmt.Fprintf(stderr, "ERROR %v\n", err)
		return 1
	}
	_, _ = stdout.Write(resp.Stdout)
	_, _ = stderr.Write(resp.Stderr)
	return resp.Code
}

func call(name string, args []string, stdin io.Reader) (Response, error) {
	var resp Response
	id, found := os.LookupEnv("JUJU_CONTEXT_ID")
	if !found {
		return resp, errors.New("JUJU_CONTEXT_ID not set")
	}
	dir, err := os.Getwd()
	if err != nil {
		return resp, err
	}
	client, err := rpc.Dial(os.Getenv("JUJU_AGENT_SOCKET_NETWORK"), os.Getenv("JUJU_AGENT_SOCKET_ADDRESS"))
	if err != nil {
		return resp, err
	}
	defer client.Close()

	req := Request{ContextId: id, Dir: dir, CommandName: name, Args: args}
	err = client.Call("Jujuc.Main", req, &resp)
	if err != nil && err.Error() == ErrNoStdin.Error() {
		if req.Stdin, err = io.ReadAll(stdin); err != nil {
			return resp, fmt.Errorf("cannot read standard input: %w", err)
		}
		req.StdinSet = true
		err = client.Call("Jujuc.Main", req, &resp)
	}
	return resp, err
}
