package gate

import (
	"cmp"
	"flag"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/sqllease/sqllease/internal/clock"
)

// The gate against a model: a plain, slow and obviously right account of what must
// happen. Both are driven through the same random schedule, one step at a time, and
// compared as a whole after every step (model_check_test.go). The steps, each with what
// it must come to, are in model_steps_test.go.

// modelSession is a session as the model sees it.
type modelSession struct {
	real      *conn
	life      Life
	place     place
	by        holder       // whose hands it is in, while held
	ticket    *modelTicket // under which it is on lease; nil: none
	fresh     bool         // nobody has given it back yet
	used      clock.Instant
	heard     clock.Instant
	hold      uint64
	lane      LaneID // for which it is held
	era       int    // of the gate, when it was dialed
	reason    Reason
	ended     int          // how many of its holds have ended
	replacing *modelWaiter // who closes it, and wants another; nil: nobody
	closers   int          // to how many it was given to be closed
	closed    int          // how often it was closed
}

// holder is who holds a session.
type holder uint8

const (
	byCaller holder = iota
	byWaiter        // it was served to one who has not noticed yet
	byKeeper        // TakeReady took it, or TakeSilent
)

// modelTicket is a ticket as the model sees it, while it is not on lease.
type modelTicket struct {
	real *Ticket[conn]
	free bool
	away bool // a caller has it whose lane is barred
	last *modelSession
}

// modelWaiter is a waiter, from joining the queue until its wait has returned.
type modelWaiter struct {
	real    *Waiter[conn, caller]
	caller  *caller
	number  uint64
	since   clock.Instant
	waited  time.Duration
	session *modelSession // what it was served
	err     error         // likewise; both nil: room
	joined  int           // how often its caller joined the queue
	lane    LaneID
	until   clock.Instant // what it is served from then on is of no use to it; zero: it always is
	crowd   bool          // when it was let dial, any number might
}

// model drives a gate and says what it must do.
type model struct {
	t       *testing.T
	seed    uint64
	rand    *rand.Rand
	steps   []string
	counted map[string]int
	g       *Gate[conn, caller]
	armed   *clock.Instant // when the gate has Wake called; zero: it has not
	now     clock.Instant

	limit    int
	keep     int
	lanes    []*modelLane
	dials    []LaneID // those that are on: for which lane
	pace     pace     // how many may be dialed at once
	shut     bool
	trust    Trust
	era      int // how often several pools have become one
	silent   int // tickets dropped since somebody asked
	patience int
	doubts   int
	bad      clock.Instant
	held     []*modelSession // in order of acquiring
	ready    []*modelSession // in order of their last use
	closing  []*modelSession
	sessions []*modelSession // every one that ever was
	queue    []*modelWaiter  // in order of their numbers
	served   []*modelWaiter  // those who have not noticed yet
	refused  []*modelWaiter  // whose dials were: they are about to wait again
	idle     []*modelWaiter  // whose wait is over: they are used again
	tickets  []*modelTicket
	arrived  []uint64 // numbers of those who were sent away, and are to come back
	holds    uint64
	arrivals uint64
	counts   Counts
	wasOpen  int // before the step
	wasTaken int // likewise: places that are in use, or reserved
}

func newModel(t *testing.T, seed uint64, counted map[string]int) *model {
	m := &model{t: t, seed: seed, rand: rand.New(rand.NewPCG(seed, 1)), counted: counted, now: clock.Now()}
	m.limit, m.keep = int(seed%6), int(seed/6%3)
	m.g, m.armed = newGate(m.limit, m.keep, m.anyLanes()...)
	m.g.doubt = func() { m.doubts-- }
	if m.patience = leastPatience; m.rand.IntN(2) == 0 {
		m.patience = m.rand.IntN(4)
		m.g.patience = m.patience
	}
	for m.trust = Draining; m.trust == Draining; {
		m.trust = m.anyTrust()
	}
	m.g.SetTrust(m.trust, m.now)
	return m
}

func (m *model) fail(format string, args ...any) {
	m.t.Helper()
	last := m.steps[max(0, len(m.steps)-40):]
	require.FailNow(m.t, fmt.Sprintf(format, args...), "seed %d, %d steps, the last of them:\n%s", m.seed, len(m.steps), strings.Join(last, "\n"))
}

// did notes what a step came to.
func (m *model) did(what string) {
	m.steps = append(m.steps, what)
	m.counted[what]++
}

// What the gate's state comes to.

func (m *model) open() int {
	return len(m.held) + len(m.ready) + len(m.closing) + len(m.dials)
}

func (m *model) room() bool { return m.limit == 0 || m.open() < m.limit }

// crowded tells whether as many dial as may since a dial has failed.
func (m *model) crowded() bool { return m.pace.most > 0 && len(m.dials) >= m.pace.most }

// paced tells whether nobody may dial who has room, since others do, or in a rest.
func (m *model) paced() bool { return m.crowded() || !m.pace.until.IsZero() }

