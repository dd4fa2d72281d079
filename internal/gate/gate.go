// Package gate admits callers to sessions: it has the limit, the sessions that are
// ready, and the queue, first in, first out. It does not know what a session is, nor
// what is known of a caller, makes no call on either, and starts no goroutine: it says
// who has what, and whoever called it dials, resets and closes.
package gate

import (
	"errors"
	"sync"
	"time"

	"github.com/sqllease/sqllease/internal/clock"
)

// ErrShut is the error of an acquire at a gate that was shut.
var ErrShut = errors.New("the gate is shut")

// Gate has the sessions of one pool: S is the session's type, C is what is known of a
// caller who acquires.
//
// These hold whenever mu is free:
//
//  1. open counts every session that exists or is being dialed: those held, ready and
//     closing, and the dials. It does not exceed the limit, but for what was open when
//     that was lowered.
//  2. A session is held, ready or closing, and one goroutine at most may touch it.
//  3. While somebody waits nobody else may dial: there is no room, or, since a dial has
//     failed, as many dial as the pace allows. And no session is ready that may be given
//     to one who waits (see takeableLocked). Those whose lane may have nothing more are
//     not meant: see lanes.go.
//  4. Whoever waits longest is served first, of those who may be.
//  5. Every session that was dialed is closed by one closer, once.
//
// A session that nobody holds belongs to the gate, and not to whoever had it. What the
// application's pool has in its free list are tickets. There are about as many as
// sessions are ready; a ticket for which there is no session is refused, and its caller
// comes to Ask.
type Gate[S, C any] struct {
	hooks[S, C]

	// mu is held for moving sessions and waiters from one place to another, and for
	// nothing else: no dial, no call on a session, no log, no function of the
	// application's, no lock but those that Look's callers name. The pool may hold
	// its lock on a connection while it calls.
	mu       sync.Mutex
	limit    int              // guarded by mu; 0: none
	open     int              // guarded by mu: sessions that exist or are being dialed
	dialing  int              // guarded by mu: those being dialed
	pace     pace             // guarded by mu: how many may be dialed at once
	shut     bool             // guarded by mu
	held     list[Session[S]] // guarded by mu: in order of acquiring
	ready    list[Session[S]] // guarded by mu: in order of their last use
	lanes    lanes[S, C]      // those who wait, by lane
	free     int              // guarded by mu: tickets that are free
	away     int              // guarded by mu: those of them that a caller has whose lane is barred
	keep     int              // how many sessions stay ready without tickets; set once
	tended   int              // guarded by mu: those that are held to be looked after
	trust    Trust            // guarded by mu
	era      uint64           // guarded by mu: how often several pools have become one: see foreignLocked
	holds    uint64           // guarded by mu: how many there were, the number of the last
	arrivals uint64           // guarded by mu: likewise, of those who came to wait
	bad      clock.Instant    // guarded by mu: when a session proved bad in its holder's hands last
	silent   int              // guarded by mu: tickets dropped since somebody came to Ask last
	patience int              // guarded by mu: how many of these arouse suspicion
	expiries expiries[S]      // guarded by mu
	waking   clock.Instant    // guarded by mu: when Wake is called next; zero: nobody asked for it
	counts   Counts           // guarded by mu: but for what each lane counts
}

// hooks are called with mu held, and do no more than note something or arm a timer.
type hooks[S, C any] struct {
	ended  func(*S)            // a hold ends
	queued func(*C)            // a caller joins the queue
	wakeAt func(clock.Instant) // Wake is to be called then
	doubt  func()              // the pool may queue callers itself: whoever calls SetTrust is to look
}

// Counts are what a gate has seen.
type Counts struct {
	LaneCounts        // of all lanes, and of holds that are in none
	Handovers  uint64 // sessions that went from their holder to a waiter
	Closed     [Reasons]uint64
}

// Trust says how far the pool's tickets may be overruled.
type Trust uint8

const (
	// Alone is a pool that never queues callers itself: whoever waits, waits here. Any
	// ready session may go to anybody.
	Alone Trust = iota
	// Watchful is a pool that may queue callers itself. To them it gives what comes back
	// without passing its free list. So a session that just came back may be on its way
	// to one, who must not find it taken: for grace it is given only to a ticket.
	Watchful
	// Draining is one that certainly does. What comes back goes to them, before those
	// who wait here.
	Draining
	// Private are several pools that have the limit in common, and no session: a session
	// goes to the ticket that had it, and to nobody else.
	Private
)

