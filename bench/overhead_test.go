package bench

import (
	"context"
	"database/sql"
	"database/sql/driver"
	"fmt"
	"os"
	"testing"

	xsam "github.com/XSAM/otelsql"
	"github.com/go-sql-driver/mysql"
	"github.com/ngrok/sqlmw"
	"github.com/stretchr/testify/require"
	uptrace "github.com/uptrace/opentelemetry-go-extra/otelsql"
	nhat "go.nhat.io/otelsql"
	"go.opentelemetry.io/otel/metric"
	nometrics "go.opentelemetry.io/otel/metric/noop"
	sdkmetric "go.opentelemetry.io/otel/sdk/metric"
	sdktrace "go.opentelemetry.io/otel/sdk/trace"
	"go.opentelemetry.io/otel/trace"
	notraces "go.opentelemetry.io/otel/trace/noop"
	datadog "gopkg.in/DataDog/dd-trace-go.v1/contrib/database/sql"
	"modernc.org/sqlite"

	"github.com/sqllease/sqllease"
)

// This file is the same work through each wrapper, on three drivers, with
// telemetry of three kinds:
//
//	BenchmarkOverhead/<driver>/<telemetry>/<work>/<serial or parallel>/<wrapper>

// providers are where telemetry goes.
type providers struct {
	traces  trace.TracerProvider
	metrics metric.MeterProvider
}

// telemetries are none, an SDK that samples nothing, and one that samples all and
// counts.
var telemetries = []struct {
	name string
	make func() providers
}{
	{"noop", func() providers { return providers{notraces.NewTracerProvider(), nometrics.NewMeterProvider()} }},
	{"unsampled", func() providers {
		return providers{sdktrace.NewTracerProvider(sdktrace.WithSampler(sdktrace.NeverSample())), nometrics.NewMeterProvider()}
	}},
	{"sampled", func() providers {
		return providers{
			sdktrace.NewTracerProvider(sdktrace.WithSampler(sdktrace.AlwaysSample()), sdktrace.WithSpanProcessor(discard{})),
			sdkmetric.NewMeterProvider(sdkmetric.WithReader(sdkmetric.NewManualReader())),
		}
	}},
}

// discard is a span processor that does nothing: exporting costs every wrapper
// the same.
type discard struct{}

func (discard) OnStart(context.Context, sdktrace.ReadWriteSpan) {}
func (discard) OnEnd(sdktrace.ReadOnlySpan)                     {}
func (discard) Shutdown(context.Context) error                  { return nil }
func (discard) ForceFlush(context.Context) error                { return nil }

// contestant is a way to open a database.
type contestant struct {
	name string
	open func(source, providers) (*sql.DB, error)
}

var contestants = []contestant{
	{"bare", func(s source, _ providers) (*sql.DB, error) { return sql.OpenDB(s.connector()), nil }},
	{"sqllease", func(s source, p providers) (*sql.DB, error) {
		return sqllease.OpenDB(s.connector(), sqllease.Config{TracerProvider: p.traces, MeterProvider: p.metrics, Dialect: s.dialect})
	}},
	{"sqllease-off", func(s source, p providers) (*sql.DB, error) {
		return sqllease.OpenDB(s.connector(), sqllease.Config{
			TracerProvider: p.traces, MeterProvider: p.metrics, Dialect: s.dialect,
			LeakThreshold: -1, LongCallThreshold: -1, SlowAcquireThreshold: -1, QueryText: sqllease.QueryTextOff,
		})
	}},
	{"sqllease-all", func(s source, p providers) (*sql.DB, error) {
		return sqllease.OpenDB(s.connector(), sqllease.Config{
			TracerProvider: p.traces, MeterProvider: p.metrics, Dialect: s.dialect,
			RootSpans: true, Comments: true, FailOnDeadlock: true,
		})
	}},
	{"xsam", func(s source, p providers) (*sql.DB, error) {
		return xsam.OpenDB(s.connector(), xsam.WithTracerProvider(p.traces), xsam.WithMeterProvider(p.metrics)), nil
	}},
	{"nhatthm", func(s source, p providers) (*sql.DB, error) {
		return s.registered(nhat.Wrap(s.driver, nhat.TraceQueryWithoutArgs(), nhat.TraceRowsClose(),
			nhat.WithTracerProvider(p.traces), nhat.WithMeterProvider(p.metrics)))
	}},
	{"uptrace", func(s source, p providers) (*sql.DB, error) {
		return uptrace.OpenDB(s.connector(), uptrace.WithTracerProvider(p.traces), uptrace.WithMeterProvider(p.metrics)), nil
	}},
	{"sqlmw", func(s source, _ providers) (*sql.DB, error) {
		return s.registered(sqlmw.Driver(s.driver, sqlmw.NullInterceptor{}))
	}},
	{"datadog", func(s source, _ providers) (*sql.DB, error) { // without an agent: its tracer does nothing
		return datadog.OpenDB(s.connector(), datadog.WithServiceName("bench")), nil
	}},
}

// source is a driver and what it connects to.
type source struct {
	name    string
	driver  driver.Driver
	dsn     string
	dialect sqllease.Dialect
}

