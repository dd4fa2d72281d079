package sqllease

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// The gate against a model: a plain, slow and obviously right account of what
// must happen. Both are driven through the same random schedule, one step at a
// time, and compared as a whole after every step.

// modelSession is a session as the model sees it.
type modelSession struct {
	real   *session
	h      *modelHandle // nil: under none
	where  place
	reason closeReason
	used   instant
	closed int // how often it was closed
}

// modelHandle is a handle as the model sees it.
type modelHandle struct {
	real     *handle
	s        *modelSession // nil: hollow
	begun    instant
	reported bool
	empty    bool
}

// modelWaiter is a waiter from joining the queue until its wait returned.
type modelWaiter struct {
	real    *waiter
	queued  bool
	session *modelSession // what it was served
	err     error         // likewise; both nil: room
}

// gateModel drives a gate and says what it must do.
type gateModel struct {
	t    *testing.T
	seed uint64
	rand *rand.Rand
	log  []string
	g    *gate
	now  instant

	limit     int
	closed    bool
	draining  bool
	dialing   int
	idle      []*modelSession // longest idle first
	spare     []*modelSession // longest spare first
	queue     []*modelWaiter  // longest waiting first
	leases    []*modelHandle  // in order of acquiring
	served    []*modelWaiter  // served, wait not yet returned
	transit   []*modelSession // with a goroutine that was given it
	closing   []*modelSession
	sessions  []*modelSession // every one that ever was
	handles   []*modelHandle  // every one that database/sql still has
	counts    gateCounts
	armedFor  instant // what the gate armed the expiry's timer for
	watchedAt instant // what the gate armed the watch's timer for
	lastBad   instant
}

const modelThreshold = 20 * time.Second

func newGateModel(t *testing.T, seed uint64, limit int) *gateModel {
	m := &gateModel{
		t: t, seed: seed, rand: rand.New(rand.NewPCG(seed, 1)), limit: limit,
		now: instant(time.Hour),
	}
	m.g = &gate{
		limit: limit, threshold: modelThreshold,
		longCall:  -1,
		armWatch:  func(at instant) { m.watchedAt = at },
		armQueue:  func(instant) {},
		armDrain:  func() {},
		armExpiry: func(at instant) { m.armedFor = at },
	}
	return m
}

func (m *gateModel) require(ok bool, format string, args ...any) {
	if !ok {
		m.t.Helper()
		from := max(0, len(m.log)-60)
		require.FailNow(m.t, fmt.Sprintf(format, args...), "seed %d, steps:\n%s", m.seed, strings.Join(m.log[from:], "\n"))
	}
}

func (m *gateModel) note(format string, args ...any) {
	m.log = append(m.log, fmt.Sprintf("%4d %s", len(m.log), fmt.Sprintf(format, args...)))
}

// open is how many sessions take room. A waiter that was served room counts
// as dialling from then on.
func (m *gateModel) open() int {
	n := m.dialing + len(m.idle) + len(m.spare) + len(m.leases) + len(m.transit) + len(m.closing)
	for _, w := range m.served {
		if w.session != nil {
			n++
		}
	}
	return n
}

func (m *gateModel) room() bool { return m.limit == 0 || m.open() < m.limit }
func (m *gateModel) over() bool { return m.limit > 0 && m.open() > m.limit }

// admit lets waiters dial while there is room.
func (m *gateModel) admit() {
	for !m.closed && len(m.queue) > 0 && m.room() {
		m.serve(nil, nil)
		m.dialing++
	}
}

// serve serves the first waiter.
func (m *gateModel) serve(s *modelSession, err error) {
	w := m.queue[0]
	m.queue = m.queue[1:]
	w.queued, w.session, w.err = false, s, err
	if s != nil {
		m.leaveHandle(s)
		s.where = inTransit
	}
	m.served = append(m.served, w)
}

func (m *gateModel) leaveHandle(s *modelSession) {
	if s.h != nil {
		s.h.s = nil
		s.h = nil
	}
}

// emptyHandle takes an idle session from under its handle, which database/sql
// has in its free list.
func (m *gateModel) emptyHandle(s *modelSession) {
	if s.h != nil {
		s.h.empty = true
	}
	m.leaveHandle(s)
}

