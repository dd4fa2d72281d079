package integration

import (
	"database/sql"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/go-sql-driver/mysql"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/lib/pq"
	"github.com/stretchr/testify/require"

	"github.com/sqllease/sqllease/integration/internal/behaviour"
	"github.com/sqllease/sqllease/integration/internal/servers"
)

// TestGoSQLDriverMySQL and its like do everything that is in
// internal/behaviour, and what only their driver has, bare and through
// sqllease.
func TestGoSQLDriverMySQL(t *testing.T) {
	see := watch(t, maria)
	_, err := see.db.ExecContext(t.Context(), "CREATE DATABASE IF NOT EXISTS behaviours CHARACTER SET utf8mb4")
	require.NoError(t, err)
	server := maria.DSN("behaviours")
	for _, way := range []struct {
		name, params string
		sets         int
		moment       any
		own          []behaviour.Behaviour
	}{
		{"binary protocol", "?parseTime=true", 0, behaviour.At, nil},
		{"text protocol", "?parseTime=true&interpolateParams=true", 0, behaviour.At, nil},
		{"several statements, times as text", "?multiStatements=true&interpolateParams=true", 3, "2026-02-28 23:59:59.123456", multiMySQL},
	} {
		t.Run(way.name, func(t *testing.T) {
			behaviour.Test(t, behaviour.Driver{
				Name: "go-sql-driver/mysql on MariaDB, " + way.name, Open: "mysql", DSN: server + way.params,
				SQL: &mariaSQL, Code: mysqlCode, Columns: mariaColumns(way.moment), Moment: way.moment, Own: slices.Concat(mysqlOwn, way.own),
				Sessions: see.count("SELECT COUNT(*) FROM information_schema.processlist WHERE user = 'root'"),
				Await:    see.await("SELECT COUNT(*)" + mariaSlow),
				Abandon:  see.abandon("SELECT id"+mariaSlow, "KILL %d"),
				Levels: map[sql.IsolationLevel]int{
					sql.LevelDefault: 0, sql.LevelReadUncommitted: 1, sql.LevelReadCommitted: 1,
					sql.LevelRepeatableRead: 0, sql.LevelSerializable: 0, // which holds the other back
				},
				ReadOnly: behaviour.Answer{Code: "1792"}, LastInsertID: true, Sets: way.sets,
			})
		})
	}
}

func TestPgx(t *testing.T) {
	for _, way := range []struct {
		name, params string
		sets         int
	}{
		{"extended protocol", "", 0},
		{"simple protocol", "&default_query_exec_mode=simple_protocol", 1},
	} {
		t.Run(way.name, func(t *testing.T) {
			d := onPostgres(t, "pgx", way.params)
			d.Name = "pgx on PostgreSQL, " + way.name
			d.Sets = way.sets
			d.Levels[sql.LevelSnapshot] = 0 // it makes repeatable read of it
			d.Own = slices.Concat(postgresOwn, pgxOwn)
			behaviour.Test(t, d)
		})
	}
}

func TestLibPQ(t *testing.T) {
	for _, way := range []struct{ name, params string }{
		{"text parameters", ""},
		{"binary parameters", "&binary_parameters=yes"},
	} {
		t.Run(way.name, func(t *testing.T) {
			d := onPostgres(t, "postgres", way.params)
			d.Name = "lib/pq on PostgreSQL, " + way.name
			d.Sets = 3
			d.CancelCode = "57014"
			d.Own = slices.Concat(postgresOwn, pqOwn)
			behaviour.Test(t, d)
		})
	}
}

// onPostgres is what the drivers for PostgreSQL have in common.
func onPostgres(t *testing.T, open, params string) behaviour.Driver {
	see := watch(t, postgres)
	return behaviour.Driver{
		Open: open, DSN: postgres.DSN("") + params, SQL: &postgresSQL, Code: postgresCode, Columns: postgresColumns, Moment: behaviour.At,
		Sessions: see.count("SELECT COUNT(*) FROM pg_stat_activity WHERE backend_type = 'client backend'"),
		Await:    see.await("SELECT COUNT(*)" + postgresSlow),
		Abandon:  see.abandon("SELECT pid"+postgresSlow, "SELECT pg_terminate_backend(%d)"),
		Levels: map[sql.IsolationLevel]int{
			sql.LevelDefault: 1, sql.LevelReadUncommitted: 1, sql.LevelReadCommitted: 1,
			sql.LevelRepeatableRead: 0, sql.LevelSerializable: 0,
		},
		ReadOnly: behaviour.Answer{Code: "25006"}, AbortsTx: true,
		Named: "($2, $1)", // they go by their place
	}
}

