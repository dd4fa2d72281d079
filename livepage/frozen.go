package livepage

import (
	"slices"
	"time"

	"github.com/sqllease/sqllease"
)

// frozen is how a pool was at an earlier time, as far as its recording tells: who had a
// connection, and who waited. What each did at that moment is not known.
func (r *reader) frozen(p *pool, at time.Time) *pool {
	rec := rewind(&p.recording, at)
	f := &pool{
		Key: p.Key, Name: p.Name, connector: p.connector, recording: rec, leases: map[uint64]*sqllease.Lease{},
		Limit: rec.Limit, InUse: len(rec.Out), Waiting: len(rec.Waiting), RecordedSince: rec.From, Recorded: len(rec.Leases), Leaks: p.Leaks,
	}
	f.readEvents(&rec, nil)
	for i := range rec.Out {
		l := &rec.Out[i]
		f.Out = append(f.Out, holder{
			Lease: l.ID, site: r.sites.of(l.Stack), Lane: shown(l.Lane), Held: since(l.Acquired, at), Use: notKnown, InTx: l.Transaction > 0, Statement: shown(l.Statement),
			Waited: seconds(l.Queue + l.Dial + l.Reset), Connection: l.Connection, Server: l.ConnectionID,
			span: r.trace.of(l.SpanContext.TraceID().String(), l.SpanContext.IsValid()),
		})
	}
	for i := range rec.Waiting {
		f.LongestWait = max(f.LongestWait, since(rec.Waiting[i].Start, at))
	}
	f.readQueue(r, &rec)
	f.readLanes(f.lanesThen(&rec), &rec)
	f.readPlaces(r, &rec)
	f.readLongest(r, &rec)
	f.readBusiest(r, &rec)
	f.group()
	f.noNulls()
	f.State, f.Sentence = sentence(f)
	if rec.From.IsZero() || at.Before(rec.From) {
		f.State, f.Sentence = watch, "How the pool was then is not known: it was not recorded, or is not any more."
	}
	return f
}

// rewind is a recording as it was at an earlier time.
func rewind(rec *sqllease.Recording, at time.Time) sqllease.Recording {
	was := sqllease.Recording{Pool: rec.Pool, From: rec.From, To: at, Limit: limitAt(rec, at), Lanes: rec.Lanes}
	for _, all := range [][]sqllease.RecordedLease{rec.Leases, rec.Out, rec.Waiting} {
		for i := range all {
			switch l := all[i]; {
			case l.Start.After(at):
			case !l.End.IsZero() && !l.End.After(at):
				was.Leases = append(was.Leases, l)
			case !l.Acquired.IsZero() && !l.Acquired.After(at):
				l.End, l.Outcome = time.Time{}, ""
				was.Out = append(was.Out, l)
			case l.Queue > 0 && at.Before(l.Start.Add(l.Queue)):
				l.Queue, l.Acquired, l.End, l.Outcome = at.Sub(l.Start), time.Time{}, time.Time{}, ""
				was.Waiting = append(was.Waiting, l)
			}
		}
	}
	slices.SortStableFunc(was.Out, func(a, b sqllease.RecordedLease) int { return a.Acquired.Compare(b.Acquired) })
	slices.SortStableFunc(was.Waiting, func(a, b sqllease.RecordedLease) int { return a.Start.Compare(b.Start) })
	for _, e := range rec.Events {
		if !e.At.After(at) {
			was.Events = append(was.Events, e)
		}
	}
	return was
}

// limitAt is the limit as it was: the last one that was set by then. What it was before the first
// change is not known: 0. The limit of now stands for it where nothing changed.
func limitAt(rec *sqllease.Recording, at time.Time) int {
	limit, changed := 0, false
	for _, e := range rec.Events {
		if e.Kind == sqllease.EventLimit {
			if changed = true; !e.At.After(at) {
				limit = e.Limit
			}
		}
	}
	if !changed {
		return rec.Limit
	}
	return limit
}
