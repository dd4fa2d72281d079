package statement

import (
	"math/rand/v2"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
)

// marked is what must not be shown.
const marked = "zqsecretqz"

// bare are statements with a value that has no quotes. What is shown of each is told too:
// it is not enough to hide everything.
var bare = []struct {
	name, query, shown string
	grammar            Grammar
}{
	{"in brackets", "SET GLOBAL init_connect = (zqsecretqz)", "SET GLOBAL init_connect = ?", MySQL},
	{"behind a sign", "SET GLOBAL init_connect = +zqsecretqz", "SET GLOBAL init_connect = ?", MySQL},
	{"in a call", "SET GLOBAL init_connect = concat(zqsecretqz)", "SET GLOBAL init_connect = ?", MySQL},
	{"with a comma", "SET GLOBAL wsrep_sst_auth = bob,zqsecretqz", "SET GLOBAL wsrep_sst_auth = ?", MySQL},
	{"with a mark in it", "SET GLOBAL init_connect = p€zqsecretqz", "SET GLOBAL init_connect = ?", MySQL},
	{"behind a digit", "SET GLOBAL init_connect = 5$zqsecretqz", "SET GLOBAL init_connect = ?", MySQL},
	{"behind a blank of Unicode", "SET GLOBAL init_connect = a\u00a0zqsecretqz", "SET GLOBAL init_connect = ?", MySQL},
	{"of all scopes", "SET @@global.init_connect:=a||zqsecretqz", "SET @@global.init_connect:=?", MySQL},
	{"behind a comment that is executed", "SET /*! GLOBAL init_connect = */ zqsecretqz", "SET ?", MySQL},
	{"behind one that begins the statement", "/*! SET GLOBAL init_connect = */ zqsecretqz", "?", MySQL},
	{"behind one with another statement", "SELECT 1 /*!; SET GLOBAL init_connect = */ zqsecretqz", "SELECT ? ?", MySQL},
	{"in one of MariaDB's", "SET GLOBAL init_connect = /*M! zqsecretqz */", "SET GLOBAL init_connect = ?", MySQL},
	{"in a compound statement", "BEGIN NOT ATOMIC SET GLOBAL init_connect = zqsecretqz; SELECT a; END",
		"BEGIN NOT ATOMIC SET GLOBAL init_connect = ?; SELECT a; END", MySQL},
	{"in a branch", "IF a THEN SET GLOBAL init_connect = zqsecretqz; ELSE SET GLOBAL init_connect = zqsecretqz; END IF",
		"IF a THEN SET GLOBAL init_connect = ?; ELSE SET GLOBAL init_connect = ?; END IF", MySQL},
	{"behind a label", "merge: BEGIN NOT ATOMIC SET GLOBAL init_connect = zqsecretqz; END", "merge: BEGIN NOT ATOMIC SET GLOBAL init_connect = ?; END", MySQL},
	{"behind another", "MERGE:BEGIN NOT ATOMIC SET GLOBAL init_connect = zqsecretqz; END", "MERGE:BEGIN NOT ATOMIC SET GLOBAL init_connect = ?; END", MySQL},
	{"in a procedure", "CREATE PROCEDURE p() BEGIN UPDATE t SET a = 1; SET GLOBAL init_connect = zqsecretqz; END",
		"CREATE PROCEDURE p() BEGIN UPDATE t SET a = ?; SET GLOBAL init_connect = ?; END", MySQL},
	{"in a trigger", "CREATE TRIGGER g BEFORE INSERT ON t FOR EACH ROW SET GLOBAL init_connect = zqsecretqz",
		"CREATE TRIGGER g BEFORE INSERT ON t FOR EACH ROW SET GLOBAL init_connect = ?", MySQL},
	{"in an event", "CREATE DEFINER=root@localhost EVENT e ON SCHEDULE EVERY 1 DAY DO SET GLOBAL init_connect = zqsecretqz", "CREATE DEFINER=root@localhost EVENT e ON SCHEDULE EVERY ? DAY DO SET GLOBAL init_connect = ?", MySQL},
	{"without SET, as Oracle's", "BEGIN SELECT a; init_connect := zqsecretqz; END", "BEGIN SELECT a; init_connect := ?; END", MySQL},
	{"for one statement, in it", "SET STATEMENT a=(SELECT b FROM t FOR UPDATE), c=zqsecretqz FOR SET d=zqsecretqz", "SET STATEMENT a=? FOR SET d=?", MySQL},
	{"of an engine's option", "CREATE TABLE t (a int KEY) ENGINE=x some_option=zqsecretqz, other='b'", "CREATE TABLE t (a int KEY) ENGINE=?", MySQL},
	{"of a column's", "CREATE TABLE t (a int some_option=zqsecretqz)", "CREATE TABLE t (a int some_option=?", MySQL},
	{"of an index's", "CREATE INDEX i ON t (a) some_option=`zqsecretqz`", "CREATE INDEX i ON t (a) some_option=?", MySQL},
	{"of a table that is altered", "ALTER TABLE t some_option=5$zqsecretqz", "ALTER TABLE t some_option=?", MySQL},
	{"of a replica", "CHANGE MASTER TO MASTER_PASSWORD=zqsecretqz", "CHANGE MASTER TO MASTER_PASSWORD=?", MySQL},
	{"of a clone", "CLONE INSTANCE FROM u@h:3306 IDENTIFIED BY zqsecretqz", "CLONE INSTANCE FROM u@h:? IDENTIFIED BY ?", MySQL},
	{"of a server", "CREATE SERVER s FOREIGN DATA WRAPPER mysql OPTIONS (PASSWORD zqsecretqz)", "CREATE SERVER s FOREIGN DATA WRAPPER mysql OPTIONS (?", MySQL},
	{"behind a keyword that is none", "ſelect: BEGIN NOT ATOMIC SET GLOBAL init_connect = zqsecretqz; END",
		"ſelect: BEGIN NOT ATOMIC SET GLOBAL init_connect = ?; END", MySQL},

	{"in a list", "SET search_path = -5, zqsecretqz", "SET search_path = ?", PostgreSQL},
	{"in a list with texts", `SET search_path TO 'a', zqsecretqz, "zqsecretqz"`, "SET search_path TO ?", PostgreSQL},
	{"of a time zone", "SET TIME ZONE zqsecretqz", "SET TIME ZONE ?", PostgreSQL},
	{"of a function's setting", "CREATE FUNCTION begin() RETURNS int LANGUAGE sql SET app.t = 5, zqsecretqz AS 'x'",
		"CREATE FUNCTION begin() RETURNS int LANGUAGE sql SET app.t = ?", PostgreSQL},
	{"of a role whose name is a keyword", "ALTER ROLE character SET app.t = zqsecretqz", "ALTER ROLE character SET app.t = ?", PostgreSQL},
	{"of another", "ALTER USER begin SET app.t TO zqsecretqz; SELECT a", "ALTER USER begin SET app.t TO ?; SELECT a", PostgreSQL},
	{"of a user mapping", "CREATE USER MAPPING FOR u SERVER s OPTIONS (password zqsecretqz)", "CREATE USER MAPPING FOR u SERVER s OPTIONS (?", PostgreSQL},
	{"of a subscription", `CREATE SUBSCRIPTION s CONNECTION "zqsecretqz"`, "CREATE SUBSCRIPTION ?", PostgreSQL},
	{"of a backup that is shown", `SHOW BACKUP FROM x IN "s3://zqsecretqz"`, "SHOW BACKUP ?", PostgreSQL},
	{"of one that is explained", `EXPLAIN ANALYZE (DEBUG) BACKUP INTO "s3://zqsecretqz"`, "EXPLAIN ANALYZE (DEBUG) BACKUP ?", PostgreSQL},

	{"of a procedure's argument", "EXEC sp_addlogin bob, zqsecretqz", "EXEC sp_addlogin ?", Unknown},
	{"of a procedure without EXEC", "sp_addlogin bob, zqsecretqz", "sp_addlogin ?", Unknown},
	{"behind another statement", "SELECT 1 EXECUTE sp_addlogin bob, zqsecretqz", "SELECT ? EXECUTE sp_addlogin ?", Unknown},
	{"in a procedure's default", "CREATE PROC p @a int = 1 AS EXEC q bob, zqsecretqz", "CREATE PROC p @a int = ? EXEC q ?", Unknown},
	{"of a module's argument", "CREATE VIRTUAL TABLE t USING m(password=a,zqsecretqz)", "CREATE VIRTUAL ?", Unknown},
	{"of a pragma", "PRAGMA cipher_something = zqsecretqz", "PRAGMA cipher_something = ?", Unknown},
	{"of a secret", "CREATE OR REPLACE TEMPORARY SECRET s (TYPE s3, SECRET zqsecretqz)", "CREATE OR REPLACE TEMPORARY SECRET ?", Unknown},
	{"of a database that is attached", "ATTACH 'f' AS e (ENCRYPTION_KEY zqsecretqz)", "ATTACH ? AS e (?", Unknown},

	{"of an account that may exist", "CREATE OR ALTER USER u PASSWORD zqsecretqz", "CREATE OR ALTER USER u PASSWORD ?", Unknown},
	{"of a statement in brackets", `SELECT a FROM [SHOW BACKUP LATEST IN "s3://zqsecretqz"] WHERE b[1] = c`, "SELECT a FROM [SHOW BACKUP ?", PostgreSQL},

	{"in three quotes", "SELECT '''it's zqsecretqz''', 'b'", "SELECT ?", Unknown},
	{"in quotes in a name", "SELECT `a\\`', zqsecretqz, '`", "SELECT ?", Unknown},
	{"behind two slashes", "SELECT a // it's\n, 'b', zqsecretqz", "SELECT a ?", Unknown},
	{"in a mode for SQL Server", "SELECT [it's], zqsecretqz AS 'a'", "SELECT ?", MySQL},
	{"with a semicolon in a name", "SET GLOBAL [a;b] = zqsecretqz", "SET GLOBAL ?", MySQL},
	{"behind a long name", "SELECT [" + strings.Repeat("a", 600) + "'], zqsecretqz, 'b'", "SELECT ?", Unknown},
	{"in another encoding", "SELECT '\x95\\', 'zqsecretqz", "SELECT ?", MySQL},
	{"in a name in another encoding", "SELECT `\x95`, 'zqsecretqz` ' FROM t", "SELECT ?", MySQL},
	{"behind a byte that is no text", "SELECT \xe4, zqsecretqz FROM t", "SELECT ?", PostgreSQL},
	{"in half a character", "SELECT a, 'zqsecretqz', \xe4\xb8", "SELECT a, ?, ?", PostgreSQL},
}

