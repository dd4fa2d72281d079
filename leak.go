package sqllease

import (
	"fmt"
	"log/slog"
	"strings"
	"time"
)

// Class says why a lease is reported. The classes need different cures.
type Class uint8

const (
	// ClassBusy is a lease with a driver call in flight. It is a slow call, not a leak.
	ClassBusy Class = iota
	// ClassIdleInHand is a lease with nothing in flight. A Tx, Conn or Rows was not closed.
	ClassIdleInHand
	// ClassProven is a lease with Rows that were not closed and that nothing
	// refers to any more, so that nobody can close them. It has no threshold.
	ClassProven
	classes
)

var classNames = [classes]string{"busy", "idle in hand", "proven"}

func (c Class) String() string { return classNames[c] }

// value is the class as the value of an attribute.
func (c Class) value() string { return strings.ReplaceAll(c.String(), " ", "_") }

// Leak is a report of a lease that was held past the threshold: once when it
// passes, and once more when it is returned after all.
type Leak struct {
	Lease
	Pool      string        // name of the pool
	Class     Class         // what kind of trouble it is
	Threshold time.Duration // what it was held past; 0: it is proven
	Returned  bool          // this is the report of the late return; Hold is final
	Reclaimed bool          // its session was taken away, by proof or by Config.ReclaimAfter; Hold is final
	Times     int           // how many reports of this kind there were of leases taken at this very place, this one included
	Folded    int           // how many of them, since the last one that was logged, were not

	serverEnds time.Duration // when the server ends an idle transaction by itself; 0: never
	told       bool          // the lease was reported as leaked before
}

// String is the report as people read it, in several lines.
func (l Leak) String() string {
	var b strings.Builder
	fmt.Fprintf(&b, "sqllease: %s\n", l.headline())
	fmt.Fprintf(&b, "  taken by   %s\n", l.Stack.site())
	if l.Times > 1 {
		fmt.Fprintf(&b, "  times      %d from this place, %d of them since the last report\n", l.Times, l.Folded+1)
	}
	fmt.Fprintf(&b, "  held       %v, since %s, after waiting %v for it\n",
		round(l.Hold), l.Acquired.Format(time.RFC3339Nano), round(l.Queue+l.Dial+l.Reset))
	fmt.Fprintf(&b, "  doing      %s\n", l.doing())
	if l.Call != "" && !l.Busy {
		fmt.Fprintf(&b, "  last call  %s, begun %v before\n", l.Call, round(l.Acquired.Add(l.Hold).Sub(l.Begun)))
	}
	if l.Statement != "" {
		fmt.Fprintf(&b, "  statement  %s\n", shorten(l.Statement))
	}
	if l.SpanContext.IsValid() {
		fmt.Fprintf(&b, "  trace      %s span %s\n", l.SpanContext.TraceID(), l.SpanContext.SpanID())
	}
	fmt.Fprintf(&b, "  cure       %s\n", l.cure())
	if !l.Returned {
		fmt.Fprintf(&b, "  stack\n")
		for line := range strings.Lines(l.Stack.String()) {
			b.WriteString("    " + line)
		}
	}
	return b.String()
}

// message is what kind of report it is: the text of its log record, which is the same for
// all of its kind, so that they can be grouped.
func (l Leak) message() string {
	switch {
	case l.Returned:
		return "a connection that was reported was returned after all"
	case l.Class == ClassProven && l.Reclaimed:
		return "a connection is leaked for certain: nothing refers to its unclosed rows any more; its session is closed, and its place is free again"
	case l.Class == ClassProven:
		return "a connection is leaked for certain: nothing refers to its unclosed rows any more, and their *sql.Conn cannot be closed before them"
	case l.Reclaimed:
		return "a leaked connection is reclaimed: its session is closed"
	case l.Class == ClassBusy:
		return "a call is slow: its connection is busy for longer than Config.LongCallThreshold; this is no leak"
	}
	return "a connection is leaked: it is checked out but unused for longer than Config.LeakThreshold"
}

