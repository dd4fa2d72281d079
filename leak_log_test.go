package sqllease

import (
	"fmt"
	"log/slog"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// A report as a log record, and as a text.

func TestAReportIsALogRecord(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		log := &keptLog{}
		p := newLeakPool(t, &leakFake{takes: map[string]time.Duration{"connect": 1500 * time.Millisecond}}, Config{Logger: slog.New(log)})
		ctx, span := leakTraced(t)
		tx, err := p.BeginTx(ctx, nil)
		site := leakSiteAbove()
		require.NoError(t, err)
		acquired := time.Now()
		_, err = tx.ExecContext(ctx, "UPDATE t SET a = 'secret'")
		require.NoError(t, err)
		leakPause(30 * time.Second)
		l := p.one(t)

		want := map[string]any{
			"leak.lease":      uint64(1),
			"leak.class":      "unused",
			"leak.site":       site,
			"leak.times":      int64(1),
			"pool":            "orders",
			"leak.folded":     int64(0),
			"leak.held_here":  int64(1),
			"leak.hold":       30 * time.Second,
			"leak.acquired":   acquired,
			"leak.waited":     1500 * time.Millisecond,
			"leak.doing":      "idle in transaction for 30s",
			"leak.in_tx":      true,
			"leak.open_rows":  int64(0),
			"leak.fix":        "end the *sql.Tx on every path: defer tx.Rollback() right after BeginTx; if your code does that already, move slow work, such as an HTTP call, out of the transaction",
			"leak.call":       "exec",
			"leak.call_begun": acquired,
			"leak.statement":  "UPDATE t SET a = ?",
			"leak.trace_id":   "a10000000000000000000000000000f1",
			"leak.span_id":    "b2000000000000f2",
			"leak.stack":      l.Stack.Line(),
		}
		assert.Equal(t, []keptRecord{{slog.LevelWarn, "sqllease: leaked connection: checked out but unused for longer than Config.LeakThreshold", want, span}}, log.take())

		leakPause(time.Second)
		require.NoError(t, tx.Rollback())
		synctest.Wait()
		records := log.take()
		require.Len(t, records, 1)
		assert.Equal(t, slog.LevelInfo, records[0].level)
		assert.Equal(t, "sqllease: a reported connection came back", records[0].message)
		assert.Equal(t, 31*time.Second, records[0].attrs["leak.hold"])
		assert.Equal(t, span, records[0].span)
		assert.NotContains(t, records[0].attrs, "leak.stack")
		assert.NotContains(t, records[0].attrs, "leak.doing", "it does nothing any more")
	})
}

func TestAReportIsReadInLines(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newLeakPool(t, &leakFake{}, Config{})
		ctx, _ := leakTraced(t)
		conn, err := p.Conn(ctx)
		site := leakSiteAbove()
		require.NoError(t, err)
		_, err = conn.ExecContext(ctx, "UPDATE t SET a = 'secret'")
		require.NoError(t, err)
		leakPause(30 * time.Second)
		text := p.one(t).String()
		head, stack, found := strings.Cut(text, "  stack\n")
		require.True(t, found, text)
		assert.Equal(t, `sqllease: pool "orders": leaked connection: checked out but unused for longer than 30s (lease 1)
  taken by   `+site+`
  held       30s, since 2000-01-01T00:00:00.000Z, after waiting 0s for it
  doing      unused for 30s
  last call  exec, begun 30s ago
  statement  UPDATE t SET a = ?
  trace      a10000000000000000000000000000f1 span b2000000000000f2
  fix        close the *sql.Conn on every path: defer conn.Close() right after DB.Conn; if your code does that already, close it before slow work, or take it with sqllease.WithHoldLimit
`, head)
		lines := strings.Split(strings.TrimSuffix(stack, "\n"), "\n")
		assert.Regexp(t, `^    github.com/sqllease/sqllease\.TestAReportIsReadInLines\.func1$`, lines[0])
		assert.Regexp(t, `^    \t.*leak_log_test\.go:\d+$`, lines[1])
		for i, line := range lines {
			assert.Equal(t, i%2 == 1, strings.HasPrefix(line, "    \t"), "a function, then its place: %q", line)
		}
		require.NoError(t, conn.Close())
	})
}

func TestALeaseIsReadInOneLine(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newLeakPool(t, &leakFake{takes: map[string]time.Duration{"exec": time.Minute}}, Config{LeakThreshold: -1})
		conn := p.lease(t)
		site := p.c.Leases()[0].Stack.Site()
		<-time.After(3 * time.Second)
		assert.Equal(t, "lease 1: taken by "+site+", held 3s, unused for 3s", fmt.Sprint(p.c.Leases()[0]))
		done := make(chan error)
		go func() {
			_, err := conn.ExecContext(t.Context(), "UPDATE t SET a = 'secret'")
			done <- err
		}()
		<-time.After(time.Second)
		assert.Equal(t, "lease 1: taken by "+site+", held 4s, in exec for 1s: UPDATE t SET a = ?", fmt.Sprint(p.c.Leases()[0]))
		require.NoError(t, <-done)
		assert.Equal(t, "lease 1: taken by "+site+", held 1m3s, unused for 0s; last statement: UPDATE t SET a = ?", fmt.Sprint(p.c.Leases()[0]))
		require.NoError(t, conn.Close())
	})
}

func TestALongStatementIsCutInAReportAtACharacter(t *testing.T) {
	short := strings.Repeat("é", 60)
	assert.Equal(t, short, shorten(short))
	assert.Equal(t, short+"…", shorten(short+"é"))
	assert.Equal(t, "x"+strings.Repeat("é", 59)+"…", shorten("x"+short))
}
