package sqllease

import (
	"context"
	"database/sql"
	"database/sql/driver"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	sdkmetric "go.opentelemetry.io/otel/sdk/metric"
)

// Arguments: who works them out, and in whose time.

// valuer is an argument that does something to say what it is.
type valuer struct{ do func() error }

func (v valuer) Value() (driver.Value, error) { return int64(1), v.do() }

// pointerValuer is one too, but only by its pointer.
type pointerValuer struct{ do func() }

func (v *pointerValuer) Value() (driver.Value, error) { v.do(); return int64(1), nil }

// checkedArgument is no driver.Valuer: a driver has its own way to ask what it is.
type checkedArgument struct{ do func() }

// checkerFake is a leakFake that has a checker of its own.
type checkerFake struct {
	leakFake
	check func(*driver.NamedValue)
	exec  func() // nil: nothing more
}

func (f *checkerFake) Connect(context.Context) (driver.Conn, error) {
	return &checkerFakeConn{leakFakeConn{&f.leakFake}, f}, nil
}

type checkerFakeConn struct {
	leakFakeConn
	f *checkerFake
}

func (c *checkerFakeConn) CheckNamedValue(v *driver.NamedValue) error { c.f.check(v); return nil }

func (c *checkerFakeConn) ExecContext(context.Context, string, []driver.NamedValue) (driver.Result, error) {
	if c.f.exec != nil {
		c.f.exec()
	}
	return driver.RowsAffected(1), nil
}

// columnFake is a leakFake without direct calls, whose statements convert what is for their
// columns.
type columnFake struct {
	leakFake
	convert, exec func()
}

func (f *columnFake) Connect(context.Context) (driver.Conn, error) {
	return columnFakeConn{preparingFakeConn{&leakFakeConn{&f.leakFake}}, f}, nil
}

type columnFakeConn struct {
	preparingFakeConn
	f *columnFake
}

func (c columnFakeConn) Prepare(string) (driver.Stmt, error) {
	return columnFakeStmt{leakFakeStmt{&c.f.leakFake}, c.f}, nil
}

type columnFakeStmt struct {
	leakFakeStmt
	f *columnFake
}

func (s columnFakeStmt) NumInput() int                             { return 1 }
func (s columnFakeStmt) ColumnConverter(int) driver.ValueConverter { return s }
func (s columnFakeStmt) ConvertValue(v any) (driver.Value, error)  { s.f.convert(); return v, nil }

func (s columnFakeStmt) Exec([]driver.Value) (driver.Result, error) {
	s.f.exec()
	return driver.RowsAffected(1), nil
}

// What passes while the application says what an argument is, by a pointer to a pointer
// whose type is a Valuer (which database/sql follows), or by whatever the driver's own
// checker asks, is no time of the query's, and no reset.
func TestTheTimeOfAnArgumentIsNoTimeOfTheQuery(t *testing.T) {
	for name, checks := range map[string]bool{"pointer to a pointer": false, "the driver's checker": true} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				reader := sdkmetric.NewManualReader()
				var f driver.Connector = &leakFake{}
				if checks {
					f = &checkerFake{check: func(v *driver.NamedValue) {
						if x, ok := v.Value.(checkedArgument); ok {
							x.do()
							v.Value = int64(1)
						}
					}}
				}
				db, c := openPool(t, f, Config{MeterProvider: sdkmetric.NewMeterProvider(sdkmetric.WithReader(reader))})
				takes := time.Duration(0)
				calls := map[string]bool{}
				work := func() {
					<-time.After(takes)
					calls[string(c.Leases()[0].Call)] = true
				}
				v := &pointerValuer{work}
				var arg any = &v
				if checks {
					arg = checkedArgument{work}
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
				assert.Zero(t, recordedBy(t, reader)["db.client.operation.duration"].seconds, "in the driver's exec")
			})
		})
	}
}

// The arguments of the first call of a connection of database/sql's opener are worked out
// in the call, on lease. That is no time of the query's either.
func TestTheTimeOfAFirstCallsArgumentsIsNoTimeOfTheQuery(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := &directFake{}
		db, c := openDetached(t, f, Config{})
		db.SetMaxOpenConns(1)
		var latency []time.Duration
		f.exec = func([]driver.NamedValue) {
			for _, l := range c.Leases() {
				latency = append(latency, time.Since(l.Begun))
			}
		}
		slow := valuer{func() error { elapse(time.Second); return nil }}
		for range 4 {
			holder, err := db.Conn(t.Context())
			require.NoError(t, err)
			done := make(chan error, 1)
			go func() {
				_, err := db.ExecContext(context.Background(), "DO ?", slow)
				done <- err
			}()
			synctest.Wait()
			drop(t, holder)
			require.NoError(t, <-done)
		}
		assert.Equal(t, make([]time.Duration, 4), latency)
		require.NoError(t, db.Close())
	})
}

// What the driver takes to convert arguments is no time of the query's.
func TestTheTimeOfADriversConversionIsNoTimeOfTheQuery(t *testing.T) {
	for name, fake := range map[string]func(convert, exec func()) driver.Connector{
		"CheckNamedValue": func(convert, exec func()) driver.Connector {
			return &checkerFake{check: func(*driver.NamedValue) { convert() }, exec: exec}
		},
		"ColumnConverter": func(convert, exec func()) driver.Connector { return &columnFake{convert: convert, exec: exec} },
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				var c *Connector
				execs := 0
				f := fake(func() { elapse(10 * time.Second) }, func() {
					execs++
					assert.Zero(t, time.Since(c.Leases()[0].Begun), "the exec has just begun")
				})
				db, c1 := openPool(t, f, Config{})
				c = c1
				for range 3 {
					exec(t, t.Context(), db, "UPDATE t SET a = ?", "x")
				}
				assert.Equal(t, 3, execs)
			})
		})
	}
}

func TestTheArgumentsOfAFirstCallAreConverted(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var got []driver.NamedValue
		db, _ := openDetached(t, &directFake{exec: func(args []driver.NamedValue) { got = args }}, Config{})
		conn := fromOpener(t, db)
		for range 2 {
			_, err := conn.ExecContext(t.Context(), "INSERT", 7, sql.NullString{String: "x", Valid: true}, sql.NullInt64{})
			require.NoError(t, err)
			require.Len(t, got, 3)
			assert.Equal(t, driver.NamedValue{Ordinal: 1, Value: int64(7)}, got[0])
			assert.Equal(t, driver.NamedValue{Ordinal: 2, Value: "x"}, got[1])
			assert.Equal(t, driver.NamedValue{Ordinal: 3, Value: nil}, got[2])
		}
		require.NoError(t, conn.Close())
		require.NoError(t, db.Close())
	})
}
