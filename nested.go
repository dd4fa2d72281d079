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
func (g *gate) nestedLocked(w *waiter, now time.Time) {
	if w.lease.goroutine == 0 || now.Before(g.nestedNext) {
		return
	}
	g.nestedNext = now.Add(nestedEvery)
	holder, n := g.nestingLocked(w, "goroutine", now, ofGoroutine)
	if n != nil && holder.nesting == nil {
		holder.nesting = n
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

func ofTrace(l, acquire *lease) bool { return l.span.TraceID() == acquire.span.TraceID() }

// nestedEndLocked returns the nesting of a lease that ends, if it is to be
// reported.
func (g *gate) nestedEndLocked(l *lease, now time.Time) *nesting {
	n := l.nesting
	if n == nil || l.told.idle || !g.newNestingLocked(n) {
		return nil
	}
	n.holder = l.read(now)
	return n
}

// nestedTracesLocked returns the nestings of leases that nothing is done with
// and waiters of the same trace who came later.
func (g *gate) nestedTracesLocked(idle []*lease, now time.Time) (found []*nesting) {
	oldest := map[trace.TraceID]time.Time{} // since when one of its leases is idle
	for _, l := range idle {
		if id := l.span.TraceID(); id.IsValid() {
			_, since := l.state()
			if known, ok := oldest[id]; !ok || since.Before(known) {
				oldest[id] = since
			}
		}
	}
	if len(oldest) == 0 {
		return nil
	}
	g.waiters.each(func(w *waiter) bool {
		if now.Sub(w.since) < stallAfter {
			return false
		}
		since, ok := oldest[w.lease.span.TraceID()]
		if ok && since.Before(w.since) {
			if _, n := g.nestingLocked(w, "trace", now, ofTrace); n != nil && g.newNestingLocked(n) {
				found = append(found, n)
			}
		}
		return true
	})
	return found
}

// nestingLocked describes the nesting that a waiter makes with the leases that
// are of the same request, and finds the newest of these; nil if it makes none,
// or one that was reported.
func (g *gate) nestingLocked(w *waiter, common string, now time.Time, same func(l, acquire *lease) bool) (holder *lease, n *nesting) {
	holds := 0
	g.leases.each(func(l *lease) bool {
		if same(l, w.lease) && !l.told.idle {
			holder = l
			holds++
		}
		return true
	})
	if holder == nil {
		return nil, nil
	}
	place := [2]uint64{holder.place(), w.lease.place()}
	if _, known := g.nestings[place]; known {
		return nil, nil
	}
	return holder, &nesting{
		place: place, holder: holder.read(now), waiter: w.lease.read(now), common: common, waited: now.Sub(w.since),
		limit: g.limit, perRequest: holds + 1, requests: g.requestsLocked(),
	}
}

// newNestingLocked notes the places of a nesting, and tells whether they are new.
func (g *gate) newNestingLocked(n *nesting) bool {
	if _, known := g.nestings[n.place]; known {
		return false
	}
	if g.nestings == nil || len(g.nestings) >= mostNestings {
		g.nestings = map[[2]uint64]struct{}{}
	}
	g.nestings[n.place] = struct{}{}
	g.counts.nestings++
	return true
}

var placeSeed = maphash.MakeSeed()

// place identifies the stack that acquires a lease.
func (l *lease) place() uint64 { return maphash.Comparable(placeSeed, l.stack) }

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
	since  time.Time // of the waiter who closed the circle
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
func (g *gate) deadlockLocked(idle []*lease, now time.Time) *deadlock {
	before := g.deadlocked
	g.deadlocked = false
	if len(idle) == 0 || len(idle) < g.leases.len || g.leases.len < g.open {
		return nil
	}
	waiting := map[uint64]*waiter{}
	g.waiters.each(func(w *waiter) bool {
		if id := w.lease.goroutine; id != 0 && now.Sub(w.since) >= stallAfter {
			waiting[id] = w
		}
		return true
	})
	last := waiting[idle[0].caller.Load()]
	for _, l := range idle {
		w := waiting[l.caller.Load()]
		if w == nil || !ofRequest(l, w.lease) {
			return nil
		}
		if w.number > last.number {
			last = w
		}
	}
	g.deadlocked = true
	return g.standstillLocked(&deadlock{since: last.since, fresh: !before}, idle, waiting, last, now)
}

// standstillLocked says what there is to say of a deadlock, and ends it where
// the gate is to.
func (g *gate) standstillLocked(d *deadlock, idle []*lease, waiting map[uint64]*waiter, last *waiter, now time.Time) *deadlock {
	d.tell = g.failOnDeadlock || g.deadlockTold.IsZero() || now.Sub(g.deadlockTold) >= deadlockEvery
	if d.fresh {
		g.counts.deadlocks++
	}
	if d.tell {
		g.deadlockTold = now
		d.circle = g.circleLocked(idle, waiting, now)
	}
	if g.failOnDeadlock {
		failed := last.lease.read(now)
		d.failed = &failed
		g.breakLocked(last, waiting, idle)
	}
	return d
}

// breakLocked ends a deadlock: the last of the waiters fails, and what it holds
// lets the others go on. They go before those who hold nothing, which would
// otherwise be served first, take their connection, and wait again.
func (g *gate) breakLocked(last *waiter, waiting map[uint64]*waiter, idle []*lease) {
	g.deadlocked = false
	g.waiters.remove(&last.node)
	last.err = ErrDeadlock
	close(last.ready)
	holders := map[*waiter]bool{}
	var others []*waiter
	for _, l := range idle {
		holders[waiting[l.caller.Load()]] = true
	}
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

// circleLocked pairs what is held with what is waited for.
func (g *gate) circleLocked(idle []*lease, waiting map[uint64]*waiter, now time.Time) (circle []nesting) {
	holds, most := map[*waiter]int{}, 0
	for _, l := range idle {
		w := waiting[l.caller.Load()]
		if holds[w]++; holds[w] == 1 {
			circle = append(circle, nesting{holder: l.read(now), waiter: w.lease.read(now), common: "goroutine", waited: now.Sub(w.since), limit: g.limit})
		}
		most = max(most, holds[w])
	}
	requests := g.requestsLocked()
	for i := range circle {
		circle[i].perRequest, circle[i].requests = most+1, requests
	}
	return circle
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
	end := "None goes on until one of them gives up (Config.FailOnDeadlock makes one fail)"
	if d.failed != nil {
		end = fmt.Sprintf("The acquire at %s fails for the others (Config.FailOnDeadlock)", d.failed.Stack.site())
	}
	c.cfg.Logger.LogAttrs(first.context(), slog.LevelError, fmt.Sprintf("sqllease: pool %q: deadlock since %s: each of the %d connections is held by a goroutine that waits for another: %s. %s. %s",
		c.cfg.Name, d.since.Format(time.RFC3339Nano), first.limit, d.places(), end, first.cure()),
		slog.String("pool", c.cfg.Name), slog.Time("since", d.since), slog.Any("nested", first))
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
