package sqllease

import (
	"cmp"
	"context"
	"database/sql/driver"
	"sync/atomic"
	"time"

	"github.com/sqllease/sqllease/internal/bare"
	"github.com/sqllease/sqllease/internal/callstack"
	"github.com/sqllease/sqllease/internal/clock"
)

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
	traced := h.c.tracing.startTx(ctx, h.waited)
	if traced.span != nil {
		h.waited = nil
	}
	ctx = traced.ctx
	o := operation{h: h, call: callBegin}
	began := false
	defer func() {
		if !began {
			h.c.tracing.endTx(&traced, "not begun", cmp.Or(err, errPanicked), o.retried)
		}
	}()
	callCtx := o.start(ctx)
	defer o.end(&err)
	s := h.session
	inner, err := bare.Begin(callCtx, s.conn, opts)
	o.returned = true
	if err != nil {
		return nil, err
	}
	began = true
	s.statements.began()
	s.reads = opts.ReadOnly
	begun := &tx{h: h, number: h.number, inner: inner, traced: traced}
	h.c.tracing.endTx(s.lease.beginTx(&begun.traced, clock.Now()), "lost", nil, false) // one whose end has not been seen
	return begun, nil
}

// tx is a transaction on a handle.
type tx struct {
	h      *handle
	number uint64 // of the lease
	inner  driver.Tx
	traced txSpan
}

// use begins a use of the transaction, see handle.use.
func (t *tx) use() error {
	if t.h.number != t.number {
		return driver.ErrBadConn
	}
	return t.h.use()
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
// loses it by an error, which database/sql keeps to itself.
func (t *tx) Rollback() error {
	loses := t.losesConn()
	err := t.finish(callRollback, driver.Tx.Rollback)
	if !loses || isBad(err) {
		return err
	}
	t.h.ends = true
	return &lostTx{}
}

// lostTx is the error by which a connection is lost. database/sql asks of the error of a
// Rollback whether it is driver.ErrBadConn: first in order not to close the statements of
// the transaction, which are to be closed, and from then on in order not to go on with the
// connection.
type lostTx struct{ asked atomic.Bool }

func (*lostTx) Error() string { return driver.ErrBadConn.Error() }

// Is answers errors.Is.
func (e *lostTx) Is(target error) bool { return target == driver.ErrBadConn && e.asked.Swap(true) }

// losesConn tells whether database/sql itself rolls back, and would drop the
// connection if it saw the driver.
func (t *tx) losesConn() bool {
	if t.traced.ctx.Err() == nil || t.use() != nil {
		return false
	}
	defer t.h.unuse()
	if t.h.session.can.KeepsAfterTx() {
		return false
	}
	return callstack.Capture(1).Stack().On(txGoroutine)
}

func (t *tx) finish(c call, do func(driver.Tx) error) (err error) {
	if err := t.use(); err != nil {
		return err
	}
	defer t.h.unuse()
	s := t.h.session
	lease, statements := &s.lease, &s.statements
	// The context of the transaction may have ended, which is no reason for
	// its span to have no parent.
	o := operation{h: t.h, call: c}
	o.start(lasting{t.traced.ctx})
	defer func() { // after the call's own span
		if o.returned {
			t.h.c.tracing.endTx(lease.endTx(&t.traced, clock.Now()), outcome(c, err), err, false)
		}
	}()
	defer o.end(&err)
	err = do(t.inner)
	o.returned = true
	s.reads = false
	statements.ended()
	lease.endedTx(c == callCommit && err == nil, t.h.c.cfg.dialect.Grammar)
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
