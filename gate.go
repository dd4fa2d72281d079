package sqllease

import (
	"context"
	"errors"
	"sync"
	"time"
)

// gate admits leases: it holds the limit, knows every session, and queues the
// waiters first in, first out. It knows no SQL and makes no driver call.
//
// Invariants, whenever mu is free:
//   - open counts every session that exists or is being dialled, and does not
//     exceed limit (but for sessions that were on lease when it was lowered).
//   - A session is under exactly one handle, or spare, or with exactly one
//     goroutine (its dialler, the waiter it was served to, or its closer).
//   - If somebody waits, no session is spare, and there is no room; nor is one
//     idle, but while the gate drains database/sql's own queue.
type gate struct {
	// mu is held for moving sessions, waiters and leases between lists, and
	// for nothing else: no dial, no driver call, no callback, no log, no
	// method of *sql.DB. database/sql holds a connection's lock while it calls
	// a handle, so mu comes after that lock, and before lease.mu.
	mu         sync.Mutex
	limit      int           // guarded by mu; 0: no limit
	open       int           // guarded by mu: sessions that exist or are being dialled
	dialing    int           // guarded by mu: those being dialled
	closed     bool          // guarded by mu
	idle       list[session] // guarded by mu: longest idle first
	spare      list[session] // guarded by mu: longest spare first
	waiters    list[waiter]  // guarded by mu: longest waiting first
	leases     list[lease]   // guarded by mu: in order of acquiring
	watched    *node[lease]  // guarded by mu: the first lease that the watch has not looked at
	looks      looks         // guarded by mu: those to be looked at again, or sooner
	proving    int           // guarded by mu: result sets on lease that the garbage collector is asked for
	asked      instant       // guarded by mu: when it was asked last
	empty      int           // guarded by mu: handles without a session that database/sql may have in its free list
	draining   bool          // guarded by mu: callers may queue in database/sql
	drainSince instant       // guarded by mu: since then
	lastID     uint64        // guarded by mu
	lastBad    instant       // guarded by mu: when a lease last ended with a bad connection
	lastWaiter uint64        // guarded by mu
	counts     gateCounts    // guarded by mu

	watching instant // guarded by mu: what the watch's timer is armed for; zero: it is not
	expiring instant // guarded by mu: what the expiry's timer is armed for; zero: it is not

	queueAt   instant       // guarded by mu: what the timer of the queue is armed for; zero: it is not
	slowTold  instant       // guarded by mu: when slow acquires were last warned of
	slowAfter time.Duration // how long a waiter may wait without a warning; negative: for ever

	nestings       map[[2]uint64]struct{} // guarded by mu: the places of nested acquires that were reported
	nestedNext     instant                // guarded by mu: when to look for another
	deadlocked     bool                   // guarded by mu: the last look at the queue found a deadlock
	deadlockTold   instant                // guarded by mu: when one was last reported
	failOnDeadlock bool

	unreachable unreachable // result sets that the garbage collector has found

	// Hooks, called under mu; they arm a timer and do nothing else.
	armWatch  func(at instant)
	armExpiry func(at instant)
	armQueue  func(at instant)
	armDrain  func()
	threshold time.Duration // of the watch, for leases idle in hand; negative: there is no watch
	longCall  time.Duration // of the watch, for calls; negative: none

	reclaimAfter time.Duration // how long a lease may be idle in hand and keep its session; zero: for ever
}

// gateCounts are what a gate has seen.
type gateCounts struct {
	acquires, waits   uint64
	queueTime         time.Duration
	timeouts          uint64
	handovers, steals uint64
	nestings          uint64
	deadlocks         uint64
	closed            [closeReasons]uint64
}

// waiter is one goroutine in the queue.
type waiter struct {
	node   node[waiter] // guarded by gate.mu
	number uint64       // guarded by gate.mu
	lease  *lease       // what it waits for; not in the list
	since  instant
	ready  chan struct{} // closed once the waiter was served

	// What it was served: written under gate.mu before ready is closed, read
	// by the waiter after. All zero: it may dial.
	session *session
	err     error
}

// errUnsure is ask's answer where the caller has to look again whether callers
// queue in database/sql.
var errUnsure = errors.New("sqllease: callers may queue in database/sql")

