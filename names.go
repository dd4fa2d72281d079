package sqllease

import (
	"runtime/debug"
	"strings"
	"sync"

	"go.opentelemetry.io/otel/attribute"
)

// scope is the instrumentation scope of all telemetry.
const scope = "github.com/sqllease/sqllease"

// schema is the version of the semantic conventions that the names follow. They stand
// here, and not in a package of OpenTelemetry's, so that an application is not moved to
// its newest release for their sake; the newest is what they are tested against.
const schema = "https://opentelemetry.io/schemas/1.43.0"

// version is that of the scope: of the module, as the program was built with it; empty
// where that is not known.
var version = sync.OnceValue(func() string {
	built, ok := debug.ReadBuildInfo()
	if !ok {
		return ""
	}
	for _, module := range append(built.Deps, &built.Main) {
		if module.Path == scope {
			return module.Version
		}
	}
	return ""
})

// Attributes of the conventions.
const (
	keySystem     = attribute.Key("db.system.name")
	keyNamespace  = attribute.Key("db.namespace")
	keyAddress    = attribute.Key("server.address")
	keyPort       = attribute.Key("server.port")
	keyPool       = attribute.Key("db.client.connection.pool.name")
	keyState      = attribute.Key("db.client.connection.state")
	keyOperation  = attribute.Key("db.operation.name")
	keyCollection = attribute.Key("db.collection.name")
	keySummary    = attribute.Key("db.query.summary")
	keyText       = attribute.Key("db.query.text")
	keyProcedure  = attribute.Key("db.stored_procedure.name")
	keyRows       = attribute.Key("db.response.returned_rows")
	keyStatus     = attribute.Key("db.response.status_code")
	keyErrorType  = attribute.Key("error.type")
	keyException  = attribute.Key("exception.type")
	keyMessage    = attribute.Key("exception.message")
	keyFunction   = attribute.Key("code.function.name")
	keyFile       = attribute.Key("code.file.path")
	keyLine       = attribute.Key("code.line.number")

	eventException = "exception"
)

// Spans, events and attributes that no convention has.
const (
	spanAcquire  = "pool.acquire"
	spanDial     = "pool.dial"
	spanTx       = "transaction"
	spanLeak     = "sqllease.leak"
	spanSlowCall = "sqllease.slow_call"
	spanReturn   = "sqllease.late_return"
	spanNested   = "sqllease.nested_acquire"
	spanStill    = "sqllease.standstill"

	keyQueue     = attribute.Key("sqllease.acquire.queue") // seconds
	keyDial      = attribute.Key("sqllease.acquire.dial")  // seconds
	keyReset     = attribute.Key("sqllease.acquire.reset") // seconds
	keyLease     = attribute.Key("sqllease.lease.id")
	keyConnID    = attribute.Key("sqllease.connection.id")
	keyBlockedBy = attribute.Key("sqllease.blocked_by")
	keyPart      = attribute.Key("sqllease.acquire.part")
	keyLane      = attribute.Key("sqllease.lane")
	keyLeftover  = attribute.Key("sqllease.leftover.kind")
	keyPlace     = attribute.Key("sqllease.place")
	keyUse       = attribute.Key("sqllease.lease.use")
	keyLeakClass = attribute.Key("sqllease.leak.class")
	keyHold      = attribute.Key("sqllease.hold") // seconds
	keyFix       = attribute.Key("sqllease.fix")
	keyNow       = attribute.Key("sqllease.now")
	keyReason    = attribute.Key("sqllease.close.reason")
	keyOutcome   = attribute.Key("sqllease.tx.outcome")
	keyTxBusy    = attribute.Key("sqllease.tx.busy") // seconds
	keyTxIdle    = attribute.Key("sqllease.tx.idle") // seconds
	keyDeadlock  = attribute.Key("sqllease.deadlock")
	keyRetried   = attribute.Key("sqllease.retried")

	eventFirstRow = "sqllease.first_row"
)

// instrument is what an instrument is called, counts, and says.
type instrument struct{ name, unit, description string }

