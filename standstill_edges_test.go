//go:build gc && (amd64 || arm64) && !sqllease_no_assembly

// Elsewhere goroutines are not told apart.

package sqllease

import (
	"context"
	"database/sql"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// A server that has no room now may have some in a moment: who waits for that waits for nobody
// of this pool.
func TestWhoWaitsForRoomAtAServerIsInNoDeadlock(t *testing.T) {
	for _, limit := range []int{20, 0} {
		synctest.Test(t, func(t *testing.T) {
			f := &roomyFake{refuse: errTooMany, most: 1}
			db, pool := openPool(t, f, Config{MaxOpen: limit, Discovery: NoDiscovery, FailDeadlockAfter: time.Second, StandstillThreshold: 2 * time.Second})
			held := take(t, db, 1)
			time.AfterFunc(3500*time.Millisecond, func() {
				f.mu.Lock()
				defer f.mu.Unlock()
				f.most = 2
			})
			inner, err := db.Conn(t.Context())
			require.NoError(t, err, "the goroutine holds a connection, but it waits for none that somebody holds")
			giveBack(t, held[0], inner)
			assert.Zero(t, pool.Stats().Deadlocks)
			assert.Zero(t, pool.Stats().Standstills)
			synctest.Wait()
		})
	}
}

// A pool is closed while it stands still: that is over then, and a lease that is out is a leak
// as any other.
func TestAPoolThatIsClosedStandsStillNoMore(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newStillPool(t, Config{MaxOpen: 1})
		held := take(t, p.DB, 1)
		done := make(chan struct{})
		ctx := inTrace(t.Context(), 1)
		tx, err := held[0].BeginTx(ctx, nil)
		require.NoError(t, err)
		go func() {
			defer close(done)
			assert.ErrorIs(t, p.PingContext(ctx), ErrClosed)
		}()
		_ = tx
		leakPause(10 * time.Second)
		require.Equal(t, []string{saidStill}, p.messages())
		require.NoError(t, p.c.Close())
		<-done
		leakPause(2 * time.Second)
		assert.Equal(t, []string{saidOver}, p.messages())
		leakPause(5 * time.Minute)
		assert.Len(t, p.leaks(), 1)
	})
}

// A goroutine that has forgotten a connection, and asks for others again and again.
func TestALeakIsReportedHoweverOftenThePoolStandsStill(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newStillPool(t, Config{MaxOpen: 1})
		var stop atomic.Bool
		done := make(chan *sql.Conn)
		go func() {
			forgotten := take(t, p.DB, 1)[0]
			for !stop.Load() {
				ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
				assert.ErrorIs(t, p.PingContext(ctx), context.DeadlineExceeded)
				cancel()
				elapse(5 * time.Second)
			}
			done <- forgotten
		}()
		leakPause(10 * time.Minute)
		assert.Len(t, p.leaks(), 1)
		stop.Store(true)
		giveBack(t, <-done)
		leakPause(2 * time.Second)
	})
}

// A lease that was in a standstill before, and is used afterwards, is in the next one as any other.
func TestALeaseThatIsUsedBetweenStandstillsIsNoLeak(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newStillPool(t, Config{MaxOpen: 1})
		done := make(chan struct{})
		go func() {
			defer close(done)
			held := take(t, p.DB, 1)[0]
			for _, within := range []time.Duration{10 * time.Second, 5 * time.Minute} {
				ctx, cancel := context.WithTimeout(context.Background(), within)
				assert.ErrorIs(t, p.PingContext(ctx), context.DeadlineExceeded)
				cancel()
				elapse(5 * time.Second)
				assert.NoError(t, held.PingContext(t.Context()))
			}
			giveBack(t, held)
		}()
		<-done
		leakPause(2 * time.Second)
		assert.Empty(t, p.leaks())
		assert.Equal(t, uint64(2), p.c.Stats().Standstills)
	})
}
