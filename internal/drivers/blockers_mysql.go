package drivers

import (
	"context"
	"database/sql/driver"
	"encoding/hex"
	"fmt"
	"regexp"
	"slices"
	"strings"

	"github.com/sqllease/sqllease/internal/bare"
)

// mysqlLocks asks MySQL and MariaDB, which differ in nearly all of it. MySQL has a table of
// each kind of wait, which the user must be allowed to read. MariaDB shows the waits for rows
// to who has PROCESS; who has a metadata lock is seen only with its performance schema, which
// is off by default, or with a plugin that is not installed by default. The holder of one
// named lock can be asked for by its name.
//
//   - MySQL: https://dev.mysql.com/doc/refman/8.4/en/performance-schema-data-lock-waits-table.html
//   - MySQL: https://dev.mysql.com/doc/refman/8.4/en/performance-schema-metadata-locks-table.html
//   - MySQL: https://dev.mysql.com/doc/refman/8.4/en/performance-schema-threads-table.html
//   - MariaDB: https://mariadb.com/kb/en/information-schema-innodb_lock_waits-table/
//   - MariaDB: https://mariadb.com/kb/en/metadata-lock-info-plugin/
//   - both: https://mariadb.com/kb/en/is_used_lock/
var mysqlLocks = &Locks{"SELECT CONNECTION_ID()", askMySQL, "KILL %d"}

// The number is in a longer statement here: a proxy that answers CONNECTION_ID() itself does
// not answer this.
const mysqlSelf = "SELECT CONNECTION_ID(), VERSION(), CURRENT_USER(), @@performance_schema, USER()"

const (
	mysqlRowLocks = `SELECT r.PROCESSLIST_ID, b.PROCESSLIST_ID, l.LOCK_TYPE, CONCAT(l.OBJECT_SCHEMA, '.', l.OBJECT_NAME)
FROM performance_schema.data_lock_waits w
JOIN performance_schema.threads r ON r.THREAD_ID = w.REQUESTING_THREAD_ID
LEFT JOIN performance_schema.threads b ON b.THREAD_ID = w.BLOCKING_THREAD_ID
LEFT JOIN performance_schema.data_locks l ON l.ENGINE_LOCK_ID = w.REQUESTING_ENGINE_LOCK_ID`

	// also of MySQL before version 8
	mariaRowLocks = `SELECT r.trx_mysql_thread_id, b.trx_mysql_thread_id, l.lock_type, l.lock_table
FROM information_schema.INNODB_LOCK_WAITS w
JOIN information_schema.INNODB_TRX r ON r.trx_id = w.requesting_trx_id
JOIN information_schema.INNODB_TRX b ON b.trx_id = w.blocking_trx_id
LEFT JOIN information_schema.INNODB_LOCKS l ON l.lock_id = w.requested_lock_id`

	mysqlMetadataLocks = `SELECT t.PROCESSLIST_ID, m.OBJECT_TYPE, CONCAT_WS('.', m.OBJECT_SCHEMA, m.OBJECT_NAME), m.LOCK_TYPE, m.LOCK_STATUS
FROM performance_schema.metadata_locks m JOIN performance_schema.threads t ON t.THREAD_ID = m.OWNER_THREAD_ID
WHERE EXISTS (SELECT 1 FROM performance_schema.metadata_locks p WHERE p.LOCK_STATUS = 'PENDING'
	AND p.OBJECT_TYPE = m.OBJECT_TYPE AND p.OBJECT_SCHEMA <=> m.OBJECT_SCHEMA AND p.OBJECT_NAME <=> m.OBJECT_NAME)`

	// It has the locks that were granted; what others wait for is not in it.
	mariaMetadataLocks = `SELECT THREAD_ID, LOCK_TYPE, CONCAT_WS('.', NULLIF(TABLE_SCHEMA, ''), NULLIF(TABLE_NAME, '')), LOCK_MODE, 'GRANTED'
FROM information_schema.METADATA_LOCK_INFO`

	mariaWaiters = `SELECT ID, STATE, INFO FROM information_schema.PROCESSLIST
WHERE STATE LIKE 'Waiting for %lock%' OR STATE = 'User lock' ORDER BY ID`

	mysqlProcesses = `SELECT t.PROCESSLIST_ID, t.PROCESSLIST_USER, t.PROCESSLIST_HOST,
	(SELECT a.ATTR_VALUE FROM performance_schema.session_connect_attrs a WHERE a.PROCESSLIST_ID = t.PROCESSLIST_ID AND a.ATTR_NAME = 'program_name' LIMIT 1),
	t.PROCESSLIST_COMMAND, t.PROCESSLIST_TIME, t.PROCESSLIST_STATE,
	COALESCE(t.PROCESSLIST_INFO, (SELECT e.SQL_TEXT FROM performance_schema.events_statements_current e WHERE e.THREAD_ID = t.THREAD_ID ORDER BY e.EVENT_ID LIMIT 1)),
	(SELECT x.STATE FROM performance_schema.events_transactions_current x WHERE x.THREAD_ID = t.THREAD_ID AND x.STATE = 'ACTIVE' LIMIT 1)
FROM performance_schema.threads t WHERE t.PROCESSLIST_ID IN (%s)`

	mariaProcesses = `SELECT p.ID, p.USER, p.HOST, NULL, p.COMMAND, p.TIME_MS / 1000, p.STATE, p.INFO, t.trx_state
FROM information_schema.PROCESSLIST p LEFT JOIN information_schema.INNODB_TRX t ON t.trx_mysql_thread_id = p.ID WHERE p.ID IN (%s)`

	// for who may not see transactions
	mariaOwnProcesses = `SELECT ID, USER, HOST, NULL, COMMAND, TIME_MS / 1000, STATE, INFO, NULL FROM information_schema.PROCESSLIST WHERE ID IN (%s)`
)

