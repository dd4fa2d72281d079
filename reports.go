package sqllease

import (
	"context"
	"log/slog"
	"maps"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/codes"
	"go.opentelemetry.io/otel/trace"

	"github.com/sqllease/sqllease/internal/clock"
	"github.com/sqllease/sqllease/internal/goroutines"
)

// reports tell of leaks: the log, the trace, the metrics and the application.
type reports struct {
	cfg       *settings
	gate      admission
	looks     *goroutines.Looks
	tracing   *tracing
	metrics   *metrics
	summaries *descriptions
	recorder  *recorder
	sites     sites
	reported  reportedSpans

	inheritances inheritances

	leaks, proven, slowCalls, lateReturns atomic.Uint64
}

// report tells the log, the trace and the metrics, ends what the holders of leases that
// lost their sessions cannot end, and then tells the application, whose function may not
// return, and must keep nothing else from happening.
func (r *reports) report(f *findings) {
	defer each(f.leaks, r.tell)
	defer r.endLost(f)
	r.lookNow(held(f.leaks)...)
	each(f.leaks, r.record)
}

// held are the leases of those that did not come back.
func held(leaks []*Leak) (leases []*Lease) {
	for _, l := range leaks {
		if !l.Returned {
			leases = append(leases, &l.Lease)
		}
	}
	return leases
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
	if !l.Returned {
		defer l.reporting.recorded.Done()
	}
	defer r.cfg.recovered("reporting a leak")
	l.Pool = r.cfg.Name
	l.Statement = r.sanitised(l.Statement)
	r.count(l)
	if !r.sites.note(l, clock.Now()) {
		return
	}
	r.leaked(l)
	level := slog.LevelWarn
	if l.Returned {
		level = slog.LevelInfo
	}
	attrs := slog.GroupValue(l.attrs()...)
	about := slog.Any("leak", attrs)
	if l.Class == ClassBusy {
		about = slog.Any("slow_call", attrs)
	}
	ctx := trace.ContextWithSpanContext(context.Background(), l.SpanContext)
	r.cfg.Logger.LogAttrs(ctx, level, "sqllease: "+l.message(), slog.String("pool", l.Pool), about)
}

// count counts each lease once in each class.
func (r *reports) count(l *Leak) {
	switch {
	case l.Returned:
		r.lateReturns.Add(1)
		return
	case l.Class == ClassBusy:
		r.slowCalls.Add(1)
		r.recorder.reported(event{kind: EventSlowCall, lease: l.ID}, l.recordedTexts)
		r.metrics.slowCall()
		return
	case l.Class == ClassProven:
		r.proven.Add(1)
		fallthrough
	default:
		if !l.told {
			r.leaks.Add(1)
			r.recorder.reported(event{kind: EventLeak, lease: l.ID}, l.recordedTexts)
		}
	}
	if l.Class != ClassUnused || !l.told {
		r.metrics.leaked(l.Class)
	}
}

// tell tells the application; of a return once it has been told the rest of that lease, aside,
// since its function may not return.
func (r *reports) tell(l *Leak) {
	if l.Returned {
		go func() {
			l.reporting.told.Wait()
			r.tellLeak(l)
		}()
		return
	}
	defer l.reporting.told.Done()
	r.tellLeak(l)
}

