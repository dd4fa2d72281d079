package livepage

import (
	"cmp"
	"slices"
	"strings"
	"time"

	"github.com/sqllease/sqllease"
)

// reader makes the view model of pools.
type reader struct {
	sites sites
	trace traceLink
}

// lastMinute is what "in the last minute" means.
const lastMinute = time.Minute

// most bounds what tables show, and so what a step costs.
const (
	mostReports = 20
	mostLongest = 20
	mostRows    = 200 // of any other table
)

// read reads one pool.
func (r *reader) read(c *sqllease.Connector, key string) *pool {
	stats, rec, leases, connections := c.Stats(), c.Recording(), c.Leases(), c.Connections()
	p := &pool{
		Key: key, Name: shown(c.Name()), connector: c, recording: rec,
		Limit: stats.Limit, Open: stats.Open, InUse: stats.InUse, Idle: stats.Idle, Dialing: stats.Dialing,
		Waiting: stats.Waiting, LongestWait: seconds(stats.OldestWait),
		Deadlocked: stats.Deadlocked, StandsStill: seconds(stats.StandsStill),
		RecordedSince: rec.From, Recorded: len(rec.Leases), Refusing: stats.Refusing,
	}
	if p.RecordedSince.IsZero() {
		rec.To = time.Now()
		p.recording.To = rec.To
	}
	p.readEvents(&rec, leases)
	p.readConnections(connections, rec.To)
	p.readOut(r, &rec, leases)
	p.readQueue(r, &rec)
	p.readLanes(stats.Lanes, &rec)
	p.readPlaces(r, &rec)
	p.readLongest(r, &rec)
	p.readBusiest(r, &rec)
	for _, s := range stats.Sites {
		p.Leaks = append(p.Leaks, leakSite{r.sites.of(s.Stack), s.Class.String(), s.Times, s.Last})
	}
	p.group()
	p.noNulls()
	p.State, p.Sentence = sentence(p)
	return p
}

// noNulls has JSON say of an empty table that it is empty.
func (p *pool) noNulls() {
	p.HeldBy, p.WaitsBy, p.Out, p.Queue, p.Places = some(p.HeldBy), some(p.WaitsBy), some(p.Out), some(p.Queue), some(p.Places)
	p.Connections, p.Reports, p.Leaks, p.Longest = some(p.Connections), some(p.Reports), some(p.Leaks), some(p.Longest)
}

func some[T any](rows []T) []T {
	if rows == nil {
		return []T{}
	}
	return rows
}

// readEvents reads what happened.
func (p *pool) readEvents(rec *sqllease.Recording, leases []sqllease.Lease) {
	p.leases = make(map[uint64]*sqllease.Lease, len(leases))
	for i := range leases {
		p.leases[leases[i].ID] = &leases[i]
	}
	for i := range rec.Events {
		e := &rec.Events[i]
		switch e.Kind {
		case sqllease.EventDialed:
			p.Dials = dials{}
		case sqllease.EventDialFailed:
			p.Dials = dials{p.Dials.Failed + 1, shown(e.Why), seconds(rec.To.Sub(e.At))}
		case sqllease.EventClosed:
			if died(e.Why) && rec.To.Sub(e.At) <= lastMinute {
				p.Died++
			}
		}
	}
	for _, e := range slices.Backward(rec.Events) {
		if isReport(e.Kind) && len(p.Reports) < mostReports {
			p.Reports = append(p.Reports, reportOf(&e, rec.To))
		}
	}
	for i := range rec.Leases {
		if l := &rec.Leases[i]; l.Acquired.IsZero() && rec.To.Sub(l.End) <= lastMinute {
			p.Failed++
			if l.Outcome == overloaded {
				p.Refused++
			}
		}
	}
}

func isReport(k sqllease.EventKind) bool {
	return k == sqllease.EventLeak || k == sqllease.EventSlowCall || k == sqllease.EventStandstill
}

// died tells whether a connection that was closed for that reason had broken.
func died(why string) bool { return why == "cut" || why == "reset_failed" || why == "invalid" }

func reportOf(e *sqllease.RecordedEvent, now time.Time) report {
	return report{e.At, seconds(now.Sub(e.At)), string(e.Kind), e.Lease, shown(e.Found), shown(e.Fix)}
}

// readConnections reads those that are open.
func (p *pool) readConnections(all []sqllease.Connection, now time.Time) {
	for i := range all {
		c := &all[i]
		row := connection{Number: c.Number, Server: c.ID, Lease: c.Lease, Age: since(c.Opened, now), Why: c.Why}
		if c.Lease == 0 {
			row.Idle = since(c.Used, now)
		}
		if !c.Expires.IsZero() {
			row.Expires, row.Left = &c.Expires, since(now, c.Expires)
		}
		p.Connections = append(p.Connections, row)
	}
}

func since(from, to time.Time) seconds { return seconds(max(0, to.Sub(from))) }

