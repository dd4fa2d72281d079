package sqllease

import (
	"cmp"
	"context"
	"database/sql"
	"database/sql/driver"
	"errors"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// What the error of an acquire tells.

func TestTheErrorOfAnAcquireTellsHowThePoolStood(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newLeakPool(t, &leakFake{}, Config{MaxOpen: 3, LeakThreshold: -1})
		var conns []*sql.Conn
		for range 2 {
			conn, err := p.Conn(t.Context())
			require.NoError(t, err)
			conns = append(conns, conn)
			<-time.After(time.Minute)
		}
		pair := leakSiteOf(t, p, 0, "acquire_error_test.go")
		tx, err := p.BeginTx(t.Context(), nil)
		single := leakSiteAbove()
		require.NoError(t, err)
		<-time.After(10 * time.Second)

		ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
		defer cancel()
		ahead := p.waiter(t.Context())
		late := p.waiter(ctx)
		behind := p.waiter(t.Context())
		err = <-late
		assert.EqualError(t, err, `sqllease: pool "orders": no connection after 5s (context deadline exceeded): `+
			`3 of 3 in use, 0 idle, 2 others still waiting (1 ahead, 1 behind); `+
			`held by `+pair+` (2, the oldest for 2m15s, unused for 2m15s), `+
			single+` (1, the oldest for 15s, idle in transaction for 15s)`)
		assert.ErrorIs(t, err, context.DeadlineExceeded)
		assert.NotErrorIs(t, err, context.Canceled)
		var acquire *AcquireError
		require.ErrorAs(t, err, &acquire)
		assert.True(t, acquire.Timeout())
		acquire.Holders = nil
		assert.Equal(t, &AcquireError{Pool: "orders", Limit: 3, InUse: 3, Waiting: 3, Position: 2, Waited: 5 * time.Second, Queued: 5 * time.Second, Err: context.DeadlineExceeded}, acquire)
		assert.Equal(t, uint64(1), p.c.Stats().Timeouts)

		require.NoError(t, tx.Rollback())
		for _, conn := range conns {
			require.NoError(t, conn.Close())
		}
		assert.NoError(t, <-ahead)
		assert.NoError(t, <-behind)
	})
}

// leakSiteOf is where a lease was taken that is out, counted from the oldest. It is in that
// file.
func leakSiteOf(t *testing.T, p *leakPool, i int, file string) string {
	leases := p.c.Leases()
	require.Greater(t, len(leases), i)
	site := leases[i].Stack.Site()
	require.Contains(t, site, "/"+file+":")
	return site
}

func TestTheErrorOfAnAcquireSaysWhyItEnded(t *testing.T) {
	for _, c := range []struct {
		name    string
		timeout time.Duration
		is      error
		isTime  bool
		says    string
	}{
		{"cancelled", 0, context.Canceled, false, "after 7s (context canceled)"},
		{"the acquire timeout", 7 * time.Second, context.DeadlineExceeded, true, "within 7s (Config.AcquireTimeout)"},
	} {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				p := newLeakPool(t, &leakFake{}, Config{MaxOpen: 1, AcquireTimeout: c.timeout})
				conn := p.lease(t)
				ctx, cancel := context.WithCancel(t.Context())
				failed := p.waiter(ctx)
				leakPause(7 * time.Second)
				cancel()
				err := <-failed
				assert.ErrorIs(t, err, c.is)
				assert.ErrorContains(t, err, `sqllease: pool "orders": no connection `+c.says+`: 1 of 1 in use, 0 idle, nobody else waiting; held by `)
				var acquire *AcquireError
				require.ErrorAs(t, err, &acquire)
				assert.Equal(t, c.isTime, acquire.Timeout())
				require.NoError(t, conn.Close())
			})
		})
	}
}

