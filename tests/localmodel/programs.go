package localmodel

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
)

// Programs are the two programs that pods need.
type Programs struct{ Inpod, Pebble string }

// BuildPrograms builds what is run in pods into a directory: static, since it
// must run in any image. It needs the Go tool, and to be called in the module.
func BuildPrograms(dir string) (Programs, error) {
	p := Programs{Inpod: filepath.Join(dir, "inpod"), Pebble: filepath.Join(dir, "pebble")}
	root, err := goTool("list", "-m", "-f", "{{.Dir}}", "charmhub.io/postgresql-k8s")
	if err != nil {
		return p, err
	}
	for _, program := range []struct{ to, module, source string }{
		{p.Inpod, ".", "./tests/localmodel/cmd/inpod"},
		{p.Pebble, "tests/localmodel/pebble", "github.com/canonical/pebble/cmd/pebble"},
	} {
		module := filepath.Join(root, program.module)
		if _, err := goTool("-C", module, "build", "-trimpath", "-buildvcs=false", "-ldflags", "-s -w", "-o", program.to, program.source); err != nil {
			return p, err
		}
	}
	return p, nil
}

func goTool(args ...string) (string, error) {
	cmd := exec.Command("go", args...)
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
	out, err := cmd.Output()
	var exit *exec.ExitError
	switch {
	case errors.Is(err, exec.ErrNotFound):
		return "", errors.New("cannot build what pods need: command go not found")
	case errors.As(err, &exit):
		return "", fmt.Errorf("cannot build what pods need: go %s: %s", strings.Join(args, " "), exit.Stderr)
	}
	return strings.TrimSpace(string(out)), err
}
