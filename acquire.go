package sqllease

import (
	"context"
	"database/sql/driver"
	"reflect"
	"sync"
	"sync/atomic"
	"time"

	"go.opentelemetry.io/otel/trace"

	"github.com/sqllease/sqllease/internal/callstack"
	"github.com/sqllease/sqllease/internal/clock"
	"github.com/sqllease/sqllease/internal/gate"
)

// Connect acquires a session for a caller for whom database/sql has no free
// connection: on the caller's goroutine and with its context. See the package
// comment for what the gate does with it. Errors of the driver pass through
// untouched; an acquire that ran out of time fails with an *[AcquireError].
func (c *Connector) Connect(ctx context.Context) (driver.Conn, error) {
	start := clock.Now()
	if ctx == c.poke {
		return &handle{c: c}, nil
	}
	if c.pools.some.Load() {
		c.adopt()
	}
	returned := false
	defer func() {
		if !returned { // a panic: database/sql counts this connection for ever
			c.lose(1)
		}
	}()
	h, err := c.acquire(ctx, nil, start, 1)
	returned = true
	if err == errOnOpener {
		// Nobody waits on this goroutine: database/sql gives the connection to
		// a caller of its own queue, whose first call then acquires.
		c.warnUnseen()
		c.pools.opened.Store(int64(start))
		h = &handle{c: c, pending: true}
		c.gate.Free(&h.ticket)
		return h, nil
	}
	if err != nil {
		return nil, err
	}
	return h, nil
}

// acquire is one acquire on its way through the gate. It is used again once it is over.
type acquire struct {
	claim
	gate.Waiter[session, acquire]
	c        *Connector
	deadline clock.Instant // by Config.AcquireTimeout; zero: none
	before   arrival       // what is known of it from before
	called   bool          // it is that of a first call, which may not be tried again
	parts    parts
	traced   trace.Span // nil: none
	day      time.Time  // the time of day at start, where there is a span
}

// acquire gets a session under a handle that has none, and acquires for its first call, or
// under a new one. skip is the number of the caller's frames that do not matter.
func (c *Connector) acquire(ctx context.Context, h *handle, start clock.Instant, skip int) (*handle, error) {
	a := c.newAcquire()
	c.claim(ctx, &a.claim, start, skip+1)
	if h == nil && a.stack.Stack().On(openerGoroutine) {
		c.acquires.Put(a)
		return nil, errOnOpener
	}
	before := c.arrivals.take(ctx, start)
	a.Prepare(a, before.number)
	a.before, a.called, a.start = before, h != nil, start
	if before.number != 0 {
		a.start = before.start
	}
	if c.cfg.AcquireTimeout > 0 {
		a.deadline = a.start.Add(c.cfg.AcquireTimeout)
	}
	s, err := a.session(ctx)
	if err == nil {
		now := clock.Now()
		if h == nil {
			h = &handle{c: c}
		}
		s.lease.claim = a.claim
		h.lend(s)
		h.ctx, h.tries = idOf(ctx), before.tries
		s.lease.begin(h.number, now, a.parts, h.single)
		c.begun(s)
		h.acquired(ctx, a.parts, now.Sub(a.start))
	}
	*a = acquire{c: a.c, Waiter: a.Waiter} // a panic leaves it to the garbage collector
	c.acquires.Put(a)
	return h, err
}

func (c *Connector) newAcquire() *acquire {
	if a, ok := c.acquires.Get().(*acquire); ok {
		return a
	}
	return &acquire{c: c}
}

// at is the time of day of an instant in it, where there is a span: from one
// reading of the clocks, so that its parts are within it.
func (a *acquire) at(i clock.Instant) time.Time { return a.day.Add(i.Sub(a.start)) }

// session gets a session: from the gate, or by dialling.
func (a *acquire) session(ctx context.Context) (s *session, err error) {
	s, waits, err := a.c.gate.Ask(&a.Waiter, clock.Now())
	if s != nil && a.reset(ctx, s) {
		return s, nil // neither queued nor dialled: no span
	}
	outer := ctx
	ctx = a.startSpan(ctx, waits, err)
	ended := errPanicked
	defer func() { a.c.tracing.endAcquire(a.traced, a.at(clock.Now()), a.parts, ended) }()
	s, err = a.slow(ctx, outer, waits, err)
	ended = err
	return s, err
}

