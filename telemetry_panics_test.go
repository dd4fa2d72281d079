package sqllease

import (
	"context"
	"database/sql"
	"fmt"
	"log/slog"
	"runtime"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"go.opentelemetry.io/otel/metric"
	sdkmetric "go.opentelemetry.io/otel/sdk/metric"
	sdktrace "go.opentelemetry.io/otel/sdk/trace"
	"go.opentelemetry.io/otel/trace"
	"go.opentelemetry.io/otel/trace/embedded"
	"go.opentelemetry.io/otel/trace/noop"
)

// What of an application's telemetry may panic, or end its goroutine.

// panickingTelemetry is what of an application's telemetry may panic: the sampler,
// the span processor, spans of a tracer of its own, and the exemplar filter.
type panickingTelemetry struct{ sampler, processor, spans, filter bool }

const ownBug = "the application's own bug"

func (p panickingTelemetry) ShouldSample(sdktrace.SamplingParameters) sdktrace.SamplingResult {
	if p.sampler {
		panic(ownBug)
	}
	return sdktrace.SamplingResult{Decision: sdktrace.RecordAndSample}
}

func (p panickingTelemetry) OnEnd(sdktrace.ReadOnlySpan) {
	if p.processor {
		panic(ownBug)
	}
}

func (p panickingTelemetry) Description() string                             { return "" }
func (p panickingTelemetry) OnStart(context.Context, sdktrace.ReadWriteSpan) {}
func (p panickingTelemetry) Shutdown(context.Context) error                  { return nil }
func (p panickingTelemetry) ForceFlush(context.Context) error                { return nil }

func (p panickingTelemetry) traces() trace.TracerProvider {
	if p.spans {
		return panickingTracers{}
	}
	return sdktrace.NewTracerProvider(sdktrace.WithSampler(p), sdktrace.WithSpanProcessor(p))
}

func (p panickingTelemetry) metrics() metric.MeterProvider {
	return sdkmetric.NewMeterProvider(sdkmetric.WithReader(sdkmetric.NewManualReader()), sdkmetric.WithExemplarFilter(func(context.Context) bool {
		if p.filter {
			panic(ownBug)
		}
		return true
	}))
}

// panickingTracers have spans that do nothing else.
type (
	panickingTracers struct{ embedded.TracerProvider }
	panickingTracer  struct{ embedded.Tracer }
)

func (panickingTracers) Tracer(string, ...trace.TracerOption) trace.Tracer { return panickingTracer{} }
func (panickingTracer) Start(ctx context.Context, _ string, _ ...trace.SpanStartOption) (context.Context, trace.Span) {
	return ctx, panickingSpan{}
}

type panickingSpan struct{ noop.Span }

func (panickingSpan) IsRecording() bool              { panic(ownBug) }
func (panickingSpan) End(...trace.SpanEndOption)     { panic(ownBug) }
func (panickingSpan) SpanContext() trace.SpanContext { panic(ownBug) }

func TestTelemetryThatPanicsCostsNothingElse(t *testing.T) {
	for _, broken := range []panickingTelemetry{{sampler: true}, {processor: true}, {spans: true}, {filter: true}} {
		t.Run(fmt.Sprintf("%+v", broken), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				log := &keptLog{}
				db, err := OpenDB(&telemetryFake{}, Config{
					MaxOpen: 2, LeakThreshold: 10 * time.Second, Logger: slog.New(log),
					TracerProvider: broken.traces(), MeterProvider: broken.metrics(),
				})
				require.NoError(t, err)
				c, _ := ConnectorOf(db)
				everyKindOfAcquire(t, db)
				s := c.Stats()
				assert.Equal(t, []int{2, 0, 2, 0, 0}, []int{s.Open, s.InUse, s.Idle, s.Waiting, s.Dialing})
				require.NoError(t, db.Close())
				synctest.Wait()
				told := 0
				for _, r := range log.take() {
					if strings.Contains(r.message, "provider panicked") {
						told++
						assert.Equal(t, "a string; QueryTextRaw shows it", r.attrs["panic"])
					}
				}
				assert.Equal(t, 1, told)
			})
		})
	}
}

// everyKindOfAcquire dials, queues, leaks, is given back and runs out of time, on
// two connections.
func everyKindOfAcquire(t *testing.T, db *sql.DB) {
	t.Helper()
	ctx := t.Context()
	tx, err := db.BeginTx(ctx, nil)
	require.NoError(t, err)
	_, err = tx.ExecContext(ctx, "DO 1")
	require.NoError(t, err)
	conn, err := db.Conn(ctx)
	require.NoError(t, err)
	waiter := make(chan error, 1)
	go func() { waiter <- db.PingContext(ctx) }()
	elapse(20 * time.Second)
	require.NoError(t, tx.Commit())
	require.NoError(t, <-waiter)
	require.NoError(t, conn.Close())
	short, cancel := context.WithTimeout(ctx, time.Second)
	defer cancel()
	var all []*sql.Conn
	for range 2 {
		conn, err := db.Conn(short)
		require.NoError(t, err)
		all = append(all, conn)
	}
	require.Error(t, db.PingContext(short))
	for _, conn := range all {
		require.NoError(t, conn.Close())
	}
}

func TestAFilterThatEndsItsGoroutineCostsNothing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ends := false
		db, err := OpenDB(&telemetryFake{}, Config{MaxOpen: 1, TracerProvider: sdktrace.NewTracerProvider(), FilterSpan: func(context.Context, Operation) bool {
			if ends {
				runtime.Goexit()
			}
			return true
		}})
		require.NoError(t, err)
		c, _ := ConnectorOf(db)
		endIn := func(acquire func()) {
			ends = true
			var gone sync.WaitGroup
			gone.Go(acquire)
			gone.Wait()
			ends = false
		}
		endIn(func() { _ = db.PingContext(t.Context()) }) // with room to dial in
		conn, err := db.Conn(t.Context())
		require.NoError(t, err)
		endIn(func() { _ = db.PingContext(t.Context()) }) // in the queue
		assert.Zero(t, c.Stats().Waiting)
		require.NoError(t, conn.Close())
		require.NoError(t, db.PingContext(t.Context()))
		s := c.Stats()
		assert.Equal(t, []int{1, 0, 0}, []int{s.Open, s.InUse, s.Dialing})
		require.NoError(t, db.Close())
	})
}
