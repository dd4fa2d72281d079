package statement

import "strings"

// Place is where in a statement a comment can stand. The zero Place is nowhere: the
// statement is left as it is.
type Place struct {
	front   int  // where its first word begins
	end     int  // behind its last word or comment; a semicolon stays behind that
	line    bool // what ends there is a comment to the end of its line
	follows bool // a comment of its own comes after the first word
}

// IsNowhere tells that a statement gets no comment.
func (p Place) IsNowhere() bool { return p.end == 0 }

// PlaceOf finds the place for a comment. There is none where servers or their settings may
// disagree about what is text and what is a comment, where the statement has tags already,
// and in statements whose text the server keeps, see kept and unkept.
func PlaceOf(query string, g Grammar) Place {
	if strings.IndexByte(query, 0) >= 0 {
		return Place{} // some servers stop reading there
	}
	p := placer{in: query, grammar: g, place: Place{front: -1}}
	for p.pos < len(p.in) && !p.refused {
		p.step()
	}
	if p.refused || !p.several {
		return Place{} // a single word may be the name of a procedure or of a prepared statement
	}
	return p.place
}

// placer reads a statement once, from its beginning to its end.
type placer struct {
	in      string
	grammar Grammar
	pos     int
	place   Place
	part    part // of the statement that pos is in
	several bool // there are several words
	refused bool // there is no place
}

// part is what of a statement is read.
type part uint8

const (
	atVerb   part = iota // nothing but brackets and comments has come
	atObject             // CREATE or ALTER has come: of what?
	inRest
)

// step consumes a token, a comment, or a blank.
func (p *placer) step() {
	rest := p.in[p.pos:]
	switch c := rest[0]; {
	case isBlank(c):
		p.pos++
	case c == ';':
		p.pos++
		p.part = atVerb
	case strings.HasPrefix(rest, "--"), c == '#':
		p.lineComment(rest)
	case strings.HasPrefix(rest, "/*"):
		p.comment(rest)
	case c == '\'', c == '"', c == '`' && p.grammar != PostgreSQL:
		p.quoted(rest)
	case c == '[' && p.grammar != PostgreSQL:
		p.bracket(rest)
	case c == '$':
		p.dollar(rest)
	case inWord(c):
		p.word(rest)
	default:
		p.token(1)
	}
}

// token consumes what means something to the server.
func (p *placer) token(n int) {
	if p.place.front < 0 {
		p.place.front = p.pos
	} else if p.pos > p.place.end {
		p.several = true
	}
	p.pos += n
	p.place.end, p.place.line = p.pos, false
}

// skip consumes a comment.
func (p *placer) skip(n int, line bool) {
	text := p.in[p.pos : p.pos+n]
	p.place.end, p.place.line = p.pos+len(strings.TrimRight(text, "\r\n")), line
	p.place.follows = p.place.front >= 0
	p.pos += n
}

// lineComment consumes what begins with # or --.
func (p *placer) lineComment(rest string) {
	switch n, certain := p.grammar.lineComment(rest); {
	case n == 0:
		p.token(1)
	case !certain:
		p.refused = true
	default:
		p.skip(n, true)
	}
}

// comment consumes a block comment.
func (p *placer) comment(rest string) {
	n, closed := p.grammar.blockComment(rest)
	if !closed {
		p.refused = true
		return
	}
	body := rest[2 : n-2]
	switch {
	case hasTags(body):
		p.refused = true
	case p.grammar == PostgreSQL:
		p.skip(n, false)
	case executable(body):
		p.refused = hasTextOrComment(body) || p.part != inRest
		p.token(n)
	case strings.HasPrefix(body, "+") && endsInQuotes(body), p.grammar == Unknown && strings.Contains(body, "/*"):
		p.refused = true
	default:
		p.skip(n, false)
	}
}

// blockComment is the length of the comment that s begins with, and whether it has an end.
func (g Grammar) blockComment(s string) (n int, closed bool) {
	if g == PostgreSQL {
		return nested(s)
	}
	n = 2 + until(s[2:], "*/")
	return n, n >= len("/**/") && strings.HasSuffix(s[:n], "*/")
}

// hasTags tells whether a comment begins with key='…', as sqlcommenter's do.
func hasTags(comment string) bool {
	key, _, found := strings.Cut(comment, "='")
	key = strings.TrimLeft(key, " \t\r\n")
	return found && key != "" && strings.IndexFunc(key, func(r rune) bool {
		return !isWord(r) && !strings.ContainsRune("-.~%", r)
	}) < 0
}

// quoted consumes a text or a name in quotes. A quote in it is doubled. Whether one behind
// a backslash ends it depends on settings, and to PostgreSQL ` begins no name.
func (p *placer) quoted(rest string) {
	n, closed := inQuotes(rest, rest[0])
	if !closed || rest[0] == '`' && p.grammar == Unknown && hasTextOrComment(rest[1:n-1]) {
		p.refused = true
		return
	}
	p.token(n)
}