// An acquire that ended in its dial says what it dialed, and what the driver made of it.
func TestTheErrorOfAnAcquireThatDialedNamesTheServer(t *testing.T) {
	unreachable := errors.New("no route to host")
	for _, c := range []struct {
		name   string
		config Config
		caller time.Duration // the deadline of its context; zero: it cancels after 3 s
		says   error         // what the driver says, where it is not what its context does
		text   string
		is, no []error
	}{
		{"the acquire timeout", Config{AcquireTimeout: 2 * time.Second}, time.Hour, nil,
			"within 2s (Config.AcquireTimeout), still dialing db.example:3306 after 2s: 0 in use (no limit), 0 idle, 1 being dialed",
			[]error{context.DeadlineExceeded}, []error{context.Canceled}},
		{"the acquire timeout, which is long", Config{AcquireTimeout: 20 * time.Second}, time.Hour, nil,
			"within 20s (Config.AcquireTimeout), still dialing db.example:3306 after 20s: 0 in use (no limit), 0 idle",
			[]error{context.DeadlineExceeded}, []error{context.Canceled}},
		{"the caller's deadline", Config{}, 3 * time.Second, nil,
			"after 3s (context deadline exceeded), still dialing db.example:3306 after 3s: 0 in use (no limit), 0 idle, 1 being dialed",
			[]error{context.DeadlineExceeded}, []error{context.Canceled}},
		{"the caller, with what the driver says", Config{}, 30 * time.Second, unreachable,
			"after 30s (context deadline exceeded), still dialing db.example:3306 after 30s: 0 in use (no limit), 0 idle",
			[]error{context.DeadlineExceeded, unreachable}, []error{context.Canceled}},
		{"a caller who went", Config{}, 0, nil,
			"after 3s (context canceled), still dialing db.example:3306 after 3s: 0 in use (no limit), 0 idle",
			[]error{context.Canceled}, []error{context.DeadlineExceeded}},
		{"a driver that calls it bad", Config{AcquireTimeout: 20 * time.Second}, time.Hour, driver.ErrBadConn,
			"within 20s (Config.AcquireTimeout), still dialing db.example:3306 after 20s: 0 in use (no limit), 0 idle",
			[]error{context.DeadlineExceeded}, []error{driver.ErrBadConn}},
	} {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				f := &telemetryFake{on: func(ctx context.Context, call, _ string) error {
					if call != "connect" {
						return nil
					}
					<-ctx.Done()
					return cmp.Or(c.says, ctx.Err())
				}}
				c.config.Name, c.config.ServerAddress, c.config.ServerPort = "orders", "db.example", 3306
				db, err := OpenDB(f, c.config)
				require.NoError(t, err)
				ctx, cancel := context.WithTimeout(t.Context(), cmp.Or(c.caller, time.Hour))
				defer cancel()
				if c.caller == 0 {
					time.AfterFunc(3*time.Second, cancel)
				}
				start := time.Now()
				_, err = db.ExecContext(ctx, "DO 1")
				assert.EqualError(t, err, `sqllease: pool "orders": no connection `+c.text)
				for _, is := range c.is {
					assert.ErrorIs(t, err, is)
				}
				for _, no := range c.no {
					assert.NotErrorIs(t, err, no)
				}
				assert.LessOrEqual(t, time.Since(start), 30*time.Second, "it was tried once")
				require.NoError(t, db.Close())
			})
		})
	}
}

func TestTheErrorOfAnAcquireThatDialedNamesNoPlaceInTheQueue(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newLeakPool(t, &leakFake{takes: map[string]time.Duration{"connect": time.Minute}}, Config{AcquireTimeout: time.Second})
		other := p.waiter(t.Context())
		<-time.After(500 * time.Millisecond)
		_, err := p.Conn(t.Context())
		require.ErrorIs(t, err, context.DeadlineExceeded)
		assert.EqualError(t, err, `sqllease: pool "orders": no connection within 1s (Config.AcquireTimeout), still dialing the server after 1s: 0 in use (no limit), 0 idle, 2 being dialed`)
		assert.ErrorContains(t, <-other, `0 in use (no limit), 0 idle, 2 being dialed`)
	})
}

// Where a helper took the connections, its callers tell them apart.
func TestTheErrorOfAnAcquireNamesTheCallersOfAHelper(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newLeakPool(t, &leakFake{}, Config{MaxOpen: 3, AcquireTimeout: time.Second})
		orders := func() *sql.Conn { return p.lease(t) }
		invoices := func() *sql.Conn { return p.lease(t) }
		held := []*sql.Conn{orders(), invoices(), invoices()}
		_, err := p.Conn(t.Context())
		require.Error(t, err)
		const site = `[^/ ]+/acquire_error_test.go:\d+ sqllease\.TestTheErrorOfAnAcquireNamesTheCallersOfAHelper`
		assert.Regexp(t, `; held by [^/ ]+/leak_pool_test.go:\d+ sqllease\.\(\*leakPool\)\.lease \(3: 1 called by `+site+`\S*, 2 called by `+site+`\S*; the oldest for 1s, unused for 1s\)$`, err.Error())
		giveBack(t, held...)
	})
}

