package sqllease

import (
	"context"
	"database/sql"
	"database/sql/driver"
	"fmt"
	"io"
	"log/slog"
	"path"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/codes"
	sdkmetric "go.opentelemetry.io/otel/sdk/metric"
	"go.opentelemetry.io/otel/sdk/metric/metricdata"
	sdktrace "go.opentelemetry.io/otel/sdk/trace"
	"go.opentelemetry.io/otel/sdk/trace/tracetest"
	"go.opentelemetry.io/otel/trace"
)

// leakFake is a driver whose calls take as long as a test wants. Every result
// set has the same rows.
type leakFake struct {
	takes map[string]time.Duration // by kind of call; written before the first
	rows  [][]driver.Value
}

func (f *leakFake) call(kind string) {
	if d := f.takes[kind]; d > 0 {
		<-time.After(d)
	}
}

func (f *leakFake) Driver() driver.Driver            { return f }
func (f *leakFake) Open(string) (driver.Conn, error) { return f.Connect(context.Background()) }
func (f *leakFake) Connect(ctx context.Context) (driver.Conn, error) {
	if f.takes["connect"] == 0 {
		return &leakFakeConn{f}, nil
	}
	select {
	case <-time.After(f.takes["connect"]):
		return &leakFakeConn{f}, nil
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

type leakFakeConn struct{ f *leakFake }

func (c *leakFakeConn) Close() error              { return nil }
func (c *leakFakeConn) Begin() (driver.Tx, error) { c.f.call("begin"); return leakFakeTx(*c), nil }
func (c *leakFakeConn) Prepare(string) (driver.Stmt, error) {
	c.f.call("prepare")
	return leakFakeStmt(*c), nil
}
func (c *leakFakeConn) Ping(context.Context) error         { c.f.call("ping"); return nil }
func (c *leakFakeConn) ResetSession(context.Context) error { return nil }
func (c *leakFakeConn) IsValid() bool                      { return true }

func (c *leakFakeConn) ExecContext(context.Context, string, []driver.NamedValue) (driver.Result, error) {
	c.f.call("exec")
	return driver.RowsAffected(1), nil
}

func (c *leakFakeConn) QueryContext(context.Context, string, []driver.NamedValue) (driver.Rows, error) {
	c.f.call("query")
	return &leakFakeRows{c.f, c.f.rows}, nil
}

type leakFakeStmt struct{ f *leakFake }

func (s leakFakeStmt) Close() error                               { return nil }
func (s leakFakeStmt) NumInput() int                              { return -1 }
func (s leakFakeStmt) Exec([]driver.Value) (driver.Result, error) { return driver.RowsAffected(1), nil }
func (s leakFakeStmt) Query([]driver.Value) (driver.Rows, error) {
	return &leakFakeRows{s.f, s.f.rows}, nil
}

type leakFakeTx struct{ f *leakFake }

func (t leakFakeTx) Commit() error   { t.f.call("commit"); return nil }
func (t leakFakeTx) Rollback() error { t.f.call("rollback"); return nil }

type leakFakeRows struct {
	f    *leakFake
	left [][]driver.Value
}

func (r *leakFakeRows) Columns() []string {
	r.f.call("columns")
	return make([]string, len(r.f.rows[0]))
}
func (r *leakFakeRows) Close() error { return nil }
func (r *leakFakeRows) Next(dest []driver.Value) error {
	r.f.call("next")
	if len(r.left) == 0 {
		return io.EOF
	}
	copy(dest, r.left[0])
	r.left = r.left[1:]
	return nil
}

// leakPool is a wrapped database and what it reported.
type leakPool struct {
	*sql.DB
	c *Connector

	mu      sync.Mutex
	reports []leakReport // guarded by mu
}

type leakReport struct {
	Leak
	at time.Time
}

// newLeakPool opens a database, in a bubble, that the test closes by ending.
func newLeakPool(t *testing.T, f *leakFake, cfg Config) *leakPool {
	p := &leakPool{}
	if f.rows == nil {
		f.rows = [][]driver.Value{{int64(1)}, {int64(2)}}
	}
	if cfg.Name == "" {
		cfg.Name = "orders"
	}
	if cfg.Logger == nil {
		cfg.Logger = slog.New(slog.DiscardHandler)
	}
	if then := cfg.OnLeak; true {
		cfg.OnLeak = func(l Leak) {
			p.mu.Lock()
			p.reports = append(p.reports, leakReport{l, time.Now()})
			p.mu.Unlock()
			if then != nil {
				then(l)
			}
		}
	}
	db, err := OpenDB(f, cfg)
	require.NoError(t, err)
	t.Cleanup(func() { assert.NoError(t, db.Close()) })
	p.DB = db
	p.c, _ = ConnectorOf(db)
	return p
}

// take returns what was reported since it was last called.
func (p *leakPool) take() []leakReport {
	synctest.Wait()
	p.mu.Lock()
	defer p.mu.Unlock()
	reports := p.reports
	p.reports = nil
	return reports
}

// one is the one report there is.
func (p *leakPool) one(t *testing.T) leakReport {
	t.Helper()
	reports := p.take()
	require.Len(t, reports, 1)
	return reports[0]
}

// lease takes a connection.
func (p *leakPool) lease(t *testing.T) *sql.Conn {
	t.Helper()
	conn, err := p.Conn(t.Context())
	require.NoError(t, err)
	return conn
}

// leakPause lets virtual time pass, and all that is due in it happen.
func leakPause(d time.Duration) {
	<-time.After(d)
	synctest.Wait()
}

// leakSiteAbove is the site of the line above its caller's.
func leakSiteAbove() string {
	pc, file, line, _ := runtime.Caller(1)
	dir, file := filepath.Split(file)
	return fmt.Sprintf("%s/%s:%d %s", filepath.Base(dir), file, line-1, path.Base(runtime.FuncForPC(pc).Name()))
}

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

		leakPause(100 * time.Hour)
		assert.Empty(t, p.take(), "once is enough")
		assert.Equal(t, uint64(1), p.c.Stats().Leaks)
		require.NoError(t, conn.Close())
	})
}

