package fidelity

import (
	"context"
	"database/sql"
	"database/sql/driver"
	"time"
)

// act is what a member can do in a step.
type act struct {
	name   string
	weight int
	kinds  [crowdKinds]bool // of crowds in which it means anything

	may      func(m *member, how int) bool // it means something now; nil: always
	acquires func(m *member, how int) bool // it may have to wait for a connection
	now      func(m *member, how int)      // it says something of the next step, and is none itself
	do       func(m *member, how int)

	// quiet acts take locks of database/sql's on connections that others may have, who
	// are in a call: which a bubble cannot wait for. They wait until nobody is in one.
	// So does all that a member does who has closed a statement that it still refers to.
	quiet bool
}

var (
	anyKind = [crowdKinds]bool{inLine: true, tidy: true, wild: true}
	messy   = [crowdKinds]bool{inLine: true, wild: true}
	lined   = [crowdKinds]bool{inLine: true}
)

func notHolding(m *member, _ int) bool { return !m.holds() }
func notLeased(m *member, _ int) bool  { return !m.leased() }
func always(*member, int) bool         { return true }

// free to use the lease in hand, or the pool where there is none: rows that are the
// pool's are a lease of their own, and another would be nested.
func (m *member) free() bool     { return m.leased() || m.rows == nil }
func free(m *member, _ int) bool { return m.free() }

var acts []act

func init() { // it refers to itself, by way of what it prints
	acts = []act{
		{name: "conn", weight: 8, kinds: anyKind, may: notHolding, acquires: always, do: (*member).takeConn},
		{name: "begin", weight: 8, kinds: anyKind, may: notHolding, acquires: always, do: (*member).takeTx},
		{name: "begin on conn", weight: 3, kinds: anyKind, may: func(m *member, _ int) bool { return m.conn != nil && m.tx == nil }, do: (*member).takeTx},
		{name: "give back", weight: 8, kinds: anyKind, may: func(m *member, _ int) bool { return m.holds() },
			do: func(m *member, how int) { m.giveBack(how%4 == 3) }},
		{name: "end transaction", weight: 4, kinds: anyKind, may: func(m *member, _ int) bool { return m.tx != nil }, do: (*member).end},
		{name: "cancel transaction", weight: 2, kinds: anyKind,
			may: func(m *member, _ int) bool { return m.tx != nil && (!m.cleans || !m.dirty) }, do: (*member).cancelTx},
		{name: "try", weight: 3, kinds: anyKind, may: notHolding, acquires: always, do: (*member).try},
		{name: "nested", weight: 3, kinds: anyKind, may: func(m *member, _ int) bool { return m.nests && m.id == 0 && m.holds() }, acquires: always, do: (*member).nested},

		{name: "change", weight: 12, kinds: anyKind, may: mayChange, acquires: notLeased, do: (*member).change},
		{name: "raw", weight: 2, kinds: anyKind, may: func(m *member, _ int) bool { return m.conn != nil && m.tx == nil }, do: (*member).raw},
		{name: "query", weight: 8, kinds: anyKind, may: free, acquires: notLeased, do: (*member).query},
		{name: "exec", weight: 6, kinds: anyKind, may: free, acquires: notLeased, do: func(m *member, _ int) { m.exec("INSERT INTO c") }},
		{name: "ping", weight: 1, kinds: anyKind, may: free, acquires: notLeased, do: (*member).ping},
		{name: "late results", weight: 3, kinds: anyKind, quiet: true, may: func(m *member, _ int) bool { return len(m.results) > 0 }, do: (*member).askResults},

		{name: "open rows", weight: 4, kinds: anyKind, may: func(m *member, _ int) bool { return m.rows == nil }, acquires: notLeased, do: (*member).openRows},
		{name: "next row", weight: 4, kinds: anyKind, may: func(m *member, _ int) bool { return m.rows != nil }, do: (*member).nextRow},
		{name: "close rows", weight: 3, kinds: anyKind, may: func(m *member, _ int) bool { return m.rows != nil }, do: (*member).closeRows},

		{name: "prepare", weight: 6, kinds: anyKind, may: mayPrepare, acquires: notLeased, do: (*member).prepare},
		{name: "bind", weight: 4, kinds: anyKind, may: mayBind, do: (*member).bind},
		{name: "use", weight: 12, kinds: anyKind, may: mayUse, acquires: notLeased, do: (*member).use},
		{name: "close statement", weight: 4, kinds: anyKind, quiet: true, may: func(m *member, how int) bool { return m.own[how%2] != nil }, do: (*member).closeOwn},
		{name: "use shared", weight: 14, kinds: anyKind, may: mayUseShared, acquires: notLeased, do: (*member).useShared},
		{name: "make shared", weight: 2, kinds: messy, may: notHolding, acquires: always, do: (*member).makeShared},
		{name: "close shared", weight: 1, kinds: messy, quiet: true, may: mayCloseShared, do: (*member).closeShared},

		{name: "wrong", weight: 5, kinds: anyKind, now: (*member).plant},
		{name: "slow", weight: 5, kinds: anyKind, now: func(m *member, how int) { m.slow, m.cancels = true, how%3 == 0 }},
	}
}

