package integration

import (
	"cmp"
	"context"
	"database/sql"
	"fmt"
	"io"
	"log/slog"
	"path"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/go-sql-driver/mysql"
	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/stdlib"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/sqllease/sqllease"
)

// This is a catalogue of the ways to leak a connection, and of those to look
// like a leak, on real servers and in real time.

// The times of the catalogue. A connection that is held for longer than
// leakAfter is a leak to HikariCP, whatever it does; here only if it does
// nothing. It is long enough for a machine that is busy with all the cases at
// once to stand still in between.
const (
	leakAfter = time.Second
	longCall  = 5 * time.Second

	often  = leakAfter / 10 // what a holder pauses who does something
	slow   = 2 * leakAfter  // too long for nothing, and not for a call
	slower = longCall + time.Second

	patience = 20 * time.Second // with what must happen
)

// The kinds of reports, and what they come to.
const (
	idle      = "idle in hand"
	busy      = "busy"
	proven    = "proven"
	cured     = "proven, and reclaimed"
	reclaimed = "reclaimed"
	late      = "returned late"
)

var headlines = map[string]string{
	idle:      "is idle in hand for longer than",
	busy:      "a slow call, not a leak",
	proven:    "is leaked for certain: nothing refers to its unclosed rows any more, and their *sql.Conn cannot be closed before them",
	cured:     "is leaked for certain: nothing refers to its unclosed rows any more; its session is closed, and its place is free again",
	reclaimed: "is reclaimed after",
	late:      "was returned after all",
}

func kindOf(l sqllease.Leak) string {
	switch {
	case l.Returned:
		return late
	case l.Reclaimed && l.Class == sqllease.ClassProven:
		return cured
	case l.Reclaimed:
		return reclaimed
	}
	return l.Class.String()
}

// The essential words of the cures.
const (
	closeRows  = "close the *sql.Rows on every path: defer rows.Close()"
	scanRow    = "call Scan on every *sql.Row"
	endTx      = "end the *sql.Tx on every path: defer tx.Rollback()"
	closeConn  = "close the *sql.Conn on every path: defer conn.Close()"
	lookAtPlan = "look at the statement's plan and locks"
)

// leakCase is one way to leak a connection, or to look like a leak.
type leakCase struct {
	name      string
	drivers   []string          // that it makes sense with; nil: all
	do        func(*app) func() // the code of an application, which says where it took the connection; what it returns gives back what it kept
	params    string            // of the DSN, besides those of the server
	threshold time.Duration     // Config.LeakThreshold; zero: leakAfter
	reclaim   time.Duration     // Config.ReclaimAfter
	want      []string          // the kinds of the reports, in order; nil: there is none
	cure      string            // what the reports tell to do
	inTx      bool              // what the reports say of the lease
	rows      int               // likewise
	hikari    bool              // HikariCP's leakDetectionThreshold would raise a false alarm
}

