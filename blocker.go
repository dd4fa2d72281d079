package sqllease

import (
	"fmt"
	"log/slog"
	"strings"
	"time"
)

// Blocker is a connection that holds what a slow call waits for, or that stands between the
// call and such a connection: see [SlowCall.Blockers].
type Blocker struct {
	ConnectionID uint64 // the server's number of the connection; 0: not known
	Blocks       uint64 // the number of the connection that waits for it: the slow call's, or another blocker's
	Waits        bool   // it waits for a lock itself: another blocker blocks it
	Lock         string // what it has that is waited for, such as "row lock on shop.orders"

	Pool     string // the pool of this process that the connection is of; empty: of none that is known
	Lease    *Lease // who has it checked out, if it is of such a pool; nil: not known
	LeftOver bool   // Lease gave it back, with the lock, and it is ready in the pool

	User      string        // the server's user; empty: it may not be seen
	Host      string        // where it comes from; likewise
	Program   string        // what the program calls itself; empty: nothing
	State     string        // "active", "idle in transaction", "idle", or the server's own word; empty: it may not be seen
	For       time.Duration // how long it has been in that state
	Statement string        // the statement that it executes, or the last one, with ? for every literal; empty: it may not be seen
}

// String is the blocker in one line, for people.
func (b Blocker) String() string {
	s := b.Lock + ": " + b.who() + b.doing()
	if b.Waits {
		s += "; it waits for a lock itself"
	}
	return s
}

// who names it.
func (b *Blocker) who() string {
	switch {
	case b.Lease != nil && b.LeftOver:
		return fmt.Sprintf("connection %d, idle in pool %q: it was given back with the lock (lease %d), taken by %s", b.ConnectionID, b.Pool, b.Lease.ID, b.Lease.Stack.site())
	case b.Lease != nil:
		return fmt.Sprintf("connection %d of pool %q (lease %d), taken by %s", b.ConnectionID, b.Pool, b.Lease.ID, b.Lease.Stack.site())
	case b.ConnectionID == 0 && b.Blocks != 0 && b.State != "":
		return "a prepared transaction, which no connection has"
	case b.ConnectionID == 0:
		return "a connection that the server does not show"
	}
	return fmt.Sprintf("connection %d, not of this pool: %s", b.ConnectionID, b.from())
}

// from is where one comes from that is not ours.
func (b *Blocker) from() string {
	s := "a user that may not be seen"
	if b.User != "" {
		s = "user " + b.User
	}
	if b.Host != "" {
		s += " at " + b.Host
	}
	if b.Program != "" {
		s += " (" + b.Program + ")"
	}
	return s
}

// doing is what it does.
func (b *Blocker) doing() string {
	switch {
	case b.LeftOver || b.ConnectionID == 0:
		return ""
	case b.Lease != nil:
		s := ", " + b.Lease.doing()
		if !b.Lease.Busy && b.Lease.Statement != "" {
			s += "; last statement: " + shorten(b.Lease.Statement)
		}
		return s
	case b.State == "":
		return ""
	}
	s := ", " + b.State
	if b.For > 0 {
		s += fmt.Sprintf(" for %v", round(b.For))
	}
	switch {
	case b.Statement == "":
	case b.State == "active":
		s += ": " + shorten(b.Statement)
	default:
		s += "; last statement: " + shorten(b.Statement)
	}
	return s
}

// blame is what was found out of who blocks a slow call.
type blame struct {
	blockers []Blocker
	free     bool   // the server says that the call waits for no lock
	end      string // the statement that ends the connection of the last blocker
}

// root is who blocks all others; nil: nobody is known.
func (b *blame) root() *Blocker {
	for i := range b.blockers {
		if !b.blockers[i].Waits {
			return &b.blockers[i]
		}
	}
	return nil
}

// write adds the lines of a report.
func (b *blame) write(to *strings.Builder, call uint64) {
	if b.free {
		fmt.Fprintf(to, "  blocked by nobody: the server says that it waits for no lock\n")
	}
	for i := range b.blockers {
		switch of := b.blockers[i].Blocks; {
		case i == 0:
			fmt.Fprintf(to, "  blocked by %s\n", b.blockers[i])
		case of != call:
			fmt.Fprintf(to, "             connection %d waits for %s\n", of, b.blockers[i])
		default:
			fmt.Fprintf(to, "             and by %s\n", b.blockers[i])
		}
	}
}

// attrs are those of a record.
func (b *blame) attrs() (attrs []slog.Attr) {
	if b.free {
		attrs = append(attrs, slog.Bool("waits_for_lock", false))
	}
	if len(b.blockers) > 0 {
		attrs = append(attrs, slog.Any("blocked_by", b.texts()))
	}
	if root := b.root(); root != nil && root.ConnectionID != 0 {
		attrs = append(attrs, slog.Uint64("blocker_connection_id", root.ConnectionID))
		if root.Lease != nil {
			attrs = append(attrs, slog.Uint64("blocker_lease", root.Lease.ID))
		}
	}
	return attrs
}

func (b *blame) texts() (all []string) {
	for i := range b.blockers {
		all = append(all, b.blockers[i].String())
	}
	return all
}

// fix says what to do; empty: nothing better is known.
func (b *blame) fix() string {
	root := b.root()
	switch {
	case b.free:
		return "it waits for no lock, so look at the statement's plan, or give its context a deadline"
	case root == nil:
		return ""
	case root.LeftOver:
		return fmt.Sprintf("the code at %s gave its connection back with the lock: release it there before; %s ends that connection now", root.Lease.Stack.site(), b.end)
	case root.Lease != nil && root.Lease.Busy:
		return fmt.Sprintf("it waits for the transaction or call at %s: make that shorter, or look at the plan of its statement", root.Lease.Stack.site())
	case root.Lease != nil && !root.Lease.InTx && root.Lease.OpenRows == 0: // a lock of the connection, or of a transaction that a statement began
		return fmt.Sprintf("it waits for the code at %s: release its lock, or end its transaction, on every path, and before slow work, such as an HTTP call", root.Lease.Stack.site())
	case root.Lease != nil:
		left := Leak{Lease: *root.Lease, Class: ClassUnused}
		return fmt.Sprintf("it waits for the code at %s: %s", root.Lease.Stack.site(), left.left().fix(root.Lease.Stack.through(), false))
	case root.ConnectionID != 0:
		return fmt.Sprintf("connection %d is not of this pool: have its owner end the transaction, or end the connection on the server: %s", root.ConnectionID, b.end)
	case root.State != "":
		return "commit or roll back the prepared transaction: pg_prepared_xacts of PostgreSQL, and XA RECOVER of MySQL and MariaDB, show its name"
	}
	return "it waits for a " + root.Lock + " whose holder the server does not show; a warning in the log says how it can"
}
