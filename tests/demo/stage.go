package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"syscall"
	"time"

	"charmhub.io/postgresql-k8s/tests/localmodel"
)

// stage is where the story is told: a terminal, and a model.
type stage struct {
	ctx   context.Context
	start time.Time
	cli   string // the program localmodel
	units int
	keep  bool
	ended chan struct{} // closed when the model's process has ended
}

// say tells something to the audience.
func (s *stage) say(format string, args ...any) {
	fmt.Printf("\n[%5.1f s] %s\n", time.Since(s.start).Seconds(), fmt.Sprintf(format, args...))
}

// show prints what a command has printed.
func show(text string) {
	for line := range strings.Lines(strings.TrimRight(text, " \n")) {
		fmt.Print("    ", line)
	}
	fmt.Println()
}

// modelDir is where the model keeps everything.
var modelDir = filepath.Join(home, "model")

// command is a localmodel command. It ends with the demo, however that ends.
func (s *stage) command(args ...string) *exec.Cmd {
	cmd := exec.CommandContext(s.ctx, s.cli, args...)
	cmd.Env = append(os.Environ(), "LOCALMODEL_DIR="+modelDir)
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	return cmd
}

// ask runs a localmodel command and returns what it prints.
func (s *stage) ask(args ...string) (string, error) {
	var stderr bytes.Buffer
	cmd := s.command(args...)
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	switch {
	case s.ctx.Err() != nil:
		return "", s.ctx.Err()
	case err != nil:
		return "", fmt.Errorf("localmodel %s: %w: %s", strings.Join(args, " "), err, strings.TrimSpace(stderr.String()))
	}
	return string(out), nil
}

// do lets the audience see a localmodel command, and what it prints.
func (s *stage) do(args ...string) (string, error) {
	fmt.Printf("\n$ localmodel %s\n", quote(args))
	out, err := s.ask(args...)
	if out != "" {
		show(out)
	}
	return out, err
}

// quote writes words as for a shell.
func quote(words []string) string {
	quoted := make([]string, len(words))
	for i, word := range words {
		switch {
		case !strings.ContainsAny(word, " '\"$*\\;|&()"):
		case !strings.Contains(word, "'"):
			word = "'" + word + "'"
		default:
			word = strconv.Quote(word) // there is no $ in it
		}
		quoted[i] = word
	}
	return strings.Join(quoted, " ")
}

// up starts the model in the background.
func (s *stage) up() error {
	s.say("A model of Juju comes up: its agents, its hook tools and a Kubernetes API, in one process on this machine.")
	logFile := filepath.Join(home, "up.log")
	log, err := os.Create(logFile)
	if err != nil {
		return err
	}
	defer log.Close()
	fmt.Printf("\n$ localmodel up --fast --image %s &\n", image)
	cmd := s.command("up", "--fast", "--image", image)
	cmd.Cancel = func() error { return nil } // it is ended by localmodel down
	cmd.Stdout, cmd.Stderr = log, log
	cmd.SysProcAttr.Setsid = true // Ctrl-C is for the demo
	if s.keep {
		cmd.SysProcAttr.Pdeathsig = 0
	}
	if err := cmd.Start(); err != nil {
		return err
	}
	s.ended = make(chan struct{})
	go func() {
		_ = cmd.Wait()
		close(s.ended)
	}()
	for {
		if _, err := s.ask("status"); err == nil {
			return nil
		}
		select {
		case <-s.ended:
			said, _ := os.ReadFile(logFile)
			return fmt.Errorf("the model does not come up: %s", bytes.TrimSpace(said))
		case <-s.ctx.Done():
			return s.ctx.Err()
		case <-time.After(100 * time.Millisecond):
		}
	}
}

// down ends the model and removes what it has left; an interrupt does not stop it.
func (s *stage) down() error {
	s.ctx = context.WithoutCancel(s.ctx)
	if _, err := s.do("down"); err != nil {
		return err
	}
	if s.ended != nil {
		<-s.ended // with it, its processes, mounts and network
	}
	return errors.Join(os.RemoveAll(modelDir), os.RemoveAll(filepath.Join(home, "up.log")))
}

// patience is how long anything in a scene may take.
const patience = 3 * time.Minute

// watch shows the status whenever it has changed, until it is as wished.
func (s *stage) watch(what string, wished func(localmodel.Status) bool) (localmodel.Status, error) {
	fmt.Printf("\n$ localmodel status --relations --watch 300ms\n")
	ctx, cancel := context.WithTimeout(s.ctx, patience)
	defer cancel()
	seen, shown := "", ""
	for {
		status, err := s.status()
		if err != nil {
			return status, err
		}
		done := wished(status)
		now := essence(status)
		if table := status.String(); now != seen || done && withoutTime(table) != shown {
			seen, shown = now, withoutTime(table)
			fmt.Printf("[%5.1f s]\n", time.Since(s.start).Seconds())
			show(table)
		}
		if done {
			return status, nil
		}
		select {
		case <-time.After(300 * time.Millisecond):
		case <-ctx.Done():
			if s.ctx.Err() != nil {
				return status, s.ctx.Err()
			}
			return status, fmt.Errorf("waited %s in vain until %s", patience, what)
		}
	}
}

func (s *stage) status() (localmodel.Status, error) {
	var status localmodel.Status
	out, err := s.ask("status", "--relations", "--format", "json")
	if err != nil {
		return status, err
	}
	return status, json.Unmarshal([]byte(out), &status)
}

// essence is what of a status is worth to be shown again when it changes: not
// which hook runs just now.
func essence(s localmodel.Status) string {
	var b strings.Builder
	for _, app := range s.Apps {
		fmt.Fprintln(&b, app.Name, app.Status.Status, app.Status.Message, app.Scale, app.Dying)
		for _, u := range app.Units {
			fmt.Fprintln(&b, u.Name, u.Workload.Status, u.Workload.Message, u.Leader, u.Address)
		}
	}
	fmt.Fprintln(&b, s.Relations)
	return b.String()
}

// withoutTime is a status table without its first lines, which have the time.
func withoutTime(table string) string {
	_, rest, _ := strings.Cut(table, "\n\n")
	return rest
}

// build runs a command of the preparations, and shows its lines as they come. It
// ends with the demo, however that ends.
func (s *stage) build(ctx context.Context, lines io.Writer, name string, args ...string) error {
	runtime.LockOSThread() // see Pdeathsig
	defer runtime.UnlockOSThread()
	cmd := exec.CommandContext(ctx, name, args...)
	cmd.Stdout, cmd.Stderr = lines, lines
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	cmd.Cancel = func() error { return cmd.Process.Signal(syscall.SIGTERM) }
	cmd.WaitDelay = 15 * time.Second
	if err := cmd.Run(); err != nil {
		return fmt.Errorf("%s %s: %w", name, strings.Join(args, " "), err)
	}
	return nil
}
