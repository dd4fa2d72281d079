package gate

import (
	"context"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/sqllease/sqllease/internal/clock"
)

// inLane is a waiter of a lane.
func inLane(id LaneID) *Waiter[conn, caller] {
	w := &Waiter[conn, caller]{}
	w.Prepare(&caller{}, 0, id, 0)
	return w
}

// heldIn makes a session that is held for a lane.
func heldIn(t testing.TB, g *Gate[conn, caller], id LaneID) *conn {
	t.Helper()
	s, waits, err := g.Ask(inLane(id), clock.Now())
	require.NoError(t, err)
	require.False(t, waits)
	require.Nil(t, s, "one is ready")
	return dialedFor(g, Life{}, id, clock.Now())
}

// laneFigures are how a lane stands.
func laneFigures(g *Gate[conn, caller], id LaneID) (f LaneFigures) {
	g.Look(func() { f = g.LaneLocked(id) })
	return f
}

// A pool that may queue callers itself lets no waiter have what came back just now. When it is not
// new any more, and those who wait may have nothing all the same, Wake is not called again and
// again.
func TestWakeIsNotCalledForThoseWhoseLaneIsBarred(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g, armed := newGate(3, 0, Lane{}, Lane{Max: 1})
		g.SetTrust(Watchful, clock.Now())
		report, page := heldIn(t, g, 1), heldIn(t, g, 0)
		giveBack(g, page)
		c := asks(t.Context(), g, inLane(1), nil)
		after(2 * grace)
		for range 3 {
			*armed = 0
			_, more := g.Wake(clock.Now())
			require.False(t, more)
			require.Zero(t, *armed, "Wake can do nothing")
		}
		giveBack(g, report)
		requireGot(t, report, c)
	})
}

// The first of a lane is looked at when it is late, although another one was the first when it
// came, and nobody is served meanwhile.
func TestWhoBecomesTheFirstIsLookedAtInTime(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g, begun := timedGate(1, 0, Lane{Target: 50 * time.Millisecond}), clock.Now()
		s := heldAt(t, g, begun)
		a := asks(t.Context(), g, inLane(0), nil)
		after(55 * time.Millisecond) // it is late, which begins an interval
		b := asks(t.Context(), g, inLane(0), nil)
		after(5 * time.Millisecond)
		giveBack(g, s)
		requireGot(t, s, a)
		c := asks(t.Context(), g, inLane(0), nil)
		asks(t.Context(), g, inLane(0), nil)
		after(10 * time.Millisecond)
		giveBack(g, s)
		requireGot(t, s, b) // and is not late, which ends the interval; from then on nothing comes back
		after(539 * time.Millisecond)
		requireNotDone(t, c)
		after(time.Millisecond) // 50 ms and an interval after it came
		refused, done := isDone(c)
		require.True(t, done, "it is looked at only when the last interval would have ended")
		assert.Equal(t, ErrOverloaded, refused.err)
		assert.Equal(t, begun.Add(610*time.Millisecond), refused.at)
		g.Shut()
		synctest.Wait()
	})
}

func TestThoseWhoAreLateAreLookedAtThoughTheFirstWasPreferred(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g, armed := newGate(1, 0, Lane{Target: 50 * time.Millisecond})
		s := heldAt(t, g, clock.Now())
		begun := clock.Now()
		late := inLane(0)
		_, waits, _ := g.Ask(late, begun)
		require.True(t, waits)
		after(40 * time.Millisecond)
		preferred := inLane(0)
		preferred.caller.ahead = true
		for _, w := range []*Waiter[conn, caller]{preferred, inLane(0)} {
			_, waits, _ = g.Ask(w, clock.Now())
			require.True(t, waits)
		}
		g.Look(func() { g.PreferLocked(func(c *caller) bool { return c.ahead }) })
		after(10 * time.Millisecond)
		*armed = 0
		g.Wake(clock.Now())
		assert.Equal(t, begun.Add(90*time.Millisecond), *armed, "when who was preferred is late")
		giveBack(g, s)
		assert.Equal(t, begun.Add(50*time.Millisecond), *armed, "who is the first now is late")
	})
}

