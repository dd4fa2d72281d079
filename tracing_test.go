package sqllease

import (
	"cmp"
	"context"
	"database/sql"
	"database/sql/driver"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"runtime"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"
	"unicode/utf8"

	"github.com/go-sql-driver/mysql"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/codes"
	"go.opentelemetry.io/otel/metric"
	sdkmetric "go.opentelemetry.io/otel/sdk/metric"
	"go.opentelemetry.io/otel/sdk/metric/metricdata"
	sdktrace "go.opentelemetry.io/otel/sdk/trace"
	"go.opentelemetry.io/otel/sdk/trace/tracetest"
	"go.opentelemetry.io/otel/trace"
	"go.opentelemetry.io/otel/trace/embedded"
	"go.opentelemetry.io/otel/trace/noop"

	"github.com/sqllease/sqllease/internal/mysqlscript"
)

// telemetryFake is a driver whose calls a test sees, and can make slow, fail
// or panic. Apart from that every call succeeds at once.
type telemetryFake struct {
	on     func(ctx context.Context, call, query string) error // nil: nothing happens
	answer []driver.Value                                      // the rows of every result set, of one column

	mu     sync.Mutex
	opened int // guarded by mu
	closed int // guarded by mu
}

func (f *telemetryFake) happen(ctx context.Context, call, query string) error {
	if f.on == nil {
		return nil
	}
	return f.on(ctx, call, query)
}

// open is how many sessions are open.
func (f *telemetryFake) open() int {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.opened - f.closed
}

func (f *telemetryFake) Driver() driver.Driver { return f }

func (f *telemetryFake) Open(string) (driver.Conn, error) { return f.Connect(context.Background()) }

