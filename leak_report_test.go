package sqllease

import (
	"context"
	"database/sql"
	"database/sql/driver"
	"fmt"
	"io"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// When a lease is reported, and as what.

func TestALeaseIsReportedAtTheThresholdAndOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newLeakPool(t, &leakFake{takes: map[string]time.Duration{"connect": 2 * time.Second}}, Config{})
		conn, err := p.Conn(t.Context())
		site := leakSiteAbove()
		require.NoError(t, err)
		taken := time.Now()

		leakPause(DefaultLeakThreshold - 1)
		assert.Empty(t, p.take(), "it is not yet due")
		leakPause(1)
		l := p.one(t)
		assert.Equal(t, taken.Add(30*time.Second), l.at)
		assert.Equal(t, 30*time.Second, l.Hold, "the dial is no part of the hold")
		assert.Equal(t, taken, l.Acquired)
		assert.Equal(t, 2*time.Second, l.Dial)
		assert.Equal(t, site, l.Stack.Site())
		assert.Equal(t, uint64(1), l.ID)
		assert.Equal(t, "orders", l.Pool)
		assert.Equal(t, 30*time.Second, l.Threshold)
		assert.False(t, l.Returned)

		leakPause(24 * time.Hour)
		assert.Empty(t, p.take(), "once is enough")
		assert.Equal(t, uint64(1), p.c.Stats().Leaks)
		require.NoError(t, conn.Close())
	})
}

