package sqllease

import (
	"context"
	"database/sql/driver"
	"io/fs"
	"log/slog"
	"runtime"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/go-sql-driver/mysql"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/codes"
	sdkmetric "go.opentelemetry.io/otel/sdk/metric"
	sdktrace "go.opentelemetry.io/otel/sdk/trace"
	"go.opentelemetry.io/otel/trace"
	"go.opentelemetry.io/otel/trace/noop"

	"github.com/sqllease/sqllease/internal/drivers"
)

// oddAs is an error of a driver whose As takes for granted what it is asked for. database/sql
// itself asks errors.Is only.
type oddAs struct{}

func (oddAs) Error() string      { return "odd" }
func (oddAs) As(target any) bool { *target.(*oddAs) = oddAs{}; return true }

// An error whose As panics costs the room of the dial for ever.
func TestAnErrorWhoseAsPanicsCostsNoRoom(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := &telemetryFake{on: failing("connect", oddAs{})}
		p := newTelemetryPool(t, f, Config{MaxOpen: 1})
		assert.NotPanics(t, func() {
			_, err := p.db.ExecContext(t.Context(), "DO 1")
			assert.Equal(t, oddAs{}, err)
		})
		f.on = nil
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		assert.NoError(t, p.db.PingContext(ctx), "there is room")
		assert.Zero(t, p.c.Stats().Dialing)
	})
}

// nilInside is a nil pointer as an error, whose Unwrap looks into it.
func TestATypedNilErrorOfADialCostsNoRoom(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var none *fs.PathError
		f := &telemetryFake{on: failing("connect", none)}
		p := newTelemetryPool(t, f, Config{MaxOpen: 1})
		func() {
			defer func() { _ = recover() }() // as the bare database/sql
			_, _ = p.db.ExecContext(t.Context(), "DO 1")
		}()
		f.on = nil
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		assert.NoError(t, p.db.PingContext(ctx), "there is room")
		assert.Zero(t, p.c.Stats().Dialing)
	})
}

// Rows of a lease that was reclaimed write the illness of a session that another goroutine
// closes. Run with -race.
func TestRowsOfAReclaimedLeaseDoNotRaceWithItsCloser(t *testing.T) {
	f := &slowCloseFake{closes: make(chan struct{}), goOn: make(chan struct{})}
	p := newTelemetryPool(t, f, Config{MaxOpen: 1, LeakThreshold: 20 * time.Millisecond, ReclaimAfter: 40 * time.Millisecond})
	ctx, cancel := context.WithCancel(t.Context())
	rows, err := p.db.QueryContext(ctx, "SELECT 1")
	require.NoError(t, err)
	time.Sleep(500 * time.Millisecond) //nolint:forbidigo // reclaimed: its session is being closed. A channel, or a bubble, would order the two
	cancel()
	_ = rows.Close()
	close(f.goOn)
}

type slowCloseFake struct {
	telemetryFake
	closes, goOn chan struct{}
}

func (f *slowCloseFake) Connect(ctx context.Context) (driver.Conn, error) {
	conn, err := f.telemetryFake.Connect(ctx)
	if err != nil {
		return nil, err
	}
	return &slowCloseConn{conn.(*telemetryFakeConn), f}, nil
}

type slowCloseConn struct {
	*telemetryFakeConn
	f *slowCloseFake
}

func (c *slowCloseConn) Close() error {
	<-c.f.goOn
	return c.telemetryFakeConn.Close()
}

// Go-sql-driver closes the connection when the context of a call ends; database/sql then
// rolls back, which fails with ErrInvalidConn. The caller did it, not the network.
func TestACancelledTransactionIsNotCut(t *testing.T) {
	for name, end := range map[string]error{"mysql": mysql.ErrInvalidConn, "pq": driver.ErrBadConn} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				f := &dyingFake{}
				p := newTelemetryPool(t, f, Config{MaxOpen: 2})
				f.on = func(ctx context.Context, call, _ string) error {
					switch call {
					case "exec":
						<-ctx.Done()
						f.invalid = true
						return ctx.Err()
					case "rollback":
						return end
					}
					return nil
				}
				ctx, cancel := context.WithTimeout(t.Context(), time.Second)
				defer cancel()
				tx, err := p.db.BeginTx(ctx, nil)
				require.NoError(t, err)
				_, err = tx.ExecContext(ctx, "DO 1")
				require.Error(t, err)
				_ = tx.Rollback()
				synctest.Wait()
				assert.Equal(t, map[string]int64{"cancelled": 1}, p.deaths(t))
			})
		})
	}
}

