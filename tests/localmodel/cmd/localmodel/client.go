package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"

	"gopkg.in/yaml.v3"

	"charmhub.io/postgresql-k8s/tests/localmodel"
)

// usageError is a fault of the command line.
type usageError struct{ error }

func asUsage(err error, target *usageError) bool { return errors.As(err, target) }

func missing(what string) error { return usageError{fmt.Errorf("%s is missing", what)} }

// client speaks to the daemon at a unix socket.
type client struct{ socket string }

func (c client) send(o order) (reply, error) {
	var answer reply
	data, err := json.Marshal(o)
	if err != nil {
		return answer, err
	}
	transport := &http.Transport{DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		var d net.Dialer
		return d.DialContext(ctx, "unix", c.socket)
	}}
	defer transport.CloseIdleConnections()
	resp, err := (&http.Client{Transport: transport}).Post("http://localmodel/", "application/json", bytes.NewReader(data))
	if err != nil {
		return answer, fmt.Errorf("no model is up (%w); start one with: localmodel up", err)
	}
	defer resp.Body.Close()
	if err := json.NewDecoder(resp.Body).Decode(&answer); err != nil {
		return answer, fmt.Errorf("the model has ended: %w", err)
	}
	if answer.Error != "" {
		return answer, errors.New(answer.Error)
	}
	return answer, nil
}

// one is a command of one word.
func one(name, what string) func(client, arguments) error {
	return func(c client, a arguments) error {
		if len(a.words) != 1 {
			return missing(what)
		}
		_, err := c.send(order{Name: name, Words: a.words})
		return err
	}
}

// two is a command of two words.
func two(name string) func(client, arguments) error {
	return func(c client, a arguments) error {
		if len(a.words) != 2 {
			return missing("one of two names")
		}
		_, err := c.send(order{Name: name, Words: a.words})
		return err
	}
}

func scale(name string) func(client, arguments) error {
	return func(c client, a arguments) error {
		if len(a.words) != 1 {
			return missing("application")
		}
		count := 1
		if n := a.flag("n", "num-units"); n != "" {
			var err error
			if count, err = strconv.Atoi(n); err != nil {
				return usageError{err}
			}
		}
		_, err := c.send(order{Name: name, Words: a.words, Count: count})
		return err
	}
}

func deploy(c client, a arguments) error {
	if len(a.words) == 0 {
		return missing("charm")
	}
	path, err := filepath.Abs(a.word(0))
	if err != nil {
		return err
	}
	units, _ := strconv.Atoi(a.flag("n", "num-units"))
	config, err := values(a.flags["config"])
	if err != nil {
		return err
	}
	_, err = c.send(order{Name: "deploy", Deployment: localmodel.Deployment{
		Charm: path, Name: a.word(1), Units: units, Trust: a.on("trust"), Config: config, Images: images(a),
	}})
	return err
}

func images(a arguments) map[string]string {
	found := map[string]string{}
	for _, pair := range a.flags["resource"] {
		name, ref, _ := strings.Cut(pair, "=")
		found[name] = ref
	}
	return found
}

// values reads K=V words; a value is YAML, so that numbers are numbers.
func values(pairs []string) (map[string]any, error) {
	found := map[string]any{}
	for _, pair := range pairs {
		key, text, ok := strings.Cut(pair, "=")
		if !ok {
			return nil, usageError{fmt.Errorf("%q is not K=V", pair)}
		}
		var value any
		if err := yaml.Unmarshal([]byte(text), &value); err != nil || value == nil {
			value = text
		}
		found[key] = value
	}
	return found, nil
}

func config(c client, a arguments) error {
	if len(a.words) == 0 {
		return missing("application")
	}
	set, err := values(a.words[1:])
	if err != nil {
		return err
	}
	for name := range strings.SplitSeq(a.flag("reset"), ",") {
		if name != "" {
			set[name] = nil
		}
	}
	answer, err := c.send(order{Name: "config", Words: a.words[:1], Values: set})
	if err != nil || answer.Values == nil {
		return err
	}
	return printYAML(answer.Values)
}

func printYAML(value any) error {
	data, err := yaml.Marshal(value)
	fmt.Print(string(data))
	return err
}

func trust(c client, a arguments) error {
	if len(a.words) != 1 {
		return missing("application")
	}
	_, err := c.send(order{Name: "trust", Words: a.words, Flag: !a.on("remove")})
	return err
}

func refresh(c client, a arguments) error {
	if len(a.words) != 1 || a.flag("path") == "" {
		return missing("application or --path")
	}
	path, err := filepath.Abs(a.flag("path"))
	if err != nil {
		return err
	}
	_, err = c.send(order{Name: "refresh", Words: []string{a.word(0), path}, Images: images(a)})
	return err
}

func runAction(c client, a arguments) error {
	if len(a.words) < 2 {
		return missing("unit or action")
	}
	params, err := values(a.words[2:])
	if err != nil {
		return err
	}
	answer, err := c.send(order{Name: "run", Words: a.words[:2], Values: params})
	if err != nil {
		return err
	}
	for _, line := range answer.Action.Log {
		fmt.Println(line)
	}
	if err := printYAML(answer.Action.Results); err != nil {
		return err
	}
	if answer.Action.Status == "failed" {
		return fmt.Errorf("action %d failed: %s", answer.Action.ID, answer.Action.Message)
	}
	return nil
}

