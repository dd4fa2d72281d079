package sqllease

import (
	"context"
	"database/sql/driver"
	"sync/atomic"

	"go.opentelemetry.io/otel/trace"

	"github.com/sqllease/sqllease/internal/callstack"
	"github.com/sqllease/sqllease/internal/clock"
	"github.com/sqllease/sqllease/internal/gate"
	"github.com/sqllease/sqllease/internal/statement"
)

// handle is the driver.Conn that database/sql sees. It has a session only while it is on
// lease; in database/sql's free list it is a ticket, which remembers the session that it
// had last. It implements every optional interface, with the answer that database/sql
// would have reached itself where the driver has none. database/sql holds its own lock on
// the connection during every call, so that calls on one handle never overlap; what is
// not said to be guarded otherwise is guarded by that lock.
type handle struct {
	c          *Connector
	ticket     gate.Ticket[session] // guarded by the gate's lock
	session    *session             // nil: it has none
	number     uint64               // of the lease
	statements int                  // how many the application has under it, on the session it had last
	leased     bool                 // it has a session, on lease; else one that it has is to be closed by Close
	pending    bool                 // it acquires at its first call: database/sql's opener asked for it, or see defers
	single     bool                 // the lease is that of one call of database/sql's, see forOneCall
	taken      bool                 // its session was taken from it, and database/sql counts it for ever
	late       bool                 // it has locked session.late
	ctx        contextID            // that the lease was acquired in
	waited     trace.Span           // that of the acquire, where it began a trace of its own; nil: none
	tries      int                  // how often its caller had tried before
	called     bool                 // its acquire is that of its first call
	barred     bool                 // it acquires there since its caller's lane might have nothing: if that fails, it is as good a ticket as it was
	ends       bool                 // its connection is to be dropped when it is given back
	closed     atomic.Bool          // it was dropped
	unchecked  bool                 // the arguments of its first call are to be checked in it
}

var (
	_ driver.Conn               = (*handle)(nil)
	_ driver.ConnBeginTx        = (*handle)(nil)
	_ driver.ConnPrepareContext = (*handle)(nil)
	_ driver.ExecerContext      = (*handle)(nil)
	_ driver.QueryerContext     = (*handle)(nil)
	_ driver.NamedValueChecker  = (*handle)(nil)
	_ driver.Pinger             = (*handle)(nil)
	_ driver.SessionResetter    = (*handle)(nil)
	_ driver.Validator          = (*handle)(nil)
)

// ResetSession begins a lease: database/sql has taken the ticket from its free list. It
// never waits and never dials, since database/sql holds a lock on the connection here
// that others want who hold leases. Where no session is ready, the driver.ErrBadConn of
// the refusal makes database/sql drop the ticket, and its caller comes to Connect.
func (h *handle) ResetSession(ctx context.Context) error {
	c, start := h.c, clock.Now()
	h.pending, h.barred = false, false
	if h.leased {
		c.warnHidden()
	}
	if ctx == c.poke {
		c.gate.Leave(&h.ticket)
		return driver.ErrBadConn
	}
	s, fit, barred := c.gate.Take(&h.ticket, h.statements > 0, c.laneOf(ctx), start)
	switch {
	case barred && h.statements == 0: // nobody wants a lock on it, so its first call may wait
		h.pending, h.called, h.barred = true, false, true
		return nil
	case barred:
		c.gate.Leave(&h.ticket)
		fallthrough
	case s == nil:
		c.arrivals.refused(ctx, c.gate.Gate, start)
		return driver.ErrBadConn
	case !fit:
		h.session = s
		c.arrivals.refused(ctx, c.gate.Gate, start)
		return driver.ErrBadConn
	}
	var before arrival
	if c.arrivals.some() {
		before = c.arrivals.take(ctx, start)
	}
	if before.isLast() && h.defers(s, start) {
		c.arrivals.keep(before, start)
		return nil
	}
	l := &s.lease
	c.claim(ctx, &l.claim, start, 1)
	h.lend(s)
	h.ctx, h.tries = idOf(ctx), before.tries
	if !s.needsReset() {
		l.begin(h.number, start, parts{}, h.single)
		c.begun(s)
		h.acquired(ctx, parts{}, 0, (*handle).lose)
		return nil
	}
	l.begin(h.number, 0, parts{}, h.single)
	c.begun(s)
	err := h.reset(ctx)
	now := clock.Now()
	p := parts{reset: now.Sub(start)}
	if isBad(err) {
		c.unreset(ctx, s, err, start)
		c.tracing.refused(ctx, l.lane, start, now, p, err)
		if ctx.Err() != nil { // database/sql does not try again
			c.countFailed(ctx, &l.claim, p, now, whyNot(ctx, err, nil))
		}
		return err
	}
	l.hold(now, p, h.single)
	h.acquired(ctx, p, now.Sub(start), (*handle).lose)
	return err
}

