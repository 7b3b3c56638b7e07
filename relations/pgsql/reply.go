package pgsql

import (
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"

	"charmhub.io/postgresql-k8s/charm/state"
)

// reply is what a relation is told, in both databags.
//
// All hosts are names, whatever the option client-endpoints says: upstream's
// are, and clients restart their workload when a connection string changes. The
// Service of the primary follows a failover by itself.
func reply(obs state.Observed, relation state.Relation, request Request, e state.ClientEndpoints, user string, password state.Redacted) map[string]string {
	connect := func(service string) string {
		host, _, _ := strings.Cut(service, ":")
		return conninfo(map[string]string{
			"dbname": request.Database, "fallback_application_name": relation.RemoteApp, "host": host,
			"password": password.Reveal(), "port": strconv.Itoa(state.PostgresPort), "user": user,
		})
	}
	return map[string]string{
		"allowed-subnets": strings.Join(request.Subnets, ","),
		// Clients split it at white space.
		"allowed-units": strings.Join(request.Units, " "),
		"database":      request.Database,
		"extensions":    request.Extensions,
		"host":          host(obs),
		"master":        connect(e.PrimaryService),
		"password":      password.Reveal(),
		"port":          strconv.Itoa(state.PostgresPort),
		// With nobody to stand by, reads go to the primary, as those of modern clients.
		"standbys": connect(e.ReadOnlyService),
		"user":     user,
		"version":  e.Version,
	}
}

// host is the full name of this unit's pod.
func host(obs state.Observed) string {
	kube, _ := obs.Kube.Get() // known, or nothing could be published
	return fmt.Sprintf("%s.%s.svc.%s", obs.Unit.Host(), obs.Unit.Model, kube.Domain)
}

// conninfo is a libpq connection string of keywords and values
// (https://www.postgresql.org/docs/17/libpq-connect.html#LIBPQ-CONNSTRING-KEYWORD-VALUE),
// in upstream's form: sorted, one space between two, and no quotes around what
// needs none, because clients split it as they like.
func conninfo(values map[string]string) string {
	var pairs []string
	for _, key := range slices.Sorted(maps.Keys(values)) {
		value := strings.NewReplacer(`\`, `\\`, `'`, `\'`).Replace(values[key])
		if strings.Contains(value, " ") {
			value = "'" + value + "'"
		}
		pairs = append(pairs, key+"="+value)
	}
	return strings.Join(pairs, " ")
}
