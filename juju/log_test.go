package juju

import (
	"bytes"
	"context"
	"errors"
	"log/slog"
	"strings"
	"testing"
	"unicode/utf8"

	"charmhub.io/postgresql-k8s/charm/state"
)

// logTo returns a logger and what it writes: juju-log as "LEVEL line", and the
// hook's standard output.
func logTo(fails error) (log *slog.Logger, jujuLog *[]string, out *bytes.Buffer) {
	jujuLog, out = &[]string{}, &bytes.Buffer{}
	tools := Tools{Run: func(ctx context.Context, tool string, args []string, _ []byte) ([]byte, error) {
		if tool != "juju-log" || len(args) != 4 || args[0] != "-l" || args[2] != "--" {
			return nil, errors.New("not a call of juju-log: " + tool + " " + strings.Join(args, " "))
		}
		if ctx.Err() != nil {
			return nil, ctx.Err()
		}
		*jujuLog = append(*jujuLog, args[1]+" "+args[3])
		return nil, fails
	}}
	return slog.New(NewLogHandler(tools, out)), jujuLog, out
}

func TestLogHandler(t *testing.T) {
	t.Parallel()
	tests := []struct {
		name string
		log  func(*slog.Logger)
		juju string // "" when it goes to standard output
		out  string
	}{
		{"debug costs no process", func(l *slog.Logger) { l.Debug("looked", "at", "pod") }, "", "looked at=pod\n"},
		{"info goes to the model's log", func(l *slog.Logger) { l.Info("replan") }, "INFO replan", ""},
		{"a level between info and warning is info", func(l *slog.Logger) { l.Log(t.Context(), slog.LevelInfo+1, "x") }, "INFO x", ""},
		{"a warning is Juju's WARNING", func(l *slog.Logger) { l.Warn("careful") }, "WARNING careful", ""},
		{"an error is an error", func(l *slog.Logger) { l.Error("failed", "error", errors.New("no")) }, "ERROR failed error=no", ""},
		{"what is beyond an error is one", func(l *slog.Logger) { l.Log(t.Context(), slog.LevelError+4, "x") }, "ERROR x", ""},
		{"values of all kinds are written", func(l *slog.Logger) { l.Info("m", "n", 7, "b", true, "f", 1.5) }, "INFO m n=7 b=true f=1.5", ""},
		{"values that would not read as one are quoted",
			func(l *slog.Logger) {
				l.Info("m", "space", "a b", "quote", `"`, "equals", "a=b", "line", "a\nb", "empty", "")
			},
			`INFO m space="a b" quote="\"" equals="a=b" line="a\nb" empty=""`, ""},
		{"a message is not quoted", func(l *slog.Logger) { l.Info("label pod x: map[a:b]") }, "INFO label pod x: map[a:b]", ""},
		{"attributes of the logger come first", func(l *slog.Logger) { l.With("a", 1).With("b", 2).Info("m", "c", 3) }, "INFO m a=1 b=2 c=3", ""},
		{"a group goes before the keys that follow it",
			func(l *slog.Logger) { l.With("a", 1).WithGroup("g").With("b", 2).WithGroup("h").Info("m", "c", 3) },
			"INFO m a=1 g.b=2 g.h.c=3", ""},
		{"a secret is redacted", func(l *slog.Logger) { l.Info("m", "password", state.Redacted("hunter2")) }, "INFO m password=<redacted>", ""},
		{"a secret in a group is redacted",
			func(l *slog.Logger) { l.Info("m", slog.Group("g", "password", state.Redacted("hunter2"))) },
			`INFO m g="[password=<redacted>]"`, ""},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			log, jujuLog, out := logTo(nil)
			test.log(log)
			if got := strings.Join(*jujuLog, "\n"); got != test.juju {
				t.Errorf("juju-log got\n%s, want\n%s", got, test.juju)
			}
			if out.String() != test.out {
				t.Errorf("standard output got %q, want %q", out, test.out)
			}
		})
	}
}

func TestALoggerWithMoreLeavesTheFirstAlone(t *testing.T) {
	t.Parallel()
	log, jujuLog, _ := logTo(nil)
	with := log.With("a", 1)
	with.With("b", 2).Info("first")
	with.With("c", 3).Info("second")
	if want := "INFO first a=1 b=2\nINFO second a=1 c=3"; strings.Join(*jujuLog, "\n") != want {
		t.Errorf("juju-log got\n%s, want\n%s", strings.Join(*jujuLog, "\n"), want)
	}
}

func TestALineIsNeverLongerThanAnArgumentMayBe(t *testing.T) {
	t.Parallel()
	log, jujuLog, _ := logTo(nil)
	log.Info("x" + strings.Repeat("ä", 100_000))
	line := strings.TrimPrefix((*jujuLog)[0], "INFO ")
	if len(line) > maxLog || len(line) < maxLog-utf8.UTFMax {
		t.Errorf("the line has %d bytes, want %d", len(line), maxLog)
	}
	if !utf8.ValidString(line) {
		t.Error("a character was cut in two")
	}
}

func TestWhatJujuLogRefusesIsPrinted(t *testing.T) {
	t.Parallel()
	log, _, out := logTo(errors.New("exit status 1"))
	log.Warn("careful", "a", 1)
	if got := out.String(); got != "careful a=1\n" {
		t.Errorf("standard output got %q", got)
	}
}

func TestADispatchThatIsOverStillLogs(t *testing.T) {
	t.Parallel()
	log, jujuLog, _ := logTo(nil)
	over, cancel := context.WithCancel(t.Context())
	cancel()
	log.ErrorContext(over, "out of time")
	if len(*jujuLog) != 1 {
		t.Error("the last words are lost")
	}
}
