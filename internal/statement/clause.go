package statement

import (
	"strings"
	"unicode/utf8"
)

// clause is where in a statement the sanitiser is, as far as it tells what is a value there
// though it has no quotes. Servers take such values in settings, in options of tables and
// of their engines, in locations, and some as passwords. Where quotes are required and were
// forgotten, the statement fails, but telemetry says it all the same.
//
// Where such a value ends is not certain: it may be an expression or a list, or have a comma
// in it that nobody quoted. So it is hidden up to the next semicolon. Queries have no such
// values, and lose nothing.
type clause struct {
	kind   kind
	last   string // the word before, in upper case
	value  bool   // what comes is a value
	masked bool   // a ? stands for it
	depth  int    // of the brackets in it, or in the options of EXPLAIN
	single bool   // of MariaDB's SET STATEMENT … FOR SELECT …
	data   bool   // of COPY … FROM STDIN; it comes behind the semicolon
	secret bool   // all the rest may be one
}

// kind is what a statement is about.
type kind uint8

const (
	kindUnread  kind = iota
	kindPlain        // a query: none of its values goes without quotes
	kindDefines      // CREATE, ALTER or GRANT, of what is not known yet
	kindOther        // whatever else, a compound statement or a routine with its body included
	kindAccount      // of accounts
	kindSet
	kindCopy
	kindSecret // any part of it may be one
	kindPragma // of SQLite, one of which is SQLCipher's key
	kindAttach // of databases, which may have a key
	kindExec   // of SQL Server's procedures, which take names for texts
)

var kinds = map[string]kind{
	"SELECT": kindPlain, "INSERT": kindPlain, "UPDATE": kindPlain, "DELETE": kindPlain, "REPLACE": kindPlain,
	"WITH": kindPlain, "VALUES": kindPlain, "TABLE": kindPlain, "CALL": kindPlain, "LOAD": kindPlain, "MERGE": kindPlain,
	"CREATE": kindDefines, "ALTER": kindDefines, "GRANT": kindDefines, "SHOW": kindDefines, "CHECK": kindDefines,
	"SET": kindSet, "COPY": kindCopy, "PRAGMA": kindPragma, "ATTACH": kindAttach, "EXEC": kindExec, "EXECUTE": kindExec,
	"BACKUP": kindSecret, "RESTORE": kindSecret, "IMPORT": kindSecret, "EXPORT": kindSecret,
	"EXPLAIN": kindUnread, "ANALYZE": kindUnread, "QUERY": kindUnread, "PLAN": kindUnread, "(": kindUnread, // another follows
}

// definitions are what may stand behind CREATE and its like.
var definitions = map[string]kind{
	"USER": kindAccount, "ROLE": kindAccount, "GROUP": kindAccount, "LOGIN": kindAccount,
	"DATABASE": kindAccount, "SYSTEM": kindAccount,
	"CHANGEFEED": kindSecret, "EXTERNAL": kindSecret, "SCHEDULE": kindSecret, "BACKUP": kindSecret, // locations of CockroachDB's
	"LOGICAL": kindSecret, "LOGICALLY": kindSecret, "VIRTUAL": kindSecret, "SUBSCRIPTION": kindSecret, // those too, and SQLite's modules with what they are told
	"SECRET": kindSecret, "PERSISTENT": kindSecret, // of DuckDB
	"OR": kindDefines, "ALTER": kindDefines, "REPLACE": kindDefines, "AGGREGATE": kindDefines, "TEMPORARY": kindDefines, "TEMP": kindDefines,
}

// pass takes notice of a token, and returns what is shown of it.
func (c *clause) pass(token string, g Grammar) string {
	switch {
	case token == ";":
		*c = clause{secret: c.data}
	case c.kind == kindUnread:
		c.begin(token, g)
	case g == Unknown && isExec(token): // SQL Server needs no semicolon before it
		c.kind, c.value = kindExec, false
	case c.value && c.ends(token):
		*c = clause{}
	case c.value:
		return c.mask(token)
	case c.kind == kindDefines:
		c.define(token)
	case c.kind == kindExec:
		c.secret = true
	case c.kind == kindPlain:
		c.query(token, g)
	default:
		c.read(token, g)
	}
	return token
}