// The same, where no call was in flight as the context ended.
func TestATransactionWhoseContextEndedIsNotCut(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := &dyingFake{}
		p := newTelemetryPool(t, f, Config{MaxOpen: 2})
		f.on = func(_ context.Context, call, _ string) error {
			if call == "rollback" {
				f.invalid = true
				return mysql.ErrInvalidConn
			}
			return nil
		}
		ctx, cancel := context.WithCancel(t.Context())
		tx, err := p.db.BeginTx(ctx, nil)
		require.NoError(t, err)
		cancel()
		synctest.Wait()
		_ = tx.Rollback()
		synctest.Wait()
		assert.Equal(t, map[string]int64{"cancelled": 1}, p.deaths(t))
	})
}

// The deadline passes while the session of a ticket is reset: pgx pings there.
func TestAnAcquireWhoseDeadlinePassesInAResetIsCounted(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := &telemetryFake{}
		p := newTelemetryPool(t, f, Config{MaxOpen: 1})
		exec(t, t.Context(), p.db, "DO 1")
		f.on = func(ctx context.Context, call, _ string) error {
			if call == "reset" {
				<-ctx.Done()
				return driver.ErrBadConn
			}
			return nil
		}
		ctx, cancel := context.WithTimeout(t.Context(), 3*time.Second)
		defer cancel()
		_, err := p.db.ExecContext(ctx, "DO 1")
		require.ErrorIs(t, err, context.DeadlineExceeded)
		assert.Equal(t, int64(1), p.sum(t, "db.client.connection.timeouts"))
		assert.Equal(t, uint64(2), p.total(t, "db.client.connection.wait_time"))
		assert.Equal(t, uint64(1), p.c.Stats().Timeouts)
	})
}

// A view that drops one of the metrics does not make others false.
func TestAViewThatDropsWaitTimeLeavesUseTime(t *testing.T) {
	reader := sdkmetric.NewManualReader()
	db, err := OpenDB(&telemetryFake{}, Config{MaxOpen: 1, MeterProvider: sdkmetric.NewMeterProvider(sdkmetric.WithReader(reader), sdkmetric.WithView(
		sdkmetric.NewView(sdkmetric.Instrument{Name: "db.client.connection.wait_time"}, sdkmetric.Stream{Aggregation: sdkmetric.AggregationDrop{}})))})
	require.NoError(t, err)
	defer func() { assert.NoError(t, db.Close()) }()
	for range 100 {
		exec(t, t.Context(), db, "DO 1")
	}
	got := recordedBy(t, reader)
	assert.EqualValues(t, 100, got["db.client.connection.use_time"].times)
	assert.EqualValues(t, 100, got["db.client.operation.duration"].times)
}

// AcquireTimeout that passes in a dial is a deadline, not the caller's cancelling.
func TestADialThatAcquireTimeoutEndsHasFailed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := &telemetryFake{on: slow("connect", time.Hour)}
		p := newTelemetryPool(t, f, Config{MaxOpen: 1, AcquireTimeout: time.Second})
		_, err := p.db.ExecContext(underParent(t), "DO 1")
		require.ErrorIs(t, err, context.DeadlineExceeded)
		for _, s := range p.takeAll() {
			assert.Equal(t, codes.Error, s.Status().Code, s.Name())
			assert.Equal(t, "context.DeadlineExceeded", spanAttributes(s)["error.type"], s.Name())
		}
	})
}

// A dial that asks another pool (for a password, say) and finds that one exhausted or closed.
func TestAnotherPoolsErrorIsNotThisPoolsTimeout(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		other := &AcquireError{Pool: "secrets", Err: ErrClosed}
		f := &telemetryFake{on: failing("connect", other)}
		p := newTelemetryPool(t, f, Config{MaxOpen: 1})
		_, err := p.db.ExecContext(t.Context(), "DO 1")
		require.ErrorIs(t, err, error(other))
		assert.Equal(t, []string{"other"}, p.values(t, "db.client.connection.wait_time", "error.type"))
		other.Err = context.DeadlineExceeded
		_, err = p.db.ExecContext(t.Context(), "DO 1")
		require.Error(t, err)
		assert.Zero(t, p.sum(t, "db.client.connection.timeouts"), "no deadline of this pool's callers passed")
		assert.NotContains(t, p.values(t, "sqllease.dial.failures", "error.type"), "acquire_timeout")
	})
}

