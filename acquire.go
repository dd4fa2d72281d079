package sqllease

import (
	"cmp"
	"context"
	"database/sql/driver"
	"errors"
	"log/slog"
	"time"

	"go.opentelemetry.io/otel/trace"

	"github.com/sqllease/sqllease/internal/callstack"
	"github.com/sqllease/sqllease/internal/clock"
	"github.com/sqllease/sqllease/internal/drivers"
	"github.com/sqllease/sqllease/internal/gate"
)

// acquire is one acquire on its way through the gate. It is used again once it is over.
type acquire struct {
	claim
	gate.Waiter[session, acquire]
	c        *Connector
	deadline clock.Instant // by Config.AcquireTimeout; zero: none
	before   arrival       // what is known of it from before
	called   bool          // it is that of a first call, which may not be tried again
	away     bool          // it was sent away, and comes back to its place
	again    bool          // it was given a session that came to nothing, and waits again
	full     error         // what its first dial met that the server had no room for; nil: none did
	fullAt   clock.Instant // when that was
	nesting  *nesting      // its goroutine holds a lease already, which has this; nil: it does not
	nests    *session      // which one
	parts    parts
	refusal  *AcquireError // what it failed with, where that is ours; nil: it did not, or what a dial met with is told
	traced   trace.Span    // nil: none
	day      time.Time     // the time of day at start, where there is a span
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

// session gets a session: from the gate, or by dialing.
func (a *acquire) session(ctx context.Context) (s *session, err error) {
	s, waits, err := a.c.gate.Ask(&a.Waiter, clock.Now())
	if s != nil {
		ready := false
		if ready, waits = a.reset(ctx, s); ready {
			return s, nil // neither queued nor dialed: no span
		}
	}
	outer := ctx
	ctx = a.startSpan(ctx, waits, err)
	ended := errPanicked
	defer func() { a.c.tracing.endAcquire(outer, a.traced, a.at(clock.Now()), a.parts, ended, a.away) }()
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
	in, a.traced, a.day = a.c.tracing.startAcquire(ctx, a.lane, a.start)
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
		a.c.gate.Unreserve(a.lane)
	}
}

// slow goes on with an acquire that was refused, queued or has to dial.
func (a *acquire) slow(ctx, outer context.Context, waits bool, err error) (*session, error) {
	if err != nil {
		return nil, a.failed(outer, err, 0)
	}
	for {
		s, err := a.served(ctx, waits)
		if s != nil || err != nil {
			return s, err
		}
		s, err = a.dial(ctx)
		if waits = err != nil && a.waitsOn(ctx, err); !waits {
			return s, err
		}
	}
}

// served waits, where it has to, for a session that proves good, or, if it returns none, for
// room to dial one.
func (a *acquire) served(ctx context.Context, waits bool) (s *session, err error) {
	for waits {
		if s, err = a.wait(ctx); s == nil || err != nil {
			return nil, err
		}
		ready := false
		if ready, waits = a.reset(ctx, s); ready {
			return s, nil
		}
	}
	return nil, nil //nolint:nilnil // room
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
	queued := clock.Now().Sub(a.Since())
	a.parts.queue += queued
	a.c.queue.waited(a, queued)
	a.tellQueue(ctx, queued, s, err)
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
		a.away = true
		a.c.arrivals.keep(back, clock.Now())
		return nil, driver.ErrBadConn
	}
	return nil, a.failed(ctx, err, place)
}

// tellQueue emits the span of the wait. If Config.SpanAttributes ends the goroutine, what the
// wait came to goes on.
func (a *acquire) tellQueue(ctx context.Context, queued time.Duration, s *session, err error) {
	returned := false
	defer func() {
		switch {
		case returned:
		case s != nil && err == nil:
			a.c.gate.Reject(&s.Session, gate.Dropped)
			fallthrough
		case s != nil:
			a.c.retireAside(s)
		case err == nil:
			a.c.gate.Unreserve(a.lane)
		}
	}()
	a.c.tracing.part(ctx, a.traced, "pool.queue", a.at(a.Since()), queued)
	returned = true
}

// failed makes the error of an acquire that the gate refused or let go, or that ended while
// it dialed. The context is the caller's.
func (a *acquire) failed(ctx context.Context, err error, place int) *AcquireError {
	switch err {
	case gate.ErrShut:
		err = ErrClosed
	case gate.ErrOverloaded:
		err = ErrOverloaded
	}
	e := a.c.gate.describe(a.lane, a.c.cfg, clock.Now())
	if place > 0 {
		e.Waiting++ // it has left the queue to say so
	}
	e.Pool, e.Err, e.Position, e.Waited = a.c.cfg.Name, err, place, clock.Now().Sub(a.start)
	e.Queued, e.DialErr = a.parts.queue, a.full
	if err == context.DeadlineExceeded && ctx.Err() == nil && !isOver(ctx) {
		e.Within = a.c.cfg.AcquireTimeout
	}
	a.c.reports.sanitiseHolders(e)
	a.refusal = e
	return e
}

// isOver tells whether the deadline of a context has passed, of which it may not have taken notice.
func isOver(ctx context.Context) bool {
	at, ok := ctx.Deadline()
	return ok && time.Until(at) <= 0
}

// notAcquired counts an acquire that failed.
func (c *Connector) notAcquired(ctx context.Context, a *acquire, err error) {
	if a.away {
		return
	}
	c.countFailed(ctx, &a.claim, a.parts, clock.Now(), whyNot(ctx, err, a.refusal))
}

