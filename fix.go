package sqllease

import (
	"fmt"
	"runtime"
	"strings"
)

// Fix says what to do about it, in a sentence: what the log and the span have as "fix".
func (l Leak) Fix() string {
	switch {
	case l.Returned && l.ByContext:
		return "its context ended before your code closed it: " + l.left().fix(l.Stack.through(), false)
	case l.Returned && l.Class == ClassBusy:
		return "it was a slow call; make it shorter, or raise Config.SlowCallThreshold"
	case l.Returned:
		return "your code gave it back, only late; make the work between acquire and return shorter, or allow it more time with WithHoldLimit or Config.LeakThreshold"
	case l.Class == ClassBusy && l.Call == CallReset:
		return "the connection's reset hangs, and a caller waits for it; give the caller's context a deadline"
	case l.Class == ClassBusy && l.blame.fix() != "":
		return l.blame.fix()
	case l.Class == ClassBusy:
		return "look at the statement's plan and locks, or give its context a deadline"
	}
	if l.isStuckIn(runtime.Version()) {
		return "nothing in your code: database/sql of Go 1.27.0 has lost a wake-up (https://github.com/golang/go/issues/81043); restart this process, and build it with Go 1.27.1 or newer"
	}
	s := l.left().fix(l.Stack.through(), l.Class == ClassProven)
	if l.InTx && l.serverEnds > 0 {
		s += fmt.Sprintf("; the server ends an idle transaction after %v", l.serverEnds)
	}
	return s
}

// isStuckIn tells whether its holder waits in the lock of database/sql that loses wake-ups in that
// version of Go.
func (l Leak) isStuckIn(version string) bool {
	if !strings.HasPrefix(version, "go1.27.0") && !strings.HasPrefix(version, "go1.27rc") {
		return false
	}
	for _, g := range l.Now {
		if strings.Contains(g.Stack, "database/sql.(*closingMutex)") {
			return true
		}
	}
	return false
}

// leftOpen is what was left open, and how to close it.
type leftOpen struct {
	end     string // what to write in code that uses database/sql itself
	through string // what to end in code that uses a library, whose name follows
	slow    string // what else it may be: code that does so, and is slow before
}

var (
	leftRow = leftOpen{
		"call Scan on every *sql.Row, whatever its error: that is what closes it",
		"read or close, on every path, the row that you got from %s",
		"if your code does that already, call Scan right after the query",
	}
	leftRows = leftOpen{
		"close the *sql.Rows on every path: defer rows.Close() right after the error check of the query",
		"close, on every path, the rows that you got from %s",
		"if your code does that already, read and close the rows before slow work",
	}
	leftTx = leftOpen{
		"end the *sql.Tx on every path: defer tx.Rollback() right after BeginTx",
		"commit or roll back, on every path, the transaction that you began with %s",
		"if your code does that already, move slow work, such as an HTTP call, out of the transaction",
	}
	leftConn = leftOpen{
		"close the *sql.Conn on every path: defer conn.Close() right after DB.Conn",
		"close, on every path, the session or connection that you got from %s",
		"if your code does that already, close it before slow work, or take it with sqllease.WithHoldLimit",
	}
	leftRaw = leftOpen{
		leftConn.end,
		leftConn.through,
		"if it is in use through the driver's own connection, take it with sqllease.WithHoldLimit",
	}
)

// left is what was left open; of a lease that came back, what its acquire was for.
func (l Leak) left() leftOpen {
	open, inTx := l.OpenRows > 0, l.InTx
	if l.Returned {
		inTx = l.Stack.ofTx()
		open = !inTx
	}
	switch {
	case open && l.Stack.ofRow():
		return leftRow
	case open:
		return leftRows
	case inTx:
		return leftTx
	case l.Unwrapped:
		return leftRaw
	}
	return leftConn
}

// fix says how to close it, which a library may have opened. Proven: it is certain that the
// code does not.
func (o leftOpen) fix(by string, proven bool) string {
	s := o.end
	if by != "" {
		s = fmt.Sprintf(o.through, by)
	}
	if proven {
		return s
	}
	return s + "; " + o.slow
}
