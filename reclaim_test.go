package sqllease

import (
	"database/sql"
	"errors"
	"fmt"
	"math/rand/v2"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// wantReclaimed checks that a call came too late.
func wantReclaimed(t *testing.T, err error) {
	t.Helper()
	var reclaimed *ReclaimedError
	require.ErrorAs(t, err, &reclaimed)
	assert.Contains(t, err.Error(), "the connection was closed, because it was unused for 1m0s (Config.ReclaimAfter); taken by ")
	assert.NotEmpty(t, reclaimed.Lease.Stack.Site())
}

func TestALeaseThatIsUnusedForTooLongLosesItsSession(t *testing.T) {
	for name, hold := range map[string]func(t *testing.T, db *sql.DB) (late func(*testing.T)){
		"a Conn": func(t *testing.T, db *sql.DB) func(*testing.T) {
			conn, err := db.Conn(t.Context())
			require.NoError(t, err)
			st, err := conn.PrepareContext(t.Context(), "SELECT 1")
			require.NoError(t, err)
			return func(t *testing.T) {
				_, err := conn.ExecContext(t.Context(), "DO 1")
				wantReclaimed(t, err)
				_, err = st.ExecContext(t.Context())
				wantReclaimed(t, err)
				wantReclaimed(t, conn.PingContext(t.Context()))
				require.NoError(t, st.Close())
				require.NoError(t, conn.Close())
			}
		},
		"a Tx": func(t *testing.T, db *sql.DB) func(*testing.T) {
			tx, err := db.BeginTx(t.Context(), nil)
			require.NoError(t, err)
			return func(t *testing.T) {
				_, err := tx.ExecContext(t.Context(), "DO 1")
				wantReclaimed(t, err)
				wantReclaimed(t, tx.Commit())
				require.ErrorIs(t, tx.Rollback(), sql.ErrTxDone)
			}
		},
		"Rows": func(t *testing.T, db *sql.DB) func(*testing.T) {
			rows, err := db.QueryContext(t.Context(), "SELECT 1")
			require.NoError(t, err)
			require.True(t, rows.Next())
			return func(t *testing.T) {
				assert.False(t, rows.Next())
				wantReclaimed(t, rows.Err())
				require.NoError(t, rows.Close())
			}
		},
		"Rows that are never closed": func(t *testing.T, db *sql.DB) func(*testing.T) {
			rows, err := db.QueryContext(t.Context(), "SELECT 1")
			require.NoError(t, err)
			return func(t *testing.T) { require.NoError(t, rows.Close()) }
		},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				reports := make(chan Leak, 8)
				f := &gateFake{t: t, most: 1}
				db, c := f.open(Config{MaxOpen: 1, LeakThreshold: 10 * time.Second, ReclaimAfter: time.Minute, OnLeak: func(l Leak) { reports <- l }})
				late := hold(t, db)
				waiter := make(chan error, 1)
				start := time.Now()
				go func() { waiter <- db.PingContext(t.Context()) }()
				require.NoError(t, <-waiter, "there is room again")
				assert.Equal(t, time.Minute, time.Since(start))
				synctest.Wait()
				assert.False(t, (<-reports).Reclaimed, "first it is reported")
				l := <-reports
				assert.True(t, l.Reclaimed)
				assert.Equal(t, time.Minute, l.Hold)
				assert.Contains(t, l.String(), "leaked connection taken back after 1m0s: sqllease has closed it")
				assert.Equal(t, uint64(1), c.Stats().Closed.Reclaimed)
				assert.Equal(t, uint64(1), c.Stats().Leaks, "it is one leak")
				late(t)
				assert.Empty(t, reports)
				usable(t, db, 1)
				f.end(db, c)
			})
		})
	}
}

func TestWhatIsInUseIsNotReclaimed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := &leakFake{takes: map[string]time.Duration{"exec": 2 * time.Hour}}
		p := newLeakPool(t, f, Config{MaxOpen: 3, LeakThreshold: 10 * time.Second, ReclaimAfter: time.Minute, SlowCallThreshold: -1})
		busy, raw := p.lease(t), p.lease(t)
		done := make(chan error, 1)
		go func() { _, err := busy.ExecContext(t.Context(), "DO 1"); done <- err }()
		require.NoError(t, raw.Raw(func(c any) error {
			_, ok := Unwrap[*leakFakeConn](c)
			assert.True(t, ok)
			<-time.After(30 * time.Minute) // a COPY, for all that can be seen
			return nil
		}))
		active := p.lease(t)
		for range 100 {
			require.NoError(t, active.PingContext(t.Context()))
			<-time.After(20 * time.Second)
		}
		require.NoError(t, active.Close())
		require.NoError(t, <-done)
		assert.Zero(t, p.c.Stats().Closed.Reclaimed)
		p.take()
		for _, conn := range []*sql.Conn{busy, raw} {
			require.NoError(t, conn.Close())
		}
		p.take()
	})
}

