package gate

import (
	"context"
	"math/rand/v2"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/sqllease/sqllease/internal/clock"
)

// Nobody starves, whatever the other lanes do. Let each place be free again at most a hold after it
// was taken, the dial before and the close after it included. Whoever waits, with n before them in
// the queue of all lanes, is served within n+1 holds, for in each hold that they wait one of those
// n, or they themselves, are served:
//
// Their lane has all that Max allows. Then one of its places is free within a hold, and from then
// on the lane may have it. Or it has not. Then it may be barred since what is not reserved is in
// use; one of these places is free within a hold. In both cases the first of their lane may be
// served then, who came no later than they. Only who came before that one is served instead, or
// nobody: for others have only what is reserved for them, which is none of these places.
//
// Where what became free was reserved for their own lane, its first has it.

const starveHold = 6 // ticks, at most

// starver is a random schedule of callers who ask, and hold what they get for some ticks.
type starver struct {
	t       *testing.T
	g       *Gate[conn, caller]
	r       *rand.Rand
	tick    int
	waits   []*starving
	holds   []*starvingHold
	served  int
	longest int
	bounds  map[LaneID]int // how many were served in each
}

type starving struct {
	w      *Waiter[conn, caller]
	since  int
	before int // how many waited before it when it came
}

type starvingHold struct {
	s   *conn
	end int
}

func TestNobodyStarves(t *testing.T) {
	const seeds, ticks = 60, 300
	synctest.Test(t, func(t *testing.T) {
		served, passed := 0, 0
		for seed := range uint64(seeds) {
			r := rand.New(rand.NewPCG(seed, 3))
			x := &starver{t: t, r: r, bounds: map[LaneID]int{}}
			lanes, limit := starvingLanes(r)
			x.g, _ = newGate(limit, r.IntN(3), lanes...)
			for x.tick = range ticks {
				x.step(x.tick < ticks/2, len(lanes))
			}
			for ; len(x.waits) > 0; x.tick++ {
				x.step(false, len(lanes))
			}
			served += x.served
			if x.longest > starveHold {
				passed++
			}
			require.Len(t, x.bounds, len(lanes), "each lane was served")
		}
		require.Greater(t, served, 20*seeds)
		require.Greater(t, passed, seeds/2, "where nobody waits for longer than a hold, nothing is shown")
	})
}

// starvingLanes are random ones, and a limit that leaves something beside what is reserved.
func starvingLanes(r *rand.Rand) (lanes []Lane, limit int) {
	for range 2 + r.IntN(3) {
		l := Lane{Max: r.IntN(2) * (1 + r.IntN(3)), Reserve: r.IntN(2) * (1 + r.IntN(2))}
		if l.Max > 0 {
			l.Reserve = min(l.Reserve, l.Max)
		}
		lanes = append(lanes, l)
		limit += l.Reserve
	}
	return lanes, limit + 1 + r.IntN(4)
}

func (x *starver) step(floods bool, lanes int) {
	after(time.Millisecond)
	for _, h := range slices.Clone(x.holds) {
		if h.end <= x.tick {
			x.holds = without(x.holds, h)
			x.giveBack(h.s)
		}
	}
	if x.r.IntN(20) == 0 && len(x.waits) > 0 { // one gives up
		w := pick(x.r, x.waits)
		if len(w.w.served) == 0 {
			_, _, _ = x.g.GiveUp(w.w)
			x.waits = without(x.waits, w)
		}
	}
	for range x.r.IntN(4) {
		if floods {
			x.ask(LaneID(min(x.r.IntN(2*lanes), lanes-1))) // most are in the last
		}
	}
	x.collect()
}

func (x *starver) ask(lane LaneID) {
	w := &starving{w: inLane(lane), since: x.tick, before: len(x.waits)}
	s, waits, err := x.g.Ask(w.w, clock.Now())
	require.NoError(x.t, err)
	if waits {
		x.waits = append(x.waits, w)
		return
	}
	x.hold(s, lane)
}

// hold begins one; nil: dials before.
func (x *starver) hold(s *conn, lane LaneID) {
	if s == nil {
		s = dialedFor(x.g, Life{}, lane, clock.Now())
	}
	x.holds = append(x.holds, &starvingHold{s, x.tick + 1 + x.r.IntN(starveHold)})
	x.bounds[lane]++
}

// giveBack ends one, in one of the ways there are.
func (x *starver) giveBack(s *conn) {
	now := clock.Now()
	closes := true
	switch x.r.IntN(6) {
	case 0:
		x.g.Condemn(&s.Session, Bad, now)
	case 1:
		x.g.Reject(&s.Session, Bad)
	case 2:
		closes = x.g.Park(&s.Session, now)
	case 3:
		closes = x.g.Deliver(&s.Session, now)
	default:
		t := &Ticket[conn]{}
		became := x.g.Return(t, &s.Session, x.r.IntN(4) == 0, now)
		if closes = became == Closed; became == Kept {
			gone(x.g, x.g.Drop(t, now))
		}
	}
	if closes {
		gone(x.g, s)
	}
}

// collect lets those go on who were served, and checks that the others do not wait for too long.
func (x *starver) collect() {
	for _, w := range slices.Clone(x.waits) {
		waited := x.tick - w.since
		if most := (w.before + 1) * starveHold; waited > most {
			x.t.Fatalf("number %d of lane %d waits for %d ticks, with %d before it: at most %d\n%+v", w.w.number, w.w.lane, waited, w.before, most, figures(x.g))
		}
		if len(w.w.served) == 0 {
			continue
		}
		s, _, err := x.g.Wait(context.Background(), w.w, nil)
		require.NoError(x.t, err)
		x.waits = without(x.waits, w)
		x.served++
		x.longest = max(x.longest, waited)
		x.hold(s, w.w.lane)
	}
}
