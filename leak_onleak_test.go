package sqllease

import (
	"context"
	"log/slog"
	"runtime"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// What Config.OnLeak, and the logger, may do.

func TestOnLeakMayPanic(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		log := &keptLog{}
		p := newLeakPool(t, &leakFake{}, Config{
			Logger: slog.New(log),
			OnLeak: func(Leak) { panic("the application's own bug") },
		})
		first, second := p.lease(t), p.lease(t)
		leakPause(30 * time.Second)
		assert.Len(t, p.take(), 2, "the second is reported all the same")
		assert.Equal(t, uint64(2), p.c.Stats().Leaks)
		require.NoError(t, first.Close())
		require.NoError(t, second.Close())
		assert.Len(t, p.take(), 2, "and so are the returns")
		assert.NoError(t, p.PingContext(t.Context()), "the connections are none the worse")
		assert.Equal(t, 2, p.c.Stats().Idle)

		panicked := 0
		for _, r := range log.take() {
			if r.level != slog.LevelError {
				continue // the report itself
			}
			panicked++
			assert.Equal(t, "sqllease: Config.OnLeak or Config.OnSlowCall panicked; the report itself is not lost", r.message)
			assert.Contains(t, []any{uint64(1), uint64(2)}, r.attrs["lease"])
			assert.Equal(t, "a string; QueryTextRaw shows it", r.attrs["panic"])
		}
		assert.Equal(t, 4, panicked)
	})
}

// A function of the application's may end the goroutine that it is called on, as a failed
// require in a test does.
func TestWhatEndsTheGoroutineOfAReportKeepsNoOtherFromBeingMade(t *testing.T) {
	for name, cfg := range map[string]Config{
		"in OnLeak":     {OnLeak: func(Leak) { runtime.Goexit() }},
		"in the Logger": {Logger: slog.New(goexitHandler{})},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				cfg.ReclaimAfter = time.Minute
				p := newLeakPool(t, &leakFake{}, cfg)
				first, second, third := p.lease(t), p.lease(t), p.lease(t)
				leakPause(30 * time.Second)
				assert.Len(t, p.take(), 3)
				require.NoError(t, first.Close())
				require.NoError(t, second.Close())
				assert.Len(t, p.take(), 2, "the returns")
				leakPause(2 * time.Minute)
				assert.True(t, p.one(t).Reclaimed)
				assert.Equal(t, uint64(3), p.c.Stats().Leaks)
				require.Error(t, third.PingContext(t.Context()))
				_ = third.Close()
			})
		})
	}
}

type goexitHandler struct{ slog.Handler }

func (goexitHandler) Enabled(context.Context, slog.Level) bool  { return true }
func (goexitHandler) Handle(context.Context, slog.Record) error { runtime.Goexit(); return nil }

// A connection may come back while its leak is being reported. Who reads the log, or is told,
// hears of the leak first.
func TestAReturnIsReportedAfterItsLeak(t *testing.T) {
	for name, c := range map[string]struct {
		cfg    Config
		logs   time.Duration // how long the log takes for a report
		tells  time.Duration // how long the application's function does
		blocks bool          // the call that is reported is slow, else it is a leak
	}{
		"the log is slow":                             {logs: 2 * time.Second},
		"OnLeak is slow":                              {tells: 2 * time.Second},
		"the log is slow with a slow call":            {logs: 2 * time.Second, blocks: true},
		"OnSlowCall is slow":                          {tells: 2 * time.Second, blocks: true},
		"OnSlowCall is slow, and the server is asked": {cfg: Config{FindBlockers: true}, tells: 2 * time.Second, blocks: true},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				said, told := &slowLog{takes: c.logs}, make(chan bool, 2)
				cfg := c.cfg
				cfg.Logger, cfg.Dialect, cfg.Discovery = slog.New(said), DialectMariaDB, NoDiscovery
				cfg.LeakThreshold, cfg.SlowCallThreshold = slowAfter, slowAfter
				tell := func(returned bool) {
					if !returned {
						elapse(c.tells)
					}
					told <- returned
				}
				cfg.OnLeak = func(l Leak) { tell(l.Returned) }
				cfg.OnSlowCall = func(s SlowCall) { tell(s.Returned) }
				db, p := openPool(t, &blockersFake{}, cfg)
				held := slowAfter + time.Second
				if c.blocks {
					ctx, cancel := context.WithTimeout(t.Context(), held)
					defer cancel()
					_, err := db.ExecContext(ctx, "wait")
					require.ErrorIs(t, err, context.DeadlineExceeded)
				} else {
					conn := take(t, db, 1)[0]
					elapse(held)
					giveBack(t, conn)
				}
				assert.Equal(t, []bool{false, true}, []bool{<-told, <-told})
				assert.Equal(t, []slog.Level{slog.LevelWarn, slog.LevelInfo}, said.levels())
				assert.Equal(t, uint64(1), p.Stats().LateReturns)
			})
		})
	}
}

// slowLog is a keptLog that keeps a record of a report only after a while.
type slowLog struct {
	keptLog
	takes time.Duration
}

func (l *slowLog) Handle(ctx context.Context, r slog.Record) error {
	if r.Level == slog.LevelWarn {
		elapse(l.takes)
	}
	return l.keptLog.Handle(ctx, r)
}

func (l *slowLog) levels() (levels []slog.Level) {
	for _, r := range l.take() {
		levels = append(levels, r.level)
	}
	return levels
}

// OnLeak holds no lock, so that it may look at the pool and use it.
func TestOnLeakMayUseThePool(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var p *leakPool
		p = newLeakPool(t, &leakFake{}, Config{OnLeak: func(l Leak) {
			assert.Equal(t, uint64(1), p.c.Stats().Leaks)
			assert.NoError(t, p.PingContext(t.Context()))
			if leases := p.c.Leases(); assert.LessOrEqual(t, len(leases), 1) && !l.Returned {
				assert.Equal(t, l.ID, leases[0].ID)
			}
		}})
		conn := p.lease(t)
		leakPause(30 * time.Second)
		p.one(t)
		require.NoError(t, conn.Close())
		assert.True(t, p.one(t).Returned)
	})
}

func TestAnOnLeakThatHangsHoldsUpNoOtherReport(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		hang := make(chan struct{})
		p := newLeakPool(t, &leakFake{}, Config{OnLeak: func(l Leak) {
			if l.ID == 1 && !l.Returned {
				<-hang
			}
		}})
		first := p.lease(t)
		leakPause(time.Second)
		second := p.lease(t)
		leakPause(30 * time.Second)
		reports := p.take()
		require.Len(t, reports, 2)
		assert.Equal(t, 30*time.Second, reports[1].Hold)
		close(hang)
		require.NoError(t, first.Close())
		require.NoError(t, second.Close())
	})
}
