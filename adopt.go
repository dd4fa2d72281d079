package sqllease

import (
	"context"
	"database/sql"
	"database/sql/driver"
	"errors"
	"log/slog"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/sqllease/sqllease/internal/clock"
	"github.com/sqllease/sqllease/internal/gate"
)

// An application limits its pool with SetMaxOpenConns, of which no driver is told. So the
// connector looks at the attached *sql.DB, takes the number over, and sets in its place a
// limit that is never reached: then database/sql never queues a caller itself. It looks
// when somebody comes to Connect, and, since callers may find free connections, or queue
// in database/sql already, ten times a second while anybody holds a connection or waits.
//
// Who queues in database/sql when a limit is taken over has to be served there. That is
// done by database/sql's opener, which is asked for as many connections as callers queue
// when a connection is dropped: so one is dropped that is none (the poke). What comes back
// meanwhile goes to them, too, by their tickets (gate.Draining). This ends as soon as
// database/sql has an idle connection, which it has only when nobody queues.

// queueless is the limit that an attached *sql.DB has itself: one that it does not reach,
// so that it never queues, and that no application writes. It is not larger, since
// database/sql, where callers queue in it as the limit is set, asks its opener for
// connections up to its limit, and stands still for ever beyond a million.
const queueless = 100_003

// mostLost keeps that limit below a million.
const mostLost = 800_000

// pools are the attached *sql.DBs.
type pools struct {
	mu   sync.Mutex // held for the field only; adopting comes before it
	all  []*pool    // guarded by mu: it is replaced, never changed
	some atomic.Bool

	adopting sync.Mutex // held for one adoption, methods of *sql.DB included: never taken in a handle's call
	draining bool       // guarded by adopting
	drained  timer
	opened   atomic.Int64 // the instant at which database/sql's opener was last at work, or was woken
}

// pool is one attached *sql.DB.
type pool struct {
	db     *sql.DB
	own    int   // guarded by adopting: the highest limit that was set here
	queued int64 // guarded by adopting: how many callers had queued in it
}

// Attach tells the connector which *sql.DB it serves. [Open] and [OpenDB] do this. From
// then on, SetMaxOpenConns sets the connector's limit, so that callers wait where sqllease
// can see them. The limit counts from the next acquire that finds no free connection, and
// after a second at the latest.
//
// sql.DBStats then shows a limit of 100003, and one more for each leaked connection that
// was closed: the *sql.DB counts that one for ever. [Connector.DBStats] has the true limit.
//
// Several databases may share a connector and its limit, if all of them are attached.
// They share no connection, because what one does to it, such as USE, is not meant for the
// other. If one needs room that another's idle connection takes, that one is closed and
// another is dialed. The last database to be closed closes the connector.
func (c *Connector) Attach(db *sql.DB) {
	if db == nil {
		return
	}
	p := &c.pools
	p.adopting.Lock()
	defer p.adopting.Unlock()
	all := p.attached()
	if slices.ContainsFunc(all, func(known *pool) bool { return known.db == db }) {
		return
	}
	n := &pool{db: db}
	if stats := db.Stats(); stats.MaxOpenConnections > 0 {
		c.takeOver(n, stats)
	} else {
		n.set(c.ownLimit())
	}
	p.mu.Lock()
	p.all = append(slices.Clone(all), n)
	p.some.Store(true)
	p.mu.Unlock()
	c.trust()
}

// trust tells the gate what to think of tickets. adopting is held.
func (c *Connector) trust() {
	t := gate.Alone
	switch all := c.pools.attached(); {
	case len(all) == 0:
		t = gate.Watchful
	case len(all) > 1:
		t = gate.Private
	case c.pools.draining:
		t = gate.Draining
	}
	for _, s := range c.gate.SetTrust(t, clock.Now()) {
		c.retireAside(s)
	}
}

