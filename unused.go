package sqllease

import (
	"cmp"
	"time"

	"github.com/sqllease/sqllease/internal/clock"
)

// A connection that is checked out is unused from the end of a call to the beginning of the
// next, and between two rows. Calls read the clock anyway. To read it for each row would be
// felt where rows come fast, so it is read as often as takes a hundredth of the time of the
// query: for each row, unless the server answers within microseconds. What was between two
// rows is not known then, and counts as used. So the time that is told is never too long.

// rest is for how long a lease was checked out but unused, as far as that is known.
type rest struct {
	all, longest time.Duration // together, and at a time
}

// rested notes that the lease is used again, which has come so far in reading rows.
func (l *lease) rested(step uint64, now clock.Instant) {
	var since clock.Instant
	switch step {
	case l.settled:
		since = cmp.Or(l.since, l.acquired)
	case l.stamped.Load():
		since = clock.Instant(l.readAt.Load())
	default:
		return // a row was read, at a time that nobody has noted
	}
	took := now.Sub(since)
	l.rest.all += took
	l.rest.longest = max(l.rest.longest, took)
}

// stampBegin notes the time at which a row begins to be read, or what is left of them.
func (l *lease) stampBegin() {
	now, step := clock.Now(), l.steps()
	l.rested(step-1, now)
	l.stampAt(step, now)
}

// endedUnused counts for how long a lease that ends was unused. Its caller holds the session.
func (c *Connector) endedUnused(l *lease, now clock.Instant) {
	if l.acquired.IsZero() || l.raw { // what the application does with the driver's own connection is not known
		return
	}
	if l.inCall == callNone { // else it is in the only one that it has, or in one that never ended
		l.rested(l.steps(), now)
	}
	if l.rest.all >= leastUnused {
		c.places.count(l.stack, now.Sub(l.acquired), l.rest)
	}
}

// takenUnused does so of one whose session was taken from it. The holder may come late to
// close rows.
func (c *Connector) takenUnused(l *lease, now clock.Instant) {
	l.mu.Lock()
	defer l.mu.Unlock()
	c.endedUnused(l, now)
}

// leastUnused is how long a lease has to be unused to be counted: less is the way through
// database/sql, and the telemetry.
const leastUnused = 10 * time.Microsecond

const (
	worthTiming = 4 * time.Microsecond // of the query, for each row whose times are noted
	seldom      = 64                   // rows from one whose times are noted to the next, where they come faster
)

// timed notes that the times of a row were noted, which ended now, and decides of which row
// they are noted next.
func (r *rows) timed(now clock.Instant) {
	r.timings++
	r.timeNext = r.read
	if now.Sub(r.op.begun) < time.Duration(r.timings)*worthTiming {
		r.timeNext += seldom
	}
}