// What is reported says what the holder does, and what to do about it.
func TestAReportSaysWhatKindOfTroubleItIs(t *testing.T) {
	const (
		closeRows = "close the *sql.Rows on every path: defer rows.Close() right after the error check of the query"
		endTx     = "end the *sql.Tx on every path: defer tx.Rollback() right after BeginTx"
		closeConn = "close the *sql.Conn on every path: defer conn.Close() right after DB.Conn"
		lookAt    = "look at the statement's plan and locks, or give its context a deadline"
		leak      = `pool "orders": lease 1 is idle in hand for longer than 10s: a leak`
		slow      = `pool "orders": lease 1 is busy for longer than 10s: a slow call, not a leak`
	)
	type state struct {
		class                 Class
		inTx                  bool
		openRows              int
		call                  string
		headline, doing, cure string
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
			want: state{ClassIdleInHand, false, 0, "", leak, "idle in hand for 10s", closeConn}},
		{name: "a Conn that was used", hold: func(t *testing.T, db *sql.DB) io.Closer {
			conn := leakConn(t, db).(*sql.Conn)
			leakPause(4 * time.Second)
			_, err := conn.ExecContext(t.Context(), "UPDATE t SET a = 'secret'")
			require.NoError(t, err)
			return conn
		}, used: 4 * time.Second, want: state{ClassIdleInHand, false, 0, "exec", leak, "idle in hand for 10s", closeConn}},
		{name: "a Tx", hold: leakTx,
			want: state{ClassIdleInHand, true, 0, "begin", leak, "idle in transaction for 10s", endTx}},
		{name: "a Tx that the server ends", idle: "5min", hold: leakTx,
			want: state{ClassIdleInHand, true, 0, "begin", leak, "idle in transaction for 10s", endTx + "; the server ends an idle transaction after 5m0s"}},
		{name: "Rows", hold: leakRows,
			want: state{ClassIdleInHand, false, 1, "query", leak, "idle in hand for 10s with rows open", closeRows}},
		{name: "Rows of a Tx", hold: func(t *testing.T, db *sql.DB) io.Closer {
			tx := leakTx(t, db)
			rows, err := tx.(leakTxCloser).QueryContext(t.Context(), "SELECT a FROM t")
			require.NoError(t, err)
			require.True(t, rows.Next())
			return tx
		}, want: state{ClassIdleInHand, true, 1, "query", leak, "idle in hand for 10s with rows open", closeRows}},
		{name: "Rows that were closed", hold: func(t *testing.T, db *sql.DB) io.Closer {
			conn := leakConn(t, db).(*sql.Conn)
			rows, err := conn.QueryContext(t.Context(), "SELECT a FROM t")
			require.NoError(t, err)
			leakPause(3 * time.Second)
			require.NoError(t, rows.Close())
			require.NoError(t, rows.Err())
			return conn
		}, used: 3 * time.Second, want: state{ClassIdleInHand, false, 0, "query", leak, "idle in hand for 10s", closeConn}},
		{name: "a Tx that ended on its Conn", hold: func(t *testing.T, db *sql.DB) io.Closer {
			conn := leakConn(t, db).(*sql.Conn)
			tx, err := conn.BeginTx(t.Context(), nil)
			require.NoError(t, err)
			require.NoError(t, tx.Commit())
			return conn
		}, want: state{ClassIdleInHand, false, 0, "commit", leak, "idle in hand for 10s", closeConn}},
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
				f, cfg := &leakFake{takes: map[string]time.Duration{c.slow: 15 * time.Second}}, Config{LeakThreshold: 10 * time.Second, LongCallThreshold: 10 * time.Second}
				if c.idle != "" {
					cfg.Dialect, f.rows = DialectPostgreSQL, [][]driver.Value{{"0", c.idle}}
				}
				p := newLeakPool(t, f, cfg)
				start := time.Now()
				held := c.hold(t, p.DB)
				leakPause(time.Until(start.Add(10*time.Second + c.used)))
				l := p.one(t)
				assert.Equal(t, c.want, state{l.Class, l.InTx, l.OpenRows, l.Call, l.headline(), l.doing(), l.cure()})
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

func TestALeaseIsIdleInHandSinceItsLastCallEnded(t *testing.T) {
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
		assert.Equal(t, "idle in hand for 30s", l.doing())
		require.NoError(t, conn.Close())
	})
}

