package statement

import (
	"fmt"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// Most of these are PostgreSQL's, MySQL's and an unknown server's alike; with a grammar, they
// are that server's only.
func TestTheSummaryOfAStatement(t *testing.T) {
	for _, c := range []struct {
		query, summary string
		grammars       []Grammar
	}{
		// The examples of the conventions.
		{"SELECT * FROM wuser_table WHERE username = ?", "SELECT wuser_table", nil},
		{"INSERT INTO shipping_details (order_id, address) SELECT order_id, address FROM orders WHERE order_id = ?",
			"INSERT shipping_details SELECT orders", nil},
		{"SELECT * FROM songs, artists WHERE songs.artist_id == artists.id", "SELECT songs artists", nil},
		{"SELECT order_date FROM (SELECT * FROM orders o JOIN customers c ON o.customer_id = c.customer_id)",
			"SELECT SELECT orders customers", nil},
		{`SELECT * FROM "song list", 'artists'`, `SELECT "song list"`, inOnly(PostgreSQL)},
		{`SELECT * FROM "song list", 'artists'`, "SELECT", inOnly(MySQL, Unknown)},
		{"SELECT * FROM `song list`, `artists`", "SELECT `song list` artists", inOnly(MySQL, Unknown)},
		{"CALL some_stored_procedure", "CALL some_stored_procedure", nil},
		{"EXECUTE some_stored_procedure", "EXECUTE some_stored_procedure", inOnly(Unknown)},

		// Tables.
		{"select a from Shop.Orders o left join Users AS u using (id), LATERAL f(o.a) x, b where a in (1, 2) order by c, d",
			"SELECT Shop.Orders Users f b", nil},
		{"SELECT a FROM (t JOIN (u CROSS JOIN v) ON t.a = u.a), w", "SELECT t u v w", nil},
		{"SELECT a FROM t JOIN u ON f(t.a, u.b) AND x IN (SELECT y FROM v), w GROUP BY c, d", "SELECT t u SELECT v w", nil},
		{"SELECT EXTRACT(YEAR FROM a), a IS DISTINCT FROM b FROM t FOR UPDATE OF t", "SELECT t", nil},
		{"SELECT a FROM t WHERE EXISTS (SELECT 1 FROM u)", "SELECT t SELECT u", nil},
		{"SELECT a INTO b FROM c, d", "SELECT b c d", nil},
		{"SELECT a FROM t INTO OUTFILE 'x'", "SELECT t", nil},
		{"SELECT STRAIGHT_JOIN a FROM t USE INDEX FOR JOIN (i) STRAIGHT_JOIN u", "SELECT t u", inOnly(MySQL)},
		{"SELECT a FROM t UNION SELECT a FROM u", "SELECT t SELECT u", nil},
		{"SELECT a FROM [dbo].[Orders], [order details] d WHERE a[1] = b", "SELECT dbo.Orders [order details]", inOnly(Unknown)},
		{"SELECT a FROM [2024 - x], t", "SELECT t", inOnly(Unknown)},
		{"SELECT a FROM @t, :u, ?, v", "SELECT v", nil},
		{"SELECT a FROM (VALUES (1, 2)) x, t", "SELECT t", nil},
		{"(SELECT a FROM t) UNION (SELECT a FROM u)", "SELECT t SELECT u", nil},
		{"VALUES (1, 2)", "VALUES", nil},
		{"TABLE t", "TABLE t", nil},
		{"SELECT " + strings.Repeat("a, ", 100) + "b FROM t", "SELECT t", nil},

		{"SELECT a FROM t WHERE " + nest(63, "(SELECT b FROM u)") + " AND c IN (SELECT d FROM v)", "SELECT t SELECT u SELECT v", nil},
		{"SELECT a FROM t WHERE " + nest(64, "(SELECT b FROM u)") + " AND c IN (SELECT d FROM v)", "SELECT t SELECT v", nil},
		{"SELECT a FROM t WHERE " + strings.Repeat("(", 99) + "; SELECT b FROM u", "SELECT t SELECT u", nil},

		// What writes.
		{"INSERT IGNORE t VALUES (1), (2)", "INSERT t", inOnly(MySQL)},
		{"INSERT INTO t VALUES (1, (SELECT a FROM u)) ON CONFLICT (a) DO UPDATE SET b = c, d = e", "INSERT t SELECT u", nil},
		{"INSERT INTO t (a) VALUES (1) ON DUPLICATE KEY UPDATE a = REPLACE(a, b, c)", "INSERT t", nil},
		{"INSERT INTO t WITH x AS (SELECT a FROM u) SELECT a FROM x", "INSERT t SELECT u SELECT", nil},
		{"INSERT INTO t WITH (TABLOCK) SELECT a FROM u WITH (NOLOCK), v", "INSERT t SELECT u v", inOnly(Unknown)},
		{"REPLACE INTO t SELECT a FROM u", "REPLACE t SELECT u", nil},
		{"UPSERT INTO t VALUES (1)", "UPSERT t", nil},
		{"UPDATE ONLY a SET b = c, d = e FROM f, g WHERE h", "UPDATE a f g", nil},
		{"UPDATE a, b JOIN c USING (d) SET e = f, g = h", "UPDATE a b c", nil},
		{"UPDATE TOP (10) t SET a = b", "UPDATE t", nil},
		{"DELETE FROM a USING b, c WHERE d", "DELETE a b c", nil},
		{"DELETE x, y FROM a x JOIN b y USING (c)", "DELETE a b", nil},
		{"DELETE x.* FROM a x", "DELETE a", nil},
		{"DELETE orders WHERE a = b", "DELETE orders", nil},
		{"MERGE INTO t USING (SELECT a FROM s) x ON t.a = x.a WHEN MATCHED THEN UPDATE SET b = c, d = e WHEN NOT MATCHED THEN INSERT (a) VALUES (b)",
			"MERGE t SELECT s", nil},
		{"TRUNCATE TABLE a, b", "TRUNCATE a b", nil},
		{"COPY (SELECT a FROM t) TO STDOUT", "COPY SELECT t", nil},
		{"COPY t (a) FROM STDIN", "COPY t", nil},
		{"LOAD DATA INFILE 'a' INTO TABLE t", "LOAD t", nil},
		{"LOCK TABLES a READ, b WRITE", "LOCK a b", nil},

		// WITH.
		{"WITH x AS (SELECT a FROM t), y (b) AS MATERIALIZED (SELECT b FROM x) SELECT a FROM x JOIN y ON c JOIN Z",
			"SELECT t SELECT SELECT Z", nil},
		{"WITH x AS (SELECT a FROM t) DELETE FROM u WHERE a IN (SELECT a FROM X)", "SELECT t DELETE u SELECT", nil},
		{"WITH x AS (DELETE FROM t RETURNING a, b) INSERT INTO u SELECT a FROM x", "DELETE t INSERT u SELECT", nil},
		{"WITH orders AS (SELECT a FROM orders WHERE b) SELECT a FROM orders", "SELECT orders SELECT", inOnly(MySQL, PostgreSQL)},
		{"WITH RECURSIVE x AS (SELECT a FROM t UNION ALL SELECT a FROM x JOIN u ON b) SELECT a FROM x", "SELECT t SELECT u SELECT", nil},
		{"WITH x AS (SELECT a FROM t UNION ALL SELECT a FROM x) SELECT a FROM x", "SELECT t SELECT", inOnly(Unknown)},
		{`WITH "x y" AS (SELECT a FROM t) SELECT a FROM "x y"`, "SELECT t SELECT", inOnly(PostgreSQL)},
		{"WITH x AS (SELECT 1) SELECT a FROM s.x", "SELECT SELECT s.x", nil},
		{"WITH", "WITH", nil},

		// Procedures.
		{"CALL shop.Refund(?, (SELECT max(a) FROM t))", "CALL shop.Refund SELECT t", nil},
		{"EXEC @answer = [dbo].[Refund] @a = 1, @b = 'x'", "EXEC dbo.Refund", inOnly(Unknown)},
		{"EXEC ('SELECT 1')", "EXEC", nil},
		{"EXECUTE p", "EXECUTE", inOnly(MySQL, PostgreSQL)},
		{"EXECUTE p USING 1", "EXECUTE p", inOnly(Unknown)},
		{"EXECUTE IMMEDIATE 'x'", "EXECUTE", nil},

		// Definitions.
		{"CREATE TABLE IF NOT EXISTS Shop.t (a int DEFAULT 1, b text REFERENCES u (c) ON DELETE CASCADE)", "CREATE TABLE Shop.t", nil},
		{"CREATE TEMPORARY TABLE t AS SELECT a FROM u", "CREATE TABLE t SELECT u", nil},
		{"CREATE UNIQUE INDEX CONCURRENTLY IF NOT EXISTS i ON t (a, b)", "CREATE INDEX i", nil},
		{"CREATE INDEX ON t (a)", "CREATE INDEX", nil},
		{"CREATE OR REPLACE VIEW v AS WITH x AS (SELECT a FROM t) SELECT a FROM x", "CREATE VIEW v SELECT t SELECT", nil},
		{"CREATE DEFINER=`root`@`%` PROCEDURE p() BEGIN UPDATE t SET a = b; DELETE FROM u; END", "CREATE PROCEDURE p", inOnly(MySQL)},
		{"CREATE TRIGGER x AFTER INSERT ON t FOR EACH ROW DELETE FROM u", "CREATE TRIGGER x", nil},
		{"DROP INDEX i", "DROP INDEX i", nil},
		{"DROP TABLE IF EXISTS a, b CASCADE", "DROP TABLE a b", nil},
		{"DROP FUNCTION f(int); SELECT 1", "DROP FUNCTION f SELECT", nil},
		{"ALTER TABLE t ADD COLUMN a int, ADD COLUMN b int", "ALTER TABLE t", nil},
		{"CREATE USER bob", "CREATE USER", nil},
		{"GRANT SELECT ON t TO bob", "GRANT", nil},
		{"REVOKE ALL ON TABLE t FROM bob", "REVOKE", nil},

		// The rest.
		{"DECLARE c CURSOR FOR SELECT a FROM t", "DECLARE c CURSOR SELECT t", nil},
		{"FETCH NEXT FROM c", "FETCH", nil},
		{"CLOSE c", "CLOSE c", nil},
		{"EXPLAIN (ANALYZE, VERBOSE) WITH x AS (SELECT 1) UPDATE t SET a = b", "EXPLAIN SELECT UPDATE t", nil},
		{"PREPARE p (int) AS DELETE FROM t WHERE a = $1", "PREPARE DELETE t", nil},
		{"SAVEPOINT sp0x1400012", "SAVEPOINT", nil},
		{"SHOW COLUMNS FROM t", "SHOW", nil},
		{"SET a = b", "SET", nil},
		{"COMMENT ON TABLE t IS 'x'", "OTHER t", inOnly(MySQL, PostgreSQL)},
		{"", "OTHER", nil},

		// Several.
		{"BEGIN; UPDATE t SET a = b; INSERT INTO u VALUES (1); COMMIT;", "BEGIN UPDATE t INSERT u COMMIT", nil},
		{"UPDATE t SET a = 1; UPDATE t SET a = 2; UPDATE t SET a = 3", "UPDATE t", nil},
		{"SELECT 1 UNION SELECT 2 UNION SELECT 3", "SELECT", nil},
	} {
		grammars := c.grammars
		if grammars == nil {
			grammars = everywhere
		}
		for _, g := range grammars {
			assert.Equal(t, c.summary, Summarise(c.query, g).Text(), "%s, grammar %d", c.query, g)
		}
	}
}

// nest puts something in so many brackets.
func nest(depth int, what string) string {
	return strings.Repeat("(", depth) + what + strings.Repeat(")", depth)
}

func inOnly(grammars ...Grammar) []Grammar { return grammars }

func TestTheOperationOfAWithIsThatOfItsStatement(t *testing.T) {
	s := Summarise("WITH x AS (SELECT a FROM t) DELETE FROM u USING x", PostgreSQL)
	assert.Equal(t, "DELETE", s.Operation)
	assert.Equal(t, "u", s.Target, "its own table comes first")
	s = Summarise("WITH x AS (SELECT a FROM t) SELECT a FROM x", PostgreSQL)
	assert.Equal(t, "SELECT", s.Operation)
	assert.Equal(t, "t", s.Target, "it has no other")
}

func TestTheTargetIsATable(t *testing.T) {
	for query, target := range map[string]string{
		"SELECT a FROM generate_series(1, 2), t": "t",
		"DROP INDEX i":                           "",
		"CREATE TABLE t (a int)":                 "t",
		"CLOSE c":                                "",
		"CALL p(1)":                              "",
		"REVOKE ALL ON t FROM bob":               "",
		"FETCH NEXT FROM c":                      "",
	} {
		assert.Equal(t, target, Summarise(query, PostgreSQL).Target, query)
	}
}

func TestAProcedureThatIsCalledIsTold(t *testing.T) {
	assert.Equal(t, "Shop.refund", Summarise("CALL Shop.refund(?)", MySQL).Procedure)
	assert.Equal(t, "dbo.Refund", Summarise("exec [dbo].Refund @a = 1", Unknown).Procedure)
	assert.Equal(t, "Refund", Summarise("EXECUTE Refund 1", Unknown).Procedure)
	assert.Empty(t, Summarise("EXECUTE prepared", PostgreSQL).Procedure)
	assert.Empty(t, Summarise("CREATE PROCEDURE p() BEGIN END", MySQL).Procedure)
}

// sqlc writes such comments.
func TestAStatementsNameIsItsSummary(t *testing.T) {
	for _, comment := range []string{
		"-- name: GetAuthor :one\n", "\n  -- name: GetAuthor :many\r\n", "/* name: GetAuthor :exec */ ", "/* name: GetAuthor :one*/",
	} {
		s := Summarise(comment+"SELECT * FROM authors WHERE id = 5", PostgreSQL)
		assert.Equal(t, &Summary{Operation: "SELECT", Target: "authors", Sanitised: "SELECT * FROM authors WHERE id = ?", text: "GetAuthor"}, s)
	}
	for _, comment := range []string{
		"-- name: GetAuthor\n", "-- name: Get-Author :one\n", "-- name: 5 :one\n", "-- GetAuthor :one\n", "--name: GetAuthor :one\n",
		"-- name: GetAuthor :one of them\n", "-- name: GetAuthor one\n", "-- name: bob's :one\n",
		"-- name: " + strings.Repeat("x", 65) + " :one\n", "-- by bob\n-- name: GetAuthor :one\n",
	} {
		assert.Equal(t, "SELECT authors", Summarise(comment+"SELECT * FROM authors", PostgreSQL).Text(), comment)
	}
}

func TestASummaryEndsWithAWholeWord(t *testing.T) {
	var names []string
	for i := range 100 {
		names = append(names, fmt.Sprintf("table_%d", i))
	}
	s := Summarise("SELECT * FROM "+strings.Join(names, ", "), PostgreSQL)
	assert.LessOrEqual(t, len(s.Text()), 255)
	assert.Greater(t, len(s.Text()), 240)
	whole := "SELECT " + strings.Join(names, " ")
	require.True(t, strings.HasPrefix(whole, s.Text()+" "), s.Text())
	long := strings.Repeat("x", 300)
	assert.Equal(t, "SELECT", Summarise("SELECT * FROM "+long, PostgreSQL).Text())
	assert.Equal(t, "SELECT", Summarise("SELECT * FROM a."+strings.Join(names, " . "), PostgreSQL).Text())
}

// A summary is made in a time that grows with the statement and no faster.
func BenchmarkSummarise(b *testing.B) {
	short := "SELECT id, name FROM users WHERE id = 5"
	middle := "SELECT o.id, o.total, c.name, c.email FROM orders AS o JOIN customers AS c ON c.id = o.customer_id " +
		"LEFT JOIN addresses a ON a.customer_id = c.id WHERE o.created_at > '2024-01-01' AND o.status IN ('new', 'paid') " +
		"AND c.country = 'SE' GROUP BY o.id, c.name HAVING sum(o.total) > 100 ORDER BY o.created_at DESC LIMIT 50"
	for _, c := range []struct{ name, query string }{
		{"short", short}, {"middle", middle},
		{"rows", "INSERT INTO orders (a, b, c) VALUES (1, 'x', 2.5)" + strings.Repeat(", (1, 'x', 2.5)", 700)},
		{"words", "SELECT a FROM t WHERE " + strings.Repeat("colour = size and ", 600) + "b"},
		{"brackets", "SELECT " + strings.Repeat("(", 5000) + strings.Repeat(")", 5000)},
		{"queries", "WITH a AS (SELECT 1)" + strings.Repeat(", a AS (SELECT b FROM a)", 450) + " SELECT 1"},
	} {
		b.Run(c.name, func(b *testing.B) {
			b.SetBytes(int64(len(c.query)))
			b.ReportAllocs()
			for b.Loop() {
				Summarise(c.query, PostgreSQL)
			}
		})
	}
}
