package state

import "time"

// Desired is what the handlers want. An absent wish is no wish: nothing is ever
// removed because nobody mentioned it.
type Desired struct {
	// Workload
	Files      []File
	Directory  Directory // the mount, with the owner that it needs
	Layer      Known[Layer]
	Parameters map[string]string // PostgreSQL settings of this member
	Shared     map[string]any    // PostgreSQL settings that all members must share
	HBA        []string          // lines of pg_hba.conf, in order
	Ident      []string          // lines of pg_ident.conf
	// Cluster
	Patroni   Known[Patroni]
	ConfigTag string         // the tag of the patroni.yml that should be loaded
	Dynamic   map[string]any // Patroni's dynamic configuration, what we decide of it
	Restart   Member         // the member whose server is to be restarted next, if it has a name
	// RestartNow is the member whose server is to be restarted whether a setting waits
	// for that or not, if it has a name.
	RestartNow Member
	// Reinitialize has this unit's member throw its data away and copy the primary's.
	Reinitialize bool
	// Synchronous is how commits are confirmed; unknown is no wish.
	Synchronous Known[Synchronous]
	Successor   Successor
	// REST is the password that Patroni wants for what changes something.
	REST Redacted
	// Database
	Roles []Role
	// Renew are the system users to whom the primary's unit is to give the password
	// that the secret shows. BinDir is where its psql is.
	Renew     []Role
	BinDir    string
	Databases []Database
	// Kubernetes
	PodLabels map[string]string
	Told      string   // primary that all pods are to show as the one that clients were told of; "" is no wish
	Demoted   []string // pods that are labelled as the primary's, but are not
	Services  []KubeService
	Endpoints []string // names of Patroni's objects, owned by the application
	Leftovers []string // Patroni's objects of a dead namesake, to be deleted
	// Partition is the lowest ordinal of the pods that Kubernetes may replace.
	Partition Known[int]
	// Juju
	Secrets  []SecretWish
	Fresh    []string       // labels of secrets that Juju should be asked for again
	Unneeded []string       // URIs of secrets to be removed
	Look     []int          // relations whose databags should be read
	Clients  map[int]Client // the record of client relations; nil is no wish
	Databags []Databag
	Ports    []int
	Version  string // of the workload
	// Pulse asks to be woken now and then: what is waited for comes without an event.
	Pulse bool
	// Announce is what the other units should be woken for when it changes: how
	// this member is, and of whom it hears nothing. "" is no wish.
	Announce string
	// Refreshed is how far this unit is with a refresh, in upstream's words. "" is no
	// wish.
	Refreshed string
	// Stop ends this member: its unit is gone for good, and its pod may not be.
	Stop bool

	// Again asks for another dispatch as soon as Juju has committed this one.
	Again bool
	// Urgent asks for that when this pass publishes something: clients wait for it, and
	// what is left to do may take long.
	Urgent bool
	// Later asks for one a moment after that: no event tells of what is awaited.
	Later bool
	// Patient has this dispatch look again for nearly all of its budget, for what should
	// be over soon: the unit goes, and should not before that.
	Patient bool

	Problems []Problem
	Message  string // of the active status
}

// Problem adds a problem.
func (d *Desired) Problem(p Problem) { d.Problems = append(d.Problems, p) }

// Successor is the member that is to be the primary in the place of the one that
// is, if it has a name.
type Successor struct {
	Member
	// Any lets another replica that has every commit take over as well. That is
	// quicker: when one is named the others stand back for two seconds before they follow
	// it, and commits wait for them.
	Any bool
}

// Patroni is what patroni.yml is made of.
type Patroni struct {
	Unit       Unit
	Server     Server
	Passwords  Passwords
	Parameters map[string]string
	HBA, Ident []string
	Dynamic    map[string]any
}

// Synchronous is how many replicas must have a commit before it returns
// (https://patroni.readthedocs.io/en/latest/replication_modes.html).
type Synchronous struct {
	// Quorum lets any Count of the replicas confirm; otherwise Patroni chooses
	// which ones must, and replaces them when they fail.
	Quorum bool
	Count  int
	// Strict lets commits wait while there is no replica at all.
	Strict bool
}

// Passwords are those that Patroni itself needs.
type Passwords struct {
	Operator, Replication, Rewind, REST Redacted
}

// File is a file in the workload.
type File struct {
	Path        string
	Content     Redacted // any of them may hold a secret
	Mode        uint32   // permission bits, three octal digits
	User, Group string
	// Behind is the path of another file that changes whenever this one does: then,
	// and only then, this one is written, before it. So only that one need be read.
	Behind string
}

// Directory is a directory in the workload.
type Directory struct {
	Path        string
	User, Group string
}

