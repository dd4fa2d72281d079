package sqllease

import (
	"context"
	"database/sql/driver"
	"fmt"
	"log/slog"
	"slices"
	"sync/atomic"
	"time"

	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/codes"
	semconv "go.opentelemetry.io/otel/semconv/v1.39.0"
	"go.opentelemetry.io/otel/trace"

	"github.com/sqllease/sqllease/internal/clock"
	"github.com/sqllease/sqllease/internal/statement"
)

// scope is the instrumentation scope of all telemetry.
const scope = "github.com/sqllease/sqllease"

// The names and attributes that no convention has.
const (
	spanAcquire = "pool.acquire"
	spanDial    = "pool.dial"
	spanTx      = "transaction"
	spanLeak    = "sqllease.leak"

	keyQueue     = attribute.Key("sqllease.acquire.queue") // seconds
	keyDial      = attribute.Key("sqllease.acquire.dial")  // seconds
	keyReset     = attribute.Key("sqllease.acquire.reset") // seconds
	keyLease     = attribute.Key("sqllease.lease.id")
	keyPart      = attribute.Key("sqllease.acquire.part")
	keyUse       = attribute.Key("sqllease.lease.use")
	keyLeakClass = attribute.Key("sqllease.leak.class")
	keyHold      = attribute.Key("sqllease.hold") // seconds
	keySite      = attribute.Key("sqllease.site")
	keyReason    = attribute.Key("sqllease.close.reason")
	keyOutcome   = attribute.Key("sqllease.tx.outcome")

	eventFirstRow = "sqllease.first_row"
)

// tracing makes the spans of one connector.
type tracing struct {
	tracer trace.Tracer
	roots  bool
	raw    bool // statements and errors are shown as they are
	text   bool // statements are shown
	omit   [calls]bool
	filter func(context.Context, Operation) bool // nil: all are wanted
	attrs  []attribute.KeyValue                  // of every span
	client []trace.SpanStartOption               // of a call to the server: these, and its kind

	internal  []trace.SpanStartOption // likewise, of what is not one
	summaries *descriptions           // those of the connector
	panicked  survivor                // of the application's sampler, span processor or tracer
}

func newTracing(cfg *settings, sums *descriptions) tracing {
	attrs := append(poolAttributes(cfg), endpointAttributes(cfg.endpoint)...)
	t := tracing{
		raw:    cfg.QueryText == QueryTextRaw,
		text:   cfg.QueryText != QueryTextOff,
		filter: guarded(cfg),
		tracer: cfg.TracerProvider.Tracer(scope, trace.WithSchemaURL(semconv.SchemaURL)),
		roots:  cfg.RootSpans,
		attrs:  slices.Clip(attrs),
		client: optionsOf(attrs, trace.SpanKindClient),

		internal: optionsOf(attrs, trace.SpanKindInternal),

		summaries: sums,
		panicked:  once(cfg, "sqllease: the tracer provider panicked; there is no span where it does, and this is said once"),
	}
	for c := range calls {
		t.omit[c] = slices.Contains(cfg.OmitSpans, c.String())
	}
	return t
}

// survivor is told of a panic of the application's code, which must not cost the
// connection that is being used.
type survivor func(panicked any)

// survive is deferred around such code.
func (tell survivor) survive() {
	if v := recover(); v != nil {
		tell(v)
	}
}

// once makes one that tells the Logger of the first panic: aside, since the
// Logger may use this very database.
func once(cfg *settings, text string) survivor {
	var said atomic.Bool
	return func(v any) {
		if !said.CompareAndSwap(false, true) {
			return
		}
		go func() {
			defer func() { _ = recover() }() // of the Logger: there is nobody left to tell
			cfg.Logger.Error(text, slog.String("pool", cfg.Name), slog.String("panic", cfg.panicked(v)))
		}()
	}
}

