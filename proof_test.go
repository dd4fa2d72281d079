package sqllease

import (
	"context"
	"database/sql"
	"database/sql/driver"
	"log/slog"
	"runtime"
	"sync"
	"testing"
	"testing/synctest"
	"time"
	"weak"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	sdktrace "go.opentelemetry.io/otel/sdk/trace"
	"go.opentelemetry.io/otel/sdk/trace/tracetest"
)

// collect has the garbage collector run, and lets the watch look at what it
// found; not at once, since whether it found anything is for the test to say.
func collect(p *leakPool) {
	for range 20 {
		runtime.GC()
		if p.c.watch.unreachable.newest.Load() != nil {
			break
		}
	}
	leakPause(proofEvery)
}

// queryer is a *sql.DB, *sql.Conn or *sql.Tx.
type queryer interface {
	QueryContext(ctx context.Context, query string, args ...any) (*sql.Rows, error)
}

// forgetRows forgets rows that were not closed.
func forgetRows(t *testing.T, q queryer) {
	forget(t, func(ctx context.Context, _ *sql.DB) error {
		_, err := q.QueryContext(ctx, "SELECT a FROM t") //nolint:rowserrcheck,sqlclosecheck // that is the point
		return err
	}, nil)
}

// forget calls a function whose variables are garbage when it has returned.
//
//go:noinline
func forget(t *testing.T, do func(context.Context, *sql.DB) error, db *sql.DB) {
	require.NoError(t, do(context.Background(), db))
}

func TestRowsThatNobodyCanCloseAreProvenAndCured(t *testing.T) {
	const (
		closeRows = "close the *sql.Rows on every path: defer rows.Close() right after the error check of the query"
		scan      = "call Scan on every *sql.Row, whatever its error: that is what closes it"
	)
	for _, c := range []struct {
		name string
		slow time.Duration // what the query takes
		do   func(context.Context, *sql.DB) error
		fix  string
	}{
		{"Rows that were not closed", 0, func(ctx context.Context, db *sql.DB) error {
			rows, err := db.QueryContext(ctx, "SELECT a FROM t WHERE b = 'secret'")
			_ = rows.Next()
			return err
		}, closeRows},
		{"a Row that was not scanned", 0, func(ctx context.Context, db *sql.DB) error {
			return db.QueryRowContext(ctx, "SELECT a FROM t WHERE b = 'secret'").Err()
		}, scan},
		{"a query that took long", 3 * time.Second, func(ctx context.Context, db *sql.DB) error {
			_, err := db.QueryContext(ctx, "SELECT a FROM t WHERE b = 'secret'") //nolint:rowserrcheck,sqlclosecheck // that is the point
			return err
		}, closeRows},
	} {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				spans := tracetest.NewSpanRecorder()
				p := newLeakPool(t, &leakFake{takes: map[string]time.Duration{"query": c.slow}}, Config{
					MaxOpen: 1, TracerProvider: sdktrace.NewTracerProvider(sdktrace.WithSpanProcessor(spans)),
				})
				start := time.Now()
				forget(t, c.do, p.DB)
				waiter := make(chan error, 1)
				go func() { waiter <- p.PingContext(t.Context()) }()
				leakPause(firstLook)
				assert.Empty(t, p.take(), "the garbage collector has not run")
				collect(p)

				l := p.one(t)
				assert.Equal(t, ClassProven, l.Class)
				assert.True(t, l.Reclaimed)
				assert.Equal(t, c.slow+2*time.Second, time.Since(start), "long before the threshold")
				assert.Contains(t, l.Stack.Site(), "/proof_test.go:")
				assert.Equal(t, c.fix, l.Fix())
				assert.Equal(t, "SELECT a FROM t WHERE b = ?", l.Statement)
				assert.Equal(t, `pool "orders": leaked connection, proven: nothing refers to its unclosed rows any more; `+
					`sqllease has closed it, and its place in the pool is free again (lease 1)`, l.headline())
				assert.Zero(t, l.Threshold)

				require.NoError(t, <-waiter, "it is cured")
				assert.Equal(t, c.slow+2*time.Second, time.Since(start))
				s := p.c.Stats()
				assert.Equal(t, [4]uint64{1, 1, 0, 1}, [4]uint64{s.Leaks, s.Proven, s.SlowCalls, s.Closed.Reclaimed})
				assert.Equal(t, [3]int{1, 0, 1}, [3]int{s.Open, s.InUse, s.Idle})
				var ended bool
				for _, span := range spans.Ended() {
					if span.Name() == "SELECT t" {
						ended = true
						assert.Equal(t, "the rows were never closed", span.Events()[len(span.Events())-1].Attributes[1].Value.AsString()[len("sqllease: "):])
						assert.Equal(t, start.Add(c.slow+2*time.Second), span.EndTime())
					}
				}
				assert.True(t, ended, "the query's span is not lost")
				leakPause(time.Hour)
				assert.Empty(t, p.take(), "once is enough")
				assert.Zero(t, p.c.watch.proving)
				assert.Zero(t, p.c.watch.at.Load(), "no timer")
			})
		})
	}
}