// mysqlCode is the number of a MySQL error.
func mysqlCode(err error) string {
	var e *mysql.MySQLError
	if errors.As(err, &e) {
		return fmt.Sprint(e.Number)
	}
	return ""
}

// postgresCode is the SQLSTATE of an error of either driver.
func postgresCode(err error) string {
	var x *pgconn.PgError
	if errors.As(err, &x) {
		return x.Code
	}
	var q *pq.Error
	if errors.As(err, &q) {
		return string(q.Code)
	}
	return ""
}

// mariaSlow and postgresSlow are what follows the SELECT list of a query for
// the sessions that run the slow query: run, not prepare.
const (
	mariaSlow    = " FROM information_schema.processlist WHERE state = 'User sleep'"
	postgresSlow = " FROM pg_stat_activity WHERE wait_event = 'PgSleep'"
)

var mariaSQL = behaviour.SQL{
	ID:     "BIGINT AUTO_INCREMENT PRIMARY KEY",
	Blob:   "LONGBLOB",
	Time:   "DATETIME(6)",
	Series: "SELECT seq FROM seq_1_to_%d",
	Broken: "SELECT seq, (SELECT i.seq FROM seq_1_to_2 i WHERE s.seq = 5) FROM seq_1_to_10 s",
	Slow:   "SELECT SLEEP(30)",
	Take:   "UPDATE locks SET n = n + 1 WHERE id = 1",
	Locked: "SELECT n FROM locks WHERE id = 1 FOR UPDATE NOWAIT",
	NoWait: "SET STATEMENT innodb_lock_wait_timeout = 0 FOR ",
	Failures: []behaviour.Failure{
		{What: "syntax", Statement: "SELEC 1", Code: "1064"},
		{What: "no such table", Statement: "SELECT * FROM nowhere", Code: "1146"},
		{What: "no such column", Statement: "SELECT nothing FROM failures", Code: "1054"},
		{What: "duplicate key", Statement: "INSERT INTO failures VALUES (1, 2)", Code: "1062"},
		{What: "not null", Statement: "INSERT INTO failures VALUES (2, NULL)", Code: "1048"},
		{What: "out of range", Statement: "INSERT INTO failures VALUES (2, 99999999999)", Code: "1264"},
	},
	LockCode: "1205",
	RowCode:  "1242",
}

var postgresSQL = behaviour.SQL{
	Numbered: true,
	ID:       "BIGINT GENERATED BY DEFAULT AS IDENTITY PRIMARY KEY",
	Blob:     "BYTEA",
	Time:     "TIMESTAMPTZ",
	Series:   "SELECT n FROM generate_series(1, %d) n",
	Broken:   "SELECT n, 1 / (5 - n) FROM generate_series(1, 10) n",
	Slow:     "SELECT pg_sleep(30)",
	Take:     "UPDATE locks SET n = n + 1 WHERE id = 1",
	Locked:   "SELECT n FROM locks WHERE id = 1 FOR UPDATE NOWAIT",
	Failures: []behaviour.Failure{
		{What: "syntax", Statement: "SELEC 1", Code: "42601"},
		{What: "no such table", Statement: "SELECT * FROM nowhere", Code: "42P01"},
		{What: "no such column", Statement: "SELECT nothing FROM failures", Code: "42703"},
		{What: "duplicate key", Statement: "INSERT INTO failures VALUES (1, 2)", Code: "23505"},
		{What: "not null", Statement: "INSERT INTO failures VALUES (2, NULL)", Code: "23502"},
		{What: "division by zero", Statement: "SELECT 1 / (n - 1) FROM failures", Code: "22012"},
	},
	LockCode: "55P03",
	RowCode:  "22012",
}

var day = time.Date(2026, 2, 28, 0, 0, 0, 0, time.UTC)

