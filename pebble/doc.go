// Package pebble is the system through which the charm sees and changes the
// workload container: files, the plan and its services and checks.
package pebble
