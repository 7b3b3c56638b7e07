package sim

import (
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"os"
	"slices"
	"strconv"
	"strings"

	"charmhub.io/postgresql-k8s/juju"
)

// model is a Juju model with one application of ours and its clients.
// Its fields are exported for package json, which clones it.
type model struct {
	Leader    int
	Config    map[string]any
	Peer      map[string]string // the application's databag
	Relations map[int]*relation
	Secrets   map[string]*secret // by id
	Units     []unitFacts
	Next      int // number of the next secret
}

type relation struct {
	Endpoint, App string
	Remote, Local map[string]string
	Units         map[string]map[string]string // of the other side
	LocalUnits    map[int]map[string]string
}

type secret struct {
	Label   string
	Content map[string]string
	Granted []int
}

type unitFacts struct {
	Status, Message string
	Ports           []string
	Memory          map[string]string
}

const peerID = 0

func newModel(units int) *model {
	m := &model{
		Config: map[string]any{}, Peer: map[string]string{}, Relations: map[int]*relation{},
		Secrets: map[string]*secret{}, Units: make([]unitFacts, units),
	}
	for i := range m.Units {
		m.Units[i].Memory = map[string]string{}
	}
	return m
}

// clone is what a hook writes to, until Juju commits it.
func (m *model) clone() *model {
	data, err := json.Marshal(m)
	if err != nil {
		panic(err)
	}
	c := new(model)
	if err := json.Unmarshal(data, c); err != nil {
		panic(err)
	}
	return c
}

// hook is one execution of the charm: its hook tools work on a copy of the model.
type hook struct {
	model  *model            // the copy
	params map[string]string // of the action
	made   map[string]bool
	unit   int
	argv   []string // every word of every command line
	logs   []string
	write  int // commands that would change the model
}

// run is a juju.Runner.
func (h *hook) run(_ context.Context, tool string, args []string, stdin []byte) ([]byte, error) {
	h.argv = append(h.argv, args...)
	flag := func(name string) string {
		if i := slices.Index(args, name); i >= 0 && i+1 < len(args) {
			return args[i+1]
		}
		return ""
	}
	answer := func(v any) ([]byte, error) { return json.Marshal(v) }
	fail := func(text string) ([]byte, error) {
		return nil, juju.NewToolError(tool, "ERROR "+text, fmt.Errorf("exit status 1"))
	}
	m, unit := h.model, &h.model.Units[h.unit]
	leads := m.Leader == h.unit
	switch tool {
	case "is-leader":
		return answer(leads)
	case "action-get":
		return answer(h.params)
	case "config-get":
		return answer(m.Config)
	case "opened-ports":
		return answer(unit.Ports)
	case "state-get":
		return answer(unit.Memory)
	case "status-get":
		return answer(map[string]string{"status": unit.Status, "message": unit.Message})
	case "juju-log":
		h.logs = append(h.logs, args...)
		return nil, nil
	case "goal-state":
		return answer(map[string]any{"units": map[string]any{fmt.Sprintf("%s/%d", app, h.unit): map[string]string{"status": "active"}}})
	case "relation-ids":
		names := []string{}
		switch args[len(args)-1] {
		case "database-peers":
			names = append(names, fmt.Sprintf("database-peers:%d", peerID))
		default:
			for _, id := range slices.Sorted(maps.Keys(m.Relations)) {
				if endpoint := m.Relations[id].Endpoint; endpoint == args[len(args)-1] {
					names = append(names, fmt.Sprintf("%s:%d", endpoint, id))
				}
			}
		}
		return answer(names)
	case "relation-list":
		id, _ := strconv.Atoi(flag("-r"))
		if !slices.Contains(args, "--app") {
			return answer(slices.Sorted(maps.Keys(m.Relations[id].Units)))
		}
		return answer(m.Relations[id].App)
	case "relation-get":
		id, _ := strconv.Atoi(flag("-r"))
		if id == peerID {
			return answer(m.Peer)
		}
		r := m.Relations[id]
		switch {
		case r == nil:
			return fail("relation not found")
		case flag("-") == r.App:
			return answer(r.Remote)
		case flag("-") == fmt.Sprintf("%s/%d", app, h.unit):
			return answer(r.LocalUnits[h.unit])
		case strings.Contains(flag("-"), "/"):
			return answer(r.Units[flag("-")])
		case !leads:
			return fail("permission denied")
		}
		return answer(r.Local)
	case "secret-get":
		if s := m.byLabel(flag("--label")); s != nil {
			return answer(s.Content)
		}
		return fail("secret not found")
	case "secret-info-get":
		for id, s := range m.Secrets {
			if s.Label == flag("--label") && leads {
				return answer(map[string]any{id: map[string]any{}})
			}
		}
		return fail("secret not found")
	}
	h.write++
	return h.change(tool, args, stdin, flag, fail)
}

