package sqllease

import (
	"context"
	"database/sql/driver"
	"errors"
	"log/slog"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// The question for a server's limits, and others who want the session that is asked.

// slowRound has the question take that long, unless its context ends.
func slowRound(takes time.Duration) func(context.Context, *lifetimeFakeConn) error {
	return func(ctx context.Context, _ *lifetimeFakeConn) error {
		select {
		case <-time.After(takes):
			return errors.New("not now")
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// Each who comes to wait does not give the question another while.
func TestAQuestionEndsSoonHoweverManyComeToWait(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := &lifetimeFake{announced: []any{hanging, lifetimeSeconds(60)}}
		db, c, _ := openLimited(t, f, Config{Dialect: DialectMySQL})
		useAndAsk(t, db)
		var all sync.WaitGroup
		for range 10 {
			all.Go(func() {
				start := time.Now()
				useOnce(t, db)
				assert.LessOrEqual(t, time.Since(start), askPatience)
			})
			elapse(askPatience / 5)
		}
		all.Wait()
		endLimited(t, db, c, f)
	})
}

// Who waited before the question was asked does not wait for longer than who comes later.
func TestAQuestionEndsSoonWhereSomebodyHasWaited(t *testing.T) {
	const dialTakes = time.Second
	for name, minIdle := range map[string]int{"dialed ahead": 1, "dialed by Ready": 0} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				f := &lifetimeFake{
					announced: []any{hanging, lifetimeSeconds(60)},
					connect:   func(context.Context, int) error { elapse(dialTakes); return nil },
				}
				db, c, _ := openLimited(t, f, Config{Dialect: DialectMySQL, MinIdle: minIdle})
				var ready sync.WaitGroup
				if minIdle == 0 {
					ready.Go(func() { assert.NoError(t, c.Ready(t.Context())) })
				}
				elapse(dialTakes / 2)
				start := time.Now()
				useOnce(t, db)
				assert.Equal(t, dialTakes/2+askPatience+dialTakes, time.Since(start))
				ready.Wait()
				elapse(time.Minute)
			})
		})
	}
}

// Somebody who waited, and has been served, is no reason to end it: that costs a connection.
func TestAQuestionGoesOnWhereNobodyWaitsAnyMore(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := &lifetimeFake{announced: []any{slowRound(2 * askPatience)}}
		db, c := openPool(t, f, Config{Dialect: DialectMySQL, MaxOpen: 2, Logger: slog.New(&keptLog{})})
		giveBack(t, take(t, db, 2)...)
		asked()
		held := take(t, db, 1)
		time.AfterFunc(askPatience/5, func() { giveBack(t, held...) })
		useOnce(t, db) // it waits for that
		elapse(time.Second)
		assert.Zero(t, c.Stats().Closed.Invalid)
	})
}

// lateConn is a session whose results ask it when they are asked themselves, as those of some
// drivers do, and which tells when two calls use it at once.
type lateConn struct {
	*lifetimeFakeConn
	wire     sync.Mutex
	t        *testing.T
	question chan struct{} // closed when one has begun
}

type lateAnswer struct{ c *lateConn }

func (r lateAnswer) LastInsertId() (int64, error) {
	r.c.call(func() {})
	return 1, nil
}
func (r lateAnswer) RowsAffected() (int64, error) { return 1, nil }

func (c *lateConn) call(f func()) {
	if !c.wire.TryLock() {
		c.t.Error("two calls at once on one connection")
		return
	}
	defer c.wire.Unlock()
	f()
}

func (c *lateConn) ExecContext(ctx context.Context, q string, args []driver.NamedValue) (driver.Result, error) {
	_, err := c.lifetimeFakeConn.ExecContext(ctx, q, args)
	return lateAnswer{c}, err
}

func (c *lateConn) QueryContext(ctx context.Context, q string, args []driver.NamedValue) (rows driver.Rows, err error) {
	c.call(func() {
		close(c.question)
		elapse(50 * time.Millisecond) // so that whoever does not wait for it comes meanwhile
		rows, err = c.lifetimeFakeConn.QueryContext(ctx, q, args)
	})
	return rows, err
}

