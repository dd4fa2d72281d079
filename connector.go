package sqllease

import (
	"context"
	"database/sql"
	"database/sql/driver"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"path"
	"reflect"
	"runtime/debug"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"go.opentelemetry.io/otel/trace"
)

// discoveryTimeout bounds a discovery: a server that does not answer it costs
// this long, once per session, and nothing else.
const discoveryTimeout = 5 * time.Second

// Connector wraps a driver's connector. It is made by [Wrap] and friends, and
// is what sql.OpenDB takes.
type Connector struct {
	inner   driver.Connector
	cfg     *settings
	gate    gate
	tracing tracing
	metrics metrics

	discovery    *discovery // nil: never ask
	summaries    summaries
	tagsPanicked survivor
	sites        sites

	execDeclines, queryDeclines declines

	watchTimer, expiryTimer, queueTimer, drainTimer, adoptTimer *time.Timer // they fire on goroutines of their own; armed under gate.mu

	dbMu    sync.Mutex        // held for the field only; adoptMu comes before it
	db      []*sql.DB         // guarded by dbMu: those attached
	adoptMu sync.Mutex        // held for one adoption, methods of *sql.DB included: never taken in a handle's call
	own     int               // guarded by adoptMu: the limit that the attached databases have themselves
	queued  map[*sql.DB]int64 // guarded by adoptMu: how many callers had queued in each
	adopted atomic.Int64      // the instant at which the last adoption began

	adoptions, dials, dialErrors, discoveryFailures atomic.Uint64
	leaks, proven, longCalls, lateReturns           atomic.Uint64
	lost                                            atomic.Int64 // sessions taken from leases whose holders did not come back yet
	idleLimit, lifetime                             atomic.Int64 // of the newest session
	idleTxLimit                                     atomic.Int64 // likewise

	warnedOpener, warnedDiscovery atomic.Bool
	refilling                     atomic.Bool

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
		set.Dialect = dialectOf(c.Driver())
	}
	if set.Name == "" {
		set.Name = nameFor(c.Driver())
	}
	set.endpoint = endpointOf(c).or(endpoint{set.ServerAddress, set.ServerPort, set.Namespace})
	return newConnector(c, set), nil
}

func newConnector(inner driver.Connector, cfg *settings) *Connector {
	c := &Connector{inner: inner, cfg: cfg, own: queueless, queued: map[*sql.DB]int64{}}
	c.tracing = newTracing(cfg, &c.summaries)
	c.tagsPanicked = once(cfg, "sqllease: Config.CommentTags panicked; statements have no tags where it does, and this is said once")
	findGoroutines()
	findFrames()
	c.summaries.grammar = grammarOf(cfg.Dialect)
	c.life, c.end = context.WithCancel(context.Background())
	if d, ok := discoveries[cfg.Dialect]; ok {
		c.discovery = &d
	}
	c.gate.limit = cfg.MaxOpen
	c.gate.threshold, c.gate.longCall = cfg.LeakThreshold, cfg.LongCallThreshold
	c.gate.armWatch = func(at instant) { arm(&c.watchTimer, at.Until(), c.watch) }
	c.gate.reclaimAfter = cfg.ReclaimAfter
	c.gate.slowAfter = cfg.SlowAcquireThreshold
	c.gate.armQueue = func(at instant) { arm(&c.queueTimer, at.Until(), c.lookAtQueue) }
	c.gate.armDrain = func() { arm(&c.drainTimer, drainFor, c.drained) }
	c.gate.failOnDeadlock = cfg.FailOnDeadlock
	c.gate.armExpiry = func(at instant) { arm(&c.expiryTimer, at.Until(), c.closeExpired) }
	var errs []error
	c.metrics, errs = newMetrics(cfg, c.stats)
	c.summaries.describe = func(d *described, query string) {
		d.start, d.record = c.tracing.startOf(d, query), c.metrics.recordOf(d.operation)
	}
	if len(errs) > 0 {
		c.cfg.Logger.Warn("sqllease: some metrics are missing: the meter provider refused their instruments",
			slog.String("pool", cfg.Name), slog.Any("error", errors.Join(errs...)))
	}
	return c
}

