package sqllease

import (
	"context"
	"database/sql"
	"database/sql/driver"
	"io"
	"log/slog"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// gateFake is a driver's connector that does what its script says, and checks
// that it is used as a driver may be used: one call at a time per connection,
// none on a closed one, each closed once, and no more of them than allowed.
type gateFake struct {
	t      testing.TB
	most   int                                                           // connections allowed at once; 0: any number
	script func(ctx context.Context, c *gateFakeConn, call string) error // nil: every call succeeds; may block and panic

	mu     sync.Mutex
	conns  []*gateFakeConn // guarded by mu
	dials  int             // guarded by mu: connections that exist or are being dialed
	peak   int             // guarded by mu: the most there ever were
	faults int             // guarded by mu
}

// gateFakeConn is its connection. It is its own statement, transaction and
// result set too, since all of them are the same wire.
type gateFakeConn struct {
	f      *gateFake
	number int
	busy   atomic.Bool
	closed atomic.Int32
	bad    atomic.Bool // IsValid answers false
	stmts  atomic.Int32
}

func (f *gateFake) Driver() driver.Driver            { return f }
func (f *gateFake) Open(string) (driver.Conn, error) { return f.Connect(context.Background()) }

func (f *gateFake) fault(format string, args ...any) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.faults++
	if f.faults < 10 {
		f.t.Errorf(format, args...)
	}
}

func (f *gateFake) count(by int) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.dials += by
	f.peak = max(f.peak, f.dials)
	if f.most > 0 && f.dials > f.most {
		f.faults++
		f.t.Errorf("%d connections at once, %d are allowed", f.dials, f.most)
	}
}

