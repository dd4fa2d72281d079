//go:build gc && (amd64 || arm64) && !sqllease_no_assembly

// Elsewhere goroutines are not told apart.

package sqllease

import (
	"context"
	"database/sql"
	"log/slog"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"go.opentelemetry.io/otel/trace"

	"github.com/sqllease/sqllease/internal/goroutines"
)

// stillPool is a pool with everything as it is by default, and what it told.
type stillPool struct {
	*leakPool
	log  *keptLog
	mu   sync.Mutex
	told struct { // guarded by mu
		stands []Standstill
		nested []NestedAcquire
		leaks  []Leak
	}
}

// stands are the standstills that were told, and nested and leaks what they say.
func (p *stillPool) stands() []Standstill    { p.mu.Lock(); defer p.mu.Unlock(); return p.told.stands }
func (p *stillPool) nested() []NestedAcquire { p.mu.Lock(); defer p.mu.Unlock(); return p.told.nested }
func (p *stillPool) leaks() []Leak           { p.mu.Lock(); defer p.mu.Unlock(); return p.told.leaks }

func newStillPool(t *testing.T, cfg Config) *stillPool {
	p := &stillPool{log: &keptLog{}}
	cfg.Logger = slog.New(p.log)
	cfg.OnStandstill = func(s Standstill) { p.mu.Lock(); defer p.mu.Unlock(); p.told.stands = append(p.told.stands, s) }
	cfg.OnNestedAcquire = func(n NestedAcquire) { p.mu.Lock(); defer p.mu.Unlock(); p.told.nested = append(p.told.nested, n) }
	cfg.OnLeak = func(l Leak) { p.mu.Lock(); defer p.mu.Unlock(); p.told.leaks = append(p.told.leaks, l) }
	p.leakPool = newLeakPool(t, readingFake(100), cfg)
	return p
}

// messages are those of the log since they were last taken.
func (p *stillPool) messages() (all []string) {
	for _, r := range p.log.take() {
		all = append(all, r.message)
	}
	return all
}

const (
	saidStill = "sqllease: the pool stands still: callers wait, and nothing was done with any connection for longer than Config.StandstillThreshold"

	saidOver = "sqllease: the pool does not stand still any more"
)

// inTrace is the context of a request.
func inTrace(ctx context.Context, n byte) context.Context {
	return trace.ContextWithSpanContext(ctx, trace.NewSpanContext(trace.SpanContextConfig{TraceID: trace.TraceID{n}, SpanID: trace.SpanID{n}}))
}

// readsAndAsks reads rows, and has other goroutines of its own query for what they found.
func readsAndAsks(ctx context.Context, db *sql.DB) {
	rows, err := db.QueryContext(ctx, "SELECT a FROM t")
	if err != nil {
		return
	}
	defer func() { _ = rows.Close() }()
	<-time.After(time.Millisecond) // all others get as far
	var all sync.WaitGroup
	for range 2 {
		if !rows.Next() {
			break
		}
		all.Go(func() { _ = db.PingContext(ctx) })
	}
	all.Wait()
}

// A request that reads rows on one goroutine and queries on others stands still where as many
// do as there are connections. Its own defer of rows.Close is in place, and no fix for it.
func TestRowsAndInnerQueriesOnOtherGoroutinesAreToldOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const limit = 4
		p := newStillPool(t, Config{MaxOpen: limit, FailDeadlockAfter: time.Second})
		var all sync.WaitGroup
		for i := range limit {
			ctx, cancel := context.WithTimeout(inTrace(t.Context(), byte(i+1)), 5*time.Minute)
			defer cancel()
			all.Go(func() { readsAndAsks(ctx, p.DB) })
		}
		leakPause(4 * time.Minute)
		require.Equal(t, []string{saidStill}, p.messages(), "and nothing else: no leak, no slow acquire, no nested acquire")
		require.Len(t, p.stands(), 1)
		s := p.stands()[0]
		require.Len(t, s.Held, 1)
		assert.Equal(t, []any{limit, SameTrace, false}, []any{s.Held[0].Connections, s.Held[0].Relation, s.Deadlock})
		assert.Equal(t, []int{limit, limit, 2 * limit}, []int{s.Limit, s.InUse, s.Waiting})
		assert.Regexp(t, `^sqllease: pool "orders": it stands still for \d[.0-9]*s: 8 callers wait, and nothing was done with any of the 4 connections
  taken by   [^/ ]+/still_test.go:\d+ sqllease.readsAndAsks: 4 connections, unused for \d[.0-9]*s, with rows open; the same trace waits at [^/ ]+/still_test.go:\d+ sqllease.readsAndAsks.func\d+
  waiting    [^/ ]+/still_test.go:\d+ sqllease.readsAndAsks.func\d+: 8 callers, the longest for \d[.0-9]*s
  fix        close the open rows first: call rows.Close\(\) before the inner statement \(a defer is too late\), or read them to their end; or raise the limit from 4 to at least 5: that is enough for 4 such requests at once, with 2 connections each
  end        it lasts until one of those who hold a connection gives it back
$`, s.String())
		all.Wait()
		leakPause(time.Second)
		assert.Equal(t, []string{saidOver}, p.messages())
		require.Len(t, p.stands(), 2)
		assert.True(t, p.stands()[1].Over)
		assert.InDelta(t, 300, p.stands()[1].For.Seconds(), 2)
		assert.Equal(t, []uint64{1, 0, 0}, []uint64{p.c.Stats().Standstills, p.c.Stats().Deadlocks, p.c.Stats().Leaks})
	})
}

