package gate

import "github.com/sqllease/sqllease/internal/clock"

// Figures say how a gate stands.
type Figures struct {
	Limit   int // 0: none
	Open    int // sessions that exist or are being dialed
	Held    int
	Ready   int
	Dialing int
	Pace    int    // how many may be dialed at once, since a dial has failed; 0: any number
	Failure string // what that met with
	Waiting int
	Free    int // tickets
	Shut    bool
	Counts  Counts
}

// Look calls f while nothing moves. f may call the methods below, and read and write
// what its caller guards by the gate's lock; it must neither block nor call anything
// else of the gate.
func (g *Gate[S, C]) Look(f func()) {
	g.mu.Lock()
	defer g.mu.Unlock()
	f()
}

// FiguresLocked is how the gate stands.
func (g *Gate[S, C]) FiguresLocked() Figures {
	counts := g.counts
	for i := range g.lanes.all {
		n := &g.lanes.all[i].counts
		counts.Holds += n.Holds
		counts.Waits += n.Waits
		counts.QueueTime += n.QueueTime
	}
	return Figures{
		Limit: g.limit, Open: g.open, Held: g.held.len, Ready: g.ready.len, Dialing: g.dialing, Pace: g.pace.most, Failure: g.pace.met,
		Waiting: g.lanes.waiting, Free: g.free, Shut: g.shut, Counts: counts,
	}
}

// EachHeldLocked calls f for each session that is held, the longest held first, until f
// returns false.
func (g *Gate[S, C]) EachHeldLocked(f func(*S) bool) {
	g.held.each(func(s *Session[S]) bool { return f(s.of) })
}

// EachReadyLocked calls f for each session that is ready, that which was not used for longest
// first, until f returns false.
func (g *Gate[S, C]) EachReadyLocked(f func(*S) bool) {
	g.ready.each(func(s *Session[S]) bool { return f(s.of) })
}

// SinceLocked calls f for each session that is held, with a hold of a higher number than
// that, the newest first, until f returns false.
func (g *Gate[S, C]) SinceLocked(number uint64, f func(*S) bool) {
	for n := g.held.last; n != nil && n.of.hold > number; {
		s := n.of
		n = n.prev // f may condemn it
		if !f(s.of) {
			return
		}
	}
}

// EachWaiterLocked calls f for each who waits, the longest first, until f returns false.
func (g *Gate[S, C]) EachWaiterLocked(f func(*Waiter[S, C], *C) bool) {
	g.eachWaiterLocked(func(w *Waiter[S, C]) bool { return f(w, w.caller) })
}

// FirstWaiterLocked is since when the first in the queue waits; zero: nobody does.
func (g *Gate[S, C]) FirstWaiterLocked() clock.Instant {
	var since clock.Instant
	g.eachWaiterLocked(func(w *Waiter[S, C]) bool {
		since = w.since
		return false
	})
	return since
}

// TakeReady takes sessions that are ready, at most that many, to be held by the caller
// who looks after them: those for which want is true.
func (g *Gate[S, C]) TakeReady(most int, want func(*S) bool) (taken []*S) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.ready.each(func(s *Session[S]) bool {
		if len(taken) == most {
			return false
		}
		if want(s.of) {
			taken = append(taken, g.tendLocked(s))
		}
		return true
	})
	return taken
}

// PutBack makes a session ready again that TakeReady or TakeSilent took, as if it had not been
// used.
// It tells whether the caller has to close it.
func (g *Gate[S, C]) PutBack(s *Session[S], now clock.Instant) (closes bool) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.rejectLocked(s, s.used)
	if !g.fitLocked(s, now) {
		return true
	}
	g.readyLocked(s)
	g.settleLocked(now)
	return false
}
