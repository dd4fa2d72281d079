package sqllease

import (
	"context"
	"database/sql"
	"database/sql/driver"
	"errors"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// database/sql's own queue, which a connector meets where it is not attached,
// and for as long as a limit is not adopted.

func TestNobodyStarvesBehindDatabaseSQLsOpener(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := &gateFake{t: t, most: 1}
		db, c := f.openDetached(Config{MaxOpen: 1})
		db.SetMaxOpenConns(2)
		holder, err := db.Conn(t.Context())
		require.NoError(t, err)
		ctx, cancel := context.WithCancel(t.Context())
		defer cancel()
		atGate, inQueue := comeFor(ctx, db), comeFor(ctx, db)
		cancel() // the first makes room for the opener to dial for the second, which leaves as well
		assert.Nil(t, <-atGate)
		assert.Nil(t, <-inQueue)
		synctest.Wait()
		db.SetMaxOpenConns(5)
		waiter := make(chan error, 1)
		go func() { waiter <- db.PingContext(t.Context()) }()
		synctest.Wait()
		assert.Equal(t, 1, c.Stats().Waiting)
		require.NoError(t, holder.Close())
		require.NoError(t, <-waiter)
		f.end(db, c)
	})
}

func TestAConnectionFromTheOpenerIsAcquiredAtItsFirstCall(t *testing.T) {
	for name, use := range map[string]func(t *testing.T, conn *sql.Conn){
		"exec": func(t *testing.T, conn *sql.Conn) {
			_, err := conn.ExecContext(t.Context(), "DO 1", 7)
			require.NoError(t, err)
		},
		"query": func(t *testing.T, conn *sql.Conn) {
			var n int
			require.NoError(t, conn.QueryRowContext(t.Context(), "SELECT 1", 7).Scan(&n))
		},
		"prepare": func(t *testing.T, conn *sql.Conn) {
			st, err := conn.PrepareContext(t.Context(), "SELECT 1")
			require.NoError(t, err)
			require.NoError(t, st.Close())
		},
		"begin": func(t *testing.T, conn *sql.Conn) {
			tx, err := conn.BeginTx(t.Context(), nil)
			require.NoError(t, err)
			require.NoError(t, tx.Commit())
		},
		"ping": func(t *testing.T, conn *sql.Conn) { require.NoError(t, conn.PingContext(t.Context())) },
		"unwrap": func(t *testing.T, conn *sql.Conn) {
			require.NoError(t, conn.Raw(func(c any) error {
				_, ok := Unwrap[*gateFakeConn](c)
				assert.True(t, ok)
				return nil
			}))
		},
		"nothing": func(*testing.T, *sql.Conn) {},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				f := &gateFake{t: t}
				db, c := f.openDetached(Config{})
				conn := fromOpener(t, db)
				assert.Equal(t, 0, c.Stats().InUse, "nobody uses it yet")
				use(t, conn)
				if name != "nothing" {
					assert.Equal(t, 1, c.Stats().InUse)
					assert.Len(t, c.Leases(), 1)
				}
				second := comeFor(t.Context(), db)
				require.NoError(t, conn.Close())
				conn = <-second
				require.NotNil(t, conn)
				require.NoError(t, conn.PingContext(t.Context()))
				require.NoError(t, conn.Close())
				f.end(db, c)
			})
		})
	}
}

func TestAFirstCallThatCannotAcquireFailsAndMayBeTriedAgain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := &gateFake{t: t, most: 1}
		db, c := f.openDetached(Config{MaxOpen: 1})
		db.SetMaxOpenConns(2)
		holder, err := db.Conn(t.Context())
		require.NoError(t, err)
		blocked, cancel := context.WithCancel(t.Context())
		defer cancel()
		atGate := comeFor(blocked, db)
		fromOpener := comeFor(t.Context(), db)
		cancel()
		<-atGate
		conn := <-fromOpener
		require.NotNil(t, conn)

		short, stop := context.WithTimeout(t.Context(), time.Second)
		defer stop()
		_, err = conn.ExecContext(short, "DO 1")
		require.ErrorIs(t, err, context.DeadlineExceeded)
		var acquire *AcquireError
		require.ErrorAs(t, err, &acquire)
		assert.Equal(t, time.Second, acquire.Waited)

		require.NoError(t, holder.Close())
		_, err = conn.ExecContext(t.Context(), "DO 1")
		require.NoError(t, err)
		require.NoError(t, conn.Close())
		f.end(db, c)
	})
}

