package fidelity

import (
	"context"
	"database/sql"
	"database/sql/driver"
	"fmt"
	"io"
	"math"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
)

// run is one step on one pool.
type run struct {
	*Outcome
	t  *testing.T
	db *sql.DB
	f  *fake
}

// Step is a piece of an application. It runs in a synctest bubble, so that
// what happens on other goroutines is waited for, and time costs nothing.
type Step struct {
	Name string
	do   func(*run)
}

func (r *run) note(format string, args ...any) {
	r.results = append(r.results, fmt.Sprintf(format, args...))
}

// check notes an error and tells whether there is none.
func (r *run) check(err error) bool {
	r.errs = append(r.errs, err)
	return err == nil
}

// stats notes what database/sql knows of the pool.
func (r *run) stats() {
	s := r.db.Stats()
	r.note("open %d, idle %d, in use %d; closed: idle %d, idle time %d, lifetime %d",
		s.OpenConnections, s.Idle, s.InUse, s.MaxIdleClosed, s.MaxIdleTimeClosed, s.MaxLifetimeClosed)
}

// caller is what *sql.DB, *sql.Tx and *sql.Conn have in common.
type caller interface {
	ExecContext(ctx context.Context, query string, args ...any) (sql.Result, error)
	QueryContext(ctx context.Context, query string, args ...any) (*sql.Rows, error)
	QueryRowContext(ctx context.Context, query string, args ...any) *sql.Row
	PrepareContext(ctx context.Context, query string) (*sql.Stmt, error)
}

func (r *run) exec(c caller, query string, args ...any) {
	r.executed(c.ExecContext(tagged(r.t.Context(), "exec"), query, args...))
}

func (r *run) executed(res sql.Result, err error) {
	if !r.check(err) {
		return
	}
	id, idErr := res.LastInsertId()
	n, nErr := res.RowsAffected()
	r.note("result %d %d", id, n)
	r.check(idErr)
	r.check(nErr)
}

func (r *run) query(c caller, query string, args ...any) {
	r.read(c.QueryContext(tagged(r.t.Context(), "query"), query, args...))
}

// read reads all result sets. Between its steps it lets database/sql close the
// rows, which it does on a goroutine of its own, if their context has ended.
func (r *run) read(rows *sql.Rows, err error) {
	if !r.check(err) {
		return
	}
	for more := true; more; more = rows.NextResultSet() {
		synctest.Wait()
		r.note("result set")
		for rows.Next() {
			synctest.Wait()
			var id int64
			var name string
			r.check(rows.Scan(&id, &name))
			r.note("row %d %s", id, name)
		}
	}
	r.check(rows.Err())
	r.check(rows.Close())
}

func (r *run) row(c caller, query string, args ...any) {
	var id int64
	var name string
	if r.check(c.QueryRowContext(tagged(r.t.Context(), "row"), query, args...).Scan(&id, &name)) {
		r.note("row %d %s", id, name)
	}
}

// all makes one call of each kind.
func (r *run) all(c caller, args ...any) {
	marks := strings.TrimSpace(strings.Repeat(" ?", len(args)))
	r.exec(c, "INSERT "+marks, args...)
	r.query(c, "SELECT "+marks, args...)
	r.row(c, "SELECT row "+marks, args...)
	st, err := c.PrepareContext(tagged(r.t.Context(), "prepare"), "PREPARED "+marks)
	if !r.check(err) {
		return
	}
	r.executed(st.ExecContext(tagged(r.t.Context(), "stmt"), args...))
	r.read(st.QueryContext(tagged(r.t.Context(), "stmt"), args...))
}

// begin begins a transaction; nil if that failed.
func (r *run) begin(ctx context.Context, opts *sql.TxOptions) *sql.Tx {
	tx, err := r.db.BeginTx(tagged(ctx, "tx"), opts)
	r.check(err)
	return tx
}

// conn takes a connection; nil if that failed.
func (r *run) conn() *sql.Conn {
	c, err := r.db.Conn(tagged(r.t.Context(), "conn"))
	r.check(err)
	return c
}

// pass lets virtual time pass.
func pass(d time.Duration) {
	if d > 0 {
		<-time.After(d)
	}
}

type text struct{ s string }

func (x text) Value() (driver.Value, error) { return "text " + x.s, nil }

type broken struct{}

