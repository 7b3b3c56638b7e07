package juju

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"os"
	"os/exec"
	"slices"
	"strconv"
	"strings"
	"time"

	"charmhub.io/postgresql-k8s/charm/state"
)

// toolTimeout bounds one hook tool. They take milliseconds; the agent answers
// slowly only while it has lost its controller.
const toolTimeout = 30 * time.Second

// A Runner runs one hook tool and returns its standard output.
type Runner func(ctx context.Context, tool string, args []string, stdin []byte) ([]byte, error)

// Kinds of hook tool errors, to be told apart with errors.Is.
var (
	ErrNotFound   = errors.New("not found")
	ErrNotLeader  = errors.New("this unit is not the leader")
	ErrPermission = errors.New("permission denied")
)

// kinds maps what the tools print, in lower case, to the kinds above. The tools
// have no machine-readable errors.
var kinds = []struct {
	text string
	kind error
}{
	{"not the leader", ErrNotLeader},
	{"is not leader of", ErrNotLeader},
	{"cannot write relation settings", ErrNotLeader},
	{"not found", ErrNotFound},
	{"permission denied", ErrPermission},
	{"access denied", ErrPermission},
}

// ToolError is the failure of a hook tool. It keeps no arguments.
type ToolError struct {
	Tool   string
	Stderr string
	Err    error // of the process
	kind   error
}

// Error implements error.
func (e *ToolError) Error() string {
	return fmt.Sprintf("cannot run %s: %s", e.Tool, strings.TrimPrefix(strings.TrimSpace(e.Stderr), "ERROR "))
}

// Unwrap gives errors.Is the kind and the error of the process.
func (e *ToolError) Unwrap() []error {
	if e.kind == nil {
		return []error{e.Err}
	}
	return []error{e.Err, e.kind}
}

// NewToolError returns the error of a tool that printed stderr, with its kind.
func NewToolError(tool, stderr string, err error) *ToolError {
	e := &ToolError{Tool: tool, Stderr: stderr, Err: err}
	lower := strings.ToLower(stderr)
	for _, k := range kinds {
		if strings.Contains(lower, k.text) {
			e.kind = k.kind
			break
		}
	}
	return e
}

// Exec is the Runner that executes the tool found on PATH.
func Exec(ctx context.Context, tool string, args []string, stdin []byte) ([]byte, error) {
	ctx, cancel := context.WithTimeout(ctx, toolTimeout)
	defer cancel()
	var stdout, stderr bytes.Buffer
	cmd := exec.CommandContext(ctx, tool, args...)
	cmd.Stdin = bytes.NewReader(stdin)
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	if err := cmd.Run(); err != nil {
		if stderr.Len() == 0 { // it was not found or killed, which is none of the kinds
			return nil, &ToolError{Tool: tool, Stderr: err.Error(), Err: err}
		}
		return nil, NewToolError(tool, stderr.String(), err)
	}
	return stdout.Bytes(), nil
}

// Tools are Juju's hook tools, typed.
type Tools struct{ Run Runner }

// get runs a tool that prints JSON.
func get[T any](ctx context.Context, t Tools, tool string, args ...string) (T, error) {
	var v T
	out, err := t.Run(ctx, tool, append([]string{"--format=json"}, args...), nil)
	if err != nil {
		return v, err
	}
	if len(bytes.TrimSpace(out)) == 0 {
		return v, nil
	}
	if err := json.Unmarshal(out, &v); err != nil {
		return v, fmt.Errorf("cannot read the output of %s: %w", tool, err)
	}
	return v, nil
}

func (t Tools) do(ctx context.Context, tool string, args ...string) error {
	_, err := t.Run(ctx, tool, args, nil)
	return err
}

// IsLeader tells whether this unit leads, which then holds for 30 seconds.
func (t Tools) IsLeader(ctx context.Context) (bool, error) {
	return get[bool](ctx, t, "is-leader")
}

// Config returns the options that have a value.
func (t Tools) Config(ctx context.Context) (map[string]any, error) {
	return get[map[string]any](ctx, t, "config-get")
}

// RelationIDs returns the ids of the endpoint's relations; one that is being
// broken is not among them.
func (t Tools) RelationIDs(ctx context.Context, endpoint string) ([]int, error) {
	names, err := get[[]string](ctx, t, "relation-ids", endpoint)
	if err != nil {
		return nil, err
	}
	ids := make([]int, 0, len(names))
	for _, name := range names { // database:7
		_, number, _ := strings.Cut(name, ":")
		id, err := strconv.Atoi(number)
		if err != nil {
			return nil, fmt.Errorf("cannot read the relation id %q: %w", name, err)
		}
		ids = append(ids, id)
	}
	return ids, nil
}

