package gate

import (
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/sqllease/sqllease/internal/clock"
)

// How far tickets are overruled, and that nobody waits for what they may have.

// trusting is a gate that is full, with sessions in its callers' hands.
func trusting(t *testing.T, trust Trust, limit int) (*Gate[conn, caller], []*conn) {
	t.Helper()
	g := timedGate(limit, 0)
	g.SetTrust(trust, clock.Now())
	all := make([]*conn, limit)
	for i := range all {
		all[i] = heldAt(t, g, clock.Now())
	}
	return g, all
}

func TestAloneTakesWhatCameBackLongestAgo(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g, all := trusting(t, Alone, 2)
		giveBack(g, all[1])
		after(1)
		giveBack(g, all[0])
		requireGot(t, all[1], asks(t.Context(), g, newWaiter(), nil))
		requireGot(t, all[0], asks(t.Context(), g, newWaiter(), nil))
	})
}

func TestWatchfulLeavesWhatJustCameBackToItsTicket(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g, all := trusting(t, Watchful, 1)
		s := all[0]
		ticket, became := giveBack(g, s)
		require.Equal(t, Kept, became)
		after(grace - 1)
		begun := clock.Now()
		c := asks(t.Context(), g, newWaiter(), nil)
		requireNotDone(t, c)
		got, fit, _ := g.Take(ticket, false, 0, clock.Now())
		require.True(t, fit && got == s, "its ticket may have it")
		ticket, became = giveBack(g, s)
		require.Equal(t, Handed, became, "what comes back while somebody waits is for them")
		assert.Equal(t, begun, requireGot(t, s, c).at)
		assert.False(t, g.Stays(ticket, false))
	})
}

func TestWatchfulServesAWaiterAtTheEndOfTheGrace(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g, all := trusting(t, Watchful, 2)
		begun := clock.Now()
		giveBack(g, all[0])
		after(3 * time.Millisecond)
		giveBack(g, all[1])
		after(time.Millisecond)
		first, second := asks(t.Context(), g, newWaiter(), nil), asks(t.Context(), g, newWaiter(), nil)
		after(grace - 4*time.Millisecond - 1)
		requireNotDone(t, first)
		after(1)
		assert.Equal(t, begun.Add(grace), requireGot(t, all[0], first).at)
		requireNotDone(t, second)
		after(3 * time.Millisecond)
		assert.Equal(t, begun.Add(grace+3*time.Millisecond), requireGot(t, all[1], second).at)
	})
}

// Nobody looks for them again and again: a place of their lane must be free first.
func TestWatchfulWakesForNobodyWhoseLaneIsFull(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		armed := 0
		g := New(2, 0, []Lane{{Max: 1}}, func(*conn) {}, func(*caller) {}, func(clock.Instant) { armed++ }, func() {})
		g.SetTrust(Watchful, clock.Now())
		s := heldAt(t, g, clock.Now())
		g.Look(func() { g.reserveLocked(NoLane) })
		other := &conn{}
		g.Dialed(other, &other.Session, Life{}, NoLane, clock.Now())
		giveBack(g, other)
		waits := asks(t.Context(), g, newWaiter(), nil)
		after(grace)
		g.Wake(clock.Now())
		assert.Zero(t, armed)
		giveBack(g, s)
		requireGot(t, s, waits)
	})
}

func TestWatchfulTakesAtOnceWhatNoTicketAnswersFor(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g, all := trusting(t, Watchful, 1)
		ticket, _ := giveBack(g, all[0])
		c := asks(t.Context(), g, newWaiter(), nil)
		requireNotDone(t, c)
		g.Leave(ticket)
		requireGot(t, all[0], c)
	})
}

// Time makes a session takeable without anybody telling the gate: who comes then must
// not have it before those who wait.
func TestWhoComesAtTheEndOfTheGraceDoesNotOvertake(t *testing.T) {
	now := clock.Now()
	g, _ := newGate(2, 0)
	g.SetTrust(Watchful, now)
	a, b := heldAt(t, g, now), heldAt(t, g, now)
	for _, s := range []*conn{a, b} {
		require.Equal(t, Kept, g.Return(&Ticket[conn]{}, &s.Session, false, now))
	}
	first, late := newWaiter(), newWaiter()
	number := g.Arrive()
	_, waits, _ := g.Ask(first, now)
	require.True(t, waits)
	got, waits, err := g.Ask(late, now.Add(grace)) // Wake has not come yet
	require.True(t, got == nil && waits && err == nil)
	assert.Same(t, a, first.sessionOf())
	assert.Same(t, b, late.sessionOf(), "it is served, behind the first")

	again := newWaiter()
	_, waits, _ = g.Ask(again, now.Add(grace))
	require.True(t, waits)
	early := newWaiter()
	early.Prepare(&caller{}, number, 0, 0)
	_, waits, _ = g.Ask(early, now.Add(grace))
	require.True(t, waits)
	g.Return(&Ticket[conn]{}, &a.Session, false, now.Add(grace))
	assert.Same(t, a, early.sessionOf(), "its place was kept")
}

