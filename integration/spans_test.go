package integration

import (
	"fmt"
	"net"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	sdktrace "go.opentelemetry.io/otel/sdk/trace"
	"go.opentelemetry.io/otel/sdk/trace/tracetest"

	"github.com/sqllease/sqllease"
	"github.com/sqllease/sqllease/integration/internal/servers"
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

// What drivers know of their server is found in the fields of their connectors,
// and what servers say in their errors. Both are theirs to change.
func TestSpansSayWhichServerAndWhatItSaid(t *testing.T) {
	for _, c := range []struct {
		driver   string
		server   *servers.Server
		database string
		code     string
		system   string
	}{
		{"mysql", maria, "mysql", "1146", "mariadb"}, // it says so itself
		{"pgx", postgres, "postgres", "42P01", "postgresql"},
		{"postgres", postgres, "postgres", "42P01", "postgresql"}, // lib/pq
	} {
		t.Run(c.driver, func(t *testing.T) {
			exported := tracetest.NewInMemoryExporter()
			db, err := sqllease.Open(c.driver, c.server.DSN(c.database), sqllease.Config{
				TracerProvider: sdktrace.NewTracerProvider(sdktrace.WithSyncer(exported)),
			})
			require.NoError(t, err)
			defer func() { assert.NoError(t, db.Close()) }()
			_, err = db.ExecContext(t.Context(), "DELETE FROM nowhere WHERE name = 'jane@example.org'")
			require.Error(t, err)
			spans := exported.GetSpans().Snapshots()
			s := spans[len(spans)-1]
			got := map[string]string{}
			for _, a := range s.Attributes() {
				got[string(a.Key)] = a.Value.String()
			}
			host, port, err := net.SplitHostPort(c.server.Addr)
			require.NoError(t, err)
			for key, want := range map[string]string{
				"server.address": host, "server.port": port, "db.namespace": c.database, "db.system.name": c.system,
				"db.response.status_code": c.code, "error.type": c.code, "db.query.summary": "DELETE nowhere",
			} {
				assert.Equal(t, want, got[key], key)
			}
			assert.NotContains(t, fmt.Sprint(s.Attributes(), s.Events(), s.Status()), "jane@example.org")
		})
	}
}