// RelationGet returns the databag that the application or unit owner has in a
// relation.
func (t Tools) RelationGet(ctx context.Context, id int, owner string) (map[string]string, error) {
	args := []string{"-r", strconv.Itoa(id), "-", owner}
	if !strings.Contains(owner, "/") {
		args = append(args, "--app")
	}
	return get[map[string]string](ctx, t, "relation-get", args...)
}

// RelationApp returns the application on the other side of a relation.
func (t Tools) RelationApp(ctx context.Context, id int) (string, error) {
	return get[string](ctx, t, "relation-list", "-r", strconv.Itoa(id), "--app")
}

// RelationUnits returns the units on the other side of a relation, but for one
// that departs with this event.
func (t Tools) RelationUnits(ctx context.Context, id int) ([]string, error) {
	return get[[]string](ctx, t, "relation-list", "-r", strconv.Itoa(id))
}

// Units returns the names of the application's units that Juju means to keep,
// sorted.
func (t Tools) Units(ctx context.Context) ([]string, error) {
	type goalState struct {
		Units map[string]struct{ Status string }
	}
	goal, err := get[goalState](ctx, t, "goal-state")
	// Juju lists the units and then looks at each: it finds no more one that is removed
	// meanwhile (seen with 4.1-beta2).
	for range 2 {
		if errors.Is(err, ErrNotFound) {
			goal, err = get[goalState](ctx, t, "goal-state")
		}
	}
	if err != nil {
		return nil, err
	}
	maps.DeleteFunc(goal.Units, func(_ string, u struct{ Status string }) bool { return u.Status == "dying" })
	return slices.Sorted(maps.Keys(goal.Units)), nil
}

// RelationSet changes keys of the application's databag; an empty value removes
// a key.
func (t Tools) RelationSet(ctx context.Context, id int, content map[string]string) error {
	return t.relationSet(ctx, content, "-r", strconv.Itoa(id), "--app", "--file", "-")
}

// RelationSetUnit changes keys of the unit's databag in the same way.
func (t Tools) RelationSetUnit(ctx context.Context, id int, content map[string]string) error {
	return t.relationSet(ctx, content, "-r", strconv.Itoa(id), "--file", "-")
}

func (t Tools) relationSet(ctx context.Context, content map[string]string, args ...string) error {
	stdin, err := json.Marshal(content)
	if err != nil {
		return fmt.Errorf("cannot encode a databag: %w", err)
	}
	_, err = t.Run(ctx, "relation-set", args, stdin)
	return err
}

// SecretGet returns the latest revision of a secret by our label for it.
func (t Tools) SecretGet(ctx context.Context, label string) (map[string]string, error) {
	return get[map[string]string](ctx, t, "secret-get", "--label", label, "--peek")
}

// SecretID returns the id of a secret that the application owns, by label.
func (t Tools) SecretID(ctx context.Context, label string) (string, error) {
	info, err := get[map[string]any](ctx, t, "secret-info-get", "--label", label)
	if err != nil {
		return "", err
	}
	for id := range info {
		return id, nil
	}
	return "", fmt.Errorf("secret %s: %w", label, ErrNotFound)
}

// SecretAdd makes a secret of the application and returns its URI.
func (t Tools) SecretAdd(ctx context.Context, label string, content map[string]state.Redacted) (string, error) {
	var uri string
	err := withSecretFile(content, func(path string) error {
		out, err := t.Run(ctx, "secret-add", []string{"--owner", "application", "--label", label, "--file", path}, nil)
		uri = strings.TrimSpace(string(out))
		return err
	})
	return uri, err
}

// SecretSet replaces the content of a secret.
func (t Tools) SecretSet(ctx context.Context, uri string, content map[string]state.Redacted) error {
	return withSecretFile(content, func(path string) error {
		return t.do(ctx, "secret-set", uri, "--file", path)
	})
}

// SecretGrant lets the other side of a relation read a secret.
func (t Tools) SecretGrant(ctx context.Context, uri string, relation int) error {
	return t.do(ctx, "secret-grant", uri, "-r", strconv.Itoa(relation))
}

// SecretRemove removes a secret with all of its revisions.
func (t Tools) SecretRemove(ctx context.Context, uri string) error {
	return t.do(ctx, "secret-remove", uri)
}

