package sqllease

import (
	"context"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
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
	cfg.Comments = true
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
	queries := []string{"SELECT 1 /* mine */", "SELECT 1 -- mine", "SELECT 1 # mine", ";", "", "SELECT '/*'", "dbo.my_procedure", "{\"find\": 1}", "VACUUM"}
	for _, query := range queries {
		exec(t, underParent(t), p.db, query)
	}
	exec(t, t.Context(), p.db, "DO 'without a trace or tags'")
	for _, s := range *got {
		assert.NotContains(t, s, "traceparent")
	}

	plain, err := Wrap(&telemetryFake{}, Config{})
	require.NoError(t, err)
	assert.Equal(t, "DO 1", plain.commented(underParent(t), "DO 1"), "there are none unless they are asked for")
	require.NoError(t, plain.Close())
}

func TestTagsMayPanic(t *testing.T) {
	p, got := commentPool(t, Config{CommentTags: func(context.Context) map[string]string { panic("the application's own bug") }})
	exec(t, underParent(t), p.db, "DO 1")
	assert.Regexp(t, `^exec: DO 1 /\*traceparent='[0-9a-f-]+'\*/$`, (*got)[0])
	assert.Equal(t, 1, p.c.Stats().Idle)
}
