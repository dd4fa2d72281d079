package sqllease

import (
	"context"
	"database/sql/driver"
	"sync/atomic"
)

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