// mostTimes is how often in a row a driver answers driver.ErrBadConn where others wait,
// too. database/sql tries three times, so that the bare driver gets over two; another way
// may not, see the scene in which two sessions prove bad.
const mostTimes = 1

// plant says what goes wrong in the next step.
func (m *member) plant(how int) {
	p := plant{err: [...]error{driver.ErrBadConn, driver.ErrBadConn, errBroken, errBroken}[how%4], times: 1 + how/4%3}
	p.kills, p.after = how%4 == 3, how/16%4 == 0
	if kind := [...]string{"", "", "", "reset", "prepare", "next"}[how/32%6]; m.kind != tidy && kind != "" {
		p.kind, p.after = kind, false
	}
	if m.kind != inLine {
		p.times = min(p.times, mostTimes)
	}
	if p.kind == "next" {
		p.err = errBroken
	}
	m.next = p
}

// event is what happens around the members.
type event struct {
	name  string
	kinds [crowdKinds]bool
	may   func(s *stage, how int) bool // nil: always
	do    func(s *stage, how int)
}

var spans = [...]time.Duration{137 * time.Millisecond, 1370 * time.Millisecond, 31_700 * time.Millisecond, 127_300 * time.Millisecond}

var events = []event{
	{name: "limit", kinds: anyKind, may: mayLimit, do: func(s *stage, how int) {
		s.setLimit(1 + how%4)
		if s.kind == inLine {
			s.letTakeOver()
		}
	}},
	{name: "idle", kinds: anyKind, do: func(s *stage, how int) { s.setIdle(how % 4) }},
	{name: "idle time", kinds: anyKind, do: func(s *stage, how int) {
		s.idleTime = idleTimes[how%len(idleTimes)]
		s.db.SetConnMaxIdleTime(s.idleTime)
	}},
	{name: "pass", kinds: anyKind, do: func(_ *stage, how int) { pass(spans[how%len(spans)]) }},
	{name: "pass", kinds: anyKind, do: func(_ *stage, how int) { pass(spans[how%len(spans)]) }},
	{name: "restart", kinds: messy, may: func(s *stage, _ int) bool { return s.kind == wild || !s.calling() }, do: func(s *stage, _ int) { s.server.restart() }},
	// Of statements that have twins another way cannot tell which of them was made before.
	{name: "alter", kinds: messy, may: func(s *stage, _ int) bool { return s.kind == wild || !s.twins }, do: func(s *stage, _ int) { s.server.alter() }},
	{name: "refuse", kinds: messy, do: func(s *stage, how int) { s.server.refuse(time.Duration(1+how%3) * 2 * breath) }},
	{name: "look", kinds: lined, do: func(s *stage, _ int) {
		pass(300 * time.Millisecond)
		s.look()
		s.out.looks[len(s.out.looks)-1].statements = 0 // these may take a while
	}},
}

// mayLimit: database/sql lets those who wait wait on when the limit is raised; and when
// it is lowered, goes on to give out those idle connections that are above it. Neither is
// the meaning of a limit.
func mayLimit(s *stage, how int) bool {
	n := 1 + how%4
	if s.kind != inLine {
		return true
	}
	if n > s.limit {
		return !s.waiting(nil)
	}
	open := s.server.left().connections
	return open <= n || open == s.held()
}

// takeOver is how long another way may take to take over a limit, while somebody holds a
// connection, or waits.
const takeOver = 1250 * time.Millisecond

// letTakeOver waits for that.
func (s *stage) letTakeOver() {
	if s.held() == 0 && !s.waiting(nil) {
		ctx, cancel := context.WithTimeout(s.ctx, takeOver)
		defer cancel()
		if c, err := s.db.Conn(ctx); err == nil {
			defer c.Close() //nolint:errcheck // nothing was done with it
		}
	}
	pass(takeOver)
}

// held is how many connections members have.
func (s *stage) held() (n int) {
	for _, m := range s.members {
		if m.leased() && !m.gone {
			n++
		}
		if m.rowsOf > 0 || m.isIn() && m.deed.acquires {
			n++
		}
	}
	return n
}

func (s *server) alter() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.tick++
	s.altered = s.tick
}

// refuse has dials fail for some time. How many are tried in it may differ.
func (s *server) refuse(long time.Duration) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.refuses = time.Now().Add(long)
}

// on is what a member's calls go to.
func (m *member) on() caller {
	switch {
	case m.tx != nil:
		return m.tx
	case m.conn != nil:
		return m.conn
	}
	return m.db
}

