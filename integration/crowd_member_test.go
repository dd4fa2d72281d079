package integration

import (
	"context"
	"database/sql"
	"database/sql/driver"
	"errors"
	"fmt"
	"slices"
	"strings"
)

// member is one of a crowd: a goroutine of an application, and what it has in hand.
type member struct {
	*stage
	id       int
	todo     chan func()
	done     chan struct{}
	waits    bool     // for a connection, in a step
	at       string   // the step's act
	parts    []string // of what came of it
	uses     []use    // likewise, of statements
	cancel   context.CancelFunc
	canceled bool // which has been called while it waited
	held     int  // connections that it had after its last step

	conn    *sql.Conn
	session string // that conn, or tx, was on at first
	gone    bool   // conn has lost its connection
	tx      *sql.Tx
	texted  bool // a transaction that was begun by its text may be open
	end     context.CancelFunc
	rows    *sql.Rows
	free    bool // rows are the pool's, and not of what is in hand
	own     [2]*ownStmt
	old     []keptStmt // that outlived what they were prepared on
}

// ownStmt is a statement that one member has.
type ownStmt struct {
	st   *sql.Stmt
	text int
	of   *poolStmt // it was taken into the transaction; nil: it was prepared there, or on the connection
	onTx bool
}

// poolStmt is a statement of the pool's, which all members use.
type poolStmt struct {
	st     *sql.Stmt
	text   int
	closed bool
	met    map[string][]string // by session: what the text meant there, whenever it was prepared or used
}

// use is one use of a statement.
type use struct {
	text    int
	result  string
	session string
	means   []string // what the text has meant to the session, whenever the statement was prepared or used there, the present included; nil: it is certain what comes
	first   bool     // it was neither before
	alters  int      // how often columns were added until then
	elders  int      // how many statements of the text were made before they were last
}

type caller interface {
	ExecContext(context.Context, string, ...any) (sql.Result, error)
	QueryContext(context.Context, string, ...any) (*sql.Rows, error)
	PrepareContext(context.Context, string) (*sql.Stmt, error)
}

func (m *member) on() caller {
	switch {
	case m.tx != nil:
		return m.tx
	case m.conn != nil:
		return m.conn
	}
	return m.db
}

// leased tells whether it has a connection, and not just rows.
func (m *member) leased() bool { return m.conn != nil || m.tx != nil }

// holds counts the connections that it has.
func (m *member) holds() int {
	if m.conn != nil && !m.gone || m.conn == nil && m.tx != nil || m.rows != nil && m.free {
		return 1
	}
	return 0
}

func (m *member) name() string {
	if m.id == theWorld {
		return "world"
	}
	return fmt.Sprint("member ", m.id)
}

func (m *member) note(format string, args ...any) {
	m.parts = append(m.parts, fmt.Sprintf(format, args...))
}

// live takes steps until there are no more.
func (m *member) live() {
	for step := range m.todo {
		step()
		m.done <- struct{}{}
	}
}

// begin is the context of a call, which may have to wait for a connection.
func (m *member) begin() context.Context {
	ctx, cancel := context.WithCancel(context.Background())
	m.cancel = cancel
	return ctx
}

// saw notes how a call on what is in hand ended. Of a connection that is bad a *sql.Conn lets go
// at once, unless a transaction has it.
func (m *member) saw(err error) error {
	if m.conn != nil && m.tx == nil && (errors.Is(err, driver.ErrBadConn) || errors.Is(err, sql.ErrConnDone)) {
		m.gone = true
	}
	return err
}

// kind names an error; empty: there is none.
func (m *member) kind(err error) string {
	if m.saw(err) == nil {
		return "ok"
	}
	kind := errorKind(err)
	if kind == context.Canceled.Error() && !m.canceled { // some driver says so once it is lost
		kind = lostSession
	}
	if kind == lostSession {
		m.lost = true
	}
	return kind
}

// settleRows closes rows before anything else is done with their connection: drivers can do one
// thing at a time, and a connection that proves bad waits for its rows, for ever.
func (m *member) settleRows() {
	if m.rows != nil && !m.free {
		m.closeRows(0)
	}
}

// answer is what a query came to.
type answer struct {
	result  string
	session string // whose it is, where it says so
	failed  bool
}

func (a answer) String() string { return a.result + " from " + a.session }

// readAll reads rows to their end: the last column is the session's id.
func (m *member) readAll(rows *sql.Rows, err error) (a answer) {
	defer m.cancel()
	if err != nil {
		return answer{m.kind(err), "", true}
	}
	var all []string
	for rows.Next() {
		var row string
		row, a.session = m.readRow(rows)
		all = append(all, row)
	}
	err = rows.Err()
	_ = rows.Close()
	if err != nil {
		return answer{m.kind(err), "", true}
	}
	a.result = strings.Join(all, "; ")
	return a
}

