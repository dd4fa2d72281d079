package sqllease

import (
	"context"
	"database/sql"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// When the sessions of a pool end, in virtual time.

// span is when a session was dialed and closed, since a start.
type span struct{ dialed, closed time.Duration }

// spansOf are those of all sessions that were closed.
func spansOf(f *lifetimeFake, start time.Time) (all []span) {
	for _, s := range f.sessions() {
		s.mu.Lock()
		if len(s.closings) > 0 {
			all = append(all, span{s.born.Sub(start), s.closings[0].Sub(start)})
		}
		s.mu.Unlock()
	}
	return all
}

// mostTogether is how many of some instants are within the same time, at most.
func mostTogether(at []time.Duration, within time.Duration) (most int) {
	slices.Sort(at)
	first := 0
	for i := range at {
		for at[i]-at[first] >= within {
			first++
		}
		most = max(most, i-first+1)
	}
	return most
}

// Sixty sessions that were dialed together end spread over their lifetime, and so do their
// successors.
func TestTheEndsOfSessionsThatWereDialedTogetherAreSpread(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const sessions, lifetimes, life = 60, 30, time.Hour
		f := &lifetimeFake{}
		db, c := openPool(t, f, Config{MaxOpen: sessions, MinIdle: sessions, MaxLifetime: life})
		start := time.Now()
		require.NoError(t, c.Ready(t.Context()))
		require.Equal(t, sessions, c.Stats().Idle)
		elapse(lifetimes * life)
		assert.Equal(t, sessions, c.Stats().Idle)
		dials := make([]int, lifetimes)
		var tenths [10]int
		var ends []time.Duration
		for _, s := range spansOf(f, start) {
			if s.dialed == 0 {
				tenths[min(int(s.closed*10/life), 9)]++
			}
			if s.closed >= life {
				ends = append(ends, s.closed)
			}
			assert.LessOrEqual(t, s.closed-s.dialed, life, "a bound is a bound")
			dials[min(int(s.dialed/life), lifetimes-1)]++
		}
		assert.Equal(t, [10]int{6, 6, 6, 6, 6, 6, 6, 6, 6, 6}, tenths, "of the first generation")
		later := mostTogether(ends, life/10)
		assert.LessOrEqual(t, later, 15, "a tenth of a lifetime from any moment on has a part of two or three that were counted; by chance, mostly 10")
		steady := 0
		for _, n := range dials[10 : lifetimes-1] {
			steady += n
		}
		perLifetime := float64(steady) / float64(lifetimes-11) / sessions
		assert.Less(t, perLifetime, 1.08, "dials of a session in a lifetime; 1.01 without the spread, by the jitter")
		t.Logf("at most %d of %d end in the same tenth later on; %.3f dials per session and lifetime; in the first: %d", later, sessions, perLifetime, dials[0]-sessions)
		useOnce(t, db)
	})
}

// What the configuration says is spread by more from the first, and by no more than that if
// there is room.
func TestLifetimeJitterSpreadsTheEnds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var ends []time.Duration
		for range 200 { // pools of one session
			f := &lifetimeFake{}
			db, _ := openPool(t, f, Config{MaxLifetime: time.Hour, LifetimeJitter: 0.5})
			useOnce(t, db)
			elapse(time.Hour + time.Second)
			ends = append(ends, f.sessions()[0].closedAfter(t))
		}
		slices.Sort(ends)
		assert.GreaterOrEqual(t, ends[0], 30*time.Minute)
		assert.Less(t, ends[0], 33*time.Minute)
		assert.Greater(t, ends[199], 57*time.Minute)
		assert.InDelta(t, 45, ends[100].Minutes(), 5)
	})
}

