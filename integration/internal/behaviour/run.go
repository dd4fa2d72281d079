package behaviour

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/sqllease/sqllease"
)

// Run is one run of a behaviour: on the bare driver, or through sqllease.
type Run struct {
	*testing.T
	DB      *sql.DB
	Driver  *Driver
	SQL     *SQL
	Wrapped bool

	seen []observation
}

// observation is something that an application can see.
type observation struct {
	what  string
	value any
}

// fault is an error as an application sees it.
type fault struct {
	text  string
	types []string // of its chain
	code  string
}

// address is a place in memory, which drivers print with an argument that they
// cannot take.
var address = regexp.MustCompile("0x[0-9a-f]+")

// Saw notes a value that must be the same in both runs.
func (r *Run) Saw(what string, value any) {
	r.seen = append(r.seen, observation{what, value})
}

// Is expects a value, and notes it.
func (r *Run) Is(what string, want, got any) {
	r.Helper()
	assert.Equal(r, want, got, what)
	r.Saw(what, got)
}

// OK expects no error.
func (r *Run) OK(err error) {
	r.Helper()
	require.NoError(r, err)
}

// Ended notes how a call ended: its error's text, types and code, or none.
func (r *Run) Ended(what string, err error) {
	if err == nil {
		r.Saw(what, nil)
		return
	}
	f := fault{text: address.ReplaceAllString(err.Error(), "0x"), code: r.Driver.Code(err)}
	for ; err != nil; err = errors.Unwrap(err) {
		f.types = append(f.types, fmt.Sprintf("%T", err))
	}
	r.Saw(what, f)
}

// Fails expects an error, and notes it.
func (r *Run) Fails(what string, err error) {
	r.Helper()
	require.Error(r, err, what)
	r.Ended(what, err)
}

// FailsWith expects an error of the driver's by its code, and notes it.
func (r *Run) FailsWith(code, what string, err error) {
	r.Helper()
	r.Fails(what, err)
	assert.Equal(r, code, r.Driver.Code(err), "code of the error for %s: %v", what, err)
}

// FailsAs expects a certain error in the chain, and notes it.
func (r *Run) FailsAs(target error, what string, err error) {
	r.Helper()
	r.Fails(what, err)
	assert.ErrorIs(r, err, target, what)
}

// Cancelled expects that a context has ended a call. With some drivers it is
// chance whether they say so or the server does.
func (r *Run) Cancelled(target error, what string, err error) {
	r.Helper()
	if code := r.Driver.CancelCode; code != "" && r.Driver.Code(err) == code {
		err = target
	}
	r.FailsAs(target, what, err)
}

// Text is a statement as the server's placeholders are.
func (r *Run) Text(statement string) string {
	if !r.SQL.Numbered {
		return statement
	}
	var b strings.Builder
	for n := 1; ; n++ {
		before, after, found := strings.Cut(statement, "?")
		b.WriteString(before)
		if !found {
			return b.String()
		}
		fmt.Fprintf(&b, "$%d", n)
		statement = after
	}
}

// Caller is a *sql.DB, *sql.Conn or *sql.Tx.
type Caller interface {
	ExecContext(ctx context.Context, query string, args ...any) (sql.Result, error)
	QueryContext(ctx context.Context, query string, args ...any) (*sql.Rows, error)
	QueryRowContext(ctx context.Context, query string, args ...any) *sql.Row
}

// Exec executes a statement that must not fail.
func (r *Run) Exec(on Caller, statement string, args ...any) sql.Result {
	r.Helper()
	res, err := on.ExecContext(r.Context(), r.Text(statement), args...)
	require.NoError(r, err, statement)
	return res
}

// Query makes a query that must not fail. Its rows are closed by the end of
// the run at the latest.
func (r *Run) Query(on Caller, query string, args ...any) *sql.Rows {
	r.Helper()
	rows, err := on.QueryContext(r.Context(), r.Text(query), args...)
	require.NoError(r, err, query)
	r.Cleanup(func() { _ = rows.Close() })
	return rows
}

// Table makes an empty table.
func (r *Run) Table(name, columns string) {
	r.Helper()
	r.Exec(r.DB, "DROP TABLE IF EXISTS "+name)
	r.Exec(r.DB, "CREATE TABLE "+name+" ("+columns+")")
}

// Conn is a connection held until the end of the run, or until it is closed.
func (r *Run) Conn() *sql.Conn {
	r.Helper()
	conn, err := r.DB.Conn(r.Context())
	r.OK(err)
	r.Cleanup(func() { _ = conn.Close() })
	return conn
}

// Begin begins a transaction that is rolled back at the end of the run if it
// still stands.
func (r *Run) Begin(opts *sql.TxOptions) *sql.Tx {
	r.Helper()
	// The run's context ends before its cleanups, and would roll back aside.
	tx, err := r.DB.BeginTx(context.WithoutCancel(r.Context()), opts)
	r.OK(err)
	r.Cleanup(func() { _ = tx.Rollback() })
	return tx
}

// Count is the number of rows of a table.
func (r *Run) Count(on Caller, table string) int {
	r.Helper()
	return One[int](r, on, "SELECT COUNT(*) FROM "+table)
}

// One is the only value of a query.
func One[V any](r *Run, on Caller, query string, args ...any) (v V) {
	r.Helper()
	err := on.QueryRowContext(r.Context(), r.Text(query), args...).Scan(&v)
	require.NoError(r, err, query)
	return v
}

// All are the values of a query with one column.
func All[V any](r *Run, on Caller, query string, args ...any) (all []V) {
	r.Helper()
	rows := r.Query(on, query, args...)
	for rows.Next() {
		var v V
		r.OK(rows.Scan(&v))
		all = append(all, v)
	}
	r.OK(rows.Err())
	r.OK(rows.Close())
	return all
}

// Raw calls f with the driver's own connection: a type assertion in
// sql.Conn.Raw without sqllease, and sqllease.Unwrap with it.
func Raw[T any](r *Run, conn *sql.Conn, f func(T) error) error {
	r.Helper()
	return conn.Raw(func(driverConn any) error {
		t, ok := driverConn.(T)
		if r.Wrapped {
			t, ok = sqllease.Unwrap[T](driverConn)
		}
		require.True(r, ok, "the driver's connection is not a %T", t)
		return f(t)
	})
}

// soon waits for what must happen.
func soon(t testing.TB, happened func() bool, otherwise string) {
	t.Helper()
	for end := time.Now().Add(10 * time.Second); !happened(); time.Sleep(2 * time.Millisecond) {
		if time.Now().After(end) {
			t.Error(otherwise)
			return
		}
	}
}