func (m *gateModel) toCloser(s *modelSession, why closeReason) {
	s.where, s.reason = atCloser, why
	m.closing = append(m.closing, s)
}

func (m *gateModel) toTransit(s *modelSession) {
	m.leaveHandle(s)
	s.where = inTransit
	m.transit = append(m.transit, s)
}

// put is where a session goes that nobody wants for itself; false: the closer.
func (m *gateModel) put(s *modelSession) bool {
	switch {
	case m.closed:
		m.toCloser(s, closedShutdown)
		return false
	case m.over():
		m.toCloser(s, closedLimit)
		return false
	case len(m.queue) > 0:
		m.serve(s, nil)
	default:
		s.where = isSpare
		m.spare = append(m.spare, s)
	}
	return true
}

func (m *gateModel) expired(s *modelSession) bool { return s.real.life.expired(s.used, m.now) }

func modelWithout[T comparable](list []T, x T) []T {
	return slices.DeleteFunc(slices.Clone(list), func(y T) bool { return y == x })
}

func modelPick[T any](r *rand.Rand, list []T) T { return list[r.IntN(len(list))] }

func (m *gateModel) newHandle() *modelHandle {
	h := &modelHandle{real: &handle{}, begun: m.now}
	h.real.lease.handle = h.real
	h.real.lease.start = m.now
	h.real.lease.hold(m.now, parts{})
	h.real.lease.limit = modelThreshold
	m.handles = append(m.handles, h)
	return h
}

// The steps. Each does one thing to the gate and to the model, and reports
// false if there is nothing to do it to.

func (m *gateModel) stepAsk() bool {
	var looked instant
	if m.rand.IntN(4) == 0 {
		looked = m.now.Add(-time.Duration(m.rand.IntN(5000)) * time.Millisecond)
	}
	s, w, err := m.g.ask(&lease{}, m.now, looked)
	switch {
	case m.closed:
		m.note("ask: refused")
		m.require(err == ErrClosed && s == nil && w == nil, "a closed gate answers %v, %v, %v", s, w, err)
	case len(m.spare) > 0:
		want := m.spare[len(m.spare)-1]
		m.note("ask: spare")
		m.require(s == want.real && w == nil && err == nil, "expected the newest spare session")
		m.spare = m.spare[:len(m.spare)-1]
		m.toTransit(want)
	case m.room():
		m.note("ask: room")
		m.require(s == nil && w == nil && err == nil, "expected room")
		m.dialing++
	case len(m.idle) > 0 && !m.draining && !looked.IsZero() && m.idle[0].used > looked:
		m.note("ask: unsure")
		m.require(s == nil && w == nil && err == errUnsure, "a session that came back meanwhile must not be stolen")
	case len(m.idle) > 0 && !m.draining:
		want := m.idle[0]
		want.h.empty = true
		m.note("ask: steal")
		m.require(s == want.real && w == nil && err == nil, "expected the session that was idle longest")
		m.idle = m.idle[1:]
		m.counts.steals++
		m.toTransit(want)
	default:
		m.note("ask: queue")
		m.require(s == nil && w != nil && err == nil, "expected a waiter")
		m.queue = append(m.queue, &modelWaiter{real: w, queued: true})
	}
	return true
}

// diallers is how many goroutines dial now: of those counted as dialling, the
// ones that are no waiters on their way to it.
func (m *gateModel) diallers() int {
	n := m.dialing
	for _, w := range m.served {
		if w.session == nil && w.err == nil {
			n--
		}
	}
	return n
}

func (m *gateModel) stepDialed() bool {
	if m.diallers() == 0 {
		return false
	}
	m.note("dialled")
	s := &modelSession{real: &session{life: lifetime{born: m.now}}, used: m.now}
	if m.rand.IntN(2) == 0 {
		s.real.life.whole = time.Duration(1+m.rand.IntN(60)) * time.Second
	}
	if m.rand.IntN(3) == 0 {
		s.real.life.idle = time.Duration(1+m.rand.IntN(20)) * time.Second
	}
	m.sessions = append(m.sessions, s)
	m.g.dialed(s.real, m.now)
	m.dialing--
	m.toTransit(s)
	return true
}

