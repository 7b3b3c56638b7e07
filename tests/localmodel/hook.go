package localmodel

import (
	"bytes"
	"errors"
	"fmt"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"

	"charmhub.io/postgresql-k8s/tests/localmodel/hooktool"
	"charmhub.io/postgresql-k8s/tests/localmodel/kubeapi"
)

// A Hook is one thing that an agent runs: a charm's hook, an action, or a
// command of juju exec.
type Hook struct {
	Name string // pgdata-storage-attached; empty for actions and commands

	RemoteApp, RemoteUnit, Departing string // of relation hooks
	SecretID, SecretLabel            string // of secret hooks
	SecretRevision                   int    // of secret-expired and secret-remove
	Workload                         string // the container, of Pebble's hooks
	NoticeID, NoticeType, NoticeKey  string
	Check                            string

	relation *Relation
	storage  *Storage
	action   *Action
	exec     *Exec

	begin func()     // called before the hook runs
	done  func()     // called when it has been committed
	undo  func()     // called when it has not
	took  chan error // for who waits for the hook, of Pebble's hooks
}

// path is what the charm dispatches on.
func (h *Hook) path() string {
	if h.action != nil {
		return "actions/" + h.action.Name
	}
	return "hooks/" + h.Name
}

// title is the hook in logs and contexts.
func (h *Hook) title() string {
	switch {
	case h.action != nil:
		return h.action.Name
	case h.exec != nil:
		return "juju-run"
	}
	return h.Name
}

// HookRecord is what happened in one dispatch.
type HookRecord struct {
	Unit     string
	Hook     string // hooks/install, actions/get-primary
	Env      []string
	Calls    []ToolRecord
	Started  time.Time
	Duration time.Duration
	Outcome  string // "committed", "failed: why", "killed"
	Memory   int64  // the most that the charm's process had resident up to its last call, in bytes
}

// ToolRecord is one call of a hook tool.
type ToolRecord struct {
	Tool   string
	Args   []string
	Stdin  string
	Code   int
	Stdout string
	Stderr string
}

var errKilled = errors.New("killed")

// dispatch runs a hook and commits what the charm wrote in it, or not.
func (u *Unit) dispatch(h *Hook) {
	m := u.app.model
	m.mu.Lock()
	s := u.newSession(h)
	if h.begin != nil {
		h.begin()
	}
	u.setAgent(newStatus("executing", "running "+h.title()+" hook"))
	m.notify()
	pod := u.pod
	m.mu.Unlock()

	started := time.Now()
	err := s.run(pod)
	u.reachController()

	m.mu.Lock()
	u.running = nil
	if err == nil || h.exec != nil && !errors.Is(err, errKilled) {
		if commitErr := s.commit(); commitErr != nil {
			err = commitErr
		}
	}
	outcome := u.finish(h, s, err)
	m.notify()
	record := HookRecord{u.name, h.path(), s.env, s.calls, started, time.Since(started), outcome, s.memory}
	m.mu.Unlock()
	if m.opts.HookDone != nil {
		m.opts.HookDone(record)
	}
}

// finish notes how a hook ended, and what follows from that.
func (u *Unit) finish(h *Hook, s *session, err error) (outcome string) {
	m := u.app.model
	var failedBefore int
	if u.failed != nil && u.failed.hook == h {
		failedBefore = u.failed.attempts
	}
	if err != nil && h.undo != nil {
		h.undo()
	}
	if u.again == h {
		u.again = nil
	}
	switch {
	case h.action != nil:
		h.action.finish(s, err)
		u.actions = u.actions[1:]
	case h.exec != nil:
		h.exec.finish(s, err)
		u.execs = u.execs[1:]
	case errors.Is(err, errKilled):
		// It is run again at once, unless its pod goes. Queued hooks still are.
		if len(u.queued) == 0 && u.replacing == nil {
			u.again = h
		}
		return "killed"
	case err == nil:
		if u.failed != nil && u.failed.hook == h {
			u.failed = nil
		}
		if h.done != nil {
			h.done()
		}
	case h.took != nil:
		// The agent does not stop for a failed hook of Pebble's: it comes again.
	default:
		wait := min(m.opts.Timing.RetryMin<<min(failedBefore, 16), m.opts.Timing.RetryMax)
		u.failed = &failure{h, failedBefore + 1, m.now().Add(wait)}
		u.setAgent(newStatus("error", fmt.Sprintf("hook failed: %q", h.Name)))
	}
	if h.took != nil {
		if u.waiting == h {
			u.waiting = nil
		}
		h.took <- err
	}
	if err != nil {
		m.logf(u.tag(), "ERROR", "juju.worker.uniter.operation", "hook %q failed: %v", h.title(), err)
		return "failed: " + err.Error()
	}
	return "committed"
}

