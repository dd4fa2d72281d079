package statement

import (
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/stretchr/testify/assert"
)

func TestListsOfValuesAreKeptShort(t *testing.T) {
	for _, c := range []struct {
		name, query, shown string
		grammar            Grammar
	}{
		{"a list", "SELECT a FROM t WHERE b IN (?, ?, ?) AND c = ?", "SELECT a FROM t WHERE b IN (?) AND c = ?", MySQL},
		{"a list of one", "SELECT a FROM t WHERE b IN ( 1 )", "SELECT a FROM t WHERE b IN (?)", MySQL},
		{"of literals with signs", "SELECT a FROM t WHERE b not in (-1, +2,3)", "SELECT a FROM t WHERE b not in (?)", MySQL},
		{"of numbered placeholders", "SELECT a FROM t WHERE b IN ($1,$2) AND c = $3", "SELECT a FROM t WHERE b IN ($1) AND c = ?", PostgreSQL},
		{"of SQL Server's", "SELECT a FROM t WHERE b IN (@p1, @p2) AND c = @p3", "SELECT a FROM t WHERE b IN (@p1) AND c = ?", Unknown},
		{"two lists", "SELECT a FROM t WHERE b IN (?, ?) OR c IN (?, ?)", "SELECT a FROM t WHERE b IN (?) OR c IN (?)", MySQL},
		{"what is no list", "SELECT a FROM t WHERE b IN (SELECT ?, ?) AND c IN (d, ?, ?) AND e IN (f(?, ?), ?)",
			"SELECT a FROM t WHERE b IN (SELECT ?, ?) AND c IN (d, ?, ?) AND e IN (f(?, ?), ?)", MySQL},
		{"a list in one", "SELECT a FROM t WHERE b IN (c, d IN (?, ?))", "SELECT a FROM t WHERE b IN (c, d IN (?))", MySQL},
		{"an empty list", "SELECT a IN (), (?, ?)", "SELECT a IN (), (?, ?)", Unknown},
		{"arguments", "SELECT coalesce(?, ?, ?)", "SELECT coalesce(?, ?, ?)", MySQL},

		{"a row", "INSERT INTO t (a, b) VALUES ($1, $2) RETURNING a", "INSERT INTO t (a, b) VALUES ($1, $2) RETURNING a", PostgreSQL},
		{"rows", "INSERT INTO t (a, b) VALUES ($1, $2), ($3, $4),($5,$6) ON CONFLICT (a) DO UPDATE SET b = $7",
			"INSERT INTO t (a, b) VALUES ($1, $2) ON CONFLICT (a) DO UPDATE SET b = ?", PostgreSQL},
		{"rows of literals", "INSERT INTO t VALUES (1, 'a'), (-2, NULL), (3, NULL), (-4, NULL)", "INSERT INTO t VALUES (?, ?), (-?, NULL)", MySQL},
		{"rows with calls", "INSERT INTO t VALUES (?, f(?, now())), (?, f(?, now())); SELECT 1", "INSERT INTO t VALUES (?, f(?, now())); SELECT ?", MySQL},
		{"rows in a list", "SELECT a FROM t WHERE (b, c) IN ((?, ?), (?, ?)) AND d = ?", "SELECT a FROM t WHERE (b, c) IN ((?, ?)) AND d = ?", MySQL},
		{"rows that say so", "VALUES ROW(1, 2), ROW(3, 4)", "VALUES ROW(?, ?)", MySQL},
		{"a value of a row", "INSERT INTO t (a, b) VALUES (?, ?) ON DUPLICATE KEY UPDATE a = VALUES(a), b = VALUES(b)",
			"INSERT INTO t (a, b) VALUES (?, ?) ON DUPLICATE KEY UPDATE a = VALUES(a), b = VALUES(b)", MySQL},
		{"a difference", "INSERT INTO t VALUES (a - 1), (a + 1)", "INSERT INTO t VALUES (a - ?), (a + ?)", MySQL},
	} {
		s := Summarise(c.query, c.grammar)
		assert.Equal(t, c.shown, s.Sanitised, c.name)
		assert.Equal(t, c.shown, Summarise(s.Sanitised, c.grammar).Sanitised, c.name)
	}
}

func TestStatementsOfOneShapeHaveOneText(t *testing.T) {
	for _, c := range []struct{ begin, item, end string }{
		{"SELECT a FROM t WHERE b IN (", "?", ") AND c = ?"},
		{"SELECT a FROM t WHERE (b, c) IN (", "(?, 5)", ") AND c = ?"},
		{"INSERT INTO t (a, b) VALUES ", "(?, 'x')", " ON DUPLICATE KEY UPDATE a = ?"},
	} {
		text := func(n int) string {
			return Summarise(c.begin+strings.Repeat(c.item+", ", n-1)+c.item+c.end, MySQL).Sanitised
		}
		assert.Equal(t, text(1), text(2))
		assert.Equal(t, text(1), text(500))
		long := text(100_000)
		assert.Equal(t, long, text(200_000))
		assert.True(t, strings.HasSuffix(long, more) && len(long) < 100, long)
	}
}

func TestWhatIsShownIsBounded(t *testing.T) {
	for _, unit := range []string{"a", "a, ", "é", "€", "𝄞", "(", "'x', ", "`", "/* x */ a", "?"} {
		for n := range 8 {
			query := "SELECT " + strings.Repeat("b", n) + strings.Repeat(unit, 20_000)
			for _, g := range everywhere {
				s := Summarise(query, g)
				assert.LessOrEqual(t, len(s.Sanitised), showAtMost)
				assert.True(t, utf8.ValidString(s.Sanitised), s.Sanitised)
			}
			cut := Cut(query)
			assert.LessOrEqual(t, len(cut), showAtMost)
			assert.Greater(t, len(cut), showAtMost-10)
			assert.True(t, strings.HasPrefix(query, strings.TrimSuffix(cut, more)))
		}
	}
	assert.Equal(t, "SELECT 'a'", Cut("SELECT 'a'"))
	assert.Equal(t, "a\uFFFDb", Cut("a\xffb"))
}

// What is said of a long statement does not depend on what was not read: that may be anything, and
// may change the session.
func TestOfALongStatementItsBeginningIsRead(t *testing.T) {
	for _, begin := range []string{"SELECT a FROM t WHERE b = 1", "INSERT INTO t VALUES (1, 'a'), (2, 'b", "SELECT a -- ", "SELECT /* ", "SET a = b", "SELECT $a$"} {
		fill := begin + strings.Repeat(" ", readAtMost-len(begin)-1) + "c"
		for _, g := range everywhere {
			first := Summarise(fill+"d", g)
			assert.True(t, first.Moves)
			assert.True(t, strings.HasSuffix(first.Sanitised, more), first.Sanitised)
			for _, rest := range []string{"'", "''", "zqsecretqz", " */ zqsecretqz", "\n; SET a = zqsecretqz", "\xff", "é"} {
				assert.Equal(t, first, Summarise(fill+rest, g), begin)
			}
		}
	}
	whole := "SELECT a FROM t" + strings.Repeat(" ", readAtMost-len("SELECT a FROM t"))
	assert.Equal(t, &Summary{Operation: "SELECT", Target: "t", Sanitised: "SELECT a FROM t", text: "SELECT t"}, Summarise(whole, MySQL))
	assert.True(t, Summarise(whole[:readAtMost-1]+"é", MySQL).Moves, "half a character is not read")
}