func (f *telemetryFake) Connect(ctx context.Context) (driver.Conn, error) {
	if err := f.happen(ctx, "connect", ""); err != nil {
		return nil, err
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	f.opened++
	return &telemetryFakeConn{f}, nil
}

type telemetryFakeConn struct{ f *telemetryFake }

func (c *telemetryFakeConn) Close() error {
	c.f.mu.Lock()
	defer c.f.mu.Unlock()
	c.f.closed++
	return nil
}

func (c *telemetryFakeConn) IsValid() bool { return true }

func (c *telemetryFakeConn) ResetSession(ctx context.Context) error {
	return c.f.happen(ctx, "reset", "")
}

func (c *telemetryFakeConn) Ping(ctx context.Context) error { return c.f.happen(ctx, "ping", "") }

func (c *telemetryFakeConn) ExecContext(ctx context.Context, query string, _ []driver.NamedValue) (driver.Result, error) {
	return driver.RowsAffected(1), c.f.happen(ctx, "exec", query)
}

func (c *telemetryFakeConn) QueryContext(ctx context.Context, query string, _ []driver.NamedValue) (driver.Rows, error) {
	if err := c.f.happen(ctx, "query", query); err != nil {
		return nil, err
	}
	return &telemetryFakeRows{c.f, c.f.answer}, nil
}

func (c *telemetryFakeConn) Prepare(query string) (driver.Stmt, error) {
	return c.PrepareContext(context.Background(), query)
}

func (c *telemetryFakeConn) PrepareContext(ctx context.Context, query string) (driver.Stmt, error) {
	if err := c.f.happen(ctx, "prepare", query); err != nil {
		return nil, err
	}
	return &telemetryFakeStmt{c.f, query}, nil
}

func (c *telemetryFakeConn) Begin() (driver.Tx, error) {
	return c.BeginTx(context.Background(), driver.TxOptions{})
}

func (c *telemetryFakeConn) BeginTx(ctx context.Context, _ driver.TxOptions) (driver.Tx, error) {
	if err := c.f.happen(ctx, "begin", ""); err != nil {
		return nil, err
	}
	return &telemetryFakeTx{c.f}, nil
}

type telemetryFakeTx struct{ f *telemetryFake }

func (t *telemetryFakeTx) Commit() error { return t.f.happen(context.Background(), "commit", "") }

func (t *telemetryFakeTx) Rollback() error { return t.f.happen(context.Background(), "rollback", "") }

type telemetryFakeStmt struct {
	f     *telemetryFake
	query string
}

func (s *telemetryFakeStmt) Close() error  { return nil }
func (s *telemetryFakeStmt) NumInput() int { return -1 }

func (s *telemetryFakeStmt) Exec([]driver.Value) (driver.Result, error) {
	return nil, errors.New("the legacy call is not expected")
}

func (s *telemetryFakeStmt) Query([]driver.Value) (driver.Rows, error) {
	return nil, errors.New("the legacy call is not expected")
}

func (s *telemetryFakeStmt) ExecContext(ctx context.Context, _ []driver.NamedValue) (driver.Result, error) {
	return driver.RowsAffected(1), s.f.happen(ctx, "statement exec", s.query)
}

func (s *telemetryFakeStmt) QueryContext(ctx context.Context, _ []driver.NamedValue) (driver.Rows, error) {
	if err := s.f.happen(ctx, "statement query", s.query); err != nil {
		return nil, err
	}
	return &telemetryFakeRows{s.f, s.f.answer}, nil
}

type telemetryFakeRows struct {
	f    *telemetryFake
	left []driver.Value
}

func (r *telemetryFakeRows) Columns() []string { return []string{"value"} }

func (r *telemetryFakeRows) Close() error {
	return r.f.happen(context.Background(), "rows close", "")
}

func (r *telemetryFakeRows) Next(dest []driver.Value) error {
	if err := r.f.happen(context.Background(), "next", ""); err != nil {
		return err
	}
	if len(r.left) == 0 {
		return io.EOF
	}
	dest[0], r.left = r.left[0], r.left[1:]
	return nil
}

// telemetryPool is a pool whose telemetry stays in memory.
type telemetryPool struct {
	db     *sql.DB
	c      *Connector
	spans  *tracetest.SpanRecorder
	reader *sdkmetric.ManualReader
}

// newTelemetryPool opens a pool for the rest of the test, at whose end every
// span that was started has to have ended.
func newTelemetryPool(t *testing.T, inner driver.Connector, cfg Config) *telemetryPool {
	t.Helper()
	p := &telemetryPool{spans: tracetest.NewSpanRecorder(), reader: sdkmetric.NewManualReader()}
	cfg.TracerProvider = sdktrace.NewTracerProvider(sdktrace.WithSpanProcessor(p.spans))
	cfg.MeterProvider = sdkmetric.NewMeterProvider(sdkmetric.WithReader(p.reader))
	cfg.Logger = slog.New(slog.DiscardHandler)
	if cfg.Name == "" {
		cfg.Name = "orders"
	}
	db, err := OpenDB(inner, cfg)
	require.NoError(t, err)
	p.db = db
	p.c, _ = ConnectorOf(db)
	require.NotNil(t, p.c)
	t.Cleanup(func() {
		assert.NoError(t, db.Close())
		assert.Len(t, p.spans.Ended(), len(p.spans.Started()), "a span was started and not ended")
	})
	return p
}

// telemetryParent is the span of the request that the operations belong to.
var telemetryParent = trace.NewSpanContext(trace.SpanContextConfig{
	TraceID: trace.TraceID{1}, SpanID: trace.SpanID{2}, TraceFlags: trace.FlagsSampled,
})

func underParent(t *testing.T) context.Context {
	return trace.ContextWithSpanContext(t.Context(), telemetryParent)
}

// takeAll returns the spans that ended since it was called last.
func (p *telemetryPool) takeAll() []sdktrace.ReadOnlySpan {
	defer p.spans.Reset()
	return p.spans.Ended()
}

// take is takeAll without the parts of acquires, and transactions as a whole.
func (p *telemetryPool) take() []sdktrace.ReadOnlySpan {
	return slices.DeleteFunc(slices.Clone(p.takeAll()), func(s sdktrace.ReadOnlySpan) bool {
		return slices.Contains([]string{"pool.queue", "pool.dial", "pool.reset", "transaction"}, s.Name())
	})
}

func spanNames(spans []sdktrace.ReadOnlySpan) []string {
	out := []string{}
	for _, s := range spans {
		out = append(out, s.Name())
	}
	return out
}

func spanAttributes(s sdktrace.ReadOnlySpan) map[string]any {
	out := map[string]any{}
	for _, a := range s.Attributes() {
		out[string(a.Key)] = a.Value.AsInterface()
	}
	return out
}

// elapse lets time pass in the bubble of a test.
func elapse(d time.Duration) { <-time.After(d) }

// slow makes one kind of call take that long.
func slow(call string, d time.Duration) func(context.Context, string, string) error {
	return func(ctx context.Context, c, _ string) error {
		if c != call {
			return nil
		}
		select {
		case <-time.After(d):
			return nil
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// failing makes one kind of call fail.
func failing(call string, err error) func(context.Context, string, string) error {
	return func(_ context.Context, c, _ string) error {
		if c == call {
			return err
		}
		return nil
	}
}

func exec(t *testing.T, ctx context.Context, db *sql.DB, statement string, args ...any) {
	t.Helper()
	_, err := db.ExecContext(ctx, statement, args...)
	require.NoError(t, err)
}

func TestAnAcquireThatDialsHasASpanAndTheNextHasNone(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := &telemetryFake{on: slow("connect", 3*time.Second)}
		p := newTelemetryPool(t, f, Config{Dialect: DialectNone})
		start := time.Now()
		exec(t, underParent(t), p.db, "UPDATE stock SET n = 7")
		spans := p.take()
		require.Equal(t, []string{"pool.acquire", "UPDATE stock"}, spanNames(spans))
		s := spans[0]
		assert.Equal(t, trace.SpanKindInternal, s.SpanKind())
		assert.Equal(t, telemetryParent.SpanID(), s.Parent().SpanID())
		assert.Equal(t, start, s.StartTime())
		assert.Equal(t, 3*time.Second, s.EndTime().Sub(s.StartTime()))
		assert.Equal(t, codes.Unset, s.Status().Code)
		assert.Equal(t, map[string]any{
			"db.client.connection.pool.name": "orders",
			"sqllease.acquire.queue":         0.0,
			"sqllease.acquire.dial":          3.0,
			"sqllease.acquire.reset":         0.0,
		}, spanAttributes(s))

		exec(t, underParent(t), p.db, "UPDATE stock SET n = 8")
		assert.Equal(t, []string{"UPDATE stock"}, spanNames(p.take()), "an acquire that took a free session needs no span")
	})
}

func TestTheDriverDialsUnderTheAcquireSpan(t *testing.T) {
	var dialled trace.SpanContext
	f := &telemetryFake{on: func(ctx context.Context, call, _ string) error {
		if call == "connect" {
			dialled = trace.SpanContextFromContext(ctx)
		}
		return nil
	}}
	p := newTelemetryPool(t, f, Config{})
	exec(t, underParent(t), p.db, "DO 1")
	spans := p.takeAll()
	require.Equal(t, []string{"pool.dial", "pool.acquire", "DO"}, spanNames(spans))
	assert.Equal(t, spans[0].SpanContext().SpanID(), dialled.SpanID(), "what a driver's dialler emits is under its dial")
	assert.Equal(t, spans[1].SpanContext().SpanID(), spans[0].Parent().SpanID())
}

func TestAnAcquireThatQueuedTellsItsParts(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := &telemetryFake{on: slow("reset", time.Second)}
		p := newTelemetryPool(t, f, Config{MaxOpen: 1})
		holder, err := p.db.Conn(t.Context())
		require.NoError(t, err)
		go func() {
			elapse(2 * time.Second)
			assert.NoError(t, holder.Close())
		}()
		exec(t, underParent(t), p.db, "DO 1")
		spans := p.take()
		require.Equal(t, []string{"pool.acquire", "DO"}, spanNames(spans))
		got := spanAttributes(spans[0])
		assert.Equal(t, 2.0, got["sqllease.acquire.queue"])
		assert.Equal(t, 0.0, got["sqllease.acquire.dial"])
		assert.Equal(t, 1.0, got["sqllease.acquire.reset"])
		assert.Equal(t, 3*time.Second, spans[0].EndTime().Sub(spans[0].StartTime()))
		assert.Equal(t, spans[0].EndTime(), spans[1].StartTime(), "the query begins where the acquire ends")
	})
}