func TestAValueWithoutQuotesIsNotShown(t *testing.T) {
	for _, c := range bare {
		assertNotShown(t, c.query, c.grammar)
		assertNotShown(t, c.query, Unknown)
		assert.Equal(t, c.shown, Summarise(c.query, c.grammar).Sanitised, "%s: %s", c.name, c.query)
	}
}

func assertNotShown(t *testing.T, query string, g Grammar) {
	t.Helper()
	s := Summarise(query, g)
	said := s.Sanitised + " " + s.Text()
	if strings.Contains(strings.ToLower(said), marked) {
		t.Fatalf("%q shows its secret, in grammar %d: %q", query, g, said)
	}
}

func TestMoneyIsANumber(t *testing.T) {
	assert.Equal(t, "SELECT a FROM t WHERE b > ? AND c = ?", Summarise("SELECT a FROM t WHERE b > $4242.50 AND c = $1", Unknown).Sanitised)
}

func TestWhatIsHiddenMayChangeTheSession(t *testing.T) {
	for _, query := range []string{`SELECT 'a\'; SET b = 1 -- '`, "SELECT `a\\`; SET b = 1", "SELECT 'a", "SELECT a, \xff"} {
		assert.True(t, Summarise(query, Unknown).Moves, query)
	}
	assert.False(t, Summarise("SELECT 'a'", Unknown).Moves)
}

