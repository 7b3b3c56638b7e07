package juju

import (
	"maps"
	"os"
	"path/filepath"
	"testing"
	"time"

	"charmhub.io/postgresql-k8s/charm/state"
)

// newTestCache is an empty cache, for the dispatches of a test to share.
func newTestCache(t *testing.T) secretCache {
	return secretCache{dir: filepath.Join(t.TempDir(), "secrets"), now: time.Now}
}

func TestSecretCache(t *testing.T) {
	t.Parallel()
	content := map[string]string{"password": "hunter2"}
	tests := []struct {
		name   string
		change func(*secretCache)
		hit    bool
	}{
		{"what was put is there", func(*secretCache) {}, true},
		{"what was put again is there", func(c *secretCache) { c.put("label", content) }, true},
		{"what was dropped is not", func(c *secretCache) { c.drop("label") }, false},
		{"when all is dropped it is not", func(c *secretCache) { c.drop("") }, false},
		{"when another is dropped it is", func(c *secretCache) { c.drop("other") }, true},
		{"just below the age it is there", func(c *secretCache) { c.now = after(cacheAge - time.Minute) }, true},
		{"beyond the age it is not", func(c *secretCache) { c.now = after(cacheAge + time.Minute) }, false},
		{"a file from the future is doubtful", func(c *secretCache) { c.now = after(-cacheAge - time.Minute) }, false},
		{"a file that others may read is not ours", func(c *secretCache) { must(os.Chmod(c.path("label"), 0o640)) }, false},
		{"a symbolic link is not ours", func(c *secretCache) {
			must(os.Rename(c.path("label"), c.path("elsewhere")))
			must(os.Symlink(c.path("elsewhere"), c.path("label")))
		}, false},
		{"a directory is not ours", func(c *secretCache) {
			must(os.Remove(c.path("label")))
			must(os.Mkdir(c.path("label"), 0o600))
		}, false},
		{"a file that was cut is doubtful", func(c *secretCache) { must(os.Truncate(c.path("label"), 5)) }, false},
		{"an empty secret is doubtful", func(c *secretCache) { c.put("label", nil) }, false},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			cache := newTestCache(t)
			cache.put("label", content)
			test.change(&cache)
			got, hit := cache.get("label")
			if hit != test.hit {
				t.Errorf("a hit is %t, want %t", hit, test.hit)
			}
			if hit && !maps.Equal(got, content) {
				t.Errorf("it holds %v", got)
			}
		})
	}
}

func after(d time.Duration) func() time.Time { return func() time.Time { return time.Now().Add(d) } }

func must(err error) {
	if err != nil {
		panic(err)
	}
}

func TestTheCacheIsPrivate(t *testing.T) {
	t.Parallel()
	cache := newTestCache(t)
	cache.put("label", map[string]string{"password": "hunter2"})
	entries, err := os.ReadDir(cache.dir)
	if err != nil || len(entries) != 1 {
		t.Fatalf("the directory has %v, %v; want one file", entries, err)
	}
	for path, want := range map[string]os.FileMode{cache.dir: os.ModeDir | 0o700, cache.path("label"): 0o600} {
		info, err := os.Stat(path)
		if err != nil {
			t.Fatal(err)
		}
		if info.Mode() != want {
			t.Errorf("%s has mode %v, want %v", filepath.Base(path), info.Mode(), want)
		}
	}
}

func TestACacheThatCannotBeWrittenIsOnlyEmpty(t *testing.T) {
	t.Parallel()
	cache := newTestCache(t)
	must(os.WriteFile(cache.dir, nil, 0o600)) // a file where the directory should be
	cache.put("label", map[string]string{"password": "hunter2"})
	if _, hit := cache.get("label"); hit {
		t.Error("there is a hit")
	}
}

func TestUnitsDoNotShareACache(t *testing.T) {
	t.Parallel()
	dirs := map[string]bool{}
	for _, unit := range []state.Unit{{ModelUUID: "a", Name: "db/0"}, {ModelUUID: "a", Name: "db/1"}, {ModelUUID: "b", Name: "db/0"}} {
		dirs[newSecretCache(unit, time.Now).dir] = true
	}
	if len(dirs) != 3 {
		t.Errorf("three units have the directories %v", dirs)
	}
}