func (m *gateModel) stepDialFailed() bool {
	if m.diallers() == 0 {
		return false
	}
	m.note("dial failed")
	m.g.unreserve()
	m.dialing--
	m.admit()
	return true
}

func (m *gateModel) stepReserve() bool {
	want := !m.closed && m.room()
	m.note("reserve: %v", want)
	m.require(m.g.reserve() == want, "reserve must say %v", want)
	if want {
		m.dialing++
	}
	return true
}

func (m *gateModel) stepLend() bool {
	if len(m.transit) == 0 {
		return false
	}
	s, h := modelPick(m.rand, m.transit), m.newHandle()
	if m.rand.IntN(4) == 0 {
		m.note("lend to a pending handle")
		m.g.giveEmpty(h.real)
	}
	m.note("lend")
	m.g.lend(s.real, h.real)
	m.transit = modelWithout(m.transit, s)
	s.where, s.h, h.s = onLease, h, s
	m.leases = append(m.leases, h)
	m.counts.acquires++
	return true
}

// stepRequeue ends the slow reset of a lease that has begun.
func (m *gateModel) stepRequeue() bool {
	if len(m.leases) == 0 {
		return false
	}
	m.note("requeue")
	h := modelPick(m.rand, m.leases)
	h.real.lease.hold(m.now, parts{})
	h.begun, h.reported = m.now, false
	m.g.requeue(&h.real.lease, m.now)
	m.leases = append(modelWithout(m.leases, h), h)
	return true
}

func (m *gateModel) stepPark() bool {
	if len(m.transit) == 0 {
		return false
	}
	m.note("park")
	s := modelPick(m.rand, m.transit)
	kept := m.g.park(s.real)
	stays := m.closed || m.over()
	m.transit = modelWithout(m.transit, s)
	if stays {
		// The room that s takes was just left out of the model's account.
		m.toCloser(s, map[bool]closeReason{true: closedShutdown, false: closedLimit}[m.closed])
	} else {
		m.require(m.put(s), "the model disagrees with itself")
	}
	m.require(kept == !stays, "park must say %v", !stays)
	return true
}

func (m *gateModel) stepCondemn() bool {
	if len(m.transit) == 0 {
		return false
	}
	m.note("condemn")
	s := modelPick(m.rand, m.transit)
	why, stale := m.g.stale(s.real, m.now)
	m.require(stale == (m.expired(s) || s.used < m.lastBad), "a session in transit that was last used at %v is stale: %v", s.used, stale)
	m.require(!m.expired(s) || why == closedExpired, "an expired session is stale as %v", why)
	m.g.condemn(s.real, closedBad)
	m.transit = modelWithout(m.transit, s)
	m.toCloser(s, closedBad)
	return true
}

func (m *gateModel) stepReplace() bool {
	s := m.takeClosing()
	if s == nil {
		return false
	}
	m.note("closed and replaced")
	m.g.replace(s.real)
	m.dialing++
	return true
}

func (m *gateModel) stepGone() bool {
	s := m.takeClosing()
	if s == nil {
		return false
	}
	m.note("closed")
	m.g.gone(s.real)
	m.admit()
	return true
}

// takeClosing closes a session whose closer reached it. One that is still
// under a handle waits for that handle to be dropped.
func (m *gateModel) takeClosing() *modelSession {
	var ready []*modelSession
	for _, s := range m.closing {
		if s.h == nil {
			ready = append(ready, s)
		}
	}
	if len(ready) == 0 {
		return nil
	}
	s := modelPick(m.rand, ready)
	m.closing = modelWithout(m.closing, s)
	s.closed++
	m.counts.closed[s.reason]++
	return s
}

func (m *gateModel) stepRelease() bool { return m.release(true) }

func (m *gateModel) stepBadRelease() bool { return m.release(false) }

