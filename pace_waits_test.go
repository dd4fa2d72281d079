package sqllease

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/sqllease/sqllease/internal/callstack"
	"github.com/sqllease/sqllease/internal/clock"
	"github.com/sqllease/sqllease/internal/drivers"
	"github.com/sqllease/sqllease/internal/gate"
)

// What callers who may not dial yet are told, and what is dialed ahead meanwhile.

// Callers who wait although the pool is not full are told why: not that others have the
// connections.
func TestWhoMayNotDialIsToldWhy(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := &keptLog{}
		s := newDownServer(true)
		db, _ := openPool(t, s, Config{Name: "orders", MaxOpen: 50, AcquireTimeout: 20 * time.Second, Logger: slog.New(l)})
		held := take(t, db, 1)
		s.restart(time.Hour)
		_, err := db.ExecContext(t.Context(), "DO 1")
		require.ErrorIs(t, err, syscall.ECONNREFUSED)
		s.refuses = false // from now on it hangs
		var all sync.WaitGroup
		all.Go(func() { _, err := db.ExecContext(t.Context(), "DO 1"); assert.ErrorContains(t, err, "still dialing") })
		synctest.Wait()
		ctx, cancel := context.WithTimeout(t.Context(), 4*time.Second)
		defer cancel()
		_, err = db.ExecContext(ctx, "DO 1")
		var failed *AcquireError
		require.ErrorAs(t, err, &failed)
		assert.Equal(t, []any{1, "refused", 1, 1}, []any{failed.DialLimit, failed.DialFailure, failed.Dialing, failed.Position})
		assert.ErrorContains(t, err, `1 of 50 in use, 0 idle, 1 being dialed, nobody else waiting; `+
			`a dial failed (refused), so at most 1 at a time dial until the server answers; held by `)
		for range 3 {
			all.Go(func() {
				_, err := db.ExecContext(t.Context(), "DO 1")
				assert.ErrorIs(t, err, context.DeadlineExceeded)
			})
		}
		elapse(10 * time.Second)
		var slow []keptRecord
		for _, r := range l.take() {
			if r.attrs["longest_wait"] != nil {
				slow = append(slow, r)
			}
		}
		if assert.Len(t, slow, 1) {
			assert.Contains(t, slow[0].message, ": a dial failed (dial_failure), so only a few callers at a time dial until the server answers")
			assert.Equal(t, "refused", slow[0].attrs["dial_failure"])
		}
		all.Wait()
		giveBack(t, held...)
	})
}

// A request that holds a connection, and may not dial another now, is in no deadlock: one who
// waits may be served what is being dialed. With every connection held it is one as before.
func TestWhoMayNotDialIsInNoDeadlock(t *testing.T) {
	for _, full := range []bool{false, true} {
		t.Run(fmt.Sprintf("full=%v", full), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				s := newDownServer(true)
				db, c := openPool(t, s, Config{MaxOpen: 3, FailDeadlockAfter: time.Second})
				var all sync.WaitGroup
				ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
				defer cancel()
				var deadlocks, late atomic.Int32
				var both sync.WaitGroup
				both.Add(2)
				for range 2 {
					all.Go(func() {
						conn, err := db.Conn(t.Context())
						if !assert.NoError(t, err) {
							return
						}
						defer conn.Close() //nolint:errcheck // it is a good one
						both.Done()
						elapse(time.Second)
						switch _, err := db.ExecContext(ctx, "DO 1"); {
						case errors.Is(err, ErrDeadlock):
							deadlocks.Add(1)
						case err != nil:
							late.Add(1)
						}
					})
				}
				both.Wait()
				s.goDown(time.Hour)
				s.refuses = false
				failDial(t, c)
				if full {
					c.SetMaxOpen(2)
				}
				all.Wait()
				if full && callstack.Goroutine() != 0 { // else no deadlock is seen
					assert.Equal(t, []int32{1, 0}, []int32{deadlocks.Load(), late.Load()})
					return
				}
				assert.Equal(t, []int32{0, 2}, []int32{deadlocks.Load(), late.Load()})
				assert.Zero(t, c.Stats().Deadlocks)
			})
		})
	}
}

// failDial has a dial fail, for which there is room.
func failDial(t *testing.T, c *Connector) {
	w := &gate.Waiter[session, acquire]{}
	w.Prepare(&acquire{c: c}, 0, 0, 0)
	s, waits, err := c.gate.Ask(w, clock.Now())
	require.True(t, s == nil && !waits && err == nil)
	c.gate.Failed(drivers.Refused, 0)
}