// arm makes the timer at its first use, and sets it. gate.mu is held.
func arm(t **time.Timer, in time.Duration, f func()) {
	if *t == nil {
		*t = time.AfterFunc(in, f)
		return
	}
	(*t).Reset(in)
}

func isNil(x any) bool {
	if x == nil {
		return true
	}
	v := reflect.ValueOf(x)
	return v.Kind() == reflect.Pointer && v.IsNil()
}

// names counts the pools that were named after each driver.
var names = struct {
	sync.Mutex
	count map[string]int // guarded by Mutex
}{count: map[string]int{}}

// nameFor makes up a name for a pool that was given none.
func nameFor(d driver.Driver) string {
	base := string(dialectOf(d))
	if base == "" {
		base = path.Base(packageOf(d))
	}
	if base == "." {
		base = "pool"
	}
	names.Lock()
	defer names.Unlock()
	names.count[base]++
	if n := names.count[base]; n > 1 {
		return fmt.Sprintf("%s-%d", base, n)
	}
	return base
}

// OpenDB wraps a driver's connector and opens a *sql.DB on it. Where
// [Config.MaxOpen] is set, the *sql.DB keeps as many idle connections, since a
// pool of fixed size should not churn; SetMaxIdleConns changes that.
func OpenDB(c driver.Connector, cfg Config) (*sql.DB, error) {
	w, err := Wrap(c, cfg)
	if err != nil {
		return nil, err
	}
	db := sql.OpenDB(w)
	if cfg.MaxOpen > 0 {
		db.SetMaxIdleConns(cfg.MaxOpen)
	}
	w.Attach(db)
	return db, nil
}

// Open is sql.Open, wrapped: it opens a database by the name of its driver and
// a data source name. database/sql tells which driver has a name only by opening
// a database of it: a driver.DriverContext makes a connector for that, which is
// closed at once, and another for the database. [OpenDB] avoids it.
func Open(driverName, dsn string, cfg Config) (*sql.DB, error) {
	plain, err := sql.Open(driverName, dsn)
	if err != nil {
		return nil, err
	}
	d := plain.Driver()
	if err := plain.Close(); err != nil {
		return nil, err
	}
	c, err := connectorOf(d, dsn)
	if err != nil {
		return nil, err
	}
	return OpenDB(c, cfg)
}

// connectorOf makes a connector as sql.Open does.
func connectorOf(d driver.Driver, dsn string) (driver.Connector, error) {
	if dc, ok := d.(driver.DriverContext); ok {
		return dc.OpenConnector(dsn)
	}
	return dsnConnector{d, dsn}, nil
}

// dsnConnector is the connector of a driver that has none.
type dsnConnector struct {
	driver driver.Driver
	dsn    string
}

// Connect opens a connection; the driver has no use for the context.
func (c dsnConnector) Connect(context.Context) (driver.Conn, error) { return c.driver.Open(c.dsn) }

// Driver returns the driver.
func (c dsnConnector) Driver() driver.Driver { return c.driver }

// Register registers the wrapped driver under a name of its own, for code that
// opens its database with sql.Open(name, dsn). Every sql.Open makes a pool of
// its own. Call [Connector.Attach] on what [ConnectorOf] finds, so that
// SetMaxOpenConns is adopted. A name that is taken is refused with a
// *[ConfigError], where sql.Register would panic.
func Register(name string, d driver.Driver, cfg Config) error {
	if isNil(d) {
		return &ConfigError{"driver", "nil", "give Register the driver to wrap"}
	}
	if _, err := newSettings(cfg); err != nil {
		return err
	}
	if slices.Contains(sql.Drivers(), name) {
		return &ConfigError{"name", fmt.Sprintf("%q", name), "a driver of that name is registered already; choose another"}
	}
	sql.Register(name, &registered{d, cfg})
	return nil
}

// registered is a wrapped driver in database/sql's register.
type registered struct {
	inner driver.Driver
	cfg   Config
}

