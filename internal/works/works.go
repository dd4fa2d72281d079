// Package works is what an application does with a database, for measurements:
// of a table t with a column n and a column id.
package works

import (
	"context"
	"database/sql"
)

// Prepared is the statement that prepared works use.
const Prepared = "SELECT n FROM t WHERE id = ?"

// Work is something an application does. The statement is Prepared.
type Work func(context.Context, *sql.DB, *sql.Stmt) error

// Exec executes a statement.
func Exec(ctx context.Context, db *sql.DB, _ *sql.Stmt) error {
	_, err := db.ExecContext(ctx, "UPDATE t SET n = n WHERE id = 1")
	return err
}

// Row reads one row.
func Row(ctx context.Context, db *sql.DB, _ *sql.Stmt) error {
	var n int64
	return db.QueryRowContext(ctx, "SELECT n FROM t WHERE id = 1").Scan(&n)
}

// Rows reads all rows.
func Rows(ctx context.Context, db *sql.DB, _ *sql.Stmt) error {
	rows, err := db.QueryContext(ctx, "SELECT n FROM t")
	if err != nil {
		return err
	}
	defer rows.Close() //nolint:errcheck // rows.Err tells
	var n int64
	for rows.Next() {
		if err := rows.Scan(&n); err != nil {
			return err
		}
	}
	return rows.Err()
}

// Tx is a transaction of three statements.
func Tx(ctx context.Context, db *sql.DB, _ *sql.Stmt) error {
	tx, err := db.BeginTx(ctx, nil)
	if err != nil {
		return err
	}
	defer tx.Rollback() //nolint:errcheck // it fails after a commit, as it should
	for range 3 {
		if _, err := tx.ExecContext(ctx, "UPDATE t SET n = n WHERE id = 1"); err != nil {
			return err
		}
	}
	return tx.Commit()
}

// Statement reads one row with the prepared statement.
func Statement(ctx context.Context, _ *sql.DB, st *sql.Stmt) error {
	var n int64
	return st.QueryRowContext(ctx, int64(1)).Scan(&n)
}
