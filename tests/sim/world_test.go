package sim

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"maps"
	"regexp"
	"slices"
	"strings"
	"sync"
	"time"

	"gopkg.in/yaml.v3"
	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"

	"charmhub.io/postgresql-k8s/actions"
	"charmhub.io/postgresql-k8s/charm"
	"charmhub.io/postgresql-k8s/charm/state"
	"charmhub.io/postgresql-k8s/juju"
	"charmhub.io/postgresql-k8s/kube"
	"charmhub.io/postgresql-k8s/patroni"
	"charmhub.io/postgresql-k8s/pebble"
	"charmhub.io/postgresql-k8s/pebble/pebbletest"
	"charmhub.io/postgresql-k8s/postgres"
)

const app = "db"

// world is everything that the charm can see.
type world struct {
	mu         sync.Mutex // of the members: Patroni is asked several things at a time
	model      *model
	trusted    bool
	containers []*pebbletest.Container
	members    []member
	dynamic    map[string]any
	objects    map[string]map[string]any // Kubernetes' services and endpoints, by path
	labels     []map[string]string       // of the pods
	told       []string                  // the annotations of the pods
	catalog    state.Catalog
	due        map[int][]map[string]string // events that Juju will run, by unit
}

// member is a unit's Patroni.
type member struct{ loaded string } // the file that it has loaded

func newWorld(units int) *world {
	w := &world{
		model: newModel(units), trusted: true, due: map[int][]map[string]string{}, objects: map[string]map[string]any{},
		members: make([]member, units), labels: make([]map[string]string, units), told: make([]string, units),
		catalog: state.Catalog{Version: "17.5", Predefined: []string{"pg_monitor", "pg_read_all_data", "pg_write_all_data"}, Roles: map[string]state.Role{}, Databases: map[string]state.CatalogDatabase{}},
	}
	for range units {
		c := pebbletest.New()
		c.Put("/usr/lib/postgresql/17/bin/postgres", "")
		c.Put("/usr/lib/postgresql/17/lib/pgaudit.so", "")
		c.Mkdir(state.Mount)
		unit := len(w.containers)
		c.OnSignal(func(string, string) { w.members[unit].loaded = w.file(unit, state.PatroniYML) })
		c.OnPsql(func(sql string) error { return w.psql(unit, sql) })
		w.containers = append(w.containers, c)
	}
	return w
}

var alterRole = regexp.MustCompile(`ALTER ROLE "(\w+)" PASSWORD '(SCRAM-SHA-256\$[^']+)';`)

// psql is the way into the server of a unit's pod that needs no password.
func (w *world) psql(unit int, sql string) error {
	match := alterRole.FindStringSubmatch(sql)
	role, exists := w.catalog.Roles[match[1]]
	if unit != w.primary() || !exists {
		return fmt.Errorf("psql failed: exit status 3: ERROR: cannot execute ALTER ROLE of %s", match[1])
	}
	role.Verifier = state.Redacted(match[2])
	w.catalog.Roles[match[1]] = role
	return nil
}

// verifiers are those of the system users.
func (w *world) verifiers() map[string]state.Redacted {
	all := map[string]state.Redacted{}
	for _, user := range state.SystemUsers {
		all[user] = w.catalog.Roles[user].Verifier
	}
	return all
}

// login tells whether the server takes a password for a user.
func (w *world) login(user string, password state.Redacted) bool {
	return w.catalog.Roles[user].HasPassword(password)
}

// bootstrap is what Patroni makes of the passwords in its file.
func (w *world) bootstrap(file string) {
	for user, password := range passwordsIn(file).PostgreSQL.Authentication {
		verifier, err := state.Verifier(state.Redacted(password.Password))
		if err != nil {
			panic(err)
		}
		name := strings.Replace(user, "superuser", "operator", 1)
		w.catalog.Roles[name] = state.Role{Name: name, Login: true, Superuser: user == "superuser", Verifier: state.Redacted(verifier)}
	}
}

// patroniPasswords are those in a patroni.yml.
type patroniPasswords struct {
	RESTAPI    struct{ Authentication struct{ Password string } } `yaml:"restapi"`
	PostgreSQL struct {
		Authentication map[string]struct{ Password string }
	} `yaml:"postgresql"`
}

func passwordsIn(file string) patroniPasswords {
	var p patroniPasswords
	if err := yaml.Unmarshal([]byte(file), &p); err != nil {
		panic(err)
	}
	return p
}

// file returns the content of a file in a unit's workload, or "".
func (w *world) file(unit int, path string) string {
	socket, err := w.containers[unit].Dial(context.Background())
	if err != nil {
		return ""
	}
	data, err := socket.Pull(path)
	if err != nil {
		return ""
	}
	return string(data)
}

