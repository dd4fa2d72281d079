package sqllease

import (
	"context"
	"database/sql"
	"database/sql/driver"
	"errors"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// Connections of Config.MinIdle that nobody uses.

// pingFakeConn is a session whose driver can ping.
type pingFakeConn struct {
	*lifetimeFakeConn
	ping func(ctx context.Context, number int) error // nil: it succeeds
}

func (c pingFakeConn) Ping(ctx context.Context) error {
	if c.ping != nil {
		if err := c.ping(ctx, c.number); err != nil {
			return err
		}
	}
	return c.traffic()
}

// openPinged opens a pool whose network drops what is silent for a minute.
func openPinged(t *testing.T, cfg Config, ping func(context.Context, int) error) (*sql.DB, *Connector, *lifetimeFake) {
	f := &lifetimeFake{idleLimit: time.Minute, dress: func(c *lifetimeFakeConn) driver.Conn { return pingFakeConn{c, ping} }}
	cfg.NetworkIdleLimit = time.Minute
	db, c := openPool(t, f, cfg)
	synctest.Wait()
	require.Equal(t, cfg.MinIdle, c.Stats().Idle)
	return db, c, f
}

func TestConnectionsThatAreKeptReadyArePingedAndStay(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		db, c, f := openPinged(t, Config{MinIdle: 3, MaxOpen: 10, MaxLifetime: time.Hour}, nil)
		for range 59 {
			elapse(time.Minute)
			synctest.Wait()
			assert.Equal(t, 3, c.Stats().Idle)
		}
		assert.LessOrEqual(t, c.Stats().Dials, uint64(3+3), "those that end by age, which is spread, have successors")
		assert.Equal(t, c.Stats().Closed.Expired, c.Stats().Closed.Total())
		elapse(6 * time.Hour)
		s := c.Stats()
		assert.LessOrEqual(t, s.Dials, uint64(3*9), "one for each, for each hour")
		assert.Greater(t, s.KeepAlives, uint64(3*6*60))
		assert.Equal(t, s.Closed.Expired, s.Closed.Total())
		assert.Zero(t, s.Acquires, "a ping is no lease")
		assert.Zero(t, s.Waits)
		for range 3 {
			useOnce(t, db)
		}
		for _, session := range f.sessions() {
			assert.Zero(t, session.late, "session %d was silent for a minute", session.number)
		}
	})
}

// What is ready beyond Config.MinIdle is not missed: it is closed when it was idle for too long.
// Those that were used last are kept.
func TestWhatIsReadyBeyondMinIdleIsNotPinged(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		db, c, f := openPinged(t, Config{MinIdle: 2, MaxOpen: 5}, nil)
		held := take(t, db, 5)
		for _, conn := range held {
			_, err := conn.ExecContext(t.Context(), "DO 1")
			require.NoError(t, err)
			giveBack(t, conn)
			elapse(time.Millisecond)
		}
		elapse(time.Hour)
		s := c.Stats()
		assert.Equal(t, []uint64{5, 3, 3}, []uint64{s.Dials, s.Closed.IdleLimit, s.Closed.Total()})
		assert.Equal(t, 2, s.Idle)
		open := 0
		for _, session := range f.sessions() {
			if session.isOpen() {
				open++
				assert.Zero(t, session.late)
				assert.Greater(t, session.uses, 60)
			}
		}
		assert.Equal(t, 2, open)
	})
}

// A driver that cannot ping has its connections closed in time, and dialed anew.
func TestWithoutAPingerConnectionsAreDialedAnew(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := &lifetimeFake{idleLimit: time.Minute}
		_, c := openPool(t, f, Config{MinIdle: 3, NetworkIdleLimit: time.Minute, MaxLifetime: time.Hour})
		elapse(time.Hour)
		synctest.Wait()
		s := c.Stats()
		t.Logf("%d dials in an hour", s.Dials)
		assert.Equal(t, 3, s.Idle)
		assert.Greater(t, s.Closed.IdleLimit, uint64(190))
		assert.Zero(t, s.KeepAlives)
	})
}

// Without Config.MinIdle nobody is pinged, and no timer or goroutine is there for it.
func TestWithoutMinIdleNothingIsPinged(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		db, c, f := openPinged(t, Config{MaxOpen: 3}, nil)
		useOnce(t, db)
		elapse(time.Hour)
		assert.Zero(t, c.Stats().KeepAlives)
		assert.Zero(t, c.Stats().Open)
		assert.Positive(t, len(f.sessions()))
	})
}

