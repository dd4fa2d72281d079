package integration

import (
	"context"
	"database/sql"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/sqllease/sqllease"
	"github.com/sqllease/sqllease/integration/internal/servers"
)

// What docs/concepts.md says of PgBouncer, on one in transaction mode.

// pgbouncer starts one that has so many connections to the server, until the end of the test,
// and returns a data source name for pgx.
func pgbouncer(t *testing.T, size int, settings string) string {
	t.Helper()
	dir := filepath.Join(t.TempDir(), "pgbouncer")
	require.NoError(t, os.Chmod(filepath.Dir(dir), 0o755)) //nolint:gosec // it is read by another user
	p, err := servers.PgBouncer(dir, postgres, "postgres", fmt.Sprintf("pool_mode = transaction\ndefault_pool_size = %d\n%s", size, settings))
	require.NoError(t, err)
	t.Cleanup(func() {
		if said := p.Stop(); t.Failed() {
			t.Log(said)
		}
	})
	return "postgres://postgres@" + p.Addr + "/postgres?sslmode=disable&default_query_exec_mode=exec"
}

// openThrough opens a pool behind a PgBouncer for the rest of the test.
func openThrough(t *testing.T, dsn string, cfg sqllease.Config) (*sql.DB, *sqllease.Connector) {
	t.Helper()
	cfg.Logger = slog.New(slog.DiscardHandler)
	db, err := sqllease.Open("pgx", dsn, cfg)
	require.NoError(t, err)
	t.Cleanup(func() { assert.NoError(t, db.Close()) })
	c, ok := sqllease.ConnectorOf(db)
	require.True(t, ok)
	return db, c
}

func TestStatementsAndTransactionsWorkBehindTransactionPooling(t *testing.T) {
	for _, mode := range []string{"exec", "simple_protocol"} {
		dsn := pgbouncer(t, 2, "") + "&default_query_exec_mode=" + mode
		db, c := openThrough(t, dsn, sqllease.Config{MaxOpen: 5, Comments: sqllease.CommentsAppend})
		var all sync.WaitGroup
		for i := range 20 {
			all.Go(func() {
				for range 10 {
					var n int
					if assert.NoError(t, db.QueryRowContext(t.Context(), "SELECT $1::int", i).Scan(&n)) {
						assert.Equal(t, i, n)
					}
					tx, err := db.BeginTx(t.Context(), nil)
					if !assert.NoError(t, err) {
						return
					}
					_, err = tx.ExecContext(t.Context(), "SELECT pg_advisory_xact_lock($1)", i)
					assert.NoError(t, err)
					assert.NoError(t, tx.Commit())
				}
			})
		}
		all.Wait()
		assert.Zero(t, c.Stats().InUse)
		assert.Zero(t, c.Stats().Closed.Dead(), mode)
		assert.LessOrEqual(t, c.Stats().Dials, uint64(5))
	}
}

// holding begins a transaction, which keeps one of PgBouncer's connections.
func holding(t *testing.T, db *sql.DB) *sql.Tx {
	t.Helper()
	tx, err := db.BeginTx(t.Context(), nil)
	require.NoError(t, err)
	_, err = tx.ExecContext(t.Context(), "SELECT 1")
	require.NoError(t, err)
	return tx
}

// dialAll has a pool open as many connections as it may.
func dialAll(t *testing.T, db *sql.DB, n int) {
	t.Helper()
	conns := make([]*sql.Conn, n)
	for i := range conns {
		var err error
		conns[i], err = db.Conn(t.Context())
		require.NoError(t, err)
	}
	for _, conn := range conns {
		require.NoError(t, conn.Close())
	}
}

// What PgBouncer makes a caller wait for is not in the pool's queue. It is in the call, or in
// the ping by which the driver resets a connection that was idle for long.
func TestAWaitInPgBouncerIsASlowCall(t *testing.T) {
	slow := make(chan sqllease.SlowCall, 10)
	db, c := openThrough(t, pgbouncer(t, 1, ""), sqllease.Config{
		MaxOpen: 2, LeakThreshold: time.Minute, SlowCallThreshold: 50 * time.Millisecond,
		OnSlowCall: func(s sqllease.SlowCall) {
			if !s.Returned {
				slow <- s
			}
		},
	})
	dialAll(t, db, 2)
	tx := holding(t, db)
	done := make(chan error, 1)
	go func() { _, err := db.ExecContext(t.Context(), "SELECT 1"); done <- err }()
	assert.Contains(t, []sqllease.Call{sqllease.CallExec, sqllease.CallReset}, (<-slow).Call)
	s := c.Stats()
	assert.Equal(t, []int{2, 0}, []int{s.InUse, s.Waiting})
	assert.Zero(t, s.Waits)
	require.NoError(t, tx.Commit())
	require.NoError(t, <-done)
}

