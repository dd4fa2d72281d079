package statement

import (
	"cmp"
	"strings"
	"unicode"
	"unicode/utf8"
)

// Other is the operation of a statement that begins with no keyword.
const Other = "OTHER"

// maxSummary is how many bytes the conventions let a summary have.
const maxSummary = 255

// outline is what a statement does to what: its operations, and behind each the tables or
// whatever else it is done to, in their order. It is given the tokens that the sanitiser
// emits, and shows nothing but names and keywords of them. What it does not understand it
// leaves out.
type outline struct {
	grammar Grammar
	text    []byte // a blank before each word
	last    int    // where in it the last operation begins
	prior   int    // and the one before
	full    bool   // the next word did not fit

	operation string
	target    string
	spare     string // the first table of a WITH's queries
	procedure string

	at     frame   // where it is
	around []frame // the brackets around it
	deeper int     // brackets within more of them than are looked into
	before string  // the keyword that came last; empty: something else did

	name    string          // one that is read, and of which the next token tells what it is
	dotted  bool            // a dot has come behind it
	bracket bracketed       // a name of SQL Server's
	commons map[string]bool // the names of a WITH's queries, which are no tables
	done    bool            // nothing else is shown
}

// frame is where in a statement, or in a bracket of it, the outline is.
type frame struct {
	start     bool   // nothing has come
	operation string // empty: it is an expression
	rule      rule
	next      place  // what the next name is of
	list      place  // what a comma brings
	from      bool   // FROM has come
	tables    bool   // it is a bracket in a list of tables
	withs     bool   // in a WITH, before what follows it
	recursive bool   // queries of the WITH may name themselves
	common    string // the query of the WITH that was named last, or whose bracket this is
	within    bool   // it is a part of a WITH's query
	object    string // what is defined
}

func newOutline(g Grammar) outline { return outline{grammar: g, at: frame{start: true}} }

// pass takes notice of a token.
func (o *outline) pass(token string) {
	if o.done || o.inBrackets(&token) || o.goesOn(token) {
		return
	}
	word := keyword(token)
	if word == "" && o.indifferent(token) {
		o.before = ""
		return
	}
	switch token {
	case ";":
		o.at, o.around, o.deeper, o.commons = frame{start: true}, o.around[:0], 0, nil
	case "(":
		o.open()
	case ")":
		o.close()
	default:
		o.read(token, word)
	}
	o.before = word
}

// indifferent tells a token that says nothing where it is: most do not.
func (o *outline) indifferent(token string) bool {
	return o.deeper == 0 && o.at.next == noName && !o.at.start && token != "(" && token != ")" && token != "," && token != ";"
}

// finish tells what was found out.
func (o *outline) finish(s *Summary) {
	o.settle("")
	if o.operation == "" {
		o.operation = Other
		if o.at.withs {
			o.operation = "WITH"
		}
		o.begins(o.operation)
	}
	o.fold()
	s.Operation, s.Target, s.Procedure = o.operation, cmp.Or(o.target, o.spare), o.procedure
	s.text = string(o.text[1:])
}

// read takes notice of a token that is no bracket.
func (o *outline) read(token, word string) {
	f := &o.at
	first := f.start
	f.start = false
	switch {
	case f.rule.silent || o.deeper > 0:
	case o.isOperation(word, first):
		o.begin(word)
	case first && o.operation == "" && !f.within:
		o.begin(Other)
	case token == ",":
		o.comma()
	case f.next == objectWord && isName(token):
		o.define(word)
	case f.next == noName || roles[word]&reserved != 0 || !isName(token):
		o.lead(token, word)
	case roles[word]&modifier != 0:
	case f.next == queryName:
		o.declare(token, word)
	default:
		o.name = plain(token)
	}
}

// isOperation tells whether a keyword begins a statement, or a part of one that counts as one.
func (o *outline) isOperation(word string, first bool) bool {
	f := &o.at
	switch {
	case word == "SELECT":
		return true
	case first && len(o.around) == 0, first && o.operation == "" && !f.within:
		return operations[word]
	case word == "WITH":
		return first || f.rule.leads || o.before == "AS" || f.rule.into && f.next == noName && f.operation != "SELECT"
	case first && f.common != "", f.rule.leads, f.withs:
		return roles[word]&query != 0
	}
	return false
}

