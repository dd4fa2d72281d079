package sqllease

import (
	"fmt"
	"log/slog"
	"strings"
	"sync"
	"time"
)

// Class says why a lease is reported. The classes need different fixes.
type Class uint8

const (
	// ClassBusy is a lease with a driver call in flight. It is a slow call, not a leak.
	ClassBusy Class = iota
	// ClassUnused is a lease that is checked out but unused: a Tx, Conn or Rows was not closed.
	ClassUnused
	// ClassProven is a lease with Rows that were not closed and that nothing
	// refers to any more, so that nobody can close them. It has no threshold.
	ClassProven
	classes
)

var classNames = [classes]string{"busy", "unused", "proven"}

func (c Class) String() string { return classNames[c] }

// Leak is a report of a lease that was held past the threshold: once when it
// passes, and once more when it is returned after all.
type Leak struct {
	Lease
	Pool      string        // name of the pool
	Class     Class         // what kind of trouble it is
	Threshold time.Duration // what it was held past; 0: it is proven
	Returned  bool          // this is the report of the late return; Hold is final
	ByContext bool          // it came back because its context ended: database/sql closed it, and not your code
	Reclaimed bool          // its session was taken away, by proof or by Config.ReclaimAfter; Hold is final
	Times     int           // how many reports of this kind there were of leases taken at this place (by this very stack), this one included
	Folded    int           // how many of them, since the last one that was logged, were not: the log has one a minute for each place
	HeldHere  int           // how many connections that were taken at this place are checked out now, whether reported or not

	serverEnds time.Duration // when the server ends an idle transaction by itself; 0: never
	told       bool          // the lease was reported as leaked before
	blame      blame         // of a slow call
	reporting  *reporting    // of its lease
}

// reporting is how far the reports of a lease are. That of its return waits for the others.
type reporting struct {
	recorded sync.WaitGroup // those that are on their way into the log, the trace and the metrics
	told     sync.WaitGroup // those from whose function the application has not returned
}

// String is the report as people read it, in several lines.
func (l Leak) String() string {
	var b strings.Builder
	fmt.Fprintf(&b, "sqllease: %s\n", l.headline())
	fmt.Fprintf(&b, "  taken by   %s\n", l.Stack.site())
	for _, g := range l.Now {
		fmt.Fprintf(&b, "  now        %s\n", g)
	}
	if l.Times > 1 || l.HeldHere > 1 {
		fmt.Fprintf(&b, "  place      holds %s now; %s so far, at most one a minute in the log\n",
			plural(l.HeldHere, "connection"), plural(l.Times, "report"))
	}
	fmt.Fprintf(&b, "  held       %v, since %s, after waiting %v for it\n",
		round(l.Hold), l.Acquired.Format("2006-01-02T15:04:05.000Z07:00"), round(l.Queue+l.Dial+l.Reset))
	if !l.Returned {
		fmt.Fprintf(&b, "  doing      %s\n", l.doing())
	}
	if l.Call != "" && !l.Busy {
		fmt.Fprintf(&b, "  last call  %s, begun %v ago\n", l.Call, round(l.Acquired.Add(l.Hold).Sub(l.Begun)))
	}
	if l.Statement != "" {
		fmt.Fprintf(&b, "  statement  %s\n", shorten(l.Statement))
	}
	if l.SpanContext.IsValid() {
		fmt.Fprintf(&b, "  trace      %s span %s\n", l.SpanContext.TraceID(), l.SpanContext.SpanID())
	}
	if l.ConnectionID != 0 {
		fmt.Fprintf(&b, "  server     connection %d\n", l.ConnectionID)
	}
	l.blame.write(&b, l.ConnectionID)
	fmt.Fprintf(&b, "  fix        %s\n", l.Fix())
	if !l.Returned {
		fmt.Fprintf(&b, "  stack\n")
		indent(&b, l.Stack.String())
	}
	for _, g := range l.Now {
		if g.Stack != "" {
			fmt.Fprintf(&b, "  stack of goroutine %d now\n", g.Number)
			indent(&b, g.Stack)
		}
	}
	return b.String()
}

func indent(b *strings.Builder, lines string) {
	for line := range strings.Lines(lines) {
		b.WriteString("    " + line)
	}
}

