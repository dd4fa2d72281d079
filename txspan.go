package sqllease

import (
	"context"
	"time"

	"go.opentelemetry.io/otel/codes"
	"go.opentelemetry.io/otel/trace"

	"github.com/sqllease/sqllease/internal/clock"
)

// txSpan is a transaction as its span tells it.
type txSpan struct {
	ctx      context.Context   // of BeginTx, with the span: its end makes database/sql roll back
	parent   trace.SpanContext // the span of the application's that it was begun in
	span     trace.Span        // nil: none
	recorded bool              // what is said in it is kept

	// What it was used for, until now. All are guarded by its lease's mu, and by nothing
	// once it has ended.
	calls      int           // in flight: a query is one until its rows are closed
	since      clock.Instant // when that became none, or more than none
	busy, idle time.Duration // in a call, and between calls
}

// startTx starts the span of a transaction, linked to the acquire's, if that began a trace
// of its own. It has none where none is wanted.
func (t *tracing) startTx(ctx context.Context, waited trace.Span) txSpan {
	if !t.wanted(ctx, callTx) {
		return txSpan{ctx: ctx}
	}
	x := txSpan{parent: trace.SpanContextFromContext(ctx)}
	x.ctx, x.span = t.start(ctx, spanTx, t.linked(t.id.Load().internal, waited)...)
	x.recorded = t.records(x.span)
	return x
}

// endTx ends it: what a lease had as its transaction, or nil.
func (t *tracing) endTx(x *txSpan, outcome string, err error, retried bool) {
	if x == nil || x.span == nil {
		return
	}
	defer t.end(x.span) // as in endCall
	defer t.panicked.survive()
	if x.recorded {
		x.span.SetAttributes(keyOutcome.String(outcome), keyTxBusy.Float64(x.busy.Seconds()), keyTxIdle.Float64(x.idle.Seconds()))
		t.recordError(x.ctx, x.span, err, retried)
		if outcome == "lost" && x.ctx.Err() != context.Canceled {
			x.span.SetStatus(codes.Error, outcome)
		}
	}
}

// enter and leave count the calls in flight, settle the time until now.
func (x *txSpan) enter(now clock.Instant) {
	if x.calls == 0 {
		x.settle(now)
	}
	x.calls++
}

func (x *txSpan) leave(now clock.Instant) {
	switch x.calls {
	case 0: // the call that began it
		return
	case 1:
		x.settle(now)
	}
	x.calls--
}

func (x *txSpan) settle(now clock.Instant) {
	if took := now.Sub(x.since); x.calls > 0 {
		x.busy += took
	} else {
		x.idle += took
	}
	x.since = now
}

// adopts tells whether a call in that context is a part of it: where the application gives
// the span that it began the transaction in, it could not give the transaction's own.
func (x *txSpan) adopts(ctx context.Context) bool {
	return x.recorded && x.parent.Equal(trace.SpanContextFromContext(ctx))
}
