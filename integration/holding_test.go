package integration

import (
	"context"
	"database/sql"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"go.opentelemetry.io/otel/trace"

	"github.com/sqllease/sqllease"
)

// What holds things up, on real servers, beside locks (blockers_test.go): each scene has callers
// wait, and reads the one record that a person would.

// held is a scene.
type held struct {
	*testing.T
	db     *sql.DB
	pool   *sqllease.Connector
	stands chan sqllease.Standstill
	leaks  chan sqllease.Leak
	nested chan sqllease.NestedAcquire
}

// everyHeld plays a scene on MariaDB and PostgreSQL.
func everyHeld(t *testing.T, limit int, play func(*held)) {
	for _, s := range []struct{ name, driver, dsn string }{
		{"MariaDB", "mysql", maria.DSN("")}, {"PostgreSQL", "pgx", postgres.DSN("")},
	} {
		t.Run(s.name, func(t *testing.T) {
			t.Parallel()
			h := &held{T: t, stands: make(chan sqllease.Standstill, 8), leaks: make(chan sqllease.Leak, 8), nested: make(chan sqllease.NestedAcquire, 8)}
			var err error
			h.db, err = sqllease.Open(s.driver, s.dsn, sqllease.Config{
				Name: "shop", MaxOpen: limit, StandstillThreshold: time.Second, LeakThreshold: 3 * time.Second, Logger: slog.New(slog.DiscardHandler),
				OnStandstill:    func(s sqllease.Standstill) { h.stands <- s },
				OnLeak:          func(l sqllease.Leak) { h.leaks <- l },
				OnNestedAcquire: func(n sqllease.NestedAcquire) { h.nested <- n },
			})
			require.NoError(t, err)
			h.pool, _ = sqllease.ConnectorOf(h.db)
			play(h)
			assert.NoError(t, h.db.Close())
		})
	}
}

// request is the context of one in a trace of its own.
func (h *held) request(n byte) (context.Context, context.CancelFunc) {
	ctx := trace.ContextWithSpanContext(h.Context(), trace.NewSpanContext(trace.SpanContextConfig{TraceID: trace.TraceID{n}, SpanID: trace.SpanID{n}}))
	return context.WithTimeout(ctx, 6*time.Second)
}

// standsStill is the report of it, which is the only one until it is over.
func (h *held) standsStill() sqllease.Standstill {
	h.Helper()
	select {
	case s := <-h.stands:
		require.False(h, s.Over)
		h.Log(s)
		return s
	case <-time.After(10 * time.Second):
		require.FailNow(h, "the pool stands still, and nothing says so")
		return sqllease.Standstill{}
	}
}

// isOver waits for the end of it. Meanwhile nothing else was told.
func (h *held) isOver() {
	h.Helper()
	select {
	case s := <-h.stands:
		assert.True(h, s.Over)
	case <-time.After(20 * time.Second):
		assert.Fail(h, "it is over, and nothing says so")
	}
	assert.Empty(h, h.leaks, "it is no leak")
	assert.Empty(h, h.nested, "its places are named")
}

// now is what the goroutines do that hold connections: reports may not look so often.
func (h *held) now() (all string) {
	for _, l := range h.pool.LeasesNow() {
		for _, g := range l.Now {
			all += g.String() + "\n"
		}
	}
	return all
}

const twoRows = "SELECT 1 UNION SELECT 2"

// reads has a request read rows, and has others query for each of them.
func (h *held) reads(ctx context.Context, busy *sync.WaitGroup, others int) {
	rows, err := h.db.QueryContext(ctx, twoRows)
	if err != nil {
		return
	}
	defer func() { _ = rows.Close() }()
	busy.Done()
	busy.Wait()
	for rows.Next() {
		var all sync.WaitGroup
		for range others {
			all.Go(func() { _ = h.db.PingContext(ctx) })
		}
		all.Wait()
	}
	_ = rows.Err()
}

func (h *held) crowd(n, others int) (all *sync.WaitGroup) {
	var busy sync.WaitGroup
	busy.Add(n)
	all = &sync.WaitGroup{}
	for i := range n {
		ctx, cancel := h.request(byte(i + 1))
		all.Go(func() {
			defer cancel()
			h.reads(ctx, &busy, others)
		})
	}
	return all
}

func TestRowsAndAnInnerQueryOnAnotherGoroutine(t *testing.T) {
	everyHeld(t, 2, func(h *held) {
		all := h.crowd(2, 1)
		s := h.standsStill()
		assert.False(h, s.Deadlock)
		require.Len(h, s.Held, 1)
		assert.Equal(h, 2, s.Held[0].Connections)
		assert.NotEmpty(h, s.Held[0].Relation)
		assert.Contains(h, s.Held[0].Stack.Site(), "(*held).reads")
		assert.Contains(h, s.Held[0].WaitsAt.Site(), "(*held).reads.func")
		assert.Contains(h, s.Fix(), "close the open rows first: call rows.Close() before the inner statement (a defer is too late)")
		all.Wait()
		h.isOver()
	})
}

