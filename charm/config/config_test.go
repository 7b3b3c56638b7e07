package config_test

import (
	"bytes"
	"encoding/json"
	"os"
	"reflect"
	"slices"
	"strings"
	"testing"

	"gopkg.in/yaml.v3"

	"charmhub.io/postgresql-k8s/charm/config"
)

func TestParse(t *testing.T) {
	t.Parallel()
	tests := []struct {
		name string
		raw  map[string]any
		err  string // "" when all is allowed

		profile string
		limit   int64 // profile_limit_memory; 0 when unset
	}{
		{"no options at all read as their defaults", nil, "", "production", 0},
		{"an option that Juju shows as null is unset", map[string]any{"profile": nil, "profile_limit_memory": nil}, "", "production", 0},
		{"a value of the list is allowed", map[string]any{"profile": "testing"}, "", "testing", 0},
		{"a value that is not of the list is refused", map[string]any{"profile": "fast"}, "profile must be one of production, testing", "", 0},
		{"the empty string is not of the list either", map[string]any{"profile": ""}, "profile must be one of production, testing", "", 0},
		{"a number is no string", map[string]any{"profile": 1.0}, "profile must be a string", "", 0},

		{"what JSON makes of a number is read", map[string]any{"profile_limit_memory": 512.0}, "", "production", 512},
		{"what JSON with UseNumber makes of one, too", map[string]any{"profile_limit_memory": json.Number("512")}, "", "production", 512},
		{"an int is read", map[string]any{"profile_limit_memory": 512}, "", "production", 512},
		{"an int64 is read", map[string]any{"profile_limit_memory": int64(512)}, "", "production", 512},
		{"the smallest number is allowed", map[string]any{"profile_limit_memory": 128.0}, "", "production", 128},
		{"the largest number is allowed", map[string]any{"profile_limit_memory": 9999999.0}, "", "production", 9999999},
		{"one less than the smallest is refused", map[string]any{"profile_limit_memory": 127.0}, memoryError, "production", 0},
		{"one more than the largest is refused", map[string]any{"profile_limit_memory": 10000000.0}, memoryError, "production", 0},
		{"a number beyond any int64 is refused", map[string]any{"profile_limit_memory": 1e300}, memoryError, "production", 0},
		{"a fraction is refused", map[string]any{"profile_limit_memory": 512.5}, memoryError, "production", 0},
		{"a fraction as json.Number is refused", map[string]any{"profile_limit_memory": json.Number("512.5")}, memoryError, "production", 0},
		{"a number in quotes is refused", map[string]any{"profile_limit_memory": "512"}, memoryError, "production", 0},

		{"the first of several errors is told", map[string]any{"profile": "fast", "experimental_max_connections": 1.0},
			"experimental_max_connections must be a whole number from 10 to 262143", "", 0},
		{"what is not in the table is somebody else's", map[string]any{"colour": "red"}, "", "production", 0},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			values := config.Parse(test.raw)
			if got := errorText(values.Err()); got != test.err {
				t.Errorf("the error is %q, want %q", got, test.err)
			}
			if got := values.String("profile"); got != test.profile {
				t.Errorf("profile reads as %q, want %q", got, test.profile)
			}
			if got, set := values.Int("profile_limit_memory"); got != test.limit || set != (test.limit != 0) {
				t.Errorf("profile_limit_memory reads as %d, %t; want %d", got, set, test.limit)
			}
		})
	}
}

const memoryError = "profile_limit_memory must be a whole number from 128 to 9999999"

func errorText(err error) string {
	if err == nil {
		return ""
	}
	return err.Error()
}

func TestValuesOfAnotherTypeReadAsUnset(t *testing.T) {
	t.Parallel()
	values := config.Parse(map[string]any{"profile": "testing", "profile_limit_memory": 512.0})
	if got := values.String("profile_limit_memory"); got != "" {
		t.Errorf("an int read as the string %q", got)
	}
	if got, set := values.Int("profile"); set {
		t.Errorf("a string read as the int %d", got)
	}
	var none config.Values
	if _, set := none.Int("profile_limit_memory"); set || none.Err() != nil || none.String("profile") != "" {
		t.Error("the zero Values are not empty")
	}
}

func TestTheTableIsSound(t *testing.T) {
	t.Parallel()
	if !slices.IsSortedFunc(config.Options, func(a, b config.Option) int { return strings.Compare(a.Name, b.Name) }) {
		t.Error("the options are not sorted by name")
	}
	if err := config.Parse(nil).Err(); err != nil {
		t.Errorf("a default is not allowed by its own option: %v", err)
	}
	for _, o := range config.Options {
		if !slices.Contains([]string{"string", "int", "boolean"}, o.Type) {
			t.Errorf("%s has the type %q, which Juju does not know", o.Name, o.Type)
		}
		if o.Type == "int" && o.Min >= o.Max {
			t.Errorf("%s has an empty range", o.Name)
		}
		if !strings.HasSuffix(o.Description, ".") {
			t.Errorf("the description of %s is no sentence", o.Name)
		}
	}
}

// The config section of charmcraft.yaml is what the table says.
func TestCharmcraftYAMLHasTheTable(t *testing.T) {
	t.Parallel()
	data, err := os.ReadFile("../../charmcraft.yaml")
	if err != nil {
		t.Fatal(err)
	}
	var project struct {
		Config map[string]any
	}
	if err := yaml.Unmarshal(data, &project); err != nil {
		t.Fatal(err)
	}
	text := section()
	var want struct{ Config map[string]any }
	if err := yaml.Unmarshal([]byte(text), &want); err != nil {
		t.Fatal(err)
	}
	if !reflect.DeepEqual(project, want) {
		t.Errorf("the config section of charmcraft.yaml is not what charm/config says, which is:\n\n%s", text)
	}
	if !bytes.Contains(data, []byte(text)) {
		t.Errorf("the config section of charmcraft.yaml is laid out in another way than:\n\n%s", text)
	}
}

// section renders the table as charmcraft.yaml has it.
func section() string {
	scalar := func(text string) *yaml.Node { return &yaml.Node{Kind: yaml.ScalarNode, Value: text} }
	options := &yaml.Node{Kind: yaml.MappingNode}
	for _, o := range config.Options {
		option := &yaml.Node{Kind: yaml.MappingNode}
		add := func(key string, value *yaml.Node) { option.Content = append(option.Content, scalar(key), value) }
		add("type", scalar(o.Type))
		if o.Default != nil {
			var value yaml.Node
			if err := value.Encode(o.Default); err != nil {
				panic(err) // the table has strings, numbers and booleans
			}
			add("default", &value)
		}
		add("description", &yaml.Node{Kind: yaml.ScalarNode, Style: yaml.LiteralStyle, Value: o.Description + "\n"})
		options.Content = append(options.Content, scalar(o.Name), option)
	}
	var out strings.Builder
	encoder := yaml.NewEncoder(&out)
	encoder.SetIndent(2)
	if err := encoder.Encode(map[string]any{"config": map[string]any{"options": options}}); err != nil {
		panic(err)
	}
	return out.String()
}
