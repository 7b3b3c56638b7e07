package juju

import (
	"context"
	"encoding/json"
	"errors"
	"io/fs"
	"os"
	"reflect"
	"slices"
	"strings"
	"testing"

	"charmhub.io/postgresql-k8s/charm/state"
)

// Each tool is called in exactly this way, and what Juju prints is read so.
func TestTools(t *testing.T) {
	t.Parallel()
	ctx := t.Context()
	content := map[string]string{"b": "2 \n", "a": "1"}
	tests := []struct {
		name   string
		do     func(Tools) (any, error)
		prints string
		want   any
		argv   string // words, between spaces
		stdin  string
	}{
		{"a leader", func(t Tools) (any, error) { return t.IsLeader(ctx) }, "true\n", true, "is-leader --format=json", ""},
		{"another unit", func(t Tools) (any, error) { return t.IsLeader(ctx) }, "false", false, "is-leader --format=json", ""},
		{"the configuration", func(t Tools) (any, error) { return t.Config(ctx) }, `{"a":1,"b":"x","c":true}`,
			map[string]any{"a": 1.0, "b": "x", "c": true}, "config-get --format=json", ""},
		{"relations", func(t Tools) (any, error) { return t.RelationIDs(ctx, "database") }, `["database:7","database:12"]`,
			[]int{7, 12}, "relation-ids --format=json database", ""},
		{"no relations", func(t Tools) (any, error) { return t.RelationIDs(ctx, "database") }, `[]`,
			[]int{}, "relation-ids --format=json database", ""},
		{"the databag of an application", func(t Tools) (any, error) { return t.RelationGet(ctx, 7, "db") }, `{"a":"1"}`,
			map[string]string{"a": "1"}, "relation-get --format=json -r 7 - db --app", ""},
		{"the databag of a unit", func(t Tools) (any, error) { return t.RelationGet(ctx, 7, "db/0") }, `{"a":"1"}`,
			map[string]string{"a": "1"}, "relation-get --format=json -r 7 - db/0", ""},
		{"the other application", func(t Tools) (any, error) { return t.RelationApp(ctx, 7) }, `"client"`,
			"client", "relation-list --format=json -r 7 --app", ""},
		{"the other application's units", func(t Tools) (any, error) { return t.RelationUnits(ctx, 7) }, `["client/0","client/1"]`,
			[]string{"client/0", "client/1"}, "relation-list --format=json -r 7", ""},
		{"the units that stay", func(t Tools) (any, error) { return t.Units(ctx) },
			`{"units":{"db/2":{"status":"waiting"},"db/1":{"status":"dying"},"db/0":{"status":"active"}}}`,
			[]string{"db/0", "db/2"}, "goal-state --format=json", ""},
		{"a change of the application's databag", func(t Tools) (any, error) { return nil, t.RelationSet(ctx, 7, content) }, "",
			nil, "relation-set -r 7 --app --file -", `{"a":"1","b":"2 \n"}`},
		{"a secret", func(t Tools) (any, error) { return t.SecretGet(ctx, "label") }, `{"key":"value"}`,
			map[string]string{"key": "value"}, "secret-get --format=json --label label --peek", ""},
		{"the id of a secret", func(t Tools) (any, error) { return t.SecretID(ctx, "label") }, `{"9m4e2mr0ui3e8a215n4g":{"revision":1}}`,
			"9m4e2mr0ui3e8a215n4g", "secret-info-get --format=json --label label", ""},
		{"the other side may read a secret", func(t Tools) (any, error) { return nil, t.SecretGrant(ctx, "secret:x", 7) }, "",
			nil, "secret-grant secret:x -r 7", ""},
		{"a secret is removed", func(t Tools) (any, error) { return nil, t.SecretRemove(ctx, "secret:x") }, "",
			nil, "secret-remove secret:x", ""},
		{"the status", func(t Tools) (any, error) {
			status, message, err := t.Status(ctx)
			return [2]string{status, message}, err
		}, `{"status":"waiting","message":"for Godot","status-data":{}}`,
			[2]string{"waiting", "for Godot"}, "status-get --format=json --include-data", ""},
		{"a status whose message looks like a flag", func(t Tools) (any, error) { return nil, t.StatusSet(ctx, "active", "-x") }, "",
			nil, "status-set active -- -x", ""},
		{"the version", func(t Tools) (any, error) { return nil, t.VersionSet(ctx, "17.5") }, "", nil, "application-version-set -- 17.5", ""},
		{"open ports, of TCP", func(t Tools) (any, error) { return t.OpenedPorts(ctx) }, `["5432/tcp","53/udp","icmp","8000-8008/tcp"]`,
			[]int{5432}, "opened-ports --format=json", ""},
		{"no open port", func(t Tools) (any, error) { return t.OpenedPorts(ctx) }, `null`, []int(nil), "opened-ports --format=json", ""},
		{"a port to be opened", func(t Tools) (any, error) { return nil, t.OpenPort(ctx, 5432) }, "", nil, "open-port 5432/tcp", ""},
		{"the state", func(t Tools) (any, error) { return t.State(ctx) }, `{"a":"1"}`, map[string]string{"a": "1"}, "state-get --format=json", ""},
		{"no state, which Juju prints as null", func(t Tools) (any, error) { return t.State(ctx) }, "null\n",
			map[string]string(nil), "state-get --format=json", ""},
		{"no state, of which nothing is printed", func(t Tools) (any, error) { return t.State(ctx) }, "\n",
			map[string]string(nil), "state-get --format=json", ""},
		{"a change of the state", func(t Tools) (any, error) { return nil, t.StateSet(ctx, content) }, "",
			nil, "state-set --file -", `{"a":"1","b":"2 \n"}`},
		{"the parameters of an action", func(t Tools) (any, error) { return t.ActionParams(ctx) }, `{"username":"operator"}`,
			map[string]any{"username": "operator"}, "action-get --format=json", ""},
		{"a result of an action", func(t Tools) (any, error) { return nil, t.ActionSet(ctx, map[string]string{"a": "-1"}) }, "",
			nil, "action-set -- a=-1", ""},
		{"the failure of an action", func(t Tools) (any, error) { return nil, t.ActionFail(ctx, "--no") }, "", nil, "action-fail -- --no", ""},
		{"the progress of an action", func(t Tools) (any, error) { return nil, t.ActionLog(ctx, "-half") }, "", nil, "action-log -- -half", ""},
		{"a line of the log", func(t Tools) (any, error) { return nil, t.Log(ctx, "INFO", "-hello") }, "", nil, "juju-log -l INFO -- -hello", ""},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			var argv, stdin string
			got, err := test.do(Tools{Run: func(_ context.Context, tool string, args []string, in []byte) ([]byte, error) {
				argv, stdin = strings.Join(append([]string{tool}, args...), " "), string(in)
				return []byte(test.prints), nil
			}})
			if err != nil {
				t.Fatal(err)
			}
			if !reflect.DeepEqual(got, test.want) {
				t.Errorf("it is %#v, want %#v", got, test.want)
			}
			if argv != test.argv || stdin != test.stdin {
				t.Errorf("it ran\n%s <<< %q, want\n%s <<< %q", argv, stdin, test.argv, test.stdin)
			}
		})
	}
}

