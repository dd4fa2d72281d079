package drivers

import (
	"context"
	"database/sql/driver"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/go-sql-driver/mysql"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// scripted is a server that answers queries by what is in them.
type scripted struct {
	answers map[string]any // rows, or an error
	asked   []string
}

func (s *scripted) Close() error                        { return nil }
func (s *scripted) Begin() (driver.Tx, error)           { return nil, driver.ErrSkip }
func (s *scripted) Prepare(string) (driver.Stmt, error) { return nil, driver.ErrSkip }
func (s *scripted) QueryContext(_ context.Context, query string, _ []driver.NamedValue) (driver.Rows, error) {
	s.asked = append(s.asked, query)
	for part, answer := range s.answers {
		if !strings.Contains(query, part) {
			continue
		}
		if err, ok := answer.(error); ok {
			return nil, err
		}
		return &scriptedRows{answer.([][]driver.Value)}, nil
	}
	return &scriptedRows{}, nil
}

type scriptedRows struct{ left [][]driver.Value }

func (r *scriptedRows) Columns() []string {
	if len(r.left) == 0 {
		return nil
	}
	return make([]string, len(r.left[0]))
}
func (r *scriptedRows) Close() error { return nil }
func (r *scriptedRows) Next(dest []driver.Value) error {
	if len(r.left) == 0 {
		return io.EOF
	}
	copy(dest, r.left[0])
	r.left = r.left[1:]
	return nil
}

// row is one of texts, as servers send them; nil is NULL.
func row(values ...any) (r []driver.Value) {
	for _, v := range values {
		if v == nil {
			r = append(r, nil)
			continue
		}
		r = append(r, []byte(fmt.Sprint(v)))
	}
	return r
}

func rowsOf(rows ...[]driver.Value) [][]driver.Value { return rows }

func mysql8(more map[string]any) *scripted {
	s := &scripted{answers: map[string]any{
		"VERSION()": rowsOf(row(99, "8.4.3", "app@%", 1, "app@10.0.0.1")),
		"t.PROCESSLIST_ID IN": rowsOf(
			row(11, "app", "10.0.0.1", nil, "Query", 12, "updating", "UPDATE stock SET n = 1", "ACTIVE"),
			row(12, "app", "10.0.0.1", nil, "Query", 20, "updating", "UPDATE stock SET n = 2", "ACTIVE"),
			row(13, "ops", "10.0.0.9", "mysql", "Sleep", 300, nil, "DELETE FROM stock", "ACTIVE")),
	}}
	for part, answer := range more {
		s.answers[part] = answer
	}
	return s
}

func ask(t *testing.T, s *scripted, of ...uint64) *Waiting {
	t.Helper()
	w, err := mysqlLocks.Ask(t.Context(), s, 99, of)
	require.NoError(t, err)
	return w
}

// MySQL's own tables: there is no MySQL among the servers of the tests.
func TestMySQLsRowLocks(t *testing.T) {
	w := ask(t, mysql8(map[string]any{"data_lock_waits": rowsOf(
		row(11, 12, "RECORD", "shop.stock"), row(11, 13, "RECORD", "shop.stock"), row(12, 13, "TABLE", "shop.stock"))}), 11)
	assert.Equal(t, []LockWait{{11, 13, "row lock on shop.stock"}}, w.Chain(11, 8), "who queues before it is no root")
	assert.Equal(t, []LockWait{{12, 13, "table lock on shop.stock"}}, w.Chain(12, 8))
	assert.True(t, w.Whole)
	assert.True(t, w.Sees(11))
	assert.False(t, w.Sees(13))
	assert.Equal(t, Process{User: "ops", Host: "10.0.0.9", Program: "mysql", State: "idle in transaction", For: 5 * time.Minute, Statement: "DELETE FROM stock"}, w.Processes[13])
}

func TestMySQLsMetadataLocks(t *testing.T) {
	w := ask(t, mysql8(map[string]any{"m.LOCK_STATUS": rowsOf(
		row(13, "TABLE", "shop.stock", "SHARED_READ", "GRANTED"),
		row(12, "TABLE", "shop.stock", "SHARED_UPGRADABLE", "GRANTED"),
		row(12, "TABLE", "shop.stock", "EXCLUSIVE", "PENDING"),
		row(11, "TABLE", "shop.stock", "SHARED_WRITE", "PENDING"),
		row(21, "USER LEVEL LOCK", "a", "EXCLUSIVE", "GRANTED"),
		row(22, "USER LEVEL LOCK", "a", "EXCLUSIVE", "PENDING"),
		row(31, "GLOBAL", nil, "SHARED", "GRANTED"),
		row(32, "GLOBAL", nil, "INTENTION_EXCLUSIVE", "PENDING"))}), 11)
	assert.Equal(t, []LockWait{{11, 12, "metadata lock on shop.stock"}, {12, 13, "metadata lock on shop.stock"}}, w.Chain(11, 8))
	assert.Equal(t, []LockWait{{22, 21, "advisory lock"}}, w.Chain(22, 8), "without its name")
	assert.Equal(t, []LockWait{{32, 31, "global lock"}}, w.Chain(32, 8))
}

func TestWhatMySQLDoesNotShow(t *testing.T) {
	for name, c := range map[string]struct {
		answers map[string]any
		lacks   string
	}{
		"no privilege": {map[string]any{"data_lock_waits": &mysql.MySQLError{Number: 1142}, "m.LOCK_STATUS": &mysql.MySQLError{Number: 1142}, "t.PROCESSLIST_ID IN": &mysql.MySQLError{Number: 1142}},
			"GRANT SELECT ON performance_schema.* TO 'app'@'%'; lets sqllease see who waits for whom"},
		"no performance schema": {map[string]any{"VERSION()": rowsOf(row(99, "8.4.3", "app@%", 0, "app@h"))},
			"performance_schema=ON in the server's settings shows who waits for whom"},
	} {
		w := ask(t, mysql8(c.answers), 11)
		assert.Equal(t, []string{c.lacks}, w.Lacks, name)
		assert.False(t, w.Whole, name)
		assert.Empty(t, w.Chain(11, 8), name)
	}
	w := ask(t, mysql8(map[string]any{"t.PROCESSLIST_ID IN": rowsOf(row(11, "app", "h", nil, "Query", 1, "Waiting for table level lock", "INSERT INTO t", nil))}), 11)
	assert.Equal(t, "table level lock", w.Hidden[11])
	_, err := mysqlLocks.Ask(t.Context(), mysql8(map[string]any{"VERSION()": rowsOf(row(99, "8.0.11-TiDB-v8.1.0", "app@%", 1, "app@h"))}), 99, []uint64{11})
	require.ErrorContains(t, err, "TiDB")
	_, err = mysqlLocks.Ask(t.Context(), mysql8(map[string]any{"VERSION()": errors.New("gone")}), 99, []uint64{11})
	require.ErrorContains(t, err, "gone")
	_, err = mysqlLocks.Ask(t.Context(), mysql8(nil), 98, []uint64{11})
	require.ErrorContains(t, err, "a pooler or a proxy is between")
}

func TestMySQL5HasItsRowLocksElsewhere(t *testing.T) {
	s := mysql8(map[string]any{
		"VERSION()":         rowsOf(row(99, "5.7.44-log", "app@%", 1, "app@h")),
		"INNODB_LOCK_WAITS": rowsOf(row(11, 13, "RECORD", "`shop`.`stock` /* Partition `p1` */")),
	})
	assert.Equal(t, []LockWait{{11, 13, "row lock on shop.stock"}}, ask(t, s, 11).Chain(11, 8))
	assert.False(t, slices.ContainsFunc(s.asked, func(q string) bool { return strings.Contains(q, "data_lock_waits") }))
}

func maria(more map[string]any) *scripted {
	return mysql8(map[string]any{
		"VERSION()":          rowsOf(row(99, "10.11.6-MariaDB", "o'app@%", 0, "app@h")),
		"p.ID IN":            rowsOf(row(11, "app", "h:1", nil, "Query", "1.5", "Waiting for table metadata lock", "ALTER TABLE stock ADD a INT", nil)),
		"STATE LIKE":         more["STATE LIKE"],
		"METADATA_LOCK_INFO": more["METADATA_LOCK_INFO"],
		"IS_USED_LOCK":       more["IS_USED_LOCK"],
		"m.LOCK_STATUS":      rowsOf(),
	})
}

func TestMariaDBsPluginShowsWhoHasMetadataLocks(t *testing.T) {
	w := ask(t, maria(map[string]any{
		"STATE LIKE": rowsOf(row(11, "Waiting for table metadata lock", "ALTER TABLE shop.`stock` ADD a INT"), row(12, "Waiting for table metadata lock", "select * from STOCK where a = 'orders'"),
			row(22, "User lock", "SELECT GET_LOCK('it''s', 10)")),
		"METADATA_LOCK_INFO": rowsOf(
			row(13, "Table metadata lock", "shop.stock", "MDL_SHARED_READ", "GRANTED"),
			row(14, "Table metadata lock", "shop.orders", "MDL_SHARED_NO_READ_WRITE", "GRANTED"),
			row(11, "Table metadata lock", "shop.stock", "MDL_SHARED_UPGRADABLE", "GRANTED"),
			row(21, "User lock", "it's", "MDL_SHARED_NO_WRITE", "GRANTED")),
		"IS_USED_LOCK": rowsOf(),
	}), 11)
	assert.Equal(t, []LockWait{{12, 11, "metadata lock on shop.stock"}, {11, 13, "metadata lock on shop.stock"}}, w.Chain(12, 8)[:2])
	assert.Equal(t, []LockWait{{22, 21, "advisory lock"}}, w.Chain(22, 8))
	assert.Empty(t, w.Hidden)
}

func TestMariaDBWithoutThePlugin(t *testing.T) {
	s := maria(map[string]any{
		"STATE LIKE":         rowsOf(row(11, "Waiting for table metadata lock", "ALTER TABLE stock ADD a INT"), row(22, "User lock", "SELECT GET_LOCK('a', 10)"), row(23, "User lock", "SELECT GET_LOCK(?, 10)")),
		"METADATA_LOCK_INFO": &mysql.MySQLError{Number: 1109},
		"IS_USED_LOCK":       rowsOf(row(21)),
	})
	w := ask(t, s, 11)
	assert.Equal(t, []LockWait{{22, 21, "advisory lock"}}, w.Chain(22, 8), "its holder can be asked for by its name")
	assert.Contains(t, s.asked, "SELECT IS_USED_LOCK(CONVERT(0x61 USING utf8mb4))")
	assert.Equal(t, map[uint64]string{11: "table metadata lock", 23: "advisory lock"}, w.Hidden)
	assert.Equal(t, []string{"INSTALL SONAME 'metadata_lock_info'; has MariaDB show who has a metadata lock"}, w.Lacks)
}

func TestPostgreSQLsAnswer(t *testing.T) {
	s := &scripted{answers: map[string]any{"pg_blocking_pids": rowsOf(
		row(11, "12,0", "transactionid", "shop.stock", "app", "10.0.0.1", "web", "active", "12.5", "UPDATE stock", 99, "app", "app"),
		row(12, nil, nil, nil, "ops", nil, "psql", nil, nil, unseen, 99, "app", "app"),
		row(0, "", nil, nil, nil, nil, nil, nil, nil, nil, 99, "app", "app"))}}
	w, err := postgresLocks.Ask(t.Context(), s, 99, []uint64{11})
	require.NoError(t, err)
	assert.Equal(t, []LockWait{{11, 12, "row lock on shop.stock"}, {11, 0, "row lock on shop.stock"}}, w.Chain(11, 8))
	assert.Equal(t, []string{"GRANT pg_read_all_stats TO app; lets sqllease see what the connections of other users do"}, w.Lacks)
	assert.Empty(t, w.Processes[12].Statement)
	assert.True(t, w.Sees(11))
	assert.Contains(t, s.asked[0], "ARRAY[11]::int[]")
	for kind, want := range map[string]string{"tuple": "row lock on t", "relation": "table lock on t", "advisory": "advisory lock on t", "": "lock"} {
		assert.Equal(t, want, postgresLock(kind, "t"))
	}
	assert.Equal(t, "row or unique key lock", postgresLock("transactionid", ""))
	_, err = postgresLocks.Ask(t.Context(), &scripted{answers: map[string]any{"pg_blocking_pids": rowsOf(row(1, 2))}}, 99, []uint64{1})
	require.ErrorContains(t, err, "column")
}

func TestTheNumberOfAConnection(t *testing.T) {
	n, err := mysqlLocks.Number(t.Context(), &scripted{answers: map[string]any{"CONNECTION_ID": rowsOf(row(17))}})
	require.NoError(t, err)
	assert.Equal(t, uint64(17), n)
	_, err = postgresLocks.Number(t.Context(), &scripted{})
	require.ErrorContains(t, err, "no row")
	_, err = mysqlLocks.Number(t.Context(), &scripted{answers: map[string]any{"CONNECTION_ID": driver.ErrBadConn}})
	require.ErrorIs(t, err, driver.ErrBadConn)
	for _, conn := range []driver.Conn{nil, &scripted{}, (*scripted)(nil)} {
		_, kept := NumberOf(conn)
		assert.False(t, kept, "no driver that is known")
	}
	assert.Equal(t, "KILL 5", mysqlLocks.End(5))
	assert.Equal(t, "SELECT pg_terminate_backend(5)", postgresLocks.End(5))
}

func TestChainsAreBoundedAndEnd(t *testing.T) {
	link := func(from, to uint64) LockWait { return LockWait{from, to, "l"} }
	long := &Waiting{}
	for i := range uint64(20) {
		long.Waits = append(long.Waits, link(i+1, i+2))
	}
	chain := long.Chain(1, 8)
	assert.Len(t, chain, 8)
	assert.Equal(t, link(20, 21), chain[7], "the root is not left out")
	many := &Waiting{}
	for i := range uint64(20) {
		many.Waits = append(many.Waits, link(1, i+2))
	}
	assert.Len(t, many.Chain(1, 8), 8)
	circle := &Waiting{Waits: []LockWait{link(1, 2), link(2, 3), link(3, 1)}}
	assert.Equal(t, []LockWait{link(1, 2), link(2, 3)}, circle.Chain(1, 8))
	assert.Empty(t, circle.Chain(9, 8))
	assert.Empty(t, (&Waiting{Waits: []LockWait{link(1, 1)}}).Chain(1, 8))
	both := &Waiting{Waits: []LockWait{link(1, 2), link(2, 4), link(1, 3), link(3, 4), link(1, 5)}}
	assert.Equal(t, []LockWait{link(1, 5), link(1, 2), link(2, 4)}, both.Chain(1, 8), "the nearest root first, each by one way")
}