func TestAFanOutOverRows(t *testing.T) {
	everyHeld(t, 2, func(h *held) {
		all := h.crowd(2, 4)
		s := h.standsStill()
		assert.Equal(h, 8, s.Waiting)
		assert.NotEmpty(h, s.Held[0].Relation)
		assert.Contains(h, s.Fix(), "close the open rows first")
		all.Wait()
		h.isOver()
	})
}

// A query under a lock of the application's: whoever has the connection waits for the lock,
// and whoever has the lock for the connection.
func TestAMutexAroundAQuery(t *testing.T) {
	everyHeld(t, 1, func(h *held) {
		ctx, cancel := h.request(1)
		defer cancel()
		var lock sync.Mutex
		lock.Lock()
		var all sync.WaitGroup
		tx, err := h.db.BeginTx(ctx, nil)
		require.NoError(h, err)
		all.Go(func() { // has the connection
			_, _ = tx.ExecContext(ctx, "SELECT 1")
			lock.Lock()
			defer lock.Unlock()
			_ = tx.Rollback()
		})
		all.Go(func() { // has the lock
			defer lock.Unlock()
			ctx, cancel := h.request(2)
			defer cancel()
			_ = h.db.PingContext(ctx)
		})
		s := h.standsStill()
		assert.False(h, s.Deadlock, "the lock is none of the pool's")
		require.Len(h, s.Held, 1)
		assert.Contains(h, h.now(), "waits for a lock at integration/holding_test.go:")
		all.Wait()
		select { // what the holder has to do with who waits is not known
		case l := <-h.leaks:
			assert.Equal(h, sqllease.ClassUnused, l.Class)
		case <-time.After(time.Second):
			assert.Fail(h, "it is told as a leak")
		}
	})
}

func TestATransactionThatIsHandedToAWorker(t *testing.T) {
	everyHeld(t, 1, func(h *held) {
		ctx, cancel := h.request(1)
		defer cancel()
		tx, err := h.db.BeginTx(ctx, nil)
		require.NoError(h, err)
		go func() {
			<-time.After(500 * time.Millisecond)
			_, err := tx.ExecContext(ctx, "SELECT 1")
			assert.NoError(h, err)
			<-time.After(500 * time.Millisecond)
			assert.NoError(h, tx.Commit())
		}()
		require.NoError(h, h.db.PingContext(ctx))
		select {
		case n := <-h.nested: // it comes as the transaction ends, and the wait with it
			assert.Equal(h, sqllease.SameGoroutine, n.Relation)
		case <-time.After(5 * time.Second):
			assert.Fail(h, "it waited for another while it had one")
		}
		assert.Empty(h, h.stands)
		assert.Empty(h, h.leaks)
	})
}

func TestAnHTTPCallInATransaction(t *testing.T) {
	everyHeld(t, 1, func(h *held) {
		release := make(chan struct{})
		slow := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { <-release }))
		defer slow.Close()
		tx, err := h.db.BeginTx(h.Context(), nil)
		require.NoError(h, err)
		var all sync.WaitGroup
		all.Go(func() {
			_, err := tx.ExecContext(h.Context(), "SELECT 1")
			assert.NoError(h, err)
			r, err := http.Get(slow.URL) //nolint:noctx // as applications do
			if assert.NoError(h, err) {
				_, _ = io.Copy(io.Discard, r.Body)
				assert.NoError(h, r.Body.Close())
			}
			assert.NoError(h, tx.Rollback())
		})
		l := <-h.leaks
		assert.Contains(h, l.Fix(), "move slow work, such as an HTTP call, out of the transaction")
		assert.Contains(h, h.now(), "waits for the answer to an HTTP request at integration/holding_test.go:")
		close(release)
		all.Wait()
		http.DefaultClient.CloseIdleConnections()
		assert.True(h, (<-h.leaks).Returned)
	})
}

func TestAGoroutineThatEndedWithItsTransaction(t *testing.T) {
	everyHeld(t, 1, func(h *held) {
		var tx *sql.Tx
		ended := make(chan error)
		go func() {
			var err error
			tx, err = h.db.BeginTx(h.Context(), nil)
			ended <- err
		}()
		require.NoError(h, <-ended)
		l := <-h.leaks
		assert.Regexp(h, `^goroutine \d+ has ended\n$`, h.now())
		assert.True(h, strings.Contains(l.Fix(), "end the *sql.Tx on every path"))
		require.NoError(h, tx.Rollback())
		assert.True(h, (<-h.leaks).Returned)
	})
}