// Instruments of the conventions.
var (
	metricCount   = instrument{"db.client.connection.count", "{connection}", "The number of connections that are currently in state described by the `state` attribute."}
	metricMax     = instrument{"db.client.connection.max", "{connection}", "The maximum number of open connections allowed."}
	metricIdleMin = instrument{"db.client.connection.idle.min", "{connection}", "The minimum number of idle open connections allowed."}
	metricPending = instrument{"db.client.connection.pending_requests", "{request}", "The number of current pending requests for an open connection."}

	metricTimeouts   = instrument{"db.client.connection.timeouts", "{timeout}", "The number of connection timeouts that have occurred trying to obtain a connection from the pool."}
	metricWaitTime   = instrument{"db.client.connection.wait_time", "s", "The time it took to obtain an open connection from the pool."}
	metricCreateTime = instrument{"db.client.connection.create_time", "s", "The time it took to create a new connection."}
	metricUseTime    = instrument{"db.client.connection.use_time", "s", "The time between borrowing a connection and returning it to the pool."}
	metricDuration   = instrument{"db.client.operation.duration", "s", "Duration of database client operations."}
	metricReturned   = instrument{"db.client.response.returned_rows", "{row}", "The actual number of records returned by the database operation."}
)

// Instruments that no convention has.
var (
	metricParts       = instrument{"sqllease.acquire.part", "s", "The parts of acquires that took time: queue, dial, and resets of a millisecond and more."}
	metricUses        = instrument{"sqllease.lease.count", "{lease}", "Connections that are checked out, by what they are used for."}
	metricLeaks       = instrument{"sqllease.leaks", "{lease}", "Connections reported as leaked, once in each class: one that is unused may be proven later."}
	metricSlowCalls   = instrument{"sqllease.slow_calls", "{call}", "Calls that took longer than Config.SlowCallThreshold. They are not leaks."}
	metricFailures    = instrument{"sqllease.dial.failures", "{dial}", "Dials that failed, by cause."}
	metricClosed      = instrument{"sqllease.session.closed", "{connection}", "Connections closed, by reason."}
	metricNestings    = instrument{"sqllease.nested_acquires", "{place}", "Places in the code where a request that holds a connection waits for another."}
	metricStandstills = instrument{"sqllease.standstills", "{standstill}", "Times that the pool stood still: callers waited, and nothing was done with any connection. Deadlocks are among them."}
	metricDeadlocks   = instrument{"sqllease.deadlocks", "{deadlock}", "Deadlocks of the pool: every connection was held by a goroutine that waited for another."}
	metricUnused      = instrument{"sqllease.unused_time", "s", "How long connections were checked out but unused, by the place in the code that took them."}
	metricLeftovers   = instrument{"sqllease.session.leftovers", "{connection}", "Connections that came back with something that the next caller inherits, by its kind."}

	metricLaneMax     = instrument{"sqllease.lane.max", "{connection}", "How many connections a lane may have: Lane.Max of Config.Lanes."}
	metricLaneReserve = instrument{"sqllease.lane.reserve", "{connection}", "How many connections are kept for a lane: Lane.Reserve of Config.Lanes."}

	metricOldestHold = instrument{"sqllease.oldest_hold", "s", "The longest time that a connection has been checked out."}
	metricOldestWait = instrument{"sqllease.oldest_wait", "s", "The longest time that a caller has been in the queue."}
	metricIdleLimit  = instrument{"sqllease.idle_limit", "s", "The idle limit that new connections have: the shortest of what was discovered, configured and learned."}
	metricLifetime   = instrument{"sqllease.lifetime", "s", "How long a connection may live, chosen from the limits."}
)

// isReserved tells whether an attribute is one that is set here.
func isReserved(key attribute.Key) bool {
	switch key {
	case keySystem, keyNamespace, keyAddress, keyPort, keyPool, keyState, keyOperation, keyCollection, keySummary, keyText, keyProcedure,
		keyRows, keyStatus, keyErrorType:
		return true
	}
	return strings.HasPrefix(string(key), "sqllease.")
}

// poolAttributes identify the pool in every span and metric.
func poolAttributes(cfg *settings, system string) []attribute.KeyValue {
	attrs := []attribute.KeyValue{keyPool.String(cfg.Name)}
	if system != "" {
		attrs = append(attrs, keySystem.String(system))
	}
	return append(attrs, cfg.Attributes...)
}

// endpointAttributes are what is known of where the sessions go.
func endpointAttributes(cfg *settings) (attrs []attribute.KeyValue) {
	if e := cfg.endpoint; e.Address != "" {
		attrs = append(attrs, keyAddress.String(e.Address))
		if e.Port != 0 {
			attrs = append(attrs, keyPort.Int(e.Port))
		}
	}
	if cfg.endpoint.Namespace != "" {
		attrs = append(attrs, keyNamespace.String(cfg.endpoint.Namespace))
	}
	return attrs
}
