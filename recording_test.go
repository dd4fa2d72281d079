package sqllease

import (
	"context"
	"database/sql"
	"database/sql/driver"
	"log/slog"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"go.opentelemetry.io/otel/trace"

	"github.com/sqllease/sqllease/internal/callstack"
	"github.com/sqllease/sqllease/internal/recording"
)

// recordedPool is a pool on a driver whose calls and dials take 10 ms, and which records.
func recordedPool(t *testing.T, cfg Config) (*sql.DB, *Connector) {
	f := &leakFake{takes: map[string]time.Duration{}, rows: [][]driver.Value{{int64(1)}, {int64(2)}}}
	for _, call := range []string{"connect", "query", "exec", "begin", "commit", "next"} {
		f.takes[call] = 10 * time.Millisecond
	}
	cfg.Logger = slog.New(slog.DiscardHandler)
	db, err := OpenDB(f, cfg)
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, db.Close()) })
	c, _ := ConnectorOf(db)
	c.Record(100)
	return db, c
}

func TestALeaseIsRecorded(t *testing.T) {
	const ms = time.Millisecond
	ctx := context.Background()
	for name, c := range map[string]struct {
		work                               func(*testing.T, *sql.DB)
		hold, unused, reading, transaction time.Duration
		statement                          string
	}{
		"a call": {func(t *testing.T, db *sql.DB) {
			_, err := db.ExecContext(ctx, "UPDATE t SET a = 17")
			require.NoError(t, err)
		}, 10 * ms, 0, 0, 0, "UPDATE t SET a = ?"},
		"rows": {func(t *testing.T, db *sql.DB) {
			rows, err := db.QueryContext(ctx, "SELECT a FROM t")
			require.NoError(t, err)
			for rows.Next() {
				elapse(100 * ms)
			}
			require.NoError(t, rows.Err())
		}, 240 * ms, 200 * ms, 30 * ms, 0, "SELECT a FROM t"},
		"rows that are closed late": {func(t *testing.T, db *sql.DB) {
			rows, err := db.QueryContext(ctx, "SELECT a FROM t")
			require.NoError(t, err)
			require.True(t, rows.Next())
			elapse(100 * ms)
			require.NoError(t, rows.Close())
		}, 120 * ms, 100 * ms, 10 * ms, 0, "SELECT a FROM t"},
		"a transaction": {func(t *testing.T, db *sql.DB) {
			tx, err := db.BeginTx(ctx, nil)
			require.NoError(t, err)
			elapse(50 * ms)
			_, err = tx.ExecContext(ctx, "DELETE FROM t")
			require.NoError(t, err)
			require.NoError(t, tx.Commit())
		}, 80 * ms, 50 * ms, 0, 70 * ms, "DELETE FROM t"},
		"a connection with a transaction in it": {func(t *testing.T, db *sql.DB) {
			conn, err := db.Conn(ctx)
			require.NoError(t, err)
			elapse(30 * ms)
			tx, err := conn.BeginTx(ctx, nil)
			require.NoError(t, err)
			rows, err := tx.QueryContext(ctx, "SELECT a FROM t")
			require.NoError(t, err)
			require.NoError(t, rows.Close())
			require.NoError(t, tx.Commit())
			require.NoError(t, conn.Close())
		}, 60 * ms, 30 * ms, 0, 20 * ms, "SELECT a FROM t"},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				db, conn := recordedPool(t, Config{MaxOpen: 1})
				for range 2 {
					c.work(t, db)
				}
				r := conn.Recording()
				require.Len(t, r.Leases, 2)
				for i, l := range r.Leases {
					assert.Equal(t, uint64(i+1), l.ID)
					assert.Equal(t, uint64(1), l.Connection)
					assert.Equal(t, 1, l.InUse)
					assert.Equal(t, OutcomeReturned, l.Outcome)
					assert.Equal(t, c.statement, l.Statement)
					assert.Contains(t, l.Stack.Site(), "recording_test.go")
					assert.Equal(t, c.hold, l.Hold(r.To))
					assert.Equal(t, c.hold, l.End.Sub(l.Acquired))
					assert.Equal(t, []time.Duration{c.unused, c.reading, c.transaction}, []time.Duration{l.Unused, l.Reading, l.Transaction},
						"unused, reading, in a transaction")
				}
				assert.Equal(t, 10*ms, r.Leases[0].Dial)
				assert.Equal(t, r.Leases[0].Start.Add(10*ms), r.Leases[0].Acquired)
				assert.Zero(t, r.Leases[1].Dial)
			})
		})
	}
}

