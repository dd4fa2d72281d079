package livepage

import (
	"strconv"
	"sync"
	"time"
	"weak"

	"github.com/sqllease/sqllease"
)

// looks keeps what the last look at the goroutines has found: a look stops the process for a moment,
// so there is one only when somebody asks.
type looks struct {
	mu   sync.Mutex
	of   weak.Pointer[sqllease.Connector] // guarded by mu: the pool
	at   time.Time                        // guarded by mu
	seen map[uint64]sqllease.Lease        // guarded by mu: by number
}

// lookLasts is for how long it is shown.
const lookLasts = 5 * time.Minute

func (l *looks) look(c *sqllease.Connector) {
	leases := c.LeasesNow()
	l.mu.Lock()
	defer l.mu.Unlock()
	l.of, l.at, l.seen = weak.Make(c), time.Now(), map[uint64]sqllease.Lease{}
	for _, lease := range leases {
		l.seen[lease.ID] = lease
	}
}

// found is what was found of a lease.
func (l *looks) found(c *sqllease.Connector, id uint64) (texts []string, at time.Time) {
	l.mu.Lock()
	defer l.mu.Unlock()
	lease, ok := l.seen[id]
	if !ok || l.of != weak.Make(c) || time.Since(l.at) > lookLasts {
		return nil, time.Time{}
	}
	for _, g := range lease.Now {
		text := g.String()
		if g.Stack != "" {
			text += "\n" + g.Stack
		}
		texts = append(texts, shownLines(text))
	}
	if len(texts) == 0 {
		texts = []string{"It is not known what its goroutine does."}
	}
	return texts, l.at
}

// pin is what is known of a lease; nil: nothing.
func (h *handler) pin(p *pool, id uint64) *pinned {
	rec := &p.recording
	for _, all := range [][]sqllease.RecordedLease{rec.Out, rec.Leases} {
		for i := range all {
			if all[i].ID == id {
				return h.pinned(p, &all[i])
			}
		}
	}
	return nil
}

func (h *handler) pinned(p *pool, l *sqllease.RecordedLease) *pinned {
	out := &pinned{
		Pool: p.Key, Lease: l.ID, Connection: l.Connection, Server: l.ConnectionID, site: h.reader.sites.of(l.Stack), Lane: shown(l.Lane),
		Asked: l.Start, Acquired: l.Acquired, Ended: l.End, Queue: seconds(l.Queue), Dial: seconds(l.Dial), Reset: seconds(l.Reset),
		Held: seconds(l.Hold(p.recording.To)), Unused: seconds(l.Unused), Reading: seconds(l.Reading), InTx: seconds(l.Transaction),
		Outcome: shown(string(l.Outcome)), Statement: shown(l.Statement), Stack: shownLines(l.Stack.String()),
		span: h.reader.trace.of(l.SpanContext.TraceID().String(), l.SpanContext.IsValid()),
	}
	if live := p.leases[l.ID]; live != nil {
		out.Use, out.For, out.Statement = useOf(live), since(live.Since, p.recording.To), shown(live.Statement)
		out.Now, out.NowAt = h.looks.found(p.connector, l.ID)
	}
	for i := range p.recording.Events {
		if e := &p.recording.Events[i]; isReport(e.Kind) && e.Lease == l.ID {
			out.Found = append(out.Found, reportOf(e, p.recording.To))
		}
	}
	return out
}

// leaseAt is the lease at a place of the picture, or else the one nearest to it in its track; 0:
// there is none.
func leaseAt(p *pool, at point, span time.Duration) (id uint64) {
	best := span / 50
	for _, all := range [][]sqllease.RecordedLease{p.recording.Leases, p.recording.Out} {
		for i := range all {
			l := &all[i]
			if l.Connection != at.Connection || l.Acquired.IsZero() {
				continue
			}
			end := l.End
			if end.IsZero() {
				end = p.recording.To
			}
			if away := max(0, l.Acquired.Sub(at.At), at.At.Sub(end)); away < best || id == 0 && away == best {
				best, id = away, l.ID
			}
		}
	}
	return id
}

func number(n uint64) string { return strconv.FormatUint(n, 10) }
