package sqllease

import (
	"context"
	"database/sql"
	"database/sql/driver"
	"errors"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"go.opentelemetry.io/otel/codes"
	sdktrace "go.opentelemetry.io/otel/sdk/trace"
	"go.opentelemetry.io/otel/trace"
)

// The spans of transactions.

func TestATransactionHasSpansForItsEnds(t *testing.T) {
	for name, test := range map[string]struct {
		end  func(*sql.Tx) error
		want string
	}{
		"commit":   {(*sql.Tx).Commit, "commit"},
		"rollback": {(*sql.Tx).Rollback, "rollback"},
	} {
		t.Run(name, func(t *testing.T) {
			p := newTelemetryPool(t, &telemetryFake{}, Config{})
			tx, err := p.db.BeginTx(underParent(t), nil)
			require.NoError(t, err)
			_, err = tx.ExecContext(underParent(t), "DO 1")
			require.NoError(t, err)
			require.NoError(t, test.end(tx))
			require.Error(t, test.end(tx))
			spans := p.takeAll()
			require.Equal(t, []string{"pool.dial", "pool.acquire", "begin", "DO", test.want, "transaction"}, spanNames(spans))
			tx1, do := spans[5], spans[3]
			assert.Equal(t, telemetryParent.SpanID(), tx1.Parent().SpanID())
			assert.Equal(t, telemetryParent.SpanID(), spans[1].Parent().SpanID())
			for _, s := range []sdktrace.ReadOnlySpan{spans[2], do, spans[4]} {
				assert.Equal(t, tx1.SpanContext().SpanID(), s.Parent().SpanID())
				assert.Empty(t, s.Links())
			}
			assert.Equal(t, map[string]string{"commit": "committed", "rollback": "rolled back"}[test.want], spanAttributes(tx1)["sqllease.tx.outcome"])
			assert.Equal(t, codes.Unset, tx1.Status().Code)
			assert.ElementsMatch(t, []string{"begin", "DO", test.want}, p.values(t, "db.client.operation.duration", "db.operation.name"))
		})
	}
}

func TestTheRollbackOfAnEndedContextHasItsParent(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newTelemetryPool(t, &telemetryFake{}, Config{})
		ctx, cancel := context.WithCancel(underParent(t))
		_, err := p.db.BeginTx(ctx, nil)
		require.NoError(t, err)
		cancel()
		synctest.Wait()
		spans := p.takeAll()
		require.Equal(t, []string{"pool.dial", "pool.acquire", "begin", "rollback", "transaction"}, spanNames(spans))
		assert.Equal(t, spans[4].SpanContext().SpanID(), spans[3].Parent().SpanID())
		assert.Equal(t, telemetryParent.SpanID(), spans[4].Parent().SpanID())
		assert.Equal(t, codes.Unset, spans[3].Status().Code)
	})
}

// However a transaction ends, its span ends, and says how.
func TestATransactionsSpanTellsItsOutcome(t *testing.T) {
	failure := errors.New("no")
	for want, test := range map[string]struct {
		on  func(context.Context, string, string) error
		end func(*testing.T, *telemetryPool, *sql.Tx)
	}{
		"not begun": {failing("begin", failure), nil},
		"failed":    {failing("commit", failure), func(t *testing.T, _ *telemetryPool, tx *sql.Tx) { require.Error(t, tx.Commit()) }},
		"lost": {nil, func(t *testing.T, _ *telemetryPool, tx *sql.Tx) {
			elapse(time.Hour) // it is reclaimed
			require.Error(t, tx.Commit())
		}},
	} {
		t.Run(want, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				p := newTelemetryPool(t, &telemetryFake{on: test.on}, Config{ReclaimAfter: time.Minute})
				tx, err := p.db.BeginTx(underParent(t), nil)
				if test.end == nil {
					require.Error(t, err)
				} else {
					require.NoError(t, err)
					test.end(t, p, tx)
				}
				synctest.Wait()
				spans := slices.DeleteFunc(slices.Clone(p.takeAll()), func(s sdktrace.ReadOnlySpan) bool { return s.Name() != "transaction" })
				require.Len(t, spans, 1)
				assert.Equal(t, want, spanAttributes(spans[0])["sqllease.tx.outcome"])
				assert.Equal(t, codes.Error, spans[0].Status().Code)
			})
		})
	}
}

