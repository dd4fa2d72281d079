package sqllease

import (
	"context"
	"database/sql/driver"

	"github.com/sqllease/sqllease/internal/clock"
)

// Connect gets a connection for a caller for whom database/sql has no free one. It is
// called by database/sql, on the caller's goroutine and with its context. It returns the
// driver's errors as they are, but for a *[ServerFullError] around that of a server without
// room, and an *[AcquireError] if time runs out.
func (c *Connector) Connect(ctx context.Context) (driver.Conn, error) {
	start := clock.Now()
	if ctx == c.poke {
		return &handle{c: c}, nil
	}
	if c.pools.some.Load() {
		c.adopt()
	} else {
		c.warnUnattached()
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
	a.before, a.called, a.start = before, h != nil, start
	if before.number != 0 {
		a.start = before.start
	}
	if c.cfg.AcquireTimeout > 0 {
		a.deadline = a.start.Add(c.cfg.AcquireTimeout)
	}
	a.Prepare(a, before.number, a.lane, a.refusedAfter(ctx))
	s, err := a.session(ctx)
	if err != nil {
		c.notAcquired(ctx, a, err)
	} else {
		now := clock.Now()
		if h == nil {
			h = &handle{c: c}
		}
		s.lease.claim = a.claim
		h.lend(s)
		if !a.span.IsValid() {
			h.waited = a.traced
		}
		h.ctx, h.tries = idOf(ctx), before.tries
		s.lease.begin(h.number, now, a.parts, h.single)
		c.begun(s)
		h.acquired(ctx, a.parts, now.Sub(a.start), (*handle).discard) // Connect tells that it is lost
	}
	*a = acquire{c: a.c, Waiter: a.Waiter} // a panic leaves it to the garbage collector
	c.acquires.Put(a)
	return h, err
}
