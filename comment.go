package sqllease

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"

	"go.opentelemetry.io/otel/trace"
)

// commented appends a comment to a statement that is run directly, in the
// format of sqlcommenter (https://google.github.io/sqlcommenter/spec/): sorted
// pairs of key='value', percent-encoded. A statement with a comment of its own
// is left as it is, and so is what does not begin as SQL does.
func (c *Connector) commented(ctx context.Context, query string) string {
	if !c.cfg.Comments {
		return query
	}
	body := strings.TrimRight(query, "; \t\r\n")
	if body == "" || strings.Contains(body, "/*") || strings.Contains(body, "--") || strings.Contains(body, "#") {
		return query // a comment in a comment, or behind one, says nothing
	}
	if !strings.ContainsAny(body, " \t\r\n") || c.summaries.of(query).operation == "OTHER" {
		return query // the name of a procedure or of a prepared statement, or what is no SQL
	}
	tags := c.commentTags(ctx)
	if len(tags) == 0 {
		return query
	}
	pairs := make([]string, 0, len(tags))
	for _, key := range slices.Sorted(maps.Keys(tags)) {
		pairs = append(pairs, encoded(key)+"='"+encoded(tags[key])+"'")
	}
	return body + " /*" + strings.Join(pairs, ",") + "*/" + query[len(body):]
}

// commentTags are the application's, and the span of the call.
func (c *Connector) commentTags(ctx context.Context) map[string]string {
	tags := map[string]string{}
	if c.cfg.CommentTags != nil {
		c.applicationsTags(ctx, tags)
	}
	if span := trace.SpanContextFromContext(ctx); span.IsValid() {
		tags["traceparent"] = fmt.Sprintf("00-%s-%s-%s", span.TraceID(), span.SpanID(), span.TraceFlags())
		if state := span.TraceState().String(); state != "" {
			tags["tracestate"] = state
		}
	}
	delete(tags, "")
	return tags
}

// applicationsTags survives a panic of the application's function, which must
// not cost the connection that is being used.
func (c *Connector) applicationsTags(ctx context.Context, tags map[string]string) {
	defer c.tagsPanicked.survive()
	maps.Copy(tags, c.cfg.CommentTags(ctx))
}

// encoded writes every byte but letters, digits and -._~ as %XX: what is left
// can neither end a comment nor begin one that a server executes.
func encoded(s string) string {
	const hex = "0123456789ABCDEF"
	var b strings.Builder
	for i := range len(s) {
		switch ch := s[i]; {
		case 'a' <= ch && ch <= 'z', 'A' <= ch && ch <= 'Z', '0' <= ch && ch <= '9', strings.IndexByte("-._~", ch) >= 0:
			b.WriteByte(ch)
		default:
			b.Write([]byte{'%', hex[ch>>4], hex[ch&15]})
		}
	}
	return b.String()
}
