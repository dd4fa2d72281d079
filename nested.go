package sqllease

import (
	"context"
	"hash/maphash"
	"log/slog"
	"time"

	"go.opentelemetry.io/otel/trace"

	"github.com/sqllease/sqllease/internal/callstack"
	"github.com/sqllease/sqllease/internal/clock"
	"github.com/sqllease/sqllease/internal/gate"
)

// A request that holds a connection and waits for another is the classic way
// to bring a pool to a standstill: if as many do so at once as the pool has
// connections, none of them ever goes on. So that this cannot happen, a pool
// needs
//
//	limit ≥ requests at once × (connections per request − 1) + 1
//
// A holder and a waiter are of one request if they are of one goroutine, and
// the holder gives its connection back in the end: goroutines serve one request
// after the other, and one that leaked a connection seems to hold it ever after.
// They are probably of one if they are of one trace, and the holder has done nothing
// with its connection for a while, in which the other waits. They are not if both have a trace,
// and not the same. That they have a context in common shows nothing: the
// context of a whole service is shared by all its workers.

// nestedEvery bounds how often somebody who joins the queue is looked up among
// the holders, which takes time in proportion to their number.
const nestedEvery = 10 * time.Millisecond

// nestedAfter is how long somebody has waited who is looked up among the holders by their trace:
// by then it has been seen whether the pool stands still.
const nestedAfter = 2 * stallAfter

// mostNestings is how many places of nested acquires are remembered.
const mostNestings = 256

// nesting is a request that holds leases and waits for another.
type nesting struct {
	place [2]uint64
	NestedAcquire
	span  trace.SpanContext // of the acquire that waits
	named bool              // the record of a standstill has named it
}

// nestedLocked looks for a lease that is held by the goroutine of somebody who
// joins the queue. It is reported when that lease ends.
func (q *waits) nestedLocked(a *acquire, now clock.Instant) {
	if a.goroutine == 0 || now < q.nestedNext || q.gate.MostLocked(a.lane) == 0 { // without a limit none waits for the others
		return
	}
	q.nestedNext = now.Add(nestedEvery)
	var holder *session
	holds := 0
	q.gate.eachLeaseLocked(func(s *session) {
		s.lease.state(now) // so that what is done from now on is seen to be done later
		if ofGoroutine(&s.lease.claim, &a.claim) && !s.lease.told.idle {
			holder = s
			holds++
		}
	})
	if holder == nil || holder.lease.nesting != nil {
		return
	}
	place := placeOf(holder, a)
	if _, known := q.nestings[place]; !known {
		a.nesting, a.nests = q.nestingOf(place, holder, a, SameGoroutine, holds, q.requestsLocked(a.lane), now), holder
		holder.lease.nesting = a.nesting
	}
}

// ofGoroutine tells whether a lease and an acquire are of one goroutine.
func ofGoroutine(l, acquire *claim) bool {
	return l.goroutine == acquire.goroutine && ofRequest(l, acquire)
}

// ofRequest tells whether they may be of one request, for all their traces say.
func ofRequest(l, acquire *claim) bool {
	a, b := l.span.TraceID(), acquire.span.TraceID()
	return a == b || !a.IsValid() || !b.IsValid()
}

// waited notes how long an acquire has waited that is nested in a lease of its goroutine's, which
// mostly is there still: it is told of when that ends.
func (q *waits) waited(a *acquire, queued time.Duration) {
	if a.nesting == nil {
		return
	}
	q.gate.Look(func() {
		if a.nests.lease.nesting == a.nesting {
			a.nesting.Waited = queued
		}
	})
	a.nesting, a.nests = nil, nil
}

// nestedEndLocked returns the nesting of a lease that ends, which has one, if it
// is to be reported.
func (q *waits) nestedEndLocked(l *lease, now clock.Instant) *nesting {
	n := l.nesting
	if l.told.idle || !q.newNestingLocked(n.place) {
		return nil
	}
	rows := n.Holder.OpenRows // when it waited; now they are closed
	n.Holder = l.read(now)
	n.Holder.OpenRows = rows
	_, n.named = q.named[n.place]
	return n
}

// holding is what a request holds.
type holding struct {
	newest *session
	leases int
}

// mostAtOnce is how many nestings one look at the queue tells of.
const mostAtOnce = 8

// nestedTracesLocked returns the nestings of leases that nothing was done with for stallAfter,
// and waiters of the same trace who have waited for as long. It passes once over the leases and
// once over the waiters.
func (q *waits) nestedTracesLocked(idle []*session, now clock.Instant) (found []*nesting) {
	holdings := q.holdingsLocked(idle)
	if len(holdings) == 0 {
		return nil
	}
	q.gate.EachWaiterLocked(func(_ *gate.Waiter[session, acquire], a *acquire) bool {
		if now.Sub(a.start) < nestedAfter || len(found) == mostAtOnce {
			return false
		}
		h := holdings[a.span.TraceID()]
		if h == nil || q.gate.MostLocked(a.lane) == 0 {
			return true
		}
		if place := placeOf(h.newest, a); q.newNestingLocked(place) {
			found = append(found, q.nestingOf(place, h.newest, a, SameTrace, h.leases, q.requestsLocked(a.lane), now))
		}
		return true
	})
	return found
}

