package fidelity

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"strings"
)

// What members do with statements: texts, prepared ones, and rows.

// changes are the texts that change a session. %d is a number.
var changes = []string{
	"USE %d", "USE %d", "USE %d", "SET s = %d", "SET s = %d", "RESET s", "CALL use_database(%d)",
	"INSERT INTO c; USE %d", "/*! USE %d */", "SELECT %d INTO @s",
	"CREATE TABLE temporary", "DROP TABLE temporary", "SELECT GET_LOCK('%d')", "SELECT RELEASE_ALL_LOCKS()",
	"SAVEPOINT", "ROLLBACK TO", "BEGIN", "COMMIT", "ROLLBACK", "DISCARD ALL", "DEALLOCATE ALL",
}

func changeOf(how int) (text string, n int) {
	text, n = changes[how%len(changes)], how/len(changes)%3
	if strings.Contains(text, "%d") {
		text = fmt.Sprintf(text, n)
	}
	return text, n
}

// mayChange: where sessions are left as they were, so are other members' statements, and
// transactions are begun in one way at a time.
func mayChange(m *member, how int) bool {
	if !m.cleans {
		return m.free()
	}
	switch text, _ := changeOf(how); text {
	case "DISCARD ALL", "DEALLOCATE ALL":
		return false
	case "BEGIN":
		return m.conn != nil && m.tx == nil && !m.texted
	case "COMMIT", "ROLLBACK":
		return m.conn != nil && m.tx == nil && m.texted
	case "SAVEPOINT", "ROLLBACK TO":
		return m.tx != nil || m.texted
	}
	return m.leased()
}

func (m *member) change(how int) {
	text, n := changeOf(how)
	if strings.HasPrefix(text, "SELECT GET_LOCK") {
		m.lock(n)
		return
	}
	before := m.database
	m.dirty, m.database = true, -1
	ok := m.changeBy(text, how >= 200)
	switch {
	case ok && strings.Contains(strings.ToUpper(text), "USE"):
		m.database = n
	case ok:
		m.database = before
	}
	if text == "BEGIN" {
		m.texted = true
	} else if ok && (text == "COMMIT" || text == "ROLLBACK") {
		m.texted = false
	}
}

// changeBy runs a text, or prepares and runs it.
func (m *member) changeBy(text string, prepared bool) bool {
	if !prepared || !m.leased() {
		return m.exec(text)
	}
	m.settleRows()
	m.next.after = false // as in prepare
	st, err := m.on().PrepareContext(m.do("prepare"), text)
	if !m.done(err) {
		return false
	}
	_, err = st.ExecContext(m.do("exec"))
	ok := m.done(err)
	_ = st.Close()
	return ok
}

// lock takes a lock. Each member of a tidy crowd has its own.
func (m *member) lock(n int) {
	if m.kind == tidy {
		n = m.id
	}
	m.dirty = true
	m.read1(m.do("query"), fmt.Sprintf("SELECT GET_LOCK('%d')", n))
}

// read1 reads one row.
func (m *member) read1(ctx context.Context, text string) {
	m.settleRows()
	var a answer
	err := m.on().QueryRowContext(ctx, text).Scan(&a[0], &a[1])
	if m.done(err) {
		m.note("%d", a[0])
	}
}

// exec runs a text. Rows of a connection are closed first: a connection that proves bad
// is closed in the call, which then waits for them, for ever.
func (m *member) exec(text string) bool {
	m.settleRows()
	res, err := m.on().ExecContext(m.do("exec"), text)
	if !m.done(err) {
		return false
	}
	m.keep(res)
	return true
}

func (m *member) settleRows() {
	if m.rows != nil && m.conn != nil && m.tx == nil {
		m.closeRows(0)
	}
}

// raw changes the session by the driver's own connection, or says what became of it.
func (m *member) raw(how int) {
	m.settleRows()
	m.dirty = true
	text, n := "USE %d", how/4%3
	m.database = -1
	err := m.conn.Raw(func(conn any) error {
		inner, ok := m.way.Unwrap(conn)
		c, isOurs := inner.(*session)
		if !ok || !isOurs {
			return errors.New("the driver's own connection cannot be reached")
		}
		if how%4 == 3 {
			return errBroken
		}
		return c.raw(fmt.Sprintf(text, n))
	})
	m.note("%s", m.name(err))
	if err == nil {
		m.database = n
	}
}

func (m *member) query(how int) {
	m.settleRows()
	text := [...]string{"SELECT a", "SELECT a", "SELECT * FROM temporary"}[how%3]
	from := m.known()
	rows, err := m.on().QueryContext(m.do("query"), text)
	m.readAll(rows, err, from)
}

