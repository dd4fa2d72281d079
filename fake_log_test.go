package sqllease

import (
	"context"
	"log/slog"
	"sync"

	"go.opentelemetry.io/otel/trace"
)

// leakLog is a slog.Handler that keeps what it is given.
type leakLog struct {
	mu      sync.Mutex
	records []leakRecord // guarded by mu
}

type leakRecord struct {
	level   slog.Level
	message string
	attrs   map[string]any // those of groups by their path
	span    trace.SpanContext
}

func (l *leakLog) Enabled(context.Context, slog.Level) bool { return true }
func (l *leakLog) WithAttrs([]slog.Attr) slog.Handler       { return l }
func (l *leakLog) WithGroup(string) slog.Handler            { return l }
func (l *leakLog) Handle(ctx context.Context, r slog.Record) error {
	record := leakRecord{r.Level, r.Message, map[string]any{}, trace.SpanContextFromContext(ctx)}
	r.Attrs(func(a slog.Attr) bool { record.add("", a); return true })
	l.mu.Lock()
	defer l.mu.Unlock()
	l.records = append(l.records, record)
	return nil
}

func (r *leakRecord) add(prefix string, a slog.Attr) {
	v := a.Value.Resolve()
	if v.Kind() != slog.KindGroup {
		r.attrs[prefix+a.Key] = v.Any()
		return
	}
	for _, in := range v.Group() {
		r.add(prefix+a.Key+".", in)
	}
}

// take returns what was logged since it was last called.
func (l *leakLog) take() []leakRecord {
	l.mu.Lock()
	defer l.mu.Unlock()
	records := l.records
	l.records = nil
	return records
}