// sources are a driver that does nothing, so that what is measured is what is
// around it; SQLite in memory; and MariaDB, where SQLLEASE_BENCH_DSN tells one.
func sources() []source {
	all := []source{
		{"nothing", nothing{}, "", sqllease.DialectNone},
		{"sqlite", &sqlite.Driver{}, "file::memory:", sqllease.DialectNone},
	}
	if dsn := os.Getenv("SQLLEASE_BENCH_DSN"); dsn != "" {
		all = append(all, source{"mariadb", mysql.MySQLDriver{}, dsn, sqllease.DialectMariaDB})
	}
	return all
}

func (s source) connector() driver.Connector {
	if d, ok := s.driver.(driver.DriverContext); ok {
		if c, err := d.OpenConnector(s.dsn); err == nil {
			return c
		}
	}
	return connector{s}
}

func (s source) registered(d driver.Driver) (*sql.DB, error) {
	name := fmt.Sprint("overhead", registered.Add(1))
	sql.Register(name, d)
	return sql.Open(name, s.dsn)
}

// connector is that of a driver that has none.
type connector struct{ from source }

func (c connector) Connect(context.Context) (driver.Conn, error) {
	return c.from.driver.Open(c.from.dsn)
}
func (c connector) Driver() driver.Driver { return c.from.driver }

// works are what an application does.
var works = []struct {
	name string
	do   func(context.Context, *sql.DB, *sql.Stmt) error
}{
	{"exec", func(ctx context.Context, db *sql.DB, _ *sql.Stmt) error {
		_, err := db.ExecContext(ctx, "UPDATE bench SET n = n WHERE id = 1")
		return err
	}},
	{"row", func(ctx context.Context, db *sql.DB, _ *sql.Stmt) error {
		var n int64
		return db.QueryRowContext(ctx, "SELECT n FROM bench WHERE id = 1").Scan(&n)
	}},
	{"rows", func(ctx context.Context, db *sql.DB, _ *sql.Stmt) error {
		rows, err := db.QueryContext(ctx, "SELECT n FROM bench")
		if err != nil {
			return err
		}
		defer rows.Close() //nolint:errcheck // rows.Err tells
		var n int64
		for rows.Next() {
			if err := rows.Scan(&n); err != nil {
				return err
			}
		}
		return rows.Err()
	}},
	{"tx", func(ctx context.Context, db *sql.DB, _ *sql.Stmt) error {
		tx, err := db.BeginTx(ctx, nil)
		if err != nil {
			return err
		}
		defer tx.Rollback() //nolint:errcheck // it fails after a commit, as it should
		for range 3 {
			if _, err := tx.ExecContext(ctx, "UPDATE bench SET n = n WHERE id = 1"); err != nil {
				return err
			}
		}
		return tx.Commit()
	}},
	{"prepared", func(ctx context.Context, _ *sql.DB, st *sql.Stmt) error {
		var n int64
		return st.QueryRowContext(ctx, int64(1)).Scan(&n)
	}},
}

// tableRows is how many rows the table has.
const tableRows = 100

// fill makes the table.
func fill(b *testing.B, db *sql.DB) {
	b.Helper()
	ctx := context.Background()
	for _, query := range []string{"DROP TABLE IF EXISTS bench", "CREATE TABLE bench (id INTEGER PRIMARY KEY, n INTEGER)"} {
		_, err := db.ExecContext(ctx, query)
		require.NoError(b, err)
	}
	for id := range tableRows {
		_, err := db.ExecContext(ctx, fmt.Sprintf("INSERT INTO bench VALUES (%d, %d)", id+1, id))
		require.NoError(b, err)
	}
}

func BenchmarkOverhead(b *testing.B) {
	for _, s := range sources() {
		for _, telemetry := range telemetries {
			for _, work := range works {
				for _, parallel := range []bool{false, true} {
					if parallel && (s.name != "nothing" || telemetry.name == "unsampled") {
						continue // what wrappers cost each other shows where drivers cost nothing
					}
					for _, c := range contestants {
						name := fmt.Sprintf("driver=%s/telemetry=%s/parallel=%v/work=%s/wrapper=%s", s.name, telemetry.name, parallel, work.name, c.name)
						b.Run(name, func(b *testing.B) { measure(b, s, c, telemetry.make(), work.do, parallel) })
					}
				}
			}
		}
	}
}

func measure(b *testing.B, s source, c contestant, p providers, do func(context.Context, *sql.DB, *sql.Stmt) error, parallel bool) {
	db, err := c.open(s, p)
	require.NoError(b, err)
	defer db.Close() //nolint:errcheck // nothing to lose
	limit := 16
	if s.name == "sqlite" {
		limit = 1 // each connection to it in memory is a database of its own
	}
	db.SetMaxOpenConns(limit)
	db.SetMaxIdleConns(limit)
	fill(b, db)
	st, err := db.Prepare("SELECT n FROM bench WHERE id = ?")
	require.NoError(b, err)
	defer st.Close() //nolint:errcheck // nothing to lose
	ctx := trace.ContextWithSpanContext(context.Background(), trace.NewSpanContext(trace.SpanContextConfig{
		TraceID: trace.TraceID{1}, SpanID: trace.SpanID{1}, TraceFlags: trace.FlagsSampled,
	}))
	b.ReportAllocs()
	if !parallel {
		for b.Loop() {
			if err := do(ctx, db, st); err != nil {
				b.Fatal(err)
			}
		}
		return
	}
	b.RunParallel(func(pb *testing.PB) {
		for pb.Next() {
			if err := do(ctx, db, st); err != nil {
				b.Error(err)
				return
			}
		}
	})
}
