package sqllease_test

import (
	"context"
	"database/sql"
	"database/sql/driver"
	"errors"
	"log/slog"
	"math/rand/v2"
	"os"
	"strconv"
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
	restarts   atomic.Int64 // of the server: older connections are dead
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
	return &faultyConn{d: d, born: d.restarts.Load()}, nil
}

type faultyConn struct {
	d      *faultyDriver
	born   int64
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
	if c.born != c.d.restarts.Load() {
		return nil, driver.ErrBadConn
	}
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

// storm is one way to have many goroutines do everything at once on a driver that fails
// in every way.
type storm struct {
	limit    int
	cfg      sqllease.Config
	detached bool // database/sql has the limit too, and queues callers itself
}

var storms = map[string]storm{
	"limit 10":           {10, sqllease.Config{MinIdle: 2, MaxLifetime: 20 * time.Millisecond, LeakThreshold: -1}, false},
	"limit 1":            {1, sqllease.Config{LeakThreshold: -1}, false},
	"limit 2, reclaim":   {2, sqllease.Config{LeakThreshold: time.Millisecond, ReclaimAfter: time.Millisecond}, false},
	"limit 7, timeouts":  {7, sqllease.Config{AcquireTimeout: time.Millisecond, MinIdle: 7}, false},
	"limit 50":           {50, sqllease.Config{MaxLifetime: 5 * time.Millisecond, LeakThreshold: -1}, false},
	"limit 7, detached":  {7, sqllease.Config{LeakThreshold: -1}, true},
	"limit 2, detached":  {2, sqllease.Config{LeakThreshold: time.Millisecond, MinIdle: 1}, true},
	"limit 50, detached": {50, sqllease.Config{ReclaimAfter: time.Millisecond, LeakThreshold: time.Millisecond}, true},
}

// stormUses is how often each of 100 goroutines uses the database: SQLLEASE_STORM=1250
// makes a million uses of the eight storms.
func stormUses() int {
	if n, err := strconv.Atoi(os.Getenv("SQLLEASE_STORM")); err == nil {
		return n
	}
	return 60
}

func TestNothingIsLostUnderStress(t *testing.T) {
	for name, s := range storms {
		t.Run(name, func(t *testing.T) { s.rage(t, stormUses()) })
	}
}

func (s storm) open(t *testing.T, d *faultyDriver) (*sql.DB, *sqllease.Connector) {
	t.Helper()
	s.cfg.MaxOpen, s.cfg.Logger = s.limit, slog.New(slog.DiscardHandler)
	c, err := sqllease.Wrap(d, s.cfg)
	require.NoError(t, err)
	db := sql.OpenDB(c)
	if s.detached {
		db.SetMaxOpenConns(s.limit)
	} else {
		c.Attach(db)
	}
	return db, c
}

func (s storm) rage(t *testing.T, uses int) {
	d := &faultyDriver{t: t}
	db, c := s.open(t, d)
	shared, err := retried(func() (*sql.Stmt, error) { return db.Prepare("shared") })
	require.NoError(t, err)
	var all sync.WaitGroup
	for range 100 {
		all.Go(func() {
			for range uses {
				useSomehow(t.Context(), db, shared)
			}
		})
	}
	raging := make(chan struct{})
	go func() {
		all.Wait()
		close(raging)
	}()
	s.change(t.Context(), d, db, c, raging)
	_ = shared.Close()
	if !s.detached { // where it is, panics of the driver cost database/sql places for ever
		db.SetMaxOpenConns(s.limit)
		assert.Eventually(t, func() bool { return db.PingContext(t.Context()) == nil }, 10*time.Second, time.Millisecond, "it can be used")
	}

	assert.LessOrEqual(t, d.most.Load(), int64(s.limit))
	assert.Eventually(t, func() bool { return c.Stats().InUse == 0 && c.Stats().Waiting == 0 }, 10*time.Second, time.Millisecond)
	assert.Empty(t, c.Leases())
	require.NoError(t, db.Close())
	assert.Eventually(t, func() bool { return c.Stats().Open == 0 && d.open.Load() == 0 }, 10*time.Second, time.Millisecond,
		"every session that was opened is closed")
	t.Logf("%+v", c.Stats())
}

// change has the application change its mind about everything meanwhile, and the server
// restart.
func (s storm) change(ctx context.Context, d *faultyDriver, db *sql.DB, c *sqllease.Connector, raging <-chan struct{}) {
	for round := 0; ; round++ {
		select {
		case <-raging:
			return
		case <-time.After(time.Duration(rand.IntN(2000)) * time.Microsecond):
		}
		lower := max(1, s.limit-rand.IntN(3))
		switch rand.IntN(8) {
		case 0:
			db.SetMaxIdleConns(rand.IntN(s.limit + 1))
		case 1, 2:
			db.SetMaxOpenConns(lower)
		case 3:
			c.SetMaxOpen(lower)
		case 4:
			db.SetConnMaxIdleTime(time.Duration(rand.IntN(3)) * time.Millisecond)
		case 5:
			db.SetConnMaxLifetime(time.Duration(rand.IntN(3)) * time.Millisecond)
		case 6:
			d.restarts.Add(1)
		case 7:
			_ = c.Stats()
			_ = c.Leases()
			bounded, cancel := context.WithTimeout(ctx, time.Second)
			_ = db.PingContext(bounded)
			cancel()
		}
	}
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
