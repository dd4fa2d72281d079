package sqllease

import (
	"context"
	"database/sql"
	"errors"
	"log/slog"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// The application's own functions, OnLeak and the Logger's handler, may use the
// very database that they are told of: nothing may wait for them.

// reentrant is a slog.Handler that writes to the database.
type reentrant struct {
	slog.Handler
	write func()
}

func (h reentrant) Enabled(context.Context, slog.Level) bool  { return true }
func (h reentrant) Handle(context.Context, slog.Record) error { h.write(); return nil }
func (h reentrant) WithAttrs([]slog.Attr) slog.Handler        { return h }
func (h reentrant) WithGroup(string) slog.Handler             { return h }
func write(db **sql.DB) func()                                { return func() { _, _ = (*db).Exec("INSERT INTO log") } }
func failsDiscovery(_ context.Context, _ *gateFakeConn, call string) error {
	if call == "query" {
		return errors.New("no such variable")
	}
	return nil
}

func TestOnLeakMayUseTheLastConnectionAsItReturns(t *testing.T) {
	for name, end := range map[string]func(t *testing.T, conn *sql.Conn){
		"given back": func(t *testing.T, conn *sql.Conn) { require.NoError(t, conn.Close()) },
		"expired": func(t *testing.T, conn *sql.Conn) {
			<-time.After(time.Hour)
			require.NoError(t, conn.Close())
		},
		"bad": func(t *testing.T, conn *sql.Conn) {
			drop(t, conn)
		},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				var db *sql.DB
				returned := make(chan Leak, 1)
				f := &gateFake{t: t, most: 1}
				db, c := f.open(Config{MaxOpen: 1, MaxLifetime: time.Hour, LeakThreshold: time.Second, OnLeak: func(l Leak) {
					if l.Returned {
						_, err := db.Exec("INSERT INTO leaks")
						assert.NoError(t, err)
						_ = db.Stats()
						returned <- l
					}
				}})
				conn, err := db.Conn(t.Context())
				require.NoError(t, err)
				<-time.After(2 * time.Second)
				end(t, conn)
				<-returned
				f.end(db, c)
			})
		})
	}
}

// An OnLeak that waits for a lock of the application's keeps no connection, and
// no lock of database/sql's: another goroutine that has that lock may go on.
func TestAnOnLeakThatWaitsKeepsNothingFromGoingOn(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		wait, inside := make(chan struct{}), make(chan struct{}, 8)
		f := &gateFake{t: t, most: 2}
		db, c := f.open(Config{MaxOpen: 2, LeakThreshold: time.Second, OnLeak: func(Leak) { inside <- struct{}{}; <-wait }})
		st, err := db.PrepareContext(t.Context(), "SELECT 1")
		require.NoError(t, err)
		first, err := db.Conn(t.Context())
		require.NoError(t, err)
		second, err := db.Conn(t.Context())
		require.NoError(t, err)
		<-time.After(2 * time.Second)
		<-inside
		assert.Equal(t, uint64(2), c.Stats().Leaks, "the second is reported though the first's function waits")
		drop(t, first)
		require.NoError(t, st.Close())
		require.NoError(t, second.Close())
		usable(t, db, 2)
		close(wait)
		f.end(db, c)
	})
}

func TestALoggerMayUseTheDatabase(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var db *sql.DB
		f := &gateFake{t: t, most: 1, script: failsDiscovery}
		logger := slog.New(reentrant{write: write(&db)})
		db, err := OpenDB(f, Config{MaxOpen: 1, Dialect: DialectMySQL, Logger: logger})
		require.NoError(t, err)
		c, _ := ConnectorOf(db)
		require.NoError(t, db.PingContext(t.Context()))
		usable(t, db, 1)
		f.end(db, c)
	})
}

func TestALoggerThatPanicsStopsNoReport(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		told := make(chan Leak, 4)
		f := &gateFake{t: t}
		db, err := OpenDB(f, Config{
			LeakThreshold: time.Second, OnLeak: func(l Leak) { told <- l },
			Logger: slog.New(reentrant{write: func() { panic("the application's own bug") }}),
		})
		require.NoError(t, err)
		c, _ := ConnectorOf(db)
		conn, err := db.Conn(t.Context())
		require.NoError(t, err)
		<-time.After(2 * time.Second)
		require.NoError(t, conn.Close())
		synctest.Wait()
		assert.Len(t, told, 2)
		f.end(db, c)
	})
}
