package sqllease

import (
	"fmt"
	"log/slog"
	"time"

	"github.com/sqllease/sqllease/internal/clock"
)

// While somebody waits for longer than stallAfter, the queue is looked at once
// in that time: for callers who wait for too long, for requests that hold a
// connection meanwhile, and for a deadlock.
const stallAfter = time.Second

// slowEvery is the time between two warnings of slow acquires.
const slowEvery = time.Minute

// queue looks after the gate's queue. Its fields are guarded by the gate's lock.
type queue struct {
	timer        timer
	at           clock.Instant          // what the timer is armed for; zero: it is not
	slowTold     clock.Instant          // when slow acquires were last warned of
	nestings     map[[2]uint64]struct{} // the places of nested acquires that were reported
	nestedNext   clock.Instant          // when to look for another
	deadlocked   bool                   // the last look at the queue found a deadlock
	deadlockTold clock.Instant          // when one was last reported
	nested       uint64                 // how many of these there were
	deadlocks    uint64                 // likewise
}

// joined notes that a caller joins the queue. It is called with the gate's lock held.
func (c *Connector) joined(a *acquire) {
	now := a.Since()
	c.nestedLocked(a, now)
	if c.queue.at.IsZero() {
		c.queueAtLocked(now.Add(stallAfter))
	}
}

// queueAtLocked arms the timer for the next look at the queue.
func (c *Connector) queueAtLocked(at clock.Instant) {
	c.queue.at = at
	c.queue.timer.at(at, c.lookAtQueue)
}

// queueFindings are what one look at the queue has found; nil: nothing of the kind.
type queueFindings struct {
	slow     *AcquireError
	nestings []*nesting
	deadlock *deadlock
}

// findInQueue looks at the queue, and arms the timer for the next look. With the
// queue empty there is none.
func (c *Connector) findInQueue(now clock.Instant) (f queueFindings) {
	c.gate.Look(func() {
		c.queue.at = 0
		since := c.gate.FirstWaiterLocked()
		if since.IsZero() {
			c.queue.deadlocked = false
			return
		}
		if at := since.Add(stallAfter); at > now {
			c.queueAtLocked(at)
			return
		}
		c.queueAtLocked(now.Add(stallAfter))
		f.slow = c.slowLocked(since, now)
		idle, all := c.stalledLocked(now)
		f.nestings = c.nestedTracesLocked(idle, now)
		f.deadlock = c.deadlockLocked(idle, all, now)
	})
	return f
}

// slowLocked tells how the pool stands if its longest waiter has waited for
// too long, and nobody was told lately.
func (c *Connector) slowLocked(since, now clock.Instant) *AcquireError {
	q, after := &c.queue, c.cfg.SlowAcquireThreshold
	if after <= 0 || now.Sub(since) < after || (!q.slowTold.IsZero() && now.Sub(q.slowTold) < slowEvery) {
		return nil
	}
	q.slowTold = now
	e := c.describeLocked(now)
	e.Waited = now.Sub(since)
	return e
}

// stalledLocked returns the sessions on whose lease nothing was done for stallAfter, and
// whether these are all that are held.
func (c *Connector) stalledLocked(now clock.Instant) (idle []*session, all bool) {
	all = true
	c.gate.EachHeldLocked(func(s *session) bool {
		l := &s.lease
		if !l.isOn() {
			all = false
			return true
		}
		if busy, since := l.state(now); !busy && !l.raw && now.Sub(since) >= stallAfter {
			idle = append(idle, s)
		} else {
			all = false
		}
		return true
	})
	return idle, all
}

// lookAtQueue tells what a look at the queue has found. It runs on the timer's
// goroutine.
func (c *Connector) lookAtQueue() {
	f := c.findInQueue(clock.Now())
	if f.slow != nil {
		defer c.warnSlow(f.slow)
	}
	defer each(f.nestings, c.reportNesting)
	if f.deadlock != nil {
		c.reportDeadlock(f.deadlock)
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
