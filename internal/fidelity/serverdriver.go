package fidelity

import (
	"context"
	"database/sql/driver"
	"errors"
	"fmt"
	"io"
	"runtime"
	"time"
)

// deed is one thing that a member of a crowd does. It goes with the context, so that the
// driver knows for whom a call is, and what is to happen to it.
type deed struct {
	name     string
	lease    int
	acquires bool   // it may get any session; else it has one
	taken    bool   // it uses a statement of the pool's in a transaction
	keeps    bool   // it keeps the session that it gets
	once     bool   // database/sql does not try it again with another
	born     int    // the server's time at which the *sql.Stmt was made that it uses; zero: none
	plant    plant  // what goes wrong
	slow     string // the kind of call in which it stays until it is let go, or cancelled
	let      chan struct{}

	// These are guarded by server.mu.
	stays bool // it is in that call
	bad   int  // how often the driver answered it with driver.ErrBadConn
}

// plant is what goes wrong in calls of a kind.
type plant struct {
	kind  string
	err   error
	after bool // the server does what it is told, and the answer is lost
	kills bool // the session is of no use from then on, and its driver knows
	times int
}

type deedKey struct{}

func withDeed(ctx context.Context, d *deed) context.Context {
	return context.WithValue(ctx, deedKey{}, d)
}

// deedOf is nil where nobody says for whom a call is.
func deedOf(ctx context.Context) *deed {
	d, _ := ctx.Value(deedKey{}).(*deed)
	return d
}

func (d *deed) String() string {
	if d == nil {
		return "somebody"
	}
	return fmt.Sprintf("%s, lease %d", d.name, d.lease)
}

func (d *deed) since() int {
	if d == nil {
		return 0
	}
	return d.born
}

