package sqllease

import (
	"context"
	"database/sql/driver"
	"log/slog"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	sdkmetric "go.opentelemetry.io/otel/sdk/metric"
	"go.opentelemetry.io/otel/sdk/metric/metricdata"
	sdktrace "go.opentelemetry.io/otel/sdk/trace"
)

// What is time of a lease, and of which call.

// singleExportedExporter is one that is called as a span ends, and takes its time.
type singleExportedExporter struct{ takes time.Duration }

func (*singleExportedExporter) OnStart(context.Context, sdktrace.ReadWriteSpan) {}
func (e *singleExportedExporter) OnEnd(sdktrace.ReadOnlySpan)                   { <-time.After(e.takes) }
func (*singleExportedExporter) Shutdown(context.Context) error                  { return nil }
func (*singleExportedExporter) ForceFlush(context.Context) error                { return nil }

type singleExportedFake struct{ leakFake }

func (f *singleExportedFake) Connect(context.Context) (driver.Conn, error) {
	return singleExportedConn{&leakFakeConn{&f.leakFake}}, nil
}

type singleExportedConn struct{ c *leakFakeConn }

func (c singleExportedConn) Close() error                          { return c.c.Close() }
func (c singleExportedConn) Begin() (driver.Tx, error)             { return c.c.Begin() }
func (c singleExportedConn) Prepare(q string) (driver.Stmt, error) { return c.c.Prepare(q) }

// What a span's end takes is no time of the next call, but one of the lease.
func TestTheTimeOfASpansEndIsNoTimeOfTheNextCall(t *testing.T) {
	for name, scene := range map[string]struct {
		direct  bool // the driver has direct calls
		query   bool
		useTime float64
	}{
		"prepare and exec": {useTime: 20},
		"exec":             {direct: true, useTime: 10},
		"query":            {direct: true, query: true, useTime: 10},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				reader := sdkmetric.NewManualReader()
				e := &singleExportedExporter{}
				var f driver.Connector = &singleExportedFake{leakFake{rows: [][]driver.Value{{int64(1)}}}}
				if scene.direct {
					f = &leakFake{rows: [][]driver.Value{{int64(1)}}}
				}
				db, err := OpenDB(f, Config{
					Logger: slog.New(slog.DiscardHandler), RootSpans: true,
					MeterProvider:  sdkmetric.NewMeterProvider(sdkmetric.WithReader(reader)),
					TracerProvider: sdktrace.NewTracerProvider(sdktrace.WithSpanProcessor(e)),
				})
				require.NoError(t, err)
				use := func() {
					if scene.query {
						var n int
						require.NoError(t, db.QueryRowContext(context.Background(), "SELECT 1").Scan(&n))
						return
					}
					_, err := db.ExecContext(context.Background(), "UPDATE t SET a = 1")
					require.NoError(t, err)
				}
				use()
				use()
				use()
				e.takes = 10 * time.Second
				use()
				e.takes = 0
				var all metricdata.ResourceMetrics
				require.NoError(t, reader.Collect(t.Context(), &all))
				sums := map[string]float64{}
				for _, s := range all.ScopeMetrics {
					for _, m := range s.Metrics {
						data, ok := m.Data.(metricdata.Histogram[float64])
						if !ok {
							continue
						}
						for _, p := range data.DataPoints {
							sums[m.Name] += p.Sum
						}
					}
				}
				assert.Zero(t, sums["db.client.operation.duration"], "seconds in the driver's calls")
				assert.Equal(t, scene.useTime, sums["db.client.connection.use_time"], "seconds on lease")
				require.NoError(t, db.Close())
			})
		})
	}
}

// A lease lasts until its session is free: the driver's IsValid, and the closing of
// statements that are left over, are part of it, and somebody who came meanwhile has
// waited.
func TestWhatIsDoneAtTheReleaseIsPartOfTheLease(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var takes atomic.Int64
		f := &gateFake{t: t, script: func(_ context.Context, _ *gateFakeConn, call string) error {
			if call == "valid" {
				<-time.After(time.Duration(takes.Load()))
			}
			return nil
		}}
		db, c := f.open(Config{MaxOpen: 1})
		use := func() { _, err := db.ExecContext(context.Background(), "DO 1"); require.NoError(t, err) }
		use()
		use()
		use()
		takes.Store(int64(10 * time.Second))
		done := make(chan struct{})
		go func() { use(); close(done) }()
		<-time.After(time.Second)
		takes.Store(0)
		use() // it waits for 9 s
		<-done
		assert.Equal(t, 9*time.Second, c.Stats().QueueTime)
		f.end(db, c)
	})
}

// Each lease that ends is counted in db.client.connection.use_time, as each acquire is in
// db.client.connection.wait_time: one, too, in which the driver had nothing to do, since it
// has no Pinger.
func TestEachLeaseIsCountedInTheUseTime(t *testing.T) {
	reader := sdkmetric.NewManualReader()
	db, err := OpenDB(&plainFake{}, Config{
		Logger: slog.New(slog.DiscardHandler), MeterProvider: sdkmetric.NewMeterProvider(sdkmetric.WithReader(reader)),
	})
	require.NoError(t, err)
	for range 1000 {
		require.NoError(t, db.PingContext(t.Context()))
	}
	var all metricdata.ResourceMetrics
	require.NoError(t, reader.Collect(t.Context(), &all))
	counts := map[string]uint64{}
	for _, s := range all.ScopeMetrics {
		for _, m := range s.Metrics {
			if data, ok := m.Data.(metricdata.Histogram[float64]); ok {
				for _, p := range data.DataPoints {
					counts[m.Name] += p.Count
				}
			}
		}
	}
	assert.EqualValues(t, 1000, counts["db.client.connection.wait_time"])
	assert.EqualValues(t, 1000, counts["db.client.connection.use_time"])
	require.NoError(t, db.Close())
}