func TestAcquiresThatFailAreRecorded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		db, c := recordedPool(t, Config{MaxOpen: 1, AcquireTimeout: 50 * time.Millisecond})
		conn, err := db.Conn(context.Background())
		require.NoError(t, err)
		_, err = db.Exec("UPDATE t SET a = 1")
		require.Error(t, err)
		ctx, cancel := context.WithTimeout(context.Background(), 20*time.Millisecond)
		defer cancel()
		_, err = db.ExecContext(ctx, "UPDATE t SET a = 1")
		require.Error(t, err)
		require.NoError(t, conn.Close())

		r := c.Recording()
		require.Len(t, r.Leases, 3)
		for i, want := range []struct {
			outcome Outcome
			took    time.Duration
		}{{"acquire_timeout", 50 * time.Millisecond}, {"context.DeadlineExceeded", 20 * time.Millisecond}} {
			l := r.Leases[i]
			assert.Equal(t, want.outcome, l.Outcome)
			assert.Equal(t, want.took, l.End.Sub(l.Start))
			assert.Equal(t, want.took, l.Queue)
			assert.True(t, l.Acquired.IsZero())
			assert.Zero(t, l.ID)
			assert.Zero(t, l.Hold(r.To))
			assert.Contains(t, l.Stack.Site(), "recording_test.go")
		}
		assert.Equal(t, OutcomeReturned, r.Leases[2].Outcome)
	})
}

func TestWhatGoesOnIsInARecording(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		db, c := recordedPool(t, Config{MaxOpen: 2})
		trace1 := trace.ContextWithSpanContext(context.Background(), trace.NewSpanContext(trace.SpanContextConfig{TraceID: trace.TraceID{1}, SpanID: trace.SpanID{2}}))
		first, err := db.Conn(trace1)
		require.NoError(t, err)
		second, err := db.Conn(context.Background())
		require.NoError(t, err)
		_, err = second.ExecContext(context.Background(), "UPDATE t SET a = 'secret'")
		require.NoError(t, err)
		done := make(chan error)
		go func() {
			_, err := db.Exec("DELETE FROM t")
			done <- err
		}()
		elapse(time.Second)

		r := c.Recording()
		assert.Empty(t, r.Leases)
		assert.Equal(t, 2, r.Limit)
		require.Len(t, r.Out, 2)
		assert.Equal(t, trace.TraceID{1}, r.Out[0].SpanContext.TraceID())
		assert.Equal(t, trace.SpanID{2}, r.Out[0].SpanContext.SpanID())
		assert.Equal(t, []int{1, 2}, []int{r.Out[0].InUse, r.Out[1].InUse})
		assert.Equal(t, "UPDATE t SET a = ?", r.Out[1].Statement)
		assert.True(t, r.Out[0].End.IsZero())
		assert.Empty(t, r.Out[0].Outcome)
		assert.Equal(t, 1010*time.Millisecond, r.Out[1].Hold(r.To))
		require.Len(t, r.Waiting, 1)
		assert.Equal(t, time.Second, r.Waiting[0].Queue)
		assert.True(t, r.Waiting[0].Acquired.IsZero())

		require.NoError(t, first.Close())
		require.NoError(t, <-done)
		require.NoError(t, second.Close())
		r = c.Recording()
		assert.Len(t, r.Leases, 3)
		assert.Empty(t, r.Out)
		assert.Empty(t, r.Waiting)
		assert.Equal(t, time.Second, r.Leases[1].Queue, "it waited, and ended second")
	})
}