func TestDrainingLeavesWhatComesBackToItsTicket(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g, all := trusting(t, Draining, 2)
		c := asks(t.Context(), g, newWaiter(), nil)
		next := asks(t.Context(), g, newWaiter(), nil)
		ticket, became := giveBack(g, all[0])
		require.Equal(t, Kept, became)
		after(time.Hour)
		requireNotDone(t, c)
		got, fit, _ := g.Take(ticket, false, 0, clock.Now())
		require.True(t, fit && got == all[0])
		for _, s := range all {
			_, became = giveBack(g, s)
			require.Equal(t, Kept, became)
			after(1)
		}
		requireNotDone(t, c)
		g.SetTrust(Alone, clock.Now())
		requireGot(t, all[0], c)
		requireGot(t, all[1], next)
		assert.Equal(t, uint64(0), figures(g).Counts.Handovers)
	})
}

func TestAPoolThatIsServedAndDoesNotComeBackIsDoubted(t *testing.T) {
	now := clock.Now()
	g, _ := newGate(1, 0)
	doubts := 0
	g.doubt = func() { doubts++ }
	s := heldAt(t, g, now)
	for range 200 {
		_, _, _ = g.Ask(newWaiter(), now)
	}
	// handed is how often the session goes to a waiter before it is left to its ticket.
	handed := func() (n int) {
		ticket := &Ticket[conn]{}
		for g.Return(ticket, &s.Session, false, now) == Handed {
			n++
		}
		require.True(t, ticket.free)
		return n
	}
	assert.Equal(t, leastPatience, handed())
	assert.Equal(t, 1, doubts)
	waiting := figures(g).Waiting
	g.SetTrust(Alone, now) // there was no reason
	assert.Equal(t, waiting-1, figures(g).Waiting, "what was left goes to whoever waits")
	assert.Equal(t, 2*leastPatience, handed())
	g.SetTrust(Draining, now) // there was
	g.SetTrust(Alone, now)
	assert.Equal(t, leastPatience, handed())
	assert.Equal(t, 3, doubts)
	g.SetTrust(Alone, now)
	for range 3 * leastPatience / 2 { // somebody comes back
		require.Equal(t, Handed, g.Return(&Ticket[conn]{}, &s.Session, false, now))
		_, _, _ = g.Ask(newWaiter(), now)
	}
	assert.Equal(t, 3, doubts)
}

func TestWhatIsOverTheLimitGoesWhenThePoolIsDrained(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g, all := trusting(t, Draining, 3)
		giveBack(g, all[0])
		after(1)
		assert.Empty(t, g.SetLimit(1))
		_, became := giveBack(g, all[1])
		require.Equal(t, Kept, became, "its ticket is on its way to somebody")
		c := asks(t.Context(), g, newWaiter(), nil)
		over := g.SetTrust(Alone, clock.Now())
		assert.Equal(t, all[:2], over)
		for _, s := range over {
			assert.Equal(t, OverSize, s.Reason())
		}
		gone(g, over...)
		requireNotDone(t, c)
		_, became = giveBack(g, all[2])
		require.Equal(t, Handed, became)
		requireGot(t, all[2], c)
	})
}

