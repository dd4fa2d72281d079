package sqllease

import (
	"time"

	"github.com/sqllease/sqllease/internal/clock"
	"github.com/sqllease/sqllease/internal/gate"
)

// admission is a connector's gate, and what can be read of the leases and of those who
// wait, through it.
type admission struct{ *gate.Gate[session, acquire] }

// eachLeaseLocked calls f for each session that is on lease, the oldest lease first.
func (a admission) eachLeaseLocked(f func(*session)) {
	a.EachHeldLocked(func(s *session) bool {
		if s.lease.isOn() {
			f(s)
		}
		return true
	})
}

// eachWaiterLocked calls f for each who waits, the longest first.
func (a admission) eachWaiterLocked(f func(*acquire)) {
	a.EachWaiterLocked(func(_ *gate.Waiter[session, acquire], who *acquire) bool {
		f(who)
		return true
	})
}

// waitOf tells for how long a goroutine had waited in the queue by then; false: it does not wait,
// or has come since.
func (a admission) waitOf(number uint64, at clock.Instant) (waited time.Duration, waits bool) {
	a.Look(func() {
		a.eachWaiterLocked(func(who *acquire) {
			if who.goroutine == number && who.start <= at {
				waited, waits = at.Sub(who.start), true
			}
		})
	})
	return waited, waits
}

// everyLane is a lane that is none: that of whoever looks at all of them.
const everyLane = gate.NoLane

// leasesLocked copies the oldest leases of a lane, at most that many; negative: all.
func (a admission) leasesLocked(of gate.LaneID, most int, now clock.Instant) (out []Lease) {
	a.EachHeldLocked(func(s *session) bool {
		if most >= 0 && len(out) == most {
			return false
		}
		if s.lease.isOn() && (of == everyLane || of == s.lease.lane) {
			out = append(out, s.lease.read(now))
		}
		return true
	})
	return out
}

// mostHolders bounds what the error of a failed acquire tells, and costs.
const mostHolders = 8

// describe tells how full the pool is, and its lane, for the error of a failed acquire.
func (a admission) describe(id gate.LaneID, cfg *settings, now clock.Instant) (e *AcquireError) {
	a.Look(func() {
		var l gate.LaneFigures
		if e, l = a.describeLocked(id, cfg, now); e.Lane != "" {
			e.Waiting = l.Waiting
		}
	})
	return e
}

// describeLocked tells how full the pool is, and how the lane stands, where there are any. If that is
// full, what others hold keeps nobody waiting.
func (a admission) describeLocked(id gate.LaneID, cfg *settings, now clock.Instant) (e *AcquireError, l gate.LaneFigures) {
	f, of := a.FiguresLocked(), everyLane
	e = &AcquireError{Limit: f.Limit, InUse: f.Held, Idle: f.Ready, Dialing: f.Dialing, Waiting: f.Waiting}
	if e.Lane = cfg.laneName(id); e.Lane != "" {
		l = a.LaneLocked(id)
		if e.LaneInUse, e.LaneMax = l.Used, cfg.lanes.of[id].Max; e.laneIsFull() {
			of = id
		}
	}
	e.Holders = a.leasesLocked(of, mostHolders, now)
	if f.Limit == 0 || f.Open < f.Limit { // else the limit is why callers wait
		e.DialLimit, e.DialFailure = f.Pace, f.Failure
	}
	return e, l
}
