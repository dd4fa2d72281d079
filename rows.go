package sqllease

import (
	"database/sql/driver"
	"io"
	"reflect"
	"slices"
	"sync/atomic"
	"time"

	"go.opentelemetry.io/otel/attribute"

	"github.com/sqllease/sqllease/internal/callstack"
	"github.com/sqllease/sqllease/internal/clock"
	"github.com/sqllease/sqllease/internal/statement"
)

// rows are a result set. Its query's span ends when it is closed.
type rows struct {
	inner    driver.Rows
	op       operation
	session  *session
	number   uint64                 // of the lease
	of       *prepared              // the statement that they are of; nil: none
	result   uint64                 // its number among the result sets of the session
	read     int64                  // rows read so far
	late     int64                  // how many were read before the watch had to know; -1: all
	count    *[1]attribute.KeyValue // how many these were, for the span; nil: there is none
	err      error                  // what ended the reading, if not the last row
	columns  []string               // of this result set, as first asked for
	named    atomic.Uint32          // 0: not asked for; 1: columns is being written; 2: it may be read
	row      uint32                 // of the row being read: how many were read before, of those that the watch has to know of
	timings  uint32                 // of how many rows the times were noted
	timeNext uint32                 // how many are read before the next of which they are
	alone    bool                   // the lease ends with them
	early    bool                   // the row being read is one that the watch need not know of
	times    bool                   // the times of the row being read are noted
	closed   bool
	asks     bool // the first row tells what the statement leaves on the session: it is op.known
	seen     bool // a row of this result set has shown what every column holds
}

// shownRows are rows whose query has a span: what is said in it of them costs no allocation
// of its own.
type shownRows struct {
	rows
	count [1]attribute.KeyValue
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
	l := r.op.lease
	l.naming.Add(1) // before the look: see takeLocked
	defer l.naming.Add(-1)
	if l.isTaken() && r.op.h.c.watch.isTaken(l) {
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
	if !r.beginEarly() {
		if err := r.begin(); err != nil {
			return err
		}
	}
	defer r.endRow()
	err := r.inner.Next(dest)
	if err == nil && !r.seen {
		r.look(dest)
	}
	return r.advanced(err)
}

// beginEarly begins to read a row in a lease that the watch has not looked at: nobody
// takes a session from such a lease, and all that has to be known of the row is whether
// it is being read. It says so before it looks whether the watch has been there, and the
// watch takes nothing until some time after that, when it can see who said so: see
// takeLocked. False: it has, or there is more to be done.
func (r *rows) beginEarly() bool {
	h, l := r.op.h, r.op.lease
	if h.number != r.number || !h.leased || h.session.late != nil {
		return false
	}
	l.early.advance()
	if l.watched.Load() || l.hand.Load()&handUse != inHand {
		l.early.back()
		return false
	}
	l.usedBy(callstack.Goroutine()) // rows may be read by another goroutine than asked for them
	r.early, r.times = true, r.isTimed()
	if r.times {
		l.stampBegin()
	}
	return true
}

// begin begins to read a row of a lease that the watch has looked at. The time is noted of
// the first one too, of the ends of the first ones, and then of some. One after a report
// counts as the first.
func (r *rows) begin() error {
	if err := r.use(inRow); err != nil {
		return err // its session was lost, and may be somebody else's
	}
	r.row = uint32(r.read - r.late)
	if r.op.h.c.used(r.op.h.session) || r.late < 0 {
		r.row, r.late = 0, r.read
	}
	r.op.lease.usedBy(callstack.Goroutine())
	if r.times = r.row == 0 || r.isTimed(); r.times {
		r.op.lease.stampBegin()
	}
	return nil
}

// endRow ends it.
func (r *rows) endRow() {
	h := r.op.h
	if r.early {
		r.early = false
		r.op.lease.early.advance()
		if r.times {
			r.timed(r.op.lease.stamp())
		}
		return
	}
	if !h.leased { // lost, by a panic
		return
	}
	h.unlockLate()
	r.op.lease.unuse()
	const first, often = 4, 16
	if r.times || r.row < first || r.row%often == 0 {
		r.timed(r.op.lease.stamp())
	}
}

const (
	worthTiming = 4 * time.Microsecond // of the query, for each row whose times are noted
	seldom      = 64                   // rows from one whose times are noted to the next, where they come faster
)

// isTimed tells whether the times of the row that comes are to be noted.
func (r *rows) isTimed() bool { return r.read >= int64(r.timeNext) }

// timed notes that the times of a row were noted, which ended now, and decides of which row
// they are noted next.
func (r *rows) timed(now clock.Instant) {
	r.timings++
	r.timeNext = uint32(r.read) //nolint:gosec // beyond four billion rows, more are timed
	if now.Sub(r.op.begun) < time.Duration(r.timings)*worthTiming {
		r.timeNext += seldom
	}
}

// use begins a use of the rows, see handle.use.
func (r *rows) use(as uint64) error {
	h := r.op.h
	if h.number != r.number {
		return driver.ErrBadConn
	}
	return h.useAs(as)
}

// look finds values that are result sets of their own, as some drivers have
// them: database/sql reads those without us. A column that is NULL tells nothing.
func (r *rows) look(dest []driver.Value) {
	if r.asks && len(dest) > 0 {
		r.answered(dest[0])
	}
	r.seen = !slices.Contains(dest, nil)
	if slices.ContainsFunc(dest, isRows) {
		r.op.h.c.unwrapped(r.op.h.session)
	}
}

// answered notes the first row of a query that tells whether it has a lock.
func (r *rows) answered(first any) {
	d := r.op.known
	r.asks = false
	if d.Effect.Act == statement.Leaves || isTrue(first) {
		r.op.lease.leaves(d, nil, r.op.h.c.cfg.dialect.Grammar)
	}
}

// isTrue tells whether a value is that of a server's true.
func isTrue(v any) bool {
	switch v := v.(type) {
	case int64:
		return v == 1
	case bool:
		return v
	case []byte:
		return string(v) == "1" || string(v) == "t"
	case string:
		return v == "1" || v == "t"
	}
	return false
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
		if r.of != nil {
			r.of.broken = true
		}
	}
	return err
}