// names tells whether a token is within the name of a procedure, or of the variable that
// gets its answer: all else behind EXEC is a value.
func (c *clause) names(token, rest string) bool {
	if c.kind != kindExec {
		return false
	}
	rest = strings.TrimLeft(rest, " \t\r\n")
	switch {
	case token == "." || token == "[" || token == "=":
		return true
	case token[0] == '@':
		return strings.HasPrefix(rest, "=")
	}
	return strings.HasPrefix(rest, ".") || strings.HasPrefix(rest, "]")
}

// query takes notice of a token of a query. In CockroachDB, another statement in brackets
// may stand for a table; in MariaDB, MERGE may be the label of a compound statement.
func (c *clause) query(token string, g Grammar) {
	switch {
	case c.last == "[" && g == PostgreSQL && kinds[upperWord(token)] > kindPlain:
		c.begin(token, g)
		return
	case c.last == "MERGE" && token[0] == ':':
		c.kind = kindOther
	}
	c.last = token
}

// begin takes notice of a statement's first word.
func (c *clause) begin(token string, g Grammar) {
	word := upperWord(token)
	k, ok := kinds[word]
	switch {
	case c.depth > 0, token == "(" && (c.last == "EXPLAIN" || c.last == "ANALYZE"):
		c.nest(token)
		return
	case ok && (k != kindExec || g == Unknown):
		c.kind = k
	default:
		c.kind = kindOther
		c.secret = g == Unknown && !operations[word] // SQL Server runs a procedure by its bare name
	}
	c.secret = c.secret || c.kind == kindSecret
	c.last = word
}

// define takes notice of what is defined.
func (c *clause) define(token string) {
	c.kind = kindOther
	if k, ok := definitions[upperWord(token)]; ok {
		c.kind = k
	}
	c.secret = c.kind == kindSecret
	c.last = upperWord(token)
}

// read takes notice of a token of what is no query.
func (c *clause) read(token string, g Grammar) {
	word := upperWord(token)
	switch {
	case c.last == "IDENTIFIED" && (word == "BY" || word == "WITH" || word == "VIA"),
		word == "PASSWORD" && (c.kind == kindAccount || c.kind == kindSet),
		(word == "KEY" || word == "(") && c.kind == kindAttach,
		word == "(" && c.last == "OPTIONS": // of foreign servers and tables
		c.secret = true
	case word == "SET" && (g != MySQL || c.last != "CHARACTER"):
		c.kind = kindSet
	case c.last == "SET" && (word == "NULL" || word == "DEFAULT"): // of a column
		c.kind = kindOther
	case c.last == "SET" && word == "STATEMENT" && g != PostgreSQL:
		c.single = true
	case word == "STDIN" && c.kind == kindCopy:
		c.data = true
	default:
		c.value = c.takes(word, g) && c.last != "DEFINER" // that is an account
	}
	c.last = word
}

// takes tells whether a word has a value behind it.
func (c *clause) takes(word string, g Grammar) bool {
	switch c.kind {
	case kindSet:
		return word == "=" || word == "TO" || word == "ZONE"
	case kindPragma:
		return word == "=" || word == "("
	}
	return word == "=" && g != PostgreSQL
}

// ends tells whether a token is behind the value.
func (c *clause) ends(token string) bool {
	return c.single && c.depth == 0 && upperWord(token) == "FOR"
}

// mask hides a token of a value: one ? stands for all of it.
func (c *clause) mask(token string) string {
	c.nest(token)
	if c.masked {
		return ""
	}
	c.masked = true
	return "?"
}

func (c *clause) nest(token string) {
	switch token {
	case "(":
		c.depth++
	case ")":
		c.depth--
	}
}

func isExec(token string) bool {
	word := upperWord(token)
	return word == "EXEC" || word == "EXECUTE"
}

// upperWord is a word in upper case. There are letters beyond ASCII whose upper case is an
// ASCII letter; a word with one of them is no keyword.
func upperWord(word string) string {
	for i := range len(word) {
		if word[i] >= utf8.RuneSelf {
			return ""
		}
	}
	return strings.ToUpper(word)
}
