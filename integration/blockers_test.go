package integration

import (
	"bytes"
	"context"
	"database/sql"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	_ "github.com/uptrace/bun/driver/pgdriver" // "pg"

	"github.com/sqllease/sqllease"
	"github.com/sqllease/sqllease/integration/internal/servers"
)

// Who blocks a slow call, on real servers: each scene has a call wait for a lock, and reads
// the report as a person would.

// blocking is a scene.
type blocking struct {
	*testing.T
	s     *servers.Server
	db    *sql.DB // wrapped
	bare  *sql.DB // of an administrator, not wrapped
	calls chan sqllease.SlowCall

	mu  sync.Mutex
	log bytes.Buffer // guarded by mu
}

// Write keeps the log.
func (b *blocking) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.log.Write(p)
}

func (b *blocking) logged() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.log.String()
}

// newBlocking opens a pool on a server, with a table of three rows.
func newBlocking(t *testing.T, s *servers.Server, driver, dsn string) *blocking {
	t.Helper()
	b := &blocking{T: t, s: s, calls: make(chan sqllease.SlowCall, 16)}
	var err error
	b.bare, err = sql.Open(s.Driver, s.DSN(""))
	require.NoError(t, err)
	t.Cleanup(func() { assert.NoError(t, b.bare.Close()) })
	b.exec(b.bare, "DROP TABLE IF EXISTS stock")
	b.exec(b.bare, "CREATE TABLE stock (id INT PRIMARY KEY, n INT)")
	b.exec(b.bare, "INSERT INTO stock VALUES (1, 0), (2, 0), (3, 0)")
	b.db, err = sqllease.Open(driver, dsn, sqllease.Config{
		Name: "shop", FindBlockers: true, SlowCallThreshold: 300 * time.Millisecond, LeakThreshold: time.Hour,
		Logger:     slog.New(slog.NewTextHandler(b, nil)),
		OnSlowCall: func(c sqllease.SlowCall) { b.calls <- c },
	})
	require.NoError(t, err)
	b.db.SetMaxIdleConns(8) // no connection is closed between two scenes
	t.Cleanup(func() { assert.NoError(t, b.db.Close()) })
	return b
}

type executor interface {
	ExecContext(ctx context.Context, query string, args ...any) (sql.Result, error)
}

func (b *blocking) exec(on executor, query string) {
	b.Helper()
	_, err := on.ExecContext(b.Context(), query)
	require.NoError(b, err, query)
}

// waits has something executed that has to wait, and returns the report of that call, and what
// ends the wait.
func (b *blocking) waits(on executor, query string) (c sqllease.SlowCall, end func()) {
	b.Helper()
	ctx, cancel := context.WithCancel(b.Context())
	done := make(chan struct{})
	go func() {
		defer close(done)
		_, _ = on.ExecContext(ctx, query)
	}()
	end = func() { cancel(); <-done }
	for {
		select {
		case c = <-b.calls:
			if !c.Returned && strings.Contains(c.Statement, query[:6]) {
				return c, end
			}
		case <-time.After(patience):
			cancel()
			require.Fail(b, "nothing was reported")
		}
	}
}

// begin begins a transaction and does something in it.
func (b *blocking) begin(db *sql.DB, queries ...string) *sql.Tx {
	b.Helper()
	tx, err := db.BeginTx(b.Context(), nil)
	require.NoError(b, err)
	for _, q := range queries {
		b.exec(tx, q)
	}
	return tx
}

// says checks that a report has all of these.
func (b *blocking) says(c sqllease.SlowCall, texts ...string) {
	b.Helper()
	for _, text := range texts {
		assert.Contains(b, c.String(), text)
	}
}

// saysOnce checks that the log has a text, which is written aside, once.
func (b *blocking) saysOnce(text string) {
	b.Helper()
	assert.Eventually(b, func() bool { return strings.Contains(b.logged(), text) }, patience, 10*time.Millisecond)
	assert.Equal(b, 1, strings.Count(b.logged(), text))
}

