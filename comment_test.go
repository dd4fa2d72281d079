package sqllease

import (
	"context"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"go.opentelemetry.io/otel/trace"
)

// commentPool is a pool that adds comments, and the statements that its driver got.
func commentPool(t *testing.T, cfg Config) (p *telemetryPool, got *[]string) {
	got = &[]string{}
	f := &telemetryFake{on: func(_ context.Context, call, query string) error {
		if query != "" {
			*got = append(*got, call+": "+query)
		}
		return nil
	}}
	if cfg.Comments == CommentsOff {
		cfg.Comments = CommentsAppend
	}
	return newTelemetryPool(t, f, cfg), got
}

func TestAStatementLeadsToItsTrace(t *testing.T) {
	p, got := commentPool(t, Config{CommentTags: func(context.Context) map[string]string {
		return map[string]string{"route": "/orders/:id", "": "no key", "app": "it's a shop"}
	}})
	exec(t, underParent(t), p.db, "DO 1") // until a call has shown that the driver does not decline, the span comes after it
	*got = nil
	p.takeAll()
	exec(t, underParent(t), p.db, "UPDATE stock SET n = 7;\n")
	span := p.take()[0]
	traceparent := "00-" + span.SpanContext().TraceID().String() + "-" + span.SpanContext().SpanID().String() + "-01"
	assert.Equal(t, []string{"exec: UPDATE stock SET n = 7 /*app='it%27s%20a%20shop',route='%2Forders%2F%3Aid',traceparent='" + traceparent + "'*/;\n"}, *got)
	assert.Equal(t, "UPDATE stock SET n = ?", strings.TrimRight(spanAttributes(span)["db.query.text"].(string), ";\n"), "the span is that of the statement")

	*got = nil
	rows, err := p.db.QueryContext(underParent(t), "SELECT a FROM t")
	require.NoError(t, err)
	require.NoError(t, rows.Err())
	require.NoError(t, rows.Close())
	assert.Regexp(t, `^query: SELECT a FROM t /\*app='.*',traceparent='.*'\*/$`, (*got)[0])
}

func TestWhatHasNoComment(t *testing.T) {
	p, got := commentPool(t, Config{OmitRootSpans: true})
	st, err := p.db.PrepareContext(underParent(t), "SELECT a FROM t")
	require.NoError(t, err)
	_, err = st.ExecContext(underParent(t))
	require.NoError(t, err)
	require.NoError(t, st.Close())
	queries := []string{"SELECT 1 /*traceparent='mine'*/", ";", "", "SELECT '/*", "dbo.my_procedure", "{\"find\": 1}", "VACUUM", "CREATE VIEW v AS SELECT 1"}
	for _, query := range queries {
		exec(t, underParent(t), p.db, query)
	}
	exec(t, t.Context(), p.db, "DO 'without a trace or tags'")
	for _, s := range *got {
		assert.NotContains(t, s, "traceparent='0")
	}

	plain, err := Wrap(&telemetryFake{}, Config{})
	require.NoError(t, err)
	o := operation{h: &handle{c: plain}, query: "DO 1"}
	assert.Equal(t, "DO 1", o.commented(underParent(t)), "there are none unless they are asked for")
	require.NoError(t, plain.Close())
}

func TestTagsMayPanic(t *testing.T) {
	p, got := commentPool(t, Config{CommentTags: func(context.Context) map[string]string { panic("the application's own bug") }})
	exec(t, underParent(t), p.db, "DO 1")
	assert.Regexp(t, `^exec: DO 1 /\*traceparent='[0-9a-f-]+'\*/$`, (*got)[0])
	assert.Equal(t, 1, p.c.Stats().Idle)
}

func TestACommentGoesInFrontOfALongStatement(t *testing.T) {
	p, got := commentPool(t, Config{Comments: CommentsPrepend})
	exec(t, underParent(t), p.db, "-- name: Touch :exec\nUPDATE stock SET n = '--'")
	exec(t, underParent(t), p.db, "UPDATE /*+ a */ stock SET n = 1")
	assert.Regexp(t, `^exec: -- name: Touch :exec\n/\*traceparent='[0-9a-f-]+'\*/ UPDATE stock SET n = '--'$`, (*got)[0])
	assert.Regexp(t, `^exec: UPDATE /\*\+ a \*/ stock SET n = 1 /\*traceparent='[0-9a-f-]+'\*/$`, (*got)[1])
}

func TestATraceIsWrittenAsItsHeaderIs(t *testing.T) {
	state, err := trace.ParseTraceState("congo=t61")
	require.NoError(t, err)
	span := trace.NewSpanContext(trace.SpanContextConfig{TraceID: trace.TraceID{0xab, 15: 1}, SpanID: trace.SpanID{7: 0x0f}, TraceFlags: trace.FlagsSampled, TraceState: state})
	assert.Equal(t, "00-ab000000000000000000000000000001-000000000000000f-01", traceparent(span))
	p, got := commentPool(t, Config{})
	exec(t, trace.ContextWithRemoteSpanContext(t.Context(), span), p.db, "DO 1")
	assert.Contains(t, (*got)[0], "tracestate='congo%3Dt61'")
}

// The first direct call of a driver that has shown nothing yet has its trace, too.
func TestTheFirstCallOfAPoolHasItsTrace(t *testing.T) {
	p, got := commentPool(t, Config{})
	exec(t, t.Context(), p.db, "DO 1")
	spans := p.take()
	require.Len(t, *got, 1)
	assert.Contains(t, (*got)[0], spans[len(spans)-1].SpanContext().SpanID().String())
}
