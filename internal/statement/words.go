package statement

// operations are the keywords that may name an operation. There are few, so
// that they are fit for a metric; everything else is Other.
var operations = map[string]bool{
	"SELECT": true, "INSERT": true, "UPDATE": true, "DELETE": true, "REPLACE": true, "MERGE": true, "WITH": true,
	"CREATE": true, "ALTER": true, "DROP": true, "TRUNCATE": true, "CALL": true, "DO": true, "EXEC": true, "SET": true,
	"SHOW": true, "EXPLAIN": true, "ANALYZE": true, "BEGIN": true, "START": true, "COMMIT": true, "ROLLBACK": true,
	"SAVEPOINT": true, "RELEASE": true, "LOCK": true, "UNLOCK": true, "COPY": true, "LOAD": true, "LISTEN": true,
	"NOTIFY": true, "VALUES": true, "TABLE": true, "PRAGMA": true, "VACUUM": true, "USE": true, "KILL": true,
	"GRANT": true, "REVOKE": true, "PREPARE": true, "EXECUTE": true, "DEALLOCATE": true, "FETCH": true,
	"DECLARE": true, "CLOSE": true, "UPSERT": true,
}

// place is what the next name is of.
type place uint8

const (
	noName        place = iota
	tableName           // that is read or written
	otherName           // something else that is shown
	procedureName       // that is called
	objectWord          // no name yet, but a word for what is defined
	queryName           // a query of a WITH
)

// rule is how a statement with some operation is read.
type rule struct {
	first  place // what the first name is of
	list   bool  // commas bring more of them
	from   bool  // FROM brings tables, and so does what follows it
	using  bool  // USING does
	into   bool  // INTO brings one
	leads  bool  // another statement follows
	silent bool  // nothing else of it is shown
}

var rules = map[string]rule{
	"SELECT":   {from: true, into: true},
	"INSERT":   {first: tableName, into: true},
	"REPLACE":  {first: tableName, into: true},
	"UPSERT":   {first: tableName, into: true},
	"MERGE":    {first: tableName, into: true, using: true},
	"UPDATE":   {first: tableName, list: true, from: true},
	"DELETE":   {first: tableName, list: true, from: true, using: true},
	"TRUNCATE": {first: tableName, list: true},
	"LOCK":     {first: tableName, list: true},
	"TABLE":    {first: tableName},
	"COPY":     {first: tableName},
	"LOAD":     {into: true},
	"WITH":     {first: queryName},
	"CALL":     {first: procedureName},
	"EXEC":     {first: procedureName},
	"CREATE":   {first: objectWord},
	"ALTER":    {first: objectWord},
	"DROP":     {first: objectWord, list: true},
	"DECLARE":  {first: otherName},
	"CLOSE":    {first: otherName},
	"EXPLAIN":  {leads: true},
	"PREPARE":  {leads: true},
	"GRANT":    {silent: true},
	"REVOKE":   {silent: true},
	"SHOW":     {silent: true},
}

// objects are what a definition may be of, and what the name behind it is: none where it
// may be a person's.
var objects = map[string]place{
	"TABLE": tableName, "VIEW": otherName, "INDEX": otherName, "SEQUENCE": otherName, "SCHEMA": otherName, "DATABASE": otherName, "TYPE": otherName,
	"DOMAIN": otherName, "EXTENSION": otherName, "POLICY": otherName, "SYNONYM": otherName, "PUBLICATION": otherName, "SUBSCRIPTION": otherName,
	"TABLESPACE": otherName, "STATISTICS": otherName, "FUNCTION": otherName, "PROCEDURE": otherName, "TRIGGER": otherName, "EVENT": otherName,
	"PACKAGE": otherName, "RULE": otherName,
	"USER": noName, "ROLE": noName, "GROUP": noName, "LOGIN": noName, "SYSTEM": noName, "SESSION": noName,
}

// programs are the objects that consist of statements, which are not run now.
var programs = map[string]bool{"FUNCTION": true, "PROCEDURE": true, "TRIGGER": true, "EVENT": true, "PACKAGE": true, "RULE": true}

// role is what else a keyword does.
type role uint8

const (
	query    role = 1 << iota // begins a statement that may be a part of another
	modifier                  // may stand between a keyword and the name
	reserved                  // is no name
	last                      // ends a list of tables
)

var roles = map[string]role{
	"SELECT": query | reserved | last, "VALUES": query | reserved | last, "INSERT": query | reserved, "UPDATE": query | reserved,
	"DELETE": query | reserved, "MERGE": query | reserved, "UPSERT": query | reserved, "REPLACE": query | modifier,
	"WITH": query | reserved,

	"TABLE": modifier, "TABLES": modifier, "ONLY": modifier, "LATERAL": modifier, "LOW_PRIORITY": modifier, "HIGH_PRIORITY": modifier,
	"DELAYED": modifier, "IGNORE": modifier, "QUICK": modifier, "IF": modifier, "NOT": modifier, "EXISTS": modifier,
	"CONCURRENTLY": modifier, "OR": modifier, "TOP": modifier, "OVERWRITE": modifier, "TEMP": modifier, "TEMPORARY": modifier,
	"UNLOGGED": modifier,

	"FROM": reserved, "JOIN": reserved, "STRAIGHT_JOIN": reserved, "APPLY": reserved, "INTO": reserved, "USING": reserved, "AS": reserved,
	"ON": reserved, "OUTFILE": reserved, "DUMPFILE": reserved, "IMMEDIATE": reserved,

	"SET": reserved | last, "WHERE": reserved | last, "GROUP": last, "ORDER": last, "HAVING": last, "LIMIT": last, "OFFSET": last,
	"FETCH": last, "WINDOW": last, "UNION": last, "EXCEPT": last, "INTERSECT": last, "MINUS": last, "RETURNING": last,
	"OUTPUT": last, "FOR": last, "OPTION": last, "CONNECT": last, "START": last, "QUALIFY": last,

	"RECURSIVE": 0, "MATERIALIZED": 0, "DISTINCT": 0, "CURSOR": 0, // asked for by name
}

const longestKeyword = len("STRAIGHT_JOIN")

// keywords are all of these, in upper case.
var keywords = func() map[string]string {
	all := map[string]string{}
	for word := range operations {
		all[word] = word
	}
	for word := range objects {
		all[word] = word
	}
	for word := range roles {
		all[word] = word
	}
	return all
}()

// keyword is the keyword that a token is, in upper case, or empty.
func keyword(token string) string {
	var upper [longestKeyword]byte
	if len(token) < len("AS") || len(token) > len(upper) {
		return ""
	}
	for i := range len(token) {
		upper[i] = token[i]
		if 'a' <= token[i] && token[i] <= 'z' {
			upper[i] -= 'a' - 'A'
		}
	}
	return keywords[string(upper[:len(token)])]
}