// Layer is the part of Pebble's plan that is ours. The tags are those of the
// layer specification in Pebble's documentation.
type Layer struct {
	Services map[string]Service `yaml:"services,omitempty"`
	Checks   map[string]Check   `yaml:"checks,omitempty"`
}

// Duration is a duration of the plan. Pebble does not keep the text that it was
// given, so two are compared by what they mean.
type Duration time.Duration

// MarshalYAML implements yaml.Marshaler.
func (d Duration) MarshalYAML() (any, error) { return time.Duration(d).String(), nil }

// UnmarshalYAML implements the unmarshaler of yaml.
func (d *Duration) UnmarshalYAML(unmarshal func(any) error) error {
	var text string
	if err := unmarshal(&text); err != nil {
		return err
	}
	parsed, err := time.ParseDuration(text)
	*d = Duration(parsed)
	return err
}

// Service is a service of Pebble's.
type Service struct {
	Override    string            `yaml:"override"`
	Summary     string            `yaml:"summary,omitempty"`
	Command     string            `yaml:"command"`
	Startup     string            `yaml:"startup,omitempty"`
	User        string            `yaml:"user,omitempty"`
	Group       string            `yaml:"group,omitempty"`
	WorkingDir  string            `yaml:"working-dir,omitempty"`
	Environment map[string]string `yaml:"environment,omitempty"`
	OnFailure   string            `yaml:"on-failure,omitempty"`
	KillDelay   Duration          `yaml:"kill-delay,omitempty"`
}

// Check is a health check of Pebble's. One without a level never reaches
// Kubernetes' probes.
type Check struct {
	Override  string    `yaml:"override"`
	Level     string    `yaml:"level,omitempty"`
	Startup   string    `yaml:"startup,omitempty"`
	Period    Duration  `yaml:"period,omitempty"`
	Timeout   Duration  `yaml:"timeout,omitempty"`
	Threshold int       `yaml:"threshold,omitempty"` // failures in a row
	HTTP      HTTPCheck `yaml:"http,omitempty"`      // one of these three
	TCP       TCPCheck  `yaml:"tcp,omitempty"`
	Exec      ExecCheck `yaml:"exec,omitempty"`
}

// HTTPCheck is healthy when a GET answers 2xx.
type HTTPCheck struct {
	URL string `yaml:"url"`
}

// TCPCheck is healthy when a port takes a connection.
type TCPCheck struct {
	Port int    `yaml:"port"`
	Host string `yaml:"host"`
}

// ExecCheck is healthy when a command exits 0. Without a user root runs it.
type ExecCheck struct {
	Command string `yaml:"command"`
	User    string `yaml:"user,omitempty"`
}

// KubeService is a Kubernetes Service without a headless twin.
type KubeService struct {
	Name     string
	Labels   map[string]string
	Selector map[string]string
	Ports    []Port
	OwnerUID string
}

// Port is a TCP port of a Service.
type Port struct {
	Name   string
	Number int
}

// Role is a role of the database cluster.
type Role struct {
	Name       string
	Login      bool
	Superuser  bool
	CreateDB   bool
	CreateRole bool
	MemberOf   []string // sorted; memberships beyond these stay
	// Absent removes the role, its sessions and its privileges; what it owns goes
	// to the owner role of the database that it is in.
	Absent bool
	// Password is the one that should work; "" is no wish.
	Password Redacted
	// Verifier is what the server stores of the password; only observed.
	Verifier Redacted
}

// Database is a wish for a database and for who works in it.
type Database struct {
	Name string
	// Owner is a role that cannot log in, of the same name as the database: that
	// is how pg_hba.conf knows who may connect ("samerole"). It owns what the
	// applications create, so that they come and go without leaving orphans.
	Owner string
	Users []DatabaseUser
}

// DatabaseUser is a login role that works in a database.
type DatabaseUser struct {
	Role string
	// Act makes the role's sessions act as the owner role.
	Act bool
}

// SecretWish asks for a secret of the application.
type SecretWish struct {
	Label string
	// Generate are keys that must have a value. The shell makes the missing ones
	// up, which keeps handlers deterministic; then there is a draft.
	Generate []string
	// Content is what the secret should hold once all of it is known. Nil saves
	// nothing: the wish is for a draft only.
	Content map[string]Redacted
}

// Databag is a wish for keys of a databag of ours in a relation. Keys that are
// not mentioned stay; an empty value removes one.
type Databag struct {
	Relation int
	// Unit is for this unit's own databag, in place of the application's.
	Unit    bool
	Content map[string]string
	// Grant are the URIs of the secrets that the content tells of.
	Grant []string
}
