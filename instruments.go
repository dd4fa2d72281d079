package sqllease

import (
	"context"
	"time"

	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/metric"
)

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

// maker makes instruments. One that cannot be made is one that does nothing; the errors
// are kept for the log.
type maker struct {
	metric.Meter
	errs []error
}

func (m *maker) note(err error) {
	if err != nil {
		m.errs = append(m.errs, err)
	}
}

func (m *maker) histogram(i instrument) metric.Float64Histogram {
	h, err := m.Float64Histogram(i.name, metric.WithUnit(i.unit), metric.WithDescription(i.description), seconds)
	m.note(err)
	return h
}

func (m *maker) counter(i instrument) metric.Int64Counter {
	c, err := m.Int64Counter(i.name, metric.WithUnit(i.unit), metric.WithDescription(i.description))
	m.note(err)
	return c
}

func (m *maker) observed(i instrument) metric.Int64ObservableUpDownCounter {
	c, err := m.Int64ObservableUpDownCounter(i.name, metric.WithUnit(i.unit), metric.WithDescription(i.description))
	m.note(err)
	return c
}

func (m *maker) gauge(i instrument) metric.Float64ObservableGauge {
	g, err := m.Float64ObservableGauge(i.name, metric.WithUnit(i.unit), metric.WithDescription(i.description))
	m.note(err)
	return g
}

// newMetrics makes the instruments. The errors of those that could not be made are
// returned for the log.
func newMetrics(cfg *settings, id *present, stats func() Stats, unused *places) (m metrics, errs []error) {
	made := &maker{Meter: cfg.MeterProvider.Meter(scope, metric.WithInstrumentationVersion(version()), metric.WithSchemaURL(schema))}
	m.id, m.codes = id, &bounded{}
	if isDefault(cfg.MeterProvider) {
		m.silent = cfg.MeterProvider
	}
	m.panicked = once(cfg, "sqllease: the meter provider panicked: the measurement is missing. Its later panics are not logged")
	m.own = newOwnAttributes(cfg)
	m.waitTime, m.useTime, m.dialTime = made.histogram(metricWaitTime), made.histogram(metricUseTime), made.histogram(metricCreateTime)
	m.duration, m.parts = made.histogram(metricDuration), made.histogram(metricParts)
	var err error
	m.returned, err = made.Int64Histogram(metricReturned.name, metric.WithUnit(metricReturned.unit), metric.WithDescription(metricReturned.description), manyRows)
	made.note(err)
	m.leaks, m.slowCalls, m.closed = made.counter(metricLeaks), made.counter(metricSlowCalls), made.counter(metricClosed)
	m.timeouts, m.failures = made.counter(metricTimeouts), made.counter(metricFailures)
	m.nestings, m.standstills, m.locks = made.counter(metricNestings), made.counter(metricStandstills), made.counter(metricDeadlocks)
	m.leftovers = made.counter(metricLeftovers)
	m.observe(made, int64(cfg.MinIdle), stats, unused)
	return m, made.errs
}

