//go:build gc && (amd64 || arm64) && !sqllease_no_assembly

// Elsewhere goroutines are not told apart.

package sqllease

import (
	"cmp"
	"context"
	"database/sql"
	"database/sql/driver"
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

func TestARequestThatWaitsForItselfIsADeadlock(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p, log := nestedPool(t, &leakFake{}, Config{MaxOpen: 1})
		ctx, cancel := context.WithTimeout(t.Context(), time.Hour)
		defer cancel()
		done := make(chan error, 1)
		go func() { done <- nestedRequest(ctx, p.DB) }()

		leakPause(time.Millisecond)
		queued := time.Now()
		leakPause(998 * time.Millisecond)
		assert.Empty(t, log.take())
		leakPause(2 * time.Millisecond)
		records := log.take()
		require.Len(t, records, 1)
		assert.Equal(t, slog.LevelError, records[0].level)
		assert.Equal(t, "sqllease: deadlock: every connection is held by a goroutine that waits for another", records[0].message)
		assert.Equal(t, queued.UTC(), records[0].attrs["standstill.since"].(time.Time).UTC())
		assert.Regexp(t, `^main/nested_test.go:\d+ sqllease.nestedRequest: 1 connection, idle in transaction for 1s; the same goroutine waits at main/nested_test.go:\d+ sqllease.nestedRequest$`, records[0].attrs["standstill.held"])
		assert.Equal(t, "it lasts until the context of one of these callers, or Config.AcquireTimeout, ends; with Config.FailDeadlockAfter, one of them fails and the others go on", records[0].attrs["standstill.end"])
		assert.Contains(t, records[0].attrs["standstill.fix"], "run the inner statement on it")
		leakPause(2 * time.Minute)
		assert.Empty(t, log.take(), "it is told once")
		assert.Equal(t, uint64(1), p.c.Stats().Deadlocks)
		assert.Equal(t, uint64(0), p.c.Stats().NestedAcquires, "it may still have been leaked")
		leakPause(57 * time.Minute)
		log.take()

		err := <-done
		require.ErrorIs(t, err, context.DeadlineExceeded)
		synctest.Wait()
		assert.Equal(t, uint64(1), p.c.Stats().NestedAcquires)
		assert.Empty(t, log.take(), "the record of the deadlock has named it")
		leakPause(time.Second)
		records = log.take()
		require.Len(t, records, 1)
		assert.Equal(t, "sqllease: the pool does not stand still any more", records[0].message)
		assert.Equal(t, slog.LevelInfo, records[0].level)
		assert.Regexp(t, `^(59m5\d|1h0m[0-9.]+)`, records[0].attrs["standstill.for"].(time.Duration).String())
		leakPause(time.Hour)
		assert.Zero(t, p.c.queue.at)
	})
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

func TestADeadlockIsEndedByOneThatFails(t *testing.T) {
	const limit = 10
	synctest.Test(t, func(t *testing.T) {
		p, log := nestedPool(t, &leakFake{}, Config{MaxOpen: limit, FailDeadlockAfter: time.Second})
		start := time.Now()
		var failed []error
		var mu sync.Mutex
		var wait sync.WaitGroup
		for i := range 2 * limit {
			wait.Go(func() {
				<-time.After(time.Duration(i) * time.Nanosecond)
				if err := nestedRequest(t.Context(), p.DB); err != nil {
					mu.Lock()
					defer mu.Unlock()
					failed = append(failed, err)
				}
			})
		}
		wait.Wait()
		assert.Less(t, time.Since(start), 10*time.Second)
		synctest.Wait()
		assert.Len(t, failed, 2, "one of every ten; the others go on")
		for _, err := range failed {
			var e *AcquireError
			require.ErrorIs(t, err, ErrDeadlock)
			require.ErrorAs(t, err, &e)
			assert.False(t, e.Timeout())
			assert.Equal(t, limit, e.Limit)
			assert.Equal(t, limit, e.InUse)
			assert.Contains(t, err.Error(), "(sqllease: deadlock: every connection is held by a goroutine that waits for another): 10 of 10 in use")
		}
		s := p.c.Stats()
		assert.Equal(t, uint64(len(failed)), s.Deadlocks)
		assert.Zero(t, s.Timeouts)
		assert.Zero(t, s.InUse)
		var errs, warnings int
		for _, r := range log.take() {
			switch r.level {
			case slog.LevelError:
				errs++
				assert.Contains(t, r.attrs["standstill.held"], "nested_test.go")
				assert.Contains(t, r.attrs["standstill.end"], "gets ErrDeadlock (Config.FailDeadlockAfter), and the others go on")
				assert.Regexp(t, `or raise the limit from 10 to at least \d+: that is enough for \d+ such requests at once, with 2 connections each`, r.attrs["standstill.fix"])
			case slog.LevelWarn:
				warnings++
			}
		}
		assert.Equal(t, len(failed), errs)
		assert.Zero(t, warnings, "the record of the deadlock has named the place")
	})
}