func leakConn(t *testing.T, db *sql.DB) io.Closer {
	conn, err := db.Conn(t.Context())
	require.NoError(t, err)
	return conn
}

// leakTxCloser is a Tx that ends by being closed.
type leakTxCloser struct{ *sql.Tx }

// Close rolls back.
func (t leakTxCloser) Close() error { return t.Rollback() }

func leakTx(t *testing.T, db *sql.DB) io.Closer {
	tx, err := db.BeginTx(t.Context(), nil)
	require.NoError(t, err)
	return leakTxCloser{tx}
}

func leakRows(t *testing.T, db *sql.DB) io.Closer {
	rows, err := db.QueryContext(t.Context(), "SELECT a FROM t")
	require.NoError(t, err)
	require.True(t, rows.Next())
	return rows
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
		assert.Equal(t, fmt.Sprintf(`pool "orders": lease %d was returned after all, after 45s`, first.ID), second.headline())
		assert.Contains(t, second.String(), "cure       it is no leak; make the work between acquire and return shorter, or raise Config.LeakThreshold\n")
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
		require.ErrorIs(t, conn.Raw(func(any) error { return driver.ErrBadConn }), driver.ErrBadConn)
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
		assert.Contains(t, third.String(), "held       30s, since 2000-01-01T00:00:31Z, after waiting 31s for it\n")
		require.NoError(t, conn.Close())
	})
}

func TestANegativeThresholdReportsNothing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newLeakPool(t, &leakFake{}, Config{LeakThreshold: -1})
		conn := p.lease(t)
		assert.Nil(t, p.c.watch.timer.t, "there is nothing to wake up for")
		leakPause(1000 * time.Hour)
		assert.Len(t, p.c.Leases(), 1)
		require.NoError(t, conn.Close())
		assert.Empty(t, p.take())
		assert.Zero(t, p.c.Stats().Leaks)
		assert.Nil(t, p.c.watch.timer.t)
	})
}

