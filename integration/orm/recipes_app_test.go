package orm

import (
	"context"
	"database/sql"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"testing"
	"time"

	"go.opentelemetry.io/contrib/instrumentation/net/http/otelhttp"
	"go.opentelemetry.io/otel"
	"go.opentelemetry.io/otel/exporters/stdout/stdouttrace"
	sdktrace "go.opentelemetry.io/otel/sdk/trace"

	"github.com/sqllease/sqllease"
)

// The recipes of an application's own beginning, and of its tests.

// traced is a service whose traces go to out.
func traced(dsn string, out io.Writer) (handler http.Handler, stop func(context.Context) error, err error) {
	exporter, err := stdouttrace.New(stdouttrace.WithWriter(out), stdouttrace.WithPrettyPrint())
	if err != nil {
		return nil, nil, err
	}
	provider := sdktrace.NewTracerProvider(sdktrace.WithBatcher(exporter))
	otel.SetTracerProvider(provider)
	db, err := sqllease.Open("mysql", dsn, sqllease.Config{Name: "shop", MaxOpen: 20})
	if err != nil {
		return nil, nil, err
	}
	mux := http.NewServeMux()
	mux.HandleFunc("GET /time", func(w http.ResponseWriter, r *http.Request) {
		var now string
		if err := db.QueryRowContext(r.Context(), "SELECT CURRENT_TIME").Scan(&now); err != nil {
			http.Error(w, "the database does not answer", http.StatusServiceUnavailable)
			return
		}
		fmt.Fprintln(w, now)
	})
	handler = otelhttp.NewHandler(mux, "shop")
	return handler, func(ctx context.Context) error { _ = db.Close(); return provider.Shutdown(ctx) }, nil
}

// openForTest opens a database that fails the test if its code keeps a connection.
func openForTest(t testing.TB, dsn string) *sql.DB {
	db, err := sqllease.Open("mysql", dsn, sqllease.Config{MaxOpen: 4, Logger: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		pool, _ := sqllease.ConnectorOf(db)
		for end := time.Now().Add(time.Second); len(pool.Leases()) > 0 && time.Now().Before(end); {
			time.Sleep(10 * time.Millisecond) // goroutines of the code under test may still be at work
		}
		for _, lease := range pool.Leases() {
			t.Errorf("a connection was not given back: %v", lease)
		}
		if err := db.Close(); err != nil {
			t.Error(err)
		}
	})
	return db
}
