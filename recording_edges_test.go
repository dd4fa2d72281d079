package sqllease

import (
	"context"
	"database/sql/driver"
	"io"
	"log/slog"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

func TestARecordingOfAnotherSizeBeginsAnew(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		db, c := recordedPool(t, Config{MaxOpen: 1})
		_, err := db.Exec("UPDATE t SET a = 1")
		require.NoError(t, err)
		elapse(time.Minute)
		c.Record(200)
		r := c.Recording()
		require.Empty(t, r.Leases, "what there was is let go")
		assert.Equal(t, time.Now(), r.From, "so nothing is told of the time before")
		elapse(time.Minute)
		c.Record(200)
		assert.Equal(t, r.From, c.Recording().From, "nothing has changed")
	})
}

// TestARecordingIsOfOneMoment looks at a pool while it works.
func TestARecordingIsOfOneMoment(t *testing.T) {
	f := &leakFake{}
	db, err := OpenDB(f, Config{MaxOpen: 4, Logger: slog.New(slog.DiscardHandler)})
	require.NoError(t, err)
	c, _ := ConnectorOf(db)
	c.Record(2000)
	var all sync.WaitGroup
	done := make(chan struct{})
	for range 16 {
		all.Go(func() {
			for {
				select {
				case <-done:
					return
				default:
				}
				ctx, cancel := context.WithTimeout(context.Background(), 50*time.Microsecond)
				if conn, err := db.Conn(ctx); err == nil {
					_, _ = conn.ExecContext(context.Background(), "UPDATE t SET a = 1")
					_ = conn.Close()
				}
				cancel()
			}
		})
	}
	var twice, early, late, disorder, negative int
	for range 300 {
		r := c.Recording()
		over := map[uint64]bool{}
		for i := range r.Leases {
			l := &r.Leases[i]
			over[l.ID] = l.ID != 0
			if l.End.After(r.To) {
				late++
			}
			if i > 0 && l.End.Before(r.Leases[i-1].End) {
				disorder++
			}
		}
		for i := range r.Out {
			if over[r.Out[i].ID] {
				twice++
			}
			if r.Out[i].Hold(r.To) < 0 || r.Out[i].Start.After(r.To) {
				negative++
			}
		}
		for i := range r.Waiting {
			if r.Waiting[i].Queue < 0 || r.Waiting[i].Start.After(r.To) {
				early++
			}
		}
	}
	close(done)
	all.Wait()
	require.NoError(t, db.Close())
	assert.Zero(t, twice, "a lease is over or checked out, not both")
	assert.Zero(t, late, "nothing ends after the recording was read")
	assert.Zero(t, disorder, "they are in the order in which they ended")
	assert.Zero(t, negative, "no hold is less than nothing")
	assert.Zero(t, early, "no wait is less than nothing")
}

// TestRecordMayBeCalledByManyAtOnce: the recording is on or off, as one of them said.
func TestRecordMayBeCalledByManyAtOnce(t *testing.T) {
	db, err := OpenDB(&leakFake{}, Config{MaxOpen: 1, Logger: slog.New(slog.DiscardHandler)})
	require.NoError(t, err)
	c, _ := ConnectorOf(db)
	for range 3000 {
		var all sync.WaitGroup
		for _, n := range []int{0, 10, 0, 20} {
			all.Go(func() { c.Record(n) })
		}
		all.Wait()
		on := !c.Recording().From.IsZero()
		if !assert.Equal(t, []bool{on, on}, []bool{c.recorder.leases.On(), c.recorder.events.On()}, "leases, and events") {
			break
		}
	}
	require.NoError(t, db.Close())
}

// panickyStmt panics when it is closed.
type panicky struct{ leakFake }

func (f *panicky) Connect(context.Context) (driver.Conn, error) {
	return &panickyConn{leakFakeConn{&f.leakFake}}, nil
}

type panickyConn struct{ leakFakeConn }

func (c *panickyConn) Prepare(string) (driver.Stmt, error) {
	return panickyStmt{leakFakeStmt(c.leakFakeConn)}, nil
}

type panickyStmt struct{ leakFakeStmt }