// Holders begin calls at the very moment at which their leases are due to be
// reclaimed: whoever comes first, no call reaches a session that is closed, and
// nothing is lost. The fake driver looks for it.
func TestAReclaimAndACallThatMeet(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const limit, holders = 8, 24
		f := &gateFake{t: t, most: limit}
		db, c := f.open(Config{MaxOpen: limit, LeakThreshold: time.Second, ReclaimAfter: 2 * time.Second})
		var wait sync.WaitGroup
		for i := range uint64(holders) {
			wait.Go(func() {
				r := rand.New(rand.NewPCG(i, 1))
				for range 60 {
					meetReclaim(t, db, time.Duration(r.IntN(3))*time.Second+time.Millisecond*time.Duration(r.IntN(2)), r.IntN(4))
				}
			})
		}
		wait.Wait()
		s := c.Stats()
		assert.Greater(t, s.Closed.Reclaimed, uint64(50), "too few to prove anything: %+v", s)
		assert.Greater(t, s.Acquires, s.Closed.Reclaimed+50)
		usable(t, db, limit)
		f.end(db, c)
	})
}

// meetReclaim holds a connection for some time, and then uses it.
func meetReclaim(t *testing.T, db *sql.DB, pause time.Duration, how int) {
	pause = max(pause, time.Millisecond)
	var err error
	switch how {
	case 0:
		var tx *sql.Tx
		if tx, err = db.BeginTx(t.Context(), nil); err == nil {
			<-time.After(pause)
			_, err = tx.ExecContext(t.Context(), "DO 1")
			err = errors.Join(err, tx.Rollback())
		}
	case 1:
		var rows *sql.Rows
		if rows, err = db.QueryContext(t.Context(), "SELECT 1"); err == nil {
			<-time.After(pause)
			for rows.Next() {
				continue
			}
			err = errors.Join(rows.Err(), rows.Close())
		}
	default:
		var conn *sql.Conn
		if conn, err = db.Conn(t.Context()); err == nil {
			<-time.After(pause)
			if how == 2 {
				err = conn.PingContext(t.Context())
			}
			err = errors.Join(err, conn.Close())
		}
	}
	var reclaimed *ReclaimedError
	if err != nil && !errors.As(err, &reclaimed) {
		t.Errorf("%v", err)
	}
}

func TestReclaimingNeedsAWatch(t *testing.T) {
	for _, cfg := range []Config{
		{ReclaimAfter: -time.Second},
		{ReclaimAfter: time.Microsecond},
		{ReclaimAfter: time.Minute, LeakThreshold: -1},
		{ReclaimAfter: time.Second},
		{ReclaimAfter: time.Second, LeakThreshold: time.Minute},
	} {
		_, err := Wrap(&gateFake{t: t}, cfg)
		var bad *ConfigError
		require.ErrorAs(t, err, &bad, fmt.Sprint(cfg.ReclaimAfter, cfg.LeakThreshold))
		assert.Equal(t, "ReclaimAfter", bad.Field)
	}
}

// database/sql names the column that it could not scan without a lock on the
// connection, while another goroutine may have a call in flight on it.
func TestAColumnIsNamedWhileAnotherCallIsInFlight(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := &leakFake{takes: map[string]time.Duration{"exec": time.Second}}
		p := newLeakPool(t, f, Config{})
		tx, err := p.BeginTx(t.Context(), nil)
		require.NoError(t, err)
		rows, err := tx.QueryContext(t.Context(), "SELECT a FROM t")
		require.NoError(t, err)
		require.True(t, rows.Next())
		done := make(chan error, 1)
		go func() { _, err := tx.ExecContext(t.Context(), "DO 1"); done <- err }()
		synctest.Wait()
		var unfit struct{}
		assert.ErrorContains(t, rows.Scan(&unfit), `Scan error on column index 0, name "`)
		require.NoError(t, <-done)
		require.NoError(t, rows.Close())
		require.NoError(t, rows.Err())
		require.NoError(t, tx.Rollback())
	})
}

// database/sql asks for the names of columns without its lock on the connection
// when a value cannot be scanned. That is no use of the session.
func TestACallBesideAScanThatFailsGoesOn(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		// The columns are there when the watch does not look: between them and the row, nothing is in use.
		p := newLeakPool(t, &leakFake{takes: map[string]time.Duration{"columns": time.Minute + time.Millisecond}}, Config{LeakThreshold: time.Second, ReclaimAfter: 10 * time.Second})
		conn, err := p.Conn(t.Context())
		require.NoError(t, err)
		rows, err := conn.QueryContext(t.Context(), "SELECT a FROM t")
		require.NoError(t, err)
		require.True(t, rows.Next())
		scanned := make(chan error, 1)
		go func() { scanned <- rows.Scan(new(struct{})) }()
		leakPause(20 * time.Second)
		_, err = conn.ExecContext(t.Context(), "DO 1")
		require.NoError(t, err, "and it was not reclaimed under the names of its columns")
		assert.ErrorContains(t, <-scanned, "Scan error on column index 0")
		require.NoError(t, rows.Err())
		require.NoError(t, rows.Close())
		require.NoError(t, conn.Close())
	})
}