// database/sql may begin a transaction on a connection before it has rolled back
// one whose context ended.
func TestOverlappingTransactionsEndTheirSpans(t *testing.T) {
	p := newTelemetryPool(t, &telemetryFake{}, Config{})
	conn, err := p.db.Conn(t.Context())
	require.NoError(t, err)
	for range 300 {
		ctx, cancel := context.WithCancel(underParent(t))
		tx, err := conn.BeginTx(ctx, nil)
		require.NoError(t, err)
		cancel()
		_ = tx.Commit()
		tx, err = conn.BeginTx(underParent(t), nil)
		require.NoError(t, err)
		require.NoError(t, tx.Commit())
	}
	require.NoError(t, conn.Close()) // and newTelemetryPool checks that all have ended
}

// A statement of a transaction is its child where the application gives both the same span,
// and linked to it where it gives the statement another.
func TestAStatementBelongsToItsTransaction(t *testing.T) {
	p := newTelemetryPool(t, &telemetryFake{}, Config{})
	another := trace.ContextWithSpanContext(t.Context(), trace.NewSpanContext(trace.SpanContextConfig{
		TraceID: trace.TraceID{1}, SpanID: trace.SpanID{3}, TraceFlags: trace.FlagsSampled,
	}))
	for name, c := range map[string]struct {
		begin, use context.Context
		child      bool
	}{
		"the same span":             {underParent(t), underParent(t), true},
		"another span":              {underParent(t), another, false},
		"no span at all":            {t.Context(), t.Context(), true},
		"no span for the use":       {underParent(t), t.Context(), false},
		"no span for the beginning": {t.Context(), underParent(t), false},
	} {
		t.Run(name, func(t *testing.T) {
			p.takeAll()
			tx, err := p.db.BeginTx(c.begin, nil)
			require.NoError(t, err)
			_, err = tx.ExecContext(c.use, "DO 1")
			require.NoError(t, err)
			require.NoError(t, tx.Commit())
			var whole, do sdktrace.ReadOnlySpan
			for _, s := range p.takeAll() {
				switch s.Name() {
				case "transaction":
					whole = s
				case "DO":
					do = s
				}
			}
			if c.child {
				assert.Equal(t, whole.SpanContext(), do.Parent())
				assert.Empty(t, do.Links())
				return
			}
			assert.Equal(t, trace.SpanContextFromContext(c.use).SpanID(), do.Parent().SpanID())
			require.Len(t, do.Links(), 1)
			assert.Equal(t, whole.SpanContext(), do.Links()[0].SpanContext)
		})
	}
}

func TestATransactionsSpanTellsWhatItsConnectionWasUsedFor(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := &telemetryFake{answer: []driver.Value{int64(1)}, on: func(_ context.Context, call, _ string) error {
			elapse(map[string]time.Duration{"exec": 2 * time.Second, "query": 3 * time.Second, "commit": time.Second}[call])
			return nil
		}}
		p := newTelemetryPool(t, f, Config{})
		tx, err := p.db.BeginTx(underParent(t), nil)
		require.NoError(t, err)
		elapse(10 * time.Second)
		_, err = tx.ExecContext(underParent(t), "DO 1")
		require.NoError(t, err)
		rows, err := tx.QueryContext(underParent(t), "SELECT 1")
		require.NoError(t, err)
		elapse(4 * time.Second) // rows are open: the query goes on
		require.NoError(t, rows.Close())
		require.NoError(t, rows.Err())
		elapse(20 * time.Second)
		require.NoError(t, tx.Commit())
		spans := p.takeAll()
		got := spanAttributes(spans[len(spans)-1])
		assert.Equal(t, 10.0, got["sqllease.tx.busy"])
		assert.Equal(t, 30.0, got["sqllease.tx.idle"])
	})
}
