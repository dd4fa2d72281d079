package sqllease

import (
	"time"

	"go.opentelemetry.io/otel/trace"

	"github.com/sqllease/sqllease/internal/clock"
)

// Record keeps the last n leases, and as many events, for [Connector.Recording], the live page and
// [Connector.Advise]. It takes some 300 bytes for each, and keeps
// the text of its last statement, up to 1 KiB, in memory. Ten thousand are enough for most. Zero or
// less: it stops, and lets go of what was recorded. If n is what it was, nothing changes.
func (c *Connector) Record(n int) {
	r := &c.recorder
	r.leases.Resize(n)
	r.events.Resize(n)
	c.gate.Look(func() {
		switch {
		case n <= 0:
			r.since = 0
		case r.since.IsZero():
			r.since = clock.Now()
		}
	})
}

// Recording is what was recorded, with what goes on at this moment; see [Connector.Record]. It holds
// the pool's lock for a time in proportion to the connections and the callers who wait.
func (c *Connector) Recording() Recording {
	now, day := clock.Now(), clock.Clocks()
	out := Recording{Pool: c.cfg.Name, To: now.On(day)}
	var from clock.Instant
	var goOn []kept
	waiting := 0
	c.gate.Look(func() {
		from, out.Limit = c.recorder.since, c.gate.FiguresLocked().Limit
		c.gate.eachLeaseLocked(func(s *session) { goOn = append(goOn, s.lease.goesOn(s)) })
		c.gate.eachWaiterLocked(func(a *acquire) {
			var k kept
			k.of(&a.claim, parts{})
			k.parts.queue = now.Sub(a.start)
			goOn = append(goOn, k)
			waiting++
		})
	})
	if from.IsZero() {
		return out
	}
	ended, whole := c.recorder.leases.All()
	if !whole {
		from = max(from, ended[0].ended)
	}
	out.From = from.On(day)
	out.Leases = c.told(ended, day)
	out.Out, out.Waiting = c.told(goOn[:len(goOn)-waiting], day), c.told(goOn[len(goOn)-waiting:], day)
	events, _ := c.recorder.events.All()
	for _, e := range events {
		out.Events = append(out.Events, RecordedEvent{
			Kind: e.kind, At: e.at.On(day), Took: e.took, Connection: e.session, ConnectionID: e.server, Lease: e.lease, Why: e.why, Limit: e.limit,
			Found: e.found, Fix: e.fix,
		})
	}
	return out
}

// told are records for people.
func (c *Connector) told(all []kept, day time.Time) []RecordedLease {
	out := make([]RecordedLease, 0, len(all))
	for i := range all {
		k := &all[i]
		out = append(out, RecordedLease{
			ID: k.id, Connection: k.session, ConnectionID: k.connection,
			Start: k.start.On(day), Queue: k.parts.queue, Dial: k.parts.dial, Reset: k.parts.reset, Acquired: k.acquired.On(day), End: k.ended.On(day),
			Unused: k.unused, Reading: k.reading, Transaction: k.inTransaction,
			InUse: int(k.inUse), Outcome: k.outcome, Statement: c.reports.sanitised(k.query), //nolint:gosec // there are not as many
			SpanContext: trace.NewSpanContext(trace.SpanContextConfig{TraceID: k.trace, SpanID: k.span, TraceFlags: k.flags}),
			Stack:       Stack(k.stack.Stack()),
		})
	}
	return out
}
