package fidelity

import (
	"context"
	"database/sql"
	"database/sql/driver"
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"
	"testing/synctest"
	"time"
)

// Every byte string is a program: it says which kind of driver it runs on, and
// then, byte by byte, what the application does, what the driver answers and
// when contexts end. Panics and limits are not among it: where they make a
// difference it is wanted, and they have tests of their own.

// slots is how many things of a kind a program has at hand.
const slots = 2

// machine runs a program on one pool.
type machine struct {
	*run
	program []byte
	conns   [slots]*sql.Conn
	txs     [slots]*sql.Tx
	stmts   [slots]*sql.Stmt
	rows    [slots]*sql.Rows
	ended   bool   // the next call's context has ended
	ends    string // the kind of driver call in which it ends; empty: it does not
	prepped int    // how many statements were prepared
}

// pick takes a byte as a number below n.
func (m *machine) pick(n int) int {
	if len(m.program) == 0 {
		return 0
	}
	b := m.program[0]
	m.program = m.program[1:]
	return int(b) % n
}

// ctx is the context of the next call.
func (m *machine) ctx() context.Context {
	ctx, cancel := context.WithCancel(m.t.Context())
	m.t.Cleanup(cancel)
	if m.ended {
		cancel()
	}
	if m.ends != "" {
		m.f.within(m.ends, cancel)
	}
	m.ended, m.ends = false, ""
	return tagged(ctx, "fuzz")
}

// caller is the pool, a connection or a transaction.
func (m *machine) caller() caller {
	i := m.pick(slots)
	switch m.pick(3) {
	case 1:
		if c := m.conn(i); c != nil {
			return c
		}
	case 2:
		if m.txs[i] != nil {
			return m.txs[i]
		}
	}
	return m.db
}

// conn is a connection, for a call. What is open is ended first: a connection
// that proves bad is closed by database/sql in the call, which then waits for
// whatever else is open on it, for ever.
func (m *machine) conn(i int) *sql.Conn {
	if m.conns[i] != nil {
		m.settle()
	}
	return m.conns[i]
}

var (
	fuzzQueries = []string{"INSERT", "SELECT ?", "SELECT nothing", "UPDATE ? ?"}
	fuzzErrors  = []error{errBroken, driver.ErrBadConn, driver.ErrSkip, fmt.Errorf("no connection: %w", driver.ErrBadConn), context.DeadlineExceeded, sql.ErrNoRows}
	fuzzKinds   = slices.Concat(kinds, []string{"exec", "query", "prepare", "begin"}) // more often
	fuzzArgs    = [][]any{{}, {1}, {"one", 2}, {special{1}}, {removed{}, 1}, {refused{}}, {sql.Named("n", 1)}, {text{"x"}, nil}}
)

func (m *machine) query() string { return fuzzQueries[m.pick(len(fuzzQueries))] }
func (m *machine) args() []any   { return fuzzArgs[m.pick(len(fuzzArgs))] }

// instructions are what a byte of a program can mean.
var instructions = []func(*machine){
	func(m *machine) { m.executed(m.caller().ExecContext(m.ctx(), m.query(), m.args()...)) },
	func(m *machine) { m.open(m.caller().QueryContext(m.ctx(), m.query(), m.args()...)) },
	func(m *machine) { m.row(m.caller(), m.query(), m.args()...) },
	func(m *machine) { m.next(m.pick(slots)) },
	func(m *machine) { m.next(m.pick(slots)) },
	func(m *machine) { m.closeRows(m.pick(slots)) },
	func(m *machine) {
		if rows := m.rows[m.pick(slots)]; rows != nil {
			m.note("next set %t", rows.NextResultSet())
		}
	},
	(*machine).beginTx,
	func(m *machine) { m.endTx(m.pick(slots), (*sql.Tx).Commit) },
	func(m *machine) { m.endTx(m.pick(slots), (*sql.Tx).Rollback) },
	(*machine).takeConn,
	func(m *machine) { m.closeConn(m.pick(slots)) },
	(*machine).prepareStmt,
	func(m *machine) {
		if st := m.stmts[m.pick(slots)]; st != nil {
			m.executed(st.ExecContext(m.ctx(), m.args()...))
		}
	},
	func(m *machine) {
		if st := m.stmts[m.pick(slots)]; st != nil {
			m.open(st.QueryContext(m.ctx(), m.args()...))
		}
	},
	func(m *machine) {
		if tx, st := m.txs[m.pick(slots)], m.stmts[m.pick(slots)]; tx != nil && st != nil {
			m.executed(tx.StmtContext(m.ctx(), st).ExecContext(m.t.Context(), m.args()...))
		}
	},
	func(m *machine) { m.closeStmt(m.pick(slots)) },
	func(m *machine) { m.check(m.db.PingContext(m.ctx())) },
	func(m *machine) {
		if c := m.conn(m.pick(slots)); c != nil {
			m.check(c.PingContext(m.ctx()))
		}
	},
	func(m *machine) {
		if c := m.conn(m.pick(slots)); c != nil {
			err := slices.Concat([]error{nil}, fuzzErrors)[m.pick(1+len(fuzzErrors))]
			m.check(c.Raw(func(any) error { return err }))
		}
	},
	func(m *machine) { m.plant() },
	func(m *machine) { m.plant() },
	func(m *machine) { m.ended = true },
	func(m *machine) { m.ends = fuzzKinds[m.pick(len(fuzzKinds))] },
	func(m *machine) { m.db.SetMaxIdleConns(m.pick(4) - 1) },
	func(m *machine) { m.db.SetConnMaxLifetime(time.Duration(m.pick(4)) * time.Minute) },
	func(m *machine) { m.db.SetConnMaxIdleTime(time.Duration(m.pick(4)) * time.Minute) },
	func(m *machine) { pass(time.Duration(m.pick(5)) * 25 * time.Second) },
}