// acquired notes a lease that was acquired; false: it was not.
func (m *member) acquired(err error) bool {
	if err != nil {
		return m.done(err)
	}
	m.number, m.dirty, m.gone, m.database = m.deed.lease, false, false, -1
	if m.cleans {
		m.database = 0
	}
	m.note("ok")
	return m.ended(nil)
}

func (m *member) takeConn(int) {
	c, err := m.db.Conn(m.doKeep("reset"))
	if m.acquired(err) {
		m.cancel()
		m.conn = c
	}
}

func (m *member) takeTx(int) {
	m.settleRows()
	m.next.after = m.next.after && !m.cleans // else it is open, and nobody knows
	if m.conn == nil {
		tx, err := m.db.BeginTx(m.doKeep("begin"), nil)
		if m.acquired(err) {
			m.tx, m.endTx = tx, m.cancel
		}
		return
	}
	tx, err := m.conn.BeginTx(m.do("begin"), nil)
	if err != nil {
		m.done(err)
		return
	}
	m.note("ok")
	m.tx, m.endTx = tx, m.cancel
	m.ended(nil)
}

// end ends a transaction.
func (m *member) end(how int) {
	if m.conn == nil {
		m.clean()
		m.server.over(m.number)
	}
	if how/2%8 == 7 {
		m.server.plantEnd(m.number, m.cleans || how >= 128)
	}
	end := (*sql.Tx).Commit
	if how%2 == 1 {
		end = (*sql.Tx).Rollback
	}
	name := m.name(end(m.tx))
	m.note("ended, %s", name)
	m.endTx()
	m.tx, m.endTx = nil, nil
	m.gone = m.gone || name == driver.ErrBadConn.Error()
	if m.conn == nil {
		m.number = 0
	}
	m.release()
}

func (s *server) plantEnd(lease int, bad bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.ends[lease] = errBroken
	if bad {
		s.ends[lease] = driver.ErrBadConn
	}
}

// release lets go of the statements that a transaction, or rows, referred to.
func (m *member) release() {
	if m.tx != nil || m.rows != nil {
		return
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, k := range m.refs {
		m.using[k]--
	}
	m.refs, m.deferred = nil, false
}

func (m *member) cancelTx(int) {
	if m.conn == nil {
		m.server.over(m.number)
	}
	m.endTx()
	m.gone = m.conn == nil
	m.note("canceled")
}

// giveBack gives back all that is in hand.
func (m *member) giveBack(rollback bool) {
	if m.rows != nil {
		m.closeRows(0)
	}
	if m.tx != nil {
		how := 0
		if rollback {
			how = 1
		}
		m.end(how)
	}
	if m.conn == nil {
		return
	}
	m.clean()
	m.server.over(m.number)
	m.note("given back, %s", m.name(m.conn.Close()))
	m.conn, m.number = nil, 0
}

// clean makes a session what it was when it was dialed.
func (m *member) clean() {
	if !m.cleans || !m.dirty {
		return
	}
	m.next, m.slow = plant{}, false
	if m.texted {
		m.exec("ROLLBACK")
		m.texted = false
	}
	for _, text := range []string{"USE 0", "RESET s", "DROP TABLE temporary", "SELECT RELEASE_ALL_LOCKS()"} {
		m.exec(text)
	}
	m.dirty = false
}

func (m *member) try(int) {
	c, err := m.db.Conn(m.doKeep("reset"))
	if err == nil {
		m.server.over(m.deed.lease)
		err = c.Close()
	}
	m.cancel()
	if name := m.tried(err); m.kind != tidy {
		m.note("%s", name)
	}
	m.deed = nil
}

// tried names how a try ended: in a tidy crowd, that it did is all that is determined.
func (m *member) tried(err error) string {
	m.server.over(m.deed.lease)
	m.despair()
	if err == nil {
		return "ok"
	}
	return m.check(err)
}

func (m *member) nested(int) {
	res, err := m.db.ExecContext(m.alone("exec"), "INSERT INTO c")
	if m.done(err) {
		m.keep(res)
	}
}

func (m *member) ping(int) {
	m.settleRows()
	var err error
	if m.tx == nil && m.conn != nil {
		err = m.conn.PingContext(m.do("ping"))
	} else if m.tx == nil {
		ctx := m.do("ping")
		m.deed.once = true
		err = m.db.PingContext(ctx)
	} else {
		return
	}
	if m.done(err) {
		m.note("ok")
	}
}

func (m *member) keep(res sql.Result) {
	m.note("done")
	if len(m.results) < 4 {
		m.results = append(m.results, res)
	}
}

func (m *member) askResults(int) {
	for _, r := range m.results {
		n, err := r.RowsAffected()
		m.note("%d, %s", n, m.name(err))
	}
	m.results = nil
}