const (
	updateFirst  = "UPDATE stock SET n = 1 WHERE id = 1"
	updateSecond = "UPDATE stock SET n = 1 WHERE id = 2"
)

// pairs are the drivers, each with a server.
var pairs = []struct {
	driver string
	s      **servers.Server
}{{"mysql", &maria}, {"pgx", &postgres}, {"postgres", &postgres}, {"pg", &postgres}}

// everyDriver plays a scene with each driver.
func everyDriver(t *testing.T, scene func(b *blocking)) {
	for _, p := range pairs {
		t.Run(p.driver, func(t *testing.T) { scene(newBlocking(t, *p.s, p.driver, (*p.s).DSN(""))) })
	}
}

// bothServers plays it with one driver of each server.
func bothServers(t *testing.T, scene func(b *blocking)) {
	for _, p := range pairs[:2] {
		t.Run(p.driver, func(t *testing.T) { scene(newBlocking(t, *p.s, p.driver, (*p.s).DSN(""))) })
	}
}

func TestTheOwnTransactionThatBlocksACallIsNamed(t *testing.T) {
	everyDriver(t, func(b *blocking) {
		tx := b.begin(b.db, updateFirst)
		c, end := b.waits(b.db, updateFirst)
		require.Len(b, c.Blockers, 1)
		by := c.Blockers[0]
		require.NotNil(b, by.Lease)
		assert.Equal(b, "shop", by.Pool)
		assert.Equal(b, by.ConnectionID, by.Lease.ConnectionID)
		assert.Equal(b, c.ConnectionID, by.Blocks)
		assert.Equal(b, []bool{false, true, false}, []bool{by.Waits, by.Lease.InTx, by.LeftOver})
		assert.Equal(b, "idle in transaction", by.State)
		b.says(c, fmt.Sprintf("server     connection %d\n", c.ConnectionID),
			fmt.Sprintf(": connection %d of pool \"shop\" (lease %d), taken by ", by.ConnectionID, by.Lease.ID), "blocked by row lock on ",
			"(*blocking).begin", "blockers_test.go", "idle in transaction for", "last statement: UPDATE stock SET n = ? WHERE id = ?",
			"fix        it waits for the code at ", "end the *sql.Tx on every path: defer tx.Rollback()")
		log := b.logged()
		assert.Contains(b, log, "slow_call.blocked_by=")
		assert.Contains(b, log, fmt.Sprintf("slow_call.blocker_connection_id=%d slow_call.blocker_lease=%d", by.ConnectionID, by.Lease.ID))
		assert.Equal(b, 1, strings.Count(log, "slow call:"), "one record tells it all")
		require.NoError(b, tx.Rollback())
		end()
	})
}

func TestAnotherProcessThatBlocksACallIsNamed(t *testing.T) {
	bothServers(t, func(b *blocking) {
		tx := b.begin(b.bare, updateFirst)
		c, end := b.waits(b.db, updateFirst)
		require.Len(b, c.Blockers, 1)
		by := c.Blockers[0]
		assert.Nil(b, by.Lease)
		b.says(c, fmt.Sprintf(": connection %d, not of this pool: user ", by.ConnectionID), " at 127.0.0.1", "idle in transaction",
			map[string]string{"mysql": fmt.Sprintf("KILL %d", by.ConnectionID), "pgx": fmt.Sprintf("SELECT pg_terminate_backend(%d)", by.ConnectionID)}[b.s.Driver])
		if b.s == postgres {
			b.says(c, "last statement: UPDATE stock SET n = ? WHERE id = ?")
		}
		require.NoError(b, tx.Rollback())
		end()
	})
}

