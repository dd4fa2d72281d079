package sqllease

import (
	"context"
	"database/sql/driver"
	"errors"
	"io"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"github.com/sqllease/sqllease/internal/clock"
	"github.com/sqllease/sqllease/internal/drivers"
	"github.com/sqllease/sqllease/internal/gate"
)

// A server is asked for its limits once a minute at most, while its connections are used, and
// sooner where one was found dead before its time. Nobody waits for it: the newest session is
// asked while it is ready, a moment after somebody has given one back, or before anybody has
// it, where it was dialed ahead. What it says counts for the sessions to come, and for those
// that are there where it is less than what they have. So whoever lowers a limit has it
// noticed within a minute, and a session that was never ready needs no idle limit.

const (
	// askEvery is how often a server is asked, at most; after failures, less and less often.
	askEvery, askSeldom = time.Minute, time.Hour

	// askAgain is how soon it may be asked again where a session died before its time.
	askAgain = time.Second

	// askAfter is how long after a lease's end it is asked.
	askAfter = 100 * time.Millisecond

	// restedFor is how long a session was not used that is taken from its callers for it.
	restedFor = 10 * time.Millisecond

	// askTimeout bounds the question: a transaction pooler that has no room does not answer it.
	// askPatience does once somebody waits who may have to wait for the session that is asked.
	askTimeout, askPatience = 2 * time.Second, 50 * time.Millisecond
)

// asking is what a connector knows of its server, and when it asks.
type asking struct {
	timer timer
	busy  atomic.Bool                    // a timer is set, or a ready session is asked
	due   atomic.Int64                   // the instant from which on the server is to be asked
	known atomic.Pointer[drivers.Answer] // the last answer; nil: there was none

	stop     context.CancelFunc // guarded by the gate's lock: ends the question; nil: none is asked
	yields   bool               // guarded by the gate's lock: it is to end soon
	stopSoon timer              // for that

	mu       sync.Mutex
	asked    clock.Instant // guarded by mu: when it was asked last
	failures int           // guarded by mu: in a row
}

// limits are the last that were told.
func (a *asking) limits() drivers.Limits {
	if known := a.known.Load(); known != nil {
		return known.Limits
	}
	return drivers.Limits{}
}

// isDue tells whether the server is to be asked.
func (a *asking) isDue(now clock.Instant) bool { return int64(now) >= a.due.Load() }

// hurry has it asked as soon as it may be.
func (a *asking) hurry() {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.due.Store(min(a.due.Load(), int64(a.asked.Add(askAgain))))
}

// ended notes that it was asked, and says when the next time is.
func (a *asking) ended(now clock.Instant, failed bool) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.failures++; !failed {
		a.failures = 0
	}
	a.asked = now
	a.due.Store(int64(now.Add(doubled(askEvery, a.failures, askSeldom))))
}

// inRow is how often in a row it came to nothing.
func (a *asking) inRow() int {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.failures
}

// yieldLocked has a question end soon, since somebody waits for a connection. The gate's lock
// is held.
func (c *Connector) yieldLocked() {
	if a := &c.asking; a.stop != nil && !a.yields { // else each who comes would put it off
		a.yields = true
		a.stopSoon.in(askPatience, c.stopAsking)
	}
}

// stopAsking ends it, where somebody waits still.
func (c *Connector) stopAsking() {
	var stop context.CancelFunc
	c.gate.Look(func() {
		if c.gate.FirstWaiterLocked().IsZero() {
			c.asking.yields = false
			return
		}
		stop = c.asking.stop
	})
	if stop != nil {
		stop()
	}
}

// stopsBy has a question end by that where somebody waits, or comes to wait.
func (c *Connector) stopsBy(stop context.CancelFunc) {
	c.gate.Look(func() {
		if c.asking.stop = stop; !c.gate.FirstWaiterLocked().IsZero() {
			c.yieldLocked()
		}
	})
}

// stopped notes that it has ended.
func (c *Connector) stopped() {
	c.gate.Look(func() {
		c.asking.stop, c.asking.yields = nil, false
		c.asking.stopSoon.stop()
	})
}

// asks tells whether the server is ever asked.
func (c *Connector) asks() bool { return c.cfg.discovery != nil }

// askSoon has the server asked a moment later, where that is due. It is called at the end of
// each lease.
func (c *Connector) askSoon(now clock.Instant) {
	if c.asks() && c.asking.isDue(now) && c.life.Err() == nil && c.asking.busy.CompareAndSwap(false, true) {
		c.asking.timer.in(askAfter, c.askReady)
	}
}

// askReady asks the newest session that is ready. Where none is, the next lease's end has it
// try again.
func (c *Connector) askReady() {
	defer c.cfg.recovered("asking the server for its limits")
	defer c.asking.busy.Store(false)
	c.keepers.begin()
	defer c.keepers.end()
	if !c.asking.isDue(clock.Now()) { // it was asked meanwhile
		return
	}
	s := c.takeRested(clock.Now())
	if s == nil {
		return
	}
	kept := false
	defer func() {
		if !kept {
			c.dropPanicked(s)
		}
	}()
	lost := c.ask(c.life, s)
	kept = true
	if lost != nil {
		c.gate.Reject(&s.Session, gate.Bad)
		_ = c.retire(s)
		return
	}
	c.putBack(s)
}

