package sqllease

import (
	"time"

	"go.opentelemetry.io/otel/trace"
)

// Recording is what a pool did last, as [Connector.Record] has it kept.
type Recording struct {
	Pool  string    // name of the pool
	From  time.Time // all that ended since then is in it; zero: nothing is recorded
	To    time.Time // when it was read
	Limit int       // connections the pool allows; 0: no limit

	Lanes map[string]Lane // Config.Lanes; nil: there are none

	Leases  []RecordedLease // those that ended, and acquires that failed, in the order in which they ended
	Out     []RecordedLease // those that were checked out when it was read, the oldest first
	Waiting []RecordedLease // those who waited in the queue then, the first first
	Events  []RecordedEvent // in their order
}

// RecordedLease is one checkout of one connection, or an acquire that failed.
type RecordedLease struct {
	ID           uint64 // the number of the lease, as in [Lease]; 0: there was none, since the acquire failed or waits
	Connection   uint64 // the number of the connection: a pool counts its dials from 1; 0: there was none
	ConnectionID uint64 // the server's number of it; 0: not known (see Config.FindBlockers)

	Start    time.Time     // when somebody asked for a connection
	Queue    time.Duration // part of the acquire: waiting in the queue
	Dial     time.Duration // part of the acquire: connecting and authenticating
	Reset    time.Duration // part of the acquire: making the connection ready
	Acquired time.Time     // when the connection was handed out; zero: it was not
	End      time.Time     // when it was given back, or the acquire failed; zero: it is not over

	Unused      time.Duration // part of the hold: no call was in flight; zero where the application had the driver's own connection
	Reading     time.Duration // part of the hold: rows were open, and used
	Transaction time.Duration // the part of the hold that was in a transaction, used or not

	InUse     int     // connections in use when the hold began, this one included
	Outcome   Outcome // how it ended; of an acquire that failed, what error.type says in telemetry, such as "acquire_timeout" or "overloaded"; empty: it is not over
	Statement string  // the last one, with ? for every literal; empty: none, or it was longer than 1 KiB

	SpanContext trace.SpanContext // the span in which it was acquired
	Stack       Stack             // the stack that asked
	Lane        string            // the lane of Config.Lanes in which it asked; empty: there are none
}

// Outcome is how a lease ended.
type Outcome string

// How leases end.
const (
	OutcomeReturned  Outcome = "returned"  // its connection was given back
	OutcomeBroken    Outcome = "broken"    // its connection was of no use any more
	OutcomePanicked  Outcome = "panicked"  // the driver panicked
	OutcomeReclaimed Outcome = "reclaimed" // its connection was taken back: see Config.ReclaimAfter
)

// Hold is for how long the connection was checked out, until the end or until now; zero: it
// was not.
func (l RecordedLease) Hold(now time.Time) time.Duration {
	switch {
	case l.Acquired.IsZero():
		return 0
	case l.End.IsZero():
		return now.Sub(l.Acquired)
	}
	return l.End.Sub(l.Acquired)
}

// RecordedEvent is something that happened in a pool.
type RecordedEvent struct {
	Kind         EventKind
	At           time.Time
	Took         time.Duration // of a dial
	Connection   uint64        // the number of the connection, as in RecordedLease; 0: it is about none
	ConnectionID uint64        // the server's number of it; 0: not known
	Lease        uint64        // the number of the lease, of a leak or a slow call; else 0
	Why          string        // why it was closed, as sqllease.close.reason says it in telemetry, or what the dial met with; else empty
	Limit        int           // the new limit, if it changed; else 0
	Found        string        // what a report has found, in one line of at most 1 KiB; of what is no report: empty
	Fix          string        // what to do about it, likewise
}

// EventKind is what happened.
type EventKind string

// What happens.
const (
	EventDialed     EventKind = "dialed"      // a connection was opened
	EventDialFailed EventKind = "dial failed" // a connection could not be opened
	EventClosed     EventKind = "closed"      // a connection was closed
	EventLimit      EventKind = "limit"       // the limit changed
	EventFlush      EventKind = "flush"       // Connector.Flush, or a server that takes no writes any more
	EventLeak       EventKind = "leak"        // a leak was reported
	EventSlowCall   EventKind = "slow call"   // a slow call was reported
	EventStandstill EventKind = "standstill"  // a standstill was reported
)
