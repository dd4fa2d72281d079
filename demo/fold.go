package main

import (
	"context"
	"maps"
	"math"
	"slices"
	"sync"
	"time"

	sdktrace "go.opentelemetry.io/otel/sdk/trace"
	"go.opentelemetry.io/otel/trace"
)

// This file is what the demo itself reads out of its spans.

// sqlleaseScope is the instrumentation scope of sqllease's spans.
const sqlleaseScope = "github.com/sqllease/sqllease"

// spanFold is a span processor that folds the spans of each request into the
// figures of its endpoint: what it spent waiting for a connection, and what
// in the database.
type spanFold struct {
	inRush func() bool // set before the first request; nil: there is no rush

	mu        sync.Mutex
	open      map[trace.TraceID]*request // guarded by mu: requests in flight
	endpoints map[endpointKey]*figures   // guarded by mu
}

// endpointKey is an endpoint, in the rush or at other times.
type endpointKey struct {
	name string
	rush bool
}

// request is what is known of a request while its span is open.
type request struct {
	rush           bool // it came in the rush
	wait, querying time.Duration
}

// figures are those of one endpoint. Its requests may do other things as well.
type figures struct {
	wait, querying durations
}

func newSpanFold() *spanFold {
	return &spanFold{open: map[trace.TraceID]*request{}, endpoints: map[endpointKey]*figures{}}
}

// OnStart remembers a request.
func (f *spanFold) OnStart(_ context.Context, s sdktrace.ReadWriteSpan) {
	if !isRequest(s) {
		return
	}
	r := &request{rush: f.inRush != nil && f.inRush()}
	f.mu.Lock()
	defer f.mu.Unlock()
	f.open[s.SpanContext().TraceID()] = r
}

// OnEnd adds a span of sqllease to its request, and a request to its endpoint.
func (f *spanFold) OnEnd(s sdktrace.ReadOnlySpan) {
	f.mu.Lock()
	defer f.mu.Unlock()
	r := f.open[s.SpanContext().TraceID()]
	took := s.EndTime().Sub(s.StartTime())
	switch {
	case r == nil: // its request is over: these are rows that were left open
	case isRequest(s):
		delete(f.open, s.SpanContext().TraceID())
		f.endpointLocked(endpointKey{s.Name(), r.rush}).add(r.wait, r.querying)
	case s.InstrumentationScope().Name != sqlleaseScope:
	case slices.Contains(covering, s.Name()):
	case s.Name() == "pool.acquire":
		r.wait += took
	default:
		r.querying += took
	}
}

// Shutdown has nothing to do.
func (f *spanFold) Shutdown(context.Context) error { return nil }

// ForceFlush has nothing to do.
func (f *spanFold) ForceFlush(context.Context) error { return nil }

// covering are spans of time that other spans cover as well.
var covering = []string{"sqllease.leak", "transaction", "pool.queue", "pool.dial", "pool.reset"}

func isRequest(s sdktrace.ReadOnlySpan) bool {
	return !s.Parent().IsValid() && s.SpanKind() == trace.SpanKindServer
}

// snapshot returns the figures so far, by endpoint: those of the rush, or of
// all other times.
func (f *spanFold) snapshot(rush bool) map[string]*figures {
	f.mu.Lock()
	defer f.mu.Unlock()
	out := map[string]*figures{}
	for key, e := range f.endpoints {
		if key.rush == rush {
			out[key.name] = &figures{e.wait.clone(), e.querying.clone()}
		}
	}
	return out
}

// endpointLocked returns the figures of an endpoint.
func (f *spanFold) endpointLocked(key endpointKey) *figures {
	e := f.endpoints[key]
	if e == nil {
		e = &figures{}
		f.endpoints[key] = e
	}
	return e
}

func (e *figures) add(wait, querying time.Duration) {
	e.wait.add(wait)
	e.querying.add(querying)
}

// durations counts durations in classes that are 1 % wide, so that a run of
// any length fits in memory.
type durations struct {
	classes map[int]int // class → how many
	n       int
}

const classWidth = 1.01

func (d *durations) add(x time.Duration) {
	if d.classes == nil {
		d.classes = map[int]int{}
	}
	d.classes[classOf(x)]++
	d.n++
}

func (d *durations) clone() durations {
	return durations{maps.Clone(d.classes), d.n}
}

// classOf numbers the class of x; those of zero and of a nanosecond are 0.
func classOf(x time.Duration) int {
	return int(math.Round(math.Log(float64(max(x, 1))) / math.Log(classWidth)))
}

// percentile returns the smallest duration that a share q of them, 0 < q ≤ 1,
// does not exceed, to within half a class.
func (d *durations) percentile(q float64) time.Duration {
	rank := int(math.Ceil(q * float64(d.n)))
	seen := 0
	for _, class := range sortedKeys(d.classes) {
		if seen += d.classes[class]; seen >= rank {
			return time.Duration(math.Pow(classWidth, float64(class)))
		}
	}
	return 0
}

// p99 is what one in a hundred exceeds.
func (d *durations) p99() time.Duration { return d.percentile(0.99) }
