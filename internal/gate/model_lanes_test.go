package gate

import (
	"context"
	"slices"
	"time"

	"github.com/sqllease/sqllease/internal/clock"
)

// What the model has of lanes, and of controlled delay: see lanes.go and overload.go. It counts
// places anew each time, and looks for who is next in the whole queue, which all lanes share.

// modelLane is a lane as the model sees it.
type modelLane struct {
	Lane
	pressed   clock.Instant // some are refused from then on; zero: its first was not seen to be late
	refusedAt clock.Instant // when somebody was last, or pressed
	counts    LaneCounts
}

// laneOutcomes are what steps come to only where there are lanes.
var laneOutcomes = []string{
	"ask: too many wait", "ask: waits, since its lane is barred", "collect: overloaded", "collect: too late",
	"overload: begins to press", "overload: goes before anybody is refused", "overload: refused", "overload: spared, who waits alone",
	"overload: ends after an interval", "overload: ends, and begins to press again", "overload: ends, since nobody waits",
	"return: handed to another lane", "return: kept, while those wait whose lanes are barred",
	"take: barred", "take: barred, and one is served", "take: barred, and away already",
	"condemn: one is served", "reject: one is served", "replace: waits again, since its lane is barred",
	"serve: before others whose lanes are barred", "serve: what is reserved", "serve: nothing is reserved at so low a limit", "brief",
}

// anyLanes chooses the lanes of a seed; nil: none, as has every other.
func (m *model) anyLanes() (lanes []Lane) {
	m.lanes = []*modelLane{{}}
	if m.seed/18%2 == 0 {
		return nil
	}
	m.lanes = nil
	for range 1 + m.rand.IntN(4) {
		l := Lane{Max: m.orNone(4), MaxWaiting: m.orNone(4)}
		l.Target = time.Duration(m.orNone(3)*m.orNone(20)) * time.Millisecond
		if l.Reserve = m.orNone(2); l.Max > 0 {
			l.Reserve = min(l.Reserve, l.Max)
		}
		lanes = append(lanes, l)
		m.lanes = append(m.lanes, &modelLane{Lane: l})
	}
	return lanes
}

// orNone is a number from 1 to most, or, as often, zero.
func (m *model) orNone(most int) int { return m.rand.IntN(2) * (1 + m.rand.IntN(most)) }

func (m *model) anyLane() LaneID { return LaneID(m.rand.IntN(len(m.lanes))) }

// anyUntil is when the time of one who asks is over. A gate that has no lanes is not told.
func (m *model) anyUntil() clock.Instant {
	if m.seed/18%2 == 0 || m.rand.IntN(4) > 0 {
		return 0
	}
	return m.now.Add(time.Duration(m.rand.IntN(200)) * time.Millisecond)
}

// several tells whether one may have to wait for the places of a lane.
func (m *model) several() bool { return len(m.lanes) > 1 || m.lanes[0].Max > 0 }

// used is how many places a lane has: sessions in use, and dials.
func (m *model) used(id LaneID) (n int) {
	for _, s := range m.held {
		if s.lane == id {
			n++
		}
	}
	for _, of := range m.dials {
		if of == id {
			n++
		}
	}
	return n
}

// taken is how many places are in use, and how many are reserved and are not.
func (m *model) taken() (n int) {
	for i, l := range m.lanes {
		n += max(m.used(LaneID(i)), l.Reserve)
	}
	return n
}

func (m *model) reserved() (n int) {
	for _, l := range m.lanes {
		n += l.Reserve
	}
	return n
}

// barred tells whether a lane may have no other place.
func (m *model) barred(id LaneID) bool {
	if !m.several() {
		return false
	}
	l, used := m.lanes[id], m.used(id)
	switch {
	case l.Max > 0 && used >= l.Max:
		return true
	case m.limit == 0 || m.limit <= m.reserved(): // then nothing is reserved
		return false
	}
	return used >= l.Reserve && m.taken() >= m.limit
}

// next is who has waited longest of those who may be served; nil: nobody may.
func (m *model) next() *modelWaiter {
	for _, w := range m.queue {
		if !m.barred(w.lane) {
			return w
		}
	}
	return nil
}

