package sqllease

import (
	"context"
	"database/sql"
	"errors"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// A caller whose lane may have nothing more is given a handle of database/sql's free list that has
// no connection yet: its first call waits for one.

// barred is a pool of three connections, two of them idle, whose lane "report" has the one that it
// may have: holder.
type barred struct {
	t      *testing.T
	f      *gateFake
	db     *sql.DB
	c      *Connector
	report context.Context
	holder *sql.Conn
}

// withBarred runs a test on one, and checks at the end that nothing is left of it.
func withBarred(t *testing.T, cfg Config, test func(*testing.T, *barred)) {
	synctest.Test(t, func(t *testing.T) {
		b := &barred{t: t, f: &gateFake{t: t}, report: WithLane(t.Context(), "report")}
		cfg.MaxOpen, cfg.Lanes = 3, map[string]Lane{"report": {Max: 1}}
		b.db, b.c = b.f.open(cfg)
		b.db.SetMaxIdleConns(3)
		for _, conn := range take(t, b.db, 3) {
			require.NoError(t, conn.Close())
		}
		var err error
		b.holder, err = b.db.Conn(b.report)
		require.NoError(t, err)
		test(t, b)
		synctest.Wait()
		if s := b.c.Stats(); assert.Zero(t, s.InUse, "what is left") {
			assert.Zero(t, s.Waiting)
		}
		for _, lane := range []string{"report", ""} {
			err := laneWork(t.Context(), b.db, lane, 0)
			if b.c.life.Err() == nil {
				require.NoError(t, err, "the lane works as before")
			}
		}
		b.f.end(b.db, b.c)
	})
}

// conn is one of the lane, which has no connection yet.
func (b *barred) conn() *sql.Conn {
	b.t.Helper()
	conn, err := b.db.Conn(b.report)
	require.NoError(b.t, err)
	require.Equal(b.t, 1, b.c.Stats().InUse)
	return conn
}

// release gives back what the lane has.
func (b *barred) release() { require.NoError(b.t, b.holder.Close()) }

func TestAConnOfABarredLaneThatIsNotUsedWaitsForNothing(t *testing.T) {
	withBarred(t, Config{}, func(t *testing.T, b *barred) {
		for range 5 {
			require.NoError(t, b.conn().Close())
		}
		assert.Equal(t, 3, b.db.Stats().OpenConnections, "database/sql has the handles that it had")
		dials := b.c.Stats().Dials
		for _, conn := range take(t, b.db, 2) {
			require.NoError(t, conn.Close())
		}
		assert.Equal(t, dials, b.c.Stats().Dials, "nobody needs another connection")
		b.release()
	})
}

func TestTheFirstCallOnAConnOfABarredLaneWaits(t *testing.T) {
	withBarred(t, Config{}, func(t *testing.T, b *barred) {
		conn := b.conn()
		pinged := make(chan error, 1)
		go func() { pinged <- conn.PingContext(b.report) }()
		synctest.Wait()
		assert.Equal(t, 1, b.c.Stats().Waiting)
		require.NoError(t, laneWork(t.Context(), b.db, "", 0), "others do not wait")
		b.release()
		require.NoError(t, <-pinged)
		assert.Equal(t, 1, b.c.Stats().InUse)
		require.NoError(t, conn.Close())
	})
}

func TestAContextThatEndsInTheFirstCallOfABarredLane(t *testing.T) {
	withBarred(t, Config{}, func(t *testing.T, b *barred) {
		conn := b.conn()
		ctx, cancel := context.WithTimeout(b.report, time.Second)
		defer cancel()
		err := conn.PingContext(ctx)
		require.ErrorIs(t, err, context.DeadlineExceeded)
		var refused *AcquireError
		require.ErrorAs(t, err, &refused)
		assert.Equal(t, "report", refused.Lane)
		assert.Equal(t, 1, refused.LaneInUse)
		assert.Equal(t, 1, refused.Position)
		b.release()
		require.NoError(t, conn.PingContext(b.report), "it may be tried again")
		require.NoError(t, conn.Close())
	})
}

func TestACancelAndAReturnAtTheSameTimeLoseNoPlaceOfALane(t *testing.T) {
	withBarred(t, Config{}, func(t *testing.T, b *barred) {
		for range 50 {
			ctx, cancel := context.WithCancel(b.report)
			pinged := make(chan error, 1)
			go func() { pinged <- laneWork(ctx, b.db, "", 0) }()
			synctest.Wait()
			go cancel()
			b.release()
			if err := <-pinged; err != nil && !errors.Is(err, sql.ErrTxDone) { // it came after the begin
				require.ErrorIs(t, err, context.Canceled)
			}
			synctest.Wait()
			require.Zero(t, b.c.Stats().InUse)
			var err error
			b.holder, err = b.db.Conn(b.report)
			require.NoError(t, err)
			require.NoError(t, b.holder.PingContext(b.report))
		}
		b.release()
	})
}

func TestADriverThatPanicsInTheFirstCallOfABarredLane(t *testing.T) {
	withBarred(t, Config{}, func(t *testing.T, b *barred) {
		conn := b.conn()
		panicked := make(chan any, 1)
		go func() {
			defer func() { panicked <- recover() }()
			_ = conn.PingContext(b.report)
		}()
		synctest.Wait()
		b.f.script = func(_ context.Context, _ *gateFakeConn, call string) error {
			if call == "ping" {
				panic("the driver")
			}
			return nil
		}
		b.release()
		require.Equal(t, "the driver", <-panicked)
		synctest.Wait()  // what it panicked on is closed aside
		b.f.script = nil // and database/sql holds a lock of conn's for ever
	})
}

func TestAPoolThatIsClosedBeforeTheFirstCallOfABarredLane(t *testing.T) {
	withBarred(t, Config{}, func(t *testing.T, b *barred) {
		used, unused := b.conn(), b.conn()
		pinged := make(chan error, 1)
		go func() { pinged <- used.PingContext(b.report) }()
		synctest.Wait()
		go b.db.Close() //nolint:errcheck // it waits for nobody
		require.ErrorIs(t, <-pinged, ErrClosed)
		require.Error(t, unused.PingContext(b.report))
		_ = used.Close()
		_ = unused.Close()
		b.release()
	})
}

func TestStatementsAndTransactionsOfABarredLaneWait(t *testing.T) {
	withBarred(t, Config{}, func(t *testing.T, b *barred) {
		conn := b.conn()
		done := make(chan error, 3)
		go func() {
			stmt, err := conn.PrepareContext(b.report, "SELECT 1")
			if err == nil {
				_, err = stmt.ExecContext(b.report)
				_ = stmt.Close()
			}
			done <- err
			_ = conn.Close()
		}()
		go func() { done <- laneWork(b.report, b.db, "", time.Millisecond) }()
		go func() {
			_, err := b.db.ExecContext(b.report, "DO 1")
			done <- err
		}()
		synctest.Wait()
		assert.Equal(t, 3, b.c.Stats().Waiting)
		b.release()
		for range 3 {
			require.NoError(t, <-done)
		}
		synctest.Wait()
		assert.Zero(t, b.db.Stats().InUse)
		assert.Equal(t, uint64(3), b.c.Stats().Dials, "one after the other had the lane's")
	})
}

// What is refused tells at which bound, and leaves nothing behind.
func TestTheFirstCallOfABarredLaneIsRefusedWhereTooManyWait(t *testing.T) {
	withBarred(t, Config{MaxWaiting: 1, AcquireTimeout: time.Second}, func(t *testing.T, b *barred) {
		first, second := b.conn(), b.conn()
		pinged := make(chan error, 1)
		go func() { pinged <- first.PingContext(b.report) }()
		synctest.Wait()
		require.ErrorIs(t, second.PingContext(b.report), ErrOverloaded)
		require.ErrorIs(t, laneWork(b.report, b.db, "", 0), ErrOverloaded)
		require.NoError(t, laneWork(t.Context(), b.db, "", 0), "another lane has a queue of its own")
		err := <-pinged
		require.ErrorIs(t, err, context.DeadlineExceeded)
		var late *AcquireError
		require.ErrorAs(t, err, &late)
		assert.Equal(t, time.Second, late.Within)
		assert.Equal(t, 1, late.Waiting, "itself")
		s := b.c.Stats()
		assert.Equal(t, uint64(1), s.Timeouts)
		b.release()
		require.NoError(t, second.PingContext(b.report))
		require.NoError(t, second.Close())
		_ = first.Close()
	})
}

func TestATargetBeforeATimeout(t *testing.T) {
	withBarred(t, Config{QueueTarget: 50 * time.Millisecond, AcquireTimeout: time.Second}, func(t *testing.T, b *barred) {
		start := time.Now()
		results := make(chan error, 3)
		for range 3 {
			go func() { results <- laneWork(b.report, b.db, "", 0) }()
		}
		for range 2 {
			require.ErrorIs(t, <-results, ErrOverloaded)
		}
		assert.Equal(t, 550*time.Millisecond, time.Since(start))
		require.ErrorIs(t, <-results, context.DeadlineExceeded)
		assert.Equal(t, time.Second, time.Since(start))
		ended, cancel := context.WithCancel(b.report)
		cancel()
		require.ErrorIs(t, laneWork(ended, b.db, "", 0), context.Canceled)
		b.release()
	})
}
