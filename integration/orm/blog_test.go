package orm

import (
	"context"
	"errors"
	"fmt"
	"sync/atomic"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// blog is an application's access to its data, written with one of the
// libraries, in the way that is usual with it.
type blog interface {
	// migrate makes the tables users and posts.
	migrate(ctx context.Context) error
	// addUser adds a user and posts in one transaction, and calls last at its
	// end: an error from it rolls back.
	addUser(ctx context.Context, name string, titles []string, last func() error) (id int64, err error)
	// user is a user's name.
	user(ctx context.Context, id int64) (string, error)
	// posts are the titles of a user's posts, in order.
	posts(ctx context.Context, id int64) ([]string, error)
	rename(ctx context.Context, id int64, name string) error
	// remove removes a user with all posts.
	remove(ctx context.Context, id int64) error
	// countPosts counts all posts.
	countPosts(ctx context.Context) (int, error)
	// nap runs a statement that takes the server ten seconds.
	nap(ctx context.Context) error
}

// nap is the statement for blog.nap.
func (p *pool) nap() string {
	if p.server == postgres {
		return "SELECT pg_sleep(10)"
	}
	return "SELECT SLEEP(10)"
}

// work is what every library has to do.
func (p *pool) work(b blog) {
	sessions := p.watchSessions()
	p.request(func(ctx context.Context) { require.NoError(p, b.migrate(ctx)) })
	p.request(func(ctx context.Context) { p.oneOfEach(ctx, b) })
	p.request(func(ctx context.Context) { p.rollsBack(ctx, b) })
	p.crowd(24, func(ctx context.Context, i int) { p.oneOfMany(ctx, b, i) })
	assert.Equal(p, limit, sessions(), "the most sessions on the server at a time")
	assert.Empty(p, p.conn.Leases(), "after all requests were served")
	assert.NotZero(p, p.conn.Stats().Waits, "24 requests on %d sessions wait", limit)

	p.cancelInTransaction(b)
	p.cancelInStatement(b)
	p.request(func(ctx context.Context) {
		n, err := b.countPosts(ctx)
		assert.NoError(p, err, "it works on after all that")
		assert.Equal(p, 24, n)
	})
}

// nothing is the last thing in a transaction that succeeds.
func nothing() error { return nil }

func (p *pool) oneOfEach(ctx context.Context, b blog) {
	id, err := b.addUser(ctx, "Ann", []string{"one", "two"}, func() error { p.heldHere(true); return nil })
	require.NoError(p, err)
	titles, err := b.posts(ctx, id)
	assert.NoError(p, err)
	assert.Equal(p, []string{"one", "two"}, titles)
	assert.NoError(p, b.rename(ctx, id, "Anne"))
	name, err := b.user(ctx, id)
	assert.NoError(p, err)
	assert.Equal(p, "Anne", name)
	assert.NoError(p, b.remove(ctx, id))
	_, err = b.user(ctx, id)
	assert.Error(p, err, "there is no such user any more")
	n, err := b.countPosts(ctx)
	assert.NoError(p, err)
	assert.Zero(p, n)
}

func (p *pool) rollsBack(ctx context.Context, b blog) {
	unwanted := errors.New("unwanted")
	_, err := b.addUser(ctx, "Bob", []string{"one"}, func() error { return unwanted })
	assert.ErrorIs(p, err, unwanted)
	n, err := b.countPosts(ctx)
	assert.NoError(p, err)
	assert.Zero(p, n)
}

// oneOfMany leaves one post.
func (p *pool) oneOfMany(ctx context.Context, b blog, i int) {
	name, title := fmt.Sprint("user ", i), fmt.Sprint("post ", i)
	_, err := b.addUser(ctx, name, []string{title}, func() error { return context.Canceled })
	assert.ErrorIs(p, err, context.Canceled)
	id, err := b.addUser(ctx, name, []string{title}, nothing)
	if !assert.NoError(p, err) {
		return
	}
	for range 5 {
		titles, err := b.posts(ctx, id)
		assert.NoError(p, err)
		assert.Equal(p, []string{title}, titles)
		assert.NoError(p, b.rename(ctx, id, name+"!"))
		got, err := b.user(ctx, id)
		assert.NoError(p, err)
		assert.Equal(p, name+"!", got)
	}
}

// cancelInTransaction ends the contexts of requests with a transaction open.
func (p *pool) cancelInTransaction(b blog) {
	p.crowd(8, func(ctx context.Context, i int) {
		ctx, cancel := context.WithCancel(ctx)
		defer cancel()
		_, err := b.addUser(ctx, fmt.Sprint("gone ", i), []string{"gone"}, func() error { cancel(); return ctx.Err() })
		assert.ErrorIs(p, err, context.Canceled)
	})
}

// cancelInStatement ends the contexts of more requests than there are
// sessions: some in a statement, others in the queue.
func (p *pool) cancelInStatement(b blog) {
	var failed atomic.Int64
	p.crowd(3*limit, func(ctx context.Context, _ int) {
		ctx, cancel := context.WithTimeout(ctx, 100*time.Millisecond)
		defer cancel()
		if err := b.nap(ctx); err != nil {
			failed.Add(1)
		}
	})
	assert.Equal(p, int64(3*limit), failed.Load())
	assert.LessOrEqual(p, p.conn.Stats().Open, limit)
}
