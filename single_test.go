package sqllease

import (
	"context"
	"database/sql"
	"database/sql/driver"
	"errors"
	"io"
	"log/slog"
	"runtime"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	sdkmetric "go.opentelemetry.io/otel/sdk/metric"
	"go.opentelemetry.io/otel/sdk/metric/metricdata"
	sdktrace "go.opentelemetry.io/otel/sdk/trace"
)

type singleValuersPanics struct{}

func (singleValuersPanics) Value() (driver.Value, error) { panic("a Valuer of the application's") }

// database/sql does not give back the connection of db.Query, Stmt.Query and Stmt.Exec if
// an argument's Valuer panics (the server of net/http recovers that). Such a lease is idle
// in hand for ever, and Config.ReclaimAfter is the cure for it.
func TestALeaseWhoseValuerPanickedIsReclaimed(t *testing.T) {
	for name, use := range map[string]func(db *sql.DB, st *sql.Stmt){
		"DB.Query": func(db *sql.DB, _ *sql.Stmt) {
			_, _ = db.QueryContext(context.Background(), "SELECT ?", singleValuersPanics{})
		},
		"Stmt.Query": func(_ *sql.DB, st *sql.Stmt) { _, _ = st.QueryContext(context.Background(), singleValuersPanics{}) },
		"Stmt.Exec":  func(_ *sql.DB, st *sql.Stmt) { _, _ = st.ExecContext(context.Background(), singleValuersPanics{}) },
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				db, err := OpenDB(&leakFake{}, Config{MaxOpen: 1, LeakThreshold: time.Second, ReclaimAfter: time.Minute, Logger: slog.New(slog.DiscardHandler)})
				require.NoError(t, err)
				defer func() { _ = db.Close() }()
				c, _ := ConnectorOf(db)
				st, err := db.PrepareContext(t.Context(), "SELECT ?")
				require.NoError(t, err)
				for range 3 { // the stack is recognised the second time
					use := func() { defer func() { _ = recover() }(); use(db, st) }
					use()
					leakPause(10 * time.Minute)
					require.Zero(t, c.Stats().InUse, "it was not reclaimed")
				}
			})
		})
	}
}

type singleValuersWaits struct{}

func (singleValuersWaits) Value() (driver.Value, error) {
	<-time.After(time.Hour)
	return int64(1), nil
}

// Nor does a lease use its session while the application works out an argument.
func TestALeaseWhoseValuerWaitsIsReclaimed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		db, err := OpenDB(&leakFake{}, Config{MaxOpen: 1, LeakThreshold: time.Second, ReclaimAfter: time.Minute, Logger: slog.New(slog.DiscardHandler)})
		require.NoError(t, err)
		defer func() { _ = db.Close() }()
		c, _ := ConnectorOf(db)
		for range 3 {
			done := make(chan error)
			go func() {
				_, err := db.ExecContext(context.Background(), "UPDATE t SET a = ?", singleValuersWaits{})
				done <- err
			}()
			leakPause(10 * time.Minute)
			held := c.Stats().InUse
			wantReclaimed(t, <-done)
			require.Zero(t, held, "it was not reclaimed")
		}
	})
}

// singleEndsProcessor ends the goroutine that starts or ends a span.
type singleEndsProcessor struct{ starts, ends *atomic.Bool }

func (p singleEndsProcessor) OnStart(context.Context, sdktrace.ReadWriteSpan) {
	singleEndsExit(p.starts)
}
func (p singleEndsProcessor) OnEnd(sdktrace.ReadOnlySpan)    { singleEndsExit(p.ends) }
func (singleEndsProcessor) Shutdown(context.Context) error   { return nil }
func (singleEndsProcessor) ForceFlush(context.Context) error { return nil }

func singleEndsExit(now *atomic.Bool) {
	if now != nil && now.Load() {
		runtime.Goexit()
	}
}

