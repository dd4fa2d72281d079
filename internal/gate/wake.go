package gate

import "github.com/sqllease/sqllease/internal/clock"

// What time brings about: the gate has Wake called when there is something to do.

// mostAtOnce bounds what one critical section does of what may be much.
const mostAtOnce = 64

// awake is what Gate.waking is in Wake: whatever asks for it meanwhile is done, or asks again at its
// end.
const awake clock.Instant = 1

// Wake does what is due: it serves those who wait what may be given to them by now, refuses
// those who have waited for too long, lets one dial where nothing is heard of those who do, and
// takes ready sessions that have expired, which the caller closes. It tells whether
// there is more to be done at once.
func (g *Gate[S, C]) Wake(now clock.Instant) (expired []*S, more bool) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.waking = awake
	g.settleLocked(now)
	g.overtakeLocked(now)
	g.relieveLocked(now)
	g.waking = 0
	g.watchLocked()
	for range mostAtOnce {
		if len(g.expiries) == 0 || g.expiries[0].due > now {
			break
		}
		if s := g.expireLocked(g.expiries[0], now); s != nil {
			expired = append(expired, s.of)
		}
	}
	more = len(g.expiries) > 0 && g.expiries[0].due <= now
	if len(g.expiries) > 0 && !more {
		g.wakeAtLocked(g.expiries[0].due)
	}
	return expired, more
}

// watchLocked has Wake called for those who wait.
func (g *Gate[S, C]) watchLocked() {
	g.watchGraceLocked()
	g.watchPaceLocked()
	for i := range g.lanes.all {
		g.watchTargetLocked(&g.lanes.all[i])
	}
}

// wakeAtLocked has Wake called at that time, or earlier.
func (g *Gate[S, C]) wakeAtLocked(at clock.Instant) {
	if g.shut || (!g.waking.IsZero() && at >= g.waking) {
		return
	}
	g.waking = at
	g.wakeAt(at)
}
