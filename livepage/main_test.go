package livepage

import (
	"context"
	"database/sql"
	"database/sql/driver"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"runtime"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"

	"github.com/sqllease/sqllease"
	"github.com/sqllease/sqllease/internal/nothing"
	"github.com/sqllease/sqllease/internal/recording"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// open opens a pool on a driver that does nothing.
func open(t *testing.T, cfg sqllease.Config) (*sql.DB, *sqllease.Connector) {
	t.Helper()
	return openOn(t, nothing.Driver{}, cfg)
}

func openOn(t *testing.T, d driver.Connector, cfg sqllease.Config) (*sql.DB, *sqllease.Connector) {
	t.Helper()
	cfg.Logger = slog.New(slog.DiscardHandler)
	db, err := sqllease.OpenDB(d, cfg)
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, db.Close()) })
	c, ok := sqllease.ConnectorOf(db)
	require.True(t, ok)
	return db, c
}

// page is a handler of these pools. What it sets for the process is undone.
func page(t *testing.T, options ...Option) http.Handler {
	t.Helper()
	was := recording.Standard()
	t.Cleanup(func() { recording.SetStandard(was) })
	return Handler(options...)
}

// get asks the page.
func get(h http.Handler, address string) *httptest.ResponseRecorder {
	w := httptest.NewRecorder()
	h.ServeHTTP(w, httptest.NewRequest(http.MethodGet, address, nil))
	return w
}

// here is a stack of the test.
func here() sqllease.Stack {
	stack := make([]uintptr, 8)
	return stack[:runtime.Callers(2, stack)]
}

// conn takes a connection.
func conn(t *testing.T, db *sql.DB) *sql.Conn {
	t.Helper()
	c, err := db.Conn(context.Background())
	require.NoError(t, err)
	return c
}

// at is a time of the tests.
func at(d time.Duration) time.Time { return time.Date(2026, 3, 1, 3, 0, 0, 0, time.UTC).Add(d) }
