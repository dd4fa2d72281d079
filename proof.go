package sqllease

import (
	"context"
	"runtime"
	"slices"
	"sync/atomic"
	"time"

	"go.opentelemetry.io/otel/trace"

	"github.com/sqllease/sqllease/internal/clock"
)

// A *sql.Rows that was not closed, and that nothing refers to any more, can be
// closed by nobody: its lease is leaked for certain. The garbage collector
// tells of it, once it is asked. To ask costs a good part of what a fast query
// costs, so that only those result sets are asked for that are still open when
// the watch looks at their lease first.
//
// Until then the lease refers to its result set, from then on the garbage
// collector's question refers to the lease: neither keeps the *sql.Rows itself
// from being found, since that refers to the result set, and not the other way
// round.

// proofEvery is the time between two looks at what the garbage collector found,
// as long as it was asked lately.
const proofEvery = time.Second

// proofAtLocked arms the watch for the next such look: later and later, since
// result sets that something else keeps are never found.
func (w *watch) proofAtLocked(now clock.Instant) {
	if w.proving > 0 {
		w.atLocked(now.Add(min(max(proofEvery, now.Sub(w.asked)/4), time.Minute)))
	}
}

// proof is what is known of a result set once the garbage collector has found
// it. It does not refer to it.
type proof struct {
	op     operation // of the query
	of     *session
	lease  uint64 // its number
	number uint64 // of the result set, among those of its session
	next   *proof // in unreachable
}

// unreachable are the proofs that the garbage collector has found, newest
// first. It is written on a goroutine of the runtime's, which must not wait,
// and belongs to no testing/synctest bubble: the watch does all the rest.
type unreachable struct{ newest atomic.Pointer[proof] }

func (u *unreachable) add(p *proof) {
	for {
		p.next = u.newest.Load()
		if u.newest.CompareAndSwap(p.next, p) {
			return
		}
	}
}

// take returns what was found since it was last called.
func (u *unreachable) take() *proof { return u.newest.Swap(nil) }

// proveLocked has the garbage collector asked for the result set of a lease.
func (w *watch) proveLocked(l *lease, f *findings) {
	r := l.takeRows()
	if r == nil {
		return
	}
	l.proofs++
	w.proving++
	w.asked = f.now
	f.unclosed = append(f.unclosed, r)
}

// prove does so for the first result set of a lease that the watch looked at
// when there was none yet: those that follow are seen when it looks again.
func (w *watch) prove(l *lease, now clock.Instant) {
	if w.cfg.LeakThreshold <= 0 || now.Sub(l.start) < w.firstLook() || !l.provable() {
		return
	}
	f := &findings{now: now}
	w.gate.Look(func() {
		w.proveLocked(l, f)
		w.proofAtLocked(now)
	})
	w.await(f)
}

// await has the garbage collector tell when it finds the result sets.
func (w *watch) await(f *findings) {
	for _, r := range f.unclosed {
		p := &proof{op: r.op.abandoned(), of: r.session, lease: r.number, number: r.result}
		runtime.AddCleanup(r, w.unreachable.add, p)
	}
}

// abandoned is the operation of a query as it is ended for those who never will.
// It is made of what does not change while rows are read.
func (o *operation) abandoned() operation {
	return operation{
		h: o.h, lease: o.lease, call: o.call, query: o.query, begun: o.begun, span: o.span,
		asked: true,                                                                                    // its span was started, or never will be
		ctx:   trace.ContextWithSpanContext(context.Background(), trace.SpanContextFromContext(o.ctx)), // its own may refer to the rows
	}
}

// provable tells whether the garbage collector may find the first result set.
func (l *lease) provable() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.results == 1 && !l.inTx
}

// takeRows returns the result set that the lease refers to, and has it refer
// to it no more.
func (l *lease) takeRows() *rows {
	l.mu.Lock()
	defer l.mu.Unlock()
	r := l.rows
	l.rows = nil
	return r
}

// hasUnclosed tells whether the result set of that number is open.
func (l *lease) hasUnclosed(number uint64) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.latest == number
}

// provenLocked notes the leases of the result sets that were found. One that
// was taken for its query alone has no other holder, and loses its session.
func (w *watch) provenLocked(f *findings) {
	for p := w.unreachable.take(); p != nil; p = p.next {
		l := &p.of.lease
		if !l.isOn() || l.id != p.lease || !l.hasUnclosed(p.number) {
			continue // it was closed, and found as all garbage is
		}
		f.abandoned = append(f.abandoned, p)
		if l.told.proven {
			continue
		}
		leak := Leak{Lease: l.read(f.now), Class: ClassProven, told: l.told.leaked}
		l.told.beginReport(&leak)
		l.told.idle, l.told.leaked, l.told.proven, l.told.threshold = true, true, true, 0
		l.watch.Store(true)
		leak.Reclaimed = leak.Stack.ofQuery() && w.takeLocked(p.of, f)
		f.leaks = append(f.leaks, &leak)
	}
}

// findings are what one look of the watch has found.
type findings struct {
	now       clock.Instant
	leaks     []*Leak
	reclaimed []*session // for the watch to close
	unclosed  []*rows    // for the watch to have proved
	abandoned []*proof   // for the watch to end their operations
	lostTx    []*txSpan  // that nobody will end
	more      bool       // there is more to look at, at once
}

// takeSlowCalls takes them from the findings.
func (f *findings) takeSlowCalls() (calls []*Leak) {
	f.leaks = slices.DeleteFunc(f.leaks, func(l *Leak) bool {
		if l.Class == ClassBusy {
			calls = append(calls, l)
		}
		return l.Class == ClassBusy
	})
	return calls
}

// endLost ends what the holders of leases that lost their sessions cannot end.
func (r *reports) endLost(f *findings) {
	defer each(f.abandoned, func(p *proof) {
		defer r.cfg.recovered("ending the span of a query whose rows are lost")
		p.op.finish(f.now, errUnclosed, nil)
	})
	defer each(f.lostTx, func(t *txSpan) {
		defer r.cfg.recovered("ending the span of a lost transaction")
		r.tracing.endTx(t, "lost", nil, false)
	})
	each(f.leaks, func(l *Leak) {
		defer r.cfg.recovered("counting the time of a lost lease")
		if l.Reclaimed {
			r.metrics.held(l.hands.lane, &l.SpanContext, l.Hold)
		}
	})
}