// ask is the non-blocking half of an acquire. It answers with a session in
// transit, or with a waiter in the queue, or with neither: then there was
// room, which the caller has taken, and it dials. A session that came back after
// the caller saw, at looked, that nobody queues in database/sql may be on its way
// to somebody who does, and is not stolen; zero: the caller cannot look.
func (g *gate) ask(l *lease, now, looked instant) (*session, *waiter, error) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.closed {
		return nil, nil, ErrClosed
	}
	if s := g.spare.popLast(); s != nil {
		s.place = inTransit
		return s, nil, nil
	}
	if g.roomLocked() {
		g.reserveLocked()
		return nil, nil, nil
	}
	if !looked.IsZero() && g.idle.len > 0 && g.idle.first.of.used > looked && !g.draining {
		return nil, nil, errUnsure
	}
	if s := g.stealLocked(); s != nil {
		return s, nil, nil
	}
	g.lastWaiter++
	w := &waiter{lease: l, number: g.lastWaiter, since: now, ready: make(chan struct{})}
	g.waiters.push(&w.node, w)
	g.nestedLocked(w, now)
	if g.queueAt.IsZero() {
		g.queueAtLocked(now.Add(stallAfter))
	}
	return nil, w, nil
}

// wait blocks until w is served or ctx ends. It answers like ask; if the
// context ended in the queue, with the place that w had in it, 1 being next. A
// session that comes with an error is of no use to anybody: the caller closes it.
func (g *gate) wait(ctx context.Context, w *waiter) (s *session, place int, err error) {
	select {
	case <-w.ready:
	case <-ctx.Done():
	}
	if ctx.Err() == nil {
		return w.session, 0, w.err
	}
	// The context has ended. Either the waiter is still queued, and leaves, or
	// it was served before this lock was taken: who served it removed it from
	// the queue under mu, so that exactly one of the two is true. What it was
	// served then goes to the next in line.
	g.mu.Lock()
	defer g.mu.Unlock()
	switch {
	case w.node.in != nil:
		place = g.placeLocked(w)
		g.waiters.remove(&w.node)
	case w.err != nil:
		return nil, 0, w.err
	case w.session != nil:
		if !g.parkLocked(w.session) {
			s = w.session
		}
	default:
		g.unreserveLocked()
	}
	return s, place, ctx.Err()
}

// placeLocked counts a waiter's place without walking the queue: waiters are
// numbered as they come, and only those whose context ended leave out of turn.
func (g *gate) placeLocked(w *waiter) int {
	return min(int(w.number-g.waiters.first.of.number)+1, g.waiters.len)
}

// stealLocked takes the session that has been idle longest from under its
// handle: database/sql takes the newest first, and is least likely to be
// reaching for this one. The handle becomes hollow.
func (g *gate) stealLocked() *session {
	if g.draining {
		return nil
	}
	s := g.idle.popFirst()
	if s == nil {
		return nil
	}
	g.counts.steals++
	g.emptyLocked(s.handle)
	s.leaveHandle(inTransit)
	return s
}

// drain is called where callers may queue in database/sql: it gives them what
// comes back without passing its free list, so that a session that is idle here
// may be on its way to one of them. Whoever finds it stolen is refused, and
// database/sql gives in to its third refusal. So until drained, which armDrain
// sees to, idle sessions are not taken from under their handles, and those that
// come back are kept as spares. Their handles are dropped, and for each of these
// database/sql asks its opener for as many connections as callers queue in it,
// who then come to the gate.
func (g *gate) drain(now instant) {
	const longest = 500 * time.Millisecond // a waiter may stand beside an idle session meanwhile
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.closed || g.draining && now.Sub(g.drainSince) > longest {
		return
	}
	if !g.draining {
		g.draining, g.drainSince = true, now
	}
	g.armDrain()
}

// drained ends that: who was given an idle session has reset it by now. It
// serves who came meanwhile, and returns what is to be closed: the sessions over
// the limit, and the spares that are left, which database/sql cannot let go by its
// own limits, but for as many as keep are to be ready.
func (g *gate) drained(keep int) []*session {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.draining = false
	for g.waiters.len > 0 {
		s := g.stealLocked()
		if s == nil {
			break
		}
		g.serveLocked(g.waiters.popFirst(), s)
	}
	surplus := g.surplusLocked()
	for s := g.dropSpareLocked(keep); s != nil; s = g.dropSpareLocked(keep) {
		surplus = append(surplus, s)
	}
	return surplus
}

// emptyLocked notes that database/sql has a handle without a session in its
// free list, or will: it takes the place there of one that has a session.
func (g *gate) emptyLocked(h *handle) {
	if !h.empty {
		h.empty = true
		g.empty++
	}
}

