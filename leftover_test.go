package sqllease

import (
	"context"
	"database/sql"
	"database/sql/driver"
	"log/slog"
	"runtime"
	"testing"
	"testing/synctest"
	"time"
	"weak"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/sqllease/sqllease/internal/nothing"
)

// A statement that a session has left over from a ticket which was dropped is closed when
// nobody has its text any more, however its last user lost it.
func TestAStatementLeftOverIsClosedWhenTheSessionOfItsLastUserEnds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := &gateFake{t: t}
		db, c := f.open(Config{MaxOpen: 2, MaxLifetime: time.Hour})
		ctx := t.Context()
		one, err := db.Conn(ctx)
		require.NoError(t, err)
		<-time.After(30 * time.Minute)
		two, err := db.Conn(ctx) // it lives on for longer
		require.NoError(t, err)
		require.NoError(t, two.Close())
		st, err := db.PrepareContext(ctx, "SELECT 1") // on two
		require.NoError(t, err)
		holds, err := db.Conn(ctx)
		require.NoError(t, err)
		waits := make(chan *sql.Conn, 1)
		go func() { conn, _ := db.Conn(context.Background()); waits <- conn }()
		synctest.Wait()
		require.NoError(t, holds.Close()) // its session is handed over, and its ticket dropped
		two = <-waits
		require.NoError(t, one.Close())
		_, err = st.ExecContext(ctx) // on one
		require.NoError(t, err)
		require.NoError(t, two.Close())
		f.mu.Lock()
		left := f.conns[1]
		f.mu.Unlock()
		require.Equal(t, int32(1), left.stmts.Load(), "it is kept, for it may be wanted again")
		<-time.After(30 * time.Minute) // one expires
		require.NoError(t, st.Close())
		<-time.After(2 * longestKeep)
		synctest.Wait()
		assert.Equal(t, 1, c.Stats().Open)
		assert.Zero(t, left.stmts.Load(), "bare database/sql would have left none")
		f.end(db, c)
	})
}

// bareAndWrapped runs a scene with both ways to open a database on such a driver.
func bareAndWrapped(t *testing.T, play func(t *testing.T, f *plainFake, db *sql.DB)) {
	for name, open := range map[string]func(f *plainFake) (*sql.DB, error){
		"bare":    func(f *plainFake) (*sql.DB, error) { return sql.OpenDB(f), nil },
		"wrapped": func(f *plainFake) (*sql.DB, error) { return OpenDB(f, Config{Logger: slog.New(slog.DiscardHandler)}) },
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				f := &plainFake{}
				db, err := open(f)
				require.NoError(t, err)
				play(t, f, db)
				<-time.After(time.Minute)
				assert.Zero(t, f.stmts.Load(), "the application has closed it")
				require.NoError(t, db.Close())
			})
		})
	}
}

// A transaction whose context ends loses its connection, where the driver cannot reset
// one, and database/sql closes the transaction's statements first. One that was made of
// another, by Tx.Stmt, holds that until then.
func TestATransactionThatIsLostLetsGoOfTheStatementsItWasGiven(t *testing.T) {
	bareAndWrapped(t, func(t *testing.T, f *plainFake, db *sql.DB) {
		st, err := db.Prepare("SELECT 1")
		require.NoError(t, err)
		ctx, cancel := context.WithCancel(t.Context())
		tx, err := db.BeginTx(ctx, nil) // on the connection of the statement
		require.NoError(t, err)
		_, err = st.Exec() // on another one
		require.NoError(t, err)
		_, err = tx.Stmt(st).Exec()
		require.NoError(t, err)
		require.EqualValues(t, 2, f.stmts.Load())
		cancel()
		synctest.Wait()
		require.NoError(t, st.Close())
	})
}

// So does one on a *sql.Conn, which loses its connection with it.
func TestATransactionThatIsLostOnAConnLetsGoOfTheStatementsItWasGiven(t *testing.T) {
	bareAndWrapped(t, func(t *testing.T, f *plainFake, db *sql.DB) {
		conn, err := db.Conn(t.Context())
		require.NoError(t, err)
		st, err := db.Prepare("SELECT 1") // on another connection
		require.NoError(t, err)
		ctx, cancel := context.WithCancel(t.Context())
		tx, err := conn.BeginTx(ctx, nil)
		require.NoError(t, err)
		_, err = tx.Stmt(st).Exec()
		require.NoError(t, err)
		require.EqualValues(t, 2, f.stmts.Load())
		cancel()
		synctest.Wait()
		_, err = conn.ExecContext(t.Context(), "DO 1")
		require.ErrorIs(t, err, sql.ErrConnDone, "the connection went with its transaction")
		require.ErrorIs(t, conn.Close(), sql.ErrConnDone)
		require.NoError(t, st.Close())
		if c, ok := ConnectorOf(db); ok {
			assert.Zero(t, c.Stats().Closed.Dead(), "no other connection is suspected for it")
		}
	})
}

