package sqllease

import (
	"context"
	"database/sql"
	"database/sql/driver"
	"errors"
	"io"
	"log/slog"
	"math"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/sqllease/sqllease/internal/drivers"
)

// What a server is asked for its limits, and whatever it answers.

// asked gives a pool's server the time to be asked, and to answer.
func asked() {
	elapse(askAfter)
	synctest.Wait()
}

// useAndAsk uses a pool once, and has its server asked where that is due.
func useAndAsk(t *testing.T, db *sql.DB) {
	t.Helper()
	useOnce(t, db)
	asked()
}

func TestTheServerIsAskedOnceAMinuteAndOtherSessionsInherit(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := &lifetimeFake{announced: []any{lifetimeSeconds(28800)}}
		db, c := openPool(t, f, Config{Dialect: DialectMySQL, MaxOpen: 10, LeakThreshold: -1})
		giveBack(t, take(t, db, 10)...)
		assert.Zero(t, c.Stats().IdleLimit)
		asked()
		assert.Equal(t, 8*time.Hour, c.Stats().IdleLimit)
		assert.Equal(t, 1, f.questions())
		for range 10 * 60 {
			useOnce(t, db)
			elapse(time.Second)
		}
		synctest.Wait()
		assert.InDelta(t, 10, f.questions(), 1)
		elapse(24 * time.Hour)
		assert.InDelta(t, 10, f.questions(), 1, "nobody used it: nothing was asked")
		assert.Zero(t, c.Stats().Open, "each session ends by what one has said")
	})
}

func TestNobodyWaitsForADiscovery(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		slowly := func(context.Context, *lifetimeFakeConn) error { elapse(time.Second); return errors.New("not now") }
		f := &lifetimeFake{announced: []any{slowly}}
		db, c := openPool(t, f, Config{Dialect: DialectMySQL, MaxOpen: 2, Logger: slog.New(&keptLog{})})
		start := time.Now()
		giveBack(t, take(t, db, 2)...)
		asked() // one of them; the other is there
		assert.Equal(t, 1, f.questions())
		assert.Equal(t, 1, c.Stats().Idle)
		useOnce(t, db)
		assert.Equal(t, askAfter, time.Since(start))
		elapse(time.Second)
		synctest.Wait()
		assert.Equal(t, 2, c.Stats().Idle)
		assert.Equal(t, uint64(2), c.Stats().Dials)
	})
}

// A session that is asked may be the only one that there is room for.
func TestAQuestionEndsSoonWhereSomebodyWaits(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := &lifetimeFake{announced: []any{hanging, lifetimeSeconds(60)}}
		db, c, _ := openLimited(t, f, Config{Dialect: DialectMySQL})
		useAndAsk(t, db)
		assert.Zero(t, c.Stats().Idle)
		elapse(time.Second)
		start := time.Now()
		useOnce(t, db)
		assert.Equal(t, askPatience, time.Since(start))
		assert.Equal(t, []uint64{2, 1}, []uint64{c.Stats().Dials, c.Stats().DiscoveryFailures})
		endLimited(t, db, c, f)
	})
}

// A limit that was lowered is that of the sessions that are dialed from then on, of which the
// newest is asked. The older ones end sooner than they would have to.
func TestALimitThatWasLoweredCountsForAllSessions(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := &lifetimeFake{announced: []any{lifetimeSeconds(28800), lifetimeSeconds(600), lifetimeSeconds(3600)}}
		db, c := openPool(t, f, Config{Dialect: DialectMySQL, MaxOpen: 3, LeakThreshold: -1})
		useAndAsk(t, db)
		assert.Equal(t, 8*time.Hour, c.Stats().IdleLimit)
		elapse(time.Minute)

		held := take(t, db, 2)
		giveBack(t, held[1], held[0])
		held = take(t, db, 1) // the older one
		asked()
		assert.Equal(t, 10*time.Minute, c.Stats().IdleLimit)
		_, err := held[0].ExecContext(t.Context(), "DO 1")
		require.NoError(t, err)
		elapse(time.Minute)

		giveBack(t, append(held, take(t, db, 2)...)...)
		asked()
		assert.Equal(t, time.Hour, c.Stats().IdleLimit, "raised: for those to come")
		elapse(10 * time.Minute)
		synctest.Wait()
		for _, s := range f.sessions() {
			s.wantClosed(t, 570*time.Second)
		}
		useOnce(t, db)
		elapse(10 * time.Minute)
		assert.Equal(t, 1, c.Stats().Open)
	})
}

