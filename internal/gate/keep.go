package gate

import (
	"time"

	"github.com/sqllease/sqllease/internal/clock"
)

// A session that is kept ready, and that nobody uses, is not to be closed and dialed anew each
// time it has been idle for as long as it may: whoever looks after it speaks with its server
// shortly before, and it stays. See TakeSilent.

// longestLead is how long before that at most.
const longestLead = 5 * time.Second

// silentAt is when a session, last heard of at heard, is to be looked after. Zero: never, since
// it cannot be, or ends before it is idle for too long.
func (l Life) silentAt(heard clock.Instant) clock.Instant {
	if !l.Pings || l.Idle == 0 {
		return 0
	}
	idle := heard.Add(l.Idle)
	if !l.End.IsZero() && l.End <= idle {
		return 0
	}
	return idle.Add(-min(l.Idle/10, longestLead))
}

// isSilentLocked tells whether a session that is ready is to be looked after now.
func (s *Session[S]) isSilentLocked(now clock.Instant) bool {
	at := s.life.silentAt(s.heard)
	return !at.IsZero() && now >= at && !s.life.Expired(s.heard, now)
}

// dueLocked is when a session that is ready is looked at: before it was silent for too long,
// if it may be kept, and else when it expires. Zero: never.
func (g *Gate[S, C]) dueLocked(s *Session[S]) clock.Instant {
	at := s.life.Expiry(s.heard)
	if g.keep == 0 {
		return at
	}
	if silent := s.life.silentAt(s.heard); silent > clock.Now() {
		return silent
	}
	return at
}

// TakeSilent takes the sessions that are kept ready and will soon have been silent for too
// long, to be held by the caller, who has them heard of and puts them back. Those that are
// kept are the ones used last: what is ready beyond them expires. Its caller has called Wake.
func (g *Gate[S, C]) TakeSilent(now clock.Instant) (taken []*S) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.keep == 0 || g.trust == Draining { // then tickets are on their way to them
		return nil
	}
	n := g.ready.last
	for range g.keep {
		if n == nil {
			break
		}
		s := n.of
		n = n.prev
		if s.isSilentLocked(now) {
			taken = append(taken, g.tendLocked(s))
		}
	}
	return taken
}

// tendLocked takes a session that is ready, to be held by one who looks after it. It counts as
// ready for those who would dial another.
func (g *Gate[S, C]) tendLocked(s *Session[S]) *S {
	g.ready.remove(&s.node)
	g.holdLocked(s, NoLane)
	s.tended = true
	g.tended++
	return s.of
}
