package orm

import (
	"bytes"
	"context"
	"database/sql"
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"go.opentelemetry.io/otel"
)

// TestAServiceWithOpenTelemetry does a request of the recipe's service, whose trace has the
// request, the wait for the connection and the query.
func TestAServiceWithOpenTelemetry(t *testing.T) {
	before := otel.GetTracerProvider()
	defer otel.SetTracerProvider(before)
	var out bytes.Buffer
	handler, stop, err := traced(maria.DSN(""), &out)
	require.NoError(t, err)
	answer := httptest.NewRecorder()
	handler.ServeHTTP(answer, httptest.NewRequestWithContext(t.Context(), http.MethodGet, "/time", http.NoBody))
	assert.Equal(t, http.StatusOK, answer.Code)
	require.NoError(t, stop(context.WithoutCancel(t.Context())))
	for _, span := range []string{"GET /time", "pool.acquire", "SELECT"} {
		assert.True(t, strings.Contains(out.String(), fmt.Sprintf(`"Name": %q`, span)), span)
	}
}

// failing is a test that may fail without this one.
type failing struct {
	testing.TB
	errors []string
	end    []func()
}

func (f *failing) Errorf(format string, args ...any) {
	f.errors = append(f.errors, fmt.Sprintf(format, args...))
}
func (f *failing) Cleanup(end func()) { f.end = append(f.end, end) }

// TestATestFailsThatLeaksAConnection runs the recipe in a test that keeps a connection, and in
// one that does not.
func TestATestFailsThatLeaksAConnection(t *testing.T) {
	for _, c := range []struct {
		name string
		do   func(*sql.DB) (end func() error)
		want string
	}{
		{"rows", func(db *sql.DB) func() error {
			rows, err := db.QueryContext(context.Background(), "SELECT 1 UNION SELECT 2") //nolint:rowserrcheck,sqlclosecheck // that is the point
			require.NoError(t, err)
			require.True(t, rows.Next())
			return rows.Close
		}, "with rows open; last statement: SELECT ? UNION SELECT ?"},
		{"a transaction", func(db *sql.DB) func() error {
			tx, err := db.BeginTx(context.Background(), nil)
			require.NoError(t, err)
			return tx.Rollback
		}, "idle in transaction"},
		{"nothing", func(db *sql.DB) func() error {
			return func() error { return nil }
		}, ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			f := &failing{TB: t}
			db := openForTest(f, maria.DSN(""))
			require.NoError(t, db.PingContext(t.Context()))
			end := c.do(db)
			require.Len(t, f.end, 1)
			f.end[0]()
			require.NoError(t, end())
			if c.want == "" {
				assert.Empty(t, f.errors)
				return
			}
			require.Len(t, f.errors, 1)
			assert.Contains(t, f.errors[0], "a connection was not given back: lease 2: taken by orm/app_test.go:")
			assert.Contains(t, f.errors[0], c.want)
		})
	}
}
