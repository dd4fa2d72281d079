package behaviour

import (
	"database/sql"
	"testing"
)

// Driver is a database driver, in one way of using it, on one server.
type Driver struct {
	Name string // in the report
	Open string // as sql.Open knows it
	DSN  string
	SQL  *SQL

	// Code is the number or SQLSTATE of the driver's own error in a chain;
	// empty if there is none.
	Code func(error) string
	// Sessions counts what is open on the server.
	Sessions func(testing.TB) int
	// Await returns when the server is running SQL.Slow.
	Await func(testing.TB)
	// Abandon ends the sessions that run SQL.Slow, on a server that goes on
	// with it when its client is gone. It may be nil.
	Abandon func(testing.TB)

	// Columns are the types of the server, with what the driver makes of them.
	Columns []Column
	// Moment is what the driver makes of At in a column of SQL.Time.
	Moment any
	// Own are behaviours that only this driver has.
	Own []Behaviour

	// What follows is answered differently by drivers, always rightly.

	// Levels are the isolation levels that the driver has, each with the
	// number of rows that a transaction sees of the one that another has
	// committed since its first look. It refuses the others.
	Levels map[sql.IsolationLevel]int
	// ReadOnly is the answer to a read-only transaction, and to a write in it.
	ReadOnly Answer
	// Named are the placeholders for the named arguments a and b, of which b
	// comes first; "" if the driver refuses names.
	Named string
	// CancelCode is the code of the server's own error for a statement that
	// was cancelled, if the driver may give it in place of the context's.
	CancelCode string
	// LastInsertID tells whether results have one.
	LastInsertID bool
	// Sets is how many result sets an application gets of three statements in
	// one text; 0: the text is refused.
	Sets int
	// AbortsTx tells whether an error makes a transaction useless.
	AbortsTx bool
}

// SQL is what servers write differently. Statements here are written with ?.
type SQL struct {
	Numbered bool   // placeholders are $1, not ?
	ID       string // declares a key that counts by itself
	Blob     string // declares bytes
	Time     string // declares a time with microseconds
	Series   string // a query for the numbers 1 to %d
	Broken   string // a query that fails at its fifth row
	Slow     string // a query that takes longer than any test
	Take     string // locks row 1 of the table locks
	Locked   string // does the same, and fails at once where that is locked
	NoWait   string // comes before an INSERT that must not wait for a lock

	Failures []Failure // with the table keys (id INT PRIMARY KEY, n INT NOT NULL), which has the row (1, 1)
	LockCode string    // of the error of Locked
	RowCode  string    // of the error of Broken
}

// Failure is a statement that fails.
type Failure struct{ What, Statement, Code string }

// Column is a column of a server's type.
type Column struct {
	Name    string
	Type    string // declares it
	Literal string // a value, in SQL
	Want    any    // the value as the Go type into which an application scans it
}