// defers closes a session that a ticket got in database/sql's last attempt, if it may be
// as bad as the one before, and leaves the acquire to the handle's first call: there it
// may wait and dial, and there its error is the caller's. It tells whether it did.
func (h *handle) defers(s *session, now clock.Instant) bool {
	if _, unfit := h.c.gate.Unfit(&s.Session, now); !unfit {
		return false // it was used since a connection proved bad
	}
	s.dies(closedSuspect, "")
	h.c.gate.Reject(&s.Session, gate.Bad)
	_ = h.c.retire(s)
	h.pending, h.called = true, false
	return true
}

// lend puts a session on lease under the handle. The claim is in its lease.
func (h *handle) lend(s *session) {
	h.session, h.number, h.leased = s, s.Hold(), true
	h.single = h.c.forOneCall(s.lease.stack)
}

// reset readies the session that a ticket got. One in which the driver panics is lost:
// database/sql never gives it back.
func (h *handle) reset(ctx context.Context) error {
	returned := false
	defer h.guard(&returned)
	err := h.session.reset(ctx)
	returned = true
	return err
}

// IsValid ends the lease: database/sql gives the connection back. False makes it drop the
// handle, whose session has then gone to a waiter, or is closed.
func (h *handle) IsValid() bool {
	if !h.leased {
		return h.session == nil && h.c.gate.Stays(&h.ticket, h.pending && (!h.called || h.barred))
	}
	if h.use() != nil { // reclaimed
		h.leaveSession()
		h.taken = true
		return false
	}
	returned := false
	defer h.guard(&returned)
	s := h.session
	valid := s.can.Validator == nil || s.can.Validator.IsValid()
	if valid {
		s.sweep()
	}
	returned = true
	return h.release(valid)
}

// release gives the session back.
func (h *handle) release(valid bool) (stays bool) {
	s, c, now := h.session, h.c, clock.Now()
	if h.waited != nil {
		h.waited = nil
	}
	s.lease.heard(s)
	leaves := valid && c.leavesRole(s)
	how := OutcomeReturned
	if !valid {
		how = OutcomeBroken
	}
	e := c.endOf(s, now, !h.single, how)
	var left *inheritance
	s.inOther = false
	if s.lease.left != nil {
		s.inOther = s.lease.left.tx != nil
		left = s.lease.inheritance()
	}
	h.unlockLate()
	h.leased = false
	became := gate.Closed
	if leaves { // which says nothing of other sessions
		c.gate.Condemn(&s.Session, gate.Expired, now)
	} else {
		became = c.gate.Return(&h.ticket, &s.Session, !valid, now)
	}
	if became != gate.Closed { // Close closes it
		h.session = nil
	}
	c.leaseEnded(&e)
	if left != nil && became != gate.Closed {
		c.reports.inherited(left)
	}
	return became == gate.Kept
}

// leaveSession lets go of a session that is not its own any more.
func (h *handle) leaveSession() {
	h.unlockLate()
	h.session, h.leased = nil, false
}

