package sqllease

import (
	"context"
	"fmt"
	"hash/maphash"
	"log/slog"
	"strings"
	"time"

	"go.opentelemetry.io/otel/trace"
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
	perRequest     int // connections it needs at once
	requests       int // how many requests there are at once
}

// needed is the limit with which such requests cannot stand still.
func (n *nesting) needed() int { return n.requests*(n.perRequest-1) + 1 }

// nestedLocked looks for a lease that is held by the goroutine of somebody who
// joins the queue. It is reported when that lease ends.
func (g *gate) nestedLocked(w *waiter, now instant) {
	if w.lease.goroutine == 0 || now < g.nestedNext {
		return
	}
	g.nestedNext = now.Add(nestedEvery)
	var holder *lease
	holds := 0
	g.leases.each(func(l *lease) bool {
		l.state(now) // so that what is done from now on is seen to be done later
		if ofGoroutine(l, w.lease) && !l.told.idle {
			holder = l
			holds++
		}
		return true
	})
	if holder == nil || holder.nesting != nil {
		return
	}
	place := placeOf(holder, w)
	if _, known := g.nestings[place]; !known {
		holder.nesting = g.nestingOf(place, holder, w, "goroutine", holds, g.requestsLocked(), now)
	}
}

// ofGoroutine tells whether a lease and an acquire are of one goroutine.
func ofGoroutine(l, acquire *lease) bool {
	return l.goroutine == acquire.goroutine && ofRequest(l, acquire)
}

// ofRequest tells whether they may be of one request, for all their traces say.
func ofRequest(l, acquire *lease) bool {
	a, b := l.span.TraceID(), acquire.span.TraceID()
	return a == b || !a.IsValid() || !b.IsValid()
}

// nestedEndLocked returns the nesting of a lease that ends, which has one, if it
// is to be reported.
func (g *gate) nestedEndLocked(l *lease, now instant) *nesting {
	n := l.nesting
	if l.told.idle || !g.newNestingLocked(n.place) {
		return nil
	}
	n.holder = l.read(now)
	return n
}

// holding is what a request holds.
type holding struct {
	idle   instant // since when one of its leases is; zero: none is
	newest *lease
	leases int
}

// mostAtOnce is how many nestings one look at the queue tells of.
const mostAtOnce = 8

// nestedTracesLocked returns the nestings of leases that nothing is done with
// and waiters of the same trace who came later. It passes once over the leases
// and once over the waiters.
func (g *gate) nestedTracesLocked(idle []*lease, now instant) (found []*nesting) {
	holdings := g.holdingsLocked(idle, now)
	if len(holdings) == 0 {
		return nil
	}
	requests := 0
	g.waiters.each(func(w *waiter) bool {
		if now.Sub(w.since) < stallAfter || len(found) == mostAtOnce {
			return false
		}
		h := holdings[w.lease.span.TraceID()]
		if h == nil || h.idle > w.since {
			return true
		}
		if place := placeOf(h.newest, w); g.newNestingLocked(place) {
			if requests == 0 {
				requests = g.requestsLocked()
			}
			found = append(found, g.nestingOf(place, h.newest, w, "trace", h.leases, requests, now))
		}
		return true
	})
	return found
}

