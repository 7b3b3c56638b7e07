package localmodel

import (
	"os"
	"os/exec"
	"path/filepath"

	"charmhub.io/postgresql-k8s/tests/localmodel/hooktool"
	"charmhub.io/postgresql-k8s/tests/localmodel/kubeapi"
)

// Pods is where units run.
type Pods interface {
	// Open makes the cluster around the pods: its API and its name server.
	Open(store *kubeapi.Store, namespace string, authenticate func(string) (kubeapi.User, bool)) error
	Start(PodSpec) (Pod, error)
	Close() error
}

// A PodSpec says what a pod is made of.
type PodSpec struct {
	Dir       string // the pod's own files, gone with it
	Name      string
	Service   string // the headless one that gives it a name
	Namespace string
	Token     string  // of its service account
	Mounts    []Mount // in the charm container
	Workloads []Workload
	Faults    func(PebbleCall) Fault // at each of the charm's calls of a Pebble; nil: none
	Kill      func()                 // kills the charm's process
}

// A Mount is a storage in a container.
type Mount struct{ From, To string }

// A Workload is a container of a pod's with an image and Pebble.
type Workload struct {
	Name   string
	Image  string // its root file system
	Port   int    // of Pebble
	Mounts []Mount
}

// A Pod is a running pod.
type Pod interface {
	Address() string
	Root() string                    // what comes before a path of the charm container, for the charm
	Path(string) string              // where the model finds a file of the charm container
	ReadFile(string) ([]byte, error) // of the charm container, by the name that the charm has for it
	Env() []string                   // what Kubernetes adds to the containers' environment
	Start(*exec.Cmd) error           // runs a process in the charm container
	Pebble(container string) string  // its socket, or "" when there is none
	Restart(container string)        // kills a workload container, which is started again
	Terminate()                      // asks all containers to end
	Close() error                    // ends it
}

// Processes are pods that are nothing but processes of this machine: a charm
// without a workload runs in them, for tests of the model that need no rights.
type Processes struct {
	Inpod string // the program that hook tools are
}

// Open has nothing to do.
func (p *Processes) Open(*kubeapi.Store, string, func(string) (kubeapi.User, bool)) error { return nil }

// Close has nothing to do.
func (p *Processes) Close() error { return nil }

// Start makes a directory that looks as a charm container does.
func (p *Processes) Start(spec PodSpec) (Pod, error) {
	bin := filepath.Join(spec.Dir, "charm", "bin")
	if err := os.MkdirAll(bin, 0o755); err != nil {
		return nil, err
	}
	return &processPod{spec.Dir}, os.Symlink(p.Inpod, filepath.Join(bin, "inpod"))
}

type processPod struct{ dir string }

func (p *processPod) Address() string                      { return "127.0.0.1" }
func (p *processPod) Root() string                         { return p.dir }
func (p *processPod) Path(path string) string              { return filepath.Join(p.dir, path) }
func (p *processPod) ReadFile(path string) ([]byte, error) { return os.ReadFile(path) }
func (p *processPod) Env() []string                        { return nil }
func (p *processPod) Start(cmd *exec.Cmd) error            { return cmd.Start() }
func (p *processPod) Pebble(string) string                 { return "" }
func (p *processPod) Restart(string)                       {}
func (p *processPod) Terminate()                           {}
func (p *processPod) Close() error                         { return nil }

// linkTools puts the hook tools into a directory: names of one program.
func linkTools(dir, program string) error {
	for _, name := range hooktool.Names {
		if err := os.Symlink(program, filepath.Join(dir, name)); err != nil {
			return err
		}
	}
	return nil
}