func (m *gateModel) release(valid bool) bool {
	if len(m.leases) == 0 {
		return false
	}
	h := modelPick(m.rand, m.leases)
	s := h.s
	m.note("release, valid %v", valid)
	over := m.over()
	stays, e := m.g.release(h.real, valid, m.now)
	m.leases = modelWithout(m.leases, h)
	s.used = m.now
	m.require(e.reported == h.reported, "release must say that the lease was reported: %v", h.reported)
	switch {
	case !valid:
		m.toCloser(s, closedBad)
	case m.closed:
		m.toCloser(s, closedShutdown)
	case m.expired(s):
		m.toCloser(s, closedExpired)
	case over:
		m.toCloser(s, closedLimit)
	case len(m.queue) > 0:
		m.counts.handovers++
		m.serve(s, nil)
	case m.draining:
		m.leaveHandle(s)
		s.where = isSpare
		m.spare = append(m.spare, s)
	default:
		s.where = isIdle
		m.idle = append(m.idle, s)
	}
	m.require(stays == (s.where == isIdle), "release must say that the session stays: %v", s.where == isIdle)
	return true
}

// stepReleaseUnleased gives back a handle that has no lease.
func (m *gateModel) stepReleaseUnleased() bool {
	h := m.anyHandle(func(h *modelHandle) bool { return h.s == nil || h.s.where != onLease })
	if h == nil {
		return false
	}
	valid := m.rand.IntN(2) == 0
	m.note("release without a lease, valid %v", valid)
	stays, e := m.g.release(h.real, valid, m.now)
	want := valid && h.s != nil && h.s.where == isIdle
	m.require(stays == want && !e.reported, "release without a lease must say %v", want)
	return true
}

func (m *gateModel) anyHandle(ok func(*modelHandle) bool) *modelHandle {
	var fit []*modelHandle
	for _, h := range m.handles {
		if ok(h) {
			fit = append(fit, h)
		}
	}
	if len(fit) == 0 {
		return nil
	}
	return modelPick(m.rand, fit)
}

// stepCheckout takes a handle that database/sql believes free: idle, hollow,
// or with a session that waits for its closer.
func (m *gateModel) stepCheckout() bool {
	h := m.anyHandle(func(h *modelHandle) bool { return h.s == nil || h.s.where != onLease })
	if h == nil {
		return false
	}
	if h.real.lease.node.in == nil {
		h.real.lease.start = m.now
		h.real.lease.hold(m.now, parts{})
	}
	got := m.g.checkout(h.real, m.now)
	s := h.s
	switch {
	case s == nil || s.where != isIdle:
		m.note("checkout: refused")
		m.require(got == nil, "checkout must refuse a handle without a free session")
		h.empty = false
	case m.expired(s):
		m.note("checkout: expired")
		m.require(got == nil, "checkout must refuse an expired session")
		m.idle = modelWithout(m.idle, s)
		m.toCloser(s, closedExpired)
	default:
		m.note("checkout")
		m.require(got == s.real, "checkout must begin a lease")
		m.idle = modelWithout(m.idle, s)
		s.where = onLease
		h.begun, h.reported = m.now, false
		m.leases = append(m.leases, h)
		m.counts.acquires++
	}
	return true
}

// stepDrop closes a handle in whatever state it is.
func (m *gateModel) stepDrop() bool {
	h := m.anyHandle(func(*modelHandle) bool { return true })
	if h == nil {
		return false
	}
	keep := m.rand.IntN(4)
	m.note("drop, keep %d", keep)
	over := m.over()
	got, e := m.g.drop(h.real, keep, m.now)
	m.handles = modelWithout(m.handles, h)
	s := h.s
	if s == nil {
		m.dropEmpty(h, keep, got)
		m.require(!e.reported, "a hollow handle has no lease")
		return true
	}
	wasReported := s.where == onLease && h.reported
	m.require(e.reported == wasReported, "drop must say that the lease was reported: %v", wasReported)
	m.leaveHandle(s)
	switch s.where {
	case atCloser:
	case onLease:
		m.leases = modelWithout(m.leases, h)
		m.toCloser(s, closedBad)
		m.lastBad = m.now
	case isIdle:
		m.idle = modelWithout(m.idle, s)
		m.dropIdle(s, keep, over)
	default:
		m.require(false, "a session under a handle is in place %d", s.where)
	}
	want := s.real
	if s.where != atCloser {
		want = nil
	}
	m.require(got == want, "drop must say whether there is something to close")
	return true
}

// empty is how many handles take a place in the free list without a session.
func (m *gateModel) empty() (n int) {
	for _, h := range m.handles {
		if h.empty {
			n++
		}
	}
	return n
}

