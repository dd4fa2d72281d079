package statement

import (
	"maps"
	"slices"
	"strings"
)

// TakesComment tells whether a comment can be appended to a statement, and says something
// there: one with a comment of its own is left as it is, and so is what does not begin as
// SQL does, of which operation is Other.
func TakesComment(query, operation string) bool {
	body := trimmed(query)
	switch {
	case body == "" || strings.Contains(body, "/*") || strings.Contains(body, "--") || strings.Contains(body, "#"):
		return false // a comment in a comment, or behind one, says nothing
	case !strings.ContainsAny(body, " \t\r\n") || operation == Other:
		return false // the name of a procedure or of a prepared statement, or what is no SQL
	}
	return true
}

// WithComment appends tags to a statement that takes a comment, in the format of
// sqlcommenter (https://google.github.io/sqlcommenter/spec/): sorted pairs of key='value',
// percent-encoded. Those without a key are left out.
func WithComment(query string, tags map[string]string) string {
	pairs := make([]string, 0, len(tags))
	for _, key := range slices.Sorted(maps.Keys(tags)) {
		if key != "" {
			pairs = append(pairs, encoded(key)+"='"+encoded(tags[key])+"'")
		}
	}
	if len(pairs) == 0 {
		return query
	}
	body := trimmed(query)
	return body + " /*" + strings.Join(pairs, ",") + "*/" + query[len(body):]
}

// trimmed is a statement without what may stand behind it.
func trimmed(query string) string { return strings.TrimRight(query, "; \t\r\n") }

// encoded writes every byte but letters, digits and -._~ as %XX: what is left
// can neither end a comment nor begin one that a server executes.
func encoded(s string) string {
	const hex = "0123456789ABCDEF"
	var b strings.Builder
	for i := range len(s) {
		switch ch := s[i]; {
		case 'a' <= ch && ch <= 'z', 'A' <= ch && ch <= 'Z', '0' <= ch && ch <= '9', strings.IndexByte("-._~", ch) >= 0:
			b.WriteByte(ch)
		default:
			b.Write([]byte{'%', hex[ch>>4], hex[ch&15]})
		}
	}
	return b.String()
}
