package integration

import (
	"context"
	"database/sql"
	"database/sql/driver"
	"encoding/json"
	"fmt"
	"sync"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgtype"
	"github.com/jackc/pgx/v5/stdlib"
	"github.com/lib/pq"
	"github.com/stretchr/testify/assert"

	"github.com/sqllease/sqllease/integration/internal/behaviour"
)

// postgresOwn are behaviours of every driver for PostgreSQL, pgxOwn and pqOwn
// those of one.
var (
	postgresOwn = []behaviour.Behaviour{
		{Name: "RETURNING", Do: returning},
		{Name: "a constraint that is checked at commit", Do: deferredConstraint},
		{Name: "settings of a transaction and of a session", Do: settings},
	}
	pgxOwn = []behaviour.Behaviour{
		{Name: "arrays", Do: pgxArrays},
		{Name: "arguments that are pgx's own", Do: pgxArguments},
		{Name: "JSON arguments", Do: pgxJSON},
		{Name: "COPY through Conn.Raw", Do: pgxCopy},
		{Name: "a batch through Conn.Raw", Do: pgxBatch},
		{Name: "a notification through Conn.Raw", Do: pgxNotification},
	}
	pqOwn = []behaviour.Behaviour{
		{Name: "arrays", Do: pqArrays},
		{Name: "COPY", Do: pqCopy},
		{Name: "COPY by many at once", Do: pqCopyByMany},
		{Name: "COPY through Conn.Raw", Do: pqCopyRaw},
		{Name: "a JSON argument", Do: pqJSON},
		{Name: "the details of an error", Do: pqErrorDetails},
	}
)

func returning(r *behaviour.Run) {
	r.Table("returned", "id "+r.SQL.ID+", n INT")
	r.Is("id", 1, behaviour.One[int](r, r.DB, "INSERT INTO returned (n) VALUES (?) RETURNING id", 7))
	r.Is("ids", []int{2, 3}, behaviour.All[int](r, r.DB, "INSERT INTO returned (n) VALUES (8), (9) RETURNING id"))
	r.Is("ids of an update", []int{1, 2, 3}, behaviour.All[int](r, r.DB, "UPDATE returned SET n = 0 RETURNING id"))
}

func deferredConstraint(r *behaviour.Run) {
	r.Table("unique_later", "n INT UNIQUE DEFERRABLE INITIALLY DEFERRED")
	tx := r.Begin(nil)
	r.Exec(tx, "INSERT INTO unique_later VALUES (1)")
	r.Exec(tx, "INSERT INTO unique_later VALUES (1)")
	r.FailsWith("23505", "commit", tx.Commit())
	r.FailsAs(sql.ErrTxDone, "rollback after it", tx.Rollback())
	r.Is("rows", 0, r.Count(r.DB, "unique_later"))
}

func settings(r *behaviour.Run) {
	conn := r.Conn()
	r.Exec(conn, "SET statement_timeout = '1min'")
	tx, err := conn.BeginTx(r.Context(), nil)
	r.OK(err)
	r.Exec(tx, "SET LOCAL statement_timeout = '5ms'")
	_, err = tx.ExecContext(r.Context(), r.SQL.Slow)
	r.FailsWith("57014", "a statement past its time", err)
	r.OK(tx.Rollback())
	r.Is("setting of the session", "1min", behaviour.One[string](r, conn, "SHOW statement_timeout"))
}

func pgxArrays(r *behaviour.Run) {
	m := pgtype.NewMap()
	var ints []int32
	r.OK(r.DB.QueryRowContext(r.Context(), "SELECT $1::int[]", []int32{1, 2, 3}).Scan(m.SQLScanner(&ints)))
	r.Is("integers", []int32{1, 2, 3}, ints)
	var texts []string
	r.OK(r.DB.QueryRowContext(r.Context(), "SELECT $1::text[]", []string{"a", `b "c", {d}`, ""}).Scan(m.SQLScanner(&texts)))
	r.Is("texts", []string{"a", `b "c", {d}`, ""}, texts)
	var nullable []*int32
	r.OK(r.DB.QueryRowContext(r.Context(), "SELECT '{1,NULL}'::int[]").Scan(m.SQLScanner(&nullable)))
	r.Is("NULL in an array", true, len(nullable) == 2 && *nullable[0] == 1 && nullable[1] == nil)
	r.Is("any", []int{1, 3}, behaviour.All[int](r, r.DB, "SELECT n FROM generate_series(1, 5) n WHERE n = ANY(?::int[])", []int32{3, 1}))
	stmt, err := r.DB.PrepareContext(r.Context(), "SELECT cardinality($1::text[])")
	r.OK(err)
	for n := range 3 {
		var got int
		r.OK(stmt.QueryRowContext(r.Context(), make([]string, n)).Scan(&got))
		r.Is("prepared, length", n, got)
	}
	r.OK(stmt.Close())
}

