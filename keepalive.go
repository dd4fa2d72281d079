package sqllease

import (
	"context"
	"time"

	"github.com/sqllease/sqllease/internal/clock"
	"github.com/sqllease/sqllease/internal/drivers"
	"github.com/sqllease/sqllease/internal/gate"
)

// A connection of Config.MinIdle that nobody uses is pinged shortly before it was idle for as
// long as it may, and stays. Closing it and dialing another would cost a dial each time, and
// gain nothing: it is to be ready. Others are closed then, since nobody missed them.
//
// A ping is no lease: it has no span, and counts as no acquire. It is no call of the
// application's either, so what it meets with is told only by the reason of a closing.

// pingTimeout bounds a ping. A server that takes longer is of no use to who comes next.
const pingTimeout = 5 * time.Second

// keepAlive pings the connections that are kept and would be idle for too long, each on a
// goroutine of its own: one that hangs keeps no other silent, and no timer waiting. They are
// held meanwhile, so that nobody else has them. It is called where the gate was woken.
func (c *Connector) keepAlive(now clock.Instant) {
	for _, s := range c.gate.TakeSilent(now) {
		c.keepers.begin()
		go c.keepOne(s)
	}
}

// keepOne pings one, and puts it back, or closes it.
func (c *Connector) keepOne(s *session) {
	defer c.keepers.end()
	defer c.cfg.recovered("pinging an idle connection")
	returned := false
	defer func() {
		if !returned {
			c.dropPanicked(s)
		}
	}()
	err := s.ping(c.life)
	returned = true
	switch {
	case err == nil:
		c.counts.keepAlives.Add(1)
		s.Heard(clock.Now())
	case c.life.Err() == nil:
		s.dies(closedReset, drivers.Ended(err))
		c.asking.hurry()
		c.gate.Reject(&s.Session, gate.Bad)
		_ = c.retire(s)
		return
	}
	c.putBack(s) // as if it had not been used: only its idle time begins anew
}

// ping pings a session that its caller holds. Its driver can.
func (s *session) ping(ctx context.Context) error {
	s.takeTurn()
	defer s.endTurn()
	ctx, cancel := context.WithTimeout(ctx, pingTimeout)
	defer cancel()
	return s.can.Pinger.Ping(ctx)
}
