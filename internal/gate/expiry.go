package gate

import (
	"container/heap"

	"github.com/sqllease/sqllease/internal/clock"
)

// scheduleLocked has a session's expiry looked at in time.
func (g *Gate[S, C]) scheduleLocked(s *Session[S]) {
	at := s.life.Expiry(s.used)
	if at.IsZero() || g.shut {
		return
	}
	s.due = at
	heap.Push(&g.expiries, s)
	g.wakeAtLocked(at)
}

func (g *Gate[S, C]) unscheduleLocked(s *Session[S]) {
	if s.index > 0 {
		heap.Remove(&g.expiries, s.index-1)
	}
}

// expireLocked looks at a session that is due: if it is ready and has expired, it is
// returned, and closing. One that was used since is looked at again; one that is held,
// when it comes back.
func (g *Gate[S, C]) expireLocked(s *Session[S], now clock.Instant) *Session[S] {
	g.unscheduleLocked(s)
	if s.place != ready {
		return nil
	}
	if !s.life.Expired(s.used, now) {
		g.scheduleLocked(s)
		return nil
	}
	g.ready.remove(&s.node)
	g.closeLocked(s, Expired)
	return s
}

// wakeAtLocked has Wake called at that time, or earlier.
func (g *Gate[S, C]) wakeAtLocked(at clock.Instant) {
	if g.shut || (!g.waking.IsZero() && at >= g.waking) {
		return
	}
	g.waking = at
	g.wakeAt(at)
}
