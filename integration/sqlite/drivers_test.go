// Package sqlite runs sqllease on two drivers for SQLite, in a module of its
// own: one needs a C compiler, the other takes a minute to compile.
package sqlite

import (
	"database/sql"
	"database/sql/driver"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/mattn/go-sqlite3"
	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"
	modernc "modernc.org/sqlite"

	"github.com/sqllease/sqllease/integration/internal/behaviour"
)

func TestMain(m *testing.M) {
	modernc.MustRegisterScalarFunction("running", 0, func(*modernc.FunctionContext, []driver.Value) (driver.Value, error) {
		return run(), nil
	})
	sql.Register("sqlite3_running", &sqlite3.SQLiteDriver{ConnectHook: func(c *sqlite3.SQLiteConn) error {
		return c.RegisterFunc("running", run, false)
	}})
	goleak.VerifyTestMain(m)
}

// running tells that SQLite has called the function of this name, which the
// slow query does: there is no server to ask.
var running = make(chan struct{}, 1)

func run() int64 {
	select {
	case running <- struct{}{}:
	default:
	}
	return 0
}

func await(t testing.TB) {
	select {
	case <-running:
	case <-time.After(10 * time.Second):
		t.Error("the slow query does not run")
	}
}

// TestModernc and TestMattn do everything that is in
// integration/internal/behaviour, and what only their driver has, bare and
// through sqllease.
func TestModernc(t *testing.T) {
	file := filepath.Join(t.TempDir(), "modernc.db")
	d := onSQLite(file)
	d.Name = "modernc.org/sqlite"
	d.Open = "sqlite"
	d.DSN = "file:" + file + "?_pragma=busy_timeout(2000)&_pragma=journal_mode(WAL)&_pragma=synchronous(OFF)&_time_format=sqlite"
	d.Own = []behaviour.Behaviour{{Name: "a copy of the database through Conn.Raw", Do: serialize}}
	behaviour.Test(t, d)
}

func TestMattn(t *testing.T) {
	file := filepath.Join(t.TempDir(), "mattn.db")
	d := onSQLite(file)
	d.Name = "mattn/go-sqlite3"
	d.Open = "sqlite3_running"
	d.DSN = "file:" + file + "?_busy_timeout=2000&_journal_mode=WAL&_synchronous=OFF"
	d.Own = []behaviour.Behaviour{
		{Name: "a copy of the database through Conn.Raw", Do: backup},
		{Name: "limits through Conn.Raw", Do: limits},
	}
	behaviour.Test(t, d)
}

// onSQLite is what both drivers have in common.
func onSQLite(file string) behaviour.Driver {
	return behaviour.Driver{
		SQL: &sqliteSQL, Code: code, Columns: columns, Moment: behaviour.At,
		Sessions: func(t testing.TB) int { return opened(t, file) },
		Await:    await,
		Named:    "(:a, :b)",
		Levels:   levels,
		Sets:     1, LastInsertID: true,
	}
}

// levels are all there are, and none: both drivers take every level, and a
// transaction sees the database as it was at its first look.
var levels = map[sql.IsolationLevel]int{
	sql.LevelDefault: 0, sql.LevelReadUncommitted: 0, sql.LevelReadCommitted: 0, sql.LevelWriteCommitted: 0,
	sql.LevelRepeatableRead: 0, sql.LevelSnapshot: 0, sql.LevelSerializable: 0, sql.LevelLinearizable: 0,
	sql.LevelLinearizable + 1: 0,
}

// opened counts how often this process has the database open.
func opened(t testing.TB, file string) (n int) {
	entries, err := os.ReadDir("/proc/self/fd")
	require.NoError(t, err)
	for _, e := range entries {
		if name, err := os.Readlink("/proc/self/fd/" + e.Name()); err == nil && name == file {
			n++
		}
	}
	return n
}

// code is SQLite's extended result code.
func code(err error) string {
	var m *modernc.Error
	if errors.As(err, &m) {
		return fmt.Sprint(m.Code())
	}
	var c sqlite3.Error
	if errors.As(err, &c) {
		return fmt.Sprint(int(c.ExtendedCode))
	}
	return ""
}

