package sqllease

import (
	"context"
	"fmt"
	"log/slog"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"go.opentelemetry.io/otel/trace"
)

// keptLog is a slog.Handler that keeps what it is given.
type keptLog struct {
	debug bool

	mu      sync.Mutex
	records []keptRecord // guarded by mu
}

type keptRecord struct {
	level   slog.Level
	message string
	attrs   map[string]any // those of groups by their path
	span    trace.SpanContext
}

func (l *keptLog) Enabled(_ context.Context, level slog.Level) bool {
	return l.debug || level > slog.LevelDebug
}
func (l *keptLog) WithAttrs([]slog.Attr) slog.Handler { return l }
func (l *keptLog) WithGroup(string) slog.Handler      { return l }
func (l *keptLog) Handle(ctx context.Context, r slog.Record) error {
	record := keptRecord{r.Level, r.Message, map[string]any{}, trace.SpanContextFromContext(ctx)}
	r.Attrs(func(a slog.Attr) bool { record.add("", a); return true })
	l.mu.Lock()
	defer l.mu.Unlock()
	l.records = append(l.records, record)
	return nil
}

func (r *keptRecord) add(prefix string, a slog.Attr) {
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
func (l *keptLog) take() []keptRecord {
	l.mu.Lock()
	defer l.mu.Unlock()
	records := l.records
	l.records = nil
	return records
}

// warnings are the messages of the warnings that were logged.
func (l *keptLog) warnings() (said []string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, r := range l.records {
		if r.level == slog.LevelWarn {
			said = append(said, r.message)
		}
	}
	return said
}

// await waits for a record, since warnings are logged aside.
func (l *keptLog) await() {
	for range 10_000 {
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
func (l *keptLog) wantOneWarning(t *testing.T, attributes map[string]string, texts ...string) string {
	t.Helper()
	l.await()
	l.mu.Lock()
	defer l.mu.Unlock()
	require.Len(t, l.records, 1)
	r := l.records[0]
	assert.Equal(t, slog.LevelWarn, r.level)
	for _, text := range texts {
		assert.Contains(t, r.message, text)
	}
	for key, value := range attributes {
		assert.Equal(t, value, fmt.Sprint(r.attrs[key]), key)
	}
	return fmt.Sprint(r.attrs["error"])
}