// Free tickets answer for sessions. One that leaves without a session may leave behind
// one that nobody answers for, and that is for those who wait.
func TestATicketThatLeavesWithoutASessionLeavesItToWhoWaits(t *testing.T) {
	for what, leave := range map[string]func(g *Gate[conn, caller], ticket *Ticket[conn]){
		"Leave": func(g *Gate[conn, caller], ticket *Ticket[conn]) { g.Leave(ticket) },
		"Drop":  func(g *Gate[conn, caller], ticket *Ticket[conn]) { assert.Nil(t, g.Drop(ticket, clock.Now())) },
		"Take": func(g *Gate[conn, caller], ticket *Ticket[conn]) {
			s, _, _ := g.Take(ticket, true, 0, clock.Now()) // it is bound to a session that is gone
			assert.Nil(t, s)
		},
	} {
		t.Run(what, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				g, all := trusting(t, Draining, 2)
				ticket, _ := giveBack(g, all[0])
				bound, _ := giveBack(g, all[1])
				require.Len(t, g.TakeReady(1, func(s *conn) bool { return s == all[1] }), 1)
				g.Reject(&all[1].Session, Bad)
				g.Replace(&all[1].Session, newWaiter(), clock.Now()) // its room is taken again
				c := asks(t.Context(), g, newWaiter(), nil)
				requireNotDone(t, c)
				g.Leave(ticket)
				requireNotDone(t, c) // the other answers for the session that is left
				leave(g, bound)
				requireGot(t, all[0], c)
			})
		})
	}
}

func TestPrivateSessionsDoNotCross(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g, all := trusting(t, Private, 2)
		s := all[0]
		mine, became := giveBack(g, s)
		require.Equal(t, Kept, became)
		other := &Ticket[conn]{}
		g.Free(other)
		got, fit, _ := g.Take(other, false, 0, clock.Now())
		require.True(t, got == nil && !fit, "another's ticket")
		got, fit, _ = g.Take(mine, false, 0, clock.Now())
		require.True(t, got == s && fit, "its own")

		c := asks(t.Context(), g, newWaiter(), nil)
		_, became = giveBack(g, s)
		require.Equal(t, Closed, became, "it is not handed over")
		assert.Equal(t, Dropped, s.Reason())
		requireNotDone(t, c)
		gone(g, s)
		requireGot(t, nil, c)
		fresh := dialed(g, Life{}, clock.Now())

		// With no room, one that is ready is closed for another.
		giveBack(g, fresh)
		got = requireGot(t, fresh, asks(t.Context(), g, newWaiter(), nil)).s
		why, unfit := g.Unfit(&got.Session, clock.Now())
		assert.True(t, unfit && why == Dropped)
	})
}

// Whatever becomes ready while somebody of another pool waits takes the room that they
// wait for.
func TestNobodyWaitsForRoomThatAReadySessionHas(t *testing.T) {
	for what, becomesReady := range map[string]func(g *Gate[conn, caller], s *conn){
		"dialed ahead": func(g *Gate[conn, caller], s *conn) { assert.False(t, g.Park(&s.Session, clock.Now())) },
		"put back":     func(g *Gate[conn, caller], s *conn) { assert.False(t, g.PutBack(&s.Session, clock.Now())) },
		"trusted otherwise": func(g *Gate[conn, caller], s *conn) {
			giveBack(g, s)
			g.SetTrust(Private, clock.Now())
		},
	} {
		t.Run(what, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				g := timedGate(1, 1)
				g.SetTrust(map[bool]Trust{true: Draining, false: Private}[what == "trusted otherwise"], clock.Now())
				require.True(t, g.Reserve())
				s := dialed(g, Life{}, clock.Now())
				c := asks(t.Context(), g, newWaiter(), nil)
				requireNotDone(t, c)
				becomesReady(g, s)
				requireGot(t, s, c)
				_, unfit := g.Unfit(&s.Session, clock.Now())
				assert.Equal(t, what == "trusted otherwise", unfit, "where somebody had it, they dial in its room")
			})
		})
	}
}

func TestAPrivateTicketTakesItsSessionWithIt(t *testing.T) {
	now := clock.Now()
	g, _ := newGate(0, 3)
	g.SetTrust(Private, now)
	s := heldAt(t, g, now)
	ticket := &Ticket[conn]{}
	g.Return(ticket, &s.Session, false, now)
	require.Same(t, s, g.Drop(ticket, now), "nobody else could ever use it")
}

func TestWhatNoTicketAnswersForIsSurplus(t *testing.T) {
	for _, trust := range []Trust{Alone, Private} {
		now := clock.Now()
		g, _ := newGate(0, 1)
		g.SetTrust(trust, now)
		all := make([]*conn, 3)
		for i := range all {
			all[i] = heldAt(t, g, now)
		}
		for _, s := range all {
			ticket := &Ticket[conn]{}
			g.Return(ticket, &s.Session, false, now)
			g.Leave(ticket)
		}
		assert.Equal(t, all[:2], g.Surplus(now), "but for the one that is kept")
		assert.Empty(t, g.Surplus(now))
	}
}
