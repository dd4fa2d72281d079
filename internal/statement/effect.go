package statement

import "strings"

// Effect is what a statement does to its session that outlasts it. A session goes from one
// holder to the next, who does not expect it. Only what is certain is told: of what is not,
// that it is unclear. Of servers that are neither MySQL nor PostgreSQL, nor like them, it is
// not known.
type Effect struct {
	Act  Act
	Kind Kind
	Name string // of what Kind says, in lower case; of settings, with commas between them; empty: it has none, or all are meant
	Ends Ending // of the transaction that is open
}

// Lasts tells whether a statement may leave something.
func (e Effect) Lasts() bool { return e.Act == Leaves || e.Act == LeavesIfTrue || e.Act == Sets }

// Kind is what may be left on a session.
type Kind uint8

// What may be left on a session.
const (
	Nothing Kind = iota
	Transaction
	TableLock // of LOCK TABLES
	NamedLock // GET_LOCK, pg_advisory_lock
	Setting
	Database // USE
	Channel  // LISTEN
	TemporaryTable
	PreparedStatement // by PREPARE
)

// Act is what a statement does to what may be left.
type Act uint8

// What a statement does to it.
const (
	Keeps        Act = iota // nothing
	Leaves                  // it is left from now on
	LeavesIfTrue            // likewise, if the first value of the answer is true
	Sets                    // likewise, unless it was set before: that may undo it
	Undoes                  // what has this name is undone, or all of the kind
	UndoesOne               // one of the kind is
	UndoesAll               // all but the transaction is
	Reverts                 // what was done in the transaction may be undone
	Unclear                 // anything
)

// Ending is how a transaction ends.
type Ending uint8

// How a transaction ends.
const (
	NotEnded Ending = iota
	Committed
	RolledBack
)

// mostTokens is how many tokens of a statement the effect is told by.
const mostTokens = 24

// keeping are statements that change nothing of a session, and end no transaction.
var keeping = map[string]bool{
	"SELECT": true, "INSERT": true, "UPDATE": true, "DELETE": true, "REPLACE": true, "MERGE": true, "WITH": true, "VALUES": true, "TABLE": true,
	"SHOW": true, "DESCRIBE": true, "DESC": true, "EXPLAIN": true, "SAVEPOINT": true, "RELEASE": true,
}

// transactional are those of PostgreSQL, where they are a part of the transaction.
var transactional = map[string]bool{
	"CREATE": true, "ALTER": true, "DROP": true, "TRUNCATE": true, "COMMENT": true, "GRANT": true, "REVOKE": true, "ANALYZE": true, "LOCK": true,
	"COPY": true, "DECLARE": true, "FETCH": true, "MOVE": true, "CLOSE": true, "NOTIFY": true, "EXECUTE": true, "REFRESH": true,
}

// committing are those of MySQL, which ends the transaction before them.
var committing = map[string]bool{
	"CREATE": true, "ALTER": true, "DROP": true, "TRUNCATE": true, "RENAME": true, "GRANT": true, "REVOKE": true, "ANALYZE": true, "OPTIMIZE": true,
	"CHECK": true, "REPAIR": true, "FLUSH": true,
}

// effect is that of the statement that was read.
func (z *sanitiser) effect() Effect {
	if z.grammar == Unknown {
		return Effect{}
	}
	text, certain := z.single()
	if !certain || len(z.tokens) == 0 {
		return Effect{Act: Unclear}
	}
	t := tokens(z.tokens)
	for len(t) > 0 && t[len(t)-1] == ";" {
		t = t[:len(t)-1]
	}
	switch first := t.word(0); first {
	case "BEGIN", "START":
		return t.begins(z.grammar)
	case "COMMIT", "END", "ROLLBACK", "ABORT":
		return t.ends()
	case "SET":
		return t.sets(z.grammar)
	case "CREATE":
		return t.creates(z.grammar, text)
	case "DROP":
		return t.drops(z.grammar)
	case "ALTER": // which may rename one
		return Effect{Act: Undoes, Kind: TemporaryTable, Ends: implicit(z.grammar)}
	case "PREPARE", "DEALLOCATE":
		return t.prepares()
	case "SELECT", "DO":
		return t.calls(z.grammar, text)
	default:
		if e, known := t.only(z.grammar); known {
			return e
		}
		switch {
		case keeping[first]:
			return mentions(text)
		case z.grammar == PostgreSQL && transactional[first]:
			return Effect{}
		case z.grammar == MySQL && committing[first]:
			return Effect{Ends: Committed}
		}
		return Effect{Act: Unclear}
	}
}