var _ driver.DriverContext = (*registered)(nil)

// OpenConnector makes the wrapped connector of one sql.Open.
func (r *registered) OpenConnector(dsn string) (driver.Connector, error) {
	c, err := connectorOf(r.inner, dsn)
	if err != nil {
		return nil, err
	}
	return Wrap(c, r.cfg)
}

// Open is there for driver.Driver; database/sql calls OpenConnector.
func (r *registered) Open(dsn string) (driver.Conn, error) {
	c, err := r.OpenConnector(dsn)
	if err != nil {
		return nil, err
	}
	return c.Connect(context.Background())
}

// ConnectorOf finds the Connector of a *sql.DB, however it was opened. It
// opens no connection.
func ConnectorOf(db *sql.DB) (*Connector, bool) {
	if db == nil {
		return nil, false
	}
	// database/sql has no way to ask for the connector. Its field can be seen,
	// if not taken, by reflection; if it should ever be renamed, nothing is found.
	field := reflect.ValueOf(db).Elem().FieldByName("connector")
	if !field.IsValid() || field.Kind() != reflect.Interface || field.IsNil() || field.Elem().Type() != reflect.TypeFor[*Connector]() {
		return nil, false
	}
	return (*Connector)(field.Elem().UnsafePointer()), true
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
		h.c.gate.unwrap(&h.lease)
		driverConn = h.session.conn
		h.unuse()
	}
	t, ok := driverConn.(T)
	return t, ok
}

// Driver returns the driver of the wrapped connector itself.
func (c *Connector) Driver() driver.Driver { return c.inner.Driver() }

// queueless is the limit that an attached *sql.DB has itself: one that it does
// not reach, so that it never queues. It is not zero, since zero is what an
// application sets to lift a limit; and not larger, since database/sql, where
// callers queue in it as the limit is set, asks its opener for connections up
// to its limit, and stands still for ever beyond a million.
const queueless = 100_000

// mostLost keeps that limit below a million.
const mostLost = 800_000

// Attach gives the connector the *sql.DB that it serves. From then on a limit
// set by SetMaxOpenConns is taken over by the gate, at the next acquire that
// finds no free connection or the end of a lease, so that the call keeps its
// meaning and callers wait where their wait can be seen. The *sql.DB's own
// limit, which sql.DBStats tells, becomes 100000, and one more for each session
// that was taken from a lease and that the *sql.DB therefore counts for ever.
// [Open] and [OpenDB] have attached theirs.
//
// Several databases may share a connector, and its limit, if all of them are
// attached: it is closed with the last of them.
func (c *Connector) Attach(db *sql.DB) {
	if db == nil || slices.Contains(c.attached(), db) {
		return
	}
	c.adoptMu.Lock()
	defer c.adoptMu.Unlock()
	if stats := db.Stats(); stats.MaxOpenConnections > 0 {
		c.takeOver(db, stats)
	} else {
		db.SetMaxOpenConns(c.own)
	}
	c.dbMu.Lock()
	defer c.dbMu.Unlock()
	c.db = append(slices.Clone(c.db), db)
}

// attached returns the attached databases.
func (c *Connector) attached() []*sql.DB {
	c.dbMu.Lock()
	defer c.dbMu.Unlock()
	return c.db
}

// adopt takes over the limits that applications set on the attached databases.
// A limit set between the two calls on a database is lost; the application
// would have to set two within a microsecond.
func (c *Connector) adopt(now instant) {
	c.adoptMu.Lock()
	defer c.adoptMu.Unlock()
	c.adopted.Store(int64(now))
	c.own = queueless + int(min(max(c.lost.Load(), 0), mostLost))
	for _, db := range c.attached() {
		stats := db.Stats()
		switch n := stats.MaxOpenConnections; {
		case n < queueless || n > queueless+mostLost:
			c.takeOver(db, stats)
			if c.lost.Load() > 0 {
				go c.wake(db)
			}
		case n != c.own: // it was ours, and an application may have put it back
			db.SetMaxOpenConns(c.own)
		}
	}
}

