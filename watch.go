package sqllease

import (
	"container/heap"
	"sync/atomic"
	"time"

	"go.opentelemetry.io/otel/trace"

	"github.com/sqllease/sqllease/internal/clock"
	"github.com/sqllease/sqllease/internal/gate"
)

// firstLook is how long a lease is out when the watch looks at it for the first
// time: most are back by then, and never looked at.
const firstLook = time.Second

func (c *Connector) firstLook() time.Duration { return min(firstLook, c.cfg.LeakThreshold) }

// watch looks at leases. What is not said to be guarded otherwise is guarded by the
// gate's lock.
type watch struct {
	timer       timer
	at          atomic.Int64  // the instant that the timer is armed for; zero: it is not. Written under the gate's lock
	looked      uint64        // leases up to that number have been looked at
	looks       looks         // those to be looked at again, or sooner
	proving     int           // result sets on lease that the garbage collector is asked for
	asked       clock.Instant // when it was asked last
	unreachable unreachable   // result sets that the garbage collector has found
	endings     []ending      // of leases that ended, and of which there is something to tell
	ended       atomic.Bool   // there are some; written under the gate's lock
}

// begun makes sure that what looks after a lease that has just begun does so in time.
func (c *Connector) begun(s *session) {
	if c.cfg.LeakThreshold > 0 {
		c.watchFrom(s)
	}
	c.pulse.begin(s.lease.start)
	c.refill()
}

// watchFrom makes sure that the watch looks at a lease in time. Its number was set before
// this reads what the timer is armed for, and the watch, once that is zero, reads the
// numbers: so one of the two sees the other.
func (c *Connector) watchFrom(s *session) {
	l := &s.lease
	at := l.start.Add(c.firstLook())
	if l.limit > 0 && l.limit < c.firstLook() {
		at = l.start.Add(l.limit)
		c.gate.Look(func() { c.lookLocked(s, at) })
	}
	if armed := clock.Instant(c.watch.at.Load()); !armed.IsZero() && armed <= at {
		return
	}
	c.gate.Look(func() { c.watchAtLocked(at) })
}

// ending is what there is to tell of a lease that ended.
type ending struct {
	leak    Leak     // its late return; without a lease: nothing
	nesting *nesting // its request waited for another meanwhile
}

// ended notes the end of a lease. It is called with the gate's lock held.
func (c *Connector) ended(s *session) {
	l, w := &s.lease, &c.watch
	if !l.isOn() {
		return // it had not begun
	}
	if l.nesting != nil || l.told.anything() {
		w.endings = append(w.endings, c.endingLocked(l, clock.Now()))
		w.ended.Store(true)
		l.nesting = nil
	}
	c.unlookLocked(s)
	w.proving -= l.proofs
	l.proofs = 0
	l.forget()
	l.seen.Store(0)
}

func (c *Connector) endingLocked(l *lease, now clock.Instant) (e ending) {
	if l.nesting != nil {
		e.nesting = c.nestedEndLocked(l, now)
	}
	if l.told.anything() {
		e.leak = Leak{Lease: l.read(now), Threshold: l.told.threshold, Returned: true}
		if l.told.leaked {
			e.leak.Class = ClassIdleInHand
		}
	}
	return e
}

// tellEndings tells of leases that ended: aside, since database/sql may hold its lock on
// a connection, and the Logger may use this very database.
func (c *Connector) tellEndings() {
	if !c.watch.ended.Load() {
		return
	}
	var endings []ending
	c.gate.Look(func() {
		endings, c.watch.endings = c.watch.endings, nil
		c.watch.ended.Store(false)
	})
	if len(endings) == 0 {
		return
	}
	go each(endings, func(e ending) {
		if e.leak.Returned {
			defer c.report(&findings{leaks: []*Leak{&e.leak}})
		}
		if e.nesting != nil {
			c.reportNesting(e.nesting)
		}
	})
}

// looks are leases by when the watch looks at them again.
type looks []*session

func (q looks) Len() int { return len(q) }

// Less orders them by time, and then by age.
func (q looks) Less(i, j int) bool {
	if q[i].lease.due != q[j].lease.due {
		return q[i].lease.due < q[j].lease.due
	}
	return q[i].lease.id < q[j].lease.id
}

// Swap is of heap.Interface, as are the next two.
func (q looks) Swap(i, j int) {
	q[i], q[j] = q[j], q[i]
	q[i].lease.inLook, q[j].lease.inLook = i+1, j+1
}

// Push appends.
func (q *looks) Push(x any) {
	s := x.(*session)
	*q = append(*q, s)
	s.lease.inLook = len(*q)
}

