// Package shop is an application with mistakes in it, on a database that is not there: what the
// live page shows of it is looked at by tests, and drawn for the documents.
package shop

import (
	"context"
	"database/sql/driver"
	"errors"
	"io"
	"strings"
	"sync/atomic"
	"syscall"
	"time"
)

// Server is a database that answers each statement after a time, and with as many rows as it has.
type Server struct {
	Slower atomic.Int64 // by how much more each call takes, in thousandths
	Down   atomic.Bool  // it takes no new connections
}

// takes is how long statements take.
var takes = map[string]time.Duration{
	"SELECT id, name": 6 * time.Millisecond, "SELECT id, cus": 25 * time.Millisecond, "INSERT": 12 * time.Millisecond, "UPDATE": 9 * time.Millisecond,
	"DELETE": 4 * time.Millisecond, "SELECT COUNT": 350 * time.Millisecond, "SELECT id, product": 15 * time.Millisecond, "BEGIN": time.Millisecond, "COMMIT": 5 * time.Millisecond,
}

func (s *Server) work(ctx context.Context, statement string) error {
	for prefix, took := range takes {
		if strings.HasPrefix(statement, prefix) {
			took = took * time.Duration(1000+s.Slower.Load()) / 1000
			select {
			case <-time.After(took):
			case <-ctx.Done():
				return ctx.Err()
			}
		}
	}
	return nil
}

// Connect opens a connection.
func (s *Server) Connect(ctx context.Context) (driver.Conn, error) {
	if s.Down.Load() {
		return nil, syscall.ECONNREFUSED
	}
	select {
	case <-time.After(40 * time.Millisecond):
	case <-ctx.Done():
		return nil, ctx.Err()
	}
	return &conn{s: s}, nil
}

// Driver is its driver.
func (s *Server) Driver() driver.Driver { return s }

// Open is not used.
func (s *Server) Open(string) (driver.Conn, error) { return s.Connect(context.Background()) }

type conn struct{ s *Server }

func (c *conn) Prepare(string) (driver.Stmt, error) { return nil, errors.ErrUnsupported }
func (c *conn) Close() error                        { return nil }
func (c *conn) Begin() (driver.Tx, error)           { return nil, errors.ErrUnsupported }
func (c *conn) ResetSession(context.Context) error  { return nil }

func (c *conn) BeginTx(ctx context.Context, _ driver.TxOptions) (driver.Tx, error) {
	return c, c.s.work(ctx, "BEGIN")
}
func (c *conn) Commit() error   { return c.s.work(context.Background(), "COMMIT") }
func (c *conn) Rollback() error { return nil }

func (c *conn) ExecContext(ctx context.Context, query string, _ []driver.NamedValue) (driver.Result, error) {
	return driver.RowsAffected(1), c.s.work(ctx, query)
}

func (c *conn) QueryContext(ctx context.Context, query string, _ []driver.NamedValue) (driver.Rows, error) {
	left := 1
	if strings.HasPrefix(query, "SELECT id, cus") || strings.HasPrefix(query, "SELECT id, product") {
		left = 100
	}
	return &rows{left}, c.s.work(ctx, query)
}

type rows struct{ left int }

func (r *rows) Columns() []string { return []string{"n"} }
func (r *rows) Close() error      { return nil }
func (r *rows) Next(to []driver.Value) error {
	if r.left == 0 {
		return io.EOF
	}
	r.left--
	if r.left%25 == 0 {
		time.Sleep(time.Millisecond)
	}
	to[0] = int64(r.left)
	return nil
}
