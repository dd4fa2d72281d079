package sqllease_test

import (
	"fmt"
	"math/rand/v2"
	"testing"

	"github.com/DATA-DOG/go-sqlmock"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/sqllease/sqllease"
)

// A driver that is not known is asked nothing: a mock that expects these calls
// in this order gets no other.
func TestNoCallOfOursReachesAMock(t *testing.T) {
	dsn := fmt.Sprint("orders ", rand.Uint64()) // a mock's name is taken for as long as the process runs
	bare, mock, err := sqlmock.NewWithDSN(dsn, sqlmock.MonitorPingsOption(true))
	require.NoError(t, err)
	db, err := sqllease.Open("sqlmock", dsn, sqllease.Config{MaxOpen: 2})
	require.NoError(t, err)

	mock.ExpectPing()
	mock.ExpectBegin()
	mock.ExpectExec("UPDATE stock").WithArgs(7).WillReturnResult(sqlmock.NewResult(1, 1))
	mock.ExpectQuery("SELECT n FROM stock").WillReturnRows(sqlmock.NewRows([]string{"n"}).AddRow(3))
	mock.ExpectCommit()
	mock.ExpectClose()
	mock.ExpectClose() // of the mock's own database

	require.NoError(t, db.PingContext(t.Context()))
	tx, err := db.BeginTx(t.Context(), nil)
	require.NoError(t, err)
	_, err = tx.ExecContext(t.Context(), "UPDATE stock SET n = ?", 7)
	require.NoError(t, err)
	var n int
	require.NoError(t, tx.QueryRowContext(t.Context(), "SELECT n FROM stock").Scan(&n))
	assert.Equal(t, 3, n)
	require.NoError(t, tx.Commit())
	require.NoError(t, db.Close())
	require.NoError(t, bare.Close())
	assert.NoError(t, mock.ExpectationsWereMet())
}
