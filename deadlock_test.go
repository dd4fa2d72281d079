//go:build gc && (amd64 || arm64) && !sqllease_no_assembly

// Elsewhere goroutines are not told apart.

package sqllease

import (
	"context"
	"database/sql"
	"database/sql/driver"
	"log/slog"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

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
		assert.Regexp(t, `^[^/ ]+/nested_test.go:\d+ sqllease.nestedRequest: 1 connection, idle in transaction for 1s; the same goroutine waits at [^/ ]+/nested_test.go:\d+ sqllease.nestedRequest$`, records[0].attrs["standstill.held"])
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
		leakPause(time.Second)
		records := log.take()
		require.Len(t, records, 2, "and nothing is told twice")
		assert.Equal(t, "sqllease: the pool does not stand still any more", records[1].message)
		const site = `\S+_test.go:\d+ sqllease.\S+`
		assert.Regexp(t, `^`+site+`lease: 2 connections, unused for 1s; the same goroutine waits at `+site+`; `+site+`: 1 connection, idle in transaction for 1s; the same goroutine waits at `+site+`$`, records[0].attrs["standstill.held"])
		assert.Contains(t, records[0].attrs["standstill.fix"], "for 1 such request at once, with 4 connections each")
		assert.Equal(t, uint64(1), p.c.Stats().Deadlocks)
	})
}

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

// Rows may be read by another goroutine than asked for them, and it is that one which has them.
func TestRowsThatAnotherGoroutineReadsAreHeldByThatOne(t *testing.T) {
	for _, first := range []int{0, 1, 4, 15, 40} {
		synctest.Test(t, func(t *testing.T) {
			p := newStillPool(t, Config{MaxOpen: 1, FailDeadlockAfter: 2 * time.Second})
			rows, err := p.QueryContext(t.Context(), "SELECT a FROM t")
			require.NoError(t, err)
			for range first {
				require.True(t, rows.Next())
			}
			read := make(chan struct{})
			go func() {
				assert.True(t, rows.Next())
				close(read)
				elapse(10 * time.Second) // with that row
				assert.NoError(t, rows.Close())
			}()
			<-read
			assert.NoError(t, p.PingContext(t.Context()), "%d", first)
			assert.Zero(t, p.c.Stats().Deadlocks)
			leakPause(2 * time.Second)
		})
	}
}