// countFailed counts one that has failed so.
func (c *Connector) countFailed(ctx context.Context, by *claim, p parts, now clock.Instant, why string) {
	late := why == whyLate || why == whyTooLate
	switch {
	case late:
		c.counts.lanes[by.lane].timeouts.Add(1)
	case why == whyFlood:
		c.counts.lanes[by.lane].refused.Add(1)
	case why == whyCancelled:
		c.counts.givenUp.Add(1)
	}
	c.metrics.notAcquired(ctx, by.lane, p, now.Sub(by.start), why, late)
	c.recorder.failed(by, p, now, why)
}

// whyNot tells why an acquire, or a dial, failed. A driver may say anything of a context
// that has ended: what that says itself counts. Only the acquire's own refusal is ours: a
// driver's connector may ask another pool, and fail with what that says.
func whyNot(ctx context.Context, err error, refusal *AcquireError) string {
	switch ended := ctx.Err(); {
	case refusal != nil && refusal.Err == ErrClosed:
		return whyClosed
	case refusal != nil && refusal.Err == ErrDeadlock:
		return whyDeadlock
	case refusal != nil && refusal.Err == ErrOverloaded:
		return whyFlood
	case err == errPanicked:
		return "panic"
	case ended != nil && errors.Is(ended, context.DeadlineExceeded), refusal == nil && endsNow(ctx, err):
		return whyTooLate
	case ended != nil:
		return whyCancelled
	case refusal != nil && refusal.Within == 0: // it would have been served after its deadline
		return whyTooLate
	case refusal != nil:
		return whyLate
	}
	return cmp.Or(drivers.Failure(err), whyOther)
}

// endsNow tells whether an error is that of the context's deadline.
func endsNow(ctx context.Context, err error) bool {
	at, ok := ctx.Deadline()
	return ok && ranOut(err, time.Until(at))
}

// ranOut tells whether an error is that of a deadline until which so much is left: a driver
// may take notice of it a little before its context does.
func ranOut(err error, left time.Duration) bool {
	const little = time.Millisecond
	return left <= little && drivers.Failure(err) == drivers.TimedOut
}

// reset readies a session that another holder left, which database/sql
// believes to be new. If it proves bad it is closed, its room is kept, and the
// caller dials: it has waited long enough. If it may not dial now, since others do, it
// waits again. A session whose driver panics is closed too.
func (a *acquire) reset(ctx context.Context, s *session) (ready, waits bool) {
	c, start := a.c, clock.Now()
	why, unfit := c.gate.Unfit(&s.Session, start)
	wantsNew := a.before.wantsNew() && !a.again // one good session is the price, and not one after the other
	if !unfit && wantsNew {
		why, unfit = gate.Dropped, true
	}
	if why == gate.Bad || wantsNew {
		s.dies(closedSuspect, "")
	}
	if !unfit {
		err := a.resetInTime(ctx, s, start)
		took := clock.Now().Sub(start)
		a.parts.reset += took
		if !isBad(err) {
			return true, false // database/sql takes no notice of other errors here either
		}
		why = gate.Bad
		c.unreset(ctx, s, err, start)
	}
	c.gate.Reject(&s.Session, why)
	a.again = c.replace(s, &a.Waiter)
	return false, a.again
}

// resetInTime has the driver reset the session within what is left of the acquire.
func (a *acquire) resetInTime(ctx context.Context, s *session, now clock.Instant) error {
	if !s.needsReset() {
		return nil
	}
	outer := ctx
	if !a.deadline.IsZero() {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeoutCause(ctx, a.deadline.Sub(now), errOutOfTime)
		defer cancel()
	}
	returned := false
	defer func() {
		if !returned {
			a.c.dropPanicked(s)
		}
	}()
	err := s.reset(ctx)
	if took := clock.Now().Sub(now); took >= slowReset {
		a.c.tracing.part(outer, a.traced, "pool.reset", a.at(now), took)
	}
	returned = true
	return err
}

// claim makes it that of the caller, skip of whose frames do not matter.
//
//go:noinline
func (c *Connector) claim(ctx context.Context, by *claim, now clock.Instant, skip int) {
	by.start, by.stack, by.span = now, callstack.Capture(skip+1), trace.SpanContextFromContext(ctx)
	by.goroutine, by.limit, by.lane = callstack.Goroutine(), holdLimit(ctx, c.cfg.LeakThreshold), c.laneOf(ctx)
}

// laneOf is the lane of a context. Where no lanes were asked for, nothing is looked up.
func (c *Connector) laneOf(ctx context.Context) gate.LaneID {
	l := c.cfg.lanes
	if l.ids == nil {
		return 0
	}
	name, ok := ctx.Value(laneKey{}).(string)
	if !ok || name == "" {
		return 0
	}
	id, known := l.ids[name]
	if !known && !l.unknown.Swap(true) {
		c.cfg.warnAside("sqllease: WithLane names a lane that Config.Lanes does not have: its callers are in the default lane. "+
			"Add it to Config.Lanes, or correct the name. Other such names are not told",
			slog.String("pool", c.cfg.Name), slog.String("lane", name), slog.Any("lanes", l.names))
	}
	return id
}

// refusedAfter is when what an acquire is given is of no use to it any more; zero where nobody is
// refused for that.
func (a *acquire) refusedAfter(ctx context.Context) clock.Instant {
	if a.c.cfg.lanes.of[a.lane].Target == 0 {
		return 0
	}
	return a.until(ctx)
}