// What is held by something else than its rows is reported, and left to its
// holder.
func TestRowsOfAConnAreProvenButTheirSessionIsLeft(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newLeakPool(t, &leakFake{}, Config{MaxOpen: 1, ReclaimAfter: time.Minute})
		conn, err := p.Conn(context.Background())
		require.NoError(t, err)
		forgetRows(t, conn)
		leakPause(firstLook)
		collect(p)
		l := p.one(t)
		assert.Equal(t, ClassProven, l.Class)
		assert.False(t, l.Reclaimed)
		assert.Equal(t, `pool "orders": leaked connection, proven: nothing refers to its unclosed rows any more, `+
			`and their *sql.Conn cannot be closed before them (lease 1)`, l.headline())
		_, err = conn.ExecContext(t.Context(), "DO 1")
		require.NoError(t, err, "its holder has it still")
		leakPause(50 * time.Second)
		assert.Equal(t, ClassUnused, p.one(t).Class, "it was used meanwhile, and is left again")
		leakPause(15 * time.Second)
		assert.True(t, p.one(t).Reclaimed, "database/sql itself would wait for the rows for ever")
		assert.Equal(t, uint64(1), p.c.Stats().Leaks, "one lease, one leak")
		assert.NoError(t, p.PingContext(t.Context()))
	})
}

func TestWhatIsNotProven(t *testing.T) {
	for name, c := range map[string]struct {
		threshold time.Duration
		hold      func(*testing.T, *sql.DB) (release func())
	}{
		"rows in use": {0, func(t *testing.T, db *sql.DB) func() {
			rows, err := db.QueryContext(context.Background(), "SELECT a FROM t")
			require.NoError(t, err)
			require.NoError(t, rows.Err())
			return func() { require.NoError(t, rows.Close()) }
		}},
		"rows that were closed late": {0, func(t *testing.T, db *sql.DB) func() {
			rows, err := db.QueryContext(context.Background(), "SELECT a FROM t")
			require.NoError(t, err)
			require.NoError(t, rows.Err())
			leakPause(2 * time.Second)
			require.NoError(t, rows.Close())
			return func() {}
		}},
		"rows that were closed, of a lease that goes on": {0, func(t *testing.T, db *sql.DB) func() {
			conn, err := db.Conn(context.Background())
			require.NoError(t, err)
			forget(t, func(ctx context.Context, _ *sql.DB) error {
				first, err := conn.QueryContext(ctx, "SELECT a FROM t")
				require.NoError(t, err)
				second, err := conn.QueryContext(ctx, "SELECT a FROM t")
				require.NoError(t, err)
				leakPause(2 * time.Second)
				require.NoError(t, first.Err())
				require.NoError(t, second.Err())
				require.NoError(t, first.Close())
				return second.Close()
			}, db)
			return func() { require.NoError(t, conn.Close()) }
		}},
		"rows of a context that can end": {0, func(t *testing.T, db *sql.DB) func() {
			ctx, cancel := context.WithCancel(t.Context())
			forget(t, func(_ context.Context, db *sql.DB) error {
				_, err := db.QueryContext(ctx, "SELECT a FROM t") //nolint:rowserrcheck,sqlclosecheck // that is the point
				return err
			}, db)
			return cancel
		}},
		"rows of a transaction": {0, func(t *testing.T, db *sql.DB) func() {
			tx, err := db.BeginTx(context.Background(), nil)
			require.NoError(t, err)
			forgetRows(t, tx)
			return func() { require.NoError(t, tx.Rollback()) }
		}},
		"rows of a prepared statement, which keeps them": {0, func(t *testing.T, db *sql.DB) func() {
			st, err := db.PrepareContext(context.Background(), "SELECT a FROM t")
			require.NoError(t, err)
			forget(t, func(ctx context.Context, _ *sql.DB) error {
				_, err := st.QueryContext(ctx) //nolint:rowserrcheck,sqlclosecheck // that is the point
				return err
			}, db)
			return func() { require.NoError(t, st.Close()) }
		}},
		"anything, where nothing is watched": {-1, func(t *testing.T, db *sql.DB) func() {
			forgetRows(t, db)
			return func() {}
		}},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				p := newLeakPool(t, &leakFake{}, Config{LeakThreshold: c.threshold})
				release := c.hold(t, p.DB)
				leakPause(firstLook)
				for range 3 {
					collect(p)
				}
				assert.Empty(t, p.take())
				release()
				leakPause(time.Second)
				assert.Empty(t, p.take())
				assert.LessOrEqual(t, p.c.watch.proving, p.c.Stats().InUse)
			})
		})
	}
}

