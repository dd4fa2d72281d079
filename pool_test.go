package sqllease

import (
	"context"
	"database/sql"
	"database/sql/driver"
	"log/slog"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// How tests open a pool and use it, whatever the driver.

// openPool opens a pool for the rest of a test, after which no session is left. Unless the
// test wants the log, nobody reads it.
func openPool(t *testing.T, inner driver.Connector, cfg Config) (*sql.DB, *Connector) {
	t.Helper()
	if cfg.Logger == nil {
		cfg.Logger = slog.New(slog.DiscardHandler)
	}
	db, err := OpenDB(inner, cfg)
	require.NoError(t, err)
	c, ok := ConnectorOf(db)
	require.True(t, ok)
	t.Cleanup(func() {
		assert.NoError(t, db.Close())
		allClosed(t, c)
	})
	return db, c
}

// openDetached opens a pool that is not attached. The test closes it.
func openDetached(t testing.TB, inner driver.Connector, cfg Config) (*sql.DB, *Connector) {
	t.Helper()
	cfg.Logger = slog.New(slog.DiscardHandler)
	c, err := Wrap(inner, cfg)
	require.NoError(t, err)
	return sql.OpenDB(c), c
}

// allClosed waits for a session that has just expired, and is being closed.
func allClosed(t *testing.T, c *Connector) {
	t.Helper()
	assert.Eventually(t, func() bool { return c.Stats().Open == 0 }, 10*time.Second, time.Millisecond)
}

// elapse lets time pass, which is virtual in a bubble.
func elapse(d time.Duration) { <-time.After(d) }

// useOnce uses a pool once.
func useOnce(t *testing.T, db *sql.DB) {
	t.Helper()
	exec(t, t.Context(), db, "DO 1")
}

// caught runs f and returns what it panicked with.
func caught(f func()) (v any) {
	defer func() { v = recover() }()
	f()
	return nil
}

// usable checks that as many leases as the limit can be had at once.
func usable(t *testing.T, db *sql.DB, limit int) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	var conns []*sql.Conn
	for range limit {
		conn, err := db.Conn(ctx)
		require.NoError(t, err, "room was lost")
		require.NoError(t, conn.PingContext(ctx))
		conns = append(conns, conn)
	}
	for _, conn := range conns {
		require.NoError(t, conn.Close())
	}
}

// comeFor asks for a connection on a goroutine of its own, and returns once it
// waits.
func comeFor(ctx context.Context, db *sql.DB) <-chan *sql.Conn {
	got := make(chan *sql.Conn, 1)
	go func() {
		conn, _ := db.Conn(ctx)
		got <- conn
	}()
	synctest.Wait()
	return got
}

// take takes so many connections.
func take(t testing.TB, db *sql.DB, n int) []*sql.Conn {
	t.Helper()
	held := make([]*sql.Conn, n)
	for i := range held {
		var err error
		held[i], err = db.Conn(context.Background())
		require.NoError(t, err)
	}
	return held
}

// takeElsewhere takes a connection on another goroutine, so that none waits for itself.
func takeElsewhere(t testing.TB, db *sql.DB) (conn *sql.Conn) {
	t.Helper()
	done := make(chan struct{})
	go func() {
		defer close(done)
		conn = take(t, db, 1)[0]
	}()
	<-done
	return conn
}

// giveBack gives them back.
func giveBack(t testing.TB, held ...*sql.Conn) {
	t.Helper()
	for _, conn := range held {
		require.NoError(t, conn.Close())
	}
}

// drop gives a connection back as a bad one.
func drop(t testing.TB, conn *sql.Conn) {
	t.Helper()
	require.ErrorIs(t, conn.Raw(func(any) error { return driver.ErrBadConn }), driver.ErrBadConn)
}

// fromOpener returns a connection that database/sql's opener has made, for somebody who waits
// in database/sql. The pool is not attached, and from here on its limit is one.
func fromOpener(t *testing.T, db *sql.DB) *sql.Conn {
	t.Helper()
	db.SetMaxOpenConns(1)
	holder := take(t, db, 1)[0]
	first := comeFor(t.Context(), db)
	drop(t, holder) // so that the opener makes the next
	conn := <-first
	require.NotNil(t, conn)
	return conn
}
