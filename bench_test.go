package sqllease_test

import (
	"context"
	"database/sql"
	"runtime/metrics"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	sdktrace "go.opentelemetry.io/otel/sdk/trace"
	"go.opentelemetry.io/otel/trace"

	"github.com/sqllease/sqllease"
	"github.com/sqllease/sqllease/internal/nothing"
)

// pools are the pools that are compared, in one run.
func pools(b *testing.B, limit int) map[string]*sql.DB {
	bare := sql.OpenDB(nothing.Driver{})
	bare.SetMaxOpenConns(limit)
	bare.SetMaxIdleConns(limit)
	wrapped, err := sqllease.OpenDB(nothing.Driver{}, sqllease.Config{MaxOpen: limit})
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
			db, err := sqllease.OpenDB(nothing.Driver{}, sqllease.Config{MaxOpen: 10, TracerProvider: sdktrace.NewTracerProvider()})
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