// database/sql counts a connection whose holder never comes back for ever. It
// must not come near its own limit by that.
func TestCuredLeaksDoNotUseUpTheLimitOfTheDatabaseItself(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newLeakPool(t, &leakFake{}, Config{MaxOpen: 1, LeakThreshold: time.Second, ReclaimAfter: time.Minute})
		for range 3 {
			forgetRows(t, p.DB)
			leakPause(firstLook)
			collect(p)
		}
		late := p.lease(t)
		assert.Equal(t, queueless+3, p.Stats().MaxOpenConnections)
		assert.Equal(t, 1, p.c.Stats().Limit, "the gate's own")
		leakPause(2 * time.Minute)
		p.SetMaxOpenConns(7)
		require.NoError(t, p.PingContext(t.Context()))
		assert.Equal(t, queueless+4, p.Stats().MaxOpenConnections)
		assert.Equal(t, 7, p.c.Stats().Limit, "what the application says still counts")
		require.NoError(t, late.Close())
		leakPause(2 * pulseEvery)
		assert.Equal(t, queueless+3, p.Stats().MaxOpenConnections, "it came back after all")
	})
}

// leakRows forgets rows that were not closed, and has them proven.
func (p *leakPool) leakRows(t *testing.T) {
	forgetRows(t, p.DB)
	leakPause(firstLook)
	collect(p)
	require.Equal(t, ClassProven, p.one(t).Class)
}

// database/sql has as many lost connections as the new limit allows, so that
// its callers queue where nobody sees them.
func TestALimitIsAdoptedWhereOnlyLostConnectionsAreLeft(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newLeakPool(t, &leakFake{}, Config{MaxOpen: 10})
		for range 3 {
			p.leakRows(t)
		}
		require.Equal(t, 3, p.Stats().OpenConnections)
		p.SetMaxOpenConns(2)
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		var all, both sync.WaitGroup
		both.Add(2)
		for range 2 {
			all.Go(func() {
				conn, err := p.Conn(ctx)
				both.Done()
				both.Wait() // each is served while the other holds on
				if assert.NoError(t, err) {
					assert.NoError(t, conn.Close())
				}
			})
		}
		all.Wait()
		assert.Equal(t, 2, p.c.Stats().Limit)
	})
}

// An application may read the limit, set another, and put the first back.
func TestALimitThatIsPutBackIsTheDatabasesOwn(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newLeakPool(t, &leakFake{}, Config{MaxOpen: 10})
		before := p.Stats().MaxOpenConnections
		p.leakRows(t)
		p.SetMaxOpenConns(1)
		require.NoError(t, p.PingContext(t.Context()))
		leakPause(2 * time.Second)
		assert.Equal(t, 1, p.c.Stats().Limit)
		p.SetMaxOpenConns(before)
		leakPause(2 * time.Second)
		assert.Equal(t, 1, p.c.Stats().Limit, "it says nothing of the gate's")
		assert.Equal(t, queueless+1, p.Stats().MaxOpenConnections)
	})
}

func TestAConnTakenWithinAQueryIsNotTheQuerys(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newLeakPool(t, &leakFake{}, Config{MaxOpen: 10})
		var conn *sql.Conn
		rows, err := p.QueryContext(context.Background(), "SELECT ?", valuer{func() (err error) {
			conn, err = p.Conn(context.Background())
			return err
		}})
		require.NoError(t, err)
		require.NoError(t, rows.Err())
		require.NoError(t, rows.Close())
		forgetRows(t, conn)
		leakPause(firstLook)
		collect(p)
		assert.False(t, p.one(t).Reclaimed)
		_, err = conn.ExecContext(t.Context(), "DO 1")
		assert.NoError(t, err)
	})
}

// A context may refer to the rows that were made with it.
func TestTheContextOfAQueryDoesNotKeepItsRows(t *testing.T) {
	type job struct{ rows *sql.Rows }
	type key struct{}
	synctest.Test(t, func(t *testing.T) {
		p := newLeakPool(t, &leakFake{}, Config{MaxOpen: 10})
		forget(t, func(ctx context.Context, db *sql.DB) (err error) {
			j := &job{}
			j.rows, err = db.QueryContext(context.WithValue(ctx, key{}, j), "SELECT a FROM t") //nolint:rowserrcheck,sqlclosecheck // that is the point
			return err
		}, p.DB)
		leakPause(firstLook)
		collect(p)
		assert.True(t, p.one(t).Reclaimed)

		var closed weak.Pointer[job]
		forget(t, func(ctx context.Context, db *sql.DB) (err error) {
			j := &job{}
			closed = weak.Make(j)
			j.rows, err = db.QueryContext(context.WithValue(ctx, key{}, j), "SELECT a FROM t")
			require.NoError(t, err)
			require.NoError(t, j.rows.Err())
			leakPause(2 * time.Second)
			return j.rows.Close()
		}, p.DB)
		for range 10 {
			runtime.GC()
		}
		assert.Nil(t, closed.Value())
	})
}