// attached returns the attached databases.
func (p *pools) attached() []*pool {
	if !p.some.Load() {
		return nil
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.all
}

func (p *pool) set(n int) {
	p.own = max(p.own, n)
	p.db.SetMaxOpenConns(n)
}

// ownLimit is the limit that the databases are to have themselves. They count the
// connections for ever whose sessions were taken from leases.
func (c *Connector) ownLimit() int {
	return queueless + int(min(max(c.counts.lost.Load(), 0), mostLost))
}

// adopt takes over the limits that applications set on the attached databases.
// A limit set between the two calls on a database is lost; the application
// would have to set two within a microsecond.
func (c *Connector) adopt() {
	if c.pools.adopting.TryLock() { // else somebody looks just now
		defer c.pools.adopting.Unlock()
		c.adoptLocked()
	}
}

func (c *Connector) adoptLocked() {
	own := c.ownLimit()
	for _, n := range c.pools.attached() {
		stats := n.db.Stats()
		switch limit := stats.MaxOpenConnections; {
		case limit < queueless || limit > n.own: // else it was ours, and an application may have put it back
			c.takeOver(n, stats)
		case limit != own:
			n.set(own)
		}
	}
}

// takeOver makes an application's limit the gate's. adopting is held.
func (c *Connector) takeOver(n *pool, stats sql.DBStats) {
	limit, drains := stats.MaxOpenConnections, c.pools.draining
	c.pools.draining = true // for all that is known: no ticket is dropped
	c.trust()
	n.set(c.ownLimit())
	stats = n.db.Stats() // now nobody can queue any more
	grown := stats.WaitCount > n.queued
	n.queued = stats.WaitCount
	c.pools.draining = stats.Idle == 0 && (grown || drains)
	c.setLimit(limit)
	c.trust()
	if grown && stats.Idle == 0 {
		c.drain(n)
	}
}

func (c *Connector) setLimit(limit int) {
	var before int
	c.gate.Look(func() { before = c.gate.FiguresLocked().Limit })
	for _, s := range c.gate.SetLimit(limit) {
		c.retireAside(s)
	}
	c.warnReserved(limit)
	if limit != before {
		c.recorder.happened(event{kind: EventLimit, limit: limit})
	}
}

// warnReserved says once that a limit leaves nothing beside what is reserved.
func (c *Connector) warnReserved(limit int) {
	if n := c.cfg.lanes.reserve; n > 0 && limit > 0 && limit <= n && !c.cfg.lanes.limited.Swap(true) {
		c.cfg.warnAside("sqllease: the pool's limit is not above what Config.Lanes reserves, so nothing is reserved: raise the limit, or reserve less",
			slog.String("pool", c.cfg.Name), slog.Int("limit", limit), slog.Int("reserved", n))
	}
}

// SetMaxOpen sets the limit, as SetMaxOpenConns on the *sql.DB does, but at once: if there
// is more room, callers who wait get it; if there is less, idle connections are closed.
// Zero or negative: no limit.
func (c *Connector) SetMaxOpen(n int) { c.setLimit(max(n, 0)) }

// drain serves those who queue in a *sql.DB. adopting is held.
func (c *Connector) drain(n *pool) {
	c.pools.opened.Store(int64(clock.Now()))
	go c.wakeOpener(n.db)
	c.pools.drained.in(drainEvery, c.endDrain)
}

// drainEvery is how often it is looked whether anybody queues in database/sql still.
const drainEvery = 2 * time.Millisecond

// longestDrain is how long its opener may take to make the next one.
const longestDrain = 20 * time.Millisecond

// endDrain ends the draining once database/sql has an idle connection: then nobody
// queues in it. Where all are held for long, it ends when the opener is done.
func (c *Connector) endDrain() {
	p := &c.pools
	p.adopting.Lock()
	defer p.adopting.Unlock()
	for _, n := range p.attached() {
		quiet := clock.Now().Sub(clock.Instant(p.opened.Load())) > longestDrain
		if n.db.Stats().Idle == 0 && !quiet && c.life.Err() == nil {
			p.drained.in(drainEvery, c.endDrain)
			return
		}
	}
	p.draining = false
	c.trust()
}

// pokeKey is the key of the context by which the connector knows its own acquire.
type pokeKey struct{}

// wakeOpener has database/sql's opener make connections for all who queue in a *sql.DB:
// it drops a connection, one without a session.
func (c *Connector) wakeOpener(db *sql.DB) {
	defer c.cfg.recovered("waking callers that queue in database/sql")
	conn, err := db.Conn(c.poke)
	if err != nil {
		return // closed
	}
	_ = conn.Raw(func(any) error { return driver.ErrBadConn })
	_ = conn.Close()
}

// pulse looks after what changes without anybody telling, ten times a second while
// connections come and go, or somebody waits for one; once a second while they are
// only held, or were taken from leases that database/sql counts for ever.
type pulse struct {
	c     *Connector
	timer timer
	mu    sync.Mutex   // held for at and the timer together
	at    atomic.Int64 // the instant of the next beat, zero: none is to come; written under mu

	beating sync.Mutex    // held for one beat
	pause   time.Duration // guarded by beating: until the next beat, where nothing happens
	holds   uint64        // guarded by beating: how many there were at the last
}

const (
	pulseEvery   = 100 * time.Millisecond
	longestPause = time.Second
)

// joined has the queue looked after, which a caller joins. It is called with the gate's
// lock held.
func (c *Connector) joined(a *acquire) {
	c.pulse.begin(a.Since()) // database/sql's limit may have changed for them
	c.queue.joined(a)
	c.yieldLocked()
}

// begin makes sure that a beat comes soon. Who begins a lease has done so before this:
// either this sees that none is to come soon, or that one sees them.
func (p *pulse) begin(now clock.Instant) {
	if !p.c.pools.some.Load() {
		return
	}
	soon := now.Add(pulseEvery)
	if at := clock.Instant(p.at.Load()); at.IsZero() || at > soon {
		p.arm(soon)
	}
}

// soon has a beat come at once, where nobody may be able to come to Connect: database/sql
// has dropped a free ticket, as it does when its limits change.
func (p *pulse) soon(now clock.Instant) {
	if p.c.counts.lost.Load() > 0 && p.c.pools.some.Load() {
		p.arm(now.Add(time.Millisecond))
	}
}

// arm has a beat come at that time, or earlier.
func (p *pulse) arm(at clock.Instant) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if next := clock.Instant(p.at.Load()); next.IsZero() || at < next {
		p.at.Store(int64(at))
		p.timer.at(at, p.beat)
	}
}