var leakCases = []leakCase{
	// Leaks, which end with the test.
	{name: "rows that are not closed", do: rowsNotClosed, want: []string{idle, late}, cure: closeRows, rows: 1},
	{name: "a loop over rows that breaks", do: breakOutOfRows, want: []string{idle, late}, cure: closeRows, rows: 1},
	{name: "rows that cannot be scanned", do: scanError, want: []string{idle, late}, cure: closeRows, rows: 1},
	{name: "a second result set that is not read", drivers: []string{"mysql", "postgres"}, do: secondResultSet, want: []string{idle, late}, cure: closeRows, rows: 1},
	{name: "rows of a context that ends in an hour", do: contextOfAnHour, want: []string{idle, late}, cure: closeRows, rows: 1},
	{name: "rows of a kept statement", do: rowsOfAStatement, want: []string{idle, late}, cure: closeRows, rows: 1},
	{name: "rows of a transaction", do: rowsOfATx, want: []string{idle, late}, cure: closeRows, inTx: true, rows: 1},
	{name: "a row that is not scanned", do: rowNotScanned, want: []string{idle, late}, cure: scanRow, rows: 1},
	{name: "a return before the rollback", do: returnBeforeRollback, want: []string{idle, late}, cure: endTx, inTx: true},
	{name: "a panic before the rollback", do: panicBeforeRollback, want: []string{idle, late}, cure: endTx, inTx: true},
	{name: "a goroutine that died with its transaction", do: diedWithItsTx, want: []string{idle, late}, cure: endTx, inTx: true},
	{name: "a transaction for each attempt", do: txForEachAttempt, want: []string{idle, late, idle, late, idle, late}, cure: endTx, inTx: true},
	{name: "a transaction that the server ends", drivers: []string{"pgx", "postgres"}, do: txTheServerEnds,
		params: "&options=-c%20idle_in_transaction_session_timeout%3D1500", want: []string{idle, late},
		cure: endTx + " right after BeginTx; the server ends an idle transaction after 1.5s", inTx: true},
	{name: "a lock held by an idle transaction", do: idleWithALock, want: []string{idle, late}, cure: endTx, inTx: true},
	{name: "a connection kept in a struct", do: connInAStruct, want: []string{idle, late}, cure: closeConn},
	{name: "a connection that must be quick", do: quickConn, want: []string{idle, late}, cure: closeConn},
	{name: "a lock of a migration, held without a word", do: migrationLock(), want: []string{idle, late}, cure: closeConn},

	// Leaks that are cured.
	{name: "rows that nobody can close", do: rowsNobodyCanClose, threshold: time.Hour, want: []string{cured}, cure: closeRows, rows: 1},
	{name: "a row that nobody can scan", do: rowNobodyCanScan, threshold: time.Hour, want: []string{cured}, cure: scanRow, rows: 1},
	{name: "a whole pool of rows that nobody can close", do: wholePool, threshold: time.Hour, want: []string{cured, cured, cured, cured}, cure: closeRows, rows: 1},
	{name: "rows of a connection that nobody can close", do: rowsOfAConn, threshold: slower, reclaim: slower, want: []string{proven, reclaimed}, cure: closeRows, rows: 1},
	{name: "a connection that nothing refers to", do: connNobodyHas, reclaim: slow, want: []string{idle, reclaimed}, cure: closeConn},
	{name: "a lock held by a transaction that is reclaimed", do: reclaimedWithALock, reclaim: slow, want: []string{idle, reclaimed}, cure: endTx, inTx: true},

	// Not lost, but held for too long without being used.
	{name: "a connection held during other work", do: connDuringOtherWork, want: []string{idle, late}, cure: closeConn},
	{name: "a reader that stands still", do: readerStandsStill, want: []string{idle, late}, cure: closeRows, rows: 1},
	{name: "a defer in a loop", do: deferInALoop, want: []string{idle, late, idle, late, idle, late}, cure: closeRows, rows: 1},

	// In use, or held on purpose.
	{name: "a slow query", do: slowQuery, hikari: true},
	{name: "a slow query, where leases are reclaimed", do: slowQuery, reclaim: leakAfter, hikari: true},
	{name: "a slower statement", do: slowerStatement, want: []string{busy, late}, cure: lookAtPlan, hikari: true},
	{name: "a wait for a lock", do: waitForALock(slow), hikari: true},
	{name: "a longer wait for a lock", do: waitForALock(slower), want: []string{busy, late}, cure: lookAtPlan, hikari: true},
	{name: "a pool full of slow queries", do: fullPool, hikari: true},
	{name: "a huge result read slowly", do: hugeResult, hikari: true},
	{name: "a result of which every row takes work", do: workForEveryRow, hikari: true},
	{name: "a query for every row of another", do: queryForEveryRow, hikari: true},
	{name: "a long transaction of short statements", do: longTx, hikari: true},
	{name: "a worker that keeps its connection", do: worker, hikari: true},
	{name: "a long LOAD DATA", drivers: []string{"mysql"}, do: longLoadData, hikari: true},
	{name: "a long COPY", drivers: []string{"postgres"}, do: longCopy, hikari: true},
	{name: "a long COPY on the driver's own connection", drivers: []string{"pgx"}, do: longRawCopy, hikari: true},
	{name: "a listener", drivers: []string{"pgx"}, do: listener, hikari: true},
	{name: "a lock of a migration, held on purpose", do: migrationLock(0), hikari: true},
	{name: "a lock of a migration, held for an hour on purpose", do: migrationLock(time.Hour), hikari: true},

	// Not held at all.
	{name: "a kept statement", do: keptStatement},
	{name: "rows that are read to their end", do: rowsReadToTheEnd},
	{name: "a transaction whose context ends", do: txOfAShortContext},
}

