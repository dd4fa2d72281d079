package gate

import (
	"context"
	"time"

	"github.com/sqllease/sqllease/internal/clock"
)

// Waiter is one caller who acquires, and what they are told. It may be used again when
// its acquire is over.
type Waiter[S, C any] struct {
	caller *C
	node   node[Waiter[S, C]] // guarded by Gate.mu: its place in the queue
	number uint64             // guarded by Gate.mu: of its arrival; zero: it has not come yet
	since  clock.Instant      // since when it waits; set before it joins the queue; zero: it did not
	waited time.Duration      // guarded by Gate.mu: until it was served; twice: together
	crowd  bool               // guarded by Gate.mu: when it was let dial, any number might
	lane   LaneID             // set by Prepare
	until  clock.Instant      // set by Prepare: what it is served from then on is of no use to it; zero: it always is

	// served gets one value when the waiter was taken out of the queue by somebody else.
	served chan struct{}

	// What it was served: written under mu before that, read by the waiter after.
	// All zero: it has room, and dials.
	session *Session[S]
	err     error
}

// Prepare makes a waiter ready for an acquire by that caller. number is that of an
// earlier arrival, see [Gate.Arrive]; zero: there is none. until is when its time is over, for
// those gates that refuse who comes too late; zero: never.
func (w *Waiter[S, C]) Prepare(caller *C, number uint64, lane LaneID, until clock.Instant) {
	w.caller, w.number, w.lane, w.until = caller, number, lane, until
	w.since, w.waited = 0, 0
	w.session, w.err = nil, nil
	if w.served == nil {
		w.served = make(chan struct{}, 1)
	}
}

// Since is when it joined the queue.
func (w *Waiter[S, C]) Since() clock.Instant { return w.since }

// Number says who came first. Its caller is called by Look.
func (w *Waiter[S, C]) Number() uint64 { return w.number }

// Arrive gives a caller who is sent away a number: with it they have the place in the
// queue that they would have now, when they come back.
func (g *Gate[S, C]) Arrive() uint64 {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.arrivals++
	return g.arrivals
}

// Ask is the half of an acquire that never waits. It answers with a session, which the
// caller holds from then on; or that the waiter is in the queue, see [Gate.Wait]; or
// with neither: there was room, which the caller has, and dials. Whoever does not wait has a
// place as well: they may have to come back, see [Gate.Replace] and [Gate.Rejoin].
func (g *Gate[S, C]) Ask(w *Waiter[S, C], now clock.Instant) (s *S, waits bool, err error) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.shut {
		return nil, false, ErrShut
	}
	g.silent = 0
	if g.nextLocked() == nil && !g.barredLocked(w.lane) { // else it is behind somebody, or is to wait in any case
		if taken := g.takeableLocked(now); taken != nil {
			g.ready.remove(&taken.node)
			g.holdLocked(taken, w.lane)
			g.numberLocked(w)
			return taken.of, false, nil
		}
		if g.mayDialLocked() {
			g.numberLocked(w)
			g.letDialLocked(w)
			g.reserveLocked(w.lane)
			return nil, false, nil
		}
	}
	if g.laneOf(w).isFullLocked() {
		return nil, false, ErrOverloaded
	}
	g.joinLocked(w, now)
	g.settleLocked(now) // a session that time has made takeable is for the first of those who wait
	return nil, true, nil
}

// joinLocked puts a waiter into the queue: behind all who came before.
func (g *Gate[S, C]) joinLocked(w *Waiter[S, C], now clock.Instant) {
	w.since = now
	g.numberLocked(w)
	l := g.laneOf(w)
	before := l.waiters.last
	for before != nil && before.of.number > w.number {
		before = before.prev
	}
	l.waiters.pushAfter(before, &w.node, w)
	g.lanes.waiting++
	g.watchTargetLocked(l)
	g.watchGraceLocked()
	g.watchPaceLocked()
	g.queued(w.caller)
}

// rejoinLocked puts one into the queue who was given a session that came to nothing. Its
// waits count as one.
func (g *Gate[S, C]) rejoinLocked(w *Waiter[S, C], now clock.Instant) {
	if !w.since.IsZero() {
		g.unwaitLocked(w)
	}
	w.session = nil
	g.joinLocked(w, now)
	g.settleLocked(now) // another may be ready
}

// quitLocked takes a waiter out of the queue.
func (g *Gate[S, C]) quitLocked(w *Waiter[S, C]) {
	l := g.laneOf(w)
	l.waiters.remove(&w.node)
	g.lanes.waiting--
	if l.waiters.len == 0 {
		l.pressed = 0
	}
	g.watchTargetLocked(l) // it may have been the first
}

// unwaitLocked takes a wait out of the account that came to nothing.
func (g *Gate[S, C]) unwaitLocked(w *Waiter[S, C]) {
	n := &g.laneOf(w).counts
	n.Waits--
	n.QueueTime -= w.waited
}

