package sqllease

import (
	"log/slog"
	"time"
)

// SlowCall is the report of a call that takes longer than [Config.SlowCallThreshold]. A
// call is reported when it has taken that long, and once more when its connection is given
// back. It is not a leak: the connection is in use.
type SlowCall struct {
	Lease                   // Call is the call, Begun when it began, Statement its statement
	Pool      string        // name of the pool
	Threshold time.Duration // the time that it exceeded
	Returned  bool          // this is the report of the return; Hold is final
	Times     int           // how many such reports this place in the code has had, this one included
	Folded    int           // how many of them were not logged since the last one that was
	HeldHere  int           // how many connections that were taken at this place are checked out now

	// Blockers are who holds the lock that the call waits for, with Config.FindBlockers: who
	// blocks it first, then who blocks that one, up to those who wait for nobody. At most 8.
	// Empty: nobody does, or it is not known.
	Blockers []Blocker

	blame blame
}

// slowCall is the report of one, which the watch makes as it makes those of leaks.
func (l *Leak) slowCall() SlowCall {
	return SlowCall{l.Lease, l.Pool, l.Threshold, l.Returned, l.Times, l.Folded, l.HeldHere, l.blame.blockers, l.blame}
}

func (s SlowCall) report() Leak {
	return Leak{Lease: s.Lease, Pool: s.Pool, Class: ClassBusy, Threshold: s.Threshold, Returned: s.Returned,
		Times: s.Times, Folded: s.Folded, HeldHere: s.HeldHere, blame: s.blame}
}

// String is the report for people, in several lines.
func (s SlowCall) String() string { return s.report().String() }

// Fix says what to do about it, in a sentence.
func (s SlowCall) Fix() string { return s.report().Fix() }

// LogValue is the report as log attributes.
func (s SlowCall) LogValue() slog.Value { return s.report().LogValue() }
