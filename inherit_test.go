package sqllease

import (
	"context"
	"database/sql"
	"database/sql/driver"
	"log/slog"
	"math"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/go-sql-driver/mysql"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/sqllease/sqllease/internal/clock"
)

// steps run on a connection, each in a way that its first word says:
//
//	query …   reads the rows of a query
//	stmt …    prepares, and executes
//	begin, commit, rollback   of database/sql
//	fails …   executes, and the driver fails
//	deadlock …   likewise, as MySQL does
//
// and all others are executed.
func steps(t *testing.T, conn *sql.Conn, f *telemetryFake, all []string) {
	var tx *sql.Tx
	ctx := t.Context()
	for _, step := range all {
		word, rest, _ := strings.Cut(step, " ")
		var err error
		switch word {
		case "query":
			var rows *sql.Rows
			if rows, err = conn.QueryContext(ctx, rest); err == nil {
				err = rowsErr(rows)
			}
		case "stmt":
			var st *sql.Stmt
			st, err = conn.PrepareContext(ctx, rest)
			require.NoError(t, err)
			_, err = st.ExecContext(ctx)
			require.NoError(t, st.Close())
		case "begin":
			tx, err = conn.BeginTx(ctx, nil)
		case "commit":
			err = tx.Commit()
		case "rollback":
			err = tx.Rollback()
		case "fails", "deadlock":
			fault := error(assert.AnError)
			if word == "deadlock" {
				fault = &mysql.MySQLError{Number: 1213}
			}
			f.on = func(context.Context, string, string) error { return fault }
			_, err = conn.ExecContext(ctx, rest)
			require.ErrorIs(t, err, fault)
			f.on, err = nil, nil
		default:
			_, err = conn.ExecContext(ctx, step)
		}
		require.NoError(t, err, step)
	}
}

