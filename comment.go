package sqllease

import (
	"context"
	"fmt"
	"maps"

	"go.opentelemetry.io/otel/trace"

	"github.com/sqllease/sqllease/internal/statement"
)

// commented appends a comment to a statement that is run directly, with the tags of its
// call, see Config.Comments.
func (c *Connector) commented(ctx context.Context, query string) string {
	if !c.cfg.Comments || !statement.TakesComment(query, c.summaries.Of(query).Operation) {
		return query
	}
	return statement.WithComment(query, c.commentTags(ctx))
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
	return tags
}

// applicationsTags survives a panic of the application's function, which must
// not cost the connection that is being used.
func (c *Connector) applicationsTags(ctx context.Context, tags map[string]string) {
	defer c.tagsPanicked.survive()
	maps.Copy(tags, c.cfg.CommentTags(ctx))
}
