package sqllease

import (
	"context"
	"database/sql/driver"
	"errors"
	"fmt"
	"strings"
	"testing"
	"testing/synctest"
	"time"
	"unicode/utf8"

	"github.com/go-sql-driver/mysql"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"go.opentelemetry.io/otel/codes"
	sdktrace "go.opentelemetry.io/otel/sdk/trace"
	"go.opentelemetry.io/otel/sdk/trace/tracetest"
	"go.opentelemetry.io/otel/trace"

	"github.com/sqllease/sqllease/internal/mysqlscript"
)

// The spans of statements, from the call to the last row.

func TestAQuerySpanEndsWhenItsRowsAreClosed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := &telemetryFake{answer: []driver.Value{int64(1), int64(2), int64(3)}, on: slow("query", time.Second)}
		p := newTelemetryPool(t, f, Config{Dialect: DialectPostgreSQL})
		conn, err := p.db.Conn(underParent(t))
		require.NoError(t, err)
		p.take()
		start := time.Now()
		rows, err := conn.QueryContext(underParent(t), "SELECT name FROM customers WHERE mail = 'jane@example.org' AND id IN (1, 2)")
		require.NoError(t, err)
		require.True(t, rows.Next())
		elapse(5 * time.Second)
		require.True(t, rows.Next())
		assert.Empty(t, p.take(), "the rows are open")
		require.NoError(t, rows.Close())
		require.NoError(t, rows.Close())

		spans := p.take()
		require.Equal(t, []string{"SELECT customers"}, spanNames(spans))
		s := spans[0]
		assert.Equal(t, trace.SpanKindClient, s.SpanKind())
		assert.Equal(t, telemetryParent.SpanID(), s.Parent().SpanID())
		assert.Equal(t, start, s.StartTime())
		assert.Equal(t, 6*time.Second, s.EndTime().Sub(s.StartTime()))
		assert.Equal(t, map[string]any{
			"db.client.connection.pool.name": "orders",
			"db.system.name":                 "postgresql",
			"db.operation.name":              "SELECT",
			"db.collection.name":             "customers",
			"db.query.summary":               "SELECT customers",
			"db.query.text":                  "SELECT name FROM customers WHERE mail = ? AND id IN (?)",
			"db.response.returned_rows":      int64(2),
		}, spanAttributes(s))
		assert.Equal(t, scope, s.InstrumentationScope().Name)
		assert.Equal(t, uint64(1), p.total(t, "db.client.operation.duration"))
		assert.Equal(t, uint64(1), p.total(t, "db.client.response.returned_rows"))
		require.NoError(t, conn.Close())
	})
}

func TestAnErrorWhileReadingIsTheQuerys(t *testing.T) {
	lost := errors.New("the wire broke")
	p := newTelemetryPool(t, &telemetryFake{on: failing("next", lost)}, Config{})
	rows, err := p.db.QueryContext(underParent(t), "SELECT 1")
	require.NoError(t, err)
	assert.False(t, rows.Next())
	require.ErrorIs(t, rows.Err(), lost)
	spans := p.take()
	require.Equal(t, []string{"pool.acquire", "SELECT"}, spanNames(spans))
	assert.Equal(t, codes.Error, spans[1].Status().Code)
	assert.Equal(t, int64(0), spanAttributes(spans[1])["db.response.returned_rows"])
}

func TestTheDriverWorksUnderTheQuerySpan(t *testing.T) {
	var seen []trace.SpanID
	f := &telemetryFake{on: func(ctx context.Context, call, _ string) error {
		if call == "exec" {
			seen = append(seen, trace.SpanContextFromContext(ctx).SpanID())
		}
		return nil
	}}
	p := newTelemetryPool(t, f, Config{})
	exec(t, underParent(t), p.db, "DO 1")
	exec(t, underParent(t), p.db, "DO 2")
	spans := p.take()
	require.Equal(t, []string{"pool.acquire", "DO", "DO"}, spanNames(spans))
	assert.Equal(t, telemetryParent.SpanID(), seen[0], "it was not known yet whether the driver declines")
	assert.Equal(t, spans[2].SpanContext().SpanID(), seen[1])
}

func TestASpanMadeAfterTheCallIsBackDated(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newTelemetryPool(t, &telemetryFake{on: slow("exec", time.Second)}, Config{})
		for range 2 {
			start := time.Now()
			exec(t, underParent(t), p.db, "DO 1")
			spans := p.take()
			s := spans[len(spans)-1]
			assert.Equal(t, start, s.StartTime())
			assert.Equal(t, start.Add(time.Second), s.EndTime())
		}
	})
}

func TestADeclinedCallIsNoOperation(t *testing.T) {
	server := mysqlscript.Start(t, mysqlscript.Script{
		Statements: map[string]mysqlscript.Answer{"SELECT name FROM customers WHERE id = ?": mysqlscript.Rows("name", "Jane", "John")},
	})
	cfg, err := mysql.ParseDSN(server.DSN()) // interpolateParams is false: a call with arguments is declined
	require.NoError(t, err)
	inner, err := mysql.NewConnector(cfg)
	require.NoError(t, err)
	p := newTelemetryPool(t, inner, Config{MaxOpen: 1, Discovery: NoDiscovery}) // else somebody may wait while the server is asked

	exec(t, underParent(t), p.db, "UPDATE stock SET n = ?", 7)
	spans := p.take()
	require.Equal(t, []string{"pool.acquire", "prepare UPDATE stock", "UPDATE stock"}, spanNames(spans))
	assert.Equal(t, "mysql", spanAttributes(spans[2])["db.system.name"])
	for range 2 {
		rows, err := p.db.QueryContext(underParent(t), "SELECT name FROM customers WHERE id = ?", 7)
		require.NoError(t, err)
		for rows.Next() {
			continue
		}
		require.NoError(t, rows.Err())
		spans = p.take()
		require.Equal(t, []string{"prepare SELECT customers", "SELECT customers"}, spanNames(spans))
		assert.Equal(t, int64(2), spanAttributes(spans[1])["db.response.returned_rows"])
		for _, s := range spans {
			assert.Equal(t, codes.Unset, s.Status().Code)
		}
	}
	assert.Equal(t, uint64(6), p.total(t, "db.client.operation.duration"), "three prepares, three executions")
	assert.Empty(t, p.values(t, "db.client.operation.duration", "error.type"))
}