func TestWhatTheNextCallerInheritsIsTold(t *testing.T) {
	const my, pg = DialectMariaDB, DialectPostgreSQL
	yes, no := []driver.Value{int64(1)}, []driver.Value{int64(0)}
	for name, c := range map[string]struct {
		dialect Dialect
		answer  []driver.Value
		steps   []string
		left    []string
	}{
		"nothing":                       {my, yes, []string{"UPDATE t SET a = 1", "query SELECT 1", "begin", "commit"}, nil},
		"a transaction":                 {my, yes, []string{"BEGIN", "UPDATE t SET a = 1"}, []string{"transaction"}},
		"a prepared BEGIN":              {pg, yes, []string{"stmt START TRANSACTION"}, []string{"transaction"}},
		"one that is committed":         {my, yes, []string{"BEGIN", "UPDATE t SET a = 1", "COMMIT"}, nil},
		"one that fails to commit":      {pg, yes, []string{"BEGIN", "fails COMMIT"}, nil},
		"one that did not begin":        {my, yes, []string{"fails BEGIN"}, nil},
		"one that goes on":              {my, yes, []string{"BEGIN", "COMMIT AND CHAIN"}, []string{"transaction"}},
		"one with a savepoint":          {my, yes, []string{"BEGIN", "SAVEPOINT a", "ROLLBACK TO a"}, []string{"transaction"}},
		"one after an error":            {my, yes, []string{"BEGIN", "fails UPDATE t SET a = 1"}, []string{"transaction"}},
		"one after an error, elsewhere": {pg, yes, []string{"BEGIN", "fails UPDATE t SET a = 1"}, []string{"transaction"}},
		"one that a deadlock ended":     {my, yes, []string{"BEGIN", "deadlock UPDATE t SET a = 1"}, nil},
		"one that a definition ended":   {my, yes, []string{"BEGIN", "CREATE TABLE t (a int)"}, nil},
		"one with a definition in it":   {pg, yes, []string{"BEGIN", "CREATE TABLE t (a int)"}, []string{"transaction"}},
		"one that may have ended":       {my, yes, []string{"BEGIN", "UPDATE t SET a = 1; COMMIT"}, nil},
		"one that a procedure may end":  {my, yes, []string{"BEGIN", "CALL p()"}, nil},
		"one in one of database/sql's":  {pg, yes, []string{"begin", "BEGIN", "commit"}, nil},
		"one that it ends":              {pg, yes, []string{"BEGIN", "begin", "rollback"}, nil},

		"locked tables":                  {my, yes, []string{"LOCK TABLES t WRITE"}, []string{"lock"}},
		"tables that are unlocked":       {my, yes, []string{"LOCK TABLES t WRITE", "UNLOCK TABLES"}, nil},
		"tables that BEGIN unlocks":      {my, yes, []string{"LOCK TABLES t WRITE", "BEGIN", "COMMIT"}, nil},
		"tables locked in a transaction": {pg, yes, []string{"begin", "LOCK TABLE t", "commit"}, nil},
		"a lock":                         {my, yes, []string{"query SELECT GET_LOCK('a', 1)"}, []string{"lock"}},
		"a lock that somebody else has":  {my, no, []string{"query SELECT GET_LOCK('a', 1)"}, nil},
		"a lock of which nobody knows":   {my, yes, []string{"SELECT GET_LOCK('a', 1)", "DO GET_LOCK('a', 1)"}, nil},
		"a lock that is given back":      {my, yes, []string{"query SELECT GET_LOCK('a', 1)", "query SELECT RELEASE_LOCK('a')"}, nil},
		"one of two locks":               {my, yes, []string{"query SELECT GET_LOCK('a', 1)", "query SELECT GET_LOCK('b', 1)", "DO RELEASE_LOCK('a')"}, []string{"lock"}},
		"an advisory lock":               {pg, []driver.Value{""}, []string{"query SELECT pg_advisory_lock(1)"}, []string{"lock"}},
		"one that is executed":           {pg, yes, []string{"SELECT pg_advisory_lock(1)"}, []string{"lock"}},
		"one that outlasts a rollback":   {pg, yes, []string{"BEGIN", "SELECT pg_advisory_lock(1)", "ROLLBACK"}, []string{"lock"}},
		"one that may be given back":     {pg, yes, []string{"SELECT pg_advisory_lock(1)", "query WITH a AS (SELECT pg_advisory_unlock(1)) SELECT 1"}, nil},
		"one that is tried":              {pg, []driver.Value{true}, []string{"query SELECT pg_try_advisory_lock(1)"}, []string{"lock"}},
		"one that is tried in vain":      {pg, []driver.Value{false}, []string{"query SELECT pg_try_advisory_lock(1)"}, nil},

		"a setting":                      {my, yes, []string{"SET SESSION sql_mode = ''"}, []string{"setting"}},
		"a setting that is put back":     {my, yes, []string{"SET foreign_key_checks = 0", "SET foreign_key_checks = 1"}, nil},
		"one of two":                     {my, yes, []string{"SET a = 0, b = 0", "SET c = 1", "SET b = 1, a = 1"}, []string{"setting"}},
		"a variable":                     {my, yes, []string{"SET @a = 1"}, nil},
		"a setting in a transaction":     {pg, yes, []string{"begin", "SET search_path TO a", "commit"}, []string{"setting"}},
		"one that is rolled back":        {pg, yes, []string{"begin", "SET search_path TO a", "rollback"}, nil},
		"one that is not":                {my, yes, []string{"begin", "SET a = 1", "rollback"}, []string{"setting"}},
		"one that may be rolled back":    {pg, yes, []string{"begin", "SAVEPOINT a", "SET search_path TO a", "ROLLBACK TO a", "commit"}, nil},
		"one of a failed transaction":    {pg, yes, []string{"begin", "SET search_path TO a", "fails UPDATE t SET a = 1", "commit"}, nil},
		"one of a transaction":           {pg, yes, []string{"begin", "SET LOCAL search_path TO a", "commit"}, nil},
		"one that is reset":              {pg, yes, []string{"SET search_path TO a", "RESET search_path"}, nil},
		"one that a function may set":    {pg, yes, []string{"SET search_path TO a", "query SELECT set_config('search_path', 'b', false)"}, nil},
		"another database":               {my, yes, []string{"USE shop"}, []string{"database"}},
		"the old database":               {my, yes, []string{"USE shop", "USE main"}, nil},
		"a channel":                      {pg, yes, []string{"LISTEN a"}, []string{"channel"}},
		"no channel":                     {pg, yes, []string{"LISTEN a", "UNLISTEN *"}, nil},
		"a temporary table":              {pg, yes, []string{"CREATE TEMP TABLE t (a int)"}, []string{"temporary_table"}},
		"one that is dropped":            {my, yes, []string{"CREATE TEMPORARY TABLE t (a int)", "DROP TABLE t"}, nil},
		"another one that is dropped":    {my, yes, []string{"CREATE TEMPORARY TABLE t (a int)", "DROP TABLE u"}, []string{"temporary_table"}},
		"a prepared statement":           {my, yes, []string{"PREPARE a FROM 'SELECT 1'"}, []string{"prepared_statement"}},
		"one that is deallocated":        {pg, yes, []string{"PREPARE a AS SELECT 1", "DEALLOCATE a"}, nil},
		"several":                        {pg, yes, []string{"SET a = 1", "SET b = 1", "LISTEN a", "BEGIN"}, []string{"channel", "setting", "transaction"}},
		"all is discarded":               {pg, yes, []string{"SET a = 1", "LISTEN a", "DISCARD ALL"}, nil},
		"what is not read to its end":    {my, yes, []string{"BEGIN", "SELECT 1 /*" + strings.Repeat("a", 5000) + "*/"}, nil},
		"a server of which nobody knows": {"", yes, []string{"BEGIN", "SET a = 1"}, nil},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				f, log := &telemetryFake{answer: c.answer}, &keptLog{}
				db, err := OpenDB(f, Config{MaxOpen: 1, Dialect: c.dialect, Discovery: NoDiscovery, Logger: slog.New(log)})
				require.NoError(t, err)
				for range 2 { // the second time, nothing is new
					conn, err := db.Conn(t.Context())
					require.NoError(t, err)
					steps(t, conn, f, c.steps)
					require.NoError(t, conn.Close())
				}
				synctest.Wait()
				require.NoError(t, db.Close())
				var left []string
				for _, r := range log.take() {
					left = append(left, r.attrs["leftover.kind"].(string))
					assert.Contains(t, r.attrs["leftover.site"], "inherit_test.go")
					assert.Equal(t, r.level == slog.LevelWarn, slices.Contains([]string{"transaction", "lock"}, left[len(left)-1]))
				}
				slices.Sort(left)
				assert.Equal(t, c.left, left)
			})
		})
	}
}