// What is reported says what the holder does, and what to do about it.
func TestAReportSaysWhatKindOfTroubleItIs(t *testing.T) {
	const (
		closeRows = "close the *sql.Rows on every path: defer rows.Close() right after the error check of the query; " +
			"if your code does that already, read and close the rows before slow work"
		endTx = "end the *sql.Tx on every path: defer tx.Rollback() right after BeginTx; " +
			"if your code does that already, move slow work, such as an HTTP call, out of the transaction"
		closeConn = "close the *sql.Conn on every path: defer conn.Close() right after DB.Conn; " +
			"if your code does that already, close it before slow work, or take it with sqllease.WithHoldLimit"
		lookAt = "look at the statement's plan and locks, or give its context a deadline"
		leak   = `pool "orders": leaked connection: checked out but unused for longer than 10s (lease 1)`
		slow   = `pool "orders": slow call: one call takes longer than 10s; this is not a leak (lease 1)`
	)
	type state struct {
		class                Class
		inTx                 bool
		openRows             int
		call                 string
		headline, doing, fix string
	}
	for _, c := range []struct {
		name string
		slow string // the kind of call that takes 15 s
		idle string // the server's limit of an idle transaction; "": none
		hold func(*testing.T, *sql.DB) io.Closer
		used time.Duration // after what time it is used last
		want state
	}{
		{name: "a Conn", hold: leakConn,
			want: state{ClassUnused, false, 0, "", leak, "unused for 10s", closeConn}},
		{name: "a Conn that was used", hold: func(t *testing.T, db *sql.DB) io.Closer {
			conn := leakConn(t, db).(*sql.Conn)
			leakPause(4 * time.Second)
			_, err := conn.ExecContext(t.Context(), "UPDATE t SET a = 'secret'")
			require.NoError(t, err)
			return conn
		}, used: 4 * time.Second, want: state{ClassUnused, false, 0, "exec", leak, "unused for 10s", closeConn}},
		{name: "a Tx", hold: leakTx,
			want: state{ClassUnused, true, 0, "begin", leak, "idle in transaction for 10s", endTx}},
		{name: "a Tx that the server ends", idle: "5min", hold: leakTx,
			want: state{ClassUnused, true, 0, "begin", leak, "idle in transaction for 10s", endTx + "; the server ends an idle transaction after 5m0s"}},
		{name: "Rows", hold: leakRows,
			want: state{ClassUnused, false, 1, "query", leak, "unused for 10s, with rows open", closeRows}},
		{name: "Rows of a Tx", hold: func(t *testing.T, db *sql.DB) io.Closer {
			tx := leakTx(t, db)
			rows, err := tx.(leakTxCloser).QueryContext(t.Context(), "SELECT a FROM t")
			require.NoError(t, err)
			require.True(t, rows.Next())
			return tx
		}, want: state{ClassUnused, true, 1, "query", leak, "unused for 10s, with rows open", closeRows}},
		{name: "Rows that were closed", hold: func(t *testing.T, db *sql.DB) io.Closer {
			conn := leakConn(t, db).(*sql.Conn)
			rows, err := conn.QueryContext(t.Context(), "SELECT a FROM t")
			require.NoError(t, err)
			leakPause(3 * time.Second)
			require.NoError(t, rows.Close())
			require.NoError(t, rows.Err())
			return conn
		}, used: 3 * time.Second, want: state{ClassUnused, false, 0, "query", leak, "unused for 10s", closeConn}},
		{name: "a Tx that ended on its Conn", hold: func(t *testing.T, db *sql.DB) io.Closer {
			conn := leakConn(t, db).(*sql.Conn)
			tx, err := conn.BeginTx(t.Context(), nil)
			require.NoError(t, err)
			require.NoError(t, tx.Commit())
			return conn
		}, want: state{ClassUnused, false, 0, "commit", leak, "unused for 10s", closeConn}},
		{name: "a slow statement", slow: "exec", hold: leakCall(func(ctx context.Context, db *sql.DB) error {
			_, err := db.ExecContext(ctx, "UPDATE t SET a = 'secret'")
			return err
		}), want: state{ClassBusy, false, 0, "exec", slow, "in exec for 10s: UPDATE t SET a = ?", lookAt}},
		{name: "a slow query", slow: "query", hold: leakCall(func(ctx context.Context, db *sql.DB) error {
			return db.QueryRowContext(ctx, "SELECT a FROM t WHERE b = 5").Scan(new(int))
		}), want: state{ClassBusy, false, 0, "query", slow, "in query for 10s: SELECT a FROM t WHERE b = ?", lookAt}},
		{name: "a slow row", slow: "next", hold: leakCall(func(ctx context.Context, db *sql.DB) error {
			return db.QueryRowContext(ctx, "SELECT a FROM t WHERE b = 5").Scan(new(int))
		}), want: state{ClassBusy, false, 1, "rows", slow, "in rows for 10s: SELECT a FROM t WHERE b = ?", lookAt}},
		{name: "a slow begin", slow: "begin", hold: leakCall(func(ctx context.Context, db *sql.DB) error {
			tx, err := db.BeginTx(ctx, nil)
			if err != nil {
				return err
			}
			return tx.Rollback()
		}), want: state{ClassBusy, false, 0, "begin", slow, "in begin for 10s", lookAt}},
		{name: "a slow commit", slow: "commit", hold: leakCall(func(ctx context.Context, db *sql.DB) error {
			tx, err := db.BeginTx(ctx, nil)
			if err != nil {
				return err
			}
			return tx.Commit()
		}), want: state{ClassBusy, true, 0, "commit", slow, "in commit for 10s", lookAt}},
		{name: "a slow ping", slow: "ping", hold: leakCall(func(ctx context.Context, db *sql.DB) error { return db.PingContext(ctx) }),
			want: state{ClassBusy, false, 0, "ping", slow, "in ping for 10s", lookAt}},
	} {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				f, cfg := &leakFake{takes: map[string]time.Duration{c.slow: 15 * time.Second}}, Config{LeakThreshold: 10 * time.Second, SlowCallThreshold: 10 * time.Second}
				if c.idle != "" {
					cfg.Dialect, f.rows = DialectPostgreSQL, [][]driver.Value{{"0", c.idle}}
				}
				p := newLeakPool(t, f, cfg)
				if c.idle != "" {
					require.NoError(t, p.c.Ready(t.Context())) // its lease is the first
				}
				start := time.Now()
				held := c.hold(t, p.DB)
				leakPause(time.Until(start.Add(10*time.Second + c.used)))
				l := p.one(t)
				assert.Equal(t, c.want, state{l.Class, l.InTx, l.OpenRows, string(l.Call), strings.Replace(l.headline(), "lease 2", "lease 1", 1), l.doing(), l.Fix()})
				assert.Equal(t, c.want.class == ClassBusy, l.Busy)
				assert.NotContains(t, l.String(), "secret")
				require.NoError(t, held.Close())
				last := p.one(t)
				assert.True(t, last.Returned)
				assert.Equal(t, l.ID, last.ID)
			})
		})
	}
}

func TestALeaseIsUnusedSinceItsLastCallEnded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newLeakPool(t, &leakFake{takes: map[string]time.Duration{"exec": 2 * time.Second}}, Config{})
		conn := p.lease(t)
		<-time.After(4 * time.Second)
		_, err := conn.ExecContext(t.Context(), "DO 1")
		require.NoError(t, err)
		ended := time.Now()
		leakPause(29 * time.Second)
		assert.Empty(t, p.take(), "it has been used meanwhile")
		leakPause(time.Second)
		l := p.one(t)
		assert.Equal(t, ended, l.Since)
		assert.Equal(t, "unused for 30s", l.doing())
		require.NoError(t, conn.Close())
	})
}

// leakCall starts a call that a test's end waits for.
func leakCall(do func(context.Context, *sql.DB) error) func(*testing.T, *sql.DB) io.Closer {
	return func(t *testing.T, db *sql.DB) io.Closer {
		done := make(leakCalling, 1)
		go func() { done <- do(t.Context(), db) }()
		synctest.Wait()
		return done
	}
}

// leakCalling is a call in flight.
type leakCalling chan error

// Close waits for it.
func (c leakCalling) Close() error { return <-c }

