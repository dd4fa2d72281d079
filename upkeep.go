package sqllease

import (
	"cmp"
	"context"
	"log/slog"
	"math/rand/v2"
	"sync/atomic"
	"time"

	"go.opentelemetry.io/otel/trace"

	"github.com/sqllease/sqllease/internal/clock"
	"github.com/sqllease/sqllease/internal/drivers"
	"github.com/sqllease/sqllease/internal/gate"
)

// retire closes a session that this goroutine is the closer of, and gives its
// room to the next waiter.
func (c *Connector) retire(s *session) error {
	defer c.refill()
	defer c.buried(s, s.death())
	defer c.gate.Gone(&s.Session)
	return s.close()
}

// replaceAll has all sessions end within that time, and dials under way made again.
func (c *Connector) replaceAll(over time.Duration) {
	c.counts.flushes.Add(1)
	c.gate.Flush(max(over, 0), clock.Now())
	c.recorder.happened(event{kind: EventFlush, took: max(over, 0)})
	c.wakeGate()
}

// replace closes a session and keeps its room for a dial, unless whoever had it has to wait
// again.
func (c *Connector) replace(s *session, w *gate.Waiter[session, acquire]) (waits bool) {
	closed := false
	defer func() {
		c.buried(s, s.death())
		if !closed {
			c.gate.Gone(&s.Session)
			return
		}
		waits = c.gate.Replace(&s.Session, w, clock.Now())
	}()
	_ = s.close()
	closed = true
	return false
}

// buried counts a session that was closed.
func (c *Connector) buried(s *session, d death) {
	c.counts.closed[d.reason].Add(1)
	c.metrics.sessionClosed(d)
	c.recorder.happened(event{kind: EventClosed, session: s.lease.number, server: s.lease.connection, why: d.reason.String()})
	c.certify(s, d)
}

// certify logs how a session ended, where that is wanted.
func (c *Connector) certify(s *session, d death) {
	if !c.cfg.Logger.Enabled(context.Background(), slog.LevelDebug) {
		return
	}
	now := clock.Now()
	c.cfg.logAside(slog.LevelDebug, "sqllease: a connection was closed", slog.String("pool", c.cfg.Name),
		slog.String("reason", d.reason.String()), slog.String("how", d.how), slog.String("meaning", drivers.Meaning(d.how)),
		slog.Duration("age", now.Sub(s.life.born)), slog.Duration("idle", now.Sub(s.HeardOf())))
}

// retireAside closes a session on a goroutine of its own, whose end done
// tells. Nobody could recover a panic of the driver there, so it is logged.
func (c *Connector) retireAside(s *session) (done <-chan struct{}) {
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		defer c.cfg.recovered("closing a connection")
		_ = c.retire(s)
	}()
	return ended
}

// retireAll closes sessions side by side: one that hangs must not keep the
// others open.
func (c *Connector) retireAll(all []*session) {
	ended := make([]<-chan struct{}, len(all))
	for i, s := range all {
		ended[i] = c.retireAside(s)
	}
	for _, e := range ended {
		<-e
	}
}

// wakeGateAt is called with the gate's lock held.
func (c *Connector) wakeGateAt(at clock.Instant) { c.wakeTimer.at(at, c.wakeGate) }

// wakeGate has the ready sessions closed that have expired, keeps others alive, and serves who
// may be served. It waits for no driver.
func (c *Connector) wakeGate() {
	for more := true; more; {
		var expired []*session
		now := clock.Now()
		expired, more = c.gate.Wake(now)
		c.keepAlive(now)
		for _, s := range expired {
			c.retireAside(s)
		}
	}
}

// closeStatements closes the statements that nobody has for long enough, on the sessions
// that are ready. On the others their holders do.
func (c *Connector) closeStatements() {
	defer c.cfg.recovered("closing statements")
	c.texts.expire(clock.Now())
	c.sweepReady()
}

// sweepReady closes the statements that are to be closed on the sessions that are ready.
func (c *Connector) sweepReady() {
	const atOnce = 8
	c.keepers.begin()
	defer c.keepers.end()
	for {
		taken := c.gate.TakeReady(atOnce, func(s *session) bool { return s.statements.due.Load() })
		if len(taken) == 0 {
			return
		}
		for _, s := range taken {
			c.sweep(s)
		}
	}
}

