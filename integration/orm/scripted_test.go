package orm

import (
	"testing"
	"time"

	"github.com/DATA-DOG/go-sqlmock"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/sqllease/sqllease"
	"github.com/sqllease/sqllease/internal/mysqlscript"
)

// TestAScriptedServerIsAskedOnce has a server that follows a script, and a pool
// that asks it for its idle limit, or not.
func TestAScriptedServerIsAskedOnce(t *testing.T) {
	server := mysqlscript.Start(t, mysqlscript.Script{})
	db, err := openMySQL(server.DSN(), sqllease.Config{MaxOpen: 1})
	require.NoError(t, err)
	for range 2 {
		_, err = db.ExecContext(t.Context(), "UPDATE users SET name = 'Ann'")
		require.NoError(t, err)
	}
	require.Eventually(t, func() bool { return server.Counts().Discoveries == 1 }, 10*time.Second, time.Millisecond)
	require.NoError(t, db.Close())
	assert.Equal(t, 1, server.Counts().Discoveries)

	server = mysqlscript.Start(t, mysqlscript.Script{})
	db, err = openScripted(server.DSN(), sqllease.Config{MaxOpen: 1})
	require.NoError(t, err)
	_, err = db.ExecContext(t.Context(), "UPDATE users SET name = 'Ann'")
	require.NoError(t, err)
	pool, _ := sqllease.ConnectorOf(db)
	require.NoError(t, pool.Ready(t.Context()))
	require.NoError(t, db.Close())
	assert.Zero(t, server.Counts().Discoveries)
	assert.Equal(t, 1, server.Counts().Uses)
}

// TestAScriptThatKnowsTheQuestion has a configuration that names a dialect, so that a
// mock is asked too. It may expect that; else the pool works, and warns.
func TestAScriptThatKnowsTheQuestion(t *testing.T) {
	for name, expects := range map[string]bool{"expected": true, "unexpected": false} {
		t.Run(name, func(t *testing.T) {
			bare, mock, err := sqlmock.NewWithDSN("question " + name)
			require.NoError(t, err)
			db, err := sqllease.Open("sqlmock", "question "+name, sqllease.Config{Dialect: sqllease.DialectMySQL, Logger: quiet})
			require.NoError(t, err)
			if expects {
				mock.ExpectQuery("SHOW VARIABLES").
					WillReturnRows(sqlmock.NewRows([]string{"Variable_name", "Value"}).AddRow("wait_timeout", "28800"))
			}
			pool, _ := sqllease.ConnectorOf(db)
			assert.NoError(t, pool.Ready(t.Context()))
			mock.ExpectExec("UPDATE users").WillReturnResult(sqlmock.NewResult(0, 1))
			_, err = db.ExecContext(t.Context(), "UPDATE users SET name = 'Ann'")
			assert.NoError(t, err)
			assert.NoError(t, mock.ExpectationsWereMet())
			assert.Equal(t, !expects, pool.Stats().DiscoveryFailures == 1)
			mock.ExpectClose()
			assert.NoError(t, db.Close())
			mock.ExpectClose()
			assert.NoError(t, bare.Close())
		})
	}
}