func TestToolsTellWhatTheyCannotRead(t *testing.T) {
	t.Parallel()
	ctx := t.Context()
	prints := func(text string) Tools {
		return Tools{Run: func(context.Context, string, []string, []byte) ([]byte, error) { return []byte(text), nil }}
	}
	_, err := prints("True").IsLeader(ctx)
	if err == nil || !strings.HasPrefix(err.Error(), "cannot read the output of is-leader: ") {
		t.Errorf("the error is %v", err)
	}
	if _, err := prints(`["database"]`).RelationIDs(ctx, "database"); err == nil {
		t.Error("a relation without a number was read")
	}
	if _, err := prints(`{}`).SecretID(ctx, "label"); !errors.Is(err, ErrNotFound) {
		t.Errorf("a secret that nobody has is %v, want %v", err, ErrNotFound)
	}
}

// What is secret reaches Juju in a file that is private and does not stay.
func TestSecretsTravelInAPrivateFile(t *testing.T) {
	t.Parallel()
	ctx := t.Context()
	content := map[string]state.Redacted{"password": "hunter2", "other": "line\n"}
	tests := []struct {
		name string
		do   func(Tools) (string, error)
		argv string
		uri  string
	}{
		{"secret-add", func(t Tools) (string, error) { return t.SecretAdd(ctx, "label", content) },
			"secret-add --owner application --label label --file FILE", "secret:new"},
		{"secret-set", func(t Tools) (string, error) { return "", t.SecretSet(ctx, "secret:old", content) },
			"secret-set secret:old --file FILE", ""},
	}
	for _, test := range tests {
		for _, fails := range []error{nil, errors.New("exit status 1")} {
			t.Run(test.name, func(t *testing.T) {
				t.Parallel()
				var argv, path string
				uri, err := test.do(Tools{Run: func(_ context.Context, tool string, args []string, stdin []byte) ([]byte, error) {
					path = fileArgument(args)
					argv = strings.ReplaceAll(strings.Join(append([]string{tool}, args...), " "), path, "FILE")
					checkSecretFile(t, path, map[string]string{"password": "hunter2", "other": "line\n"})
					if len(stdin) > 0 {
						t.Errorf("the tool got %q on its standard input", stdin)
					}
					return []byte("secret:new\n"), fails
				}})
				if !errors.Is(err, fails) {
					t.Errorf("the error is %v, want %v", err, fails)
				}
				if uri != test.uri {
					t.Errorf("the URI is %q, want %q", uri, test.uri)
				}
				if argv != test.argv {
					t.Errorf("it ran\n%s, want\n%s", argv, test.argv)
				}
				if _, err := os.Stat(path); !errors.Is(err, fs.ErrNotExist) {
					t.Errorf("the file is still there: %v", err)
				}
			})
		}
	}
}

