package sqllease

import (
	"cmp"
	"context"
	"database/sql/driver"
	"errors"
	"fmt"
	"io"
	"reflect"
	"slices"
	"sync/atomic"
	"time"

	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/trace"
)

// handle is the driver.Conn that database/sql sees. It implements every
// optional interface, with the answer that database/sql would have reached
// itself where the driver has none. database/sql holds its own lock on the
// connection during every call, so that calls on one handle never overlap.
type handle struct {
	c       *Connector
	session *session // guarded by gate.mu; while leased it does not change, and the lease's calls read it freely
	leased  bool     // guarded by database/sql's lock on the connection
	pending bool     // guarded by that lock: it never had a session, and acquires one at its first call
	back    bool     // guarded by that lock: its session was taken, and database/sql has dropped it after all
	empty   bool     // guarded by gate.mu: it counts in gate.empty
	lease   lease
	taker   taker // guarded by that lock: the one of the lease that ended last
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

// ResetSession begins a lease: database/sql has taken the handle from its
// free list. The driver.ErrBadConn of a refusal makes it try another.
func (h *handle) ResetSession(ctx context.Context) error {
	if h.pending {
		return h.hold(ctx)
	}
	c, start := h.c, clock()
	if h.lease.node.in == nil {
		h.begin(ctx, start, 1)
	}
	s := c.gate.checkout(h, start)
	if s == nil {
		return driver.ErrBadConn
	}
	h.leased = true
	if s.can.resetter == nil && !s.statements.due.Load() {
		h.lease.hold(start, parts{})
		c.metrics.acquired(ctx, parts{}, 0)
		return nil
	}
	err := h.reset(ctx)
	now := clock()
	p := parts{reset: now.Sub(start)}
	if errors.Is(err, driver.ErrBadConn) {
		c.tracing.refused(ctx, start, now, p, err)
		return err
	}
	h.lease.hold(now, p)
	if p.reset > slowReset {
		c.gate.requeue(&h.lease, now)
	}
	c.metrics.acquired(ctx, p, now.Sub(start))
	return err
}

// slowReset is how far the list of leases may be from the order of acquiring.
const slowReset = time.Millisecond

// reset readies the session that database/sql took from its free list. One in
// which the driver panics is lost: database/sql never gives it back.
func (h *handle) reset(ctx context.Context) error {
	returned := false
	defer h.guard(&returned)
	err := h.session.reset(ctx)
	returned = true
	return err
}

// reset makes a session ready for its next holder: the driver's own reset,
// then the statements whose closing was left to this lease.
func (s *session) reset(ctx context.Context) (err error) {
	if s.can.resetter != nil {
		err = s.can.resetter.ResetSession(ctx)
	}
	if !errors.Is(err, driver.ErrBadConn) {
		s.statements.sweep()
	}
	return err
}

// IsValid ends the lease: database/sql gives the connection back. False makes
// it drop the handle, whose session has then gone to a waiter or is closed.
func (h *handle) IsValid() bool {
	if !h.leased {
		stays, _ := h.c.gate.release(h, true, clock())
		return stays
	}
	if h.use() != nil { // reclaimed
		h.leased = false
		return false
	}
	returned := false
	defer h.guard(&returned)
	v := h.session.can.validator
	valid := v == nil || v.IsValid()
	returned = true
	h.leased = false
	now := clock()
	held := h.lease.heldFor(now)
	stays, e := h.c.gate.release(h, valid, now)
	h.c.leaseEnded(h, held, e, now)
	return stays
}

// Close drops the handle. A hollow one does nothing: its session belongs to
// somebody else.
func (h *handle) Close() error {
	wasLeased := h.leased
	h.leased = false
	now := clock()
	held := h.lease.heldFor(now)
	s, e := h.c.gate.drop(h, h.c.cfg.MinIdle, now)
	switch {
	case s == nil:
		if h.lease.isTaken() && !h.back {
			h.back = true
			h.c.lost.Add(-1)
		}
		return nil
	case h.pending: // a spare in its stead; database/sql may hold its own lock
		h.c.retireAside(s)
		return nil
	case wasLeased:
		h.c.leaseEnded(h, held, e, now)
	}
	return h.c.retire(s)
}

// lose takes the session away from a handle in which the driver panicked: its
// state is unknown. It is closed aside, since the driver may hold a lock for
// ever.
func (h *handle) lose() {
	h.leased = false
	h.lease.lose()
	now := clock()
	held := h.lease.heldFor(now)
	if s, e := h.c.gate.drop(h, 0, now); s != nil {
		h.c.leaseEnded(h, held, e, now)
		s.statements.abandon()
		h.c.lose(1)
		h.c.retireAside(s)
	}
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
	start := clock()
	h.begin(ctx, start, 1)
	return h.acquire(ctx, start)
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
	if h.lease.claim(as) {
		return nil
	}
	return h.c.reclaimed(h, as)
}

// isTaken tells whether the session was taken for good: takeLocked gives it
// back if it finds that it came between.
func (h *handle) isTaken() bool {
	h.c.gate.mu.Lock()
	defer h.c.gate.mu.Unlock()
	return h.lease.isTaken()
}

// unuse ends it, unless the session was lost in it.
func (h *handle) unuse() { h.lease.unuse() }

// begin makes the handle's record that of a new lease. skip is the number of
// the caller's frames that do not matter.
func (h *handle) begin(ctx context.Context, now instant, skip int) {
	h.lease.limit = holdLimit(ctx, h.c.cfg.LeakThreshold)
	h.lease.begin(ctx, now, skip+1)
}

// Ping calls the driver's Ping; without one, an acquired connection counts as
// alive, as it does for database/sql.
func (h *handle) Ping(ctx context.Context) (err error) {
	if err := h.begun(ctx); err != nil {
		return err
	}
	defer h.unuse()
	if h.session.can.pinger == nil {
		return nil
	}
	o := operation{h: h, call: callPing}
	ctx = o.start(ctx)
	defer o.end(&err)
	err = h.session.can.pinger.Ping(ctx)
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
	if !s.can.execs() {
		return nil, driver.ErrSkip
	}
	if args, err = h.checkDeferred(args); err != nil {
		return nil, err
	}
	o := operation{h: h, call: callExec, query: query, decline: h.c.execDeclines.of(args)}
	ctx = o.start(ctx)
	defer o.end(&err)
	res, err = s.can.exec(ctx, h.c.commented(ctx, query), args)
	o.returned = true
	return res, err
}

// exec is what database/sql does with an Execer or ExecerContext.
func (c *capabilities) exec(ctx context.Context, query string, args []driver.NamedValue) (driver.Result, error) {
	if c.execerContext != nil {
		return c.execerContext.ExecContext(ctx, query, args)
	}
	if c.execer == nil {
		return nil, driver.ErrSkip
	}
	values, err := plainValues(ctx, args)
	if err != nil {
		return nil, err
	}
	return c.execer.Exec(query, values)
}

// QueryContext runs a query directly, where the driver can.
func (h *handle) QueryContext(ctx context.Context, query string, args []driver.NamedValue) (rows driver.Rows, err error) {
	if err := h.begun(ctx); err != nil {
		return nil, err
	}
	defer h.unuse()
	s := h.session
	if !s.can.queries() {
		return nil, driver.ErrSkip
	}
	if args, err = h.checkDeferred(args); err != nil {
		return nil, err
	}
	o := operation{h: h, call: callQuery, query: query, decline: h.c.queryDeclines.of(args)}
	ctx = o.start(ctx)
	defer o.end(&err)
	rows, err = s.can.query(ctx, h.c.commented(ctx, query), args)
	o.returned = true
	if err != nil {
		return nil, err
	}
	return o.rows(rows), nil
}

// query is what database/sql does with a Queryer or QueryerContext.
func (c *capabilities) query(ctx context.Context, query string, args []driver.NamedValue) (driver.Rows, error) {
	if c.queryerContext != nil {
		return c.queryerContext.QueryContext(ctx, query, args)
	}
	if c.queryer == nil {
		return nil, driver.ErrSkip
	}
	values, err := plainValues(ctx, args)
	if err != nil {
		return nil, err
	}
	return c.queryer.Query(query, values)
}

// Prepare is there for driver.Conn; database/sql calls PrepareContext.
func (h *handle) Prepare(query string) (driver.Stmt, error) {
	return h.PrepareContext(context.Background(), query)
}

// PrepareContext adopts a statement of the same text that was left with the
// session, or prepares it.
func (h *handle) PrepareContext(ctx context.Context, query string) (st driver.Stmt, err error) {
	if err := h.begun(ctx); err != nil {
		return nil, err
	}
	defer h.unuse()
	s := h.session
	if p := s.statements.adopt(query, h); p != nil {
		h.c.adoptions.Add(1)
		return newStmt(h, s, p), nil
	}
	o := operation{h: h, call: callPrepare, query: query}
	ctx = o.start(ctx)
	defer o.end(&err)
	inner, err := s.can.prepare(ctx, s.conn, query)
	o.returned = true
	if err != nil {
		return nil, err
	}
	p := &prepared{inner: inner, query: query, inTx: h.lease.inTx}
	s.statements.add(p, h)
	return newStmt(h, s, p), nil
}

// prepare is what database/sql does with a connection to prepare a statement.
func (c *capabilities) prepare(ctx context.Context, conn driver.Conn, query string) (driver.Stmt, error) {
	if c.preparer != nil {
		return c.preparer.PrepareContext(ctx, query)
	}
	st, err := conn.Prepare(query)
	if err == nil && ctx.Err() != nil {
		_ = st.Close()
		return nil, ctx.Err()
	}
	return st, err
}

// Begin is there for driver.Conn; database/sql calls BeginTx.
func (h *handle) Begin() (driver.Tx, error) {
	return h.BeginTx(context.Background(), driver.TxOptions{})
}

// BeginTx begins a transaction.
func (h *handle) BeginTx(ctx context.Context, opts driver.TxOptions) (t driver.Tx, err error) {
	if err := h.begun(ctx); err != nil {
		return nil, err
	}
	defer h.unuse()
	ctx, span := h.c.tracing.startTx(ctx)
	began := false
	defer func() {
		if !began {
			h.c.tracing.endTx(span, "not begun", cmp.Or(err, errPanicked))
		}
	}()
	o := operation{h: h, call: callBegin}
	callCtx := o.start(ctx)
	defer o.end(&err)
	inner, err := h.session.can.begin(callCtx, h.session.conn, opts)
	o.returned = true
	if err != nil {
		return nil, err
	}
	began = true
	begun := &tx{h: h, inner: inner, ctx: ctx, span: span}
	h.c.tracing.endTx(h.lease.beginTx(begun), "lost", nil) // one whose end has not been seen
	return begun, nil
}

// begin is what database/sql does with a connection to begin a transaction.
func (c *capabilities) begin(ctx context.Context, conn driver.Conn, opts driver.TxOptions) (driver.Tx, error) {
	if c.beginner != nil {
		return c.beginner.BeginTx(ctx, opts)
	}
	if opts.Isolation != 0 {
		return nil, errors.New("sql: driver does not support non-default isolation level")
	}
	if opts.ReadOnly {
		return nil, errors.New("sql: driver does not support read-only transactions")
	}
	t, err := conn.Begin() //nolint:staticcheck // it is all that this driver has
	if err == nil && ctx.Err() != nil {
		_ = t.Rollback()
		return nil, ctx.Err()
	}
	return t, err
}

// CheckNamedValue checks an argument of a direct call. database/sql asks it
// before it asks whether the driver has such calls at all: a driver that has
// none sees its arguments later, per statement, so that they pass unchecked
// here. Of a driver with only one of Exec and Query, the arguments are checked
// in the call, see checkDeferred.
func (h *handle) CheckNamedValue(v *driver.NamedValue) error {
	if h.use() != nil {
		return nil // pending: checked in the call; or lost: the call itself says so
	}
	defer h.unuse()
	can := &h.session.can
	if !can.execs() || !can.queries() {
		return nil
	}
	return h.checkValue(can.checker, v)
}

// checkValue asks a checker of the driver's, which may be nil.
func (h *handle) checkValue(checker driver.NamedValueChecker, v *driver.NamedValue) error {
	if checker == nil {
		return driver.ErrSkip
	}
	returned := false
	defer h.guard(&returned)
	err := checker.CheckNamedValue(v)
	returned = true
	return err
}

// checkDeferred does what database/sql does with arguments for a direct call,
// for the drivers of which CheckNamedValue could not know the call.
func (h *handle) checkDeferred(args []driver.NamedValue) ([]driver.NamedValue, error) {
	can := &h.session.can
	if can.execs() && can.queries() {
		return args, nil
	}
	kept := args[:0]
	for _, v := range args {
		v.Ordinal = len(kept) + 1
		err := driver.ErrSkip
		if can.checker != nil {
			err = can.checker.CheckNamedValue(&v)
		}
		if err == driver.ErrSkip {
			v.Value, err = driver.DefaultParameterConverter.ConvertValue(v.Value)
		}
		if err == driver.ErrRemoveArgument {
			continue
		}
		if err != nil {
			return nil, fmt.Errorf("sql: converting argument %s type: %w", argumentName(v), err)
		}
		kept = append(kept, v)
	}
	return kept, nil
}

// argumentName names an argument as database/sql's errors do.
func argumentName(v driver.NamedValue) string {
	if v.Name == "" {
		return fmt.Sprintf("$%d", v.Ordinal)
	}
	return fmt.Sprintf("with name %q", v.Name)
}

// plainValues makes the arguments of a legacy call, and refuses what it cannot
// carry, as database/sql does: names, and a context that has ended.
func plainValues(ctx context.Context, args []driver.NamedValue) ([]driver.Value, error) {
	values := make([]driver.Value, len(args))
	for i, v := range args {
		if v.Name != "" {
			return nil, errors.New("sql: driver does not support the use of Named Parameters")
		}
		values[i] = v.Value
	}
	return values, ctx.Err()
}

// tx is a transaction on a handle.
type tx struct {
	h     *handle
	inner driver.Tx
	ctx   context.Context // of BeginTx: whose end makes database/sql roll back
	span  trace.Span      // nil: none
}

// lasting is a context without its end. Unlike that of context.WithoutCancel, its
// Value allocates nothing.
type lasting struct{ context.Context }

// Deadline is none.
func (lasting) Deadline() (time.Time, bool) { return time.Time{}, false }

// Done never comes.
func (lasting) Done() <-chan struct{} { return nil }

// Err is none.
func (lasting) Err() error { return nil }

// Commit commits.
func (t *tx) Commit() error { return t.finish(callCommit, driver.Tx.Commit) }

// Rollback rolls back. database/sql, seeing that a handle has both Validator
// and SessionResetter, keeps the connection when the context of its
// transaction ends; a driver that lacks one of them relies on losing it, and
// loses it by this error, which database/sql keeps to itself.
func (t *tx) Rollback() error {
	loses := t.losesConn()
	err := t.finish(callRollback, driver.Tx.Rollback)
	if !loses {
		return err
	}
	if t.h.use() == nil {
		t.h.session.statements.doomTx() // database/sql closes them unless a connection is bad
		t.h.unuse()
	}
	return driver.ErrBadConn
}

// losesConn tells whether database/sql itself rolls back, and would drop the
// connection if it saw the driver.
func (t *tx) losesConn() bool {
	if t.ctx.Err() == nil || t.h.use() != nil {
		return false
	}
	defer t.h.unuse()
	if can := &t.h.session.can; can.resetter != nil && can.validator != nil {
		return false
	}
	var pcs [stackDepth]uintptr
	return Stack(pcs[:capture(1, &pcs)]).on(txGoroutine)
}

func (t *tx) finish(c call, do func(driver.Tx) error) (err error) {
	if err := t.h.use(); err != nil {
		return err
	}
	defer t.h.unuse()
	// The context of the transaction may have ended, which is no reason for
	// its span to have no parent.
	o := operation{h: t.h, call: c}
	o.start(lasting{t.ctx})
	defer func() { // after the call's own span
		if o.returned {
			t.h.c.tracing.endTx(t.h.lease.endTx(t), outcome(c, err), err)
		}
	}()
	defer o.end(&err)
	err = do(t.inner)
	o.returned = true
	return err
}

// outcome is how a transaction ended.
func outcome(c call, err error) string {
	switch {
	case err != nil:
		return "failed"
	case c == callCommit:
		return "committed"
	}
	return "rolled back"
}

// stmt is a prepared statement on a handle.
type stmt struct {
	h *handle
	s *session
	p *prepared
}

var (
	_ driver.StmtExecContext   = (*stmt)(nil)
	_ driver.StmtQueryContext  = (*stmt)(nil)
	_ driver.NamedValueChecker = (*stmt)(nil)
)

// convertingStmt is a stmt of a driver that converts arguments by column: to
// have a ColumnConverter has no neutral answer.
type convertingStmt struct{ *stmt }

// ColumnConverter asks the driver.
func (st convertingStmt) ColumnConverter(i int) driver.ValueConverter {
	if st.h.use() != nil {
		return driver.DefaultParameterConverter // as in NumInput
	}
	defer st.h.unuse()
	returned := false
	defer st.h.guard(&returned)
	c := st.p.inner.(driver.ColumnConverter).ColumnConverter(i) //nolint:staticcheck // drivers that have it must keep working
	returned = true
	return c
}

func newStmt(h *handle, s *session, p *prepared) driver.Stmt {
	st := &stmt{h: h, s: s, p: p}
	if _, ok := p.inner.(driver.ColumnConverter); ok { //nolint:staticcheck // as above
		return convertingStmt{st}
	}
	return st
}

// NumInput asks the driver.
func (st *stmt) NumInput() int {
	if st.h.use() != nil {
		return -1 // its session was lost; the call itself says so
	}
	defer st.h.unuse()
	returned := false
	defer st.h.guard(&returned)
	n := st.p.inner.NumInput()
	returned = true
	return n
}

// Close closes the statement if this handle is on lease. If it is not, no
// wire may be touched: somebody else may be using the session. The statement
// of an idle handle is then closed by the session's next lease. That of a
// hollow one is not the handle's any more: it was left to the session, for
// adoption, when the session left.
func (st *stmt) Close() error {
	if st.h.use() == nil {
		defer st.h.unuse()
		if !st.s.statements.take(st.p, st.h) {
			return nil
		}
		returned := false
		defer st.h.guard(&returned)
		err := st.p.inner.Close()
		returned = true
		return err
	}
	st.s.statements.doom(st.p, st.h)
	return nil
}

// Exec is there for driver.Stmt; database/sql calls ExecContext.
func (st *stmt) Exec(args []driver.Value) (driver.Result, error) {
	return st.ExecContext(context.Background(), namedValues(args))
}

// Query is there for driver.Stmt; database/sql calls QueryContext.
func (st *stmt) Query(args []driver.Value) (driver.Rows, error) {
	return st.QueryContext(context.Background(), namedValues(args))
}

func namedValues(args []driver.Value) []driver.NamedValue {
	named := make([]driver.NamedValue, len(args))
	for i, v := range args {
		named[i] = driver.NamedValue{Ordinal: i + 1, Value: v}
	}
	return named
}

// ExecContext executes the statement.
func (st *stmt) ExecContext(ctx context.Context, args []driver.NamedValue) (res driver.Result, err error) {
	if err := st.h.use(); err != nil {
		return nil, err
	}
	defer st.h.unuse()
	o := operation{h: st.h, call: callExec, query: st.p.query}
	ctx = o.start(ctx)
	defer o.end(&err)
	res, err = execStatement(ctx, st.p.inner, args)
	o.returned = true
	return res, err
}

func execStatement(ctx context.Context, inner driver.Stmt, args []driver.NamedValue) (driver.Result, error) {
	if e, ok := inner.(driver.StmtExecContext); ok {
		return e.ExecContext(ctx, args)
	}
	values, err := plainValues(ctx, args)
	if err != nil {
		return nil, err
	}
	return inner.Exec(values) //nolint:staticcheck // it is all that this driver has
}

// QueryContext executes the statement as a query.
func (st *stmt) QueryContext(ctx context.Context, args []driver.NamedValue) (rows driver.Rows, err error) {
	if err := st.h.use(); err != nil {
		return nil, err
	}
	defer st.h.unuse()
	o := operation{h: st.h, call: callQuery, query: st.p.query}
	ctx = o.start(ctx)
	defer o.end(&err)
	rows, err = queryStatement(ctx, st.p.inner, args)
	o.returned = true
	if err != nil {
		return nil, err
	}
	return o.rows(rows), nil
}

func queryStatement(ctx context.Context, inner driver.Stmt, args []driver.NamedValue) (driver.Rows, error) {
	if q, ok := inner.(driver.StmtQueryContext); ok {
		return q.QueryContext(ctx, args)
	}
	values, err := plainValues(ctx, args)
	if err != nil {
		return nil, err
	}
	return inner.Query(values) //nolint:staticcheck // it is all that this driver has
}

// CheckNamedValue asks the driver's statement, or else its connection, which
// is the order in which database/sql looks for a checker.
func (st *stmt) CheckNamedValue(v *driver.NamedValue) error {
	if st.h.use() != nil {
		return driver.ErrSkip // as in NumInput
	}
	defer st.h.unuse()
	checker, ok := st.p.inner.(driver.NamedValueChecker)
	if !ok {
		checker = st.s.can.checker
	}
	return st.h.checkValue(checker, v)
}

// rows are a result set. Its query's span ends when it is closed.
type rows struct {
	inner  driver.Rows
	op     operation
	closed bool
	number uint64                // among those of its handle
	read   int64                 // rows read so far
	count  [1]attribute.KeyValue // how many these were, for the span: here it costs no allocation
	err    error                 // what ended the reading, if not the last row
	seen   bool                  // a row of this result set has shown what every column holds

	columns []string      // of this result set, as first asked for
	named   atomic.Uint32 // 0: not asked for; 1: columns is being written; 2: it may be read
}

var (
	_ driver.RowsNextResultSet              = (*rows)(nil)
	_ driver.RowsColumnTypeDatabaseTypeName = (*rows)(nil)
	_ driver.RowsColumnTypeLength           = (*rows)(nil)
	_ driver.RowsColumnTypeNullable         = (*rows)(nil)
	_ driver.RowsColumnTypePrecisionScale   = (*rows)(nil)
	_ driver.RowsColumnTypeScanType         = (*rows)(nil)
)

// Columns asks the driver. database/sql asks for them without its lock on the
// connection, too, to name a column that could not be scanned: then another
// call may be in flight. It takes for granted that there are as many as before.
func (r *rows) Columns() []string {
	l := &r.op.h.lease
	l.naming.Add(1) // before the look: see takeLocked
	defer l.naming.Add(-1)
	if l.isTaken() && r.op.h.isTaken() {
		if r.named.Load() == 2 {
			return r.columns
		}
		return nil
	}
	names := r.inner.Columns()
	if r.named.CompareAndSwap(0, 1) {
		r.columns = names
		r.named.Store(2)
	}
	return names
}

// Next reads a row. The lease counts as busy meanwhile, so that a slow server
// is told from a holder that does nothing.
func (r *rows) Next(dest []driver.Value) error {
	row, err := r.begin(r.read)
	if err != nil {
		return err
	}
	defer r.op.h.lease.endRow(row)
	err = r.inner.Next(dest)
	if err == nil && !r.seen {
		r.look(dest)
	}
	return r.advanced(err)
}

// begin begins to read a row, before which so many were read, and returns that
// number for lease.endRow, which ends it. A row after a report counts as the first,
// so that its time is noted.
func (r *rows) begin(row int64) (int64, error) {
	if err := r.op.h.useAs(inRow); err != nil {
		return 0, err // its session was lost, and may be somebody else's
	}
	if r.op.h.used() {
		row = 0
	}
	r.op.h.lease.beginRow(row)
	return row, nil
}

// look finds values that are result sets of their own, as some drivers have
// them: database/sql reads those without us. A column that is NULL tells nothing.
func (r *rows) look(dest []driver.Value) {
	r.seen = !slices.Contains(dest, nil)
	if slices.ContainsFunc(dest, isRows) {
		r.op.h.c.gate.unwrap(&r.op.h.lease)
	}
}

// isRows tells whether a value is a result set.
func isRows(v driver.Value) bool {
	_, ok := v.(driver.Rows)
	return ok
}

// advanced notes how a step to the next row ended.
func (r *rows) advanced(err error) error {
	switch err {
	case nil:
		if r.read++; r.read == 1 {
			r.op.firstRow()
		}
	case io.EOF:
	default:
		r.err = err
	}
	return err
}

// Close closes the result set and ends the operation.
func (r *rows) Close() error {
	defer r.end()
	if r.op.h.useAs(inRow) != nil { // the driver may read what is left
		return nil // its session was lost, and the result set with it
	}
	defer r.op.h.unuse()
	r.op.h.lease.usedBy(goroutine())
	returned := false
	defer func() {
		if !returned { // database/sql never gives the connection back then
			r.err = errPanicked
			r.op.h.lose()
		}
	}()
	err := r.inner.Close()
	returned = true
	if r.err == nil {
		r.err = err
	}
	return err
}

// HasNextResultSet asks the driver; without an answer there is none.
func (r *rows) HasNextResultSet() bool {
	if r.op.h.use() != nil {
		return false
	}
	defer r.op.h.unuse()
	n, ok := r.inner.(driver.RowsNextResultSet)
	return ok && n.HasNextResultSet()
}

// NextResultSet asks the driver; without an answer there is none.
func (r *rows) NextResultSet() error {
	row, err := r.begin(0) // the driver may read what is left
	if err != nil {
		return err
	}
	defer r.op.h.lease.endRow(row)
	r.named.Store(0)
	r.seen = false
	if n, ok := r.inner.(driver.RowsNextResultSet); ok {
		return n.NextResultSet()
	}
	return io.EOF
}

// ColumnTypeDatabaseTypeName asks the driver; without an answer it is empty.
func (r *rows) ColumnTypeDatabaseTypeName(i int) string {
	if r.op.h.use() != nil {
		return ""
	}
	defer r.op.h.unuse()
	if t, ok := r.inner.(driver.RowsColumnTypeDatabaseTypeName); ok {
		return t.ColumnTypeDatabaseTypeName(i)
	}
	return ""
}

// ColumnTypeLength asks the driver; without an answer it is not known.
func (r *rows) ColumnTypeLength(i int) (int64, bool) {
	if r.op.h.use() != nil {
		return 0, false
	}
	defer r.op.h.unuse()
	if t, ok := r.inner.(driver.RowsColumnTypeLength); ok {
		return t.ColumnTypeLength(i)
	}
	return 0, false
}

// ColumnTypeNullable asks the driver; without an answer it is not known.
func (r *rows) ColumnTypeNullable(i int) (nullable, known bool) {
	if r.op.h.use() != nil {
		return false, false
	}
	defer r.op.h.unuse()
	if t, ok := r.inner.(driver.RowsColumnTypeNullable); ok {
		return t.ColumnTypeNullable(i)
	}
	return false, false
}

// ColumnTypePrecisionScale asks the driver; without an answer it is not known.
func (r *rows) ColumnTypePrecisionScale(i int) (precision, scale int64, ok bool) {
	if r.op.h.use() != nil {
		return 0, 0, false
	}
	defer r.op.h.unuse()
	if t, ok := r.inner.(driver.RowsColumnTypePrecisionScale); ok {
		return t.ColumnTypePrecisionScale(i)
	}
	return 0, 0, false
}

// ColumnTypeScanType asks the driver; without an answer it is any.
func (r *rows) ColumnTypeScanType(i int) reflect.Type {
	if r.op.h.use() != nil {
		return reflect.TypeFor[any]()
	}
	defer r.op.h.unuse()
	if t, ok := r.inner.(driver.RowsColumnTypeScanType); ok {
		return t.ColumnTypeScanType(i)
	}
	return reflect.TypeFor[any]()
}