func TestAnAcquireThatFailsHasASpanWithTheError(t *testing.T) {
	for name, test := range map[string]struct {
		cfg    Config
		cancel time.Duration
		want   string
	}{
		"AcquireTimeout":       {Config{MaxOpen: 1, AcquireTimeout: time.Second}, time.Hour, "context.DeadlineExceeded"},
		"the caller's context": {Config{MaxOpen: 1}, time.Second, "context.Canceled"},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				p := newTelemetryPool(t, &telemetryFake{}, test.cfg)
				holder, err := p.db.Conn(t.Context())
				require.NoError(t, err)
				ctx, cancel := context.WithCancel(underParent(t))
				defer time.AfterFunc(test.cancel, cancel).Stop()
				_, err = p.db.ExecContext(ctx, "DO 1")
				var failed *AcquireError
				require.ErrorAs(t, err, &failed)
				spans := p.take()
				require.Equal(t, []string{"pool.acquire"}, spanNames(spans))
				assert.Equal(t, sdktrace.Status{Code: codes.Error, Description: test.want}, spans[0].Status())
				assert.Equal(t, test.want, spanAttributes(spans[0])["error.type"])
				assert.Equal(t, 1.0, spanAttributes(spans[0])["sqllease.acquire.queue"])
				assert.Equal(t, int64(1), p.sum(t, "db.client.connection.timeouts"))
				assert.Equal(t, uint64(1), p.total(t, "db.client.connection.wait_time"), "the holder's acquire only")
				require.NoError(t, holder.Close())
			})
		})
	}
}

func TestADialThatFailsHasASpanWithTheError(t *testing.T) {
	refusal := errors.New("no such host: db.internal")
	p := newTelemetryPool(t, &telemetryFake{on: failing("connect", refusal)}, Config{})
	_, err := p.db.ExecContext(underParent(t), "DO 1")
	require.Same(t, refusal, err)
	spans := p.take()
	require.Equal(t, []string{"pool.acquire"}, spanNames(spans))
	assert.Equal(t, "*errors.errorString", spanAttributes(spans[0])["error.type"])
}

