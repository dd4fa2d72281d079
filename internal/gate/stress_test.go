package gate

import (
	"context"
	"math/rand/v2"
	"runtime"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/sqllease/sqllease/internal/clock"
)

// stress is a pool as database/sql has one, with what goes on around it, on real
// goroutines.
type stress struct {
	t        *testing.T
	g        *Gate[conn, caller]
	done     chan struct{} // closed at the end
	mostOpen int

	mu       sync.Mutex
	free     []*Ticket[conn] // guarded by mu
	sessions []*conn         // guarded by mu: every one that ever was
	timer    *time.Timer     // guarded by the gate's lock
	waking   sync.Mutex      // held by wake
	quiet    atomic.Bool     // most callers have nothing to do

	open                                                   atomic.Int64
	acquired, refused, gaveUp, late, shut, again, rejoined atomic.Int64
	barred, overloaded                                     atomic.Int64
}

const (
	stressMost    = 8                // the highest limit
	stressLongest = 30 * time.Second // nobody waits for so long who is not stuck
)

// stressLanes are the lanes of its callers, in turn.
var stressLanes = []Lane{{}, {Reserve: 1}, {Max: 3}, {Max: 2, Reserve: 1, MaxWaiting: 6, Target: 200 * time.Microsecond}}

func newStress(t *testing.T) *stress {
	x := &stress{t: t, done: make(chan struct{}), mostOpen: stressMost}
	x.g = New(stressMost, 2, stressLanes, func(s *conn) { s.ended++ }, func(c *caller) { c.queued++ }, func(at clock.Instant) {
		if x.timer != nil {
			x.timer.Stop()
		}
		x.timer = time.AfterFunc(at.Until(), x.wake)
	}, func() {})
	return x
}

// check tells what is wrong, on any goroutine.
func (x *stress) check(ok bool, format string, args ...any) {
	if !ok {
		x.t.Errorf(format, args...)
	}
}

// has notes that a session is in somebody's hands, let that it is not any more.
func (x *stress) has(s *conn) { x.check(!s.busy.Swap(true), "a session is in two hands") }
func (x *stress) let(s *conn) { x.check(s.busy.Swap(false), "a session was in nobody's hands") }

// closed is what whoever closes a session does to it, before its room is free.
func (x *stress) closed(s *conn) {
	x.check(!s.busy.Load(), "a session is closed that is in somebody's hands")
	x.check(!s.gone.Swap(true), "a session is closed twice")
	x.open.Add(-1)
}

func (x *stress) closeAll(all ...*conn) {
	for _, s := range all {
		if s != nil {
			x.closed(s)
			x.g.Gone(&s.Session)
		}
	}
}

func (x *stress) wake() {
	x.waking.Lock()
	defer x.waking.Unlock()
	for more := true; more; {
		var expired []*conn
		expired, more = x.g.Wake(clock.Now())
		x.closeAll(expired...)
	}
}

// dial dials in room that its caller has, for a lane; nil: it failed.
func (x *stress) dial(r *rand.Rand, lane LaneID) *conn {
	runtime.Gosched()
	switch r.IntN(30) {
	case 0:
		x.g.Unreserve(lane)
		return nil
	case 1:
		x.g.Failed("refused", lane)
		return nil
	}
	open := x.open.Add(1)
	x.check(open <= int64(x.mostOpen), "%d are open", open)
	life := Life{End: clock.Now().Add(time.Duration(1+r.IntN(50)) * time.Millisecond), Idle: time.Duration(r.IntN(20)) * time.Millisecond}
	s := dialedFor(x.g, life, lane, clock.Now())
	x.has(s)
	x.mu.Lock()
	x.sessions = append(x.sessions, s)
	x.mu.Unlock()
	return s
}

// user is one goroutine of the application.
type user struct {
	*stress
	r      *rand.Rand
	w      Waiter[conn, caller]
	caller caller
	lane   LaneID
	busy   bool // it has something to do in quiet times, too
	got    int
}