// holdingsLocked returns what the traces hold of which one of these leases is.
func (g *gate) holdingsLocked(idle []*lease, now instant) map[trace.TraceID]*holding {
	holdings := map[trace.TraceID]*holding{}
	for _, l := range idle {
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
	g.leases.each(func(l *lease) bool {
		if h := holdings[l.span.TraceID()]; h != nil {
			h.newest = l
			h.leases++
		}
		return true
	})
	return holdings
}

// nestingOf describes a nesting.
func (g *gate) nestingOf(place [2]uint64, holder *lease, w *waiter, common string, holds, requests int, now instant) *nesting {
	return &nesting{
		place: place, holder: holder.read(now), waiter: w.lease.read(now), common: common,
		waited: now.Sub(w.since), limit: g.limit, perRequest: holds + 1, requests: requests,
	}
}

func placeOf(holder *lease, w *waiter) [2]uint64 { return [2]uint64{holder.place(), w.lease.place()} }

// newNestingLocked notes the places of a nesting, and tells whether they are new.
func (g *gate) newNestingLocked(place [2]uint64) bool {
	if _, known := g.nestings[place]; known {
		return false
	}
	if g.nestings == nil {
		g.nestings = map[[2]uint64]struct{}{}
	}
	for old := range g.nestings {
		if len(g.nestings) < mostNestings {
			break
		}
		delete(g.nestings, old)
	}
	g.nestings[place] = struct{}{}
	g.counts.nestings++
	return true
}

var placeSeed = maphash.MakeSeed()

// place identifies the stack that acquires a lease.
func (l *lease) place() uint64 {
	var stack [stackDepth]uintptr
	copy(stack[:], l.capturedStack().outside())
	return maphash.Comparable(placeSeed, stack)
}

// request identifies what acquires leases: by its trace, where it has one.
type request struct {
	trace     trace.TraceID
	goroutine uint64
}

func requestOf(l *lease) request {
	if id := l.span.TraceID(); id.IsValid() {
		return request{trace: id}
	}
	return request{goroutine: l.goroutine}
}

// requestsLocked counts the requests that hold a lease or wait for one.
func (g *gate) requestsLocked() int {
	requests := map[request]struct{}{}
	g.leases.each(func(l *lease) bool {
		requests[requestOf(l)] = struct{}{}
		return true
	})
	g.waiters.each(func(w *waiter) bool {
		requests[requestOf(w.lease)] = struct{}{}
		return true
	})
	return len(requests)
}

// deadlock is a pool that stands still.
type deadlock struct {
	since  instant   // of the waiter who closed the circle
	circle []nesting // each goroutine with the first lease it holds, and its acquire
	failed *Lease    // the acquire that fails for the others; nil: none does
	fresh  bool      // the last look found none
	tell   bool      // it is to be logged
}

// deadlockEvery is the time between two records of a pool that stands still.
const deadlockEvery = time.Minute

// deadlockLocked tells whether no lease will be given back: nothing was done
// with any of them for a while, and the goroutine that used it last waits for
// another. A while, since result sets that were just handed to another
// goroutine look the same until that begins to read.
func (g *gate) deadlockLocked(idle []*lease, now instant) *deadlock {
	before := g.deadlocked
	g.deadlocked = false
	if len(idle) == 0 || len(idle) < g.leases.len || g.leases.len < g.open {
		return nil
	}
	circle, last := g.pairLocked(idle, now)
	if circle == nil {
		return nil
	}
	g.deadlocked = true
	return g.standstillLocked(&deadlock{since: last.since, fresh: !before}, circle, last, now)
}

// heldBy is a lease and the waiter whose goroutine used it last.
type heldBy struct {
	lease  *lease
	waiter *waiter
}

// pairLocked finds for each lease the waiter whose goroutine used it last, and
// the last of these waiters; nil if one has none. It looks at a lease once: its
// holder may begin a call at any time.
func (g *gate) pairLocked(idle []*lease, now instant) (circle []heldBy, last *waiter) {
	waiting := map[uint64]*waiter{}
	g.waiters.each(func(w *waiter) bool {
		if id := w.lease.goroutine; id != 0 && now.Sub(w.since) >= stallAfter {
			waiting[id] = w
		}
		return true
	})
	for _, l := range idle {
		w := waiting[l.caller.Load()]
		if w == nil || !ofRequest(l, w.lease) {
			return nil, nil
		}
		if last == nil || w.number > last.number {
			last = w
		}
		circle = append(circle, heldBy{l, w})
	}
	return circle, last
}

// standstillLocked says what there is to say of a deadlock, and ends it where
// the gate is to.
func (g *gate) standstillLocked(d *deadlock, circle []heldBy, last *waiter, now instant) *deadlock {
	d.tell = g.failOnDeadlock || g.deadlockTold.IsZero() || now.Sub(g.deadlockTold) >= deadlockEvery
	if d.fresh {
		g.counts.deadlocks++
	}
	if d.tell {
		g.deadlockTold = now
		d.circle = g.circleLocked(circle, now)
	}
	if g.failOnDeadlock {
		failed := last.lease.read(now)
		d.failed = &failed
		g.breakLocked(circle, last)
	}
	return d
}

// breakLocked ends a deadlock: the last of the waiters fails, and what it holds
// lets the others go on. They go before those who hold nothing, which would
// otherwise be served first, take their connection, and wait again.
func (g *gate) breakLocked(circle []heldBy, last *waiter) {
	g.deadlocked = false
	g.waiters.remove(&last.node)
	last.err = ErrDeadlock
	close(last.ready)
	holders := map[*waiter]bool{}
	for _, c := range circle {
		holders[c.waiter] = true
	}
	var others []*waiter
	for range g.waiters.len { // once round the queue, those who hold something first
		w := g.waiters.popFirst()
		if holders[w] {
			g.waiters.push(&w.node, w)
		} else {
			others = append(others, w)
		}
	}
	for _, w := range others {
		g.lastWaiter++
		w.number = g.lastWaiter
		g.waiters.push(&w.node, w)
	}
}

// circleLocked describes each goroutine with the first lease it holds.
func (g *gate) circleLocked(circle []heldBy, now instant) (out []nesting) {
	holds, most := map[*waiter]int{}, 0
	for _, c := range circle {
		if holds[c.waiter]++; holds[c.waiter] == 1 {
			out = append(out, nesting{holder: c.lease.read(now), waiter: c.waiter.lease.read(now), common: "goroutine", waited: now.Sub(c.waiter.since), limit: g.limit})
		}
		most = max(most, holds[c.waiter])
	}
	requests := g.requestsLocked()
	for i := range out {
		out[i].perRequest, out[i].requests = most+1, requests
	}
	return out
}

// reportNesting tells of a place where requests hold a connection and wait for
// another.
func (c *Connector) reportNesting(n *nesting) {
	defer c.recovered("reporting a nested acquire")
	c.metrics.nested()
	n.holder.Statement = c.sanitised(n.holder.Statement)
	c.cfg.Logger.LogAttrs(n.context(), slog.LevelWarn, fmt.Sprintf("sqllease: pool %q: %s had to wait for a connection, while the same %s held one, taken by %s: "+
		"when as many do so as there are connections, none goes on. %s",
		c.cfg.Name, n.waiter.Stack.site(), n.common, n.holder.Stack.site(), n.cure()),
		slog.String("pool", c.cfg.Name), slog.Any("nested", n))
}

// context carries the trace of the request.
func (n *nesting) context() context.Context {
	return trace.ContextWithSpanContext(context.Background(), n.waiter.SpanContext)
}

// cure says what to do, with the figures of the pool.
func (n *nesting) cure() string {
	return fmt.Sprintf("Use the connection that is held (its *sql.Tx or *sql.Conn) for the inner statement too, or give it back before; "+
		"or raise the limit from %d to at least %d: %d requests at once × (%d connections per request − 1) + 1",
		n.limit, n.needed(), n.requests, n.perRequest)
}

// LogValue is the nesting as attributes.
func (n *nesting) LogValue() slog.Value {
	return slog.GroupValue(
		slog.String("common", n.common),
		slog.Int("limit", n.limit),
		slog.Int("needed", n.needed()),
		slog.Int("requests", n.requests),
		slog.Int("connections_per_request", n.perRequest),
		slog.Uint64("lease", n.holder.ID),
		slog.Duration("hold", n.holder.Hold),
		slog.String("statement", n.holder.Statement),
		slog.Duration("waited", n.waited),
		slog.String("holder_stack", n.holder.Stack.String()),
		slog.String("waiter_stack", n.waiter.Stack.String()),
	)
}

// reportDeadlock tells of a pool that stands still.
func (c *Connector) reportDeadlock(d *deadlock) {
	defer c.recovered("reporting a deadlock")
	if d.fresh {
		c.metrics.deadlocked()
	}
	if !d.tell {
		return
	}
	first := &d.circle[0]
	first.holder.Statement = c.sanitised(first.holder.Statement)
	end := "None goes on until one of their contexts ends (Config.FailOnDeadlock makes one fail)"
	if d.failed != nil {
		end = fmt.Sprintf("The acquire at %s fails for the others (Config.FailOnDeadlock)", d.failed.Stack.site())
	}
	c.cfg.Logger.LogAttrs(first.context(), slog.LevelError, fmt.Sprintf("sqllease: pool %q: deadlock since %s: each of the %d connections is held by a goroutine that waits for another: %s. %s. %s",
		c.cfg.Name, d.since.Time().Format(time.RFC3339Nano), first.limit, d.places(), end, first.cure()),
		slog.String("pool", c.cfg.Name), slog.Time("since", d.since.Time()), slog.Any("nested", first))
}

// places tells where the connections are held and waited for.
func (d *deadlock) places() string {
	var places []string
	count := map[string]int{}
	for i := range d.circle {
		place := fmt.Sprintf("taken by %s, waiting at %s", d.circle[i].holder.Stack.site(), d.circle[i].waiter.Stack.site())
		if count[place]++; count[place] == 1 {
			places = append(places, place)
		}
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
