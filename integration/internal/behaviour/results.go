package behaviour

import (
	"database/sql"
	"fmt"
)

// results are about what comes back: rows, result sets, counts and errors.
var results = []Behaviour{
	{"rows one by one", rowsOneByOne},
	{"no rows", noRows},
	{"rows that are not read to their end", rowsLeft},
	{"an error among the rows", errorAmongRows},
	{"two queries at once in one transaction", twoQueriesAtOnce},
	{"several statements in one text", resultSets},
	{"ids and counts", idsAndCounts},
	{"errors of the server", serverErrors},
	{"what the *sql.DB tells", aboutDB},
}

func rowsOneByOne(r *Run) {
	rows := r.Query(r.DB, fmt.Sprintf(r.SQL.Series, 5))
	r.Fails("scan before the first row", rows.Scan(new(int)))
	for n := 1; n <= 5; n++ {
		r.Is("next", true, rows.Next())
		var got int
		r.OK(rows.Scan(&got))
		r.Is("row", n, got)
	}
	r.Fails("scan into too many", rows.Scan(new(int), new(int)))
	r.Fails("scan into what does not fit", rows.Scan(new(func())))
	r.Is("next after the last", false, rows.Next())
	r.OK(rows.Err())
	r.Is("another result set", false, rows.NextResultSet())
	r.OK(rows.Close())
	r.OK(rows.Close())
	r.Fails("scan after the end", rows.Scan(new(int)))
	_, err := rows.Columns()
	r.Fails("columns after the end", err)
	_, err = rows.ColumnTypes()
	r.Fails("column types after the end", err)
}

func noRows(r *Run) {
	r.Table("empty", "id INT, name VARCHAR(10)")
	r.FailsAs(sql.ErrNoRows, "a row of none", r.DB.QueryRowContext(r.Context(), "SELECT id FROM empty").Scan(new(int)))
	rows := r.Query(r.DB, "SELECT id, name, id FROM empty")
	names, err := rows.Columns()
	r.OK(err)
	r.Is("columns", []string{"id", "name", "id"}, names)
	r.Is("next", false, rows.Next())
	r.OK(rows.Err())
	rows, err = r.DB.QueryContext(r.Context(), "INSERT INTO empty VALUES (1, 'a')")
	r.Ended("a query that has no result", err)
	if err == nil {
		names, err := rows.Columns()
		r.Ended("its columns", err)
		r.Saw("their names", names)
		r.Is("its next", false, rows.Next())
		r.Ended("its rows", rows.Err())
		r.OK(rows.Close())
	}
	r.Is("rows after it", 1, r.Count(r.DB, "empty"))
	_, err = r.DB.ExecContext(r.Context(), "SELECT id FROM empty")
	r.Ended("an exec that has a result", err)
}

func rowsLeft(r *Run) {
	for range 3 * Limit {
		rows := r.Query(r.DB, fmt.Sprintf(r.SQL.Series, 20_000))
		r.Is("next", true, rows.Next())
		r.OK(rows.Close())
		r.Is("next after close", false, rows.Next())
		r.OK(rows.Err())
	}
	conn := r.Conn()
	rows := r.Query(conn, fmt.Sprintf(r.SQL.Series, 20_000))
	r.Is("next", true, rows.Next())
	r.OK(rows.Close())
	r.Is("the connection afterwards", 4, One[int](r, conn, "SELECT 4"))
}

func errorAmongRows(r *Run) {
	conn := r.Conn()
	var got int
	rows, err := conn.QueryContext(r.Context(), r.SQL.Broken)
	if err == nil {
		for rows.Next() {
			got++
		}
		err = rows.Err()
		r.Ended("close", rows.Close())
	}
	r.FailsWith(r.SQL.RowCode, "the fifth row", err)
	r.Saw("rows before it", got)
	r.Is("the connection afterwards", 4, One[int](r, conn, "SELECT 4"))
	err = r.DB.QueryRowContext(r.Context(), r.SQL.Broken).Scan(new(any), new(any))
	r.Ended("the first row alone", err)
}

// twoQueriesAtOnce is done in a transaction: with a *sql.Conn, database/sql
// itself stands still if the driver calls the connection bad.
func twoQueriesAtOnce(r *Run) {
	tx := r.Begin(nil)
	first := r.Query(tx, fmt.Sprintf(r.SQL.Series, 3))
	r.Is("next", true, first.Next())
	second, err := tx.QueryContext(r.Context(), fmt.Sprintf(r.SQL.Series, 3))
	r.Ended("a query while rows are open", err)
	if err == nil {
		r.Is("its next", true, second.Next())
		r.OK(second.Close())
	}
	r.Saw("next of the first", first.Next())
	r.Ended("the first", first.Err())
	r.Ended("close of the first", first.Close())
	r.Ended("rollback", tx.Rollback())
	r.Is("the database afterwards", 4, One[int](r, r.DB, "SELECT 4"))
}