func TestQueriesLoseNothing(t *testing.T) {
	for _, g := range everywhere {
		for _, query := range []string{
			"UPDATE t SET a = b, c = d WHERE e = f FOR UPDATE",
			"INSERT INTO t (a) SELECT b FROM u WHERE c = d",
			"WITH a AS (SELECT b FROM c) UPDATE t SET d = e",
			"MERGE INTO t USING u ON a = b WHEN MATCHED THEN UPDATE SET c = d",
			"EXPLAIN (ANALYZE, VERBOSE) UPDATE t SET a = b WHERE c = d",
			"ALTER TABLE t ADD COLUMN a int REFERENCES u ON DELETE SET NULL",
		} {
			assert.Equal(t, query, Summarise(query, g).Sanitised)
		}
	}
}

// sentences are a grammar of statements with a secret in them: a word in angle brackets stands for
// any of its alternatives. Servers accept some of them; the others are of the same kind.
type sentences map[string][]string

var common = sentences{
	"<noise>": {"", "SELECT a FROM t; ", "UPDATE t SET a = b; ", "/* it's */ ", "INSERT INTO t VALUES (1, 'x'), (2, 'y');\n", "BEGIN; "},
	"<tail>":  {"", ";", "; SELECT 'a' FROM t", " -- it's\n", " /* ; */"},
	"<mark>":  {"zqsecretqz", "zqsecretqz", "ZQSecretQZ"},
	"<eq>":    {"=", " = ", " =\n", "=/**/", " = /* b */ "},
}

