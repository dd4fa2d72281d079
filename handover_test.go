package sqllease

import (
	"context"
	"database/sql"
	"database/sql/driver"
	"errors"
	"runtime"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/sqllease/sqllease/internal/callstack"
	"github.com/sqllease/sqllease/internal/clock"
)

// After a restart of the server bare database/sql tries two connections that it has, and
// then dials. Tickets that the pool refuses must not use up these attempts.
func TestARefusedTicketCostsNoAttemptAfterARestart(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var dead atomic.Int32 // connections of a lower number are
		f := &gateFake{t: t, script: deadBelow(&dead)}
		db, c := f.open(Config{MaxOpen: 8, MaxLifetime: time.Hour})
		db.SetMaxIdleConns(8)
		ctx := t.Context()
		old := take(t, db, 2)
		<-time.After(30 * time.Minute)
		giveBack(t, take(t, db, 2)...)
		// The two older connections have a statement each.
		giveBack(t, old[0])
		st, err := db.PrepareContext(ctx, "SELECT 1")
		require.NoError(t, err)
		again, err := db.Conn(ctx) // the connection on which it was prepared
		require.NoError(t, err)
		giveBack(t, old[1])
		_, err = st.ExecContext(ctx)
		require.NoError(t, err)
		require.NoError(t, again.Close())
		<-time.After(31 * time.Minute) // their sessions expire, and the newer ones go on
		synctest.Wait()
		require.Equal(t, 2, c.Stats().Idle)
		dead.Store(4) // the server restarts
		_, err = db.ExecContext(ctx, "DO 1")
		assert.NoError(t, err, "bare database/sql would have dialed")
		require.NoError(t, st.Close())
		f.end(db, c)
	})
}

func TestTheSessionsOfADatabaseThatWasClosedAreNotForAnother(t *testing.T) {
	for name, wait := range map[string]bool{"handed over": true, "ready": false} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				var mu sync.Mutex
				last := -1
				f := &gateFake{t: t, script: func(_ context.Context, c *gateFakeConn, call string) error {
					if call == "exec" {
						mu.Lock()
						defer mu.Unlock()
						last = c.number
					}
					return nil
				}}
				one, c := f.open(Config{MaxOpen: 1})
				two := sql.OpenDB(c)
				c.Attach(two)
				ctx := t.Context()
				if !wait {
					// A ticket of the one's is free, whose session went to make room.
					_, err := one.ExecContext(ctx, "DO 1")
					require.NoError(t, err)
				}
				tenant, err := two.Conn(ctx)
				require.NoError(t, err)
				_, err = tenant.ExecContext(ctx, "USE two")
				require.NoError(t, err)
				of := last
				done := make(chan error, 1)
				use := func() { _, err := one.ExecContext(ctx, "DO 1"); done <- err }
				if wait {
					go use()
					synctest.Wait()
				}
				require.NoError(t, two.Close())
				synctest.Wait()
				require.NoError(t, tenant.Close())
				synctest.Wait()
				if !wait {
					go use()
				}
				require.NoError(t, <-done)
				assert.NotEqual(t, of, last, "it is in the database two")
				f.end(one, c)
			})
		})
	}
}

// Databases that are closed send the callers of the others away, who come back: but not
// oftener than database/sql tries.
func TestWhoIsSentAwayIsSentAwayNoOftenerThanDatabaseSQLTries(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := &gateFake{t: t}
		db, c := f.open(Config{MaxOpen: 1})
		var others []*sql.DB
		for range 3 {
			other := sql.OpenDB(c)
			c.Attach(other)
			others = append(others, other)
		}
		holder, err := db.Conn(t.Context())
		require.NoError(t, err)
		done := make(chan error, 1)
		go func() { done <- db.PingContext(t.Context()) }()
		synctest.Wait()
		for _, other := range others {
			require.NoError(t, other.Close())
			synctest.Wait()
			assert.Equal(t, 1, c.Stats().Waiting)
		}
		require.NoError(t, holder.Close())
		assert.NoError(t, <-done)
		f.end(db, c)
	})
}

// A connection of database/sql's opener acquires at its first call, which database/sql
// may not try again.
func TestAFirstCallIsNotSentAway(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := &gateFake{t: t}
		db, c := f.openDetached(Config{MaxOpen: 1})
		db.SetMaxOpenConns(2)
		one, err := db.Conn(t.Context())
		require.NoError(t, err)
		second := comeFor(t.Context(), db) // it waits in the gate
		third := comeFor(t.Context(), db)  // in database/sql
		drop(t, one)
		holder, pending := <-second, <-third
		require.NotNil(t, holder)
		require.NotNil(t, pending)
		c.Attach(db)
		other := sql.OpenDB(c)
		c.Attach(other)
		c.SetMaxOpen(1)
		done := make(chan error, 1)
		go func() { done <- pending.PingContext(t.Context()) }()
		synctest.Wait()
		require.Equal(t, 1, c.Stats().Waiting)
		require.NoError(t, other.Close())
		synctest.Wait()
		assert.Empty(t, done, "a *sql.Conn is never tried again")
		require.NoError(t, holder.Close())
		err = <-done
		assert.NoError(t, err)
		require.NoError(t, pending.Close())
		f.end(db, c)
	})
}

