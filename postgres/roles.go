package postgres

import (
	"fmt"
	"slices"
	"strings"

	"github.com/jackc/pgx/v5"

	"charmhub.io/postgresql-k8s/charm/state"
)

// Execute is one statement, on the primary, in the database of that name.
type Execute struct {
	Database string
	What     string // for people
	SQL      state.Redacted
}

// String implements state.Step.
func (e Execute) String() string { return e.What }

// SetPassword gives a role a password.
type SetPassword struct {
	Role     string
	Password state.Redacted
}

// String implements state.Step.
func (s SetPassword) String() string { return "set the password of role " + s.Role }

// DiffRoles returns the steps from the roles that exist to those that are
// wished. Roles that nobody mentions stay.
func DiffRoles(have map[string]state.Role, want []state.Role) []state.Step {
	var steps []state.Step
	for _, role := range want {
		old, exists := have[role.Name]
		switch {
		case !exists:
			steps = append(steps, Execute{"postgres", "create role " + role.Name,
				state.Redacted("CREATE ROLE " + quote(role.Name) + " " + attributes(role))})
		case attributes(old) != attributes(role):
			steps = append(steps, Execute{"postgres", "alter role " + role.Name,
				state.Redacted("ALTER ROLE " + quote(role.Name) + " " + attributes(role))})
		}
		for _, group := range role.MemberOf {
			if !slices.Contains(old.MemberOf, group) {
				steps = append(steps, Execute{"postgres", fmt.Sprintf("grant %s to %s", group, role.Name),
					state.Redacted("GRANT " + quote(group) + " TO " + quote(role.Name))})
			}
		}
		if role.Password != "" && !Matches(old.Verifier.Reveal(), role.Password) {
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