func (m *model) byLabel(label string) *secret {
	for _, s := range m.Secrets {
		if s.Label == label {
			return s
		}
	}
	return nil
}

// change runs a hook tool that writes.
func (h *hook) change(tool string, args []string, stdin []byte, flag func(string) string, fail func(string) ([]byte, error)) ([]byte, error) {
	m, unit := h.model, &h.model.Units[h.unit]
	secretID := func(uri string) string { return uri[max(strings.LastIndex(uri, "/"), strings.LastIndex(uri, ":"))+1:] }
	ours := tool == "relation-set" && !slices.Contains(args, "--app") // the unit's own databag
	if ours && flag("-r") == strconv.Itoa(peerID) {
		return nil, nil // nobody reads it: it only wakes the others
	}
	needLeader := slices.Contains([]string{"relation-set", "secret-add", "secret-set", "secret-grant", "secret-remove"}, tool)
	if needLeader && !ours && m.Leader != h.unit {
		return fail("this unit is not the leader")
	}
	switch tool {
	case "status-set":
		unit.Status, unit.Message = args[0], args[len(args)-1]
	case "application-version-set":
	case "state-set":
		return nil, json.Unmarshal(stdin, &unit.Memory) // adds to what is there
	case "open-port":
		unit.Ports = append(unit.Ports, args[0])
	case "relation-set":
		var change map[string]string
		if err := json.Unmarshal(stdin, &change); err != nil {
			return nil, err
		}
		id, _ := strconv.Atoi(flag("-r"))
		bag := m.Peer
		switch {
		case ours:
			r := m.Relations[id]
			if r.LocalUnits[h.unit] == nil {
				r.LocalUnits[h.unit] = map[string]string{}
			}
			bag = r.LocalUnits[h.unit]
		case id != peerID:
			bag = m.Relations[id].Local
		}
		for k, v := range change {
			if bag[k] = v; v == "" {
				delete(bag, k)
			}
		}
	case "secret-add":
		if m.byLabel(flag("--label")) != nil {
			return fail("secret with that label already exists")
		}
		id := fmt.Sprintf("s%d", m.Next)
		m.Next++
		content, err := readSecretFile(flag("--file"))
		m.Secrets[id], h.made[id] = &secret{Label: flag("--label"), Content: content}, true
		return []byte("secret://uuid/" + id + "\n"), err
	case "secret-set":
		content, err := readSecretFile(flag("--file"))
		m.Secrets[secretID(args[0])].Content = content
		return nil, err
	case "secret-grant":
		id := secretID(args[0])
		if relation, _ := strconv.Atoi(flag("-r")); !h.made[id] { // Juju 4.1 loses it otherwise
			m.Secrets[id].Granted = append(m.Secrets[id].Granted, relation)
		}
	case "secret-remove":
		delete(m.Secrets, secretID(args[0]))
	default:
		return fail("no such tool")
	}
	return nil, nil
}

func readSecretFile(path string) (map[string]string, error) {
	data, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	var content map[string]string
	return content, json.Unmarshal(data, &content)
}
