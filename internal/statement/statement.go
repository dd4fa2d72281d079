// Package statement reads SQL: text in, text out. It knows how servers write literals,
// names and comments, and what a statement may change; it knows no driver, no connection,
// and nothing of who asks or of what is made of the answer.
package statement

import "strings"

// Summary is what telemetry and reports say of a statement. It contains no
// literal of it.
type Summary struct {
	Operation string // the first keyword, upper case: SELECT, INSERT, …; of a WITH, that of what follows it
	Target    string // the first table of the operation, where it can be told
	Procedure string // the stored procedure that is called
	Sanitised string // the statement with ? for every literal, comments removed
	Moves     bool   // running it may change the state of its session
	Effect    Effect // on what its session is left with
	text      string
}

// Text is the conventions' db.query.summary: the statement's operations and what they are
// done to, in their order, or the name that the statement has in a comment.
func (s *Summary) Text() string { return s.text }

// Writes tells whether it changes rows.
func (s *Summary) Writes() bool {
	switch s.Operation {
	case "INSERT", "UPDATE", "DELETE", "REPLACE", "MERGE":
		return true
	}
	return false
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
	var first [mostTokens]string
	z := sanitiser{in: query, grammar: g, outline: newOutline(g), tokens: first[:0]}
	z.run()
	s := &Summary{
		Sanitised: z.shown(),
		Moves:     z.moves(),
		Effect:    z.effect(),
	}
	z.outline.finish(s)
	if name := nameIn(query); name != "" {
		s.text = strings.Clone(name)
	}
	return s
}

// nameIn is the name that a statement has in a comment that it begins with, as sqlc writes
// them: -- name: GetAuthor :one
func nameIn(query string) string {
	query = strings.TrimLeft(query, " \t\r\n")
	var line string
	switch {
	case strings.HasPrefix(query, "-- "):
		line, _, _ = strings.Cut(query[len("-- "):], "\n")
	case strings.HasPrefix(query, "/* "):
		line, _, _ = strings.Cut(query[len("/* "):], "*/")
	}
	words := strings.Fields(line[:min(len(line), maxSummary)])
	if len(words) != 3 || words[0] != "name:" || !isIdentifier(words[1]) {
		return ""
	}
	if kind, found := strings.CutPrefix(words[2], ":"); !found || !isIdentifier(kind) {
		return ""
	}
	return words[1]
}

// isIdentifier tells a name as a programmer gives one: letters and digits, and not many.
func isIdentifier(s string) bool {
	const longest = 64
	for i := range len(s) {
		if b := s[i]; b != '_' && (b|0x20 < 'a' || b|0x20 > 'z') && (i == 0 || !isDigit(b)) {
			return false
		}
	}
	return s != "" && len(s) <= longest
}
