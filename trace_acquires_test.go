package sqllease

import (
	"context"
	"database/sql/driver"
	"errors"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"go.opentelemetry.io/otel/codes"
	"go.opentelemetry.io/otel/trace"
)

// The spans of acquires.

func TestAnAcquireThatDialsHasASpanAndTheNextHasNone(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := &telemetryFake{on: slow("connect", 3*time.Second)}
		p := newTelemetryPool(t, f, Config{})
		start := time.Now()
		exec(t, underParent(t), p.db, "UPDATE stock SET n = 7")
		spans := p.take()
		require.Equal(t, []string{"pool.acquire", "UPDATE stock"}, spanNames(spans))
		s := spans[0]
		assert.Equal(t, trace.SpanKindInternal, s.SpanKind())
		assert.Equal(t, telemetryParent.SpanID(), s.Parent().SpanID())
		assert.Equal(t, start, s.StartTime())
		assert.Equal(t, 3*time.Second, s.EndTime().Sub(s.StartTime()))
		assert.Equal(t, codes.Unset, s.Status().Code)
		assert.Equal(t, map[string]any{
			"db.client.connection.pool.name": "orders",
			"sqllease.acquire.queue":         0.0,
			"sqllease.acquire.dial":          3.0,
			"sqllease.acquire.reset":         0.0,
		}, spanAttributes(s))

		exec(t, underParent(t), p.db, "UPDATE stock SET n = 8")
		assert.Equal(t, []string{"UPDATE stock"}, spanNames(p.take()), "an acquire that took a free session needs no span")
	})
}

func TestTheDriverDialsUnderTheAcquireSpan(t *testing.T) {
	var dialed trace.SpanContext
	f := &telemetryFake{on: func(ctx context.Context, call, _ string) error {
		if call == "connect" {
			dialed = trace.SpanContextFromContext(ctx)
		}
		return nil
	}}
	p := newTelemetryPool(t, f, Config{})
	exec(t, underParent(t), p.db, "DO 1")
	spans := p.takeAll()
	require.Equal(t, []string{"pool.dial", "pool.acquire", "DO"}, spanNames(spans))
	assert.Equal(t, spans[0].SpanContext().SpanID(), dialed.SpanID(), "what a driver's dialler emits is under its dial")
	assert.Equal(t, spans[1].SpanContext().SpanID(), spans[0].Parent().SpanID())
}

func TestAnAcquireThatQueuedTellsItsParts(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := &telemetryFake{on: slow("reset", time.Second)}
		p := newTelemetryPool(t, f, Config{MaxOpen: 1})
		holder := takeElsewhere(t, p.db)
		p.take()
		go func() {
			elapse(2 * time.Second)
			assert.NoError(t, holder.Close())
		}()
		exec(t, underParent(t), p.db, "DO 1")
		spans := p.take()
		require.Equal(t, []string{"pool.acquire", "DO"}, spanNames(spans))
		got := spanAttributes(spans[0])
		assert.Equal(t, 2.0, got["sqllease.acquire.queue"])
		assert.Equal(t, 0.0, got["sqllease.acquire.dial"])
		assert.Equal(t, 1.0, got["sqllease.acquire.reset"])
		assert.Equal(t, 3*time.Second, spans[0].EndTime().Sub(spans[0].StartTime()))
		assert.Equal(t, spans[0].EndTime(), spans[1].StartTime(), "the query begins where the acquire ends")
	})
}

