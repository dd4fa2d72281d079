package gate

import (
	"slices"
	"time"

	"github.com/sqllease/sqllease/internal/clock"
)

// The steps of the model that take room for a dial, and end dials.

// diallers is how many dial now: those who were served room have not begun.
func (m *model) diallers() int {
	return len(m.dials) - len(where(m.served, dials))
}

// dials tells whether a waiter was served room.
func dials(w *modelWaiter) bool { return w.session == nil && w.err == nil }

// anyDial is for which lane one of those dials that have begun is.
func (m *model) anyDial() LaneID {
	begun := slices.Clone(m.dials)
	for _, w := range where(m.served, dials) {
		i := slices.Index(begun, w.lane)
		begun = slices.Delete(begun, i, i+1)
	}
	return pick(m.rand, begun)
}

// noDial takes a dial out of the account.
func (m *model) noDial(lane LaneID) {
	i := slices.Index(m.dials, lane)
	if i < 0 {
		m.fail("nobody dials for lane %d", lane)
	}
	m.dials = slices.Delete(m.dials, i, i+1)
}

// endDial is what it means that one comes to nothing.
func (m *model) endDial(lane LaneID) {
	m.noDial(lane)
	m.freed(m.now)
	m.admit()
}

func (m *model) stepDialed() bool {
	if m.diallers() == 0 {
		return false
	}
	m.did("dialed")
	s := &modelSession{fresh: true, used: m.now, heard: m.now, era: m.era}
	if m.rand.IntN(2) == 0 {
		s.life.End = m.now.Add(time.Duration(1+m.rand.IntN(60)) * time.Second)
	}
	if m.rand.IntN(3) == 0 {
		s.life.Idle = time.Duration(1+m.rand.IntN(20)) * time.Second
	}
	s.life.Jitter, s.life.Chance = m.rand.Float64(), m.rand.Float64()
	s.life.Pings = m.rand.IntN(2) == 0
	lane := m.anyDial()
	s.real = dialedFor(m.g, s.life, lane, m.now)
	m.spread(s)
	m.noDial(lane)
	m.sessions = append(m.sessions, s)
	m.begin(s, byCaller, lane)
	if m.pace.most > 0 {
		m.did("dialed: the pace grows")
		m.pace.rest, m.pace.until = 0, 0
		if m.pace.most *= 2; m.pace.most >= fullPace || m.limit > 0 && m.pace.most >= m.limit {
			m.did("dialed: the pace is full")
			m.pace = pace{}
		}
		if before := len(m.served); len(m.queue) > 0 {
			if m.admit(); len(m.served) > before {
				m.did("dialed: one may dial")
			}
		}
	}
	return true
}

func (m *model) stepFailed() bool {
	if m.diallers() == 0 {
		return false
	}
	met := pick(m.rand, []string{"refused", "timeout"})
	lane := m.anyDial()
	m.g.Failed(met, lane)
	m.pace = pace{most: 1, let: m.now, met: met}
	m.didServe("failed", "failed: the next dials", func() { m.endDial(lane) })
	return true
}

// stepFull has the server have no room for another session. Whoever dialed goes away.
func (m *model) stepFull() bool {
	if m.diallers() == 0 {
		return false
	}
	m.full(m.anyDial())
	return true
}

// refuse has the dial of a waiter that was let dial be refused, now and then: it is about to
// wait again.
func (m *model) refuse(w *modelWaiter) {
	if m.rand.IntN(8) > 0 {
		return
	}
	m.full(w.lane)
	m.refused = append(m.refused, w)
	m.idle = without(m.idle, w)
}

func (m *model) full(lane LaneID) {
	m.g.Full("full", lane)
	m.noDial(lane)
	m.pace.most, m.pace.let, m.pace.met = 1, m.now, "full"
	switch {
	case m.open() == len(m.dials):
		m.did("full: there is no session")
	case m.pace.until.IsZero():
		m.did("full: a rest")
		m.pace.rest = min(max(2*m.pace.rest, firstRest), longestRest)
		m.pace.until = m.now.Add(m.pace.rest)
	default:
		m.did("full: in a rest")
	}
	m.freed(m.now)
	m.admit()
}

// stepRejoin has one wait again who was let dial, and whose dial ended with Full.
func (m *model) stepRejoin() bool {
	if len(m.refused) == 0 {
		return false
	}
	w := pick(m.rand, m.refused)
	m.refused = without(m.refused, w)
	waits := m.g.Rejoin(w.real, m.now)
	alone := !w.crowd || len(m.dials) == 0 && len(m.queue) == 0
	if want := !m.shut && (m.open() > len(m.dials) || !alone); waits != want {
		m.fail("whoever was refused waits: %v, must be %v", waits, want)
	}
	if waits && m.open() == len(m.dials) {
		m.did("rejoin: there is no session, and others were refused or dial")
	}
	if !waits {
		m.did("rejoin: nothing to wait for")
		m.idle = append(m.idle, w)
		return true
	}
	if m.did("rejoin"); !w.since.IsZero() {
		m.did("rejoin: having queued")
		m.forget(w)
	}
	m.join(w)
	m.settleNow()
	m.admit()
	if slices.Contains(m.served, w) {
		m.did("rejoin: served at once")
	}
	return true
}