func pgxArguments(r *behaviour.Run) {
	var n int
	r.OK(r.DB.QueryRowContext(r.Context(), "SELECT @a::int + @b::int", pgx.NamedArgs{"a": 1, "b": 2}).Scan(&n))
	r.Is("named arguments", 3, n)
	r.OK(r.DB.QueryRowContext(r.Context(), "SELECT $1::int", pgx.QueryExecModeSimpleProtocol, 5).Scan(&n))
	r.Is("simple protocol", 5, n)
	var v any
	r.OK(r.DB.QueryRowContext(r.Context(), "SELECT $1::numeric", pgtype.Numeric{Int: nil, Valid: false}).Scan(&v))
	r.Is("a NULL of pgtype", nil, v)
	r.Is("an interval", "1 day 00:00:02", behaviour.One[string](r, r.DB, "SELECT (?::interval)::text",
		pgtype.Interval{Days: 1, Microseconds: 2_000_000, Valid: true}))
}

func pgxJSON(r *behaviour.Run) {
	for _, arg := range []any{json.RawMessage(`{"a":1}`), []byte(`{"a":1}`), `{"a":1}`, map[string]int{"a": 1}} {
		var got json.RawMessage
		err := r.DB.QueryRowContext(r.Context(), "SELECT $1::jsonb", arg).Scan(&got)
		r.Ended(fmt.Sprintf("%T", arg), err) // the simple protocol cannot tell that a map is meant as JSON
		if err == nil {
			r.Is(fmt.Sprintf("%T comes back", arg), json.RawMessage(`{"a": 1}`), got)
		}
	}
}

// copySource are n rows for CopyFrom.
func copySource(n int) pgx.CopyFromSource {
	return pgx.CopyFromSlice(n, func(i int) ([]any, error) { return []any{i, fmt.Sprint("row ", i)}, nil })
}

func pgxCopy(r *behaviour.Run) {
	r.Table("copied", "id INT PRIMARY KEY, s TEXT")
	conn := r.Conn()
	columns := []string{"id", "s"}
	r.OK(behaviour.Raw(r, conn, func(c *stdlib.Conn) error {
		n, err := c.Conn().CopyFrom(r.Context(), pgx.Identifier{"copied"}, columns, copySource(5000))
		r.Is("rows", int64(5000), n)
		return err
	}))
	r.FailsWith("23505", "the same again", behaviour.Raw(r, conn, func(c *stdlib.Conn) error {
		_, err := c.Conn().CopyFrom(r.Context(), pgx.Identifier{"copied"}, columns, copySource(1))
		return err
	}))
	r.Is("rows in the table", 5000, r.Count(conn, "copied"))
	tx, err := conn.BeginTx(r.Context(), nil)
	r.OK(err)
	r.Exec(tx, "TRUNCATE copied")
	r.OK(behaviour.Raw(r, conn, func(c *stdlib.Conn) error {
		_, err := c.Conn().CopyFrom(r.Context(), pgx.Identifier{"copied"}, columns, copySource(10))
		return err
	}))
	r.Is("rows in the transaction", 10, r.Count(tx, "copied"))
	r.OK(tx.Rollback())
	r.Is("rows after it", 5000, r.Count(conn, "copied"))
}

func pgxBatch(r *behaviour.Run) {
	r.OK(behaviour.Raw(r, r.Conn(), func(c *stdlib.Conn) error {
		var b pgx.Batch
		for i := range 10 {
			b.Queue("SELECT $1::int * 2", i).QueryRow(func(row pgx.Row) error {
				var n int
				err := row.Scan(&n)
				r.Is("answer", 2*i, n)
				return err
			})
		}
		return c.Conn().SendBatch(r.Context(), &b).Close()
	}))
}

func pgxNotification(r *behaviour.Run) {
	conn := r.Conn()
	r.Exec(conn, "LISTEN news")
	r.Exec(r.DB, "NOTIFY news, 'hello'")
	ctx, cancel := context.WithTimeout(r.Context(), 10*time.Second)
	defer cancel()
	r.OK(behaviour.Raw(r, conn, func(c *stdlib.Conn) error {
		n, err := c.Conn().WaitForNotification(ctx)
		if err == nil {
			r.Is("notification", "news: hello", n.Channel+": "+n.Payload)
		}
		return err
	}))
	r.Exec(conn, "UNLISTEN news")
}

