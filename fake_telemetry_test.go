package sqllease

import (
	"context"
	"database/sql/driver"
	"errors"
	"io"
	"sync"
	"time"
)

// telemetryFake is a driver whose calls a test sees, and can make slow, fail
// or panic. Apart from that every call succeeds at once.
type telemetryFake struct {
	on     func(ctx context.Context, call, query string) error // nil: nothing happens
	answer []driver.Value                                      // the rows of every result set, of one column

	mu     sync.Mutex
	opened int // guarded by mu
	closed int // guarded by mu
}

func (f *telemetryFake) happen(ctx context.Context, call, query string) error {
	if f.on == nil {
		return nil
	}
	return f.on(ctx, call, query)
}

// open is how many sessions are open.
func (f *telemetryFake) open() int {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.opened - f.closed
}

func (f *telemetryFake) Driver() driver.Driver { return f }

func (f *telemetryFake) Open(string) (driver.Conn, error) { return f.Connect(context.Background()) }

func (f *telemetryFake) Connect(ctx context.Context) (driver.Conn, error) {
	if err := f.happen(ctx, "connect", ""); err != nil {
		return nil, err
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	f.opened++
	return &telemetryFakeConn{f}, nil
}

type telemetryFakeConn struct{ f *telemetryFake }

func (c *telemetryFakeConn) Close() error {
	c.f.mu.Lock()
	defer c.f.mu.Unlock()
	c.f.closed++
	return nil
}

func (c *telemetryFakeConn) IsValid() bool { return true }

func (c *telemetryFakeConn) ResetSession(ctx context.Context) error {
	return c.f.happen(ctx, "reset", "")
}

func (c *telemetryFakeConn) Ping(ctx context.Context) error { return c.f.happen(ctx, "ping", "") }

func (c *telemetryFakeConn) ExecContext(ctx context.Context, query string, _ []driver.NamedValue) (driver.Result, error) {
	return driver.RowsAffected(1), c.f.happen(ctx, "exec", query)
}

func (c *telemetryFakeConn) QueryContext(ctx context.Context, query string, _ []driver.NamedValue) (driver.Rows, error) {
	if err := c.f.happen(ctx, "query", query); err != nil {
		return nil, err
	}
	return &telemetryFakeRows{c.f, c.f.answer}, nil
}

func (c *telemetryFakeConn) Prepare(query string) (driver.Stmt, error) {
	return c.PrepareContext(context.Background(), query)
}

func (c *telemetryFakeConn) PrepareContext(ctx context.Context, query string) (driver.Stmt, error) {
	if err := c.f.happen(ctx, "prepare", query); err != nil {
		return nil, err
	}
	return &telemetryFakeStmt{c.f, query}, nil
}

func (c *telemetryFakeConn) Begin() (driver.Tx, error) {
	return c.BeginTx(context.Background(), driver.TxOptions{})
}

func (c *telemetryFakeConn) BeginTx(ctx context.Context, _ driver.TxOptions) (driver.Tx, error) {
	if err := c.f.happen(ctx, "begin", ""); err != nil {
		return nil, err
	}
	return &telemetryFakeTx{c.f}, nil
}

type telemetryFakeTx struct{ f *telemetryFake }

func (t *telemetryFakeTx) Commit() error { return t.f.happen(context.Background(), "commit", "") }

func (t *telemetryFakeTx) Rollback() error { return t.f.happen(context.Background(), "rollback", "") }

type telemetryFakeStmt struct {
	f     *telemetryFake
	query string
}

func (s *telemetryFakeStmt) Close() error  { return nil }
func (s *telemetryFakeStmt) NumInput() int { return -1 }

func (s *telemetryFakeStmt) Exec([]driver.Value) (driver.Result, error) {
	return nil, errors.New("the legacy call is not expected")
}

func (s *telemetryFakeStmt) Query([]driver.Value) (driver.Rows, error) {
	return nil, errors.New("the legacy call is not expected")
}

func (s *telemetryFakeStmt) ExecContext(ctx context.Context, _ []driver.NamedValue) (driver.Result, error) {
	return driver.RowsAffected(1), s.f.happen(ctx, "statement exec", s.query)
}

func (s *telemetryFakeStmt) QueryContext(ctx context.Context, _ []driver.NamedValue) (driver.Rows, error) {
	if err := s.f.happen(ctx, "statement query", s.query); err != nil {
		return nil, err
	}
	return &telemetryFakeRows{s.f, s.f.answer}, nil
}

type telemetryFakeRows struct {
	f    *telemetryFake
	left []driver.Value
}

func (r *telemetryFakeRows) Columns() []string { return []string{"value"} }

func (r *telemetryFakeRows) Close() error {
	return r.f.happen(context.Background(), "rows close", "")
}

func (r *telemetryFakeRows) Next(dest []driver.Value) error {
	if err := r.f.happen(context.Background(), "next", ""); err != nil {
		return err
	}
	if len(r.left) == 0 {
		return io.EOF
	}
	dest[0], r.left = r.left[0], r.left[1:]
	return nil
}

// slow makes one kind of call take that long.
func slow(call string, d time.Duration) func(context.Context, string, string) error {
	return func(ctx context.Context, c, _ string) error {
		if c != call {
			return nil
		}
		select {
		case <-time.After(d):
			return nil
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// failing makes one kind of call fail.
func failing(call string, err error) func(context.Context, string, string) error {
	return func(_ context.Context, c, _ string) error {
		if c == call {
			return err
		}
		return nil
	}
}