// Another pool of this process is found too.
func TestAnotherPoolOfTheProcessThatBlocksACallIsNamed(t *testing.T) {
	bothServers(t, func(b *blocking) {
		other, err := sqllease.Open(b.s.Driver, b.s.DSN(""), sqllease.Config{Name: "reports", FindBlockers: true})
		require.NoError(b, err)
		defer func() { assert.NoError(b, other.Close()) }()
		tx := b.begin(other, updateFirst)
		c, end := b.waits(b.db, updateFirst)
		b.says(c, `of pool "reports" (lease `, "taken by ", "(*blocking).begin")
		require.NoError(b, tx.Rollback())
		end()
	})
}

func TestAChainOfBlockersIsShownUpToItsRoot(t *testing.T) {
	bothServers(t, func(b *blocking) {
		root := b.begin(b.db, updateFirst)
		middle := b.begin(b.db, updateSecond)
		between, endBetween := b.waits(middle, updateFirst)
		c, end := b.waits(b.db, updateSecond)
		require.Len(b, c.Blockers, 2)
		assert.Equal(b, []bool{true, false}, []bool{c.Blockers[0].Waits, c.Blockers[1].Waits})
		assert.Equal(b, []uint64{c.ConnectionID, between.ConnectionID}, []uint64{c.Blockers[0].Blocks, c.Blockers[1].Blocks})
		assert.Equal(b, between.ID, c.Blockers[0].Lease.ID)
		b.says(c, "it waits for a lock itself", fmt.Sprintf("connection %d waits for row lock on ", between.ConnectionID))
		assert.Contains(b, c.Fix(), "end the *sql.Tx", "the root is what to mend")
		require.NoError(b, root.Rollback())
		end()
		endBetween()
		_ = middle.Rollback()
	})
}

// Who queues for the same lock is no blocker to be named.
func TestTheQueueForALockIsNotShown(t *testing.T) {
	bothServers(t, func(b *blocking) {
		root := b.begin(b.db, updateFirst)
		ctx, cancel := context.WithCancel(b.Context())
		var queue sync.WaitGroup
		for range 4 {
			queue.Go(func() { _, _ = b.db.ExecContext(ctx, updateFirst) })
		}
		c, end := b.waits(b.db, updateFirst)
		require.NotEmpty(b, c.Blockers)
		assert.LessOrEqual(b, len(c.Blockers), 2)
		last := c.Blockers[len(c.Blockers)-1]
		assert.False(b, last.Waits)
		assert.True(b, last.Lease.InTx)
		require.NoError(b, root.Rollback())
		end()
		cancel()
		queue.Wait()
	})
}

func TestATableLockThatBlocksACallIsFound(t *testing.T) {
	bothServers(t, func(b *blocking) {
		b.pluginOn()
		var conn *sql.Conn
		var err error
		tx := (*sql.Tx)(nil)
		if b.s == postgres {
			tx = b.begin(b.db, "LOCK TABLE stock IN EXCLUSIVE MODE")
		} else {
			conn, err = b.db.Conn(b.Context())
			require.NoError(b, err)
			b.exec(conn, "LOCK TABLES stock WRITE")
		}
		c, end := b.waits(b.db, updateFirst)
		require.Len(b, c.Blockers, 1)
		require.NotNil(b, c.Blockers[0].Lease)
		b.says(c, " lock on ", "stock: ", "taken by ")
		if tx != nil {
			require.NoError(b, tx.Rollback())
		} else {
			b.exec(conn, "UNLOCK TABLES")
			require.NoError(b, conn.Close())
		}
		end()
	})
}

// pluginOn has MariaDB show metadata locks.
func (b *blocking) pluginOn() {
	if b.s != maria {
		return
	}
	b.exec(b.bare, "INSTALL SONAME 'metadata_lock_info'")
	b.Cleanup(func() {
		_, err := b.bare.ExecContext(context.Background(), "UNINSTALL SONAME 'metadata_lock_info'")
		assert.NoError(b, err)
	})
}

