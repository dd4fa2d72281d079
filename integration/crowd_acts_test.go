package integration

import (
	"context"
	"database/sql"
	"errors"
	"slices"
)

// act is what a member can do in a step, or the world.
type act struct {
	name   string
	weight int
	may    func(m *member, how int) bool // it means something now; nil: always
	asks   func(m *member, how int) bool // it may have to wait for a connection; nil: never
	do     func(m *member, how int)
	world  bool // it is the world's
}

var errRaw = errors.New("an error of the application's")

func always(*member, int) bool          { return true }
func unleased(m *member, _ int) bool    { return !m.leased() }
func emptyHanded(m *member, _ int) bool { return !m.leased() && m.rows == nil }

// able is whoever can call something: on what is in hand, or on the pool. Rows that are the pool's
// are a lease of their own, beside which another may wait for itself.
func able(m *member, _ int) bool { return m.leased() || m.rows == nil }

func onConn(m *member, _ int) bool { return m.conn != nil && m.tx == nil }

var acts []act

func init() { // programs are printed by the names in it, which are part of what is printed of acts
	acts = []act{
		{name: "take a connection", weight: 9, may: emptyHanded, asks: always, do: (*member).takeConn},
		{name: "begin", weight: 11, may: emptyHanded, asks: always, do: (*member).takeTx},
		{name: "begin on the connection", weight: 3, may: onConn, do: (*member).takeTx},
		{name: "give back", weight: 6, may: func(m *member, _ int) bool { return m.leased() || m.rows != nil }, do: (*member).giveBack},
		{name: "end the transaction", weight: 4, may: func(m *member, _ int) bool { return m.tx != nil }, do: (*member).endTx},
		{name: "end its context", weight: 2, may: (*member).mayCancel, do: (*member).cancelTx},

		{name: "change", weight: 12, may: able, asks: unleased, do: (*member).change},
		{name: "ask", weight: 6, may: able, asks: unleased, do: func(m *member, how int) { m.ask(m.asked[how%len(m.asked)]) }},
		{name: "lock", weight: 4, may: able, asks: unleased, do: func(m *member, how int) { m.ask(m.taken[how%len(m.taken)]) }},
		{name: "ask with an argument", weight: 3, may: able, asks: unleased, do: func(m *member, how int) {
			text := how % len(m.texts)
			m.ask(m.textOf(text), m.argument(nil, text))
		}},
		{name: "raw", weight: 3, may: onConn, do: (*member).driverConn},
		// Where a driver tells database/sql that its session was lost, it kills the next, and then a new one; whether a
		// third makes room for that differs, and is meant to.
		{name: "kill", weight: 1, may: func(m *member, _ int) bool { return m.leased() || m.rows == nil && !m.tells }, asks: unleased, do: (*member).killOwn},

		{name: "open rows", weight: 4, may: func(m *member, _ int) bool { return m.rows == nil }, asks: unleased, do: (*member).openRows},
		{name: "next row", weight: 3, may: func(m *member, _ int) bool { return m.rows != nil }, do: (*member).nextRow},
		{name: "close rows", weight: 2, may: func(m *member, _ int) bool { return m.rows != nil }, do: (*member).closeRows},

		{name: "prepare", weight: 8, may: func(m *member, how int) bool { return m.leased() && m.own[how%2] == nil }, do: (*member).prepareOwn},
		{name: "use", weight: 10, may: func(m *member, how int) bool { return m.usable(m.own[how%2]) }, do: (*member).useOwn},
		{name: "close", weight: 3, may: func(m *member, how int) bool { return m.own[how%2] != nil }, do: (*member).closeOwn},
		{name: "close an old one", weight: 2, may: func(m *member, _ int) bool { return len(m.old) > 0 && m.noRows() }, do: (*member).closeOld},
		{name: "prepare for all", weight: 5, may: func(m *member, _ int) bool { return emptyHanded(m, 0) && m.noRows() }, asks: always, do: (*member).prepareShared},
		{name: "use one of all", weight: 24, may: func(m *member, how int) bool { return m.shared[how%sharedStmts] != nil && m.canShare() },
			asks: unleased, do: func(m *member, how int) {
				m.settleRows()
				m.runPool(m.shared[how%sharedStmts], nil)
			}},
		{name: "take one of all", weight: 6, may: func(m *member, how int) bool {
			return m.tx != nil && m.own[how%2] == nil && m.shared[how/2%sharedStmts] != nil && !m.shared[how/2%sharedStmts].closed
		}, do: (*member).takeShared},
		{name: "close one of all", weight: 3, may: func(m *member, how int) bool {
			return m.shared[how%sharedStmts] != nil && !m.shared[how%sharedStmts].closed && m.noRows() &&
				m.waiter() == nil // who may wait in it, and the close for him
		}, do: (*member).closeShared},

		{name: "add a column", weight: 3, world: true, do: (*member).addColumn},
		{name: "rest", weight: 1, world: true, do: func(m *member, how int) { m.rest(how) }},
		// Its own act is: it is done while the member waits, see stage.nudge.
		{name: "wait no longer", weight: 4, may: func(m *member, _ int) bool { return m.waits }},
	}
}