// Reports come in order of acquiring, each at its own deadline; leases that
// are returned in time stay unmentioned; the watch wakes up no more often than
// there are leases.
func TestOfManyLeasesEachIsReportedInItsTurn(t *testing.T) {
	const leases = 1000
	synctest.Test(t, func(t *testing.T) {
		p := newLeakPool(t, &leakFake{}, Config{})
		arms := leakCountArms(p.c)
		conns := make([]*sql.Conn, leases)
		taken := make(map[uint64]time.Time)
		for i := range conns {
			conns[i] = p.lease(t)
			taken[uint64(i+1)] = time.Now()
			<-time.After([]time.Duration{0, 1, time.Millisecond}[i%3]) // some at the same instant
		}
		var missing []uint64
		for i := 0; i < leases; i += 4 {
			require.NoError(t, conns[i].Close())
			missing = append(missing, uint64(i+1))
		}
		leakPause(time.Hour)
		reports := p.take()
		assert.Len(t, reports, leases-len(missing))
		assert.True(t, slices.IsSortedFunc(reports, func(a, b leakReport) int { return int(a.ID) - int(b.ID) }))
		for _, l := range reports {
			assert.Equal(t, 30*time.Second, l.Hold)
			assert.Equal(t, taken[l.ID].Add(30*time.Second), l.at)
			delete(taken, l.ID)
		}
		assert.Len(t, taken, len(missing), "none was reported twice")
		for _, id := range missing {
			assert.Contains(t, taken, id)
		}
		assert.LessOrEqual(t, arms(), 2*leases, "twice each: for the first look, and when it is overdue")
		assert.Equal(t, uint64(len(reports)), p.c.Stats().Leaks)
		for i, conn := range conns {
			if i%4 > 0 {
				require.NoError(t, conn.Close())
			}
		}
		assert.Len(t, p.take(), len(reports), "all of them come back late")
	})
}

// The watch's timer is set for the oldest lease, whatever begins and ends
// meanwhile: nobody can put off a report of somebody else's lease.
func TestNoOtherLeasePutsAReportOff(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newLeakPool(t, &leakFake{}, Config{})
		held := map[uint64]*sql.Conn{}
		for id := uint64(1); id <= 80; id += 4 { // a lease every 3 s is held, each followed by short ones
			held[id] = p.lease(t)
			for range 3 {
				require.NoError(t, p.PingContext(t.Context()))
				<-time.After(time.Second)
			}
		}
		leakPause(time.Minute)
		reports := p.take()
		require.Len(t, reports, 20)
		for i, l := range reports {
			assert.Equal(t, uint64(4*i+1), l.ID)
			assert.Equal(t, 30*time.Second, l.Hold)
			require.NoError(t, held[l.ID].Close())
		}
	})
}

// leakCountArms counts how often the watch's timer is armed from now on.
func leakCountArms(c *Connector) func() int {
	sets := func() int {
		c.watch.timer.mu.Lock()
		defer c.watch.timer.mu.Unlock()
		return c.watch.timer.sets
	}
	before := sets()
	return func() int { return sets() - before }
}

// Whatever an application does between two silences, the watch goes to sleep
// with it, without a goroutine and without a timer.
func TestAnIdlePoolArmsNoTimer(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newLeakPool(t, &leakFake{}, Config{LeakThreshold: time.Second})
		arms := leakCountArms(p.c)
		leakPause(time.Hour)
		assert.Zero(t, arms(), "nothing was ever on lease")
		for range 1000 {
			require.NoError(t, p.PingContext(t.Context()))
		}
		assert.Equal(t, 1, arms(), "one timer does for all")
		leakPause(time.Second)
		assert.Zero(t, p.c.watch.at.Load())
		leakPause(1000 * time.Hour)
		assert.Equal(t, 1, arms())
		assert.False(t, p.c.watch.timer.t.Stop(), "the timer has fired and was not armed again")
		assert.Zero(t, ownGoroutines(t))
		assert.Empty(t, p.take())

		conn := p.lease(t)
		leakPause(time.Second)
		p.one(t)
		leakPause(time.Hour)
		assert.Equal(t, 2, arms(), "a lease that was reported needs no timer")
		require.NoError(t, conn.Close())
	})
}

