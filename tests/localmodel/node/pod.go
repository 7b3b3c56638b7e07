package node

import (
	"encoding/json"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"syscall"

	"charmhub.io/postgresql-k8s/tests/localmodel/node/container"
)

// setns(2) has no number in package syscall.
var sysSetns = map[string]uintptr{"amd64": 308, "arm64": 268}[runtime.GOARCH]

// A Pod is a network namespace with an address on the node's bridge, and the
// containers in it.
type Pod struct {
	Address netip.Addr

	dir     string
	network *os.File
	device  string // the node's end of the pod's cable

	mu         sync.Mutex
	closed     bool
	containers map[string]*Container
}

// A Container is a process tree with its own file system.
type Container struct {
	Name string
	PID  int // of its first process, as the node sees it

	Done <-chan struct{} // closed when it has ended

	starting sync.RWMutex // locked while it is frozen or thawed
	frozen   bool
}

// NewPod makes a pod without containers. The directory, which must exist, holds
// its files; the pod's own are gone with it, what was bound from outside stays.
func NewPod(dir string) (*Pod, error) {
	p := &Pod{Address: nextAddress(), dir: dir, containers: map[string]*Container{}}
	octets := p.Address.As4()
	p.device = fmt.Sprintf("pod%d-%d", octets[2], octets[3])
	err := onOwnThread(func() (err error) {
		if err := syscall.Unshare(syscall.CLONE_NEWNET); err != nil {
			return err
		}
		if p.network, err = os.Open("/proc/thread-self/ns/net"); err != nil {
			return err
		}
		return ip(
			"link set lo up",
			fmt.Sprintf("link add eth0 type veth peer name %s netns %d", p.device, os.Getpid()),
			"addr add "+p.Address.String()+"/16 dev eth0",
			"link set eth0 up",
			"route add default via "+Gateway.String(),
		)
	})
	if err != nil {
		return nil, fmt.Errorf("cannot make pod: %w", err)
	}
	return p, p.Connect()
}

// Connect plugs the pod into the network.
func (p *Pod) Connect() error {
	return ip("link set " + p.device + " master " + bridge + " up")
}

// Disconnect cuts the pod off from everything, without telling it.
func (p *Pod) Disconnect() error { return ip("link set " + p.device + " down") }

// Part lets packets to the other pod vanish, and those of the other to this one.
func (p *Pod) Part(other *Pod) error {
	return errors.Join(
		p.route("add blackhole "+other.Address.String()),
		other.route("add blackhole "+p.Address.String()))
}

// Heal undoes Part.
func (p *Pod) Heal(other *Pod) error {
	return errors.Join(
		p.route("del blackhole "+other.Address.String()),
		other.route("del blackhole "+p.Address.String()))
}

func (p *Pod) route(change string) error {
	return onOwnThread(func() error {
		if err := enter(p.network); err != nil {
			return err
		}
		return ip("route " + change)
	})
}

// Run starts a container. Its output goes to a file beside its root.
func (p *Pod) Run(name, inpod string, spec container.Spec) (*Container, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.closed {
		return nil, fmt.Errorf("cannot start container %s: its pod has ended", name)
	}
	c, err := p.run(name, inpod, spec)
	if err != nil {
		return nil, fmt.Errorf("cannot start container %s: %w", name, err)
	}
	p.containers[name] = c
	return c, nil
}

func (p *Pod) run(name, inpod string, spec container.Spec) (*Container, error) {
	spec.Root = filepath.Join(p.dir, name, "root")
	spec.Scratch = filepath.Join(p.dir, name)
	if err := os.MkdirAll(spec.Root, 0o755); err != nil {
		return nil, err
	}
	data, err := json.Marshal(spec)
	if err != nil {
		return nil, err
	}
	specFile := filepath.Join(p.dir, name, "container.json")
	if err := os.WriteFile(specFile, data, 0o600); err != nil {
		return nil, err
	}
	log, err := os.OpenFile(filepath.Join(p.dir, name, "log"), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o644)
	if err != nil {
		return nil, err
	}
	defer log.Close()

	cmd := exec.Command(inpod, "init", specFile)
	cmd.Env = spec.Env
	cmd.Stdout, cmd.Stderr = log, log
	cmd.SysProcAttr = &syscall.SysProcAttr{
		Cloneflags: syscall.CLONE_NEWNS | syscall.CLONE_NEWPID | syscall.CLONE_NEWIPC | syscall.CLONE_NEWUTS,
		Setsid:     true,
	}
	err = onOwnThread(func() error {
		if err := enter(p.network); err != nil {
			return err
		}
		return cmd.Start()
	})
	if err != nil {
		return nil, err
	}
	done := make(chan struct{})
	c := &Container{Name: name, PID: cmd.Process.Pid, Done: done}
	go func() {
		_ = cmd.Wait()
		close(done)
	}()
	return c, nil
}