// takeOver makes an application's limit the gate's. adoptMu is held.
func (c *Connector) takeOver(db *sql.DB, stats sql.DBStats) {
	c.drain(db, stats)
	db.SetMaxOpenConns(c.own)
	c.drain(db, db.Stats()) // those who came meanwhile; now nobody can
	for _, s := range c.gate.setLimit(stats.MaxOpenConnections) {
		c.retireAside(s)
	}
}

// drain has the gate drain the queue of a *sql.DB in which callers have queued
// since it was asked last. adoptMu is held.
func (c *Connector) drain(db *sql.DB, stats sql.DBStats) {
	if n := stats.WaitCount; n > c.queued[db] {
		c.queued[db] = n
		c.gate.drain(clock())
	}
}

// drainFor is how long callers may queue in database/sql once they need not.
const drainFor = 100 * time.Millisecond

// drained ends the draining of database/sql's queue.
func (c *Connector) drained() {
	defer c.recovered("serving callers after a change of the limit")
	for _, s := range c.gate.drained(c.cfg.MinIdle) {
		c.retireAside(s)
	}
}

// wake serves those who queue in a *sql.DB that had no connection to serve them
// with: it takes one, and gives it to them.
func (c *Connector) wake(db *sql.DB) {
	defer c.recovered("waking callers that queue in database/sql")
	ctx, cancel := context.WithTimeout(c.life, refillTimeout)
	defer cancel()
	if conn, err := db.Conn(ctx); err == nil {
		_ = conn.Close()
	}
}

// lose counts sessions that were taken from a lease. database/sql goes on
// counting their connections: where that makes as many as a limit that the
// application sets, callers queue in it, no lease begins or ends, and nobody
// comes to adopt the limit. So the connector looks by itself while there are any.
func (c *Connector) lose(n int) {
	if n == 0 {
		return
	}
	c.lost.Add(int64(n))
	c.adoptLater()
}

func (c *Connector) adoptLater() {
	if len(c.attached()) == 0 {
		return
	}
	c.gate.mu.Lock()
	defer c.gate.mu.Unlock()
	if c.lost.Load() > 0 && !c.gate.closed {
		arm(&c.adoptTimer, adoptEvery, func() {
			c.adopt(clock())
			c.adoptLater()
		})
	}
}

// adoptEvery is the time between two of those looks.
const adoptEvery = time.Second

// adoptSoon adopts at the end of a lease: while callers find free connections,
// or queue in database/sql, none comes to Connect. It takes a goroutine of its
// own, since database/sql holds the connection's lock here, and takes its own
// lock before that; and takes one at most ten times a second.
func (c *Connector) adoptSoon(now instant) {
	const interval = 100 * time.Millisecond
	last := c.adopted.Load()
	if now.Sub(instant(last)) < interval || !c.adopted.CompareAndSwap(last, int64(now)) {
		return
	}
	if len(c.attached()) > 0 {
		go c.adopt(now)
	}
}

// Connect acquires a session for a caller for whom database/sql has no free
// connection: on the caller's goroutine and with its context. See the package
// comment for what the gate does with it. Errors of the driver pass through
// untouched; an acquire that ran out of time fails with an *[AcquireError].
func (c *Connector) Connect(ctx context.Context) (driver.Conn, error) {
	start := clock()
	c.adopt(start)
	h := &handle{c: c}
	h.lease.handle = h
	h.begin(ctx, start, 1)
	if h.lease.capturedStack().on(openerGoroutine) {
		// Nobody waits on this goroutine: database/sql gives the connection to
		// a caller of its own queue, whose first call then acquires.
		c.warnUnseen()
		h.pending = true
		c.gate.giveEmpty(h)
		return h, nil
	}
	returned := false
	defer func() {
		if !returned { // a panic: database/sql counts this connection for ever
			c.lose(1)
		}
	}()
	err := h.acquire(ctx, start)
	returned = true
	if err != nil {
		return nil, err
	}
	return h, nil
}

