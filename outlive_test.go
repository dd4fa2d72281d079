package sqllease

import (
	"context"
	"database/sql"
	"errors"
	"log/slog"
	"runtime"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// Dials that outlive their callers.

// slowDials are a server that takes so long to let anybody in, and a pool whose callers have
// half a second each.
func slowDials(t *testing.T, cfg Config, takes func() time.Duration) (f *lifetimeFake, c *Connector, call func() error) {
	f = &lifetimeFake{connect: func(ctx context.Context, _ int) error {
		select {
		case <-time.After(takes()):
			return nil
		case <-ctx.Done():
			return ctx.Err()
		}
	}}
	cfg.LeakThreshold = -1
	db, c := openPool(t, f, cfg)
	return f, c, func() error {
		ctx, cancel := context.WithTimeout(t.Context(), 500*time.Millisecond)
		defer cancel()
		_, err := db.ExecContext(ctx, "DO 1")
		return err
	}
}

// Callers who have less time than a dial takes get connections all the same: those that
// callers before them have dialed.
func TestCallersWithLittleTimeGetWhatOthersDialed(t *testing.T) {
	for name, callers := range map[string]int{"one after the other": 1, "several": 8} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				f, c, call := slowDials(t, Config{MaxOpen: 4}, func() time.Duration { return 1200 * time.Millisecond })
				var all sync.WaitGroup
				var failed atomic.Int32
				for range callers {
					all.Go(func() {
						for range 20 {
							if err := call(); err != nil {
								assert.ErrorIs(t, err, context.DeadlineExceeded)
								failed.Add(1)
							}
							elapse(100 * time.Millisecond)
						}
					})
				}
				all.Wait()
				// Who comes first of those who come at the same instant is chance: mostly it is a third of that.
				assert.Less(t, int(failed.Load()), 10*callers, "bare, all 20 calls of each would fail")
				assert.Less(t, len(f.sessions()), 20, "bare, each call would dial; one that nobody takes for long is closed, and dialed anew")
				assert.Zero(t, c.Stats().DialErrors)
			})
		})
	}
}

func TestADialThatNobodyWaitsForEndsInTheEnd(t *testing.T) {
	for name, end := range map[string]struct {
		early bool
		after time.Duration
	}{"by itself": {false, dialGrace}, "with the pool": {true, 500 * time.Millisecond}} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				_, c, call := slowDials(t, Config{MaxOpen: 1}, func() time.Duration { return time.Hour })
				start := time.Now()
				require.ErrorIs(t, call(), context.DeadlineExceeded)
				assert.Equal(t, 1, c.Stats().Dialing)
				if end.early {
					require.NoError(t, c.Close())
				} else {
					elapse(dialGrace - time.Since(start))
				}
				synctest.Wait()
				assert.Equal(t, end.after, time.Since(start))
				assert.Equal(t, []uint64{0, 1}, []uint64{uint64(c.Stats().Open), c.Stats().DialErrors})
			})
		})
	}
}

func TestACallerWhoCancelsHasTheDialCancelled(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		_, c, _ := slowDials(t, Config{MaxOpen: 1}, func() time.Duration { return time.Hour })
		ctx, cancel := context.WithTimeout(t.Context(), 4*time.Second)
		time.AfterFunc(time.Second, cancel)
		start := time.Now()
		_, err := c.Connect(ctx)
		assert.ErrorIs(t, err, context.Canceled)
		assert.Equal(t, time.Second, time.Since(start))
		assert.Zero(t, c.Stats().Open)
	})
}

// What a driver does in a dial on a goroutine of its own is its caller's, or, where that has
// gone, the log's.
func TestADriverThatPanicsOrEndsInADial(t *testing.T) {
	for name, c := range map[string]struct {
		after  time.Duration
		does   func()
		panics any
		logged int
	}{
		"panics while its caller is there":        {0, func() { panic("the driver's bug") }, "the driver's bug", 0},
		"panics when its caller has gone":         {time.Second, func() { panic("the driver's bug") }, nil, 1},
		"ends its goroutine when nobody is there": {time.Second, runtime.Goexit, nil, 0},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				log, first := &keptLog{}, atomic.Bool{}
				_, pool, call := slowDials(t, Config{MaxOpen: 1, Logger: slog.New(log)}, func() time.Duration {
					if first.CompareAndSwap(false, true) {
						elapse(c.after)
						c.does()
					}
					return 0
				})
				assert.Equal(t, c.panics, caught(func() { _ = call() }))
				elapse(time.Second)
				synctest.Wait()
				assert.Len(t, log.take(), c.logged)
				if c.panics == nil {
					assert.Zero(t, pool.Stats().Open)
				}
				require.NoError(t, call())
			})
		})
	}
}