func (w *world) runs(unit int) bool {
	socket, err := w.containers[unit].Dial(context.Background())
	if err != nil {
		return false
	}
	services, err := socket.Services()
	return err == nil && services[state.ServiceName] == "active"
}

// primary is the first unit whose member runs, or -1.
func (w *world) primary() int {
	for unit := range w.members {
		if w.runs(unit) {
			return unit
		}
	}
	return -1
}

// tag reads the tag out of a patroni.yml.
func tag(file string) string {
	_, after, _ := strings.Cut(file, "charm_config: ")
	line, _, _ := strings.Cut(after, "\n")
	return strings.Trim(line, `"'`)
}

// patroni is the API of a unit's member.
func (w *world) patroni(unit int) patroni.API {
	return func(_ context.Context, method, path string, body []byte, password state.Redacted) (int, []byte, error) {
		w.mu.Lock()
		defer w.mu.Unlock()
		if !w.runs(unit) {
			w.members[unit].loaded = ""
			return 0, nil, errors.New("connection refused")
		}
		if w.members[unit].loaded == "" { // it has just started
			w.members[unit].loaded = w.file(unit, state.PatroniYML)
			if w.dynamic == nil {
				w.dynamic = map[string]any{"ttl": 30.0}
				w.bootstrap(w.members[unit].loaded)
			}
		}
		answer := func(v any) (int, []byte, error) {
			data, err := json.Marshal(v)
			return 200, data, err
		}
		if method != "GET" && passwordsIn(w.members[unit].loaded).RESTAPI.Authentication.Password != password.Reveal() {
			return 401, nil, nil
		}
		role := func(u int) string {
			if u == w.primary() {
				return "leader"
			}
			return "replica"
		}
		switch method + " " + path {
		case "GET /patroni":
			local := strings.Replace(role(unit), "leader", "primary", 1)
			return answer(map[string]any{
				"state": "running", "role": local, "server_version": 170005,
				"patroni": map[string]string{"name": state.PodName(app, unit)}, "tags": map[string]string{"charm_config": tag(w.members[unit].loaded)},
			})
		case "GET /cluster":
			var members []any
			for u := range w.members {
				if w.runs(u) {
					members = append(members, map[string]any{
						"name": state.PodName(app, u), "role": role(u), "host": state.PodName(app, u), "port": 5432, "lag": 0,
						"state": map[bool]string{true: "running", false: "streaming"}[role(u) == "leader"],
					})
				}
			}
			return answer(map[string]any{"members": members})
		case "GET /config":
			return answer(w.dynamic)
		case "PATCH /config":
			var patch map[string]any
			if err := json.Unmarshal(body, &patch); err != nil {
				return 400, nil, nil
			}
			merge(w.dynamic, patch)
			return answer(w.dynamic)
		case "POST /reload":
			w.members[unit].loaded = w.file(unit, state.PatroniYML)
			return 202, nil, nil
		}
		return 404, nil, nil
	}
}

// merge is RFC 7396, the JSON merge patch.
func merge(into, patch map[string]any) {
	for k, v := range patch {
		inner, isMap := v.(map[string]any)
		old, wasMap := into[k].(map[string]any)
		switch {
		case v == nil:
			delete(into, k)
		case isMap && wasMap:
			merge(old, inner)
		default:
			into[k] = v
		}
	}
}

// api is the Kubernetes API.
type api struct{ *world }

func (a api) Read(_ context.Context, path, _ string, into any) error {
	if !a.trusted && path == "endpoints" {
		return apierrors.NewForbidden(schema.GroupResource{Resource: path}, "", errors.New("not trusted"))
	}
	switch list := into.(type) {
	case *corev1.PodList:
		for unit := range a.members {
			pod := corev1.Pod{}
			pod.Name, pod.Labels, pod.Status.PodIP = state.PodName(app, unit), a.labels[unit], fmt.Sprintf("10.0.0.%d", unit+1)
			pod.Annotations = map[string]string{state.ToldAnnotation: a.told[unit]}
			if a.runs(unit) {
				pod.Status.Conditions = []corev1.PodCondition{{Type: corev1.PodReady, Status: corev1.ConditionTrue}}
			}
			list.Items = append(list.Items, pod)
		}
		return nil
	case *appsv1.StatefulSet:
		list.Name, list.UID = app, types.UID("set")
		return nil
	}
	var items []any
	for _, key := range slices.Sorted(maps.Keys(a.objects)) {
		if strings.HasPrefix(key, path+"/") {
			items = append(items, a.objects[key])
		}
	}
	data, err := json.Marshal(map[string]any{"items": items})
	if err != nil {
		return err
	}
	return json.Unmarshal(data, into)
}

