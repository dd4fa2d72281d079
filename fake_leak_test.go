package sqllease

import (
	"context"
	"database/sql/driver"
	"io"
	"time"
)

// leakFake is a driver whose calls take as long as a test wants. Every result
// set has the same rows.
type leakFake struct {
	takes map[string]time.Duration // by kind of call; written before the first
	rows  [][]driver.Value
	skips bool // it prepares what is to be run, as some drivers do where there are arguments
}

func (f *leakFake) call(kind string) {
	if d := f.takes[kind]; d > 0 {
		<-time.After(d)
	}
}

func (f *leakFake) Driver() driver.Driver            { return f }
func (f *leakFake) Open(string) (driver.Conn, error) { return f.Connect(context.Background()) }
func (f *leakFake) Connect(ctx context.Context) (driver.Conn, error) {
	if f.takes["connect"] == 0 {
		return &leakFakeConn{f}, nil
	}
	select {
	case <-time.After(f.takes["connect"]):
		return &leakFakeConn{f}, nil
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

type leakFakeConn struct{ f *leakFake }

func (c *leakFakeConn) Close() error              { return nil }
func (c *leakFakeConn) Begin() (driver.Tx, error) { c.f.call("begin"); return leakFakeTx(*c), nil }
func (c *leakFakeConn) Prepare(string) (driver.Stmt, error) {
	c.f.call("prepare")
	return leakFakeStmt(*c), nil
}
func (c *leakFakeConn) Ping(context.Context) error         { c.f.call("ping"); return nil }
func (c *leakFakeConn) ResetSession(context.Context) error { return nil }
func (c *leakFakeConn) IsValid() bool                      { return true }

func (c *leakFakeConn) ExecContext(context.Context, string, []driver.NamedValue) (driver.Result, error) {
	if c.f.skips {
		return nil, driver.ErrSkip
	}
	c.f.call("exec")
	return driver.RowsAffected(1), nil
}

func (c *leakFakeConn) QueryContext(context.Context, string, []driver.NamedValue) (driver.Rows, error) {
	if c.f.skips {
		return nil, driver.ErrSkip
	}
	c.f.call("query")
	return &leakFakeRows{c.f, c.f.rows}, nil
}

type leakFakeStmt struct{ f *leakFake }

func (s leakFakeStmt) Close() error                               { s.f.call("close"); return nil }
func (s leakFakeStmt) NumInput() int                              { return -1 }
func (s leakFakeStmt) Exec([]driver.Value) (driver.Result, error) { return driver.RowsAffected(1), nil }
func (s leakFakeStmt) Query([]driver.Value) (driver.Rows, error) {
	return &leakFakeRows{s.f, s.f.rows}, nil
}

type leakFakeTx struct{ f *leakFake }

func (t leakFakeTx) Commit() error   { t.f.call("commit"); return nil }
func (t leakFakeTx) Rollback() error { t.f.call("rollback"); return nil }

type leakFakeRows struct {
	f    *leakFake
	left [][]driver.Value
}

func (r *leakFakeRows) Columns() []string {
	r.f.call("columns")
	return make([]string, len(r.f.rows[0]))
}
func (r *leakFakeRows) Close() error { return nil }
func (r *leakFakeRows) Next(dest []driver.Value) error {
	r.f.call("next")
	if len(r.left) == 0 {
		return io.EOF
	}
	copy(dest, r.left[0])
	r.left = r.left[1:]
	return nil
}