// holdingsLocked returns what the traces hold of which one of these leases is.
func (q *waits) holdingsLocked(idle []*session) map[trace.TraceID]*holding {
	holdings := map[trace.TraceID]*holding{}
	for _, s := range idle {
		l := &s.lease
		id := l.span.TraceID()
		if !id.IsValid() || l.told.idle {
			continue
		}
		holdings[id] = &holding{}
	}
	if len(holdings) == 0 {
		return nil
	}
	q.gate.eachLeaseLocked(func(s *session) {
		if h := holdings[s.lease.span.TraceID()]; h != nil {
			h.newest = s
			h.leases++
		}
	})
	return holdings
}

// nestingOf describes a nesting.
func (q *waits) nestingOf(place [2]uint64, holder *session, a *acquire, by Relation, holds, requests int, now clock.Instant) *nesting {
	_, named := q.named[place]
	return &nesting{place: place, span: a.span, named: named, NestedAcquire: NestedAcquire{
		Pool: q.cfg.Name, Holder: holder.lease.read(now), Waiter: Stack(a.stack.Stack()), Waited: now.Sub(a.start), Relation: by,
		Limit: q.gate.MostLocked(a.lane), Lane: q.cfg.laneLimit(a.lane), Each: holds + 1, Requests: requests,
	}}
}

func placeOf(holder *session, a *acquire) [2]uint64 {
	return [2]uint64{holder.lease.place(), a.place()}
}

// newNestingLocked notes the places of a nesting, and tells whether they are new.
func (q *waits) newNestingLocked(place [2]uint64) bool {
	if _, known := q.nestings[place]; known {
		return false
	}
	q.nestings.add(place)
	q.nested++
	return true
}

// nestedPlaces are places of nested acquires: where the connection was taken, and where another
// is waited for.
type nestedPlaces map[[2]uint64]struct{}

func (p *nestedPlaces) add(place [2]uint64) {
	if *p == nil {
		*p = nestedPlaces{}
	}
	for old := range *p {
		if len(*p) < mostNestings {
			break
		}
		delete(*p, old)
	}
	(*p)[place] = struct{}{}
}

var placeSeed = maphash.MakeSeed()

// place identifies the stack that acquires a lease.
func (c *claim) place() uint64 { return placeOfStack(c.stack.Stack()) }

func placeOfStack(s callstack.Stack) uint64 {
	var stack [callstack.Depth]uintptr
	copy(stack[:], s.Outside())
	return maphash.Comparable(placeSeed, stack)
}

// request identifies what acquires leases: by its trace, where it has one.
type request struct {
	trace     trace.TraceID
	goroutine uint64
}

func requestOf(c *claim) request {
	if id := c.span.TraceID(); id.IsValid() {
		return request{trace: id}
	}
	return request{goroutine: c.goroutine}
}

// requestsLocked counts the requests that hold a lease or wait for one: in any lane, or in this,
// where it has a limit of its own. What is leaked is of none.
func (q *waits) requestsLocked(lane gate.LaneID) int {
	requests, own := map[request]struct{}{}, q.cfg.laneLimit(lane) != ""
	q.gate.eachLeaseLocked(func(s *session) {
		if !s.lease.told.leaked && (!own || s.lease.lane == lane) {
			requests[requestOf(&s.lease.claim)] = struct{}{}
		}
	})
	q.gate.eachWaiterLocked(func(a *acquire) {
		if !own || a.lane == lane {
			requests[requestOf(&a.claim)] = struct{}{}
		}
	})
	return len(requests)
}

// reportNesting tells of a place where requests hold a connection and wait for
// another.
func (q *waits) reportNesting(n *nesting) {
	defer q.cfg.recovered("reporting a nested acquire")
	q.reports.metrics.nested()
	if n.Lane == "" {
		q.gate.Look(func() { q.floor = max(q.floor, n.Needed()) })
	}
	if n.named {
		return
	}
	defer q.reports.tellNested(n)
	n.Holder.Statement = q.reports.sanitised(n.Holder.Statement)
	q.reports.nested(n)
	q.cfg.Logger.LogAttrs(trace.ContextWithSpanContext(context.Background(), n.span), slog.LevelWarn,
		"sqllease: a request holds a connection and waits for another: if as many goroutines do this as there are connections, the pool deadlocks",
		slog.String("pool", q.cfg.Name), slog.Any("nested", n.NestedAcquire))
}