// dropEmpty drops a spare in the stead of an empty handle.
func (m *gateModel) dropEmpty(h *modelHandle, keep int, got *session) {
	if !h.empty || len(m.spare) <= m.empty() || len(m.idle)+len(m.spare) <= keep {
		m.require(got == nil, "a hollow handle has nothing to drop")
		return
	}
	s := m.spare[0]
	m.require(got == s.real, "the session that is spare longest is dropped for an empty handle")
	m.spare = m.spare[1:]
	m.toCloser(s, closedDropped)
}

func (m *gateModel) dropIdle(s *modelSession, keep int, over bool) {
	switch {
	case m.closed:
		m.toCloser(s, closedShutdown)
	case len(m.queue) == 0 && len(m.idle)+len(m.spare) >= keep && len(m.spare) >= m.empty():
		m.toCloser(s, closedDropped)
	case over:
		m.toCloser(s, closedLimit)
	case len(m.queue) > 0:
		m.serve(s, nil)
	default:
		s.where = isSpare
		m.spare = append(m.spare, s)
	}
}

// stepLeave ends a waiter's context, wherever it is.
func (m *gateModel) stepLeave() bool {
	all := slices.Concat(m.queue, m.served)
	if len(all) == 0 {
		return false
	}
	w := modelPick(m.rand, all)
	m.note("context ends: queued %v, session %v, err %v", w.queued, w.session != nil, w.err)
	index := slices.Index(m.queue, w)
	over := m.over()
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	got, place, err := m.g.wait(ctx, w.real)
	m.served = modelWithout(m.served, w)
	var want *modelSession
	switch {
	case w.queued:
		m.require(place >= 1 && place <= len(m.queue), "place %d of %d", place, len(m.queue))
		m.require(place >= index+1, "place %d, but %d were before it", place, index)
		m.queue = modelWithout(m.queue, w)
	case w.err != nil:
		m.require(err == w.err, "expected %v, got %v", w.err, err)
	case w.session != nil && over && !m.closed:
		m.toCloser(w.session, closedLimit)
		want = w.session
	case w.session != nil:
		if !m.put(w.session) {
			want = w.session
		}
	default:
		m.dialing--
		m.admit()
	}
	if w.err == nil {
		m.require(errors.Is(err, context.Canceled), "expected the context's error, got %v", err)
	}
	if !w.queued {
		m.require(place == 0, "a served waiter has no place")
	}
	m.require((got == nil) == (want == nil) && (got == nil || got == want.real), "wait must say whether there is something to close")
	return true
}

// stepCollect lets a served waiter go on.
func (m *gateModel) stepCollect() bool {
	if len(m.served) == 0 {
		return false
	}
	w := modelPick(m.rand, m.served)
	m.note("a served waiter goes on")
	got, place, err := m.g.wait(context.Background(), w.real)
	m.served = modelWithout(m.served, w)
	m.require(err == w.err && place == 0, "expected %v, got %v", w.err, err)
	if w.session != nil {
		m.require(got == w.session.real, "the waiter must get the session it was served")
		m.toTransit(w.session)
		return true
	}
	m.require(got == nil, "the waiter was served no session")
	return true
}

func (m *gateModel) stepLimit() bool {
	if m.rand.IntN(8) > 0 {
		return false
	}
	n := max(0, m.rand.IntN(9)-1)
	m.note("limit %d", n)
	over := m.g.setLimit(n)
	m.limit = n
	m.admit()
	over = m.surplus(over)
	m.require(len(over) == 0, "a lower limit closes %d sessions too many", len(over))
	return true
}

// surplus closes what is over the limit, as far as nobody uses it, and returns
// what else is in over.
func (m *gateModel) surplus(over []*session) []*session {
	for surplus := m.open() - m.limit; m.limit > 0 && surplus > 0; surplus-- {
		s := m.takeReady()
		if s == nil {
			break
		}
		m.toCloser(s, closedLimit)
		m.require(len(over) > 0 && over[0] == s.real, "a lower limit must close the spare sessions, then those idle longest")
		over = over[1:]
	}
	return over
}

func (m *gateModel) stepDrain() bool {
	m.note("drain")
	m.g.drain(m.now)
	if !m.draining && !m.closed {
		m.draining = true
	}
	return true
}

