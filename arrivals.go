package sqllease

import (
	"context"
	"reflect"
	"sync"
	"sync/atomic"
	"time"

	"github.com/sqllease/sqllease/internal/callstack"
	"github.com/sqllease/sqllease/internal/clock"
	"github.com/sqllease/sqllease/internal/gate"
)

// A ticket that is refused sends its caller to Connect, by way of database/sql, and
// others may join the queue meanwhile. So the place that the caller would have had is
// kept for its goroutine, as is the time at which it began to wait. And database/sql tries
// three times, the last time on a connection that is new: so it is noted how often it
// was refused, and whether a connection proved bad.

// arrivals are the callers whom database/sql sends on, and who have not come to Connect yet.
type arrivals struct {
	mu    sync.Mutex
	of    map[uint64]arrival // guarded by mu: by goroutine
	count atomic.Int32       // how many there are
}

type arrival struct {
	ctx    contextID
	number uint64        // of its place in the queue; zero: none
	start  clock.Instant // when it came first
	kept   clock.Instant // when it was sent on
	tries  int           // how often it has tried: was refused a ticket, or had a connection that proved bad
	bad    bool          // one did
}

// attempts is how often database/sql tries a call.
const attempts = 3

// isLast tells whether this is database/sql's last attempt.
func (a *arrival) isLast() bool {
	return a.tries >= attempts-1
}

// wantsNew tells whether the caller, who has come to Connect, is to have a connection that
// is new: a bare pool would have dialed.
func (a *arrival) wantsNew() bool { return a.bad || a.isLast() }

const (
	longestArrival = time.Second // how long it takes database/sql to come to Connect
	mostArrivals   = 10_000
)

// some tells whether there are any.
func (x *arrivals) some() bool { return x.count.Load() > 0 }

// refused notes that a ticket's caller was refused.
func (x *arrivals) refused(ctx context.Context, g *gate.Gate[session, acquire], now clock.Instant) {
	a := x.take(ctx, now)
	if a.number == 0 {
		a.number, a.start = g.Arrive(), now
	}
	a.tries++
	a.ctx = idOf(ctx)
	x.keep(a, now)
}

// lost notes that the connection is which the caller had acquired in that context, after so
// many tries, and whether it proved bad.
func (x *arrivals) lost(ctx contextID, tries int, bad bool, now clock.Instant) {
	x.keep(arrival{ctx: ctx, start: now, tries: tries + 1, bad: bad}, now)
}

// keep keeps what is known of the calling goroutine's arrival.
func (x *arrivals) keep(a arrival, now clock.Instant) {
	id := callstack.GoroutineAnywhere()
	a.kept = now
	x.mu.Lock()
	defer x.mu.Unlock()
	if x.of == nil {
		x.of = map[uint64]arrival{}
	}
	if len(x.of) >= mostArrivals {
		x.pruneLocked(now) // the pulse does so only where a *sql.DB is attached
	}
	if len(x.of) < mostArrivals {
		x.of[id] = a
	}
	x.count.Store(int32(len(x.of)))
}

// take returns what was kept for the calling goroutine and that context. It may have
// gone elsewhere since it was refused: what is old is nothing.
func (x *arrivals) take(ctx context.Context, now clock.Instant) (a arrival) {
	if !x.some() {
		return a
	}
	id := callstack.GoroutineAnywhere()
	x.mu.Lock()
	defer x.mu.Unlock()
	kept, ok := x.of[id]
	if !ok {
		return a
	}
	delete(x.of, id)
	x.count.Store(int32(len(x.of)))
	if now.Sub(kept.kept) < longestArrival && kept.ctx == idOf(ctx) {
		return kept
	}
	return a
}

// prune lets go of what is old: its caller went elsewhere.
func (x *arrivals) prune(now clock.Instant) {
	if !x.some() {
		return
	}
	x.mu.Lock()
	defer x.mu.Unlock()
	x.pruneLocked(now)
}

func (x *arrivals) pruneLocked(now clock.Instant) {
	for id, a := range x.of {
		if now.Sub(a.kept) >= longestArrival {
			delete(x.of, id)
		}
	}
	x.count.Store(int32(len(x.of)))
}

// contextID tells contexts apart without referring to one: what a context has in it may
// refer to rows, which the garbage collector is to find.
type contextID struct {
	kind reflect.Type
	at   uintptr
}

func idOf(ctx context.Context) contextID {
	v := reflect.ValueOf(ctx)
	if v.Kind() == reflect.Pointer {
		return contextID{v.Type(), v.Pointer()}
	}
	return contextID{kind: v.Type()} // such as that of context.Background
}
