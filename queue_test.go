package sqllease

import (
	"context"
	"database/sql"
	"log/slog"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/sqllease/sqllease/internal/callstack"
	"github.com/sqllease/sqllease/internal/goroutines"
)

func TestAPoolThatRunsDryIsExplainedWhileItHappens(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		log := &keptLog{}
		p := newLeakPool(t, &leakFake{}, Config{Name: "orders", MaxOpen: 1, LeakThreshold: -1, StandstillThreshold: -1, Logger: slog.New(log)})
		holder := p.lease(t)
		var wait sync.WaitGroup
		for range 3 {
			wait.Go(func() { assert.NoError(t, p.PingContext(t.Context())) })
			<-time.After(time.Second)
		}
		leakPause(1999 * time.Millisecond)
		assert.Empty(t, log.take())
		leakPause(time.Millisecond)
		records := log.take()
		require.Len(t, records, 1)
		assert.Equal(t, slog.LevelWarn, records[0].level)
		assert.Equal(t, "sqllease: callers wait for a connection for longer than Config.SlowAcquireThreshold: the code in held_by keeps connections for too long, or the limit is too low", records[0].message)
		assert.Regexp(t, `^[^/]+/leak_pool_test.go:\d+ sqllease\.\(\*leakPool\)\.lease \(1, the oldest for 5s, unused for 5s\)$`, records[0].attrs["held_by"])
		delete(records[0].attrs, "held_by")
		assert.Equal(t, map[string]any{
			"pool": "orders", "longest_wait": 5 * time.Second, "waiting": int64(3), "in_use": int64(1), "idle": int64(0), "dialing": int64(0), "limit": int64(1), "threshold": 5 * time.Second,
		}, records[0].attrs)
		leakPause(59 * time.Second)
		assert.Empty(t, log.take(), "once a minute")
		leakPause(time.Second)
		assert.Len(t, log.take(), 1)

		require.NoError(t, holder.Close())
		wait.Wait()
		leakPause(time.Hour)
		assert.Empty(t, log.take())
		assert.Zero(t, p.c.queue.at, "with the queue empty there is no timer")
	})
}

func TestShortWaitsAreNotWarnedOf(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		log := &keptLog{}
		p := newLeakPool(t, &leakFake{}, Config{MaxOpen: 1, Logger: slog.New(log)})
		for range 100 {
			holder := p.lease(t)
			done := make(chan error, 1)
			go func() { done <- p.PingContext(t.Context()) }()
			<-time.After(time.Second)
			require.NoError(t, holder.Close())
			require.NoError(t, <-done)
		}
		assert.Empty(t, log.take(), "there was always somebody in the queue, but nobody for long")
	})
}

func TestANegativeThresholdWarnsOfNoWait(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		log := &keptLog{}
		p := newLeakPool(t, &leakFake{}, Config{MaxOpen: 1, SlowAcquireThreshold: -1, StandstillThreshold: -1, LeakThreshold: -1, Logger: slog.New(log)})
		holder := p.lease(t)
		ctx, cancel := context.WithTimeout(t.Context(), time.Hour)
		defer cancel()
		waiter := make(chan error, 1)
		go func() { waiter <- p.PingContext(ctx) }()
		require.ErrorIs(t, <-waiter, context.DeadlineExceeded)
		assert.Empty(t, log.take())
		require.NoError(t, holder.Close())
	})
}

// A thousand acquires fail in a second, for some time, as when a service goes
// on asking a pool that stands still.
func TestAFloodOfFailuresFillsNoLog(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		log := &keptLog{}
		p := newLeakPool(t, &leakFake{}, Config{MaxOpen: 2, LeakThreshold: -1, Logger: slog.New(log)})
		holders := []*sql.Conn{p.lease(t), p.lease(t)}
		var wait sync.WaitGroup
		const callers, rounds = 1000, 20
		for range callers {
			wait.Go(func() {
				for range rounds {
					ctx, cancel := context.WithTimeout(t.Context(), time.Second)
					_, err := p.Conn(ctx)
					cancel()
					assert.ErrorIs(t, err, context.DeadlineExceeded)
				}
			})
		}
		wait.Wait()
		synctest.Wait()
		assert.Equal(t, uint64(callers*rounds), p.c.Stats().Timeouts)
		assert.LessOrEqual(t, len(log.take()), 2)
		for _, conn := range holders {
			require.NoError(t, conn.Close())
		}
		assert.Zero(t, p.c.Stats().InUse)
	})
}

// A server that lets nobody in is not the fault of code that holds connections.
func TestAPoolThatCannotDialIsExplained(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		log := &keptLog{}
		p := newLeakPool(t, &leakFake{takes: map[string]time.Duration{"connect": time.Hour}}, Config{MaxOpen: 1, AcquireTimeout: 8 * time.Second, Logger: slog.New(log)})
		first, second := p.waiter(t.Context()), p.waiter(t.Context())
		<-time.After(7 * time.Second)
		records := log.take()
		require.Len(t, records, 1)
		assert.Contains(t, records[0].message, "nobody has one, and the server does not let connections in")
		assert.ErrorContains(t, <-first, "still dialing the server after 8s")
		assert.Error(t, <-second)
	})
}

func TestTheWarningOfSlowAcquiresSaysWhatTheOldestHolderDoes(t *testing.T) {
	if callstack.Goroutine() == 0 {
		return // goroutines are not told apart
	}
	synctest.Test(t, func(t *testing.T) {
		log := &keptLog{}
		p := newLeakPool(t, &leakFake{}, Config{MaxOpen: 1, StandstillThreshold: -1, Logger: slog.New(log)})
		p.c.reports.looks = &goroutines.Looks{}
		go func() {
			conn := p.lease(t)
			<-time.After(8 * time.Second)
			assert.NoError(t, conn.Close())
		}()
		leakPause(time.Millisecond)
		require.NoError(t, p.PingContext(t.Context()))
		records := log.take()
		require.Len(t, records, 1)
		assert.Regexp(t, `^goroutine \d+ waits to receive from a channel at [^/ ]+/queue_test.go:\d+ sqllease.TestTheWarning`, records[0].attrs["now"])
	})
}
