package orm

import (
	"context"
	"database/sql"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5/stdlib"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"github.com/uptrace/bun"
	"github.com/uptrace/bun/driver/pgdriver"

	"github.com/sqllease/sqllease"
)

// TestCopyWithPgx copies through Raw and Unwrap, on a *sql.DB.
func TestCopyWithPgx(t *testing.T) {
	p := newPool(t, postgres, usual(t))
	p.request(func(ctx context.Context) {
		require.NoError(t, p.execAll(ctx, "CREATE TABLE users (id BIGSERIAL, name TEXT NOT NULL)"))
		n, err := copyNames(ctx, p.db, [][]any{{"Ann"}, {"Bob"}})
		assert.NoError(t, err)
		assert.EqualValues(t, 2, n)
		_, err = copyNames(ctx, p.db, [][]any{{nil}})
		assert.ErrorContains(t, err, "23502", "a violation is told as it is")
		assert.Equal(t, 1, p.conn.Stats().Open, "and the connection is as good as before")
		wantNames(ctx, t, p.db, "Ann, Bob")
	})
}

// wantNames checks which users there are.
func wantNames(ctx context.Context, t *testing.T, db *sql.DB, want string) {
	var got string
	require.NoError(t, db.QueryRowContext(ctx, "SELECT string_agg(name, ', ' ORDER BY id) FROM users").Scan(&got))
	assert.Equal(t, want, got)
}

// TestWorkInRawIsNotSeen has work on the driver's own connection that takes longer
// than the threshold: it is reported, unless WithHoldLimit says that it takes long.
func TestWorkInRawIsNotSeen(t *testing.T) {
	leaks := make(chan sqllease.Leak, 10)
	p := newPool(t, postgres, sqllease.Config{LeakThreshold: 50 * time.Millisecond, Logger: quiet, OnLeak: func(l sqllease.Leak) { leaks <- l }})
	p.leaks = 1
	sleep := func(ctx context.Context) {
		conn, err := p.db.Conn(ctx)
		require.NoError(t, err)
		defer func() { assert.NoError(t, conn.Close()) }()
		require.NoError(t, conn.Raw(func(driverConn any) error {
			pg, ok := sqllease.Unwrap[*stdlib.Conn](driverConn)
			require.True(t, ok)
			_, err := pg.Conn().Exec(ctx, "SELECT pg_sleep(0.3)")
			return err
		}))
	}
	p.request(func(ctx context.Context) { sleep(sqllease.WithHoldLimit(ctx, 10*time.Minute)) })
	assert.Empty(t, leaks)
	p.request(sleep)
	assert.True(t, (<-leaks).Unwrapped)
}

// TestCopyWithPgdriver has bun's own driver. Its COPY asserts the type of the connection,
// and cannot be reached with Unwrap: it needs a bare database.
func TestCopyWithPgdriver(t *testing.T) {
	var copies *bun.DB
	p := newPoolBy(t, postgres, usual(t), func(p *pool, cfg sqllease.Config) *sql.DB {
		b, bare, err := bunOnPgdriver(p.dsn, cfg)
		require.NoError(t, err)
		copies = bare
		return b.DB
	})
	defer func() { assert.NoError(t, copies.Close()) }()
	b := bunBlog{p, bunOnPostgreSQL(p.db)}
	copyIn := func(ctx context.Context, db *bun.DB) error {
		conn, err := db.Conn(ctx)
		require.NoError(t, err)
		defer func() { _ = conn.Close() }() // a panic has closed it
		_, err = pgdriver.CopyFrom(ctx, conn, strings.NewReader("Ann\nBob\n"), "COPY users (name) FROM STDIN")
		return err
	}
	p.request(func(ctx context.Context) {
		require.NoError(t, b.migrate(ctx))
		assert.Panics(t, func() { _ = copyIn(ctx, b.db) }, "the wrapped one is none of pgdriver's")
		assert.NoError(t, copyIn(ctx, copies))
		wantNames(ctx, t, p.db, "Ann, Bob")
		_, err := p.db.ExecContext(ctx, "INSERT INTO users (name) VALUES (NULL)")
		assert.Error(t, err)
	})
	for _, s := range p.spans.Ended() {
		if s.Name() != "INSERT users" {
			continue
		}
		have := map[string]string{}
		for _, a := range s.Attributes() {
			have[string(a.Key)] = a.Value.String()
		}
		assert.Equal(t, "postgresql", have["db.system.name"])
		assert.Equal(t, "23502", have["db.response.status_code"])
	}
	p.wantSpans("INSERT users")
	assert.Zero(t, p.conn.Stats().DiscoveryFailures)
}