func TestADriverThatFailsFirstAndDeclinesThenLeavesNoSpanOpen(t *testing.T) {
	f := &telemetryFake{on: failing("exec", errors.New("too many connections"))}
	p := newTelemetryPool(t, f, Config{})
	_, err := p.db.ExecContext(underParent(t), "UPDATE stock SET n = ?", 7)
	require.Error(t, err)
	require.Equal(t, []string{"pool.dial", "pool.acquire", "UPDATE stock"}, spanNames(p.spans.Ended()))
	f.on = failing("exec", driver.ErrSkip)
	exec(t, underParent(t), p.db, "UPDATE stock SET n = ?", 7)
	assert.Equal(t, []string{"pool.dial", "pool.acquire", "UPDATE stock", "prepare UPDATE stock", "UPDATE stock"}, spanNames(p.spans.Ended()))
}

func TestADriverThatDeclinesLateExportsNoSpanForIt(t *testing.T) {
	f := &telemetryFake{}
	exported := tracetest.NewInMemoryExporter()
	db, err := OpenDB(f, Config{TracerProvider: sdktrace.NewTracerProvider(sdktrace.WithSyncer(exported))})
	require.NoError(t, err)
	defer func() { assert.NoError(t, db.Close()) }()
	exec(t, underParent(t), db, "DO ?", 1) // from here on the driver is known not to decline
	exported.Reset()
	f.on = failing("exec", driver.ErrSkip)
	for range 3 {
		exec(t, underParent(t), db, "DO ?", 1)
		assert.Equal(t, []string{"prepare DO", "DO"}, spanNames(exported.GetSpans().Snapshots()))
		exported.Reset()
	}
}

// Unless it came at once.
func TestTheFirstRowIsAnEvent(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newTelemetryPool(t, &telemetryFake{answer: []driver.Value{int64(1), int64(2)}, on: slow("next", time.Second)}, Config{})
		start := time.Now()
		rows, err := p.db.QueryContext(underParent(t), "SELECT value FROM t")
		require.NoError(t, err)
		for rows.Next() {
			continue
		}
		require.NoError(t, rows.Err())
		s := p.take()[1]
		require.Len(t, s.Events(), 1)
		assert.Equal(t, "sqllease.first_row", s.Events()[0].Name)
		assert.Equal(t, start.Add(time.Second), s.Events()[0].Time)
		p = newTelemetryPool(t, &telemetryFake{answer: []driver.Value{int64(1)}}, Config{})
		var n int64
		require.NoError(t, p.db.QueryRowContext(underParent(t), "SELECT value FROM t").Scan(&n))
		assert.Empty(t, p.take()[1].Events())
	})
}

func TestWhatSpansShowOfAStatementIsSaid(t *testing.T) {
	const query = "SELECT a FROM t WHERE b = 'jane@example.org'"
	failure := errors.New("no jane@example.org")
	for text, want := range map[QueryText]any{
		QueryTextSanitized: "SELECT a FROM t WHERE b = ?",
		QueryTextRaw:       query,
		QueryTextOff:       nil,
	} {
		p := newTelemetryPool(t, &telemetryFake{on: failing("exec", failure)}, Config{QueryText: text})
		_, err := p.db.ExecContext(underParent(t), query)
		require.Error(t, err)
		s := p.take()[1]
		assert.Equal(t, want, spanAttributes(s)["db.query.text"])
		assert.Equal(t, "SELECT t", spanAttributes(s)["db.query.summary"])
		assert.Equal(t, text == QueryTextRaw, strings.Contains(fmt.Sprint(s.Events()), "jane@example.org"))
	}
}

func TestAPingHasASpan(t *testing.T) {
	p := newTelemetryPool(t, &telemetryFake{}, Config{})
	require.NoError(t, p.db.PingContext(underParent(t)))
	assert.Equal(t, []string{"pool.acquire", "ping"}, spanNames(p.take()))
}

// Collectors refuse what is too long, or no UTF-8, with all that is sent beside it.
func TestWhatSpansShowOfAStatementIsBounded(t *testing.T) {
	for _, text := range []QueryText{QueryTextSanitized, QueryTextRaw} {
		p := newTelemetryPool(t, &telemetryFake{}, Config{QueryText: text})
		exec(t, underParent(t), p.db, "SELECT a"+strings.Repeat(", a + 1", 100_000)+"\xff")
		shown := spanAttributes(p.take()[1])["db.query.text"].(string)
		assert.LessOrEqual(t, len(shown), 4096)
		assert.True(t, utf8.ValidString(shown))
		assert.True(t, strings.HasPrefix(shown, "SELECT a, a + ") && strings.HasSuffix(shown, "…"), shown)
	}
}
