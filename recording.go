package sqllease

import (
	"cmp"
	"maps"
	"slices"
	"time"

	"go.opentelemetry.io/otel/trace"

	"github.com/sqllease/sqllease/internal/clock"
)

// Record keeps the last n leases, and as many events, for [Connector.Recording], the live page and
// [Connector.Advise]. Each takes some 300 bytes, and keeps the text of its last statement in memory,
// if that is not longer than 1 KiB; if it is a part of a longer text, that whole text. Ten thousand
// leases are enough to look at. An advice may need more: those of some minutes. Zero or less: it
// stops, and lets go of what was recorded. If n is what it was, nothing changes.
func (c *Connector) Record(n int) {
	r := &c.recorder
	r.sizing.Lock()
	defer r.sizing.Unlock()
	changed := r.leases.Resize(n)
	r.events.Resize(n)
	c.gate.Look(func() {
		switch {
		case n <= 0:
			r.since = 0
		case changed:
			r.since = clock.Now()
		}
	})
}

// Recording is what was recorded, with what goes on at this moment; see [Connector.Record]. It holds
// the pool's lock for a time in proportion to the connections and the callers who wait.
func (c *Connector) Recording() Recording {
	day := clock.Clocks()
	out := Recording{Pool: c.cfg.Name, Lanes: maps.Clone(c.cfg.Lanes)}
	var from, now clock.Instant
	var goOn []kept
	waiting := 0
	c.gate.Look(func() {
		from, out.Limit = c.recorder.since, c.gate.FiguresLocked().Limit
		c.gate.eachLeaseLocked(func(s *session) { goOn = append(goOn, s.lease.goesOn(s)) })
		c.gate.eachWaiterLocked(func(a *acquire) {
			var k kept
			k.of(&a.claim, parts{})
			goOn = append(goOn, k)
			waiting++
		})
		now = clock.Now() // after all of it has begun
	})
	out.To = now.On(day)
	if from.IsZero() {
		return out
	}
	goes, waits := goOn[:len(goOn)-waiting], goOn[len(goOn)-waiting:]
	for i := range waits {
		waits[i].parts.queue = now.Sub(waits[i].start)
	}
	ended, whole := c.recorder.leases.All()
	if slices.SortStableFunc(ended, func(a, b kept) int { return cmp.Compare(a.ended, b.ended) }); !whole {
		from = max(from, ended[0].ended)
	}
	ended, goes = asOf(now, ended, goes)
	out.From = min(from, now).On(day)
	out.Leases, out.Out, out.Waiting = c.told(ended, day), c.told(goes, day), c.told(waits, day)
	events, _ := c.recorder.events.All()
	slices.SortStableFunc(events, func(a, b event) int { return cmp.Compare(a.at, b.at) })
	for _, e := range events {
		if e.at > now {
			break
		}
		out.Events = append(out.Events, RecordedEvent{
			Kind: e.kind, At: e.at.On(day), Took: e.took, Connection: e.session, ConnectionID: e.server, Lease: e.lease, Why: e.why, Limit: e.limit,
			Found: e.found, Fix: e.fix,
		})
	}
	return out
}

// asOf has each lease once: what ended since then goes on, and what is about to be given back is
// over. ended is in order.
func asOf(now clock.Instant, ended, goes []kept) (over, goOn []kept) {
	for len(ended) > 0 && ended[len(ended)-1].ended > now {
		ended = ended[:len(ended)-1]
	}
	at := make(map[uint64]int, len(goes))
	for i := range goes {
		at[goes[i].id] = i
	}
	for i := range ended {
		if k := &ended[i]; k.id != 0 {
			if j, out := at[k.id]; out {
				goes[j].id = 0
			}
		}
	}
	return ended, slices.DeleteFunc(goes, func(k kept) bool { return k.id == 0 })
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
			Stack:       Stack(k.stack.Stack()), Lane: c.cfg.laneName(k.lane),
		})
	}
	return out
}
