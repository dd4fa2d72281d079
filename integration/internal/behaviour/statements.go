package behaviour

import (
	"database/sql"
	"fmt"
)

// statements are about prepared statements and connections that are held.
var statements = []Behaviour{
	{"a prepared statement again and again", preparedAgain},
	{"a prepared statement in and out of transactions", preparedInTx},
	{"many prepared statements", preparedMany},
	{"a prepared statement whose table changes", preparedAndChanged},
	{"a held connection is one session", heldConn},
	{"the driver's connection", rawConn},
}

func preparedAgain(r *Run) {
	r.Table("prepared", "id INT PRIMARY KEY, n INT")
	insert, err := r.DB.PrepareContext(r.Context(), r.Text("INSERT INTO prepared VALUES (?, ?)"))
	r.OK(err)
	query, err := r.DB.PrepareContext(r.Context(), r.Text("SELECT n FROM prepared WHERE id >= ? ORDER BY id"))
	r.OK(err)
	for i := range 10 {
		_, err := insert.ExecContext(r.Context(), i, i*i)
		r.OK(err)
	}
	_, err = insert.ExecContext(r.Context(), 0, 0)
	r.Fails("an execution that fails", err)
	for i := range 10 {
		var n int
		r.OK(query.QueryRowContext(r.Context(), i).Scan(&n))
		r.Is("n", i*i, n)
	}
	rows, err := query.QueryContext(r.Context(), 8)
	r.OK(err)
	r.Is("next", true, rows.Next())
	r.OK(rows.Close())
	r.OK(insert.Close())
	r.OK(insert.Close())
	_, err = insert.ExecContext(r.Context(), 11, 11)
	r.Fails("a statement that is closed", err)
	r.OK(query.Close())
}

func preparedInTx(r *Run) {
	r.Table("prepared_tx", "id INT PRIMARY KEY")
	insert, err := r.DB.PrepareContext(r.Context(), r.Text("INSERT INTO prepared_tx VALUES (?)"))
	r.OK(err)
	for i := range 6 {
		tx := r.Begin(nil)
		_, err := tx.StmtContext(r.Context(), insert).ExecContext(r.Context(), i)
		r.OK(err)
		own, err := tx.PrepareContext(r.Context(), r.Text("SELECT COUNT(*) FROM prepared_tx WHERE id = ?"))
		r.OK(err)
		var n int
		r.OK(own.QueryRowContext(r.Context(), i).Scan(&n))
		r.Is("seen in its transaction", 1, n)
		if i%2 == 0 {
			r.OK(tx.Commit())
		} else {
			r.OK(tx.Rollback())
		}
		r.Fails("a statement of a transaction that is over", own.QueryRowContext(r.Context(), i).Scan(&n))
		r.OK(own.Close())
	}
	_, err = insert.ExecContext(r.Context(), 100)
	r.OK(err)
	r.OK(insert.Close())
	r.Is("rows", []int{0, 2, 4, 100}, All[int](r, r.DB, "SELECT id FROM prepared_tx ORDER BY id"))
}

func preparedMany(r *Run) {
	conn := r.Conn()
	var all []*sql.Stmt
	for i := range 100 {
		stmt, err := conn.PrepareContext(r.Context(), fmt.Sprintf("SELECT %d", i))
		r.OK(err)
		all = append(all, stmt)
	}
	for i, stmt := range all {
		var n int
		r.OK(stmt.QueryRowContext(r.Context()).Scan(&n))
		r.Is("n", i, n)
	}
	for _, stmt := range all {
		r.OK(stmt.Close())
	}
	same, err := conn.PrepareContext(r.Context(), "SELECT 7")
	r.OK(err)
	again, err := conn.PrepareContext(r.Context(), "SELECT 7")
	r.OK(err)
	r.OK(same.Close())
	var n int
	r.OK(again.QueryRowContext(r.Context()).Scan(&n))
	r.Is("a second statement of a text whose first is closed", 7, n)
	r.OK(again.Close())
}

func preparedAndChanged(r *Run) {
	r.Table("changing", "a INT")
	r.Exec(r.DB, "INSERT INTO changing VALUES (1)")
	conn := r.Conn()
	stmt, err := conn.PrepareContext(r.Context(), "SELECT * FROM changing")
	r.OK(err)
	read := func() ([]string, error) {
		rows, err := stmt.QueryContext(r.Context())
		if err != nil {
			return nil, err
		}
		defer func() { _ = rows.Close() }()
		names, err := rows.Columns()
		r.OK(err)
		for rows.Next() {
			continue
		}
		return names, rows.Err()
	}
	names, err := read()
	r.OK(err)
	r.Is("before", []string{"a"}, names)
	r.Exec(conn, "ALTER TABLE changing ADD COLUMN b INT")
	for range 2 { // a driver that kept the old result may find out by failing once
		names, err = read()
		r.Ended("after a column was added", err)
		r.Saw("columns", names)
	}
	r.Exec(conn, "DROP TABLE changing")
	_, err = read()
	r.Fails("after the table is gone", err)
	r.Ended("close", stmt.Close())
}

func heldConn(r *Run) {
	conn := r.Conn()
	r.Exec(conn, "CREATE TEMPORARY TABLE own (id INT)")
	for i := range 5 {
		r.Exec(conn, "INSERT INTO own VALUES (?)", i)
	}
	r.Is("rows of the session", 5, r.Count(conn, "own"))
	_, err := r.DB.ExecContext(r.Context(), "INSERT INTO own VALUES (9)")
	r.Fails("another session", err)
	tx, err := conn.BeginTx(r.Context(), nil)
	r.OK(err)
	r.Exec(tx, "INSERT INTO own VALUES (5)")
	r.OK(tx.Rollback())
	r.Is("rows after a rollback", 5, r.Count(conn, "own"))
	r.Exec(conn, "DROP TABLE own")
	r.OK(conn.Close())
}

func rawConn(r *Run) {
	conn := r.Conn()
	r.OK(Raw(r, conn, func(c any) error {
		r.Saw("its type", fmt.Sprintf("%T", c))
		return nil
	}))
	mine := fmt.Errorf("mine")
	r.FailsAs(mine, "an error of the application's", Raw(r, conn, func(any) error { return mine }))
	r.Is("the connection afterwards", 4, One[int](r, conn, "SELECT 4"))
	r.OK(conn.Close())
	r.FailsAs(sql.ErrConnDone, "raw after close", conn.Raw(func(any) error { return nil }))
}