func status(c client, a arguments) error {
	every, err := time.ParseDuration(a.flag("watch"))
	watching := err == nil
	for {
		answer, err := c.send(order{Name: "status"})
		if err != nil {
			return err
		}
		switch {
		case a.flag("format") == "json":
			if err := json.NewEncoder(os.Stdout).Encode(answer.Status); err != nil {
				return err
			}
		case watching:
			fmt.Print("\x1b[H\x1b[2J", answer.Status)
		default:
			if !a.on("relations") {
				answer.Status.Relations = nil
			}
			fmt.Print(answer.Status)
		}
		if !watching {
			return nil
		}
		time.Sleep(every)
	}
}

func waitFor(c client, a arguments) error {
	if len(a.words) != 1 {
		return missing("application")
	}
	timeout, err := time.ParseDuration(a.flag("timeout"))
	if err != nil {
		timeout = 5 * time.Minute
	}
	units, _ := strconv.Atoi(a.flag("n"))
	for end := time.Now().Add(timeout); ; time.Sleep(200 * time.Millisecond) {
		answer, err := c.send(order{Name: "status"})
		if err != nil {
			return err
		}
		want := units
		if want == 0 {
			want = answer.Status.App(a.word(0)).Scale
		}
		if want > 0 && answer.Status.Settled(a.word(0), want) {
			return nil
		}
		if time.Now().After(end) {
			return fmt.Errorf("%s is not active after %s:\n%s", a.word(0), timeout, answer.Status)
		}
	}
}

func showUnit(c client, a arguments) error {
	if len(a.words) != 1 {
		return missing("unit")
	}
	answer, err := c.send(order{Name: "show-unit", Words: a.words})
	if err != nil {
		return err
	}
	data, err := json.Marshal(answer.Units) // for the names of its fields
	if err != nil {
		return err
	}
	var shown any
	if err := yaml.Unmarshal(data, &shown); err != nil {
		return err
	}
	return printYAML(map[string]any{a.word(0): map[string]any{"relation-info": shown}})
}

func debugLog(c client, a arguments) error {
	answer, err := c.send(order{Name: "debug-log"})
	if err != nil {
		return err
	}
	shown := answer.Lines
	if n, err := strconv.Atoi(a.flag("lines", "n")); err == nil && n < len(shown) {
		shown = shown[len(shown)-n:]
	}
	for {
		for _, line := range shown {
			fmt.Println(line)
		}
		if a.on("no-tail") {
			return nil
		}
		if answer, err = c.send(order{Name: "debug-log", From: answer.Next, Flag: true}); err != nil {
			return err
		}
		shown = answer.Lines
	}
}

func execute(c client, a arguments) error {
	unit, words := a.flag("unit", "u"), append(a.words, a.rest...)
	if unit == "" || len(words) == 0 {
		return missing("--unit or command")
	}
	answer, err := c.send(order{Name: "exec", Words: []string{unit, strings.Join(words, " ")}})
	if err != nil {
		return err
	}
	fmt.Print(answer.Exec.Stdout)
	fmt.Fprint(os.Stderr, answer.Exec.Stderr)
	if answer.Exec.Code != 0 {
		os.Exit(answer.Exec.Code)
	}
	return nil
}

func logs(c client, a arguments) error {
	answer, err := c.send(order{Name: "logs", Words: []string{a.word(0), containerOf(a)}})
	fmt.Println(answer.Text)
	return err
}

func containerOf(a arguments) string {
	if name := a.flag("container"); name != "" {
		return name
	}
	return "charm"
}

// ssh becomes a process in a container: into the node first, which is the
// daemon's process, then into the container in it.
func ssh(c client, a arguments) error {
	if len(a.words) == 0 {
		return missing("unit")
	}
	answer, err := c.send(order{Name: "enter", Words: []string{a.word(0), containerOf(a)}})
	if err != nil {
		return err
	}
	daemon, err := c.peer()
	if err != nil {
		return err
	}
	nsenter, err := exec.LookPath("nsenter")
	if err != nil {
		return err
	}
	words := a.rest
	if len(words) > 0 && words[0] == "--" {
		words = words[1:]
	}
	if len(words) == 0 {
		words = []string{"/bin/bash"}
	}
	args := []string{nsenter, "-t", strconv.Itoa(daemon), "-m", "-p", "-r", "--",
		nsenter, "-t", strconv.Itoa(answer.PID), "-m", "-p", "-n", "-u", "-i", "-r", "--"}
	return syscall.Exec(nsenter, append(args, words...), append(answer.Env, "TERM="+os.Getenv("TERM")))
}

// peer is the daemon's process as this side of the socket sees it.
func (c client) peer() (int, error) {
	conn, err := net.Dial("unix", c.socket)
	if err != nil {
		return 0, err
	}
	defer conn.Close()
	raw, err := conn.(*net.UnixConn).SyscallConn()
	if err != nil {
		return 0, err
	}
	var pid int32
	var credErr error
	err = raw.Control(func(fd uintptr) {
		var cred *syscall.Ucred
		if cred, credErr = syscall.GetsockoptUcred(int(fd), syscall.SOL_SOCKET, syscall.SO_PEERCRED); credErr == nil {
			pid = cred.Pid
		}
	})
	return int(pid), errors.Join(err, credErr)
}
