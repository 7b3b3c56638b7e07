package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"os/signal"
	"path/filepath"
	"syscall"
	"time"

	"charmhub.io/postgresql-k8s/tests/localmodel"
	"charmhub.io/postgresql-k8s/tests/localmodel/node"
)

const socketName = "localmodel.socket"

// up runs a model in the foreground until it is interrupted. Whatever way it
// ends, its namespaces and all in them end with it.
func up(dir string, args arguments) error {
	if !node.Inside() {
		if err := prepare(dir); err != nil {
			return err
		}
	}
	if err := node.Enter(dir); err != nil {
		return err
	}
	timing := localmodel.Timing{}
	if args.on("fast") {
		timing = localmodel.Timing{RetryMin: time.Second, PebblePoll: time.Second, Probe: 2 * time.Second}
	}
	d := &daemon{
		image:   args.flag("image"),
		cluster: &localmodel.Cluster{Inpod: node.Dir + "/bin/inpod", Pebble: node.Dir + "/bin/pebble"},
	}
	model, err := localmodel.New(localmodel.Options{Name: "local", Dir: node.Dir + "/m", Pods: d.cluster, Timing: timing})
	if err != nil {
		return err
	}
	d.model = model
	listener, err := net.Listen("unix", filepath.Join(node.Dir, socketName))
	if err != nil {
		return errors.Join(err, model.Close())
	}
	ended := make(chan os.Signal, 1)
	signal.Notify(ended, syscall.SIGINT, syscall.SIGTERM, syscall.SIGHUP)
	go func() { _ = http.Serve(listener, d.handler()) }()
	fmt.Println("the model is up; try: localmodel status")
	<-ended
	return errors.Join(model.Close(), listener.Close(), os.RemoveAll(node.Dir+"/m"))
}

// prepare makes the directory clean, whatever an earlier run has left there.
func prepare(dir string) error {
	// Held by this process, which lives as long as the node does.
	if err := node.Lock(dir); err != nil {
		return fmt.Errorf("%w; set LOCALMODEL_DIR for another", err)
	}
	if err := clean(dir); err != nil {
		return err
	}
	_, err := localmodel.BuildPrograms(filepath.Join(dir, "bin"))
	return err
}

// clean removes what a model has left in its directory. A killed node's processes
// may still be ending, and writing.
func clean(dir string) (err error) {
	for range 50 {
		err = errors.Join(os.RemoveAll(filepath.Join(dir, "m")), os.RemoveAll(filepath.Join(dir, socketName)))
		if err == nil {
			return nil
		}
		time.Sleep(100 * time.Millisecond)
	}
	return err
}

// down ends the model of a directory, if one is up, and removes what it has left.
func down(dir string) error {
	return errors.Join(node.Evict(dir, 15*time.Second), clean(dir))
}

// daemon serves commands.
type daemon struct {
	image   string
	cluster *localmodel.Cluster
	model   *localmodel.Model
}

// order is a command as it comes over the socket.
type order struct {
	Name       string
	Deployment localmodel.Deployment
	Words      []string
	Count      int
	Values     map[string]any
	Images     map[string]string
	Flag       bool
	From       int
	Timeout    time.Duration
}

// reply is what a command answers.
type reply struct {
	Error  string
	Status *localmodel.Status
	Units  []localmodel.UnitData
	Values map[string]any
	Action *localmodel.Action
	Exec   *localmodel.Exec
	Lines  []string
	Next   int
	PID    int
	Env    []string
	Text   string
}

func (d *daemon) handler() http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		var o order
		var answer reply
		err := json.NewDecoder(r.Body).Decode(&o)
		if err == nil {
			answer, err = d.obey(r, o)
		}
		if err != nil {
			answer.Error = err.Error()
		}
		_ = json.NewEncoder(w).Encode(answer)
	})
}

func (d *daemon) obey(r *http.Request, o order) (reply, error) {
	word := func(i int) string {
		if i < len(o.Words) {
			return o.Words[i]
		}
		return ""
	}
	m := d.model
	switch o.Name {
	case "deploy":
		return reply{}, d.deploy(o.Deployment)
	case "add-unit":
		return reply{}, m.AddUnit(word(0), o.Count)
	case "remove-unit":
		return reply{}, m.RemoveUnit(word(0), o.Count)
	case "remove-application":
		return reply{}, m.RemoveApplication(word(0))
	case "integrate":
		return reply{}, m.Integrate(word(0), word(1))
	case "remove-relation":
		return reply{}, m.RemoveRelation(word(0), word(1))
	case "config":
		if len(o.Values) > 0 {
			return reply{}, m.SetConfig(word(0), o.Values)
		}
		values, err := m.Config(word(0))
		return reply{Values: values}, err
	case "trust":
		return reply{}, m.SetTrust(word(0), o.Flag)
	case "refresh":
		return reply{}, m.Refresh(word(0), word(1), o.Images)
	case "run":
		a, err := m.RunAction(r.Context(), word(0), word(1), o.Values)
		return reply{Action: &a}, err
	case "exec":
		e, err := m.Exec(r.Context(), word(0), word(1))
		return reply{Exec: &e}, err
	case "status":
		s := m.Status()
		return reply{Status: &s}, nil
	case "show-unit":
		units, err := m.ShowUnit(word(0))
		return reply{Units: units}, err
	case "debug-log":
		return d.log(r, o.From, o.Flag), nil
	}
	return d.disturb(o.Name, word(0), word(1))
}

func (d *daemon) deploy(deployment localmodel.Deployment) error {
	charm, err := localmodel.OpenCharm(deployment.Charm)
	if err != nil {
		return err
	}
	if deployment.Images == nil {
		deployment.Images = map[string]string{}
	}
	for name := range charm.Meta.Resources {
		if _, err := os.Stat(deployment.Images[name]); err != nil {
			deployment.Images[name] = d.image // a name in a registry: there is none here
		}
	}
	return d.model.Deploy(deployment)
}

// log returns lines of the debug log; when asked to, it waits for new ones.
func (d *daemon) log(r *http.Request, from int, follow bool) reply {
	for {
		lines, changed := d.model.Logs(from)
		if len(lines) > 0 || !follow {
			answer := reply{Next: from + len(lines)}
			for _, line := range lines {
				answer.Lines = append(answer.Lines, line.String())
			}
			return answer
		}
		select {
		case <-changed:
		case <-r.Context().Done():
			return reply{Next: from}
		}
	}
}

// disturb does what happens to pods.
func (d *daemon) disturb(what, unit, container string) (reply, error) {
	switch what {
	case "delete-pod":
		return reply{}, d.model.DeletePod(unit)
	case "kill-pod":
		return reply{}, d.model.KillPod(unit)
	case "kill-charm":
		_, err := d.model.KillCharm(unit)
		return reply{}, err
	}
	found, err := d.model.Pod(unit)
	if err != nil {
		return reply{}, err
	}
	pod, _ := found.(*localmodel.ClusterPod)
	switch what {
	case "disconnect":
		return reply{}, pod.Disconnect()
	case "connect":
		return reply{}, pod.Connect()
	}
	c := pod.Container(container)
	if c == nil {
		return reply{}, fmt.Errorf("%s has no container %q", unit, container)
	}
	switch what {
	case "enter":
		env, err := c.Env()
		return reply{PID: c.PID, Env: env}, err
	case "logs":
		return reply{Text: pod.Logs(container)}, nil
	case "kill-container":
		c.Kill()
		return reply{}, nil
	case "freeze":
		return reply{}, c.Freeze()
	case "thaw":
		return reply{}, c.Thaw()
	}
	return reply{}, fmt.Errorf("unknown order %q", what)
}
