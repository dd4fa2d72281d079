package sqllease

import (
	"context"
	"database/sql/driver"
	"log/slog"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/sqllease/sqllease/internal/clock"
	"github.com/sqllease/sqllease/internal/drivers"
	"github.com/sqllease/sqllease/internal/statement"
)

// Who blocks a slow call is asked on a connection of its own, since those of the pool may all
// wait. It is dialed outside of the gate, and closed afterwards. One question is asked at a
// time, of all calls that have become slow meanwhile, and then there is a pause. The calls are
// reported once it is answered, or its time is up. Whatever keeps it from being asked, they
// are reported.

const (
	// findFor bounds a question: its dial, its queries.
	findFor = 2 * time.Second

	// findEvery is the pause after one; after failures, it is longer and longer.
	findEvery, findSeldom = 2 * time.Second, 5 * time.Minute

	// mostFound bounds the calls of one question. Others are reported without.
	mostFound = 64

	// mostBlockers bounds what a report tells.
	mostBlockers = 8
)

// finder is what a connector knows of its questions.
type finder struct {
	mu    sync.Mutex
	calls []*Leak // guarded by mu: to be asked about
	runs  bool    // guarded by mu: somebody does

	stuck  atomic.Bool   // a driver has not returned from a question whose time is up
	failed int           // how often in a row it came to nothing; for who runs
	next   clock.Instant // when the next may be asked; likewise

	warned firsts[string, struct{}]
}

// blame has the server asked who blocks these calls, and reports them then. It waits for
// nobody.
func (c *Connector) blame(calls []*Leak) {
	if len(calls) == 0 {
		return
	}
	f := &c.finder
	f.mu.Lock()
	room := min(len(calls), mostFound-len(f.calls))
	f.calls = append(f.calls, calls[:room]...)
	begins := !f.runs
	f.runs = true
	f.mu.Unlock()
	if begins {
		go c.findAll()
	}
	c.tellCalls(calls[room:])
}

// tellCalls reports them, on a goroutine of its own: the application's function may not return.
func (c *Connector) tellCalls(calls []*Leak) {
	if len(calls) > 0 {
		go c.reports.report(&findings{leaks: calls})
	}
}

// findAll asks until there is nothing to be asked.
func (c *Connector) findAll() {
	for {
		c.restFinder()
		calls := c.finder.take()
		if len(calls) == 0 {
			return
		}
		c.findOf(calls)
	}
}

// restFinder waits until the next question may be asked; not once the pool is closed.
func (c *Connector) restFinder() {
	wait := c.finder.next.Until()
	if c.finder.next.IsZero() || wait <= 0 || wait > findEvery { // no report waits for longer
		return
	}
	t := time.NewTimer(wait)
	defer t.Stop()
	select {
	case <-t.C:
	case <-c.life.Done():
	}
}

// take takes the calls to be asked about. Where there are none, whoever comes next begins
// anew.
func (f *finder) take() (calls []*Leak) {
	f.mu.Lock()
	defer f.mu.Unlock()
	calls, f.calls = f.calls, nil
	f.runs = len(calls) > 0
	return calls
}

// findOf asks about some, and reports them in any case.
func (c *Connector) findOf(calls []*Leak) {
	defer c.tellCalls(calls)
	defer c.cfg.recovered("finding out who blocks a slow call")
	numbers := numbersOf(calls)
	switch {
	case !c.mayFind():
	case len(numbers) == 0:
		c.found(drivers.ErrMadeUp)
	default:
		asked, own := clock.Now(), c.ownNumbers()
		waiting, err := c.askBlockers(numbers)
		c.found(err)
		if err == nil {
			c.lacking(waiting)
			c.nameBlockers(calls, waiting, asked, own)
		}
	}
}

func numbersOf(calls []*Leak) (numbers []uint64) {
	for _, l := range calls {
		if l.ConnectionID != 0 && !slices.Contains(numbers, l.ConnectionID) {
			numbers = append(numbers, l.ConnectionID)
		}
	}
	return numbers
}

// mayFind tells whether a question may be asked: the server lets the pool dial at will.
func (c *Connector) mayFind() (may bool) {
	if c.life.Err() != nil || c.finder.stuck.Load() || c.finder.next > clock.Now() {
		return false
	}
	c.gate.Look(func() { may = c.gate.FiguresLocked().Pace == 0 })
	return may
}

