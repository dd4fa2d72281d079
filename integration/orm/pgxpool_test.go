package orm

import (
	"bytes"
	"context"
	"database/sql"
	"errors"
	"log/slog"
	"sync/atomic"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/jackc/pgx/v5/stdlib"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/sqllease/sqllease"
)

// statements counts what pgx sends to the server.
type statements struct{ n atomic.Int64 }

func (s *statements) TraceQueryStart(ctx context.Context, _ *pgx.Conn, _ pgx.TraceQueryStartData) context.Context {
	s.n.Add(1)
	return ctx
}

func (s *statements) TraceQueryEnd(context.Context, *pgx.Conn, pgx.TraceQueryEndData) {}

// newPgxpool is a pgxpool on a database, closed at the end of the test.
func newPgxpool(t *testing.T, dsn string, most int32) (*pgxpool.Pool, *statements) {
	config, err := pgxpool.ParseConfig(dsn)
	require.NoError(t, err)
	sent := &statements{}
	config.MaxConns, config.ConnConfig.Tracer = most, sent
	pool, err := pgxpool.NewWithConfig(t.Context(), config)
	require.NoError(t, err)
	t.Cleanup(pool.Close)
	return pool, sent
}

// sentBy uses a database a hundred times.
func sentBy(t *testing.T, db *sql.DB, sent *statements) int64 {
	for range 100 {
		_, err := db.ExecContext(t.Context(), "SELECT 1")
		require.NoError(t, err)
	}
	require.NoError(t, db.Close())
	return sent.n.Load()
}

// TestNothingMoreIsSentOnAPgxpool compares: on a pgxpool below, each use takes a
// connection from it, and would be asked for the server's limits each time.
func TestNothingMoreIsSentOnAPgxpool(t *testing.T) {
	pool, sent := newPgxpool(t, postgres.DSN(""), 2*limit)
	assert.EqualValues(t, 100, sentBy(t, stdlib.OpenDBFromPool(pool), sent), "bare")

	pool, sent = newPgxpool(t, postgres.DSN(""), 2*limit)
	var log bytes.Buffer
	db, err := wrapOnPool(pool, sqllease.Config{Logger: slog.New(slog.NewTextHandler(&log, nil))})
	require.NoError(t, err)
	conn, _ := sqllease.ConnectorOf(db)
	assert.EqualValues(t, 100, sentBy(t, db, sent), "on the pgxpool")
	assert.EqualValues(t, 100, conn.Stats().Dials)
	assert.Zero(t, pool.Stat().AcquiredConns(), "nothing is kept from the pgxpool")
	assert.EqualValues(t, 1, pool.Stat().TotalConns(), "and it keeps its connection")
	assert.Equal(t, 1, bytes.Count(log.Bytes(), []byte("pgxpool: each acquire asks that pool")))

	pool, sent = newPgxpool(t, postgres.DSN(""), 2*limit)
	db, err = wrapInPlaceOfPool(pool, sqllease.Config{})
	require.NoError(t, err)
	conn, _ = sqllease.ConnectorOf(db)
	assert.Equal(t, 2*limit, conn.Stats().Limit)
	assert.LessOrEqual(t, sentBy(t, db, sent), int64(101), "in its place: one discovery at most")
	assert.EqualValues(t, 1, conn.Stats().Dials)
}

// TestOnAPgxpool does what is done with a bare connector: limit, queue, leaks, cancels
// and spans are the same.
func TestOnAPgxpool(t *testing.T) {
	var below *pgxpool.Pool
	p := newPoolBy(t, postgres, usual(t), func(p *pool, cfg sqllease.Config) *sql.DB {
		cfg.Logger = quiet
		below, _ = newPgxpool(t, p.dsn, 2*limit)
		db, err := wrapOnPool(below, cfg)
		require.NoError(t, err)
		return db
	})
	p.work(bunBlog{p, bunOnPostgreSQL(p.db)})
	p.wantSpans("INSERT users", "begin", "commit", "rollback", "pool.acquire", "pool.queue", "pool.dial")
	assert.NotZero(t, p.conn.Stats().Handovers, "callers that wait get connections from each other")
	assert.Eventually(t, func() bool { return below.Stat().AcquiredConns() == 0 }, 10*time.Second, 10*time.Millisecond)
}

// TestAWaitInAPgxpoolIsADial has other code hold the pgxpool's connection: what a
// caller waits for it is shown as a dial, and bounded as one.
func TestAWaitInAPgxpoolIsADial(t *testing.T) {
	below, _ := newPgxpool(t, postgres.DSN(""), 1)
	db, err := sqllease.OpenDB(stdlib.GetPoolConnector(below), sqllease.Config{MaxOpen: 1, Logger: quiet, AcquireTimeout: 200 * time.Millisecond})
	require.NoError(t, err)
	defer func() { assert.NoError(t, db.Close()) }()
	pool, _ := sqllease.ConnectorOf(db)
	other, err := below.Acquire(t.Context())
	require.NoError(t, err)

	err = db.PingContext(t.Context())
	var timeout *sqllease.AcquireError
	require.ErrorAs(t, err, &timeout)
	assert.ErrorIs(t, err, context.DeadlineExceeded)
	assert.Zero(t, pool.Stats().Waits)
	assert.Equal(t, 1, pool.Stats().Dialing, "it goes on, for the next")

	got := make(chan error)
	go func() { got <- db.PingContext(t.Context()) }()
	require.Eventually(t, func() bool { return pool.Stats().Dialing == 1 }, 10*time.Second, time.Millisecond)
	other.Release()
	assert.NoError(t, <-got)
}

// TestALeakOnAPgxpoolIsReported holds one of its connections.
func TestALeakOnAPgxpoolIsReported(t *testing.T) {
	below, _ := newPgxpool(t, postgres.DSN(""), 2*limit)
	leaks := make(chan sqllease.Leak, 1)
	db, err := wrapOnPool(below, sqllease.Config{
		Logger: quiet, LeakThreshold: 20 * time.Millisecond, ReclaimAfter: 50 * time.Millisecond,
		OnLeak: func(l sqllease.Leak) { leaks <- l },
	})
	require.NoError(t, err)
	defer func() { assert.NoError(t, db.Close()) }()
	tx, err := db.BeginTx(t.Context(), nil)
	require.NoError(t, err)
	leak := <-leaks
	assert.Contains(t, leak.Stack.String(), "orm.TestALeakOnAPgxpoolIsReported")
	require.Eventually(t, func() bool { return below.Stat().TotalConns() == 0 }, 10*time.Second, time.Millisecond,
		"the pgxpool closes a connection that comes back in a transaction")
	var reclaimed *sqllease.ReclaimedError
	assert.True(t, errors.As(tx.Commit(), &reclaimed))
}
