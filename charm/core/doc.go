// Package core has the handlers of the database itself: its passwords, its place
// in Kubernetes, its member of the cluster and its own users.
package core
