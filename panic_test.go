package sqllease

import (
	"context"
	"database/sql"
	"database/sql/driver"
	"errors"
	"fmt"
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
	dials  int             // guarded by mu: connections that exist or are being dialled
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
func (f *gateFake) openDetached(cfg Config) (*sql.DB, *Connector) {
	cfg.Logger = slog.New(slog.DiscardHandler)
	c, err := Wrap(f, cfg)
	require.NoError(f.t, err)
	return sql.OpenDB(c), c
}

// end closes the database and checks that nothing is left of it. It runs in a
// bubble, and every goroutine that used the database has ended.
func (f *gateFake) end(db *sql.DB, c *Connector) {
	f.t.Helper()
	synctest.Wait()
	s := c.Stats()
	assert.Zero(f.t, s.InUse, "leases are left: %v", c.Leases())
	assert.Zero(f.t, s.Waiting, "waiters are left")
	assert.Zero(f.t, s.Dialling, "dials are left")
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
	total := s.Closed.Bad + s.Closed.Dropped + s.Closed.Expired + s.Closed.Limit + s.Closed.Reclaimed + s.Closed.Shutdown
	assert.Equal(f.t, len(f.conns), int(total), "sessions counted as closed: %+v", s.Closed)
	assert.Equal(f.t, s.Dials-s.DialErrors, total, "every session that was dialled is closed")
}

// caught runs f and returns what it panicked with.
func caught(f func()) (v any) {
	defer func() { v = recover() }()
	f()
	return nil
}

// usable checks that as many leases as the limit can be had at once.
func usable(t *testing.T, db *sql.DB, limit int) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	var conns []*sql.Conn
	for range limit {
		conn, err := db.Conn(ctx)
		require.NoError(t, err, "room was lost")
		require.NoError(t, conn.PingContext(ctx))
		conns = append(conns, conn)
	}
	for _, conn := range conns {
		require.NoError(t, conn.Close())
	}
}

func TestADriverThatPanicsCostsNoRoom(t *testing.T) {
	query := func(db *sql.DB) {
		rows, err := db.QueryContext(context.Background(), "SELECT 1")
		if err != nil {
			return
		}
		defer func() { _ = rows.Close() }()
		for rows.Next() {
		}
	}
	exec := func(db *sql.DB) { _, _ = db.ExecContext(context.Background(), "DO ?", 1) }
	transact := func(end func(*sql.Tx) error) func(db *sql.DB) {
		return func(db *sql.DB) {
			tx, err := db.BeginTx(context.Background(), nil)
			if err != nil {
				return
			}
			_ = end(tx)
		}
	}
	prepare := func(db *sql.DB) {
		st, err := db.PrepareContext(context.Background(), "SELECT 1")
		if err != nil {
			return
		}
		defer func() { _ = st.Close() }()
		_, _ = st.Exec()
		rows, err := st.Query()
		if err != nil {
			return
		}
		defer func() { _ = rows.Close() }()
	}
	prepareInTx := func(db *sql.DB) {
		tx, err := db.BeginTx(context.Background(), nil)
		if err != nil {
			return
		}
		defer func() { _ = tx.Rollback() }()
		st, err := tx.PrepareContext(context.Background(), "SELECT 1")
		if err != nil {
			return
		}
		_ = st.Close()
	}
	for _, c := range []struct {
		call string
		use  func(*sql.DB)
	}{
		{"dial", exec}, {"reset", exec}, {"valid", exec}, {"exec", exec},
		{"query", query}, {"next", query}, {"close rows", query},
		{"ping", func(db *sql.DB) { _ = db.PingContext(context.Background()) }},
		{"begin", transact((*sql.Tx).Commit)},
		{"commit", transact((*sql.Tx).Commit)},
		{"rollback", transact((*sql.Tx).Rollback)},
		{"prepare", prepare}, {"exec statement", prepare}, {"query statement", prepare},
		{"close statement", prepareInTx}, {"num input", prepare}, {"check", exec},
	} {
		for _, waiters := range []int{0, 3} {
			t.Run(fmt.Sprintf("%s with %d waiters", c.call, waiters), func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) { panicking(t, c.call, c.use, waiters) })
			})
		}
	}
}

