package sqllease

import (
	"context"
	"database/sql/driver"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"sync/atomic"
	"time"

	"go.opentelemetry.io/otel"
	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/codes"
	"go.opentelemetry.io/otel/trace"
	"go.opentelemetry.io/otel/trace/noop"

	"github.com/sqllease/sqllease/internal/clock"
	"github.com/sqllease/sqllease/internal/drivers"
	"github.com/sqllease/sqllease/internal/gate"
	"github.com/sqllease/sqllease/internal/statement"
)

// tracing makes the spans of one connector.
type tracing struct {
	tracer trace.Tracer
	roots  bool                 // calls without a parent have spans
	silent trace.TracerProvider // where it is the global one, nobody listens; nil: somebody may
	raw    bool                 // statements and errors are shown as they are
	text   bool                 // statements are shown
	omit   [calls]bool
	filter func(context.Context, Operation) bool      // nil: all are wanted
	failed func(context.Context, error) bool          // nil: all errors count
	own    func(context.Context) []attribute.KeyValue // of the application's; nil: none
	id     *present

	summaries *descriptions // those of the connector
	panicked  survivor      // of the application's sampler, span processor or tracer
}

func newTracing(cfg *settings, id *present, sums *descriptions) tracing {
	t := tracing{
		raw:    cfg.QueryText == QueryTextRaw,
		text:   cfg.QueryText != QueryTextOff,
		filter: guarded(cfg, cfg.FilterSpan, "sqllease: Config.FilterSpan panicked: the span was made. Its later panics are not logged"),
		failed: guarded(cfg, cfg.IsError, "sqllease: Config.IsError panicked: the error marks the span as failed. Its later panics are not logged"),
		own:    guardedAttributes(cfg, cfg.SpanAttributes, "sqllease: Config.SpanAttributes panicked: the span went without its attributes. Its later panics are not logged"),
		tracer: cfg.TracerProvider.Tracer(scope, trace.WithInstrumentationVersion(version()), trace.WithSchemaURL(schema)),
		roots:  !cfg.OmitRootSpans && !isNoop(cfg.TracerProvider),
		id:     id,

		summaries: sums,
		panicked:  once(cfg, "sqllease: the tracer provider panicked: a span may be missing or incomplete. Its later panics are not logged"),
	}
	if isDefault(cfg.TracerProvider) {
		t.silent = cfg.TracerProvider
	}
	for c := range calls {
		t.omit[c] = slices.Contains(cfg.OmitSpans, c.name())
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

// guarded is a function of the application's that may panic, and then says yes; nil where
// there is none.
func guarded[A any](cfg *settings, ask func(context.Context, A) bool, text string) func(context.Context, A) bool {
	if ask == nil {
		return nil
	}
	tell := once(cfg, text)
	return func(ctx context.Context, about A) (yes bool) {
		yes = true
		defer tell.survive()
		return ask(ctx, about)
	}
}

// isDefault tells the provider that OpenTelemetry has globally before an application sets
// one: as long as it is the global one, nobody hears of a span without a parent, or of a
// measurement, and it need not be asked.
func isDefault(provider any) bool {
	return drivers.PackageOf(provider) == "go.opentelemetry.io/otel/internal/global"
}

// isNoop tells a provider whose spans nobody ever hears of.
func isNoop(p trace.TracerProvider) bool {
	_, is := p.(noop.TracerProvider)
	return is
}

// listens tells whether somebody may hear of a span without a parent.
func (t *tracing) listens() bool {
	return t.roots && (t.silent == nil || otel.GetTracerProvider() != t.silent)
}

// textOf is a statement as its spans show it; empty: they do not.
func (t *tracing) textOf(s *statement.Summary, query string) string {
	switch {
	case t.raw:
		return statement.Cut(query)
	case t.text:
		return s.Sanitised
	}
	return ""
}

// start starts a span; nil where the application's sampler, span processor or
// tracer panics.
func (t *tracing) start(ctx context.Context, name string, options ...trace.SpanStartOption) (in context.Context, span trace.Span) {
	in = ctx
	defer t.panicked.survive()
	in, span = t.tracer.Start(ctx, name, options...)
	if t.own != nil && span.IsRecording() {
		span.SetAttributes(t.own(ctx)...)
	}
	return in, span
}

// end ends a span, if there is one.
func (t *tracing) end(span trace.Span, options ...trace.SpanEndOption) {
	if span == nil {
		return
	}
	defer t.panicked.survive()
	span.End(options...)
}

// isTraced tells whether a context is that of a trace.
func isTraced(ctx context.Context) bool { return trace.SpanContextFromContext(ctx).IsValid() }

// mayWant tells whether a call may get a span, by what needs no asking.
func (t *tracing) mayWant(traced bool, c call) bool { return !t.omit[c] && (traced || t.listens()) }

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
	op := Operation{Call: c.name()}
	if query != "" {
		sum := t.summaries.Of(query)
		op.Summary, op.Statement = sum.name, sum.Sanitised
	}
	return t.filter(ctx, op)
}

// startAcquire starts the span of an acquire that queues or dials, and returns the
// time of day at which it starts; nil if there is to be none.
func (t *tracing) startAcquire(ctx context.Context, lane gate.LaneID, start clock.Instant) (in context.Context, span trace.Span, day time.Time) {
	if !t.wanted(ctx, callAcquire) {
		return ctx, nil, day
	}
	day = start.Time()
	in, span = t.start(ctx, spanAcquire, append(t.id.Load().lanes[lane].internal, trace.WithTimestamp(day))...)
	return in, span, day
}

// part emits the span of a part of an acquire that is over.
func (t *tracing) part(ctx context.Context, acquire trace.Span, name string, start time.Time, took time.Duration) {
	defer t.panicked.survive()
	if acquire == nil || !acquire.IsRecording() {
		return
	}
	_, span := t.start(ctx, name, append(t.id.Load().internal, trace.WithTimestamp(start))...)
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
	return t.start(ctx, spanDial, append(t.id.Load().client, trace.WithTimestamp(start))...)
}

// linked adds a link to the options of a span, if there is something to link to.
func (t *tracing) linked(options []trace.SpanStartOption, to trace.Span) (all []trace.SpanStartOption) {
	if to == nil {
		return options
	}
	all = options
	defer t.panicked.survive()
	return append(options, trace.WithLinks(trace.Link{SpanContext: to.SpanContext()}))
}

// endAcquire ends it with its parts.
func (t *tracing) endAcquire(ctx context.Context, span trace.Span, at time.Time, p parts, err error, retried bool) {
	if span == nil {
		return
	}
	defer t.end(span, trace.WithTimestamp(at)) // as in endCall
	defer t.panicked.survive()
	if span.IsRecording() {
		span.SetAttributes(
			keyQueue.Float64(p.queue.Seconds()),
			keyDial.Float64(p.dial.Seconds()),
			keyReset.Float64(p.reset.Seconds()))
		t.recordError(ctx, span, err, retried)
	}
}

// refused emits the span of a checkout whose reset took time and failed:
// database/sql tries again by itself, and the time must not be lost.
func (t *tracing) refused(ctx context.Context, lane gate.LaneID, start, now clock.Instant, p parts, err error) {
	_, span, day := t.startAcquire(ctx, lane, start)
	t.endAcquire(ctx, span, day.Add(now.Sub(start)), p, err, ctx.Err() == nil)
}

// recordError says in a span how its call failed, and marks it as failed, unless the
// caller itself cancelled the call, or database/sql tries again: see the conventions on
// recording errors. What a server says may quote what it was sent, and a driver's error
// its DSN: the text of errors that are not ours is shown only where that of statements is.
func (t *tracing) recordError(ctx context.Context, span trace.Span, err error, retried bool) {
	if err == nil {
		return
	}
	kind, code := errorType(err)
	attrs := []attribute.KeyValue{keyErrorType.String(kind)}
	if code != "" {
		attrs = append(attrs, keyStatus.String(code))
	}
	if retried {
		attrs = append(attrs, keyRetried.Bool(true))
	}
	span.SetAttributes(attrs...)
	if retried || isCancelled(ctx, err) || t.failed != nil && !t.failed(ctx, err) {
		return
	}
	span.SetStatus(codes.Error, kind)
	event := []attribute.KeyValue{keyException.String(fmt.Sprintf("%T", err))}
	if t.raw || (t.text && saysNothingOfData(err)) {
		event = append(event, keyMessage.String(err.Error()))
	}
	span.AddEvent(eventException, trace.WithAttributes(event...))
}

// isCancelled tells whether a call failed because its caller wanted it no longer.
func isCancelled(ctx context.Context, err error) bool {
	return errors.Is(err, context.Canceled) || ctx != nil && errors.Is(ctx.Err(), context.Canceled)
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

// goesAhead tells whether there is to be a span before the call: the driver has shown that
// it does not decline, or nothing yet, and the statement is to have the span in its comment.
func (d *decline) goesAhead(comments bool) bool {
	state := d.state.Load()
	return state == declineNever || comments && state == declineUnknown
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
func (t *tracing) endCall(ctx context.Context, span trace.Span, err error, retried bool, said []attribute.KeyValue) {
	if span == nil {
		return
	}
	defer t.end(span) // whatever comes of what is said in it
	defer t.panicked.survive()
	if span.IsRecording() {
		if len(said) > 0 {
			span.SetAttributes(said...)
		}
		t.recordError(ctx, span, err, retried)
	}
}
