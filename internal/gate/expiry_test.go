package gate

import (
	"math"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/sqllease/sqllease/internal/clock"
)

func TestTheExpiryIsTheEarlierOfTheBounds(t *testing.T) {
	used := clock.Instant(time.Hour)
	for _, c := range []struct {
		life Life
		want clock.Instant
	}{
		{Life{}, 0},
		{Life{End: 5}, 5},
		{Life{Idle: time.Second}, used.Add(time.Second)},
		{Life{End: used.Add(time.Minute), Idle: time.Second}, used.Add(time.Second)},
		{Life{End: used.Add(time.Second), Idle: time.Minute}, used.Add(time.Second)},
		{Life{Idle: math.MaxInt64}, math.MaxInt64},
	} {
		assert.Equal(t, c.want, c.life.Expiry(used), "%+v", c.life)
		if c.want.IsZero() {
			assert.False(t, c.life.Expired(used, math.MaxInt64))
			continue
		}
		assert.False(t, c.life.Expired(used, c.want-1))
		assert.True(t, c.life.Expired(used, c.want))
	}
}

func TestAReadySessionEndsAtItsExpiry(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := timedGate(0, 0)
		short := heldWith(t, g, Life{Idle: time.Minute}, clock.Now())
		long := heldWith(t, g, Life{End: clock.Now().Add(time.Hour), Idle: 40 * time.Minute}, clock.Now())
		ticket, _ := giveBack(g, short)
		giveBack(g, long)
		after(time.Minute - 1)
		s, fit, _ := g.Take(ticket, true, 0, clock.Now())
		require.True(t, s == short && fit)
		after(10 * time.Minute) // held, it is left alone
		short.Heard(clock.Now())
		ticket, became := giveBack(g, short)
		require.Equal(t, Kept, became, "it was in use")
		after(time.Minute - 1)
		require.Equal(t, 2, figures(g).Open)
		after(1)
		require.Equal(t, 1, figures(g).Open)
		assert.Equal(t, Expired, short.Reason())
		s, fit, _ = g.Take(ticket, true, 0, clock.Now())
		assert.True(t, s == nil && !fit)
		after(28*time.Minute + 1)
		assert.Equal(t, uint64(2), figures(g).Counts.Closed[Expired])
		assert.Empty(t, g.expiries)
	})
}

func TestAnExpiryIsFoundByWhoeverComesFirst(t *testing.T) {
	now := clock.Now()
	for what, take := range map[string]func(g *Gate[conn, caller], ticket *Ticket[conn], at clock.Instant) *conn{
		"Take": func(g *Gate[conn, caller], ticket *Ticket[conn], at clock.Instant) *conn {
			s, fit, _ := g.Take(ticket, false, 0, at)
			assert.False(t, fit)
			return s
		},
		"Ask": func(g *Gate[conn, caller], _ *Ticket[conn], at clock.Instant) *conn {
			s, _, _ := g.Ask(newWaiter(), at)
			why, unfit := g.Unfit(&s.Session, at)
			assert.True(t, unfit)
			g.Reject(&s.Session, why)
			return s
		},
		"Wake": func(g *Gate[conn, caller], _ *Ticket[conn], at clock.Instant) *conn {
			expired, more := g.Wake(at)
			assert.True(t, len(expired) == 1 && !more)
			return expired[0]
		},
	} {
		g, armed := newGate(1, 0)
		s := heldWith(t, g, Life{Idle: time.Second}, now)
		ticket := &Ticket[conn]{}
		require.Equal(t, Kept, g.Return(ticket, &s.Session, false, now))
		require.Equal(t, now.Add(time.Second), *armed)
		assert.Same(t, s, take(g, ticket, *armed), what)
		assert.Equal(t, Expired, s.Reason(), what)
		assert.Empty(t, g.expiries, what)
		gone(g, s)
		assert.Zero(t, figures(g).Open, what)
	}
}

