package orm

import (
	"testing"

	"github.com/DATA-DOG/go-sqlmock"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/sqllease/sqllease"
)

// TestSqlmock has go-sqlmock's driver under the wrapper: it sees the calls that
// it would see without.
func TestSqlmock(t *testing.T) {
	db, bare, mock, err := sqlmockUnderneath(sqllease.Config{MaxOpen: limit})
	require.NoError(t, err)
	mock.ExpectBegin()
	mock.ExpectExec("UPDATE orders").WithArgs("paid", 7).WillReturnResult(sqlmock.NewResult(0, 1))
	mock.ExpectQuery("SELECT id FROM orders").WillReturnRows(sqlmock.NewRows([]string{"id"}).AddRow(7))
	mock.ExpectCommit()
	mock.ExpectPrepare("SELECT 1").ExpectQuery().WillReturnRows(sqlmock.NewRows([]string{"1"}).AddRow(1))
	mock.ExpectBegin()
	mock.ExpectRollback()

	tx, err := db.BeginTx(t.Context(), nil)
	require.NoError(t, err)
	_, err = tx.ExecContext(t.Context(), "UPDATE orders SET status = ? WHERE id = ?", "paid", 7)
	assert.NoError(t, err)
	var id int
	assert.NoError(t, tx.QueryRowContext(t.Context(), "SELECT id FROM orders").Scan(&id))
	assert.Equal(t, 7, id)
	assert.NoError(t, tx.Commit())
	stmt, err := db.PrepareContext(t.Context(), "SELECT 1")
	require.NoError(t, err)
	assert.NoError(t, stmt.QueryRowContext(t.Context()).Scan(&id))
	assert.NoError(t, stmt.Close())
	tx, err = db.BeginTx(t.Context(), nil)
	require.NoError(t, err)
	assert.NoError(t, tx.Rollback())
	_, err = db.ExecContext(t.Context(), "DELETE FROM orders")
	assert.ErrorContains(t, err, "all expectations were already fulfilled")

	c, _ := sqllease.ConnectorOf(db)
	assert.Empty(t, c.Leases())
	assert.NoError(t, mock.ExpectationsWereMet())
	mock.ExpectClose()
	assert.NoError(t, db.Close())
	assert.Zero(t, c.Stats().Open)
	mock.ExpectClose()
	assert.NoError(t, bare.Close())
	assert.NoError(t, mock.ExpectationsWereMet())
}
