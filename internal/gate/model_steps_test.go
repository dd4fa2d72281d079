package gate

import (
	"slices"
	"time"
)

// The steps of the model that move sessions. Each does one thing to the gate and to the
// model, and is false if there is nothing to do it to. Those that move waiters are in
// model_waits_test.go, those of dials in model_dials_test.go.

// all are the steps, each with how often it is in the bag.
func (m *model) all() []frequent {
	return []frequent{
		{12, m.stepAsk}, {1, m.stepArrive}, {9, m.stepCollect}, {4, m.stepGiveUp}, {1, m.stepOver},
		{1, m.stepRefuse}, {1, m.stepPrefer}, {1, m.stepSendAway},
		{14, m.stepDialed}, {2, m.stepUnreserve}, {2, m.stepFailed}, {1, m.stepFull}, {4, m.stepRejoin}, {1, m.stepReserve},
		{14, m.stepReturn}, {1, m.stepReturnBad}, {6, m.stepTake}, {4, m.stepLeave}, {1, m.stepFree}, {1, m.stepStays},
		{4, m.stepDrop}, {2, m.stepSurplus}, {2, m.stepPark}, {2, m.stepDeliver}, {1, m.stepCondemn}, {1, m.stepReject}, {1, m.stepUnfit},
		{9, m.stepGone}, {5, m.stepReplace}, {4, m.stepTakeReady}, {6, m.stepTakeSilent}, {6, m.stepPutBack},
		{1, m.stepLimit}, {1, m.stepTrust}, {1, m.stepFlush}, {1, m.stepShorten}, {1, m.stepShut}, {1, m.stepWake}, {4, m.stepTime}, {2, m.stepBrief},
	}
}

type frequent struct {
	often int
	step  func() bool
}

// outcomes are what steps come to. Each must happen often enough to prove something.
var outcomes = append(laneOutcomes,
	"ask: refused", "ask: behind others", "ask: ready", "ask: ready, without any ticket", "ask: ready, of another pool", "ask: room", "ask: waits",
	"ask: at an earlier place", "ask: overdue", "ask: waits for who dials",
	"comes to nothing", "replace: waits again", "replace: waits again, having queued", "replace: another is ready",
	"arrive", "collect: session", "collect: room", "collect: refused",
	"give up: queued", "give up: refused", "give up: room", "give up: session", "give up: session, closed", "over",
	"refuse", "prefer", "send away", "dialed", "dialed: ends in an earlier tenth", "dialed: the pace grows", "dialed: the pace is full", "dialed: one may dial", "unreserve", "failed", "failed: the next dials",
	"full: a rest", "full: in a rest", "full: there is no session", "rejoin", "rejoin: having queued", "rejoin: nothing to wait for", "rejoin: served at once", "rejoin: there is no session, and others were refused or dial",
	"reserve: too many dial", "reserve", "reserve: nothing missing",
	"return: bad", "return: misfit", "return: of another pool", "return: handed", "return: kept", "return: kept, while draining", "return: late", "return: kept, doubted",
	"take: own", "take: newest", "take: expired", "take: none", "take: none, and one is served",
	"leave", "leave: one is served", "free", "stays", "stays: not", "drop: not free", "drop: own", "drop: own, and no other", "drop: oldest", "drop: none", "drop: one is served",
	"surplus", "surplus: none", "park: kept", "park: served", "park: closed", "deliver: kept", "deliver: served", "deliver: closed", "condemn", "reject", "unfit", "fit",
	"gone", "gone: room", "replace", "take ready", "take silent", "take silent: too many are ready", "put back: heard of", "put back: kept", "put back: served", "put back: closed",
	"limit", "limit: over", "limit: room", "trust", "trust: one is served", "trust: over", "flush", "flush: nothing", "shorten", "shorten: spread", "shut", "wake", "wake: expired", "wake: one is served", "wake: one overtakes", "wake: a rest ends", "time",
)

// ofCallers are the sessions in the hands of callers.
func (m *model) ofCallers() []*modelSession {
	return where(m.held, func(s *modelSession) bool { return s.by == byCaller })
}

func (m *model) stepReturn() bool { return m.giveBack(false) }

func (m *model) stepReturnBad() bool { return m.giveBack(true) }