// acquire gets a session under a handle that never had one. The lease has
// begun.
func (h *handle) acquire(ctx context.Context, start instant) error {
	c := h.c
	if c.cfg.AcquireTimeout > 0 {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeoutCause(ctx, c.cfg.AcquireTimeout, errOutOfTime)
		defer cancel()
	}
	a := acquire{c: c, lease: &h.lease, start: start}
	if !h.pending {
		a.looked = start
	}
	s, err := a.session(ctx)
	if err != nil {
		return err
	}
	now := clock()
	h.leased, h.pending = true, false
	h.lease.hold(now, a.parts)
	c.gate.lend(s, h)
	c.metrics.acquired(ctx, a.parts, now.Sub(start))
	c.refill()
	return nil
}

// warnUnseen says once that waits happen where they cannot be seen.
func (c *Connector) warnUnseen() {
	if len(c.attached()) > 0 || !c.warnedOpener.CompareAndSwap(false, true) {
		return
	}
	c.warnAside("sqllease: callers are queueing inside database/sql, where their waits cannot be seen: "+
		"SetMaxOpenConns was called on a *sql.DB that the connector does not know. "+
		"Open it with sqllease.Open or OpenDB, or call Attach(db) on its Connector (sqllease.ConnectorOf(db) finds it)",
		slog.String("pool", c.cfg.Name))
}

// warnAside logs on a goroutine of its own, for who holds room or a lock that
// a Logger which writes to the same database would wait for.
func (c *Connector) warnAside(text string, args ...any) {
	go func() {
		defer c.recovered("logging")
		c.cfg.Logger.Warn(text, args...)
	}()
}

// acquire is one acquire on its way through the gate.
type acquire struct {
	c      *Connector
	lease  *lease
	start  instant
	looked instant // when an adoption began last; zero: in a handle's call, where none may
	parts  parts
	span   trace.Span // nil: none
	day    time.Time  // the time of day at start, where there is a span
}

// at is the time of day of an instant in it, where there is a span: from one
// reading of the clocks, so that its parts are within it.
func (a *acquire) at(i instant) time.Time { return a.day.Add(i.Sub(a.start)) }

// session gets a session in transit: from the gate, or by dialling.
func (a *acquire) session(ctx context.Context) (s *session, err error) {
	s, w, err := a.ask()
	if s != nil && a.reset(ctx, s) {
		return s, nil // neither queued nor dialled: no span
	}
	outer := ctx
	ctx = a.startSpan(ctx, w, err)
	ended := errPanicked
	defer func() { a.c.tracing.endAcquire(a.span, a.at(clock()), a.parts, ended) }()
	s, err = a.slow(ctx, outer, w, err)
	ended = err
	return s, err
}

// startSpan starts the span of an acquire that queues, dials or was refused. If
// Config.FilterSpan ends the goroutine, what the acquire has goes on.
func (a *acquire) startSpan(ctx context.Context, w *waiter, refused error) (in context.Context) {
	returned := false
	defer func() {
		if !returned {
			a.leave(w, refused)
		}
	}()
	in, a.span, a.day = a.c.tracing.startAcquire(ctx, a.start)
	returned = true
	return in
}

// leave gives up an acquire that waits, or has room, unless it was refused.
func (a *acquire) leave(w *waiter, refused error) {
	switch {
	case refused != nil:
	case w != nil:
		ended, end := context.WithCancel(context.Background())
		end()
		if s, _, _ := a.c.gate.wait(ended, w); s != nil {
			_ = a.c.retire(s)
		}
	default:
		a.c.gate.unreserve()
	}
}

// ask asks the gate, and looks again for a limit to adopt where one may have
// been set since it was looked for.
func (a *acquire) ask() (*session, *waiter, error) {
	for {
		s, w, err := a.c.gate.ask(a.lease, a.start, a.looked)
		if err != errUnsure {
			return s, w, err
		}
		a.looked = clock()
		a.c.adopt(a.looked)
	}
}