func TestALateReturnIsReportedWithTheFinalHold(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newLeakPool(t, &leakFake{}, Config{})
		soon := p.lease(t)
		leakPause(29 * time.Second)
		require.NoError(t, soon.Close())
		assert.Empty(t, p.take(), "it came back in time")

		late := p.lease(t)
		leakPause(30 * time.Second)
		first := p.one(t)
		leakPause(15 * time.Second)
		require.NoError(t, late.Close())
		second := p.one(t)
		assert.Equal(t, first.ID, second.ID)
		assert.True(t, second.Returned)
		assert.Equal(t, 45*time.Second, second.Hold)
		assert.Equal(t, time.Now(), second.at)
		assert.Equal(t, first.Acquired, second.Acquired)
		assert.Equal(t, first.Stack.Site(), second.Stack.Site())
		assert.Equal(t, fmt.Sprintf(`pool "orders": a reported connection came back after 45s (lease %d)`, first.ID), second.headline())
		assert.Contains(t, second.String(), "fix        your code gave it back, only late; make the work between acquire and return shorter, or allow it more time with WithHoldLimit or Config.LeakThreshold\n")
		assert.NotContains(t, second.String(), "stack\n")
		assert.Equal(t, uint64(1), p.c.Stats().Leaks, "a return is no second leak")

		again := p.lease(t)
		leakPause(30 * time.Second)
		assert.NotEqual(t, first.ID, p.one(t).ID, "the same connection is a new lease, reported anew")
		require.NoError(t, again.Close())
		assert.Equal(t, uint64(1), p.c.Stats().Dials)
	})
}

func TestALateReturnOfABadConnectionIsReported(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newLeakPool(t, &leakFake{}, Config{})
		conn := p.lease(t)
		leakPause(31 * time.Second)
		require.False(t, p.one(t).Returned)
		drop(t, conn)
		l := p.one(t)
		assert.True(t, l.Returned)
		assert.Equal(t, 31*time.Second, l.Hold)
	})
}

func TestALateHandoverIsReported(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newLeakPool(t, &leakFake{}, Config{MaxOpen: 1})
		conn := p.lease(t)
		served := make(chan *sql.Conn)
		go func() { served <- p.lease(t) }()
		leakPause(31 * time.Second)
		first := p.one(t)
		require.NoError(t, conn.Close())
		second := p.one(t)
		assert.Equal(t, first.ID, second.ID)
		assert.True(t, second.Returned)
		conn = <-served
		leakPause(30 * time.Second)
		third := p.one(t)
		assert.Equal(t, 30*time.Second, third.Hold, "the next holder's own clock")
		assert.Equal(t, 31*time.Second, third.Queue)
		assert.Contains(t, third.String(), "held       30s, since 2000-01-01T00:00:31.000Z, after waiting 31s for it\n")
		require.NoError(t, conn.Close())
	})
}

func TestANegativeThresholdReportsNothing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newLeakPool(t, &leakFake{}, Config{LeakThreshold: -1})
		conn := p.lease(t)
		assert.Nil(t, p.c.watch.timer.t, "there is nothing to wake up for")
		leakPause(24 * time.Hour)
		assert.Len(t, p.c.Leases(), 1)
		require.NoError(t, conn.Close())
		assert.Empty(t, p.take())
		assert.Zero(t, p.c.Stats().Leaks)
		assert.Nil(t, p.c.watch.timer.t)
	})
}

// Rows and transactions whose context ends are closed by database/sql: their code still does
// not close them, and a report that they came back must not call that well.
func TestWhatItsContextClosedIsStillALeakInTheCode(t *testing.T) {
	for name, c := range map[string]struct {
		leave func(ctx context.Context, db *sql.DB) error
		fix   string
	}{
		"rows": {func(ctx context.Context, db *sql.DB) error {
			_, err := db.QueryContext(ctx, "SELECT 1") //nolint:rowserrcheck,sqlclosecheck // that is the point
			return err
		}, leftRows.end},
		"a transaction": {func(ctx context.Context, db *sql.DB) error {
			_, err := db.BeginTx(ctx, nil)
			return err
		}, leftTx.end},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				p := newLeakPool(t, &leakFake{}, Config{MaxOpen: 1})
				ctx, cancel := context.WithCancel(t.Context())
				require.NoError(t, c.leave(ctx, p.DB))
				leakPause(31 * time.Second)
				assert.Contains(t, p.one(t).Fix(), c.fix)
				cancel()
				synctest.Wait()
				l := p.one(t)
				assert.True(t, l.Returned && l.ByContext)
				assert.Contains(t, l.Fix(), "its context ended before your code closed it: "+c.fix+"; if your code does that already, ")
				assert.NotContains(t, l.String(), "  doing ", "it does nothing any more")
				assert.Contains(t, l.String(), "came back after 31s, because its context ended")
			})
		})
	}
}