func (m *gateModel) stepDrained() bool {
	keep := m.rand.IntN(4)
	m.note("drained, keep %d", keep)
	over := m.g.drained(keep)
	m.draining = false
	for len(m.queue) > 0 && len(m.idle) > 0 {
		s := m.idle[0]
		m.idle = m.idle[1:]
		m.emptyHandle(s)
		m.counts.steals++
		m.serve(s, nil)
	}
	over = m.surplus(over)
	for len(m.spare) > m.empty() && len(m.idle)+len(m.spare) > keep {
		s := m.spare[0]
		m.spare = m.spare[1:]
		m.toCloser(s, closedDropped)
		m.require(len(over) > 0 && over[0] == s.real, "spares that are left must be closed, the oldest first")
		over = over[1:]
	}
	m.require(len(over) == 0, "the end of a drain closes %d sessions too many", len(over))
	return true
}

// takeReady takes the session that is ready longest, spares first.
func (m *gateModel) takeReady() *modelSession {
	for _, l := range []*[]*modelSession{&m.spare, &m.idle} {
		if l == &m.idle && m.draining {
			continue
		}
		if len(*l) > 0 {
			s := (*l)[0]
			*l = (*l)[1:]
			m.emptyHandle(s)
			return s
		}
	}
	return nil
}

func (m *gateModel) stepShut() bool {
	if m.rand.IntN(40) > 0 {
		return false
	}
	m.shut()
	return true
}

func (m *gateModel) shut() {
	m.note("shut")
	ready := m.g.shut()
	m.closed, m.draining = true, false
	for len(m.queue) > 0 {
		m.serve(nil, ErrClosed)
	}
	for s := m.takeReady(); s != nil; s = m.takeReady() {
		m.toCloser(s, closedShutdown)
		m.require(len(ready) > 0 && ready[0] == s.real, "shutting must return the ready sessions")
		ready = ready[1:]
	}
	m.require(len(ready) == 0, "shutting returned %d sessions too many", len(ready))
}

func (m *gateModel) stepExpire() bool {
	m.note("expire")
	m.armedFor = 0
	gone := m.g.expire(m.now)
	for _, l := range []*[]*modelSession{&m.idle, &m.spare} {
		for _, s := range slices.Clone(*l) {
			if !m.expired(s) {
				continue
			}
			*l = modelWithout(*l, s)
			m.emptyHandle(s)
			m.toCloser(s, closedExpired)
			m.require(len(gone) > 0 && gone[0] == s.real, "an expired session was left")
			gone = gone[1:]
		}
	}
	m.require(len(gone) == 0, "%d sessions were ended before their expiry", len(gone))
	return true
}

func (m *gateModel) stepWatch() bool {
	m.note("watch")
	m.watchedAt = 0
	findings := m.g.overdue(m.now)
	m.require(len(findings.reclaimed) == 0, "nothing is ever reclaimed here")
	found := map[uint64]bool{}
	for _, l := range findings.leaks {
		m.require(!found[l.ID], "a lease was reported twice")
		found[l.ID] = true
	}
	for _, h := range m.leases {
		if h.reported || m.now.Sub(h.begun) < modelThreshold {
			continue
		}
		h.reported = true
		m.require(found[h.real.lease.id], "an overdue lease was not reported")
		delete(found, h.real.lease.id)
	}
	m.require(len(found) == 0, "%d leases were reported that must not be", len(found))
	return true
}

func (m *gateModel) stepTime() bool {
	m.now = m.now.Add(time.Duration(m.rand.IntN(5000)) * time.Millisecond)
	return true
}

// check compares the whole gate with the model, and both with the invariants.
func (m *gateModel) check() {
	g := m.g
	m.require(g.open == m.open(), "open is %d, must be %d", g.open, m.open())
	m.require(g.dialing == m.dialing, "dialing is %d, must be %d", g.dialing, m.dialing)
	m.require(g.empty == m.empty(), "empty is %d, must be %d", g.empty, m.empty())
	m.require(g.limit == m.limit && g.closed == m.closed, "limit or closed")
	m.require(g.counts == m.counts, "counts are %+v, must be %+v", g.counts, m.counts)
	m.checkSessions("idle", &g.idle, m.idle)
	m.checkSessions("spare", &g.spare, m.spare)
	m.checkWaiters()
	m.checkLeases()
	m.checkPlaces()
	if len(m.queue) > 0 {
		m.require(len(m.idle) == 0 || m.draining, "%d wait while %d are idle", len(m.queue), len(m.idle))
		m.require(len(m.spare) == 0, "%d wait while %d are spare", len(m.queue), len(m.spare))
		m.require(!m.room(), "%d wait while there is room", len(m.queue))
		m.require(!m.closed, "%d wait at a closed gate", len(m.queue))
	}
	m.checkExpiry()
}

