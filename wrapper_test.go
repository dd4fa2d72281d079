package sqllease_test

import (
	"context"
	"database/sql"
	"fmt"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	_ "github.com/go-sql-driver/mysql"

	"github.com/sqllease/sqllease"
	"github.com/sqllease/sqllease/internal/mysqlscript"
)

func TestAnApplicationWrittenForDatabaseSQLRuns(t *testing.T) {
	server := mysqlscript.Start(t, mysqlscript.Script{})
	db, err := sqllease.Open("mysql", server.DSN(), sqllease.Config{})
	require.NoError(t, err)
	db.SetMaxOpenConns(5)

	var wait sync.WaitGroup
	errs := make(chan error, 500)
	for range 50 {
		wait.Go(func() {
			for i := range 10 {
				if _, err := db.ExecContext(t.Context(), fmt.Sprintf("UPDATE t SET a = %d", i)); err != nil {
					errs <- err
				}
			}
		})
	}
	wait.Wait()
	close(errs)
	for err := range errs {
		assert.NoError(t, err)
	}
	c, ok := sqllease.ConnectorOf(db)
	require.True(t, ok)
	require.Eventually(t, func() bool { return c.Stats().InUse == 0 }, 10*time.Second, time.Millisecond, "the server is asked on a connection, now and then")
	s := c.Stats()
	assert.Equal(t, 5, s.Limit)
	assert.Equal(t, uint64(500), s.Acquires)
	assert.LessOrEqual(t, server.Counts().Open, 5)
	assert.Empty(t, c.Leases())
	t.Logf("%+v", s)
	require.NoError(t, db.Close())
	assert.Equal(t, 0, c.Stats().Open)
}

func TestAnAcquireThatRunsOutOfTimeNamesTheHolders(t *testing.T) {
	server := mysqlscript.Start(t, mysqlscript.Script{})
	db, err := sqllease.Open("mysql", server.DSN(), sqllease.Config{Name: "orders", MaxOpen: 1, AcquireTimeout: 500 * time.Millisecond})
	require.NoError(t, err)
	defer func() { assert.NoError(t, db.Close()) }()
	conn, err := db.Conn(t.Context())
	require.NoError(t, err)

	_, err = db.ExecContext(context.Background(), "DO 1")
	require.ErrorIs(t, err, context.DeadlineExceeded)
	var acquire *sqllease.AcquireError
	require.ErrorAs(t, err, &acquire)
	assert.Equal(t, 1, acquire.Position)
	assert.Contains(t, err.Error(), "TestAnAcquireThatRunsOutOfTimeNamesTheHolders")
	t.Log(err)
	require.NoError(t, conn.Close())
	_, err = db.ExecContext(context.Background(), "DO 1")
	require.NoError(t, err)
}

func TestALeakIsReportedWithTheSiteThatTookTheLease(t *testing.T) {
	server := mysqlscript.Start(t, mysqlscript.Script{})
	leaks := make(chan sqllease.Leak, 2)
	db, err := sqllease.Open("mysql", server.DSN(), sqllease.Config{
		LeakThreshold: 200 * time.Millisecond, // enough for a slow machine to begin a transaction after its acquire
		OnLeak:        func(l sqllease.Leak) { leaks <- l },
	})
	require.NoError(t, err)
	defer func() { assert.NoError(t, db.Close()) }()
	tx, err := db.BeginTx(t.Context(), &sql.TxOptions{})
	require.NoError(t, err)
	l := <-leaks
	assert.Equal(t, sqllease.ClassUnused, l.Class)
	assert.True(t, l.InTx)
	assert.Contains(t, l.Stack.Site(), "wrapper_test.go")
	t.Log("\n" + l.String())
	require.NoError(t, tx.Rollback())
	l = <-leaks
	assert.True(t, l.Returned)
	t.Log("\n" + l.String())
}
