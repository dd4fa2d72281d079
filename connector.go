package sqllease

import (
	"context"
	"database/sql/driver"
	"io"
	"sync"
	"sync/atomic"
)

// Connector wraps a driver's connector. [Wrap] makes one, sql.OpenDB takes one, and
// [ConnectorOf] finds that of a *sql.DB.
type Connector struct {
	inner    driver.Connector
	cfg      *settings
	gate     admission
	identity present
	tracing  tracing
	metrics  metrics

	summaries    *descriptions
	tagsPanicked survivor
	texts        texts
	plainResults plainTypes

	execDeclines, queryDeclines declines

	places    places
	reports   reports
	watch     watch
	queue     waits
	pools     pools
	pulse     pulse
	arrivals  arrivals
	acquires  sync.Pool       // of *acquire
	poke      context.Context // that of the acquire by which the connector wakes database/sql's opener
	wakeTimer timer           // of the gate
	textTimer timer           // of the texts
	filler    filler
	asking    asking
	finder    finder
	learned   learned
	recorder  recorder
	keepers   keepers
	left      atomic.Int32 // dials that outlive their callers
	role      role

	counts counters
	newest newest
	warned warned

	life      context.Context // ends with Close; what nobody waits for is bounded by it
	end       context.CancelFunc
	closeOnce sync.Once
	closeErr  error // written by closeOnce
}

// connectors are those of this process that are not closed.
var connectors registry[Connector]

// counters are what a connector counts since it was made.
type counters struct {
	dials, dialErrors, discoveryFailures, flushes, keepAlives atomic.Uint64

	shared  atomic.Uint64  // statements
	givenUp atomic.Uint64  // acquires whose callers cancelled them
	lanes   []laneCounters // by lane
	closed  [closeReasons]atomic.Uint64
	lost    atomic.Int64 // sessions taken from leases whose holders did not come back yet
}

// laneCounters are what is counted of a lane, beside what the gate counts.
type laneCounters struct {
	timeouts atomic.Uint64 // of acquires
	refused  atomic.Uint64 // acquires refused with ErrOverloaded
}

// closedStats are the sessions closed, by reason.
func (c *counters) closedStats() ClosedStats {
	n := func(why closeReason) uint64 { return c.closed[why].Load() }
	return ClosedStats{
		Expired: n(closedExpired), IdleLimit: n(closedIdle), Cancelled: n(closedCancelled), Cut: n(closedCut),
		ResetFailed: n(closedReset), Invalid: n(closedInvalid), Panicked: n(closedPanicked), Suspect: n(closedSuspect),
		Surplus: n(closedSurplus), Limit: n(closedLimit), Flushed: n(closedFlushed), RoleChanged: n(closedRole), Reclaimed: n(closedReclaimed), Shutdown: n(closedShutdown),
	}
}

// newest is what is known for the next session, as durations; zero is unknown.
type newest struct{ idle, idleTx, lifetime atomic.Int64 }

// warned tells what was said already, since it is said once.
type warned struct {
	opener, discovery, lifetime, unattached, hidden atomic.Bool

	budget atomic.Int64 // the figures that it was last said of
	full   atomic.Int64 // the instant from which on it is said again
}

var (
	_ driver.Connector = (*Connector)(nil)
	_ io.Closer        = (*Connector)(nil)
)

// unwrapped notes that the holder of a session takes the driver's own connection. It does
// so in a use, so that a reclaim either sees it or comes to nothing.
func (c *Connector) unwrapped(s *session) {
	s.statements.state++
	c.gate.Look(func() { s.lease.raw = true })
}

// Driver returns the driver of the wrapped connector, unwrapped.
func (c *Connector) Driver() driver.Driver { return c.inner.Driver() }

// Close closes the pool; (*sql.DB).Close calls it. Every caller who waits gets an
// *[AcquireError] that unwraps to [ErrClosed]. Idle connections are closed now, the others
// when they are given back. If the driver's connector is an io.Closer, Close closes it, and
// returns its error. While another attached database is open, Close does nothing.
func (c *Connector) Close() error {
	if c.shared() {
		return nil
	}
	c.closeOnce.Do(func() {
		c.end()
		finders.remove(c)
		connectors.remove(c)
		c.retireAll(c.gate.Shut())
		c.stopTimers()
		c.keepers.wait(keeperGrace)
		c.metrics.close()
		queues.remove(&c.queue)
		c.cfg.number.free()
		if closer, ok := c.inner.(io.Closer); ok {
			c.closeErr = closer.Close()
		}
	})
	return c.closeErr
}

// stopTimers stops the timers of a closed connector, which would keep it in
// memory until then. The watch goes on while leases are out.
func (c *Connector) stopTimers() {
	c.queue.stop()
	for _, t := range []*timer{&c.wakeTimer, &c.textTimer, &c.pulse.timer, &c.filler.timer, &c.asking.timer, &c.asking.stopSoon} {
		t.stop()
	}
}
