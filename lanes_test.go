package sqllease

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// laneWork has somebody take a connection in a lane, keep it for so long, and give it back.
func laneWork(ctx context.Context, db *sql.DB, lane string, hold time.Duration) error {
	if lane != "" {
		ctx = WithLane(ctx, lane)
	}
	tx, err := db.BeginTx(ctx, nil)
	if err != nil {
		return err
	}
	time.Sleep(hold) //nolint:forbidigo // virtual time
	return tx.Commit()
}

// floodOf keeps so many goroutines at such work until it is stopped.
func floodOf(t *testing.T, db *sql.DB, n int, lane string, hold time.Duration) (stop func()) {
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan struct{})
	for range n {
		go func() {
			for ctx.Err() == nil {
				_ = laneWork(ctx, db, lane, hold)
			}
			done <- struct{}{}
		}()
	}
	synctest.Wait()
	return func() {
		cancel()
		for range n {
			<-done
		}
	}
}

func TestProbesGetThroughWhileReportsWait(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := &gateFake{t: t, most: 4}
		db, c := f.open(Config{MaxOpen: 4, Lanes: map[string]Lane{"probe": {Reserve: 1}}})
		stop := floodOf(t, db, 500, "", 2*time.Second)
		for range 20 {
			ctx, cancel := context.WithTimeout(WithLane(t.Context(), "probe"), time.Second)
			assert.NoError(t, db.PingContext(ctx), "a probe has a second")
			cancel()
			leakPause(3 * time.Second)
			assert.Equal(t, 3, c.Stats().InUse, "what is reserved is not for others")
		}
		assert.LessOrEqual(t, c.Stats().Dials, uint64(4), "the connection that is kept stays open")
		stop()
		f.end(db, c)
	})
}

func TestReportsDoNotTakeEveryConnection(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := &gateFake{t: t, most: 10}
		db, c := f.open(Config{MaxOpen: 10, Lanes: map[string]Lane{"report": {Max: 3}}})
		for _, conn := range take(t, db, 10) {
			require.NoError(t, conn.Close())
		}
		stop := floodOf(t, db, 40, "report", time.Second)
		for range 50 {
			start := time.Now()
			assert.NoError(t, laneWork(t.Context(), db, "", 10*time.Millisecond))
			assert.Equal(t, 10*time.Millisecond, time.Since(start), "a page does not wait for reports")
			synctest.Wait() // reports may end at the same moment
			assert.Equal(t, 3, c.Stats().InUse)
			assert.Equal(t, 37, c.Stats().Waiting)
			leakPause(300 * time.Millisecond)
		}
		assert.Equal(t, uint64(10), c.Stats().Dials, "connections that reports may not have stay open for others")
		stop()
		f.end(db, c)
	})
}

// Whoever is refused leaves the connections that are there as they are.
func TestRefusedReportsCostNoIdleConnection(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := &gateFake{t: t, most: 10}
		db, c := f.open(Config{MaxOpen: 10, AcquireTimeout: 100 * time.Millisecond, Lanes: map[string]Lane{"report": {Max: 1, MaxWaiting: 1}}})
		for _, conn := range take(t, db, 10) {
			require.NoError(t, conn.Close())
		}
		report, err := db.BeginTx(WithLane(t.Context(), "report"), nil)
		require.NoError(t, err)
		for range 50 {
			waits := make(chan error)
			go func() { waits <- laneWork(t.Context(), db, "report", 0) }()
			synctest.Wait()
			require.ErrorIs(t, laneWork(t.Context(), db, "report", 0), ErrOverloaded)
			require.ErrorIs(t, <-waits, context.DeadlineExceeded)
			leakPause(time.Second)
		}
		require.NoError(t, report.Commit())
		s := c.Stats()
		assert.Equal(t, uint64(10), s.Dials)
		assert.Zero(t, s.Closed.Total())
		assert.Equal(t, 10, s.Idle)
		assert.Equal(t, 10, db.Stats().Idle)
		f.end(db, c)
	})
}

// A transaction's statement is bound to its connection: its caller is sent on, and waits in order.
func TestAPreparedStatementsConnectionIsNotTakenByALaneThatIsFull(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := &gateFake{t: t}
		db, c := f.open(Config{MaxOpen: 3, Lanes: map[string]Lane{"report": {Max: 1}}})
		report := WithLane(t.Context(), "report")
		stmt, err := db.PrepareContext(t.Context(), "SELECT 1")
		require.NoError(t, err)
		holder, err := db.Conn(report)
		require.NoError(t, err)
		require.NoError(t, holder.PingContext(report))
		waits := make(chan error, 1)
		go func() { _, err := stmt.ExecContext(report); waits <- err }()
		synctest.Wait()
		assert.Equal(t, 1, c.Stats().Waiting)
		require.NoError(t, holder.Close())
		require.NoError(t, <-waits)
		require.NoError(t, stmt.Close())
		f.end(db, c)
	})
}

func TestAnUnknownLaneIsToldOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		log := &keptLog{}
		f := &gateFake{t: t}
		db, err := OpenDB(f, Config{MaxOpen: 2, Logger: slog.New(log), Lanes: map[string]Lane{"report": {Max: 1}}})
		require.NoError(t, err)
		c, _ := ConnectorOf(db)
		for range 3 {
			require.NoError(t, laneWork(t.Context(), db, "reports", 0))
			require.NoError(t, db.PingContext(WithLane(t.Context(), "")))
		}
		synctest.Wait()
		said := log.take()
		require.Len(t, said, 1)
		assert.Contains(t, said[0].message, "names a lane that Config.Lanes does not have")
		assert.Equal(t, "reports", said[0].attrs["lane"])
		assert.Equal(t, "[default report]", fmt.Sprint(said[0].attrs["lanes"]))
		c.SetMaxOpen(0)
		f.end(db, c)
	})
}

func TestALimitBelowWhatIsReservedIsToldOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		log := &keptLog{}
		f := &gateFake{t: t}
		db, err := OpenDB(f, Config{MaxOpen: 5, Logger: slog.New(log), Lanes: map[string]Lane{"probe": {Reserve: 2}}})
		require.NoError(t, err)
		c, _ := ConnectorOf(db)
		c.SetMaxOpen(2)
		c.SetMaxOpen(1)
		synctest.Wait()
		require.Len(t, log.warnings(), 1)
		require.NoError(t, laneWork(t.Context(), db, "", 0), "nothing is reserved then")
		f.end(db, c)
	})
}

func TestWhoWouldBeOneTooManyInTheQueueIsRefused(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := &gateFake{t: t}
		db, c := f.open(Config{MaxOpen: 1, MaxWaiting: 2, Lanes: map[string]Lane{"report": {}, "batch": {MaxWaiting: -1}}})
		holder := take(t, db, 1)[0]
		for range 2 {
			go laneWork(t.Context(), db, "", 0)       //nolint:errcheck // that it waits is what matters
			go laneWork(t.Context(), db, "report", 0) //nolint:errcheck // likewise
		}
		synctest.Wait()
		for _, lane := range []string{"", "report"} {
			err := laneWork(t.Context(), db, lane, 0)
			require.ErrorIs(t, err, ErrOverloaded)
			var refused *AcquireError
			require.ErrorAs(t, err, &refused)
			assert.Equal(t, 2, refused.Waiting, "each lane has a queue of its own")
			assert.Zero(t, refused.Queued)
			assert.Len(t, refused.Holders, 1)
			assert.Contains(t, err.Error(), "no connection (refused at once, since 2 wait already: Config.MaxWaiting): 1 of 1 in use, 0 idle, ")
			assert.Contains(t, err.Error(), "; held by ")
		}
		done := make(chan error, 10)
		for range 10 {
			go func() { done <- laneWork(t.Context(), db, "batch", 0) }()
		}
		synctest.Wait()
		assert.Equal(t, 14, c.Stats().Waiting)
		require.NoError(t, holder.Close())
		for range 10 {
			require.NoError(t, <-done)
		}
		synctest.Wait()
		f.end(db, c)
	})
}

// Who waits for their lane's Max is told who holds that, and not who else has connections for longer.
func TestWhoWaitsForAFullLaneIsToldWhoHasIt(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := &gateFake{t: t}
		db, c := f.open(Config{MaxOpen: 20, AcquireTimeout: time.Second, Lanes: map[string]Lane{"report": {Max: 1}}})
		others := take(t, db, 10)
		report, err := db.BeginTx(WithLane(t.Context(), "report"), nil)
		require.NoError(t, err)
		err = laneWork(t.Context(), db, "report", 0)
		var late *AcquireError
		require.ErrorAs(t, err, &late)
		require.Len(t, late.Holders, 1)
		assert.Equal(t, "report", late.Holders[0].Lane)
		assert.Contains(t, err.Error(), `11 of 20 in use, 0 idle, 1 of 1 in lane "report", nobody else waiting; held by `)
		require.NoError(t, report.Rollback())
		for _, conn := range others {
			require.NoError(t, conn.Close())
		}
		f.end(db, c)
	})
}

