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

// got is what an acquire came to, and when.
type got struct {
	s     *conn
	place int
	err   error
	at    clock.Instant
}

// asks acquires on a goroutine of its own, and returns when that waits or is done.
func asks(ctx context.Context, g *Gate[conn, caller], w *Waiter[conn, caller], over <-chan time.Time) <-chan got {
	done := make(chan got, 1)
	go func() {
		s, waits, err := g.Ask(w, clock.Now())
		place := 0
		if waits {
			s, place, err = g.Wait(ctx, w, over)
		}
		done <- got{s, place, err, clock.Now()}
	}()
	synctest.Wait()
	return done
}

// timedGate is a gate whose Wake is called in time.
func timedGate(limit, keep int, lanes ...Lane) (g *Gate[conn, caller]) {
	var timer *time.Timer // guarded by the gate's lock
	wake := func() {
		for more := true; more; {
			var expired []*conn
			expired, more = g.Wake(clock.Now())
			gone(g, expired...)
		}
	}
	g = New(limit, keep, lanes, func(*conn) {}, func(*caller) {}, func(at clock.Instant) {
		if timer != nil {
			timer.Stop()
		}
		timer = time.AfterFunc(at.Until(), wake)
	}, func() {})
	return g
}

// after lets time pass.
func after(d time.Duration) {
	time.Sleep(d) //nolint:forbidigo // virtual time
	synctest.Wait()
}

// giveBack gives a session back under a ticket of its own.
func giveBack(g *Gate[conn, caller], s *conn) (*Ticket[conn], Returned) {
	t := &Ticket[conn]{}
	return t, g.Return(t, &s.Session, false, clock.Now())
}

// isDone tells whether an acquire is over, and what it came to.
func isDone(c <-chan got) (got, bool) {
	synctest.Wait()
	select {
	case x := <-c:
		return x, true
	default:
		return got{}, false
	}
}

func requireNotDone(t *testing.T, c <-chan got) {
	t.Helper()
	_, done := isDone(c)
	require.False(t, done)
}

func requireGot(t *testing.T, want *conn, c <-chan got) got {
	t.Helper()
	x, done := isDone(c)
	require.True(t, done, "it waits still")
	require.NoError(t, x.err)
	require.Same(t, want, x.s)
	return x
}

func TestWhoeverWaitsLongestIsServedFirst(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := timedGate(2, 0)
		s := heldAt(t, g, clock.Now())
		other := heldAt(t, g, clock.Now())
		var waiting []<-chan got
		for range 6 {
			waiting = append(waiting, asks(t.Context(), g, newWaiter(), nil))
		}
		for i, c := range waiting {
			requireNotDone(t, c)
			if i == 3 { // room in place of a session
				g.Condemn(&other.Session, Bad, clock.Now())
				gone(g, other)
				requireGot(t, nil, c)
				g.Unreserve(0) // the dial fails, and the next may try
				requireGot(t, nil, waiting[4])
				g.Unreserve(0)
				requireGot(t, nil, waiting[5])
				return
			}
			_, became := giveBack(g, s)
			require.Equal(t, Handed, became)
			requireGot(t, s, c)
			for _, later := range waiting[i+1:] {
				requireNotDone(t, later)
			}
		}
	})
}

func TestAWaiterIsServedAtTheMomentOfTheReturn(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const wait = 12345 * time.Microsecond
		g := timedGate(1, 0)
		s := heldAt(t, g, clock.Now())
		begun := clock.Now()
		c := asks(t.Context(), g, newWaiter(), nil)
		after(wait - 1)
		requireNotDone(t, c)
		after(1)
		giveBack(g, s)
		assert.Equal(t, begun.Add(wait), requireGot(t, s, c).at)
		counts := figures(g).Counts
		assert.Equal(t, Counts{LaneCounts: LaneCounts{Holds: 2, Waits: 1, QueueTime: wait}, Handovers: 1}, counts)
	})
}

func TestAGrantBeforeACancelGoesToTheNext(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		for range 100 { // Wait sees either of the two first
			g := timedGate(1, 0)
			s := heldAt(t, g, clock.Now())
			first, next, last := newWaiter(), newWaiter(), newWaiter()
			for _, w := range []*Waiter[conn, caller]{first, next, last} {
				_, waits, _ := g.Ask(w, clock.Now())
				require.True(t, waits)
			}
			giveBack(g, s)
			ctx, cancel := context.WithCancel(t.Context())
			cancel()
			got, place, err := g.Wait(ctx, first, nil)
			require.ErrorIs(t, err, context.Canceled)
			require.Nil(t, got)
			require.Zero(t, place, "it was not in the queue")
			require.Empty(t, last.served, "nobody is woken for nothing")
			got, _, err = g.Wait(t.Context(), next, nil)
			require.NoError(t, err)
			require.Same(t, s, got)
			require.Equal(t, Counts{LaneCounts: LaneCounts{Holds: 2, Waits: 1}, Handovers: 1}, figures(g).Counts)
		}
	})
}

