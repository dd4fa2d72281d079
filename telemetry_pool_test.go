package sqllease

import (
	"context"
	"database/sql"
	"database/sql/driver"
	"log/slog"
	"slices"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"go.opentelemetry.io/otel/attribute"
	sdkmetric "go.opentelemetry.io/otel/sdk/metric"
	"go.opentelemetry.io/otel/sdk/metric/metricdata"
	sdktrace "go.opentelemetry.io/otel/sdk/trace"
	"go.opentelemetry.io/otel/sdk/trace/tracetest"
	"go.opentelemetry.io/otel/trace"
)

// telemetryPool is a pool whose telemetry stays in memory.
type telemetryPool struct {
	db     *sql.DB
	c      *Connector
	spans  *tracetest.SpanRecorder
	open   openSpans
	reader *sdkmetric.ManualReader
}

// openSpans counts the spans that were started and have not ended.
type openSpans struct{ atomic.Int64 }

func (o *openSpans) OnStart(context.Context, sdktrace.ReadWriteSpan) { o.Add(1) }
func (o *openSpans) OnEnd(sdktrace.ReadOnlySpan)                     { o.Add(-1) }
func (o *openSpans) Shutdown(context.Context) error                  { return nil }
func (o *openSpans) ForceFlush(context.Context) error                { return nil }

// newTelemetryPool opens a pool for the rest of the test, at whose end every
// span that was started has to end: those of reports do so on goroutines of their own.
func newTelemetryPool(t *testing.T, inner driver.Connector, cfg Config) *telemetryPool {
	t.Helper()
	p := newOddPool(t, inner, cfg)
	t.Cleanup(func() {
		assert.NoError(t, p.db.Close())
		assert.Eventually(t, func() bool { return p.open.Load() == 0 }, 10*time.Second, time.Millisecond, "a span was started and not ended")
	})
	return p
}

// newOddPool opens one without that check.
func newOddPool(t *testing.T, inner driver.Connector, cfg Config) *telemetryPool {
	t.Helper()
	p := &telemetryPool{spans: tracetest.NewSpanRecorder(), reader: sdkmetric.NewManualReader()}
	cfg.TracerProvider = sdktrace.NewTracerProvider(sdktrace.WithSpanProcessor(p.spans), sdktrace.WithSpanProcessor(&p.open))
	cfg.MeterProvider = sdkmetric.NewMeterProvider(sdkmetric.WithReader(p.reader))
	cfg.Logger = slog.New(slog.DiscardHandler)
	if cfg.Name == "" {
		cfg.Name = "orders"
	}
	db, err := OpenDB(inner, cfg)
	require.NoError(t, err)
	p.db = db
	p.c, _ = ConnectorOf(db)
	require.NotNil(t, p.c)
	t.Cleanup(func() { _ = db.Close() })
	return p
}

// telemetryParent is the span of the request that the operations belong to.
var telemetryParent = trace.NewSpanContext(trace.SpanContextConfig{
	TraceID: trace.TraceID{1}, SpanID: trace.SpanID{2}, TraceFlags: trace.FlagsSampled,
})

func underParent(t *testing.T) context.Context {
	return trace.ContextWithSpanContext(t.Context(), telemetryParent)
}

// takeAll returns the spans that ended since it was called last.
func (p *telemetryPool) takeAll() []sdktrace.ReadOnlySpan {
	defer p.spans.Reset()
	return p.spans.Ended()
}

// take is takeAll without the parts of acquires, and transactions as a whole.
func (p *telemetryPool) take() []sdktrace.ReadOnlySpan {
	return slices.DeleteFunc(slices.Clone(p.takeAll()), func(s sdktrace.ReadOnlySpan) bool {
		return slices.Contains([]string{"pool.queue", "pool.dial", "pool.reset", "transaction"}, s.Name())
	})
}

func spanNames(spans []sdktrace.ReadOnlySpan) []string {
	out := []string{}
	for _, s := range spans {
		out = append(out, s.Name())
	}
	return out
}

