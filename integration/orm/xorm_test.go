package orm

import (
	"context"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"xorm.io/xorm"
)

// TestXorm uses structs with tags, sessions with transactions, prepared
// statements and rows.
func TestXorm(t *testing.T) {
	onServers(t, func(p *pool) {
		open := xormOnMySQL
		if p.server == postgres {
			open = xormOnPostgreSQL
		}
		engine, err := open(p.db, p.dsn)
		require.NoError(p, err)
		assert.Same(p, p.db, engine.DB().DB, "xorm gives the wrapped *sql.DB back")

		b := xormBlog{p, engine}
		p.work(b)
		p.request(func(ctx context.Context) { b.rows(ctx) })
		p.request(func(ctx context.Context) { b.prepared(ctx) })
		p.wantSpans("INSERT users", "INSERT posts", "SELECT users", "SELECT posts", "UPDATE users", "DELETE users",
			"begin", "commit", "rollback", "prepare SELECT users", "pool.acquire")
	})
}

type xormUser struct {
	ID   int64  `xorm:"pk autoincr 'id'"`
	Name string `xorm:"notnull"`
}

func (xormUser) TableName() string { return "users" }

type xormPost struct {
	ID     int64  `xorm:"pk autoincr 'id'"`
	Author int64  `xorm:"index notnull"`
	Title  string `xorm:"notnull"`
}

func (xormPost) TableName() string { return "posts" }

type xormBlog struct {
	p      *pool
	engine *xorm.Engine
}

func (b xormBlog) migrate(ctx context.Context) error {
	return b.engine.Context(ctx).Sync(new(xormUser), new(xormPost))
}

func (b xormBlog) addUser(ctx context.Context, name string, titles []string, last func() error) (int64, error) {
	session := b.engine.NewSession().Context(ctx)
	defer func() { _ = session.Close() }() // which rolls back; it fails where the context has ended
	if err := session.Begin(); err != nil {
		return 0, err
	}
	u := &xormUser{Name: name}
	if _, err := session.Insert(u); err != nil {
		return 0, err
	}
	var posts []*xormPost
	for _, title := range titles {
		posts = append(posts, &xormPost{Author: u.ID, Title: title})
	}
	if _, err := session.Insert(&posts); err != nil {
		return 0, err
	}
	if err := last(); err != nil {
		return 0, err
	}
	return u.ID, session.Commit()
}

func (b xormBlog) user(ctx context.Context, id int64) (string, error) {
	var u xormUser
	err := b.engine.Context(ctx).ID(id).GetOrError(&u)
	return u.Name, err
}

func (b xormBlog) posts(ctx context.Context, id int64) (titles []string, err error) {
	var posts []xormPost
	err = b.engine.Context(ctx).Where("author = ?", id).Asc("id").Find(&posts)
	for _, post := range posts {
		titles = append(titles, post.Title)
	}
	return titles, err
}

func (b xormBlog) rename(ctx context.Context, id int64, name string) error {
	_, err := b.engine.Context(ctx).ID(id).Cols("name").Update(&xormUser{Name: name})
	return err
}

func (b xormBlog) remove(ctx context.Context, id int64) error {
	if _, err := b.engine.Context(ctx).Where("author = ?", id).Delete(new(xormPost)); err != nil {
		return err
	}
	_, err := b.engine.Context(ctx).ID(id).Delete(new(xormUser))
	return err
}

func (b xormBlog) countPosts(ctx context.Context) (int, error) {
	n, err := b.engine.Context(ctx).Count(new(xormPost))
	return int(n), err
}

func (b xormBlog) nap(ctx context.Context) error {
	_, err := b.engine.Context(ctx).Exec(b.p.nap())
	return err
}

// rows reads row by row.
func (b xormBlog) rows(ctx context.Context) {
	rows, err := b.engine.Context(ctx).Rows(new(xormUser))
	require.NoError(b.p, err)
	defer func() { assert.NoError(b.p, rows.Close()) }()
	b.p.heldHere(false)
	n := 0
	for ; rows.Next(); n++ {
		var u xormUser
		assert.NoError(b.p, rows.Scan(&u))
		assert.NotEmpty(b.p, u.Name)
	}
	assert.NoError(b.p, rows.Err())
	assert.Equal(b.p, 24, n)
}

// prepared has a session keep its statements.
func (b xormBlog) prepared(ctx context.Context) {
	session := b.engine.NewSession().Context(ctx).Prepare()
	defer func() { assert.NoError(b.p, session.Close()) }()
	for range 3 {
		var u xormUser
		_, err := session.Prepare().Where("name <> ?", "").Get(&u)
		assert.NoError(b.p, err)
		assert.NotEmpty(b.p, u.Name)
	}
}
