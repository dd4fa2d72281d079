package sqllease

import (
	"context"
	"database/sql"
	"database/sql/driver"
	"log/slog"
	"math"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

func TestJudge(t *testing.T) {
	const limit, longCall = 10 * time.Second, time.Minute
	for _, c := range []struct {
		name   string
		busy   bool
		lasts  time.Duration
		told   told
		class  Class
		report bool
		again  time.Duration
	}{
		{"idle for less", false, 3 * time.Second, told{}, ClassUnused, false, 7 * time.Second},
		{"idle for the limit", false, limit, told{}, ClassUnused, true, 0},
		{"idle, told", false, time.Hour, told{idle: true}, ClassUnused, false, 0},
		{"idle after a call that was told", false, limit, told{busy: true}, ClassUnused, true, 0},
		{"in a call that is young", true, time.Second, told{}, ClassBusy, false, limit},
		{"in a call that is nearly long", true, 55 * time.Second, told{}, ClassBusy, false, 5 * time.Second},
		{"in a call that is long", true, longCall, told{}, ClassBusy, true, limit},
		{"in a call that was told", true, time.Hour, told{busy: true}, ClassBusy, false, limit},
	} {
		class, report, again := judge(c.busy, c.lasts, limit, longCall, c.told)
		assert.Equal(t, []any{c.class, c.report, c.again}, []any{class, report, again}, c.name)
	}
	_, report, again := judge(true, time.Hour, limit, -1, told{})
	assert.False(t, report, "long calls are not reported")
	assert.Equal(t, limit, again, "but what comes after them")
}

func TestAHolderThatWorksIsNoLeak(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newLeakPool(t, &leakFake{takes: map[string]time.Duration{"exec": 9 * time.Second}}, Config{LeakThreshold: 10 * time.Second})
		tx, err := p.BeginTx(t.Context(), nil)
		require.NoError(t, err)
		for range 50 {
			_, err := tx.ExecContext(t.Context(), "UPDATE t SET a = 1")
			require.NoError(t, err)
			<-time.After(9 * time.Second)
		}
		assert.Empty(t, p.take(), "in use for a quarter of an hour, idle for no ten seconds")
		leakPause(time.Second)
		l := p.one(t)
		assert.Equal(t, ClassUnused, l.Class)
		assert.Equal(t, 10*time.Second, l.Acquired.Add(l.Hold).Sub(l.Since))
		require.NoError(t, tx.Rollback())
	})
}

func TestAHolderThatReadsRowsSlowlyIsNoLeak(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var many [][]driver.Value
		for i := range 200 {
			many = append(many, []driver.Value{int64(i)})
		}
		p := newLeakPool(t, &leakFake{rows: many}, Config{LeakThreshold: 10 * time.Second})
		rows, err := p.QueryContext(t.Context(), "SELECT a FROM t")
		require.NoError(t, err)
		for range 200 {
			require.True(t, rows.Next())
			<-time.After(3 * time.Second)
		}
		assert.Empty(t, p.take())
		leakPause(20 * time.Second)
		l := p.one(t)
		assert.Equal(t, 1, l.OpenRows)
		require.NoError(t, rows.Close())
		require.NoError(t, rows.Err())
	})
}

func TestALongCallIsReportedOnceAndWhatComesAfterItToo(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newLeakPool(t, &leakFake{takes: map[string]time.Duration{"exec": 10 * time.Minute}}, Config{LeakThreshold: 10 * time.Second})
		conn := p.lease(t)
		done := make(chan error, 1)
		go func() {
			_, err := conn.ExecContext(t.Context(), "UPDATE t SET a = 1")
			done <- err
		}()
		leakPause(99 * time.Second)
		assert.Empty(t, p.take())
		leakPause(time.Second)
		l := p.one(t)
		assert.Equal(t, ClassBusy, l.Class)
		assert.Equal(t, 100*time.Second, l.Threshold, "ten times the other")
		require.NoError(t, <-done)
		assert.Empty(t, p.take())
		leakPause(20 * time.Second)
		assert.Equal(t, ClassUnused, p.one(t).Class)
		require.NoError(t, conn.Close())
		assert.True(t, p.one(t).Returned)
		assert.Equal(t, uint64(1), p.c.Stats().Leaks, "a long call is none")
		assert.Equal(t, uint64(1), p.c.Stats().SlowCalls)
		assert.Equal(t, uint64(1), p.c.Stats().LateReturns)
	})
}