// Config.FilterSpan and the tracer provider may end the goroutine (a failed require does).
// database/sql does not give back the connection of db.Query, Stmt.Exec and of rows then:
// it is idle in hand, is reported, and Config.ReclaimAfter takes it.
func TestALeaseWhoseGoroutineWasEndedByTheApplicationIsReclaimed(t *testing.T) {
	query := func(db *sql.DB, _ *sql.Stmt) {
		if rows, err := db.QueryContext(context.Background(), "SELECT 1"); err == nil {
			_ = rows.Close()
		}
	}
	exec := func(_ *sql.DB, st *sql.Stmt) { _, _ = st.ExecContext(context.Background()) }
	for name, scene := range map[string]struct {
		use  func(*sql.DB, *sql.Stmt)
		with func(exits *atomic.Bool, cfg *Config, p *singleEndsProcessor)
	}{
		"FilterSpan of DB.Query": {query, func(exits *atomic.Bool, cfg *Config, _ *singleEndsProcessor) {
			cfg.FilterSpan = func(context.Context, Operation) bool { singleEndsExit(exits); return true }
		}},
		"OnStart of DB.Query":           {query, func(exits *atomic.Bool, _ *Config, p *singleEndsProcessor) { p.starts = exits }},
		"OnEnd of Stmt.Exec":            {exec, func(exits *atomic.Bool, _ *Config, p *singleEndsProcessor) { p.ends = exits }},
		"OnEnd of DB.Query, at its end": {query, func(exits *atomic.Bool, _ *Config, p *singleEndsProcessor) { p.ends = exits }},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				var exits atomic.Bool
				var mu sync.Mutex
				var reports []Leak // guarded by mu
				var p singleEndsProcessor
				cfg := Config{
					RootSpans: true, LeakThreshold: time.Second, ReclaimAfter: time.Minute, Logger: slog.New(slog.DiscardHandler),
					OnLeak: func(l Leak) { mu.Lock(); defer mu.Unlock(); reports = append(reports, l) },
				}
				scene.with(&exits, &cfg, &p)
				cfg.TracerProvider = sdktrace.NewTracerProvider(sdktrace.WithSpanProcessor(p))
				db, err := OpenDB(&gateFake{t: t}, cfg)
				require.NoError(t, err)
				defer func() { _ = db.Close() }()
				c, _ := ConnectorOf(db)
				st, err := db.PrepareContext(t.Context(), "DO 1")
				require.NoError(t, err)
				use := func() {
					done := make(chan struct{})
					go func() { defer close(done); scene.use(db, st) }()
					<-done
				}
				use()
				use()
				use()
				exits.Store(true)
				use()
				exits.Store(false)
				require.Equal(t, 1, c.Stats().InUse, "database/sql does not give it back")
				leakPause(10 * time.Minute)
				mu.Lock()
				defer mu.Unlock()
				require.NotEmpty(t, reports)
				assert.Equal(t, ClassIdleInHand, reports[0].Class, reports[0].String())
				assert.Zero(t, c.Stats().InUse, "it was not reclaimed")
			})
		})
	}
}

// The error of a call that comes too late has the lease as it stood when it was reclaimed.
func TestAReclaimedErrorHasTheLeaseAsItStood(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newLeakPool(t, &leakFake{takes: nil}, Config{LeakThreshold: time.Second, ReclaimAfter: time.Minute})
		tx, err := p.BeginTx(t.Context(), nil)
		require.NoError(t, err)
		_, err = tx.ExecContext(t.Context(), "DO 1")
		require.NoError(t, err)
		before := p.c.Leases()[0]
		leakPause(2 * time.Minute)
		_, err = tx.ExecContext(t.Context(), "DO 2")
		var e *ReclaimedError
		require.ErrorAs(t, err, &e)
		assert.Equal(t, "exec", e.Lease.Call)
		assert.Equal(t, before.Statement, e.Lease.Statement)
		assert.Equal(t, before.Begun, e.Lease.Begun)
		assert.Equal(t, before.Since, e.Lease.Since)
		assert.False(t, e.Lease.Busy)
		_ = tx.Rollback()
	})
}

