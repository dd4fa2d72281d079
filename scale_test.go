package sqllease

import (
	"context"
	"database/sql"
	"fmt"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

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

// BenchmarkHeldLeases shows that neither a call nor a look of the watch depends
// on how many leases are out, and what a lease takes of memory, with its session,
// its handle and what database/sql has of it.
func BenchmarkHeldLeases(b *testing.B) {
	for _, leases := range []int{10, 1000, 10_000} {
		f := &lifetimeFake{}
		db, err := OpenDB(f, Config{LeakThreshold: time.Hour})
		require.NoError(b, err)
		c, _ := ConnectorOf(db)
		before := heapInUse()
		held := make([]*sql.Conn, leases)
		for i := range held {
			held[i], err = db.Conn(context.Background())
			require.NoError(b, err)
		}
		perLease := float64(heapInUse()-before) / float64(leases)
		c.gate.overdue(clock().Add(time.Minute)) // each has been looked at once
		b.Run(fmt.Sprintf("leases=%d/call", leases), func(b *testing.B) {
			for b.Loop() {
				if err := db.PingContext(context.Background()); err != nil {
					b.Fatal(err)
				}
			}
			b.ReportMetric(perLease, "B/lease")
		})
		b.Run(fmt.Sprintf("leases=%d/look", leases), func(b *testing.B) {
			at := clock().Add(time.Minute)
			for b.Loop() {
				c.gate.overdue(at)
			}
		})
		for _, conn := range held {
			require.NoError(b, conn.Close())
		}
		require.NoError(b, db.Close())
	}
}

// heapInUse is how many bytes are in use.
func heapInUse() uint64 {
	runtime.GC()
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return m.HeapAlloc
}

// BenchmarkGate shows for how long the gate's lock is held: each call of the gate
// is little else. It does not depend on how many leases are out.
func BenchmarkGate(b *testing.B) {
	for _, leases := range []int{1, 1000, 10_000} {
		now := clock()
		none := func(instant) {}
		g := &gate{threshold: time.Hour, armWatch: none, armQueue: none, armExpiry: none}
		var h *handle
		for range leases {
			s := &session{}
			h = newLent(now)
			require.True(b, g.reserve())
			g.dialed(s, now)
			g.lend(s, h)
		}
		g.limit = leases
		b.Run(fmt.Sprintf("leases=%d/release+checkout", leases), func(b *testing.B) {
			for b.Loop() {
				g.release(h, true, now)
				g.checkout(h, now)
			}
		})
		next := newLent(now)
		b.Run(fmt.Sprintf("leases=%d/ask+release+lend", leases), func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				_, w, _ := g.ask(&next.lease, now, 0)
				g.release(h, true, now)
				g.lend(w.session, next)
				h, next = next, h
			}
		})
	}
}

// newLent is a handle that is about to be lent a session.
func newLent(now instant) *handle {
	h := &handle{}
	h.lease.handle = h
	h.lease.start = now
	h.lease.hold(now, parts{})
	return h
}

// BenchmarkDistinctStatements runs 100,000 statements that differ, as a program
// does which writes its values into them, and shows what one takes, and what of
// all of them stays in memory.
func BenchmarkDistinctStatements(b *testing.B) {
	const statements, length = 100_000, 200
	rest := strings.Repeat(" OR a = 1", length/len(" OR a = 1"))
	var taken time.Duration
	runs := 0
	for b.Loop() {
		c := &summaries{}
		before, began := heapInUse(), time.Now()
		for i := range statements {
			c.of(fmt.Sprintf("SELECT a FROM t WHERE b = %d%s", i, rest))
		}
		taken += time.Since(began)
		runs++
		b.ReportMetric(float64(heapInUse()-before)/(1<<20), "MB")
		runtime.KeepAlive(c)
	}
	b.ReportMetric(float64(taken.Nanoseconds())/float64(runs*statements), "ns/statement")
}
