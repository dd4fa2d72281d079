package sqllease

import (
	"context"
	"database/sql"
	"database/sql/driver"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/go-sql-driver/mysql"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"go.opentelemetry.io/otel/attribute"
	sdktrace "go.opentelemetry.io/otel/sdk/trace"
	"go.opentelemetry.io/otel/sdk/trace/tracetest"
)

// When the server is asked who blocks a slow call, and what keeps it from being asked. The
// answers of real servers are tested in integration/.

const slowAfter = 10 * time.Second

// blockersPool is a pool that finds blockers, and what it reported.
type blockersPool struct {
	*sql.DB
	c   *Connector
	f   *blockersFake
	log *keptLog

	mu      sync.Mutex
	reports []SlowCall  // guarded by mu
	at      []time.Time // guarded by mu
}

func newBlockersPool(t *testing.T, f *blockersFake, cfg Config) *blockersPool {
	t.Helper()
	p := &blockersPool{f: f, log: &keptLog{}}
	cfg.Name, cfg.FindBlockers, cfg.Dialect, cfg.Discovery = "orders", true, DialectMariaDB, NoDiscovery
	cfg.SlowCallThreshold = slowAfter
	cfg.Logger = slog.New(p.log)
	cfg.OnSlowCall = func(s SlowCall) {
		p.mu.Lock()
		defer p.mu.Unlock()
		p.reports, p.at = append(p.reports, s), append(p.at, time.Now())
	}
	var err error
	p.DB, err = OpenDB(f, cfg)
	require.NoError(t, err)
	p.c, _ = ConnectorOf(p.DB)
	return p
}

// slow begins a call that waits, until its context ends.
func (p *blockersPool) slow(ctx context.Context, all *sync.WaitGroup) {
	all.Go(func() { _, _ = p.ExecContext(ctx, "wait") })
	synctest.Wait()
}

// said are the reports of slow calls so far.
func (p *blockersPool) said() []SlowCall {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.reports
}

// end ends the calls and the pool, and checks that nothing is left.
func (p *blockersPool) end(t *testing.T, cancel context.CancelFunc, all *sync.WaitGroup) {
	t.Helper()
	cancel()
	all.Wait()
	require.NoError(t, p.Close())
	elapse(time.Minute)
	assert.Zero(t, p.f.opened(), "connections are left")
}

// locked says that each of these waits for the next.
func locked(chain ...uint64) func() [][]driver.Value {
	return func() (rows [][]driver.Value) {
		for i := range len(chain) - 1 {
			rows = append(rows, []driver.Value{int64(chain[i]), int64(chain[i+1]), "RECORD", "`shop`.`stock`"})
		}
		return rows
	}
}

func TestASlowCallIsReportedWithTheOwnTransactionThatBlocksIt(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newBlockersPool(t, &blockersFake{waits: locked(2, 1)}, Config{LeakThreshold: time.Hour})
		ctx, cancel := context.WithCancel(t.Context())
		var all sync.WaitGroup
		tx, err := p.BeginTx(t.Context(), nil)
		require.NoError(t, err)
		p.slow(ctx, &all)
		elapse(slowAfter)
		synctest.Wait()
		require.Len(t, p.said(), 1)
		s := p.said()[0]
		require.Len(t, s.Blockers, 1)
		b := s.Blockers[0]
		assert.Equal(t, []uint64{2, 1, 1, 2}, []uint64{s.ConnectionID, b.ConnectionID, b.Lease.ConnectionID, b.Blocks})
		assert.Equal(t, []any{"orders", "row lock on shop.stock", uint64(1), true, false}, []any{b.Pool, b.Lock, b.Lease.ID, b.Lease.InTx, b.Waits})
		assert.Equal(t, fmt.Sprintf(`row lock on shop.stock: connection 1 of pool "orders" (lease 1), taken by %s, idle in transaction for 10s`, b.Lease.Stack.site()), b.String())
		assert.Contains(t, s.String(), "\n  blocked by "+b.String()+"\n  fix        it waits for the code at ")
		assert.Contains(t, s.Fix(), "defer tx.Rollback()")
		records := p.log.take()
		require.Len(t, records, 1)
		assert.Equal(t, []string{b.String()}, records[0].attrs["slow_call.blocked_by"])
		assert.Equal(t, []any{uint64(2), uint64(1), uint64(1)}, []any{
			records[0].attrs["slow_call.connection_id"], records[0].attrs["slow_call.blocker_connection_id"], records[0].attrs["slow_call.blocker_lease"],
		})
		assert.Equal(t, 2, p.f.opened(), "the connection that was asked is closed")
		require.NoError(t, tx.Rollback())
		p.end(t, cancel, &all)
	})
}

