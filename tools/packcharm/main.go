// Command packcharm makes a .charm from charmcraft.yaml, without charmcraft: a
// zip with the metadata that Juju reads, and the dispatch binary. The same tree
// gives the same bytes.
//
//	packcharm [-arch amd64|arm64] [-o FILE] [DIRECTORY]
package main

import (
	"archive/zip"
	"bytes"
	"errors"
	"flag"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"gopkg.in/yaml.v3"
)

func main() {
	arch := flag.String("arch", "amd64", "architecture to build for: amd64 or arm64")
	out := flag.String("o", "", "file to write (default dist/NAME_ARCH.charm)")
	flag.Parse()
	dir := "."
	if flag.NArg() > 0 {
		dir = flag.Arg(0)
	}
	path, err := pack(dir, *arch, *out)
	if err != nil {
		fmt.Fprintln(os.Stderr, "packcharm:", err)
		os.Exit(1)
	}
	fmt.Println(path)
}

// metadataKeys are the keys of charmcraft.yaml that metadata.yaml has, too.
var metadataKeys = []string{
	"name", "summary", "description", "assumes", "containers", "resources", "storage",
	"peers", "provides", "requires", "charm-user", "extra-bindings", "subordinate", "terms",
}

func pack(dir, arch, out string) (string, error) {
	data, err := os.ReadFile(filepath.Join(dir, "charmcraft.yaml"))
	if err != nil {
		return "", err
	}
	var project map[string]any
	if err := yaml.Unmarshal(data, &project); err != nil {
		return "", fmt.Errorf("cannot parse charmcraft.yaml: %w", err)
	}
	files, err := render(project, arch)
	if err != nil {
		return "", err
	}
	if files["dispatch"], err = build(dir, arch); err != nil {
		return "", err
	}
	for _, name := range []string{"LICENSE", "README.md"} { // a test's charm may have none
		document, err := os.ReadFile(filepath.Join(dir, name))
		if err == nil {
			files[name] = document
		} else if !errors.Is(err, fs.ErrNotExist) {
			return "", err
		}
	}
	if out == "" {
		out = filepath.Join(dir, "dist", fmt.Sprintf("%s_%s.charm", project["name"], arch))
	}
	archive, err := archive(files)
	if err != nil {
		return "", err
	}
	if err := os.MkdirAll(filepath.Dir(out), 0o755); err != nil {
		return "", err
	}
	// Whoever is killed here leaves the old file or the new one.
	if err := os.WriteFile(out+".new", archive, 0o644); err != nil {
		return "", err
	}
	return out, os.Rename(out+".new", out)
}

// render makes the YAML files that Juju reads from the charm's one description.
func render(project map[string]any, arch string) (map[string][]byte, error) {
	metadata := map[string]any{}
	for _, key := range metadataKeys {
		if value, ok := project[key]; ok {
			metadata[key] = value
		}
	}
	if title, ok := project["title"]; ok {
		metadata["display-name"] = title
	}
	bases, err := bases(project, arch)
	if err != nil {
		return nil, err
	}
	documents := map[string]any{
		"metadata.yaml": metadata,
		"manifest.yaml": map[string]any{
			"charmcraft-version": "0",
			"bases":              bases,
		},
	}
	if config, ok := project["config"]; ok {
		documents["config.yaml"] = config
	}
	if actions, ok := project["actions"]; ok {
		documents["actions.yaml"] = actions
	}
	files := map[string][]byte{}
	for name, document := range documents {
		if files[name], err = yaml.Marshal(document); err != nil {
			return nil, fmt.Errorf("cannot encode %s: %w", name, err)
		}
	}
	return files, nil
}

// bases reads the platforms, such as "ubuntu@24.04:amd64", for the architecture, the
// newest first: one charm is for all of them, where charmcraft makes one for each.
func bases(project map[string]any, arch string) ([]any, error) {
	platforms, _ := project["platforms"].(map[string]any)
	var all []any
	for _, platform := range slices.Backward(slices.Sorted(maps.Keys(platforms))) {
		system, forArch, _ := strings.Cut(platform, ":")
		name, channel, ok := strings.Cut(system, "@")
		if ok && forArch == arch {
			all = append(all, map[string]any{"name": name, "channel": channel, "architectures": []string{arch}})
		}
	}
	if len(all) == 0 {
		return nil, fmt.Errorf("charmcraft.yaml has no platform for %s", arch)
	}
	return all, nil
}

// build compiles the dispatch binary as the part in charmcraft.yaml does.
func build(dir, arch string) ([]byte, error) {
	tmp, err := os.MkdirTemp("", "packcharm-*")
	if err != nil {
		return nil, err
	}
	defer os.RemoveAll(tmp)
	binary := filepath.Join(tmp, "dispatch")
	cmd := exec.Command("go", "build", "-trimpath", "-buildvcs=false", "-ldflags", "-s -w", "-o", binary, ".")
	cmd.Dir = dir
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0", "GOOS=linux", "GOARCH="+arch)
	cmd.Stderr = os.Stderr
	if err := cmd.Run(); err != nil {
		return nil, fmt.Errorf("cannot build dispatch: %w", err)
	}
	return os.ReadFile(binary)
}

// archive zips the files in the order of their names, all of the same age.
func archive(files map[string][]byte) ([]byte, error) {
	var buf bytes.Buffer
	w := zip.NewWriter(&buf)
	names := make([]string, 0, len(files))
	for name := range files {
		names = append(names, name)
	}
	slices.Sort(names)
	for _, name := range names {
		header := &zip.FileHeader{
			Name: name, Method: zip.Deflate,
			Modified: time.Date(1980, 1, 1, 0, 0, 0, 0, time.UTC), // the oldest that a zip knows
		}
		mode := fs.FileMode(0o644)
		if name == "dispatch" {
			mode = 0o755 // Juju keeps the mode when it unpacks
		}
		header.SetMode(mode)
		f, err := w.CreateHeader(header)
		if err != nil {
			return nil, err
		}
		if _, err := f.Write(files[name]); err != nil {
			return nil, err
		}
	}
	if err := w.Close(); err != nil {
		return nil, err
	}
	return buf.Bytes(), nil
}
