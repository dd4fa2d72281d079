package sqllease

import (
	"context"
	"database/sql/driver"
	"io"
	"sync/atomic"
)

// Drivers that can do little.

// plainFake is a driver with nothing but what a driver must have: it counts statements.
type plainFake struct{ stmts atomic.Int32 }

func (f *plainFake) Connect(context.Context) (driver.Conn, error) { return plainFakeConn{f}, nil }
func (f *plainFake) Driver() driver.Driver                        { return f }
func (f *plainFake) Open(string) (driver.Conn, error)             { return plainFakeConn{f}, nil }

type plainFakeConn struct{ f *plainFake }

func (c plainFakeConn) Prepare(string) (driver.Stmt, error) {
	c.f.stmts.Add(1)
	return &plainFakeStmt{f: c.f}, nil
}
func (plainFakeConn) Close() error                { return nil }
func (c plainFakeConn) Begin() (driver.Tx, error) { return plainFakeTx{}, nil }

type plainFakeTx struct{}

func (plainFakeTx) Commit() error   { return nil }
func (plainFakeTx) Rollback() error { return nil }

type plainFakeStmt struct {
	f      *plainFake
	closed bool
}

func (s *plainFakeStmt) Close() error {
	if !s.closed {
		s.closed = true
		s.f.stmts.Add(-1)
	}
	return nil
}
func (*plainFakeStmt) NumInput() int                              { return -1 }
func (*plainFakeStmt) Exec([]driver.Value) (driver.Result, error) { return driver.RowsAffected(1), nil }
func (*plainFakeStmt) Query([]driver.Value) (driver.Rows, error)  { return nil, driver.ErrSkip }

// preparingFake is a leakFake without direct calls, as many drivers are: each statement is
// prepared.
type preparingFake struct{ leakFake }

func (f *preparingFake) Connect(context.Context) (driver.Conn, error) {
	return preparingFakeConn{&leakFakeConn{&f.leakFake}}, nil
}

type preparingFakeConn struct{ c *leakFakeConn }

func (c preparingFakeConn) Close() error                          { return c.c.Close() }
func (c preparingFakeConn) Begin() (driver.Tx, error)             { return c.c.Begin() }
func (c preparingFakeConn) Prepare(q string) (driver.Stmt, error) { return c.c.Prepare(q) }

// directFake is a driver that executes statements directly, and can do nothing else. It has
// no checker of its own.
type directFake struct {
	exec func(args []driver.NamedValue)
}

func (f *directFake) Connect(context.Context) (driver.Conn, error) { return directFakeConn{f}, nil }
func (f *directFake) Driver() driver.Driver                        { return f }
func (f *directFake) Open(string) (driver.Conn, error)             { return directFakeConn{f}, nil }

type directFakeConn struct{ f *directFake }

func (directFakeConn) Prepare(string) (driver.Stmt, error) { return nil, io.ErrUnexpectedEOF }
func (directFakeConn) Close() error                        { return nil }
func (directFakeConn) Begin() (driver.Tx, error)           { return nil, io.ErrUnexpectedEOF }

func (c directFakeConn) ExecContext(_ context.Context, _ string, args []driver.NamedValue) (driver.Result, error) {
	c.f.exec(args)
	return driver.RowsAffected(1), nil
}

func (directFakeConn) QueryContext(context.Context, string, []driver.NamedValue) (driver.Rows, error) {
	return nil, io.ErrUnexpectedEOF
}
