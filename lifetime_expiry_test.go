package sqllease

import (
	"context"
	"database/sql"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// Sessions that end at their expiry, in virtual time.

func TestAnIdleSessionIsClosedAtItsExpiryWithoutAQuery(t *testing.T) {
	for name, c := range map[string]struct {
		announced int64 // seconds; 0: nothing is asked
		cfg       Config
		limit     time.Duration
		bound     time.Duration
	}{
		"discovered":             {60, Config{}, time.Minute, 54 * time.Second},
		"discovered, hours":      {28800, Config{}, 8 * time.Hour, 8*time.Hour - 30*time.Second},
		"network":                {0, Config{NetworkIdleLimit: 10 * time.Second}, 10 * time.Second, 9 * time.Second},
		"network below a second": {0, Config{NetworkIdleLimit: 40 * time.Millisecond}, 40 * time.Millisecond, 20 * time.Millisecond},
		"network before server":  {600, Config{NetworkIdleLimit: 100 * time.Second}, 100 * time.Second, 90 * time.Second},
		"server before network":  {100, Config{NetworkIdleLimit: 600 * time.Second}, 100 * time.Second, 90 * time.Second},
		"maximum":                {0, Config{MaxLifetime: time.Hour}, 0, time.Hour},
		"maximum before server":  {28800, Config{MaxLifetime: time.Hour}, 8 * time.Hour, time.Hour},
		"server before maximum":  {60, Config{MaxLifetime: time.Hour}, time.Minute, 54 * time.Second},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				c.cfg.Dialect = ""
				f := &lifetimeFake{idleLimit: c.limit}
				if c.announced > 0 {
					c.cfg.Dialect = DialectMySQL
					f.announced = []any{lifetimeSeconds(c.announced)}
				}
				db, pool := openPool(t, f, c.cfg)
				useOnce(t, db)
				var known time.Duration
				if c.announced > 0 {
					known = askAfter
					asked()
				}
				s := pool.Stats()
				assert.Equal(t, c.limit, s.IdleLimit)
				lifetime := c.bound
				if c.cfg.NetworkIdleLimit > 0 && c.cfg.NetworkIdleLimit == c.limit { // it bounds the idle time alone
					lifetime = beforeLimit(time.Duration(c.announced) * time.Second)
				}
				assert.Equal(t, lifetime, s.Lifetime)

				elapse(c.bound*974/1000 - known)
				synctest.Wait()
				assert.True(t, f.sessions()[0].isOpen(), "closed long before its expiry")
				assert.Equal(t, 1, pool.Stats().Idle)
				elapse(c.bound*26/1000 + time.Second)
				synctest.Wait()
				f.sessions()[0].wantClosed(t, c.bound)
				s = pool.Stats()
				assert.Equal(t, 0, s.Open)
				assert.Equal(t, []uint64{1, 1}, []uint64{s.Closed.Retired(), s.Closed.Total()})

				useOnce(t, db)
				assert.Len(t, f.sessions(), 2)
			})
		})
	}
}

func TestWithoutLimitsASessionLivesOn(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := &lifetimeFake{announced: []any{lifetimeSeconds(0)}}
		db, c := openPool(t, f, Config{Dialect: DialectMySQL})
		for range 3 {
			useOnce(t, db)
			elapse(365 * 24 * time.Hour)
		}
		useOnce(t, db)
		s := c.Stats()
		assert.Equal(t, uint64(1), s.Dials)
		assert.Zero(t, s.IdleLimit)
		assert.Zero(t, s.Lifetime)
		assert.Zero(t, s.DiscoveryFailures)
	})
}

