package integration

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/sqllease/sqllease"
	"github.com/sqllease/sqllease/integration/internal/servers"
)

// limit is the gate's in these tests: low, so that callers wait.
const limit = 4

// openWrapped opens a wrapped database, and checks at the end of the test that
// nothing is left of it: no lease, no session here or on the server.
func openWrapped(t *testing.T, s *servers.Server, params string) (*sql.DB, *sqllease.Connector) {
	db, err := sqllease.Open(s.Driver, s.DSN("")+params, sqllease.Config{MaxOpen: limit})
	require.NoError(t, err)
	c, ok := sqllease.ConnectorOf(db)
	require.True(t, ok)
	t.Cleanup(func() {
		assert.Empty(t, c.Leases())
		assert.NoError(t, db.Close())
		assert.Eventually(t, func() bool { return c.Stats().Open == 0 }, 10*time.Second, time.Millisecond) // one may be closing
	})
	return db, c
}

// table makes an empty table for one test.
func table(t *testing.T, db *sql.DB, name, columns string) {
	for _, q := range []string{"DROP TABLE IF EXISTS " + name, "CREATE TABLE " + name + " (" + columns + ")"} {
		_, err := db.ExecContext(t.Context(), q)
		require.NoError(t, err)
	}
}

// work is what an application does, written for plain database/sql. The
// placeholders are the dialect's.
func work(t *testing.T, db *sql.DB, first, second string) {
	table(t, db, "t", "id INT PRIMARY KEY, name VARCHAR(40)")
	insert := "INSERT INTO t (id, name) VALUES (" + first + ", " + second + ")"
	var all sync.WaitGroup
	for i := range 50 {
		all.Go(func() {
			ctx := t.Context()
			tx, err := db.BeginTx(ctx, nil)
			if !assert.NoError(t, err) {
				return
			}
			_, err = tx.ExecContext(ctx, insert, i, fmt.Sprint("name ", i))
			assert.NoError(t, err)
			if i%2 == 1 {
				assert.NoError(t, tx.Rollback())
				return
			}
			assert.NoError(t, tx.Commit())
			var name string
			assert.NoError(t, db.QueryRowContext(ctx, "SELECT name FROM t WHERE id = "+first, i).Scan(&name))
			assert.Equal(t, fmt.Sprint("name ", i), name)
		})
	}
	all.Wait()
	rows, err := db.QueryContext(t.Context(), "SELECT id, name, NULL FROM t ORDER BY id")
	require.NoError(t, err)
	defer func() { assert.NoError(t, rows.Close()) }()
	n := 0
	for ; rows.Next(); n++ {
		var id int
		var name string
		var null sql.NullString
		require.NoError(t, rows.Scan(&id, &name, &null))
		assert.Equal(t, 2*n, id)
		assert.False(t, null.Valid)
	}
	require.NoError(t, rows.Err())
	assert.Equal(t, 25, n)
	types, err := func() ([]*sql.ColumnType, error) {
		r, err := db.QueryContext(t.Context(), "SELECT id FROM t")
		require.NoError(t, err)
		defer func() { _ = r.Close() }()
		return r.ColumnTypes()
	}()
	require.NoError(t, err)
	assert.NotEmpty(t, types[0].DatabaseTypeName())
}

func TestAnApplicationWorksOnMariaDB(t *testing.T) {
	for name, params := range map[string]string{"binary protocol": "", "text protocol": "?interpolateParams=true"} {
		t.Run(name, func(t *testing.T) {
			db, c := openWrapped(t, maria, params)
			work(t, db, "?", "?")
			assert.NotZero(t, c.Stats().Handovers)
		})
	}
}

func TestAnApplicationWorksOnPostgreSQL(t *testing.T) {
	db, c := openWrapped(t, postgres, "")
	work(t, db, "$1", "$2")
	assert.NotZero(t, c.Stats().Handovers)
}

// TestPreparedStatementsSurviveHandovers counts what reaches the server.
func TestPreparedStatementsSurviveHandovers(t *testing.T) {
	bare, err := sql.Open(maria.Driver, maria.DSN(""))
	require.NoError(t, err)
	defer func() { assert.NoError(t, bare.Close()) }()
	bare.SetMaxOpenConns(limit)
	bare.SetMaxIdleConns(limit)
	wrapped, c := openWrapped(t, maria, "")

	nBare, nWrapped := prepares(t, bare), prepares(t, wrapped)
	t.Logf("prepares on the wire for 1000 uses of 2 statements by 50 goroutines on %d sessions: bare %d, sqllease %d (adopted: %d)",
		limit, nBare, nWrapped, c.Stats().StatementsShared)
	assert.LessOrEqual(t, nWrapped, 3*limit, "at most once per session and statement, and a few for closing")
}

// prepares uses two statements from many goroutines and returns by how much
// the server's count of prepares grew.
func prepares(t *testing.T, db *sql.DB) int {
	admin, err := sql.Open(maria.Driver, maria.DSN(""))
	require.NoError(t, err)
	defer func() { assert.NoError(t, admin.Close()) }()
	count := func() (n int) {
		var name string
		require.NoError(t, admin.QueryRow("SHOW GLOBAL STATUS LIKE 'Com_stmt_prepare'").Scan(&name, &n))
		return n
	}
	before := count()
	var stmts []*sql.Stmt
	for _, q := range []string{"SELECT ? + 1", "SELECT ? * 2"} {
		stmt, err := db.PrepareContext(t.Context(), q)
		require.NoError(t, err)
		stmts = append(stmts, stmt)
	}
	var all sync.WaitGroup
	for range 50 {
		all.Go(func() {
			for i := range 20 {
				var n int
				assert.NoError(t, stmts[i%2].QueryRowContext(t.Context(), i).Scan(&n))
				assert.Equal(t, []int{i + 1, i * 2}[i%2], n)
			}
		})
	}
	all.Wait()
	for _, s := range stmts {
		assert.NoError(t, s.Close())
	}
	return count() - before
}

