package sqllease

import (
	"cmp"
	"context"
	"database/sql/driver"
	"errors"
	"time"

	"go.opentelemetry.io/otel/trace"

	"github.com/sqllease/sqllease/internal/bare"
	"github.com/sqllease/sqllease/internal/clock"
	"github.com/sqllease/sqllease/internal/drivers"
	"github.com/sqllease/sqllease/internal/gate"
)

// dial connects a session in the room that the acquire has, which is given
// back if the driver fails or panics.
func (a *acquire) dial(ctx context.Context) (*session, error) {
	start, outer := clock.Now(), ctx
	ctx, span := a.startDial(ctx, start)
	failed := errPanicked
	defer func() {
		a.parts.dial += clock.Now().Sub(start)
		a.c.tracing.endCall(outer, span, failed, false, nil)
	}()
	if until := a.until(ctx); !until.IsZero() && until < start.Add(dialGrace) {
		s, err := a.dialAhead(ctx, outer, start)
		failed = err
		return s, err
	}
	ctx, bound := boundedBy(ctx, a.deadline)
	s, err := a.c.dial(ctx, a.lane)
	failed = err
	if err == nil {
		s.release = bound.keep()
		return s, nil
	}
	late := context.Cause(ctx) == errOutOfTime || !a.deadline.IsZero() && ranOut(err, a.deadline.Until())
	bound.end()
	if late && outer.Err() == nil {
		failed = context.DeadlineExceeded // the driver met with the end of a context, which nobody cancelled
	}
	return nil, a.dialError(outer, err, start, late)
}

// dialError is the error of an acquire whose dial failed; late says that this was since the
// acquire's own time had run out.
func (a *acquire) dialError(ctx context.Context, err error, start clock.Instant, late bool) error {
	switch {
	case ctx.Err() != nil:
		return a.endedInDial(ctx, ctx.Err(), err, start)
	case late:
		return a.endedInDial(ctx, context.DeadlineExceeded, err, start)
	}
	return err
}

// endedInDial makes the error of an acquire that ended while it dialed. Two things that the
// driver may say are kept from its caller: that the connection is bad, since database/sql
// would try again, with as much time; and that it was cancelled, where nobody but
// Config.AcquireTimeout did so.
func (a *acquire) endedInDial(ctx context.Context, why, said error, start clock.Instant) error {
	e := a.failed(ctx, why, 0)
	e.Dial, e.Server = clock.Now().Sub(start), a.c.cfg.endpoint.String()
	if !isBad(said) && said != why && (why == context.Canceled || !errors.Is(said, context.Canceled)) {
		e.DialErr = said
	}
	return e
}

// startDial starts its span. If Config.SpanAttributes ends the goroutine, the room is given
// back.
func (a *acquire) startDial(ctx context.Context, start clock.Instant) (in context.Context, span trace.Span) {
	returned := false
	defer func() {
		if !returned {
			a.c.gate.Unreserve(a.lane)
		}
	}()
	in, span = a.c.tracing.startDial(ctx, a.traced, a.at(start))
	returned = true
	return in, span
}

// dialBound bounds the context of a dial. A driver may use the context that its Connect
// was given for as long as the connection lives, as it may that of the caller: so once
// the dial has succeeded it is not ended before the connection is closed.
type dialBound struct {
	context.Context
	deadline time.Time
	cancel   context.CancelCauseFunc // nil: there is no bound
	timer    *time.Timer
}

// boundedBy is a context that ends at a deadline, zero for none, unless kept.
func boundedBy(ctx context.Context, deadline clock.Instant) (context.Context, *dialBound) {
	if deadline.IsZero() {
		return ctx, &dialBound{}
	}
	inner, cancel := context.WithCancelCause(ctx)
	b := &dialBound{Context: inner, deadline: deadline.Time(), cancel: cancel}
	b.timer = time.AfterFunc(deadline.Until(), func() { cancel(errOutOfTime) })
	return b, b
}

// Deadline is the earlier one.
func (b *dialBound) Deadline() (time.Time, bool) {
	if at, ok := b.Context.Deadline(); ok && at.Before(b.deadline) {
		return at, true
	}
	return b.deadline, true
}

// keep lifts the bound, and returns what ends the context; nil where there was none.
func (b *dialBound) keep() context.CancelFunc {
	if b.cancel == nil {
		return nil
	}
	b.timer.Stop()
	return func() { b.cancel(nil) }
}

func (b *dialBound) end() {
	if b.cancel != nil {
		b.timer.Stop()
		b.cancel(nil)
	}
}

// dial connects a session in room that was reserved for a lane: it is held by the caller.
func (c *Connector) dial(ctx context.Context, lane gate.LaneID) (s *session, err error) {
	start := clock.Now()
	defer func() {
		c.metrics.begin() // what the server is has been said, if ever
		if s == nil {
			c.dialFailed(ctx, lane, cmp.Or(err, errPanicked), clock.Now().Sub(start))
		}
	}()
	number := c.counts.dials.Add(1)
	conn, flushes, err := c.connectUnflushed(ctx)
	if err != nil {
		return nil, c.explained(err)
	}
	own, err := c.numberOf(ctx, conn)
	if err != nil {
		return nil, err
	}
	now := clock.Now()
	n := &session{conn: conn, can: bare.CapabilitiesOf(conn)}
	n.lease.cfg, n.lease.number, n.lease.connection = c.cfg, number, own
	n.statements.texts = &c.texts
	n.life = newLifetime(now, c.asking.limits(), c.cfg)
	n.life.idleWithin(c.learnedIdle(now))
	c.recognise(drivers.SystemOfConn(conn))
	life := n.life.bounds(c.cfg.LifetimeJitter)
	life.Pings = n.can.Pinger != nil
	c.gate.Dialed(n, &n.Session, life, lane, now)
	if c.counts.flushes.Load() != flushes { // one came too late for Connect, and maybe too early for the gate
		c.gate.End(&n.Session, now)
	}
	c.metrics.dialed(ctx, now.Sub(start))
	c.recorder.happened(event{kind: EventDialed, took: now.Sub(start), session: number, server: own})
	return n, nil
}

// connectUnflushed dials again where a Flush came meanwhile: what was dialed before it is not
// wanted any more. It tells how many there had been.
func (c *Connector) connectUnflushed(ctx context.Context) (conn driver.Conn, flushes uint64, err error) {
	for {
		flushes = c.counts.flushes.Load()
		conn, err = c.inner.Connect(ctx)
		if err != nil || c.counts.flushes.Load() == flushes {
			return conn, flushes, err
		}
		_ = conn.Close()
	}
}

// dialFailed counts a dial that failed, and gives its room back.
func (c *Connector) dialFailed(ctx context.Context, lane gate.LaneID, err error, took time.Duration) {
	c.counts.dialErrors.Add(1)
	why := whyNot(ctx, err, nil)
	switch {
	case context.Cause(ctx) == errOutOfTime, why == whyTooLate:
		why = drivers.TimedOut
	case why == whyCancelled:
		why = drivers.Cancelled
	}
	c.metrics.dialFailed(ctx, why)
	c.recorder.happened(event{kind: EventDialFailed, took: took, why: why})
	switch {
	case isFull(err):
		c.gate.Full(why, lane)
	case blames(ctx, err, took):
		c.gate.Failed(why, lane)
	default:
		c.gate.Unreserve(lane)
	}
	c.refill() // it was on its way
}