func TestEverySessionIsClosedAtItsOwnExpiry(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := &lifetimeFake{announced: []any{lifetimeSeconds(600)}}
		db, c := openPool(t, f, Config{Dialect: DialectMySQL, MaxOpen: 4, LeakThreshold: -1})
		var conns []*sql.Conn
		for range 4 {
			conns = append(conns, take(t, db, 1)...)
			elapse(2 * time.Minute)
		}
		giveBack(t, conns...)
		for _, left := range []int{4, 3, 2, 1, 0} {
			asked()
			assert.Equal(t, left, c.Stats().Open)
			elapse(2 * time.Minute)
		}
		for i, s := range f.sessions() { // of four, none ends in the same tenth as another
			age := s.closedAfter(t)
			assert.LessOrEqual(t, age, 570*time.Second, "session %d", i)
			assert.GreaterOrEqual(t, age, 5*57*time.Second, "session %d", i)
		}
		assert.Equal(t, []uint64{4, 4}, []uint64{c.Stats().Closed.Retired(), c.Stats().Closed.Total()})
	})
}

func TestSparesAreReplacedAtTheirExpiry(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := &lifetimeFake{idleLimit: time.Minute, announced: []any{lifetimeSeconds(60)}}
		db, c := openPool(t, f, Config{Dialect: DialectMySQL, MaxOpen: 5, MinIdle: 3})
		useOnce(t, db)
		for range 60 {
			elapse(time.Minute)
			synctest.Wait()
			s := c.Stats()
			assert.Equal(t, 3, s.Idle, "sessions are ready, though none was asked for")
			assert.Equal(t, 3, s.Open)
		}
		useOnce(t, db)
		require.NoError(t, db.Close())
		synctest.Wait()
		all := f.sessions()
		assert.Greater(t, len(all), 3*60)
		for _, s := range all {
			assert.LessOrEqual(t, s.closedAfter(t), 55*time.Second)
			assert.Zero(t, s.late)
		}
		assert.Zero(t, c.Stats().Open)
	})
}

func TestALeaseIsNotCutAtItsSessionsExpiryAndEndsAtRelease(t *testing.T) {
	hold := func(t *testing.T, waiters int) {
		f := &lifetimeFake{idleLimit: time.Minute, announced: []any{lifetimeSeconds(60)}}
		db, c := openPool(t, f, Config{Dialect: DialectMySQL, MaxOpen: 1, LeakThreshold: -1})
		useAndAsk(t, db)
		conn, err := db.Conn(t.Context())
		require.NoError(t, err)
		for range 20 {
			elapse(30 * time.Second)
			_, err := conn.ExecContext(t.Context(), "DO 1")
			require.NoError(t, err)
		}
		var all sync.WaitGroup
		for range waiters {
			all.Go(func() {
				_, err := db.ExecContext(t.Context(), "DO 1")
				assert.NoError(t, err)
			})
			synctest.Wait()
		}
		s := c.Stats()
		assert.Equal(t, waiters, s.Waiting)
		assert.Equal(t, uint64(1), s.Dials)
		assert.Equal(t, ClosedStats{}, s.Closed)
		assert.True(t, f.sessions()[0].isOpen(), "the lease was cut")

		require.NoError(t, conn.Close())
		all.Wait()
		synctest.Wait()
		assert.Equal(t, 10*time.Minute+askAfter, f.sessions()[0].closedAfter(t), "closed at release")
		s = c.Stats()
		assert.Equal(t, []uint64{1, 1}, []uint64{s.Closed.Retired(), s.Closed.Total()})
		assert.Equal(t, min(waiters, 1), s.Open)
		assert.Equal(t, uint64(max(waiters-1, 0)), s.Handovers, "the expired session was not handed over")
		assert.Len(t, f.sessions(), 1+min(waiters, 1))
		useOnce(t, db)
	}
	for name, waiters := range map[string]int{"nobody waits": 0, "one waits": 1, "several wait": 3} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) { hold(t, waiters) })
		})
	}
}