func (l Leak) headline() string {
	switch {
	case l.Returned:
		return fmt.Sprintf("pool %q: lease %d was returned after all, after %v", l.Pool, l.ID, round(l.Hold))
	case l.Class == ClassProven && l.Reclaimed:
		return fmt.Sprintf("pool %q: lease %d is leaked for certain: nothing refers to its unclosed rows any more; its session is closed, and its place is free again", l.Pool, l.ID)
	case l.Class == ClassProven:
		return fmt.Sprintf("pool %q: lease %d is leaked for certain: nothing refers to its unclosed rows any more, and their *sql.Conn cannot be closed before them", l.Pool, l.ID)
	case l.Reclaimed:
		return fmt.Sprintf("pool %q: lease %d is reclaimed after %v: its session is closed", l.Pool, l.ID, round(l.Hold))
	case l.Class == ClassBusy:
		return fmt.Sprintf("pool %q: lease %d is busy for longer than %v: a slow call, not a leak", l.Pool, l.ID, l.Threshold)
	}
	return fmt.Sprintf("pool %q: lease %d is %s for longer than %v: a leak", l.Pool, l.ID, l.Class, l.Threshold)
}

// cure says what to look for.
func (l Leak) cure() string {
	var s string
	switch {
	case l.Returned && l.Class == ClassBusy:
		return "it was a slow call; make it shorter, or raise Config.LongCallThreshold"
	case l.Returned:
		return "it is no leak; make the work between acquire and return shorter, or raise Config.LeakThreshold"
	case l.Class == ClassBusy && l.Call == callReset.String():
		return "the connection's reset does not come back, and the acquire waits for it; give its context a deadline"
	case l.Class == ClassBusy:
		return "look at the statement's plan and locks, or give its context a deadline"
	case l.OpenRows > 0 && l.Stack.ofRow():
		s = "call Scan on every *sql.Row, whatever its error: that is what closes it"
	case l.OpenRows > 0:
		s = "close the *sql.Rows on every path: defer rows.Close() right after the error check of the query"
	case l.InTx:
		s = "end the *sql.Tx on every path: defer tx.Rollback() right after BeginTx"
	case l.Unwrapped:
		s = "close the *sql.Conn on every path: defer conn.Close() right after DB.Conn; if it is in use through the driver's own connection, acquire it with sqllease.WithHoldLimit"
	default:
		s = "close the *sql.Conn on every path: defer conn.Close() right after DB.Conn"
	}
	if l.InTx && l.serverEnds > 0 {
		s += fmt.Sprintf("; the server ends an idle transaction after %v", l.serverEnds)
	}
	return s
}

// LogValue is the report as attributes.
func (l Leak) LogValue() slog.Value {
	attrs := []slog.Attr{
		slog.String("pool", l.Pool),
		slog.Uint64("lease", l.ID),
		slog.String("class", l.Class.String()),
		slog.String("site", l.Stack.site()),
		slog.Int("times", l.Times),
		slog.Int("folded", l.Folded),
		slog.Duration("hold", l.Hold),
		slog.Time("acquired", l.Acquired),
		slog.Duration("waited", l.Queue+l.Dial+l.Reset),
		slog.String("doing", l.doing()),
		slog.Bool("in_tx", l.InTx),
		slog.Int("open_rows", l.OpenRows),
		slog.String("cure", l.cure()),
	}
	if !l.Begun.IsZero() {
		attrs = append(attrs, slog.String("call", l.Call), slog.Time("call_begun", l.Begun))
	}
	if l.Statement != "" {
		attrs = append(attrs, slog.String("statement", l.Statement))
	}
	if l.SpanContext.IsValid() {
		attrs = append(attrs,
			slog.String("trace_id", l.SpanContext.TraceID().String()),
			slog.String("span_id", l.SpanContext.SpanID().String()))
	}
	if !l.Returned {
		attrs = append(attrs, slog.String("stack", l.Stack.String()))
	}
	return slog.GroupValue(attrs...)
}