// Each of many callers either has what it dialed, or has left it: nothing is lost, and
// nothing is had twice, however close together the two are.
func TestADialThatEndsAsItsCallerLeaves(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f, c, call := slowDials(t, Config{MaxOpen: 50}, func() time.Duration { return 500 * time.Millisecond })
		var all sync.WaitGroup
		for range 200 {
			all.Go(func() {
				if err := call(); err != nil && !errors.Is(err, context.DeadlineExceeded) {
					assert.NoError(t, err)
				}
			})
		}
		all.Wait()
		elapse(dialGrace)
		s := c.Stats()
		assert.Equal(t, 0, s.InUse+s.Dialing+s.Waiting)
		assert.Equal(t, s.Open, s.Idle)
		require.NoError(t, c.Close())
		synctest.Wait()
		for _, session := range f.sessions() {
			session.closedAfter(t)
		}
	})
}

// What nobody comes for does not stay beyond the idle connections that database/sql keeps.
func TestDialsThatNobodyComesForDoNotStay(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		_, c, call := slowDials(t, Config{}, func() time.Duration { return 2 * time.Second })
		var all sync.WaitGroup
		for range 50 {
			all.Go(func() { assert.ErrorIs(t, call(), context.DeadlineExceeded) })
		}
		all.Wait()
		elapse(time.Hour)
		assert.LessOrEqual(t, c.Stats().Open, 2)
	})
}

// Databases that share a connector get what was dialed ahead of them, too: nobody had it.
func TestCallersOfDatabasesThatShareAConnectorGetWhatOthersDialed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f, c, call := slowDials(t, Config{MaxOpen: 2}, func() time.Duration { return 1200 * time.Millisecond })
		other := sql.OpenDB(c)
		c.Attach(other)
		ok := 0
		for range 20 {
			if call() == nil {
				ok++
			}
			elapse(100 * time.Millisecond)
		}
		assert.Greater(t, ok, 10)
		assert.Less(t, len(f.sessions()), 5, "else each call would dial")
		elapse(dialGrace)
		require.NoError(t, other.Close())
		synctest.Wait()
	})
}

// An unlimited pool does not dial more and more of a server that answers nobody.
func TestCallersOfAServerThatAnswersNobodyLeaveFewDials(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		_, c, call := slowDials(t, Config{}, func() time.Duration { return time.Hour })
		var all sync.WaitGroup
		peak := 0
		for range 2000 {
			all.Go(func() { _ = call() })
			elapse(5 * time.Millisecond)
			peak = max(peak, c.Stats().Dialing)
		}
		all.Wait()
		assert.LessOrEqual(t, peak, mostLeft+101, "a hundred have callers")
		elapse(time.Minute)
		assert.Zero(t, c.Stats().Open)
	})
}

// What nobody comes for is closed after a while, although the pool has looked for it before.
func TestWhatNobodyComesForIsClosed(t *testing.T) {
	for _, callers := range []int{1, 8} {
		synctest.Test(t, func(t *testing.T) {
			_, c, call := slowDials(t, Config{MaxOpen: 4}, func() time.Duration { return 700 * time.Millisecond })
			var all sync.WaitGroup
			for i := range callers {
				all.Go(func() {
					elapse(time.Duration(i) * 60 * time.Millisecond)
					_ = call()
				})
			}
			all.Wait()
			elapse(10 * time.Second)
			synctest.Wait()
			s := c.Stats()
			assert.LessOrEqual(t, s.Open, map[int]int{1: 0, 8: 2}[callers], "as database/sql keeps: %+v", s)
			beats := c.pulse.timer.sets
			elapse(time.Hour)
			assert.Equal(t, beats, c.pulse.timer.sets, "no timer is set while nothing happens")
		})
	}
}