// spansOfABlockedCall are those of the reports of one that another process blocks, and that
// has ended.
func spansOfABlockedCall(t *testing.T) []sdktrace.ReadOnlySpan {
	spans := tracetest.NewSpanRecorder()
	p := newBlockersPool(t, &blockersFake{waits: locked(1, 77)}, Config{TracerProvider: sdktrace.NewTracerProvider(sdktrace.WithSpanProcessor(spans))})
	ctx, cancel := context.WithCancel(t.Context())
	var all sync.WaitGroup
	p.slow(ctx, &all)
	elapse(slowAfter)
	synctest.Wait()
	p.end(t, cancel, &all)
	return slices.DeleteFunc(spans.Ended(), func(s sdktrace.ReadOnlySpan) bool { return !strings.HasPrefix(s.Name(), "sqllease.") })
}

func TestTheSpanOfASlowCallHasItsBlockers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		spans := spansOfABlockedCall(t)
		require.Len(t, spans, 2)
		for _, s := range spans {
			attrs := attribute.NewSet(s.Attributes()...)
			number, _ := attrs.Value(keyConnID)
			by, _ := attrs.Value(keyBlockedBy)
			switch s.Name() {
			case spanSlowCall:
				assert.Equal(t, int64(1), number.AsInt64())
				assert.Equal(t, []string{"row lock on shop.stock: connection 77, not of this pool: user app at 10.0.0.7:4711, active for 7.5s: UPDATE t SET a = ?"}, by.AsStringSlice())
			case spanReturn:
				assert.Equal(t, int64(1), number.AsInt64())
			}
		}
	})
}

func TestNothingIsAskedWhileNoCallIsSlow(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var leak Leak
		p := newBlockersPool(t, &blockersFake{}, Config{LeakThreshold: time.Second, OnLeak: func(l Leak) { leak = l }})
		conn, err := p.Conn(t.Context())
		require.NoError(t, err)
		elapse(2 * time.Second)
		synctest.Wait()
		assert.Equal(t, uint64(1), leak.ConnectionID)
		assert.Contains(t, leak.String(), "\n  server     connection 1\n")
		assert.Equal(t, uint64(1), p.log.take()[0].attrs["leak.connection_id"])
		for range 100 {
			_, err := p.ExecContext(t.Context(), "quick")
			require.NoError(t, err)
			elapse(time.Second)
		}
		assert.Empty(t, p.f.questions())
		assert.Equal(t, 2, p.f.dialed())
		require.NoError(t, conn.Close())
		p.end(t, func() {}, &sync.WaitGroup{})
	})
}

func TestTheServerIsAskedOneQuestionAtATimeAndThenRests(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := &blockersFake{question: func(ctx context.Context, query string) error {
			if strings.Contains(query, "VERSION()") {
				elapse(time.Second) // the answer is slow
			}
			return ctx.Err()
		}}
		p := newBlockersPool(t, f, Config{})
		ctx, cancel := context.WithCancel(t.Context())
		var all sync.WaitGroup
		const calls = 40
		for range calls {
			p.slow(ctx, &all)
			elapse(100 * time.Millisecond)
		}
		elapse(slowAfter + findFor + findEvery + findFor)
		synctest.Wait()
		assert.Len(t, p.said(), calls, "each is reported")
		asked := f.questions()
		assert.LessOrEqual(t, len(asked), 4, "many calls share a question")
		for i := range len(asked) - 1 {
			assert.GreaterOrEqual(t, asked[i+1].Sub(asked[i]), findEvery+time.Second)
		}
		assert.Equal(t, 1, f.together)
		for i, at := range p.at {
			late := at.Sub(p.reports[i].Begun) - slowAfter
			assert.LessOrEqual(t, late, findFor+findEvery+findFor)
		}
		p.end(t, cancel, &all)
	})
}

// More calls at once than one question is asked about are reported too.
func TestMoreSlowCallsThanAQuestionHasRoomFor(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newBlockersPool(t, &blockersFake{}, Config{})
		ctx, cancel := context.WithCancel(t.Context())
		var all sync.WaitGroup
		for range 3 * mostFound {
			p.slow(ctx, &all)
		}
		elapse(slowAfter + findFor + findEvery + findFor)
		synctest.Wait()
		assert.Len(t, p.said(), 3*mostFound)
		p.end(t, cancel, &all)
	})
}

func TestNothingIsAskedWhileDialsFail(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		for name, err := range map[string]error{"down": errors.New("down"), "full": &mysql.MySQLError{Number: 1040}} {
			f := &blockersFake{dial: func(_ context.Context, number int) error {
				if number > 1 {
					return err
				}
				return nil
			}}
			p := newBlockersPool(t, f, Config{})
			ctx, cancel := context.WithCancel(t.Context())
			var all sync.WaitGroup
			p.slow(ctx, &all)
			elapse(slowAfter - time.Second)
			_, refused := p.ExecContext(contextOf(t, time.Second/2), "quick")
			require.Error(t, refused)
			dialed := f.dialed()
			elapse(time.Minute)
			require.Len(t, p.said(), 1, name)
			assert.Empty(t, f.questions(), name)
			assert.Equal(t, dialed, f.dialed(), name)
			assert.NotContains(t, p.said()[0].String(), "blocked by", "it is not known")
			assert.Contains(t, p.said()[0].Fix(), "look at the statement's plan and locks")
			p.end(t, cancel, &all)
		}
	})
}