func (broken) Value() (driver.Value, error) { return nil, errBroken }

// arguments that drivers see, do not see, change or refuse.
var argumentSets = [][]any{
	{},
	{1, "two", 3.0, true, nil, []byte("six")},
	{sql.Named("first", 1), sql.Named("second", "two")},
	{1, sql.Named("second", 2)},
	{special{7}},
	{removed{}, 2},
	{1, removed{}},
	{refused{}},
	{sql.Named("it", refused{})},
	{text{"x"}, sql.NullString{}, time.Unix(0, 0).UTC()},
	{broken{}},
	{uint64(math.MaxUint64)},
	{struct{}{}},
	{new(int)},
	{sql.Out{Dest: new(int)}},
}

func argumentSteps() (steps []Step) {
	for i, args := range argumentSets {
		steps = append(steps, Step{fmt.Sprintf("arguments %d", i), func(r *run) { r.all(r.db, args...) }})
	}
	return steps
}

// kinds of driver call that may fail.
var kinds = []string{
	"connect", "reset", "valid", "ping", "prepare", "exec", "query", "next", "next result set", "rows close", "begin", "commit", "rollback",
}

// failureSteps make every kind of call fail, once, and for ever, in the ways
// that database/sql tells apart.
func failureSteps() (steps []Step) {
	for _, kind := range kinds {
		for _, err := range []error{errBroken, driver.ErrBadConn, fmt.Errorf("no connection: %w", driver.ErrBadConn), io.EOF, sql.ErrNoRows} {
			for _, times := range []int{1, 20} {
				steps = append(steps, Step{fmt.Sprintf("%s fails %d times: %v", kind, times, err), func(r *run) {
					fails := slices.Repeat([]error{err}, times)
					if kind != "connect" {
						r.check(r.db.PingContext(r.t.Context()))
					}
					r.f.answer(kind, fails...)
					r.everyCall()
					r.f.answer(kind)
					r.everyCall()
				}})
			}
		}
	}
	return steps
}

// endingSteps end the caller's context inside each kind of call.
func endingSteps() (steps []Step) {
	for _, kind := range kinds {
		steps = append(steps, Step{"context ends in " + kind, func(r *run) {
			ctx, cancel := context.WithCancel(r.t.Context())
			defer cancel()
			r.f.within(kind, func() { cancel() })
			r.executed(r.db.ExecContext(ctx, "INSERT"))
			synctest.Wait()
			r.read(r.db.QueryContext(ctx, "SELECT"))
			synctest.Wait()
			if tx := r.begin(ctx, nil); tx != nil {
				synctest.Wait()
				r.executed(tx.ExecContext(r.t.Context(), "INSERT"))
				synctest.Wait()
				r.check(tx.Commit())
			}
			synctest.Wait()
			r.check(r.db.PingContext(ctx))
			r.everyCall()
		}})
	}
	return steps
}

// everyCall makes calls of every kind on the pool.
func (r *run) everyCall() {
	r.check(r.db.PingContext(tagged(r.t.Context(), "ping")))
	r.exec(r.db, "INSERT")
	r.query(r.db, "SELECT ?", 1)
	for _, finish := range []func(*sql.Tx) error{(*sql.Tx).Commit, (*sql.Tx).Rollback} {
		if tx := r.begin(r.t.Context(), nil); tx != nil {
			r.exec(tx, "INSERT ?", 1)
			r.row(tx, "SELECT")
			r.check(finish(tx))
		}
	}
}

