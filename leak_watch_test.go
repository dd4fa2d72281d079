package sqllease

import (
	"database/sql"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// The watch: many leases have their turns, and a pool that rests has no timer.

// Reports come in order of acquiring, each at its own deadline; leases that
// are returned in time stay unmentioned; the watch wakes up no more often than
// there are leases.
func TestOfManyLeasesEachIsReportedInItsTurn(t *testing.T) {
	const leases = 1000
	synctest.Test(t, func(t *testing.T) {
		p := newLeakPool(t, &leakFake{}, Config{})
		arms := leakCountArms(p.c)
		conns := make([]*sql.Conn, leases)
		taken := make(map[uint64]time.Time)
		for i := range conns {
			conns[i] = p.lease(t)
			taken[uint64(i+1)] = time.Now()
			<-time.After([]time.Duration{0, 1, time.Millisecond}[i%3]) // some at the same instant
		}
		var missing []uint64
		for i := 0; i < leases; i += 4 {
			require.NoError(t, conns[i].Close())
			missing = append(missing, uint64(i+1))
		}
		leakPause(time.Hour)
		reports := p.take()
		assert.Len(t, reports, leases-len(missing))
		assert.True(t, slices.IsSortedFunc(reports, func(a, b leakReport) int { return int(a.ID) - int(b.ID) }))
		for _, l := range reports {
			assert.Equal(t, 30*time.Second, l.Hold)
			assert.Equal(t, taken[l.ID].Add(30*time.Second), l.at)
			delete(taken, l.ID)
		}
		assert.Len(t, taken, len(missing), "none was reported twice")
		for _, id := range missing {
			assert.Contains(t, taken, id)
		}
		assert.LessOrEqual(t, arms(), 2*leases, "twice each: for the first look, and when it is overdue")
		assert.Equal(t, uint64(len(reports)), p.c.Stats().Leaks)
		for i, conn := range conns {
			if i%4 > 0 {
				require.NoError(t, conn.Close())
			}
		}
		assert.Len(t, p.take(), len(reports), "all of them come back late")
	})
}

// The watch's timer is set for the oldest lease, whatever begins and ends
// meanwhile: nobody can put off a report of somebody else's lease.
func TestNoOtherLeasePutsAReportOff(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newLeakPool(t, &leakFake{}, Config{})
		held := map[uint64]*sql.Conn{}
		for id := uint64(1); id <= 80; id += 4 { // a lease every 3 s is held, each followed by short ones
			held[id] = p.lease(t)
			for range 3 {
				require.NoError(t, p.PingContext(t.Context()))
				<-time.After(time.Second)
			}
		}
		leakPause(time.Minute)
		reports := p.take()
		require.Len(t, reports, 20)
		for i, l := range reports {
			assert.Equal(t, uint64(4*i+1), l.ID)
			assert.Equal(t, 30*time.Second, l.Hold)
			require.NoError(t, held[l.ID].Close())
		}
	})
}

// leakCountArms counts how often the watch's timer is armed from now on.
func leakCountArms(c *Connector) func() int {
	sets := func() int {
		c.watch.timer.mu.Lock()
		defer c.watch.timer.mu.Unlock()
		return c.watch.timer.sets
	}
	before := sets()
	return func() int { return sets() - before }
}

// Whatever an application does between two silences, the watch goes to sleep
// with it, without a goroutine and without a timer.
func TestAnIdlePoolArmsNoTimer(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newLeakPool(t, &leakFake{}, Config{LeakThreshold: time.Second})
		arms := leakCountArms(p.c)
		leakPause(time.Hour)
		assert.Zero(t, arms(), "nothing was ever on lease")
		for range 1000 {
			require.NoError(t, p.PingContext(t.Context()))
		}
		assert.Equal(t, 1, arms(), "one timer does for all")
		leakPause(time.Second)
		assert.Zero(t, p.c.watch.at.Load())
		leakPause(1000 * time.Hour)
		assert.Equal(t, 1, arms())
		assert.False(t, p.c.watch.timer.t.Stop(), "the timer has fired and was not armed again")
		assert.Zero(t, ownGoroutines(t))
		assert.Empty(t, p.take())

		conn := p.lease(t)
		leakPause(time.Second)
		p.one(t)
		leakPause(time.Hour)
		assert.Equal(t, 2, arms(), "a lease that was reported needs no timer")
		require.NoError(t, conn.Close())
	})
}
