package sqllease

import (
	"context"
	"database/sql"
	"database/sql/driver"
	"errors"
	"log/slog"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/go-sql-driver/mysql"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// Failovers: what was the primary takes no writes any more, and lives on.

// clusterFake is a driver's connector and two servers, of which one is dialed.
type clusterFake struct {
	mu      sync.Mutex
	primary [2]bool // guarded by mu: whether each takes writes
	dialed  int     // guarded by mu: which one a dial leads to
	conns   []*clusterConn
}

type clusterConn struct {
	f      *clusterFake
	server int
	failed int // guarded by f.mu: how many writes failed on it
	closed bool
}

var errReadOnly = &mysql.MySQLError{Number: 1290, Message: "The MySQL server is running with the --read-only option so it cannot execute this statement"}

func (f *clusterFake) Driver() driver.Driver            { return f }
func (f *clusterFake) Open(string) (driver.Conn, error) { return f.Connect(context.Background()) }
func (f *clusterFake) Connect(context.Context) (driver.Conn, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	c := &clusterConn{f: f, server: f.dialed}
	f.conns = append(f.conns, c)
	return c, nil
}

// is says which servers take writes, and where a dial leads.
func (f *clusterFake) is(primary [2]bool, dialed int) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.primary, f.dialed = primary, dialed
}

func (c *clusterConn) Close() error {
	c.f.mu.Lock()
	defer c.f.mu.Unlock()
	c.closed = true
	return nil
}
func (c *clusterConn) Prepare(string) (driver.Stmt, error) { return nil, errors.New("not prepared") }
func (c *clusterConn) Begin() (driver.Tx, error)           { return clusterTx{}, nil }
func (c *clusterConn) BeginTx(context.Context, driver.TxOptions) (driver.Tx, error) {
	return clusterTx{}, nil
}

type clusterTx struct{}

func (clusterTx) Commit() error   { return nil }
func (clusterTx) Rollback() error { return nil }

func (c *clusterConn) ExecContext(_ context.Context, query string, _ []driver.NamedValue) (driver.Result, error) {
	c.f.mu.Lock()
	defer c.f.mu.Unlock()
	if query == "UPDATE t" && !c.f.primary[c.server] {
		c.failed++
		return nil, errReadOnly
	}
	return driver.ResultNoRows, nil
}

func (c *clusterConn) QueryContext(context.Context, string, []driver.NamedValue) (driver.Rows, error) {
	c.f.mu.Lock()
	defer c.f.mu.Unlock()
	readOnly := "ON"
	if c.f.primary[c.server] {
		readOnly = "OFF"
	}
	return &rowsFake{rows: [][]driver.Value{{"wait_timeout", "28800"}, {"read_only", readOnly}}}, nil
}

// writes is how many writes have failed on one connection, at most, and on all.
func (f *clusterFake) writes() (most, all int) {
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, c := range f.conns {
		most, all = max(most, c.failed), all+c.failed
	}
	return most, all
}

func update(db *sql.DB) error {
	_, err := db.Exec("UPDATE t")
	return err
}

func newCluster(t *testing.T, cfg Config) (*clusterFake, *sql.DB, *Connector, *keptLog) {
	t.Helper()
	f, log := &clusterFake{primary: [2]bool{true, false}}, &keptLog{}
	cfg.Dialect, cfg.Logger, cfg.LeakThreshold = DialectMySQL, slog.New(log), -1
	cfg.IdleOnly = true // else the ends of the connections are spread over hours from now on, and one may come at once
	db, c := openPool(t, f, cfg)
	return f, db, c, log
}

func TestAfterAFailoverEachSessionFailsOneWriteAtMost(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f, db, c, log := newCluster(t, Config{MaxOpen: 10})
		giveBack(t, take(t, db, 10)...)
		asked()
		require.NoError(t, update(db))
		elapse(time.Minute)

		f.is([2]bool{false, true}, 1)
		failed := 0
		for range 100 {
			if err := update(db); err != nil {
				require.ErrorIs(t, err, errReadOnly, "as the driver said it")
				failed++
			}
			asked()
		}
		most, all := f.writes()
		assert.Equal(t, []int{1, failed}, []int{most, all})
		assert.LessOrEqual(t, failed, 2, "then all of them were replaced")
		closed := c.Stats().Closed
		assert.Equal(t, []uint64{10, 10}, []uint64{closed.RoleChanged, closed.Total()}, "%+v", closed)
		text := log.take()
		require.Len(t, text, 1)
		assert.Contains(t, text[0].message, "takes no writes any more")
	})
}

// The address leads to the old primary for a while.
func TestAFailoverThatTakesLongIsFollowedInTheEnd(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f, db, c, log := newCluster(t, Config{MaxOpen: 5})
		giveBack(t, take(t, db, 5)...)
		asked()
		f.is([2]bool{false, false}, 0)
		for range 600 {
			require.ErrorIs(t, update(db), errReadOnly)
			elapse(time.Second)
		}
		most, _ := f.writes()
		assert.Equal(t, 1, most)
		assert.Less(t, c.Stats().Dials, uint64(600+60), "each write that fails costs a dial, and all are replaced now and then")
		assert.Less(t, len(log.take()), 10)

		f.is([2]bool{false, true}, 1)
		for range 5 {
			_ = update(db)
		}
		for range 20 {
			require.NoError(t, update(db))
		}
	})
}

func TestWhatWasReadOnlyFromTheStartMeansNothing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f, db, c, log := newCluster(t, Config{MaxOpen: 5})
		f.is([2]bool{false, false}, 0)
		giveBack(t, take(t, db, 5)...)
		asked()
		for range 600 {
			require.ErrorIs(t, update(db), errReadOnly)
			elapse(time.Second)
		}
		assert.Equal(t, uint64(5), c.Stats().Dials)
		assert.Empty(t, log.take())
	})
}

func TestAWriteInATransactionThatIsToReadMeansNothing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f, db, c, _ := newCluster(t, Config{MaxOpen: 1})
		require.NoError(t, update(db))
		asked()
		f.is([2]bool{false, false}, 0)
		inTx := func(readOnly bool) {
			tx, err := db.BeginTx(t.Context(), &sql.TxOptions{ReadOnly: readOnly})
			require.NoError(t, err)
			_, err = tx.Exec("UPDATE t")
			require.ErrorIs(t, err, errReadOnly)
			require.NoError(t, tx.Rollback())
		}
		inTx(true)
		assert.Zero(t, c.Stats().Closed.Total())
		inTx(false)
		assert.Equal(t, uint64(1), c.Stats().Closed.RoleChanged)
	})
}

// One application writes where it has said by itself that it only reads: that costs the
// connection, and no other.
func TestAServerThatTakesWritesKeepsItsSessions(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f, db, c, log := newCluster(t, Config{MaxOpen: 5})
		giveBack(t, take(t, db, 5)...)
		asked()
		for range 20 {
			conn := take(t, db, 1)[0]
			f.is([2]bool{false, false}, 0)
			_, err := conn.ExecContext(t.Context(), "UPDATE t")
			require.ErrorIs(t, err, errReadOnly)
			f.is([2]bool{true, false}, 0)
			require.NoError(t, conn.Close())
			elapse(10 * time.Second)
		}
		assert.Equal(t, uint64(20), c.Stats().Closed.RoleChanged)
		assert.Equal(t, uint64(20), c.Stats().Closed.Total())
		assert.Empty(t, log.take())
		assert.Equal(t, uint64(20), c.Stats().Dials)
	})
}