// run executes the charm's dispatch and serves its hook tools.
func (s *session) run(pod Pod) error {
	u := s.unit
	server, err := hooktool.Listen(pod.Path(u.agentDir()+"/agent.socket"), s.handle)
	if err != nil {
		return err
	}
	defer server.Close()

	charmDir := pod.Root() + u.charmDir()
	// A hook ends with the model: nobody waits for what it would still look at.
	ctx := u.app.model.ctx
	cmd := exec.CommandContext(ctx, charmDir+"/dispatch")
	if s.hook.exec != nil {
		cmd = exec.CommandContext(ctx, "/bin/bash", "-c", s.hook.exec.Command)
	}
	cmd.Args[0] = filepath.Clean(cmd.Path)
	cmd.Dir, cmd.Env = charmDir, s.env
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	cmd.WaitDelay = 100 * time.Millisecond
	stdout := &lineLogger{session: s, level: "DEBUG"}
	stderr := &lineLogger{session: s, level: "WARNING"}
	cmd.Stdout, cmd.Stderr = stdout, stderr

	s.unit.app.model.mu.Lock()
	gone := u.pod != pod
	if !gone {
		if err = pod.Start(cmd); err == nil {
			u.running, s.process = cmd, cmd
		}
	}
	s.unit.app.model.mu.Unlock()
	if err != nil || gone {
		return errors.Join(err, u.ifReplaced())
	}
	err = cmd.Wait()
	s.stdout, s.stderr = stdout.all.String(), stderr.all.String()
	stdout.flush()
	stderr.flush()
	if errors.Is(err, exec.ErrWaitDelay) {
		err = nil
	}
	var exit *exec.ExitError
	if errors.As(err, &exit) {
		s.code = exit.ExitCode()
		switch sig := exit.Sys().(syscall.WaitStatus); {
		case sig.Signaled() && (sig.Signal() == syscall.SIGKILL || sig.Signal() == syscall.SIGTERM):
			return errKilled
		case u.ifReplaced() != nil:
			return errKilled
		}
	}
	return err
}

// ifReplaced is errKilled when the pod is going away.
func (u *Unit) ifReplaced() error {
	u.app.model.mu.Lock()
	defer u.app.model.mu.Unlock()
	if u.replacing != nil {
		return errKilled
	}
	return nil
}

