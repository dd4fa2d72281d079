package faults

import (
	"context"
	"database/sql"
	"database/sql/driver"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/go-sql-driver/mysql"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/lib/pq"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/sqllease/sqllease"
	"github.com/sqllease/sqllease/integration/internal/line"
)

const (
	connections = 4 // of a pool
	workers     = 8
	patience    = 30 * time.Second // until something counts as never
)

// app is an application, whose pool is bare or wrapped. It reaches its server by
// a line of its own, as a user of its own.
type app struct {
	t     *testing.T
	db    *sql.DB
	pool  *sqllease.Connector // nil: bare
	line  *line.Line
	user  string
	login *rotating // of its connections; nil: they always log in as the user

	through through
	size    int // of the pool

	over atomic.Bool // the fault is
	done atomic.Int64

	mu       sync.Mutex
	deadline time.Duration // guarded by mu; of each call
	outcome  outcome       // guarded by mu
}

// outcome is what an application has seen.
type outcome struct {
	calls, failed, late int // late: failed, although they began when the fault was over
	longest             time.Duration
	kinds               map[string]int
	last                error
}

// use is one call of the application. It checks that the answer is its own.
func (a *app) use(ctx context.Context, n int) error {
	return a.counted(ctx, func(ctx context.Context) error {
		if n%4 != 0 {
			return a.ask(ctx, a.db, n)
		}
		tx, err := a.db.BeginTx(ctx, nil)
		if err != nil {
			return err
		}
		defer func() { _ = tx.Rollback() }()
		if err := a.ask(ctx, tx, n); err != nil {
			return err
		}
		return tx.Commit()
	})
}

// asked is a *sql.DB, *sql.Conn or *sql.Tx.
type asked interface {
	QueryRowContext(ctx context.Context, query string, args ...any) *sql.Row
}

func (a *app) ask(ctx context.Context, of asked, n int) error {
	var got int
	if a.through.answer != 0 {
		n = a.through.answer
	}
	err := of.QueryRowContext(ctx, a.through.statement, n).Scan(&got)
	if err == nil {
		assert.Equal(a.t, n, got, "the answer is another caller's")
	}
	return err
}

// counted makes a call in its deadline, and notes how it ended.
func (a *app) counted(ctx context.Context, call func(context.Context) error) error {
	a.mu.Lock()
	deadline := a.deadline
	a.mu.Unlock()
	ctx, cancel := context.WithTimeout(ctx, deadline)
	defer cancel()
	late, start := a.over.Load(), time.Now()
	err := call(ctx)
	took := time.Since(start)
	a.mu.Lock()
	defer a.mu.Unlock()
	o := &a.outcome
	o.calls++
	o.longest = max(o.longest, took)
	if err != nil {
		o.failed++
		o.kinds[kind(err)]++
		o.last = err
		if late {
			o.late++
		}
	}
	a.done.Add(1)
	return err
}

// within is the deadline of calls that begin from now on.
func (a *app) within(d time.Duration) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.deadline = d
}

// kind is a short name of an error.
func kind(err error) string {
	var my *mysql.MySQLError
	var pg *pgconn.PgError
	var lib *pq.Error
	switch {
	case errors.Is(err, context.DeadlineExceeded):
		return "deadline"
	case errors.As(err, &my):
		return fmt.Sprint("error ", my.Number)
	case errors.As(err, &pg):
		return "error " + pg.Code
	case errors.As(err, &lib):
		return "error " + string(lib.Code)
	case errors.Is(err, driver.ErrBadConn), errors.Is(err, mysql.ErrInvalidConn):
		return "bad connection"
	case strings.Contains(err.Error(), "refused"):
		return "refused"
	case strings.Contains(err.Error(), "reset by peer"):
		return "reset"
	case strings.Contains(err.Error(), "EOF"):
		return "EOF"
	}
	return fmt.Sprintf("%T", err)
}

// seen is what it has seen so far.
func (a *app) seen() outcome {
	a.mu.Lock()
	defer a.mu.Unlock()
	o := a.outcome
	o.kinds = maps.Clone(o.kinds)
	return o
}

func (o outcome) String() string {
	var kinds []string
	for _, k := range slices.Sorted(maps.Keys(o.kinds)) {
		kinds = append(kinds, fmt.Sprintf("%d %s", o.kinds[k], k))
	}
	return fmt.Sprintf("%d of %d failed, %d after it was over, longest %v: %s", o.failed, o.calls, o.late, o.longest.Round(time.Millisecond), strings.Join(kinds, ", "))
}

