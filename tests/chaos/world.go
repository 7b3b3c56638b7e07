package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"strings"
	"syscall"
)

const (
	app      = "postgresql-k8s"
	client   = "client"
	database = "test-database" // that the client asks for
	size     = 3               // units
)

// A world is where the charm runs: what can be seen of it, and what can be done
// to it. Units are named as Juju names them.
type world interface {
	up(ctx context.Context) error // three units and a client, integrated
	down() error

	// units are those of the charm, as juju status shows them.
	units(ctx context.Context) ([]unit, error)
	// kubernetes is what the API server has, also while nobody reaches it.
	kubernetes() kubernetes
	// endpoints is what the relation tells the client just now.
	endpoints(ctx context.Context) (string, error)
	// credentials are what the client has: username, password, uris.
	credentials(ctx context.Context) (map[string]string, error)
	resolver() *net.Resolver // the cluster's DNS
	journal() *journal
	explain(ctx context.Context, to io.Writer)

	deletePod(unit string) error
	killPod(unit string) error       // as when its node dies
	killContainer(unit string) error // the workload's
	killCharm(unit string) (bool, error)
	signal(unit string, to program, sig syscall.Signal) error
	cut(unit string, what cut) error
	mend(unit string) error
	setAPI(up bool) error // for everybody
	scale(by int) error
	refresh(ctx context.Context) error // to another revision of the same charm
	action(ctx context.Context, unit, name string) error
	exec(ctx context.Context, unit string, command ...string) (string, error) // in the workload container
}

// unit is a unit of the charm.
type unit struct {
	name            string
	status, message string
	leader          bool
}

// podOf is the pod of a unit, and also the name of its Patroni member.
func podOf(unit string) string { return strings.ReplaceAll(unit, "/", "-") }

// unitOf undoes podOf.
func unitOf(pod string) string {
	i := strings.LastIndexByte(pod, '-')
	return pod[:max(i, 0)] + "/" + pod[i+1:]
}

// kubernetes is the part of the API server's objects that matters.
type kubernetes struct {
	holder    string            // of Patroni's lock, a pod
	addresses map[string]string // of pods
	revisions map[string]string // of pods
}

// revisionLabel is the label that a StatefulSet gives its pods.
const revisionLabel = "controller-revision-hash"

// A program is one that runs in the workload container.
type program string

const (
	postmaster program = "the postmaster"
	postgres   program = "postgres" // with all its backends
	patroni    program = "patroni"
	both       program = "patroni and postgres"
)

var errNotRunning = errors.New("it does not run")

// runs tells whether a process, given with its parent, is of the program.
func (p program) runs(name, parent string) bool {
	isPatroni := strings.HasPrefix(name, "patroni")
	switch p {
	case postmaster:
		return name == "postgres" && parent != "postgres"
	case postgres:
		return name == "postgres"
	case patroni:
		return isPatroni
	}
	return name == "postgres" || isPatroni
}

// A cut is what of a pod's network is lost.
type cut string

const (
	cutAll      cut = "all"
	cutIncoming cut = "incoming"
	cutOutgoing cut = "outgoing"
	cutAPI      cut = "the API server"
)

// impossible is the error of what cannot be done in a world.
type impossible string

// Error implements error.
func (i impossible) Error() string { return "impossible here: " + string(i) }

func isImpossible(err error) bool { return errors.As(err, new(impossible)) }

// address is where a host and port lead to: one IP address and the port.
func address(ctx context.Context, dns *net.Resolver, endpoint string) (string, error) {
	host, port, err := net.SplitHostPort(endpoint)
	if err != nil {
		return "", err
	}
	ips, err := dns.LookupHost(ctx, host)
	if err != nil {
		return "", err
	}
	if len(ips) != 1 {
		return "", fmt.Errorf("%s has %d addresses", host, len(ips))
	}
	return net.JoinHostPort(ips[0], port), nil
}