// Pop takes the last.
func (q *looks) Pop() any {
	last := len(*q) - 1
	s := (*q)[last]
	(*q)[last] = nil
	*q = (*q)[:last]
	s.lease.inLook = 0
	return s
}

// lookLocked makes the watch look at a lease at that time.
func (c *Connector) lookLocked(s *session, at clock.Instant) {
	c.unlookLocked(s)
	s.lease.due = at
	heap.Push(&c.watch.looks, s)
}

func (c *Connector) unlookLocked(s *session) {
	if s.lease.inLook > 0 {
		heap.Remove(&c.watch.looks, s.lease.inLook-1)
	}
}

// watchAtLocked makes sure that the watch's timer fires at that time, or
// earlier.
func (c *Connector) watchAtLocked(at clock.Instant) {
	w := &c.watch
	if armed := clock.Instant(w.at.Load()); armed.IsZero() || at < armed {
		w.at.Store(int64(at))
		w.timer.at(at, c.look)
	}
}

// findings are what one look of the watch has found.
type findings struct {
	now       clock.Instant
	leaks     []*Leak
	reclaimed []*session   // for the watch to close
	unclosed  []*rows      // for the watch to have proved
	abandoned []*proof     // for the watch to end their operations
	lostTx    []trace.Span // of transactions that nobody will end
	more      bool         // there is more to look at, at once
}

// mostJudged bounds what one critical section judges.
const mostJudged = 64

// overdue returns what there is to report, and arms the timer for the next
// look. It looks at the leases in order of acquiring, once each, and again at
// those of which there may be more to say: what it costs depends on how many
// have just become old, and not on how many there are.
func (c *Connector) overdue(now clock.Instant) *findings {
	f := &findings{now: now}
	c.gate.Look(func() {
		w := &c.watch
		w.at.Store(0)
		c.provenLocked(f)
		c.firstLooksLocked(now)
		for range mostJudged {
			if len(w.looks) == 0 || w.looks[0].lease.due > now {
				break
			}
			c.judgeLocked(heap.Pop(&w.looks).(*session), f)
		}
		if len(w.looks) > 0 {
			c.watchAtLocked(w.looks[0].lease.due)
			f.more = w.looks[0].lease.due <= now
		}
		c.proofAtLocked(now)
	})
	return f
}

// firstLooksLocked has those looked at which are out for long enough.
func (c *Connector) firstLooksLocked(now clock.Instant) {
	w := &c.watch
	var highest, young uint64 // the highest number, and the lowest of those that are too young
	var next clock.Instant    // when that is old enough
	c.gate.SinceLocked(w.looked, func(s *session) bool {
		l := &s.lease
		highest = max(highest, s.Hold())
		at := now.Add(c.firstLook())
		if l.isOn() {
			at = l.heldSince().Add(c.firstLook())
		}
		switch {
		case at > now:
			young = s.Hold()
			if next.IsZero() || at < next {
				next = at
			}
		case l.inLook == 0 && l.told.looked.IsZero(): // else it has a short limit, and its own time
			c.lookLocked(s, now)
		}
		return true
	})
	w.looked = max(w.looked, highest)
	if young > 0 {
		w.looked = young - 1
		c.watchAtLocked(next)
	}
}

// judgeLocked looks at a lease: it notes what there is to report, and has it
// looked at again if there may be more.
func (c *Connector) judgeLocked(s *session, f *findings) {
	l, reclaimAfter := &s.lease, c.cfg.ReclaimAfter
	if !l.isOn() {
		return
	}
	if l.told.looked.IsZero() {
		l.told.looked = f.now
		l.watched.Store(true)
	}
	c.proveLocked(l, f)
	if l.limit <= 0 {
		return
	}
	busy, since := l.state(f.now)
	lasts := f.now.Sub(since)
	if reclaimAfter > 0 && l.told.idle && !busy && lasts >= reclaimAfter {
		c.reclaimLocked(s, f)
		return
	}
	class, report, again := judge(busy, lasts, l.limit, c.cfg.LongCallThreshold, l.told)
	if class == ClassIdleInHand && reclaimAfter > 0 && (report || l.told.idle) {
		again = max(reclaimAfter-lasts, soonest)
	}
	if again > 0 {
		c.lookLocked(s, f.now.Add(max(again, soonest)))
	}
	if !report {
		return
	}
	leak := Leak{Lease: l.read(f.now), Class: class, Threshold: l.limit, serverEnds: s.life.limits.IdleTx}
	if class == ClassBusy {
		l.told.busy, leak.Threshold = true, c.cfg.LongCallThreshold
	} else {
		leak.told = l.told.leaked
		l.told.idle, l.told.leaked = true, true
		l.watch.Store(true)
	}
	l.told.threshold = leak.Threshold
	f.leaks = append(f.leaks, &leak)
}

