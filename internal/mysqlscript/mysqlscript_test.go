package mysqlscript_test

import (
	"context"
	"database/sql"
	"database/sql/driver"
	"errors"
	"io"
	"log"
	"net"
	"strings"
	"syscall"
	"testing"
	"time"

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

func TestStatementsAnswerByTheScript(t *testing.T) {
	long := strings.Repeat("x", 70_000)
	middle := strings.Repeat("y", 300)
	s := mysqlscript.Start(t, mysqlscript.Script{
		Statements: map[string]mysqlscript.Answer{
			"SELECT name": mysqlscript.Rows("name", "short", nil, "", middle, long),
			"SELECT n":    mysqlscript.Rows("n", uint64(1), nil, uint64(1<<40)),
			"SELECT none": mysqlscript.NoRows(),
			"SELECT bad":  mysqlscript.Fail(1064, "You have an error in your SQL syntax"),
		},
	})
	db := open(t, s)

	queries := map[string]func(string) (*sql.Rows, error){
		"text": func(statement string) (*sql.Rows, error) {
			return db.QueryContext(t.Context(), statement)
		},
		"prepared": func(statement string) (*sql.Rows, error) {
			prepared, err := db.PrepareContext(t.Context(), statement)
			if err != nil {
				return nil, err
			}
			t.Cleanup(func() { _ = prepared.Close() })
			return prepared.QueryContext(t.Context())
		},
	}
	for name, query := range queries {
		t.Run(name, func(t *testing.T) {
			rows, err := query("SELECT name")
			names := scan[string](t, rows, err)
			wantValues(t, names, value("short"), null[string](), value(""), value(middle), value(long))

			rows, err = query("SELECT n")
			numbers := scan[uint64](t, rows, err)
			wantValues(t, numbers, value(uint64(1)), null[uint64](), value(uint64(1<<40)))

			rows, err = query("SELECT none")
			wantValues(t, scan[string](t, rows, err))

			_, err = query("SELECT bad")
			wantMySQLError(t, err, 1064)
		})
	}
	if got := s.Counts(); got.Open != 1 {
		t.Fatalf("an error packet must not cost the session; the counts are %+v", got)
	}
}

func value[T any](v T) sql.Null[T] { return sql.Null[T]{V: v, Valid: true} }
func null[T any]() sql.Null[T]     { return sql.Null[T]{} }

func scan[T any](t *testing.T, rows *sql.Rows, err error) []sql.Null[T] {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = rows.Close() }()
	var values []sql.Null[T]
	for rows.Next() {
		var v sql.Null[T]
		if err := rows.Scan(&v); err != nil {
			t.Fatal(err)
		}
		values = append(values, v)
	}
	if err := rows.Err(); err != nil {
		t.Fatal(err)
	}
	return values
}

func wantValues[T comparable](t *testing.T, got []sql.Null[T], want ...sql.Null[T]) {
	t.Helper()
	if len(got) != len(want) {
		t.Fatalf("got %d rows, want %d", len(got), len(want))
	}
	for i := range want {
		if got[i] != want[i] {
			t.Fatalf("row %d is %v, want %v", i, got[i], want[i])
		}
	}
}

// A server's variables are unsigned, and the driver shows it: code that reads a
// driver.Value must be ready for a uint64.
func TestWaitTimeoutReachesTheDriverAsAnUnsignedNumber(t *testing.T) {
	s := mysqlscript.Start(t, mysqlscript.Script{WaitTimeout: mysqlscript.Number(90)})
	var got any
	if err := open(t, s).QueryRowContext(t.Context(), askWaitTimeout).Scan(&got); err != nil {
		t.Fatal(err)
	}
	if got != uint64(90) {
		t.Fatalf("wait_timeout is %T %v, want uint64 90", got, got)
	}
}

func TestWaitTimeoutAnswersAnything(t *testing.T) {
	t.Run("error", func(t *testing.T) {
		_, err := discover(t, t.Context(), mysqlscript.Fail(1193, "Unknown system variable 'wait_timeout'"))
		wantMySQLError(t, err, 1193)
	})
	t.Run("nonsense", func(t *testing.T) {
		got, err := discover(t, t.Context(), mysqlscript.Text("a while"))
		if err != nil || got != "a while" {
			t.Fatalf("got %q, %v", got, err)
		}
	})
	t.Run("no rows", func(t *testing.T) {
		_, err := discover(t, t.Context(), mysqlscript.NoRows())
		if !errors.Is(err, sql.ErrNoRows) {
			t.Fatalf("got %v, want sql.ErrNoRows", err)
		}
	})
	t.Run("closed", func(t *testing.T) {
		_, err := discover(t, t.Context(), mysqlscript.Disconnect(mysqlscript.FIN))
		if !errors.Is(err, mysql.ErrInvalidConn) {
			t.Fatalf("got %v, want mysql.ErrInvalidConn", err)
		}
	})
	t.Run("silence", func(t *testing.T) {
		ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
		defer cancel()
		_, err := discover(t, ctx, mysqlscript.Hang())
		if !errors.Is(err, context.DeadlineExceeded) {
			t.Fatalf("got %v, want the context's error", err)
		}
	})
	t.Run("late", func(t *testing.T) {
		got, err := discover(t, t.Context(), mysqlscript.After(10*time.Millisecond, mysqlscript.Number(7)))
		if err != nil || got != "7" {
			t.Fatalf("got %q, %v", got, err)
		}
	})
}

