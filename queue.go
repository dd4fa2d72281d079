package sqllease

import (
	"fmt"
	"log/slog"
	"time"
)

// While somebody waits for longer than stallAfter, the queue is looked at once
// in that time: for callers who wait for too long, for requests that hold a
// connection meanwhile, and for a deadlock.
const stallAfter = time.Second

// slowEvery is the time between two warnings of slow acquires.
const slowEvery = time.Minute

// queueAtLocked arms the timer for the next look at the queue.
func (g *gate) queueAtLocked(at instant) {
	g.queueAt = at
	g.armQueue(at)
}

// queueFindings are what one look at the queue has found; nil: nothing of the kind.
type queueFindings struct {
	slow     *AcquireError
	nestings []*nesting
	deadlock *deadlock
}

// look looks at the queue, and arms the timer for the next look. With the queue
// empty there is none.
func (g *gate) look(now instant) (f queueFindings) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.queueAt = 0
	if g.waiters.len == 0 {
		g.deadlocked = false
		return f
	}
	since := g.waiters.first.of.since
	if at := since.Add(stallAfter); at > now {
		g.queueAtLocked(at)
		return f
	}
	g.queueAtLocked(now.Add(stallAfter))
	f.slow = g.slowLocked(since, now)
	idle := g.stalledLocked(now)
	f.nestings = g.nestedTracesLocked(idle, now)
	f.deadlock = g.deadlockLocked(idle, now)
	return f
}

// slowLocked tells how the pool stands if its longest waiter has waited for
// too long, and nobody was told lately.
func (g *gate) slowLocked(since, now instant) *AcquireError {
	if g.slowAfter <= 0 || now.Sub(since) < g.slowAfter || (!g.slowTold.IsZero() && now.Sub(g.slowTold) < slowEvery) {
		return nil
	}
	g.slowTold = now
	e := g.describeLocked(now)
	e.Waited = now.Sub(since)
	return e
}

// stalledLocked returns the leases that nothing was done with for stallAfter.
func (g *gate) stalledLocked(now instant) (idle []*lease) {
	g.leases.each(func(l *lease) bool {
		if busy, since := l.state(now); !busy && !l.raw && now.Sub(since) >= stallAfter {
			idle = append(idle, l)
		}
		return true
	})
	return idle
}

// lookAtQueue tells what a look at the queue has found. It runs on the timer's
// goroutine.
func (c *Connector) lookAtQueue() {
	f := c.gate.look(clock())
	if f.deadlock != nil {
		c.reportDeadlock(f.deadlock)
	}
	for _, n := range f.nestings {
		c.reportNesting(n)
	}
	if f.slow != nil {
		c.warnSlow(f.slow)
	}
}

// warnSlow explains a pool that runs dry while it happens.
func (c *Connector) warnSlow(e *AcquireError) {
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