// noRows tells whether nobody has rows open. database/sql closes a statement on every connection that
// it is on, in the midst of whatever another reads there, and costs him the connection. This
// library waits for him.
func (m *member) noRows() bool {
	return !slices.ContainsFunc(m.members, func(m *member) bool { return m.rows != nil })
}

// mayCancel tells whether its transaction's context can be ended.
func (m *member) mayCancel(int) bool { return m.tx != nil && m.cancelsTx }

// canShare tells whether a statement of the pool's can be used: not on a *sql.Conn.
func (m *member) canShare() bool { return m.tx != nil || m.conn == nil && m.rows == nil }

func (m *member) takeConn(int) {
	c, err := m.db.Conn(m.begin())
	m.cancel()
	m.note("%s", m.kind(err))
	if err == nil {
		m.conn, m.gone = c, false
		m.session = m.whose()
		m.note("%s", m.session)
	}
}

func (m *member) takeTx(int) {
	m.settleRows()
	begin := m.db.BeginTx
	if m.conn != nil {
		begin = m.conn.BeginTx
	}
	tx, err := begin(m.begin(), nil)
	m.note("%s", m.kind(err))
	if err != nil {
		m.cancel()
		return
	}
	m.tx, m.end = tx, m.cancel
	if m.conn == nil {
		m.session = m.whose()
	}
	m.note("%s", m.session)
}

// endTx commits, or rolls back.
func (m *member) endTx(how int) {
	m.settleRows()
	end := m.tx.Commit
	if how%2 == 1 {
		end = m.tx.Rollback
	}
	err := end()
	m.end()
	m.tx = nil
	m.note("ended, %s", m.kind(err))
	m.outlive(func(o *ownStmt) bool { return o.onTx })
}

// cancelTx ends the context of a transaction. database/sql rolls back on a goroutine of its own:
// what is in hand is given back at once, since that waits for it.
func (m *member) cancelTx(int) {
	m.settleRows()
	m.end()
	if m.conn != nil {
		m.note("%s", m.kind(m.conn.Close()))
		m.conn, m.gone = nil, false
	}
	_ = m.tx.Rollback() // what it says depends on who is first
	m.tx = nil
	m.lost = true
	m.outlive(func(*ownStmt) bool { return true })
}

func (m *member) giveBack(how int) {
	if m.rows != nil {
		m.closeRows(0)
	}
	if m.tx != nil {
		m.endTx(how)
	}
	if m.conn != nil {
		if m.texted {
			_, err := m.conn.ExecContext(context.Background(), "ROLLBACK")
			m.note("rolled back, %s", m.kind(err))
			m.texted = false
		}
		err := m.conn.Close()
		m.conn, m.gone = nil, false
		m.note("given back, %s", m.kind(err))
	}
	m.outlive(func(*ownStmt) bool { return true })
}

// outlive puts statements away whose connection, or transaction, is over.
func (m *member) outlive(is func(*ownStmt) bool) {
	for i, o := range m.own {
		if o != nil && is(o) {
			m.own[i], m.old = nil, append(m.old, keptStmt{o.st, o.text})
		}
	}
}

// change changes the session, by a text or by a statement.
func (m *member) change(how int) {
	m.settleRows()
	list := m.changing
	text := list[how%len(list)]
	// A transaction of PostgreSQL that is begun by its text and left open fails with the first statement that
	// does, whoever runs it, see apart. So it ends with its lease.
	if m.postgres && text == "BEGIN" {
		if m.conn == nil || m.tx != nil {
			return
		}
		m.texted = true
	}
	ctx := m.begin()
	defer m.cancel()
	if how/len(list)%5 > 0 || !m.leased() {
		_, err := m.on().ExecContext(ctx, text)
		m.note("%s: %s", text, m.kind(err))
		return
	}
	st, err := m.on().PrepareContext(ctx, text)
	if err == nil {
		_, err = st.ExecContext(ctx)
		_ = st.Close()
	}
	m.note("prepared, %s: %s", text, m.kind(err))
}

// driverConn changes the session by the driver's own connection, or says what became of it.
func (m *member) driverConn(how int) {
	m.settleRows()
	text := m.changing[how/4%8] // most of them choose a schema
	err := m.conn.Raw(func(conn any) error {
		if how%4 == 3 {
			return errRaw
		}
		return m.raw(conn, m.c != nil, text)
	})
	m.note("%s: %s", text, m.kind(err))
}