// startSpan starts the span of an acquire that queues, dials or was refused. If
// Config.FilterSpan ends the goroutine, what the acquire has goes on.
func (a *acquire) startSpan(ctx context.Context, waits bool, refused error) (in context.Context) {
	returned := false
	defer func() {
		if !returned {
			a.leave(waits, refused)
		}
	}()
	in, a.traced, a.day = a.c.tracing.startAcquire(ctx, a.start)
	returned = true
	return in
}

// leave gives up an acquire that waits, or has room, unless it was refused.
func (a *acquire) leave(waits bool, refused error) {
	switch {
	case refused != nil:
	case waits:
		if s, _, _ := a.c.gate.GiveUp(&a.Waiter); s != nil {
			_ = a.c.retire(s)
		}
	default:
		a.c.gate.Unreserve()
	}
}

// slow goes on with an acquire that was refused, queued or has to dial.
func (a *acquire) slow(ctx, outer context.Context, waits bool, err error) (*session, error) {
	if err != nil {
		return nil, a.failed(outer, err, 0)
	}
	if waits {
		s, err := a.wait(ctx)
		if err != nil {
			return nil, err
		}
		if s != nil && a.reset(ctx, s) {
			return s, nil
		}
	}
	return a.dial(ctx)
}

// wait waits for a session, or, if it returns none, for room to dial one.
func (a *acquire) wait(ctx context.Context) (*session, error) {
	var over <-chan time.Time
	if !a.deadline.IsZero() {
		t := time.NewTimer(a.deadline.Until())
		defer t.Stop()
		over = t.C
	}
	s, place, err := a.c.gate.Wait(ctx, &a.Waiter, over)
	a.parts.queue = clock.Now().Sub(a.Since())
	a.c.tracing.part(ctx, a.traced, "pool.queue", a.at(a.Since()), a.parts.queue)
	if err == nil {
		return s, nil
	}
	if s != nil {
		_ = a.c.retire(s)
	}
	if err == errSentAway {
		back := a.before
		back.ctx, back.number, back.start = idOf(ctx), a.Number(), a.start
		back.tries++
		a.c.arrivals.keep(back, clock.Now())
		return nil, driver.ErrBadConn
	}
	return nil, a.failed(ctx, err, place)
}

// failed makes the error of an acquire that the gate refused or let go.
func (a *acquire) failed(ctx context.Context, err error, place int) error {
	if err == gate.ErrShut {
		err = ErrClosed
	}
	if err != ErrClosed && err != ErrDeadlock {
		a.c.timeouts.Add(1)
		a.c.metrics.timedOut(ctx)
	}
	e := a.c.gate.describe(clock.Now())
	if place > 0 {
		e.Waiting++ // it has left the queue to say so
	}
	e.Pool, e.Err, e.Position, e.Waited = a.c.cfg.Name, err, place, clock.Now().Sub(a.start)
	a.c.reports.sanitiseHolders(e)
	return e
}

// reset readies a session that another holder left, which database/sql
// believes to be new. If it proves bad it is closed, its room is kept, and the
// caller dials: it has waited long enough. A session whose driver panics is
// closed too.
func (a *acquire) reset(ctx context.Context, s *session) (ready bool) {
	c, start := a.c, clock.Now()
	why, unfit := c.gate.Unfit(&s.Session, start)
	if !unfit && a.before.wantsNew() {
		why, unfit = gate.Dropped, true
	}
	if !unfit {
		err := a.resetInTime(ctx, s, start)
		took := clock.Now().Sub(start)
		a.parts.reset += took
		if took >= slowReset {
			a.c.tracing.part(ctx, a.traced, "pool.reset", a.at(start), took)
		}
		if !isBad(err) {
			return true // database/sql takes no notice of other errors here either
		}
		why = gate.Bad
	}
	c.gate.Reject(&s.Session, why)
	c.replace(s)
	return false
}

// resetInTime has the driver reset the session within what is left of the acquire.
func (a *acquire) resetInTime(ctx context.Context, s *session, now clock.Instant) error {
	if !s.needsReset() {
		return nil
	}
	if !a.deadline.IsZero() {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeoutCause(ctx, a.deadline.Sub(now), errOutOfTime)
		defer cancel()
	}
	returned := false
	defer func() {
		if !returned {
			a.c.gate.Reject(&s.Session, gate.Bad)
			a.c.retireAside(s)
		}
	}()
	err := s.reset(ctx)
	returned = true
	return err
}

