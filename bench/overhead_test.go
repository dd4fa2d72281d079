package bench

import (
	"context"
	"database/sql"
	"database/sql/driver"
	"fmt"
	"math/rand/v2"
	"os"
	"runtime"
	"slices"
	"testing"
	"time"

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
	"github.com/sqllease/sqllease/internal/nothing"
	"github.com/sqllease/sqllease/internal/works"
)

// This file is the same work through each wrapper, on three drivers, with
// telemetry of three kinds:
//
//	BenchmarkOverhead/<driver>/<telemetry>/<work>/<wrapper>

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
			LeakThreshold: -1, SlowCallThreshold: -1, SlowAcquireThreshold: -1, QueryText: sqllease.QueryTextOff,
		})
	}},
	{"sqllease-all", func(s source, p providers) (*sql.DB, error) {
		return sqllease.OpenDB(s.connector(), sqllease.Config{
			TracerProvider: p.traces, MeterProvider: p.metrics, Dialect: s.dialect,
			Comments: sqllease.CommentsAppend, FailDeadlockAfter: time.Second,
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
		{"nothing", nothing.Driver{}, "", ""},
		{"sqlite", &sqlite.Driver{}, "file::memory:", ""},
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

// measuredWorks are what is measured.
var measuredWorks = []struct {
	name string
	do   works.Work
}{{"exec", works.Exec}, {"row", works.Row}, {"rows", works.Rows}, {"tx", works.Tx}, {"prepared", works.Statement}}

// fill makes the table, which has as many rows as a result set of the driver that
// does nothing.
func fill(b *testing.B, db *sql.DB) {
	b.Helper()
	ctx := context.Background()
	for _, query := range []string{"DROP TABLE IF EXISTS t", "CREATE TABLE t (id INTEGER PRIMARY KEY, n INTEGER)"} {
		_, err := db.ExecContext(ctx, query)
		require.NoError(b, err)
	}
	for id := range nothing.Rows {
		_, err := db.ExecContext(ctx, fmt.Sprintf("INSERT INTO t VALUES (%d, %d)", id+1, id))
		require.NoError(b, err)
	}
}

// BenchmarkOverhead measures in slices, in which the wrappers take turns. The time
// of a call is what it took in the fastest slice: so what else the machine does, and
// its garbage collector, count for none of them. Run it with -benchmem -benchtime 1x,
// and -count for more samples.
func BenchmarkOverhead(b *testing.B) {
	for _, s := range sources() {
		for _, telemetry := range telemetries {
			if telemetry.name != "sampled" && s.name != "nothing" {
				continue // it costs less, which shows where the driver costs nothing
			}
			for _, work := range measuredWorks {
				name := fmt.Sprintf("driver=%s/telemetry=%s/work=%s", s.name, telemetry.name, work.name)
				b.Run(name, func(b *testing.B) { compare(b, s, telemetry.make, work.do) })
			}
		}
	}
}

// compare measures the contestants and reports each.
func compare(b *testing.B, s source, telemetry func() providers, do works.Work) {
	slice, turns := 100*time.Microsecond, 400
	if s.name == "mariadb" {
		slice, turns = 2*time.Millisecond, 100 // a call takes longer
	}
	all := make([]*measured, len(contestants))
	for i, c := range contestants {
		all[i] = ready(b, s, c, telemetry(), do, slice)
	}
	for range turns { // in another order each: what a slice takes depends on whose code ran before
		for _, i := range rand.Perm(len(all)) {
			all[i].times = append(all[i].times, all[i].slice(b))
		}
	}
	for i, c := range contestants {
		b.Run("wrapper="+c.name, func(b *testing.B) {
			b.ReportMetric(all[i].perCall(), "ns/op")
			b.ReportMetric(all[i].allocs, "allocs/op")
			b.ReportMetric(all[i].bytes, "B/op")
		})
	}
}

// measured is a contestant while it is measured.
type measured struct {
	do     func() error
	calls  int             // in a slice
	times  []time.Duration // of the slices
	allocs float64         // of a call
	bytes  float64         // of these
}

// perCall is the time of a call in nanoseconds.
func (m *measured) perCall() float64 {
	return float64(slices.Min(m.times).Nanoseconds()) / float64(m.calls)
}

// ready opens a contestant and finds out how many calls are a slice.
func ready(b *testing.B, s source, c contestant, p providers, do works.Work, slice time.Duration) *measured {
	db, err := c.open(s, p)
	require.NoError(b, err)
	b.Cleanup(func() { _ = db.Close() })
	limit := 16
	if s.name == "sqlite" {
		limit = 1 // each connection to it in memory is a database of its own
	}
	db.SetMaxOpenConns(limit)
	db.SetMaxIdleConns(limit)
	fill(b, db)
	st, err := db.Prepare(works.Prepared)
	require.NoError(b, err)
	b.Cleanup(func() { _ = st.Close() })
	ctx := trace.ContextWithSpanContext(context.Background(), trace.NewSpanContext(trace.SpanContextConfig{
		TraceID: trace.TraceID{1}, SpanID: trace.SpanID{1}, TraceFlags: trace.FlagsSampled,
	}))
	m := &measured{do: func() error { return do(ctx, db, st) }, calls: 1}
	m.count(b)
	for m.fastest(b) < slice && !b.Failed() {
		m.calls += (m.calls + 1) / 2
	}
	return m
}

// fastest is what the fastest of a few slices takes.
func (m *measured) fastest(b *testing.B) time.Duration {
	took := time.Hour
	for range 3 {
		took = min(took, m.slice(b))
	}
	return took
}

// count counts allocations. A few come from elsewhere, and are less than one for
// each call.
func (m *measured) count(b *testing.B) {
	const calls = 200
	var before, after runtime.MemStats
	require.NoError(b, m.do())
	runtime.ReadMemStats(&before)
	for range calls {
		require.NoError(b, m.do())
	}
	runtime.ReadMemStats(&after)
	m.allocs = float64((after.Mallocs - before.Mallocs) / calls)
	m.bytes = float64((after.TotalAlloc - before.TotalAlloc) / calls)
}

// slice is how long a slice takes.
func (m *measured) slice(b *testing.B) time.Duration {
	began := time.Now()
	for range m.calls {
		if err := m.do(); err != nil {
			b.Error(err)
			break
		}
	}
	return time.Since(began)
}
