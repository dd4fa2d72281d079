package sqllease

import (
	"context"
	"database/sql"
	"database/sql/driver"
	"fmt"
	"io"
	"log/slog"
	"path"
	"path/filepath"
	"runtime"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"go.opentelemetry.io/otel/trace"
)

// leakPool is a wrapped database and what it reported.
type leakPool struct {
	*sql.DB
	c *Connector

	mu      sync.Mutex
	reports []leakReport // guarded by mu
}

type leakReport struct {
	Leak
	at time.Time
}

// newLeakPool opens a database, in a bubble, that the test closes by ending.
func newLeakPool(t *testing.T, f *leakFake, cfg Config) *leakPool {
	p := &leakPool{}
	if f.rows == nil {
		f.rows = [][]driver.Value{{int64(1)}, {int64(2)}}
	}
	if cfg.Name == "" {
		cfg.Name = "orders"
	}
	if cfg.Logger == nil {
		cfg.Logger = slog.New(slog.DiscardHandler)
	}
	if then := cfg.OnLeak; true {
		cfg.OnLeak = func(l Leak) {
			p.mu.Lock()
			p.reports = append(p.reports, leakReport{l, time.Now()})
			p.mu.Unlock()
			if then != nil {
				then(l)
			}
		}
		cfg.OnSlowCall = func(s SlowCall) { // tests look at both as one story
			l := s.report()
			assert.Equal(t, l.String(), s.String())
			p.mu.Lock()
			defer p.mu.Unlock()
			p.reports = append(p.reports, leakReport{l, time.Now()})
		}
	}
	db, err := OpenDB(f, cfg)
	require.NoError(t, err)
	t.Cleanup(func() { assert.NoError(t, db.Close()) })
	p.DB = db
	p.c, _ = ConnectorOf(db)
	return p
}

// take returns what was reported since it was last called.
func (p *leakPool) take() []leakReport {
	synctest.Wait()
	p.mu.Lock()
	defer p.mu.Unlock()
	reports := p.reports
	p.reports = nil
	return reports
}

// one is the one report there is.
func (p *leakPool) one(t *testing.T) leakReport {
	t.Helper()
	reports := p.take()
	require.Len(t, reports, 1)
	return reports[0]
}

// lease takes a connection.
func (p *leakPool) lease(t *testing.T) *sql.Conn {
	t.Helper()
	conn, err := p.Conn(t.Context())
	require.NoError(t, err)
	return conn
}

// leakPause lets virtual time pass, and all that is due in it happen.
func leakPause(d time.Duration) {
	<-time.After(d)
	synctest.Wait()
}

// leakSiteAbove is the site of the line above its caller's.
func leakSiteAbove() string {
	pc, file, line, _ := runtime.Caller(1)
	dir, file := filepath.Split(file)
	return fmt.Sprintf("%s/%s:%d %s", filepath.Base(dir), file, line-1, path.Base(runtime.FuncForPC(pc).Name()))
}

func leakConn(t *testing.T, db *sql.DB) io.Closer {
	conn, err := db.Conn(t.Context())
	require.NoError(t, err)
	return conn
}

// leakTxCloser is a Tx that ends by being closed.
type leakTxCloser struct{ *sql.Tx }

// Close rolls back.
func (t leakTxCloser) Close() error { return t.Rollback() }

func leakTx(t *testing.T, db *sql.DB) io.Closer {
	tx, err := db.BeginTx(t.Context(), nil)
	require.NoError(t, err)
	return leakTxCloser{tx}
}

func leakRows(t *testing.T, db *sql.DB) io.Closer {
	rows, err := db.QueryContext(t.Context(), "SELECT a FROM t")
	require.NoError(t, err)
	require.True(t, rows.Next())
	return rows
}

// leakTraced is a context with a span of a trace of its own.
func leakTraced(t *testing.T) (context.Context, trace.SpanContext) {
	span := trace.NewSpanContext(trace.SpanContextConfig{
		TraceID:    trace.TraceID{0xA1, 15: 0xF1},
		SpanID:     trace.SpanID{0xB2, 7: 0xF2},
		TraceFlags: trace.FlagsSampled,
	})
	return trace.ContextWithSpanContext(t.Context(), span), span
}

// waiter starts an acquire that is going to queue, and returns its error.
func (p *leakPool) waiter(ctx context.Context) <-chan error {
	failed := make(chan error, 1)
	go func() {
		conn, err := p.Conn(ctx)
		if err == nil {
			err = conn.Close()
		}
		failed <- err
	}()
	synctest.Wait()
	return failed
}