func TestTheTimeOfARefusedCheckoutIsNotLost(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := &telemetryFake{}
		p := newTelemetryPool(t, f, Config{})
		exec(t, t.Context(), p.db, "DO 1")
		p.take()
		f.on = func(_ context.Context, call, _ string) error {
			if call == "reset" {
				elapse(4 * time.Second)
				return driver.ErrBadConn
			}
			return nil
		}
		exec(t, underParent(t), p.db, "DO 2")
		spans := p.take()
		require.Equal(t, []string{"pool.acquire", "pool.acquire", "DO"}, spanNames(spans))
		assert.Equal(t, 4.0, spanAttributes(spans[0])["sqllease.acquire.reset"])
		assert.Equal(t, "driver.ErrBadConn", spanAttributes(spans[0])["error.type"])
		assert.Equal(t, codes.Unset, spans[1].Status().Code)
		assert.Equal(t, uint64(2), p.total(t, "db.client.connection.wait_time"), "a refused checkout is no acquire")
	})
}

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
	p := newTelemetryPool(t, inner, Config{MaxOpen: 1})

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

func TestWithoutAParentThereIsNoSpan(t *testing.T) {
	p := newTelemetryPool(t, &telemetryFake{}, Config{})
	exec(t, t.Context(), p.db, "DO 1")
	exec(t, t.Context(), p.db, "DO 1")
	assert.Empty(t, p.take())
	assert.Equal(t, uint64(2), p.total(t, "db.client.operation.duration"), "metrics count it all the same")
}

func TestRootSpansBeginTracesOfTheirOwn(t *testing.T) {
	p := newTelemetryPool(t, &telemetryFake{}, Config{RootSpans: true})
	exec(t, t.Context(), p.db, "DO 1")
	exec(t, t.Context(), p.db, "DO 1")
	spans := p.take()
	require.Equal(t, []string{"pool.acquire", "DO", "DO"}, spanNames(spans))
	for _, s := range spans {
		assert.False(t, s.Parent().IsValid())
	}
}

func TestATransactionHasSpansForItsEnds(t *testing.T) {
	for name, test := range map[string]struct {
		end  func(*sql.Tx) error
		want string
	}{
		"commit":   {(*sql.Tx).Commit, "commit"},
		"rollback": {(*sql.Tx).Rollback, "rollback"},
	} {
		t.Run(name, func(t *testing.T) {
			p := newTelemetryPool(t, &telemetryFake{}, Config{})
			tx, err := p.db.BeginTx(underParent(t), nil)
			require.NoError(t, err)
			_, err = tx.ExecContext(underParent(t), "DO 1")
			require.NoError(t, err)
			require.NoError(t, test.end(tx))
			require.Error(t, test.end(tx))
			spans := p.takeAll()
			require.Equal(t, []string{"pool.dial", "pool.acquire", "begin", "DO", test.want, "transaction"}, spanNames(spans))
			tx1, do := spans[5], spans[3]
			assert.Equal(t, telemetryParent.SpanID(), tx1.Parent().SpanID())
			assert.Equal(t, telemetryParent.SpanID(), spans[1].Parent().SpanID())
			assert.Equal(t, telemetryParent.SpanID(), do.Parent().SpanID(), "its parent is what the application says")
			assert.Equal(t, tx1.SpanContext().SpanID(), do.Links()[0].SpanContext.SpanID())
			for _, s := range []sdktrace.ReadOnlySpan{spans[2], spans[4]} {
				assert.Equal(t, tx1.SpanContext().SpanID(), s.Parent().SpanID())
				assert.Empty(t, s.Links())
			}
			assert.Equal(t, map[string]string{"commit": "committed", "rollback": "rolled back"}[test.want], spanAttributes(tx1)["sqllease.tx.outcome"])
			assert.Equal(t, codes.Unset, tx1.Status().Code)
			assert.ElementsMatch(t, []string{"begin", "DO", test.want}, p.values(t, "db.client.operation.duration", "db.operation.name"))
		})
	}
}

func TestTheRollbackOfAnEndedContextHasItsParent(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newTelemetryPool(t, &telemetryFake{}, Config{})
		ctx, cancel := context.WithCancel(underParent(t))
		_, err := p.db.BeginTx(ctx, nil)
		require.NoError(t, err)
		cancel()
		synctest.Wait()
		spans := p.takeAll()
		require.Equal(t, []string{"pool.dial", "pool.acquire", "begin", "rollback", "transaction"}, spanNames(spans))
		assert.Equal(t, spans[4].SpanContext().SpanID(), spans[3].Parent().SpanID())
		assert.Equal(t, telemetryParent.SpanID(), spans[4].Parent().SpanID())
		assert.Equal(t, codes.Unset, spans[3].Status().Code)
	})
}

