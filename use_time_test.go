package sqllease

import (
	"context"
	"database/sql/driver"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	sdkmetric "go.opentelemetry.io/otel/sdk/metric"
	sdktrace "go.opentelemetry.io/otel/sdk/trace"
)

// What is time of a lease, and of which call.

// slowExporter is called as a span ends, and takes its time.
type slowExporter struct{ takes time.Duration }

func (*slowExporter) OnStart(context.Context, sdktrace.ReadWriteSpan) {}
func (e *slowExporter) OnEnd(sdktrace.ReadOnlySpan)                   { elapse(e.takes) }
func (*slowExporter) Shutdown(context.Context) error                  { return nil }
func (*slowExporter) ForceFlush(context.Context) error                { return nil }

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
				e := &slowExporter{}
				var f driver.Connector = &preparingFake{leakFake{rows: [][]driver.Value{{int64(1)}}}}
				if scene.direct {
					f = &leakFake{rows: [][]driver.Value{{int64(1)}}}
				}
				db, _ := openPool(t, f, Config{
					MeterProvider:  sdkmetric.NewMeterProvider(sdkmetric.WithReader(reader)),
					TracerProvider: sdktrace.NewTracerProvider(sdktrace.WithSpanProcessor(e)),
				})
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
				got := recordedBy(t, reader)
				assert.Zero(t, got["db.client.operation.duration"].seconds, "in the driver's calls")
				assert.Equal(t, scene.useTime, got["db.client.connection.use_time"].seconds, "on lease")
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
	db, _ := openPool(t, &plainFake{}, Config{MeterProvider: sdkmetric.NewMeterProvider(sdkmetric.WithReader(reader))})
	for range 1000 {
		require.NoError(t, db.PingContext(t.Context()))
	}
	got := recordedBy(t, reader)
	assert.EqualValues(t, 1000, got["db.client.connection.wait_time"].times)
	assert.EqualValues(t, 1000, got["db.client.connection.use_time"].times)
}
