package gate

import (
	"container/heap"
	"time"

	"github.com/sqllease/sqllease/internal/clock"
)

// scheduleLocked has a session's expiry looked at in time.
func (g *Gate[S, C]) scheduleLocked(s *Session[S]) {
	at := g.dueLocked(s)
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
	if !s.life.Expired(s.heard, now) {
		g.scheduleLocked(s)
		return nil
	}
	g.ready.remove(&s.node)
	g.closeLocked(s, Expired)
	return s
}

// Flush gives every session that is held or ready an end, at most so far away: the ready
// ones first, those that were not used for longest before the others, one after the other
// in equal steps. What is due then is taken by Wake, which its caller calls.
func (g *Gate[S, C]) Flush(over time.Duration, now clock.Instant) {
	g.mu.Lock()
	defer g.mu.Unlock()
	n, i := g.ready.len+g.held.len, time.Duration(0)
	end := func(s *Session[S]) bool {
		i++
		g.endByLocked(s, now.Add(over/time.Duration(n)*i))
		return true
	}
	g.ready.each(end)
	g.held.each(end)
}

// ShortenAll shortens the lives of the sessions that are held or ready to what they are to
// be; a life that is shorter already stays. Those whose bound comes nearer have their ends
// spread anew. What is due then is taken by Wake, which its caller calls. life is called with
// the lock held.
func (g *Gate[S, C]) ShortenAll(life func(*S) Life, now clock.Instant) {
	g.mu.Lock()
	defer g.mu.Unlock()
	var nearer []*Session[S]
	shorten := func(s *Session[S]) bool {
		to := life(s.of)
		if to.Idle > 0 && (s.life.Idle == 0 || to.Idle < s.life.Idle) {
			s.life.Idle = to.Idle
			g.unscheduleLocked(s)
		}
		if !to.End.IsZero() && (s.life.End.IsZero() || to.End < s.life.End) {
			s.life.End, s.life.Jitter, s.life.Chance = to.End, to.Jitter, to.Chance
			g.unscheduleLocked(s)
			nearer = append(nearer, s)
		}
		return true
	}
	g.ready.each(shorten)
	g.held.each(shorten)
	g.spreadAllLocked(nearer, now)
	g.ready.each(func(s *Session[S]) bool {
		if s.index == 0 {
			g.scheduleLocked(s)
		}
		return true
	})
}

// End has a session that its caller holds closed when it comes back.
func (g *Gate[S, C]) End(s *Session[S], now clock.Instant) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.endByLocked(s, now)
}

// endByLocked brings the end of a session forward. Its place among the expiries must not
// be later than that: one that is held gets another when it comes back.
func (g *Gate[S, C]) endByLocked(s *Session[S], at clock.Instant) {
	if !s.life.End.IsZero() && s.life.End <= at {
		return
	}
	s.life.End, s.flushed = at, true
	g.unscheduleLocked(s)
	if s.place == ready {
		g.scheduleLocked(s)
	}
}
