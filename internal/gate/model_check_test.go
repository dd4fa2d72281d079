package gate

import (
	"slices"
	"testing/synctest"
	"time"

	"github.com/sqllease/sqllease/internal/clock"
)

// check compares the whole gate with the model, and both with the invariants at the top
// of gate.go.
func (m *model) check() {
	g := m.g
	want := Figures{
		Limit: m.limit, Open: m.open(), Held: len(m.held), Ready: len(m.ready), Dialing: len(m.dials), Pace: m.pace.most, Failure: m.pace.met,
		Waiting: len(m.queue), Free: m.free(), Shut: m.shut, Counts: m.counts,
	}
	g.Look(func() {
		if got := g.FiguresLocked(); got != want {
			m.fail("the figures are\n%+v, must be\n%+v", got, want)
		}
	})
	if g.trust != m.trust || g.bad != m.bad || g.holds != m.holds || g.arrivals != m.arrivals {
		m.fail("trust %d, bad %d, holds %d, arrivals %d, must be %d, %d, %d, %d",
			g.trust, g.bad, g.holds, g.arrivals, m.trust, m.bad, m.holds, m.arrivals)
	}
	if g.pace != m.pace {
		m.fail("the pace is %+v, must be %+v", g.pace, m.pace)
	}
	if g.silent != m.silent || g.patience != m.patience || m.doubts != 0 {
		m.fail("%d tickets dropped in a row, of %d, must be %d, of %d; %d doubts", g.silent, g.patience, m.silent, m.patience, m.doubts)
	}
	m.checkList("held", &g.held, m.held)
	m.checkList("ready", &g.ready, m.ready)
	m.checkWaiters()
	m.checkSessions()
	m.checkTickets()
	m.checkInvariants()
	m.checkExpiries()
	m.checkWake()
	m.checkLanes()
}

func (m *model) checkList(name string, l *list[Session[conn]], want []*modelSession) {
	i := 0
	for n := l.first; n != nil; n, i = n.next, i+1 {
		if i == len(want) || n.of.of != want[i].real || n.in != l {
			m.fail("session %d that is %s is another", i, name)
		}
		if n.next != nil && n.next.prev != n {
			m.fail("the list of those %s is broken", name)
		}
	}
	if i != len(want) || l.len != len(want) {
		m.fail("%d are %s, must be %d", i, name, len(want))
	}
}

func (m *model) checkWaiters() {
	i := 0
	m.g.EachWaiterLocked(func(w *Waiter[conn, caller], c *caller) bool {
		if i == len(m.queue) || w != m.queue[i].real || c != m.queue[i].caller || w.Number() != m.queue[i].number || w.Since() != m.queue[i].since {
			m.fail("waiter %d is another: the queue is not in order of arrival", i)
		}
		i++
		return true
	})
	if i != len(m.queue) {
		m.fail("%d wait, must be %d", i, len(m.queue))
	}
	if first := m.g.FirstWaiterLocked(); first.IsZero() != (i == 0) || i > 0 && first != m.queue[0].since {
		m.fail("the first waits since %d", first)
	}
	for _, w := range slices.Concat(m.queue, m.idle) {
		if len(w.real.served) != 0 || w.caller.queued != w.joined {
			m.fail("a waiter was woken that was served nothing, or joined %d times, not %d", w.caller.queued, w.joined)
		}
	}
	for _, w := range m.served {
		if len(w.real.served) != 1 || w.real.err != w.err || w.real.sessionOf() != realOf(w.session) {
			m.fail("a waiter was served something else, or not woken")
		}
	}
}

// realOf is the session of which the model has one; nil: none.
func realOf(s *modelSession) *conn {
	if s == nil {
		return nil
	}
	return s.real
}

func realsOf(all []*modelSession) (conns []*conn) {
	for _, s := range all {
		conns = append(conns, s.real)
	}
	return conns
}

// checkSessions checks that each session is in one place: that of the model.
func (m *model) checkSessions() {
	for _, s := range m.sessions {
		if s.closers > 1 || s.closed > s.closers {
			m.fail("a session has %d closers, and was closed %d times", s.closers, s.closed)
		}
		if r := s.real; r.place != s.place || r.used != s.used || r.heard != s.heard || r.hold != s.hold || r.ended != s.ended ||
			r.life != s.life || r.place == closing && r.reason != s.reason || (r.node.in != nil) != (s.place != closing) {
			m.fail("a session is %+v, must be %+v", &r.Session, s)
		}
	}
	if tended := m.tended(); m.g.tended != tended {
		m.fail("%d are looked after, must be %d", m.g.tended, tended)
	}
	if len(m.held) > 0 { // SinceLocked, from a random hold on
		i := len(m.held) - 1
		since := m.held[m.rand.IntN(i+1)].hold
		m.g.SinceLocked(since, func(s *conn) bool {
			if s != m.held[i].real || s.Hold() <= since {
				m.fail("SinceLocked comes to another")
			}
			i--
			return true
		})
		if m.held[i].hold != since {
			m.fail("SinceLocked leaves out %d", m.held[i].hold-since)
		}
	}
}