// slow goes on with an acquire that was refused, queued or has to dial.
func (a *acquire) slow(ctx, outer context.Context, w *waiter, err error) (*session, error) {
	if err != nil {
		return nil, a.failed(outer, err, 0)
	}
	if w != nil {
		s, err := a.queue(ctx, w)
		if err != nil {
			return nil, err
		}
		if s != nil && a.reset(ctx, s) {
			return s, nil
		}
	}
	return a.dial(ctx)
}

// queue waits for a session, or, if it returns none, for room to dial one.
func (a *acquire) queue(ctx context.Context, w *waiter) (*session, error) {
	s, place, err := a.c.gate.wait(ctx, w)
	a.parts.queue = clock().Sub(w.since)
	a.c.tracing.part(ctx, a.span, "pool.queue", a.at(w.since), a.parts.queue)
	if err != nil {
		if s != nil {
			_ = a.c.retire(s)
		}
		return nil, a.failed(ctx, err, place)
	}
	a.c.gate.queued(a.parts.queue)
	return s, nil
}

// failed makes the error of an acquire that the gate refused or let go.
func (a *acquire) failed(ctx context.Context, err error, place int) error {
	if err != ErrClosed && err != ErrDeadlock {
		a.c.gate.timedOut()
		a.c.metrics.timedOut(ctx)
	}
	e := a.c.gate.describe(clock())
	if place > 0 {
		e.Waiting++ // it has left the queue to say so
	}
	e.Pool, e.Err, e.Position, e.Waited = a.c.cfg.Name, err, place, clock().Sub(a.start)
	a.c.sanitiseHolders(e)
	return e
}

func (c *Connector) sanitiseHolders(e *AcquireError) {
	for i := range e.Holders {
		e.Holders[i].Statement = c.sanitised(e.Holders[i].Statement)
	}
}

// reset readies a session that another holder left, which database/sql
// believes to be new. If it proves bad it is closed, its room is kept, and the
// caller dials: it has waited long enough. A session whose driver panics is
// closed too.
func (a *acquire) reset(ctx context.Context, s *session) (ready bool) {
	c, start := a.c, clock()
	why, stale := c.gate.stale(s, start)
	if !stale {
		returned := false
		defer func() {
			if !returned {
				c.gate.condemn(s, closedBad)
				c.retireAside(s)
			}
		}()
		err := s.reset(ctx)
		returned = true
		took := clock().Sub(start)
		a.parts.reset += took
		if took >= slowReset {
			a.c.tracing.part(ctx, a.span, "pool.reset", a.at(start), took)
		}
		if !errors.Is(err, driver.ErrBadConn) {
			return true // database/sql takes no notice of other errors here either
		}
		why = closedBad
	}
	c.gate.condemn(s, why)
	c.replace(s)
	return false
}

// dial connects a session in the room that the acquire has, which is given
// back if the driver fails or panics.
func (a *acquire) dial(ctx context.Context) (*session, error) {
	start := clock()
	ctx, span := a.c.tracing.startDial(ctx, a.span, a.at(start))
	failed := errPanicked
	defer func() {
		a.parts.dial = clock().Sub(start)
		a.c.tracing.endCall(span, failed, nil)
	}()
	s, err := a.c.dial(ctx)
	failed = err
	if err != nil && context.Cause(ctx) == errOutOfTime {
		return nil, a.failed(ctx, context.DeadlineExceeded, 0)
	}
	return s, err
}

func (c *Connector) dial(ctx context.Context) (s *session, err error) {
	start := clock()
	defer func() {
		if s == nil {
			c.dialErrors.Add(1)
			c.gate.unreserve()
		}
	}()
	c.dials.Add(1)
	conn, found, err := c.connect(ctx)
	if err != nil {
		return nil, err
	}
	now := clock()
	n := &session{conn: conn, can: capabilitiesOf(conn)}
	n.life = newLifetime(now, found, c.cfg.NetworkIdleLimit, c.cfg.MaxLifetime, jitter())
	c.idleLimit.Store(int64(n.life.limits.idle))
	c.lifetime.Store(int64(minLimit(c.cfg.MaxLifetime, n.life.idle)))
	c.gate.dialed(n, now)
	c.metrics.dialed(ctx, now.Sub(start))
	return n, nil
}