// However a transaction ends, its span ends, and says how.
func TestATransactionsSpanTellsItsOutcome(t *testing.T) {
	failure := errors.New("no")
	for want, test := range map[string]struct {
		on  func(context.Context, string, string) error
		end func(*testing.T, *telemetryPool, *sql.Tx)
	}{
		"not begun": {failing("begin", failure), nil},
		"failed":    {failing("commit", failure), func(t *testing.T, _ *telemetryPool, tx *sql.Tx) { require.Error(t, tx.Commit()) }},
		"lost": {nil, func(t *testing.T, _ *telemetryPool, tx *sql.Tx) {
			elapse(time.Hour) // it is reclaimed
			require.Error(t, tx.Commit())
		}},
	} {
		t.Run(want, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				p := newTelemetryPool(t, &telemetryFake{on: test.on}, Config{ReclaimAfter: time.Minute})
				tx, err := p.db.BeginTx(underParent(t), nil)
				if test.end == nil {
					require.Error(t, err)
				} else {
					require.NoError(t, err)
					test.end(t, p, tx)
				}
				synctest.Wait()
				spans := slices.DeleteFunc(slices.Clone(p.takeAll()), func(s sdktrace.ReadOnlySpan) bool { return s.Name() != "transaction" })
				require.Len(t, spans, 1)
				assert.Equal(t, want, spanAttributes(spans[0])["sqllease.tx.outcome"])
				assert.Equal(t, codes.Error, spans[0].Status().Code)
			})
		})
	}
}

func TestThePartsOfAnAcquireAreSpansOfTheirOwn(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := &telemetryFake{on: slow("reset", 10*time.Millisecond)}
		p := newTelemetryPool(t, f, Config{MaxOpen: 1})
		conn, err := p.db.Conn(t.Context())
		require.NoError(t, err)
		start := time.Now()
		time.AfterFunc(time.Second, func() { assert.NoError(t, conn.Close()) })
		exec(t, underParent(t), p.db, "DO 1")
		spans := p.takeAll()
		require.Equal(t, []string{"pool.queue", "pool.reset", "pool.acquire", "DO"}, spanNames(spans))
		queue, reset, acquire := spans[0], spans[1], spans[2]
		for _, part := range spans[:2] {
			assert.Equal(t, acquire.SpanContext().SpanID(), part.Parent().SpanID())
		}
		assert.Equal(t, []time.Time{start, start.Add(time.Second)}, []time.Time{queue.StartTime(), queue.EndTime()})
		assert.Equal(t, []time.Time{start.Add(time.Second), start.Add(time.Second + 10*time.Millisecond)}, []time.Time{reset.StartTime(), reset.EndTime()})
	})
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
		QueryTextSanitised: "SELECT a FROM t WHERE b = ?",
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

