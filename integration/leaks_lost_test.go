package integration

import (
	"context"
	"database/sql"
	"fmt"
	"runtime"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/sqllease/sqllease"
)

// What applications do that leaks a connection, or holds it for too long without using it.

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
	require.NoError(a, a.c.Ready(a.ctx)) // the server has been asked
	tx, err := a.db.BeginTx(a.ctx, nil)
	a.took()
	require.NoError(a, err)
	return func() {
		a.eventually("the transaction is still there", func() bool { return a.sessions() == 0 })
		assert.Error(a, tx.Commit())
	}
}

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