func TestARecordingHasNoMoreThanItsSize(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		db, c := recordedPool(t, Config{MaxOpen: 1})
		begun := time.Now()
		exec := func(times int) {
			for range times {
				_, err := db.Exec("UPDATE t SET a = 1")
				require.NoError(t, err)
			}
		}
		exec(100)
		r := c.Recording()
		assert.Len(t, r.Leases, 100)
		assert.Equal(t, begun, r.From)
		exec(30)
		r = c.Recording()
		assert.Len(t, r.Leases, 100)
		assert.Equal(t, uint64(31), r.Leases[0].ID)
		assert.Equal(t, r.Leases[0].End, r.From, "what ended before that was let go")

		c.Record(0)
		exec(1)
		r = c.Recording()
		assert.True(t, r.From.IsZero())
		assert.Empty(t, r.Leases)
		assert.Empty(t, r.Out)
		c.Record(10)
		exec(1)
		assert.Len(t, c.Recording().Leases, 1)
	})
}

func TestALongStatementIsNotKept(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		db, c := recordedPool(t, Config{MaxOpen: 1})
		_, err := db.Exec("UPDATE t SET a = 1 -- " + strings.Repeat("x", 2000))
		require.NoError(t, err)
		require.Len(t, c.Recording().Leases, 1)
		assert.Empty(t, c.Recording().Leases[0].Statement)
	})
}

// kinds are what happened, in its order.
func kinds(r Recording) (all []EventKind) {
	for _, e := range r.Events {
		all = append(all, e.Kind)
	}
	return all
}

func TestEventsAreRecorded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		db, c := recordedPool(t, Config{MaxOpen: 1, LeakThreshold: time.Second, SlowCallThreshold: -1, StandstillThreshold: 2 * time.Second})
		known := callstack.Goroutine() != 0 // else it cannot be seen that the holder waits
		conn, err := db.Conn(context.Background())
		require.NoError(t, err)
		ctx, cancel := context.WithTimeout(context.Background(), 4*time.Second)
		defer cancel()
		time.AfterFunc(3500*time.Millisecond, func() {
			s := c.Stats()
			assert.Equal(t, 3500*time.Millisecond, s.StandsStill)
			assert.Equal(t, known, s.Deadlocked, "the holder waits itself")
		})
		_, err = db.ExecContext(ctx, "UPDATE t SET a = 1") // the pool stands still, and the lease leaks
		require.Error(t, err)
		assert.Zero(t, c.Stats().StandsStill)
		assert.False(t, c.Stats().Deadlocked)
		require.NoError(t, conn.Close())
		c.SetMaxOpen(3)
		c.SetMaxOpen(3)
		c.Flush(0)
		synctest.Wait()
		r := c.Recording()
		assert.Equal(t, []EventKind{EventDialed, EventLeak, EventStandstill, EventLimit, EventFlush, EventClosed}, kinds(r))
		assert.Equal(t, 10*time.Millisecond, r.Events[0].Took)
		assert.Equal(t, uint64(1), r.Events[0].Connection)
		assert.Equal(t, uint64(1), r.Events[1].Lease)
		assert.Contains(t, r.Events[1].Found, "recording_test.go")
		assert.Contains(t, r.Events[1].Found, "unused for 1s")
		assert.Contains(t, r.Events[1].Fix, "Close")
		assert.Equal(t, known, strings.Contains(r.Events[2].Found, "deadlock for"), r.Events[2].Found)
		assert.Contains(t, r.Events[2].Found, "waiting at")
		assert.NotEmpty(t, r.Events[2].Fix)
		assert.Equal(t, 3, r.Events[3].Limit)
		assert.Equal(t, "flushed", r.Events[5].Why)
		assert.Equal(t, uint64(1), r.Events[5].Connection)
	})
}

func TestConnectionsThatBreakAreRecorded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := &gateFake{t: t, script: func(_ context.Context, _ *gateFakeConn, call string) error {
			if call == "exec" {
				return driver.ErrBadConn
			}
			return nil
		}}
		db, c := f.open(Config{MaxOpen: 1})
		c.Record(10)
		conn, err := db.Conn(context.Background())
		require.NoError(t, err)
		_, err = conn.ExecContext(context.Background(), "UPDATE t SET a = 1")
		require.ErrorIs(t, err, driver.ErrBadConn)
		_ = conn.Close()
		f.end(db, c)
		r := c.Recording()
		require.Len(t, r.Leases, 1)
		assert.Equal(t, OutcomeBroken, r.Leases[0].Outcome)
		assert.Equal(t, []EventKind{EventDialed, EventClosed}, kinds(r))
	})
}

func TestAReclaimedLeaseIsRecordedOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		db, c := recordedPool(t, Config{MaxOpen: 1, LeakThreshold: time.Second, ReclaimAfter: 2 * time.Second})
		conn, err := db.Conn(context.Background())
		require.NoError(t, err)
		elapse(10 * time.Second)
		require.Error(t, conn.PingContext(context.Background()))
		_ = conn.Close()
		r := c.Recording()
		require.Len(t, r.Leases, 1)
		assert.Equal(t, OutcomeReclaimed, r.Leases[0].Outcome)
		assert.Equal(t, r.Leases[0].Hold(r.To), r.Leases[0].Unused)
	})
}

// TestRecordingCostsNoAllocation: of a call, with the memory that the record itself needs made before.
func TestRecordingCostsNoAllocation(t *testing.T) {
	f := &leakFake{}
	db, err := OpenDB(f, Config{MaxOpen: 1})
	require.NoError(t, err)
	defer func() { require.NoError(t, db.Close()) }()
	c, _ := ConnectorOf(db)
	exec := func() {
		_, err := db.Exec("UPDATE t SET a = 1")
		require.NoError(t, err)
	}
	exec()
	without := testing.AllocsPerRun(200, exec)
	c.Record(100)
	assert.Equal(t, without, testing.AllocsPerRun(200, exec))
}

func TestPoolsOfAProcess(t *testing.T) {
	names := func() (all []string) {
		for _, c := range Connectors() {
			if n := c.Name(); strings.HasPrefix(n, "listed ") {
				all = append(all, n)
			}
		}
		return all
	}
	a, err := Wrap(&leakFake{}, Config{Name: "listed b"})
	require.NoError(t, err)
	recording.SetStandard(5)
	b, err := Wrap(&leakFake{}, Config{Name: "listed a"})
	recording.SetStandard(0)
	require.NoError(t, err)
	assert.Equal(t, []string{"listed b", "listed a"}, names(), "the oldest first")
	assert.True(t, a.Recording().From.IsZero())
	assert.False(t, b.Recording().From.IsZero(), "where that is the standard, a pool records from its start")
	require.NoError(t, a.Close())
	assert.Equal(t, []string{"listed a"}, names())
	require.NoError(t, b.Close())
	assert.Empty(t, names())
}

func TestConnectionsOfAPool(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		begun := time.Now()
		db, c := recordedPool(t, Config{MaxOpen: 3, MaxLifetime: time.Hour, NetworkIdleLimit: 10 * time.Minute, Discovery: NoDiscovery})
		conns := make([]*sql.Conn, 3)
		for i := range conns {
			var err error
			conns[i], err = db.Conn(context.Background())
			require.NoError(t, err)
		}
		elapse(time.Minute)
		for _, i := range []int{2, 0} {
			require.NoError(t, conns[i].PingContext(context.Background()))
			require.NoError(t, conns[i].Close())
		}
		got := c.Connections()
		require.Len(t, got, 3)
		assert.Equal(t, []uint64{2, 3, 1}, []uint64{got[0].Number, got[1].Number, got[2].Number}, "who has one, then those that are ready")
		assert.Equal(t, []uint64{2, 0, 0}, []uint64{got[0].Lease, got[1].Lease, got[2].Lease})
		assert.Equal(t, begun.Add(20*time.Millisecond), got[0].Opened)
		assert.Equal(t, "expired", got[0].Why, "what is used has no idle limit")
		assert.WithinRange(t, got[0].Expires, got[0].Opened.Add(30*time.Minute), got[0].Opened.Add(time.Hour), "the pool spreads the ends")
		assert.Equal(t, "idle_limit", got[1].Why)
		assert.WithinDuration(t, time.Now().Add(9*time.Minute+30*time.Second), got[1].Expires, time.Second)
		c.Flush(time.Minute)
		assert.Equal(t, "flushed", c.Connections()[0].Why)
		require.NoError(t, conns[1].Close())
	})
}