const alter = "ALTER TABLE stock ADD COLUMN m INT"

// read reads the table in a transaction, which then has it locked against changes of its
// definition.
func (b *blocking) read() *sql.Tx {
	b.Helper()
	tx := b.begin(b.db)
	var n int
	require.NoError(b, tx.QueryRowContext(b.Context(), "SELECT COUNT(*) FROM stock").Scan(&n))
	return tx
}

func TestAnIdleTransactionThatBlocksAMigrationIsFound(t *testing.T) {
	bothServers(t, func(b *blocking) {
		b.pluginOn()
		b.idleTransactionAndMigration()
	})
	t.Run("mysql, by the performance schema", func(t *testing.T) {
		dir, err := os.MkdirTemp("", "sqllease") // which others than this user may enter
		require.NoError(t, err)
		defer func() { assert.NoError(t, os.RemoveAll(dir)) }()
		require.NoError(t, os.Chmod(dir, 0o755))
		own, err := servers.MariaDBWith(filepath.Join(dir, "own"), "--performance-schema=ON", "--performance-schema-instrument=wait/lock/metadata/sql/mdl=ON")
		require.NoError(t, err)
		defer own.Stop()
		b := newBlocking(t, own, "mysql", own.DSN(""))
		b.idleTransactionAndMigration()
	})
}

// idleTransactionAndMigration: the migration waits for the transaction, and everybody who comes
// later waits for the migration.
func (b *blocking) idleTransactionAndMigration() {
	b.Helper()
	tx := b.read()
	migration, endMigration := b.waits(b.db, alter)
	require.Len(b, migration.Blockers, 1)
	require.NotNil(b, migration.Blockers[0].Lease)
	b.says(migration, "(*blocking).begin", "idle in transaction", " lock on ", "stock")
	c, end := b.waits(b.db, updateFirst)
	require.Len(b, c.Blockers, 2)
	assert.Equal(b, []uint64{migration.ID, migration.Blockers[0].Lease.ID}, []uint64{c.Blockers[0].Lease.ID, c.Blockers[1].Lease.ID})
	b.says(c, "ALTER TABLE stock", "it waits for a lock itself", "idle in transaction")
	require.NoError(b, tx.Rollback())
	endMigration()
	end()
}

// Without the plugin, MariaDB does not show who has a metadata lock: that is said, with what to
// do, once.
func TestWhatMariaDBDoesNotShowIsSaid(t *testing.T) {
	b := newBlocking(t, maria, "mysql", maria.DSN(""))
	tx := b.read()
	for range 2 {
		c, end := b.waits(b.db, alter)
		b.says(c, "blocked by table metadata lock: a connection that the server does not show", "a warning in the log says how")
		end()
	}
	b.saysOnce("INSTALL SONAME 'metadata_lock_info'")
	require.NoError(t, tx.Rollback())
}

func TestAnAdvisoryLockThatBlocksACallIsFound(t *testing.T) {
	take := map[string]string{"mysql": "DO GET_LOCK('customer 4711', 30)", "pgx": "SELECT pg_advisory_lock(4711)"}
	bothServers(t, func(b *blocking) {
		conn, err := b.db.Conn(b.Context())
		require.NoError(b, err)
		b.exec(conn, take[b.s.Driver])
		waiter, err := b.db.Conn(b.Context())
		require.NoError(b, err)
		c, end := b.waits(waiter, take[b.s.Driver])
		require.Len(b, c.Blockers, 1)
		require.NotNil(b, c.Blockers[0].Lease)
		b.says(c, "blocked by advisory lock: ", "taken by ", "TestAnAdvisoryLock", ": release its lock, or end its transaction, on every path")
		assert.NotContains(b, c.String(), "customer", "the name of a lock may be data")
		end()
		_ = waiter.Close() // its context has ended

		waiter, err = b.db.Conn(b.Context())
		require.NoError(b, err)
		require.NoError(b, conn.Close()) // with the lock
		c, end = b.waits(waiter, take[b.s.Driver])
		require.Len(b, c.Blockers, 1)
		assert.True(b, c.Blockers[0].LeftOver)
		b.says(c, `idle in pool "shop": it was given back with the lock (lease `, "taken by ", "TestAnAdvisoryLock", "release it there before")
		end()
		_ = waiter.Close()
	})
}

