package postgres

import (
	"fmt"
	"slices"
	"strings"

	"github.com/jackc/pgx/v5"

	"charmhub.io/postgresql-k8s/charm/state"
)

// statement is a step that is SQL, to be run in one database. Several statements
// of one step are one transaction.
type statement interface {
	state.Step
	sql() (database, text string)
}

// CreateRole makes a role with its memberships, without a password.
type CreateRole struct{ state.Role }

// String implements state.Step.
func (c CreateRole) String() string { return "create role " + c.Name }

func (c CreateRole) sql() (database, text string) {
	text = "CREATE ROLE " + quote(c.Name) + " " + attributes(c.Role)
	for i, group := range c.MemberOf {
		if i == 0 {
			text += " IN ROLE " + quote(group)
		} else {
			text += ", " + quote(group)
		}
	}
	return "postgres", text
}

// AlterRole gives a role its attributes.
type AlterRole struct{ state.Role }

// String implements state.Step.
func (a AlterRole) String() string { return "alter role " + a.Name + ": " + attributes(a.Role) }

func (a AlterRole) sql() (database, text string) {
	return "postgres", "ALTER ROLE " + quote(a.Name) + " " + attributes(a.Role)
}

// GrantRole makes a role a member of another.
type GrantRole struct{ Group, Member string }

// String implements state.Step.
func (g GrantRole) String() string { return fmt.Sprintf("grant %s to %s", g.Group, g.Member) }

func (g GrantRole) sql() (database, text string) {
	return "postgres", "GRANT " + quote(g.Group) + " TO " + quote(g.Member)
}

// SetPassword gives a role a password.
type SetPassword struct {
	Role     string
	Password state.Redacted
}

// String implements state.Step.
func (s SetPassword) String() string { return "set the password of role " + s.Role }

// RenewPassword gives a system user the password that Juju's secret shows, in this
// unit's own server. It works without logging in to it with any password.
type RenewPassword struct {
	Role     string
	Password state.Redacted
	BinDir   string
}

// String implements state.Step.
func (r RenewPassword) String() string { return "renew the password of role " + r.Role }

// DropRole removes a role with its sessions and privileges.
type DropRole struct{ Role string }

// String implements state.Step.
func (d DropRole) String() string { return "drop role " + d.Role }

// DiffRoles returns the steps from the roles that exist to those that are
// wished. Roles that nobody mentions stay.
func DiffRoles(have map[string]state.Role, want []state.Role) []state.Step {
	var steps []state.Step
	seen := map[string]bool{}
	for _, role := range want {
		if seen[role.Name] {
			continue // two users of a database both wish for its owner role
		}
		seen[role.Name] = true
		old, exists := have[role.Name]
		if role.Absent {
			if exists {
				steps = append(steps, DropRole{role.Name})
			}
			continue
		}
		switch {
		case !exists:
			steps = append(steps, CreateRole{role})
		case attributes(old) != attributes(role):
			steps = append(steps, AlterRole{role})
		}
		for _, group := range role.MemberOf {
			if exists && !slices.Contains(old.MemberOf, group) {
				steps = append(steps, GrantRole{group, role.Name})
			}
		}
		if role.Password != "" && !old.HasPassword(role.Password) {
			steps = append(steps, SetPassword{role.Name, role.Password})
		}
	}
	return steps
}

// attributes are the options of CREATE ROLE and ALTER ROLE.
func attributes(r state.Role) string {
	word := func(on bool, name string) string {
		if on {
			return name
		}
		return "NO" + name
	}
	return strings.Join([]string{
		word(r.Login, "LOGIN"), word(r.Superuser, "SUPERUSER"),
		word(r.CreateDB, "CREATEDB"), word(r.CreateRole, "CREATEROLE"),
	}, " ")
}

// quote makes an SQL identifier of any text.
func quote(name string) string { return pgx.Identifier{name}.Sanitize() }

// literal makes an SQL string of any text (standard_conforming_strings is on
// since PostgreSQL 9.1).
func literal(text string) string { return "'" + strings.ReplaceAll(text, "'", "''") + "'" }