func TestDiscoveryReadsTheSessionsOwnLimit(t *testing.T) {
	for name, tt := range map[string]struct {
		server *servers.Server
		params string
		limit  time.Duration
	}{
		"MariaDB":    {maria, "?wait_timeout=77", 77 * time.Second},
		"PostgreSQL": {postgres, "&options=-c%20idle_session_timeout%3D5min", 5 * time.Minute},
	} {
		t.Run(name, func(t *testing.T) {
			db, c := openWrapped(t, tt.server, tt.params)
			require.NoError(t, c.Ready(t.Context()))
			require.NoError(t, db.PingContext(t.Context()))
			assert.Equal(t, tt.limit, c.Stats().IdleLimit)
			assert.Less(t, c.Stats().Lifetime, tt.limit)
			assert.Zero(t, c.Stats().DiscoveryFailures)
		})
	}
}

func TestACancelledQueryLosesNothing(t *testing.T) {
	for name, tt := range map[string]struct {
		server *servers.Server
		query  string
	}{
		"MariaDB":    {maria, "SELECT SLEEP(5)"},
		"PostgreSQL": {postgres, "SELECT pg_sleep(5)"},
	} {
		t.Run(name, func(t *testing.T) {
			db, c := openWrapped(t, tt.server, "")
			var all sync.WaitGroup
			var failed atomic.Int64
			for range 20 {
				all.Go(func() {
					ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
					defer cancel()
					var x any
					if err := db.QueryRowContext(ctx, tt.query).Scan(&x); err != nil {
						failed.Add(1)
					}
				})
			}
			all.Wait()
			assert.Equal(t, int64(20), failed.Load())
			assert.NoError(t, db.PingContext(t.Context()))
			s := c.Stats()
			assert.Zero(t, s.InUse)
			assert.Zero(t, s.Waiting)
			assert.LessOrEqual(t, s.Open, limit)
		})
	}
}

func TestKilledSessionsAreReplaced(t *testing.T) {
	for name, tt := range map[string]struct {
		server   *servers.Server
		id, kill string
	}{
		"MariaDB":    {maria, "SELECT CONNECTION_ID()", "KILL %d"},
		"PostgreSQL": {postgres, "SELECT pg_backend_pid()", "SELECT pg_terminate_backend(%d)"},
	} {
		t.Run(name, func(t *testing.T) {
			db, c := openWrapped(t, tt.server, "")
			admin, err := sql.Open(tt.server.Driver, tt.server.DSN(""))
			require.NoError(t, err)
			defer func() { assert.NoError(t, admin.Close()) }()
			for range 5 {
				conn, err := db.Conn(t.Context())
				require.NoError(t, err)
				var id int
				require.NoError(t, conn.QueryRowContext(t.Context(), tt.id).Scan(&id))
				_, err = admin.ExecContext(t.Context(), fmt.Sprintf(tt.kill, id))
				require.NoError(t, err)
				_, err = conn.ExecContext(t.Context(), "SELECT 1")
				assert.Error(t, err, "the holder of a killed session is told")
				_ = conn.Close()
				_, err = db.ExecContext(t.Context(), "SELECT 1")
				assert.NoError(t, err, "the next caller is not")
			}
			assert.GreaterOrEqual(t, c.Stats().Closed.Dead(), uint64(5))
		})
	}
}

func TestAServerRestartIsSurvived(t *testing.T) {
	for name, s := range map[string]*servers.Server{"MariaDB": maria, "PostgreSQL": postgres} {
		t.Run(name, func(t *testing.T) {
			db, c := openWrapped(t, s, "")
			require.NoError(t, db.PingContext(t.Context()))
			s.Stop()
			var all sync.WaitGroup
			for range 20 {
				all.Go(func() {
					_, err := db.ExecContext(t.Context(), "SELECT 1")
					assert.Error(t, err)
				})
			}
			all.Wait()
			assert.Zero(t, c.Stats().InUse)
			require.NoError(t, s.Up())
			_, err := db.ExecContext(t.Context(), "SELECT 1")
			assert.NoError(t, err)
			assert.NotZero(t, c.Stats().DialErrors)
		})
	}
}

func TestATransactionWhoseContextEndsIsRolledBack(t *testing.T) {
	for name, s := range map[string]*servers.Server{"MariaDB": maria, "PostgreSQL": postgres} {
		t.Run(name, func(t *testing.T) {
			db, c := openWrapped(t, s, "")
			table(t, db, "r", "id INT PRIMARY KEY")
			ctx, cancel := context.WithCancel(t.Context())
			tx, err := db.BeginTx(ctx, &sql.TxOptions{Isolation: sql.LevelSerializable})
			require.NoError(t, err)
			_, err = tx.ExecContext(ctx, "INSERT INTO r VALUES (1)")
			require.NoError(t, err)
			cancel()
			assert.Eventually(t, func() bool { return c.Stats().InUse == 0 }, 10*time.Second, time.Millisecond)
			assert.True(t, errors.Is(tx.Commit(), sql.ErrTxDone) || ctx.Err() != nil)
			var n int
			require.NoError(t, db.QueryRowContext(t.Context(), "SELECT COUNT(*) FROM r").Scan(&n))
			assert.Zero(t, n)
		})
	}
}
