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

// Where a pooler makes numbers up, they may be those of other connections on the server.
func TestNumbersThatAreNotTheServersNameNobody(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := &blockersFake{waits: locked(102, 1, 2), number: func(of uint64) uint64 { return of + 100 }}
		p := newBlockersPool(t, f, Config{})
		ctx, cancel := context.WithCancel(t.Context())
		var all sync.WaitGroup
		p.slow(ctx, &all)
		elapse(slowAfter)
		synctest.Wait()
		require.Len(t, p.said(), 1)
		assert.Empty(t, p.said()[0].Blockers)
		assert.Contains(t, fmt.Sprint(p.log.take()), "a pooler or a proxy is between")
		p.end(t, cancel, &all)
	})
}

// A number that means another connection on the server that was asked, since the call is on
// another, names nobody.
func TestACallThatTheServerDoesNotSeeIsNotSaidToBeBlocked(t *testing.T) {
	for name, process := range map[string][]driver.Value{
		"of another user": {int64(1), "other", "h", nil, "Query", "1", "Updating", "UPDATE t", "RUNNING"},
		"that sleeps":     {int64(1), "app", "h", nil, "Sleep", "1", "", nil, nil},
		"none":            {int64(3), "app", "h", nil, "Query", "1", "", nil, nil},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				f := &blockersFake{waits: locked(1, 9), process: func(uint64) []driver.Value { return process }}
				p := newBlockersPool(t, f, Config{})
				ctx, cancel := context.WithCancel(t.Context())
				var all sync.WaitGroup
				p.slow(ctx, &all)
				elapse(slowAfter)
				synctest.Wait()
				require.Len(t, p.said(), 1)
				assert.NotContains(t, p.said()[0].String(), "blocked by")
				p.end(t, cancel, &all)
			})
		})
	}
}

// What other processes execute has no literals in a report.
func TestWhatABlockerOfAnotherProcessExecutesIsSanitised(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newBlockersPool(t, &blockersFake{waits: locked(1, 77)}, Config{})
		ctx, cancel := context.WithCancel(t.Context())
		var all sync.WaitGroup
		p.slow(ctx, &all)
		elapse(slowAfter)
		synctest.Wait()
		require.Len(t, p.said(), 1)
		s := p.said()[0]
		assert.Contains(t, s.String(), "blocked by row lock on shop.stock: connection 77, not of this pool: user app at 10.0.0.7:4711, active for 7.5s: UPDATE t SET a = ?\n")
		assert.NotContains(t, fmt.Sprint(s, s.LogValue(), p.log.take()), "secret")
		assert.Equal(t, "connection 77 is not of this pool: have its owner end the transaction, or end the connection on the server: KILL 77", s.Fix())
		p.end(t, cancel, &all)
	})
}

func TestAMissingPrivilegeIsToldOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := &blockersFake{answers: map[string]func() ([][]driver.Value, error){
			"INNODB_LOCK_WAITS": func() ([][]driver.Value, error) { return nil, &mysql.MySQLError{Number: 1227} },
		}}
		p := newBlockersPool(t, f, Config{})
		ctx, cancel := context.WithCancel(t.Context())
		var all sync.WaitGroup
		told := 0
		for i := range 3 {
			p.slow(ctx, &all)
			elapse(2 * slowAfter)
			synctest.Wait()
			require.Len(t, p.said(), i+1)
			assert.NotContains(t, p.said()[i].String(), "blocked by", "what the server does not show is not said to be nothing")
			for _, r := range p.log.take() {
				if r.attrs["remedy"] != nil {
					told++
					assert.Contains(t, r.attrs["remedy"], "GRANT PROCESS ON *.* TO 'app'@'%'")
				}
			}
		}
		assert.Equal(t, 1, told)
		p.end(t, cancel, &all)
	})
}

// The number is asked for right after the dial, where the driver does not know it.
func TestAConnectionThatDiesWhenItsNumberIsAskedForIsNoConnection(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		gone := driver.ErrBadConn
		for name, c := range map[string]struct {
			does  error
			lost  bool
			panic bool
		}{"it is cut": {does: gone, lost: true}, "the server refuses": {does: &mysql.MySQLError{Number: 1064}}, "a panic": {panic: true, lost: true}} {
			f := &blockersFake{}
			f.question = func(context.Context, string) error {
				if f.dialed() > 1 {
					return nil
				}
				if c.panic {
					panic("the driver's bug")
				}
				return c.does
			}
			p := newBlockersPool(t, f, Config{MaxOpen: 1})
			func() {
				defer func() { assert.Equal(t, c.panic, recover() != nil, name) }()
				_, _ = p.ExecContext(t.Context(), "quick")
			}()
			synctest.Wait()
			if c.lost {
				assert.LessOrEqual(t, f.opened(), f.dialed()-1, name)
			} else {
				assert.Equal(t, []int{1, 1}, []int{f.opened(), f.dialed()}, name)
			}
			_, err := p.ExecContext(t.Context(), "quick")
			require.NoError(t, err, name)
			p.end(t, func() {}, &sync.WaitGroup{})
		}
	})
}

