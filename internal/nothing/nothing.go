// Package nothing is a driver that does nothing, at no cost, and has all the
// interfaces that a driver should have: what is measured with it is what is
// around it.
package nothing

import (
	"context"
	"database/sql/driver"
	"io"
	"strings"
	"sync/atomic"
)

// Rows is how many rows a query has, or one, if it has a WHERE.
const Rows = 100

// Driver is the driver, and a connector of it.
type Driver struct {
	// Prepared counts the statements that were prepared; nil: nobody wants to know.
	Prepared *atomic.Int64
}

// Open opens a connection.
func (d Driver) Open(string) (driver.Conn, error) { return &Conn{prepared: d.Prepared}, nil }

// Connect opens a connection.
func (d Driver) Connect(context.Context) (driver.Conn, error) { return d.Open("") }

// Driver is the driver.
func (d Driver) Driver() driver.Driver { return d }

// Conn is a connection. It may be used as database/sql uses one: by one
// goroutine at a time, with one result set.
type Conn struct {
	prepared *atomic.Int64
	rows     rows
}

// Prepare prepares a statement.
func (c *Conn) Prepare(query string) (driver.Stmt, error) {
	if c.prepared != nil {
		c.prepared.Add(1)
	}
	return &stmt{c, query}, nil
}

// PrepareContext prepares a statement.
func (c *Conn) PrepareContext(_ context.Context, query string) (driver.Stmt, error) {
	return c.Prepare(query)
}

// Close does nothing.
func (c *Conn) Close() error { return nil }

// Begin begins a transaction.
func (c *Conn) Begin() (driver.Tx, error) { return tx{}, nil }

// BeginTx begins a transaction, of any kind.
func (c *Conn) BeginTx(context.Context, driver.TxOptions) (driver.Tx, error) { return tx{}, nil }

// ResetSession does nothing.
func (c *Conn) ResetSession(context.Context) error { return nil }

// IsValid is true.
func (c *Conn) IsValid() bool { return true }

// Ping does nothing.
func (c *Conn) Ping(context.Context) error { return nil }

// CheckNamedValue takes all values as they are.
func (c *Conn) CheckNamedValue(*driver.NamedValue) error { return nil }

// ExecContext does nothing to one row.
func (c *Conn) ExecContext(context.Context, string, []driver.NamedValue) (driver.Result, error) {
	return driver.RowsAffected(1), nil
}

// QueryContext returns rows of one column.
func (c *Conn) QueryContext(_ context.Context, query string, _ []driver.NamedValue) (driver.Rows, error) {
	c.rows.left = Rows
	if strings.Contains(query, "WHERE") {
		c.rows.left = 1
	}
	return &c.rows, nil
}

type stmt struct {
	conn  *Conn
	query string
}

// Close does nothing.
func (s *stmt) Close() error { return nil }

// NumInput is not known.
func (s *stmt) NumInput() int { return -1 }

// Exec does nothing to one row.
func (s *stmt) Exec([]driver.Value) (driver.Result, error) { return driver.RowsAffected(1), nil }

// ExecContext does nothing to one row.
func (s *stmt) ExecContext(context.Context, []driver.NamedValue) (driver.Result, error) {
	return driver.RowsAffected(1), nil
}

// Query returns rows, as the connection does.
func (s *stmt) Query([]driver.Value) (driver.Rows, error) {
	return s.conn.QueryContext(context.Background(), s.query, nil)
}

// QueryContext returns rows, as the connection does.
func (s *stmt) QueryContext(ctx context.Context, _ []driver.NamedValue) (driver.Rows, error) {
	return s.conn.QueryContext(ctx, s.query, nil)
}

type tx struct{}

// Commit does nothing.
func (tx) Commit() error { return nil }

// Rollback does nothing.
func (tx) Rollback() error { return nil }

type rows struct{ left int }

var columns = []string{"n"}

// Columns is one.
func (r *rows) Columns() []string { return columns }

// Close does nothing.
func (r *rows) Close() error { return nil }

// Next sets the column to 1.
func (r *rows) Next(dest []driver.Value) error {
	if r.left == 0 {
		return io.EOF
	}
	r.left--
	dest[0] = int64(1)
	return nil
}
