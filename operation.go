package sqllease

import (
	"context"
	"database/sql/driver"
	"time"

	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/trace"

	"github.com/sqllease/sqllease/internal/clock"
)

// operation is one driver call, or, for a query, the time until its rows are
// closed. It keeps the lease's state, the span and the metrics in step.
type operation struct {
	h        *handle
	lease    *lease
	query    string
	known    *described // of query; nil: not looked up yet
	begun    clock.Instant
	rested   clock.Instant // when the call before it ended, in the lease; zero: there was none
	ctx      context.Context
	span     trace.Span // nil: none, or not yet
	decline  *decline   // nil: this call cannot be declined
	call     call
	asked    bool // whether there is to be a span has been decided
	returned bool // the driver returned; set by the caller, false in a panic
	reading  bool // the operation goes on until its rows are closed
	retried  bool // it failed, and database/sql makes it again
}

// used tells the watch that a lease which was reported as unused is used,
// and whether it was.
func (c *Connector) used(s *session) (told bool) {
	if told = s.lease.watch.Load(); told {
		c.watch.again(s, clock.Now())
	}
	return told
}

// start begins the operation. Its caller has set what it is: h, call, query and decline.
func (o *operation) start(ctx context.Context) context.Context {
	o.begun, o.ctx, o.lease = clock.Now(), ctx, &o.h.session.lease
	if o.decline == nil || o.decline.goesAhead(o.h.c.cfg.Comments != CommentsOff) {
		ctx = o.startSpan(ctx, false)
	}
	o.rested = o.lease.enter(o.call, o.query, o.begun) // after the application's code, which may not return
	o.h.c.used(o.h.session)
	return ctx
}

// startSpan starts the operation's span, unless that was decided before; late,
// once the call is over, with the time at which it began.
func (o *operation) startSpan(ctx context.Context, late bool) context.Context {
	if o.asked {
		return ctx
	}
	o.asked = true
	t := &o.h.c.tracing
	if !t.mayWant(o.isTraced(ctx), o.call) {
		return ctx
	}
	o.h.opens()
	if !t.passes(ctx, o.call, o.query) {
		return ctx
	}
	name, options := o.shown()
	if late {
		options = append(options, trace.WithTimestamp(o.begun.Time()))
	}
	options = t.linked(options, o.h.waited)
	tx := o.lease.tx
	if o.query == "" {
		tx = nil
	}
	if tx != nil && tx.adopts(ctx) {
		ctx, tx = trace.ContextWithSpan(ctx, tx.span), nil
	}
	ctx, o.span = t.start(ctx, name, options...)
	if tx != nil {
		t.link(o.span, tx.span)
	}
	return ctx
}

// isTraced tells whether its caller is in a trace. A lease of a single call is acquired with
// the context of that call.
func (o *operation) isTraced(ctx context.Context) bool {
	if o.h.single {
		return o.lease.span.IsValid()
	}
	return isTraced(ctx)
}

// shown returns the name and the options of its span.
func (o *operation) shown() (string, []trace.SpanStartOption) {
	id := o.h.c.identity.Load()
	if o.query == "" {
		return o.call.String(), id.client
	}
	s := o.statement()
	if o.call == callPrepare {
		return "prepare " + s.name, s.in(id).start
	}
	return s.name, s.in(id).start
}

// statement is what is known of its statement, looked up once.
func (o *operation) statement() *described {
	if o.known == nil {
		o.known = o.h.c.summaries.Of(o.query)
	}
	return o.known
}

// end ends the call; deferred, so that it runs in a panic too.
func (o *operation) end(result *error) {
	err := *result
	if o.decline != nil && o.returned {
		o.decline.learn(err)
	}
	if o.reading {
		return // a copy of o, in the rows, goes on
	}
	now := clock.Now()
	if !o.h.single || !o.asked || o.call == callPrepare { // else it is in this call until it ends, but for some nanoseconds
		o.lease.leave(now)
	}
	switch {
	case !o.returned:
		err = errPanicked
		o.h.lose()
	case err != nil:
		o.failed(err, now)
		o.retried = o.isRetried(err)
	default:
		o.heard(now)
		if o.call == callExec && !o.h.c.role.wrote.Load() && o.query != "" && o.statement().Writes() {
			o.h.c.role.wrote.Store(true)
		}
	}
	if err == driver.ErrSkip {
		return // a span that was started, since the driver had never declined, is not ended, and so not seen
	}
	o.finish(now, err, nil)
	o.linked()
}

