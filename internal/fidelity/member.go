package fidelity

import (
	"context"
	"database/sql"
	"database/sql/driver"
	"errors"
	"fmt"
	"strings"
)

// member is one of a crowd: a goroutine of an application, and what it has in hand.
type member struct {
	*stage
	id    int
	todo  chan func()
	busy  bool     // it is in a step
	parts []string // of what came of the step that it is in
	said  []string // likewise, by step
	wrong []string

	// What it has in hand.
	conn     *sql.Conn
	tx       *sql.Tx
	number   int                // of the lease
	endTx    context.CancelFunc // ends the transaction's context
	gone     bool               // which has happened, or the connection was bad: it has none any more
	database int                // the current database of its session; below zero: not known
	dirty    bool               // its session is not as it was dialed
	texted   bool               // a transaction begun by its text is open
	rows     *sql.Rows
	rowsOf   int // the lease that ends with rows; zero: they are of the lease in hand
	rowsEnd  context.CancelFunc
	read     int
	own      [2]*own
	results  []sql.Result

	refs  []int // the shared statements that its transaction, or its rows, refer to
	vague bool  // it does not say what is in the rows that it reads. A statement of
	// the pool's may mean what it meant when another session, or the same one at
	// another time, had it prepared, where members leave sessions in other states.
	deferred bool // as they do to a statement that was closed: it ends with them

	// The step.
	at      string
	next    plant // what goes wrong in the next one
	slow    bool  // the next one takes until its member's next turn
	cancels bool  // which then cancels it
	tries   bool  // it waits no longer than until its member's next turn
	deed    *deed
	cancel  context.CancelFunc
}

// own is a statement, and what it is known of it.
type own struct {
	st       *sql.Stmt
	text     string
	born     int  // the server's time at which it was made
	bound    bool // to a lease
	onTx     bool // and to its transaction
	taken    bool // into the transaction, and not prepared there
	lease    int
	database int // from which it answers; below zero: not known
	bad      int // how often the driver said driver.ErrBadConn as it was prepared: it goes on to answer that
}

// live takes steps until there are no more.
func (m *member) live() {
	for step := range m.todo {
		m.attempt(step)
		m.said, m.parts = append(m.said, m.at+": "+strings.Join(m.parts, ", ")), nil
		m.busy = false
	}
}

func (m *member) attempt(step func()) {
	defer func() {
		if v := recover(); v != nil {
			m.fault("panic: %v", v)
		}
	}()
	step()
}

// start begins a step.
func (m *member) start(a act, how int) {
	m.busy, m.at, m.tries = true, a.name, a.name == "try"
	m.todo <- func() { a.do(m, how) }
}

// nudge lets a member go on that is in a slow call, or ends its patience.
func (m *member) nudge() bool {
	switch {
	case m.isIn() && m.cancels, !m.isIn() && m.tries:
		m.tries = false
		m.cancel()
	case m.isIn():
		close(m.deed.let)
	default:
		return false
	}
	return true
}

// isIn tells whether it is in a slow call.
func (m *member) isIn() bool { return m.busy && m.deed != nil && m.deed.isIn(m.server) }

// holds tells whether it has a connection.
func (m *member) holds() bool { return m.conn != nil || m.tx != nil || m.rows != nil }

// leased tells whether it has a lease, and not just rows.
func (m *member) leased() bool { return m.conn != nil || m.tx != nil }

func (m *member) note(format string, args ...any) {
	m.parts = append(m.parts, fmt.Sprintf(format, args...))
}

func (m *member) fault(format string, args ...any) {
	m.wrong = append(m.wrong, fmt.Sprintf("member %d, %s: ", m.id, m.at)+fmt.Sprintf(format, args...))
}

// do begins a deed: on the lease in hand, or on one of its own.
func (m *member) do(kind string) context.Context {
	if m.leased() {
		return m.begin(&deed{lease: m.number}, kind)
	}
	return m.alone(kind)
}