// mariaColumns are MariaDB's types; moment is what the driver makes of
// behaviour.At.
func mariaColumns(moment any) []behaviour.Column {
	var date any = day
	if _, text := moment.(string); text {
		date = "2026-02-28"
	}
	return []behaviour.Column{
		{Name: "c_bool", Type: "BOOLEAN", Literal: "TRUE", Want: true},
		{Name: "c_tinyint", Type: "TINYINT", Literal: "-128", Want: int8(-128)},
		{Name: "c_smallint", Type: "SMALLINT UNSIGNED", Literal: "65535", Want: uint16(65535)},
		{Name: "c_mediumint", Type: "MEDIUMINT", Literal: "-8388608", Want: int32(-8388608)},
		{Name: "c_int", Type: "INT", Literal: "-2147483648", Want: int32(-2147483648)},
		{Name: "c_bigint", Type: "BIGINT", Literal: "9223372036854775807", Want: int64(9223372036854775807)},
		{Name: "c_ubigint", Type: "BIGINT UNSIGNED", Literal: "18446744073709551615", Want: uint64(18446744073709551615)},
		{Name: "c_float", Type: "FLOAT", Literal: "0.5", Want: float32(0.5)},
		{Name: "c_double", Type: "DOUBLE", Literal: "1e-300", Want: 1e-300},
		{Name: "c_decimal", Type: "DECIMAL(30,10)", Literal: "12345678901234567890.0123456789", Want: "12345678901234567890.0123456789"},
		{Name: "c_char", Type: "CHAR(5)", Literal: "'ab'", Want: "ab"},
		{Name: "c_varchar", Type: "VARCHAR(100)", Literal: "'kůň 🐎'", Want: "kůň 🐎"},
		{Name: "c_text", Type: "LONGTEXT", Literal: "REPEAT('x', 1000)", Want: strings.Repeat("x", 1000)},
		{Name: "c_binary", Type: "BINARY(4)", Literal: "x'00ff'", Want: []byte{0, 255, 0, 0}},
		{Name: "c_blob", Type: "BLOB", Literal: "x'00ff275c'", Want: []byte{0, 255, '\'', '\\'}},
		{Name: "c_bit", Type: "BIT(10)", Literal: "b'1000000001'", Want: []byte{2, 1}},
		{Name: "c_enum", Type: "ENUM('one','two')", Literal: "'two'", Want: "two"},
		{Name: "c_set", Type: "SET('a','b','c')", Literal: "'a,c'", Want: "a,c"},
		{Name: "c_json", Type: "JSON", Literal: `'{"a": [1, null]}'`, Want: json.RawMessage(`{"a": [1, null]}`)},
		{Name: "c_date", Type: "DATE", Literal: "'2026-02-28'", Want: date},
		{Name: "c_datetime", Type: "DATETIME(6)", Literal: "'2026-02-28 23:59:59.123456'", Want: moment},
		{Name: "c_time", Type: "TIME(6)", Literal: "'-838:59:58.999999'", Want: "-838:59:58.999999"},
		{Name: "c_year", Type: "YEAR", Literal: "2026", Want: 2026},
		{Name: "c_uuid", Type: "UUID", Literal: "'123e4567-e89b-12d3-a456-426655440000'", Want: "123e4567-e89b-12d3-a456-426655440000"},
		{Name: "c_inet6", Type: "INET6", Literal: "'::1'", Want: "::1"},
	}
}