// A call that waits for no lock is said to.
func TestACallThatNobodyBlocks(t *testing.T) {
	sleep := map[*servers.Server]string{maria: "DO SLEEP(20)", postgres: "SELECT pg_sleep(20)"}
	bothServers(t, func(b *blocking) {
		c, end := b.waits(b.db, sleep[b.s])
		assert.Empty(b, c.Blockers)
		b.says(c, "blocked by nobody: the server says that it waits for no lock", "it waits for no lock, so look at the statement's plan")
		end()
	})
}

// PgBouncer makes numbers of connections up. They name nobody, and that is said.
func TestBehindAPoolerNobodyIsNamed(t *testing.T) {
	b := newBlocking(t, postgres, "pgx", pgbouncer(t, 8, ""))
	tx := b.begin(b.db, updateFirst)
	c, end := b.waits(b.db, updateFirst)
	assert.Empty(t, c.Blockers)
	assert.NotContains(t, c.String(), "blocked by")
	assert.Eventually(t, func() bool { return strings.Contains(b.logged(), "a pooler or a proxy is between") }, patience, 10*time.Millisecond)
	require.NoError(t, tx.Rollback())
	end()
}

func TestAPrivilegeThatLacksIsSaidOnce(t *testing.T) {
	t.Run("mysql", func(t *testing.T) {
		admin, err := sql.Open("mysql", maria.DSN(""))
		require.NoError(t, err)
		defer func() { assert.NoError(t, admin.Close()) }()
		for _, q := range []string{"CREATE OR REPLACE USER plain@'%'", "GRANT ALL ON mysql.stock TO plain@'%'"} {
			_, err = admin.Exec(q)
			require.NoError(t, err)
		}
		b := newBlocking(t, maria, "mysql", strings.Replace(maria.DSN(""), "root@", "plain@", 1))
		tx := b.begin(b.bare, updateFirst)
		for range 2 {
			c, end := b.waits(b.db, updateFirst)
			assert.Empty(b, c.Blockers)
			assert.NotContains(b, c.String(), "blocked by")
			end()
		}
		b.saysOnce("GRANT PROCESS ON *.* TO 'plain'@'%'")
		require.NoError(b, tx.Rollback())
	})
	t.Run("pgx", func(t *testing.T) {
		admin, err := sql.Open("pgx", postgres.DSN(""))
		require.NoError(t, err)
		defer func() { assert.NoError(t, admin.Close()) }()
		_, err = admin.Exec("DROP ROLE IF EXISTS plain")
		require.NoError(t, err)
		_, err = admin.Exec("CREATE ROLE plain LOGIN")
		require.NoError(t, err)
		b := newBlocking(t, postgres, "pgx", strings.Replace(postgres.DSN(""), "postgres@", "plain@", 1))
		b.exec(b.bare, "GRANT ALL ON stock TO plain")
		defer func() {
			_, err := b.bare.Exec("DROP TABLE stock; DROP ROLE plain")
			assert.NoError(t, err)
		}()
		tx := b.begin(b.bare, updateFirst)
		for range 2 {
			c, end := b.waits(b.db, updateFirst)
			require.Len(b, c.Blockers, 1)
			assert.Empty(b, c.Blockers[0].Statement)
			b.says(c, "blocked by row lock on stock: ", "not of this pool: user postgres", "pg_terminate_backend")
			end()
		}
		b.saysOnce("GRANT pg_read_all_stats TO plain")
		require.NoError(b, tx.Rollback())
	})
}