func (m *model) waitingIn(id LaneID) []*modelWaiter {
	if len(m.lanes) == 1 {
		return m.queue
	}
	return where(m.queue, func(w *modelWaiter) bool { return w.lane == id })
}

// tooMany tells whether one more who waits would be too many.
func (m *model) tooMany(id LaneID) bool {
	most := m.lanes[id].MaxWaiting
	return most > 0 && len(m.waitingIn(id)) >= most
}

// nextFit is who is served next, once those are refused who have waited for too long.
func (m *model) nextFit(now clock.Instant) *modelWaiter {
	for {
		w := m.next()
		switch {
		case w == nil:
			return nil
		case !w.until.IsZero() && w.until <= now:
			m.answer(w, nil, context.DeadlineExceeded)
		case !m.refuses(w, now):
			return w
		}
	}
}

func (l *modelLane) interval() time.Duration { return max(10*l.Target, 100*time.Millisecond) }

// refusing tells whether a lane refuses those who are late. It does so for an interval after the
// last one.
func (l *modelLane) refusing(now clock.Instant) bool {
	return !l.pressed.IsZero() && now >= l.pressed && now.Sub(l.refusedAt) < l.interval()
}

// refuses looks at the first who waits in a lane, and refuses it where it is late, others wait,
// and so it was for an interval.
func (m *model) refuses(w *modelWaiter, now clock.Instant) bool {
	l := m.lanes[w.lane]
	late := l.Target > 0 && now.Sub(w.since) >= l.Target
	if l.refusing(now) {
		if !late {
			return false
		}
		if len(m.waitingIn(w.lane)) == 1 {
			m.did("overload: spared, who waits alone")
			return false
		}
		m.did("overload: refused")
		l.refusedAt = now
		m.answer(w, nil, ErrOverloaded)
		return true
	}
	ended := !l.pressed.IsZero() && now >= l.pressed
	switch {
	case !late && ended:
		m.did("overload: ends after an interval")
		l.pressed = 0
	case !late && !l.pressed.IsZero():
		m.did("overload: goes before anybody is refused")
		l.pressed = 0
	case late && (ended || l.pressed.IsZero()):
		m.did("overload: " + map[bool]string{false: "begins to press", true: "ends, and begins to press again"}[ended])
		l.pressed = now.Add(l.interval())
		l.refusedAt = l.pressed
	}
	return false
}

// relieve looks at the first of each lane, whether or not there is anything for it.
func (m *model) relieve() {
	for i, l := range m.lanes {
		for l.Target > 0 {
			mine := m.waitingIn(LaneID(i))
			if len(mine) == 0 || !m.refuses(mine[0], m.now) {
				break
			}
		}
	}
}

// quit takes a waiter out of the queue.
func (m *model) quit(w *modelWaiter) {
	queued := slices.Contains(m.queue, w)
	m.queue = without(m.queue, w)
	if l := m.lanes[w.lane]; queued && len(m.waitingIn(w.lane)) == 0 {
		if l.refusing(m.now) {
			m.did("overload: ends, since nobody waits")
		}
		l.pressed = 0
	}
}

// freed serves those who may have a place of which a lane has one less.
func (m *model) freed(now clock.Instant) {
	if m.several() {
		m.settle(now)
		m.admit()
	}
}

func (m *model) settleNow() { m.settle(m.now) }

// takeBarred is what it means that a ticket's lane may have nothing.
func (m *model) takeBarred(t *modelTicket, s *conn) bool {
	if s != nil {
		m.fail("a lane that is barred has a session")
	}
	if t.free && !t.away {
		t.away = true
		m.didServe("take: barred", "take: barred, and one is served", m.settleNow)
		return true
	}
	m.did("take: barred, and away already")
	return true
}

func (m *model) askTooMany(s *conn, waits bool, err error) bool {
	m.did("ask: too many wait")
	if s != nil || waits || err != ErrOverloaded {
		m.fail("a lane in which too many wait answers %v, %v, %v", s, waits, err)
	}
	return true
}

// whyRefused names the error of a wait.
func whyRefused(err error) string {
	switch err {
	case ErrOverloaded:
		return "overloaded"
	case context.DeadlineExceeded:
		return "too late"
	}
	return "refused"
}