// mysqlAsker asks one server.
type mysqlAsker struct {
	ctx   context.Context
	conn  driver.Conn
	found *Waiting
	user  string // for GRANT
	maria bool
	old   bool // MySQL before version 8
}

func askMySQL(ctx context.Context, conn driver.Conn, of []uint64) (*Waiting, error) {
	rows, err := bare.QueryRows(ctx, conn, mysqlSelf, 1)
	if err != nil {
		return nil, err
	}
	if len(rows) == 0 || len(rows[0]) < 5 {
		return nil, &AnswerError{"no row", "the server's version"}
	}
	version := settingText(rows[0][1])
	user, _, _ := strings.Cut(settingText(rows[0][4]), "@")
	if strings.Contains(strings.ToLower(version), TiDB) {
		return nil, &AnswerError{"TiDB", "MySQL or MariaDB"}
	}
	a := &mysqlAsker{
		ctx: ctx, conn: conn, user: account(settingText(rows[0][2])),
		maria: systemOfVersion(version) == MariaDB, old: strings.HasPrefix(version, "5."),
		found: &Waiting{User: user, self: number(rows[0][0]), Whole: true, Processes: map[uint64]Process{}, Hidden: map[uint64]string{}},
	}
	if !a.maria && !isOn(settingText(rows[0][3])) {
		a.found.Whole = false
		a.found.lacks("performance_schema=ON in the server's settings shows who waits for whom")
	}
	a.rowLocks()
	a.metadataLocks()
	a.processes(of)
	return a.found, ctx.Err()
}

// account writes a user as GRANT wants it.
func account(user string) string {
	name, host, _ := strings.Cut(user, "@")
	return "'" + strings.ReplaceAll(name, "'", "''") + "'@'" + strings.ReplaceAll(host, "'", "''") + "'"
}

// query asks one thing, of which an answer has that many columns. An error is a privilege that
// lacks, in most cases, and ends nothing.
func (a *mysqlAsker) query(query string, columns int) (rows [][]driver.Value, err error) {
	rows, err = bare.QueryRows(a.ctx, a.conn, query, mostWaits)
	if err == nil && len(rows) > 0 && len(rows[0]) < columns {
		rows, err = nil, &AnswerError{fmt.Sprintf("%d column(s)", len(rows[0])), fmt.Sprint(columns)}
	}
	if err != nil {
		a.found.Whole = false
		a.denied(err)
	}
	return rows, err
}

