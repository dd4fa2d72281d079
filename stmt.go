package sqllease

import (
	"context"
	"database/sql/driver"

	"github.com/sqllease/sqllease/internal/bare"
	"github.com/sqllease/sqllease/internal/callstack"
	"github.com/sqllease/sqllease/internal/drivers"
)

// Prepare is there for driver.Conn; database/sql calls PrepareContext.
func (h *handle) Prepare(query string) (driver.Stmt, error) {
	return h.PrepareContext(context.Background(), query)
}

// PrepareContext prepares a statement, unless database/sql only prepares a *sql.Stmt
// again, and the session has its statement already.
func (h *handle) PrepareContext(ctx context.Context, query string) (st driver.Stmt, err error) {
	if err := h.begun(ctx); err != nil {
		return nil, err
	}
	defer h.unuse()
	s := h.session
	fresh := !movesStatement(callstack.Capture(0))
	if !fresh {
		if p := s.statements.share(h, query); p != nil {
			h.c.counts.shared.Add(1)
			return newStmt(h, p), nil
		}
	}
	o := operation{h: h, call: callPrepare, query: query}
	ctx = o.start(ctx)
	defer o.end(&err)
	inner, err := s.can.Prepare(ctx, s.conn, query)
	if drivers.IsFull(err) && h.c.makeRoom(s) {
		inner, err = s.can.Prepare(ctx, s.conn, query)
	}
	o.returned = true
	if err != nil {
		return nil, err
	}
	p := s.statements.add(h, s, query, inner, h.c.summaries.Of(query), fresh)
	return newStmt(h, p), nil
}

// stmt is a prepared statement under a handle, on the session that the handle had when
// it was prepared: the handle's ticket takes no other while it has any.
type stmt struct {
	h      *handle
	p      *prepared
	closed bool
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
	if st.use() != nil {
		return driver.DefaultParameterConverter // as in NumInput
	}
	defer st.h.unuse()
	returned := false
	defer st.h.guard(&returned)
	c := st.p.inner.(driver.ColumnConverter).ColumnConverter(i) //nolint:staticcheck // drivers that have it must keep working
	returned = true
	return c
}

func newStmt(h *handle, p *prepared) driver.Stmt {
	h.statements++
	st := &stmt{h: h, p: p}
	if _, ok := p.inner.(driver.ColumnConverter); ok { //nolint:staticcheck // as above
		return convertingStmt{st}
	}
	return st
}

// use begins a use of the statement, see handle.use.
func (st *stmt) use() error {
	if st.h.session != st.p.of {
		return driver.ErrBadConn
	}
	return st.h.use()
}

// NumInput asks the driver.
func (st *stmt) NumInput() int {
	if st.use() != nil {
		return -1 // its session was lost; the call itself says so
	}
	defer st.h.unuse()
	returned := false
	defer st.h.guard(&returned)
	n := st.p.inner.NumInput()
	returned = true
	return n
}

// Close closes the statement if its handle is on lease. If it is not, no wire may be
// touched: somebody else may have the session. Then the statement is left to the
// session, which closes it unless database/sql closes it only because it drops the
// connection.
func (st *stmt) Close() error {
	if st.closed {
		return nil
	}
	st.closed = true
	st.h.statements--
	texts := &st.h.c.texts
	if st.use() != nil {
		texts.leave(st.p, st.h, !dropsConn(callstack.Capture(0)), false)
		return nil
	}
	defer st.h.unuse()
	if !texts.leave(st.p, st.h, true, true) {
		return nil
	}
	returned := false
	defer st.h.guard(&returned)
	l := &st.p.of.lease
	l.pause()
	err := st.p.inner.Close()
	l.resume()
	returned = true
	return err
}

// ran notes that the statement was run, and how that ended. Where it failed in any way,
// it is not shared again.
func (st *stmt) ran(err error) {
	p := st.p
	if err != nil {
		p.broken = true
	}
	if p.text.moves {
		p.of.statements.state++
	}
}

// Exec is there for driver.Stmt; database/sql calls ExecContext.
func (st *stmt) Exec(args []driver.Value) (driver.Result, error) {
	return st.ExecContext(context.Background(), bare.NamedValues(args))
}

// Query is there for driver.Stmt; database/sql calls QueryContext.
func (st *stmt) Query(args []driver.Value) (driver.Rows, error) {
	return st.QueryContext(context.Background(), bare.NamedValues(args))
}

// ExecContext executes the statement.
func (st *stmt) ExecContext(ctx context.Context, args []driver.NamedValue) (res driver.Result, err error) {
	if err := st.use(); err != nil {
		return nil, err
	}
	defer st.h.unuse()
	o := operation{h: st.h, call: callExec, query: st.p.text.query}
	ctx = o.start(ctx)
	defer o.end(&err)
	res, err = bare.ExecStatement(ctx, st.p.inner, args)
	o.returned = true
	st.ran(err)
	st.leaves(err, nil)
	return st.p.of.result(st.h, res), err
}

// QueryContext executes the statement as a query.
func (st *stmt) QueryContext(ctx context.Context, args []driver.NamedValue) (rows driver.Rows, err error) {
	if err := st.use(); err != nil {
		return nil, err
	}
	defer st.h.unuse()
	o := operation{h: st.h, call: callQuery, query: st.p.text.query}
	ctx = o.start(ctx)
	defer o.end(&err)
	rows, err = bare.QueryStatement(ctx, st.p.inner, args)
	o.returned = true
	st.ran(err)
	if err != nil {
		st.leaves(err, nil)
		return nil, err
	}
	answer := o.rows(rows, st.p)
	st.leaves(nil, answer)
	return newRows(answer), nil
}

// leaves notes what the statement does to its session.
func (st *stmt) leaves(err error, answer *rows) {
	if does := st.p.text.does; st.h.session.lease.left != nil || does.Effect.Lasts() {
		st.h.left(does, err, answer)
	}
}

// CheckNamedValue asks the driver's statement, or else its connection, which
// is the order in which database/sql looks for a checker.
func (st *stmt) CheckNamedValue(v *driver.NamedValue) error {
	st.h.checks(v)
	if st.use() != nil {
		return driver.ErrSkip // as in NumInput
	}
	defer st.h.unuse()
	checker, ok := st.p.inner.(driver.NamedValueChecker)
	if !ok {
		checker = st.p.of.can.Checker
	}
	return st.h.checkValue(checker, v)
}