// TestLeaks runs the catalogue with every driver, all at once: what leaks is
// reported with the line that took it and the cure, and what is in use is not.
func TestLeaks(t *testing.T) {
	defer collectGarbage()()
	var leaks, falseAlarms, cases atomic.Int64
	var all sync.WaitGroup
	for _, s := range leakServers(t) {
		for _, c := range leakCases {
			if c.drivers != nil && !slices.Contains(c.drivers, s.driver) {
				continue
			}
			all.Go(func() {
				t.Run(s.driver+"/"+c.name, func(t *testing.T) {
					leaks.Add(int64(c.run(t, s, cases.Add(1))))
					if c.hikari {
						falseAlarms.Add(1)
					}
				})
			})
		}
	}
	all.Wait()
	t.Logf("%d cases: %d real leaks found, and no leak reported in %d innocent cases in which HikariCP would report one",
		cases.Load(), leaks.Load(), falseAlarms.Load())
}

// collectGarbage has the garbage collector run often, as it does in an
// application that has something to do.
func collectGarbage() (stop func()) {
	done := make(chan struct{})
	var all sync.WaitGroup
	all.Go(func() {
		for {
			select {
			case <-done:
				return
			case <-time.After(leakAfter / 2):
				runtime.GC()
			}
		}
	})
	return func() { close(done); all.Wait() }
}

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
	a.ctx, a.cancel = context.WithTimeout(t.Context(), patience)
	opening.Lock()
	defer opening.Unlock()
	_, err := s.admin.ExecContext(t.Context(), fmt.Sprintf(s.create, a.home))
	require.NoError(t, err)
	a.db, err = sqllease.Open(s.driver, s.dsn(a.home)+c.params, sqllease.Config{
		MaxOpen: limit, LeakThreshold: cmp.Or(c.threshold, leakAfter), LongCallThreshold: longCall, ReclaimAfter: c.reclaim,
		OnLeak: a.report, Logger: slog.New(slog.DiscardHandler),
	})
	require.NoError(t, err)
	a.c, _ = sqllease.ConnectorOf(a.db)
	require.NoError(t, a.db.PingContext(t.Context()))
	t.Cleanup(func() {
		assert.Empty(t, a.c.Leases())
		assert.NoError(t, a.db.Close())
		assert.Zero(t, a.c.Stats().Open)
		a.eventually("a session is left on the server", func() bool { return a.sessions() == 0 })
	})
	return a
}