// connect dials and discovers. A discovery that costs the connection is not
// held against it: it is dialled again, and not asked.
func (c *Connector) connect(ctx context.Context) (driver.Conn, limits, error) {
	conn, err := c.inner.Connect(ctx)
	if err != nil {
		return nil, limits{}, err
	}
	if c.discovery == nil {
		return conn, limits{}, nil
	}
	found, alive, err := c.discover(ctx, conn)
	if err == nil {
		c.idleTxLimit.Store(int64(found.idleTx))
		return conn, found, nil
	}
	found = limits{idle: time.Duration(c.idleLimit.Load()), idleTx: time.Duration(c.idleTxLimit.Load())}
	if alive {
		c.discoveryFailed(err)
		return conn, found, nil
	}
	_ = conn.Close()
	if ctx.Err() != nil {
		return nil, limits{}, ctx.Err()
	}
	c.discoveryFailed(err)
	conn, err = c.inner.Connect(ctx)
	return conn, found, err
}

// discover asks a new session for its limits, and, if that failed, whether the
// connection has survived it. A driver that panics has its connection closed.
func (c *Connector) discover(ctx context.Context, conn driver.Conn) (found limits, alive bool, err error) {
	returned := false
	defer func() {
		if !returned {
			go func() { // the driver may hold a lock for ever
				defer c.recovered("closing a connection")
				_ = conn.Close()
			}()
		}
	}()
	ctx, cancel := context.WithTimeout(ctx, discoveryTimeout)
	defer cancel()
	found, err = c.discovery.discover(ctx, conn)
	alive = err == nil || survives(ctx, conn, err)
	returned = true
	return found, alive, err
}