// panickingSpans are an application's, and panic at the end of the query's span.
type panickingSpans struct{ *tracetest.SpanRecorder }

func (p panickingSpans) OnEnd(s sdktrace.ReadOnlySpan) {
	if s.Name() == "SELECT t" {
		panic("the application's own bug")
	}
}

func TestAPanicInTheSpansOfALostLeaseIsStopped(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		log := &keptLog{}
		p := newLeakPool(t, &leakFake{}, Config{MaxOpen: 1, Logger: slog.New(log),
			TracerProvider: sdktrace.NewTracerProvider(sdktrace.WithSpanProcessor(panickingSpans{tracetest.NewSpanRecorder()}))})
		p.leakRows(t)
		require.NoError(t, p.PingContext(t.Context()))
		records := log.take()
		require.Len(t, records, 2)
		assert.Contains(t, records[1].message, "the tracer provider panicked")
	})
}

// cursorFake has rows with a result set in a column, as drivers of Oracle have.
type cursorFake struct{ leakFake }

func (f *cursorFake) Connect(context.Context) (driver.Conn, error) {
	return &cursorConn{leakFakeConn{&f.leakFake}, f}, nil
}

type cursorConn struct {
	leakFakeConn
	f *cursorFake
}

func (c *cursorConn) QueryContext(context.Context, string, []driver.NamedValue) (driver.Rows, error) {
	child := &leakFakeRows{&c.f.leakFake, c.f.rows}
	return &leakFakeRows{&c.f.leakFake, [][]driver.Value{{nil}, {child}}}, nil
}

func TestTheSessionOfACursorInUseIsLeft(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := &cursorFake{}
		f.rows = [][]driver.Value{{int64(1)}, {int64(2)}, {int64(3)}}
		db, err := OpenDB(f, Config{LeakThreshold: 10 * time.Second, ReclaimAfter: 20 * time.Second, Logger: slog.New(slog.DiscardHandler)})
		require.NoError(t, err)
		defer func() { assert.NoError(t, db.Close()) }()
		c, _ := ConnectorOf(db)
		child := &sql.Rows{}
		forget(t, func(ctx context.Context, db *sql.DB) error {
			rows, err := db.QueryContext(ctx, "SELECT cursor") //nolint:rowserrcheck,sqlclosecheck // only the child is kept
			require.NoError(t, err)
			require.True(t, rows.Next(), "a row without one")
			require.True(t, rows.Next())
			return rows.Scan(child)
		}, db)
		leakPause(firstLook)
		collect(&leakPool{DB: db, c: c})
		leakPause(time.Hour)
		assert.Equal(t, uint64(1), c.Stats().Proven, "it can be closed by nobody")
		assert.Zero(t, c.Stats().Closed.Reclaimed, "but it is in use")
		for i := range 3 {
			assert.True(t, child.Next(), i)
		}
	})
}

func TestALeaseIsProvenWhateverItsLimitAndItsTime(t *testing.T) {
	for name, c := range map[string]struct {
		threshold time.Duration
		takes     time.Duration
		ctx       context.Context
	}{
		"a low threshold and no limit": {100 * time.Millisecond, 500 * time.Millisecond, WithHoldLimit(context.Background(), 0)},
		"no limit":                     {0, 1200 * time.Millisecond, WithHoldLimit(context.Background(), 0)},
		"a short limit":                {0, 1200 * time.Millisecond, WithHoldLimit(context.Background(), time.Hour)},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				p := newLeakPool(t, &leakFake{takes: map[string]time.Duration{"query": c.takes}}, Config{LeakThreshold: c.threshold})
				forget(t, func(_ context.Context, db *sql.DB) error {
					_, err := db.QueryContext(c.ctx, "SELECT a FROM t") //nolint:rowserrcheck,sqlclosecheck // that is the point
					return err
				}, p.DB)
				leakPause(firstLook)
				collect(p)
				assert.Equal(t, ClassProven, p.one(t).Class)
			})
		})
	}
}

func TestALeaseIsProvenOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newLeakPool(t, &leakFake{takes: map[string]time.Duration{"query": 2 * time.Second}}, Config{})
		conn, err := p.Conn(WithHoldLimit(context.Background(), 500*time.Millisecond))
		require.NoError(t, err)
		for range 3 {
			forgetRows(t, conn)
			leakPause(firstLook)
			collect(p)
		}
		assert.Equal(t, uint64(1), p.c.Stats().Proven)
		assert.Equal(t, uint64(1), p.c.Stats().Leaks)
	})
}