func TestALeftTransactionIsToldWithItsStatement(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		log := &keptLog{}
		p := newTelemetryPool(t, &telemetryFake{}, Config{MaxOpen: 1, Dialect: DialectMySQL, Discovery: NoDiscovery})
		p.c.cfg.Logger = slog.New(log)
		exec(t, underParent(t), p.db, "/* a */ START TRANSACTION READ ONLY")
		exec(t, t.Context(), p.db, "SET a = 'secret'")
		exec(t, t.Context(), p.db, "SET a = 'secret'")
		synctest.Wait()
		records := log.take()
		require.Len(t, records, 3, "a place is a stack")
		slices.SortFunc(records, func(a, b keptRecord) int { return int(b.level - a.level) })
		r := records[0]
		assert.Equal(t, "sqllease: a connection came back in a transaction that a statement began and none ended: what the next caller does becomes a part of it", r.message)
		assert.Equal(t, "START TRANSACTION READ ONLY", r.attrs["leftover.statement"])
		assert.Contains(t, r.attrs["leftover.fix"], "BeginTx")
		assert.True(t, r.span.IsValid())
		assert.Equal(t, "SET a = ?", records[1].attrs["leftover.statement"])
		assert.Equal(t, []string{"lock", "setting", "transaction"}, sorted(p.values(t, "sqllease.session.leftovers", keyLeftover)), "what an alert looks at begins at zero")
		assert.Equal(t, int64(3), p.sum(t, "sqllease.session.leftovers"))
	})
}

