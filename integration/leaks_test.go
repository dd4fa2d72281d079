package integration

import (
	"runtime"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"

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
	idle      = "unused"
	busy      = "busy"
	proven    = "proven"
	cured     = "proven, and reclaimed"
	reclaimed = "reclaimed"
	late      = "returned late"
)

var headlines = map[string]string{
	idle:      "checked out but unused for longer than",
	busy:      "slow call: one call takes longer than",
	proven:    "leaked connection, proven: nothing refers to its unclosed rows any more, and their *sql.Conn cannot be closed before them",
	cured:     "leaked connection, proven: nothing refers to its unclosed rows any more; sqllease has closed it, and its place in the pool is free again",
	reclaimed: "leaked connection taken back after",
	late:      "a reported connection came back after",
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

// The essential words of the fixes.
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
	fix       string            // what the reports tell to do
	inTx      bool              // what the reports say of the lease
	rows      int               // likewise
	hikari    bool              // HikariCP's leakDetectionThreshold would raise a false alarm
}

var leakCases = []leakCase{
	// Leaks, which end with the test.
	{name: "rows that are not closed", do: rowsNotClosed, want: []string{idle, late}, fix: closeRows, rows: 1},
	{name: "a loop over rows that breaks", do: breakOutOfRows, want: []string{idle, late}, fix: closeRows, rows: 1},
	{name: "rows that cannot be scanned", do: scanError, want: []string{idle, late}, fix: closeRows, rows: 1},
	{name: "a second result set that is not read", drivers: []string{"mysql", "postgres"}, do: secondResultSet, want: []string{idle, late}, fix: closeRows, rows: 1},
	{name: "rows of a context that ends in an hour", do: contextOfAnHour, want: []string{idle, late}, fix: closeRows, rows: 1},
	{name: "rows of a kept statement", do: rowsOfAStatement, want: []string{idle, late}, fix: closeRows, rows: 1},
	{name: "rows of a transaction", do: rowsOfATx, want: []string{idle, late}, fix: closeRows, inTx: true, rows: 1},
	{name: "a row that is not scanned", do: rowNotScanned, want: []string{idle, late}, fix: scanRow, rows: 1},
	{name: "a return before the rollback", do: returnBeforeRollback, want: []string{idle, late}, fix: endTx, inTx: true},
	{name: "a panic before the rollback", do: panicBeforeRollback, want: []string{idle, late}, fix: endTx, inTx: true},
	{name: "a goroutine that died with its transaction", do: diedWithItsTx, want: []string{idle, late}, fix: endTx, inTx: true},
	{name: "a transaction for each attempt", do: txForEachAttempt, want: []string{idle, late, idle, late, idle, late}, fix: endTx, inTx: true},
	{name: "a transaction that the server ends", drivers: []string{"pgx", "postgres"}, do: txTheServerEnds,
		params: "&options=-c%20idle_in_transaction_session_timeout%3D1500", want: []string{idle, late},
		fix: endTx + " right after BeginTx; if your code does that already, move slow work, such as an HTTP call, out of the transaction; the server ends an idle transaction after 1.5s", inTx: true},
	{name: "a lock held by an idle transaction", do: idleWithALock, want: []string{idle, late}, fix: endTx, inTx: true},
	{name: "a connection kept in a struct", do: connInAStruct, want: []string{idle, late}, fix: closeConn},
	{name: "a connection that must be quick", do: quickConn, want: []string{idle, late}, fix: closeConn},
	{name: "a lock of a migration, held without a word", do: migrationLock(), want: []string{idle, late}, fix: closeConn},

	// Leaks that are cured.
	{name: "rows that nobody can close", do: rowsNobodyCanClose, threshold: time.Hour, want: []string{cured}, fix: closeRows, rows: 1},
	{name: "a row that nobody can scan", do: rowNobodyCanScan, threshold: time.Hour, want: []string{cured}, fix: scanRow, rows: 1},
	{name: "a whole pool of rows that nobody can close", do: wholePool, threshold: time.Hour, want: []string{cured, cured, cured, cured}, fix: closeRows, rows: 1},
	{name: "rows of a connection that nobody can close", do: rowsOfAConn, threshold: slower, reclaim: slower, want: []string{proven, reclaimed}, fix: closeRows, rows: 1},
	{name: "a connection that nothing refers to", do: connNobodyHas, reclaim: slow, want: []string{idle, reclaimed}, fix: closeConn},
	{name: "a lock held by a transaction that is reclaimed", do: reclaimedWithALock, reclaim: slow, want: []string{idle, reclaimed}, fix: endTx, inTx: true},

	// Not lost, but held for too long without being used.
	{name: "a connection held during other work", do: connDuringOtherWork, want: []string{idle, late}, fix: closeConn},
	{name: "a reader that stands still", do: readerStandsStill, want: []string{idle, late}, fix: closeRows, rows: 1},
	{name: "a defer in a loop", do: deferInALoop, want: []string{idle, late, idle, late, idle, late}, fix: closeRows, rows: 1},

	// In use, or held on purpose.
	{name: "a slow query", do: slowQuery, hikari: true},
	{name: "a slow query, where leases are reclaimed", do: slowQuery, reclaim: leakAfter, hikari: true},
	{name: "a slower statement", do: slowerStatement, want: []string{busy, late}, fix: lookAtPlan, hikari: true},
	{name: "a wait for a lock", do: waitForALock(slow), hikari: true},
	{name: "a longer wait for a lock", do: waitForALock(slower), want: []string{busy, late}, fix: lookAtPlan, hikari: true},
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
// reported with the line that took it and the fix, and what is in use is not.
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
	assert.Contains(a, text, "fix        "+c.fix)
	assert.Equal(a, c.inTx, l.InTx, "in a transaction")
	assert.Equal(a, c.rows, l.OpenRows, "open rows")
	assert.Equal(a, kindOf(l) == busy, l.Busy)
}
