// Package house tests the rules of the house that no compiler knows: who may
// import whom, what rooms may be called, and that what is exported is explained.
package house

import (
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"maps"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
)

const module = "charmhub.io/postgresql-k8s"

// A floor tells what the rooms that match its pattern may import beyond the
// standard library, and why no more. A pattern or an import that ends in /...
// has all that is below it, too. Those of this module are written without its
// name. Tests and what is below tests/ may see everything.
type floor struct {
	rooms   []string
	imports []string
	why     string
}

var (
	vocabulary = []string{"charm/state", "charm/config"}
	systems    = []string{"juju", "pebble", "patroni", "postgres", "kube"}
	handlers   = []string{"charm/core", "relations/...", "actions/..."}
)

// floors are those of charm/doc.go; the first that matches a room is its.
var floors = []floor{
	{[]string{"charm/config"}, nil,
		"the options are a table: whoever reads it should not have to know anything else"},
	{[]string{"charm/state"}, []string{"charm/config"},
		"every room speaks the vocabulary, so that what it imported all would import"},
	{[]string{"juju"}, vocabulary,
		"the hook tools are processes that speak JSON: the standard library is enough"},
	{[]string{"pebble"}, with(vocabulary, "github.com/canonical/pebble/client", "gopkg.in/yaml.v3"),
		"only one room knows Pebble's client, which lacks deadlines, and plans are YAML"},
	{[]string{"pebble/pebbletest"}, with(vocabulary, "pebble", "gopkg.in/yaml.v3"),
		"a container in memory is the pebble room's own, for tests"},
	{[]string{"patroni"}, with(vocabulary, "gopkg.in/yaml.v3", "golang.org/x/sync/errgroup"),
		"patroni.yml is YAML and the rest is HTTP: what Patroni runs in is another room's"},
	{[]string{"postgres"}, with(vocabulary, "github.com/jackc/pgx/v5/..."),
		"only one room speaks SQL"},
	{[]string{"kube"}, with(vocabulary, "k8s.io/...", "golang.org/x/sync/errgroup"),
		"only one room pays for client-go"},
	{[]string{"relations/database", "relations/pgsql"}, with(vocabulary, "relations/clients"),
		"what is the same for every interface of applications is in one room, and is pure, too"},
	{[]string{"relations/clients/clientstest"}, with(vocabulary, "relations/clients"),
		"a world for the tests of what stands on the room is the room's own"},
	{handlers, vocabulary,
		"handlers are pure: who wishes does not know how wishes come true"},
	{[]string{"charm"}, slices.Concat(vocabulary, systems, handlers, []string{"golang.org/x/sync/errgroup"}),
		"the loop is the only room that sees both handlers and systems"},
	{[]string{"."}, slices.Concat([]string{"charm"}, vocabulary, systems, handlers),
		"main connects what is there, and does nothing that a library would help with"},
	{[]string{"tools/..."}, []string{"gopkg.in/yaml.v3"},
		"a tool works on a clean clone, whatever state the charm's own code is in"},
}

func with(list []string, more ...string) []string { return slices.Concat(list, more) }

func TestImportsPointDown(t *testing.T) {
	t.Parallel()
	for _, room := range rooms(t) {
		if matches("tests/...", room.path) {
			continue
		}
		i := slices.IndexFunc(floors, func(f floor) bool { return matchesAny(f.rooms, room.path) })
		if i < 0 {
			t.Errorf("%s has no floor: give it one here and in charm/doc.go", room.path)
			continue
		}
		for _, imported := range room.imports() {
			if !matchesAny(floors[i].imports, imported) {
				t.Errorf("%s imports %s: %s", room.path, imported, floors[i].why)
			}
		}
	}
}

// A rule for a room that is gone is no rule.
func TestEveryFloorHasARoom(t *testing.T) {
	t.Parallel()
	all := rooms(t)
	for _, f := range floors {
		for _, pattern := range f.rooms {
			if pattern == "actions/..." || slices.ContainsFunc(all, func(r room) bool { return matches(pattern, r.path) }) {
				continue // the first action is still to come
			}
			t.Errorf("there is no room %s", pattern)
		}
	}
}

func TestRoomsAreCalledForWhatIsInThem(t *testing.T) {
	t.Parallel()
	nothings := []string{"util", "utils", "common", "helper", "helpers", "manager", "misc", "shared", "base", "lib", "types"}
	for _, room := range rooms(t) {
		if slices.Contains(nothings, room.name) || slices.Contains(nothings, path.Base(room.path)) {
			t.Errorf("%s is called for nothing that is in it", room.path)
		}
	}
}