// environment is all that the charm's process has, made from nothing.
func (s *session) environment() []string {
	u, h, m := s.unit, s.hook, s.unit.app.model
	root := u.pod.Root()
	env := []string{
		"APT_LISTCHANGES_FRONTEND=none",
		"CHARM_DIR=" + root + u.charmDir(),
		"CLOUD_API_VERSION=" + kubeapi.Version,
		"DEBIAN_FRONTEND=noninteractive",
		"JUJU_AGENT_SOCKET_ADDRESS=" + root + u.agentDir() + "/agent.socket",
		"JUJU_AGENT_SOCKET_NETWORK=unix",
		"JUJU_API_ADDRESSES=10.77.0.1:17070",
		"JUJU_AVAILABILITY_ZONE=",
		"JUJU_CHARM_DIR=" + root + u.charmDir(),
		"JUJU_CHARM_FTP_PROXY=", "JUJU_CHARM_HTTPS_PROXY=", "JUJU_CHARM_HTTP_PROXY=", "JUJU_CHARM_NO_PROXY=",
		"JUJU_CHARM_TRACE_CONFIG_CA_CERT=", "JUJU_CHARM_TRACE_CONFIG_GRPC=", "JUJU_CHARM_TRACE_CONFIG_HTTP=",
		"JUJU_CONTEXT_ID=" + s.id,
		"JUJU_DISPATCH_PATH=" + h.path(),
		"JUJU_HOOK_NAME=" + h.Name,
		"JUJU_MACHINE_ID=",
		"JUJU_MODEL_NAME=" + m.opts.Name,
		"JUJU_MODEL_UUID=" + m.uuid,
		"JUJU_PRINCIPAL_UNIT=",
		"JUJU_UNIT_NAME=" + u.name,
		"JUJU_VERSION=" + AgentVersion,
		"LANG=C.UTF-8",
		"PATH=" + root + u.toolsDir() + ":/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin:" + root + "/charm/bin",
		"TERM=tmux-256color",
	}
	env = append(env, u.pod.Env()...)
	if h.exec != nil {
		env = slices.DeleteFunc(env, func(v string) bool { return strings.HasPrefix(v, "JUJU_DISPATCH_PATH=") })
	}
	return append(env, h.environment(u.app)...)
}

// environment is what the event itself adds.
func (h *Hook) environment(app *Application) []string {
	var env []string
	if r := h.relation; r != nil {
		env = append(env,
			"JUJU_RELATION="+r.end(app).name, "JUJU_RELATION_ID="+r.key(app),
			"JUJU_REMOTE_APP="+h.RemoteApp, "JUJU_REMOTE_UNIT="+h.RemoteUnit)
		if h.Departing != "" {
			env = append(env, "JUJU_DEPARTING_UNIT="+h.Departing)
		}
	}
	if h.SecretID != "" {
		env = append(env, "JUJU_SECRET_ID="+h.SecretID, "JUJU_SECRET_LABEL="+h.SecretLabel)
		if h.SecretRevision != 0 {
			env = append(env, "JUJU_SECRET_REVISION="+strconv.Itoa(h.SecretRevision))
		}
	}
	if s := h.storage; s != nil {
		env = append(env, "JUJU_STORAGE_ID="+s.ID, "JUJU_STORAGE_KIND=filesystem",
			"JUJU_STORAGE_LOCATION="+app.charm.Meta.storageLocation(s.ID))
	}
	if h.Workload != "" {
		env = append(env, "JUJU_WORKLOAD_NAME="+h.Workload)
	}
	if h.NoticeID != "" {
		env = append(env, "JUJU_NOTICE_ID="+h.NoticeID, "JUJU_NOTICE_TYPE="+h.NoticeType, "JUJU_NOTICE_KEY="+h.NoticeKey)
	}
	if h.Check != "" {
		env = append(env, "JUJU_PEBBLE_CHECK_NAME="+h.Check)
	}
	if a := h.action; a != nil {
		id := strconv.Itoa(a.ID)
		env = append(env, "JUJU_ACTION_NAME="+a.Name, "JUJU_ACTION_UUID="+id, "JUJU_ACTION_TAG=action-"+id)
	}
	return env
}

// lineLogger puts a process's output into the debug log, a record for each line.
type lineLogger struct {
	session *session
	level   string
	all     bytes.Buffer
	rest    []byte
}

// Write takes output as it comes.
func (l *lineLogger) Write(data []byte) (int, error) {
	l.all.Write(data)
	l.rest = append(l.rest, data...)
	for {
		line, rest, found := bytes.Cut(l.rest, []byte("\n"))
		if !found {
			return len(data), nil
		}
		l.rest = rest
		l.log(line)
	}
}

func (l *lineLogger) flush() {
	if len(l.rest) > 0 {
		l.log(l.rest)
		l.rest = nil
	}
}

func (l *lineLogger) log(line []byte) {
	m := l.session.unit.app.model
	m.mu.Lock()
	defer m.mu.Unlock()
	m.logf(l.session.unit.tag(), l.level, "unit."+l.session.unit.name+"."+l.session.hook.title(), "%s", line)
}
