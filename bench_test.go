package sqllease_test

import (
	"context"
	"database/sql"
	"database/sql/driver"
	"io"
	"runtime/metrics"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	sdktrace "go.opentelemetry.io/otel/sdk/trace"
	"go.opentelemetry.io/otel/trace"

	"github.com/sqllease/sqllease"
)

// idleDriver is a driver that does nothing, so that what is measured is what
// is around it.
type idleDriver struct{}

func (d idleDriver) Connect(context.Context) (driver.Conn, error) { return &idleConn{}, nil }
func (d idleDriver) Driver() driver.Driver                        { return d }
func (d idleDriver) Open(string) (driver.Conn, error)             { return &idleConn{}, nil }

type idleConn struct{ row idleRows }

func (c *idleConn) Prepare(string) (driver.Stmt, error)      { return nil, driver.ErrSkip }
func (c *idleConn) Close() error                             { return nil }
func (c *idleConn) Begin() (driver.Tx, error)                { return idleTx{}, nil }
func (c *idleConn) ResetSession(context.Context) error       { return nil }
func (c *idleConn) IsValid() bool                            { return true }
func (c *idleConn) CheckNamedValue(*driver.NamedValue) error { return nil }
func (c *idleConn) Ping(context.Context) error               { return nil }
func (c *idleConn) ExecContext(context.Context, string, []driver.NamedValue) (driver.Result, error) {
	return driver.RowsAffected(1), nil
}

func (c *idleConn) QueryContext(context.Context, string, []driver.NamedValue) (driver.Rows, error) {
	c.row.done = false
	return &c.row, nil
}

type idleTx struct{}

func (idleTx) Commit() error   { return nil }
func (idleTx) Rollback() error { return nil }

// idleRows is a result set of one row.
type idleRows struct{ done bool }

func (r *idleRows) Columns() []string { return []string{"n"} }
func (r *idleRows) Close() error      { return nil }
func (r *idleRows) Next(dest []driver.Value) error {
	if r.done {
		return io.EOF
	}
	r.done = true
	dest[0] = int64(1)
	return nil
}

// pools are the pools that are compared, in one run.
func pools(b *testing.B, limit int) map[string]*sql.DB {
	bare := sql.OpenDB(idleDriver{})
	bare.SetMaxOpenConns(limit)
	bare.SetMaxIdleConns(limit)
	wrapped, err := sqllease.OpenDB(idleDriver{}, sqllease.Config{MaxOpen: limit})
	require.NoError(b, err)
	b.Cleanup(func() {
		_ = bare.Close()
		_ = wrapped.Close()
	})
	return map[string]*sql.DB{"bare": bare, "sqllease": wrapped}
}

func BenchmarkExec(b *testing.B) {
	for name, db := range pools(b, 10) {
		b.Run(name, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				if _, err := db.ExecContext(b.Context(), "UPDATE t SET a = 1"); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

// BenchmarkTracedExec shows what a span costs, and one that is not sampled.
func BenchmarkTracedExec(b *testing.B) {
	sampled := trace.NewSpanContext(trace.SpanContextConfig{TraceID: trace.TraceID{1}, SpanID: trace.SpanID{1}, TraceFlags: trace.FlagsSampled})
	for name, parent := range map[string]trace.SpanContext{
		"no parent": {}, "unsampled": sampled.WithTraceFlags(0), "sampled": sampled,
	} {
		b.Run(name, func(b *testing.B) {
			db, err := sqllease.OpenDB(idleDriver{}, sqllease.Config{MaxOpen: 10, TracerProvider: sdktrace.NewTracerProvider()})
			require.NoError(b, err)
			defer db.Close() //nolint:errcheck // nothing to close
			ctx := trace.ContextWithSpanContext(context.Background(), parent)
			b.ReportAllocs()
			for b.Loop() {
				if _, err := db.ExecContext(ctx, "UPDATE t SET a = 1"); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

func BenchmarkQueryRow(b *testing.B) {
	for name, db := range pools(b, 10) {
		b.Run(name, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				var n int64
				if err := db.QueryRowContext(context.Background(), "SELECT n FROM t").Scan(&n); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

// BenchmarkContended runs as many goroutines as there are processors, -cpu says,
// and reports how long they wait for locks, database/sql's own included.
func BenchmarkContended(b *testing.B) {
	for name, db := range pools(b, 100) {
		b.Run(name, func(b *testing.B) {
			before := lockWait()
			b.RunParallel(func(pb *testing.PB) {
				for pb.Next() {
					if _, err := db.ExecContext(context.Background(), "UPDATE t SET a = 1"); err != nil {
						b.Error(err)
					}
				}
			})
			b.ReportMetric((lockWait()-before)*1e9/float64(b.N), "lock-wait-ns/op")
		})
	}
}

// lockWait is for how many seconds goroutines have waited for a lock so far.
func lockWait() float64 {
	sample := []metrics.Sample{{Name: "/sync/mutex/wait/total:seconds"}}
	metrics.Read(sample)
	return sample[0].Value.Float64()
}

// BenchmarkSaturated runs 200 goroutines on 10 connections of one millisecond
// each, and reports how long callers waited for theirs.
func BenchmarkSaturated(b *testing.B) {
	for name, db := range pools(b, 10) {
		b.Run(name, func(b *testing.B) {
			var mu sync.Mutex
			var waits []time.Duration
			work := make(chan struct{})
			var all sync.WaitGroup
			for range 200 {
				all.Go(func() {
					for range work {
						asked := time.Now()
						conn, err := db.Conn(context.Background())
						if err != nil {
							b.Error(err)
							continue
						}
						wait := time.Since(asked)
						<-time.After(time.Millisecond)
						_ = conn.Close()
						mu.Lock()
						waits = append(waits, wait)
						mu.Unlock()
					}
				})
			}
			for b.Loop() {
				work <- struct{}{}
			}
			close(work)
			all.Wait()
			slices.Sort(waits)
			b.ReportMetric(float64(waits[len(waits)*50/100].Microseconds())/1000, "p50-wait-ms")
			b.ReportMetric(float64(waits[len(waits)*99/100].Microseconds())/1000, "p99-wait-ms")
			b.ReportMetric(float64(waits[len(waits)-1].Microseconds())/1000, "max-wait-ms")
		})
	}
}
