package statement

import (
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
)

// commented is a statement with a short comment, at its end and in front.
func commented(query string, g Grammar) (end, front string) {
	place, tags := PlaceOf(query, g), Tags{Others: map[string]string{"k": "v"}}
	return place.With(query, tags, false), place.With(query, tags, true)
}

func TestWhereACommentGoes(t *testing.T) {
	const c = "/*k='v'*/"
	for _, s := range []struct {
		name     string
		grammars []Grammar
		query    string
		end      string
		front    string
	}{
		{"a statement", everywhere, "SELECT a FROM t", "SELECT a FROM t " + c, c + " SELECT a FROM t"},
		{"before the semicolon", everywhere, " SELECT a FROM t ;\n", " SELECT a FROM t " + c + " ;\n", " " + c + " SELECT a FROM t ;\n"},
		{"a query of sqlc's", everywhere, "-- name: GetAuthor :one\nSELECT a FROM t\n",
			"-- name: GetAuthor :one\nSELECT a FROM t " + c + "\n", "-- name: GetAuthor :one\n" + c + " SELECT a FROM t\n"},
		{"a comment in front", everywhere, "/* ours */SELECT a FROM t", "/* ours */SELECT a FROM t " + c, "/* ours */" + c + " SELECT a FROM t"},
		{"a comment behind", everywhere, "SELECT 1 /* 'a */;", "SELECT 1 /* 'a */ " + c + ";", "SELECT 1 /* 'a */ " + c + ";"},
		{"a comment to the end of the line", everywhere, "SELECT 1 -- it's", "SELECT 1 -- it's\n" + c, "SELECT 1 -- it's\n" + c},
		{"one behind a semicolon", everywhere, "SELECT 1; -- maxscale route to master\r\n",
			"SELECT 1; -- maxscale route to master\n" + c + "\r\n", "SELECT 1; -- maxscale route to master\n" + c + "\r\n"},
		{"a hint in front", everywhere, "/*+ SeqScan(a) */ SELECT 1", "/*+ SeqScan(a) */ SELECT 1 " + c, "/*+ SeqScan(a) */ " + c + " SELECT 1"},
		{"a hint behind the verb", everywhere, "SELECT /*+ SeqScan(a) */ 1", "SELECT /*+ SeqScan(a) */ 1 " + c, "SELECT /*+ SeqScan(a) */ 1 " + c},
		{"comment signs in texts", everywhere, "SELECT '--', '/*', '#', 'it''s'", "SELECT '--', '/*', '#', 'it''s' " + c, c + " SELECT '--', '/*', '#', 'it''s'"},
		{"comment signs in names", everywhere, `SELECT 1 AS "--/*#"`, `SELECT 1 AS "--/*#" ` + c, c + ` SELECT 1 AS "--/*#"`},
		{"a backslash that escapes no quote", everywhere, `SELECT 'a\n--'`, `SELECT 'a\n--' ` + c, c + ` SELECT 'a\n--'`},
		{"several statements", everywhere, "INSERT INTO t VALUES (1); SELECT ';';", "INSERT INTO t VALUES (1); SELECT ';' " + c + ";", c + " INSERT INTO t VALUES (1); SELECT ';';"},
		{"a comment that says no tags", everywhere, "SELECT 1 /* a = 'b' */", "SELECT 1 /* a = 'b' */ " + c, "SELECT 1 /* a = 'b' */ " + c},
		{"bytes that are not UTF-8", everywhere, "SELECT '\xff' \xc3", "SELECT '\xff' \xc3 " + c, c + " SELECT '\xff' \xc3"},
		{"a space of Unicode, which may be a name", everywhere, "SELECT a \u00a0", "SELECT a \u00a0 " + c, c + " SELECT a \u00a0"},
		{"an array, or a name in brackets", everywhere, "SELECT [a b], c[1]", "SELECT [a b], c[1] " + c, c + " SELECT [a b], c[1]"},
		{"placeholders", everywhere, "SELECT $1, ?, :a, @b", "SELECT $1, ?, :a, @b " + c, c + " SELECT $1, ?, :a, @b"},

		{"PostgreSQL's operators", []Grammar{PostgreSQL}, "SELECT a #>> '{b}', c #- d, e # f", "SELECT a #>> '{b}', c #- d, e # f " + c, c + " SELECT a #>> '{b}', c #- d, e # f"},
		{"dollar quotes", []Grammar{PostgreSQL}, "SELECT $$it's /*$$, $a$ $$ -- $a$", "SELECT $$it's /*$$, $a$ $$ -- $a$ " + c, c + " SELECT $$it's /*$$, $a$ $$ -- $a$"},
		{"a name with dollars", []Grammar{PostgreSQL}, "SELECT a$b$ FROM t", "SELECT a$b$ FROM t " + c, c + " SELECT a$b$ FROM t"},
		{"comments within comments", []Grammar{PostgreSQL}, "SELECT 1 /* a /* ' */ b */", "SELECT 1 /* a /* ' */ b */ " + c, "SELECT 1 /* a /* ' */ b */ " + c},
		{"a line of PostgreSQL's", []Grammar{PostgreSQL}, "SELECT 1 --a\r, '--'", "SELECT 1 --a\r, '--' " + c, "SELECT 1 --a\r, '--' " + c},
		{"a backquote of PostgreSQL's", []Grammar{PostgreSQL}, "SELECT 1 ` 2", "SELECT 1 ` 2 " + c, c + " SELECT 1 ` 2"},

		{"names of MySQL's", inMySQL, "SELECT `a b`", "SELECT `a b` " + c, c + " SELECT `a b`"},
		{"comment signs in these", []Grammar{MySQL}, "SELECT `--/*'``b`", "SELECT `--/*'``b` " + c, c + " SELECT `--/*'``b`"},
		{"a comment of MySQL's", inMySQL, "SELECT 1 # a", "SELECT 1 # a\n" + c, "SELECT 1 # a\n" + c},
		{"two minuses", []Grammar{MySQL}, "SELECT 5--'1'", "SELECT 5--'1' " + c, c + " SELECT 5--'1'"},
		{"a comment that does not nest", []Grammar{MySQL}, "SELECT 1 /* /* */", "SELECT 1 /* /* */ " + c, "SELECT 1 /* /* */ " + c},
		{"a comment that is executed", inMySQL, "SELECT 1 /*!40000 + 1 */", "SELECT 1 /*!40000 + 1 */ " + c, c + " SELECT 1 /*!40000 + 1 */"},
		{"tables", []Grammar{MySQL, PostgreSQL}, "create temporary table t (a int)", "create temporary table t (a int) " + c, c + " create temporary table t (a int)"},
		{"indices", []Grammar{MySQL, PostgreSQL}, "CREATE UNIQUE INDEX i ON t (a)", "CREATE UNIQUE INDEX i ON t (a) " + c, c + " CREATE UNIQUE INDEX i ON t (a)"},
	} {
		for _, g := range s.grammars {
			end, front := commented(s.query, g)
			assert.Equal(t, s.end, end, "%s, grammar %d", s.name, g)
			assert.Equal(t, s.front, front, "%s, grammar %d, in front", s.name, g)
		}
	}
}