// filledLocked notes that a handle is empty no more, or is no more.
func (g *gate) filledLocked(h *handle) {
	if h.empty {
		h.empty = false
		g.empty--
	}
}

// giveEmpty notes a handle that is given to database/sql without a session.
func (g *gate) giveEmpty(h *handle) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.emptyLocked(h)
}

// leaveHandle makes the handle hollow. gate.mu is held.
func (s *session) leaveHandle(to place) {
	if s.handle != nil {
		s.handle.session = nil
		s.handle = nil
		s.statements.abandon()
	}
	s.place = to
}

func (g *gate) roomLocked() bool { return g.limit == 0 || g.open < g.limit }

// reserveLocked takes room for a session that is going to be dialled.
func (g *gate) reserveLocked() {
	g.open++
	g.dialing++
}

// unreserveLocked gives back the room of a session that was not dialled.
func (g *gate) unreserveLocked() {
	g.dialing--
	g.open--
	g.admitLocked()
}

// admitLocked lets waiters dial while there is room.
func (g *gate) admitLocked() {
	for !g.closed && g.waiters.len > 0 && g.roomLocked() {
		g.reserveLocked()
		close(g.waiters.popFirst().ready)
	}
}

// reserve takes room for a session to be dialled ahead; false if there is none.
func (g *gate) reserve() bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.closed || !g.roomLocked() {
		return false
	}
	g.reserveLocked()
	return true
}

// unreserve ends a dial that failed.
func (g *gate) unreserve() {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.unreserveLocked()
}

// dialed ends a dial that succeeded: the session is in transit.
func (g *gate) dialed(s *session, now instant) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.dialing--
	s.place = inTransit
	s.used = now
}

// condemn sends a session in transit to its closer.
func (g *gate) condemn(s *session, why closeReason) {
	g.mu.Lock()
	defer g.mu.Unlock()
	s.place, s.reason = atCloser, why
}

// replace ends the life of a session that its closer has closed, and keeps
// its room for the dial of its successor.
func (g *gate) replace(s *session) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.counts.closed[s.reason]++
	g.dialing++
}

// gone ends the life of a session that its closer has closed.
func (g *gate) gone(s *session) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.counts.closed[s.reason]++
	g.open--
	g.admitLocked()
}

// park gives a session in transit to the first waiter, or keeps it as a
// spare. It returns false if the caller has to close it instead.
func (g *gate) park(s *session) bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.parkLocked(s)
}

func (g *gate) parkLocked(s *session) bool {
	switch {
	case g.closed:
		s.place, s.reason = atCloser, closedShutdown
		return false
	case g.overLocked():
		s.place, s.reason = atCloser, closedLimit
		return false
	}
	if w := g.waiters.popFirst(); w != nil {
		g.serveLocked(w, s)
		return true
	}
	g.spareLocked(s)
	return true
}

func (g *gate) spareLocked(s *session) {
	s.place = isSpare
	g.spare.push(&s.node, s)
	g.expireAtLocked(s.life.expiry(s.used))
}

// overLocked tells whether the limit was lowered below what is open.
func (g *gate) overLocked() bool { return g.limit > 0 && g.open > g.limit }

// serveLocked hands a session that is under no handle to a waiter.
func (g *gate) serveLocked(w *waiter, s *session) {
	s.place = inTransit
	w.session = s
	close(w.ready)
}

// lend puts a session in transit on lease under a new handle.
func (g *gate) lend(s *session, h *handle) {
	g.mu.Lock()
	defer g.mu.Unlock()
	s.handle, h.session = h, s
	s.place = onLease
	g.filledLocked(h)
	g.beginLocked(&h.lease, h.lease.heldSince())
}

func (g *gate) idleLocked(s *session) {
	s.place = isIdle
	g.idle.push(&s.node, s)
	g.expireAtLocked(s.life.expiry(s.used))
}

// checkout begins a lease on the session under h, which database/sql took
// from its free list. It returns nil if the session is gone, or may not be
// handed out any more; database/sql then closes the handle.
func (g *gate) checkout(h *handle, now instant) *session {
	g.mu.Lock()
	defer g.mu.Unlock()
	s := h.session
	if s == nil || s.place != isIdle {
		g.filledLocked(h) // it leaves the free list, and its caller comes to Connect
		return nil
	}
	g.idle.remove(&s.node)
	if s.life.expired(s.used, now) {
		s.place, s.reason = atCloser, closedExpired
		return nil
	}
	s.place = onLease
	g.beginLocked(&h.lease, now)
	return s
}

