package sqllease

import (
	"context"
	"fmt"
	"log/slog"
	"strings"
	"time"

	"go.opentelemetry.io/otel/codes"
	"go.opentelemetry.io/otel/trace"
)

// Class says why a lease is reported. The classes need different cures.
type Class uint8

const (
	// ClassBusy is a lease with a driver call in flight. It is a slow call, not a leak.
	ClassBusy Class = iota
	// ClassIdleInHand is a lease with nothing in flight. A Tx, Conn or Rows was not closed.
	ClassIdleInHand
)

func (c Class) String() string {
	if c == ClassBusy {
		return "busy"
	}
	return "idle in hand"
}

// Leak is a report of a lease that was held past the threshold: once when it
// passes, and once more when it is returned after all.
type Leak struct {
	Lease
	Pool      string        // name of the pool
	Class     Class         // what kind of trouble it is
	Threshold time.Duration // what it was held past
	Returned  bool          // this is the report of the late return; Hold is final

	serverEnds time.Duration // when the server ends an idle transaction by itself; 0: never
}

// String is the report as people read it, in several lines.
func (l Leak) String() string {
	var b strings.Builder
	fmt.Fprintf(&b, "sqllease: %s\n", l.headline())
	fmt.Fprintf(&b, "  taken by   %s\n", l.Stack.site())
	fmt.Fprintf(&b, "  held       %v, since %s, after waiting %v for it\n",
		round(l.Hold), l.Acquired.Format(time.RFC3339Nano), round(l.Queue+l.Dial+l.Reset))
	fmt.Fprintf(&b, "  doing      %s\n", l.doing())
	if l.Call != "" && !l.Busy {
		fmt.Fprintf(&b, "  last call  %s\n", l.Call)
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

func (l Leak) headline() string {
	switch {
	case l.Returned:
		return fmt.Sprintf("pool %q: lease %d was returned after all, after %v", l.Pool, l.ID, round(l.Hold))
	case l.Class == ClassBusy:
		return fmt.Sprintf("pool %q: lease %d is busy for longer than %v: a slow call, not a leak", l.Pool, l.ID, l.Threshold)
	}
	return fmt.Sprintf("pool %q: lease %d is held for longer than %v, %s: a leak", l.Pool, l.ID, l.Threshold, l.Class)
}

// cure says what to look for.
func (l Leak) cure() string {
	var s string
	switch {
	case l.Returned:
		return "it is no leak; make the work between acquire and return shorter, or raise Config.LeakThreshold"
	case l.Class == ClassBusy && l.Call == callReset.String():
		return "the connection's reset does not come back, and the acquire waits for it; give its context a deadline"
	case l.Class == ClassBusy:
		return "look at the statement's plan and locks, or give its context a deadline"
	case l.OpenRows > 0:
		s = "close the *sql.Rows on every path: defer rows.Close() right after the error check of the query"
	case l.InTx:
		s = "end the *sql.Tx on every path: defer tx.Rollback() right after BeginTx"
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
		slog.Duration("hold", l.Hold),
		slog.Time("acquired", l.Acquired),
		slog.Duration("waited", l.Queue+l.Dial+l.Reset),
		slog.String("doing", l.doing()),
		slog.Bool("in_tx", l.InTx),
		slog.Int("open_rows", l.OpenRows),
		slog.String("cure", l.cure()),
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

// overdue takes the leases that are held past the threshold and were not
// reported yet, and arms the timer for the next one. Leases stand in order of
// acquiring, so that it looks at none but those it returns and one more.
func (g *gate) overdue(now time.Time) (found []Leak) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.watching = false
	for ; g.watched != nil; g.watched = g.watched.next {
		l := g.watched.of
		read := l.read(now)
		if due := g.threshold - read.Hold; due > 0 {
			g.watching = true
			g.armWatch(due)
			return found
		}
		l.reported = true
		leak := Leak{Lease: read, Class: ClassIdleInHand, Threshold: g.threshold}
		if read.Busy {
			leak.Class = ClassBusy
		}
		if s := g.sessionOfLocked(l); s != nil {
			leak.serverEnds = s.life.limits.idleTx
		}
		found = append(found, leak)
	}
	return found
}

// sessionOfLocked is the session a lease is on.
func (g *gate) sessionOfLocked(l *lease) *session {
	if l.handle == nil {
		return nil
	}
	return l.handle.session
}

// watch reports the overdue leases. It runs on the timer's goroutine, armed
// for the deadline of the oldest lease that it has not reported: without
// leases there is no timer, and what it costs does not grow with their number.
func (c *Connector) watch() { c.report(c.gate.overdue(time.Now())) }

// report tells the log, the trace and the metrics, and then the application:
// its function may not return, and must keep none from being seen.
func (c *Connector) report(leaks []Leak) {
	for i := range leaks {
		l := &leaks[i]
		l.Pool = c.cfg.Name
		l.Statement = c.sanitised(l.Statement)
		c.record(*l)
	}
	for _, l := range leaks {
		c.callOnLeak(l)
	}
}

// record tells of one leak what is kept of it.
func (c *Connector) record(l Leak) {
	defer c.recovered("reporting a leak")
	if !l.Returned {
		c.leaks.Add(1)
		c.metrics.leaked(l.Class)
	}
	c.tracing.leaked(l)
	level := slog.LevelWarn
	if l.Returned {
		level = slog.LevelInfo
	}
	ctx := trace.ContextWithSpanContext(context.Background(), l.SpanContext)
	c.cfg.Logger.LogAttrs(ctx, level, "sqllease: "+l.headline(), slog.Any("leak", l))
}

// callOnLeak survives a panic of the application's function.
func (c *Connector) callOnLeak(l Leak) {
	if c.cfg.OnLeak == nil {
		return
	}
	defer func() {
		if v := recover(); v != nil {
			c.cfg.Logger.Error("sqllease: Config.OnLeak panicked; the report itself is not lost", "pool", l.Pool, "lease", l.ID, "panic", v)
		}
	}()
	c.cfg.OnLeak(l)
}

func (c *Connector) sanitised(statement string) string {
	if statement == "" {
		return ""
	}
	return c.summaries.of(statement).sanitised
}

// leaked emits a span from the acquire to now, linked to the trace that took
// the connection.
func (t *tracing) leaked(l Leak) {
	if !t.roots && !l.SpanContext.IsValid() {
		return
	}
	ctx := trace.ContextWithSpanContext(context.Background(), l.SpanContext)
	_, span := t.tracer.Start(ctx, spanLeak, t.acquire,
		trace.WithTimestamp(l.Acquired),
		trace.WithLinks(trace.Link{SpanContext: l.SpanContext}))
	span.SetAttributes(
		keyLease.Int64(int64(l.ID)),
		keyLeakClass.String(l.Class.String()),
		keyHold.Float64(l.Hold.Seconds()),
		keySite.String(l.Stack.site()))
	if !l.Returned {
		span.SetStatus(codes.Error, l.Class.String())
	}
	span.End(trace.WithTimestamp(l.Acquired.Add(l.Hold)))
}