// heard notes that the server was heard of. The first call of a lease that it answers says
// what idle time the connection has survived.
func (o *operation) heard(now clock.Instant) {
	s := o.h.session
	if s.hasSpoken() {
		return
	}
	s.spoke = s.Hold()
	if idle := o.begun.Sub(s.HeardOf()); idle >= leastIdle {
		o.h.c.learned.survived(idle, now)
	}
}

// failed notes what the call met with. If others have ended the connection, its idle time
// before a lease teaches something; the time between two calls of a lease only that
// connections break which were used a moment ago.
func (o *operation) failed(err error, now clock.Instant) {
	s := o.h.session
	how, answered := s.met(o.ctx, err)
	switch {
	case answered:
		o.heard(now)
	case how == "", s.lease.raw: // what the application did with the driver's own connection is not known
	case !s.hasSpoken():
		o.h.c.foundDead(s, how, s.HeardOf(), o.begun)
	case o.begun.Sub(o.rested) < leastIdle:
		o.h.c.foundDead(s, how, o.rested, o.begun)
	}
}

// linked notes that its span has the link to the acquire, which no other is to have. A call
// that the driver has declined has none.
func (o *operation) linked() {
	if o.span != nil && o.h.waited != nil {
		o.h.waited = nil
	}
}

// rows ends the call, and lets the operation go on until its rows are closed, which the
// application reads when it will. of is the prepared statement that they are of, if any.
func (o *operation) rows(inner driver.Rows, of *prepared) *rows {
	o.startSpan(o.ctx, true)
	o.linked()
	o.reading = true
	r := o.newRows()
	r.inner, r.op, r.session, r.number = inner, *o, o.h.session, o.h.number
	r.of, r.late, r.alone = of, -1, o.h.single
	o.h.single = false
	now := clock.Now()
	o.heard(now)
	o.lease.openResult(r, now)
	o.h.c.watch.prove(o.lease, now)
	return r
}

func (o *operation) newRows() *rows {
	if !o.h.c.tracing.records(o.span) {
		return &rows{}
	}
	shown := &shownRows{}
	shown.rows.count = &shown.count
	return &shown.rows
}

// end ends the operation of a query.
func (r *rows) end() {
	if r.closed {
		return
	}
	r.closed = true
	now := clock.Now()
	if r.op.h.leased && r.op.h.number == r.number { // else the lease is over, and its record another's
		r.op.lease.closeResult(r, now)
		r.op.h.c.used(r.op.h.session)
	}
	r.op.finish(now, r.err, r)
}

// firstRow notes that the first row came, unless it came at once.
func (o *operation) firstRow() {
	if o.span == nil || clock.Now().Sub(o.begun) < brief {
		return
	}
	defer o.h.c.tracing.panicked.survive()
	if o.span.IsRecording() {
		o.span.AddEvent(eventFirstRow)
	}
}

// finish ends the span and records the metrics. rows is nil where there are
// none to count.
func (o *operation) finish(now clock.Instant, err error, rows *rows) {
	o.startSpan(o.ctx, true)
	var said []attribute.KeyValue
	if rows != nil && rows.count != nil {
		rows.count[0] = keyRows.Int64(rows.read)
		said = rows.count[:]
	}
	o.h.c.tracing.endCall(o.ctx, o.span, err, o.retried, said)
	o.h.c.metrics.operated(o, now.Sub(o.begun), err, rows)
}

// isRetried tells whether database/sql makes a call again that ended so, on another
// connection: it does for calls of a *sql.DB, and twice. The lease is still held.
func (o *operation) isRetried(err error) bool {
	if !isBad(err) || o.h.tries >= attempts-1 || o.ctx.Err() != nil {
		return false
	}
	told := o.lease.stack.Told(telling)
	return told&isSingle != 0 || told&isBegin != 0 && o.call == callBegin
}

// operated records a finished operation.
func (m *metrics) operated(o *operation, took time.Duration, err error, rows *rows) {
	defer m.panicked.survive()
	if !m.duration.Enabled(o.ctx) && (rows == nil || !m.returned.Enabled(o.ctx)) {
		return
	}
	id := m.id.Load()
	name, options := o.call.String(), id.calls[o.call]
	if o.query != "" && o.call != callPrepare {
		name, options = o.statement().Operation, o.statement().in(id).record
	}
	if err != nil {
		options = m.failed(name, err)
	}
	record := m.own.record(o.ctx, options)
	m.duration.Record(o.ctx, took.Seconds(), record...)
	if rows != nil {
		ctx := o.ctx
		if rows.read < manyToRead {
			ctx = noExample
		}
		m.returned.Record(ctx, rows.read, record...)
	}
}

// manyToRead is how many rows make a query an example of one that returns many.
const manyToRead = 100