func (panickyStmt) Close() error { elapse(time.Second); panic("of the driver") }

func TestALeaseWhoseStatementPanicsIsNotUnusedForLongerThanItWasHeld(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		db, err := OpenDB(&panicky{leakFake{takes: map[string]time.Duration{}}}, Config{MaxOpen: 2, Logger: slog.New(slog.DiscardHandler)})
		require.NoError(t, err)
		c, _ := ConnectorOf(db)
		c.Record(10)
		conn, err := db.Conn(context.Background())
		require.NoError(t, err)
		st, err := conn.PrepareContext(context.Background(), "UPDATE t SET a = ?")
		require.NoError(t, err)
		elapse(10 * time.Second)
		assert.Panics(t, func() { _ = st.Close() })
		synctest.Wait()
		r := c.Recording()
		require.Len(t, r.Leases, 1)
		assert.Equal(t, OutcomePanicked, r.Leases[0].Outcome)
		assert.Equal(t, 11*time.Second, r.Leases[0].Hold(r.To))
		assert.Equal(t, 10*time.Second, r.Leases[0].Unused)
		go func() { _ = db.Close() }() // it waits for the lock that database/sql kept
		synctest.Wait()
	})
}

func TestAConnectionWhoseStatementIsBeingClosedIsNoLeak(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := &leakFake{takes: map[string]time.Duration{"close": 5 * time.Second}}
		db, err := OpenDB(f, Config{MaxOpen: 1, LeakThreshold: 2 * time.Second, Logger: slog.New(slog.DiscardHandler)})
		require.NoError(t, err)
		t.Cleanup(func() { require.NoError(t, db.Close()) })
		c, _ := ConnectorOf(db)
		c.Record(10)
		conn, err := db.Conn(context.Background())
		require.NoError(t, err)
		st, err := conn.PrepareContext(context.Background(), "UPDATE t SET a = ?")
		require.NoError(t, err)
		elapse(time.Second)
		require.NoError(t, st.Close())
		require.NoError(t, conn.Close())
		synctest.Wait()
		r := c.Recording()
		require.Len(t, r.Leases, 1)
		assert.Equal(t, time.Second, r.Leases[0].Unused)
		assert.NotContains(t, kinds(r), EventLeak, "it was unused for a second only")
	})
}

func TestWhatIsDoneWithTheDriversOwnConnectionIsNotCalledUnused(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		db, c := recordedPool(t, Config{MaxOpen: 1})
		conn, err := db.Conn(context.Background())
		require.NoError(t, err)
		require.NoError(t, conn.Raw(func(own any) error {
			_, ok := Unwrap[*leakFakeConn](own)
			assert.True(t, ok)
			elapse(10 * time.Second)
			return nil
		}))
		_, err = conn.ExecContext(context.Background(), "UPDATE t SET a = 1")
		require.NoError(t, err)
		require.NoError(t, conn.Close())
		r := c.Recording()
		require.Len(t, r.Leases, 1)
		assert.Zero(t, r.Leases[0].Unused)
	})
}

// A statement that is closed tells nothing of its connection: most drivers ask the server for nothing then.
func TestToCloseAStatementIsNoSignOfLife(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		dead := false
		f := &gateFake{t: t, script: func(_ context.Context, _ *gateFakeConn, call string) error {
			if dead && call == "exec" {
				return io.ErrUnexpectedEOF
			}
			return nil
		}}
		db, c := f.open(Config{MaxOpen: 1, LeakThreshold: -1})
		conn, err := db.Conn(context.Background())
		require.NoError(t, err)
		st, err := conn.PrepareContext(context.Background(), "UPDATE t SET a = ?")
		require.NoError(t, err)
		_, err = conn.ExecContext(context.Background(), "UPDATE t SET a = 1")
		require.NoError(t, err)
		elapse(10 * time.Minute)
		require.NoError(t, st.Close())
		dead = true
		_, err = conn.ExecContext(context.Background(), "UPDATE t SET a = 1")
		require.Error(t, err)
		assert.Zero(t, c.learned.recent.breaks, "it may have been dead for ten minutes")
		_ = conn.Close()
		f.end(db, c)
	})
}
