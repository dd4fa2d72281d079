package gate

import (
	"errors"
	"time"

	"github.com/sqllease/sqllease/internal/clock"
)

// Lanes share the limit. Each has a queue of its own, in which whoever waits longest is served
// first. Between lanes, whoever waits longest is served first of those who may be served:
//
//   - a lane that has as many places as Max allows gets no other one;
//   - a place that is reserved, and not in use, is for nobody but its lane.
//
// A place is a session that is in use, or a dial that is on for a caller. So nobody starves. A
// waiter may be passed by those of lanes that use what is reserved for them: that place was
// never for others. And, where their own lane has all that Max allows, by anybody, until one of
// their lane's places is free again: then all who could take it before them came before them.
// Arrival is the only priority, and grows with time for all alike, which is what ageing does
// where there are others.

// Lane is what a lane may have, and how long its queue may be.
type Lane struct {
	Max        int           // so many places at most; 0: any number
	Reserve    int           // so many places are kept for it
	MaxWaiting int           // so many callers may wait; 0: any number
	Target     time.Duration // how long they are to wait at most, before some are refused: see overload.go; 0: for any time
}

// LaneID is which lane a caller is in: the index among those that New was given.
type LaneID int

// NoLane is that of sessions that are in use for no caller: they are looked after, or dialed
// ahead.
const NoLane LaneID = -1

// lane is one of a gate's.
type lane[S, C any] struct {
	Lane
	used      int                // guarded by Gate.mu: places
	waiters   list[Waiter[S, C]] // guarded by Gate.mu: in order of their numbers
	pressed   clock.Instant      // guarded by Gate.mu: some are refused from then on: see overload.go; zero: nobody is
	refusedAt clock.Instant      // guarded by Gate.mu: when somebody was refused last
	counts    LaneCounts         // guarded by Gate.mu
}

// LaneCounts are what a lane has seen.
type LaneCounts struct {
	Holds     uint64        // begun, but for those that were rejected
	Waits     uint64        // acquires that were served in the queue
	QueueTime time.Duration // what these spent there, together
}

// lanes are those of a gate: one, where none were asked for.
type lanes[S, C any] struct {
	all     []lane[S, C]
	several bool // there is something to look at; set once
	used    int  // guarded by Gate.mu: places, of all lanes
	kept    int  // guarded by Gate.mu: places that are reserved, and not in use
	reserve int  // what is reserved, together; set once
	waiting int  // guarded by Gate.mu: how many wait, in all lanes
}

func newLanes[S, C any](of []Lane) (l lanes[S, C]) {
	l.all = make([]lane[S, C], max(len(of), 1))
	for i, x := range of {
		l.all[i].Lane = x
		l.several = l.several || len(of) > 1 || x.Max > 0
		l.reserve += x.Reserve
	}
	l.kept = l.reserve
	return l
}

// occupyLocked notes that a lane has one more place.
func (g *Gate[S, C]) occupyLocked(id LaneID) {
	if !g.lanes.several || id == NoLane {
		return
	}
	l := &g.lanes.all[id]
	if l.used++; l.used <= l.Reserve {
		g.lanes.kept--
	}
	g.lanes.used++
}

// vacateLocked notes that a lane has one less. Its caller lets waiters have it: see laneFreedLocked.
func (g *Gate[S, C]) vacateLocked(id LaneID) {
	if !g.lanes.several || id == NoLane {
		return
	}
	l := &g.lanes.all[id]
	if l.used--; l.used < l.Reserve {
		g.lanes.kept++
	}
	g.lanes.used--
}

// barredLocked tells whether a lane may not have another place now, whatever is ready. Where
// the limit, which may have been lowered, has nothing left beside what is reserved, nothing is.
func (g *Gate[S, C]) barredLocked(id LaneID) bool {
	if !g.lanes.several {
		return false
	}
	l := &g.lanes.all[id]
	switch {
	case l.Max > 0 && l.used >= l.Max:
		return true
	case g.limit == 0 || g.limit <= g.lanes.reserve || l.used < l.Reserve:
		return false
	}
	return g.lanes.used+g.lanes.kept >= g.limit
}

