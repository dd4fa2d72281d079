package sqllease

import (
	"context"
	"log/slog"
	"strings"
	"time"

	"github.com/sqllease/sqllease/internal/clock"
	"github.com/sqllease/sqllease/internal/drivers"
	"github.com/sqllease/sqllease/internal/gate"
)

// While somebody waits for longer than stallAfter, the queue is looked at once
// in that time: for callers who wait for too long, for requests that hold a
// connection meanwhile, and for a deadlock.
const stallAfter = time.Second

// slowEvery is the time between two warnings of slow acquires.
const slowEvery = time.Minute

// waits looks after the gate's queue. What is not set once is guarded by the gate's lock.
type waits struct {
	gate    admission
	cfg     *settings
	reports *reports

	timer       timer
	at          clock.Instant // what the timer is armed for; zero: it is not
	slowTold    clock.Instant // when slow acquires were last warned of
	nestings    nestedPlaces  // those of nested acquires that were reported
	named       nestedPlaces  // those that a record of a standstill has named
	nestedNext  clock.Instant // when to look for another
	still       *standing     // the pool stands still; nil: it does not
	floor       int           // the limit with which no nested acquires seen so far can deadlock
	nested      uint64        // how many of these there were
	standstills uint64        // likewise, deadlocks among them
	deadlocks   uint64        // likewise
}

// joined notes that a caller joins the queue. It is called with the gate's lock held.
func (q *waits) joined(a *acquire) {
	now := a.Since()
	q.nestedLocked(a, now)
	if q.at.IsZero() {
		q.queueAtLocked(max(a.start.Add(stallAfter), now.Add(stallAfter/4))) // it may have waited before
	}
}

// queueAtLocked arms the timer for the next look at the queue.
func (q *waits) queueAtLocked(at clock.Instant) {
	q.at = at
	q.timer.at(at, q.lookAtQueue)
}

// stop stops the timer of a queue that is shut; where the pool stands still, that is over first.
func (q *waits) stop() {
	q.gate.Look(func() {
		if q.still != nil {
			q.queueAtLocked(clock.Now())
			return
		}
		q.timer.stop()
	})
}

// queueFindings are what one look at the queue has found; nil: nothing of the kind.
type queueFindings struct {
	slow     *slowAcquires
	nestings []*nesting
	still    *still
}

// findInQueue looks at the queue, and arms the timer for the next look. With the
// queue empty there is none.
func (q *waits) findInQueue(now clock.Instant) (f queueFindings) {
	q.gate.Look(func() {
		q.at = 0
		since := q.sinceLocked()
		if since.IsZero() {
			f.still = q.movedLocked(now)
			return
		}
		if at := since.Add(stallAfter); at > now {
			q.queueAtLocked(at)
			return
		}
		q.queueAtLocked(now.Add(stallAfter))
		idle, all := q.stalledLocked(now, nil)
		f.still = q.standsLocked(idle, all, since, now) // first: what it names is not told again
		if q.mayStandLocked(now) {
			return
		}
		if q.still == nil || !q.still.told {
			f.slow = q.slowLocked(since, now)
		}
		f.nestings = q.nestedTracesLocked(idle, now)
	})
	return f
}

// sinceLocked is since when the first in the queue acquires; zero: nobody is there. It may have
// left the queue meanwhile, for a dial that the server refused.
func (q *waits) sinceLocked() clock.Instant {
	if first := q.firstLocked(); first != nil {
		return first.start
	}
	return 0
}

// firstLocked is the first in the queue; nil: nobody is there.
func (q *waits) firstLocked() (first *acquire) {
	q.gate.EachWaiterLocked(func(_ *gate.Waiter[session, acquire], a *acquire) bool {
		first = a
		return false
	})
	return first
}

