package gate

import (
	"sync/atomic"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/sqllease/sqllease/internal/clock"
)

// TestMain fails the package's tests if one of them leaves a goroutine behind.
func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// conn is the session of the tests.
type conn struct {
	Session[conn]
	ended int         // guarded by the gate's lock: how many of its holds have ended
	busy  atomic.Bool // it is in somebody's hands
	gone  atomic.Bool // it was closed
}

// caller is what the tests know of one who acquires.
type caller struct {
	queued int  // guarded by the gate's lock: how often it joined the queue
	ahead  bool // PreferLocked prefers it
	away   bool // SendAway sends it away
}

// newGate is a gate with its timer: where that is armed, and for when.
func newGate(limit, keep int, lanes ...Lane) (g *Gate[conn, caller], armed *clock.Instant) {
	armed = new(clock.Instant)
	g = New(limit, keep, lanes,
		func(s *conn) { s.ended++ },
		func(c *caller) { c.queued++ },
		func(at clock.Instant) { *armed = at }, func() {})
	return g, armed
}

// dialed is a session that was dialed in room that its caller has.
func dialed(g *Gate[conn, caller], life Life, now clock.Instant) *conn {
	return dialedFor(g, life, 0, now)
}

// dialedFor is one that was dialed for a lane.
func dialedFor(g *Gate[conn, caller], life Life, id LaneID, now clock.Instant) *conn {
	s := &conn{}
	g.Dialed(s, &s.Session, life, id, now)
	return s
}

// heldWith makes a session that is held, of a gate that has room.
func heldWith(t testing.TB, g *Gate[conn, caller], life Life, now clock.Instant) *conn {
	t.Helper()
	s, waits, err := g.Ask(newWaiter(), now)
	if s != nil || waits || err != nil {
		t.Fatal("there is no room, or a session is ready")
	}
	return dialed(g, life, now)
}

// heldAt makes one that lives for any time.
func heldAt(t testing.TB, g *Gate[conn, caller], now clock.Instant) *conn {
	t.Helper()
	return heldWith(t, g, Life{}, now)
}

// newWaiter is a waiter that is prepared.
func newWaiter() *Waiter[conn, caller] {
	w := &Waiter[conn, caller]{}
	w.Prepare(&caller{}, 0, 0, 0)
	return w
}

// gone closes a session.
func gone(g *Gate[conn, caller], all ...*conn) {
	for _, s := range all {
		if s != nil {
			g.Gone(&s.Session)
		}
	}
}

// figures is how a gate stands.
func figures(g *Gate[conn, caller]) (f Figures) {
	g.Look(func() { f = g.FiguresLocked() })
	return f
}

// fired is a channel of a timer that has fired.
func fired() <-chan time.Time {
	c := make(chan time.Time, 1)
	c <- time.Time{}
	return c
}