// observe registers what is read from the gate when metrics are collected.
func (m *metrics) observe(made *maker, minIdle int64, stats func() Stats, unused *places) {
	sessions, limit, least, pending, leases := made.observed(metricCount), made.observed(metricMax), made.observed(metricIdleMin), made.observed(metricPending), made.observed(metricUses)
	callers := laneInstruments{sessions, pending, made.observed(metricLaneMax), made.observed(metricLaneReserve)}
	hold, wait := made.gauge(metricOldestHold), made.gauge(metricOldestWait)
	unusedTime, err := made.Float64ObservableCounter(metricUnused.name, metric.WithUnit(metricUnused.unit), metric.WithDescription(metricUnused.description))
	made.note(err)
	idleLimit, lifetime := made.gauge(metricIdleLimit), made.gauge(metricLifetime)
	if len(made.errs) > 0 {
		return
	}
	m.observed, err = made.RegisterCallback(func(_ context.Context, o metric.Observer) error {
		s, id := stats(), m.id.Load()
		set := id.pool.observed
		callers.observe(o, &s, id)
		o.ObserveInt64(sessions, int64(s.Idle), id.idle)
		o.ObserveInt64(sessions, int64(s.Dialing), id.dialing)
		o.ObserveInt64(leases, int64(s.Use.Busy), id.uses[0])
		o.ObserveInt64(leases, int64(s.Use.OpenRows), id.uses[1])
		o.ObserveInt64(leases, int64(s.Use.InTx), id.uses[2])
		o.ObserveInt64(leases, int64(s.Use.Idle), id.uses[3])
		if s.Limit > 0 {
			o.ObserveInt64(limit, int64(s.Limit), set)
		}
		o.ObserveInt64(least, minIdle, set)
		o.ObserveFloat64(hold, s.OldestHold.Seconds(), set)
		o.ObserveFloat64(wait, s.OldestWait.Seconds(), set)
		o.ObserveFloat64(idleLimit, s.IdleLimit.Seconds(), set)
		o.ObserveFloat64(lifetime, s.Lifetime.Seconds(), set)
		unused.observe(func(name string, took time.Duration) {
			o.ObserveFloat64(unusedTime, took.Seconds(), id.places.of(name).observed)
		})
		return nil
	}, unusedTime, sessions, leases, limit, least, pending, hold, wait, idleLimit, lifetime, callers.most, callers.kept)
	made.note(err)
}

// laneInstruments are those that tell lanes apart.
type laneInstruments struct {
	sessions, pending, most, kept metric.Int64ObservableUpDownCounter
}

// observe observes them; of a pool without lanes, what is told of all callers. What is in use
// for no caller is in no lane.
func (i *laneInstruments) observe(o metric.Observer, s *Stats, id *identity) {
	used := s.InUse
	for n := range s.Lanes {
		l, of := &s.Lanes[n], &id.lanes[n]
		used -= l.leases
		o.ObserveInt64(i.sessions, int64(l.leases), of.used)
		o.ObserveInt64(i.pending, int64(l.Waiting), of.whole.observed)
		if l.Max > 0 {
			o.ObserveInt64(i.most, int64(l.Max), of.whole.observed)
		}
		if l.Reserve > 0 {
			o.ObserveInt64(i.kept, int64(l.Reserve), of.whole.observed)
		}
	}
	o.ObserveInt64(i.sessions, int64(used), id.used)
	if len(s.Lanes) == 0 {
		o.ObserveInt64(i.pending, int64(s.Waiting), id.pool.observed)
	}
}

// option is the attributes of a measurement: some, and some more.
func option(attrs []attribute.KeyValue, more ...attribute.KeyValue) metric.MeasurementOption {
	return metric.WithAttributeSet(attribute.NewSet(append(attrs[:len(attrs):len(attrs)], more...)...))
}

// measured are the options of a measurement, made once.
type measured struct {
	record   []metric.RecordOption
	add      []metric.AddOption
	observed metric.MeasurementOption
}

func with(attrs []attribute.KeyValue, more ...attribute.KeyValue) measured {
	o := option(attrs, more...)
	return measured{[]metric.RecordOption{o}, []metric.AddOption{o}, o}
}

// labels are the options of a measurement with one attribute more, made once for each of
// its values, of which there are few.
type labels struct {
	attrs []attribute.KeyValue
	key   attribute.Key
	made  firsts[string, measured]
}

func newLabels(attrs []attribute.KeyValue, key attribute.Key) *labels {
	return &labels{attrs: attrs, key: key}
}

func (l *labels) of(value string) measured {
	m, known, full := l.made.get(value)
	if known {
		return m
	}
	if !full {
		m = with(l.attrs, l.key.String(value))
		if l.made.add(value, m) {
			return m
		}
	}
	return with(l.attrs, l.key.String(notToldApart))
}
