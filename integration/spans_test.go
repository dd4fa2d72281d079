package integration

import (
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	sdktrace "go.opentelemetry.io/otel/sdk/trace"
	"go.opentelemetry.io/otel/sdk/trace/tracetest"

	"github.com/sqllease/sqllease"
)

// TestSpansExplainTheTimeInTheDatabase has 50 requests at once on 5
// connections, in code written for plain database/sql. What a request spends
// in the database is the sum of its acquire and query spans, to within 5 %.
func TestSpansExplainTheTimeInTheDatabase(t *testing.T) {
	exported := tracetest.NewInMemoryExporter()
	provider := sdktrace.NewTracerProvider(sdktrace.WithSyncer(exported))
	db, err := sqllease.Open(maria.Driver, maria.DSN(""), sqllease.Config{TracerProvider: provider})
	require.NoError(t, err)
	defer func() { assert.NoError(t, db.Close()) }()
	db.SetMaxOpenConns(5)
	db.SetMaxIdleConns(5)

	tracer := provider.Tracer("test")
	var all sync.WaitGroup
	for range 50 {
		all.Go(func() {
			for range 4 {
				ctx, span := tracer.Start(t.Context(), "request")
				_, err := db.ExecContext(ctx, "DO SLEEP(0.01)")
				span.End()
				assert.NoError(t, err)
			}
		})
	}
	all.Wait()

	var request, acquire, parts, query time.Duration
	for _, s := range exported.GetSpans() {
		took := s.EndTime.Sub(s.StartTime)
		switch s.Name {
		case "request":
			request += took
		case "pool.acquire":
			acquire += took
		case "pool.queue", "pool.dial", "pool.reset":
			parts += took
		case "DO":
			query += took
		default:
			t.Errorf("a span that was not expected: %s", s.Name)
		}
	}
	t.Logf("200 requests: %v in the database, of which %v acquire and %v query: %.1f %% explained",
		request.Round(time.Millisecond), acquire.Round(time.Millisecond), query.Round(time.Millisecond),
		100*float64(acquire+query)/float64(request))
	assert.InEpsilon(t, float64(request), float64(acquire+query), 0.05)
	assert.InEpsilon(t, float64(acquire), float64(parts), 0.05, "its parts are the whole acquire")
	assert.Greater(t, acquire, query, "50 callers on 5 connections mostly wait")
}
