package sqllease

import (
	"context"
	"database/sql/driver"
	"io"
	"math/rand/v2"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/sqllease/sqllease/internal/recording"
)

// TestEachConnectionIsOpenedAndClosedOnceInARecording: whatever becomes of it.
func TestEachConnectionIsOpenedAndClosedOnceInARecording(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := &gateFake{t: t, script: func(_ context.Context, _ *gateFakeConn, call string) error {
			switch rand.IntN(40) {
			case 0:
				return driver.ErrBadConn
			case 1:
				if call != "close" {
					return io.ErrUnexpectedEOF
				}
			}
			return nil
		}}
		recording.SetStandard(100_000)
		defer recording.SetStandard(0)
		db, c := f.open(Config{MaxOpen: 6, MinIdle: 2, LeakThreshold: 2 * time.Millisecond, ReclaimAfter: 4 * time.Millisecond})
		var all sync.WaitGroup
		for range 8 {
			all.Go(func() {
				for range 400 {
					ctx, cancel := context.WithTimeout(context.Background(), time.Millisecond)
					if conn, err := db.Conn(ctx); err == nil {
						_, _ = conn.ExecContext(ctx, "UPDATE t SET a = 1")
						if rand.IntN(100) == 0 {
							elapse(20 * time.Millisecond) // it leaks
						}
						_ = conn.Close()
					}
					cancel()
					switch rand.IntN(100) {
					case 0:
						c.Flush(0)
					case 1:
						c.SetMaxOpen(2 + rand.IntN(6))
					}
				}
			})
		}
		all.Wait()
		require.NoError(t, db.Close())
		synctest.Wait() // for what closes aside
		assert.Zero(t, c.Stats().Open)
		dialed, closed := map[uint64]int{}, map[uint64]int{}
		failed := 0
		for _, e := range c.Recording().Events {
			switch e.Kind {
			case EventDialed:
				dialed[e.Connection]++
			case EventClosed:
				closed[e.Connection]++
				assert.NotEmpty(t, e.Why)
			case EventDialFailed:
				failed++
			}
		}
		assert.Equal(t, dialed, closed)
		assert.Equal(t, int(c.Stats().Closed.Total()), len(closed))
		for number, n := range dialed {
			assert.Equal(t, 1, n, number)
		}
		assert.NotZero(t, failed)
	})
}
