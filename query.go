package sqllease

import (
	"strings"
	"sync"
	"unicode"
	"unicode/utf8"

	"go.opentelemetry.io/otel/metric"
	"go.opentelemetry.io/otel/trace"
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

// described is a summary and what telemetry makes of it: making that anew at each
// call would cost more than the call.
type described struct {
	*summary
	name   string                  // the summary's text
	start  []trace.SpanStartOption // of the spans of its calls
	record []metric.RecordOption   // of the metrics of its calls that succeed
}

// grammar tells apart how servers read the same characters.
type grammar uint8

const (
	grammarUnknown grammar = iota // whatever may be a literal counts as one
	grammarMySQL
	grammarPostgreSQL
)

func grammarOf(d Dialect) grammar {
	switch d {
	case DialectMySQL, DialectMariaDB, DialectTiDB:
		return grammarMySQL
	case DialectPostgreSQL, DialectCockroachDB:
		return grammarPostgreSQL
	}
	return grammarUnknown
}

// summaries caches summaries by statement. It is bounded in entries and in
// bytes: a statement that does not fit is summarised anew each time.
type summaries struct {
	grammar  grammar                          // set once
	describe func(d *described, query string) // set once: makes start and record; nil: nobody wants them

	mu    sync.RWMutex
	known map[string]*described // guarded by mu
}

const (
	mostSummaries  = 2048
	longestSummary = 4096 // bytes of a statement worth remembering
)

func (c *summaries) of(query string) *described {
	c.mu.RLock()
	d := c.known[query]
	c.mu.RUnlock()
	if d != nil {
		return d
	}
	s := summarise(query, c.grammar)
	d = &described{summary: s, name: s.text()}
	if c.describe != nil {
		c.describe(d, query)
	}
	if len(query) > longestSummary {
		return d
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.known == nil || len(c.known) >= mostSummaries {
		c.known = make(map[string]*described) // starting over is cheap, and bounded
	}
	c.known[strings.Clone(query)] = d
	return d
}

// summarise reads a statement once. What it returns shares no memory with it:
// a statement may be cut from a large text.
func summarise(query string, g grammar) *summary {
	z := sanitiser{in: query, grammar: g}
	z.run()
	return &summary{
		operation: operationOf(z.words),
		target:    targetOf(z.words),
		sanitised: strings.ToValidUTF8(z.out.String(), "\uFFFD"),
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
	for _, w := range words {
		if w == "(" {
			continue
		}
		if w = strings.ToUpper(w); operations[w] {
			return strings.Clone(w)
		}
		break
	}
	return "OTHER"
}

// targetOf is the name behind the first FROM, INTO, UPDATE, JOIN or TABLE that
// has a table behind it.
func targetOf(words []string) string {
	var inCall []bool // per bracket: it is a function's, such as EXTRACT(YEAR FROM …)
	for i, w := range words {
		w = strings.ToUpper(w)
		switch {
		case w == "(":
			inCall = append(inCall, i > 0 && isName(words[i-1]) && !beginsQuery(words[i+1:]))
		case w == ")" && len(inCall) > 0:
			inCall = inCall[:len(inCall)-1]
		case len(inCall) > 0 && inCall[len(inCall)-1]:
		case w == "UPDATE" && i > 0 && words[i-1] != ")": // FOR UPDATE, ON DUPLICATE KEY UPDATE, GRANT UPDATE
		case w == "FROM" || w == "INTO" || w == "UPDATE" || w == "JOIN" || w == "TABLE":
			return tableName(words[i+1:])
		}
	}
	return ""
}

func beginsQuery(words []string) bool {
	return len(words) > 0 && (strings.EqualFold(words[0], "SELECT") || strings.EqualFold(words[0], "WITH"))
}

// beforeTables are the words that may stand between a keyword and its table.
var beforeTables = map[string]bool{
	"ONLY": true, "LATERAL": true, "LOW_PRIORITY": true, "HIGH_PRIORITY": true, "DELAYED": true, "IGNORE": true,
	"QUICK": true, "IF": true, "NOT": true, "EXISTS": true,
}

// tableName joins the parts of the name that words begin with; empty if they
// begin with none.
func tableName(words []string) string {
	for len(words) > 0 && beforeTables[strings.ToUpper(words[0])] {
		words = words[1:]
	}
	if len(words) == 0 || !isName(words[0]) {
		return ""
	}
	name := strings.Trim(words[0], "`\"")
	for len(words) > 2 && words[1] == "." && isName(words[2]) {
		words = words[2:]
		name += "." + strings.Trim(words[0], "`\"")
	}
	return strings.ToValidUTF8(strings.Clone(strings.ToLower(name)), "\uFFFD")
}

func isName(word string) bool {
	r, _ := utf8.DecodeRuneInString(word)
	return r == '_' || r == '`' || r == '"' || unicode.IsLetter(r)
}

// sanitiser rewrites a statement with ? for every literal. Where servers
// disagree on what a character begins, and its grammar does not tell, what
// follows counts as a literal to the end of the statement: to take one
// server's comment for another's text is to take its texts for names.
type sanitiser struct {
	in      string
	grammar grammar
	pos     int
	out     strings.Builder
	words   []string // the first words, for the summary
	space   bool     // white space or a comment is due
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
	case strings.HasPrefix(rest, "--"), r == '#':
		z.lineComment(rest)
	case strings.HasPrefix(rest, "/*"):
		z.comment(rest)
	case r == '\'':
		z.emit(text(rest, '\''), "?")
	case r == '"':
		z.doubleQuotes(rest)
	case r == '`' && z.grammar != grammarPostgreSQL:
		z.name(rest, '`')
	case r == '[' && z.grammar == grammarUnknown && mayBeName(rest):
		z.hide()
	case r == '$' && z.grammar != grammarMySQL && dollarTag(rest) != "":
		z.dollarQuotes(rest)
	case isDigit(rest[0]) || r == '.' && len(rest) > 1 && isDigit(rest[1]):
		z.emit(number(rest), "?")
	case r == '$', (r == ':' || r == '@') && beginsName(rest[1:]):
		n := 1 + word(rest[1:])
		z.emit(n, rest[:n])
	case beginsName(rest):
		z.word(rest)
	default:
		z.emit(size, rest[:size])
	}
}

// word emits a word, or, if it is the prefix of a literal (N'…', x'…',
// _utf8'…'), the literal.
func (z *sanitiser) word(rest string) {
	n := word(rest)
	switch {
	case n == len(rest) || rest[n] != '\'':
		z.emit(n, rest[:n])
	case z.grammar == grammarUnknown && strings.HasSuffix(strings.ToLower(rest[:n]), "q"):
		z.hide() // Oracle's q'[…]' may have any quotes in it
	default:
		z.emit(n+text(rest[n:], '\''), "?")
	}
}

// lineComment skips what begins with # or --. To PostgreSQL # is an operator;
// to MySQL -- is one, unless white space follows.
func (z *sanitiser) lineComment(rest string) {
	hash := rest[0] == '#'
	certain := hash || len(rest) == 2 || unicode.IsSpace(rune(rest[2]))
	switch {
	case z.grammar == grammarPostgreSQL && hash, z.grammar == grammarMySQL && !certain:
		z.emit(1, rest[:1])
	case z.grammar == grammarPostgreSQL:
		z.skip(untilAny(rest, "\r\n"))
	case z.grammar == grammarMySQL:
		z.skip(until(rest, "\n"))
	default:
		line := rest[:until(rest, "\n")]
		if strings.Contains(strings.TrimSuffix(line, "\r\n"), "\r") || (hash || !certain) && hasQuote(line) {
			z.hide()
			return
		}
		z.skip(len(line))
	}
}

// comment skips a block comment. They nest in PostgreSQL. What MySQL executes
// of one (/*! … */) may contain texts.
func (z *sanitiser) comment(rest string) {
	n := 2 + until(rest[2:], "*/")
	body := rest[2:n]
	switch {
	case z.grammar == grammarPostgreSQL:
		z.skip(nested(rest))
	case executable(body) && hasQuote(body), z.grammar == grammarUnknown && strings.Contains(body, "/*"):
		z.hide()
	default:
		z.skip(n)
	}
}

func executable(comment string) bool {
	return strings.HasPrefix(comment, "!") || strings.HasPrefix(comment, "M!")
}

// doubleQuotes are a name in PostgreSQL. In MySQL they may be a text, and in
// others as well.
func (z *sanitiser) doubleQuotes(rest string) {
	if z.grammar == grammarPostgreSQL {
		z.name(rest, '"')
		return
	}
	z.emit(text(rest, '"'), "?")
}

// name emits a quoted name, in which a quote is doubled.
func (z *sanitiser) name(rest string, quote byte) {
	for i := 1; i < len(rest); i++ {
		if rest[i] != quote {
			continue
		}
		if i+1 < len(rest) && rest[i+1] == quote {
			i++
			continue
		}
		z.emit(i+1, rest[:i+1])
		return
	}
	z.hide() // it has no end
}

// dollarQuotes emits a text in PostgreSQL's dollar quotes, which elsewhere may
// be anything.
func (z *sanitiser) dollarQuotes(rest string) {
	if z.grammar == grammarUnknown {
		z.hide()
		return
	}
	tag := dollarTag(rest)
	z.emit(len(tag)+until(rest[len(tag):], tag), "?")
}

// hide makes all the rest one literal.
func (z *sanitiser) hide() { z.emit(len(z.in)-z.pos, "?") }

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

// untilAny is until for whichever of the characters comes first.
func untilAny(s, ends string) int {
	if i := strings.IndexAny(s, ends); i >= 0 {
		return i + 1
	}
	return len(s)
}

// hasQuote tells whether a piece of a statement, read otherwise, might begin a
// text in it.
func hasQuote(s string) bool { return strings.ContainsAny(s, "'\"`$") || strings.Contains(s, "/*") }

// mayBeName tells whether a bracket may begin a name of SQL Server's with a
// quote in it. A name is shorter than what is looked at.
func mayBeName(s string) bool {
	const longest = 512
	s = s[:min(len(s), longest)]
	return hasQuote(s[:until(s, "]")])
}

// nested is the length of the block comment that s begins with, where they nest.
func nested(s string) int {
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

// text is the length of the quoted text that s begins with; a doubled quote is
// part of it. Servers and their settings disagree whether a quote behind a
// backslash ends it: from there on nothing can be told from a literal, and all
// the rest counts as one.
func text(s string, quote byte) int {
	for i := 1; i < len(s); i++ {
		switch {
		case s[i] == '\\':
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
	for i, r := range s[1:] {
		switch {
		case r == '$':
			return s[:i+2]
		case !isWord(r), i == 0 && unicode.IsDigit(r):
			return ""
		}
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

// word is the length of the word that s begins with: a name, of several parts
// if it has dots, in which a dollar may be.
func word(s string) int {
	for i, r := range s {
		if isWord(r) || r == '$' && i > 0 || r == '.' && beginsName(s[i+1:]) {
			continue
		}
		return i
	}
	return len(s)
}

func beginsName(s string) bool {
	r, _ := utf8.DecodeRuneInString(s)
	return r == '_' || unicode.IsLetter(r)
}

func isDigit(b byte) bool { return b >= '0' && b <= '9' }

func isWord(r rune) bool { return r == '_' || unicode.IsLetter(r) || unicode.IsDigit(r) }