func TestAHoldLimitIsThatOfItsAcquire(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newLeakPool(t, &leakFake{}, Config{MaxOpen: 5, LeakThreshold: 10 * time.Second})
		hold := func(ctx context.Context) *sql.Conn {
			conn, err := p.Conn(ctx)
			require.NoError(t, err)
			return conn
		}
		usual := hold(t.Context())
		long := hold(WithHoldLimit(t.Context(), time.Hour))
		quick := hold(WithHoldLimit(t.Context(), time.Second))
		free := hold(WithHoldLimit(t.Context(), 0))

		leakPause(time.Second)
		l := p.one(t)
		assert.Equal(t, uint64(3), l.ID)
		assert.Equal(t, time.Second, l.Threshold)
		leakPause(9 * time.Second)
		assert.Equal(t, uint64(1), p.one(t).ID)
		leakPause(time.Hour)
		assert.Equal(t, uint64(2), p.one(t).ID)
		leakPause(24 * time.Hour)
		assert.Empty(t, p.take())
		for _, conn := range []*sql.Conn{usual, long, quick} {
			require.NoError(t, conn.Close())
			assert.True(t, p.one(t).Returned)
		}
		require.NoError(t, free.Close())
		assert.Empty(t, p.take())
		assert.Empty(t, p.c.watch.looks)
	})
}

func TestTheLimitOfAnotherLeaseOnTheSameConnectionDoesNotStay(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newLeakPool(t, &leakFake{}, Config{MaxOpen: 1, LeakThreshold: 10 * time.Second})
		conn, err := p.Conn(WithHoldLimit(t.Context(), time.Hour))
		require.NoError(t, err)
		require.NoError(t, conn.Close())
		next := p.lease(t)
		leakPause(10 * time.Second)
		assert.Equal(t, 10*time.Second, p.one(t).Threshold)
		require.NoError(t, next.Close())
	})
}

// The log has one record of connections that leak together, which says how many they are.
func TestAReportSaysHowManyConnectionsItsPlaceHolds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		log := &keptLog{}
		p := newLeakPool(t, &leakFake{}, Config{Logger: slog.New(log)})
		other := p.lease(t) // another place
		held := take(t, p.DB, 4)
		leakPause(30 * time.Second)
		records := log.take()
		require.Len(t, records, 2)
		assert.Equal(t, []any{int64(1), nil}, []any{records[0].attrs["leak.held_here"], records[0].attrs["leak.note"]})
		assert.Equal(t, []any{int64(4), int64(1), int64(0)}, []any{records[1].attrs["leak.held_here"], records[1].attrs["leak.times"], records[1].attrs["leak.folded"]})
		assert.Equal(t, "the next report of this place is in the log after a minute at the earliest; Config.OnLeak gets every report", records[1].attrs["leak.note"])
		reports := p.take()
		require.Len(t, reports, 5)
		assert.Contains(t, reports[1].String(), "place      holds 4 connections now; 1 report so far, at most one a minute in the log\n")
		assert.NotContains(t, reports[0].String(), "  place ")
		giveBack(t, held[0])
		assert.Equal(t, 3, p.one(t).HeldHere, "those that are left")
		giveBack(t, append(held[1:], other)...)
	})
}

func TestReportsOfOnePlaceAreFolded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		log := &keptLog{}
		p := newLeakPool(t, &leakFake{}, Config{LeakThreshold: time.Second, Logger: slog.New(log)})
		leak := func() *sql.Conn {
			conn, err := p.Conn(t.Context())
			require.NoError(t, err)
			return conn
		}
		var held []*sql.Conn
		for range 100 {
			held = append(held, leak())
			<-time.After(time.Second)
		}
		other := p.lease(t) // another place
		leakPause(time.Second)
		reports := p.take()
		require.Len(t, reports, 101, "OnLeak is told of each")
		assert.Equal(t, 100, reports[99].Times)
		assert.Equal(t, uint64(101), p.c.Stats().Leaks)
		records := log.take()
		require.Len(t, records, 3, "one a minute of the one place, one of the other")
		assert.Equal(t, int64(1), records[0].attrs["leak.times"])
		assert.Equal(t, int64(61), records[1].attrs["leak.times"])
		assert.Equal(t, int64(59), records[1].attrs["leak.folded"])
		assert.Equal(t, int64(1), records[2].attrs["leak.times"])
		assert.Regexp(t, `place      holds 6[12] connections now; 61 reports so far, at most one a minute in the log\n`, reports[60].String())

		for _, conn := range append(held, other) {
			require.NoError(t, conn.Close())
		}
		synctest.Wait()
		assert.Len(t, log.take(), 2, "and so are the returns")
	})
}

