// Package state is the vocabulary of the house: what was observed, what is
// desired, and what stands between the two. It does no I/O and imports only the
// standard library (and the config table), so that every room can speak it.
package state