func spanAttributes(s sdktrace.ReadOnlySpan) map[string]any {
	out := map[string]any{}
	for _, a := range s.Attributes() {
		out[string(a.Key)] = a.Value.AsInterface()
	}
	return out
}

// exec runs a statement that must succeed.
func exec(t *testing.T, ctx context.Context, db *sql.DB, statement string, args ...any) {
	t.Helper()
	_, err := db.ExecContext(ctx, statement, args...)
	require.NoError(t, err)
}

// collect returns all metrics of the pool.
func (p *telemetryPool) collect(t *testing.T) []metricdata.Metrics {
	t.Helper()
	var all metricdata.ResourceMetrics
	require.NoError(t, p.reader.Collect(context.Background(), &all))
	if len(all.ScopeMetrics) == 0 {
		return nil
	}
	require.Len(t, all.ScopeMetrics, 1)
	assert.Equal(t, scope, all.ScopeMetrics[0].Scope.Name)
	return all.ScopeMetrics[0].Metrics
}

// metric returns one metric's data; nil if nothing was recorded.
func (p *telemetryPool) metric(t *testing.T, name string) metricdata.Aggregation {
	t.Helper()
	for _, m := range p.collect(t) {
		if m.Name == name {
			return m.Data
		}
	}
	return nil
}

// total is how often a histogram was recorded.
func (p *telemetryPool) total(t *testing.T, name string) (n uint64) {
	t.Helper()
	switch data := p.metric(t, name).(type) {
	case metricdata.Histogram[float64]:
		for _, point := range data.DataPoints {
			n += point.Count
		}
	case metricdata.Histogram[int64]:
		for _, point := range data.DataPoints {
			n += point.Count
		}
	}
	return n
}

// sum is a counter's value, over all its attributes.
func (p *telemetryPool) sum(t *testing.T, name string) (n int64) {
	t.Helper()
	if data, ok := p.metric(t, name).(metricdata.Sum[int64]); ok {
		for _, point := range data.DataPoints {
			n += point.Value
		}
	}
	return n
}

// recorded is what a histogram of seconds was told.
type recorded struct {
	times   uint64
	seconds float64
}

// recordedBy is what each histogram of seconds was told, over all its attributes.
func recordedBy(t *testing.T, reader sdkmetric.Reader) map[string]recorded {
	t.Helper()
	var all metricdata.ResourceMetrics
	require.NoError(t, reader.Collect(t.Context(), &all))
	got := map[string]recorded{}
	for _, s := range all.ScopeMetrics {
		for _, m := range s.Metrics {
			data, _ := m.Data.(metricdata.Histogram[float64])
			for _, p := range data.DataPoints {
				r := got[m.Name]
				got[m.Name] = recorded{r.times + p.Count, r.seconds + p.Sum}
			}
		}
	}
	return got
}

// values are the values that an attribute of a metric has.
func (p *telemetryPool) values(t *testing.T, name string, key attribute.Key) []string {
	t.Helper()
	out := []string{}
	for _, m := range p.collect(t) {
		if m.Name != name {
			continue
		}
		for _, set := range attributeSets(m) {
			if v, ok := set.Value(key); ok {
				out = append(out, v.AsString())
			}
		}
	}
	return out
}

func attributeSets(m metricdata.Metrics) (sets []attribute.Set) {
	switch data := m.Data.(type) {
	case metricdata.Histogram[float64]:
		for _, point := range data.DataPoints {
			sets = append(sets, point.Attributes)
		}
	case metricdata.Histogram[int64]:
		for _, point := range data.DataPoints {
			sets = append(sets, point.Attributes)
		}
	case metricdata.Sum[int64]:
		for _, point := range data.DataPoints {
			sets = append(sets, point.Attributes)
		}
	case metricdata.Gauge[float64]:
		for _, point := range data.DataPoints {
			sets = append(sets, point.Attributes)
		}
	}
	return sets
}