func (m *gateModel) checkSessions(name string, l *list[session], want []*modelSession) {
	m.require(l.len == len(want), "%d are %s, must be %d", l.len, name, len(want))
	i := 0
	l.each(func(s *session) bool {
		m.require(s == want[i].real, "%s session %d is another", name, i)
		i++
		return true
	})
	m.require(i == len(want), "the list of %s sessions is %d long", name, i)
}

func (m *gateModel) checkWaiters() {
	i := 0
	m.g.waiters.each(func(w *waiter) bool {
		m.require(i < len(m.queue) && w == m.queue[i].real, "waiter %d is another: the queue is not first in, first out", i)
		i++
		return true
	})
	m.require(i == len(m.queue), "%d wait, must be %d", i, len(m.queue))
	for _, w := range m.queue {
		m.require(!wasClosed(w.real.ready), "a queued waiter was woken")
	}
	for _, w := range m.served {
		m.require(wasClosed(w.real.ready), "a served waiter was not woken")
		m.require(w.real.err == w.err, "a waiter was served %v, must be %v", w.real.err, w.err)
		m.require((w.real.session == nil) == (w.session == nil), "a waiter was served the wrong thing")
		m.require(w.session == nil || w.real.session == w.session.real, "a waiter was served another session")
	}
}

func wasClosed(c <-chan struct{}) bool {
	select {
	case <-c:
		return true
	default:
		return false
	}
}

func (m *gateModel) checkLeases() {
	i := 0
	looked := m.g.watched != nil || len(m.leases) > 0 // leases before the one that the watch comes to next
	m.g.leases.each(func(l *lease) bool {
		m.require(i < len(m.leases) && l == &m.leases[i].real.lease, "lease %d is another", i)
		looked = looked && m.g.watched != &l.node
		m.checkWatched(m.leases[i], looked)
		i++
		return true
	})
	m.require(i == len(m.leases), "%d leases, must be %d", i, len(m.leases))
	m.require(m.g.watched == nil || !looked, "the watch comes to a lease that has ended")
}

// checkWatched checks that the watch will look at a lease in time.
func (m *gateModel) checkWatched(h *modelHandle, looked bool) {
	due := h.begun.Add(firstLook)
	if looked {
		due = h.begun.Add(modelThreshold)
		m.require((h.real.lease.inLook > 0) == !h.reported, "a lease is to be looked at again until it is reported, and no longer")
	}
	if h.reported {
		return
	}
	m.require(m.g.watching == m.watchedAt && !m.watchedAt.IsZero(), "a lease is not watched")
	m.require(m.watchedAt <= due, "the watch looks too late")
}

// checkPlaces checks that every session is in exactly one place, and that it
// and its handle agree on each other.
func (m *gateModel) checkPlaces() {
	count := map[*modelSession]int{}
	for _, l := range [][]*modelSession{m.idle, m.spare, m.transit, m.closing} {
		for _, s := range l {
			count[s]++
		}
	}
	for _, h := range m.leases {
		count[h.s]++
	}
	for _, w := range m.served {
		if w.session != nil {
			count[w.session]++
		}
	}
	for _, s := range m.sessions {
		m.require(count[s]+s.closed == 1, "a session is in %d places and was closed %d times", count[s], s.closed)
		if s.closed > 0 {
			continue
		}
		m.require(s.real.place == s.where, "a session's place is %d, must be %d", s.real.place, s.where)
		m.require(s.real.used == s.used, "a session was last used at %v, must be %v", s.real.used, s.used)
		m.require((s.real.handle == nil) == (s.h == nil), "a session's handle")
		m.require(s.h == nil || s.real.handle == s.h.real, "a session is under another handle")
		if s.where == atCloser {
			m.require(s.real.reason == s.reason, "a session is closed as %v, must be %v", s.real.reason, s.reason)
		}
	}
	for _, h := range m.handles {
		m.require((h.real.session == nil) == (h.s == nil), "hollow must be %v", h.s == nil)
		m.require(h.s == nil || h.real.session == h.s.real, "a handle has another session")
	}
}