var ofMySQL = sentences{
	"<statement>": {"<set>", "<set>", "<compound>", "<option>", "<account>"},
	"<set>":       {"SET <scope><name><assign><value>", "SET a = b, <scope><name><assign><value>", "SET STATEMENT a<eq><value> FOR SELECT b", "SET STATEMENT a=1 FOR <set>"},
	"<scope>":     {"", "GLOBAL ", "SESSION ", "@@global.", "@@", "/*! GLOBAL */ ", "/*!50000 SESSION*/", "LOCAL "},
	"<name>":      {"init_connect", "`init_connect`", "d.init_connect", "größe", "5a", "$a"},
	"<assign>":    {"<eq>", ":=", " := ", "/*! = */ ", " /*M!100000 = */"},
	"<value>":     {"<word>", "(<value>)", "+<value>", "-<value>", "<word>, <word>", "f(<word>)", "a.<word>", "<value> COLLATE c", "'a' <value>", "5, <value>", "@<word>", ":<word>"},
	"<word>":      {"<mark>", "`<mark>`", "€<mark>", "<mark>€", "5$<mark>", "$<mark>", "a\u00a0<mark>", "_utf8'a' <mark>", "5€<mark>", "/*! <mark> */"},
	"<compound>": {
		"BEGIN NOT ATOMIC <noise><set>; END", "x: BEGIN NOT ATOMIC <set>; END x", "IF a THEN <set>; ELSE <set>; END IF",
		"CREATE PROCEDURE begin() BEGIN <noise><set>; END", "CREATE DEFINER=u@h TRIGGER g BEFORE INSERT ON t FOR EACH ROW <set>",
		"CREATE EVENT e ON SCHEDULE EVERY 1 DAY DO BEGIN <set>; <set>; END", "CREATE OR REPLACE FUNCTION f(a SET('x')) RETURNS int BEGIN <set>; RETURN 1; END",
		"WHILE a DO <set>; END WHILE", "merge:BEGIN <set>; END", "FOR i IN (SELECT a FROM t) DO <set>; END FOR", "CASE a WHEN 1 THEN <set>; END CASE", "BEGIN a := <value>; END",
	},
	"<option>": {
		"CREATE TABLE t (a int) ENGINE=x some<eq><word>", "CREATE TABLE t (a int some<eq><word>, b int) ENGINE=x", "ALTER TABLE t some<eq><word>",
		"CREATE INDEX i ON t (a) some<eq><word>", "CREATE TABLE t (a int) CONNECTION='x' a=1 b<eq><word>", "CREATE SEQUENCE s some<eq><word>",
		"CREATE TABLE t (a int) PARTITION BY HASH (a) (PARTITION p some<eq><word>)", "CREATE TABLE t (a SET('x'), b int some<eq><word>)",
	},
	"<account>": {"CREATE USER u IDENTIFIED BY <word>", "ALTER USER u@h IDENTIFIED WITH p AS <word>", "SET PASSWORD FOR u<eq><word>", "GRANT a ON b TO u IDENTIFIED BY <word>"},
}