func (m *model) stepUnreserve() bool {
	if m.diallers() == 0 {
		return false
	}
	m.did("unreserve")
	lane := m.anyDial()
	m.g.Unreserve(lane)
	m.endDial(lane)
	return true
}

func (m *model) stepReserve() bool {
	missing := !m.shut && len(m.ready)+m.tended()+len(m.dials) < m.keep && m.room()
	want := missing && !m.paced()
	if m.g.Missing() != missing || m.g.Reserve() != want {
		m.fail("Reserve must say %v, and Missing %v", want, missing)
	}
	switch {
	case want:
		m.did("reserve")
		m.beginDial(nil)
	case missing:
		m.did("reserve: too many dial")
	default:
		m.did("reserve: nothing missing")
	}
	return true
}

func (m *model) stepReplace() bool {
	s := m.close(true)
	if s == nil {
		return false
	}
	w := s.replacing
	waits := m.g.Replace(&s.real.Session, w.real, m.now)
	barred := m.barred(w.lane)
	if want := (m.crowded() || barred) && !m.shut; waits != want {
		m.fail("whoever replaces a session waits: %v, must be %v", waits, want)
	}
	if !waits {
		m.did("replace")
		m.beginDial(w)
		m.idle = append(m.idle, w)
		return true
	}
	if m.did("replace: waits again" + map[bool]string{true: ", since its lane is barred"}[barred]); !w.since.IsZero() {
		m.did("replace: waits again, having queued")
		m.forget(w)
	}
	w.session = nil
	m.join(w)
	m.settleNow()
	m.freed(m.now)
	if slices.Contains(m.served, w) {
		m.did("replace: another is ready")
	}
	return true
}

// comesToNothing has what was given to a waiter be of no use, now and then: it is closed, and
// the waiter is about to replace it.
func (m *model) comesToNothing(s *modelSession, w *modelWaiter) {
	if m.rand.IntN(3) > 0 {
		return
	}
	m.did("comes to nothing")
	m.g.Reject(&s.real.Session, Bad)
	m.reject(s)
	m.toCloser(s, Bad)
	s.replacing = w
	m.idle = without(m.idle, w)
	m.freed(m.now)
}

// spread brings the end of a session forward that was just dialed: into the latest tenth of its
// lifetime in which fewer than a tenth of all end.
func (m *model) spread(s *modelSession) {
	bound := s.life.End
	if bound.IsZero() {
		return
	}
	ends, most := m.ends(bound), (len(m.held)+len(m.ready)+10)/10 // with the new one, rounded up
	if m.spreadInto(s, bound, ends, most) {
		m.did("dialed: ends in an earlier tenth")
	}
	if got := m.tenth(s.life.End, bound); ends[got] >= most || s.life.End > bound {
		m.fail("a session ends in tenth %d, as %d do already", got, ends[got])
	}
}

// spreadAll does so with sessions whose bounds came nearer.
func (m *model) spreadAll(all []*modelSession) {
	last := m.now
	for _, s := range all {
		last = max(last, s.life.End)
	}
	if last == m.now {
		return
	}
	most := (len(m.held) + len(m.ready) + 9) / 10
	for _, s := range all {
		if s.life.End <= m.now {
			continue
		}
		ends := m.ends(last)
		ends[m.tenth(s.life.End, last)]-- // its own is not counted
		if bound := s.life.End; m.spreadInto(s, last, ends, most) {
			m.did("shorten: spread")
			if s.life.End > bound {
				m.fail("a session ends after its bound")
			}
		}
	}
}

// tenth is in which tenth, of those from now to the last, an end is.
func (m *model) tenth(end, last clock.Instant) int {
	return min(int(float64(end.Sub(m.now))/float64(last.Sub(m.now))*10), 9)
}

// ends are how many sessions end in each of these.
func (m *model) ends(last clock.Instant) (ends [10]int) {
	for _, s := range slices.Concat(m.held, m.ready) {
		if end := s.life.End; !end.IsZero() && end > m.now && end <= last {
			ends[m.tenth(end, last)]++
		}
	}
	return ends
}

// spreadInto chooses an end: within the jitter, or in an earlier tenth; then it is true.
func (m *model) spreadInto(s *modelSession, last clock.Instant, ends [10]int, most int) bool {
	bound, whole := s.life.End, float64(last.Sub(m.now))
	s.life.End = bound.Add(-time.Duration(float64(bound.Sub(m.now)) * s.life.Jitter * s.life.Chance))
	if ends[m.tenth(s.life.End, last)] < most {
		return false
	}
	into := -1
	for i := range m.tenth(bound, last) + 1 {
		if ends[i] < most {
			into = i
		}
	}
	if into < 0 {
		return false
	}
	s.life.End = min(bound, m.now.Add(time.Duration(whole*(float64(into)+s.life.Chance)/10)))
	return true
}
