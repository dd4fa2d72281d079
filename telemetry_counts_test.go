package sqllease

import (
	"context"
	"database/sql/driver"
	"fmt"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/codes"
	"go.opentelemetry.io/otel/metric"
	"go.opentelemetry.io/otel/trace"
)

// Database/sql does not make a call again whose context has ended.
func TestACallWhoseDeadlinePassedIsNotRetried(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := &telemetryFake{}
		p := newTelemetryPool(t, f, Config{MaxOpen: 1})
		exec(t, t.Context(), p.db, "DO 1")
		p.take()
		calls := 0
		f.on = func(ctx context.Context, call, _ string) error {
			if call == "exec" {
				calls++
				<-ctx.Done()
				return driver.ErrBadConn // as lib/pq does
			}
			return nil
		}
		ctx, cancel := context.WithTimeout(underParent(t), time.Second)
		defer cancel()
		_, err := p.db.ExecContext(ctx, "DO 1")
		require.ErrorIs(t, err, context.DeadlineExceeded)
		require.Equal(t, 1, calls)
		spans := p.take()
		require.Len(t, spans, 1)
		assert.Nil(t, spanAttributes(spans[0])["sqllease.retried"], "it was not")
		assert.Equal(t, codes.Error, spans[0].Status().Code, "a deadline that passed is a failure")
	})
}

// A transaction whose begin database/sql makes again has not failed.
func TestATransactionThatIsBegunAgainHasNotFailed(t *testing.T) {
	f := &telemetryFake{}
	p := newTelemetryPool(t, f, Config{MaxOpen: 1})
	exec(t, t.Context(), p.db, "DO 1")
	p.takeAll()
	once := true
	f.on = func(_ context.Context, call, _ string) error {
		if call == "begin" && once {
			once = false
			return driver.ErrBadConn
		}
		return nil
	}
	tx, err := p.db.BeginTx(underParent(t), nil)
	require.NoError(t, err)
	require.NoError(t, tx.Commit())
	for _, s := range p.takeAll() {
		assert.Equal(t, codes.Unset, s.Status().Code, s.Name())
	}
}

// A checkout whose reset failed is made again by database/sql, and the call succeeds.
func TestACheckoutThatIsMadeAgainHasNotFailed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := &telemetryFake{}
		p := newTelemetryPool(t, f, Config{MaxOpen: 1})
		exec(t, t.Context(), p.db, "DO 1")
		p.takeAll()
		once := true
		f.on = func(_ context.Context, call, _ string) error {
			if call == "reset" && once {
				once = false
				<-time.After(time.Second)
				return driver.ErrBadConn
			}
			return nil
		}
		exec(t, underParent(t), p.db, "DO 1")
		for _, s := range p.takeAll() {
			assert.Equal(t, codes.Unset, s.Status().Code, s.Name())
		}
	})
}

// A second report of a lease whose span is known needs no room.
func TestReportedSpansKeepTheOldest(t *testing.T) {
	var s reportedSpans
	span := func(n int) trace.SpanContext {
		return trace.NewSpanContext(trace.SpanContextConfig{TraceID: trace.TraceID{1}, SpanID: trace.SpanID{byte(n), byte(n >> 8), 1}})
	}
	for i := range mostReportedSpans {
		s.keep(&Leak{Lease: Lease{ID: uint64(i + 1)}}, span(i))
	}
	s.keep(&Leak{Lease: Lease{ID: 7}}, span(9999)) // proven now
	assert.True(t, s.of(&Leak{Lease: Lease{ID: 1}}).IsValid(), "the oldest is still out, and there is room")
}

// A folded late return is forgotten too.
func TestAFoldedLateReturnIsForgotten(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newTelemetryPool(t, &telemetryFake{}, Config{MaxOpen: 8, LeakThreshold: time.Second})
		for range 3 {
			conn, err := p.db.Conn(t.Context())
			require.NoError(t, err)
			elapse(90 * time.Second)
			require.NoError(t, conn.Close())
		}
		elapse(time.Second)
		p.c.reports.reported.mu.Lock()
		defer p.c.reports.reported.mu.Unlock()
		assert.Empty(t, p.c.reports.reported.known)
	})
}

