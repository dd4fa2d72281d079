package sqllease

import (
	"context"
	"sync"

	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/metric"
)

// ownAttributes are the application's own, which Config.MetricAttributes tells of each
// call. Their combinations are counted: an application that makes up values must not make
// up series.
type ownAttributes struct {
	of       func(context.Context) []attribute.KeyValue // nil: there are none
	panicked survivor
	seen     *combinations
}

// mostCombinations is how many are told apart in one pool.
const mostCombinations = 128

// overflow stands for those that are not, as in OpenTelemetry's SDKs.
var overflow = attribute.Bool("otel.metric.overflow", true)

var overflowed = metric.WithAttributeSet(attribute.NewSet(overflow))

type combinations struct {
	mu    sync.RWMutex
	known map[attribute.Distinct]metric.MeasurementOption // guarded by mu
}

func newOwnAttributes(cfg *settings) ownAttributes {
	return ownAttributes{
		of:       cfg.MetricAttributes,
		panicked: once(cfg, "sqllease: Config.MetricAttributes panicked; metrics have none of its attributes where it does, and this is said once"),
		seen:     &combinations{known: map[attribute.Distinct]metric.MeasurementOption{}},
	}
}

// record adds them to those of a measurement.
func (o *ownAttributes) record(ctx context.Context, m measured) []metric.RecordOption {
	if o.of == nil {
		return m.record
	}
	own := o.option(ctx)
	if own == nil {
		return m.record
	}
	return []metric.RecordOption{m.record[0], own}
}

// option is the application's attributes of a call; nil: it has none.
func (o *ownAttributes) option(ctx context.Context) metric.MeasurementOption {
	attrs := o.ask(ctx)
	if len(attrs) == 0 {
		return nil
	}
	set := attribute.NewSet(attrs...)
	return o.seen.of(set)
}

func (o *ownAttributes) ask(ctx context.Context) []attribute.KeyValue {
	defer o.panicked.survive()
	return o.of(ctx)
}

func (c *combinations) of(set attribute.Set) metric.MeasurementOption {
	c.mu.RLock()
	known, full := c.known[set.Equivalent()], len(c.known) >= mostCombinations
	c.mu.RUnlock()
	switch {
	case known != nil:
		return known
	case full:
		return overflowed
	}
	// What is ours says what a measurement is of: the application's does not replace it.
	theirs, _ := set.Filter(func(a attribute.KeyValue) bool { return a.Valid() && !isReserved(a.Key) })
	option := metric.WithAttributeSet(theirs)
	c.mu.Lock()
	defer c.mu.Unlock()
	if len(c.known) >= mostCombinations {
		return overflowed
	}
	c.known[set.Equivalent()] = option
	return option
}

// ownSpanAttributes is Config.SpanAttributes, which may panic; nil where there is none.
func ownSpanAttributes(cfg *settings) func(context.Context) []attribute.KeyValue {
	if cfg.SpanAttributes == nil {
		return nil
	}
	tell := once(cfg, "sqllease: Config.SpanAttributes panicked; spans have none of its attributes where it does, and this is said once")
	return func(ctx context.Context) []attribute.KeyValue {
		defer tell.survive()
		return cfg.SpanAttributes(ctx)
	}
}
