package sqllease

import (
	"cmp"
	"sync"
	"sync/atomic"
	"time"

	"go.opentelemetry.io/otel/trace"

	"github.com/sqllease/sqllease/internal/callstack"
	"github.com/sqllease/sqllease/internal/clock"
	"github.com/sqllease/sqllease/internal/gate"
	"github.com/sqllease/sqllease/internal/statement"
)

// claim is who acquires a connection: fixed when the acquire begins.
type claim struct {
	start     clock.Instant
	stack     *callstack.Known
	span      trace.SpanContext
	goroutine uint64        // 0: not known
	limit     time.Duration // how long the lease may be checked out but unused; not above zero: for ever
	lane      gate.LaneID
}

// lease is the live record behind a Lease. It is part of its session, and used again
// for the next one.
//
// A lease is written by the goroutine that holds it, and read by others, which find it
// through the gate: what is fixed when it begins is written before it is seen, and
// read only where it is, with the gate's lock held, without which the lease
// does not end; the rest is guarded by mu.
type lease struct {
	claim

	cfg        *settings // of its pool, of all its leases
	number     uint64    // of the session, in its pool: of all its leases
	connection uint64    // the server's number of the session's connection, of all its leases; 0: not known

	id       uint64        // the number of the hold
	seen     atomic.Uint64 // twice that, and one more once the session is ready; 0: it has not begun, or has ended
	parts    parts         // read by others only once it is ready, as the next
	acquired clock.Instant // when it was; zero, to the holder: it is not

	told    told          // guarded by the gate's lock: what the watch has reported of it
	due     clock.Instant // guarded by the gate's lock: when the watch looks at it again, where it is in looks
	inLook  int           // guarded by the gate's lock: its index in looks, from 1; 0: it is not there
	step    uint64        // guarded by the gate's lock: the step of reading at the last look
	stepped clock.Instant // guarded by the gate's lock: when a look saw that step first
	proofs  int           // guarded by the gate's lock: how many of its result sets the garbage collector is asked for
	nesting *nesting      // guarded by the gate's lock: its goroutine waits, or waited, for another

	// hand says in its lowest bits what the session is used for, and above them how
	// often rows, or what is left of them, were read: who wins the change from
	// inHand has the session.
	hand atomic.Uint64

	// mu is held for reading or writing these fields and nothing else. It may
	// be locked under the gate's, never the other way round.
	mu       sync.Mutex
	inCall   call          // guarded by mu; callNone: unused
	last     call          // guarded by mu
	inTx     bool          // guarded by mu
	since    clock.Instant // guarded by mu, but for the holder's reads: when the call in flight began, or the last one ended, or a statement was closed; zero: there was none
	settled  uint64        // guarded by mu: the step of reading at that time
	closing  bool          // guarded by mu: a statement is being closed, which is no call
	query    string        // guarded by mu
	begun    clock.Instant // guarded by mu: when the last call began
	tx       *txSpan       // guarded by mu, but for the holder's reads: the transaction that is open; nil: none
	openRows int           // guarded by mu
	results  int           // guarded by mu: result sets opened on this lease
	opened   uint64        // guarded by mu: result sets opened on this session so far, each of which has this as its number
	latest   uint64        // guarded by mu: the number of the one opened last; 0: it was closed
	rows     *rows         // guarded by mu: the one opened last, until the garbage collector is asked for it

	early   step         // the steps of reading rows before the watch has looked at it
	watched atomic.Bool  // it has, and rows are read by claims of hand from then on
	naming  atomic.Int32 // calls of Columns in flight, which may come without database/sql's lock
	watch   atomic.Bool  // it was reported as unused: its next call is to be told to the watch
	raw     bool         // guarded by the gate's lock: the application has the driver's own connection, and what it does with it cannot be seen

	// Apart from mu, since they change with the rows:
	caller  atomic.Uint64 // the goroutine that used it last; 0: not known
	readAt  atomic.Int64  // the instant at which a row was begun or read; not of every row
	stamped atomic.Uint64 // the step of that row

	closed   bool          // for the holder: a statement was closed since the last call
	answered clock.Instant // likewise: when that call had ended; zero: there was none

	rest rest       // for the holder, and whoever takes the session from it
	open spells     // likewise: what was open on it, for how long
	left *leftovers // for the holder: what it has left on the session; nil: nothing
}

