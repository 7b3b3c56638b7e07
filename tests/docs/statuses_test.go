package docs

import (
	"errors"
	"go/ast"
	"go/parser"
	"go/token"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"

	"charmhub.io/postgresql-k8s/charm/state"
)

// shown are the messages that are made of something, with an example of it.
var shown = map[string]string{
	"MessageAway":          state.MessagePrimary + state.MessageAway,
	"MessageTrust":         state.MessageTrust("postgresql-k8s"),
	"MessageMajor":         state.MessageMajor(14),
	"MessageContainer":     state.MessageContainer("pebble does not answer"),
	"MessageKube":          state.MessageKube("connection refused"),
	"MessageConfig":        state.MessageConfig(errors.New("profile must be one of production, testing")),
	"MessageCloning":       state.MessageCloning(state.Value(42)),
	"MessageLag":           state.MessageLag(72 << 20),
	"MessageLost":          state.MessageLost("postgresql-k8s", "postgresql-k8s/2"),
	"MessageRefreshNext":   state.MessageRefreshNext("postgresql-k8s/1"),
	"MessageRefreshWaits":  state.MessageRefreshWaits("postgresql-k8s/2", "starting"),
	"MessageRefreshHalted": state.MessageRefreshHalted("postgresql-k8s", "postgresql-k8s/2", "start failed"),
	"MessageHandover":      state.MessageHandover("postgresql-k8s/1"),
	"MessageFailed":        state.MessageFailed(errors.New("cannot change the cluster's configuration: PATCH /config: status 503")),
}

// message is one of charm/state/messages.go.
type message struct{ name, text, status, cause, cure string }

// messages reads what the comments say.
func messages(t *testing.T) []message {
	t.Helper()
	file, err := parser.ParseFile(token.NewFileSet(), filepath.Join(root, "charm/state/messages.go"), nil, parser.ParseComments)
	if err != nil {
		t.Fatal(err)
	}
	var all []message
	add := func(name string, value ast.Expr, doc *ast.CommentGroup) {
		m := message{name: name, text: shown[name]}
		if literal, ok := value.(*ast.BasicLit); ok && m.text == "" {
			m.text, _ = strconv.Unquote(literal.Value)
		}
		parts := explained.FindStringSubmatch(doc.Text())
		switch {
		case m.text == "":
			t.Errorf("%s is made of something: give an example of it in tests/docs", name)
		case parts == nil:
			t.Errorf("the comment of %s has no line \"Waiting: <cause>\", or Active, Maintenance or Blocked, and no \"Cure: <cure>\" after it", name)
		default:
			m.status, m.cause, m.cure = strings.ToLower(parts[1]), oneLine(parts[2]), oneLine(parts[3])
			all = append(all, m)
		}
	}
	for _, decl := range file.Decls {
		switch decl := decl.(type) {
		case *ast.FuncDecl:
			add(decl.Name.Name, nil, decl.Doc)
		case *ast.GenDecl:
			for _, spec := range decl.Specs {
				value, ok := spec.(*ast.ValueSpec)
				if !ok {
					continue
				}
				doc := value.Doc
				if doc == nil {
					doc = decl.Doc
				}
				for i, name := range value.Names {
					add(name.Name, value.Values[i], doc)
				}
			}
		}
	}
	return all
}

var explained = regexp.MustCompile(`(?s)(?:^|\n)(Active|Waiting|Maintenance|Blocked): (.+)\nCure: (.+)$`)

func TestStatuses(t *testing.T) {
	t.Parallel()
	p := newPage("Statuses", "charm/state/messages.go")
	p.text("What `juju status` shows of a unit, why, and what to do about it. Each status is computed anew in every hook, and goes " +
		"when its cause goes. Of several problems the worst is shown: blocked, then maintenance, then waiting. The action `status` " +
		"lists all of them, and what is wrong with other members.")
	p.text("`active` without a message is a replica that follows the primary. The commands have `postgresql-k8s/2` for the unit " +
		"that shows the status, `APPLICATION` for the client, and `MODEL` for the model.")
	list := messages(t)
	for _, kind := range []struct{ status, title string }{
		{"blocked", "Blocked: somebody must do something"},
		{"maintenance", "Maintenance: the unit stops, or a refresh goes on"},
		{"waiting", "Waiting: it goes on by itself"},
		{"active", "Active: it serves"},
	} {
		p.line("## %s", kind.title)
		p.line("")
		for _, m := range list {
			if m.status != kind.status {
				continue
			}
			p.line("### %s", heading(m.text))
			p.line("")
			p.text("%s", strings.ToUpper(m.cause[:1])+m.cause[1:])
			p.text("**Cure:** %s", m.cure)
		}
	}
	p.save(t, "statuses.md")
}

// heading is a message as a code span; one with backticks of its own needs two.
func heading(text string) string {
	if strings.Contains(text, "`") {
		return "`` " + text + " ``"
	}
	return "`" + text + "`"
}
