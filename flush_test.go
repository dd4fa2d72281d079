package sqllease

import (
	"context"
	"database/sql/driver"
	"errors"
	"log/slog"
	"slices"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/go-sql-driver/mysql"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// Connections that are replaced, and those that a service waits for when it starts.

func TestAFlushEndsEveryConnectionInEqualSteps(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f, l := &lifetimeFake{}, &keptLog{}
		db, c := openPool(t, f, Config{MaxOpen: 10, MinIdle: 10, LeakThreshold: -1, Logger: slog.New(l)})
		require.NoError(t, c.Ready(t.Context()))
		held, err := db.Conn(t.Context())
		require.NoError(t, err)
		old := f.sessions()
		require.Len(t, old, 10)
		start := time.Now()
		c.Flush(time.Minute)
		elapse(59 * time.Second)
		synctest.Wait()
		assert.Equal(t, 10, c.Stats().Open, "each has a successor")
		elapse(time.Second)
		var ends []time.Duration
		for _, s := range old {
			if !s.isOpen() {
				ends = append(ends, s.born.Add(s.closedAfter(t)).Sub(start))
			}
		}
		slices.Sort(ends)
		var want []time.Duration
		for i := 1; i < 10; i++ {
			want = append(want, time.Duration(i)*6*time.Second)
		}
		assert.Equal(t, want, ends, "the tenth is checked out")
		_, err = held.ExecContext(t.Context(), "DO 1")
		require.NoError(t, err, "it is not cut")
		require.NoError(t, held.Close())
		synctest.Wait()
		for _, s := range old {
			assert.False(t, s.isOpen())
		}
		assert.Equal(t, []uint64{10, 10}, []uint64{c.Stats().Closed.Flushed, c.Stats().Closed.Total()})
		elapse(time.Hour)
		assert.Equal(t, uint64(20), c.Stats().Dials, "what came after it stays")
		assert.Empty(t, l.records)
		endLimited(t, db, c, f)
	})
}

func TestAFlushAtOnceClosesWhatIsIdleNow(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := &lifetimeFake{}
		db, c, _ := openLimited(t, f, Config{MaxOpen: 2})
		useOnce(t, db)
		c.Flush(-time.Second)
		synctest.Wait()
		assert.False(t, f.sessions()[0].isOpen())
		useOnce(t, db)
		assert.Len(t, f.sessions(), 2)
		endLimited(t, db, c, f)
		c.Flush(0) // of a pool that is closed: nothing
	})
}

// What was dialed before a flush is not wanted after it.
func TestADialThatAFlushOvertakesIsMadeAgain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := &lifetimeFake{connect: func(context.Context, int) error {
			elapse(time.Second)
			return nil
		}}
		db, c, _ := openLimited(t, f, Config{MaxOpen: 1})
		var all sync.WaitGroup
		all.Go(func() { useOnce(t, db) })
		elapse(500 * time.Millisecond)
		c.Flush(time.Hour)
		all.Wait()
		sessions := f.sessions()
		require.Len(t, sessions, 2)
		assert.Equal(t, []int{0, 1}, []int{sessions[0].uses, sessions[1].uses})
		endLimited(t, db, c, f)
	})
}

// A dial that ends in the moment of a flush is found by it, or finds it.
func TestNoDialEscapesAFlush(t *testing.T) {
	var c *Connector
	var before atomic.Uint64 // how many flushes there had been when the last dial ended
	f := &lifetimeFake{connect: func(context.Context, int) error {
		before.Store(c.counts.flushes.Load())
		return nil
	}}
	db, pool := openPool(t, f, Config{MaxOpen: 1, Discovery: NoDiscovery})
	c = pool
	for i := range uint64(5000) {
		var all sync.WaitGroup
		all.Go(func() { useOnce(t, db) })
		all.Go(func() { c.Flush(0) })
		all.Wait()
		useOnce(t, db)
		require.Equal(t, 2*i+1, before.Load(), "a connection was used that was dialed before a flush")
		c.Flush(0)
	}
	require.Eventually(t, func() bool { return c.Stats().Open == 0 }, 10*time.Second, time.Millisecond)
}

// unclosable is a session whose Close is an error, as that of a mock that expects none.
type unclosable struct{ *lifetimeFakeConn }

func (c unclosable) Close() error {
	return errors.Join(errors.New("not expected"), c.lifetimeFakeConn.Close())
}

func TestReadyDoesNotMindWhatClosingSays(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := &lifetimeFake{dress: func(c *lifetimeFakeConn) driver.Conn { return unclosable{c} }}
		_, c := openPool(t, f, Config{})
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		require.NoError(t, c.Ready(ctx))
		assert.Len(t, f.sessions(), 1)
	})
}

func TestReadyWaitsForMinIdle(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := &keptLog{}
		f := &lifetimeFake{connect: func(context.Context, int) error {
			elapse(time.Second)
			return nil
		}}
		db, c := openPool(t, f, Config{MaxOpen: 8, MinIdle: 4, Logger: slog.New(l)})
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		require.NoError(t, c.Ready(ctx))
		assert.Equal(t, 4, c.Stats().Idle)
		cancel()
		synctest.Wait()
		for range 4 {
			conn, err := db.Conn(t.Context())
			require.NoError(t, err)
			_, err = conn.ExecContext(t.Context(), "DO 1")
			require.NoError(t, conn.Close())
			require.NoError(t, err, "the end of Ready's context is not that of its connections")
		}
		require.NoError(t, c.Ready(t.Context()), "they are there")
		elapse(5 * time.Second) // for what is being dialed
		assert.Empty(t, l.records)
	})
}