// guarded is Config.FilterSpan, which may panic.
func guarded(cfg *settings) func(context.Context, Operation) bool {
	if cfg.FilterSpan == nil {
		return nil
	}
	tell := once(cfg, "sqllease: Config.FilterSpan panicked; there is a span where it does, and this is said once")
	return func(ctx context.Context, op Operation) (wanted bool) {
		wanted = true
		defer tell.survive()
		return cfg.FilterSpan(ctx, op)
	}
}

// optionsOf are options that many spans share, so that an unsampled one costs
// no allocation of ours. To append to them makes a copy.
func optionsOf(attrs []attribute.KeyValue, kind trace.SpanKind) []trace.SpanStartOption {
	return slices.Clip([]trace.SpanStartOption{trace.WithAttributes(attrs...), trace.WithSpanKind(kind)})
}

// startOf makes the options of the spans of a statement's calls.
func (t *tracing) startOf(s *described, query string) []trace.SpanStartOption {
	attrs := append(t.attrs, semconv.DBOperationName(s.Operation), semconv.DBQuerySummary(s.name))
	switch {
	case t.raw:
		attrs = append(attrs, semconv.DBQueryText(statement.Cut(query)))
	case t.text:
		attrs = append(attrs, semconv.DBQueryText(s.Sanitised))
	}
	if s.Target != "" {
		attrs = append(attrs, semconv.DBCollectionName(s.Target))
	}
	return optionsOf(attrs, trace.SpanKindClient)
}

// start starts a span; nil where the application's sampler, span processor or
// tracer panics.
func (t *tracing) start(ctx context.Context, name string, options ...trace.SpanStartOption) (in context.Context, span trace.Span) {
	in = ctx
	defer t.panicked.survive()
	return t.tracer.Start(ctx, name, options...)
}

// end ends a span, if there is one.
func (t *tracing) end(span trace.Span, options ...trace.SpanEndOption) {
	if span == nil {
		return
	}
	defer t.panicked.survive()
	span.End(options...)
}

// poolAttributes identify the pool in every span and metric.
func poolAttributes(cfg *settings) []attribute.KeyValue {
	attrs := []attribute.KeyValue{semconv.DBClientConnectionPoolName(cfg.Name)}
	if system := cfg.dialect.System; system != "" {
		attrs = append(attrs, semconv.DBSystemNameKey.String(system))
	}
	return attrs
}

// isTraced tells whether a context is that of a trace.
func isTraced(ctx context.Context) bool { return trace.SpanContextFromContext(ctx).IsValid() }

// mayWant tells whether a call may get a span, by what needs no asking.
func (t *tracing) mayWant(traced bool, c call) bool { return !t.omit[c] && (t.roots || traced) }

// wanted tells whether a call of that context that has no statement gets a span.
func (t *tracing) wanted(ctx context.Context, c call) bool {
	return t.mayWant(isTraced(ctx), c) && t.passes(ctx, c, "")
}

// passes tells whether a call that may get a span does, by Config.FilterSpan. query is
// empty where it has no statement.
func (t *tracing) passes(ctx context.Context, c call, query string) bool {
	if t.filter == nil {
		return true
	}
	op := Operation{Call: c.String()}
	if query != "" {
		sum := t.summaries.Of(query)
		op.Summary, op.Statement = sum.name, sum.Sanitised
	}
	return t.filter(ctx, op)
}

// startAcquire starts the span of an acquire that queues or dials, and returns the
// time of day at which it starts; nil if there is to be none.
func (t *tracing) startAcquire(ctx context.Context, start clock.Instant) (in context.Context, span trace.Span, day time.Time) {
	if !t.wanted(ctx, callAcquire) {
		return ctx, nil, day
	}
	day = start.Time()
	in, span = t.start(ctx, spanAcquire, append(t.internal, trace.WithTimestamp(day))...)
	return in, span, day
}

// part emits the span of a part of an acquire that is over.
func (t *tracing) part(ctx context.Context, acquire trace.Span, name string, start time.Time, took time.Duration) {
	defer t.panicked.survive()
	if acquire == nil || !acquire.IsRecording() {
		return
	}
	_, span := t.start(ctx, name, append(t.internal, trace.WithTimestamp(start))...)
	t.end(span, trace.WithTimestamp(start.Add(took)))
}