func TestWhereNoCommentGoes(t *testing.T) {
	for _, s := range []struct {
		name     string
		grammars []Grammar
		queries  []string
	}{
		{"nothing", everywhere, []string{"", " ", ";", "-- a", "/* a */"}},
		{"the name of a procedure", everywhere, []string{"dbo.my_procedure", "my_procedure ;", "VACUUM"}},
		{"tags are there", everywhere, []string{"SELECT 1 /*traceparent='00-a-b-01'*/", "/* a='',b='c' */ SELECT 1", "SELECT 1 /*a%20b='c'*/;"}},
		{"no end", everywhere, []string{"SELECT 'a", "SELECT 'a''", `SELECT "a`, "SELECT 1 /* a", "SELECT 1 /*/", "SELECT 1 /*+ a", "SELECT 1 /*a*"}},
		{"a backslash may escape the quote", everywhere, []string{`SELECT 'it\'s'`, `SELECT 'a\'`, `SELECT 'a\\'`, `SELECT "a\"`}},
		{"a zero byte", everywhere, []string{"SELECT 1 -- a\x00\n", "SELECT '\x00'"}},
		{"PostgreSQL shows them as they are", everywhere, []string{"PREPARE a AS SELECT 1", "DECLARE a CURSOR FOR SELECT 1", "SELECT 1; declare a CURSOR FOR SELECT 1"}},
		{"MariaDB keeps their bodies", everywhere, []string{
			"CREATE PROCEDURE p() SELECT 1", "create or replace definer = a@b function f() returns int return 1", "CREATE TRIGGER a BEFORE INSERT ON t FOR EACH ROW SET @a = 1",
			"ALTER EVENT e DO DO 2", "CREATE EVENT e ON SCHEDULE EVERY 1 DAY DO DO 1", "DROP PROCEDURE p; CREATE PROCEDURE p() SELECT 1", "-- a\nCREATE AGGREGATE FUNCTION f() RETURNS INT RETURN 1",
		}},
		{"and these may be one's", inMySQL, []string{"CREATE /*!50017 DEFINER=a */ PROCEDURE p() SELECT 1", "/*!50003 CREATE */ TRIGGER a BEFORE INSERT ON t FOR EACH ROW SET @a = 1"}},
		{"SQLite and SQL Server keep them whole", []Grammar{Unknown}, []string{"CREATE TABLE t (a int)", "ALTER TABLE t ADD b int", "CREATE INDEX i ON t (a)", "CREATE VIEW v AS SELECT 1"}},
		{"a comment that is executed may hide its end", inMySQL, []string{"SELECT 1 /*!40000 + '*/' */", "SELECT 1 /*M! -- */"}},
		{"a hint may hide its end", inMySQL, []string{"SELECT /*+ a(`*/`) */ 1"}},
		{"comments within comments", []Grammar{Unknown, PostgreSQL}, []string{"SELECT 1 /* /* */"}},
		{"what may nest", []Grammar{Unknown}, []string{"SELECT 1 /* /* */ */"}},
		{"what only some take for a comment", []Grammar{Unknown}, []string{"SELECT a #>> '{b}'", "SELECT 5--'1'\n", "SELECT 1 -- a\r + 1", "SELECT `'`, 1", "SELECT [it's]", "SELECT [a", "SELECT [a]]"}},
		{"what follows is no blank to all", []Grammar{MySQL}, []string{"SELECT 1 --\x01 a", "SELECT 1 --é"}},
		{"what only some take for quotes", inMySQL, []string{"SELECT $a$ it's $a$", "SELECT $$"}},
		{"dollar quotes without an end", []Grammar{PostgreSQL}, []string{"SELECT $$ a", "SELECT $a$ $b$", "SELECT 1$a$ a $a$"}},
		{"Oracle's quotes", []Grammar{Unknown}, []string{"SELECT q'[it's]'", "SELECT NQ'{a}'"}},
	} {
		for _, g := range s.grammars {
			for _, query := range s.queries {
				assert.True(t, PlaceOf(query, g).IsNowhere(), "%s: %q, grammar %d", s.name, query, g)
				end, front := commented(query, g)
				assert.Equal(t, []string{query, query}, []string{end, front})
			}
		}
	}
}

// A statement of any shape is read in time that grows as it does.
func TestAPlaceIsFoundInLinearTime(t *testing.T) {
	for _, piece := range []string{"a ", "'a'", "''", "/*", "/**/", "/*a", "--a\n", "-- ", "#", "#'", "$", "$$", "$a", "$a$", "[", "[]", "`", "q'", "1e", ";", "CREATE ", "\\", "é", "/*!*/", "a='", "a$"} {
		for _, g := range everywhere {
			query := "SELECT 1" + strings.Repeat(piece, 500_000/len(piece))
			began := time.Now()
			PlaceOf(query, g)
			assert.Less(t, time.Since(began), 10*time.Second, "%q, grammar %d", piece, g)
		}
	}
}

func TestNothingIsAllocatedToFindAPlace(t *testing.T) {
	for _, query := range []string{"-- name: A :one\nSELECT 'a', $1, \"b\" /* c */ FROM t;", "CREATE TEMPORARY TABLE t (a int)"} {
		for _, g := range everywhere {
			assert.Zero(t, testing.AllocsPerRun(10, func() { PlaceOf(query, g) }))
		}
	}
}