func TestASessionFoundDeadHasTheServerAskedAtOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := &lifetimeFake{
			announced: []any{lifetimeSeconds(28800), lifetimeSeconds(60)},
			dress:     func(c *lifetimeFakeConn) driver.Conn { return resetFakeConn{c} },
		}
		db, c := openPool(t, f, Config{Dialect: DialectMySQL, MaxOpen: 1})
		useAndAsk(t, db)
		assert.Equal(t, 8*time.Hour, c.Stats().IdleLimit)
		elapse(5 * time.Second)
		f.sessions()[0].breaks()
		useAndAsk(t, db)
		assert.Equal(t, time.Minute, c.Stats().IdleLimit, "the next minute was not waited for")
		assert.Equal(t, uint64(1), c.Stats().Closed.ResetFailed)
	})
}

// A session that its callers hardly ever leave alone is asked all the same, in the end.
func TestASessionInConstantUseIsAskedWhenThatIsOverdue(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := &lifetimeFake{announced: []any{lifetimeSeconds(28800)}}
		db, c := openPool(t, f, Config{Dialect: DialectMySQL, MaxOpen: 1})
		for i := range 2 * 60 * 1000 / 5 {
			useOnce(t, db)
			elapse(5 * time.Millisecond)
			if i < 10_000 {
				assert.Zero(t, f.questions())
			}
		}
		assert.Equal(t, 8*time.Hour, c.Stats().IdleLimit)
		assert.InDelta(t, 1, f.questions(), 1)
		assert.Equal(t, uint64(1), c.Stats().Dials)
	})
}

func TestWhatIsDialedAheadIsAskedBeforeAnybodyHasIt(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := &lifetimeFake{announced: []any{lifetimeSeconds(60)}}
		_, c := openPool(t, f, Config{Dialect: DialectMySQL, MaxOpen: 5, MinIdle: 3})
		require.NoError(t, c.Ready(t.Context()))
		assert.Equal(t, time.Minute, c.Stats().IdleLimit)
		assert.LessOrEqual(t, f.questions(), 2, "Ready, and who dials ahead anyway")
	})
}

// Ready asks, although the server would be asked in a moment anyway.
func TestReadyDoesNotWaitForTheQuestionToBeDue(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := &lifetimeFake{announced: []any{lifetimeSeconds(60)}}
		db, c := openPool(t, f, Config{Dialect: DialectMySQL})
		useOnce(t, db)
		require.NoError(t, c.Ready(t.Context()))
		assert.Equal(t, time.Minute, c.Stats().IdleLimit)
		asked()
		assert.Equal(t, 1, f.questions())
	})
}

func TestPostgreSQLsTimeoutsAreDiscovered(t *testing.T) {
	for _, dialect := range []Dialect{DialectPostgreSQL, DialectCockroachDB} {
		synctest.Test(t, func(t *testing.T) {
			f := &lifetimeFake{announced: []any{[]driver.Value{[]byte("5min"), "10s"}}}
			db, c := openPool(t, f, Config{Dialect: dialect})
			useAndAsk(t, db)
			assert.Equal(t, 5*time.Minute, c.Stats().IdleLimit)
			assert.Equal(t, 270*time.Second, c.Stats().Lifetime)
			assert.Equal(t, int64(10*time.Second), c.newest.idleTx.Load())
		})
	}
}

func TestAnApplicationCanSayHowAServerIsAsked(t *testing.T) {
	minutes := func(rows [][]driver.Value) (ServerLimits, error) {
		n, ok := rows[0][0].(int64)
		if !ok {
			return ServerLimits{}, errors.New("no number of minutes")
		}
		return ServerLimits{Idle: time.Duration(n) * time.Minute}, nil
	}
	for name, c := range map[string]struct {
		how      *Discovery
		answer   any
		limit    time.Duration
		failures uint64
	}{
		"a query and a parser":   {&Discovery{"SELECT limits", minutes}, []driver.Value{int64(5)}, 5 * time.Minute, 0},
		"seconds":                {&Discovery{Query: "SELECT limits"}, []driver.Value{"300"}, 5 * time.Minute, 0},
		"no column":              {&Discovery{Query: "SELECT limits"}, []driver.Value{"a while"}, 0, 1},
		"not understood":         {&Discovery{"SELECT limits", minutes}, []driver.Value{"five"}, 0, 1},
		"below zero":             {&Discovery{"SELECT limits", minutes}, []driver.Value{int64(-5)}, 0, 0},
		"nothing is to be asked": {NoDiscovery, lifetimeSeconds(60), 0, 0},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				f := &lifetimeFake{announced: []any{c.answer}}
				db, pool, _ := openLimited(t, f, Config{Dialect: DialectMySQL, Discovery: c.how})
				useAndAsk(t, db)
				assert.Equal(t, c.limit, pool.Stats().IdleLimit)
				assert.Equal(t, c.failures, pool.Stats().DiscoveryFailures)
				assert.Equal(t, c.how != NoDiscovery, f.questions() == 1)
				endLimited(t, db, pool, f)
			})
		})
	}
}