// A goroutine waits for another connection, and has handed its transaction to one that works.
func TestATransactionThatWasHandedToAWorkerFailsNobody(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newStillPool(t, Config{MaxOpen: 1, FailDeadlockAfter: 5 * time.Second})
		tx, err := p.BeginTx(t.Context(), nil)
		require.NoError(t, err)
		work := make(chan *sql.Tx)
		go func() {
			tx := <-work
			<-time.After(4 * time.Second)
			assert.NoError(t, tx.Commit())
		}()
		work <- tx
		require.NoError(t, p.PingContext(t.Context()))
		leakPause(time.Second)
		assert.Zero(t, p.c.Stats().Deadlocks)
		assert.Empty(t, p.stands())
	})
}

// Where nothing says that the holders have to do with who waits, they are told as leaks too.
func TestAPoolThatLeaksDryStandsStillAndLeaks(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newStillPool(t, Config{MaxOpen: 2})
		held := []*sql.Conn{takeElsewhere(t, p.DB), takeElsewhere(t, p.DB)}
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		go func() { _ = p.PingContext(ctx) }()
		leakPause(6 * time.Second)
		require.Equal(t, []string{saidStill}, p.messages())
		s := p.stands()[0]
		assert.Equal(t, []any{2, RelationOfNone}, []any{s.Held[0].Connections, s.Held[0].Relation})
		assert.Contains(t, s.Fix(), "close the *sql.Conn on every path")
		leakPause(40 * time.Second)
		assert.Len(t, p.leaks(), 2)
		giveBack(t, held...)
		leakPause(2 * time.Second)
		assert.Contains(t, p.messages(), saidOver)
	})
}

// Callers who give up before the threshold come again and again.
func TestCallersWithLittleTimeSeeAPoolThatStandsStillTogether(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newStillPool(t, Config{MaxOpen: 1})
		held := takeElsewhere(t, p.DB)
		for i := range 10 {
			time.AfterFunc(time.Duration(i)*time.Second, func() {
				ctx, cancel := context.WithTimeout(context.Background(), 2*time.Second)
				defer cancel()
				_ = p.PingContext(ctx)
			})
		}
		leakPause(9 * time.Second)
		assert.Equal(t, []string{saidStill}, p.messages())
		giveBack(t, held)
		leakPause(5 * time.Second)
		assert.Equal(t, []string{saidOver}, p.messages())
	})
}

// Without traces, it is known who started whom.
func TestAStandstillOfGoroutinesThatWereStartedIsRelated(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newStillPool(t, Config{MaxOpen: 2})
		p.c.reports.looks = &goroutines.Looks{}
		var all sync.WaitGroup
		for range 2 {
			ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
			defer cancel()
			all.Go(func() { readsAndAsks(ctx, p.DB) })
		}
		leakPause(10 * time.Second)
		require.Len(t, p.stands(), 1)
		h := p.stands()[0].Held[0]
		assert.Equal(t, []any{2, StartedByIt}, []any{h.Connections, h.Relation})
		assert.Regexp(t, `with rows open; goroutine \d+ waits for other goroutines at [^/ ]+/still_test.go:\d+ sqllease.readsAndAsks; a goroutine that it started waits at [^/ ]+/still_test.go:\d+ sqllease.readsAndAsks.func\d+$`, h.String())
		all.Wait()
		leakPause(time.Second)
		assert.Equal(t, []string{saidStill, saidOver}, p.messages(), "it is no leak")
	})
}

// A connection that is used now and then is no standstill, nor is a call that lasts.
func TestAPoolInUseDoesNotStandStill(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newStillPool(t, Config{MaxOpen: 1})
		held := takeElsewhere(t, p.DB)
		ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
		defer cancel()
		go func() { _ = p.PingContext(ctx) }()
		for range 7 {
			leakPause(3 * time.Second)
			require.NoError(t, held.PingContext(t.Context()))
		}
		assert.Empty(t, p.stands())
		giveBack(t, held)
	})
}

