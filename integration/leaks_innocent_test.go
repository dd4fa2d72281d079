package integration

import (
	"context"
	"fmt"
	"io"
	"sync"
	"time"

	"github.com/go-sql-driver/mysql"
	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/stdlib"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/sqllease/sqllease"
)

// What applications do that looks like a leak, and is none: they use the connection, hold it on
// purpose, or do not hold it at all. What is slow is reported as busy.

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
		committed := make(chan error, 1)
		time.AfterFunc(d, func() { committed <- tx.Commit() })
		_, err = a.db.ExecContext(a.ctx, countUp)
		a.took()
		require.NoError(a, err)
		require.NoError(a, <-committed, "it ends before the test does")
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
