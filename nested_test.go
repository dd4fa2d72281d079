//go:build gc && (amd64 || arm64) && !sqllease_no_assembly

// Elsewhere goroutines are not told apart.

package sqllease

import (
	"cmp"
	"context"
	"database/sql"
	"errors"
	"log/slog"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"go.opentelemetry.io/otel/trace"
)

// nestedPool is a pool and what it logged.
func nestedPool(t *testing.T, f *leakFake, cfg Config) (*leakPool, *keptLog) {
	log := &keptLog{}
	cfg.Logger, cfg.LeakThreshold, cfg.SlowAcquireThreshold, cfg.StandstillThreshold = slog.New(log), -1, -1, cmp.Or(cfg.StandstillThreshold, time.Second)
	return newLeakPool(t, f, cfg), log
}

// nestedRequest takes a connection, and, while it holds it, another.
func nestedRequest(ctx context.Context, db *sql.DB) error {
	tx, err := db.BeginTx(ctx, nil)
	if err != nil {
		return err
	}
	defer func() { _ = tx.Rollback() }()
	<-time.After(time.Millisecond) // all others get as far
	if _, err := db.ExecContext(ctx, "UPDATE t SET a = 'secret'"); err != nil {
		return err
	}
	return tx.Commit()
}

func TestARequestThatWaitsWhileItHoldsIsToldWhenItsConnectionComesBack(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p, log := nestedPool(t, &leakFake{}, Config{MaxOpen: 1})
		ctx, cancel := context.WithTimeout(t.Context(), 500*time.Millisecond)
		defer cancel()
		require.ErrorIs(t, nestedRequest(ctx, p.DB), context.DeadlineExceeded)
		synctest.Wait()
		nested := log.take()
		require.Len(t, nested, 1)
		assert.Equal(t, "sqllease: a request holds a connection and waits for another: if as many goroutines do this as there are connections, the pool deadlocks", nested[0].message)
		assert.Regexp(t, `/nested_test.go:\d+ sqllease.nestedRequest$`, nested[0].attrs["nested.waiter"])
		assert.Regexp(t, `/nested_test.go:\d+ sqllease.nestedRequest$`, nested[0].attrs["nested.holder"])
		assert.Equal(t, "give the connection that the request has back first, or run the inner statement on it (its *sql.Tx or *sql.Conn); if it was forgotten, close it; "+
			"or raise the limit from 1 to at least 2: that is enough for 1 such request at once, with 2 connections each", nested[0].attrs["nested.fix"])
		assert.Contains(t, nested[0].attrs["nested.holder_stack"], "nestedRequest")
		assert.Contains(t, nested[0].attrs["nested.waiter_stack"], "nestedRequest")
		assert.NotEqual(t, nested[0].attrs["nested.holder_stack"], nested[0].attrs["nested.waiter_stack"])
		leakPause(time.Hour)
		assert.Zero(t, p.c.queue.at)
	})
}

func TestAdviceKnowsWhatNestedAcquiresNeed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p, _ := nestedPool(t, &leakFake{}, Config{MaxOpen: 3})
		assert.Zero(t, p.c.Advise(Goal{}).Floor)
		ctx, cancel := context.WithTimeout(t.Context(), 500*time.Millisecond)
		defer cancel()
		var all sync.WaitGroup
		for range 3 {
			all.Go(func() { _ = nestedRequest(ctx, p.DB) })
		}
		all.Wait()
		synctest.Wait()
		assert.Equal(t, 4, p.c.Advise(Goal{}).Floor, "three requests, of two connections each")
	})
}

// A goroutine may hold several connections, which were taken at several places.
// A loop over rows that updates each is the same.
// A request that waits on one goroutine and holds on another is told by its
// trace, once the holder has done nothing for a while.
func TestANestedAcquireOnAnotherGoroutineIsToldByItsTrace(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p, log := nestedPool(t, &leakFake{}, Config{MaxOpen: 2, FailDeadlockAfter: time.Second, StandstillThreshold: time.Hour})
		request := func(n byte) error {
			ctx := trace.ContextWithSpanContext(t.Context(), trace.NewSpanContext(trace.SpanContextConfig{
				TraceID: trace.TraceID{n}, SpanID: trace.SpanID{n},
			}))
			ctx, cancel := context.WithTimeout(ctx, time.Minute)
			defer cancel()
			tx, err := p.BeginTx(ctx, nil)
			if err != nil {
				return err
			}
			<-time.After(time.Millisecond)
			done := make(chan error)
			go func() { done <- p.PingContext(ctx) }()
			return errors.Join(<-done, tx.Commit())
		}
		var wait sync.WaitGroup
		for i := range 2 {
			wait.Go(func() { _ = request(byte(i + 1)) }) // until its context ends
		}
		leakPause(10 * time.Second)
		records := log.take()
		require.Len(t, records, 1, "it may be a deadlock; but the holder may go on, for all that can be seen")
		assert.Contains(t, records[0].attrs["nested.fix"], "at least 3: that is enough for 2 such requests at once, with 2 connections each")
		assert.Equal(t, "the same trace", records[0].attrs["nested.relation"])
		assert.True(t, records[0].span.TraceID().IsValid(), "it belongs to the trace")
		wait.Wait()
		assert.Empty(t, log.take())
	})
}