// survives tells whether a connection is of use after a call on it failed,
// from what the driver can tell of it: not every driver has a Validator, or
// says driver.ErrBadConn of a connection that was cut.
func survives(ctx context.Context, conn driver.Conn, err error) bool {
	if _, answered := err.(*answerError); answered { //nolint:errorlint // it is never wrapped
		return true
	}
	if errors.Is(err, driver.ErrBadConn) || ctx.Err() != nil {
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

// discoveryFailed counts, and says once, that limits could not be found out.
func (c *Connector) discoveryFailed(err error) {
	c.discoveryFailures.Add(1)
	if !c.warnedDiscovery.CompareAndSwap(false, true) {
		return
	}
	c.warnAside("sqllease: the server's idle limit could not be discovered; sessions are kept by the configured limits, "+
		"and the last one discovered, if any. "+
		"Set Config.NetworkIdleLimit to the limit you know, or Config.Dialect to what the server is (sqllease.DialectNone switches discovery off)",
		slog.String("pool", c.cfg.Name), slog.String("dialect", string(c.cfg.Dialect)),
		slog.String("query", c.discovery.query), slog.String("error", c.cfg.said(err)))
}

// retire closes a session that this goroutine is the closer of, and gives its
// room to the next waiter.
func (c *Connector) retire(s *session) error {
	defer c.refill()
	defer c.metrics.sessionClosed(s.reason)
	defer c.gate.gone(s)
	return s.close()
}

// replace closes a session and keeps its room for a dial.
func (c *Connector) replace(s *session) {
	closed := false
	defer func() {
		c.metrics.sessionClosed(s.reason)
		if !closed {
			c.gate.gone(s)
			return
		}
		c.gate.replace(s)
	}()
	_ = s.close()
	closed = true
}

// retireAside closes a session on a goroutine of its own, whose end done
// tells. Nobody could recover a panic of the driver there, so it is logged.
func (c *Connector) retireAside(s *session) (done <-chan struct{}) {
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		defer c.recovered("closing a connection")
		_ = c.retire(s)
	}()
	return ended
}

// recovered is deferred on goroutines of ours, where nobody else could recover
// the panic of a driver or of the application's functions.
func (c *Connector) recovered(doing string) {
	v := recover()
	if v == nil {
		return
	}
	defer func() { _ = recover() }() // of the Logger: there is nobody left to tell
	c.cfg.Logger.Error("sqllease: a panic was stopped while "+doing+", and the pool goes on; the stack tells whose it is",
		slog.String("pool", c.cfg.Name), slog.String("panic", c.cfg.panicked(v)), slog.String("stack", string(debug.Stack())))
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

// closeExpired closes the idle sessions past their expiry.
func (c *Connector) closeExpired() { c.retireAll(c.gate.expire(clock())) }

// stopTimers stops the timers of a closed connector, which would keep it in
// memory until then. The watch goes on while leases are out.
func (c *Connector) stopTimers() {
	c.gate.mu.Lock()
	defer c.gate.mu.Unlock()
	for _, t := range []*time.Timer{c.expiryTimer, c.queueTimer, c.drainTimer, c.adoptTimer} {
		if t != nil {
			t.Stop()
		}
	}
}

// leaseEnded tells what there is to tell of a lease that ended. database/sql
// still holds its lock on the connection, so that no next lease has begun.
func (c *Connector) leaseEnded(h *handle, held time.Duration, e ending, now instant) {
	if held > 0 {
		c.metrics.held(&h.taker, &h.lease.span, held)
	}
	if e.nesting != nil {
		go c.reportNesting(e.nesting) // aside: the Logger may use this very database
	}
	if e.reported {
		l := Leak{Lease: h.lease.read(now), Class: e.class, Threshold: e.threshold, Returned: true}
		go c.report([]Leak{l}) // aside, likewise
	}
	if h.lease.tx != nil { // its connection was bad, or its driver panicked
		c.tracing.endTx(h.lease.endTx(nil), "lost", nil)
	}
	h.lease.forget()
	c.adoptSoon(now)
	c.refill()
}

// refill keeps Config.MinIdle sessions ready. It dials on a goroutine that
// ends when none is missing, or when a dial fails: the next lease tries again.
func (c *Connector) refill() {
	if c.cfg.MinIdle == 0 || !c.gate.missing(c.cfg.MinIdle) || !c.refilling.CompareAndSwap(false, true) {
		return
	}
	go func() {
		filled := c.fill()
		c.refilling.Store(false)
		if filled {
			c.refill() // for what went missing between its last look and now
		}
	}()
}

// fill dials ahead until no session is missing; false: a dial failed.
func (c *Connector) fill() (filled bool) {
	defer c.recovered("dialling ahead for Config.MinIdle")
	for c.gate.missing(c.cfg.MinIdle) && c.gate.reserve() {
		ctx, cancel := context.WithTimeout(c.life, refillTimeout)
		s, err := c.dial(ctx)
		cancel()
		if err != nil {
			return false
		}
		if !c.gate.park(s) {
			_ = c.retire(s)
		}
	}
	return true
}

// refillTimeout bounds a dial that nobody waits for.
const refillTimeout = 30 * time.Second

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
		c.retireAll(c.gate.shut())
		c.stopTimers()
		c.metrics.close()
		if closer, ok := c.inner.(io.Closer); ok {
			c.closeErr = closer.Close()
		}
	})
	return c.closeErr
}

// shared forgets the attached databases that were closed, and tells whether
// there were any, and others go on using the connector.
func (c *Connector) shared() bool {
	c.adoptMu.Lock()
	defer c.adoptMu.Unlock()
	closed := slices.DeleteFunc(slices.Clone(c.attached()), func(db *sql.DB) bool { return !isClosed(db) })
	c.dbMu.Lock()
	defer c.dbMu.Unlock()
	c.db = slices.DeleteFunc(slices.Clone(c.db), func(db *sql.DB) bool { return slices.Contains(closed, db) })
	for _, db := range closed {
		delete(c.queued, db)
	}
	return len(closed) > 0 && len(c.db) > 0
}

// isClosed tells whether a database was closed. database/sql says so before
// it looks at a context, and does nothing for one that has ended.
func isClosed(db *sql.DB) bool {
	ended, end := context.WithCancel(context.Background())
	end()
	err := db.PingContext(ended)
	return err != nil && err.Error() == "sql: database is closed"
}
