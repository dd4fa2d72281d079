package statement

import (
	"bytes"
	"strings"
	"unicode"
	"unicode/utf8"
)

// sanitiser rewrites a statement with ? for every literal. Where servers
// disagree on what a character begins, and its grammar does not tell, what
// follows counts as a literal to the end of the statement: to take one
// server's comment for another's text is to take its texts for names.
type sanitiser struct {
	in      string
	grammar Grammar
	pos     int
	out     bytes.Buffer
	outline outline  // what it does, for the summary
	space   bool     // white space or a comment is due
	clause  clause   // where in a statement it is
	lists   lists    // of values, which are kept short
	bracket int      // up to here there is no name in brackets that matters
	hidden  bool     // the rest of the statement could not be read
	long    bool     // it was not, since the statement is long
	tokens  []string // the first ones, as they are written
}

// readAtMost is how many bytes of a statement are read, four times what is shown: enough
// for those that people write, and to read it takes a fifth of a millisecond. Longer ones
// have lists of values, as a rule. They are not remembered, and read at each call.
const readAtMost = 4 * showAtMost

// run reads a statement up to where it gets too long, or is no text any more: in the encodings of
// some clients the second byte of a character looks like a quote or a backslash.
func (z *sanitiser) run() {
	if len(z.in) > readAtMost {
		z.in, z.long = z.in[:whole(z.in, readAtMost)], true
	}
	valid := validUntil(z.in)
	broken := valid < len(z.in)
	z.in = z.in[:valid]
	z.readAll()
	switch {
	case broken && !z.hidden:
		z.hide()
	case z.long:
		z.hidden = true
		z.lists.end(&z.out)
	}
}

func (z *sanitiser) readAll() {
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
	case z.grammar.isSpace(r):
		z.skip(size)
	case z.clause.secret:
		z.hide()
	case strings.HasPrefix(rest, "--"), r == '#':
		z.lineComment(rest)
	case strings.HasPrefix(rest, "/*"):
		z.comment(rest)
	case strings.HasPrefix(rest, "//") && z.grammar == Unknown: // Snowflake's comment, DuckDB's operator
		z.hide()
	case r == '\'':
		z.text(0, '\'')
	case r == '"':
		z.doubleQuotes(rest)
	case r == '`' && z.grammar != PostgreSQL:
		z.name(rest, '`')
	case r == '[' && z.grammar != PostgreSQL && z.bracketed():
		z.hide()
	case r == '$':
		z.dollar(rest)
	case isDigit(rest[0]) || r == '.' && len(rest) > 1 && isDigit(rest[1]):
		z.emit(z.grammar.number(rest), "?")
	case (r == ':' || r == '@') && z.grammar.beginsName(rest[1:]):
		n := 1 + z.grammar.word(rest[1:])
		z.emit(n, rest[:n])
	case z.grammar.beginsName(rest):
		z.word(rest)
	default:
		z.emit(size, rest[:size])
	}
}

// word emits a word, or, if it is the prefix of a literal (N'…', x'…',
// _utf8'…'), the literal.
func (z *sanitiser) word(rest string) {
	n := z.grammar.word(rest)
	switch {
	case n == len(rest) || rest[n] != '\'':
		z.emit(n, rest[:n])
	case z.grammar == Unknown && strings.HasSuffix(strings.ToLower(rest[:n]), "q"):
		z.hide() // Oracle's q'[…]' may have any quotes in it
	default:
		z.text(n, '\'')
	}
}

// lineComment skips what begins with # or --.
func (z *sanitiser) lineComment(rest string) {
	switch n, certain := z.grammar.lineComment(rest); {
	case n == 0:
		z.emit(1, rest[:1])
	case !certain:
		z.hide()
	default:
		z.skip(n)
	}
}

// lineComment is the length of the comment that begins with # or --, and whether it is one
// for certain, to its end. Zero: it is an operator. To PostgreSQL # is one; to MySQL -- is,
// unless white space follows.
func (g Grammar) lineComment(rest string) (n int, certain bool) {
	switch {
	case g == PostgreSQL && rest[0] == '#', g == MySQL && twoMinuses(rest):
		return 0, true
	case g == PostgreSQL:
		return untilAny(rest, "\r\n"), true
	}
	n = until(rest, "\n")
	return n, !g.mayGoOn(rest[:n])
}