func sorted(s []string) []string {
	slices.Sort(s)
	return s
}

// A connection that is closed, or whose state cannot be seen, is inherited by nobody, for all
// that is known.
func TestWhatNobodyInheritsIsNotTold(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f, log := &telemetryFake{}, &keptLog{}
		db, err := OpenDB(f, Config{MaxOpen: 1, Dialect: DialectMySQL, Discovery: NoDiscovery, Logger: slog.New(log)})
		require.NoError(t, err)
		for _, end := range []func(any) error{
			func(any) error { return driver.ErrBadConn },
			func(c any) error { _, _ = Unwrap[driver.Conn](c); return nil },
		} {
			conn, err := db.Conn(t.Context())
			require.NoError(t, err)
			_, err = conn.ExecContext(t.Context(), "BEGIN")
			require.NoError(t, err)
			_ = conn.Raw(end)
			_ = conn.Close()
		}
		synctest.Wait()
		require.NoError(t, db.Close())
		assert.Empty(t, log.take())
	})
}

func TestPlacesThatLeaveSomethingAreBounded(t *testing.T) {
	var i inheritances
	for n := range uintptr(mostPlaces) {
		assert.True(t, i.note(inherited{place: placeStack{stack: [32]uintptr{n}}}))
	}
	assert.False(t, i.note(inherited{place: placeStack{stack: [32]uintptr{mostPlaces}}}))
	assert.Len(t, i.known, mostPlaces)
}

// pgx gives up a connection that is in a transaction. Its ErrBadConn says nothing of the server,
// nor of the other connections.
func TestAConnectionThatIsGivenUpForItsTransactionCastsNoDoubtOnOthers(t *testing.T) {
	const later = math.MaxInt64
	for name, c := range map[string]struct {
		steps  []string // of the last lease
		closed ClosedStats
		doubt  bool
	}{
		"a transaction":           {[]string{"BEGIN"}, ClosedStats{Invalid: 1}, false},
		"one that has ended":      {[]string{"BEGIN", "COMMIT"}, ClosedStats{ResetFailed: 1}, true},
		"another lease came then": {nil, ClosedStats{ResetFailed: 1}, true},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				f := &telemetryFake{}
				p := newTelemetryPool(t, f, Config{MaxOpen: 3, Dialect: DialectPostgreSQL, Discovery: NoDiscovery})
				giveBack(t, take(t, p.db, 3)...)
				exec(t, t.Context(), p.db, "BEGIN")
				conn, err := p.db.Conn(t.Context())
				require.NoError(t, err)
				steps(t, conn, f, c.steps)
				require.NoError(t, conn.Close())
				p.c.asking.due.Store(later)
				elapse(2 * time.Second)
				failed := false
				f.on = func(_ context.Context, call, _ string) error {
					if call == "reset" && !failed {
						failed = true
						return driver.ErrBadConn
					}
					return nil
				}
				exec(t, t.Context(), p.db, "UPDATE t SET a = 1")
				assert.Equal(t, c.closed, p.c.Stats().Closed)
				assert.Equal(t, c.doubt, p.c.asking.due.Load() != later, "the server is asked anew")
				var idle *session
				p.c.gate.Look(func() { p.c.gate.EachReadyLocked(func(s *session) bool { idle = s; return false }) })
				_, unfit := p.c.gate.Unfit(&idle.Session, clock.Now())
				assert.Equal(t, c.doubt, unfit, "the others are not trusted")
			})
		})
	}
}