var ofPostgreSQL = sentences{
	"<statement>": {"<set>", "<set>", "<of>", "<account>", "<location>"},
	"<set>":       {"SET <scope><name><to><list>", "SET TIME ZONE <word>"},
	"<of>": {
		"ALTER ROLE <what> <set>", "ALTER USER u IN DATABASE d <set>", "ALTER DATABASE <what> <set>", "ALTER SYSTEM <set>", "ALTER FUNCTION <what>(int) <set>",
		"CREATE FUNCTION <what>() RETURNS int LANGUAGE sql <set> AS $$it's$$", "CREATE OR REPLACE PROCEDURE <what>() <set> SET a TO b AS 'x'",
	},
	"<what>":     {"begin", "character", "\"for\"", "statement", "set", "größe", "password"},
	"<scope>":    {"", "LOCAL ", "SESSION "},
	"<name>":     {"app.token", "search_path", "\"app\".token", "größe.a", "a.b.c"},
	"<to>":       {"<eq>", " TO ", " to\t", " TO/* /* it's */ */ "},
	"<list>":     {"<word>", "-5, <list>", "+<list>", "'a', <list>", "\"a\",<list>", "<word>, b", "(<list>)", "true, <list>"},
	"<word>":     {"<mark>", "\"<mark>\"", "U&\"<mark>\"", "p€<mark>", "\"a\"\"<mark>\"", "a\u00a0<mark>", "a$b$<mark>", "E'a' <mark>", ":<mark>"},
	"<account>":  {"CREATE ROLE r PASSWORD <word>", "ALTER USER u WITH ENCRYPTED PASSWORD <word>", "CREATE USER MAPPING FOR u SERVER s OPTIONS (user 'a', password <word>)"},
	"<location>": {"BACKUP INTO <word>", "SHOW BACKUP <word>", "EXPLAIN (ANALYZE) RESTORE FROM <word>", "CREATE EXTERNAL CONNECTION c AS <word>", "IMPORT INTO t CSV DATA (<word>)"},
}

var ofAnybody = sentences{
	"<statement>": {"<set>", "EXEC <args>", "sp_addlogin <args>", "SELECT 1 EXEC p <args>", "PRAGMA key<eq><word>", "PRAGMA key(<word>)", "ATTACH f AS e KEY <word>",
		"CREATE VIRTUAL TABLE t USING m(a, <word>)", "CREATE SECRET s (SECRET <word>)", "CREATE LOGIN u WITH PASSWORD<eq><word>", "ALTER USER u IDENTIFIED BY <word>",
		"CREATE TABLE t (a int) x<eq><word>", "BEGIN NOT ATOMIC <set>; END", "CREATE PROC p AS <set>; EXEC q <args>"},
	"<args>": {"p <word>", "p @a = <word>", "p 1, <word>", "p @b, <word>, 'x'"},
	"<set>":  {"SET a<eq><word>", "SET LOCAL a TO -5, <word>", "SET @a = 1, b<eq>(<word>)", "ALTER ROLE r SET a TO <word>"},
	"<word>": {"<mark>", "[<mark>]", "[it's <mark>]", "\"<mark>\"", "`<mark>`", "€<mark>", "5$<mark>", "$$<mark>$$", "q'[it's <mark>]'"},
}