func TestACancelBeforeAGrantLeavesItToTheNext(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := timedGate(1, 0)
		s := heldAt(t, g, clock.Now())
		ctx, cancel := context.WithCancel(t.Context())
		first := newWaiter()
		c, next := asks(ctx, g, first, nil), asks(t.Context(), g, newWaiter(), nil)
		cancel()
		x, done := isDone(c)
		require.True(t, done)
		assert.Equal(t, got{nil, 1, context.Canceled, clock.Now()}, x)
		giveBack(g, s)
		requireGot(t, s, next)
		assert.Empty(t, first.served)
		assert.Equal(t, Counts{LaneCounts: LaneCounts{Holds: 2, Waits: 1}, Handovers: 1}, figures(g).Counts)
	})
}

func TestACancelAndAGrantAtOneInstantLoseNothing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		both := map[bool]int{}
		for i := range 2000 {
			g := timedGate(1, 0)
			s := heldAt(t, g, clock.Now())
			ctx, cancel := context.WithCancel(t.Context())
			first := asks(ctx, g, newWaiter(), nil)
			next, last := asks(t.Context(), g, newWaiter(), nil), newWaiter()
			_, waits, _ := g.Ask(last, clock.Now())
			require.True(t, waits)
			if i%2 == 0 {
				go cancel()
				giveBack(g, s)
			} else {
				go giveBack(g, s)
				cancel()
			}
			x, done := isDone(first)
			require.True(t, done)
			both[x.err == nil]++
			if x.err == nil {
				require.Same(t, s, x.s)
				requireNotDone(t, next)
				giveBack(g, s)
			}
			requireGot(t, s, next)
			require.Empty(t, last.served, "nobody is woken for nothing")
			_, _, _ = g.GiveUp(last)
			f := figures(g)
			require.Equal(t, 1, f.Held)
			require.Equal(t, f.Counts.Holds-1, f.Counts.Waits)
			cancel()
		}
		t.Logf("the grant was first %d times, the cancel %d times", both[true], both[false])
	})
}

func TestRoomThatIsGivenUpGoesToTheNext(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := timedGate(1, 0)
		s := heldAt(t, g, clock.Now())
		first := newWaiter()
		_, waits, _ := g.Ask(first, clock.Now())
		require.True(t, waits)
		next := asks(t.Context(), g, newWaiter(), nil)
		after(time.Second)
		g.Condemn(&s.Session, Bad, clock.Now())
		gone(g, s)
		after(time.Second) // it is slow to notice
		_, _, err := g.GiveUp(first)
		require.NoError(t, err)
		requireGot(t, nil, next)
		assert.Equal(t, 2*time.Second, figures(g).Counts.QueueTime, "that of the second, who was served")
	})
}

func TestAPlaceThatWasKeptIsBeforeThoseWhoCameLater(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := timedGate(1, 0)
		s := heldAt(t, g, clock.Now())
		first := asks(t.Context(), g, newWaiter(), nil)
		number := g.Arrive()
		later := asks(t.Context(), g, newWaiter(), nil)
		back := newWaiter()
		back.Prepare(&caller{}, number, 0, 0)
		kept := asks(t.Context(), g, back, nil)
		for _, c := range []<-chan got{first, kept, later} {
			giveBack(g, s)
			requireGot(t, s, c)
		}
	})
}

func TestWhoIsSentAwayComesBackToTheirPlace(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := timedGate(1, 0)
		s := heldAt(t, g, clock.Now())
		w := newWaiter()
		first := asks(t.Context(), g, w, nil)
		stays := newWaiter()
		stays.caller.away = true
		second := asks(t.Context(), g, stays, nil)
		third := asks(t.Context(), g, newWaiter(), nil)
		var number uint64
		g.SendAway(errAway, func(c *caller, n uint64) bool {
			if !c.away && number == 0 {
				number = n
				return true
			}
			return false
		})
		x, done := isDone(first)
		require.True(t, done)
		require.Equal(t, errAway, x.err)
		w.Prepare(w.caller, number, 0, 0)
		first = asks(t.Context(), g, w, nil)
		for _, c := range []<-chan got{first, second, third} {
			giveBack(g, s)
			requireGot(t, s, c)
		}
	})
}