func (u *user) run() {
	for {
		pause := 100 * time.Nanosecond
		if u.quiet.Load() && !u.busy {
			pause = time.Millisecond
		}
		select {
		case <-u.done:
			return
		case <-time.After(pause):
		}
		if t, s := u.acquire(); s != nil {
			u.got++
			for range u.r.IntN(4) {
				runtime.Gosched()
			}
			u.giveBack(t, s)
		}
	}
}

// acquire does what database/sql does: it tries free tickets, then it connects.
func (u *user) acquire() (*Ticket[conn], *conn) {
	var number uint64
	for range 2 {
		t := u.pop()
		if t == nil {
			break
		}
		if u.r.IntN(50) == 0 {
			u.g.Leave(t)
			continue
		}
		s, fit, barred := u.g.Take(t, u.r.IntN(8) == 0, u.lane, clock.Now())
		switch {
		case barred:
			u.g.Leave(t) // who has it acquires otherwise
			u.barred.Add(1)
			if u.r.IntN(2) == 0 { // its caller does nothing with it, and it is free again
				u.g.Stays(t, true)
				u.mu.Lock()
				u.free = append(u.free, t)
				u.mu.Unlock()
				return nil, nil
			}
		case fit:
			u.has(s)
			return t, s
		case s != nil:
			u.closeAll(s)
		case number == 0:
			u.refused.Add(1)
			number = u.g.Arrive()
		}
	}
	if s := u.connect(number); s != nil {
		return &Ticket[conn]{}, s
	}
	return nil, nil
}

func (u *user) pop() (t *Ticket[conn]) {
	u.mu.Lock()
	defer u.mu.Unlock()
	if last := len(u.free) - 1; last >= 0 {
		t, u.free = u.free[last], u.free[:last]
	}
	return t
}

// connect comes to Ask, waits, and resets or dials.
func (u *user) connect(number uint64) *conn {
	u.w.Prepare(&u.caller, number, u.lane, 0)
	s, waits, err := u.g.Ask(&u.w, clock.Now())
	for {
		if waits {
			s, err = u.wait()
		}
		switch {
		case err != nil:
			u.closeAll(s)
			return nil
		case s != nil && u.isFit(s):
			return s
		case s != nil:
			waits = u.g.Replace(&s.Session, &u.w, clock.Now())
		default:
			waits = false
		}
		if waits {
			u.again.Add(1)
			continue
		}
		if u.r.IntN(20) > 0 {
			return u.dial(u.r, u.lane)
		}
		u.g.Full("full", u.lane)
		if waits = u.g.Rejoin(&u.w, clock.Now()); !waits {
			return nil
		}
		u.rejoined.Add(1)
	}
}

// isFit resets a session. If it is of no use, it is closed.
func (u *user) isFit(s *conn) bool {
	u.has(s)
	why, unfit := u.g.Unfit(&s.Session, clock.Now())
	if !unfit && u.r.IntN(50) > 0 {
		return true
	}
	if !unfit { // its reset fails
		why = Bad
	}
	u.let(s)
	u.g.Reject(&s.Session, why)
	u.closed(s)
	return false
}

// wait waits, often for no longer than it takes to be served.
func (u *user) wait() (s *conn, err error) {
	ctx, longest := context.Background(), time.NewTimer(stressLongest)
	defer longest.Stop()
	switch u.r.IntN(4) {
	case 0:
		bounded, cancel := context.WithTimeout(ctx, time.Duration(u.r.IntN(300))*time.Microsecond)
		defer cancel()
		ctx = bounded
	case 1:
		ended, cancel := context.WithCancel(ctx)
		go cancel()
		ctx = ended
	}
	s, place, err := u.g.Wait(ctx, &u.w, longest.C)
	switch err {
	case nil:
	case ErrShut:
		u.shut.Add(1)
	case ErrOverloaded:
		u.overloaded.Add(1)
		u.check(s == nil && place == 0, "who is refused has %v, and place %d", s, place)
	case errAway:
		u.check(s == nil && place == 0, "who is sent away has %v, and place %d", s, place)
		return nil, err
	default:
		u.gaveUp.Add(1)
		u.check(ctx.Err() != nil, "somebody is stuck: %v", err)
		u.check(place == 0 || s == nil, "who was in the queue has a session")
		if place == 0 {
			u.late.Add(1)
		}
	}
	return s, err
}