// sweep does so on one that was taken for it.
func (c *Connector) sweep(s *session) {
	returned := false
	defer func() {
		if !returned {
			c.dropPanicked(s)
		}
	}()
	s.sweepAlone()
	returned = true
	c.putBack(s)
}

// putBack makes a session ready again that was taken to be looked after. Its ticket may be gone
// by now: then the next beat closes it.
func (c *Connector) putBack(s *session) {
	if c.gate.PutBack(&s.Session, clock.Now()) {
		_ = c.retire(s)
		return
	}
	c.pulse.begin(clock.Now())
}

// dropPanicked ends the hold of a session in which the driver has panicked, or has ended the
// goroutine, and closes it aside: the driver may hold a lock for ever.
func (c *Connector) dropPanicked(s *session) {
	s.dies(closedPanicked, "")
	c.gate.Reject(&s.Session, gate.Bad)
	c.retireAside(s)
}

// makeRoom closes every statement that nobody has, since the server has no room for more:
// on the session of the caller, and on those that are ready.
func (c *Connector) makeRoom(s *session) bool {
	c.texts.doomAll()
	s.sweep()
	c.sweepReady()
	return true
}

// filler keeps Config.MinIdle sessions ready.
type filler struct {
	busy   atomic.Bool // somebody dials, or a timer is set for it
	failed int         // how often in a row it came to nothing; for who is busy
	told   bool        // a failure in that row was told of; likewise
	timer  timer
}

// refillTimeout bounds a dial that nobody waits for.
const refillTimeout = 30 * time.Second

// refill keeps Config.MinIdle sessions ready. It dials on a goroutine that ends when none
// is missing. While dials fail, the next is later and later.
func (c *Connector) refill() {
	if c.cfg.MinIdle == 0 || !c.gate.Missing() || !c.filler.busy.CompareAndSwap(false, true) {
		return
	}
	go c.fill()
}

func (c *Connector) fill() {
	c.keepers.begin() // a session that is asked ahead is to be closed before Close returns
	defer c.keepers.end()
	f, filled := &c.filler, false
	defer func() {
		if !filled {
			c.fillLater()
		}
	}()
	if filled = c.fillAll(); filled {
		f.failed, f.told = 0, false
		f.busy.Store(false)
		c.refill() // for what went missing between its last look and now
	}
}

// warnUnfilled says once in a row of failures that connections are missing: nobody waits for
// them who would be told.
func (c *Connector) warnUnfilled(err error) {
	if c.filler.told || c.life.Err() != nil {
		return
	}
	c.filler.told = true
	c.cfg.Logger.Warn("sqllease: a connection for Config.MinIdle could not be opened; sqllease tries again, at least twice a minute",
		slog.String("pool", c.cfg.Name), slog.String("server", c.cfg.endpoint.String()), slog.String("error", c.cfg.said(err)))
}

// fillLater does so after a dial that failed, or never returned, and where others dial and no
// more may.
func (c *Connector) fillLater() {
	f := &c.filler
	if c.life.Err() != nil {
		f.busy.Store(false)
		return
	}
	f.failed++
	f.timer.in(backoff(f.failed), c.fill)
}

// backoff is how long to wait after so many failures in a row: twice as long each time,
// half of it at random, so that many do not come at once.
func backoff(failures int) time.Duration {
	const first, longest = 100 * time.Millisecond, 30 * time.Second
	most := doubled(first, failures-1, longest)
	return most/2 + rand.N(most/2)
}

// doubled is a time, doubled so often; longest at most.
func doubled(d time.Duration, times int, longest time.Duration) time.Duration {
	return min(d<<min(times, 16), longest)
}

// fillAll dials ahead until no session is missing; false: a dial failed, or no more may dial.
func (c *Connector) fillAll() (filled bool) {
	defer c.cfg.recovered("dialing ahead for Config.MinIdle")
	for c.gate.Reserve() {
		if err := c.fillOne(c.life); err != nil {
			c.warnUnfilled(err)
			return false
		}
	}
	return !c.gate.Missing()
}

