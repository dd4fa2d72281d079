package sqllease

import (
	"runtime"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"go.opentelemetry.io/otel/sdk/metric/metricdata"
	"go.opentelemetry.io/otel/trace"
)

// The SDK reads the span of an exemplar when it collects, not when it records: a context
// that is used again has the exemplars of earlier holds lead to the trace of a later one.
func TestAnExemplarOfAHoldIsOfItsTrace(t *testing.T) {
	defer runtime.GOMAXPROCS(runtime.GOMAXPROCS(1)) // one free list of a sync.Pool
	p := newTelemetryPool(t, &telemetryFake{}, Config{MaxOpen: 1})
	for i, hold := range []time.Duration{2 * time.Millisecond, 60 * time.Millisecond} {
		ctx := trace.ContextWithSpanContext(t.Context(), trace.NewSpanContext(trace.SpanContextConfig{
			TraceID: trace.TraceID{byte(i + 1)}, SpanID: trace.SpanID{byte(i + 1)}, TraceFlags: trace.FlagsSampled,
		}))
		conn, err := p.db.Conn(ctx)
		require.NoError(t, err)
		elapse(hold)
		require.NoError(t, conn.Close())
	}
	got := map[byte]float64{}
	for _, point := range p.metric(t, "db.client.connection.use_time").(metricdata.Histogram[float64]).DataPoints {
		for _, e := range point.Exemplars {
			if len(e.TraceID) > 0 {
				got[e.TraceID[0]] = e.Value
			}
		}
	}
	require.Len(t, got, 2, "one of each trace")
	assert.Less(t, got[1], 0.05)
	assert.Greater(t, got[2], 0.05)

}