// known is the current database of what its calls go to; below zero: it is not known.
func (m *member) known() int {
	switch {
	case m.leased():
		return m.database
	case m.cleans:
		return 0
	}
	return -1
}

// readAll reads rows to their end. from is the database from which they must be; below
// zero: any.
func (m *member) readAll(rows *sql.Rows, err error, from int) {
	if err != nil {
		m.done(err)
		return
	}
	m.server.over(m.overWith())
	for rows.Next() {
		m.readRow(rows, from)
	}
	err = rows.Err()
	_ = rows.Close()
	m.done(err)
}

// overWith is the lease that ends with the deed; zero: none does.
func (m *member) overWith() int {
	if m.deed.acquires {
		return m.deed.lease
	}
	return 0
}

func (m *member) readRow(rows *sql.Rows, from int) {
	var a answer
	if err := rows.Scan(&a[0], &a[1]); err != nil {
		m.fault("%v", err)
		return
	}
	if m.vague {
		m.note("a row")
	} else {
		m.note("%d/%d", a[0], a[1])
	}
	if from >= 0 && int(a[0]) != from {
		m.fault("a row is from database %d, where %d was in use", a[0], from)
	}
}

// openRows leaves rows open.
func (m *member) openRows(how int) {
	var rows *sql.Rows
	var err error
	switch k := how / 3 % sharedStatements; {
	case how%3 == 0 && !m.leased() && m.sharedOf(k) != nil && m.kind != inLine: // see asGood
		m.refer(k)
		ctx := m.useAs(m.sharedOf(k), "query")
		m.deed.keeps = true
		rows, err = m.sharedOf(k).st.QueryContext(ctx)
	default:
		rows, err = m.on().QueryContext(m.doKeep("query"), "SELECT a")
	}
	if err != nil {
		m.done(err)
		m.release()
		return
	}
	m.rows, m.rowsOf, m.rowsEnd, m.read = rows, m.overWith(), m.cancel, 0
	m.note("open")
	m.ended(nil)
}

// nextRow reads a row. With the last one database/sql may give the connection back.
func (m *member) nextRow(int) {
	m.server.over(m.rowsOf)
	m.read++
	if m.rows.Next() {
		m.readRow(m.rows, -1)
		return
	}
	m.note("no more, %s", m.name(m.rows.Err()))
	m.closeRows(0)
}

func (m *member) closeRows(how int) {
	m.server.over(m.rowsOf)
	if how%4 == 3 {
		m.rowsEnd()
		m.rowsOf = 0
		m.note("canceled")
		return
	}
	err := m.rows.Close()
	m.rowsEnd()
	m.note("closed, %s", m.name(err))
	m.rows, m.rowsOf, m.rowsEnd = nil, 0, nil
	m.release()
}

// Prepared statements.

func mayPrepare(m *member, how int) bool { return m.free() && m.own[how%2] == nil }

func (m *member) prepare(how int) {
	m.settleRows()
	o := &own{born: m.server.now(), text: m.textOf(how / 2), bound: m.leased(), onTx: m.tx != nil, database: m.known()}
	m.next.after = false // it would stay, and nobody would know
	st, err := m.on().PrepareContext(m.do("prepare"), o.text)
	if !m.done(err) {
		return
	}
	o.st = st
	m.own[how%2] = o
	m.note("ok")
}

// mayBind: where sessions are left as they were, statements that others use, or that
// outlive the lease, are prepared on such.
func mayBind(m *member, how int) bool {
	if m.tx == nil || m.own[how%2] != nil || m.cleans && m.dirty {
		return false
	}
	other := m.own[1-how%2]
	return how/2%2 == 0 || other != nil && !other.bound
}

// bind takes a statement into the transaction, to be used later.
func (m *member) bind(how int) {
	from := m.own[1-how%2]
	if how/2%2 == 0 {
		k := how / 4 % sharedStatements
		if from = m.sharedOf(k); from == nil {
			return
		}
		m.refer(k)
	}
	m.own[how%2] = m.take(from)
	m.note("ok")
}

// mayUse: a statement of a connection waits for its transaction.
func mayUse(m *member, how int) bool {
	o := m.own[how%2]
	switch {
	case o == nil:
		return false
	case o.taken: // how it was prepared may differ, and so how it fails later
		return m.tx != nil && o.lease == m.number
	case o.bound:
		return m.leased() && (o.onTx || m.tx == nil)
	case m.leased():
		return m.tx != nil && (!m.cleans || !m.dirty)
	}
	return m.free()
}