// Close drops the handle. As a ticket, it may take a session with it that is ready: that
// is how database/sql's limits of idle connections reach sessions.
func (h *handle) Close() error {
	h.closed.Store(true)
	s, now := h.session, clock.Now()
	switch {
	case s == nil:
		return h.drop(now)
	case h.leased && h.use() != nil: // reclaimed
		h.leaveSession()
		h.c.counts.lost.Add(-1)
		return nil
	case h.leased:
		e := h.c.endOf(s, now, !h.single, OutcomeBroken)
		h.unlockLate()
		h.condemn(s, now)
		defer h.c.leaseEnded(&e)
	}
	h.session, h.leased = nil, false
	return h.c.retire(s)
}

// condemn ends the lease of a session that proved bad, or ends with its transaction.
func (h *handle) condemn(s *session, now clock.Instant) {
	if h.ends {
		s.dies(closedCancelled, "")
		h.c.gate.Condemn(&s.Session, gate.Dropped, now)
		return
	}
	why, bad := gate.Bad, !s.isGivenUp()
	if !bad {
		why = gate.Dropped
	}
	h.c.gate.Condemn(&s.Session, why, now)
	h.c.arrivals.lost(h.ctx, h.tries, bad, now)
}

// drop gives up a ticket.
func (h *handle) drop(now clock.Instant) error {
	if h.taken {
		h.taken = false
		h.c.counts.lost.Add(-1)
		return nil
	}
	s := h.c.gate.Drop(&h.ticket, now)
	if s != nil && closesDB(callstack.Capture(1)) {
		s.dies(closedShutdown, "")
	}
	switch {
	case s == nil:
		return nil
	case h.pending: // database/sql may hold its own lock
		h.c.retireAside(s)
		return nil
	}
	h.c.pulse.soon(now)
	return h.c.retire(s)
}

// lose takes the session away from a handle in which the driver panicked: its
// state is unknown. It is closed aside, since the driver may hold a lock for
// ever.
func (h *handle) lose() {
	if h.session != nil && h.leased {
		h.discard()
		h.taken = true
		h.c.lose(1)
	}
}

// discard ends the lease, and closes the session aside.
func (h *handle) discard() {
	s, now := h.session, clock.Now()
	s.lease.lose()
	s.dies(closedPanicked, "")
	e := h.c.endOf(s, now, !h.single, OutcomePanicked)
	h.leaveSession()
	h.c.gate.Condemn(&s.Session, gate.Bad, now)
	h.c.leaseEnded(&e)
	h.c.retireAside(s)
}

// guard is deferred around a call that is no operation: where the driver
// panics in one, database/sql may never give the connection back.
func (h *handle) guard(returned *bool) {
	if !*returned {
		h.lose()
	}
}

// hold makes sure that a call happens on lease. Only a connection that
// database/sql's opener asked for has none yet at its first call. One that
// lost its session gets no other.
func (h *handle) hold(ctx context.Context) error {
	switch {
	case h.leased:
		return nil
	case !h.pending:
		return driver.ErrBadConn
	}
	h.called = true
	if !h.barred {
		h.c.gate.Leave(&h.ticket)
	}
	_, err := h.c.acquire(ctx, h, clock.Now(), 2)
	if h.pending = err != nil; h.barred && !h.pending { // else it may be tried again, and is a ticket still
		h.c.gate.Leave(&h.ticket)
	}
	return err
}

// begun makes sure that a call happens on lease, and begins a use.
func (h *handle) begun(ctx context.Context) error {
	if err := h.hold(ctx); err != nil {
		return err
	}
	return h.use()
}

// use begins a call of the holder's. Until unuse the lease cannot be reclaimed;
// one that has been, or whose session is lost, may touch the driver no more.
func (h *handle) use() error { return h.useAs(inUse) }

func (h *handle) useAs(as uint64) error {
	if !h.leased {
		return driver.ErrBadConn
	}
	s := h.session
	if !h.single && !s.lease.claimUse(as) && !h.c.watch.givenBack(&s.lease, as) {
		return h.c.watch.reclaimed(s)
	}
	if s.late != nil {
		s.late.Lock()
		h.late = true
	}
	return nil
}

// unuse ends it, unless the session was lost in it.
func (h *handle) unuse() {
	if h.leased {
		h.unlockLate()
		if !h.single {
			h.session.lease.unuse()
		}
	}
}

