// Package golden compares what a test rendered with a file that people read and
// review. In a package that has such files, go test -update writes them anew.
package golden

import (
	"errors"
	"flag"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

var update = flag.Bool("update", false, "write the golden files anew")

// Equal fails the test unless the file testdata/name holds exactly got.
func Equal(t testing.TB, name, got string) {
	t.Helper()
	File(t, filepath.Join("testdata", name), got)
}

// File is Equal for a file at any path.
func File(t testing.TB, path, got string) {
	t.Helper()
	if *update {
		if err := write(path, got); err != nil {
			t.Fatal(err)
		}
		return
	}
	want, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		t.Fatalf("there is no %s; go test -update makes it of:\n%s", path, got)
	}
	if err != nil {
		t.Fatal(err)
	}
	if got != string(want) {
		t.Errorf("%s is not what was rendered:\n%s", path, Diff(string(want), got))
	}
}

func write(path, content string) error {
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return err
	}
	return os.WriteFile(path, []byte(content), 0o644)
}

// Diff shows where two texts part: what they begin and end with alike is left
// out, but for a line on either side.
func Diff(want, got string) string {
	w, g := strings.Split(want, "\n"), strings.Split(got, "\n")
	head := 0
	for head < min(len(w), len(g)) && w[head] == g[head] {
		head++
	}
	tail := 0
	for tail < min(len(w), len(g))-head && w[len(w)-1-tail] == g[len(g)-1-tail] {
		tail++
	}
	var out strings.Builder
	line := func(sign, text string) { fmt.Fprintf(&out, "%s %s\n", sign, text) }
	fmt.Fprintf(&out, "from line %d\n", head+1)
	if head > 0 {
		line(" ", w[head-1])
	}
	for _, text := range w[head : len(w)-tail] {
		line("-", text)
	}
	for _, text := range g[head : len(g)-tail] {
		line("+", text)
	}
	if tail > 0 {
		line(" ", w[len(w)-tail])
	}
	return out.String()
}
