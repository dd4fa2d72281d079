package sqllease

import (
	"fmt"
	"path"
	"path/filepath"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/codes"
	sdkmetric "go.opentelemetry.io/otel/sdk/metric"
	"go.opentelemetry.io/otel/sdk/metric/metricdata"
	sdktrace "go.opentelemetry.io/otel/sdk/trace"
	"go.opentelemetry.io/otel/sdk/trace/tracetest"
)

// A report as a span, and in a metric.

func TestAReportIsASpanLinkedToTheTraceThatAcquired(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		spans := tracetest.NewSpanRecorder()
		provider := sdktrace.NewTracerProvider(sdktrace.WithSpanProcessor(spans))
		p := newLeakPool(t, &leakFake{}, Config{TracerProvider: provider})
		ctx, parent := leakTraced(t)
		conn, err := p.Conn(ctx)
		site := leakSiteAbove()
		require.NoError(t, err)
		acquired := time.Now()
		leakPause(30 * time.Second)
		require.NoError(t, conn.Close())

		leaks := leakSpans(spans)
		require.Len(t, leaks, 1, "a late return is no second leak")
		leak := leaks[0]
		assert.Equal(t, acquired, leak.StartTime())
		assert.Equal(t, acquired.Add(30*time.Second), leak.EndTime())
		require.Len(t, leak.Links(), 1)
		assert.Equal(t, parent, leak.Links()[0].SpanContext)
		assert.Equal(t, parent.TraceID(), leak.SpanContext().TraceID(), "it is seen where the trace is")
		assert.Equal(t, sdktrace.Status{Code: codes.Error, Description: "unused"}, leak.Status())
		assert.Subset(t, leak.Attributes(), []attribute.KeyValue{
			attribute.Int64("sqllease.lease.id", 1),
			attribute.String("sqllease.leak.class", "unused"),
			attribute.Float64("sqllease.hold", 30),
			attribute.String("sqllease.fix", "close the *sql.Conn on every path: defer conn.Close() right after DB.Conn; if your code does that already, close it before slow work, or take it with sqllease.WithHoldLimit"),
			attribute.String("db.client.connection.pool.name", "orders"),
		})
		code := spanAttributes(leak)
		folder, file := filepath.Split(code["code.file.path"].(string))
		assert.Equal(t, site, fmt.Sprintf("%s/%s:%d %s", filepath.Base(folder), file, code["code.line.number"], path.Base(code["code.function.name"].(string))))
		back := spansNamed(spans, "sqllease.late_return")
		require.Len(t, back, 1)
		assert.Equal(t, codes.Unset, back[0].Status().Code, "a return is no error")
		require.Len(t, back[0].Links(), 2)
		assert.Equal(t, leak.SpanContext(), back[0].Links()[1].SpanContext, "it tells which leak it is of")
		require.NoError(t, provider.Shutdown(t.Context()))
	})
}

func TestAReportWithoutATraceIsNoSpanWhereRootSpansAreLeftOut(t *testing.T) {
	for _, roots := range []bool{false, true} {
		synctest.Test(t, func(t *testing.T) {
			spans := tracetest.NewSpanRecorder()
			p := newLeakPool(t, &leakFake{}, Config{
				TracerProvider: sdktrace.NewTracerProvider(sdktrace.WithSpanProcessor(spans)),
				OmitRootSpans:  !roots,
			})
			conn := p.lease(t)
			leakPause(30 * time.Second)
			leaks := leakSpans(spans)
			if !roots {
				assert.Empty(t, leaks)
			} else if assert.Len(t, leaks, 1) {
				assert.False(t, leaks[0].Parent().IsValid())
				assert.Empty(t, leaks[0].Links())
			}
			require.NoError(t, conn.Close())
		})
	}
}

// leakSpans are the ended spans of leak reports.
func leakSpans(spans *tracetest.SpanRecorder) []sdktrace.ReadOnlySpan {
	return spansNamed(spans, "sqllease.leak")
}

func spansNamed(spans *tracetest.SpanRecorder, name string) []sdktrace.ReadOnlySpan {
	synctest.Wait()
	return slices.DeleteFunc(spans.Ended(), func(s sdktrace.ReadOnlySpan) bool { return s.Name() != name })
}

func TestReportsAreCountedByClass(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		reader := sdkmetric.NewManualReader()
		p := newLeakPool(t, &leakFake{takes: map[string]time.Duration{"ping": 40 * time.Second}}, Config{
			MeterProvider: sdkmetric.NewMeterProvider(sdkmetric.WithReader(reader)), SlowCallThreshold: DefaultLeakThreshold,
		})
		first, second := p.lease(t), p.lease(t)
		assert.NoError(t, p.PingContext(t.Context()))
		assert.Equal(t, map[string]int64{"unused": 2, "proven": 0}, leakCounts(t, reader))
		require.NoError(t, first.Close())
		require.NoError(t, second.Close())
		assert.Equal(t, map[string]int64{"unused": 2, "proven": 0}, leakCounts(t, reader), "a return counts for nothing")
	})
}

// leakCounts are the values of the metric sqllease.leaks by class.
func leakCounts(t *testing.T, reader sdkmetric.Reader) map[string]int64 {
	var all metricdata.ResourceMetrics
	require.NoError(t, reader.Collect(t.Context(), &all))
	counts := map[string]int64{}
	for _, scope := range all.ScopeMetrics {
		for _, m := range scope.Metrics {
			if m.Name != "sqllease.leaks" {
				continue
			}
			assert.Equal(t, "{lease}", m.Unit)
			for _, point := range m.Data.(metricdata.Sum[int64]).DataPoints {
				pool, _ := point.Attributes.Value("db.client.connection.pool.name")
				assert.Equal(t, "orders", pool.AsString())
				class, _ := point.Attributes.Value("sqllease.leak.class")
				counts[class.AsString()] += point.Value
			}
		}
	}
	return counts
}
