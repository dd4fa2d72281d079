package behaviour

import (
	"context"
	"database/sql"
	"errors"
)

// Answer is what a driver does with a request that some servers cannot serve.
type Answer struct {
	Refuses bool   // it refuses to begin
	Code    string // of the error of what is not allowed; "": it is allowed after all
}

// transactions are about what is kept, what is not, and who sees it when.
var transactions = []Behaviour{
	{"commit and rollback", commitAndRollback},
	{"isolation levels", isolationLevels},
	{"read-only transactions", readOnly},
	{"savepoints", savepoints},
	{"an error in a transaction", errorInTx},
	{"a lock that another has", locked},
	{"a transaction whose context ends", contextEndsInTx},
	{"a transaction on a held connection", txOnConn},
}

func commitAndRollback(r *Run) {
	r.Table("kept", "id INT PRIMARY KEY")
	tx := r.Begin(nil)
	r.Exec(tx, "INSERT INTO kept VALUES (?)", 1)
	r.Is("seen inside", 1, r.Count(tx, "kept"))
	r.Is("seen outside", 0, r.Count(r.DB, "kept"))
	r.OK(tx.Commit())
	r.FailsAs(sql.ErrTxDone, "commit twice", tx.Commit())
	r.FailsAs(sql.ErrTxDone, "rollback after commit", tx.Rollback())
	_, err := tx.ExecContext(r.Context(), "DELETE FROM kept")
	r.FailsAs(sql.ErrTxDone, "exec after commit", err)
	tx = r.Begin(nil)
	r.Exec(tx, "DELETE FROM kept")
	r.OK(tx.Rollback())
	r.Is("rows", 1, r.Count(r.DB, "kept"))
	tx = r.Begin(nil)
	r.OK(tx.Commit())
	tx = r.Begin(nil)
	rows := r.Query(tx, "SELECT id FROM kept")
	r.Is("next", true, rows.Next())
	r.Ended("rollback with rows open", tx.Rollback())
	r.Saw("next after rollback", rows.Next())
	r.Ended("rows after rollback", rows.Err())
	r.Is("rows afterwards", 1, r.Count(r.DB, "kept"))
}

func isolationLevels(r *Run) {
	for level := sql.LevelDefault; level <= sql.LevelLinearizable+1; level++ {
		name := level.String()
		sees, has := r.Driver.Levels[level]
		tx, err := r.DB.BeginTx(context.WithoutCancel(r.Context()), &sql.TxOptions{Isolation: level})
		if err == nil {
			r.OK(tx.Rollback())
		}
		if !has {
			r.Fails(name, err)
			continue
		}
		r.OK(err)
		r.Table("levels", "id INT")
		tx = r.Begin(&sql.TxOptions{Isolation: level})
		r.Is(name+": before", 0, r.Count(tx, "levels"))
		_, err = r.DB.ExecContext(r.Context(), r.SQL.NoWait+"INSERT INTO levels VALUES (1)")
		r.Ended(name+": a commit by another", err)
		r.Is(name+": afterwards", sees, r.Count(tx, "levels"))
		r.OK(tx.Commit())
	}
	r.OK(r.DB.PingContext(r.Context()))
}

func readOnly(r *Run) {
	r.Table("reading", "id INT")
	conn := r.Conn()
	tx, err := conn.BeginTx(r.Context(), &sql.TxOptions{ReadOnly: true})
	if r.Driver.ReadOnly.Refuses {
		r.Fails("begin", err)
		return
	}
	r.OK(err)
	r.Is("read", 0, r.Count(tx, "reading"))
	_, err = tx.ExecContext(r.Context(), "INSERT INTO reading VALUES (1)")
	if code := r.Driver.ReadOnly.Code; code == "" {
		r.OK(err)
	} else {
		r.FailsWith(code, "write", err)
	}
	r.OK(tx.Rollback())
	r.Exec(conn, "INSERT INTO reading VALUES (1)")
	r.Is("rows written by the same session afterwards", 1, r.Count(conn, "reading"))
}

