package mysqlscript_test

import (
	"database/sql"
	"errors"
	"io"
	"log"
	"testing"

	"github.com/go-sql-driver/mysql"
	"go.uber.org/goleak"

	"github.com/sqllease/sqllease/internal/mysqlscript"
)

const askWaitTimeout = "SELECT @@session.wait_timeout"

func TestMain(m *testing.M) {
	_ = mysql.SetLogger(log.New(io.Discard, "", 0))
	goleak.VerifyTestMain(m)
}

// open gives a pool on the server whose driver does not look whether a
// connection is alive before it uses it, so that a test sees the server's ending
// itself.
func open(t *testing.T, s *mysqlscript.Server) *sql.DB {
	t.Helper()
	cfg, err := mysql.ParseDSN(s.DSN())
	if err != nil {
		t.Fatal(err)
	}
	cfg.CheckConnLiveness = false
	connector, err := mysql.NewConnector(cfg)
	if err != nil {
		t.Fatal(err)
	}
	db := sql.OpenDB(connector)
	t.Cleanup(func() {
		if err := db.Close(); err != nil && !errors.Is(err, mysql.ErrInvalidConn) {
			t.Logf("closing the pool: %v", err)
		}
	})
	return db
}

// lease holds one connection of the pool for the rest of the test.
func lease(t *testing.T, db *sql.DB) *sql.Conn {
	t.Helper()
	conn, err := db.Conn(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close() }) // what it says has been tested by then
	return conn
}

func exec(t *testing.T, conn *sql.Conn, statement string) {
	t.Helper()
	if _, err := conn.ExecContext(t.Context(), statement); err != nil {
		t.Fatal(err)
	}
}

func wantMySQLError(t *testing.T, err error, code uint16) {
	t.Helper()
	var failure *mysql.MySQLError
	if !errors.As(err, &failure) || failure.Number != code {
		t.Fatalf("got error %v, want MySQL error %d", err, code)
	}
}

func wantCounts(t *testing.T, s *mysqlscript.Server, want mysqlscript.Counts) {
	t.Helper()
	got := s.Await(t, func(n mysqlscript.Counts) bool { return n.Open == want.Open })
	if got != want {
		t.Fatalf("counts are\n%+v, want\n%+v", got, want)
	}
}

func TestTheZeroScriptServesAnOrdinaryClient(t *testing.T) {
	s := mysqlscript.Start(t, mysqlscript.Script{})
	db := open(t, s)
	db.SetMaxOpenConns(1)

	if err := db.PingContext(t.Context()); err != nil {
		t.Fatal(err)
	}
	var seconds int64
	if err := db.QueryRowContext(t.Context(), askWaitTimeout).Scan(&seconds); err != nil {
		t.Fatal(err)
	}
	if seconds != mysqlscript.DefaultWaitTimeout {
		t.Fatalf("wait_timeout is %d, want %d", seconds, mysqlscript.DefaultWaitTimeout)
	}
	tx, err := db.BeginTx(t.Context(), nil)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := tx.ExecContext(t.Context(), "INSERT INTO t VALUES (1)"); err != nil {
		t.Fatal(err)
	}
	if err := tx.Commit(); err != nil {
		t.Fatal(err)
	}
	if err := db.Close(); err != nil {
		t.Fatal(err)
	}
	wantCounts(t, s, mysqlscript.Counts{
		Accepted: 1, Opened: 1, Quit: 1, Discoveries: 1,
		Uses: 4, // ping, begin, insert, commit
	})
}

func TestASessionIsCountedBeforeItsConnectReturns(t *testing.T) {
	s := mysqlscript.Start(t, mysqlscript.Script{})
	db := open(t, s)
	for n := 1; n <= 5; n++ {
		lease(t, db)
		if got := s.Counts(); got.Open != n || got.Opened != n {
			t.Fatalf("after %d connects the counts are %+v", n, got)
		}
	}
}

func TestPreparedStatementsAreCounted(t *testing.T) {
	s := mysqlscript.Start(t, mysqlscript.Script{})
	db := open(t, s)
	conn := lease(t, db)
	stmt, err := conn.PrepareContext(t.Context(), "UPDATE t SET a = ? WHERE b = ?")
	if err != nil {
		t.Fatal(err)
	}
	for range 3 {
		if _, err := stmt.ExecContext(t.Context(), 1, "two"); err != nil {
			t.Fatal(err)
		}
	}
	if got := s.Counts(); got.Prepared != 1 || got.Unprepared != 0 || got.Uses != 3 {
		t.Fatalf("before the statement is closed the counts are %+v", got)
	}
	if err := stmt.Close(); err != nil {
		t.Fatal(err)
	}
	// COM_STMT_CLOSE has no answer: only the server knows when it has come.
	s.Await(t, func(n mysqlscript.Counts) bool { return n.Unprepared == 1 })
}

func TestAChangeIsForNewSessionsOnly(t *testing.T) {
	s := mysqlscript.Start(t, mysqlscript.Script{
		Statements: map[string]mysqlscript.Answer{"SELECT v": mysqlscript.Text("old")},
	})
	db := open(t, s)
	before := lease(t, db)
	s.Change(func(script *mysqlscript.Script) {
		script.Statements["SELECT v"] = mysqlscript.Text("new")
	})
	after := lease(t, db)
	for conn, want := range map[*sql.Conn]string{before: "old", after: "new"} {
		var got string
		if err := conn.QueryRowContext(t.Context(), "SELECT v").Scan(&got); err != nil || got != want {
			t.Fatalf("got %q, %v; want %q", got, err, want)
		}
	}
}
