package patroni

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"strconv"
	"time"

	"charmhub.io/postgresql-k8s/charm/state"
)

// callTimeout bounds one call of the local member, which answers in
// milliseconds when it answers at all.
const callTimeout = 3 * time.Second

// lookTimeout bounds a look at the local member. It is silent for as long as its server
// is frozen, and what is told of the others waits for the end of the hook: a second look
// in the same one is only in case that it has thawed.
const (
	lookTimeout = time.Second
	lookAgain   = 300 * time.Millisecond
)

// API calls Patroni's REST interface: method, path, body (nil for none) and the
// password for what changes something. It returns the status and the body.
type API func(ctx context.Context, method, path string, body []byte, password state.Redacted) (int, []byte, error)

// OnHost returns the API of the member on a host, by name or address.
func OnHost(host string) API {
	return HTTP("http://" + net.JoinHostPort(host, strconv.Itoa(state.PatroniPort)))
}

// HTTP returns the API of the member at the base URL.
func HTTP(base string) API {
	client := &http.Client{Timeout: callTimeout}
	return func(ctx context.Context, method, path string, body []byte, password state.Redacted) (int, []byte, error) {
		req, err := http.NewRequestWithContext(ctx, method, base+path, bytes.NewReader(body))
		if err != nil {
			return 0, nil, err
		}
		if password != "" {
			req.SetBasicAuth("patroni", password.Reveal())
		}
		resp, err := client.Do(req)
		if err != nil {
			return 0, nil, err
		}
		defer resp.Body.Close()
		data, err := io.ReadAll(io.LimitReader(resp.Body, 4<<20))
		return resp.StatusCode, data, err
	}
}

// denied is the answer of a member that wants another password.
type denied string

// Error implements error.
func (d denied) Error() string { return string(d) }

func (call API) get(ctx context.Context, path string, into any) error {
	code, data, err := call(ctx, http.MethodGet, path, nil, "")
	if err != nil {
		return err
	}
	if code != http.StatusOK {
		return fmt.Errorf("GET %s: status %d", path, code)
	}
	if err := json.Unmarshal(data, into); err != nil {
		return fmt.Errorf("GET %s: %w", path, err)
	}
	return nil
}

func (call API) change(ctx context.Context, method, path string, body any, password state.Redacted) error {
	var data []byte
	if body != nil {
		var err error
		if data, err = json.Marshal(body); err != nil {
			return err
		}
	}
	code, answer, err := call(ctx, method, path, data, password)
	if err != nil {
		return err
	}
	if code == http.StatusUnauthorized {
		return denied(fmt.Sprintf("%s %s: status %d: %s", method, path, code, bytes.TrimSpace(answer)))
	}
	if code/100 != 2 {
		return fmt.Errorf("%s %s: status %d: %s", method, path, code, bytes.TrimSpace(answer))
	}
	return nil
}

// local is what GET /patroni answers.
type local struct {
	State         string
	Role          string
	ServerVersion int `json:"server_version"`
	Timeline      int
	Patroni       struct{ Name, Version string }
	Tags          map[string]any
	Started       string `json:"postmaster_start_time"`
}

func (l local) facts() state.Local {
	tag, _ := l.Tags[configTag].(string)
	return state.Local{
		Name: l.Patroni.Name, Version: l.Patroni.Version, Role: l.Role, State: l.State,
		ServerVersion: version(l.ServerVersion), ConfigTag: tag, Started: l.Started,
	}
}

// version writes PostgreSQL's server_version_num, since 10, as people do.
func version(num int) string {
	if num < 100000 {
		return ""
	}
	return fmt.Sprintf("%d.%d", num/10000, num%10000)
}

// cluster is what GET /cluster answers.
type cluster struct {
	Members []struct {
		Name, Role, State, Host string
		Port, Timeline          int
		Lag                     json.RawMessage // a number, "unknown" or absent
		PendingRestart          bool            `json:"pending_restart"`
		Reason                  map[string]struct {
			Old any `json:"old_value"`
			New any `json:"new_value"`
		} `json:"pending_restart_reason"`
	}
}

// primaryFirst are the settings that no replica may have lower than the primary
// (https://www.postgresql.org/docs/17/hot-standby.html#HOT-STANDBY-ADMIN): a replica
// keeps the old value until the primary has the new one, however often it restarts.
var primaryFirst = []string{"max_connections", "max_locks_per_transaction", "max_prepared_transactions", "max_wal_senders", "max_worker_processes"}

func (c cluster) facts() []state.Member {
	members := make([]state.Member, len(c.Members))
	for i, m := range c.Members {
		members[i] = state.Member{
			Name: m.Name, Role: m.Role, State: m.State, Host: m.Host, Port: m.Port, Timeline: m.Timeline,
			Lag: state.Unknown[int64]("not reported"), PendingRestart: m.PendingRestart,
		}
		// Patroni 3.2 and before does not say what waits. If it were raised, replicas
		// would stop replaying until they are restarted in their turn.
		members[i].Lowers = m.PendingRestart && m.Reason == nil
		for _, setting := range primaryFirst {
			old, _ := strconv.Atoi(fmt.Sprint(m.Reason[setting].Old))
			now, _ := strconv.Atoi(fmt.Sprint(m.Reason[setting].New)) // both are 0 when it is not among them
			members[i].Lowers = members[i].Lowers || now < old
		}
		var lag int64
		if json.Unmarshal(m.Lag, &lag) == nil && len(m.Lag) > 0 {
			members[i].Lag = state.Value(lag)
		}
	}
	return members
}
