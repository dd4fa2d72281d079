//go:build !race

// The race detector makes pools forget, and their users allocate.

package sqllease_test

import (
	"context"
	"database/sql"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	sdkmetric "go.opentelemetry.io/otel/sdk/metric"
	sdktrace "go.opentelemetry.io/otel/sdk/trace"
	"go.opentelemetry.io/otel/trace"
	"go.opentelemetry.io/otel/trace/noop"

	"github.com/sqllease/sqllease"
	"github.com/sqllease/sqllease/internal/nothing"
)

// discard is a span processor that does nothing.
type discard struct{}

func (discard) OnStart(context.Context, sdktrace.ReadWriteSpan) {}
func (discard) OnEnd(sdktrace.ReadOnlySpan)                     {}
func (discard) Shutdown(context.Context) error                  { return nil }
func (discard) ForceFlush(context.Context) error                { return nil }

// What a call costs in allocations, over the bare driver, is part of what this
// library promises: without an SDK in a trace, with one that samples nothing, and
// with one that samples all and measures. What is left is the SDK's own.
func TestACallCostsNoMoreAllocationsThanItMay(t *testing.T) {
	ctx := trace.ContextWithSpanContext(context.Background(), trace.NewSpanContext(trace.SpanContextConfig{
		TraceID: trace.TraceID{1}, SpanID: trace.SpanID{1}, TraceFlags: trace.FlagsSampled,
	}))
	exec := func(db *sql.DB) {
		_, err := db.ExecContext(ctx, "UPDATE t SET a = 1")
		require.NoError(t, err)
	}
	query := func(db *sql.DB) {
		var n int64
		require.NoError(t, db.QueryRowContext(ctx, "SELECT n FROM t").Scan(&n))
	}
	bare := sql.OpenDB(nothing.Driver{})
	defer func() { require.NoError(t, bare.Close()) }()
	for name, c := range map[string]struct {
		cfg         sqllease.Config
		exec, query float64
	}{
		"no SDK":    {sqllease.Config{TracerProvider: noop.NewTracerProvider()}, 0, 1},
		"unsampled": {sqllease.Config{TracerProvider: sdktrace.NewTracerProvider(sdktrace.WithSampler(sdktrace.NeverSample()))}, 3, 4},
		"sampled": {sqllease.Config{
			TracerProvider: sdktrace.NewTracerProvider(sdktrace.WithSpanProcessor(discard{})),
			MeterProvider:  sdkmetric.NewMeterProvider(sdkmetric.WithReader(sdkmetric.NewManualReader())),
		}, 5, 7},
	} {
		wrapped, err := sqllease.OpenDB(nothing.Driver{}, c.cfg)
		require.NoError(t, err)
		over := func(call func(*sql.DB)) float64 {
			return testing.AllocsPerRun(1000, func() { call(wrapped) }) - testing.AllocsPerRun(1000, func() { call(bare) })
		}
		assert.LessOrEqual(t, over(exec), c.exec, "%s: Exec", name)
		assert.LessOrEqual(t, over(query), c.query, "%s: QueryRow", name)
		require.NoError(t, wrapped.Close())
	}
}

// A guard against disasters, and no measure: a call through the library takes
// some four times what it takes without, on a driver that does nothing.
func TestACallDoesNotTakeAMultipleOfWhatItShould(t *testing.T) {
	const most = 40
	wrapped, err := sqllease.OpenDB(nothing.Driver{}, sqllease.Config{})
	require.NoError(t, err)
	defer func() { require.NoError(t, wrapped.Close()) }()
	bare := sql.OpenDB(nothing.Driver{})
	defer func() { require.NoError(t, bare.Close()) }()
	fastest := func(db *sql.DB) time.Duration {
		best := time.Hour
		for range 20 {
			began := time.Now()
			for range 200 {
				_, err := db.ExecContext(context.Background(), "UPDATE t SET a = 1")
				require.NoError(t, err)
			}
			best = min(best, time.Since(began))
		}
		return best
	}
	assert.Less(t, fastest(wrapped), most*fastest(bare))
}