// singleAsksValuer is an argument that asks the database what it is.
type singleAsksValuer struct{ ask func() error }

func (v singleAsksValuer) Value() (driver.Value, error) { return int64(1), v.ask() }

// singleAsksConn is that of a driver without direct calls, as many are.
type singleAsksFake struct{ leakFake }

func (f *singleAsksFake) Connect(context.Context) (driver.Conn, error) {
	return singleAsksConn{&leakFakeConn{&f.leakFake}}, nil
}

type singleAsksConn struct{ c *leakFakeConn }

func (c singleAsksConn) Close() error                          { return c.c.Close() }
func (c singleAsksConn) Begin() (driver.Tx, error)             { return c.c.Begin() }
func (c singleAsksConn) Prepare(q string) (driver.Stmt, error) { return c.c.Prepare(q) }

// A driver without direct calls gets the arguments after it has prepared the statement.
// What the application does to say what they are is no call of the driver's: two that each
// wait for another connection are a deadlock, which Config.FailOnDeadlock ends.
func TestADeadlockOfValuersIsSeenAfterThePrepare(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		db, err := OpenDB(&singleAsksFake{}, Config{MaxOpen: 2, FailOnDeadlock: true, Logger: slog.New(slog.DiscardHandler)})
		require.NoError(t, err)
		c, _ := ConnectorOf(db)
		nested := false
		var both sync.WaitGroup
		ask := func() error {
			if !nested {
				return nil
			}
			both.Done()
			both.Wait()
			ctx, cancel := context.WithTimeout(context.Background(), time.Hour)
			defer cancel()
			return db.PingContext(ctx)
		}
		use := func() error {
			_, err := db.ExecContext(context.Background(), "UPDATE t SET a = ?", singleAsksValuer{ask})
			return err
		}
		for range 3 { // so that the stack is known
			require.NoError(t, use())
		}
		nested = true
		both.Add(2)
		var all sync.WaitGroup
		start := time.Now()
		for range 2 {
			all.Go(func() { _ = use() })
		}
		leakPause(10 * time.Second)
		for _, l := range c.Leases() {
			assert.False(t, l.Busy, "%s since %v: it is idle in hand, while the application works out an argument", l.Call, l.Since.Sub(start))
		}
		assert.EqualValues(t, 1, c.Stats().Deadlocks)
		all.Wait()
		assert.Less(t, time.Since(start), time.Minute)
		require.NoError(t, db.Close())
	})
}

type singleCheckedValuer struct{ work func() }

func (v *singleCheckedValuer) Value() (driver.Value, error) { v.work(); return int64(1), nil }

// singleCheckedChecked is a value that is no driver.Valuer: the driver has its own way to ask it.
type singleCheckedChecked struct{ work func() }

// singleCheckedFake is a driver with a checker of its own, or without.
type singleCheckedFake struct {
	leakFake
	checks bool
}

func (f *singleCheckedFake) Connect(context.Context) (driver.Conn, error) {
	if f.checks {
		return &singleCheckedConn{leakFakeConn{&f.leakFake}}, nil
	}
	return &leakFakeConn{&f.leakFake}, nil
}

type singleCheckedConn struct{ leakFakeConn }

func (c *singleCheckedConn) CheckNamedValue(v *driver.NamedValue) error {
	if x, ok := v.Value.(singleCheckedChecked); ok {
		x.work()
		v.Value = int64(1)
	}
	return nil
}