func (g *Gate[S, C]) numberLocked(w *Waiter[S, C]) {
	if w.number == 0 {
		g.arrivals++
		w.number = g.arrivals
	}
}

// Wait blocks until a waiter that is in the queue is served, or gives up: because its
// context ends, or over fires (nil: never). It answers as Ask does; if the waiter gave up
// in the queue, with the place that it had, 1 being next. A session that comes with an
// error is closing, and the caller closes it.
func (g *Gate[S, C]) Wait(ctx context.Context, w *Waiter[S, C], over <-chan time.Time) (s *S, place int, err error) {
	select {
	case <-w.served:
		if err = ctx.Err(); err == nil {
			return w.sessionOf(), 0, w.err
		}
		w.served <- struct{}{} // as GiveUp expects it
	case <-ctx.Done():
		err = ctx.Err()
	case <-over:
		err = context.DeadlineExceeded
	}
	s, place, refused := g.GiveUp(w)
	if refused != nil {
		return nil, 0, refused
	}
	return s, place, err
}

// GiveUp ends the wait of a waiter, in the queue or out of it. Either it is still
// queued, and leaves; or it was served before this lock was taken. Whoever served it took
// it out of the queue under mu, so that exactly one of the two is true, and then what it
// was served goes to the next: the session, which may be closing instead and comes back
// to be closed, or its room.
func (g *Gate[S, C]) GiveUp(w *Waiter[S, C]) (s *S, place int, refused error) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if w.node.in != nil {
		place = g.placeLocked(w)
		g.quitLocked(w)
		return nil, place, nil
	}
	<-w.served // at once: it was sent under mu
	if w.err != nil {
		return nil, 0, w.err
	}
	g.unwaitLocked(w)
	if w.session == nil {
		g.unreserveLocked(w.lane)
		return nil, 0, nil
	}
	g.rejectLocked(w.session, w.session.used)
	if g.parkLocked(w.session, clock.Now(), false) {
		return w.session.of, 0, nil
	}
	return nil, 0, nil
}

func (w *Waiter[S, C]) sessionOf() *S {
	if w.session == nil {
		return nil
	}
	return w.session.of
}

// placeLocked counts a waiter's place in its lane without walking the queue: waiters are
// numbered as they come, and only those who gave up are missing between. Where there are other
// lanes, whose numbers are missing as well, it walks, if not for long.
func (g *Gate[S, C]) placeLocked(w *Waiter[S, C]) int {
	const longWalk = 256
	l := g.laneOf(w)
	if place, n := 1, l.waiters.first; len(g.lanes.all) > 1 {
		for n.of != w && place < longWalk {
			n = n.next
			place++
		}
		if n.of == w {
			return place
		}
	}
	return int(min(w.number-l.waiters.first.of.number+1, uint64(l.waiters.len)))
}

// takeableLocked is the ready session that goes to whoever comes to Ask, or waits; nil:
// there is none. Where tickets answer for all that are ready, it is the one whose
// ticket the pool uses last.
func (g *Gate[S, C]) takeableLocked(now clock.Instant) *Session[S] {
	if g.ready.len == 0 {
		return nil
	}
	if listed := g.free - g.away; g.ready.len > listed && g.trust <= Draining {
		if listed == 0 {
			return g.ready.newest()
		}
		return g.ready.first.of
	}
	switch oldest := g.ready.first.of; g.trust {
	case Alone:
		return oldest
	case Watchful:
		if now.Sub(oldest.used) >= grace {
			return oldest
		}
	case Private:
		if !g.roomLocked() || !g.pace.until.IsZero() { // it may be of another pool: see Unfit
			return oldest
		}
	}
	return nil
}

// settleLocked serves those who wait what may be given to them.
func (g *Gate[S, C]) settleLocked(now clock.Instant) {
	for g.lanes.waiting > 0 {
		s := g.takeableLocked(now)
		if s == nil {
			break
		}
		next := g.nextFitLocked(now)
		if next == nil {
			break
		}
		g.ready.remove(&s.node)
		g.serveLocked(next, s, now)
	}
	g.watchGraceLocked()
}

// watchGraceLocked has Wake called when a session that has just come back may be given to one who
// waits. Where the lanes of all who wait are barred it would be called for nothing, again and
// again: who has to wait for a place of their lane is seen to when there is one.
func (g *Gate[S, C]) watchGraceLocked() {
	if g.trust == Watchful && g.ready.len > 0 && g.nextLocked() != nil {
		g.wakeAtLocked(g.ready.first.of.used.Add(grace))
	}
}

// serveLocked gives a session to a waiter, who holds it from then on; nil: room.
func (g *Gate[S, C]) serveLocked(w *Waiter[S, C], s *Session[S], now clock.Instant) {
	g.quitLocked(w)
	w.waited += max(now.Sub(w.since), 0) // now may have been read before it joined
	n := &g.laneOf(w).counts
	n.Waits++
	n.QueueTime += w.waited
	if s != nil {
		g.holdLocked(s, w.lane)
	}
	w.session = s
	w.served <- struct{}{} // it has room for one, and is empty
}