func (a api) Apply(_ context.Context, path string, object map[string]any) error {
	a.objects[path] = object
	return nil
}

func (a api) Merge(_ context.Context, path string, patch map[string]any) error {
	var unit int
	if _, err := fmt.Sscanf(path, "pods/"+app+"-%d", &unit); err != nil {
		return err
	}
	metadata := patch["metadata"].(map[string]any)
	if annotations, has := metadata["annotations"].(map[string]any); has {
		a.told[unit] = annotations[state.ToldAnnotation].(string)
		return nil
	}
	labels := maps.Clone(a.labels[unit])
	if labels == nil {
		labels = map[string]string{}
	}
	for label, value := range metadata["labels"].(map[string]any) {
		if labels[label], _ = value.(string); value == nil {
			delete(labels, label)
		}
	}
	a.labels[unit] = labels
	return nil
}

func (a api) Delete(_ context.Context, path string) error {
	delete(a.objects, path)
	return nil
}

// database is the cluster's catalog: PostgreSQL's own diff, without PostgreSQL.
type database struct {
	*postgres.System
	*world
}

func (d database) Name() string { return d.System.Name() }

func (d database) Observe(_ context.Context, obs *state.Observed) error {
	obs.Database = state.Unknown[state.Catalog]("no primary")
	isPrimary := d.primary() == obs.Unit.Number
	if !obs.Leader && !isPrimary || d.primary() < 0 {
		return nil
	}
	password := obs.Secrets[obs.Unit.PeerSecret()].InForce()["operator-password"]
	if password == "" || d.catalog.Roles["operator"].Name == "" {
		return nil
	}
	if !d.login("operator", password) {
		obs.Refused = true
		return nil
	}
	if isPrimary {
		users := map[string]state.Role{}
		for _, name := range state.SystemUsers {
			if role, ok := d.catalog.Roles[name]; ok {
				users[name] = role
			}
		}
		obs.Users = state.Value(users)
	}
	if !obs.Leader {
		return nil
	}
	data, err := json.Marshal(d.catalog)
	if err != nil {
		return err
	}
	var catalog state.Catalog
	if err := json.Unmarshal(data, &catalog); err != nil {
		return err
	}
	for name, role := range d.catalog.Roles { // secrets do not survive JSON, on purpose
		catalog.Roles[name] = role
	}
	obs.Database = state.Value(catalog)
	return nil
}

func (d database) Apply(ctx context.Context, step state.Step) error {
	roles, databases := d.catalog.Roles, d.catalog.Databases
	switch step := step.(type) {
	case postgres.RenewPassword:
		return d.System.Apply(ctx, step)
	case postgres.CreateRole:
		role := step.Role
		role.Password = ""
		roles[role.Name] = role
	case postgres.AlterRole:
		role := step.Role
		role.Password, role.MemberOf, role.Verifier = "", roles[role.Name].MemberOf, roles[role.Name].Verifier
		roles[role.Name] = role
	case postgres.GrantRole:
		role := roles[step.Member]
		role.MemberOf = append(slices.Clone(role.MemberOf), step.Group)
		roles[step.Member] = role
	case postgres.SetPassword:
		verifier, err := state.Verifier(step.Password)
		if err != nil {
			return err
		}
		role := roles[step.Role]
		role.Verifier = state.Redacted(verifier)
		roles[step.Role] = role
	case postgres.DropRole:
		delete(roles, step.Role)
		for name, db := range databases {
			db.Create = slices.DeleteFunc(slices.Clone(db.Create), func(r string) bool { return r == step.Role })
			databases[name] = db
		}
	case postgres.CreateDatabase:
		databases[step.Name] = state.CatalogDatabase{Owner: "operator"}
	case postgres.PrepareDatabase:
		d.allow(step.Name, step.Owner)
	case postgres.AdmitUser:
		d.allow(step.Database.Name, step.User.Role)
	default:
		return fmt.Errorf("unknown step %T", step)
	}
	return nil
}

func (d database) allow(name, role string) {
	db, ok := d.catalog.Databases[name]
	if !ok {
		panic("a step in a database that does not exist: " + name)
	}
	db.Create = append(slices.Clone(db.Create), role)
	d.catalog.Databases[name] = db
}

// crash is what a killed process panics with.
type crash struct{}

// mortal is a system whose process dies when the fuse has burnt down: before a
// step, or right after it.
type mortal struct {
	charm.System
	fuse *int
	text *[]string
}