// Close closes the result set and ends the operation.
func (r *rows) Close() error {
	defer r.end()
	if r.use(inRow) != nil { // the driver may read what is left
		return nil // its session was lost, and the result set with it
	}
	defer r.op.h.unuse()
	r.op.lease.usedBy(callstack.Goroutine())
	if r.isTimed() {
		r.op.lease.stampBegin()
	}
	returned := false
	defer func() {
		if !returned { // database/sql never gives the connection back then
			r.err = errPanicked
			r.op.h.lose()
		}
	}()
	err := r.inner.Close()
	returned = true
	r.op.h.single = r.alone // again: it is given back now
	if r.err == nil {
		r.err = err
	}
	r.session.met(r.op.ctx, r.err) // here, since another goroutine closes a session that was reclaimed
	return err
}

// HasNextResultSet asks the driver; without an answer there is none.
func (r *rows) HasNextResultSet() bool {
	if r.use(inUse) != nil {
		return false
	}
	defer r.op.h.unuse()
	n, ok := r.inner.(driver.RowsNextResultSet)
	return ok && n.HasNextResultSet()
}

// NextResultSet asks the driver; without an answer there is none.
func (r *rows) NextResultSet() error {
	r.late = -1 // the driver may read what is left, and its time is noted
	if err := r.begin(); err != nil {
		return err
	}
	defer r.endRow()
	r.named.Store(0)
	r.seen = false
	if n, ok := r.inner.(driver.RowsNextResultSet); ok {
		return n.NextResultSet()
	}
	return io.EOF
}

// ColumnTypeDatabaseTypeName asks the driver; without an answer it is empty.
func (r *rows) ColumnTypeDatabaseTypeName(i int) string {
	if r.use(inUse) != nil {
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
	if r.use(inUse) != nil {
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
	if r.use(inUse) != nil {
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
	if r.use(inUse) != nil {
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
	if r.use(inUse) != nil {
		return reflect.TypeFor[any]()
	}
	defer r.op.h.unuse()
	if t, ok := r.inner.(driver.RowsColumnTypeScanType); ok {
		return t.ColumnTypeScanType(i)
	}
	return reflect.TypeFor[any]()
}
