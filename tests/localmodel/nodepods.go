package localmodel

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"

	"charmhub.io/postgresql-k8s/tests/localmodel/dns"
	"charmhub.io/postgresql-k8s/tests/localmodel/kubeapi"
	"charmhub.io/postgresql-k8s/tests/localmodel/node"
	"charmhub.io/postgresql-k8s/tests/localmodel/node/container"
)

// Cluster runs pods with namespaces, networks, images and Pebbles of their own.
// The program must be inside a node, see node.Enter.
type Cluster struct {
	Inpod  string // the program that is the hook tools, and every container's init
	Pebble string // the program that is every workload's entrypoint

	api   *kubeapi.Server
	names net.PacketConn
}

// API is the cluster's API server, for tests that want it to fail.
func (c *Cluster) API() *kubeapi.Server { return c.api }

// Open starts the cluster's API and its name server.
func (c *Cluster) Open(store *kubeapi.Store, namespace string, authenticate func(string) (kubeapi.User, bool)) (err error) {
	if c.api, err = kubeapi.Listen(node.Gateway.String()+":443", store, authenticate); err != nil {
		return err
	}
	c.names, err = dns.Listen(node.Gateway.String()+":53", store.Addresses)
	return err
}

// Close ends the servers.
func (c *Cluster) Close() error { return errors.Join(c.api.Close(), c.names.Close()) }

const (
	charmContainer = "charm"
	imagePath      = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
	accountDir     = "/var/run/secrets/kubernetes.io/serviceaccount"
)

// ClusterPod is a pod of a Cluster.
type ClusterPod struct {
	*node.Pod

	cluster *Cluster
	spec    PodSpec

	mu      sync.Mutex
	ending  bool
	proxies []net.Listener
}

// Start makes a pod: the charm container, which only waits for hooks to be run
// in it, and each workload's with its Pebble.
func (c *Cluster) Start(spec PodSpec) (Pod, error) {
	p := &ClusterPod{cluster: c, spec: spec}
	if err := p.writeFiles(); err != nil {
		return nil, fmt.Errorf("cannot write files of pod: %w", err)
	}
	var err error
	if p.Pod, err = node.NewPod(spec.Dir); err != nil {
		return nil, err
	}
	if err := p.writeHosts(); err != nil {
		return nil, errors.Join(err, p.Close())
	}
	if _, err := p.Run(charmContainer, c.Inpod, p.charmSpec()); err != nil {
		return nil, errors.Join(err, p.Close())
	}
	for _, w := range spec.Workloads {
		if err := p.startWorkload(w); err != nil {
			return nil, errors.Join(err, p.Close())
		}
	}
	return p, nil
}

// Address is the pod's IP address.
func (p *ClusterPod) Address() string { return p.Pod.Address.String() }

// Root is empty: the charm sees paths as they are.
func (p *ClusterPod) Root() string { return "" }

// shared are the directories of the charm container that the pod keeps outside
// of it: Juju's one emptyDir.
var shared = []string{"/charm", "/var/lib/juju", "/var/log/juju", "/tmp"}

// Path finds a file of the charm container.
func (p *ClusterPod) Path(path string) string {
	for _, m := range p.spec.Mounts {
		if rest, within := strings.CutPrefix(path, m.To); within {
			return m.From + rest
		}
	}
	return filepath.Join(p.spec.Dir, "shared", path)
}

// ReadFile reads a file of the charm container as the agent does, which runs in
// it.
func (p *ClusterPod) ReadFile(path string) ([]byte, error) {
	c := p.Container(charmContainer)
	if c == nil {
		return nil, errNoCharmContainer
	}
	if !filepath.IsAbs(path) {
		return nil, fmt.Errorf("open %s: no such file or directory", path)
	}
	return os.ReadFile(fmt.Sprintf("/proc/%d/root%s", c.PID, path))
}

var errNoCharmContainer = errors.New("the charm container does not run")

// Env is what containers have in their environment beside their image's.
func (p *ClusterPod) Env() []string {
	host := node.Gateway.String()
	return []string{
		"KUBERNETES_PORT=tcp://" + host + ":443",
		"KUBERNETES_PORT_443_TCP=tcp://" + host + ":443",
		"KUBERNETES_PORT_443_TCP_ADDR=" + host,
		"KUBERNETES_PORT_443_TCP_PORT=443",
		"KUBERNETES_PORT_443_TCP_PROTO=tcp",
		"KUBERNETES_SERVICE_HOST=" + host,
		"KUBERNETES_SERVICE_PORT=443",
		"KUBERNETES_SERVICE_PORT_HTTPS=443",
	}
}

