package sqllease

import (
	"context"
	"database/sql"
	"database/sql/driver"
	"log/slog"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// outerFake is another wrapper around a connector of ours, which passes on as much as its
// connections do.
type outerFake struct {
	driver.Connector
	dress func(outerFakeConn) driver.Conn
}

func (o *outerFake) Connect(ctx context.Context) (driver.Conn, error) {
	conn, err := o.Connector.Connect(ctx)
	if err != nil {
		return nil, err
	}
	return o.dress(outerFakeConn{conn.(*handle)}), nil
}

// outerFakeConn hides IsValid.
type outerFakeConn struct{ inner *handle }

func (c outerFakeConn) Begin() (driver.Tx, error)              { return nil, driver.ErrSkip }
func (c outerFakeConn) Prepare(q string) (driver.Stmt, error)  { return c.inner.Prepare(q) }
func (c outerFakeConn) Close() error                           { return c.inner.Close() }
func (c outerFakeConn) Ping(ctx context.Context) error         { return c.inner.Ping(ctx) }
func (c outerFakeConn) ResetSession(ctx context.Context) error { return c.inner.ResetSession(ctx) }

// outerFakeValidConn does not.
type outerFakeValidConn struct{ outerFakeConn }

func (c outerFakeValidConn) IsValid() bool { return c.inner.IsValid() }

// TestAWrapperAboveThatHidesIsValidIsTold has one above, which some tracers are: by IsValid
// leases end, and nobody else can tell.
func TestAWrapperAboveThatHidesIsValidIsTold(t *testing.T) {
	for name, c := range map[string]struct {
		dress func(outerFakeConn) driver.Conn
		hides bool
	}{
		"hidden":    {func(c outerFakeConn) driver.Conn { return c }, true},
		"passed on": {func(c outerFakeConn) driver.Conn { return outerFakeValidConn{c} }, false},
	} {
		t.Run(name, func(t *testing.T) {
			log := &keptLog{}
			w, err := Wrap(&lifetimeFake{}, Config{Name: "shop", MaxOpen: 2, Logger: slog.New(log)})
			require.NoError(t, err)
			db := sql.OpenDB(&outerFake{w, c.dress})
			for range 3 {
				require.NoError(t, db.PingContext(t.Context()))
			}
			assert.Equal(t, c.hides, w.Stats().InUse == 1)
			if c.hides {
				log.wantOneWarning(t, map[string]string{"pool": "shop"}, "hides IsValid", "Put sqllease outermost")
			} else {
				assert.Empty(t, log.take())
			}
			require.NoError(t, db.Close())
		})
	}
}

// TestDatabasesAreOpenedThroughVariables is for tools that rewrite calls of sql.Open and
// sql.OpenDB at build time: what they put around the connector may hide IsValid.
func TestDatabasesAreOpenedThroughVariables(t *testing.T) {
	var called []string
	openPlain = func(name, dsn string) (*sql.DB, error) {
		called = append(called, "sql.Open")
		return sql.Open(name, dsn)
	}
	openDB = func(c driver.Connector) *sql.DB {
		called = append(called, "sql.OpenDB")
		return sql.OpenDB(c)
	}
	defer func() { openPlain, openDB = sql.Open, sql.OpenDB }()
	db, err := Open("mysql", "user@tcp(localhost)/shop", Config{})
	require.NoError(t, err)
	require.NoError(t, db.Close())
	assert.Equal(t, []string{"sql.Open", "sql.OpenDB"}, called)
}
