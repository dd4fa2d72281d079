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
