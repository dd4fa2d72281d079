package sqllease

import (
	"context"
	"log/slog"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
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

// badInputLog keeps what is logged.
type badInputLog struct {
	mu      sync.Mutex
	records []slog.Record // guarded by mu
}

func badInputLogger(l *badInputLog) *slog.Logger { return slog.New(l) }

// Enabled reports true: everything is kept.
func (l *badInputLog) Enabled(context.Context, slog.Level) bool { return true }

// WithAttrs returns l: the library gives its attributes with each record.
func (l *badInputLog) WithAttrs([]slog.Attr) slog.Handler { return l }

// WithGroup returns l: the library has no groups.
func (l *badInputLog) WithGroup(string) slog.Handler { return l }

// Handle keeps a record.
func (l *badInputLog) Handle(_ context.Context, r slog.Record) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.records = append(l.records, r)
	return nil
}

// await waits for a record, since warnings are logged aside.
func (l *badInputLog) await() {
	for range 1000 {
		l.mu.Lock()
		n := len(l.records)
		l.mu.Unlock()
		if n > 0 {
			return
		}
		<-time.After(time.Millisecond)
	}
}

// wantOneWarning checks that one record was logged, a warning with all these
// texts in its message and all these attributes, and returns its error.
func (l *badInputLog) wantOneWarning(t *testing.T, attributes map[string]string, texts ...string) string {
	t.Helper()
	l.await()
	l.mu.Lock()
	defer l.mu.Unlock()
	require.Len(t, l.records, 1)
	r := l.records[0]
	assert.Equal(t, slog.LevelWarn, r.Level)
	for _, text := range texts {
		assert.Contains(t, r.Message, text)
	}
	got := map[string]string{}
	r.Attrs(func(a slog.Attr) bool {
		got[a.Key] = a.Value.String()
		return true
	})
	for key, value := range attributes {
		assert.Equal(t, value, got[key], key)
	}
	return got["error"]
}

// badInputRemedies is what a warning of a failed discovery has to name.
var badInputRemedies = []string{"idle limit could not be discovered", "Config.NetworkIdleLimit", "Config.Dialect", "sqllease.DialectNone"}
