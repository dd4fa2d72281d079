package sqllease

import (
	"context"
	"fmt"
	"hash/maphash"
	"log/slog"
	"strings"
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
// They are probably of one if they are of one trace, and the holder does nothing
// with its connection while the other waits. They are not if both have a trace,
// and not the same. That they have a context in common shows nothing: the
// context of a whole service is shared by all its workers.

// nestedEvery bounds how often somebody who joins the queue is looked up among
// the holders, which takes time in proportion to their number.
const nestedEvery = 10 * time.Millisecond

// mostNestings is how many places of nested acquires are remembered.
const mostNestings = 256

// nesting is a request that holds leases and waits for another.
type nesting struct {
	place          [2]uint64
	holder, waiter Lease         // the newest of what it holds, and the acquire that waits
	common         string        // what tells that they are of one request
	waited         time.Duration // so far
	limit          int
	perRequest     int  // connections it needs at once
	requests       int  // how many requests there are at once
	named          bool // the record of a deadlock has named it
}

// needed is the limit with which such requests cannot stand still.
func (n *nesting) needed() int { return n.requests*(n.perRequest-1) + 1 }

// nestedLocked looks for a lease that is held by the goroutine of somebody who
// joins the queue. It is reported when that lease ends.
func (q *waits) nestedLocked(a *acquire, now clock.Instant) {
	if a.goroutine == 0 || now < q.nestedNext || q.gate.FiguresLocked().Limit == 0 { // without a limit none waits for the others
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
		holder.lease.nesting = q.nestingOf(place, holder, a, "goroutine", holds, q.requestsLocked(), now)
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

// nestedEndLocked returns the nesting of a lease that ends, which has one, if it
// is to be reported.
func (q *waits) nestedEndLocked(l *lease, now clock.Instant) *nesting {
	n := l.nesting
	if l.told.idle || !q.newNestingLocked(n.place) {
		return nil
	}
	rows := n.holder.OpenRows // when it waited; now they are closed
	n.holder = l.read(now)
	n.holder.OpenRows = rows
	_, n.named = q.named[n.place]
	return n
}

// holding is what a request holds.
type holding struct {
	idle   clock.Instant // since when one of its leases is; zero: none is
	newest *session
	leases int
}

// mostAtOnce is how many nestings one look at the queue tells of.
const mostAtOnce = 8

// nestedTracesLocked returns the nestings of leases that nothing is done with
// and waiters of the same trace who came later. It passes once over the leases
// and once over the waiters.
func (q *waits) nestedTracesLocked(idle []*session, now clock.Instant) (found []*nesting) {
	holdings := q.holdingsLocked(idle, now)
	if len(holdings) == 0 || q.gate.FiguresLocked().Limit == 0 {
		return nil
	}
	requests := 0
	q.gate.EachWaiterLocked(func(_ *gate.Waiter[session, acquire], a *acquire) bool {
		if now.Sub(a.Since()) < stallAfter || len(found) == mostAtOnce {
			return false
		}
		h := holdings[a.span.TraceID()]
		if h == nil || h.idle > a.Since() {
			return true
		}
		if place := placeOf(h.newest, a); q.newNestingLocked(place) {
			if requests == 0 {
				requests = q.requestsLocked()
			}
			found = append(found, q.nestingOf(place, h.newest, a, "trace", h.leases, requests, now))
		}
		return true
	})
	return found
}

// holdingsLocked returns what the traces hold of which one of these leases is.
func (q *waits) holdingsLocked(idle []*session, now clock.Instant) map[trace.TraceID]*holding {
	holdings := map[trace.TraceID]*holding{}
	for _, s := range idle {
		l := &s.lease
		id := l.span.TraceID()
		if !id.IsValid() || l.told.idle {
			continue
		}
		if holdings[id] == nil {
			holdings[id] = &holding{}
		}
		if _, since := l.state(now); holdings[id].idle.IsZero() || since < holdings[id].idle {
			holdings[id].idle = since
		}
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
func (q *waits) nestingOf(place [2]uint64, holder *session, a *acquire, common string, holds, requests int, now clock.Instant) *nesting {
	_, named := q.named[place]
	return &nesting{
		place: place, holder: holder.lease.read(now), waiter: a.read(now), common: common,
		waited: now.Sub(a.Since()), limit: q.gate.FiguresLocked().Limit, perRequest: holds + 1, requests: requests, named: named,
	}
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

// requestsLocked counts the requests that hold a lease or wait for one.
func (q *waits) requestsLocked() int {
	requests := map[request]struct{}{}
	q.gate.eachLeaseLocked(func(s *session) { requests[requestOf(&s.lease.claim)] = struct{}{} })
	q.gate.eachWaiterLocked(func(a *acquire) { requests[requestOf(&a.claim)] = struct{}{} })
	return len(requests)
}

// deadlock is a pool that stands still.
type deadlock struct {
	since  clock.Instant // of the waiter who closed the circle
	first  *nesting      // the oldest lease, and the acquire of the goroutine that holds it; nil: nothing is to be logged
	held   []heldPlace   // by the places that took the connections and that wait
	failed *Lease        // the acquire that fails for the others; nil: none does
	fresh  bool          // the last look found none
	tell   bool          // it is to be logged
}

// heldPlace is a place that took connections, and one at which who holds them waits.
type heldPlace struct {
	holder, waiter Stack
	connections    int
}

// deadlockEvery is the time between two records of a pool that stands still.
const deadlockEvery = time.Minute

// deadlockLocked tells whether no lease will be given back: nothing was done
// with any of them for a while, and the goroutine that used it last waits for
// another. While anybody dials it is none: those who wait may wait for that.
// And if nobody dials there is no room, or one of those who wait would.
//
// A while, since result sets that were just handed to another
// goroutine look the same until that begins to read.
func (q *waits) deadlockLocked(idle []*session, all bool, now clock.Instant) *deadlock {
	f := q.gate.FiguresLocked()
	before := q.deadlocked
	q.deadlocked = false
	if len(idle) == 0 || !all || f.Held < f.Open {
		return nil
	}
	circle, last := q.pairLocked(idle, now)
	if circle == nil {
		return nil
	}
	q.deadlocked = true
	return q.standstillLocked(&deadlock{since: last.Since(), fresh: !before}, circle, last, now)
}

// heldBy is a session and the acquire whose goroutine used it last.
type heldBy struct {
	session *session
	acquire *acquire
}

// pairLocked finds for each lease the waiter whose goroutine used it last, and
// the last of these waiters; nil if one has none. It looks at a lease once: its
// holder may begin a call at any time.
func (q *waits) pairLocked(idle []*session, now clock.Instant) (circle []heldBy, last *acquire) {
	waiting := map[uint64]*acquire{}
	q.gate.eachWaiterLocked(func(a *acquire) {
		if id := a.goroutine; id != 0 && now.Sub(a.Since()) >= stallAfter {
			waiting[id] = a
		}
	})
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

// standstillLocked says what there is to say of a deadlock, and ends it where
// the gate is to.
func (q *waits) standstillLocked(d *deadlock, circle []heldBy, last *acquire, now clock.Instant) *deadlock {
	d.tell = q.cfg.FailOnDeadlock || q.deadlockTold.IsZero() || now.Sub(q.deadlockTold) >= deadlockEvery
	if d.fresh {
		q.deadlocks++
	}
	if d.tell {
		q.deadlockTold = now
		q.describeLocked(d, circle, now)
	}
	if q.cfg.FailOnDeadlock {
		failed := last.read(now)
		d.failed = &failed
		q.breakLocked(circle, last)
	}
	return d
}

// breakLocked ends a deadlock: the last of the waiters fails, and what it holds
// lets the others go on. They go before those who hold nothing, which would
// otherwise be served first, take their connection, and wait again.
func (q *waits) breakLocked(circle []heldBy, last *acquire) {
	q.deadlocked = false
	q.gate.RefuseLocked(&last.Waiter, ErrDeadlock)
	holders := map[*acquire]bool{}
	for _, h := range circle {
		holders[h.acquire] = true
	}
	q.gate.PreferLocked(func(a *acquire) bool { return holders[a] })
}

// mostTold is how many places a record of a deadlock tells of.
const mostTold = 64

// describeLocked notes of a deadlock what its record tells, and which places that names.
func (q *waits) describeLocked(d *deadlock, circle []heldBy, now clock.Instant) {
	places, holds, most := map[[2]uint64]int{}, map[*acquire]int{}, 0
	for _, h := range circle {
		holds[h.acquire]++
		most = max(most, holds[h.acquire])
		place := placeOf(h.session, h.acquire)
		i, known := places[place]
		if !known && len(d.held) == mostTold {
			continue
		}
		if !known {
			i = len(d.held)
			places[place] = i
			d.held = append(d.held, heldPlace{holder: Stack(h.session.lease.stack.Stack()), waiter: Stack(h.acquire.stack.Stack())})
			q.named.add(place)
		}
		d.held[i].connections++
	}
	first := circle[0]
	d.first = q.nestingOf(placeOf(first.session, first.acquire), first.session, first.acquire, "goroutine", most, q.requestsLocked(), now)
}

// reportNesting tells of a place where requests hold a connection and wait for
// another.
func (q *waits) reportNesting(n *nesting) {
	defer q.cfg.recovered("reporting a nested acquire")
	q.reports.metrics.nested()
	if n.named {
		return
	}
	n.holder.Statement = q.reports.sanitised(n.holder.Statement)
	q.cfg.Logger.LogAttrs(n.context(), slog.LevelWarn,
		"sqllease: a request holds a connection and waits for another: if as many goroutines do this as there are connections, the pool deadlocks",
		slog.String("pool", q.cfg.Name), slog.Any("nested", n))
}

// context carries the trace of the request.
func (n *nesting) context() context.Context {
	return trace.ContextWithSpanContext(context.Background(), n.waiter.SpanContext)
}

// fix says what to do, with the figures of the pool.
func (n *nesting) fix() string {
	if n.holder.OpenRows > 0 {
		return "close the open rows first: call rows.Close() before the inner statement (a defer is too late), or read them to their end; " + n.limits()
	}
	return "give the connection that the request has back first, or run the inner statement on it (its *sql.Tx or *sql.Conn); if it was forgotten, close it; " + n.limits()
}

// limits says what the limit has to be, or, where it is enough for the requests there are, for
// how many it is.
func (n *nesting) limits() string {
	each := plural(n.perRequest, "connection")
	if n.needed() <= n.limit && n.perRequest > 1 {
		most := (n.limit - 1) / (n.perRequest - 1)
		return fmt.Sprintf("the limit of %d is enough for %s at once, with %s each", n.limit, plural(most, "such request"), each)
	}
	return fmt.Sprintf("or raise the limit from %d to at least %d: that is enough for %s at once, with %s each",
		n.limit, n.needed(), plural(n.requests, "such request"), each)
}

// LogValue is the nesting as attributes.
func (n *nesting) LogValue() slog.Value {
	attrs := []slog.Attr{
		slog.String("holder", n.holder.Stack.site()),
		slog.String("waiter", n.waiter.Stack.site()),
		slog.String("fix", n.fix()),
		slog.String("statement", n.holder.Statement),
		slog.String("common", n.common),
		slog.Int("limit", n.limit),
		slog.Int("needed", n.needed()),
		slog.Int("requests", n.requests),
		slog.Int("connections_per_request", n.perRequest),
		slog.Uint64("lease", n.holder.ID),
		slog.Duration("hold", round(n.holder.Hold)),
	}
	if n.waited > 0 {
		attrs = append(attrs, slog.Duration("waited", round(n.waited)))
	}
	return slog.GroupValue(append(attrs,
		slog.String("holder_stack", n.holder.Stack.Line()),
		slog.String("waiter_stack", n.waiter.Stack.Line()))...)
}

// reportDeadlock tells of a pool that stands still.
func (q *waits) reportDeadlock(d *deadlock) {
	defer q.cfg.recovered("reporting a deadlock")
	if d.fresh {
		q.reports.metrics.deadlocked()
	}
	if !d.tell {
		return
	}
	first := d.first
	first.holder.Statement = q.reports.sanitised(first.holder.Statement)
	end := "it lasts until the context of one of these callers, or Config.AcquireTimeout, ends; with Config.FailOnDeadlock, one of them fails and the others go on"
	if d.failed != nil {
		end = fmt.Sprintf("the caller at %s gets ErrDeadlock (Config.FailOnDeadlock), and the others go on", d.failed.Stack.site())
	}
	q.cfg.Logger.LogAttrs(first.context(), slog.LevelError, "sqllease: deadlock: every connection is held by a goroutine that waits for another",
		slog.String("pool", q.cfg.Name), slog.Time("since", d.since.Time()), slog.String("places", d.places()), slog.String("end", end), slog.Any("nested", first))
}

// places tells how many connections were taken where, and where who holds them waits.
func (d *deadlock) places() string {
	var places []string
	count := map[string]int{}
	for _, h := range d.held {
		place := fmt.Sprintf("taken by %s, waiting at %s", h.holder.site(), h.waiter.site())
		if count[place] == 0 {
			places = append(places, place)
		}
		count[place] += h.connections
	}
	for i, place := range places {
		places[i] = fmt.Sprintf("%d %s", count[place], place)
	}
	const most = 8
	if len(places) > most {
		places = append(places[:most], fmt.Sprintf("and %d places more", len(places)-most))
	}
	return strings.Join(places, "; ")
}