// Collectors refuse what is too long, or no UTF-8, with all that is sent beside it.
func TestWhatSpansShowOfAStatementIsBounded(t *testing.T) {
	for _, text := range []QueryText{QueryTextSanitised, QueryTextRaw} {
		p := newTelemetryPool(t, &telemetryFake{}, Config{QueryText: text})
		exec(t, underParent(t), p.db, "SELECT a"+strings.Repeat(", a + 1", 100_000)+"\xff")
		shown := spanAttributes(p.take()[1])["db.query.text"].(string)
		assert.LessOrEqual(t, len(shown), 4096)
		assert.True(t, utf8.ValidString(shown))
		assert.True(t, strings.HasPrefix(shown, "SELECT a, a + ") && strings.HasSuffix(shown, "…"), shown)
	}
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
		p := newTelemetryPool(t, &telemetryFake{}, Config{OmitSpans: []string{"ping", "begin", "acquire"}})
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

// panickingTelemetry is what of an application's telemetry may panic: the sampler,
// the span processor, spans of a tracer of its own, and the exemplar filter.
type panickingTelemetry struct{ sampler, processor, spans, filter bool }

const ownBug = "the application's own bug"

func (p panickingTelemetry) ShouldSample(sdktrace.SamplingParameters) sdktrace.SamplingResult {
	if p.sampler {
		panic(ownBug)
	}
	return sdktrace.SamplingResult{Decision: sdktrace.RecordAndSample}
}

func (p panickingTelemetry) OnEnd(sdktrace.ReadOnlySpan) {
	if p.processor {
		panic(ownBug)
	}
}

func (p panickingTelemetry) Description() string                             { return "" }
func (p panickingTelemetry) OnStart(context.Context, sdktrace.ReadWriteSpan) {}
func (p panickingTelemetry) Shutdown(context.Context) error                  { return nil }
func (p panickingTelemetry) ForceFlush(context.Context) error                { return nil }

func (p panickingTelemetry) traces() trace.TracerProvider {
	if p.spans {
		return panickingTracers{}
	}
	return sdktrace.NewTracerProvider(sdktrace.WithSampler(p), sdktrace.WithSpanProcessor(p))
}

func (p panickingTelemetry) metrics() metric.MeterProvider {
	return sdkmetric.NewMeterProvider(sdkmetric.WithReader(sdkmetric.NewManualReader()), sdkmetric.WithExemplarFilter(func(context.Context) bool {
		if p.filter {
			panic(ownBug)
		}
		return true
	}))
}

// panickingTracers have spans that do nothing else.
type (
	panickingTracers struct{ embedded.TracerProvider }
	panickingTracer  struct{ embedded.Tracer }
)

func (panickingTracers) Tracer(string, ...trace.TracerOption) trace.Tracer { return panickingTracer{} }
func (panickingTracer) Start(ctx context.Context, _ string, _ ...trace.SpanStartOption) (context.Context, trace.Span) {
	return ctx, panickingSpan{}
}

type panickingSpan struct{ noop.Span }

func (panickingSpan) IsRecording() bool              { panic(ownBug) }
func (panickingSpan) End(...trace.SpanEndOption)     { panic(ownBug) }
func (panickingSpan) SpanContext() trace.SpanContext { panic(ownBug) }

func TestTelemetryThatPanicsCostsNothingElse(t *testing.T) {
	for _, broken := range []panickingTelemetry{{sampler: true}, {processor: true}, {spans: true}, {filter: true}} {
		t.Run(fmt.Sprintf("%+v", broken), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				log := &leakLog{}
				db, err := OpenDB(&telemetryFake{}, Config{
					MaxOpen: 2, RootSpans: true, LeakThreshold: 10 * time.Second, Logger: slog.New(log),
					TracerProvider: broken.traces(), MeterProvider: broken.metrics(),
				})
				require.NoError(t, err)
				c, _ := ConnectorOf(db)
				everyKindOfAcquire(t, db)
				s := c.Stats()
				assert.Equal(t, []int{2, 0, 2, 0, 0}, []int{s.Open, s.InUse, s.Idle, s.Waiting, s.Dialling})
				require.NoError(t, db.Close())
				synctest.Wait()
				told := 0
				for _, r := range log.take() {
					if strings.Contains(r.message, "provider panicked") {
						told++
						assert.Equal(t, "a string; QueryTextRaw shows it", r.attrs["panic"])
					}
				}
				assert.Equal(t, 1, told)
			})
		})
	}
}

// everyKindOfAcquire dials, queues, leaks, is given back and runs out of time, on
// two connections.
func everyKindOfAcquire(t *testing.T, db *sql.DB) {
	t.Helper()
	ctx := t.Context()
	tx, err := db.BeginTx(ctx, nil)
	require.NoError(t, err)
	_, err = tx.ExecContext(ctx, "DO 1")
	require.NoError(t, err)
	conn, err := db.Conn(ctx)
	require.NoError(t, err)
	waiter := make(chan error, 1)
	go func() { waiter <- db.PingContext(ctx) }()
	elapse(20 * time.Second)
	require.NoError(t, tx.Commit())
	require.NoError(t, <-waiter)
	require.NoError(t, conn.Close())
	short, cancel := context.WithTimeout(ctx, time.Second)
	defer cancel()
	var all []*sql.Conn
	for range 2 {
		conn, err := db.Conn(short)
		require.NoError(t, err)
		all = append(all, conn)
	}
	require.Error(t, db.PingContext(short))
	for _, conn := range all {
		require.NoError(t, conn.Close())
	}
}

func TestAFilterThatEndsItsGoroutineCostsNothing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ends := false
		db, err := OpenDB(&telemetryFake{}, Config{MaxOpen: 1, RootSpans: true, FilterSpan: func(context.Context, Operation) bool {
			if ends {
				runtime.Goexit()
			}
			return true
		}})
		require.NoError(t, err)
		c, _ := ConnectorOf(db)
		endIn := func(acquire func()) {
			ends = true
			var gone sync.WaitGroup
			gone.Go(acquire)
			gone.Wait()
			ends = false
		}
		endIn(func() { _ = db.PingContext(t.Context()) }) // with room to dial in
		conn, err := db.Conn(t.Context())
		require.NoError(t, err)
		endIn(func() { _ = db.PingContext(t.Context()) }) // in the queue
		assert.Zero(t, c.Stats().Waiting)
		require.NoError(t, conn.Close())
		require.NoError(t, db.PingContext(t.Context()))
		s := c.Stats()
		assert.Equal(t, []int{1, 0, 0}, []int{s.Open, s.InUse, s.Dialling})
		require.NoError(t, db.Close())
	})
}