// What a lease's session is used for at the moment.
const (
	inHand uint64 = iota // for nothing
	inUse                // for a call of the holder's
	inRow                // for one that reads rows
	taken                // it was reclaimed, or lost

	handUse = 3 // masks them
	oneRow  = 4 // counts a reading
)

// isTaken tells whether its session was taken from it, if only for a moment:
// takeLocked gives it back where it finds that it came between.
func (l *lease) isTaken() bool { return l.hand.Load()&handUse == taken }

// claimUse begins a use of the session; false: it is in use, or was taken.
func (l *lease) claimUse(as uint64) bool {
	free := l.hand.Load()
	return free&handUse == inHand && l.hand.CompareAndSwap(free, free|as)
}

// unuse ends one, unless the session was lost in it. Nobody else changes hand
// meanwhile.
func (l *lease) unuse() {
	switch used := l.hand.Load(); used & handUse {
	case inUse:
		l.hand.Store(used &^ handUse)
	case inRow:
		l.hand.Store(used&^handUse + oneRow)
	}
}

// giveBack makes the session free to be used, which was in use, or taken.
func (l *lease) giveBack() { l.hand.Store(l.hand.Load() &^ handUse) }

// lose takes the session from it, in a use or after the last.
func (l *lease) lose() { l.hand.Store(l.hand.Load() | taken) }

// steps counts the steps of reading rows: it is odd while a row is being read, or
// what is left of them.
func (l *lease) steps() uint64 {
	hand := l.hand.Load()
	step := hand/oneRow*2 + l.early.load()
	if hand&handUse == inRow {
		step++
	}
	return step
}

// told is what was reported of a lease.
type told struct {
	looked    clock.Instant // when the watch looked at it first; zero: it has not
	idle      bool          // as unused, and nothing was done with it since
	leaked    bool          // as unused, at some time
	busy      bool
	proven    bool
	stands    bool          // it is in a pool that stands still, or was, and has to do with who waits
	moved     clock.Instant // when that was over for the first time; zero: it is not
	threshold time.Duration // of the last report
	reporting *reporting    // how far its reports are; nil: there was none
}

func (t told) anything() bool { return t.leaked || t.busy || t.proven }

// beginReport notes that there is a report on its way. The gate's lock is held, as it is when
// the lease ends.
func (t *told) beginReport(l *Leak) {
	if t.reporting == nil {
		t.reporting = &reporting{}
	}
	l.reporting = t.reporting
	l.reporting.recorded.Add(1)
	l.reporting.told.Add(1)
}

// begin makes the record that of a new lease, whose claim is in it. Nobody else reads it
// yet, so that what mu guards is written without. acquired is zero while the session is
// being reset. A lease of a single call is in use from here on.
func (l *lease) begin(number uint64, acquired clock.Instant, p parts, single bool) {
	l.id = number
	l.usedBy(l.goroutine)
	switch use := l.hand.Load() & handUse; { // nobody ends the last use of a lease
	case single && use != inUse:
		l.hand.Store(l.hand.Load()&^handUse | inUse)
	case !single && use != inHand:
		l.giveBack()
	}
	if l.watch.Load() { // a store costs what a lock costs, a load nothing
		l.watch.Store(false)
	}
	if l.watched.Load() {
		l.watched.Store(false)
	}
	l.told, l.raw = told{}, false
	l.results = 0
	l.inCall, l.last = callNone, callNone
	l.settleLocked(0)
	l.query, l.begun = "", 0
	l.closed, l.closing = false, false
	l.rest = rest{}
	if l.open.any() {
		l.open = spells{}
	}
	if l.left != nil {
		l.left = nil
	}
	l.inTx, l.tx = false, nil
	l.openRows = 0
	l.latest, l.rows = 0, nil
	l.parts, l.acquired = p, acquired
	if acquired.IsZero() {
		l.seen.Store(2 * number)
		return
	}
	l.show()
}