func discover(t *testing.T, ctx context.Context, answer mysqlscript.Answer) (string, error) {
	t.Helper()
	s := mysqlscript.Start(t, mysqlscript.Script{WaitTimeout: answer})
	var got string
	err := open(t, s).QueryRowContext(ctx, askWaitTimeout).Scan(&got)
	if n := s.Counts(); n.Discoveries != 1 || n.Uses != 0 {
		t.Fatalf("the counts are %+v, want one discovery and no use", n)
	}
	return got, err
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

func TestAnIdleSessionIsEnded(t *testing.T) {
	const limit = 30 * time.Millisecond

	start := func(t *testing.T, how mysqlscript.Ending) (*mysqlscript.Server, *sql.Conn) {
		s := mysqlscript.Start(t, mysqlscript.Script{IdleLimit: limit, IdleEnding: how})
		conn := lease(t, open(t, s))
		s.Await(t, func(n mysqlscript.Counts) bool { return n.IdleEnded == 1 && n.Open == 0 })
		return s, conn
	}
	t.Run("with FIN", func(t *testing.T) {
		_, conn := start(t, mysqlscript.FIN)
		_, err := conn.ExecContext(t.Context(), "DO 1")
		if !errors.Is(err, mysql.ErrInvalidConn) && !errors.Is(err, driver.ErrBadConn) {
			t.Fatalf("got %v, want a connection that is no good", err)
		}
	})
	t.Run("with error 4031", func(t *testing.T) {
		_, conn := start(t, mysqlscript.TimeoutError)
		_, err := conn.ExecContext(t.Context(), "DO 1")
		if errors.Is(err, mysql.ErrPktSync) {
			return // releases of the driver before 1.9 expect no error that they have not asked for
		}
		wantMySQLError(t, err, 4031)
	})
	t.Run("with RST", func(t *testing.T) {
		_, conn := start(t, mysqlscript.RST)
		if _, err := conn.ExecContext(t.Context(), "DO 1"); err == nil {
			t.Fatal("a statement went through on a session that was reset")
		}
	})
}

// What the driver makes of an ending differs between its versions; what is on
// the wire does not.
func TestEndingsOnTheWire(t *testing.T) {
	logIn := func(t *testing.T, how mysqlscript.Ending) net.Conn {
		s := mysqlscript.Start(t, mysqlscript.Script{Login: mysqlscript.Disconnect(how)})
		conn, err := net.Dial("tcp", s.Addr())
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = conn.Close() })
		greeting := make([]byte, 4)
		if _, err := io.ReadFull(conn, greeting); err != nil {
			t.Fatal(err)
		}
		if _, err := io.CopyN(io.Discard, conn, int64(greeting[0])); err != nil {
			t.Fatal(err)
		}
		if _, err := conn.Write([]byte{1, 0, 0, 1, 0}); err != nil { // a login of one byte
			t.Fatal(err)
		}
		return conn
	}
	t.Run("FIN", func(t *testing.T) {
		if got, err := io.ReadAll(logIn(t, mysqlscript.FIN)); err != nil || len(got) != 0 {
			t.Fatalf("read %q, %v; want the end of the stream", got, err)
		}
	})
	t.Run("RST", func(t *testing.T) {
		if _, err := io.ReadAll(logIn(t, mysqlscript.RST)); !errors.Is(err, syscall.ECONNRESET) {
			t.Fatalf("read ended with %v, want a reset", err)
		}
	})
	t.Run("error 4031", func(t *testing.T) {
		got, err := io.ReadAll(logIn(t, mysqlscript.TimeoutError))
		if err != nil {
			t.Fatalf("read ended with %v, want the end of the stream", err)
		}
		// Sequence number 0: nobody had asked.
		if len(got) < 7 || got[3] != 0 || got[4] != 0xff || got[5] != 4031&0xff || got[6] != 4031>>8 {
			t.Fatalf("read %q, want error packet 4031", got)
		}
	})
}

func TestUseKeepsASessionFromBeingIdle(t *testing.T) {
	const limit = 200 * time.Millisecond
	s := mysqlscript.Start(t, mysqlscript.Script{
		IdleLimit: limit,
		// Longer than the limit: a session that works is not idle.
		Statements: map[string]mysqlscript.Answer{"DO SLEEP(1)": mysqlscript.After(2*limit, mysqlscript.OK())},
	})
	conn := lease(t, open(t, s))
	exec(t, conn, "DO SLEEP(1)")
	exec(t, conn, "DO 1")
	if got := s.Counts(); got.IdleEnded != 0 || got.Open != 1 {
		t.Fatalf("a session was ended at its work; the counts are %+v", got)
	}
}