func TestAPingHasASpan(t *testing.T) {
	p := newTelemetryPool(t, &telemetryFake{}, Config{})
	require.NoError(t, p.db.PingContext(underParent(t)))
	assert.Equal(t, []string{"pool.acquire", "ping"}, spanNames(p.take()))
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

func TestMetricsHaveTheNamesAndUnitsOfTheConventions(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := &telemetryFake{answer: []driver.Value{int64(1)}}
		p := newTelemetryPool(t, f, Config{Dialect: DialectCockroachDB, NetworkIdleLimit: time.Minute, MaxOpen: 2, LeakThreshold: 2 * time.Second})
		conn, err := p.db.Conn(t.Context())
		require.NoError(t, err)
		rows, err := conn.QueryContext(t.Context(), "SELECT 1")
		require.NoError(t, err)
		require.NoError(t, rows.Close())
		second, err := p.db.Conn(t.Context())
		require.NoError(t, err)
		elapse(3 * time.Second)
		require.NoError(t, second.Close())
		second, err = p.db.Conn(t.Context())
		require.NoError(t, err)
		ctx, cancel := context.WithTimeout(t.Context(), 1500*time.Millisecond)
		defer cancel()
		_, err = p.db.Conn(ctx) // a deadlock, since this goroutine has all there are
		require.Error(t, err)
		require.ErrorIs(t, conn.Raw(func(any) error { return driver.ErrBadConn }), driver.ErrBadConn)
		require.NoError(t, second.Close())
		elapse(time.Second)

		units := map[string]string{}
		for _, m := range p.collect(t) {
			units[m.Name] = m.Unit
			for _, set := range attributeSets(m) {
				name, _ := set.Value("db.client.connection.pool.name")
				assert.Equal(t, "orders", name.AsString(), m.Name)
				system, _ := set.Value("db.system.name")
				assert.Equal(t, "cockroachdb", system.AsString(), m.Name)
			}
		}
		assert.Equal(t, map[string]string{
			"db.client.connection.count":            "{connection}",
			"db.client.connection.max":              "{connection}",
			"db.client.connection.idle.min":         "{connection}",
			"db.client.connection.pending_requests": "{request}",
			"db.client.connection.timeouts":         "{timeout}",
			"db.client.connection.create_time":      "s",
			"db.client.connection.wait_time":        "s",
			"db.client.connection.use_time":         "s",
			"db.client.operation.duration":          "s",
			"db.client.response.returned_rows":      "{row}",
			"sqllease.leaks":                        "{lease}",
			"sqllease.lease.count":                  "{lease}",
			"sqllease.deadlocks":                    "{deadlock}",
			"sqllease.nested_acquires":              "{place}",
			"sqllease.session.closed":               "{connection}",
			"sqllease.oldest_hold":                  "s",
			"sqllease.oldest_wait":                  "s",
			"sqllease.idle_limit":                   "s",
			"sqllease.lifetime":                     "s",
		}, units)
	})
}

func TestNothingIsCountedTwice(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := &telemetryFake{answer: []driver.Value{int64(1), int64(2)}, on: slow("query", time.Millisecond)}
		p := newTelemetryPool(t, f, Config{MaxOpen: 2})
		const users, uses = 8, 25
		var wait sync.WaitGroup
		for range users {
			wait.Go(func() {
				for range uses {
					var n int
					assert.NoError(t, p.db.QueryRowContext(underParent(t), "SELECT 1 FROM t").Scan(&n))
				}
			})
		}
		wait.Wait()
		const all = users * uses
		for _, histogram := range []string{
			"db.client.operation.duration", "db.client.response.returned_rows",
			"db.client.connection.wait_time", "db.client.connection.use_time",
		} {
			assert.Equal(t, uint64(all), p.total(t, histogram), histogram)
		}
		assert.Equal(t, uint64(p.c.Stats().Dials), p.total(t, "db.client.connection.create_time"))
		queries := 0
		for _, s := range p.take() {
			if s.Name() != "pool.acquire" {
				queries++
			}
		}
		assert.Equal(t, all, queries)

		require.NoError(t, p.db.Close())
		assert.Equal(t, int64(f.opened), p.sum(t, "sqllease.session.closed"))
	})
}

func TestACollectionSeesTheConfiguredMinimum(t *testing.T) {
	p := newTelemetryPool(t, &telemetryFake{}, Config{MinIdle: 2})
	assert.Equal(t, int64(2), p.sum(t, "db.client.connection.idle.min"))
}