// beginLocked enters a lease into the list.
func (g *gate) beginLocked(l *lease, now instant) {
	g.lastID++
	g.counts.acquires++
	l.id = g.lastID
	g.enlistLocked(l, now)
}

// enlistLocked makes the watch look at a lease in time.
func (g *gate) enlistLocked(l *lease, now instant) {
	l.told, l.raw = told{}, false
	g.leases.push(&l.node, l)
	if g.threshold <= 0 {
		return
	}
	if g.watched == nil {
		g.watched = &l.node
	}
	at := now.Add(g.firstLook())
	if l.limit > 0 && l.limit < g.firstLook() {
		at = now.Add(l.limit)
		g.lookLocked(l, at)
	}
	g.watchAtLocked(at)
}

func (g *gate) endLocked(l *lease) {
	l.nesting = nil
	if g.watched == &l.node {
		g.watched = l.node.next
	}
	g.leases.remove(&l.node)
	g.unlookLocked(l)
	g.proving -= l.proofs
	l.proofs = 0
}

// queued counts a wait that ended with a session or the right to dial.
func (g *gate) queued(d time.Duration) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.counts.waits++
	g.counts.queueTime += d
}

// unwrap notes that the holder takes the driver's own connection. It does so in
// a use, so that a reclaim either sees it or comes to nothing.
func (g *gate) unwrap(l *lease) {
	g.mu.Lock()
	defer g.mu.Unlock()
	l.raw = true
}

// requeue moves a lease to the end of the list: its acquire has only ended
// now, after a reset that took time.
func (g *gate) requeue(l *lease, now instant) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.endLocked(l)
	g.enlistLocked(l, now)
}

// release ends the lease of h. It reports whether the session stays under the
// handle for database/sql's free list. If not, it was handed over to the
// longest waiter, or waits under the handle to be closed by it.
func (g *gate) release(h *handle, valid bool, now instant) (stays bool, e ending) {
	g.mu.Lock()
	defer g.mu.Unlock()
	s := h.session
	if s == nil || s.place != onLease {
		// Returned without having been on lease: a waiter of database/sql's
		// own queue gave up at the moment it was served.
		return s != nil && s.place == isIdle && valid, e
	}
	e = g.endingLocked(&h.lease, now)
	s.used = now
	if why, keep := g.fateLocked(s, valid, now); !keep {
		s.place, s.reason = atCloser, why
		return false, e
	}
	if w := g.waiters.popFirst(); w != nil {
		g.counts.handovers++
		s.leaveHandle(inTransit)
		g.serveLocked(w, s)
		return false, e
	}
	if g.draining {
		s.leaveHandle(inTransit)
		g.spareLocked(s)
		return false, e
	}
	g.idleLocked(s)
	return true, e
}

// ending is what there is to tell of a lease that ended.
type ending struct {
	reported  bool          // the watch had reported it
	class     Class         // as what
	threshold time.Duration // held past this
	nesting   *nesting      // its request waited for another meanwhile
}

// endingLocked ends a lease.
func (g *gate) endingLocked(l *lease, now instant) (e ending) {
	if l.nesting != nil {
		e.nesting = g.nestedEndLocked(l, now)
	}
	if l.told.anything() {
		e.reported, e.threshold = true, l.told.threshold
		if l.told.leaked {
			e.class = ClassIdleInHand
		}
	}
	g.endLocked(l)
	return e
}

// fateLocked tells whether a session that comes back may go on.
func (g *gate) fateLocked(s *session, valid bool, now instant) (closeReason, bool) {
	switch {
	case !valid:
		return closedBad, false
	case g.closed:
		return closedShutdown, false
	case s.life.expired(s.used, now):
		return closedExpired, false
	case g.overLocked():
		return closedLimit, false
	}
	return 0, true
}