// startDial starts the span of the dial in an acquire, which is the parent of
// what a driver's dialler emits.
func (t *tracing) startDial(ctx context.Context, acquire trace.Span, start time.Time) (in context.Context, span trace.Span) {
	in = ctx
	defer t.panicked.survive()
	if acquire == nil || !acquire.IsRecording() {
		return ctx, nil
	}
	return t.start(ctx, spanDial, append(t.client, trace.WithTimestamp(start))...)
}

// startTx starts the span of a transaction; nil if there is to be none.
func (t *tracing) startTx(ctx context.Context) (context.Context, trace.Span) {
	if !t.wanted(ctx, callTx) {
		return ctx, nil
	}
	return t.start(ctx, spanTx, t.internal...)
}

// endTx ends it.
func (t *tracing) endTx(span trace.Span, outcome string, err error) {
	defer t.panicked.survive()
	if span == nil {
		return
	}
	if span.IsRecording() {
		span.SetAttributes(keyOutcome.String(outcome))
		t.recordError(span, err)
		if outcome == "lost" {
			span.SetStatus(codes.Error, outcome)
		}
	}
	t.end(span)
}

// endAcquire ends it with its parts.
func (t *tracing) endAcquire(span trace.Span, at time.Time, p parts, err error) {
	defer t.panicked.survive()
	if span == nil {
		return
	}
	if span.IsRecording() {
		span.SetAttributes(
			keyQueue.Float64(p.queue.Seconds()),
			keyDial.Float64(p.dial.Seconds()),
			keyReset.Float64(p.reset.Seconds()))
		t.recordError(span, err)
	}
	t.end(span, trace.WithTimestamp(at))
}

// refused emits the span of a checkout whose reset took time and failed:
// database/sql tries again by itself, and the time must not be lost.
func (t *tracing) refused(ctx context.Context, start, now clock.Instant, p parts, err error) {
	_, span, day := t.startAcquire(ctx, start)
	t.endAcquire(span, day.Add(now.Sub(start)), p, err)
}

// recordError marks a span as failed. What a server says may quote what it was
// sent, and a driver's error its DSN: the text of errors that are not ours is
// shown only where that of statements is.
func (t *tracing) recordError(span trace.Span, err error) {
	if err == nil {
		return
	}
	kind, code := errorType(err)
	attrs := []attribute.KeyValue{semconv.ErrorTypeKey.String(kind)}
	if code != "" {
		attrs = append(attrs, semconv.DBResponseStatusCode(code))
	}
	span.SetAttributes(attrs...)
	span.SetStatus(codes.Error, kind)
	event := []attribute.KeyValue{semconv.ExceptionType(fmt.Sprintf("%T", err))}
	if t.raw || (t.text && saysNothingOfData(err)) {
		event = append(event, semconv.ExceptionMessage(err.Error()))
	}
	span.AddEvent(semconv.ExceptionEventName, trace.WithAttributes(event...))
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

// link links a statement's span to that of its transaction.
func (t *tracing) link(span, tx trace.Span) {
	if span == nil || tx == nil {
		return
	}
	defer t.panicked.survive()
	if span.IsRecording() {
		span.AddLink(trace.Link{SpanContext: tx.SpanContext()})
	}
}

// records tells whether what is said in a span may be kept.
func (t *tracing) records(span trace.Span) (does bool) {
	if span == nil {
		return false
	}
	defer t.panicked.survive()
	return span.IsRecording()
}

// endCall ends the span of an operation, or of a dial, if it has one, with what is said in
// it besides.
func (t *tracing) endCall(span trace.Span, err error, said []attribute.KeyValue) {
	if span == nil {
		return
	}
	defer t.panicked.survive()
	if span.IsRecording() {
		if len(said) > 0 {
			span.SetAttributes(said...)
		}
		t.recordError(span, err)
	}
	t.end(span)
}