// denied says which privilege lacks.
func (a *mysqlAsker) denied(err error) {
	switch code := StatusCode(err); {
	case code == "1227":
		a.found.lacks("GRANT PROCESS ON *.* TO " + a.user + "; lets sqllease see the locks and the connections of other users")
	case !a.maria && (code == "1142" || code == "1143" || code == "1044"):
		a.found.lacks("GRANT SELECT ON performance_schema.* TO " + a.user + "; lets sqllease see who waits for whom")
	}
}

func (a *mysqlAsker) rowLocks() {
	query := mysqlRowLocks
	if a.maria || a.old {
		query = mariaRowLocks
	}
	rows, _ := a.query(query, 4)
	for _, row := range rows {
		lock := "row lock"
		if settingText(row[2]) == "TABLE" {
			lock = "table lock"
		}
		object, _, _ := strings.Cut(settingText(row[3]), " /*") // a partition
		a.found.Waits = append(a.found.Waits, LockWait{number(row[0]), number(row[1]), lockOn(lock, strings.ReplaceAll(object, "`", ""))})
	}
}

// metadataLock is one that a connection has, or waits for.
type metadataLock struct {
	of           uint64
	kind, object string
	mode         string // such as SHARED_READ
	pending      bool
}

func (l *metadataLock) words() string {
	switch kind := strings.ToUpper(l.kind); kind {
	case "TABLE", "TABLE METADATA LOCK":
		return lockOn("metadata lock", l.object)
	case "USER LEVEL LOCK", "USER LOCK":
		return advisoryLock // its name may have data in it
	default:
		kind = strings.TrimSuffix(strings.TrimSuffix(kind, " LOCK"), " METADATA")
		return lockOn(strings.ToLower(kind)+" lock", l.object)
	}
}

const advisoryLock = "advisory lock"

// metadataLocks finds those that others wait for: locks of tables against changes of their
// definition, LOCK TABLES, GET_LOCK.
func (a *mysqlAsker) metadataLocks() {
	var waiters [][]driver.Value
	if a.maria {
		if waiters, _ = a.query(mariaWaiters, 3); len(waiters) == 0 {
			return
		}
	}
	rows, err := bare.QueryRows(a.ctx, a.conn, mysqlMetadataLocks, mostWaits) // MariaDB's is empty by default
	if err != nil && !a.maria {
		a.found.Whole = false
		a.denied(err)
	}
	locks := metadataLocksOf(rows)
	if a.maria && len(locks) == 0 {
		locks = a.fromPlugin(waiters)
	}
	a.found.Waits = append(a.found.Waits, metadataWaits(locks)...)
	for _, row := range waiters {
		a.hidden(number(row[0]), settingText(row[1]), settingText(row[2]))
	}
}

func metadataLocksOf(rows [][]driver.Value) (locks []metadataLock) {
	for _, row := range rows {
		if len(row) >= 5 {
			locks = append(locks, metadataLock{number(row[0]), settingText(row[1]), settingText(row[2]),
				strings.TrimPrefix(settingText(row[3]), "MDL_"), settingText(row[4]) == "PENDING"})
		}
	}
	return locks
}

// fromPlugin reads MariaDB's plugin, and adds what those wait for who wait: what their
// statements name.
func (a *mysqlAsker) fromPlugin(waiters [][]driver.Value) []metadataLock {
	rows, err := bare.QueryRows(a.ctx, a.conn, mariaMetadataLocks, mostWaits)
	if err != nil {
		return nil
	}
	granted := metadataLocksOf(rows)
	all := granted
	for _, row := range waiters {
		id, state, statement := number(row[0]), settingText(row[1]), settingText(row[2])
		var asked []metadataLock
		for _, l := range granted {
			wanted := metadataLock{id, l.kind, l.object, wantedMode(statement), true}
			if state == "User lock" {
				wanted.mode = "EXCLUSIVE"
			}
			if l.waitedForIn(state, statement) && !slices.Contains(asked, wanted) {
				asked = append(asked, wanted)
			}
		}
		all = append(all, asked...)
	}
	return all
}

