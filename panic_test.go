package sqllease

import (
	"context"
	"database/sql"
	"fmt"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

func TestADriverThatPanicsCostsNoRoom(t *testing.T) {
	query := func(db *sql.DB) {
		rows, err := db.QueryContext(context.Background(), "SELECT 1")
		if err != nil {
			return
		}
		defer func() { _ = rows.Close() }()
		for rows.Next() {
		}
	}
	exec := func(db *sql.DB) { _, _ = db.ExecContext(context.Background(), "DO ?", 1) }
	transact := func(end func(*sql.Tx) error) func(db *sql.DB) {
		return func(db *sql.DB) {
			tx, err := db.BeginTx(context.Background(), nil)
			if err != nil {
				return
			}
			_ = end(tx)
		}
	}
	prepare := func(db *sql.DB) {
		st, err := db.PrepareContext(context.Background(), "SELECT 1")
		if err != nil {
			return
		}
		defer func() { _ = st.Close() }()
		_, _ = st.Exec()
		rows, err := st.Query()
		if err != nil {
			return
		}
		defer func() { _ = rows.Close() }()
	}
	prepareInTx := func(db *sql.DB) {
		tx, err := db.BeginTx(context.Background(), nil)
		if err != nil {
			return
		}
		defer func() { _ = tx.Rollback() }()
		st, err := tx.PrepareContext(context.Background(), "SELECT 1")
		if err != nil {
			return
		}
		_ = st.Close()
	}
	for _, c := range []struct {
		call string
		use  func(*sql.DB)
	}{
		{"dial", exec}, {"reset", exec}, {"valid", exec}, {"exec", exec},
		{"query", query}, {"next", query}, {"close rows", query},
		{"ping", func(db *sql.DB) { _ = db.PingContext(context.Background()) }},
		{"begin", transact((*sql.Tx).Commit)},
		{"commit", transact((*sql.Tx).Commit)},
		{"rollback", transact((*sql.Tx).Rollback)},
		{"prepare", prepare}, {"exec statement", prepare}, {"query statement", prepare},
		{"close statement", prepareInTx}, {"num input", prepare}, {"check", exec},
	} {
		for _, waiters := range []int{0, 3} {
			t.Run(fmt.Sprintf("%s with %d waiters", c.call, waiters), func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) { panicking(t, c.call, c.use, waiters) })
			})
		}
	}
}

// panicking plants one panic at a call on the only session that there may be,
// while others wait for it.
func panicking(t *testing.T, call string, use func(*sql.DB), waiters int) {
	var planted atomic.Bool
	f := &gateFake{t: t, most: 1, script: func(_ context.Context, _ *gateFakeConn, name string) error {
		if name == call && planted.CompareAndSwap(true, false) {
			<-time.After(time.Second) // the others come meanwhile
			panic("planted")
		}
		return nil
	}}
	db, c := f.open(Config{MaxOpen: 1})
	if call != "dial" {
		usable(t, db, 1)
	}
	planted.Store(true)
	var wait sync.WaitGroup
	wait.Go(func() { assert.Equal(t, "planted", caught(func() { use(db) })) })
	synctest.Wait()
	for range waiters {
		wait.Go(func() { usable(t, db, 1) })
	}
	synctest.Wait()
	assert.Equal(t, waiters, c.Stats().Waiting)
	wait.Wait()
	require.False(t, planted.Load(), "the driver never panicked")
	usable(t, db, 1)
	f.end(db, c)
}

func TestNoCallReachesASessionThatAPanicLost(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := &gateFake{t: t, most: 1, script: func(_ context.Context, _ *gateFakeConn, call string) error {
			if call == "exec" {
				panic("planted")
			}
			return nil
		}}
		db, c := f.open(Config{MaxOpen: 1})
		tx, err := db.BeginTx(t.Context(), nil)
		require.NoError(t, err)
		rows, err := tx.QueryContext(t.Context(), "SELECT 1")
		require.NoError(t, err)
		st, err := tx.PrepareContext(t.Context(), "SELECT 2")
		require.NoError(t, err)
		assert.Equal(t, "planted", caught(func() { _, _ = tx.ExecContext(t.Context(), "DO 1") }))
		synctest.Wait() // the closer is done
		assert.False(t, rows.NextResultSet())
		assert.False(t, rows.Next())
		_, err = st.ExecContext(t.Context())
		require.Error(t, err)
		_, err = tx.PrepareContext(t.Context(), "SELECT 3")
		require.Error(t, err)
		require.NoError(t, rows.Close())
		require.Error(t, tx.Commit())
		usable(t, db, 1)
		f.end(db, c)
	})
}
