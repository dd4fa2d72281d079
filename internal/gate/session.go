package gate

import (
	"time"

	"github.com/sqllease/sqllease/internal/clock"
)

// Session is what the gate knows of a session. It is embedded in the session, and
// made one of a gate's by [Gate.Dialed].
//
// A session is in one place at a time, which says who may touch it:
//
//	held     one holder: who dialed it, took it, or was served it
//	ready    nobody
//	closing  one closer: whoever the gate told to close it
//
//	         Dialed         Return, Park, PutBack
//	(dial) ──────────► held ◄──────────────► ready
//	                    │   Take, Ask, a       │
//	                    │   handover,          │ Wake, SetLimit, Drop,
//	            Return, │   TakeReady,         │ Surplus, Shut,
//	      Park, PutBack,│   TakeSilent         │ Take (expired)
//	   Condemn, Reject  ▼                      │
//	                 closing ◄─────────────────┘
//	                    │
//	                    ├─► (its room is free) Gone
//	                    └─► (dial, in its room) Replace
type Session[S any] struct {
	of      *S               // set once
	life    Life             // guarded by Gate.mu: set by Dialed, which may bring its end forward, as Flush and ShortenAll do later
	era     uint64           // set once: that of the gate when it was dialed
	node    node[Session[S]] // guarded by Gate.mu: its place among the held or the ready
	place   place            // guarded by Gate.mu
	hold    uint64           // guarded by Gate.mu: the number of the hold, while held; it never comes again
	lane    LaneID           // guarded by Gate.mu: for which it is held, or was last
	among   int              // guarded by Gate.mu: how many were held when its hold began
	fresh   bool             // guarded by Gate.mu: nobody has given it back yet
	used    clock.Instant    // guarded by Gate.mu: when it was given back last, or dialed
	heard   clock.Instant    // when it spoke with its server last; written by its holder, else guarded by Gate.mu
	flushed bool             // guarded by Gate.mu: its end is that of a flush
	tended  bool             // guarded by Gate.mu: whoever holds it looks after it
	reason  Reason           // guarded by Gate.mu: why it is closing
	due     clock.Instant    // guarded by Gate.mu: when its expiry is looked at, where it is in Gate.expiries
	index   int              // guarded by Gate.mu: its index there, from 1; 0: it is not in it
}

// Life bounds a session's life.
type Life struct {
	End    clock.Instant // it is not given out from then on, or from earlier on: see Dialed; zero: there is no end
	Idle   time.Duration // nor when it was not heard of for so long; zero: for any time
	Pings  bool          // it can be looked after before it was idle for so long: see TakeSilent
	Jitter float64       // by what share of its lifetime its end may come earlier, 0 to 1, if nothing else asks for more
	Chance float64       // a random number, from 0 to below 1, which decides
}

// Expiry is the instant from which on a session, last heard of at heard, is not given
// out. Zero: none.
func (l Life) Expiry(heard clock.Instant) clock.Instant {
	at := l.End
	if l.Idle > 0 {
		if idle := heard.Add(l.Idle); at.IsZero() || idle < at {
			at = idle
		}
	}
	return at
}

// Expired tells whether a session, last heard of at heard, is not given out any more.
func (l Life) Expired(heard, now clock.Instant) bool {
	at := l.Expiry(heard)
	return !at.IsZero() && now >= at
}

type place uint8

const (
	held place = iota
	ready
	closing
)

// Reason says why a session is closed.
type Reason uint8

// Why a session is closed.
const (
	Expired  Reason = iota // it reached its expiry
	Bad                    // whoever had it says so
	Dropped                // more were ready than tickets are free
	OverSize               // the limit was lowered
	Taken                  // it was taken from its holder
	ShutDown               // the gate was shut
	Reasons                // how many reasons there are
)

// Hold is the number of the present hold, or of the last one. Its caller holds the
// session, or is called by Look.
func (s *Session[S]) Hold() uint64 { return s.hold }

// Among is how many were held when its hold began, with it. Its caller holds the session, or is
// called by Look.
func (s *Session[S]) Among() int { return s.among }

// Lane is the lane that a session is held for, or was last. Its caller holds the session, or is
// called by Look.
func (s *Session[S]) Lane() LaneID { return s.lane }

// Heard notes that it spoke with its server then: a holder may have it for long and not use
// it. Its caller holds the session, and gives it back after this.
func (s *Session[S]) Heard(at clock.Instant) { s.heard = at }

// HeardOf is when that was last. Its caller holds the session, or closes it.
func (s *Session[S]) HeardOf() clock.Instant { return s.heard }

// IsHeld tells whether it is held. Its caller is called by Look.
func (s *Session[S]) IsHeld() bool { return s.place == held }

// UsedLocked is when it was given back last, or dialed. Its caller is called by Look.
func (s *Session[S]) UsedLocked() clock.Instant { return s.used }

// ExpiryLocked is when it will not be given out any more, and whether its age says so; zero: there
// is no such time. Of one that is held, which is used, only its age does. Its caller is called by
// Look.
func (s *Session[S]) ExpiryLocked() (at clock.Instant, byAge bool) {
	if s.place == held {
		return s.life.End, true
	}
	at = s.life.Expiry(s.heard)
	return at, at == s.life.End
}

// HasAged tells whether its age has ended it, and not its idle time. Its caller closes it.
func (s *Session[S]) HasAged(now clock.Instant) bool {
	return !s.life.End.IsZero() && now >= s.life.End
}

// Reason is why it is closed. Its caller closes it.
func (s *Session[S]) Reason() Reason { return s.reason }

// IsFlushed tells whether a flush has brought its end forward. Its caller closes it.
func (s *Session[S]) IsFlushed() bool { return s.flushed }

// Ticket stands for a connection that the application's pool has: free while that
// is in its free list, where it has no session, but remembers which it had last.
type Ticket[S any] struct {
	free bool        // guarded by Gate.mu
	away bool        // guarded by Gate.mu: it is free, and a caller has it: see Take
	last *Session[S] // guarded by Gate.mu
}

// expiries is a heap of sessions by when to look at their expiry. What it says may be
// early: a session that was used since is put back when it is looked at. So using one
// costs nothing here.
type expiries[S any] []*Session[S]

func (h expiries[S]) Len() int           { return len(h) }
func (h expiries[S]) Less(i, j int) bool { return h[i].due < h[j].due }

// Swap is of heap.Interface, as are the next two.
func (h expiries[S]) Swap(i, j int) {
	h[i], h[j] = h[j], h[i]
	h[i].index, h[j].index = i+1, j+1
}

// Push appends.
func (h *expiries[S]) Push(x any) {
	s := x.(*Session[S])
	*h = append(*h, s)
	s.index = len(*h)
}

// Pop takes the last.
func (h *expiries[S]) Pop() any {
	last := len(*h) - 1
	s := (*h)[last]
	(*h)[last] = nil
	*h = (*h)[:last]
	s.index = 0
	return s
}