// What passes while the application says what an argument is, by a pointer to a pointer
// whose type is a Valuer (which database/sql follows), or by whatever the driver's own
// checker asks, is no time of the query's, and no reset.
func TestTheTimeOfAnArgumentIsNoTimeOfTheQuery(t *testing.T) {
	for name, checks := range map[string]bool{"pointer to a pointer": false, "the driver's checker": true} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				reader := sdkmetric.NewManualReader()
				f := &singleCheckedFake{checks: checks}
				db, err := OpenDB(f, Config{Logger: slog.New(slog.DiscardHandler), MeterProvider: sdkmetric.NewMeterProvider(sdkmetric.WithReader(reader))})
				require.NoError(t, err)
				c, _ := ConnectorOf(db)
				takes := time.Duration(0)
				calls := map[string]bool{}
				work := func() {
					<-time.After(takes)
					calls[c.Leases()[0].Call] = true
				}
				v := &singleCheckedValuer{work}
				var arg any = &v
				if checks {
					arg = singleCheckedChecked{work}
				}
				use := func() {
					_, err := db.ExecContext(context.Background(), "UPDATE t SET a = ?", arg)
					require.NoError(t, err)
				}
				use()
				use()
				use()
				takes = 10 * time.Second
				calls = map[string]bool{}
				use()
				assert.NotContains(t, calls, "reset", "the session was reset long ago")
				var all metricdata.ResourceMetrics
				require.NoError(t, reader.Collect(t.Context(), &all))
				for _, s := range all.ScopeMetrics {
					for _, m := range s.Metrics {
						if m.Name == "db.client.operation.duration" {
							for _, p := range m.Data.(metricdata.Histogram[float64]).DataPoints {
								assert.Zero(t, p.Sum, "seconds in the driver's exec")
							}
						}
					}
				}
				require.NoError(t, db.Close())
			})
		})
	}
}

// singleExportedExporter is one that is called as a span ends, and takes its time.
type singleExportedExporter struct{ takes time.Duration }

func (*singleExportedExporter) OnStart(context.Context, sdktrace.ReadWriteSpan) {}
func (e *singleExportedExporter) OnEnd(sdktrace.ReadOnlySpan)                   { <-time.After(e.takes) }
func (*singleExportedExporter) Shutdown(context.Context) error                  { return nil }
func (*singleExportedExporter) ForceFlush(context.Context) error                { return nil }

type singleExportedFake struct{ leakFake }

func (f *singleExportedFake) Connect(context.Context) (driver.Conn, error) {
	return singleExportedConn{&leakFakeConn{&f.leakFake}}, nil
}

type singleExportedConn struct{ c *leakFakeConn }

func (c singleExportedConn) Close() error                          { return c.c.Close() }
func (c singleExportedConn) Begin() (driver.Tx, error)             { return c.c.Begin() }
func (c singleExportedConn) Prepare(q string) (driver.Stmt, error) { return c.c.Prepare(q) }

// What a span's end takes is no time of the next call, but one of the lease.
func TestTheTimeOfASpansEndIsNoTimeOfTheNextCall(t *testing.T) {
	for name, scene := range map[string]struct {
		direct  bool // the driver has direct calls
		query   bool
		useTime float64
	}{
		"prepare and exec": {useTime: 20},
		"exec":             {direct: true, useTime: 10},
		"query":            {direct: true, query: true, useTime: 10},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				reader := sdkmetric.NewManualReader()
				e := &singleExportedExporter{}
				var f driver.Connector = &singleExportedFake{leakFake{rows: [][]driver.Value{{int64(1)}}}}
				if scene.direct {
					f = &leakFake{rows: [][]driver.Value{{int64(1)}}}
				}
				db, err := OpenDB(f, Config{
					Logger: slog.New(slog.DiscardHandler), RootSpans: true,
					MeterProvider:  sdkmetric.NewMeterProvider(sdkmetric.WithReader(reader)),
					TracerProvider: sdktrace.NewTracerProvider(sdktrace.WithSpanProcessor(e)),
				})
				require.NoError(t, err)
				use := func() {
					if scene.query {
						var n int
						require.NoError(t, db.QueryRowContext(context.Background(), "SELECT 1").Scan(&n))
						return
					}
					_, err := db.ExecContext(context.Background(), "UPDATE t SET a = 1")
					require.NoError(t, err)
				}
				use()
				use()
				use()
				e.takes = 10 * time.Second
				use()
				e.takes = 0
				var all metricdata.ResourceMetrics
				require.NoError(t, reader.Collect(t.Context(), &all))
				sums := map[string]float64{}
				for _, s := range all.ScopeMetrics {
					for _, m := range s.Metrics {
						data, ok := m.Data.(metricdata.Histogram[float64])
						if !ok {
							continue
						}
						for _, p := range data.DataPoints {
							sums[m.Name] += p.Sum
						}
					}
				}
				assert.Zero(t, sums["db.client.operation.duration"], "seconds in the driver's calls")
				assert.Equal(t, scene.useTime, sums["db.client.connection.use_time"], "seconds on lease")
				require.NoError(t, db.Close())
			})
		})
	}
}

