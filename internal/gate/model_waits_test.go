package gate

import (
	"context"
	"errors"
	"slices"
	"time"

	"github.com/sqllease/sqllease/internal/clock"
)

// The steps of the model that move waiters, and those that change the whole gate.

var (
	errRefused = errors.New("refused")
	errAway    = errors.New("sent away")
)

// fromIdle is a waiter whose last acquire is over, or a new one.
func (m *model) fromIdle() *modelWaiter {
	if len(m.idle) == 0 {
		m.idle = append(m.idle, &modelWaiter{real: &Waiter[conn, caller]{}, caller: &caller{}})
	}
	w := pick(m.rand, m.idle)
	w.number, w.since, w.waited, w.session, w.err = 0, 0, 0, nil, nil
	w.caller.ahead, w.caller.away = m.rand.IntN(2) == 0, m.rand.IntN(2) == 0
	if len(m.arrived) > 0 && m.rand.IntN(2) == 0 {
		w.number = pick(m.rand, m.arrived)
		m.arrived = without(m.arrived, w.number)
	}
	w.lane, w.until = m.anyLane(), m.anyUntil()
	w.real.Prepare(w.caller, w.number, w.lane, w.until)
	return w
}

func (m *model) stepAsk() bool {
	w := m.fromIdle()
	s, waits, err := m.g.Ask(w.real, m.now)
	var want *modelSession
	wantWaits := false
	if !m.shut {
		m.silent = 0
	}
	asks := m.next() == nil && !m.barred(w.lane) // nobody is before it who could have what it gets
	switch taken := m.takeable(m.now); {
	case m.shut:
		m.did("ask: refused")
		if s != nil || waits || err != ErrShut {
			m.fail("a gate that is shut answers %v, %v, %v", s, waits, err)
		}
		return true
	case !asks && m.tooMany(w.lane):
		return m.askTooMany(s, waits, err)
	case !asks && m.next() != nil:
		m.askBehind(w, taken != nil)
		wantWaits = true
	case !asks:
		m.did("ask: waits, since its lane is barred")
		m.idle = without(m.idle, w)
		m.join(w)
		wantWaits = true
	case taken != nil:
		what := "ask: ready"
		switch {
		case m.trust == Private:
			what += ", of another pool"
		case m.listed() == 0:
			what += ", without any ticket"
		}
		m.did(what)
		want = taken
		m.begin(taken, byCaller, w.lane)
		m.number(w)
	case m.room() && !m.paced():
		m.did("ask: room")
		m.number(w)
		m.beginDial(w)
	case m.tooMany(w.lane):
		return m.askTooMany(s, waits, err)
	default:
		m.did("ask: waits" + map[bool]string{true: " for who dials"}[m.room()])
		m.idle = without(m.idle, w)
		m.join(w)
		wantWaits = true
	}
	if s != realOf(want) || waits != wantWaits || err != nil {
		m.fail("it answers %v, %v, %v, must be %v, %v", s, waits, err, realOf(want), wantWaits)
	}
	switch {
	case want != nil:
		m.comesToNothing(want, w)
	case !waits:
		m.refuse(w)
	}
	return true
}

// askBehind joins those who wait. overdue: time has made something takeable, and Wake
// has not come yet.
func (m *model) askBehind(w *modelWaiter, overdue bool) {
	what := "ask: behind others"
	if w.number > 0 && w.number < m.queue[len(m.queue)-1].number {
		what = "ask: at an earlier place"
	}
	if overdue {
		what = "ask: overdue"
	}
	m.did(what)
	m.idle = without(m.idle, w)
	m.join(w)
	m.settleNow()
}

func (m *model) stepArrive() bool {
	if len(m.arrived) > 4 {
		return false
	}
	m.did("arrive")
	m.arrivals++
	if got := m.g.Arrive(); got != m.arrivals {
		m.fail("the arrival has number %d, must be %d", got, m.arrivals)
	}
	m.arrived = append(m.arrived, m.arrivals)
	return true
}

// stepCollect lets one go on who was served.
func (m *model) stepCollect() bool {
	if len(m.served) == 0 {
		return false
	}
	w := pick(m.rand, m.served)
	s, place, err := m.g.Wait(context.Background(), w.real, nil)
	if err != w.err || place != 0 || s != realOf(w.session) {
		m.fail("the wait ends with %v, %d, %v, must be %v, 0, %v", s, place, err, realOf(w.session), w.err)
	}
	m.leave(w)
	switch {
	case w.err != nil:
		m.did("collect: " + whyRefused(w.err))
	case w.session != nil:
		m.did("collect: session")
		w.session.by = byCaller
		m.comesToNothing(w.session, w)
	default:
		m.did("collect: room")
		m.refuse(w)
	}
	return true
}

// leave ends a wait.
func (m *model) leave(w *modelWaiter) {
	m.quit(w)
	m.served = without(m.served, w)
	m.idle = append(m.idle, w)
	if w.err == errAway {
		m.arrived = append(m.arrived, w.number)
	}
}