// A ticket that is refused sends its caller to Connect, by way of database/sql, and
// others may join the queue meanwhile. So the place that the caller would have had is
// kept for its goroutine, as is the time at which it began to wait. And database/sql tries
// three times, the last time on a connection that is new: so it is noted how often it
// was refused, and whether a connection proved bad.

// arrivals are the callers whom database/sql sends on, and who have not come to Connect yet.
type arrivals struct {
	mu    sync.Mutex
	of    map[uint64]arrival // guarded by mu: by goroutine
	count atomic.Int32       // how many there are
}

type arrival struct {
	ctx    contextID
	number uint64        // of its place in the queue; zero: none
	start  clock.Instant // when it came first
	kept   clock.Instant // when it was sent on
	tries  int           // how often it has tried: was refused a ticket, or had a connection that proved bad
	bad    bool          // one did
}

// isLast tells whether this is database/sql's last attempt.
func (a *arrival) isLast() bool {
	const attempts = 3
	return a.tries >= attempts-1
}

// wantsNew tells whether the caller, who has come to Connect, is to have a connection that
// is new: a bare pool would have dialled.
func (a *arrival) wantsNew() bool { return a.bad || a.isLast() }

const (
	longestArrival = time.Second // how long it takes database/sql to come to Connect
	mostArrivals   = 10_000
)

// some tells whether there are any.
func (x *arrivals) some() bool { return x.count.Load() > 0 }

// refused notes that a ticket's caller was refused.
func (x *arrivals) refused(ctx context.Context, g *gate.Gate[session, acquire], now clock.Instant) {
	a := x.take(ctx, now)
	if a.number == 0 {
		a.number, a.start = g.Arrive(), now
	}
	a.tries++
	a.ctx = idOf(ctx)
	x.keep(a, now)
}

// provedBad notes that the connection did which the caller had acquired in that context,
// after so many tries.
func (x *arrivals) provedBad(ctx contextID, tries int, now clock.Instant) {
	x.keep(arrival{ctx: ctx, start: now, tries: tries + 1, bad: true}, now)
}

// keep keeps what is known of the calling goroutine's arrival.
func (x *arrivals) keep(a arrival, now clock.Instant) {
	id := callstack.Goroutine()
	if id == 0 {
		return
	}
	a.kept = now
	x.mu.Lock()
	defer x.mu.Unlock()
	if x.of == nil {
		x.of = map[uint64]arrival{}
	}
	if len(x.of) >= mostArrivals {
		x.pruneLocked(now) // the pulse does so only where a *sql.DB is attached
	}
	if len(x.of) < mostArrivals {
		x.of[id] = a
	}
	x.count.Store(int32(len(x.of)))
}

// take returns what was kept for the calling goroutine and that context. It may have
// gone elsewhere since it was refused: what is old is nothing.
func (x *arrivals) take(ctx context.Context, now clock.Instant) (a arrival) {
	if !x.some() {
		return a
	}
	id := callstack.Goroutine()
	x.mu.Lock()
	defer x.mu.Unlock()
	kept, ok := x.of[id]
	if !ok {
		return a
	}
	delete(x.of, id)
	x.count.Store(int32(len(x.of)))
	if now.Sub(kept.kept) < longestArrival && kept.ctx == idOf(ctx) {
		return kept
	}
	return a
}

// prune lets go of what is old: its caller went elsewhere.
func (x *arrivals) prune(now clock.Instant) {
	if !x.some() {
		return
	}
	x.mu.Lock()
	defer x.mu.Unlock()
	x.pruneLocked(now)
}

func (x *arrivals) pruneLocked(now clock.Instant) {
	for id, a := range x.of {
		if now.Sub(a.kept) >= longestArrival {
			delete(x.of, id)
		}
	}
	x.count.Store(int32(len(x.of)))
}

// contextID tells contexts apart without referring to one: what a context has in it may
// refer to rows, which the garbage collector is to find.
type contextID struct {
	kind reflect.Type
	at   uintptr
}

func idOf(ctx context.Context) contextID {
	v := reflect.ValueOf(ctx)
	if v.Kind() == reflect.Pointer {
		return contextID{v.Type(), v.Pointer()}
	}
	return contextID{kind: v.Type()} // such as that of context.Background
}

// read is the acquire as a report shows it.
func (a *acquire) read(now clock.Instant) Lease {
	day := clock.Clocks()
	return Lease{
		Acquired: a.start.On(day), Hold: now.Sub(a.start), Busy: true, Call: callReset.String(),
		Since: a.start.On(day), SpanContext: a.span, Stack: Stack(a.stack.Stack()),
	}
}
