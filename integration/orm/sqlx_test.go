package orm

import (
	"context"
	"testing"

	"github.com/jmoiron/sqlx"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/sqllease/sqllease/integration/orm/sqlcdb"
)

// TestSqlx uses structs, named queries, bound queries and sqlx.In.
func TestSqlx(t *testing.T) {
	onServers(t, func(p *pool) {
		db := sqlxOnMySQL(p.db)
		if p.server == postgres {
			db = sqlxOnPostgreSQL(p.db)
		}
		b := sqlxBlog{p, db}
		p.work(b)
		p.request(func(ctx context.Context) { b.inAndRows(ctx) })
		p.request(func(ctx context.Context) { b.prepared(ctx) })
		p.wantSpans("INSERT users", "INSERT posts", "SELECT users", "SELECT posts", "UPDATE users", "DELETE posts",
			"begin", "commit", "rollback", "prepare SELECT users", "pool.acquire")
	})
}

// schema is the one that the libraries without migrations of their own use.
func (p *pool) schema(ctx context.Context) error {
	schema := sqlcdb.MySQL
	if p.server == postgres {
		schema = sqlcdb.PostgreSQL
	}
	return p.execAll(ctx, schema)
}

type sqlxBlog struct {
	p  *pool
	db *sqlx.DB
}

type sqlxUser struct {
	ID   int64
	Name string
}

func (b sqlxBlog) migrate(ctx context.Context) error { return b.p.schema(ctx) }

func (b sqlxBlog) addUser(ctx context.Context, name string, titles []string, last func() error) (id int64, err error) {
	tx, err := b.db.BeginTxx(ctx, nil)
	if err != nil {
		return 0, err
	}
	defer func() { _ = tx.Rollback() }()
	if err := tx.GetContext(ctx, &id, tx.Rebind("INSERT INTO users (name) VALUES (?) RETURNING id"), name); err != nil {
		return 0, err
	}
	for _, title := range titles {
		_, err := tx.NamedExecContext(ctx, "INSERT INTO posts (author, title) VALUES (:author, :title)",
			map[string]any{"author": id, "title": title})
		if err != nil {
			return 0, err
		}
	}
	if err := last(); err != nil {
		return 0, err
	}
	return id, tx.Commit()
}

func (b sqlxBlog) user(ctx context.Context, id int64) (string, error) {
	var u sqlxUser
	err := b.db.GetContext(ctx, &u, b.db.Rebind("SELECT id, name FROM users WHERE id = ?"), id)
	return u.Name, err
}

func (b sqlxBlog) posts(ctx context.Context, id int64) (titles []string, err error) {
	err = b.db.SelectContext(ctx, &titles, b.db.Rebind("SELECT title FROM posts WHERE author = ? ORDER BY id"), id)
	return titles, err
}

func (b sqlxBlog) rename(ctx context.Context, id int64, name string) error {
	_, err := b.db.NamedExecContext(ctx, "UPDATE users SET name = :name WHERE id = :id", sqlxUser{id, name})
	return err
}

func (b sqlxBlog) remove(ctx context.Context, id int64) error {
	for _, q := range []string{"DELETE FROM posts WHERE author = ?", "DELETE FROM users WHERE id = ?"} {
		if _, err := b.db.ExecContext(ctx, b.db.Rebind(q), id); err != nil {
			return err
		}
	}
	return nil
}

func (b sqlxBlog) countPosts(ctx context.Context) (n int, err error) {
	return n, b.db.GetContext(ctx, &n, "SELECT COUNT(*) FROM posts")
}

func (b sqlxBlog) nap(ctx context.Context) error {
	_, err := b.db.ExecContext(ctx, b.p.nap())
	return err
}

// inAndRows selects by a list, and reads rows one by one into structs.
func (b sqlxBlog) inAndRows(ctx context.Context) {
	query, args, err := sqlx.In("SELECT id, name FROM users WHERE name IN (?) ORDER BY id", []string{"user 3!", "user 5!"})
	require.NoError(b.p, err)
	rows, err := b.db.QueryxContext(ctx, b.db.Rebind(query), args...)
	require.NoError(b.p, err)
	defer func() { assert.NoError(b.p, rows.Close()) }()
	n := 0
	for ; rows.Next(); n++ {
		var u sqlxUser
		assert.NoError(b.p, rows.StructScan(&u))
		assert.NotZero(b.p, u.ID)
	}
	assert.NoError(b.p, rows.Err())
	assert.Equal(b.p, 2, n)
}

// prepared uses one named statement from many goroutines.
func (b sqlxBlog) prepared(ctx context.Context) {
	stmt, err := b.db.PrepareNamedContext(ctx, "SELECT id, name FROM users WHERE name = :name")
	require.NoError(b.p, err)
	defer func() { assert.NoError(b.p, stmt.Close()) }()
	b.p.crowd(20, func(ctx context.Context, _ int) {
		for range 5 {
			var u sqlxUser
			assert.NoError(b.p, stmt.GetContext(ctx, &u, sqlxUser{Name: "user 7!"}))
			assert.Equal(b.p, "user 7!", u.Name)
		}
	})
}