// waitedForIn tells whether a statement in that state may wait for that lock.
func (l *metadataLock) waitedForIn(state, statement string) bool {
	switch {
	case state == "User lock":
		return l.kind == "User lock" && strings.EqualFold(lockName(statement), l.object)
	case strings.Contains(state, "table metadata"), strings.Contains(state, "table level"):
		return l.kind == "Table metadata lock" && names(statement, l.object)
	}
	return false
}

// names tells whether a statement names a table, with its schema or without.
func names(statement, object string) bool {
	_, table, _ := strings.Cut(object, ".")
	return table != "" && slices.ContainsFunc(strings.FieldsFunc(statement, func(r rune) bool { return strings.ContainsRune(" \t\r\n.,;()`\"=<>", r) }),
		func(word string) bool { return strings.EqualFold(word, table) })
}

// wantedMode is how a statement wants its tables.
func wantedMode(statement string) string {
	word, rest, _ := strings.Cut(strings.TrimSpace(statement), " ")
	switch strings.ToUpper(word) {
	case "SELECT", "SHOW", "DESC", "DESCRIBE":
		return "SHARED_READ"
	case "INSERT", "UPDATE", "DELETE", "REPLACE", "LOAD":
		return "SHARED_WRITE"
	case "LOCK":
		if !strings.Contains(strings.ToUpper(rest), "WRITE") {
			return "SHARED_READ_ONLY"
		}
		return "SHARED_NO_READ_WRITE"
	}
	return "EXCLUSIVE"
}

// hidden notes who waits for a lock whose holder was not found.
func (a *mysqlAsker) hidden(id uint64, state, statement string) {
	if slices.ContainsFunc(a.found.Waits, func(w LockWait) bool { return w.Waiter == id }) {
		return
	}
	if state != "User lock" {
		a.found.Hidden[id] = lockOfState(state)
		a.found.lacks("INSTALL SONAME 'metadata_lock_info'; has MariaDB show who has a metadata lock")
		return
	}
	a.found.Hidden[id] = advisoryLock
	if name := lockName(statement); name != "" {
		query := "SELECT IS_USED_LOCK(CONVERT(0x" + hex.EncodeToString([]byte(name)) + " USING utf8mb4))"
		rows, err := a.query(query, 1)
		if err == nil && len(rows) > 0 && number(rows[0][0]) != 0 {
			a.found.Waits = append(a.found.Waits, LockWait{id, number(rows[0][0]), advisoryLock})
			delete(a.found.Hidden, id)
		}
	}
}

// lockOfState is what a process waits for, by its state; empty: for no lock.
func lockOfState(state string) string {
	if state == "User lock" {
		return advisoryLock
	}
	what, is := strings.CutPrefix(state, "Waiting for ")
	if !is || !strings.Contains(what, "lock") {
		return ""
	}
	return what
}

// theLockName is the name that a statement gives GET_LOCK, where it is a text in it.
var theLockName = regexp.MustCompile(`(?i)\bGET_LOCK\s*\(\s*'((?:[^'\\]|'')*)'`)

func lockName(statement string) string {
	if m := theLockName.FindStringSubmatch(statement); m != nil {
		return strings.ReplaceAll(m[1], "''", "'")
	}
	return ""
}

// metadataWaits are who waits for whom: for those who have what does not go with what is
// wanted, or for one who waits for more.
func metadataWaits(locks []metadataLock) (waits []LockWait) {
	for _, want := range locks {
		if !want.pending {
			continue
		}
		for _, has := range locks {
			if has.of == want.of || has.kind != want.kind || has.object != want.object || !conflicts(&want, &has) {
				continue
			}
			if wait := (LockWait{want.of, has.of, want.words()}); !slices.Contains(waits, wait) {
				waits = append(waits, wait)
			}
		}
	}
	return waits
}

