package postgres

import (
	"context"
	"fmt"
	"os"
	"slices"
	"strconv"
	"strings"
	"testing"

	"charmhub.io/postgresql-k8s/charm/core"
	"charmhub.io/postgresql-k8s/charm/state"
)

// TestANewPasswordIsTakenWithoutTheOldOne changes the operator user's password in
// the secret only: the server then refuses the charm, until this unit's own way in
// has told it. Sessions that are open stay so.
func TestANewPasswordIsTakenWithoutTheOldOne(t *testing.T) {
	t.Parallel()
	w := newServer(t)
	w.settle(t)
	open, err := w.as(t, "operator", operatorPassword, "postgres")
	check(t, err)
	s := New(Connect)
	defer s.Close(t.Context())
	s.Local = func(_ context.Context, binDir, sql string) error {
		if os.Getuid() != 0 { // only root can be the user that the socket lets in
			c := w.operator(t, "postgres")
			_, err := c.Exec(t.Context(), sql)
			return err
		}
		cmd := w.command(t, "psql", "-Xqw", "-h", w.dir, "-p", strconv.Itoa(w.port), "-U", "backup", "-d", "postgres", "-v", "ON_ERROR_STOP=1")
		cmd.Stdin = strings.NewReader(sql)
		if out, err := cmd.CombinedOutput(); err != nil || strings.Contains(sql, "New") {
			return fmt.Errorf("%s: %w: %s", binDir, err, out)
		}
		return nil
	}
	var renewed []string
	for range 4 {
		obs := w.observed()
		cluster, _ := obs.Cluster.Get()
		cluster.Local = state.Local{Name: "db-0", Role: "primary", State: "running"}
		obs.Cluster = state.Value(cluster)
		obs.Workload = state.Value(state.Workload{
			Mount: state.Directory{Path: state.Mount}, Servers: []state.Server{{Major: 17, BinDir: w.bin}},
			Layer: state.Layer{Services: map[string]state.Service{state.ServiceName: {}}},
		})
		peer := obs.Secrets[obs.Unit.PeerSecret()]
		peer.Content["operator-password"], peer.Content["monitoring-password"] = "NewOperator's", "NewMonitoring"
		check(t, s.Observe(t.Context(), &obs))
		if wantRefused := len(renewed) == 0; obs.Refused != wantRefused {
			t.Fatalf("after %q the charm is refused: %t: %s", renewed, obs.Refused, obs.Users.Why())
		}
		var want state.Desired
		core.Member{}.Desire(obs, &want)
		core.Users{}.Desire(obs, &want)
		for _, step := range s.Diff(obs, want) {
			if r, ok := step.(RenewPassword); ok {
				renewed = append(renewed, r.Role)
			}
			check(t, s.Apply(t.Context(), step))
		}
	}
	if !slices.Equal(renewed, []string{"operator", "monitoring"}) {
		t.Errorf("it renewed %q", renewed)
	}
	for user, password := range map[string]state.Redacted{"operator": "NewOperator's", "monitoring": "NewMonitoring"} {
		if _, err := w.as(t, user, password, "postgres"); err != nil {
			t.Errorf("%s is refused: %v", user, err)
		}
	}
	w.noLogin(t, "operator", operatorPassword, "postgres", "password authentication failed")
	expect(t, open, "SELECT 'alive'", "alive")
}

func TestARenewalThatFailsSaysSo(t *testing.T) {
	t.Parallel()
	s := New(nil)
	s.Local = func(context.Context, string, string) error { return fmt.Errorf("psql failed") }
	err := s.Apply(t.Context(), RenewPassword{Role: "rewind", Password: "secret"})
	if err == nil || err.Error() != "cannot renew the password of role rewind: psql failed" {
		t.Errorf("the error is %v", err)
	}
}