// grace is how long whom a pool gave a ticket may take to use it.
const grace = 10 * time.Millisecond

// New makes a gate with a limit (zero: none) that keeps so many sessions ready for
// which there is no ticket, and has those lanes; nil: one. The functions are called with the gate's lock held: ended
// when a hold ends, queued when a caller joins the queue, wakeAt when Wake is to be called
// at some time, and doubt when the pool, trusted to be Alone, may queue callers itself:
// then it counts as Draining until SetTrust says what it is.
func New[S, C any](limit, keep int, lanes []Lane, ended func(*S), queued func(*C), wakeAt func(clock.Instant), doubt func()) *Gate[S, C] {
	return &Gate[S, C]{limit: limit, keep: keep, lanes: newLanes[S, C](lanes), patience: leastPatience, hooks: hooks[S, C]{ended, queued, wakeAt, doubt}}
}

// Whoever had a session comes back, mostly, and the pool, which has dropped the ticket,
// sends them to Ask. Where many tickets were dropped and nobody came, the pool may have
// begun to queue callers, and to drop a ticket then makes it ask for as many sessions as it
// has callers, each time. So after leastPatience tickets it is doubted, and, where there
// was no reason, after twice as many the next time.
const leastPatience, mostPatience = 32, 1024

// drainsLocked tells whether tickets are to be kept, one of which is about to be dropped.
func (g *Gate[S, C]) drainsLocked() bool {
	if g.trust != Alone || g.shut {
		return g.trust == Draining && !g.shut
	}
	if g.silent++; g.silent <= g.patience {
		return false
	}
	g.silent = 0
	g.patience = min(2*g.patience, mostPatience)
	g.trust = Draining
	g.doubt()
	return true
}

// Take begins a hold for a ticket that leaves the free list: of the session that the
// ticket had last, or else, unless it is to be its own, of the one used last. It never
// waits. Without one it returns nil, as it does where the lane may have none now, which is
// barred then: until Leave, or until it comes back, the ticket is away, and counts as free for
// what the gate keeps ready, but not for who may be served. One that has expired comes back with false: it is closing, and the caller
// closes it.
func (g *Gate[S, C]) Take(t *Ticket[S], own bool, id LaneID, now clock.Instant) (s *S, fit, barred bool) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.barredLocked(id) {
		if t.free && g.awayLocked(t, true) {
			g.settleLocked(now) // nobody has a ticket for one that is ready
		}
		return nil, false, true
	}
	g.unfreeLocked(t)
	taken := t.last
	if taken == nil || taken.place != ready {
		taken = nil
		if !own && g.trust != Private {
			taken = g.ready.newest()
		}
	}
	if taken == nil {
		g.settleLocked(now) // one that is ready may have no ticket now
		return nil, false, false
	}
	g.ready.remove(&taken.node)
	if taken.life.Expired(taken.heard, now) {
		g.closeLocked(taken, Expired)
		return taken.of, false, false
	}
	g.holdLocked(taken, id)
	return taken.of, true, false
}

// Leave notes that a ticket has left the free list without asking for a session.
func (g *Gate[S, C]) Leave(t *Ticket[S]) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.unfreeLocked(t)
	g.settleLocked(clock.Now()) // as in Take
}

// Free notes that a ticket is in the free list that has no session to give back.
func (g *Gate[S, C]) Free(t *Ticket[S]) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.freeLocked(t)
}

// Stays tells whether a ticket stays in the free list that comes back without a
// session: it is there already, or it has none yet and is as good as it was.
func (g *Gate[S, C]) Stays(t *Ticket[S], good bool) bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	if good && !g.shut {
		g.freeLocked(t)
	}
	return t.free
}

func (g *Gate[S, C]) freeLocked(t *Ticket[S]) {
	g.awayLocked(t, false)
	if !t.free {
		t.free = true
		g.free++
	}
}

func (g *Gate[S, C]) unfreeLocked(t *Ticket[S]) {
	g.awayLocked(t, false)
	if t.free {
		t.free = false
		g.free--
	}
}

// awayLocked notes whether a caller has the ticket whose lane is barred, and tells whether that is new.
func (g *Gate[S, C]) awayLocked(t *Ticket[S], is bool) (changed bool) {
	if t.away == is {
		return false
	}
	if t.away = is; is {
		g.away++
	} else {
		g.away--
	}
	return true
}

