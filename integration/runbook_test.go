package integration

import (
	"database/sql"
	"os"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/sqllease/sqllease/integration/internal/servers"
)

// The statements of docs/runbook.md run on the servers that they are for, and show a transaction
// in which nothing happens.
func TestTheRunbooksStatementsFindTheHolder(t *testing.T) {
	page, err := os.ReadFile("../docs/runbook.md")
	require.NoError(t, err)
	blocks := strings.Split(string(page), "```sql\n")[1:]
	require.Len(t, blocks, 2)
	for i, s := range []*servers.Server{postgres, maria} {
		t.Run(s.Driver, func(t *testing.T) {
			db, err := sql.Open(s.Driver, s.DSN(""))
			require.NoError(t, err)
			defer func() { assert.NoError(t, db.Close()) }()
			table := "runbook_holders"
			_, err = db.ExecContext(t.Context(), "CREATE TABLE "+table+" (a INT)")
			require.NoError(t, err)
			tx, err := db.BeginTx(t.Context(), nil)
			require.NoError(t, err)
			_, err = tx.ExecContext(t.Context(), "INSERT INTO "+table+" VALUES (1)")
			require.NoError(t, err)
			code, _, _ := strings.Cut(blocks[i], "```")
			statements := runbookStatements(code)
			require.GreaterOrEqual(t, len(statements), 3)
			for n, statement := range statements {
				rows := rowsOf(t, db, statement)
				if n == 0 {
					assert.Equal(t, 1, rows, "the transaction is found")
				}
			}
			require.NoError(t, tx.Rollback())
			_, err = db.ExecContext(t.Context(), "DROP TABLE "+table)
			require.NoError(t, err)
		})
	}
}

// runbookStatements are those of a block, without its comments.
func runbookStatements(code string) (all []string) {
	var kept strings.Builder
	for line := range strings.Lines(code) {
		if !strings.HasPrefix(line, "--") {
			kept.WriteString(line)
		}
	}
	for statement := range strings.SplitSeq(kept.String(), ";") {
		if statement = strings.TrimSpace(statement); statement != "" {
			all = append(all, statement)
		}
	}
	return all
}

// rowsOf runs a statement, and counts what it shows. There is no connection 4711 to be ended.
func rowsOf(t *testing.T, db *sql.DB, statement string) (n int) {
	t.Helper()
	rows, err := db.QueryContext(t.Context(), statement)
	if strings.HasPrefix(statement, "KILL") {
		require.ErrorContains(t, err, "Unknown thread id: 4711")
		return 0
	}
	require.NoError(t, err, statement)
	defer func() { assert.NoError(t, rows.Close()) }()
	for rows.Next() {
		n++
	}
	require.NoError(t, rows.Err())
	return n
}