// A goroutine may hold several connections, which were taken at several places.
func TestADeadlockNamesAllPlacesThatHoldConnections(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p, log := nestedPool(t, &leakFake{}, Config{MaxOpen: 3})
		ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
		defer cancel()
		first := p.lease(t)
		tx, err := p.BeginTx(t.Context(), nil)
		require.NoError(t, err)
		second := p.lease(t)
		require.ErrorIs(t, p.PingContext(ctx), context.DeadlineExceeded)
		giveBack(t, first, second)
		require.NoError(t, tx.Rollback())
		synctest.Wait()
		records := log.take()
		require.Len(t, records, 2, "and nothing is told twice")
		assert.Equal(t, "sqllease: the pool does not stand still any more", records[1].message)
		const site = `\S+_test.go:\d+ sqllease.\S+`
		assert.Regexp(t, `^`+site+`lease: 2 connections, unused for 1s; the same goroutine waits at `+site+`; `+site+`: 1 connection, idle in transaction for 1s; the same goroutine waits at `+site+`$`, records[0].attrs["standstill.held"])
		assert.Contains(t, records[0].attrs["standstill.fix"], "for 1 such request at once, with 4 connections each")
		assert.Equal(t, uint64(1), p.c.Stats().Deadlocks)
	})
}

// A loop over rows that updates each is the same.
func TestALoopOverRowsWithAStatementInItIsADeadlock(t *testing.T) {
	rows := make([][]driver.Value, 100)
	for i := range rows {
		rows[i] = []driver.Value{int64(i)}
	}
	for _, at := range []int{1, 5, 20, 33} {
		synctest.Test(t, func(t *testing.T) {
			p, _ := nestedPool(t, &leakFake{rows: rows}, Config{MaxOpen: 1, FailDeadlockAfter: time.Second})
			rows, err := p.QueryContext(t.Context(), "SELECT a FROM t")
			require.NoError(t, err)
			for range at {
				require.True(t, rows.Next())
			}
			start := time.Now()
			_, err = p.ExecContext(t.Context(), "DO 1")
			require.ErrorIs(t, err, ErrDeadlock)
			assert.LessOrEqual(t, time.Since(start), 2*time.Second)
			require.NoError(t, rows.Err())
			require.NoError(t, rows.Close())
			require.NoError(t, p.PingContext(t.Context()))
		})
	}
}

