package orm

import (
	"context"
	"errors"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/sqllease/sqllease/integration/orm/ent"
	"github.com/sqllease/sqllease/integration/orm/ent/post"
	"github.com/sqllease/sqllease/integration/orm/ent/user"
)

// TestEnt uses generated code: its migration, edges, eager loading, bulk
// creation and transactions with hooks.
func TestEnt(t *testing.T) {
	onServers(t, func(p *pool) {
		client := entOnMySQL(p.db)
		if p.server == postgres {
			client = entOnPostgreSQL(p.db)
		}
		b := entBlog{p, client}
		p.work(b)
		p.request(func(ctx context.Context) { b.hooks(ctx) })
		p.request(func(ctx context.Context) { b.edges(ctx) })
		p.wantSpans("INSERT users", "INSERT posts", "SELECT users", "SELECT posts", "UPDATE users", "DELETE users",
			"begin", "commit", "rollback", "pool.acquire")
	})
}

type entBlog struct {
	p      *pool
	client *ent.Client
}

func (b entBlog) migrate(ctx context.Context) error { return b.client.Schema.Create(ctx) }

func (b entBlog) addUser(ctx context.Context, name string, titles []string, last func() error) (int64, error) {
	tx, err := b.client.Tx(ctx)
	if err != nil {
		return 0, err
	}
	id, err := addEntUser(ctx, tx, name, titles)
	if err == nil {
		err = last()
	}
	if err != nil {
		_ = tx.Rollback()
		return 0, err
	}
	return int64(id), tx.Commit()
}

func addEntUser(ctx context.Context, tx *ent.Tx, name string, titles []string) (int, error) {
	u, err := tx.User.Create().SetName(name).Save(ctx)
	if err != nil {
		return 0, err
	}
	return u.ID, tx.Post.MapCreateBulk(titles, func(c *ent.PostCreate, i int) {
		c.SetTitle(titles[i]).SetAuthor(u)
	}).Exec(ctx)
}

func (b entBlog) user(ctx context.Context, id int64) (string, error) {
	u, err := b.client.User.Get(ctx, int(id))
	if err != nil {
		return "", err
	}
	return u.Name, nil
}

func (b entBlog) posts(ctx context.Context, id int64) (titles []string, err error) {
	u, err := b.client.User.Query().Where(user.ID(int(id))).
		WithPosts(func(q *ent.PostQuery) { q.Order(ent.Asc(post.FieldID)) }).Only(ctx)
	if err != nil {
		return nil, err
	}
	for _, post := range u.Edges.Posts {
		titles = append(titles, post.Title)
	}
	return titles, nil
}

func (b entBlog) rename(ctx context.Context, id int64, name string) error {
	return b.client.User.UpdateOneID(int(id)).SetName(name).Exec(ctx)
}

func (b entBlog) remove(ctx context.Context, id int64) error {
	if _, err := b.client.Post.Delete().Where(post.HasAuthorWith(user.ID(int(id)))).Exec(ctx); err != nil {
		return err
	}
	return b.client.User.DeleteOneID(int(id)).Exec(ctx)
}

func (b entBlog) countPosts(ctx context.Context) (int, error) {
	return b.client.Post.Query().Count(ctx)
}

func (b entBlog) nap(ctx context.Context) error {
	_, err := b.p.db.ExecContext(ctx, b.p.nap()) // ent itself takes no raw SQL
	return err
}

// hooks rolls back in a hook of the commit.
func (b entBlog) hooks(ctx context.Context) {
	unwanted := errors.New("unwanted")
	tx, err := b.client.Tx(ctx)
	require.NoError(b.p, err)
	tx.OnCommit(func(ent.Committer) ent.Committer {
		return ent.CommitFunc(func(context.Context, *ent.Tx) error { return unwanted })
	})
	_, err = tx.User.Create().SetName("hooked").Save(ctx)
	require.NoError(b.p, err)
	assert.ErrorIs(b.p, tx.Commit(), unwanted)
	assert.Len(b.p, b.p.conn.Leases(), 1, "neither committed nor rolled back")
	assert.NoError(b.p, tx.Rollback())
	assert.Zero(b.p, b.client.User.Query().Where(user.Name("hooked")).CountX(ctx))
}

// edges walks along the edges of the graph.
func (b entBlog) edges(ctx context.Context) {
	names, err := b.client.Post.Query().Where(post.Title("post 3")).QueryAuthor().Select(user.FieldName).Strings(ctx)
	require.NoError(b.p, err)
	assert.Equal(b.p, []string{"user 3!"}, names)
}
