// Package kube is the system through which the charm sees and changes the
// Kubernetes objects of its application, in its own namespace only. It is the
// only user of client-go.
package kube