// Application's code that ends its goroutine in an acquire.
func TestAttributesThatEndTheirGoroutineCostNoSession(t *testing.T) {
	for name, configure := range map[string]func(*Config, func()){
		"SpanAttributes": func(cfg *Config, end func()) {
			cfg.SpanAttributes = func(context.Context) []attribute.KeyValue { end(); return nil }
		},
		"MetricAttributes": func(cfg *Config, end func()) {
			cfg.MetricAttributes = func(context.Context) []attribute.KeyValue { end(); return nil }
		},
	} {
		for at := range 6 {
			t.Run(name, func(t *testing.T) {
				var left atomic.Int64
				left.Store(-1)
				cfg := Config{MaxOpen: 1, TracerProvider: sdktrace.NewTracerProvider(),
					MeterProvider: sdkmetric.NewMeterProvider(sdkmetric.WithReader(sdkmetric.NewManualReader()))}
				configure(&cfg, func() {
					if left.Add(-1) == 0 {
						runtime.Goexit()
					}
				})
				db, err := OpenDB(&telemetryFake{}, cfg)
				require.NoError(t, err)
				defer func() { assert.NoError(t, db.Close()) }()
				c, _ := ConnectorOf(db)
				left.Store(int64(at + 1))
				var gone sync.WaitGroup
				gone.Go(func() { _, _ = db.ExecContext(t.Context(), "DO 1") }) // database/sql itself loses a connection where a Ping ends its goroutine
				gone.Wait()
				left.Store(-1)
				s := c.Stats()
				assert.Zero(t, s.InUse+s.Dialing, "Goexit at call %d", at+1)
			})
		}
	}
}

// A span whose methods panic is ended.
func TestASpanWhoseSetAttributesPanicsIsEnded(t *testing.T) {
	ended := &atomic.Int64{}
	started := &atomic.Int64{}
	db, err := OpenDB(&telemetryFake{}, Config{MaxOpen: 1, Logger: slog.New(slog.DiscardHandler), TracerProvider: oddTracers{started: started, ended: ended}})
	require.NoError(t, err)
	_, _ = db.ExecContext(t.Context(), "DO 1")
	require.NoError(t, db.Close())
	assert.Equal(t, started.Load(), ended.Load())
}

type oddTracers struct {
	noop.TracerProvider
	started, ended *atomic.Int64
}

func (p oddTracers) Tracer(string, ...trace.TracerOption) trace.Tracer {
	return oddTracer{p: p}
}

type oddTracer struct {
	noop.Tracer
	p oddTracers
}

func (o oddTracer) Start(ctx context.Context, _ string, _ ...trace.SpanStartOption) (context.Context, trace.Span) {
	o.p.started.Add(1)
	return ctx, oddSpan{p: o.p}
}

type oddSpan struct {
	noop.Span
	p oddTracers
}

func (oddSpan) IsRecording() bool                   { return true }
func (oddSpan) SetAttributes(...attribute.KeyValue) { panic("odd") }
func (s oddSpan) End(...trace.SpanEndOption)        { s.p.ended.Add(1) }

// A missing file is not a server that refuses.
func TestAMissingFileIsNoRefusal(t *testing.T) {
	assert.NotEqual(t, drivers.Refused, drivers.Failure(&fs.PathError{Op: "open", Path: "/etc/ssl/root.crt", Err: syscall.ENOENT}))
}

// With comments, the first call of a pool has a span before it is known whether the driver
// declines it: the link to the dial goes with that span.
func TestTheLinkToTheAcquireSurvivesADecline(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := &telemetryFake{on: failing("exec", driver.ErrSkip)}
		spans := &telemetryPool{}
		_ = spans
		p := newOddPool(t, f, Config{MaxOpen: 1, Comments: CommentsAppend})
		exec(t, t.Context(), p.db, "UPDATE stock SET a = ?", 1)
		linked := 0
		for _, s := range p.takeAll() {
			if s.Name() != "pool.acquire" && s.Name() != "pool.dial" {
				linked += len(s.Links())
			}
		}
		assert.Equal(t, 1, linked)
	})
}
