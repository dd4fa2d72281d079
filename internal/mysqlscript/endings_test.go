package mysqlscript_test

import (
	"context"
	"database/sql"
	"database/sql/driver"
	"errors"
	"io"
	"net"
	"syscall"
	"testing"
	"time"

	"github.com/go-sql-driver/mysql"

	"github.com/sqllease/sqllease/internal/mysqlscript"
)

// How sessions end, and how clients are turned away.

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
