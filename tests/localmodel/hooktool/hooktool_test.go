package hooktool

import (
	"bytes"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func TestCall(t *testing.T) {
	dir, err := os.MkdirTemp("", "ht") // short, for a unix socket
	if err != nil {
		t.Fatal(err)
	}
	defer os.RemoveAll(dir)
	socket := filepath.Join(dir, "agent.socket")
	server, err := Listen(socket, func(req Request) (Response, error) {
		switch {
		case req.CommandName == "relation-set" && !req.StdinSet:
			return Response{}, ErrNoStdin
		case req.CommandName == "relation-set":
			return Response{Stdout: req.Stdin}, nil
		}
		return Response{Code: 2, Stderr: []byte(strings.Join(req.Args, "|"))}, nil
	})
	if err != nil {
		t.Fatal(err)
	}
	defer server.Close()
	t.Setenv("JUJU_CONTEXT_ID", "c")
	t.Setenv("JUJU_AGENT_SOCKET_NETWORK", "unix")
	t.Setenv("JUJU_AGENT_SOCKET_ADDRESS", socket)

	var stdout, stderr bytes.Buffer
	if code := Call("relation-set", nil, strings.NewReader("words"), &stdout, &stderr); code != 0 || stdout.String() != "words" {
		t.Errorf("relation-set: exit %d, %q, %q", code, stdout.String(), stderr.String())
	}
	if code := Call("is-leader", []string{"--a", "b"}, nil, &stdout, &stderr); code != 2 || stderr.String() != "--a|b" {
		t.Errorf("is-leader: exit %d, %q", code, stderr.String())
	}
	if err := os.Unsetenv("JUJU_CONTEXT_ID"); err != nil {
		t.Fatal(err)
	}
	stderr.Reset()
	if code := Call("is-leader", nil, nil, &stdout, &stderr); code != 1 || stderr.String() != "ERROR JUJU_CONTEXT_ID not set\n" {
		t.Errorf("without a hook: exit %d, %q", code, stderr.String())
	}
}