// stepGiveUp ends the context of a waiter, wherever it is, or has it leave.
func (m *model) stepGiveUp() bool {
	all := slices.Concat(m.queue, m.served)
	if len(all) == 0 {
		return false
	}
	w := pick(m.rand, all)
	mine := m.waitingIn(w.lane)
	index, waiting, first := slices.Index(mine, w), len(mine), uint64(0)
	if index >= 0 {
		first = mine[0].number
	}
	s, place, err := m.giveUp(w, m.rand.IntN(2) == 0)
	m.leave(w)
	var want *modelSession
	wantPlace := 0
	switch {
	case index >= 0:
		m.did("give up: queued")
		if wantPlace = min(int(w.number-first)+1, waiting); len(m.lanes) > 1 {
			wantPlace = index + 1
		}
		if wantPlace < index+1 {
			m.fail("the place is %d, but %d were before it", wantPlace, index)
		}
	case w.err != nil:
		m.did("give up: refused")
	case w.session == nil:
		m.did("give up: room")
		m.forget(w)
		m.endDial(w.lane)
	default:
		m.forget(w)
		if m.park(w.session, false) {
			want = w.session
		}
		m.did("give up: session" + map[bool]string{true: ", closed"}[want != nil])
	}
	if s != realOf(want) || place != wantPlace || err != w.err {
		m.fail("giving up ends with %v, %d, %v, must be %v, %d, %v", s, place, err, realOf(want), wantPlace, w.err)
	}
	return true
}

// giveUp has a waiter leave, by its context or directly, and tells only of refusals.
func (m *model) giveUp(w *modelWaiter, byContext bool) (s *conn, place int, err error) {
	if !byContext {
		return m.g.GiveUp(w.real)
	}
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	s, place, err = m.g.Wait(ctx, w.real, nil)
	switch {
	case w.err != nil:
	case err != context.Canceled:
		m.fail("a wait whose context ends has %v", err)
	default:
		err = nil
	}
	return s, place, err
}

// forget takes a wait out of the account that came to nothing.
func (m *model) forget(w *modelWaiter) {
	m.counts.Waits--
	m.counts.QueueTime -= w.waited
	l := m.lanes[w.lane]
	l.counts.Waits--
	l.counts.QueueTime -= w.waited
}

// stepOver ends the time that a waiter has.
func (m *model) stepOver() bool {
	if len(m.queue) == 0 {
		return false
	}
	m.did("over")
	w := pick(m.rand, m.queue)
	s, place, err := m.g.Wait(context.Background(), w.real, fired())
	m.leave(w)
	if s != nil || place == 0 || err != context.DeadlineExceeded {
		m.fail("a wait whose time is over ends with %v, %d, %v", s, place, err)
	}
	return true
}

func (m *model) stepRefuse() bool {
	if len(m.queue) == 0 {
		return false
	}
	m.did("refuse")
	w := pick(m.rand, m.queue)
	m.g.Look(func() { m.g.RefuseLocked(w.real, errRefused) })
	m.answer(w, nil, errRefused)
	return true
}

func (m *model) stepPrefer() bool {
	if len(m.queue) < 2 {
		return false
	}
	m.did("prefer")
	m.g.Look(func() { m.g.PreferLocked(func(c *caller) bool { return c.ahead }) })
	isAhead := func(w *modelWaiter) bool { return w.caller.ahead }
	others := where(m.queue, func(w *modelWaiter) bool { return !isAhead(w) })
	for _, w := range others {
		m.arrivals++
		w.number = m.arrivals
	}
	m.queue = append(where(m.queue, isAhead), others...)
	return true
}

func (m *model) stepSendAway() bool {
	if len(m.queue) == 0 {
		return false
	}
	m.did("send away")
	asked := 0
	before := slices.Clone(m.queue)
	m.g.SendAway(errAway, func(c *caller, number uint64) bool {
		if w := before[asked]; w.caller != c || w.number != number {
			m.fail("number %d is asked about, must be %d", number, w.number)
		}
		asked++
		return c.away
	})
	for _, w := range before {
		if w.caller.away {
			m.answer(w, nil, errAway)
		}
	}
	if asked != len(before) {
		m.fail("%d are asked about, must be %d", asked, len(before))
	}
	return true
}

func (m *model) stepLimit() bool {
	if m.trust != Draining && m.rand.IntN(4) > 0 {
		return false
	}
	n := max(0, m.rand.IntN(9)-1)
	got := m.g.SetLimit(n)
	m.limit = n
	before := len(m.served)
	m.freed(m.now)
	m.admit()
	want := m.trim()
	if !slices.Equal(got, realsOf(want)) {
		m.fail("a limit of %d closes %d, must be %d", n, len(got), len(want))
	}
	switch {
	case len(m.served) > before:
		m.did("limit: room")
	case len(want) > 0:
		m.did("limit: over")
	default:
		m.did("limit")
	}
	return true
}