// remedies are what the warning of a failed discovery has to name.
var remedies = []string{"idle limit could not be discovered", "Config.NetworkIdleLimit", "Config.Discovery", "sqllease.NoDiscovery"}

// A discovery that fails is counted each time, warned of once, tried less and less often,
// and costs no caller anything.
func TestADiscoveryThatFailsFailsNoSession(t *testing.T) {
	for name, c := range map[string]struct {
		dialect Dialect
		answer  any
		err     string
	}{
		"an error":        {DialectMySQL, errors.New("unknown system variable"), "unknown system variable"},
		"declined":        {DialectMySQL, driver.ErrSkip, "not prepared for that"},
		"text":            {DialectMySQL, []driver.Value{"wait_timeout", "a while"}, `got "a while", expected a number of seconds`},
		"negative":        {DialectMySQL, []driver.Value{"wait_timeout", int64(-5)}, `got "-5", expected a number of seconds`},
		"NULL":            {DialectTiDB, []driver.Value{"wait_timeout", nil}, `got "", expected a number of seconds`},
		"another":         {DialectTiDB, []driver.Value{"version", "8.0"}, `got "", expected a number of seconds`},
		"no row":          {DialectMySQL, []driver.Value(nil), "got no row"},
		"a value alone":   {DialectMySQL, []driver.Value{int64(1)}, "got 1 column(s), expected names and values"},
		"one column":      {DialectPostgreSQL, []driver.Value{"5min"}, "got 1 column(s), expected the values of settings"},
		"a strange unit":  {DialectPostgreSQL, []driver.Value{"5 fortnights", "0"}, `got "5 fortnights", expected a timeout`},
		"negative, in tx": {DialectCockroachDB, []driver.Value{"0", "-1"}, `got "-1", expected a timeout`},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				f := &lifetimeFake{announced: []any{c.answer}}
				// The limit that is known goes on to count.
				db, pool, l := openLimited(t, f, Config{Name: "orders", Dialect: c.dialect, NetworkIdleLimit: time.Minute})
				for range 8 {
					useAndAsk(t, db)
					elapse(time.Minute)
				}
				s := pool.Stats()
				assert.Equal(t, uint64(8), s.Dials)
				assert.Zero(t, s.DialErrors)
				assert.Equal(t, uint64(3), s.DiscoveryFailures, "at once, two minutes later, and four after that")
				assert.Equal(t, []uint64{8, 8}, []uint64{s.Closed.Retired(), s.Closed.Total()})
				assert.Equal(t, time.Minute, s.IdleLimit)
				text := l.wantOneWarning(t, map[string]string{
					"pool": "orders", "dialect": string(c.dialect), "query": drivers.Named(string(c.dialect)).Discovery.Query,
				}, remedies...)
				assert.Contains(t, text, c.err)
				endLimited(t, db, pool, f)
				assert.Len(t, f.sessions(), 9, "no session was dialed twice")
			})
		})
	}
}

func TestAnOddDiscoveryThatCanBeMeantFailsNot(t *testing.T) {
	for name, c := range map[string]struct {
		dialect Dialect
		answer  []driver.Value
		limit   time.Duration
	}{
		"zero":             {DialectMySQL, lifetimeSeconds(0), 0},
		"centuries":        {DialectMySQL, lifetimeSeconds(math.MaxInt64), 0},
		"bytes":            {DialectMySQL, []driver.Value{[]byte("Wait_Timeout"), []byte("60")}, time.Minute},
		"both NULL":        {DialectPostgreSQL, []driver.Value{nil, nil}, 0},
		"the first NULL":   {DialectPostgreSQL, []driver.Value{nil, "1min"}, 0},
		"centuries, days":  {DialectPostgreSQL, []driver.Value{"999999d", "0"}, 0},
		"bare numbers":     {DialectCockroachDB, []driver.Value{"60000", "0"}, time.Minute},
		"never to be told": {"", nil, 0},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				f := &lifetimeFake{announced: []any{c.answer}}
				db, pool, l := openLimited(t, f, Config{Dialect: c.dialect})
				useAndAsk(t, db)
				assert.Equal(t, c.limit, pool.Stats().IdleLimit)
				assert.Zero(t, pool.Stats().DiscoveryFailures)
				assert.Empty(t, l.records)
				endLimited(t, db, pool, f)
			})
		})
	}
}

