package sqllease

import (
	"context"
	"database/sql"
	"database/sql/driver"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// While the server answers, the transaction that had the lock ends. Its code has left nothing, and
// who has its connection then has not got the lock.
func TestAConnectionThatHasChangedHandsSinceTheQuestionBlocksNobody(t *testing.T) {
	for name, taken := range map[string]bool{"it is ready": false, "somebody else has it": true} {
		synctest.Test(t, func(t *testing.T) {
			f := &blockersFake{waits: locked(2, 1)}
			p := newBlockersPool(t, f, Config{LeakThreshold: time.Hour, MaxOpen: 2})
			ctx, cancel := context.WithCancel(t.Context())
			var all sync.WaitGroup
			var mu sync.Mutex
			var tx *sql.Tx
			var next *sql.Conn
			f.process = func(number uint64) []driver.Value {
				mu.Lock()
				defer mu.Unlock()
				if tx != nil {
					elapse(time.Millisecond)
					assert.NoError(t, tx.Commit())
					tx = nil
					if taken {
						next = take(t, p.DB, 1)[0]
					}
					elapse(time.Millisecond)
				}
				return []driver.Value{int64(number), "app", "10.0.0.7:4711", nil, "Query", "7.5", "Updating", "UPDATE t SET a = 1", "RUNNING"}
			}
			mu.Lock()
			var err error
			tx, err = p.BeginTx(t.Context(), nil)
			mu.Unlock()
			require.NoError(t, err)
			p.slow(ctx, &all)
			elapse(slowAfter + time.Second)
			synctest.Wait()
			mu.Lock()
			defer mu.Unlock()
			require.Len(t, p.said(), 1, name)
			require.Nil(t, tx)
			assert.Empty(t, p.said()[0].Blockers, name)
			assert.NotContains(t, p.said()[0].String(), "blocked by", name)
			if next != nil {
				giveBack(t, next)
			}
			p.end(t, cancel, &all)
		})
	}
}

// While the server answers, the connection that had the lock is closed. It was this pool's, and
// the lock went with it.
func TestAConnectionThatIsClosedSinceTheQuestionBlocksNobody(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := &blockersFake{waits: locked(2, 1)}
		p := newBlockersPool(t, f, Config{LeakThreshold: time.Hour, MaxOpen: 2})
		ctx, cancel := context.WithCancel(t.Context())
		var all sync.WaitGroup
		holder := take(t, p.DB, 1)[0]
		f.process = func(number uint64) []driver.Value {
			_ = holder.Raw(func(any) error { return driver.ErrBadConn })
			return []driver.Value{int64(number), "app", "10.0.0.7:4711", nil, "Query", "7.5", "Updating", "UPDATE t SET a = 1", "RUNNING"}
		}
		p.slow(ctx, &all)
		elapse(slowAfter)
		synctest.Wait()
		require.Len(t, p.said(), 1)
		assert.Empty(t, p.said()[0].Blockers)
		assert.NotContains(t, p.said()[0].String(), "blocked by")
		assert.Equal(t, 1, p.c.Stats().Open)
		p.end(t, cancel, &all)
	})
}