// mayGoOn tells whether what may be a comment may be none, or end before its
// line does: MySQL's ends at a zero byte, TiDB's does not.
func (g Grammar) mayGoOn(line string) bool {
	certain := line[0] != '#' && blankFollows(line)
	switch {
	case strings.Contains(line, "\x00"):
		return true
	case g == MySQL:
		return !certain && line[0] != '#' // a control character follows, which not all take for white space
	}
	return strings.Contains(strings.TrimSuffix(line, "\r\n"), "\r") || !certain && hasQuote(line)
}

func blankFollows(minuses string) bool {
	return len(minuses) == 2 || strings.IndexByte(" \t\n\v\f\r", minuses[2]) >= 0
}

func twoMinuses(s string) bool {
	return s[0] == '-' && len(s) > 2 && s[2] > ' ' && s[2] <= '~'
}

// comment skips a block comment. They nest in PostgreSQL. What MySQL executes of one
// (/*! … */) may contain texts, comments that hide its end, and the beginning of what
// goes on behind it; a hint may contain texts that hide its end.
func (z *sanitiser) comment(rest string) {
	n := 2 + until(rest[2:], "*/")
	body := strings.TrimSuffix(rest[2:n], "*/")
	switch {
	case z.grammar == PostgreSQL:
		length, _ := nested(rest)
		z.skip(length)
	case executable(body) && (z.clause.kind != kindPlain || !harmless(body)), strings.HasPrefix(body, "+") && endsInQuotes(body),
		z.grammar == Unknown && strings.Contains(body, "/*"):
		z.hide()
	default:
		z.skip(n)
	}
}

// executable tells a comment that MySQL, MariaDB or TiDB executes.
func executable(comment string) bool {
	return strings.HasPrefix(comment, "!") || strings.HasPrefix(comment, "M!") || strings.HasPrefix(comment, "T!")
}

// harmless tells a comment that is executed, and has nothing in it but words of a query.
func harmless(comment string) bool {
	for i := range len(comment) {
		if b := comment[i]; b >= utf8.RuneSelf || !isWord(rune(b)) && strings.IndexByte(" \t\r\n!,.()=", b) < 0 {
			return false
		}
	}
	return true
}

// doubleQuotes are a name in PostgreSQL. In MySQL they may be a text, and in
// others as well.
func (z *sanitiser) doubleQuotes(rest string) {
	if z.grammar == PostgreSQL {
		z.name(rest, '"')
		return
	}
	z.text(0, '"')
}

// text emits a quoted text that begins behind so many bytes.
func (z *sanitiser) text(prefix int, quote byte) {
	n := z.grammar.text(z.in[z.pos+prefix:], quote)
	if n == 0 {
		z.hide()
		return
	}
	z.emit(prefix+n, "?")
}

// name emits a quoted name, in which a quote is doubled. In ClickHouse and BigQuery it may
// be behind a backslash.
func (z *sanitiser) name(rest string, quote byte) {
	for i := 1; i < len(rest); i++ {
		if rest[i] == '\\' && z.grammar == Unknown {
			break
		}
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
	z.hide() // where it ends is not certain
}

// dollar emits what begins with a dollar: a text in PostgreSQL's dollar quotes,
// a placeholder, or a name of MySQL's. Newer releases of MySQL have dollar quotes
// for programs in JavaScript, of which MariaDB and older ones make names: where
// they may be either, nothing behind them is certain.
func (z *sanitiser) dollar(rest string) {
	tag := z.grammar.dollarTag(rest)
	switch {
	case tag != "" && z.grammar == PostgreSQL:
		z.emit(len(tag)+until(rest[len(tag):], tag), "?")
	case tag != "":
		z.hide()
	case z.grammar == PostgreSQL:
		n := 1 + digits(rest[1:])
		z.emit(n, rest[:n])
	case z.grammar == Unknown && digits(rest[1:]) > 0: // SQL Server's money
		z.emit(1+z.grammar.number(rest[1:]), "?")
	default:
		n := 1 + z.grammar.word(rest[1:])
		z.emit(n, rest[:n])
	}
}

// hide makes all the rest one literal.
func (z *sanitiser) hide() {
	z.hidden = true
	z.emit(len(z.in)-z.pos, "?")
}

func (z *sanitiser) skip(n int) {
	z.pos += n
	z.space = z.out.Len() > 0
}

// emit consumes a token, and writes what is shown of it.
func (z *sanitiser) emit(n int, token string) {
	if len(z.tokens) < cap(z.tokens) {
		z.tokens = append(z.tokens, z.in[z.pos:z.pos+n])
	}
	z.pos += n
	token = z.clause.pass(token, z.grammar)
	if z.clause.secret && z.clause.names(token, z.in[z.pos:]) {
		z.clause.secret = false
	}
	if token == "" { // another part of a value
		z.space = false
		return
	}
	z.lists.write(&z.out, token, z.space)
	z.space = false
	z.outline.pass(token)
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

func endsInQuotes(s string) bool {
	var quote byte
	for i := range len(s) {
		switch {
		case quote == 0 && strings.IndexByte("'\"`", s[i]) >= 0:
			quote = s[i]
		case quote == s[i]:
			quote = 0
		}
	}
	return quote != 0
}

// bracketed tells whether a bracket may begin a name with something in it that would be
// read otherwise: SQL Server and SQLite have such names, and MariaDB in its mode for SQL
// Server. A bracket in a name is doubled, but not in SQLite.
func (z *sanitiser) bracketed() bool {
	i := max(z.pos, z.bracket)
	for i < len(z.in) && z.in[i] != ']' {
		if strings.IndexByte("'\"`$#;", z.in[i]) >= 0 || strings.HasPrefix(z.in[i:], "--") || strings.HasPrefix(z.in[i:], "/*") {
			return true
		}
		i++
		for strings.HasPrefix(z.in[i:], "]]") {
			i += 2
		}
	}
	z.bracket = i
	return false
}

// nested is the length of the block comment that s begins with, where they nest, and
// whether it has an end.
func nested(s string) (n int, closed bool) {
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
				return i + 1, true
			}
		}
	}
	return len(s), false
}