// A result that asks its connection late takes turns with the question. In real time, since a
// bubble's does not go on while a mutex is waited for.
func TestAResultThatIsReadWhileTheServerIsAsked(t *testing.T) {
	f, question := &lifetimeFake{announced: []any{lifetimeSeconds(60)}}, make(chan struct{})
	f.dress = func(c *lifetimeFakeConn) driver.Conn {
		return &lateConn{lifetimeFakeConn: c, t: t, question: question}
	}
	db, c := openPool(t, f, Config{Dialect: DialectMySQL, MaxOpen: 1})
	res, err := db.ExecContext(t.Context(), "DO 1")
	require.NoError(t, err)
	<-question
	_, err = res.LastInsertId()
	require.NoError(t, err)
	require.Eventually(t, func() bool { return c.Stats().IdleLimit == time.Minute }, time.Minute, time.Millisecond)
}

// An application's parser that panics costs the connection, and not its room.
func TestReadyWithAParserThatPanics(t *testing.T) {
	for _, minIdle := range []int{0, 1} {
		synctest.Test(t, func(t *testing.T) {
			f := &lifetimeFake{announced: []any{lifetimeSeconds(60)}}
			db, c, _ := openLimited(t, f, Config{MinIdle: minIdle, Discovery: &Discovery{
				Query: "SHOW LIMITS",
				Parse: func([][]driver.Value) (ServerLimits, error) { panic("the application's bug") },
			}})
			_ = caught(func() { _ = c.Ready(t.Context()) })
			synctest.Wait()
			ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
			defer cancel()
			_, err := db.ExecContext(ctx, "DO 1")
			require.NoError(t, err)
			assert.Zero(t, c.Stats().InUse)
			elapse(time.Second)
		})
	}
}

// Nobody takes the connection from Ready while the server answers on it.
func TestReadyIsNoLeak(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := &lifetimeFake{announced: []any{func(ctx context.Context, c *lifetimeFakeConn) error {
			elapse(1500 * time.Millisecond)
			assert.True(t, c.isOpen())
			return errors.New("not now")
		}}}
		l := &keptLog{}
		_, c := openPool(t, f, Config{
			Dialect: DialectMySQL, MaxOpen: 1, Logger: slog.New(l), LeakThreshold: 500 * time.Millisecond, ReclaimAfter: time.Second,
		})
		require.NoError(t, c.Ready(t.Context()))
		elapse(time.Second)
		assert.Zero(t, c.Stats().Closed.Reclaimed)
		assert.Zero(t, c.Stats().Leaks)
	})
}

// A connection that database/sql wants no more of while it is asked does not stay.
func TestASessionWhoseTicketGoesWhileItIsAsked(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := &lifetimeFake{announced: []any{slowRound(time.Second)}}
		db, c := openPool(t, f, Config{Dialect: DialectMySQL, MaxOpen: 2, Logger: slog.New(&keptLog{})})
		useAndAsk(t, db)
		db.SetMaxIdleConns(-1)
		elapse(5 * time.Second)
		assert.Zero(t, c.Stats().Open)
	})
}

// stuckConn is a session that takes an hour to be closed.
type stuckConn struct{ *lifetimeFakeConn }

func (c stuckConn) Close() error {
	elapse(time.Hour)
	return c.lifetimeFakeConn.Close()
}

// stuckOnce are a pool's sessions, the first of which cannot be closed.
func stuckOnce(c *lifetimeFakeConn) driver.Conn {
	if c.number == 1 {
		return stuckConn{c}
	}
	return c
}

func TestAFlushDoesNotWaitForWhatItCloses(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := &lifetimeFake{dress: stuckOnce}
		db, c := openPool(t, f, Config{MaxOpen: 2})
		useOnce(t, db)
		start := time.Now()
		c.Flush(0)
		useOnce(t, db)
		assert.Zero(t, time.Since(start))
		elapse(2 * time.Hour)
		assert.False(t, f.sessions()[0].isOpen())
	})
}

// The session that is asked does not wait for the end of those that the answer ends.
func TestAnAnswerDoesNotWaitForWhatItEnds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := &lifetimeFake{dress: stuckOnce, announced: []any{lifetimeSeconds(28800), lifetimeSeconds(60)}}
		db, c := openPool(t, f, Config{Dialect: DialectMySQL, MaxOpen: 2, LeakThreshold: -1})
		useAndAsk(t, db)
		elapse(2 * time.Minute)
		giveBack(t, take(t, db, 2)...)
		asked() // the second; the first is over by what that says
		assert.Equal(t, time.Minute, c.Stats().IdleLimit)
		start := time.Now()
		useOnce(t, db)
		assert.Zero(t, time.Since(start))
		elapse(2 * time.Hour)
		assert.False(t, f.sessions()[0].isOpen())
	})
}