func savepoints(r *Run) {
	r.Table("saved", "id INT")
	tx := r.Begin(nil)
	for _, statement := range []string{
		"INSERT INTO saved VALUES (1)", "SAVEPOINT a",
		"INSERT INTO saved VALUES (2)", "SAVEPOINT b",
		"INSERT INTO saved VALUES (3)", "ROLLBACK TO SAVEPOINT b",
		"INSERT INTO saved VALUES (4)", "RELEASE SAVEPOINT b",
	} {
		r.Exec(tx, statement)
	}
	r.Is("rows inside", []int{1, 2, 4}, All[int](r, tx, "SELECT id FROM saved ORDER BY id"))
	_, err := tx.ExecContext(r.Context(), "ROLLBACK TO SAVEPOINT none")
	r.Fails("a savepoint that is not there", err)
	r.Exec(tx, "ROLLBACK TO SAVEPOINT a")
	r.OK(tx.Commit())
	r.Is("rows", []int{1}, All[int](r, r.DB, "SELECT id FROM saved"))
}

func errorInTx(r *Run) {
	r.Table("hurt", "id INT PRIMARY KEY")
	tx := r.Begin(nil)
	r.Exec(tx, "INSERT INTO hurt VALUES (1)")
	_, err := tx.ExecContext(r.Context(), "INSERT INTO hurt VALUES (1)")
	r.Fails("a duplicate", err)
	_, err = tx.ExecContext(r.Context(), "INSERT INTO hurt VALUES (2)")
	r.Ended("the next statement", err)
	committed := tx.Commit()
	r.Ended("commit", committed)
	want := 2
	if r.Driver.AbortsTx {
		want = 0
		if err == nil || committed == nil {
			r.Error("the transaction goes on after an error")
		}
	}
	r.Is("rows", want, r.Count(r.DB, "hurt"))
}

func locked(r *Run) {
	r.Table("locks", "id INT PRIMARY KEY, n INT")
	r.Exec(r.DB, "INSERT INTO locks VALUES (1, 0)")
	first := r.Begin(nil)
	r.Exec(first, r.SQL.Take)
	second := r.Begin(nil)
	_, err := second.ExecContext(r.Context(), r.SQL.Locked)
	r.FailsWith(r.SQL.LockCode, "a lock that another has", err)
	r.OK(second.Rollback())
	r.OK(first.Commit())
	third := r.Begin(nil)
	r.Exec(third, r.SQL.Locked)
	r.OK(third.Commit())
}

func contextEndsInTx(r *Run) {
	r.Table("ended", "id INT PRIMARY KEY")
	for i := range 3 * Limit {
		ctx, cancel := context.WithCancel(r.Context())
		tx, err := r.DB.BeginTx(ctx, nil)
		r.OK(err)
		r.Exec(tx, "INSERT INTO ended VALUES (?)", i)
		cancel()
		err = tx.Commit() // ErrTxDone once database/sql has rolled back, the context's error before
		r.Is("commit fails", true, errors.Is(err, sql.ErrTxDone) || errors.Is(err, context.Canceled))
	}
	r.OK(r.DB.PingContext(r.Context()))
	soon(r, func() bool { return r.DB.Stats().InUse == 0 }, "a connection is still in use")
	r.Is("rows", 0, r.Count(r.DB, "ended"))
}

func txOnConn(r *Run) {
	r.Table("held", "id INT")
	conn := r.Conn()
	tx, err := conn.BeginTx(r.Context(), nil)
	r.OK(err)
	r.Exec(tx, "INSERT INTO held VALUES (1)")
	r.OK(tx.Commit())
	r.Exec(conn, "INSERT INTO held VALUES (2)")
	tx, err = conn.BeginTx(r.Context(), nil)
	r.OK(err)
	r.Exec(tx, "DELETE FROM held")
	r.OK(tx.Rollback())
	r.OK(conn.Close())
	r.Is("rows", []int{1, 2}, All[int](r, r.DB, "SELECT id FROM held ORDER BY id"))
}
