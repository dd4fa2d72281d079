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
type pace struct {
	most int           // how many may dial at once; 0: any number
	let  clock.Instant // when the last of them was let dial, or failed
	met  string        // what that failure met with
}

// fullPace is the pace that bounds nothing any more: six dials have succeeded in a row.
const fullPace = 64

// longDial is how long a dial keeps others back of which nothing is heard. A server that
// accepts and never answers, or a way to it that swallows packets, may keep one for ever if
// its caller has no deadline: then one more may dial. It is longer than two packets that are
// lost and sent again, one after the other (1 s and 2 s).
const longDial = 5 * time.Second

// mayDialLocked tells whether one more may be dialed: there is room, and the pace allows it.
func (g *Gate[S, C]) mayDialLocked() bool { return g.roomLocked() && g.paceAllowsLocked() }

func (g *Gate[S, C]) paceAllowsLocked() bool { return g.pace.most == 0 || g.dialing < g.pace.most }

// letLocked notes that one was let dial.
func (g *Gate[S, C]) letLocked() {
	if g.pace.most > 0 {
		g.pace.let = clock.Now()
	}
}

// Failed ends a dial that the server, or the way to it, failed, and gives its room back. met
// is what the dial met with, for [Figures.Failure]. A dial that failed for another reason,
// such as a caller who went away, ends with Unreserve.
func (g *Gate[S, C]) Failed(met string) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.pace = pace{1, clock.Now(), met}
	g.unreserveLocked()
}

// quickenLocked notes that a dial has succeeded.
func (g *Gate[S, C]) quickenLocked() {
	if g.pace.most == 0 {
		return
	}
	if g.pace.most *= 2; g.pace.most >= fullPace || g.limit > 0 && g.pace.most >= g.limit {
		g.pace = pace{}
	}
	g.admitLocked()
}

// keptBackLocked tells whether somebody waits for whom there is room: others dial.
func (g *Gate[S, C]) keptBackLocked() bool {
	return g.waiters.len > 0 && !g.paceAllowsLocked() && g.roomLocked()
}

// overtakeLocked lets one more dial where nothing is heard of those who do.
func (g *Gate[S, C]) overtakeLocked(now clock.Instant) {
	if g.keptBackLocked() && now.Sub(g.pace.let) >= longDial {
		g.pace.most = g.dialing + 1
		g.admitLocked()
	}
	g.watchPaceLocked()
}

// watchPaceLocked has Wake called when one more may dial, if somebody waits for that.
func (g *Gate[S, C]) watchPaceLocked() {
	if g.keptBackLocked() {
		g.wakeAtLocked(g.pace.let.Add(longDial))
	}
}
