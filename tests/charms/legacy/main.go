// Command dispatch is a charm for tests: a client of pgsql. It asks, and believes
// what it is told, as ops-lib-pgsql does
// (https://github.com/canonical/ops-lib-pgsql/blob/master/protocol.md).
package main

import (
	"cmp"
	"context"
	"fmt"
	"maps"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"

	"charmhub.io/postgresql-k8s/juju"
	"charmhub.io/postgresql-k8s/tests/charms/rows"
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
	asks := map[string]string{}
	for option, key := range map[string]string{"database-name": "database", "roles": "roles", "extensions": "extensions"} {
		asks[key], _ = config[option].(string)
	}
	if err := askModern(ctx, tools, env, asks["database"]); err != nil {
		return err
	}
	id, err := relation(ctx, tools, env, "db", "db-admin")
	if err != nil {
		return err
	}
	if id < 0 {
		if env.Event.Action != "" {
			return tools.ActionFail(ctx, "there is no relation")
		}
		return tools.StatusSet(ctx, "waiting", "no relation")
	}
	if err := ask(ctx, tools, id, asks); err != nil {
		return err
	}
	if env.Event.Action == "credentials" {
		return credentials(ctx, tools, id)
	}
	told, why, err := believe(ctx, tools, env, id, asks)
	switch {
	case err != nil:
		return err
	case env.Event.Action != "" && told == nil:
		return tools.ActionFail(ctx, why)
	case env.Event.Action != "":
		return action(ctx, tools, told)
	case told == nil:
		return tools.StatusSet(ctx, "waiting", why)
	}
	return report(ctx, tools, env, told)
}

// relation returns the one relation of the endpoints, or -1.
func relation(ctx context.Context, tools juju.Tools, env juju.Environment, endpoints ...string) (int, error) {
	for _, endpoint := range endpoints {
		ids, err := tools.RelationIDs(ctx, endpoint)
		if err != nil {
			return -1, err
		}
		for _, id := range ids {
			if id != env.Broken {
				return id, nil
			}
		}
	}
	return -1, nil
}

// ask writes the request: the leader for the application, and each unit for
// charms of before there were databags of applications.
func ask(ctx context.Context, tools juju.Tools, id int, asks map[string]string) error {
	leader, err := tools.IsLeader(ctx)
	if err != nil {
		return err
	}
	if leader {
		if err := tools.RelationSet(ctx, id, asks); err != nil {
			return err
		}
	}
	return tools.RelationSetUnit(ctx, id, asks)
}

// askModern asks for the same over the modern interface, and no more.
func askModern(ctx context.Context, tools juju.Tools, env juju.Environment, database string) error {
	id, err := relation(ctx, tools, env, "database")
	if err != nil || id < 0 {
		return err
	}
	leader, err := tools.IsLeader(ctx)
	if err != nil || !leader {
		return err
	}
	return tools.RelationSet(ctx, id, map[string]string{"database": database})
}

// providers are the databags of the other side by owner: the application's, which
// comes first in order, and its units'.
func providers(ctx context.Context, tools juju.Tools, id int) (map[string]map[string]string, error) {
	app, err := tools.RelationApp(ctx, id)
	if err != nil {
		return nil, err
	}
	owners, err := tools.RelationUnits(ctx, id)
	if err != nil {
		return nil, err
	}
	bags := map[string]map[string]string{}
	for _, owner := range append(owners, app) {
		if bags[owner], err = tools.RelationGet(ctx, id, owner); err != nil {
			return nil, err
		}
	}
	return bags, nil
}

// believe returns the first databag that answers the request of this unit, or why
// there is none.
func believe(ctx context.Context, tools juju.Tools, env juju.Environment, id int, asks map[string]string) (told map[string]string, why string, err error) {
	bags, err := providers(ctx, tools, id)
	if err != nil {
		return nil, "", err
	}
	own, err := tools.RelationGet(ctx, id, env.Unit.Name)
	if err != nil {
		return nil, "", err
	}
	for _, owner := range slices.Sorted(maps.Keys(bags)) {
		if reason := doubt(bags[owner], own, env.Unit.Name, asks); reason != "" {
			why = cmp.Or(why, reason)
			continue
		}
		return bags[owner], "", nil
	}
	return nil, why, nil
}