// What the gate closes of its own accord is closed as database/sql would close it: the
// statements first. A driver may keep what they hold for ever otherwise, as SQLite does.
func TestASessionThatExpiresHasItsStatementsClosedBeforeIt(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := &gateFake{t: t}
		db, c := f.open(Config{MaxLifetime: time.Hour})
		st, err := db.PrepareContext(t.Context(), "SELECT 1")
		require.NoError(t, err)
		<-time.After(2 * time.Hour)
		require.Zero(t, c.Stats().Open)
		assert.Zero(t, f.conns[0].stmts.Load())
		_, err = st.ExecContext(t.Context())
		require.NoError(t, err)
		require.NoError(t, st.Close())
		f.end(db, c)
	})
}

// lateFake is a driver whose results ask their connection.
type lateFake struct{ *gateFake }

func (f lateFake) Connect(ctx context.Context) (driver.Conn, error) {
	c, err := f.gateFake.Connect(ctx)
	if err != nil {
		return nil, err
	}
	return lateFakeConn{c.(*gateFakeConn)}, nil
}

type lateFakeConn struct{ *gateFakeConn }

func (c lateFakeConn) ExecContext(ctx context.Context, _ string, _ []driver.NamedValue) (driver.Result, error) {
	return lateFakeResult{c.gateFakeConn}, c.call(ctx, "exec")
}

type lateFakeResult struct{ c *gateFakeConn }

func (r lateFakeResult) LastInsertId() (int64, error) { return 1, nil }
func (r lateFakeResult) RowsAffected() (int64, error) {
	return 1, r.c.call(context.Background(), "rows affected")
}

// A late result takes turns with the reset and the closing of its session, too.
func TestALateResultIsNotAskedDuringAResetOrAClose(t *testing.T) {
	for name, then := range map[string]func(t *testing.T, db *sql.DB, c *Connector){
		"reset for a ticket": func(t *testing.T, db *sql.DB, _ *Connector) {
			require.NoError(t, db.PingContext(t.Context()))
		},
		"close": func(_ *testing.T, _ *sql.DB, c *Connector) { c.SetMaxOpen(1) },
	} {
		t.Run(name, func(t *testing.T) {
			asking := make(chan struct{})
			f := &gateFake{t: t, script: func(_ context.Context, _ *gateFakeConn, call string) error {
				if call == "rows affected" {
					close(asking)
					<-time.After(100 * time.Millisecond)
				}
				return nil
			}}
			c, err := Wrap(lateFake{f}, Config{MaxOpen: 1})
			require.NoError(t, err)
			db := sql.OpenDB(c)
			c.Attach(db)
			holder, err := db.Conn(t.Context())
			require.NoError(t, err)
			res, err := holder.ExecContext(t.Context(), "DO 1")
			require.NoError(t, err)
			waits := make(chan *sql.Conn, 1)
			go func() { conn, _ := db.Conn(context.Background()); waits <- conn }()
			require.Eventually(t, func() bool { return c.Stats().Waiting == 1 }, time.Minute, time.Millisecond)
			require.NoError(t, holder.Close()) // the session goes to whoever waits
			conn := <-waits
			c.SetMaxOpen(2)
			second, err := db.Conn(t.Context())
			require.NoError(t, err)
			require.NoError(t, conn.Close()) // it is ready
			asked := make(chan error, 1)
			go func() { _, err := res.RowsAffected(); asked <- err }()
			<-asking
			then(t, db, c)
			require.NoError(t, <-asked)
			require.NoError(t, second.Close())
			f.close(db, c)
		})
	}
}

// A ticket remembers the session that it had last, which may be closed long before it is
// used again. The driver's connection has buffers, and is let go.
func TestAFreeTicketKeepsNoConnectionThatWasClosed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := &weakDriver{}
		db, err := OpenDB(d, Config{MaxLifetime: time.Hour, Logger: slog.New(slog.DiscardHandler)})
		require.NoError(t, err)
		require.NoError(t, db.PingContext(t.Context()))
		require.NotNil(t, d.last.Value())
		<-time.After(2 * time.Hour)
		synctest.Wait()
		runtime.GC()
		assert.Nil(t, d.last.Value())
		assert.Equal(t, 1, db.Stats().Idle, "as database/sql counts, which has the ticket")
		require.NoError(t, db.Close())
	})
}

// weakDriver remembers its last connection without keeping it.
type weakDriver struct{ last weak.Pointer[weakConn] }

func (d *weakDriver) Connect(context.Context) (driver.Conn, error) {
	c := &weakConn{buffer: make([]byte, 4096)}
	d.last = weak.Make(c)
	return c, nil
}

func (d *weakDriver) Driver() driver.Driver { return nothing.Driver{}.Driver() }

type weakConn struct{ buffer []byte }

func (*weakConn) Prepare(string) (driver.Stmt, error) { return nil, driver.ErrSkip }
func (*weakConn) Close() error                        { return nil }
func (*weakConn) Begin() (driver.Tx, error)           { return nil, driver.ErrSkip }
