package sqllease

import (
	"runtime"
	"slices"

	"github.com/sqllease/sqllease/internal/callstack"
)

// Stack is a call stack as program counters, the innermost first. Its methods look up the
// names; before that it costs nothing.
type Stack []uintptr

// Frames returns the calls of the stack with their names, inlined calls included.
func (s Stack) Frames() []runtime.Frame { return callstack.Stack(s).Frames() }

// Site is the line of the application that made the call, as "dir/file.go:42 pkg.Func".
// It is the innermost call that is not in sqllease, database/sql, the Go runtime, or a
// module that the application depends on, such as an ORM. If all are in such modules, it is
// the innermost of theirs. Empty: there is none.
func (s Stack) Site() string { return callstack.Stack(s).Site() }

// String lists the application's calls as Go prints a goroutine, each in two lines: the
// function, then file and line. It ends where a server, such as net/http, calls the
// application.
func (s Stack) String() string { return callstack.Stack(s).String() }

// Line lists the same calls in one line, for logs: "dir/file.go:42 pkg.Func < dir/main.go:7
// main.main", the innermost first.
func (s Stack) Line() string { return callstack.Stack(s).Line() }

// caller is what called the code at Site, in the same form; empty: nothing of the application's.
func (s Stack) caller() string { return callstack.Stack(s).Caller() }

// siteFrame is the frame of Site; false: there is none.
func (s Stack) siteFrame() (runtime.Frame, bool) { return callstack.Stack(s).SiteFrame() }

// site is Site for people, who are told if there is none.
func (s Stack) site() string {
	if site := s.Site(); site != "" {
		return site
	}
	return "a goroutine of database/sql or started with one of its methods"
}

// What database/sql wants of the driver is told by its functions on the stack.

// The goroutines of database/sql's own on which a driver is called.
const (
	openerGoroutine = "database/sql.(*DB).connectionOpener" // dials for database/sql's queue
	txGoroutine     = "database/sql.(*Tx).awaitDone"        // rolls back when a transaction's context ends
)

const (
	isMoving uint32 = 1 << iota
	isDropping
	isSingle
	isBegin
	isClosing
	isEnding
)

// telling are the functions of database/sql that tell it, where one of them is between the
// driver and the application.
var telling = map[string]uint32{
	"database/sql.(*Stmt).prepareOnConnLocked": isMoving,
	"database/sql.(*driverConn).finalClose":    isDropping,
	"database/sql.(*DB).exec":                  isSingle,
	"database/sql.(*DB).query":                 isSingle,
	"database/sql.(*DB).prepare":               isSingle,
	"database/sql.(*DB).PingContext":           isSingle,
	"database/sql.(*DB).BeginTx":               isBegin,
	"database/sql.(*DB).Close":                 isClosing,
	"database/sql.(*Rows).awaitDone":           isEnding,
	txGoroutine:                                isEnding,
	"database/sql.(*Stmt).ExecContext":         isSingle,
	"database/sql.(*Stmt).QueryContext":        isSingle,
}

// movesStatement tells whether database/sql prepares on this stack, again, a *sql.Stmt
// that it uses on another connection. Where database/sql has no such function, nothing
// ever does.
func movesStatement(k *callstack.Known) bool { return k.Told(telling)&isMoving != 0 }

// dropsConn tells whether database/sql closes a connection on this stack.
func dropsConn(k *callstack.Known) bool { return k.Told(telling)&isDropping != 0 }

// closesDB tells whether the application closes its *sql.DB on this stack.
func closesDB(k *callstack.Known) bool { return k.Told(telling)&isClosing != 0 }

// endsByContext tells whether database/sql closes, on this stack, rows or a transaction
// whose context has ended.
func endsByContext(k *callstack.Known) bool { return k.Told(telling)&isEnding != 0 }

// ofQuery tells whether a lease that was acquired with that stack is held by
// its result set alone.
func (s Stack) ofQuery() bool {
	return callstack.Stack(s).AcquiredBy("database/sql.(*DB).QueryContext")
}

// ofTx tells whether it is held by a transaction of the pool's.
func (s Stack) ofTx() bool { return callstack.Stack(s).AcquiredBy("database/sql.(*DB).BeginTx") }

// ofRuntime tells whether it was acquired in a finalizer or a cleanup. Their goroutines are the
// runtime's: it does not print them while they have nothing to do.
func (s Stack) ofRuntime() bool {
	return slices.ContainsFunc(s.Frames(), func(f runtime.Frame) bool {
		return f.Function == "runtime.runFinalizers" || f.Function == "runtime.runCleanups"
	})
}

// through is the package by which it was acquired, such as an ORM; empty: the application did
// so by itself.
func (s Stack) through() string { return callstack.Stack(s).Through() }

// ofRow tells whether its result set is that of a *sql.Row.
func (s Stack) ofRow() bool {
	return callstack.Stack(s).AcquiredBy("database/sql.(*DB).QueryRowContext") || callstack.Stack(s).AcquiredBy("database/sql.(*Stmt).QueryRowContext")
}
