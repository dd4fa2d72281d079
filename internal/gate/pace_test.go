package gate

import (
	"context"
	"fmt"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/sqllease/sqllease/internal/clock"
)

// dialers has so many come at once, and returns them. Those who may dial do not yet.
func dialers(t *testing.T, g *Gate[conn, caller], n int) (all []*Waiter[conn, caller]) {
	t.Helper()
	for range n {
		w := newWaiter()
		s, _, err := g.Ask(w, clock.Now())
		require.True(t, s == nil && err == nil)
		all = append(all, w)
	}
	return all
}

func TestAfterAFailureEachDialThatSucceedsDoublesHowManyMayDial(t *testing.T) {
	for limit, want := range map[int][]int{
		0:   {1, 2, 4, 8, 16, 32, 194}, // 6 have succeeded: the other 194 dial
		100: {1, 2, 4, 8, 16, 32, 94},
		10:  {1, 2, 4, 7, 6}, // room for 7
		1:   {1, 0},
	} {
		t.Run(fmt.Sprint(limit), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				g, _ := newGate(limit, 0)
				dialers(t, g, 1)
				g.Failed("refused", 0)
				dialers(t, g, 200)
				for i, n := range want {
					f := figures(g)
					require.Equal(t, n, f.Dialing, "after %d dials", i)
					require.Equal(t, f.Pace > 0, f.Failure == "refused")
					if n > 0 {
						dialed(g, Life{}, clock.Now())
					}
				}
				assert.Zero(t, figures(g).Pace)
			})
		})
	}
}

func TestADialThatFailsLetsTheNextDial(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g, _ := newGate(0, 0)
		dialers(t, g, 3)
		g.Failed("refused", 0)
		all := dialers(t, g, 4)
		assert.Equal(t, []int{2, 4}, []int{figures(g).Dialing, figures(g).Waiting}, "two dial since before")
		g.Unreserve(0) // of a caller who went away
		assert.Equal(t, []int{1, 4}, []int{figures(g).Dialing, figures(g).Waiting})
		for i, w := range all {
			if i%2 == 0 {
				g.Failed("refused", 0)
			} else {
				g.Unreserve(0)
			}
			s, _, err := g.Wait(context.Background(), w, nil)
			require.True(t, s == nil && err == nil, "it may dial")
			require.Equal(t, 1, figures(g).Dialing)
		}
		g.Failed("refused", 0)
		assert.Equal(t, Figures{Pace: 1, Failure: "refused", Counts: figures(g).Counts}, figures(g))
	})
}

// Whoever was given a session that came to nothing goes before all who came later.
func TestWhoWaitsAgainHasItsPlace(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		now := clock.Now()
		g, _ := newGate(2, 0)
		s := heldAt(t, g, now)
		ticket := &Ticket[conn]{}
		require.Equal(t, Kept, g.Return(ticket, &s.Session, false, now))
		first := newWaiter()
		got, _, _ := g.Ask(first, now)
		require.Same(t, s, got)
		dialers(t, g, 1)
		g.Failed("refused", 0)
		all := dialers(t, g, 3) // the first of them dials
		g.Reject(&s.Session, Bad)
		require.True(t, g.Replace(&s.Session, first, now))
		assert.Equal(t, []int{1, 3}, []int{figures(g).Open, figures(g).Waiting}, "its room is nobody's")
		g.Failed("refused", 0)
		_, place, _ := g.GiveUp(first)
		assert.Zero(t, place, "it was let dial")
		_, place, _ = g.GiveUp(all[1])
		assert.Zero(t, place, "and then the next")
	})
}

func TestADialOfWhichNothingIsHeardIsOvertaken(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := timedGate(0, 0)
		dialers(t, g, 1)
		g.Failed("timeout", 0)
		dialers(t, g, 4)
		for i := range 3 {
			after(longDial - 1)
			require.Equal(t, i+1, figures(g).Dialing)
			after(1)
			require.Equal(t, i+2, figures(g).Dialing)
		}
		after(time.Hour)
		assert.Equal(t, []int{4, 0}, []int{figures(g).Dialing, figures(g).Waiting})
	})
}

func TestAGateThatWasShutLetsNobodyWaitAgain(t *testing.T) {
	now := clock.Now()
	g, _ := newGate(2, 0)
	s := heldAt(t, g, now)
	dialers(t, g, 1)
	g.Failed("refused", 0)
	dialers(t, g, 1)
	g.Shut()
	g.Reject(&s.Session, Bad)
	assert.False(t, g.Replace(&s.Session, newWaiter(), now), "nobody would serve it")
	assert.Equal(t, 2, figures(g).Dialing)
}

// A server counts those too that it is about to refuse: of many that are dialed at once, all may be
// refused for each other.
func TestDialsThatWereRefusedForEachOtherAreMadeAgainOneByOne(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := timedGate(0, 0)
		all := dialers(t, g, 3)
		for i, w := range all {
			g.Full("full", 0)
			require.True(t, g.Rejoin(w, clock.Now()), "%d was refused while others dialed, or wait", i)
			require.Equal(t, []int{2, 1, 1}[i], figures(g).Dialing)
		}
		require.Equal(t, []int{1, 2}, []int{figures(g).Dialing, figures(g).Waiting}, "one dials alone")
		g.Full("full", 0)
		assert.False(t, g.Rejoin(all[0], clock.Now()), "that was the truth")
		assert.Equal(t, []int{1, 1}, []int{figures(g).Dialing, figures(g).Waiting}, "the next one has its turn")
	})
	t.Run("one that dials alone does not wait", func(t *testing.T) {
		g := timedGate(0, 0)
		w := dialers(t, g, 1)[0]
		g.Full("full", 0)
		assert.False(t, g.Rejoin(w, clock.Now()))
	})
}
