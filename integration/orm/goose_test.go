package orm

import (
	"context"
	"database/sql"
	"embed"
	"fmt"
	"io/fs"
	"testing"
	"time"

	"github.com/pressly/goose/v3"
	"github.com/pressly/goose/v3/lock"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/sqllease/sqllease"
)

//go:embed migrations
var migrations embed.FS

// TestGoose migrates up and down, in transactions and without, by SQL and by
// Go functions, while an application works.
func TestGoose(t *testing.T) {
	onServers(t, func(p *pool) {
		b := gooseRun{p}
		sessions := p.watchSessions()
		p.request(b.up)
		p.crowd(24, b.application)
		p.request(b.fails)
		p.request(b.goFunctions)
		p.request(b.downAndUpAgain)
		p.request(b.cancelled)
		assert.LessOrEqual(p, sessions(), limit, "sessions on the server at a time")
		assert.Empty(p, p.conn.Leases())
		p.wantSpans("CREATE TABLE users", "CREATE TABLE posts", "INSERT users", "DROP TABLE users", "INSERT goose_db_version",
			"SELECT goose_db_version", "begin", "commit", "rollback", "pool.acquire")
	})
}

type gooseRun struct{ p *pool }

// provider runs the migrations of a folder, and Go functions after them.
func (b gooseRun) provider(folder string, functions ...*goose.Migration) *goose.Provider {
	files, err := fs.Sub(migrations, "migrations/"+folder)
	require.NoError(b.p, err)
	open := gooseOnMySQL
	if b.p.server == postgres {
		open = gooseOnPostgreSQL
	}
	provider, err := open(b.p.db, files, goose.WithGoMigrations(functions...), goose.WithDisableGlobalRegistry(true))
	require.NoError(b.p, err)
	return provider
}

func (b gooseRun) up(ctx context.Context) {
	done, err := b.provider("goose").Up(ctx)
	require.NoError(b.p, err)
	assert.Len(b.p, done, 2)
	status, err := b.provider("goose").Status(ctx)
	require.NoError(b.p, err)
	for _, s := range status {
		assert.Equal(b.p, goose.StateApplied, s.State)
	}
}

// application asks whether it may start, and works.
func (b gooseRun) application(ctx context.Context, i int) {
	pending, err := b.provider("goose").HasPending(ctx)
	assert.NoError(b.p, err)
	assert.False(b.p, pending)
	_, err = b.p.db.ExecContext(ctx, fmt.Sprintf("INSERT INTO users (id, name) VALUES (%d, 'user')", 100+i))
	assert.NoError(b.p, err)
}

// fails has the second statement of a migration fail: the first is rolled back.
func (b gooseRun) fails(ctx context.Context) {
	_, err := b.provider("goose_broken").Up(ctx)
	assert.ErrorContains(b.p, err, "nowhere")
	assert.Zero(b.p, b.count(ctx, "id = 2"))
	assert.Empty(b.p, b.p.conn.Leases())
}

func (b gooseRun) count(ctx context.Context, where string) (n int) {
	require.NoError(b.p, b.p.db.QueryRowContext(ctx, "SELECT COUNT(*) FROM users WHERE "+where).Scan(&n))
	return n
}

// goFunctions migrates by functions: in a transaction, and on the *sql.DB,
// while goose holds a connection of its own.
func (b gooseRun) goFunctions(ctx context.Context) {
	rename := func(ctx context.Context, tx *sql.Tx) error {
		b.p.heldHere(true)
		_, err := tx.ExecContext(ctx, "UPDATE users SET name = 'Anne' WHERE id = 1")
		return err
	}
	remove := func(ctx context.Context, db *sql.DB) error {
		b.p.heldHere(false)
		_, err := db.ExecContext(ctx, "DELETE FROM users WHERE id > 1")
		return err
	}
	done, err := b.provider("goose",
		goose.NewGoMigration(3, &goose.GoFunc{RunTx: rename}, nil),
		goose.NewGoMigration(4, &goose.GoFunc{RunDB: remove}, nil),
	).Up(ctx)
	require.NoError(b.p, err)
	assert.Len(b.p, done, 2)
	assert.Equal(b.p, 1, b.count(ctx, "name = 'Anne'"))
	assert.Zero(b.p, b.count(ctx, "id > 1"))
}

func (b gooseRun) downAndUpAgain(ctx context.Context) {
	functions := []*goose.Migration{goose.NewGoMigration(3, nil, nil), goose.NewGoMigration(4, nil, nil)}
	done, err := b.provider("goose", functions...).DownTo(ctx, 0)
	require.NoError(b.p, err)
	assert.Len(b.p, done, 4)
	_, err = b.provider("goose").Up(ctx)
	require.NoError(b.p, err)
}

// cancelled ends the context in the middle of a migration.
func (b gooseRun) cancelled(ctx context.Context) {
	ctx, cancel := context.WithTimeout(ctx, 100*time.Millisecond)
	defer cancel()
	nap := func(ctx context.Context, tx *sql.Tx) error {
		_, err := tx.ExecContext(ctx, b.p.nap())
		return err
	}
	_, err := b.provider("goose", goose.NewGoMigration(3, &goose.GoFunc{RunTx: nap}, nil)).Up(ctx)
	assert.Error(b.p, err)
}

// TestGooseWithALock has several replicas of an application migrate at once.
// Each holds a connection while it waits for the lock.
func TestGooseWithALock(t *testing.T) {
	p := newPool(t, postgres, sqllease.Config{MaxOpen: limit, AcquireTimeout: 20 * time.Second})
	files, err := fs.Sub(migrations, "migrations/goose")
	require.NoError(t, err)
	p.crowd(6, func(ctx context.Context, _ int) {
		locker, err := lock.NewPostgresSessionLocker(lock.WithLockTimeout(1, 20))
		assert.NoError(t, err)
		provider, err := gooseOnPostgreSQL(p.db, files, goose.WithSessionLocker(locker))
		assert.NoError(t, err)
		_, err = provider.Up(ctx)
		assert.NoError(t, err)
	})
	p.request(func(ctx context.Context) { assert.Equal(t, 1, gooseRun{p}.count(ctx, "id = 1")) })
}

// TestGooseOnOneConnection is the deadlock that goose refuses to run into when
// it sees database/sql's limit of 1. The gate's limit it cannot see: then the
// acquire ends by its timeout, and its error says who holds the connection.
func TestGooseOnOneConnection(t *testing.T) {
	p := newPool(t, postgres, sqllease.Config{MaxOpen: 1, AcquireTimeout: 500 * time.Millisecond})
	locker, err := lock.NewPostgresSessionLocker()
	require.NoError(t, err)
	needsAnother := func(ctx context.Context, db *sql.DB) error { return db.PingContext(ctx) }
	provider, err := gooseOnPostgreSQL(p.db, nil, goose.WithSessionLocker(locker), goose.WithDisableGlobalRegistry(true),
		goose.WithGoMigrations(goose.NewGoMigration(1, &goose.GoFunc{RunDB: needsAnother}, nil)))
	require.NoError(t, err)
	p.request(func(ctx context.Context) {
		_, err := provider.Up(ctx)
		var timeout *sqllease.AcquireError
		if assert.ErrorAs(t, err, &timeout) {
			assert.Equal(t, 1, timeout.Limit)
			t.Log(err)
		}
	})
}
