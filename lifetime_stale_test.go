package sqllease

import (
	"database/sql"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// Sessions that have expired while no timer closed them.

// lifetimeStale opens a pool whose timer never closes an expired session, as
// if it was late: the checks at each acquire are all there is. n sessions are
// left idle past their expiry.
func lifetimeStale(t *testing.T, n int, cfg Config) (*lifetimeFake, *sql.DB, *Connector) {
	t.Helper()
	f := &lifetimeFake{idleLimit: time.Minute, announced: []any{lifetimeSeconds(60)}}
	cfg.Dialect = DialectMySQL
	db, c := openPool(t, f, cfg)
	conns := take(t, db, n)
	synctest.Wait()
	giveBack(t, conns...)
	asked()
	c.wakeTimer.stop()
	elapse(54 * time.Second)
	return f, db, c
}

func TestASessionThatWasIdleTooLongIsRefusedAtCheckout(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f, db, c := lifetimeStale(t, 1, Config{MaxOpen: 1})
		assert.Equal(t, 1, c.Stats().Idle)
		useOnce(t, db)
		assert.Equal(t, 1, f.sessions()[0].uses, "the discovery alone")
		f.sessions()[0].closedAfter(t)
		assert.Equal(t, []uint64{1, 1}, []uint64{c.Stats().Closed.Retired(), c.Stats().Closed.Total()})
		assert.Equal(t, uint64(2), c.Stats().Dials)
	})
}

func TestManyStaleSessionsFailNoCaller(t *testing.T) {
	for _, callers := range []int{1, 10, 40} {
		synctest.Test(t, func(t *testing.T) {
			f, db, c := lifetimeStale(t, 10, Config{MaxOpen: 10})
			var all sync.WaitGroup
			for range callers {
				all.Go(func() {
					_, err := db.ExecContext(t.Context(), "DO 1")
					assert.NoError(t, err)
				})
			}
			all.Wait()
			for _, s := range f.sessions()[:10] {
				assert.LessOrEqual(t, s.uses, 1, "session %d was used past its expiry: one question is all", s.number)
			}
			assert.Zero(t, c.Stats().Closed.Dead())
			assert.LessOrEqual(t, c.Stats().Open, 10)
		})
	}
}

func TestAStaleSessionThatIsStolenIsReplacedInItsRoom(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f, _, c := lifetimeStale(t, 1, Config{MaxOpen: 1})
		conn, err := c.Connect(t.Context()) // past database/sql's free list
		require.NoError(t, err)
		s := c.Stats()
		assert.Equal(t, uint64(2), s.Dials)
		assert.Equal(t, []uint64{1, 1}, []uint64{s.Closed.Retired(), s.Closed.Total()})
		assert.Equal(t, 1, s.Open)
		assert.Equal(t, 1, f.sessions()[0].uses)
		f.sessions()[0].closedAfter(t)
		require.NoError(t, conn.Close())
	})
}

func TestAStaleSpareIsReplaced(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f, db, c := lifetimeStale(t, 1, Config{MaxOpen: 3, MinIdle: 2})
		require.Equal(t, 2, c.Stats().Idle)
		var all sync.WaitGroup
		for range 6 {
			all.Go(func() {
				_, err := db.ExecContext(t.Context(), "DO 1")
				assert.NoError(t, err)
			})
		}
		all.Wait()
		synctest.Wait()
		for _, s := range f.sessions()[:3] {
			assert.LessOrEqual(t, s.uses, 1, "session %d was used past its expiry: one question is all", s.number)
		}
		assert.Zero(t, c.Stats().Closed.Dead())
	})
}