// RefuseLocked ends a wait with an error. Its caller is called by Look.
func (g *Gate[S, C]) RefuseLocked(w *Waiter[S, C], err error) {
	g.quitLocked(w)
	w.err = err
	w.served <- struct{}{}
}

// PreferLocked lets those waiters of whom it is true go before all others. Its caller is
// called by Look.
func (g *Gate[S, C]) PreferLocked(ahead func(*C) bool) {
	var others []*Waiter[S, C]
	g.eachWaiterLocked(func(w *Waiter[S, C]) bool {
		if !ahead(w.caller) {
			g.laneOf(w).waiters.remove(&w.node)
			others = append(others, w)
		}
		return true
	})
	for _, w := range others {
		g.arrivals++
		w.number = g.arrivals
		g.laneOf(w).waiters.push(&w.node, w)
	}
	g.watchLocked() // others are the first
}

// SendAway ends the waits of those whom it is true of with an error, and gives each the
// place to come back to: they are numbers for Prepare, by caller.
func (g *Gate[S, C]) SendAway(err error, who func(c *C, number uint64) bool) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.eachWaiterLocked(func(w *Waiter[S, C]) bool {
		if who(w.caller, w.number) {
			g.RefuseLocked(w, err)
		}
		return true
	})
}

// roomLocked tells whether one more may be dialed.
func (g *Gate[S, C]) roomLocked() bool { return g.limit == 0 || g.open < g.limit }

// overLocked tells whether more are open than the limit allows when those that are
// closing are gone. more is how many are in no list.
func (g *Gate[S, C]) overLocked(more int) bool {
	return g.limit > 0 && g.dialing+g.held.len+g.ready.len+more > g.limit
}

func (g *Gate[S, C]) reserveLocked(id LaneID) {
	g.open++
	g.dialing++
	g.occupyLocked(id)
	g.letLocked()
}

func (g *Gate[S, C]) unreserveLocked(id LaneID) {
	g.open--
	g.dialing--
	g.vacateLocked(id)
	g.laneFreedLocked(clock.Now()) // first: what is ready need not be dialed
	g.admitLocked()
}

// admitLocked lets waiters dial while they may. Where they have taken the last room, what is
// ready of another pool may be taken: see takeableLocked.
func (g *Gate[S, C]) admitLocked() {
	for !g.shut && g.lanes.waiting > 0 && g.mayDialLocked() {
		now := clock.Now()
		next := g.nextFitLocked(now)
		if next == nil {
			break
		}
		g.letDialLocked(next)
		g.reserveLocked(next.lane)
		g.serveLocked(next, nil, now)
	}
	if g.lanes.waiting > 0 && g.trust == Private {
		g.settleLocked(clock.Now())
	}
	g.watchPaceLocked()
}

// holdLocked begins a hold, for a lane.
func (g *Gate[S, C]) holdLocked(s *Session[S], id LaneID) {
	g.holds++
	g.countsLocked(id).Holds++
	g.occupyLocked(id)
	s.place, s.hold, s.lane = held, g.holds, id
	g.held.push(&s.node, s)
	s.among = g.held.len
}

// endLocked ends it.
func (g *Gate[S, C]) endLocked(s *Session[S], now clock.Instant) {
	g.ended(s.of)
	g.held.remove(&s.node)
	g.vacateLocked(s.lane)
	if s.tended {
		s.tended = false
		g.tended--
	}
	s.used = now
}

// rejectLocked ends one that came to nothing.
func (g *Gate[S, C]) rejectLocked(s *Session[S], used clock.Instant) {
	g.endLocked(s, used)
	g.countsLocked(s.lane).Holds--
}

// fitLocked tells whether a session that comes back may go on. If not, it is closing.
func (g *Gate[S, C]) fitLocked(s *Session[S], now clock.Instant) bool {
	switch {
	case g.shut:
		g.closeLocked(s, ShutDown)
	case s.life.Expired(s.heard, now):
		g.closeLocked(s, Expired)
	case g.overLocked(1):
		g.closeLocked(s, OverSize)
	case g.foreignLocked(s):
		g.closeLocked(s, Dropped)
	default:
		return true
	}
	return false
}

// readyLocked makes a session ready that is in no list. Mostly it was used last, but not
// if it was put back, or its holder read the clock and came to the lock later. Its place
// is near one of the ends, so it is looked for from both.
func (g *Gate[S, C]) readyLocked(s *Session[S]) {
	s.place = ready
	before, after := g.ready.last, g.ready.first
	for before != nil && before.of.used > s.used {
		if after.of.used > s.used {
			before = after.prev
			break
		}
		before, after = before.prev, after.next
	}
	g.ready.pushAfter(before, &s.node, s)
	if s.index == 0 {
		g.scheduleLocked(s)
	}
}

// closeLocked sends a session that is in no list to its closer.
func (g *Gate[S, C]) closeLocked(s *Session[S], why Reason) {
	s.place, s.reason = closing, why
	g.unscheduleLocked(s)
}
