package sqllease

import (
	"context"
	"slices"
	"sync"
	"time"

	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/metric"
	semconv "go.opentelemetry.io/otel/semconv/v1.39.0"
	"go.opentelemetry.io/otel/semconv/v1.39.0/dbconv"
	"go.opentelemetry.io/otel/trace"
	"go.opentelemetry.io/otel/trace/noop"

	"github.com/sqllease/sqllease/internal/gate"
)

// metrics are the instruments of one connector.
type metrics struct {
	takers             *sync.Pool // of *taker
	base               []attribute.KeyValue
	pool               []metric.RecordOption // the pool's attributes, made once
	poolAdd            []metric.AddOption
	waitTime           dbconv.ClientConnectionWaitTime
	useTime            dbconv.ClientConnectionUseTime
	dialTime           dbconv.ClientConnectionCreateTime
	timeouts           dbconv.ClientConnectionTimeouts
	duration           dbconv.ClientOperationDuration
	returned           dbconv.ClientResponseReturnedRows
	leaks              metric.Int64Counter
	closed             metric.Int64Counter
	parts              metric.Float64Histogram
	queue, dial, reset []metric.RecordOption // of parts
	nestings           metric.Int64Counter
	locks              metric.Int64Counter

	calls  [calls][]metric.RecordOption // of calls that succeed and have no statement
	errors *bounded                     // the values of error.type

	panicked survivor // of the application's views, exemplar filter or meter

	observed metric.Registration // nil if it could not be made
}

// The buckets of histograms, where no view says otherwise. Those of seconds have
// the bounds that the conventions advise for operations, some for waits that are
// shorter, and some in between: a percentile is read off within one bucket, and
// between 1 and 5 s it would be off by as much. The SDK's own are made for
// milliseconds.
var (
	seconds = metric.WithExplicitBucketBoundaries(
		0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30)
	manyRows = metric.WithExplicitBucketBoundaries(1, 2, 5, 10, 20, 50, 100, 200, 500, 1000, 2000, 5000, 10_000)
)

// newMetrics makes the instruments. An instrument that cannot be made is one
// that does nothing; the errors are returned together, for the log.
func newMetrics(cfg *settings, stats func() Stats) (m metrics, errs []error) {
	meter := cfg.MeterProvider.Meter(scope, metric.WithSchemaURL(semconv.SchemaURL))
	note := func(err error) {
		if err != nil {
			errs = append(errs, err)
		}
	}
	attrs := poolAttributes(cfg)
	set := metric.WithAttributeSet(attribute.NewSet(attrs...))
	m.base, m.errors = append(slices.Clone(attrs), endpointAttributes(cfg.endpoint)...), &bounded{}
	m.panicked = once(cfg, "sqllease: the meter provider panicked; nothing is counted where it does, and this is said once")
	m.pool = []metric.RecordOption{set}
	for c := range calls {
		m.calls[c] = m.recordOf(c.String())
	}
	m.poolAdd = []metric.AddOption{set}
	m.takers = &sync.Pool{}
	var err error
	m.waitTime, err = dbconv.NewClientConnectionWaitTime(meter, seconds)
	note(err)
	m.useTime, err = dbconv.NewClientConnectionUseTime(meter, seconds)
	note(err)
	m.dialTime, err = dbconv.NewClientConnectionCreateTime(meter, seconds)
	note(err)
	m.timeouts, err = dbconv.NewClientConnectionTimeouts(meter)
	note(err)
	m.duration, err = dbconv.NewClientOperationDuration(meter, seconds)
	note(err)
	m.returned, err = dbconv.NewClientResponseReturnedRows(meter, manyRows)
	note(err)
	m.parts, err = meter.Float64Histogram("sqllease.acquire.part", metric.WithUnit("s"), seconds,
		metric.WithDescription("The parts of acquires that took time: queue, dial, and resets of a millisecond and more."))
	note(err)
	part := func(name string) []metric.RecordOption {
		return []metric.RecordOption{withAttribute(attrs, keyPart.String(name))}
	}
	m.queue, m.dial, m.reset = part("queue"), part("dial"), part("reset")
	m.leaks, err = meter.Int64Counter("sqllease.leaks", metric.WithUnit("{lease}"),
		metric.WithDescription("Leases reported, once in each class: busy is a slow call and no leak; one idle in hand may be proven later."))
	note(err)
	m.closed, err = meter.Int64Counter("sqllease.session.closed", metric.WithUnit("{connection}"),
		metric.WithDescription("Sessions closed, by reason."))
	note(err)
	m.nestings, err = meter.Int64Counter("sqllease.nested_acquires", metric.WithUnit("{place}"),
		metric.WithDescription("Places in the code where a request that holds a lease waits for another."))
	note(err)
	m.locks, err = meter.Int64Counter("sqllease.deadlocks", metric.WithUnit("{deadlock}"),
		metric.WithDescription("Reports of a pool in which every lease is held by a goroutine that waits for another."))
	note(err)
	m.begin()
	note(m.observe(meter, int64(cfg.MinIdle), set, attrs, stats))
	return m, errs
}