func TestAWaitEndsWhenItsTimeIsOver(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const timeout = 50 * time.Millisecond
		g := timedGate(1, 0)
		s := heldAt(t, g, clock.Now())
		begun := clock.Now()
		first := asks(t.Context(), g, newWaiter(), nil)
		c := asks(t.Context(), g, newWaiter(), time.After(timeout))
		after(timeout)
		x, done := isDone(c)
		require.True(t, done)
		assert.Equal(t, got{nil, 2, context.DeadlineExceeded, begun.Add(timeout)}, x)
		giveBack(g, s)
		requireGot(t, s, first)
		assert.Zero(t, figures(g).Waiting)
	})
}

func TestShutEndsAllWaitsAndWhatComesBack(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := timedGate(2, 1)
		s, other := heldAt(t, g, clock.Now()), heldAt(t, g, clock.Now())
		var waiting []<-chan got
		for range 5 {
			waiting = append(waiting, asks(t.Context(), g, newWaiter(), nil))
		}
		slow := newWaiter() // who gives up, and finds that it was refused
		_, waits, _ := g.Ask(slow, clock.Now())
		require.True(t, waits)
		assert.Empty(t, g.Shut())
		for _, c := range waiting {
			x, done := isDone(c)
			require.True(t, done)
			assert.Equal(t, got{nil, 0, ErrShut, clock.Now()}, x)
		}
		_, _, err := g.GiveUp(slow)
		require.Equal(t, ErrShut, err)
		_, _, err = g.Ask(newWaiter(), clock.Now())
		require.Equal(t, ErrShut, err)
		_, became := giveBack(g, s)
		assert.Equal(t, Closed, became)
		assert.Equal(t, ShutDown, s.Reason())
		assert.True(t, g.Park(&other.Session, clock.Now()))
		assert.Equal(t, ShutDown, other.Reason())
		assert.False(t, g.Reserve())
		gone(g, s, other)
		assert.Zero(t, figures(g).Open)
		assert.Empty(t, g.Shut(), "a second time")
	})
}

func TestWhatIsLookedAtMayBeTakenMeanwhile(t *testing.T) {
	now := clock.Now()
	full := func() *Gate[conn, caller] {
		g, _ := newGate(5, 0)
		for range 5 {
			heldAt(t, g, now)
		}
		for range 5 {
			_, _, _ = g.Ask(newWaiter(), now)
		}
		return g
	}
	g := full()
	seen := 0
	g.Look(func() {
		g.SinceLocked(2, func(s *conn) bool {
			seen++
			g.CondemnLocked(&s.Session, Taken, now)
			return true
		})
	})
	assert.Equal(t, 3, seen)
	assert.Equal(t, 2, figures(g).Held)
	g.Look(func() {
		g.EachHeldLocked(func(s *conn) bool {
			g.CondemnLocked(&s.Session, Taken, now)
			return s.Hold() < 2
		})
		g.EachWaiterLocked(func(w *Waiter[conn, caller], _ *caller) bool {
			g.RefuseLocked(w, errRefused)
			return w.Number() < 9
		})
	})
	f := figures(g)
	assert.Zero(t, f.Held)
	assert.Equal(t, 1, f.Waiting)
}

func TestAWaiterIsUsedForManyAcquires(t *testing.T) {
	g, _ := newGate(1, 0)
	now := clock.Now()
	s := heldAt(t, g, now)
	ticket, w := &Ticket[conn]{}, &Waiter[conn, caller]{}
	by := &caller{}
	acquire := func() {
		w.Prepare(by, 0, 0, 0)
		_, waits, _ := g.Ask(w, now)
		require.True(t, waits)
		switch by.queued % 3 {
		case 0: // it gives up in the queue
			_, place, _ := g.GiveUp(w)
			require.Equal(t, 1, place)
			return
		case 1: // or after it was served
			require.Equal(t, Handed, g.Return(ticket, &s.Session, false, now))
			got, _, _ := g.GiveUp(w)
			require.Same(t, s, got, "no ticket answers for it")
			g.Replace(&s.Session, w, now)
			g.Dialed(s, &s.Session, Life{}, 0, now)
			return
		}
		require.Equal(t, Handed, g.Return(ticket, &s.Session, false, now))
		got, _, err := g.Wait(context.Background(), w, nil)
		require.True(t, got == s && err == nil)
	}
	assert.Zero(t, testing.AllocsPerRun(3000, acquire), "allocations of an acquire")
	assert.Empty(t, w.served)
	assert.Equal(t, uint64(1000), figures(g).Counts.Waits)
}