func TestWhatGoesOnIsNoDeadlock(t *testing.T) {
	for _, c := range []struct {
		name   string
		limit  int
		takes  map[string]time.Duration
		nested uint64 // places reported
		work   func(context.Context, *testing.T, *sql.DB)
	}{
		{"parallel queries of one request", 2, map[string]time.Duration{"query": 5 * time.Second}, 0, func(ctx context.Context, t *testing.T, db *sql.DB) {
			var wait sync.WaitGroup
			for range 20 {
				wait.Go(func() { assert.NoError(t, db.QueryRowContext(ctx, "SELECT 1").Scan(new(int))) })
			}
			wait.Wait()
		}},
		{"rows that are read slowly", 1, map[string]time.Duration{"next": 3 * time.Second}, 0, func(ctx context.Context, t *testing.T, db *sql.DB) {
			var wait sync.WaitGroup
			for range 5 {
				wait.Go(func() { assert.NoError(t, db.QueryRowContext(ctx, "SELECT 1").Scan(new(int))) })
			}
			wait.Wait()
		}},
		{"a holder that computes", 1, nil, 0, func(ctx context.Context, t *testing.T, db *sql.DB) {
			tx, err := db.BeginTx(context.Background(), nil)
			require.NoError(t, err)
			var wait sync.WaitGroup
			wait.Go(func() { assert.NoError(t, db.PingContext(ctx)) })
			<-time.After(10 * time.Second)
			require.NoError(t, tx.Commit())
			wait.Wait()
		}},
		{"rows that another goroutine reads", 1, nil, 1, func(ctx context.Context, t *testing.T, db *sql.DB) {
			rows, err := db.QueryContext(ctx, "SELECT 1")
			require.NoError(t, err)
			go func() {
				<-time.After(time.Second - 1)
				for rows.Next() {
					<-time.After(5 * time.Second)
				}
				assert.NoError(t, rows.Err())
			}()
			assert.NoError(t, db.PingContext(ctx))
		}},
		{"a transaction that another goroutine ends", 1, nil, 1, func(ctx context.Context, t *testing.T, db *sql.DB) {
			tx, err := db.BeginTx(ctx, nil)
			require.NoError(t, err)
			go func() {
				_, err := tx.ExecContext(ctx, "DO 1")
				assert.NoError(t, err)
				<-time.After(5 * time.Second)
				assert.NoError(t, tx.Commit())
			}()
			assert.NoError(t, db.PingContext(ctx))
		}},
		{"nested acquires that find room", 2, nil, 0, func(ctx context.Context, t *testing.T, db *sql.DB) {
			for range 10 {
				assert.NoError(t, nestedRequest(ctx, db))
			}
		}},
		{"a nested acquire that has to wait", 2, nil, 1, func(ctx context.Context, t *testing.T, db *sql.DB) {
			var wait sync.WaitGroup
			wait.Go(func() {
				conn, err := db.Conn(t.Context())
				assert.NoError(t, err)
				<-time.After(10 * time.Second)
				assert.NoError(t, conn.Close())
			})
			<-time.After(time.Second)
			assert.NoError(t, nestedRequest(ctx, db))
			wait.Wait()
		}},
		{"a driver's connection in use", 1, nil, 1, func(ctx context.Context, t *testing.T, db *sql.DB) {
			conn, err := db.Conn(ctx)
			require.NoError(t, err)
			require.NoError(t, conn.Raw(func(c any) error {
				_, ok := Unwrap[*leakFakeConn](c)
				assert.True(t, ok)
				return nil
			}))
			time.AfterFunc(5*time.Second, func() { assert.NoError(t, conn.Close()) })
			assert.NoError(t, db.PingContext(ctx))
		}},
	} {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				p, log := nestedPool(t, &leakFake{takes: c.takes}, Config{MaxOpen: c.limit, FailDeadlockAfter: time.Second, StandstillThreshold: time.Hour})
				ctx, _ := leakTraced(t)
				c.work(ctx, t, p.DB)
				synctest.Wait()
				s := p.c.Stats()
				assert.Zero(t, s.Deadlocks)
				assert.Equal(t, c.nested, s.NestedAcquires)
				for _, r := range log.take() {
					assert.Equal(t, slog.LevelWarn, r.level, r.message)
				}
			})
		})
	}
}

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
func TestADeadlockOfValuersIsSeenAfterThePrepare(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		db, c := openPool(t, &preparingFake{}, Config{MaxOpen: 2, FailDeadlockAfter: time.Second})
		nested := false
		var both sync.WaitGroup
		ask := func() error {
			if !nested {
				return nil
			}
			both.Done()
			both.Wait()
			ctx, cancel := context.WithTimeout(context.Background(), time.Hour)
			defer cancel()
			return db.PingContext(ctx)
		}
		use := func() error {
			_, err := db.ExecContext(context.Background(), "UPDATE t SET a = ?", valuer{ask})
			return err
		}
		for range 3 { // so that the stack is known
			require.NoError(t, use())
		}
		nested = true
		both.Add(2)
		var all sync.WaitGroup
		start := time.Now()
		for range 2 {
			all.Go(func() { _ = use() })
		}
		leakPause(10 * time.Second)
		for _, l := range c.Leases() {
			assert.False(t, l.Busy, "%s since %v: it is unused, while the application works out an argument", l.Call, l.Since.Sub(start))
		}
		assert.EqualValues(t, 1, c.Stats().Deadlocks)
		all.Wait()
		assert.Less(t, time.Since(start), time.Minute)
	})
}

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