func TestADiscoveryThatHangsCostsASessionAndNobodyAnything(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := &lifetimeFake{announced: []any{hanging, lifetimeSeconds(60)}}
		db, c, l := openLimited(t, f, Config{Dialect: DialectMySQL})
		useAndAsk(t, db)
		elapse(askTimeout)
		synctest.Wait()
		s := c.Stats()
		assert.Equal(t, uint64(1), s.DiscoveryFailures)
		assert.Equal(t, []int{0, 0, 1}, []int{s.Open, s.Idle, int(s.Closed.Invalid)})
		text := l.wantOneWarning(t, nil, remedies...)
		assert.Equal(t, context.DeadlineExceeded.Error(), text)
		useAndAsk(t, db)
		assert.Zero(t, c.Stats().IdleLimit, "it is left alone for a while")
		elapse(2 * askEvery)
		useAndAsk(t, db)
		assert.Equal(t, time.Minute, c.Stats().IdleLimit)
		endLimited(t, db, c, f)
		assert.Len(t, f.sessions(), 3)
	})
}

// costing is a discovery that costs its session.
func costing(err error) func(context.Context, *lifetimeFakeConn) error {
	return func(_ context.Context, c *lifetimeFakeConn) error {
		c.breaks()
		return err
	}
}

// hanging is a discovery that is never answered.
func hanging(ctx context.Context, _ *lifetimeFakeConn) error {
	<-ctx.Done()
	return ctx.Err()
}

func TestADiscoveryThatHangsEndsWithClose(t *testing.T) {
	for name, heeds := range map[string]bool{"the driver heeds its context": true, "it does not": false} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				f := &lifetimeFake{announced: []any{func(ctx context.Context, _ *lifetimeFakeConn) error {
					if <-ctx.Done(); !heeds {
						elapse(8 * time.Second)
					}
					return ctx.Err()
				}}}
				db, c, l := openLimited(t, f, Config{Dialect: DialectMySQL})
				useAndAsk(t, db)
				start := time.Now()
				require.NoError(t, db.Close())
				if heeds {
					assert.Zero(t, time.Since(start))
					assert.Zero(t, c.Stats().Open)
				} else {
					assert.Equal(t, keeperGrace, time.Since(start))
					elapse(8 * time.Second)
					synctest.Wait()
				}
				assert.Zero(t, c.Stats().Open)
				f.sessions()[0].closedAfter(t)
				assert.Empty(t, l.records, "nothing is wrong with the server")
			})
		})
	}
}

func TestADiscoveryThatPanicsClosesTheSessionAndLosesNoRoom(t *testing.T) {
	for name, cfg := range map[string]Config{"on a ready session": {}, "on one that was dialed ahead": {MinIdle: 1}} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				panicking := func(context.Context, *lifetimeFakeConn) error { panic("the driver's bug") }
				f := &lifetimeFake{announced: []any{panicking, lifetimeSeconds(60)}}
				cfg.Dialect = DialectMySQL
				db, c, l := openLimited(t, f, cfg)
				useAndAsk(t, db)
				elapse(time.Second)
				synctest.Wait()
				assert.Equal(t, cfg.MinIdle, c.Stats().Open)
				assert.Equal(t, uint64(1), c.Stats().Closed.Panicked)
				f.sessions()[0].closedAfter(t)
				assert.NotEmpty(t, l.records)
				endLimited(t, db, c, f)
			})
		})
	}
}

func TestADiscoveryThatCostsItsSession(t *testing.T) {
	valid := func(c *lifetimeFakeConn) driver.Conn { return validFakeConn{c} }
	for name, c := range map[string]struct {
		err   error
		dress func(*lifetimeFakeConn) driver.Conn
	}{
		"driver.ErrBadConn":             {driver.ErrBadConn, nil},
		"any error, and not valid":      {errLifetimeGone, valid},
		"no Validator, its reset fails": {io.ErrUnexpectedEOF, func(c *lifetimeFakeConn) driver.Conn { return resetFakeConn{c} }},
		"neither, and the end of it":    {io.ErrUnexpectedEOF, nil},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				f := &lifetimeFake{announced: []any{costing(c.err), costing(c.err), costing(c.err)}, dress: c.dress}
				db, pool, l := openLimited(t, f, Config{Dialect: DialectMySQL, MaxLifetime: time.Hour})
				useAndAsk(t, db)
				s := pool.Stats()
				assert.Equal(t, []uint64{1, 1, 1}, []uint64{s.Dials, s.DiscoveryFailures, s.Closed.Invalid})
				useAndAsk(t, db)
				assert.Equal(t, 1, pool.Stats().Idle, "the next is not asked so soon")
				elapse(2 * askEvery)
				useAndAsk(t, db)
				assert.Empty(t, l.take(), "a session that was dead says nothing of the server")
				useAndAsk(t, db)
				elapse(4 * askEvery)
				useAndAsk(t, db)
				assert.Equal(t, c.err.Error(), l.wantOneWarning(t, nil, remedies...))
				endLimited(t, db, pool, f)
				assert.Len(t, f.sessions(), 4)
			})
		})
	}
}
