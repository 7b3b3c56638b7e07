// Package bench measures what many relations cost the charm: the packed charm in
// the local model, with real Pebble, Patroni and PostgreSQL.
//
//	go test -tags localmodel -v ./tests/bench
//
// It asserts nothing about time: it prints tables.
package bench