// More come than can be served: those who are served are served in time, and afterwards nobody is
// refused.
func TestAFloodIsRefusedEarly(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := &gateFake{t: t}
		db, c := f.open(Config{MaxOpen: 10, QueueTarget: 50 * time.Millisecond})
		var served, refused, late atomic.Int64
		call := func() {
			ctx, cancel := context.WithTimeout(t.Context(), time.Second)
			defer cancel()
			switch err := laneWork(ctx, db, "", 10*time.Millisecond); {
			case err == nil:
				served.Add(1)
			case errors.Is(err, ErrOverloaded):
				refused.Add(1)
			default:
				late.Add(1)
			}
		}
		flood := func(n int, every time.Duration) {
			for range n {
				go call()
				leakPause(every)
			}
		}
		flood(15_000, time.Second/1500) // ten seconds of half more than the 1,000 a second that can be served
		assert.GreaterOrEqual(t, served.Load(), int64(9_800))
		leakPause(time.Second)
		assert.Zero(t, late.Load(), "whoever is served is served in time")
		assert.Equal(t, int64(15_000), served.Load()+refused.Load())
		before := refused.Load()
		served.Store(0)
		flood(5_000, time.Second/900)
		leakPause(time.Second)
		assert.Equal(t, before, refused.Load(), "nobody is refused when it is over")
		assert.Equal(t, int64(5_000), served.Load())
		f.end(db, c)
	})
}

// A server that does not answer any more gives no connection back: those who wait are refused all
// the same.
func TestAFloodBeforeAServerThatHangsIsRefused(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := &gateFake{t: t}
		db, c := f.open(Config{MaxOpen: 1, QueueTarget: 50 * time.Millisecond})
		holder := take(t, db, 1)[0]
		results := make(chan error, 100)
		for range 100 {
			go func() { results <- laneWork(t.Context(), db, "", 0) }()
		}
		leakPause(500 * time.Millisecond)
		assert.Empty(t, results, "an interval is waited for")
		leakPause(50 * time.Millisecond)
		require.Len(t, results, 99, "the last one may have what comes next")
		for range 99 {
			err := <-results
			require.ErrorIs(t, err, ErrOverloaded)
			assert.Contains(t, err.Error(), "no connection (refused after 550ms in the queue: everybody has waited for too long lately: Config.QueueTarget): 1 of 1 in use")
		}
		require.NoError(t, holder.Close())
		require.NoError(t, <-results)
		f.end(db, c)
	})
}

func TestLanesThatCannotBeMeantAreRefused(t *testing.T) {
	many := map[string]Lane{}
	for i := range mostLanes + 1 {
		many[fmt.Sprint(i)] = Lane{}
	}
	for _, c := range []struct {
		cfg                  Config
		field, value, remedy string
	}{
		{Config{MaxWaiting: -1}, "MaxWaiting", "-1", "use zero for any number"},
		{Config{QueueTarget: -1}, "QueueTarget", "-1ns", "use zero for none"},
		{Config{QueueTarget: 50}, "QueueTarget", "50ns", "did you forget a unit?"},
		{Config{QueueTarget: time.Second, AcquireTimeout: time.Second}, "QueueTarget", "1s", "lower it, or raise AcquireTimeout"},
		{Config{Lanes: map[string]Lane{"a": {QueueTarget: time.Hour}}, AcquireTimeout: time.Second}, `Lanes["a"].QueueTarget`, "1h0m0s", "lower it, or raise AcquireTimeout"},
		{Config{Lanes: map[string]Lane{"a": {QueueTarget: 5}}}, `Lanes["a"].QueueTarget`, "5ns", "did you forget a unit?"},
		{Config{Lanes: map[string]Lane{"a": {Max: -1}}}, `Lanes["a"].Max`, "-1", "use zero for any number"},
		{Config{Lanes: map[string]Lane{"a": {Reserve: -1}}}, `Lanes["a"].Reserve`, "-1", "use zero for none"},
		{Config{Lanes: map[string]Lane{"a": {Max: 2, Reserve: 3}}}, `Lanes["a"].Reserve`, "3", "lower it or raise Max"},
		{Config{Lanes: map[string]Lane{"": {}}}, "Lanes", `a lane with the name ""`, `is "default"`},
		{Config{Lanes: map[string]Lane{strings.Repeat("a", 65): {}}}, "Lanes", "a lane with a name of 65 bytes", "use 64 at most"},
		{Config{Lanes: many}, "Lanes", "17 lanes", "use 16 at most"},
		{Config{MaxOpen: 3, Lanes: map[string]Lane{"a": {Reserve: 2}, "b": {Reserve: 1}}}, "Lanes", "3 reserved connections", "To divide all connections, use Max"},
	} {
		_, err := Wrap(&gateFake{t: t}, c.cfg)
		wantConfigError(t, err, c.field, c.value, c.remedy)
	}
}
