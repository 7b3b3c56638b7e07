package main

import (
	"archive/zip"
	"bytes"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"slices"
	"testing"
	"time"

	"gopkg.in/yaml.v3"

	"charmhub.io/postgresql-k8s/tests/golden"
)

const charmcraft = `
type: charm
name: db
title: A database
summary: It keeps data.
description: |
  It keeps data.
platforms:
  ubuntu@22.04:amd64:
  ubuntu@24.04:amd64:
  ubuntu@24.04:arm64:
parts:
  dispatch:
    plugin: nil
links:
  website: https://example.com
assumes:
  - k8s-api
containers:
  db:
    resource: image
resources:
  image:
    type: oci-image
storage:
  data:
    type: filesystem
    location: /data
peers:
  peers:
    interface: peers
provides:
  database:
    interface: database
requires:
  s3:
    interface: s3
`

const optional = `
config:
  options:
    profile:
      type: string
      default: production
actions:
  backup:
    description: Make a backup.
`

func project(t *testing.T, text string) map[string]any {
	t.Helper()
	var p map[string]any
	if err := yaml.Unmarshal([]byte(text), &p); err != nil {
		t.Fatal(err)
	}
	return p
}

// What Juju reads is in golden files, with everything that it does not know left
// out.
func TestRender(t *testing.T) {
	t.Parallel()
	tests := []struct {
		name, text string
		files      []string
	}{
		{"a charm with options and actions has a file for each", charmcraft + optional,
			[]string{"actions.yaml", "config.yaml", "manifest.yaml", "metadata.yaml"}},
		{"a charm without them has none", charmcraft, []string{"manifest.yaml", "metadata.yaml"}},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			files, err := render(project(t, test.text), "amd64")
			if err != nil {
				t.Fatal(err)
			}
			if got := slices.Sorted(maps.Keys(files)); !slices.Equal(got, test.files) {
				t.Errorf("the files are %q, want %q", got, test.files)
			}
			for _, name := range test.files {
				golden.Equal(t, name, string(files[name]))
			}
		})
	}
}

func TestBases(t *testing.T) {
	t.Parallel()
	for arch, want := range map[string]string{
		"amd64": "[map[architectures:[amd64] channel:24.04 name:ubuntu] map[architectures:[amd64] channel:22.04 name:ubuntu]]",
		"arm64": "[map[architectures:[arm64] channel:24.04 name:ubuntu]]",
	} {
		all, err := bases(project(t, charmcraft), arch)
		if got := fmt.Sprint(all); err != nil || got != want {
			t.Errorf("the bases are %s (%v), want %s", got, err, want)
		}
	}
	tests := []struct{ name, text, arch string }{
		{"an architecture without a platform", charmcraft, "riscv64"},
		{"a project without platforms", "name: db\n", "amd64"},
		{"a platform without a base", "platforms:\n  amd64:\n", "amd64"},
		{"a platform without an architecture", "platforms:\n  ubuntu@24.04:\n", "amd64"},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			_, err := render(project(t, test.text), test.arch)
			if err == nil || err.Error() != "charmcraft.yaml has no platform for "+test.arch {
				t.Errorf("the error is %v", err)
			}
		})
	}
}

func TestArchive(t *testing.T) {
	t.Parallel()
	files := map[string][]byte{"metadata.yaml": []byte("name: db\n"), "dispatch": []byte("\x7fELF"), "LICENSE": bytes.Repeat([]byte("all rights "), 1000)}
	first, err := archive(files)
	if err != nil {
		t.Fatal(err)
	}
	for range 5 { // maps have no order
		again, err := archive(maps.Clone(files))
		if err != nil {
			t.Fatal(err)
		}
		if !bytes.Equal(first, again) {
			t.Fatal("the same files gave other bytes")
		}
	}

	r, err := zip.NewReader(bytes.NewReader(first), int64(len(first)))
	if err != nil {
		t.Fatal(err)
	}
	var names []string
	for _, f := range r.File {
		names = append(names, f.Name)
		mode := fs.FileMode(0o644)
		if f.Name == "dispatch" {
			mode = 0o755
		}
		if f.Mode() != mode {
			t.Errorf("%s has mode %v, want %v", f.Name, f.Mode(), mode)
		}
		if !f.Modified.Equal(time.Date(1980, 1, 1, 0, 0, 0, 0, time.UTC)) {
			t.Errorf("%s is of %v", f.Name, f.Modified)
		}
		if got := content(t, f); !bytes.Equal(got, files[f.Name]) {
			t.Errorf("%s holds %q", f.Name, got)
		}
	}
	if want := []string{"LICENSE", "dispatch", "metadata.yaml"}; !slices.Equal(names, want) {
		t.Errorf("it has %q, want %q", names, want)
	}
}

func content(t *testing.T, f *zip.File) []byte {
	t.Helper()
	r, err := f.Open()
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	data, err := io.ReadAll(r)
	if err != nil {
		t.Fatal(err)
	}
	return data
}