func (m mortal) Apply(ctx context.Context, step state.Step) error {
	*m.text = append(*m.text, step.String(), fmt.Sprintf("%v %+v", step, step))
	if *m.fuse--; *m.fuse == 0 {
		panic(crash{})
	}
	err := m.System.Apply(ctx, step)
	if *m.fuse--; *m.fuse == 0 {
		panic(crash{})
	}
	return err
}

type mortalModel struct {
	mortal
	report func(context.Context, state.Status) error
	answer *string
}

func (m mortalModel) Answer(_ context.Context, results map[string]string, failure error) error {
	if failure != nil {
		results = map[string]string{"failure": failure.Error()}
	}
	*m.answer = fmt.Sprint(results)
	return nil
}

func (m mortalModel) Progress(context.Context, string) error { return nil }

func (m mortalModel) Report(ctx context.Context, status state.Status) error {
	return m.report(ctx, status)
}

// life is what was seen of one dispatch.
type life struct {
	outcome charm.Outcome
	err     error
	crashed bool
	refused bool     // Juju did not commit it
	again   bool     // the charm asked for another dispatch
	writes  int      // hook tools that write
	answer  string   // of an action
	rash    []string // system users who got a password, and pods that got a note, that Juju did not have before
	text    []string // everything that could be read: logs, argv, steps
}

// dispatch runs the charm once on a unit. A fuse above zero kills it on the way;
// refuse has Juju refuse the commit.
func (w *world) dispatch(unit int, event map[string]string, fuse int, refuse bool) (l life) {
	h := &hook{model: w.model.clone(), made: map[string]bool{}, unit: unit, params: map[string]string{}}
	for name, value := range event {
		if param, ok := strings.CutPrefix(name, "PARAM_"); ok {
			h.params[param] = value
		}
	}
	variables := map[string]string{
		"JUJU_UNIT_NAME": fmt.Sprintf("%s/%d", app, unit), "JUJU_MODEL_NAME": "sim",
		"JUJU_MODEL_UUID": "uuid", "JUJU_DISPATCH_PATH": "hooks/update-status",
	}
	maps.Copy(variables, event)
	env, err := juju.ParseEnvironment(func(key string) string { return variables[key] })
	if err != nil {
		return life{err: err}
	}
	now := time.Unix(0, 0)
	tools := juju.Tools{Run: h.run}
	real := juju.NewUncached(tools, env)
	var steps []string
	die := func(s charm.System) charm.System { return mortal{s, &fuse, &steps} }
	container := pebble.NewWith(w.containers[unit].Dial, state.Resources{Memory: 4 << 30, CPUs: 2}, state.PatroniYML)
	member, server := patroni.New(w.patroni(unit), nil), postgres.New(nil)
	member.Hangup, server.Local = container.Hangup, container.Psql
	c := charm.Charm{
		Model: mortalModel{mortal{real, &fuse, &steps}, real.Report, &l.answer},
		Systems: []charm.System{
			die(kube.New(api{w}, env.Unit, "")), die(container), die(member),
		},
		Second:   []charm.System{die(database{server, w})},
		Handlers: charm.Handlers(),
		Actions:  actions.All(),
		Action:   env.Event.Action,
		Log:      slog.New(juju.NewLogHandler(tools, io.Discard)),
		Wake:     func(context.Context) error { l.again = true; return nil },
		Now:      func() time.Time { return now },
		Sleep:    func(_ context.Context, d time.Duration) { now = now.Add(d) },
	}
	verifiers, shown, noted := w.verifiers(), slices.Clone(w.told), w.model.Peer[state.ToldKey]
	before := w.model.byLabel("database-peers." + app + ".app")
	defer func() {
		for user, verifier := range w.verifiers() {
			if verifier != verifiers[user] && (before == nil || !w.login(user, state.Redacted(before.Content[user+"-password"]))) {
				l.rash = append(l.rash, user)
			}
		}
		for pod, told := range w.told {
			if told != shown[pod] && told != noted {
				l.rash = append(l.rash, state.PodName(app, pod))
			}
		}
		l.writes, l.text = h.write, slices.Concat(h.argv, h.logs, steps)
		if cause := recover(); cause != nil {
			if _, ok := cause.(crash); !ok {
				panic(cause)
			}
			l.crashed = true
			return
		}
		l.refused = refuse
		if l.err == nil && !refuse {
			h.model.Leader = w.model.Leader
			w.model = h.model
		}
	}()
	l.outcome, l.err = c.Dispatch(context.Background())
	return l
}
