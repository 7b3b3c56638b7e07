package juju

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"log/slog"
	"slices"
	"strings"
)

// maxLog keeps a record well below the limit of one argument, 128 KiB.
const maxLog = 64 << 10

// LogHandler writes records to the model's log through juju-log. Debug records
// go to out instead: the unit agent logs what a hook prints at DEBUG, and a
// line there costs no process.
type LogHandler struct {
	tools  Tools
	out    io.Writer
	prefix []slog.Attr // their keys have their groups
	group  string
}

// NewLogHandler returns a handler; out is the hook's standard output.
func NewLogHandler(tools Tools, out io.Writer) *LogHandler {
	return &LogHandler{tools: tools, out: out}
}

// Enabled implements slog.Handler: the model's logging-config does the choosing.
func (h *LogHandler) Enabled(context.Context, slog.Level) bool { return true }

// Handle implements slog.Handler.
func (h *LogHandler) Handle(ctx context.Context, r slog.Record) error {
	line := h.text(r)
	if r.Level < slog.LevelInfo {
		_, err := fmt.Fprintln(h.out, line)
		return err
	}
	if err := h.tools.Log(context.WithoutCancel(ctx), level(r.Level), line); err != nil {
		// Better in the wrong place than nowhere.
		_, err = fmt.Fprintln(h.out, line)
		return err
	}
	return nil
}

// WithAttrs implements slog.Handler.
func (h *LogHandler) WithAttrs(attrs []slog.Attr) slog.Handler {
	clone := *h
	clone.prefix = slices.Clone(h.prefix)
	for _, a := range attrs {
		a.Key = h.group + a.Key
		clone.prefix = append(clone.prefix, a)
	}
	return &clone
}

// WithGroup implements slog.Handler.
func (h *LogHandler) WithGroup(name string) slog.Handler {
	clone := *h
	clone.group = h.group + name + "."
	return &clone
}

// text is the message and its attributes, as slog's TextHandler writes them.
func (h *LogHandler) text(r slog.Record) string {
	var buf bytes.Buffer
	buf.WriteString(r.Message)
	write := func(group string, a slog.Attr) {
		value := a.Value.Resolve().String()
		if strings.ContainsAny(value, " \"=\n") || value == "" {
			value = fmt.Sprintf("%q", value)
		}
		fmt.Fprintf(&buf, " %s%s=%s", group, a.Key, value)
	}
	for _, a := range h.prefix {
		write("", a)
	}
	r.Attrs(func(a slog.Attr) bool { write(h.group, a); return true })
	if buf.Len() > maxLog {
		buf.Truncate(maxLog)
	}
	return strings.ToValidUTF8(buf.String(), "") // a character may be cut
}

func level(l slog.Level) string {
	switch {
	case l >= slog.LevelError:
		return "ERROR"
	case l >= slog.LevelWarn:
		return "WARNING"
	default:
		return "INFO"
	}
}
