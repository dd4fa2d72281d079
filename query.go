package sqllease

import (
	"strings"
	"sync"
	"unicode"
	"unicode/utf8"
)

// summary is what telemetry and reports say of a statement. It contains no
// literal of it.
type summary struct {
	operation string // the first keyword, upper case: SELECT, INSERT, …
	target    string // the first table, where it can be told
	sanitised string // the statement with ? for every literal, comments removed
}

// text is the conventions' db.query.summary.
func (s *summary) text() string {
	if s.target == "" {
		return s.operation
	}
	return s.operation + " " + s.target
}

// summaries caches summaries by statement. It is bounded in entries and in
// bytes: a statement that does not fit is summarised anew each time.
type summaries struct {
	mu    sync.RWMutex
	known map[string]*summary // guarded by mu
}

const (
	mostSummaries  = 2048
	longestSummary = 4096 // bytes of a statement worth remembering
)

func (c *summaries) of(query string) *summary {
	c.mu.RLock()
	s := c.known[query]
	c.mu.RUnlock()
	if s != nil {
		return s
	}
	s = summarise(query)
	if len(query) > longestSummary {
		return s
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.known == nil || len(c.known) >= mostSummaries {
		c.known = make(map[string]*summary) // starting over is cheap, and bounded
	}
	c.known[strings.Clone(query)] = s
	return s
}

// summarise reads a statement once.
func summarise(query string) *summary {
	z := sanitiser{in: query}
	z.run()
	return &summary{
		operation: operationOf(z.words),
		target:    targetOf(z.words),
		sanitised: z.out.String(),
	}
}

// operations are the keywords that may name an operation. There are few, so
// that they are fit for a metric; everything else is OTHER.
var operations = map[string]bool{
	"SELECT": true, "INSERT": true, "UPDATE": true, "DELETE": true, "REPLACE": true, "MERGE": true, "WITH": true,
	"CREATE": true, "ALTER": true, "DROP": true, "TRUNCATE": true, "CALL": true, "DO": true, "EXEC": true, "SET": true,
	"SHOW": true, "EXPLAIN": true, "ANALYZE": true, "BEGIN": true, "START": true, "COMMIT": true, "ROLLBACK": true,
	"SAVEPOINT": true, "RELEASE": true, "LOCK": true, "UNLOCK": true, "COPY": true, "LOAD": true, "LISTEN": true,
	"NOTIFY": true, "VALUES": true, "TABLE": true, "PRAGMA": true, "VACUUM": true, "USE": true, "KILL": true,
	"GRANT": true, "REVOKE": true, "PREPARE": true, "EXECUTE": true, "DEALLOCATE": true, "FETCH": true,
}

func operationOf(words []string) string {
	if len(words) == 0 {
		return "OTHER"
	}
	if w := strings.ToUpper(words[0]); operations[w] {
		return w
	}
	return "OTHER"
}

// targetOf is the word after the first FROM, INTO, UPDATE, JOIN or TABLE.
func targetOf(words []string) string {
	for i, w := range words[:max(len(words)-1, 0)] {
		switch strings.ToUpper(w) {
		case "FROM", "INTO", "UPDATE", "JOIN", "TABLE":
			if next := words[i+1]; next != "(" && next != "?" {
				return strings.ToLower(strings.Trim(next, "`"))
			}
			return ""
		}
	}
	return ""
}

// sanitiser rewrites a statement with ? for every literal. What it is not sure
// of counts as a literal: in MySQL "x" is text, in PostgreSQL a name, so that
// it becomes ? everywhere.
type sanitiser struct {
	in    string
	pos   int
	out   strings.Builder
	words []string // the first words, for the summary
	space bool     // white space or a comment is due
}

func (z *sanitiser) run() {
	z.out.Grow(len(z.in))
	for z.pos < len(z.in) {
		z.step()
	}
}

// step consumes one token.
func (z *sanitiser) step() {
	rest := z.in[z.pos:]
	r, size := utf8.DecodeRuneInString(rest)
	switch {
	case unicode.IsSpace(r):
		z.skip(size)
	case strings.HasPrefix(rest, "--"), r == '#' && !strings.HasPrefix(rest, "#>") && !strings.HasPrefix(rest, "#-"):
		z.skip(until(rest, "\n"))
	case strings.HasPrefix(rest, "/*"):
		z.skip(comment(rest))
	case r == '\'' || r == '"':
		z.emit(quoted(rest, byte(r), true), "?")
	case r == '`':
		n := quoted(rest, '`', false)
		z.emit(n, rest[:n])
	case r == '$' && dollarTag(rest) != "":
		tag := dollarTag(rest)
		z.emit(len(tag)+until(rest[len(tag):], tag), "?")
	case isDigit(rest[0]) || r == '.' && len(rest) > 1 && isDigit(rest[1]):
		z.emit(number(rest), "?")
	case (r == '$' || r == ':' || r == '@') && len(rest) > 1 && isWord(rune(rest[1])):
		n := 1 + word(rest[1:])
		z.emit(n, rest[:n])
	case isWord(r):
		z.word(rest)
	default:
		z.emit(size, rest[:size])
	}
}

// word emits a word, or, if it is the prefix of a literal (N'…', x'…',
// _utf8'…'), the literal.
func (z *sanitiser) word(rest string) {
	n := word(rest)
	if n < len(rest) && rest[n] == '\'' {
		z.emit(n+quoted(rest[n:], '\'', true), "?")
		return
	}
	z.emit(n, rest[:n])
}

func (z *sanitiser) skip(n int) {
	z.pos += n
	z.space = z.out.Len() > 0
}

func (z *sanitiser) emit(n int, text string) {
	if z.space {
		z.out.WriteByte(' ')
		z.space = false
	}
	z.out.WriteString(text)
	z.pos += n
	const enough = 64
	if len(z.words) < enough {
		z.words = append(z.words, text)
	}
}

// until is how much of s there is up to and including end, or all of it.
func until(s, end string) int {
	if i := strings.Index(s, end); i >= 0 {
		return i + len(end)
	}
	return len(s)
}

// comment is the length of the block comment that s begins with. Comments
// nest in PostgreSQL; where they do not, more is removed, never less.
func comment(s string) int {
	depth := 0
	for i := 0; i < len(s); i++ {
		switch {
		case strings.HasPrefix(s[i:], "/*"):
			depth++
			i++
		case strings.HasPrefix(s[i:], "*/"):
			depth--
			i++
			if depth == 0 {
				return i + 1
			}
		}
	}
	return len(s)
}

// quoted is the length of the quoted text that s begins with; a doubled quote
// is part of it. With escapes, servers disagree whether a quote behind a
// backslash ends it (MySQL: no, PostgreSQL: yes): from there on nothing can be
// told from a literal, and all the rest counts as one.
func quoted(s string, quote byte, escapes bool) int {
	for i := 1; i < len(s); i++ {
		switch {
		case s[i] == '\\' && escapes:
			if i+1 < len(s) && s[i+1] != '\\' && s[i+1] != quote {
				i++
				continue
			}
			return len(s)
		case s[i] == quote && i+1 < len(s) && s[i+1] == quote:
			i++
		case s[i] == quote:
			return i + 1
		}
	}
	return len(s)
}

// dollarTag is the opening tag of PostgreSQL's dollar quotes, or empty.
func dollarTag(s string) string {
	n := 1
	for n < len(s) && (isWord(rune(s[n])) && s[n] != '$') {
		n++
	}
	if n < len(s) && s[n] == '$' && (n == 1 || !isDigit(s[1])) {
		return s[:n+1]
	}
	return ""
}

// number is the length of the number that s begins with, hexadecimal and
// exponents included.
func number(s string) int {
	n := 0
	for n < len(s) && (isWord(rune(s[n])) || s[n] == '.' ||
		(s[n] == '+' || s[n] == '-') && n > 0 && (s[n-1] == 'e' || s[n-1] == 'E')) {
		n++
	}
	return n
}

func word(s string) int {
	for i, r := range s {
		if !isWord(r) && r != '.' {
			return i
		}
	}
	return len(s)
}

func isDigit(b byte) bool { return b >= '0' && b <= '9' }

func isWord(r rune) bool { return r == '_' || unicode.IsLetter(r) || unicode.IsDigit(r) }
