package localmodel

import (
	"archive/zip"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"gopkg.in/yaml.v3"
)

// A Charm is a packed charm, or a directory with what one has inside.
type Charm struct {
	Path    string
	Meta    Metadata
	Options map[string]Option
	Actions map[string]ActionSpec
}

// Metadata is what the model reads of metadata.yaml.
type Metadata struct {
	Name       string                   `yaml:"name"`
	Containers map[string]ContainerMeta `yaml:"containers"`
	Storage    map[string]StorageMeta   `yaml:"storage"`
	Resources  map[string]ResourceMeta  `yaml:"resources"`
	Provides   map[string]EndpointMeta  `yaml:"provides"`
	Requires   map[string]EndpointMeta  `yaml:"requires"`
	Peers      map[string]EndpointMeta  `yaml:"peers"`
}

// ContainerMeta describes a workload container.
type ContainerMeta struct {
	Resource string `yaml:"resource"`
	Mounts   []struct {
		Storage  string `yaml:"storage"`
		Location string `yaml:"location"`
	} `yaml:"mounts"`
}

// StorageMeta describes a storage.
type StorageMeta struct {
	Type     string `yaml:"type"`
	Location string `yaml:"location"`
}

// ResourceMeta describes a resource, an image mostly.
type ResourceMeta struct {
	Type string `yaml:"type"`
}

// EndpointMeta describes one end that relations may have.
type EndpointMeta struct {
	Interface string `yaml:"interface"`
	Limit     int    `yaml:"limit"`
}

// Option is a config option.
type Option struct {
	Type    string `yaml:"type"`
	Default any    `yaml:"default"`
}

// ActionSpec describes an action.
type ActionSpec struct {
	Description string                `yaml:"description"`
	Params      map[string]ParamsSpec `yaml:"params"`
	Required    []string              `yaml:"required"`
	Additional  *bool                 `yaml:"additionalProperties"`
}

// ParamsSpec describes a parameter of an action.
type ParamsSpec struct {
	Type    string `yaml:"type"`
	Default any    `yaml:"default"`
}

// OpenCharm reads the descriptions in a charm.
func OpenCharm(path string) (*Charm, error) {
	c := &Charm{Path: path}
	err := c.inside(func(files fs.FS) error {
		var config struct {
			Options map[string]Option `yaml:"options"`
		}
		if err := readYAML(files, "metadata.yaml", &c.Meta); err != nil {
			return err
		}
		if err := readYAML(files, "config.yaml", &config); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
		if err := readYAML(files, "actions.yaml", &c.Actions); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
		c.Options = config.Options
		return nil
	})
	if err == nil && c.Meta.Name == "" {
		err = errors.New("metadata.yaml has no name")
	}
	if err != nil {
		return nil, fmt.Errorf("cannot read charm %s: %w", path, err)
	}
	return c, nil
}

// inside runs a function on the charm's files.
func (c *Charm) inside(read func(fs.FS) error) error {
	if info, err := os.Stat(c.Path); err != nil {
		return err
	} else if info.IsDir() {
		return read(os.DirFS(c.Path))
	}
	archive, err := zip.OpenReader(c.Path)
	if err != nil {
		return err
	}
	return errors.Join(read(archive), archive.Close())
}

func readYAML(files fs.FS, name string, into any) error {
	data, err := fs.ReadFile(files, name)
	if err != nil {
		return err
	}
	if err := yaml.Unmarshal(data, into); err != nil {
		return fmt.Errorf("cannot parse %s: %w", name, err)
	}
	return nil
}

// Unpack writes the charm's files into a directory, with their modes.
func (c *Charm) Unpack(dir string) error {
	err := c.inside(func(files fs.FS) error {
		return fs.WalkDir(files, ".", func(name string, entry fs.DirEntry, err error) error {
			if err != nil {
				return err
			}
			to := filepath.Join(dir, name)
			if entry.IsDir() {
				return os.MkdirAll(to, 0o755)
			}
			return copyFile(files, name, to)
		})
	})
	if err != nil {
		return fmt.Errorf("cannot unpack charm: %w", err)
	}
	return nil
}

func copyFile(files fs.FS, name, to string) error {
	in, err := files.Open(name)
	if err != nil {
		return err
	}
	defer in.Close()
	info, err := in.Stat()
	if err != nil {
		return err
	}
	out, err := os.OpenFile(to, os.O_CREATE|os.O_TRUNC|os.O_WRONLY, info.Mode().Perm())
	if err != nil {
		return err
	}
	_, err = io.Copy(out, in)
	return errors.Join(err, out.Close())
}

// A role is the side of a relation that an endpoint is.
type role string

const (
	provider role = "provider"
	requirer role = "requirer"
	peer     role = "peer"
)

// endpoint finds an endpoint by name.
func (m Metadata) endpoint(name string) (EndpointMeta, role, bool) {
	for _, side := range []struct {
		endpoints map[string]EndpointMeta
		role      role
	}{{m.Provides, provider}, {m.Requires, requirer}, {m.Peers, peer}} {
		if found, ok := side.endpoints[name]; ok {
			return found, side.role, true
		}
	}
	return EndpointMeta{}, "", false
}

// storageLocation is where a storage is mounted in the charm container.
func (m Metadata) storageLocation(id string) string {
	name, number, _ := strings.Cut(id, "/")
	if at := m.Storage[name].Location; at != "" {
		return at
	}
	return "/var/lib/juju/storage/" + name + "/" + number
}