// What is dialed ahead keeps to the pace, and is made up for once the server answers. Its
// failures are told of once.
func TestMinIdleKeepsToThePace(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := &keptLog{}
		s := newDownServer(true)
		s.exec = nil
		db, c := openPool(t, s, Config{MaxOpen: 20, MinIdle: 5, Logger: slog.New(l)})
		require.NoError(t, c.Ready(t.Context()))
		s.restart(time.Minute)
		c.Flush(0)
		start := time.Now()
		var all sync.WaitGroup
		for range 20 {
			all.Go(func() {
				for time.Since(start) < 50*time.Second {
					_, err := db.ExecContext(t.Context(), "DO 1")
					assert.ErrorIs(t, err, syscall.ECONNREFUSED)
					elapse(100 * time.Millisecond)
				}
			})
		}
		all.Wait()
		_, most := s.counts()
		assert.LessOrEqual(t, most, 1)
		l.wantOneWarning(t, nil, "Config.MinIdle", "could not be opened")
		elapse(41 * time.Second)
		assert.Equal(t, []int{5, 5}, []int{c.Stats().Idle, c.Stats().Open})
	})
}

// A dial that a caller's acquire had failed with was to be one of Config.MinIdle, too.
func TestMinIdleIsMadeUpForWhenACallersDialFails(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newDownServer(true)
		s.exec = nil
		db, c := openPool(t, s, Config{MinIdle: 1})
		require.NoError(t, c.Ready(t.Context()))
		elapse(time.Second)
		s.restart(20 * time.Millisecond)
		_, err := db.ExecContext(t.Context(), "DO 1")
		require.ErrorIs(t, err, syscall.ECONNREFUSED)
		elapse(time.Second)
		assert.Equal(t, 1, c.Stats().Idle)
	})
}

// A request that waits for a second connection of a pool without a limit waits for no other
// such request.
func TestWithoutALimitNobodyIsToldOfNestedAcquires(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := &keptLog{}
		s := newDownServer(true)
		db, c := openPool(t, s, Config{Logger: slog.New(l)})
		held := take(t, db, 1)
		s.restart(time.Hour)
		_, err := db.ExecContext(t.Context(), "DO 1")
		require.Error(t, err)
		s.refuses = false
		ctx, cancel := context.WithTimeout(t.Context(), 3*time.Second)
		defer cancel()
		var all sync.WaitGroup
		all.Go(func() { _, err := db.ExecContext(ctx, "DO 1"); assert.Error(t, err) })
		synctest.Wait()
		inner, stop := context.WithTimeout(t.Context(), 2*time.Second)
		defer stop()
		_, err = db.ExecContext(inner, "DO 1")
		require.ErrorContains(t, err, "nobody else waiting")
		all.Wait()
		giveBack(t, held...)
		assert.Zero(t, c.Stats().NestedAcquires)
		assert.Empty(t, l.take())
	})
}

// Whoever is to have a new connection, since one proved bad, closes a good one to dial another.
// If it may not dial, it takes the next that comes: it does not close one after the other.
func TestWhoWaitsForANewConnectionClosesOneGoodOneAtMost(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newDownServer(false)
		db, c := openPool(t, s, Config{MaxOpen: 6, LeakThreshold: -1})
		held := take(t, db, 3)
		s.goDown(time.Minute)
		failDial(t, c)
		var all sync.WaitGroup
		all.Go(func() { useOnce(t, db) }) // dials, and hangs
		synctest.Wait()
		got := make(chan error)
		go func() {
			now := clock.Now()
			c.arrivals.keep(arrival{ctx: idOf(t.Context()), start: now, bad: true}, now)
			conn, err := c.Connect(t.Context())
			got <- err
			if err == nil {
				_ = conn.Close()
			}
		}()
		synctest.Wait()
		giveBack(t, held[0])
		synctest.Wait()
		assert.Equal(t, []int{1, 1}, []int{c.Stats().Dialing, c.Stats().Waiting})
		giveBack(t, held[1])
		assert.NoError(t, <-got)
		assert.Equal(t, uint64(1), c.Stats().Closed.Suspect)
		giveBack(t, held[2])
		all.Wait()
	})
}