// observe registers what is read from the gate when metrics are collected.
func (m *metrics) observe(meter metric.Meter, minIdle int64, set metric.MeasurementOption, attrs []attribute.KeyValue, stats func() Stats) error {
	var err error
	count := func(c convention) metric.Int64ObservableUpDownCounter {
		counter, counterErr := meter.Int64ObservableUpDownCounter(c.Name(), metric.WithUnit(c.Unit()), metric.WithDescription(c.Description()))
		if counterErr != nil {
			err = counterErr
		}
		return counter
	}
	sessions, limit := count(dbconv.ClientConnectionCount{}), count(dbconv.ClientConnectionMax{})
	least, pending := count(dbconv.ClientConnectionIdleMin{}), count(dbconv.ClientConnectionPendingRequests{})
	leases := count(leaseCount{})
	gauge := func(name, description string) metric.Float64ObservableGauge {
		g, gaugeErr := meter.Float64ObservableGauge(name, metric.WithUnit("s"), metric.WithDescription(description))
		if gaugeErr != nil {
			err = gaugeErr
		}
		return g
	}
	hold := gauge("sqllease.oldest_hold", "How long the oldest lease has been held.")
	wait := gauge("sqllease.oldest_wait", "How long the longest waiter has been in the queue.")
	idleLimit := gauge("sqllease.idle_limit", "The idle limit of the server, as last discovered.")
	lifetime := gauge("sqllease.lifetime", "The longest life of a session, chosen from the limits.")
	if err != nil {
		return err
	}
	with := func(attr attribute.KeyValue) metric.MeasurementOption { return withAttribute(attrs, attr) }
	state := func(s dbconv.ClientConnectionStateAttr) metric.MeasurementOption {
		return with(semconv.DBClientConnectionStateKey.String(string(s)))
	}
	used, idle := state(dbconv.ClientConnectionStateUsed), state(dbconv.ClientConnectionStateIdle)
	busy, rows, tx, hand := with(keyUse.String("busy")), with(keyUse.String("open_rows")), with(keyUse.String("in_tx")), with(keyUse.String("idle"))
	m.observed, err = meter.RegisterCallback(func(_ context.Context, o metric.Observer) error {
		s := stats()
		o.ObserveInt64(sessions, int64(s.InUse), used)
		o.ObserveInt64(sessions, int64(s.Idle), idle)
		o.ObserveInt64(leases, int64(s.Use.Busy), busy)
		o.ObserveInt64(leases, int64(s.Use.OpenRows), rows)
		o.ObserveInt64(leases, int64(s.Use.InTx), tx)
		o.ObserveInt64(leases, int64(s.Use.Idle), hand)
		if s.Limit > 0 {
			o.ObserveInt64(limit, int64(s.Limit), set)
		}
		o.ObserveInt64(least, minIdle, set)
		o.ObserveInt64(pending, int64(s.Waiting), set)
		o.ObserveFloat64(hold, s.OldestHold.Seconds(), set)
		o.ObserveFloat64(wait, s.OldestWait.Seconds(), set)
		o.ObserveFloat64(idleLimit, s.IdleLimit.Seconds(), set)
		o.ObserveFloat64(lifetime, s.Lifetime.Seconds(), set)
		return nil
	}, sessions, leases, limit, least, pending, hold, wait, idleLimit, lifetime)
	return err
}

// convention is an instrument as the conventions have it.
type convention interface {
	Name() string
	Unit() string
	Description() string
}

// leaseCount is one that they lack.
type leaseCount struct{}

// Name is the instrument's.
func (leaseCount) Name() string { return "sqllease.lease.count" }

// Unit is what it counts.
func (leaseCount) Unit() string { return "{lease}" }

// Description is what it says.
func (leaseCount) Description() string { return "Leases that are out, by what they are used for." }

// withAttribute is the option of a measurement with one attribute more.
func withAttribute(attrs []attribute.KeyValue, attr attribute.KeyValue) metric.MeasurementOption {
	return metric.WithAttributeSet(attribute.NewSet(append(attrs[:len(attrs):len(attrs)], attr)...))
}

// begin lets counters of what happens seldom begin at zero, so that their first
// event is seen as an increase.
func (m *metrics) begin() {
	defer m.panicked.survive()
	for class := range classes {
		m.countLeaks(class, 0)
	}
	for why := range gate.Reasons {
		m.countClosed(why, 0)
	}
	for _, counter := range []metric.Int64Counter{m.nestings, m.locks, m.timeouts.Inst()} {
		counter.Add(context.Background(), 0, m.poolAdd...)
	}
}