// A server that is asked after the pool was opened shortens the lives of all sessions at once.
// Their ends are spread as well.
func TestEndsThatADiscoveryBringsNearerAreSpread(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := &lifetimeFake{announced: []any{lifetimeSeconds(3600)}}
		db, _ := openPool(t, f, Config{Dialect: DialectMySQL, MaxOpen: 60, LeakThreshold: -1})
		giveBack(t, take(t, db, 60)...)
		start := time.Now()
		asked()
		elapse(time.Hour)
		var ends []time.Duration
		for _, s := range spansOf(f, start) {
			ends = append(ends, s.closed)
		}
		require.Len(t, ends, 60)
		assert.LessOrEqual(t, mostTogether(ends, 6*time.Minute-30*time.Second), 12)
		var tenths [10]int
		for _, end := range ends {
			tenths[min(int(end*10/(3570*time.Second)), 9)]++
		}
		assert.Equal(t, [10]int{6, 6, 6, 6, 6, 6, 6, 6, 6, 6}, tenths)
	})
}

// A server's limit that was lowered may end a thousand sessions in the same second. Their
// callers do not notice.
func TestAThousandSessionsThatEndTogetherLoseNoCaller(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const sessions, callers = 1000, 1050
		f := &lifetimeFake{
			exec:    func(context.Context) error { elapse(700 * time.Millisecond); return nil },
			connect: func(context.Context, int) error { elapse(10 * time.Millisecond); return nil },
		}
		db, c := openPool(t, f, Config{MaxOpen: sessions, MaxLifetime: time.Hour, LeakThreshold: -1})
		var all sync.WaitGroup
		stop := time.Now().Add(2 * time.Second)
		for range callers {
			all.Go(func() {
				for time.Now().Before(stop) {
					_, err := db.ExecContext(t.Context(), "DO 1")
					assert.NoError(t, err)
				}
			})
		}
		elapse(time.Second)
		require.Equal(t, sessions, c.Stats().Open)
		c.Flush(time.Second) // as if their limit had been lowered
		all.Wait()
		s := c.Stats()
		assert.Zero(t, s.Closed.Dead()+s.Closed.Panicked+s.Closed.Cancelled, "%+v", s.Closed)
		assert.GreaterOrEqual(t, s.Closed.Flushed, uint64(sessions*9/10), "some may have ended before")
		assert.Zero(t, s.Waiting+s.InUse+s.Dialing)
		assert.LessOrEqual(t, s.Open, sessions)
	})
}

// A machine that slept: timers fire late, or together, and nothing that is over goes out.
func TestAfterAMachineSleptNothingThatIsOverIsHandedOut(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := &lifetimeFake{idleLimit: 10 * time.Minute}
		db, c := openPool(t, f, Config{NetworkIdleLimit: 10 * time.Minute, MaxOpen: 20, LeakThreshold: -1})
		held := take(t, db, 20)
		giveBack(t, held[:10]...)
		// Time stands still for all timers until this goroutine, which does not block, lets go:
		// so they are looked at after an hour, those who come first before any timer.
		var got []*sql.Conn
		var mu sync.Mutex
		var all sync.WaitGroup
		for range 10 {
			all.Go(func() {
				<-time.After(time.Hour)
				conn, err := db.Conn(t.Context())
				assert.NoError(t, err)
				mu.Lock()
				defer mu.Unlock()
				got = append(got, conn)
			})
		}
		time.Sleep(time.Hour) //nolint:forbidigo // virtual time, which passes at once
		all.Wait()
		giveBack(t, held[10:]...)
		for range 10 {
			useOnce(t, db)
		}
		for _, conn := range got {
			_, err := conn.ExecContext(t.Context(), "DO 1")
			assert.NoError(t, err)
		}
		giveBack(t, got...)
		for _, s := range f.sessions() {
			assert.Zero(t, s.late, "session %d was used after its end", s.number)
		}
		for _, s := range f.sessions()[:20] {
			assert.False(t, s.isOpen())
		}
		assert.Equal(t, uint64(20), c.Stats().Closed.Retired())
	})
}