func TestOnLeakMayPanic(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		log := &leakLog{}
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
			assert.Equal(t, "sqllease: Config.OnLeak panicked; the report itself is not lost", r.message)
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

// leakLog is a slog.Handler that keeps what it is given.
type leakLog struct {
	mu      sync.Mutex
	records []leakRecord // guarded by mu
}

type leakRecord struct {
	level   slog.Level
	message string
	attrs   map[string]any // those of groups by their path
	span    trace.SpanContext
}

func (l *leakLog) Enabled(context.Context, slog.Level) bool { return true }
func (l *leakLog) WithAttrs([]slog.Attr) slog.Handler       { return l }
func (l *leakLog) WithGroup(string) slog.Handler            { return l }
func (l *leakLog) Handle(ctx context.Context, r slog.Record) error {
	record := leakRecord{r.Level, r.Message, map[string]any{}, trace.SpanContextFromContext(ctx)}
	r.Attrs(func(a slog.Attr) bool { record.add("", a); return true })
	l.mu.Lock()
	defer l.mu.Unlock()
	l.records = append(l.records, record)
	return nil
}

func (r *leakRecord) add(prefix string, a slog.Attr) {
	v := a.Value.Resolve()
	if v.Kind() != slog.KindGroup {
		r.attrs[prefix+a.Key] = v.Any()
		return
	}
	for _, in := range v.Group() {
		r.add(prefix+a.Key+".", in)
	}
}

// take returns what was logged since it was last called.
func (l *leakLog) take() []leakRecord {
	l.mu.Lock()
	defer l.mu.Unlock()
	records := l.records
	l.records = nil
	return records
}

// leakTraced is a context with a span of a trace of its own.
func leakTraced(t *testing.T) (context.Context, trace.SpanContext) {
	span := trace.NewSpanContext(trace.SpanContextConfig{
		TraceID:    trace.TraceID{0xA1, 15: 0xF1},
		SpanID:     trace.SpanID{0xB2, 7: 0xF2},
		TraceFlags: trace.FlagsSampled,
	})
	return trace.ContextWithSpanContext(t.Context(), span), span
}

func TestAReportIsALogRecord(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		log := &leakLog{}
		p := newLeakPool(t, &leakFake{takes: map[string]time.Duration{"connect": 1500 * time.Millisecond}}, Config{Logger: slog.New(log)})
		ctx, span := leakTraced(t)
		tx, err := p.BeginTx(ctx, nil)
		site := leakSiteAbove()
		require.NoError(t, err)
		acquired := time.Now()
		_, err = tx.ExecContext(ctx, "UPDATE t SET a = 'secret'")
		require.NoError(t, err)
		leakPause(30 * time.Second)
		l := p.one(t)

		want := map[string]any{
			"leak.pool":       "orders",
			"leak.lease":      uint64(1),
			"leak.class":      "idle in hand",
			"leak.site":       site,
			"leak.times":      int64(1),
			"pool":            "orders",
			"leak.folded":     int64(0),
			"leak.hold":       30 * time.Second,
			"leak.acquired":   acquired,
			"leak.waited":     1500 * time.Millisecond,
			"leak.doing":      "idle in transaction for 30s",
			"leak.in_tx":      true,
			"leak.open_rows":  int64(0),
			"leak.cure":       "end the *sql.Tx on every path: defer tx.Rollback() right after BeginTx",
			"leak.call":       "exec",
			"leak.call_begun": acquired,
			"leak.statement":  "UPDATE t SET a = ?",
			"leak.trace_id":   "a10000000000000000000000000000f1",
			"leak.span_id":    "b2000000000000f2",
			"leak.stack":      l.Stack.String(),
		}
		assert.Equal(t, []leakRecord{{slog.LevelWarn, `sqllease: pool "orders": lease 1 is idle in hand for longer than 30s: a leak`, want, span}}, log.take())

		leakPause(time.Second)
		require.NoError(t, tx.Rollback())
		synctest.Wait()
		records := log.take()
		require.Len(t, records, 1)
		assert.Equal(t, slog.LevelInfo, records[0].level)
		assert.Equal(t, `sqllease: pool "orders": lease 1 was returned after all, after 31s`, records[0].message)
		assert.Equal(t, 31*time.Second, records[0].attrs["leak.hold"])
		assert.Equal(t, span, records[0].span)
		assert.NotContains(t, records[0].attrs, "leak.stack")
	})
}

