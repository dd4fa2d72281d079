package sqllease

import (
	"context"
	"database/sql"
	"database/sql/driver"
	"fmt"
	"log/slog"
	"path"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// stackFake is a driver that does nothing.
type stackFake struct{}

func (d stackFake) Connect(context.Context) (driver.Conn, error) { return stackFakeConn{}, nil }
func (d stackFake) Driver() driver.Driver                        { return d }
func (d stackFake) Open(string) (driver.Conn, error)             { return stackFakeConn{}, nil }

type stackFakeConn struct{}

func (stackFakeConn) Prepare(string) (driver.Stmt, error) { return nil, driver.ErrSkip }
func (stackFakeConn) Begin() (driver.Tx, error)           { return nil, driver.ErrSkip }
func (stackFakeConn) Close() error                        { return nil }

// stackStore is a part of an application that uses the database.
type stackStore struct{ db *sql.DB }

func (s *stackStore) take(ctx context.Context) (*sql.Conn, string, error) {
	conn, err := s.db.Conn(ctx)
	_, file, line, _ := runtime.Caller(0)
	return conn, stackPlace(file, line-1) + " sqllease.(*stackStore).take", err
}

// stackPlace is a place as Site writes it: one folder, the file, the line.
func stackPlace(file string, line int) string {
	dir, file := path.Split(file)
	return fmt.Sprintf("%s/%s:%d", path.Base(dir), file, line)
}

// The frames between an application and its driver are of no interest:
// neither when a connection is dialed, nor when it is taken from
// database/sql's free list, nor when it was handed over.
func TestTheSiteOfALeaseIsTheApplicationsOwn(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		db, err := OpenDB(stackFake{}, Config{MaxOpen: 1})
		require.NoError(t, err)
		c, _ := ConnectorOf(db)
		store := &stackStore{db}
		site := func() string {
			leases := c.Leases()
			require.Len(t, leases, 1)
			return leases[0].Stack.Site()
		}
		for _, how := range []string{"dialed", "from the free list"} {
			conn, want, err := store.take(t.Context())
			require.NoError(t, err)
			assert.Equal(t, want, site(), how)
			require.NoError(t, conn.Close())
		}

		conn, _, err := store.take(t.Context())
		require.NoError(t, err)
		var wait sync.WaitGroup
		wait.Go(func() {
			conn, want, err := store.take(t.Context())
			if !assert.NoError(t, err) {
				return
			}
			assert.Equal(t, want, site(), "handed over")
			assert.NoError(t, conn.Close())
		})
		synctest.Wait()
		require.NoError(t, conn.Close())
		wait.Wait()
		assert.Equal(t, uint64(1), c.Stats().Handovers)
		require.NoError(t, db.Close())
	})
}

func TestAStackIsPrintedFromTheApplicationOutwards(t *testing.T) {
	db, err := OpenDB(stackFake{}, Config{})
	require.NoError(t, err)
	c, _ := ConnectorOf(db)
	conn, _, err := (&stackStore{db}).take(t.Context())
	require.NoError(t, err)
	stack := c.Leases()[0].Stack
	lines := strings.Split(stack.String(), "\n")
	require.GreaterOrEqual(t, len(lines), 5, stack.String())
	assert.Equal(t, "github.com/sqllease/sqllease.(*stackStore).take", lines[0])
	assert.Regexp(t, `^\t.*stack_test\.go:\d+$`, lines[1])
	assert.True(t, filepath.IsAbs(strings.TrimPrefix(lines[1], "\t")) || strings.HasPrefix(lines[1], "\tgithub.com/"), "the whole path, for an editor: %s", lines[1])
	assert.Equal(t, "github.com/sqllease/sqllease.TestAStackIsPrintedFromTheApplicationOutwards", lines[2])
	assert.Regexp(t, `^\t.*stack_test\.go:\d+$`, lines[3])
	assert.NotContains(t, stack.String(), "database/sql", "no plumbing within")
	assert.NotContains(t, stack.String(), "runtime.goexit", "no entry without")
	assert.Equal(t, "runtime.goexit", stack.Frames()[len(stack.Frames())-1].Function, "Frames leaves nothing out")
	require.NoError(t, conn.Close())
	require.NoError(t, db.Close())
}

