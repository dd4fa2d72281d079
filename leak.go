package sqllease

import (
	"container/heap"
	"context"
	"fmt"
	"log/slog"
	"strings"
	"sync"
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
	Reclaimed bool          // its session was taken away, by Config.ReclaimAfter; Hold is final
	Times     int           // how many reports of this kind there were of leases taken at this very place, this one included
	Folded    int           // how many of them, since the last one that was logged, were not

	serverEnds time.Duration // when the server ends an idle transaction by itself; 0: never
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

// looks are leases by when the watch looks at them: those with a limit of
// their own, and those that were not overdue when their turn came, since they
// had been used.
type looks []*lease

func (q looks) Len() int           { return len(q) }
func (q looks) Less(i, j int) bool { return q[i].look.Before(q[j].look) }

// Swap is of heap.Interface, as are the next two.
func (q looks) Swap(i, j int) {
	q[i], q[j] = q[j], q[i]
	q[i].inLook, q[j].inLook = i+1, j+1
}

// Push appends.
func (q *looks) Push(x any) {
	l := x.(*lease)
	*q = append(*q, l)
	l.inLook = len(*q)
}

// Pop takes the last.
func (q *looks) Pop() any {
	last := len(*q) - 1
	l := (*q)[last]
	(*q)[last] = nil
	*q = (*q)[:last]
	l.inLook = 0
	return l
}

// lookLocked makes the watch look at a lease at that time.
func (g *gate) lookLocked(l *lease, at time.Time) {
	l.look = at
	heap.Push(&g.looks, l)
}

func (g *gate) unlookLocked(l *lease) {
	if l.inLook > 0 {
		heap.Remove(&g.looks, l.inLook-1)
	}
}

// watchAtLocked makes sure that the watch's timer fires at that time, or
// earlier.
func (g *gate) watchAtLocked(at time.Time) {
	if g.watching.IsZero() || at.Before(g.watching) {
		g.watching = at
		g.armWatch(at)
	}
}

// overdue returns what there is to report, and arms the timer for the next
// look. Leases stand in order of acquiring, and looks in order of time, so that
// it looks at none but those whose time has come, and one more of each.
//
// The sessions it has reclaimed are for the caller to close.
func (g *gate) overdue(now time.Time) (found []Leak, reclaimed []*session) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.watching = time.Time{}
	for ; g.watched != nil; g.watched = g.watched.next {
		l := g.watched.of
		if l.limit != g.threshold {
			continue // it is among the looks, or has no limit
		}
		if at := l.heldSince().Add(l.limit); at.After(now) {
			g.watchAtLocked(at)
			break
		}
		g.judgeLocked(l, now, &found)
	}
	for len(g.looks) > 0 && !g.looks[0].look.After(now) {
		if s := g.judgeLocked(heap.Pop(&g.looks).(*lease), now, &found); s != nil {
			reclaimed = append(reclaimed, s)
		}
	}
	if len(g.looks) > 0 {
		g.watchAtLocked(g.looks[0].look)
	}
	return found, reclaimed
}

// judgeLocked looks at a lease: it appends what there is to report, and has it
// looked at again if there may be more. It returns the session if it has
// reclaimed it.
func (g *gate) judgeLocked(l *lease, now time.Time, found *[]Leak) *session {
	busy, since := l.state()
	if l.readSinceLocked() {
		since = now
	}
	if g.reclaimAfter > 0 && l.told.idle && !busy && now.Sub(since) >= g.reclaimAfter {
		return g.reclaimLocked(l, now, found)
	}
	class, report, again := judge(busy, now.Sub(since), l.limit, g.longCall, l.told)
	if class == ClassIdleInHand && g.reclaimAfter > 0 && (report || l.told.idle) {
		again = max(g.reclaimAfter-now.Sub(since), time.Millisecond)
	}
	if again > 0 {
		g.lookLocked(l, now.Add(again))
	}
	if !report {
		return nil
	}
	leak := Leak{Lease: l.read(now), Class: class, Threshold: l.limit}
	if class == ClassBusy {
		l.told.busy, leak.Threshold = true, g.longCall
	} else {
		l.told.idle = true
	}
	if s := g.sessionOfLocked(l); s != nil {
		leak.serverEnds = s.life.limits.idleTx
	}
	*found = append(*found, leak)
	return nil
}

