package sqllease

import (
	"time"

	"github.com/sqllease/sqllease/internal/clock"
)

// Connectors returns the pools of this process that are not closed, the oldest first. A pool that
// is never closed is forgotten once nothing refers to it.
func Connectors() []*Connector { return connectors.list() }

// Name is the name of the pool in telemetry: [Config.Name], or the one that was made up.
func (c *Connector) Name() string { return c.cfg.Name }

// Connection is one connection of a pool.
type Connection struct {
	Number  uint64    // a pool counts its dials from 1
	ID      uint64    // the server's number of it; 0: not known (see Config.FindBlockers)
	Lease   uint64    // the number of the lease that has it; 0: it is ready
	Opened  time.Time // when it was opened
	Used    time.Time // when it was given back last, or opened
	Expires time.Time // it is not handed out from then on; zero: there is no such time yet
	Why     string    // why then, as sqllease.close.reason says it in telemetry: "idle_limit", "expired", "flushed", or "role_changed"; empty: it does not expire
}

// Connections returns the connections of the pool: those that are checked out, the oldest lease
// first, then those that are ready, the one unused for longest first. One that is being dialed is not there
// yet. It holds the pool's lock, for a time in proportion to their number.
func (c *Connector) Connections() (out []Connection) {
	day := clock.Clocks()
	c.gate.Look(func() {
		c.gate.EachHeldLocked(func(s *session) bool {
			out = append(out, s.describe(day))
			return true
		})
		c.gate.EachReadyLocked(func(s *session) bool {
			out = append(out, s.describe(day))
			return true
		})
	})
	return out
}

// describe tells of a session. The gate's lock is held.
func (s *session) describe(day time.Time) Connection {
	c := Connection{
		Number: s.lease.number, ID: s.lease.connection, Opened: s.life.born.On(day), Used: s.UsedLocked().On(day),
	}
	if s.IsHeld() && s.lease.isOn() {
		c.Lease = s.lease.id
	}
	if at, aged := s.ExpiryLocked(); !at.IsZero() {
		c.Expires, c.Why = at.On(day), s.expiresFor(aged).String()
	}
	return c
}