// takeRested takes the newest of the sessions that have not been used for a moment: a newer
// one knows more. It is held by its caller; nil: there is none.
func (c *Connector) takeRested(now clock.Instant) *session {
	var newest *session
	overdue := int64(now) >= c.asking.due.Load()+int64(askEvery)
	rested := func(s *session) bool { return overdue || now.Sub(s.UsedLocked()) >= restedFor }
	c.gate.Look(func() {
		c.gate.EachReadyLocked(func(s *session) bool {
			if rested(s) && (newest == nil || s.life.born > newest.life.born) {
				newest = s
			}
			return true
		})
	})
	taken := c.gate.TakeReady(1, func(s *session) bool { return s == newest })
	if len(taken) == 0 {
		return nil // there is none, or somebody has it by now
	}
	return taken[0]
}

// askNew asks a session that was dialed ahead, before anybody has it, where that is due.
func (c *Connector) askNew(ctx context.Context, s *session) (lost error) {
	if !c.asks() || !c.asking.isDue(clock.Now()) {
		return nil
	}
	return c.ask(ctx, s)
}

// ask asks a session, which its caller holds, and takes notice of the answer. An error says
// that the session is of no use any more.
func (c *Connector) ask(ctx context.Context, s *session) (lost error) {
	ctx, cancel := context.WithTimeout(ctx, askTimeout)
	defer cancel()
	c.stopsBy(cancel)
	defer c.stopped()
	returned := false
	defer func() {
		if !returned { // a panic: it is not asked again so soon either
			c.asking.ended(clock.Now(), true)
		}
	}()
	answer, survived, err := c.put(ctx, s)
	returned = true
	if err == nil {
		now := clock.Now()
		s.Heard(now)
		c.asking.ended(now, false)
		c.answered(&answer)
		return nil
	}
	if !survived {
		s.dies(closedInvalid, drivers.Ended(err))
		lost = err
	}
	c.asking.ended(clock.Now(), true)
	if c.life.Err() == nil {
		c.discoveryFailed(err, lost != nil)
	}
	return lost
}

// put puts the question to a session, and tells whether that is of use afterwards. It takes
// turns with results that ask their connection late.
func (c *Connector) put(ctx context.Context, s *session) (answer drivers.Answer, survived bool, err error) {
	s.takeTurn()
	defer s.endTurn()
	answer, err = c.cfg.discovery.Ask(ctx, s.conn)
	return answer, err == nil || survives(ctx, s.conn, err), err
}

// answered takes notice of an answer.
func (c *Connector) answered(a *drivers.Answer) {
	c.asking.known.Store(a)
	c.recognise(a.System)
	c.tellLimits(a.Limits)
	c.judgeRole(a)
	c.checkBudget(a)
	now := clock.Now()
	learned := c.learnedIdle(now) // of a session that was dialed meanwhile
	c.gate.ShortenAll(func(s *session) gate.Life {
		s.life = s.life.within(a.Limits, c.cfg)
		s.life.idleWithin(learned)
		return s.life.bounds(c.cfg.LifetimeJitter)
	}, now)
	c.wakeGate()
}

// tellLimits notes what Stats shows of them.
func (c *Connector) tellLimits(found drivers.Limits) {
	idle := drivers.MinLimit(found.Idle, c.cfg.NetworkIdleLimit)
	c.newest.idle.Store(int64(idle))
	c.newest.idleTx.Store(int64(found.IdleTx))
	c.newest.lifetime.Store(int64(newLifetime(0, found, c.cfg).whole))
}

// recognise takes notice of what a server says that it is. What the application has said
// counts for more.
func (c *Connector) recognise(system string) {
	if system == "" || !c.cfg.guessed {
		return
	}
	if id := c.identity.Load(); id.system != system {
		c.identity.CompareAndSwap(id, newIdentity(c.cfg, system))
	}
}

// survives tells whether a connection is of use after a call on it failed,
// from what the driver can tell of it: not every driver has a Validator, or
// says driver.ErrBadConn of a connection that was cut.
func survives(ctx context.Context, conn driver.Conn, err error) bool {
	if _, answered := err.(*drivers.AnswerError); answered { //nolint:errorlint // it is never wrapped
		return true
	}
	if isBad(err) || ctx.Err() != nil {
		return false
	}
	if v, ok := conn.(driver.Validator); ok && !v.IsValid() {
		return false
	}
	if p, ok := conn.(driver.Pinger); ok {
		return p.Ping(ctx) == nil
	}
	if r, ok := conn.(driver.SessionResetter); ok {
		return r.ResetSession(ctx) == nil
	}
	return !errors.Is(err, io.EOF) && !errors.Is(err, io.ErrUnexpectedEOF)
}

// deadInRow is how many sessions in a row that were found dead, or whose question yielded, say
// that more is wrong than that.
const deadInRow = 3

// discoveryFailed counts, and says once, that limits could not be found out. lost says that it
// cost the session.
func (c *Connector) discoveryFailed(err error, lost bool) {
	c.counts.discoveryFailures.Add(1)
	if lost && !errors.Is(err, context.DeadlineExceeded) && c.asking.inRow() < deadInRow {
		return // a server that has restarted, for example: the next session is asked
	}
	if !c.warned.discovery.CompareAndSwap(false, true) {
		return
	}
	args := []any{
		slog.String("pool", c.cfg.Name), slog.String("dialect", string(c.cfg.Dialect)),
		slog.String("query", c.cfg.discovery.Query), slog.String("error", c.cfg.said(err)),
	}
	switch _, code := errorType(err); code {
	case "42P05", "26000": // the prepared statement exists already, or does not exist
		args = append(args, slog.String("hint", "is a pooler in transaction mode between, such as PgBouncer? docs/faq.md says which settings it needs"))
	}
	c.cfg.warnAside("sqllease: the server's idle limit could not be discovered. Connections are closed in time for the limits in Config, "+
		"and for the last idle limit that was discovered, if any. "+
		"Set Config.NetworkIdleLimit to the limit that you know, and Config.Discovery to sqllease.NoDiscovery, so that the server is not asked again", args...)
}