func TestATinyLimitDoesNotKeepTheWatchBusy(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newLeakPool(t, &leakFake{takes: map[string]time.Duration{"exec": time.Second}}, Config{})
		arms := leakCountArms(p.c)
		_, err := p.ExecContext(WithHoldLimit(t.Context(), time.Nanosecond), "DO 1")
		require.NoError(t, err)
		assert.Less(t, arms(), 300, "it looks a hundred times a second, and not a million times")
	})
}

// What a late return says of a lease is what was said of it before.
func TestALateReturnKeepsItsClassAndThreshold(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newLeakPool(t, &leakFake{takes: map[string]time.Duration{"exec": time.Hour}}, Config{LeakThreshold: 10 * time.Second})
		_, err := p.ExecContext(t.Context(), "DO 1")
		require.NoError(t, err)
		reports := p.take()
		require.Len(t, reports, 2)
		for _, l := range reports {
			assert.Equal(t, ClassBusy, l.Class)
			assert.Equal(t, 100*time.Second, l.Threshold)
		}
		assert.True(t, reports[1].Returned)
		assert.Equal(t, "it was a slow call; make it shorter, or raise Config.SlowCallThreshold", reports[1].Fix())

		conn, err := p.Conn(WithHoldLimit(t.Context(), time.Second))
		require.NoError(t, err)
		leakPause(2 * time.Second)
		require.NoError(t, conn.Close())
		reports = p.take()
		require.Len(t, reports, 2)
		assert.Equal(t, time.Second, reports[1].Threshold)
	})
}

// One slow moment does not make silent what a connection is left in later.
func TestALeaseThatIsUsedAfterItsReportIsReportedAgain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newLeakPool(t, &leakFake{}, Config{})
		conn := p.lease(t)
		leakPause(time.Minute)
		p.one(t)
		_, err := conn.ExecContext(t.Context(), "DO 1")
		require.NoError(t, err)
		tx, err := conn.BeginTx(t.Context(), nil)
		require.NoError(t, err)
		leakPause(29 * time.Second)
		assert.Empty(t, p.take())
		leakPause(time.Second)
		l := p.one(t)
		assert.True(t, l.InTx)
		assert.Equal(t, 30*time.Second, l.Acquired.Add(l.Hold).Sub(l.Since))
		leakPause(time.Hour)
		assert.Empty(t, p.take())
		assert.Equal(t, uint64(1), p.c.Stats().Leaks, "one lease")
		require.NoError(t, tx.Rollback())
		require.NoError(t, conn.Close())
		assert.True(t, p.one(t).Returned)
	})
}

// To read on, or to close what was read, is to use it as well.
func TestReadingOnIsUse(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newLeakPool(t, &leakFake{}, Config{})
		conn := p.lease(t)
		rows, err := conn.QueryContext(t.Context(), "SELECT a FROM t")
		require.NoError(t, err)
		for range 2 {
			leakPause(31 * time.Second)
			assert.Equal(t, 1, p.one(t).OpenRows)
			require.True(t, rows.Next())
		}
		leakPause(31 * time.Second)
		p.one(t)
		require.NoError(t, rows.Err())
		require.NoError(t, rows.Close())
		leakPause(31 * time.Second)
		assert.Zero(t, p.one(t).OpenRows, "the connection itself is left")
		require.NoError(t, conn.Close())
	})
}