func (u *user) giveBack(t *Ticket[conn], s *conn) {
	u.acquired.Add(1)
	u.let(s)
	switch u.r.IntN(60) {
	case 0:
		u.g.Condemn(&s.Session, Bad, clock.Now())
		u.closeAll(s)
		return
	case 1:
		if u.g.Park(&s.Session, clock.Now()) {
			u.closeAll(s)
		}
		return
	}
	switch u.g.Return(t, &s.Session, u.r.IntN(60) == 0, clock.Now()) {
	case Closed:
		u.closeAll(s)
	case Kept:
		u.mu.Lock()
		u.free = append(u.free, t)
		full := len(u.free) > 4
		u.mu.Unlock()
		if full {
			if t := u.pop(); t != nil {
				u.closeAll(u.g.Drop(t, clock.Now()))
			}
		}
	}
}

// every does something again and again until the end.
func (x *stress) every(d time.Duration, f func(r *rand.Rand)) func() {
	return func() {
		r := rand.New(rand.NewPCG(uint64(d), 1))
		tick := time.NewTicker(d)
		defer tick.Stop()
		for {
			select {
			case <-x.done:
				return
			case <-tick.C:
				f(r)
			}
		}
	}
}

// around is what goes on beside the callers.
func (x *stress) around() []func() {
	return []func(){
		x.every(700*time.Microsecond, func(r *rand.Rand) { x.closeAll(x.g.SetLimit(1 + r.IntN(stressMost))...) }),
		x.every(3*time.Millisecond, func(r *rand.Rand) {
			x.closeAll(x.g.SetTrust(pick(r, []Trust{Alone, Alone, Watchful, Draining, Private}), clock.Now())...)
		}),
		x.every(100*time.Millisecond, func(*rand.Rand) { x.quiet.Store(!x.quiet.Load()) }),
		x.every(900*time.Microsecond, func(*rand.Rand) { x.closeAll(x.g.Surplus(clock.Now())...) }),
		x.every(2*time.Millisecond, func(*rand.Rand) { x.wake() }),
		x.every(400*time.Microsecond, x.lookAfter),
		x.every(500*time.Microsecond, x.fill),
		x.every(time.Millisecond, func(*rand.Rand) { x.g.Look(x.lookLocked) }),
		x.every(1100*time.Microsecond, func(r *rand.Rand) {
			x.g.SendAway(errAway, func(*caller, uint64) bool { return r.IntN(8) == 0 })
			x.g.Look(func() { x.g.PreferLocked(func(*caller) bool { return r.IntN(2) == 0 }) })
		}),
	}
}

// lookAfter looks after ready sessions.
func (x *stress) lookAfter(r *rand.Rand) {
	for _, s := range x.g.TakeReady(2, func(s *conn) bool { return s.ended%2 == 0 }) {
		x.has(s)
		runtime.Gosched()
		x.let(s)
		if r.IntN(10) == 0 {
			x.g.Reject(&s.Session, Bad)
			x.closeAll(s)
		} else if x.g.PutBack(&s.Session, clock.Now()) {
			x.closeAll(s)
		}
	}
}

// fill dials ahead.
func (x *stress) fill(r *rand.Rand) {
	if !x.g.Reserve() {
		return
	}
	if s := x.dial(r, NoLane); s != nil {
		x.let(s)
		if x.g.Park(&s.Session, clock.Now()) {
			x.closeAll(s)
		}
	}
}

// lookLocked checks the invariants that can be seen at any moment.
func (x *stress) lookLocked() {
	g, f := x.g, x.g.FiguresLocked()
	x.check(f.Open >= f.Held+f.Ready+f.Dialing, "%+v", f)
	x.check(f.Open <= x.mostOpen, "%d are open", f.Open)
	last := clock.Instant(0)
	g.ready.each(func(s *Session[conn]) bool {
		x.check(s.used >= last, "those that are ready are out of order")
		last = s.used
		return true
	})
	x.lanesLocked()
	if g.nextLocked() == nil {
		return
	}
	x.check(!g.mayDialLocked() && !f.Shut, "%d wait while one may dial: %+v", f.Waiting, f)
	x.check(g.takeableLocked(0) == nil, "%d wait while one is ready for them: %+v, trust %d", f.Waiting, f, g.trust)
	number := uint64(0)
	g.EachWaiterLocked(func(w *Waiter[conn, caller], _ *caller) bool {
		x.check(w.number > number, "those who wait are out of order")
		number = w.number
		return true
	})
}