func contextOf(t *testing.T, d time.Duration) context.Context {
	ctx, cancel := context.WithTimeout(t.Context(), d)
	t.Cleanup(cancel)
	return ctx
}

// Whatever a driver does in the question, the call is reported, in time, and nothing is left.
func TestADriverThatFailsInTheQuestion(t *testing.T) {
	asks := func(query string) bool { return strings.Contains(query, "VERSION()") }
	for name, c := range map[string]struct {
		does func(ctx context.Context) error
		late time.Duration
		says string
	}{
		"an error":                     {func(context.Context) error { return &mysql.MySQLError{Number: 1205} }, 0, "MySQL error 1205"},
		"a panic":                      {func(context.Context) error { panic("the driver's bug") }, 0, "the driver panicked"},
		"it hangs until it is stopped": {func(ctx context.Context) error { <-ctx.Done(); return ctx.Err() }, findFor, "deadline exceeded"},
		"it hangs":                     {func(context.Context) error { elapse(20 * time.Second); return errors.New("late") }, findFor, "deadline exceeded"},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				f := &blockersFake{question: func(ctx context.Context, query string) error {
					if asks(query) {
						return c.does(ctx)
					}
					return nil
				}}
				p := newBlockersPool(t, f, Config{})
				ctx, cancel := context.WithCancel(t.Context())
				var all sync.WaitGroup
				p.slow(ctx, &all)
				elapse(slowAfter + c.late)
				synctest.Wait()
				require.Len(t, p.said(), 1)
				assert.NotContains(t, p.said()[0].String(), "blocked by")
				var warned []string
				for _, r := range p.log.take() {
					if strings.Contains(r.message, "could not be asked who blocks") {
						warned = append(warned, fmt.Sprint(r.attrs["error"]))
					}
				}
				require.Len(t, warned, 1)
				assert.Contains(t, warned[0], c.says)

				elapse(time.Second)
				asked := len(f.questions())
				p.slow(ctx, &all)
				elapse(slowAfter + c.late)
				synctest.Wait()
				assert.Len(t, p.said(), 2, "the next is reported as well")
				assert.LessOrEqual(t, len(f.questions()), asked+1)
				assert.LessOrEqual(t, f.together, 1)
				elapse(time.Minute)
				assert.Equal(t, 2, f.opened())
				for _, r := range p.log.take() {
					assert.NotContains(t, r.message, "could not be asked", "it is said once")
				}
				p.end(t, cancel, &all)
			})
		})
	}
}

func TestCloseEndsAQuestion(t *testing.T) {
	for name, heeds := range map[string]bool{"the driver heeds its context": true, "it does not": false} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				f := &blockersFake{dial: func(ctx context.Context, number int) error {
					if number == 1 {
						return nil
					}
					if <-ctx.Done(); !heeds {
						elapse(8 * time.Second)
						return nil // a connection that nobody wants any more
					}
					return ctx.Err()
				}}
				p := newBlockersPool(t, f, Config{})
				ctx, cancel := context.WithCancel(t.Context())
				var all sync.WaitGroup
				p.slow(ctx, &all)
				elapse(slowAfter + findFor/2)
				start := time.Now()
				require.NoError(t, p.Close())
				if assert.LessOrEqual(t, time.Since(start), keeperGrace); heeds {
					assert.Zero(t, time.Since(start))
				}
				synctest.Wait()
				assert.Len(t, p.said(), 1, "it is reported all the same")
				assert.Empty(t, p.log.warnings()[1:], "only the slow call is told")
				p.end(t, cancel, &all)
			})
		})
	}
}

// A call that waits for the pause between two questions when the pool is closed is reported.
func TestCloseEndsThePause(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newBlockersPool(t, &blockersFake{}, Config{})
		ctx, cancel := context.WithCancel(t.Context())
		var all sync.WaitGroup
		p.slow(ctx, &all)
		elapse(findEvery / 2)
		p.slow(ctx, &all)
		elapse(slowAfter)
		synctest.Wait()
		require.Len(t, p.said(), 1)
		require.NoError(t, p.Close())
		synctest.Wait()
		assert.Len(t, p.said(), 2)
		p.end(t, cancel, &all)
	})
}

// One who reads the log reads the slow call before its end.
func TestTheReturnIsReportedAfterItsSlowCall(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := &blockersFake{question: func(_ context.Context, query string) error {
			if strings.Contains(query, "VERSION()") {
				elapse(time.Second)
			}
			return nil
		}}
		p := newBlockersPool(t, f, Config{})
		ctx, cancel := context.WithCancel(t.Context())
		var all sync.WaitGroup
		p.slow(ctx, &all)
		elapse(slowAfter + 100*time.Millisecond)
		cancel()
		all.Wait()
		synctest.Wait()
		assert.Empty(t, p.said())
		elapse(time.Second)
		synctest.Wait()
		require.Len(t, p.said(), 2)
		assert.Equal(t, []bool{false, true}, []bool{p.said()[0].Returned, p.said()[1].Returned})
		assert.Empty(t, p.said()[0].Blockers, "it is over")
		p.end(t, cancel, &all)
	})
}
