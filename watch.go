package sqllease

import (
	"container/heap"
	"sync/atomic"
	"time"

	"github.com/sqllease/sqllease/internal/callstack"
	"github.com/sqllease/sqllease/internal/clock"
	"github.com/sqllease/sqllease/internal/drivers"
	"github.com/sqllease/sqllease/internal/gate"
)

// firstLook is how long a lease is out when the watch looks at it for the first
// time: most are back by then, and never looked at.
const firstLook = time.Second

func (w *watch) firstLook() time.Duration { return min(firstLook, w.cfg.LeakThreshold) }

// watch looks at leases. What is neither set once nor said to be guarded otherwise is
// guarded by the gate's lock.
type watch struct {
	gate    admission
	cfg     *settings
	reports *reports
	waits   *waits
	took    func([]*session) // closes sessions that were taken from their leases
	blame   func([]*Leak)    // reports slow calls once the server has said who blocks them; nil: it is not asked
	idleTx  *atomic.Int64    // when the server ends an idle transaction, as a duration; zero: never

	timer       timer
	at          atomic.Int64  // the instant that the timer is armed for; zero: it is not. Written under the gate's lock
	looked      uint64        // leases up to that number have been looked at
	looks       looks         // those to be looked at again, or sooner
	proving     int           // result sets on lease that the garbage collector is asked for
	asked       clock.Instant // when it was asked last
	unreachable unreachable   // result sets that the garbage collector has found
	endings     []ending      // of leases that ended, and of which there is something to tell
	some        atomic.Bool   // there are some; written under the gate's lock
}

// from makes sure that the watch looks at a lease in time. Its number was set before
// this reads what the timer is armed for, and the watch, once that is zero, reads the
// numbers: so one of the two sees the other.
func (w *watch) from(s *session) {
	if w.cfg.LeakThreshold <= 0 {
		return
	}
	l := &s.lease
	at := l.start.Add(w.firstLook())
	if limit := drivers.MinLimit(l.limit, w.beforeTheServer()); l.limit > 0 && limit < w.firstLook() {
		at = l.start.Add(limit)
		w.gate.Look(func() { w.lookLocked(s, at) })
	}
	if armed := clock.Instant(w.at.Load()); !armed.IsZero() && armed <= at {
		return
	}
	w.gate.Look(func() { w.atLocked(at) })
}

// beforeTheServer is how long a transaction may be idle before that is reported in any case:
// soon after, the server would end it. Zero: it never does.
func (w *watch) beforeTheServer() time.Duration {
	return beforeLimit(time.Duration(w.idleTx.Load()))
}

// ending is what there is to tell of a lease that ended.
type ending struct {
	leak    Leak             // its late return; without a lease: nothing
	by      *callstack.Known // the stack that ended it, if there is a leak to tell of
	nesting *nesting         // its request waited for another meanwhile
}

// ended notes the end of a lease. It is called with the gate's lock held.
func (w *watch) ended(s *session) {
	l := &s.lease
	if !l.isOn() {
		return // it had not begun
	}
	if l.nesting != nil || l.told.anything() {
		w.endings = append(w.endings, w.endingLocked(l, clock.Now()))
		w.some.Store(true)
		l.nesting = nil
	}
	w.unlookLocked(s)
	w.proving -= l.proofs
	l.proofs = 0
	l.forget()
	l.seen.Store(0)
}

func (w *watch) endingLocked(l *lease, now clock.Instant) (e ending) {
	if l.nesting != nil {
		e.nesting = w.waits.nestedEndLocked(l, now)
	}
	if l.told.anything() {
		e.leak = Leak{Lease: l.read(now), Threshold: l.told.threshold, Returned: true, reporting: l.told.reporting}
		e.by = callstack.Capture(0)
		if l.told.leaked {
			e.leak.Class = ClassUnused
		}
	}
	return e
}