// However a ping ends, the place is there afterwards, and a connection is ready in it.
func TestAPingThatFailsLosesNoPlace(t *testing.T) {
	for name, c := range map[string]struct {
		ping   func(ctx context.Context) error
		took   time.Duration
		closed func(ClosedStats) uint64
	}{
		"the connection is dead": {func(context.Context) error { return driver.ErrBadConn }, 0, func(s ClosedStats) uint64 { return s.ResetFailed }},
		"another error":          {func(context.Context) error { return errors.New("no") }, 0, func(s ClosedStats) uint64 { return s.ResetFailed }},
		"it hangs":               {func(ctx context.Context) error { <-ctx.Done(); return ctx.Err() }, pingTimeout, func(s ClosedStats) uint64 { return s.ResetFailed }},
		"it panics":              {func(context.Context) error { panic("the driver's bug") }, 0, func(s ClosedStats) uint64 { return s.Panicked }},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				db, pool, _ := openPinged(t, Config{MinIdle: 3, MaxOpen: 5}, func(ctx context.Context, number int) error {
					if number <= 3 {
						return c.ping(ctx)
					}
					return nil
				})
				elapse(49*time.Second + 1) // 54 s are allowed
				synctest.Wait()
				if c.took > 0 {
					pool.refill() // as whatever ends meanwhile would
					synctest.Wait()
					s := pool.Stats()
					assert.Equal(t, []int{0, 3}, []int{s.Idle, s.Open}, "nothing is dialed for what is being pinged")
					elapse(c.took)
					synctest.Wait()
				}
				s := pool.Stats()
				assert.Equal(t, []int{3, 3, 0}, []int{s.Idle, s.Open, s.InUse})
				assert.Equal(t, []uint64{6, 3, 3}, []uint64{s.Dials, c.closed(s.Closed), s.Closed.Total()})
				elapse(10 * time.Minute)
				assert.Equal(t, uint64(6), pool.Stats().Dials)
				usable(t, db, 5)
			})
		})
	}
}

// Whoever comes while the only connection is being pinged waits for it, and no longer than the
// ping takes.
func TestACallerWaitsForAPing(t *testing.T) {
	for name, fails := range map[string]bool{"that succeeds": false, "that hangs": true} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				var pings atomic.Int32
				db, c, _ := openPinged(t, Config{MinIdle: 1, MaxOpen: 1}, func(ctx context.Context, _ int) error {
					if pings.Add(1) > 1 {
						return nil
					}
					if fails {
						<-ctx.Done()
						return ctx.Err()
					}
					elapse(time.Second)
					return nil
				})
				elapse(49*time.Second + 1)
				start := time.Now()
				useOnce(t, db)
				assert.InDelta(t, map[bool]float64{false: 1, true: 5}[fails], time.Since(start).Seconds(), 0.001)
				assert.Equal(t, map[bool]uint64{false: 1, true: 2}[fails], c.Stats().Dials)
				assert.Equal(t, uint64(1), c.Stats().Acquires)
			})
		})
	}
}

// Callers, pings and a Close at the same time.
func TestClosingEndsAPing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var ended atomic.Int32
		db, c, _ := openPinged(t, Config{MinIdle: 3}, func(ctx context.Context, _ int) error {
			<-ctx.Done()
			ended.Add(1)
			return ctx.Err()
		})
		elapse(50 * time.Second)
		start := time.Now()
		require.NoError(t, db.Close())
		assert.Zero(t, time.Since(start))
		assert.Equal(t, int32(3), ended.Load())
		assert.Equal(t, []uint64{3, 3}, []uint64{c.Stats().Closed.Shutdown, c.Stats().Closed.Total()})
	})
}

// Callers come and go while connections are pinged: each gets one that is alive.
func TestCallersAndPingsDoNotMeetInAConnection(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := &gateFake{t: t, most: 6, script: func(_ context.Context, _ *gateFakeConn, call string) error {
			if call == "ping" || call == "exec" {
				elapse(10 * time.Millisecond)
			}
			return nil
		}}
		db, c := f.open(Config{MinIdle: 4, MaxOpen: 6, NetworkIdleLimit: 2 * time.Second, LeakThreshold: -1})
		var all sync.WaitGroup
		for i := range 5 {
			all.Go(func() {
				for range 300 {
					_, err := db.ExecContext(t.Context(), "DO 1")
					assert.NoError(t, err)
					elapse(time.Duration(i*400+7) * time.Millisecond)
				}
			})
		}
		all.Wait()
		assert.Greater(t, c.Stats().KeepAlives, uint64(100))
		f.end(db, c)
	})
}

// keepsAlive: a connection of Config.MinIdle is pinged before the network forgets it.
func keepsAlive(t *testing.T) {
	db, c, f := openPinged(t, Config{MinIdle: 2}, nil)
	elapse(time.Hour)
	assert.Equal(t, uint64(2), c.Stats().Dials)
	assert.Greater(t, c.Stats().KeepAlives, uint64(120))
	useOnce(t, db)
	assert.Zero(t, f.sessions()[0].late+f.sessions()[1].late)
}
