package state

import "fmt"

// Known is a fact that may not have been observed. Its zero value is unknown,
// and unknown is never the same as empty: a diff against an unknown gives no
// steps, so that an outage of something we read cannot wipe something we write.
type Known[T any] struct {
	value T
	ok    bool
	why   string
}

// Value is a fact that was observed.
func Value[T any](v T) Known[T] { return Known[T]{value: v, ok: true} }

// Unknown is a fact that could not be observed; why is for people and carries
// no secret.
func Unknown[T any](why string) Known[T] { return Known[T]{why: why} }

// Get returns the fact and whether it is known.
func (k Known[T]) Get() (T, bool) { return k.value, k.ok }

// Why tells why the fact is unknown.
func (k Known[T]) Why() string { return k.why }

// Format implements fmt.Formatter: the value prints as it does alone, so that
// what is redacted stays so.
func (k Known[T]) Format(f fmt.State, verb rune) {
	if !k.ok {
		fmt.Fprintf(f, "unknown: %s", k.why)
		return
	}
	fmt.Fprintf(f, fmt.FormatString(f, verb), k.value)
}