// doKeep likewise, where what it gets is kept.
func (m *member) doKeep(kind string) context.Context {
	ctx := m.do(kind)
	m.deed.keeps = true
	return ctx
}

// alone begins a deed on a lease of its own.
func (m *member) alone(kind string) context.Context {
	return m.begin(&deed{lease: m.lease(), acquires: true}, kind)
}

// begin is the context of a deed. What was planted for the next one is for this.
func (m *member) begin(d *deed, kind string) context.Context {
	d.name, d.let = fmt.Sprintf("member %d, %s", m.id, m.at), make(chan struct{})
	if m.next.kind == "" {
		m.next.kind = kind
	}
	d.plant, m.next = m.next, plant{}
	vague := kind == "reset" && m.kind == tidy // whether it is reset or dialed is not determined
	if m.slow && !vague {
		d.slow = kind
	}
	m.slow = false
	if vague {
		d.plant.times = min(d.plant.times, 1)
	}
	if m.kind == inLine && d.slow != "" && d.acquires { // trying again, it would wait beside another
		d.plant = plant{}
	}
	ctx, cancel := context.WithCancel(m.ctx)
	m.deed, m.cancel = d, cancel
	return withDeed(ctx, d)
}

// done ends a deed, and tells whether it succeeded.
func (m *member) done(err error) bool {
	m.cancel()
	if m.deed.acquires {
		m.server.over(m.deed.lease)
	}
	return m.ended(err)
}

// ended ends a deed that leaves something in hand.
func (m *member) ended(err error) bool {
	m.despair()
	if err != nil {
		name := m.check(err)
		if m.deed.taken && (errors.Is(err, driver.ErrBadConn) || errors.Is(err, sql.ErrTxDone)) {
			name = "it is gone" // it depends on whether it had to be prepared
		}
		m.note("%s", name)
	}
	m.deed = nil
	return err == nil
}

// despair notes that database/sql has come to the last of its attempts for a deed.
func (m *member) despair() {
	const all = 3
	m.mu.Lock()
	defer m.mu.Unlock()
	m.desperate = m.desperate || m.deed.acquires && m.badOf(m.deed) >= all-1
}

// name names an error of a call that the driver does not know whose it is.
func (m *member) name(err error) string {
	if err == nil {
		return "ok"
	}
	name, known := nameOf(err)
	if !known {
		m.fault("nobody has such an error: %v", err)
	}
	return name
}

// check names an error, and finds out whether the bare driver could answer it. An
// application sees driver.ErrBadConn only where its driver has said so: and where
// database/sql tries again, three times; or twice, the last time of a connection that was
// new, where another pool's refusal of a ticket has taken the third attempt.
func (m *member) check(err error) string {
	name := m.name(err)
	bad := errors.Is(err, driver.ErrBadConn)
	if (bad || errors.Is(err, sql.ErrConnDone)) && m.conn != nil && m.tx == nil && !m.deed.acquires {
		m.gone = true
	}
	if !bad {
		return name
	}
	least := 1
	if m.deed.acquires && !m.deed.once {
		least = 2
	}
	if bad := m.badOf(m.deed); bad < least {
		m.fault("the application sees driver.ErrBadConn, which the driver has said %d times", bad)
	}
	return name
}

func (m *member) badOf(d *deed) int {
	m.server.mu.Lock()
	defer m.server.mu.Unlock()
	return d.bad
}

// knownErrors are what a crowd may see.
var knownErrors = []error{
	driver.ErrBadConn, context.Canceled, sql.ErrTxDone, sql.ErrConnDone, errBroken,
	errAltered, errUnknown, errNoTable, errInTx, errNotInTx, errUnwilling,
}

// nameOf names an error by what code can tell it by.
func nameOf(err error) (name string, known bool) {
	for _, k := range knownErrors {
		if errors.Is(err, k) {
			return k.Error(), true
		}
	}
	switch name = err.Error(); name {
	case "sql: statement is closed", "sql: Rows are closed":
		return name, true
	}
	return name, false
}