// What is dialed ahead is ready when the server has answered on it, and not before.
func TestReadyWaitsForWhatIsAsked(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := &lifetimeFake{announced: []any{slowRound(time.Second)}}
		_, c := openPool(t, f, Config{Dialect: DialectMySQL, MaxOpen: 1, MinIdle: 1})
		synctest.Wait()
		assert.Zero(t, c.Stats().Idle)
		require.NoError(t, c.Ready(t.Context()))
		assert.Equal(t, 1, c.Stats().Idle)
		assert.Equal(t, uint64(1), c.Stats().Dials)
	})
}

func TestReadySaysWhyAServiceCannotStart(t *testing.T) {
	refused := &mysql.MySQLError{Number: 1045, Message: "Access denied"}
	full := &mysql.MySQLError{Number: 1040, Message: "Too many connections"}
	for name, c := range map[string]struct {
		errs  []error // of the dials, the last for all that follow
		after time.Duration
		is    []error // nil: it succeeds
	}{
		"a wrong password":          {[]error{refused}, 0, []error{refused}},
		"a server that is dead":     {[]error{syscall.ECONNREFUSED}, 10 * time.Second, []error{syscall.ECONNREFUSED, context.DeadlineExceeded}},
		"a server that starts":      {[]error{syscall.ECONNREFUSED, syscall.ECONNREFUSED, nil}, -1, nil},
		"a server that has no room": {[]error{full}, 10 * time.Second, []error{full, context.DeadlineExceeded}},
		"a wrong password, later":   {[]error{syscall.ECONNREFUSED, refused}, -1, []error{refused}},
	} {
		for _, minIdle := range []int{0, 2} {
			t.Run(name, func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					var mu sync.Mutex
					dials := 0
					f := &lifetimeFake{connect: func(context.Context, int) error {
						mu.Lock()
						defer mu.Unlock()
						dials++
						return c.errs[min(dials, len(c.errs))-1]
					}}
					db, pool := openPool(t, f, Config{Name: "shop", MinIdle: minIdle})
					ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
					defer cancel()
					start := time.Now()
					err := pool.Ready(ctx)
					took := time.Since(start)
					if c.is == nil {
						assert.NoError(t, err)
					}
					for _, is := range c.is {
						assert.ErrorIs(t, err, is)
						assert.ErrorContains(t, err, `sqllease: pool "shop" is not ready`)
					}
					if c.after >= 0 {
						assert.Equal(t, c.after, took)
					} else {
						assert.Less(t, took, 10*time.Second)
					}
					require.NoError(t, db.Close())
					assert.ErrorIs(t, pool.Ready(t.Context()), ErrClosed)
					synctest.Wait() // somebody may have dialed ahead meanwhile
				})
			})
		}
	}
}

// A dial that hangs ends with Ready's context, which is to be told with what it was about.
func TestReadyEndsWithItsContext(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := &lifetimeFake{connect: func(ctx context.Context, _ int) error { <-ctx.Done(); return ctx.Err() }}
		db, c := openPool(t, f, Config{MinIdle: 1})
		ctx, cancel := context.WithTimeout(t.Context(), 3*time.Second)
		defer cancel()
		err := c.Ready(ctx)
		assert.ErrorIs(t, err, context.DeadlineExceeded)
		assert.NotErrorIs(t, err, errors.ErrUnsupported)
		require.NoError(t, db.Close())
		synctest.Wait()
		assert.Zero(t, c.Stats().Open)
	})
}

// A dial ahead that fails is told of, since nobody waits for it; once, until one succeeds.
func TestConnectionsThatCannotBeKeptReadyAreToldOf(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := &keptLog{}
		f := &lifetimeFake{connect: func(_ context.Context, dial int) error {
			if dial <= 3 {
				return &mysql.MySQLError{Number: 1045, Message: "Access denied"}
			}
			return nil
		}}
		db, c := openPool(t, f, Config{MinIdle: 1, ServerAddress: "db", Logger: slog.New(l)})
		elapse(time.Minute)
		assert.Equal(t, 1, c.Stats().Idle)
		l.wantOneWarning(t, map[string]string{"server": "db"}, "Config.MinIdle", "could not be opened")
		require.NoError(t, db.Close())
	})
}

// Ready without MinIdle proves the server, and harms no other connection.
func TestReadyLeavesTheOthersAlone(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := &lifetimeFake{}
		db, c := openPool(t, f, Config{MaxOpen: 3})
		useOnce(t, db)
		require.NoError(t, c.Ready(t.Context()))
		useOnce(t, db)
		assert.Equal(t, uint64(0), c.Stats().Closed.Invalid)
		assert.Equal(t, uint64(0), c.Stats().Closed.Suspect)
		assert.True(t, f.sessions()[0].isOpen())
	})
}