// Who waits alone has nobody before it, and what they wait for is a slow holder, and no flood. It
// is not refused for that when the next one comes.
func TestWhoHasWaitedAloneIsNotRefusedWhenTheNextComes(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := timedGate(1, 0, Lane{Target: 50 * time.Millisecond})
		s := heldAt(t, g, clock.Now())
		alone := asks(t.Context(), g, inLane(0), nil)
		after(2 * time.Second)
		assert.False(t, laneFigures(g, 0).Refusing)
		next := asks(t.Context(), g, inLane(0), nil)
		after(499 * time.Millisecond)
		requireNotDone(t, alone)
		giveBack(g, s)
		requireGot(t, s, alone)
		giveBack(g, s)
		requireGot(t, s, next)
	})
}

// What is ready is not dialed: a session that a lane was barred from is its as soon as it may have
// it.
func TestADialThatFailsLeavesItsCallersWhatIsReady(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g, _ := newGate(3, 0, Lane{}, Lane{Max: 1})
		page := heldIn(t, g, 0)
		_, waits, _ := g.Ask(inLane(1), clock.Now()) // it dials
		require.False(t, waits)
		giveBack(g, page)
		c := asks(t.Context(), g, inLane(1), nil)
		g.Unreserve(1)
		requireGot(t, page, c)
		assert.Equal(t, 1, laneFigures(g, 1).Used)
	})
}

func TestAHigherLimitLeavesThoseWhoWaitWhatIsReady(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g, _ := newGate(2, 0, Lane{}, Lane{Reserve: 1})
		heldIn(t, g, 0)
		reserved := heldIn(t, g, 1)
		giveBack(g, reserved)
		c := asks(t.Context(), g, inLane(0), nil)
		requireNotDone(t, c)
		g.SetLimit(3)
		requireGot(t, reserved, c)
		assert.Zero(t, figures(g).Dialing)
	})
}

func TestTheFiguresOfTheOnlyLaneAreThoseOfTheGate(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g, _ := newGate(3, 0, Lane{MaxWaiting: 1})
		heldIn(t, g, 0)
		_, waits, _ := g.Ask(inLane(0), clock.Now()) // it dials
		require.False(t, waits)
		assert.Equal(t, LaneFigures{Used: 2, Counts: LaneCounts{Holds: 1}}, laneFigures(g, 0))
	})
}

func TestWhoeverIsTooLateIsNotServed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := timedGate(1, 0, Lane{Target: time.Second})
		s := heldAt(t, g, clock.Now())
		late := &Waiter[conn, caller]{}
		late.Prepare(&caller{}, 0, 0, clock.Now().Add(10*time.Millisecond))
		first := asks(t.Context(), g, late, nil)
		next := asks(t.Context(), g, inLane(0), nil)
		after(10 * time.Millisecond)
		giveBack(g, s)
		requireGot(t, s, next)
		refused, done := isDone(first)
		require.True(t, done)
		assert.Equal(t, context.DeadlineExceeded, refused.err)
		assert.Zero(t, refused.place)
	})
}

// A wait that ends while its waiter is refused has one end.
func TestWhoIsRefusedAndGivesUpHasNothing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		for range 50 { // Wait sees either of the two first
			g, _ := newGate(1, 0, Lane{Target: time.Millisecond})
			s := heldAt(t, g, clock.Now())
			first, next := inLane(0), inLane(0)
			for _, w := range []*Waiter[conn, caller]{first, next} {
				_, waits, _ := g.Ask(w, clock.Now())
				require.True(t, waits)
			}
			after(time.Millisecond)
			g.Wake(clock.Now())
			after(leastInterval)
			_, became := giveBack(g, s)
			require.Equal(t, Handed, became, "to the second, who waits alone then")
			ctx, cancel := context.WithCancel(t.Context())
			cancel()
			got, place, err := g.Wait(ctx, first, nil)
			assert.Nil(t, got)
			assert.Zero(t, place)
			assert.Equal(t, ErrOverloaded, err)
			got, _, err = g.Wait(ctx, next, nil)
			assert.Same(t, s, got, "no ticket answers for what it gives up: it closes that")
			assert.Equal(t, context.Canceled, err)
			gone(g, s)
			assert.Zero(t, figures(g).Open)
			assert.Zero(t, laneFigures(g, 0).Used)
		}
	})
}