func (m *model) stepTime() bool {
	m.did("time")
	switch m.rand.IntN(8) {
	case 0, 1:
		m.sleep(time.Duration(m.rand.IntN(5000)) * time.Millisecond)
	case 2:
		m.sleep(max(0, m.armed.Sub(m.now))) // to the moment
	default:
		m.sleep(time.Duration(m.rand.IntN(9)) * time.Millisecond)
	}
	if !m.armed.IsZero() && m.now >= *m.armed && m.rand.IntN(3) == 0 { // or it comes later
		m.stepWake()
	}
	return true
}

// stepBrief lets about as much time pass as lanes have targets.
func (m *model) stepBrief() bool {
	if !slices.ContainsFunc(m.lanes, func(l *modelLane) bool { return l.Target > 0 }) {
		return false
	}
	m.did("brief")
	m.sleep(time.Duration(m.rand.IntN(120)) * time.Millisecond)
	if !m.armed.IsZero() && m.now >= *m.armed && m.rand.IntN(4) > 0 {
		m.stepWake()
	}
	return true
}

// checkNext checks that nobody is passed who might have been served.
func (m *model) checkNext(w *modelWaiter) {
	for _, before := range m.queue {
		if before == w {
			break
		}
		if !m.barred(before.lane) {
			m.fail("number %d of lane %d is served before number %d of lane %d, which is not barred", w.number, w.lane, before.number, before.lane)
		}
	}
	switch {
	case w != m.queue[0]:
		m.did("serve: before others whose lanes are barred")
	case m.several() && m.limit > 0 && m.limit <= m.reserved():
		m.did("serve: nothing is reserved at so low a limit")
	}
	if m.used(w.lane) < m.lanes[w.lane].Reserve && m.taken() >= m.limit && m.limit > m.reserved() {
		m.did("serve: what is reserved")
	}
}

// checkLanes compares the gate's lanes with what was counted, and checks what must hold of them.
func (m *model) checkLanes() {
	g := &m.g.lanes
	used, kept := 0, 0
	for i, l := range m.lanes {
		id := LaneID(i)
		n, waiting := m.used(id), m.waitingIn(id)
		used, kept = used+n, kept+max(l.Reserve-n, 0)
		if l.Max > 0 && n > l.Max && !m.shut { // whoever replaces a session dials then, and is shut out
			m.fail("lane %d has %d places, at most %d", i, n, l.Max)
		}
		if !m.several() { // then nobody's place is counted
			n = len(m.held) - m.tended() + len(m.dials)
		}
		want := LaneFigures{Used: n, Waiting: len(waiting), Barred: m.barred(id), Refusing: l.refusing(m.now), Counts: l.counts}
		m.g.Look(func() {
			if got := m.g.LaneLocked(id); got != want {
				m.fail("the figures of lane %d are\n%+v, must be\n%+v", i, got, want)
			}
		})
		if r := &g.all[i]; r.pressed != l.pressed || r.refusedAt != l.refusedAt {
			m.fail("lane %d is pressed at %d, and refused one at %d, must be %d and %d", i, r.pressed, r.refusedAt, l.pressed, l.refusedAt)
		}
		m.checkTarget(id, waiting)
	}
	if m.several() && (g.used != used || g.kept != kept) || g.waiting != len(m.queue) {
		m.fail("%d places are in use, %d are kept, and %d wait, must be %d, %d and %d", g.used, g.kept, g.waiting, used, kept, len(m.queue))
	}
	if m.several() && m.limit > m.reserved() && m.taken() > m.limit && m.taken() > m.wasTaken && !m.shut {
		m.fail("%d places are in use or reserved, and were %d, at a limit of %d", m.taken(), m.wasTaken, m.limit)
	}
}

// checkTarget checks that Wake comes no later than the first of a lane is to be looked at: when it
// is late, and, where one was late before, an interval after that. One who waits alone is looked
// at once, to know since when it is late.
func (m *model) checkTarget(id LaneID, waiting []*modelWaiter) {
	l := m.lanes[id]
	if m.shut || l.Target == 0 || len(waiting) == 0 || len(waiting) == 1 && !l.pressed.IsZero() {
		return
	}
	if at := max(waiting[0].since.Add(l.Target), l.pressed, m.now); m.armed.IsZero() || *m.armed > at {
		m.fail("the gate is woken at %d, and the first of lane %d is to be looked at at %d", *m.armed, id, at)
	}
}
