package sqllease

import (
	"database/sql/driver"
	"sync"
	"sync/atomic"
)

// session is the real connection to the server. A gate's session is always in
// exactly one place.
type session struct {
	conn driver.Conn
	can  capabilities // of conn; read-only
	life lifetime     // read-only once the session is handed out

	node   node[session] // guarded by gate.mu: its place among the idle or the spare sessions
	place  place         // guarded by gate.mu
	handle *handle       // guarded by gate.mu: the handle it is under; nil when spare, in transit or with the closer
	used   instant       // guarded by gate.mu: its last wire traffic, as far as the gate saw it
	reason closeReason   // guarded by gate.mu: why it is being closed

	statements statements
}

// place is where a session is.
type place uint8

const (
	inTransit place = iota // with the goroutine that dialled it, or a waiter that was served it
	onLease                // under a handle that is on lease
	isIdle                 // under a handle in database/sql's free list
	isSpare                // under no handle, ready for the next caller
	atCloser               // to be closed, or being closed
)

// closeReason says why a session is closed.
type closeReason uint8

const (
	closedExpired   closeReason = iota // it reached its expiry
	closedBad                          // the driver said so, or it failed its reset
	closedDropped                      // database/sql dropped it: its own idle limits or lifetime
	closedLimit                        // the gate's limit was lowered
	closedReclaimed                    // its lease was idle in hand for too long
	closedShutdown                     // the connector or the *sql.DB was closed
	closeReasons
)

var closeReasonNames = [closeReasons]string{"expired", "bad", "dropped", "limit", "reclaimed", "shutdown"}

func (r closeReason) String() string { return closeReasonNames[r] }

// capabilities are a driver connection's optional interfaces, looked up once.
type capabilities struct {
	pinger         driver.Pinger
	execerContext  driver.ExecerContext
	execer         driver.Execer //nolint:staticcheck // drivers that still have it must keep working
	queryerContext driver.QueryerContext
	queryer        driver.Queryer //nolint:staticcheck // as above
	preparer       driver.ConnPrepareContext
	beginner       driver.ConnBeginTx
	resetter       driver.SessionResetter
	validator      driver.Validator
	checker        driver.NamedValueChecker
}

func capabilitiesOf(conn driver.Conn) (c capabilities) {
	c.pinger, _ = conn.(driver.Pinger)
	c.execerContext, _ = conn.(driver.ExecerContext)
	c.execer, _ = conn.(driver.Execer) //nolint:staticcheck // as above
	c.queryerContext, _ = conn.(driver.QueryerContext)
	c.queryer, _ = conn.(driver.Queryer) //nolint:staticcheck // as above
	c.preparer, _ = conn.(driver.ConnPrepareContext)
	c.beginner, _ = conn.(driver.ConnBeginTx)
	c.resetter, _ = conn.(driver.SessionResetter)
	c.validator, _ = conn.(driver.Validator)
	c.checker, _ = conn.(driver.NamedValueChecker)
	return c
}

// execs and queries tell whether database/sql would run statements on the
// connection directly.
func (c *capabilities) execs() bool   { return c.execerContext != nil || c.execer != nil }
func (c *capabilities) queries() bool { return c.queryerContext != nil || c.queryer != nil }

// close closes the statements whose closing was left to the session, then the
// connection, in the order in which database/sql would. Those that are live
// were never closed by the application, and end with the connection. Its
// caller is the closer: nobody else can reach s.
func (s *session) close() error {
	for _, p := range s.statements.takeLeft() {
		_ = p.inner.Close() // the connection's own error is the one to report
	}
	return s.conn.Close()
}

// maxKept bounds the statements that a session keeps for adoption.
const maxKept = 128

// prepared is a statement that exists on a session.
type prepared struct {
	inner driver.Stmt
	query string
	inTx  bool           // it was prepared in a transaction
	owner *handle        // guarded by statements.mu: the handle it is live under
	node  node[prepared] // guarded by statements.mu
}

// statements are a session's prepared statements. A statement is live while
// the handle that has the session also has the statement. When the session
// leaves that handle the statement is kept, for the next lease that prepares
// the same text. It is doomed when it must be closed, which only the session's
// lease holder may do, since it is wire traffic.
type statements struct {
	mu     sync.Mutex     // held for the lists only: no driver call under it; may be locked under gate.mu
	live   list[prepared] // guarded by mu
	kept   list[prepared] // guarded by mu
	doomed list[prepared] // guarded by mu

	due atomic.Bool // doomed is not empty; written under mu, read without
}

// add notes a statement that was just prepared under h.
func (t *statements) add(p *prepared, h *handle) {
	t.mu.Lock()
	defer t.mu.Unlock()
	p.owner = h
	t.live.push(&p.node, p)
}

// take removes a statement of h's, which its caller then closes. It reports
// false if the statement is not h's any more.
func (t *statements) take(p *prepared, h *handle) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	if p.owner != h {
		return false
	}
	t.live.remove(&p.node)
	p.owner = nil
	return true
}

// doom leaves a statement of h's to the next lease, to be closed. It does
// nothing if the statement is not h's any more: it is kept then, or was
// adopted by another handle.
func (t *statements) doom(p *prepared, h *handle) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if p.owner != h {
		return
	}
	t.live.remove(&p.node)
	t.doomLocked(p)
}

// doomTx leaves the live statements of a transaction to be closed.
func (t *statements) doomTx() {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.live.each(func(p *prepared) bool {
		if p.inTx {
			t.live.remove(&p.node)
			t.doomLocked(p)
		}
		return true
	})
}

// abandon keeps all live statements: the session leaves its handle. gate.mu is
// held, so that whoever gets the session finds them kept.
func (t *statements) abandon() {
	t.mu.Lock()
	defer t.mu.Unlock()
	for p := t.live.popFirst(); p != nil; p = t.live.popFirst() {
		p.owner = nil
		t.kept.push(&p.node, p)
	}
	for t.kept.len > maxKept {
		t.doomLocked(t.kept.popFirst())
	}
}

func (t *statements) doomLocked(p *prepared) {
	p.owner = nil
	t.doomed.push(&p.node, p)
	t.due.Store(true)
}

// adopt makes the newest kept statement of that text live under h; nil if
// there is none.
func (t *statements) adopt(query string, h *handle) *prepared {
	t.mu.Lock()
	defer t.mu.Unlock()
	for n := t.kept.last; n != nil; n = n.prev {
		if n.of.query == query {
			p := n.of
			t.kept.remove(n)
			t.live.push(n, p)
			p.owner = h
			return p
		}
	}
	return nil
}

// sweep closes the doomed statements. Its caller holds the session's lease.
func (t *statements) sweep() {
	if !t.due.Load() {
		return
	}
	for {
		t.mu.Lock()
		p := t.doomed.popFirst()
		t.due.Store(t.doomed.len > 0)
		t.mu.Unlock()
		if p == nil {
			return
		}
		_ = p.inner.Close() // whoever closed it was told long ago
	}
}

// takeLeft takes the statements that are kept or doomed.
func (t *statements) takeLeft() (left []*prepared) {
	t.mu.Lock()
	defer t.mu.Unlock()
	for _, l := range []*list[prepared]{&t.kept, &t.doomed} {
		for p := l.popFirst(); p != nil; p = l.popFirst() {
			left = append(left, p)
		}
	}
	t.due.Store(false)
	return left
}
