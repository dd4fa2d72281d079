package integration

import (
	"cmp"
	"context"
	"database/sql"
	"fmt"
	"log/slog"
	"path"
	"path/filepath"
	"runtime"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/sqllease/sqllease"
)

// The applications of the catalogue, and the servers that they use.

// leakServer is a server as a driver sees it, and its SQL.
type leakServer struct {
	driver   string
	dsn      func(home string) string
	admin    *sql.DB // plain
	create   string  // makes the home of an application's tables
	sessions string  // counts the sessions of an application
	few      string  // rows of a number and a text
	many     string  // likewise
	sleep    string  // for seconds
	lock     string  // takes a lock of the session's, by a number
}

func leakServers(t *testing.T) []*leakServer {
	onPostgres := func(driver string) *leakServer {
		return &leakServer{
			driver: driver,
			dsn: func(home string) string {
				return postgres.DSN("") + "&search_path=" + home + "&application_name=" + home
			},
			create:   "CREATE SCHEMA %s",
			sessions: "SELECT COUNT(*) FROM pg_stat_activity WHERE application_name = '%s'",
			few:      "SELECT n, 'row ' || n FROM generate_series(1, 200) n",
			many:     "SELECT n, 'row ' || n FROM generate_series(1, 100000) n",
			sleep:    "SELECT pg_sleep(%g)",
			lock:     "SELECT pg_advisory_lock(%d)",
		}
	}
	all := []*leakServer{{
		driver:   "mysql",
		dsn:      func(home string) string { return maria.DSN(home) + "?multiStatements=true" },
		create:   "CREATE DATABASE %s",
		sessions: "SELECT COUNT(*) FROM information_schema.processlist WHERE db = '%s'",
		few:      "SELECT seq, CONCAT('row ', seq) FROM seq_1_to_200",
		many:     "SELECT seq, CONCAT('row ', seq) FROM seq_1_to_100000",
		sleep:    "SELECT SLEEP(%g)",
		lock:     "SELECT GET_LOCK('%d', 10)",
	}, onPostgres("pgx"), onPostgres("postgres")}
	for _, s := range all {
		s.admin = s.plain(t)
	}
	return all
}

// plain opens the server without sqllease.
func (s *leakServer) plain(t *testing.T) *sql.DB {
	db, err := sql.Open(s.driver, s.dsn(""))
	require.NoError(t, err)
	t.Cleanup(func() { assert.NoError(t, db.Close()) })
	return db
}

// app is an application with a pool and tables of its own.
type app struct {
	*testing.T
	on     *leakServer
	number int64
	home   string // where its tables are; its sessions have it, too
	db     *sql.DB
	c      *sqllease.Connector
	ctx    context.Context // of its requests
	cancel context.CancelFunc
	site   string // that took the connection

	longest atomic.Int64 // time that a connection was held, in nanoseconds

	mu      sync.Mutex
	reports []sqllease.Leak // guarded by mu
}

// opening has the applications start one after another: servers are slow when
// everybody comes at once.
var opening sync.Mutex

// open starts the application of a case, and checks at the end that nothing is
// left of it: no lease, no session here or on the server.
func (s *leakServer) open(t *testing.T, number int64, c *leakCase) *app {
	a := &app{T: t, on: s, number: number, home: fmt.Sprint("leaks_", number)}
	opening.Lock()
	defer opening.Unlock()
	_, err := s.admin.ExecContext(t.Context(), fmt.Sprintf(s.create, a.home))
	require.NoError(t, err)
	a.db, err = sqllease.Open(s.driver, s.dsn(a.home)+c.params, sqllease.Config{
		MaxOpen: limit, LeakThreshold: cmp.Or(c.threshold, leakAfter), SlowCallThreshold: longCall, ReclaimAfter: c.reclaim,
		OnLeak: a.report, OnSlowCall: a.slowCall, Logger: slog.New(slog.DiscardHandler),
	})
	require.NoError(t, err)
	a.c, _ = sqllease.ConnectorOf(a.db)
	require.NoError(t, a.db.PingContext(t.Context()))
	a.ctx, a.cancel = context.WithTimeout(t.Context(), patience) // the turn it waited for does not count
	t.Cleanup(func() {
		assert.Empty(t, a.c.Leases())
		assert.NoError(t, a.db.Close())
		a.eventually("a session is open", func() bool { return a.c.Stats().Open == 0 })
		a.eventually("a session is left on the server", func() bool { return a.sessions() == 0 })
	})
	return a
}

