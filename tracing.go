package sqllease

import (
	"context"
	"database/sql/driver"
	"errors"
	"fmt"
	"sync/atomic"
	"time"

	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/codes"
	semconv "go.opentelemetry.io/otel/semconv/v1.43.0"
	"go.opentelemetry.io/otel/trace"
)

// scope is the instrumentation scope of all telemetry.
const scope = "github.com/sqllease/sqllease"

// The names and attributes that no convention has.
const (
	spanAcquire = "pool.acquire"
	spanLeak    = "sqllease.leak"

	keyQueue     = attribute.Key("sqllease.acquire.queue") // seconds
	keyDial      = attribute.Key("sqllease.acquire.dial")  // seconds
	keyReset     = attribute.Key("sqllease.acquire.reset") // seconds
	keyLease     = attribute.Key("sqllease.lease.id")
	keyUse       = attribute.Key("sqllease.lease.use")
	keyLeakClass = attribute.Key("sqllease.leak.class")
	keyHold      = attribute.Key("sqllease.hold") // seconds
	keySite      = attribute.Key("sqllease.site")
	keyReason    = attribute.Key("sqllease.close.reason")
)

// errPanicked stands in spans and metrics for the error of a call in which
// the driver panicked. The panic itself goes on.
var errPanicked = errors.New("sqllease: the driver panicked")

// tracing makes the spans of one connector.
type tracing struct {
	tracer  trace.Tracer
	roots   bool
	acquire trace.SpanStartEventOption // attributes of acquire spans
	call    trace.SpanStartEventOption // attributes of every operation's span
}

func newTracing(cfg *settings) tracing {
	attrs := poolAttributes(cfg)
	return tracing{
		tracer:  cfg.TracerProvider.Tracer(scope, trace.WithSchemaURL(semconv.SchemaURL)),
		roots:   cfg.RootSpans,
		acquire: trace.WithAttributes(attrs...),
		call:    trace.WithAttributes(attrs...),
	}
}

// poolAttributes identify the pool in every span and metric.
func poolAttributes(cfg *settings) []attribute.KeyValue {
	attrs := []attribute.KeyValue{semconv.DBClientConnectionPoolName(cfg.Name)}
	if system := systemName(cfg.Dialect); system != "" {
		attrs = append(attrs, semconv.DBSystemNameKey.String(system))
	}
	return attrs
}

// systemName is the conventions' db.system.name of a dialect.
func systemName(d Dialect) string {
	switch d {
	case DialectNone:
		return ""
	case DialectTiDB: // not in the conventions' list; it presents itself as MySQL
		return string(DialectMySQL)
	}
	return string(d)
}

// wanted tells whether an operation of that context gets a span.
func (t *tracing) wanted(ctx context.Context) bool {
	return t.roots || trace.SpanContextFromContext(ctx).IsValid()
}

// startAcquire starts the span of an acquire that queues or dials; nil if
// there is to be none.
func (t *tracing) startAcquire(ctx context.Context, start time.Time) (context.Context, trace.Span) {
	if !t.wanted(ctx) {
		return ctx, nil
	}
	return t.tracer.Start(ctx, spanAcquire, t.acquire,
		trace.WithSpanKind(trace.SpanKindInternal), trace.WithTimestamp(start))
}

// endAcquire ends it with its parts.
func endAcquire(span trace.Span, now time.Time, p parts, err error) {
	if span == nil {
		return
	}
	if span.IsRecording() {
		span.SetAttributes(
			keyQueue.Float64(p.queue.Seconds()),
			keyDial.Float64(p.dial.Seconds()),
			keyReset.Float64(p.reset.Seconds()))
		recordError(span, err)
	}
	span.End(trace.WithTimestamp(now))
}

// refused emits the span of a checkout whose reset took time and failed:
// database/sql tries again by itself, and the time must not be lost.
func (t *tracing) refused(ctx context.Context, start, now time.Time, p parts, err error) {
	_, span := t.startAcquire(ctx, start)
	endAcquire(span, now, p, err)
}

// recordError marks a span as failed.
func recordError(span trace.Span, err error) {
	if err == nil {
		return
	}
	span.RecordError(err)
	span.SetStatus(codes.Error, errorType(err))
	span.SetAttributes(semconv.ErrorTypeKey.String(errorType(err)))
}

// errorType is a value of bounded number for the attribute error.type: the
// well-known errors by name, others by Go type.
func errorType(err error) string {
	switch {
	case errors.Is(err, context.DeadlineExceeded):
		return "context.DeadlineExceeded"
	case errors.Is(err, context.Canceled):
		return "context.Canceled"
	case errors.Is(err, driver.ErrBadConn):
		return "driver.ErrBadConn"
	case err == errPanicked:
		return "panic"
	}
	return fmt.Sprintf("%T", err)
}