// text is the length of the quoted text that s begins with; a doubled quote is
// part of it. It is 0 where the end is not certain: servers and their settings
// disagree whether a quote behind a backslash ends it, and whether three quotes begin a
// text that only three end.
func (g Grammar) text(s string, quote byte) int {
	if g == Unknown && len(s) > 2 && s[1] == quote && s[2] == quote {
		return 0
	}
	for i := 1; i < len(s); i++ {
		switch {
		case s[i] == '\\':
			if i++; i == len(s) || s[i] == '\\' || s[i] == quote {
				return 0
			}
		case s[i] == quote && i+1 < len(s) && s[i+1] == quote:
			i++
		case s[i] == quote:
			return i + 1
		}
	}
	return 0
}

// dollarTag is the opening tag of dollar quotes, or empty. In PostgreSQL, $1 is
// a placeholder.
func (g Grammar) dollarTag(s string) string {
	for i, r := range s[1:] {
		switch {
		case r == '$':
			return s[:i+2]
		case !isWord(r) && r < utf8.RuneSelf, i == 0 && g == PostgreSQL && isDigit(s[1]):
			return ""
		}
	}
	return ""
}

// number is the length of the number that s begins with, hexadecimal and
// exponents included.
func (g Grammar) number(s string) int {
	for i, r := range s {
		if g.inName(r) || r == '.' || (r == '+' || r == '-') && inExponent(s, i) {
			continue
		}
		return i
	}
	return len(s)
}

// inExponent tells a sign that belongs to a number from an operator, which may
// begin a comment.
func inExponent(s string, sign int) bool {
	return sign > 0 && (s[sign-1] == 'e' || s[sign-1] == 'E') && digits(s[sign+1:]) > 0
}

func digits(s string) int {
	n := 0
	for n < len(s) && isDigit(s[n]) {
		n++
	}
	return n
}

// word is the length of the word that s begins with: a name, of several parts
// if it has dots, in which a dollar may be.
func (g Grammar) word(s string) int {
	for i, r := range s {
		if g.inName(r) || r == '$' && i > 0 || r == '.' && g.beginsName(s[i+1:]) {
			continue
		}
		return i
	}
	return len(s)
}

func (g Grammar) beginsName(s string) bool {
	r, _ := utf8.DecodeRuneInString(s)
	return r == '_' || unicode.IsLetter(r) || r >= utf8.RuneSelf && g != Unknown && s != ""
}

// inName tells whether a character may be in a name. To PostgreSQL and MySQL whatever is
// beyond ASCII may, white space included.
func (g Grammar) inName(r rune) bool {
	return isWord(r) || r >= utf8.RuneSelf && g != Unknown
}

func (g Grammar) isSpace(r rune) bool {
	return unicode.IsSpace(r) && (r < utf8.RuneSelf || g == Unknown)
}

func isDigit(b byte) bool { return b >= '0' && b <= '9' }

func isWord(r rune) bool { return r == '_' || unicode.IsLetter(r) || unicode.IsDigit(r) }
