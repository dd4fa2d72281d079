package sqllease

import (
	"context"
	"database/sql/driver"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"go.opentelemetry.io/otel"
	sdktrace "go.opentelemetry.io/otel/sdk/trace"
	"go.opentelemetry.io/otel/sdk/trace/tracetest"
	"go.opentelemetry.io/otel/trace"

	"github.com/sqllease/sqllease/internal/drivers"
)

// Which spans are made: those that have a parent, and that nobody leaves out.

func TestCallsWithoutAParentCanBeLeftOut(t *testing.T) {
	p := newTelemetryPool(t, &telemetryFake{}, Config{OmitRootSpans: true})
	exec(t, t.Context(), p.db, "DO 1")
	exec(t, t.Context(), p.db, "DO 1")
	assert.Empty(t, p.take())
	assert.Equal(t, uint64(2), p.total(t, "db.client.operation.duration"), "metrics count it all the same")
}

func TestCallsWithoutAParentBeginTracesOfTheirOwn(t *testing.T) {
	p := newTelemetryPool(t, &telemetryFake{}, Config{})
	exec(t, t.Context(), p.db, "DO 1")
	exec(t, t.Context(), p.db, "DO 1")
	spans := p.take()
	require.Equal(t, []string{"pool.acquire", "DO", "DO"}, spanNames(spans))
	for _, s := range spans {
		assert.False(t, s.Parent().IsValid())
	}
	require.Len(t, spans[1].Links(), 1, "it had to wait for its connection")
	assert.Equal(t, spans[0].SpanContext(), spans[1].Links()[0].SpanContext)
	assert.Empty(t, spans[2].Links())
}

// Before an application has set a provider, nothing is started; from then on it is.
func TestAProviderThatIsSetLateIsHeard(t *testing.T) {
	before := otel.GetTracerProvider()
	if drivers.PackageOf(before) != "go.opentelemetry.io/otel/internal/global" {
		t.Fatalf("a provider is set already: %T", before)
	}
	asked := 0
	db, err := OpenDB(&telemetryFake{}, Config{FilterSpan: func(context.Context, Operation) bool { asked++; return true }})
	require.NoError(t, err)
	exec(t, t.Context(), db, "DO 1")
	assert.Zero(t, asked, "nobody listens")
	spans := tracetest.NewSpanRecorder()
	otel.SetTracerProvider(sdktrace.NewTracerProvider(sdktrace.WithSpanProcessor(spans)))
	defer otel.SetTracerProvider(before)
	exec(t, t.Context(), db, "DO 1")
	assert.Equal(t, 1, asked)
	assert.Equal(t, []string{"DO"}, spanNames(spans.Ended()))
	require.NoError(t, db.Close())
}

func TestSpansCanBeLeftOut(t *testing.T) {
	work := func(t *testing.T, p *telemetryPool) []string {
		tx, err := p.db.BeginTx(underParent(t), nil)
		require.NoError(t, err)
		_, err = tx.ExecContext(underParent(t), "UPDATE stock SET n = 1")
		require.NoError(t, err)
		_, err = tx.ExecContext(underParent(t), "DELETE FROM stock")
		require.NoError(t, err)
		require.NoError(t, tx.Commit())
		require.NoError(t, p.db.PingContext(underParent(t)))
		assert.Equal(t, uint64(5), p.total(t, "db.client.operation.duration"), "metrics go on")
		return spanNames(p.takeAll())
	}
	t.Run("by call", func(t *testing.T) {
		p := newTelemetryPool(t, &telemetryFake{}, Config{OmitSpans: []Call{CallPing, CallBegin, CallAcquire}})
		assert.Equal(t, []string{"UPDATE stock", "DELETE stock", "commit", "transaction"}, work(t, p))
	})
	t.Run("by function", func(t *testing.T) {
		var asked []Operation
		p := newTelemetryPool(t, &telemetryFake{}, Config{FilterSpan: func(ctx context.Context, op Operation) bool {
			assert.True(t, trace.SpanContextFromContext(ctx).IsValid())
			asked = append(asked, op)
			return op.Summary == "UPDATE stock" || op.Call == "acquire"
		}})
		assert.Equal(t, []string{"pool.dial", "pool.acquire", "UPDATE stock"}, work(t, p))
		assert.Contains(t, asked, Operation{Call: "exec", Summary: "UPDATE stock", Statement: "UPDATE stock SET n = ?"})
		assert.Contains(t, asked, Operation{Call: "transaction"})
	})
	t.Run("by a function that panics", func(t *testing.T) {
		p := newTelemetryPool(t, &telemetryFake{}, Config{FilterSpan: func(context.Context, Operation) bool { panic("the application's own bug") }})
		assert.Len(t, work(t, p), 8)
		assert.Equal(t, 1, p.c.Stats().Idle)
	})
}

func TestAFilterIsAskedOnceForASpan(t *testing.T) {
	asked := 0
	p := newTelemetryPool(t, &telemetryFake{answer: []driver.Value{int64(1)}}, Config{OmitSpans: []Call{CallAcquire}, FilterSpan: func(context.Context, Operation) bool {
		asked++
		return asked%2 == 0
	}})
	for range 10 {
		exec(t, underParent(t), p.db, "DO 1")
		require.NoError(t, p.db.QueryRowContext(underParent(t), "SELECT value").Scan(new(int)))
	}
	assert.Equal(t, 20, asked)
	assert.Len(t, p.takeAll(), 10)
}