// stay keeps a slow call in flight. A session that is no more answers at once.
func (d *deed) stay(ctx context.Context, c *session, kind string) error {
	if d == nil || d.slow != kind {
		return nil
	}
	s := c.s
	s.mu.Lock()
	gone := c.goneLocked()
	d.stays = !gone
	s.mu.Unlock()
	if gone {
		return nil
	}
	d.slow = ""
	defer func() {
		s.mu.Lock()
		d.stays = false
		s.mu.Unlock()
	}()
	select {
	case <-d.let:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// isIn tells whether it is in a slow call.
func (d *deed) isIn(s *server) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return d.stays
}

// planted is what goes wrong in a call, if anything does.
func (d *deed) planted(kind string) (p plant, ok bool) {
	if d == nil || d.plant.times == 0 || d.plant.kind != kind {
		return p, false
	}
	d.plant.times--
	return d.plant, true
}

// backend is the connector of a server, and its driver.
type backend struct{ s *server }

var (
	_ driver.Connector = backend{}
	_ driver.Driver    = backend{}
)

func (b backend) Connect(ctx context.Context) (driver.Conn, error) {
	c, err := b.s.dial(deedOf(ctx))
	if err != nil {
		_ = b.s.take(ctx)
		return nil, err
	}
	c.over = ctx.Err
	return c, nil
}

func (b backend) Driver() driver.Driver            { return b }
func (b backend) Open(string) (driver.Conn, error) { return b.Connect(context.Background()) }

var (
	_ driver.ConnBeginTx        = (*session)(nil)
	_ driver.ConnPrepareContext = (*session)(nil)
	_ driver.ExecerContext      = (*session)(nil)
	_ driver.QueryerContext     = (*session)(nil)
	_ driver.Pinger             = (*session)(nil)
	_ driver.SessionResetter    = (*session)(nil)
	_ driver.Validator          = (*session)(nil)
)

// enter begins a call on a session.
func (c *session) enter(d *deed, kind string) {
	s := c.s
	s.mu.Lock()
	defer s.mu.Unlock()
	if c.call != "" {
		s.faultLocked("session %d: %s of %s, during %s", c.id, kind, d, c.call)
	}
	if c.closed {
		s.faultLocked("session %d: %s of %s, after it was closed", c.id, kind, d)
	}
	c.call = fmt.Sprintf("%s of %s", kind, d)
	if s.logs {
		s.calls = append(s.calls, fmt.Sprintf("session %d: %s", c.id, c.call))
	}
	if d == nil {
		return
	}
	if c.lease != 0 && c.lease != d.lease && !s.ended[c.lease] {
		s.faultLocked("session %d: %s of %s, and it is that of lease %d", c.id, kind, d, c.lease)
	}
	home := s.homes[d.lease]
	if home != nil && home != c && !d.acquires {
		s.faultLocked("session %d: %s of %s, which has session %d", c.id, kind, d, home.id)
	}
	c.lease, s.homes[d.lease] = d.lease, c
}

// leave ends it. Whoever does not keep the session, or got an error in place of it, may
// have given it back before anybody else can say so.
func (c *session) leave(d *deed, err error) {
	c.s.mu.Lock()
	defer c.s.mu.Unlock()
	c.call = ""
	if d == nil {
		return
	}
	if errors.Is(err, driver.ErrBadConn) {
		d.bad++
	}
	if d.acquires && (err != nil || !d.keeps) {
		c.lease = 0
		delete(c.s.homes, d.lease) // it may get another
	}
}

// do makes a call: it may take long, and go wrong before and after.
func (c *session) do(ctx context.Context, kind string, work func() error) (err error) {
	d := deedOf(ctx)
	c.enter(d, kind)
	defer func() { c.leave(d, err) }()
	if err := d.stay(ctx, c, kind); err != nil {
		c.kill()
		return err
	}
	if err := c.s.take(ctx); err != nil {
		c.kill()
		return err
	}
	if err := c.work(func() error { return nil }); err != nil {
		return err
	}
	p, wrong := d.planted(kind)
	if wrong && p.kills {
		c.kill()
	}
	if wrong && !p.after {
		return p.err
	}
	if err := c.work(work); err != nil || !wrong {
		return err
	}
	return p.err
}

// take takes the time that a call takes.
func (s *server) take(ctx context.Context) error {
	if s.yields {
		runtime.Gosched()
	}
	if s.takes == 0 {
		return nil
	}
	select {
	case <-time.After(s.takes):
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// work has the server do something.
func (c *session) work(work func() error) error {
	c.s.mu.Lock()
	defer c.s.mu.Unlock()
	if c.goneLocked() {
		return driver.ErrBadConn
	}
	return work()
}

// kill makes a session one of no use, as drivers do where a call was cut off.
func (c *session) kill() {
	c.s.mu.Lock()
	defer c.s.mu.Unlock()
	c.dead = true
	c.forgetLocked()
}

func (c *session) Close() error {
	c.enter(nil, "Close")
	c.s.mu.Lock()
	defer c.s.mu.Unlock()
	c.closed, c.call = true, ""
	c.s.closes = append(c.s.closes, c.id)
	c.forgetLocked()
	return nil
}

// ResetSession notices nothing of the server.
func (c *session) ResetSession(ctx context.Context) (err error) {
	d := deedOf(ctx)
	c.enter(d, "reset")
	defer func() { c.leave(d, err) }()
	if err := d.stay(ctx, c, "reset"); err != nil {
		c.kill()
		return err
	}
	if p, wrong := d.planted("reset"); wrong {
		return p.err
	}
	return nil
}

// IsValid knows only what the driver knows.
func (c *session) IsValid() bool {
	c.enter(nil, "IsValid")
	defer c.leave(nil, nil)
	c.s.mu.Lock()
	defer c.s.mu.Unlock()
	return !c.dead
}

func (c *session) Ping(ctx context.Context) error {
	return c.do(ctx, "ping", func() error { return nil })
}

func (c *session) ExecContext(ctx context.Context, text string, _ []driver.NamedValue) (driver.Result, error) {
	err := c.do(ctx, "exec", func() error { _, err := c.runLocked(text); return err })
	return c.result(), err
}

func (c *session) QueryContext(ctx context.Context, text string, _ []driver.NamedValue) (driver.Rows, error) {
	r := &answers{c: c, d: deedOf(ctx)}
	err := c.do(ctx, "query", func() (err error) { r.row, err = c.runLocked(text); return err })
	return r, err
}

// Prepare is there for driver.Conn.
func (c *session) Prepare(text string) (driver.Stmt, error) {
	return c.PrepareContext(context.Background(), text)
}

func (c *session) PrepareContext(ctx context.Context, text string) (st driver.Stmt, err error) {
	err = c.do(ctx, "prepare", func() error { st = c.prepareLocked(text); return nil })
	return st, err
}

// Begin is there for driver.Conn.
func (c *session) Begin() (driver.Tx, error) {
	return c.BeginTx(context.Background(), driver.TxOptions{})
}

func (c *session) BeginTx(ctx context.Context, _ driver.TxOptions) (driver.Tx, error) {
	return bounds{c}, c.do(ctx, "begin", func() error { return c.transactLocked("BEGIN") })
}

// raw is what an application does with the driver's own connection.
func (c *session) raw(text string) error {
	return c.do(context.Background(), "raw", func() error { _, err := c.runLocked(text); return err })
}

// bounds are the driver's transaction.
type bounds struct{ c *session }

func (b bounds) Commit() error   { return b.end("COMMIT") }
func (b bounds) Rollback() error { return b.end("ROLLBACK") }

// end has no context, so that what goes wrong in it is planted for the lease.
func (b bounds) end(text string) (err error) {
	s := b.c.s
	defer func() {
		if errors.Is(err, driver.ErrBadConn) {
			s.mu.Lock()
			s.badEnds++
			s.mu.Unlock()
		}
	}()
	return b.c.do(context.Background(), text, func() error {
		if err := s.ends[b.c.lease]; err != nil {
			delete(s.ends, b.c.lease)
			return err
		}
		return b.c.transactLocked(text)
	})
}

var (
	_ driver.StmtExecContext  = (*statement)(nil)
	_ driver.StmtQueryContext = (*statement)(nil)
)

func (st *statement) NumInput() int { return -1 }

// Close may come for a session that is closed: database/sql does so.
func (st *statement) Close() error {
	s := st.c.s
	s.mu.Lock()
	if st.c.closed {
		s.mu.Unlock()
		return nil
	}
	s.mu.Unlock()
	st.c.enter(nil, "close of a statement")
	defer st.c.leave(nil, nil)
	s.mu.Lock()
	defer s.mu.Unlock()
	s.tick++
	st.closed = true
	delete(st.c.statements, st)
	return nil
}

// run executes it; one that was closed must not come.
func (st *statement) run(ctx context.Context, kind string) (a answer, err error) {
	err = st.c.do(ctx, kind, func() (err error) {
		if st.closed {
			st.c.s.faultLocked("%s of %s: the statement is closed", kind, deedOf(ctx))
		}
		a, err = st.runLocked(deedOf(ctx))
		return err
	})
	return a, err
}

func (st *statement) ExecContext(ctx context.Context, _ []driver.NamedValue) (driver.Result, error) {
	_, err := st.run(ctx, "exec")
	return st.c.result(), err
}

func (st *statement) QueryContext(ctx context.Context, _ []driver.NamedValue) (driver.Rows, error) {
	a, err := st.run(ctx, "query")
	return &answers{c: st.c, d: deedOf(ctx), row: a}, err
}

// Exec is there for driver.Stmt, as is Query.
func (st *statement) Exec([]driver.Value) (driver.Result, error) {
	return st.ExecContext(context.Background(), nil)
}

func (st *statement) Query([]driver.Value) (driver.Rows, error) {
	return st.QueryContext(context.Background(), nil)
}

// answers are two rows, which are alike.
type answers struct {
	c    *session
	d    *deed
	row  answer
	read int
}

func (r *answers) Columns() []string { return []string{"database", "setting"} }

func (r *answers) Close() error {
	r.c.enter(nil, "close of rows")
	defer r.c.leave(nil, nil)
	return nil
}

func (r *answers) Next(dest []driver.Value) (err error) {
	r.c.enter(nil, "next")
	defer r.c.leave(nil, nil)
	if r.read++; r.read > 2 {
		return io.EOF
	}
	if p, wrong := r.d.planted("next"); wrong {
		return p.err
	}
	dest[0], dest[1] = r.row[0], r.row[1]
	return nil
}

// result is a result of which the server knows, or one that asks its session.
func (c *session) result() driver.Result {
	if !c.s.asks {
		return driver.RowsAffected(1)
	}
	return asking{c}
}

type asking struct{ c *session }

func (r asking) LastInsertId() (int64, error) { return r.RowsAffected() }

// RowsAffected may come when somebody else has the session, or nobody, and after its end.
func (r asking) RowsAffected() (int64, error) {
	s := r.c.s
	s.mu.Lock()
	closed := r.c.closed
	s.mu.Unlock()
	if closed {
		return 1, nil
	}
	r.c.enter(nil, "a result asks")
	defer r.c.leave(nil, nil)
	if s.yields {
		runtime.Gosched()
	}
	return 1, nil
}