// load has callers call until it is stopped. To stop waits until each of them has ended.
func (a *app) load(call func(ctx context.Context, n int) error) (stop func()) {
	var all sync.WaitGroup
	end := make(chan struct{})
	for w := range workers {
		all.Go(func() {
			for n := w; ; n += workers {
				pause := 5 * time.Millisecond
				if call(context.Background(), n) != nil {
					pause = 20 * time.Millisecond
				}
				select {
				case <-end:
					return
				case <-time.After(pause): // to think, or before another try
				}
			}
		})
	}
	return func() {
		close(end)
		ended := make(chan struct{})
		go func() { all.Wait(); close(ended) }()
		select {
		case <-ended:
		case <-time.After(patience):
			require.Fail(a.t, "a caller waits for ever", "%s", a.user)
		}
	}
}

// more waits until so many calls more have ended.
func (a *app) more(calls int64) {
	from := a.done.Load()
	a.await("%d calls more", func() bool { return a.done.Load() >= from+calls }, calls)
}

func (a *app) await(what string, is func() bool, args ...any) {
	a.t.Helper()
	require.Eventually(a.t, is, patience, 5*time.Millisecond, append([]any{a.user + " waits for " + what}, args...)...)
}

// take has n connections at once.
func (a *app) take(n int) []*sql.Conn {
	a.t.Helper()
	conns := make([]*sql.Conn, n)
	var all sync.WaitGroup
	room := make(chan struct{}, 8) // a server takes so many handshakes at once
	for i := range conns {
		all.Go(func() {
			room <- struct{}{}
			defer func() { <-room }()
			ctx, cancel := context.WithTimeout(context.Background(), patience)
			defer cancel()
			conn, err := a.db.Conn(ctx)
			if assert.NoError(a.t, err) && assert.NoError(a.t, a.ask(ctx, conn, i)) {
				conns[i] = conn
			}
		})
	}
	all.Wait()
	require.NotContains(a.t, conns, (*sql.Conn)(nil), a.user)
	return conns
}

// refresh uses every connection at once: those that have died without a word are replaced.
func (a *app) refresh() {
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	var all, taken sync.WaitGroup
	taken.Add(a.size)
	for i := range a.size {
		all.Go(func() {
			conn, err := a.db.Conn(ctx)
			taken.Done()
			taken.Wait()
			if err == nil {
				_ = a.ask(ctx, conn, i)
				_ = conn.Close()
			}
		})
	}
	all.Wait()
}

// give gives connections back.
func give(conns []*sql.Conn) {
	for _, c := range conns {
		_ = c.Close()
	}
}

// fill has the pool open n connections, and leave them idle.
func (a *app) fill(n int) { give(a.take(n)) }

// idleAround leaves connections idle for times from least to most, and has as many callers use
// them at once. Before that, it does something with each of them.
func (a *app) idleAround(least, most time.Duration, before func(context.Context, *sql.Conn) error) {
	conns := a.take(a.size)
	a.line.Delay(way, 0) // now, for the dials were quick
	since := make([]time.Time, a.size)
	start := time.Now().Add(8 * way)
	var all sync.WaitGroup
	for i, c := range conns {
		all.Go(func() {
			// It is of no interest here whether this succeeds: what does not is no idle connection.
			_ = before(context.Background(), c)
			time.Sleep(time.Until(start.Add((most - least) * time.Duration(i) / time.Duration(a.size))))
			_ = a.ask(context.Background(), c, i) // from which its idle time counts
			since[i] = time.Now()
			_ = c.Close()
		})
	}
	all.Wait()
	time.Sleep(time.Until(since[0].Add(most)))
	a.burst(a.size)
	a.line.Delay(0, 0)
}

// burst has n callers call once, at the same time.
func (a *app) burst(n int) {
	var all sync.WaitGroup
	for i := range n {
		all.Go(func() { _ = a.use(context.Background(), i) })
	}
	all.Wait()
}

// spell has callers make so many calls each, one after the other.
func (a *app) spell(calls int) {
	var all sync.WaitGroup
	for w := range workers {
		all.Go(func() {
			for n := range calls {
				if a.use(context.Background(), w+n) != nil {
					time.Sleep(5 * time.Millisecond) // before another try
				}
			}
		})
	}
	all.Wait()
}

// open is how many connections the pool says that it has.
func (a *app) open() int {
	if a.pool != nil {
		return a.pool.Stats().Open
	}
	return a.db.Stats().OpenConnections
}
