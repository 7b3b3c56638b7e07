package clients

import (
	"fmt"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"unicode"
	"unicode/utf8"

	"charmhub.io/postgresql-k8s/charm/state"
)

// UserName is upstream's, on which clean-up after a refresh depends; several
// requests of one relation have a user each.
func UserName(relation int, request string) string {
	if request == "" {
		return fmt.Sprintf("%s%d", state.RelationUser, relation)
	}
	return fmt.Sprintf("%s%d_%s", state.RelationUser, relation, request)
}

var userOf = regexp.MustCompile(`^` + state.RelationUser + `(\d+)(_[0-9A-Za-z]+)?$`)

// RelationOf returns the relation that a role of the catalog was made for, if it
// is the user of one.
func RelationOf(role state.Role) (id int, made bool) {
	match := userOf.FindStringSubmatch(role.Name)
	if match == nil || !slices.Contains(role.MemberOf, state.RelationAccess) {
		return 0, false
	}
	id, err := strconv.Atoi(match[1])
	return id, err == nil
}

// Grantable are the roles of PostgreSQL's own that an application may ask for
// (https://www.postgresql.org/docs/17/predefined-roles.html). Those that reach
// the server's files or programs are not among them.
var Grantable = []string{
	"pg_checkpoint", "pg_maintain", "pg_monitor", "pg_read_all_data", "pg_read_all_settings", "pg_read_all_stats",
	"pg_signal_backend", "pg_stat_scan_tables", "pg_write_all_data",
}

// Access are the login role and the database that an application gets. Roles are
// those that it gets beyond: attributes of its login role, and groups.
func Access(user string, password state.Redacted, name string, roles []string) (state.Role, state.Database) {
	has := func(role string) bool { return slices.Contains(roles, role) }
	role := state.Role{
		Name: user, Login: true, Password: password,
		Superuser: has("superuser"), CreateDB: has("createdb") || has(state.Admin), CreateRole: has("createrole"),
		// pg_hba.conf lets in who is of the owner role: users that an earlier release
		// made have their privileges already, and are not admitted once more.
		MemberOf: []string{state.RelationAccess, name},
	}
	for _, r := range roles {
		if r == state.Admin || slices.Contains(Grantable, r) {
			role.MemberOf = append(role.MemberOf, r)
		}
	}
	if role.Superuser || role.CreateDB {
		role.MemberOf = append(role.MemberOf, state.AnyDatabase)
	}
	database := state.Database{Name: name, Owner: name, Users: []state.DatabaseUser{{
		Role: user,
		// Extra roles are the login role's own: acting as another would lose them.
		Act: len(roles) == 0,
	}}}
	return role, database
}

// Provided tells whether the catalog has what was wished, for good; no password is any.
func Provided(catalog state.Catalog, role state.Role, database state.Database) bool {
	have, exists := catalog.Roles[role.Name]
	if !exists || catalog.Unconfirmed || !have.Login || role.Password != "" && !have.HasPassword(role.Password) {
		return false
	}
	for _, group := range role.MemberOf {
		if !slices.Contains(have.MemberOf, group) {
			return false
		}
	}
	db := catalog.Databases[database.Name]
	return slices.Contains(db.Create, database.Owner) && slices.Contains(db.Create, role.Name)
}

// Taken tells whether somebody who is no relation has the name of a database
// already.
func Taken(catalog state.Catalog, name string) bool {
	db, exists := catalog.Databases[name]
	role, isRole := catalog.Roles[name]
	return exists && db.Owner != "operator" || isRole && (role.Login || role.Superuser)
}

// reserved are names that a database, and with it its owner role, must not have.
var reserved = append([]string{
	"postgres", "template0", "template1", "databases", "patroni", "none", "public",
	state.Admin, state.RelationAccess, state.AnyDatabase, "internal_access", "identity_access",
}, state.SystemUsers...)

const maxName = 63 // bytes: NAMEDATALEN - 1

// ValidName tells whether a database, and a role, may have the name. Quoting
// would let all of them through; what looks like an attack is turned away.
func ValidName(name string) bool {
	if name == "" || len(name) > maxName || !utf8.ValidString(name) || strings.ContainsAny(name, "\"'`;\\$") {
		return false
	}
	if strings.ContainsFunc(name, func(r rune) bool { return !unicode.IsPrint(r) }) {
		return false
	}
	lower := strings.ToLower(name)
	return !slices.Contains(reserved, lower) && !strings.HasPrefix(lower, "pg_") &&
		!strings.HasPrefix(lower, state.RelationUser) && !strings.HasPrefix(lower, "charmed_")
}
