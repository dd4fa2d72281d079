package gate

import (
	"time"

	"github.com/sqllease/sqllease/internal/clock"
)

// pace bounds how many dial at once after a dial has failed. A server that is down, or is
// just starting, is not to be dialed by everybody at once: one dials, and the others wait
// in the queue, in order, for a session or for leave to dial, whichever comes first. A dial
// that fails gives its leave to the next, so that a server that refuses at once fails its
// callers one after the other, and quickly. Each dial that succeeds doubles what is allowed.
//
// A server that has no room for another connection is well, and so are those that it has.
// Then who waits for one of these is not to be failed by the next dial: it rests before.
type pace struct {
	most  int           // how many may dial at once; 0: any number
	let   clock.Instant // when the last of them was let dial, or failed
	met   string        // what that failure met with
	rest  time.Duration // how long the last rest was to be, since a dial has succeeded; 0: there was none
	until clock.Instant // nobody dials before, and then Wake ends the rest; zero: there is none
}

// A rest is twice as long each time, from one of these to the other.
const firstRest, longestRest = 100 * time.Millisecond, time.Second

// fullPace is the pace that bounds nothing any more: six dials have succeeded in a row.
const fullPace = 64

// longDial is how long a dial keeps others back of which nothing is heard. A server that
// accepts and never answers, or a way to it that swallows packets, may keep one for ever if
// its caller has no deadline: then one more may dial. It is longer than two packets that are
// lost and sent again, one after the other (1 s and 2 s).
const longDial = 5 * time.Second

// mayDialLocked tells whether one more may be dialed: there is room, and the pace allows it.
func (g *Gate[S, C]) mayDialLocked() bool { return g.roomLocked() && g.paceAllowsLocked() }

func (g *Gate[S, C]) paceAllowsLocked() bool { return !g.crowdedLocked() && g.pace.until.IsZero() }

// crowdedLocked tells whether as many dial as may.
func (g *Gate[S, C]) crowdedLocked() bool { return g.pace.most > 0 && g.dialing >= g.pace.most }

// letLocked notes that one was let dial.
func (g *Gate[S, C]) letLocked() {
	if g.pace.most > 0 {
		g.pace.let = clock.Now()
	}
}

// letDialLocked notes whether any number may dial when a waiter is let.
func (g *Gate[S, C]) letDialLocked(w *Waiter[S, C]) { w.crowd = g.pace.most == 0 }

// Failed ends a dial that the server, or the way to it, failed, and gives its room back. met
// is what the dial met with, for [Figures.Failure]. A dial that failed for another reason,
// such as a caller who went away, ends with Unreserve.
func (g *Gate[S, C]) Failed(met string, id LaneID) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.pace = pace{most: 1, let: clock.Now(), met: met}
	g.unreserveLocked(id)
}

// Full ends a dial that the server refused since it has no room for another connection, and
// gives its room back. Where there are sessions, which come back, nobody dials for a moment,
// or until one of them is closed. Whoever dialed may wait for them: see Rejoin.
func (g *Gate[S, C]) Full(met string, id LaneID) {
	g.mu.Lock()
	defer g.mu.Unlock()
	now := clock.Now()
	if g.pace.most, g.pace.let, g.pace.met = 1, now, met; g.open > g.dialing && g.pace.until.IsZero() {
		g.pace.rest = min(max(2*g.pace.rest, firstRest), longestRest)
		g.pace.until = now.Add(g.pace.rest)
	}
	g.unreserveLocked(id)
}

// Rejoin has one wait whose dial ended with Full: in the place that it had, for a session or
// for leave to dial. It does not where there is no session that could come back; but dials that
// were on together may have been refused for each other, since a server counts those too that it
// refuses: so the next of them, alone, is to tell.
func (g *Gate[S, C]) Rejoin(w *Waiter[S, C], now clock.Instant) (waits bool) {
	g.mu.Lock()
	defer g.mu.Unlock()
	refusedForEachOther := w.crowd && (g.dialing > 0 || g.lanes.waiting > 0)
	if g.shut || g.open == g.dialing && !refusedForEachOther {
		return false
	}
	g.rejoinLocked(w, now)
	g.admitLocked() // the rest may be over already
	return true
}

// quickenLocked notes that a dial has succeeded.
func (g *Gate[S, C]) quickenLocked() {
	if g.pace.most == 0 {
		return
	}
	g.pace.rest, g.pace.until = 0, 0
	if g.pace.most *= 2; g.pace.most >= fullPace || g.limit > 0 && g.pace.most >= g.limit {
		g.pace = pace{}
	}
	g.admitLocked()
}

// keptBackLocked tells whether somebody waits for whom there is room: others dial.
func (g *Gate[S, C]) keptBackLocked() bool {
	return g.lanes.waiting > 0 && !g.paceAllowsLocked() && g.roomLocked() && g.nextLocked() != nil
}

// overtakeLocked lets one dial after a rest, and one more where nothing is heard of those who
// do.
func (g *Gate[S, C]) overtakeLocked(now clock.Instant) {
	if g.pace.until <= now && !g.pace.until.IsZero() {
		g.pace.until = 0
		g.admitLocked()
	}
	if g.keptBackLocked() && now.Sub(g.pace.let) >= longDial {
		g.pace.most = g.dialing + 1
		g.admitLocked()
	}
}

// watchPaceLocked has Wake called when a rest ends, and when one more may dial if somebody waits
// for that.
func (g *Gate[S, C]) watchPaceLocked() {
	switch {
	case !g.pace.until.IsZero():
		g.wakeAtLocked(g.pace.until)
	case g.keptBackLocked():
		g.wakeAtLocked(g.pace.let.Add(longDial))
	}
}