// A lease lasts until its session is free: the driver's IsValid, and the closing of
// statements that are left over, are part of it, and somebody who came meanwhile has
// waited.
func TestWhatIsDoneAtTheReleaseIsPartOfTheLease(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var takes atomic.Int64
		f := &gateFake{t: t, script: func(_ context.Context, _ *gateFakeConn, call string) error {
			if call == "valid" {
				<-time.After(time.Duration(takes.Load()))
			}
			return nil
		}}
		db, c := f.open(Config{MaxOpen: 1})
		use := func() { _, err := db.ExecContext(context.Background(), "DO 1"); require.NoError(t, err) }
		use()
		use()
		use()
		takes.Store(int64(10 * time.Second))
		done := make(chan struct{})
		go func() { use(); close(done) }()
		<-time.After(time.Second)
		takes.Store(0)
		use() // it waits for 9 s
		<-done
		assert.Equal(t, 9*time.Second, c.Stats().QueueTime)
		f.end(db, c)
	})
}

type singleFirstValuer struct{ takes time.Duration }

func (v singleFirstValuer) Value() (driver.Value, error) { <-time.After(v.takes); return int64(1), nil }

// singleFirstFake has direct calls and no checker. It says since when the pool takes its exec to
// be in flight.
type singleFirstFake struct{ exec func() error }

func (f *singleFirstFake) Connect(context.Context) (driver.Conn, error) {
	return &singleFirstConn{f}, nil
}
func (f *singleFirstFake) Driver() driver.Driver            { return f }
func (f *singleFirstFake) Open(string) (driver.Conn, error) { return &singleFirstConn{f}, nil }

type singleFirstConn struct{ f *singleFirstFake }

func (*singleFirstConn) Prepare(string) (driver.Stmt, error) { return nil, io.ErrUnexpectedEOF }
func (*singleFirstConn) Close() error                        { return nil }
func (*singleFirstConn) Begin() (driver.Tx, error)           { return nil, io.ErrUnexpectedEOF }
func (c *singleFirstConn) ExecContext(context.Context, string, []driver.NamedValue) (driver.Result, error) {
	return driver.RowsAffected(1), c.f.exec()
}
func (c *singleFirstConn) QueryContext(context.Context, string, []driver.NamedValue) (driver.Rows, error) {
	return nil, errors.New("not asked for")
}

// The arguments of the first call of a connection of database/sql's opener are worked out
// in the call, on lease. That is no time of the query's either.
func TestTheTimeOfAFirstCallsArgumentsIsNoTimeOfTheQuery(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := &singleFirstFake{}
		c, err := Wrap(f, Config{Logger: slog.New(slog.DiscardHandler)})
		require.NoError(t, err)
		db := openDetachedR008(c)
		db.SetMaxOpenConns(1)
		var latency []time.Duration
		f.exec = func() error {
			for _, l := range c.Leases() {
				latency = append(latency, time.Since(l.Begun))
			}
			return nil
		}
		for range 4 {
			holder, err := db.Conn(t.Context())
			require.NoError(t, err)
			done := make(chan error, 1)
			go func() {
				_, err := db.ExecContext(context.Background(), "DO ?", singleFirstValuer{time.Second})
				done <- err
			}()
			synctest.Wait()
			require.ErrorIs(t, holder.Raw(func(any) error { return driver.ErrBadConn }), driver.ErrBadConn)
			require.NoError(t, <-done)
		}
		assert.Equal(t, make([]time.Duration, 4), latency)
		require.NoError(t, db.Close())
	})
}

