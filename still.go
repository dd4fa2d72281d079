package sqllease

import (
	"cmp"
	"context"
	"log/slog"
	"maps"
	"slices"
	"time"

	"go.opentelemetry.io/otel/trace"

	"github.com/sqllease/sqllease/internal/clock"
	"github.com/sqllease/sqllease/internal/goroutines"
)

// A pool stands still where callers wait, every session is on lease, and nothing is done with
// any of them. It may be a deadlock: that is certain where the goroutine that used each session
// last waits for another itself. It may be that these wait for goroutines that wait: then they
// have started them, or the trace is the same. Or the holders do something else, or are gone.
//
// Where lanes keep those who wait from what is free, the lanes that they wait for stand still, and
// what the others do does not matter.
//
// While anybody dials, or there is room to dial, the pool does not stand still: those who wait may
// wait for that. There is room, and nobody dials, in the rests after a server had none (see
// internal/gate/pace.go).

// standing is a pool that stands still.
type standing struct {
	since    clock.Instant // since when: of the last use of a session, or of the first who waits
	told     bool          // it was reported
	deadlock bool          // as a deadlock
}

// mostRead bounds how many leases, and how many who wait, are read of a pool that stands still.
const mostRead = 1024

// stalled is a lease on which nothing is done, and who waits that has to do with it.
type stalled struct {
	Lease
	session  *session
	claim    claim
	caller   uint64 // the goroutine that used it last; 0: not known
	relation Relation
	waiter   *waiting // nil: there is no relation
}

// waiting is a caller who waits, of a pool that stands still.
type waiting struct {
	claim
	where Stack
	waits time.Duration
}

// still is what a look at the queue has found of a pool that stands still, or did.
type still struct {
	Standstill
	fresh          bool // it is counted
	held           []*stalled
	waits          []*waiting
	each, requests int // connections that one request needs; how many requests there are
	limit          int // connections that those of the first lease's lane may have
	lane           string
}

// standsLocked looks at the whole pool, or at the lanes that are waited for; idle and all are those
// of the whole pool.
func (q *waits) standsLocked(idle []*session, all bool, first, now clock.Instant) *still {
	lanes, places := q.gate.AwaitedLocked()
	if lanes != nil {
		if idle, all = q.stalledLocked(now, lanes); all && len(idle) < places { // somebody dials in one
			return nil
		}
	}
	return q.stillLocked(idle, all, lanes != nil, first, now)
}

// stillLocked tells what there is to tell of a pool that stands still: when it has done so for
// long enough, when that proves to be a deadlock, and when it is over. first is since when the
// first who waits does; idle are the sessions on which nothing was done for a while, all tells
// whether these are all, and barred that what else is there is not for those who wait.
func (q *waits) stillLocked(idle []*session, all, barred bool, first, now clock.Instant) *still {
	switch f := q.gate.FiguresLocked(); {
	case len(idle) == 0 || !all:
		return q.movedLocked(now)
	case barred:
	case f.Held < f.Open, f.Limit == 0 || f.Open < f.Limit: // a dial may fail, and nothing has moved then
		return nil
	}
	var last clock.Instant // when something was done with one of them
	for _, s := range idle {
		_, since := s.lease.state(now)
		last = max(last, since)
	}
	if q.still != nil && q.still.since < last {
		if over := q.movedLocked(now); over != nil {
			return over // the next look sees the next one
		}
	}
	if q.still == nil {
		q.still = &standing{since: max(last, first)}
	}
	since, after, failAfter := q.still.since, q.cfg.StandstillThreshold, q.cfg.FailDeadlockAfter
	circle, newest := q.pairLocked(idle)
	if circle != nil {
		since = max(since, newest.start) // who closed it
	}
	lasts := now.Sub(since)
	fails := circle != nil && failAfter > 0 && lasts >= max(failAfter, stallAfter)
	tells := after > 0 && lasts >= after && (!q.still.told || circle != nil && !q.still.deadlock)
	if !fails && !tells {
		return nil
	}
	found := q.describeLocked(idle, circle, now)
	if fails {
		found.Failed = Stack(newest.stack.Stack())
		q.breakLocked(circle, newest)
	}
	return found
}

// mayStandLocked tells whether the pool seems to stand still, and that is about to be told: then
// nothing else is told of those who do.
func (q *waits) mayStandLocked(now clock.Instant) bool {
	return q.still != nil && now.Sub(q.still.since) < min(q.cfg.StandstillThreshold, DefaultSlowAcquireThreshold)
}

// movedLocked ends it, and tells of it where it was told that it began.
func (q *waits) movedLocked(now clock.Instant) *still {
	was := q.still
	if q.still = nil; was == nil || !was.told {
		return nil
	}
	q.slowTold = now // who waits still was told of
	q.gate.eachLeaseLocked(func(s *session) {
		if l := &s.lease; l.told.stands && l.told.moved.IsZero() {
			l.told.moved = now
		}
	})
	return &still{Standstill: Standstill{Deadlock: was.deadlock, Over: true, Since: was.since.Time(), For: now.Sub(was.since)}}
}