// A session in constant use is never near an idle limit. That of the server bounds its age
// all the same, unless it is to bound the idle time alone; that of the network never does.
func TestWhatAnIdleLimitDoesToASessionInConstantUse(t *testing.T) {
	for name, c := range map[string]struct {
		cfg   Config
		dials int
	}{
		"the server's":            {Config{Dialect: DialectMySQL}, 12},
		"the server's, idle only": {Config{Dialect: DialectMySQL, IdleOnly: true}, 1},
		"the network's":           {Config{NetworkIdleLimit: time.Minute}, 1},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				f := &lifetimeFake{announced: []any{lifetimeSeconds(60)}, idleLimit: time.Minute}
				c.cfg.MaxOpen, c.cfg.LeakThreshold = 1, -1
				db, pool := openPool(t, f, c.cfg)
				for range 600 {
					useOnce(t, db)
					elapse(time.Second)
				}
				assert.Len(t, f.sessions(), c.dials)
				elapse(time.Minute)
				synctest.Wait()
				assert.Equal(t, []uint64{uint64(c.dials), uint64(c.dials)}, []uint64{pool.Stats().Closed.IdleLimit, pool.Stats().Closed.Total()})
			})
		})
	}
}

// What counts is when a session spoke with its server last: a holder may have it for long
// and not use it.
func TestIdleTimeInAHoldersHandsCounts(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := &lifetimeFake{idleLimit: time.Minute}
		db, c := openPool(t, f, Config{NetworkIdleLimit: time.Minute, MaxOpen: 1, LeakThreshold: -1})
		hold := func(unused time.Duration) {
			conn, err := db.Conn(t.Context())
			require.NoError(t, err)
			_, err = conn.ExecContext(t.Context(), "DO 1")
			require.NoError(t, err)
			elapse(unused)
			require.NoError(t, conn.Close())
		}
		hold(50 * time.Second)
		elapse(5 * time.Second)
		useOnce(t, db)
		assert.Len(t, f.sessions(), 2, "the first was silent for 55 seconds, and ended after 54")
		hold(54 * time.Second)
		assert.Equal(t, uint64(2), c.Stats().Closed.IdleLimit, "closed when it came back")
		useOnce(t, db)
		for _, s := range f.sessions() {
			assert.Zero(t, s.late)
		}
	})
}

func TestASessionInConstantUseEndsAtItsMaximumLifetime(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const most = time.Minute
		f := &lifetimeFake{}
		db, c := openPool(t, f, Config{MaxLifetime: most, MaxOpen: 1, LeakThreshold: time.Second})
		for range 3600 {
			useOnce(t, db)
			elapse(time.Second)
		}
		require.NoError(t, db.Close())
		all := f.sessions()
		assert.InDelta(t, 60, len(all), 2)
		for _, s := range all {
			assert.Less(t, s.oldest, most)
			assert.Zero(t, s.late)
		}
		for _, s := range all[:len(all)-1] {
			s.wantClosed(t, most)
		}
		assert.Equal(t, uint64(len(all)-1), c.Stats().Closed.Retired())
	})
}

func TestNoBadConnectionReachesASaturatedPoolsCallers(t *testing.T) {
	for name, cfg := range map[string]Config{
		"maximum lifetime":                     {MaxLifetime: 100 * time.Millisecond, LeakThreshold: -1},
		"likewise, and a network's idle limit": {MaxLifetime: 100 * time.Millisecond, NetworkIdleLimit: 200 * time.Millisecond},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				f := &lifetimeFake{
					idleLimit: 200 * time.Millisecond,
					exec:      func(context.Context) error { elapse(7 * time.Millisecond); return nil },
					connect:   func(context.Context, int) error { elapse(3 * time.Millisecond); return nil },
				}
				cfg.MaxOpen = 10
				db, c := openPool(t, f, cfg)
				var all sync.WaitGroup
				for range 60 {
					all.Go(func() {
						for range 40 {
							_, err := db.ExecContext(t.Context(), "DO 1")
							assert.NoError(t, err)
						}
					})
				}
				all.Wait()
				require.NoError(t, db.Close())
				s := c.Stats()
				assert.Equal(t, uint64(2400), s.Acquires)
				assert.Greater(t, s.Closed.Retired(), uint64(100), "the pool was not full of expired sessions")
				assert.Zero(t, s.Closed.Dead())
				for _, s := range f.sessions() {
					assert.Zero(t, s.late)
					assert.Less(t, s.oldest, 100*time.Millisecond, "session %d was used past its expiry", s.number)
				}
			})
		})
	}
}