func pqArrays(r *behaviour.Run) {
	var ints []int64
	r.OK(r.DB.QueryRowContext(r.Context(), "SELECT $1::int[]", pq.Array([]int64{1, 2, 3})).Scan(pq.Array(&ints)))
	r.Is("integers", []int64{1, 2, 3}, ints)
	texts := behaviour.One[pq.StringArray](r, r.DB, "SELECT ?::text[]", pq.StringArray{"a", `b "c", {d}`, ""})
	r.Is("texts", pq.StringArray{"a", `b "c", {d}`, ""}, texts)
	var nullable []sql.NullInt64
	r.OK(r.DB.QueryRowContext(r.Context(), "SELECT '{1,NULL}'::int[]").Scan(pq.Array(&nullable)))
	r.Is("NULL in an array", []sql.NullInt64{{Int64: 1, Valid: true}, {}}, nullable)
	r.Is("any", []int{1, 3}, behaviour.All[int](r, r.DB, "SELECT n FROM generate_series(1, 5) n WHERE n = ANY(?)", pq.Array([]int64{3, 1})))
	stmt, err := r.DB.PrepareContext(r.Context(), "SELECT cardinality($1::text[])")
	r.OK(err)
	for n := range 3 {
		var got int
		r.OK(stmt.QueryRowContext(r.Context(), pq.Array(make([]string, n))).Scan(&got))
		r.Is("prepared, length", n, got)
	}
	r.OK(stmt.Close())
}

// copyIn copies rows into a table by a prepared COPY.
func copyIn(r *behaviour.Run, table string, from, n int) error {
	tx, err := r.DB.BeginTx(context.WithoutCancel(r.Context()), nil)
	if err != nil {
		return err
	}
	defer func() { _ = tx.Rollback() }()
	stmt, err := tx.PrepareContext(r.Context(), "COPY "+table+" (id, s) FROM STDIN")
	if err != nil {
		return err
	}
	for i := range n {
		if _, err := stmt.ExecContext(r.Context(), from+i, fmt.Sprint("row ", from+i)); err != nil {
			return err
		}
	}
	if _, err := stmt.ExecContext(r.Context()); err != nil {
		return err
	}
	if err := stmt.Close(); err != nil {
		return err
	}
	return tx.Commit()
}

func pqCopy(r *behaviour.Run) {
	r.Table("copied", "id INT PRIMARY KEY, s TEXT")
	r.OK(copyIn(r, "copied", 0, 5000))
	r.FailsWith("23505", "the same again", copyIn(r, "copied", 0, 1))
	r.OK(copyIn(r, "copied", 5000, 1)) // on the session that failed
	r.Is("rows", 5001, r.Count(r.DB, "copied"))
	_, err := r.DB.PrepareContext(r.Context(), "COPY copied (id, s) FROM STDIN")
	r.Ended("a COPY outside a transaction", err)
}

// pqCopyByMany has sessions handed over between callers that all prepare the
// same COPY, which no other may adopt.
func pqCopyByMany(r *behaviour.Run) {
	r.Table("copied_by_many", "id INT PRIMARY KEY, s TEXT")
	var all sync.WaitGroup
	for i := range 20 {
		all.Go(func() { assert.NoError(r, copyIn(r, "copied_by_many", 100*i, 100)) })
	}
	all.Wait()
	r.Is("rows", 2000, r.Count(r.DB, "copied_by_many"))
}

func pqCopyRaw(r *behaviour.Run) {
	r.Table("copied_raw", "id INT PRIMARY KEY, s TEXT")
	conn := r.Conn()
	tx, err := conn.BeginTx(r.Context(), nil)
	r.OK(err)
	r.OK(behaviour.Raw(r, conn, func(c driver.Conn) error {
		stmt, err := c.Prepare("COPY copied_raw (id, s) FROM STDIN")
		if err != nil {
			return err
		}
		for i := range 1000 {
			if _, err := stmt.Exec([]driver.Value{int64(i), fmt.Sprint("row ", i)}); err != nil { //nolint:staticcheck // lib/pq's COPY has nothing newer
				return err
			}
		}
		if _, err := stmt.Exec(nil); err != nil { //nolint:staticcheck // as above
			return err
		}
		return stmt.Close()
	}))
	r.OK(tx.Commit())
	r.Is("rows", 1000, r.Count(conn, "copied_raw"))
}

func pqJSON(r *behaviour.Run) {
	var got json.RawMessage
	r.OK(r.DB.QueryRowContext(r.Context(), "SELECT $1::jsonb", `{"a":1}`).Scan(&got))
	r.Is("json", json.RawMessage(`{"a": 1}`), got)
}

func pqErrorDetails(r *behaviour.Run) {
	r.Table("detailed", "id INT CONSTRAINT only_once PRIMARY KEY")
	r.Exec(r.DB, "INSERT INTO detailed VALUES (1)")
	_, err := r.DB.ExecContext(r.Context(), "INSERT INTO detailed VALUES (1)")
	e, ok := err.(*pq.Error)
	r.Is("the error itself is lib/pq's", true, ok)
	r.Is("constraint", "only_once", e.Constraint)
	r.Is("detail", "Key (id)=(1) already exists.", e.Detail)
}
