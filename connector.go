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

	"github.com/sqllease/sqllease/internal/callstack"
	"github.com/sqllease/sqllease/internal/clock"
	"github.com/sqllease/sqllease/internal/drivers"
	"github.com/sqllease/sqllease/internal/gate"
)

// Connector wraps a driver's connector. It is made by [Wrap] and friends, and
// is what sql.OpenDB takes.
type Connector struct {
	inner   driver.Connector
	cfg     *settings
	gate    admission
	tracing tracing
	metrics metrics

	summaries    *descriptions
	tagsPanicked survivor
	texts        texts
	plainResults plainTypes

	execDeclines, queryDeclines declines

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

	dials, dialErrors, discoveryFailures atomic.Uint64
	adoptions                            atomic.Uint64
	timeouts                             atomic.Uint64
	lost                                 atomic.Int64 // sessions taken from leases whose holders did not come back yet
	idleLimit, lifetime                  atomic.Int64 // of the newest session
	idleTxLimit                          atomic.Int64 // likewise

	warnedOpener, warnedDiscovery, warnedLifetime atomic.Bool

	life      context.Context // ends with Close; what nobody waits for is bounded by it
	end       context.CancelFunc
	closeOnce sync.Once
	closeErr  error // written by closeOnce
}

var (
	_ driver.Connector = (*Connector)(nil)
	_ io.Closer        = (*Connector)(nil)
)

// Wrap wraps a driver's connector, for sql.OpenDB. Use [OpenDB] where you can:
// it also lets the gate adopt the limit that the application sets with
// SetMaxOpenConns (see [Connector.Attach]). A nil connector and a Config that
// contradicts itself are refused with a *[ConfigError].
func Wrap(c driver.Connector, cfg Config) (*Connector, error) {
	if isNil(c) {
		return nil, &ConfigError{"connector", "nil", "give Wrap the connector of your driver, as made by its NewConnector or OpenConnector"}
	}
	set, err := newSettings(cfg)
	if err != nil {
		return nil, err
	}
	if set.Dialect == "" {
		set.Dialect = Dialect(drivers.DialectOf(c.Driver()))
	}
	set.dialect = drivers.Named(string(set.Dialect))
	if set.Name == "" {
		set.Name = nameFor(c.Driver())
	}
	set.endpoint = drivers.EndpointOf(c).Or(drivers.Endpoint{Address: set.ServerAddress, Port: set.ServerPort, Namespace: set.Namespace})
	return newConnector(c, set), nil
}

func newConnector(inner driver.Connector, cfg *settings) *Connector {
	c := &Connector{inner: inner, cfg: cfg}
	c.summaries = c.descriptions()
	c.tracing = newTracing(cfg, c.summaries)
	c.tagsPanicked = once(cfg, "sqllease: Config.CommentTags panicked; statements have no tags where it does, and this is said once")
	callstack.Find()
	c.life, c.end = context.WithCancel(context.Background())
	c.poke = context.WithValue(c.life, pokeKey{}, true)
	c.gate.Gate = gate.New(cfg.MaxOpen, cfg.MinIdle, c.watch.ended, c.joined, c.wakeGateAt, c.pulse.now)
	c.gate.SetTrust(gate.Watchful, 0) // until a *sql.DB is attached
	c.texts.wake = func(at clock.Instant) { c.textTimer.at(at, c.closeStatements) }
	c.pulse.c = c
	var errs []error
	c.metrics, errs = newMetrics(cfg, c.stats)
	c.reports = reports{cfg: cfg, tracing: &c.tracing, metrics: &c.metrics, summaries: c.summaries}
	c.queue.gate, c.queue.cfg, c.queue.reports = c.gate, cfg, &c.reports
	c.watch.gate, c.watch.cfg, c.watch.reports, c.watch.waits, c.watch.took = c.gate, cfg, &c.reports, &c.queue, c.took
	if len(errs) > 0 {
		c.cfg.Logger.Warn("sqllease: some metrics are missing: the meter provider refused their instruments",
			slog.String("pool", cfg.Name), slog.Any("error", errors.Join(errs...)))
	}
	c.refill()
	return c
}

// timer is a timer that is made at its first use. It fires on a goroutine of its own.
// Whatever guards what it is armed for guards it.
type timer struct {
	mu   sync.Mutex
	t    *time.Timer // guarded by mu
	sets int         // guarded by mu: how often it was set
}

// at sets it.
func (t *timer) at(at clock.Instant, f func()) { t.in(at.Until(), f) }

func (t *timer) in(d time.Duration, f func()) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.sets++
	if t.t == nil {
		t.t = time.AfterFunc(d, f)
		return
	}
	t.t.Reset(d)
}

// stop stops it.
func (t *timer) stop() {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.t != nil {
		t.t.Stop()
	}
}

// Unwrap reaches the driver's own connection in the function given to
// sql.Conn.Raw, through any number of layers of this package. It reports false
// if the connection is not a T.
func Unwrap[T any](driverConn any) (T, bool) {
	for {
		h, ok := driverConn.(*handle)
		if !ok {
			break
		}
		if h.begun(context.Background()) != nil {
			var none T
			return none, false
		}
		h.c.unwrapped(h.session)
		driverConn = h.session.conn
		h.unuse()
	}
	t, ok := driverConn.(T)
	return t, ok
}

// unwrapped notes that the holder of a session takes the driver's own connection. It does
// so in a use, so that a reclaim either sees it or comes to nothing.
func (c *Connector) unwrapped(s *session) {
	s.statements.state++
	c.gate.Look(func() { s.lease.raw = true })
}

// Driver returns the driver of the wrapped connector itself.
func (c *Connector) Driver() driver.Driver { return c.inner.Driver() }

// Close closes the connector: every waiter fails with an *[AcquireError] that
// unwraps to [ErrClosed], the sessions that nobody holds are closed, and those
// on lease are closed when they are given back. It closes the driver's
// connector if that is an io.Closer, and returns its error. (*sql.DB).Close
// calls it, and does nothing by it while another attached database is open.
func (c *Connector) Close() error {
	if c.shared() {
		return nil
	}
	c.closeOnce.Do(func() {
		c.end()
		c.retireAll(c.gate.Shut())
		c.stopTimers()
		c.metrics.close()
		if closer, ok := c.inner.(io.Closer); ok {
			c.closeErr = closer.Close()
		}
	})
	return c.closeErr
}

// stopTimers stops the timers of a closed connector, which would keep it in
// memory until then. The watch goes on while leases are out.
func (c *Connector) stopTimers() {
	for _, t := range []*timer{&c.wakeTimer, &c.textTimer, &c.queue.timer, &c.pulse.timer, &c.filler.timer} {
		t.stop()
	}
}