// A wait for a row is to be seen before MySQL ends it.
func TestACallIsSlowSoonerWhereBlockersAreFound(t *testing.T) {
	for want, cfg := range map[time.Duration]Config{
		DefaultLeakThreshold:      {FindBlockers: true},
		10 * DefaultLeakThreshold: {},
		time.Minute:               {FindBlockers: true, LeakThreshold: time.Minute},
		time.Hour:                 {FindBlockers: true, SlowCallThreshold: time.Hour},
	} {
		set, err := newSettings(cfg)
		require.NoError(t, err)
		assert.Equal(t, want, set.SlowCallThreshold)
	}
}

func TestBlockersThatCannotBeFoundAreAConfigError(t *testing.T) {
	for name, cfg := range map[string]Config{
		"leaks off":         {Dialect: DialectMySQL, LeakThreshold: -1},
		"slow calls off":    {Dialect: DialectMySQL, SlowCallThreshold: -1},
		"an unknown server": {},
		"another server":    {Dialect: DialectTiDB},
	} {
		cfg.FindBlockers = true
		_, err := Wrap(&blockersFake{}, cfg)
		var wrong *ConfigError
		require.ErrorAs(t, err, &wrong, name)
		assert.Equal(t, "FindBlockers", wrong.Field, name)
	}
}

// A pool that nobody closes stays in memory for no other's sake.
func TestPoolsThatAreClosedAreForgotten(t *testing.T) {
	before := len(finders.all)
	c, err := Wrap(&blockersFake{}, Config{FindBlockers: true, Dialect: DialectMySQL, ServerAddress: "db"})
	require.NoError(t, err)
	other, err := Wrap(&blockersFake{}, Config{FindBlockers: true, Dialect: DialectMySQL, ServerAddress: "db"})
	require.NoError(t, err)
	elsewhere, err := Wrap(&blockersFake{}, Config{FindBlockers: true, Dialect: DialectMySQL, ServerAddress: "db2"})
	require.NoError(t, err)
	assert.Equal(t, []*Connector{other}, finders.on(c))
	for _, c := range []*Connector{c, other, elsewhere} {
		require.NoError(t, c.Close())
	}
	assert.LessOrEqual(t, len(finders.all), before)
}

func TestHowBlockersAreTold(t *testing.T) {
	const unknown = "a goroutine of database/sql or started with one of its methods"
	lease := &Lease{ID: 7, ConnectionID: 5, Acquired: time.Now(), Hold: 40 * time.Second, Busy: true, Call: CallExec, Since: time.Now().Add(39 * time.Second), Statement: "UPDATE t"}
	for want, b := range map[string]Blocker{
		`row lock: connection 5 of pool "p" (lease 7), taken by ` + unknown + `, in exec for 1s: UPDATE t; it waits for a lock itself`: {ConnectionID: 5, Lock: "row lock", Pool: "p", Lease: lease, Waits: true},
		`advisory lock: connection 5, idle in pool "p": it was given back with the lock (lease 7), taken by ` + unknown:                {ConnectionID: 5, Lock: "advisory lock", Pool: "p", Lease: lease, LeftOver: true},
		"table lock: connection 9, not of this pool: a user that may not be seen":                                                      {ConnectionID: 9, Lock: "table lock"},
		"row lock: a prepared transaction, which no connection has":                                                                    {Lock: "row lock", Blocks: 3, State: "prepared"},
		"metadata lock: a connection that the server does not show":                                                                    {Lock: "metadata lock", Blocks: 3},
		"row lock: connection 9, not of this pool: user u at h (psql), idle in transaction for 3m0s; last statement: SELECT ?":         {ConnectionID: 9, Lock: "row lock", User: "u", Host: "h", Program: "psql", State: "idle in transaction", For: 3 * time.Minute, Statement: "SELECT ?"},
	} {
		assert.Equal(t, want, b.String())
	}
	for want, b := range map[string]blame{
		"":                                      {},
		"it waits for no lock":                  {free: true},
		"make that shorter":                     {blockers: []Blocker{{ConnectionID: 5, Lease: lease, Waits: false}}},
		"release it there before":               {blockers: []Blocker{{ConnectionID: 5, Lease: lease, LeftOver: true}}},
		"XA RECOVER":                            {blockers: []Blocker{{Blocks: 3, State: "prepared"}}},
		"whose holder the server does not show": {blockers: []Blocker{{Blocks: 3, Lock: "metadata lock"}}},
		"KILL 9":                                {blockers: []Blocker{{ConnectionID: 5, Lease: lease, Waits: true}, {ConnectionID: 9}}, end: "KILL 9"},
	} {
		assert.Contains(t, b.fix(), want)
	}
}
