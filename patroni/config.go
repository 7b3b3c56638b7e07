package patroni

import (
	"crypto/hmac"
	"crypto/sha256"
	_ "embed" // the scripts
	"encoding/hex"
	"fmt"

	"gopkg.in/yaml.v3"

	"charmhub.io/postgresql-k8s/charm/state"
)

// configTag is the Patroni tag that carries the tag of the file.
const configTag = "charm_config"

// Config renders patroni.yml and its tag. Patroni shows the tag of the file that
// it has loaded, so whether a reload is due is observed and need not be
// remembered. The tag is keyed by a password, because the file holds passwords
// that people may have chosen and the tag is public.
//
// Sections and keys: https://patroni.readthedocs.io/en/latest/yaml_configuration.html.
// A reload applies all of it but name and scope; server settings that need a
// restart are then reported by Patroni as pending.
func Config(p state.Patroni) (content state.Redacted, tag string, err error) {
	doc := document(p)
	untagged, err := yaml.Marshal(doc)
	if err != nil {
		return "", "", fmt.Errorf("cannot encode patroni.yml: %w", err)
	}
	mac := hmac.New(sha256.New, []byte(p.Passwords.REST.Reveal()))
	mac.Write(untagged)
	for _, script := range scripts {
		mac.Write([]byte(script.text))
	}
	tag = hex.EncodeToString(mac.Sum(nil)[:6])
	doc.Tags = map[string]string{configTag: tag}
	tagged, err := yaml.Marshal(doc)
	if err != nil {
		return "", "", fmt.Errorf("cannot encode patroni.yml: %w", err)
	}
	return state.Redacted(tagged), tag, nil
}

type file struct {
	Scope      string            `yaml:"scope"`
	Name       string            `yaml:"name"`
	RESTAPI    restAPI           `yaml:"restapi"`
	Kubernetes kubernetes        `yaml:"kubernetes"`
	Bootstrap  bootstrap         `yaml:"bootstrap"`
	PostgreSQL postgreSQL        `yaml:"postgresql"`
	Tags       map[string]string `yaml:"tags,omitempty"`
}

type restAPI struct {
	Listen         string      `yaml:"listen"`
	ConnectAddress string      `yaml:"connect_address"`
	QueueSize      int         `yaml:"request_queue_size"`
	Authentication credentials `yaml:"authentication"`
}

type credentials struct {
	Username string `yaml:"username"`
	Password string `yaml:"password"`
}

type kubernetes struct {
	Namespace        string            `yaml:"namespace"`
	Labels           map[string]string `yaml:"labels"`
	UseEndpoints     bool              `yaml:"use_endpoints"`
	LeaderLabelValue string            `yaml:"leader_label_value"`
	StandbyLeader    string            `yaml:"standby_leader_label_value"`
	Ports            []port            `yaml:"ports"`
}

type port struct {
	Name string `yaml:"name"`
	Port int    `yaml:"port"`
}

type bootstrap struct {
	DCS    map[string]any `yaml:"dcs"`
	InitDB []any          `yaml:"initdb"`
}

type postgreSQL struct {
	Listen         string                 `yaml:"listen"`
	ConnectAddress string                 `yaml:"connect_address"`
	UseUnixSocket  bool                   `yaml:"use_unix_socket"`
	DataDir        string                 `yaml:"data_dir"`
	BinDir         string                 `yaml:"bin_dir"`
	PGPass         string                 `yaml:"pgpass"`
	Authentication map[string]credentials `yaml:"authentication"`
	Parameters     map[string]string      `yaml:"parameters"`
	HBA            []string               `yaml:"pg_hba"`
	Ident          []string               `yaml:"pg_ident,omitempty"`
	BinName        map[string]string      `yaml:"bin_name"`
	PrePromote     string                 `yaml:"pre_promote"`
	BaseBackup     []any                  `yaml:"basebackup"`
}

