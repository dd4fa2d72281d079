package sqllease

import (
	"context"
	"database/sql"
	"fmt"
	"log/slog"
	"runtime"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/sqllease/sqllease/internal/clock"
	"github.com/sqllease/sqllease/internal/nothing"
)

// What a call, and what looks after a pool, cost with few and with many of whatever a pool
// has. None may depend on it, but for a heap's logarithm.

// atScale runs a benchmark with few and with many.
func atScale(b *testing.B, what string, f func(b *testing.B, n int)) {
	for _, n := range []int{10, 1000, 10_000} {
		b.Run(fmt.Sprintf("%s=%d", what, n), func(b *testing.B) { f(b, n) })
	}
}

// growing opens a pool on a driver that does nothing.
func growing(b *testing.B, cfg Config) (*sql.DB, *Connector) {
	cfg.Logger = slog.New(slog.DiscardHandler)
	db, err := OpenDB(nothing.Driver{}, cfg)
	require.NoError(b, err)
	b.Cleanup(func() { _ = db.Close() })
	c, _ := ConnectorOf(db)
	return db, c
}

// callsOf measures a call that does nothing.
func callsOf(b *testing.B, db *sql.DB) {
	for b.Loop() {
		if _, err := db.ExecContext(context.Background(), "DO 1"); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkGrowthOfSessions(b *testing.B) {
	atScale(b, "sessions", func(b *testing.B, n int) {
		before := heapInUse()
		db, c := growing(b, Config{MaxOpen: n, MaxLifetime: time.Hour})
		db.SetMaxIdleConns(n)
		giveBack(b, take(b, db, n)...)
		require.Equal(b, n, c.Stats().Idle)
		perSession := float64(heapInUse()-before) / float64(n)
		b.ResetTimer()
		callsOf(b, db)
		b.ReportMetric(perSession, "B/session")
	})
}

func BenchmarkGrowthOfLeases(b *testing.B) {
	atScale(b, "leases", func(b *testing.B, n int) {
		db, c := growing(b, Config{LeakThreshold: time.Hour})
		held := take(b, db, n)
		c.watch.overdue(clock.Now().Add(time.Minute)) // each has been looked at once
		b.Run("call", func(b *testing.B) { callsOf(b, db) })
		b.Run("look", func(b *testing.B) {
			at := clock.Now().Add(time.Minute)
			for b.Loop() {
				c.watch.overdue(at)
			}
		})
		giveBack(b, held...)
	})
}

// onceOnly is for what was done once, and measured: there is nothing to repeat.
func onceOnly(b *testing.B) {
	for b.Loop() {
	}
}

// BenchmarkGrowthOfLeaks has so many leases be overdue at the same instant, and so many
// callers wait in vain for them.
func BenchmarkGrowthOfLeaks(b *testing.B) {
	atScale(b, "leaks", func(b *testing.B, n int) {
		db, c := growing(b, Config{MaxOpen: n, LeakThreshold: time.Hour})
		held := take(b, db, n)
		ctx, cancel := context.WithCancel(b.Context())
		defer cancel()
		var all sync.WaitGroup
		waiting := queueUp(ctx, b, &all, db, c, n)
		at, sections, longest := clock.Now().Add(2*time.Hour), time.Duration(0), time.Duration(0)
		for more := true; more; {
			start := time.Now()
			more = c.watch.overdue(at).more
			took := time.Since(start)
			longest, sections = max(longest, took), sections+took
		}
		start := time.Now()
		c.queue.findInQueue(at)
		standstill := time.Since(start)
		require.Equal(b, n, c.Stats().InUse)
		onceOnly(b)
		b.ReportMetric(float64(sections)/float64(n), "ns/leak")
		b.ReportMetric(float64(longest), "ns-under-lock")
		b.ReportMetric(float64(standstill), "ns-standstill")
		cancel()
		all.Wait()
		waiting()
		giveBack(b, held...)
	})
}

// queueUp has so many callers wait, and returns what counts those who were served.
func queueUp(ctx context.Context, b *testing.B, all *sync.WaitGroup, db *sql.DB, c *Connector, n int) (check func()) {
	var served atomic.Int64
	for range n {
		all.Go(func() {
			if conn, err := db.Conn(ctx); err == nil {
				served.Add(1)
				_ = conn.Close()
			}
		})
	}
	for c.Stats().Waiting < n {
		runtime.Gosched()
	}
	return func() { require.Zero(b, served.Load()) }
}

// BenchmarkGrowthOfWaiters has so many callers wait, and all give up at once.
func BenchmarkGrowthOfWaiters(b *testing.B) {
	atScale(b, "waiters", func(b *testing.B, n int) {
		for name, open := range map[string]func() (*sql.DB, func() int){
			"bare": func() (*sql.DB, func() int) {
				db := sql.OpenDB(nothing.Driver{})
				db.SetMaxOpenConns(1)
				return db, func() int { return int(db.Stats().WaitCount) }
			},
			"sqllease": func() (*sql.DB, func() int) {
				db, c := growing(b, Config{MaxOpen: 1, FailDeadlockAfter: 0})
				return db, func() int { return c.Stats().Waiting }
			},
		} {
			b.Run(name, func(b *testing.B) {
				db, waiting := open()
				defer db.Close() //nolint:errcheck // nothing to close
				held := take(b, db, 1)
				ctx, cancel := context.WithCancel(context.Background())
				before := heapInUse()
				var all sync.WaitGroup
				begun := waiting()
				for range n {
					all.Go(func() { _, _ = db.ExecContext(ctx, "DO 1") })
				}
				for waiting()-begun < n {
					runtime.Gosched()
				}
				perWaiter := float64(heapInUse()-before) / float64(n)
				var m0, m1 runtime.MemStats
				runtime.ReadMemStats(&m0)
				start := time.Now()
				cancel()
				all.Wait()
				took := time.Since(start)
				runtime.ReadMemStats(&m1)
				onceOnly(b)
				b.ReportMetric(perWaiter, "B/waiter")
				b.ReportMetric(float64(took)/float64(n), "ns/give-up")
				b.ReportMetric(float64(m1.TotalAlloc-m0.TotalAlloc)/float64(n), "B/give-up")
				b.ReportMetric(float64(m1.Mallocs-m0.Mallocs)/float64(n), "allocs/give-up")
				giveBack(b, held...)
			})
		}
	})
}

// BenchmarkGrowthOfPlaces has calls come from so many places in the code, by turns.
func BenchmarkGrowthOfPlaces(b *testing.B) {
	atScale(b, "places", func(b *testing.B, n int) {
		db, _ := growing(b, Config{})
		call := func(place int) {
			from(place, func() {
				if _, err := db.ExecContext(context.Background(), "DO 1"); err != nil {
					b.Fatal(err)
				}
			})
		}
		for i := 0; i < n || b.Loop(); i++ { // one line: another would be another place
			call(i % n)
		}
	})
}

// from calls f on a stack that differs by the number, of 14 bits.
func from(n int, f func()) { left(n, 14, f) }

//go:noinline
func left(n, bits int, f func()) {
	if bits == 0 {
		f()
		return
	}
	if n&1 == 0 {
		left(n>>1, bits-1, f)
	} else {
		right(n>>1, bits-1, f)
	}
	runtime.KeepAlive(n) // no tail call
}

//go:noinline
func right(n, bits int, f func()) {
	if bits == 0 {
		f()
		return
	}
	if n&1 == 0 {
		left(n>>1, bits-1, f)
	} else {
		right(n>>1, bits-1, f)
	}
	runtime.KeepAlive(n)
}

// BenchmarkGrowthOfDepth has calls come from so deep in the code.
func BenchmarkGrowthOfDepth(b *testing.B) {
	for _, n := range []int{16, 64, 100, 128, 200, 500} {
		b.Run(fmt.Sprintf("frames=%d", n), func(b *testing.B) {
			db, _ := growing(b, Config{})
			deep(n, func() { callsOf(b, db) })
		})
	}
}

//go:noinline
func deep(n int, f func()) {
	if n == 0 {
		f()
		return
	}
	deep(n-1, f)
	runtime.KeepAlive(n)
}

// BenchmarkGrowthOfStatements has so many prepared statements, used by turns.
func BenchmarkGrowthOfStatements(b *testing.B) {
	atScale(b, "statements", func(b *testing.B, n int) {
		db, _ := growing(b, Config{MaxOpen: 10})
		all := make([]*sql.Stmt, n)
		for i := range all {
			var err error
			all[i], err = db.Prepare(fmt.Sprintf("DO %d", i))
			require.NoError(b, err)
		}
		i := 0
		for b.Loop() {
			if _, err := all[i%n].ExecContext(context.Background()); err != nil {
				b.Fatal(err)
			}
			i++
		}
		b.StopTimer()
		for _, st := range all {
			_ = st.Close()
		}
	})
}

// heapInUse is how many bytes are in use.
func heapInUse() uint64 {
	runtime.GC()
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return m.HeapAlloc
}

func TestAThousandIdlePoolsHaveNoGoroutines(t *testing.T) {
	const pools = 1000
	for range pools {
		f := &gateFake{t: t}
		db, c := f.open(Config{Name: "one of many", MaxLifetime: time.Hour})
		require.NoError(t, db.PingContext(t.Context()))
		t.Cleanup(func() { f.close(db, c) })
	}
	assert.Eventually(t, func() bool { return ownGoroutines(t) == 0 }, 10*time.Second, 10*time.Millisecond)
}