// begin takes notice of an operation.
func (o *outline) begin(word string) {
	f := &o.at
	f.operation, f.rule, f.from = word, rules[word], false
	if word == "EXECUTE" && o.grammar == Unknown {
		f.rule = rules["EXEC"] // elsewhere it is of a prepared statement
	}
	f.next, f.list, f.withs = f.rule.first, noName, word == "WITH"
	if f.rule.list {
		f.list = f.rule.first
	}
	if f.withs {
		return
	}
	if o.operation == "" && !f.within {
		o.operation = word
		o.spare, o.target = o.target, ""
	}
	o.begins(word)
}

// comma takes notice of a comma that is in no bracket.
func (o *outline) comma() {
	f := &o.at
	f.next = f.list
	if f.withs {
		f.next = queryName
	}
}

// define takes notice of a word of a definition: what is defined may come behind some others.
func (o *outline) define(word string) {
	f := &o.at
	next, known := objects[word]
	if !known {
		return
	}
	o.show(word)
	f.object, f.next = word, next
	f.rule.silent = next == noName
	if f.rule.list {
		f.list = next
	}
}

// lead takes notice of a keyword that tells what the next name is, and of what is none.
func (o *outline) lead(token, word string) {
	f := &o.at
	if f.next == procedureName && (token[0] == '@' || token == "=") || f.next == objectWord {
		return // EXEC @answer = p; DEFINER = bob
	}
	f.next = noName
	switch {
	case word == "FROM" && f.rule.from && o.before != "DISTINCT": // IS DISTINCT FROM
		f.next, f.list, f.from = tableName, tableName, true
	case word == "USING" && f.rule.using, word == "INTO" && f.rule.into, word == "TABLE":
		f.next = tableName
	case word == "JOIN" || word == "STRAIGHT_JOIN" || word == "APPLY":
		if f.inTables() && o.before != "FOR" { // USE INDEX FOR JOIN
			f.next = tableName
		}
	case word == "CURSOR" && f.operation == "DECLARE":
		o.show(word)
	case roles[word]&last != 0:
		f.list = noName
	}
}

// inTables tells whether JOIN is followed by a table.
func (f *frame) inTables() bool { return f.from || f.tables || f.list == tableName }

// declare takes notice of the name of a WITH's query. Within that query, the name is that of
// a table, unless it is recursive, which some servers want to be told.
func (o *outline) declare(token, word string) {
	f := &o.at
	if word == "RECURSIVE" && o.before == "WITH" {
		f.recursive = true
		return
	}
	f.common, f.next = key(plain(token)), noName
	if f.recursive || o.grammar == Unknown {
		o.know(f.common)
	}
}

func (o *outline) know(name string) {
	if o.commons == nil {
		o.commons = map[string]bool{}
	}
	o.commons[name] = true
}

// open takes notice of a bracket that opens.
func (o *outline) open() {
	f := &o.at
	const deepest = 64
	if len(o.around) == deepest {
		o.deeper++
		return
	}
	inner := frame{start: !f.withs, within: f.within, rule: rule{silent: f.rule.silent}}
	switch {
	case f.withs && (o.before == "AS" || o.before == "MATERIALIZED"):
		inner.start, inner.common, inner.within = true, f.common, true
	case f.next == tableName && f.inTables() && o.before != "USING" && o.before != "TOP":
		inner.tables, inner.next, inner.list = true, tableName, tableName
	}
	if f.next == queryName { // WITH (NOLOCK)
		f.withs = false
	}
	if o.before != "TOP" {
		f.next = noName
	}
	f.start = false
	o.around = append(o.around, o.at)
	o.at = inner
}

// close takes notice of a bracket that closes.
func (o *outline) close() {
	switch {
	case o.deeper > 0:
		o.deeper--
		return
	case len(o.around) == 0:
		return
	}
	if o.at.common != "" && !o.at.withs {
		o.know(o.at.common)
	}
	o.at = o.around[len(o.around)-1]
	o.around = o.around[:len(o.around)-1]
}

