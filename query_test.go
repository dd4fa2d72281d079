package sqllease

import (
	"fmt"
	"strings"
	"sync"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

func TestAStatementIsSummarised(t *testing.T) {
	for _, c := range []struct{ name, query, operation, target, sanitised string }{
		{"nothing", "", "OTHER", "", ""},
		{"white space only", " \t\r\n ", "OTHER", "", ""},
		{"a comment only", "/* nothing */ -- at all", "OTHER", "", ""},
		{"a semicolon only", ";", "OTHER", "", ";"},

		{"a select", "SELECT a, b FROM orders", "SELECT", "orders", "SELECT a, b FROM orders"},
		{"lower case", "select * from Orders", "SELECT", "orders", "select * from Orders"},
		{"an insert", "INSERT INTO orders (a, b) VALUES (1, 'x')", "INSERT", "orders", "INSERT INTO orders (a, b) VALUES (?, ?)"},
		{"an update", "UPDATE orders SET a = 1.5e-3 WHERE id = 7", "UPDATE", "orders", "UPDATE orders SET a = ? WHERE id = ?"},
		{"a delete", "DELETE FROM shop.orders WHERE id = 7", "DELETE", "shop.orders", "DELETE FROM shop.orders WHERE id = ?"},
		{"a subselect has no table at its FROM", "SELECT * FROM (SELECT 1) x", "SELECT", "", "SELECT * FROM (SELECT ?) x"},
		{"a statement without a table", "COMMIT", "COMMIT", "", "COMMIT"},
		{"FROM at the very end", "SELECT 1 FROM", "SELECT", "", "SELECT ? FROM"},
		{"an unknown operation", "FROBNICATE orders", "OTHER", "", "FROBNICATE orders"},
		{"an operation in brackets", "(SELECT 1)", "OTHER", "", "(SELECT ?)"},
		{"a name that is not Latin", "SELECT größe FROM прайс", "SELECT", "прайс", "SELECT größe FROM прайс"},

		{"white space is one blank", "  SELECT\t1\r\n,\n\n2  ", "SELECT", "", "SELECT ? , ?"},

		{"a doubled quote", "SELECT 'it''s', 'b'", "SELECT", "", "SELECT ?, ?"},
		{"an empty string", "SELECT '', 'b'", "SELECT", "", "SELECT ?, ?"},
		{"a string of one quote", "SELECT '''', 'b'", "SELECT", "", "SELECT ?, ?"},
		{"a harmless backslash", `SELECT 'a\nb', 'c'`, "SELECT", "", "SELECT ?, ?"},
		{"a backslash before a quote: nothing behind it is certain", `SELECT 'a\', b, 'c' FROM orders`, "SELECT", "", "SELECT ?"},
		{"a backslash before a backslash: likewise", `SELECT 'a\\', 'c' FROM orders`, "SELECT", "", "SELECT ?"},
		{"a string of several lines", "SELECT 'a\n-- b\n/* c', d", "SELECT", "", "SELECT ?, d"},
		{"double quotes may be text", `SELECT "x" FROM "orders"`, "SELECT", "", "SELECT ? FROM ?"},
		{"double quotes, doubled", `SELECT "x""y", 'z'`, "SELECT", "", "SELECT ?, ?"},
		{"a quote in the other quote", `SELECT "it's", 'say "x"', b`, "SELECT", "", "SELECT ?, ?, b"},
		{"strings side by side", "SELECT 'a' 'b'", "SELECT", "", "SELECT ? ?"},

		{"a national string", "SELECT N'x', n'y'", "SELECT", "", "SELECT ?, ?"},
		{"a string of a character set", "SELECT _utf8mb4'x', _latin1 'y'", "SELECT", "", "SELECT ?, _latin1 ?"},
		{"an escape string", `SELECT E'a\tb', b`, "SELECT", "", "SELECT ?, b"},
		{"a Unicode string", `SELECT U&'d\0061t', b`, "SELECT", "", "SELECT U&?, b"},
		{"a hexadecimal string", "SELECT x'4D79', X'53'", "SELECT", "", "SELECT ?, ?"},
		{"a hexadecimal number", "SELECT 0x4D79, 0XfF", "SELECT", "", "SELECT ?, ?"},
		{"bits", "SELECT b'0101', B'1', 0b0101", "SELECT", "", "SELECT ?, ?, ?"},
		{"a typed literal", "SELECT DATE '2026-11-21', TIMESTAMP'2026-11-21 10:00'", "SELECT", "", "SELECT DATE ?, ?"},

		{"a backslash before a quote in any of them", `SELECT E'it\'s', b, 'c' FROM orders`, "SELECT", "", "SELECT ?"},
		{"a placeholder is no tag", "SELECT $1$, $1$, b", "SELECT", "", "SELECT $1$, $1$, b"},
		{"dollar quotes", "SELECT $$it's$$, b", "SELECT", "", "SELECT ?, b"},
		{"dollar quotes with a tag", "DO $body$ BEGIN PERFORM $$x$$; END $body$", "DO", "", "DO ?"},
		{"dollar quotes with another tag within", "SELECT $a$ $b$ x $b$ $a$, b", "SELECT", "", "SELECT ?, b"},

		{"numbers", "SELECT 1, 1.5, .5, 5., 1e10, 1E+10, 1.5e-10, -3", "SELECT", "", "SELECT ?, ?, ?, ?, ?, ?, ?, -?"},
		{"digits grouped", "SELECT 1_000_000", "SELECT", "", "SELECT ?"},
		{"a number with an operator", "SELECT 1+2-3", "SELECT", "", "SELECT ?+?-?"},
		{"digits in a name", "SELECT a1, t2.c3 FROM t2", "SELECT", "t2", "SELECT a1, t2.c3 FROM t2"},
		{"a list", "SELECT a FROM t WHERE b IN (1,2,3)", "SELECT", "t", "SELECT a FROM t WHERE b IN (?,?,?)"},

		{"placeholders of MySQL", "SELECT a FROM t WHERE b = ? AND c=?", "SELECT", "t", "SELECT a FROM t WHERE b = ? AND c=?"},
		{"placeholders of PostgreSQL", "SELECT a FROM t WHERE b = $1 AND c=$23", "SELECT", "t", "SELECT a FROM t WHERE b = $1 AND c=$23"},
		{"placeholders with a name", "SELECT a FROM t WHERE b = :first AND c=:second_2", "SELECT", "t", "SELECT a FROM t WHERE b = :first AND c=:second_2"},
		{"variables", "SET @x = 1, @@session.wait_timeout = 5", "SET", "", "SET @x = ?, @@session.wait_timeout = ?"},
		{"an account", "GRANT ALL ON shop.* TO 'bob'@'10.1.2.3'", "GRANT", "", "GRANT ALL ON shop.* TO ?@?"},
		{"a cast", "SELECT '5'::int, a::text", "SELECT", "", "SELECT ?::int, a::text"},
		{"operators of JSON", "SELECT a->'k', a->>'k', a#>'{k}', a#>>'{k}', a#-'{k}', a@>'{}', a?|b FROM t",
			"SELECT", "t", "SELECT a->?, a->>?, a#>?, a#>>?, a#-?, a@>?, a?|b FROM t"},

		{"a comment is gone", "SELECT /* by bob */ 1", "SELECT", "", "SELECT ?"},
		{"a comment first", "/* route=/orders */ SELECT 1", "SELECT", "", "SELECT ?"},
		{"a comment parts words", "SELECT/**/a/**/FROM/**/t", "SELECT", "t", "SELECT a FROM t"},
		{"a comment parts operators", "SELECT 1-/**/-2", "SELECT", "", "SELECT ?- -?"},
		{"a comment within a comment", "SELECT /* a /* b */ 'c' */ 1", "SELECT", "", "SELECT ?"},
		{"a hint", "SELECT /*+ MAX_EXECUTION_TIME(1000) */ a FROM t", "SELECT", "t", "SELECT a FROM t"},
		{"a comment to the end of the line", "SELECT a -- it's bob's\nFROM t", "SELECT", "t", "SELECT a FROM t"},
		{"a comment with a hash", "# it's bob's\nSELECT a FROM t", "SELECT", "t", "SELECT a FROM t"},
		{"a comment last", "SELECT a FROM t -- bob", "SELECT", "t", "SELECT a FROM t"},
		{"quotes have no meaning in a comment", "SELECT /* ' */ a, 'x' /* ' */ FROM t", "SELECT", "t", "SELECT a, ? FROM t"},
		{"a comment has no meaning in quotes", "SELECT '/*', a, '*/', '--', b", "SELECT", "", "SELECT ?, a, ?, ?, b"},

		{"a name in backticks", "SELECT `a b` FROM `Orders`", "SELECT", "orders", "SELECT `a b` FROM `Orders`"},
		{"a backtick in backticks", "SELECT `a``b`, 'x' FROM t", "SELECT", "t", "SELECT `a``b`, ? FROM t"},
		{"a backslash in backticks escapes nothing", "SELECT `a\\`, 'x' FROM t", "SELECT", "t", "SELECT `a\\`, ? FROM t"},
		{"a quote in backticks", "SELECT `it's`, 'x' FROM t", "SELECT", "t", "SELECT `it's`, ? FROM t"},

		{"a string without end", "SELECT a, 'b FROM t", "SELECT", "", "SELECT a, ?"},
		{"a string that ends in a backslash", `SELECT a, 'b\`, "SELECT", "", "SELECT a, ?"},
		{"a quote at the very end", "SELECT '", "SELECT", "", "SELECT ?"},
		{"a doubled quote at the very end", "SELECT 'a''", "SELECT", "", "SELECT ?"},
		{"double quotes without end", `SELECT a, "b FROM t`, "SELECT", "", "SELECT a, ?"},
		{"a literal with a prefix without end", "SELECT x'41", "SELECT", "", "SELECT ?"},
		{"dollar quotes without end", "SELECT $x$ b FROM t", "SELECT", "", "SELECT ?"},
		{"a dollar at the very end", "SELECT $", "SELECT", "", "SELECT $"},
		{"a tag at the very end", "SELECT $tag", "SELECT", "", "SELECT $tag"},
		{"a comment without end", "SELECT a /* b FROM t", "SELECT", "", "SELECT a"},
		{"a nested comment without end", "SELECT a /* /* b */ FROM t", "SELECT", "", "SELECT a"},
		{"half a comment's end", "SELECT a /* b *", "SELECT", "", "SELECT a"},
		{"a line comment without end", "SELECT a --", "SELECT", "", "SELECT a"},
		{"a colon and an at at the very end", "SELECT : @", "SELECT", "", "SELECT : @"},
		{"an exponent without end", "SELECT 1e", "SELECT", "", "SELECT ?"},

		{"bytes that are not UTF-8, quoted", "SELECT '\xff\xfe''\xc3', b", "SELECT", "", "SELECT ?, b"},
		{"a zero byte, quoted", "SELECT 'a\x00b', b", "SELECT", "", "SELECT ?, b"},
		{"a blank of Unicode", "SELECT\u00a01", "SELECT", "", "SELECT ?"},
	} {
		t.Run(c.name, func(t *testing.T) {
			assert.Equal(t, &summary{c.operation, c.target, c.sanitised}, summarise(c.query))
		})
	}
}

func TestASummaryIsTheOperationAndItsTarget(t *testing.T) {
	assert.Equal(t, "SELECT orders", summarise("SELECT * FROM orders WHERE id = 5").text())
	assert.Equal(t, "COMMIT", summarise("COMMIT").text())
	assert.Equal(t, "OTHER", summarise("").text())
}

// A statement as an application makes them, with more words than a summary
// looks at: what is behind them is sanitised all the same.
func TestALongStatementIsSanitisedToItsEnd(t *testing.T) {
	s := summarise("INSERT INTO orders (a) VALUES ('secret')" + strings.Repeat(", ('secret')", 10_000))
	assert.Equal(t, "INSERT", s.operation)
	assert.Equal(t, "orders", s.target)
	assert.Equal(t, "INSERT INTO orders (a) VALUES (?)"+strings.Repeat(", (?)", 10_000), s.sanitised)
}

func TestTheCacheAnswersWhatAStatementsSummaryIs(t *testing.T) {
	var c summaries
	first := c.of("SELECT a FROM t WHERE b = 1")
	assert.Equal(t, summarise("SELECT a FROM t WHERE b = 1"), first)
	assert.Same(t, first, c.of("SELECT a FROM t WHERE b = 1"), "it is not read twice")
	assert.Equal(t, "INSERT t", c.of("INSERT INTO t VALUES (1)").text())
}

func TestTheCacheIsBoundedInEntries(t *testing.T) {
	var c summaries
	for i := range 100_000 {
		s := c.of(fmt.Sprintf("SELECT a FROM t%d WHERE b = %d", i, i))
		if len(c.known) > mostSummaries || s.target != fmt.Sprintf("t%d", i) {
			require.LessOrEqual(t, len(c.known), mostSummaries)
			require.Equal(t, fmt.Sprintf("t%d", i), s.target)
		}
	}
	assert.NotEmpty(t, c.known)
}

func TestTheCacheIsBoundedInBytes(t *testing.T) {
	fits := "SELECT '" + strings.Repeat("x", longestSummary-len("SELECT ''")) + "'"
	require.Len(t, fits, longestSummary)
	var c summaries
	c.of(fits)
	assert.Len(t, c.known, 1)
	longer := fits + ";"
	for range 2 {
		assert.Equal(t, &summary{"SELECT", "", "SELECT ?;"}, c.of(longer))
	}
	assert.Len(t, c.known, 1)
}

func TestTheCacheServesManyAtOnce(t *testing.T) {
	var c summaries
	var wait sync.WaitGroup
	for g := range 8 {
		wait.Go(func() {
			for i := range 2 * mostSummaries {
				query := fmt.Sprintf("SELECT a FROM t%d", (i+g*100)%(mostSummaries+10))
				if got, want := c.of(query).sanitised, query; got != want {
					t.Errorf("the summary of %q is that of %q", want, got)
					return
				}
			}
		})
	}
	wait.Wait()
	assert.LessOrEqual(t, len(c.known), mostSummaries)
}

// plantings write a secret as a literal or in a comment, among whatever else
// the literal may contain. Each is one that its server reads as a single token.
var plantings = []struct {
	name  string
	write func(noise, secret string) string
}{
	{"doubled quotes", func(noise, secret string) string {
		return "'" + strings.ReplaceAll(noise+secret+noise, "'", "''") + "'"
	}},
	{"escapes", func(noise, secret string) string {
		return "'" + strings.NewReplacer(`\`, `\\`, "'", `\'`).Replace(noise+secret+noise) + "'"
	}},
	{"double quotes, doubled", func(noise, secret string) string {
		return `"` + strings.ReplaceAll(noise+secret+noise, `"`, `""`) + `"`
	}},
	{"double quotes, escapes", func(noise, secret string) string {
		return `"` + strings.NewReplacer(`\`, `\\`, `"`, `\"`).Replace(noise+secret+noise) + `"`
	}},
	{"a national string", func(noise, secret string) string {
		return "N'" + strings.ReplaceAll(noise+secret, "'", "''") + "'"
	}},
	{"an escape string", func(noise, secret string) string {
		return "E'" + strings.NewReplacer(`\`, `\\`, "'", `\'`).Replace(noise+secret) + "'"
	}},
	{"a string of a character set", func(noise, secret string) string {
		return "_utf8mb4 '" + strings.ReplaceAll(secret+noise, "'", "''") + "'"
	}},
	{"dollar quotes", func(noise, secret string) string {
		noise = strings.ReplaceAll(noise, "$", "")
		return "$$" + noise + secret + noise + "$$"
	}},
	{"dollar quotes with a tag", func(noise, secret string) string {
		noise = strings.ReplaceAll(noise, "tag_1", "tag_2")
		return "$tag_1$ " + noise + secret + noise + " $tag_1$"
	}},
	{"a comment", func(noise, secret string) string {
		noise = strings.ReplaceAll(strings.ReplaceAll(noise, "*", ""), "/", "")
		return "/* " + noise + secret + noise + " */ 1"
	}},
	{"a comment within a comment", func(noise, secret string) string {
		noise = strings.ReplaceAll(strings.ReplaceAll(noise, "*", ""), "/", "")
		return "/* a /* " + noise + " */ " + secret + " */ 1"
	}},
	{"a comment to the end of the line", func(noise, secret string) string {
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
var plots = []string{
	"SELECT a, %s FROM t WHERE b = %s AND c = ?",
	"INSERT INTO t (a, b) VALUES (%s,%s)",
	"UPDATE `t` SET a = %s, b=a+%s WHERE c = $1 -- it's bob's\n LIMIT 5",
	"DELETE FROM t WHERE a->>'k' IN (%s, %s)",
	"/* it's bob's */ CALL p(%s, :name, @x, %s)",
	"SELECT * FROM %s JOIN %s",
	"%s %s",
	"SELECT %s::text || %s",
	"SELECT `it's`, %s, \"it's\", %s",
	"SELECT a #>> %s, a #- %s",
}

// FuzzSummarise plants secrets in statements, and looks for them in what
// telemetry would say. It also reads the noise as a statement of its own.
func FuzzSummarise(f *testing.F) {
	for i, noise := range []string{
		"", "'", "''", `\`, `\\`, `\'`, `'\`, `"`, `\"`, "`", "$", "$$", "$1", "$tag$", "$tag_1$", "/*", "*/", "--", "#", "\n", "\r",
		"\x00", "\xff", "é", ";", "?", "N'", "x'", "E'\\", "0x", "1e", "1e+", ".", ":", "@", "SELECT a FROM t WHERE b = 'c'",
		"-/**/-", "/*/", "/**/*", "'/*'", `it's "so" $$said$$ /* and */ -- done`,
	} {
		for planting := range plantings {
			f.Add(noise, uint64(i)*7919+1_000_003, uint8(planting), uint8(i+planting))
		}
	}
	f.Fuzz(func(t *testing.T, noise string, number uint64, planting, plot uint8) {
		checkAnything(t, noise)
		frame := plots[int(plot)%len(plots)]
		const word = "zqxjkvbsecretbvkjxqz"
		p := plantings[int(planting)%len(plantings)]
		checkNothingSurvives(t, frame, p.write(noise, word), word)
		digits := fmt.Sprint(number%1e9 + 1e9) // ten digits, which no plot contains
		checkNothingSurvives(t, frame, plantedNumbers[int(planting)%len(plantedNumbers)](digits), digits)
	})
}

// checkNothingSurvives plants a literal, and sanitises twice.
func checkNothingSurvives(t *testing.T, plot, literal, secret string) {
	query := fmt.Sprintf(plot, literal, literal)
	s := summarise(query)
	for _, said := range []string{s.sanitised, s.operation, s.target, s.text()} {
		if strings.Contains(strings.ToLower(said), secret) {
			t.Fatalf("%q survives in %q of the statement %q", secret, said, query)
		}
	}
	if again := summarise(s.sanitised); again.sanitised != s.sanitised {
		t.Fatalf("the statement %q becomes %q, and that becomes %q", query, s.sanitised, again.sanitised)
	}
}

// checkAnything reads any bytes as a statement: what is said of them is
// bounded by them, has an operation that is fit for a metric, and reads as
// the same once more.
func checkAnything(t *testing.T, query string) {
	s := summarise(query)
	if s.operation != "OTHER" && !operations[s.operation] {
		t.Fatalf("%q is no operation, in the statement %q", s.operation, query)
	}
	if len(s.sanitised) > 2*len(query) {
		t.Fatalf("the statement %q grows to %q", query, s.sanitised)
	}
	if strings.Contains(query, "#") {
		return // an operator's # that is left alone may read as a comment's the second time
	}
	if again := summarise(s.sanitised); *again != *s {
		t.Fatalf("the statement %q becomes %q, and that becomes %q", query, *s, *again)
	}
}
