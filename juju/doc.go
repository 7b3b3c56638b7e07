// Package juju is the system through which the charm sees and changes its Juju
// model. It has the unit agent run hook tools, with JSON in both directions; what
// is secret travels through standard input and private files and never through a
// command line.
//
// Juju commits most writes together when the hook exits 0 and discards them
// otherwise, so this system is applied last.
package juju
