package sizing

import (
	"context"
	"database/sql"
	"math/rand/v2"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/sqllease/sqllease"
	"github.com/sqllease/sqllease/integration/internal/servers"
)

// call is something that callers do with a pool.
type call func(ctx context.Context, db *sql.DB) error

// one runs a statement, whose argument is one of so many keys.
func one(statement string, keys int) call {
	return func(ctx context.Context, db *sql.DB) error {
		var n int
		return db.QueryRowContext(ctx, statement, 1+rand.IntN(keys)).Scan(&n)
	}
}

// plain runs a statement without an argument.
func plain(statement string) call {
	return func(ctx context.Context, db *sql.DB) error {
		var n any
		return db.QueryRowContext(ctx, statement).Scan(&n)
	}
}

// visit is what a caller saw.
type visit struct {
	kind int // which call of a mix
	took time.Duration
}

// patience is how long a caller waits.
const patience = 30 * time.Second

// play lets callers come at random, so many in a second, each with one of the calls. They come
// whether those before them were served or not.
func play(t *testing.T, rate float64, long time.Duration, do func(ctx context.Context, n int) (kind int, err error)) (seen []visit) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), long+patience)
	defer cancel()
	r := rand.New(rand.NewPCG(1955, 2007)) //nolint:gosec // the same callers for each limit
	var all sync.WaitGroup
	var mu sync.Mutex
	begin, at := time.Now(), 0.0
	for n := 0; ; n++ {
		if at += r.ExpFloat64() / rate; at >= long.Seconds() {
			break
		}
		due := begin.Add(time.Duration(at * float64(time.Second)))
		time.Sleep(time.Until(due))
		all.Go(func() {
			kind, err := do(ctx, n)
			took := time.Since(due) // from when it should have come: a busy machine hides nothing
			assert.NoError(t, err)
			mu.Lock()
			defer mu.Unlock()
			seen = append(seen, visit{kind, took})
		})
	}
	all.Wait()
	require.NotEmpty(t, seen)
	return seen
}

// open opens a pool with all its connections.
func open(t *testing.T, s *servers.Server, database string, limit int, cfg sqllease.Config) *sql.DB {
	t.Helper()
	cfg.MaxOpen, cfg.MinIdle = limit, limit
	db, err := sqllease.Open(s.Driver, s.DSN(database), cfg)
	require.NoError(t, err)
	c, _ := sqllease.ConnectorOf(db)
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	require.NoError(t, c.Ready(ctx))
	return db
}

// figures are of the times that callers were there.
type figures struct{ p50, p99, mean time.Duration }

func of(visits []visit, kind int) (f figures) {
	var all []time.Duration
	for _, v := range visits {
		if v.kind == kind {
			all = append(all, v.took)
			f.mean += v.took
		}
	}
	if len(all) == 0 {
		return f
	}
	slices.Sort(all)
	f.mean /= time.Duration(len(all))
	f.p50, f.p99 = all[len(all)/2], all[len(all)*99/100]
	return f
}
