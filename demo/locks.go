package main

import (
	"net"
	"regexp"
	"strings"

	engine "github.com/dolthub/go-mysql-server"
	enginesql "github.com/dolthub/go-mysql-server/sql"
	"github.com/dolthub/go-mysql-server/sql/types"
)

// This file is what the embedded server tells of its locks. MySQL has that in a
// database named performance_schema, which go-mysql-server lacks. So here it is: the
// tables and columns that sqllease asks for. Their rows are made at the time of the
// question, from what the engine knows: its connections, what they execute, and who
// has which lock of GET_LOCK. Nobody waits for anything else in this engine, and it
// keeps no statement that is over. So the other tables are empty.

// performanceSchema is that database.
type performanceSchema struct {
	engine *engine.Engine // set before the first question
	tables map[string]*stateTable
}

func newPerformanceSchema() *performanceSchema {
	s := &performanceSchema{}
	s.tables = map[string]*stateTable{
		"threads": {rows: s.threads, columns: []column{
			{"THREAD_ID", types.Uint64}, {"PROCESSLIST_ID", types.Uint64}, {"PROCESSLIST_USER", types.LongText}, {"PROCESSLIST_HOST", types.LongText},
			{"PROCESSLIST_COMMAND", types.LongText}, {"PROCESSLIST_TIME", types.Uint64}, {"PROCESSLIST_STATE", types.LongText}, {"PROCESSLIST_INFO", types.LongText},
		}},
		"metadata_locks": {rows: s.metadataLocks, columns: []column{
			{"OBJECT_TYPE", types.LongText}, {"OBJECT_SCHEMA", types.LongText}, {"OBJECT_NAME", types.LongText},
			{"LOCK_TYPE", types.LongText}, {"LOCK_STATUS", types.LongText}, {"OWNER_THREAD_ID", types.Uint64},
		}},
		"data_lock_waits": {columns: []column{
			{"REQUESTING_ENGINE_LOCK_ID", types.LongText}, {"REQUESTING_THREAD_ID", types.Uint64}, {"BLOCKING_THREAD_ID", types.Uint64},
		}},
		"data_locks": {columns: []column{
			{"ENGINE_LOCK_ID", types.LongText}, {"LOCK_TYPE", types.LongText}, {"OBJECT_SCHEMA", types.LongText}, {"OBJECT_NAME", types.LongText},
		}},
		"session_connect_attrs": {columns: []column{
			{"PROCESSLIST_ID", types.Uint64}, {"ATTR_NAME", types.LongText}, {"ATTR_VALUE", types.LongText},
		}},
		"events_statements_current": {columns: []column{
			{"THREAD_ID", types.Uint64}, {"EVENT_ID", types.Uint64}, {"SQL_TEXT", types.LongText},
		}},
		"events_transactions_current": {columns: []column{
			{"THREAD_ID", types.Uint64}, {"STATE", types.LongText},
		}},
	}
	for name, t := range s.tables {
		t.name = name
	}
	return s
}

// attach lets the tables tell of an engine, which says from now on that it has them.
func (s *performanceSchema) attach(eng *engine.Engine) error {
	s.engine = eng
	return enginesql.SystemVariables.AssignValues(map[string]any{"performance_schema": int8(1)})
}

// Name is of enginesql.Database, as are the next two.
func (s *performanceSchema) Name() string { return "performance_schema" }

func (s *performanceSchema) GetTableInsensitive(_ *enginesql.Context, name string) (enginesql.Table, bool, error) {
	t, found := s.tables[strings.ToLower(name)]
	return t, found, nil
}

func (s *performanceSchema) GetTableNames(*enginesql.Context) ([]string, error) {
	return sortedKeys(s.tables), nil
}

// threads has a row for each connection. What MySQL calls a thread is one here.
func (s *performanceSchema) threads() (rows []enginesql.Row) {
	waits := s.lockWaits()
	for _, p := range s.engine.ProcessList.Processes() {
		host, _, err := net.SplitHostPort(p.Host)
		if err != nil {
			host = p.Host
		}
		var state, statement any // NULL, unless there is one
		if _, waits := waits[p.Connection]; waits {
			state = "User lock"
		}
		if p.Query != "" {
			statement = p.Query
		}
		id := uint64(p.Connection)
		rows = append(rows, enginesql.Row{id, id, p.User, host, string(p.Command), p.Seconds(), state, statement})
	}
	return rows
}

// metadataLocks has a row for each connection that waits for a lock, and one for who has
// it. The engine keeps no list of its locks: those that nobody waits for are not here.
func (s *performanceSchema) metadataLocks() (rows []enginesql.Row) {
	row := func(name, status string, of uint32) enginesql.Row {
		return enginesql.Row{"USER LEVEL LOCK", nil, name, "EXCLUSIVE", status, uint64(of)}
	}
	holders := map[string]uint32{}
	for waiter, w := range s.lockWaits() {
		rows = append(rows, row(w.lock, "PENDING", waiter))
		holders[w.lock] = w.holder
	}
	for lock, holder := range holders {
		rows = append(rows, row(lock, "GRANTED", holder))
	}
	return rows
}

// lockWait is what one connection waits for.
type lockWait struct {
	lock   string
	holder uint32 // the connection that has it
}

// lockWaits are the connections that wait in GET_LOCK.
func (s *performanceSchema) lockWaits() map[uint32]lockWait {
	waits := map[uint32]lockWait{}
	for _, p := range s.engine.ProcessList.Processes() {
		m := inGetLock.FindStringSubmatch(p.Query)
		if m == nil {
			continue
		}
		state, holder := s.engine.LS.GetLockState(m[1])
		if state == enginesql.LockInUse && holder != p.Connection {
			waits[p.Connection] = lockWait{m[1], holder}
		}
	}
	return waits
}

// inGetLock finds the name of the lock that a statement asks for.
var inGetLock = regexp.MustCompile(`(?i)\bGET_LOCK\s*\(\s*'([^'\\]+)'`)

// stateTable is a table whose rows are made when it is read.
type stateTable struct {
	name    string
	columns []column
	rows    func() []enginesql.Row // nil: there are none
}

type column struct {
	name string
	of   enginesql.Type
}

// Name is of enginesql.Table, as are the next five.
func (t *stateTable) Name() string { return t.name }

func (t *stateTable) String() string { return t.name }

func (t *stateTable) Schema() (schema enginesql.Schema) {
	for _, c := range t.columns {
		schema = append(schema, &enginesql.Column{Name: c.name, Type: c.of, Nullable: true, Source: t.name})
	}
	return schema
}

func (t *stateTable) Collation() enginesql.CollationID { return enginesql.Collation_Default }

func (t *stateTable) Partitions(*enginesql.Context) (enginesql.PartitionIter, error) {
	return enginesql.PartitionsToPartitionIter(whole{}), nil
}

func (t *stateTable) PartitionRows(*enginesql.Context, enginesql.Partition) (enginesql.RowIter, error) {
	if t.rows == nil {
		return enginesql.RowsToRowIter(), nil
	}
	return enginesql.RowsToRowIter(t.rows()...), nil
}

// whole is the only partition of a table.
type whole struct{}

func (whole) Key() []byte { return []byte("whole") }
