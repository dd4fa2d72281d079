package sqllease

import (
	"context"
	"encoding/hex"

	"go.opentelemetry.io/otel/trace"

	"github.com/sqllease/sqllease/internal/statement"
)

// commented is the statement of a call that runs it directly, with a comment if it gets
// one, see Config.Comments.
func (o *operation) commented(ctx context.Context) string {
	c := o.h.c
	if c.cfg.Comments == CommentsOff {
		return o.query
	}
	place := o.statement().place
	if place.IsNowhere() {
		return o.query
	}
	return place.With(o.query, c.commentTags(ctx), c.cfg.Comments == CommentsPrepend)
}

// placeOf finds the place for a comment in a statement. What does not begin as SQL does
// gets none.
func (c *Connector) placeOf(query, operation string) statement.Place {
	if c.cfg.Comments == CommentsOff || operation == statement.Other {
		return statement.Place{}
	}
	return statement.PlaceOf(query, c.cfg.dialect.Grammar)
}

// commentTags are the application's, and the span of the call.
func (c *Connector) commentTags(ctx context.Context) (tags statement.Tags) {
	if c.cfg.CommentTags != nil {
		tags.Others = c.applicationsTags(ctx)
	}
	if span := trace.SpanContextFromContext(ctx); span.IsValid() {
		tags.Traceparent, tags.Tracestate = traceparent(span), span.TraceState().String()
	}
	return tags
}

// applicationsTags survives a panic of the application's function, which must
// not cost the connection that is being used.
func (c *Connector) applicationsTags(ctx context.Context) map[string]string {
	defer c.tagsPanicked.survive()
	return c.cfg.CommentTags(ctx)
}

// traceparent is W3C's header.
func traceparent(span trace.SpanContext) string {
	traceID, spanID, flags := span.TraceID(), span.SpanID(), span.TraceFlags()
	var room [len("00-") + 2*len(traceID) + len("-") + 2*len(spanID) + len("-00")]byte
	b := append(room[:0], "00-"...)
	b = hex.AppendEncode(b, traceID[:])
	b = hex.AppendEncode(append(b, '-'), spanID[:])
	b = hex.AppendEncode(append(b, '-'), []byte{byte(flags)})
	return string(b)
}
