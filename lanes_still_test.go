//go:build gc && (amd64 || arm64) && !sqllease_no_assembly

package sqllease

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// A lane stands still, and may be in a deadlock, while the others go on.

func TestADeadlockOfALaneIsSeenWhileOthersGoOn(t *testing.T) {
	for name, lanes := range map[string]map[string]Lane{
		"its Max":                   {"report": {Max: 2}},
		"what others have reserved": {"probe": {Reserve: 8}, "report": {}},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				p, log := nestedPool(t, &leakFake{}, Config{MaxOpen: 10, FailDeadlockAfter: 5 * time.Second, Lanes: lanes})
				ctx, cancel := context.WithCancel(t.Context())
				busy := make(chan struct{})
				go func() {
					defer close(busy)
					other := "default"
					if lanes["probe"].Reserve > 0 {
						other = "probe"
					}
					for ctx.Err() == nil {
						assert.NoError(t, laneWork(t.Context(), p.DB, other, 100*time.Millisecond))
					}
				}()
				done := make(chan error, 2)
				for range 2 {
					go func() { done <- nestedRequest(WithLane(t.Context(), "report"), p.DB) }()
					synctest.Wait()
				}
				leakPause(7 * time.Second)
				require.Len(t, done, 2, "one fails, and the other goes on")
				errs := []error{<-done, <-done}
				assert.Contains(t, errs, error(nil))
				assert.ErrorIs(t, errors.Join(errs...), ErrDeadlock)
				s := log.take()
				require.NotEmpty(t, s)
				assert.Equal(t, "sqllease: deadlock: every connection is held by a goroutine that waits for another", s[0].message)
				assert.Equal(t, "report", s[0].attrs["standstill.lanes"])
				assert.Equal(t, int64(2), s[0].attrs["standstill.in_use"])
				cancel()
				<-busy
			})
		})
	}
}

func TestTheLimitThatIsTooLowIsThatOfTheLane(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p, log := nestedPool(t, &leakFake{}, Config{MaxOpen: 10, Lanes: map[string]Lane{"report": {Max: 1}}})
		ctx, cancel := context.WithTimeout(WithLane(t.Context(), "report"), 10*time.Second)
		defer cancel()
		require.ErrorIs(t, nestedRequest(ctx, p.DB), context.DeadlineExceeded)
		s := log.take()
		require.NotEmpty(t, s)
		assert.Contains(t, s[0].attrs["standstill.fix"], `or raise the limit of lane "report" from 1 to at least 2: that is enough for 1 such request at once`)
		synctest.Wait()
		assert.Zero(t, p.c.queue.floor, "the limit of the pool is high enough")
	})
}

// Who waits for a lane's place stands not still while somebody does something with a connection of it.
func TestALaneThatIsUsedDoesNotStandStill(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p, log := nestedPool(t, &leakFake{}, Config{MaxOpen: 10, Lanes: map[string]Lane{"report": {Max: 2}}})
		report := WithLane(t.Context(), "report")
		forgotten, err := p.BeginTx(report, nil)
		require.NoError(t, err)
		idle, err := p.BeginTx(t.Context(), nil) // of another lane
		require.NoError(t, err)
		used, err := p.BeginTx(report, nil)
		require.NoError(t, err)
		waits := make(chan error, 1)
		go func() { waits <- p.PingContext(report) }()
		for range 40 {
			leakPause(500 * time.Millisecond)
			_, err := used.ExecContext(t.Context(), "UPDATE t SET a = 1")
			require.NoError(t, err)
		}
		for _, said := range log.take() {
			assert.NotContains(t, said.message, "stands still")
		}
		leakPause(7 * time.Second)
		var stands bool
		for _, said := range log.take() {
			stands = stands || said.attrs["standstill.lanes"] == "report"
		}
		assert.True(t, stands)
		require.NoError(t, used.Commit())
		require.NoError(t, <-waits)
		require.NoError(t, forgotten.Commit())
		require.NoError(t, idle.Commit())
	})
}
