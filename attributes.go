package sqllease

import (
	"context"

	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/metric"
)

// ownAttributes are the application's own, which Config.MetricAttributes tells of each
// call. Their combinations are counted.
type ownAttributes struct {
	of   func(context.Context) []attribute.KeyValue // nil: there are none
	seen *firsts[attribute.Distinct, metric.MeasurementOption]
}

// overflowed stands for those that are not told apart, as in OpenTelemetry's SDKs.
var overflowed = metric.WithAttributeSet(attribute.NewSet(attribute.Bool("otel.metric.overflow", true)))

func newOwnAttributes(cfg *settings) ownAttributes {
	return ownAttributes{
		of: guardedAttributes(cfg, cfg.MetricAttributes,
			"sqllease: Config.MetricAttributes panicked: the measurement went without its attributes. Its later panics are not logged"),
		seen: &firsts[attribute.Distinct, metric.MeasurementOption]{},
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
	attrs := o.of(ctx)
	if len(attrs) == 0 {
		return nil
	}
	set := attribute.NewSet(attrs...)
	made, known, full := o.seen.get(set.Equivalent())
	switch {
	case known:
		return made
	case full:
		return overflowed
	}
	// What is ours says what a measurement is of: the application's does not replace it.
	theirs, _ := set.Filter(func(a attribute.KeyValue) bool { return a.Valid() && !isReserved(a.Key) })
	made = metric.WithAttributeSet(theirs)
	if !o.seen.add(set.Equivalent(), made) {
		return overflowed
	}
	return made
}

// guardedAttributes is a function of the application's that may panic, and then has none;
// nil where there is none.
func guardedAttributes(cfg *settings, of func(context.Context) []attribute.KeyValue, text string) func(context.Context) []attribute.KeyValue {
	if of == nil {
		return nil
	}
	tell := once(cfg, text)
	return func(ctx context.Context) []attribute.KeyValue {
		defer tell.survive()
		return of(ctx)
	}
}
