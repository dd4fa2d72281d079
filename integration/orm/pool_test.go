package orm

import (
	"context"
	"database/sql"
	"fmt"
	"log/slog"
	"maps"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	sdktrace "go.opentelemetry.io/otel/sdk/trace"
	"go.opentelemetry.io/otel/sdk/trace/tracetest"
	"go.opentelemetry.io/otel/trace"

	"github.com/sqllease/sqllease"
	"github.com/sqllease/sqllease/integration/internal/servers"
)

// limit is the gate's in these tests: low, so that callers wait.
const limit = 4

// scope is the name under which sqllease makes its spans.
const scope = "github.com/sqllease/sqllease"

// quiet is for tests that provoke what is logged.
var quiet = slog.New(slog.DiscardHandler)

// databases counts those that tests have made.
var databases atomic.Int64

// pool is a wrapped *sql.DB on a database of its own, and all that is needed
// to look for what a library leaves behind.
type pool struct {
	*testing.T
	server   *servers.Server
	database string
	dsn      string
	db       *sql.DB
	conn     *sqllease.Connector

	leaks  int  // how many reports there are to be: none, unless a test says so
	roots  bool // spans need no request: the library takes no context
	spans  *tracetest.SpanRecorder
	tracer trace.Tracer

	mu       sync.Mutex
	requests map[trace.SpanID]bool // guarded by mu: the spans of all requests
}

// onServers runs a test on a pool of each of the servers.
func onServers(t *testing.T, test func(*pool)) { onServersWith(t, usual(t), test) }

// usual is the configuration of the tests of which nothing special is wanted.
func usual(t *testing.T) sqllease.Config {
	return sqllease.Config{
		MaxOpen:        limit,
		AcquireTimeout: 20 * time.Second, // the test that would hang says who holds what
		LeakThreshold:  20 * time.Second,
		OnLeak:         func(l sqllease.Leak) { t.Error(l) },
		OmitRootSpans:  true, // every call has the context of a request
	}
}

func onServersWith(t *testing.T, cfg sqllease.Config, test func(*pool)) {
	t.Run("MariaDB", func(t *testing.T) { test(newPool(t, maria, cfg)) })
	t.Run("PostgreSQL", func(t *testing.T) { test(newPool(t, postgres, cfg)) })
}

// newPool opens a pool as the recipes do: see newPoolBy.
func newPool(t *testing.T, s *servers.Server, cfg sqllease.Config) *pool {
	return newPoolBy(t, s, cfg, (*pool).open)
}

// newPoolBy opens a pool with a tracer that records everything. At the end of
// the test it is closed, and nothing may be left: no lease, no session, no
// span that has not ended.
func newPoolBy(t *testing.T, s *servers.Server, cfg sqllease.Config, open func(*pool, sqllease.Config) *sql.DB) *pool {
	p := &pool{T: t, server: s, roots: !cfg.OmitRootSpans, spans: tracetest.NewSpanRecorder(), requests: map[trace.SpanID]bool{}}
	p.database = fmt.Sprintf("orm_%d", databases.Add(1))
	p.dsn = s.DSN(p.database)
	if s == maria {
		p.dsn += "?parseTime=true"
	}
	provider := sdktrace.NewTracerProvider(sdktrace.WithSpanProcessor(p.spans), sdktrace.WithSampler(sdktrace.AlwaysSample()))
	p.tracer = provider.Tracer("test")
	p.createDatabase()
	cfg.TracerProvider = provider
	p.db = open(p, cfg)
	p.conn, _ = sqllease.ConnectorOf(p.db)
	require.NotNil(t, p.conn)
	t.Cleanup(p.leavesNothing)
	return p
}

// open opens the wrapped database as the recipes do.
func (p *pool) open(cfg sqllease.Config) *sql.DB {
	open := openMySQL
	if p.server == postgres {
		open = openPostgreSQL
	}
	db, err := open(p.dsn, cfg)
	require.NoError(p, err)
	return db
}

// admin is a bare connection to the server, beside the pool.
func (p *pool) admin() *sql.DB {
	db, err := sql.Open(p.server.Driver, p.server.DSN(""))
	require.NoError(p, err)
	db.SetMaxOpenConns(1)
	return db
}

func (p *pool) createDatabase() {
	admin := p.admin()
	defer func() { assert.NoError(p, admin.Close()) }()
	_, err := admin.ExecContext(p.Context(), "CREATE DATABASE "+p.database)
	require.NoError(p, err)
}