// agree are the modes that may be granted together, as the servers' sql/mdl.cc has them: of
// the one that is wanted, those that others may have.
var agree = map[string]string{
	"SHARED":               "SHARED SHARED_HIGH_PRIO SHARED_READ SHARED_WRITE SHARED_WRITE_LOW_PRIO SHARED_UPGRADABLE SHARED_READ_ONLY SHARED_NO_WRITE SHARED_NO_READ_WRITE",
	"SHARED_HIGH_PRIO":     "SHARED SHARED_HIGH_PRIO SHARED_READ SHARED_WRITE SHARED_WRITE_LOW_PRIO SHARED_UPGRADABLE SHARED_READ_ONLY SHARED_NO_WRITE SHARED_NO_READ_WRITE",
	"SHARED_READ":          "SHARED SHARED_HIGH_PRIO SHARED_READ SHARED_WRITE SHARED_WRITE_LOW_PRIO SHARED_UPGRADABLE SHARED_READ_ONLY SHARED_NO_WRITE",
	"SHARED_WRITE":         "SHARED SHARED_HIGH_PRIO SHARED_READ SHARED_WRITE SHARED_WRITE_LOW_PRIO SHARED_UPGRADABLE",
	"SHARED_UPGRADABLE":    "SHARED SHARED_HIGH_PRIO SHARED_READ SHARED_WRITE SHARED_WRITE_LOW_PRIO SHARED_READ_ONLY",
	"SHARED_READ_ONLY":     "SHARED SHARED_HIGH_PRIO SHARED_READ SHARED_UPGRADABLE SHARED_READ_ONLY SHARED_NO_WRITE",
	"SHARED_NO_WRITE":      "SHARED SHARED_HIGH_PRIO SHARED_READ SHARED_READ_ONLY",
	"SHARED_NO_READ_WRITE": "SHARED SHARED_HIGH_PRIO",
	"INTENTION_EXCLUSIVE":  "INTENTION_EXCLUSIVE",
}

// conflicts tells whether one has to wait for another. Of those who wait too, only who wants
// all of it holds others up.
func conflicts(want, has *metadataLock) bool {
	if has.pending && (want.mode == "EXCLUSIVE" || has.mode != "EXCLUSIVE" && has.mode != "SHARED_NO_READ_WRITE") {
		return false
	}
	mode := has.mode
	if mode == "SHARED_WRITE_LOW_PRIO" {
		mode = "SHARED_WRITE"
	}
	return !slices.Contains(strings.Fields(agree[want.mode]), mode)
}

// processes reads what those do who are of interest: those who wait, and who blocks them.
func (a *mysqlAsker) processes(of []uint64) {
	ids := slices.Clone(of)
	for _, id := range of {
		for _, w := range a.found.Chain(id, mostNamed) {
			if w.Holder != 0 && !slices.Contains(ids, w.Holder) {
				ids = append(ids, w.Holder)
			}
		}
	}
	query := mysqlProcesses
	if a.maria {
		query = mariaProcesses
	}
	rows, err := a.query(fmt.Sprintf(query, numbers(ids)), 9)
	if err != nil && a.maria {
		rows, _ = a.query(fmt.Sprintf(mariaOwnProcesses, numbers(ids)), 9)
	}
	for _, row := range rows {
		text := func(i int) string { return settingText(row[i]) }
		a.found.Processes[number(row[0])] = Process{User: text(1), Host: text(2), Program: text(3),
			State: stateOf(text(4), text(8)), For: seconds(text(5)), Statement: text(7), waits: lockOfState(text(6))}
	}
	for _, id := range of {
		if waits := a.found.Processes[id].waits; waits != "" && len(a.found.Chain(id, 1)) == 0 && a.found.Hidden[id] == "" {
			a.found.Hidden[id] = waits
		}
	}
}

// mostNamed bounds how many are asked for, of those who block one connection.
const mostNamed = 8

func stateOf(command, transaction string) string {
	switch {
	case command != "Sleep":
		return "active"
	case transaction != "":
		return "idle in transaction"
	}
	return "idle"
}