// sentence is one of them; deeper than some levels it takes the first alternatives.
func (s sentences) sentence(r *rand.Rand, name string, depth int) string {
	alternatives := s[name]
	if alternatives == nil {
		alternatives = common[name]
	}
	text := alternatives[r.IntN(len(alternatives))]
	if depth > 12 {
		text = alternatives[0]
	}
	var b strings.Builder
	for text != "" {
		from := strings.IndexByte(text, '<')
		to := strings.IndexByte(text, '>')
		if from < 0 || to < from {
			break
		}
		b.WriteString(text[:from] + s.sentence(r, text[from:to+1], depth+1))
		text = text[to+1:]
	}
	return b.String() + text
}

// inGrammars are sentences of each grammar.
var inGrammars = map[Grammar]sentences{MySQL: ofMySQL, PostgreSQL: ofPostgreSQL, Unknown: ofAnybody}

func TestNoSentenceShowsItsSecret(t *testing.T) {
	for g := range inGrammars {
		r := rand.New(rand.NewPCG(1, uint64(g)))
		for range 5000 {
			assertNoneShown(t, r, g, "")
		}
	}
}

// assertNoneShown makes a statement, behind a comment.
func assertNoneShown(t *testing.T, r *rand.Rand, g Grammar, comment string) {
	t.Helper()
	s := inGrammars[g]
	query := comment + s.sentence(r, "<noise>", 0) + s.sentence(r, "<statement>", 0) + s.sentence(r, "<tail>", 0)
	assertNotShown(t, query, g)
	assertNotShown(t, query, Unknown)
}

func FuzzSentences(f *testing.F) {
	for i := range uint64(100) {
		f.Add(i, "it's \"so\" `or` $so$")
	}
	f.Fuzz(func(t *testing.T, seed uint64, noise string) {
		comment := "/* " + strings.NewReplacer("*", "", "/", "", "!", "").Replace(noise) + " */"
		for g := range inGrammars {
			assertNoneShown(t, rand.New(rand.NewPCG(seed, uint64(g))), g, comment)
		}
	})
}

func TestReadingTakesTimeInProportionToTheLength(t *testing.T) {
	prefixes := []string{"", "SELECT ", "SET a = ", "INSERT INTO t VALUES ", "SELECT a IN (", "'", "$a$", "/*", "[", "`"}
	for i, unit := range []string{
		"'", "\"", "`", "[", "]", "$", "(", ")", "-", "#", "\\", ".", "1", ":", "@", "€", "\u00a0", "\x00", "\xff", "\r", "\n", ";", "?", "a", // these alone
		"[]", "[a", "$a", "$1", "$a ", "/*", "*/", "/*/", "/*!", "-- ", "--\n", "#\n", "'\\", "a.", "1e+", "0x", "1.", "a ", "a=", "N'", "q'", ":a", "@@", "SET ",
		"SET a=b,", "IN (", "IN (?", "VALUES (?", "VALUES (?),", "(?,", "?,", "-?", "EXEC ", "EXPLAIN (", "[;", "[]]",
	} {
		length := 1 << 20
		if len(unit) > 1 {
			length = 1 << 18
		}
		for _, g := range everywhere {
			prefix := prefixes[(3*i+int(g))%len(prefixes)]
			start := time.Now()
			z := sanitiser{in: prefix + strings.Repeat(unit, length/len(unit)), grammar: g}
			z.readAll()
			if took := time.Since(start); took > 10*time.Second {
				t.Fatalf("%q and many times %q, in grammar %d: %v", prefix, unit, g, took)
			}
		}
	}
}