// heldBy is a session and the acquire whose goroutine used it last.
type heldBy struct {
	session *session
	acquire *acquire
}

// pairLocked finds for each lease the waiter whose goroutine used it last, and
// the last of these waiters; nil if one has none. It looks at a lease once: its
// holder may begin a call at any time.
func (q *waits) pairLocked(idle []*session) (circle []heldBy, last *acquire) {
	waiting := map[uint64]*acquire{}
	q.gate.eachWaiterLocked(func(a *acquire) { waiting[a.goroutine] = a })
	delete(waiting, 0)
	for _, s := range idle {
		a := waiting[s.lease.caller.Load()]
		if a == nil || !ofRequest(&s.lease.claim, &a.claim) {
			return nil, nil
		}
		if last == nil || a.Number() > last.Number() {
			last = a
		}
		circle = append(circle, heldBy{s, a})
	}
	return circle, last
}

// breakLocked ends a deadlock: the last of the waiters fails, and what it holds
// lets the others go on. They go before those who hold nothing, which would
// otherwise be served first, take their connection, and wait again.
func (q *waits) breakLocked(circle []heldBy, last *acquire) {
	q.gate.RefuseLocked(&last.Waiter, ErrDeadlock)
	holders := map[*acquire]bool{}
	for _, h := range circle {
		holders[h.acquire] = true
	}
	q.gate.PreferLocked(func(a *acquire) bool { return holders[a] })
}

// describeLocked notes that it is told, and reads what there is to tell. What is named here is
// told nowhere else.
func (q *waits) describeLocked(idle []*session, circle []heldBy, now clock.Instant) *still {
	f := q.gate.FiguresLocked()
	s := &still{fresh: !q.still.told || circle != nil && !q.still.deadlock}
	q.still.told, q.still.deadlock = true, circle != nil
	s.Deadlock, s.Since, s.For = circle != nil, q.still.since.Time(), now.Sub(q.still.since)
	s.Limit, s.InUse, s.Waiting = f.Limit, f.Held, f.Waiting
	if len(idle) < f.Held {
		s.Lanes = q.lanesLocked(idle)
		s.InUse = len(idle)
	}
	if s.fresh {
		q.standstills++
	}
	if s.fresh && s.Deadlock {
		q.deadlocks++
	}
	q.readLocked(s, idle, now)
	s.relate()
	q.nameLocked(s)
	return s
}

// lanesLocked names the lanes of some sessions.
func (q *waits) lanesLocked(of []*session) (names []string) {
	for _, s := range of {
		if name := q.cfg.laneName(s.Lane()); !slices.Contains(names, name) {
			names = append(names, name)
		}
	}
	slices.Sort(names)
	return names
}

// readLocked reads the leases and who waits.
func (q *waits) readLocked(s *still, idle []*session, now clock.Instant) {
	q.gate.eachWaiterLocked(func(a *acquire) {
		if len(s.waits) < mostRead {
			s.waits = append(s.waits, &waiting{a.claim, Stack(a.stack.Stack()), now.Sub(a.start)})
		}
	})
	for _, session := range idle[:min(len(idle), mostRead)] {
		l := &session.lease
		s.held = append(s.held, &stalled{Lease: l.read(now), session: session, claim: l.claim, caller: l.caller.Load()})
	}
}

// relate finds who waits of each lease's goroutine, or else of its trace.
func (s *still) relate() {
	goroutines, traces := map[uint64]*waiting{}, map[trace.TraceID]*waiting{}
	for _, w := range slices.Backward(s.waits) { // the first who came is left
		goroutines[w.goroutine], traces[w.span.TraceID()] = w, w
	}
	delete(goroutines, 0)
	delete(traces, trace.TraceID{})
	for _, h := range s.held {
		if w := goroutines[h.caller]; w != nil && ofRequest(&h.claim, &w.claim) {
			h.relation, h.waiter = SameGoroutine, w
		} else if w := traces[h.claim.span.TraceID()]; w != nil {
			h.relation, h.waiter = SameTrace, w
		}
	}
}

// nameLocked notes what a report names: leases that have to do with who waits are no leaks, and
// their places are not told as those of nested acquires besides.
func (q *waits) nameLocked(s *still) {
	now, most, held := clock.Now(), 0, map[*waiting]int{}
	for _, h := range s.held {
		l := &h.session.lease
		if h.waiter == nil || !l.isOn() || l.id != h.ID {
			continue
		}
		l.told.stands = true
		if _, since := l.state(now); since > l.told.moved {
			l.told.moved = 0 // it was used since the last time
		}
		q.named.add([2]uint64{l.place(), h.waiter.place()})
		held[h.waiter]++
		most = max(most, held[h.waiter])
	}
	s.each = most + 1
	if len(s.held) > 0 {
		lane := s.held[0].claim.lane
		s.requests, s.limit, s.lane = q.requestsLocked(lane), q.gate.MostLocked(lane), q.cfg.laneLimit(lane)
	}
}