// isOn tells whether it has begun, and not ended. The gate's lock is held.
func (l *lease) isOn() bool { return l.seen.Load() != 0 }

// isReady tells whether it is, and its session was reset. The gate's lock is held.
func (l *lease) isReady() bool { return l.seen.Load()%2 == 1 }

// usedBy notes which goroutine uses it.
func (l *lease) usedBy(goroutine uint64) {
	if l.caller.Load() != goroutine {
		l.caller.Store(goroutine)
	}
}

// hold ends the acquire and starts the hold. That of a single call is shown by its first
// enter, which follows, unless something of the application's comes between: see show.
func (l *lease) hold(now clock.Instant, p parts, single bool) {
	l.parts, l.acquired = p, now
	if !single {
		l.show()
	}
}

// show lets others see that the session is ready.
func (l *lease) show() { l.seen.Store(2*l.id + 1) }

// enter notes that a driver call begins. An empty query keeps the last one. rested is when
// the call before it ended; zero: there was none.
func (l *lease) enter(c call, query string, now clock.Instant) (rested clock.Instant) {
	l.usedBy(callstack.Goroutine())
	if !l.isReady() { // nobody else reads what this writes until it is
		rested = l.enterLocked(c, query, now)
		l.show()
		return rested
	}
	l.rested(l.steps(), now)
	l.mu.Lock()
	rested = l.enterLocked(c, query, now)
	l.mu.Unlock()
	return rested
}

func (l *lease) enterLocked(c call, query string, now clock.Instant) (rested clock.Instant) {
	rested, l.closed = l.answeredAt(), false
	l.inCall, l.last = c, c
	l.begun = now
	if l.tx != nil {
		l.tx.enter(now)
	}
	l.settleLocked(now)
	if query != "" {
		l.query = query
	}
	return rested
}

// leave notes that the driver call ended.
func (l *lease) leave(now clock.Instant) {
	l.mu.Lock()
	l.inCall = callNone
	l.settleLocked(now)
	if l.tx != nil {
		l.tx.leave(now)
	}
	l.mu.Unlock()
}

// settleLocked notes since when the lease is what it is. mu is held, or the lease
// is in no list.
func (l *lease) settleLocked(now clock.Instant) { l.since, l.settled = now, l.steps() }

// beginTx notes that a transaction began. It returns one that it displaces:
// database/sql may begin another before it has rolled back one whose context ended.
func (l *lease) beginTx(t *txSpan, now clock.Instant) (displaced *txSpan) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if displaced = l.tx; displaced != nil {
		displaced.settle(now)
		l.open.transaction.ends(now, 0)
	}
	t.since = now
	l.inTx, l.tx = true, t
	l.open.transaction.begins(now, 0)
	return displaced
}

// endTx notes the end of a transaction, of whichever is open if t is nil, and
// returns the one whose span is to be ended; nil if there is none, or it was ended.
func (l *lease) endTx(t *txSpan, now clock.Instant) *txSpan {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.tx == nil || (t != nil && l.tx != t) {
		return nil
	}
	t = l.tx
	t.settle(now)
	l.inTx, l.tx = false, nil
	l.open.transaction.ends(now, 0)
	return t
}

// openResult notes that the call in flight ended, and opened a result set.
func (l *lease) openResult(r *rows, now clock.Instant) {
	l.mu.Lock()
	l.inCall = callNone
	l.settleLocked(now)
	if l.openRows == 0 {
		l.open.rows.begins(now, l.rest.all)
	}
	l.openRows++
	l.results++
	l.opened++
	r.result = l.opened
	l.latest, l.rows = r.result, r
	l.mu.Unlock()
}

// closeResult notes that a result set was closed.
func (l *lease) closeResult(r *rows, now clock.Instant) {
	l.mu.Lock()
	if l.openRows--; l.openRows == 0 {
		l.open.rows.ends(now, l.rest.all)
	}
	if l.tx != nil {
		l.tx.leave(now)
	}
	if l.latest == r.result {
		l.latest, l.rows = 0, nil
	}
	l.closed = false
	l.settleLocked(now)
	l.mu.Unlock()
}

