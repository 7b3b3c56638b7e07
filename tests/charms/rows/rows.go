// Package rows is what the test's client applications do in their databases.
package rows

import (
	"context"
	"fmt"
	"strings"

	"github.com/jackc/pgx/v5"
)

// Write adds a row that names an event, and returns how many there are.
func Write(ctx context.Context, conn *pgx.Conn, event string) (n int, err error) {
	_, err = conn.Exec(ctx, "CREATE TABLE IF NOT EXISTS seen (at timestamptz DEFAULT now(), event text)")
	if err == nil {
		_, err = conn.Exec(ctx, "INSERT INTO seen (event) VALUES ($1)", event)
	}
	if err == nil {
		err = conn.QueryRow(ctx, "SELECT count(*) FROM seen").Scan(&n)
	}
	return n, err
}

// Read runs a statement and returns its rows as lines.
func Read(ctx context.Context, conn *pgx.Conn, statement string) (string, error) {
	rows, err := conn.Query(ctx, statement)
	if err != nil {
		return "", err
	}
	var lines []string
	for rows.Next() {
		values, err := rows.Values()
		if err != nil {
			return "", err
		}
		lines = append(lines, strings.Trim(fmt.Sprintln(values...), "\n"))
	}
	return strings.Join(lines, "\n"), rows.Err()
}
