package sqllease

import (
	"context"
	"log/slog"
	"sync/atomic"

	"go.opentelemetry.io/otel/codes"
	"go.opentelemetry.io/otel/trace"

	"github.com/sqllease/sqllease/internal/clock"
)

// reports tell of leaks: the log, the trace, the metrics and the application.
type reports struct {
	cfg       *settings
	tracing   *tracing
	metrics   *metrics
	summaries *descriptions
	sites     sites

	leaks, proven, longCalls, lateReturns atomic.Uint64
}

// report tells the log, the trace and the metrics, ends what the holders of leases that
// lost their sessions cannot end, and then tells the application, whose function may not
// return, and must keep nothing else from happening.
func (r *reports) report(f *findings) {
	defer each(f.leaks, r.callOnLeak)
	defer r.endLost(f)
	each(f.leaks, r.record)
}

// each calls f for each of them: one for which f ends the goroutine keeps it from no other.
func each[T any](all []T, f func(T)) {
	for i := range all {
		returned := false
		func() {
			defer func() {
				if !returned {
					each(all[i+1:], f)
				}
			}()
			f(all[i])
			returned = true
		}()
	}
}

// record tells of one leak what is kept of it.
func (r *reports) record(l *Leak) {
	defer r.cfg.recovered("reporting a leak")
	l.Pool = r.cfg.Name
	l.Statement = r.sanitised(l.Statement)
	r.count(l)
	if !r.sites.note(l, clock.Now()) {
		return
	}
	r.tracing.leaked(*l)
	level := slog.LevelWarn
	if l.Returned {
		level = slog.LevelInfo
	}
	ctx := trace.ContextWithSpanContext(context.Background(), l.SpanContext)
	r.cfg.Logger.LogAttrs(ctx, level, "sqllease: "+l.headline(), slog.String("pool", l.Pool), slog.Any("leak", *l))
}

// count counts each lease once in each class.
func (r *reports) count(l *Leak) {
	switch {
	case l.Returned:
		r.lateReturns.Add(1)
		return
	case l.Class == ClassBusy:
		r.longCalls.Add(1)
	case l.Class == ClassProven:
		r.proven.Add(1)
		fallthrough
	default:
		if !l.told {
			r.leaks.Add(1)
		}
	}
	if l.Class != ClassIdleInHand || !l.told {
		r.metrics.leaked(l.Class)
	}
}

// callOnLeak survives a panic of the application's function.
func (r *reports) callOnLeak(l *Leak) {
	if r.cfg.OnLeak == nil {
		return
	}
	defer r.cfg.recovered("logging a panic of Config.OnLeak")
	defer func() {
		if v := recover(); v != nil {
			r.cfg.Logger.Error("sqllease: Config.OnLeak panicked; the report itself is not lost",
				slog.String("pool", l.Pool), slog.Uint64("lease", l.ID), slog.String("panic", r.cfg.panicked(v)))
		}
	}()
	r.cfg.OnLeak(*l)
}

func (r *reports) sanitised(statement string) string {
	if statement == "" {
		return ""
	}
	return r.summaries.Of(statement).Sanitised
}

// sanitiseHolders does so to what an error tells of those who have the connections.
func (r *reports) sanitiseHolders(e *AcquireError) {
	for i := range e.Holders {
		e.Holders[i].Statement = r.sanitised(e.Holders[i].Statement)
	}
}

// leaked emits a span from the acquire to now, linked to the trace that took
// the connection.
func (t *tracing) leaked(l Leak) {
	defer t.panicked.survive()
	if !t.roots && !l.SpanContext.IsValid() {
		return
	}
	ctx := trace.ContextWithSpanContext(context.Background(), l.SpanContext)
	_, span := t.start(ctx, spanLeak, append(t.internal,
		trace.WithTimestamp(l.Acquired),
		trace.WithLinks(trace.Link{SpanContext: l.SpanContext}))...)
	if span == nil {
		return
	}
	span.SetAttributes(
		keyLease.Int64(int64(l.ID)),
		keyLeakClass.String(l.Class.value()),
		keyHold.Float64(l.Hold.Seconds()),
		keySite.String(l.Stack.site()))
	if !l.Returned {
		span.SetStatus(codes.Error, l.Class.String())
	}
	t.end(span, trace.WithTimestamp(l.Acquired.Add(l.Hold)))
}
