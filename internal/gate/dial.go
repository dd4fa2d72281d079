package gate

import "github.com/sqllease/sqllease/internal/clock"

// Room for a dial: who takes it, and how a dial ends. How many may dial at once is in pace.go.

// Replace ends the life of a session that its closer has closed, who was given it by Ask or
// by Wait. The closer dials another in its room; or, if others dial and no more may, waits
// again, in the place that it had, for whatever comes first.
func (g *Gate[S, C]) Replace(s *Session[S], w *Waiter[S, C], now clock.Instant) (waits bool) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.counts.Closed[s.reason]++
	if g.shut || !g.crowdedLocked() && !g.barredLocked(w.lane) { // in a rest too: the server has the room that this one had
		g.dialing++
		g.occupyLocked(w.lane)
		g.letDialLocked(w)
		g.letLocked()
		return false
	}
	g.open-- // nobody who waits may dial in it either, but for those of other lanes
	g.rejoinLocked(w, now)
	g.laneFreedLocked(now)
	return true
}

// Reserve takes room for a session to be dialed ahead, if fewer are ready, or on their
// way, than are kept, and one more may dial, for which nobody waits.
func (g *Gate[S, C]) Reserve() bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	if !g.missingLocked() || !g.paceAllowsLocked() {
		return false
	}
	g.reserveLocked(NoLane)
	return true
}

// Missing tells whether Reserve would succeed, if not now, then as soon as the pace allows it.
func (g *Gate[S, C]) Missing() bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.missingLocked()
}

func (g *Gate[S, C]) missingLocked() bool {
	return !g.shut && g.ready.len+g.tended+g.dialing < g.keep && g.roomLocked()
}

// Unreserve gives back room in which nothing was dialed, or a dial failed of which the server
// is not to blame: see Failed.
func (g *Gate[S, C]) Unreserve(id LaneID) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.unreserveLocked(id)
}

// Dialed ends a dial that succeeded: whoever dialed, for that lane, holds the session. Its end may be earlier
// than life says, so that not too many end together.
func (g *Gate[S, C]) Dialed(of *S, s *Session[S], life Life, id LaneID, now clock.Instant) {
	g.mu.Lock()
	defer g.mu.Unlock()
	life.End = g.spreadLocked(life, now)
	s.of, s.life, s.era, s.fresh, s.used, s.heard = of, life, g.era, true, now, now
	g.dialing--
	g.vacateLocked(id)
	g.holdLocked(s, id)
	g.quickenLocked()
}
