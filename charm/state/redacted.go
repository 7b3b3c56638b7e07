package state

import "log/slog"

const redacted = "<redacted>"

// Redacted is a secret. It prints as "<redacted>" with every verb of package
// fmt, in logs and in JSON or YAML; Reveal is the one way to its content.
type Redacted string

// Reveal returns the secret itself.
func (r Redacted) Reveal() string { return string(r) }

// String implements fmt.Stringer.
func (r Redacted) String() string { return redacted }

// GoString implements fmt.GoStringer.
func (r Redacted) GoString() string { return redacted }

// LogValue implements slog.LogValuer.
func (r Redacted) LogValue() slog.Value { return slog.StringValue(redacted) }

// MarshalText implements encoding.TextMarshaler.
func (r Redacted) MarshalText() ([]byte, error) { return []byte(redacted), nil }