func resultSets(r *Run) {
	rows, err := r.DB.QueryContext(r.Context(), "SELECT 1 AS a; SELECT 2 AS b, 3 AS c; SELECT 4 AS d")
	if r.Driver.Sets == 0 {
		r.Fails("three statements", err)
		return
	}
	r.OK(err)
	defer func() { _ = rows.Close() }()
	sets := 0
	for more := true; more; more = rows.NextResultSet() {
		sets++
		names, err := rows.Columns()
		r.OK(err)
		r.Saw("columns", names)
		columnTypesOf(r, rows)
		for rows.Next() {
			row := make([]any, len(names))
			for i := range row {
				row[i] = new(int)
			}
			r.OK(rows.Scan(row...))
			r.Saw("row", row)
		}
	}
	r.Is("result sets", r.Driver.Sets, sets)
	r.OK(rows.Err())
	r.OK(rows.Close())
	r.Is("the database afterwards", 4, One[int](r, r.DB, "SELECT 4"))
}

func idsAndCounts(r *Run) {
	r.Table("counted", "id "+r.SQL.ID+", n INT")
	for want := int64(1); want <= 3; want++ {
		res := r.Exec(r.DB, "INSERT INTO counted (n) VALUES (?)", want)
		id, err := res.LastInsertId()
		if r.Driver.LastInsertID {
			r.OK(err)
			r.Is("id", want, id)
		} else {
			r.Fails("id", err)
		}
		n, err := res.RowsAffected()
		r.OK(err)
		r.Is("rows of an insert", int64(1), n)
	}
	for what, tt := range map[string]struct {
		statement string
		rows      int64
	}{
		"an update of all":  {"UPDATE counted SET n = n + 10", 3},
		"an update of none": {"UPDATE counted SET n = 0 WHERE id = 99", 0},
	} {
		n, err := r.Exec(r.DB, tt.statement).RowsAffected()
		r.OK(err)
		if tt.rows != n {
			r.Errorf("rows of %s: %d, expected %d", what, n, tt.rows)
		}
	}
	n, err := r.Exec(r.DB, "DELETE FROM counted WHERE id > ?", 1).RowsAffected()
	r.OK(err)
	r.Is("rows of a delete", int64(2), n)
	n, err = r.Exec(r.DB, "DROP TABLE counted").RowsAffected()
	r.Ended("rows of a drop", err)
	r.Saw("rows of a drop", n)
}

func serverErrors(r *Run) {
	r.Table("failures", "id INT PRIMARY KEY, n INT NOT NULL")
	r.Exec(r.DB, "INSERT INTO failures VALUES (1, 1)")
	conn := r.Conn()
	for _, f := range r.SQL.Failures {
		for _, on := range []Caller{r.DB, conn} {
			_, err := on.ExecContext(r.Context(), f.Statement)
			r.FailsWith(f.Code, f.What, err)
		}
		stmt, err := conn.PrepareContext(r.Context(), f.Statement)
		if err == nil {
			_, err = stmt.ExecContext(r.Context())
			r.OK(stmt.Close())
		}
		r.FailsWith(f.Code, f.What+", prepared", err)
		rows, err := conn.QueryContext(r.Context(), f.Statement)
		if err == nil {
			r.Is("a row of a failure", false, rows.Next())
			err = rows.Err()
			r.Ended("close", rows.Close())
		}
		r.FailsWith(f.Code, f.What+", query", err)
		r.Is("the connection afterwards", 4, One[int](r, conn, "SELECT 4"))
	}
	r.Is("rows afterwards", 1, r.Count(r.DB, "failures"))
}

func aboutDB(r *Run) {
	r.Saw("driver", fmt.Sprintf("%T", r.DB.Driver()))
	r.OK(r.DB.PingContext(r.Context()))
	stats := func(what string) {
		s := r.DB.Stats()
		r.Saw("stats with "+what, []int{s.OpenConnections, s.InUse, s.Idle})
	}
	stats("one connection idle")
	a, b := r.Conn(), r.Conn()
	stats("two in use")
	r.OK(a.Close())
	stats("one in use")
	r.FailsAs(sql.ErrConnDone, "close twice", a.Close())
	r.FailsAs(sql.ErrConnDone, "ping after close", a.PingContext(r.Context()))
	r.OK(b.Close())
	stats("none in use")
	r.Saw("connections opened", r.DB.Stats().OpenConnections)
}
