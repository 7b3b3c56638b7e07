// Command dispatch is a charm for tests: a client of postgresql_client.
package main

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"

	"charmhub.io/postgresql-k8s/juju"
	"charmhub.io/postgresql-k8s/tests/charms/rows"
)

const (
	endpoint = "database"
	salt     = "0123456789abcdef"
)

func main() {
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	if err := dispatch(ctx, juju.Tools{Run: juju.NewAgent(os.Getenv).Run}); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

func dispatch(ctx context.Context, tools juju.Tools) error {
	env, err := juju.ParseEnvironment(os.Getenv)
	if err != nil || env.Leaving {
		return err
	}
	config, err := tools.Config(ctx)
	if err != nil {
		return err
	}
	ids, err := tools.RelationIDs(ctx, endpoint)
	if err != nil {
		return err
	}
	ids = slices.DeleteFunc(ids, func(id int) bool { return id == env.Broken })
	if len(ids) == 0 {
		if env.Event.Action != "" {
			return tools.ActionFail(ctx, "there is no relation")
		}
		return tools.StatusSet(ctx, "waiting", "no relation")
	}
	if err := ask(ctx, tools, ids[0], config); err != nil {
		return err
	}
	reply, err := read(ctx, tools, ids[0])
	if errors.Is(err, errNoSecret) && env.Event.Action == "" {
		// The relation goes, and the provider was faster.
		return tools.StatusSet(ctx, "waiting", err.Error())
	}
	if err != nil {
		return err
	}
	switch env.Event.Action {
	case "credentials":
		return tools.ActionSet(ctx, reply)
	case "get-credentials":
		results := map[string]string{"ok": "True"}
		for key, value := range reply {
			results["postgresql."+key] = value
		}
		return tools.ActionSet(ctx, results)
	case "sql":
		return action(ctx, tools, reply)
	}
	if reply["username"] == "" {
		return tools.StatusSet(ctx, "waiting", "no credentials "+reply["status"])
	}
	return report(ctx, tools, env, reply)
}

// ask writes the request, in the configured form; the leader does.
func ask(ctx context.Context, tools juju.Tools, id int, config map[string]any) error {
	leader, err := tools.IsLeader(ctx)
	if err != nil || !leader {
		return err
	}
	option := func(name string) string { s, _ := config[name].(string); return s }
	request := map[string]string{"database": option("database-name"), "extra-user-roles": option("extra-user-roles")}
	if raw := option("request"); raw != "" {
		request = map[string]string{}
		if err := json.Unmarshal([]byte(raw), &request); err != nil {
			return fmt.Errorf("cannot read the option request: %w", err)
		}
		return tools.RelationSet(ctx, id, request)
	}
	switch option("protocol") {
	case "plain":
	case "secrets":
		request["requested-secrets"] = `["username", "password", "tls", "tls-ca", "uris", "read-only-uris"]`
	case "v1":
		sum := sha256.Sum256([]byte(option("database-name") + ":" + salt))
		requests, err := json.Marshal([]any{map[string]any{
			"resource": option("database-name"), "request-id": hex.EncodeToString(sum[:8]), "salt": salt,
			"extra-user-roles": option("extra-user-roles"), "entity-type": nil,
		}})
		if err != nil {
			return err
		}
		request = map[string]string{"version": "v1", "requests": string(requests)}
	default:
		return fmt.Errorf("unknown protocol %q", option("protocol"))
	}
	return tools.RelationSet(ctx, id, request)
}

var errNoSecret = errors.New("a secret of the relation is gone")

// read returns what the relation gave, secrets opened, in one flat form.
func read(ctx context.Context, tools juju.Tools, id int) (map[string]string, error) {
	app, err := tools.RelationApp(ctx, id)
	if err != nil {
		return nil, err
	}
	bag, err := tools.RelationGet(ctx, id, app)
	if err != nil {
		return nil, err
	}
	// As the libraries and the charms built on them: a reply is complete or absent.
	if len(bag) > 0 && bag["version"] != "v1" && bag["status"] == "" && bag["endpoints"] == "" {
		return nil, errors.New("the provider's databag has no endpoints")
	}
	reply := map[string]string{}
	for key, value := range bag {
		reply[key] = value
	}
	if bag["version"] == "v1" {
		var responses []map[string]string
		if err := json.Unmarshal([]byte(bag["requests"]), &responses); err != nil {
			return nil, err
		}
		reply = map[string]string{"status": bag["status"]}
		if len(responses) > 0 {
			reply = responses[0]
			reply["database"] = reply["resource"]
		}
	}
	delete(reply, "data")
	for key, uri := range reply {
		if !strings.HasPrefix(key, "secret-") {
			continue
		}
		out, err := tools.Run(ctx, "secret-get", []string{uri, "--refresh", "--format=json"}, nil)
		if err != nil && strings.Contains(err.Error(), "not found") {
			return nil, errNoSecret
		}
		if err != nil {
			return nil, err
		}
		content := map[string]string{}
		if err := json.Unmarshal(out, &content); err != nil {
			return nil, err
		}
		for field, value := range content {
			reply[field] = value
		}
	}
	return reply, nil
}

// connect splits the endpoint as the plainest of clients do: at its one colon.
func connect(ctx context.Context, reply map[string]string, endpoints string) (*pgx.Conn, error) {
	parts := strings.Split(endpoints, ":")
	if len(parts) != 2 {
		return nil, fmt.Errorf("%q is not one host and one port", endpoints)
	}
	cfg, err := pgx.ParseConfig("sslmode=disable connect_timeout=5 port=" + parts[1])
	if err != nil {
		return nil, err
	}
	cfg.Host, cfg.User, cfg.Password, cfg.Database = parts[0], reply["username"], reply["password"], reply["database"]
	return pgx.ConnectConfig(ctx, cfg)
}

// report writes a row and says how many there are, and through which endpoints.
func report(ctx context.Context, tools juju.Tools, env juju.Environment, reply map[string]string) error {
	conn, err := connect(ctx, reply, reply["endpoints"])
	if err != nil {
		return tools.StatusSet(ctx, "blocked", "cannot connect: "+err.Error())
	}
	defer conn.Close(ctx)
	n, err := rows.Write(ctx, conn, env.Event.Name)
	if err != nil {
		return tools.StatusSet(ctx, "blocked", "cannot write: "+err.Error())
	}
	return tools.StatusSet(ctx, "active", fmt.Sprintf("%d rows through %s", n, reply["endpoints"]))
}

// action runs the statement of the action sql.
func action(ctx context.Context, tools juju.Tools, reply map[string]string) error {
	params, err := tools.ActionParams(ctx)
	if err != nil {
		return err
	}
	statement, _ := params["statement"].(string)
	endpoints := reply["endpoints"]
	if readOnly, _ := params["read-only"].(bool); readOnly {
		endpoints, _, _ = strings.Cut(reply["read-only-endpoints"], ",")
	}
	conn, err := connect(ctx, reply, endpoints)
	if err != nil {
		return tools.ActionFail(ctx, err.Error())
	}
	defer conn.Close(ctx)
	lines, err := rows.Read(ctx, conn, statement)
	if err != nil {
		return tools.ActionFail(ctx, err.Error())
	}
	return tools.ActionSet(ctx, map[string]string{"rows": lines, "host": endpoints})
}