// postgresColumns are PostgreSQL's types.
var postgresColumns = []behaviour.Column{
	{Name: "c_bool", Type: "BOOLEAN", Literal: "TRUE", Want: true},
	{Name: "c_smallint", Type: "SMALLINT", Literal: "-32768", Want: int16(-32768)},
	{Name: "c_int", Type: "INT", Literal: "-2147483648", Want: int32(-2147483648)},
	{Name: "c_bigint", Type: "BIGINT", Literal: "9223372036854775807", Want: int64(9223372036854775807)},
	{Name: "c_real", Type: "REAL", Literal: "0.5", Want: float32(0.5)},
	{Name: "c_double", Type: "DOUBLE PRECISION", Literal: "1e-300", Want: 1e-300},
	{Name: "c_infinity", Type: "DOUBLE PRECISION", Literal: "'-Infinity'", Want: "-Inf"},
	{Name: "c_numeric", Type: "NUMERIC(30,10)", Literal: "12345678901234567890.0123456789", Want: "12345678901234567890.0123456789"},
	{Name: "c_char", Type: "CHAR(5)", Literal: "'ab'", Want: "ab   "},
	{Name: "c_varchar", Type: "VARCHAR(100)", Literal: "'kůň 🐎'", Want: "kůň 🐎"},
	{Name: "c_text", Type: "TEXT", Literal: "REPEAT('x', 1000)", Want: strings.Repeat("x", 1000)},
	{Name: "c_bytea", Type: "BYTEA", Literal: `'\x00ff275c'`, Want: []byte{0, 255, '\'', '\\'}},
	{Name: "c_json", Type: "JSON", Literal: `'{"a":  [1, null]}'`, Want: json.RawMessage(`{"a":  [1, null]}`)},
	{Name: "c_jsonb", Type: "JSONB", Literal: `'{"a":[1,null]}'`, Want: json.RawMessage(`{"a": [1, null]}`)},
	{Name: "c_date", Type: "DATE", Literal: "'2026-02-28'", Want: day},
	{Name: "c_timestamp", Type: "TIMESTAMP", Literal: "'2026-02-28 23:59:59.123456'", Want: behaviour.At},
	{Name: "c_timestamptz", Type: "TIMESTAMPTZ", Literal: "'2026-02-28 23:59:59.123456+00'", Want: behaviour.At},
	{Name: "c_interval", Type: "INTERVAL", Literal: "'1 day 02:03:04.5'", Want: "1 day 02:03:04.5"},
	{Name: "c_uuid", Type: "UUID", Literal: "'123e4567-e89b-12d3-a456-426655440000'", Want: "123e4567-e89b-12d3-a456-426655440000"},
	{Name: "c_inet", Type: "INET", Literal: "'10.0.0.0/8'", Want: "10.0.0.0/8"},
	{Name: "c_ints", Type: "INT[]", Literal: "'{1,NULL,3}'", Want: "{1,NULL,3}"},
	{Name: "c_texts", Type: "TEXT[]", Literal: `'{{a,"b c"},{NULL,"\""}}'`, Want: `{{a,"b c"},{NULL,"\""}}`},
	{Name: "c_range", Type: "INT4RANGE", Literal: "'[1,5)'", Want: "[1,5)"},
	{Name: "c_point", Type: "POINT", Literal: "'(1,2.5)'", Want: "(1,2.5)"},
	{Name: "c_bits", Type: "VARBIT(10)", Literal: "B'101'", Want: "101"},
}

// watcher looks at a server from a session of its own.
type watcher struct{ db *sql.DB }

func watch(t *testing.T, s *servers.Server) watcher {
	db, err := sql.Open(s.Driver, s.DSN(""))
	require.NoError(t, err)
	db.SetMaxOpenConns(1)
	require.NoError(t, db.PingContext(t.Context()))
	t.Cleanup(func() { require.NoError(t, db.Close()) })
	return watcher{db}
}

// count asks a query for a number.
func (w watcher) count(query string) func(testing.TB) int {
	return func(t testing.TB) (n int) {
		require.NoError(t, w.db.QueryRow(query).Scan(&n))
		return n
	}
}

// await waits until a query counts something.
func (w watcher) await(query string) func(testing.TB) {
	count := w.count(query)
	return func(t testing.TB) {
		require.Eventually(t, func() bool { return count(t) > 0 }, 10*time.Second, time.Millisecond)
	}
}

// abandon ends sessions, by the ids that a query gives.
func (w watcher) abandon(query, end string) func(testing.TB) {
	return func(t testing.TB) {
		rows, err := w.db.Query(query)
		require.NoError(t, err)
		var ids []int
		for rows.Next() {
			var id int
			require.NoError(t, rows.Scan(&id))
			ids = append(ids, id)
		}
		require.NoError(t, rows.Err())
		for _, id := range ids {
			_, _ = w.db.Exec(fmt.Sprintf(end, id)) // it may have ended by now
		}
	}
}
