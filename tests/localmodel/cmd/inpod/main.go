// Command inpod is the model's part inside a pod. Called by the name of a hook
// tool it is that tool; called as "inpod init" it is the first process of a
// container: it makes the container's root and becomes the real entrypoint.
package main

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"

	"charmhub.io/postgresql-k8s/tests/localmodel/hooktool"
	"charmhub.io/postgresql-k8s/tests/localmodel/node/container"
)

func main() {
	name := filepath.Base(os.Args[0])
	switch {
	case slices.Contains(hooktool.Names, name):
		os.Exit(hooktool.Call(name, os.Args[1:], os.Stdin, os.Stdout, os.Stderr))
	case len(os.Args) == 3 && os.Args[1] == "init":
		fmt.Fprintln(os.Stderr, container.Init(os.Args[2]))
		os.Exit(1)
	default:
		fmt.Fprintf(os.Stderr, "%s: neither a hook tool nor inpod init\n", name)
		os.Exit(2)
	}
}
