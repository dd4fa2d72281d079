package sqllease

import (
	"time"

	"github.com/sqllease/sqllease/internal/gate"
)

// Stats is the state of a connector at one moment. It has the true figures: while
// callers wait, sql.DBStats counts them as in use, and reports no waits.
type Stats struct {
	Name string // of the pool

	Limit   int // connections that may exist at once; 0: no limit
	Open    int // connections that exist or are being dialed
	InUse   int // checked out
	Idle    int // ready for the next caller
	Dialing int // being dialed
	Waiting int // callers in the queue

	Use UseStats // what those in use are used for

	Acquires          uint64        // connections checked out so far
	Waits             uint64        // acquires that queued and got a connection
	QueueTime         time.Duration // the time that these spent in the queue, together
	Timeouts          uint64        // acquires that ended by a deadline: their context's, or Config.AcquireTimeout
	Cancelled         uint64        // acquires whose context was cancelled
	Refused           uint64        // acquires refused with ErrOverloaded
	Dials             uint64        // dials, failed ones included
	DialErrors        uint64        // dials that failed
	Handovers         uint64        // connections that went straight from one caller to a waiting one
	StatementsShared  uint64        // uses of a *sql.Stmt on another connection that found it prepared there
	DiscoveryFailures uint64        // how often the server could not be asked for its idle limit
	KeepAlives        uint64        // times that an idle connection of Config.MinIdle was pinged, and stayed
	Leaks             uint64        // connections reported as leaked: unused for too long, or proven
	Proven            uint64        // those of them that the garbage collector has proven
	SlowCalls         uint64        // slow calls reported; they are not leaks
	LateReturns       uint64        // reported connections that came back after all
	NestedAcquires    uint64        // places in the code where a request that held a connection waited for another
	Standstills       uint64        // times that callers waited and nothing was done with any connection, deadlocks included
	Deadlocks         uint64        // times that every connection was held by a goroutine that waited for another
	Closed            ClosedStats   // connections closed, by reason

	IdleLimit        time.Duration // the idle limit that new connections have; 0: none known
	LearnedIdleLimit time.Duration // the one that was learned from connections that were found dead; 0: none
	Lifetime         time.Duration // how long a connection may live at most; many end earlier, so that not all end together; 0: for ever
	StandsStill      time.Duration // for how long the pool has stood still (see Standstill); 0: it does not, or not for long enough to be reported
	Deadlocked       bool          // it stands still, and that is a deadlock
	OldestHold       time.Duration // the longest time that a connection has been checked out
	OldestWait       time.Duration // how long the first in the queue has waited for a connection

	Refusing bool        // callers who have waited for too long are refused just now, in some lane (see Config.QueueTarget)
	Lanes    []LaneStats // those of Config.Lanes, DefaultLane first, then by name; nil: there are none

	Sites []LeakSite // the places in the code that took reported connections, those with most reports first; at most 1024
	Holds []HoldSite // the places in the code whose connections were checked out but unused for longest, those first; at most 64
}

// UseStats counts the connections that are checked out by what they are used for.
type UseStats struct {
	Busy     int // in a call, or being reset for their caller
	OpenRows int // unused, with rows open
	InTx     int // unused, in a transaction
	Idle     int // unused otherwise
}

// LaneStats is the state of one lane of [Config.Lanes].
type LaneStats struct {
	Name    string
	Max     int // as in its Lane; 0: any number
	Reserve int // likewise; 0: none
	InUse   int // connections that its callers have, and those that are being dialed for them
	Waiting int // callers in its queue

	Acquires  uint64        // connections checked out so far
	Waits     uint64        // acquires that queued and got a connection
	QueueTime time.Duration // the time that these spent in the queue, together
	Timeouts  uint64        // acquires that ended by a deadline: their context's, or Config.AcquireTimeout
	Refused   uint64        // acquires refused with ErrOverloaded
	Refusing  bool          // callers who have waited for too long are refused just now

	leases int // that are on
}

// LeakSite is a place in the code that took reported connections.
type LeakSite struct {
	Stack Stack // of the acquire
	Class Class
	Times int       // reports of this class, late returns and reclaims not counted
	Last  time.Time // when it was last reported
}

// HoldSite is a place in the code that took connections, and for how long these were checked
// out but unused, as where it calls another service in a transaction. It counts connections
// that were given back, and that were unused for 10µs or more. Reading rows is use. So is
// the time between two rows if it is not known, as if they come within microseconds.
type HoldSite struct {
	Stack   Stack         // of the acquire
	Leases  uint64        // how many connections
	Held    time.Duration // how long these were checked out, together
	Unused  time.Duration // how long of that they were unused
	Longest time.Duration // the longest time that one was unused at a stretch
}

// ClosedStats counts closed connections by reason.
type ClosedStats struct {
	Expired     uint64 // reached Config.MaxLifetime
	IdleLimit   uint64 // reached the age that the server's idle limit, or Config.NetworkIdleLimit, allows
	Cancelled   uint64 // the context of a call ended, and the driver gave the connection up
	Cut         uint64 // ended by the server or the network during a call
	ResetFailed uint64 // found dead when they were to be handed out, or were pinged
	Invalid     uint64 // called invalid by the driver, although no call had failed
	Panicked    uint64 // the driver panicked
	Suspect     uint64 // last used before another one was found dead, so not handed out again
	Surplus     uint64 // over database/sql's own limits of idle connections and their lifetime
	Limit       uint64 // over a limit that was lowered
	Flushed     uint64 // by Connector.Flush
	RoleChanged uint64 // a write failed, since the server takes none any more, as after a failover
	Reclaimed   uint64 // leaked and closed: proven, or by Config.ReclaimAfter
	Shutdown    uint64 // idle when the connector was closed, or given back afterwards
}

// Total is the number of connections closed.
func (c ClosedStats) Total() uint64 {
	return c.Retired() + c.Cancelled + c.Dead() + c.Panicked + c.Suspect + c.Surplus + c.Limit + c.Flushed + c.RoleChanged + c.Reclaimed + c.Shutdown
}

// Retired is the number of connections that were closed in time, before the server would
// have ended them.
func (c ClosedStats) Retired() uint64 { return c.Expired + c.IdleLimit }

// Dead is the number of connections that broke before they were closed: the server or the
// network ended them, or the driver called them invalid.
func (c ClosedStats) Dead() uint64 { return c.Cut + c.ResetFailed + c.Invalid }

// figures are what the gate says.
func (s *Stats) figures(f gate.Figures) {
	s.Limit, s.Open, s.InUse, s.Idle, s.Dialing, s.Waiting = f.Limit, f.Open, f.Held, f.Ready, f.Dialing, f.Waiting
	n := f.Counts
	s.Acquires, s.Waits, s.QueueTime, s.Handovers = n.Holds, n.Waits, n.QueueTime, n.Handovers
}