// Returned is what became of a session that was given back.
type Returned uint8

// What became of it.
const (
	Kept   Returned = iota // it is ready, and the ticket is free
	Handed                 // a waiter has it, and the ticket is worth nothing
	Closed                 // it is closing, and the caller closes it
)

// Return ends a hold. bad says that the session is of no use any more.
func (g *Gate[S, C]) Return(t *Ticket[S], s *Session[S], bad bool, now clock.Instant) Returned {
	g.mu.Lock()
	defer g.mu.Unlock()
	became := g.returnLocked(t, s, bad, now)
	g.laneFreedLocked(now)
	return became
}

func (g *Gate[S, C]) returnLocked(t *Ticket[S], s *Session[S], bad bool, now clock.Instant) Returned {
	g.endLocked(s, now)
	t.last, s.fresh = s, false
	var next *Waiter[S, C]
	if g.lanes.waiting > 0 {
		next = g.nextFitLocked(now)
	}
	switch {
	case bad:
		g.closeLocked(s, Bad)
		return Closed
	case (next != nil || g.overLocked(1)) && !g.foreignLocked(s) && g.drainsLocked():
		g.readyLocked(s) // over the limit or not: its ticket is not to be refused for that
		g.freeLocked(t)
		return Kept
	case !g.fitLocked(s, now):
		return Closed
	case next != nil && g.trust == Private: // it may be of another pool
		g.closeLocked(s, Dropped)
		return Closed
	case next != nil:
		g.counts.Handovers++
		g.serveLocked(next, s, now)
		return Handed
	}
	g.readyLocked(s)
	g.freeLocked(t)
	return Kept
}

// Drop gives up a ticket. Where more sessions are ready then than tickets are free, it
// returns one that the caller closes: that which the ticket had last, as the pool means
// it, or else the one that was not used for longest. Its own goes with it in any case if
// no other ticket may have that.
func (g *Gate[S, C]) Drop(t *Ticket[S], now clock.Instant) *S {
	g.mu.Lock()
	defer g.mu.Unlock()
	if !t.free {
		return nil
	}
	g.unfreeLocked(t)
	g.settleLocked(now)
	s := t.last
	own := s != nil && s.place == ready
	switch {
	case own && g.trust == Private:
	case g.ready.len <= max(g.free, g.keep):
		return nil
	case !own:
		s = g.ready.first.of
	}
	g.ready.remove(&s.node)
	g.closeLocked(s, Dropped)
	return s.of
}

// Surplus takes the sessions that no free ticket answers for, such as those whose caller
// was refused and went away; not those that nobody has had so far, and that are younger than
// freshFor. The caller closes them.
func (g *Gate[S, C]) Surplus(now clock.Instant) (surplus []*S) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.trust != Alone && g.trust != Private {
		return nil
	}
	g.ready.each(func(s *Session[S]) bool {
		if g.ready.len <= max(g.free, g.keep) {
			return false
		}
		if !s.fresh || now.Sub(s.used) >= freshFor {
			g.ready.remove(&s.node)
			g.closeLocked(s, Dropped)
			surplus = append(surplus, s.of)
		}
		return true
	})
	return surplus
}

// freshFor is how long a session is for the next, which was dialed for somebody who has gone.
const freshFor = 5 * time.Second

// Park ends a hold of which the pool knows nothing: of a session dialed ahead, or
// served to somebody who went away. It tells whether the caller has to close it.
func (g *Gate[S, C]) Park(s *Session[S], now clock.Instant) (closes bool) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.rejectLocked(s, s.used)
	return g.parkLocked(s, now, false)
}

// Deliver ends a hold of somebody who has gone. The session is for whoever waits, or stays
// ready, although no ticket answers for it: somebody may come for it in a moment. It tells
// whether its caller has to close it.
func (g *Gate[S, C]) Deliver(s *Session[S], now clock.Instant) (closes bool) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.rejectLocked(s, s.used)
	return g.parkLocked(s, now, true)
}

// parkLocked has a session that nobody holds served, ready or closing. spare says that it is
// to be ready although no ticket would ever answer for it.
func (g *Gate[S, C]) parkLocked(s *Session[S], now clock.Instant, spare bool) (closes bool) {
	defer g.laneFreedLocked(now)
	next := g.nextFitLocked(now)
	switch {
	case !g.fitLocked(s, now):
		return true
	case next != nil:
		g.serveLocked(next, s, now)
		return false
	case !spare && g.ready.len >= max(g.free, g.keep):
		g.closeLocked(s, Dropped)
		return true
	}
	g.readyLocked(s)
	return false
}

