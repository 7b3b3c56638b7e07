package docs

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"gopkg.in/yaml.v3"

	"charmhub.io/postgresql-k8s/tests/golden"
)

const root = "../.."

// width is that of a line of prose, as in the pages that people write.
const width = 130

// page is a page that is being rendered.
type page struct{ strings.Builder }

// newPage begins a page of the reference.
func newPage(title, madeOf string) *page {
	var p page
	p.line("<!-- Made of %s by `go test ./tests/docs -update`. Do not edit: a test compares. -->", madeOf)
	p.line("")
	p.line("# %s", title)
	p.line("")
	return &p
}

func (p *page) line(format string, args ...any) { fmt.Fprintf(p, format+"\n", args...) }

// text writes a paragraph.
func (p *page) text(format string, args ...any) {
	p.line("%s", wrapped(fmt.Sprintf(format, args...), ""))
	p.line("")
}

// item writes an item of a list.
func (p *page) item(format string, args ...any) {
	p.line("* %s", wrapped(fmt.Sprintf(format, args...), "  "))
}

// block writes commands or data as they are.
func (p *page) block(language, content string) {
	p.line("```%s\n%s\n```", language, strings.TrimRight(content, "\n"))
	p.line("")
}

// save compares the page with the one that people read.
func (p *page) save(t *testing.T, name string) {
	t.Helper()
	golden.File(t, filepath.Join(root, "docs", "reference", name), strings.TrimRight(p.String(), "\n")+"\n")
}

// wrapped breaks a text into lines, but never within a code span.
func wrapped(text, indent string) string {
	var lines []string
	line, word := "", ""
	for _, field := range strings.Fields(text) {
		word = strings.TrimPrefix(word+" "+field, " ")
		if strings.Count(word, "`")%2 != 0 {
			continue
		}
		if line != "" && len(indent)+len(line)+1+len(word) > width {
			lines, line = append(lines, line), ""
		}
		line, word = strings.TrimPrefix(line+" "+word, " "), ""
	}
	return strings.Join(append(lines, line+word), "\n"+indent)
}

// cell is a text within a table.
func cell(text string) string { return strings.ReplaceAll(oneLine(text), "|", `\|`) }

func oneLine(text string) string { return strings.Join(strings.Fields(text), " ") }

// charmcraft is what charmcraft.yaml declares, in its order.
type charmcraft struct {
	Peers, Provides, Requires entries[endpoint]
	Actions                   entries[action]
	Containers, Resources     map[string]any
	Storage                   map[string]any
}

type endpoint struct {
	Interface string
	Optional  bool
}

type action struct {
	Description string
	Params      entries[struct {
		Type, Description string
		Default           any
	}]
}

// entries is a YAML mapping whose order counts.
type entries[T any] []struct {
	Name  string
	Value T
}

// UnmarshalYAML implements yaml.Unmarshaler.
func (e *entries[T]) UnmarshalYAML(node *yaml.Node) error {
	for i := 0; i+1 < len(node.Content); i += 2 {
		var value T
		if err := node.Content[i+1].Decode(&value); err != nil {
			return err
		}
		*e = append(*e, struct {
			Name  string
			Value T
		}{node.Content[i].Value, value})
	}
	return nil
}

// get returns the entry of a name.
func (e entries[T]) get(name string) (value T, ok bool) {
	for _, entry := range e {
		if entry.Name == name {
			return entry.Value, true
		}
	}
	return value, false
}

func declared(t *testing.T) charmcraft {
	t.Helper()
	data, err := os.ReadFile(filepath.Join(root, "charmcraft.yaml"))
	if err != nil {
		t.Fatal(err)
	}
	var c charmcraft
	if err := yaml.Unmarshal(data, &c); err != nil {
		t.Fatal(err)
	}
	return c
}