// fillOne dials a session ahead, in room that was reserved. Its context is bounded until
// then, and lasts as long as the session afterwards, whose holder may have it when c.life
// and ctx have ended.
func (c *Connector) fillOne(ctx context.Context) error {
	inner, bound := boundedBy(context.Background(), clock.Now().Add(refillTimeout))
	unbindLife, unbind := context.AfterFunc(c.life, bound.end), context.AfterFunc(ctx, bound.end)
	defer unbindLife()
	defer unbind()
	s, err := c.dial(inner, gate.NoLane)
	if err != nil {
		bound.end()
		return err
	}
	s.release = bound.keep()
	if err := c.askAhead(inner, s); err != nil {
		return err
	}
	if ended := !unbind(); !unbindLife() || ended { // its context has ended with it, or is about to
		c.gate.Reject(&s.Session, gate.Dropped)
		_ = c.retire(s)
		return cmp.Or(ctx.Err(), c.life.Err())
	}
	if c.gate.Park(&s.Session, clock.Now()) {
		_ = c.retire(s)
	}
	return nil
}

// askAhead asks a session for the server's limits that was dialed ahead, where that is due,
// and closes it if that cost it.
func (c *Connector) askAhead(ctx context.Context, s *session) (lost error) {
	returned := false
	defer func() {
		if !returned {
			c.dropPanicked(s)
		}
	}()
	lost = c.askNew(ctx, s)
	returned = true
	if lost != nil {
		c.gate.Reject(&s.Session, gate.Bad)
		c.retireAside(s)
	}
	return lost
}

// begun makes sure that what looks after a lease that has just begun does so in time.
func (c *Connector) begun(s *session) {
	c.watch.from(s)
	c.pulse.begin(s.lease.start)
	c.refill()
}

// took closes sessions that were taken from leases whose holders did not come back yet.
func (c *Connector) took(all []*session) {
	c.lose(len(all))
	now := clock.Now()
	for _, s := range all {
		c.takenUnused(s, now)
		c.retireAside(s)
	}
}

// ended is what there is to tell of a lease that ends, as its holder knows it.
type ended struct {
	was  bool // it was held, since its acquire did end, and somebody may count it
	held time.Duration
	span trace.SpanContext
	lane gate.LaneID
	tx   *txSpan // the transaction that it ends with; nil: none
}

// endOf is that. Its caller holds the session, and gives it back. counted says that
// somebody may count it.
func (c *Connector) endOf(s *session, now clock.Instant, counted bool, how Outcome) (e ended) {
	c.askSoon(now)
	l := &s.lease
	e.was, e.lane = counted && !l.acquired.IsZero(), l.lane
	if e.held = l.heldFor(now); e.held >= brief {
		e.span = l.span
	}
	if l.inCall == callNone || l.rest.all > 0 { // else it is in the only call that it has
		c.endedUnused(l, now)
	}
	if c.recorder.leases.On() {
		c.recorder.ended(s, now, how)
	}
	if l.tx != nil { // its connection was bad, or its driver panicked
		e.tx = l.endTx(nil, now)
	}
	return e
}

// leaseEnded tells it. database/sql still holds its lock on the connection.
func (c *Connector) leaseEnded(e *ended) {
	if e.was {
		c.metrics.held(e.lane, &e.span, e.held)
	}
	if e.tx != nil {
		c.tracing.endTx(e.tx, "lost", nil, false)
	}
	c.watch.tellEndings()
	c.refill()
}

// endedUnused counts for how long a lease that ends was unused. Its caller holds the session.
func (c *Connector) endedUnused(l *lease, now clock.Instant) {
	if l.acquired.IsZero() || l.raw { // what the application does with the driver's own connection is not known
		return
	}
	if l.inCall == callNone && !l.closing { // else it is in one that never ended
		l.rested(l.steps(), now)
	}
	if l.rest.all >= leastUnused {
		c.places.count(l.stack, now.Sub(l.acquired), l.rest)
	}
}

// takenUnused does so of one whose session was taken from it. The holder may come late to
// close rows.
func (c *Connector) takenUnused(s *session, now clock.Instant) {
	l := &s.lease
	l.mu.Lock()
	defer l.mu.Unlock()
	c.endedUnused(l, now)
	if c.recorder.leases.On() {
		c.recorder.ended(s, now, OutcomeReclaimed)
	}
}

// leastUnused is how long a lease has to be unused to be counted: less is the way through
// database/sql, and the telemetry.
const leastUnused = 10 * time.Microsecond