// message is what kind of report it is: the text of its log record, which is the same for
// all of its kind, so that they can be grouped.
func (l Leak) message() string {
	switch {
	case l.Returned:
		return "a reported connection came back"
	case l.Class == ClassProven && l.Reclaimed:
		return "leaked connection, proven: nothing refers to its unclosed rows any more; sqllease has closed it, and its place in the pool is free again"
	case l.Class == ClassProven:
		return "leaked connection, proven: nothing refers to its unclosed rows any more, and their *sql.Conn cannot be closed before them"
	case l.Reclaimed:
		return "leaked connection taken back after Config.ReclaimAfter: sqllease has closed it"
	case l.Class == ClassBusy:
		return "slow call: one call takes longer than Config.SlowCallThreshold; this is not a leak"
	}
	return "leaked connection: checked out but unused for longer than Config.LeakThreshold"
}

func (l Leak) headline() string {
	return fmt.Sprintf("pool %q: %s (lease %d)", l.Pool, l.happened(), l.ID)
}

// happened is the message of this report, with its figures.
func (l Leak) happened() string {
	switch {
	case l.Returned && l.ByContext:
		return fmt.Sprintf("a reported connection came back after %v, because its context ended", round(l.Hold))
	case l.Returned:
		return fmt.Sprintf("a reported connection came back after %v", round(l.Hold))
	case l.Class == ClassProven:
		return l.message()
	case l.Reclaimed:
		return fmt.Sprintf("leaked connection taken back after %v: sqllease has closed it", round(l.Hold))
	case l.Class == ClassBusy:
		return fmt.Sprintf("slow call: one call takes longer than %v; this is not a leak", l.Threshold)
	}
	return fmt.Sprintf("leaked connection: checked out but unused for longer than %v", l.Threshold)
}

// noteOneAMinute is for a place that holds more connections than this record is of.
const noteOneAMinute = "the next report of this place is in the log after a minute at the earliest; Config.OnLeak gets every report"

// recordedTexts are those that a recording has of the report.
func (l *Leak) recordedTexts() (found, fix string) {
	found = l.Stack.site() + ": " + l.doing()
	if texts := l.blame.texts(); len(texts) > 0 {
		found += "; blocked by " + strings.Join(texts, ", which waits for ")
	}
	return found, l.Fix()
}

// LogValue is the report as attributes, what matters most first.
func (l Leak) LogValue() slog.Value {
	return slog.GroupValue(append([]slog.Attr{slog.String("pool", l.Pool)}, l.attrs()...)...)
}

// attrs are those of a record that has the pool already.
func (l Leak) attrs() []slog.Attr {
	attrs := []slog.Attr{slog.String("site", l.Stack.site())}
	if !l.Returned {
		attrs = append(attrs, slog.String("doing", l.doing()))
	}
	attrs = append(attrs, l.nowAttrs()...)
	attrs = append(attrs,
		slog.String("fix", l.Fix()),
		slog.Duration("hold", round(l.Hold)),
		slog.Time("acquired", l.Acquired),
		slog.Duration("waited", round(l.Queue+l.Dial+l.Reset)))
	if l.Statement != "" {
		attrs = append(attrs, slog.String("statement", l.Statement))
	}
	if !l.Begun.IsZero() {
		attrs = append(attrs, slog.String("call", string(l.Call)), slog.Time("call_begun", l.Begun))
	}
	attrs = append(attrs,
		slog.String("class", l.Class.String()),
		slog.Uint64("lease", l.ID),
		slog.Int("times", l.Times),
		slog.Int("folded", l.Folded),
		slog.Int("held_here", l.HeldHere),
		slog.Bool("in_tx", l.InTx),
		slog.Int("open_rows", l.OpenRows))
	if l.SpanContext.IsValid() {
		attrs = append(attrs,
			slog.String("trace_id", l.SpanContext.TraceID().String()),
			slog.String("span_id", l.SpanContext.SpanID().String()))
	}
	if l.ConnectionID != 0 {
		attrs = append(attrs, slog.Uint64("connection_id", l.ConnectionID))
	}
	attrs = append(attrs, l.blame.attrs()...)
	if l.HeldHere > 1 && !l.Returned {
		attrs = append(attrs, slog.String("note", noteOneAMinute))
	}
	if !l.Returned {
		attrs = append(attrs, slog.String("stack", l.Stack.Line()))
	}
	return append(attrs, l.nowStackAttrs()...)
}