// tell groups what was read by places.
func (s *still) tell() {
	type place struct {
		holder, waiter string
		relation       Relation
	}
	held, waits := map[place]*HeldPlace{}, map[string]*WaitPlace{}
	for _, h := range s.held { // the oldest first
		at, where := place{holder: h.Stack.site(), relation: h.relation}, Stack(nil)
		if h.waiter != nil {
			at.waiter, where = h.waiter.where.site(), h.waiter.where
		}
		if held[at] == nil {
			held[at] = &HeldPlace{Lease: h.Lease, Relation: h.relation, WaitsAt: where}
		}
		held[at].Connections++
	}
	for _, w := range s.waits {
		at := w.where.site()
		if waits[at] == nil {
			waits[at] = &WaitPlace{Stack: w.where}
		}
		waits[at].Callers++
		waits[at].Longest = max(waits[at].Longest, w.waits)
	}
	s.Held = most(held, func(a, b *HeldPlace) int {
		return cmp.Or(cmp.Compare(b.Connections, a.Connections), cmp.Compare(a.ID, b.ID))
	})
	s.Waits = most(waits, func(a, b *WaitPlace) int {
		return cmp.Or(cmp.Compare(b.Callers, a.Callers), cmp.Compare(b.Longest, a.Longest))
	})
	if len(s.Held) > 0 && s.Held[0].Relation != RelationOfNone {
		h := &s.Held[0]
		s.nested = &NestedAcquire{Pool: s.Pool, Holder: h.Lease, Waiter: h.WaitsAt, Relation: h.Relation, Limit: s.limit, Lane: s.lane, Each: s.each, Requests: s.requests}
	}
}

// links are to the spans of those who hold connections, and of those who wait.
func (s *still) links() (links []trace.Link) {
	const most = 16
	seen := map[trace.SpanID]bool{}
	add := func(c *claim) {
		if c.span.IsValid() && len(links) < most && !seen[c.span.SpanID()] {
			seen[c.span.SpanID()] = true
			links = append(links, trace.Link{SpanContext: c.span})
		}
	}
	for _, h := range s.held {
		add(&h.claim)
	}
	for _, w := range s.waits {
		add(&w.claim)
	}
	return links
}

// span is that of the first who waits and is in a trace.
func (s *still) span() (span trace.SpanContext) {
	for _, w := range s.waits {
		if w.span.IsValid() {
			return w.span
		}
	}
	return span
}

// most are the first of some places.
func most[K comparable, P any](of map[K]*P, order func(a, b *P) int) (first []P) {
	const most = 64
	for _, p := range slices.SortedFunc(maps.Values(of), order) {
		if len(first) == most {
			break
		}
		first = append(first, *p)
	}
	return first
}

// lookAt looks at what the goroutines do of those who hold the connections, and, where nothing
// else tells what they have to do with who waits, whether they have started them.
func (q *waits) lookAt(s *still) {
	var leases []*Lease
	for _, h := range s.held {
		leases = append(leases, &h.Lease)
	}
	look := q.reports.lookNow(leases...)
	if look == nil {
		return
	}
	found := false
	for _, w := range s.waits {
		found = s.startedBy(w, look) || found
	}
	if found {
		q.gate.Look(func() { q.nameLocked(s) })
	}
}

// startedBy tells whether a holder has started the goroutine of one who waits, or one that has,
// and relates them.
func (s *still) startedBy(w *waiting, look *goroutines.Look) (found bool) {
	const deep = 4
	by := w.goroutine
	for range deep {
		started, _ := look.Goroutine(by)
		if by = started.Creator; by == 0 {
			return found
		}
		for _, h := range s.held {
			if h.relation != SameGoroutine && h.relation != StartedByIt && h.caller == by {
				h.relation, h.waiter, found = StartedByIt, w, true
			}
		}
	}
	return found
}

// reportStill tells of a pool that stands still, or did.
func (q *waits) reportStill(s *still) {
	defer q.reports.tellStandstill(s)
	defer q.cfg.recovered("reporting a pool that stands still")
	s.Pool = q.cfg.Name
	level := slog.LevelWarn
	switch {
	case s.Over:
		level = slog.LevelInfo
	case s.Deadlock:
		level = slog.LevelError
	}
	if !s.Over {
		q.lookAt(s)
	}
	for i := range s.held {
		s.held[i].Statement = q.reports.sanitised(s.held[i].Statement)
	}
	s.tell()
	if s.fresh {
		q.reports.metrics.stoodStill(s.Deadlock)
	}
	q.reports.stood(s)
	q.cfg.Logger.LogAttrs(trace.ContextWithSpanContext(context.Background(), s.span()), level, "sqllease: "+s.message(), slog.String("pool", s.Pool), slog.Any("standstill", s.Standstill))
}