// Start runs a process in the charm container.
func (p *ClusterPod) Start(cmd *exec.Cmd) error {
	c := p.Container(charmContainer)
	if c == nil {
		return errNoCharmContainer
	}
	return p.Pod.Start(c, cmd)
}

// writeFiles makes the pod's directories and the files that kubelets make.
func (p *ClusterPod) writeFiles() error {
	for _, dir := range shared {
		if err := os.MkdirAll(p.Path(dir), 0o755); err != nil {
			return err
		}
	}
	if err := os.Chmod(p.Path("/tmp"), 0o1777); err != nil {
		return err
	}
	bin := p.Path("/charm/bin")
	if err := os.MkdirAll(bin, 0o755); err != nil {
		return err
	}
	for name, program := range map[string]string{"inpod": p.cluster.Inpod, "pebble": p.cluster.Pebble} {
		data, err := os.ReadFile(program)
		if err != nil {
			return err
		}
		if err := os.WriteFile(filepath.Join(bin, name), data, 0o755); err != nil {
			return err
		}
	}
	domain := p.spec.Namespace + ".svc." + dns.Domain
	for name, text := range map[string]string{
		"resolv.conf": fmt.Sprintf("search %s svc.%s %s\nnameserver %s\noptions ndots:5\n", domain, dns.Domain, dns.Domain, node.Gateway),
		"passwd":      "root:x:0:0:root:/root:/bin/bash\nnobody:x:65534:65534:nobody:/nonexistent:/usr/sbin/nologin\n",
		"group":       "root:x:0:\nnogroup:x:65534:\n",
		"hostname":    p.spec.Name + "\n",
		"token":       p.spec.Token,
		"namespace":   p.spec.Namespace,
		"ca.crt":      string(p.cluster.api.CA),
	} {
		if err := os.WriteFile(p.file(name), []byte(text), 0o644); err != nil {
			return err
		}
	}
	for _, w := range p.spec.Workloads {
		for _, dir := range []string{p.socketDir(w.Name), p.charmSocketDir(w.Name)} {
			if err := os.MkdirAll(dir, 0o755); err != nil {
				return err
			}
		}
	}
	return nil
}

func (p *ClusterPod) writeHosts() error {
	full := fmt.Sprintf("%s.%s.%s.svc.%s", p.spec.Name, p.spec.Service, p.spec.Namespace, dns.Domain)
	hosts := fmt.Sprintf("127.0.0.1 localhost\n::1 localhost\n%s %s %s\n", p.Address(), full, p.spec.Name)
	return os.WriteFile(p.file("hosts"), []byte(hosts), 0o644)
}

func (p *ClusterPod) file(name string) string { return filepath.Join(p.spec.Dir, name) }

// commonBinds are what both kinds of containers see.
func (p *ClusterPod) commonBinds() []container.Bind {
	binds := []container.Bind{}
	for _, name := range []string{"resolv.conf", "hosts", "hostname"} {
		binds = append(binds, container.Bind{From: p.file(name), To: "/etc/" + name})
	}
	for _, name := range []string{"token", "namespace", "ca.crt"} {
		binds = append(binds, container.Bind{From: p.file(name), To: accountDir + "/" + name, ReadOnly: true})
	}
	return binds
}

// charmSpec is the charm container: this machine's programs, nothing else of it.
func (p *ClusterPod) charmSpec() container.Spec {
	spec := container.Spec{Hostname: p.spec.Name, Links: map[string]string{}, Binds: []container.Bind{
		{From: "/usr", To: "/usr", ReadOnly: true},
	}}
	spec.Env = append(p.Env(), "HOSTNAME="+p.spec.Name, "PATH="+imagePath+":/charm/bin", "HOME=/root", "LANG=C.UTF-8")
	for _, name := range []string{"/bin", "/sbin", "/lib", "/lib64"} {
		if target, err := os.Readlink(name); err == nil {
			spec.Links[name] = target
		} else if _, err := os.Stat(name); err == nil {
			spec.Binds = append(spec.Binds, container.Bind{From: name, To: name, ReadOnly: true})
		}
	}
	for _, dir := range shared {
		spec.Binds = append(spec.Binds, container.Bind{From: p.Path(dir), To: dir})
	}
	for _, name := range []string{"passwd", "group"} {
		spec.Binds = append(spec.Binds, container.Bind{From: p.file(name), To: "/etc/" + name})
	}
	spec.Binds = append(spec.Binds, p.commonBinds()...)
	for _, m := range p.spec.Mounts {
		spec.Binds = append(spec.Binds, container.Bind{From: m.From, To: m.To})
	}
	return spec
}

