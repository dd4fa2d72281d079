package sqllease

import (
	"maps"
	"strings"
	"sync"
	"sync/atomic"
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
	moves     bool   // running it may change the state of its session
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

	known atomic.Pointer[map[string]*described] // those that are found without a lock; the map is never written to

	mu     sync.Mutex
	fresh  map[string]*described // guarded by mu: those that came since; none of them is known
	wanted int                   // guarded by mu: how often since then a lock was needed to find one
}

const (
	mostSummaries  = 2048
	longestSummary = 4096 // bytes of a statement worth remembering
)

// of returns what is known of a statement.
func (c *summaries) of(query string) *described {
	if d := c.knownMap()[query]; d != nil {
		return d
	}
	if d := c.find(query); d != nil {
		return d
	}
	s := summarise(query, c.grammar)
	d := &described{summary: s, name: s.text()}
	if c.describe != nil {
		c.describe(d, query)
	}
	if len(query) <= longestSummary {
		c.remember(strings.Clone(query), d)
	}
	return d
}

func (c *summaries) knownMap() map[string]*described {
	if known := c.known.Load(); known != nil {
		return *known
	}
	return nil
}

// find looks among the fresh ones. Once a lock was needed half as often as there
// are statements, these are made known: to copy them costs no more than the locks did.
func (c *summaries) find(query string) *described {
	c.mu.Lock()
	defer c.mu.Unlock()
	d := c.fresh[query]
	if d == nil {
		return c.knownMap()[query] // it has just become known, or is not there
	}
	known := c.knownMap()
	if c.wanted++; 2*c.wanted >= len(known)+len(c.fresh) {
		all := make(map[string]*described, len(known)+len(c.fresh))
		maps.Copy(all, known)
		maps.Copy(all, c.fresh)
		c.known.Store(&all)
		c.fresh, c.wanted = nil, 0
	}
	return d
}

// remember makes a statement one of the fresh ones. Where there is no room,
// all are forgotten: starting over is cheap, and bounded.
func (c *summaries) remember(query string, d *described) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.knownMap()[query] != nil {
		return // somebody else was quicker
	}
	if len(c.knownMap())+len(c.fresh) >= mostSummaries {
		c.known.Store(nil)
		c.fresh, c.wanted = nil, 0
	}
	if c.fresh == nil {
		c.fresh = make(map[string]*described)
	}
	c.fresh[query] = d
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
		moves:     z.moves(),
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