// drop takes the session from under a handle that is being closed, and makes
// the caller its closer. It returns nil for a session that goes to a waiter, or
// stays as a spare: because fewer than keep would be ready without it, or
// because it is dropped only for the place that an empty handle takes in
// database/sql's free list. An empty handle that is dropped has such a spare
// dropped in its stead.
func (g *gate) drop(h *handle, keep int, now instant) (s *session, e ending) {
	g.mu.Lock()
	defer g.mu.Unlock()
	s = h.session
	if s == nil {
		return g.dropEmptyLocked(h, keep), e
	}
	switch s.place {
	case onLease: // dropped without having been given back: the connection is bad
		e = g.endingLocked(&h.lease, now)
		s.reason = closedBad
		g.lastBad = now
	case isIdle:
		g.idle.remove(&s.node)
		if !g.closed && (g.waiters.len > 0 || g.idle.len+g.spare.len < keep || g.spare.len < g.empty) {
			s.leaveHandle(inTransit)
			if g.parkLocked(s) {
				return nil, e
			}
			return s, e
		}
		s.reason = closedDropped
		if g.closed {
			s.reason = closedShutdown
		}
	}
	s.place = atCloser
	s.handle, h.session = nil, nil
	return s, e
}

func (g *gate) dropEmptyLocked(h *handle, keep int) *session {
	if !h.empty {
		return nil
	}
	g.filledLocked(h)
	return g.dropSpareLocked(keep)
}

// dropSpareLocked sends a spare to the closer for which there is no empty handle
// and that need not be ready; nil: there is none.
func (g *gate) dropSpareLocked(keep int) *session {
	if g.spare.len <= g.empty || g.idle.len+g.spare.len <= keep {
		return nil
	}
	s := g.spare.popFirst()
	s.place, s.reason = atCloser, closedDropped
	return s
}

// setLimit changes the limit and returns the sessions that are over it, which
// the caller closes.
func (g *gate) setLimit(n int) []*session {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.limit = n
	g.admitLocked()
	return g.surplusLocked()
}

// surplusLocked takes those sessions over the limit that nobody uses.
func (g *gate) surplusLocked() (over []*session) {
	for g.limit > 0 && g.open-len(over) > g.limit {
		s := g.takeReadyLocked()
		if s == nil {
			break
		}
		s.reason = closedLimit
		over = append(over, s)
	}
	return over
}

// takeReadyLocked takes a session that nobody uses and sends it to the
// closer.
func (g *gate) takeReadyLocked() *session {
	s := g.spare.popFirst()
	if s == nil && !g.draining {
		s = g.idle.popFirst()
	}
	if s != nil {
		g.closeReadyLocked(s)
	}
	return s
}

// closeReadyLocked sends a session to the closer that was idle or spare.
func (g *gate) closeReadyLocked(s *session) {
	if s.handle != nil {
		g.emptyLocked(s.handle)
	}
	s.leaveHandle(atCloser)
}

// shut closes the gate: every waiter is refused, and the sessions that nobody
// uses are returned, for the caller to close. Those on lease end at release.
func (g *gate) shut() []*session {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.closed, g.draining = true, false
	for w := g.waiters.popFirst(); w != nil; w = g.waiters.popFirst() {
		w.err = ErrClosed
		close(w.ready)
	}
	var ready []*session
	for s := g.takeReadyLocked(); s != nil; s = g.takeReadyLocked() {
		s.reason = closedShutdown
		ready = append(ready, s)
	}
	return ready
}

// expireAtLocked makes sure that the expiry's timer fires at that time, or
// earlier; zero: the session never expires.
func (g *gate) expireAtLocked(at instant) {
	if g.closed || at.IsZero() || (!g.expiring.IsZero() && at >= g.expiring) {
		return
	}
	g.expiring = at
	g.armExpiry(at)
}

// expire takes the idle and spare sessions that are past their expiry, for
// the caller to close.
func (g *gate) expire(now instant) (gone []*session) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.expiring = 0
	for _, l := range []*list[session]{&g.idle, &g.spare} {
		l.each(func(s *session) bool {
			if !s.life.expired(s.used, now) {
				g.expireAtLocked(s.life.expiry(s.used))
				return true
			}
			l.remove(&s.node)
			g.closeReadyLocked(s)
			s.reason = closedExpired
			gone = append(gone, s)
			return true
		})
	}
	return gone
}

// missing tells whether fewer than n sessions are ready or being made ready,
// and there is room for another.
func (g *gate) missing(n int) bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	return !g.closed && g.idle.len+g.spare.len+g.dialing < n && g.roomLocked()
}

// stale tells whether a session in transit, which has not been used for a
// while, is not to be handed out: it has reached its expiry, or a connection
// proved bad since its last use. The reset of many drivers does not notice a
// server that went away, and database/sql, which comes to Connect after two
// bad connections, tries no further.
func (g *gate) stale(s *session, now instant) (closeReason, bool) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if s.life.expired(s.used, now) {
		return closedExpired, true
	}
	return closedBad, s.used < g.lastBad
}
