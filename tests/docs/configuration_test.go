package docs

import (
	"fmt"
	"strings"
	"testing"

	"charmhub.io/postgresql-k8s/charm/config"
)

// other is a value of each option that is not its default, for the example.
var other = map[string]string{
	"client-endpoints":             "service",
	"experimental_max_connections": "400",
	"profile":                      "testing",
	"profile_limit_memory":         "2048",
	"synchronous_mode_strict":      "false",
	"synchronous_node_count":       "all",
}

func TestConfiguration(t *testing.T) {
	t.Parallel()
	p := newPage("Configuration", "charm/config")
	p.text("`juju config postgresql-k8s` lists the options and their values, `juju config postgresql-k8s --reset profile` takes one " +
		"back to its default. A value that is not allowed blocks the units, which say what is; the servers go on as they are.")
	for _, o := range config.Options {
		if other[o.Name] == "" {
			t.Errorf("there is no example for the option %s", o.Name)
		}
		p.line("## %s", o.Name)
		p.line("")
		p.text("%s", o.Description)
		p.line("| type | default | allowed |\n|---|---|---|")
		p.line("| %s | %s | %s |", o.Type, byDefault(o.Default), allowed(o))
		p.line("")
		p.block("shell", fmt.Sprintf("juju config postgresql-k8s %s=%s", o.Name, other[o.Name]))
	}
	p.save(t, "configuration.md")
}

// allowed says what an option may be.
func allowed(o config.Option) string {
	switch {
	case o.Type == "boolean":
		return "`true`, `false`"
	case o.Type == "int":
		return fmt.Sprintf("%d to %d", o.Min, o.Max)
	}
	text := "`" + strings.Join(o.Allowed, "`, `") + "`"
	if o.OrCount {
		text += fmt.Sprintf(", or a number from 1 to %d", o.Max)
	}
	return text
}