// soonest bounds how often one lease is looked at.
const soonest = 10 * time.Millisecond

// watchAgain has the watch look again at a lease that was reported as idle in
// hand, and is used: what it is left in afterwards is another matter.
func (c *Connector) watchAgain(s *session, now clock.Instant) {
	c.gate.Look(func() {
		l := &s.lease
		l.watch.Store(false)
		l.told.idle = false
		if l.isOn() && l.limit > 0 {
			at := now.Add(max(l.limit, soonest))
			c.lookLocked(s, at)
			c.watchAtLocked(at)
		}
	})
}

// reclaimLocked takes the session from a lease that is idle in hand for too
// long.
func (c *Connector) reclaimLocked(s *session, f *findings) {
	after := c.cfg.ReclaimAfter
	leak := Leak{Lease: s.lease.read(f.now), Class: ClassIdleInHand, Threshold: after, Reclaimed: true, told: true}
	if !c.takeLocked(s, f) {
		c.lookLocked(s, f.now.Add(max(soonest, min(after, time.Second))))
		return
	}
	f.leaks = append(f.leaks, &leak)
}

// takeLocked takes the session from a lease that is idle in hand, and tells
// whether it could. The holder may begin a call at this very moment: who
// changes lease.hand first has the session, and the holder finds out at its
// next call.
func (c *Connector) takeLocked(s *session, f *findings) bool {
	l := &s.lease
	if l.raw || f.now.Sub(l.told.looked) < soonest && !l.told.proven {
		return false
	}
	// Rows that were begun before the watch came are not claimed. They say that they are
	// being read before they look whether it has come: by now that can be seen.
	if l.early.load()%2 == 1 || !l.claimUse(taken) {
		return false
	}
	// Columns may be called at any time. It says so before it looks whether the
	// session was taken, and this looks after taking it: one of the two sees the
	// other. A call that came in between waits for the gate's lock, and looks again.
	if l.naming.Load() > 0 {
		l.giveBack()
		return false
	}
	l.told = told{}
	f.reclaimed = append(f.reclaimed, s)
	if span := l.endTx(nil); span != nil {
		f.lostTx = append(f.lostTx, span)
	}
	c.gate.CondemnLocked(&s.Session, gate.Taken, f.now)
	return true
}

// givenBack tells whether a lease that seems to be taken was given back, and begins the
// use of it then.
func (c *Connector) givenBack(l *lease, as uint64) (given bool) {
	c.gate.Look(func() {
		if given = !l.isTaken(); given {
			l.hand.Store(l.hand.Load() | as)
		}
	})
	return given
}

// isTaken tells whether the session was taken for good: takeLocked gives it
// back if it finds that it came between.
func (c *Connector) isTaken(l *lease) (taken bool) {
	c.gate.Look(func() { taken = l.isTaken() })
	return taken
}

// reclaimed is the error of a call that comes too late.
func (c *Connector) reclaimed(s *session) error {
	var l Lease
	c.gate.Look(func() { l = s.lease.read(clock.Now()) })
	l.Statement = c.sanitised(l.Statement)
	return &ReclaimedError{Pool: c.cfg.Name, After: c.cfg.ReclaimAfter, Lease: l}
}

// judge tells whether a lease that has been in a call, or idle in hand, for
// that long is to be reported, and after what time to look again; zero: never.
func judge(busy bool, lasts, limit, longCall time.Duration, told told) (class Class, report bool, again time.Duration) {
	switch {
	case !busy && told.idle:
		return ClassIdleInHand, false, 0
	case !busy && lasts >= limit:
		return ClassIdleInHand, true, 0
	case !busy:
		return ClassIdleInHand, false, limit - lasts
	case told.busy || longCall < 0:
		return ClassBusy, false, limit
	case lasts >= longCall:
		return ClassBusy, true, limit
	}
	return ClassBusy, false, min(limit, longCall-lasts)
}

// look reports the overdue leases. It runs on the timer's goroutine, which is
// armed for the next lease to look at: without leases there is no timer.
func (c *Connector) look() {
	for more := true; more; {
		f := c.overdue(clock.Now())
		more = f.more
		c.await(f)
		c.lose(len(f.reclaimed))
		for _, s := range f.reclaimed {
			c.retireAside(s)
		}
		c.tellEndings()
		c.report(f)
	}
}