// withSecretFile shows the content to a tool as a file that only we and the
// unit agent, which opens it, can read.
func withSecretFile(content map[string]state.Redacted, use func(path string) error) error {
	plain := make(map[string]string, len(content))
	for k, v := range content {
		plain[k] = v.Reveal()
	}
	data, err := json.Marshal(plain)
	if err != nil {
		return fmt.Errorf("cannot encode a secret: %w", err)
	}
	f, err := os.CreateTemp(memoryDir(), "postgresql-k8s-*") // mode 0600
	if err != nil {
		return fmt.Errorf("cannot make a file for a secret: %w", err)
	}
	defer os.Remove(f.Name())
	if _, err := f.Write(data); err != nil {
		return fmt.Errorf("cannot write a secret: %w", errors.Join(err, f.Close()))
	}
	if err := f.Close(); err != nil {
		return fmt.Errorf("cannot write a secret: %w", err)
	}
	return use(f.Name())
}

// memoryDir is a directory that never reaches a disk, or the default one.
func memoryDir() string {
	const shm = "/dev/shm"
	if info, err := os.Stat(shm); err == nil && info.IsDir() {
		return shm
	}
	return os.TempDir()
}

// Status returns the unit's status and message.
func (t Tools) Status(ctx context.Context) (status, message string, err error) {
	// Without --include-data the tool prints the bare word.
	s, err := get[struct{ Status, Message string }](ctx, t, "status-get", "--include-data")
	return s.Status, s.Message, err
}

// StatusSet sets the unit's status, at once.
func (t Tools) StatusSet(ctx context.Context, status, message string) error {
	return t.do(ctx, "status-set", status, "--", message)
}

// VersionSet sets the version of the workload that juju status shows, at once.
func (t Tools) VersionSet(ctx context.Context, version string) error {
	return t.do(ctx, "application-version-set", "--", version)
}

// OpenedPorts returns the TCP ports that are open.
func (t Tools) OpenedPorts(ctx context.Context) ([]int, error) {
	names, err := get[[]string](ctx, t, "opened-ports")
	if err != nil {
		return nil, err
	}
	var ports []int
	for _, name := range names { // 5432/tcp
		number, isTCP := strings.CutSuffix(name, "/tcp")
		if port, err := strconv.Atoi(number); isTCP && err == nil {
			ports = append(ports, port)
		}
	}
	return ports, nil
}

// OpenPort opens a TCP port.
func (t Tools) OpenPort(ctx context.Context, port int) error {
	return t.do(ctx, "open-port", fmt.Sprintf("%d/tcp", port))
}

// State returns the unit's state that Juju keeps for the charm.
func (t Tools) State(ctx context.Context) (map[string]string, error) {
	return get[map[string]string](ctx, t, "state-get")
}

// StateSet changes keys of that state.
func (t Tools) StateSet(ctx context.Context, content map[string]string) error {
	stdin, err := json.Marshal(content)
	if err != nil {
		return fmt.Errorf("cannot encode the state: %w", err)
	}
	_, err = t.Run(ctx, "state-set", []string{"--file", "-"}, stdin)
	return err
}

// ActionParams returns the parameters of the running action.
func (t Tools) ActionParams(ctx context.Context) (map[string]any, error) {
	return get[map[string]any](ctx, t, "action-get")
}

// ActionSet adds results of the running action. The tool
// takes them as arguments only, so that who can see the processes of the charm's
// container sees a password among them for some milliseconds: there is no other
// way in Juju, and who can do that can read the secret itself.
func (t Tools) ActionSet(ctx context.Context, results map[string]string) error {
	args := []string{"--"}
	for _, k := range slices.Sorted(maps.Keys(results)) {
		args = append(args, k+"="+results[k])
	}
	return t.do(ctx, "action-set", args...)
}

// ActionFail makes the running action fail with a message.
func (t Tools) ActionFail(ctx context.Context, message string) error {
	return t.do(ctx, "action-fail", "--", message)
}

// ActionLog tells the user how the action comes along.
func (t Tools) ActionLog(ctx context.Context, message string) error {
	return t.do(ctx, "action-log", "--", message)
}

// Log writes to the model's log. Levels are Juju's: DEBUG, INFO, WARNING, ERROR.
func (t Tools) Log(ctx context.Context, level, message string) error {
	return t.do(ctx, "juju-log", "-l", level, "--", message)
}