func TestAnAcquireThatFailsHasASpanWithTheError(t *testing.T) {
	for name, test := range map[string]struct {
		cfg      Config
		cancel   time.Duration
		want     string
		status   codes.Code
		why      string
		timeouts int64
	}{
		"AcquireTimeout":       {Config{MaxOpen: 1, AcquireTimeout: time.Second, StandstillThreshold: -1}, time.Hour, "context.DeadlineExceeded", codes.Error, "acquire_timeout", 1},
		"the caller's context": {Config{MaxOpen: 1, StandstillThreshold: -1}, time.Second, "context.Canceled", codes.Unset, "context.Canceled", 0},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				p := newTelemetryPool(t, &telemetryFake{}, test.cfg)
				holder := takeElsewhere(t, p.db) // else it would be a nested acquire, which has a span of its own
				p.take()
				ctx, cancel := context.WithCancel(underParent(t))
				defer time.AfterFunc(test.cancel, cancel).Stop()
				_, err := p.db.ExecContext(ctx, "DO 1")
				var failed *AcquireError
				require.ErrorAs(t, err, &failed)
				spans := p.take()
				require.Equal(t, []string{"pool.acquire"}, spanNames(spans))
				assert.Equal(t, test.status, spans[0].Status().Code, "what a caller cancels has not failed")
				assert.Equal(t, test.want, spanAttributes(spans[0])["error.type"])
				assert.Equal(t, 1.0, spanAttributes(spans[0])["sqllease.acquire.queue"])
				assert.Equal(t, test.timeouts, p.sum(t, "db.client.connection.timeouts"))
				assert.Equal(t, uint64(2), p.total(t, "db.client.connection.wait_time"), "the holder's, and the one that failed")
				assert.Equal(t, []string{test.why}, p.values(t, "db.client.connection.wait_time", "error.type"), "told apart")
				assert.Equal(t, uint64(1), p.total(t, "sqllease.acquire.part"), "the wait in vain")
				require.NoError(t, holder.Close())
			})
		})
	}
}

func TestADialThatFailsHasASpanWithTheError(t *testing.T) {
	refusal := errors.New("no such host: db.internal")
	p := newTelemetryPool(t, &telemetryFake{on: failing("connect", refusal)}, Config{})
	_, err := p.db.ExecContext(underParent(t), "DO 1")
	require.Same(t, refusal, err)
	spans := p.take()
	require.Equal(t, []string{"pool.acquire"}, spanNames(spans))
	assert.Equal(t, "*errors.errorString", spanAttributes(spans[0])["error.type"])
}

func TestTheTimeOfARefusedCheckoutIsNotLost(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := &telemetryFake{}
		p := newTelemetryPool(t, f, Config{})
		exec(t, t.Context(), p.db, "DO 1")
		p.take()
		f.on = func(_ context.Context, call, _ string) error {
			if call == "reset" {
				elapse(4 * time.Second)
				return driver.ErrBadConn
			}
			return nil
		}
		exec(t, underParent(t), p.db, "DO 2")
		spans := p.take()
		require.Equal(t, []string{"pool.acquire", "pool.acquire", "DO"}, spanNames(spans))
		assert.Equal(t, 4.0, spanAttributes(spans[0])["sqllease.acquire.reset"])
		assert.Equal(t, "driver.ErrBadConn", spanAttributes(spans[0])["error.type"])
		assert.Equal(t, codes.Unset, spans[1].Status().Code)
		assert.Equal(t, uint64(2), p.total(t, "db.client.connection.wait_time"), "a refused checkout is no acquire")
	})
}

func TestThePartsOfAnAcquireAreSpansOfTheirOwn(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := &telemetryFake{on: slow("reset", 10*time.Millisecond)}
		p := newTelemetryPool(t, f, Config{MaxOpen: 1})
		conn := takeElsewhere(t, p.db)
		p.take()
		start := time.Now()
		time.AfterFunc(time.Second, func() { assert.NoError(t, conn.Close()) })
		exec(t, underParent(t), p.db, "DO 1")
		spans := p.takeAll()
		require.Equal(t, []string{"pool.queue", "pool.reset", "pool.acquire", "DO"}, spanNames(spans))
		queue, reset, acquire := spans[0], spans[1], spans[2]
		for _, part := range spans[:2] {
			assert.Equal(t, acquire.SpanContext().SpanID(), part.Parent().SpanID())
		}
		assert.Equal(t, []time.Time{start, start.Add(time.Second)}, []time.Time{queue.StartTime(), queue.EndTime()})
		assert.Equal(t, []time.Time{start.Add(time.Second), start.Add(time.Second + 10*time.Millisecond)}, []time.Time{reset.StartTime(), reset.EndTime()})
	})
}