// A *sql.DB with a limit of its own queues callers itself. When a connection
// goes bad meanwhile, its opener goroutine dials the next, for whoever waits.
func TestADialOfTheOpenerIsWarnedAboutOnceUnlessAttached(t *testing.T) {
	for _, attached := range []bool{false, true} {
		synctest.Test(t, func(t *testing.T) {
			log := &keptLog{}
			c, err := Wrap(stackFake{}, Config{Name: "orders", Logger: slog.New(log)})
			require.NoError(t, err)
			db := sql.OpenDB(c)
			db.SetMaxOpenConns(1)
			for range 3 {
				stackDialByOpener(t, c, db, attached)
			}
			said := ofQueueing(log)
			if attached {
				assert.Empty(t, said)
			} else if assert.Len(t, said, 1, "once is enough") {
				assert.Contains(t, said[0], "callers queue inside database/sql, where sqllease cannot see them wait")
				assert.Contains(t, said[0], "Open it with sqllease.Open or OpenDB, or call Attach(db) on its Connector")
			}
			assert.Equal(t, 0, c.Stats().InUse)
			require.NoError(t, db.Close())
			synctest.Wait()
			assert.Equal(t, 0, c.Stats().Open)
		})
	}
}

// stackDialByOpener makes database/sql's opener dial, for a caller that
// database/sql itself has queued. If so asked it then attaches the database:
// that is too late for this caller.
func stackDialByOpener(t *testing.T, c *Connector, db *sql.DB, attach bool) {
	db.SetMaxOpenConns(1)
	conn, err := db.Conn(t.Context())
	require.NoError(t, err)
	var wait sync.WaitGroup
	wait.Go(func() {
		conn, err := db.Conn(t.Context())
		if !assert.NoError(t, err) {
			return
		}
		assert.NoError(t, conn.PingContext(t.Context()))
		_, file, line, _ := runtime.Caller(0)
		if leases := c.Leases(); !attach && assert.Len(t, leases, 1) {
			assert.Equal(t, stackPlace(file, line-1)+" sqllease.stackDialByOpener.func1", leases[0].Stack.Site(),
				"the lease begins with the first use: that of the opener is none")
		}
		assert.NoError(t, conn.Close())
	})
	<-time.After(time.Second)
	synctest.Wait()
	if attach {
		c.Attach(db) // from here on there is no telling which connection goes where
	} else {
		require.Equal(t, 0, c.Stats().Waiting, "it waits where the gate cannot see it")
	}
	dials := c.Stats().Dials
	drop(t, conn)
	wait.Wait()
	if !attach {
		require.Equal(t, dials+1, c.Stats().Dials)
	}
}

// A goroutine that does nothing but call database/sql has a shallow stack as
// well, and so has nobody else: no warning comes from any of them.
func TestOnlyTheOpenerIsTheOpener(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		log := &keptLog{}
		c, err := Wrap(stackFake{}, Config{Logger: slog.New(log)})
		require.NoError(t, err)
		db := sql.OpenDB(c)
		go db.PingContext(t.Context()) //nolint:errcheck // the stack matters
		synctest.Wait()
		require.NoError(t, db.PingContext(t.Context()))
		assert.Equal(t, uint64(2), c.Stats().Acquires)
		assert.Empty(t, ofQueueing(log))
		require.NoError(t, db.Close())
	})
}

// ofQueueing are the warnings of callers who queue inside database/sql.
func ofQueueing(log *keptLog) []string {
	return slices.DeleteFunc(log.warnings(), func(said string) bool { return !strings.Contains(said, "queue inside database/sql") })
}