func TestAReportIsReadInLines(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newLeakPool(t, &leakFake{}, Config{})
		ctx, _ := leakTraced(t)
		conn, err := p.Conn(ctx)
		site := leakSiteAbove()
		require.NoError(t, err)
		_, err = conn.ExecContext(ctx, "UPDATE t SET a = 'secret'")
		require.NoError(t, err)
		leakPause(30 * time.Second)
		text := p.one(t).String()
		head, stack, found := strings.Cut(text, "  stack\n")
		require.True(t, found, text)
		assert.Equal(t, `sqllease: pool "orders": lease 1 is idle in hand for longer than 30s: a leak
  taken by   `+site+`
  held       30s, since 2000-01-01T00:00:00Z, after waiting 0s for it
  doing      idle in hand for 30s
  last call  exec, begun 30s before
  statement  UPDATE t SET a = ?
  trace      a10000000000000000000000000000f1 span b2000000000000f2
  cure       close the *sql.Conn on every path: defer conn.Close() right after DB.Conn
`, head)
		lines := strings.Split(strings.TrimSuffix(stack, "\n"), "\n")
		assert.Regexp(t, `^    github.com/sqllease/sqllease\.TestAReportIsReadInLines\.func1$`, lines[0])
		assert.Regexp(t, `^    \t.*leak_test\.go:\d+$`, lines[1])
		for i, line := range lines {
			assert.Equal(t, i%2 == 1, strings.HasPrefix(line, "    \t"), "a function, then its place: %q", line)
		}
		require.NoError(t, conn.Close())
	})
}

func TestALongStatementIsCutInAReportAtACharacter(t *testing.T) {
	short := strings.Repeat("é", 60)
	assert.Equal(t, short, shorten(short))
	assert.Equal(t, short+"…", shorten(short+"é"))
	assert.Equal(t, "x"+strings.Repeat("é", 59)+"…", shorten("x"+short))
}

func TestAReportIsASpanLinkedToTheTraceThatAcquired(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		spans := tracetest.NewSpanRecorder()
		provider := sdktrace.NewTracerProvider(sdktrace.WithSpanProcessor(spans))
		p := newLeakPool(t, &leakFake{}, Config{TracerProvider: provider})
		ctx, parent := leakTraced(t)
		conn, err := p.Conn(ctx)
		site := leakSiteAbove()
		require.NoError(t, err)
		acquired := time.Now()
		leakPause(30 * time.Second)
		require.NoError(t, conn.Close())

		leaks := leakSpans(spans)
		require.Len(t, leaks, 2, "the leak, and its late return")
		leak := leaks[0]
		assert.Equal(t, acquired, leak.StartTime())
		assert.Equal(t, acquired.Add(30*time.Second), leak.EndTime())
		require.Len(t, leak.Links(), 1)
		assert.Equal(t, parent, leak.Links()[0].SpanContext)
		assert.Equal(t, parent.TraceID(), leak.SpanContext().TraceID(), "it is seen where the trace is")
		assert.Equal(t, sdktrace.Status{Code: codes.Error, Description: "idle in hand"}, leak.Status())
		assert.Subset(t, leak.Attributes(), []attribute.KeyValue{
			attribute.Int64("sqllease.lease.id", 1),
			attribute.String("sqllease.leak.class", "idle_in_hand"),
			attribute.Float64("sqllease.hold", 30),
			attribute.String("sqllease.site", site),
			attribute.String("db.client.connection.pool.name", "orders"),
		})
		assert.Equal(t, codes.Unset, leaks[1].Status().Code, "a return is no error")
		require.NoError(t, provider.Shutdown(t.Context()))
	})
}

func TestAReportWithoutATraceIsASpanOnlyWhereRootSpansAreWanted(t *testing.T) {
	for _, roots := range []bool{false, true} {
		synctest.Test(t, func(t *testing.T) {
			spans := tracetest.NewSpanRecorder()
			p := newLeakPool(t, &leakFake{}, Config{
				TracerProvider: sdktrace.NewTracerProvider(sdktrace.WithSpanProcessor(spans)),
				RootSpans:      roots,
			})
			conn := p.lease(t)
			leakPause(30 * time.Second)
			leaks := leakSpans(spans)
			if !roots {
				assert.Empty(t, leaks)
			} else if assert.Len(t, leaks, 1) {
				assert.False(t, leaks[0].Parent().IsValid())
				assert.Empty(t, leaks[0].Links())
			}
			require.NoError(t, conn.Close())
		})
	}
}

// leakSpans are the ended spans of leak reports.
func leakSpans(spans *tracetest.SpanRecorder) []sdktrace.ReadOnlySpan {
	synctest.Wait()
	return slices.DeleteFunc(spans.Ended(), func(s sdktrace.ReadOnlySpan) bool { return s.Name() != "sqllease.leak" })
}

