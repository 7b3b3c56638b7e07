// Package container is the inside of a container: it turns a process that was
// started in fresh Linux namespaces into the container's first process.
package container

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"syscall"
)

// Spec says what a container sees.
type Spec struct {
	Root     string            // an empty directory to mount the container's root on
	Image    string            // a root file system to start from; none: an empty one
	Scratch  string            // a directory that keeps what the container changes in Image
	Links    map[string]string // symbolic links to make, by name
	Binds    []Bind            // directories and files from outside, in this order
	Hostname string
	Env      []string
	Argv     []string // the entrypoint; none: a process that only waits
}

// Bind makes one file or directory of the outside visible in the container.
type Bind struct {
	From, To string
	ReadOnly bool
}

// Init mounts what the spec of the named file says, and becomes its
// entrypoint. It only returns when that failed.
func Init(specFile string) error {
	data, err := os.ReadFile(specFile)
	if err != nil {
		return fmt.Errorf("cannot read container: %w", err)
	}
	var spec Spec
	if err := json.Unmarshal(data, &spec); err != nil {
		return fmt.Errorf("cannot read container: %w", err)
	}
	if err := spec.mount(); err != nil {
		return fmt.Errorf("cannot make container: %w", err)
	}
	if err := syscall.Sethostname([]byte(spec.Hostname)); err != nil {
		return fmt.Errorf("cannot set host name: %w", err)
	}
	if len(spec.Argv) == 0 {
		return wait()
	}
	return fmt.Errorf("cannot run %s: %w", spec.Argv[0], syscall.Exec(spec.Argv[0], spec.Argv, spec.Env))
}

// outside is where the old root is while the container's is being made.
const outside = "/.outside"

func (s Spec) mount() error {
	steps := []func() error{
		func() error { return mount("", "/", "", syscall.MS_REC|syscall.MS_PRIVATE, "") },
		s.resolveBinds,
		s.mountRoot,
		s.enter, // from here on, links lead where they do in the container
		mountDevices,
		func() error { return mount("proc", "/proc", "proc", 0, "") },
		func() error { return bind(Bind{From: "/sys", To: "/sys"}) },
		s.mountBinds,
		leaveOutside,
	}
	for _, step := range steps {
		if err := step(); err != nil {
			return err
		}
	}
	return nil
}

// resolveBinds follows links of the outside while that is the root.
func (s Spec) resolveBinds() error {
	for i := range s.Binds {
		path, err := filepath.EvalSymlinks(s.Binds[i].From)
		if err != nil {
			return err
		}
		s.Binds[i].From = path
	}
	return nil
}

func (s Spec) mountRoot() error {
	if s.Image == "" {
		return mount("tmpfs", s.Root, "tmpfs", 0, "mode=0755")
	}
	err := s.mountOverlay(s.Scratch)
	if errors.Is(err, syscall.EINVAL) {
		// The scratch directory is itself on an overlay, as in a Docker container,
		// where changes of another cannot be kept: they go into memory.
		memory := filepath.Join(s.Scratch, "memory")
		err = errors.Join(mount("tmpfs", memory, "tmpfs", 0, "mode=0755"), s.mountOverlay(memory))
	}
	return err
}

// mountOverlay mounts the image, with changes kept in a directory.
func (s Spec) mountOverlay(scratch string) error {
	upper, work := filepath.Join(scratch, "upper"), filepath.Join(scratch, "work")
	for _, dir := range []string{upper, work} {
		if err := os.MkdirAll(dir, 0o755); err != nil {
			return err
		}
	}
	return mount("overlay", s.Root, "overlay", 0, fmt.Sprintf("lowerdir=%s,upperdir=%s,workdir=%s", s.Image, upper, work))
}

// enter makes the mounted tree the root.
func (s Spec) enter() error {
	if err := os.MkdirAll(s.Root+outside, 0o755); err != nil {
		return err
	}
	if err := syscall.PivotRoot(s.Root, s.Root+outside); err != nil {
		return fmt.Errorf("cannot pivot root: %w", err)
	}
	return os.Chdir("/")
}

// leaveOutside leaves nothing of the outside but what was bound.
func leaveOutside() error {
	if err := syscall.Unmount(outside, syscall.MNT_DETACH); err != nil {
		return fmt.Errorf("cannot leave old root: %w", err)
	}
	return os.Remove(outside)
}

func mountDevices() error {
	if err := mount("tmpfs", "/dev", "tmpfs", syscall.MS_NOSUID, "mode=0755"); err != nil {
		return err
	}
	for _, name := range []string{"null", "zero", "full", "random", "urandom", "tty"} {
		if err := bind(Bind{From: "/dev/" + name, To: "/dev/" + name}); err != nil {
			return err
		}
	}
	for name, target := range map[string]string{"fd": "/proc/self/fd", "stdin": "fd/0", "stdout": "fd/1", "stderr": "fd/2", "ptmx": "pts/ptmx"} {
		if err := os.Symlink(target, "/dev/"+name); err != nil {
			return err
		}
	}
	if err := mount("devpts", "/dev/pts", "devpts", 0, "newinstance,ptmxmode=0666,mode=620"); err != nil {
		return err
	}
	return mount("tmpfs", "/dev/shm", "tmpfs", syscall.MS_NOSUID|syscall.MS_NODEV, "")
}

func (s Spec) mountBinds() error {
	for name, target := range s.Links {
		if err := os.Symlink(target, name); err != nil {
			return err
		}
	}
	for _, b := range s.Binds {
		if err := bind(b); err != nil {
			return err
		}
	}
	return nil
}

func bind(b Bind) error {
	b.From = outside + b.From
	if err := makeTarget(b); err != nil {
		return err
	}
	if err := mount(b.From, b.To, "", syscall.MS_BIND|syscall.MS_REC, ""); err != nil || !b.ReadOnly {
		return err
	}
	return mount("", b.To, "", syscall.MS_BIND|syscall.MS_REMOUNT|syscall.MS_RDONLY, "")
}

func makeTarget(b Bind) error {
	info, err := os.Stat(b.From)
	if err != nil || info.IsDir() {
		return errors.Join(err, os.MkdirAll(b.To, 0o755))
	}
	if err := os.MkdirAll(filepath.Dir(b.To), 0o755); err != nil {
		return err
	}
	// A mount point only: what the image has there, a dangling link say, goes.
	if _, err := os.Stat(b.To); err != nil {
		if err := os.Remove(b.To); err != nil && !errors.Is(err, os.ErrNotExist) {
			return err
		}
	}
	file, err := os.OpenFile(b.To, os.O_CREATE, 0o644)
	return errors.Join(err, file.Close())
}

func mount(from, to, kind string, flags uintptr, options string) error {
	if kind != "" {
		if err := os.MkdirAll(to, 0o755); err != nil {
			return err
		}
	}
	if err := syscall.Mount(from, to, kind, flags, options); err != nil {
		return fmt.Errorf("cannot mount %s: %w", to, err)
	}
	return nil
}

// wait is an entrypoint that does nothing but collect orphans.
func wait() error {
	children := make(chan os.Signal, 1)
	signal.Notify(children, syscall.SIGCHLD)
	for range children {
		for {
			if pid, err := syscall.Wait4(-1, nil, syscall.WNOHANG, nil); err != nil || pid <= 0 {
				break
			}
		}
	}
	return nil
}
