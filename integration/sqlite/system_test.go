package sqlite

import (
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	sdktrace "go.opentelemetry.io/otel/sdk/trace"
	"go.opentelemetry.io/otel/sdk/trace/tracetest"

	"github.com/sqllease/sqllease"
)

// These drivers are not asked anything, and are known by their packages.
func TestSpansSayThatItIsSQLite(t *testing.T) {
	for _, driver := range []string{"sqlite3", "sqlite"} {
		t.Run(driver, func(t *testing.T) {
			spans := tracetest.NewSpanRecorder()
			db, err := sqllease.Open(driver, filepath.Join(t.TempDir(), "a.db"), sqllease.Config{
				TracerProvider: sdktrace.NewTracerProvider(sdktrace.WithSpanProcessor(spans)),
			})
			require.NoError(t, err)
			_, err = db.ExecContext(t.Context(), "CREATE TABLE t (a int)")
			require.NoError(t, err)
			require.NoError(t, db.Close())
			ended := spans.Ended()
			require.NotEmpty(t, ended)
			for _, s := range ended {
				system := ""
				for _, a := range s.Attributes() {
					if a.Key == "db.system.name" {
						system = a.Value.AsString()
					}
				}
				assert.Equal(t, "sqlite", system, s.Name())
			}
		})
	}
}