func TestTheServerMayRefuseAClient(t *testing.T) {
	tooMany := mysqlscript.Fail(1040, "Too many connections")
	denied := mysqlscript.Fail(1045, "Access denied")

	cases := map[string]struct {
		script mysqlscript.Script
		check  func(*testing.T, error)
	}{
		"too many connections": {mysqlscript.Script{Greeting: tooMany}, wantCode(1040)},
		"access denied":        {mysqlscript.Script{Login: denied}, wantCode(1045)},
		"closed at once":       {mysqlscript.Script{Greeting: mysqlscript.Disconnect(mysqlscript.FIN)}, wantNotConnected},
		"reset at once":        {mysqlscript.Script{Greeting: mysqlscript.Disconnect(mysqlscript.RST)}, wantNotConnected},
		"closed at the login":  {mysqlscript.Script{Login: mysqlscript.Disconnect(mysqlscript.FIN)}, wantNotConnected},
		"reset at the login":   {mysqlscript.Script{Login: mysqlscript.Disconnect(mysqlscript.RST)}, wantNotConnected},
	}
	for name, c := range cases {
		t.Run(name, func(t *testing.T) {
			s := mysqlscript.Start(t, c.script)
			c.check(t, open(t, s).PingContext(t.Context()))
			if got := s.Counts(); got.Accepted == 0 || got.Opened != 0 || got.Open != 0 {
				t.Fatalf("the counts are %+v, want connections and no session", got)
			}
		})
	}
}

func wantCode(code uint16) func(*testing.T, error) {
	return func(t *testing.T, err error) { wantMySQLError(t, err, code) }
}

func wantNotConnected(t *testing.T, err error) {
	t.Helper()
	if err == nil {
		t.Fatal("a client connected that the server had turned away")
	}
}

func TestALoginThatHangsIsLeftByItsContext(t *testing.T) {
	for name, script := range map[string]mysqlscript.Script{
		"before the greeting": {Greeting: mysqlscript.Hang()},
		"after the login":     {Login: mysqlscript.Hang()},
	} {
		t.Run(name, func(t *testing.T) {
			s := mysqlscript.Start(t, script)
			ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
			defer cancel()
			if err := open(t, s).PingContext(ctx); !errors.Is(err, context.DeadlineExceeded) {
				t.Fatalf("got %v, want the context's error", err)
			}
		})
	}
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

func TestEndAllEndsSessionsWhateverTheyDo(t *testing.T) {
	s := mysqlscript.Start(t, mysqlscript.Script{
		Statements: map[string]mysqlscript.Answer{"SELECT SLEEP(1000)": mysqlscript.Hang()},
	})
	db := open(t, s)
	lease(t, db)
	working := lease(t, db)
	done := make(chan error)
	go func() {
		_, err := working.ExecContext(t.Context(), "SELECT SLEEP(1000)")
		done <- err
	}()
	s.Await(t, func(n mysqlscript.Counts) bool { return n.Uses == 1 })
	s.EndAll(mysqlscript.FIN)
	if err := <-done; !errors.Is(err, mysql.ErrInvalidConn) {
		t.Fatalf("got %v, want mysql.ErrInvalidConn", err)
	}
	s.Await(t, func(n mysqlscript.Counts) bool { return n.Open == 0 })
}

func TestTheServerEndsWithItsTestAndTakesItsSessionsWithIt(t *testing.T) {
	var db *sql.DB
	t.Run("a test that leaves sessions behind", func(t *testing.T) {
		cfg, err := mysql.ParseDSN(mysqlscript.Start(t, mysqlscript.Script{}).DSN())
		if err != nil {
			t.Fatal(err)
		}
		connector, err := mysql.NewConnector(cfg)
		if err != nil {
			t.Fatal(err)
		}
		db = sql.OpenDB(connector)
		if err := db.PingContext(t.Context()); err != nil {
			t.Fatal(err)
		}
	})
	defer func() { _ = db.Close() }() // its session is gone, and may say so
	if err := db.PingContext(t.Context()); err == nil {
		t.Fatal("the server has outlived its test")
	}
}

func TestARowsValueOfAnotherTypeIsAMistakeInTheScript(t *testing.T) {
	for name, values := range map[string][]any{
		"a type that is not spoken": {1.5},
		"two types":                 {"one", uint64(2)},
	} {
		t.Run(name, func(t *testing.T) {
			defer func() {
				if recover() == nil {
					t.Fatal("the script was taken")
				}
			}()
			mysqlscript.Rows("c", values...)
		})
	}
}