func TestEveryRoomSaysWhatItIsFor(t *testing.T) {
	t.Parallel()
	for _, room := range rooms(t) {
		if !slices.ContainsFunc(room.files, func(f *ast.File) bool { return f.Doc.Text() != "" }) {
			t.Errorf("%s has no package comment", room.path)
		}
	}
}

func TestWhatIsExportedIsExplained(t *testing.T) {
	t.Parallel()
	for _, room := range rooms(t) {
		for _, file := range room.files {
			for _, decl := range file.Decls {
				for _, name := range unexplained(decl) {
					t.Errorf("%s: %s has no comment", room.set.Position(decl.Pos()), name)
				}
			}
		}
	}
}

// unexplained returns what a declaration exports without a comment. That of a
// group is one for all in it.
func unexplained(decl ast.Decl) []string {
	switch decl := decl.(type) {
	case *ast.FuncDecl:
		if decl.Name.IsExported() && receiverIsExported(decl) && decl.Doc.Text() == "" {
			return []string{decl.Name.Name}
		}
	case *ast.GenDecl:
		if decl.Doc.Text() != "" {
			return nil
		}
		var names []string
		for _, spec := range decl.Specs {
			switch spec := spec.(type) {
			case *ast.TypeSpec:
				if spec.Name.IsExported() && spec.Doc.Text() == "" {
					names = append(names, spec.Name.Name)
				}
			case *ast.ValueSpec:
				if spec.Names[0].IsExported() && spec.Doc.Text()+spec.Comment.Text() == "" {
					names = append(names, spec.Names[0].Name)
				}
			}
		}
		return names
	}
	return nil
}

// receiverIsExported tells whether a function is no method, or one that others
// can call by the name of its type.
func receiverIsExported(decl *ast.FuncDecl) bool {
	if decl.Recv == nil {
		return true
	}
	exported := false
	ast.Inspect(decl.Recv.List[0].Type, func(n ast.Node) bool {
		id, isName := n.(*ast.Ident)
		exported = exported || isName && id.IsExported()
		return !isName
	})
	return exported
}

// room is a package of this module, without its tests.
type room struct {
	path  string // below the module; "." is main
	name  string
	files []*ast.File
	set   *token.FileSet
}

// imports are all but those of the standard library, sorted.
func (r room) imports() []string {
	seen := map[string]bool{}
	for _, file := range r.files {
		for _, spec := range file.Imports {
			imported, _ := strconv.Unquote(spec.Path.Value)
			if own, ok := strings.CutPrefix(imported, module+"/"); ok {
				imported = own
			} else if first, _, _ := strings.Cut(imported, "/"); !strings.Contains(first, ".") {
				continue // the standard library
			}
			seen[imported] = true
		}
	}
	return slices.Sorted(maps.Keys(seen))
}

func matchesAny(patterns []string, name string) bool {
	return slices.ContainsFunc(patterns, func(p string) bool { return matches(p, name) })
}

func matches(pattern, name string) bool {
	root, below := strings.CutSuffix(pattern, "/...")
	return name == root || below && strings.HasPrefix(name, root+"/")
}

// rooms reads the packages of this module.
func rooms(t *testing.T) []room {
	t.Helper()
	root := filepath.Join("..", "..")
	found := map[string]room{}
	err := filepath.WalkDir(root, func(file string, entry fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if entry.IsDir() {
			if foreign(root, file, entry.Name()) {
				return fs.SkipDir
			}
			return nil
		}
		if !strings.HasSuffix(file, ".go") || strings.HasSuffix(file, "_test.go") {
			return nil
		}
		dir, err := filepath.Rel(root, filepath.Dir(file))
		if err != nil {
			return err
		}
		r, ok := found[dir]
		if !ok {
			r = room{path: filepath.ToSlash(dir), set: token.NewFileSet()}
		}
		parsed, err := parser.ParseFile(r.set, file, nil, parser.ParseComments|parser.SkipObjectResolution)
		if err != nil {
			return err
		}
		r.name, r.files = parsed.Name.Name, append(r.files, parsed)
		found[dir] = r
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	if _, ok := found["charm"]; !ok {
		t.Fatalf("there is no room charm below %s", root)
	}
	return slices.SortedFunc(maps.Values(found), func(a, b room) int { return strings.Compare(a.path, b.path) })
}

// foreign tells whether a directory is not of this module: hidden, built, data of
// tests, or a module of its own.
func foreign(root, dir, name string) bool {
	if dir == root {
		return false
	}
	if strings.HasPrefix(name, ".") || slices.Contains([]string{"dist", "testdata"}, name) {
		return true
	}
	_, err := os.Stat(filepath.Join(dir, "go.mod"))
	return err == nil
}
