package sqllease

import (
	"database/sql/driver"

	"github.com/sqllease/sqllease/internal/callstack"
	"github.com/sqllease/sqllease/internal/clock"
)

// Most leases are those of a single call: db.Exec, for one, acquires a connection, runs
// a statement and gives the connection back, and from the first to the last of it no code
// of the application runs, but for arguments that say themselves what they are. So what
// tells the holder of a connection from a call that is in flight can be left out:
//
//   - The session is in use from the acquire to the release: no call claims it, and
//     nobody takes it between two.
//   - The lease is in its last call until it ends.
//   - The end of one step is the beginning of the next, for which the clock is read once.
//
// A query's is one until its rows are returned, which the application reads when it will,
// and again when they are closed.

// forOneCall tells whether what is acquired on this stack is for one call of database/sql's,
// which gives it back, or has rows to return, before the application goes on. It is asked
// for each acquire, so that only a stack that is recognised is looked at.
func forOneCall(k *callstack.Known) bool { return k.Recognised() && k.Told(telling)&isSingle != 0 }

// The calls of one call of database/sql's follow each other within some nanoseconds, which
// are less than it takes to read the clock: pass notes the time at the end of one, for now
// at the beginning of the next.
func (h *handle) pass(now clock.Instant) {
	if h.single {
		h.at = now
	}
}

// now is the present instant.
func (h *handle) now() clock.Instant {
	if at := h.at; at != 0 {
		h.at = 0
		return at
	}
	return clock.Now()
}

// checks notes that an argument is checked. The application may say what it is, and take
// its time.
func (h *handle) checks(v *driver.NamedValue) {
	if _, ok := v.Value.(driver.Valuer); ok && h.single && h.leased {
		h.at = 0
		h.session.lease.show()
	}
}
