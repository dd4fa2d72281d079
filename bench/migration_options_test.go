package bench

import (
	"context"
	"database/sql"
	"database/sql/driver"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"sync"
	"testing"

	xsam "github.com/XSAM/otelsql"
	"github.com/go-sql-driver/mysql"
	"github.com/ngrok/sqlmw"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/codes"
	"go.opentelemetry.io/otel/propagation"
	sdktrace "go.opentelemetry.io/otel/sdk/trace"
	"go.opentelemetry.io/otel/trace"

	"github.com/sqllease/sqllease"
	"github.com/sqllease/sqllease/internal/nothing"
)

// This file sets each option of XSAM/otelsql, and what docs/migration.md names in its place,
// and compares what comes of both. Its subtests have the options' names.

// refused is a statement that noting refuses.
const refused = "DROP TABLE orders"

// noting is a driver that keeps the statements it gets, and may fail in an exec.
type noting struct {
	fails error

	mu         sync.Mutex
	statements []string // guarded by mu
}

func (d *noting) Driver() driver.Driver { return nothing.Driver{} }

func (d *noting) Connect(context.Context) (driver.Conn, error) {
	return &notingConn{&nothing.Conn{}, d}, nil
}

type notingConn struct {
	*nothing.Conn
	of *noting
}

func (c *notingConn) note(statement string) {
	c.of.mu.Lock()
	defer c.of.mu.Unlock()
	c.of.statements = append(c.of.statements, statement)
}

func (c *notingConn) ExecContext(_ context.Context, query string, _ []driver.NamedValue) (driver.Result, error) {
	c.note(query)
	if query == refused {
		return nil, driver.ErrRemoveArgument
	}
	return driver.RowsAffected(1), c.of.fails
}

func (c *notingConn) PrepareContext(_ context.Context, query string) (driver.Stmt, error) {
	c.note(query)
	return c.Prepare(query)
}

// pair is the same work through both wrappers.
type pair struct{ there, here seen }

// play does some work through XSAM/otelsql with its options, and through sqllease with a Config.
func play(t *testing.T, d *noting, options []xsam.Option, cfg sqllease.Config, work func(ctx context.Context, db *sql.DB)) pair {
	t.Helper()
	one := func(open func(r recorders) *sql.DB) seen {
		r := newRecorders()
		db := open(r)
		ctx, parent := r.traces.Tracer("application").Start(t.Context(), "request")
		work(ctx, db)
		parent.End()
		s := r.seen(t)
		require.NoError(t, db.Close())
		return s
	}
	return pair{
		there: one(func(r recorders) *sql.DB {
			return xsam.OpenDB(d, append([]xsam.Option{xsam.WithTracerProvider(r.traces), xsam.WithMeterProvider(r.meters)}, options...)...)
		}),
		here: one(func(r recorders) *sql.DB {
			cfg.TracerProvider, cfg.MeterProvider, cfg.Logger = r.traces, r.meters, slog.New(slog.DiscardHandler)
			db, err := sqllease.OpenDB(d, cfg)
			require.NoError(t, err)
			return db
		}),
	}
}

const insert = "INSERT INTO orders VALUES (7)"

// execOnce runs one statement, which may fail.
func execOnce(ctx context.Context, db *sql.DB) { _, _ = db.ExecContext(ctx, insert) }

// queryBoth queries directly and by a prepared statement.
func queryBoth(t *testing.T) func(ctx context.Context, db *sql.DB) {
	return func(ctx context.Context, db *sql.DB) {
		readAll(t, func() (*sql.Rows, error) { return db.QueryContext(ctx, "SELECT a FROM orders") })
		st, err := db.PrepareContext(ctx, "SELECT a FROM orders")
		require.NoError(t, err)
		readAll(t, func() (*sql.Rows, error) { return st.QueryContext(ctx) })
		require.NoError(t, st.Close())
	}
}

// span returns the span of that name.
func (s seen) span(t *testing.T, name string) sdktrace.ReadOnlySpan {
	t.Helper()
	i := slices.Index(s.spans, name)
	require.GreaterOrEqual(t, i, 0, "%q is not among %q", name, s.spans)
	return s.shown[i]
}