// checkExpiry checks that the timer fires no later than the first expiry.
func (m *gateModel) checkExpiry() {
	for _, s := range slices.Concat(m.idle, m.spare) {
		at := s.real.life.expiry(s.used)
		if at.IsZero() {
			continue
		}
		m.require(!m.armedFor.IsZero() && m.armedFor <= at, "the expiry's timer is armed for %v, a session expires at %v", m.armedFor, at)
	}
}

// finish ends everything that is out and checks that nothing is left.
func (m *gateModel) finish() {
	if !m.closed {
		m.shut()
	}
	m.check()
	for range 10000 {
		switch {
		case m.stepCollect(), m.stepDialed(), m.stepLend(), m.stepRelease(), m.stepGone(), m.stepDrop():
			m.check()
			continue
		}
		break
	}
	m.require(m.g.open == 0, "%d sessions are left", m.g.open)
	m.require(m.g.leases.len+m.g.waiters.len+m.g.idle.len+m.g.spare.len == 0, "something is left")
	var closed uint64
	for _, n := range m.g.counts.closed {
		closed += n
	}
	m.require(closed == uint64(len(m.sessions)), "%d sessions closed of %d", closed, len(m.sessions))
	for _, s := range m.sessions {
		m.require(s.closed == 1, "a session was closed %d times", s.closed)
	}
}

func TestTheGateDoesWhatAPlainModelOfItDoes(t *testing.T) {
	const schedules, steps, few = 4000, 250, 100
	counted := map[string]int{}
	for seed := range uint64(schedules) {
		m := newGateModel(t, seed, int(seed%6))
		for move := range m.schedule(steps) {
			if move.do() {
				counted[move.name]++
				m.check()
			}
		}
		m.finish()
	}
	for _, move := range (&gateModel{}).moves() {
		assert.Greater(t, counted[move.name], few, "too few steps %q to prove anything", move.name)
	}
}

// schedule is a random one. Each seed likes some steps more than others, so
// that some schedules are saturated, some idle, some full of ended contexts.
func (m *gateModel) schedule(steps int) iter.Seq[modelMove] {
	var bag []modelMove
	for _, move := range m.moves() {
		for range 1 + m.rand.IntN(2)*m.rand.IntN(8) {
			bag = append(bag, move)
		}
	}
	return func(yield func(modelMove) bool) {
		for range steps {
			if !yield(modelPick(m.rand, bag)) {
				return
			}
		}
	}
}

type modelMove struct {
	name string
	do   func() bool
}

func (m *gateModel) moves() []modelMove {
	return []modelMove{
		{"ask", m.stepAsk}, {"ask", m.stepAsk}, {"ask", m.stepAsk},
		{"dialed", m.stepDialed}, {"dialed", m.stepDialed}, {"dial failed", m.stepDialFailed},
		{"reserve", m.stepReserve}, {"lend", m.stepLend}, {"lend", m.stepLend}, {"lend", m.stepLend},
		{"requeue", m.stepRequeue}, {"park", m.stepPark}, {"condemn", m.stepCondemn},
		{"replace", m.stepReplace}, {"gone", m.stepGone}, {"gone", m.stepGone},
		{"release", m.stepRelease}, {"release", m.stepRelease}, {"bad release", m.stepBadRelease},
		{"release without a lease", m.stepReleaseUnleased}, {"checkout", m.stepCheckout}, {"drop", m.stepDrop},
		{"context ends", m.stepLeave}, {"collect", m.stepCollect}, {"collect", m.stepCollect},
		{"limit", m.stepLimit}, {"drain", m.stepDrain}, {"drained", m.stepDrained}, {"drained", m.stepDrained}, {"shut", m.stepShut}, {"expire", m.stepExpire}, {"watch", m.stepWatch}, {"time", m.stepTime},
	}
}