func (m *member) use(how int) {
	o := m.own[how%2]
	if o.bound {
		m.settleRows()
		m.run(o, how)
		return
	}
	m.useFree(o, how)
}

// useFree uses a statement of the pool's, in the transaction where there is one.
func (m *member) useFree(o *own, how int) {
	if m.tx == nil {
		m.run(o, how)
		return
	}
	m.run(m.take(o), how)
}

// take takes a statement of the pool's into the transaction. Whether it is prepared there
// is not determined: so nothing goes wrong in that, but for what was planted for it.
func (m *member) take(o *own) *own {
	next, slow := m.next, m.slow
	m.slow = false
	if m.next.kind != "prepare" {
		m.next = plant{}
		defer func() { m.next = next }()
	}
	defer func() { m.slow = slow }()
	st := m.tx.StmtContext(m.useAs(o, "prepare"), o.st)
	m.cancel()
	taken := &own{st: st, born: o.born, text: o.text, bound: true, onTx: true, taken: true, lease: m.number, database: -1, bad: m.deed.bad}
	m.deed = nil
	return taken
}

// run executes a statement.
func (m *member) run(o *own, how int) {
	ctx := m.useAs(o, kindOfUse(how))
	if how/2%2 == 1 {
		res, err := o.st.ExecContext(ctx)
		switch {
		case !m.done(err):
		case m.kind == inLine: // it may work here and not there, see asGood
			m.note("done")
		default:
			m.keep(res)
		}
		return
	}
	rows, err := o.st.QueryContext(ctx)
	m.vague = m.kind == inLine && !m.cleans && (!o.bound || o.taken)
	m.readAll(rows, err, o.database)
	m.vague = false
}

func kindOfUse(how int) string {
	if how/2%2 == 1 {
		return "exec"
	}
	return "query"
}

// useAs begins a deed that uses a statement. Whether it is prepared for that may differ,
// and whether it works, see asGood: neither is to be felt by what else goes wrong.
func (m *member) useAs(o *own, kind string) context.Context {
	if m.kind == inLine && (m.next.kind == "prepare" || m.next.after) {
		m.next = plant{}
	}
	ctx := m.do(kind)
	m.deed.born, m.deed.bad, m.deed.taken = o.born, o.bad, o.taken
	return ctx
}

func (m *member) closeOwn(how int) {
	o := m.own[how%2]
	m.own[how%2] = nil
	m.deferred = m.deferred || m.tx != nil || m.rows != nil
	err := o.st.Close()
	if o.taken { // which tells how it was prepared
		err = nil
	}
	m.note("closed, %s", m.name(err))
}

// The statements that all members share.

func (m *member) sharedOf(how int) *own {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.shared[how%sharedStatements]
}

// refer keeps a shared statement from being closed, for as long as it is referred to.
func (m *member) refer(k int) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.using[k]++
	m.refs = append(m.refs, k)
}

func mayUseShared(m *member, how int) bool {
	if m.sharedOf(how/4) == nil {
		return false
	}
	if m.leased() {
		return m.tx != nil && (!m.cleans || !m.dirty)
	}
	return m.free()
}

func (m *member) useShared(how int) {
	k := how / 4 % sharedStatements
	o := m.sharedOf(k)
	m.refer(k)
	m.useFree(o, how)
	m.release()
}

func (m *member) makeShared(how int) {
	k := how % sharedStatements
	if m.sharedOf(k) != nil {
		m.note("it is there")
		return
	}
	o := &own{born: m.server.now(), text: m.textOf(how / 4), database: -1}
	m.next.after = false
	st, err := m.db.PrepareContext(m.do("prepare"), o.text)
	if !m.done(err) {
		return
	}
	o.st = st
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.shared[k] != nil { // another member has made it meanwhile
		m.spare = append(m.spare, st)
		return
	}
	m.shared[k] = o
	m.note("ok")
}

// mayCloseShared: nobody else is at it, or else the closing waits for them where it
// cannot be seen to wait.
func mayCloseShared(m *member, how int) bool {
	k := how % sharedStatements
	mine := 0
	for _, r := range m.refs {
		if r == k {
			mine++
		}
	}
	return m.shared[k] != nil && m.using[k] == mine
}

func (m *member) closeShared(how int) {
	m.mu.Lock()
	o := m.shared[how%sharedStatements]
	m.shared[how%sharedStatements] = nil
	m.deferred = m.deferred || m.tx != nil || m.rows != nil
	m.mu.Unlock()
	m.note("closed, %s", m.name(o.st.Close()))
}