func TestANestedAcquireTellsHowLongItWaited(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newStillPool(t, Config{MaxOpen: 2})
		other := takeElsewhere(t, p.DB)
		time.AfterFunc(3*time.Second, func() { assert.NoError(t, other.Close()) })
		tx, err := p.BeginTx(t.Context(), nil)
		require.NoError(t, err)
		require.NoError(t, p.PingContext(t.Context()))
		leakPause(time.Second)
		require.NoError(t, tx.Commit())
		synctest.Wait()
		require.Len(t, p.nested(), 1)
		n := p.nested()[0]
		assert.Equal(t, []any{3 * time.Second, 4 * time.Second, SameGoroutine}, []any{n.Waited, n.Holder.Hold, n.Relation})
		assert.Contains(t, n.String(), "known by   the same goroutine")
		assert.Equal(t, 2, n.Requests)
	})
}

func TestLeakedConnectionsAreNoRequests(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newStillPool(t, Config{MaxOpen: 4})
		leaked := []*sql.Conn{takeElsewhere(t, p.DB), takeElsewhere(t, p.DB)}
		leakPause(time.Minute)
		other := takeElsewhere(t, p.DB)
		time.AfterFunc(time.Second, func() { assert.NoError(t, other.Close()) })
		tx, err := p.BeginTx(t.Context(), nil)
		require.NoError(t, err)
		require.NoError(t, p.PingContext(t.Context()))
		require.NoError(t, tx.Commit())
		synctest.Wait()
		require.Len(t, p.nested(), 1)
		assert.Equal(t, 2, p.nested()[0].Requests, "this one, and the other that holds a connection; two leaked theirs")
		giveBack(t, leaked...)
	})
}

// A lease that stood still with its request was no leak meanwhile, and is none at once afterwards.
func TestWhatStoodStillIsNoLeakBeforeItIsUnusedAnew(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newStillPool(t, Config{MaxOpen: 1})
		ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
		defer cancel()
		tx, err := p.BeginTx(t.Context(), nil)
		require.NoError(t, err)
		require.ErrorIs(t, p.PingContext(ctx), context.DeadlineExceeded)
		leakPause(DefaultLeakThreshold - 2*time.Second)
		assert.Empty(t, p.leaks())
		leakPause(5 * time.Second)
		assert.Len(t, p.leaks(), 1)
		require.NoError(t, tx.Commit())
	})
}

// Functions of the application's that never return keep no report of another kind.
func TestAFunctionThatDoesNotReturnLosesNoReport(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		log, never := &keptLog{}, make(chan struct{})
		p := newLeakPool(t, &leakFake{}, Config{MaxOpen: 2, StandstillThreshold: time.Second, LeakThreshold: 2 * time.Second, Logger: slog.New(log),
			OnStandstill: func(Standstill) { <-never }, OnNestedAcquire: func(NestedAcquire) { <-never }})
		other := takeElsewhere(t, p.DB)
		time.AfterFunc(500*time.Millisecond, func() { assert.NoError(t, other.Close()) })
		tx, err := p.BeginTx(t.Context(), nil)
		require.NoError(t, err)
		require.NoError(t, p.PingContext(t.Context())) // a nested acquire
		leakPause(5 * time.Second)                     // a leak
		_, err = tx.ExecContext(t.Context(), "DO 1")   // it is in use again
		require.NoError(t, err)
		require.NoError(t, tx.Commit()) // its late return
		synctest.Wait()
		assert.Equal(t, uint64(1), p.c.Stats().LateReturns)
		assert.Equal(t, uint64(1), p.c.Stats().Leaks)
		close(never)
		synctest.Wait()
	})
}

func TestAPanicOfTheApplicationLosesNoReport(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		log := &keptLog{}
		p := newLeakPool(t, &leakFake{}, Config{MaxOpen: 1, StandstillThreshold: time.Second, Logger: slog.New(log),
			OnStandstill: func(Standstill) { panic("planted") }, OnNestedAcquire: func(NestedAcquire) { panic("planted") }})
		held := takeElsewhere(t, p.DB)
		ctx, cancel := context.WithTimeout(t.Context(), 3*time.Second)
		defer cancel()
		require.ErrorIs(t, p.PingContext(ctx), context.DeadlineExceeded)
		leakPause(time.Second)
		giveBack(t, held)
		panics := 0
		for _, r := range log.take() {
			if r.message == "sqllease: a function of Config that is told of reports panicked; the report itself is not lost" {
				panics++
			}
		}
		assert.Equal(t, 2, panics)
	})
}