// plant makes the next calls of a kind fail.
func (m *machine) plant() {
	kind := fuzzKinds[m.pick(len(fuzzKinds))]
	err := fuzzErrors[m.pick(len(fuzzErrors))]
	if err == driver.ErrSkip && kind != "exec" && kind != "query" {
		err = errBroken // no driver declines these
	}
	m.f.answer(kind, slices.Repeat([]error{err}, []int{1, 1, 2, 3, 9}[m.pick(5)])...)
}

func (m *machine) open(rows *sql.Rows, err error) {
	if !m.check(err) {
		return
	}
	i := slices.Index(m.rows[:], nil)
	if i < 0 {
		m.check(rows.Close())
		return
	}
	m.rows[i] = rows
}

func (m *machine) next(i int) {
	if m.rows[i] == nil {
		return
	}
	if !m.rows[i].Next() {
		m.check(m.rows[i].Err())
		return
	}
	var id int64
	var name string
	m.check(m.rows[i].Scan(&id, &name))
	m.note("row %d %s", id, name)
}

func (m *machine) closeRows(i int) {
	if m.rows[i] != nil {
		m.check(m.rows[i].Close())
		m.rows[i] = nil
	}
}

func (m *machine) beginTx() {
	i := m.pick(slots)
	opts := &sql.TxOptions{Isolation: sql.IsolationLevel(m.pick(3) / 2), ReadOnly: m.pick(4) == 3}
	if m.txs[i] != nil {
		return
	}
	begin := m.db.BeginTx
	if c := m.conn(i); c != nil && m.pick(2) == 1 {
		begin = c.BeginTx
	}
	tx, err := begin(m.ctx(), opts)
	if m.check(err) {
		m.txs[i] = tx
	}
}

func (m *machine) endTx(i int, end func(*sql.Tx) error) {
	if m.txs[i] != nil {
		m.check(end(m.txs[i]))
		m.txs[i] = nil
	}
}

func (m *machine) takeConn() {
	i := m.pick(slots)
	if m.conns[i] != nil {
		return
	}
	c, err := m.db.Conn(m.ctx())
	if m.check(err) {
		m.conns[i] = c
	}
}

// closeConn first ends what is done with the connection, since it waits for it.
func (m *machine) closeConn(i int) {
	if m.conns[i] == nil {
		return
	}
	m.settle()
	m.check(m.conns[i].Close())
	m.conns[i] = nil
}

// settle ends all rows and transactions.
func (m *machine) settle() {
	for i := range slots {
		m.closeRows(i)
	}
	for i := range slots {
		m.endTx(i, (*sql.Tx).Rollback)
	}
	synctest.Wait()
}

func (m *machine) prepareStmt() {
	i := m.pick(slots)
	m.closeStmt(i)
	st, err := m.caller().PrepareContext(m.ctx(), m.query())
	if m.check(err) {
		m.stmts[i] = st
		m.prepped++
	}
}

func (m *machine) closeStmt(i int) {
	if m.stmts[i] != nil {
		m.check(m.stmts[i].Close())
		m.stmts[i] = nil
	}
}

// execute runs the program, and ends what it left open.
func (m *machine) execute() {
	for len(m.program) > 0 {
		instructions[m.pick(len(instructions))](m)
		synctest.Wait()
	}
	m.settle()
	for i := range slots {
		m.closeStmt(i)
		m.closeConn(i)
	}
	m.f.forget()
	m.exec(m.db, "LAST")
}

// RandomProgram is a program for Program.
func RandomProgram(seed uint64) []byte {
	r := rand.New(rand.NewPCG(seed, 3))
	program := make([]byte, 10+r.IntN(150))
	for i := range program {
		program[i] = byte(r.Uint32())
	}
	return program
}

// Program runs a program bare and as opened, and compares.
func Program(t *testing.T, open Open, program []byte) {
	kind, program := program[:min(4, len(program))], program[min(4, len(program)):]
	runProgram(t, open, anyProfile(kind), program)
}

// runProgram runs a program on one kind of driver. Where two goroutines give
// their connections back at once, which of them the next call gets is open: what
// the wrapped one does must be among what the bare one does.
func runProgram(t *testing.T, open Open, p Profile, program []byte) {
	s := Step{"program", func(r *run) { (&machine{run: r, program: slices.Clone(program)}).execute() }}
	var bares []Outcome
	for range 30 {
		bares = append(bares, play(t, p, bare, s))
		w := play(t, p, open, s)
		if slices.ContainsFunc(bares, func(b Outcome) bool { return like(b, w) }) {
			return
		}
	}
	t.Errorf("profile %q, program %v", p.Name, program)
	compare(t, bares[0], play(t, p, open, s))
}

// anyProfile is a kind of driver by number: one of those that there are, or any
// combination of interfaces that there may be.
func anyProfile(number []byte) Profile {
	number = append(slices.Clone(number), 0, 0, 0, 0)
	if i := int(number[0]); i < 64 {
		return Profiles[i%len(Profiles)]
	}
	return matrixProfile(int(number[0])*256+int(number[1]), int(number[2]), int(number[3]))
}
