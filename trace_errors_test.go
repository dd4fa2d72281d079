package sqllease

import (
	"cmp"
	"context"
	"database/sql"
	"database/sql/driver"
	"errors"
	"fmt"
	"slices"
	"testing"
	"testing/synctest"

	"github.com/go-sql-driver/mysql"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"go.opentelemetry.io/otel/codes"
	sdktrace "go.opentelemetry.io/otel/sdk/trace"
	"go.opentelemetry.io/otel/trace"
)

// What spans and metrics say of errors, and of a driver that panics.

func TestErrorsAreRecordedByTypeNotByText(t *testing.T) {
	for want, err := range map[string]error{
		"context.DeadlineExceeded": context.DeadlineExceeded,
		"context.Canceled":         context.Canceled,
		"1062":                     &mysql.MySQLError{Number: 1062, Message: "Duplicate entry 'jane@example.org'"},
		"23505":                    sqlStateError{"23505"},
		"*errors.errorString":      errors.New("syntax error near 'jane@example.org'"),
	} {
		t.Run(want, func(t *testing.T) {
			p := newTelemetryPool(t, &telemetryFake{on: failing("exec", err)}, Config{})
			_, got := p.db.ExecContext(underParent(t), "INSERT INTO customers VALUES ('jane@example.org')")
			require.Equal(t, err, got)
			s := p.take()[1]
			if err == context.Canceled {
				assert.Equal(t, sdktrace.Status{}, s.Status(), "what its caller cancels has not failed")
				assert.Empty(t, s.Events())
				return
			}
			assert.Equal(t, sdktrace.Status{Code: codes.Error, Description: want}, s.Status())
			assert.Equal(t, want, spanAttributes(s)["error.type"])
			require.Len(t, s.Events(), 1)
			assert.Equal(t, "exception", s.Events()[0].Name)
			assert.NotContains(t, fmt.Sprint(s.Events(), s.Attributes()), "jane@example.org")
			code := ""
			if want[0] >= '0' && want[0] <= '9' {
				code = want
			}
			assert.Equal(t, code, cmp.Or(spanAttributes(s)["db.response.status_code"], any("")))
			assert.Equal(t, []string{want}, p.values(t, "db.client.operation.duration", "error.type"))
			assert.Equal(t, []string{"INSERT"}, p.values(t, "db.client.operation.duration", "db.operation.name"))
		})
	}
}

// sqlStateError is an error as the drivers of PostgreSQL have them.
type sqlStateError struct{ code string }

func (e sqlStateError) SQLState() string { return e.code }
func (e sqlStateError) Error() string {
	return "duplicate key: jane@example.org (SQLSTATE " + e.code + ")"
}

func TestManyKindsOfErrorsMakeFewSeries(t *testing.T) {
	f := &telemetryFake{}
	p := newTelemetryPool(t, f, Config{})
	for i := range 10_000 {
		f.on = failing("exec", sqlStateError{fmt.Sprintf("%05d", i)})
		_, err := p.db.ExecContext(t.Context(), fmt.Sprintf("WORD%d SOMETHING FROM t%d WHERE a = %d", i, i, i))
		require.Error(t, err)
	}
	values := p.values(t, "db.client.operation.duration", "error.type")
	assert.Len(t, values, mostValues+1)
	assert.Contains(t, values, "_OTHER")
	assert.Equal(t, []string{"OTHER"}, slices.Compact(p.values(t, "db.client.operation.duration", "db.operation.name")))
}