func TestReportsAreCountedByClass(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		reader := sdkmetric.NewManualReader()
		p := newLeakPool(t, &leakFake{takes: map[string]time.Duration{"ping": 40 * time.Second}}, Config{
			MeterProvider: sdkmetric.NewMeterProvider(sdkmetric.WithReader(reader)), LongCallThreshold: DefaultLeakThreshold,
		})
		first, second := p.lease(t), p.lease(t)
		assert.NoError(t, p.PingContext(t.Context()))
		assert.Equal(t, map[string]int64{"idle_in_hand": 2, "busy": 1, "proven": 0}, leakCounts(t, reader))
		require.NoError(t, first.Close())
		require.NoError(t, second.Close())
		assert.Equal(t, map[string]int64{"idle_in_hand": 2, "busy": 1, "proven": 0}, leakCounts(t, reader), "a return counts for nothing")
	})
}

// leakCounts are the values of the metric sqllease.leaks by class.
func leakCounts(t *testing.T, reader sdkmetric.Reader) map[string]int64 {
	var all metricdata.ResourceMetrics
	require.NoError(t, reader.Collect(t.Context(), &all))
	counts := map[string]int64{}
	for _, scope := range all.ScopeMetrics {
		for _, m := range scope.Metrics {
			if m.Name != "sqllease.leaks" {
				continue
			}
			assert.Equal(t, "{lease}", m.Unit)
			for _, point := range m.Data.(metricdata.Sum[int64]).DataPoints {
				pool, _ := point.Attributes.Value("db.client.connection.pool.name")
				assert.Equal(t, "orders", pool.AsString())
				class, _ := point.Attributes.Value("sqllease.leak.class")
				counts[class.AsString()] += point.Value
			}
		}
	}
	return counts
}

// waiter starts an acquire that is going to queue, and returns its error.
func (p *leakPool) waiter(ctx context.Context) <-chan error {
	failed := make(chan error, 1)
	go func() {
		conn, err := p.Conn(ctx)
		if err == nil {
			err = conn.Close()
		}
		failed <- err
	}()
	synctest.Wait()
	return failed
}

func TestTheErrorOfAnAcquireTellsHowThePoolStood(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newLeakPool(t, &leakFake{}, Config{MaxOpen: 3, LeakThreshold: -1})
		var conns []*sql.Conn
		for range 2 {
			conn, err := p.Conn(t.Context())
			require.NoError(t, err)
			conns = append(conns, conn)
			<-time.After(time.Minute)
		}
		pair := leakSiteOf(t, p, 0)
		tx, err := p.BeginTx(t.Context(), nil)
		single := leakSiteAbove()
		require.NoError(t, err)
		<-time.After(10 * time.Second)

		ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
		defer cancel()
		ahead := p.waiter(t.Context())
		late := p.waiter(ctx)
		behind := p.waiter(t.Context())
		err = <-late
		assert.EqualError(t, err, `sqllease: pool "orders": no connection after 5s (context deadline exceeded): `+
			`3 of 3 in use, 0 idle, place 2 of 3 in the queue; `+
			`held by `+pair+` (2, the oldest for 2m15s, idle in hand for 2m15s), `+
			single+` (1, the oldest for 15s, idle in transaction for 15s)`)
		assert.ErrorIs(t, err, context.DeadlineExceeded)
		assert.NotErrorIs(t, err, context.Canceled)
		var acquire *AcquireError
		require.ErrorAs(t, err, &acquire)
		assert.True(t, acquire.Timeout())
		acquire.Holders = nil
		assert.Equal(t, &AcquireError{Pool: "orders", Limit: 3, InUse: 3, Waiting: 3, Position: 2, Waited: 5 * time.Second, Err: context.DeadlineExceeded}, acquire)
		assert.Equal(t, uint64(1), p.c.Stats().Timeouts)

		require.NoError(t, tx.Rollback())
		for _, conn := range conns {
			require.NoError(t, conn.Close())
		}
		assert.NoError(t, <-ahead)
		assert.NoError(t, <-behind)
	})
}

// leakSiteOf is where a lease was taken that is out, counted from the oldest.
func leakSiteOf(t *testing.T, p *leakPool, i int) string {
	leases := p.c.Leases()
	require.Greater(t, len(leases), i)
	site := leases[i].Stack.Site()
	require.Contains(t, site, "leak_test.go:")
	return site
}

