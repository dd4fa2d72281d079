package sqllease

import (
	"context"
	"database/sql"
	"fmt"
	"runtime"
	"testing"
	"time"

	"github.com/sqllease/sqllease/internal/clock"
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
		c.overdue(clock.Now().Add(time.Minute)) // each has been looked at once
		b.Run(fmt.Sprintf("leases=%d/call", leases), func(b *testing.B) {
			for b.Loop() {
				if err := db.PingContext(context.Background()); err != nil {
					b.Fatal(err)
				}
			}
			b.ReportMetric(perLease, "B/lease")
		})
		b.Run(fmt.Sprintf("leases=%d/look", leases), func(b *testing.B) {
			at := clock.Now().Add(time.Minute)
			for b.Loop() {
				c.overdue(at)
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