// giveBack gives a session back, under the ticket that it is on lease under, if any.
func (m *model) giveBack(bad bool) bool {
	all := m.ofCallers()
	if len(all) == 0 {
		return false
	}
	s, now := pick(m.rand, all), m.now
	if m.rand.IntN(4) == 0 { // the clock was read before the lock was taken
		if now = max(s.used, now.Add(-time.Duration(m.rand.IntN(2000)))); now != m.now {
			m.did("return: late")
		}
	}
	t := s.ticket
	if t == nil {
		t = &modelTicket{real: &Ticket[conn]{}}
	}
	if m.rand.IntN(4) > 0 { // else its holder has not used it
		s.heard = max(s.heard, now)
		s.real.Heard(s.heard)
	}
	why, misfit := m.misfit(s, now)
	over := m.over()
	got := m.g.Return(t.real, &s.real.Session, bad, now)
	m.end(s, now)
	t.last, s.fresh = s, false
	want, doubts, barred := Closed, m.doubts, len(m.queue) > 0
	next := m.nextFit(now)
	barred = barred && len(m.queue) > 0 && next == nil
	switch {
	case bad:
		m.did("return: bad")
		m.toCloser(s, Bad)
	case (next != nil || over) && !m.foreign(s) && m.drains():
		m.did("return: kept, " + map[bool]string{true: "doubted", false: "while draining"}[m.doubts > doubts])
		m.toReady(s)
		t.free = true
		want = Kept
	case misfit:
		m.did("return: misfit")
		m.toCloser(s, why)
	case next != nil && m.trust == Private:
		m.did("return: of another pool")
		m.toCloser(s, Dropped)
	case next != nil:
		m.did("return: handed" + map[bool]string{true: " to another lane"}[next.lane != s.lane])
		m.counts.Handovers++
		m.serve(next, s, now)
		want = Handed
	default:
		m.did("return: kept" + map[bool]string{true: ", while those wait whose lanes are barred"}[barred])
		m.toReady(s)
		t.free = true
		want = Kept
	}
	if got != want {
		m.fail("what is given back became %d, must be %d", got, want)
	}
	if want == Kept || m.rand.IntN(4) == 0 { // or it is dropped
		m.tickets = append(m.tickets, t)
	}
	m.freed(now)
	return true
}

// anyTicket is one that is not on lease.
func (m *model) anyTicket() *modelTicket {
	if len(m.tickets) == 0 {
		return nil
	}
	return pick(m.rand, m.tickets)
}

func (m *model) stepTake() bool {
	t := m.anyTicket()
	if t == nil {
		return false
	}
	own := m.rand.IntN(3) == 0
	lane := m.anyLane()
	s, fit, barred := m.g.Take(t.real, own, lane, m.now)
	if barred != m.barred(lane) {
		m.fail("the ticket's lane is barred: %v, must be %v", barred, !barred)
	}
	if barred {
		return m.takeBarred(t, s)
	}
	t.free, t.away = false, false
	want := t.last
	if want == nil || want.place != ready {
		want = nil
		if !own && m.trust != Private && len(m.ready) > 0 {
			want = m.ready[len(m.ready)-1]
		}
	}
	if s != realOf(want) || fit != (want != nil && !m.expired(want, m.now)) {
		m.fail("the ticket must take %+v", want)
	}
	switch {
	case want == nil:
		m.didServe("take: none", "take: none, and one is served", m.settleNow)
		if m.rand.IntN(4) > 0 {
			m.tickets = without(m.tickets, t)
		}
		return true
	case !fit:
		m.did("take: expired")
		m.toCloser(want, Expired)
	case want == t.last:
		m.did("take: own")
		m.begin(want, byCaller, lane)
	default:
		m.did("take: newest")
		m.begin(want, byCaller, lane)
	}
	m.tickets = without(m.tickets, t)
	if fit {
		want.ticket = t
	}
	return true
}

// didServe notes what a step came to: whether somebody was served by it.
func (m *model) didServe(none, some string, step func()) {
	before := len(m.served)
	if step(); len(m.served) > before {
		m.did(some)
		return
	}
	m.did(none)
}

func (m *model) stepLeave() bool {
	t := m.anyTicket()
	if t == nil {
		return false
	}
	m.g.Leave(t.real)
	t.free, t.away = false, false
	m.didServe("leave", "leave: one is served", m.settleNow)
	return true
}

