package sqllease

import (
	"context"
	"database/sql"
	"runtime"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	sdktrace "go.opentelemetry.io/otel/sdk/trace"
)

// Leases that an application's own code leaves unused: its Valuers, filters and span
// processors.

// database/sql does not give back the connection of db.Query, Stmt.Query and Stmt.Exec if
// an argument's Valuer panics (the server of net/http recovers that). Such a lease is idle
// in hand for ever, and Config.ReclaimAfter is the fix for it.
func TestALeaseWhoseValuerPanickedIsReclaimed(t *testing.T) {
	panics := valuer{func() error { panic("a Valuer of the application's") }}
	for name, use := range map[string]func(db *sql.DB, st *sql.Stmt){
		"DB.Query": func(db *sql.DB, _ *sql.Stmt) {
			_, _ = db.QueryContext(context.Background(), "SELECT ?", panics)
		},
		"Stmt.Query": func(_ *sql.DB, st *sql.Stmt) { _, _ = st.QueryContext(context.Background(), panics) },
		"Stmt.Exec":  func(_ *sql.DB, st *sql.Stmt) { _, _ = st.ExecContext(context.Background(), panics) },
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				db, c := openPool(t, &leakFake{}, Config{MaxOpen: 1, LeakThreshold: time.Second, ReclaimAfter: time.Minute})
				st, err := db.PrepareContext(t.Context(), "SELECT ?")
				require.NoError(t, err)
				for range 3 { // the stack is recognised the second time
					use := func() { defer func() { _ = recover() }(); use(db, st) }
					use()
					leakPause(10 * time.Minute)
					require.Zero(t, c.Stats().InUse, "it was not reclaimed")
				}
			})
		})
	}
}

// Nor does a lease use its session while the application works out an argument.
func TestALeaseWhoseValuerWaitsIsReclaimed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		db, c := openPool(t, &leakFake{}, Config{MaxOpen: 1, LeakThreshold: time.Second, ReclaimAfter: time.Minute})
		waits := valuer{func() error { elapse(time.Hour); return nil }}
		for range 3 {
			done := make(chan error)
			go func() {
				_, err := db.ExecContext(context.Background(), "UPDATE t SET a = ?", waits)
				done <- err
			}()
			leakPause(10 * time.Minute)
			held := c.Stats().InUse
			wantReclaimed(t, <-done)
			require.Zero(t, held, "it was not reclaimed")
		}
	})
}

// endingProcessor ends the goroutine that starts or ends a span.
type endingProcessor struct{ starts, ends *atomic.Bool }

func (p endingProcessor) OnStart(context.Context, sdktrace.ReadWriteSpan) {
	endIf(p.starts)
}
func (p endingProcessor) OnEnd(sdktrace.ReadOnlySpan)    { endIf(p.ends) }
func (endingProcessor) Shutdown(context.Context) error   { return nil }
func (endingProcessor) ForceFlush(context.Context) error { return nil }

func endIf(now *atomic.Bool) {
	if now != nil && now.Load() {
		runtime.Goexit()
	}
}

// Config.FilterSpan and the tracer provider may end the goroutine (a failed require does).
// database/sql does not give back the connection of db.Query, Stmt.Exec and of rows then:
// it is unused, is reported, and Config.ReclaimAfter takes it.
func TestALeaseWhoseGoroutineWasEndedByTheApplicationIsReclaimed(t *testing.T) {
	query := func(db *sql.DB, _ *sql.Stmt) {
		if rows, err := db.QueryContext(context.Background(), "SELECT 1"); err == nil {
			_ = rows.Close()
		}
	}
	exec := func(_ *sql.DB, st *sql.Stmt) { _, _ = st.ExecContext(context.Background()) }
	for name, scene := range map[string]struct {
		use  func(*sql.DB, *sql.Stmt)
		with func(exits *atomic.Bool, cfg *Config, p *endingProcessor)
	}{
		"FilterSpan of DB.Query": {query, func(exits *atomic.Bool, cfg *Config, _ *endingProcessor) {
			cfg.FilterSpan = func(context.Context, Operation) bool { endIf(exits); return true }
		}},
		"OnStart of DB.Query":           {query, func(exits *atomic.Bool, _ *Config, p *endingProcessor) { p.starts = exits }},
		"OnEnd of Stmt.Exec":            {exec, func(exits *atomic.Bool, _ *Config, p *endingProcessor) { p.ends = exits }},
		"OnEnd of DB.Query, at its end": {query, func(exits *atomic.Bool, _ *Config, p *endingProcessor) { p.ends = exits }},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				var exits atomic.Bool
				var mu sync.Mutex
				var reports []Leak // guarded by mu
				var p endingProcessor
				cfg := Config{
					LeakThreshold: time.Second, ReclaimAfter: time.Minute,
					OnLeak: func(l Leak) { mu.Lock(); defer mu.Unlock(); reports = append(reports, l) },
				}
				scene.with(&exits, &cfg, &p)
				cfg.TracerProvider = sdktrace.NewTracerProvider(sdktrace.WithSpanProcessor(p))
				db, c := openPool(t, &gateFake{t: t}, cfg)
				st, err := db.PrepareContext(t.Context(), "DO 1")
				require.NoError(t, err)
				use := func() {
					done := make(chan struct{})
					go func() { defer close(done); scene.use(db, st) }()
					<-done
				}
				use()
				use()
				use()
				exits.Store(true)
				use()
				exits.Store(false)
				require.Equal(t, 1, c.Stats().InUse, "database/sql does not give it back")
				leakPause(10 * time.Minute)
				mu.Lock()
				defer mu.Unlock()
				require.NotEmpty(t, reports)
				assert.Equal(t, ClassUnused, reports[0].Class, reports[0].String())
				assert.Zero(t, c.Stats().InUse, "it was not reclaimed")
			})
		})
	}
}

// The error of a call that comes too late has the lease as it stood when it was reclaimed.
func TestAReclaimedErrorHasTheLeaseAsItStood(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newLeakPool(t, &leakFake{}, Config{LeakThreshold: time.Second, ReclaimAfter: time.Minute})
		tx, err := p.BeginTx(t.Context(), nil)
		require.NoError(t, err)
		_, err = tx.ExecContext(t.Context(), "DO 1")
		require.NoError(t, err)
		before := p.c.Leases()[0]
		leakPause(2 * time.Minute)
		_, err = tx.ExecContext(t.Context(), "DO 2")
		var e *ReclaimedError
		require.ErrorAs(t, err, &e)
		assert.Equal(t, CallExec, e.Lease.Call)
		assert.Equal(t, before.Statement, e.Lease.Statement)
		assert.Equal(t, before.Begun, e.Lease.Begun)
		assert.Equal(t, before.Since, e.Lease.Since)
		assert.False(t, e.Lease.Busy)
		_ = tx.Rollback()
	})
}
