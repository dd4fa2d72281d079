package integration

import (
	"context"
	"database/sql"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"go.opentelemetry.io/otel/attribute"
	sdkmetric "go.opentelemetry.io/otel/sdk/metric"
	"go.opentelemetry.io/otel/sdk/metric/metricdata"
	sdktrace "go.opentelemetry.io/otel/sdk/trace"
	"go.opentelemetry.io/otel/sdk/trace/tracetest"
	semconv "go.opentelemetry.io/otel/semconv/v1.43.0"
	"go.opentelemetry.io/otel/semconv/v1.43.0/dbconv"

	"github.com/sqllease/sqllease"
)

// instrument is one as the package of conventions has it.
type instrument interface {
	Name() string
	Unit() string
	Description() string
}

// The library has the names of the conventions in a file of its own. They are those of the
// newest package of them.
func TestNamesAreThoseOfTheNewestConventions(t *testing.T) {
	reader, spans := sdkmetric.NewManualReader(), tracetest.NewSpanRecorder()
	db, err := sqllease.Open("mysql", maria.DSN("mysql"), sqllease.Config{
		MaxOpen:        2,
		MeterProvider:  sdkmetric.NewMeterProvider(sdkmetric.WithReader(reader)),
		TracerProvider: sdktrace.NewTracerProvider(sdktrace.WithSpanProcessor(spans)),
	})
	require.NoError(t, err)
	everyCall(t, db)

	var all metricdata.ResourceMetrics
	require.NoError(t, reader.Collect(t.Context(), &all))
	require.NoError(t, db.Close())
	require.Len(t, all.ScopeMetrics, 1)
	assert.Equal(t, semconv.SchemaURL, all.ScopeMetrics[0].Scope.SchemaURL)
	conventions := map[string]instrument{}
	for _, i := range []instrument{
		dbconv.ClientConnectionCount{}, dbconv.ClientConnectionMax{}, dbconv.ClientConnectionIdleMin{}, dbconv.ClientConnectionPendingRequests{},
		dbconv.ClientConnectionTimeouts{}, dbconv.ClientConnectionWaitTime{}, dbconv.ClientConnectionCreateTime{}, dbconv.ClientConnectionUseTime{},
		dbconv.ClientOperationDuration{}, dbconv.ClientResponseReturnedRows{},
	} {
		conventions[i.Name()] = i
	}
	for _, m := range all.ScopeMetrics[0].Metrics {
		if strings.HasPrefix(m.Name, "sqllease.") {
			continue
		}
		if i := conventions[m.Name]; assert.NotNil(t, i, m.Name) {
			assert.Equal(t, i.Unit(), m.Unit, m.Name)
			assert.Equal(t, i.Description(), m.Description, m.Name)
		}
		delete(conventions, m.Name)
	}
	assert.Empty(t, conventions, "all are emitted")

	known := map[attribute.Key]bool{}
	for _, key := range []attribute.Key{
		semconv.DBSystemNameKey, semconv.DBNamespaceKey, semconv.ServerAddressKey, semconv.ServerPortKey, semconv.DBClientConnectionPoolNameKey,
		semconv.DBOperationNameKey, semconv.DBCollectionNameKey, semconv.DBQuerySummaryKey, semconv.DBQueryTextKey,
		semconv.DBResponseReturnedRowsKey, semconv.DBResponseStatusCodeKey, semconv.ErrorTypeKey,
	} {
		known[key] = true
	}
	for _, s := range spans.Ended() {
		for _, a := range s.Attributes() {
			assert.True(t, known[a.Key] || strings.HasPrefix(string(a.Key), "sqllease."), string(a.Key))
		}
	}
}

// everyCall makes every kind of call, and one that fails.
func everyCall(t *testing.T, db *sql.DB) {
	ctx := context.Background()
	tx, err := db.BeginTx(ctx, nil)
	require.NoError(t, err)
	var n int
	require.NoError(t, tx.QueryRowContext(ctx, "SELECT COUNT(*) FROM user").Scan(&n))
	require.NoError(t, tx.Rollback())
	_, err = db.ExecContext(ctx, "DELETE FROM nowhere")
	require.Error(t, err)
	require.NoError(t, db.PingContext(ctx))
}
