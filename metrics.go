package sqllease

import (
	"context"
	"slices"
	"time"

	"go.opentelemetry.io/otel"
	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/metric"
	"go.opentelemetry.io/otel/trace"
	"go.opentelemetry.io/otel/trace/noop"

	"github.com/sqllease/sqllease/internal/gate"
)

// metrics are the instruments of one connector, and the attributes of their
// measurements, made once.
type metrics struct {
	waitTime, useTime, dialTime, duration, parts metric.Float64Histogram

	returned metric.Int64Histogram

	timeouts, failures, leaks, slowCalls, closed, nestings, standstills, locks, leftovers metric.Int64Counter

	silent metric.MeterProvider // as in tracing; nil: somebody may collect

	id    *present
	codes *bounded // the values of error.type of operations
	own   ownAttributes

	panicked survivor            // of the application's views, exemplar filter or meter
	observed metric.Registration // nil if it could not be made
}

// begin lets the counters of which an alert looks at increases begin at zero, so that their
// first event is one. The others have no series before something happens.
func (m *metrics) begin() { m.id.Load().begun.Do(m.zeros) }

func (m *metrics) zeros() {
	defer m.panicked.survive()
	for _, class := range []Class{ClassUnused, ClassProven} {
		m.countLeaks(class, 0)
	}
	for _, kind := range faultyKinds {
		m.countLeftovers(kind, 0)
	}
	lanes := m.id.Load().lanes
	for i := range lanes {
		m.timeouts.Add(context.Background(), 0, lanes[i].whole.add...)
	}
	for _, counter := range []metric.Int64Counter{m.slowCalls, m.nestings, m.standstills, m.locks} {
		counter.Add(context.Background(), 0, m.id.Load().pool.add...)
	}
}

// close stops the observation.
func (m *metrics) close() {
	if m.observed != nil {
		_ = m.observed.Unregister()
	}
}

// of are the options of a lane's callers.
func (m *metrics) of(lane gate.LaneID) *laned { return &m.id.Load().lanes[lane] }

// counts tells whether anybody collects what is recorded of each lease. A view may drop
// some of the instruments.
func (m *metrics) counts() (does bool) {
	if m.silent != nil && otel.GetMeterProvider() == m.silent {
		return false // nobody does, and to ask an instrument takes longer
	}
	defer m.panicked.survive()
	return m.waitTime.Enabled(noExample) || m.useTime.Enabled(noExample) ||
		m.own.of != nil && m.duration.Enabled(noExample) // it is asked
}

// acquired records a successful acquire that took that long.
func (m *metrics) acquired(ctx context.Context, lane gate.LaneID, p parts, took time.Duration) {
	defer m.panicked.survive()
	example := ctx
	if took < brief {
		example = noExample
	}
	if m.waitTime.Enabled(example) {
		m.waitTime.Record(example, took.Seconds(), m.own.record(ctx, m.of(lane).whole)...)
	}
	m.recordParts(example, lane, p)
}

// notAcquired records an acquire that failed after that long, and whether time ran out.
func (m *metrics) notAcquired(ctx context.Context, lane gate.LaneID, p parts, took time.Duration, why string, late bool) {
	defer m.panicked.survive()
	m.waitTime.Record(ctx, took.Seconds(), m.own.record(ctx, m.of(lane).failed.of(why))...)
	m.recordParts(ctx, lane, p)
	if late {
		m.timeouts.Add(ctx, 1, m.of(lane).whole.add...)
	}
}

func (m *metrics) recordParts(ctx context.Context, lane gate.LaneID, p parts) {
	if p.queue > 0 {
		m.parts.Record(ctx, p.queue.Seconds(), m.of(lane).queue.record...)
	}
	if p.dial > 0 {
		m.parts.Record(ctx, p.dial.Seconds(), m.of(lane).dial.record...)
	}
	if p.reset >= slowReset {
		m.parts.Record(ctx, p.reset.Seconds(), m.of(lane).reset.record...)
	}
}

func (m *metrics) dialed(ctx context.Context, took time.Duration) {
	defer m.panicked.survive()
	m.dialTime.Record(ctx, took.Seconds(), m.id.Load().pool.record...)
}

func (m *metrics) dialFailed(ctx context.Context, why string) {
	defer m.panicked.survive()
	m.failures.Add(ctx, 1, m.id.Load().unreached.of(why).add...)
}

// held records a hold, as an example of which the trace that took it can stand.
func (m *metrics) held(lane gate.LaneID, span *trace.SpanContext, took time.Duration) {
	defer m.panicked.survive()
	if !m.useTime.Enabled(noExample) {
		return
	}
	example := noExample
	if took >= brief && span.IsValid() {
		example = trace.ContextWithSpan(example, taker{span: *span})
	}
	m.useTime.Record(example, took.Seconds(), m.of(lane).whole.record...)
}

// noExample is the context of a measurement that is no example to look at: to
// keep one costs a third of what the measurement does.
var noExample = context.Background()

// taker stands for the span that took a lease, which may be over. An SDK keeps the context
// of an example, and asks it for the span when metrics are collected.
type taker struct {
	noop.Span
	span trace.SpanContext
}

// SpanContext is that of the span.
func (t taker) SpanContext() trace.SpanContext { return t.span }

func (m *metrics) leaked(class Class) { m.countLeaks(class, 1) }

func (m *metrics) countLeaks(class Class, n int64) {
	defer m.panicked.survive()
	m.leaks.Add(context.Background(), n, m.id.Load().pool.add[0], metric.WithAttributes(keyLeakClass.String(class.String())))
}

func (m *metrics) slowCall() { m.count(m.slowCalls) }

func (m *metrics) nested() { m.count(m.nestings) }

// stoodStill counts a pool that stands still.
func (m *metrics) stoodStill(deadlock bool) {
	if m.count(m.standstills); deadlock {
		m.count(m.locks)
	}
}

func (m *metrics) count(what metric.Int64Counter) {
	defer m.panicked.survive()
	what.Add(context.Background(), 1, m.id.Load().pool.add...)
}

// faultyKinds are the leftovers that are a fault in any case: an alert looks at them.
var faultyKinds = []string{"transaction", "lock"}

// leftover counts a lease that has left something of that kind on its session.
func (m *metrics) leftover(kind string) { m.countLeftovers(kind, 1) }

func (m *metrics) countLeftovers(kind string, n int64) {
	defer m.panicked.survive()
	m.leftovers.Add(context.Background(), n, m.id.Load().pool.add[0], metric.WithAttributes(keyLeftover.String(kind)))
}

// sessionClosed counts a session that is closed, and, of one that was ended by others, how.
func (m *metrics) sessionClosed(d death) {
	defer m.panicked.survive()
	attrs := []attribute.KeyValue{keyReason.String(d.reason.String())}
	if d.how != "" {
		attrs = append(attrs, keyErrorType.String(m.codes.of(d.how)))
	}
	m.closed.Add(context.Background(), 1, m.id.Load().pool.add[0], metric.WithAttributes(attrs...))
}

// failed makes the options of the metrics of an operation that failed.
func (m *metrics) failed(operation string, err error) measured {
	kind, code := errorType(err)
	attrs := append(slices.Clip(m.id.Load().attrs), keyOperation.String(operation), keyErrorType.String(m.codes.of(kind)))
	if code != "" {
		attrs = append(attrs, keyStatus.String(m.codes.of(code)))
	}
	return with(attrs)
}