func document(p state.Patroni) file {
	return file{
		Scope: p.Unit.Scope(),
		Name:  p.Unit.Pod(),
		RESTAPI: restAPI{
			// An asterisk is every address of both families.
			Listen: fmt.Sprintf("*:%d", state.PatroniPort),
			// A name, not an address: that of a pod which is gone is known to be gone at
			// once, whereas nobody answers at its address.
			ConnectAddress: fmt.Sprintf("%s:%d", p.Unit.Host(), state.PatroniPort),
			// Who finds the queue full tries again a second later. All members, the checks and
			// the charms ask, and five at once, the default, are soon there on a busy node.
			QueueSize: 128,
			// Protects what changes something; reading is open.
			Authentication: credentials{"patroni", p.Passwords.REST.Reveal()},
		},
		Kubernetes: kubernetes{
			Namespace: p.Unit.Model,
			Labels:    map[string]string{"application": "patroni"}, // cluster-name is added by Patroni
			// The leader's lock is an Endpoints object, which the API server
			// updates atomically with the address that it points to.
			UseEndpoints: true,
			// Patroni 3 says master by itself.
			LeaderLabelValue: "primary",
			StandbyLeader:    "primary",
			Ports:            []port{{"postgresql", state.PostgresPort}},
		},
		Bootstrap: bootstrap{
			DCS: p.Dynamic,
			// https://www.postgresql.org/docs/17/app-initdb.html
			InitDB: []any{
				map[string]string{"encoding": "UTF8"},
				// Sorted by code point: no upgrade of the C library can break an index.
				map[string]string{"locale": "C.UTF-8"},
				map[string]string{"auth-host": "scram-sha-256"},
				map[string]string{"auth-local": "scram-sha-256"},
				"data-checksums",
			},
		},
		PostgreSQL: postgreSQL{
			Listen:         fmt.Sprintf("*:%d", state.PostgresPort),
			ConnectAddress: fmt.Sprintf("%s:%d", p.Unit.Host(), state.PostgresPort),
			UseUnixSocket:  true, // works before and without DNS
			DataDir:        state.DataDir,
			BinDir:         p.Server.BinDir,
			PGPass:         "/tmp/pgpass", // Patroni makes it 0600
			Authentication: map[string]credentials{
				"superuser":   {"operator", p.Passwords.Operator.Reveal()},
				"replication": {"replication", p.Passwords.Replication.Reveal()},
				"rewind":      {"rewind", p.Passwords.Rewind.Reveal()},
			},
			Parameters: p.Parameters,
			HBA:        p.HBA,
			Ident:      p.Ident,
			BinName:    map[string]string{"pg_rewind": state.RewindScript},
			PrePromote: "python3 " + state.FenceScript + " " + p.Server.BinDir,
			// By itself pg_basebackup waits for a checkpoint that takes its time: minutes.
			// And it makes a slot, for which it says what it has on its disk: where any
			// replica may confirm commits, half a copy would. The member's own slot keeps
			// the WAL.
			BaseBackup: []any{map[string]string{"checkpoint": "fast"}, "no-slot"},
		},
	}
}

// Handler adds patroni.yml to the wishes once it is known what belongs in it.
type Handler struct{}

// Name implements charm.Handler.
func (Handler) Name() string { return "patroni" }

// Desire implements charm.Handler.
func (Handler) Desire(_ state.Observed, want *state.Desired) {
	p, ok := want.Patroni.Get()
	if !ok {
		if synchronous, decided := want.Synchronous.Get(); decided {
			want.Dynamic = map[string]any{}
			setSynchronous(want.Dynamic, synchronous)
		}
		return
	}
	want.Dynamic = Dynamic(want.Shared, want.Synchronous)
	p.Parameters, p.HBA, p.Ident = want.Parameters, want.HBA, want.Ident
	// What only the first member of all reads, when it makes the cluster: the same
	// whatever happens later, so that no later change rewrites the file.
	p.Dynamic = Dynamic(want.Shared, state.Value(state.Synchronous{Count: 1}))
	content, tag, err := Config(p)
	if err != nil { // it is made of strings and numbers: a defect of ours
		want.Problem(state.Problem{Severity: state.Blocked, Message: err.Error()})
		return
	}
	want.ConfigTag = tag
	for _, script := range scripts {
		want.Files = append(want.Files, state.File{
			Path: script.path, Content: state.Redacted(script.text), Mode: 0o755,
			User: state.SystemUser, Group: state.SystemUser, Behind: state.PatroniYML,
		})
	}
	want.Files = append(want.Files, state.File{
		Path: state.PatroniYML, Content: content, Mode: 0o600, User: state.SystemUser, Group: state.SystemUser,
	})
}

// scripts are what runs beside Patroni in the workload. The tag of patroni.yml
// changes with them.
var scripts = []struct{ path, text string }{
	{state.FenceScript, fenceScript},
	{state.FollowersScript, followersScript},
	{state.PatroniScript, patroniScript},
	{state.RewindScript, rewindScript},
	{state.SuperviseScript, superviseScript},
	{state.WatchScript, watchScript},
}

//go:embed scripts/fence.py
var fenceScript string

//go:embed scripts/followers.sh
var followersScript string

//go:embed scripts/patroni.py
var patroniScript string

//go:embed scripts/rewind.py
var rewindScript string

//go:embed scripts/supervise.sh
var superviseScript string

//go:embed scripts/watch.sh
var watchScript string