// value is an attribute of a span; "": it has none of that name.
func value(s sdktrace.ReadOnlySpan, key attribute.Key) string {
	for _, a := range s.Attributes() {
		if a.Key == key {
			return a.Value.String()
		}
	}
	return ""
}

// of are the values of an attribute in the points of a metric.
func (s seen) of(metric string, key attribute.Key) (values []string) {
	for _, set := range s.points[metric] {
		if v, ok := set.Value(key); ok {
			values = append(values, v.String())
		}
	}
	return values
}

const (
	duration = "db.client.operation.duration"
	execSpan = "sql.conn.exec" // there
	sumSpan  = "INSERT orders" // here
	tenant   = attribute.Key("tenant")
)

func tenantOf(context.Context) []attribute.KeyValue { return []attribute.KeyValue{tenant.String("42")} }

func TestTheMigrationsEquivalentDoesIt(t *testing.T) {
	for option, check := range map[string]func(t *testing.T){
		"WithAttributes": func(t *testing.T) {
			shard := attribute.String("shard", "a")
			p := play(t, &noting{}, []xsam.Option{xsam.WithAttributes(shard)}, sqllease.Config{Attributes: []attribute.KeyValue{shard}}, execOnce)
			assert.Equal(t, "a", value(p.there.span(t, execSpan), "shard"))
			assert.Equal(t, "a", value(p.here.span(t, sumSpan), "shard"))
			assert.Contains(t, p.there.of(duration, "shard"), "a")
			assert.Contains(t, p.here.of(duration, "shard"), "a")
			_, err := sqllease.OpenDB(&noting{}, sqllease.Config{Attributes: []attribute.KeyValue{attribute.String("db.system.name", "mysql")}})
			assert.ErrorAs(t, err, new(*sqllease.ConfigError), "what sqllease sets itself is refused")
		},
		"WithAttributesGetter": func(t *testing.T) {
			p := play(t, &noting{}, []xsam.Option{xsam.WithAttributesGetter(
				func(ctx context.Context, _ xsam.Method, _ string, _ []driver.NamedValue) []attribute.KeyValue {
					return tenantOf(ctx)
				})},
				sqllease.Config{SpanAttributes: tenantOf}, execOnce)
			assert.Equal(t, "42", value(p.there.span(t, execSpan), tenant))
			assert.Equal(t, "42", value(p.here.span(t, sumSpan), tenant))
		},
		"WithInstrumentAttributesGetter": func(t *testing.T) {
			p := play(t, &noting{}, []xsam.Option{xsam.WithInstrumentAttributesGetter(
				func(ctx context.Context, _ xsam.Method, _ string, _ []driver.NamedValue) []attribute.KeyValue {
					return tenantOf(ctx)
				})},
				sqllease.Config{MetricAttributes: tenantOf}, func(ctx context.Context, db *sql.DB) { execOnce(ctx, db); queryBoth(t)(ctx, db) })
			assert.Contains(t, p.there.of(duration, tenant), "42")
			for _, metric := range []string{duration, "db.client.response.returned_rows", "db.client.connection.wait_time"} {
				assert.Contains(t, p.here.of(metric, tenant), "42", metric)
			}
		},
		"WithInstrumentErrorAttributesGetter": func(t *testing.T) {
			p := play(t, duplicate(), []xsam.Option{xsam.WithInstrumentErrorAttributesGetter(codeOf)}, sqllease.Config{}, execOnce)
			assert.Contains(t, p.there.of(duration, "db.response.status_code"), "1062")
			assert.Contains(t, p.here.of(duration, "db.response.status_code"), "1062")
			assert.Contains(t, p.here.of(duration, "error.type"), "1062")
		},
		"WithSpanErrorAttributesGetter": func(t *testing.T) {
			p := play(t, duplicate(), []xsam.Option{xsam.WithSpanErrorAttributesGetter(codeOf)}, sqllease.Config{}, execOnce)
			assert.Equal(t, "1062", value(p.there.span(t, execSpan), "db.response.status_code"))
			assert.Equal(t, "1062", value(p.here.span(t, sumSpan), "db.response.status_code"))
		},
		"WithDisableSkipErrMeasurement, DisableErrSkip": func(t *testing.T) {
			p := play(t, &noting{fails: driver.ErrSkip}, nil, sqllease.Config{}, execOnce)
			assert.Contains(t, p.there.of(duration, "error.type"), "database/sql/driver.ErrSkip", "it is an error without the option")
			assert.Equal(t, codes.Error, p.there.span(t, execSpan).Status().Code)
			assert.Empty(t, p.here.of(duration, "error.type"))
			assert.Equal(t, 1, count(p.here.spans, sumSpan), "of the prepared statement in its place: %q", p.here.spans)
		},
		"WithSQLCommenter, WithTextMapPropagator": func(t *testing.T) {
			d := &noting{}
			play(t, d, []xsam.Option{xsam.WithSQLCommenter(true), xsam.WithTextMapPropagator(propagation.TraceContext{})},
				sqllease.Config{Comments: sqllease.CommentsAppend, CommentTags: func(context.Context) map[string]string { return map[string]string{"route": "orders"} }},
				func(ctx context.Context, db *sql.DB) {
					execOnce(ctx, db)
					st, err := db.PrepareContext(ctx, insert)
					require.NoError(t, err)
					require.NoError(t, st.Close())
				})
			require.Len(t, d.statements, 4)
			for _, i := range []int{0, 2} {
				assert.Regexp(t, `\(7\) ?/\*.*traceparent='00-[0-9a-f]{32}-[0-9a-f]{16}-01'.*\*/$`, d.statements[i])
			}
			assert.Contains(t, d.statements[1], "traceparent", "there, a statement that is prepared")
			assert.Equal(t, insert, d.statements[3])
			assert.Contains(t, d.statements[2], "route='orders'")
		},
		"Ping": func(t *testing.T) {
			ping := func(ctx context.Context, db *sql.DB) { require.NoError(t, db.PingContext(ctx)) }
			p := play(t, &noting{}, []xsam.Option{xsam.WithSpanOptions(xsam.SpanOptions{Ping: true})}, sqllease.Config{}, ping)
			assert.Contains(t, p.there.spans, "sql.conn.ping")
			assert.Contains(t, p.here.spans, "ping")
			p = play(t, &noting{}, nil, sqllease.Config{OmitSpans: []sqllease.Call{sqllease.CallPing}}, ping)
			assert.NotContains(t, p.there.spans, "sql.conn.ping")
			assert.NotContains(t, p.here.spans, "ping")
		},
		"DisableQuery": func(t *testing.T) {
			p := play(t, &noting{}, nil, sqllease.Config{}, execOnce)
			assert.Equal(t, insert, value(p.there.span(t, execSpan), "db.query.text"))
			assert.Equal(t, "INSERT INTO orders VALUES (?)", value(p.here.span(t, sumSpan), "db.query.text"))
			p = play(t, &noting{}, nil, sqllease.Config{QueryText: sqllease.QueryTextRaw}, execOnce)
			assert.Equal(t, insert, value(p.here.span(t, sumSpan), "db.query.text"))
			p = play(t, &noting{}, []xsam.Option{xsam.WithSpanOptions(xsam.SpanOptions{DisableQuery: true})},
				sqllease.Config{QueryText: sqllease.QueryTextOff}, execOnce)
			assert.Empty(t, value(p.there.span(t, execSpan), "db.query.text"))
			assert.Empty(t, value(p.here.span(t, sumSpan), "db.query.text"))
		},
		"RecordError": func(t *testing.T) {
			p := play(t, duplicate(), []xsam.Option{xsam.WithSpanOptions(xsam.SpanOptions{RecordError: isNoDuplicate})},
				sqllease.Config{IsError: func(_ context.Context, err error) bool { return isNoDuplicate(err) }}, execOnce)
			assert.Equal(t, codes.Unset, p.there.span(t, execSpan).Status().Code)
			assert.Equal(t, codes.Unset, p.here.span(t, sumSpan).Status().Code)
			assert.Equal(t, "1062", value(p.here.span(t, sumSpan), "error.type"))
			p = play(t, duplicate(), nil, sqllease.Config{}, execOnce)
			assert.Equal(t, codes.Error, p.there.span(t, execSpan).Status().Code)
			assert.Equal(t, codes.Error, p.here.span(t, sumSpan).Status().Code)
		},
		"OmitConnPrepare": func(t *testing.T) {
			p := play(t, &noting{}, []xsam.Option{xsam.WithSpanOptions(xsam.SpanOptions{OmitConnPrepare: true})},
				sqllease.Config{OmitSpans: []sqllease.Call{sqllease.CallPrepare}}, queryBoth(t))
			assert.NotContains(t, p.there.spans, "sql.conn.prepare")
			assert.NotContains(t, p.here.spans, "prepare SELECT orders")
			assert.Equal(t, 2, count(p.here.spans, "SELECT orders"))
		},
		"OmitConnQuery": func(t *testing.T) {
			p := play(t, &noting{}, []xsam.Option{xsam.WithSpanOptions(xsam.SpanOptions{OmitConnQuery: true})},
				sqllease.Config{OmitSpans: []sqllease.Call{sqllease.CallQuery}}, queryBoth(t))
			assert.NotContains(t, p.there.spans, "sql.conn.query")
			assert.Contains(t, p.there.spans, "sql.stmt.query", "there, those of prepared statements stay")
			assert.NotContains(t, p.here.spans, "SELECT orders")
			assert.Contains(t, p.here.of(duration, "db.operation.name"), "SELECT", "metrics go on")
		},
		"OmitRows, RowsChildOfQuery, RowsNext": func(t *testing.T) {
			p := play(t, &noting{}, nil, sqllease.Config{}, queryBoth(t))
			assert.Contains(t, p.there.spans, "sql.rows")
			assert.Equal(t, fmt.Sprint(nothing.Rows), value(p.here.span(t, "SELECT orders"), "db.response.returned_rows"))
		},
		"OmitConnectorConnect, OmitConnResetSession": func(t *testing.T) {
			p := play(t, &noting{}, nil, sqllease.Config{}, queryBoth(t))
			assert.Subset(t, p.there.spans, []string{"sql.connector.connect", "sql.conn.reset_session"})
			assert.Subset(t, p.here.spans, []string{"pool.acquire", "pool.dial"})
			assert.NotContains(t, p.here.spans, "pool.reset")
			p = play(t, &noting{}, []xsam.Option{xsam.WithSpanOptions(xsam.SpanOptions{OmitConnectorConnect: true, OmitConnResetSession: true})},
				sqllease.Config{OmitSpans: []sqllease.Call{sqllease.CallAcquire}}, queryBoth(t))
			for _, gone := range []string{"sql.connector.connect", "sql.conn.reset_session"} {
				assert.NotContains(t, p.there.spans, gone)
			}
			for _, gone := range []string{"pool.acquire", "pool.dial", "pool.queue"} {
				assert.NotContains(t, p.here.spans, gone)
			}
		},
		"SpanFilter": func(t *testing.T) {
			var asked []sqllease.Operation
			p := play(t, &noting{}, []xsam.Option{xsam.WithSpanOptions(xsam.SpanOptions{
				SpanFilter: func(_ context.Context, method xsam.Method, _ string, _ []driver.NamedValue) bool {
					return method != xsam.MethodConnExec
				},
			})}, sqllease.Config{FilterSpan: func(_ context.Context, o sqllease.Operation) bool {
				asked = append(asked, o)
				return o.Call != "exec"
			}}, execOnce)
			assert.NotContains(t, p.there.spans, execSpan)
			assert.NotContains(t, p.here.spans, sumSpan)
			assert.Contains(t, asked, sqllease.Operation{Call: "exec", Summary: sumSpan, Statement: "INSERT INTO orders VALUES (?)"})
		},
		"WithSpanNameFormatter": func(t *testing.T) {
			p := play(t, &noting{}, nil, sqllease.Config{}, func(ctx context.Context, db *sql.DB) {
				_, err := db.ExecContext(ctx, "-- name: PlaceOrder :exec\n"+insert)
				require.NoError(t, err)
			})
			assert.Contains(t, p.here.spans, "PlaceOrder", "sqlc's name")
		},
		"Register, WrapDriver": func(t *testing.T) {
			name := fmt.Sprintf("migration%d", registered.Add(1))
			require.NoError(t, sqllease.Register(name, nothing.Driver{}, sqllease.Config{MaxOpen: 1}))
			db, err := sql.Open(name, "dsn")
			require.NoError(t, err)
			execOnce(t.Context(), db)
			c, ok := sqllease.ConnectorOf(db)
			require.True(t, ok)
			assert.Equal(t, 1, c.Stats().Idle)
			require.NoError(t, db.Close())
		},
		"RegisterDBStatsMetrics": func(t *testing.T) {
			db, err := sqllease.OpenDB(&noting{}, sqllease.Config{MaxOpen: 3})
			require.NoError(t, err)
			execOnce(t.Context(), db)
			c, _ := sqllease.ConnectorOf(db)
			assert.Equal(t, 3, c.DBStats().MaxOpenConnections)
			assert.NotEqual(t, 3, db.Stats().MaxOpenConnections, "which is why it has to go")
			require.NoError(t, db.Close())
		},
	} {
		t.Run(option, check)
	}
}

