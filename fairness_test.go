package sqllease_test

import (
	"context"
	"database/sql"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/sqllease/sqllease"
	"github.com/sqllease/sqllease/internal/nothing"
)

// waiting starts a goroutine that acquires a connection and tells what came
// of it, and returns once it is in the queue.
func waiting(ctx context.Context, db *sql.DB) <-chan acquired {
	got := make(chan acquired, 1)
	asked := time.Now()
	go func() {
		conn, err := db.Conn(ctx)
		got <- acquired{conn, err, time.Since(asked)}
	}()
	synctest.Wait()
	return got
}

type acquired struct {
	conn *sql.Conn
	err  error
	took time.Duration
}

// poolOf opens a wrapped database of that many connections at most, over a
// driver that does nothing.
func poolOf(t *testing.T, limit int) (*sql.DB, *sqllease.Connector) {
	db, err := sqllease.OpenDB(nothing.Driver{}, sqllease.Config{MaxOpen: limit})
	require.NoError(t, err)
	c, ok := sqllease.ConnectorOf(db)
	require.True(t, ok)
	return db, c
}

func TestWaitersAreServedInOrderAndTheirWaitIsExact(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		db, c := poolOf(t, 1)
		holder, err := db.Conn(t.Context())
		require.NoError(t, err)
		var queue []<-chan acquired
		for range 20 {
			queue = append(queue, waiting(t.Context(), db))
			<-time.After(time.Millisecond)
		}
		for i, got := range queue {
			<-time.After(time.Second)
			require.NoError(t, holder.Close())
			synctest.Wait()
			a := <-got // it is the first in line, or this blocks for ever
			require.NoError(t, a.err)
			leases := c.Leases()
			require.Len(t, leases, 1)
			assert.Equal(t, a.took, leases[0].Queue, "waiter %d: the queue's time is a stopwatch's", i)
			assert.Equal(t, time.Duration(i+1)*time.Second+time.Duration(20-i)*time.Millisecond, a.took)
			holder = a.conn
		}
		require.NoError(t, holder.Close())
		s := c.Stats()
		assert.Equal(t, uint64(20), s.Handovers)
		assert.Equal(t, uint64(1), s.Dials)
		require.NoError(t, db.Close())
		assert.Zero(t, c.Stats().Open)
	})
}

// A waiter's context ends at the very moment at which the holder gives the
// connection back: whichever comes first, nothing is lost.
func TestAWaiterThatLeavesAsItIsServedPassesTheSessionOn(t *testing.T) {
	for range 200 {
		synctest.Test(t, func(t *testing.T) {
			db, c := poolOf(t, 1)
			holder, err := db.Conn(t.Context())
			require.NoError(t, err)
			ctx, cancel := context.WithTimeout(t.Context(), time.Second)
			defer cancel()
			first, second := waiting(ctx, db), waiting(t.Context(), db)
			<-time.After(time.Second)
			require.NoError(t, holder.Close())
			if a := <-first; a.err == nil {
				require.NoError(t, a.conn.Close())
			} else {
				require.ErrorIs(t, a.err, context.DeadlineExceeded)
			}
			b := <-second
			require.NoError(t, b.err)
			require.NoError(t, b.conn.Close())
			s := c.Stats()
			assert.Equal(t, 1, s.Open)
			assert.Zero(t, s.InUse+s.Waiting+s.Dialing)
			require.NoError(t, db.Close())
			assert.Zero(t, c.Stats().Open)
		})
	}
}

func TestClosingEndsAllWaits(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		db, c := poolOf(t, 1)
		holder, err := db.Conn(t.Context())
		require.NoError(t, err)
		queue := []<-chan acquired{waiting(t.Context(), db), waiting(t.Context(), db)}
		require.NoError(t, db.Close())
		for _, got := range queue {
			a := <-got
			assert.ErrorIs(t, a.err, sqllease.ErrClosed)
		}
		assert.Equal(t, 1, c.Stats().Open, "the holder keeps its session")
		require.NoError(t, holder.Close())
		assert.Zero(t, c.Stats().Open)
	})
}

func TestAnIdleSessionIsClosedAtItsExpiryThoughNoQueryComes(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		db, err := sqllease.OpenDB(nothing.Driver{}, sqllease.Config{MaxOpen: 3, MaxLifetime: 54 * time.Second})
		require.NoError(t, err)
		c, _ := sqllease.ConnectorOf(db)
		require.NoError(t, db.PingContext(t.Context()))
		assert.Equal(t, 54*time.Second, c.Stats().Lifetime)
		<-time.After(52 * time.Second)
		assert.Equal(t, 1, c.Stats().Open)
		<-time.After(3 * time.Second)
		synctest.Wait()
		assert.Zero(t, c.Stats().Open)
		assert.Equal(t, uint64(1), c.Stats().Closed.Retired())
		_, err = db.ExecContext(t.Context(), "DO 1")
		require.NoError(t, err, "database/sql still has the hollow handle")
		require.NoError(t, db.Close())
	})
}

func TestALimitSetByTheApplicationIsTheGates(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		db, err := sqllease.OpenDB(nothing.Driver{}, sqllease.Config{})
		require.NoError(t, err)
		c, _ := sqllease.ConnectorOf(db)
		var conns []*sql.Conn
		for range 3 {
			conn, err := db.Conn(t.Context())
			require.NoError(t, err)
			conns = append(conns, conn)
		}
		db.SetMaxOpenConns(4)
		fourth, err := db.Conn(t.Context())
		require.NoError(t, err)
		conns = append(conns, fourth)
		fifth := waiting(t.Context(), db)
		assert.Equal(t, 4, c.Stats().Limit)
		assert.Equal(t, 1, c.Stats().Waiting)
		assert.Equal(t, 100_003, db.Stats().MaxOpenConnections)
		require.NoError(t, conns[0].Close())
		a := <-fifth
		require.NoError(t, a.err)
		for _, conn := range append(conns[1:], a.conn) {
			require.NoError(t, conn.Close())
		}
		require.NoError(t, db.Close())
		assert.Zero(t, c.Stats().Open)
	})
}
