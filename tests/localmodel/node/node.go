// Package node is the machine that the model's pods run on: a set of Linux
// namespaces with a bridge in them. Everything lives inside: processes,
// mounts and network devices end with the node's first process, whichever way
// that ends, and two nodes on one machine do not see each other.
package node

import (
	"errors"
	"fmt"
	"net/netip"
	"os"
	"os/exec"
	"os/signal"
	"runtime"
	"strings"
	"sync"
	"syscall"
)

const (
	bridge     = "pods"
	insideMark = "LOCALMODEL_INSIDE_NODE"
)

// Gateway is the node's own address; its DNS and API servers listen here.
var Gateway = netip.MustParseAddr("10.77.0.1")

// Dir is how the node sees the directory that it was entered with. It is short:
// sockets are in it, whose paths may have no more than 107 bytes.
const Dir = "/run/lm"

// Inside tells whether the program runs inside a node.
func Inside() bool { return os.Getenv(insideMark) != "" }

// Enter makes the rest of the program run inside a new node. The caller's
// process only passes signals on and waits; the node's first process goes on
// from here. It must be called early in main (or TestMain), as root.
func Enter(dir string) error {
	if Inside() {
		return build(os.Getenv(insideMark))
	}
	if os.Geteuid() != 0 {
		return errors.New("cannot make namespaces for the pods: run this as root")
	}
	if _, err := exec.LookPath("ip"); err != nil {
		return errors.New("cannot make a network for the pods: command ip not found, install iproute2")
	}
	runtime.LockOSThread() // the child gets its SIGKILL when this thread ends
	cmd := exec.Command("/proc/self/exe", os.Args[1:]...)
	cmd.Args[0] = os.Args[0]
	cmd.Stdin, cmd.Stdout, cmd.Stderr = os.Stdin, os.Stdout, os.Stderr
	cmd.Env = append(os.Environ(), insideMark+"="+dir)
	cmd.SysProcAttr = &syscall.SysProcAttr{
		Cloneflags: syscall.CLONE_NEWNS | syscall.CLONE_NEWPID | syscall.CLONE_NEWNET | syscall.CLONE_NEWIPC | syscall.CLONE_NEWUTS,
		Pdeathsig:  syscall.SIGKILL,
	}
	signals := make(chan os.Signal, 8)
	signal.Notify(signals, syscall.SIGINT, syscall.SIGTERM, syscall.SIGHUP, syscall.SIGQUIT)
	if dir == "" {
		return errors.New("cannot make a node without a directory")
	}
	if err := cmd.Start(); err != nil {
		return fmt.Errorf("cannot make namespaces for the pods: %w", err)
	}
	go func() {
		for sig := range signals {
			_ = cmd.Process.Signal(sig)
		}
	}()
	var exit *exec.ExitError
	switch err := cmd.Wait(); {
	case err == nil:
		os.Exit(0)
	case errors.As(err, &exit) && exit.Exited():
		os.Exit(exit.ExitCode())
	default:
		_, _ = fmt.Fprintf(os.Stderr, "node ended: %v\n", err)
		os.Exit(1)
	}
	return nil
}

// build makes the inside of the node: its own view of processes, a bridge.
func build(dir string) error {
	switch err := syscall.Mount("", "/", "", syscall.MS_REC|syscall.MS_PRIVATE, ""); {
	case errors.Is(err, syscall.EINVAL): // mount(2)
		return errors.New("this chroot is no mount: outside of it run mount --bind DIR DIR, and chroot again")
	case err != nil:
		return fmt.Errorf("cannot make mounts private: %w", err)
	}
	if err := syscall.Mount("proc", "/proc", "proc", 0, ""); err != nil {
		return fmt.Errorf("cannot mount /proc: %w", err)
	}
	for _, d := range []string{dir, Dir} {
		if err := os.MkdirAll(d, 0o755); err != nil {
			return fmt.Errorf("cannot make node: %w", err)
		}
	}
	if err := syscall.Mount(dir, Dir, "", syscall.MS_BIND, ""); err != nil {
		return fmt.Errorf("cannot mount %s: %w", dir, err)
	}
	return ip(
		"link set lo up",
		"link add "+bridge+" type bridge forward_delay 0",
		"addr add "+Gateway.String()+"/16 dev "+bridge,
		"link set "+bridge+" up",
	)
}

// ip runs commands of ip(8) in the network namespace of the calling thread.
func ip(commands ...string) error {
	cmd := exec.Command("ip", "-batch", "-")
	cmd.Stdin = strings.NewReader(strings.Join(commands, "\n"))
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("cannot set up network: ip: %s (%w)", strings.TrimSpace(string(out)), err)
	}
	return nil
}

// addresses gives every pod an address that no pod had before it.
var addresses struct {
	sync.Mutex
	last netip.Addr
}

func nextAddress() netip.Addr {
	addresses.Lock()
	defer addresses.Unlock()
	if !addresses.last.IsValid() {
		addresses.last = netip.MustParseAddr("10.77.1.0")
	}
	addresses.last = addresses.last.Next()
	return addresses.last
}
