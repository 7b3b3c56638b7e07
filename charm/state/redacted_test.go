package state_test

import (
	"bytes"
	"encoding/json"
	"fmt"
	"log/slog"
	"strings"
	"testing"

	"gopkg.in/yaml.v3"

	"charmhub.io/postgresql-k8s/charm/state"
)

const secret = "hunter2"

// holder has secrets in all the places that a struct of ours has them.
type holder struct {
	Field state.Redacted
	Map   map[string]state.Redacted
	Slice []state.Redacted
	Known state.Known[state.Passwords]
}

func holding(r state.Redacted) holder {
	return holder{
		Field: r, Map: map[string]state.Redacted{"key": r}, Slice: []state.Redacted{r},
		Known: state.Value(state.Passwords{Operator: r}),
	}
}

func TestRedactedNeverPrints(t *testing.T) {
	t.Parallel()
	r := state.Redacted(secret)
	values := map[string]any{
		"the secret alone":              r,
		"a pointer to a struct with it": &holder{Field: r},
		"a struct with it":              holding(r),
		"the known passwords":           state.Value(state.Passwords{REST: r}),
		"a known secret":                state.Value(r),
		"a file":                        state.File{Path: "/f", Content: r},
		"a role":                        state.Role{Name: "r", Password: r, Verifier: r},
		"what is desired":               state.Desired{Files: []state.File{{Content: r}}, Patroni: state.Value(state.Patroni{Passwords: state.Passwords{REST: r}})},
		"what was observed":             state.Observed{Secrets: map[string]state.Secret{"s": {Content: map[string]state.Redacted{"k": r}}}},
	}
	verbs := []string{"%v", "%+v", "%#v", "%s", "%q", "%#q", "%x", "%X", "% x", "%d", "%t", "%e", "%c", "%U", "%10s", "%.3s"}
	for name, value := range values {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			for _, verb := range verbs {
				hidden(t, verb, fmt.Sprintf(verb, value))
			}
			hidden(t, "Sprint", fmt.Sprint(value))
			hidden(t, "Errorf", fmt.Errorf("cannot use %v", value).Error())
			hidden(t, "slog as text", logged(value, func(b *bytes.Buffer) slog.Handler { return slog.NewTextHandler(b, nil) }))
			hidden(t, "slog as JSON", logged(value, func(b *bytes.Buffer) slog.Handler { return slog.NewJSONHandler(b, nil) }))
			inJSON, err := json.Marshal(value)
			if err != nil {
				t.Error(err)
			}
			hidden(t, "JSON", string(inJSON))
			inYAML, err := yaml.Marshal(value)
			if err != nil {
				t.Error(err)
			}
			hidden(t, "YAML", string(inYAML))
		})
	}
}

func logged(value any, handler func(*bytes.Buffer) slog.Handler) string {
	var buf bytes.Buffer
	log := slog.New(handler(&buf))
	log.With("with", value).Info("message", "value", value, slog.Group("group", "value", value))
	return buf.String()
}

// hidden fails the test when the text shows the secret, plainly or in the
// numbers of its bytes.
func hidden(t *testing.T, how, text string) {
	t.Helper()
	for _, form := range []string{
		secret, secret[:3] + " ", fmt.Sprintf("%x", secret), fmt.Sprintf("%X", secret), fmt.Sprintf("% x", secret), fmt.Sprint([]byte(secret)),
	} {
		if strings.Contains(text, form) {
			t.Errorf("%s shows the secret: %s", how, text)
			return
		}
	}
}

func TestRedactedSaysThatItIsThere(t *testing.T) {
	t.Parallel()
	r := state.Redacted(secret)
	for how, got := range map[string]string{
		"%v":          fmt.Sprintf("%v", r),
		"%d":          fmt.Sprintf("%d", r),
		"String":      r.String(),
		"in a struct": strings.Trim(fmt.Sprintf("%v", struct{ R state.Redacted }{r}), "{}"),
	} {
		if got != "<redacted>" {
			t.Errorf("%s prints %q", how, got)
		}
	}
	if r.Reveal() != secret {
		t.Error("Reveal does not return the secret")
	}
}