// dialed sees to it that n sessions are ready.
func (a *app) dialed(n int) {
	held := make([]*sql.Conn, n)
	for i := range held {
		var err error
		held[i], err = a.db.Conn(a.ctx)
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

// run has the application do what the case is about, and returns how many
// leases were leaked.
func (c *leakCase) run(t *testing.T, s *leakServer, number int64) int {
	a := s.open(t, number, c)
	go a.watchHolds()
	end := c.do(a)
	a.await(len(c.want) - count(c.want, late))
	time.Sleep(slow) // once is enough, and what is innocent is not reported
	if end != nil {
		end()
	}
	a.await(len(c.want))
	held := time.Duration(a.longest.Load())
	a.everyPlaceIsFree()

	reports, kinds := a.reported()
	t.Logf("held for %v; reports: %s", held.Round(time.Millisecond), strings.Join(kinds, ", "))
	assert.Equal(t, c.want, kinds, "%v", reports)
	for _, l := range reports {
		c.check(a, l)
	}
	stats := a.c.Stats()
	assert.Equal(t, count(c.want, idle)+count(c.want, proven)+count(c.want, cured), int(stats.Leaks))
	assert.Equal(t, count(c.want, reclaimed)+count(c.want, cured), int(stats.Closed.Reclaimed))
	if c.hikari {
		assert.Zero(t, stats.Leaks)
		assert.Greater(t, held, leakAfter, "HikariCP would not have reported it")
	}
	return int(stats.Leaks)
}

func count(kinds []string, kind string) (n int) {
	for _, k := range kinds {
		if k == kind {
			n++
		}
	}
	return n
}

// check checks what a report says.
func (c *leakCase) check(a *app, l sqllease.Leak) {
	text := l.String()
	assert.Equal(a, a.site, l.Stack.Site())
	assert.Contains(a, text, "taken by   "+a.site)
	assert.Contains(a, text, headlines[kindOf(l)])
	if l.Returned {
		assert.Greater(a, l.Hold, l.Threshold)
		return
	}
	assert.Contains(a, text, "cure       "+c.cure)
	assert.Equal(a, c.inTx, l.InTx, "in a transaction")
	assert.Equal(a, c.rows, l.OpenRows, "open rows")
	assert.Equal(a, kindOf(l) == busy, l.Busy)
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

// From here on there is what applications do.

func rowsNotClosed(a *app) func() {
	rows, err := a.db.QueryContext(a.ctx, a.on.few) //nolint:rowserrcheck,sqlclosecheck // that is the point
	a.took()
	require.NoError(a, err)
	require.True(a, rows.Next())
	return a.cancel
}

func breakOutOfRows(a *app) func() {
	rows, err := a.db.QueryContext(a.ctx, a.on.few) //nolint:rowserrcheck,sqlclosecheck // that is the point
	a.took()
	require.NoError(a, err)
	for rows.Next() {
		var n int
		var s string
		require.NoError(a, rows.Scan(&n, &s))
		if s == "row 100" {
			break
		}
	}
	return a.cancel
}

func scanError(a *app) func() {
	rows, err := a.db.QueryContext(a.ctx, a.on.few) //nolint:rowserrcheck,sqlclosecheck // that is the point
	a.took()
	require.NoError(a, err)
	require.True(a, rows.Next())
	var n, wrong int
	require.Error(a, rows.Scan(&n, &wrong))
	return a.cancel
}

func secondResultSet(a *app) func() {
	rows, err := a.db.QueryContext(a.ctx, "SELECT 1; SELECT 2") //nolint:rowserrcheck,sqlclosecheck // that is the point
	a.took()
	require.NoError(a, err)
	for rows.Next() { // which closes the rows only after the last result set
		continue
	}
	return a.cancel
}

func contextOfAnHour(a *app) func() {
	ctx, cancel := context.WithTimeout(context.Background(), time.Hour)
	rows, err := a.db.QueryContext(ctx, a.on.few) //nolint:rowserrcheck,sqlclosecheck // that is the point
	a.took()
	require.NoError(a, err)
	require.True(a, rows.Next())
	return cancel
}

func rowsOfAStatement(a *app) func() {
	stmt, err := a.db.PrepareContext(a.ctx, a.on.few)
	require.NoError(a, err)
	rows, err := stmt.QueryContext(a.ctx) //nolint:rowserrcheck,sqlclosecheck // that is the point
	a.took()
	require.NoError(a, err)
	require.True(a, rows.Next())
	return func() {
		a.cancel()
		assert.NoError(a, stmt.Close())
	}
}

func rowsOfATx(a *app) func() {
	tx, err := a.db.BeginTx(a.ctx, nil)
	a.took()
	require.NoError(a, err)
	rows, err := tx.QueryContext(a.ctx, a.on.few) //nolint:rowserrcheck,sqlclosecheck // that is the point
	require.NoError(a, err)
	require.True(a, rows.Next())
	return a.cancel
}

func rowNotScanned(a *app) func() {
	row := a.db.QueryRowContext(a.ctx, a.on.few)
	a.took()
	require.NoError(a, row.Err())
	return a.cancel
}

func returnBeforeRollback(a *app) func() {
	tx, err := a.db.BeginTx(a.ctx, nil)
	a.took()
	require.NoError(a, err)
	if _, err := tx.ExecContext(a.ctx, "INSERT INTO nowhere VALUES (1)"); err != nil {
		return a.cancel
	}
	assert.NoError(a, tx.Rollback())
	return nil
}

func panicBeforeRollback(a *app) (end func()) {
	defer func() { // as servers do
		assert.NotNil(a, recover())
		end = a.cancel
	}()
	tx, err := a.db.BeginTx(a.ctx, nil)
	a.took()
	require.NoError(a, err)
	a.exec(tx, "SELECT 1")
	panic("a bug")
}

func diedWithItsTx(a *app) func() {
	died := make(chan struct{})
	go func() {
		defer close(died)
		_, err := a.db.BeginTx(a.ctx, nil)
		a.took()
		assert.NoError(a, err)
		runtime.Goexit()
	}()
	<-died
	return a.cancel
}

func txForEachAttempt(a *app) func() {
	for range 3 {
		tx, err := a.db.BeginTx(a.ctx, nil)
		a.took()
		require.NoError(a, err)
		if _, err := tx.ExecContext(a.ctx, "INSERT INTO nowhere VALUES (1)"); err == nil {
			assert.NoError(a, tx.Commit())
		}
	}
	return a.cancel
}

func txTheServerEnds(a *app) func() {
	tx, err := a.db.BeginTx(a.ctx, nil)
	a.took()
	require.NoError(a, err)
	return func() {
		a.eventually("the transaction is still there", func() bool { return a.sessions() == 0 })
		assert.Error(a, tx.Commit())
	}
}

// counter makes a table with a row to lock.
func (a *app) counter() {
	table(a.T, a.db, "counters", "id INT PRIMARY KEY, n INT")
	a.exec(a.db, "INSERT INTO counters VALUES (1, 0)")
}

const countUp = "UPDATE counters SET n = n + 1 WHERE id = 1"

// idleWithALock has a waiter for the lock, who is busy, and not to blame.
func idleWithALock(a *app) func() {
	a.counter()
	tx, err := a.db.BeginTx(a.ctx, nil)
	a.took()
	require.NoError(a, err)
	a.exec(tx, countUp)
	waiter := make(chan error, 1)
	go func() { _, err := a.db.ExecContext(a.ctx, countUp); waiter <- err }()
	return func() {
		assert.Equal(a, []bool{false, true}, busyOnes(a.c.Leases()))
		assert.NoError(a, tx.Rollback())
		assert.NoError(a, <-waiter)
	}
}

// busyOnes tells which leases are busy.
func busyOnes(leases []sqllease.Lease) (busy []bool) {
	for _, l := range leases {
		busy = append(busy, l.Busy)
	}
	return busy
}

// repository has no method that closes it.
type repository struct{ conn *sql.Conn }

func connInAStruct(a *app) func() {
	conn, err := a.db.Conn(a.ctx)
	a.took()
	require.NoError(a, err)
	r := &repository{conn}
	a.exec(r.conn, "SELECT 1")
	return func() { assert.NoError(a, r.conn.Close()) }
}

func quickConn(a *app) func() {
	const quick = leakAfter / 4
	conn, err := a.db.Conn(sqllease.WithHoldLimit(a.ctx, quick))
	a.took()
	require.NoError(a, err)
	return func() {
		reports, _ := a.reported()
		assert.Equal(a, quick, reports[0].Threshold)
		assert.NoError(a, conn.Close())
	}
}

// migrationLock holds a lock of the session's, as tools for migrations do, and
// may tell that it does so on purpose.
func migrationLock(onPurpose ...time.Duration) func(*app) func() {
	return func(a *app) func() {
		ctx := a.ctx
		for _, d := range onPurpose {
			ctx = sqllease.WithHoldLimit(ctx, d)
		}
		conn, err := a.db.Conn(ctx)
		a.took()
		require.NoError(a, err)
		a.exec(conn, fmt.Sprintf(a.on.lock, a.number))
		return func() { assert.NoError(a, conn.Close()) }
	}
}

func rowsNobodyCanClose(a *app) func() {
	rows, err := a.db.QueryContext(context.Background(), a.on.few) //nolint:rowserrcheck,sqlclosecheck // that is the point
	a.took()
	require.NoError(a, err)
	require.True(a, rows.Next())
	return nil
}

func rowNobodyCanScan(a *app) func() {
	row := a.db.QueryRowContext(context.Background(), a.on.few)
	a.took()
	require.NoError(a, row.Err())
	return nil
}

// wholePool has a caller who waits until one of the places is free again.
func wholePool(a *app) func() {
	for range limit {
		rows, err := a.db.QueryContext(context.Background(), a.on.few) //nolint:rowserrcheck,sqlclosecheck // that is the point
		a.took()
		require.NoError(a, err)
		require.True(a, rows.Next())
	}
	assert.NoError(a, a.db.PingContext(a.ctx))
	return nil
}

// rowsOfAConn leaves a connection that cannot be closed, since Close waits for
// the rows.
func rowsOfAConn(a *app) func() {
	conn, err := a.db.Conn(context.Background())
	a.took()
	require.NoError(a, err)
	rows, err := conn.QueryContext(context.Background(), a.on.few) //nolint:rowserrcheck,sqlclosecheck // that is the point
	require.NoError(a, err)
	require.True(a, rows.Next())
	return nil
}

func connNobodyHas(a *app) func() {
	conn, err := a.db.Conn(context.Background())
	a.took()
	require.NoError(a, err)
	a.exec(conn, "SELECT 1")
	return nil
}

// reclaimedWithALock has a waiter for the lock, who gets it.
func reclaimedWithALock(a *app) func() {
	a.counter()
	tx, err := a.db.BeginTx(a.ctx, nil)
	a.took()
	require.NoError(a, err)
	a.exec(tx, countUp)
	a.exec(a.db, countUp)
	return func() {
		_, err := tx.ExecContext(a.ctx, countUp)
		var tooLate *sqllease.ReclaimedError
		require.ErrorAs(a, err, &tooLate)
		assert.Equal(a, a.site, tooLate.Lease.Stack.Site())
		require.ErrorAs(a, tx.Rollback(), &tooLate)
		var n int
		require.NoError(a, a.db.QueryRowContext(a.ctx, "SELECT n FROM counters").Scan(&n))
		assert.Equal(a, 1, n, "the transaction was rolled back")
	}
}

func connDuringOtherWork(a *app) func() {
	conn, err := a.db.Conn(a.ctx)
	a.took()
	require.NoError(a, err)
	defer func() { assert.NoError(a, conn.Close()) }()
	a.exec(conn, "SELECT 1")
	time.Sleep(slow) // such as a call of another service
	return nil
}

func readerStandsStill(a *app) func() {
	rows, err := a.db.QueryContext(a.ctx, a.on.few)
	a.took()
	require.NoError(a, err)
	defer func() { assert.NoError(a, rows.Close()) }()
	require.True(a, rows.Next())
	time.Sleep(slow)
	for rows.Next() {
		continue
	}
	require.NoError(a, rows.Err())
	return nil
}

func deferInALoop(a *app) func() {
	for range 3 {
		rows, err := a.db.QueryContext(a.ctx, a.on.few)
		a.took()
		require.NoError(a, err)
		defer func() { assert.NoError(a, rows.Close()) }()
		require.True(a, rows.Next())
		require.NoError(a, rows.Err())
	}
	time.Sleep(slow)
	return nil
}

func slowQuery(a *app) func() {
	var answer any
	require.NoError(a, a.db.QueryRowContext(a.ctx, fmt.Sprintf(a.on.sleep, slow.Seconds())).Scan(&answer))
	return nil
}

func slowerStatement(a *app) func() {
	_, err := a.db.ExecContext(a.ctx, fmt.Sprintf(a.on.sleep, slower.Seconds()))
	a.took()
	require.NoError(a, err)
	return nil
}

// waitForALock waits for one that somebody else holds for a time.
func waitForALock(d time.Duration) func(*app) func() {
	return func(a *app) func() {
		a.counter()
		tx, err := a.on.admin.BeginTx(a.ctx, nil)
		require.NoError(a, err)
		a.exec(tx, "UPDATE "+a.home+".counters SET n = 7")
		time.AfterFunc(d, func() { assert.NoError(a, tx.Commit()) })
		_, err = a.db.ExecContext(a.ctx, countUp)
		a.took()
		require.NoError(a, err)
		return nil
	}
}

// fullPool has callers who wait for a connection, which is no hold.
func fullPool(a *app) func() {
	var all sync.WaitGroup
	for range 2 * limit {
		all.Go(func() { a.exec(a.db, fmt.Sprintf(a.on.sleep, slow.Seconds())) })
	}
	all.Wait()
	return nil
}

func hugeResult(a *app) func() {
	rows, err := a.db.QueryContext(a.ctx, a.on.many)
	require.NoError(a, err)
	defer func() { assert.NoError(a, rows.Close()) }()
	for n := 1; rows.Next(); n++ {
		if n%7000 == 0 {
			time.Sleep(often)
		}
	}
	require.NoError(a, rows.Err())
	return nil
}

func workForEveryRow(a *app) func() {
	rows, err := a.db.QueryContext(a.ctx, a.on.few)
	require.NoError(a, err)
	defer func() { assert.NoError(a, rows.Close()) }()
	for n := 0; n < 40 && rows.Next(); n++ {
		time.Sleep(often)
	}
	require.NoError(a, rows.Err())
	return nil
}

func queryForEveryRow(a *app) func() {
	a.dialed(2) // the rows are not to wait for a handshake
	rows, err := a.db.QueryContext(a.ctx, a.on.few)
	require.NoError(a, err)
	defer func() { assert.NoError(a, rows.Close()) }()
	for n := 0; n < 20 && rows.Next(); n++ {
		a.exec(a.db, fmt.Sprintf(a.on.sleep, often.Seconds()))
	}
	require.NoError(a, rows.Err())
	return nil
}

func longTx(a *app) func() {
	a.counter()
	tx, err := a.db.BeginTx(a.ctx, nil)
	require.NoError(a, err)
	for range 15 {
		a.exec(tx, countUp)
		time.Sleep(often)
	}
	require.NoError(a, tx.Commit())
	return nil
}

func worker(a *app) func() {
	conn, err := a.db.Conn(a.ctx)
	require.NoError(a, err)
	for range 15 {
		a.exec(conn, "SELECT 1")
		time.Sleep(often)
	}
	require.NoError(a, conn.Close())
	return nil
}

// longLoadData sends lines that come slowly.
func longLoadData(a *app) func() {
	table(a.T, a.db, "loaded", "id INT")
	lines, w := io.Pipe()
	go func() {
		for i := range 15 {
			_, err := fmt.Fprintln(w, i)
			assert.NoError(a, err)
			time.Sleep(often)
		}
		assert.NoError(a, w.Close())
	}()
	mysql.RegisterReaderHandler(a.home, func() io.Reader { return lines })
	defer mysql.DeregisterReaderHandler(a.home)
	a.exec(a.db, "LOAD DATA LOCAL INFILE 'Reader::"+a.home+"' INTO TABLE loaded")
	return nil
}

// longCopy is how lib/pq copies.
func longCopy(a *app) func() {
	table(a.T, a.db, "copied", "id INT")
	tx, err := a.db.BeginTx(a.ctx, nil)
	require.NoError(a, err)
	stmt, err := tx.PrepareContext(a.ctx, "COPY copied (id) FROM STDIN")
	require.NoError(a, err)
	for i := range 15 {
		_, err := stmt.ExecContext(a.ctx, i)
		require.NoError(a, err)
		time.Sleep(often)
	}
	_, err = stmt.ExecContext(a.ctx)
	require.NoError(a, err)
	require.NoError(a, stmt.Close())
	require.NoError(a, tx.Commit())
	return nil
}

// onPgx holds a connection on purpose, since what is done with the driver's own
// cannot be seen.
func (a *app) onPgx(do func(*pgx.Conn) error) {
	conn, err := a.db.Conn(sqllease.WithHoldLimit(a.ctx, 0))
	require.NoError(a, err)
	require.NoError(a, conn.Raw(func(driverConn any) error {
		c, ok := sqllease.Unwrap[*stdlib.Conn](driverConn)
		require.True(a, ok)
		return do(c.Conn())
	}))
	require.NoError(a, conn.Close())
}

func longRawCopy(a *app) func() {
	table(a.T, a.db, "copied", "id INT")
	rows := pgx.CopyFromSlice(15, func(i int) ([]any, error) { time.Sleep(often); return []any{i}, nil })
	a.onPgx(func(c *pgx.Conn) error {
		_, err := c.CopyFrom(a.ctx, pgx.Identifier{"copied"}, []string{"id"}, rows)
		return err
	})
	return nil
}

func listener(a *app) func() {
	time.AfterFunc(slow+leakAfter, func() { a.exec(a.db, "NOTIFY "+a.home) })
	a.onPgx(func(c *pgx.Conn) error {
		if _, err := c.Exec(a.ctx, "LISTEN "+a.home); err != nil {
			return err
		}
		_, err := c.WaitForNotification(a.ctx)
		return err
	})
	return nil
}

func keptStatement(a *app) func() {
	stmt, err := a.db.PrepareContext(a.ctx, "SELECT 1")
	require.NoError(a, err)
	_, err = stmt.ExecContext(a.ctx)
	require.NoError(a, err)
	return func() { assert.NoError(a, stmt.Close()) }
}

func rowsReadToTheEnd(a *app) func() {
	rows, err := a.db.QueryContext(context.Background(), a.on.few) //nolint:sqlclosecheck // that is the point
	require.NoError(a, err)
	for rows.Next() { // false closes them
		continue
	}
	require.NoError(a, rows.Err())
	return nil
}

func txOfAShortContext(a *app) func() {
	ctx, cancel := context.WithTimeout(a.ctx, leakAfter/4)
	_, err := a.db.BeginTx(ctx, nil)
	require.NoError(a, err)
	return cancel
}