func TestACollectionSeesThePoolAsItStands(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newTelemetryPool(t, &telemetryFake{}, Config{MaxOpen: 3})
		first, err := p.db.Conn(t.Context())
		require.NoError(t, err)
		second, err := p.db.Conn(t.Context())
		require.NoError(t, err)
		require.NoError(t, second.Close())
		elapse(5 * time.Second)
		got := map[string]float64{}
		for _, m := range p.collect(t) {
			switch data := m.Data.(type) {
			case metricdata.Sum[int64]:
				if data.IsMonotonic {
					continue // nothing has happened yet
				}
				for _, point := range data.DataPoints {
					state, _ := point.Attributes.Value("db.client.connection.state")
					use, _ := point.Attributes.Value("sqllease.lease.use")
					got[m.Name+state.AsString()+use.AsString()] = float64(point.Value)
				}
			case metricdata.Gauge[float64]:
				got[m.Name] = data.DataPoints[0].Value
			}
		}
		assert.Equal(t, map[string]float64{
			"db.client.connection.countused": 1, "db.client.connection.countidle": 1,
			"db.client.connection.max": 3, "db.client.connection.idle.min": 0, "db.client.connection.pending_requests": 0,
			"sqllease.lease.countbusy": 0, "sqllease.lease.countopen_rows": 0, "sqllease.lease.countin_tx": 0, "sqllease.lease.countidle": 1,
			"sqllease.oldest_hold": 5, "sqllease.oldest_wait": 0, "sqllease.idle_limit": 0, "sqllease.lifetime": 0,
		}, got)
		require.NoError(t, first.Close())
	})
}

// collect returns all metrics of the pool.
func (p *telemetryPool) collect(t *testing.T) []metricdata.Metrics {
	t.Helper()
	var all metricdata.ResourceMetrics
	require.NoError(t, p.reader.Collect(context.Background(), &all))
	if len(all.ScopeMetrics) == 0 {
		return nil
	}
	require.Len(t, all.ScopeMetrics, 1)
	assert.Equal(t, scope, all.ScopeMetrics[0].Scope.Name)
	return all.ScopeMetrics[0].Metrics
}

// metric returns one metric's data; nil if nothing was recorded.
func (p *telemetryPool) metric(t *testing.T, name string) metricdata.Aggregation {
	t.Helper()
	for _, m := range p.collect(t) {
		if m.Name == name {
			return m.Data
		}
	}
	return nil
}

// total is how often a histogram was recorded.
func (p *telemetryPool) total(t *testing.T, name string) (n uint64) {
	t.Helper()
	switch data := p.metric(t, name).(type) {
	case metricdata.Histogram[float64]:
		for _, point := range data.DataPoints {
			n += point.Count
		}
	case metricdata.Histogram[int64]:
		for _, point := range data.DataPoints {
			n += point.Count
		}
	}
	return n
}

// sum is a counter's value, over all its attributes.
func (p *telemetryPool) sum(t *testing.T, name string) (n int64) {
	t.Helper()
	if data, ok := p.metric(t, name).(metricdata.Sum[int64]); ok {
		for _, point := range data.DataPoints {
			n += point.Value
		}
	}
	return n
}

// values are the values that an attribute of a metric has.
func (p *telemetryPool) values(t *testing.T, name string, key attribute.Key) []string {
	t.Helper()
	out := []string{}
	for _, m := range p.collect(t) {
		if m.Name != name {
			continue
		}
		for _, set := range attributeSets(m) {
			if v, ok := set.Value(key); ok {
				out = append(out, v.AsString())
			}
		}
	}
	return out
}

func attributeSets(m metricdata.Metrics) (sets []attribute.Set) {
	switch data := m.Data.(type) {
	case metricdata.Histogram[float64]:
		for _, point := range data.DataPoints {
			sets = append(sets, point.Attributes)
		}
	case metricdata.Histogram[int64]:
		for _, point := range data.DataPoints {
			sets = append(sets, point.Attributes)
		}
	case metricdata.Sum[int64]:
		for _, point := range data.DataPoints {
			sets = append(sets, point.Attributes)
		}
	case metricdata.Gauge[float64]:
		for _, point := range data.DataPoints {
			sets = append(sets, point.Attributes)
		}
	}
	return sets
}

// database/sql may begin a transaction on a connection before it has rolled back
// one whose context ended.
func TestOverlappingTransactionsEndTheirSpans(t *testing.T) {
	p := newTelemetryPool(t, &telemetryFake{}, Config{})
	conn, err := p.db.Conn(t.Context())
	require.NoError(t, err)
	for range 300 {
		ctx, cancel := context.WithCancel(underParent(t))
		tx, err := conn.BeginTx(ctx, nil)
		require.NoError(t, err)
		cancel()
		_ = tx.Commit()
		tx, err = conn.BeginTx(underParent(t), nil)
		require.NoError(t, err)
		require.NoError(t, tx.Commit())
	}
	require.NoError(t, conn.Close()) // and newTelemetryPool checks that all have ended
}

func TestAFilterIsAskedOnceForASpan(t *testing.T) {
	asked := 0
	p := newTelemetryPool(t, &telemetryFake{answer: []driver.Value{int64(1)}}, Config{OmitSpans: []string{"acquire"}, FilterSpan: func(context.Context, Operation) bool {
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
