package gate

import (
	"context"
	"time"

	"github.com/sqllease/sqllease/internal/clock"
)

// Controlled delay: where more come than can be served, all wait until all are late, and what
// is done for them is done in vain. A queue that is long for a moment is none of that: it goes.
// So what counts, as in CoDel (Nichols and Jacobson 2012, RFC 8289), is the shortest wait of an
// interval. Where that is above a lane's target, whoever has waited for longer than that is
// refused, first those who have waited longest: until nobody waits, or nobody had to be refused
// for an interval.
//
// CoDel drops one packet after the other, faster and faster, since a sender takes notice and
// sends less. A caller takes no notice of what others get, so here all who are over the target
// are refused at once. Nobody is refused who waits alone: what is free is theirs.

// leastInterval is the shortest interval; a target is a tenth of its interval, as RFC 8289 has
// it (section 4.4).
const leastInterval = 100 * time.Millisecond

func (l *lane[S, C]) interval() time.Duration { return max(10*l.Target, leastInterval) }

// refusesLocked tells whether some who wait in a lane are refused: for an interval after the
// last one. So after an interval in which one waited alone, or in which the process stood still,
// those who are late then are looked at anew.
func (l *lane[S, C]) refusesLocked(now clock.Instant) bool {
	return !l.pressed.IsZero() && now >= l.pressed && now.Sub(l.refusedAt) < l.interval()
}

// nextFitLocked is the waiter who is served next, once those before are refused who have waited
// for too long, and those whose time is over: what they would be given is of no use to them.
func (g *Gate[S, C]) nextFitLocked(now clock.Instant) *Waiter[S, C] {
	for {
		w := g.nextLocked()
		if w == nil {
			return nil
		}
		switch l := g.laneOf(w); {
		case !w.until.IsZero() && w.until <= now:
			g.RefuseLocked(w, context.DeadlineExceeded)
		case l.Target == 0:
			return w
		case l.sparesLocked(w, now):
			g.watchTargetLocked(l) // it may stay the first, and is looked at earlier where its lane is not pressed any more
			return w
		default:
			g.overloadedLocked(w, now)
		}
	}
}

// sparesLocked tells whether the first waiter of a lane that has a target, who is about to be served, or is looked
// at, may go on waiting; and notes what that says of the lane.
func (l *lane[S, C]) sparesLocked(w *Waiter[S, C], now clock.Instant) bool {
	switch over := now.Sub(w.since) >= l.Target; {
	case l.refusesLocked(now):
		return !over || l.waiters.len == 1
	case !over:
		l.pressed = 0
	case now >= l.pressed: // over for the first time, or since the last was refused long ago
		l.pressed = now.Add(l.interval())
		l.refusedAt = l.pressed
	}
	return true
}

// overloadedLocked refuses a waiter.
func (g *Gate[S, C]) overloadedLocked(w *Waiter[S, C], now clock.Instant) {
	g.laneOf(w).refusedAt = now
	g.RefuseLocked(w, ErrOverloaded)
}

// relieveLocked looks at those who have waited longest in each lane, whether or not anybody is
// served: a server that does not answer any more gives nobody back.
func (g *Gate[S, C]) relieveLocked(now clock.Instant) {
	for i := range g.lanes.all {
		l := &g.lanes.all[i]
		if l.Target == 0 {
			continue
		}
		for range mostAtOnce {
			if l.waiters.len == 0 || l.sparesLocked(l.waiters.first.of, now) {
				break
			}
			g.overloadedLocked(l.waiters.first.of, now)
		}
	}
}

// watchTargetLocked has Wake called when the first who waits in a lane is over its target, and,
// where one was before, no earlier than some may be refused because of that. It is called whenever
// another may have become the first. Nobody looks at one who waits alone, once one was over the
// target: nothing can come of it.
func (g *Gate[S, C]) watchTargetLocked(l *lane[S, C]) {
	if l.Target > 0 && l.waiters.len > 0 && (l.waiters.len > 1 || l.pressed.IsZero()) {
		g.wakeAtLocked(max(l.waiters.first.of.since.Add(l.Target), l.pressed))
	}
}

// isFullLocked tells whether one more who waits in a lane would be too many.
func (l *lane[S, C]) isFullLocked() bool { return l.MaxWaiting > 0 && l.waiters.len >= l.MaxWaiting }
