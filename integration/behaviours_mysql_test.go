package integration

import (
	"context"
	"database/sql"
	"database/sql/driver"
	"fmt"
	"io"
	"strings"

	"github.com/go-sql-driver/mysql"

	"github.com/sqllease/sqllease/integration/internal/behaviour"
)

// mysqlOwn are behaviours of go-sql-driver/mysql, in every way of using it.
var mysqlOwn = []behaviour.Behaviour{
	{Name: "LOAD DATA", Do: loadData},
	{Name: "LOAD DATA through Conn.Raw", Do: loadDataRaw},
	{Name: "the result sets of a procedure", Do: procedure},
	{Name: "unsigned arguments", Do: unsigned},
	{Name: "JSON arguments", Do: jsonArguments},
}

// multiMySQL are those with several statements in one text.
var multiMySQL = []behaviour.Behaviour{
	{Name: "counts of several statements, through Conn.Raw", Do: allRowsAffected},
	{Name: "an error in the second statement", Do: secondStatementFails},
}

const loadStatement = "LOAD DATA LOCAL INFILE 'Reader::lines' INTO TABLE loaded"

// lines offers n lines to LOAD DATA.
func lines(r *behaviour.Run, n int) {
	mysql.RegisterReaderHandler("lines", func() io.Reader {
		var b strings.Builder
		for i := range n {
			fmt.Fprintf(&b, "%d\tline %d\n", i, i)
		}
		return strings.NewReader(b.String())
	})
	r.Cleanup(func() { mysql.DeregisterReaderHandler("lines") })
	r.Table("loaded", "id INT, s VARCHAR(20)")
}

func loadData(r *behaviour.Run) {
	lines(r, 5000)
	n, err := r.Exec(r.DB, loadStatement).RowsAffected()
	r.OK(err)
	r.Is("rows", int64(5000), n)
	r.Is("one of them", "line 4321", behaviour.One[string](r, r.DB, "SELECT s FROM loaded WHERE id = ?", 4321))
	mysql.DeregisterReaderHandler("lines")
	_, err = r.DB.ExecContext(r.Context(), loadStatement)
	r.Fails("a reader that is not registered", err)
	r.Is("rows afterwards", 5000, r.Count(r.DB, "loaded"))
}

func loadDataRaw(r *behaviour.Run) {
	lines(r, 5000)
	conn := r.Conn()
	r.OK(behaviour.Raw(r, conn, func(e driver.ExecerContext) error {
		res, err := e.ExecContext(r.Context(), loadStatement, nil)
		if err != nil {
			return err
		}
		n, err := res.RowsAffected()
		r.Is("rows", int64(5000), n)
		return err
	}))
	r.Is("rows in the table", 5000, r.Count(conn, "loaded"))
}

func procedure(r *behaviour.Run) {
	r.Exec(r.DB, "DROP PROCEDURE IF EXISTS two_sets")
	r.Exec(r.DB, "CREATE PROCEDURE two_sets(x INT) BEGIN SELECT x AS a; SELECT x + 1 AS b, x + 2 AS c; END")
	rows := r.Query(r.DB, "CALL two_sets(?)", 40)
	var a, b, c int
	r.Is("next", true, rows.Next())
	r.OK(rows.Scan(&a))
	r.Is("a", 40, a)
	r.Is("next result set", true, rows.NextResultSet())
	r.Is("next", true, rows.Next())
	r.OK(rows.Scan(&b, &c))
	r.Is("b and c", []int{41, 42}, []int{b, c})
	r.Saw("the status after the sets", rows.NextResultSet())
	r.OK(rows.Err())
	r.OK(rows.Close())
	r.Exec(r.DB, "CALL two_sets(1)")
	r.Is("the database afterwards", 4, behaviour.One[int](r, r.DB, "SELECT 4"))
}

func unsigned(r *behaviour.Run) {
	const huge = uint64(1<<64 - 1)
	r.Is("as argument", huge, behaviour.One[uint64](r, r.DB, "SELECT CAST(? AS UNSIGNED)", huge))
	var n int64
	r.Fails("into a signed one", r.DB.QueryRowContext(r.Context(), "SELECT CAST(? AS UNSIGNED)", huge).Scan(&n))
}

func jsonArguments(r *behaviour.Run) {
	r.Table("documents", "d JSON")
	for _, arg := range []any{[]byte(`{"a": 1}`), `{"a": 1}`} {
		r.Exec(r.DB, "INSERT INTO documents VALUES (?)", arg)
	}
	r.Is("values", []int{1, 1}, behaviour.All[int](r, r.DB, "SELECT JSON_VALUE(d, '$.a') FROM documents"))
	_, err := r.DB.ExecContext(r.Context(), "INSERT INTO documents VALUES (?)", "{")
	r.FailsWith("4025", "what is no JSON", err)
}

func allRowsAffected(r *behaviour.Run) {
	r.Table("several", "id INT")
	const statements = "INSERT INTO several VALUES (1), (2); UPDATE several SET id = id + 10; DELETE FROM several WHERE id = 11"
	r.OK(behaviour.Raw(r, r.Conn(), func(e driver.ExecerContext) error {
		res, err := e.ExecContext(r.Context(), statements, nil)
		if err == nil {
			r.Is("rows", []int64{2, 2, 1}, res.(mysql.Result).AllRowsAffected())
		}
		return err
	}))
	n, err := r.Exec(r.DB, statements).RowsAffected()
	r.OK(err)
	r.Saw("the count of the last", n)
}

func secondStatementFails(r *behaviour.Run) {
	r.Table("first", "id INT")
	_, err := r.DB.ExecContext(r.Context(), "INSERT INTO first VALUES (1); SELEC 2; INSERT INTO first VALUES (3)")
	r.FailsWith("1064", "exec", err)
	r.Is("rows", 1, r.Count(r.DB, "first"))
	conn := r.Conn()
	rows, err := conn.QueryContext(r.Context(), "SELECT 1; SELECT * FROM nowhere")
	r.OK(err)
	r.Is("next", true, rows.Next())
	r.Is("next result set", false, rows.NextResultSet())
	r.FailsWith("1146", "rows", rows.Err())
	r.Ended("close", rows.Close())
	r.Ended("the connection afterwards", conn.PingContext(context.Background()))
	r.Is("no transaction is left", sql.NullString{}, behaviour.One[sql.NullString](r, r.DB, "SELECT NULL"))
}