// doubt says what is missing in a databag.
func doubt(bag, own map[string]string, unit string, asks map[string]string) string {
	if bag["master"] == "" {
		return "no connection string"
	}
	for _, key := range []string{"database", "roles", "extensions"} {
		if bag[key] != asks[key] && !(key == "database" && asks[key] == "") {
			return fmt.Sprintf("%s is %q, not %q", key, bag[key], asks[key])
		}
	}
	allowed := strings.Split(bag["allowed-subnets"], ",")
	for subnet := range strings.SplitSeq(own["egress-subnets"], ",") {
		if !slices.Contains(allowed, subnet) {
			return fmt.Sprintf("%s is none of the allowed subnets %q", subnet, allowed)
		}
	}
	if !slices.Contains(strings.Fields(bag["allowed-units"]), unit) {
		return fmt.Sprintf("%s is none of the allowed units %q", unit, bag["allowed-units"])
	}
	return ""
}

// connect opens a connection string.
func connect(ctx context.Context, conninfo string) (*pgx.Conn, error) {
	cfg, err := pgx.ParseConfig(conninfo + " sslmode=disable connect_timeout=5")
	if err != nil {
		return nil, err
	}
	// libpq's own word, which pgx takes for a setting of the server.
	cfg.RuntimeParams["application_name"] = cfg.RuntimeParams["fallback_application_name"]
	delete(cfg.RuntimeParams, "fallback_application_name")
	return pgx.ConnectConfig(ctx, cfg)
}

// patience bounds the attempts to connect: a pod that was slow to answer the kubelet once is
// out of its Service for some seconds.
const patience = 20 * time.Second

// report writes a row and says how many there are, and through which host.
func report(ctx context.Context, tools juju.Tools, env juju.Environment, told map[string]string) error {
	conn, err := connect(ctx, told["master"])
	for end := time.Now().Add(patience); err != nil && time.Now().Before(end); {
		time.Sleep(time.Second)
		conn, err = connect(ctx, told["master"])
	}
	if err != nil {
		return tools.StatusSet(ctx, "blocked", "cannot connect: "+err.Error())
	}
	defer conn.Close(ctx)
	n, err := rows.Write(ctx, conn, env.Event.Name)
	if err != nil {
		return tools.StatusSet(ctx, "blocked", "cannot write: "+err.Error())
	}
	return tools.StatusSet(ctx, "active", fmt.Sprintf("%d rows through %s", n, conn.Config().Host))
}

// action runs the statement of the action sql.
func action(ctx context.Context, tools juju.Tools, told map[string]string) error {
	params, err := tools.ActionParams(ctx)
	if err != nil {
		return err
	}
	statement, _ := params["statement"].(string)
	conninfo := told["master"]
	if standby, _ := params["standby"].(bool); standby {
		conninfo, _, _ = strings.Cut(told["standbys"], "\n")
	}
	conn, err := connect(ctx, conninfo)
	if err != nil {
		return tools.ActionFail(ctx, err.Error())
	}
	defer conn.Close(ctx)
	lines, err := rows.Read(ctx, conn, statement)
	if err != nil {
		return tools.ActionFail(ctx, err.Error())
	}
	return tools.ActionSet(ctx, map[string]string{"rows": lines, "host": conn.Config().Host})
}

// credentials shows the databags: the application's keys as they are, those of a
// unit below its number.
func credentials(ctx context.Context, tools juju.Tools, id int) error {
	bags, err := providers(ctx, tools, id)
	if err != nil {
		return err
	}
	all := map[string]string{}
	for owner, bag := range bags {
		_, number, isUnit := strings.Cut(owner, "/")
		for key, value := range bag {
			if isUnit {
				key = "unit-" + number + "." + key
			}
			all[key] = value
		}
	}
	return tools.ActionSet(ctx, all)
}