// fileArgument returns what follows --file.
func fileArgument(args []string) string {
	if i := slices.Index(args, "--file"); i >= 0 && i+1 < len(args) {
		return args[i+1]
	}
	return ""
}

func checkSecretFile(t *testing.T, path string, want map[string]string) {
	t.Helper()
	info, err := os.Stat(path)
	if err != nil {
		t.Fatal(err)
	}
	if info.Mode() != 0o600 {
		t.Errorf("the file has mode %v", info.Mode())
	}
	data, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	var got map[string]string
	if err := json.Unmarshal(data, &got); err != nil || !reflect.DeepEqual(got, want) {
		t.Errorf("the file holds %s, %v; want %v", data, err, want)
	}
}

// The texts are those of Juju 3.6 and 4.
func TestToolErrorKinds(t *testing.T) {
	t.Parallel()
	tests := []struct {
		tool, stderr string
		kind         error // nil for none of ours
	}{
		{"relation-get", `ERROR invalid value "7" for option -r: relation not found`, ErrNotFound},
		{"secret-get", `ERROR secret "9m4e2mr0ui3e8a215n4g" not found`, ErrNotFound},
		{"secret-get", `ERROR consumer label "database-peers.db.app" not found`, ErrNotFound},
		{"secret-get", `ERROR Secret Not Found`, ErrNotFound},
		{"secret-add", "ERROR this unit is not the leader\n", ErrNotLeader},
		{"status-get", `ERROR getting application status: "db/1" is not leader of "db"`, ErrNotLeader},
		{"relation-set", "ERROR cannot write relation settings", ErrNotLeader},
		{"relation-get", "ERROR permission denied", ErrPermission},
		{"secret-get", "ERROR access denied", ErrPermission},
		{"secret-add", `ERROR secret with label "x" already exists`, nil},
		{"network-get", `ERROR no network config found for binding "database"`, nil},
		{"is-leader", "ERROR JUJU_CONTEXT_ID not set", nil},
		{"is-leader", "ERROR bad request: wrong context ID; got \"x\"", nil},
		{"action-get", "ERROR not running an action", nil},
	}
	process := errors.New("exit status 1")
	for _, test := range tests {
		t.Run(test.stderr, func(t *testing.T) {
			t.Parallel()
			err := NewToolError(test.tool, test.stderr, process)
			for _, kind := range []error{ErrNotFound, ErrNotLeader, ErrPermission} {
				if errors.Is(err, kind) != (kind == test.kind) {
					t.Errorf("that it is %q is %t", kind, errors.Is(err, kind))
				}
			}
			if !errors.Is(err, process) {
				t.Error("the error of the process is lost")
			}
			want := "cannot run " + test.tool + ": " + strings.TrimSpace(strings.TrimPrefix(test.stderr, "ERROR "))
			if err.Error() != want {
				t.Errorf("it reads %q, want %q", err, want)
			}
		})
	}
}

func TestExec(t *testing.T) {
	t.Parallel()
	ctx := t.Context()
	out, err := Exec(ctx, "sh", []string{"-c", `cat; echo " $1"; echo to stderr >&2`, "sh", "an argument"}, []byte("stdin"))
	if err != nil || string(out) != "stdin an argument\n" {
		t.Errorf("it printed %q, %v", out, err)
	}
	_, err = Exec(ctx, "sh", []string{"-c", "echo ERROR secret not found >&2; exit 1"}, nil)
	if !errors.Is(err, ErrNotFound) || err.Error() != "cannot run sh: secret not found" {
		t.Errorf("the error is %v", err)
	}
	_, err = Exec(ctx, "sh", []string{"-c", "exit 7"}, nil)
	if err == nil || err.Error() != "cannot run sh: exit status 7" {
		t.Errorf("the error is %v", err)
	}
	_, err = Exec(ctx, "no-such-tool", nil, nil)
	if err == nil || errors.Is(err, ErrNotFound) {
		t.Errorf("a tool that is missing was taken for a secret or relation that is: %v", err)
	}
	ended, cancel := context.WithCancel(ctx)
	cancel()
	if _, err := Exec(ended, "sh", []string{"-c", "exit 0"}, nil); !errors.Is(err, context.Canceled) {
		t.Errorf("after the dispatch ended the error is %v", err)
	}
}