// goesOn tells whether a token belongs to the name that is being read. If it does not, it
// tells what that is of.
func (o *outline) goesOn(token string) bool {
	switch {
	case o.name == "":
		return false
	case token == "." && !o.dotted:
		o.dotted = true
		return true
	case o.dotted && isName(token):
		o.dotted = false
		if len(o.name) <= maxSummary {
			o.name += "." + plain(token)
		}
		return true
	}
	o.settle(token)
	return false
}

// settle takes notice of a name. Which token comes behind it tells what it is of.
func (o *outline) settle(token string) {
	f, name, cut := &o.at, o.name, o.dotted
	if name == "" {
		return
	}
	o.name, o.dotted = "", false
	is := f.next
	f.next = noName
	word := keyword(token)
	switch {
	case cut || len(name) > maxSummary,
		f.operation == "DELETE" && !f.from && (word == "FROM" || token == ","), // what its FROM explains
		f.operation == "EXECUTE" && word == "USING",                            // a prepared statement
		is == tableName && o.commons[key(name)]:
		return
	}
	name = strings.ToValidUTF8(name, "\uFFFD")
	o.show(name)
	switch {
	case is == tableName && o.target == "" && (token != "(" || !f.from && !f.tables): // else it is a function
		o.target = strings.Clone(name)
	case is == procedureName:
		o.procedure = strings.Clone(name)
	}
	f.rule.silent = f.operation == "ALTER"
	o.done = programs[f.object] && f.operation != "DROP"
}

// begins begins the summary of another operation.
func (o *outline) begins(operation string) {
	o.fold()
	o.last = len(o.text)
	o.show(operation)
}

// fold leaves out what the last operation does, if it is the same as that of the one before:
// how many of them there are would make many summaries.
func (o *outline) fold() {
	if string(o.text[o.prior:o.last]) == string(o.text[o.last:]) {
		o.text = o.text[:o.last]
		return
	}
	o.prior = o.last
}

// show adds a word to the summary, which ends where one does not fit.
func (o *outline) show(word string) {
	o.full = o.full || len(o.text)+len(word) > maxSummary
	if o.full {
		return
	}
	o.text = append(o.text, ' ')
	o.text = append(o.text, word...)
}

// bracketed is a name in brackets that is being read: of several words, if blanks are in it.
type bracketed struct {
	open bool
	name string
	ok   bool
}

// inBrackets tells whether a token is a part of a name in brackets. The last becomes the
// whole of it.
func (o *outline) inBrackets(token *string) bool {
	b := &o.bracket
	switch {
	case !b.open && *token == "[" && o.grammar == Unknown && o.wantsName():
		*b = bracketed{open: true, ok: true}
		return true
	case !b.open:
		return false
	case *token == "]":
		b.open = false
		*token = "?"
		if b.ok && b.name != "" {
			*token = "[" + b.name[1:] + "]"
		}
		return false
	}
	b.ok = b.ok && isName(*token) && len(b.name)+len(*token) <= maxSummary
	if b.ok {
		b.name += " " + *token
	}
	return true
}

func (o *outline) wantsName() bool {
	if o.name != "" {
		return o.dotted
	}
	return o.at.next != noName && o.at.next != objectWord
}

// plain is a name without its quotes, if it is a single word that needs none.
func plain(name string) string {
	inner := strings.Trim(name, "`\"[]")
	if inner == "" || len(inner)+2 != len(name) || strings.ContainsFunc(inner, func(r rune) bool { return !isWord(r) && r != '$' }) {
		return name
	}
	return inner
}

// key is what a name is compared by.
func key(name string) string { return strings.ToLower(name) }

// isName tells whether a token is a name, or a keyword.
func isName(token string) bool {
	r, size := utf8.DecodeRuneInString(token)
	return r == '_' || unicode.IsLetter(r) || len(token) > size && (r == '`' || r == '"' || r == '[')
}