// keptBack tells whether somebody waits only because others dial.
func (m *model) keptBack() bool { return m.next() != nil && m.room() && m.paced() }

// beginDial lets one dial; nil: it is dialed ahead.
func (m *model) beginDial(w *modelWaiter) {
	lane := NoLane
	if w != nil {
		w.crowd = m.pace.most == 0
		lane = w.lane
	}
	m.dials = append(m.dials, lane)
	if m.pace.most > 0 {
		m.pace.let = m.now
	}
}

// over tells whether more are there than the limit allows, without those that go anyway.
func (m *model) over() bool { return m.limit > 0 && m.open()-len(m.closing) > m.limit }

// listed are the tickets that are in the pool's free list: nobody has them whose lane is barred.
func (m *model) listed() int {
	return len(where(m.tickets, func(t *modelTicket) bool { return t.free && !t.away }))
}

func (m *model) free() (n int) {
	for _, t := range m.tickets {
		if t.free {
			n++
		}
	}
	return n
}

func (m *model) expired(s *modelSession, now clock.Instant) bool {
	if !s.life.End.IsZero() && now >= s.life.End {
		return true
	}
	return s.life.Idle > 0 && now.Sub(s.heard) >= s.life.Idle
}

// silentAt is when a session is to be looked after, so that it is not idle for too long; zero:
// never.
func (s *modelSession) silentAt() clock.Instant {
	idle := s.heard.Add(s.life.Idle)
	if s.life.Idle == 0 || !s.life.Pings || !s.life.End.IsZero() && s.life.End <= idle {
		return 0
	}
	return idle.Add(-min(s.life.Idle/10, 5*time.Second))
}

// tended are those that somebody looks after.
func (m *model) tended() int {
	return len(where(m.held, func(s *modelSession) bool { return s.by == byKeeper }))
}

// takeable is the ready session that goes to whoever waits, or comes to Ask; nil: none.
func (m *model) takeable(now clock.Instant) *modelSession {
	if len(m.ready) == 0 {
		return nil
	}
	oldest, newest := m.ready[0], m.ready[len(m.ready)-1]
	unanswered := len(m.ready) > m.listed() // no ticket answers for one of them
	may := false
	switch m.trust {
	case Alone:
		may = true
	case Watchful:
		may = unanswered || now.Sub(oldest.used) >= grace
	case Draining:
		may = unanswered
	case Private:
		if m.room() && m.pace.until.IsZero() {
			return nil
		}
		return oldest
	}
	switch {
	case !may:
		return nil
	case m.listed() == 0:
		return newest
	}
	return oldest
}

// What happens to sessions and waiters.

func (m *model) begin(s *modelSession, by holder, lane LaneID) {
	m.ready = without(m.ready, s)
	m.holds++
	m.counts.Holds++
	if lane != NoLane {
		m.lanes[lane].counts.Holds++
	}
	s.place, s.by, s.hold, s.lane = held, by, m.holds, lane
	m.held = append(m.held, s)
}

func (m *model) end(s *modelSession, now clock.Instant) {
	m.held = without(m.held, s)
	s.ended++
	s.used, s.ticket = now, nil
}

// reject ends a hold that does not count, and was no use of the session.
func (m *model) reject(s *modelSession) {
	m.end(s, s.used)
	m.counts.Holds--
	if s.lane != NoLane {
		m.lanes[s.lane].counts.Holds--
	}
}

func (m *model) toReady(s *modelSession) {
	s.place = ready
	m.ready = append(m.ready, s)
	slices.SortStableFunc(m.ready, func(a, b *modelSession) int { return cmp.Compare(a.used, b.used) })
}

func (m *model) toCloser(s *modelSession, why Reason) {
	m.ready = without(m.ready, s)
	s.place, s.reason = closing, why
	s.closers++
	m.closing = append(m.closing, s)
}

// misfit tells whether a held session that comes back must be closed, and why.
func (m *model) misfit(s *modelSession, now clock.Instant) (why Reason, misfit bool) {
	switch {
	case m.shut:
		return ShutDown, true
	case m.expired(s, now):
		return Expired, true
	}
	if m.over() {
		return OverSize, true
	}
	return Dropped, m.foreign(s)
}

// foreign tells whether a session may be of a pool that has gone.
func (m *model) foreign(s *modelSession) bool { return m.trust != Private && s.era != m.era }

// park is where a held session goes of which the pool knows nothing. It tells whether it
// is to be closed. spare says that it stays although no ticket would answer for it.
func (m *model) park(s *modelSession, spare bool) bool {
	why, misfit := m.misfit(s, m.now)
	m.reject(s)
	switch next := m.nextFit(m.now); {
	case misfit:
		m.toCloser(s, why)
	case next != nil:
		m.serve(next, s, m.now)
	case !spare && len(m.ready) >= max(m.free(), m.keep):
		m.toCloser(s, Dropped)
	default:
		m.toReady(s)
	}
	closes := s.place == closing
	m.freed(m.now)
	return closes
}

