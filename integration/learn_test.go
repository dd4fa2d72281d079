package integration

import (
	"database/sql"
	"fmt"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/sqllease/sqllease"
	ways "github.com/sqllease/sqllease/integration/internal/line"
)

// TestAnIdleLimitOnTheWayIsLearned leaves a connection idle again and again, for longer than
// something on the way remembers it, while the server's own limit is hours. With the bare
// driver each call fails. Through sqllease, three do.
func TestAnIdleLimitOnTheWayIsLearned(t *testing.T) {
	const forgets, rounds = 1500 * time.Millisecond, 8
	var all sync.WaitGroup
	play := func(open func(dsn string) (*sql.DB, error), check func(db *sql.DB, failed []int)) {
		way, err := ways.New(maria.Addr)
		require.NoError(t, err)
		t.Cleanup(way.Close)
		way.Forget(forgets)
		db, err := open(fmt.Sprintf("root@tcp(%s)/mysql?readTimeout=500ms", way.Addr()))
		require.NoError(t, err)
		all.Go(func() {
			defer db.Close() //nolint:errcheck // a connection that was forgotten says so
			_, err := db.ExecContext(t.Context(), "DO 1")
			assert.NoError(t, err)
			var failed []int
			for round := range rounds {
				time.Sleep(forgets + forgets/3)
				if _, err := db.ExecContext(t.Context(), "DO 1"); err != nil {
					failed = append(failed, round)
					_, err = db.ExecContext(t.Context(), "DO 1")
					assert.NoError(t, err)
				}
			}
			check(db, failed)
		})
	}
	play(func(dsn string) (*sql.DB, error) { return sql.Open("mysql", dsn) }, func(_ *sql.DB, failed []int) {
		assert.Len(t, failed, rounds, "bare")
	})
	play(func(dsn string) (*sql.DB, error) { return sqllease.Open("mysql", dsn, sqllease.Config{}) }, func(db *sql.DB, failed []int) {
		assert.Equal(t, []int{0, 1, 2}, failed, "through sqllease")
		c, _ := sqllease.ConnectorOf(db)
		learned := c.Stats().LearnedIdleLimit
		assert.Greater(t, learned, forgets)
		assert.Less(t, learned, 2*forgets)
	})
	all.Wait()
}