// close stops the observation.
func (m *metrics) close() {
	if m.observed != nil {
		_ = m.observed.Unregister()
	}
}

// counts tells whether anybody collects what is recorded of each lease, by one of the
// instruments: they have one provider.
func (m *metrics) counts() (does bool) {
	defer m.panicked.survive()
	return m.waitTime.Inst().Enabled(noExample)
}

// acquired records a successful acquire that took that long.
func (m *metrics) acquired(ctx context.Context, p parts, took time.Duration) {
	defer m.panicked.survive()
	if took < brief {
		ctx = noExample
	}
	if wait := m.waitTime.Inst(); wait.Enabled(ctx) {
		wait.Record(ctx, took.Seconds(), m.pool...)
	}
	if p.queue > 0 {
		m.parts.Record(ctx, p.queue.Seconds(), m.queue...)
	}
	if p.dial > 0 {
		m.parts.Record(ctx, p.dial.Seconds(), m.dial...)
	}
	if p.reset >= slowReset {
		m.parts.Record(ctx, p.reset.Seconds(), m.reset...)
	}
}

func (m *metrics) timedOut(ctx context.Context) {
	defer m.panicked.survive()
	m.timeouts.Inst().Add(ctx, 1, m.poolAdd...)
}

func (m *metrics) dialed(ctx context.Context, took time.Duration) {
	defer m.panicked.survive()
	m.dialTime.Inst().Record(ctx, took.Seconds(), m.pool...)
}

// held records a hold, as an example of which the trace that took it can stand.
func (m *metrics) held(span *trace.SpanContext, took time.Duration) {
	defer m.panicked.survive()
	use := m.useTime.Inst()
	if !use.Enabled(noExample) {
		return
	}
	if took < brief {
		use.Record(noExample, took.Seconds(), m.pool...)
		return
	}
	by, ok := m.takers.Get().(*taker)
	if !ok {
		by = &taker{}
	}
	by.span = *span
	use.Record(by.context(), took.Seconds(), m.pool...)
	m.takers.Put(by)
}

// noExample is the context of a measurement that is no example to look at: to
// keep one costs a third of what the measurement does.
var noExample = context.Background()

// taker stands for the span that took a lease, which may be over: its context
// can be used again, where one for each lease would cost two allocations.
type taker struct {
	noop.Span
	span trace.SpanContext
	ctx  context.Context // nil: not made yet
}

// SpanContext is that of the span.
func (t *taker) SpanContext() trace.SpanContext { return t.span }

func (t *taker) context() context.Context {
	if t.ctx == nil {
		t.ctx = trace.ContextWithSpan(context.Background(), t)
	}
	return t.ctx
}

func (m *metrics) leaked(class Class) { m.countLeaks(class, 1) }

func (m *metrics) countLeaks(class Class, n int64) {
	defer m.panicked.survive()
	m.leaks.Add(context.Background(), n, m.poolAdd[0], metric.WithAttributes(keyLeakClass.String(class.value())))
}

func (m *metrics) nested() {
	defer m.panicked.survive()
	m.nestings.Add(context.Background(), 1, m.poolAdd...)
}

func (m *metrics) deadlocked() {
	defer m.panicked.survive()
	m.locks.Add(context.Background(), 1, m.poolAdd...)
}

func (m *metrics) sessionClosed(why gate.Reason) { m.countClosed(why, 1) }

func (m *metrics) countClosed(why gate.Reason, n int64) {
	defer m.panicked.survive()
	m.closed.Add(context.Background(), n, m.poolAdd[0], metric.WithAttributes(keyReason.String(reasonNames[why])))
}

// recordOf makes the options of the metrics of an operation, which are shared by
// all calls that succeed.
func (m *metrics) recordOf(operation string) []metric.RecordOption {
	return []metric.RecordOption{withAttribute(m.base, semconv.DBOperationName(operation))}
}

// failed makes the options of the metrics of an operation that failed.
func (m *metrics) failed(operation string, err error) []metric.RecordOption {
	kind, code := errorType(err)
	attrs := append(slices.Clip(m.base), semconv.DBOperationName(operation), semconv.ErrorTypeKey.String(m.errors.of(kind)))
	if code != "" {
		attrs = append(attrs, semconv.DBResponseStatusCode(m.errors.of(code)))
	}
	return []metric.RecordOption{metric.WithAttributeSet(attribute.NewSet(attrs...))}
}

// reasonNames are why sessions are closed.
var reasonNames = [gate.Reasons]string{"expired", "bad", "dropped", "limit", "reclaimed", "shutdown"}
