package sqllease

import (
	"sync"
	"time"

	"go.opentelemetry.io/otel/trace"

	"github.com/sqllease/sqllease/internal/callstack"
	"github.com/sqllease/sqllease/internal/clock"
	"github.com/sqllease/sqllease/internal/gate"
	"github.com/sqllease/sqllease/internal/recording"
)

// recorder keeps what a pool did last, where somebody asked for that.
type recorder struct {
	leases recording.Ring[kept]
	events recording.Ring[event]
	since  clock.Instant // guarded by the gate's lock: when it began to keep what it has; zero: it does not

	sizing sync.Mutex // held while the size changes, of all of it
}

// kept is a lease that has ended, or an acquire that failed.
type kept struct {
	id, session, connection, inUse uint64

	start, acquired, ended         clock.Instant
	parts                          parts
	unused, reading, inTransaction time.Duration

	lane    gate.LaneID
	stack   *callstack.Known
	trace   trace.TraceID
	span    trace.SpanID
	flags   trace.TraceFlags
	outcome Outcome
	query   string
}

// event is something else that happened.
type event struct {
	kind    EventKind
	at      clock.Instant
	took    time.Duration
	session uint64
	server  uint64 // its number of that
	lease   uint64
	why     string
	limit   int
	found   string
	fix     string
}

// longestRecorded is the longest statement that is kept with its lease: so the memory is bounded.
const longestRecorded = 1024

// of begins the record of a lease, or of an acquire. Its claim does not change meanwhile.
func (k *kept) of(by *claim, p parts) {
	k.start, k.stack, k.lane, k.parts = by.start, by.stack, by.lane, p
	k.trace, k.span, k.flags = by.span.TraceID(), by.span.SpanID(), by.span.TraceFlags()
}

// ended keeps a lease that ends. Its caller holds the session.
func (r *recorder) ended(s *session, now clock.Instant, how Outcome) {
	l := &s.lease
	if l.acquired.IsZero() { // its reset failed: the acquire goes on, or is told by itself
		return
	}
	var k kept
	k.of(&l.claim, l.parts)
	k.id, k.session, k.connection, k.inUse = l.id, l.number, l.connection, uint64(s.Among()) //nolint:gosec // it is not negative
	k.acquired, k.ended, k.outcome = l.acquired, now, how
	k.unused, k.reading, k.inTransaction = l.rest.all, l.open.rows.took, l.open.transaction.took
	if l.raw { // what the application does with the driver's own connection is not known
		k.unused = 0
	}
	if l.openRows > 0 {
		k.reading += l.open.rows.until(now, l.rest.all)
	}
	if l.inTx {
		k.inTransaction += l.open.transaction.until(now, 0)
	}
	if len(l.query) <= longestRecorded {
		k.query = l.query
	}
	r.leases.Add(&k)
}

// failed keeps an acquire that failed.
func (r *recorder) failed(by *claim, p parts, now clock.Instant, why string) {
	if !r.leases.On() {
		return
	}
	k := kept{ended: now, outcome: Outcome(why)}
	k.of(by, p)
	r.leases.Add(&k)
}

// happened keeps an event, of now.
func (r *recorder) happened(e event) {
	if r.events.On() {
		e.at = clock.Now()
		r.events.Add(&e)
	}
}

// reported keeps that something was reported. Its texts are made only where they are kept.
func (r *recorder) reported(e event, texts func() (found, fix string)) {
	if !r.events.On() {
		return
	}
	found, fix := texts()
	e.found, e.fix = cut(found, longestRecorded), cut(fix, longestRecorded)
	r.happened(e)
}

// spells are for how long a lease had something open.
type spells struct{ rows, transaction spell }

// any tells whether it had.
func (s *spells) any() bool { return s.rows.since|s.transaction.since != 0 }

// spell adds up times of a lease, less what of them it was unused for.
type spell struct {
	took  time.Duration // of those that are over
	since clock.Instant
	rest  time.Duration // for how long the lease had been unused by then
}

// begins begins one.
func (s *spell) begins(now clock.Instant, rest time.Duration) { s.since, s.rest = now, rest }

// ends ends it.
func (s *spell) ends(now clock.Instant, rest time.Duration) { s.took += s.until(now, rest) }

// until is the one that goes on.
func (s *spell) until(now clock.Instant, rest time.Duration) time.Duration {
	return max(0, now.Sub(s.since)-(rest-s.rest))
}

// goesOn is the record of a lease that has not ended. The gate's lock is held.
func (l *lease) goesOn(s *session) (k kept) {
	k.id, k.session, k.connection, k.inUse = l.id, l.number, l.connection, uint64(s.Among()) //nolint:gosec // it is not negative
	if !l.isReady() {
		k.of(&l.claim, parts{})
		return k
	}
	k.of(&l.claim, l.parts)
	k.acquired = l.acquired
	l.mu.Lock()
	defer l.mu.Unlock()
	if len(l.query) <= longestRecorded {
		k.query = l.query
	}
	return k
}