// now has a beat come at once: database/sql may queue callers. It is called with the gate's
// lock held.
func (p *pulse) now() { p.arm(clock.Now()) }

func (p *pulse) beat() {
	p.beating.Lock()
	defer p.beating.Unlock()
	c, now := p.c, clock.Now()
	p.mu.Lock()
	p.at.Store(0)
	p.mu.Unlock()
	c.pools.adopting.Lock()
	c.adoptLocked()
	c.trust() // it may have been doubted
	c.pools.adopting.Unlock()
	c.arrivals.prune(now)
	for _, s := range c.gate.Surplus(now) {
		c.retireAside(s)
	}
	c.warnLifetime()
	var f gate.Figures
	c.gate.Look(func() { f = c.gate.FiguresLocked() })
	p.pause = min(max(2*p.pause, pulseEvery), longestPause)
	if f.Waiting > 0 || f.Counts.Holds != p.holds {
		p.pause = pulseEvery
	}
	p.holds = f.Counts.Holds
	spare := f.Ready > max(f.Free, c.cfg.MinIdle) && c.pools.some.Load() // for a while: see Surplus
	if !f.Shut && (f.Held > 0 || f.Waiting > 0 || spare || c.counts.lost.Load() > 0) {
		p.arm(now.Add(p.pause))
	}
}

// lose counts sessions that were taken from a lease. database/sql goes on counting their
// connections.
func (c *Connector) lose(n int) {
	if n > 0 {
		c.counts.lost.Add(int64(n))
		c.pulse.begin(clock.Now())
	}
}