// tellEndings tells of leases that ended: aside, since database/sql may hold its lock on
// a connection, and the Logger may use this very database.
func (w *watch) tellEndings() {
	if !w.some.Load() {
		return
	}
	var endings []ending
	w.gate.Look(func() {
		endings, w.endings = w.endings, nil
		w.some.Store(false)
		if len(endings) > 0 {
			held := w.heldLocked()
			for i := range endings {
				endings[i].leak.HeldHere = held[placeOfStack(callstack.Stack(endings[i].leak.Stack))]
			}
		}
	})
	if len(endings) == 0 {
		return
	}
	go each(endings, func(e ending) {
		if e.leak.Returned {
			e.leak.reporting.recorded.Wait()
			e.leak.ByContext = endsByContext(e.by)
			defer w.reports.report(&findings{leaks: []*Leak{&e.leak}})
		}
		if e.nesting != nil {
			w.waits.reportNesting(e.nesting)
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
func (w *watch) lookLocked(s *session, at clock.Instant) {
	w.unlookLocked(s)
	s.lease.due = at
	heap.Push(&w.looks, s)
}

func (w *watch) unlookLocked(s *session) {
	if s.lease.inLook > 0 {
		heap.Remove(&w.looks, s.lease.inLook-1)
	}
}

// atLocked makes sure that the watch's timer fires at that time, or
// earlier.
func (w *watch) atLocked(at clock.Instant) {
	if armed := clock.Instant(w.at.Load()); armed.IsZero() || at < armed {
		w.at.Store(int64(at))
		w.timer.at(at, w.look)
	}
}

// mostJudged bounds what one critical section judges.
const mostJudged = 64

// overdue returns what there is to report, and arms the timer for the next
// look. It looks at the leases in order of acquiring, once each, and again at
// those of which there may be more to say: what it costs depends on how many
// have just become old, and not on how many there are.
func (w *watch) overdue(now clock.Instant) *findings {
	f := &findings{now: now}
	w.gate.Look(func() {
		w.at.Store(0)
		w.provenLocked(f)
		w.firstLooksLocked(now)
		for range mostJudged {
			if len(w.looks) == 0 || w.looks[0].lease.due > now {
				break
			}
			w.judgeLocked(heap.Pop(&w.looks).(*session), f)
		}
		if len(w.looks) > 0 {
			w.atLocked(w.looks[0].lease.due)
			f.more = w.looks[0].lease.due <= now
		}
		w.proofAtLocked(now)
		if len(f.leaks) > 0 {
			held := w.heldLocked()
			for _, l := range f.leaks {
				l.HeldHere = held[placeOfStack(callstack.Stack(l.Stack))]
			}
		}
	})
	return f
}

// heldLocked counts the leases by the place that took them.
func (w *watch) heldLocked() map[uint64]int {
	stacks, places := map[*callstack.Known]int{}, map[uint64]int{}
	w.gate.eachLeaseLocked(func(s *session) { stacks[s.lease.stack]++ })
	for stack, n := range stacks { // few, however many leases there are
		places[placeOfStack(stack.Stack())] += n
	}
	return places
}

// firstLooksLocked has those looked at which are out for long enough.
func (w *watch) firstLooksLocked(now clock.Instant) {
	var highest, young uint64 // the highest number, and the lowest of those that are too young
	var next clock.Instant    // when that is old enough
	w.gate.SinceLocked(w.looked, func(s *session) bool {
		l := &s.lease
		highest = max(highest, s.Hold())
		at := now.Add(w.firstLook())
		if l.isOn() {
			at = l.heldSince().Add(w.firstLook())
		}
		switch {
		case at > now:
			young = s.Hold()
			if next.IsZero() || at < next {
				next = at
			}
		case l.inLook == 0 && l.told.looked.IsZero(): // else it has a short limit, and its own time
			w.lookLocked(s, now)
		}
		return true
	})
	w.looked = max(w.looked, highest)
	if young > 0 {
		w.looked = young - 1
		w.atLocked(next)
	}
}

// judgeLocked looks at a lease: it notes what there is to report, and has it
// looked at again if there may be more.
func (w *watch) judgeLocked(s *session, f *findings) {
	l, reclaimAfter := &s.lease, w.cfg.ReclaimAfter
	if !l.isOn() {
		return
	}
	if l.told.looked.IsZero() {
		l.told.looked = f.now
		l.watched.Store(true)
	}
	w.proveLocked(l, f)
	if l.limit <= 0 {
		return
	}
	busy, since := l.state(f.now)
	if l.told.stands && reclaimAfter == 0 { // what is reclaimed is reported first
		if w.waits.still != nil && l.told.moved.IsZero() {
			w.lookLocked(s, f.now.Add(stallAfter))
			return
		}
		since = max(since, l.told.moved) // the first time: else a leak in a pool that stands still again and again would never be one
	}
	lasts := f.now.Sub(since)
	if reclaimAfter > 0 && l.told.idle && !busy && lasts >= reclaimAfter {
		w.reclaimLocked(s, f)
		return
	}
	limit, soon := l.limit, w.beforeTheServer()
	if soon > 0 && soon < limit && l.isInTx() {
		limit = soon
	}
	class, report, again := judge(busy, lasts, limit, w.cfg.SlowCallThreshold, l.told)
	if again > 0 && soon > 0 { // it may begin a transaction until then
		again = min(again, soon)
	}
	if class == ClassUnused && reclaimAfter > 0 && (report || l.told.idle) {
		again = max(reclaimAfter-lasts, soonest)
	}
	if again > 0 {
		w.lookLocked(s, f.now.Add(max(again, soonest)))
	}
	if !report {
		return
	}
	leak := Leak{Lease: l.read(f.now), Class: class, Threshold: limit, serverEnds: time.Duration(w.idleTx.Load())}
	if class == ClassBusy {
		l.told.busy, leak.Threshold = true, w.cfg.SlowCallThreshold
	} else {
		leak.told = l.told.leaked
		l.told.idle, l.told.leaked = true, true
		l.watch.Store(true)
	}
	l.told.threshold = leak.Threshold
	l.told.beginReport(&leak)
	f.leaks = append(f.leaks, &leak)
}

// soonest bounds how often one lease is looked at.
const soonest = 10 * time.Millisecond

// again has the watch look again at a lease that was reported as unused, and is used: what
// it is left in afterwards is another matter.
func (w *watch) again(s *session, now clock.Instant) {
	w.gate.Look(func() {
		l := &s.lease
		l.watch.Store(false)
		l.told.idle = false
		if l.isOn() && l.limit > 0 {
			at := now.Add(max(l.limit, soonest))
			w.lookLocked(s, at)
			w.atLocked(at)
		}
	})
}

// reclaimLocked takes the session from a lease that is unused for too
// long.
func (w *watch) reclaimLocked(s *session, f *findings) {
	after := w.cfg.ReclaimAfter
	leak := Leak{Lease: s.lease.read(f.now), Class: ClassUnused, Threshold: after, Reclaimed: true, told: true}
	if !w.takeLocked(s, f) {
		w.lookLocked(s, f.now.Add(max(soonest, min(after, time.Second))))
		return
	}
	s.lease.told.beginReport(&leak)
	f.leaks = append(f.leaks, &leak)
}

// takeLocked takes the session from a lease that is unused, and tells
// whether it could. The holder may begin a call at this very moment: who
// changes lease.hand first has the session, and the holder finds out at its
// next call.
func (w *watch) takeLocked(s *session, f *findings) bool {
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
	if t := l.endTx(nil, f.now); t != nil {
		f.lostTx = append(f.lostTx, t)
	}
	w.gate.CondemnLocked(&s.Session, gate.Taken, f.now)
	return true
}

// givenBack tells whether a lease that seems to be taken was given back, and begins the
// use of it then.
func (w *watch) givenBack(l *lease, as uint64) (given bool) {
	w.gate.Look(func() {
		if given = !l.isTaken(); given {
			l.hand.Store(l.hand.Load() | as)
		}
	})
	return given
}

// isTaken tells whether the session was taken for good: takeLocked gives it
// back if it finds that it came between.
func (w *watch) isTaken(l *lease) (taken bool) {
	w.gate.Look(func() { taken = l.isTaken() })
	return taken
}

// reclaimed is the error of a call that comes too late.
func (w *watch) reclaimed(s *session) error {
	var l Lease
	w.gate.Look(func() { l = s.lease.read(clock.Now()) })
	l.Statement = w.reports.sanitised(l.Statement)
	return &ReclaimedError{Pool: w.cfg.Name, After: w.cfg.ReclaimAfter, Lease: l}
}

// judge tells whether a lease that has been in a call, or unused, for
// that long is to be reported, and after what time to look again; zero: never.
func judge(busy bool, lasts, limit, longCall time.Duration, told told) (class Class, report bool, again time.Duration) {
	switch {
	case !busy && told.idle:
		return ClassUnused, false, 0
	case !busy && lasts >= limit:
		return ClassUnused, true, 0
	case !busy:
		return ClassUnused, false, limit - lasts
	case told.busy || longCall < 0:
		return ClassBusy, false, limit
	case lasts >= longCall:
		return ClassBusy, true, limit
	}
	return ClassBusy, false, min(limit, longCall-lasts)
}

// look reports the overdue leases. It runs on the timer's goroutine, which is
// armed for the next lease to look at: without leases there is no timer.
func (w *watch) look() {
	for more := true; more; {
		f := w.overdue(clock.Now())
		more = f.more
		w.await(f)
		if len(f.reclaimed) > 0 {
			w.took(f.reclaimed)
		}
		w.tellEndings()
		if w.blame != nil {
			w.blame(f.takeSlowCalls())
		}
		w.reports.report(f)
	}
}