// Nobody waits for the question for the limits, although PgBouncer has no connection free to
// answer it: a new connection is there at once, and so is the next, in the room of the one
// that is being asked.
func TestNobodyWaitsForAQuestionThatPgBouncerCannotAnswer(t *testing.T) {
	db, c := openThrough(t, pgbouncer(t, 1, ""), sqllease.Config{MaxOpen: 2})
	tx := holding(t, db)
	for range 2 {
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		conn, err := db.Conn(ctx)
		cancel()
		require.NoError(t, err)
		require.NoError(t, conn.Close())
		require.Eventually(t, func() bool { return c.Stats().Idle == 0 || c.Stats().Dials == 3 }, 10*time.Second, time.Millisecond, "it is being asked")
	}
	assert.Equal(t, []uint64{3, 1, 1}, []uint64{c.Stats().Dials, c.Stats().DiscoveryFailures, c.Stats().Closed.Invalid})
	require.NoError(t, tx.Commit())
	require.NoError(t, db.PingContext(t.Context()))
}

func TestPgBouncersOwnTimeoutEndsTheConnectionAndTheNextCallDials(t *testing.T) {
	db, c := openThrough(t, pgbouncer(t, 1, "query_wait_timeout = 1"), sqllease.Config{MaxOpen: 2})
	dialAll(t, db, 2)
	tx := holding(t, db)
	_, err := db.ExecContext(t.Context(), "SELECT 1")
	require.ErrorContains(t, err, "query_wait_timeout")
	require.NoError(t, tx.Commit())
	dialAll(t, db, 2)
	assert.Greater(t, c.Stats().Dials, uint64(2))
	assert.NotZero(t, c.Stats().Closed.Dead(), "%+v", c.Stats().Closed)
}

// A connection keeps nothing outside of a transaction, although it is one connection here.
func TestASessionsStateIsLostBehindTransactionPooling(t *testing.T) {
	db, _ := openThrough(t, pgbouncer(t, 2, ""), sqllease.Config{MaxOpen: 2, LeakThreshold: -1})
	conn, err := db.Conn(t.Context())
	require.NoError(t, err)
	defer func() { assert.NoError(t, conn.Close()) }()
	shown := func() (s string) {
		require.NoError(t, conn.QueryRowContext(t.Context(), "SHOW work_mem").Scan(&s))
		return s
	}
	_, err = conn.ExecContext(t.Context(), "SET work_mem = '7MB'")
	require.NoError(t, err)
	require.Equal(t, "7MB", shown())
	tx, err := db.BeginTx(t.Context(), nil) // on the same connection to the server
	require.NoError(t, err)
	defer func() { assert.NoError(t, tx.Commit()) }()
	var other string
	require.NoError(t, tx.QueryRowContext(t.Context(), "SHOW work_mem").Scan(&other))
	assert.Equal(t, "7MB", other, "another caller has what was set")
	assert.NotEqual(t, "7MB", shown(), "and the one who set it has not")
}

// The idle limit of PgBouncer is not found out; what is found out is the server's.
func TestTheIdleLimitOfPgBouncerHasToBeToldAndThenNobodyMeetsIt(t *testing.T) {
	dsn := pgbouncer(t, 2, "client_idle_timeout = 1")
	untold, c := openThrough(t, dsn, sqllease.Config{MaxOpen: 1})
	told, d := openThrough(t, dsn, sqllease.Config{MaxOpen: 1, NetworkIdleLimit: time.Second})
	dialAll(t, untold, 1)
	dialAll(t, told, 1)
	assert.Equal(t, []time.Duration{0, time.Second}, []time.Duration{c.Stats().IdleLimit, d.Stats().IdleLimit})
	require.Eventually(t, func() bool {
		dialAll(t, untold, 1)
		return c.Stats().Closed.Dead() > 0
	}, time.Minute, 3*time.Second)
	assert.Equal(t, uint64(1), d.Stats().Closed.IdleLimit)
	assert.Zero(t, d.Stats().Closed.Dead())
}
