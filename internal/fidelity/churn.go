package fidelity

import (
	"context"
	"database/sql"
	"fmt"
	"runtime"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// Churn is ordinary code that takes the locks of database/sql's on connections in every
// order: callers prepare, begin, take their statement into the transaction, close it,
// commit, and ask for results when others have their connection. A pool whose callers
// queue with such a lock stands still in it. It runs in real time, and side by side.
type Churn struct {
	Callers, Limit int
	Rounds         int           // of each caller
	For            time.Duration // or for so long, where it is not zero
}

func (c Churn) String() string { return fmt.Sprintf("%d callers, limit %d", c.Callers, c.Limit) }

// standstill is how long nobody may get on.
const standstill = 20 * time.Second

// Run runs it, and fails the test if it stands still, if a caller sees an error, or if two
// calls are on one session at once.
func (c Churn) Run(t *testing.T, w Way) {
	t.Helper()
	s := newServer()
	s.asks, s.yields = true, true
	db, err := w.Open(backend{s})
	require.NoError(t, err)
	db.SetMaxOpenConns(c.Limit)
	shared, err := db.PrepareContext(t.Context(), "SELECT b")
	require.NoError(t, err)

	var rounds atomic.Int64
	done := make(chan error, 1)
	began := time.Now()
	go func() { done <- c.all(t.Context(), db, shared, &rounds) }()
	require.NoError(t, watch(&rounds, done), "after %d rounds", rounds.Load())
	t.Logf("%v: %d rounds in %v", c, rounds.Load(), time.Since(began).Round(time.Millisecond))
	require.NoError(t, shared.Close())
	wrong := s.wrong()
	assert.Empty(t, wrong[:min(5, len(wrong))], "%d times", len(wrong))
	require.NoError(t, db.Close())
	assert.Zero(t, s.left())
}

// watch waits for the end, or until nobody gets on.
func watch(rounds *atomic.Int64, done <-chan error) error {
	look := time.NewTicker(standstill)
	defer look.Stop()
	for last := int64(-1); ; {
		select {
		case err := <-done:
			return err
		case <-look.C:
			n := rounds.Load()
			if n == last {
				all := make([]byte, 1<<20)
				all = all[:runtime.Stack(all, true)]
				return fmt.Errorf("it stands still:\n%s", all)
			}
			last = n
		}
	}
}

// all are all callers; the first error ends them.
func (c Churn) all(ctx context.Context, db *sql.DB, shared *sql.Stmt, rounds *atomic.Int64) error {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	until := time.Now().Add(c.For)
	results := make(chan sql.Result, c.Callers/2) // of those who were here before
	var callers sync.WaitGroup
	for range c.Callers {
		callers.Go(func() {
			for n := 0; ctx.Err() == nil && (c.For > 0 && time.Now().Before(until) || c.For == 0 && n < c.Rounds); n++ {
				if err := churn(ctx, db, shared, results); err != nil {
					cancel(err)
					return
				}
				rounds.Add(1)
			}
		})
	}
	callers.Wait()
	return context.Cause(ctx)
}

// churn is one round.
func churn(ctx context.Context, db *sql.DB, shared *sql.Stmt, results chan sql.Result) error {
	st, err := db.PrepareContext(ctx, "SELECT a")
	if err != nil {
		return fmt.Errorf("prepare: %w", err)
	}
	tx, err := db.BeginTx(context.Background(), nil)
	if err != nil {
		return fmt.Errorf("begin: %w", err)
	}
	for _, one := range []*sql.Stmt{st, shared} {
		res, err := tx.StmtContext(ctx, one).ExecContext(ctx)
		if err != nil {
			return fmt.Errorf("exec: %w", err)
		}
		if err := swap(results, res); err != nil {
			return err
		}
	}
	if err := st.Close(); err != nil {
		return fmt.Errorf("close: %w", err)
	}
	if err := tx.Commit(); err != nil {
		return fmt.Errorf("commit: %w", err)
	}
	var database, setting int
	if err := shared.QueryRowContext(ctx).Scan(&database, &setting); err != nil {
		return fmt.Errorf("query: %w", err)
	}
	return nil
}

// swap asks an old result, and leaves one to be asked later.
func swap(results chan sql.Result, res sql.Result) error {
	old := res
	select {
	case old = <-results:
	default:
	}
	select {
	case results <- res:
	default:
	}
	if _, err := old.RowsAffected(); err != nil {
		return fmt.Errorf("rows affected: %w", err)
	}
	return nil
}