func TestAHookBelowGoesOn(t *testing.T) {
	hook := &countingHook{}
	name := fmt.Sprintf("hooked%d", registered.Add(1))
	sql.Register(name, sqlmw.Driver(nothing.Driver{}, hook))
	r := newRecorders()
	db, err := sqllease.Open(name, "dsn", sqllease.Config{Dialect: sqllease.DialectMySQL, TracerProvider: r.traces, Logger: slog.New(slog.DiscardHandler)})
	require.NoError(t, err)
	execOnce(t.Context(), db)
	assert.Equal(t, 1, hook.execs)
	assert.Contains(t, r.seen(t).spans, sumSpan)
	assert.Equal(t, "mysql", value(r.seen(t).span(t, sumSpan), "db.system.name"))
	require.NoError(t, db.Close())
}

// countingHook counts statements.
type countingHook struct {
	sqlmw.NullInterceptor
	execs int
}

func (h *countingHook) ConnExecContext(ctx context.Context, conn driver.ExecerContext, query string, args []driver.NamedValue) (driver.Result, error) {
	h.execs++
	return h.NullInterceptor.ConnExecContext(ctx, conn, query, args)
}

// AllowRoot of nhatthm/otelsql is off where nobody sets it, and so is what it stands for here.
func TestOmitRootSpansIsTheOthersDefault(t *testing.T) {
	for omit, want := range map[bool]int{true: 0, false: 1} {
		r := newRecorders()
		db, err := sqllease.OpenDB(nothing.Driver{}, sqllease.Config{OmitRootSpans: omit, TracerProvider: r.traces})
		require.NoError(t, err)
		execOnce(t.Context(), db)
		assert.Equal(t, want, count(r.seen(t).spans, sumSpan))
		execOnce(trace.ContextWithSpanContext(t.Context(), trace.NewSpanContext(trace.SpanContextConfig{
			TraceID: trace.TraceID{1}, SpanID: trace.SpanID{2}, TraceFlags: trace.FlagsSampled,
		})), db)
		assert.Equal(t, want+1, count(r.seen(t).spans, sumSpan))
		require.NoError(t, db.Close())
	}
}

// duplicate is a driver that fails as MySQL does where a key exists.
func duplicate() *noting { return &noting{fails: &mysql.MySQLError{Number: 1062}} }

func isNoDuplicate(err error) bool {
	of := (*mysql.MySQLError)(nil)
	return !errors.As(err, &of) || of.Number != 1062
}

func codeOf(err error) []attribute.KeyValue {
	if of := (*mysql.MySQLError)(nil); errors.As(err, &of) {
		return []attribute.KeyValue{attribute.String("db.response.status_code", fmt.Sprint(of.Number))}
	}
	return nil
}

func count(of []string, what string) (n int) {
	for _, s := range of {
		if s == what {
			n++
		}
	}
	return n
}