var sqliteSQL = behaviour.SQL{
	ID:     "INTEGER PRIMARY KEY AUTOINCREMENT",
	Blob:   "BLOB",
	Time:   "TIMESTAMP",
	Series: "WITH RECURSIVE s(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM s WHERE n < %d) SELECT n FROM s",
	Broken: "WITH RECURSIVE s(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM s WHERE n < 10) SELECT n, abs(iif(n = 5, -9223372036854775807 - 1, n)) FROM s",
	Slow:   "WITH RECURSIVE s(n) AS (SELECT running() UNION ALL SELECT n + 1 FROM s) SELECT COUNT(*) FROM s",
	Take:   "UPDATE locks SET n = n + 1 WHERE id = 1",
	Locked: "PRAGMA busy_timeout = 0; UPDATE locks SET n = n + 1 WHERE id = 1",
	Failures: []behaviour.Failure{
		{What: "syntax", Statement: "SELEC 1", Code: "1"},
		{What: "no such table", Statement: "SELECT * FROM nowhere", Code: "1"},
		{What: "no such column", Statement: "SELECT nothing FROM failures", Code: "1"},
		{What: "duplicate key", Statement: "INSERT INTO failures VALUES (1, 2)", Code: "1555"},
		{What: "not null", Statement: "INSERT INTO failures VALUES (2, NULL)", Code: "1299"},
	},
	LockCode: "5",
	RowCode:  "1",
}

// columns are the types that SQLite and its drivers know of.
var columns = []behaviour.Column{
	{Name: "c_bool", Type: "BOOLEAN", Literal: "TRUE", Want: true},
	{Name: "c_integer", Type: "INTEGER", Literal: "9223372036854775807", Want: int64(9223372036854775807)},
	{Name: "c_real", Type: "REAL", Literal: "1e-300", Want: 1e-300},
	{Name: "c_decimal", Type: "DECIMAL(10,2)", Literal: "12345.67", Want: "12345.67"},
	{Name: "c_text", Type: "TEXT", Literal: "'kůň 🐎'", Want: "kůň 🐎"},
	{Name: "c_varchar", Type: "VARCHAR(2000)", Literal: "printf('%.1000c', 'x')", Want: strings.Repeat("x", 1000)},
	{Name: "c_blob", Type: "BLOB", Literal: "x'00ff275c'", Want: []byte{0, 255, '\'', '\\'}},
	{Name: "c_json", Type: "JSON", Literal: `json('{"a":  [1, null]}')`, Want: `{"a":[1,null]}`},
	{Name: "c_date", Type: "DATE", Literal: "'2026-02-28'", Want: time.Date(2026, 2, 28, 0, 0, 0, 0, time.UTC)},
	{Name: "c_timestamp", Type: "TIMESTAMP", Literal: "'2026-02-28 23:59:59.123456'", Want: behaviour.At},
	{Name: "c_any", Type: "", Literal: "'any'", Want: "any"},
}

// serialize takes a copy of the database from modernc's connection.
func serialize(r *behaviour.Run) {
	r.Table("copied", "id INT")
	conn := r.Conn()
	r.OK(behaviour.Raw(r, conn, func(c interface{ Serialize() ([]byte, error) }) error {
		copied, err := c.Serialize()
		r.Is("its head", true, strings.HasPrefix(string(copied), "SQLite format 3\x00"))
		return err
	}))
}

// backup copies the database into another by mattn's connections.
func backup(r *behaviour.Run) {
	r.Table("copied", "id INT")
	r.Exec(r.DB, "INSERT INTO copied VALUES (1), (2), (3)")
	other, err := sql.Open("sqlite3", "file:"+filepath.Join(r.TempDir(), "copy.db"))
	r.OK(err)
	defer func() { r.OK(other.Close()) }()
	to, err := other.Conn(r.Context())
	r.OK(err)
	r.OK(to.Raw(func(to any) error {
		return behaviour.Raw(r, r.Conn(), func(from *sqlite3.SQLiteConn) error {
			b, err := to.(*sqlite3.SQLiteConn).Backup("main", from, "main")
			if err != nil {
				return err
			}
			done, err := b.Step(-1)
			r.Is("done", true, done)
			return errors.Join(err, b.Finish())
		})
	}))
	r.OK(to.Close())
	r.Is("rows of the copy", 3, r.Count(other, "copied"))
}

// limits sets a limit of one of mattn's connections.
func limits(r *behaviour.Run) {
	conn := r.Conn()
	r.OK(behaviour.Raw(r, conn, func(c *sqlite3.SQLiteConn) error {
		r.Saw("the limit before", c.SetLimit(sqlite3.SQLITE_LIMIT_SQL_LENGTH, 30))
		r.Is("outside a transaction", true, c.AutoCommit())
		return nil
	}))
	_, err := conn.ExecContext(r.Context(), "SELECT 'a statement that is longer than this'")
	r.FailsWith("18", "a statement that is too long", err)
}
