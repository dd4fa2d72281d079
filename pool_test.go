package sqllease

import (
	"context"
	"database/sql"
	"database/sql/driver"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

func lifetimeOpen(t *testing.T, inner driver.Connector, cfg Config) (*sql.DB, *Connector) {
	t.Helper()
	db, err := OpenDB(inner, cfg)
	require.NoError(t, err)
	c, ok := ConnectorOf(db)
	require.True(t, ok)
	t.Cleanup(func() {
		assert.NoError(t, db.Close())
		assert.Zero(t, c.Stats().Open)
	})
	return db, c
}

// allClosed waits for a session that has just expired, and is being closed.
func allClosed(t *testing.T, c *Connector) {
	t.Helper()
	assert.Eventually(t, func() bool { return c.Stats().Open == 0 }, 10*time.Second, time.Millisecond)
}

// lifetimeElapse lets time pass.
func lifetimeElapse(d time.Duration) { <-time.After(d) }

// lifetimeUse uses a pool once.
func lifetimeUse(t *testing.T, db *sql.DB) {
	t.Helper()
	_, err := db.ExecContext(t.Context(), "DO 1")
	require.NoError(t, err)
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
func take(b *testing.B, db *sql.DB, n int) []*sql.Conn {
	held := make([]*sql.Conn, n)
	for i := range held {
		var err error
		held[i], err = db.Conn(context.Background())
		require.NoError(b, err)
	}
	return held
}

// giveBack gives them back.
func giveBack(b *testing.B, held []*sql.Conn) {
	for _, conn := range held {
		require.NoError(b, conn.Close())
	}
}