// declines remembers whether the driver answers direct calls with
// driver.ErrSkip, without arguments and with: such an answer is no operation,
// and must leave no span. Until the first call has shown, and where the driver
// does decline, a span is made after the call, back-dated.
type declines struct{ with, without decline }

type decline struct{ state atomic.Uint32 }

const (
	declineUnknown uint32 = iota
	declineNever
	declineSometimes
)

func (d *declines) of(args []driver.NamedValue) *decline {
	if len(args) > 0 {
		return &d.with
	}
	return &d.without
}

// learn takes notice of how a direct call ended. One that failed shows
// nothing: a driver may look at the connection before it declines.
func (d *decline) learn(err error) {
	switch {
	case err == driver.ErrSkip:
		d.state.Store(declineSometimes)
	case err == nil && d.state.Load() == declineUnknown:
		d.state.CompareAndSwap(declineUnknown, declineNever)
	}
}

// operation is one driver call, or, for a query, the time until its rows are
// closed. It keeps the lease's state, the span and the metrics in step.
type operation struct {
	h        *handle
	call     call
	query    string
	begun    time.Time
	ctx      context.Context
	span     trace.Span // nil: none, or not yet
	decline  *decline   // nil: this call cannot be declined
	returned bool       // the driver returned; set by the caller, false in a panic
	reading  bool       // the operation goes on until its rows are closed
}

// start begins an operation on a lease.
func (h *handle) start(ctx context.Context, c call, query string) (operation, context.Context) {
	o := operation{h: h, call: c, query: query, begun: time.Now(), ctx: ctx}
	h.lease.enter(c, query, o.begun)
	return o, o.startSpan(ctx)
}

// startDirect begins an operation that the driver may decline.
func (h *handle) startDirect(ctx context.Context, c call, query string, d *decline) (operation, context.Context) {
	o := operation{h: h, call: c, query: query, begun: time.Now(), ctx: ctx, decline: d}
	h.lease.enter(c, query, o.begun)
	if d.state.Load() == declineNever {
		ctx = o.startSpan(ctx)
	}
	return o, ctx
}

func (o *operation) startSpan(ctx context.Context) context.Context {
	t := &o.h.c.tracing
	if !t.wanted(ctx) {
		return ctx
	}
	ctx, o.span = t.tracer.Start(ctx, o.name(), t.call,
		trace.WithSpanKind(trace.SpanKindClient), trace.WithTimestamp(o.begun))
	return ctx
}

// name is the span's name: the summary of the statement, or the call.
func (o *operation) name() string {
	if o.query == "" {
		return o.call.String()
	}
	text := o.h.c.summaries.of(o.query).text()
	if o.call == callPrepare {
		return "prepare " + text
	}
	return text
}

// end ends the call; deferred, so that it runs in a panic too.
func (o *operation) end(result *error) {
	err, now := *result, time.Now()
	o.h.lease.leave(now)
	if !o.returned {
		err = errPanicked
		o.h.lose()
	}
	if o.decline != nil {
		o.decline.learn(err)
	}
	if err == driver.ErrSkip {
		return
	}
	if o.reading { // a copy of o, in the rows, goes on
		if now.Sub(o.begun) >= firstLook {
			o.h.c.gate.prove(&o.h.lease, now) // the watch has looked already
		}
		return
	}
	o.finish(now, err, -1)
}

// rows lets the operation go on until its rows are closed.
func (o *operation) rows(inner driver.Rows) driver.Rows {
	if o.span == nil {
		o.startSpan(o.ctx)
	}
	o.reading = true
	r := &rows{inner: inner, op: *o}
	o.h.lease.openResult(r)
	return newRows(r)
}

// end ends the operation of a query.
func (r *rows) end() {
	if r.closed {
		return
	}
	r.closed = true
	now := time.Now()
	r.op.h.lease.closeResult(r, now)
	r.op.finish(now, r.err, r.read)
}

// finish ends the span and records the metrics. rows is negative where there
// are none to count.
func (o *operation) finish(now time.Time, err error, rows int64) {
	if o.span == nil {
		o.startSpan(o.ctx)
	}
	if o.span != nil {
		o.describe(err, rows)
		o.span.End(trace.WithTimestamp(now))
	}
	o.h.c.metrics.operated(o, now.Sub(o.begun), err, rows)
}

func (o *operation) describe(err error, rows int64) {
	if !o.span.IsRecording() {
		return
	}
	if o.query != "" {
		sum := o.h.c.summaries.of(o.query)
		o.span.SetAttributes(
			semconv.DBOperationName(sum.operation),
			semconv.DBQuerySummary(sum.text()),
			semconv.DBQueryText(sum.sanitised))
		if sum.target != "" {
			o.span.SetAttributes(semconv.DBCollectionName(sum.target))
		}
	}
	if rows >= 0 {
		o.span.SetAttributes(semconv.DBResponseReturnedRows(int(rows)))
	}
	recordError(o.span, err)
}