func (m *model) stepFree() bool {
	if len(m.tickets) > 8 {
		return false
	}
	m.did("free")
	t := &modelTicket{real: &Ticket[conn]{}, free: true}
	m.g.Free(t.real)
	m.tickets = append(m.tickets, t)
	return true
}

func (m *model) stepStays() bool {
	t := m.anyTicket()
	if t == nil {
		return false
	}
	good := m.rand.IntN(2) == 0
	if good && !m.shut {
		t.free, t.away = true, false
	}
	if got := m.g.Stays(t.real, good); got != t.free {
		m.fail("the ticket stays: %v, must be %v", got, t.free)
	}
	m.did("stays" + map[bool]string{false: ": not"}[t.free])
	return true
}

func (m *model) stepDrop() bool {
	t := m.anyTicket()
	if t == nil {
		return false
	}
	got := m.g.Drop(t.real, m.now)
	wasFree := t.free
	t.free = false
	m.tickets = without(m.tickets, t)
	var want *modelSession
	own := t.last != nil && t.last.place == ready
	before := len(m.served)
	if wasFree {
		m.settleNow()
	}
	unclaimed := len(m.ready) > max(m.free(), m.keep)
	switch own = own && t.last.place == ready; {
	case !wasFree:
		m.did("drop: not free")
	case own && m.trust == Private:
		m.did("drop: own" + map[bool]string{false: ", and no other"}[unclaimed])
		want = t.last
	case own && unclaimed:
		m.did("drop: own")
		want = t.last
	case unclaimed:
		m.did("drop: oldest")
		want = m.ready[0]
	case len(m.served) > before:
		m.did("drop: one is served")
	default:
		m.did("drop: none")
	}
	if got != realOf(want) {
		m.fail("what is dropped must be %+v", want)
	}
	if want != nil {
		m.toCloser(want, Dropped)
	}
	return true
}

func (m *model) stepSurplus() bool {
	var want []*modelSession
	for _, s := range slices.Clone(m.ready) {
		old := !s.fresh || m.now.Sub(s.used) >= freshFor
		if old && (m.trust == Alone || m.trust == Private) && len(m.ready) > max(m.free(), m.keep) {
			want = append(want, s)
			m.toCloser(s, Dropped)
		}
	}
	if got := m.g.Surplus(m.now); !slices.Equal(got, realsOf(want)) {
		m.fail("there are %d too many, must be %d", len(got), len(want))
	}
	m.did("surplus" + map[bool]string{true: ": none"}[want == nil])
	return true
}

func (m *model) stepPark() bool {
	all := m.ofCallers()
	if len(all) == 0 {
		return false
	}
	s := pick(m.rand, all)
	before := len(m.served)
	want := m.park(s, false)
	switch {
	case len(m.served) > before:
		m.did("park: served")
	case want:
		m.did("park: closed")
	default:
		m.did("park: kept")
	}
	if got := m.g.Park(&s.real.Session, m.now); got != want {
		m.fail("Park says %v, must be %v", got, want)
	}
	return true
}

func (m *model) stepDeliver() bool {
	all := m.ofCallers()
	if len(all) == 0 {
		return false
	}
	s := pick(m.rand, all)
	before := len(m.served)
	want := m.park(s, true)
	switch {
	case len(m.served) > before:
		m.did("deliver: served")
	case want:
		m.did("deliver: closed")
	default:
		m.did("deliver: kept")
	}
	if got := m.g.Deliver(&s.real.Session, m.now); got != want {
		m.fail("Deliver says %v, must be %v", got, want)
	}
	return true
}

func (m *model) stepCondemn() bool {
	all := m.ofCallers()
	if len(all) == 0 {
		return false
	}
	before := len(m.served)
	s, why := pick(m.rand, all), pick(m.rand, []Reason{Bad, Taken})
	if m.rand.IntN(2) == 0 {
		m.g.Condemn(&s.real.Session, why, m.now)
	} else {
		m.g.Look(func() { m.g.CondemnLocked(&s.real.Session, why, m.now) })
	}
	m.end(s, m.now)
	m.toCloser(s, why)
	if why == Bad {
		m.bad = m.now
	}
	m.freed(m.now)
	m.did("condemn" + map[bool]string{true: ": one is served"}[len(m.served) > before])
	return true
}

