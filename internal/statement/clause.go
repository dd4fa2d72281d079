package statement

import "strings"

// clause is where in a statement the sanitiser is, as far as it tells whether a
// name is a value there. Servers take some values without quotes: PostgreSQL,
// MySQL and MariaDB those of SET, CockroachDB locations and passphrases, and
// passwords in older releases, Oracle passwords. Where quotes are required and
// were forgotten, the statement fails, but telemetry says it all the same.
type clause struct {
	kind       kind
	identified bool   // the last word was IDENTIFIED
	value      bool   // the next name is a value
	listed     bool   // the last was one
	data       bool   // of COPY … FROM STDIN; it comes behind the semicolon
	secret     bool   // all the rest may be one
	pragma     string // the name that came last, in a PRAGMA
}

// kind is what a statement is about.
type kind uint8

const (
	kindUnread  kind = iota
	kindPlain        // nothing that has such values
	kindDefines      // CREATE, ALTER or GRANT, of what is not known yet
	kindOther        // of something else
	kindAccount      // of accounts, or of databases, which have settings too
	kindSet
	kindCopy
	kindBackup  // to or from a location, which may contain its keys
	kindRoutine // of functions, which have settings
	kindPragma  // of SQLite, one of which is SQLCipher's key
	kindAttach  // of SQLite's databases, which may have one
)

var kinds = map[string]kind{
	"CREATE": kindDefines, "ALTER": kindDefines, "GRANT": kindDefines, "SET": kindSet, "COPY": kindCopy,
	"BACKUP": kindBackup, "RESTORE": kindBackup, "IMPORT": kindBackup, "EXPORT": kindBackup,
	"PRAGMA": kindPragma, "ATTACH": kindAttach,
	"EXPLAIN": kindUnread, "QUERY": kindUnread, "PLAN": kindUnread, // another statement follows
}

var definitions = map[string]kind{
	"USER": kindAccount, "ROLE": kindAccount, "GROUP": kindAccount, "LOGIN": kindAccount,
	"DATABASE": kindAccount, "SYSTEM": kindAccount,
	"CHANGEFEED": kindBackup, "EXTERNAL": kindBackup, "SCHEDULE": kindBackup,
	"FUNCTION": kindRoutine, "PROCEDURE": kindRoutine, "ROUTINE": kindRoutine,
	"OR": kindDefines, "REPLACE": kindDefines, "AGGREGATE": kindDefines,
}

// keys are the pragmas that have a key behind them, and what may be one.
var keys = map[string]bool{
	"KEY": true, "REKEY": true, "HEXKEY": true, "HEXREKEY": true, "TEXTKEY": true, "TEXTREKEY": true, "?": true,
}

// pass takes notice of a token.
func (c *clause) pass(token string, g Grammar) {
	switch {
	case token == ";":
		*c = clause{secret: c.data}
	case c.kind == kindUnread:
		c.begin(kinds, token, kindPlain)
	case c.kind == kindPlain:
	case c.kind == kindDefines:
		c.begin(definitions, token, kindOther)
	case c.kind == kindCopy:
		c.data = c.data || strings.EqualFold(token, "STDIN")
	default:
		c.define(token, g)
	}
}

func (c *clause) begin(known map[string]kind, token string, otherwise kind) {
	c.kind = otherwise
	if k, ok := known[strings.ToUpper(token)]; ok {
		c.kind = k
	}
	c.secret = c.kind == kindBackup
}

// define takes notice of a token of a SET, or of the definition of something.
func (c *clause) define(token string, g Grammar) {
	word := strings.ToUpper(token)
	switch {
	case c.identified && (word == "BY" || word == "WITH" || word == "VIA"),
		word == "PASSWORD" && (c.kind == kindAccount || c.kind == kindSet), word == "KEY" && c.kind == kindAttach:
		c.secret = true
	case c.kind == kindPragma:
		c.setting(word)
	case word == "BEGIN" && c.kind == kindRoutine: // what follows are its statements
		c.kind = kindOther
	case word == "SET" && (c.kind == kindAccount || c.kind == kindRoutine && g != MySQL):
		c.kind = kindSet
	case word == "FOR" && c.kind == kindSet: // MariaDB's SET STATEMENT … FOR SELECT …
		*c = clause{}
	case c.kind == kindSet:
		c.set(word, g)
	}
	c.identified = word == "IDENTIFIED"
}

// setting takes notice of a token of a PRAGMA.
func (c *clause) setting(word string) {
	switch {
	case word != "=" && word != "(":
		if name := strings.Trim(word[strings.LastIndexByte(word, '.')+1:], "`\"'"); name != "" && name != "]" {
			c.pragma = name
		}
	case keys[c.pragma]:
		c.secret = true
	default:
		c.kind = kindPlain
	}
}

// set takes notice of a token of a SET. PostgreSQL's values may be lists;
// MySQL's have another variable behind the comma.
func (c *clause) set(word string, g Grammar) {
	last := c.value
	goesOn := word == "," && g != MySQL || word == "&" // U&"…"
	c.value = word == "=" || word == "TO" || goesOn && c.listed
	c.listed = last
}