// reclaimLocked takes the session from a lease that is idle in hand. Its holder
// may begin a call at this very moment: who changes lease.hand first has the
// session. The holder finds out at its next call.
func (g *gate) reclaimLocked(l *lease, now time.Time, found *[]Leak) *session {
	s := g.sessionOfLocked(l)
	if s == nil || l.raw || !l.hand.CompareAndSwap(inHand, taken) {
		g.lookLocked(l, now.Add(g.reclaimAfter))
		return nil
	}
	*found = append(*found, Leak{Lease: l.read(now), Class: ClassIdleInHand, Threshold: g.reclaimAfter, Reclaimed: true})
	g.endLocked(l)
	s.leaveHandle(atCloser)
	s.reason = closedReclaimed
	return s
}

// reclaimed is the error of a call that comes too late.
func (c *Connector) reclaimed(h *handle) error {
	c.gate.mu.Lock()
	l := h.lease.read(time.Now())
	c.gate.mu.Unlock()
	l.Statement = c.sanitised(l.Statement)
	return &ReclaimedError{Pool: c.cfg.Name, After: c.cfg.ReclaimAfter, Lease: l}
}

// judge tells whether a lease that has been in a call, or idle in hand, for
// that long is to be reported, and after what time to look again; zero: never.
func judge(busy bool, lasts, limit, longCall time.Duration, told told) (class Class, report bool, again time.Duration) {
	switch {
	case !busy && told.idle:
		return ClassIdleInHand, false, 0
	case !busy && lasts >= limit:
		return ClassIdleInHand, true, 0
	case !busy:
		return ClassIdleInHand, false, limit - lasts
	case told.busy || longCall < 0:
		return ClassBusy, false, limit
	case lasts >= longCall:
		return ClassBusy, true, limit
	}
	return ClassBusy, false, min(limit, longCall-lasts)
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
func (c *Connector) watch() {
	leaks, reclaimed := c.gate.overdue(time.Now())
	for _, s := range reclaimed {
		c.retireAside(s)
	}
	for _, l := range leaks {
		if l.Reclaimed {
			c.metrics.held(l.Hold)
		}
	}
	c.report(leaks)
}

// report tells the log, the trace and the metrics, and then the application:
// its function may not return, and must keep none from being seen.
func (c *Connector) report(leaks []Leak) {
	for i := range leaks {
		l := &leaks[i]
		l.Pool = c.cfg.Name
		l.Statement = c.sanitised(l.Statement)
		c.record(l)
	}
	for _, l := range leaks {
		c.callOnLeak(l)
	}
}

// record tells of one leak what is kept of it.
func (c *Connector) record(l *Leak) {
	defer c.recovered("reporting a leak")
	if !l.Returned && !l.Reclaimed {
		c.leaks.Add(1)
		if l.Class == ClassBusy {
			c.longCalls.Add(1)
		}
		c.metrics.leaked(l.Class)
	}
	if !c.sites.note(l, time.Now()) {
		return
	}
	c.tracing.leaked(*l)
	level := slog.LevelWarn
	if l.Returned {
		level = slog.LevelInfo
	}
	ctx := trace.ContextWithSpanContext(context.Background(), l.SpanContext)
	c.cfg.Logger.LogAttrs(ctx, level, "sqllease: "+l.headline(), slog.Any("leak", *l))
}

// sites count the reports by the place that took the lease, so that a place
// which leaks under load fills neither the log nor the trace.
type sites struct {
	mu    sync.Mutex
	known map[site]*siteReports // guarded by mu
}

// site is a place, and what is reported of it.
type site struct {
	stack    [stackDepth]uintptr
	class    Class
	returned bool
	taken    bool
}

type siteReports struct {
	times, folded int
	told          time.Time
}

const (
	mostSites = 256         // places remembered
	foldFor   = time.Minute // between two records of one place
)

// note counts a report, and tells whether it is to be logged.
func (s *sites) note(l *Leak, now time.Time) (tell bool) {
	key := site{class: l.Class, returned: l.Returned, taken: l.Reclaimed}
	copy(key.stack[:], l.Stack)
	s.mu.Lock()
	defer s.mu.Unlock()
	r := s.known[key]
	if r == nil {
		if s.known == nil || len(s.known) >= mostSites {
			s.known = make(map[site]*siteReports) // starting over is cheap, and bounded
		}
		r = &siteReports{}
		s.known[key] = r
	}
	r.times++
	l.Times, l.Folded = r.times, r.folded
	if r.times > 1 && now.Sub(r.told) < foldFor {
		r.folded++
		return false
	}
	r.told, r.folded = now, 0
	return true
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
