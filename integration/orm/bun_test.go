package orm

import (
	"context"
	"database/sql"
	"errors"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"github.com/uptrace/bun"
)

// TestBun uses models with a relation, and transactions with savepoints.
func TestBun(t *testing.T) {
	onServers(t, func(p *pool) {
		db := bunOnMySQL(p.db)
		if p.server == postgres {
			db = bunOnPostgreSQL(p.db)
		}
		b := bunBlog{p, db}
		p.work(b)
		p.request(func(ctx context.Context) { b.savepoints(ctx) })
		p.request(func(ctx context.Context) { b.prepared(ctx) })
		p.request(func(ctx context.Context) { b.rows(ctx) })
		p.wantSpans("INSERT users", "INSERT posts", "SELECT users", "SELECT posts", "UPDATE users", "DELETE users",
			"begin", "commit", "rollback", "SAVEPOINT", "prepare SELECT users", "pool.acquire")
	})
}

type bunUser struct {
	bun.BaseModel `bun:"table:users,alias:u"`

	ID    int64      `bun:",pk,autoincrement"`
	Name  string     `bun:",notnull"`
	Posts []*bunPost `bun:"rel:has-many,join:id=author"`
}

type bunPost struct {
	bun.BaseModel `bun:"table:posts,alias:p"`

	ID     int64  `bun:",pk,autoincrement"`
	Author int64  `bun:",notnull"`
	Title  string `bun:",notnull"`
}

type bunBlog struct {
	p  *pool
	db *bun.DB
}

func (b bunBlog) migrate(ctx context.Context) error {
	return b.db.ResetModel(ctx, (*bunUser)(nil), (*bunPost)(nil))
}

func (b bunBlog) addUser(ctx context.Context, name string, titles []string, last func() error) (int64, error) {
	u := &bunUser{Name: name}
	err := b.db.RunInTx(ctx, nil, func(ctx context.Context, tx bun.Tx) error {
		if _, err := tx.NewInsert().Model(u).Exec(ctx); err != nil {
			return err
		}
		for _, title := range titles {
			u.Posts = append(u.Posts, &bunPost{Author: u.ID, Title: title})
		}
		if _, err := tx.NewInsert().Model(&u.Posts).Exec(ctx); err != nil {
			return err
		}
		return last()
	})
	return u.ID, err
}

func (b bunBlog) user(ctx context.Context, id int64) (string, error) {
	u := &bunUser{ID: id}
	err := b.db.NewSelect().Model(u).WherePK().Scan(ctx)
	return u.Name, err
}

func (b bunBlog) posts(ctx context.Context, id int64) (titles []string, err error) {
	u := &bunUser{ID: id}
	err = b.db.NewSelect().Model(u).WherePK().Scan(ctx)
	if err == nil {
		err = b.db.NewSelect().Model(u).WherePK().Relation("Posts", func(q *bun.SelectQuery) *bun.SelectQuery {
			return q.Order("p.id")
		}).Scan(ctx)
	}
	for _, post := range u.Posts {
		titles = append(titles, post.Title)
	}
	return titles, err
}

func (b bunBlog) rename(ctx context.Context, id int64, name string) error {
	_, err := b.db.NewUpdate().Model(&bunUser{ID: id, Name: name}).Column("name").WherePK().Exec(ctx)
	return err
}

func (b bunBlog) remove(ctx context.Context, id int64) error {
	if _, err := b.db.NewDelete().Model((*bunPost)(nil)).Where("author = ?", id).Exec(ctx); err != nil {
		return err
	}
	_, err := b.db.NewDelete().Model(&bunUser{ID: id}).WherePK().Exec(ctx)
	return err
}

func (b bunBlog) countPosts(ctx context.Context) (int, error) {
	n, err := b.db.NewSelect().Model((*bunPost)(nil)).Count(ctx)
	return int(n), err
}

func (b bunBlog) nap(ctx context.Context) error {
	_, err := b.db.NewRaw(b.p.nap()).Exec(ctx)
	return err
}

// savepoints rolls a transaction within a transaction back.
func (b bunBlog) savepoints(ctx context.Context) {
	unwanted := errors.New("unwanted")
	err := b.db.RunInTx(ctx, &sql.TxOptions{Isolation: sql.LevelSerializable}, func(ctx context.Context, tx bun.Tx) error {
		if _, err := tx.NewInsert().Model(&bunUser{Name: "outer"}).Exec(ctx); err != nil {
			return err
		}
		inner := tx.RunInTx(ctx, nil, func(ctx context.Context, tx bun.Tx) error {
			if _, err := tx.NewInsert().Model(&bunUser{Name: "inner"}).Exec(ctx); err != nil {
				return err
			}
			return unwanted
		})
		assert.ErrorIs(b.p, inner, unwanted)
		return nil
	})
	require.NoError(b.p, err)
	var names []string
	require.NoError(b.p, b.db.NewSelect().Model((*bunUser)(nil)).Column("name").
		Where("name IN ('outer', 'inner')").Scan(ctx, &names))
	assert.Equal(b.p, []string{"outer"}, names)
}

// prepared uses one statement from many goroutines.
func (b bunBlog) prepared(ctx context.Context) {
	stmt, err := b.db.PrepareContext(ctx, "SELECT COUNT(*) FROM users")
	require.NoError(b.p, err)
	defer func() { assert.NoError(b.p, stmt.Close()) }()
	b.p.crowd(20, func(ctx context.Context, _ int) {
		var n int
		assert.NoError(b.p, stmt.QueryRowContext(ctx).Scan(&n))
		assert.Equal(b.p, 25, n)
	})
}

// rows reads row by row.
func (b bunBlog) rows(ctx context.Context) {
	rows, err := b.db.NewSelect().Model((*bunUser)(nil)).Rows(ctx)
	require.NoError(b.p, err)
	defer func() { assert.NoError(b.p, rows.Close()) }()
	b.p.heldHere(false)
	n := 0
	for ; rows.Next(); n++ {
		var u bunUser
		assert.NoError(b.p, b.db.ScanRow(ctx, rows, &u))
		assert.NotEmpty(b.p, u.Name)
	}
	assert.NoError(b.p, rows.Err())
	assert.Equal(b.p, 25, n)
}