func TestAFoldedLateReturnIsForgottenAtOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newTelemetryPool(t, &telemetryFake{}, Config{MaxOpen: 8, LeakThreshold: time.Second})
		take := func() func() {
			conn, err := p.db.Conn(t.Context())
			require.NoError(t, err)
			return func() { require.NoError(t, conn.Close()) }
		}
		first := take()
		elapse(61 * time.Second)
		first() // told
		second := take()
		elapse(2 * time.Second) // told as a leak
		second()                // folded
		elapse(time.Second)
		p.c.reports.reported.mu.Lock()
		defer p.c.reports.reported.mu.Unlock()
		assert.Empty(t, p.c.reports.reported.known)
	})
}

// Attributes of the application's that are sqllease's own.
func TestOwnAttributesDoNotReplaceOurs(t *testing.T) {
	p := newTelemetryPool(t, &telemetryFake{}, Config{MaxOpen: 1, MetricAttributes: func(context.Context) []attribute.KeyValue {
		return []attribute.KeyValue{attribute.String("db.client.connection.pool.name", "theirs"), attribute.String("db.operation.name", "x")}
	}})
	exec(t, t.Context(), p.db, "DO 1")
	assert.Equal(t, []string{"orders"}, p.values(t, "db.client.operation.duration", keyPool))
	assert.Equal(t, []string{"DO"}, p.values(t, "db.client.operation.duration", keyOperation))
}

// What the overflow costs.
func BenchmarkCombinations(b *testing.B) {
	o := ownAttributes{seen: &firsts[attribute.Distinct, metric.MeasurementOption]{}}
	n := 0
	o.of = func(context.Context) []attribute.KeyValue {
		n++
		return []attribute.KeyValue{attribute.Int("n", n)}
	}
	b.ReportAllocs()
	for b.Loop() {
		o.option(context.Background())
	}
}

// MinIdle, an error whose As panics: no room is lost for ever.
func TestDialsAheadThatFailOddlyCostNoRoom(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := &telemetryFake{on: failing("connect", oddAs{})}
		p := newTelemetryPool(t, f, Config{MaxOpen: 4, MinIdle: 2})
		elapse(5 * time.Minute)
		assert.Zero(t, p.c.Stats().Dialing)
		assert.Greater(t, p.c.Stats().Dials, uint64(5), "it goes on trying")
	})
}

// A crowd of contexts that end while queued, dialing and in resets: the counts add up.
func TestEachAcquireIsCountedOnce(t *testing.T) {
	for seed := range 6 {
		synctest.Test(t, func(t *testing.T) {
			f := &telemetryFake{}
			f.on = func(ctx context.Context, call, _ string) error {
				if call != "connect" && call != "reset" && call != "exec" {
					return nil
				}
				d := time.Duration((seed*7+len(call))%9) * time.Millisecond
				select {
				case <-time.After(d):
					return nil
				case <-ctx.Done():
					if call == "reset" {
						return driver.ErrBadConn
					}
					return ctx.Err()
				}
			}
			p := newTelemetryPool(t, f, Config{MaxOpen: 2})
			done := make(chan int)
			const callers, each = 16, 50
			failedAcquires := make(chan error, callers*each)
			for i := range callers {
				go func() {
					for j := range each {
						ctx, cancel := context.WithTimeout(t.Context(), time.Duration((i*j)%40+1)*time.Millisecond)
						conn, err := p.db.Conn(ctx)
						if err == nil {
							_ = conn.Close()
						} else {
							failedAcquires <- err
						}
						cancel()
					}
					done <- 1
				}()
			}
			for range callers {
				<-done
			}
			assert.Equal(t, uint64(callers*each), p.total(t, "db.client.connection.wait_time"), fmt.Sprint(seed))
			assert.Equal(t, int64(len(failedAcquires)), p.sum(t, "db.client.connection.timeouts"))
		})
	}
}