// nextLocked is the waiter who is served next: of those who may be, the one who has waited
// longest; nil: there is none.
func (g *Gate[S, C]) nextLocked() (next *Waiter[S, C]) {
	switch {
	case g.lanes.waiting == 0:
		return nil
	case !g.lanes.several:
		return g.lanes.all[0].waiters.first.of
	}
	for i := range g.lanes.all {
		first := g.lanes.all[i].waiters.first
		if first != nil && (next == nil || first.of.number < next.number) && !g.barredLocked(LaneID(i)) {
			next = first.of
		}
	}
	return next
}

// laneFreedLocked serves those who wait, where a lane has one place less, and the session or the
// room that it had is not theirs: they may take another.
func (g *Gate[S, C]) laneFreedLocked(now clock.Instant) {
	if g.lanes.several && g.lanes.waiting > 0 {
		g.settleLocked(now)
		g.admitLocked()
	}
}

// countsLocked are those of a lane, or of what is in none.
func (g *Gate[S, C]) countsLocked(id LaneID) *LaneCounts {
	if id == NoLane {
		return &g.counts.LaneCounts
	}
	return &g.lanes.all[id].counts
}

// laneOf is that of a waiter.
func (g *Gate[S, C]) laneOf(w *Waiter[S, C]) *lane[S, C] { return &g.lanes.all[w.lane] }

// eachWaiterLocked calls f for each who waits, the longest first, until f returns false. f may
// have the waiter it was called for leave.
func (g *Gate[S, C]) eachWaiterLocked(f func(*Waiter[S, C]) bool) {
	if len(g.lanes.all) == 1 {
		g.lanes.all[0].waiters.each(f)
		return
	}
	at := make([]*node[Waiter[S, C]], len(g.lanes.all))
	for i := range at {
		at[i] = g.lanes.all[i].waiters.first
	}
	for {
		first := -1
		for i, n := range at {
			if n != nil && (first < 0 || n.of.number < at[first].of.number) {
				first = i
			}
		}
		if first < 0 {
			return
		}
		w := at[first].of
		at[first] = at[first].next
		if !f(w) {
			return
		}
	}
}

// LaneFigures say how a lane stands.
type LaneFigures struct {
	Used     int // sessions in use, and dials that are on for callers
	Waiting  int
	Barred   bool // another caller would wait, whatever is ready
	Refusing bool // some of those who wait are refused: see overload.go
	Counts   LaneCounts
}

// LaneLocked is how a lane stands. Its caller is called by Look.
func (g *Gate[S, C]) LaneLocked(id LaneID) LaneFigures {
	l := &g.lanes.all[id]
	used := l.used
	if !g.lanes.several { // then places are not counted, and all are its, dials ahead too
		used = g.held.len - g.tended + g.dialing
	}
	return LaneFigures{used, l.waiters.len, g.barredLocked(id), l.refusesLocked(clock.Now()), l.counts}
}

// AwaitedLocked tells of each lane whether somebody waits for one of its places to become free,
// and how many places these lanes have: sessions in use, and dials for their callers. Nil: those
// who wait are waiting for any place. Its caller is called by Look.
func (g *Gate[S, C]) AwaitedLocked() (awaited []bool, places int) {
	if !g.lanes.several || g.lanes.waiting == 0 || g.nextLocked() != nil {
		return nil, 0
	}
	awaited = make([]bool, len(g.lanes.all))
	for i := range g.lanes.all {
		switch l := &g.lanes.all[i]; {
		case l.waiters.len == 0:
		case l.Max > 0 && l.used >= l.Max:
			awaited[i] = true
		default: // any place that is not reserved
			for j := range g.lanes.all {
				awaited[j] = awaited[j] || g.lanes.all[j].used > g.lanes.all[j].Reserve
			}
		}
	}
	for i, is := range awaited {
		if is {
			places += g.lanes.all[i].used
		}
	}
	return awaited, places
}

// MostLocked is how many places a lane may have at most; 0: any number. Its caller is called by
// Look.
func (g *Gate[S, C]) MostLocked(id LaneID) int {
	l, most := &g.lanes.all[id], g.limit
	if most > g.lanes.reserve {
		most -= g.lanes.reserve - l.Reserve
	}
	if l.Max > 0 && (most == 0 || l.Max < most) {
		return l.Max
	}
	return most
}

// ErrOverloaded is the error of an acquire that was refused, since too many wait, or have waited
// for too long.
var ErrOverloaded = errors.New("the gate is overloaded")
