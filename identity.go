package sqllease

import (
	"slices"
	"sync"
	"sync/atomic"

	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/metric"
	"go.opentelemetry.io/otel/trace"
)

// identity is what telemetry says of a pool, and all options with that in them, made once.
// What a server is may be known only once it was asked, so that a connector may get another.
type identity struct {
	system string // the conventions' db.system.name; empty: not known
	begun  sync.Once
	attrs  []attribute.KeyValue    // of every span, and of the metrics of operations
	client []trace.SpanStartOption // of a call to the server: these, and its kind

	internal []trace.SpanStartOption // likewise, of what is not one

	pool               measured        // the pool's own
	queue, dial, reset measured        // of parts of acquires
	calls              [calls]measured // of calls that succeed and have no statement
	refused, unreached *labels         // of acquires that failed, and of dials
	places             *labels         // of leases, by what took them

	used, idle, dialing metric.MeasurementOption // of sessions
	uses                [4]metric.MeasurementOption
}

// present is the one that a connector has at the moment.
type present = atomic.Pointer[identity]

// newIdentity makes that of a pool, whose server is of that system.
func newIdentity(cfg *settings, system string) *identity {
	attrs := poolAttributes(cfg, system)
	whole := slices.Clip(append(slices.Clip(attrs), endpointAttributes(cfg)...))
	id := &identity{
		system:   system,
		attrs:    whole,
		client:   optionsOf(whole, trace.SpanKindClient),
		internal: optionsOf(whole, trace.SpanKindInternal),
		pool:     with(attrs),
		queue:    with(attrs, keyPart.String("queue")),
		dial:     with(attrs, keyPart.String("dial")),
		reset:    with(attrs, keyPart.String("reset")),
		refused:  newLabels(attrs, keyErrorType), unreached: newLabels(attrs, keyErrorType),
		places:  newLabels(attrs, keyPlace),
		used:    option(attrs, keyState.String("used")),
		idle:    option(attrs, keyState.String("idle")),
		dialing: option(attrs, keyState.String("dialing")),
	}
	for i, use := range []string{"busy", "open_rows", "in_tx", "idle"} {
		id.uses[i] = option(attrs, keyUse.String(use))
	}
	for c := range calls {
		id.calls[c] = id.of(c.String())
	}
	return id
}

// of makes the options of the metrics of an operation, which are shared by all calls that
// succeed.
func (id *identity) of(operation string) measured {
	return with(id.attrs, keyOperation.String(operation))
}

// optionsOf are options that many spans share, so that an unsampled one costs
// no allocation of ours. To append to them makes a copy.
func optionsOf(attrs []attribute.KeyValue, kind trace.SpanKind) []trace.SpanStartOption {
	return slices.Clip([]trace.SpanStartOption{trace.WithAttributes(attrs...), trace.WithSpanKind(kind)})
}