// warnLifetime says once that a lifetime was set which no driver can see.
func (c *Connector) warnLifetime() {
	if c.cfg.MaxLifetime > 0 || c.warned.lifetime.Load() {
		return
	}
	for _, n := range c.pools.attached() {
		if n.db.Stats().MaxLifetimeClosed > 0 && c.warned.lifetime.CompareAndSwap(false, true) {
			c.cfg.warnAside("sqllease: SetConnMaxLifetime was called on the *sql.DB. Its clock restarts whenever a connection goes to a caller who waits for one, "+
				"so connections may live longer. Set Config.MaxLifetime to the same time",
				slog.String("pool", c.cfg.Name))
		}
	}
}

// limit is the gate's; zero: there is none.
func (c *Connector) limit() (n int) {
	c.gate.Look(func() { n = c.gate.FiguresLocked().Limit })
	return n
}

// warnUnattached says once, at the first acquire, that the connector knows of no limit and
// would learn of none.
func (c *Connector) warnUnattached() {
	if c.warned.unattached.Load() || c.warned.unattached.Swap(true) || c.limit() > 0 {
		return
	}
	c.cfg.warnAside("sqllease: this pool has no Config.MaxOpen, and does not know its *sql.DB: it sees neither a limit set by SetMaxOpenConns, nor who waits because of it. "+
		"Set Config.MaxOpen; or, after sql.Open or sql.OpenDB, write: if c, ok := sqllease.ConnectorOf(db); ok { c.Attach(db) }",
		slog.String("pool", c.cfg.Name))
}

// warnUnseen says once that waits happen where they cannot be seen.
func (c *Connector) warnUnseen() {
	if c.pools.some.Load() || c.warned.opener.Load() {
		return
	}
	c.pools.adopting.Lock() // Attach has database/sql dial for all whom it has queued
	known := c.pools.some.Load()
	c.pools.adopting.Unlock()
	if known || !c.warned.opener.CompareAndSwap(false, true) {
		return
	}
	c.cfg.warnAside("sqllease: callers queue inside database/sql, where sqllease cannot see them wait: "+
		"SetMaxOpenConns was called on a *sql.DB that the connector does not know. "+
		"Open it with sqllease.Open or OpenDB, or call Attach(db) on its Connector (sqllease.ConnectorOf(db) finds it)",
		slog.String("pool", c.cfg.Name))
}

// warnHidden says once that a connection was in database/sql's free list while it was on
// lease: then something hides IsValid, by which leases end.
func (c *Connector) warnHidden() {
	if !c.warned.hidden.CompareAndSwap(false, true) {
		return
	}
	c.cfg.warnAside("sqllease: another wrapper around this connector hides IsValid (driver.Validator), so connections are never seen to come back: "+
		"callers wait although connections are free, and leaks are reported that are none. "+
		"Put sqllease outermost: call sqllease.Wrap on the connector of the other wrapper, or remove that wrapper",
		slog.String("pool", c.cfg.Name))
}

// errSentAway ends the waits of callers that may be those of a database that was closed:
// database/sql tries again, and those of the others come back to their places.
var errSentAway = errors.New("sqllease: a database that shared the connector was closed")

// errOnOpener says that an acquire is one of database/sql's opener.
var errOnOpener = errors.New("sqllease: on database/sql's opener")

// shared forgets the attached databases that were closed, and tells whether
// there were any, and others go on using the connector.
func (c *Connector) shared() bool {
	p := &c.pools
	p.adopting.Lock()
	defer p.adopting.Unlock()
	all := p.attached()
	open := slices.DeleteFunc(slices.Clone(all), func(n *pool) bool { return isClosed(n.db) })
	p.mu.Lock()
	p.all = open
	p.mu.Unlock()
	if len(open) == len(all) || len(open) == 0 {
		return false
	}
	c.trust()
	// Those whom database/sql would not try again for, or from a first call, are not sent away.
	c.gate.SendAway(errSentAway, func(a *acquire, _ uint64) bool { return !a.before.isLast() && !a.before.bad && !a.called })
	return true
}

// isClosed tells whether a database was closed. database/sql says so before
// it looks at a context, and does nothing for one that has ended.
func isClosed(db *sql.DB) bool {
	ended, end := context.WithCancel(context.Background())
	end()
	err := db.PingContext(ended)
	return err != nil && err.Error() == "sql: database is closed"
}