// startWorkload runs a workload's Pebble as Juju does, and again when it ends.
func (p *ClusterPod) startWorkload(w Workload) error {
	spec := container.Spec{
		Image: w.Image, Hostname: p.spec.Name,
		Env: append(p.Env(),
			"HOSTNAME="+p.spec.Name, "PATH="+imagePath, "LANG=C.UTF-8",
			"JUJU_CONTAINER_NAME="+w.Name,
			"PEBBLE=/charm/container/pebble",
			"PEBBLE_COPY_ONCE=/var/lib/pebble/default",
			"PEBBLE_SOCKET=/charm/container/pebble.socket"),
		Argv: []string{"/charm/bin/pebble", "run", "--create-dirs", "--hold", "--http", fmt.Sprintf(":%d", w.Port), "--verbose"},
		Binds: append([]container.Bind{
			{From: p.Path("/charm/bin"), To: "/charm/bin"},
			{From: p.socketDir(w.Name), To: "/charm/container"},
		}, p.commonBinds()...),
	}
	for _, m := range w.Mounts {
		spec.Binds = append(spec.Binds, container.Bind{From: m.From, To: m.To})
	}
	if _, err := os.Stat(w.Image); errors.Is(err, fs.ErrNotExist) {
		return nil // a kubelet goes on without a container whose image cannot be pulled
	}
	c, err := p.Run(w.Name, p.cluster.Inpod, spec)
	if err != nil {
		return err
	}
	if p.spec.Faults != nil {
		if err := p.proxyPebble(w.Name); err != nil {
			return err
		}
	}
	go p.keepRunning(w.Name, spec, c)
	return nil
}

// keepRunning starts a workload's container again whenever it has ended, with a
// fresh file system and Pebble's old state, until the pod ends.
func (p *ClusterPod) keepRunning(name string, spec container.Spec, c *node.Container) {
	for {
		<-c.Done
		p.mu.Lock()
		ending := p.ending
		if !ending {
			_ = os.RemoveAll(filepath.Join(p.spec.Dir, name, "upper"))
			_ = os.RemoveAll(filepath.Join(p.spec.Dir, name, "work"))
			var err error
			c, err = p.Run(name, p.cluster.Inpod, spec)
			ending = err != nil
		}
		p.mu.Unlock()
		if ending {
			return
		}
	}
}

// socketDir is where a workload's Pebble has its socket and state.
func (p *ClusterPod) socketDir(container string) string {
	if p.spec.Faults == nil {
		return p.charmSocketDir(container)
	}
	return filepath.Join(p.spec.Dir, "pebble", container)
}

// charmSocketDir is where the charm looks for the socket: the same place, or a
// proxy's when calls may be harmed.
func (p *ClusterPod) charmSocketDir(container string) string {
	return p.Path("/charm/containers/" + container)
}

// Pebble is the socket of a workload's Pebble.
func (p *ClusterPod) Pebble(container string) string {
	return filepath.Join(p.socketDir(container), "pebble.socket")
}

// Restart kills a workload's container.
func (p *ClusterPod) Restart(container string) {
	if c := p.Container(container); c != nil {
		c.Kill()
	}
}

// Terminate sends SIGTERM to the workloads, as the kubelet does when a pod is
// deleted, and returns when they have ended.
func (p *ClusterPod) Terminate() {
	p.mu.Lock()
	p.ending = true
	p.mu.Unlock()
	var containers []*node.Container
	for _, w := range p.spec.Workloads {
		if c := p.Container(w.Name); c != nil {
			c.Terminate()
			containers = append(containers, c)
		}
	}
	for _, c := range containers {
		<-c.Done
	}
}

// Close ends the pod at once.
func (p *ClusterPod) Close() error {
	p.mu.Lock()
	closed := p.Pod == nil
	p.ending = true
	pod := p.Pod
	for _, proxy := range p.proxies {
		_ = proxy.Close()
	}
	p.proxies = nil
	p.mu.Unlock()
	if closed {
		return nil
	}
	return pod.Close()
}

// Logs is what a container has printed.
func (p *ClusterPod) Logs(container string) string {
	data, err := os.ReadFile(filepath.Join(p.spec.Dir, container, "log"))
	if err != nil {
		return err.Error()
	}
	return string(bytes.TrimSpace(data))
}
