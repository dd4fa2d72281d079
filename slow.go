package sqllease

import (
	"fmt"
	"log/slog"
	"time"
)

// slowEvery is the time between two warnings of slow acquires.
const slowEvery = time.Minute

func (g *gate) slowAtLocked(at time.Time) {
	g.slowAt = at
	g.armSlow(at)
}

// slow tells how the pool stands if its longest waiter has waited for too long,
// and arms the timer for the next look. With the queue empty there is none.
func (g *gate) slow(now time.Time) *AcquireError {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.slowAt = time.Time{}
	if g.waiters.len == 0 {
		return nil
	}
	since := g.waiters.first.of.since
	if at := since.Add(g.slowAfter); at.After(now) {
		g.slowAtLocked(at)
		return nil
	}
	g.slowAtLocked(now.Add(slowEvery))
	e := g.describeLocked(now)
	e.Waited = now.Sub(since)
	return e
}

// warnSlow explains a pool that runs dry while it happens. It runs on the
// timer's goroutine.
func (c *Connector) warnSlow() {
	e := c.gate.slow(time.Now())
	if e == nil {
		return
	}
	defer c.recovered("warning of slow acquires")
	c.sanitiseHolders(e)
	c.cfg.Logger.Warn(fmt.Sprintf("sqllease: pool %q: callers wait for a connection, the longest for %v: %s, %d waiting%s. "+
		"Give connections back sooner, or raise the limit if the database has room",
		c.cfg.Name, round(e.Waited), e.load(), e.Waiting, e.heldBy()),
		slog.String("pool", c.cfg.Name),
		slog.Duration("longest_wait", e.Waited),
		slog.Int("waiting", e.Waiting),
		slog.Int("in_use", e.InUse),
		slog.Int("limit", e.Limit))
}
