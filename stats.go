package sqllease

import (
	"database/sql"
	"time"

	"github.com/sqllease/sqllease/internal/clock"
	"github.com/sqllease/sqllease/internal/drivers"
	"github.com/sqllease/sqllease/internal/gate"
)

// Stats returns the state of the pool. It holds the pool's lock for some 20 ns for each
// connection that is checked out.
func (c *Connector) Stats() Stats {
	s := c.stats()
	s.Sites, s.Holds = c.reports.sites.list(), c.places.list()
	return s
}

// stats is Stats without what is not read often.
func (c *Connector) stats() Stats {
	s := Stats{Name: c.cfg.Name}
	now := clock.Now()
	c.gate.Look(func() {
		s.figures(c.gate.FiguresLocked())
		s.NestedAcquires, s.Standstills, s.Deadlocks = c.queue.nested, c.queue.standstills, c.queue.deadlocks
		c.gate.eachLeaseLocked(func(of *session) {
			if s.OldestHold == 0 {
				s.OldestHold = of.lease.holdAt(now)
			}
			of.lease.use(&s.Use, now)
		})
		c.lanesLocked(&s)
		if since := c.queue.sinceLocked(); !since.IsZero() {
			s.OldestWait = now.Sub(since)
		}
		if still := c.queue.still; still != nil && still.told && s.Waiting > 0 { // else the next look sees that it is over
			s.StandsStill, s.Deadlocked = now.Sub(still.since), still.deadlock
		}
	})
	s.Cancelled = c.counts.givenUp.Load()
	for i := range c.counts.lanes {
		n := &c.counts.lanes[i]
		s.Timeouts += n.timeouts.Load()
		s.Refused += n.refused.Load()
	}
	s.Closed = c.counts.closedStats()
	s.Dials, s.DialErrors = c.counts.dials.Load(), c.counts.dialErrors.Load()
	s.StatementsShared = c.counts.shared.Load()
	s.DiscoveryFailures = c.counts.discoveryFailures.Load()
	s.KeepAlives = c.counts.keepAlives.Load()
	s.Leaks, s.Proven = c.reports.leaks.Load(), c.reports.proven.Load()
	s.SlowCalls, s.LateReturns = c.reports.slowCalls.Load(), c.reports.lateReturns.Load()
	s.LearnedIdleLimit = c.learnedIdle(now)
	s.IdleLimit = drivers.MinLimit(time.Duration(c.newest.idle.Load()), s.LearnedIdleLimit)
	s.Lifetime = time.Duration(c.newest.lifetime.Load())
	return s
}

// lanesLocked reads how the lanes stand; where Config.Lanes has none, whether callers are refused.
func (c *Connector) lanesLocked(s *Stats) {
	l := c.cfg.lanes
	if l.ids == nil {
		s.Refusing = l.of[0].Target > 0 && c.gate.LaneLocked(0).Refusing
		return
	}
	s.Lanes = make([]LaneStats, len(l.names))
	for i := range s.Lanes {
		f, n := c.gate.LaneLocked(gate.LaneID(i)), &c.counts.lanes[i]
		s.Refusing = s.Refusing || f.Refusing
		s.Lanes[i] = LaneStats{
			Name: l.names[i], Max: l.of[i].Max, Reserve: l.of[i].Reserve, InUse: f.Used, Waiting: f.Waiting,
			Acquires: f.Counts.Holds, Waits: f.Counts.Waits, QueueTime: f.Counts.QueueTime,
			Timeouts: n.timeouts.Load(), Refused: n.refused.Load(), Refusing: f.Refusing,
		}
	}
	c.gate.eachLeaseLocked(func(of *session) { s.Lanes[of.lease.lane].leases++ })
}

// DBStats is the state of the pool as a sql.DBStats, for collectors that read one. It has
// the true limit, connections in use, idle connections and waits, which the *sql.DB itself
// does not know. WaitDuration counts waits that succeeded. MaxIdleClosed counts
// connections closed by the limits that were set on the *sql.DB: SetMaxIdleConns,
// SetConnMaxIdleTime and SetConnMaxLifetime. MaxIdleTimeClosed counts those closed before
// the server's idle limit, MaxLifetimeClosed those that reached [Config.MaxLifetime].
func (c *Connector) DBStats() sql.DBStats {
	var f gate.Figures
	c.gate.Look(func() { f = c.gate.FiguresLocked() })
	closed := c.counts.closedStats()
	return sql.DBStats{
		MaxOpenConnections: f.Limit,
		OpenConnections:    f.Open, InUse: f.Open - f.Ready, Idle: f.Ready,
		WaitCount: int64(f.Counts.Waits), WaitDuration: f.Counts.QueueTime,
		MaxIdleClosed: int64(closed.Surplus), MaxIdleTimeClosed: int64(closed.IdleLimit), MaxLifetimeClosed: int64(closed.Expired),
	}
}

// holdAt is for how long it is held; zero while the acquire goes on. The gate's lock is
// held.
func (l *lease) holdAt(now clock.Instant) time.Duration {
	if !l.isReady() {
		return 0
	}
	return now.Sub(l.acquired)
}

// use counts the lease by what it is used for.
func (l *lease) use(n *UseStats, now clock.Instant) {
	if !l.isReady() {
		n.Busy++
		return
	}
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

// Leases returns the connections that are checked out, oldest first: who has each, since
// when, and what for. It holds the pool's lock, for a time in proportion to their number.
func (c *Connector) Leases() (out []Lease) {
	now := clock.Now()
	c.gate.Look(func() { out = c.gate.leasesLocked(everyLane, -1, now) })
	for i := range out {
		out[i].Statement = c.reports.sanitised(out[i].Statement)
	}
	return out
}

// LeasesNow is Leases with what the goroutines that have the connections do at this moment
// (Lease.Now). For that it stops the whole process: for some 15 µs for each of its goroutines,
// at most once a second however often it is called. It is for a person who asks, and not for a
// loop. Config.NoGoroutineLook does not concern it. Goroutines are known on amd64 and arm64.
func (c *Connector) LeasesNow() []Lease {
	out := c.Leases()
	leases := make([]*Lease, len(out))
	for i := range out {
		leases[i] = &out[i]
	}
	c.reports.lookOnDemand(leases)
	return out
}
