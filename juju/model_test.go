package juju

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"os"
	"slices"
	"strconv"
	"strings"

	"charmhub.io/postgresql-k8s/charm/state"
)

// model is a Juju model as the hook tools of unit db/0 show it. What the tools
// write is kept back until commit, as Juju does; only the status and the version
// are set at once.
type model struct {
	leader          bool
	config          map[string]any
	relations       map[string]map[int]string    // other application by id, by endpoint
	bags            map[string]map[string]string // by "id owner"
	units           map[string][]string          // of the other side, by id
	secrets         map[string]*secret           // by label
	ports           []string
	memory          map[string]string
	status, message string
	version         string
	params          map[string]any // of the running action

	fails   map[string]error // by tool
	calls   []string         // tool and arguments, with FILE for the file of a secret
	pending []func()
	hidden  []string // what must never be in an argument
}

type secret struct {
	id      string
	content map[string]string
	grants  []int
}

func newModel(leader bool) *model {
	return &model{
		leader: leader, config: map[string]any{"profile": "testing"},
		relations: map[string]map[int]string{"database-peers": {1: "db"}},
		bags:      map[string]map[string]string{},
		secrets:   map[string]*secret{}, memory: map[string]string{},
		status: "unknown", fails: map[string]error{},
	}
}

// system is a dispatch of the unit. Dispatches of a test share the cache.
func (m *model) system(event string, cache secretCache) *System {
	env := Environment{
		Unit:  state.Unit{Name: "db/0", App: "db", Model: "test", ModelUUID: "uuid"},
		Event: state.Event{Name: event, Relation: -1},
	}
	s := New(Tools{Run: m.run}, env)
	s.cache = cache
	return s
}

func (m *model) commit() {
	for _, write := range m.pending {
		write()
	}
	m.pending = nil
}

// called tells how often a tool ran.
func (m *model) called(tool string) int {
	n := 0
	for _, call := range m.calls {
		if strings.HasPrefix(call, tool+" ") {
			n++
		}
	}
	return n
}

func (m *model) run(_ context.Context, tool string, args []string, stdin []byte) ([]byte, error) {
	line := strings.Join(append([]string{tool}, args...), " ")
	file := fileArgument(args)
	if file != "" && file != "-" {
		line = strings.ReplaceAll(line, file, "FILE")
	}
	m.calls = append(m.calls, line)
	if err := m.fails[tool]; err != nil {
		return nil, err
	}
	flags, words := parse(args)
	read, isRead := map[string]func() (any, error){
		"is-leader":    func() (any, error) { return m.leader, nil },
		"config-get":   func() (any, error) { return m.config, nil },
		"action-get":   func() (any, error) { return m.params, nil },
		"opened-ports": func() (any, error) { return m.ports, nil },
		"state-get":    func() (any, error) { return m.memory, nil },
		"status-get":   func() (any, error) { return map[string]string{"status": m.status, "message": m.message}, nil },
		"relation-ids": func() (any, error) { return m.ids(words[0]), nil },
		"relation-get": func() (any, error) { return m.bags[flags["-r"]+" "+words[1]], nil },
		"relation-list": func() (any, error) {
			if _, app := flags["--app"]; !app {
				return m.units[flags["-r"]], nil
			}
			return m.app(flags["-r"]), nil
		},
		"goal-state": func() (any, error) {
			return map[string]any{"units": map[string]any{"db/0": map[string]string{"status": "active"}}}, nil
		},
		"secret-get": func() (any, error) {
			s, err := m.secret(tool, flags["--label"])
			return s.content, err
		},
		"secret-info-get": func() (any, error) {
			s, err := m.secret(tool, flags["--label"])
			return map[string]any{s.id: map[string]any{"revision": 1}}, err
		},
	}[tool]
	if isRead {
		value, err := read()
		if err != nil {
			return nil, err
		}
		return json.Marshal(value)
	}
	return m.write(tool, flags, words, file, stdin)
}

func (m *model) write(tool string, flags map[string]string, words []string, file string, stdin []byte) ([]byte, error) {
	var content map[string]string
	switch {
	case file == "-":
		must(json.Unmarshal(stdin, &content))
	case file != "":
		data, err := os.ReadFile(file)
		must(err)
		must(json.Unmarshal(data, &content))
		m.hidden = append(m.hidden, slices.Collect(maps.Values(content))...)
	}
	notLeader := NewToolError(tool, "ERROR this unit is not the leader", errors.New("exit status 1"))
	later := func(write func()) ([]byte, error) {
		m.pending = append(m.pending, write)
		return nil, nil
	}
	switch tool {
	case "status-set":
		m.status, m.message = words[0], words[1]
		return nil, nil
	case "action-log":
		return nil, nil
	case "application-version-set":
		m.version = words[0]
		return nil, nil
	case "open-port":
		return later(func() { m.ports = append(m.ports, words[0]) })
	case "state-set":
		return later(func() { maps.Copy(m.memory, content) })
	case "relation-set":
		bag := flags["-r"] + " db/0"
		if _, app := flags["--app"]; app {
			bag = flags["-r"] + " db"
			if !m.leader {
				return nil, notLeader
			}
		}
		return later(func() {
			m.bags[bag] = state.With(m.bags[bag], content)
			maps.DeleteFunc(m.bags[bag], func(_, value string) bool { return value == "" })
		})
	case "secret-add":
		if !m.leader {
			return nil, notLeader
		}
		added := &secret{id: fmt.Sprintf("id%d", len(m.secrets)+len(m.pending)), content: content}
		_, _ = later(func() { m.secrets[flags["--label"]] = added })
		return []byte("secret:" + added.id + "\n"), nil
	case "secret-set":
		return later(func() { m.byURI(words[0]).content = content })
	case "secret-grant":
		id, err := strconv.Atoi(flags["-r"])
		must(err)
		return later(func() { s := m.byURI(words[0]); s.grants = append(s.grants, id) })
	case "secret-remove":
		return later(func() { maps.DeleteFunc(m.secrets, func(_ string, s *secret) bool { return s == m.byURI(words[0]) }) })
	}
	return nil, fmt.Errorf("this model has no tool %s", tool)
}

func (m *model) ids(endpoint string) []string {
	ids := []string{}
	for _, id := range slices.Sorted(maps.Keys(m.relations[endpoint])) {
		ids = append(ids, fmt.Sprintf("%s:%d", endpoint, id))
	}
	return ids
}

func (m *model) app(id string) string {
	for _, relations := range m.relations {
		for n, app := range relations {
			if strconv.Itoa(n) == id {
				return app
			}
		}
	}
	return ""
}

func (m *model) secret(tool, label string) (*secret, error) {
	if s, ok := m.secrets[label]; ok {
		return s, nil
	}
	return &secret{}, NewToolError(tool, fmt.Sprintf("ERROR secret %q not found", label), errors.New("exit status 1"))
}

func (m *model) byURI(uri string) *secret {
	for _, s := range m.secrets {
		if strings.HasSuffix(uri, s.id) {
			return s
		}
	}
	return &secret{}
}

// parse tells flags with a value, and those without, from words.
func parse(args []string) (flags map[string]string, words []string) {
	flags = map[string]string{}
	for i := 0; i < len(args); i++ {
		switch arg := args[i]; {
		case arg == "--":
			return flags, append(words, args[i+1:]...)
		case slices.Contains([]string{"--app", "--peek", "--include-data", "--format=json"}, arg):
			flags[arg] = ""
		case strings.HasPrefix(arg, "-") && arg != "-":
			i++
			flags[arg] = args[i]
		default:
			words = append(words, arg)
		}
	}
	return flags, words
}