// leavesNothing closes the pool and looks for what is left of it.
func (p *pool) leavesNothing() {
	assert.Eventually(p, func() bool { return len(p.conn.Leases()) == 0 }, 10*time.Second, time.Millisecond,
		"a rollback by a context's end may take a moment, but every lease ends: %v", p.conn.Leases())
	assert.Zero(p, p.conn.Stats().InUse)
	assert.Zero(p, p.conn.Stats().Waiting)
	assert.EqualValues(p, p.leaks, p.conn.Stats().Leaks)
	assert.NoError(p, p.db.Close())
	assert.Eventually(p, func() bool { return p.conn.Stats().Open == 0 }, 10*time.Second, time.Millisecond,
		"a session that a context's end cost is closed by the goroutine that rolled back")
	p.spansAreWhole()
}

// spansAreWhole checks that every span has ended, and that those of sqllease
// are children of a request or of a transaction or an acquire, or, of a library
// that takes no context, roots.
func (p *pool) spansAreWhole() {
	assert.Eventually(p, func() bool { return len(p.notEnded()) == 0 }, 10*time.Second, time.Millisecond,
		"reports are told aside, but every span ends")
	assert.Empty(p, p.notEnded())
	parents := maps.Clone(p.requests)
	for _, s := range p.spans.Ended() {
		if s.Name() == "transaction" || s.Name() == "pool.acquire" {
			parents[s.SpanContext().SpanID()] = true
		}
	}
	for _, s := range p.spans.Ended() {
		if s.InstrumentationScope().Name == scope && (s.Parent().IsValid() || !p.roots) {
			assert.True(p, parents[s.Parent().SpanID()], "the span %q has no request for a parent", s.Name())
		}
	}
}

// notEnded are the names of the spans that have not ended.
func (p *pool) notEnded() (names []string) {
	ended := map[trace.SpanID]bool{}
	for _, s := range p.spans.Ended() {
		ended[s.SpanContext().SpanID()] = true
	}
	for _, s := range p.spans.Started() {
		if !ended[s.SpanContext().SpanID()] {
			names = append(names, s.Name())
		}
	}
	return names
}

// request does something as an application does it for a caller: in a span.
func (p *pool) request(do func(ctx context.Context)) {
	ctx, span := p.tracer.Start(p.Context(), "request")
	defer span.End()
	p.mu.Lock()
	p.requests[span.SpanContext().SpanID()] = true
	p.mu.Unlock()
	do(ctx)
}

// crowd does many requests at once.
func (p *pool) crowd(n int, do func(ctx context.Context, i int)) {
	var all sync.WaitGroup
	for i := range n {
		all.Go(func() { p.request(func(ctx context.Context) { do(ctx, i) }) })
	}
	all.Wait()
}

// wantSpans checks that there are spans of these names.
func (p *pool) wantSpans(names ...string) {
	have := map[string]bool{}
	for _, s := range p.spans.Ended() {
		have[s.Name()] = true
	}
	for _, name := range names {
		assert.True(p, have[name], "there is no span %q, but there are %v", name, slices.Sorted(maps.Keys(have)))
	}
}

// heldHere checks that one connection is held, and that its lease says so:
// with the stack down to the code of this package, through all of the
// library's, and whether it is in a transaction.
func (p *pool) heldHere(inTx bool) {
	leases := p.conn.Leases()
	if !assert.Len(p, leases, 1) {
		return
	}
	assert.Equal(p, inTx, leases[0].InTx)
	assert.Contains(p, leases[0].Stack.String(), "integration/orm.(*pool).request", "whom the connection is held for")
	assert.True(p, p.requests[leases[0].SpanContext.SpanID()], "whose trace it is held in")
}

// watchSessions counts the pool's sessions on the server, again and again,
// until stop is called: it returns the most that there were.
func (p *pool) watchSessions() (stop func() int) {
	count := "SELECT COUNT(*) FROM information_schema.processlist WHERE db = '%s'"
	if p.server == postgres {
		count = "SELECT COUNT(*) FROM pg_stat_activity WHERE datname = '%s'"
	}
	count = fmt.Sprintf(count, p.database)
	admin, ctx := p.admin(), p.Context()
	done, result := make(chan struct{}), make(chan int)
	go func() {
		defer func() { assert.NoError(p, admin.Close()) }()
		most := 0
		for {
			var n int
			assert.NoError(p, admin.QueryRowContext(ctx, count).Scan(&n))
			most = max(most, n)
			select {
			case <-done:
				result <- most
				return
			case <-time.After(2 * time.Millisecond):
			}
		}
	}()
	return func() int { close(done); return <-result }
}

// execAll executes the statements of a script one by one.
func (p *pool) execAll(ctx context.Context, script string) error {
	for statement := range strings.SplitSeq(script, ";") {
		if strings.TrimSpace(statement) == "" {
			continue
		}
		if _, err := p.db.ExecContext(ctx, statement); err != nil {
			return err
		}
	}
	return nil
}