// Steps are an application, taken apart.
var Steps = slices.Concat(argumentSteps(), failureSteps(), endingSteps(), []Step{
	{"calls on a transaction", func(r *run) {
		tx := r.begin(r.t.Context(), nil)
		r.all(tx, 1, "two")
		r.check(tx.Commit())
		r.check(tx.Rollback())
		r.exec(tx, "INSERT")
		tx = r.begin(r.t.Context(), &sql.TxOptions{})
		r.all(tx)
		r.check(tx.Rollback())
		r.check(tx.Commit())
	}},
	{"calls on a connection", func(r *run) {
		c := r.conn()
		r.check(c.PingContext(tagged(r.t.Context(), "ping")))
		r.all(c, 1)
		tx, err := c.BeginTx(tagged(r.t.Context(), "tx"), nil)
		if r.check(err) {
			r.all(tx, 1)
			r.check(tx.Commit())
		}
		r.check(c.Close())
		r.check(c.Close())
		r.exec(c, "INSERT")
	}},
	{"isolation level", func(r *run) {
		for _, level := range []sql.IsolationLevel{sql.LevelDefault, sql.LevelReadCommitted, sql.LevelSerializable} {
			if tx := r.begin(r.t.Context(), &sql.TxOptions{Isolation: level}); tx != nil {
				r.check(tx.Commit())
			}
		}
	}},
	{"read only", func(r *run) {
		if tx := r.begin(r.t.Context(), &sql.TxOptions{ReadOnly: true}); tx != nil {
			r.exec(tx, "INSERT")
			r.check(tx.Rollback())
		}
	}},
	{"row that is not there", func(r *run) {
		r.row(r.db, "SELECT nothing")
		r.row(r.db, "SELECT nothing ?", 1)
	}},
	{"wrong number of arguments", func(r *run) {
		r.exec(r.db, "INSERT ? ?", 1)
		r.query(r.db, "SELECT ?", 1, 2)
		st, err := r.db.PrepareContext(r.t.Context(), "INSERT ?")
		r.check(err)
		r.executed(st.ExecContext(r.t.Context()))
		r.read(st.QueryContext(r.t.Context(), 1, 2))
	}},
	{"prepared statement used again", func(r *run) {
		st, err := r.db.PrepareContext(tagged(r.t.Context(), "prepare"), "INSERT ?")
		r.check(err)
		for i := range 3 {
			r.executed(st.ExecContext(r.t.Context(), i))
			r.read(st.QueryContext(r.t.Context(), i))
		}
	}},
	{"prepared statement in a transaction", func(r *run) {
		st, err := r.db.PrepareContext(r.t.Context(), "INSERT ?")
		r.check(err)
		tx := r.begin(r.t.Context(), nil)
		in := tx.StmtContext(r.t.Context(), st)
		r.executed(in.ExecContext(r.t.Context(), 1))
		r.check(in.Close())
		own, err := tx.PrepareContext(r.t.Context(), "UPDATE ?")
		r.check(err)
		r.executed(own.ExecContext(r.t.Context(), 1))
		r.check(tx.Commit())
		r.executed(own.ExecContext(r.t.Context(), 1))
		r.executed(st.ExecContext(r.t.Context(), 2))
	}},
	{"prepared statement on several connections", func(r *run) {
		st, err := r.db.PrepareContext(r.t.Context(), "INSERT ?")
		r.check(err)
		a, b := r.conn(), r.conn()
		r.executed(st.ExecContext(r.t.Context(), 1))
		r.check(a.Close())
		r.check(b.Close())
		for i := range 5 {
			r.executed(st.ExecContext(r.t.Context(), i))
		}
	}},
	{"prepared statement outlives its connection", func(r *run) {
		st, err := r.db.PrepareContext(r.t.Context(), "INSERT ?")
		r.check(err)
		r.f.answer("exec", driver.ErrBadConn)
		r.executed(st.ExecContext(r.t.Context(), 1))
		r.executed(st.ExecContext(r.t.Context(), 2))
	}},
	{"statement closed on a connection in hand", func(r *run) {
		c := r.conn()
		st, err := c.PrepareContext(r.t.Context(), "INSERT ?")
		r.check(err)
		r.executed(st.ExecContext(r.t.Context(), 1))
		r.check(st.Close())
		r.executed(st.ExecContext(r.t.Context(), 1))
		r.check(c.Close())
	}},
	{"statement closed while its handle is idle", func(r *run) {
		st, err := r.db.PrepareContext(r.t.Context(), "INSERT ?")
		r.check(err)
		r.executed(st.ExecContext(r.t.Context(), 1))
		r.check(st.Close())
		r.executed(st.ExecContext(r.t.Context(), 1))
		r.exec(r.db, "UPDATE")
	}},
	{"context of a transaction ends", func(r *run) {
		ctx, cancel := context.WithCancel(r.t.Context())
		tx := r.begin(ctx, nil)
		r.exec(tx, "INSERT")
		cancel()
		synctest.Wait()
		r.exec(tx, "INSERT")
		r.check(tx.Commit())
		r.exec(r.db, "INSERT")
	}},
	{"context of a transaction ends with rows open", func(r *run) {
		ctx, cancel := context.WithCancel(r.t.Context())
		tx := r.begin(ctx, nil)
		rows, err := tx.QueryContext(r.t.Context(), "SELECT")
		r.check(err)
		r.note("%t", rows.Next())
		cancel()
		synctest.Wait()
		r.note("%t", rows.Next())
		r.check(rows.Err())
		r.check(rows.Close())
		r.check(tx.Rollback())
		r.exec(r.db, "INSERT")
	}},
	{"context of a transaction ended long before", func(r *run) {
		ctx, cancel := context.WithCancel(r.t.Context())
		cancel()
		r.check(r.db.PingContext(r.t.Context()))
		_ = r.begin(ctx, nil)
	}},
	{"context of a query ends with rows open", func(r *run) {
		ctx, cancel := context.WithCancel(r.t.Context())
		rows, err := r.db.QueryContext(ctx, "SELECT")
		r.check(err)
		r.note("%t", rows.Next())
		cancel()
		synctest.Wait()
		r.note("%t", rows.Next())
		r.check(rows.Err())
		r.check(rows.Close())
	}},
	{"context has ended before", func(r *run) {
		r.check(r.db.PingContext(r.t.Context()))
		ctx, cancel := context.WithCancel(r.t.Context())
		cancel()
		r.executed(r.db.ExecContext(ctx, "INSERT"))
		r.read(r.db.QueryContext(ctx, "SELECT"))
		_, err := r.db.PrepareContext(ctx, "INSERT")
		r.check(err)
		r.check(r.db.PingContext(ctx))
		c := r.conn()
		r.executed(c.ExecContext(ctx, "INSERT"))
		r.read(c.QueryContext(ctx, "SELECT"))
		_, err = c.PrepareContext(ctx, "INSERT")
		r.check(err)
		r.check(c.PingContext(ctx))
		_, err = c.BeginTx(ctx, nil)
		r.check(err)
		synctest.Wait() // the rollback, or else it races with Close
		r.check(c.Close())
	}},
	{"context ends within a deadline of its own", func(r *run) {
		ctx, cancel := context.WithTimeout(r.t.Context(), time.Minute)
		defer cancel()
		tx := r.begin(ctx, nil)
		pass(time.Hour)
		synctest.Wait()
		r.exec(tx, "INSERT")
		r.check(tx.Commit())
	}},
	{"rows closed before their end", func(r *run) {
		rows, err := r.db.QueryContext(r.t.Context(), "SELECT ?", 1)
		r.check(err)
		r.note("%t", rows.Next())
		r.check(rows.Close())
		r.check(rows.Close())
		r.note("%t", rows.Next())
		r.note("%t", rows.NextResultSet())
	}},
	{"result set skipped", func(r *run) {
		rows, err := r.db.QueryContext(r.t.Context(), "SELECT")
		r.check(err)
		r.note("%t", rows.NextResultSet())
		r.note("%t", rows.Next())
		r.check(rows.Close())
	}},
	{"columns", func(r *run) {
		rows, err := r.db.QueryContext(r.t.Context(), "SELECT")
		r.check(err)
		names, err := rows.Columns()
		r.check(err)
		types, err := rows.ColumnTypes()
		r.check(err)
		for i, c := range types {
			length, hasLength := c.Length()
			precision, scale, hasScale := c.DecimalSize()
			nullable, known := c.Nullable()
			r.note("%s %s %q %v; length %d %t; scale %d %d %t; null %t %t", names[i], c.Name(), c.DatabaseTypeName(), c.ScanType(),
				length, hasLength, precision, scale, hasScale, nullable, known)
		}
		r.check(rows.Close())
		_, err = rows.Columns()
		r.check(err)
	}},
	{"ping", func(r *run) {
		r.check(r.db.PingContext(tagged(r.t.Context(), "ping")))
		r.check(r.db.Ping())
	}},
	{"connection in Raw", func(r *run) {
		c := r.conn()
		r.check(c.Raw(func(any) error { return errBroken }))
		r.check(c.Raw(func(any) error { return nil }))
		r.check(c.Raw(func(any) error { return driver.ErrBadConn }))
		r.check(c.Raw(func(any) error { return nil }))
		r.check(c.Close())
		r.exec(r.db, "INSERT")
	}},
	{"panic in Raw", func(r *run) {
		c := r.conn()
		assert.Panics(r.t, func() { _ = c.Raw(func(any) error { panic("in Raw") }) })
		r.check(c.Close())
		r.exec(r.db, "INSERT")
	}},
	{"connections at once", func(r *run) {
		a, b, c := r.conn(), r.begin(r.t.Context(), nil), r.conn()
		r.exec(r.db, "INSERT")
		r.stats()
		r.check(c.Close())
		r.check(b.Commit())
		r.check(a.Close())
		r.stats()
		r.exec(r.db, "INSERT")
	}},
	{"no idle connections", func(r *run) {
		r.db.SetMaxIdleConns(-1)
		r.all(r.db, 1)
	}},
	{"idle time", func(r *run) {
		r.db.SetConnMaxIdleTime(time.Minute)
		r.exec(r.db, "INSERT")
		pass(30 * time.Second)
		r.exec(r.db, "INSERT")
		r.stats()
		pass(time.Hour)
		r.stats()
		r.exec(r.db, "INSERT")
	}},
	{"lifetime", func(r *run) {
		r.db.SetConnMaxLifetime(time.Minute)
		for range 5 {
			r.exec(r.db, "INSERT")
			pass(25 * time.Second)
			r.stats()
		}
	}},
	{"limit", func(r *run) {
		r.db.SetMaxOpenConns(1)
		tx := r.begin(r.t.Context(), nil)
		done := make(chan struct{})
		go func() {
			defer close(done)
			defer r.recovered()
			r.exec(r.db, "INSERT")
			r.query(r.db, "SELECT ?", 1)
		}()
		synctest.Wait()
		r.exec(tx, "UPDATE")
		err := tx.Commit()
		<-done
		r.check(err)
	}},
	{"prepared statement at the limit", func(r *run) {
		r.db.SetMaxOpenConns(1)
		st, err := r.db.PrepareContext(r.t.Context(), "INSERT ?")
		r.check(err)
		tx := r.begin(r.t.Context(), nil)
		done := make(chan struct{})
		go func() {
			defer close(done)
			defer r.recovered()
			r.executed(st.ExecContext(r.t.Context(), 1))
		}()
		synctest.Wait()
		err = tx.Commit()
		<-done
		r.check(err)
		r.executed(st.ExecContext(r.t.Context(), 2))
	}},
	{"closed pool", func(r *run) {
		tx := r.begin(r.t.Context(), nil)
		r.check(r.db.Close())
		r.exec(tx, "INSERT")
		r.check(tx.Commit())
		r.exec(r.db, "INSERT")
		r.check(r.db.PingContext(r.t.Context()))
	}},
	{"limit as database/sql tells it", func(r *run) {
		r.db.SetMaxOpenConns(3)
		r.exec(r.db, "INSERT")
		r.note("%d", r.db.Stats().MaxOpenConnections)
	}},
	{"wait as database/sql tells it", func(r *run) {
		r.db.SetMaxOpenConns(1)
		c := r.conn()
		done := make(chan struct{})
		go func() {
			defer close(done)
			defer r.recovered()
			r.exec(r.db, "INSERT")
		}()
		synctest.Wait()
		r.note("in use %d, waits %d", r.db.Stats().InUse, r.db.Stats().WaitCount)
		err := c.Close()
		<-done
		r.check(err)
	}},
	{"context ends at the limit", func(r *run) {
		r.db.SetMaxOpenConns(1)
		c := r.conn()
		ctx, cancel := context.WithTimeout(r.t.Context(), time.Second)
		defer cancel()
		r.executed(r.db.ExecContext(ctx, "INSERT"))
		r.check(c.Close())
	}},
	{"type of the connection in Raw", func(r *run) {
		c := r.conn()
		r.check(c.Raw(func(conn any) error {
			r.note("%T", conn)
			return nil
		}))
		r.check(c.Close())
	}},
	{"name that no argument may have", func(r *run) {
		r.exec(r.db, "INSERT ?", sql.Named("1st", 1))
		r.query(r.db, "SELECT ?", sql.Named("1st", 1))
	}},
	{"panic in the driver", func(r *run) {
		c := r.conn()
		r.f.within("exec", func() { panic("in the driver") })
		assert.Panics(r.t, func() { _, _ = c.ExecContext(r.t.Context(), "INSERT") })
		r.check(c.Close())
		synctest.Wait()
		r.exec(r.db, "INSERT")
	}},
})