func (m *model) anyTrust() Trust {
	return pick(m.rand, []Trust{Alone, Alone, Watchful, Watchful, Watchful, Draining, Draining, Private})
}

func (m *model) stepTrust() bool {
	if m.rand.IntN(4) > 0 {
		return false
	}
	t := m.anyTrust()
	got := m.g.SetTrust(t, m.now)
	var want []*modelSession
	if m.trust == Private && t != Private {
		m.era++
		for len(m.ready) > 0 {
			want = append(want, m.ready[0])
			m.toCloser(m.ready[0], Dropped)
		}
	}
	if m.trust, m.silent = t, 0; t == Draining {
		m.patience = leastPatience
	}
	want = append(want, m.trim()...)
	if !slices.Equal(got, realsOf(want)) {
		m.fail("trusted otherwise, it closes %d, must be %d", len(got), len(want))
	}
	m.didServe("trust"+map[bool]string{true: ": over"}[want != nil], "trust: one is served", m.settleNow)
	return true
}

func (m *model) stepShut() bool {
	if m.rand.IntN(100) > 0 {
		return false
	}
	m.doShut()
	return true
}

func (m *model) doShut() {
	m.did("shut")
	got := m.g.Shut()
	m.shut = true
	for len(m.queue) > 0 {
		m.answer(m.queue[0], nil, ErrShut)
	}
	want := m.ready
	for _, s := range want {
		m.toCloser(s, ShutDown)
	}
	if !slices.Equal(got, realsOf(want)) {
		m.fail("shutting returns %d, must be %d", len(got), len(want))
	}
}

// stepFlush brings the ends of what is there forward, those of the ready sessions first.
func (m *model) stepFlush() bool {
	over := time.Duration(m.rand.IntN(30)) * time.Second
	m.g.Flush(over, m.now)
	all := slices.Concat(m.ready, m.held)
	for i, s := range all {
		if at := m.now.Add(over / time.Duration(len(all)) * time.Duration(i+1)); s.life.End.IsZero() || at < s.life.End {
			s.life.End = at
		}
	}
	if len(all) == 0 {
		m.did("flush: nothing")
		return true
	}
	m.did("flush")
	return true
}

// stepShorten shortens lives, but for those that are shorter already.
func (m *model) stepShorten() bool {
	m.did("shorten")
	lives := map[*conn]Life{}
	var nearer []*modelSession
	for _, s := range slices.Concat(m.ready, m.held) {
		l := Life{Idle: time.Duration(m.rand.IntN(40)) * time.Second}
		if m.rand.IntN(2) == 0 {
			l.End = m.now.Add(time.Duration(m.rand.IntN(100)-10) * time.Second)
			l.Jitter, l.Chance = m.rand.Float64(), m.rand.Float64()
		}
		lives[s.real] = l
		if l.Idle > 0 && (s.life.Idle == 0 || l.Idle < s.life.Idle) {
			s.life.Idle = l.Idle
		}
		if !l.End.IsZero() && (s.life.End.IsZero() || l.End < s.life.End) {
			s.life.End, s.life.Jitter, s.life.Chance = l.End, l.Jitter, l.Chance
			nearer = append(nearer, s)
		}
	}
	m.spreadAll(nearer)
	m.g.ShortenAll(func(c *conn) Life { return lives[c] }, m.now)
	return true
}

func (m *model) stepWake() bool {
	got := m.doWake()
	before := len(m.served)
	m.settleNow()
	if m.pace.until <= m.now && !m.pace.until.IsZero() {
		m.did("wake: a rest ends")
		m.pace.until = 0
		m.admit()
	}
	if m.keptBack() && m.now.Sub(m.pace.let) >= longDial {
		m.did("wake: one overtakes")
		m.pace.most = len(m.dials) + 1
		m.admit()
	}
	m.relieve()
	want := where(m.ready, func(s *modelSession) bool { return m.expired(s, m.now) })
	for _, s := range want {
		m.toCloser(s, Expired)
		if !slices.Contains(got, s.real) {
			m.fail("a session that has expired was left")
		}
	}
	if len(got) != len(want) {
		m.fail("%d have expired, must be %d", len(got), len(want))
	}
	switch {
	case len(where(m.served[before:], func(w *modelWaiter) bool { return w.err == nil })) > 0:
		m.did("wake: one is served")
	case len(want) > 0:
		m.did("wake: expired")
	default:
		m.did("wake")
	}
	return true
}

// doWake calls Wake until nothing is left to be done. It is to be called again at once only where
// there was much to do.
func (m *model) doWake() (expired []*conn) {
	for more := true; more; {
		var some []*conn
		waited := figures(m.g).Waiting
		*m.armed = clock.Instant(0)
		some, more = m.g.Wake(m.now)
		expired = append(expired, some...)
		if again := !m.armed.IsZero() && *m.armed <= m.now; again {
			if waited-figures(m.g).Waiting < mostAtOnce {
				m.fail("Wake was called, had little to do, and is to be called again at once")
			}
			more = true
		}
	}
	return expired
}
