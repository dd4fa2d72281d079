package orm

import (
	"context"
	"database/sql"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/sqllease/sqllease/integration/orm/sqlcdb/mysqldb"
	"github.com/sqllease/sqllease/integration/orm/sqlcdb/pgdb"
)

// TestSqlc uses generated code, with its queries prepared and without.
func TestSqlc(t *testing.T) {
	for name, prepared := range map[string]bool{"direct": false, "prepared": true} {
		t.Run(name, func(t *testing.T) {
			onServers(t, func(p *pool) {
				b := &sqlcBlog{p: p, prepared: prepared}
				p.Cleanup(b.close)
				p.work(b)
				p.wantSpans("CreateUser", "CreatePost", "UserName", "Posts", "RenameUser", "DeletePosts", // sqlc's names
					"begin", "commit", "rollback", "pool.acquire")
				if prepared {
					p.wantSpans("prepare CreateUser", "prepare Posts")
					assert.NotZero(p, p.conn.Stats().StatementsShared, "prepared statements survive handovers")
				}
			})
		})
	}
}

// sqlcBlog has one of two sets of queries: those in the server's dialect.
type sqlcBlog struct {
	p        *pool
	prepared bool
	my       *mysqldb.Queries
	pg       *pgdb.Queries
}

// migrate also prepares the queries: sqlc does it all at once, and needs the
// tables.
func (b *sqlcBlog) migrate(ctx context.Context) (err error) {
	if err := b.p.schema(ctx); err != nil {
		return err
	}
	switch onPostgreSQL := b.p.server == postgres; {
	case b.prepared && onPostgreSQL:
		b.pg, err = pgdb.Prepare(ctx, b.p.db)
	case b.prepared:
		b.my, err = sqlcPrepared(ctx, b.p.db)
	case onPostgreSQL:
		b.pg = pgdb.New(b.p.db)
	default:
		b.my = sqlcDirect(b.p.db)
	}
	return err
}

func (b *sqlcBlog) close() {
	if b.prepared && b.my != nil {
		assert.NoError(b.p, b.my.Close())
	}
	if b.prepared && b.pg != nil {
		assert.NoError(b.p, b.pg.Close())
	}
}

func (b *sqlcBlog) addUser(ctx context.Context, name string, titles []string, last func() error) (id int64, err error) {
	tx, err := b.p.db.BeginTx(ctx, nil)
	if err != nil {
		return 0, err
	}
	defer func() { _ = tx.Rollback() }()
	if id, err = b.insert(ctx, tx, name, titles); err != nil {
		return 0, err
	}
	if err := last(); err != nil {
		return 0, err
	}
	return id, tx.Commit()
}

func (b *sqlcBlog) insert(ctx context.Context, tx *sql.Tx, name string, titles []string) (id int64, err error) {
	if b.pg != nil {
		q := b.pg.WithTx(tx)
		id, err = q.CreateUser(ctx, name)
		for _, title := range titles {
			if err == nil {
				err = q.CreatePost(ctx, pgdb.CreatePostParams{Author: id, Title: title})
			}
		}
		return id, err
	}
	q := b.my.WithTx(tx)
	id, err = q.CreateUser(ctx, name)
	for _, title := range titles {
		if err == nil {
			err = q.CreatePost(ctx, mysqldb.CreatePostParams{Author: id, Title: title})
		}
	}
	return id, err
}

func (b *sqlcBlog) user(ctx context.Context, id int64) (string, error) {
	if b.pg != nil {
		return b.pg.UserName(ctx, id)
	}
	return b.my.UserName(ctx, id)
}

func (b *sqlcBlog) posts(ctx context.Context, id int64) (titles []string, err error) {
	if b.pg != nil {
		rows, err := b.pg.Posts(ctx, id)
		for _, row := range rows {
			titles = append(titles, row.Title)
		}
		return titles, err
	}
	rows, err := b.my.Posts(ctx, id)
	for _, row := range rows {
		titles = append(titles, row.Title)
	}
	return titles, err
}

func (b *sqlcBlog) rename(ctx context.Context, id int64, name string) (err error) {
	var n int64
	if b.pg != nil {
		n, err = b.pg.RenameUser(ctx, pgdb.RenameUserParams{ID: id, Name: name})
	} else {
		n, err = b.my.RenameUser(ctx, mysqldb.RenameUserParams{ID: id, Name: name})
	}
	require.LessOrEqual(b.p, n, int64(1)) // MariaDB counts no row that was so already
	return err
}

// remove also deletes the user, with a statement that is not sqlc's: both go
// to the same *sql.DB.
func (b *sqlcBlog) remove(ctx context.Context, id int64) (err error) {
	if b.pg != nil {
		_, err = b.pg.DeletePosts(ctx, id)
	} else {
		_, err = b.my.DeletePosts(ctx, id)
	}
	if err != nil {
		return err
	}
	query := "DELETE FROM users WHERE id = ?"
	if b.pg != nil {
		query = "DELETE FROM users WHERE id = $1"
	}
	_, err = b.p.db.ExecContext(ctx, query, id)
	return err
}

func (b *sqlcBlog) countPosts(ctx context.Context) (int, error) {
	if b.pg != nil {
		n, err := b.pg.CountPosts(ctx)
		return int(n), err
	}
	n, err := b.my.CountPosts(ctx)
	return int(n), err
}

func (b *sqlcBlog) nap(ctx context.Context) error {
	if b.pg != nil {
		return b.pg.Nap(ctx, 10)
	}
	_, err := b.my.Nap(ctx, 10)
	return err
}