// dialed sees to it that n sessions are ready.
func (a *app) dialed(n int) {
	held := make([]*sql.Conn, n)
	for i := range held {
		var err error
		held[i], err = a.db.Conn(sqllease.WithHoldLimit(a.ctx, 0)) // a busy machine may take its time
		require.NoError(a, err)
	}
	for _, conn := range held {
		require.NoError(a, conn.Close())
	}
}

// sessions is how many the server has for the application.
func (a *app) sessions() (n int) {
	assert.NoError(a, a.on.admin.QueryRow(fmt.Sprintf(a.on.sessions, a.home)).Scan(&n))
	return n
}

func (a *app) eventually(otherwise string, happened func() bool) {
	a.Helper()
	require.Eventually(a, happened, patience, 5*time.Millisecond, otherwise)
}

// report is the pool's OnLeak.
func (a *app) report(l sqllease.Leak) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.reports = append(a.reports, l)
}

// slowCall is its OnSlowCall: the catalogue has slow calls beside leaks.
func (a *app) slowCall(s sqllease.SlowCall) {
	a.report(sqllease.Leak{
		Lease: s.Lease, Pool: s.Pool, Class: sqllease.ClassBusy, Threshold: s.Threshold, Returned: s.Returned, Times: s.Times, Folded: s.Folded,
	})
}

// reported returns the reports so far, lease by lease, and their kinds.
func (a *app) reported() (reports []sqllease.Leak, kinds []string) {
	a.mu.Lock()
	reports = slices.Clone(a.reports)
	a.mu.Unlock()
	slices.SortStableFunc(reports, func(a, b sqllease.Leak) int { return cmp.Compare(a.ID, b.ID) })
	for _, l := range reports {
		kinds = append(kinds, kindOf(l))
	}
	return reports, kinds
}

// await waits for so many reports.
func (a *app) await(n int) {
	a.Helper()
	a.eventually("a report is missing", func() bool {
		reports, _ := a.reported()
		return len(reports) >= n
	})
}

// took notes that the line above its caller's took the connection.
func (a *app) took() {
	pc, file, line, _ := runtime.Caller(1)
	dir, file := filepath.Split(file)
	a.site = fmt.Sprintf("%s/%s:%d %s", filepath.Base(dir), file, line-1, path.Base(runtime.FuncForPC(pc).Name()))
}

// watchHolds looks at connections as HikariCP does: only at how long they are
// held.
func (a *app) watchHolds() {
	for {
		select {
		case <-a.Context().Done():
			return
		case <-time.After(10 * time.Millisecond):
			a.longest.Store(max(a.longest.Load(), int64(a.c.Stats().OldestHold)))
		}
	}
}

// everyPlaceIsFree takes as many connections as the pool allows, at once.
func (a *app) everyPlaceIsFree() {
	a.eventually("a lease is left", func() bool { return a.c.Stats().InUse == 0 })
	for range limit { // for longer than leakAfter, if the server is slow
		conn, err := a.db.Conn(sqllease.WithHoldLimit(a.Context(), 0))
		require.NoError(a, err)
		defer func() { assert.NoError(a, conn.Close()) }()
		require.NoError(a, conn.PingContext(a.Context()))
	}
}

// exec runs a statement that must succeed.
func (a *app) exec(on execer, statement string) {
	a.Helper()
	ctx, cancel := context.WithTimeout(a.Context(), patience)
	defer cancel()
	_, err := on.ExecContext(ctx, statement)
	assert.NoError(a, err)
}

// execer is a *sql.DB, *sql.Conn or *sql.Tx.
type execer interface {
	ExecContext(ctx context.Context, query string, args ...any) (sql.Result, error)
}

// counter makes a table with a row to lock.
func (a *app) counter() {
	table(a.T, a.db, "counters", "id INT PRIMARY KEY, n INT")
	a.exec(a.db, "INSERT INTO counters VALUES (1, 0)")
}

const countUp = "UPDATE counters SET n = n + 1 WHERE id = 1"
