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
	"github.com/sqllease/sqllease/internal/works"
)

// discard is a span processor that does nothing.
type discard struct{}

func (discard) OnStart(context.Context, sdktrace.ReadWriteSpan) {}
func (discard) OnEnd(sdktrace.ReadOnlySpan)                     {}
func (discard) Shutdown(context.Context) error                  { return nil }
func (discard) ForceFlush(context.Context) error                { return nil }

// measured is what an application does with a database.
var measured = map[string]works.Work{
	"exec": works.Exec,
	"exec with an argument": func(ctx context.Context, db *sql.DB, _ *sql.Stmt) error {
		_, err := db.ExecContext(ctx, "UPDATE t SET a = ?", 1)
		return err
	},
	"row":      works.Row,
	"rows":     works.Rows,
	"tx":       works.Tx,
	"prepared": works.Statement,
}

// What a call costs in allocations, over the bare driver, is part of what this
// library promises: without an SDK in a trace, with one that samples nothing, and
// with one that samples all and measures, where the pool has lanes and where it has
// none. What is left is the SDK's own.
func TestACallCostsNoMoreAllocationsThanItMay(t *testing.T) {
	ctx := trace.ContextWithSpanContext(sqllease.WithLane(context.Background(), "report"), trace.NewSpanContext(trace.SpanContextConfig{
		TraceID: trace.TraceID{1}, SpanID: trace.SpanID{1}, TraceFlags: trace.FlagsSampled,
	}))
	allocations := func(db *sql.DB) map[string]float64 {
		st, err := db.Prepare(works.Prepared)
		require.NoError(t, err)
		defer func() { require.NoError(t, st.Close()) }()
		counts := map[string]float64{}
		for name, do := range measured {
			counts[name] = testing.AllocsPerRun(1000, func() { require.NoError(t, do(ctx, db, st)) })
		}
		return counts
	}
	bare := sql.OpenDB(nothing.Driver{})
	defer func() { require.NoError(t, bare.Close()) }()
	without := allocations(bare)
	for name, c := range map[string]struct {
		cfg sqllease.Config
		may map[string]float64
	}{
		"no SDK": {
			sqllease.Config{TracerProvider: noop.NewTracerProvider()},
			map[string]float64{"exec": 0, "exec with an argument": 0, "row": 1, "rows": 1, "tx": 2, "prepared": 1},
		},
		"unsampled": {
			sqllease.Config{TracerProvider: sdktrace.NewTracerProvider(sdktrace.WithSampler(sdktrace.NeverSample()))},
			map[string]float64{"exec": 3, "exec with an argument": 3, "row": 4, "rows": 4, "tx": 20, "prepared": 4},
		},
		"sampled": {
			sqllease.Config{
				TracerProvider: sdktrace.NewTracerProvider(sdktrace.WithSpanProcessor(discard{})),
				MeterProvider:  sdkmetric.NewMeterProvider(sdkmetric.WithReader(sdkmetric.NewManualReader())),
			},
			map[string]float64{"exec": 5, "exec with an argument": 5, "row": 7, "rows": 7, "tx": 40, "prepared": 7},
		},
		"sampled, in a lane": {
			sqllease.Config{
				TracerProvider: sdktrace.NewTracerProvider(sdktrace.WithSpanProcessor(discard{})),
				MeterProvider:  sdkmetric.NewMeterProvider(sdkmetric.WithReader(sdkmetric.NewManualReader())),
				Lanes:          map[string]sqllease.Lane{"report": {Max: 2}},
			},
			map[string]float64{"exec": 5, "exec with an argument": 5, "row": 7, "rows": 7, "tx": 40, "prepared": 7},
		},
	} {
		wrapped, err := sqllease.OpenDB(nothing.Driver{}, c.cfg)
		require.NoError(t, err)
		with := allocations(wrapped)
		for work := range measured {
			assert.LessOrEqual(t, with[work]-without[work], c.may[work], "%s: %s", name, work)
		}
		require.NoError(t, wrapped.Close())
	}
}

// A pool under callers who give up has no time for more: what the error says is put
// in words when it is read.
func TestAFailedAcquireCostsNoMoreAllocationsThanItMay(t *testing.T) {
	const may = 16
	db, err := sqllease.OpenDB(nothing.Driver{}, sqllease.Config{MaxOpen: 10, SlowAcquireThreshold: -1})
	require.NoError(t, err)
	defer func() { require.NoError(t, db.Close()) }()
	for range 10 {
		conn, err := db.Conn(t.Context())
		require.NoError(t, err)
		defer func() { require.NoError(t, conn.Close()) }()
	}
	ended, cancel := context.WithDeadline(context.Background(), time.Unix(0, 0))
	defer cancel()
	c, _ := sqllease.ConnectorOf(db)
	assert.LessOrEqual(t, testing.AllocsPerRun(1000, func() {
		_, err := c.Connect(ended) // database/sql itself does not come here with such a context
		require.Error(t, err)
	}), float64(may))
}

// A guard against disasters, and no measure: a call through the library takes
// some three times what it takes without, on a driver that does nothing.
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
				require.NoError(t, works.Exec(context.Background(), db, nil))
			}
			best = min(best, time.Since(began))
		}
		return best
	}
	assert.Less(t, fastest(wrapped), most*fastest(bare))
}
