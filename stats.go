package sqllease

import (
	"cmp"
	"slices"
	"time"
)

// Stats is how a connector stood at one moment. While callers wait at the
// gate, sql.DBStats counts them as in use and reports no waits: the true
// figures are here.
type Stats struct {
	Name string // of the pool

	Limit    int // sessions the gate allows; 0: no limit
	Open     int // sessions that exist or are being dialled
	InUse    int // on lease
	Idle     int // idle under database/sql's handles
	Spare    int // ready under no handle
	Dialling int // being dialled
	Waiting  int // waiters in the queue

	Use UseStats // what those on lease are used for

	Acquires          uint64        // leases begun
	Waits             uint64        // acquires that queued and were served
	QueueTime         time.Duration // what those spent in the queue, together
	Timeouts          uint64        // acquires that ended by their context or by AcquireTimeout
	Dials             uint64        // sessions dialled, failures included
	DialErrors        uint64        // dials that failed
	Handovers         uint64        // sessions that went from a release to a waiter
	Steals            uint64        // idle sessions taken from under a handle
	StatementsAdopted uint64        // prepares that found their statement on the session
	DiscoveryFailures uint64        // sessions whose limits could not be found out
	Leaks             uint64        // leases reported as leaked: idle in hand for too long, or proven
	Proven            uint64        // those of them that the garbage collector has proved
	LongCalls         uint64        // leases reported as busy: a slow call, and not a leak
	LateReturns       uint64        // leases reported, and given back after all
	NestedAcquires    uint64        // places in the code where a request that held a lease waited for another
	Deadlocks         uint64        // times that every lease was held by a goroutine that waited for another
	Closed            ClosedStats   // sessions closed, by reason

	IdleLimit  time.Duration // idle limit of the newest session; 0: none known
	Lifetime   time.Duration // the longest life chosen from it, before jitter; 0: no end
	OldestHold time.Duration // of the leases that are out
	OldestWait time.Duration // of the waiters in the queue

	Sites []LeakSite // the places that leases were reported of, those with most reports first; at most 256
}

// UseStats counts the leases by what they are used for.
type UseStats struct {
	Busy     int // a driver call is in flight, or the reset of the acquire
	OpenRows int // idle in hand, with a result set open
	InTx     int // idle in hand, in a transaction
	Idle     int // idle in hand otherwise
}

// LeakSite is a place in the code that takes leases which are reported.
type LeakSite struct {
	Stack Stack // that acquires them
	Class Class
	Times int       // reports of this class, late returns and reclaims not counted
	Last  time.Time // when it was last reported
}

// ClosedStats counts closed sessions by reason.
type ClosedStats struct {
	Expired   uint64 // reached their expiry
	Bad       uint64 // the driver said so, or the reset failed
	Dropped   uint64 // dropped by database/sql: by its own idle limits or lifetime, or idle when the *sql.DB was closed
	Limit     uint64 // over a limit that was lowered
	Reclaimed uint64 // taken from a lease by proof, or by Config.ReclaimAfter
	Shutdown  uint64 // spare when the connector was closed, or given back afterwards
}

// Stats returns how the connector stands. It costs one critical section of the
// gate, of some 20 ns for each lease that is out.
func (c *Connector) Stats() Stats {
	s := c.stats()
	s.Sites = c.sites.list()
	return s
}

// stats is Stats without what is not read often.
func (c *Connector) stats() Stats {
	s := c.gate.stats(clock())
	s.Name = c.cfg.Name
	s.Dials, s.DialErrors = c.dials.Load(), c.dialErrors.Load()
	s.StatementsAdopted = c.adoptions.Load()
	s.DiscoveryFailures = c.discoveryFailures.Load()
	s.Leaks, s.Proven = c.leaks.Load(), c.proven.Load()
	s.LongCalls, s.LateReturns = c.longCalls.Load(), c.lateReturns.Load()
	s.IdleLimit = time.Duration(c.idleLimit.Load())
	s.Lifetime = time.Duration(c.lifetime.Load())
	return s
}

// stats is the gate's part of Stats.
func (g *gate) stats(now instant) Stats {
	g.mu.Lock()
	defer g.mu.Unlock()
	n := g.counts
	s := Stats{
		Limit: g.limit, Open: g.open, InUse: g.leases.len, Idle: g.idle.len, Spare: g.spare.len,
		Dialling: g.dialing, Waiting: g.waiters.len,
		Acquires: n.acquires, Waits: n.waits, QueueTime: n.queueTime, Timeouts: n.timeouts,
		Handovers: n.handovers, Steals: n.steals, NestedAcquires: n.nestings, Deadlocks: n.deadlocks,
		Closed: ClosedStats{
			Expired: n.closed[closedExpired], Bad: n.closed[closedBad], Dropped: n.closed[closedDropped],
			Limit: n.closed[closedLimit], Reclaimed: n.closed[closedReclaimed], Shutdown: n.closed[closedShutdown],
		},
	}
	g.leases.each(func(l *lease) bool {
		l.use(&s.Use, now)
		return true
	})
	if n := g.leases.first; n != nil {
		n.of.mu.Lock()
		s.OldestHold = n.of.heldFor(now)
		n.of.mu.Unlock()
	}
	if n := g.waiters.first; n != nil {
		s.OldestWait = now.Sub(n.of.since)
	}
	return s
}

// use counts the lease by what it is used for.
func (l *lease) use(n *UseStats, now instant) {
	l.mu.Lock()
	defer l.mu.Unlock()
	switch busy, _ := l.stateLocked(now); {
	case busy:
		n.Busy++
	case l.openRows > 0:
		n.OpenRows++
	case l.inTx:
		n.InTx++
	default:
		n.Idle++
	}
}

// list returns the places, those with most reports first.
func (s *sites) list() (out []LeakSite) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for key, r := range s.known {
		if !key.returned && !key.taken {
			out = append(out, LeakSite{Stack: slices.Clone(key.stack[:key.frames]), Class: key.class, Times: r.times, Last: r.last.Time()})
		}
	}
	slices.SortFunc(out, func(a, b LeakSite) int {
		return cmp.Or(b.Times-a.Times, b.Last.Compare(a.Last))
	})
	return out
}

// Leases returns the leases that are out, oldest first. It costs in proportion
// to their number, and holds the gate meanwhile.
func (c *Connector) Leases() []Lease {
	out := c.gate.snapshot(-1, clock())
	for i := range out {
		out[i].Statement = c.sanitised(out[i].Statement)
	}
	return out
}

// snapshot copies the oldest leases, at most that many; negative: all.
func (g *gate) snapshot(most int, now instant) []Lease {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.snapshotLocked(most, now)
}

func (g *gate) snapshotLocked(most int, now instant) (out []Lease) {
	g.leases.each(func(l *lease) bool {
		if most >= 0 && len(out) == most {
			return false
		}
		out = append(out, l.read(now))
		return true
	})
	return out
}

// mostHolders bounds what the error of a failed acquire tells, and costs.
const mostHolders = 8

// describe tells how full the pool is, for the error of a failed acquire.
func (g *gate) describe(now instant) *AcquireError {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.describeLocked(now)
}

func (g *gate) describeLocked(now instant) *AcquireError {
	return &AcquireError{
		Limit: g.limit, InUse: g.leases.len, Idle: g.idle.len + g.spare.len,
		Dialling: g.dialing, Waiting: g.waiters.len,
		Holders: g.snapshotLocked(mostHolders, now),
	}
}

func (g *gate) timedOut() {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.counts.timeouts++
}