// bracket consumes a bracket that may begin a name, as in SQL Server and in a mode of
// MariaDB, or an array.
func (p *placer) bracket(rest string) {
	const longest = 512 // no name is longer
	n, closed := inQuotes(rest[:min(len(rest), longest)], ']')
	if !closed || hasTextOrComment(rest[:n]) {
		p.refused = true
		return
	}
	p.token(1)
}

// inQuotes is the length of what s begins with, and whether it ends without a doubt.
func inQuotes(s string, end byte) (n int, closed bool) {
	for i := 1; i < len(s); i++ {
		switch {
		case s[i] != end:
		case s[i-1] == '\\':
			return 0, false
		case i+1 < len(s) && s[i+1] == end:
			i++
		default:
			return i + 1, true
		}
	}
	return 0, false
}

// dollar consumes a placeholder, or a text in PostgreSQL's dollar quotes. Only the newest
// of other servers have these.
func (p *placer) dollar(rest string) {
	tag := p.grammar.dollarTag(rest)
	if tag == "" {
		p.token(1)
		return
	}
	n := strings.Index(rest[len(tag):], tag)
	if n < 0 || p.grammar != PostgreSQL {
		p.refused = true
		return
	}
	p.token(n + 2*len(tag))
}

// word consumes a name, a keyword or a number.
func (p *placer) word(rest string) {
	n := 1
	for n < len(rest) && (inWord(rest[n]) || rest[n] == '$') {
		n++
	}
	word, next := rest[:n], rest[n:]
	switch {
	case isDigit(word[0]) && strings.Contains(word, "$"): // dollar quotes may begin in it
		p.refused = true
	case p.grammar == Unknown && strings.HasPrefix(next, "'") && (word[n-1] == 'q' || word[n-1] == 'Q'):
		p.refused = true // Oracle's q'[…]' may have any quotes in it
	case p.part == atVerb:
		p.verb(word)
	case p.part == atObject:
		p.object(word)
	}
	p.token(n)
}

// kept are the verbs of statements that PostgreSQL shows as they were written for as long
// as their session lives. A comment would name the trace of another call.
var kept = map[string]bool{
	"PREPARE": true, // pg_prepared_statements
	"DECLARE": true, // pg_cursors
}

// unkept are what servers write down in their own words, of all that CREATE and ALTER
// define. MariaDB keeps the body of a PROCEDURE, FUNCTION, TRIGGER, EVENT or PACKAGE to the
// end of the statement, with the comment. It keeps no comment of a TABLE or INDEX, nor of
// a VIEW, SEQUENCE or USER, which are left out since few of them take long. PostgreSQL keeps
// none of anything.
var unkept = map[string]bool{"TABLE": true, "INDEX": true}

// before are the words that may stand before these.
var before = map[string]bool{
	"OR": true, "REPLACE": true, "UNIQUE": true, "FULLTEXT": true, "SPATIAL": true, "ONLINE": true, "IGNORE": true,
	"TEMPORARY": true, "TEMP": true, "GLOBAL": true, "LOCAL": true, "UNLOGGED": true,
}

// verb reads the first word of a statement.
func (p *placer) verb(word string) {
	p.part = inRest
	switch {
	case isOneOf(kept, word):
		p.refused = true
	case strings.EqualFold(word, "CREATE"), strings.EqualFold(word, "ALTER"):
		p.part = atObject
		p.refused = p.grammar == Unknown // SQLite and SQL Server keep what they are given
	}
}

// object reads a word behind CREATE or ALTER.
func (p *placer) object(word string) {
	switch {
	case isOneOf(unkept, word):
		p.part = inRest
	case !isOneOf(before, word):
		p.refused = true
	}
}

// isOneOf looks a word up in any case, without a copy of it.
func isOneOf(words map[string]bool, word string) bool {
	var upper [len("TEMPORARY")]byte
	if len(word) > len(upper) {
		return false
	}
	for i := range len(word) {
		upper[i] = word[i]
		if 'a' <= word[i] && word[i] <= 'z' {
			upper[i] -= 'a' - 'A'
		}
	}
	return words[string(upper[:len(word)])]
}

// inWord tells whether a byte may be in a name, keyword or number.
func inWord(b byte) bool {
	return 'a' <= b && b <= 'z' || 'A' <= b && b <= 'Z' || isDigit(b) || b == '_' || b >= 0x80
}

// isBlank tells what is white space to every server.
func isBlank(b byte) bool { return b == ' ' || b == '\t' || b == '\n' || b == '\r' || b == '\f' }

// hasTextOrComment is hasQuote for what may begin a comment as well.
func hasTextOrComment(s string) bool {
	return hasQuote(s) || strings.Contains(s, "--") || strings.Contains(s, "#")
}