// implicit is how a definition ends the transaction.
func implicit(g Grammar) Ending {
	if g == MySQL {
		return Committed
	}
	return NotEnded
}

// tokens are the first ones of a statement, as they are written.
type tokens []string

// word is a token in upper case; empty: there is none.
func (t tokens) word(i int) string {
	if i < 0 || i >= len(t) {
		return ""
	}
	return upperWord(t[i])
}

// has tells whether there is such a word behind the first.
func (t tokens) has(word string) bool {
	for i := range t {
		if i > 0 && t.word(i) == word {
			return true
		}
	}
	return false
}

// name is a token as a name is compared by.
func (t tokens) name(i int) string {
	if i >= len(t) {
		return ""
	}
	return strings.Clone(key(plain(t[i])))
}

// table is the name of a table, without that of its database or schema.
func (t tokens) table(i int) string {
	for t.word(i+1) == "." {
		i += 2
	}
	name := t.name(i)
	return name[strings.LastIndexByte(name, '.')+1:]
}

func (t tokens) begins(g Grammar) Effect {
	begun := Effect{Act: Leaves, Kind: Transaction}
	switch next := t.word(1); {
	case t.word(0) == "START" && next == "TRANSACTION", t.word(0) == "BEGIN" && (next == "" || next == "WORK" && len(t) == 2):
		return begun
	case t.word(0) == "BEGIN" && g == PostgreSQL:
		switch next {
		case "WORK", "TRANSACTION", "ISOLATION", "READ", "NOT", "DEFERRABLE":
			return begun
		}
	}
	return Effect{Act: Unclear} // a compound statement, or of replication
}

func (t tokens) ends() Effect {
	how := Committed
	if first := t.word(0); first == "ROLLBACK" || first == "ABORT" {
		how = RolledBack
	}
	switch {
	case t.word(1) == "PREPARED":
		return Effect{}
	case t.has("TO"), t.has("CHAIN") && !t.has("NO"): // another one begins
		if how == RolledBack {
			return Effect{Act: Reverts}
		}
		return Effect{}
	}
	return Effect{Ends: how}
}

// prepares is the effect of PREPARE and DEALLOCATE.
func (t tokens) prepares() Effect {
	e := Effect{Act: Leaves, Kind: PreparedStatement, Name: t.name(1)}
	if t.word(0) == "PREPARE" {
		if t.word(1) == "TRANSACTION" {
			return Effect{Ends: RolledBack} // it is the session's no more
		}
		return e
	}
	e.Act = Undoes
	if t.word(1) == "PREPARE" {
		e.Name = t.name(2)
	}
	if e.Name == "all" {
		e.Name = ""
	}
	return e
}

func (t tokens) creates(g Grammar, text string) Effect {
	i := 1
	for t.word(i) == "OR" || t.word(i) == "REPLACE" || t.word(i) == "GLOBAL" || t.word(i) == "LOCAL" {
		i++
	}
	if w := t.word(i); w != "TEMPORARY" && w != "TEMP" || t.word(i+1) != "TABLE" {
		return Effect{Ends: implicit(g)}
	}
	if i += 2; t.word(i) == "IF" {
		i += 3 // IF NOT EXISTS
	}
	if strings.Contains(strings.ToUpper(text), "ON COMMIT DROP") {
		return Effect{}
	}
	return Effect{Act: Leaves, Kind: TemporaryTable, Name: t.table(i)}
}

