package sqllease_test

import (
	"context"
	"database/sql"
	"database/sql/driver"
	"errors"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/sqllease/sqllease"
	"github.com/sqllease/sqllease/internal/nothing"
)

// faultyDriver fails now and then, in every way a driver can, and checks that
// it is used as a driver may be used: one call at a time per connection, none
// after its Close, and one Close.
type faultyDriver struct {
	t          *testing.T
	open, most atomic.Int64
}

var errFault = errors.New("a planted fault")

func (d *faultyDriver) Driver() driver.Driver            { return d }
func (d *faultyDriver) Open(string) (driver.Conn, error) { return d.Connect(context.Background()) }

func (d *faultyDriver) Connect(ctx context.Context) (driver.Conn, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	if rand.IntN(20) == 0 {
		return nil, errFault
	}
	n := d.open.Add(1)
	for most := d.most.Load(); n > most && !d.most.CompareAndSwap(most, n); most = d.most.Load() {
	}
	return &faultyConn{d: d}, nil
}

type faultyConn struct {
	d      *faultyDriver
	inCall atomic.Bool
	closed atomic.Bool
}

// call is the driver's side of every call.
func (c *faultyConn) call() func() {
	if !c.inCall.CompareAndSwap(false, true) {
		c.d.t.Error("two calls at once on one connection")
	}
	if c.closed.Load() {
		c.d.t.Error("a call on a closed connection")
	}
	return func() { c.inCall.Store(false) }
}

func (c *faultyConn) Close() error {
	defer c.call()()
	if c.closed.Swap(true) {
		c.d.t.Error("a connection is closed twice")
	}
	c.d.open.Add(-1)
	return nil
}

func (c *faultyConn) ResetSession(context.Context) error {
	defer c.call()()
	if rand.IntN(30) == 0 {
		return driver.ErrBadConn
	}
	return nil
}

func (c *faultyConn) IsValid() bool {
	defer c.call()()
	return rand.IntN(30) != 0
}

func (c *faultyConn) ExecContext(context.Context, string, []driver.NamedValue) (driver.Result, error) {
	defer c.call()()
	switch rand.IntN(40) {
	case 0:
		return nil, driver.ErrBadConn
	case 1:
		return nil, errFault
	case 2:
		panic(errFault)
	}
	return driver.RowsAffected(1), nil
}

func (c *faultyConn) Prepare(string) (driver.Stmt, error) {
	defer c.call()()
	return &faultyStmt{c: c}, nil
}

func (c *faultyConn) Begin() (driver.Tx, error) {
	defer c.call()()
	return faultyTx{c}, nil
}

type faultyTx struct{ c *faultyConn }

func (t faultyTx) Commit() error   { defer t.c.call()(); return nil }
func (t faultyTx) Rollback() error { defer t.c.call()(); return nil }

type faultyStmt struct {
	c      *faultyConn
	closed atomic.Bool
}

func (s *faultyStmt) NumInput() int { return -1 }

func (s *faultyStmt) Close() error {
	defer s.c.call()()
	if s.closed.Swap(true) {
		s.c.d.t.Error("a statement is closed twice")
	}
	return nil
}

func (s *faultyStmt) Exec([]driver.Value) (driver.Result, error) {
	defer s.c.call()()
	if s.closed.Load() {
		s.c.d.t.Error("a closed statement is used")
	}
	return driver.RowsAffected(1), nil
}

func (s *faultyStmt) Query([]driver.Value) (driver.Rows, error) {
	defer s.c.call()()
	return (&nothing.Conn{}).QueryContext(context.Background(), "SELECT 1 WHERE true", nil)
}

// TestNothingIsLostUnderStress has many goroutines do everything at once on a
// driver that fails in every way.
func TestNothingIsLostUnderStress(t *testing.T) {
	const limit = 10
	d := &faultyDriver{t: t}
	db, err := sqllease.OpenDB(d, sqllease.Config{MaxOpen: limit, MinIdle: 2, MaxLifetime: 20 * time.Millisecond, LeakThreshold: -1})
	require.NoError(t, err)
	c, _ := sqllease.ConnectorOf(db)
	shared, err := retried(func() (*sql.Stmt, error) { return db.Prepare("shared") })
	require.NoError(t, err)

	var all sync.WaitGroup
	for range 100 {
		all.Go(func() {
			for range 200 {
				useSomehow(t.Context(), db, shared)
			}
		})
	}
	all.Go(func() { // the application changes its mind about limits meanwhile
		for range 50 {
			db.SetMaxIdleConns(rand.IntN(limit))
			db.SetMaxOpenConns(limit - rand.IntN(3))
			_ = db.PingContext(t.Context())
		}
	})
	all.Wait()
	_ = shared.Close()

	assert.LessOrEqual(t, d.most.Load(), int64(limit))
	assert.Eventually(t, func() bool { return c.Stats().InUse == 0 && c.Stats().Waiting == 0 }, 10*time.Second, time.Millisecond)
	assert.Empty(t, c.Leases())
	require.NoError(t, db.Close())
	assert.Eventually(t, func() bool { return c.Stats().Open == 0 && d.open.Load() == 0 }, 10*time.Second, time.Millisecond,
		"every session that was opened is closed")
	t.Logf("%+v", c.Stats())
}

func retried[T any](f func() (T, error)) (v T, err error) {
	for range 100 {
		if v, err = f(); err == nil {
			return v, nil
		}
	}
	return v, err
}

// useSomehow does one of the things applications do. Failures are planted, and
// of no interest; panics of the driver end here.
func useSomehow(ctx context.Context, db *sql.DB, shared *sql.Stmt) {
	defer func() {
		if v := recover(); v != nil && v != errFault { //nolint:errorlint // the very value is meant
			panic(v)
		}
	}()
	ctx, cancel := context.WithTimeout(ctx, time.Duration(rand.IntN(3000))*time.Microsecond)
	defer cancel()
	switch rand.IntN(6) {
	case 0, 1:
		_, _ = db.ExecContext(ctx, "x")
	case 2:
		_, _ = shared.ExecContext(ctx, 1)
	case 3:
		if tx, err := db.BeginTx(ctx, nil); err == nil {
			defer func() { _ = tx.Rollback() }()
			_, _ = tx.ExecContext(ctx, "x")
			_, _ = tx.StmtContext(ctx, shared).ExecContext(ctx, 1)
			if rows, err := tx.QueryContext(ctx, "q"); err == nil && rand.IntN(2) == 0 {
				_ = rows.Close() // or left to the transaction's end
			}
			if rand.IntN(2) == 0 {
				_ = tx.Commit()
			}
		}
	case 4:
		if conn, err := db.Conn(ctx); err == nil {
			defer func() { _ = conn.Close() }()
			if st, err := conn.PrepareContext(ctx, "own"); err == nil {
				_, _ = st.Exec()
				if rand.IntN(2) == 0 {
					_ = conn.Close() // before its statement
				}
				_ = st.Close()
			}
		}
	case 5:
		if rows, err := db.QueryContext(ctx, "q"); err == nil {
			defer func() { _ = rows.Close() }()
			for rows.Next() {
				continue
			}
		}
	}
}