// forget lets go of a statement that is long: the record lives as long as its
// session. The lease ends, and nobody else writes it.
func (l *lease) forget() {
	if len(l.query) <= statement.Longest {
		return
	}
	l.mu.Lock()
	l.query = ""
	l.mu.Unlock()
}

// stamp notes the time of a step, for stateLocked.
func (l *lease) stamp() (now clock.Instant) {
	now = clock.Now()
	l.stampAt(l.steps(), now)
	return now
}

func (l *lease) stampAt(step uint64, now clock.Instant) {
	l.readAt.Store(int64(now))
	l.stamped.Store(step)
}

// state is whether a call is in flight on a lease, and since when it is, or is
// not. The gate's lock is held.
func (l *lease) state(now clock.Instant) (busy bool, since clock.Instant) {
	if !l.isReady() {
		return true, l.start
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.stateLocked(now)
}

// stateLocked looks at the step of reading, then whose time is noted, then at that
// time: they are noted in the opposite order. Where the step's is not known, it is
// taken for that of the look which saw it first: nothing is said to last longer than
// it does. The session is ready, and the gate's lock is held too.
func (l *lease) stateLocked(now clock.Instant) (busy bool, since clock.Instant) {
	step := l.steps()
	if step != l.step {
		l.step, l.stepped = step, now
	}
	since = cmp.Or(l.since, l.acquired)
	if l.closing {
		return true, since
	}
	if l.inCall != callNone || step == l.settled {
		return l.inCall != callNone, since
	}
	if step != l.stamped.Load() {
		since = max(since, l.stepped)
	}
	return step%2 == 1, max(since, clock.Instant(l.readAt.Load()))
}

// heard notes when its session was heard of last: at the end of its last call, if there was
// one. Its caller is the holder, who ends it.
func (l *lease) heard(s *session) {
	if at := l.answeredAt(); !at.IsZero() {
		s.Heard(at)
	}
}

// isInTx tells whether a transaction is open on it. The gate's lock is held.
func (l *lease) isInTx() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.inTx
}

// heldFor is how long the lease has been held; zero while the acquire goes on.
// Its caller is the holder, who alone writes the time.
func (l *lease) heldFor(now clock.Instant) time.Duration {
	if l.acquired.IsZero() {
		return 0
	}
	return now.Sub(l.acquired)
}

// heldSince is when the hold began, or, while the acquire goes on, the acquire. The gate's
// lock is held.
func (l *lease) heldSince() clock.Instant {
	if l.isReady() {
		return l.acquired
	}
	return l.start
}

// read copies the lease. The gate's lock is held, so that it does not end meanwhile. The
// statement is left as it is: sanitise it once that is released.
func (l *lease) read(now clock.Instant) Lease {
	out := Lease{
		ID:          l.id,
		Unwrapped:   l.raw,
		Lane:        l.cfg.laneName(l.lane),
		SpanContext: l.span,
		Stack:       Stack(l.stack.Stack()),
		hands:       hands{took: l.goroutine, used: l.caller.Load(), lane: l.lane, start: l.start, read: now},
	}
	out.ConnectionID = l.connection
	day := clock.Clocks()
	if l.isOn() && !l.isReady() { // else it is held, or was taken
		out.Acquired, out.Hold, out.Busy = l.start.On(day), now.Sub(l.start), true
		out.Call, out.Since = CallReset, out.Acquired
		return out
	}
	out.Queue, out.Dial, out.Reset = l.parts.queue, l.parts.dial, l.parts.reset
	out.Acquired, out.Hold = l.acquired.On(day), now.Sub(l.acquired)
	l.mu.Lock()
	defer l.mu.Unlock()
	busy, since := l.stateLocked(now)
	out.Busy, out.Since = busy, since.On(day)
	out.Call = l.last.name()
	if busy && l.inCall == callNone && !l.closing {
		out.Call = CallRows
	}
	out.InTx = l.inTx
	out.OpenRows = l.openRows
	out.Statement, out.Begun = l.query, l.begun.On(day)
	return out
}