// unlockLate lets results that ask their connection late go on.
func (h *handle) unlockLate() {
	if h.late {
		h.late = false
		h.session.late.Unlock()
	}
}

// Ping calls the driver's Ping; without one, an acquired connection counts as
// alive, as it does for database/sql.
func (h *handle) Ping(ctx context.Context) (err error) {
	if err := h.begun(ctx); err != nil {
		return err
	}
	defer h.unuse()
	if h.session.can.Pinger == nil {
		return nil
	}
	o := operation{h: h, call: callPing}
	ctx = o.start(ctx)
	defer o.end(&err)
	err = h.session.can.Pinger.Ping(ctx)
	o.returned = true
	return err
}

// ExecContext runs a statement directly, where the driver can.
func (h *handle) ExecContext(ctx context.Context, query string, args []driver.NamedValue) (res driver.Result, err error) {
	if err := h.begun(ctx); err != nil {
		return nil, err
	}
	defer h.unuse()
	s := h.session
	if !s.can.Execs {
		return nil, driver.ErrSkip
	}
	if args, err = h.checkDeferred(args); err != nil {
		return nil, err
	}
	o := operation{h: h, call: callExec, query: query, decline: h.c.execDeclines.of(args)}
	ctx = o.start(ctx)
	defer o.end(&err)
	res, err = s.can.Exec(ctx, s.conn, o.commented(ctx), args)
	o.returned = true
	s.ran(h, query)
	if s.lease.left != nil || !statement.Usual(query) {
		h.leaves(query, err, nil)
	}
	return s.result(h, res), err
}

// QueryContext runs a query directly, where the driver can.
func (h *handle) QueryContext(ctx context.Context, query string, args []driver.NamedValue) (rows driver.Rows, err error) {
	if err := h.begun(ctx); err != nil {
		return nil, err
	}
	defer h.unuse()
	s := h.session
	if !s.can.Queries {
		return nil, driver.ErrSkip
	}
	if args, err = h.checkDeferred(args); err != nil {
		return nil, err
	}
	o := operation{h: h, call: callQuery, query: query, decline: h.c.queryDeclines.of(args)}
	ctx = o.start(ctx)
	defer o.end(&err)
	rows, err = s.can.Query(ctx, s.conn, o.commented(ctx), args)
	o.returned = true
	s.ran(h, query)
	leaves := s.lease.left != nil || !statement.Usual(query)
	if err != nil {
		if leaves {
			h.leaves(query, err, nil)
		}
		return nil, err
	}
	answer := o.rows(rows, nil)
	if leaves {
		h.leaves(query, nil, answer)
	}
	return newRows(answer), nil
}

// ran notes that a statement was run directly on the session. Where the session has no
// statement, and is in no transaction that could undo it, nobody would ask.
func (s *session) ran(h *handle, query string) {
	if (len(s.statements.real) > 0 || s.lease.inTx) && h.c.summaries.Of(query).Moves {
		s.statements.state++
	}
}

// leaves notes what a statement that was run does to its session, which is not a usual one,
// or comes after one. answer are the rows of a query that has succeeded.
func (h *handle) leaves(query string, err error, answer *rows) {
	l := &h.session.lease
	switch {
	case l.left == nil && (h.c.cfg.dialect.Grammar == statement.Unknown || err != nil), err == driver.ErrSkip:
	case len(query) > statement.Longest: // to read it takes long, at each call
		l.left = nil
	default:
		h.left(h.c.summaries.Of(query), err, answer)
	}
}

// left notes it of a statement that is known.
func (h *handle) left(d *described, err error, answer *rows) {
	l := &h.session.lease
	asks := d.Effect.Act == statement.LeavesIfTrue || d.Effect.Act == statement.Leaves && answer != nil && d.Effect.Kind == statement.NamedLock
	switch {
	case l.left == nil && (err != nil || !d.Effect.Lasts()):
	case asks && answer != nil: // a lock may be waited for until the first row comes
		answer.asks, answer.op.known = true, d
	case asks && d.Effect.Act == statement.LeavesIfTrue: // nobody sees the answer
	default:
		l.leaves(d, err, h.c.cfg.dialect.Grammar)
	}
}
