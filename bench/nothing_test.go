package bench

import (
	"context"
	"database/sql/driver"
	"io"
	"strings"
)

// nothing is a driver that does nothing, at no cost, and has all the
// interfaces that a driver should have.
type nothing struct{}

func (nothing) Open(string) (driver.Conn, error) { return &nothingConn{}, nil }

type nothingConn struct{ rows nothingRows }

func (c *nothingConn) Prepare(query string) (driver.Stmt, error) { return &nothingStmt{c, query}, nil }
func (c *nothingConn) Close() error                              { return nil }
func (c *nothingConn) Begin() (driver.Tx, error)                 { return nothingTx{}, nil }
func (c *nothingConn) ResetSession(context.Context) error        { return nil }
func (c *nothingConn) IsValid() bool                             { return true }
func (c *nothingConn) Ping(context.Context) error                { return nil }
func (c *nothingConn) CheckNamedValue(*driver.NamedValue) error  { return nil }
func (c *nothingConn) BeginTx(context.Context, driver.TxOptions) (driver.Tx, error) {
	return nothingTx{}, nil
}

func (c *nothingConn) PrepareContext(_ context.Context, query string) (driver.Stmt, error) {
	return c.Prepare(query)
}

func (c *nothingConn) ExecContext(context.Context, string, []driver.NamedValue) (driver.Result, error) {
	return driver.RowsAffected(1), nil
}

func (c *nothingConn) QueryContext(_ context.Context, query string, _ []driver.NamedValue) (driver.Rows, error) {
	c.rows.left = tableRows
	if strings.Contains(query, "WHERE") {
		c.rows.left = 1
	}
	return &c.rows, nil
}

type nothingStmt struct {
	conn  *nothingConn
	query string
}

func (s *nothingStmt) Close() error  { return nil }
func (s *nothingStmt) NumInput() int { return -1 }
func (s *nothingStmt) Exec([]driver.Value) (driver.Result, error) {
	return driver.RowsAffected(1), nil
}
func (s *nothingStmt) Query([]driver.Value) (driver.Rows, error) {
	return s.QueryContext(context.Background(), nil)
}

func (s *nothingStmt) ExecContext(context.Context, []driver.NamedValue) (driver.Result, error) {
	return driver.RowsAffected(1), nil
}

func (s *nothingStmt) QueryContext(ctx context.Context, _ []driver.NamedValue) (driver.Rows, error) {
	return s.conn.QueryContext(ctx, s.query, nil)
}

type nothingTx struct{}

func (nothingTx) Commit() error   { return nil }
func (nothingTx) Rollback() error { return nil }

type nothingRows struct{ left int }

var oneColumn = []string{"n"}

func (r *nothingRows) Columns() []string { return oneColumn }
func (r *nothingRows) Close() error      { return nil }
func (r *nothingRows) Next(dest []driver.Value) error {
	if r.left == 0 {
		return io.EOF
	}
	r.left--
	dest[0] = int64(1)
	return nil
}
