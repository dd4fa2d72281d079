package sqllease_test

import (
	"context"
	"database/sql"
	"database/sql/driver"
	"testing"
	"testing/synctest"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/sqllease/sqllease"
	"github.com/sqllease/sqllease/internal/nothing"
)

// sharing opens two databases on one connector.
func sharing(t *testing.T) (c *sqllease.Connector, first, second *sql.DB) {
	c, err := sqllease.Wrap(nothing.Driver{}, sqllease.Config{MaxOpen: 1})
	require.NoError(t, err)
	first, second = sql.OpenDB(c), sql.OpenDB(c)
	c.Attach(first)
	c.Attach(second)
	return c, first, second
}

func TestDatabasesShareAConnectorUntilTheLastIsClosed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c, first, second := sharing(t)
		held, err := first.Conn(t.Context())
		require.NoError(t, err)
		waiter := waiting(t.Context(), second)
		assert.Equal(t, 1, c.Stats().Waiting, "they share the limit")
		require.NoError(t, held.Close())
		got := <-waiter
		require.NoError(t, got.err)
		require.NoError(t, got.conn.Close())

		require.NoError(t, first.Close())
		require.NoError(t, first.Close())
		require.NoError(t, second.PingContext(t.Context()), "the second goes on")
		assert.Error(t, first.PingContext(t.Context()))

		require.NoError(t, second.Close())
		assert.Zero(t, c.Stats().Open)
		_, err = c.Connect(t.Context())
		assert.ErrorIs(t, err, sqllease.ErrClosed)
	})
}

func TestClosingASharedConnectorItselfClosesIt(t *testing.T) {
	c, first, second := sharing(t)
	require.NoError(t, first.Close())
	require.NoError(t, c.Close())
	assert.ErrorIs(t, second.PingContext(t.Context()), sqllease.ErrClosed)
	require.NoError(t, second.Close())
	assert.Zero(t, c.Stats().Open)
}

// disguised is a connector of the application's own around another.
type disguised struct{ driver.Connector }

func TestUnwrapReachesTheDriverThroughAllLayers(t *testing.T) {
	var connector driver.Connector = nothing.Driver{}
	for range 3 {
		outer, err := sqllease.Wrap(disguised{connector}, sqllease.Config{})
		require.NoError(t, err)
		connector = outer
	}
	db := sql.OpenDB(connector)
	defer func() { assert.NoError(t, db.Close()) }()
	conn, err := db.Conn(t.Context())
	require.NoError(t, err)
	var kept any
	require.NoError(t, conn.Raw(func(c any) error {
		kept = c
		_, ok := c.(*nothing.Conn)
		assert.False(t, ok)
		_, ok = sqllease.Unwrap[*nothing.Conn](c)
		assert.True(t, ok)
		_, ok = sqllease.Unwrap[*sql.DB](c)
		assert.False(t, ok)
		_, ok = sqllease.Unwrap[driver.ExecerContext](c)
		assert.True(t, ok)
		return nil
	}))
	require.NoError(t, conn.Close())
	_, ok := sqllease.Unwrap[*nothing.Conn](kept)
	assert.False(t, ok, "after its lease a handle leads nowhere: the session may be somebody else's")
	_, ok = sqllease.Unwrap[*nothing.Conn](nil)
	assert.False(t, ok)
	own := &nothing.Conn{}
	got, ok := sqllease.Unwrap[*nothing.Conn](own)
	assert.True(t, ok, "a driver's own connection needs no unwrapping")
	assert.Same(t, own, got)
}

// A connector that is wrapped already is refused where it can be seen. Where it cannot, both limits hold.
func TestWrappedTwiceEverythingStillWorks(t *testing.T) {
	inner, err := sqllease.Wrap(nothing.Driver{}, sqllease.Config{MaxOpen: 2})
	require.NoError(t, err)
	db, err := sqllease.OpenDB(disguised{inner}, sqllease.Config{MaxOpen: 3})
	require.NoError(t, err)
	outer, _ := sqllease.ConnectorOf(db)
	var conns []*sql.Conn
	for range 2 {
		conn, err := db.Conn(t.Context())
		require.NoError(t, err)
		conns = append(conns, conn)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 1)
	defer cancel()
	_, err = db.Conn(ctx)
	assert.ErrorIs(t, err, context.DeadlineExceeded, "the inner limit holds")
	for _, conn := range conns {
		require.NoError(t, conn.Close())
	}
	require.NoError(t, db.PingContext(t.Context()))
	assert.Equal(t, nothing.Driver{}, db.Driver())
	require.NoError(t, db.Close())
	assert.Zero(t, outer.Stats().Open)
	assert.Zero(t, inner.Stats().Open)
	require.NoError(t, inner.Close())
}