func (m *model) checkTickets() {
	for _, t := range m.tickets {
		if t.real.free != t.free || t.real.away != t.away || t.last == nil != (t.real.last == nil) || t.last != nil && t.real.last.of != t.last.real {
			m.fail("a ticket is free: %v, must be %v, or remembers another session", t.real.free, t.free)
		}
	}
}

// checkInvariants checks those that are not comparisons.
func (m *model) checkInvariants() {
	if m.limit > 0 && m.g.open > m.limit && m.g.open > m.wasOpen {
		m.fail("%d are open, and were %d, at a limit of %d", m.g.open, m.wasOpen, m.limit)
	}
	if m.next() == nil {
		return
	}
	if m.room() && !m.paced() || m.shut {
		m.fail("%d wait while one may dial, or at a gate that is shut", len(m.queue))
	}
	if m.takeable(m.now) != nil && m.trust != Watchful { // there time makes them takeable: see checkWake
		m.fail("%d wait while %d are ready for them", len(m.queue), len(m.ready))
	}
	if m.trust == Watchful && len(m.ready) > m.listed() {
		m.fail("%d wait while one is ready that no ticket answers for", len(m.queue))
	}
}

// checkExpiries checks the heap of expiries.
func (m *model) checkExpiries() {
	h := m.g.expiries
	for i, s := range h {
		switch {
		case s.index != i+1 || s.place == closing:
			m.fail("a session in the heap of expiries is closing, or at another index")
		case s.due > s.life.Expiry(s.heard):
			m.fail("an expiry is looked at too late")
		case i > 0 && h[(i-1)/2].due > s.due:
			m.fail("the heap of expiries is out of order")
		}
	}
	for _, s := range m.ready {
		if !s.life.Expiry(s.heard).IsZero() && s.real.index == 0 {
			m.fail("the expiry of a ready session is not looked at")
		}
		if at := s.silentAt(); m.keep > 0 && at > m.now && s.real.due > at {
			m.fail("a session that is kept is looked at too late to be heard of")
		}
	}
}

// checkWake checks that Wake is called no later than there is something to do.
func (m *model) checkWake() {
	if m.g.waking != *m.armed {
		m.fail("the gate believes that it is woken at %d, and is at %d", m.g.waking, *m.armed)
	}
	if m.shut {
		return
	}
	for _, s := range m.ready {
		if at := s.life.Expiry(s.heard); !at.IsZero() && (m.armed.IsZero() || *m.armed > at) {
			m.fail("the gate is woken at %d, and a session expires at %d", *m.armed, at)
		}
		if s.real.index > 0 && (m.armed.IsZero() || *m.armed > s.real.due) {
			m.fail("the gate is woken at %d, and looks at a session at %d", *m.armed, s.real.due)
		}
	}
	if at := m.pace.until; !at.IsZero() && (m.armed.IsZero() || *m.armed > at) {
		m.fail("the gate is woken at %d, and a rest ends at %d", *m.armed, at)
	}
	if m.keptBack() {
		if at := max(m.pace.let.Add(longDial), m.pace.until); m.armed.IsZero() || *m.armed > at {
			m.fail("the gate is woken at %d, and one more may dial at %d", *m.armed, at)
		}
	}
	if m.trust == Watchful && m.next() != nil && len(m.ready) > 0 {
		if at := m.ready[0].used.Add(grace); m.armed.IsZero() || *m.armed > at {
			m.fail("the gate is woken at %d, and somebody is to be served at %d", *m.armed, at)
		}
	}
}

// sleep lets time pass.
func (m *model) sleep(d time.Duration) {
	time.Sleep(d) //nolint:forbidigo // virtual time, and nobody else is in it
	synctest.Wait()
	m.now = clock.Now()
}

// finish ends everything, and checks that nothing is left.
func (m *model) finish() {
	if !m.shut {
		m.doShut()
		m.check()
	}
	for {
		m.wasOpen, m.wasTaken = m.open(), m.taken()
		switch {
		case m.stepCollect(), m.stepDialed(), m.stepPutBack(), m.stepReturn(), m.stepReplace(), m.stepRejoin(), m.stepGone(), m.stepDrop():
			m.check()
			continue
		}
		break
	}
	var closed uint64
	for _, n := range m.g.counts.Closed {
		closed += n
	}
	if g := m.g; g.open+g.free+len(g.expiries) != 0 || closed != uint64(len(m.sessions)) {
		m.fail("%d sessions are left, and %d tickets, and %d expiries; %d were closed of %d", g.open, g.free, len(g.expiries), closed, len(m.sessions))
	}
	for _, s := range m.sessions {
		if s.closers != 1 || s.closed != 1 {
			m.fail("a session was given to %d closers, and closed %d times", s.closers, s.closed)
		}
	}
}