func (t tokens) drops(g Grammar) Effect {
	ends, i := implicit(g), 1
	if t.word(i) == "TEMPORARY" {
		ends = NotEnded
		i++
	}
	switch t.word(i) {
	case "PREPARE":
		return Effect{Act: Undoes, Kind: PreparedStatement, Name: t.name(i + 1)}
	case "TABLE", "TABLES":
	default:
		return Effect{Ends: ends}
	}
	if i++; t.word(i) == "IF" {
		i += 2
	}
	e := Effect{Act: Undoes, Kind: TemporaryTable, Name: t.table(i), Ends: ends}
	if t.has(",") {
		e.Name = ""
	}
	return e
}

// only is the effect of what one kind of server alone has.
func (t tokens) only(g Grammar) (e Effect, known bool) {
	if g == MySQL {
		return t.mysql()
	}
	return t.postgreSQL()
}

func (t tokens) mysql() (e Effect, known bool) {
	tables := t.word(1) == "TABLES" || t.word(1) == "TABLE"
	switch first := t.word(0); {
	case first == "USE":
		return Effect{Act: Sets, Kind: Database}, true
	case first == "LOCK" && tables:
		return Effect{Act: Leaves, Kind: TableLock, Ends: Committed}, true
	case first == "FLUSH" && tables && t.has("LOCK"):
		return Effect{Act: Leaves, Kind: TableLock, Ends: Committed}, true
	case first == "UNLOCK" && tables:
		return Effect{Act: Undoes, Kind: TableLock, Ends: Committed}, true
	}
	return e, false
}

func (t tokens) postgreSQL() (e Effect, known bool) {
	switch t.word(0) {
	case "LISTEN":
		return Effect{Act: Leaves, Kind: Channel, Name: t.name(1)}, true
	case "UNLISTEN":
		e = Effect{Act: Undoes, Kind: Channel, Name: t.name(1)}
		if e.Name == "*" {
			e.Name = ""
		}
		return e, true
	case "RESET":
		e = Effect{Act: Undoes, Kind: Setting, Name: t.name(1)}
		switch e.Name {
		case "all":
			e.Name = ""
		case "session":
			e.Name = "session authorization"
		case "time":
			e.Name = "timezone"
		}
		return e, true
	case "DISCARD":
		switch t.word(1) {
		case "ALL":
			return Effect{Act: UndoesAll}, true
		case "TEMP", "TEMPORARY":
			return Effect{Act: Undoes, Kind: TemporaryTable}, true
		}
		return e, true
	}
	return e, false
}

// locking are the functions that take locks which outlast a transaction, and that give
// them back.
var locking = map[Grammar]map[string]Effect{
	MySQL: {
		"get_lock":          {Act: LeavesIfTrue, Kind: NamedLock},
		"release_lock":      {Act: UndoesOne, Kind: NamedLock},
		"release_all_locks": {Act: Undoes, Kind: NamedLock},
	},
	PostgreSQL: {
		"pg_advisory_lock":            {Act: Leaves, Kind: NamedLock},
		"pg_advisory_lock_shared":     {Act: Leaves, Kind: NamedLock},
		"pg_try_advisory_lock":        {Act: LeavesIfTrue, Kind: NamedLock},
		"pg_try_advisory_lock_shared": {Act: LeavesIfTrue, Kind: NamedLock},
		"pg_advisory_unlock":          {Act: UndoesOne, Kind: NamedLock},
		"pg_advisory_unlock_shared":   {Act: UndoesOne, Kind: NamedLock},
		"pg_advisory_unlock_all":      {Act: Undoes, Kind: NamedLock},
	},
}

