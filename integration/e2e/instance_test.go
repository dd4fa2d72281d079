package e2e

import (
	"context"
	"database/sql"
	"errors"
	"log/slog"
	"net"
	"net/http"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/go-sql-driver/mysql"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promhttp"
	"github.com/stretchr/testify/require"
	otelprometheus "go.opentelemetry.io/otel/exporters/prometheus"
	"go.opentelemetry.io/otel/sdk/instrumentation"
	"go.opentelemetry.io/otel/sdk/metric"
	"go.opentelemetry.io/otel/sdk/resource"
	sdktrace "go.opentelemetry.io/otel/sdk/trace"
	semconv "go.opentelemetry.io/otel/semconv/v1.43.0"
	"go.opentelemetry.io/otel/trace"

	"github.com/sqllease/sqllease"
	"github.com/sqllease/sqllease/internal/mysqlscript"
)

// This file is one instance of a service: a pool of real sessions, and the
// endpoint that Prometheus scrapes.

// instance is a process of a service, as Prometheus sees it.
type instance struct {
	job, name string
	scrape    string // address
	server    *mysqlscript.Server
	dsn       string
	native    bool
	config    sqllease.Config

	failing atomic.Bool             // the next scrape fails
	process atomic.Pointer[process] // what a restart replaces
	callers sync.WaitGroup
}

// process is what is lost when the service restarts.
type process struct {
	db      *sql.DB
	tracer  trace.Tracer
	meters  *metric.MeterProvider
	metrics http.Handler
}

// launch starts an instance, which lasts until the test ends.
func launch(t *testing.T, i *instance, script mysqlscript.Script) {
	t.Helper()
	i.server = mysqlscript.Start(t, script)
	if i.dsn == "" {
		i.dsn = i.server.DSN()
	}
	i.restart(t)
	l, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	i.scrape = l.Addr().String()
	server := &http.Server{Handler: http.HandlerFunc(i.answer), ReadHeaderTimeout: 5 * time.Second}
	served := make(chan error, 1)
	go func() { served <- server.Serve(l) }()
	t.Cleanup(func() {
		_ = server.Close()
		require.ErrorIs(t, <-served, http.ErrServerClosed)
		_ = i.process.Load().db.Close()
	})
}

// answer is what a scrape gets.
func (i *instance) answer(w http.ResponseWriter, r *http.Request) {
	if i.failing.Swap(false) {
		http.Error(w, "not now", http.StatusServiceUnavailable)
		return
	}
	i.process.Load().metrics.ServeHTTP(w, r)
}

// restart replaces the process: its pool, its sessions and its counters.
func (i *instance) restart(t *testing.T) {
	t.Helper()
	registry := prometheus.NewRegistry()
	reader, err := otelprometheus.New(otelprometheus.WithRegisterer(registry))
	require.NoError(t, err)
	service := resource.NewWithAttributes(semconv.SchemaURL, semconv.ServiceName(i.job))
	options := []metric.Option{metric.WithResource(service), metric.WithReader(reader)}
	if i.native {
		options = append(options, metric.WithView(exponential))
	}
	p := &process{meters: metric.NewMeterProvider(options...)}
	p.metrics = promhttp.HandlerFor(registry, promhttp.HandlerOpts{EnableOpenMetrics: true})
	config := i.config
	config.Name, config.MeterProvider, config.Logger = "shop", p.meters, slog.New(slog.DiscardHandler)
	config.TracerProvider = sdktrace.NewTracerProvider()
	p.tracer = config.TracerProvider.Tracer("e2e")
	p.db, err = sqllease.Open("mysql", i.dsn, config)
	require.NoError(t, err)
	p.db.SetMaxIdleConns(64)
	if old := i.process.Swap(p); old != nil {
		_ = old.db.Close()
		require.NoError(t, old.meters.Shutdown(t.Context()))
	}
}

// exponential is the view that docs/telemetry.md shows.
var exponential = metric.NewView(
	metric.Instrument{Scope: instrumentation.Scope{Name: "github.com/sqllease/sqllease"}, Kind: metric.InstrumentKindHistogram},
	metric.Stream{Aggregation: metric.AggregationBase2ExponentialHistogram{MaxSize: 160, MaxScale: 20}},
)