func (m *model) number(w *modelWaiter) {
	if w.number == 0 {
		m.arrivals++
		w.number = m.arrivals
	}
}

func (m *model) join(w *modelWaiter) {
	w.since = m.now
	m.number(w)
	w.joined++
	m.queue = append(m.queue, w)
	slices.SortStableFunc(m.queue, func(a, b *modelWaiter) int { return cmp.Compare(a.number, b.number) })
}

// serve serves one who waits; s is nil: room.
func (m *model) serve(w *modelWaiter, s *modelSession, now clock.Instant) {
	m.checkNext(w)
	w.waited += max(now.Sub(w.since), 0)
	m.counts.Waits++
	m.counts.QueueTime += w.waited
	l := m.lanes[w.lane]
	l.counts.Waits++
	l.counts.QueueTime += w.waited
	m.answer(w, s, nil)
	if s != nil {
		m.begin(s, byWaiter, w.lane)
	}
}

// answer takes a waiter out of the queue.
func (m *model) answer(w *modelWaiter, s *modelSession, err error) {
	m.quit(w)
	w.session, w.err = s, err
	m.served = append(m.served, w)
}

// admit lets those who wait dial while they may.
func (m *model) admit() {
	for !m.shut && m.room() && !m.paced() {
		w := m.nextFit(m.now)
		if w == nil {
			break
		}
		m.beginDial(w)
		m.serve(w, nil, m.now)
	}
	if m.trust == Private {
		m.settle(m.now)
	}
}

// drains tells whether tickets are kept, one of which is about to be dropped.
func (m *model) drains() bool {
	if m.trust != Alone || m.shut {
		return m.trust == Draining && !m.shut
	}
	if m.silent++; m.silent <= m.patience {
		return false
	}
	m.silent, m.patience, m.trust = 0, min(2*m.patience, mostPatience), Draining
	m.doubts++
	return true
}

// trim closes the ready sessions that are over the limit.
func (m *model) trim() (over []*modelSession) {
	for m.trust != Draining && len(m.ready) > 0 && m.over() {
		over = append(over, m.ready[0])
		m.toCloser(m.ready[0], OverSize)
	}
	return over
}

// settle serves those who wait what may be given to them.
func (m *model) settle(now clock.Instant) {
	for m.takeable(now) != nil {
		w := m.nextFit(now)
		if w == nil {
			return
		}
		m.serve(w, m.takeable(now), now)
	}
}

func without[T comparable](list []T, x T) []T {
	return slices.DeleteFunc(slices.Clone(list), func(y T) bool { return y == x })
}

func pick[T any](r *rand.Rand, list []T) T { return list[r.IntN(len(list))] }

// where are those of which something is true.
func where[T any](list []T, is func(T) bool) (all []T) {
	for _, x := range list {
		if is(x) {
			all = append(all, x)
		}
	}
	return all
}

// schedules is how many random ones the gate is driven through. Every second block of 18 has lanes.
var schedules = flag.Int("schedules", 8064, "how many random schedules the gate and its model are driven through")

func TestTheGateDoesWhatAPlainModelOfItDoes(t *testing.T) {
	const shards, few = 4, 20
	all := make([]map[string]int, shards)
	t.Run("", func(t *testing.T) {
		for shard := range shards {
			all[shard] = map[string]int{}
			t.Run("", func(t *testing.T) {
				t.Parallel()
				synctest.Test(t, func(t *testing.T) { // the gate reads the clock where nobody tells it the time
					for i := range *schedules / shards {
						runModel(t, uint64(i*shards+shard), all[shard])
					}
				})
			})
		}
	})
	counted := map[string]int{}
	for _, some := range all {
		for what, n := range some {
			counted[what] += n
		}
	}

	for _, what := range outcomes {
		assert.Greater(t, counted[what], few, "too few steps %q to prove anything", what)
		delete(counted, what)
	}
	assert.Empty(t, counted, "what steps came to")
}

func runModel(t *testing.T, seed uint64, counted map[string]int) {
	const steps = 250
	m := newModel(t, seed, counted)
	next := m.schedule()
	for n := 0; n < steps; {
		if m.wasOpen, m.wasTaken = m.open(), m.taken(); next()() {
			m.check()
			n++
		}
	}
	m.finish()
}

// schedule is a random one. Each seed likes some steps more than others, so that some
// schedules are saturated, some idle, some full of those who give up.
func (m *model) schedule() (next func() func() bool) {
	var bag []func() bool
	for _, f := range m.all() {
		for range f.often * (1 + m.rand.IntN(2)*m.rand.IntN(8)) {
			bag = append(bag, f.step)
		}
	}
	return func() func() bool { return pick(m.rand, bag) }
}