// killOwn ends the session.
func (m *member) killOwn(int) {
	m.settleRows()
	session := m.whose()
	if m.canceled {
		return
	}
	_, err := m.on().ExecContext(m.begin(), m.kill())
	m.cancel()
	_ = m.saw(err)
	m.note("killed %s", session)
	m.awaitDeath(session)
}

func (m *member) openRows(how int) {
	query := m.asked[how%3]
	free := !m.leased()
	ctx := m.begin()
	rows, err := m.on().QueryContext(ctx, query)
	m.note("%s", m.kind(err))
	if err != nil {
		m.cancel()
		return
	}
	m.rows, m.free = rows, free
}

// nextRow reads a row. With the last one database/sql may give the connection back.
func (m *member) nextRow(int) {
	if m.rows.Next() {
		row, session := m.readRow(m.rows)
		m.note("%s from %s", row, session)
		return
	}
	if err := m.rows.Err(); err != nil {
		m.note("%s", errorKind(err))
	}
	m.closeRows(0)
}

func (m *member) closeRows(int) {
	err := m.rows.Close()
	m.rows = nil
	if err != nil {
		m.note("closed, %s", errorKind(err))
	} else {
		m.note("closed")
	}
}

// usable tells whether one of its own statements can be used: one of a connection waits for its
// transaction.
func (m *member) usable(o *ownStmt) bool { return o != nil && (o.onTx || m.tx == nil) }

func (m *member) prepareOwn(how int) {
	m.settleRows()
	o := &ownStmt{text: likely[how/2%len(likely)], onTx: m.tx != nil}
	st, err := m.on().PrepareContext(m.begin(), m.textOf(o.text))
	m.cancel()
	m.note("%d: %s", o.text, m.kind(err))
	if err != nil {
		return
	}
	m.made[o.text]++
	if o.st = st; how/64%3 == 0 { // used and closed at once
		m.runOwn(o)
		m.note("closed, %s", m.kind(st.Close()))
		return
	}
	m.own[how%2] = o
}

func (m *member) useOwn(how int) {
	o := m.own[how%2]
	if o.of != nil {
		m.runPool(o.of, o)
		return
	}
	m.runOwn(o)
}

// runOwn runs a statement that was prepared on what is in hand: what comes of it is certain.
func (m *member) runOwn(o *ownStmt) {
	m.settleRows()
	a := m.readAll(o.st.QueryContext(m.begin(), m.argument(nil, o.text)))
	m.used(use{text: o.text, result: a.result, session: m.session})
}

func (m *member) closeOwn(how int) {
	o := m.own[how%2]
	m.own[how%2] = nil
	m.settleRows()
	m.closeStmt(o.st, o.of != nil || m.gone)
}

// closeStmt closes a statement. What that says of one that was taken from the pool's tells how it was prepared; and
// of one whose connection is not in hand any more, whether the driver was asked.
func (m *member) closeStmt(st *sql.Stmt, free bool) {
	kind := m.kind(st.Close())
	if free {
		kind = "ok"
	}
	m.note("closed, %s", kind)
}

func (m *member) closeOld(int) {
	m.closeStmt(m.old[0].st, true)
	m.old = m.old[1:]
}

// likely are the texts that are prepared: some more often, so that several statements have them.
var likely = [...]int{0, growing, 4, growing, 0, 1, writing, 5}

// prepareShared prepares a statement for all, in the place of another, which is closed or forgotten.
func (m *member) prepareShared(how int) {
	k, text := how%sharedStmts, likely[how/8%len(likely)]
	st, err := m.db.PrepareContext(m.begin(), m.textOf(text))
	m.cancel()
	m.note("%d: %s", text, m.kind(err))
	if err != nil {
		return
	}
	m.made[text]++
	if old := m.shared[k]; old != nil {
		if how/1024%2 == 0 {
			_ = old.st.Close()
		} else {
			m.forgotten = append(m.forgotten, old)
		}
	}
	o := &poolStmt{st: st, text: text, met: map[string][]string{}}
	m.shared[k] = o
	m.meet(o)
}

// takeShared takes a statement into the transaction, to be used later.
func (m *member) takeShared(how int) {
	m.settleRows()
	o := m.shared[how/2%sharedStmts]
	m.apart(func(back func()) {
		st := m.tx.StmtContext(context.Background(), o.st) // whether it failed shows when it is used
		m.own[how%2] = &ownStmt{st: st, text: o.text, of: o, onTx: true}
		back()
		if _, _, failed := m.meet(o); failed {
			back()
		}
	})
}

func (m *member) closeShared(how int) {
	o := m.shared[how%sharedStmts]
	o.closed = true
	_ = o.st.Close() // what it says tells on which sessions it was prepared
	m.note("%d", o.text)
}

func (m *member) addColumn(int) {
	m.alters++
	err := m.grow(m.alters)
	m.elders = m.made
	if err != nil {
		m.note("%s", errorKind(err))
	} else {
		m.note("%d", m.alters)
	}
}
