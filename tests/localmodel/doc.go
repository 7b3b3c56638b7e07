// Package localmodel is a Juju model on this machine. It keeps applications,
// units, relations, secrets, storages, configuration and leadership, runs the
// charm's dispatch as Juju's unit agents do, and answers its hook tools with
// Juju's semantics: what a hook writes is committed when it exits 0, and
// forgotten when it does not.
//
// Units run in pods. Those of a Cluster are made of Linux namespaces, with real
// Pebbles, images, addresses, names and a small Kubernetes API around them; those
// of Processes are plain processes, enough for charms without a workload.
//
//	Model ── Application ── Unit (its agent) ── dispatch(Hook) ── session (tools, commit)
//	   │                        │
//	   └── Relation, Secret,    └── Pod ── charm container, workload containers
//	       Storage, Action
//
// The README says how to use it and where it differs from Juju.
package localmodel