// panicking plants one panic at a call on the only session that there may be,
// while others wait for it.
func panicking(t *testing.T, call string, use func(*sql.DB), waiters int) {
	var planted atomic.Bool
	f := &gateFake{t: t, most: 1, script: func(_ context.Context, _ *gateFakeConn, name string) error {
		if name == call && planted.CompareAndSwap(true, false) {
			<-time.After(time.Second) // the others come meanwhile
			panic("planted")
		}
		return nil
	}}
	db, c := f.open(Config{MaxOpen: 1})
	if call != "dial" {
		usable(t, db, 1)
	}
	planted.Store(true)
	var wait sync.WaitGroup
	wait.Go(func() { assert.Equal(t, "planted", caught(func() { use(db) })) })
	synctest.Wait()
	for range waiters {
		wait.Go(func() { usable(t, db, 1) })
	}
	synctest.Wait()
	assert.Equal(t, waiters, c.Stats().Waiting)
	wait.Wait()
	require.False(t, planted.Load(), "the driver never panicked")
	usable(t, db, 1)
	f.end(db, c)
}

func TestNoCallReachesASessionThatAPanicLost(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := &gateFake{t: t, most: 1, script: func(_ context.Context, _ *gateFakeConn, call string) error {
			if call == "exec" {
				panic("planted")
			}
			return nil
		}}
		db, c := f.open(Config{MaxOpen: 1})
		tx, err := db.BeginTx(t.Context(), nil)
		require.NoError(t, err)
		rows, err := tx.QueryContext(t.Context(), "SELECT 1")
		require.NoError(t, err)
		st, err := tx.PrepareContext(t.Context(), "SELECT 2")
		require.NoError(t, err)
		assert.Equal(t, "planted", caught(func() { _, _ = tx.ExecContext(t.Context(), "DO 1") }))
		synctest.Wait() // the closer is done
		assert.False(t, rows.NextResultSet())
		assert.False(t, rows.Next())
		_, err = st.ExecContext(t.Context())
		require.Error(t, err)
		_, err = tx.PrepareContext(t.Context(), "SELECT 3")
		require.Error(t, err)
		require.NoError(t, rows.Close())
		require.Error(t, tx.Commit())
		usable(t, db, 1)
		f.end(db, c)
	})
}

func TestTheNextWaiterDialsWhenADialFails(t *testing.T) {
	for name, fail := range map[string]func(ctx context.Context) error{
		"an error": func(context.Context) error { return errors.New("refused") },
		"a panic":  func(context.Context) error { panic("planted") },
		"its context": func(ctx context.Context) error {
			<-ctx.Done()
			return ctx.Err()
		},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				var failures atomic.Int32
				failures.Store(3)
				f := &gateFake{t: t, most: 1, script: func(ctx context.Context, _ *gateFakeConn, call string) error {
					if call == "dial" && failures.Add(-1) >= 0 {
						<-time.After(time.Second)
						return fail(ctx)
					}
					return nil
				}}
				db, c := f.open(Config{MaxOpen: 1})
				var wait sync.WaitGroup
				var done []int
				for i := range 8 {
					wait.Go(func() {
						ctx, cancel := context.WithTimeout(t.Context(), time.Duration(10+i)*time.Second)
						defer cancel()
						var conn *sql.Conn
						var err error
						if v := caught(func() { conn, err = db.Conn(ctx) }); v != nil || err != nil {
							return
						}
						done = append(done, i)
						assert.NoError(t, conn.Close())
					})
					synctest.Wait()
				}
				wait.Wait()
				assert.Equal(t, []int{3, 4, 5, 6, 7}, done)
				f.end(db, c)
			})
		})
	}
}

func TestADialThatHangsEndsWithItsContextOrTheAcquireTimeout(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var hang atomic.Bool
		hang.Store(true)
		f := &gateFake{t: t, most: 1, script: func(ctx context.Context, _ *gateFakeConn, call string) error {
			if call == "dial" && hang.Load() {
				<-ctx.Done()
				return ctx.Err()
			}
			return nil
		}}
		db, c := f.open(Config{MaxOpen: 1, AcquireTimeout: 10 * time.Second})
		start := time.Now()
		ctx, cancel := context.WithTimeout(t.Context(), 3*time.Second)
		defer cancel()
		_, err := db.Conn(ctx)
		require.ErrorIs(t, err, context.DeadlineExceeded)
		assert.Equal(t, 3*time.Second, time.Since(start))

		_, err = db.Conn(t.Context())
		var acquire *AcquireError
		require.ErrorAs(t, err, &acquire)
		assert.Equal(t, 10*time.Second, acquire.Waited)
		assert.Equal(t, 13*time.Second, time.Since(start))
		hang.Store(false)
		usable(t, db, 1)
		f.end(db, c)
	})
}
