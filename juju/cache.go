package juju

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"

	"charmhub.io/postgresql-k8s/charm/state"
)

// cacheAge bounds how long a secret is believed without asking Juju. It is a
// net: Juju announces each new revision by a secret-changed event.
const cacheAge = time.Hour

// secretCache keeps secrets between dispatches, in memory-backed files that only
// root of the charm container can read. With Kubernetes as Juju's secret
// backend one secret-get takes 50 to 90 ms, as much as the whole rest of a
// dispatch. The cache goes with the container; a revision that Juju announces,
// and every write of ours, drops it. The zero value keeps nothing.
type secretCache struct {
	dir string
	now func() time.Time
}

func newSecretCache(unit state.Unit, now func() time.Time) secretCache {
	name := strings.NewReplacer("/", "-").Replace(fmt.Sprintf("postgresql-k8s-%s-%s", unit.ModelUUID, unit.Name))
	return secretCache{dir: filepath.Join(memoryDir(), name), now: now}
}

func (c secretCache) path(label string) string { return filepath.Join(c.dir, label+".json") }

// get returns the content of a secret when it was kept recently. Any doubt is a
// miss.
func (c secretCache) get(label string) (map[string]string, bool) {
	if c.dir == "" {
		return nil, false
	}
	info, err := os.Lstat(c.path(label))
	if err != nil || info.Mode() != 0o600 || c.now().Sub(info.ModTime()).Abs() > cacheAge {
		return nil, false
	}
	data, err := os.ReadFile(c.path(label))
	if err != nil {
		return nil, false
	}
	var content map[string]string
	if json.Unmarshal(data, &content) != nil || len(content) == 0 {
		return nil, false
	}
	return content, true
}

// put keeps a secret. It fails silently: the next dispatch then asks Juju.
func (c secretCache) put(label string, content map[string]string) {
	data, err := json.Marshal(content)
	if c.dir == "" || err != nil || os.MkdirAll(c.dir, 0o700) != nil {
		return
	}
	f, err := os.CreateTemp(c.dir, "new-*") // mode 0600
	if err != nil {
		return
	}
	_, err = f.Write(data)
	if closed := f.Close(); err != nil || closed != nil || os.Rename(f.Name(), c.path(label)) != nil {
		os.Remove(f.Name())
	}
}

// drop forgets a secret, or all of them.
func (c secretCache) drop(label string) {
	switch {
	case c.dir == "":
	case label == "":
		os.RemoveAll(c.dir)
	default:
		os.Remove(c.path(label))
	}
}
