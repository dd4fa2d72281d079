package sqllease

import (
	"context"
	"database/sql"
	"database/sql/driver"
	"errors"
	"io"
	"log/slog"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	sdkmetric "go.opentelemetry.io/otel/sdk/metric"
	"go.opentelemetry.io/otel/sdk/metric/metricdata"
)

// Arguments: who works them out, and in whose time.

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

// argsFake keeps the arguments of the last direct call. Its connections run statements
// directly, and have no checker of their own.
type argsFake struct{ got []driver.NamedValue }

func (f *argsFake) Connect(context.Context) (driver.Conn, error) { return &argsFakeConn{f}, nil }
func (f *argsFake) Driver() driver.Driver                        { return f }
func (f *argsFake) Open(string) (driver.Conn, error)             { return &argsFakeConn{f}, nil }

type argsFakeConn struct{ f *argsFake }

func (*argsFakeConn) Prepare(string) (driver.Stmt, error) { return nil, io.ErrUnexpectedEOF }
func (*argsFakeConn) Close() error                        { return nil }
func (*argsFakeConn) Begin() (driver.Tx, error)           { return nil, io.ErrUnexpectedEOF }

func (c *argsFakeConn) ExecContext(_ context.Context, _ string, args []driver.NamedValue) (driver.Result, error) {
	c.f.got = args
	return driver.RowsAffected(1), nil
}

func (c *argsFakeConn) QueryContext(_ context.Context, _ string, args []driver.NamedValue) (driver.Rows, error) {
	c.f.got = args
	return nil, io.ErrUnexpectedEOF
}

func TestTheArgumentsOfAFirstCallAreConverted(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := &argsFake{}
		c, err := Wrap(f, Config{Logger: slog.New(slog.DiscardHandler)})
		require.NoError(t, err)
		db := sql.OpenDB(c)
		db.SetMaxOpenConns(1)
		holder, err := db.Conn(t.Context())
		require.NoError(t, err)
		first := comeFor(t.Context(), db)
		require.ErrorIs(t, holder.Raw(func(any) error { return driver.ErrBadConn }), driver.ErrBadConn)
		conn := <-first // from database/sql's opener
		for range 2 {
			_, err = conn.ExecContext(t.Context(), "INSERT", 7, sql.NullString{String: "x", Valid: true}, sql.NullInt64{})
			require.NoError(t, err)
			require.Len(t, f.got, 3)
			assert.Equal(t, driver.NamedValue{Ordinal: 1, Value: int64(7)}, f.got[0])
			assert.Equal(t, driver.NamedValue{Ordinal: 2, Value: "x"}, f.got[1])
			assert.Equal(t, driver.NamedValue{Ordinal: 3, Value: nil}, f.got[2])
		}
		require.NoError(t, conn.Close())
		require.NoError(t, db.Close())
	})
}