// slowLocked tells how the pool stands if its longest waiter has waited for
// too long, and nobody was told lately.
func (q *waits) slowLocked(since, now clock.Instant) *slowAcquires {
	after := q.cfg.SlowAcquireThreshold
	if after <= 0 || now.Sub(since) < after || (!q.slowTold.IsZero() && now.Sub(q.slowTold) < slowEvery) {
		return nil
	}
	q.slowTold = now
	e, lane := q.gate.describeLocked(q.firstLocked().lane, q.cfg, now)
	e.Waited = now.Sub(since)
	return &slowAcquires{e, lane.Waiting, lane.Barred && !e.laneIsFull() && e.InUse+e.Dialing < e.Limit}
}

// slowAcquires is how a pool stands in which somebody has waited for too long, and the lane of
// who has waited longest.
type slowAcquires struct {
	*AcquireError
	inLane int  // how many wait in that lane
	kept   bool // what is left is reserved for other lanes
}

// stalledLocked returns the sessions on whose lease nothing was done for stallAfter, and
// whether these are all that are held: in any lane, or in some.
func (q *waits) stalledLocked(now clock.Instant, lanes []bool) (idle []*session, all bool) {
	all = true
	q.gate.EachHeldLocked(func(s *session) bool {
		l := &s.lease
		if lanes != nil && (s.Lane() == gate.NoLane || !lanes[s.Lane()]) {
			return true
		}
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
func (q *waits) lookAtQueue() {
	f := q.findInQueue(clock.Now())
	if f.slow != nil {
		defer q.warnSlow(f.slow)
	}
	defer each(f.nestings, q.reportNesting)
	if f.still != nil {
		q.reportStill(f.still)
	}
}

// warnSlow explains a pool that runs dry while it happens.
func (q *waits) warnSlow(e *slowAcquires) {
	defer q.cfg.recovered("warning of slow acquires")
	q.reports.sanitiseHolders(e.AcquireError)
	attrs := []slog.Attr{
		slog.String("pool", q.cfg.Name),
		slog.Duration("longest_wait", round(e.Waited)),
		slog.Duration("threshold", q.cfg.SlowAcquireThreshold),
		slog.Int("waiting", e.Waiting),
		slog.Int("in_use", e.InUse),
		slog.Int("idle", e.Idle),
		slog.Int("dialing", e.Dialing),
		slog.Int("limit", e.Limit),
		slog.String("held_by", strings.TrimPrefix(e.heldBy(), heldByText)),
	}
	if e.Lane != "" {
		attrs = append(attrs, slog.String("lane", e.Lane), slog.Int("lane_waiting", e.inLane), slog.Int("lane_in_use", e.LaneInUse), slog.Int("lane_max", e.LaneMax))
	}
	if len(e.Holders) > 0 {
		oldest := &e.Holders[0]
		q.reports.lookNow(oldest)
		attrs = append(attrs, oldest.nowAttrs()...)
	}
	if e.DialLimit > 0 {
		attrs = append(attrs, slog.String("dial_failure", e.DialFailure))
	}
	q.cfg.Logger.LogAttrs(context.Background(), slog.LevelWarn,
		"sqllease: callers wait for a connection for longer than Config.SlowAcquireThreshold: "+e.cause(), attrs...)
}

// cause says why they wait.
func (s *slowAcquires) cause() string {
	switch {
	case s.laneIsFull() && len(s.Holders) > 0:
		return "their lane has all connections that its Max allows; the code in held_by keeps them for too long, or Config.Lanes allows too few"
	case s.DialFailure == drivers.TooMany:
		return "the server has no room for more connections; raise its limit, or have fewer connections in other pools"
	case s.DialLimit > 0:
		return "a dial failed (dial_failure), so only a few callers at a time dial until the server answers"
	case len(s.Holders) == 0:
		return "nobody has one, and the server does not let connections in"
	case s.kept:
		return "the connections that are left are reserved for other lanes; the code in held_by keeps connections for too long, or Config.Lanes reserves too many"
	}
	return "the code in held_by keeps connections for too long, or the limit is too low"
}
