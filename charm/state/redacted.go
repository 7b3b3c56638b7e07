package state

import (
	"fmt"
	"io"
	"log/slog"
)

const redacted = "<redacted>"

// Redacted is a secret. It prints as "<redacted>" with every verb of package
// fmt that go vet allows, in logs and in JSON or YAML; Reveal is the one way to
// its content. A struct must hold it in an exported field: package fmt does not
// ask the values of others how they print.
type Redacted string

// Reveal returns the secret itself.
func (r Redacted) Reveal() string { return string(r) }

// String implements fmt.Stringer.
func (r Redacted) String() string { return redacted }

// Format implements fmt.Formatter: a Stringer is not asked for every verb.
func (r Redacted) Format(f fmt.State, _ rune) { _, _ = io.WriteString(f, redacted) }

// LogValue implements slog.LogValuer.
func (r Redacted) LogValue() slog.Value { return slog.StringValue(redacted) }

// MarshalText implements encoding.TextMarshaler.
func (r Redacted) MarshalText() ([]byte, error) { return []byte(redacted), nil }