func TestADriversPanicEndsTheSpanAndGoesOn(t *testing.T) {
	calls := map[string]func(context.Context, *sql.DB){
		"connect": func(ctx context.Context, db *sql.DB) { _ = db.PingContext(ctx) },
		"ping":    func(ctx context.Context, db *sql.DB) { _ = db.PingContext(ctx) },
		"exec":    func(ctx context.Context, db *sql.DB) { _, _ = db.ExecContext(ctx, "DO 1") },
		"query":   func(ctx context.Context, db *sql.DB) { _, _ = db.QueryContext(ctx, "SELECT 1") }, //nolint:sqlclosecheck // it panics
		"prepare": func(ctx context.Context, db *sql.DB) { _, _ = db.PrepareContext(ctx, "SELECT 1") },
		"statement exec": func(ctx context.Context, db *sql.DB) {
			st, _ := db.PrepareContext(ctx, "DO 1")
			_, _ = st.ExecContext(ctx)
		},
		"statement query": func(ctx context.Context, db *sql.DB) {
			st, _ := db.PrepareContext(ctx, "DO 1")
			_, _ = st.QueryContext(ctx)
		},
		"begin":    func(ctx context.Context, db *sql.DB) { _, _ = db.BeginTx(ctx, nil) },
		"commit":   func(ctx context.Context, db *sql.DB) { tx, _ := db.BeginTx(ctx, nil); _ = tx.Commit() },
		"rollback": func(ctx context.Context, db *sql.DB) { tx, _ := db.BeginTx(ctx, nil); _ = tx.Rollback() },
	}
	for call, use := range calls {
		t.Run(call, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				f := &telemetryFake{on: func(_ context.Context, c, _ string) error {
					if c == call {
						panic("the driver's own")
					}
					return nil
				}}
				p := newTelemetryPool(t, f, Config{MaxOpen: 1, LeakThreshold: -1})
				assert.PanicsWithValue(t, "the driver's own", func() { use(underParent(t), p.db) })
				synctest.Wait()
				ended := p.spans.Ended()
				require.NotEmpty(t, ended)
				last := ended[len(ended)-1]
				assert.Equal(t, sdktrace.Status{Code: codes.Error, Description: "panic"}, last.Status())
				assert.Equal(t, 0, p.c.Stats().Open)
				assert.Equal(t, 0, f.open())
				if call != "connect" {
					assert.Equal(t, []string{"panic"}, p.values(t, "db.client.operation.duration", "error.type"))
				}
			})
		})
	}
}

func TestTheApplicationSaysWhichErrorsAreFailures(t *testing.T) {
	duplicate := &mysql.MySQLError{Number: 1062, Message: "Duplicate entry"}
	p := newTelemetryPool(t, &telemetryFake{on: failing("exec", duplicate)}, Config{IsError: func(ctx context.Context, err error) bool {
		assert.True(t, trace.SpanContextFromContext(ctx).IsValid())
		return !errors.Is(err, duplicate)
	}})
	_, err := p.db.ExecContext(underParent(t), "INSERT INTO customers VALUES (1)")
	require.Equal(t, duplicate, err)
	s := p.take()[1]
	assert.Equal(t, codes.Unset, s.Status().Code)
	assert.Equal(t, "1062", spanAttributes(s)["error.type"], "what it was is told all the same")
}

// database/sql tries a call again that ended in driver.ErrBadConn: what it makes good has not
// failed. In the last attempt, and in a transaction, it has.
func TestACallThatIsMadeAgainHasNotFailed(t *testing.T) {
	p := newTelemetryPool(t, &telemetryFake{on: failing("exec", driver.ErrBadConn)}, Config{})
	_, err := p.db.ExecContext(underParent(t), "DO 1")
	require.ErrorIs(t, err, driver.ErrBadConn)
	var failed []codes.Code
	var retried []any
	for _, s := range p.take() {
		if s.Name() == "DO" {
			failed, retried = append(failed, s.Status().Code), append(retried, spanAttributes(s)["sqllease.retried"])
		}
	}
	assert.Equal(t, []codes.Code{codes.Unset, codes.Unset, codes.Error}, failed)
	assert.Equal(t, []any{true, true, nil}, retried)

	tx, err := p.db.BeginTx(underParent(t), nil)
	require.NoError(t, err)
	_, err = tx.ExecContext(underParent(t), "DO 1")
	require.ErrorIs(t, err, driver.ErrBadConn)
	_ = tx.Rollback()
	for _, s := range p.take() {
		if s.Name() == "DO" {
			assert.Equal(t, codes.Error, s.Status().Code)
		}
	}
}
