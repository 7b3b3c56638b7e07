package juju

import (
	"context"
	"errors"
	"net"
	"net/rpc"
	"path/filepath"
	"reflect"
	"testing"
	"testing/synctest"

	"charmhub.io/postgresql-k8s/tests/localmodel/hooktool"
)

// agentEnv is the environment of a hook whose agent answers at the socket.
func agentEnv(socket string) func(string) string {
	env := map[string]string{
		"JUJU_AGENT_SOCKET_NETWORK": "unix", "JUJU_AGENT_SOCKET_ADDRESS": socket, "JUJU_CONTEXT_ID": "db/0-start-0123",
	}
	return func(name string) string { return env[name] }
}

func TestAgentIsAskedAsTheToolsAsk(t *testing.T) {
	t.Parallel()
	socket := filepath.Join(t.TempDir(), "agent.socket")
	var got []hooktool.Request
	server, err := hooktool.Listen(socket, func(req hooktool.Request) (hooktool.Response, error) {
		got = append(got, req)
		if req.CommandName == "secret-get" {
			return hooktool.Response{Code: 1, Stderr: []byte("ERROR secret not found\n")}, nil
		}
		return hooktool.Response{Stdout: []byte("true\n"), Stderr: []byte("a warning\n")}, nil
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = server.Close() })
	agent := NewAgent(agentEnv(socket))
	agent.exec = func(_ context.Context, tool string, _ []string, _ []byte) ([]byte, error) {
		t.Errorf("%s is run", tool)
		return nil, nil
	}
	tools := Tools{Run: agent.Run}

	if leads, err := tools.IsLeader(t.Context()); !leads || err != nil {
		t.Errorf("is-leader: %t, %v", leads, err)
	}
	if err := tools.RelationSet(t.Context(), 7, map[string]string{"a": "1"}); err != nil {
		t.Error(err)
	}
	_, err = tools.SecretGet(t.Context(), "label")
	var failure *ToolError
	if !errors.Is(err, ErrNotFound) || !errors.As(err, &failure) || failure.Error() != "cannot run secret-get: secret not found" {
		t.Errorf("secret-get: %v", err)
	}

	dir := got[0].Dir
	want := []hooktool.Request{
		{ContextId: "db/0-start-0123", Dir: dir, CommandName: "is-leader", Args: []string{"--format=json"}},
		{
			ContextId: "db/0-start-0123", Dir: dir, CommandName: "relation-set", Args: []string{"-r", "7", "--app", "--file", "-"},
			StdinSet: true, Stdin: []byte(`{"a":"1"}`),
		},
		{
			ContextId: "db/0-start-0123", Dir: dir, CommandName: "secret-get",
			Args: []string{"--format=json", "--label", "label", "--peek"},
		},
	}
	if !reflect.DeepEqual(got, want) {
		t.Errorf("the agent was asked\n%+v, want\n%+v", got, want)
	}
}

// Where the agent is not there, or speaks another protocol, the tool knows how to ask it.
func TestToolIsRunWhenTheAgentIsNotUnderstood(t *testing.T) {
	t.Parallel()
	another := filepath.Join(t.TempDir(), "another.socket")
	listener, err := net.Listen("unix", another)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = listener.Close() })
	go rpc.NewServer().Accept(listener) // it has no method at all

	for name, socket := range map[string]string{"none": filepath.Join(t.TempDir(), "none"), "another protocol": another} {
		agent := NewAgent(agentEnv(socket))
		agent.exec = func(_ context.Context, tool string, args []string, stdin []byte) ([]byte, error) {
			return []byte(tool + " " + args[0] + " " + string(stdin)), nil
		}
		for range 2 {
			out, err := agent.Run(t.Context(), "relation-set", []string{"--app"}, []byte("in"))
			if string(out) != "relation-set --app in" || err != nil {
				t.Errorf("%s: %q, %v", name, out, err)
			}
		}
	}
}

// An agent that has lost its controller may not answer: the hook does not hang with it, and
// what was asked is not asked twice.
func TestAgentThatDoesNotAnswer(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		here, there := net.Pipe()
		defer there.Close()
		go func() { // it takes the question
			buffer := make([]byte, 4096)
			for {
				if _, err := there.Read(buffer); err != nil {
					return
				}
			}
		}()
		client := rpc.NewClient(here)
		defer client.Close()
		agent := Agent{
			dial: func() (*rpc.Client, error) { return client, nil },
			exec: func(context.Context, string, []string, []byte) ([]byte, error) {
				t.Error("the tool is run, too")
				return nil, nil
			},
		}
		if _, err := agent.Run(t.Context(), "is-leader", nil, nil); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("the error is %v", err)
		}
	})
}