// Not every row's time is noted. A row that takes long is not said to take longer
// than it does, however long nothing was read before it.
func TestASlowRowIsNotSaidToTakeLonger(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const slow = 10 * time.Second
		f := readingFake(20)
		p := newLeakPool(t, f, Config{LeakThreshold: time.Minute, SlowCallThreshold: slow})
		rows, err := p.lease(t).QueryContext(t.Context(), "SELECT a FROM t")
		require.NoError(t, err)
		for range 7 {
			require.True(t, rows.Next())
		}
		leakPause(55 * time.Second)
		f.takes["next"] = 3 * time.Minute
		began := time.Now()
		read := make(chan bool)
		go func() { read <- rows.Next() }()
		leakPause(2 * time.Minute)
		l := p.one(t)
		assert.Equal(t, ClassBusy, l.Class)
		assert.Equal(t, CallRows, l.Call)
		assert.GreaterOrEqual(t, l.Since.Sub(began), time.Duration(0))
		assert.GreaterOrEqual(t, l.at.Sub(l.Since), slow)
		assert.True(t, <-read)
		require.NoError(t, rows.Err())
		require.NoError(t, rows.Close())
	})
}

// Who reads a row now and then is no holder that does nothing, and keeps its
// session, whether the rows' times are noted or not.
func TestReadingSlowlyIsUse(t *testing.T) {
	for _, rows := range []int{3, 4, 15, 30} {
		synctest.Test(t, func(t *testing.T) {
			f := readingFake(60)
			p := newLeakPool(t, f, Config{LeakThreshold: 10 * time.Second, ReclaimAfter: time.Minute})
			result, err := p.QueryContext(t.Context(), "SELECT a FROM t")
			require.NoError(t, err)
			for range rows {
				require.True(t, result.Next())
				assert.Zero(t, time.Since(p.c.Leases()[0].Since), "it was just read")
				leakPause(9 * time.Second)
			}
			leakPause(25 * time.Second)
			assert.Len(t, p.take(), 1)
			assert.True(t, result.Next(), "after %d rows and 34s: %v", rows, result.Err())
			require.NoError(t, result.Close())
		})
	}
}

// What the last lease of a handle has read says nothing of the next one.
func TestALeaseAfterOneThatReadIsReportedInTime(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := readingFake(10)
		p := newLeakPool(t, f, Config{MaxOpen: 1, LeakThreshold: time.Second})
		result, err := p.QueryContext(t.Context(), "SELECT a FROM t")
		require.NoError(t, err)
		for result.Next() {
			continue
		}
		require.NoError(t, result.Err())
		tx, err := p.BeginTx(t.Context(), nil)
		require.NoError(t, err)
		leakPause(time.Second)
		assert.Equal(t, time.Second, p.one(t).Hold)
		require.NoError(t, tx.Rollback())
	})
}

// Durations may be as long as they can: nothing comes too soon by it.
func TestTheLongestDurations(t *testing.T) {
	const longest = math.MaxInt64
	for name, cfg := range map[string]Config{
		"threshold":   {LeakThreshold: longest},
		"long call":   {LeakThreshold: longest/5 + 1}, // ten times that is 4, if it overflows
		"lifetime":    {MaxLifetime: longest},
		"idle limit":  {NetworkIdleLimit: longest},
		"reclaim":     {ReclaimAfter: longest},
		"acquire":     {AcquireTimeout: longest},
		"slow":        {SlowAcquireThreshold: longest},
		"all of them": {LeakThreshold: longest, SlowCallThreshold: longest, MaxLifetime: longest, NetworkIdleLimit: longest, ReclaimAfter: longest, AcquireTimeout: longest, SlowAcquireThreshold: longest},
	} {
		synctest.Test(t, func(t *testing.T) {
			cfg.MaxOpen, cfg.SlowAcquireThreshold = 1, max(cfg.SlowAcquireThreshold, time.Hour)
			f := &leakFake{takes: map[string]time.Duration{"exec": 10 * time.Second}}
			p := newLeakPool(t, f, cfg)
			conn, err := p.Conn(t.Context())
			require.NoError(t, err)
			waited := make(chan error)
			go func() { waited <- p.PingContext(t.Context()) }()
			_, err = conn.ExecContext(t.Context(), "DO 1")
			require.NoError(t, err)
			leakPause(10 * time.Second)
			require.NoError(t, conn.Close())
			require.NoError(t, <-waited)
			assert.Empty(t, p.take(), name)
			assert.Equal(t, uint64(1), p.c.Stats().Dials, name)
		})
	}
}
