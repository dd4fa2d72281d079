package sqllease

import (
	"time"

	"github.com/sqllease/sqllease/internal/gate"
)

// Stats is how a connector stood at one moment. While callers wait at the
// gate, sql.DBStats counts them as in use and reports no waits: the true
// figures are here.
type Stats struct {
	Name string // of the pool

	Limit   int // sessions the gate allows; 0: no limit
	Open    int // sessions that exist or are being dialed
	InUse   int // on lease
	Idle    int // ready for the next caller
	Dialing int // being dialed
	Waiting int // waiters in the queue

	Use UseStats // what those on lease are used for

	Acquires          uint64        // leases begun
	Waits             uint64        // acquires that queued and were served
	QueueTime         time.Duration // what those spent in the queue, together
	Timeouts          uint64        // acquires that ended by a deadline: their context's, or Config.AcquireTimeout
	Cancelled         uint64        // acquires whose context was cancelled
	Dials             uint64        // sessions dialed, failures included
	DialErrors        uint64        // dials that failed
	Handovers         uint64        // sessions that went from a release to a waiter
	StatementsShared  uint64        // uses of a *sql.Stmt on another connection that found it prepared there
	DiscoveryFailures uint64        // sessions whose limits could not be found out
	Leaks             uint64        // leases reported as leaked: unused for too long, or proven
	Proven            uint64        // those of them that the garbage collector has proved
	SlowCalls         uint64        // leases reported as busy: a slow call, and not a leak
	LateReturns       uint64        // leases reported, and given back after all
	NestedAcquires    uint64        // places in the code where a request that held a lease waited for another
	Deadlocks         uint64        // times that every lease was held by a goroutine that waited for another
	Closed            ClosedStats   // sessions closed, by reason

	IdleLimit  time.Duration // idle limit of the newest session; 0: none known
	Lifetime   time.Duration // the longest life chosen from it, before jitter; 0: no end
	OldestHold time.Duration // of the leases that are out
	OldestWait time.Duration // of the waiters in the queue

	Sites []LeakSite // the places that leases were reported of, those with most reports first; at most 1024
}

// UseStats counts the leases by what they are used for.
type UseStats struct {
	Busy     int // a driver call is in flight, or the reset of the acquire
	OpenRows int // unused, with a result set open
	InTx     int // unused, in a transaction
	Idle     int // unused otherwise
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
	Expired     uint64 // reached Config.MaxLifetime
	IdleLimit   uint64 // reached the age that the idle limit of the server, or Config.NetworkIdleLimit, allows
	Cancelled   uint64 // the context of a call ended, and the driver gave the connection up
	Cut         uint64 // the server or the network ended them in a call
	ResetFailed uint64 // found dead when they were to be handed out
	Invalid     uint64 // of no use any more, said the driver, although no call had failed
	Panicked    uint64 // the driver panicked
	Suspect     uint64 // as old as one that was found dead, and not handed out for that
	Surplus     uint64 // by database/sql's own limits of idle connections and their lifetime
	Limit       uint64 // over a limit that was lowered
	Flushed     uint64 // by Connector.Flush
	Reclaimed   uint64 // taken from a lease by proof, or by Config.ReclaimAfter
	Shutdown    uint64 // ready when the connector was closed, or given back afterwards
}

// Total is the number of sessions closed.
func (c ClosedStats) Total() uint64 {
	return c.Retired() + c.Cancelled + c.Dead() + c.Panicked + c.Suspect + c.Surplus + c.Limit + c.Flushed + c.Reclaimed + c.Shutdown
}

// Retired is the number of those that were closed in time, before the server would have
// ended them.
func (c ClosedStats) Retired() uint64 { return c.Expired + c.IdleLimit }

// Dead is the number of those that ended before they were closed: the server or the network
// ended them, or the driver found them of no use.
func (c ClosedStats) Dead() uint64 { return c.Cut + c.ResetFailed + c.Invalid }

// figures are what the gate says.
func (s *Stats) figures(f gate.Figures) {
	s.Limit, s.Open, s.InUse, s.Idle, s.Dialing, s.Waiting = f.Limit, f.Open, f.Held, f.Ready, f.Dialing, f.Waiting
	n := f.Counts
	s.Acquires, s.Waits, s.QueueTime, s.Handovers = n.Holds, n.Waits, n.QueueTime, n.Handovers
}