func (r *reports) tellLeak(l *Leak) {
	r.toldApplication("Config.OnLeak or Config.OnSlowCall", func() {
		switch slow := l.Class == ClassBusy; {
		case slow && r.cfg.OnSlowCall != nil:
			r.cfg.OnSlowCall(l.slowCall())
		case !slow && r.cfg.OnLeak != nil:
			r.cfg.OnLeak(*l)
		}
	}, slog.Uint64("lease", l.ID))
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

// tellNested tells the application of a nested acquire: aside, since its function may not
// return, and must keep nothing else from happening.
func (r *reports) tellNested(n *nesting) {
	if r.cfg.OnNestedAcquire != nil {
		go r.toldApplication(aFunction, func() { r.cfg.OnNestedAcquire(n.NestedAcquire) })
	}
}

// tellStandstill tells it of a pool that stands still, or did, likewise.
func (r *reports) tellStandstill(s *still) {
	if !s.Over {
		r.recorder.reported(event{kind: EventStandstill}, s.recordedTexts)
	}
	if r.cfg.OnStandstill != nil {
		go r.toldApplication(aFunction, func() { r.cfg.OnStandstill(s.Standstill) })
	}
}

const aFunction = "a function of Config that is told of reports"

// toldApplication survives a panic of what is told, and logs it with these attributes.
func (r *reports) toldApplication(what string, tell func(), about ...slog.Attr) {
	defer r.cfg.recovered("logging a panic of " + what)
	defer func() {
		if v := recover(); v != nil {
			attrs := slices.Concat([]slog.Attr{slog.String("pool", r.cfg.Name)}, about, []slog.Attr{slog.String("panic", r.cfg.panicked(v))})
			r.cfg.Logger.LogAttrs(context.Background(), slog.LevelError, "sqllease: "+what+" panicked; the report itself is not lost", attrs...)
		}
	}()
	tell()
}

// leaked emits a span of a leak, from the acquire to now, in the trace that took the
// connection and linked to it; of a slow call likewise, and of a late return one that is
// linked to that of its leak.
func (r *reports) leaked(l *Leak) {
	r.emit(l.SpanContext, l.spanName(), l.Acquired, l.Acquired.Add(l.Hold), r.links(l), func(span trace.Span) {
		span.SetAttributes(r.attributes(l)...)
		if !l.Returned && l.Class != ClassBusy {
			span.SetStatus(codes.Error, l.Class.String())
		}
		r.reported.keep(l, span.SpanContext())
	})
}

// nested emits a span of a nested acquire: in the trace of the request, from the beginning of
// the wait.
func (r *reports) nested(n *nesting) {
	now := time.Now()
	r.emit(n.span, spanNested, now.Add(-n.Waited), now, nil, func(span trace.Span) {
		span.SetAttributes(append(codeOf(n.Waiter),
			keyLease.Int64(int64(n.Holder.ID)), keyHold.Float64(n.Holder.Hold.Seconds()), keyFix.String(n.Fix()))...) //nolint:gosec // there are not as many
	})
}

// stood emits a span of a pool that stands still, or did, linked to the requests in it.
func (r *reports) stood(s *still) {
	r.emit(trace.SpanContext{}, spanStill, s.Since, s.Since.Add(s.For), s.links(), func(span trace.Span) {
		span.SetAttributes(keyDeadlock.Bool(s.Deadlock))
		if len(s.Held) > 0 {
			span.SetAttributes(append(codeOf(s.Held[0].Stack), keyFix.String(s.Fix()))...)
		}
	})
}

// emit emits a span that is over, of which describe says the rest.
func (r *reports) emit(in trace.SpanContext, name string, from, to time.Time, links []trace.Link, describe func(trace.Span)) {
	t := r.tracing
	defer t.panicked.survive()
	if !in.IsValid() && !t.listens() {
		return
	}
	_, span := t.start(trace.ContextWithSpanContext(context.Background(), in), name,
		append(t.id.Load().internal, trace.WithTimestamp(from), trace.WithLinks(links...))...)
	if span == nil {
		return
	}
	defer t.end(span, trace.WithTimestamp(to)) // also if the application's span panics
	describe(span)
}

// codeOf is the application's line of a stack, as attributes.
func codeOf(s Stack) []attribute.KeyValue {
	frame, ok := s.siteFrame()
	if !ok {
		return nil
	}
	return []attribute.KeyValue{keyFunction.String(frame.Function), keyFile.String(frame.File), keyLine.Int(frame.Line)}
}

// spanName tells leaks from what is none.
func (l *Leak) spanName() string {
	switch {
	case l.Returned:
		return spanReturn
	case l.Class == ClassBusy:
		return spanSlowCall
	}
	return spanLeak
}

// links are to what acquired the connection, and to the leak that a late return is of.
func (r *reports) links(l *Leak) (links []trace.Link) {
	if l.SpanContext.IsValid() {
		links = append(links, trace.Link{SpanContext: l.SpanContext})
	}
	if of := r.reported.of(l); of.IsValid() {
		links = append(links, trace.Link{SpanContext: of})
	}
	return links
}

// attributes are what a span says of a leak.
func (r *reports) attributes(l *Leak) []attribute.KeyValue {
	attrs := []attribute.KeyValue{
		keyLease.Int64(int64(l.ID)), //nolint:gosec // there are not as many
		keyHold.Float64(l.Hold.Seconds()),
		keyFix.String(l.Fix()),
	}
	if l.ConnectionID != 0 {
		attrs = append(attrs, keyConnID.Int64(int64(l.ConnectionID))) //nolint:gosec // no server counts so far
	}
	if texts := l.blame.texts(); len(texts) > 0 {
		attrs = append(attrs, keyBlockedBy.StringSlice(texts))
	}
	if l.spanName() != spanSlowCall {
		attrs = append(attrs, keyLeakClass.String(l.Class.String()))
	}
	attrs = append(attrs, codeOf(l.Stack)...)
	if len(l.Now) > 0 {
		attrs = append(attrs, keyNow.String(l.now()))
	}
	if l.Statement != "" {
		attrs = append(attrs, keySummary.String(r.summaries.Of(l.Statement).name))
		if r.tracing.text {
			attrs = append(attrs, keyText.String(l.Statement))
		}
	}
	return attrs
}

// reportedSpans are those of the leases that were reported as leaked, until they are given
// back. A lease that never is would stay for ever: the oldest make room.
type reportedSpans struct {
	mu    sync.Mutex
	known map[uint64]trace.SpanContext // guarded by mu: by lease
}

const mostReportedSpans = 1024

// of is the span that was emitted of a lease; not valid where there is none.
func (s *reportedSpans) of(l *Leak) trace.SpanContext {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.known[l.ID]
}

// keep remembers the last one of a lease, or forgets a lease that is over.
func (s *reportedSpans) keep(l *Leak, span trace.SpanContext) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if l.Returned || l.Reclaimed {
		delete(s.known, l.ID)
		return
	}
	if s.known == nil {
		s.known = map[uint64]trace.SpanContext{}
	}
	if _, known := s.known[l.ID]; !known && len(s.known) >= mostReportedSpans {
		delete(s.known, slices.Min(slices.Collect(maps.Keys(s.known))))
	}
	s.known[l.ID] = span
}
