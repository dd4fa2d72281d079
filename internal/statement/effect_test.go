package statement

import (
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

var effects = []struct {
	grammar Grammar
	query   string
	effect  Effect
}{
	{MySQL, "BEGIN", Effect{Act: Leaves, Kind: Transaction}},
	{MySQL, "begin work;", Effect{Act: Leaves, Kind: Transaction}},
	{MySQL, "-- a\nSTART TRANSACTION READ ONLY", Effect{Act: Leaves, Kind: Transaction}},
	{MySQL, "BEGIN NOT ATOMIC SELECT 1", Effect{Act: Unclear}},
	{MySQL, "START REPLICA", Effect{Act: Unclear}},
	{MySQL, "COMMIT", Effect{Ends: Committed}},
	{MySQL, "COMMIT AND CHAIN", Effect{}},
	{MySQL, "COMMIT AND NO CHAIN", Effect{Ends: Committed}},
	{MySQL, "ROLLBACK", Effect{Ends: RolledBack}},
	{MySQL, "ROLLBACK AND CHAIN", Effect{Act: Reverts}},
	{MySQL, "ROLLBACK TO SAVEPOINT a", Effect{Act: Reverts}},
	{MySQL, "SAVEPOINT a", Effect{}},
	{MySQL, "BEGIN; UPDATE t SET a = 1; COMMIT", Effect{Act: Unclear}},
	{MySQL, "/*!40000 BEGIN */", Effect{Act: Unclear}},
	{MySQL, "CREATE TABLE t (a int)", Effect{Ends: Committed}},
	{MySQL, "CALL p()", Effect{Act: Unclear}},
	{MySQL, "EXECUTE a", Effect{Act: Unclear}},
	{MySQL, "", Effect{Act: Unclear}},

	{MySQL, "LOCK TABLES t WRITE", Effect{Act: Leaves, Kind: TableLock, Ends: Committed}},
	{MySQL, "FLUSH TABLES WITH READ LOCK", Effect{Act: Leaves, Kind: TableLock, Ends: Committed}},
	{MySQL, "FLUSH TABLES", Effect{Ends: Committed}},
	{MySQL, "UNLOCK TABLES", Effect{Act: Undoes, Kind: TableLock, Ends: Committed}},
	{MySQL, "SELECT GET_LOCK('a', 10)", Effect{Act: LeavesIfTrue, Kind: NamedLock}},
	{MySQL, "SELECT get_lock(concat(?, 'b'), 10) AS got", Effect{Act: LeavesIfTrue, Kind: NamedLock}},
	{MySQL, "SELECT GET_LOCK('a', 10) FROM t", Effect{}},
	{MySQL, "SELECT GET_LOCK('a', 10), 2", Effect{}},
	{MySQL, "SELECT RELEASE_LOCK('a')", Effect{Act: UndoesOne, Kind: NamedLock}},
	{MySQL, "DO RELEASE_LOCK('a')", Effect{Act: UndoesOne, Kind: NamedLock}},
	{MySQL, "SELECT 1, RELEASE_LOCK('a')", Effect{Act: Undoes, Kind: NamedLock}},
	{MySQL, "SELECT RELEASE_ALL_LOCKS()", Effect{Act: Undoes, Kind: NamedLock}},
	{MySQL, "SELECT pg_advisory_lock(1)", Effect{}},

	{MySQL, "SET SESSION sql_mode = ''", Effect{Act: Sets, Kind: Setting, Name: "sql_mode"}},
	{MySQL, "SET LOCAL sql_mode = ''", Effect{Act: Sets, Kind: Setting, Name: "sql_mode"}},
	{MySQL, "SET @@SESSION.time_zone := '+00:00'", Effect{Act: Sets, Kind: Setting, Name: "time_zone"}},
	{MySQL, "SET @@time_zone = '+00:00'", Effect{Act: Sets, Kind: Setting, Name: "time_zone"}},
	{MySQL, "SET a = 1, SESSION b = f(2, 3), GLOBAL c = 4, @d = 5", Effect{Act: Sets, Kind: Setting, Name: "a,b"}},
	{MySQL, "SET a = DEFAULT, b = default", Effect{Act: Undoes, Kind: Setting, Name: "a,b"}},
	{MySQL, "SET a = DEFAULT, b = 1", Effect{Act: Sets, Kind: Setting, Name: "a,b"}},
	{MySQL, "SET @a = 1", Effect{}},
	{MySQL, "SET GLOBAL a = 1", Effect{}},
	{MySQL, "SET @@GLOBAL.a = 1", Effect{}},
	{MySQL, "SET PERSIST a = 1", Effect{}},
	{MySQL, "SET TRANSACTION ISOLATION LEVEL READ COMMITTED", Effect{}},
	{MySQL, "SET GLOBAL TRANSACTION READ ONLY", Effect{}},
	{MySQL, "SET SESSION TRANSACTION ISOLATION LEVEL READ COMMITTED", Effect{Act: Sets, Kind: Setting, Name: "transaction"}},
	{MySQL, "SET NAMES utf8mb4 COLLATE utf8mb4_bin", Effect{Act: Sets, Kind: Setting, Name: "names"}},
	{MySQL, "SET NAMES DEFAULT", Effect{Act: Undoes, Kind: Setting, Name: "names"}},
	{MySQL, "SET ROLE admin", Effect{Act: Sets, Kind: Setting, Name: "role"}},
	{MySQL, "SET autocommit = 0", Effect{Act: Sets, Kind: Setting, Name: "autocommit", Ends: Committed}},
	{MySQL, "SET autocommit = 1", Effect{Act: Undoes, Kind: Setting, Name: "autocommit", Ends: Committed}},
	{MySQL, "SET PASSWORD = 'a'", Effect{Act: Unclear}},
	{MySQL, "SET DEFAULT ROLE a TO b", Effect{Ends: Committed}},
	{MySQL, "SET STATEMENT max_statement_time = 1 FOR SELECT 1", Effect{Act: Unclear}},
	{MySQL, "USE shop", Effect{Act: Sets, Kind: Database}},
	{MySQL, "PREPARE a FROM 'SELECT 1'", Effect{Act: Leaves, Kind: PreparedStatement, Name: "a"}},
	{MySQL, "DROP PREPARE a", Effect{Act: Undoes, Kind: PreparedStatement, Name: "a", Ends: NotEnded}},
	{MySQL, "DEALLOCATE PREPARE `A`", Effect{Act: Undoes, Kind: PreparedStatement, Name: "a"}},
	{MySQL, "CREATE TEMPORARY TABLE IF NOT EXISTS `T` (a int)", Effect{Act: Leaves, Kind: TemporaryTable, Name: "t"}},
	{MySQL, "CREATE OR REPLACE TEMPORARY TABLE shop.t (a int)", Effect{Act: Leaves, Kind: TemporaryTable, Name: "t"}},
	{MySQL, "DROP TEMPORARY TABLE IF EXISTS `shop`.`t`", Effect{Act: Undoes, Kind: TemporaryTable, Name: "t"}},
	{MySQL, "DROP TABLE t, u", Effect{Act: Undoes, Kind: TemporaryTable, Ends: Committed}},
	{MySQL, "ALTER TABLE t RENAME TO u", Effect{Act: Undoes, Kind: TemporaryTable, Ends: Committed}},
	{MySQL, "LISTEN a", Effect{Act: Unclear}},

	{PostgreSQL, "BEGIN ISOLATION LEVEL SERIALIZABLE", Effect{Act: Leaves, Kind: Transaction}},
	{PostgreSQL, "BEGIN TRANSACTION READ ONLY", Effect{Act: Leaves, Kind: Transaction}},
	{PostgreSQL, "END", Effect{Ends: Committed}},
	{PostgreSQL, "ABORT", Effect{Ends: RolledBack}},
	{PostgreSQL, "ROLLBACK PREPARED 'a'", Effect{}},
	{PostgreSQL, "PREPARE TRANSACTION 'a'", Effect{Ends: RolledBack}},
	{PostgreSQL, "CREATE TABLE t (a int)", Effect{}},
	{PostgreSQL, "LOCK TABLE t", Effect{}},
	{PostgreSQL, "DO $$ BEGIN PERFORM 1; END $$", Effect{Act: Unclear}},
	{PostgreSQL, "CALL p()", Effect{Act: Unclear}},
	{PostgreSQL, "SELECT pg_advisory_lock($1)", Effect{Act: Leaves, Kind: NamedLock}},
	{PostgreSQL, "SELECT pg_catalog.pg_advisory_lock_shared(hashtext('a'), 1)", Effect{Act: Leaves, Kind: NamedLock}},
	{PostgreSQL, "SELECT pg_try_advisory_lock($1) AS ok", Effect{Act: LeavesIfTrue, Kind: NamedLock}},
	{PostgreSQL, "SELECT pg_advisory_xact_lock(1)", Effect{}},
	{PostgreSQL, "SELECT pg_advisory_lock(id) FROM t", Effect{}},
	{PostgreSQL, "SELECT pg_advisory_unlock($1)", Effect{Act: UndoesOne, Kind: NamedLock}},
	{PostgreSQL, "WITH a AS (SELECT pg_advisory_unlock(1)) SELECT * FROM a", Effect{Act: Undoes, Kind: NamedLock}},
	{PostgreSQL, "SELECT pg_advisory_unlock_all()", Effect{Act: Undoes, Kind: NamedLock}},
	{PostgreSQL, "SELECT set_config('a', 'b', false)", Effect{Act: Undoes, Kind: Setting}},

	{PostgreSQL, "SET search_path TO a, b", Effect{Act: Sets, Kind: Setting, Name: "search_path"}},
	{PostgreSQL, "SET SESSION search_path = a", Effect{Act: Sets, Kind: Setting, Name: "search_path"}},
	{PostgreSQL, "SET SCHEMA 'a'", Effect{Act: Sets, Kind: Setting, Name: "search_path"}},
	{PostgreSQL, "SET search_path TO DEFAULT", Effect{Act: Undoes, Kind: Setting, Name: "search_path"}},
	{PostgreSQL, "RESET search_path", Effect{Act: Undoes, Kind: Setting, Name: "search_path"}},
	{PostgreSQL, "RESET ALL", Effect{Act: Undoes, Kind: Setting}},
	{PostgreSQL, "SET LOCAL search_path = a", Effect{}},
	{PostgreSQL, "SET TRANSACTION READ ONLY", Effect{}},
	{PostgreSQL, "SET CONSTRAINTS ALL DEFERRED", Effect{}},
	{PostgreSQL, "SET SESSION CHARACTERISTICS AS TRANSACTION READ ONLY", Effect{Act: Sets, Kind: Setting, Name: "transaction"}},
	{PostgreSQL, "SET SESSION AUTHORIZATION a", Effect{Act: Sets, Kind: Setting, Name: "session authorization"}},
	{PostgreSQL, "RESET SESSION AUTHORIZATION", Effect{Act: Undoes, Kind: Setting, Name: "session authorization"}},
	{PostgreSQL, "SET ROLE a", Effect{Act: Sets, Kind: Setting, Name: "role"}},
	{PostgreSQL, "SET ROLE NONE", Effect{Act: Undoes, Kind: Setting, Name: "role"}},
	{PostgreSQL, "SET TIME ZONE 'UTC'", Effect{Act: Sets, Kind: Setting, Name: "timezone"}},
	{PostgreSQL, "SET TIME ZONE LOCAL", Effect{Act: Undoes, Kind: Setting, Name: "timezone"}},
	{PostgreSQL, "RESET TIME ZONE", Effect{Act: Undoes, Kind: Setting, Name: "timezone"}},
	{PostgreSQL, "LISTEN Jobs", Effect{Act: Leaves, Kind: Channel, Name: "jobs"}},
	{PostgreSQL, "UNLISTEN jobs", Effect{Act: Undoes, Kind: Channel, Name: "jobs"}},
	{PostgreSQL, "UNLISTEN *", Effect{Act: Undoes, Kind: Channel}},
	{PostgreSQL, "DISCARD ALL", Effect{Act: UndoesAll}},
	{PostgreSQL, "DISCARD TEMP", Effect{Act: Undoes, Kind: TemporaryTable}},
	{PostgreSQL, "DISCARD PLANS", Effect{}},
	{PostgreSQL, "CREATE TEMP TABLE t AS SELECT 1", Effect{Act: Leaves, Kind: TemporaryTable, Name: "t"}},
	{PostgreSQL, "CREATE TEMP TABLE t (a int) ON COMMIT DROP", Effect{}},
	{PostgreSQL, "DROP TABLE t", Effect{Act: Undoes, Kind: TemporaryTable, Name: "t"}},
	{PostgreSQL, "PREPARE a (int) AS SELECT $1", Effect{Act: Leaves, Kind: PreparedStatement, Name: "a"}},
	{PostgreSQL, "DEALLOCATE ALL", Effect{Act: Undoes, Kind: PreparedStatement}},

	{Unknown, "BEGIN", Effect{}},
}

func TestTheEffectOfAStatementOnItsSession(t *testing.T) {
	for _, c := range effects {
		assert.Equal(t, c.effect, Summarise(c.query, c.grammar).Effect, c.query)
	}
}

func TestUsualStatementsAreToldAtAGlance(t *testing.T) {
	for query, usual := range map[string]bool{
		"SELECT a FROM t": true, " \n\tselect 1": true, "-- name: A :one\nINSERT INTO t VALUES (1)": true, "/* a */ UPDATE t SET a = 1": true,
		"DELETE FROM t": true, "Replace INTO t VALUES (1)": true, "WITH a AS (SELECT 1) SELECT * FROM a": true, "SELECT p.id FROM p": true,
		"SELECT": false, "SELECT GET_LOCK('a', 1)": false, "select pg_advisory_lock(1)": false, "SELECT /*+ a */ 1": false, "": false, "--": false, "/*": false,
		"SET a = 1": false, "BEGIN": false, "/*! SET a = 1 */": false, "-- a\rBEGIN\nSELECT 1": false, "# a\nSELECT 1": false,
	} {
		assert.Equal(t, usual, Usual(query), query)
	}
}

// FuzzEffect reads any statement. None leaves anything that is usual, or not read to its end,
// or one of several; comments and blanks change nothing.
func FuzzEffect(f *testing.F) {
	for i, c := range effects {
		f.Add(c.query, uint8(i))
	}
	f.Fuzz(func(t *testing.T, query string, grammar uint8) {
		g := []Grammar{MySQL, PostgreSQL}[int(grammar)%2]
		s := Summarise(query, g)
		e := s.Effect
		if e.Lasts() {
			require.False(t, Usual(query), "%q", query)
			require.NotEqual(t, Nothing, e.Kind)
			require.LessOrEqual(t, len(query), readAtMost)
		}
		require.Equal(t, e, Summarise("/* a */ -- b\n "+query, g).Effect, "%q", query)
		require.False(t, Summarise(query+"\n;SELECT 1", g).Effect.Lasts() && len(query) < readAtMost/2, "%q", query)
	})
}
