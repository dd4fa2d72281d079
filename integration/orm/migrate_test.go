package orm

import (
	"context"
	"fmt"
	"log/slog"
	"testing"
	"time"

	"github.com/golang-migrate/migrate/v4"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/sqllease/sqllease"
)

// openMigrate makes golang-migrate on a pool. It takes a connection, and holds
// it until it is closed.
func openMigrate(p *pool) *migrate.Migrate {
	if p.server == postgres {
		m, err := migrateOnPostgreSQL(p.db)
		require.NoError(p, err)
		return m
	}
	m, err := migrateOnMySQL(p.Context(), p.db)
	require.NoError(p, err)
	return m
}

// TestMigrate migrates up and down, and fails, while an application works on
// the connections that golang-migrate leaves it. It takes no context, so that
// its spans are roots.
func TestMigrate(t *testing.T) {
	cfg := sqllease.Config{MaxOpen: limit, AcquireTimeout: 20 * time.Second, LeakThreshold: 20 * time.Second}
	onServersWith(t, cfg, func(p *pool) {
		sessions := p.watchSessions()
		m := openMigrate(p)
		require.NoError(p, m.Migrate(2))
		p.crowd(24, func(ctx context.Context, i int) {
			_, err := p.db.ExecContext(ctx, fmt.Sprintf("INSERT INTO users (id, name) VALUES (%d, 'user')", i))
			assert.NoError(p, err)
		})
		require.NoError(p, m.Steps(-1))
		require.NoError(p, m.Steps(1))
		migrateFails(p, m)
		require.NoError(p, m.Down())
		assert.Len(p, p.conn.Leases(), 1, "its own connection, until it is closed")
		noErrors(p, m)
		assert.LessOrEqual(p, sessions(), limit, "sessions on the server at a time")
		assert.Empty(p, p.conn.Leases())
		p.wantSpans("CREATE TABLE users", "CREATE TABLE posts", "DROP TABLE users", "INSERT nowhere", "begin", "commit", "pool.acquire")
	})
}

// migrateFails runs into a broken migration: the database is marked as dirty,
// and the mark is taken away by force.
func migrateFails(p *pool, m *migrate.Migrate) {
	assert.ErrorContains(p, m.Up(), "nowhere")
	version, dirty, err := m.Version()
	require.NoError(p, err)
	assert.EqualValues(p, 3, version)
	assert.True(p, dirty)
	require.NoError(p, m.Force(2))
	assert.ErrorIs(p, m.Migrate(2), migrate.ErrNoChange)
}

// noErrors closes it: what it reads from, and its connection.
func noErrors(p *pool, m *migrate.Migrate) {
	source, database := m.Close()
	assert.NoError(p, source)
	assert.NoError(p, database)
}

// TestMigrateThatIsNotClosed shows what an application sees that forgets to
// close it, on a pool of one connection.
func TestMigrateThatIsNotClosed(t *testing.T) {
	reports := make(chan sqllease.Leak, 2) // of the leak, and of the late return
	cfg := sqllease.Config{
		MaxOpen:        1,
		AcquireTimeout: 300 * time.Millisecond,
		LeakThreshold:  time.Second,
		OnLeak:         func(l sqllease.Leak) { reports <- l },
		Logger:         slog.New(slog.DiscardHandler),
	}
	p := newPool(t, maria, cfg)
	p.leaks = 1
	m := openMigrate(p)
	require.NoError(t, m.Migrate(2))

	p.request(func(ctx context.Context) {
		var timeout *sqllease.AcquireError
		assert.ErrorAs(t, p.db.PingContext(ctx), &timeout, "there is no connection left")
	})
	leak := <-reports
	assert.Equal(t, sqllease.ClassUnused, leak.Class)
	assert.Contains(t, leak.String(), "orm.migrateOnMySQL", "who took the connection")
	assert.Contains(t, leak.String(), "close the *sql.Conn on every path")
	noErrors(p, m)
	assert.True(t, (<-reports).Returned)
	assert.NoError(t, p.db.PingContext(t.Context()))
}

// TestMigrateClosesTheDatabase is what WithInstance does, and why the recipe
// for MySQL uses WithConnection.
func TestMigrateClosesTheDatabase(t *testing.T) {
	p := newPool(t, postgres, sqllease.Config{MaxOpen: limit})
	noErrors(p, openMigrate(p))
	assert.EqualError(t, p.db.PingContext(t.Context()), "sql: database is closed")
	assert.Zero(t, p.conn.Stats().Open)
}
