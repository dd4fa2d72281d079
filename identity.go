package sqllease

import (
	"slices"
	"sync"
	"sync/atomic"

	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/metric"
	"go.opentelemetry.io/otel/trace"

	"github.com/sqllease/sqllease/internal/gate"
)

// identity is what telemetry says of a pool, and all options with that in them, made once.
// What a server is may be known only once it was asked, so that a connector may get another.
type identity struct {
	system string // the conventions' db.system.name; empty: not known
	begun  sync.Once
	attrs  []attribute.KeyValue    // of every span, and of the metrics of operations
	client []trace.SpanStartOption // of a call to the server: these, and its kind

	internal []trace.SpanStartOption // likewise, of what is not one

	pool      measured        // the pool's own
	lanes     []laned         // by lane
	calls     [calls]measured // of calls that succeed and have no statement
	unreached *labels         // of dials that failed
	places    *labels         // of leases, by what took them

	used, idle, dialing metric.MeasurementOption // of sessions
	uses                [4]metric.MeasurementOption
}

// laned is what is told of the callers of one lane: of all, where Config.Lanes has none.
type laned struct {
	whole              measured                 // what has no more attributes
	queue, dial, reset measured                 // of parts of acquires
	failed             *labels                  // of acquires that failed
	used               metric.MeasurementOption // of sessions
	internal           []trace.SpanStartOption  // of acquires
}

// newLaned is that of a lane; of one without a name, that of all callers.
func newLaned(attrs, whole []attribute.KeyValue, name string) laned {
	if name != "" {
		attrs, whole = append(slices.Clip(attrs), keyLane.String(name)), append(slices.Clip(whole), keyLane.String(name))
	}
	return laned{
		whole:    with(attrs),
		queue:    with(attrs, keyPart.String("queue")),
		dial:     with(attrs, keyPart.String("dial")),
		reset:    with(attrs, keyPart.String("reset")),
		failed:   newLabels(attrs, keyErrorType),
		used:     option(attrs, keyState.String("used")),
		internal: optionsOf(whole, trace.SpanKindInternal),
	}
}

// present is the one that a connector has at the moment.
type present = atomic.Pointer[identity]

// newIdentity makes that of a pool, whose server is of that system.
func newIdentity(cfg *settings, system string) *identity {
	attrs := poolAttributes(cfg, system)
	whole := slices.Clip(append(slices.Clip(attrs), endpointAttributes(cfg)...))
	id := &identity{
		system:    system,
		attrs:     whole,
		client:    optionsOf(whole, trace.SpanKindClient),
		internal:  optionsOf(whole, trace.SpanKindInternal),
		pool:      with(attrs),
		unreached: newLabels(attrs, keyErrorType),
		places:    newLabels(attrs, keyPlace),
		used:      option(attrs, keyState.String("used")),
		idle:      option(attrs, keyState.String("idle")),
		dialing:   option(attrs, keyState.String("dialing")),
	}
	for i, use := range []string{"busy", "open_rows", "in_tx", "idle"} {
		id.uses[i] = option(attrs, keyUse.String(use))
	}
	for i := range cfg.lanes.names {
		id.lanes = append(id.lanes, newLaned(attrs, whole, cfg.laneName(gate.LaneID(i))))
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
