// Package sim is a simulated world: a Juju model, a Kubernetes namespace, workload
// containers, a Patroni cluster and a database, all in memory. The charm's own
// loop, handlers and diffs live random lives in it: events in any order, leaders
// that change, crashes after any step, commits that Juju refuses.
package sim