// Callers that were let in without a limit count in database/sql, so that all
// that come once a limit is set queue there, until the gate has adopted it.
func TestALimitSetUnderLoadIsAdoptedAndCausesNoStorm(t *testing.T) {
	const users, limit = 400, 20
	f := &gateFake{t: t}
	db, c := f.open(Config{MaxOpen: 10})
	db.SetMaxIdleConns(limit)
	var stop atomic.Bool
	var served, refused atomic.Int64
	var all sync.WaitGroup
	for range users {
		all.Go(func() {
			for !stop.Load() {
				conn, err := db.Conn(t.Context())
				if errors.Is(err, driver.ErrBadConn) {
					refused.Add(1)
					continue
				}
				if !assert.NoError(t, err) {
					return
				}
				served.Add(1)
				<-time.After(200 * time.Microsecond)
				assert.NoError(t, conn.Close())
			}
		})
	}
	more := func() {
		until := served.Load() + 5*users
		assert.Eventually(t, func() bool { return served.Load() > until }, time.Minute, time.Millisecond)
	}
	more()
	for n := limit / 2; n <= limit; n++ {
		db.SetMaxOpenConns(n)
		more()
	}
	for n := limit; n >= limit/2; n -= 5 {
		db.SetMaxOpenConns(n)
		more()
	}
	stop.Store(true)
	all.Wait()
	s := c.Stats()
	assert.Equal(t, limit/2, s.Limit)
	assert.Zero(t, refused.Load(), "of %d", served.Load())
	// database/sql lowers its idle connections with the limit, and drops some.
	assert.Less(t, s.Dials, uint64(users), "a limit that grows to 20 needs 20 sessions: %+v", s)
	f.close(db, c)
}

// What a drain leaves aside is under no handle that database/sql could let go.
func TestADrainLeavesNoMoreSessionsThanMayBeIdle(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := &gateFake{t: t}
		db, c := f.open(Config{MaxOpen: 10})
		db.SetMaxIdleConns(2)
		all := take(t, db, 10)
		<-time.After(time.Second)
		db.SetMaxOpenConns(10)
		queues := comeFor(t.Context(), db)
		for _, conn := range all {
			require.NoError(t, conn.Close())
			synctest.Wait()
		}
		require.NoError(t, (<-queues).Close())
		<-time.After(time.Second)
		synctest.Wait()
		assert.LessOrEqual(t, c.Stats().Open, 2)
		f.end(db, c)
	})
}

// A connector that several databases share may outlive them.
func TestAClosedDatabaseIsForgotten(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := &gateFake{t: t}
		keep, c := f.open(Config{MaxOpen: 1})
		db := sql.OpenDB(c)
		c.Attach(db)
		holder, err := db.Conn(t.Context())
		require.NoError(t, err)
		db.SetMaxOpenConns(1)
		queues := comeFor(t.Context(), db)
		c.adopt()
		require.Len(t, c.pools.attached(), 2)
		require.NoError(t, holder.Close())
		require.NoError(t, (<-queues).Close())
		require.NoError(t, db.Close())
		require.Len(t, c.pools.attached(), 1)
		f.end(keep, c)
	})
}

func TestNoLimitIsALimitToAdopt(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := &gateFake{t: t}
		db, c := f.open(Config{MaxOpen: 1})
		first, err := db.Conn(t.Context())
		require.NoError(t, err)
		db.SetMaxOpenConns(0)
		second, err := db.Conn(t.Context())
		require.NoError(t, err)
		assert.Zero(t, c.Stats().Limit)
		require.NoError(t, first.Close())
		require.NoError(t, second.Close())
		f.end(db, c)
	})
}

func TestALimitIsAdoptedThoughNobodyComesToConnect(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := &gateFake{t: t}
		db, c := f.open(Config{})
		require.NoError(t, db.PingContext(t.Context()))
		db.SetMaxOpenConns(1)
		<-time.After(time.Second)
		require.NoError(t, db.PingContext(t.Context()), "it finds its connection free")
		synctest.Wait()
		assert.Equal(t, 1, c.Stats().Limit)
		f.end(db, c)
	})
}

func TestALimitSetBeforeAttachingIsAdopted(t *testing.T) {
	f := &gateFake{t: t}
	db, c := f.openDetached(Config{})
	db.SetMaxOpenConns(3)
	c.Attach(db)
	assert.Equal(t, 3, c.Stats().Limit)
	assert.Equal(t, queueless, db.Stats().MaxOpenConnections)
	require.NoError(t, db.Close())
}
