package patroni_test

import (
	"regexp"
	"strings"
	"testing"

	"gopkg.in/yaml.v3"

	"charmhub.io/postgresql-k8s/charm/state"
	"charmhub.io/postgresql-k8s/patroni"
	"charmhub.io/postgresql-k8s/tests/golden"
)

// member is what the patroni.yml of a unit is made of; none of the passwords is
// anybody's.
func member() state.Patroni {
	return state.Patroni{
		Unit:   state.Unit{Name: "db/2", App: "db", Number: 2, Model: "test", ModelUUID: "uuid"},
		Server: state.Server{Major: 17, BinDir: "/usr/lib/postgresql/17/bin"},
		Passwords: state.Passwords{
			Operator: "fake-operator", Replication: "fake-replication", Rewind: "fake-rewind", REST: "fake-rest",
		},
		Parameters: map[string]string{"shared_buffers": "16384", "log_line_prefix": "%t [%p]: "},
		HBA:        []string{"local all all scram-sha-256", "host all all all scram-sha-256"},
		Ident:      []string{"operator postgres backup"},
		Dynamic:    patroni.Dynamic(map[string]any{"max_connections": 100, "wal_level": "logical"}, state.Value(state.Synchronous{Count: 1})),
	}
}

func config(t *testing.T, p state.Patroni) (content, tag string) {
	t.Helper()
	redacted, tag, err := patroni.Config(p)
	if err != nil {
		t.Fatal(err)
	}
	return redacted.Reveal(), tag
}

func TestConfig(t *testing.T) {
	t.Parallel()
	content, _ := config(t, member())
	golden.Equal(t, "patroni.yml", content)
}

// Patroni shows the tag to everybody who can reach it, and a file is loaded when
// its tag is the wished one.
func TestTheTagIsOfAllTheContent(t *testing.T) {
	t.Parallel()
	changes := map[string]func(*state.Patroni){
		"the operator's password":    func(p *state.Patroni) { p.Passwords.Operator = "x" },
		"the replication password":   func(p *state.Patroni) { p.Passwords.Replication = "x" },
		"the rewind password":        func(p *state.Patroni) { p.Passwords.Rewind = "x" },
		"the REST password":          func(p *state.Patroni) { p.Passwords.REST = "x" },
		"a setting":                  func(p *state.Patroni) { p.Parameters["shared_buffers"] = "16385" },
		"a setting that is gone":     func(p *state.Patroni) { delete(p.Parameters, "shared_buffers") },
		"a line of pg_hba.conf":      func(p *state.Patroni) { p.HBA[0] = "local all all reject" },
		"the order of pg_hba.conf":   func(p *state.Patroni) { p.HBA[0], p.HBA[1] = p.HBA[1], p.HBA[0] },
		"a line of pg_ident.conf":    func(p *state.Patroni) { p.Ident = nil },
		"the unit":                   func(p *state.Patroni) { p.Unit.Number = 3 },
		"the application":            func(p *state.Patroni) { p.Unit.App = "other" },
		"the model":                  func(p *state.Patroni) { p.Unit.Model = "other" },
		"the server":                 func(p *state.Patroni) { p.Server.BinDir = "/usr/lib/postgresql/18/bin" },
		"what a bootstrap begins as": func(p *state.Patroni) { p.Dynamic["ttl"] = 30 },
	}
	_, tag := config(t, member())
	seen := map[string]string{tag: "nothing"}
	for name, change := range changes {
		p := member()
		change(&p)
		content, changed := config(t, p)
		if other, ok := seen[changed]; ok {
			t.Errorf("the tag with a change of %s is that with a change of %s", name, other)
		}
		seen[changed] = name
		if !strings.Contains(content, "charm_config: "+quoted(t, changed)) {
			t.Errorf("with a change of %s the file does not have its tag %s", name, changed)
		}
	}
	if _, again := config(t, member()); again != tag {
		t.Errorf("the same content has the tags %s and %s", tag, again)
	}
}

// quoted is the text as YAML has it: a tag of digits alone is in quotes.
func quoted(t *testing.T, text string) string {
	t.Helper()
	data, err := yaml.Marshal(text)
	if err != nil {
		t.Fatal(err)
	}
	return strings.TrimSpace(string(data))
}

// Who guesses a password cannot check the guess on the tag: a key that is not
// public goes into it, too.
func TestTheTagDoesNotReveal(t *testing.T) {
	t.Parallel()
	_, tag := config(t, member())
	if !regexp.MustCompile(`^[0-9a-f]{12}$`).MatchString(tag) {
		t.Errorf("the tag is %q, want 12 hexadecimal digits", tag)
	}
	p := member()
	p.Passwords.REST = "another"
	content, other := config(t, p)
	if tag == other {
		t.Error("the tag does not depend on the REST password")
	}
	if strings.Count(content, "another") != 1 {
		t.Error("the REST password is in the file more than once")
	}
}

func TestOnlyBootstrapHasTheDynamicConfiguration(t *testing.T) {
	t.Parallel()
	content, _ := config(t, member())
	var file struct {
		Bootstrap struct{ DCS map[string]any }
	}
	if err := yaml.Unmarshal([]byte(content), &file); err != nil {
		t.Fatal(err)
	}
	if patch := patroni.DiffDynamic(file.Bootstrap.DCS, member().Dynamic); len(patch) != 0 {
		t.Errorf("a cluster that was just made is to be patched: %v", patch)
	}
}

// A primary keeps its lock for as long as two silences of the API may take
// (https://patroni.readthedocs.io/en/latest/dynamic_configuration.html).
func TestTheTimesFitTogether(t *testing.T) {
	t.Parallel()
	d := patroni.Dynamic(nil, state.Known[state.Synchronous]{})
	ttl, wait, retry := d["ttl"].(int), d["loop_wait"].(int), d["retry_timeout"].(int)
	if ttl < wait+2*retry {
		t.Errorf("ttl is %d, less than loop_wait %d and twice retry_timeout %d", ttl, wait, retry)
	}
}

func TestHandler(t *testing.T) {
	t.Parallel()
	t.Run("without a member there is no file", func(t *testing.T) {
		t.Parallel()
		var want state.Desired
		patroni.Handler{}.Desire(state.Observed{}, &want)
		if len(want.Files) != 0 || want.Dynamic != nil || want.ConfigTag != "" {
			t.Errorf("it wishes %v", want)
		}
	})
	t.Run("a member has its file, for its user's eyes only", func(t *testing.T) {
		t.Parallel()
		p := member()
		want := state.Desired{
			Parameters: p.Parameters, HBA: p.HBA, Ident: p.Ident,
			Shared: map[string]any{"max_connections": 100, "wal_level": "logical"},
		}
		p.Parameters, p.HBA, p.Ident, p.Dynamic = nil, nil, nil, nil
		want.Patroni = state.Value(p)
		patroni.Handler{}.Desire(state.Observed{}, &want)
		content, tag := config(t, member())
		file := state.File{
			Path: "/var/lib/postgresql/data/patroni.yml", Content: state.Redacted(content),
			Mode: 0o600, User: "postgres", Group: "postgres",
		}
		last := len(want.Files) - 1
		for _, script := range want.Files[:last] {
			if script.Behind != file.Path {
				t.Errorf("%s is not written before patroni.yml", script.Path)
			}
		}
		if want.Files[last] != file || want.ConfigTag != tag {
			t.Errorf("it wishes %v with the tag %s, want %v with %s", want.Files, want.ConfigTag, file, tag)
		}
	})
}