// found notes how a question ended, and when the next may be.
func (c *Connector) found(err error) {
	f := &c.finder
	if f.failed++; err == nil {
		f.failed = 0
	}
	f.next = clock.Now().Add(doubled(findEvery, f.failed, findSeldom))
	if err != nil && c.life.Err() == nil && f.first("failed") {
		c.cfg.warnAside("sqllease: the server could not be asked who blocks a slow call, for Config.FindBlockers; slow calls are reported without",
			slog.String("pool", c.cfg.Name), slog.String("server", c.cfg.endpoint.String()), slog.String("error", c.cfg.said(err)))
	}
}

// first tells whether something is to be said for the first time.
func (f *finder) first(what string) bool {
	_, known, full := f.warned.get(what)
	return !known && !full && f.warned.add(what, struct{}{})
}

// lacking says once what an administrator can do so that more is seen.
func (c *Connector) lacking(w *drivers.Waiting) {
	for _, what := range w.Lacks {
		if c.finder.first(what) {
			c.cfg.warnAside("sqllease: the server does not show all of who blocks a slow call; an administrator can change that, as the attribute remedy says",
				slog.String("pool", c.cfg.Name), slog.String("server", c.cfg.endpoint.String()), slog.String("remedy", what))
		}
	}
}

// askBlockers asks on a connection of its own, and waits for the answer until the time is up:
// a driver may take longer to return.
func (c *Connector) askBlockers(of []uint64) (*drivers.Waiting, error) {
	type answer struct {
		waiting *drivers.Waiting
		err     error
	}
	ctx, cancel := context.WithTimeout(c.life, findFor)
	defer cancel()
	answers := make(chan answer, 1)
	c.finder.stuck.Store(true)
	c.keepers.begin()
	go func() {
		defer c.keepers.end()
		defer c.finder.stuck.Store(false)
		defer c.cfg.recovered("asking the server who blocks a slow call")
		var conn driver.Conn
		a := answer{err: errPanicked}
		defer func() { // it may hang, or panic; the answer is there
			if conn != nil {
				_ = conn.Close()
			}
		}()
		defer func() { answers <- a }()
		if conn, a.err = c.inner.Connect(ctx); a.err == nil {
			a.err = errPanicked
			a.waiting, a.err = c.askOn(ctx, conn, of)
		}
	}()
	select {
	case a := <-answers:
		return a.waiting, a.err
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

// askOn asks a connection, whose own number it finds out as that of every other.
func (c *Connector) askOn(ctx context.Context, conn driver.Conn, of []uint64) (*drivers.Waiting, error) {
	own, kept := drivers.NumberOf(conn)
	if !kept {
		var err error
		if own, err = c.cfg.dialect.Locks.Number(ctx, conn); err != nil {
			return nil, err
		}
	}
	return c.cfg.dialect.Locks.Ask(ctx, conn, own, of)
}

// nameBlockers notes with each call who blocks it, as was asked at that time, when those were
// the numbers of this process's connections.
func (c *Connector) nameBlockers(calls []*Leak, w *drivers.Waiting, asked clock.Instant, own map[uint64]bool) {
	ours := c.holdersOf(calls, w, asked)
	for _, l := range calls {
		if !w.Sees(l.ConnectionID) { // it has ended, or is on another server than the one that was asked
			continue
		}
		if now := ours[l.ConnectionID]; now == nil || now.Pool != c.cfg.Name || !now.isStill(l) {
			continue // it has ended meanwhile
		}
		chain := w.Chain(l.ConnectionID, mostBlockers)
		if slices.ContainsFunc(chain, func(wait drivers.LockWait) bool {
			now := ours[wait.Holder]
			return now.changedHands() || now == nil && own[wait.Holder] // it is closed, or somebody looks after it
		}) {
			continue // who had it then is not known, nor whether the lock is still there
		}
		for _, wait := range chain {
			l.blame.blockers = append(l.blame.blockers, c.blockerOf(wait, w, ours))
		}
		if lock := w.Hidden[l.ConnectionID]; lock != "" && len(l.blame.blockers) == 0 {
			l.blame.blockers = []Blocker{{Blocks: l.ConnectionID, Lock: lock}}
		}
		l.blame.free = w.Whole && len(l.blame.blockers) == 0
		if root := l.blame.root(); root != nil {
			l.blame.end = c.cfg.dialect.Locks.End(root.ConnectionID)
		}
	}
}

// isStill tells whether that is the call, which has not ended.
func (b *Blocker) isStill(l *Leak) bool {
	const same = 10 * time.Millisecond // times of day may have been set meanwhile
	return !b.LeftOver && b.Lease != nil && b.Lease.ID == l.ID && b.Lease.Busy && b.Lease.Begun.Sub(l.Begun).Abs() < same
}

// changedHands tells whether its connection was given back, or taken, since the question was asked.
func (b *Blocker) changedHands() bool { return b != nil && b.Lease == nil }

// blockerOf is who has what another waits for.
func (c *Connector) blockerOf(wait drivers.LockWait, w *drivers.Waiting, ours map[uint64]*Blocker) Blocker {
	b := Blocker{}
	if own := ours[wait.Holder]; own != nil {
		b = *own
	}
	p := w.Processes[wait.Holder]
	b.ConnectionID, b.Blocks, b.Lock = wait.Holder, wait.Waiter, wait.Lock
	b.User, b.Host, b.Program, b.State, b.For = p.User, p.Host, p.Program, p.State, p.For
	if p.Statement != "" { // not of ours: it is not remembered
		b.Statement = statement.Summarise(p.Statement, c.cfg.dialect.Grammar).Sanitised
	}
	if b.ConnectionID == 0 {
		b.State = "prepared"
	}
	b.Waits = slices.ContainsFunc(w.Waits, func(other drivers.LockWait) bool { return other.Waiter == wait.Holder && other.Holder != other.Waiter })
	return b
}

// holdersOf are the pools and leases of this process that have the connections of an answer.
func (c *Connector) holdersOf(calls []*Leak, w *drivers.Waiting, asked clock.Instant) map[uint64]*Blocker {
	ours := map[uint64]*Blocker{}
	for _, l := range calls {
		ours[l.ConnectionID] = nil
	}
	for _, wait := range w.Waits {
		ours[wait.Holder] = nil
	}
	for _, other := range c.neighbours() {
		other.holders(ours, asked)
	}
	c.holders(ours, asked) // they count for more
	return ours
}

// holders notes the leases of a pool by the numbers of their connections, where these are
// asked for. A ready connection has the last one that it had; one that has changed hands since that
// time has none.
func (c *Connector) holders(by map[uint64]*Blocker, since clock.Instant) {
	var found []*Blocker
	now := clock.Now()
	c.gate.Look(func() {
		note := func(s *session, left bool) {
			l := &s.lease
			if _, asked := by[l.connection]; asked && l.connection != 0 && l.stack != nil {
				b := &Blocker{ConnectionID: l.connection, Pool: c.cfg.Name, LeftOver: left}
				if !left && l.heldSince() <= since || left && s.UsedLocked() <= since {
					lease := l.read(now)
					b.Lease = &lease
				}
				found = append(found, b)
			}
		}
		c.gate.eachLeaseLocked(func(s *session) { note(s, false) })
		c.gate.EachReadyLocked(func(s *session) bool { note(s, true); return true })
	})
	for _, b := range found {
		if b.Lease != nil {
			b.Lease.Statement = c.reports.sanitised(b.Lease.Statement)
		}
		by[b.ConnectionID] = b
	}
}

// ownNumbers are those of the connections that this process has on the server.
func (c *Connector) ownNumbers() map[uint64]bool {
	own := map[uint64]bool{}
	for _, pool := range append(c.neighbours(), c) {
		pool.gate.Look(func() {
			note := func(s *session) bool { own[s.lease.connection] = true; return true }
			pool.gate.EachHeldLocked(note)
			pool.gate.EachReadyLocked(note)
		})
	}
	delete(own, 0) // it is not known
	return own
}

// numberOf is the number that the server has given a new connection; zero: it is not known.
// It is asked for only where somebody may ask who blocks whom, and the driver does not know
// it: a connection in a call cannot be asked any more. An error says that it is of no use.
func (c *Connector) numberOf(ctx context.Context, conn driver.Conn) (number uint64, lost error) {
	number, kept := drivers.NumberOf(conn)
	if kept || !c.cfg.FindBlockers {
		return number, nil
	}
	returned := false
	defer func() {
		if !returned { // a panic: nobody else knows the connection
			go func() {
				defer c.cfg.recovered("closing a connection")
				_ = conn.Close()
			}()
		}
	}()
	number, err := c.cfg.dialect.Locks.Number(ctx, conn)
	if err != nil && !survives(ctx, conn, err) {
		lost = err
		_ = conn.Close()
	}
	returned = true
	return number, lost
}

// finders are the connectors of this process that find blockers.
var finders registry[Connector]

// neighbours are the others on the same server, as far as that is known.
func (c *Connector) neighbours() []*Connector {
	at := c.cfg.endpoint
	if at.Address == "" {
		return nil
	}
	return slices.DeleteFunc(finders.list(), func(other *Connector) bool {
		return other == c || other.cfg.endpoint.Address != at.Address || other.cfg.endpoint.Port != at.Port
	})
}
