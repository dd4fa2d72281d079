package orm

import (
	"context"
	"testing"

	sq "github.com/Masterminds/squirrel"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// TestSquirrel builds its queries, and runs them on the *sql.DB directly and
// through squirrel's cache of prepared statements.
func TestSquirrel(t *testing.T) {
	onServers(t, func(p *pool) {
		b := squirrelBlog{p, squirrelOnMySQL(p.db)}
		if p.server == postgres {
			b.sql = squirrelOnPostgreSQL(p.db)
		}
		p.work(b)
		p.request(func(ctx context.Context) { b.cached(ctx) })
		p.wantSpans("INSERT users", "INSERT posts", "SELECT users", "SELECT posts", "UPDATE users", "DELETE posts",
			"begin", "commit", "rollback", "prepare SELECT users", "pool.acquire")
	})
}

type squirrelBlog struct {
	p   *pool
	sql sq.StatementBuilderType
}

func (b squirrelBlog) migrate(ctx context.Context) error { return b.p.schema(ctx) }

func (b squirrelBlog) addUser(ctx context.Context, name string, titles []string, last func() error) (id int64, err error) {
	tx, err := b.p.db.BeginTx(ctx, nil)
	if err != nil {
		return 0, err
	}
	defer func() { _ = tx.Rollback() }()
	in := b.sql.RunWith(tx)
	err = in.Insert("users").Columns("name").Values(name).Suffix("RETURNING id").QueryRowContext(ctx).Scan(&id)
	if err != nil {
		return 0, err
	}
	posts := in.Insert("posts").Columns("author", "title")
	for _, title := range titles {
		posts = posts.Values(id, title)
	}
	if _, err := posts.ExecContext(ctx); err != nil {
		return 0, err
	}
	if err := last(); err != nil {
		return 0, err
	}
	return id, tx.Commit()
}

func (b squirrelBlog) user(ctx context.Context, id int64) (name string, err error) {
	return name, b.sql.Select("name").From("users").Where(sq.Eq{"id": id}).QueryRowContext(ctx).Scan(&name)
}

func (b squirrelBlog) posts(ctx context.Context, id int64) (titles []string, err error) {
	rows, err := b.sql.Select("title").From("posts").Join("users ON users.id = posts.author").
		Where(sq.Eq{"users.id": id}).OrderBy("posts.id").QueryContext(ctx)
	if err != nil {
		return nil, err
	}
	defer func() { _ = rows.Close() }()
	for rows.Next() {
		var title string
		if err := rows.Scan(&title); err != nil {
			return nil, err
		}
		titles = append(titles, title)
	}
	return titles, rows.Err()
}

func (b squirrelBlog) rename(ctx context.Context, id int64, name string) error {
	_, err := b.sql.Update("users").Set("name", name).Where(sq.Eq{"id": id}).ExecContext(ctx)
	return err
}

func (b squirrelBlog) remove(ctx context.Context, id int64) error {
	if _, err := b.sql.Delete("posts").Where(sq.Eq{"author": id}).ExecContext(ctx); err != nil {
		return err
	}
	_, err := b.sql.Delete("users").Where(sq.Eq{"id": id}).ExecContext(ctx)
	return err
}

func (b squirrelBlog) countPosts(ctx context.Context) (n int, err error) {
	return n, b.sql.Select("COUNT(*)").From("posts").QueryRowContext(ctx).Scan(&n)
}

func (b squirrelBlog) nap(ctx context.Context) error {
	_, err := sq.ExecContextWith(ctx, b.p.db, sq.Expr(b.p.nap()))
	return err
}

// cached uses squirrel's cached statements from many goroutines.
func (b squirrelBlog) cached(context.Context) {
	cache := squirrelCache(b.p.db)
	defer func() { assert.NoError(b.p, cache.Clear()) }()
	sql := b.sql.RunWith(cache)
	b.p.crowd(20, func(ctx context.Context, _ int) {
		for range 5 {
			var n int
			require.NoError(b.p, sql.Select("COUNT(*)").From("users").QueryRowContext(ctx).Scan(&n))
			assert.Equal(b.p, 24, n)
		}
	})
}
