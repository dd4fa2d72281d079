// Package statement reads SQL: text in, text out. It knows how servers write literals,
// names and comments, and what a statement may change; it knows no driver, no connection,
// and nothing of who asks or of what is made of the answer.
package statement

import (
	"strings"
	"unicode"
	"unicode/utf8"
)

// Summary is what telemetry and reports say of a statement. It contains no
// literal of it.
type Summary struct {
	Operation string // the first keyword, upper case: SELECT, INSERT, …
	Target    string // the first table, where it can be told
	Sanitised string // the statement with ? for every literal, comments removed
	Moves     bool   // running it may change the state of its session
}

// Text is the conventions' db.query.summary.
func (s *Summary) Text() string {
	if s.Target == "" {
		return s.Operation
	}
	return s.Operation + " " + s.Target
}

// Grammar tells apart how servers read the same characters.
type Grammar uint8

// How they do.
const (
	Unknown Grammar = iota // whatever may be a literal counts as one
	MySQL
	PostgreSQL
)

// Summarise reads a statement once. What it returns shares no memory with it:
// a statement may be cut from a large text.
func Summarise(query string, g Grammar) *Summary {
	z := sanitiser{in: query, grammar: g}
	z.run()
	return &Summary{
		Operation: operationOf(z.words),
		Target:    targetOf(z.words),
		Sanitised: z.shown(),
		Moves:     z.moves(),
	}
}

// Other is the operation of a statement that begins with no keyword.
const Other = "OTHER"

// operations are the keywords that may name an operation. There are few, so
// that they are fit for a metric; everything else is Other.
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
	return Other
}

// targetOf is the name behind COPY, or behind the first FROM, INTO, UPDATE, JOIN
// or TABLE that has a table behind it.
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
		case w == "COPY" && i == 0 && len(words) > 1 && words[1] != "(":
			return tableName(words[1:])
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
	"QUICK": true, "IF": true, "NOT": true, "EXISTS": true, "TABLE": true,
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