// work is what a caller does. What fails is seen in the metrics.
type work func(context.Context, *sql.DB) error

// call lets n callers work, each with a pause between two calls, until ctx ends.
func (i *instance) call(ctx context.Context, n int, pause time.Duration, do work) {
	for range n {
		i.callers.Go(func() {
			for ctx.Err() == nil {
				p := i.process.Load()
				request, span := p.tracer.Start(ctx, "request")
				_ = do(request, p.db)
				span.End()
				wait(ctx, pause)
			}
		})
	}
}

func wait(ctx context.Context, d time.Duration) {
	select {
	case <-ctx.Done():
	case <-time.After(d):
	}
}

// execute is a call of a statement that the script has, or that it answers at once.
func execute(statement string) work {
	return func(ctx context.Context, db *sql.DB) error {
		_, err := db.ExecContext(ctx, statement)
		return err
	}
}

// inLane is work of a caller in a lane.
func inLane(name string, do work) work {
	return func(ctx context.Context, db *sql.DB) error { return do(sqllease.WithLane(ctx, name), db) }
}

// within is work with a deadline of its own.
func within(d time.Duration, do work) work {
	return func(ctx context.Context, db *sql.DB) error {
		ctx, cancel := context.WithTimeout(ctx, d)
		defer cancel()
		return do(ctx, db)
	}
}

// read reads all rows of a query.
func read(ctx context.Context, db *sql.DB) error {
	rows, err := db.QueryContext(ctx, "rows")
	if err != nil {
		return err
	}
	for rows.Next() {
	}
	return errors.Join(rows.Err(), rows.Close())
}

// leak takes a connection, and keeps it for good.
func leak(ctx context.Context, db *sql.DB) error {
	conn, err := db.Conn(context.WithoutCancel(ctx))
	if err == nil {
		leaked.Store(conn, nil)
	}
	return err
}

// leaked keeps what leaks from the garbage collector.
var leaked sync.Map

// drop reads a row, and forgets the rest: the garbage collector proves it.
func drop(ctx context.Context, db *sql.DB) error {
	rows, err := db.QueryContext(context.WithoutCancel(ctx), "rows")
	if err != nil {
		return err
	}
	rows.Next()
	return rows.Err()
}

// keep has a connection checked out for longer than it uses it.
func keep(ctx context.Context, db *sql.DB) error {
	conn, err := db.Conn(ctx)
	if err != nil {
		return err
	}
	defer func() { _ = conn.Close() }()
	_, err = conn.ExecContext(ctx, "quick")
	wait(ctx, 200*time.Millisecond)
	return err
}

// leave gives connections back with a transaction, a lock and a setting.
func leave(ctx context.Context, db *sql.DB) error {
	err := errors.Join(execute("BEGIN")(ctx, db), execute("SET time_zone = '+05:00'")(ctx, db))
	var got int
	return errors.Join(err, db.QueryRowContext(ctx, getLock).Scan(&got))
}

const getLock = "SELECT GET_LOCK('stock', 1)"

// nest takes a connection and, while it holds it, another.
func nest(ctx context.Context, db *sql.DB) error {
	conn, err := db.Conn(ctx)
	if err != nil {
		return err
	}
	defer func() { _ = conn.Close() }()
	_, err = conn.ExecContext(ctx, "outer")
	wait(ctx, 100*time.Millisecond)
	_, inner := db.ExecContext(ctx, "inner")
	return errors.Join(err, inner)
}

// hand holds a connection while another goroutine, for which it waits, asks for one.
func hand(ctx context.Context, db *sql.DB) error {
	conn, err := db.Conn(ctx)
	if err != nil {
		return err
	}
	defer func() { _ = conn.Close() }()
	wait(ctx, 100*time.Millisecond)
	inner := make(chan error)
	go func() { inner <- execute("inner")(ctx, db) }()
	return <-inner
}

// The driver logs what the scenes bring about.
func init() { _ = mysql.SetLogger(&mysql.NopLogger{}) }