func TestManySessionsThatExpireTogetherAreTakenAFewAtATime(t *testing.T) {
	const sessions = 3*mostAtOnce + 5
	now := clock.Now()
	g, armed := newGate(0, 0)
	all := make([]*conn, sessions)
	for i := range all {
		all[i] = heldWith(t, g, Life{Idle: time.Second}, now)
	}
	all = append(all, heldWith(t, g, Life{Idle: time.Minute}, now))
	for _, s := range all {
		require.Equal(t, Kept, g.Return(&Ticket[conn]{}, &s.Session, false, now))
	}
	var calls []int
	for more := true; more; {
		var expired []*conn
		expired, more = g.Wake(now.Add(time.Second))
		calls = append(calls, len(expired))
		gone(g, expired...)
	}
	assert.Equal(t, []int{mostAtOnce, mostAtOnce, mostAtOnce, 5}, calls)
	assert.Equal(t, now.Add(time.Minute), *armed)
	assert.Equal(t, 1, figures(g).Open)
}

func TestWhatWasNotUsedGoesBackToItsOldPlace(t *testing.T) {
	now := clock.Now()
	g, _ := newGate(0, 3)
	all := make([]*conn, 4)
	tickets := make([]*Ticket[conn], len(all))
	for i := range all {
		all[i] = heldWith(t, g, Life{}, now.Add(time.Duration(i)))
	}
	for i, s := range all[:3] {
		tickets[i] = &Ticket[conn]{}
		g.Return(tickets[i], &s.Session, false, now.Add(time.Duration(10+i)))
	}
	order := func() (order []*conn) {
		g.ready.each(func(s *Session[conn]) bool {
			order = append(order, s.of)
			return true
		})
		return order
	}
	for _, s := range g.TakeReady(2, func(*conn) bool { return true }) {
		require.False(t, g.PutBack(&s.Session, now.Add(time.Second)))
	}
	require.Equal(t, all[:3], order(), "as if nobody had looked after it")
	g.Free(&Ticket[conn]{})
	require.False(t, g.Park(&all[3].Session, now.Add(time.Second)))
	require.Equal(t, []*conn{all[3], all[0], all[1], all[2]}, order(), "it was dialed before the others were used")

	// Whoever reads the clock first may come to the lock later.
	s, _, _ := g.Take(tickets[2], true, 0, now.Add(20))
	g.Return(tickets[2], &s.Session, false, now.Add(11))
	require.Equal(t, []*conn{all[3], all[0], all[1], all[2]}, order())
}

func TestALowerLimitClosesNoMoreThanItMust(t *testing.T) {
	now := clock.Now()
	g, _ := newGate(4, 0)
	all := make([]*conn, 4)
	for i := range all {
		all[i] = heldAt(t, g, now)
	}
	var closing []*conn
	assert.Empty(t, g.SetLimit(3))
	for _, s := range all { // the first takes long to close
		if g.Return(&Ticket[conn]{}, &s.Session, false, now) == Closed {
			closing = append(closing, s)
		}
	}
	assert.Equal(t, all[:1], closing, "the others are within the limit")
	assert.Equal(t, all[1:2], g.SetLimit(2))
	assert.Empty(t, g.SetLimit(2), "said twice")
	assert.Equal(t, 4, figures(g).Open)
	_, waits, _ := g.Ask(newWaiter(), now)
	assert.False(t, waits, "one is ready")
	s, waits, _ := g.Ask(newWaiter(), now)
	assert.True(t, s != nil && !waits)
	_, waits, _ = g.Ask(newWaiter(), now)
	assert.True(t, waits)
	gone(g, all[:2]...)
	assert.Equal(t, 1, figures(g).Waiting, "there is no room yet")
}

func TestAListPanicsWhereItIsMisused(t *testing.T) {
	var l, other list[int]
	var a, b node[int]
	x := 1
	l.push(&a, &x)
	assert.Panics(t, func() { l.push(&a, &x) })
	assert.Panics(t, func() { l.pushAfter(nil, &a, &x) })
	assert.Panics(t, func() { other.remove(&a) })
	assert.Panics(t, func() { l.remove(&b) })
	l.pushAfter(nil, &b, &x)
	assert.True(t, l.first == &b && l.last == &a && l.len == 2)
	l.remove(&a)
	l.remove(&b)
	assert.Equal(t, list[int]{}, l)
	assert.Nil(t, l.popFirst())
	assert.Nil(t, l.newest())
}