// stepReject rejects a session of a caller, or of one who looked after it.
func (m *model) stepReject() bool {
	all := where(m.held, func(s *modelSession) bool { return s.by != byWaiter })
	if len(all) == 0 {
		return false
	}
	before := len(m.served)
	s, why := pick(m.rand, all), pick(m.rand, []Reason{Expired, Bad, Dropped})
	m.g.Reject(&s.real.Session, why)
	m.reject(s)
	m.toCloser(s, why)
	m.freed(m.now)
	m.did("reject" + map[bool]string{true: ": one is served"}[len(m.served) > before])
	return true
}

func (m *model) stepUnfit() bool {
	all := m.ofCallers()
	if len(all) == 0 {
		return false
	}
	s := pick(m.rand, all)
	want, unfit := Dropped, m.trust == Private && !s.fresh || m.foreign(s)
	switch {
	case m.expired(s, m.now):
		want, unfit = Expired, true
	case s.used < m.bad:
		want, unfit = Bad, true
	}
	if why, got := m.g.Unfit(&s.real.Session, m.now); got != unfit || unfit && why != want {
		m.fail("a session is unfit: %v for %d, must be %v for %d", got, why, unfit, want)
	}
	m.did(map[bool]string{true: "unfit", false: "fit"}[unfit])
	return true
}

// close closes a session, by whoever was told to: one who replaces it, or not.
func (m *model) close(replaces bool) *modelSession {
	all := where(m.closing, func(s *modelSession) bool { return (s.replacing != nil) == replaces })
	if len(all) == 0 {
		return nil
	}
	s := pick(m.rand, all)
	if got := s.real.Reason(); got != s.reason {
		m.fail("a session is closed as %d, must be %d", got, s.reason)
	}
	m.closing = without(m.closing, s)
	s.closed++
	m.counts.Closed[s.reason]++
	return s
}

func (m *model) stepGone() bool {
	s := m.close(false)
	if s == nil {
		return false
	}
	m.g.Gone(&s.real.Session)
	m.pace.until = 0
	m.didServe("gone", "gone: room", m.admit)
	return true
}

func (m *model) stepTakeReady() bool {
	most := 1 + m.rand.IntN(3)
	odd := func(s *conn) bool { return s.hold%2 == 1 }
	var want []*modelSession
	for _, s := range slices.Clone(m.ready) {
		if len(want) < most && s.hold%2 == 1 {
			want = append(want, s)
		}
	}
	if len(want) == 0 {
		return false
	}
	m.did("take ready")
	got := m.g.TakeReady(most, odd)
	for _, s := range want {
		m.begin(s, byKeeper, NoLane)
	}
	if !slices.Equal(got, realsOf(want)) {
		m.fail("%d were taken to be looked after, must be %d", len(got), len(want))
	}
	return true
}

// stepTakeSilent takes those of the kept sessions that will be silent for too long.
func (m *model) stepTakeSilent() bool {
	var want []*modelSession
	silent := 0
	for i, s := range m.ready {
		at := s.silentAt()
		if at.IsZero() || m.now < at || m.expired(s, m.now) {
			continue
		}
		if silent++; m.trust != Draining && i >= len(m.ready)-m.keep {
			want = append([]*modelSession{s}, want...) // the newest first
		}
	}
	got := m.g.TakeSilent(m.now)
	for _, s := range want {
		m.begin(s, byKeeper, NoLane)
	}
	if !slices.Equal(got, realsOf(want)) {
		m.fail("%d were taken that are silent, must be %d", len(got), len(want))
	}
	switch {
	case len(want) > 0:
		m.did("take silent")
	case silent > 0 && m.keep > 0 && m.trust != Draining:
		m.did("take silent: too many are ready")
	default:
		return false
	}
	return true
}

func (m *model) stepPutBack() bool {
	all := where(m.held, func(s *modelSession) bool { return s.by == byKeeper })
	if len(all) == 0 {
		return false
	}
	s := pick(m.rand, all)
	if m.rand.IntN(2) == 0 {
		m.did("put back: heard of")
		s.heard = m.now
		s.real.Heard(m.now)
	}
	why, misfit := m.misfit(s, m.now)
	m.reject(s)
	if misfit {
		m.did("put back: closed")
		m.toCloser(s, why)
	} else {
		m.toReady(s)
		m.didServe("put back: kept", "put back: served", m.settleNow)
	}
	if got := m.g.PutBack(&s.real.Session, m.now); got != misfit {
		m.fail("PutBack says %v, must be %v", got, misfit)
	}
	return true
}
