package statement

import "strings"

// still are the statements that leave a session as it was: how the server understands
// the texts that it is given afterwards does not depend on them.
var still = map[string]bool{
	"SELECT": true, "INSERT": true, "UPDATE": true, "DELETE": true, "REPLACE": true, "MERGE": true,
	"WITH": true, "VALUES": true, "TABLE": true, "SHOW": true, "DESCRIBE": true, "DESC": true,
	"BEGIN": true, "START": true, "SAVEPOINT": true, "RELEASE": true,
}

// intoTable are those of them in which INTO says no more than where the rows go.
var intoTable = map[string]bool{"INSERT": true, "REPLACE": true, "MERGE": true}

// moves tells whether running a statement may change the state of its session: whether
// a text means the same to the server before it and after. That is so unless the
// statement is known not to: of SET, USE, DDL, CALL and all that is not known, it is.
// What functions do to a session, such as PostgreSQL's set_config, cannot be seen.
func (z *sanitiser) moves() bool {
	text, certain := z.single()
	words := strings.FieldsFunc(text, func(r rune) bool { return r == ' ' || r == '(' || r == ')' || r == ',' })
	if !certain || len(words) == 0 {
		return true
	}
	first := strings.ToUpper(words[0])
	return !still[first] || !intoTable[first] && containsFold(words, "INTO")
}

// single is the statement that was read, if it is a single one and all of it is understood.
func (z *sanitiser) single() (text string, certain bool) {
	if z.hidden || strings.Contains(z.in, "/*!") || strings.Contains(z.in, "/*M!") || strings.Contains(z.in, "/*T!") {
		return "", false
	}
	text = strings.TrimRight(z.out.String(), "; ")
	return text, !strings.Contains(text, ";")
}

// containsFold tells whether a word is among others, in any case.
func containsFold(words []string, word string) bool {
	for _, w := range words {
		if strings.EqualFold(w, word) {
			return true
		}
	}
	return false
}