// Condemn ends a hold: the session proved bad in its holder's hands, or was taken from
// them. Its caller closes it.
func (g *Gate[S, C]) Condemn(s *Session[S], why Reason, now clock.Instant) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.CondemnLocked(s, why, now)
}

// CondemnLocked is Condemn for what is called by Look.
func (g *Gate[S, C]) CondemnLocked(s *Session[S], why Reason, now clock.Instant) {
	g.endLocked(s, now)
	g.closeLocked(s, why)
	if why == Bad {
		g.bad = now
	}
	g.laneFreedLocked(now)
}

// Reject ends a hold that comes to nothing: the session does not go to who was given
// it. Its caller closes it.
func (g *Gate[S, C]) Reject(s *Session[S], why Reason) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.rejectLocked(s, s.used)
	g.closeLocked(s, why)
	g.laneFreedLocked(clock.Now())
}

// Unfit tells whether a session that was ready, or handed over, and is held now, must
// not be used all the same, and why: it has expired, or a session proved bad since it
// was used last. Then whatever made that one bad may have happened to this one too, and
// there is nobody who would try again.
func (g *Gate[S, C]) Unfit(s *Session[S], now clock.Instant) (why Reason, unfit bool) {
	g.mu.Lock()
	defer g.mu.Unlock()
	switch {
	case s.life.Expired(s.heard, now):
		return Expired, true
	case s.used < g.bad:
		return Bad, true
	}
	return Dropped, g.trust == Private && !s.fresh || g.foreignLocked(s)
}

// foreignLocked tells whether a session may have been used by a pool that has gone: whoever
// has it keeps it, and nobody else gets it.
func (g *Gate[S, C]) foreignLocked(s *Session[S]) bool {
	return g.trust != Private && s.era != g.era
}

// Gone ends the life of a session that its closer has closed. Its room goes to the
// first who waits, if they may dial: a server that had no room has some now.
func (g *Gate[S, C]) Gone(s *Session[S]) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.counts.Closed[s.reason]++
	g.open--
	g.pace.until = 0
	g.admitLocked()
}

// SetLimit changes the limit, and returns the ready sessions that are over it, which the
// caller closes.
func (g *Gate[S, C]) SetLimit(n int) (over []*S) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.limit = n
	g.laneFreedLocked(clock.Now()) // it may have more; and nothing is reserved at a limit that is too low for it
	g.admitLocked()
	return g.trimLocked()
}

// trimLocked takes the ready sessions that are over the limit. While the pool is drained
// they stay, since tickets are on their way to whoever is to have them.
func (g *Gate[S, C]) trimLocked() (over []*S) {
	for g.trust != Draining && g.ready.len > 0 && g.overLocked(0) {
		s := g.ready.popFirst()
		g.closeLocked(s, OverSize)
		over = append(over, s.of)
	}
	return over
}

// SetTrust says how far the pool's tickets may be overruled from now on, and returns the
// ready sessions that are over the limit, or may be of a pool that has gone, which the
// caller closes.
func (g *Gate[S, C]) SetTrust(t Trust, now clock.Instant) (over []*S) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if t == Draining {
		g.patience = leastPatience // it was right to doubt
	}
	if g.trust == Private && t != Private {
		g.era++
		for s := g.ready.popFirst(); s != nil; s = g.ready.popFirst() {
			g.closeLocked(s, Dropped)
			over = append(over, s.of)
		}
	}
	g.trust, g.silent = t, 0
	over = append(over, g.trimLocked()...)
	g.settleLocked(now)
	return over
}

// Shut ends all waits with ErrShut, and returns the sessions that are ready, which the
// caller closes. Those that are held end when they are given back.
func (g *Gate[S, C]) Shut() (all []*S) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.shut = true
	g.eachWaiterLocked(func(w *Waiter[S, C]) bool {
		g.RefuseLocked(w, ErrShut)
		return true
	})
	for s := g.ready.popFirst(); s != nil; s = g.ready.popFirst() {
		g.closeLocked(s, ShutDown)
		all = append(all, s.of)
	}
	return all
}
