package pgsql

import (
	"fmt"
	"reflect"
	"strings"
	"testing"

	"charmhub.io/postgresql-k8s/charm/config"
	"charmhub.io/postgresql-k8s/charm/state"
)

func TestParse(t *testing.T) {
	t.Parallel()
	type bag = map[string]string
	type bags = map[string]bag
	tests := []struct {
		name  string
		app   bag
		units bags
		want  Request
	}{
		{"nobody has written yet", nil, nil, Request{}},
		{"a unit is there", nil, bags{"app/0": {"egress-subnets": "10.0.0.1/32"}}, Request{Units: []string{"app/0"}, Subnets: []string{"10.0.0.1/32"}}},
		{"a database", bag{"database": "orders"}, nil, Request{Database: "orders"}},
		{"the name is kept byte for byte", bag{"database": " Orders é "}, nil, Request{Database: " Orders é "}},
		{"older clients ask as units", nil, bags{"app/1": {"database": "one"}, "app/0": {}, "app/2": {"database": "two"}},
			Request{Database: "one", Units: []string{"app/0", "app/1", "app/2"}}},
		{"the application has the word", bag{"database": "orders"}, bags{"app/0": {"database": "old"}}, Request{Database: "orders", Units: []string{"app/0"}}},
		{"units and their networks, in order", bag{"database": "orders"},
			bags{"app/10": {"egress-subnets": "10.0.0.9/32, 10.0.0.1/32"}, "app/9": {"egress-subnets": "fd00::/8,10.0.0.9/32"}},
			Request{Database: "orders", Units: []string{"app/10", "app/9"}, Subnets: []string{"10.0.0.1/32", "10.0.0.9/32", "fd00::/8"}}},
		{"what is no network is left out", bag{"database": "orders"}, bags{"app/0": {"egress-subnets": "all,,10.0.0.1,\n, 0.0.0.0/0"}},
			Request{Database: "orders", Units: []string{"app/0"}, Subnets: []string{"0.0.0.0/0"}}},
		{"the application has no network of its own", bag{"database": "orders", "egress-subnets": "10.0.0.1/32"}, nil, Request{Database: "orders"}},
		{"a name that no database may have", bag{"database": "template1"}, nil, Request{Database: "template1", Refused: state.MessageInvalidDatabase}},
		{"SQL for a name", bag{"database": `x"; DROP DATABASE orders; --`}, nil,
			Request{Database: `x"; DROP DATABASE orders; --`, Refused: state.MessageInvalidDatabase}},
		{"an extension", bag{"database": "orders", "extensions": "citext"}, nil,
			Request{Database: "orders", Extensions: "citext", Refused: state.MessageExtensions}},
		{"an extension of a unit", bag{"database": "orders"}, bags{"app/0": {"extensions": "citext:public"}},
			Request{Database: "orders", Extensions: "citext:public", Units: []string{"app/0"}, Refused: state.MessageExtensions}},
		{"a list of nothing", bag{"database": "orders", "extensions": " , "}, nil, Request{Database: "orders", Extensions: " , "}},
		{"an extension without a database", bag{"extensions": "citext"}, nil, Request{Extensions: "citext", Refused: state.MessageExtensions}},
		{"roles", bag{"database": "orders", "roles": "admin"}, nil, Request{Database: "orders", Refused: state.MessageRoles}},
		{"roles of a unit", bag{"database": "orders"}, bags{"app/0": {"roles": "admin"}}, Request{Database: "orders", Units: []string{"app/0"}, Refused: state.MessageRoles}},
		{"extensions and roles", bag{"extensions": "citext", "roles": "x"}, nil, Request{Extensions: "citext", Refused: state.MessageExtensions}},
		{"text without end", bag{"database": "orders", "x": strings.Repeat("x", maxText)}, nil, Request{Refused: state.MessageInvalidRequest}},
		{"text without end of a unit", bag{"database": "orders"}, bags{"app/0": {"x": strings.Repeat("x", maxText)}}, Request{Refused: state.MessageInvalidRequest}},
		{"what the modern interface asks does not matter", bag{"requested-secrets": "x", "version": "v1", "requests": "x", "entity-type": "USER"}, nil, Request{}},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			if got := Parse(test.app, test.units, config.Parse(nil)); !reflect.DeepEqual(got, test.want) {
				t.Errorf("it is %+v, want %+v", got, test.want)
			}
		})
	}
	many := map[string]map[string]string{}
	for i := range 5000 {
		many[fmt.Sprint("app/", i)] = map[string]string{"egress-subnets": fmt.Sprintf("10.0.%d.%d/32", i/256, i%256), "database": "orders"}
	}
	if got := Parse(nil, many, config.Parse(nil)); got.Refused != "" || len(got.Units) != 5000 || len(got.Subnets) != 5000 {
		t.Errorf("of 5000 units %d are there, in %d networks: %q", len(got.Units), len(got.Subnets), got.Refused)
	}
}