func (f *gateFake) Connect(ctx context.Context) (conn driver.Conn, err error) {
	f.count(1)
	defer func() {
		if conn == nil {
			f.count(-1)
		}
	}()
	c := &gateFakeConn{f: f}
	if err := f.run(ctx, c, "dial"); err != nil {
		return nil, err
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	c.number = len(f.conns)
	f.conns = append(f.conns, c)
	return c, nil
}

func (f *gateFake) run(ctx context.Context, c *gateFakeConn, call string) error {
	if f.script == nil {
		return nil
	}
	return f.script(ctx, c, call)
}

// call is the driver's side of every call on a connection.
func (c *gateFakeConn) call(ctx context.Context, name string) error {
	if !c.busy.CompareAndSwap(false, true) {
		c.f.fault("%s on connection %d while another call is in flight", name, c.number)
	}
	defer c.busy.Store(false)
	if c.closed.Load() > 0 {
		c.f.fault("%s on connection %d, which is closed", name, c.number)
	}
	return c.f.run(ctx, c, name)
}

func (c *gateFakeConn) Close() error {
	defer func() {
		if c.closed.Add(1) > 1 {
			c.f.fault("connection %d was closed twice", c.number)
		}
		c.f.count(-1)
	}()
	return c.call(context.Background(), "close")
}

func (c *gateFakeConn) Ping(ctx context.Context) error         { return c.call(ctx, "ping") }
func (c *gateFakeConn) ResetSession(ctx context.Context) error { return c.call(ctx, "reset") }

func (c *gateFakeConn) IsValid() bool {
	return c.call(context.Background(), "valid") == nil && !c.bad.Load()
}

func (c *gateFakeConn) ExecContext(ctx context.Context, _ string, _ []driver.NamedValue) (driver.Result, error) {
	return driver.RowsAffected(1), c.call(ctx, "exec")
}

func (c *gateFakeConn) QueryContext(ctx context.Context, _ string, _ []driver.NamedValue) (driver.Rows, error) {
	if err := c.call(ctx, "query"); err != nil {
		return nil, err
	}
	return &gateFakeRows{c: c}, nil
}

// CheckNamedValue takes every argument.
func (c *gateFakeConn) CheckNamedValue(*driver.NamedValue) error {
	return c.call(context.Background(), "check")
}

func (c *gateFakeConn) Begin() (driver.Tx, error) {
	return c.BeginTx(context.Background(), driver.TxOptions{})
}

func (c *gateFakeConn) BeginTx(ctx context.Context, _ driver.TxOptions) (driver.Tx, error) {
	return gateFakeTx{c}, c.call(ctx, "begin")
}

func (c *gateFakeConn) Prepare(q string) (driver.Stmt, error) {
	return c.PrepareContext(context.Background(), q)
}

func (c *gateFakeConn) PrepareContext(ctx context.Context, _ string) (driver.Stmt, error) {
	if err := c.call(ctx, "prepare"); err != nil {
		return nil, err
	}
	c.stmts.Add(1)
	return &gateFakeStmt{c: c}, nil
}

type gateFakeTx struct{ c *gateFakeConn }

func (t gateFakeTx) Commit() error   { return t.c.call(context.Background(), "commit") }
func (t gateFakeTx) Rollback() error { return t.c.call(context.Background(), "rollback") }

type gateFakeStmt struct {
	c      *gateFakeConn
	closed atomic.Bool
}

func (s *gateFakeStmt) NumInput() int {
	_ = s.call(context.Background(), "num input")
	return -1
}

func (s *gateFakeStmt) Close() error {
	if s.closed.Swap(true) {
		s.c.f.fault("a statement of connection %d was closed twice", s.c.number)
	}
	s.c.stmts.Add(-1)
	return s.c.call(context.Background(), "close statement")
}

func (s *gateFakeStmt) call(ctx context.Context, name string) error {
	if s.closed.Load() {
		s.c.f.fault("%s on a closed statement of connection %d", name, s.c.number)
	}
	return s.c.call(ctx, name)
}

func (s *gateFakeStmt) Exec([]driver.Value) (driver.Result, error) { return nil, driver.ErrSkip }
func (s *gateFakeStmt) Query([]driver.Value) (driver.Rows, error)  { return nil, driver.ErrSkip }

func (s *gateFakeStmt) ExecContext(ctx context.Context, _ []driver.NamedValue) (driver.Result, error) {
	return driver.RowsAffected(1), s.call(ctx, "exec statement")
}

func (s *gateFakeStmt) QueryContext(ctx context.Context, _ []driver.NamedValue) (driver.Rows, error) {
	if err := s.call(ctx, "query statement"); err != nil {
		return nil, err
	}
	return &gateFakeRows{c: s.c}, nil
}

// gateFakeRows has two result sets of two rows each.
type gateFakeRows struct {
	c         *gateFakeConn
	read, set int
	closed    bool
}

func (r *gateFakeRows) Columns() []string { return []string{"n"} }

func (r *gateFakeRows) Close() error {
	if r.closed {
		r.c.f.fault("a result set of connection %d was closed twice", r.c.number)
	}
	r.closed = true
	return r.c.call(context.Background(), "close rows")
}

func (r *gateFakeRows) Next(dest []driver.Value) error {
	if err := r.c.call(context.Background(), "next"); err != nil {
		return err
	}
	if r.read++; r.read > 2 {
		return io.EOF
	}
	dest[0] = int64(r.read)
	return nil
}

func (r *gateFakeRows) HasNextResultSet() bool { return r.set == 0 }

func (r *gateFakeRows) NextResultSet() error {
	if r.set++; r.set > 1 {
		return io.EOF
	}
	r.read = 0
	return r.c.call(context.Background(), "next set")
}

// deadBelow is a script by which the sessions below that number are dead, as they are after a
// restart of the server.
func deadBelow(number *atomic.Int32) func(context.Context, *gateFakeConn, string) error {
	return func(_ context.Context, c *gateFakeConn, call string) error {
		if (call == "exec" || call == "ping") && int32(c.number) < number.Load() {
			return driver.ErrBadConn
		}
		return nil
	}
}

// open opens a wrapped database on the fake.
func (f *gateFake) open(cfg Config) (*sql.DB, *Connector) {
	cfg.Logger = slog.New(slog.DiscardHandler)
	db, err := OpenDB(f, cfg)
	require.NoError(f.t, err)
	c, ok := ConnectorOf(db)
	require.True(f.t, ok)
	return db, c
}

// openDetached opens one that is not attached.
func (f *gateFake) openDetached(cfg Config) (*sql.DB, *Connector) { return openDetached(f.t, f, cfg) }

// end closes the database and checks that nothing is left of it. It runs in a
// bubble, and every goroutine that used the database has ended.
func (f *gateFake) end(db *sql.DB, c *Connector) {
	f.t.Helper()
	synctest.Wait()
	s := c.Stats()
	assert.Zero(f.t, s.InUse, "leases are left: %v", c.Leases())
	assert.Zero(f.t, s.Waiting, "waiters are left")
	assert.Zero(f.t, s.Dialing, "dials are left")
	assert.Equal(f.t, s.Idle, s.Open, "sessions are lost")
	assert.NoError(f.t, db.Close())
	synctest.Wait()
	f.nothingLeft(c)
}

// close is end outside of a bubble.
func (f *gateFake) close(db *sql.DB, c *Connector) {
	f.t.Helper()
	assert.Zero(f.t, c.Stats().InUse, "leases are left: %v", c.Leases())
	assert.NoError(f.t, db.Close())
	assert.Eventually(f.t, func() bool { return c.Stats().Open == 0 }, time.Minute, time.Millisecond)
	f.nothingLeft(c)
}

func (f *gateFake) nothingLeft(c *Connector) {
	f.t.Helper()
	s := c.Stats()
	assert.Zero(f.t, s.Open, "sessions are left: %+v", s)
	f.mu.Lock()
	defer f.mu.Unlock()
	assert.Zero(f.t, f.dials, "connections are left")
	for _, conn := range f.conns {
		assert.Equal(f.t, int32(1), conn.closed.Load(), "connection %d: how often it was closed", conn.number)
		assert.Zero(f.t, conn.stmts.Load(), "connection %d: statements left open", conn.number)
	}
	total := s.Closed.Total()
	assert.Equal(f.t, len(f.conns), int(total), "sessions counted as closed: %+v", s.Closed)
	assert.Equal(f.t, s.Dials-s.DialErrors, total, "every session that was dialed is closed")
}
