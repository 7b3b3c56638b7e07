// Command dispatch is the charm: Juju executes it once for each event, in the
// charm container of each unit. It takes no arguments; Juju's environment
// variables say what happened.
package main

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"os"
	"runtime/debug"
	"strings"
	"time"

	"charmhub.io/postgresql-k8s/actions"
	"charmhub.io/postgresql-k8s/charm"
	"charmhub.io/postgresql-k8s/charm/state"
	"charmhub.io/postgresql-k8s/juju"
	"charmhub.io/postgresql-k8s/kube"
	"charmhub.io/postgresql-k8s/patroni"
	"charmhub.io/postgresql-k8s/pebble"
	"charmhub.io/postgresql-k8s/postgres"
)

// actionBudget bounds an action: who runs it waits for it, and it goes on serving
// the unit meanwhile.
const actionBudget = 15 * time.Minute

const pebbleSocket = "/charm/containers/" + state.Container + "/pebble.socket"

func main() {
	// SIGTERM keeps its default: Juju runs a killed hook again, and takes an
	// orderly exit with an error for a failure.
	tools := juju.Tools{Run: juju.NewAgent(os.Getenv).Run}
	log := slog.New(juju.NewLogHandler(tools, debugOutput()))
	published, err := run(tools, log)
	if err == nil {
		return
	}
	log.Error("dispatch failed", "error", err)
	os.Exit(exitCode(tools, inAction(), published, err))
}

// exitCode is that of a dispatch that failed. After an action Juju commits whatever
// was written if it is 0, and else shows it in the place of our words: those are the
// smaller loss than half of what belongs together.
func exitCode(tools juju.Tools, action, published bool, cause error) int {
	if !action || published {
		return 1
	}
	if err := tools.ActionFail(context.Background(), cause.Error()); err != nil {
		return 1
	}
	return 0
}

// debugOutput is where debug records go: Juju logs what a hook prints, but shows
// what an action prints to the user.
func debugOutput() io.Writer {
	if inAction() {
		return io.Discard
	}
	return os.Stdout
}

// inAction tells whether Juju runs an action; JUJU_ACTION_NAME is also set by
// juju exec.
func inAction() bool { return strings.HasPrefix(os.Getenv("JUJU_DISPATCH_PATH"), "actions/") }

// run also tells whether something may have been written that Juju has yet to commit.
func run(tools juju.Tools, log *slog.Logger) (published bool, err error) {
	defer func() {
		if cause := recover(); cause != nil {
			published, err = true, fmt.Errorf("panic: %v\n%s", cause, debug.Stack())
		}
	}()
	env, err := juju.ParseEnvironment(os.Getenv)
	if err != nil {
		return false, err
	}
	within := charm.Budget
	if inAction() {
		within = actionBudget
	}
	ctx, cancel := context.WithTimeout(context.Background(), within)
	defer cancel()

	api, err := kube.InCluster(env.Unit.Model, env.Unit.App)
	if err != nil {
		return false, err
	}
	resolv, _ := os.ReadFile("/etc/resolv.conf") // without it the cluster's domain is the usual one
	database := postgres.New(postgres.Connect)
	defer database.Close(ctx)
	workload := pebble.New(pebbleSocket, state.PatroniYML)
	database.Local = workload.Psql
	member := patroni.New(patroni.OnHost("localhost"), patroni.OnHost)
	member.Hangup = workload.Hangup
	c := charm.Charm{
		Model: juju.New(tools, env),
		Systems: []charm.System{
			kube.New(api, env.Unit, string(resolv)),
			workload,
			member,
		},
		Second:   []charm.System{database},
		Handlers: charm.Handlers(),
		Actions:  actions.All(),
		Action:   env.Event.Action,
		Log:      log,
		Wake:     workload.Wake,
		Now:      time.Now,
		Sleep:    sleep,
	}
	start := time.Now()
	out, err := c.Dispatch(ctx)
	log.Debug("dispatched", "event", env.Event.Name, "passes", out.Passes, "steps", out.Steps,
		"took", time.Since(start), "peak_rss", peakMemory(), "observing", fmt.Sprint(out.Took), "status", out.Status.Severity, "message", out.Status.Message)
	return out.Published, err
}

// peakMemory is the most memory that the process had, as proc(5) has it; the
// figure of getrusage(2) would be that of the agent which started us.
func peakMemory() string {
	status, _ := os.ReadFile("/proc/self/status") // it is only for the log
	_, after, _ := strings.Cut(string(status), "VmHWM:")
	line, _, _ := strings.Cut(after, "\n")
	return strings.TrimSpace(line)
}

func sleep(ctx context.Context, d time.Duration) {
	select {
	case <-ctx.Done():
	case <-time.After(d):
	}
}