// A goroutine serves one request after the other, as those of an HTTP server
// do. What an earlier one leaked is not held by a later one.
func TestWhatAnEarlierRequestLeakedIsNotHeldByTheNext(t *testing.T) {
	for _, traced := range []bool{true, false} {
		synctest.Test(t, func(t *testing.T) {
			log := &keptLog{}
			p := newLeakPool(t, &leakFake{}, Config{MaxOpen: 1, FailDeadlockAfter: map[bool]time.Duration{true: time.Second}[traced], SlowAcquireThreshold: -1, Logger: slog.New(log)})
			of := func(n byte) context.Context {
				if !traced {
					return t.Context()
				}
				return trace.ContextWithSpanContext(t.Context(), trace.NewSpanContext(trace.SpanContextConfig{TraceID: trace.TraceID{n}, SpanID: trace.SpanID{n}}))
			}
			conn, err := p.Conn(of(1)) // leaked by the first
			require.NoError(t, err)
			ctx, cancel := context.WithTimeout(of(2), time.Minute)
			defer cancel()
			require.ErrorIs(t, p.PingContext(ctx), context.DeadlineExceeded)
			require.NoError(t, conn.Close())
			synctest.Wait()
			if !traced { // for all that can be seen, it waits for itself
				return
			}
			assert.Zero(t, p.c.Stats().NestedAcquires)
			for _, r := range log.take() {
				assert.NotContains(t, r.message, "deadlock")
			}
		})
	}
}

func TestAPlaceOfNestedAcquiresIsReportedOnceWhateverWasBefore(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p, _ := nestedPool(t, &leakFake{}, Config{MaxOpen: 2})
		var deep func(int)
		deep = func(n int) {
			if n > 0 {
				deep(n - 1)
				return
			}
			assert.NoError(t, p.PingContext(t.Context()))
		}
		for i := range 12 {
			deep(i) // its stack is longer than that of what follows on the same handle
			other := p.lease(t)
			time.AfterFunc(time.Second, func() { assert.NoError(t, other.Close()) })
			done := make(chan error)
			go func() { done <- nestedRequest(t.Context(), p.DB) }()
			require.NoError(t, <-done)
			<-time.After(2 * time.Second)
		}
		synctest.Wait()
		assert.Equal(t, uint64(1), p.c.Stats().NestedAcquires)
	})
}

// waitsAfterRows reads so many rows, and then has another request of the same trace
// wait for the connection.
func waitsAfterRows(t *testing.T, rows int) (p *leakPool, result *sql.Rows, waited <-chan error) {
	p = newLeakPool(t, readingFake(60), Config{MaxOpen: 1})
	ctx := underParent(t)
	result, err := p.QueryContext(ctx, "SELECT a FROM t")
	require.NoError(t, err)
	for range rows {
		require.True(t, result.Next())
	}
	require.NoError(t, result.Err())
	leakPause(10 * time.Millisecond)
	ended := make(chan error)
	go func() { ended <- p.PingContext(ctx) }()
	return p, result, ended
}

// A lease that reads a row while another request of its trace waits does not wait
// for it.
func TestALeaseThatReadsMeanwhileIsNotNested(t *testing.T) {
	for _, rows := range []int{2, 8, 20} {
		synctest.Test(t, func(t *testing.T) {
			p, result, waited := waitsAfterRows(t, rows)
			for range 10 {
				leakPause(700 * time.Millisecond)
				require.True(t, result.Next())
			}
			assert.Zero(t, p.c.Stats().NestedAcquires, "after %d rows", rows)
			require.NoError(t, result.Close())
			require.NoError(t, <-waited)
		})
	}
}

func TestANestedAcquireIsToldAfterAnyRows(t *testing.T) {
	for _, rows := range readThese {
		synctest.Test(t, func(t *testing.T) {
			p, result, waited := waitsAfterRows(t, rows)
			leakPause(5 * time.Second)
			assert.Equal(t, uint64(1), p.c.Stats().NestedAcquires, "after %d rows", rows)
			require.NoError(t, result.Close())
			require.NoError(t, <-waited)
		})
	}
}

// A driver without direct calls gets the arguments after it has prepared the statement.
// What the application does to say what they are is no call of the driver's: two that each
// wait for another connection are a deadlock, which Config.FailDeadlockAfter ends.
// Where the limit is enough for the requests there are, it says for how many it is.
func TestANestedAcquireTellsTheLimitThatItNeeds(t *testing.T) {
	for _, c := range []struct {
		n    NestedAcquire
		want string
	}{
		{NestedAcquire{Limit: 8, Each: 2, Requests: 8}, "or raise the limit from 8 to at least 9: that is enough for 8 such requests at once, with 2 connections each"},
		{NestedAcquire{Limit: 8, Each: 2, Requests: 3}, "the limit of 8 is enough for 7 such requests at once, with 2 connections each"},
		{NestedAcquire{Limit: 3, Each: 3, Requests: 1}, "the limit of 3 is enough for 1 such request at once, with 3 connections each"},
	} {
		assert.Equal(t, c.want, c.n.limits())
	}
}

func TestANestedAcquireUnderOpenRowsTellsToCloseThem(t *testing.T) {
	n := NestedAcquire{Holder: Lease{OpenRows: 1}, Limit: 5, Each: 2, Requests: 9}
	assert.Contains(t, n.Fix(), "call rows.Close() before the inner statement (a defer is too late)")
	assert.Contains(t, n.Fix(), "from 5 to at least 10")
}