// readOut reads the leases that are out, the oldest first.
func (p *pool) readOut(r *reader, rec *sqllease.Recording, leases []sqllease.Lease) {
	blocked, leaked := map[uint64]*sqllease.RecordedEvent{}, map[uint64]bool{}
	for i := range rec.Events {
		switch e := &rec.Events[i]; e.Kind {
		case sqllease.EventLeak:
			leaked[e.Lease] = true
		case sqllease.EventSlowCall:
			blocked[e.Lease] = e
		}
	}
	on := make(map[uint64]uint64, len(p.Connections))
	for i := range p.Connections {
		on[p.Connections[i].Lease] = p.Connections[i].Number
	}
	for i := range leases {
		l := &leases[i]
		h := holder{
			Lease: l.ID, site: r.sites.of(l.Stack), Lane: shown(l.Lane), Held: seconds(l.Hold), For: since(l.Since, l.Acquired.Add(l.Hold)), InTx: l.InTx,
			Statement: shown(l.Statement), Waited: seconds(l.Queue + l.Dial + l.Reset), Connection: on[l.ID], Server: l.ConnectionID,
			span: r.trace.of(l.SpanContext.TraceID().String(), l.SpanContext.IsValid()),
		}
		h.Use = useOf(l)
		if l.Busy {
			h.Call = string(l.Call)
			if e := blocked[l.ID]; e != nil && !e.At.Before(l.Since) { // it is of this call
				_, by, _ := strings.Cut(e.Found, "; blocked by ")
				h.Blocked = shown(by)
			}
		}
		h.Leaked = leaked[l.ID] && h.Use.isUnused()
		p.Out = append(p.Out, h)
	}
}

// useOf is what a lease is used for.
func useOf(l *sqllease.Lease) use {
	switch {
	case l.Busy && l.Call == sqllease.CallRows:
		return inRows
	case l.Busy:
		return inCall
	case l.OpenRows > 0:
		return unusedRow
	case l.InTx:
		return unusedSQL
	}
	return unused
}

// readQueue reads who waits.
func (p *pool) readQueue(r *reader, rec *sqllease.Recording) {
	for i := range rec.Waiting {
		w := &rec.Waiting[i]
		p.Queue = append(p.Queue, waiter{i + 1, r.sites.of(w.Stack), shown(w.Lane), since(w.Start, rec.To),
			r.trace.of(w.SpanContext.TraceID().String(), w.SpanContext.IsValid())})
	}
}

// readPlaces adds up the recording by places, those first whose connections were out for longest.
func (p *pool) readPlaces(r *reader, rec *sqllease.Recording) {
	known := map[site]*place{}
	at := func(l *sqllease.RecordedLease) *place {
		where := r.sites.of(l.Stack)
		if known[where] == nil {
			known[where] = &place{site: where}
		}
		return known[where]
	}
	add := func(l *sqllease.RecordedLease) *place {
		of, held := at(l), seconds(l.Hold(rec.To))
		of.Held, of.Unused, of.Waited = of.Held+held, of.Unused+seconds(l.Unused), of.Waited+seconds(l.Queue)
		of.Longest = max(of.Longest, held)
		return of
	}
	for i := range rec.Leases {
		if of := add(&rec.Leases[i]); rec.Leases[i].Acquired.IsZero() {
			of.Failed++
		} else {
			of.Leases++
		}
	}
	for i := range rec.Out {
		of := add(&rec.Out[i])
		of.Leases, of.Out = of.Leases+1, of.Out+1
		if l := p.leases[rec.Out[i].ID]; l != nil && useOf(l).isUnused() { // what it was before is not known
			of.Unused += since(l.Since, rec.To)
		}
	}
	for i := range rec.Waiting {
		add(&rec.Waiting[i])
	}
	for _, of := range known {
		p.Places = append(p.Places, *of)
	}
	slices.SortFunc(p.Places, func(a, b place) int {
		return cmp.Or(cmp.Compare(b.Held, a.Held), cmp.Compare(b.Waited, a.Waited), cmp.Compare(a.Place, b.Place))
	})
	p.Places = p.Places[:min(len(p.Places), mostRows)]
}

// readBusiest finds who had most of the time in which connections were checked out lately.
func (p *pool) readBusiest(r *reader, rec *sqllease.Recording) {
	from, took, all := rec.To.Add(-lastMinute), map[site]time.Duration{}, time.Duration(0)
	for _, leases := range [][]sqllease.RecordedLease{rec.Leases, rec.Out} {
		for i := range leases {
			l := &leases[i]
			end := l.End
			if end.IsZero() {
				end = rec.To
			}
			if l.Acquired.IsZero() || end.Before(from) {
				continue
			}
			since := l.Acquired
			if since.Before(from) {
				since = from
			}
			took[r.sites.of(l.Stack)] += end.Sub(since)
			all += end.Sub(since)
		}
	}
	for at, d := range took {
		if share := float64(d) / float64(max(all, 1)); share > p.Busiest.Share {
			p.Busiest = busiest{at, share}
		}
	}
}

// readLongest finds the longest leases that are over.
func (p *pool) readLongest(r *reader, rec *sqllease.Recording) {
	longest := make([]*sqllease.RecordedLease, 0, mostLongest+1)
	for i := range rec.Leases {
		l := &rec.Leases[i]
		if l.Acquired.IsZero() {
			continue
		}
		held := l.Hold(rec.To)
		if len(longest) == mostLongest && longest[mostLongest-1].Hold(rec.To) >= held {
			continue
		}
		to, _ := slices.BinarySearchFunc(longest, held, func(a *sqllease.RecordedLease, held time.Duration) int {
			return cmp.Compare(held, a.Hold(rec.To))
		})
		longest = slices.Insert(longest, to, l)
		longest = longest[:min(len(longest), mostLongest)]
	}
	for _, l := range longest {
		p.Longest = append(p.Longest, finished{
			Lease: l.ID, site: r.sites.of(l.Stack), Lane: shown(l.Lane), Ended: l.End, Held: seconds(l.Hold(rec.To)), Unused: seconds(l.Unused),
			Reading: seconds(l.Reading), InTx: seconds(l.Transaction), Waited: seconds(l.Queue), Outcome: shown(string(l.Outcome)),
			Statement: shown(l.Statement), span: r.trace.of(l.SpanContext.TraceID().String(), l.SpanContext.IsValid()),
		})
	}
}