func openDetachedR008(c *Connector) *sql.DB { return sql.OpenDB(c) }

// Each lease that ends is counted in db.client.connection.use_time, as each acquire is in
// db.client.connection.wait_time: one, too, in which the driver had nothing to do, since it
// has no Pinger.
func TestEachLeaseIsCountedInTheUseTime(t *testing.T) {
	reader := sdkmetric.NewManualReader()
	db, err := OpenDB(&plainFake{}, Config{
		Logger: slog.New(slog.DiscardHandler), MeterProvider: sdkmetric.NewMeterProvider(sdkmetric.WithReader(reader)),
	})
	require.NoError(t, err)
	for range 1000 {
		require.NoError(t, db.PingContext(t.Context()))
	}
	var all metricdata.ResourceMetrics
	require.NoError(t, reader.Collect(t.Context(), &all))
	counts := map[string]uint64{}
	for _, s := range all.ScopeMetrics {
		for _, m := range s.Metrics {
			if data, ok := m.Data.(metricdata.Histogram[float64]); ok {
				for _, p := range data.DataPoints {
					counts[m.Name] += p.Count
				}
			}
		}
	}
	assert.EqualValues(t, 1000, counts["db.client.connection.wait_time"])
	assert.EqualValues(t, 1000, counts["db.client.connection.use_time"])
	require.NoError(t, db.Close())
}

// singleSlowFake is a driver that takes its time to convert plain arguments: in its checker, or
// in the converter of a statement's column.
type singleSlowFake struct {
	leakFake
	converts bool
	work     func()
	run      func()
}

func (f *singleSlowFake) Connect(context.Context) (driver.Conn, error) {
	c := &singleSlowConn{leakFakeConn{&f.leakFake}, f}
	if f.converts {
		return singleSlowPlain{c}, nil
	}
	return c, nil
}

type singleSlowConn struct {
	leakFakeConn
	f *singleSlowFake
}

func (c *singleSlowConn) CheckNamedValue(*driver.NamedValue) error { c.f.work(); return nil }

func (c *singleSlowConn) ExecContext(context.Context, string, []driver.NamedValue) (driver.Result, error) {
	c.f.run()
	return driver.RowsAffected(1), nil
}

type singleSlowPlain struct{ c *singleSlowConn }

func (c singleSlowPlain) Close() error              { return nil }
func (c singleSlowPlain) Begin() (driver.Tx, error) { return c.c.Begin() }
func (c singleSlowPlain) Prepare(string) (driver.Stmt, error) {
	return singleSlowStmt{leakFakeStmt{&c.c.f.leakFake}, c.c.f}, nil
}

type singleSlowStmt struct {
	leakFakeStmt
	f *singleSlowFake
}

func (s singleSlowStmt) NumInput() int { return 1 }

func (s singleSlowStmt) ColumnConverter(int) driver.ValueConverter { return s }

func (s singleSlowStmt) ConvertValue(v any) (driver.Value, error) { s.f.work(); return v, nil }

func (s singleSlowStmt) Exec([]driver.Value) (driver.Result, error) {
	s.f.run()
	return driver.RowsAffected(1), nil
}

// What the driver takes to convert arguments is no time of the query's.
func TestTheTimeOfADriversConversionIsNoTimeOfTheQuery(t *testing.T) {
	for name, converts := range map[string]bool{"CheckNamedValue": false, "ColumnConverter": true} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				f := &singleSlowFake{converts: converts}
				db, err := OpenDB(f, Config{Logger: slog.New(slog.DiscardHandler)})
				require.NoError(t, err)
				c, _ := ConnectorOf(db)
				f.work = func() { <-time.After(10 * time.Second) }
				f.run = func() { assert.Zero(t, time.Since(c.Leases()[0].Begun), "the exec has just begun") }
				for range 3 {
					_, err := db.ExecContext(context.Background(), "UPDATE t SET a = ?", "x")
					require.NoError(t, err)
				}
				require.NoError(t, db.Close())
			})
		})
	}
}