func (m *member) readRow(rows *sql.Rows) (row, session string) {
	columns, err := rows.Columns()
	if err != nil {
		return err.Error(), ""
	}
	values := make([]sql.NullString, len(columns))
	places := make([]any, len(columns))
	for i := range values {
		places[i] = &values[i]
	}
	if err := rows.Scan(places...); err != nil {
		return err.Error(), ""
	}
	last := len(values) - 1
	texts := make([]string, last)
	for i, v := range values[:last] {
		if texts[i] = "NULL"; v.Valid {
			texts[i] = fmt.Sprintf("%q", v.String)
		}
	}
	return strings.Join(texts, " "), m.label(values[last].String)
}

// ask asks a question, and tells of the answer and whose it is.
func (m *member) ask(query string, args ...any) {
	m.settleRows()
	m.note("%v", m.readAll(m.on().QueryContext(m.begin(), query, args...)))
}

// look is what a text would mean if it were prepared now, and to which session.
func (m *member) look(text int) answer {
	if text == writing { // it means the same to all, and is not to be run twice
		return answer{session: m.whose()}
	}
	query := strings.NewReplacer("$1", "1", "?", "1").Replace(m.texts[text])
	return m.readAll(m.on().QueryContext(m.begin(), query, m.plain...))
}

// textOf is what is prepared, or asked, for a text.
func (m *member) textOf(text int) string {
	if !m.unique {
		return m.texts[text]
	}
	m.prepares++
	return fmt.Sprintf("%s /* %d */", m.texts[text], m.prepares)
}

// argument is what texts are run with. What is written by statements that another way may have
// prepared again is not counted: they may work there and not here.
func (m *member) argument(o *poolStmt, text int) int {
	if text == writing && o != nil {
		return -1
	}
	return 1
}

// meet notes what a text means, where one of the pool's statements was prepared or used.
func (m *member) meet(o *poolStmt) (session string, first, failed bool) {
	a := m.look(o.text)
	if session = a.session; m.leased() {
		session = m.session
	} else if session == "" {
		session = m.whose()
	}
	first = len(o.met[session]) == 0
	o.met[session] = append(o.met[session], inUTF8(a.result))
	m.note("it means %s to %s", a.result, session)
	return session, first, a.failed
}

// inUTF8 is what a text says, whatever the session writes it in: that is decided anew at each use.
func inUTF8(text string) string { return strings.ReplaceAll(text, `\xe9`, "é") }

// whose asks which session a call goes to.
func (m *member) whose() string {
	query := "SELECT CONNECTION_ID()"
	if m.postgres {
		query = "SELECT pg_backend_pid()"
	}
	return m.readAll(m.on().QueryContext(m.begin(), query, m.plain...)).session
}

// apart does something with a statement of the pool's. In a transaction of PostgreSQL a
// statement that fails ends all; so that one which fails here, and works there, changes
// nothing else, it has a savepoint of its own.
func (m *member) apart(do func(back func())) {
	if !m.postgres || m.tx == nil {
		do(func() {})
		return
	}
	if m.savepoint("SAVEPOINT") {
		do(func() { m.savepoint("ROLLBACK TO SAVEPOINT") })
		m.savepoint("RELEASE SAVEPOINT")
	}
}

// savepoint does something with one, and tells whether it succeeded.
func (m *member) savepoint(what string) bool {
	_, err := m.tx.ExecContext(context.Background(), what+" crowd")
	if err != nil {
		m.note("%s: %s", what, m.kind(err))
	}
	return err == nil
}

// runPool runs a statement of the pool's, or one that was taken from there.
func (m *member) runPool(o *poolStmt, taken *ownStmt) {
	m.settleRows()
	m.apart(func(back func()) {
		st := o.st
		if taken != nil {
			st = taken.st
		} else if m.tx != nil {
			st = m.tx.StmtContext(context.Background(), o.st)
		}
		a := m.readAll(st.QueryContext(m.begin(), m.argument(o, o.text)))
		if a.failed {
			back()
		}
		if o.closed && taken == nil || m.canceled { // it is not used at all, or prepared where it is; or has not come to it
			m.note("%v", a)
			return
		}
		session, first, failed := m.meet(o)
		if failed {
			back()
		}
		m.used(use{text: o.text, result: inUTF8(a.result), session: session, first: first, means: o.met[session]})
	})
}

func (m *member) used(u use) {
	u.alters, u.elders = m.alters, m.elders[u.text]
	u.means = slices.Clone(u.means)
	m.uses = append(m.uses, u)
}