// calls is the effect of a SELECT: of one that calls such a function, and does nothing else.
func (t tokens) calls(g Grammar, text string) Effect {
	if t.word(0) == "DO" && g == PostgreSQL {
		return Effect{Act: Unclear}
	}
	e := locking[g][strings.TrimPrefix(t.name(1), "pg_catalog.")]
	if e.Act == Keeps || t.word(2) != "(" || !t.endsBehindCall() {
		return mentions(text)
	}
	return e
}

// endsBehindCall tells whether the statement ends behind the bracket that opens at the third
// token, but for a name of the result.
func (t tokens) endsBehindCall() bool {
	depth := 0
	for i := 2; i < len(t) && len(t) < mostTokens; i++ {
		switch t[i] {
		case "(":
			depth++
		case ")":
			depth--
		}
		if depth == 0 {
			rest := t[i+1:]
			if len(rest) == 2 && rest.word(0) == "AS" {
				rest = rest[1:]
			}
			return len(rest) == 0 || len(rest) == 1 && isName(rest[0])
		}
	}
	return false
}

// mentions is the effect of a query, which may call anything: what it may undo counts as
// undone.
func mentions(text string) Effect {
	switch text = strings.ToLower(text); {
	case strings.Contains(text, "release_lock"), strings.Contains(text, "release_all_locks"), strings.Contains(text, "pg_advisory_unlock"):
		return Effect{Act: Undoes, Kind: NamedLock}
	case strings.Contains(text, "set_config"):
		return Effect{Act: Undoes, Kind: Setting}
	}
	return Effect{}
}

// Usual tells, at a glance, that a statement leaves nothing on its session. It is asked for
// each call, so that it looks at a few letters of the first word only.
func Usual(query string) bool {
	const shortest = len("SELECT 1")
	if query != "" && (query[0] <= ' ' || query[0] == '-' || query[0] == '/') {
		var ok bool
		if query, ok = skipBlanks(query); !ok {
			return false
		}
	}
	if len(query) < shortest {
		return false
	}
	second, third := query[1]|lower, query[2]|lower
	switch query[0] | lower {
	case 's':
		return second == 'e' && third == 'l' && usualSelect(query)
	case 'i':
		return second == 'n'
	case 'u':
		return second == 'p'
	case 'd':
		return second == 'e' && third == 'l'
	case 'r':
		return second == 'e' && third == 'p'
	case 'w':
		return second == 'i'
	}
	return false
}

// lower makes a letter of ASCII a small one, and a letter of nothing else.
const lower = 0x20

// usualSelect tells it of a SELECT by what follows that word.
func usualSelect(query string) bool {
	rest := query[len("SELECT "):]
	if query[len("SELECT")] != ' ' || rest[0] <= '/' && rest[0] != '*' {
		var ok bool
		if rest, ok = skipBlanks(query[len("SELECT"):]); !ok || rest == "" {
			return false
		}
	}
	switch rest[0] | lower {
	case 'p':
		return len(rest) < 3 || rest[2] != '_' // pg_
	case 'g':
		return len(rest) < 4 || rest[3] != '_' // get_lock
	}
	return true
}

// skipBlanks skips white space and comments; false: where they end takes a closer look.
func skipBlanks(s string) (rest string, ok bool) {
	for s != "" {
		switch c := s[0]; {
		case c > '/':
			return s, true
		case c == ' ' || '\t' <= c && c <= '\r':
			s = s[1:]
		case c == '#':
			return s, false
		case strings.HasPrefix(s, "--"):
			line := s[:until(s, "\n")]
			if len(line) < 3 || line[2] != ' ' || strings.ContainsAny(strings.TrimRight(line, "\r\n"), "\r\x00") {
				return s, false
			}
			s = s[len(line):]
		case strings.HasPrefix(s, "/*"):
			n := 2 + until(s[2:], "*/")
			if n == 2 || strings.ContainsAny(s[2:3], "!+MT") || strings.Contains(s[2:n], "/*") {
				return s, false
			}
			s = s[n:]
		default:
			return s, true
		}
	}
	return s, true
}