func TestTheErrorOfAnAcquireSaysWhyItEnded(t *testing.T) {
	for _, c := range []struct {
		name    string
		timeout time.Duration
		is      error
		isTime  bool
	}{
		{"cancelled", 0, context.Canceled, false},
		{"the acquire timeout", 7 * time.Second, context.DeadlineExceeded, true},
	} {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				p := newLeakPool(t, &leakFake{}, Config{MaxOpen: 1, AcquireTimeout: c.timeout})
				conn := p.lease(t)
				ctx, cancel := context.WithCancel(t.Context())
				failed := p.waiter(ctx)
				leakPause(7 * time.Second)
				cancel()
				err := <-failed
				assert.ErrorIs(t, err, c.is)
				assert.ErrorContains(t, err, `sqllease: pool "orders": no connection after 7s (`+c.is.Error()+`): 1 of 1 in use, 0 idle, place 1 of 1 in the queue; held by `)
				var acquire *AcquireError
				require.ErrorAs(t, err, &acquire)
				assert.Equal(t, c.isTime, acquire.Timeout())
				require.NoError(t, conn.Close())
			})
		})
	}
}

func TestTheErrorOfAnAcquireThatDialledNamesNoPlaceInTheQueue(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newLeakPool(t, &leakFake{takes: map[string]time.Duration{"connect": time.Minute}}, Config{AcquireTimeout: time.Second})
		other := p.waiter(t.Context())
		<-time.After(500 * time.Millisecond)
		_, err := p.Conn(t.Context())
		require.ErrorIs(t, err, context.DeadlineExceeded)
		assert.EqualError(t, err, `sqllease: pool "orders": no connection after 1s (context deadline exceeded): 0 without limit in use, 0 idle`)
		assert.ErrorContains(t, <-other, `0 without limit in use, 0 idle, 1 being dialled`)
	})
}

// The statement that a holder is in is told without its literals, and the
// number of holders that are looked at is bounded.
func TestTheErrorOfAnAcquireIsBoundedAndSanitised(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newLeakPool(t, &leakFake{takes: map[string]time.Duration{"exec": 20 * time.Second}}, Config{MaxOpen: 100, AcquireTimeout: 10 * time.Second})
		for range 100 {
			go func() {
				_, err := p.ExecContext(t.Context(), "UPDATE t SET a = 'secret'")
				assert.NoError(t, err)
			}()
		}
		synctest.Wait()
		_, err := p.Conn(t.Context())
		var acquire *AcquireError
		require.ErrorAs(t, err, &acquire)
		assert.Equal(t, 100, acquire.InUse)
		assert.Len(t, acquire.Holders, mostHolders)
		assert.Equal(t, uint64(1), acquire.Holders[0].ID, "the oldest are named")
		assert.ErrorContains(t, err, "the oldest for 10s, in exec for 10s: UPDATE t SET a = ?)")
		assert.NotContains(t, err.Error(), "secret")
		leakPause(10 * time.Second)
	})
}

func TestWaitersAreToldThatTheConnectorWasClosed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newLeakPool(t, &leakFake{}, Config{MaxOpen: 1})
		conn := p.lease(t)
		site := leakSiteOf(t, p, 0)
		waiters := []<-chan error{p.waiter(t.Context()), p.waiter(t.Context())}
		<-time.After(3 * time.Second)
		require.NoError(t, p.c.Close())
		for _, failed := range waiters {
			err := <-failed
			assert.ErrorIs(t, err, ErrClosed)
			var acquire *AcquireError
			require.ErrorAs(t, err, &acquire)
			assert.False(t, acquire.Timeout())
			assert.Equal(t, 3*time.Second, acquire.Waited)
			assert.EqualError(t, err, `sqllease: pool "orders": no connection after 3s (`+ErrClosed.Error()+`): `+
				`1 of 1 in use, 0 idle; held by `+site+` (1, the oldest for 3s, idle in hand for 3s)`)
		}
		_, err := p.c.Connect(t.Context())
		assert.ErrorIs(t, err, ErrClosed, "and so is who comes later")
		assert.Zero(t, p.c.Stats().Timeouts, "nobody ran out of time")

		leakPause(27 * time.Second)
		assert.False(t, p.one(t).Returned, "the watch goes on while leases are out")
		require.NoError(t, conn.Close())
		assert.True(t, p.one(t).Returned)
		assert.Zero(t, p.c.Stats().Open)
	})
}
