package statement

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"unicode/utf8"
	"unsafe"

	"github.com/stretchr/testify/assert"
)

func TestAStatementIsSummarised(t *testing.T) {
	for _, c := range []struct {
		name, query, operation, target, sanitised string
		grammar                                   Grammar
	}{
		{"nothing", "", "OTHER", "", "", 0},
		{"white space only", " \t\r\n ", "OTHER", "", "", 0},
		{"a comment only", "/* nothing */ -- at all", "OTHER", "", "", 0},
		{"a semicolon only", ";", "OTHER", "", ";", 0},

		{"a select", "SELECT a, b FROM orders", "SELECT", "orders", "SELECT a, b FROM orders", 0},
		{"lower case", "select * from Orders", "SELECT", "Orders", "select * from Orders", 0},
		{"an insert", "INSERT INTO orders (a, b) VALUES (1, 'x')", "INSERT", "orders", "INSERT INTO orders (a, b) VALUES (?, ?)", 0},
		{"an update", "UPDATE orders SET a = 1.5e-3 WHERE id = 7", "UPDATE", "orders", "UPDATE orders SET a = ? WHERE id = ?", 0},
		{"a delete", "DELETE FROM shop.orders WHERE id = 7", "DELETE", "shop.orders", "DELETE FROM shop.orders WHERE id = ?", 0},
		{"a subselect has no table at its FROM", "SELECT * FROM (SELECT 1) x", "SELECT", "", "SELECT * FROM (SELECT ?) x", 0},
		{"a statement without a table", "COMMIT", "COMMIT", "", "COMMIT", 0},
		{"FROM at the very end", "SELECT 1 FROM", "SELECT", "", "SELECT ? FROM", 0},
		{"an unknown operation", "FROBNICATE orders", "OTHER", "", "FROBNICATE orders", MySQL},
		{"an operation in brackets", "(SELECT 1)", "SELECT", "", "(SELECT ?)", 0},
		{"a name that is not Latin", "SELECT größe FROM прайс", "SELECT", "прайс", "SELECT größe FROM прайс", 0},

		{"white space is one blank", "  SELECT\t1\r\n,\n\n2  ", "SELECT", "", "SELECT ? , ?", 0},

		{"a doubled quote", "SELECT 'it''s', 'b'", "SELECT", "", "SELECT ?, ?", 0},
		{"an empty string", "SELECT '', 'b'", "SELECT", "", "SELECT ?, ?", 0},
		{"a string of one quote", "SELECT '''', 'b'", "SELECT", "", "SELECT ?, ?", MySQL},
		{"a harmless backslash", `SELECT 'a\nb', 'c'`, "SELECT", "", "SELECT ?, ?", 0},
		{"a backslash before a quote: nothing behind it is certain", `SELECT 'a\', b, 'c' FROM orders`, "SELECT", "", "SELECT ?", 0},
		{"a backslash before a backslash: likewise", `SELECT 'a\\', 'c' FROM orders`, "SELECT", "", "SELECT ?", 0},
		{"a string of several lines", "SELECT 'a\n-- b\n/* c', d", "SELECT", "", "SELECT ?, d", 0},
		{"double quotes may be text", `SELECT "x" FROM "orders"`, "SELECT", "", "SELECT ? FROM ?", 0},
		{"double quotes, doubled", `SELECT "x""y", 'z'`, "SELECT", "", "SELECT ?, ?", 0},
		{"a quote in the other quote", `SELECT "it's", 'say "x"', b`, "SELECT", "", "SELECT ?, ?, b", 0},
		{"strings side by side", "SELECT 'a' 'b'", "SELECT", "", "SELECT ? ?", 0},

		{"a national string", "SELECT N'x', n'y'", "SELECT", "", "SELECT ?, ?", 0},
		{"a string of a character set", "SELECT _utf8mb4'x', _latin1 'y'", "SELECT", "", "SELECT ?, _latin1 ?", 0},
		{"an escape string", `SELECT E'a\tb', b`, "SELECT", "", "SELECT ?, b", 0},
		{"a Unicode string", `SELECT U&'d\0061t', b`, "SELECT", "", "SELECT U&?, b", 0},
		{"a hexadecimal string", "SELECT x'4D79', X'53'", "SELECT", "", "SELECT ?, ?", 0},
		{"a hexadecimal number", "SELECT 0x4D79, 0XfF", "SELECT", "", "SELECT ?, ?", 0},
		{"bits", "SELECT b'0101', B'1', 0b0101", "SELECT", "", "SELECT ?, ?, ?", 0},
		{"a typed literal", "SELECT DATE '2026-11-21', TIMESTAMP'2026-11-21 10:00'", "SELECT", "", "SELECT DATE ?, ?", 0},

		{"a backslash before a quote in any of them", `SELECT E'it\'s', b, 'c' FROM orders`, "SELECT", "", "SELECT ?", 0},
		{"a placeholder is no tag", "SELECT $1$, $1$, b", "SELECT", "", "SELECT $1$, $1$, b", PostgreSQL},
		{"elsewhere it may be one", "SELECT $1$, 'x $1$, b", "SELECT", "", "SELECT ?", MySQL},
		{"dollar quotes", "SELECT $$it's$$, b", "SELECT", "", "SELECT ?, b", PostgreSQL},
		{"dollar quotes with a tag", "DO $body$ BEGIN PERFORM $$x$$; END $body$", "DO", "", "DO ?", PostgreSQL},
		{"dollar quotes with another tag within", "SELECT $a$ $b$ x $b$ $a$, b", "SELECT", "", "SELECT ?, b", PostgreSQL},

		{"numbers", "SELECT 1, 1.5, .5, 5., 1e10, 1E+10, 1.5e-10, -3", "SELECT", "", "SELECT ?, ?, ?, ?, ?, ?, ?, -?", 0},
		{"digits grouped", "SELECT 1_000_000", "SELECT", "", "SELECT ?", 0},
		{"a number with an operator", "SELECT 1+2-3", "SELECT", "", "SELECT ?+?-?", 0},
		{"digits in a name", "SELECT a1, t2.c3 FROM t2", "SELECT", "t2", "SELECT a1, t2.c3 FROM t2", 0},
		{"a list", "SELECT a FROM t WHERE b IN (1,2,3)", "SELECT", "t", "SELECT a FROM t WHERE b IN (?)", 0},

		{"placeholders of MySQL", "SELECT a FROM t WHERE b = ? AND c=?", "SELECT", "t", "SELECT a FROM t WHERE b = ? AND c=?", 0},
		{"placeholders of PostgreSQL", "SELECT a FROM t WHERE b = $1 AND c=$23", "SELECT", "t", "SELECT a FROM t WHERE b = $1 AND c=$23", PostgreSQL},
		{"placeholders with a name", "SELECT a FROM t WHERE b = :first AND c=:second_2", "SELECT", "t", "SELECT a FROM t WHERE b = :first AND c=:second_2", 0},
		{"variables", "SET @x = 1, @@session.wait_timeout = 5", "SET", "", "SET @x = ?", MySQL},
		{"an account", "GRANT ALL ON shop.* TO 'bob'@'10.1.2.3'", "GRANT", "", "GRANT ALL ON shop.* TO ?@?", 0},
		{"a cast", "SELECT '5'::int, a::text", "SELECT", "", "SELECT ?::int, a::text", 0},
		{"operators of JSON", "SELECT a->'k', a->>'k', a#>'{k}', a#>>'{k}', a#-'{k}', a@>'{}', a?|b FROM t",
			"SELECT", "t", "SELECT a->?, a->>?, a#>?, a#>>?, a#-?, a@>?, a?|b FROM t", PostgreSQL},

		{"a comment is gone", "SELECT /* by bob */ 1", "SELECT", "", "SELECT ?", 0},
		{"a comment first", "/* route=/orders */ SELECT 1", "SELECT", "", "SELECT ?", 0},
		{"a comment parts words", "SELECT/**/a/**/FROM/**/t", "SELECT", "t", "SELECT a FROM t", 0},
		{"a comment parts operators", "SELECT 1-/**/-2", "SELECT", "", "SELECT ?- -?", 0},
		{"a comment within a comment", "SELECT /* a /* b */ 'c' */ 1", "SELECT", "", "SELECT ?", PostgreSQL},
		{"a hint", "SELECT /*+ MAX_EXECUTION_TIME(1000) */ a FROM t", "SELECT", "t", "SELECT a FROM t", 0},
		{"a comment to the end of the line", "SELECT a -- it's bob's\nFROM t", "SELECT", "t", "SELECT a FROM t", 0},
		{"a comment with a hash", "# it's bob's\nSELECT a FROM t", "SELECT", "t", "SELECT a FROM t", MySQL},
		{"a comment last", "SELECT a FROM t -- bob", "SELECT", "t", "SELECT a FROM t", 0},
		{"quotes have no meaning in a comment", "SELECT /* ' */ a, 'x' /* ' */ FROM t", "SELECT", "t", "SELECT a, ? FROM t", 0},
		{"a comment has no meaning in quotes", "SELECT '/*', a, '*/', '--', b", "SELECT", "", "SELECT ?, a, ?, ?, b", 0},

		{"a name in backticks", "SELECT `a b` FROM `Orders`", "SELECT", "Orders", "SELECT `a b` FROM `Orders`", 0},
		{"a backtick in backticks", "SELECT `a``b`, 'x' FROM t", "SELECT", "t", "SELECT `a``b`, ? FROM t", 0},
		{"a backslash in backticks escapes nothing", "SELECT `a\\`, 'x' FROM t", "SELECT", "t", "SELECT `a\\`, ? FROM t", MySQL},
		{"a quote in backticks", "SELECT `it's`, 'x' FROM t", "SELECT", "t", "SELECT `it's`, ? FROM t", 0},

		{"a string without end", "SELECT a, 'b FROM t", "SELECT", "", "SELECT a, ?", 0},
		{"a string that ends in a backslash", `SELECT a, 'b\`, "SELECT", "", "SELECT a, ?", 0},
		{"a quote at the very end", "SELECT '", "SELECT", "", "SELECT ?", 0},
		{"a doubled quote at the very end", "SELECT 'a''", "SELECT", "", "SELECT ?", 0},
		{"double quotes without end", `SELECT a, "b FROM t`, "SELECT", "", "SELECT a, ?", 0},
		{"a literal with a prefix without end", "SELECT x'41", "SELECT", "", "SELECT ?", 0},
		{"dollar quotes without end", "SELECT $x$ b FROM t", "SELECT", "", "SELECT ?", PostgreSQL},
		{"a dollar at the very end", "SELECT $", "SELECT", "", "SELECT $", 0},
		{"a tag at the very end", "SELECT $tag", "SELECT", "", "SELECT $tag", 0},
		{"a comment without end", "SELECT a /* b FROM t", "SELECT", "", "SELECT a", 0},
		{"a nested comment without end", "SELECT a /* /* b */ FROM t", "SELECT", "", "SELECT a", PostgreSQL},
		{"half a comment's end", "SELECT a /* b *", "SELECT", "", "SELECT a", 0},
		{"a line comment without end", "SELECT a --", "SELECT", "", "SELECT a", 0},
		{"a colon and an at at the very end", "SELECT : @", "SELECT", "", "SELECT : @", 0},
		{"an exponent without end", "SELECT 1e", "SELECT", "", "SELECT ?", 0},

		{"# is a comment in MySQL, whatever follows", "#--- monthly ---\nSELECT a #> don't\n, 'x' FROM t", "SELECT", "t", "SELECT a , ? FROM t", MySQL},
		{"# is an operator in PostgreSQL", "SELECT a # 'x\ny', b FROM t", "SELECT", "t", "SELECT a # ?, b FROM t", PostgreSQL},
		{"# is anybody's guess elsewhere", "SELECT a # 'x\ny', b FROM t", "SELECT", "", "SELECT a ?", 0},
		{"-- without a blank is no comment in MySQL", "SELECT 5--'x\ny', b", "SELECT", "", "SELECT ?--?, b", MySQL},
		{"-- without a blank is one in PostgreSQL", "SELECT 5--'x\n, b", "SELECT", "", "SELECT ? , b", PostgreSQL},
		{"-- without a blank is anybody's guess elsewhere", "SELECT 5--'x\ny', b", "SELECT", "", "SELECT ??", 0},
		{"a carriage return ends a comment in PostgreSQL", "SELECT 1 --\r, 'x\ny'", "SELECT", "", "SELECT ? , ?", PostgreSQL},
		{"a carriage return ends none in MySQL", "SELECT 1 -- \r, 'x\n, y", "SELECT", "", "SELECT ? , y", MySQL},
		{"comments do not nest in MySQL", "SELECT /* /* */ 'x */ y', b", "SELECT", "", "SELECT ?, b", MySQL},
		{"comments may nest elsewhere", "SELECT /* /* */ 'x */ y', b", "SELECT", "", "SELECT ?", 0},
		{"a comment that is executed", "CREATE /*!40101 COMMENT 'x*/ y' */ TABLE t", "CREATE", "", "CREATE ?", MySQL},
		{"a comment that is executed, without texts", "SELECT /*!40001 SQL_NO_CACHE */ a FROM t", "SELECT", "t", "SELECT a FROM t", MySQL},
		{"a dollar within a name", "SELECT v$a$b, 'x$a$ y' FROM v$session", "SELECT", "v$session", "SELECT v$a$b, ? FROM v$session", PostgreSQL},
		{"a tag of letters beyond ASCII", "SELECT $é$ x $é$, b", "SELECT", "", "SELECT ?, b", PostgreSQL},
		{"a program in MySQL's dollar quotes", "CREATE FUNCTION f() RETURNS INT LANGUAGE JAVASCRIPT AS $js$ return key(\"it's\") $js$", "CREATE", "", "CREATE FUNCTION f() RETURNS INT LANGUAGE JAVASCRIPT AS ?", MySQL},
		{"dollar quotes may be names in MariaDB: nothing behind them is certain", "SELECT $$, ' $$ x', 'y'", "SELECT", "", "SELECT ?", MySQL},
		{"a tag of MySQL's of any character", "SELECT $1€$ x $1€$", "SELECT", "", "SELECT ?", MySQL},
		{"a dollar in a name of MySQL's", "SELECT a$b, a$$, $x, t.c$, @v$ FROM $t WHERE $x = 'y'", "SELECT", "", "SELECT a$b, a$$, $x, t.c$, @v$ FROM $t WHERE $x = ?", MySQL},
		{"a placeholder before dollar quotes", "SELECT $1$a$ x $a$, b", "SELECT", "", "SELECT $1?, b", PostgreSQL},
		{"a tag of any character", "SELECT $€$ x $€$, $٣$ z $٣$, b", "SELECT", "", "SELECT ?, ?, b", PostgreSQL},
		{"a name of any character", "SELECT a€$b$, ٣$b$, \u00a0$b$, 'x $b$', 'y'", "SELECT", "", "SELECT a€$b$, ٣$b$, \u00a0$b$, ?, ?", PostgreSQL},
		{"a comment behind a hexadecimal number", "SELECT 0xe--it's\n, 'x'", "SELECT", "", "SELECT ? , ?", PostgreSQL},
		{"a comment behind a name of digits", "SELECT 1e-- it's\n, 'x'", "SELECT", "", "SELECT ? , ?", MySQL},
		{"a control character behind --", "SELECT 5--\x01 it's\n, 'x'", "SELECT", "", "SELECT ??", MySQL},
		{"a zero byte ends a comment in MySQL", "SELECT 1 # \x00'\n x'", "SELECT", "", "SELECT ? ?", MySQL},
		{"a zero byte may end one elsewhere", "SELECT 1 -- \x00'\n x'", "SELECT", "", "SELECT ? ?", 0},
		{"a comment in a comment that is executed", "SELECT /*! # */ it's\n*/ 'x'", "SELECT", "", "SELECT ?", MySQL},
		{"another", "SELECT /*! -- */ it's\n*/ 'x'", "SELECT", "", "SELECT ?", MySQL},
		{"a comment that TiDB executes", "SELECT /*T! 'a */ b', c */ 'x'", "SELECT", "", "SELECT ?", MySQL},
		{"a comment's end in a hint's text", `SELECT /*+ SET_VAR(a = "b */ c") */ 'x'`, "SELECT", "", "SELECT ?", MySQL},
		{"names in a hint", "SELECT /*+ INDEX(`a` `b`) QB_NAME('c') */ d", "SELECT", "", "SELECT d", MySQL},
		{"a bracket in a name of SQL Server's", "SELECT [a]]'b], 'x'", "SELECT", "", "SELECT ?", 0},
		{"minus signs in a name of SQL Server's", "SELECT [a -- b], 'x\ny'", "SELECT", "", "SELECT ?", 0},

		{"a setting's value without quotes", "SET LOCAL app.token = hunter2", "SET", "", "SET LOCAL app.token = ?", PostgreSQL},
		{"in double quotes", `SET app.token TO "hunter 2"`, "SET", "", "SET app.token TO ?", PostgreSQL},
		{"in double quotes of Unicode", `SET app.token TO U&"hunter 2"`, "SET", "", "SET app.token TO ?", PostgreSQL},
		{"in backticks", "SET GLOBAL wsrep_sst_auth = `hunter 2`", "SET", "", "SET GLOBAL wsrep_sst_auth = ?", MySQL},
		{"behind a dollar", "SET GLOBAL wsrep_sst_auth = $hunter2, @v = $x", "SET", "", "SET GLOBAL wsrep_sst_auth = ?", MySQL},
		{"a setting's list", `set search_path to tenant, "$user"; select a from t`, "SET", "t", "set search_path to ?; select a from t", PostgreSQL},
		{"settings in a row", "SET a = hunter2, GLOBAL b := c, @d = NOW ()", "SET", "", "SET a = ?", MySQL},
		{"a setting that is no value", "SET NAMES utf8mb4; SET TRANSACTION READ ONLY; SET ROLE bob", "SET", "", "SET NAMES utf8mb4; SET TRANSACTION READ ONLY; SET ROLE bob", 0},
		{"a setting for one statement", "SET STATEMENT a=1 FOR SELECT b FROM t WHERE c = d", "SET", "t", "SET STATEMENT a=? FOR SELECT b FROM t WHERE c = d", MySQL},
		{"a role's setting", "ALTER ROLE bob IN DATABASE d SET app.token TO hunter2", "ALTER", "", "ALTER ROLE bob IN DATABASE d SET app.token TO ?", PostgreSQL},
		{"a server's setting", `ALTER SYSTEM SET app.token = "hunter2"`, "ALTER", "", "ALTER SYSTEM SET app.token = ?", PostgreSQL},
		{"another name", "ALTER ROLE bob RENAME TO jane", "ALTER", "", "ALTER ROLE bob RENAME TO jane", PostgreSQL},
		{"a function's setting", "ALTER FUNCTION f(int) SET app.token = hunter2", "ALTER", "", "ALTER FUNCTION f(int) SET app.token = ?", PostgreSQL},
		{"a function's argument", "CREATE FUNCTION f(password text) RETURNS int RETURN 1", "CREATE", "", "CREATE FUNCTION f(password text) RETURNS int RETURN ?", PostgreSQL},
		{"a function's setting, again", "CREATE OR REPLACE FUNCTION f() RETURNS int AS 'x' SET app.key = hunter2", "CREATE", "", "CREATE OR REPLACE FUNCTION f() RETURNS int AS ? SET app.key = ?", PostgreSQL},
		{"a role's password, again", "CREATE OR REPLACE ROLE r PASSWORD hunter2", "CREATE", "", "CREATE OR REPLACE ROLE r PASSWORD ?", PostgreSQL},
		{"a procedure's statements", "CREATE PROCEDURE p() BEGIN UPDATE t SET a = b; END", "CREATE", "", "CREATE PROCEDURE p() BEGIN UPDATE t SET a = ?; END", MySQL},
		{"a key without quotes", "PRAGMA main.rekey = hunter2", "PRAGMA", "", "PRAGMA main.rekey = ?", 0},
		{"a key whose name has some", `PRAGMA main."key" = hunter2`, "PRAGMA", "", "PRAGMA main.? = ?", 0},
		{"a key in brackets", "PRAGMA [key] = hunter2", "PRAGMA", "", "PRAGMA [key] = ?", 0},
		{"a key as an argument", "pragma key(hunter2)", "PRAGMA", "", "pragma key(?", 0},
		{"a key that is explained", "EXPLAIN QUERY PLAN PRAGMA key = hunter2", "EXPLAIN", "", "EXPLAIN QUERY PLAN PRAGMA key = ?", 0},
		{"a table called key", "PRAGMA table_info(key)", "PRAGMA", "", "PRAGMA table_info(?", 0},
		{"a database with a key", "ATTACH DATABASE f AS e KEY hunter2", "OTHER", "", "ATTACH DATABASE f AS e KEY ?", 0},
		{"another pragma", "PRAGMA journal_mode = WAL", "PRAGMA", "", "PRAGMA journal_mode = ?", 0},
		{"a password without quotes", "CREATE USER bob WITH PASSWORD hunter2", "CREATE", "", "CREATE USER bob WITH PASSWORD ?", PostgreSQL},
		{"a password in double quotes", `ALTER ROLE bob PASSWORD /* new */ "hunter2" LOGIN`, "ALTER", "", "ALTER ROLE bob PASSWORD ?", PostgreSQL},
		{"a password that is set", "SET PASSWORD FOR bob@localhost = p@hunter2", "SET", "", "SET PASSWORD ?", MySQL},
		{"a password of Oracle's", "CREATE USER bob identified by hunter2", "CREATE", "", "CREATE USER bob identified by ?", 0},
		{"a password of a plugin", "GRANT USAGE ON *.* TO bob IDENTIFIED WITH p BY hunter2", "GRANT", "", "GRANT USAGE ON *.* TO bob IDENTIFIED WITH ?", MySQL},
		{"a password that is marked as one", "CREATE OR REPLACE USER bob IDENTIFIED BY PASSWORD '*0'", "CREATE", "", "CREATE OR REPLACE USER bob IDENTIFIED BY ?", MySQL},
		{"a table of passwords", "CREATE TABLE users (identified bool, password text)", "CREATE", "users", "CREATE TABLE users (identified bool, password text)", 0},
		{"a column of passwords", "UPDATE users SET password = $1, a = b WHERE password = old", "UPDATE", "users", "UPDATE users SET password = $1, a = b WHERE password = old", PostgreSQL},
		{"a grant on passwords", "GRANT SELECT (password) ON users TO bob", "GRANT", "", "GRANT SELECT (password) ON users TO bob", PostgreSQL},
		{"a location with its keys", `BACKUP INTO "s3://a?AWS_SECRET_ACCESS_KEY=b" WITH encryption_passphrase = hunter2`, "OTHER", "", "BACKUP ?", PostgreSQL},
		{"a location that is kept", `CREATE EXTERNAL CONNECTION c AS "s3://a"`, "CREATE", "", "CREATE EXTERNAL ?", PostgreSQL},
		{"data behind a statement", "COPY t (a) FROM stdin WITH (FORMAT csv);\nx,y\n\\.\n", "COPY", "t", "COPY t (a) FROM stdin WITH (FORMAT csv); ?", PostgreSQL},
		{"data that begins as a comment", "COPY t FROM STDIN;\n#a\n", "COPY", "t", "COPY t FROM STDIN; ?", PostgreSQL},
		{"what is copied from a query", "COPY (SELECT a FROM t) TO STDOUT", "COPY", "t", "COPY (SELECT a FROM t) TO STDOUT", PostgreSQL},
		{"a file that is loaded", "LOAD DATA INFILE 'a' INTO TABLE t", "LOAD", "t", "LOAD DATA INFILE ? INTO TABLE t", MySQL},
		{"data that comes later", "COPY t FROM STDIN", "COPY", "t", "COPY t FROM STDIN", PostgreSQL},
		{"names in double quotes in PostgreSQL", `SELECT "it's", 'x' FROM "Shop"."Orders" WHERE "a""b" = 1`, "SELECT", "Shop.Orders", `SELECT "it's", ? FROM "Shop"."Orders" WHERE "a""b" = ?`, PostgreSQL},
		{"a name without end", "SELECT `a, 'x'", "SELECT", "", "SELECT ?", MySQL},
		{"a backtick is nothing in PostgreSQL", "SELECT `, 'x'", "SELECT", "", "SELECT `, ?", PostgreSQL},
		{"a name of SQL Server's", "SELECT [it's], 'x' FROM [t]", "SELECT", "", "SELECT ?", 0},
		{"an index", "SELECT a[1], b[2:3] FROM t", "SELECT", "t", "SELECT a[?], b[?:?] FROM t", 0},
		{"a text of Oracle's", "SELECT q'[it's]', 'x' FROM t", "SELECT", "", "SELECT ?", 0},
		{"numbers behind operators and words", "SELECT @424242, a[1:424242], SELECT.424242, t.5", "SELECT", "", "SELECT @?, a[?:?], SELECT?, t?", 0},

		{"a table with its database", "SELECT a FROM `shop`.`orders`", "SELECT", "shop.orders", "SELECT a FROM `shop`.`orders`", 0},
		{"a table that may exist", "CREATE TABLE IF NOT EXISTS t (a int)", "CREATE", "t", "CREATE TABLE IF NOT EXISTS t (a int)", 0},
		{"a table that may not", "DROP TABLE IF EXISTS t", "DROP", "t", "DROP TABLE IF EXISTS t", 0},
		{"a table alone", "SELECT a FROM ONLY t", "SELECT", "t", "SELECT a FROM ONLY t", 0},
		{"FROM in a function", "SELECT EXTRACT(YEAR FROM created), TRIM(BOTH FROM $1) FROM t", "SELECT", "t", "SELECT EXTRACT(YEAR FROM created), TRIM(BOTH FROM $1) FROM t", PostgreSQL},
		{"FROM in a subselect", "SELECT (SELECT max(a) FROM t) + 1", "SELECT", "t", "SELECT (SELECT max(a) FROM t) + ?", 0},
		{"an update that is modest", "UPDATE LOW_PRIORITY t SET a = 1", "UPDATE", "t", "UPDATE LOW_PRIORITY t SET a = ?", 0},
		{"no update", "SELECT 1 FOR UPDATE", "SELECT", "", "SELECT ? FOR UPDATE", 0},
		{"no table", "SELECT a FROM;", "SELECT", "", "SELECT a FROM;", 0},
		{"bytes that are not UTF-8, in a name", "SELECT größe FROM t\xe4ler, `x`", "SELECT", "t", "SELECT größe FROM t?", 0},

		{"bytes that are not UTF-8, quoted", "SELECT 'x\xff\xfe''\xc3', b", "SELECT", "", "SELECT ?", 0},
		{"a zero byte, quoted", "SELECT 'a\x00b', b", "SELECT", "", "SELECT ?, b", 0},
		{"a blank of Unicode", "SELECT\u00a01", "SELECT", "", "SELECT ?", 0},
	} {
		t.Run(c.name, func(t *testing.T) {
			s := Summarise(c.query, c.grammar)
			assert.Equal(t, &Summary{Operation: c.operation, Target: c.target, Sanitised: c.sanitised, Moves: s.Moves, Effect: s.Effect, text: s.text}, s)
		})
	}
}

// A statement as an application makes them, with more words than are read: what is behind
// them is not shown.
func TestALongStatementIsSanitised(t *testing.T) {
	s := Summarise("INSERT INTO orders (a) VALUES ('secret')"+strings.Repeat(", ('secret')", 10_000), Unknown)
	assert.Equal(t, "INSERT", s.Operation)
	assert.Equal(t, "orders", s.Target)
	assert.NotContains(t, s.Sanitised, "secret")
}

func TestASummaryKeepsNoStatementInMemory(t *testing.T) {
	file := strings.Repeat(" ", 1<<20) + "SELECT a FROM t"
	s := Summarise(file[1<<20:], Unknown)
	within := func(part string) bool {
		at, start := uintptr(unsafe.Pointer(unsafe.StringData(part))), uintptr(unsafe.Pointer(unsafe.StringData(file)))
		return at >= start && at < start+uintptr(len(file))
	}
	assert.False(t, within(s.Operation) || within(s.Target) || within(s.Procedure) || within(s.Sanitised) || within(s.Text()))
}

// Whose statements are read: an unknown server's may be anybody's.
var (
	everywhere   = []Grammar{Unknown, MySQL, PostgreSQL}
	inMySQL      = []Grammar{Unknown, MySQL}
	inPostgreSQL = []Grammar{Unknown, PostgreSQL}
)

// plantings write a secret as a literal or in a comment, among whatever else
// the literal may contain. Each is one that its servers read as a single token.
var plantings = []struct {
	name     string
	grammars []Grammar
	write    func(noise, secret string) string
}{
	{"doubled quotes", everywhere, func(noise, secret string) string {
		return "'" + strings.ReplaceAll(noise+secret+noise, "'", "''") + "'"
	}},
	{"escapes", inMySQL, func(noise, secret string) string {
		return "'" + strings.NewReplacer(`\`, `\\`, "'", `\'`).Replace(noise+secret+noise) + "'"
	}},
	{"double quotes, doubled", inMySQL, func(noise, secret string) string {
		return `"` + strings.ReplaceAll(noise+secret+noise, `"`, `""`) + `"`
	}},
	{"double quotes, escapes", inMySQL, func(noise, secret string) string {
		return `"` + strings.NewReplacer(`\`, `\\`, `"`, `\"`).Replace(noise+secret+noise) + `"`
	}},
	{"a national string", everywhere, func(noise, secret string) string {
		return "N'" + strings.ReplaceAll(noise+secret, "'", "''") + "'"
	}},
	{"an escape string", everywhere, func(noise, secret string) string {
		return "E'" + strings.NewReplacer(`\`, `\\`, "'", `\'`).Replace(noise+secret) + "'"
	}},
	{"a string of a character set", everywhere, func(noise, secret string) string {
		return "_utf8mb4 '" + strings.ReplaceAll(secret+noise, "'", "''") + "'"
	}},
	{"dollar quotes", inPostgreSQL, func(noise, secret string) string {
		noise = strings.ReplaceAll(noise, "$", "")
		return "$$" + noise + secret + noise + "$$"
	}},
	{"dollar quotes with a tag", inPostgreSQL, func(noise, secret string) string {
		noise = strings.ReplaceAll(noise, "tag_1", "tag_2")
		return "$tag_1$ " + noise + secret + noise + " $tag_1$"
	}},
	{"dollar quotes of MySQL's", inMySQL, func(noise, secret string) string {
		noise = strings.ReplaceAll(noise, "$1é$", "$2é$")
		return "$1é$ " + noise + secret + noise + " $1é$"
	}},
	{"three quotes", []Grammar{Unknown}, func(noise, secret string) string {
		return "'''" + strings.NewReplacer("\\", "", "'''", "").Replace(noise+secret+noise) + " '''"
	}},
	{"a name with escapes", []Grammar{Unknown}, func(noise, secret string) string {
		return "`" + strings.NewReplacer("\\", "\\\\", "`", "\\`").Replace("\\"+noise+secret+noise) + "`"
	}},
	{"a comment of Snowflake's", []Grammar{Unknown}, func(noise, secret string) string {
		return "1 // " + strings.ReplaceAll(noise, "\n", "") + secret + "\n"
	}},
	{"a comment", everywhere, func(noise, secret string) string {
		noise = strings.ReplaceAll(strings.ReplaceAll(noise, "*", ""), "/", "")
		return "/* " + noise + secret + noise + " */ 1"
	}},
	{"a comment within a comment", inPostgreSQL, func(noise, secret string) string {
		noise = strings.ReplaceAll(strings.ReplaceAll(noise, "*", ""), "/", "")
		return "/* a /* " + noise + " */ " + secret + " */ 1"
	}},
	{"a comment to the end of the line", everywhere, func(noise, secret string) string {
		noise = strings.ReplaceAll(strings.ReplaceAll(noise, "\n", ""), "\r", "")
		return "1 -- " + noise + secret + noise + "\n"
	}},
}

// plantedNumbers write a number, of which the digits are the secret.
var plantedNumbers = []func(digits string) string{
	func(digits string) string { return digits },
	func(digits string) string { return "-" + digits },
	func(digits string) string { return digits + ".5" },
	func(digits string) string { return "0." + digits },
	func(digits string) string { return "." + digits },
	func(digits string) string { return digits + "e-7" },
	func(digits string) string { return "7E+" + digits },
	func(digits string) string { return "0x" + digits },
	func(digits string) string { return "X'" + digits + "'" },
	func(digits string) string { return "b'" + digits + "'" },
	func(digits string) string { return "0b" + digits },
	func(digits string) string { return "DATE '" + digits + "-01-01'" },
}

// plots are statements that a literal is planted in, twice: what follows the
// first must be understood as well.
var plots = []struct {
	grammars []Grammar
	query    string
}{
	{everywhere, "SELECT a, %s FROM t WHERE b = %s AND c = ?"},
	{everywhere, "INSERT INTO t (a, b) VALUES (%s,%s)"},
	{inMySQL, "UPDATE `t` SET a = %s, b=a+%s WHERE c = $1 -- it's bob's\n LIMIT 5"},
	{inPostgreSQL, "DELETE FROM t WHERE a->>'k' IN (%s, %s)"},
	{everywhere, "/* it's bob's */ CALL p(%s, :name, @x, %s)"},
	{everywhere, "SELECT * FROM %s JOIN %s"},
	{everywhere, "%s %s"},
	{everywhere, "SELECT %s::text || %s"},
	{inMySQL, "SELECT `it's`, %s, \"it's\", %s"},
	{inPostgreSQL, "SELECT \"it's\", %s, \"it\"\"s\", %s"},
	{inPostgreSQL, "SELECT a #>> %s, a #- %s"},
	{inPostgreSQL, "SELECT a # %s, v$a$b, %s"},
	{inMySQL, "#- it's bob's\nSELECT 5--%s, %s"},
	{inMySQL, "SELECT /* /* it's */ %s, /*!40101 %s */ 1"},
	{everywhere, "SELECT a[1:%s], b.%s"},
	{everywhere, "SET a.b = c, d = %s; SELECT %s"},
	{everywhere, "ALTER USER u IDENTIFIED BY %s PASSWORD %s"},
	{inPostgreSQL, "SELECT 0xe--it's\n, %s, a€$b$, ' $b$', %s"},
	{inMySQL, "SELECT 1e-- it's\n, %s, a$b, $x, %s"},
	{everywhere, "INSERT INTO %s SELECT a FROM b, %s"},
	{everywhere, "WITH %s AS (SELECT a FROM t) DELETE FROM u USING %s"},
	{everywhere, "CREATE TABLE %s (a int); DROP INDEX i, %s"},
	{everywhere, "DECLARE %s CURSOR FOR SELECT a FROM t.%s"},
	{everywhere, "EXEC @a = %s, %s"},
	{[]Grammar{Unknown}, "SELECT a FROM [%s], [a].[b %s]"},
}

// FuzzSummarise plants secrets in statements, and looks for them in what
// telemetry would say. It also reads the noise as a statement of its own.
func FuzzSummarise(f *testing.F) {
	for i, noise := range []string{
		"", "'", "''", `\`, `\\`, `\'`, `'\`, `"`, `\"`, "`", "$", "$$", "$1", "$tag$", "$tag_1$", "$1$", "$€$", "a€$b$", "/*", "*/", "--", "#", "\n", "\r",
		"\x00", "\xff", "é", ";", "?", "N'", "x'", "E'\\", "0x", "1e", "1e+", ".", ":", "@", "SELECT a FROM t WHERE b = 'c'",
		"SET a = b", "SET a TO U&\"b\", c; SELECT d", "CREATE USER a PASSWORD b", "a IDENTIFIED BY b", "ALTER ROLE a SET b = c", "COPY t FROM STDIN; a",
		"-/**/-", "1e-- ", "--\x01", "/*! # */", "/*+ ' */", "[a]]'", "\u00a0", "/*/", "/**/*", "'/*'", `it's "so" $$said$$ /* and */ -- done`,
	} {
		for planting := range plantings {
			f.Add(noise, uint64(i)*7919+1_000_003, uint8(planting), uint8(i+planting))
		}
	}
	f.Fuzz(func(t *testing.T, noise string, number uint64, planting, plot uint8) {
		p, frame := plantings[int(planting)%len(plantings)], plots[int(plot)%len(plots)]
		digits := fmt.Sprint(number%1e9 + 1e9) // ten digits, which no plot contains
		asNumber := plantedNumbers[int(planting)%len(plantedNumbers)](digits)
		for _, g := range everywhere {
			checkAnything(t, noise, g)
			if !slices.Contains(frame.grammars, g) {
				continue
			}
			checkNothingSurvives(t, g, frame.query, asNumber, digits)
			if slices.Contains(p.grammars, g) {
				const word = "zqxjkvbsecretbvkjxqz"
				checkNothingSurvives(t, g, frame.query, p.write(noise, word), word)
			}
		}
	})
}

// checkNothingSurvives plants a literal, and sanitises twice.
func checkNothingSurvives(t *testing.T, g Grammar, plot, literal, secret string) {
	query := fmt.Sprintf(plot, literal, literal)
	s := Summarise(query, g)
	for _, said := range []string{s.Sanitised, s.Operation, s.Target, s.Procedure, s.Text()} {
		if strings.Contains(strings.ToLower(said), secret) {
			t.Fatalf("%q survives in %q of the statement %q, grammar %d", secret, said, query, g)
		}
	}
	if again := Summarise(s.Sanitised, g); again.Sanitised != s.Sanitised && !parted(s) {
		t.Fatalf("the statement %q becomes %q, and that becomes %q", query, s.Sanitised, again.Sanitised)
	}
}

// parted tells whether a comment that is gone may have left a blank behind two
// minus signs of MySQL's, which make a comment of them the second time.
func parted(s *Summary) bool { return strings.Contains(s.Sanitised+" ", "-- ") }

// checkAnything reads any bytes as a statement: what is said of them is
// bounded by them, is text, has an operation that is fit for a metric, and reads
// as the same once more.
func checkAnything(t *testing.T, query string, g Grammar) {
	s := Summarise(query, g)
	if s.Operation != "OTHER" && !operations[s.Operation] {
		t.Fatalf("%q is no operation, in the statement %q", s.Operation, query)
	}
	if len(s.Sanitised) > 3*len(query) {
		t.Fatalf("the statement %q grows to %q", query, s.Sanitised)
	}
	if said := s.Sanitised + s.Target + s.Procedure + s.Text(); !utf8.ValidString(said) {
		t.Fatalf("of the statement %q, %q is said, which is not UTF-8", query, said)
	}
	if len(s.Text()) > maxSummary {
		t.Fatalf("the summary of %q is %q, which is too long", query, s.Text())
	}
	again := Summarise(s.Sanitised, g)
	again.Moves = s.Moves // a comment that was executed is gone
	if nameIn(query) != "" {
		again.text = s.text // and so is the one with the name
	}
	if *again != *s && !parted(s) {
		t.Fatalf("the statement %q becomes %+v, and that becomes %+v, grammar %d", query, *s, *again, g)
	}
}