// Goroutines that never come to Connect leave no trace for ever: nobody else would be
// known any more.
func TestArrivalsThatNeverCameMakeRoom(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		callstack.Find()
		var x arrivals
		var all sync.WaitGroup
		for range mostArrivals {
			all.Go(func() { x.lost(idOf(t.Context()), 0, true, clock.Now()) })
		}
		all.Wait()
		<-time.After(2 * longestArrival)
		x.lost(idOf(t.Context()), 0, true, clock.Now())
		assert.Equal(t, 1, x.take(t.Context(), clock.Now()).tries)
	})
}

// A dial ahead that never returns is tried again, as one that panics is.
func TestADialAheadThatEndsItsGoroutineIsTriedAgain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var dials atomic.Int32
		f := &gateFake{t: t, script: func(_ context.Context, _ *gateFakeConn, call string) error {
			if call == "dial" && dials.Add(1) == 1 {
				runtime.Goexit()
			}
			return nil
		}}
		db, c := f.open(Config{MinIdle: 1})
		<-time.After(time.Minute)
		assert.Equal(t, 1, c.Stats().Idle)
		f.end(db, c)
	})
}

// keepsContext is a driver, and the context that it got for its first dial.
func keepsContext(t *testing.T) (f *gateFake, first func() context.Context) {
	var of atomic.Pointer[context.Context]
	f = &gateFake{t: t, script: func(ctx context.Context, _ *gateFakeConn, call string) error {
		if call == "dial" {
			of.CompareAndSwap(nil, &ctx)
		}
		return nil
	}}
	return f, func() context.Context { return *of.Load() }
}

// A driver may use the context of its Connect for as long as the connection lives.
func TestTheContextOfADialAheadLastsAsLongAsTheConnection(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f, first := keepsContext(t)
		db, c := f.open(Config{MinIdle: 1})
		synctest.Wait()
		ctx := first()
		<-time.After(2 * refillTimeout)
		assert.NoError(t, ctx.Err(), "the connection is in use by its driver")
		require.NoError(t, db.Close())
		synctest.Wait()
		assert.Error(t, ctx.Err())
		assert.Zero(t, c.Stats().Open)
	})
}

func TestTheContextOfADialAheadOutlivesCloseWhileItsConnectionIsHeld(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f, first := keepsContext(t)
		db, c := f.open(Config{MinIdle: 1, MaxOpen: 1})
		synctest.Wait()
		conn, err := db.Conn(t.Context())
		require.NoError(t, err)
		ctx := first()
		require.NoError(t, db.Close())
		assert.NoError(t, ctx.Err(), "its holder goes on, as with bare database/sql")
		require.NoError(t, conn.Close())
		assert.Error(t, ctx.Err())
		assert.Zero(t, c.Stats().Open)
	})
}

// Where the last connection that database/sql tries is one of the pool's, it may be as bad
// as those before. The call then dials, as bare database/sql does, within its own timeout,
// and the dial's error is its own.
func TestALastAttemptDialsInItsCall(t *testing.T) {
	refused := errors.New("connection refused")
	for name, scene := range map[string]struct {
		dial func(ctx context.Context) error
		want func(t *testing.T, err error)
	}{
		"it succeeds": {
			func(context.Context) error { return nil },
			func(t *testing.T, err error) { assert.NoError(t, err) },
		},
		"it fails": {
			func(context.Context) error { return refused },
			func(t *testing.T, err error) { assert.Equal(t, refused, err) },
		},
		"it takes too long": {
			func(ctx context.Context) error { <-ctx.Done(); return ctx.Err() },
			func(t *testing.T, err error) {
				var acquire *AcquireError
				require.ErrorAs(t, err, &acquire)
				assert.Equal(t, time.Second, acquire.Waited)
			},
		},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				var dials atomic.Int32
				f := &gateFake{t: t, script: func(ctx context.Context, c *gateFakeConn, call string) error {
					switch {
					case call == "dial" && dials.Add(1) > 2:
						return scene.dial(ctx)
					case call == "exec" && c.number < 2:
						return driver.ErrBadConn
					}
					return nil
				}}
				db, c := f.open(Config{MaxOpen: 2, AcquireTimeout: time.Second})
				held := take(t, db, 2)
				giveBack(t, held[1])
				<-time.After(time.Second)
				_, err := held[0].ExecContext(t.Context(), "DO 1")
				require.ErrorIs(t, err, driver.ErrBadConn)
				_ = held[0].Close()
				now := clock.Now()
				c.arrivals.keep(arrival{ctx: idOf(t.Context()), start: now, tries: 2}, now)
				_, err = db.ExecContext(t.Context(), "DO 1")
				scene.want(t, err)
				assert.Zero(t, c.Stats().InUse)
				_, err = db.ExecContext(context.Background(), "DO 1")
				if name == "it succeeds" {
					assert.NoError(t, err)
				}
				elapse(dialGrace) // of the dials that their callers have left
				f.end(db, c)
			})
		})
	}
}