// lanesLocked checks what must hold of lanes at any moment.
func (x *stress) lanesLocked() {
	g, waiting := x.g, 0
	for i := range g.lanes.all {
		l := &g.lanes.all[i]
		waiting += l.waiters.len
		x.check(l.used >= 0 && (l.Max == 0 || l.used <= l.Max || g.shut), "lane %d has %d places", i, l.used)
		x.check(l.Target == 0 || l.waiters.len < 2 || g.shut || !g.waking.IsZero(), "nobody looks at the first of lane %d", i)
	}
	x.check(waiting == g.lanes.waiting && g.lanes.used <= g.held.len+g.dialing, "%d wait, %d places: %+v", waiting, g.lanes.used, g.FiguresLocked())
}

func TestManyCallersShareTheGate(t *testing.T) {
	const callers, lasts = 40, 2 * time.Second
	x := newStress(t)
	var all sync.WaitGroup
	users := make([]*user, callers)
	for i := range users {
		users[i] = &user{stress: x, r: rand.New(rand.NewPCG(uint64(i), 2)), lane: LaneID(i % len(stressLanes)), busy: i < 6}
		all.Go(users[i].run)
	}
	for _, f := range x.around() {
		all.Go(f)
	}
	<-time.After(lasts)
	x.closeAll(x.g.Shut()...)
	close(x.done)
	ended := make(chan struct{})
	go func() { all.Wait(); close(ended) }()
	select {
	case <-ended:
	case <-time.After(stressLongest):
		stacks := make([]byte, 1<<20)
		t.Fatalf("somebody is stuck:\n%s", stacks[:runtime.Stack(stacks, true)])
	}
	x.finish(users)
}

// finish checks what is left.
func (x *stress) finish(users []*user) {
	t := x.t
	x.g.Look(func() { x.timer.Stop() })
	for _, ticket := range x.free {
		assert.Nil(t, x.g.Drop(ticket, clock.Now()))
	}
	x.wake() // one that was begun is over then
	f := figures(x.g)
	var closed uint64
	for _, n := range f.Counts.Closed {
		closed += n
	}
	assert.Equal(t, uint64(len(x.sessions)), closed)
	counts := f.Counts
	f.Counts, f.Limit, f.Pace, f.Failure = Counts{}, 0, 0, ""
	assert.Equal(t, Figures{Shut: true}, f, "what is left")
	assert.Empty(t, x.g.expiries)
	x.g.Look(x.lanesLocked)
	assert.Zero(t, x.g.lanes.used)
	assert.Equal(t, x.g.lanes.reserve, x.g.lanes.kept)
	assert.Zero(t, x.open.Load())
	for _, s := range x.sessions {
		require.True(t, s.gone.Load(), "a session was never closed")
		require.False(t, s.busy.Load())
	}
	assert.GreaterOrEqual(t, counts.QueueTime, time.Duration(0))
	for i, u := range users {
		assert.Positive(t, u.got, "caller %d never got a session", i)
	}
	t.Logf("%d sessions, %d acquires, %d tickets refused, %d gave up, %d of them after they were served, %d shut out; %+v",
		len(x.sessions), x.acquired.Load(), x.refused.Load(), x.gaveUp.Load(), x.late.Load(), x.shut.Load(), counts)
	for what, n := range map[string]int64{
		"acquires": x.acquired.Load(), "refused tickets": x.refused.Load(), "waits given up": x.gaveUp.Load(),
		"waits given up too late": x.late.Load(), "sessions that came to nothing, and no leave to dial another": x.again.Load(), "dials that the server had no room for": x.rejoined.Load(), "tickets of lanes that were barred": x.barred.Load(), "refused since too many came": x.overloaded.Load(), "waits": int64(counts.Waits), "handovers": int64(counts.Handovers),
	} {
		assert.Positive(t, n, what)
	}
}
