package sqllease

import (
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"github.com/sqllease/sqllease/internal/clock"
	"github.com/sqllease/sqllease/internal/drivers"
)

// After a failover, what was the primary may live on as a replica: its connections work, and
// every write on them fails, for as long as they live. So a session on which a write failed
// for that is closed when it comes back, where its server is known to have taken writes; and
// the server is asked at once. If it says that it takes none, all sessions are replaced. What
// was read-only from the start, or for one transaction, means nothing.

// role is what a connector knows of what its server is to others.
type role struct {
	wrote   atomic.Bool // it has said once that it takes writes, or has taken one
	doubted atomic.Bool // a write failed since, for its being read-only

	mu    sync.Mutex
	next  clock.Instant // guarded by mu: all sessions are not replaced again before that
	pause time.Duration // guarded by mu: what was waited for it
}

// A server may take no writes for long, and its connections are of use to read.
const firstRolePause, longestRolePause = 10 * time.Second, 5 * time.Minute

// leavesRole tells whether a session that comes back is to be closed, since a write on it
// failed for the server's being read-only. Its caller holds it.
func (c *Connector) leavesRole(s *session) bool {
	code := s.refused
	s.refused, s.reads = "", false
	if code == "" || !c.role.wrote.Load() {
		return false
	}
	s.dies(closedRole, code)
	c.role.doubted.Store(true)
	c.asking.hurry()
	return true
}

// judgeRole takes notice of what the server says of its role.
func (c *Connector) judgeRole(a *drivers.Answer) {
	switch {
	case !a.ReadOnly:
		c.role.wrote.Store(true)
		c.role.doubted.Store(false)
		c.role.calm()
	case c.role.doubted.Swap(false) && c.role.may(clock.Now()):
		c.leaveAll()
	}
}

// calm forgets how often the sessions have been replaced.
func (r *role) calm() {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.pause = 0
}

// may tells whether they may be replaced again, and is later and later to do so.
func (r *role) may(now clock.Instant) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	if now < r.next {
		return false
	}
	r.pause = min(max(2*r.pause, firstRolePause), longestRolePause)
	r.next = now.Add(r.pause)
	return true
}

// leaveAll replaces all sessions.
func (c *Connector) leaveAll() {
	n := 0
	c.gate.Look(func() {
		leave := func(s *session) bool {
			s.life.role = true
			n++
			return true
		}
		c.gate.EachHeldLocked(leave)
		c.gate.EachReadyLocked(leave)
	})
	c.replaceAll(0)
	c.cfg.warnAside("sqllease: the server takes no writes any more, as after a failover: all connections are replaced. "+
		"If it goes on, the address still leads to a replica",
		slog.String("pool", c.cfg.Name), slog.String("server", c.cfg.endpoint.String()), slog.Int("connections", n))
}
