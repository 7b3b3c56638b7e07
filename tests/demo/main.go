// Command demo shows the charm at work on this machine, in a local model of Juju,
// and ends well only if every scene really showed what it says. `make demo` runs
// it, as root; it builds what is missing.
//
//	demo [-n UNITS]
//
// With KEEP=1 in the environment the model stays up, to look around in.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"runtime"
	"syscall"
	"time"

	"charmhub.io/postgresql-k8s/tests/localmodel/node"
)

// home is where the demo has its model, and image the root file system of the
// workload image, which the local model's tests use, too.
const (
	home  = "/var/lib/postgresql-k8s-localmodel/demo"
	image = "/var/lib/postgresql-k8s-localmodel/image"
)

func main() {
	runtime.LockOSThread() // what is started here is killed when this thread ends
	units := flag.Int("n", 3, "units of PostgreSQL")
	flag.Parse()
	endWithParent()
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGINT, syscall.SIGTERM, syscall.SIGHUP)
	defer stop()
	s := &stage{ctx: ctx, start: time.Now(), units: max(*units, 1), keep: os.Getenv("KEEP") == "1"}
	if err := s.run(); err != nil {
		if ctx.Err() != nil {
			err = errors.New("interrupted")
		}
		fmt.Fprintln(os.Stderr, "demo:", err)
		os.Exit(1)
	}
}

// endWithParent lets make take this process with it when it is killed.
func endWithParent() {
	parent := os.Getppid()
	_, _, _ = syscall.RawSyscall(syscall.SYS_PRCTL, syscall.PR_SET_PDEATHSIG, uintptr(syscall.SIGTERM), 0)
	if os.Getppid() != parent {
		os.Exit(1)
	}
}

func (s *stage) run() error {
	if os.Geteuid() != 0 {
		return errors.New(`pods are made of Linux namespaces, which needs root: sudo env "PATH=$PATH" make demo`)
	}
	tree, err := os.Getwd()
	if err != nil {
		return err
	}
	if _, err := os.Stat("charmcraft.yaml"); err != nil {
		return errors.New("run it at the top of the project: make demo")
	}
	s.cli = filepath.Join(tree, "dist", "localmodel")
	// The newest demo wins: an older one may have lost its terminal.
	if err := node.Evict(home, 20*time.Second); err != nil {
		return err
	}
	if err := node.Lock(home); err != nil {
		return err
	}
	if err := s.prepare(); err != nil {
		return err
	}
	return s.show()
}

// show plays the scenes, and cleans up after them.
func (s *stage) show() error {
	scenes := []func() error{s.deploy, s.integrate, s.write, s.psql, s.getPrimary, s.failover, s.removeRelation}
	if !s.keep {
		scenes = append(scenes, s.remove)
	}
	err := s.up()
	for _, play := range scenes {
		if err == nil {
			err = play()
		}
	}
	interrupted := s.ctx.Err() != nil
	if err != nil && !interrupted {
		s.say("This went wrong: %v", err)
		s.explain()
		err = errors.New("a scene did not show what it says; see above")
	}
	if s.keep && !interrupted {
		s.lookAround()
		return err
	}
	if err := errors.Join(err, s.down()); err != nil {
		return err
	}
	s.say("Every scene showed what it said. Only what was built is left; make clean and rm -r %s remove that.", filepath.Dir(home))
	return nil
}