// Callers who time out together leave one after the other. None is told a place that looks
// like that of all.
func TestTheErrorOfAnAcquireSaysWhoElseWaits(t *testing.T) {
	for want, e := range map[string]AcquireError{
		"nobody else waiting":                        {Waiting: 1, Position: 1},
		"1 other still waiting (0 ahead, 1 behind)":  {Waiting: 2, Position: 1},
		"4 others still waiting (4 ahead, 0 behind)": {Waiting: 5, Position: 5},
		"4 others still waiting (2 ahead, 2 behind)": {Waiting: 5, Position: 3},
	} {
		assert.Equal(t, want, e.others())
		assert.Contains(t, e.Error(), "0 idle, "+want)
	}
	assert.NotContains(t, (&AcquireError{Waiting: 4}).Error(), "waiting", "it did not queue")
}

// The statement that a holder is in is told without its literals, and the
// number of holders that are looked at is bounded.
func TestTheErrorOfAnAcquireIsBoundedAndSanitised(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newLeakPool(t, &leakFake{takes: map[string]time.Duration{"exec": 20 * time.Second}}, Config{MaxOpen: 100, AcquireTimeout: 10 * time.Second})
		for range 100 {
			go func() {
				_, err := p.ExecContext(t.Context(), "UPDATE t SET a = 'secret'")
				assert.NoError(t, err)
			}()
		}
		synctest.Wait()
		_, err := p.Conn(t.Context())
		var acquire *AcquireError
		require.ErrorAs(t, err, &acquire)
		assert.Equal(t, 100, acquire.InUse)
		assert.Len(t, acquire.Holders, mostHolders)
		assert.Equal(t, uint64(1), acquire.Holders[0].ID, "the oldest are named")
		assert.ErrorContains(t, err, "the oldest for 10s, in exec for 10s: UPDATE t SET a = ?)")
		assert.NotContains(t, err.Error(), "secret")
		leakPause(10 * time.Second)
	})
}

func TestWaitersAreToldThatTheConnectorWasClosed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newLeakPool(t, &leakFake{}, Config{MaxOpen: 1})
		conn := p.lease(t)
		site := leakSiteOf(t, p, 0, "leak_pool_test.go")
		waiters := []<-chan error{p.waiter(t.Context()), p.waiter(t.Context())}
		<-time.After(3 * time.Second)
		require.NoError(t, p.c.Close())
		for _, failed := range waiters {
			err := <-failed
			assert.ErrorIs(t, err, ErrClosed)
			var acquire *AcquireError
			require.ErrorAs(t, err, &acquire)
			assert.False(t, acquire.Timeout())
			assert.Equal(t, 3*time.Second, acquire.Waited)
			assert.EqualError(t, err, `sqllease: pool "orders": no connection after 3s (`+ErrClosed.Error()+`): `+
				`1 of 1 in use, 0 idle; held by `+site+` (1, the oldest for 3s, unused for 3s)`)
		}
		_, err := p.c.Connect(t.Context())
		assert.ErrorIs(t, err, ErrClosed, "and so is who comes later")
		assert.Zero(t, p.c.Stats().Timeouts, "nobody ran out of time")

		leakPause(27 * time.Second)
		assert.False(t, p.one(t).Returned, "the watch goes on while leases are out")
		require.NoError(t, conn.Close())
		assert.True(t, p.one(t).Returned)
		assert.Zero(t, p.c.Stats().Open)
	})
}

// saying is a context that ends with an error of the application's own.
type saying struct{ context.Context }

func (saying) Err() error { return errors.New("jane@example.org went away") }
func (saying) Done() <-chan struct{} {
	ended := make(chan struct{})
	close(ended)
	return ended
}

func TestWhatAContextSaysOfItsEndIsNotShown(t *testing.T) {
	c, err := Wrap(&telemetryFake{}, Config{MaxOpen: 1})
	require.NoError(t, err)
	held, err := c.Connect(t.Context())
	require.NoError(t, err)
	_, err = c.Connect(saying{t.Context()})
	var failed *AcquireError
	require.ErrorAs(t, err, &failed)
	assert.EqualError(t, failed.Err, "jane@example.org went away", "a caller finds what it put there")
	assert.NotContains(t, err.Error(), "jane")
	require.NoError(t, held.Close())
	require.NoError(t, c.Close())
}

func TestTheErrorOfAnAcquireTellsTheQueueFromTheDial(t *testing.T) {
	e := &AcquireError{Pool: "orders", Limit: 2, Within: 2 * time.Second, Queued: 1870 * time.Millisecond, Dial: 130 * time.Millisecond, Server: "db:3306", Err: context.DeadlineExceeded}
	assert.EqualError(t, e, `sqllease: pool "orders": no connection within 2s (Config.AcquireTimeout), after 1.87s in the queue and 130ms of dialing db:3306: 0 of 2 in use, 0 idle`)
}
