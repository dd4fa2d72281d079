package orm

import (
	"testing"
	"time"

	"github.com/DATA-DOG/go-sqlmock"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	gormmysql "gorm.io/driver/mysql"
	"gorm.io/gorm"
	"gorm.io/gorm/logger"

	"github.com/sqllease/sqllease"
)

// Code that uses a library has no BeginTx to write a defer after: the fix names the library,
// and what it gave.
func TestTheFixOfALeakNamesTheLibrary(t *testing.T) {
	bare, mock, err := sqlmock.NewWithDSN(t.Name())
	require.NoError(t, err)
	leaks := make(chan sqllease.Leak, 2)
	db, err := sqllease.Open("sqlmock", t.Name(), sqllease.Config{
		LeakThreshold: 20 * time.Millisecond,
		OnLeak:        func(l sqllease.Leak) { leaks <- l },
	})
	require.NoError(t, err)
	g, err := gorm.Open(gormmysql.New(gormmysql.Config{Conn: db, SkipInitializeWithVersion: true}), &gorm.Config{Logger: logger.Discard, DisableAutomaticPing: true})
	require.NoError(t, err)

	mock.ExpectBegin()
	mock.ExpectRollback()
	mock.ExpectClose()
	mock.ExpectClose()
	tx := g.Begin()
	require.NoError(t, tx.Error)
	assert.Equal(t, "commit or roll back, on every path, the transaction that you began with gorm.io/gorm; "+
		"if your code does that already, move slow work, such as an HTTP call, out of the transaction", (<-leaks).Fix())
	require.NoError(t, tx.Rollback().Error)
	assert.True(t, (<-leaks).Returned)
	require.NoError(t, db.Close())
	require.NoError(t, bare.Close())
}
