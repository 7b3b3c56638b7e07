package juju

import (
	"context"
	"fmt"
	"net/rpc"
	"os"
	"sync"
)

// Agent is the unit agent. A hook tool is a program that sends its command line to the
// agent's socket and prints the answer; an Agent sends it itself, which saves a process for
// each of a dozen tools: most of what a hook took.
//
// The protocol is Juju's own: one call of net/rpc, in internal/worker/uniter/runner/jujuc of
// its source. It has been the same for ten years, but nobody promises it: what the agent
// does not answer in it, the tool is run for.
type Agent struct {
	dial func() (*rpc.Client, error) // once
	id   string                      // of the hook's context
	exec Runner                      // runs the tool
}

// NewAgent returns the agent that the environment of a hook names.
func NewAgent(getenv func(string) string) Agent {
	return Agent{
		dial: sync.OnceValues(func() (*rpc.Client, error) {
			return rpc.Dial(getenv("JUJU_AGENT_SOCKET_NETWORK"), getenv("JUJU_AGENT_SOCKET_ADDRESS"))
		}),
		id:   getenv("JUJU_CONTEXT_ID"),
		exec: Exec,
	}
}

// request and response have the fields of Juju's, by which they are known.
type request struct {
	ContextId   string
	Dir         string
	CommandName string
	Args        []string
	StdinSet    bool
	Stdin       []byte
}

type response struct {
	Code           int
	Stdout, Stderr []byte
}

// Run is a Runner.
func (a Agent) Run(ctx context.Context, tool string, args []string, stdin []byte) ([]byte, error) {
	within, cancel := context.WithTimeout(ctx, toolTimeout)
	defer cancel()
	answer, err := a.ask(within, request{CommandName: tool, Args: args, StdinSet: stdin != nil, Stdin: stdin})
	switch {
	case err != nil && within.Err() != nil: // it may yet do it: not twice
		return nil, &ToolError{Tool: tool, Stderr: err.Error(), Err: err}
	case err != nil:
		return a.exec(ctx, tool, args, stdin)
	case answer.Code != 0:
		return nil, NewToolError(tool, string(answer.Stderr), fmt.Errorf("exit status %d", answer.Code))
	}
	return answer.Stdout, nil
}

func (a Agent) ask(ctx context.Context, req request) (response, error) {
	client, err := a.dial()
	if err != nil {
		return response{}, err
	}
	req.ContextId = a.id
	if req.Dir, err = os.Getwd(); err != nil {
		return response{}, err
	}
	var answer response
	call := client.Go("Jujuc.Main", req, &answer, make(chan *rpc.Call, 1))
	select {
	case <-call.Done:
		return answer, call.Error
	case <-ctx.Done():
		return response{}, ctx.Err()
	}
}