// Container is the running container of that name, or nil.
func (p *Pod) Container(name string) *Container {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.containers[name]
}

// Start runs one more process in the container, in the pod's network. In a frozen one it
// is stopped before it has come far.
func (p *Pod) Start(c *Container, cmd *exec.Cmd) error {
	c.starting.RLock()
	defer c.starting.RUnlock()
	return onOwnThread(func() error {
		// File systems are entered last: /proc is the node's until then.
		var spaces []*os.File
		for _, kind := range []string{"net", "pid", "ipc", "uts", "mnt"} {
			space, err := os.Open(fmt.Sprintf("/proc/%d/ns/%s", c.PID, kind))
			if err != nil {
				return fmt.Errorf("cannot enter container %s: %w", c.Name, err)
			}
			defer space.Close()
			spaces = append(spaces, space)
		}
		root, err := os.Open(fmt.Sprintf("/proc/%d/root", c.PID))
		if err != nil {
			return fmt.Errorf("cannot enter container %s: %w", c.Name, err)
		}
		defer root.Close()
		if err := syscall.Unshare(syscall.CLONE_FS); err != nil {
			return err
		}
		if err := enter(spaces...); err != nil {
			return fmt.Errorf("cannot enter container %s: %w", c.Name, err)
		}
		// In a chroot, the root of a mount namespace is not that of its processes.
		if err := errors.Join(root.Chdir(), syscall.Chroot(".")); err != nil {
			return fmt.Errorf("cannot enter container %s: %w", c.Name, err)
		}
		if err := cmd.Start(); err != nil || !c.frozen {
			return err
		}
		return cmd.Process.Signal(syscall.SIGSTOP)
	})
}

// Kill ends the container at once.
func (c *Container) Kill() {
	_ = syscall.Kill(c.PID, syscall.SIGKILL)
	<-c.Done
}

// Terminate asks the container's first process to end.
func (c *Container) Terminate() { _ = syscall.Kill(c.PID, syscall.SIGTERM) }

// Env is the environment of the container's first process.
func (c *Container) Env() ([]string, error) {
	data, err := os.ReadFile(fmt.Sprintf("/proc/%d/environ", c.PID))
	if err != nil {
		return nil, err
	}
	return strings.Split(strings.TrimRight(string(data), "\x00"), "\x00"), nil
}

// Close kills what still runs and takes the pod's address away.
func (p *Pod) Close() error {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, c := range p.containers {
		c.Kill()
	}
	if p.closed {
		return nil
	}
	p.closed = true
	return errors.Join(p.network.Close(), ip("link del "+p.device))
}

// onOwnThread runs a function on a thread that ends with it, so that it may
// change the thread's namespaces. Children started in it inherit them.
func onOwnThread(run func() error) error {
	result := make(chan error)
	go func() {
		runtime.LockOSThread()
		if syscall.Gettid() == syscall.Getpid() {
			// The main thread never ends, and its namespaces are the node's:
			// it is held here until the function has run on another.
			result <- onOwnThread(run)
			runtime.UnlockOSThread()
			return
		}
		result <- run() // never unlocked: the thread ends
	}()
	return <-result
}

func enter(spaces ...*os.File) error {
	for _, space := range spaces {
		if _, _, errno := syscall.RawSyscall(sysSetns, space.Fd(), 0, 0); errno != 0 {
			return fmt.Errorf("cannot enter namespace: %w", errno)
		}
	}
	return nil
}
